/* with: base/memory.c base/buf.c base/error.c report/event.c loop/loop.c loop/schedule.c net/connection.c net/gate.c net/plain.c http/access_log.c http/chunked.c http/date.c http/h1_body.c http/h1_pace.c http/h1_send.c http/h1_send_pipe.c http/relay.c base/scan.c http/head.c http/request.c http/response_head.c http/spool.c http/stream.c http/target.c */
/* One connection and what it does with its requests: a socket pair, a loop that the test turns by hand, and handlers that answer as the test says. */
#include "http/h1.c"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "check.h"

enum { PATIENCE_TURNS = 2000 };

static as_loop loop;
static as_counters counters;
static as_home home;
static as_net net;
static as_gate gate;
static int event_fd;
static int client;
static as_conn *conn;
static bool emptied;

static as_limits limits = {
    .header_size = 1024,
    .target_size = 512,
    .body_size = 1024 * 1024,
    .header_timeout_ms = 60000,
    .body_timeout_ms = 60000,
    .idle_timeout_ms = 60000,
    .send_timeout_ms = 60000,
};
static as_limits larger_limits;

/* Handlers. */

static as_request *pending;
static int handled, released, abandoned;
static as_body next_body; /* of the answer */
static bool answers_at_once;

static void count_release(as_body *body)
{
    (void)body;
    released++;
}

static void fill_response(as_request *request)
{
    request->response = (as_response){.status = 200, .body = next_body};
    request->response.body.release = count_release;
}

static as_verdict handle(const as_handler *self, as_request *request)
{
    (void)self;
    handled++;
    if (answers_at_once) {
        fill_response(request);
        return AS_VERDICT_RESPOND;
    }
    CHECK(pending == NULL);
    pending = request;
    request->handler_state = &pending;
    return AS_VERDICT_PENDING;
}

static void abandon(as_request *request)
{
    CHECK(request == pending || request->response.body.kind == AS_BODY_PIPE);
    abandoned++;
    pending = NULL;
}

static void answer(void)
{
    as_request *request = pending;
    CHECK(request != NULL);
    pending = NULL;
    request->handler_state = NULL;
    fill_response(request);
    as_request_respond(request);
}

static const as_handler_ops whole_ops = {.name = "whole", .wants_body = true, .handle = handle, .abandon = abandon};
static const as_handler_ops early_ops = {.name = "early", .wants_body = false, .handle = handle, .abandon = abandon};
static const as_handler whole = {&whole_ops}, early = {&early_ops};

static void route(as_request *request)
{
    request->handler = as_str_starts(request->path, AS_STR("/early")) ? &early : &whole;
}

static const as_handler *no_error_page(as_request *request, int status)
{
    (void)request;
    (void)status;
    return NULL;
}

static as_epoch epoch = {.limits = &limits, .server_software = "test", .route = route, .error_page = no_error_page};
static as_epoch larger_epoch = {
    .limits = &larger_limits, .server_software = "test", .route = route, .error_page = no_error_page};

static void on_emptied(as_net *which)
{
    CHECK(which == &net);
    emptied = true;
}

/* The world of one test: a connected client whose first bytes are `text`. */
static void begin(const char *text)
{
    CHECK_INT(as_loop_init(&loop), AS_OK);
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    counters = (as_counters){0};
    home = (as_home){.loop = &loop, .counters = &counters, .epoch = &epoch};
    home.events = as_event_ring_new(0, event_fd, &counters);
    epoch.spool_directory = larger_epoch.spool_directory = "/tmp";
    larger_limits = limits;
    larger_limits.header_size = 64 * 1024;
    emptied = false;
    net = (as_net){.loop = &loop,
                   .counters = &counters,
                   .home = &home,
                   .protocol = &as_h1_protocol,
                   .gate = &gate,
                   .emptied = on_emptied};
    as_gate_init(&gate, NULL);
    as_net_tune(&net, &(as_tuning){0});
    pending = NULL;
    handled = released = abandoned = 0;
    answers_at_once = true;
    next_body = as_body_memory(AS_STR("hello"));
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    fcntl(pair[1], F_SETFL, O_NONBLOCK);
    client = pair[1];
    CHECK_INT(write(client, text, strlen(text)), strlen(text));
    as_address remote = {.any.sa_family = AF_UNIX};
    CHECK(as_gate_enter(&gate, 1));
    conn = as_conn_open(&net, pair[0], &remote, 0);
    CHECK(conn != NULL);
}

