/* with: base/memory.c report/event.c loop/loop.c handler/beneath.c handler/frame.c spawner/answers.c spawner/variables.c spawner/program.c spawner/cgi.c spawner/warm.c spawner/zygote.c spawner/shebang.c spawner/running.c spawner/trial.c base/buf.c spawner/script_path.c spawner/file_marks.c spawner/stderr_lines.c spawner/rlimits.c spawner/identity.c spawner/strays.c */
/* The spawner on a thread of this test, which plays the core: requests over the queue, answers from two loops' sockets, programs as shell scripts in a
 * folder of its own. */
#include "spawner/spawner.c"

#include "spawner_fixture.h"

static void test_hello(void)
{
    fixture test;
    char out[4096];
    begin(&test, 4);
    whole_documents = 0;
    for (int i = 0; i < 3; i++) {
        CHECK_INT(run_to_end(&test, (request){.slot = 3, .path = "/hello"}, out, sizeof(out)), 0);
        CHECK_STR(as_str_from(out), "Content-Type: text/plain\n\nhello\n");
    }
    as_slot *slot = &as_slot_records(test.segment)[3];
    CHECK_INT(AS_SLOT_LOAD_STATE(slot), AS_SLOT_RUNNING);
    CHECK_INT(slot->executor, EXECUTOR);
    CHECK(slot->start_ns > 0);
    CHECK_INT(slot->process, 0);
    uint64_t id = send_request(&test, &(request){.loop = 1, .path = "/hello"});
    answer got = receive_answer(&test, 1);
    CHECK_INT(got.head.kind, AS_ANSWER_DOCUMENT);
    read_all(got.fd, out, sizeof(out));
    got = receive_answer(&test, 1);
    CHECK_INT(got.head.kind, AS_ANSWER_END);
    CHECK_INT(got.head.request_id, id);
    CHECK(whole_documents > 0); /* of those that end soon; how many do is the machine's affair */
    expect_no_event(&test);
    end_of_queue(&test);
}

static bool has_line(const char *text, const char *line)
{
    size_t len = strlen(line);
    for (const char *at = strstr(text, line); at != NULL; at = strstr(at + 1, line)) {
        if ((at == text || at[-1] == '\n') && (at[len] == '\n' || at[len] == '\0'))
            return true;
    }
    fprintf(stderr, "no line \"%s\" in:\n%s\n", line, text);
    return false;
}

static void test_environment(void)
{
    fixture test;
    char out[8192], wanted[512];
    begin(&test, 4);
    run_to_end(&test,
               (request){.path = "/env/a/b", .variables = "HTTP_X\0mine\0QUERY_STRING\0q=1\0REQUEST_METHOD\0GET\0"},
               out, sizeof(out));
    CHECK(has_line(out, "SCRIPT_NAME=/cgi-bin/env"));
    CHECK(has_line(out, "PATH_INFO=/a/b"));
    CHECK(has_line(out, "PATH_TRANSLATED=/srv/www/a/b"));
    snprintf(wanted, sizeof(wanted), "SCRIPT_FILENAME=%s/env", root);
    CHECK(has_line(out, wanted));
    CHECK(has_line(out, "FROM_OPTIONS=yes"));
    CHECK(has_line(out, "HTTP_X=mine"));
    CHECK(has_line(out, "QUERY_STRING=q=1"));
    CHECK(has_line(out, "args: 0  "));
    CHECK(strstr(out, "appserver") == NULL);
    run_to_end(&test, (request){.path = "/env", .variables = "QUERY_STRING\0one+t%77o\0REQUEST_METHOD\0GET\0"}, out,
               sizeof(out));
    CHECK(has_line(out, "args: 2 one two"));
    CHECK(has_line(out, "QUERY_STRING=one+t%77o"));
    CHECK(has_line(out, "PATH_INFO="));
    CHECK(strstr(out, "PATH_TRANSLATED") == NULL);
    run_to_end(&test, (request){.path = "/env", .variables = "QUERY_STRING\0one\0REQUEST_METHOD\0POST\0"}, out,
               sizeof(out));
    CHECK(has_line(out, "args: 0  "));
    run_to_end(&test, (request){.path = "/deep/where"}, out, sizeof(out));
    snprintf(wanted, sizeof(wanted), "%s/deep", root);
    CHECK(has_line(out, wanted));
    snprintf(wanted, sizeof(wanted), "%s/deep/where", root);
    CHECK(has_line(out, wanted));
    end_of_queue(&test);
}

