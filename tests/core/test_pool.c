/* with: base/memory.c base/buf.c base/error.c loop/loop.c report/event.c base/scan.c http/head.c http/response_head.c http/conditional.c http/date.c handler/frame.c handler/environment.c report/incident.c handler/fingerprint.c handler/lane.c handler/shared_buffer.c handler/pool_death.c handler/pool_incident.c handler/quarantine.c handler/pool_answer.c handler/pool_document.c */
/* Requests into the pool and answers out of it; programs' documents have a test of their own. */
#include "handler/pool.c"

#include "pool_fixture.h"

static void test_plain_answer(void)
{
    open_lane(NULL, 1);
    visitor *v = get("/a");
    as_request_frame frame = receive_request();
    CHECK_INT(frame.head.loop, 0);
    CHECK_INT(frame.head.request_id >> 48, GENERATION);
    CHECK_INT(AS_SLOT_LOAD(lane->segment, generation), GENERATION);
    CHECK(frame.head.deadline_ns == AS_SLOT_LOAD(slot_of_frame(&frame), deadline_ns) && frame.head.deadline_ns > 0);
    CHECK(memmem(frame.environment.ptr, frame.environment.len, "PATH_INFO\0/a", 13) != NULL);
    send_answer(&frame, AS_ANSWER_RESPONSE, 201, "X-A: b\r\nConnection: close\r\n", "hello");
    turn();
    CHECK_INT(v->responses, 1);
    CHECK_INT(v->request.response.status, 201);
    CHECK_STR(v->request.response.fields, "X-A: b\r\n");
    CHECK_STR(v->request.response.body.memory, "hello");
    CHECK_INT(v->request.response.body.kind, AS_BODY_MEMORY);
    CHECK_INT(v->request.run_ns, 20000);
    CHECK_INT(v->request.cpu_us, 15);
    CHECK(v->request.queue_ns >= 0);
    CHECK(v->request.handler_state == NULL);
    CHECK_INT(AS_SLOT_LOAD_STATE(slot_of_frame(&frame)), AS_SLOT_FREE);
    CHECK_INT(pool_counters.dispatched, 1);
    CHECK_INT(pool_counters.waiting, 0);
    visitor_free(v);
    close_lane();
}

static void test_bodies(void)
{
    open_lane(NULL, 4);
    visitor *v = visitor_new(AS_METHOD_POST, "POST", "/");
    v->request.body.memory = AS_STR("field=value");
    v->request.body.length = 11;
    CHECK_INT(handler->ops->handle(handler, &v->request), AS_VERDICT_PENDING);
    as_request_frame frame = receive_request();
    CHECK_STR(frame.body, "field=value");
    CHECK_INT(frame.head.flags, 0);

    visitor *large = visitor_new(AS_METHOD_POST, "POST", "/");
    large->request.body.fd = memfd_create("body", MFD_CLOEXEC);
    large->request.body.length = 4;
    CHECK_INT(write(large->request.body.fd, "abcd", 4), 4); /* leaves the offset at the end */
    CHECK_INT(handler->ops->handle(handler, &large->request), AS_VERDICT_PENDING);
    delivery got;
    CHECK(receive_requests(&got) && got.count == 1 && got.fd >= 0);
    CHECK_INT(got.frames[0].head.flags, AS_REQUEST_BODY_FD);
    CHECK_INT(got.frames[0].head.body_len, 4);
    char text[8];
    CHECK_INT(read(got.fd, text, sizeof(text)), 4);
    close(got.fd);
    visitor_free(v);
    visitor_free(large);
    close_lane();
}

