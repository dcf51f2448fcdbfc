/* spawner.h: starts CGI programs (RFC 3875) for the core: the executor of cgi pools (docs/executor-protocol.md).
 *
 * It runs in a process of its own, single-threaded apart from the thread that may call stop. It looks the program up, splits SCRIPT_NAME and
 * PATH_INFO, starts it in its own process group with the request body as stdin, hands the reading end of its stdout to the core
 * (answer `document`), passes its stderr on line by line as events, enforces the total time, kills the whole group at the end, and reports the exit
 * (`end`). */
#ifndef AS_SPAWNER_SPAWNER_H
#define AS_SPAWNER_SPAWNER_H

#include "base/error.h"
#include "report/event.h"
#include "spawner/identity.h"
#include "spawner/rlimits.h"

/* >>> cdef */
typedef struct as_spawner_options {
    int queue_fd;          /* receiving end; stays the caller's */
    const int *answer_fds; /* by loop; stay the caller's */
    int loops;
    int slots_fd;           /* the slot segment; mapped by as_spawner_new */
    uint32_t executor;      /* this executor's number */
    uint32_t max_programs;  /* running at once, 1 .. 4096; above that, requests wait in the queue */
    uint32_t kill_grace_ms; /* SIGTERM to the group, this long, then SIGKILL */
    uint32_t
        request_time_ms; /* how long a program may run, also while its answer streams; 0: to the deadline in its frame */
    uint64_t
        program_descriptors; /* soft limit of open descriptors for programs (RLIMIT_NOFILE); 0: that of this process */
    /* Copied; NULL for none. "NAME\0value\0...", ended by an empty name: added to every program (PATH and what the configuration says). */
    const char *environment;
    /* Copied; NULL for none. ".ext\0interpreter\0...", likewise: programs that are run by an interpreter instead of their mode and #! line. */
    const char *interpreters;
    /* Likewise: what runs programs that the system cannot execute, and that have no #! line. */
    const char *usual_interpreters;
    /* Files of the zygotes (appserver/workers/); copied; NULL: scripts of that language always start a new interpreter. */
    const char *python_zygote;
    const char *perl_zygote;
    bool verifies_warm;       /* requests that may be run twice are: by a zygote as well, for comparison */
    as_program_limits limits; /* of each program */
    as_identity_rules identity;
    bool finishes;       /* programs go on when their clients have gone */
    bool leaves_daemons; /* what has left a program's process group lives on when the program has ended */
    int event_fd;        /* eventfd written when events are there; stays the caller's */
} as_spawner_options;

typedef struct as_spawner as_spawner;

/* NULL with errno set. */
as_spawner *as_spawner_new(const as_spawner_options *options);
/* Serves until as_spawner_stop() or until the queue is closed; then waits for the running programs (as_spawner_stop a second time kills them).
 * 0, or a negative as_err for a broken protocol. */
int as_spawner_run(as_spawner *spawner);
/* Any thread. */
void as_spawner_stop(as_spawner *spawner);
/* One other thread: events for the log (AS_EVENT_PROGRAM_STDERR and the usual kinds). */
bool as_spawner_next_event(as_spawner *spawner, as_event *event);
void as_spawner_free(as_spawner *spawner);
/* <<< cdef */

#endif
