/* with: base/memory.c base/buf.c base/error.c loop/loop.c report/event.c base/scan.c http/head.c http/response_head.c http/conditional.c http/date.c handler/frame.c handler/environment.c report/incident.c handler/fingerprint.c handler/lane.c handler/shared_buffer.c handler/pool_death.c handler/pool_incident.c handler/quarantine.c handler/pool_answer.c handler/pool_document.c */
/* Requests whose bodies stream, or that ask for another protocol: what goes with them into the pool, and what comes back. */
#include "handler/pool.c"

#include "pool_fixture.h"

/* Streamed bodies. */

static void open_streaming_lane(void)
{
    open_lane(NULL, 1);
    as_lane_set_streaming(lane, true, true);
}

static visitor *upload(as_method method, const char *method_text, int64_t length)
{
    visitor *v = visitor_new(method, method_text, "/upload");
    v->request.head.content_length = length;
    v->request.head.chunked = length < 0;
    CHECK(handler->ops->streams_body(handler, &v->request));
    v->request.body =
        (as_request_body){.fd = -1, .is_streamed = true, .length = length < 0 ? AS_BODY_UNKNOWN : (uint64_t)length};
    CHECK_INT(handler->ops->handle(handler, &v->request), AS_VERDICT_PENDING);
    return v;
}

/* The next request, which comes with the executor's end of its stream: the caller's. */
static as_request_frame receive_stream(int *fd)
{
    delivery got;
    CHECK(receive_requests(&got));
    CHECK_INT(got.count, 1);
    CHECK_INT(got.frames[0].head.flags, AS_REQUEST_BODY_STREAM);
    CHECK(got.fd >= 0);
    *fd = got.fd;
    mark(&got.frames[0], EXECUTOR);
    return got.frames[0];
}

static void test_which_bodies_stream(void)
{
    open_streaming_lane();
    visitor *v = visitor_new(AS_METHOD_POST, "POST", "/");
    v->request.head.content_length = AS_MAX_INLINE_BODY;
    CHECK(!handler->ops->streams_body(handler, &v->request));
    v->request.head.content_length++;
    CHECK(handler->ops->streams_body(handler, &v->request));
    as_lane_set_streaming(lane, false, false);
    CHECK(!handler->ops->streams_body(handler, &v->request));
    visitor_free(v);
    close_lane();
}

static void test_streamed_body(void)
{
    open_streaming_lane();
    int fd;
    visitor *v = upload(AS_METHOD_POST, "POST", -1);
    as_request_frame frame = receive_stream(&fd);
    CHECK(frame.head.body_len == AS_STREAM_UNKNOWN);
    CHECK(frame.head.deadline_ns == 0);
    CHECK_INT(v->streams, 1);
    CHECK_INT(v->streams_sent, 1);
    close(fd);
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "x");
    turn();
    CHECK_INT(v->responses, 1);
    visitor_free(v);
    /* sent alone, whatever else waits */
    visitor *one = get("/1"), *two = get("/2"), *three = upload(AS_METHOD_POST, "POST", 100000);
    turn();
    delivery got;
    int streams = 0, requests = 0;
    while (receive_requests(&got)) {
        requests += got.count;
        if (got.fd >= 0) {
            CHECK_INT(got.count, 1);
            streams++;
            close(got.fd);
        }
        for (int i = 0; i < got.count; i++) {
            mark(&got.frames[i], EXECUTOR);
            send_answer(&got.frames[i], AS_ANSWER_RESPONSE, 200, "", "x");
        }
        turn();
    }
    CHECK_INT(requests, 3);
    CHECK_INT(streams, 1);
    visitor_free(one);
    visitor_free(two);
    visitor_free(three);
    close_lane();
}

