#include "net/listener.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BATCH_MIN = 1,
    BATCH_MAX = 64,
    DROPPED_AT_ONCE = 64 * 1024,
    PAUSE_MS = 100,         /* without descriptors: let requests end instead of spinning on a ready listener */
    REPORT_AGAIN_S = 10,    /* one line in the log for a shortage that goes on */
    FINISH_MAX = 16 * 1024, /* no backlog is longer; new connections must not keep a loop that stops */
};

static void start_watching(as_listener *listener)
{
    if (!listener->watching)
        listener->watching = as_loop_watch(listener->net->loop, &listener->watch, listener->epoll_events) == AS_OK;
}

static void stop_watching(as_listener *listener)
{
    if (listener->watching)
        as_loop_unwatch(listener->net->loop, &listener->watch);
    listener->watching = false;
}

static void end_pause(as_timer *timer);

static void watch_again(as_listener *listener)
{
    start_watching(listener);
    if (!listener->watching) /* no memory or watches left in the kernel: this loop must not stay deaf */
        as_timer_set(listener->net->loop, &listener->pause, end_pause, PAUSE_MS);
}

static void end_pause(as_timer *timer)
{
    watch_again(AS_CONTAINER_OF(timer, as_listener, pause));
}

static void pause_accepting(as_listener *listener)
{
    int64_t now_ns = listener->net->loop->now_ns;
    AS_COUNT(listener->net->counters, accept_paused, 1);
    if (listener->reported_ns == 0 || now_ns - listener->reported_ns > REPORT_AGAIN_S * AS_NS_PER_S) {
        listener->reported_ns = now_ns;
        as_event_emit(listener->events, AS_EVENT_WARNING, 0, -1, 0,
                      "no file descriptors left: accepting pauses for %d ms at a time; raise the limit on open files",
                      PAUSE_MS);
    }
    stop_watching(listener);
    as_timer_set(listener->net->loop, &listener->pause, end_pause, PAUSE_MS);
}

/* A client over the limit gets a short answer instead of silence. What it has sent already is dropped in the kernel, because closing over unread bytes makes
 * a reset that may overtake the answer; it is not waited for, so that it cannot hold anything here. */
