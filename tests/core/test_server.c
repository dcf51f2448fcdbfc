/* with: all */
/* sanitize: address,undefined thread */
/* The whole core without Python: loops, a file site, a pool whose executor is a thread of this test; clients, new snapshots and the deaths of executors at the same
 * time. Under ThreadSanitizer this is what checks the rules of ownership. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api.h"
#include "handler/frame.h"
#include "handler/slot.h"

#include "local_socket.h"

enum { LOOPS = 2, CLIENTS = 4, REQUESTS = 150, SLOTS = 128, CORE_GENERATION = 7 };

static char root[] = "/tmp/cherokee-core-XXXXXX";
static struct sockaddr_in address;
static int queue[2];
static int answers[LOOPS][2];
static int slots_fd;

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static void make_segment(void)
{
    slots_fd = memfd_create("slots", MFD_CLOEXEC);
    CHECK(ftruncate(slots_fd, 64 + SLOTS * 64) == 0);
    uint32_t header[5] = {0x534c4f54, 1, SLOTS, LOOPS, CORE_GENERATION};
    CHECK(pwrite(slots_fd, header, sizeof(header), 0) == (ssize_t)sizeof(header));
}

/* An executor: answers every request with its own request id as text. */
static void *executor_thread(void *argument)
{
    (void)argument;
    static char frame[200 * 1024];
    for (;;) {
        ssize_t n = recv(queue[1], frame, sizeof(frame), 0);
        if (n <= 0)
            return NULL;
        for (ssize_t at = 0; at < n;) {
            uint32_t length, slot, loop;
            uint64_t id;
            memcpy(&length, frame + at, 4);
            memcpy(&slot, frame + at + 8, 4);
            memcpy(&loop, frame + at + 12, 4);
            memcpy(&id, frame + at + 16, 8);
            char answer[256];
            const char fields[] = "Content-Type: text/plain\r\n";
            char body[32];
            int body_len = snprintf(body, sizeof(body), "%016llx", (unsigned long long)id);
            as_answer_head head = {
                .slot = slot,
                .status = 200,
                .request_id = id,
                .fields_len = sizeof(fields) - 1,
                .body_len = (uint64_t)body_len,
            };
            as_answer_frame_begin(&head, AS_ANSWER_RESPONSE, answer);
            memcpy(answer + AS_ANSWER_HEAD_LEN, fields, sizeof(fields) - 1);
            memcpy(answer + AS_ANSWER_HEAD_LEN + sizeof(fields) - 1, body, (size_t)body_len);
            size_t total = AS_ANSWER_HEAD_LEN + sizeof(fields) - 1 + (size_t)body_len;
            if (send(answers[loop][1], answer, total, MSG_NOSIGNAL) < 0)
                return NULL;
            at += length;
        }
    }
}

/* One request on an open connection; the status, or -1. */
static int get(int fd, const char *path)
{
    char text[128 * 1024];
    int len = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path);
    if (send(fd, text, (size_t)len, MSG_NOSIGNAL) != len)
        return -1;
    size_t got = 0;
    for (;;) {
        ssize_t n = recv(fd, text + got, sizeof(text) - 1 - got, 0);
        if (n <= 0)
            return -1;
        got += (size_t)n;
        text[got] = '\0';
        const char *end = strstr(text, "\r\n\r\n");
        const char *length = strcasestr(text, "content-length: ");
        if (end != NULL && length != NULL && got >= (size_t)(end + 4 - text) + (size_t)atol(length + 16))
            return atoi(text + 9);
    }
}

static void *client_thread(void *argument)
{
    long *failures = argument;
    int fd = connect_to(&address);
    for (int i = 0; i < REQUESTS; i++) {
        static const char *const paths[] = {"/a.txt", "/pool/x", "/none", "/metrics"};
        static const int expected[] = {200, 200, 404, 200};
        if (i % 10 == 9) { /* connections come and go */
            close(fd);
            fd = connect_to(&address);
        }
        int status = get(fd, paths[i % 4]);
        if (status != expected[i % 4])
            (*failures)++;
    }
    close(fd);
    return NULL;
}

