/* schedule.c: a binary heap by key = bytes left + AS_SCHEDULE_AGING for each turn before the entry. Since aging treats all that wait alike, keys never change while
 * a job is in the heap, and nothing has to be gone through at each turn. */
#include "loop/schedule.h"

enum { FIRST_CAPACITY = 64 };

void as_schedule_init(as_schedule *schedule, as_loop *loop)
{
    *schedule = (as_schedule){.loop = loop};
}

void as_schedule_free(as_schedule *schedule)
{
    assert(schedule->len == 0 && !schedule->is_due);
    as_free(schedule->heap);
    schedule->heap = NULL;
}

static void set_place(as_schedule *schedule, uint32_t place, as_job *job)
{
    schedule->heap[place - 1] = job;
    job->place = place;
}

static as_job *at(const as_schedule *schedule, uint32_t place)
{
    return schedule->heap[place - 1];
}

static void sift_up(as_schedule *schedule, as_job *job)
{
    uint32_t place = job->place;
    for (; place > 1 && job->key < at(schedule, place / 2)->key; place /= 2)
        set_place(schedule, place, at(schedule, place / 2));
    set_place(schedule, place, job);
}

static void sift_down(as_schedule *schedule, as_job *job)
{
    uint32_t place = job->place;
    for (;;) {
        uint32_t child = place * 2;
        if (child > schedule->len)
            break;
        if (child < schedule->len && at(schedule, child + 1)->key < at(schedule, child)->key)
            child++;
        if (job->key <= at(schedule, child)->key)
            break;
        set_place(schedule, place, at(schedule, child));
        place = child;
    }
    set_place(schedule, place, job);
}

void as_schedule_put(as_schedule *schedule, as_job *job, uint64_t remaining, uint64_t turn)
{
    assert(job->place == 0);
    if (schedule->len == schedule->capacity) {
        schedule->capacity = schedule->capacity == 0 ? FIRST_CAPACITY : schedule->capacity * 2;
        schedule->heap = as_realloc(schedule->heap, schedule->capacity * sizeof(*schedule->heap));
    }
    if (job->entered == 0)
        job->entered = turn + 1;
    job->key = remaining + job->entered * AS_SCHEDULE_AGING;
    set_place(schedule, ++schedule->len, job);
    sift_up(schedule, job);
}

void as_schedule_leave(as_schedule *schedule, as_job *job)
{
    uint32_t place = job->place;
    if (place == 0)
        return;
    job->place = 0;
    as_job *last = at(schedule, schedule->len--);
    if (last == job)
        return;
    set_place(schedule, place, last);
    sift_up(schedule, last);
    sift_down(schedule, last);
}

as_job *as_schedule_take(as_schedule *schedule)
{
    if (schedule->len == 0)
        return NULL;
    as_job *job = at(schedule, 1);
    as_schedule_leave(schedule, job);
    return job;
}

static void run_turn(as_deferred *work);

static void ask_for_turn(as_schedule *schedule)
{
    if (schedule->is_due || schedule->len == 0)
        return;
    schedule->is_due = true;
    as_loop_soon(schedule->loop, &schedule->work, run_turn);
}

/* A job that does not use up its grant waits for its client, or is done; one that does comes back into the heap. Every run takes a job out, and those that
 * enter meanwhile without having sent anything are left for the next turn by the count. */
static void run_turn(as_deferred *work)
{
    as_schedule *schedule = AS_CONTAINER_OF(work, as_schedule, work);
    schedule->is_due = false;
    schedule->left = AS_SCHEDULE_TURN;
    for (uint32_t jobs = schedule->len; jobs > 0 && schedule->left > 0; jobs--) {
        as_job *job = as_schedule_take(schedule);
        if (job == NULL)
            break;
        schedule->running = job;
        job->run(job);
        schedule->running = NULL;
    }
    ask_for_turn(schedule);
}

void as_schedule_enter(as_schedule *schedule, as_job *job, uint64_t remaining)
{
    if (job->place != 0)
        return;
    as_schedule_put(schedule, job, remaining, schedule->loop->turns);
    ask_for_turn(schedule);
}

void as_schedule_spend(as_schedule *schedule, uint64_t bytes)
{
    schedule->left -= bytes < schedule->left ? bytes : schedule->left;
}
