/* with: base/memory.c base/buf.c base/error.c loop/loop.c report/event.c base/scan.c http/head.c http/response_head.c http/conditional.c http/date.c handler/frame.c handler/environment.c report/incident.c handler/fingerprint.c handler/lane.c handler/shared_buffer.c handler/pool.c handler/pool_death.c handler/pool_incident.c handler/quarantine.c handler/pool_answer.c */
/* What CGI programs write, from the pipe to a response. The test is the program and the spawner. */
#include "handler/pool_document.c"

#include <signal.h>

#include "pool_fixture.h"

static visitor *client;
static as_request_frame frame;
static int output; /* the program's stdout */
static int descriptors;

static void for_programs(as_pool_options *options)
{
    options->cancel = true;
    options->retry = false;
}

static void start_program_for(as_method method, const char *method_text)
{
    descriptors = open_descriptors();
    int ends[2];
    client = send_request(method, method_text, "/cgi-bin/x");
    frame = receive_request();
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    output = ends[1];
    send_answer_fd(&frame, AS_ANSWER_DOCUMENT, 0, "", 0, 0, ends[0]);
    turn();
    CHECK_INT(client->responses + client->errors, 0);
}

static void start_program(void)
{
    start_program_for(AS_METHOD_GET, "GET");
}

static void say(const char *text)
{
    CHECK(write(output, text, strlen(text)) == (ssize_t)strlen(text));
    turn();
}

static void close_output(void)
{
    close(output);
    output = -1;
    turn();
}

static void end_program(int status)
{
    send_end(&frame, status);
    turn();
}

/* The visitor leaves; nothing may be left of the program but a slot that waits for `end`. */
static void finish_program(void)
{
    visitor_free(client);
    turn();
    if (output >= 0)
        close(output);
    if (lane->sent > 0)
        end_program(0);
    CHECK_INT(lane->sent, 0);
    drop_incidents();
    CHECK_INT(open_descriptors(), descriptors);
    delivery got;
    while (receive_requests(&got)) {
    }
}

static bool was_cancelled(void)
{
    return AS_SLOT_LOAD(slot_of_frame(&frame), cancelled) != 0;
}

static void test_whole_at_once(void)
{
    start_program();
    CHECK(write(output, "Content-Type: text/plain\nX-A: 1\n\nhello", 38) == 38);
    close_output();
    CHECK_INT(client->responses, 0); /* how it ended is said next */
    end_program(0);
    CHECK_INT(client->responses, 1);
    const as_response *response = &client->request.response;
    CHECK_INT(response->status, 200);
    CHECK_STR(response->fields, "Content-Type: text/plain\r\nX-A: 1\r\n");
    CHECK_INT(response->body.kind, AS_BODY_MEMORY);
    CHECK_INT(response->body.length, 5);
    CHECK_STR(response->body.memory, "hello");
    CHECK(client->request.handler_state == NULL);
    CHECK_INT(lane->sent, 0);
    finish_program();
}

/* A program that ended before the core had its pipe. */
static void run_whole(const char *text, int status)
{
    descriptors = open_descriptors();
    output = -1;
    client = send_request(AS_METHOD_GET, "GET", "/cgi-bin/x");
    frame = receive_request();
    send_answer(&frame, AS_ANSWER_WHOLE_DOCUMENT, status, "", text);
    turn();
    CHECK_INT(lane->sent, 0);
    CHECK(client->request.handler_state == NULL);
}

static void test_in_one_frame(void)
{
    run_whole("Content-Type: text/plain\nX-A: 1\n\nhello", 0);
    CHECK_INT(client->responses, 1);
    CHECK_INT(client->request.response.status, 200);
    CHECK_STR(client->request.response.fields, "Content-Type: text/plain\r\nX-A: 1\r\n");
    CHECK_INT(client->request.response.body.kind, AS_BODY_MEMORY);
    CHECK_STR(client->request.response.body.memory, "hello");
    finish_program();
    run_whole("Status: 404 Not Here\n\n", 3); /* the exit code says nothing of the answer */
    CHECK_INT(client->responses, 1);
    CHECK_INT(client->request.response.status, 404);
    finish_program();
    run_whole("Content-Length: 3\n\nhello", 0);
    CHECK_INT(client->request.response.body.kind, AS_BODY_PIPE); /* the protocol cuts it to its length */
    CHECK_INT(client->request.response.body.length, 3);
    CHECK_STR(client->request.response.body.memory, "hello");
    finish_program();
    /* Shorter than it says: broken off, as through a pipe that has ended. */
    run_whole("Content-Length: 9\n\nhello", 0);
    CHECK_INT(client->responses, 1);
    CHECK_INT(client->request.response.body.kind, AS_BODY_PIPE);
    CHECK_INT(client->request.response.body.length, 9);
    CHECK_STR(client->request.response.body.memory, "hello");
    CHECK_INT(client->ends, 1);
    char byte;
    CHECK_INT(read(client->request.response.body.fd, &byte, 1), 0);
    finish_program();
    run_whole("Location: /elsewhere\n\n", 0);
    CHECK_INT(client->responses + client->errors, 0);
    CHECK_INT(client->reentries, 1);
    finish_program();
    const char *const broken[] = {"", "no section", "bad field\n\n", ": x\n\n"};
    for (size_t i = 0; i < AS_COUNT_OF(broken); i++) {
        run_whole(broken[i], 0);
        CHECK_INT(client->error_status, 502);
        finish_program();
    }
}

