/* pool_answer.c: what executors answer. Another process writes these frames, so each is checked before any of it is believed, and whatever descriptor came
 * with it is closed unless a response takes it. */
#include "handler/lane.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/response_head.h"

enum {
    MAX_STRAY_FDS = 8,                     /* room for more than the one that is allowed, so that they can be closed */
    LONGEST_SAMPLE_NS = 100 * 1000 * 1000, /* one long run must not stop batching for long */
};

static const char *const bad_fields = "its executor sent a malformed header block";
static const char *const bad_frame = "its executor sent a malformed answer";

/* Averages follow slow runs fast and fast runs slowly: too small a batch costs a little time, too large a one costs latency. */
static void learn_run(as_lane *lane, const as_answer_head *head)
{
    /* One that used the CPU for most of its run did not wait for anything: what took the CPU from it (on one CPU that is usually this process, woken by an answer) is no
     * reason for smaller batches, which would only wake it more often. */
    uint32_t run_us = head->cpu_us > head->run_us / 2 ? head->cpu_us : head->run_us;
    int64_t sample_ns = (int64_t)run_us * 1000;
    if (sample_ns > LONGEST_SAMPLE_NS)
        sample_ns = LONGEST_SAMPLE_NS;
    int64_t difference = sample_ns - lane->run_ns;
    lane->run_ns += difference > 0 ? difference / 4 : difference / 16;
}

/* What the run has taken so far. */
static void note_run(as_request *request, const as_answer_head *answer)
{
    request->run_ns = (int64_t)answer->run_us * 1000;
    if (answer->cpu_us > 0)
        request->cpu_us = answer->cpu_us;
}

static void note_times(as_lane *lane, const as_pending *pending, const as_answer_head *answer)
{
    int64_t start_ns = as_lane_slot_start_ns(lane, pending->slot);
    if (start_ns >= pending->arrived_ns)
        pending->request->queue_ns = start_ns - pending->arrived_ns;
    note_run(pending->request, answer);
}

/* The executor has said all that it will: slot and record are given back. */
static as_request *finish(as_lane *lane, as_pending *pending, const as_answer_head *answer)
{
    note_times(lane, pending, answer);
    learn_run(lane, answer);
    as_lane_give_slot(lane, pending->slot);
    return as_pending_free(pending);
}

/* Ends a request whose executor broke the protocol or whose answer nobody can use. */
static void fail(as_lane *lane, as_pending *pending, const char *detail)
{
    bool is_streaming = pending->phase == AS_PENDING_STREAMING;
    as_lane_give_slot(lane, pending->slot);
    as_request *request = as_pending_free(pending);
    if (is_streaming)
        as_request_stream_end(request, false);
    else
        as_request_error(request, 502, detail);
}

/* Parses a copy of the header block, which then lives as long as the request. */
static int take_fields(as_request *request, const as_answer_frame *frame, as_str block, as_response_head *head)
{
    int err = as_response_fields_parse(block, &request->arena, head);
    if (err != AS_OK)
        return err;
    request->response = (as_response){
        .status = frame->head.status,
        .fields = head->fields,
        .has_date = head->has_date,
        .has_server = head->has_server,
        .body.fd = -1,
    };
    return AS_OK;
}

const as_sendfile *as_pending_sendfile(const as_request *request)
{
    return ((const as_pool_handler *)request->handler)->sendfile;
}

static bool names_file(const as_request *request)
{
    return as_sendfile_is_named(as_pending_sendfile(request), request);
}

/* What a HEAD request is told of a body that was not sent to us: what the program says, else nothing. */
static as_body body_of_head(as_str body, const as_response_head *head)
{
    if (head->content_length < 0 && body.len == 0)
        return (as_body){.kind = AS_BODY_NONE, .fd = -1};
    as_body made = as_body_memory(body);
    if (head->content_length >= 0)
        made.length = head->content_length;
    return made;
}