static as_snapshot *make_snapshot(as_server *server)
{
    as_limits limits = {.header_size = 16384,
                        .target_size = 8192,
                        .body_size = 1 << 20,
                        .header_timeout_ms = 10000,
                        .body_timeout_ms = 10000,
                        .idle_timeout_ms = 10000,
                        .send_timeout_ms = 10000,
                        .connections = 1000};
    as_snapshot *snapshot = as_snapshot_new(&limits, "test/1", "/tmp");
    as_snapshot_set_cache(snapshot, 1 << 20, 100, 65536, 100, 0);
    int files = as_snapshot_add_file(snapshot, root, "", "index.html\0", 0, NULL, 0, "");
    int pool = as_snapshot_add_pool(snapshot, 0, 1, "A\0b", 4, root);
    int site = as_snapshot_add_site(snapshot, "main", files, 0);
    CHECK(files >= 0 && pool >= 0 && site >= 0);
    uint32_t route = as_server_add_route(server, "main", "/pool/*", "test");
    CHECK(as_snapshot_add_rule(snapshot, site, "/pool/*", "\0", "\0", pool, route) >= 0);
    int metrics = as_snapshot_add_metrics(snapshot);
    CHECK(as_snapshot_add_rule(snapshot, site, "/metrics", "\0", "\0", metrics, 0) >= 0);
    return snapshot;
}

static int count_fds(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void wait_for_event(as_server *server, int event_fd, uint32_t kind, int count)
{
    as_event event;
    while (count > 0) {
        uint64_t n;
        CHECK(read(event_fd, &n, sizeof(n)) == (ssize_t)sizeof(n));
        while (as_server_next_event(server, &event)) {
            if (event.kind == kind)
                count--;
            else if (event.kind == AS_EVENT_ERROR)
                fprintf(stderr, "event: %s\n", event.text);
        }
    }
}

int main(void)
{
    CHECK(mkdtemp(root) != NULL);
    write_file("a.txt", "hello\n");
    int fds_before = count_fds();
    int listener = listen_at(&address, false);
    int event_fd = eventfd(0, EFD_CLOEXEC);
    make_segment();
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, queue) == 0);
    fcntl(queue[0], F_SETFL, O_NONBLOCK);
    int receiving[LOOPS];
    for (int i = 0; i < LOOPS; i++) {
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, answers[i]) == 0);
        fcntl(answers[i][0], F_SETFL, O_NONBLOCK);
        receiving[i] = answers[i][0];
    }
    as_server *server = as_server_new(LOOPS, CORE_GENERATION, event_fd);
    as_pool_settings settings = {.name = "test",
                                 .queue_limit = 100,
                                 .queue_time_ms = 20000,
                                 .request_time_ms = 20000,
                                 .retry = 1,
                                 .quarantine_ms = 1000};
    CHECK(as_server_set_pool(server, 0, &settings, queue[0], slots_fd, receiving) == AS_OK);
    CHECK(as_server_set_capacity(server, 0, 2, 2, 0, 0) == AS_OK);
    CHECK(as_server_add_listener(server, listener) == AS_OK);
    int log = open("/dev/null", O_WRONLY | O_CLOEXEC);
    CHECK(as_server_set_access_log(server, log, 2) == AS_OK);
    CHECK(as_server_apply(server, make_snapshot(server)) == AS_OK);
    CHECK(as_server_start(server) == AS_OK);

    pthread_t executor, clients[CLIENTS];
    long failures[CLIENTS] = {0};
    pthread_create(&executor, NULL, executor_thread, NULL);
    for (int i = 0; i < CLIENTS; i++)
        pthread_create(&clients[i], NULL, client_thread, &failures[i]);
    for (int i = 0; i < 20; i++) {
        CHECK(as_server_apply(server, make_snapshot(server)) == AS_OK);
        CHECK(as_server_set_capacity(server, 0, 1 + (uint32_t)i % 3, 1 + (uint32_t)i % 3, 0, 0) == AS_OK);
        CHECK(as_server_set_pool(server, 0, &settings, -1, -1, NULL) == AS_OK);
        as_server_executor_died(server, 0, 999, i % 2);
        as_server_set_ready(server, i % 2);
        as_server_set_access_log(server, log, 1 + i % 2);
        uint64_t values[64];
        CHECK(as_server_counters(server, values, 64) > 5);
        usleep(2000);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i], NULL);
        CHECK_INT(failures[i], 0);
    }
    as_server_drain(server);
    wait_for_event(server, event_fd, AS_EVENT_DRAINED, LOOPS);
    as_server_free(server);
    close(queue[0]);
    shutdown(queue[1], SHUT_RDWR);
    pthread_join(executor, NULL);
    close(queue[1]);
    for (int i = 0; i < LOOPS; i++)
        close(answers[i][1]);
    close(log);
    close(listener);
    close(event_fd);
    close(slots_fd);
    CHECK_INT(count_fds(), fds_before);
    char path[256];
    snprintf(path, sizeof(path), "%s/a.txt", root);
    unlink(path);
    CHECK(rmdir(root) == 0);
    return check_result("server");
}
