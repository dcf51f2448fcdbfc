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

/* One stretch of the representation; both ends are inclusive. */
typedef struct as_range {
    uint64_t first;
    uint64_t last;
} as_range;

typedef struct as_range_set {
    as_range ranges[AS_MAX_RANGES];
    int len;
} as_range_set;

typedef enum as_range_verdict {
    AS_RANGE_NONE,          /* no usable Range: answer 200 */
    AS_RANGE_SOME,          /* 206 with the set, which has one range or several */
    AS_RANGE_UNSATISFIABLE, /* 416 */
} as_range_verdict;

/* Range with If-Range for a GET on a representation of `size` bytes. Other units, a syntax error, a field that is there
 * twice, more than AS_MAX_RANGES ranges and an If-Range that does not match (strong comparison) are AS_RANGE_NONE.
 *
 * The set has the satisfiable ranges in the order of the request, without overlaps: ranges that touch, or are no further
 * apart than a part's own head is long, have become one at the place of the first (section 15.3.7.2). So the parts of
 * one response are never more than the representation, whatever was asked for. */
as_range_verdict as_range_check(const as_head *head, const as_validators *validators, uint64_t size, as_range_set *set);

#endif
