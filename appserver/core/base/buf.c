#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>

void as_buf_free(as_buf *buf)
{
    as_free(buf->ptr);
    *buf = (as_buf){0};
}

int as_buf_reserve(as_buf *buf, size_t more, size_t limit)
{
    size_t need = buf->len + more;
    if (need <= buf->capacity)
        return AS_OK;
    if (need > limit)
        return AS_EFULL;
    size_t capacity = buf->capacity ? buf->capacity : 256;
    while (capacity < need)
        capacity *= 2;
    if (capacity > limit)
        capacity = limit;
    char *moved = as_try_realloc(buf->ptr, capacity);
    if (moved == NULL)
        return AS_ENOMEM;
    buf->ptr = moved;
    buf->capacity = capacity;
    return AS_OK;
}

char *as_buf_room(as_buf *buf, size_t more)
{
    size_t need = buf->len + more;
    if (need > buf->capacity) {
        size_t capacity = buf->capacity ? buf->capacity : 256;
        while (capacity < need)
            capacity *= 2;
        buf->ptr = as_realloc(buf->ptr, capacity);
        buf->capacity = capacity;
    }
    return buf->ptr + buf->len;
}

void as_buf_add(as_buf *buf, as_str s)
{
    char *at = as_buf_room(buf, s.len);
    if (s.len > 0)
        memcpy(at, s.ptr, s.len);
    buf->len += s.len;
}

void as_buf_printf(as_buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    assert(len >= 0);
    char *at = as_buf_room(buf, (size_t)len + 1);
    va_start(args, format);
    vsnprintf(at, (size_t)len + 1, format, args);
    va_end(args);
    buf->len += (size_t)len;
}
