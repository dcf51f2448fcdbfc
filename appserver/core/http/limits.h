/* limits.h: every size, count and rate that a client or an executor can drive, with the attack it stops.
 *
 * A limit that the configuration can change is a default here and a field of as_limits; the rest are fixed. */
#ifndef AS_HTTP_LIMITS_H
#define AS_HTTP_LIMITS_H

#include "base/platform.h"

enum {
    /* Header floods: a head is refused with 431 past this many fields, whatever its size. */
    AS_MAX_HEADERS = 100,
    /* Method floods: no registered method is longer than 17 bytes. */
    AS_MAX_METHOD_LEN = 32,
    /* A chunk-size line with endless extensions would cost work without a body byte. */
    AS_MAX_CHUNK_LINE = 256,
    /* Trailers are read and dropped; more than this is refused. */
    AS_MAX_TRAILERS = 8192,
    /* Empty lines before a request line are skipped (RFC 9112 section 2.2), but not for ever. */
    AS_MAX_LEADING_CRLF = 4,
    /* The header section that an executor or CGI program may send. */
    AS_MAX_RESPONSE_HEAD = 64 * 1024,
    AS_MAX_RESPONSE_FIELDS = 256,
    /* Interim responses that a client does not take; further ones are dropped. */
    AS_MAX_INTERIM = 64 * 1024,
    /* Largest request or response body that travels inside a frame of the executor protocol. */
    AS_MAX_INLINE_BODY = 64 * 1024,
    /* Bodies up to this size are spooled to a memfd, larger ones to an unlinked file. */
    AS_SPOOL_MEMORY = 1024 * 1024,
    /* Range bombs: a Range with more ranges is ignored (RFC 9110 section 14.2). Readers of PDF files ask for some dozens. */
    AS_MAX_RANGES = 64,
    /* Ranges with at most so many bytes between them become one, since a part of its own costs about as much (section
     * 15.3.7.2). Many small ranges side by side are so one. */
    AS_RANGE_GAP = 80,
    /* Members of Accept and Accept-Encoding that are looked at; browsers send fewer than ten. */
    AS_MAX_ACCEPTED = 32,
    /* From the end of a program's output to the word on how the program ended: one that closes its output and works on holds its client up no longer. */
    AS_END_NEWS_MS = 500,
    /* Local redirects of one request, from program to program: more are a circle. */
    AS_MAX_LOCAL_REDIRECTS = 10,
    /* Interim responses of a program that writes whole HTTP responses. */
    AS_MAX_NPH_INTERIM = 16,
    /* What is read and dropped of a body that nobody wants, so that its connection can go on; with more it is closed. */
    AS_MAX_DISCARD = 256 * 1024,
};

/* >>> cdef */
/* The configurable limits of one snapshot. Sizes in bytes, times in milliseconds. */
typedef struct as_limits {
    uint32_t header_size;            /* request line and fields: 431 */
    uint32_t target_size;            /* request target: 414 */
    uint64_t body_size;              /* request body: 413 */
    uint32_t header_timeout_ms;      /* first byte to end of head: 408 */
    uint32_t body_timeout_ms;        /* between two reads of a body: 408 */
    uint32_t idle_timeout_ms;        /* keep-alive without a request: close */
    uint32_t send_timeout_ms;        /* no progress while writing: close */
    uint32_t keep_alive_requests;    /* requests on one connection, 0 for no limit */
    uint32_t connections;            /* open at once in the whole server */
    uint32_t connections_per_client; /* of one remote address (IPv6: /64): 503; 0 for no limit */
    uint32_t
        min_rate; /* bytes per second that a client sends of a body (408) and takes of a response (cut), averaged over the timeout; 0: any */
    uint8_t wait_over_limit; /* over `connections` they wait in the backlog; else 503 */
} as_limits;
/* <<< cdef */

#endif
