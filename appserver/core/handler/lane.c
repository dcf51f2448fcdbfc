#include "handler/lane.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FIRST_RUN_NS = AS_LANE_BATCH_RUN_NS, /* before anything was measured: requests go one by one */
    KEPT_ID_BITS = 40,
    LOOP_BITS = 8,
};

/* Requests in progress. */

static const uint8_t legal_steps[] = {
    [AS_PENDING_FREE] = 1 << AS_PENDING_WAITING,
    [AS_PENDING_WAITING] = 1 << AS_PENDING_SENT | 1 << AS_PENDING_FREE,
    [AS_PENDING_SENT] =
        1 << AS_PENDING_WAITING | 1 << AS_PENDING_DOCUMENT | 1 << AS_PENDING_STREAMING | 1 << AS_PENDING_FREE,
    [AS_PENDING_DOCUMENT] = 1 << AS_PENDING_WAITING | 1 << AS_PENDING_STREAMING | 1 << AS_PENDING_FREE,
    [AS_PENDING_STREAMING] = 1 << AS_PENDING_FREE,
};

void as_pending_set_phase(as_pending *pending, as_pending_phase phase)
{
    assert(legal_steps[pending->phase] & (1 << phase));
    pending->phase = (uint8_t)phase;
}

as_pending *as_pending_new(as_lane *lane, as_request *request)
{
    as_pending *pending = lane->free_pendings;
    if (pending != NULL)
        lane->free_pendings = pending->next;
    else
        pending = as_alloc(sizeof(*pending));
    *pending = (as_pending){
        .lane = lane,
        .request = request,
        .arrived_ns = lane->home->loop->now_ns,
        .slot = AS_LANE_NONE,
        .stream_fd = -1,
        .phase = AS_PENDING_FREE,
    };
    request->handler_state = pending;
    lane->active++;
    return pending;
}

bool as_pending_has_stream(const as_pending *pending)
{
    return pending->request->body.is_streamed || pending->request->upgrade.len > 0;
}

as_request *as_pending_free(as_pending *pending)
{
    as_lane *lane = pending->lane;
    as_request *request = pending->request;
    if (pending->phase == AS_PENDING_WAITING)
        as_lane_remove_waiting(lane, pending);
    as_pending_set_phase(pending, AS_PENDING_FREE);
    as_timer_clear(lane->home->loop, &pending->timer);
    if (pending->document != NULL)
        as_document_free(pending->document);
    if (pending->stream_fd >= 0)
        close(pending->stream_fd);
    if (pending->slot != AS_LANE_NONE)
        lane->slots[pending->slot].pending = NULL;
    request->handler_state = NULL;
    pending->request = NULL;
    pending->next = lane->free_pendings;
    lane->free_pendings = pending;
    assert(lane->active > 0);
    lane->active--;
    return request;
}

void as_lane_push_waiting(as_lane *lane, as_pending *pending, bool in_front)
{
    as_pending_set_phase(pending, AS_PENDING_WAITING);
    pending->previous = in_front ? NULL : lane->waiting_last;
    pending->next = in_front ? lane->waiting : NULL;
    *(pending->previous != NULL ? &pending->previous->next : &lane->waiting) = pending;
    *(pending->next != NULL ? &pending->next->previous : &lane->waiting_last) = pending;
    lane->waiting_len++;
    AS_COUNT(lane->counts, waiting, 1);
}

void as_lane_remove_waiting(as_lane *lane, as_pending *pending)
{
    assert(pending->phase == AS_PENDING_WAITING && lane->waiting_len > 0);
    *(pending->previous != NULL ? &pending->previous->next : &lane->waiting) = pending->next;
    *(pending->next != NULL ? &pending->next->previous : &lane->waiting_last) = pending->previous;
    pending->next = pending->previous = NULL;
    lane->waiting_len--;
    AS_COUNT(lane->counts, waiting, -1);
}

uint64_t as_pending_deadline_ns(const as_pending *pending)
{
    const as_pool_options *options = &pending->lane->options;
    /* The run of one whose body streams counts from the body's last byte. */
    if (options->request_time_ms == 0 || pending->request->body.is_streamed)
        return 0;
    int64_t allowed_ms = (int64_t)options->request_time_ms + options->queue_time_ms;
    return (uint64_t)(pending->arrived_ns + allowed_ms * AS_NS_PER_MS);
}

/* Slots. */

/* Ids look like those of the protocol (generation, loop, count) but are the lane's own: a request that is sent twice has two. */
static uint64_t next_wire_id(as_lane *lane)
{
    uint64_t count = ++lane->next_wire_id & ((1ull << KEPT_ID_BITS) - 1);
    uint64_t loop = (uint64_t)lane->home->index & ((1u << LOOP_BITS) - 1);
    return (uint64_t)(lane->options.generation & 0xffff) << (KEPT_ID_BITS + LOOP_BITS) | loop << KEPT_ID_BITS | count;
}

