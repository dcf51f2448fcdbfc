/* with: all */
/* sanitize: address,undefined thread */
/* The designs of accepting with real loops: every connection is answered by a loop that may have it, also those that are still in a backlog, or on their way
 * between two loops, when the server drains; and a limit that lets connections wait loses none of them. */
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "api.h"
#include "net/tuning.h"

#include "local_socket.h"

enum { LOOPS = 3, CLIENTS = 60 };

static int event_fd;
static int sockets[LOOPS];
static struct sockaddr_in address;

static as_snapshot *make_snapshot(const as_limits *changes)
{
    as_limits limits = {.header_size = 16384,
                        .target_size = 8192,
                        .body_size = 1 << 20,
                        .header_timeout_ms = 20000,
                        .body_timeout_ms = 20000,
                        .idle_timeout_ms = 20000,
                        .send_timeout_ms = 20000,
                        .connections = changes->connections,
                        .connections_per_client = changes->connections_per_client,
                        .wait_over_limit = changes->wait_over_limit};
    as_snapshot *snapshot = as_snapshot_new(&limits, "test", "/tmp");
    int handler = as_snapshot_add_respond(snapshot, 200, "text/plain", "yes", 3);
    CHECK(handler >= 0 && as_snapshot_add_site(snapshot, "main", handler, 0) >= 0);
    return snapshot;
}

static as_server *make_server(as_accept_mode mode, const as_limits *changes)
{
    as_server *server = as_server_new(LOOPS, 1, event_fd);
    CHECK_INT(as_server_set_accept(server, (int)mode), AS_OK);
    address.sin_port = 0;
    sockets[0] = listen_at(&address, mode == AS_ACCEPT_REUSEPORT);
    if (mode == AS_ACCEPT_REUSEPORT) {
        for (int i = 1; i < LOOPS; i++)
            sockets[i] = listen_at(&address, true);
        CHECK_INT(as_server_add_listeners(server, sockets), AS_OK);
    } else {
        CHECK_INT(as_server_add_listener(server, sockets[0]), AS_OK);
    }
    CHECK_INT(as_server_apply(server, make_snapshot(changes)), AS_OK);
    return server;
}

/* As the process does it: our descriptors go first, the loops close the last ones. */
static void close_sockets(as_accept_mode mode)
{
    for (int i = 0; i < (mode == AS_ACCEPT_REUSEPORT ? LOOPS : 1); i++)
        close(sockets[i]);
}

static void wait_until_drained(as_server *server)
{
    as_event event;
    for (int drained = 0; drained < LOOPS;) {
        uint64_t n;
        CHECK(read(event_fd, &n, sizeof(n)) == (ssize_t)sizeof(n));
        while (as_server_next_event(server, &event))
            drained += event.kind == AS_EVENT_DRAINED;
    }
}

static int connect_client(void)
{
    int fd = connect_to(&address);
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    CHECK(send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) == (ssize_t)sizeof(request) - 1);
    return fd;
}

/* The status of the one response on `fd`; -1 when there is none. */
static int status_of(int fd)
{
    char text[2048];
    size_t got = 0;
    ssize_t n;
    while ((n = recv(fd, text + got, sizeof(text) - 1 - got, 0)) > 0)
        got += (size_t)n;
    text[got] = '\0';
    close(fd);
    return got > 12 ? atoi(text + 9) : -1;
}

static int count_answers(const int *fds, int count, int status)
{
    int found = 0;
    for (int i = 0; i < count; i++)
        found += status_of(fds[i]) == status;
    return found;
}

/* All connect before the loops run and the order to drain is there when they begin: what is in the backlog and in mailboxes is answered all the same. */
static void test_drain_takes_the_backlog(as_accept_mode mode)
{
    as_limits changes = {.connections = 1000};
    as_server *server = make_server(mode, &changes);
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = connect_client();
    close_sockets(mode);
    CHECK_INT(as_server_drain(server), AS_OK);
    CHECK_INT(as_server_start(server), AS_OK);
    CHECK_INT(count_answers(fds, CLIENTS, 200), CLIENTS);
    wait_until_drained(server);
    as_server_free(server);
}

/* Freed without draining: nothing is left of connections that were still on their way. */
static void test_free_at_once(as_accept_mode mode)
{
    as_limits changes = {.connections = 1000};
    as_server *server = make_server(mode, &changes);
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = connect_client();
    CHECK_INT(as_server_start(server), AS_OK);
    as_server_free(server);
    close_sockets(mode);
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
}

/* Many more than the limit: everybody waits in the backlog for its turn, and everybody gets it. */
static void test_waiting(as_accept_mode mode)
{
    as_limits changes = {.connections = 2, .wait_over_limit = 1};
    as_server *server = make_server(mode, &changes);
    CHECK_INT(as_server_start(server), AS_OK);
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = connect_client();
    CHECK_INT(count_answers(fds, CLIENTS, 200), CLIENTS);
    close_sockets(mode);
    as_server_drain(server);
    wait_until_drained(server);
    as_server_free(server);
}

/* A limit that is raised while connections wait lets them in. */
static void test_raised_limit(as_accept_mode mode)
{
    as_limits changes = {.connections = 1, .wait_over_limit = 1};
    as_server *server = make_server(mode, &changes);
    int keeper = connect_to(&address);
    CHECK(send(keeper, "GET /", 5, MSG_NOSIGNAL) == 5);
    CHECK_INT(as_server_start(server), AS_OK);
    uint64_t values[64] = {0};
    while (as_server_counters(server, values, 64) > 0 && values[0] < 1)
        usleep(1000);
    int fd = connect_client();
    changes.connections = 10;
    CHECK_INT(as_server_apply(server, make_snapshot(&changes)), AS_OK);
    CHECK_INT(status_of(fd), 200);
    close(keeper);
    as_server_free(server);
    close_sockets(mode);
}

static void test_refusals(void)
{
    as_server *server = as_server_new(2, 1, event_fd);
    CHECK_INT(as_server_set_accept(server, 4), AS_EINVALID);
    CHECK_INT(as_server_set_accept(server, -1), AS_EINVALID);
    CHECK_INT(as_server_set_accept(server, AS_ACCEPT_COORDINATOR), AS_OK);
    int fds[2] = {event_fd, event_fd};
    CHECK_INT(as_server_add_listeners(server, fds), AS_EINVALID);
    as_server_free(server);
}

static int count_fds(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

int main(void)
{
    int fds_before = count_fds();
    event_fd = eventfd(0, EFD_CLOEXEC);
    for (as_accept_mode mode = AS_ACCEPT_SELF_MANAGED; mode <= AS_ACCEPT_REUSEPORT; mode++) {
        test_drain_takes_the_backlog(mode);
        test_free_at_once(mode);
        test_waiting(mode);
        test_raised_limit(mode);
    }
    test_refusals();
    close(event_fd);
    CHECK_INT(count_fds(), fds_before);
    return check_result("accept");
}
