/* loop.c: one event loop.
 *
 * The mailbox is the only door between threads: a lock-free stack that senders push to and the loop detaches as a whole, reversed so that
 * messages of one sender keep their order. A sender wakes the loop through an eventfd only when the mailbox was empty, so that a burst of
 * messages costs one system call.
 *
 * Timers live on a hashed wheel: set and clear are O(1), which matters because every request sets and clears several and hardly any
 * fires. A timer that is more than one turn of the wheel away is met and left in place until its tick has come. */
#include "loop/loop.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void drain_wake(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    uint64_t count;
    while (read(watch->fd, &count, sizeof(count)) < 0 && errno == EINTR) {
    }
}

static void read_clock(as_loop *loop)
{
    loop->now_ns = as_clock_monotonic_ns();
    loop->wall_s = as_clock_ns(CLOCK_REALTIME_COARSE) / AS_NS_PER_S;
}

static int64_t tick_of(int64_t now_ns)
{
    return now_ns / (AS_TIMER_TICK_MS * AS_NS_PER_MS);
}

int as_loop_init(as_loop *loop)
{
    *loop = (as_loop){.epoll_fd = -1, .wake = {.fd = -1}};
    loop->hooks_end = &loop->hooks;
    loop->soon_end = &loop->soon;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0)
        return AS_ESYSTEM;
    loop->wake = (as_watch){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = drain_wake};
    if (loop->wake.fd < 0 || as_loop_watch(loop, &loop->wake, EPOLLIN) != AS_OK) {
        int saved = errno;
        if (loop->wake.fd >= 0)
            close(loop->wake.fd);
        close(loop->epoll_fd);
        errno = saved;
        return AS_ESYSTEM;
    }
    read_clock(loop);
    loop->tick = tick_of(loop->now_ns);
    return AS_OK;
}

static void handle_mailbox(as_loop *loop)
{
    as_message *newest = __atomic_exchange_n(&loop->mailbox, NULL, __ATOMIC_ACQUIRE);
    as_message *oldest = NULL;
    while (newest != NULL) {
        as_message *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        as_message *next = oldest->next;
        oldest->handle(oldest, loop);
        oldest = next;
    }
}

static void look_into_mailbox(as_loop *loop)
{
    if (__atomic_load_n(&loop->mailbox, __ATOMIC_RELAXED) != NULL)
        handle_mailbox(loop);
}

static void run_deferred(as_loop *loop)
{
    while (loop->deferred != NULL) {
        as_deferred *work = loop->deferred;
        loop->deferred = work->next;
        work->run(work);
    }
}

void as_loop_free(as_loop *loop)
{
    handle_mailbox(loop);
    run_deferred(loop);
    assert(loop->timers == 0);
    close(loop->wake.fd);
    close(loop->epoll_fd);
}

int as_loop_watch(as_loop *loop, as_watch *watch, uint32_t epoll_events)
{
    struct epoll_event event = {.events = epoll_events, .data.ptr = watch};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) < 0 ? AS_ESYSTEM : AS_OK;
}

int as_loop_rewatch(as_loop *loop, as_watch *watch, uint32_t epoll_events)
{
    struct epoll_event event = {.events = epoll_events, .data.ptr = watch};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) < 0 ? AS_ESYSTEM : AS_OK;
}

void as_loop_unwatch(as_loop *loop, as_watch *watch)
{
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
}

void as_timer_clear(as_loop *loop, as_timer *timer)
{
    if (timer->link == NULL)
        return;
    *timer->link = timer->next;
    if (timer->next != NULL)
        timer->next->link = timer->link;
    timer->link = NULL;
    timer->next = NULL;
    assert(loop->timers > 0);
    loop->timers--;
}

static void link_timer(as_timer **slot, as_timer *timer)
{
    timer->next = *slot;
    timer->link = slot;
    if (*slot != NULL)
        (*slot)->link = &timer->next;
    *slot = timer;
}

void as_timer_set(as_loop *loop, as_timer *timer, void (*fire)(as_timer *), uint32_t delay_ms)
{
    as_timer_clear(loop, timer);
    timer->fire = fire;
    timer->due_tick = tick_of(loop->now_ns + delay_ms * AS_NS_PER_MS) + 1;
    link_timer(&loop->wheel[timer->due_tick % AS_TIMER_SLOTS], timer);
    loop->timers++;
}

/* Fires what is due in one slot. A timer that fires may set or clear any other, so the slot is first cut off and its timers taken from
 * that list one by one: whatever is cleared meanwhile leaves the list by its link. */
