/* spawner_fixture.h: the core's side of a spawner that runs on a thread of the test, and the programs that it starts. The test includes spawner/spawner.c first. */
#ifndef AS_TESTS_SPAWNER_FIXTURE_H
#define AS_TESTS_SPAWNER_FIXTURE_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "check.h"

enum {
    SLOTS = 256,
    LOOPS = 2,
    GENERATION = 7,
    EXECUTOR = 5,
    GIVE_UP_S = 60, /* a test that waits longer has failed */
};

static char root[] = "/tmp/test_spawner.XXXXXX";

typedef struct fixture {
    as_spawner *spawner;
    pthread_t thread;
    int queue[2];          /* [0] is the core's end */
    int answers[LOOPS][2]; /* [0] is the core's end */
    int slots_fd;
    int event_fd;
    as_slot_header *segment;
    uint64_t last_id;
    long result;
} fixture;

typedef struct answer {
    as_answer_head head;
    char fields[256];
    char body[4096];
    int fd;
} answer;

/* --- the core's side --- */

static void *run_thread(void *argument)
{
    fixture *test = argument;
    test->result = as_spawner_run(test->spawner);
    return NULL;
}

static void make_pair(int pair[2])
{
    struct timeval limit = {.tv_sec = GIVE_UP_S};
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    int size = 1024 * 1024;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static void prepare(fixture *test)
{
    *test = (fixture){.last_id = (uint64_t)GENERATION << 48};
    make_pair(test->queue);
    for (int i = 0; i < LOOPS; i++)
        make_pair(test->answers[i]);
    test->event_fd = eventfd(0, EFD_CLOEXEC);
    test->slots_fd = memfd_create("slots", MFD_CLOEXEC);
    size_t size = as_slot_segment_size(SLOTS);
    CHECK(ftruncate(test->slots_fd, (off_t)size) == 0);
    test->segment = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, test->slots_fd, 0);
    CHECK(test->segment != MAP_FAILED);
    *test->segment = (as_slot_header){AS_SLOT_MAGIC, AS_SLOT_VERSION, SLOTS, LOOPS, GENERATION, {0}};
}

static as_spawner_options options_of(const fixture *test, int answer_fds[LOOPS], uint32_t max_programs)
{
    for (int i = 0; i < LOOPS; i++)
        answer_fds[i] = test->answers[i][1];
    return (as_spawner_options){
        .queue_fd = test->queue[1],
        .answer_fds = answer_fds,
        .loops = LOOPS,
        .slots_fd = test->slots_fd,
        .executor = EXECUTOR,
        .max_programs = max_programs,
        .kill_grace_ms = 50,
        .program_descriptors = 63,
        .environment = "PATH\0/usr/bin:/bin\0FROM_OPTIONS\0yes\0HTTP_X\0from-options\0",
        .interpreters = ".sh\0/bin/sh\0.gone\0/no/such/interpreter\0",
        .event_fd = test->event_fd,
    };
}

static void begin_with(fixture *test, uint32_t max_programs, uint32_t request_time_ms)
{
    int answer_fds[LOOPS];
    prepare(test);
    as_spawner_options options = options_of(test, answer_fds, max_programs);
    options.request_time_ms = request_time_ms;
    test->spawner = as_spawner_new(&options);
    CHECK(test->spawner != NULL);
    if (test->spawner == NULL || pthread_create(&test->thread, NULL, run_thread, test) != 0)
        exit(EXIT_FAILURE);
}

static void begin(fixture *test, uint32_t max_programs)
{
    begin_with(test, max_programs, 0);
}

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void release(fixture *test)
{
    for (int end = 0; end < 2; end++) {
        close_end(&test->queue[end]);
        for (int i = 0; i < LOOPS; i++)
            close_end(&test->answers[i][end]);
    }
    munmap(test->segment, as_slot_segment_size(SLOTS));
    close(test->slots_fd);
    close(test->event_fd);
}

/* What was received with the frame before, or made of it: frames of a datagram, one behind the other. */
static struct {
    char bytes[AS_DATAGRAM_MAX];
    size_t at, len;
    int fd;
} left[LOOPS];
static int whole_documents; /* received as such */

