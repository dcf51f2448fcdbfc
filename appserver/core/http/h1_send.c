/* h1_send.c: a response onto the connection: the head, then memory, a file, pieces of both, or a pipe (h1_send_pipe.c).
 *
 * The common answer, head and memory, is one call: a small body is copied behind its head, a larger one is the second piece of a sendmsg (the paper's writev).
 * While further requests of a client that pipelines are there already, small responses gather and go out together: a packet costs several times what a
 * response does. A file goes by sendfile behind its head, both under a cork, so that they share packets; a body of several pieces is a row of both. */
#include "http/date.h"
#include "http/h1.h"
#include "http/response_head.h"

enum {
    TURN_FILE = 1024 * 1024, /* bytes of one file before other connections get their turn */
    AT_ONCE = 64 * 1024,     /* a file that is no larger does not queue up with the large ones */
    SMALL_BODY = 2048,       /* cheaper to copy behind the head than to give the kernel a second piece */
    HELD_MAX = 32 * 1024,    /* bytes of responses that gather */
    MAX_PARTS = 16,          /* pieces of memory in one sendmsg */
};

/* The head. */

typedef struct writer {
    char *at;
    char *end;
} writer;

static void put(writer *w, as_str s)
{
    assert((size_t)(w->end - w->at) >= s.len);
    memcpy(w->at, s.ptr, s.len);
    w->at += s.len;
}

static void put_u64(writer *w, uint64_t value)
{
    assert(w->end - w->at >= 20);
    w->at += as_str_put_u64(w->at, value);
}

static as_str current_date(as_home *home)
{
    if (home->date_s != home->loop->wall_s) {
        home->date_s = home->loop->wall_s;
        as_date_format(home->date_s, home->date);
    }
    return as_str_of(home->date, AS_DATE_LEN);
}

/* Whether the body's length must be found out by the client from chunks or from the end of the connection; and what the head says of it. */
static void decide_framing(as_exchange *x)
{
    const as_request *request = &x->request;
    const as_response *response = &request->response;
    uint16_t status = response->status;
    x->head_only = request->head.method == AS_METHOD_HEAD || status == 204 || status == 304;
    x->chunks = false;
    if (response->is_framed)
        x->close_after = true;
    else if (response->body.kind == AS_BODY_PIPE && response->body.length < 0 && !x->head_only) {
        if (request->head.minor >= 1)
            x->chunks = true;
        else
            x->close_after = true;
    }
}

static void make_head(as_exchange *x)
{
    const as_request *request = &x->request;
    const as_response *response = &request->response;
    as_str reason = response->reason.len > 0 ? response->reason : as_status_reason(response->status);
    as_str software = as_str_from(request->epoch->server_software);
    size_t need = 256 + reason.len + software.len + response->fields.len + request->extra_fields.len;
    char *begin = as_buf_room(&x->out, need);
    writer w = {begin, begin + need};
    if (response->status == 200 && response->reason.len == 0) {
        put(&w, AS_STR("HTTP/1.1 200 OK\r\n"));
    } else {
        put(&w, AS_STR("HTTP/1.1 "));
        put_u64(&w, response->status);
        put(&w, AS_STR(" "));
        put(&w, reason);
        put(&w, AS_STR("\r\n"));
    }
    if (!response->has_server) {
        put(&w, AS_STR("Server: "));
        put(&w, software);
        put(&w, AS_STR("\r\n"));
    }
    if (!response->has_date) {
        put(&w, AS_STR("Date: "));
        put(&w, current_date(x->home));
        put(&w, AS_STR("\r\n"));
    }
    if (x->close_after)
        put(&w, AS_STR("Connection: close\r\n"));
    else if (request->head.minor == 0)
        put(&w, AS_STR("Connection: keep-alive\r\n"));
    if (response->status == 426) /* RFC 9110 section 15.5.22: it says to what */
        put(&w, AS_STR("Connection: upgrade\r\nUpgrade: websocket\r\n"));
    if (x->chunks) {
        put(&w, AS_STR("Transfer-Encoding: chunked\r\n"));
    } else if (response->body.length >= 0 && response->status != 204 && response->status != 304 &&
               (response->body.kind != AS_BODY_NONE || !x->head_only)) {
        put(&w, AS_STR("Content-Length: "));
        put_u64(&w, (uint64_t)response->body.length);
        put(&w, AS_STR("\r\n"));
    }
    if (response->fields.len > 0)
        put(&w, response->fields);
    if (request->extra_fields.len > 0)
        put(&w, request->extra_fields);
    put(&w, AS_STR("\r\n"));
    x->out.len += (size_t)(w.at - begin);
}

