#include "spawner/running.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    /* One read takes all that a pipe holds. */
    READ_SIZE = 64 * 1024,
    /* What is read of stderr after the end: a process that has left the group may still write. */
    LAST_READS = 16,
    /* How often outputs are looked at that the core has not got; one that had something twice is handed over, so that the first bytes of a long answer wait two of these at most. And how
     * long the core has not got one that is silent. */
    LOOK_MS = 2,
    SILENT_MS = 100,
    REASON_SIZE = 160,
};

/* To the group, and to the program itself when it has gone over to another one: its children may be in the old one still. */
static void send_signal(const as_running *running, int number)
{
    kill(-running->pid, number);
    if (getpgid(running->pid) != running->pid)
        kill(running->pid, number);
}

/* --- what the core has not got yet --- */

static void hold(as_running *running)
{
    as_running_set *set = running->set;
    running->next_held = set->held;
    running->held_link = &set->held;
    if (set->held != NULL)
        set->held->held_link = &running->next_held;
    set->held = running;
}

/* The descriptor, which is the caller's now. */
static int let_go(as_running *running)
{
    int fd = running->output_fd;
    *running->held_link = running->next_held;
    if (running->next_held != NULL)
        running->next_held->held_link = running->held_link;
    running->output_fd = -1;
    return fd;
}

static as_answer_head answer_head(const as_running *running)
{
    return (as_answer_head){
        .slot = running->slot_index,
        .request_id = running->request_id,
        .run_us = (uint32_t)((running->set->loop->now_ns - running->start_ns) / 1000),
    };
}

/* The same for an answer that is about the program's output. */
static as_answer_head document_head(const as_running *running)
{
    as_answer_head head = answer_head(running);
    head.flags = running->document_flags;
    head.file_offset = running->script_len;
    return head;
}