static void test_body(void)
{
    fixture test;
    char out[4096];
    begin(&test, 4);
    CHECK_INT(run_to_end(&test, (request){.path = "/cat", .body = "a=1&b=2"}, out, sizeof(out)), 0);
    CHECK_STR(as_str_from(out), "Content-Type: text/plain\n\na=1&b=2");
    int fd = memfd_create("body", MFD_CLOEXEC);
    CHECK(write(fd, "from a file", 11) == 11);
    CHECK_INT(run_to_end(&test, (request){.path = "/cat", .body_fd = fd}, out, sizeof(out)), 0);
    CHECK_STR(as_str_from(out), "Content-Type: text/plain\n\nfrom a file");
    /* For a program that is not there the descriptor must go as well. */
    send_request(&test, &(request){.path = "/nothing", .body_fd = fd});
    CHECK_INT(receive_answer(&test, 0).head.status, 404);
    close(fd);
    CHECK_INT(run_to_end(&test, (request){.path = "/cat"}, out, sizeof(out)), 0);
    CHECK_STR(as_str_from(out), "Content-Type: text/plain\n\n");
    end_of_queue(&test);
}

/* What a program is given besides: three descriptors, no blocked or ignored signal. */
static void test_clean_start(void)
{
    fixture test;
    char out[4096];
    int inherited = open("/dev/null", O_RDONLY); /* without close-on-exec, as a careless library would */
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    sigaction(SIGUSR2, &ignore, &before);
    begin(&test, 4);
    run_to_end(&test, (request){.path = "/fds"}, out, sizeof(out));
    CHECK_STR(as_str_from(out), "Content-Type: text/plain\n\n0\n1\n2\n3\n"); /* 3 is the folder that ls reads */
    run_to_end(&test, (request){.path = "/signals"}, out, sizeof(out));
    CHECK(has_line(out, "SigBlk:\t0000000000000000"));
    CHECK(has_line(out, "SigIgn:\t0000000000000000"));
    run_to_end(&test, (request){.path = "/limits"}, out, sizeof(out));
    CHECK(has_line(out, "63"));
    sigaction(SIGUSR2, &before, NULL);
    close(inherited);
    end_of_queue(&test);
}

static void test_refused(void)
{
    fixture test;
    begin(&test, 4);
    CHECK_INT(refused(&test, "/nothing").head.status, 404);
    CHECK_INT(refused(&test, "/.hidden").head.status, 404);
    CHECK_INT(refused(&test, "/deep/").head.status, 403);
    CHECK_INT(refused(&test, "/../x").head.status, 403);
    expect_event(&test, AS_EVENT_WARNING, "leads out");
    answer got = refused(&test, "/plain");
    CHECK_INT(got.head.status, 500);
    CHECK(got.fields[0] == '\0' && got.body[0] == '\0'); /* the core makes the page */
    expect_event(&test, AS_EVENT_WARNING, "/plain: not executable: chmod +x");
    CHECK_INT(refused(&test, "/missing").head.status, 500);
    expect_event(&test, AS_EVENT_WARNING, "/missing: its interpreter /no/such/interpreter is missing");
    CHECK_INT(refused(&test, "/script.gone").head.status, 500);
    expect_event(&test, AS_EVENT_WARNING, "/script.gone: its interpreter /no/such/interpreter is missing");
    CHECK_INT(refused(&test, "/no-shebang").head.status, 500);
    expect_event(&test, AS_EVENT_WARNING, "/no-shebang: it has no #! line");
    CHECK_INT(refused(&test, "/crlf").head.status, 500);
    expect_event(&test, AS_EVENT_WARNING, "CR LF");
    expect_no_event(&test);
    end_of_queue(&test);
}

static void test_interpreter(void)
{
    fixture test;
    char out[4096];
    begin(&test, 4);
    run_to_end(&test,
               (request){.path = "/by-interpreter.sh/x", .variables = "QUERY_STRING\0word\0REQUEST_METHOD\0GET\0"}, out,
               sizeof(out));
    CHECK(strstr(out, "/by-interpreter.sh with 0\n") != NULL);
    end_of_queue(&test);
}

