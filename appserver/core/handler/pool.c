/* pool.c: the handler of rules that lead to a pool: admission, dispatch, and giving up.
 *
 * While an executor is idle a request goes alone and at once. When all are busy, what has gathered in a turn goes together at its end, as many as the usual
 * run time makes harmless. The kernel's queue is kept short: what is in there can no longer be taken back, so whatever exceeds about two requests for each
 * executor waits here, where its time limit is exact. */
#include "handler/lane.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "handler/fingerprint.h"
#include "report/incident.h"

enum { COMPLAIN_EVERY_S = 1 }; /* overload refuses many requests at once; one line is enough */

static as_lane *lane_of(const as_handler *handler, const as_request *request)
{
    return request->home->lanes[((const as_pool_handler *)handler)->pool];
}

/* Dispatch. */

static uint32_t batch_limit(const as_lane *lane)
{
    int64_t run_ns = lane->run_ns > 0 ? lane->run_ns : 1;
    int64_t fitting = AS_LANE_BATCH_RUN_NS / run_ns;
    if (fitting < 1)
        return 1;
    return fitting < AS_LANE_MAX_BATCH ? (uint32_t)fitting : AS_LANE_MAX_BATCH;
}

/* One share of requests running, two queued behind them, and one batch. */
static uint32_t sent_limit(const as_lane *lane)
{
    return 3 * lane->share + batch_limit(lane);
}

/* What the descriptor is that goes with the request; 0: there is none. */
static uint32_t fd_flag(const as_request *request)
{
    if (request->body.is_streamed)
        return AS_REQUEST_BODY_STREAM;
    if (request->upgrade.len > 0)
        return AS_REQUEST_UPGRADE;
    return request->body.fd >= 0 ? AS_REQUEST_BODY_FD : 0;
}

/* The descriptor, which the request or its record owns; -1 with errno. */
static int fd_to_send(as_pending *pending)
{
    as_request *request = pending->request;
    if (!as_pending_has_stream(pending))
        return request->body.fd;
    if (pending->stream_fd < 0)
        pending->stream_fd = as_request_open_stream(request);
    return pending->stream_fd;
}

/* The request as a frame at `out`: its length, or AS_EFULL. Takes the slot only when the frame fits. */
static int put_frame(as_lane *lane, as_pending *pending, char *out, size_t room)
{
    const as_request *request = pending->request;
    const as_pool_handler *handler = (const as_pool_handler *)request->handler;
    uint32_t flags = fd_flag(request);
    size_t body_len = flags != 0 ? 0 : request->body.memory.len;
    if (room < AS_REQUEST_HEAD_LEN + body_len)
        return AS_EFULL;
    char *environment = out + AS_REQUEST_HEAD_LEN;
    int environment_len = as_environment_build(&handler->environment, request, handler->authorization, environment,
                                               room - AS_REQUEST_HEAD_LEN - body_len);
    if (environment_len < 0)
        return environment_len;
    if (body_len > 0)
        memcpy(environment + environment_len, request->body.memory.ptr, body_len);
    uint32_t slot = as_lane_take_slot(lane, pending);
    assert(slot != AS_LANE_NONE);
    as_request_head head = {
        .slot = lane->first_slot + slot,
        .loop = (uint32_t)lane->home->index,
        .request_id = lane->slots[slot].wire_id,
        .deadline_ns = as_pending_deadline_ns(pending),
        .environment_len = (uint32_t)environment_len,
        .flags = flags,
        .body_len = request->body.length,
    };
    as_request_frame_begin(&head, AS_REQUEST_RUN, out);
    return (int)(AS_REQUEST_HEAD_LEN + (size_t)environment_len + body_len);
}

static int send_datagram(as_lane *lane, size_t len, int fd)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {lane->out, len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        /* The executor shares a file's offset with us, and an earlier one may have moved it. */
        lseek(fd, 0, SEEK_SET);
        message.msg_control = &control;
        message.msg_controllen = sizeof(control.space);
        struct cmsghdr *item = CMSG_FIRSTHDR(&message);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(item), &fd, sizeof(int));
    }
    ssize_t n;
    do {
        n = sendmsg(lane->options.queue_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)len ? AS_OK : AS_ESYSTEM;
}