/* The one who leaves is told of by the slot, also while the answer streams. */
static void test_client_of_a_stream_leaves(void)
{
    open_streaming_lane();
    int fd, pipe_fds[2];
    visitor *v = upload(AS_METHOD_POST, "POST", 100000);
    as_request_frame frame = receive_stream(&fd);
    CHECK(pipe2(pipe_fds, O_CLOEXEC) == 0);
    send_answer_fd(&frame, AS_ANSWER_STREAM, 200, "", AS_STREAM_UNKNOWN, 0, pipe_fds[0]);
    turn();
    CHECK_INT(v->responses, 1);
    CHECK(AS_SLOT_LOAD(slot_of_frame(&frame), cancelled) == 0);
    visitor_free(v);
    CHECK(AS_SLOT_LOAD(slot_of_frame(&frame), cancelled) != 0);
    send_end(&frame, 1);
    turn();
    CHECK_INT(AS_SLOT_LOAD_STATE(slot_of_frame(&frame)), AS_SLOT_FREE);
    close(fd);
    close(pipe_fds[1]);
    close_lane();
}

static void test_stream_is_handed_back(void)
{
    open_streaming_lane();
    int fd;
    visitor *v = upload(AS_METHOD_POST, "POST", 100000);
    as_request_frame frame = receive_stream(&fd);
    CHECK_INT(write(v->stream_fd, "body", 4), 4);
    v->is_spent = true;
    send_answer_fd(&frame, AS_ANSWER_SKIPPED, 0, "", 0, 0, fd);
    turn();
    frame = receive_stream(&fd);
    char buf[8];
    CHECK_INT(read(fd, buf, sizeof(buf)), 4);
    CHECK_INT(v->streams, 1);
    CHECK_INT(v->streams_sent, 2);
    /* without it, what was in it is lost */
    send_answer(&frame, AS_ANSWER_SKIPPED, 0, "", "");
    turn();
    CHECK_INT(v->error_status, 503);
    close(fd);
    visitor_free(v);
    close_lane();
}

static void test_stream_of_a_dead_executor(void)
{
    open_streaming_lane();
    int fd;
    visitor *v = upload(AS_METHOD_PUT, "PUT", 100000);
    receive_stream(&fd);
    close(fd);
    as_lane_executor_died(lane, EXECUTOR, 0);
    turn();
    as_request_frame frame = receive_stream(&fd); /* a new one, for nothing was spent */
    CHECK_INT(v->streams, 2);
    CHECK_INT(v->errors, 0);
    close(fd);
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "x");
    turn();
    CHECK_INT(v->responses, 1);
    visitor_free(v);
    v = upload(AS_METHOD_PUT, "PUT", 100000);
    receive_stream(&fd);
    close(fd);
    v->is_spent = true;
    as_lane_executor_died(lane, EXECUTOR, 0);
    turn();
    CHECK_INT(v->error_status, 502);
    visitor_free(v);
    close_lane();
}

static void test_streamed_requests_wait_for_their_turn(void)
{
    open_streaming_lane();
    visitor *v[200];
    for (int i = 0; i < 200; i++)
        v[i] = upload(AS_METHOD_POST, "POST", 100000);
    CHECK(lane->waiting_len > 0);
    for (int i = 0; i < 200; i++)
        visitor_free(v[i]); /* with and without a stream of its own */
    delivery got;
    while (receive_requests(&got)) {
        close(got.fd);
        send_answer(&got.frames[0], AS_ANSWER_SKIPPED, 0, "", "");
    }
    turn();
    close_lane();
}

static visitor *ask_for_upgrade(void)
{
    visitor *v = visitor_new(AS_METHOD_GET, "GET", "/ws");
    CHECK(handler->ops->upgrades(handler, &v->request));
    v->request.upgrade = AS_STR("websocket");
    CHECK_INT(handler->ops->handle(handler, &v->request), AS_VERDICT_PENDING);
    return v;
}

