/* warm.h: which programs need no new interpreter: the zygotes, and what is known of scripts. Loop thread. */
#ifndef AS_SPAWNER_WARM_H
#define AS_SPAWNER_WARM_H

#include "spawner/zygote.h"

typedef struct as_warm as_warm;

typedef struct as_warm_options {
    as_loop *loop;
    as_event_ring *events;
    uint32_t executor;
    as_launcher *launcher;
    char *const *environment; /* "NAME=value", ended by NULL: what all programs get; stays the caller's */
    const char *python_main;  /* zygote.py; copied; NULL: none for Python */
    const char *perl_main;    /* likewise zygote.pl */
    /* Whether a program with this number runs: its end is waited for elsewhere. */
    bool (*is_program)(void *owner, pid_t pid);
    void (*moved)(void *owner);
    void *owner;
} as_warm_options;

/* NULL with errno set. */
as_warm *as_warm_new(const as_warm_options *options);
/* Kills the zygotes and what waits, and waits for them; not what has become a program. */
void as_warm_free(as_warm *warm);

/* Which zygote can run the program, which is planned but has no descriptors yet; `mark` is of its script. AS_OK: with as_zygote_become(); AS_EAGAIN: look again
 * when `moved` is called; AS_ENOTFOUND: it has to start cold. */
int as_warm_look(as_warm *warm, const as_program *program, const as_file_mark *mark, as_zygote **zygote);

/* A request for the script has been run both ways: an as_trial_over whose owner is the as_warm. After some that differ the log says where, and the script starts cold from then on. */
void as_warm_take_trial(void *owner, const char *script, const char *difference);

#endif