static void turn(void)
{
    as_loop_turn(&loop, 0);
}

static void send_text(const char *text)
{
    CHECK_INT(send(client, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    turn();
}

/* What the server has sent, NUL-terminated; the end of the stream is told by `got_end`. */
static char got[512 * 1024];
static size_t got_len;
static bool got_end;

static const char *receive(void)
{
    got_len = 0;
    got_end = false;
    ssize_t n;
    while ((n = recv(client, got + got_len, sizeof(got) - 1 - got_len, 0)) > 0)
        got_len += (size_t)n;
    got_end = n == 0;
    got[got_len] = '\0';
    return got;
}

static int count_of(const char *text, const char *what)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what))
        count++;
    return count;
}

static void end(void)
{
    as_net_cut(&net);
    turn();
    close(client);
    as_net_free(&net);
    as_h1_free_exchanges(&home);
    CHECK_INT(epoch.live, 0);
    CHECK_INT(larger_epoch.live, 0);
    CHECK_INT(home.requests_active, 0);
    CHECK_INT(gate.open, 0);
    as_gate_free(&gate);
    as_loop_free(&loop);
    as_event_ring_free(home.events);
    close(event_fd);
}

/* Requests and answers. */

static void test_pipelined_in_order(void)
{
    begin("GET /a HTTP/1.1\r\nHost: a\r\n\r\nHEAD /b HTTP/1.1\r\nHost: a\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\n");
    const char *text = receive();
    CHECK_INT(count_of(text, "HTTP/1.1 200 OK\r\n"), 3);
    CHECK_INT(count_of(text, "Content-Length: 5\r\n"), 3);
    CHECK_INT(count_of(text, "hello"), 2);
    CHECK_INT(released, 3);
    CHECK_INT(conn->phase, AS_PHASE_IDLE);
    CHECK(conn->state == NULL);
    end();
}