static void fire_slot(as_loop *loop, as_timer **slot, int64_t tick)
{
    as_timer *due = *slot;
    *slot = NULL;
    if (due != NULL)
        due->link = &due;
    while (due != NULL) {
        as_timer *timer = due;
        bool is_due = timer->due_tick <= tick;
        as_timer_clear(loop, timer);
        if (is_due) {
            timer->fire(timer);
        } else {
            link_timer(slot, timer);
            loop->timers++;
        }
    }
}

static void fire_timers(as_loop *loop)
{
    int64_t tick = tick_of(loop->now_ns);
    if (tick - loop->tick > AS_TIMER_SLOTS)
        loop->tick = tick - AS_TIMER_SLOTS;
    while (loop->tick < tick) {
        loop->tick++;
        /* Late turns: what this slot holds for an earlier round is due as well, hence the current tick. */
        fire_slot(loop, &loop->wheel[loop->tick % AS_TIMER_SLOTS], tick);
    }
}

/* How long epoll_wait may sleep without missing a timer: to the next slot in use. Looking is bounded, so that a loop with only far timers
 * wakes a few times a second rather than scan the wheel every turn. */
static int wait_ms(const as_loop *loop, int timeout_ms)
{
    enum { LOOK_AHEAD = 16 };
    if (loop->soon != NULL)
        return 0;
    if (loop->timers == 0)
        return timeout_ms;
    int64_t ahead = 1;
    while (ahead < LOOK_AHEAD && loop->wheel[(loop->tick + ahead) % AS_TIMER_SLOTS] == NULL)
        ahead++;
    int64_t wake_ns = (loop->tick + ahead) * AS_TIMER_TICK_MS * AS_NS_PER_MS;
    int64_t delay = (wake_ns - loop->now_ns) / AS_NS_PER_MS + 1;
    if (delay < 0)
        delay = 0;
    return timeout_ms >= 0 && timeout_ms < delay ? timeout_ms : (int)delay;
}

static void run_soon(as_loop *loop)
{
    as_deferred *work = loop->soon;
    loop->soon = NULL;
    loop->soon_end = &loop->soon;
    while (work != NULL) {
        as_deferred *next = work->next;
        work->run(work);
        work = next;
    }
}

void as_loop_turn(as_loop *loop, int timeout_ms)
{
    struct epoll_event events[AS_LOOP_MAX_EVENTS];
    int ready = epoll_wait(loop->epoll_fd, events, AS_LOOP_MAX_EVENTS, wait_ms(loop, timeout_ms));
    read_clock(loop);
    loop->turns++;
    look_into_mailbox(loop);
    for (int i = 0; i < ready; i++) {
        as_watch *watch = events[i].data.ptr;
        watch->ready(watch, events[i].events);
    }
    if (loop->soon != NULL)
        run_soon(loop);
    /* Once more: what came behind the first look may have had its wake-up taken by this turn. */
    look_into_mailbox(loop);
    fire_timers(loop);
    for (as_hook *hook = loop->hooks; hook != NULL; hook = hook->next)
        hook->turn_ends(hook);
    run_deferred(loop);
}

void as_loop_run(as_loop *loop)
{
    read_clock(loop);
    while (!__atomic_load_n(&loop->stop_asked, __ATOMIC_ACQUIRE))
        as_loop_turn(loop, -1);
}

static void wake(as_loop *loop)
{
    uint64_t one = 1;
    ssize_t n = write(loop->wake.fd, &one, sizeof(one));
    (void)n; /* a full counter means that the loop is awake already */
}

void as_loop_stop(as_loop *loop)
{
    __atomic_store_n(&loop->stop_asked, true, __ATOMIC_RELEASE);
    wake(loop);
}

void as_loop_defer(as_loop *loop, as_deferred *work, void (*run)(as_deferred *))
{
    work->run = run;
    work->next = loop->deferred;
    loop->deferred = work;
}

void as_loop_soon(as_loop *loop, as_deferred *work, void (*run)(as_deferred *))
{
    work->run = run;
    work->next = NULL;
    *loop->soon_end = work;
    loop->soon_end = &work->next;
}

void as_loop_add_hook(as_loop *loop, as_hook *hook, void (*turn_ends)(as_hook *))
{
    hook->next = NULL;
    hook->turn_ends = turn_ends;
    *loop->hooks_end = hook;
    loop->hooks_end = &hook->next;
}

void as_loop_post(as_loop *loop, as_message *message, void (*handle)(as_message *, as_loop *))
{
    message->handle = handle;
    as_message *before = __atomic_load_n(&loop->mailbox, __ATOMIC_RELAXED);
    do {
        message->next = before;
    } while (!__atomic_compare_exchange_n(&loop->mailbox, &before, message, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    /* The message may be handled and gone by now: only `before` is ours. */
    if (before == NULL)
        wake(loop);
}
