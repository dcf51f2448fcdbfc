/* gate.h: who may come in: how many connections are open in the whole server, and how many of each client.
 *
 * All loops share one gate and nobody locks it: both counts are words that are changed by one atomic step, when a connection is accepted and when it is
 * closed; a request touches neither. The count of clients is shared rather than one for each loop because the kernel spreads a client's connections
 * over the loops as it likes: a limit for each loop would mean anything between itself and itself times the loops. */
#ifndef AS_NET_GATE_H
#define AS_NET_GATE_H

#include <netinet/in.h>

#include "base/error.h"
#include "base/memory.h"

typedef union as_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} as_address;

enum {
    AS_GATE_CLIENTS = 64 * 1024, /* clients that are counted at once (512 KiB); further ones are let in uncounted */
    AS_GATE_PROBES = 16,         /* words that are tried for a client: two lines of the processor's cache */
    AS_GATE_LOOPS = 64,
};

/* What one loop goes by; changes with its snapshot. */
typedef struct as_gate_rules {
    uint32_t connections; /* open at once */
    uint32_t per_client;  /* of one client; 0: no limit */
    bool wait;            /* over `connections` they wait in the backlog instead of being refused */
    bool accept_one;
} as_gate_rules;

typedef struct as_gate {
    /* any thread, atomically */
    uint64_t open;
    uint64_t waiting;  /* a bit for each loop that waits for a connection to close */
    uint64_t *clients; /* AS_GATE_CLIENTS words: a mark of the client, and its connections in the low bits */
    /* set before start */
    uint64_t secret; /* so that nobody can choose addresses whose words are the same */
    void (*wake)(struct as_gate *gate, int loop);
} as_gate;

/* A gate that nobody waits at needs no `wake`. */
void as_gate_init(as_gate *gate, void (*wake)(as_gate *gate, int loop));
void as_gate_free(as_gate *gate);

/* A place for one more connection; false when `limit` are open. Any thread. */
AS_MUST_USE bool as_gate_enter(as_gate *gate, uint32_t limit);
/* Gives the place back and wakes the loops that wait for one. Any thread. */
void as_gate_leave(as_gate *gate);
/* Loop `loop` is woken by the next as_gate_leave(). The caller looks for a place once more afterwards: one may have become free meanwhile. Any thread. */
void as_gate_wait(as_gate *gate, int loop);

/* One more connection of the client at `address` (IPv6: of its /64 network, which is what one customer gets). The ticket to give back, 0 when it is not
 * counted (unix sockets, and a table that is full), or AS_EFULL when the client has `limit` already. Any thread. */
int as_gate_count_client(as_gate *gate, const as_address *address, uint32_t limit);
void as_gate_forget_client(as_gate *gate, int ticket);

#endif