/* Busy executors: what comes in one turn goes together at its end. */
static void test_batch(void)
{
    open_lane(NULL, 1);
    lane->run_ns = 50000; /* twenty of those fit into a batch */
    visitor *v[10];
    for (int i = 0; i < 10; i++)
        v[i] = get("/");
    as_request_frame alone = receive_request(); /* at once, and alone */
    CHECK(queue_has_nothing());
    CHECK_INT(pool_counters.waiting, 9);
    turn();
    delivery got;
    CHECK(receive_requests(&got));
    CHECK_INT(got.count, 9);
    CHECK(queue_has_nothing());
    CHECK_INT(pool_counters.waiting, 0);
    char out[4096];
    size_t len = put_answer(out, &alone, AS_ANSWER_RESPONSE, 200, "", "x");
    for (int i = 0; i < got.count; i++) {
        mark(&got.frames[i], EXECUTOR);
        len += put_answer(out + len, &got.frames[i], AS_ANSWER_RESPONSE, 200, "A: b\r\n", "y");
    }
    send_bytes(out, len, NULL, 0);
    turn();
    CHECK_INT(lane->sent, 0);
    for (int i = 0; i < 10; i++) {
        CHECK_INT(v[i]->responses, 1);
        visitor_free(v[i]);
    }
    close_lane();
}

/* An event loop holds many and runs one: only what comes while it is free goes alone, and many may be held. */
static void test_batch_for_an_event_loop(void)
{
    open_lane(NULL, 100);
    as_lane_set_at_once(lane, 1);
    lane->run_ns = 50000;
    visitor *v[30];
    for (int i = 0; i < 30; i++)
        v[i] = get("/");
    receive_request();
    CHECK(queue_has_nothing());
    turn();
    delivery got;
    CHECK(receive_requests(&got));
    CHECK_INT(got.count, 20);
    CHECK(receive_requests(&got));
    CHECK_INT(got.count, 9);
    CHECK_INT(lane->sent, 30);
    for (int i = 0; i < 30; i++)
        visitor_free(v[i]);
    close_lane();

    open_lane(NULL, 100);
    as_lane_set_at_once(lane, 1);
    lane->run_ns = 50 * AS_NS_PER_MS; /* they wait for something: all are sent, each alone */
    for (int i = 0; i < 30; i++)
        v[i] = get("/");
    turn();
    int datagrams = 0;
    for (; receive_requests(&got); datagrams++)
        CHECK_INT(got.count, 1);
    CHECK_INT(datagrams, 30);
    for (int i = 0; i < 30; i++)
        visitor_free(v[i]);
    close_lane();
}

/* A slow pool: one by one, and the kernel's queue stays short. */
static void test_slow_runs_are_not_batched(void)
{
    open_lane(NULL, 2);
    lane->run_ns = 5 * AS_NS_PER_MS;
    visitor *v[20];
    for (int i = 0; i < 20; i++)
        v[i] = get("/");
    turn();
    delivery got;
    int datagrams = 0;
    while (receive_requests(&got)) {
        CHECK_INT(got.count, 1);
        datagrams++;
    }
    CHECK_INT(datagrams, 3 * 2 + 1);
    CHECK_INT(lane->waiting_len, 13);
    for (int i = 0; i < 20; i++)
        visitor_free(v[i]);
    close_lane();
}

static void test_run_time_is_learnt(void)
{
    open_lane(NULL, 1);
    CHECK_INT(batch_limit(lane), 1);
    for (int i = 0; i < 100; i++) {
        visitor *v = get("/");
        as_request_frame frame = receive_request();
        send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "x");
        turn();
        visitor_free(v);
    }
    CHECK_INT(batch_limit(lane), AS_LANE_MAX_BATCH);
    close_lane();
}

static void test_file_answer(void)
{
    open_lane(NULL, 1);
    int before = open_descriptors();
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    send_answer_fd(&frame, AS_ANSWER_FILE, 200, "A: b\r\n", 100, 7, memfd_create("file", MFD_CLOEXEC));
    turn();
    CHECK_INT(v->responses, 1);
    CHECK_INT(v->request.response.body.kind, AS_BODY_FILE);
    CHECK_INT(v->request.response.body.offset, 7);
    CHECK_INT(v->request.response.body.length, 100);
    visitor_free(v);
    CHECK_INT(open_descriptors(), before);
    close_lane();
}