/* Waits for the spawner's end, which the caller has asked for. */
static void finish(fixture *test, int expected)
{
    pthread_join(test->thread, NULL);
    for (int i = 0; i < LOOPS; i++)
        left[i].at = left[i].len = 0;
    CHECK_INT(test->result, expected);
    as_spawner_free(test->spawner);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    release(test);
}

static void end_of_queue(fixture *test)
{
    close_end(&test->queue[0]);
    finish(test, AS_OK);
}

typedef struct request {
    uint32_t slot;
    uint32_t loop;
    const char *path;      /* PATH_INFO */
    const char *variables; /* further "NAME\0value\0...", ended by an empty name */
    const char *body;
    int body_fd; /* 0: none */
    int64_t limit_ms;
    uint64_t id; /* 0: the next one */
} request;

static size_t put_pair(char *out, const char *name, const char *value)
{
    size_t name_len = strlen(name) + 1;
    size_t value_len = strlen(value) + 1;
    memcpy(out, name, name_len);
    memcpy(out + name_len, value, value_len);
    return name_len + value_len;
}

/* The frame's bytes into `out`; marks the slot as a core does. */
static size_t put_request(fixture *test, const request *wanted, char *out)
{
    char *block = out + AS_REQUEST_HEAD_LEN;
    size_t len = 0;
    char id_text[17];
    uint64_t id = wanted->id ? wanted->id : ++test->last_id;
    snprintf(id_text, sizeof(id_text), "%016llx", (unsigned long long)(id + 0x1000));
    len += put_pair(block + len, "SCRIPT_NAME", "/cgi-bin");
    len += put_pair(block + len, "PATH_INFO", wanted->path);
    len += put_pair(block + len, "DOCUMENT_ROOT", "/srv/www");
    len += put_pair(block + len, "appserver.cgi.root", root);
    len += put_pair(block + len, "appserver.request_id", id_text);
    for (const char *name = wanted->variables; name != NULL && *name != '\0';) {
        const char *value = name + strlen(name) + 1;
        len += put_pair(block + len, name, value);
        name = value + strlen(value) + 1;
    }
    size_t body_len = wanted->body != NULL ? strlen(wanted->body) : 0;
    if (body_len > 0)
        memcpy(block + len, wanted->body, body_len);
    as_request_head head = {
        .slot = wanted->slot,
        .loop = wanted->loop,
        .request_id = id,
        .deadline_ns = wanted->limit_ms ? (uint64_t)(as_clock_monotonic_ns() + wanted->limit_ms * AS_NS_PER_MS) : 0,
        .environment_len = (uint32_t)len,
        .flags = wanted->body_fd > 0 ? AS_REQUEST_BODY_FD : 0,
        .body_len = body_len,
    };
    as_request_frame_begin(&head, AS_REQUEST_RUN, out);
    as_slot *slot = &as_slot_records(test->segment)[wanted->slot];
    AS_SLOT_STORE(slot, request_id, id);
    AS_SLOT_STORE(slot, cancelled, 0);
    AS_SLOT_STORE_STATE(slot, AS_SLOT_QUEUED);
    return AS_REQUEST_HEAD_LEN + len + body_len;
}

static void send_bytes(const fixture *test, char *bytes, size_t len, int fd)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct iovec part = {bytes, len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd > 0) {
        control.head =
            (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
        message.msg_control = &control;
        message.msg_controllen = sizeof(control.space);
    }
    CHECK_INT(sendmsg(test->queue[0], &message, MSG_NOSIGNAL), len);
}

static uint64_t send_request(fixture *test, const request *wanted)
{
    static char bytes[AS_DATAGRAM_MAX];
    size_t len = put_request(test, wanted, bytes);
    send_bytes(test, bytes, len, wanted->body_fd);
    return wanted->id ? wanted->id : test->last_id;
}

static void send_cancel(fixture *test, uint32_t slot, uint64_t id)
{
    char bytes[AS_REQUEST_HEAD_LEN];
    as_request_head head = {.slot = slot, .request_id = id};
    as_request_frame_begin(&head, AS_REQUEST_CANCEL, bytes);
    send_bytes(test, bytes, sizeof(bytes), -1);
}

