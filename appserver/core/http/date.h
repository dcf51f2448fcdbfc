/* date.h: HTTP dates (RFC 9110 section 5.6.7). No I/O, no locale, no allocation. Any thread. */
#ifndef AS_HTTP_DATE_H
#define AS_HTTP_DATE_H

#include "base/str.h"

#define AS_DATE_LEN 29

/* Writes "Sun, 06 Nov 1994 08:49:37 GMT" (AS_DATE_LEN bytes, no NUL) for seconds since the epoch, 0 .. year 9999. */
void as_date_format(int64_t seconds, char *out);
/* All three formats that a recipient must accept; -1 when it is none of them. */
int64_t as_date_parse(as_str text);

#endif
