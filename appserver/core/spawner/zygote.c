#include "spawner/zygote.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FIRST_REST_MS = 1000,
    LAST_REST_MS = 60 * 1000,
    /* A fork takes a millisecond, but longer when the CPU is busy and while the zygote loads what it has learnt. To start cold then would take many times
     * the CPU time of a fork and keep the zygote from its turn all the more; so only a zygote that hangs is given up. */
    PATIENCE_MS = 1000,
    /* Then it is started anew, so that what it has drawn or looked up at its start (the seed of its hashes, this year) is not the same for ever. */
    RUNS_MAX = 20000,
    AGE_MAX_S = 3600,
    REPORT_SIZE = 9000,
    DATAGRAM_MAX = 192 * 1024,
    RUN_HEAD = 48,
};

static void note(const as_zygote *zygote, as_event_kind kind, const char *text)
{
    as_event_emit(zygote->home->events, kind, 0, -1, zygote->home->executor, "warm %s%s%s: %s", zygote->path,
                  zygote->script[0] != '\0' ? " for " : "", zygote->script, text);
}

static int wait_for(pid_t pid)
{
    siginfo_t info = {0};
    int verdict;
    do {
        verdict = waitid(P_PID, (id_t)pid, &info, WEXITED);
    } while (verdict < 0 && errno == EINTR);
    return verdict == 0 && info.si_code == CLD_EXITED ? info.si_status : -1;
}

/* An event may be of a process that had this place before. */
static bool has_ended(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

/* --- what waits --- */

static void drop_parked(as_parked *parked)
{
    kill(parked->pid, SIGKILL);
    wait_for(parked->pid);
    as_loop_unwatch(parked->zygote->home->loop, &parked->exited);
    close(parked->exited.fd);
    close(parked->fd);
    parked->exited.fd = -1;
    parked->zygote->parked_count--;
}

static void drop_all(as_zygote *zygote)
{
    for (uint32_t i = 0; i < AS_PARKED_MAX; i++) {
        if (zygote->parked[i].exited.fd >= 0)
            drop_parked(&zygote->parked[i]);
    }
    for (uint32_t i = 0; i < zygote->ordered_count; i++)
        close(zygote->ordered[i]);
    zygote->ordered_count = 0;
    as_timer_clear(zygote->home->loop, &zygote->patience);
}

static as_parked *oldest(as_zygote *zygote)
{
    as_parked *found = NULL;
    for (uint32_t i = 0; i < AS_PARKED_MAX; i++) {
        as_parked *each = &zygote->parked[i];
        if (each->exited.fd >= 0 && (found == NULL || each->number < found->number))
            found = each;
    }
    return found;
}

static int send_with_fds(int socket_fd, const void *data, size_t len, const int *fds, size_t count)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(3 * sizeof(int))];
    } control;
    struct iovec part = {(void *)data, len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        memset(&control, 0, sizeof(control));
        control.head = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), fds, count * sizeof(int));
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? AS_ESYSTEM : AS_OK;
}

static void patience_is_over(as_timer *timer)
{
    as_zygote *zygote = AS_CONTAINER_OF(timer, as_zygote, patience);
    zygote->home->moved(zygote->home->owner);
}

/* Those that are gone and cannot be ordered now are ordered when the next one is taken. */
static void order_one(as_zygote *zygote)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return;
    if (send_with_fds(zygote->orders.fd, "F", 1, &pair[1], 1) == AS_OK) {
        if (zygote->ordered_count == 0)
            zygote->ordered_ns = zygote->home->loop->now_ns;
        zygote->ordered[zygote->ordered_count++] = pair[0];
    } else {
        close(pair[0]);
    }
    close(pair[1]);
}

static void order_missing(as_zygote *zygote)
{
    if (zygote->step != AS_ZYGOTE_READY)
        return;
    while (zygote->parked_count + zygote->ordered_count < zygote->wanted) {
        uint32_t before = zygote->ordered_count;
        order_one(zygote);
        if (zygote->ordered_count == before)
            return;
    }
}

static void parked_ended(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    as_parked *parked = AS_CONTAINER_OF(watch, as_parked, exited);
    if (parked->exited.fd >= 0 && has_ended(parked->pid)) {
        as_zygote *zygote = parked->zygote;
        drop_parked(parked);
        order_missing(zygote);
    }
}

static int take_first_ordered(as_zygote *zygote)
{
    int fd = zygote->ordered[0];
    zygote->ordered_count--;
    memmove(zygote->ordered, zygote->ordered + 1, zygote->ordered_count * sizeof(*zygote->ordered));
    zygote->ordered_ns = zygote->home->loop->now_ns;
    return fd;
}

