/* listener.h: a listening socket and how the loops share it (paper, section III.A).
 *
 * Self-managed, the default: every loop watches the same socket with EPOLLEXCLUSIVE. The kernel wakes one loop for a new connection, and while that one
 * accepts, the others are left alone: the paper's third design with the lock moved into the kernel, and without the false wake-ups of its second.
 * The paper's other designs differ in what is watched and in who gets the connection, and so does a socket for each loop (SO_REUSEPORT): see as_accept_mode. */
#ifndef AS_NET_LISTENER_H
#define AS_NET_LISTENER_H

#include "net/connection.h"
#include "report/event.h"

typedef struct as_listener as_listener;

/* Who gets a connection: takes the socket, its place in the gate and its ticket. */
typedef void (*as_hand_over)(as_listener *listener, int fd, const as_address *remote, int ticket);

struct as_listener {
    as_watch watch;
    as_net *net;
    as_event_ring *events;
    const as_gate_rules *rules;
    as_hand_over hand_over;
    uint32_t epoll_events;
    int loop; /* for as_gate_wait() */
    as_timer pause;
    int64_t reported_ns; /* when the log was last told of a want of descriptors */
    uint32_t batch;      /* accepts per turn: grows while connections keep coming */
    bool watching;
    bool parked; /* waits for a connection to close; as_listener_resume() */
};

typedef struct as_listener_options {
    as_net *net;
    as_event_ring *events;
    const as_gate_rules *rules;
    as_accept_mode mode;
    as_hand_over hand_over; /* NULL: the connection stays on this loop */
    int loop;
} as_listener_options;

/* One loop's part of the listening socket `fd`, which stays the caller's. AS_OK or AS_ESYSTEM. Loop thread. */
int as_listener_start(as_listener *listener, const as_listener_options *options, int fd);
/* The gate has woken this loop, or the rules have changed: goes on when it waited. Loop thread. */
void as_listener_resume(as_listener *listener);
/* Accepts what is in the backlog already when `finish` (what is over a limit is refused), then stops watching. Loop thread. */
void as_listener_stop(as_listener *listener, bool finish);

#endif
