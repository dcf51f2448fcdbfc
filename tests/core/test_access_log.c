/* with: base/memory.c base/error.c base/scan.c http/head.c */
/* sanitize: address,undefined thread */
/* Lines of the access log: their text, whatever clients send, and that none is lost, torn or in the wrong file. */
#include "http/access_log.c"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "check.h"

static as_loop loop;
static as_home home = {.loop = &loop};
static as_peer peer = {.remote_address = "192.0.2.7"};
static as_request request;
static const as_limits limits = {.header_size = 64 * 1024, .target_size = 32 * 1024};
static char head_text[64 * 1024];

static void fill_request(as_str text)
{
    request = (as_request){.home = &home, .peer = &peer, .id = 0xabc, .queue_ns = -1, .run_ns = -1, .cpu_us = -1};
    request.start_ns = as_clock_monotonic_ns();
    request.response.status = 200;
    memcpy(head_text, text.ptr, text.len);
    size_t scanned = 0;
    CHECK(as_head_parse(head_text, text.len, &scanned, &limits, &request.head) > 0);
}

static char lines[4 * 1024 * 1024];

static size_t read_lines(int fd)
{
    ssize_t n = pread(fd, lines, sizeof(lines) - 1, 0);
    CHECK(n >= 0);
    lines[n] = '\0';
    return (size_t)n;
}

static int count_lines(void)
{
    int count = 0;
    for (const char *at = lines; (at = strchr(at, '\n')) != NULL; at++)
        count++;
    return count;
}

/* The one line that `format` makes of the request. */
static const char *line_of(as_log_format format, bool cut)
{
    int fd = memfd_create("log", MFD_CLOEXEC);
    as_access_log *log = as_access_log_new(1, fd, format);
    CHECK(log != NULL);
    as_access_lane *lane = as_access_log_lane(log, 0);
    CHECK(!as_access_log_pending(lane));
    as_access_log_write(lane, &request, 123, cut);
    CHECK(as_access_log_pending(lane));
    as_access_log_free(log);
    read_lines(fd);
    close(fd);
    CHECK_INT(count_lines(), 1);
    return lines;
}

static void test_combined(void)
{
    loop.wall_s = 784111777;
    fill_request(AS_STR("GET /a?b HTTP/1.1\r\nHost: h\r\nReferer: http://r/\r\nUser-Agent: u \"v\" \\\r\n\r\n"));
    CHECK(strcmp(line_of(AS_LOG_COMBINED, false),
                 "192.0.2.7 - - [06/Nov/1994:08:49:37 +0000] \"GET /a?b HTTP/1.1\" 200 123 "
                 "\"http://r/\" \"u \\\"v\\\" \\\\\"\n") == 0);
    fill_request(AS_STR("GET / HTTP/1.0\r\nUser-Agent: \xc3\xa9\r\n\r\n"));
    CHECK(strstr(line_of(AS_LOG_COMBINED, false), "\"GET / HTTP/1.0\" 200 123 \"-\" \"\\xc3\\xa9\"\n") != NULL);
    request.head.method_text = request.head.target = AS_STR_NONE; /* a head that was refused */
    CHECK(strstr(line_of(AS_LOG_COMBINED, false), "+0000] \"-\" 200") != NULL);
}

static void test_json(void)
{
    loop.wall_s = 784111777;
    fill_request(AS_STR("GET /\"a HTTP/1.1\r\nHost: h\r\nUser-Agent: \xff\t\\\r\n\r\n"));
    request.queue_ns = 1500000;
    request.run_ns = 2500000;
    request.cpu_us = 750;
    request.received = 4711;
    const char *text = line_of(AS_LOG_JSON, true);
    CHECK(strstr(text,
                 "{\"time\":\"1994-11-06T08:49:37Z\",\"request\":\"0000000000000abc\",\"remote\":\"192.0.2.7\","
                 "\"host\":\"h\",\"method\":\"GET\",\"target\":\"/\\\"a\",\"protocol\":\"HTTP/1.1\",\"status\":200,"
                 "\"bytes\":123,\"received\":4711,\"duration_ms\":") == text);
    CHECK(strstr(text, ",\"queue_ms\":1.500,\"run_ms\":2.500,\"cpu_ms\":0.750,\"referer\":\"\",\"user_agent\":"
                       "\"\\u00ff\\u0009\\\\\","
                       "\"cut\":true}\n") != NULL);
}

static void put_many(char **at, const char *name, char c, size_t count)
{
    *at += sprintf(*at, "%s: ", name);
    memset(*at, c, count);
    *at += count;
    *at += sprintf(*at, "\r\n");
}

