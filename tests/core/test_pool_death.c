/* with: base/memory.c base/buf.c base/error.c loop/loop.c report/event.c base/scan.c http/head.c http/response_head.c http/conditional.c http/date.c handler/frame.c handler/environment.c report/incident.c handler/fingerprint.c handler/lane.c handler/shared_buffer.c handler/pool.c handler/pool_incident.c handler/quarantine.c handler/pool_answer.c handler/pool_document.c */
/* Executors that die, and what is told of it. */
#include "handler/pool_death.c"

#include "handler/fingerprint.h"
#include "pool_fixture.h"

/* Whether a request with this method and field is repeated. */
static bool is_repeated(as_method method, const char *text, const char *field, const char *value)
{
    visitor *v = visitor_new(method, text, "/");
    if (field != NULL)
        v->request.head.fields[v->request.head.fields_len++] = (as_field){as_str_from(field), as_str_from(value)};
    handler->ops->handle(handler, &v->request);
    receive_request();
    executor_died(EXECUTOR);
    turn();
    bool repeated = v->errors == 0;
    delivery got;
    CHECK_INT(receive_requests(&got), repeated);
    CHECK(repeated || v->error_status == 502);
    visitor_free(v);
    return repeated;
}

static void test_death_with_retry(void)
{
    open_lane(NULL, 2);
    visitor *v = get("/");
    as_request_frame first = receive_request();
    executor_died(EXECUTOR + 1);
    turn();
    CHECK(queue_has_nothing());
    executor_died(EXECUTOR);
    turn();
    as_request_frame second = receive_request();
    CHECK(second.head.request_id != first.head.request_id);
    CHECK(AS_SLOT_LOAD(slot_of_frame(&first), request_id) != first.head.request_id);
    CHECK_INT(pool_counters.retried, 1);
    /* a late word of the dead one is not taken for the other's */
    send_answer(&first, AS_ANSWER_RESPONSE, 200, "", "late");
    send_answer(&second, AS_ANSWER_RESPONSE, 200, "", "good");
    turn();
    CHECK_INT(v->responses, 1);
    CHECK_STR(v->request.response.body.memory, "good");
    visitor_free(v);
    close_lane();
}

static void test_second_death(void)
{
    open_lane(NULL, 2);
    visitor *v = get("/deadly");
    receive_request();
    executor_died(EXECUTOR);
    turn();
    receive_request();
    executor_died(EXECUTOR);
    CHECK_INT(v->error_status, 503);
    CHECK(strncmp(v->extra, "Retry-After: 60\r\nX-Incident: 0005", 33) == 0);
    CHECK(event_seen(AS_EVENT_INCIDENT, "GET /deadly: killed two executors"));
    CHECK_INT(lane->sent, 0);
    visitor_free(v);
    /* the same one again, and one that is not the same */
    v = visitor_new(AS_METHOD_GET, "GET", "/deadly");
    CHECK_INT(handler->ops->handle(handler, &v->request), AS_VERDICT_ERROR);
    CHECK_INT(v->request.response.status, 503);
    CHECK(strcmp(v->extra, "Retry-After: 60\r\n") == 0);
    CHECK(event_seen(AS_EVENT_WARNING, "quarantined: GET /deadly, fingerprint"));
    CHECK_INT(handler->ops->handle(handler, &v->request), AS_VERDICT_ERROR);
    CHECK(!event_seen(AS_EVENT_WARNING, "quarantined")); /* once a second */
    visitor_free(v);
    v = get("/deadly?not");
    receive_request();
    visitor_free(v);
    /* its time is over */
    quarantine.ends_ns = quarantine.entries[0].until_ns = loop.now_ns;
    v = get("/deadly");
    visitor_free(v);
    close_lane();
}

static void no_quarantine(as_pool_options *options)
{
    options->quarantine_ms = 0;
}

