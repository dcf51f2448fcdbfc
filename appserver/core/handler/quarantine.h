/* quarantine.h: requests that are not run for a while because they have killed two executors, by their fingerprints. One table for a pool.
 *
 * All loops use it at once, without a lock: each field is read and written atomically. Times are CLOCK_MONOTONIC. While nothing is in it, looking costs one
 * load of a line that nobody writes. */
#ifndef AS_HANDLER_QUARANTINE_H
#define AS_HANDLER_QUARANTINE_H

#include "base/platform.h"

enum { AS_QUARANTINE_ENTRIES = 64 }; /* when there are more, the one that would end first goes */

typedef struct as_quarantine {
    int64_t ends_ns; /* of the last entry; 0: there was none yet */
    struct as_quarantine_entry {
        uint64_t fingerprint;
        int64_t until_ns; /* 0: free */
    } entries[AS_QUARANTINE_ENTRIES];
    int64_t told_ns; /* when the log last heard of one that was refused */
} as_quarantine;

static inline bool as_quarantine_is_empty(const as_quarantine *quarantine, int64_t now_ns)
{
    return __atomic_load_n(&quarantine->ends_ns, __ATOMIC_RELAXED) <= now_ns;
}

/* A fingerprint that is there already stays until the later of both times. */
void as_quarantine_add(as_quarantine *quarantine, uint64_t fingerprint, int64_t until_ns);
/* Until when; 0 when it is not there (any more). */
int64_t as_quarantine_until(const as_quarantine *quarantine, uint64_t fingerprint, int64_t now_ns);
/* True once a second, to one of those who ask: that one may write a line. */
bool as_quarantine_may_tell(as_quarantine *quarantine, int64_t now_ns);

#endif