/* However long and whatever the bytes are, a line ends as it should: a cut one would be no JSON, and its request not seen by what reads the log. */
static void test_long_fields(void)
{
    static char text[60 * 1024];
    const char bytes[] = {'x', '"', '\\', '\t', '\x80', '\xff'};
    for (size_t i = 0; i < sizeof(bytes); i++) {
        for (size_t count = 1000; count <= 9000; count += 400) {
            char *at = text;
            at += sprintf(at, "GET /");
            memset(at, bytes[i] == 'x' || bytes[i] == '"' || bytes[i] == '\\' ? bytes[i] : '~', count);
            at += count;
            at += sprintf(at, " HTTP/1.1\r\nHost: ");
            memset(at, 'h', count);
            at += count;
            at += sprintf(at, "\r\n");
            put_many(&at, "Referer", bytes[i], count);
            put_many(&at, "User-Agent", bytes[i], count);
            at += sprintf(at, "\r\n");
            fill_request(as_str_of(text, (size_t)(at - text)));
            as_str json_line = as_str_from(line_of(AS_LOG_JSON, true));
            CHECK(as_str_ends(json_line, AS_STR("\"cut\":true}\n")));
            CHECK(strstr(lines, ",\"user_agent\":\"") != NULL);
            CHECK(as_str_ends(as_str_from(line_of(AS_LOG_COMBINED, false)), AS_STR("\"\n")));
        }
    }
}

/* Two loops write, the log is opened again in the middle: every line is whole and in one of the two files. */

enum { LOOPS = 2, LINES = 20000 };

static as_access_log *shared;

static void *write_lines(void *argument)
{
    as_access_lane *lane = as_access_log_lane(shared, (int)(intptr_t)argument);
    as_home own_home = {.loop = &loop};
    as_request own = request;
    own.home = &own_home;
    for (int i = 0; i < LINES; i++) {
        as_access_log_write(lane, &own, 1, false);
        /* A writer that is behind drops lines by design; here it is waited for instead. */
        while (lane->len + LINE_MAX_SIZE > BUFFER_SIZE && __atomic_load_n(&lane->full_len, __ATOMIC_ACQUIRE) != 0)
            sched_yield();
    }
    as_access_log_flush(lane);
    return NULL;
}

static void test_threads_and_reopening(void)
{
    fill_request(AS_STR("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    int first = memfd_create("first", MFD_CLOEXEC | MFD_ALLOW_SEALING), second = memfd_create("second", MFD_CLOEXEC);
    shared = as_access_log_new(LOOPS, first, AS_LOG_COMBINED);
    pthread_t threads[LOOPS];
    int failed = 0;
    for (int i = 0; i < LOOPS; i++)
        failed |= pthread_create(&threads[i], NULL, write_lines, (void *)(intptr_t)i);
    failed |= as_access_log_reopen(shared, second, AS_LOG_COMBINED);
    for (int i = 0; i < LOOPS; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(failed, 0);
    as_access_log_free(shared);
    size_t length = read_lines(first);
    int count = count_lines();
    CHECK(length == 0 || lines[length - 1] == '\n');
    length = read_lines(second);
    count += count_lines();
    CHECK(length == 0 || lines[length - 1] == '\n');
    CHECK_INT(count, LOOPS * LINES);
    close(first);
    close(second);
}

/* A log that nobody reads never stops a loop: lines are dropped, counted, and the count is told when it goes on. */
static void test_blocked_log(void)
{
    fill_request(AS_STR("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    int size = 4096;
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    as_access_log *log = as_access_log_new(1, ends[1], AS_LOG_JSON);
    as_access_lane *lane = as_access_log_lane(log, 0);
    uint64_t written = 0;
    for (; lane->dropped < 10; written++)
        as_access_log_write(lane, &request, 1, false);
    int fd = memfd_create("log", MFD_CLOEXEC);
    CHECK_INT(as_access_log_reopen(log, fd, AS_LOG_JSON), AS_OK);
    close(ends[1]);
    close(ends[0]); /* the write that hangs ends with EPIPE */
    while (__atomic_load_n(&lane->full_len, __ATOMIC_ACQUIRE) != 0)
        sched_yield();
    as_access_log_flush(lane);
    while (__atomic_load_n(&lane->full_len, __ATOMIC_ACQUIRE) != 0)
        sched_yield();
    as_access_log_write(lane, &request, 1, false);
    CHECK_INT(lane->dropped, 0);
    as_access_log_free(log);
    read_lines(fd);
    CHECK(strstr(lines, "{\"dropped\":10}\n") != NULL);
    close(fd);
}

static void test_off(void)
{
    fill_request(AS_STR("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    int fd = memfd_create("log", MFD_CLOEXEC);
    as_access_log *log = as_access_log_new(1, fd, AS_LOG_OFF);
    as_access_log_write(as_access_log_lane(log, 0), &request, 1, false);
    CHECK(!as_access_log_pending(as_access_log_lane(log, 0)));
    as_access_log_free(log);
    CHECK_INT(read_lines(fd), 0);
    close(fd);
    CHECK(as_access_log_new(1, -1, AS_LOG_JSON) == NULL);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as the core does */
    test_combined();
    test_json();
    test_long_fields();
    test_threads_and_reopening();
    test_blocked_log();
    test_off();
    return check_result("access_log");
}