static void receive_datagram(const fixture *test, int loop)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {left[loop].bytes, sizeof(left[loop].bytes)};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.space)};
    ssize_t len;
    do { /* the exit of a program may interrupt any thread that does not block SIGCHLD */
        len = recvmsg(test->answers[loop][0], &message, MSG_CMSG_CLOEXEC);
    } while (len < 0 && errno == EINTR);
    CHECK(len > 0);
    if (len <= 0) {
        fprintf(stderr, "no answer\n");
        exit(EXIT_FAILURE);
    }
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    left[loop].at = 0;
    left[loop].len = (size_t)len;
    left[loop].fd = -1;
    if (head != NULL && head->cmsg_type == SCM_RIGHTS)
        memcpy(&left[loop].fd, CMSG_DATA(head), sizeof(int));
    if (left[loop].fd >= 0)
        fcntl(left[loop].fd, F_SETFL, 0); /* these tests wait for what programs write */
}

/* A `whole-document` as what it stands for: a `document` here, and the `end` in place of the frame itself. */
static void split_whole(as_answer_frame *frame, char *place, int *fd)
{
    int ends[2];
    CHECK(frame->body.len <= 64 * 1024 && pipe2(ends, O_CLOEXEC) == 0);
    CHECK(write(ends[1], frame->body.ptr, frame->body.len) == (ssize_t)frame->body.len);
    close(ends[1]);
    *fd = ends[0];
    as_answer_head end = frame->head;
    end.flags = 0;
    end.body_len = end.file_offset = 0;
    as_answer_frame_begin(&end, AS_ANSWER_END, place);
    frame->head.kind = AS_ANSWER_DOCUMENT;
    frame->head.status = 0;
    frame->body = AS_STR_NONE;
    whole_documents++;
}

static answer receive_answer(const fixture *test, int loop)
{
    as_answer_frame frame;
    if (left[loop].at == left[loop].len)
        receive_datagram(test, loop);
    char *begin = left[loop].bytes + left[loop].at;
    int len = as_answer_frame_decode(begin, left[loop].len - left[loop].at, &frame);
    CHECK(len > 0);
    answer result = {.fd = left[loop].fd};
    left[loop].fd = -1;
    left[loop].at += (size_t)len;
    if (frame.head.kind == AS_ANSWER_WHOLE_DOCUMENT) {
        left[loop].at -= AS_ANSWER_HEAD_LEN;
        split_whole(&frame, left[loop].bytes + left[loop].at, &result.fd);
    }
    CHECK_INT(result.fd >= 0, as_answer_has_fd(frame.head.kind));
    result.head = frame.head;
    snprintf(result.fields, sizeof(result.fields), "%.*s", (int)frame.fields.len, frame.fields.ptr);
    snprintf(result.body, sizeof(result.body), "%.*s", (int)frame.body.len, frame.body.ptr);
    return result;
}

/* A `document`, for the request: the reading end. */
static int receive_document(const fixture *test, uint64_t id)
{
    answer got = receive_answer(test, 0);
    CHECK_INT(got.head.kind, AS_ANSWER_DOCUMENT);
    CHECK_INT(got.head.request_id, id);
    CHECK_INT(got.head.status, 0);
    return got.fd;
}

static int receive_end(const fixture *test, uint64_t id)
{
    answer got = receive_answer(test, 0);
    CHECK_INT(got.head.kind, AS_ANSWER_END);
    CHECK_INT(got.head.request_id, id);
    return got.head.status;
}

static void read_all(int fd, char *out, size_t size)
{
    size_t len = 0;
    ssize_t got;
    while (len < size - 1 && (got = read(fd, out + len, size - 1 - len)) > 0)
        len += (size_t)got;
    out[len] = '\0';
    close(fd);
}

/* Waits until the program has written a line and gives it without its newline. */
static void read_line(int fd, char *out, size_t size)
{
    size_t len = 0;
    while (len < size - 1 && read(fd, out + len, 1) == 1 && out[len] != '\n')
        len++;
    out[len] = '\0';
}

/* The whole of one request that ends by itself: its output, and the status of `end`. */
static int run_to_end(fixture *test, request wanted, char *out, size_t size)
{
    uint64_t id = send_request(test, &wanted);
    int fd = receive_document(test, id);
    if (fd < 0)
        return -1;
    read_all(fd, out, size);
    return receive_end(test, id);
}

