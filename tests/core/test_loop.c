/* with: base/memory.c */
/* sanitize: address,undefined thread */
/* The loop: timers on a clock that the test moves, work put off, and the mailbox from several threads. */
#include "loop/loop.c"

#include <pthread.h>

#include "check.h"

static as_loop loop;

static void begin(void)
{
    CHECK_INT(as_loop_init(&loop), AS_OK);
}

static void end(void)
{
    CHECK_INT(loop.timers, 0);
    as_loop_free(&loop);
}

/* Timers. */

static int order[64];
static int fired;

typedef struct alarm_clock {
    as_timer timer;
    int number;
} alarm_clock;

static void ring(as_timer *timer)
{
    CHECK(!as_timer_is_set(timer));
    order[fired++] = AS_CONTAINER_OF(timer, alarm_clock, timer)->number;
}

static void pass(int64_t ms)
{
    loop.now_ns += ms * AS_NS_PER_MS;
    fire_timers(&loop);
}

static void test_order_and_time(void)
{
    begin();
    fired = 0;
    alarm_clock a = {.number = 1}, b = {.number = 2}, c = {.number = 3};
    as_timer_set(&loop, &c.timer, ring, 300);
    as_timer_set(&loop, &a.timer, ring, 100);
    as_timer_set(&loop, &b.timer, ring, 200);
    pass(99);
    CHECK_INT(fired, 0);
    pass(1 + 2 * AS_TIMER_TICK_MS); /* the tick that is under way, and one more */
    CHECK_INT(fired, 1);
    pass(1000); /* a late turn: both, in their order */
    CHECK_INT(fired, 3);
    for (int i = 0; i < 3; i++)
        CHECK_INT(order[i], i + 1);
    end();
}

static void test_never_early_hardly_late(void)
{
    begin();
    for (uint32_t delay = 0; delay < 40000; delay = delay * 2 + 1) {
        fired = 0;
        alarm_clock a = {.number = 1};
        int64_t set_ns = loop.now_ns;
        as_timer_set(&loop, &a.timer, ring, delay);
        while (fired == 0)
            pass(1);
        int64_t late_ns = loop.now_ns - set_ns - (int64_t)delay * AS_NS_PER_MS;
        CHECK(late_ns >= 0 && late_ns <= (AS_TIMER_TICK_MS + 1) * AS_NS_PER_MS);
    }
    end();
}

/* More than one turn of the wheel away, and further than the clock jumps at once. */
static void test_far_times(void)
{
    begin();
    fired = 0;
    const int64_t round_ms = AS_TIMER_SLOTS * AS_TIMER_TICK_MS;
    alarm_clock near = {.number = 1}, far = {.number = 2}, farthest = {.number = 3};
    as_timer_set(&loop, &farthest.timer, ring, UINT32_MAX);
    as_timer_set(&loop, &far.timer, ring, (uint32_t)(3 * round_ms + 100));
    as_timer_set(&loop, &near.timer, ring, 100); /* the same slot as `far` */
    pass(200);
    CHECK_INT(fired, 1);
    pass(round_ms);
    pass(round_ms);
    CHECK_INT(fired, 1);
    pass(round_ms);
    CHECK_INT(fired, 2);
    CHECK_INT(order[1], 2);
    pass(10 * round_ms); /* a process that was stopped for minutes */
    CHECK_INT(fired, 2);
    pass(UINT32_MAX);
    CHECK_INT(fired, 3);
    end();
}

static void test_clear_and_set_again(void)
{
    begin();
    fired = 0;
    alarm_clock a = {.number = 1}, b = {.number = 2}, c = {.number = 3};
    as_timer_clear(&loop, &a.timer); /* not set: nothing */
    as_timer_set(&loop, &a.timer, ring, 100);
    as_timer_set(&loop, &b.timer, ring, 100);
    as_timer_set(&loop, &c.timer, ring, 100);
    as_timer_clear(&loop, &b.timer); /* from the middle of a slot */
    as_timer_clear(&loop, &b.timer);
    as_timer_set(&loop, &a.timer, ring, 5000); /* moved */
    CHECK_INT(loop.timers, 2);
    pass(200);
    CHECK_INT(fired, 1);
    CHECK_INT(order[0], 3);
    pass(5000);
    CHECK_INT(fired, 2);
    end();
}

/* A timer that fires may clear its neighbours and set itself again. */
static alarm_clock neighbours[8];

static void ring_and_meddle(as_timer *timer)
{
    ring(timer);
    for (int i = 0; i < 8; i++) {
        if (i != 3)
            as_timer_clear(&loop, &neighbours[i].timer);
    }
    as_timer_set(&loop, timer, ring, 0);
}

static void test_meddling(void)
{
    begin();
    fired = 0;
    for (int i = 0; i < 8; i++) {
        neighbours[i] = (alarm_clock){.number = i};
        as_timer_set(&loop, &neighbours[i].timer, ring_and_meddle, 50);
    }
    pass(100);
    /* The first of the slot clears all but the third; that one fires too and clears the first's new setting. */
    CHECK(fired == 2 || (fired == 1 && order[0] == 3));
    int before = fired;
    pass(100);
    CHECK_INT(fired, before + 1); /* set with no delay: the next tick, not the same turn for ever */
    end();
}

