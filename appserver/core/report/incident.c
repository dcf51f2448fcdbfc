#include "report/incident.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

typedef struct node {
    struct node *next;
    as_incident incident;
} node;

struct as_incidents {
    int wake_fd;
    node *added AS_ALIGNED_LINE; /* atomic: newest first */
    uint64_t second;             /* atomic: which one, and in the lower bits how many were made in it */
    uint32_t waiting;            /* atomic */
    uint64_t dropped;            /* atomic */
    node *taken AS_ALIGNED_LINE; /* the control thread's: oldest first */
};

enum { COUNT_BITS = 16 };

as_incidents *as_incidents_new(int wake_fd)
{
    as_incidents *incidents = as_alloc_lines(sizeof(*incidents));
    incidents->wake_fd = wake_fd;
    return incidents;
}

void as_incidents_free(as_incidents *incidents)
{
    as_incident left;
    while (as_incidents_next(incidents, &left)) {
        if (left.fd >= 0)
            close(left.fd);
    }
    as_free(incidents);
}

bool as_incidents_admit(as_incidents *incidents, int64_t now_ns)
{
    uint64_t second = (uint64_t)(now_ns / AS_NS_PER_S) << COUNT_BITS;
    uint64_t seen = __atomic_load_n(&incidents->second, __ATOMIC_RELAXED);
    uint64_t wanted;
    do {
        /* The clocks of loops differ by a turn: an earlier second than the one that is counted is counted with it. */
        wanted = (seen >> COUNT_BITS) >= (second >> COUNT_BITS) ? seen + 1 : second + 1;
        bool is_full = __atomic_load_n(&incidents->waiting, __ATOMIC_RELAXED) >= AS_INCIDENTS_WAITING;
        if (is_full || (wanted & ((1u << COUNT_BITS) - 1)) > AS_INCIDENTS_A_SECOND) {
            __atomic_fetch_add(&incidents->dropped, 1, __ATOMIC_RELAXED);
            return false;
        }
    } while (!__atomic_compare_exchange_n(&incidents->second, &seen, wanted, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    __atomic_fetch_add(&incidents->waiting, 1, __ATOMIC_RELAXED);
    return true;
}

void as_incidents_add(as_incidents *incidents, const as_incident *incident)
{
    node *added = as_alloc(sizeof(*added));
    added->incident = *incident;
    added->next = __atomic_load_n(&incidents->added, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&incidents->added, &added->next, added, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {
    }
    uint64_t one = 1;
    ssize_t n = write(incidents->wake_fd, &one, sizeof(one));
    (void)n; /* a full counter wakes as well */
}

bool as_incidents_next(as_incidents *incidents, as_incident *incident)
{
    if (incidents->taken == NULL) {
        node *newest = __atomic_exchange_n(&incidents->added, NULL, __ATOMIC_ACQUIRE);
        while (newest != NULL) {
            node *next = newest->next;
            newest->next = incidents->taken;
            incidents->taken = newest;
            newest = next;
        }
    }
    node *oldest = incidents->taken;
    if (oldest == NULL)
        return false;
    incidents->taken = oldest->next;
    *incident = oldest->incident;
    as_free(oldest);
    __atomic_fetch_sub(&incidents->waiting, 1, __ATOMIC_RELAXED);
    return true;
}

uint64_t as_incidents_dropped(const as_incidents *incidents)
{
    return __atomic_load_n(&incidents->dropped, __ATOMIC_RELAXED);
}
