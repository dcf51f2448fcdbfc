/* pool.h: gives requests to the executors of a pool and takes their answers (docs/executor-protocol.md).
 *
 * A pool is one for the server; each loop has a lane to it: the shared queue socket, the loop's own answer socket, the loop's own range of
 * slots and its own waiting requests. So lanes share nothing but the kernel's queue, and no lock is needed. */
#ifndef AS_HANDLER_POOL_H
#define AS_HANDLER_POOL_H

#include "handler/quarantine.h"
#include "http/request.h"

/* Which requests are given to another executor when theirs dies before it has answered. */
typedef enum as_retry {
    AS_RETRY_NEVER,
    AS_RETRY_IDEMPOTENT, /* by their method, or because an Idempotency-Key says so */
    AS_RETRY_ALWAYS,
} as_retry;

typedef struct as_pool_options {
    int index; /* of the pool, as in home->lanes[] and events */
    const char *name;
    int queue_fd;         /* SOCK_SEQPACKET, the core's end; O_NONBLOCK; shared by all loops; stays the caller's */
    int slots_fd;         /* the slot segment (docs/executor-protocol.md); mapped by as_lane_new; stays the caller's */
    uint32_t generation;  /* of the core: bumped at each start, so that answers to an earlier core are known as stale */
    uint32_t queue_limit; /* requests that may wait in the core and the kernel over all loops; above: 503 */
    uint32_t queue_time_ms; /* longest wait for an executor; above: 503 with Retry-After */
    uint32_t
        request_time_ms; /* longest run in an executor until the head of the answer; above: 504 and an event; 0: none */
    uint32_t idle_time_ms; /* longest silence of a streamed body; above: cut off; 0: none */
    uint64_t output_limit; /* bytes of the body of a document; above: 502 or cut off; 0: none */
    as_retry retry;
    bool cancel;            /* send cancel frames (cgi pools) */
    bool finishes;          /* what runs for a client that has gone is not ended (cgi pools) */
    uint32_t quarantine_ms; /* how long a request that has killed two executors is not run; 0: nothing is held back */
    as_quarantine *quarantine; /* one for all lanes of the pool; stays the caller's */
} as_pool_options;

typedef struct as_lane as_lane;
typedef struct as_slot_header as_slot_header;

/* The loop's end of a pool. `answer_fd`: the loop's receiving end; O_NONBLOCK; the lane owns it, and closes it also when there is no lane. Before the loop
 * runs, or on its thread. NULL with errno set when the segment cannot be mapped or does not fit. */
as_lane *as_lane_new(as_home *home, const as_pool_options *options, int answer_fd, int loops);
/* New limits and times for requests that come from now on; descriptors and index stay. Loop thread. */
void as_lane_configure(as_lane *lane, const as_pool_options *options);
/* Every request must have ended, and the loop have had its last turn. */
void as_lane_free(as_lane *lane);

/* How many requests the pool's executors can run at once now; batching and queueing follow it. Loop thread. */
void as_lane_set_capacity(as_lane *lane, uint32_t capacity);
/* How many of these run at the same time, where executors hold more requests than they have threads: what comes while so many are held would only wait for its
 * turn, so it may come together with others. After as_lane_set_capacity, which sets it to the whole. Loop thread. */
void as_lane_set_at_once(as_lane *lane, uint32_t at_once);
/* Whether its executors take large request bodies, and those of unknown length, while they come, and whether they take upgrades; for requests that come from now on.
 * Loop thread. */
void as_lane_set_streaming(as_lane *lane, bool stream_bodies, bool upgrades);

/* The executor has died: its requests are given to others or answered 502. `repeated`: how many requests of all loops it held for which it was the second
 * one. Loop thread. */
void as_lane_executor_died(as_lane *lane, uint32_t executor, uint32_t repeated);
/* That number, out of a mapped slot segment. Any thread; before the loops are told. */
uint32_t as_pool_count_repeated(const as_slot_header *segment, uint32_t executor);

/* The handler of rules that lead to a pool. `script_name`: SCRIPT_NAME for requests under a prefix rule is the prefix when `mounted`, else "".
 * `extra`: environment block "NAME\0value\0..." that is added to every request (copied). */
typedef struct as_pool_handler_options {
    int pool;
    bool mounted;
    as_str extra;
    const char *server_software;
    const char *document_root;
} as_pool_handler_options;

struct as_sendfile;
/* Before the handler is used. `sendfile` is its own from now on. */
void as_pool_handler_set_sendfile(as_handler *handler, struct as_sendfile *sendfile);

/* Before the handler is used. `authorization`: whether executors get credentials; not by default (RFC 3875 section 9.2). `stream_bodies`: whether programs get large
 * bodies while they come; for other pools their executors say it. */
void as_pool_handler_set_passing(as_handler *handler, bool authorization, bool stream_bodies);

as_handler *as_pool_handler_new(const as_pool_handler_options *options);

#endif