/* Descriptors in flight count against the sender's limit (ETOOMANYREFS); the others say that none is left for a stream socket, that the queue is full, or that for
 * the moment nobody can receive. In all of these the request stays where it is. */
static bool is_passing(int error)
{
    return error == EMFILE || error == ENFILE || error == EAGAIN || error == ENOBUFS || error == ENOMEM ||
           error == ETOOMANYREFS || error == EPIPE || error == ECONNRESET || error == ENOTCONN;
}

typedef struct batch {
    as_pending *members[AS_LANE_MAX_BATCH];
    uint32_t count;
    size_t len;
    bool has_fd;
} batch;

/* Frames of the first requests in the queue, one behind the other. One that comes with a descriptor wants a datagram of its own. False: the first one is too
 * large for any datagram. */
static bool gather(as_lane *lane, batch *together, uint32_t most)
{
    *together = (batch){0};
    as_pending *pending = lane->waiting;
    while (pending != NULL && together->count < most && lane->free_slot != AS_LANE_NONE) {
        bool has_fd = fd_flag(pending->request) != 0;
        if (has_fd && together->count > 0)
            break;
        int len = put_frame(lane, pending, lane->out + together->len, AS_DATAGRAM_MAX - together->len);
        if (len < 0)
            return together->count > 0;
        together->members[together->count++] = pending;
        together->len += (size_t)len;
        together->has_fd = has_fd;
        if (has_fd)
            break;
        pending = pending->next;
    }
    return true;
}

static void mark_sent(as_lane *lane, const batch *together)
{
    lane->datagrams++;
    for (uint32_t i = 0; i < together->count; i++) {
        as_pending *pending = together->members[i];
        as_lane_remove_waiting(lane, pending);
        as_pending_set_phase(pending, AS_PENDING_SENT);
        lane->slots[pending->slot].datagram = lane->datagrams;
    }
    AS_COUNT(lane->counts, dispatched, together->count);
}

/* The stream, if it has one, is the executor's now. Last: the request goes on. */
static void let_stream_go(as_pending *pending)
{
    if (pending->stream_fd < 0)
        return;
    close(pending->stream_fd);
    pending->stream_fd = -1;
    as_request_stream_is_sent(pending->request);
}

static void take_back(as_lane *lane, const batch *together)
{
    for (uint32_t i = together->count; i-- > 0;)
        as_lane_give_slot(lane, together->members[i]->slot);
}

static int send_batch(as_lane *lane, const batch *together)
{
    int fd = together->has_fd ? fd_to_send(together->members[0]) : -1;
    return together->has_fd && fd < 0 ? AS_ESYSTEM : send_datagram(lane, together->len, fd);
}

/* One datagram with at most `most` of the waiting requests. AS_OK when the queue has become shorter, AS_EAGAIN when it cannot now. */
static int send_some(as_lane *lane, uint32_t most)
{
    batch together;
    as_pending *first = lane->waiting;
    if (!gather(lane, &together, most)) {
        as_pending_fail(first, 431, "its target and header fields are too large for the queue of a pool");
        return AS_OK;
    }
    if (together.count == 0)
        return AS_EAGAIN;
    if (send_batch(lane, &together) == AS_OK) {
        mark_sent(lane, &together);
        if (together.has_fd)
            let_stream_go(together.members[0]);
        return AS_OK;
    }
    int error = errno;
    take_back(lane, &together);
    if (is_passing(error)) {
        as_lane_try_later(lane);
        return AS_EAGAIN;
    }
    as_event_emit(lane->home->events, AS_EVENT_ERROR, first->request->id, lane->options.index, 0,
                  "pool %s: a request cannot be sent to the queue: %s", lane->name, strerror(error));
    as_pending_fail(first, 503, NULL);
    return AS_OK;
}