static void on_response(as_lane *lane, as_pending *pending, const as_answer_frame *frame)
{
    as_request *request = pending->request;
    const as_answer_head *answer = &frame->head;
    if (frame->fields.len == 0 && frame->body.len == 0 && answer->status >= 400) {
        request = finish(lane, pending, answer);
        as_request_error(request, answer->status, NULL);
        return;
    }
    /* Header block and body lie behind each other, so one copy takes both. */
    as_str copy = as_arena_copy(&request->arena, as_str_of(frame->fields.ptr, frame->fields.len + frame->body.len));
    as_str body = as_str_of(copy.ptr + frame->fields.len, frame->body.len);
    as_response_head head;
    if (take_fields(request, frame, as_str_of(copy.ptr, frame->fields.len), &head) != AS_OK) {
        fail(lane, pending, bad_fields);
        return;
    }
    if (names_file(request)) {
        finish(lane, pending, answer);
        as_sendfile_respond(as_pending_sendfile(request), request, lane->options.index);
        return;
    }
    request->response.body = request->head.method == AS_METHOD_HEAD ? body_of_head(body, &head) : as_body_memory(body);
    finish(lane, pending, answer);
    as_request_respond(request);
}

/* The descriptor of a `file` that nobody wants. */
static void drop_file(const as_answer_frame *frame, int fd)
{
    if (frame->head.kind == AS_ANSWER_FILE && (frame->head.flags & AS_FILE_LENT) != 0)
        as_shared_buffer_give_back(fd);
    close(fd);
}

/* The header block of an answer with a descriptor; closes `fd` and ends the request when it is malformed. */
static bool take_fields_with_fd(as_lane *lane, as_pending *pending, const as_answer_frame *frame, int fd)
{
    as_request *request = pending->request;
    as_response_head head;
    if (take_fields(request, frame, as_arena_copy(&request->arena, frame->fields), &head) == AS_OK)
        return true;
    drop_file(frame, fd);
    if (frame->head.kind == AS_ANSWER_STREAM) {
        /* Its `end` is still to come, and the executor is told not to go on. */
        as_lane_cancel_slot(lane, pending->slot);
        as_pending_fail(pending, 502, bad_fields);
    } else {
        fail(lane, pending, bad_fields);
    }
    return false;
}

/* False when the executor has lent something that is no buffer. */
static bool take_file(as_lane *lane, const as_answer_head *answer, int fd, as_body *body)
{
    if ((answer->flags & AS_FILE_LENT) != 0)
        return as_shared_buffers_body(&lane->buffers, fd, answer->file_offset, answer->body_len, body);
    *body = (as_body){
        .kind = AS_BODY_FILE,
        .fd = fd,
        .offset = (int64_t)answer->file_offset,
        .length = (int64_t)answer->body_len,
        .release = as_body_close_fd,
    };
    return true;
}

static void on_file(as_lane *lane, as_pending *pending, const as_answer_frame *frame, int fd)
{
    as_request *request = pending->request;
    if (!take_fields_with_fd(lane, pending, frame, fd))
        return;
    if (names_file(request)) {
        drop_file(frame, fd);
        finish(lane, pending, &frame->head);
        as_sendfile_respond(as_pending_sendfile(request), request, lane->options.index);
        return;
    }
    if (!take_file(lane, &frame->head, fd, &request->response.body)) {
        fail(lane, pending, "its executor sent a body in memory that cannot be read");
        return;
    }
    finish(lane, pending, &frame->head);
    as_request_respond(request);
}