static void refuse(as_listener *listener, int fd)
{
    static const char answer[] =
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    AS_COUNT(listener->net->counters, connections_refused, 1);
    ssize_t n = send(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    n = recv(fd, NULL, DROPPED_AT_ONCE, MSG_DONTWAIT | MSG_TRUNC);
    (void)n;
    close(fd);
}

typedef enum { ACCEPTED, AGAIN, NONE, NO_DESCRIPTORS, FULL } accept_result;

static accept_result failure(int error)
{
    switch (error) {
    case EAGAIN:
    case EINVAL:
    case EBADF:
        return NONE;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return NO_DESCRIPTORS;
    default:
        /* ECONNABORTED and what Linux passes up from the new socket (accept(2)): that connection is lost, the next may be good. */
        return AGAIN;
    }
}

/* A socket that has its place: the client's own limit, then on to the loop that shall have it. */
static void admit(as_listener *listener, int fd, const as_address *remote)
{
    uint32_t limit = listener->rules->per_client;
    int ticket = limit == 0 ? 0 : as_gate_count_client(listener->net->gate, remote, limit);
    if (ticket < 0) {
        refuse(listener, fd);
        as_gate_leave(listener->net->gate);
        return;
    }
    listener->hand_over(listener, fd, remote, ticket);
}

/* With `wait` the place comes first, so that what is over the limit stays in the backlog; without, the socket, so that it can be told. */
static accept_result accept_one(as_listener *listener, bool wait)
{
    as_gate *gate = listener->net->gate;
    uint32_t limit = listener->rules->connections;
    if (wait && !as_gate_enter(gate, limit))
        return FULL;
    as_address remote = {.any.sa_family = AF_UNIX};
    socklen_t len = sizeof(remote);
    int fd = accept4(listener->watch.fd, &remote.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        accept_result result = failure(errno);
        if (wait)
            as_gate_leave(gate);
        return result;
    }
    AS_COUNT(listener->net->counters, connections_accepted, 1);
    if (wait || as_gate_enter(gate, limit))
        admit(listener, fd, &remote);
    else
        refuse(listener, fd);
    return ACCEPTED;
}

/* At the limit nothing is watched, so nothing spins; the connection that closes next wakes the loop through the gate. */
static accept_result park(as_listener *listener)
{
    stop_watching(listener);
    if (!listener->parked)
        AS_COUNT(listener->net->counters, accept_waited, 1);
    listener->parked = true;
    as_gate_wait(listener->net->gate, listener->loop);
    return accept_one(listener, true); /* a place may have become free before the gate knew of us */
}

static accept_result accept_or_park(as_listener *listener)
{
    bool wait = listener->rules->wait;
    accept_result result = accept_one(listener, wait);
    return result == FULL ? park(listener) : result;
}

static void accept_batch(as_listener *listener)
{
    uint32_t done = 0;
    accept_result result = ACCEPTED;
    while (done < listener->batch && (result == ACCEPTED || result == AGAIN)) {
        result = accept_or_park(listener);
        done++;
    }
    AS_COUNT(listener->net->counters, accept_batches, 1);
    if (done == 1 && result == NONE)
        AS_COUNT(listener->net->counters, accept_empty, 1);
    if (result == FULL)
        return;
    listener->parked = false;
    uint32_t most = listener->rules->accept_one ? BATCH_MIN : BATCH_MAX;
    if (result == NO_DESCRIPTORS) {
        pause_accepting(listener);
        return;
    }
    if (result == NONE)
        listener->batch = listener->batch > BATCH_MIN ? listener->batch / 2 : BATCH_MIN;
    else
        listener->batch = listener->batch * 2 < most ? listener->batch * 2 : most;
    watch_again(listener);
}

static void on_ready(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    as_listener *listener = AS_CONTAINER_OF(watch, as_listener, watch);
    if (listener->watching)
        accept_batch(listener);
}

/* Both fail for a unix socket, which needs neither. */
static void set_tcp_options(int fd)
{
    int on = 1;
    /* Linux hands it on to the connections that are accepted: a system call less for each. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    /* In HTTP the client speaks first, so a connection is of interest from its first bytes on: the kernel then makes the socket when they arrive, in
     * one step with what the handshake's last packet would have cost. One that stays silent is handed over all the same, after this many seconds
     * (tcp(7)), so that the limits for idle connections hold for it. */
    int defer_s = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &defer_s, sizeof(defer_s));
}

static void keep_here(as_listener *listener, int fd, const as_address *remote, int ticket)
{
    as_conn_open(listener->net, fd, remote, ticket);
}

int as_listener_start(as_listener *listener, const as_listener_options *options, int fd)
{
    /* EPOLLEXCLUSIVE only spares wake-ups; a socket that only one loop watches has none to spare. */
    bool is_shared = options->mode == AS_ACCEPT_SELF_MANAGED;
    *listener = (as_listener){
        .watch = {.fd = fd, .ready = on_ready},
        .net = options->net,
        .events = options->events,
        .rules = options->rules,
        .hand_over = options->hand_over != NULL ? options->hand_over : keep_here,
        .epoll_events = is_shared ? EPOLLIN | EPOLLEXCLUSIVE : EPOLLIN,
        .loop = options->loop,
        .batch = BATCH_MIN,
    };
    set_tcp_options(fd);
    start_watching(listener);
    return listener->watching ? AS_OK : AS_ESYSTEM;
}

void as_listener_resume(as_listener *listener)
{
    if (listener->parked)
        accept_batch(listener);
}

void as_listener_stop(as_listener *listener, bool finish)
{
    as_timer_clear(listener->net->loop, &listener->pause);
    stop_watching(listener);
    listener->parked = false;
    accept_result result = finish ? ACCEPTED : NONE;
    for (int done = 0; done < FINISH_MAX && (result == ACCEPTED || result == AGAIN); done++)
        result = accept_one(listener, false);
}
