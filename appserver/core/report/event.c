#include "report/event.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

enum { RING_SIZE = 256 };

struct as_event_ring {
    int loop;
    int wake_fd;
    as_counters *counters;
    uint32_t head AS_ALIGNED_LINE; /* written by the producer */
    uint32_t tail AS_ALIGNED_LINE; /* written by the consumer */
    as_event events[RING_SIZE];
};

as_event_ring *as_event_ring_new(int loop, int wake_fd, as_counters *counters)
{
    as_event_ring *ring = as_alloc_lines(sizeof(*ring));
    ring->loop = loop;
    ring->wake_fd = wake_fd;
    ring->counters = counters;
    return ring;
}

void as_event_ring_free(as_event_ring *ring)
{
    as_free(ring);
}

static void emit(as_event_ring *ring, const as_event *about, const char *format, va_list args)
{
    uint32_t head = ring->head;
    uint32_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
    if (head - tail == RING_SIZE) {
        AS_COUNT(ring->counters, events_dropped, 1);
        return;
    }
    as_event *event = &ring->events[head % RING_SIZE];
    memcpy(event, about, offsetof(as_event, text));
    event->loop = (uint32_t)ring->loop;
    vsnprintf(event->text, sizeof(event->text), format, args);
    /* Sequentially consistent with the consumer's last look: either it sees this record or we see that it had emptied the ring. */
    __atomic_store_n(&ring->head, head + 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&ring->tail, __ATOMIC_SEQ_CST) == head) {
        uint64_t one = 1;
        ssize_t n = write(ring->wake_fd, &one, sizeof(one));
        (void)n; /* a full counter wakes as well */
    }
}

void as_event_emit(as_event_ring *ring, as_event_kind kind, uint64_t request_id, int pool, uint32_t executor,
                   const char *format, ...)
{
    as_event about = {.kind = kind, .request_id = request_id, .pool = pool, .executor = executor};
    va_list args;
    va_start(args, format);
    emit(ring, &about, format, args);
    va_end(args);
}

void as_event_emit_about(as_event_ring *ring, const as_event *about, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    emit(ring, about, format, args);
    va_end(args);
}

bool as_event_next(as_event_ring *ring, as_event *event)
{
    uint32_t tail = ring->tail;
    if (__atomic_load_n(&ring->head, __ATOMIC_SEQ_CST) == tail)
        return false;
    memcpy(event, &ring->events[tail % RING_SIZE], sizeof(*event));
    __atomic_store_n(&ring->tail, tail + 1, __ATOMIC_SEQ_CST);
    return true;
}
