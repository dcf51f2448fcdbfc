/* pool_fixture.h: a lane with its loop, requests without a connection, and the executor played by the test over the other ends of the sockets.
 * For the tests of handler/pool*.c; the doubles stand for http/request.c. */
#ifndef AS_TESTS_POOL_FIXTURE_H
#define AS_TESTS_POOL_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "handler/lane.h"
#include "report/incident.h"

enum {
    SLOTS = 64,
    GENERATION = 5,
    EXECUTOR = 11,
    PATIENCE_MS = 20000, /* until a test gives up on an event; nothing is measured */
};

/* One request and what became of it. */
typedef struct visitor {
    as_request request;
    int responses;
    int errors;
    int error_status;
    int ends;
    bool complete;
    char extra[128];
    int stream_fd; /* the core's end, or -1 */
    int streams;
    int upgrades;
    int informed;
    int reentries;
    char reentry[256]; /* location|script name|path info */
    int files;
    int streams_sent;
    bool is_spent;
    bool has_all;
    int64_t moved_ns;
} visitor;

static as_loop loop;
static as_counters counters;
static as_home home;
static as_lane *lane;
static as_lane *lanes[1];
static as_handler *handler;
static as_peer peer;
static as_event_ring *events;
static as_incidents *incidents;
static as_quarantine quarantine;
static as_pool_counters pool_counters;
static int event_fd;
static int queue[2];   /* core, executor */
static int answers[2]; /* core, executor */
static int slots_fd;
static uint64_t next_id;

/* Doubles. */

static inline visitor *visitor_of(as_request *request)
{
    return AS_CONTAINER_OF(request, visitor, request);
}

void as_request_respond(as_request *request)
{
    visitor_of(request)->responses++;
    CHECK(request->response.status >= 200);
}

void as_request_error(as_request *request, int status, const char *detail)
{
    visitor *v = visitor_of(request);
    CHECK(request->handler_state == NULL);
    v->errors++;
    v->error_status = status;
    if (detail != NULL)
        as_event_emit(events, AS_EVENT_ERROR, request->id, -1, 0, "%s", detail);
}

void as_request_stream_end(as_request *request, bool complete)
{
    visitor *v = visitor_of(request);
    v->ends++;
    v->complete = complete;
}

bool as_request_has_all(const as_request *request)
{
    return visitor_of((as_request *)request)->has_all;
}

void as_request_add_field(as_request *request, as_str line)
{
    visitor *v = visitor_of(request);
    size_t used = strlen(v->extra);
    snprintf(v->extra + used, sizeof(v->extra) - used, "%.*s", (int)line.len, line.ptr);
}

void as_body_close_fd(as_body *body)
{
    close(body->fd);
}

void as_sendfile_free(as_sendfile *sendfile)
{
    (void)sendfile;
}

bool as_sendfile_is_named(const as_sendfile *sendfile, const as_request *request)
{
    return sendfile != NULL && memmem(request->response.fields.ptr, request->response.fields.len, "X-Sendfile", 10);
}

/* What its files would be is another test's. */
void as_sendfile_respond(const as_sendfile *sendfile, as_request *request, int pool)
{
    CHECK(sendfile != NULL && request->handler_state == NULL);
    CHECK_INT(pool, lane->options.index);
    CHECK_INT(request->response.body.kind, AS_BODY_NONE);
    visitor_of(request)->files++;
}

int as_request_open_stream(as_request *request)
{
    visitor *v = visitor_of(request);
    int pair[2];
    CHECK(!v->is_spent);
    if (v->stream_fd >= 0)
        close(v->stream_fd);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    v->stream_fd = pair[0];
    v->streams++;
    return pair[1];
}

void as_request_stream_is_sent(as_request *request)
{
    visitor_of(request)->streams_sent++;
}

