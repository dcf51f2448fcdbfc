/* access_log.h: a line for every request, formatted by the loop that answered it, written by a thread of its own.
 *
 * A loop fills one of two buffers; when it is full, or a second old, it is handed to the writer thread, which does the write(2). So neither a slow disk nor a
 * full pipe behind stdout ever stops a loop: when the writer cannot keep up, lines are dropped and counted (the log says so itself when it recovers). */
#ifndef AS_HTTP_ACCESS_LOG_H
#define AS_HTTP_ACCESS_LOG_H

#include "http/request.h"

typedef enum as_log_format { AS_LOG_OFF, AS_LOG_COMBINED, AS_LOG_JSON } as_log_format;

typedef struct as_access_log as_access_log;   /* the writer: one for the server */
typedef struct as_access_lane as_access_lane; /* a loop's end of it */

/* Starts the writer thread. NULL when it cannot. `fd` is duplicated. */
as_access_log *as_access_log_new(int loops, int fd, as_log_format format);
/* Control thread: from now on lines go to (a duplicate of) `fd`. 0 or AS_ESYSTEM. */
int as_access_log_reopen(as_access_log *log, int fd, as_log_format format);
/* The loop's lane; lives as long as the log. */
as_access_lane *as_access_log_lane(as_access_log *log, int loop);
/* Writes what is there, as long as somebody takes it, and ends the thread; the loops must have ended. */
void as_access_log_free(as_access_log *log);

/* Loop thread. `cut`: the response broke off. */
void as_access_log_write(as_access_lane *lane, const as_request *request, uint64_t body_bytes, bool cut);
/* Loop thread: whether requests are logged at all. */
bool as_access_log_is_on(const as_access_lane *lane);
/* Loop thread: whether lines wait in the lane. */
bool as_access_log_pending(const as_access_lane *lane);
/* Loop thread: hands over everything (drain, reopen). */
void as_access_log_flush(as_access_lane *lane);

#endif