uint32_t as_lane_take_slot(as_lane *lane, as_pending *pending)
{
    uint32_t index = lane->free_slot;
    if (index == AS_LANE_NONE)
        return AS_LANE_NONE;
    as_lane_slot *slot = &lane->slots[index];
    assert(!slot->taken);
    lane->free_slot = slot->next_free;
    lane->sent++;
    *slot = (as_lane_slot){
        .pending = pending,
        .wire_id = next_wire_id(lane),
        .log_id = pending->request->id,
        .sent_ns = lane->home->loop->now_ns,
        .taken = true,
    };
    as_slot *shared = &lane->shared[index];
    AS_SLOT_STORE(shared, request_id, slot->wire_id);
    AS_SLOT_STORE(shared, log_id, slot->log_id);
    AS_SLOT_STORE(shared, arrived_ns, (uint64_t)pending->arrived_ns);
    AS_SLOT_STORE(shared, deadline_ns, as_pending_deadline_ns(pending));
    AS_SLOT_STORE(shared, cancelled, 0);
    AS_SLOT_STORE(shared, repeated, pending->retried);
    AS_SLOT_STORE_STATE(shared, AS_SLOT_QUEUED);
    pending->slot = index;
    return index;
}

void as_lane_give_slot(as_lane *lane, uint32_t index)
{
    as_lane_slot *slot = &lane->slots[index];
    assert(slot->taken && lane->sent > 0);
    if (slot->pending != NULL)
        slot->pending->slot = AS_LANE_NONE;
    if (slot->cancel_due)
        lane->cancels_due--;
    if (slot->datagram > lane->received && AS_SLOT_LOAD_STATE(&lane->shared[index]) == AS_SLOT_RUNNING)
        lane->received = slot->datagram;
    *slot = (as_lane_slot){.next_free = lane->free_slot};
    lane->free_slot = index;
    lane->sent--;
    /* An executor that comes to its frame only now sees that it is too late. */
    AS_SLOT_STORE(&lane->shared[index], request_id, 0);
    AS_SLOT_STORE_STATE(&lane->shared[index], AS_SLOT_FREE);
}

int64_t as_lane_slot_start_ns(const as_lane *lane, uint32_t index)
{
    const as_slot *shared = &lane->shared[index];
    if (AS_SLOT_LOAD_STATE(shared) != AS_SLOT_RUNNING)
        return -1;
    /* Other processes write there: whatever it says, a request has not begun before it was sent. */
    int64_t start_ns = (int64_t)AS_SLOT_LOAD(shared, start_ns);
    int64_t sent_ns = lane->slots[index].sent_ns;
    return start_ns < sent_ns ? sent_ns : start_ns;
}

static bool send_cancel(as_lane *lane, uint32_t index)
{
    char frame[AS_REQUEST_HEAD_LEN];
    as_request_head head = {
        .slot = lane->first_slot + index,
        .loop = (uint32_t)lane->home->index,
        .request_id = lane->slots[index].wire_id,
    };
    as_request_frame_begin(&head, AS_REQUEST_CANCEL, frame);
    return send(lane->options.queue_fd, frame, sizeof(frame), MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(frame);
}

static void cancel_slot(as_lane *lane, uint32_t index, as_slot_cancelled how)
{
    as_lane_slot *slot = &lane->slots[index];
    slot->cancelled = true;
    AS_SLOT_STORE(&lane->shared[index], cancelled, (uint32_t)how);
    if (lane->options.cancel && !send_cancel(lane, index)) {
        slot->cancel_due = true;
        lane->cancels_due++;
        as_lane_try_later(lane);
    }
}

void as_lane_cancel_slot(as_lane *lane, uint32_t index)
{
    cancel_slot(lane, index, AS_SLOT_CANCELLED);
}

void as_lane_disown_slot(as_lane *lane, uint32_t index)
{
    cancel_slot(lane, index, AS_SLOT_DISOWNED);
}

void as_lane_send_cancels(as_lane *lane)
{
    for (uint32_t i = 0; i < lane->slots_len && lane->cancels_due > 0; i++) {
        as_lane_slot *slot = &lane->slots[i];
        if (!slot->cancel_due)
            continue;
        if (!send_cancel(lane, i))
            return;
        slot->cancel_due = false;
        lane->cancels_due--;
    }
}

/* The lane. */

static void on_answers(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    as_lane_receive(AS_CONTAINER_OF(watch, as_lane, answers), AS_LANE_TURN_DATAGRAMS);
}

static void turn_ends(as_hook *hook)
{
    as_lane *lane = AS_CONTAINER_OF(hook, as_lane, hook);
    if (lane->waiting != NULL || lane->cancels_due > 0)
        as_lane_flush(lane);
}

as_slot_header *as_slot_segment_map(int fd, size_t *size)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return NULL;
    *size = (size_t)status.st_size;
    if (*size < sizeof(as_slot_header)) {
        errno = EINVAL;
        return NULL;
    }
    as_slot_header *segment = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (segment == MAP_FAILED)
        return NULL;
    if (segment->magic != AS_SLOT_MAGIC || segment->version != AS_SLOT_VERSION ||
        as_slot_segment_size(segment->slots) > *size) {
        munmap(segment, *size);
        errno = EINVAL;
        return NULL;
    }
    return segment;
}

