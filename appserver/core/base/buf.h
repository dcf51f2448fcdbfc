/* buf.h: a growable run of bytes with a limit. One owner thread; the owner frees it. */
#ifndef AS_BASE_BUF_H
#define AS_BASE_BUF_H

#include "base/error.h"
#include "base/memory.h"

typedef struct as_buf {
    char *ptr;
    size_t len;
    size_t capacity;
} as_buf;

void as_buf_free(as_buf *buf);
/* Room for `more` bytes behind `len`; AS_EFULL over `limit` bytes in all, AS_ENOMEM without memory. */
AS_MUST_USE int as_buf_reserve(as_buf *buf, size_t more, size_t limit);
/* Where `more` bytes can be written behind `len`, which the writer then raises; dies without memory. */
char *as_buf_room(as_buf *buf, size_t more);
/* Appends; dies without memory: for text whose size the caller has bounded. */
void as_buf_add(as_buf *buf, as_str s);
void as_buf_printf(as_buf *buf, const char *format, ...) AS_PRINTF(2, 3);

#endif
