/* tuning.h: the choices of the paper's section IV that can be switched, so that each can be measured. All zero is the default. */
#ifndef AS_NET_TUNING_H
#define AS_NET_TUNING_H

#include "base/platform.h"

/* How the loops share a listening socket (paper, section III.A). */
typedef enum as_accept_mode {
    AS_ACCEPT_SELF_MANAGED, /* every loop watches it; the kernel wakes one (EPOLLEXCLUSIVE) */
    AS_ACCEPT_COORDINATOR,  /* loop 0 accepts and hands the connections to the others in turn */
    AS_ACCEPT_INDEPENDENT,  /* every loop watches it and all are woken */
    AS_ACCEPT_REUSEPORT, /* each loop has a socket of its own; the kernel spreads the connections by their addresses */
} as_accept_mode;

/* What holds a head back until the body's first bytes share its packet. */
typedef enum as_cork { AS_CORK_CORK, AS_CORK_MORE, AS_CORK_OFF } as_cork;

/* >>> cdef */
typedef struct as_tuning {
    uint8_t accept_one;     /* one connection a turn, however many come */
    uint8_t write_separate; /* a system call for each piece of memory instead of one for all */
    uint8_t cork;           /* as_cork: 0 TCP_CORK, 1 MSG_MORE, 2 neither */
    uint8_t no_sendfile;    /* files go through a buffer */
    uint8_t no_reuse;       /* objects of connections and requests are freed instead of kept */
    uint8_t shortest_first; /* large responses: the one with the least left goes first */
} as_tuning;
/* <<< cdef */

#endif