/* What is in memory: `out` and a larger memory body, or a body's pieces up to the next that is a file, in one call. A memory body stays where it is until it is
 * released. */

static bool has_memory_left(const as_exchange *x)
{
    return x->out_sent < x->out.len || x->memory_rest.len > 0;
}

static bool next_is_memory(const as_exchange *x, uint32_t piece)
{
    const as_body *body = &x->request.response.body;
    return piece < body->pieces_len && body->pieces[piece].memory.ptr != NULL;
}

/* The bytes that the kernel took, from the front on. */
static void skip_body(as_exchange *x, size_t n)
{
    x->body_sent += n;
    while (n > x->memory_rest.len) {
        n -= x->memory_rest.len;
        x->memory_rest = x->request.response.body.pieces[x->next_piece++].memory;
    }
    x->memory_rest = as_str_of(x->memory_rest.ptr + n, x->memory_rest.len - n);
}

static ssize_t write_memory(as_exchange *x)
{
    const as_body *body = &x->request.response.body;
    struct iovec parts[MAX_PARTS];
    int count = 0;
    bool more = x->file_left > 0;
    size_t out_left = x->out.len - x->out_sent;
    if (out_left > 0)
        parts[count++] = (struct iovec){x->out.ptr + x->out_sent, out_left};
    if (x->memory_rest.len > 0)
        parts[count++] = (struct iovec){(void *)x->memory_rest.ptr, x->memory_rest.len};
    if (AS_UNLIKELY(x->next_piece < body->pieces_len && !more)) {
        uint32_t piece = x->next_piece;
        for (; next_is_memory(x, piece) && count < MAX_PARTS; piece++)
            parts[count++] = (struct iovec){(void *)body->pieces[piece].memory.ptr, body->pieces[piece].memory.len};
        more = piece < body->pieces_len;
    }
    if (count == 0)
        return 0;
    ssize_t n = as_conn_write(x->conn, parts, count, more);
    if (n <= 0)
        return n;
    size_t from_out = (size_t)n < out_left ? (size_t)n : out_left;
    x->out_sent += from_out;
    if (x->out_sent == x->out.len)
        x->out.len = x->out_sent = 0;
    skip_body(x, (size_t)n - from_out);
    return n;
}

/* The next piece becomes the current one, when that has been sent. */
static bool take_piece(as_exchange *x)
{
    const as_body *body = &x->request.response.body;
    if (x->next_piece >= body->pieces_len)
        return false;
    const as_piece *piece = &body->pieces[x->next_piece++];
    x->memory_rest = piece->memory;
    x->file_at = piece->offset;
    x->file_left = piece->memory.ptr == NULL ? piece->length : 0;
    return true;
}

static as_send_result send_memory(as_exchange *x, bool *moved)
{
    while (!x->held_back && has_memory_left(x)) {
        if (!x->conn->writable)
            return AS_SEND_BLOCKED;
        ssize_t n = write_memory(x);
        if (n < 0 && n != AS_EAGAIN)
            return AS_SEND_CUT;
        *moved = *moved || n > 0;
    }
    return AS_SEND_DONE;
}

/* Whether the whole response is in `out` and another request is there to be answered right behind it. */
static bool may_hold_back(const as_exchange *x)
{
    as_body_kind kind = x->request.response.body.kind;
    return x->next < x->in_len && x->body_done && !x->close_after && x->memory_rest.len == 0 &&
           (kind == AS_BODY_MEMORY || kind == AS_BODY_NONE || x->head_only) && x->out.len < HELD_MAX;
}

void as_h1_begin_response(as_exchange *x)
{
    const as_response *response = &x->request.response;
    decide_framing(x);
    make_head(x);
    x->next_piece = x->head_only ? response->body.pieces_len : 0;
    if (!x->head_only) {
        x->memory_rest = response->body.memory;
        x->file_at = response->body.offset;
        x->file_left = response->body.kind == AS_BODY_FILE ? response->body.length : 0;
        x->pipe_left = response->body.length;
    }
    /* A piped body's prefix has to be framed like the rest of it. */
    if (response->body.kind == AS_BODY_PIPE && x->memory_rest.len > 0) {
        x->framed.len = x->framed_sent = 0;
        x->prefix_pending = true;
        x->memory_rest = AS_STR_NONE;
    }
    if (x->memory_rest.len > 0 && x->memory_rest.len <= SMALL_BODY) {
        as_buf_add(&x->out, x->memory_rest);
        x->body_sent += x->memory_rest.len;
        x->memory_rest = AS_STR_NONE;
    }
    x->held_back = may_hold_back(x);
}