static void test_exit(void)
{
    fixture test;
    char out[4096];
    begin(&test, 4);
    CHECK_INT(run_to_end(&test, (request){.path = "/exit"}, out, sizeof(out)), 42);
    expect_event(&test, AS_EVENT_WARNING, "/exit: the program ended with exit code 42");
    CHECK_INT(run_to_end(&test, (request){.path = "/die"}, out, sizeof(out)), 256 + SIGUSR1);
    expect_event(&test, AS_EVENT_ERROR, "/die: the program was killed by signal 10");
    CHECK_INT(run_to_end(&test, (request){.path = "/unread"}, out, sizeof(out)), 256 + SIGPIPE);
    expect_event(&test, AS_EVENT_NOTE, "/unread: the program was killed by signal 13");
    expect_no_event(&test);
    end_of_queue(&test);
}

/* Starts "family": its output, and the numbers of its grandchild and of itself. */
static uint64_t start_family(fixture *test, request wanted, int *fd, pid_t *child, pid_t *leader)
{
    char line[64];
    uint64_t id = send_request(test, &wanted);
    *fd = receive_document(test, id);
    for (int i = 0; i < 2; i++) /* the header section */
        read_line(*fd, line, sizeof(line));
    read_line(*fd, line, sizeof(line));
    *child = atoi(line);
    read_line(*fd, line, sizeof(line));
    *leader = atoi(line);
    CHECK(*child > 0 && *leader > 0);
    return id;
}

/* The pipe is at its end only when the last process that holds it is gone. */
static void expect_end_of_pipe(int fd)
{
    char rest[64];
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    CHECK_INT(poll(&ready, 1, GIVE_UP_S * 1000), 1);
    read_all(fd, rest, sizeof(rest));
    CHECK_STR(as_str_from(rest), "");
}

static void test_cancel(void)
{
    fixture test;
    int fd;
    pid_t child, leader;
    begin(&test, 4);
    uint64_t id = start_family(&test, (request){.slot = 2, .path = "/family"}, &fd, &child, &leader);
    CHECK_INT(as_slot_records(test.segment)[2].process, leader);
    send_cancel(&test, 2, id);
    CHECK_INT(receive_end(&test, id), 256 + SIGTERM);
    expect_end_of_pipe(fd);
    wait_until_gone(child);
    CHECK(is_gone(leader));
    CHECK_INT(as_slot_records(test.segment)[2].process, 0);
    send_cancel(&test, 2, id); /* once more is not an error */
    expect_no_event(&test);
    /* Without a frame, because the queue is not read at the limit: see test_limit(). */
    end_of_queue(&test);
}

static void test_group_after_exit(void)
{
    fixture test;
    char out[256];
    begin(&test, 4);
    CHECK_INT(run_to_end(&test, (request){.path = "/left-behind"}, out, sizeof(out)), 0);
    pid_t child = atoi(strstr(out, "\n\n") + 2);
    CHECK(child > 0);
    CHECK_INT(run_to_end(&test, (request){.path = "/holds-stdout"}, out, sizeof(out)), 0);
    pid_t other = atoi(strstr(out, "\n\n") + 2);
    /* The signals have been sent before `end`. */
    wait_until_gone(child);
    wait_until_gone(other);
    end_of_queue(&test);
}

static void test_time_limit(void)
{
    fixture test;
    char out[256];
    /* Whether the limit comes before or after the program has got to its grandchild, nothing that holds the pipe may be left. It counts from the
     * start, not from the last moment at which the program could have been started. */
    for (uint32_t i = 0; i < 3; i++) {
        begin_with(&test, 4, 100 * i + 20);
        CHECK_INT(run_to_end(&test, (request){.path = "/family", .limit_ms = 1000 * GIVE_UP_S}, out, sizeof(out)),
                  256 + SIGTERM);
        expect_event(&test, AS_EVENT_WARNING, "/family: killed at its time limit");
        expect_no_event(&test);
        end_of_queue(&test);
    }
    /* Without a limit from the start that moment is its end. */
    begin(&test, 4);
    CHECK_INT(run_to_end(&test, (request){.path = "/family", .limit_ms = 4000}, out, sizeof(out)), 256 + SIGTERM);
    expect_event(&test, AS_EVENT_WARNING, "/family: killed at its time limit");
    end_of_queue(&test);
}