/* A buffer as an executor lends it; its first word says so. */
static uint32_t *make_buffer(int *fd, const char *text, unsigned seals)
{
    *fd = memfd_create("buffer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    size_t size = AS_SHARED_BUFFER_HEAD + 8192;
    CHECK(*fd >= 0 && ftruncate(*fd, (off_t)size) == 0 && fcntl(*fd, F_ADD_SEALS, seals) == 0);
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    CHECK(memory != MAP_FAILED);
    memcpy(memory + AS_SHARED_BUFFER_HEAD, text, strlen(text));
    uint32_t *state = (uint32_t *)(void *)memory;
    *state = 1;
    return state;
}

static void drop_buffer(uint32_t *state)
{
    munmap(state, AS_SHARED_BUFFER_HEAD + 8192);
}

static void send_lent(const as_request_frame *to, const char *fields, uint64_t offset, uint64_t length, int fd)
{
    send_flagged_fd(to, AS_ANSWER_FILE, 200, fields, length, offset, dup(fd), AS_FILE_LENT);
}

static void test_lent_buffer(void)
{
    open_lane(NULL, 1);
    int fd;
    int before = open_descriptors();
    uint32_t *state = make_buffer(&fd, "hello", F_SEAL_SHRINK);
    for (int i = 0; i < 2; i++) {
        *state = 1;
        visitor *v = get("/");
        as_request_frame frame = receive_request();
        send_lent(&frame, "A: b\r\n", AS_SHARED_BUFFER_HEAD, 5, fd);
        turn();
        CHECK_INT(v->responses, 1);
        CHECK_INT(v->request.response.body.kind, AS_BODY_MEMORY);
        CHECK_STR(v->request.response.body.memory, "hello");
        CHECK_INT(lane->buffers.count, 1);
        CHECK_INT(*state, 1);
        visitor_free(v);
        CHECK_INT(*state, 0);
    }
    drop_buffer(state);
    close(fd);
    CHECK_INT(open_descriptors(), before);
    close_lane();
}

/* Bodies outlive the lane, and their buffer is given back all the same. */
static void test_lent_buffer_outlives_lane(void)
{
    open_lane(NULL, 1);
    int fd;
    uint32_t *state = make_buffer(&fd, "hello", F_SEAL_SHRINK);
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    send_lent(&frame, "", AS_SHARED_BUFFER_HEAD, 5, fd);
    turn();
    as_body body = v->request.response.body;
    v->request.response.body = (as_body){.kind = AS_BODY_NONE, .fd = -1};
    visitor_free(v);
    close_lane();
    CHECK_STR(body.memory, "hello");
    CHECK_INT(*state, 1);
    body.release(&body);
    CHECK_INT(*state, 0);
    drop_buffer(state);
    close(fd);
}

/* What is no buffer, or not as large as is said: 502, and whatever it is it is not kept. */
static void test_lent_buffer_is_checked(void)
{
    static const struct {
        uint64_t offset, length;
        unsigned seals;
        bool is_bad_head;
    } cases[] = {
        {AS_SHARED_BUFFER_HEAD, 8193, F_SEAL_SHRINK, false},
        {AS_SHARED_BUFFER_HEAD - 1, 1, F_SEAL_SHRINK, false},
        {INT64_MAX, INT64_MAX, F_SEAL_SHRINK, false},
        {AS_SHARED_BUFFER_HEAD, 5, F_SEAL_GROW, false}, /* it could be cut under us */
        {AS_SHARED_BUFFER_HEAD, 5, F_SEAL_SHRINK, true},
    };
    for (size_t i = 0; i < AS_COUNT_OF(cases); i++) {
        open_lane(NULL, 1);
        int fd;
        int before = open_descriptors();
        uint32_t *state = make_buffer(&fd, "hello", cases[i].seals);
        visitor *v = get("/");
        as_request_frame frame = receive_request();
        send_lent(&frame, cases[i].is_bad_head ? "a b: c\r\n" : "", cases[i].offset, cases[i].length, fd);
        turn();
        CHECK_INT(v->responses, 0);
        CHECK_INT(v->error_status, 502);
        CHECK_INT(*state, 0);
        visitor_free(v);
        drop_buffer(state);
        close(fd);
        CHECK_INT(open_descriptors(), before);
        close_lane();
    }
}

static void test_stream(int end_status)
{
    open_lane(NULL, 1);
    int before = open_descriptors();
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    send_answer_fd(&frame, AS_ANSWER_STREAM, 200, "A: b\r\n", AS_STREAM_UNKNOWN, 0, ends[0]);
    turn();
    CHECK_INT(v->responses, 1);
    CHECK_INT(v->request.response.body.kind, AS_BODY_PIPE);
    CHECK_INT(v->request.response.body.length, -1);
    CHECK(!v->request.response.body.ends_at_eof);
    CHECK(fcntl(v->request.response.body.fd, F_GETFL) & O_NONBLOCK);
    CHECK(v->request.handler_state != NULL);
    CHECK_INT(v->ends, 0);
    send_end(&frame, end_status);
    turn();
    CHECK_INT(v->ends, 1);
    CHECK_INT(v->complete, end_status == 0);
    CHECK(v->request.handler_state == NULL);
    CHECK_INT(lane->sent, 0);
    close(ends[1]);
    visitor_free(v);
    CHECK_INT(open_descriptors(), before);
    close_lane();
}

static void test_head_request(void)
{
    open_lane(NULL, 1);
    visitor *v = send_request(AS_METHOD_HEAD, "HEAD", "/");
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "Content-Length: 77\r\n", "");
    turn();
    CHECK_INT(v->request.response.body.length, 77);
    visitor_free(v);
    v = send_request(AS_METHOD_HEAD, "HEAD", "/");
    frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "A: b\r\n", "");
    turn();
    CHECK_INT(v->request.response.body.kind, AS_BODY_NONE);
    visitor_free(v);
    close_lane();
}

