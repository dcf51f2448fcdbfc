/* spawner.c: from a request frame to a program that runs.
 *
 * One datagram is held at a time, and while frames of it wait for a place nothing more is received: what cannot run yet stays in the kernel's queue or
 * in the core, where it can be counted and timed out. Cancel frames then wait as well, so while the queue is not read the slots' `cancelled` flags are
 * looked at instead. */
#include "spawner/spawner.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spawner/cgi.h"
#include "spawner/running.h"

enum {
    /* max_programs beyond this is a mistake: each needs four descriptors here. */
    PROGRAMS_MAX = 4096,
    LOOPS_MAX = 64,
    /* How often slots are looked at while the queue is not read. */
    CANCEL_POLL_MS = 100,
};

struct as_spawner {
    as_loop loop;
    as_counters counters;
    as_running_set running;
    as_strays strays;
    as_rlimits limits;
    as_cgi_runner runner;
    as_answers *answers;
    as_event_ring *events;
    as_slot_header *segment;
    size_t segment_size;
    int loops;
    /* the queue */
    as_watch queue;
    bool is_watching;
    as_timer cancel_poll;
    char *datagram;
    size_t datagram_len;
    size_t datagram_at; /* the next frame that has not been dealt with */
    int body_fd;        /* that came with the datagram; -1 */
    bool fd_was_lost;
    /* the end */
    bool queue_ended;
    int problem; /* a negative as_err: the queue is read no more */
    int stops_taken;
    int stops_asked; /* any thread */
};

static as_slot *slot_of(const as_spawner *spawner, uint32_t index)
{
    return &as_slot_records(spawner->segment)[index];
}

/* --- frames --- */

/* From a core that is no more, or given up by the one that is: the slot is another one's. */
static bool is_stale(const as_spawner *spawner, const as_request_head *head)
{
    uint32_t generation = __atomic_load_n(&spawner->segment->generation, __ATOMIC_RELAXED);
    return head->request_id >> 48 != (generation & 0xffff) ||
           AS_SLOT_LOAD(slot_of(spawner, head->slot), request_id) != head->request_id;
}

/* Of as_cgi_run(): a request that is held is no problem. */
static int problem_of(int verdict)
{
    return verdict == AS_EAGAIN ? AS_OK : verdict;
}

static void deal_with_request(as_spawner *spawner, const as_request_frame *frame)
{
    const as_request_head *head = &frame->head;
    as_slot *slot = slot_of(spawner, head->slot);
    int64_t now_ns = spawner->loop.now_ns;
    if (is_stale(spawner, head) || AS_SLOT_LOAD(slot, cancelled) != 0) {
        as_cgi_skip(&spawner->runner, head);
    } else if (head->deadline_ns != 0 && (int64_t)head->deadline_ns <= now_ns) {
        as_cgi_refuse(&spawner->runner, head, 504);
    } else if (spawner->stops_taken > 1) {
        as_cgi_refuse(&spawner->runner, head, 503);
    } else {
        int body_fd = spawner->body_fd;
        spawner->body_fd = -1;
        spawner->problem = problem_of(as_cgi_run(&spawner->runner, frame, slot, now_ns, body_fd));
    }
}

static void deal_with(as_spawner *spawner, const as_request_frame *frame)
{
    if (frame->head.kind == AS_REQUEST_CANCEL)
        as_running_cancel(&spawner->running, frame->head.request_id);
    else
        deal_with_request(spawner, frame);
}

/* The protocol wants every request of a datagram marked before the first is run. */
static void mark(as_spawner *spawner, const as_request_head *head)
{
    as_slot *slot = slot_of(spawner, head->slot);
    if (head->kind != AS_REQUEST_RUN || is_stale(spawner, head))
        return;
    AS_SLOT_STORE(slot, executor, spawner->running.executor);
    AS_SLOT_STORE(slot, thread, 0);
    AS_SLOT_STORE(slot, process, 0);
    AS_SLOT_STORE(slot, start_ns, (uint64_t)spawner->loop.now_ns);
    AS_SLOT_STORE_STATE(slot, AS_SLOT_RUNNING);
}