static void on_stream(as_lane *lane, as_pending *pending, const as_answer_frame *frame, int fd)
{
    as_request *request = pending->request;
    if (!take_fields_with_fd(lane, pending, frame, fd))
        return;
    if (names_file(request)) {
        close(fd);
        note_times(lane, pending, &frame->head);
        as_lane_cancel_slot(lane, pending->slot); /* its `end` is still to come */
        as_pending_free(pending);
        as_sendfile_respond(as_pending_sendfile(request), request, lane->options.index);
        return;
    }
    /* The executor's end is another open file description: its writes still block. */
    fcntl(fd, F_SETFL, O_NONBLOCK);
    uint64_t length = frame->head.body_len;
    request->response.body = (as_body){
        .kind = AS_BODY_PIPE,
        .fd = fd,
        .length = length == AS_STREAM_UNKNOWN ? -1 : (int64_t)length,
        .release = as_body_close_fd,
        .idle_ms = lane->options.idle_time_ms,
    };
    note_times(lane, pending, &frame->head);
    as_pending_set_phase(pending, AS_PENDING_STREAMING);
    as_timer_clear(lane->home->loop, &pending->timer);
    as_request_respond(request);
}

static void on_upgrade(as_lane *lane, as_pending *pending, const as_answer_frame *frame)
{
    as_request *request = pending->request;
    as_response_head head;
    if (take_fields(request, frame, as_arena_copy(&request->arena, frame->fields), &head) != AS_OK) {
        as_lane_cancel_slot(lane, pending->slot); /* its `end` is still to come */
        as_pending_fail(pending, 502, bad_fields);
        return;
    }
    note_times(lane, pending, &frame->head);
    as_pending_set_phase(pending, AS_PENDING_STREAMING);
    as_timer_clear(lane->home->loop, &pending->timer);
    as_request_upgrade(request);
}

static void on_document(as_lane *lane, as_pending *pending, const as_answer_frame *frame, int fd)
{
    note_times(lane, pending, &frame->head);
    lane->slots[pending->slot].is_document = true;
    as_document_begin(pending, &frame->head, fd);
}

static void on_whole_document(as_lane *lane, as_pending *pending, const as_answer_frame *frame)
{
    bool is_used_up = as_pending_has_used_up(pending);
    note_times(lane, pending, &frame->head);
    learn_run(lane, &frame->head);
    as_lane_give_slot(lane, pending->slot);
    if (is_used_up)
        as_pending_fail_used_up(pending);
    else
        as_document_take(pending, &frame->head, frame->body);
}

static void report_bad_fields(const as_lane *lane, const as_request *request, const char *what)
{
    as_event_emit(lane->home->events, AS_EVENT_ERROR, request->id, lane->options.index, 0,
                  "pool %s: the fields of %s are malformed and are left out", lane->name, what);
}

static void take_trailers(const as_lane *lane, as_request *request, as_str fields)
{
    as_response_head head;
    if (as_response_fields_parse(as_arena_copy(&request->arena, fields), &request->arena, &head) == AS_OK)
        request->response.trailers = head.fields;
    else
        report_bad_fields(lane, request, "a trailer section");
}

/* Nothing of it is needed for the answer itself, which still comes. */
static void on_informational(const as_lane *lane, as_pending *pending, const as_answer_frame *frame)
{
    as_request *request = pending->request;
    as_response_head head;
    if (as_response_fields_parse(frame->fields, &request->arena, &head) == AS_OK)
        as_request_inform(request, frame->head.status, head.fields);
    else
        report_bad_fields(lane, request, "an interim response");
}

static void on_end(as_lane *lane, as_pending *pending, const as_answer_frame *frame)
{
    uint32_t index = pending->slot;
    bool is_document = lane->slots[index].is_document;
    /* The spawner looks at the time limit as well, and may be the first to act on it. */
    bool is_used_up = pending->phase == AS_PENDING_DOCUMENT && as_pending_has_used_up(pending);
    int status = frame->head.status;
    learn_run(lane, &frame->head);
    as_lane_give_slot(lane, index);
    if (pending->phase == AS_PENDING_DOCUMENT) {
        note_run(pending->request, &frame->head);
        if (is_used_up)
            as_pending_fail_used_up(pending);
        else
            as_document_end(pending, status);
        return;
    }
    as_request *request = as_pending_free(pending);
    note_run(request, &frame->head);
    if (frame->fields.len > 0)
        take_trailers(lane, request, frame->fields);
    as_request_stream_end(request, is_document ? status < AS_END_SIGNAL : status == 0);
}

