/* h1.c: the life of an HTTP/1 connection: one switch over its phases, each with a leaf that returns whether to go on.
 *
 * Only one request of a connection is in progress at a time; what a client has pipelined behind it waits in the input buffer or in the kernel, so
 * responses are in order by construction (RFC 9112 section 9.3.2). */
#include "http/h1.h"

#include <unistd.h>

#include "http/access_log.h"
#include "http/relay.h"
#include "report/event.h"

enum {
    INPUT_EXTRA = 4096,       /* room behind the largest head for body bytes that came with it */
    KEPT_BUFFER = 128 * 1024, /* larger output buffers are freed with their request */
    LINGER_READ = 16 * 1024,
    LINGER_MS = 2000,       /* how long a client may take to see the answer and close */
    LINGER_MOST_MS = 10000, /* and how long it may go on sending before it does */
    KEPT_EXCHANGES = 256,
    TURN_STEPS = 256, /* of one connection that pipelines, before others get their turn */
    TURN_READS = 16,  /* reads of a client that lingers before other connections get their turn */
};

static const uint8_t legal_steps[] = {
    [AS_PHASE_IDLE] = 1 << AS_PHASE_HEAD,
    [AS_PHASE_HEAD] = 1 << AS_PHASE_BODY | 1 << AS_PHASE_HANDLER,
    [AS_PHASE_BODY] = 1 << AS_PHASE_HANDLER,
    [AS_PHASE_HANDLER] = 1 << AS_PHASE_SEND | 1 << AS_PHASE_RELAY,
    [AS_PHASE_RELAY] = 1 << AS_PHASE_LINGER,
    [AS_PHASE_SEND] = 1 << AS_PHASE_DISCARD | 1 << AS_PHASE_LINGER | 1 << AS_PHASE_IDLE | 1 << AS_PHASE_HEAD,
    [AS_PHASE_DISCARD] = 1 << AS_PHASE_LINGER | 1 << AS_PHASE_IDLE | 1 << AS_PHASE_HEAD,
    [AS_PHASE_LINGER] = 0,
};

void as_h1_set_phase(as_conn *conn, as_phase phase)
{
    assert(legal_steps[conn->phase] & (1 << phase));
    conn->phase = (uint8_t)phase;
}

/* Exchanges: reused objects with their buffers. */

static as_exchange *take_exchange(as_conn *conn)
{
    as_home *home = conn->net->home;
    as_exchange *x = home->exchanges;
    if (x != NULL) {
        home->exchanges = x->next_free;
    } else {
        x = as_alloc(sizeof(*x));
        as_arena_init(&x->request.arena);
        x->spool.fd = -1;
    }
    x->conn = conn;
    x->home = home;
    x->reused = conn->requests > 0;
    conn->state = x;
    return x;
}

static void free_exchange(as_exchange *x)
{
    as_arena_free(&x->request.arena);
    as_spool_free(&x->spool);
    as_buf_free(&x->framed);
    as_buf_free(&x->out);
    as_free(x->in);
    as_free(x);
}

static void free_later(as_deferred *work)
{
    free_exchange(AS_CONTAINER_OF(work, as_exchange, freeing));
}

static void give_exchange(as_exchange *x)
{
    as_home *home = x->home;
    x->conn->state = NULL;
    x->conn = NULL;
    x->in_len = x->next = 0;
    x->out.len = x->out_sent = 0;
    if (x->out.capacity > KEPT_BUFFER)
        as_buf_free(&x->out);
    uint32_t kept = home->exchanges != NULL ? (uint32_t)((as_exchange *)home->exchanges)->scanned + 1 : 1;
    if (kept > KEPT_EXCHANGES || home->no_reuse) {
        as_loop_defer(home->loop, &x->freeing, free_later); /* an event of this turn may still name its pipe_watch */
        return;
    }
    x->scanned = kept; /* the free list counts itself in a field that is not in use there */
    x->next_free = home->exchanges;
    home->exchanges = x;
}

void as_h1_free_exchanges(as_home *home)
{
    while (home->exchanges != NULL) {
        as_exchange *x = home->exchanges;
        home->exchanges = x->next_free;
        free_exchange(x);
    }
}

