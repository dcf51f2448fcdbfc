/* schedule.h: the order in which one loop goes on with long pieces of work: the one with the least left first (SRPT; paper, section IV), with aging.
 *
 * What is short finishes before what is long, which lowers the mean time without hurting the long ones much, as long as the load has a heavy tail. Strictly
 * by size a long one could wait for ever; so every turn of the loop makes whoever enters later longer by AS_SCHEDULE_AGING bytes. A job with R bytes left
 * is therefore overtaken only by those that enter within R / AS_SCHEDULE_AGING turns after it.
 *
 * In each turn the jobs together get AS_SCHEDULE_TURN bytes, after the events of that turn have been handled: new requests, and the small answers to them,
 * never wait for the queue. Everything here is for the loop's thread. */
#ifndef AS_LOOP_SCHEDULE_H
#define AS_LOOP_SCHEDULE_H

#include "loop/loop.h"

#define AS_SCHEDULE_TURN (1024 * 1024)
#define AS_SCHEDULE_AGING (64 * 1024)

/* Embedded in its owner, zeroed when its work begins. */
typedef struct as_job {
    void (*run)(struct as_job *job);
    uint64_t key;
    uint64_t
        entered; /* the turn in which it entered first, plus 1; 0: not yet. Coming back after a slice does not make it young again */
    uint32_t place; /* in the heap, from 1; 0: not there */
} as_job;

typedef struct as_schedule {
    as_loop *loop;
    as_deferred work;
    bool is_due; /* `work` is queued for the next turn */
    as_job **heap;
    uint32_t len;
    uint32_t capacity;
    as_job *running;
    uint64_t left; /* bytes that this turn still has */
} as_schedule;

void as_schedule_init(as_schedule *schedule, as_loop *loop);
/* No job may be left, and no turn due. */
void as_schedule_free(as_schedule *schedule);

/* `job` has `remaining` bytes to go; job->run is called in a later turn. Nothing happens when it is there already. */
void as_schedule_enter(as_schedule *schedule, as_job *job, uint64_t remaining);
/* Also for one that is not there. */
void as_schedule_leave(as_schedule *schedule, as_job *job);
/* What job->run may send now; 0 outside of it. */
static inline uint64_t as_schedule_grant(const as_schedule *schedule, const as_job *job)
{
    return schedule->running == job ? schedule->left : 0;
}
/* job->run has sent `bytes` of its grant. */
void as_schedule_spend(as_schedule *schedule, uint64_t bytes);

/* The order by itself, without a loop; for as_schedule_enter() and tests. */
void as_schedule_put(as_schedule *schedule, as_job *job, uint64_t remaining, uint64_t turn);
/* The job whose turn it is, taken out; NULL when there is none. */
as_job *as_schedule_take(as_schedule *schedule);

#endif
