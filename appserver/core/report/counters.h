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
    X(responses_2xx, "responses with status 2xx")                            \
    X(responses_3xx, "responses with status 3xx")                            \
    X(responses_4xx, "responses with status 4xx")                            \
    X(responses_5xx, "responses with status 5xx")                            \
    X(bytes_sent, "bytes written to clients")                                \
    X(cache_hits, "file cache hits")                                         \
    X(cache_misses, "file cache misses")                                     \
    X(cache_bytes, "bytes of files held by the cache")                       \
    X(pool_dispatched, "requests given to executors")                        \
    X(pool_retried, "requests given to a second executor")                   \
    X(pool_queued, "requests waiting in the core for an executor")           \
    X(events_dropped, "events that found the ring full")

typedef struct as_counters {
#define X(name, text) uint64_t name;
    AS_COUNTERS(X)
#undef X
} AS_ALIGNED_LINE as_counters;

/* Only the owning loop adds; relaxed stores keep readers from seeing half a number. */
#define AS_COUNT(counters, name, n) \
    __atomic_store_n(&(counters)->name, (counters)->name + (uint64_t)(n), __ATOMIC_RELAXED)

#endif
