/* listener.h: a listening socket and how the loops share it (paper, section III.A: threads that manage the socket among themselves).
 *
 * Every loop watches the same socket with EPOLLEXCLUSIVE: the kernel wakes one loop for a new connection, and while that one accepts, the others
 * are left alone. That is the paper's third design (self-managed threads) with the lock moved into the kernel, and without the false wake-ups of its
 * second. */
#ifndef AS_NET_LISTENER_H
#define AS_NET_LISTENER_H

#include "net/connection.h"
#include "report/event.h"

typedef struct as_listener {
    as_watch watch;
    as_net *net;
    as_event_ring *events;
    const uint32_t *limit; /* connections open at once over all loops */
    as_timer pause;
    uint32_t batch; /* accepts per turn: grows while connections keep coming */
    bool watching;
} as_listener;

/* One loop's part of the listening socket `fd`, which stays the caller's. AS_OK or AS_ESYSTEM. Loop thread. */
int as_listener_start(as_listener *listener, as_net *net, as_event_ring *events, int fd, const uint32_t *limit);
/* Accepts what is in the backlog already when `finish`, then stops watching. Loop thread. */
void as_listener_stop(as_listener *listener, bool finish);

#endif