static as_request_frame receive_upgrade(int *fd)
{
    delivery got;
    CHECK(receive_requests(&got));
    CHECK_INT(got.frames[0].head.flags, AS_REQUEST_UPGRADE);
    CHECK(memmem(got.frames[0].environment.ptr, got.frames[0].environment.len, "HTTP_UPGRADE\0websocket", 23) != NULL);
    *fd = got.fd;
    mark(&got.frames[0], EXECUTOR);
    return got.frames[0];
}

static void test_upgrade(void)
{
    open_streaming_lane();
    int fd;
    visitor *v = ask_for_upgrade();
    as_request_frame frame = receive_upgrade(&fd);
    send_answer(&frame, AS_ANSWER_UPGRADE, 101, "Sec-WebSocket-Accept: x\r\nConnection: x\r\n", "");
    turn();
    CHECK_INT(v->upgrades, 1);
    CHECK_STR(v->request.response.fields, "Sec-WebSocket-Accept: x\r\n");
    CHECK_INT(v->ends, 0);
    send_end(&frame, 0);
    turn();
    CHECK_INT(v->ends, 1);
    CHECK(v->complete);
    visitor_free(v);
    /* refused */
    close(fd);
    v = ask_for_upgrade();
    frame = receive_upgrade(&fd);
    send_answer(&frame, AS_ANSWER_RESPONSE, 403, "", "no");
    turn();
    CHECK_INT(v->responses, 1);
    CHECK_INT(v->upgrades, 0);
    visitor_free(v);
    close(fd);
    /* the client leaves */
    v = ask_for_upgrade();
    frame = receive_upgrade(&fd);
    send_answer(&frame, AS_ANSWER_UPGRADE, 101, "", "");
    turn();
    visitor_free(v);
    CHECK(AS_SLOT_LOAD(slot_of_frame(&frame), cancelled) != 0);
    send_end(&frame, 1);
    turn();
    CHECK_INT(AS_SLOT_LOAD_STATE(slot_of_frame(&frame)), AS_SLOT_FREE);
    close(fd);
    close_lane();
}

/* A second answer, one that nobody asked for, and one that no client may see. */
static void test_bad_upgrades(void)
{
    open_streaming_lane();
    int fd;
    visitor *v = ask_for_upgrade();
    as_request_frame frame = receive_upgrade(&fd);
    send_answer(&frame, AS_ANSWER_UPGRADE, 101, "", "");
    send_answer(&frame, AS_ANSWER_UPGRADE, 101, "", "");
    turn();
    CHECK_INT(v->upgrades, 1);
    CHECK_INT(v->ends, 1);
    CHECK(!v->complete);
    visitor_free(v);
    close(fd);
    v = get("/");
    frame = receive_request();
    send_answer(&frame, AS_ANSWER_UPGRADE, 101, "", "");
    turn();
    CHECK_INT(v->error_status, 502);
    visitor_free(v);
    v = ask_for_upgrade();
    frame = receive_upgrade(&fd);
    send_answer(&frame, AS_ANSWER_UPGRADE, 101, "Bad Name: x\r\n", "");
    turn();
    CHECK_INT(v->error_status, 502);
    CHECK(AS_SLOT_LOAD(slot_of_frame(&frame), cancelled) != 0);
    send_end(&frame, 1);
    turn();
    visitor_free(v);
    close(fd);
    close_lane();
}