/* A program that works on behind its answer. */
static void test_whole_and_not_over(void)
{
    start_program();
    CHECK(write(output, "A: b\n\nhello", 11) == 11);
    close_output();
    CHECK_INT(client->responses, 0);
    await(&client->responses);
    CHECK_INT(client->request.response.body.kind, AS_BODY_MEMORY);
    CHECK_STR(client->request.response.body.memory, "hello");
    CHECK(client->request.handler_state == NULL); /* nothing depends on the program any more */
    CHECK_INT(lane->sent, 1);
    end_program(0);
    CHECK_INT(lane->sent, 0);
    finish_program();
    /* what it has said of its length is enough */
    start_program();
    CHECK(write(output, "Content-Length: 5\n\nhello", 24) == 24);
    close_output();
    CHECK_INT(client->responses, 1);
    finish_program();
}

/* What came may be all or not; only that it was killed is known. */
static void test_whole_and_killed(void)
{
    start_program();
    CHECK(write(output, "A: b\n\nhello", 11) == 11);
    close_output();
    end_program(AS_END_SIGNAL + 11);
    CHECK_INT(client->responses, 1);
    CHECK_INT(client->request.response.body.kind, AS_BODY_PIPE);
    CHECK_INT(client->ends, 1);
    CHECK(!client->complete);
    finish_program();
}

static void test_in_pieces(void)
{
    start_program();
    say("Content-");
    say("Type: text/plain\r\n");
    say("\r");
    CHECK_INT(client->responses, 0);
    say("\nfirst");
    CHECK_INT(client->responses, 1);
    const as_body *body = &client->request.response.body;
    CHECK_INT(body->kind, AS_BODY_PIPE);
    CHECK_STR(body->memory, "first");
    CHECK_INT(body->length, -1);
    CHECK(body->ends_at_eof);
    CHECK(client->request.handler_state != NULL);
    end_program(0);
    CHECK_INT(client->ends, 1);
    CHECK(client->complete);
    finish_program();
}

static void test_content_length(void)
{
    start_program();
    say("Content-Type: text/plain\nContent-Length: 10\n\nfirst");
    CHECK_INT(client->request.response.body.length, 10);
    CHECK_INT(client->request.response.body.kind, AS_BODY_PIPE);
    CHECK_STR(client->request.response.fields, "Content-Type: text/plain\r\n");
    finish_program();
    start_program();
    CHECK(write(output, "Content-Length: 3\n\nabc", 22) == 22);
    close_output();
    CHECK_INT(client->request.response.body.kind, AS_BODY_MEMORY);
    CHECK_STR(client->request.response.body.memory, "abc");
    finish_program();
    /* more than it promised: the protocol cuts it to its length */
    start_program();
    CHECK(write(output, "Content-Length: 3\n\nabcdef", 25) == 25);
    close_output();
    CHECK_INT(client->request.response.body.kind, AS_BODY_PIPE);
    CHECK_INT(client->request.response.body.length, 3);
    CHECK_STR(client->request.response.body.memory, "abcdef");
    finish_program();
    /* less: the protocol must find that the pipe ends too early */
    start_program();
    CHECK(write(output, "Content-Length: 30\n\nabcdef", 26) == 26);
    close_output();
    CHECK_INT(client->request.response.body.kind, AS_BODY_PIPE);
    CHECK_INT(client->request.response.body.length, 30);
    CHECK_STR(client->request.response.body.memory, "abcdef");
    finish_program();
}

