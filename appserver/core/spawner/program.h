/* program.h: starts one program. One thread per launcher.
 *
 * The child borrows the parent's memory until its exec (CLONE_VM and CLONE_VFORK): nothing is copied, however large the parent is, and why an exec
 * failed needs no pipe to come back. The child has a small stack of its own, so that it cannot disturb the parent's. */
#ifndef AS_SPAWNER_PROGRAM_H
#define AS_SPAWNER_PROGRAM_H

#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/error.h"
#include "spawner/identity.h"
#include "spawner/rlimits.h"

typedef struct as_launcher {
    char *stack;
    int null_fd;        /* /dev/null, for programs without a request body */
    rlim_t descriptors; /* soft limit for programs; 0: as it is here */
    pid_t own_pid;
    int signal_count;
    unsigned char signals[_NSIG]; /* those that are not at their default here and must be in programs */
} as_launcher;

typedef enum as_program_step {
    AS_PROGRAM_CLONE,     /* the process could not be made */
    AS_PROGRAM_PREPARE,   /* its group, limits or descriptors could not be set */
    AS_PROGRAM_IDENTITY,  /* it could not become its user */
    AS_PROGRAM_DIRECTORY, /* its working directory could not be entered */
    AS_PROGRAM_EXEC,
} as_program_step;

typedef struct as_program {
    const char *path; /* what is executed; absolute: PATH is not searched */
    char *const *argv;
    char *const *envp;
    const char *script;    /* the file that the request names; `path` unless an interpreter runs it */
    const char *directory; /* working directory */
    int stdin_fd;          /* these three stay the caller's and must be above 2 */
    int stdout_fd;
    int stderr_fd;
    /* What CGI programs get, and interpreters that are kept do not: these limits, and their descendants' orphans. NULL: neither. */
    const as_rlimits *limits;
    const as_identity *identity; /* NULL: as this process */
    /* Filled in by as_program_start(). */
    pid_t pid; /* and process group */
    int pidfd; /* the caller's to close; readable when the program has ended */
    as_program_step failed_at;
} as_program;

/* The first bytes of a file, at most `size`: how many, or -1 with errno. Never waits for a pipe. Any thread. */
ssize_t as_program_read_beginning(const char *path, char *out, size_t size);

/* AS_OK or AS_ESYSTEM. Opens /dev/null in place of any standard descriptor that is closed, because pipes would get those numbers. */
int as_launcher_init(as_launcher *launcher);
/* Notes the thread's process and its signal dispositions; again after they have changed. SIGCHLD becomes default when it is ignored, because exits would
 * go unseen. */
void as_launcher_note_process(as_launcher *launcher);
void as_launcher_free(as_launcher *launcher);

/* Starts a program in its own process group, with the three descriptors and no others, default signals, none blocked; it is killed when the calling
 * thread ends. AS_OK, or AS_ESYSTEM with errno and `failed_at`; nothing is then left to wait for. */
int as_program_start(as_launcher *launcher, as_program *program);

/* Whether the file that the request names is not there any more. */
bool as_program_has_gone(const as_program *program);
/* Whether the file says itself, rightly or wrongly, by what it is run (#!), or is empty: nothing else may then be taken to run it. Leaves errno alone. */
bool as_program_is_explicit(const as_program *program);
/* Why as_program_start() failed with `error`: a sentence about the script, for its owner. Looks at the script again. */
void as_program_explain(const as_program *program, int error, char *text, size_t size);

#endif
