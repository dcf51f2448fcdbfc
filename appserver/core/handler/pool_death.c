/* pool_death.c: what becomes of the requests of an executor that has died.
 *
 * Those that it had marked are known by their slots. One that it had received and not yet marked has vanished: no slot names it, and it was never run. It is
 * found by what is left in the queue, which is first in, first out (docs/executor-protocol.md section 7). */
#include "handler/lane.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>

#include "handler/fingerprint.h"
#include "report/incident.h"

static void report(const as_lane *lane, const as_request *request, uint32_t executor, const char *what)
{
    as_event_emit(lane->home->events, AS_EVENT_INCIDENT, request->id, lane->options.index, executor, "%.*s %.*s: %s",
                  (int)request->head.method_text.len, request->head.method_text.ptr, (int)request->path.len,
                  request->path.ptr, what);
}

/* The client sees a cut-off response. */
static void cut(as_lane *lane, as_pending *pending, uint32_t executor)
{
    char what[64];
    snprintf(what, sizeof(what), "executor %u died in the middle of the response", executor);
    report(lane, pending->request, executor, what);
    as_pending_record(pending, AS_INCIDENT_DIED, AS_INCIDENT_CUT, executor);
    as_lane_give_slot(lane, pending->slot);
    as_request_stream_end(as_pending_free(pending), false);
}

static void fail(as_lane *lane, as_pending *pending, uint32_t executor, int status)
{
    int64_t start_ns = as_lane_slot_start_ns(lane, pending->slot);
    if (start_ns >= pending->arrived_ns) {
        pending->request->queue_ns = start_ns - pending->arrived_ns;
        pending->request->run_ns = lane->home->loop->now_ns - start_ns;
    }
    as_pending_record(pending, AS_INCIDENT_DIED, status, executor);
    as_lane_give_slot(lane, pending->slot);
    as_pending_name_incident(pending);
    as_pending_fail(pending, status, NULL);
}

/* It has killed two executors, and will be held back for a while. */
static void hold_back(as_lane *lane, as_pending *pending, uint32_t executor)
{
    const as_pool_options *options = &lane->options;
    const as_pool_handler *handler = (const as_pool_handler *)pending->request->handler;
    uint64_t fingerprint = as_fingerprint(pending->request, handler->where);
    int64_t time_ns = options->quarantine_ms * AS_NS_PER_MS;
    as_quarantine_add(options->quarantine, fingerprint, lane->home->loop->now_ns + time_ns);
    char what[128];
    snprintf(what, sizeof(what), "killed two executors and is quarantined for %u s; fingerprint %016llx",
             (options->quarantine_ms + AS_MS_PER_S - 1) / AS_MS_PER_S, (unsigned long long)fingerprint);
    report(lane, pending->request, executor, what);
    as_request_retry_after(pending->request, time_ns);
    AS_COUNT(lane->counts, quarantined, 1);
    fail(lane, pending, executor, 503);
}

static void lose_for_good(as_lane *lane, as_pending *pending, uint32_t executor)
{
    report(lane, pending->request, executor,
           pending->retried ? "lost with its executor, the second one" : "lost with its executor");
    AS_COUNT(lane->counts, lost, 1);
    fail(lane, pending, executor, 502);
}

/* The request was in an executor that has died. Which of an executor's requests has killed it nobody knows; but when it was the second one of a single
 * request, that is what both deaths have in common. */
static void lose(as_lane *lane, uint32_t index, uint32_t executor, uint32_t repeated)
{
    as_pending *pending = lane->slots[index].pending;
    if (pending == NULL) {
        as_lane_give_slot(lane, index);
    } else if (pending->phase == AS_PENDING_STREAMING) {
        cut(lane, pending, executor);
    } else if (as_pending_may_retry(pending)) {
        as_pending_record(pending, AS_INCIDENT_DIED, AS_INCIDENT_RETRIED, executor);
        as_lane_give_slot(lane, index);
        as_pending_retry(pending);
    } else if (pending->retried && repeated == 1 && lane->options.quarantine_ms > 0) {
        hold_back(lane, pending, executor);
    } else {
        lose_for_good(lane, pending, executor);
    }
}