/* Per request state, for a request that begins at the start of the input. */
static void begin_exchange(as_exchange *x)
{
    as_home *home = x->home;
    as_request *request = &x->request;
    x->scanned = 0;
    x->next = 0;
    x->discarded = x->streamed = 0;
    x->moved_ns = 0;
    x->continue_due = x->feeding = x->spent = x->upgraded = false;
    x->is_paced = x->head_timed = x->has_body = x->in_handler = x->answered = x->close_after = x->head_only =
        x->chunks = false;
    x->pipe_ended = x->stream_over = x->stream_complete = x->released = x->from_error = x->held_back = false;
    x->prefix_pending = x->last_chunk = x->pipe_watched = x->end_awaited = false;
    x->body_done = true;
    x->body_sent = 0;
    x->memory_rest = AS_STR_NONE;
    x->file_left = 0;
    x->pipe_left = -1;
    x->job = (as_job){0};
    x->framed.len = x->framed_sent = 0;
    request->home = home;
    request->epoch = home->epoch;
    request->epoch->live++;
    request->site = NULL;
    request->handler = NULL;
    request->route = 0;
    request->received = 0;
    request->peer = &x->peer;
    request->id = home->next_request_id++;
    request->start_ns = home->loop->now_ns;
    request->target = (as_target){0};
    request->path = request->rule_prefix = AS_STR_NONE;
    request->body = (as_request_body){.fd = -1};
    request->redirected = NULL;
    request->upgrade = AS_STR_NONE;
    request->error_status = 0;
    request->response = (as_response){.body.fd = -1};
    request->handler_state = NULL;
    request->extra_fields = AS_STR_NONE;
    request->queue_ns = request->run_ns = request->cpu_us = -1;
    request->head.method = AS_METHOD_OTHER;
    request->head.method_text = request->head.target = AS_STR_NONE;
    request->head.minor = 1;
    request->head.fields_len = 0;
    request->head.keep_alive = false;
    memset(request->head.known, -1, sizeof(request->head.known));
    home->requests_active++;
    AS_COUNT(home->counters, requests_active, 1);
}

static void let_go_of_handler(as_exchange *x)
{
    as_request *request = &x->request;
    if (request->handler_state != NULL) {
        assert(request->handler->ops->abandon != NULL);
        request->handler->ops->abandon(request);
        request->handler_state = NULL;
    }
    as_h1_close_stream(
        x); /* behind the word that nobody waits any more, so that its end is not taken for that of the body */
}

/* What the response was made of, and the handler's part in it: not needed once the last byte is out. */
static void let_go_of_response(as_exchange *x)
{
    as_h1_unwatch_pipe(x);
    as_schedule_leave(&x->home->schedule, &x->job);
    let_go_of_handler(x);
    as_h1_release_body(x);
}

static void end_exchange(as_exchange *x)
{
    as_request *request = &x->request;
    as_home *home = x->home;
    let_go_of_response(x);
    as_relay_free(x);
    if (request->body.fd >= 0)
        close(request->body.fd);
    request->body.fd = -1;
    as_spool_reset(&x->spool);
    if (x->framed.capacity > KEPT_BUFFER)
        as_buf_free(&x->framed);
    as_arena_reset(&request->arena);
    home->requests_active--;
    AS_COUNT(home->counters, requests_active, -1);
    as_epoch *epoch = request->epoch;
    request->epoch = NULL;
    assert(epoch->live > 0);
    if (--epoch->live == 0 && epoch->retired)
        epoch->ended(epoch);
}

static const as_limits *limits_of(const as_exchange *x)
{
    return x->request.epoch->limits;
}

/* Receiving. */

static void count(const as_request *request, as_route_counters *route)
{
    AS_COUNT(route, responses[request->response.status / 100], 1);
    /* The loop's time is that of its turn: what was answered in the turn in which it came counts as no time. */
    int64_t duration_ns = request->home->loop->now_ns - request->start_ns;
    if (duration_ns > 0)
        as_count_duration(route, duration_ns);
    if (request->queue_ns > 0)
        AS_COUNT(route, queue_ns, request->queue_ns);
    if (request->run_ns > 0)
        AS_COUNT(route, run_ns, request->run_ns);
    if (request->cpu_us > 0)
        AS_COUNT(route, cpu_us, request->cpu_us);
}

static void log_request(as_exchange *x, bool cut)
{
    as_request *request = &x->request;
    if (x->home->routes != NULL)
        count(request, &x->home->routes[request->route]);
    if (x->home->access_log != NULL)
        as_access_log_write(x->home->access_log, request, x->body_sent, cut);
}