void as_lane_flush(as_lane *lane)
{
    as_lane_send_cancels(lane);
    while (lane->waiting != NULL) {
        uint32_t most = 1;
        if (lane->sent >= lane->at_once) {
            uint32_t limit = sent_limit(lane);
            uint32_t harmless = batch_limit(lane);
            /* Answers come one or a few at a time. To fill up after each would make every datagram as small as that, and a datagram costs two processes a wake-up. */
            if (lane->sent >= limit || limit - lane->sent < harmless / 2)
                return;
            most = limit - lane->sent < harmless ? limit - lane->sent : harmless;
        }
        if (send_some(lane, most) != AS_OK)
            return;
    }
}

static void try_again(as_timer *timer)
{
    as_lane_flush(AS_CONTAINER_OF(timer, as_lane, retry));
}

void as_lane_try_later(as_lane *lane)
{
    if (!as_timer_is_set(&lane->retry))
        as_timer_set(lane->home->loop, &lane->retry, try_again, AS_LANE_RETRY_MS);
}

/* Giving up. */

void as_pending_fail(as_pending *pending, int status, const char *detail)
{
    as_request *request = as_pending_free(pending);
    as_request_error(request, status, detail);
}

void as_request_retry_after(as_request *request, int64_t delay_ns)
{
    char field[48];
    int len = snprintf(field, sizeof(field), "Retry-After: %lld\r\n",
                       (long long)((delay_ns + AS_NS_PER_S - 1) / AS_NS_PER_S));
    as_request_add_field(request, as_str_of(field, (size_t)len));
}

/* A lane sees only its own requests, so the pool's limit is divided like its capacity. */
static bool is_full(const as_lane *lane)
{
    if (lane->waiting == NULL && lane->sent < lane->share)
        return false;
    uint32_t loops = (uint32_t)lane->loops;
    uint32_t limit = (lane->options.queue_limit + loops - 1) / loops;
    uint32_t queued = lane->sent > lane->share ? lane->sent - lane->share : 0;
    return lane->waiting_len + queued >= limit;
}

static void complain(as_lane *lane, const char *what)
{
    int64_t now_ns = lane->home->loop->now_ns;
    if (lane->complained_ns != 0 && now_ns - lane->complained_ns < COMPLAIN_EVERY_S * AS_NS_PER_S)
        return;
    lane->complained_ns = now_ns;
    as_event_emit(lane->home->events, AS_EVENT_WARNING, 0, lane->options.index, 0, "pool %s: %s; %u waiting, %u sent",
                  lane->name, what, lane->waiting_len, lane->sent);
}

static void waited_too_long(as_pending *pending)
{
    as_lane *lane = pending->lane;
    complain(lane, "no executor became free within queue_time");
    AS_COUNT(lane->counts, refused_time, 1);
    pending->request->queue_ns = lane->home->loop->now_ns - pending->arrived_ns;
    as_request_add_field(pending->request, AS_STR("Retry-After: 1\r\n"));
    if (pending->slot != AS_LANE_NONE)
        as_lane_cancel_slot(lane, pending->slot);
    as_pending_fail(pending, 503, NULL);
}

static const char *const past_request_time = "its run exceeded request_time";