static int check_and_mark(as_spawner *spawner)
{
    for (size_t at = 0; at < spawner->datagram_len;) {
        as_request_frame frame;
        int len = as_request_frame_decode(spawner->datagram + at, spawner->datagram_len - at, &frame);
        if (len < 0)
            return len;
        if (frame.head.slot >= spawner->segment->slots || frame.head.loop >= (uint32_t)spawner->loops)
            return AS_EBADFRAME;
        bool wants_fd = (frame.head.flags & (AS_REQUEST_BODY_FD | AS_REQUEST_BODY_STREAM)) != 0;
        if (wants_fd && spawner->body_fd < 0 && !spawner->fd_was_lost)
            return AS_EBADFRAME;
        at += (size_t)len;
    }
    for (size_t at = 0; at < spawner->datagram_len;) {
        as_request_frame frame;
        at += (size_t)as_request_frame_decode(spawner->datagram + at, spawner->datagram_len - at, &frame);
        mark(spawner, &frame.head);
    }
    return AS_OK;
}

static void drop_body_fd(as_spawner *spawner)
{
    if (spawner->body_fd >= 0)
        close(spawner->body_fd);
    spawner->body_fd = -1;
}

static bool has_frames(const as_spawner *spawner)
{
    return spawner->datagram_at < spawner->datagram_len || spawner->runner.is_held;
}

static bool has_place(const as_spawner *spawner)
{
    return spawner->running.count < spawner->running.limit;
}

/* Cancel frames need no place. */
static void work_on_frames(as_spawner *spawner)
{
    if (spawner->runner.is_held)
        spawner->problem = problem_of(as_cgi_resume(&spawner->runner));
    while (has_frames(spawner) && spawner->problem == AS_OK) {
        as_request_frame frame;
        if (spawner->runner.is_held)
            return;
        int len = as_request_frame_decode(spawner->datagram + spawner->datagram_at,
                                          spawner->datagram_len - spawner->datagram_at, &frame);
        assert(len > 0);
        if (frame.head.kind == AS_REQUEST_RUN && !has_place(spawner))
            return;
        spawner->datagram_at += (size_t)len;
        deal_with(spawner, &frame);
    }
    drop_body_fd(spawner);
}

/* --- the queue --- */

static void take_descriptors(as_spawner *spawner, struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        drop_body_fd(spawner);
        memcpy(&spawner->body_fd, CMSG_DATA(part), sizeof(int));
    }
    spawner->fd_was_lost = (message->msg_flags & MSG_CTRUNC) != 0;
}

/* One datagram. AS_OK, AS_EAGAIN, AS_ECLOSED or AS_EBADFRAME. */
static int receive(as_spawner *spawner)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {spawner->datagram, AS_DATAGRAM_MAX};
    /* Without the padding, which would be room for a second descriptor. */
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof(int))};
    spawner->datagram_at = spawner->datagram_len = 0;
    ssize_t len = recvmsg(spawner->queue.fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (len < 0)
        return errno == EAGAIN || errno == EINTR ? AS_EAGAIN : AS_ECLOSED;
    take_descriptors(spawner, &message);
    if (len == 0)
        return AS_ECLOSED;
    if (message.msg_flags & MSG_TRUNC)
        return AS_EBADFRAME;
    spawner->datagram_len = (size_t)len;
    return check_and_mark(spawner);
}

static bool is_stopping(const as_spawner *spawner)
{
    return spawner->queue_ended || spawner->stops_taken > 0 || spawner->problem != AS_OK;
}

static void poll_for_cancelled(as_timer *timer)
{
    as_spawner *spawner = AS_CONTAINER_OF(timer, as_spawner, cancel_poll);
    as_running_look_for_cancelled(&spawner->running);
    as_timer_set(&spawner->loop, timer, poll_for_cancelled, CANCEL_POLL_MS);
}