static bool reserve_input(as_exchange *x)
{
    uint32_t want = limits_of(x)->header_size + INPUT_EXTRA;
    if (x->in_capacity >= want)
        return true;
    char *moved = as_try_realloc(x->in, want);
    if (moved == NULL)
        return false;
    x->in = moved;
    x->in_capacity = want;
    return true;
}

static bool on_idle(as_conn *conn)
{
    as_home *home = conn->net->home;
    if (!conn->readable) {
        if (!as_timer_is_set(&conn->timer))
            as_conn_set_timeout(conn, home->epoch->limits->idle_timeout_ms);
        return false;
    }
    as_exchange *x = take_exchange(conn);
    begin_exchange(x);
    if (!reserve_input(x)) {
        as_conn_close(conn);
        return false;
    }
    ssize_t n = as_conn_read(conn, x->in, limits_of(x)->header_size);
    if (n > 0) {
        x->in_len = (uint32_t)n;
        as_h1_set_phase(conn, AS_PHASE_HEAD);
        return true;
    }
    if (n == AS_EAGAIN) {
        end_exchange(x);
        give_exchange(x);
        if (!as_timer_is_set(&conn->timer))
            as_conn_set_timeout(conn, home->epoch->limits->idle_timeout_ms);
    } else {
        as_conn_close(conn);
    }
    return false;
}

/* Addresses as text, for those who will read them. */
static void fill_peer(as_exchange *x)
{
    bool is_for_executor = x->request.handler != NULL && x->request.handler->ops->wants_body;
    x->peer.secure = false;
    x->peer.remote_address[0] = '\0'; /* not that of an earlier connection, should the log be switched on meanwhile */
    if (is_for_executor || (x->home->access_log != NULL && as_access_log_is_on(x->home->access_log)))
        x->peer.remote_port = as_address_text(&x->conn->remote, x->peer.remote_address);
    if (is_for_executor)
        x->peer.local_port = as_address_text(as_conn_local(x->conn), x->peer.local_address);
}

static bool refuse(as_exchange *x, int status)
{
    fill_peer(x);
    x->close_after = true;
    x->is_paced = false;
    if (x->conn->phase != AS_PHASE_HANDLER)
        as_h1_set_phase(x->conn, AS_PHASE_HANDLER);
    x->in_handler = true;
    as_request_error(&x->request, status, NULL);
    x->in_handler = false;
    return true;
}

static bool read_more_head(as_exchange *x)
{
    as_conn *conn = x->conn;
    if (x->in_len >= limits_of(x)->header_size)
        return refuse(x, 431);
    if (conn->readable) {
        ssize_t n = as_conn_read(conn, x->in + x->in_len, limits_of(x)->header_size - x->in_len);
        if (n > 0) {
            x->in_len += (uint32_t)n;
            return true;
        }
        if (n != AS_EAGAIN) {
            as_conn_close(conn);
            return false;
        }
    }
    /* The time of a head runs from its first byte: a drip does not extend it. */
    if (!x->head_timed) {
        x->head_timed = true;
        as_conn_set_timeout(conn, limits_of(x)->header_timeout_ms);
    }
    return false;
}

static bool call_handler(as_exchange *x)
{
    as_request *request = &x->request;
    as_h1_set_phase(x->conn, AS_PHASE_HANDLER);
    as_conn_set_timeout(x->conn, 0);
    x->is_paced = false;
    as_request_handle(request);
    return true;
}

void as_h1_send_continue(as_exchange *x)
{
    if (!x->continue_due)
        return;
    x->continue_due = false;
    AS_COUNT(x->home->counters, responses_1xx, 1);
    as_buf_add(&x->out, AS_STR("HTTP/1.1 100 Continue\r\n\r\n"));
}

static bool may_upgrade(const as_request *request)
{
    const as_handler *handler = request->handler;
    return handler != NULL && handler->ops->upgrades != NULL && handler->ops->upgrades(handler, request);
}

static bool is_streamed(const as_request *request)
{
    const as_handler_ops *ops = request->handler->ops;
    return ops->streams_body != NULL && ops->streams_body(request->handler, request);
}