static void test_bare_error_gets_a_page(void)
{
    open_lane(NULL, 1);
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 404, "", "");
    turn();
    CHECK_INT(v->error_status, 404);
    visitor_free(v);
    close_lane();
}

static void test_malformed_header_block(void)
{
    open_lane(NULL, 1);
    int before = open_descriptors();
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "no colon\r\n", "x");
    turn();
    CHECK_INT(v->error_status, 502);
    CHECK(event_seen(AS_EVENT_ERROR, "malformed header block"));
    CHECK_INT(lane->sent, 0);
    visitor_free(v);
    v = get("/");
    frame = receive_request();
    send_answer_fd(&frame, AS_ANSWER_FILE, 200, "a b: c\r\n", 1, 0, memfd_create("file", MFD_CLOEXEC));
    turn();
    CHECK_INT(v->error_status, 502);
    visitor_free(v);
    /* of a stream the end is still to come */
    v = get("/");
    frame = receive_request();
    send_answer_fd(&frame, AS_ANSWER_STREAM, 200, "a b: c\r\n", 1, 0, memfd_create("file", MFD_CLOEXEC));
    turn();
    CHECK_INT(v->error_status, 502);
    CHECK_INT(lane->sent, 1);
    CHECK_INT(AS_SLOT_LOAD(slot_of_frame(&frame), cancelled), 1);
    send_end(&frame, 1);
    turn();
    CHECK_INT(lane->sent, 0);
    visitor_free(v);
    CHECK_INT(open_descriptors(), before);
    close_lane();
}