static answer refused(fixture *test, const char *path)
{
    uint64_t id = send_request(test, &(request){.path = path});
    answer got = receive_answer(test, 0);
    CHECK_INT(got.head.kind, AS_ANSWER_RESPONSE);
    CHECK_INT(got.head.request_id, id);
    return got;
}

/* The next event; waits for it. */
static as_event next_event(const fixture *test)
{
    as_event event = {0};
    while (!as_spawner_next_event(test->spawner, &event)) {
        struct pollfd ready = {.fd = test->event_fd, .events = POLLIN};
        uint64_t count;
        if (poll(&ready, 1, GIVE_UP_S * 1000) != 1) {
            CHECK(!"an event was to come");
            exit(EXIT_FAILURE);
        }
        CHECK(read(test->event_fd, &count, sizeof(count)) == sizeof(count));
    }
    return event;
}

static void expect_event(const fixture *test, as_event_kind kind, const char *text)
{
    as_event event = next_event(test);
    CHECK_INT(event.kind, kind);
    CHECK_INT(event.executor, EXECUTOR);
    if (strstr(event.text, text) == NULL)
        fprintf(stderr, "event: %s\nwanted: %s\n", event.text, text);
    CHECK(strstr(event.text, text) != NULL);
}

static void expect_no_event(const fixture *test)
{
    as_event event;
    CHECK(!as_spawner_next_event(test->spawner, &event));
}

static bool is_gone(pid_t pid)
{
    char path[64], state[256] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true;
    read_all(fd, state, sizeof(state));
    const char *behind_name = strrchr(state, ')');
    return behind_name == NULL || behind_name[2] == 'Z' || behind_name[2] == 'X';
}

/* A process closes its pipes a moment before it counts as dead. */
static void wait_until_gone(pid_t pid)
{
    while (!is_gone(pid))
        sched_yield();
}

/* --- programs --- */

static void write_script(const char *name, mode_t mode, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fchmod(fd, mode) == 0);
    close(fd);
}

#define HEAD "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\n"

static void write_scripts(void)
{
    CHECK(mkdtemp(root) != NULL);
    char path[256];
    snprintf(path, sizeof(path), "%s/deep", root);
    CHECK(mkdir(path, 0755) == 0);
    write_script("hello", 0755, HEAD "echo hello\n");
    write_script("env", 0755, HEAD "env | sort\necho args: $# \"$1\" \"$2\"\n");
    write_script("deep/where", 0755, HEAD "pwd\necho \"$0\"\n");
    write_script("cat", 0755, HEAD "exec cat\n");
    write_script("fds", 0755, HEAD "exec ls /proc/self/fd\n");
    write_script("signals", 0755, HEAD "grep -E '^Sig(Blk|Ign)' /proc/self/status\n");
    write_script("exit", 0755, HEAD "exit 42\n");
    write_script("die", 0755, HEAD "kill -USR1 $$\n");
    write_script("unread", 0755, HEAD "kill -PIPE $$\n");
    write_script("limits", 0755, HEAD "ulimit -Sn\n");
    write_script("plain", 0644, HEAD);
    write_script("by-interpreter.sh", 0644, "printf 'A: b\\n\\n'; echo \"ran $0 with $#\"\n");
    write_script("script.gone", 0755, HEAD);
    write_script("missing", 0755, "#!/no/such/interpreter -x\n");
    write_script("crlf", 0755, "#!/bin/sh\r\necho\r\n");
    write_script("no-shebang", 0755, "echo hello\n");
    write_script("errors", 0755, HEAD "echo 'one' >&2; echo 'two' >&2; printf 'three' >&2\n");
    write_script("flood", 0755, HEAD "yes 'a line of no use' | head -n 100000 >&2\n");
    write_script("family", 0755, HEAD "sleep 1000 &\necho $!\necho $$\nwait\n");
    write_script("left-behind", 0755, HEAD "sleep 1000 >/dev/null 2>&1 &\necho $!\n");
    write_script("holds-stdout", 0755, HEAD "sleep 1000 &\necho $!\n");
    write_script("stubborn", 0755, HEAD "trap '' TERM\necho $$\nwhile :; do sleep 1000; done\n");
    write_script("waits", 0755, HEAD "echo $$\nread line <wake\necho $line\n");
    snprintf(path, sizeof(path), "%s/wake", root);
    CHECK(mkfifo(path, 0600) == 0);
}

#endif