static void test_second_death_without_quarantine(void)
{
    open_lane(no_quarantine, 2);
    visitor *v = get("/deadly");
    for (int i = 0; i < 2; i++) {
        receive_request();
        executor_died(EXECUTOR);
        turn();
    }
    CHECK_INT(v->error_status, 502);
    CHECK(strncmp(v->extra, "X-Incident: 0005", 16) == 0);
    CHECK(event_seen(AS_EVENT_INCIDENT, "the second one"));
    visitor_free(v);
    v = get("/deadly");
    visitor_free(v);
    close_lane();
}

/* Two that were together both times: either may have done it. */
static void test_second_death_of_several(void)
{
    open_lane(NULL, 4);
    visitor *deadly = get("/deadly");
    visitor *innocent = get("/innocent");
    for (int i = 0; i < 2; i++) {
        receive_request();
        receive_request();
        executor_died(EXECUTOR);
        turn();
    }
    CHECK_INT(deadly->error_status, 502);
    CHECK_INT(innocent->error_status, 502);
    CHECK(as_quarantine_is_empty(&quarantine, loop.now_ns));
    visitor_free(deadly);
    visitor_free(innocent);
    close_lane();
}

/* One that was only there the second time is repeated. */
static void test_second_death_beside_a_first(void)
{
    open_lane(NULL, 4);
    visitor *deadly = get("/deadly");
    receive_request();
    executor_died(EXECUTOR);
    turn();
    receive_request();
    visitor *innocent = get("/innocent");
    receive_request();
    executor_died(EXECUTOR);
    turn();
    CHECK_INT(deadly->error_status, 503);
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "x");
    turn();
    CHECK_INT(innocent->responses, 1);
    visitor_free(deadly);
    visitor_free(innocent);
    close_lane();
}

static void always_retry(as_pool_options *options)
{
    options->retry = AS_RETRY_ALWAYS;
}

static void test_retry_always(void)
{
    open_lane(always_retry, 2);
    visitor *v = send_request(AS_METHOD_POST, "POST", "/order");
    receive_request();
    executor_died(EXECUTOR);
    turn();
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "x");
    turn();
    CHECK_INT(v->responses, 1);
    visitor_free(v);
    close_lane();
}

static void test_what_is_repeated(void)
{
    open_lane(NULL, 16);
    CHECK(is_repeated(AS_METHOD_GET, "GET", NULL, NULL));
    CHECK(is_repeated(AS_METHOD_HEAD, "HEAD", NULL, NULL));
    CHECK(is_repeated(AS_METHOD_OPTIONS, "OPTIONS", NULL, NULL));
    CHECK(is_repeated(AS_METHOD_PUT, "PUT", NULL, NULL));
    CHECK(is_repeated(AS_METHOD_DELETE, "DELETE", NULL, NULL));
    CHECK(!is_repeated(AS_METHOD_POST, "POST", NULL, NULL));
    CHECK(!is_repeated(AS_METHOD_PATCH, "PATCH", NULL, NULL));
    CHECK(!is_repeated(AS_METHOD_OTHER, "PROPFIND", NULL, NULL));
    CHECK(is_repeated(AS_METHOD_POST, "POST", "idempotency-key", "\"8e03978e\""));
    CHECK(is_repeated(AS_METHOD_PATCH, "PATCH", "Idempotency-Key", "1"));
    CHECK(!is_repeated(AS_METHOD_POST, "POST", "Idempotency-Key", ""));
    CHECK(!is_repeated(AS_METHOD_POST, "POST", "Idempotency-Keys", "1"));
    close_lane();
}

static void test_death_without_retry(void)
{
    open_lane(NULL, 2);
    visitor *v = send_request(AS_METHOD_POST, "POST", "/order");
    receive_request();
    executor_died(EXECUTOR);
    CHECK_INT(v->error_status, 502);
    CHECK(event_seen(AS_EVENT_INCIDENT, "POST /order"));
    CHECK_INT(pool_counters.retried, 0);
    visitor_free(v);
    close_lane();
}

