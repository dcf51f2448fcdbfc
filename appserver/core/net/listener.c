#include "net/listener.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BATCH_MIN = 1,
    BATCH_MAX = 64,
    DROPPED_AT_ONCE = 64 * 1024,
    PAUSE_MS = 100, /* without descriptors: let requests end instead of spinning on a ready listener */
};

static void start_watching(as_listener *listener)
{
    listener->watching = as_loop_watch(listener->net->loop, &listener->watch, EPOLLIN | EPOLLEXCLUSIVE) == AS_OK;
}

static void resume(as_timer *timer)
{
    as_listener *listener = AS_CONTAINER_OF(timer, as_listener, pause);
    start_watching(listener);
    if (!listener->watching) /* no memory or watches left in the kernel: this loop must not stay deaf */
        as_timer_set(listener->net->loop, timer, resume, PAUSE_MS);
}

static void pause_accepting(as_listener *listener)
{
    AS_COUNT(listener->net->counters, accept_paused, 1);
    as_event_emit(listener->events, AS_EVENT_WARNING, 0, -1, 0,
                  "no file descriptors left: accepting pauses for %d ms; raise the limit on open files", PAUSE_MS);
    as_loop_unwatch(listener->net->loop, &listener->watch);
    listener->watching = false;
    as_timer_set(listener->net->loop, &listener->pause, resume, PAUSE_MS);
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

typedef enum { ACCEPTED, AGAIN, NONE, NO_DESCRIPTORS } accept_result;

static accept_result accept_one(as_listener *listener)
{
    as_address remote = {.any.sa_family = AF_UNIX};
    socklen_t len = sizeof(remote);
    int fd = accept4(listener->watch.fd, &remote.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        switch (errno) {
        case EAGAIN:
            return NONE;
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            return NO_DESCRIPTORS;
        default:
            /* ECONNABORTED and what Linux passes up from the new socket (accept(2)): that connection is lost, the next may be good. */
            return errno == EINVAL || errno == EBADF ? NONE : AGAIN;
        }
    }
    AS_COUNT(listener->net->counters, connections_accepted, 1);
    if (__atomic_load_n(listener->net->open_everywhere, __ATOMIC_RELAXED) >= *listener->limit) {
        refuse(listener, fd);
        return ACCEPTED;
    }
    as_conn_open(listener->net, fd, &remote);
    return ACCEPTED;
}

static void on_ready(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    as_listener *listener = AS_CONTAINER_OF(watch, as_listener, watch);
    if (!listener->watching)
        return;
    uint32_t done = 0;
    accept_result result = ACCEPTED;
    while (done < listener->batch && (result == ACCEPTED || result == AGAIN)) {
        result = accept_one(listener);
        done++;
    }
    AS_COUNT(listener->net->counters, accept_batches, 1);
    if (result == NO_DESCRIPTORS)
        pause_accepting(listener);
    else if (result == NONE)
        listener->batch = listener->batch > BATCH_MIN ? listener->batch / 2 : BATCH_MIN;
    else
        listener->batch = listener->batch < BATCH_MAX ? listener->batch * 2 : BATCH_MAX;
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

int as_listener_start(as_listener *listener, as_net *net, as_event_ring *events, int fd, const uint32_t *limit)
{
    *listener = (as_listener){
        .watch = {.fd = fd, .ready = on_ready}, .net = net, .events = events, .limit = limit, .batch = BATCH_MIN};
    set_tcp_options(fd);
    start_watching(listener);
    return listener->watching ? AS_OK : AS_ESYSTEM;
}

void as_listener_stop(as_listener *listener, bool finish)
{
    as_timer_clear(listener->net->loop, &listener->pause);
    if (!listener->watching)
        return;
    as_loop_unwatch(listener->net->loop, &listener->watch);
    listener->watching = false;
    accept_result result = finish ? ACCEPTED : NONE;
    while (result == ACCEPTED || result == AGAIN)
        result = accept_one(listener);
}