void as_request_inform(as_request *request, int status, as_str fields)
{
    visitor *v = visitor_of(request);
    v->informed++;
    CHECK(status > 101 && status < 200);
    snprintf(v->extra, sizeof(v->extra), "%.*s", (int)fields.len, fields.ptr);
}

void as_request_reenter(as_request *request, as_str location, as_str script_name, as_str path_info)
{
    visitor *v = visitor_of(request);
    CHECK(request->handler_state == NULL);
    v->reentries++;
    snprintf(v->reentry, sizeof(v->reentry), "%.*s|%.*s|%.*s", (int)location.len, location.ptr, (int)script_name.len,
             script_name.ptr, (int)path_info.len, path_info.ptr);
}

void as_request_upgrade(as_request *request)
{
    visitor_of(request)->upgrades++;
    CHECK_INT(request->response.status, 101);
}

bool as_request_is_spent(const as_request *request)
{
    return visitor_of((as_request *)request)->is_spent;
}

int64_t as_request_moved_ns(const as_request *request)
{
    return visitor_of((as_request *)request)->moved_ns;
}

/* The core's side. */

static inline as_pool_options usual_options(void)
{
    return (as_pool_options){
        .index = 0,
        .name = "shop",
        .queue_fd = queue[0],
        .slots_fd = slots_fd,
        .generation = GENERATION,
        .queue_limit = 1000,
        .queue_time_ms = 60000,
        .request_time_ms = 60000,
        .retry = AS_RETRY_IDEMPOTENT,
        .quarantine_ms = 60000,
        .quarantine = &quarantine,
    };
}

static inline void make_segment(int loops)
{
    slots_fd = memfd_create("slots", MFD_CLOEXEC);
    CHECK(ftruncate(slots_fd, (off_t)as_slot_segment_size(SLOTS)) == 0);
    as_slot_header header = {
        .magic = AS_SLOT_MAGIC, .version = AS_SLOT_VERSION, .slots = SLOTS, .loops = (uint32_t)loops};
    CHECK(pwrite(slots_fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header));
}

static inline void open_sockets(void)
{
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, queue) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, answers) == 0);
}

/* One loop of one. `change` (maybe NULL) adjusts the options. */
static inline void open_lane(void (*change)(as_pool_options *options), uint32_t capacity)
{
    CHECK_INT(as_loop_init(&loop), AS_OK);
    counters = (as_counters){0};
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    events = as_event_ring_new(0, event_fd, &counters);
    incidents = as_incidents_new(event_fd);
    quarantine = (as_quarantine){0};
    pool_counters = (as_pool_counters){0};
    home = (as_home){
        .loop = &loop,
        .counters = &counters,
        .events = events,
        .incidents = incidents,
        .pools = &pool_counters,
        .lanes = lanes,
        .lanes_len = 1,
    };
    make_segment(1);
    open_sockets();
    as_pool_options options = usual_options();
    if (change != NULL)
        change(&options);
    lane = lanes[0] = as_lane_new(&home, &options, answers[0], 1);
    CHECK(lane != NULL);
    as_lane_set_capacity(lane, capacity);
    as_pool_handler_options made = {.pool = 0, .mounted = true, .server_software = "cherokee-app/0"};
    handler = as_pool_handler_new(&made);
    as_pool_handler_set_passing(handler, !options.cancel, false);
    peer =
        (as_peer){.remote_address = "192.0.2.7", .local_address = "198.51.100.1", .remote_port = 1, .local_port = 80};
}

static inline void close_lane(void)
{
    as_lane_free(lane);
    handler->ops->free(handler);
    as_loop_free(&loop);
    as_event_ring_free(events);
    as_incidents_free(incidents);
    close(event_fd);
    close(queue[0]);
    close(queue[1]);
    close(answers[1]);
    close(slots_fd);
}

static inline void turn(void)
{
    as_loop_turn(&loop, 0);
}