static void no_retry(as_pool_options *options)
{
    options->retry = AS_RETRY_NEVER;
}

static void test_death_with_retry_off(void)
{
    open_lane(no_retry, 2);
    CHECK(!is_repeated(AS_METHOD_GET, "GET", NULL, NULL));
    CHECK(!is_repeated(AS_METHOD_POST, "POST", "Idempotency-Key", "1"));
    close_lane();
}

/* What it answered before it died counts. */
static void test_death_after_the_answer(void)
{
    open_lane(NULL, 2);
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "in time");
    executor_died(EXECUTOR);
    CHECK_INT(v->responses, 1);
    CHECK_INT(v->errors, 0);
    visitor_free(v);
    close_lane();
}

static void test_death_while_streaming(void)
{
    open_lane(NULL, 2);
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    int writer = send_stream(&frame);
    turn();
    executor_died(EXECUTOR);
    CHECK_INT(v->ends, 1);
    CHECK(!v->complete);
    CHECK(event_seen(AS_EVENT_INCIDENT, "in the middle"));
    close(writer);
    visitor_free(v);
    close_lane();
}

/* Received, and dead before it marked the slot. */
static void test_lost_datagram(void)
{
    open_lane(NULL, 4);
    visitor *repeated = get("/");
    visitor *order = send_request(AS_METHOD_POST, "POST", "/order");
    delivery got;
    CHECK(receive_requests(&got) && receive_requests(&got));
    executor_died(EXECUTOR);
    CHECK_INT(order->errors, 0); /* its receiver may be about to mark it */
    await(&order->errors);
    CHECK_INT(order->error_status, 502);
    turn();
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "x");
    turn();
    CHECK_INT(repeated->responses, 1);
    CHECK_INT(lane->sent, 0);
    visitor_free(repeated);
    visitor_free(order);
    close_lane();
}

/* Which is no death of the request's own: it is repeated as often as it takes. */
static void test_lost_datagram_again_and_again(void)
{
    open_lane(NULL, 4);
    visitor *v = get("/");
    for (int i = 0; i < 3; i++) {
        delivery got;
        for (int turns = 0; !receive_requests(&got) && turns < PATIENCE_MS; turns++)
            as_loop_turn(&loop, 1);
        CHECK_INT(got.count, 1);
        executor_died(EXECUTOR);
    }
    int64_t end_ns = as_clock_monotonic_ns() + PATIENCE_MS * AS_NS_PER_MS;
    while (queue_has_nothing() && as_clock_monotonic_ns() < end_ns)
        as_loop_turn(&loop, 1);
    as_request_frame frame = receive_request();
    send_answer(&frame, AS_ANSWER_RESPONSE, 200, "", "x");
    turn();
    CHECK_INT(v->responses, 1);
    CHECK(as_quarantine_is_empty(&quarantine, loop.now_ns));
    visitor_free(v);
    close_lane();
}

/* An executor that marks the first of a batch, and dies. */
static void test_half_marked_batch(void)
{
    open_lane(NULL, 1);
    lane->run_ns = 50000;
    visitor *v[5];
    for (int i = 0; i < 5; i++)
        v[i] = get("/");
    as_request_frame alone = receive_request();
    turn();
    delivery got;
    CHECK(receive_requests(&got));
    CHECK_INT(got.count, 4);
    mark(&got.frames[0], EXECUTOR + 1);
    executor_died(EXECUTOR + 1);
    int64_t end_ns = as_clock_monotonic_ns() + PATIENCE_MS * AS_NS_PER_MS;
    int answered = 0;
    while (answered < 4 && as_clock_monotonic_ns() < end_ns) {
        as_loop_turn(&loop, 1);
        while (receive_requests(&got)) {
            for (int i = 0; i < got.count; i++, answered++) {
                mark(&got.frames[i], EXECUTOR + 2);
                send_answer(&got.frames[i], AS_ANSWER_RESPONSE, 200, "", "x");
            }
        }
    }
    send_answer(&alone, AS_ANSWER_RESPONSE, 200, "", "x");
    turn();
    for (int i = 0; i < 5; i++) {
        CHECK_INT(v[i]->responses, 1);
        visitor_free(v[i]);
    }
    CHECK_INT(lane->sent, 0);
    close_lane();
}

