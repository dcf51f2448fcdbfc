/* counters.h: numbers that each loop counts for itself; any thread may read them, torn between fields but not within one. */
#ifndef AS_REPORT_COUNTERS_H
#define AS_REPORT_COUNTERS_H

#include "base/platform.h"

#define AS_COUNTERS(X)                                                       \
    X(connections_accepted, "connections accepted")                          \
    X(connections_open, "connections open now")                              \
    X(connections_refused, "connections refused at the limit")               \
    X(accept_batches, "turns that accepted something")                       \
    X(accept_empty, "turns that were woken for a connection and found none") \
    X(accept_paused, "times accepting paused for want of descriptors")       \
    X(accept_waited, "times accepting paused at the limit of connections")   \
    X(requests, "requests with a complete head")                             \
    X(requests_active, "requests being answered now")                        \
    X(responses_1xx, "interim responses")                                    \
    X(bytes_received, "bytes read from clients")                             \
    X(bytes_sent, "bytes written to clients")                                \
    X(cache_hits, "file cache hits")                                         \
    X(cache_misses, "file cache misses")                                     \
    X(cache_bytes, "bytes of files held by the cache")                       \
    X(events_dropped, "events that found the ring full")

typedef struct as_counters {
#define X(name, text) uint64_t name;
    AS_COUNTERS(X)
#undef X
} AS_ALIGNED_LINE as_counters;

/* Upper bounds of the durations that are counted together: in nanoseconds, and in seconds as the metrics write them. */
#define AS_DURATIONS(X)  \
    X(1000000, "0.001")  \
    X(2500000, "0.0025") \
    X(5000000, "0.005")  \
    X(10000000, "0.01")  \
    X(25000000, "0.025") \
    X(50000000, "0.05")  \
    X(100000000, "0.1")  \
    X(250000000, "0.25") \
    X(500000000, "0.5")  \
    X(1000000000, "1")   \
    X(2500000000, "2.5") \
    X(5000000000, "5")   \
    X(10000000000, "10")

/* Of the requests that were answered by one rule of a site. */
enum {
    AS_STATUS_CLASSES = 6, /* by the first digit */
#define X(ns, text) +1
    AS_DURATION_BOUNDS = 0 AS_DURATIONS(X),
#undef X
};

typedef struct as_route_counters {
    uint64_t responses[AS_STATUS_CLASSES];
    uint64_t duration_ns;
    uint64_t slower[AS_DURATION_BOUNDS]; /* above bound i, not above bound i + 1; the rest is in the first bucket */
    uint64_t queue_ns;
    uint64_t run_ns;
    uint64_t cpu_us;
} as_route_counters;

/* Of the requests that were given to a pool by one loop. */
#define AS_POOL_COUNTERS(X)                                                               \
    X(waiting, "requests that wait in the core, now")                                     \
    X(dispatched, "requests sent to executors, repeated ones again")                      \
    X(retried, "requests given to another executor because theirs died")                  \
    X(refused_full, "requests refused because the queue was full")                        \
    X(refused_time, "requests refused because no executor became free within queue_time") \
    X(refused_quarantine, "requests refused because they were quarantined")               \
    X(lost, "requests answered 502 because their executor died")                          \
    X(timeouts, "requests answered 504 because their run took too long")                  \
    X(quarantined, "requests quarantined because two executors died with them")

typedef struct as_pool_counters {
#define X(name, text) uint64_t name;
    AS_POOL_COUNTERS(X)
#undef X
} as_pool_counters;

/* Only the owning loop adds; relaxed stores keep readers from seeing half a number. */
#define AS_COUNT(counters, name, n) \
    __atomic_store_n(&(counters)->name, (counters)->name + (uint64_t)(n), __ATOMIC_RELAXED)

/* From the head's first byte to the last of the response. */
static inline void as_count_duration(as_route_counters *route, int64_t duration_ns)
{
#define X(ns, text) ns,
    static const int64_t bounds_ns[] = {AS_DURATIONS(X)};
#undef X
    AS_COUNT(route, duration_ns, duration_ns);
    if (duration_ns <= bounds_ns[0])
        return;
    int passed = 0;
    while (passed + 1 < AS_DURATION_BOUNDS && duration_ns > bounds_ns[passed + 1])
        passed++;
    AS_COUNT(route, slower[passed], 1);
}

#endif
