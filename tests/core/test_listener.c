/* with: base/memory.c base/error.c report/event.c loop/loop.c net/plain.c net/connection.c */
/* What listeners do with what comes, on loops that this test turns by hand: two of them, so that every design of section III.A shows itself. */
#include "net/gate.c"
#include "net/listener.c"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "local_socket.h"

enum { LOOPS = 2 };

static as_gate gate;
static as_gate_rules rules;
static as_loop loops[LOOPS];
static as_counters counters[LOOPS];
static as_net nets[LOOPS];
static as_event_ring *events[LOOPS];
static as_listener listeners[LOOPS];
static int woken[LOOPS];
static int event_fd, listening;
static struct sockaddr_in address;
static int handed_over;

static void read_all(as_conn *conn)
{
    char data[4096];
    while (conn->readable && !conn->closing) {
        ssize_t n = as_conn_read(conn, data, sizeof(data));
        if (n == 0 || n == AS_ECLOSED)
            as_conn_close(conn);
    }
}

static void nothing(as_conn *conn)
{
    (void)conn;
}

static const as_protocol_ops sink = {
    .name = "sink", .advance = read_all, .timed_out = as_conn_close, .drain = as_conn_close, .closing = nothing};

static void wake(as_gate *which, int loop)
{
    (void)which;
    woken[loop]++;
}

static void begin(as_accept_mode mode, int accepting, as_hand_over hand_over)
{
    as_gate_init(&gate, wake);
    rules = (as_gate_rules){.connections = 1000};
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    address.sin_port = 0;
    listening = listen_at(&address, false);
    handed_over = 0;
    for (int i = 0; i < LOOPS; i++) {
        CHECK_INT(as_loop_init(&loops[i]), AS_OK);
        counters[i] = (as_counters){0};
        woken[i] = 0;
        events[i] = as_event_ring_new(i, event_fd, &counters[i]);
        nets[i] = (as_net){.loop = &loops[i], .counters = &counters[i], .protocol = &sink, .gate = &gate};
        as_net_tune(&nets[i], &(as_tuning){0});
        as_listener_options options = {
            .net = &nets[i], .events = events[i], .rules = &rules, .mode = mode, .hand_over = hand_over, .loop = i};
        if (i < accepting)
            CHECK_INT(as_listener_start(&listeners[i], &options, listening), AS_OK);
    }
}

static void turn(int loop)
{
    as_loop_turn(&loops[loop], 0);
}

static void end(int accepting)
{
    for (int i = 0; i < LOOPS; i++) {
        if (i < accepting)
            as_listener_stop(&listeners[i], false);
        as_net_cut(&nets[i]);
        turn(i);
        as_net_free(&nets[i]);
        as_loop_free(&loops[i]);
        as_event_ring_free(events[i]);
    }
    CHECK_INT(gate.open, 0);
    as_gate_free(&gate);
    close(event_fd);
    close(listening);
}

static int connect_client(void)
{
    int fd = connect_to(&address);
    CHECK_INT(send(fd, "x", 1, MSG_NOSIGNAL), 1);
    return fd;
}

static void connect_all(int *fds, int count)
{
    for (int i = 0; i < count; i++)
        fds[i] = connect_client();
}

static void close_all(const int *fds, int count)
{
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

static uint32_t open_now(void)
{
    return nets[0].open_count + nets[1].open_count;
}

/* The answer that a refused client reads, up to the end of the stream. */
static void check_refused(int fd)
{
    char text[256] = "";
    ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_WAITALL);
    CHECK(n > 0 && strncmp(text, "HTTP/1.1 503 ", 13) == 0);
}

/* Batches double while connections keep coming; with accept_one they stay at one. */
static void test_batches(void)
{
    int fds[40];
    begin(AS_ACCEPT_SELF_MANAGED, 1, NULL);
    connect_all(fds, 40);
    int turns = 0;
    for (; open_now() < 40 && turns < 100; turns++)
        turn(0);
    CHECK(turns <= 6); /* 1 + 2 + 4 + 8 + 16 + 9 */
    CHECK(listeners[0].batch > 1 && listeners[0].batch <= BATCH_MAX);
    close_all(fds, 40);
    end(1);

    begin(AS_ACCEPT_SELF_MANAGED, 1, NULL);
    rules.accept_one = true;
    connect_all(fds, 40);
    for (turns = 0; open_now() < 40 && turns < 100; turns++)
        turn(0);
    CHECK_INT(turns, 40);
    CHECK_INT(listeners[0].batch, 1);
    close_all(fds, 40);
    end(1);
}

