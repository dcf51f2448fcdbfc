/* zygote.h: one interpreter that has started already, and the processes that it has forked ahead of demand. Loop thread.
 *
 * The zygote is a program of its own (appserver/workers/zygote.py, zygote.pl); its head says what is spoken on the order socket. What it forks are
 * children of this process, so that a program that comes of one of them ends as any other does. Each waits at a socket of its own, and the requests go to
 * the longest waiting. A zygote that dies is started again, after a while that doubles; until then, and while it starts, programs run cold. */
#ifndef AS_SPAWNER_ZYGOTE_H
#define AS_SPAWNER_ZYGOTE_H

#include "loop/loop.h"
#include "report/event.h"
#include "spawner/file_marks.h"
#include "spawner/program.h"
#include "spawner/script_path.h"
#include "spawner/shebang.h"

enum {
    /* Processes of one zygote that wait or are ordered. The attack: many requests at once that make many processes. */
    AS_PARKED_MAX = 16,
    AS_PARKED_MIN = 2,
    /* Its exit status when it never will be one; its stderr says why. */
    AS_ZYGOTE_CANNOT = 4,
    AS_ZYGOTE_PATH = 4096,
};

typedef enum as_zygote_step {
    AS_ZYGOTE_UNUSED,
    AS_ZYGOTE_STARTING,
    AS_ZYGOTE_READY,
    AS_ZYGOTE_RESTING, /* it has died */
    AS_ZYGOTE_USELESS, /* this interpreter cannot be one */
} as_zygote_step;

typedef struct as_zygote as_zygote;

/* What zygotes share; set before start. */
typedef struct as_zygote_home {
    as_loop *loop;
    as_event_ring *events;
    uint32_t executor;
    as_launcher *launcher;
    char *const *environment; /* for interpreters: what all programs get; ended by NULL */
    int errors_fd;            /* stderr of the interpreters */
    char *datagram;
    void (*moved)(void *owner); /* a process waits that did not, or none will come: whoever waits should look again */
    /* The zygote says that this script cannot run in it. */
    void (*refused)(void *owner, const char *path, const char *reason);
    void *owner;
} as_zygote_home;

typedef struct as_parked {
    as_watch exited; /* the pidfd; -1: unused */
    as_zygote *zygote;
    pid_t pid;
    int fd; /* where it waits */
    uint64_t number;
} as_parked;

struct as_zygote {
    const as_zygote_home *home;
    as_zygote_step step;
    /* which interpreter */
    as_interpreter_kind kind;
    const char *main_file; /* of the zygote */
    char path[AS_ZYGOTE_PATH];
    char name[AS_SHEBANG_SIZE];   /* argv[0] */
    char option[AS_SHEBANG_SIZE]; /* "": none */
    char script[AS_ZYGOTE_PATH];  /* Perl: of the only script that it serves; else "" */
    /* the process */
    pid_t pid;
    as_watch exited;
    as_watch orders;
    as_timer rest;
    uint32_t rest_ms;
    uint32_t births; /* how often it has been started: what it was told before, it does not know */
    uint32_t runs;   /* since its start */
    int64_t born_ns;
    int64_t used_ns;
    as_watched watched; /* what it has loaded, and where that may come from */
    /* what waits */
    as_parked parked[AS_PARKED_MAX];
    uint32_t parked_count;
    uint64_t last_number;
    uint32_t wanted;
    int ordered[AS_PARKED_MAX]; /* our ends of the sockets of those that are being forked, the oldest first */
    uint32_t ordered_count;
    int64_t ordered_ns; /* since when something is */
    as_timer patience;
};

/* Starts it; its key fields are set. Says in the log when it cannot be. */
void as_zygote_begin(as_zygote *zygote);
/* Kills it and all that wait, and waits for them. It is unused afterwards. */
void as_zygote_end(as_zygote *zygote);

/* AS_OK: a process waits; AS_EAGAIN: one is on its way, `moved` tells; AS_ENOTFOUND: the program has to start cold. */
int as_zygote_look(as_zygote *zygote);
/* After AS_OK: the longest waiting process becomes the program: its pid and pidfd are filled in. AS_OK, or AS_ESYSTEM: start it cold; also when something has
 * changed that the zygote has loaded, which is then started anew. */
AS_MUST_USE int as_zygote_become(as_zygote *zygote, as_program *program, const as_file_mark *mark);
/* Lets it compile a script before it is asked for again. */
void as_zygote_tell_script(as_zygote *zygote, const char *path, const as_file_mark *mark);
/* Whether the number is that of the zygote or of one that waits. */
bool as_zygote_has(const as_zygote *zygote, pid_t pid);
/* Now and then: fewer processes wait when few are needed. */
void as_zygote_relax(as_zygote *zygote);

#endif
