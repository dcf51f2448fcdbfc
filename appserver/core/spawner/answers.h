/* answers.h: sends answer frames to the loops of the core without ever waiting for them. Loop thread. */
#ifndef AS_SPAWNER_ANSWERS_H
#define AS_SPAWNER_ANSWERS_H

#include "handler/frame.h"
#include "loop/loop.h"

typedef struct as_answers as_answers;

/* `fds` by loop of the core; they stay the caller's. `room` is called, from the loop, when all frames that had to wait are gone. */
as_answers *as_answers_new(as_loop *loop, const int *fds, int count, void (*room)(void *owner), void *owner);
/* Frames that still wait are dropped, their descriptors closed. */
void as_answers_free(as_answers *answers);

/* A frame made of `head`, `fields` and, for the kinds that have one, `body`; in order with those before it. `fd` (-1: none) is taken. It is sent with the others of
 * this turn by as_answers_flush(), so that they wake the core once. A socket that is full makes them wait; one whose core ends are all closed drops them. */
void as_answers_send(as_answers *answers, uint32_t to, as_answer_kind kind, const as_answer_head *head, as_str fields,
                     as_str body, int fd);

/* Sends what has gathered; at the end of each turn. */
void as_answers_flush(as_answers *answers);

/* Whether frames are waiting: the spawner then takes no further requests, which bounds them. */
bool as_answers_are_waiting(const as_answers *answers);

#endif
