/* h1_send_pipe.c: a response whose body comes out of a pipe or a stream socket: read when the client's socket has room, so that a slow client holds the writer back
 * through the pipe and never the core's memory. */
#include <errno.h>
#include <unistd.h>

#include "http/h1.h"
#include "report/event.h"

enum {
    PIPE_READ = 64 * 1024, /* a pipe's usual capacity */
    TURN_PIPE = 8,         /* reads of one pipe before other connections get their turn */
};

static void on_pipe(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    as_exchange *x = AS_CONTAINER_OF(watch, as_exchange, pipe_watch);
    if (x->pipe_watched && x->conn != NULL && !x->conn->closing && x->conn->phase == AS_PHASE_SEND)
        as_h1_advance(x->conn);
}

void as_h1_unwatch_pipe(as_exchange *x)
{
    if (x->pipe_watched)
        as_loop_unwatch(x->home->loop, &x->pipe_watch);
    x->pipe_watched = false;
}

static bool watch_pipe(as_exchange *x)
{
    if (x->pipe_watched)
        return true;
    x->pipe_watch = (as_watch){.fd = x->request.response.body.fd, .ready = on_pipe};
    x->pipe_watched = as_loop_watch(x->home->loop, &x->pipe_watch, EPOLLIN | EPOLLRDHUP | EPOLLET) == AS_OK;
    return x->pipe_watched;
}

/* Frames `data` into one buffer; the chunk-size line is reserved in front by the caller's reading behind it. */
static void frame_piece(as_exchange *x, as_str data)
{
    if (x->chunks) {
        as_buf_printf(&x->framed, "%zx\r\n", data.len);
        as_buf_add(&x->framed, data);
        as_buf_add(&x->framed, AS_STR("\r\n"));
    } else {
        as_buf_add(&x->framed, data);
    }
    x->body_sent += data.len;
}

static as_send_result write_framed(as_exchange *x)
{
    while (x->framed_sent < x->framed.len) {
        if (!x->conn->writable)
            return AS_SEND_BLOCKED;
        struct iovec part = {x->framed.ptr + x->framed_sent, x->framed.len - x->framed_sent};
        ssize_t n = as_conn_write(x->conn, &part, 1, false);
        if (n == AS_EAGAIN)
            return AS_SEND_BLOCKED;
        if (n < 0)
            return AS_SEND_CUT;
        x->framed_sent += (size_t)n;
    }
    x->framed.len = x->framed_sent = 0;
    return AS_SEND_DONE;
}

/* RFC 9110 section 6.5.1: only for those who have said so. */
static bool wants_trailers(const as_head *head)
{
    for (int i = 0; i < head->fields_len; i++) {
        if (as_str_equal_nocase(head->fields[i].name, AS_STR("te")) &&
            as_list_has_token(head->fields[i].value, AS_STR("trailers")))
            return true;
    }
    return false;
}

static void report_length(const as_exchange *x, const char *what)
{
    const as_request *request = &x->request;
    as_event_emit(x->home->events, AS_EVENT_WARNING, request->id, -1, 0, "%.*s: its Content-Length is %lld, but %s",
                  (int)request->path.len, request->path.ptr, (long long)request->response.body.length, what);
}

/* The body is over: every byte was framed. Tells whether the client may take it as complete. */
static as_send_result end_pipe(as_exchange *x)
{
    const as_body *body = &x->request.response.body;
    /* The end of a pipe alone could be a crash: the executor's word is on its way. */
    if (!x->stream_over && !(body->ends_at_eof && x->pipe_left > 0)) {
        if (body->ends_at_eof && !x->end_awaited) {
            x->end_awaited = true;
            as_conn_set_timeout(x->conn, AS_END_NEWS_MS);
        }
        return AS_SEND_BLOCKED;
    }
    if (x->end_awaited) {
        x->end_awaited = false;
        as_conn_set_timeout(x->conn, 0);
    }
    if (x->stream_over && !x->stream_complete)
        return AS_SEND_CUT;
    if (x->pipe_left > 0) {
        report_length(x, "its body ends before that, and so the response is cut off");
        return AS_SEND_CUT;
    }
    if (x->chunks && !x->last_chunk) {
        as_buf_add(&x->framed, AS_STR("0\r\n"));
        if (x->request.response.trailers.len > 0 && wants_trailers(&x->request.head))
            as_buf_add(&x->framed, x->request.response.trailers);
        as_buf_add(&x->framed, AS_STR("\r\n"));
        x->last_chunk = true;
    }
    return write_framed(x);
}

/* A body that is longer than its Content-Length is cut to it: what follows would be taken for the next response. */
static as_str within_length(as_exchange *x, as_str data)
{
    if (x->pipe_left < 0)
        return data;
    if ((int64_t)data.len > x->pipe_left)
        report_length(x, "its body goes on, and what is beyond is dropped");
    if ((int64_t)data.len >= x->pipe_left) {
        data.len = (size_t)x->pipe_left;
        x->pipe_ended = true;
        x->stream_over = x->stream_complete = true;
    }
    x->pipe_left -= (int64_t)data.len;
    return data;
}

/* A program that writes for ever is stopped by this; the client is told by the broken end. */
static as_str within_limit(as_exchange *x, as_str data)
{
    uint64_t limit = x->request.response.body.output_limit;
    if (limit == 0 || x->body_sent + data.len <= limit)
        return data;
    data.len = (size_t)(limit - x->body_sent);
    x->pipe_ended = x->stream_over = true;
    x->stream_complete = false;
    as_event_emit(x->home->events, AS_EVENT_WARNING, x->request.id, -1, 0,
                  "%.*s: the program's output is larger than limits.output %llu bytes: cut off",
                  (int)x->request.path.len, x->request.path.ptr, (unsigned long long)limit);
    return data;
}

/* An empty piece would be the end mark of chunks. */
static void take_piece(as_exchange *x, as_str data)
{
    data = within_length(x, within_limit(x, data));
    if (data.len > 0)
        frame_piece(x, data);
}

as_send_result as_h1_send_pipe(as_exchange *x)
{
    const as_body *body = &x->request.response.body;
    char piece[PIPE_READ];
    if (x->prefix_pending) {
        x->prefix_pending = false;
        take_piece(x, body->memory);
    }
    if (x->pipe_left == 0 && body->length >= 0)
        x->pipe_ended = x->stream_over = x->stream_complete = true;
    for (int reads = 0; reads < TURN_PIPE; reads++) {
        as_send_result result = write_framed(x);
        if (result != AS_SEND_DONE)
            return result;
        if (x->pipe_ended)
            return end_pipe(x);
        ssize_t n = read(body->fd, piece, sizeof(piece));
        if (n > 0) {
            if (!x->is_paced)
                as_conn_set_timeout(x->conn, 0);
            take_piece(x, as_str_of(piece, (size_t)n));
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && !x->stream_over)
            return watch_pipe(x) ? AS_SEND_BLOCKED : AS_SEND_CUT;
        x->pipe_ended = true; /* its end, or empty after the executor said that nothing more comes, or broken */
        as_h1_unwatch_pipe(x);
    }
    as_conn_put_off(x->conn);
    return AS_SEND_BLOCKED;
}