/* The queue is never empty, but a later datagram has been received. */
static void test_lost_datagram_in_a_busy_queue(void)
{
    open_lane(NULL, 4);
    visitor *lost = send_request(AS_METHOD_POST, "POST", "/order");
    visitor *running = get("/");
    visitor *queued = get("/");
    delivery got;
    CHECK(receive_requests(&got));
    receive_request();
    executor_died(EXECUTOR + 1);
    await(&lost->errors);
    CHECK_INT(lost->error_status, 502);
    CHECK_INT(running->errors + queued->errors, 0);
    receive_request(); /* the last one is still in the queue */
    visitor_free(lost);
    visitor_free(running);
    visitor_free(queued);
    close_lane();
}

/* Incidents. */

/* The only incident that is there; the caller closes its descriptor. */
static as_incident take_incident(void)
{
    as_incident incident = {.fd = -1};
    as_incident another;
    CHECK(as_incidents_next(incidents, &incident));
    CHECK(!as_incidents_next(incidents, &another));
    return incident;
}

/* What is in its descriptor; the body ends it. */
static as_request_frame recorded_frame(const as_incident *incident)
{
    as_request_frame frame = {0};
    ssize_t n = pread(incident->fd, datagram, sizeof(datagram), 0);
    CHECK(n > 0);
    CHECK_INT(as_request_frame_decode(datagram, (size_t)n, &frame), n);
    close(incident->fd);
    return frame;
}

static void test_incident_of_a_retried_request(void)
{
    open_lane(NULL, 2);
    int before = open_descriptors();
    visitor *v = get("/deadly?a=b");
    as_request_frame sent = receive_request();
    AS_SLOT_STORE(slot_of_frame(&sent), thread, 3);
    uint64_t started_ns = AS_SLOT_LOAD(slot_of_frame(&sent), start_ns);
    executor_died(EXECUTOR);
    as_incident incident = take_incident();
    CHECK_INT(incident.cause, AS_INCIDENT_DIED);
    CHECK_INT(incident.outcome, AS_INCIDENT_RETRIED);
    CHECK_INT(incident.pool, 0);
    CHECK_INT(incident.executor, EXECUTOR);
    CHECK_INT(incident.slot, sent.head.slot);
    CHECK_INT(incident.thread, 3);
    CHECK(incident.request_id == v->request.id);
    CHECK(incident.wire_id == sent.head.request_id);
    CHECK(incident.queued_ns > 0 && (uint64_t)incident.started_ns == started_ns);
    CHECK(incident.fingerprint == as_fingerprint(&v->request, as_fingerprint_text(AS_STR_NONE)));
    CHECK(!incident.truncated);
    as_request_frame frame = recorded_frame(&incident);
    CHECK(frame.head.request_id == sent.head.request_id);
    CHECK_INT(frame.head.deadline_ns, sent.head.deadline_ns);
    CHECK(memmem(frame.environment.ptr, frame.environment.len, "REQUEST_URI\0/deadly?a=b", 24) != NULL);
    CHECK_INT(frame.body.len, 0);
    visitor_free(v);
    CHECK_INT(open_descriptors(), before);
    close_lane();
}