/* A program that does not listen to SIGTERM. */
static void test_grace(void)
{
    fixture test;
    char line[64];
    begin(&test, 4);
    uint64_t id = send_request(&test, &(request){.path = "/stubborn"});
    int fd = receive_document(&test, id);
    for (int i = 0; i < 3; i++)
        read_line(fd, line, sizeof(line));
    pid_t leader = atoi(line);
    CHECK(leader > 0);
    send_cancel(&test, 0, id);
    CHECK_INT(receive_end(&test, id), 256 + SIGKILL);
    CHECK(is_gone(leader));
    expect_end_of_pipe(fd);
    expect_no_event(&test);
    end_of_queue(&test);
}

static void test_stderr(void)
{
    fixture test;
    char out[256];
    static const char *const lines[] = {"/errors\tone", "/errors\ttwo", "/errors\tthree"};
    begin(&test, 4);
    run_to_end(&test, (request){.path = "/errors"}, out, sizeof(out));
    for (size_t i = 0; i < AS_COUNT_OF(lines); i++) {
        as_event event = next_event(&test);
        CHECK_INT(event.kind, AS_EVENT_PROGRAM_STDERR);
        CHECK_INT(event.request_id, test.last_id + 0x1000);
        CHECK_STR(as_str_from(event.text), lines[i]);
    }
    CHECK_INT(run_to_end(&test, (request){.path = "/flood"}, out, sizeof(out)), 0);
    for (int i = 0; i < AS_STDERR_MAX_LINES; i++)
        expect_event(&test, AS_EVENT_PROGRAM_STDERR, "/flood\ta line of no use");
    expect_event(&test, AS_EVENT_WARNING, "99800 lines");
    expect_no_event(&test);
    end_of_queue(&test);
}

/* A log that is not read: what is lost is counted and told. */
static void test_full_log(void)
{
    fixture test;
    char out[256];
    begin(&test, 4);
    for (int i = 0; i < 2; i++)
        run_to_end(&test, (request){.path = "/flood"}, out, sizeof(out));
    for (int i = 0; i < 256; i++)
        next_event(&test);
    expect_no_event(&test);
    run_to_end(&test, (request){.path = "/hello"}, out, sizeof(out));
    expect_event(&test, AS_EVENT_WARNING, "faster than the log was read");
    expect_no_event(&test);
    end_of_queue(&test);
}