/* False when it is no child of ours: then the zygote does not know what it says. */
static bool park(as_zygote *zygote, pid_t pid)
{
    siginfo_t info;
    int fd = take_first_ordered(zygote);
    int pidfd = -1;
    as_parked *place = NULL;
    for (uint32_t i = 0; i < AS_PARKED_MAX && place == NULL; i++) {
        if (zygote->parked[i].exited.fd < 0)
            place = &zygote->parked[i];
    }
    assert(place != NULL);
    if (pid > 1 && waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
        pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        close(fd);
        return false;
    }
    /* It does this itself, too, but may not have run yet; as one of the zygote's group it would be killed together with that. */
    setpgid((pid_t)pid, (pid_t)pid);
    *place = (as_parked){
        .exited = {.fd = pidfd, .ready = parked_ended},
        .zygote = zygote,
        .pid = pid,
        .fd = fd,
        .number = ++zygote->last_number,
    };
    zygote->parked_count++;
    if (as_loop_watch(zygote->home->loop, &place->exited, EPOLLIN) != AS_OK)
        drop_parked(place);
    return true;
}

/* --- the zygote --- */

static void rest_is_over(as_timer *timer)
{
    as_zygote_begin(AS_CONTAINER_OF(timer, as_zygote, rest));
}

/* Kills what there is of it. */
static void clear(as_zygote *zygote)
{
    as_loop *loop = zygote->home->loop;
    drop_all(zygote);
    as_watched_clear(&zygote->watched);
    as_timer_clear(loop, &zygote->rest);
    if (zygote->pid == 0)
        return;
    kill(zygote->pid, SIGKILL);
    kill(-zygote->pid, SIGKILL); /* what it tries out */
    wait_for(zygote->pid);
    zygote->pid = 0;
    as_loop_unwatch(loop, &zygote->exited);
    as_loop_unwatch(loop, &zygote->orders);
    close(zygote->exited.fd);
    close(zygote->orders.fd);
}

static void rest(as_zygote *zygote)
{
    zygote->rest_ms = zygote->rest_ms == 0 || zygote->runs > 0 ? FIRST_REST_MS : zygote->rest_ms * 2;
    if (zygote->rest_ms > LAST_REST_MS)
        zygote->rest_ms = LAST_REST_MS;
    zygote->step = AS_ZYGOTE_RESTING;
    as_timer_set(zygote->home->loop, &zygote->rest, rest_is_over, zygote->rest_ms);
}

static void is_useless(as_zygote *zygote, const char *reason)
{
    zygote->step = AS_ZYGOTE_USELESS;
    note(zygote, AS_EVENT_WARNING, reason);
    zygote->home->moved(zygote->home->owner);
}

static void zygote_ended(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    as_zygote *zygote = AS_CONTAINER_OF(watch, as_zygote, exited);
    if (zygote->pid == 0 || !has_ended(zygote->pid))
        return;
    siginfo_t info = {0};
    waitid(P_PID, (id_t)zygote->pid, &info, WEXITED | WNOHANG | WNOWAIT);
    clear(zygote);
    if (info.si_code == CLD_EXITED && info.si_status == AS_ZYGOTE_CANNOT) {
        is_useless(zygote, "this interpreter cannot be kept warm; its scripts run cold");
        return;
    }
    note(zygote, AS_EVENT_WARNING, "it has ended; scripts run cold until it is there again");
    rest(zygote);
    zygote->home->moved(zygote->home->owner);
}

static void begin_anew(as_zygote *zygote)
{
    clear(zygote);
    as_zygote_begin(zygote);
}

/* "C", a path, NUL, a reason. */
static void take_refusal(as_zygote *zygote, char *report, size_t len)
{
    char *reason = memchr(report, '\0', len);
    if (reason != NULL)
        zygote->home->refused(zygote->home->owner, report + 1, reason + 1);
}

