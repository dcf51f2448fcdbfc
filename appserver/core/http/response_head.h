/* response_head.h: the header section that an executor or a CGI program sends, checked before a client sees it.
 *
 * No I/O. Any thread. */
#ifndef AS_HTTP_RESPONSE_HEAD_H
#define AS_HTTP_RESPONSE_HEAD_H

#include "base/error.h"
#include "base/memory.h"
#include "base/str.h"
#include "http/limits.h"

typedef struct as_response_head {
    int status;          /* from a Status field; 0 when there was none */
    as_str reason;       /* of the Status field, maybe empty */
    as_str location;     /* ptr NULL when there was none */
    as_str content_type; /* ptr NULL when there was none */
    as_str etag;         /* likewise */
    as_str last_modified;
    as_str
        transfer_coding; /* of a Transfer-Encoding field, which is not among `fields`; ptr NULL when there was none */
    int64_t content_length; /* -1 when there was none */
    bool has_date;          /* the section brings its own Date / Server, which then replaces the core's */
    bool has_server;
    /* After AS_EBADRESPONSE: why, static, and the line that it is about, borrowed from the input (maybe empty). */
    const char *fault;
    as_str fault_line;
    as_str fields; /* what goes to the client: "Name: value\r\n" lines in their order, duplicates kept, without
                               Status, Content-Length and the connection's own fields (Connection, Keep-Alive,
                               Proxy-Connection, TE, Trailer, Transfer-Encoding, Upgrade). Lives in `arena`, or borrows from the input
                               when nothing had to be changed. */
} as_response_head;

/* Parses field lines that are already complete (the executor protocol's header block: CRLF ended, no empty line at the end,
 * maybe empty). AS_OK; AS_EBADRESPONSE: a non-token name, a control byte in a value (so no response splitting), a bad Status
 * (three digits 100..599, then optional reason), two different Content-Lengths, more than AS_MAX_RESPONSE_FIELDS fields. */
int as_response_fields_parse(as_str block, as_arena *arena, as_response_head *head);

/* Parses a CGI program's output (RFC 3875 section 6): lines ended by LF or CRLF, ended by an empty line.
 * Returns the bytes consumed including the empty line (> 0), AS_EAGAIN when the section is not complete, AS_ERESPONSETOOLARGE
 * over AS_MAX_RESPONSE_HEAD, or AS_EBADRESPONSE (a line without colon before the empty line, as above, no field at all).
 * `scanned` is the caller's, 0 at first, as in as_head_parse. */
int as_response_document_parse(const char *buf, size_t len, size_t *scanned, as_arena *arena, as_response_head *head);

/* Parses the head of an HTTP response that a program writes itself (RFC 3875 section 5): a status line "HTTP/1.x NNN reason", then a section as above, which may
 * be empty. `head` gets status and reason of the status line; a field Status is dropped. As as_response_document_parse(). */
int as_response_nph_parse(const char *buf, size_t len, size_t *scanned, as_arena *arena, as_response_head *head);

/* "Not Found" for 404; "Unknown" for a code without a registered phrase. Static. */
as_str as_status_reason(int status);

#endif
