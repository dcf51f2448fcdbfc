/* relay.c: see relay.h.
 *
 * Each direction is a flow. A piece that its sink does not take stays with the flow, and until it is gone nothing more is read from the source: so each side
 * is as fast as the other takes it, and a flow holds one piece at most. An idle connection holds no piece, and of its request only what the log will say.
 *
 * A source's end is passed on as a half-close. The relay is over when both flows are, when the executor says so by `end`, or when the client has gone. */
#include "http/relay.h"

#include "report/counters.h"

enum {
    PIECE = 16 * 1024,
    TURN_PIECES = 16, /* of one flow before other connections get their turn */
};

typedef struct flow {
    as_buf rest; /* read, and not taken by the sink yet */
    size_t sent; /* of it */
    bool at_end; /* the source will say no more */
    bool closed; /* the sink has been told so, or takes no more */
} flow;

struct as_relay {
    flow to_client;
    flow to_executor;
};

static bool has_token(const as_head *head, as_str name, as_str token)
{
    for (int i = 0; i < head->fields_len; i++) {
        if (as_str_equal_nocase(head->fields[i].name, name) && as_list_has_token(head->fields[i].value, token))
            return true;
    }
    return false;
}

bool as_relay_is_asked_for(as_request *request)
{
    static const as_str websocket = AS_STR("websocket");
    const as_head *head = &request->head;
    if (AS_LIKELY(head->known[AS_FIELD_UPGRADE] < 0) || head->minor == 0 || head->method != AS_METHOD_GET)
        return false;
    if (!has_token(head, AS_STR("connection"), AS_STR("upgrade")) || !has_token(head, AS_STR("upgrade"), websocket))
        return false;
    request->upgrade = websocket;
    return true;
}

/* The start. */

static void put_head(as_exchange *x)
{
    const as_request *request = &x->request;
    as_buf_add(&x->out, AS_STR("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: "));
    as_buf_add(&x->out, request->upgrade);
    as_buf_add(&x->out, AS_STR("\r\n"));
    as_buf_add(&x->out, request->response.fields);
    as_buf_add(&x->out, request->extra_fields);
    as_buf_add(&x->out, AS_STR("\r\n"));
}

/* The input buffer is many times what the head takes, and this connection may be here for days. The log still wants the head: it moves. */
static void shed_input(as_exchange *x)
{
    as_request *request = &x->request;
    as_str head = as_arena_copy(&request->arena, as_str_of(x->in, x->head_len));
    size_t scanned = 0;
    int n = as_head_parse(head.ptr, head.len, &scanned, request->epoch->limits, &request->head);
    assert(n == (int)head.len);
    char *path = as_arena_alloc(&request->arena, request->head.target.len + 1);
    int err = as_target_parse(request->head.target, request->head.method, path, &request->target);
    assert(err == AS_OK);
    (void)n;
    (void)err;
    if (request->target.form == AS_TARGET_ABSOLUTE)
        request->head.host = request->target.authority;
    request->path = request->target.path;
    request->rule_prefix = AS_STR_NONE;
    as_free(x->in);
    x->in = NULL;
    x->in_capacity = x->in_len = x->next = x->head_len = 0;
    as_buf_free(&x->framed);
    as_spool_free(&x->spool);
}

void as_relay_begin(as_exchange *x)
{
    struct as_relay *relay = x->relay = as_alloc(sizeof(*relay));
    AS_COUNT(x->home->counters, responses_1xx, 1);
    put_head(x);
    as_buf_add(&relay->to_executor.rest, as_str_of(x->in + x->next, x->in_len - x->next));
    shed_input(x);
    x->close_after = true;
    if (as_stream_watch(&x->stream) != AS_OK)
        relay->to_executor.closed = relay->to_client.at_end = true;
    as_h1_set_phase(x->conn, AS_PHASE_RELAY);
}

void as_relay_free(as_exchange *x)
{
    if (x->relay == NULL)
        return;
    as_buf_free(&x->relay->to_client.rest);
    as_buf_free(&x->relay->to_executor.rest);
    as_free(x->relay);
    x->relay = NULL;
}

/* Both ends look alike to a flow. */

static ssize_t read_client(as_exchange *x, char *buf, size_t len)
{
    return x->conn->readable ? as_conn_read(x->conn, buf, len) : AS_EAGAIN;
}

static ssize_t write_client(as_exchange *x, as_str data)
{
    if (!x->conn->writable)
        return AS_EAGAIN;
    struct iovec part = {(void *)data.ptr, data.len};
    ssize_t n = as_conn_write(x->conn, &part, 1, false);
    if (n > 0)
        x->body_sent += (uint64_t)n;
    return n;
}

static void close_client(as_exchange *x)
{
    as_conn_shut_writing(x->conn);
}

static ssize_t read_executor(as_exchange *x, char *buf, size_t len)
{
    return x->stream.is_readable ? as_stream_read(&x->stream, buf, len) : AS_EAGAIN;
}

static ssize_t write_executor(as_exchange *x, as_str data)
{
    return x->stream.is_writable ? as_stream_write(&x->stream, data) : AS_EAGAIN;
}

static void close_executor(as_exchange *x)
{
    as_stream_shut_writing(&x->stream);
}