/* A head has been parsed: what is behind it, who answers, and whether its body is wanted. */
static bool accept_head(as_exchange *x)
{
    as_request *request = &x->request;
    as_head *head = &request->head;
    as_conn *conn = x->conn;
    AS_COUNT(x->home->counters, requests, 1);
    conn->requests++;
    x->has_body = head->chunked || head->content_length > 0;
    x->body_done = !x->has_body;
    x->body_left = head->content_length > 0 ? (uint64_t)head->content_length : 0;
    as_chunked_init(&x->chunked);
    /* RFC 9110 section 10.1.1: not when the body has begun to arrive. */
    x->continue_due = x->has_body && head->expect_continue && x->next == x->in_len;
    const as_limits *limits = limits_of(x);
    if (!head->keep_alive || conn->draining ||
        (limits->keep_alive_requests != 0 && conn->requests >= limits->keep_alive_requests))
        x->close_after = true;
    int err = as_target_parse(head->target, head->method, as_arena_alloc(&request->arena, head->target.len + 1),
                              &request->target);
    if (err != AS_OK)
        return refuse(x, as_err_status(err));
    if (request->target.form == AS_TARGET_ABSOLUTE)
        head->host = request->target.authority;
    request->path = request->target.path;
    as_request_route(request);
    fill_peer(x);
    if (!x->has_body || request->handler == NULL || !request->handler->ops->wants_body) {
        if (!x->has_body && !conn->draining && may_upgrade(request))
            as_relay_is_asked_for(request);
        return call_handler(x);
    }
    if (head->content_length >= 0 && (uint64_t)head->content_length > limits->body_size)
        return refuse(x, 413);
    if (is_streamed(request)) {
        request->body.is_streamed = true;
        request->body.length = head->chunked ? AS_BODY_UNKNOWN : (uint64_t)head->content_length;
        return call_handler(x);
    }
    as_spool_init(&x->spool, request->epoch->spool_directory);
    as_h1_set_phase(conn, AS_PHASE_BODY);
    as_h1_send_continue(x);
    return true;
}

static bool on_head(as_conn *conn)
{
    as_exchange *x = conn->state;
    int n = as_head_parse(x->in, x->in_len, &x->scanned, limits_of(x), &x->request.head);
    if (n == AS_EAGAIN)
        return read_more_head(x);
    if (n < 0) {
        AS_COUNT(x->home->counters, requests, 1);
        conn->requests++;
        return refuse(x, as_err_status(n));
    }
    x->next = x->head_len = (uint32_t)n;
    return accept_head(x);
}

/* The log's status for a client that left, as others have it. */
static bool end_unanswered(as_exchange *x)
{
    x->request.response.status = 499;
    log_request(x, true);
    as_conn_close(x->conn);
    return false;
}

static bool on_body(as_conn *conn)
{
    as_exchange *x = conn->state;
    int status;
    switch (as_h1_collect_body(x, &status)) {
    case AS_TAKE_DONE:
        return call_handler(x);
    case AS_TAKE_BAD:
        return refuse(x, status);
    case AS_TAKE_GONE:
        return end_unanswered(x);
    default:
        return false;
    }
}

/* Answering. */

static bool client_has_gone(const as_exchange *x)
{
    const as_conn *conn = x->conn;
    /* A client that asked to close may shut its sending side and still wait (a pipe into a network tool does); one that wanted to keep the connection
     * and closes has left. While some of its body is still to be read, it may have closed behind all of it. */
    return conn->broken || (conn->half_closed && x->request.head.keep_alive && x->body_done);
}

/* Whether the rest of a body that nobody wants is read and dropped, so that the connection can go on behind it. After Expect the client may not send the body at
 * all, which makes the next byte ambiguous. */
static bool will_discard(const as_exchange *x)
{
    return !x->continue_due && (x->request.head.chunked || x->body_left <= AS_MAX_DISCARD);
}

void as_h1_stop_feeding(as_exchange *x, int status)
{
    as_conn *conn = x->conn;
    if (conn->phase != AS_PHASE_HANDLER) {
        as_h1_finish(x, true);
        return;
    }
    let_go_of_handler(x);
    refuse(x, status);
    as_h1_advance(conn);
}

static bool begin_send(as_exchange *x)
{
    /* All other answers end the request; only one that is still coming may still take in the body. */
    if (x->request.response.body.kind != AS_BODY_PIPE || !x->feeding)
        as_h1_close_stream(x);
    /* Decided now, for the head of the response announces it. */
    if (!x->body_done && !x->feeding && !will_discard(x))
        x->close_after = true;
    as_h1_set_phase(x->conn, AS_PHASE_SEND);
    as_h1_begin_response(x);
    return true;
}

