/* with: base/memory.c base/error.c report/event.c loop/loop.c net/connection.c net/gate.c */
/* Every variant of writing: the bytes are the same, what differs is how they are handed to the kernel. The system calls are counted by standing in for them. */
#include <sys/sendfile.h>
#include <sys/socket.h>

static int sends, sendmsgs, sendfiles, reads, cork_on, cork_off, flags_more;

static ssize_t counted_send(int fd, const void *data, size_t len, int flags)
{
    sends++;
    flags_more += (flags & MSG_MORE) != 0;
    return send(fd, data, len, flags);
}

static ssize_t counted_sendmsg(int fd, const struct msghdr *message, int flags)
{
    sendmsgs++;
    flags_more += (flags & MSG_MORE) != 0;
    return sendmsg(fd, message, flags);
}

static ssize_t counted_sendfile(int out, int in, off_t *offset, size_t len)
{
    sendfiles++;
    return sendfile(out, in, offset, len);
}

static int counted_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    if (*(const int *)value)
        cork_on++;
    else
        cork_off++;
    return setsockopt(fd, level, name, value, len);
}

#include <unistd.h>

static ssize_t counted_pread(int fd, void *data, size_t len, off_t offset)
{
    reads++;
    return pread(fd, data, len, offset);
}

#define send counted_send
#define sendmsg counted_sendmsg
#define sendfile counted_sendfile
#define setsockopt counted_setsockopt
#define pread counted_pread
#include "net/plain.c"
#undef send
#undef sendmsg
#undef sendfile
#undef setsockopt
#undef pread

#include <arpa/inet.h>
#include <sys/mman.h>
#include <fcntl.h>

#include "local_socket.h"

static as_loop loop;
static as_counters counters;
static as_gate gate;
static as_net net;
static as_conn *conn;
static int peer, file;
static char content[300 * 1024];

static void nothing(as_conn *which)
{
    (void)which;
}

static const as_protocol_ops idle = {
    .name = "idle", .advance = nothing, .timed_out = nothing, .drain = nothing, .closing = nothing};

static int tcp_pair(int *client)
{
    struct sockaddr_in address = {0};
    int listening = listen_at(&address, false);
    *client = connect_to(&address);
    int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    close(listening);
    return fd;
}

static void begin(as_tuning tuning)
{
    CHECK_INT(as_loop_init(&loop), AS_OK);
    as_gate_init(&gate, NULL);
    CHECK(as_gate_enter(&gate, 1));
    net = (as_net){.loop = &loop, .counters = &counters, .protocol = &idle, .gate = &gate};
    as_net_tune(&net, &tuning);
    as_address remote = {.any.sa_family = AF_UNIX};
    conn = as_conn_open(&net, tcp_pair(&peer), &remote, 0);
    CHECK(conn != NULL);
    sends = sendmsgs = sendfiles = reads = cork_on = cork_off = flags_more = 0;
}

static void end(void)
{
    as_net_cut(&net);
    as_loop_turn(&loop, 0);
    CHECK_INT(net.free_count, net.no_reuse ? 0 : 1);
    as_net_free(&net);
    as_loop_free(&loop);
    as_gate_free(&gate);
    close(peer);
}

static void expect(const char *data, size_t len)
{
    static char got[sizeof(content)];
    size_t have = 0;
    while (have < len) {
        ssize_t n = recv(peer, got + have, len - have, 0);
        CHECK(n > 0);
        if (n <= 0)
            return;
        have += (size_t)n;
    }
    CHECK(memcmp(got, data, len) == 0);
}

static void write_two(bool more)
{
    struct iovec parts[2] = {{"head", 4}, {"body", 4}};
    CHECK_INT(as_conn_write(conn, parts, 2, more), 8);
    expect("headbody", 8);
}

/* A head with MSG_MORE or a cork stays in the kernel until the file follows. */
static void write_head_and_file(size_t len)
{
    struct iovec head = {"head", 4};
    CHECK_INT(as_conn_write(conn, &head, 1, true), 4);
    CHECK_INT(as_conn_send_file(conn, file, 0, len, false), len);
    expect("head", 4);
    expect(content, len);
}

static void test_gather(void)
{
    begin((as_tuning){.cork = AS_CORK_MORE});
    write_two(false);
    CHECK_INT(sendmsgs, 1);
    CHECK_INT(sends + flags_more + cork_on, 0);
    write_head_and_file(1000);
    CHECK_INT(sendmsgs, 1);
    CHECK_INT(sends, 1); /* one piece needs no vector */
    CHECK_INT(flags_more, 1);
    CHECK_INT(sendfiles, 1);
    CHECK_INT(reads + cork_on + cork_off, 0);
    end();
}

static void test_separate(void)
{
    begin((as_tuning){.write_separate = 1, .cork = AS_CORK_MORE});
    write_two(false);
    CHECK_INT(sends, 2);
    CHECK_INT(sendmsgs, 0);
    CHECK_INT(flags_more, 1); /* the first, for the second follows at once */
    end();
    begin((as_tuning){.write_separate = 1, .cork = AS_CORK_OFF});
    write_two(false);
    CHECK_INT(sends, 2);
    CHECK_INT(flags_more, 0);
    end();
}

