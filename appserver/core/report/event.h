/* event.h: what happened, from the loops to the log. Rare things only: requests have the access log.
 *
 * One ring per loop, single producer (its loop), single consumer (the thread that calls as_event_next). Fixed records without pointers. A full ring drops
 * and counts; the log says how many were lost. */
#ifndef AS_REPORT_EVENT_H
#define AS_REPORT_EVENT_H

#include "report/counters.h"

/* >>> cdef */
typedef enum as_event_kind {
    AS_EVENT_NOTE = 1,           /* text for the log at level info */
    AS_EVENT_WARNING = 2,        /* text for the log at level warning */
    AS_EVENT_ERROR = 3,          /* text for the log at level error */
    AS_EVENT_EXECUTOR_STUCK = 4, /* pool, executor: request `request_id` is past its deadline; replace the executor */
    AS_EVENT_INCIDENT = 5, /* pool, executor: request `request_id` was lost with its executor; text: method, path */
    AS_EVENT_DRAINED = 6,  /* this loop holds no connection any more */
    AS_EVENT_PROGRAM_STDERR = 7, /* one line that a CGI program wrote; text: "script: line" */
} as_event_kind;

#define AS_EVENT_TEXT 448

typedef struct as_event {
    uint32_t kind;
    uint32_t loop;
    uint64_t request_id; /* 0: none */
    int32_t pool;        /* -1: none */
    uint32_t executor;
    uint32_t slot;            /* of an executor that is stuck: that of its request */
    uint64_t wire_id;         /* likewise: the request's id in the slot */
    char text[AS_EVENT_TEXT]; /* NUL-terminated, cut off when longer */
} as_event;
/* <<< cdef */

typedef struct as_event_ring as_event_ring;

/* `wake_fd` (an eventfd that stays the caller's) is written when the ring was empty. */
as_event_ring *as_event_ring_new(int loop, int wake_fd, as_counters *counters);
void as_event_ring_free(as_event_ring *ring);

/* Loop thread. */
void as_event_emit(as_event_ring *ring, as_event_kind kind, uint64_t request_id, int pool, uint32_t executor,
                   const char *format, ...) __attribute__((format(printf, 6, 7)));

/* Likewise, with what `about` says besides the text. */
void as_event_emit_about(as_event_ring *ring, const as_event *about, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Consumer thread: true when `event` was filled in. */
bool as_event_next(as_event_ring *ring, as_event *event);

#endif