static void hand_over(as_running *running)
{
    if (running->set
            ->finishes) /* when there is no descriptor for it, the program ends by its next write, as it would without this */
        running->unread.fd = fcntl(running->output_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    as_answer_head head = document_head(running);
    as_answers_send(running->set->answers, running->loop, AS_ANSWER_DOCUMENT, &head, AS_STR_NONE, AS_STR_NONE,
                    let_go(running));
}

static void drop_output(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    char bytes[READ_SIZE];
    as_running *running = AS_CONTAINER_OF(watch, as_running, unread);
    if (running->step == AS_RUNNING_UNUSED || !running->is_disowned || read(watch->fd, bytes, sizeof(bytes)) != 0)
        return;
    as_loop_unwatch(running->set->loop, watch); /* its end: it has nothing more to say */
}

/* Its client has gone. It goes on, so somebody has to read what it writes. */
static void disown(as_running *running)
{
    if (running->is_disowned)
        return;
    running->is_disowned = true;
    if (running->output_fd >= 0)
        running->unread.fd = let_go(running);
    if (running->unread.fd >= 0 && as_loop_watch(running->set->loop, &running->unread, EPOLLIN) != AS_OK)
        as_running_end(running);
}

int as_running_wait_ms(const as_running_set *set)
{
    return set->held != NULL ? LOOK_MS : -1;
}

/* False when it is treated like any other; of a trial that has come to nothing only the one that is answered is. */
static bool is_kept_for_trial(as_running *running)
{
    if (running->trial == NULL)
        return false;
    if (running->set->loop->now_ns - running->start_ns >= AS_TRIAL_MS * AS_NS_PER_MS ||
        as_trial_is_too_much(running->output_fd))
        as_trial_abandon(running->trial);
    if (!as_trial_is_abandoned(running->trial))
        return true;
    if (running->slot == NULL)
        as_running_end(running);
    return running->slot == NULL;
}

void as_running_look_at_outputs(as_running_set *set)
{
    int64_t now_ns = set->loop->now_ns;
    if (set->held == NULL || now_ns - set->looked_ns < LOOK_MS * AS_NS_PER_MS)
        return;
    set->looked_ns = now_ns;
    nfds_t count = 0;
    for (const as_running *each = set->held; each != NULL; each = each->next_held)
        set->polled[count++] = (struct pollfd){.fd = each->output_fd, .events = POLLIN};
    if (poll(set->polled, count, 0) < 0)
        return;
    const struct pollfd *polled = set->polled;
    for (as_running *each = set->held; each != NULL;) {
        as_running *running = each;
        each = each->next_held;
        if (is_kept_for_trial(running)) {
            polled++;
            continue;
        }
        bool goes_on = running->has_written;
        running->has_written = polled++->revents != 0;
        if ((goes_on && running->has_written) || now_ns - running->start_ns >= SILENT_MS * AS_NS_PER_MS)
            hand_over(running);
    }
}

/* Of a program that has ended, with its group. False when it is left to the core: for more than goes in one frame, and when the output may be incomplete. */
static bool send_whole(as_running *running, const as_answer_head *end)
{
    as_running_set *set = running->set;
    int size = 0;
    if (running->output_fd < 0 || end->status >= AS_END_SIGNAL || running->step != AS_RUNNING_FREELY ||
        ioctl(running->output_fd, FIONREAD, &size) < 0 || size > AS_RUNNING_OUTPUT)
        return false;
    ssize_t len = size > 0 ? read(running->output_fd, set->output, AS_RUNNING_OUTPUT) : 0;
    if (len < 0)
        return false;
    close(let_go(running));
    as_answer_head head = document_head(running);
    head.status = end->status;
    head.cpu_us = end->cpu_us;
    head.body_len = (uint64_t)len;
    as_answers_send(set->answers, running->loop, AS_ANSWER_WHOLE_DOCUMENT, &head, AS_STR_NONE,
                    as_str_of(set->output, (size_t)len), -1);
    return true;
}

/* --- stderr --- */

static void emit_line(void *owner, as_str line)
{
    as_running *running = owner;
    as_running_set *set = running->set;
    /* No name has a tab in it, while it may well have a colon. */
    as_event_emit(set->events, AS_EVENT_PROGRAM_STDERR, running->log_id, -1, set->executor, "%s\t%.*s", running->name,
                  (int)line.len, line.ptr);
}

/* True while there may be more. */
static bool read_errors(as_running *running)
{
    char bytes[READ_SIZE];
    ssize_t len = read(running->errors.fd, bytes, sizeof(bytes));
    if (len <= 0)
        return len < 0 && errno == EINTR;
    if (running->trial != NULL)
        as_trial_add_errors(running->trial, running->side, as_str_of(bytes, (size_t)len));
    if (running->slot != NULL)
        as_stderr_take(&running->lines, as_str_of(bytes, (size_t)len), emit_line, running);
    return true;
}

static void errors_ready(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    as_running *running = AS_CONTAINER_OF(watch, as_running, errors);
    if (running->step != AS_RUNNING_UNUSED)
        read_errors(running);
}

static void grace_is_over(as_timer *timer)
{
    as_running *running = AS_CONTAINER_OF(timer, as_running, timer);
    running->step = AS_RUNNING_KILLED;
    send_signal(running, SIGKILL);
}

void as_running_end(as_running *running)
{
    if (running->step != AS_RUNNING_FREELY)
        return;
    running->step = AS_RUNNING_TERMINATED;
    send_signal(running, SIGTERM);
    as_timer_set(running->set->loop, &running->timer, grace_is_over, running->set->kill_grace_ms);
}

static void time_is_over(as_timer *timer)
{
    as_running *running = AS_CONTAINER_OF(timer, as_running, timer);
    as_running_set *set = running->set;
    if (running->slot != NULL)
        as_event_emit(set->events, AS_EVENT_WARNING, running->log_id, -1, set->executor,
                      "%s: killed at its time limit, after %lld ms", running->name,
                      (long long)((set->loop->now_ns - running->start_ns) / AS_NS_PER_MS));
    as_running_end(running);
}

static void report_limit(const as_running *running, int status, const char *limit)
{
    as_running_set *set = running->set;
    int number = status - AS_END_SIGNAL;
    const char *name = number > 0 ? sigabbrev_np(number) : NULL;
    if (name != NULL)
        as_event_emit(set->events, AS_EVENT_ERROR, running->log_id, -1, set->executor,
                      "%s: the program was killed by SIG%s: %s", running->name, name, limit);
    else
        as_event_emit(set->events, AS_EVENT_WARNING, running->log_id, -1, set->executor,
                      "%s: the program ended with %s %d: %s", running->name, number > 0 ? "signal" : "exit code",
                      number > 0 ? number : status, limit);
}

/* Nothing of a program that we have ended: whoever ordered that has said why. */
static void report_status(const as_running *running, int status, const struct rusage *usage)
{
    as_running_set *set = running->set;
    int number = status - AS_END_SIGNAL;
    char limit[REASON_SIZE];
    if (running->step != AS_RUNNING_FREELY || status == 0)
        return;
    if (as_rlimits_explain(set->limits, status, usage, limit, sizeof(limit)))
        report_limit(running, status, limit);
    else if (number < 0)
        as_event_emit(set->events, AS_EVENT_WARNING, running->log_id, -1, set->executor,
                      "%s: the program ended with exit code %d", running->name, status);
    else if (number == SIGPIPE) /* of an answer to HEAD, say, the core closes the pipe */
        as_event_emit(set->events, AS_EVENT_NOTE, running->log_id, -1, set->executor,
                      "%s: the program was killed by signal %d, because its output was read no more", running->name,
                      number);
    else
        as_event_emit(set->events, AS_EVENT_ERROR, running->log_id, -1, set->executor,
                      "%s: the program was killed by signal %d", running->name, number);
}

static void report_end(as_running *running, int status, const struct rusage *usage)
{
    as_running_set *set = running->set;
    const as_stderr_lines *lines = &running->lines;
    report_status(running, status, usage);
    if (lines->dropped_lines > 0)
        as_event_emit(set->events, AS_EVENT_WARNING, running->log_id, -1, set->executor,
                      "%s: wrote more than %d lines to stderr; %llu lines (%llu bytes) were dropped", running->name,
                      AS_STDERR_MAX_LINES, (unsigned long long)lines->dropped_lines,
                      (unsigned long long)lines->dropped_bytes);
    uint64_t lost = set->counters->events_dropped;
    if (lost > set->events_lost) {
        as_event_emit(set->events, AS_EVENT_WARNING, 0, -1, set->executor,
                      "programs wrote to stderr faster than the log was read: %llu lines were lost",
                      (unsigned long long)(lost - set->events_lost));
        /* That one may be lost as well; it is no line of a program. */
        set->events_lost = set->counters->events_dropped > lost ? set->events_lost : lost;
    }
}

/* The group goes before its leader is waited for: until then the zombie keeps the number from being given to others. */
static int kill_and_wait(as_running *running, struct rusage *usage)
{
    siginfo_t info = {0};
    int verdict;
    kill(-running->pid, SIGKILL);
    do {
        verdict = (int)syscall(SYS_waitid, P_PID, running->pid, &info, WEXITED, usage);
    } while (verdict < 0 && errno == EINTR);
    if (verdict < 0)
        return AS_END_SIGNAL + SIGKILL; /* somebody else in this process has waited for it */
    return info.si_code == CLD_EXITED ? info.si_status : AS_END_SIGNAL + info.si_status;
}

static void close_all(as_running *running)
{
    as_loop *loop = running->set->loop;
    as_timer_clear(loop, &running->timer);
    as_loop_unwatch(loop, &running->exited);
    as_loop_unwatch(loop, &running->errors);
    close(running->exited.fd);
    close(running->errors.fd);
    close(running->errors_writer_fd);
    if (running->unread.fd >= 0) {
        as_loop_unwatch(loop, &running->unread);
        close(running->unread.fd);
    }
}

/* At the end of the turn: the loop may still hold an event for one of its watches. */
static void give_back(as_deferred *work)
{
    as_running *running = AS_CONTAINER_OF(work, as_running, reuse);
    as_running_set *set = running->set;
    running->next = set->unused;
    set->unused = running;
    set->count--;
    set->ended(set);
}

/* It and what it has waited for. At least one: 0 is for executors that do not know. */
static uint32_t cpu_us_of(const struct rusage *usage)
{
    int64_t us = (int64_t)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000000 + usage->ru_utime.tv_usec +
                 usage->ru_stime.tv_usec;
    return us < 1 ? 1 : us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static void send_end(as_running *running, int status, const struct rusage *usage)
{
    as_running_set *set = running->set;
    as_answer_head head = answer_head(running);
    head.status = (uint16_t)status;
    head.cpu_us = cpu_us_of(usage);
    if (send_whole(running, &head))
        return;
    if (running->output_fd >= 0)
        hand_over(running);
    as_answers_send(set->answers, running->loop, AS_ANSWER_END, &head, AS_STR_NONE, AS_STR_NONE, -1);
}

static void end_trial(as_running *running, int status)
{
    if (running->step != AS_RUNNING_FREELY)
        as_trial_abandon(running->trial);
    as_trial_end(running->trial, running->side, running->output_fd, status);
    running->trial = NULL;
}

static void has_exited(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    as_running *running = AS_CONTAINER_OF(watch, as_running, exited);
    if (running->step == AS_RUNNING_UNUSED)
        return;
    struct rusage usage = {0};
    int status = kill_and_wait(running, &usage);
    as_strays_kill(running->set->strays);
    for (int i = 0; i < LAST_READS && read_errors(running); i++) {
    }
    if (running->trial != NULL)
        end_trial(running, status);
    if (running->slot != NULL) {
        as_stderr_finish(&running->lines, emit_line, running);
        report_end(running, status, &usage);
        AS_SLOT_STORE(running->slot, process, 0); /* before the answer: the slot is the core's again after it */
        send_end(running, status, &usage);
    } else {
        close(let_go(running));
    }
    close_all(running);
    running->step = AS_RUNNING_UNUSED;
    as_loop_defer(running->set->loop, &running->reuse, give_back);
}

/* The frame's deadline allows for all of queue_time, of which a program that began at once has used nothing. */
static int64_t due_ns_of(const as_running_set *set, const as_running_start *start)
{
    int64_t due_ns = start->request->deadline_ns != 0 ? (int64_t)start->request->deadline_ns : INT64_MAX;
    if (set->request_time_ms == 0)
        return due_ns;
    int64_t end_ns = start->start_ns + set->request_time_ms * AS_NS_PER_MS;
    return end_ns < due_ns ? end_ns : due_ns;
}

static void set_time_limit(as_running *running)
{
    as_loop *loop = running->set->loop;
    if (running->due_ns == INT64_MAX)
        return;
    /* Not early: the core answers 504 when the end comes past the limit. */
    int64_t left_ms = (running->due_ns - loop->now_ns + AS_NS_PER_MS - 1) / AS_NS_PER_MS;
    if (left_ms < 0)
        left_ms = 0;
    as_timer_set(loop, &running->timer, time_is_over, left_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)left_ms);
}

static void set_name(as_running *running, as_str name)
{
    if (name.len >= AS_RUNNING_NAME)
        name = as_str_of(name.ptr + name.len - (AS_RUNNING_NAME - 1), AS_RUNNING_NAME - 1);
    for (size_t i = 0; i < name.len; i++) /* it is the client's: no control characters in the log */
        running->name[i] = (unsigned char)name.ptr[i] < ' ' || name.ptr[i] == 0x7f ? '?' : name.ptr[i];
    running->name[name.len] = '\0';
}

static int watch_both(as_running *running)
{
    as_loop *loop = running->set->loop;
    int verdict = as_loop_watch(loop, &running->exited, EPOLLIN);
    return verdict != AS_OK ? verdict : as_loop_watch(loop, &running->errors, EPOLLIN);
}

int as_running_add(as_running_set *set, const as_running_start *start)
{
    as_running *running = set->unused;
    assert(running != NULL && running->step == AS_RUNNING_UNUSED);
    running->pid = start->program->pid;
    running->exited = (as_watch){.fd = start->program->pidfd, .ready = has_exited};
    running->errors = (as_watch){.fd = start->errors_fd, .ready = errors_ready};
    running->errors_writer_fd = start->errors_writer_fd;
    running->unread = (as_watch){.fd = -1, .ready = drop_output};
    running->is_disowned = false;
    running->output_fd = start->output_fd;
    running->trial = start->trial;
    running->side = start->side;
    running->has_written = false;
    hold(running);
    if (watch_both(running) != AS_OK) {
        int saved = errno;
        struct rusage usage = {0};
        kill_and_wait(running, &usage);
        close_all(running);
        close(let_go(running));
        errno = saved;
        return AS_ESYSTEM;
    }
    set->unused = running->next;
    set->count++;
    running->step = AS_RUNNING_FREELY;
    running->slot = start->slot;
    running->slot_index = start->request->slot;
    running->loop = start->request->loop;
    running->request_id = start->request->request_id;
    running->log_id = start->log_id;
    running->start_ns = start->start_ns;
    running->document_flags = start->document_flags;
    running->script_len = start->script_len;
    memset(&running->lines, 0, offsetof(as_stderr_lines, line));
    set_name(running, start->name);
    running->due_ns = due_ns_of(set, start);
    set_time_limit(running);
    return AS_OK;
}

/* The core's cancel for a request that is out of time may come before our own timer, which is a tick late: the log gets the reason either way. */
static void cancel(as_running *running)
{
    if (running->step != AS_RUNNING_FREELY)
        return;
    if (running->set->loop->now_ns >= running->due_ns)
        time_is_over(&running->timer);
    else if (running->set->finishes && running->trial == NULL &&
             AS_SLOT_LOAD(running->slot, cancelled) == AS_SLOT_DISOWNED)
        disown(running);
    else
        as_running_end(running);
}

void as_running_cancel(as_running_set *set, uint64_t request_id)
{
    for (uint32_t i = 0; i < set->limit; i++) {
        if (set->all[i].request_id == request_id)
            cancel(&set->all[i]);
    }
}

void as_running_look_for_cancelled(as_running_set *set)
{
    for (uint32_t i = 0; i < set->limit; i++) {
        as_running *running = &set->all[i];
        if (running->step == AS_RUNNING_FREELY && running->slot != NULL && AS_SLOT_LOAD(running->slot, cancelled) != 0)
            as_running_cancel(set, running->request_id);
    }
}

bool as_running_has(const as_running_set *set, pid_t pid)
{
    for (uint32_t i = 0; i < set->limit; i++) {
        if (set->all[i].step != AS_RUNNING_UNUSED && set->all[i].pid == pid)
            return true;
    }
    return false;
}

void as_running_kill_all(as_running_set *set)
{
    for (uint32_t i = 0; i < set->limit; i++) {
        as_running *running = &set->all[i];
        if (running->step == AS_RUNNING_UNUSED)
            continue;
        as_timer_clear(set->loop, &running->timer);
        running->step = AS_RUNNING_KILLED;
        send_signal(running, SIGKILL);
    }
}

void as_running_set_init(as_running_set *set)
{
    set->all = as_alloc(set->limit * sizeof(*set->all));
    set->polled = as_alloc(set->limit * sizeof(*set->polled));
    set->output = as_alloc(AS_RUNNING_OUTPUT);
    for (uint32_t i = set->limit; i-- > 0;) {
        set->all[i].set = set;
        set->all[i].next = set->unused;
        set->unused = &set->all[i];
    }
}

void as_running_set_free(as_running_set *set)
{
    assert(set->count == 0);
    as_free(set->output);
    as_free(set->polled);
    as_free(set->all);
}
