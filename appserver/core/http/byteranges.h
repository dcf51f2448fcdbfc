/* byteranges.h: several ranges as one body (multipart/byteranges, RFC 9110 section 14.6). No I/O. Any thread. */
#ifndef AS_HTTP_BYTERANGES_H
#define AS_HTTP_BYTERANGES_H

#include "http/conditional.h"
#include "http/request.h"

#define AS_BOUNDARY_LEN 32

/* Makes `body` the parts of `set` (two or more), each with `type` and its Content-Range: of `content` when that is the
 * whole representation in memory, else (ptr NULL) of body->fd from its start. `boundary` has AS_BOUNDARY_LEN bytes that
 * are not in the representation. Everything new lives in `arena`; body's owner and release are left alone. */
void as_byteranges_make(as_arena *arena, const as_range_set *set, uint64_t size, as_str type, as_str boundary,
                        as_str content, as_body *body);

#endif