static void ran_too_long(as_pending *pending, int64_t start_ns)
{
    as_lane *lane = pending->lane;
    as_request *request = pending->request;
    int64_t limit_ns = lane->options.request_time_ms * AS_NS_PER_MS;
    bool is_silent = limit_ns == 0 || lane->home->loop->now_ns < start_ns + limit_ns;
    const char *detail = is_silent ? "its program was silent for idle_time" : past_request_time;
    request->queue_ns = start_ns - pending->arrived_ns;
    request->run_ns = lane->home->loop->now_ns - start_ns;
    uint32_t executor = AS_SLOT_LOAD(&lane->shared[pending->slot], executor);
    as_pending_record(pending, AS_INCIDENT_TIMEOUT, 504, executor);
    AS_COUNT(lane->counts, timeouts, 1);
    as_lane_cancel_slot(lane, pending->slot);
    if (!lane->options.cancel) {
        as_event about = {
            .kind = AS_EVENT_EXECUTOR_STUCK,
            .request_id = request->id,
            .pool = lane->options.index,
            .executor = executor,
            .slot = lane->first_slot + pending->slot,
            .wire_id = lane->slots[pending->slot].wire_id,
        };
        as_event_emit_about(lane->home->events, &about, "%.*s %.*s: %s", (int)request->head.method_text.len,
                            request->head.method_text.ptr, (int)request->path.len, request->path.ptr, detail);
    }
    as_pending_name_incident(pending);
    as_pending_fail(pending, 504, lane->options.cancel ? detail : NULL);
}

/* When its run will have taken too long, given that it began at `start_ns`; INT64_MAX for never. */
static int64_t run_ends_ns(const as_pending *pending, int64_t start_ns)
{
    const as_pool_options *options = &pending->lane->options;
    int64_t due_ns = INT64_MAX;
    if (pending->request->body.is_streamed && as_request_moved_ns(pending->request) > start_ns)
        start_ns = as_request_moved_ns(pending->request);
    if (options->request_time_ms != 0)
        due_ns = start_ns + options->request_time_ms * AS_NS_PER_MS;
    if (pending->phase == AS_PENDING_DOCUMENT && options->idle_time_ms != 0) {
        /* A program that takes in its body need not have said anything yet. */
        int64_t moved_ns = pending->request->body.is_streamed ? as_request_moved_ns(pending->request) : 0;
        int64_t read_ns = as_document_read_ns(pending->document);
        int64_t silent_ns = (read_ns > moved_ns ? read_ns : moved_ns) + options->idle_time_ms * AS_NS_PER_MS;
        due_ns = silent_ns < due_ns ? silent_ns : due_ns;
    }
    return due_ns;
}

static int64_t wait_ends_ns(const as_pending *pending)
{
    uint32_t queue_time_ms = pending->lane->options.queue_time_ms;
    return queue_time_ms != 0 ? pending->arrived_ns + queue_time_ms * AS_NS_PER_MS : INT64_MAX;
}

/* -1 while it waits. Nobody tells the core when a run begins; the slot does, when one looks. */
static int64_t start_ns_of(const as_pending *pending)
{
    return pending->slot == AS_LANE_NONE ? -1 : as_lane_slot_start_ns(pending->lane, pending->slot);
}

bool as_pending_has_used_up(const as_pending *pending)
{
    const as_lane *lane = pending->lane;
    int64_t limit_ns = lane->options.request_time_ms * AS_NS_PER_MS;
    int64_t start_ns = start_ns_of(pending);
    return limit_ns != 0 && start_ns >= 0 && lane->home->loop->now_ns >= start_ns + limit_ns;
}

void as_pending_fail_used_up(as_pending *pending)
{
    as_pending_fail(pending, 504, past_request_time);
}

static void time_is_over(as_timer *timer)
{
    as_pending *pending = AS_CONTAINER_OF(timer, as_pending, timer);
    int64_t now_ns = pending->lane->home->loop->now_ns;
    int64_t start_ns = start_ns_of(pending);
    if (start_ns >= 0 && now_ns >= run_ends_ns(pending, start_ns))
        ran_too_long(pending, start_ns);
    else if (start_ns < 0 && now_ns >= wait_ends_ns(pending))
        waited_too_long(pending);
    else
        as_pending_set_timer(pending);
}

