/* rlimits.h: what one program may use of the system (setrlimit(2)), and which of it a program has used up. One owner thread.
 *
 * The kernel keeps most of them for each process, so that a program's children have their own share; `processes` is counted for the user. */
#ifndef AS_SPAWNER_RLIMITS_H
#define AS_SPAWNER_RLIMITS_H

#include <sys/resource.h>
#include <sys/types.h>

#include "base/error.h"

/* >>> cdef */
/* 0 everywhere: no limit but that of this process. */
typedef struct as_program_limits {
    uint32_t cpu_s;      /* SIGXCPU, and SIGKILL a second later */
    uint64_t memory;     /* bytes of data (RLIMIT_DATA): heap and private mappings that can be written to */
    uint64_t file_size;  /* bytes of each file that is written; beyond it SIGXFSZ */
    uint32_t processes;  /* of the user */
    uint32_t open_files; /* descriptors */
} as_program_limits;
/* <<< cdef */

enum {
    AS_RLIMITS_MAX = 5,
    /* From SIGXCPU to SIGKILL. */
    AS_RLIMITS_CPU_GRACE_S = 1,
};

typedef struct as_rlimits {
    as_program_limits wanted;
    uint32_t count;
    int resources[AS_RLIMITS_MAX];
    struct rlimit values[AS_RLIMITS_MAX];
} as_rlimits;

/* What setting them takes; none is above what this process may give. */
void as_rlimits_plan(as_rlimits *limits, const as_program_limits *wanted);
/* On a process of ours, 0: on the calling one, also between vfork and exec. AS_OK, or AS_ESYSTEM with errno. */
int as_rlimits_apply(const as_rlimits *limits, pid_t pid);

/* Which limit a program has ended by, as the rest of a sentence ("it used ..."): true when `text` says it. `status` as in the answer `end`. */
bool as_rlimits_explain(const as_rlimits *limits, int status, const struct rusage *usage, char *text, size_t size);

#endif
