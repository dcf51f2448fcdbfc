/* head.h: the request head of HTTP/1.x, parsed strictly (RFC 9112 sections 2, 3 and 5).
 *
 * No I/O, no allocation, no clock. The parsed head borrows from the caller's buffer, which must neither move nor
 * change while the head is in use. Any thread. */
#ifndef AS_HTTP_HEAD_H
#define AS_HTTP_HEAD_H

#include "base/error.h"
#include "base/str.h"
#include "http/limits.h"

typedef enum as_method {
    AS_METHOD_OTHER = 0, /* a valid token that the core gives no meaning to; handlers may know it */
    AS_METHOD_GET,
    AS_METHOD_HEAD,
    AS_METHOD_POST,
    AS_METHOD_PUT,
    AS_METHOD_DELETE,
    AS_METHOD_OPTIONS,
    AS_METHOD_PATCH,
    AS_METHOD_TRACE,
    AS_METHOD_CONNECT,
} as_method;

/* Header fields that the core looks at; as_head.known[] has the index of the first field line of each, or -1. */
#define AS_KNOWN_FIELDS(X)                        \
    X(HOST, "host")                               \
    X(CONNECTION, "connection")                   \
    X(CONTENT_LENGTH, "content-length")           \
    X(CONTENT_TYPE, "content-type")               \
    X(TRANSFER_ENCODING, "transfer-encoding")     \
    X(EXPECT, "expect")                           \
    X(UPGRADE, "upgrade")                         \
    X(IF_MATCH, "if-match")                       \
    X(IF_NONE_MATCH, "if-none-match")             \
    X(IF_MODIFIED_SINCE, "if-modified-since")     \
    X(IF_UNMODIFIED_SINCE, "if-unmodified-since") \
    X(IF_RANGE, "if-range")                       \
    X(RANGE, "range")                             \
    X(ACCEPT_ENCODING, "accept-encoding")         \
    X(AUTHORIZATION, "authorization")             \
    X(REFERER, "referer")                         \
    X(USER_AGENT, "user-agent")

typedef enum as_known_field {
#define X(name, text) AS_FIELD_##name,
    AS_KNOWN_FIELDS(X)
#undef X
        AS_FIELD_COUNT,
} as_known_field;

typedef struct as_field {
    as_str name;  /* as the client wrote it */
    as_str value; /* without surrounding white space */
} as_field;

typedef struct as_head {
    as_method method;
    as_str method_text;
    as_str target;          /* as the client wrote it */
    uint8_t minor;          /* HTTP/1.<minor>: 0 or 1 */
    bool keep_alive;        /* what the version and Connection ask for */
    bool chunked;           /* Transfer-Encoding: chunked, and nothing else */
    bool expect_continue;   /* Expect: 100-continue on HTTP/1.1 */
    int64_t content_length; /* -1 when there is none */
    as_str host;            /* value of Host; ptr NULL when absent (HTTP/1.0 only) */
    uint16_t fields_len;
    int16_t known[AS_FIELD_COUNT];
    as_field fields[AS_MAX_HEADERS];
} as_head;

/* Parses one request head from `buf`.
 * Returns the bytes of the head including its final empty line (> 0); AS_EAGAIN when the head is not complete;
 * AS_EBADREQUEST, AS_EURITOOLONG, AS_EHEADTOOLARGE, AS_ENOTIMPLEMENTED (a transfer coding other than chunked),
 * AS_EVERSION, AS_EEXPECTATION (an expectation other than 100-continue) otherwise.
 *
 * `scanned` is the caller's, 0 for a new head: how far an earlier call looked, so that a head that drips in is not
 * read again from the start. What cannot become a valid head is refused as soon as it is seen, not at the end
 * (a bare LF, a control byte in the request line, a TLS hello).
 * `head` is complete only after a positive return. On an error its method, target and minor are those seen so
 * far (for the log) or empty.
 *
 * Refused with AS_EBADREQUEST: bare LF or CR, NUL and other control bytes, white space before a colon or at the
 * start of a field line (obs-fold), empty or non-token names, a request line that is not three parts with single
 * spaces, Content-Length with Transfer-Encoding, several or list-valued or non-digit Content-Length (also equal
 * ones), Transfer-Encoding on HTTP/1.0, no or several Host on HTTP/1.1, a Host that is not host[:port]. */
int as_head_parse(const char *buf, size_t len, size_t *scanned, const as_limits *limits, as_head *head);

/* The value of a known field's first line, or AS_STR_NONE. */
static inline as_str as_head_known(const as_head *head, as_known_field which)
{
    int index = head->known[which];
    return index < 0 ? AS_STR_NONE : head->fields[index].value;
}

/* Whether a comma-separated list (RFC 9110 section 5.6.1) contains `token`, ASCII case-insensitively. */
bool as_list_has_token(as_str list, as_str token);

/* RFC 9110 section 5.6.2 token; empty is not one. */
bool as_is_token(as_str s);

/* host[:port] of RFC 3986 section 3.2 (reg-name, IPv4, bracketed IPv6; no userinfo). */
bool as_is_host_port(as_str s);

#endif