void as_pending_set_timer(as_pending *pending)
{
    as_loop *loop = pending->lane->home->loop;
    int64_t start_ns = start_ns_of(pending);
    int64_t due_ns;
    if (start_ns >= 0) {
        due_ns = run_ends_ns(pending, start_ns);
    } else {
        /* It may begin at any moment, and then its run must not be noticed late. */
        int64_t earliest_ns = run_ends_ns(pending, loop->now_ns);
        due_ns = wait_ends_ns(pending);
        due_ns = earliest_ns < due_ns ? earliest_ns : due_ns;
    }
    if (due_ns == INT64_MAX) {
        as_timer_clear(loop, &pending->timer);
        return;
    }
    int64_t delay_ms = (due_ns - loop->now_ns + AS_NS_PER_MS - 1) / AS_NS_PER_MS;
    if (delay_ms < 1)
        delay_ms = 1;
    as_timer_set(loop, &pending->timer, time_is_over, delay_ms > INT32_MAX ? INT32_MAX : (uint32_t)delay_ms);
}

/* RFC 9110 section 9.2.2. */
static bool is_idempotent(as_method method)
{
    switch (method) {
    case AS_METHOD_GET:
    case AS_METHOD_HEAD:
    case AS_METHOD_PUT:
    case AS_METHOD_DELETE:
    case AS_METHOD_OPTIONS:
    case AS_METHOD_TRACE:
        return true;
    default:
        return false;
    }
}

void as_pending_send_again(as_pending *pending)
{
    as_lane_push_waiting(pending->lane, pending, true);
    /* Looked at here, too: whoever is sent again and again in short turn never sees its timer, which is set anew each time. */
    if (pending->lane->home->loop->now_ns >= wait_ends_ns(pending))
        waited_too_long(pending);
    else
        as_pending_set_timer(pending);
}

static bool is_spent(const as_request *request)
{
    return request->body.is_streamed && as_request_is_spent(request);
}

static bool has_idempotency_key(const as_head *head)
{
    for (int i = 0; i < head->fields_len; i++) {
        if (as_str_equal_nocase(head->fields[i].name, AS_STR("Idempotency-Key")))
            return head->fields[i].value.len > 0;
    }
    return false;
}

bool as_pending_is_repeatable(const as_pending *pending)
{
    const as_head *head = &pending->request->head;
    if (is_spent(pending->request))
        return false;
    switch (pending->lane->options.retry) {
    case AS_RETRY_NEVER:
        return false;
    case AS_RETRY_ALWAYS:
        return true;
    default:
        return is_idempotent(head->method) || has_idempotency_key(head);
    }
}

bool as_pending_may_retry(const as_pending *pending)
{
    return !pending->retried && as_pending_is_repeatable(pending);
}

void as_pending_retry(as_pending *pending)
{
    as_lane *lane = pending->lane;
    if (pending->document != NULL)
        as_document_free(pending->document);
    pending->document = NULL;
    pending->retried = true;
    pending->arrived_ns = lane->home->loop->now_ns;
    as_pending_send_again(pending);
    AS_COUNT(lane->counts, retried, 1);
}

/* The handler. */

/* Whether the request has killed two executors not long ago; then its response says when it may come again. */
static bool is_held_back(as_lane *lane, const as_pool_handler *handler, as_request *request)
{
    as_quarantine *quarantine = lane->options.quarantine;
    int64_t now_ns = lane->home->loop->now_ns;
    if (as_quarantine_is_empty(quarantine, now_ns) || lane->options.quarantine_ms == 0)
        return false;
    uint64_t fingerprint = as_fingerprint(request, handler->where);
    int64_t until_ns = as_quarantine_until(quarantine, fingerprint, now_ns);
    if (until_ns == 0)
        return false;
    if (as_quarantine_may_tell(quarantine, now_ns))
        as_event_emit(lane->home->events, AS_EVENT_WARNING, request->id, lane->options.index, 0,
                      "pool %s: refused, for it is quarantined: %.*s %.*s, fingerprint %016llx", lane->name,
                      (int)request->head.method_text.len, request->head.method_text.ptr, (int)request->path.len,
                      request->path.ptr, (unsigned long long)fingerprint);
    as_request_retry_after(request, until_ns - now_ns);
    return true;
}

