/* strays.h: the end of what programs have left behind outside of their process groups. Loop thread.
 *
 * A program adopts the orphans of its own descendants (PR_SET_CHILD_SUBREAPER, which it keeps over its exec), whatever group or session they have
 * made for themselves. When it ends, all of them become children of this process, which is a subreaper, too. The kernel gives them to its first
 * thread; programs and zygotes are children of the loop's, which must be another one. So whatever is a child of the first thread is a stray. */
#ifndef AS_SPAWNER_STRAYS_H
#define AS_SPAWNER_STRAYS_H

#include "loop/loop.h"
#include "report/event.h"

typedef struct as_strays {
    /* set before start */
    as_loop *loop;
    as_event_ring *events;
    uint32_t executor;
    /* loop thread */
    int children_fd; /* list of the first thread's children; -1: it cannot be had, and nothing is done */
    as_timer again;
    uint32_t rounds; /* since there was none */
} as_strays;

/* Makes this process a subreaper. Where the kernel has no lists of children, nothing will be done. */
void as_strays_init(as_strays *strays);
/* After the end of a program: kills what it has left, and waits for it, now or in time. */
void as_strays_kill(as_strays *strays);
/* Likewise, but does not return before they are gone, or a second has passed. */
void as_strays_free(as_strays *strays);

#endif