/* Turns until `*value` is not 0. */
static inline void await(const int *value)
{
    int64_t end_ns = as_clock_monotonic_ns() + PATIENCE_MS * AS_NS_PER_MS;
    while (*value == 0 && as_clock_monotonic_ns() < end_ns)
        as_loop_turn(&loop, 50);
    CHECK(*value != 0);
}

static inline visitor *visitor_new(as_method method, const char *method_text, const char *path)
{
    visitor *v = as_alloc(sizeof(*v));
    as_request *request = &v->request;
    v->stream_fd = -1;
    memset(request->head.known, -1, sizeof(request->head.known));
    as_arena_init(&request->arena);
    request->home = &home;
    request->handler = handler;
    request->peer = &peer;
    request->id = (uint64_t)GENERATION << 48 | 0xabc000 | ++next_id;
    request->head.method = method;
    request->head.method_text = as_str_from(method_text);
    request->head.target = request->path = as_str_from(path);
    request->head.minor = 1;
    request->head.content_length = -1;
    request->body.fd = -1;
    request->response.body.fd = -1;
    request->queue_ns = request->run_ns = request->cpu_us = -1;
    return v;
}

/* As the protocol does when the request is over. */
static inline void visitor_free(visitor *v)
{
    if (v->request.handler_state != NULL) {
        handler->ops->abandon(&v->request);
        CHECK(v->request.handler_state == NULL);
    }
    if (v->request.response.body.release != NULL)
        v->request.response.body.release(&v->request.response.body);
    if (v->request.body.fd >= 0)
        close(v->request.body.fd);
    if (v->stream_fd >= 0)
        close(v->stream_fd);
    as_arena_free(&v->request.arena);
    as_free(v);
}

static inline visitor *send_request(as_method method, const char *method_text, const char *path)
{
    visitor *v = visitor_new(method, method_text, path);
    CHECK_INT(handler->ops->handle(handler, &v->request), AS_VERDICT_PENDING);
    return v;
}

static inline visitor *get(const char *path)
{
    return send_request(AS_METHOD_GET, "GET", path);
}

/* Whether an event of this kind has been emitted that contains `text`; drops all events that are there. */
static inline bool event_seen(as_event_kind kind, const char *text)
{
    as_event event;
    bool seen = false;
    while (as_event_next(events, &event)) {
        if (event.kind == (uint32_t)kind && strstr(event.text, text) != NULL)
            seen = true;
    }
    return seen;
}

static inline void drop_incidents(void)
{
    as_incident incident;
    while (as_incidents_next(incidents, &incident))
        close(incident.fd);
}

/* As the server does when it hears of a death. */
static inline void executor_died(uint32_t executor)
{
    as_lane_executor_died(lane, executor, as_pool_count_repeated(lane->segment, executor));
}

/* The executor's side. */

static char datagram[AS_DATAGRAM_MAX];

/* What came in one datagram. */
typedef struct delivery {
    int count;
    int fd;
    as_request_frame frames[AS_LANE_MAX_BATCH];
} delivery;

/* False when the queue is empty. */
static inline bool receive_requests(delivery *got)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {datagram, sizeof(datagram)};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    *got = (delivery){.fd = -1};
    ssize_t n = recvmsg(queue[1], &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n <= 0)
        return false;
    struct cmsghdr *item = CMSG_FIRSTHDR(&message);
    if (item != NULL)
        memcpy(&got->fd, CMSG_DATA(item), sizeof(int));
    for (ssize_t at = 0; at < n;) {
        int consumed = as_request_frame_decode(datagram + at, (size_t)(n - at), &got->frames[got->count]);
        CHECK(consumed > 0);
        if (consumed <= 0)
            return false;
        at += consumed;
        got->count++;
    }
    return true;
}

static inline as_slot *slot_of_frame(const as_request_frame *frame)
{
    return as_slot_records(lane->segment) + frame->head.slot;
}