static void test_incident_of_a_lost_request(void)
{
    open_lane(NULL, 2);
    visitor *v = visitor_new(AS_METHOD_POST, "POST", "/order");
    v->request.body.memory = AS_STR("two of them");
    v->request.body.length = 11;
    handler->ops->handle(handler, &v->request);
    receive_request();
    executor_died(EXECUTOR);
    as_incident incident = take_incident();
    CHECK_INT(incident.outcome, 502);
    CHECK_STR(recorded_frame(&incident).body, "two of them");
    visitor_free(v);
    close_lane();
}

static void test_incident_of_a_cut_response(void)
{
    open_lane(NULL, 2);
    visitor *v = get("/");
    as_request_frame frame = receive_request();
    int writer = send_stream(&frame);
    turn();
    executor_died(EXECUTOR);
    as_incident incident = take_incident();
    CHECK_INT(incident.outcome, AS_INCIDENT_CUT);
    close(incident.fd);
    close(writer);
    visitor_free(v);
    close_lane();
}

/* A body in a file is recorded up to its limit; equal requests have one fingerprint, others have others. */
static void test_incident_with_a_large_body(void)
{
    enum { LIMIT = 1024 * 1024, SIZE = LIMIT + 5000 };
    open_lane(NULL, 4);
    char *content = as_alloc(SIZE);
    memset(content, 'x', SIZE);
    uint64_t fingerprints[4];
    for (int i = 0; i < 4; i++) {
        if (i == 2)
            content[SIZE - 1] = 'y'; /* behind what counts */
        if (i == 3)
            content[AS_FINGERPRINT_BODY - 1] = 'y';
        visitor *v = visitor_new(AS_METHOD_POST, "POST", "/upload");
        v->request.body.fd = memfd_create("body", MFD_CLOEXEC);
        v->request.body.length = SIZE;
        CHECK_INT(write(v->request.body.fd, content, SIZE), SIZE);
        handler->ops->handle(handler, &v->request);
        delivery got;
        CHECK(receive_requests(&got));
        mark(&got.frames[0], EXECUTOR);
        close(got.fd);
        executor_died(EXECUTOR);
        as_incident incident = take_incident();
        CHECK(incident.truncated);
        CHECK_INT(lseek(incident.fd, 0, SEEK_END),
                  AS_REQUEST_HEAD_LEN + (long long)got.frames[0].head.environment_len + LIMIT);
        fingerprints[i] = incident.fingerprint;
        close(incident.fd);
        visitor_free(v);
    }
    CHECK(fingerprints[0] == fingerprints[1] && fingerprints[1] == fingerprints[2]);
    CHECK(fingerprints[2] != fingerprints[3]);
    as_free(content);
    close_lane();
}

/* Not marked: nobody knows which executor it was, and it has no beginning. */
static void test_incident_of_a_lost_datagram(void)
{
    open_lane(NULL, 2);
    visitor *v = send_request(AS_METHOD_POST, "POST", "/order");
    delivery got;
    CHECK(receive_requests(&got));
    executor_died(EXECUTOR);
    await(&v->errors);
    as_incident incident = take_incident();
    CHECK_INT(incident.executor, 0);
    CHECK_INT(incident.started_ns, 0);
    CHECK_INT(incident.outcome, 502);
    close(incident.fd);
    visitor_free(v);
    close_lane();
}

int main(void)
{
    int before = open_descriptors();
    test_death_with_retry();
    test_second_death();
    test_second_death_without_quarantine();
    test_second_death_of_several();
    test_second_death_beside_a_first();
    test_retry_always();
    test_what_is_repeated();
    test_death_without_retry();
    test_death_with_retry_off();
    test_death_after_the_answer();
    test_death_while_streaming();
    test_lost_datagram();
    test_lost_datagram_again_and_again();
    test_half_marked_batch();
    test_lost_datagram_in_a_busy_queue();
    test_incident_of_a_retried_request();
    test_incident_of_a_lost_request();
    test_incident_of_a_cut_response();
    test_incident_with_a_large_body();
    test_incident_of_a_lost_datagram();
    CHECK_INT(open_descriptors(), before);
    return check_result("pool_death");
}
