/* spool.h: a request body while it is being received: memory, then a memfd, then an unlinked file.
 *
 * So handlers get either a run of memory or a real file, whatever the transfer coding was. One owner thread. */
#ifndef AS_HTTP_SPOOL_H
#define AS_HTTP_SPOOL_H

#include "base/buf.h"
#include "http/limits.h"

typedef struct as_spool {
    as_buf memory; /* until `fd` is there */
    int fd;        /* -1, or the memfd or file; owned */
    bool on_disk;
    uint64_t length;
    const char *directory; /* for the file; borrowed */
} as_spool;

void as_spool_init(as_spool *spool, const char *directory);
/* Appends. `expected`: the whole body's length when it is known, else 0: chooses the right place at once.
 * AS_OK, AS_ENOMEM, or AS_ESYSTEM with errno (ENOSPC, EDQUOT, EFBIG: the disk is full). */
AS_MUST_USE int as_spool_add(as_spool *spool, as_str data, uint64_t expected);
/* Gives the fd away (-1 when the body is in memory). */
int as_spool_take_fd(as_spool *spool);
/* Closes and forgets; keeps a small memory block for the next body. */
void as_spool_reset(as_spool *spool);
void as_spool_free(as_spool *spool);

#endif