static bool map_segment(as_lane *lane, int fd)
{
    as_slot_header *segment = as_slot_segment_map(fd, &lane->segment_size);
    if (segment == NULL)
        return false;
    if (lane->loops <= 0 || lane->home->index >= lane->loops || segment->loops != (uint32_t)lane->loops ||
        segment->slots < (uint32_t)lane->loops) {
        munmap(segment, lane->segment_size);
        errno = EINVAL;
        return false;
    }
    lane->segment = segment;
    return true;
}

/* What an earlier core left in the slots is nobody's any more; executors that still run for it see that from their slot. */
static void adopt_slots(as_lane *lane)
{
    AS_SLOT_STORE(lane->segment, generation, lane->options.generation & 0xffff);
    lane->slots_len = lane->segment->slots / (uint32_t)lane->loops;
    lane->first_slot = (uint32_t)lane->home->index * lane->slots_len;
    lane->shared = as_slot_records(lane->segment) + lane->first_slot;
    lane->slots = as_alloc(lane->slots_len * sizeof(*lane->slots));
    lane->free_slot = AS_LANE_NONE;
    for (uint32_t i = lane->slots_len; i-- > 0;) {
        AS_SLOT_STORE(&lane->shared[i], cancelled, 1);
        AS_SLOT_STORE_STATE(&lane->shared[i], AS_SLOT_FREE);
        lane->slots[i].next_free = lane->free_slot;
        lane->free_slot = i;
    }
}

as_lane *as_lane_new(as_home *home, const as_pool_options *options, int answer_fd, int loops)
{
    as_lane *lane = as_alloc(sizeof(*lane));
    lane->home = home;
    lane->options = *options;
    lane->loops = loops;
    lane->counts = &home->pools[options->index];
    lane->answer_fd = answer_fd;
    lane->answers = (as_watch){.fd = answer_fd, .ready = on_answers};
    if (!map_segment(lane, options->slots_fd) || as_loop_watch(home->loop, &lane->answers, EPOLLIN) != AS_OK) {
        int saved = errno;
        if (lane->segment != NULL)
            munmap(lane->segment, lane->segment_size);
        as_free(lane);
        close(answer_fd);
        errno = saved;
        return NULL;
    }
    lane->name = as_strdup(as_str_from(options->name));
    lane->options.name = lane->name;
    lane->share = lane->at_once = 1;
    lane->run_ns = FIRST_RUN_NS;
    lane->in = as_alloc(AS_DATAGRAM_MAX);
    lane->out = as_alloc(AS_DATAGRAM_MAX);
    as_shared_buffers_init(&lane->buffers, home->loop);
    adopt_slots(lane);
    as_loop_add_hook(home->loop, &lane->hook, turn_ends);
    return lane;
}

void as_lane_configure(as_lane *lane, const as_pool_options *options)
{
    lane->options.queue_limit = options->queue_limit;
    lane->options.queue_time_ms = options->queue_time_ms;
    lane->options.request_time_ms = options->request_time_ms;
    lane->options.idle_time_ms = options->idle_time_ms;
    lane->options.retry = options->retry;
    lane->options.cancel = options->cancel;
    lane->options.quarantine_ms = options->quarantine_ms;
}

void as_lane_free(as_lane *lane)
{
    as_loop *loop = lane->home->loop;
    assert(lane->active == 0 && lane->waiting == NULL);
    as_timer_clear(loop, &lane->retry);
    as_timer_clear(loop, &lane->lost);
    if (lane->answers.fd >= 0)
        as_loop_unwatch(loop, &lane->answers);
    close(lane->answer_fd);
    as_shared_buffers_free(&lane->buffers);
    munmap(lane->segment, lane->segment_size);
    while (lane->free_pendings != NULL) {
        as_pending *next = lane->free_pendings->next;
        as_free(lane->free_pendings);
        lane->free_pendings = next;
    }
    as_free(lane->slots);
    as_free(lane->name);
    as_free(lane->in);
    as_free(lane->out);
    as_free(lane);
}

void as_lane_set_streaming(as_lane *lane, bool stream_bodies, bool upgrades)
{
    lane->stream_bodies = stream_bodies;
    lane->upgrades = upgrades;
}

static uint32_t share_of(const as_lane *lane, uint32_t whole)
{
    uint32_t loops = (uint32_t)lane->loops;
    uint32_t share = whole / loops + ((uint32_t)lane->home->index < whole % loops);
    return share > 0 ? share : 1;
}

void as_lane_set_capacity(as_lane *lane, uint32_t capacity)
{
    lane->share = lane->at_once = share_of(lane, capacity);
}

void as_lane_set_at_once(as_lane *lane, uint32_t at_once)
{
    uint32_t share = share_of(lane, at_once);
    lane->at_once = share < lane->share ? share : lane->share;
}
