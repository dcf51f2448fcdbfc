/* connection.h: one client transport: a fixed object that belongs to one loop for life, is cleaned and reused (paper, section IV).
 *
 * Transport (plain; TLS later) and protocol (HTTP/1) are tables of functions; nobody else asks which one a connection has.
 * Everything here is for the loop thread that owns the connection. */
#ifndef AS_NET_CONNECTION_H
#define AS_NET_CONNECTION_H

#include <sys/uio.h>
#include <sys/un.h>

#include "loop/loop.h"
#include "net/gate.h"
#include "net/tuning.h"
#include "report/counters.h"

typedef struct as_conn as_conn;
typedef struct as_net as_net;

/* Results: bytes (> 0), 0 for the end of the stream (read), AS_EAGAIN, or AS_ECLOSED when the peer has gone. `more`: further bytes follow at once, so the kernel
 * shall not send a small packet yet (the paper's TCP_CORK, unless as_tuning says otherwise). */
typedef struct as_transport_ops {
    const char *name;
    ssize_t (*read)(as_conn *conn, void *buf, size_t len);
    ssize_t (*write)(as_conn *conn, const struct iovec *parts, int count, bool more);
    ssize_t (*send_file)(as_conn *conn, int fd, int64_t offset, size_t len, bool more);
    /* What the peer has acknowledged of all that was sent to it, or a negative as_err when that cannot be known. */
    int64_t (*taken)(as_conn *conn);
    /* the transport's own */
    ssize_t (*write_under_cork)(as_conn *conn, const struct iovec *parts, int count, bool more);
    ssize_t (*send_file_under_cork)(as_conn *conn, int fd, int64_t offset, size_t len, bool more);
    int more_flag; /* MSG_MORE, or 0 */
} as_transport_ops;

typedef struct as_protocol_ops {
    const char *name;
    void (*advance)(as_conn *conn);   /* the connection has become readable or writable, or the peer has gone */
    void (*timed_out)(as_conn *conn); /* conn->timer has fired */
    void (*drain)(as_conn *conn);     /* the server is going down: close when idle, else after the current request */
    void (*closing)(as_conn *conn);   /* give back whatever the protocol holds */
} as_protocol_ops;

struct as_conn {
    as_watch watch;
    as_net *net;
    const as_transport_ops *transport;
    const as_protocol_ops *protocol;
    void *state;    /* the protocol's, while a request is being received or answered */
    as_conn *older; /* all open connections of the loop; or the free list */
    as_conn *newer;
    as_timer timer;
    as_deferred work; /* put-off advance, or the final cleaning */
    as_address remote;
    as_address local;  /* family 0 until asked for */
    int ticket;        /* of the client's count in the gate; 0: none */
    uint32_t requests; /* answered on this connection */
    uint8_t phase;     /* the protocol's */
    bool readable : 1; /* a read has not said AS_EAGAIN since the last event */
    bool writable : 1;
    bool watches_writes : 1;
    bool half_closed : 1; /* the peer has shut down its sending side */
    bool broken : 1;      /* error or hang-up */
    bool closing : 1;
    bool corked : 1;
    bool put_off : 1; /* `work` is queued for the next turn */
    bool draining : 1;
};

/* What the connections of one loop share. */
struct as_net {
    as_loop *loop;
    as_counters *counters;
    void *home; /* the protocol's context: as_home */
    const as_protocol_ops *protocol;
    const as_transport_ops *transport; /* of new connections */
    bool no_reuse;                     /* objects of closed connections are not kept */
    as_conn *open;                     /* newest first */
    uint32_t open_count;
    as_conn *free_conns;
    uint32_t free_count;
    as_gate *gate;                /* shared with the other loops: for the limits */
    void (*emptied)(as_net *net); /* the last connection has gone while draining; may be NULL */
    bool draining;
};

/* Takes the connected socket `fd`, its place in the gate and its client's ticket (0: none); NULL when it cannot be watched (then all three are given back).
 * Reads at once: with deferred accept the request is there already. */
as_conn *as_conn_open(as_net *net, int fd, const as_address *remote, int ticket);

/* Marks and unlinks; the object is freed at the end of the turn, when no event can refer to it any more. */
void as_conn_close(as_conn *conn);

ssize_t as_conn_read(as_conn *conn, void *buf, size_t len);
/* Both keep conn->writable and arm the write event when the kernel takes no more. */
ssize_t as_conn_write(as_conn *conn, const struct iovec *parts, int count, bool more);
ssize_t as_conn_send_file(as_conn *conn, int fd, int64_t offset, size_t len, bool more);

/* protocol->advance in the next turn, so that others get theirs. */
void as_conn_put_off(as_conn *conn);
/* No more to send; the peer may still be reading what was sent. */
void as_conn_shut_writing(as_conn *conn);

void as_conn_set_timeout(as_conn *conn, uint32_t delay_ms); /* 0: none */

/* The local address, asked of the kernel once. */
const as_address *as_conn_local(as_conn *conn);
/* Numeric text of an address into `out` (46 bytes); returns the port. Unix sockets and unknown families: empty, 0. */
uint16_t as_address_text(const as_address *address, char *out);

void as_net_drain(as_net *net);
/* Closes every connection and frees the kept objects; only as the loop's last act (a turn must follow for the deferred work). */
void as_net_cut(as_net *net);
void as_net_free(as_net *net);

/* What `tuning` asks for; a static table. */
const as_transport_ops *as_plain_transport(const as_tuning *tuning);
/* What connections that open from now on go by. */
void as_net_tune(as_net *net, const as_tuning *tuning);

#endif