static bool on_handler(as_conn *conn)
{
    as_exchange *x = conn->state;
    if (x->in_handler)
        return false;
    if (x->answered)
        return begin_send(x);
    if (x->upgraded) {
        as_relay_begin(x);
        return true;
    }
    int status = 0;
    as_take_result fed = x->feeding && !conn->broken ? as_h1_feed_body(x, &status) : AS_TAKE_WAIT;
    if (fed == AS_TAKE_BAD) {
        let_go_of_handler(x);
        return refuse(x, status);
    }
    if (fed == AS_TAKE_GONE || client_has_gone(x))
        return end_unanswered(x);
    return false;
}

/* While a response waits: for its client, or for its executor, which may still wait for more of the body. */
static bool goes_on(as_exchange *x)
{
    int status;
    as_take_result fed = x->feeding ? as_h1_feed_body(x, &status) : AS_TAKE_WAIT;
    if (fed == AS_TAKE_BAD || fed == AS_TAKE_GONE)
        return false;
    return x->request.response.body.kind != AS_BODY_PIPE || !client_has_gone(x);
}

static bool on_send(as_conn *conn)
{
    as_exchange *x = conn->state;
    as_send_result result = conn->broken ? AS_SEND_CUT : as_h1_send(x);
    if (result == AS_SEND_BLOCKED) {
        if (goes_on(x))
            return false;
        result = AS_SEND_CUT;
    }
    as_h1_finish(x, result == AS_SEND_CUT);
    return !conn->closing;
}

/* A client that is still sending would get a reset instead of the answer when its connection is closed now (RFC 9112 section 9.6). */
static bool begin_linger(as_conn *conn)
{
    as_exchange *x = conn->state;
    as_h1_set_phase(conn, AS_PHASE_LINGER);
    let_go_of_response(x);
    as_relay_free(x);
    as_conn_shut_writing(conn);
    as_conn_set_timeout(conn, LINGER_MS);
    x->linger_until_ns = x->home->loop->now_ns + LINGER_MOST_MS * AS_NS_PER_MS;
    return true;
}

static void end_connection(as_conn *conn)
{
    const as_exchange *x = conn->state;
    /* What another protocol's client may still be sending is not known. */
    if (x->body_done && x->next == x->in_len && !conn->readable && conn->phase != AS_PHASE_RELAY)
        as_conn_close(conn);
    else
        begin_linger(conn);
}

static void begin_next(as_conn *conn)
{
    as_exchange *x = conn->state;
    uint32_t left = x->in_len - x->next;
    if (left == 0) {
        assert(x->out.len == 0); /* only a response with another request behind it is held back */
        give_exchange(x);
        as_h1_set_phase(conn, AS_PHASE_IDLE);
        as_conn_set_timeout(conn, ((as_home *)conn->net->home)->epoch->limits->idle_timeout_ms);
        return;
    }
    memmove(x->in, x->in + x->next, left);
    x->in_len = left;
    x->reused = true;
    begin_exchange(x);
    if (!reserve_input(x)) { /* a new snapshot may allow larger heads */
        as_conn_close(conn);
        return;
    }
    as_h1_set_phase(conn, AS_PHASE_HEAD);
}

void as_h1_finish(as_exchange *x, bool cut)
{
    as_conn *conn = x->conn;
    x->is_paced = false;
    log_request(x, cut);
    if (cut) {
        as_conn_close(conn);
        return;
    }
    as_h1_close_stream(x);
    if (x->close_after || (!x->body_done && !will_discard(x))) {
        end_connection(conn);
        return;
    }
    if (!x->body_done) {
        let_go_of_response(x);
        as_h1_set_phase(conn, AS_PHASE_DISCARD);
        as_conn_set_timeout(conn, limits_of(x)->body_timeout_ms);
        return;
    }
    end_exchange(x);
    begin_next(conn);
}