/* A loop that comes too late finds nothing, counts that, and is none the worse for it. */
static void test_false_wakeup(void)
{
    begin(AS_ACCEPT_INDEPENDENT, 2, NULL);
    int fd = connect_client();
    turn(0);
    CHECK_INT(open_now(), 1);
    CHECK_INT(counters[0].accept_empty, 0);
    on_ready(&listeners[1].watch, EPOLLIN);
    CHECK_INT(counters[1].accept_empty, 1);
    CHECK_INT(open_now(), 1);
    CHECK_INT(gate.open, 1);
    CHECK(listeners[1].watching);
    close(fd);
    end(2);
}

static uint32_t watched_events(int loop)
{
    char path[64], line[256];
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", loops[loop].epoll_fd);
    FILE *file = fopen(path, "re");
    uint32_t found = 0;
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        int fd;
        unsigned mask;
        if (sscanf(line, "tfd: %d events: %x", &fd, &mask) == 2 && fd == listening)
            found = mask;
    }
    if (file != NULL)
        fclose(file);
    return found;
}

/* What the kernel was asked for, as it tells itself. */
static void test_what_is_watched(void)
{
    begin(AS_ACCEPT_SELF_MANAGED, 2, NULL);
    CHECK(watched_events(0) & EPOLLEXCLUSIVE);
    CHECK(watched_events(1) & EPOLLEXCLUSIVE);
    end(2);
    begin(AS_ACCEPT_INDEPENDENT, 2, NULL);
    CHECK(watched_events(0) & EPOLLIN && !(watched_events(0) & EPOLLEXCLUSIVE));
    CHECK(watched_events(1) & EPOLLIN && !(watched_events(1) & EPOLLEXCLUSIVE));
    end(2);
    begin(AS_ACCEPT_COORDINATOR, 1, NULL);
    CHECK(watched_events(0) & EPOLLIN && !(watched_events(0) & EPOLLEXCLUSIVE));
    CHECK_INT(watched_events(1), 0);
    end(1);
}

static void give_to_second(as_listener *listener, int fd, const as_address *remote, int ticket)
{
    CHECK(listener == &listeners[0]);
    handed_over++;
    as_conn_open(&nets[1], fd, remote, ticket);
}

/* A coordinator accepts and keeps nothing. */
static void test_coordinator_hands_over(void)
{
    int fds[10];
    begin(AS_ACCEPT_COORDINATOR, 1, give_to_second);
    connect_all(fds, 10);
    for (int i = 0; i < 10; i++)
        turn(0);
    CHECK_INT(handed_over, 10);
    CHECK_INT(nets[0].open_count, 0);
    CHECK_INT(nets[1].open_count, 10);
    CHECK_INT(gate.open, 10);
    close_all(fds, 10);
    end(1);
}

static void test_refused_over_the_limit(void)
{
    int fds[4];
    begin(AS_ACCEPT_SELF_MANAGED, 1, NULL);
    rules.connections = 3;
    connect_all(fds, 4);
    for (int i = 0; i < 8; i++)
        turn(0);
    CHECK_INT(open_now(), 3);
    CHECK_INT(counters[0].connections_refused, 1);
    check_refused(fds[3]);
    close_all(fds, 4);
    end(1);
}

