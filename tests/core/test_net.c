/* with: base/memory.c base/error.c report/event.c loop/loop.c net/plain.c */
/* Connections and listeners with a protocol that only notes what happens. */
#include "net/connection.c"
#include "net/gate.c"
#include "net/listener.c"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "local_socket.h"

static as_loop loop;
static as_counters counters;
static as_net net;
static as_gate gate;
static as_gate_rules rules;
static as_event_ring *events;
static int event_fd;
static as_listener listener;
static int listening;
static struct sockaddr_in local;

static int advanced, closed, drained;
static char input[256 * 1024];
static ssize_t last_read;

static void advance(as_conn *conn)
{
    advanced++;
    while (conn->readable && !conn->closing) {
        last_read = as_conn_read(conn, input, sizeof(input));
        if (last_read == 0 || last_read == AS_ECLOSED)
            as_conn_close(conn);
    }
}

static void give_up(as_conn *conn)
{
    as_conn_close(conn);
}

static void drain(as_conn *conn)
{
    drained++;
    as_conn_close(conn);
}

static void closing(as_conn *conn)
{
    (void)conn;
    closed++;
}

static const as_protocol_ops notes = {
    .name = "notes", .advance = advance, .timed_out = give_up, .drain = drain, .closing = closing};

static void begin(void)
{
    CHECK_INT(as_loop_init(&loop), AS_OK);
    counters = (as_counters){0};
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    events = as_event_ring_new(0, event_fd, &counters);
    as_gate_init(&gate, NULL);
    net = (as_net){.loop = &loop, .counters = &counters, .protocol = &notes, .gate = &gate};
    as_net_tune(&net, &(as_tuning){0});
    advanced = closed = drained = 0;
    rules = (as_gate_rules){.connections = 1000};
    local.sin_port = 0;
    listening = listen_at(&local, false);
    as_listener_options options = {.net = &net, .events = events, .rules = &rules};
    CHECK_INT(as_listener_start(&listener, &options, listening), AS_OK);
}

static void turn(void)
{
    as_loop_turn(&loop, 0);
}

static void end(void)
{
    as_listener_stop(&listener, false);
    as_net_cut(&net);
    turn();
    as_net_free(&net);
    CHECK_INT(gate.open, 0);
    as_gate_free(&gate);
    as_loop_free(&loop);
    as_event_ring_free(events);
    close(event_fd);
    close(listening);
}

static int connect_client(void)
{
    int fd = connect_to(&local);
    CHECK(fd >= 0);
    return fd;
}

static void test_accept_read_close(void)
{
    begin();
    int fd = connect_client();
    CHECK_INT(send(fd, "hello", 5, 0), 5);
    while (last_read != 5)
        as_loop_turn(&loop, 1000);
    CHECK(memcmp(input, "hello", 5) == 0);
    CHECK_INT(net.open_count, 1);
    CHECK_INT(counters.connections_open, 1);
    char text[46];
    CHECK(as_address_text(&net.open->remote, text) > 0 && strcmp(text, "127.0.0.1") == 0);
    CHECK(as_address_text(as_conn_local(net.open), text) > 0 && strcmp(text, "127.0.0.1") == 0);
    close(fd);
    while (net.open != NULL)
        as_loop_turn(&loop, 1000);
    CHECK_INT(closed, 1);
    CHECK_INT(net.free_count, 1); /* kept for the next */
    fd = connect_client();
    while (net.open == NULL)
        as_loop_turn(&loop, 1000);
    CHECK_INT(net.free_count, 0);
    close(fd);
    end();
}

/* The kernel hands over who has said something; who is silent a second later (TCP_DEFER_ACCEPT). */
static int connect_speaker(void)
{
    int client = connect_client();
    CHECK_INT(send(client, "G", 1, MSG_NOSIGNAL), 1);
    return client;
}

/* At the limit a client gets an answer and not a reset, even when its request is there already. */
static void test_limit(void)
{
    begin();
    rules.connections = 0;
    int fd = connect_client();
    const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    CHECK_INT(send(fd, request, strlen(request), 0), strlen(request));
    while (counters.connections_refused == 0)
        as_loop_turn(&loop, 1000);
    char answer[512];
    ssize_t n = recv(fd, answer, sizeof(answer), MSG_WAITALL);
    CHECK(n > 0 && strncmp(answer, "HTTP/1.1 503 ", 13) == 0);
    CHECK_INT(recv(fd, answer, sizeof(answer), 0), 0);
    CHECK_INT(gate.open, 0);
    close(fd);
    end();
}

