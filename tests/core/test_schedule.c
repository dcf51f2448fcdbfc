/* with: base/memory.c base/error.c loop/loop.c */
/* The order of long work without any I/O: shortest first, aging, leaving, and how much a turn gives. */
#include "loop/schedule.c"

#include "check.h"

enum { MANY = 2000 };

static as_schedule schedule;
static uint32_t random_state = 12345;

static uint32_t next_random(void)
{
    random_state = random_state * 1664525 + 1013904223;
    return random_state >> 8;
}

static void check_heap(void)
{
    for (uint32_t place = 1; place <= schedule.len; place++) {
        CHECK_INT(at(&schedule, place)->place, place);
        CHECK(place == 1 || at(&schedule, place / 2)->key <= at(&schedule, place)->key);
    }
}

static void test_shortest_first(void)
{
    static as_job jobs[MANY];
    as_schedule_init(&schedule, NULL);
    memset(jobs, 0, sizeof(jobs));
    for (int i = 0; i < MANY; i++)
        as_schedule_put(&schedule, &jobs[i], next_random(), 7);
    check_heap();
    uint64_t before = 0;
    for (int i = 0; i < MANY; i++) {
        as_job *job = as_schedule_take(&schedule);
        CHECK(job != NULL && job->key >= before && job->place == 0);
        before = job->key;
    }
    CHECK(as_schedule_take(&schedule) == NULL);
    as_schedule_free(&schedule);
}

static void test_leaving(void)
{
    static as_job jobs[MANY];
    as_schedule_init(&schedule, NULL);
    memset(jobs, 0, sizeof(jobs));
    for (int i = 0; i < MANY; i++)
        as_schedule_put(&schedule, &jobs[i], next_random(), next_random() % 100);
    for (int i = 0; i < MANY; i += 3)
        as_schedule_leave(&schedule, &jobs[i]);
    check_heap();
    as_schedule_leave(&schedule, &jobs[0]); /* twice is once */
    uint64_t before = 0;
    int taken = 0;
    for (as_job *job; (job = as_schedule_take(&schedule)) != NULL; taken++) {
        CHECK(job->key >= before && (job - jobs) % 3 != 0);
        before = job->key;
    }
    CHECK_INT(taken, MANY - (MANY + 2) / 3);
    as_schedule_free(&schedule);
}

/* A stream of small jobs, one each turn and one served each turn: the large one comes to its turn after R / AGING turns, not later. */
static void test_nothing_starves(void)
{
    static as_job small[MANY];
    as_job large = {0};
    uint64_t size = 100 * AS_SCHEDULE_AGING;
    as_schedule_init(&schedule, NULL);
    memset(small, 0, sizeof(small));
    as_schedule_put(&schedule, &large, size, 0);
    int turns = 0;
    for (; turns < MANY; turns++) {
        as_schedule_put(&schedule, &small[turns], 1000, (uint64_t)turns);
        if (as_schedule_take(&schedule) == &large)
            break;
    }
    CHECK_INT(turns, 100);
    while (as_schedule_take(&schedule) != NULL) {
    }
    as_schedule_free(&schedule);
}

/* Having had a slice makes it shorter and not younger. */
static void test_coming_back_keeps_the_age(void)
{
    as_job old = {0}, young = {0};
    as_schedule_init(&schedule, NULL);
    as_schedule_put(&schedule, &old, 10 * AS_SCHEDULE_AGING, 5);
    CHECK(as_schedule_take(&schedule) == &old);
    as_schedule_put(&schedule, &old, 9 * AS_SCHEDULE_AGING, 50);
    as_schedule_put(&schedule, &young, 1, 50);
    CHECK(as_schedule_take(&schedule) == &old);
    CHECK(as_schedule_take(&schedule) == &young);
    as_schedule_free(&schedule);
}

/* In a loop: work that sends nothing but bytes of a number. */
typedef struct work {
    as_job job;
    uint64_t remaining;
    bool is_blocked;
    int order; /* in which it ended */
} work;

static as_loop loop;
static int ended;
static uint64_t sent_now;

static void send_some(as_job *job)
{
    work *w = AS_CONTAINER_OF(job, work, job);
    uint64_t grant = as_schedule_grant(&schedule, job);
    CHECK(grant > 0 && grant <= AS_SCHEDULE_TURN);
    if (w->is_blocked)
        return;
    uint64_t n = grant < w->remaining ? grant : w->remaining;
    w->remaining -= n;
    sent_now += n;
    as_schedule_spend(&schedule, n);
    if (w->remaining > 0)
        as_schedule_enter(&schedule, job, w->remaining);
    else
        w->order = ++ended;
}

static void begin_work(work *w, uint64_t size)
{
    *w = (work){.job.run = send_some, .remaining = size};
    as_schedule_enter(&schedule, &w->job, size);
    as_schedule_enter(&schedule, &w->job, size); /* once is enough */
}

static void test_turns(void)
{
    CHECK_INT(as_loop_init(&loop), AS_OK);
    as_schedule_init(&schedule, &loop);
    ended = 0;
    work large, middle, small, blocked;
    begin_work(&large, 10 * AS_SCHEDULE_TURN);
    begin_work(&blocked, 5);
    begin_work(&middle, 2 * AS_SCHEDULE_TURN);
    begin_work(&small, AS_SCHEDULE_TURN / 2);
    blocked.is_blocked = true;
    CHECK_INT(as_schedule_grant(&schedule, &large.job), 0);
    CHECK_INT(schedule.len, 4);
    int turns = 0;
    for (; large.order == 0 && turns < 100; turns++) {
        sent_now = 0;
        as_loop_turn(&loop, 0);
        CHECK(sent_now <= AS_SCHEDULE_TURN);
        CHECK(sent_now > 0);
    }
    CHECK_INT(turns, 13); /* 12.5 turns' worth of bytes: a turn is used up as long as there is work */
    CHECK_INT(small.order, 1);
    CHECK_INT(middle.order, 2);
    CHECK_INT(large.order, 3);
    CHECK_INT(blocked.order, 0); /* waits for its client outside */
    CHECK_INT(schedule.len, 0);
    uint64_t before = loop.turns;
    as_loop_turn(&loop, 0);
    CHECK_INT(loop.turns, before + 1);
    CHECK(!schedule.is_due);
    blocked.is_blocked = false;
    as_schedule_enter(&schedule, &blocked.job, 5);
    as_loop_turn(&loop, 0);
    CHECK_INT(blocked.order, 4);
    as_schedule_free(&schedule);
    as_loop_free(&loop);
}

/* Everybody leaves before the turn comes: it finds nothing and asks for no other. */
static void test_turn_without_jobs(void)
{
    CHECK_INT(as_loop_init(&loop), AS_OK);
    as_schedule_init(&schedule, &loop);
    work gone;
    begin_work(&gone, 100);
    as_schedule_leave(&schedule, &gone.job);
    as_loop_turn(&loop, 0);
    CHECK(!schedule.is_due && loop.soon == NULL);
    as_schedule_free(&schedule);
    as_loop_free(&loop);
}

int main(void)
{
    test_shortest_first();
    test_leaving();
    test_nothing_starves();
    test_coming_back_keeps_the_age();
    test_turns();
    test_turn_without_jobs();
    return check_result("schedule");
}