/* It was not run: another executor may, whatever its method. Several that are about to stop may hand it back one after the other, so queue_time is its
 * only limit, which it still waits under. The stream of its body, which nobody has read from, comes back with it. */
static void on_skipped(as_lane *lane, as_pending *pending, int fd)
{
    as_lane_give_slot(lane, pending->slot);
    if (as_pending_has_stream(pending))
        pending->stream_fd = fd;
    else if (fd >= 0)
        close(fd);
    if (pending->request->body.is_streamed && fd < 0 && as_request_is_spent(pending->request))
        as_pending_fail(pending, 503, "its executor handed it back without the stream of its body");
    else
        as_pending_send_again(pending);
}

/* An answer that nobody waits for any more. */
static void on_late(as_lane *lane, uint32_t index, const as_answer_frame *frame)
{
    as_lane_slot *slot = &lane->slots[index];
    switch (frame->head.kind) {
    case AS_ANSWER_INFORMATIONAL:
        break;
    case AS_ANSWER_STREAM:
    case AS_ANSWER_UPGRADE:
        break; /* without a reader it ends soon, and says so */
    case AS_ANSWER_DOCUMENT:
        slot->is_document = true;
        break;
    default:
        as_lane_give_slot(lane, index);
    }
}

/* The order in which answers may come: one that ends the request, or `stream`, `document` or `upgrade` and then `end`. */
static bool is_expected(const as_pending *pending, const as_answer_frame *frame, int fd)
{
    if (as_answer_has_fd(frame->head.kind) != (fd >= 0) && frame->head.kind != AS_ANSWER_SKIPPED)
        return false;
    if (frame->head.kind == AS_ANSWER_UPGRADE && pending->request->upgrade.len == 0)
        return false;
    if (frame->head.kind == AS_ANSWER_END)
        return pending->phase == AS_PENDING_DOCUMENT || pending->phase == AS_PENDING_STREAMING;
    return pending->phase == AS_PENDING_SENT;
}

/* The slot of an answer, or AS_LANE_NONE when it is not one of ours or has been given to another request. */
static uint32_t slot_of(const as_lane *lane, const as_answer_head *head)
{
    uint32_t index = head->slot - lane->first_slot;
    if (head->slot < lane->first_slot || index >= lane->slots_len)
        return AS_LANE_NONE;
    const as_lane_slot *slot = &lane->slots[index];
    return slot->taken && slot->wire_id == head->request_id ? index : AS_LANE_NONE;
}

static void report_bad(as_lane *lane, uint32_t index)
{
    uint32_t executor = index == AS_LANE_NONE ? 0 : AS_SLOT_LOAD(&lane->shared[index], executor);
    uint64_t id = index == AS_LANE_NONE ? 0 : lane->slots[index].log_id;
    as_event_emit(lane->home->events, AS_EVENT_ERROR, id, lane->options.index, executor,
                  "pool %s: executor %u sent a malformed answer", lane->name, executor);
}

/* The request of a frame that cannot be used, when at least its head says which one it is, must not wait for its time to pass. */
static void drop_bad_frame(as_lane *lane, const char *buf, size_t len)
{
    as_answer_head head;
    uint32_t index = AS_LANE_NONE;
    if (len >= sizeof(head)) {
        memcpy(&head, buf, sizeof(head));
        index = slot_of(lane, &head);
    }
    report_bad(lane, index);
    if (index == AS_LANE_NONE)
        return;
    if (lane->slots[index].pending != NULL)
        fail(lane, lane->slots[index].pending, bad_frame);
    else
        as_lane_give_slot(lane, index);
}