/* The kernel may refuse to watch for a moment; the listener must not stay deaf. */
static void test_resume_that_fails(void)
{
    begin();
    pause_accepting(&listener);
    as_timer_clear(&loop, &listener.pause);
    int saved = listener.watch.fd;
    listener.watch.fd = -1;
    end_pause(&listener.pause);
    CHECK(!listener.watching && as_timer_is_set(&listener.pause));
    as_timer_clear(&loop, &listener.pause);
    listener.watch.fd = saved;
    end_pause(&listener.pause);
    CHECK(listener.watching);
    end();
}

/* Stopping takes in what has connected already: those clients believe that they are connected. */
static void test_stop(void)
{
    begin();
    int first = connect_speaker(), second = connect_speaker();
    as_listener_stop(&listener, true);
    CHECK_INT(net.open_count, 2);
    as_listener_stop(&listener, true);
    as_net_drain(&net);
    CHECK_INT(drained, 2);
    CHECK_INT(net.open_count, 0);
    close(first);
    close(second);
    end();
}

/* Partial writes: the write event is armed once and every byte arrives in order. */
static void test_partial_writes(void)
{
    begin();
    int fd = connect_client();
    while (net.open == NULL)
        as_loop_turn(&loop, 1000);
    as_conn *conn = net.open;
    int size = 8192;
    setsockopt(conn->watch.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    enum { TOTAL = 1024 * 1024 };
    static char data[TOTAL], back[TOTAL];
    for (size_t i = 0; i < TOTAL; i++)
        data[i] = (char)(i * 31 + (i >> 10));
    size_t sent = 0, got = 0;
    bool was_full = false;
    while (got < TOTAL) {
        while (sent < TOTAL && conn->writable) {
            struct iovec parts[2] = {{data + sent, (TOTAL - sent) / 2},
                                     {data + sent + (TOTAL - sent) / 2, TOTAL - sent - (TOTAL - sent) / 2}};
            ssize_t n = as_conn_write(conn, parts, 2, false);
            CHECK(n > 0 || n == AS_EAGAIN);
            sent += n > 0 ? (size_t)n : 0;
        }
        was_full = was_full || !conn->writable;
        ssize_t n = recv(fd, back + got, TOTAL - got, MSG_DONTWAIT);
        CHECK(n > 0 || (n < 0 && errno == EAGAIN));
        got += n > 0 ? (size_t)n : 0;
        as_loop_turn(&loop, n > 0 ? 0 : 1000);
    }
    CHECK(was_full && conn->watches_writes);
    CHECK_INT(sent, TOTAL);
    CHECK(memcmp(data, back, TOTAL) == 0);
    CHECK_INT(counters.bytes_sent, TOTAL);
    close(fd);
    end();
}

/* Put off and closed in the same turn: the object waits for both. */
static void test_put_off_and_close(void)
{
    begin();
    int fd = connect_client();
    while (net.open == NULL)
        as_loop_turn(&loop, 1000);
    as_conn *conn = net.open;
    as_conn_put_off(conn);
    as_conn_put_off(conn);
    as_conn_close(conn);
    as_conn_close(conn);
    as_conn_put_off(conn);
    CHECK_INT(closed, 1);
    int before = advanced;
    turn();
    turn();
    CHECK_INT(advanced, before);
    CHECK_INT(net.free_count, 1);
    close(fd);
    end();
}

static void test_address_texts(void)
{
    char out[46];
    as_address address = {.v4 = {.sin_family = AF_INET, .sin_port = htons(8080)}};
    inet_pton(AF_INET, "0.10.255.1", &address.v4.sin_addr);
    CHECK_INT(as_address_text(&address, out), 8080);
    CHECK(strcmp(out, "0.10.255.1") == 0);
    const char *texts[] = {"::1", "2001:db8::7", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"};
    for (size_t i = 0; i < AS_COUNT_OF(texts); i++) {
        address = (as_address){.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(1)}};
        inet_pton(AF_INET6, texts[i], &address.v6.sin6_addr);
        CHECK_INT(as_address_text(&address, out), 1);
        CHECK(strcmp(out, texts[i]) == 0);
    }
    inet_pton(AF_INET6, "::ffff:192.0.2.1", &address.v6.sin6_addr);
    as_address_text(&address, out);
    CHECK(strcmp(out, "192.0.2.1") == 0); /* an IPv4 client of a socket for both */
    address = (as_address){.any.sa_family = AF_UNIX};
    CHECK_INT(as_address_text(&address, out), 0);
    CHECK(strcmp(out, "") == 0);
}

int main(void)
{
    test_accept_read_close();
    test_limit();
    test_resume_that_fails();
    test_stop();
    test_partial_writes();
    test_put_off_and_close();
    test_address_texts();
    return check_result("net");
}
