/* str.h: a borrowed run of bytes. Owns nothing, is not NUL-terminated unless its maker says so. Any thread. */
#ifndef AS_BASE_STR_H
#define AS_BASE_STR_H

#include "base/platform.h" /* first: it asks for _GNU_SOURCE */

#include <string.h>
#include <strings.h>

typedef struct as_str {
    const char *ptr;
    size_t len;
} as_str;

#define AS_STR(literal) ((as_str){(literal), sizeof(literal) - 1})
#define AS_STR_NONE ((as_str){NULL, 0})

static inline as_str as_str_of(const char *ptr, size_t len)
{
    return (as_str){ptr, len};
}

static inline as_str as_str_from(const char *c_string)
{
    return (as_str){c_string, strlen(c_string)};
}

static inline bool as_str_equal(as_str a, as_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* ASCII case-insensitive: the comparison that header names and host names want (RFC 9110 section 5.1). */
static inline bool as_str_equal_nocase(as_str a, as_str b)
{
    return a.len == b.len && (a.len == 0 || strncasecmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool as_str_starts(as_str s, as_str prefix)
{
    return prefix.len == 0 || (s.len >= prefix.len && memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

static inline bool as_str_ends(as_str s, as_str suffix)
{
    return suffix.len == 0 || (s.len >= suffix.len && memcmp(s.ptr + s.len - suffix.len, suffix.ptr, suffix.len) == 0);
}

/* `s` without leading and trailing spaces and tabs (OWS of RFC 9110 section 5.6.3). */
static inline as_str as_str_trim(as_str s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* The next member of a comma-separated list, which may have empty ones (RFC 9110 section 5.6.1.2); false at its end. */
static inline bool as_str_next_member(as_str *list, as_str *member)
{
    while (list->len > 0) {
        const char *comma = (const char *)memchr(list->ptr, ',', list->len);
        size_t len = comma != NULL ? (size_t)(comma - list->ptr) : list->len;
        size_t taken = comma != NULL ? len + 1 : len;
        *member = as_str_trim(as_str_of(list->ptr, len));
        *list = as_str_of(list->ptr + taken, list->len - taken);
        if (member->len > 0)
            return true;
    }
    return false;
}

/* Copies `text` to `out`, which has room; returns where it ends. */
static inline char *as_str_append(char *out, as_str text)
{
    memcpy(out, text.ptr, text.len);
    return out + text.len;
}

/* %XX at `out` (RFC 3986 section 2.1). Returns the end. */
static inline char *as_str_append_escape(char *out, unsigned char c)
{
    static const char digits[] = "0123456789ABCDEF";
    *out++ = '%';
    *out++ = digits[c >> 4];
    *out++ = digits[c & 15];
    return out;
}

/* Decimal digits of `value` into `out` (at least 20 bytes); returns how many. */
static inline size_t as_str_put_u64(char *out, uint64_t value)
{
    char digits[20];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    for (size_t i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    return n;
}

/* A non-negative decimal number that is nothing but digits and fits in 63 bits; -1 otherwise. */
static inline int64_t as_str_to_i64(as_str s)
{
    if (s.len == 0 || s.len > 19)
        return -1;
    uint64_t value = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned)(s.ptr[i] - '0');
        if (digit > 9)
            return -1;
        value = value * 10 + digit;
    }
    return value > INT64_MAX ? -1 : (int64_t)value;
}

#endif
