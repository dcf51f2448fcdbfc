/* conditional.h: preconditions and ranges (RFC 9110 sections 13 and 14). No I/O. Any thread. */
#ifndef AS_HTTP_CONDITIONAL_H
#define AS_HTTP_CONDITIONAL_H

#include "http/head.h"

/* The validators of the selected representation. */
typedef struct as_validators {
    as_str etag;           /* with its quotes, W/ in front when weak; len 0 when there is none */
    int64_t last_modified; /* seconds since the epoch; -1 when there is none */
} as_validators;

/* Evaluates If-Match, If-Unmodified-Since, If-None-Match, If-Modified-Since in the order of section 13.2.2.
 * Every field line of a name counts. Returns 0 (go on), 304 or 412. */
int as_conditional_check(const as_head *head, const as_validators *validators);

typedef enum as_range_verdict {
    AS_RANGE_NONE,          /* no usable Range: answer 200 */
    AS_RANGE_ONE,           /* 206 with first..last */
    AS_RANGE_UNSATISFIABLE, /* 416 */
} as_range_verdict;

/* Range with If-Range for a GET on a representation of `size` bytes. Other units, a syntax error, several ranges and
 * an If-Range that does not match (strong comparison) are AS_RANGE_NONE. `first` and `last` are inclusive. */
as_range_verdict as_range_check(const as_head *head, const as_validators *validators, uint64_t size, uint64_t *first,
                                uint64_t *last);

#endif