static void test_stale_answers(void)
{
    open_lane(NULL, 1);
    int before = open_descriptors();
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    as_request_frame stale = frame;
    stale.head.request_id ^= 1;
    send_answer(&stale, AS_ANSWER_RESPONSE, 200, "", "wrong");
    stale = frame;
    stale.head.slot++;
    send_answer(&stale, AS_ANSWER_RESPONSE, 200, "", "wrong");
    stale.head.slot = SLOTS;
    send_answer(&stale, AS_ANSWER_RESPONSE, 200, "", "wrong");
    stale.head.slot = UINT32_MAX;
    send_answer_fd(&stale, AS_ANSWER_FILE, 200, "", 5, 0, memfd_create("file", MFD_CLOEXEC));
    turn();
    CHECK_INT(v->responses + v->errors, 0);
    CHECK_INT(open_descriptors(), before);
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "right");
    turn();
    CHECK_STR(v->request.response.body.memory, "right");
    visitor_free(v);
    close_lane();
}

static void test_malformed_frames(void)
{
    open_lane(NULL, 4);
    int before = open_descriptors();
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    char out[256];
    /* noise names nobody */
    send_bytes("noise", 5, NULL, 0);
    int fds[3] = {memfd_create("a", 0), memfd_create("b", 0), memfd_create("c", 0)};
    send_bytes("noise", 5, fds, 3);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    turn();
    CHECK(event_seen(AS_EVENT_ERROR, "malformed answer"));
    CHECK_INT(v->errors, 0);
    CHECK_INT(open_descriptors(), before);
    /* a frame with a good head fails its request at once; what is behind it is dropped */
    visitor *second = get("/");
    as_request_frame second_frame = receive_request();
    size_t len = put_answer(out, &frame, AS_ANSWER_RESPONSE, 200, "", "x");
    uint32_t wrong = 1000;
    memcpy(out, &wrong, sizeof(wrong));
    len += put_answer(out + len, &second_frame, AS_ANSWER_RESPONSE, 200, "", "x");
    send_bytes(out, len, NULL, 0);
    turn();
    CHECK_INT(v->error_status, 502);
    CHECK_INT(second->responses, 0);
    CHECK(event_seen(AS_EVENT_ERROR, "executor 11"));
    visitor_free(v);
    /* a kind that needs a descriptor without one, and the reverse */
    send_answer(&second_frame, AS_ANSWER_STREAM, 200, "", "");
    turn();
    CHECK_INT(second->error_status, 502);
    visitor_free(second);
    v = get("/");
    frame = receive_request();
    send_answer_fd(&frame, AS_ANSWER_RESPONSE, 200, "", 0, 0, memfd_create("file", MFD_CLOEXEC));
    turn();
    CHECK_INT(v->error_status, 502);
    visitor_free(v);
    /* an end that ends nothing */
    v = get("/");
    frame = receive_request();
    send_end(&frame, 0);
    turn();
    CHECK_INT(v->error_status, 502);
    visitor_free(v);
    CHECK_INT(lane->sent, 0);
    CHECK_INT(open_descriptors(), before);
    close_lane();
}

static void short_queue_time(as_pool_options *options)
{
    options->queue_time_ms = 1;
}

static void test_skipped(void)
{
    open_lane(NULL, 1);
    visitor *v = send_request(AS_METHOD_POST, "POST", "/");
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_SKIPPED, 0, "", "");
    turn();
    CHECK_INT(v->errors, 0);      /* it was not run, so it may be run elsewhere, also a POST */
    for (int i = 0; i < 5; i++) { /* as many as are about to stop may hand it back */
        frame = receive_request();
        send_answer(&frame, AS_ANSWER_SKIPPED, 0, "", "");
        turn();
    }
    frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "good");
    turn();
    CHECK_INT(v->errors, 0);
    CHECK_INT(v->responses, 1);
    CHECK_INT(pool_counters.retried, 0);
    visitor_free(v);
    close_lane();
}

