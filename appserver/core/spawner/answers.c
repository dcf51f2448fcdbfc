#include "spawner/answers.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    /* The system's want of memory, or of room for descriptors on their way (ETOOMANYREFS), has no event that tells its end. */
    RETRY_MS = 50,
    /* Frames that go in one datagram; a larger one goes by itself. */
    TOGETHER_SIZE = 32 * 1024,
};

typedef struct waiting_frame {
    struct waiting_frame *next;
    size_t len;
    int fd;
    char bytes[];
} waiting_frame;

/* The way to one loop of the core. */
typedef struct answer_lane {
    as_watch watch;
    as_timer retry;
    as_answers *answers;
    waiting_frame *first;
    waiting_frame **last;
    char *together; /* frames of this turn, without descriptors */
    size_t together_len;
} answer_lane;

struct as_answers {
    as_loop *loop;
    void (*room)(void *owner);
    void *owner;
    uint32_t waiting; /* frames on all lanes */
    int count;
    answer_lane lanes[];
};

/* AS_OK: sent, or nobody is there to read it; else AS_EAGAIN or AS_EFULL. */
static int send_now(int socket_fd, struct iovec *parts, size_t count, int fd)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    if (fd >= 0) {
        memset(&control, 0, sizeof(control));
        control.head =
            (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
        message.msg_control = &control;
        message.msg_controllen = sizeof(control.space);
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return AS_OK;
    if (errno == EAGAIN)
        return AS_EAGAIN;
    return errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS ? AS_EFULL : AS_OK;
}

static void retry_fires(as_timer *timer);

/* After a failed send: how the lane gets to know when to try again. */
static void await_room(answer_lane *lane, int verdict)
{
    as_loop *loop = lane->answers->loop;
    if (verdict == AS_EAGAIN && as_loop_watch(loop, &lane->watch, EPOLLOUT) == AS_OK)
        return;
    as_timer_set(loop, &lane->retry, retry_fires, RETRY_MS);
}

static void drop_first(answer_lane *lane)
{
    waiting_frame *frame = lane->first;
    lane->first = frame->next;
    if (lane->first == NULL)
        lane->last = &lane->first;
    if (frame->fd >= 0)
        close(frame->fd);
    as_free(frame);
    lane->answers->waiting--;
}

static void send_waiting(answer_lane *lane)
{
    as_answers *answers = lane->answers;
    while (lane->first != NULL) {
        struct iovec part = {lane->first->bytes, lane->first->len};
        int verdict = send_now(lane->watch.fd, &part, 1, lane->first->fd);
        if (verdict != AS_OK) {
            await_room(lane, verdict);
            return;
        }
        drop_first(lane);
    }
    if (answers->waiting == 0)
        answers->room(answers->owner);
}

static void socket_ready(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    answer_lane *ready = AS_CONTAINER_OF(watch, answer_lane, watch);
    as_loop_unwatch(ready->answers->loop, watch);
    send_waiting(ready);
}

static void retry_fires(as_timer *timer)
{
    send_waiting(AS_CONTAINER_OF(timer, answer_lane, retry));
}

static void put_off(answer_lane *lane, const struct iovec *parts, size_t count, int fd)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += parts[i].iov_len;
    waiting_frame *frame = as_alloc(sizeof(*frame) + len);
    frame->fd = fd;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].iov_len > 0)
            memcpy(frame->bytes + frame->len, parts[i].iov_base, parts[i].iov_len);
        frame->len += parts[i].iov_len;
    }
    *lane->last = frame;
    lane->last = &frame->next;
    lane->answers->waiting++;
}

/* Now, or when those before it have gone. */
static void send_parts(answer_lane *lane, struct iovec *parts, size_t count, int fd)
{
    if (lane->first != NULL) {
        put_off(lane, parts, count, fd);
        return;
    }
    int verdict = send_now(lane->watch.fd, parts, count, fd);
    if (verdict != AS_OK) {
        put_off(lane, parts, count, fd);
        await_room(lane, verdict);
    } else if (fd >= 0) {
        close(fd);
    }
}

static void flush_lane(answer_lane *lane)
{
    if (lane->together_len == 0)
        return;
    struct iovec part = {lane->together, lane->together_len};
    lane->together_len = 0;
    send_parts(lane, &part, 1, -1);
}

void as_answers_flush(as_answers *answers)
{
    for (int i = 0; i < answers->count; i++)
        flush_lane(&answers->lanes[i]);
}

static void add_to_others(answer_lane *lane, const struct iovec *parts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (parts[i].iov_len > 0)
            memcpy(lane->together + lane->together_len, parts[i].iov_base, parts[i].iov_len);
        lane->together_len += parts[i].iov_len;
    }
}

void as_answers_send(as_answers *answers, uint32_t to, as_answer_kind kind, const as_answer_head *head, as_str fields,
                     as_str body, int fd)
{
    assert(to < (uint32_t)answers->count && fields.len == head->fields_len);
    answer_lane *lane = &answers->lanes[to];
    char wire[AS_ANSWER_HEAD_LEN];
    as_answer_frame_begin(head, kind, wire);
    struct iovec parts[] = {{wire, sizeof(wire)}, {(char *)fields.ptr, fields.len}, {(char *)body.ptr, body.len}};
    size_t len = sizeof(wire) + fields.len + body.len;
    bool is_alone = fd >= 0 || len > TOGETHER_SIZE;
    if (is_alone || len > TOGETHER_SIZE - lane->together_len)
        flush_lane(lane);
    if (is_alone)
        send_parts(lane, parts, AS_COUNT_OF(parts), fd);
    else
        add_to_others(lane, parts, AS_COUNT_OF(parts));
}

bool as_answers_are_waiting(const as_answers *answers)
{
    return answers->waiting > 0;
}

as_answers *as_answers_new(as_loop *loop, const int *fds, int count, void (*room)(void *owner), void *owner)
{
    as_answers *answers = as_alloc(sizeof(*answers) + (size_t)count * sizeof(answer_lane));
    answers->loop = loop;
    answers->room = room;
    answers->owner = owner;
    answers->count = count;
    for (int i = 0; i < count; i++) {
        answer_lane *lane = &answers->lanes[i];
        lane->watch = (as_watch){.fd = fds[i], .ready = socket_ready};
        lane->answers = answers;
        lane->last = &lane->first;
        lane->together = as_alloc(TOGETHER_SIZE);
    }
    return answers;
}

void as_answers_free(as_answers *answers)
{
    for (int i = 0; i < answers->count; i++) {
        answer_lane *lane = &answers->lanes[i];
        as_timer_clear(answers->loop, &lane->retry);
        if (lane->first != NULL)
            as_loop_unwatch(answers->loop, &lane->watch);
        while (lane->first != NULL)
            drop_first(lane);
        as_free(lane->together);
    }
    as_free(answers);
}