/* Reads the queue exactly while a request could be run. A queue at its end has to be unwatched: epoll reports a hang-up whether one asks or not. */
static void watch_queue_or_not(as_spawner *spawner)
{
    bool wanted = !is_stopping(spawner) && has_place(spawner) && !has_frames(spawner) &&
                  !as_answers_are_waiting(spawner->answers);
    if (wanted && !spawner->is_watching) {
        if (as_loop_watch(&spawner->loop, &spawner->queue, EPOLLIN) != AS_OK) {
            spawner->problem = AS_ESYSTEM;
            return;
        }
    } else if (!wanted && spawner->is_watching) {
        as_loop_unwatch(&spawner->loop, &spawner->queue);
    }
    spawner->is_watching = wanted;
    bool polls = !wanted && spawner->running.count > 0;
    if (polls && !as_timer_is_set(&spawner->cancel_poll))
        as_timer_set(&spawner->loop, &spawner->cancel_poll, poll_for_cancelled, CANCEL_POLL_MS);
    else if (!polls)
        as_timer_clear(&spawner->loop, &spawner->cancel_poll);
}

static void fail(as_spawner *spawner, int problem)
{
    spawner->problem = problem;
    spawner->runner.is_held = false;
    spawner->datagram_at = spawner->datagram_len = 0;
    drop_body_fd(spawner);
    as_running_kill_all(&spawner->running);
}

static void go_on(as_spawner *spawner)
{
    work_on_frames(spawner);
    if (spawner->problem != AS_OK)
        fail(spawner, spawner->problem);
    watch_queue_or_not(spawner);
}

static void queue_ready(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    as_spawner *spawner = AS_CONTAINER_OF(watch, as_spawner, queue);
    if (!spawner->is_watching)
        return;
    int verdict = receive(spawner);
    if (verdict == AS_ECLOSED)
        spawner->queue_ended = true;
    else if (verdict != AS_OK && verdict != AS_EAGAIN)
        spawner->problem = verdict;
    go_on(spawner);
}

static void program_ended(as_running_set *set)
{
    go_on(AS_CONTAINER_OF(set, as_spawner, running));
}

static void answers_have_room(void *owner)
{
    go_on(owner);
}

static void held_is_resumable(void *owner)
{
    go_on(owner);
}

/* --- life --- */

static bool is_over(const as_spawner *spawner)
{
    if (!is_stopping(spawner) || spawner->running.count > 0)
        return false;
    /* Answers that a core may yet read are part of finishing; nobody is waited for after a second stop. */
    return spawner->problem != AS_OK || spawner->stops_taken > 1 ||
           (!has_frames(spawner) && !as_answers_are_waiting(spawner->answers));
}

static void take_stops(as_spawner *spawner)
{
    int asked = __atomic_load_n(&spawner->stops_asked, __ATOMIC_ACQUIRE);
    if (asked == spawner->stops_taken)
        return;
    spawner->stops_taken = asked;
    if (asked > 1)
        as_running_kill_all(&spawner->running);
    go_on(spawner);
}

int as_spawner_run(as_spawner *spawner)
{
    as_launcher_note_process(&spawner->runner.launcher);
    go_on(spawner);
    take_stops(spawner);
    as_answers_flush(spawner->answers);
    while (!is_over(spawner)) {
        as_loop_turn(&spawner->loop, as_running_wait_ms(&spawner->running));
        take_stops(spawner);
        as_running_look_at_outputs(&spawner->running);
        as_answers_flush(spawner->answers);
    }
    watch_queue_or_not(spawner);
    return spawner->problem;
}

void as_spawner_stop(as_spawner *spawner)
{
    __atomic_add_fetch(&spawner->stops_asked, 1, __ATOMIC_RELEASE);
    as_loop_stop(&spawner->loop); /* its wake-up is what is wanted: turns are made by as_spawner_run() */
}

bool as_spawner_next_event(as_spawner *spawner, as_event *event)
{
    return as_event_next(spawner->events, event);
}