static as_verdict pool_handle(const as_handler *handler, as_request *request)
{
    as_lane *lane = lane_of(handler, request);
    if (lane == NULL) { /* its segment could not be mapped, which the log says */
        request->response.status = 503;
        return AS_VERDICT_ERROR;
    }
    /* An error page must be there at once, and the pool may be what has failed. */
    if (request->error_status != 0) {
        request->response.status = request->error_status;
        return AS_VERDICT_ERROR;
    }
    if (is_held_back(lane, (const as_pool_handler *)handler, request)) {
        AS_COUNT(lane->counts, refused_quarantine, 1);
        request->response.status = 503;
        return AS_VERDICT_ERROR;
    }
    if (is_full(lane)) {
        complain(lane, "the queue is full");
        AS_COUNT(lane->counts, refused_full, 1);
        as_request_add_field(request, AS_STR("Retry-After: 1\r\n"));
        request->response.status = 503;
        return AS_VERDICT_ERROR;
    }
    bool at_once = lane->waiting == NULL && lane->sent < lane->at_once;
    as_pending *pending = as_pending_new(lane, request);
    as_lane_push_waiting(lane, pending, false);
    as_pending_set_timer(pending);
    if (at_once)
        send_some(lane, 1);
    return AS_VERDICT_PENDING;
}

static void pool_abandon(as_request *request)
{
    as_pending *pending = request->handler_state;
    as_lane *lane = pending->lane;
    /* One that only streams its answer notices by its pipe. */
    bool is_told =
        pending->phase != AS_PENDING_STREAMING || as_pending_has_stream(pending) || as_document_is_unwanted(pending);
    if (pending->slot != AS_LANE_NONE && lane->options.finishes)
        as_lane_disown_slot(lane, pending->slot);
    else if (pending->slot != AS_LANE_NONE && is_told)
        as_lane_cancel_slot(lane, pending->slot);
    as_pending_free(pending);
}

static void pool_free(as_handler *handler)
{
    as_pool_handler *pool_handler = (as_pool_handler *)handler;
    as_environment_free(&pool_handler->environment);
    as_sendfile_free(pool_handler->sendfile);
    as_free(pool_handler);
}

static bool pool_streams_body(const as_handler *handler, const as_request *request)
{
    const as_lane *lane = lane_of(handler, request);
    /* What the rule wants of programs, or what workers are able to. */
    bool is_wanted = lane != NULL && (((const as_pool_handler *)handler)->stream_bodies || lane->stream_bodies);
    return is_wanted && (request->head.chunked || request->head.content_length > AS_MAX_INLINE_BODY);
}

static bool pool_upgrades(const as_handler *handler, const as_request *request)
{
    const as_lane *lane = lane_of(handler, request);
    return lane != NULL && lane->upgrades;
}

static const as_handler_ops pool_ops = {
    .name = "pool",
    .wants_body = true,
    .streams_body = pool_streams_body,
    .upgrades = pool_upgrades,
    .handle = pool_handle,
    .abandon = pool_abandon,
    .free = pool_free,
};

void as_pool_handler_set_sendfile(as_handler *handler, as_sendfile *sendfile)
{
    as_pool_handler *pool_handler = (as_pool_handler *)handler;
    as_sendfile_free(pool_handler->sendfile);
    pool_handler->sendfile = sendfile;
}

void as_pool_handler_set_passing(as_handler *handler, bool authorization, bool stream_bodies)
{
    as_pool_handler *pool_handler = (as_pool_handler *)handler;
    pool_handler->authorization = authorization;
    pool_handler->stream_bodies = stream_bodies;
}

as_handler *as_pool_handler_new(const as_pool_handler_options *options)
{
    as_pool_handler *handler = as_alloc(sizeof(*handler));
    handler->base.ops = &pool_ops;
    handler->pool = options->pool;
    handler->where = as_fingerprint_text(options->extra);
    as_environment_init(&handler->environment, options);
    return &handler->base;
}
