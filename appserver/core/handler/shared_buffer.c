#include "handler/shared_buffer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

enum { FREE = 0 };

struct as_shared_buffer {
    as_shared_buffer *next;
    char *memory;
    size_t size;
    dev_t device;
    ino_t inode;
    int64_t used_ns;
    int lent;     /* bodies that are being sent from it */
    bool is_kept; /* in the list */
};

static void forget(as_shared_buffer *buffer)
{
    if (buffer->is_kept || buffer->lent > 0)
        return;
    munmap(buffer->memory, buffer->size);
    as_free(buffer);
}

/* Takes those out of the list that have not been used since `before_ns`, and the last ones when there are more than `most`. */
static void drop_old(as_shared_buffers *buffers, int64_t before_ns, int most)
{
    as_shared_buffer **link = &buffers->first;
    int kept = 0;
    while (*link != NULL) {
        as_shared_buffer *buffer = *link;
        if (buffer->used_ns > before_ns && kept < most) {
            kept++;
            link = &buffer->next;
            continue;
        }
        *link = buffer->next;
        buffer->is_kept = false;
        forget(buffer);
    }
    buffers->count = kept;
}

static void look_again(as_timer *timer)
{
    as_shared_buffers *buffers = AS_CONTAINER_OF(timer, as_shared_buffers, timer);
    drop_old(buffers, buffers->loop->now_ns - AS_SHARED_BUFFER_KEPT_MS * AS_NS_PER_MS, AS_SHARED_BUFFERS_KEPT);
    if (buffers->first != NULL)
        as_timer_set(buffers->loop, &buffers->timer, look_again, AS_SHARED_BUFFER_KEPT_MS);
}

void as_shared_buffers_init(as_shared_buffers *buffers, as_loop *loop)
{
    *buffers = (as_shared_buffers){.loop = loop};
}

void as_shared_buffers_free(as_shared_buffers *buffers)
{
    as_timer_clear(buffers->loop, &buffers->timer);
    drop_old(buffers, INT64_MAX, 0);
}

/* The executor must not be able to make it shorter: touching what is no longer there would be the end of the core. */
static bool is_fixed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
}

static as_shared_buffer *map_buffer(as_shared_buffers *buffers, int fd, const struct stat *status)
{
    if (!is_fixed(fd) || status->st_size <= AS_SHARED_BUFFER_HEAD || status->st_size > AS_SHARED_BUFFER_MAX)
        return NULL;
    size_t size = (size_t)status->st_size;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return NULL;
    as_shared_buffer *buffer = as_alloc(sizeof(*buffer));
    *buffer = (as_shared_buffer){
        .memory = memory,
        .size = size,
        .device = status->st_dev,
        .inode = status->st_ino,
        .is_kept = true,
    };
    if (buffers->count >= AS_SHARED_BUFFERS_KEPT)
        drop_old(buffers, INT64_MIN, AS_SHARED_BUFFERS_KEPT - 1);
    buffers->count++;
    if (!as_timer_is_set(&buffers->timer))
        as_timer_set(buffers->loop, &buffers->timer, look_again, AS_SHARED_BUFFER_KEPT_MS);
    return buffer;
}

/* Taken out of the list; the caller puts it to the front. NULL when it is not there. */
static as_shared_buffer *take_known(as_shared_buffers *buffers, const struct stat *status)
{
    for (as_shared_buffer **link = &buffers->first; *link != NULL; link = &(*link)->next) {
        as_shared_buffer *buffer = *link;
        if (buffer->inode != status->st_ino || buffer->device != status->st_dev)
            continue;
        *link = buffer->next;
        return buffer;
    }
    return NULL;
}

/* What was read from it before must not be written over by what the executor does next. */
static void give_back(as_shared_buffer *buffer)
{
    __atomic_store_n((uint32_t *)(void *)buffer->memory, FREE, __ATOMIC_RELEASE);
}

static void release_body(as_body *body)
{
    as_shared_buffer *buffer = body->owner;
    give_back(buffer);
    buffer->lent--;
    forget(buffer);
}

bool as_shared_buffers_body(as_shared_buffers *buffers, int fd, uint64_t offset, uint64_t length, as_body *body)
{
    struct stat status;
    as_shared_buffer *buffer = NULL;
    if (fstat(fd, &status) == 0) {
        buffer = take_known(buffers, &status);
        if (buffer == NULL)
            buffer = map_buffer(buffers, fd, &status);
    }
    if (buffer == NULL) {
        as_shared_buffer_give_back(fd);
        close(fd);
        return false;
    }
    close(fd);
    buffer->used_ns = buffers->loop->now_ns;
    buffer->next = buffers->first;
    buffers->first = buffer;
    if (offset < AS_SHARED_BUFFER_HEAD || offset > buffer->size || length > buffer->size - offset) {
        give_back(buffer);
        return false;
    }
    *body = as_body_memory(as_str_of(buffer->memory + offset, (size_t)length));
    body->release = release_body;
    body->owner = buffer;
    buffer->lent++;
    return true;
}

void as_shared_buffer_give_back(int fd)
{
    uint32_t state = FREE;
    /* When even this fails the executor has one buffer less, and makes another one. */
    ssize_t n = pwrite(fd, &state, sizeof(state), 0);
    (void)n;
}
