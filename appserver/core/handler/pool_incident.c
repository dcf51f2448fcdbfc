/* pool_incident.c: a request that went wrong in an executor, recorded so that somebody can look at it, or run it again, when it is long over. */
#include "handler/lane.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "handler/fingerprint.h"
#include "report/incident.h"

enum { BODY_MAX = 1024 * 1024 }; /* of a recorded body; docs/executor-protocol.md section 9 */

static bool write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static bool copy_file(int to, int from, size_t len)
{
    off_t at = 0;
    while (len > 0) {
        ssize_t n = sendfile(to, from, &at, len);
        if (n <= 0)
            return false;
        len -= (size_t)n;
    }
    return true;
}

/* The frame into `fd`, as an executor would receive it with its body inline. */
static bool write_frame(const as_pending *pending, int fd, uint64_t body_len)
{
    as_lane *lane = pending->lane;
    const as_request *request = pending->request;
    const as_pool_handler *handler = (const as_pool_handler *)request->handler;
    char *out = lane->out; /* nothing is being sent meanwhile */
    int environment_len = as_environment_build(&handler->environment, request, !lane->options.cancel,
                                               out + AS_REQUEST_HEAD_LEN, AS_DATAGRAM_MAX - AS_REQUEST_HEAD_LEN);
    if (environment_len < 0)
        return false;
    as_request_head head = {
        .slot = lane->first_slot + pending->slot,
        .loop = (uint32_t)lane->home->index,
        .request_id = lane->slots[pending->slot].wire_id,
        .deadline_ns = as_pending_deadline_ns(pending),
        .environment_len = (uint32_t)environment_len,
    };
    as_request_frame_begin(&head, AS_REQUEST_RUN, out);
    /* Longer than any that goes through a queue. */
    memcpy(&head, out, sizeof(head));
    head.length += (uint32_t)body_len;
    head.body_len = body_len;
    memcpy(out, &head, sizeof(head));
    if (!write_all(fd, out, AS_REQUEST_HEAD_LEN + (size_t)environment_len))
        return false;
    if (request->body.fd >= 0)
        return copy_file(fd, request->body.fd, body_len);
    return write_all(fd, request->body.memory.ptr, body_len);
}

/* -1 when there is no descriptor or no memory for it: the incident then goes without. */
static int record(const as_pending *pending, bool *truncated)
{
    const as_request_body *body = &pending->request->body;
    uint64_t body_len = body->fd >= 0 ? body->length : body->memory.len;
    *truncated = body->is_streamed || body_len > BODY_MAX; /* a streamed one has gone to the executor */
    int fd = memfd_create("request", MFD_CLOEXEC);
    if (fd >= 0 && !write_frame(pending, fd, body_len < BODY_MAX ? body_len : BODY_MAX)) {
        close(fd);
        return -1;
    }
    return fd;
}

void as_pending_name_incident(const as_pending *pending)
{
    char field[48];
    int len = snprintf(field, sizeof(field), "X-Incident: %016llx\r\n", (unsigned long long)pending->request->id);
    as_request_add_field(pending->request, as_str_of(field, (size_t)len));
}

void as_pending_record(const as_pending *pending, int cause, int outcome, uint32_t executor)
{
    const as_lane *lane = pending->lane;
    const as_slot *shared = &lane->shared[pending->slot];
    const as_pool_handler *handler = (const as_pool_handler *)pending->request->handler;
    if (!as_incidents_admit(lane->home->incidents, lane->home->loop->now_ns))
        return;
    int64_t start_ns = as_lane_slot_start_ns(lane, pending->slot);
    bool truncated;
    int fd = record(pending, &truncated);
    as_incident incident = {
        .pool = lane->options.index,
        .executor = executor,
        .slot = lane->first_slot + pending->slot,
        .thread = start_ns >= 0 ? AS_SLOT_LOAD(shared, thread) : 0,
        .request_id = pending->request->id,
        .wire_id = lane->slots[pending->slot].wire_id,
        .queued_ns = pending->arrived_ns,
        .started_ns = start_ns >= 0 ? start_ns : 0,
        .fingerprint = as_fingerprint(pending->request, handler->where),
        .cause = cause,
        .outcome = outcome,
        .truncated = truncated,
        .fd = fd,
    };
    as_incidents_add(lane->home->incidents, &incident);
}
