/* incident.h: requests that went wrong in an executor, from the loops to the control thread, which passes them on (docs/executor-protocol.md section 9).
 *
 * One queue for the server: any loop adds, the control thread takes. Without a lock. Their number is bounded: AS_INCIDENTS_A_SECOND are made, at most
 * AS_INCIDENTS_WAITING wait, and what is beyond that is only counted; each holds a descriptor. */
#ifndef AS_REPORT_INCIDENT_H
#define AS_REPORT_INCIDENT_H

#include "base/platform.h"

enum {
    AS_INCIDENTS_A_SECOND = 20,
    AS_INCIDENTS_WAITING = 64,
};

/* >>> cdef */
typedef enum as_incident_cause {
    AS_INCIDENT_DIED = 1,    /* its executor died */
    AS_INCIDENT_TIMEOUT = 2, /* it passed its deadline */
} as_incident_cause;

/* What became of the request: one of these, or the status that it was answered with. */
typedef enum as_incident_outcome {
    AS_INCIDENT_RETRIED = 1, /* given to another executor */
    AS_INCIDENT_CUT = 2,     /* its response had begun and was cut off */
} as_incident_outcome;

typedef struct as_incident {
    int32_t pool;
    uint32_t executor; /* 0: not known */
    uint32_t slot;
    uint32_t thread;
    uint64_t request_id; /* as in the logs */
    uint64_t wire_id;    /* as in the slot */
    int64_t queued_ns;   /* CLOCK_MONOTONIC */
    int64_t started_ns;  /* likewise; 0: never */
    uint64_t fingerprint;
    int cause;
    int outcome;
    int truncated; /* the recorded body is only the beginning */
    int fd;        /* a memfd with the request frame; -1: there was none to be had */
} as_incident;
/* <<< cdef */

typedef struct as_incidents as_incidents;

/* `wake_fd`, an eventfd that stays the caller's, is written when there is something to take. */
as_incidents *as_incidents_new(int wake_fd);
/* Closes what is still in there. No loop may be running. */
void as_incidents_free(as_incidents *incidents);

/* Any loop: whether one more may be made now; if so it counts, and as_incidents_add() should follow. */
bool as_incidents_admit(as_incidents *incidents, int64_t now_ns);
/* Any loop. Takes incident->fd. */
void as_incidents_add(as_incidents *incidents, const as_incident *incident);
/* Control thread: true when `incident` was filled in; its descriptor is then the caller's. */
bool as_incidents_next(as_incidents *incidents, as_incident *incident);
/* Any thread: how many were not admitted. */
uint64_t as_incidents_dropped(const as_incidents *incidents);

#endif