static void test_waiting_at_the_limit(void)
{
    int fds[4];
    begin(AS_ACCEPT_SELF_MANAGED, 1, NULL);
    rules.connections = 2;
    rules.wait = true;
    connect_all(fds, 4);
    for (int i = 0; i < 8; i++)
        turn(0);
    CHECK_INT(open_now(), 2);
    CHECK_INT(counters[0].connections_refused, 0);
    CHECK_INT(counters[0].accept_waited, 1);
    CHECK_INT(watched_events(0), 0); /* nothing to spin on, though two wait in the backlog */
    CHECK_INT(woken[0], 0);
    close(fds[0]);
    for (int i = 0; i < 8 && woken[0] == 0; i++)
        as_loop_turn(&loops[0], 1000);
    CHECK_INT(woken[0], 1);
    as_listener_resume(&listeners[0]);
    CHECK_INT(open_now(), 2);
    CHECK_INT(counters[0].connections_accepted, 3);
    CHECK(listeners[0].parked);
    CHECK_INT(counters[0].accept_waited, 1); /* still the same wait */
    close_all(fds + 1, 2);
    while (open_now() > 0)
        as_loop_turn(&loops[0], 1000);
    as_listener_resume(&listeners[0]);
    CHECK_INT(open_now(), 1);
    CHECK(!listeners[0].parked);
    CHECK(watched_events(0) & EPOLLIN);
    close(fds[3]);
    end(1);
}

/* Between the look at the limit and the note that this loop waits, a place may become free; the connection must not be left in the backlog. */
static void test_place_freed_while_parking(void)
{
    begin(AS_ACCEPT_SELF_MANAGED, 1, NULL);
    rules.connections = 1;
    rules.wait = true;
    int fd = connect_client();
    CHECK_INT(park(&listeners[0]), ACCEPTED);
    CHECK_INT(open_now(), 1);
    close(fd);
    end(1);
}

static void test_limit_of_one_client(void)
{
    int fds[3];
    begin(AS_ACCEPT_SELF_MANAGED, 1, NULL);
    rules.per_client = 2;
    connect_all(fds, 3);
    for (int i = 0; i < 6; i++)
        turn(0);
    CHECK_INT(open_now(), 2);
    CHECK_INT(gate.open, 2);
    CHECK_INT(counters[0].connections_refused, 1);
    check_refused(fds[2]);
    close(fds[0]);
    while (open_now() > 1)
        as_loop_turn(&loops[0], 1000);
    int again = connect_client();
    while (open_now() < 2)
        as_loop_turn(&loops[0], 1000);
    close(again);
    close_all(fds + 1, 2);
    end(1);
}

/* Without descriptors accepting pauses, says so once, and goes on when there are some. */
static void test_no_descriptors(void)
{
    begin(AS_ACCEPT_SELF_MANAGED, 1, NULL);
    int fd = connect_client();
    struct rlimit before, none;
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    int next = dup(0);
    none = (struct rlimit){.rlim_cur = (rlim_t)next, .rlim_max = before.rlim_max};
    close(next);
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    while (counters[0].accept_paused < 2)
        as_loop_turn(&loops[0], 1000);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK_INT(watched_events(0), 0);
    CHECK(as_timer_is_set(&listeners[0].pause));
    while (open_now() == 0)
        as_loop_turn(&loops[0], 1000);
    as_event event;
    int lines = 0;
    while (as_event_next(events[0], &event))
        lines += event.kind == AS_EVENT_WARNING;
    CHECK_INT(lines, 1);
    close(fd);
    end(1);
}

/* Whatever made a listener pause: what is in the backlog when it stops gets an answer. */
static void test_stop_finishes_the_backlog(void)
{
    int fds[5];
    begin(AS_ACCEPT_SELF_MANAGED, 1, NULL);
    rules.connections = 2;
    rules.wait = true;
    connect_all(fds, 5);
    for (int i = 0; i < 4; i++)
        turn(0);
    CHECK(listeners[0].parked);
    rules.connections = 3;
    as_listener_stop(&listeners[0], true);
    CHECK_INT(open_now(), 3);
    check_refused(fds[3]);
    check_refused(fds[4]);
    close_all(fds, 5);
    end(0);
}

int main(void)
{
    test_batches();
    test_false_wakeup();
    test_what_is_watched();
    test_coordinator_hands_over();
    test_refused_over_the_limit();
    test_waiting_at_the_limit();
    test_place_freed_while_parking();
    test_limit_of_one_client();
    test_no_descriptors();
    test_stop_finishes_the_backlog();
    return check_result("listener");
}
