/* loop.h: one event loop: epoll, timers, a mailbox. One thread owns a loop for its whole life (paper, section III.A);
 * only as_loop_post() and as_loop_stop() may be called by others.
 *
 * Ordering: a turn is: wait → read the clock → mailbox → ready watches → work put off → mailbox → due timers → turn hooks. So a message comes before
 * whatever has happened since it was sent: who was told that there is a new configuration gets it. Within a turn nothing that a watch points to may be
 * freed; use as_loop_defer() for that, it runs when the turn is over. */
#ifndef AS_LOOP_LOOP_H
#define AS_LOOP_LOOP_H

#include <sys/epoll.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"

typedef struct as_loop as_loop;

/* Something with an fd that the loop waits for. Embedded in its owner. */
typedef struct as_watch {
    int fd;
    void (*ready)(struct as_watch *watch, uint32_t epoll_events); /* loop thread */
} as_watch;

/* A timeout. Embedded in its owner, zeroed before first use. Resolution AS_TIMER_TICK_MS. */
typedef struct as_timer {
    struct as_timer *next;
    struct as_timer **link; /* NULL when not set */
    int64_t due_tick;
    void (*fire)(struct as_timer *timer); /* loop thread; the timer is already cleared */
} as_timer;

/* Work for the end of the turn. Embedded in its owner. */
typedef struct as_deferred {
    struct as_deferred *next;
    void (*run)(struct as_deferred *work);
} as_deferred;

/* A message between threads. Embedded in its allocation; whoever handles it frees it. */
typedef struct as_message {
    struct as_message *next;
    void (*handle)(struct as_message *message, as_loop *loop); /* on the receiving loop's thread */
} as_message;

/* Called at the end of every turn, in the order of their adding (flush batches, write logs). */
typedef struct as_hook {
    struct as_hook *next;
    void (*turn_ends)(struct as_hook *hook);
} as_hook;

#define AS_TIMER_TICK_MS 16
#define AS_TIMER_SLOTS 1024 /* one turn of the wheel: about 16 s; later timers go round again */
#define AS_LOOP_MAX_EVENTS 256

struct as_loop {
    int epoll_fd;
    int64_t now_ns; /* CLOCK_MONOTONIC, read once a turn */
    int64_t wall_s; /* CLOCK_REALTIME seconds, read once a turn */
    uint64_t turns;
    as_watch wake;
    as_deferred *deferred;
    as_deferred *soon;
    as_deferred **soon_end;
    as_hook *hooks;
    as_hook **hooks_end;
    int64_t tick;    /* the wheel's position */
    uint32_t timers; /* how many are set */
    as_timer *wheel[AS_TIMER_SLOTS];
    void *owner; /* set before start */
    /* any thread */
    as_message *mailbox AS_ALIGNED_LINE; /* newest first, pushed by compare and swap, detached as a whole */
    bool stop_asked;
};

/* AS_OK or AS_ESYSTEM. The loop is then used on one thread, which may be another one than this. */
int as_loop_init(as_loop *loop);
/* Every watch and timer must be gone. Messages still in the mailbox are handled first. */
void as_loop_free(as_loop *loop);
/* Turns until as_loop_stop(). The calling thread is the loop's thread. */
void as_loop_run(as_loop *loop);
/* One turn that waits at most `timeout_ms` (-1 for ever); for tests and as_loop_run(). */
void as_loop_turn(as_loop *loop, int timeout_ms);
/* Any thread, async-signal-safe: the loop ends after its current turn. */
void as_loop_stop(as_loop *loop);

/* Starts watching watch->fd. AS_OK or AS_ESYSTEM. The watch must stay where it is until as_loop_unwatch() and the end of that turn. */
AS_MUST_USE int as_loop_watch(as_loop *loop, as_watch *watch, uint32_t epoll_events);
AS_MUST_USE int as_loop_rewatch(as_loop *loop, as_watch *watch, uint32_t epoll_events);
/* Stops watching; before close(). Events of this turn that are not delivered yet still may come: owners that are being closed must ignore
 * them, and are freed with as_loop_defer(). */
void as_loop_unwatch(as_loop *loop, as_watch *watch);

/* (Re)sets `timer` to fire in `delay_ms`, never early, at most one tick late beyond the loop's own delay. */
void as_timer_set(as_loop *loop, as_timer *timer, void (*fire)(as_timer *), uint32_t delay_ms);
void as_timer_clear(as_loop *loop, as_timer *timer);
static inline bool as_timer_is_set(const as_timer *timer)
{
    return timer->link != NULL;
}

void as_loop_defer(as_loop *loop, as_deferred *work, void (*run)(as_deferred *));
/* Work for the next turn, which then does not wait: how a long piece of work lets the others have their turn. First in, first out. */
void as_loop_soon(as_loop *loop, as_deferred *work, void (*run)(as_deferred *));
void as_loop_add_hook(as_loop *loop, as_hook *hook, void (*turn_ends)(as_hook *));

/* Any thread. The message belongs to the loop afterwards. */
void as_loop_post(as_loop *loop, as_message *message, void (*handle)(as_message *, as_loop *));

#endif