/* As an executor does with what it has received. */
static inline void mark(const as_request_frame *frame, uint32_t executor)
{
    as_slot *slot = slot_of_frame(frame);
    CHECK_INT(AS_SLOT_LOAD_STATE(slot), AS_SLOT_QUEUED);
    CHECK(AS_SLOT_LOAD(slot, request_id) == frame->head.request_id);
    AS_SLOT_STORE(slot, executor, executor);
    AS_SLOT_STORE(slot, start_ns, (uint64_t)as_clock_monotonic_ns());
    AS_SLOT_STORE_STATE(slot, AS_SLOT_RUNNING);
}

/* The next datagram, which has one request; marked as running. */
static inline as_request_frame receive_request(void)
{
    delivery got;
    CHECK(receive_requests(&got));
    CHECK_INT(got.count, 1);
    mark(&got.frames[0], EXECUTOR);
    return got.frames[0];
}

static inline bool queue_has_nothing(void)
{
    char byte;
    return recv(queue[1], &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

static inline void send_bytes(const char *bytes, size_t len, const int *fds, int count)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(4 * sizeof(int))];
    } control = {0};
    struct iovec part = {(void *)bytes, len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        struct cmsghdr *item = CMSG_FIRSTHDR(&message);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(item), fds, (size_t)count * sizeof(int));
    }
    CHECK(sendmsg(answers[1], &message, MSG_NOSIGNAL) == (ssize_t)len);
}

static inline size_t put_answer(char *out, const as_request_frame *to, as_answer_kind kind, int status,
                                const char *fields, const char *body)
{
    as_answer_head head = {
        .slot = to->head.slot,
        .status = (uint16_t)status,
        .request_id = to->head.request_id,
        .fields_len = (uint32_t)strlen(fields),
        .run_us = 20,
        .cpu_us = 15,
        .body_len = strlen(body),
    };
    as_answer_frame_begin(&head, kind, out);
    memcpy(out + AS_ANSWER_HEAD_LEN, fields, strlen(fields));
    memcpy(out + AS_ANSWER_HEAD_LEN + strlen(fields), body, strlen(body));
    return AS_ANSWER_HEAD_LEN + strlen(fields) + strlen(body);
}

static inline void send_answer(const as_request_frame *to, as_answer_kind kind, int status, const char *fields,
                               const char *body)
{
    char out[1024];
    size_t len = put_answer(out, to, kind, status, fields, body);
    send_bytes(out, len, NULL, 0);
}

/* An answer with a descriptor, which this closes. `body_len` as in the frame. */
static inline void send_flagged_fd(const as_request_frame *to, as_answer_kind kind, int status, const char *fields,
                                   uint64_t body_len, uint64_t offset, int fd, uint16_t flags)
{
    char out[1024];
    as_answer_head head = {
        .slot = to->head.slot,
        .status = (uint16_t)status,
        .request_id = to->head.request_id,
        .fields_len = (uint32_t)strlen(fields),
        .run_us = 20,
        .cpu_us = 15,
        .body_len = body_len,
        .file_offset = offset,
        .flags = flags,
    };
    as_answer_frame_begin(&head, kind, out);
    memcpy(out + AS_ANSWER_HEAD_LEN, fields, strlen(fields));
    send_bytes(out, AS_ANSWER_HEAD_LEN + strlen(fields), &fd, 1);
    close(fd);
}

static inline void send_answer_fd(const as_request_frame *to, as_answer_kind kind, int status, const char *fields,
                                  uint64_t body_len, uint64_t offset, int fd)
{
    send_flagged_fd(to, kind, status, fields, body_len, offset, fd, 0);
}

/* A 200 whose body is written to the returned end of a pipe. */
static inline int send_stream(const as_request_frame *to)
{
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    send_answer_fd(to, AS_ANSWER_STREAM, 200, "", AS_STREAM_UNKNOWN, 0, ends[0]);
    return ends[1];
}

static inline void send_end(const as_request_frame *to, int status)
{
    send_answer(to, AS_ANSWER_END, status, "", "");
}

static inline int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

#endif
