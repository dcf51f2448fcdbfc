#include "http/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_event(as_watch *watch, uint32_t epoll_events)
{
    as_stream *stream = AS_CONTAINER_OF(watch, as_stream, watch);
    if (!stream->is_watched)
        return;
    if (epoll_events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        stream->is_readable = true;
    if (epoll_events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        stream->is_writable = true;
    if (epoll_events & (EPOLLHUP | EPOLLERR))
        stream->is_hung_up = true;
    stream->changed(stream);
}

int as_stream_open(as_stream *stream, as_loop *loop, void (*changed)(as_stream *stream))
{
    int pair[2];
    assert(!stream->is_open);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    /* Each end is an open file description of its own: the executor's still blocks. */
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    *stream = (as_stream){
        .watch = {.fd = pair[0], .ready = on_event},
        .loop = loop,
        .changed = changed,
        .is_open = true,
        .is_readable = true,
        .is_writable = true,
    };
    return pair[1];
}

void as_stream_close(as_stream *stream)
{
    if (!stream->is_open)
        return;
    if (stream->is_watched)
        as_loop_unwatch(stream->loop, &stream->watch);
    close(stream->watch.fd);
    stream->is_open = stream->is_watched = false;
}

int as_stream_watch(as_stream *stream)
{
    if (stream->is_watched)
        return AS_OK;
    int err = as_loop_watch(stream->loop, &stream->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    stream->is_watched = err == AS_OK;
    return err;
}

static ssize_t result_of(as_stream *stream, ssize_t n)
{
    if (n >= 0)
        return n;
    if (errno != EAGAIN)
        return AS_ECLOSED;
    /* What has become ready meanwhile is told at once: adding a watch looks at the state, not at its changes (epoll(7)). */
    return as_stream_watch(stream) == AS_OK ? AS_EAGAIN : AS_ECLOSED;
}

ssize_t as_stream_write(as_stream *stream, as_str data)
{
    ssize_t n;
    do {
        n = send(stream->watch.fd, data.ptr, data.len, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    n = result_of(stream, n);
    if (n == AS_EAGAIN)
        stream->is_writable = false;
    return n;
}

ssize_t as_stream_read(as_stream *stream, void *buf, size_t len)
{
    ssize_t n;
    do {
        n = recv(stream->watch.fd, buf, len, 0);
    } while (n < 0 && errno == EINTR);
    n = result_of(stream, n);
    if (n == AS_EAGAIN)
        stream->is_readable = false;
    return n;
}

void as_stream_shut_writing(as_stream *stream)
{
    shutdown(stream->watch.fd, SHUT_WR);
}