static void test_status_and_location(void)
{
    static const struct {
        const char *section;
        int status;
        const char *fields;
    } cases[] = {
        {"Status: 404 Not Here\nContent-Type: text/plain\n\n", 404, "Content-Type: text/plain\r\n"},
        {"Location: http://example.org/\n\n", 302, "Location: http://example.org/\r\n"},
        {"Location: http://example.org/\nStatus: 301 Gone\n\n", 301, "Location: http://example.org/\r\n"},
        {"X-A: 1\nX-A: 2\n\n", 200, "X-A: 1\r\nX-A: 2\r\n"},
    };
    for (size_t i = 0; i < AS_COUNT_OF(cases); i++) {
        start_program();
        CHECK(write(output, cases[i].section, strlen(cases[i].section)) == (ssize_t)strlen(cases[i].section));
        close_output();
        end_program(0);
        CHECK_INT(client->request.response.status, cases[i].status);
        CHECK_STR(client->request.response.fields, cases[i].fields);
        finish_program();
    }
}

/* RFC 3875 section 6.2.2. What follows the field is dropped, and is waited for. */
static void test_local_redirect(void)
{
    start_program();
    say("Location: /else?a\nSet-Cookie: c=1\nX-Other: 2\n\nbody");
    CHECK_INT(client->reentries + client->responses, 0);
    say("more of it");
    CHECK_INT(client->reentries, 0);
    close_output();
    CHECK_INT(client->reentries, 1);
    CHECK_STR(as_str_from(client->reentry), "/else?a||/cgi-bin/x");
    CHECK_STR(as_str_from(client->extra), "Set-Cookie: c=1\r\n");
    CHECK_INT(lane->sent, 1); /* the program may still work */
    CHECK(!was_cancelled());
    finish_program();
    /* it ends while a child keeps its output open */
    start_program();
    say("Location: /else\n\n");
    end_program(0);
    CHECK_INT(client->reentries, 1);
    CHECK_INT(lane->sent, 0);
    finish_program();
    /* all of it is there when its end comes */
    start_program();
    CHECK(write(output, "Location: /a\n\n", 14) == 14);
    end_program(0);
    CHECK_INT(client->reentries, 1);
    finish_program();
    /* the client leaves meanwhile */
    start_program();
    say("Location: /a\n\n");
    finish_program();
}

static void test_location_for_the_client(void)
{
    static const char *const sections[] = {
        "Location: /a#there\n\n",
        "Location: http://a/b\n\n",
        "Location: relative\n\n",
        "Status: 302\nLocation: /a\n\n",
    };
    for (size_t i = 0; i < AS_COUNT_OF(sections); i++) {
        start_program();
        say(sections[i]);
        close_output();
        end_program(0);
        CHECK_INT(client->reentries, 0);
        CHECK_INT(client->responses, 1);
        CHECK_INT(client->request.response.status, 302);
        finish_program();
    }
}

static void test_broken_sections(void)
{
    static const char *const sections[] = {"hello world\n\n", "\n\nbody",
                                           "Bad Name: x\n\n", "Status: 99999\n\n",
                                           "Status: 101\n\n", "A: b\nContent-Length: 1\nContent-Length: 2\n\n"};
    for (size_t i = 0; i < AS_COUNT_OF(sections); i++) {
        start_program();
        say(sections[i]);
        CHECK_INT(client->error_status, 502);
        CHECK(event_seen(AS_EVENT_ERROR, "malformed"));
        CHECK(was_cancelled());
        end_program(AS_END_SIGNAL + 15);
        finish_program();
    }
}

static void test_no_section(void)
{
    start_program();
    say("Content-Type: text");
    close_output();
    CHECK_INT(client->errors, 0); /* how it ended is said next */
    end_program(0);
    CHECK_INT(client->error_status, 502);
    CHECK(event_seen(AS_EVENT_ERROR, "no header section"));
    finish_program();
    start_program();
    close_output();
    await(&client->errors); /* it only closed its output */
    CHECK_INT(client->error_status, 502);
    CHECK(was_cancelled());
    finish_program();
}

static void test_no_section_of_a_dead_spawner(void)
{
    start_program();
    close_output();
    CHECK_INT(client->errors, 0);
    executor_died(EXECUTOR);
    CHECK_INT(client->error_status, 502);
    CHECK(event_seen(AS_EVENT_INCIDENT, "GET /cgi-bin/x"));
    finish_program();
}

static void test_endless_section(void)
{
    start_program();
    char line[1024];
    memset(line, 'x', sizeof(line));
    memcpy(line, "A: ", 3);
    line[sizeof(line) - 1] = '\n';
    for (int i = 0; i < 100 && client->errors == 0; i++) {
        CHECK(write(output, line, sizeof(line)) == (ssize_t)sizeof(line));
        turn();
    }
    CHECK_INT(client->error_status, 502);
    CHECK(event_seen(AS_EVENT_ERROR, "over its limit"));
    finish_program();
}