static bool queue_is_empty(const fixture *test)
{
    char byte;
    return recv(test->queue[1], &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static bool answer_is_there(const fixture *test)
{
    char byte;
    return left[0].at < left[0].len || recv(test->answers[0][0], &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

static void test_limit(void)
{
    fixture test;
    int fds[2];
    pid_t children[2], leaders[2];
    uint64_t ids[3];
    begin(&test, 2);
    for (int i = 0; i < 2; i++)
        ids[i] =
            start_family(&test, (request){.slot = (uint32_t)i, .path = "/family"}, &fds[i], &children[i], &leaders[i]);
    ids[2] = send_request(&test, &(request){.slot = 2, .path = "/hello"});
    send_cancel(&test, 0, ids[0]);
    CHECK(!queue_is_empty(&test)); /* both frames: they wait in the kernel */
    CHECK(!answer_is_there(&test));
    CHECK_INT(as_slot_records(test.segment)[2].state, AS_SLOT_QUEUED);
    /* The cancel frame waits behind the request; the slot's flag is seen all the same. */
    AS_SLOT_STORE(&as_slot_records(test.segment)[1], cancelled, 1);
    CHECK_INT(receive_end(&test, ids[1]), 256 + SIGTERM);
    int fd = receive_document(&test, ids[2]);
    uint64_t first = receive_answer(&test, 0).head.request_id;
    uint64_t second = receive_answer(&test, 0).head.request_id;
    CHECK((first == ids[0] && second == ids[2]) || (first == ids[2] && second == ids[0]));
    CHECK(queue_is_empty(&test));
    close(fd);
    close(fds[0]);
    close(fds[1]);
    end_of_queue(&test);
}

/* Several frames in one datagram: all are marked at once, those without a place wait inside, a cancelled one among them is skipped. */
static void test_batch(void)
{
    static char bytes[AS_DATAGRAM_MAX];
    fixture test;
    size_t len = 0;
    begin(&test, 1);
    len += put_request(&test, &(request){.slot = 0, .path = "/waits"}, bytes + len);
    len += put_request(&test, &(request){.slot = 1, .path = "/hello"}, bytes + len);
    len += put_request(&test, &(request){.slot = 2, .path = "/hello"}, bytes + len);
    uint64_t first = test.last_id - 2;
    send_bytes(&test, bytes, len, -1);
    int fd = receive_document(&test, first);
    for (int i = 0; i < 3; i++)
        CHECK_INT(AS_SLOT_LOAD_STATE(&as_slot_records(test.segment)[i]), AS_SLOT_RUNNING);
    CHECK(!answer_is_there(&test));
    AS_SLOT_STORE(&as_slot_records(test.segment)[1], cancelled, 1);
    char path[256], out[256];
    snprintf(path, sizeof(path), "%s/wake", root);
    int wake_fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(write(wake_fd, "go\n", 3) == 3);
    close(wake_fd);
    CHECK_INT(receive_end(&test, first), 0);
    read_all(fd, out, sizeof(out));
    CHECK(strstr(out, "\ngo\n") != NULL);
    answer got = receive_answer(&test, 0);
    CHECK_INT(got.head.kind, AS_ANSWER_SKIPPED);
    CHECK_INT(got.head.request_id, first + 1);
    close(receive_document(&test, first + 2));
    receive_end(&test, first + 2);
    end_of_queue(&test);
}

static void test_stale(void)
{
    fixture test;
    begin(&test, 4);
    uint64_t id = (uint64_t)(GENERATION - 1) << 48 | 5;
    send_request(&test, &(request){.slot = 1, .path = "/hello", .id = id});
    answer got = receive_answer(&test, 0);
    CHECK_INT(got.head.kind, AS_ANSWER_SKIPPED);
    CHECK_INT(got.head.request_id, id);
    CHECK_INT(as_slot_records(test.segment)[1].state, AS_SLOT_QUEUED); /* the slot is the new core's */
    send_request(&test, &(request){.path = "/hello", .limit_ms = -1});
    CHECK_INT(receive_answer(&test, 0).head.status, 504);
    end_of_queue(&test);
}

/* The core takes whoever received it for dead: its slot is another one's. */
static void test_given_up(void)
{
    fixture test;
    begin(&test, 4);
    static char bytes[AS_DATAGRAM_MAX];
    size_t len = put_request(&test, &(request){.slot = 1, .path = "/hello"}, bytes);
    uint64_t id = test.last_id;
    as_slot *slot = &as_slot_records(test.segment)[1];
    AS_SLOT_STORE(slot, request_id, id + 1000);
    send_bytes(&test, bytes, len, -1);
    answer got = receive_answer(&test, 0);
    CHECK_INT(got.head.kind, AS_ANSWER_SKIPPED);
    CHECK_INT(got.head.request_id, id);
    CHECK_INT(AS_SLOT_LOAD_STATE(slot), AS_SLOT_QUEUED);
    end_of_queue(&test);
}

/* A core that does not read its answers: they wait, no request is taken meanwhile, none is lost and their order stays. */
static void test_full_answer_socket(void)
{
    enum { REQUESTS = 2000 };
    fixture test;
    begin(&test, 4);
    int size = 4096;
    setsockopt(test.answers[0][1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    int sent = 0;
    uint64_t next = test.last_id + 1;
    for (int received = 0; received < REQUESTS; received++) {
        static char bytes[AS_DATAGRAM_MAX];
        while (sent < REQUESTS && sent < received + 200) {
            size_t len = put_request(&test, &(request){.slot = (uint32_t)sent % SLOTS, .path = "/nothing"}, bytes);
            if (send(test.queue[0], bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
                test.last_id--;
                break;
            }
            sent++;
        }
        answer got = receive_answer(&test, 0);
        CHECK_INT(got.head.status, 404);
        CHECK_INT(got.head.request_id, next++);
    }
    end_of_queue(&test);
}

static void test_malformed(void)
{
    static char bytes[AS_DATAGRAM_MAX];
    for (int kind = 0; kind < 4; kind++) {
        fixture test;
        int fd;
        pid_t child, leader;
        begin(&test, 4);
        uint64_t id = start_family(&test, (request){.path = "/family"}, &fd, &child, &leader);
        size_t len = put_request(&test, &(request){.slot = 1, .path = "/hello"}, bytes);
        if (kind == 0)
            bytes[4] = 9; /* version */
        else if (kind == 1)
            bytes[11] = 1; /* far beyond SLOTS */
        else if (kind == 2)
            bytes[36] = AS_REQUEST_BODY_FD; /* and no descriptor */
        else
            bytes[AS_REQUEST_HEAD_LEN] = '\0'; /* a variable without a name */
        send_bytes(&test, bytes, len, -1);
        CHECK_INT(receive_end(&test, id), 256 + SIGKILL);
        close(fd);
        finish(&test, AS_EBADFRAME);
    }
}

static void test_stop(void)
{
    fixture test;
    int fd;
    pid_t child, leader;
    char out[256], path[256];
    begin(&test, 4);
    uint64_t id = send_request(&test, &(request){.path = "/waits"});
    fd = receive_document(&test, id);
    as_spawner_stop(test.spawner);
    snprintf(path, sizeof(path), "%s/wake", root);
    int wake_fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(write(wake_fd, "finished\n", 9) == 9);
    close(wake_fd);
    read_all(fd, out, sizeof(out));
    CHECK(strstr(out, "\nfinished\n") != NULL);
    CHECK_INT(receive_end(&test, id), 0);
    finish(&test, AS_OK);

    begin(&test, 1);
    id = start_family(&test, (request){.path = "/family"}, &fd, &child, &leader);
    as_spawner_stop(test.spawner);
    as_spawner_stop(test.spawner);
    CHECK_INT(receive_end(&test, id), 256 + SIGKILL);
    expect_end_of_pipe(fd);
    wait_until_gone(child);
    CHECK(is_gone(leader));
    finish(&test, AS_OK);

    begin(&test, 1);
    as_spawner_stop(test.spawner);
    finish(&test, AS_OK);
}

static void test_options(void)
{
    fixture test;
    int answer_fds[LOOPS];
    prepare(&test);
    as_spawner_options options = options_of(&test, answer_fds, 0);
    CHECK(as_spawner_new(&options) == NULL && errno == EINVAL);
    options.max_programs = 1;
    options.loops = 0;
    CHECK(as_spawner_new(&options) == NULL && errno == EINVAL);
    options.loops = LOOPS;
    options.slots_fd = -1;
    CHECK(as_spawner_new(&options) == NULL && errno == EBADF);
    options.slots_fd = test.slots_fd;
    test.segment->magic = 0;
    CHECK(as_spawner_new(&options) == NULL && errno == EINVAL);
    test.segment->magic = AS_SLOT_MAGIC;
    test.segment->slots = SLOTS + 1;
    CHECK(as_spawner_new(&options) == NULL && errno == EINVAL);
    test.segment->slots = SLOTS;
    options.environment = options.interpreters = NULL;
    as_spawner *spawner = as_spawner_new(&options);
    CHECK(spawner != NULL);
    as_spawner_free(spawner);
    release(&test);
}

static int count_fds(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

int main(void)
{
    static void (*const tests[])(void) = {
        test_hello,
        test_environment,
        test_body,
        test_clean_start,
        test_refused,
        test_interpreter,
        test_exit,
        test_cancel,
        test_group_after_exit,
        test_time_limit,
        test_grace,
        test_stderr,
        test_full_log,
        test_limit,
        test_batch,
        test_stale,
        test_full_answer_socket,
        test_malformed,
        test_stop,
        test_options,
    };
    write_scripts();
    int before = count_fds();
    for (size_t i = 0; i < AS_COUNT_OF(tests); i++) {
        tests[i]();
        CHECK_INT(count_fds(), before);
    }
    CHECK(nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
    return check_result("spawner");
}