static void test_skipped_for_ever(void)
{
    open_lane(short_queue_time, 1);
    visitor *v = get("/");
    while (v->errors == 0) {
        delivery got;
        if (receive_requests(&got))
            send_answer(&got.frames[0], AS_ANSWER_SKIPPED, 0, "", "");
        turn();
    }
    CHECK_INT(v->error_status, 503);
    visitor_free(v);
    delivery got;
    while (receive_requests(&got))
        send_answer(&got.frames[0], AS_ANSWER_SKIPPED, 0, "", "");
    turn();
    CHECK_INT(lane->sent, 0);
    close_lane();
}

static void short_queue(as_pool_options *options)
{
    options->queue_limit = 3;
}

static void test_queue_full(void)
{
    open_lane(short_queue, 1);
    visitor *v[4];
    for (int i = 0; i < 4; i++)
        v[i] = get("/");
    visitor *refused = visitor_new(AS_METHOD_GET, "GET", "/");
    CHECK_INT(handler->ops->handle(handler, &refused->request), AS_VERDICT_ERROR);
    CHECK_INT(refused->request.response.status, 503);
    CHECK(strcmp(refused->extra, "Retry-After: 1\r\n") == 0);
    CHECK(event_seen(AS_EVENT_WARNING, "full"));
    visitor_free(refused);
    for (int i = 0; i < 4; i++)
        visitor_free(v[i]);
    close_lane();
}

static void test_queue_time(void)
{
    open_lane(short_queue_time, 1);
    visitor *v[8];
    for (int i = 0; i < 8; i++)
        v[i] = get("/");
    turn();
    await(&v[7]->errors);
    for (int i = 0; i < 8; i++) {
        CHECK_INT(v[i]->error_status, 503);
        CHECK(strcmp(v[i]->extra, "Retry-After: 1\r\n") == 0);
        visitor_free(v[i]);
    }
    CHECK_INT(lane->waiting_len, 0);
    /* those that were sent already hold their slots until the executor has seen that nobody wants them */
    CHECK_INT(lane->sent, 4);
    delivery got;
    while (receive_requests(&got)) {
        CHECK_INT(AS_SLOT_LOAD(slot_of_frame(&got.frames[0]), cancelled), 1);
        send_answer(&got.frames[0], AS_ANSWER_SKIPPED, 0, "", "");
    }
    turn();
    CHECK_INT(lane->sent, 0);
    close_lane();
}

static void short_request_time(as_pool_options *options)
{
    options->request_time_ms = 1;
}

static void test_request_time(void)
{
    open_lane(short_request_time, 1);
    visitor *v = get("/slow");
    visitor *queued = get("/");
    turn();
    as_request_frame frame = receive_request();
    await(&v->errors);
    CHECK_INT(v->error_status, 504);
    CHECK_INT(queued->errors, 0); /* its run has not begun */
    as_event event;
    CHECK(as_event_next(events, &event));
    CHECK_INT(event.kind, AS_EVENT_EXECUTOR_STUCK);
    CHECK_INT(event.executor, EXECUTOR);
    CHECK(event.request_id == v->request.id);
    CHECK_INT(event.slot, frame.head.slot);
    CHECK(event.wire_id == frame.head.request_id);
    as_incident incident;
    CHECK(as_incidents_next(incidents, &incident));
    CHECK_INT(incident.cause, AS_INCIDENT_TIMEOUT);
    CHECK_INT(incident.outcome, 504);
    CHECK_INT(incident.executor, EXECUTOR);
    close(incident.fd);
    CHECK_INT(AS_SLOT_LOAD(slot_of_frame(&frame), cancelled), 1);
    CHECK_INT(lane->sent, 2);
    visitor_free(v);
    executor_died(EXECUTOR);
    CHECK_INT(lane->sent, 1);
    frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "x");
    turn();
    CHECK_INT(queued->responses, 1);
    visitor_free(queued);
    close_lane();
}

