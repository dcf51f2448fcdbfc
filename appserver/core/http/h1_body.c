/* h1_body.c: the body of a request: collected for a handler that wants it whole, passed on to an executor while it comes, or dropped.
 *
 * A body that is passed on is read no faster than its executor reads: at most one piece, in the input buffer, waits for room in the stream socket, and meanwhile the
 * client's socket is left alone. It goes on while the handler works and while the response is being sent, so its time limit is a timer of its own. */
#include <errno.h>

#include "http/h1.h"
#include "report/counters.h"
#include "report/event.h"

enum { TURN_READS = 16 }; /* reads of one body before other connections get their turn */

static const as_limits *limits_of(const as_exchange *x)
{
    return x->request.epoch->limits;
}

/* One piece of body out of `data`; returns how much of it was consumed or a negative error. Sets body_done. */
static ssize_t take_body(as_exchange *x, char *data, size_t len, as_str *piece)
{
    if (x->request.head.chunked) {
        bool done = false;
        int n = as_chunked_decode(&x->chunked, data, len, piece, &done);
        x->body_done = done;
        x->request.received += piece->len;
        return n;
    }
    size_t n = len < x->body_left ? len : (size_t)x->body_left;
    *piece = as_str_of(data, n);
    x->body_left -= n;
    x->body_done = x->body_left == 0;
    x->request.received += n;
    return (ssize_t)n;
}

/* Body bytes are read into the room behind the head, which stays as it is: the request borrows from it. With a known length the read stops at the
 * body's end, so that the next request stays in the kernel; chunked bodies may bring it along, and then it stays in the buffer. */
static ssize_t read_body(as_exchange *x)
{
    if (!x->conn->readable)
        return AS_EAGAIN;
    if (x->next == x->in_len)
        x->next = x->in_len = x->head_len;
    size_t room = x->in_capacity - x->in_len;
    if (!x->request.head.chunked && room > x->body_left)
        room = (size_t)x->body_left;
    ssize_t n = as_conn_read(x->conn, x->in + x->in_len, room);
    if (n > 0)
        x->in_len += (uint32_t)n;
    return n;
}

static int status_of(int err)
{
    if (err == AS_ESYSTEM)
        return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? 507 : 500;
    return err == AS_ENOMEM ? 503 : as_err_status(err);
}

static void report_spool(const as_exchange *x)
{
    int saved = errno;
    as_event_emit(x->home->events, AS_EVENT_ERROR, x->request.id, -1, 0, "a request body cannot be spooled to %s: %s",
                  x->request.epoch->spool_directory, strerror(saved));
    errno = saved;
}

/* Collected. */

/* Takes what is in the input buffer. AS_OK when all of it is consumed or the body is done. */
static int collect_input(as_exchange *x)
{
    while (!x->body_done && x->next < x->in_len) {
        as_str piece = AS_STR_NONE;
        ssize_t n = take_body(x, x->in + x->next, x->in_len - x->next, &piece);
        if (n < 0)
            return (int)n;
        x->next += (uint32_t)n;
        if (x->spool.length + piece.len > limits_of(x)->body_size)
            return AS_EBODYTOOLARGE;
        uint64_t expected = x->request.head.content_length > 0 ? (uint64_t)x->request.head.content_length : 0;
        int err = piece.len > 0 ? as_spool_add(&x->spool, piece, expected) : AS_OK;
        if (err != AS_OK)
            return err;
    }
    return AS_OK;
}

static void hand_over(as_exchange *x)
{
    as_request_body *body = &x->request.body;
    body->length = x->spool.length;
    body->fd = as_spool_take_fd(&x->spool);
    if (body->fd < 0)
        body->memory = as_str_of(x->spool.memory.ptr, x->spool.memory.len);
}

as_take_result as_h1_collect_body(as_exchange *x, int *status)
{
    for (int reads = 0;; reads++) {
        int err = collect_input(x);
        if (err != AS_OK) {
            if (err == AS_ESYSTEM)
                report_spool(x);
            *status = status_of(err);
            return AS_TAKE_BAD;
        }
        if (x->body_done) {
            hand_over(x);
            return AS_TAKE_DONE;
        }
        if (reads == TURN_READS) {
            as_h1_wait_for_body(x);
            as_conn_put_off(x->conn);
            return AS_TAKE_WAIT;
        }
        ssize_t n = read_body(x);
        if (n == AS_EAGAIN) {
            as_h1_wait_for_body(x);
            return AS_TAKE_WAIT;
        }
        if (n <= 0)
            return AS_TAKE_GONE;
    }
}

/* Dropped. */