/* No slot shows that it was received, so it was never run, and its executor did not die of it. */
static void lose_unmarked(as_lane *lane, uint32_t index)
{
    as_pending *pending = lane->slots[index].pending;
    if (pending == NULL) {
        as_lane_give_slot(lane, index);
    } else if (as_pending_is_repeatable(pending)) {
        as_pending_record(pending, AS_INCIDENT_DIED, AS_INCIDENT_RETRIED, 0);
        as_lane_give_slot(lane, index);
        as_pending_send_again(pending);
        AS_COUNT(lane->counts, retried, 1);
    } else {
        lose_for_good(lane, pending, 0);
    }
}

static bool queue_is_empty(const as_lane *lane)
{
    int unread = 1;
    return ioctl(lane->options.queue_fd, SIOCOUTQ, &unread) == 0 && unread == 0;
}

/* A later datagram of this lane has been received, and the queue is first in, first out. */
static void note_received(as_lane *lane)
{
    for (uint32_t i = 0; i < lane->slots_len; i++) {
        const as_lane_slot *slot = &lane->slots[i];
        if (slot->taken && slot->datagram > lane->received && AS_SLOT_LOAD_STATE(&lane->shared[i]) == AS_SLOT_RUNNING)
            lane->received = slot->datagram;
    }
}

static bool is_in_doubt(const as_lane *lane, uint32_t index)
{
    const as_lane_slot *slot = &lane->slots[index];
    return slot->taken && slot->sent_ns <= lane->death_ns && AS_SLOT_LOAD_STATE(&lane->shared[index]) == AS_SLOT_QUEUED;
}

static void look_for_lost_later(as_timer *timer);

/* An executor may die when it has received a datagram and not yet marked its slots: nobody will ever answer those. A slot whose datagram is no
 * longer in the queue is suspected first, and lost when it is not marked until the next look either: its receiver may be about to do it. */
static void look_for_lost(as_lane *lane)
{
    bool is_empty = queue_is_empty(lane);
    bool again = false;
    note_received(lane);
    for (uint32_t i = 0; i < lane->slots_len; i++) {
        as_lane_slot *slot = &lane->slots[i];
        if (!is_in_doubt(lane, i))
            continue;
        if (slot->suspected) {
            lose_unmarked(lane, i);
            continue;
        }
        slot->suspected = is_empty || slot->datagram < lane->received;
        again = true;
    }
    if (again)
        as_timer_set(lane->home->loop, &lane->lost, look_for_lost_later, AS_LANE_LOST_MS);
}

static void look_for_lost_later(as_timer *timer)
{
    look_for_lost(AS_CONTAINER_OF(timer, as_lane, lost));
}

void as_lane_executor_died(as_lane *lane, uint32_t executor, uint32_t repeated)
{
    while (as_lane_receive(lane, AS_LANE_TURN_DATAGRAMS)) {
    }
    for (uint32_t i = 0; i < lane->slots_len; i++) {
        const as_slot *shared = &lane->shared[i];
        if (lane->slots[i].taken && AS_SLOT_LOAD_STATE(shared) == AS_SLOT_RUNNING &&
            AS_SLOT_LOAD(shared, executor) == executor)
            lose(lane, i, executor, repeated);
    }
    lane->death_ns = lane->home->loop->now_ns;
    if (!as_timer_is_set(&lane->lost))
        look_for_lost(lane);
}

uint32_t as_pool_count_repeated(const as_slot_header *segment, uint32_t executor)
{
    const as_slot *records = (const as_slot *)(segment + 1);
    uint32_t count = 0;
    for (uint32_t i = 0; i < segment->slots; i++) {
        const as_slot *slot = &records[i];
        if (AS_SLOT_LOAD_STATE(slot) == AS_SLOT_RUNNING && AS_SLOT_LOAD(slot, executor) == executor)
            count += AS_SLOT_LOAD(slot, repeated) != 0;
    }
    return count;
}