as_send_result as_h1_send_held(as_exchange *x)
{
    bool moved = false;
    return send_memory(x, &moved);
}

/* Files. */

/* How much of its file a connection may send now. Fair: the same for all, whenever the socket takes it. Shortest first: what the schedule grants. */
static int64_t turn_of(const as_exchange *x, int64_t fair)
{
    if (!x->request.epoch->shortest_first)
        return fair;
    if (x->job.entered == 0 && x->file_left <= AT_ONCE)
        return x->file_left;
    return (int64_t)as_schedule_grant(&x->home->schedule, &x->job);
}

static void go_on_by_schedule(as_job *job)
{
    as_h1_advance(AS_CONTAINER_OF(job, as_exchange, job)->conn);
}

static void wait_for_turn(as_exchange *x)
{
    if (!x->request.epoch->shortest_first) {
        as_conn_put_off(x->conn);
        return;
    }
    if (!x->is_paced)
        as_conn_set_timeout(x->conn, 0); /* it is we who keep the client waiting */
    x->job.run = go_on_by_schedule;
    as_schedule_enter(&x->home->schedule, &x->job, (uint64_t)x->file_left);
}

/* `turn`: how much this connection may still send before the others get their turn. */
static as_send_result send_file(as_exchange *x, int64_t *turn)
{
    const as_body *body = &x->request.response.body;
    *turn = turn_of(x, *turn);
    while (x->file_left > 0 && *turn > 0) {
        if (!x->conn->writable)
            return AS_SEND_BLOCKED;
        int64_t want = x->file_left < *turn ? x->file_left : *turn;
        bool more = want < x->file_left || x->next_piece < body->pieces_len;
        ssize_t n = as_conn_send_file(x->conn, body->fd, x->file_at, (size_t)want, more);
        if (n == AS_EAGAIN)
            return AS_SEND_BLOCKED;
        if (n <= 0) /* 0: the file has become shorter than the length that the client was promised */
            return AS_SEND_CUT;
        x->file_at += n;
        x->file_left -= n;
        *turn -= n;
        x->body_sent += (uint64_t)n;
        if (x->job.entered != 0)
            as_schedule_spend(&x->home->schedule, (uint64_t)n);
    }
    if (x->file_left == 0)
        return AS_SEND_DONE;
    if (x->conn->writable) /* else the socket's event brings it back */
        wait_for_turn(x);
    return AS_SEND_BLOCKED;
}

static as_send_result send_pieces(as_exchange *x, bool *moved)
{
    int64_t turn = TURN_FILE;
    as_send_result result = send_file(x, &turn);
    while (result == AS_SEND_DONE && take_piece(x)) {
        result = send_memory(x, moved);
        if (result == AS_SEND_DONE)
            result = send_file(x, &turn);
    }
    return result;
}

as_send_result as_h1_send(as_exchange *x)
{
    as_conn *conn = x->conn;
    bool moved = false;
    uint64_t sent_before = x->body_sent;
    size_t framed_before = x->framed_sent;
    as_send_result result = send_memory(x, &moved);
    if (result == AS_SEND_DONE && !x->head_only) {
        as_body_kind kind = x->request.response.body.kind;
        if (kind == AS_BODY_FILE || kind == AS_BODY_PIECES)
            result = send_pieces(x, &moved);
        else if (kind == AS_BODY_PIPE)
            result = as_h1_send_pipe(x);
    }
    if (result == AS_SEND_BLOCKED && !x->end_awaited) {
        /* No progress for too long ends the response: either the client does not read, or the pipe's writer is silent. */
        bool progress = moved || x->body_sent != sent_before || x->framed_sent != framed_before;
        if (!conn->writable) {
            as_h1_wait_for_client(x, progress);
        } else if (x->job.place == 0 && (progress || !as_timer_is_set(&conn->timer))) {
            x->is_paced = false;
            as_conn_set_timeout(conn, x->request.response.body.idle_ms);
        }
    }
    return result;
}

void as_h1_release_body(as_exchange *x)
{
    as_body *body = &x->request.response.body;
    if (x->released)
        return;
    x->released = true;
    if (body->release != NULL)
        body->release(body);
}