static bool on_discard(as_conn *conn)
{
    as_exchange *x = conn->state;
    switch (as_h1_drop_body(x)) {
    case AS_TAKE_DONE:
        break;
    case AS_TAKE_BAD:
        return begin_linger(conn);
    case AS_TAKE_GONE:
        as_conn_close(conn);
        return false;
    default:
        return false;
    }
    if (x->close_after) { /* the server is going down since the response went out */
        end_connection(conn);
        return !conn->closing;
    }
    end_exchange(x);
    begin_next(conn);
    return !conn->closing;
}

static bool on_linger(as_conn *conn)
{
    const as_exchange *x = conn->state;
    char dropped[LINGER_READ];
    for (int reads = 0; reads < TURN_READS; reads++) {
        ssize_t n = conn->readable ? as_conn_read(conn, dropped, sizeof(dropped)) : AS_EAGAIN;
        if (n == AS_EAGAIN)
            return false;
        if (n <= 0 || x->home->loop->now_ns > x->linger_until_ns) {
            as_conn_close(conn);
            return false;
        }
        if (!conn->draining)
            as_conn_set_timeout(conn, LINGER_MS);
    }
    as_conn_put_off(conn);
    return false;
}

/* What was held back goes out when there is nothing else to do for the connection. When the socket is full, its write event leads here again. */
static void send_held(as_conn *conn)
{
    as_exchange *x = conn->closing ? NULL : conn->state;
    if (x != NULL && conn->phase != AS_PHASE_SEND && as_h1_send_held(x) == AS_SEND_CUT)
        as_conn_close(conn);
}

void as_h1_advance(as_conn *conn)
{
    static bool (*const steps[])(as_conn *) = {
        [AS_PHASE_IDLE] = on_idle,       [AS_PHASE_HEAD] = on_head,           [AS_PHASE_BODY] = on_body,
        [AS_PHASE_HANDLER] = on_handler, [AS_PHASE_SEND] = on_send,           [AS_PHASE_DISCARD] = on_discard,
        [AS_PHASE_LINGER] = on_linger,   [AS_PHASE_RELAY] = as_relay_advance,
    };
    for (int taken = 0; !conn->closing && steps[conn->phase](conn); taken++) {
        if (taken == TURN_STEPS) {
            as_conn_put_off(conn);
            break;
        }
    }
    send_held(conn);
}

/* The client sees a cut-off response; whoever looks for the reason sees it in the log. */
static void report_silence(const as_exchange *x)
{
    const as_request *request = &x->request;
    if (!x->conn->writable || request->response.body.kind != AS_BODY_PIPE)
        return;
    as_event_emit(x->home->events, AS_EVENT_WARNING, request->id, -1, 0,
                  "the response for %.*s is cut off: its program was silent for idle_time", (int)request->path.len,
                  request->path.ptr);
}

static void timed_out(as_conn *conn)
{
    as_exchange *x = conn->state;
    if (x != NULL && as_h1_keeps_pace(x))
        return;
    switch (conn->phase) {
    case AS_PHASE_HEAD:
    case AS_PHASE_BODY:
        refuse(x, 408);
        as_h1_advance(conn);
        break;
    case AS_PHASE_SEND:
        if (x->end_awaited && !x->stream_over) {
            as_request_stream_end(&x->request, true); /* its program has only closed its output */
            break;
        }
        report_silence(x);
        as_h1_finish(x, true);
        break;
    case AS_PHASE_RELAY:
        as_relay_timed_out(x);
        break;
    default:
        as_conn_close(conn);
    }
}

static void drain(as_conn *conn)
{
    /* A request that has arrived unseen is answered; closing over it would reset the connection. */
    if (conn->phase == AS_PHASE_IDLE) {
        conn->readable = true;
        as_h1_advance(conn);
    }
    as_exchange *x = conn->state;
    if (conn->phase == AS_PHASE_IDLE)
        as_conn_close(conn);
    else if (conn->phase == AS_PHASE_RELAY)
        as_h1_advance(conn);
    else if (x != NULL)
        x->close_after = true;
}

static void closing(as_conn *conn)
{
    as_exchange *x = conn->state;
    if (x == NULL)
        return;
    /* Answers that were held back for those of requests that have not come to their end. */
    if (x->out_sent < x->out.len && !conn->broken)
        as_h1_send_held(x);
    end_exchange(x);
    give_exchange(x);
}

const as_protocol_ops as_h1_protocol = {
    .name = "http/1.1",
    .advance = as_h1_advance,
    .timed_out = timed_out,
    .drain = drain,
    .closing = closing,
};