/* Takes over `fd` (maybe -1). */
static void on_frame(as_lane *lane, const as_answer_frame *frame, int fd)
{
    uint32_t index = slot_of(lane, &frame->head);
    as_pending *pending = index == AS_LANE_NONE ? NULL : lane->slots[index].pending;
    if (pending == NULL) {
        if (fd >= 0)
            drop_file(frame, fd);
        if (index != AS_LANE_NONE)
            on_late(lane, index, frame);
        return;
    }
    if (!is_expected(pending, frame, fd)) {
        if (fd >= 0)
            drop_file(frame, fd);
        report_bad(lane, index);
        fail(lane, pending, bad_frame);
        return;
    }
    switch (frame->head.kind) {
    case AS_ANSWER_RESPONSE:
        on_response(lane, pending, frame);
        break;
    case AS_ANSWER_FILE:
        on_file(lane, pending, frame, fd);
        break;
    case AS_ANSWER_STREAM:
        on_stream(lane, pending, frame, fd);
        break;
    case AS_ANSWER_DOCUMENT:
        on_document(lane, pending, frame, fd);
        break;
    case AS_ANSWER_WHOLE_DOCUMENT:
        on_whole_document(lane, pending, frame);
        break;
    case AS_ANSWER_END:
        on_end(lane, pending, frame);
        break;
    case AS_ANSWER_INFORMATIONAL:
        on_informational(lane, pending, frame);
        break;
    case AS_ANSWER_UPGRADE:
        on_upgrade(lane, pending, frame);
        break;
    default:
        on_skipped(lane, pending, fd);
    }
}

/* `fd` belongs to the only frame of its datagram, so the first one takes it. */
static void on_datagram(as_lane *lane, size_t len, int fd)
{
    const char *at = lane->in;
    size_t left = len;
    while (left > 0) {
        as_answer_frame frame;
        int consumed = as_answer_frame_decode(at, left, &frame);
        bool is_alone = at == lane->in && consumed == (int)left;
        if (consumed < 0 || (fd >= 0 && !is_alone)) {
            if (fd >= 0)
                close(fd);
            drop_bad_frame(lane, at, left);
            return;
        }
        on_frame(lane, &frame, fd);
        fd = -1;
        at += consumed;
        left -= (size_t)consumed;
    }
}

/* The first descriptor of a message; any further ones are closed. -1 when there is none. */
static int take_fd(struct msghdr *message)
{
    int first = -1;
    for (struct cmsghdr *item = CMSG_FIRSTHDR(message); item != NULL; item = CMSG_NXTHDR(message, item)) {
        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof(int));
            if (first < 0)
                first = fd;
            else
                close(fd);
        }
    }
    return first;
}

/* Every executor's end has been closed, and the supervisor's: nobody will answer on this socket again. */
static void answers_are_over(as_lane *lane)
{
    as_loop_unwatch(lane->home->loop, &lane->answers);
    lane->answers.fd = -1;
    as_event_emit(lane->home->events, AS_EVENT_ERROR, 0, lane->options.index, 0,
                  "pool %s: the answer socket was closed", lane->name);
}

/* AS_OK when a datagram was handled, AS_EAGAIN when there is none. */
static int receive_one(as_lane *lane)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(MAX_STRAY_FDS * sizeof(int))];
    } control;
    struct iovec part = {lane->in, AS_DATAGRAM_MAX};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n;
    do {
        n = recvmsg(lane->answers.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return AS_EAGAIN;
    int fd = take_fd(&message);
    if (n == 0) {
        if (fd >= 0)
            close(fd);
        answers_are_over(lane);
        return AS_EAGAIN;
    }
    if (message.msg_flags & MSG_TRUNC) {
        if (fd >= 0)
            close(fd);
        drop_bad_frame(lane, lane->in, (size_t)n);
        return AS_OK;
    }
    on_datagram(lane, (size_t)n, fd);
    return AS_OK;
}

bool as_lane_receive(as_lane *lane, int datagrams)
{
    for (int i = 0; i < datagrams; i++) {
        if (lane->answers.fd < 0 || receive_one(lane) != AS_OK)
            return false;
    }
    return true;
}
