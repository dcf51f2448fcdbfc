/* stream.h: the core's end of a request's stream socket (docs/executor-protocol.md section 6), through which an executor gets a body that the client is still
 * sending, and, after an upgrade, what both sides say. Loop thread.
 *
 * The kernel's buffer between the two ends is the only one: what does not fit there stays with the caller. */
#ifndef AS_HTTP_STREAM_H
#define AS_HTTP_STREAM_H

#include <sys/types.h>

#include "loop/loop.h"

typedef struct as_stream {
    as_watch watch; /* not watched before it has once not been ready; see as_stream_watch() */
    as_loop *loop;
    void (*changed)(struct as_stream *stream);
    bool is_open : 1;
    bool is_watched : 1;
    bool is_readable : 1; /* a read has not said AS_EAGAIN since the last event */
    bool is_writable : 1;
    bool is_hung_up : 1; /* the other end is closed: what it has written can still be read */
} as_stream;

/* Makes the pair: the executor's end, blocking and close-on-exec, which is the caller's; or -1 with errno. `changed` is called when the stream has become
 * readable or writable or the other end was closed; maybe without reason. */
int as_stream_open(as_stream *stream, as_loop *loop, void (*changed)(as_stream *stream));
/* Nothing when it is not open. An event of this turn may still call `changed`. */
void as_stream_close(as_stream *stream);

/* Bytes (> 0), AS_EAGAIN, or AS_ECLOSED when nobody reads at the other end any more. After AS_EAGAIN `changed` tells. */
ssize_t as_stream_write(as_stream *stream, as_str data);
/* Bytes (> 0), 0 for the end, AS_EAGAIN, or AS_ECLOSED. Likewise. */
ssize_t as_stream_read(as_stream *stream, void *buf, size_t len);
/* The other end reads to its end and no further. */
void as_stream_shut_writing(as_stream *stream);
/* From now on, not only after AS_EAGAIN. AS_OK or AS_ESYSTEM. */
AS_MUST_USE int as_stream_watch(as_stream *stream);

#endif