as_take_result as_h1_drop_body(as_exchange *x)
{
    for (;;) {
        while (!x->body_done && x->next < x->in_len) {
            as_str piece = AS_STR_NONE;
            ssize_t n = take_body(x, x->in + x->next, x->in_len - x->next, &piece);
            if (n < 0)
                return AS_TAKE_BAD;
            x->next += (uint32_t)n;
            x->discarded += (uint64_t)n;
        }
        if (x->discarded > AS_MAX_DISCARD)
            return AS_TAKE_BAD;
        if (x->body_done)
            return AS_TAKE_DONE;
        ssize_t n = read_body(x);
        if (n == AS_EAGAIN)
            return AS_TAKE_WAIT;
        if (n <= 0)
            return AS_TAKE_GONE;
    }
}

/* Passed on. */

/* The decoded bytes that are in the input buffer, moved together: many small chunks are one write. */
static int decode_input(as_exchange *x)
{
    as_str *unsent = &x->unsent;
    assert(unsent->len == 0);
    while (!x->body_done && x->next < x->in_len) {
        as_str piece = AS_STR_NONE;
        ssize_t n = take_body(x, x->in + x->next, x->in_len - x->next, &piece);
        if (n < 0)
            return (int)n;
        x->next += (uint32_t)n;
        x->streamed += piece.len;
        if (x->streamed > limits_of(x)->body_size)
            return AS_EBODYTOOLARGE;
        if (piece.len == 0)
            continue;
        if (unsent->len == 0) {
            *unsent = piece;
        } else {
            memmove((char *)unsent->ptr + unsent->len, piece.ptr, piece.len);
            unsent->len += piece.len;
        }
    }
    return AS_OK;
}

static ssize_t write_unsent(as_exchange *x)
{
    while (x->unsent.len > 0) {
        ssize_t n = x->stream.is_writable ? as_stream_write(&x->stream, x->unsent) : AS_EAGAIN;
        if (n < 0)
            return n;
        x->spent = true;
        x->moved_ns = x->home->loop->now_ns;
        x->unsent = as_str_of(x->unsent.ptr + n, x->unsent.len - (size_t)n);
    }
    return 0;
}

/* The client's next piece has come too late, or too little has come. */
static void client_is_slow(as_timer *timer)
{
    as_exchange *x = AS_CONTAINER_OF(timer, as_exchange, feed_timer);
    uint64_t rate = limits_of(x)->min_rate;
    uint64_t least = rate * limits_of(x)->body_timeout_ms / AS_MS_PER_S;
    if (rate != 0 && x->streamed - x->feed_mark >= (least > 0 ? least : 1)) {
        x->feed_mark = x->streamed;
        as_timer_set(x->home->loop, timer, client_is_slow, limits_of(x)->body_timeout_ms);
        return;
    }
    as_h1_stop_feeding(x, 408);
}

/* The time runs only while it is the client who is waited for. As everywhere: a limit between two pieces, or by windows with limits.min_rate (h1_pace.c). */
static void wait_for_client(as_exchange *x)
{
    if (limits_of(x)->min_rate != 0 && as_timer_is_set(&x->feed_timer))
        return;
    x->feed_mark = x->streamed;
    as_timer_set(x->home->loop, &x->feed_timer, client_is_slow, limits_of(x)->body_timeout_ms);
}

/* The whole body is in the stream, or nobody reads there any more. What could not be written is kept when it would be the first: then another executor may get the
 * body yet. */
static as_take_result feeding_ends(as_exchange *x)
{
    if (x->spent)
        as_h1_close_stream(x);
    else
        as_h1_stop_stream(x);
    return AS_TAKE_DONE;
}

as_take_result as_h1_feed_body(as_exchange *x, int *status)
{
    for (int reads = 0;; reads++) {
        ssize_t n = write_unsent(x);
        if (n == AS_EAGAIN) {
            as_timer_clear(x->home->loop, &x->feed_timer);
            return AS_TAKE_WAIT;
        }
        if (n < 0 || x->body_done)
            return feeding_ends(x);
        if (x->next == x->in_len) {
            if (reads == TURN_READS) {
                as_conn_put_off(x->conn);
                return AS_TAKE_WAIT;
            }
            n = read_body(x);
            if (n == AS_EAGAIN) {
                wait_for_client(x);
                return AS_TAKE_WAIT;
            }
            if (n <= 0)
                return AS_TAKE_GONE;
        }
        int err = decode_input(x);
        if (err != AS_OK) {
            *status = status_of(err);
            return AS_TAKE_BAD;
        }
    }
}

bool as_h1_waits_for_body(const as_exchange *x)
{
    return x->feeding && x->unsent.len == 0 && !x->body_done;
}

void as_h1_stop_stream(as_exchange *x)
{
    as_timer_clear(x->home->loop, &x->feed_timer);
    as_stream_close(&x->stream);
    x->feeding = false;
}

void as_h1_close_stream(as_exchange *x)
{
    as_h1_stop_stream(x);
    x->unsent = AS_STR_NONE;
}