static void test_cork(void)
{
    begin((as_tuning){.cork = AS_CORK_CORK});
    write_two(false);
    CHECK_INT(cork_on, 0); /* one call needs no cork */
    write_head_and_file(1000);
    CHECK_INT(cork_on, 1);
    CHECK_INT(cork_off, 1);
    CHECK_INT(flags_more, 0);
    CHECK(!conn->corked);
    end();
    begin((as_tuning){.cork = AS_CORK_CORK, .write_separate = 1});
    write_two(false);
    CHECK_INT(sends, 2);
    CHECK_INT(cork_on, 1);
    CHECK_INT(cork_off, 1);
    end();
}

static void test_no_cork(void)
{
    begin((as_tuning){.cork = AS_CORK_OFF});
    write_head_and_file(1000);
    CHECK_INT(flags_more + cork_on + cork_off, 0);
    CHECK_INT(sends, 1);
    CHECK_INT(sendfiles, 1);
    end();
}

static void test_copying(void)
{
    for (uint8_t cork = 0; cork <= AS_CORK_OFF; cork++) {
        begin((as_tuning){.no_sendfile = 1, .cork = cork});
        write_head_and_file(COPY_PIECE + 1000);
        CHECK_INT(sendfiles, 0);
        CHECK_INT(reads, 2);
        CHECK_INT(sends, 3);
        CHECK_INT(flags_more, cork == AS_CORK_MORE ? 2 : 0); /* head and all but the last piece */
        CHECK_INT(cork_on, cork == AS_CORK_CORK);
        CHECK_INT(cork_off, cork == AS_CORK_CORK);
        end();
    }
}

/* A client that does not read: what the socket does not take is not lost, sent twice, or kept. */
static void test_copying_to_a_full_socket(void)
{
    begin((as_tuning){.no_sendfile = 1});
    int small = 4096;
    setsockopt(conn->watch.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    int64_t at = 0;
    static char got[sizeof(content)];
    size_t have = 0;
    bool was_blocked = false;
    while (have < sizeof(content)) {
        while (at < (int64_t)sizeof(content)) {
            ssize_t n = as_conn_send_file(conn, file, at, sizeof(content) - (size_t)at, false);
            CHECK(n > 0 || n == AS_EAGAIN);
            if (n <= 0)
                break;
            at += n;
        }
        was_blocked = was_blocked || at < (int64_t)sizeof(content);
        ssize_t n = recv(peer, got + have, sizeof(got) - have, 0);
        CHECK(n > 0);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    CHECK(was_blocked);
    CHECK(memcmp(got, content, sizeof(content)) == 0);
    end();
}

static void test_file_shorter_than_promised(void)
{
    for (uint8_t copy = 0; copy <= 1; copy++) {
        begin((as_tuning){.no_sendfile = copy});
        CHECK_INT(as_conn_send_file(conn, file, sizeof(content), 10, false), 0);
        end();
    }
    begin((as_tuning){.no_sendfile = 1});
    CHECK_INT(as_conn_send_file(conn, -1, 0, 10, false), AS_ECLOSED);
    end();
}

/* Kept objects go when keeping is switched off. */
static void test_no_reuse(void)
{
    begin((as_tuning){.no_reuse = 1});
    end();
    begin((as_tuning){0});
    as_conn_close(conn);
    as_loop_turn(&loop, 0);
    CHECK_INT(net.free_count, 1);
    as_net_tune(&net, &(as_tuning){.no_reuse = 1});
    CHECK_INT(net.free_count, 0);
    CHECK(net.free_conns == NULL);
    end();
}

/* Each combination is a row of its own. */
static void test_table(void)
{
    for (uint8_t cork = 0; cork <= AS_CORK_OFF; cork++) {
        for (uint8_t apart = 0; apart <= 1; apart++) {
            for (uint8_t copy = 0; copy <= 1; copy++) {
                as_tuning tuning = {.cork = cork, .write_separate = apart, .no_sendfile = copy};
                const as_transport_ops *ops = as_plain_transport(&tuning);
                CHECK((ops->write == corked_write) == (cork == AS_CORK_CORK));
                CHECK((ops->more_flag == MSG_MORE) == (cork == AS_CORK_MORE));
                CHECK((ops->write == separate || ops->write_under_cork == separate) == (apart == 1));
                CHECK((ops->send_file == by_copy || ops->send_file_under_cork == by_copy) == (copy == 1));
            }
        }
    }
}

int main(void)
{
    for (size_t i = 0; i < sizeof(content); i++)
        content[i] = (char)(i * 7 + i / 251);
    file = memfd_create("content", MFD_CLOEXEC);
    CHECK(write(file, content, sizeof(content)) == (ssize_t)sizeof(content));
    test_table();
    test_gather();
    test_separate();
    test_cork();
    test_no_cork();
    test_copying();
    test_copying_to_a_full_socket();
    test_file_shorter_than_promised();
    test_no_reuse();
    close(file);
    return check_result("plain");
}
