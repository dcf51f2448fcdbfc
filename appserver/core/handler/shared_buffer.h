/* shared_buffer.h: memory of executors that holds the bodies of their answers (docs/executor-protocol.md section 4, `file` with the flag 1).
 *
 * An executor that made a file in memory for each large body would have the kernel find, clear and free its pages each time, which costs three times as much as
 * copying the bytes. So it keeps a few, writes the next body where an earlier one was, and lends it with the answer; the core has it mapped, sends from there (by
 * copying: what sendfile lends to a socket may be read long after the core has done with it) and then gives it back by one store.
 * Mappings are kept while they are used and AS_SHARED_BUFFER_KEPT_MS longer. Loop thread. */
#ifndef AS_HANDLER_SHARED_BUFFER_H
#define AS_HANDLER_SHARED_BUFFER_H

#include "http/request.h"
#include "loop/loop.h"

enum {
    AS_SHARED_BUFFER_HEAD = 4096,            /* bytes before the body; the first 32 bits: 1 while it is lent, then 0 */
    AS_SHARED_BUFFER_MAX = 64 * 1024 * 1024, /* bytes of a file that is mapped */
    AS_SHARED_BUFFERS_KEPT = 64,             /* mappings of one lane, and those that are lent at the moment */
    AS_SHARED_BUFFER_KEPT_MS = 10 * 1000,
};

typedef struct as_shared_buffer as_shared_buffer;

typedef struct as_shared_buffers {
    as_loop *loop;
    as_shared_buffer *first; /* the one that was used last comes first */
    int count;
    as_timer timer;
} as_shared_buffers;

void as_shared_buffers_init(as_shared_buffers *buffers, as_loop *loop);
/* Bodies that are still being sent keep their mappings. */
void as_shared_buffers_free(as_shared_buffers *buffers);
/* `length` bytes from `offset` of the file `fd`, which is closed, as a body that gives the buffer back when it is released. False when that is no such buffer, or
 * it cannot be mapped. */
bool as_shared_buffers_body(as_shared_buffers *buffers, int fd, uint64_t offset, uint64_t length, as_body *body);
/* Gives the buffer back without looking at what is in it; `fd` stays the caller's. */
void as_shared_buffer_give_back(int fd);

#endif