static void test_interim_answers_and_trailers(void)
{
    open_lane(NULL, 1);
    int pipe_fds[2];
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_INFORMATIONAL, 103, "Link: </a>\r\nConnection: x\r\n", "");
    turn();
    CHECK_INT(v->informed, 1);
    CHECK(strcmp(v->extra, "Link: </a>\r\n") == 0);
    send_answer(&frame, AS_ANSWER_INFORMATIONAL, 103, "Bad Name: x\r\n", "");
    turn();
    CHECK_INT(v->informed, 1);
    CHECK(event_seen(AS_EVENT_ERROR, "the fields of an interim response are malformed"));
    CHECK(pipe2(pipe_fds, O_CLOEXEC) == 0);
    send_answer_fd(&frame, AS_ANSWER_STREAM, 200, "", AS_STREAM_UNKNOWN, 0, pipe_fds[0]);
    send_answer(&frame, AS_ANSWER_END, 0, "Digest: x\r\nContent-Length: 1\r\n", "");
    turn();
    CHECK_INT(v->ends, 1);
    CHECK_STR(v->request.response.trailers, "Digest: x\r\n");
    close(pipe_fds[1]);
    visitor_free(v);
    /* before the answer only */
    v = get("/");
    frame = receive_request();
    CHECK(pipe2(pipe_fds, O_CLOEXEC) == 0);
    send_answer_fd(&frame, AS_ANSWER_STREAM, 200, "", AS_STREAM_UNKNOWN, 0, pipe_fds[0]);
    send_answer(&frame, AS_ANSWER_INFORMATIONAL, 103, "", "");
    turn();
    CHECK_INT(v->informed, 0);
    CHECK_INT(v->ends, 1);
    CHECK(!v->complete);
    close(pipe_fds[1]);
    visitor_free(v);
    /* for somebody who has left */
    v = get("/");
    frame = receive_request();
    visitor_free(v);
    send_answer(&frame, AS_ANSWER_INFORMATIONAL, 103, "", "");
    turn();
    CHECK_INT(AS_SLOT_LOAD_STATE(slot_of_frame(&frame)), AS_SLOT_RUNNING);
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "");
    turn();
    CHECK_INT(AS_SLOT_LOAD_STATE(slot_of_frame(&frame)), AS_SLOT_FREE);
    close_lane();
}

/* An answer of each kind may name a file; its body is let go. */
static void test_answers_that_name_files(void)
{
    const char *fields = "X-Sendfile: /f\r\n";
    int pipe_fds[2];
    open_lane(NULL, 1);
    as_sendfile *some = (as_sendfile *)&pipe_fds; /* which it is does not matter here */
    as_pool_handler_set_sendfile(handler, some);
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, fields, "body");
    turn();
    CHECK_INT(v->files, 1);
    visitor_free(v);
    v = get("/");
    frame = receive_request();
    send_answer_fd(&frame, AS_ANSWER_FILE, 200, fields, 1, 0, memfd_create("file", MFD_CLOEXEC));
    turn();
    CHECK_INT(v->files, 1);
    visitor_free(v);
    v = get("/");
    frame = receive_request();
    CHECK(pipe2(pipe_fds, O_CLOEXEC) == 0);
    send_answer_fd(&frame, AS_ANSWER_STREAM, 200, fields, AS_STREAM_UNKNOWN, 0, pipe_fds[0]);
    turn();
    CHECK_INT(v->files, 1);
    CHECK(AS_SLOT_LOAD(slot_of_frame(&frame), cancelled) != 0);
    send_end(&frame, 1);
    turn();
    CHECK_INT(AS_SLOT_LOAD_STATE(slot_of_frame(&frame)), AS_SLOT_FREE);
    close(pipe_fds[1]);
    visitor_free(v);
    as_pool_handler_set_sendfile(handler, NULL);
    v = get("/");
    frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, fields, "body");
    turn();
    CHECK_INT(v->files, 0);
    CHECK_STR(v->request.response.fields, fields);
    visitor_free(v);
    close_lane();
}

int main(void)
{
    int before = open_descriptors();
    test_which_bodies_stream();
    test_streamed_body();
    test_client_of_a_stream_leaves();
    test_stream_is_handed_back();
    test_stream_of_a_dead_executor();
    test_streamed_requests_wait_for_their_turn();
    test_upgrade();
    test_bad_upgrades();
    test_interim_answers_and_trailers();
    test_answers_that_name_files();
    CHECK_INT(open_descriptors(), before);
    return check_result("pool_stream");
}
