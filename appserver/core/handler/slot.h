/* slot.h: the slot segment of a pool (docs/executor-protocol.md section 5): memory that the core, the executors and the supervisor share.
 *
 * Every field has one writer, named here; readers use the relaxed loads below, for which a record may be half updated but no field is.
 * A record is one cache line, so that executors on two CPUs do not disturb each other. */
#ifndef AS_HANDLER_SLOT_H
#define AS_HANDLER_SLOT_H

#include "base/platform.h"

#define AS_SLOT_MAGIC 0x534c4f54u
#define AS_SLOT_VERSION 1u

typedef enum as_slot_state {
    AS_SLOT_FREE = 0,
    AS_SLOT_QUEUED = 1,  /* set by the core before it sends */
    AS_SLOT_RUNNING = 2, /* set by the executor as soon as it has received the frame */
} as_slot_state;

typedef enum as_slot_cancelled {
    AS_SLOT_CANCELLED = 1, /* what runs is to end */
    AS_SLOT_DISOWNED =
        2, /* the client has gone, and a program that runs may go on to its end (pools with `finishes`) */
} as_slot_cancelled;

/* Filled in by the supervisor; `generation` by whoever starts a core, before it runs. */
typedef struct as_slot_header {
    uint32_t magic;
    uint32_t version;
    uint32_t slots;
    uint32_t loops;      /* loop i owns the slots from i * (slots / loops), slots / loops of them */
    uint32_t generation; /* of the running core */
    uint32_t reserved[11];
} as_slot_header;

typedef struct as_slot {
    uint32_t state;       /* as_slot_state; FREE and QUEUED by the core, RUNNING by the executor */
    uint32_t executor;    /* executor, before `state` */
    uint32_t thread;      /* executor */
    int32_t process;      /* executor: process group of a CGI program, 0 */
    uint64_t request_id;  /* core */
    uint64_t start_ns;    /* executor, before `state`: CLOCK_MONOTONIC */
    uint64_t deadline_ns; /* core: CLOCK_MONOTONIC, 0 for none */
    uint32_t cancelled;   /* core: not 0 when nobody wants the answer any more: an as_slot_cancelled */
    uint32_t repeated;    /* core: 1 when an executor has died with the request before */
    uint64_t log_id;      /* core: the request's id in the logs; `request_id` is another one for each sending */
    uint64_t
        arrived_ns; /* core: when the request came, CLOCK_MONOTONIC; it may have waited in the core before it got the slot */
} as_slot;

_Static_assert(sizeof(as_slot_header) == 64, "the header is 64 bytes");
_Static_assert(offsetof(as_slot_header, slots) == 8 && offsetof(as_slot_header, loops) == 12 &&
                   offsetof(as_slot_header, generation) == 16,
               "the header's layout is the protocol's");
_Static_assert(sizeof(as_slot) == AS_CACHE_LINE, "a record is one cache line");
_Static_assert(offsetof(as_slot, executor) == 4 && offsetof(as_slot, thread) == 8 && offsetof(as_slot, process) == 12 &&
                   offsetof(as_slot, request_id) == 16 && offsetof(as_slot, start_ns) == 24 &&
                   offsetof(as_slot, deadline_ns) == 32 && offsetof(as_slot, cancelled) == 40 &&
                   offsetof(as_slot, repeated) == 44 && offsetof(as_slot, log_id) == 48 &&
                   offsetof(as_slot, arrived_ns) == 56,
               "a record's layout is the protocol's");

/* Bytes of a segment with `slots` records. */
static inline size_t as_slot_segment_size(uint32_t slots)
{
    return sizeof(as_slot_header) + (size_t)slots * sizeof(as_slot);
}

/* A segment, mapped as a whole (lane.c); munmap() it. NULL with errno set when it cannot be or is none. Any thread. */
as_slot_header *as_slot_segment_map(int fd, size_t *size);

/* The records of a mapped segment. */
static inline as_slot *as_slot_records(as_slot_header *header)
{
    return (as_slot *)(header + 1);
}

#define AS_SLOT_LOAD(slot, field) __atomic_load_n(&(slot)->field, __ATOMIC_RELAXED)
#define AS_SLOT_STORE(slot, field, value) __atomic_store_n(&(slot)->field, (value), __ATOMIC_RELAXED)
/* The state is stored after, and read before, the other fields of its writer. */
#define AS_SLOT_LOAD_STATE(slot) __atomic_load_n(&(slot)->state, __ATOMIC_ACQUIRE)
#define AS_SLOT_STORE_STATE(slot, value) __atomic_store_n(&(slot)->state, (uint32_t)(value), __ATOMIC_RELEASE)

#endif