static void test_abandon(void)
{
    open_lane(NULL, 1);
    visitor *v[6];
    for (int i = 0; i < 6; i++)
        v[i] = get("/");
    turn();
    CHECK_INT(lane->waiting_len, 2);
    as_request_frame frame = receive_request();
    for (int i = 0; i < 6; i++)
        visitor_free(v[i]);
    CHECK_INT(lane->waiting_len, 0);
    CHECK_INT(lane->sent, 4);
    CHECK_INT(AS_SLOT_LOAD(slot_of_frame(&frame), cancelled), 1);
    int before = open_descriptors();
    send_answer_fd(&frame, AS_ANSWER_FILE, 200, "", 1, 0, memfd_create("file", MFD_CLOEXEC));
    turn();
    CHECK_INT(lane->sent, 3);
    CHECK_INT(open_descriptors(), before);
    close_lane();
}

static void with_cancel(as_pool_options *options)
{
    options->cancel = true;
}

static void test_abandon_sends_cancel(void)
{
    open_lane(with_cancel, 1);
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    visitor_free(v);
    delivery got;
    CHECK(receive_requests(&got) && got.count == 1);
    CHECK_INT(got.frames[0].head.kind, AS_REQUEST_CANCEL);
    CHECK_INT(got.frames[0].head.slot, frame.head.slot);
    CHECK(got.frames[0].head.request_id == frame.head.request_id);
    send_answer(&frame, AS_ANSWER_SKIPPED, 0, "", "");
    turn();
    CHECK_INT(lane->sent, 0);
    close_lane();
}

static void test_abandon_while_streaming(void)
{
    open_lane(NULL, 1);
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    int writer = send_stream(&frame);
    turn();
    visitor_free(v);
    CHECK_INT(AS_SLOT_LOAD(slot_of_frame(&frame), cancelled), 1);
    CHECK_INT(lane->sent, 1);
    send_end(&frame, 1);
    turn();
    CHECK_INT(lane->sent, 0);
    close(writer);
    close_lane();
}