/* `end` and the last of the output become visible in the same turn, or the end first. */
static void test_end_before_the_output_was_read(void)
{
    start_program();
    send_end(&frame, 0);
    say("A: b\n\nrest");
    CHECK_INT(client->responses, 1);
    CHECK_STR(client->request.response.body.memory, "rest");
    CHECK_INT(client->ends, client->request.response.body.kind == AS_BODY_PIPE);
    CHECK_INT(lane->sent, 0);
    finish_program();
}

/* A child of the program keeps the pipe open. */
static void test_end_with_the_pipe_open(void)
{
    start_program();
    CHECK(write(output, "A: b\n\nrest", 10) == 10);
    as_lane_receive(lane, 1);
    send_end(&frame, 3);
    as_lane_receive(lane, 1);
    CHECK_INT(client->responses, 1);
    CHECK_INT(client->request.response.body.kind, AS_BODY_PIPE);
    CHECK_INT(client->ends, 1);
    CHECK(client->complete);
    CHECK(client->request.handler_state == NULL);
    turn();
    finish_program();
}

static void test_end_without_a_section(void)
{
    start_program();
    CHECK(write(output, "A: ", 3) == 3);
    send_end(&frame, 1);
    as_lane_receive(lane, 1);
    CHECK_INT(client->error_status, 502);
    CHECK(event_seen(AS_EVENT_ERROR, "no header section"));
    finish_program();
}

static void test_killed_before_its_section(void)
{
    start_program();
    send_end(&frame, AS_END_SIGNAL + 11);
    as_lane_receive(lane, 1);
    CHECK_INT(client->error_status, 502);
    CHECK(event_seen(AS_EVENT_ERROR, "no header section"));
    finish_program();
}

/* The spawner looks at the time limit too, and its word may come before the core's own timer. */
static void test_killed_at_its_time_limit(void)
{
    start_program();
    lane->slots[((as_pending *)client->request.handler_state)->slot].sent_ns = 1;
    AS_SLOT_STORE(slot_of_frame(&frame), start_ns, 1);
    AS_SLOT_STORE_STATE(slot_of_frame(&frame), AS_SLOT_RUNNING);
    send_end(&frame, AS_END_SIGNAL + 15);
    as_lane_receive(lane, 1);
    CHECK_INT(client->error_status, 504);
    CHECK(event_seen(AS_EVENT_ERROR, "exceeded request_time"));
    finish_program();
}

static void test_killed_behind_its_section(void)
{
    start_program();
    say("A: b\n\npart");
    end_program(AS_END_SIGNAL + 9);
    CHECK_INT(client->ends, 1);
    CHECK(!client->complete);
    finish_program();
    /* and before any of it was read */
    start_program();
    CHECK(write(output, "A: b\n\npart", 10) == 10);
    close(output);
    output = -1;
    send_end(&frame, AS_END_SIGNAL + 9);
    as_lane_receive(lane, 1);
    CHECK_INT(client->responses, 1);
    CHECK_INT(client->request.response.body.kind, AS_BODY_PIPE);
    CHECK_INT(client->ends, 1);
    CHECK(!client->complete);
    turn();
    finish_program();
}

static void test_exit_code_with_a_complete_document(void)
{
    start_program();
    CHECK(write(output, "A: b\n\nall", 9) == 9);
    close_output();
    end_program(7);
    CHECK_INT(client->responses, 1);
    CHECK_INT(client->errors, 0);
    finish_program();
}

static void test_client_leaves_before_the_section(void)
{
    start_program();
    visitor_free(client);
    client = NULL;
    CHECK(was_cancelled());
    delivery got;
    CHECK(receive_requests(&got));
    CHECK_INT(got.frames[0].head.kind, AS_REQUEST_CANCEL);
    CHECK(write(output, "A", 1) < 0 && errno == EPIPE);
    end_program(AS_END_SIGNAL + 15);
    CHECK_INT(lane->sent, 0);
    close(output);
    turn();
    CHECK_INT(open_descriptors(), descriptors);
}

/* The response is over with the pipe; that the program still runs for a moment is no reason to kill it. */
static void test_end_of_the_pipe_is_no_abort(void)
{
    start_program();
    say("A: b\n\npart");
    close_output();
    char text[8];
    CHECK_INT(read(client->request.response.body.fd, text, sizeof(text)), 0);
    visitor_free(client);
    CHECK(!was_cancelled());
    CHECK(queue_has_nothing());
    client = send_request(AS_METHOD_GET, "GET", "/");
    CHECK_INT(lane->sent, 2); /* its slot is its own until it has ended */
    end_program(0);
    CHECK_INT(lane->sent, 1);
    frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "x");
    turn();
    finish_program();
}

