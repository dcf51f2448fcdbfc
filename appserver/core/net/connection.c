/* connection.c: the life of a connection.
 *
 * A connection is watched edge-triggered and for reading only, once, when it is opened: no system call per request. Writes are tried first, and the
 * write event is added the first time that the kernel takes less than everything; it then stays, since an edge costs nothing while it does not
 * happen. */
#include "net/connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KEPT_CONNECTIONS = 1024 };

static void on_event(as_watch *watch, uint32_t epoll_events)
{
    as_conn *conn = AS_CONTAINER_OF(watch, as_conn, watch);
    if (conn->closing)
        return;
    if (epoll_events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->readable = true;
    if (epoll_events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        conn->writable = true;
    if (epoll_events & EPOLLRDHUP)
        conn->half_closed = true;
    if (epoll_events & (EPOLLHUP | EPOLLERR))
        conn->broken = true;
    conn->protocol->advance(conn);
}

static as_conn *take_object(as_net *net)
{
    as_conn *conn = net->free_conns;
    if (conn == NULL)
        return as_alloc(sizeof(*conn));
    net->free_conns = conn->older;
    net->free_count--;
    *conn = (as_conn){0};
    return conn;
}

static void give_object(as_net *net, as_conn *conn)
{
    if (net->free_count >= KEPT_CONNECTIONS || net->no_reuse) {
        as_free(conn);
        return;
    }
    conn->older = net->free_conns;
    net->free_conns = conn;
    net->free_count++;
}

static void link_conn(as_net *net, as_conn *conn)
{
    conn->older = net->open;
    conn->newer = NULL;
    if (net->open != NULL)
        net->open->newer = conn;
    net->open = conn;
    net->open_count++;
    AS_COUNT(net->counters, connections_open, 1);
}

static void unlink_conn(as_net *net, as_conn *conn)
{
    if (conn->newer != NULL)
        conn->newer->older = conn->older;
    else
        net->open = conn->older;
    if (conn->older != NULL)
        conn->older->newer = conn->newer;
    conn->older = conn->newer = NULL;
    assert(net->open_count > 0);
    net->open_count--;
    AS_COUNT(net->counters, connections_open, -1);
}

/* Last, after the socket is closed: whoever is let in for this one shall find its descriptor free. */
static void leave_gate(as_gate *gate, int ticket)
{
    as_gate_forget_client(gate, ticket);
    as_gate_leave(gate);
}

as_conn *as_conn_open(as_net *net, int fd, const as_address *remote, int ticket)
{
    as_conn *conn = take_object(net);
    conn->watch = (as_watch){.fd = fd, .ready = on_event};
    conn->net = net;
    conn->transport = net->transport;
    conn->protocol = net->protocol;
    conn->remote = *remote;
    conn->ticket = ticket;
    conn->readable = true;
    conn->writable = true;
    conn->draining = net->draining;
    if (as_loop_watch(net->loop, &conn->watch, EPOLLIN | EPOLLRDHUP | EPOLLET) != AS_OK) {
        close(fd);
        give_object(net, conn);
        leave_gate(net->gate, ticket);
        return NULL;
    }
    link_conn(net, conn);
    conn->protocol->advance(conn);
    return conn;
}

static void clean(as_deferred *work)
{
    as_conn *conn = AS_CONTAINER_OF(work, as_conn, work);
    assert(conn->closing && conn->state == NULL && !as_timer_is_set(&conn->timer));
    give_object(conn->net, conn);
}

static void clean_later(as_deferred *work)
{
    as_conn *conn = AS_CONTAINER_OF(work, as_conn, work);
    as_loop_defer(conn->net->loop, work, clean);
}

void as_conn_close(as_conn *conn)
{
    as_net *net = conn->net;
    if (conn->closing)
        return;
    conn->closing = true;
    conn->protocol->closing(conn);
    as_timer_clear(net->loop, &conn->timer);
    /* No other descriptor refers to the socket, so closing it ends the watch as well (epoll(7)): a system call less. */
    close(conn->watch.fd);
    unlink_conn(net, conn);
    leave_gate(net->gate, conn->ticket);
    /* `work` may still be queued for the next turn; then the cleaning waits for that. */
    if (conn->put_off)
        conn->work.run = clean_later;
    else
        as_loop_defer(net->loop, &conn->work, clean);
    if (net->draining && net->open_count == 0 && net->emptied != NULL)
        net->emptied(net);
}

ssize_t as_conn_read(as_conn *conn, void *buf, size_t len)
{
    ssize_t n = conn->transport->read(conn, buf, len);
    /* A short read empties the socket; the next bytes make a new edge (epoll(7)). Not so when the peer has closed: that edge may have been merged with
     * the one being handled, and the end of the stream is still to be read. */
    if (n == AS_EAGAIN || (n > 0 && (size_t)n < len && !conn->half_closed && !conn->broken))
        conn->readable = false;
    if (n > 0)
        AS_COUNT(conn->net->counters, bytes_received, n);
    return n;
}

static ssize_t after_write(as_conn *conn, ssize_t n, size_t wanted)
{
    if (n > 0)
        AS_COUNT(conn->net->counters, bytes_sent, n);
    if (n != AS_EAGAIN && (n < 0 || (size_t)n == wanted))
        return n;
    conn->writable = false;
    if (!conn->watches_writes) {
        conn->watches_writes = true;
        if (as_loop_rewatch(conn->net->loop, &conn->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) != AS_OK)
            return AS_ECLOSED;
    }
    return n;
}

ssize_t as_conn_write(as_conn *conn, const struct iovec *parts, int count, bool more)
{
    size_t wanted = 0;
    for (int i = 0; i < count; i++)
        wanted += parts[i].iov_len;
    return after_write(conn, conn->transport->write(conn, parts, count, more), wanted);
}

ssize_t as_conn_send_file(as_conn *conn, int fd, int64_t offset, size_t len, bool more)
{
    ssize_t n = conn->transport->send_file(conn, fd, offset, len, more);
    /* 0: the file is shorter than it was; nothing to wait for. */
    return n == 0 ? 0 : after_write(conn, n, len);
}

static void advance_now(as_deferred *work)
{
    as_conn *conn = AS_CONTAINER_OF(work, as_conn, work);
    conn->put_off = false;
    conn->protocol->advance(conn);
}

void as_conn_put_off(as_conn *conn)
{
    if (conn->put_off || conn->closing)
        return;
    conn->put_off = true;
    as_loop_soon(conn->net->loop, &conn->work, advance_now);
}

void as_conn_shut_writing(as_conn *conn)
{
    shutdown(conn->watch.fd, SHUT_WR);
}

static void timed_out(as_timer *timer)
{
    as_conn *conn = AS_CONTAINER_OF(timer, as_conn, timer);
    conn->protocol->timed_out(conn);
}

void as_conn_set_timeout(as_conn *conn, uint32_t delay_ms)
{
    if (delay_ms == 0)
        as_timer_clear(conn->net->loop, &conn->timer);
    else
        as_timer_set(conn->net->loop, &conn->timer, timed_out, delay_ms);
}

const as_address *as_conn_local(as_conn *conn)
{
    if (conn->local.any.sa_family == 0) {
        socklen_t len = sizeof(conn->local);
        if (getsockname(conn->watch.fd, &conn->local.any, &len) < 0)
            conn->local.any.sa_family = AF_UNIX;
    }
    return &conn->local;
}

/* By hand: inet_ntop's sprintf would be a tenth of a cached answer's time. */
static void put_v4(const uint8_t *bytes, char *out)
{
    for (int i = 0; i < 4; i++) {
        unsigned value = bytes[i];
        if (value >= 100)
            *out++ = (char)('0' + value / 100);
        if (value >= 10)
            *out++ = (char)('0' + value / 10 % 10);
        *out++ = (char)('0' + value % 10);
        *out++ = '.';
    }
    out[-1] = '\0';
}

uint16_t as_address_text(const as_address *address, char *out)
{
    out[0] = '\0';
    if (address->any.sa_family == AF_INET) {
        put_v4((const uint8_t *)&address->v4.sin_addr, out);
        return ntohs(address->v4.sin_port);
    }
    if (address->any.sa_family != AF_INET6)
        return 0;
    if (IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr))
        put_v4(&address->v6.sin6_addr.s6_addr[12], out);
    else
        inet_ntop(AF_INET6, &address->v6.sin6_addr, out, INET6_ADDRSTRLEN);
    return ntohs(address->v6.sin6_port);
}

void as_net_drain(as_net *net)
{
    net->draining = true;
    for (as_conn *conn = net->open, *older; conn != NULL; conn = older) {
        older = conn->older;
        conn->draining = true;
        conn->protocol->drain(conn);
    }
    if (net->open_count == 0 && net->emptied != NULL)
        net->emptied(net);
}

void as_net_cut(as_net *net)
{
    while (net->open != NULL)
        as_conn_close(net->open);
}

static void free_kept(as_net *net)
{
    while (net->free_conns != NULL) {
        as_conn *conn = net->free_conns;
        net->free_conns = conn->older;
        as_free(conn);
    }
    net->free_count = 0;
}

void as_net_tune(as_net *net, const as_tuning *tuning)
{
    net->transport = as_plain_transport(tuning);
    net->no_reuse = tuning->no_reuse != 0;
    if (net->no_reuse)
        free_kept(net);
}

void as_net_free(as_net *net)
{
    assert(net->open == NULL);
    free_kept(net);
}