static void take_report(as_zygote *zygote, char *report, size_t len)
{
    uint32_t number = 0;
    if (len >= 1 + sizeof(number))
        memcpy(&number, report + 1, sizeof(number));
    report[len] = '\0';
    switch (report[0]) {
    case 'R':
        zygote->step = AS_ZYGOTE_READY;
        zygote->runs = 0;
        order_missing(zygote);
        break;
    case 'P':
        if (zygote->ordered_count > 0 && park(zygote, (pid_t)number)) {
            zygote->home->moved(zygote->home->owner);
            break;
        }
        note(zygote, AS_EVENT_ERROR, "it has reported a process that is not there");
        clear(zygote);
        rest(zygote);
        zygote->home->moved(zygote->home->owner);
        break;
    case 'X':
        if (zygote->ordered_count > 0)
            close(take_first_ordered(zygote));
        break;
    case 'G': /* those that wait are not wrong, but the next ones are better */
        while (zygote->parked_count > 0)
            drop_parked(oldest(zygote));
        order_missing(zygote);
        break;
    case 'C':
        take_refusal(zygote, report, len);
        break;
    case 'W':
        if (as_watched_add(&zygote->watched, report + 1, len - 1) == AS_OK)
            break;
        clear(zygote);
        is_useless(zygote, "it depends on more files than can be watched; its scripts run cold");
        break;
    case 'Q':
        begin_anew(zygote);
        zygote->home->moved(zygote->home->owner);
        break;
    default:
        break;
    }
}

static void report_ready(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    as_zygote *zygote = AS_CONTAINER_OF(watch, as_zygote, orders);
    char report[REPORT_SIZE + 1];
    if (zygote->pid == 0)
        return;
    ssize_t len = recv(zygote->orders.fd, report, REPORT_SIZE, MSG_DONTWAIT);
    if (len > 0)
        take_report(zygote, report, (size_t)len);
    else if (len == 0 || (errno != EAGAIN && errno != EINTR))
        kill(zygote->pid, SIGKILL); /* it has closed its end; its exit is what tells */
}

static int start_process(as_zygote *zygote, int orders_fd)
{
    char numbers[7][24];
    char *argv[12];
    int count = 0;
    const long values[] = {getpid(), SYS_clone, SYS_recvmsg, SYS_prctl, SYS_dup3, SYS_close, SYS_exit_group};
    argv[count++] = zygote->name;
    if (zygote->option[0] != '\0')
        argv[count++] = zygote->option;
    argv[count++] = (char *)zygote->main_file;
    for (size_t i = 0; i < AS_COUNT_OF(values); i++) {
        snprintf(numbers[i], sizeof(numbers[i]), "%ld", values[i]);
        argv[count++] = numbers[i];
    }
    if (zygote->script[0] != '\0')
        argv[count++] = zygote->script;
    argv[count] = NULL;
    as_program program = {
        .path = zygote->path,
        .argv = argv,
        .envp = zygote->home->environment,
        .script = zygote->path,
        .directory = "/",
        .stdin_fd = orders_fd,
        .stdout_fd = zygote->home->launcher->null_fd,
        .stderr_fd = zygote->home->errors_fd,
    };
    if (as_program_start(zygote->home->launcher, &program) != AS_OK)
        return AS_ESYSTEM;
    zygote->pid = program.pid;
    zygote->exited = (as_watch){.fd = program.pidfd, .ready = zygote_ended};
    return AS_OK;
}

void as_zygote_begin(as_zygote *zygote)
{
    int pair[2];
    for (uint32_t i = 0; i < AS_PARKED_MAX; i++)
        zygote->parked[i].exited.fd = -1;
    if (zygote->wanted == 0)
        zygote->wanted = AS_PARKED_MIN;
    zygote->births++;
    zygote->runs = 0;
    zygote->used_ns = zygote->born_ns = zygote->home->loop->now_ns;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        rest(zygote);
        return;
    }
    int verdict = start_process(zygote, pair[1]);
    int error = errno;
    close(pair[1]);
    if (verdict != AS_OK) {
        close(pair[0]);
        errno = error;
        as_event_emit(zygote->home->events, AS_EVENT_WARNING, 0, -1, zygote->home->executor,
                      "warm %s: it cannot be started: %m", zygote->path);
        rest(zygote);
        return;
    }
    zygote->orders = (as_watch){.fd = pair[0], .ready = report_ready};
    zygote->step = AS_ZYGOTE_STARTING;
    if (as_loop_watch(zygote->home->loop, &zygote->exited, EPOLLIN) != AS_OK ||
        as_loop_watch(zygote->home->loop, &zygote->orders, EPOLLIN) != AS_OK) {
        clear(zygote);
        rest(zygote);
    }
}

void as_zygote_end(as_zygote *zygote)
{
    clear(zygote);
    zygote->step = AS_ZYGOTE_UNUSED;
}