static int map_segment(as_spawner *spawner, int slots_fd)
{
    struct stat info;
    if (fstat(slots_fd, &info) < 0)
        return AS_ESYSTEM;
    if ((size_t)info.st_size < sizeof(as_slot_header))
        return AS_EINVALID;
    void *memory = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, slots_fd, 0);
    if (memory == MAP_FAILED)
        return AS_ESYSTEM;
    spawner->segment = memory;
    spawner->segment_size = (size_t)info.st_size;
    bool fits = spawner->segment->magic == AS_SLOT_MAGIC && spawner->segment->version == AS_SLOT_VERSION &&
                as_slot_segment_size(spawner->segment->slots) <= spawner->segment_size;
    return fits ? AS_OK : AS_EINVALID;
}

static int set_up(as_spawner *spawner, const as_spawner_options *options)
{
    if (options->loops < 1 || options->loops > LOOPS_MAX || options->max_programs < 1 ||
        options->max_programs > PROGRAMS_MAX)
        return AS_EINVALID;
    int verdict = map_segment(spawner, options->slots_fd);
    if (verdict == AS_OK)
        verdict = as_cgi_runner_init(&spawner->runner, options);
    if (verdict != AS_OK)
        return verdict;
    spawner->datagram = as_alloc(AS_DATAGRAM_MAX);
    spawner->events = as_event_ring_new(0, options->event_fd, &spawner->counters);
    if (spawner->events == NULL)
        return AS_ENOMEM;
    spawner->queue = (as_watch){.fd = options->queue_fd, .ready = queue_ready};
    spawner->loops = options->loops;
    spawner->answers = as_answers_new(&spawner->loop, options->answer_fds, options->loops, answers_have_room, spawner);
    spawner->running = (as_running_set){
        .loop = &spawner->loop,
        .answers = spawner->answers,
        .events = spawner->events,
        .counters = &spawner->counters,
        .executor = options->executor,
        .kill_grace_ms = options->kill_grace_ms,
        .request_time_ms = options->request_time_ms,
        .limit = options->max_programs,
        .limits = &spawner->limits,
        .strays = &spawner->strays,
        .finishes = options->finishes,
        .ended = program_ended,
    };
    as_running_set_init(&spawner->running);
    as_rlimits_plan(&spawner->limits, &options->limits);
    spawner->strays = (as_strays){
        .loop = &spawner->loop, .events = spawner->events, .executor = options->executor, .children_fd = -1};
    if (!options->leaves_daemons)
        as_strays_init(&spawner->strays);
    spawner->runner.running = &spawner->running;
    spawner->runner.answers = spawner->answers;
    spawner->runner.events = spawner->events;
    return as_cgi_runner_warm(&spawner->runner, options, &spawner->loop, held_is_resumable, spawner);
}

as_spawner *as_spawner_new(const as_spawner_options *options)
{
    as_spawner *spawner = as_alloc_lines(sizeof(*spawner));
    spawner->body_fd = spawner->runner.launcher.null_fd = spawner->strays.children_fd = -1;
    if (as_loop_init(&spawner->loop) != AS_OK) {
        as_free(spawner);
        return NULL;
    }
    int verdict = set_up(spawner, options);
    if (verdict == AS_OK)
        return spawner;
    int saved = verdict == AS_ESYSTEM ? errno : verdict == AS_ENOMEM ? ENOMEM : EINVAL;
    as_spawner_free(spawner);
    errno = saved;
    return NULL;
}

void as_spawner_free(as_spawner *spawner)
{
    if (spawner == NULL)
        return;
    drop_body_fd(spawner);
    as_timer_clear(&spawner->loop, &spawner->cancel_poll);
    as_cgi_runner_free(&spawner->runner);
    as_strays_free(&spawner->strays);
    as_running_set_free(&spawner->running);
    if (spawner->answers != NULL)
        as_answers_free(spawner->answers);
    as_loop_free(&spawner->loop);
    as_event_ring_free(spawner->events);
    if (spawner->segment != NULL)
        munmap(spawner->segment, spawner->segment_size);
    as_free(spawner->datagram);
    as_free(spawner);
}