static void test_client_leaves_in_the_middle(void)
{
    start_program();
    say("A: b\n\npart");
    visitor_free(client);
    CHECK(was_cancelled());
    client = visitor_new(AS_METHOD_GET, "GET", "/");
    finish_program();
    /* A length tells when the client has everything, and the program may go on. */
    start_program();
    say("Content-Length: 10\n\npart");
    visitor_free(client);
    CHECK(was_cancelled());
    client = visitor_new(AS_METHOD_GET, "GET", "/");
    finish_program();
    start_program();
    say("Content-Length: 4\n\npart");
    client->has_all = true;
    visitor_free(client);
    CHECK(!was_cancelled());
    client = visitor_new(AS_METHOD_GET, "GET", "/");
    finish_program();
}

static void test_head_request(void)
{
    start_program_for(AS_METHOD_HEAD, "HEAD");
    CHECK(write(output, "A: b\nContent-Length: 99\n\n", 25) == 25);
    close_output();
    CHECK_INT(client->responses, 1);
    CHECK_INT(client->request.response.body.length, 99);
    finish_program();
    start_program_for(AS_METHOD_HEAD, "HEAD");
    CHECK(write(output, "A: b\n\n", 6) == 6);
    close_output();
    CHECK_INT(client->request.response.body.kind, AS_BODY_NONE);
    finish_program();
}

static void test_spawner_dies(void)
{
    start_program();
    executor_died(EXECUTOR);
    CHECK_INT(client->error_status, 502);
    CHECK(event_seen(AS_EVENT_INCIDENT, "GET /cgi-bin/x"));
    turn();
    finish_program();
    start_program();
    say("A: b\n\npart");
    executor_died(EXECUTOR);
    CHECK_INT(client->ends, 1);
    CHECK(!client->complete);
    finish_program();
}

static void with_short_idle_time(as_pool_options *options)
{
    for_programs(options);
    options->idle_time_ms = 1;
}

static void test_silence(void)
{
    open_lane(with_short_idle_time, 1);
    start_program();
    await(&client->errors);
    CHECK_INT(client->error_status, 504);
    CHECK(event_seen(AS_EVENT_ERROR, "silent"));
    CHECK(was_cancelled());
    finish_program();
    close_lane();
}

static void with_small_output(as_pool_options *options)
{
    for_programs(options);
    options->output_limit = 8;
}

static void expect_too_much(void)
{
    CHECK_INT(client->error_status, 502);
    CHECK_INT(client->responses, 0);
    finish_program();
}

static void test_output_limit(void)
{
    open_lane(with_small_output, 1);
    start_program();
    CHECK(write(output, "A: b\n\n12345678", 14) == 14);
    close_output();
    end_program(0);
    CHECK_INT(client->request.response.body.length, 8);
    finish_program();
    start_program();
    say("A: b\n\n123456789");
    CHECK(was_cancelled());
    expect_too_much();
    start_program();
    say("A: b\nContent-Length: 9\n\n");
    CHECK(was_cancelled());
    expect_too_much();
    start_program();
    say("A: b\n\n1234");
    CHECK_INT(client->request.response.body.kind, AS_BODY_PIPE);
    CHECK_INT(client->request.response.body.output_limit, 8);
    finish_program();
    close_lane();
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    int before = open_descriptors();
    open_lane(for_programs, 4);
    test_whole_at_once();
    test_in_one_frame();
    test_whole_and_not_over();
    test_whole_and_killed();
    test_in_pieces();
    test_content_length();
    test_status_and_location();
    test_local_redirect();
    test_location_for_the_client();
    test_broken_sections();
    test_no_section();
    test_no_section_of_a_dead_spawner();
    test_endless_section();
    test_end_before_the_output_was_read();
    test_end_with_the_pipe_open();
    test_end_without_a_section();
    test_killed_before_its_section();
    test_killed_at_its_time_limit();
    test_killed_behind_its_section();
    test_exit_code_with_a_complete_document();
    test_client_leaves_before_the_section();
    test_end_of_the_pipe_is_no_abort();
    test_client_leaves_in_the_middle();
    test_head_request();
    test_spawner_dies();
    close_lane();
    test_silence();
    test_output_limit();
    CHECK_INT(open_descriptors(), before);
    return check_result("pool_document");
}
