/* scan.h: how far a run of allowed bytes goes, many bytes at a time. No I/O, no allocation. Any thread. */
#ifndef AS_BASE_SCAN_H
#define AS_BASE_SCAN_H

#include "base/platform.h"

/* How many of the first bytes of `p` are field-vchar, obs-text, SP or HTAB (RFC 9110 section 5.5): the first other one is a
 * control byte. Never reads outside p[0 .. len). */
size_t as_scan_field_value(const char *p, size_t len);

/* How many of the first bytes of `p` are visible ASCII (0x21 .. 0x7e). */
size_t as_scan_visible(const char *p, size_t len);

/* One implementation; `usable` says whether this processor has what it needs. For tests: the functions above use the best one. */
typedef struct as_scanner {
    const char *name;
    bool (*usable)(void);
    size_t (*field_value)(const char *p, size_t len);
    size_t (*visible)(const char *p, size_t len);
} as_scanner;

/* Worst first. */
extern const as_scanner as_scanners[];
extern const int as_scanners_len;

#endif