/* While a request is being answered, the ones behind it wait. */
static void test_one_at_a_time(void)
{
    begin("");
    answers_at_once = false;
    send_text("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(handled, 1);
    answer();
    CHECK_INT(handled, 2);
    CHECK_STR(pending->path, "/b");
    answer();
    CHECK_INT(count_of(receive(), "HTTP/1.1 200 OK\r\n"), 2);
    end();
}

static void test_versions(void)
{
    begin("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    CHECK_INT(count_of(receive(), "Connection: keep-alive\r\n"), 1);
    CHECK(!got_end);
    send_text("GET / HTTP/1.0\r\n\r\n");
    CHECK_INT(count_of(receive(), "Connection: close\r\n"), 1);
    CHECK(got_end);
    end();
}

static void test_continue(void)
{
    begin("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    CHECK(strcmp(receive(), "HTTP/1.1 100 Continue\r\n\r\n") == 0);
    CHECK_INT(handled, 0);
    send_text("hi");
    CHECK_INT(handled, 1);
    CHECK_INT(count_of(receive(), "HTTP/1.1 200 OK\r\n"), 1);
    /* The body is on its way already. */
    send_text("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nh");
    CHECK_INT(got_len = strlen(receive()), 0);
    send_text("i");
    CHECK_INT(count_of(receive(), "HTTP/1.1 200 OK\r\n"), 1);
    end();
}

/* A body that will not be read: the client must hear that the connection closes (RFC 9112 section 9.6), or it sends its next request into a closed one. */
static void test_unread_body_announces_the_close(void)
{
    begin("POST /early HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    CHECK_INT(count_of(receive(), "Connection: close\r\n"), 1);
    CHECK(got_end);
    end();
    begin("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n");
    CHECK_INT(count_of(receive(), "Connection: close\r\n"), 1);
    CHECK(got_end);
    end();
}

/* A small one that a handler does not want is read over, and the connection stays. */
static void test_unwanted_body_is_read_over(void)
{
    begin("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nGET / HTTP/1.1");
    CHECK_INT(count_of(receive(), "HTTP/1.1 200 OK\r\n"), 1);
    CHECK_INT(conn->phase, AS_PHASE_DISCARD);
    CHECK_INT(released, 1);
    send_text("\r\n\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(handled, 2);
    CHECK_INT(count_of(receive(), "HTTP/1.1 200 OK\r\n"), 1);
    send_text("POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET / "
              "HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(count_of(receive(), "HTTP/1.1 200 OK\r\n"), 2);
    /* What is no chunk ends the connection without another answer: it was given already. */
    send_text("POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nGET /smuggled "
              "HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(count_of(receive(), "HTTP/1.1 200 OK\r\n"), 1);
    CHECK(got_end);
    CHECK_INT(handled, 5);
    end();
}

static void test_bodies(void)
{
    begin("");
    answers_at_once = false;
    send_text("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc");
    CHECK(pending == NULL);
    send_text("\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_STR(pending->body.memory, "abcde");
    CHECK_INT(pending->body.length, 5);
    CHECK_INT(pending->body.fd, -1);
    answer();
    CHECK_STR(pending->path, "/next");
    CHECK_INT(pending->body.length, 0);
    answer();
    end();
}

/* A body in a file is closed with its request. */
static void test_large_body(void)
{
    enum { SIZE = 100 * 1000 };
    begin("");
    answers_at_once = false;
    send_text("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    static char block[SIZE];
    memset(block, 'x', sizeof(block));
    for (size_t sent = 0; sent < SIZE;) {
        ssize_t n = send(client, block + sent, SIZE - sent, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        turn();
    }
    for (int i = 0; pending == NULL && i < PATIENCE_TURNS; i++)
        turn();
    CHECK(pending != NULL && pending->body.fd >= 0);
    CHECK_INT(pending->body.length, SIZE);
    int fd = pending->body.fd;
    answer();
    CHECK(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
    end();
}

static void test_refusals_close(void)
{
    begin("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    const char *text = receive();
    CHECK_INT(count_of(text, "HTTP/1.1 400 Bad Request\r\n"), 1);
    CHECK_INT(count_of(text, "Connection: close\r\n"), 1);
    CHECK_INT(handled, 0);
    CHECK(got_end);
    CHECK_INT(conn->phase, AS_PHASE_LINGER);
    end();
}

/* Pipes. */

static int open_pipe(void)
{
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    next_body = (as_body){.kind = AS_BODY_PIPE, .fd = ends[0], .length = -1, .ends_at_eof = true};
    return ends[1];
}

/* A piped answer to `text`, which is whole when it is over; the request, for its end. */
static as_request *begin_stream(const char *text)
{
    answers_at_once = false;
    send_text(text);
    as_request *request = pending;
    answer();
    return request;
}

static void test_pipe_is_chunked(void)
{
    begin("");
    int writer = open_pipe();
    next_body.memory = AS_STR("first");
    as_request *request = begin_stream("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(write(writer, "second!", 7), 7);
    turn();
    close(writer);
    turn();
    CHECK_INT(conn->phase, AS_PHASE_SEND); /* the end of the pipe alone could be a crash */
    as_request_stream_end(request, true);
    turn();
    const char *text = receive();
    CHECK_INT(count_of(text, "Transfer-Encoding: chunked\r\n"), 1);
    CHECK(strcmp(strstr(text, "\r\n\r\n"), "\r\n\r\n5\r\nfirst\r\n7\r\nsecond!\r\n0\r\n\r\n") == 0);
    CHECK_INT(conn->phase, AS_PHASE_IDLE);
    CHECK_INT(released, 1);
    close(next_body.fd);
    end();
}

static void test_pipe_to_old_client_ends_with_the_connection(void)
{
    begin("");
    int writer = open_pipe();
    as_request *request = begin_stream("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    CHECK_INT(write(writer, "text", 4), 4);
    as_request_stream_end(request, true);
    close(writer);
    turn();
    const char *text = receive();
    CHECK_INT(count_of(text, "Connection: close\r\n"), 1);
    CHECK_INT(count_of(text, "Transfer-Encoding"), 0);
    CHECK(strcmp(strstr(text, "\r\n\r\n"), "\r\n\r\ntext") == 0);
    CHECK(got_end);
    close(next_body.fd);
    end();
}

/* A stream that breaks off must not look complete. */
static void test_broken_stream_is_cut(void)
{
    begin("");
    int writer = open_pipe();
    next_body.ends_at_eof = false;
    as_request *request = begin_stream("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(write(writer, "half", 4), 4);
    turn();
    as_request_stream_end(request, false);
    close(writer);
    turn();
    const char *text = receive();
    CHECK_INT(count_of(text, "4\r\nhalf\r\n"), 1);
    CHECK_INT(count_of(text, "0\r\n\r\n"), 0);
    CHECK(got_end);
    close(next_body.fd);
    end();
}

/* A slow client that does take bytes is not one that has stopped: the time for sending starts again with each write. */
static void test_slow_reader_of_a_pipe_has_time(void)
{
    begin("");
    int size = 4096;
    CHECK(setsockopt(conn->watch.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
    int writer = open_pipe();
    static char block[60 * 1024];
    memset(block, 'x', sizeof(block));
    CHECK_INT(write(writer, block, sizeof(block)), sizeof(block));
    send_text("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(!conn->writable && as_timer_is_set(&conn->timer));
    as_exchange *x = conn->state;
    int64_t due = conn->timer.due_tick;
    size_t sent = x->framed_sent;
    loop.now_ns += 10 * AS_NS_PER_S;
    receive();
    conn->writable = true;
    as_h1_advance(conn);
    CHECK(x->framed_sent > sent && !conn->writable); /* some, and not all */
    CHECK(conn->timer.due_tick > due);
    /* And without progress it stays as it is. */
    due = conn->timer.due_tick;
    loop.now_ns += 10 * AS_NS_PER_S;
    conn->writable = true;
    as_h1_advance(conn);
    CHECK_INT(conn->timer.due_tick, due);
    close(writer);
    close(next_body.fd);
    end();
}

/* Limits, times, ends. */

/* A connection's input was made for the limits of its first request; the next one may come under others. */
static void test_larger_heads_after_a_reload(void)
{
    begin("");
    answers_at_once = false;
    send_text("GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n");
    home.epoch = &larger_epoch;
    answer();
    char field[1100];
    for (int i = 0; i < 20; i++) {
        memset(field, 'v', sizeof(field));
        memcpy(field, "X: ", 3);
        memcpy(field + 1000, "\r\n", 3);
        send_text(field);
    }
    send_text("\r\n");
    CHECK(pending != NULL);
    CHECK_STR(pending->path, "/second");
    CHECK_INT(pending->head.fields_len, 21);
    answer();
    CHECK_INT(count_of(receive(), "HTTP/1.1 200 OK\r\n"), 2);
    end();
}

static void test_timeouts(void)
{
    begin("GET / HT");
    CHECK(as_timer_is_set(&conn->timer));
    conn->protocol->timed_out(conn);
    CHECK_INT(count_of(receive(), "HTTP/1.1 408 Request Timeout\r\n"), 1);
    CHECK(got_end);
    end();
    begin("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    conn->protocol->timed_out(conn);
    CHECK_INT(count_of(receive(), "HTTP/1.1 408 Request Timeout\r\n"), 1);
    CHECK_INT(handled, 0);
    end();
    begin("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    receive();
    conn->protocol->timed_out(conn); /* idle */
    CHECK_INT(got_len = strlen(receive()), 0);
    CHECK(got_end);
    end();
}

/* The time for a head runs from its first byte: dripping does not extend it. */
static void test_dripping_head_has_one_time(void)
{
    begin("G");
    int64_t due = conn->timer.due_tick;
    loop.now_ns += AS_NS_PER_S;
    CHECK_INT(send(client, "E", 1, MSG_NOSIGNAL), 1);
    conn->readable = true;
    as_h1_advance(conn);
    CHECK_INT(conn->timer.due_tick, due);
    end();
}

/* What the answer was made of is given back when it is out, not when the client is done reading. */
static void test_lingering_holds_nothing(void)
{
    begin("");
    answers_at_once = false;
    send_text("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nmore");
    answer();
    CHECK_INT(conn->phase, AS_PHASE_LINGER);
    CHECK_INT(released, 1);
    end();
    CHECK_INT(released, 1);
}

/* However long it goes on sending, it is read for LINGER_MOST_MS. */
static void test_lingering_ends(void)
{
    begin("");
    send_text("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nmore");
    CHECK_INT(conn->phase, AS_PHASE_LINGER);
    int64_t step_ns = LINGER_MS / 2 * AS_NS_PER_MS;
    for (int i = 0; i <= 2 * LINGER_MOST_MS / LINGER_MS; i++) {
        CHECK(!conn->closing);
        loop.now_ns += step_ns;
        CHECK_INT(send(client, "more", 4, MSG_NOSIGNAL), 4);
        conn->readable = true;
        as_h1_advance(conn);
    }
    CHECK(conn->closing);
    end();
}

static void test_gone_client(void)
{
    begin("");
    answers_at_once = false;
    send_text("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(pending != NULL);
    close(client);
    turn();
    CHECK_INT(abandoned, 1);
    CHECK(net.open == NULL);
    client = -1;
    end();
    /* One that asked for the end may have shut its side. */
    begin("");
    answers_at_once = false;
    send_text("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    shutdown(client, SHUT_WR);
    turn();
    CHECK_INT(abandoned, 0);
    answer();
    CHECK_INT(count_of(receive(), "hello"), 1);
    end();
}

static void test_draining(void)
{
    begin("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    receive();
    as_net_drain(&net);
    receive();
    CHECK(got_end && emptied);
    end();
    /* A request that is there already, though no turn has seen it yet, is answered: its client would see a reset. */
    begin("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    receive();
    CHECK_INT(send(client, "GET /late HTTP/1.1\r\nHost: a\r\n\r\n", 31, MSG_NOSIGNAL), 31);
    as_net_drain(&net);
    const char *text = receive();
    CHECK_INT(count_of(text, "HTTP/1.1 200 OK\r\n"), 1);
    CHECK_INT(count_of(text, "Connection: close\r\n"), 1);
    CHECK(got_end && emptied);
    end();
    /* One that is being answered is the connection's last. */
    begin("");
    answers_at_once = false;
    send_text("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    as_net_drain(&net);
    CHECK(!emptied);
    answer();
    CHECK_INT(count_of(receive(), "Connection: close\r\n"), 1);
    CHECK(got_end);
    CHECK_INT(handled, 1);
    end();
}

int main(void)
{
    test_pipelined_in_order();
    test_one_at_a_time();
    test_versions();
    test_continue();
    test_unread_body_announces_the_close();
    test_unwanted_body_is_read_over();
    test_bodies();
    test_large_body();
    test_refusals_close();
    test_pipe_is_chunked();
    test_pipe_to_old_client_ends_with_the_connection();
    test_broken_stream_is_cut();
    test_slow_reader_of_a_pipe_has_time();
    test_larger_heads_after_a_reload();
    test_timeouts();
    test_dripping_head_has_one_time();
    test_lingering_holds_nothing();
    test_lingering_ends();
    test_gone_client();
    test_draining();
    return check_result("h1");
}