static void test_waiting_time(void)
{
    begin();
    CHECK_INT(wait_ms(&loop, -1), -1);
    CHECK_INT(wait_ms(&loop, 70), 70);
    alarm_clock a = {.number = 1};
    as_timer_set(&loop, &a.timer, ring, 40);
    int wait = wait_ms(&loop, -1);
    CHECK(wait >= 40 && wait <= 40 + 2 * AS_TIMER_TICK_MS);
    CHECK_INT(wait_ms(&loop, 5), 5);
    loop.now_ns += AS_NS_PER_S; /* overdue */
    CHECK_INT(wait_ms(&loop, -1), 0);
    as_timer_clear(&loop, &a.timer);
    end();
}

/* Turns. */

static char steps[64];

static void step(char c)
{
    size_t len = strlen(steps);
    steps[len] = c;
    steps[len + 1] = '\0';
}

static as_deferred late, soon, later;

static void run_late(as_deferred *work)
{
    (void)work;
    step('d');
}

static void run_later(as_deferred *work)
{
    (void)work;
    step('l');
}

static void run_soon_once(as_deferred *work)
{
    (void)work;
    step('s');
    as_loop_defer(&loop, &late, run_late);
    as_loop_soon(&loop, &later, run_later); /* the next turn, not this one */
}

static void handle_note(as_message *message, as_loop *which)
{
    CHECK(which == &loop);
    as_free(message);
    step('m');
}

static void end_turn(as_hook *hook)
{
    (void)hook;
    step('h');
}

static void on_readable(as_watch *watch, uint32_t epoll_events)
{
    CHECK(epoll_events & EPOLLIN);
    uint64_t count;
    CHECK_INT(read(watch->fd, &count, sizeof(count)), sizeof(count));
    step('r');
}

static void test_order_of_a_turn(void)
{
    begin();
    as_hook hook;
    as_loop_add_hook(&loop, &hook, end_turn);
    int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    as_watch watch = {.fd = fd, .ready = on_readable};
    CHECK_INT(as_loop_watch(&loop, &watch, EPOLLIN), AS_OK);
    as_loop_soon(&loop, &soon, run_soon_once);
    as_loop_post(&loop, as_alloc(sizeof(as_message)), handle_note);
    steps[0] = '\0';
    as_loop_turn(&loop, -1);
    CHECK(strcmp(steps, "mrshd") == 0); /* what was sent before something happened comes before it */
    steps[0] = '\0';
    as_loop_turn(&loop, -1); /* does not wait: there is work */
    CHECK(strcmp(steps, "lh") == 0);
    as_loop_unwatch(&loop, &watch);
    CHECK_INT(as_loop_watch(&loop, &(as_watch){.fd = -1}, EPOLLIN), AS_ESYSTEM);
    close(fd);
    end();
}

/* The mailbox. */

enum { SENDERS = 4, MESSAGES = 5000 };

typedef struct numbered {
    as_message message;
    int sender;
    int number;
} numbered;

static int last_of[SENDERS];
static int received;

static void handle_numbered(as_message *message, as_loop *which)
{
    numbered *n = AS_CONTAINER_OF(message, numbered, message);
    CHECK_INT(n->number, last_of[n->sender] + 1); /* each sender's in its order */
    last_of[n->sender] = n->number;
    as_free(n);
    if (++received == SENDERS * MESSAGES)
        as_loop_stop(which);
}

static void *send_messages(void *argument)
{
    int sender = (int)(intptr_t)argument;
    for (int i = 1; i <= MESSAGES; i++) {
        numbered *n = as_alloc(sizeof(*n));
        n->sender = sender;
        n->number = i;
        as_loop_post(&loop, &n->message, handle_numbered);
    }
    return NULL;
}

static void *run_loop(void *argument)
{
    (void)argument;
    as_loop_run(&loop);
    return NULL;
}

static void test_mailbox_from_several_threads(void)
{
    begin();
    received = 0;
    memset(last_of, 0, sizeof(last_of));
    pthread_t threads[SENDERS + 1];
    /* Checks count without a lock: until the threads are joined they are the loop's. */
    int failed = pthread_create(&threads[SENDERS], NULL, run_loop, NULL);
    for (int i = 0; i < SENDERS; i++)
        failed |= pthread_create(&threads[i], NULL, send_messages, (void *)(intptr_t)i);
    for (int i = 0; i <= SENDERS; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(failed, 0);
    CHECK_INT(received, SENDERS * MESSAGES);
    end();
}

/* Messages that nobody has handled when the loop ends are handled then, so that what they carry is not lost. */
static void test_messages_at_the_end(void)
{
    begin();
    steps[0] = '\0';
    as_loop_post(&loop, as_alloc(sizeof(as_message)), handle_note);
    as_loop_stop(&loop);
    as_loop_run(&loop);
    CHECK(strcmp(steps, "") == 0);
    end();
    CHECK(strcmp(steps, "m") == 0);
}

int main(void)
{
    test_order_and_time();
    test_never_early_hardly_late();
    test_far_times();
    test_clear_and_set_again();
    test_meddling();
    test_waiting_time();
    test_order_of_a_turn();
    test_mailbox_from_several_threads();
    test_messages_at_the_end();
    return check_result("loop");
}
