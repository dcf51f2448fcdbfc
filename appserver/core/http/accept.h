/* accept.h: what a client takes: content codings and media types with their weights (RFC 9110 section 12.5). No I/O.
 * Any thread.
 *
 * A member that is not well-formed counts as if it were not there, and so does what comes behind AS_MAX_ACCEPTED
 * members. */
#ifndef AS_HTTP_ACCEPT_H
#define AS_HTTP_ACCEPT_H

#include "http/head.h"

/* The content codings of files that lie compressed beside others. */
typedef enum as_coding { AS_CODING_BR, AS_CODING_ZSTD, AS_CODING_GZIP, AS_CODINGS } as_coding;

enum { AS_WEIGHT_MAX = 1000 };

/* Weights in thousandths; 0 means refused. */
typedef struct as_accepted {
    uint16_t codings[AS_CODINGS];
    /* Of the representation as it is. Without a word about it, it is taken when nothing better is there. */
    uint16_t identity;
    bool identity_is_named;
} as_accepted;

/* All lines of Accept-Encoding. Without one only identity is accepted: whoever says nothing may not be able to decode
 * (section 12.5.3 would allow any coding). */
void as_accept_codings(const as_head *head, as_accepted *accepted);

typedef enum as_media_verdict {
    AS_MEDIA_REFUSED,
    AS_MEDIA_TAKEN, /* by a wildcard, or because there is no Accept */
    AS_MEDIA_NAMED,
} as_media_verdict;

/* Whether `type` ("text/html", without parameters) is accepted by the lines of Accept. The most precise range decides. */
as_media_verdict as_accept_media(const as_head *head, as_str type);

#endif
