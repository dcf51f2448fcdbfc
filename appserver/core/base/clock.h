/* clock.h: time. Loops read the clock once a turn and pass `now` on; nothing below a loop asks for the time. */
#ifndef AS_BASE_CLOCK_H
#define AS_BASE_CLOCK_H

#include <time.h>

#include "base/platform.h"

#define AS_MS_PER_S 1000
#define AS_NS_PER_MS 1000000LL
#define AS_NS_PER_S 1000000000LL

static inline int64_t as_clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * AS_NS_PER_S + t.tv_nsec;
}

/* CLOCK_MONOTONIC, the clock of every timeout and of the executor protocol. */
static inline int64_t as_clock_monotonic_ns(void)
{
    return as_clock_ns(CLOCK_MONOTONIC);
}

#endif
