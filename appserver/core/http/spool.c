#include "http/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

enum { KEPT_MEMORY = 16 * 1024 };

void as_spool_init(as_spool *spool, const char *directory)
{
    spool->fd = -1;
    spool->on_disk = false;
    spool->length = 0;
    spool->memory.len = 0;
    spool->directory = directory;
}

static int write_all(int fd, as_str data)
{
    while (data.len > 0) {
        ssize_t n = write(fd, data.ptr, data.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return AS_ESYSTEM;
        data.ptr += n;
        data.len -= (size_t)n;
    }
    return AS_OK;
}

/* A file without a name: nothing is left behind, however this process ends. Where the directory cannot be written (a read-only container) the body
 * stays in memory, which the limit on bodies bounds. */
static int open_file(const char *directory)
{
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return fd >= 0 ? fd : memfd_create("request-body", MFD_CLOEXEC);
}

static int move_to(as_spool *spool, int fd)
{
    if (fd < 0)
        return AS_ESYSTEM;
    int err = AS_OK;
    if (spool->fd < 0) {
        err = write_all(fd, as_str_of(spool->memory.ptr, spool->memory.len));
    } else {
        off_t from = 0;
        while (err == AS_OK && from < (off_t)spool->length) {
            /* Not copy_file_range: that refuses to copy between two kinds of file system (EXDEV), and a memfd is never of the disk's kind. */
            ssize_t n = sendfile(fd, spool->fd, &from, (size_t)((off_t)spool->length - from));
            if (n <= 0)
                err = AS_ESYSTEM;
        }
        if (err == AS_OK)
            close(spool->fd);
    }
    if (err != AS_OK) {
        close(fd);
        return err;
    }
    spool->fd = fd;
    spool->memory.len = 0;
    return AS_OK;
}

int as_spool_add(as_spool *spool, as_str data, uint64_t expected)
{
    uint64_t length = spool->length + data.len;
    uint64_t final = expected > length ? expected : length;
    int err = AS_OK;
    if (final > AS_SPOOL_MEMORY && !spool->on_disk) {
        err = move_to(spool, open_file(spool->directory));
        spool->on_disk = true;
    } else if (final > AS_MAX_INLINE_BODY && spool->fd < 0) {
        err = move_to(spool, memfd_create("request-body", MFD_CLOEXEC));
    }
    if (err != AS_OK)
        return err;
    if (spool->fd >= 0) {
        err = write_all(spool->fd, data);
    } else {
        err = as_buf_reserve(&spool->memory, data.len, AS_MAX_INLINE_BODY);
        if (err == AS_OK)
            as_buf_add(&spool->memory, data);
    }
    if (err == AS_OK)
        spool->length = length;
    return err;
}

int as_spool_take_fd(as_spool *spool)
{
    int fd = spool->fd;
    spool->fd = -1;
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET);
    return fd;
}

void as_spool_reset(as_spool *spool)
{
    if (spool->fd >= 0)
        close(spool->fd);
    if (spool->memory.capacity > KEPT_MEMORY)
        as_buf_free(&spool->memory);
    as_spool_init(spool, NULL);
}

void as_spool_free(as_spool *spool)
{
    as_spool_reset(spool);
    as_buf_free(&spool->memory);
}
