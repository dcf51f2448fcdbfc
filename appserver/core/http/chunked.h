/* chunked.h: the chunked transfer coding (RFC 9112 section 7.1), decoded in place. No I/O. Any thread. */
#ifndef AS_HTTP_CHUNKED_H
#define AS_HTTP_CHUNKED_H

#include "base/error.h"
#include "base/str.h"
#include "http/limits.h"

typedef struct as_chunked {
    uint8_t state;
    uint64_t left; /* bytes left in the current chunk */
    uint32_t line; /* bytes of the current size line, extensions included */
    uint32_t trailers;
} as_chunked;

void as_chunked_init(as_chunked *decoder);

/* Decodes the next piece. Reads `len` bytes at `buf` and returns how many it consumed (> 0), AS_EAGAIN when `len` is 0,
 * or AS_EBADREQUEST / AS_EHEADTOOLARGE (trailers). `*data` is the run of body bytes found (within buf, maybe empty;
 * at most one run a call: call again while it consumes). `*done` is set when the last chunk and the trailer section
 * have been consumed; bytes behind are the next request's. Trailers are checked for syntax and dropped. */
int as_chunked_decode(as_chunked *decoder, const char *buf, size_t len, as_str *data, bool *done);

#endif