/* The kernel's queue takes no more: nothing is lost, and the rest follows. */
static void test_queue_socket_full(void)
{
    open_lane(NULL, 20);
    int small = 4096;
    CHECK(setsockopt(queue[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
    visitor *v[30];
    for (int i = 0; i < 30; i++)
        v[i] = get("/");
    turn();
    CHECK(lane->waiting_len > 0);
    CHECK(lane->sent < 20);
    CHECK(as_timer_is_set(&lane->retry));
    int answered = 0;
    for (int turns = 0; turns < 1000 && answered < 30; turns++) {
        delivery got;
        while (receive_requests(&got)) {
            for (int i = 0; i < got.count; i++) {
                mark(&got.frames[i], EXECUTOR);
                send_answer(&got.frames[i], AS_ANSWER_RESPONSE, 200, "", "x");
                answered++;
            }
        }
        turn();
    }
    turn();
    for (int i = 0; i < 30; i++) {
        CHECK_INT(v[i]->responses, 1);
        visitor_free(v[i]);
    }
    close_lane();
}

static void test_no_slot_left(void)
{
    open_lane(NULL, 1000);
    visitor *v[SLOTS + 1];
    for (int i = 0; i < SLOTS + 1; i++)
        v[i] = get("/");
    turn();
    CHECK_INT(lane->sent, SLOTS);
    CHECK_INT(lane->waiting_len, 1);
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "x");
    turn();
    CHECK_INT(lane->waiting_len, 0);
    for (int i = 0; i < SLOTS + 1; i++)
        visitor_free(v[i]);
    close_lane();
}

static void test_error_pages_do_not_wait(void)
{
    open_lane(NULL, 1);
    visitor *v = visitor_new(AS_METHOD_GET, "GET", "/404.html");
    v->request.error_status = 404;
    CHECK_INT(handler->ops->handle(handler, &v->request), AS_VERDICT_ERROR);
    CHECK_INT(v->request.response.status, 404);
    visitor_free(v);
    close_lane();
}

static void test_head_that_fits_no_datagram(void)
{
    open_lane(NULL, 1);
    visitor *v = visitor_new(AS_METHOD_GET, "GET", "/");
    char *value = as_alloc(AS_DATAGRAM_MAX);
    memset(value, 'x', AS_DATAGRAM_MAX);
    v->request.head.fields[v->request.head.fields_len++] = (as_field){AS_STR("A"), as_str_of(value, AS_DATAGRAM_MAX)};
    handler->ops->handle(handler, &v->request);
    CHECK_INT(v->error_status, 431);
    CHECK_INT(lane->sent, 0);
    visitor_free(v);
    as_free(value);
    close_lane();
}

static void test_capacity_is_shared(void)
{
    open_lane(NULL, 1);
    lane->loops = 4;
    as_lane_set_capacity(lane, 6);
    CHECK_INT(lane->share, 2);
    home.index = 3;
    as_lane_set_capacity(lane, 6);
    CHECK_INT(lane->share, 1);
    CHECK_INT(lane->at_once, 1);
    as_lane_set_capacity(lane, 400);
    CHECK_INT(lane->at_once, 100);
    as_lane_set_at_once(lane, 4);
    CHECK_INT(lane->at_once, 1);
    CHECK_INT(lane->share, 100);
    as_lane_set_at_once(lane, 4000);
    CHECK_INT(lane->at_once, 100);
    as_lane_set_capacity(lane, 0);
    CHECK_INT(lane->share, 1);
    home.index = 0;
    close_lane();
}

static void test_answer_socket_closed(void)
{
    open_lane(NULL, 1);
    close(answers[1]);
    turn();
    CHECK(event_seen(AS_EVENT_ERROR, "closed"));
    CHECK_INT(lane->answers.fd, -1);
    answers[1] = -1;
    close_lane();
}

static void test_segments_that_do_not_fit(void)
{
    CHECK_INT(as_loop_init(&loop), AS_OK);
    home = (as_home){.loop = &loop, .pools = &pool_counters};
    static const size_t offsets[] = {0, 4, 8, 12};
    static const uint32_t values[] = {1, 2, SLOTS + 1, 2};
    int before = open_descriptors();
    for (size_t i = 0; i < AS_COUNT_OF(offsets); i++) {
        make_segment(1);
        open_sockets();
        CHECK(pwrite(slots_fd, &values[i], 4, (off_t)offsets[i]) == 4);
        as_pool_options options = usual_options();
        CHECK(as_lane_new(&home, &options, answers[0], 1) == NULL);
        CHECK_INT(errno, EINVAL);
        close(queue[0]);
        close(queue[1]);
        close(answers[1]);
        close(slots_fd);
    }
    CHECK_INT(open_descriptors(), before);
    as_loop_free(&loop);
}

int main(void)
{
    int before = open_descriptors();
    test_plain_answer();
    test_bodies();
    test_batch();
    test_batch_for_an_event_loop();
    test_slow_runs_are_not_batched();
    test_run_time_is_learnt();
    test_file_answer();
    test_lent_buffer();
    test_lent_buffer_outlives_lane();
    test_lent_buffer_is_checked();
    test_stream(0);
    test_stream(1);
    test_head_request();
    test_bare_error_gets_a_page();
    test_malformed_header_block();
    test_stale_answers();
    test_malformed_frames();
    test_skipped();
    test_skipped_for_ever();
    test_queue_full();
    test_queue_time();
    test_request_time();
    test_abandon();
    test_abandon_sends_cancel();
    test_abandon_while_streaming();
    test_queue_socket_full();
    test_no_slot_left();
    test_error_pages_do_not_wait();
    test_head_that_fits_no_datagram();
    test_capacity_is_shared();
    test_answer_socket_closed();
    test_segments_that_do_not_fit();
    CHECK_INT(open_descriptors(), before);
    return check_result("pool");
}
