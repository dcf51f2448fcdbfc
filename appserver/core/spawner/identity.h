/* identity.h: as whom a program runs, and whether it may: the checks of Apache's suexec. One owner thread.
 *
 * Whoever can write to a program, or to a folder on the way to it, decides what is run in its user's name. So a program that is run as somebody else than
 * this server must be that user's or root's, with all folders up to the rule's, and nobody else may write to any of them. */
#ifndef AS_SPAWNER_IDENTITY_H
#define AS_SPAWNER_IDENTITY_H

#include <sys/types.h>

#include "base/error.h"

/* >>> cdef */
typedef struct as_identity_rules {
    bool is_owner;     /* each program runs as the owner of its file; else as this process */
    bool checks_owner; /* the checks are made; always with is_owner */
    uint32_t min_uid;  /* of owners */
    uint32_t min_gid;
    /* Folders of programs, "path\0path\0...", ended by an empty one; others are refused when checks are made. Copied by as_spawner_new(). */
    const char *roots;
} as_identity_rules;
/* <<< cdef */

enum {
    /* Supplementary groups of a user; a user in more of them is refused. */
    AS_IDENTITY_GROUPS = 256,
    AS_IDENTITY_CACHE = 16,
    /* How long what the system knows of a user is believed. */
    AS_IDENTITY_FRESH_S = 10,
};

typedef struct as_identity {
    uid_t uid;
    gid_t gid;
    int groups_count;
    gid_t groups[AS_IDENTITY_GROUPS];
    int64_t read_ns; /* 0: an unused place */
} as_identity;

typedef struct as_identities {
    as_identity_rules rules; /* its roots are owned */
    char *roots;
    as_identity cache[AS_IDENTITY_CACHE];
} as_identities;

void as_identities_init(as_identities *identities, const as_identity_rules *rules);
void as_identities_free(as_identities *identities);

/* Whether `file`, which lies below `root` (both absolute), may run, and as whom: NULL as this process. What is pointed to stays as it is until the next
 * call. AS_OK; AS_EFORBIDDEN: `reason` says why, for the program's owner. */
int as_identities_find(as_identities *identities, const char *root, const char *file, int64_t now_ns,
                       const as_identity **identity, char *reason, size_t size);

/* In a child that borrows its parent's memory: this process alone becomes that user, for good. 0, or -1 with errno. */
int as_identity_assume(const as_identity *identity);

#endif