int as_zygote_look(as_zygote *zygote)
{
    as_loop *loop = zygote->home->loop;
    if (zygote->step != AS_ZYGOTE_READY)
        return AS_ENOTFOUND;
    if (zygote->parked_count > 0)
        return AS_OK;
    if (zygote->wanted < AS_PARKED_MAX)
        zygote->wanted *= 2;
    order_missing(zygote);
    int64_t since_ms = (loop->now_ns - zygote->ordered_ns) / AS_NS_PER_MS;
    if (zygote->ordered_count == 0 || since_ms >= PATIENCE_MS)
        return AS_ENOTFOUND;
    as_timer_set(loop, &zygote->patience, patience_is_over, (uint32_t)(PATIENCE_MS - since_ms));
    return AS_EAGAIN;
}

/* "text\0" at `out`; NULL when there is no room. */
static char *put(char *out, const char *end, const char *text)
{
    size_t len = strlen(text) + 1;
    if (out == NULL || len > (size_t)(end - out))
        return NULL;
    memcpy(out, text, len);
    return out + len;
}

static void put_head(char out[RUN_HEAD], const as_file_mark *mark, uint32_t arguments, uint32_t variables)
{
    memcpy(out, mark, 40);
    memcpy(out + 40, &arguments, sizeof(arguments));
    memcpy(out + 44, &variables, sizeof(variables));
}

/* Bytes of the datagram for `program`; 0 when it is too large for one. */
static size_t write_run(char *out, const as_program *program, const as_file_mark *mark)
{
    const char *end = out + DATAGRAM_MAX;
    uint32_t arguments = 0;
    uint32_t variables = 0;
    char *at = put(out + RUN_HEAD, end, program->directory);
    at = put(at, end, program->path);
    at = put(at, end, program->script);
    for (; program->argv[arguments] != NULL; arguments++)
        at = put(at, end, program->argv[arguments]);
    for (; program->envp[variables] != NULL; variables++)
        at = put(at, end, program->envp[variables]);
    put_head(out, mark, arguments, variables);
    return at != NULL ? (size_t)(at - out) : 0;
}

int as_zygote_become(as_zygote *zygote, as_program *program, const as_file_mark *mark)
{
    const int fds[] = {program->stdin_fd, program->stdout_fd, program->stderr_fd};
    const char *changed = as_watched_find_changed(&zygote->watched);
    if (changed != NULL) {
        char text[AS_ZYGOTE_PATH];
        snprintf(text, sizeof(text), "%s has changed", changed);
        note(zygote, AS_EVENT_NOTE, text);
        begin_anew(zygote);
        return AS_ESYSTEM;
    }
    as_parked *parked = oldest(zygote);
    size_t len = write_run(zygote->home->datagram, program, mark);
    assert(parked != NULL);
    if (len == 0)
        return AS_ESYSTEM;
    if (as_rlimits_apply(program->limits, parked->pid) != AS_OK ||
        send_with_fds(parked->fd, zygote->home->datagram, len, fds, AS_COUNT_OF(fds)) != AS_OK) {
        drop_parked(parked);
        order_missing(zygote);
        return AS_ESYSTEM;
    }
    program->pid = parked->pid;
    program->pidfd = parked->exited.fd;
    as_loop_unwatch(zygote->home->loop, &parked->exited);
    close(parked->fd);
    parked->exited.fd = -1;
    zygote->parked_count--;
    zygote->used_ns = zygote->home->loop->now_ns;
    zygote->runs++;
    if (zygote->runs >= RUNS_MAX || zygote->used_ns - zygote->born_ns > AGE_MAX_S * AS_NS_PER_S)
        begin_anew(zygote);
    else
        order_missing(zygote);
    return AS_OK;
}

void as_zygote_tell_script(as_zygote *zygote, const char *path, const as_file_mark *mark)
{
    char *out = zygote->home->datagram;
    out[0] = 'S';
    put_head(out + 1, mark, 0, 0);
    size_t len = strlen(path);
    if (zygote->step != AS_ZYGOTE_READY || len > AS_ZYGOTE_PATH)
        return;
    memcpy(out + 1 + RUN_HEAD, path, len);
    if (send_with_fds(zygote->orders.fd, out, 1 + RUN_HEAD + len, NULL, 0) != AS_OK)
        return; /* each process compiles it for itself */
}

void as_zygote_relax(as_zygote *zygote)
{
    if (zygote->wanted > AS_PARKED_MIN)
        zygote->wanted /= 2;
    while (zygote->parked_count > zygote->wanted)
        drop_parked(oldest(zygote));
}

bool as_zygote_has(const as_zygote *zygote, pid_t pid)
{
    for (uint32_t i = 0; i < AS_PARKED_MAX; i++) {
        if (zygote->parked[i].exited.fd >= 0 && zygote->parked[i].pid == pid)
            return true;
    }
    return zygote->pid == pid;
}
