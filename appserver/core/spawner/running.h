/* running.h: the programs that run: their stderr, their time limit, their end. Loop thread.
 *
 * A program's record is a fixed object that is cleaned and used again. A program ends in one way only: its pidfd says that it has exited. Then the rest of
 * its process group is killed, it is waited for, what stderr still holds is read, and `end` goes to the core. Everything else (time limit,
 * cancel, stop) only sends signals and lets that happen. */
#ifndef AS_SPAWNER_RUNNING_H
#define AS_SPAWNER_RUNNING_H

#include "handler/frame.h"
#include "handler/slot.h"
#include "loop/loop.h"
#include "report/event.h"
#include "spawner/answers.h"
#include "spawner/program.h"
#include "spawner/stderr_lines.h"
#include "spawner/strays.h"
#include "spawner/trial.h"

enum {
    /* The program's name in log lines; of a longer one the end. */
    AS_RUNNING_NAME = 64,
    /* Output of at most so much goes to the core in one piece when the program has ended. */
    AS_RUNNING_OUTPUT = 64 * 1024,
};

typedef enum as_running_step {
    AS_RUNNING_UNUSED,
    AS_RUNNING_FREELY,
    AS_RUNNING_TERMINATED, /* SIGTERM is sent */
    AS_RUNNING_KILLED,     /* SIGKILL is sent */
} as_running_step;

typedef struct as_running_set as_running_set;

typedef struct as_running {
    struct as_running *next; /* unused ones */
    as_running_set *set;
    as_running_step step;
    pid_t pid;
    as_watch exited; /* the pidfd */
    as_watch errors; /* reading end of stderr */
    int output_fd;   /* reading end of stdout, as long as the core has not got it; else -1 */
    struct as_running *next_held;
    struct as_running **held_link;
    bool has_written; /* when its output was last looked at */
    uint16_t document_flags;
    uint64_t script_len;
    as_watch unread; /* another reading end of stdout, for when nobody reads the first any more; -1: none */
    bool is_disowned;
    int errors_writer_fd; /* kept open, so that the loop is not woken by a hang-up just before the exit tells the same */
    as_timer timer;       /* time limit, then grace */
    as_deferred reuse;
    as_trial *trial; /* NULL: it is run once */
    as_trial_side side;
    as_slot *slot; /* NULL: nobody waits for its answer, it runs to be compared */
    uint32_t slot_index;
    uint32_t loop; /* of the core */
    uint64_t request_id;
    uint64_t log_id;
    int64_t start_ns;
    int64_t due_ns; /* end of its time; INT64_MAX: none */
    as_stderr_lines lines;
    char name[AS_RUNNING_NAME];
} as_running;

struct as_running_set {
    /* set before start */
    as_loop *loop;
    as_answers *answers;
    as_event_ring *events;
    const as_counters *counters;
    uint32_t executor;
    uint32_t kill_grace_ms;
    uint32_t request_time_ms; /* 0: no limit but the deadline of the request */
    uint32_t limit;
    const as_rlimits *limits; /* of each program */
    as_strays *strays;
    bool finishes;                      /* programs whose clients have gone go on */
    void (*ended)(as_running_set *set); /* a place has become free */
    /* loop thread */
    as_running *all;
    as_running *unused;
    as_running *held; /* those whose output the core has not got */
    struct pollfd *polled;
    int64_t looked_ns;
    char *output;
    uint32_t count;       /* running, and not yet back among the unused */
    uint64_t events_lost; /* of which the log has been told */
};

/* `limit` records; the other fields are set already. */
void as_running_set_init(as_running_set *set);
/* None may be running. */
void as_running_set_free(as_running_set *set);

/* What is known of a program that has just been started. */
typedef struct as_running_start {
    const as_program *program;
    as_trial *trial; /* maybe NULL */
    as_trial_side side;
    as_slot *slot; /* NULL for the warm side of a trial */
    const as_request_head *request;
    uint64_t log_id;
    int64_t start_ns;
    as_str name;
    uint16_t document_flags;
    uint64_t script_len;  /* bytes of PATH_INFO that are the program's name */
    int output_fd;        /* reading end of stdout, O_NONBLOCK */
    int errors_fd;        /* reading end of stderr, O_NONBLOCK */
    int errors_writer_fd; /* its writing end */
} as_running_start;

/* Takes a started program and its descriptors (pidfd, output, both of stderr) into the set, which has room. AS_OK; AS_ESYSTEM when the loop cannot watch it: it is
 * then killed, waited for, and its descriptors closed. */
AS_MUST_USE int as_running_add(as_running_set *set, const as_running_start *start);

/* When as_running_look_at_outputs() wants to be called next, for as_loop_turn(). */
int as_running_wait_ms(const as_running_set *set);
/* After each turn. Most programs write little and are done, and their whole output then goes to the core with their end, in one frame. The others' pipes are handed over to the core:
 * of those that go on after they have written something, and of those that have been silent for a while. */
void as_running_look_at_outputs(as_running_set *set);

/* SIGTERM to the group, and SIGKILL when the grace time has passed. Nothing when it is over or on its way. */
void as_running_end(as_running *running);
/* The request has been cancelled; nothing when it does not run. */
void as_running_cancel(as_running_set *set, uint64_t request_id);
/* Ends every program whose slot the core has marked. */
void as_running_look_for_cancelled(as_running_set *set);
/* Whether a program with this number runs. */
bool as_running_has(const as_running_set *set, pid_t pid);
/* SIGKILL to all groups. */
void as_running_kill_all(as_running_set *set);

#endif