typedef struct ends {
    ssize_t (*read)(as_exchange *x, char *buf, size_t len);
    ssize_t (*write)(as_exchange *x, as_str data);
    void (*close)(as_exchange *x);
} ends;

static const ends towards_client = {read_executor, write_client, close_client};
static const ends towards_executor = {read_client, write_executor, close_executor};

/* Writes what it can of `data`: how much, or AS_ECLOSED. */
static ssize_t write_some(as_exchange *x, const ends *of, as_str data)
{
    size_t written = 0;
    while (written < data.len) {
        ssize_t n = of->write(x, as_str_of(data.ptr + written, data.len - written));
        if (n == AS_EAGAIN)
            break;
        if (n < 0)
            return n;
        written += (size_t)n;
    }
    return (ssize_t)written;
}

/* The sink takes no more. */
static void give_up(flow *f)
{
    f->closed = true;
    as_buf_free(&f->rest);
    f->sent = 0;
}

/* True when nothing of an earlier piece is left. */
static bool write_rest(as_exchange *x, const ends *of, flow *f)
{
    if (f->rest.len == 0)
        return true;
    ssize_t n = write_some(x, of, as_str_of(f->rest.ptr + f->sent, f->rest.len - f->sent));
    if (n < 0) {
        give_up(f);
        return true;
    }
    f->sent += (size_t)n;
    if (f->sent < f->rest.len)
        return false;
    as_buf_free(&f->rest);
    f->sent = 0;
    return true;
}

static void move_piece(as_exchange *x, const ends *of, flow *f, as_str piece)
{
    ssize_t n = write_some(x, of, piece);
    if (n < 0)
        give_up(f);
    else if ((size_t)n < piece.len)
        as_buf_add(&f->rest, as_str_of(piece.ptr + n, piece.len - (size_t)n));
}

/* Until one of its ends is not ready. False when it has had its turn and could go on. */
static bool run(as_exchange *x, const ends *of, flow *f)
{
    char piece[PIECE];
    for (int pieces = 0; pieces < TURN_PIECES; pieces++) {
        if (!write_rest(x, of, f) || f->closed)
            return true;
        if (f->at_end) {
            of->close(x);
            f->closed = true;
            return true;
        }
        ssize_t n = of->read(x, piece, sizeof(piece));
        if (n == AS_EAGAIN)
            return true;
        if (n > 0)
            move_piece(x, of, f, as_str_of(piece, (size_t)n));
        else
            f->at_end = true;
    }
    return false;
}

/* The end. */

/* Before it has all that the executor had to say. A client that goes then, as one may that has seen the end, ends only its own side. */
static bool has_gone(const as_exchange *x)
{
    const flow *f = &x->relay->to_client;
    return f->closed ? !f->at_end : x->conn->broken;
}

/* The executor has said that it is done: what it has written is all there will be. */
static bool executor_is_done(const as_exchange *x)
{
    const flow *f = &x->relay->to_client;
    return x->stream_over && f->rest.len == 0 && (f->at_end || !x->stream.is_readable);
}

/* Its time for taking what waits for it, and that of the executor's last word when both flows are over. */
static void set_timer(as_exchange *x, uint64_t sent_before)
{
    const struct as_relay *relay = x->relay;
    bool progress = x->body_sent != sent_before;
    if (relay->to_client.rest.len > 0) {
        if (progress || !as_timer_is_set(&x->conn->timer))
            as_conn_set_timeout(x->conn, x->request.epoch->limits->send_timeout_ms);
    } else if (relay->to_client.closed && (relay->to_executor.closed || x->conn->broken)) {
        if (!as_timer_is_set(&x->conn->timer))
            as_conn_set_timeout(x->conn, AS_END_NEWS_MS);
    } else {
        as_conn_set_timeout(x->conn, 0);
    }
}

bool as_relay_advance(as_conn *conn)
{
    as_exchange *x = conn->state;
    struct as_relay *relay = x->relay;
    uint64_t sent_before = x->body_sent;
    as_send_result head = as_h1_send_held(x);
    if (head == AS_SEND_BLOCKED && !conn->broken)
        return false;
    /* So that it can say goodbye in its protocol. */
    if (conn->draining)
        relay->to_executor.at_end = true;
    /* The executor writes first and says `end` then, but the event of the stream may come behind that of the answer. */
    if (x->stream_over && !relay->to_client.at_end)
        x->stream.is_readable = true;
    bool rests = head == AS_SEND_CUT || (conn->broken && has_gone(x));
    if (!rests) {
        rests = run(x, &towards_client, &relay->to_client);
        rests = run(x, &towards_executor, &relay->to_executor) && rests;
    }
    if (x->stream.is_hung_up)
        give_up(&relay->to_executor);
    if (head == AS_SEND_CUT || has_gone(x)) {
        as_h1_finish(x, true);
        return false;
    }
    if (executor_is_done(x)) {
        as_h1_finish(x, !x->stream_complete);
        return !conn->closing;
    }
    if (!rests)
        as_conn_put_off(conn);
    set_timer(x, sent_before);
    return false;
}

void as_relay_timed_out(as_exchange *x)
{
    /* Both are done with each other, or the client takes nothing. */
    as_h1_finish(x, x->relay->to_client.rest.len > 0);
}
