/* lane.h: one loop's end of a pool, shared by the files of the pool handler and by nobody else. Loop thread.
 *
 *   pool.c           the handler: admission, environment, dispatch, giving up
 *   lane.c           the records: slots, requests in progress
 *   pool_death.c     what becomes of the requests of an executor that died
 *   pool_incident.c  the record of a request that went wrong
 *   pool_answer.c    what executors answer
 *   pool_document.c  the header section of a CGI program's output
 *
 * A request that was handed to the pool has a record (as_pending) from handle() to its end. While it is in the kernel's queue or in an executor it has
 * a slot too, and the slot may outlive the record: when nobody wants the answer any more, the slot stays taken until the executor has answered, so that what
 * the executor still writes there cannot hit another request.
 *
 * Whatever answers a request (as_request_respond, as_request_error) may end it at once, recycle it, and call handle() for the next one on its
 * connection. So the record is given back first, and nothing that was read before such a call is believed after it. */
#ifndef AS_HANDLER_LANE_H
#define AS_HANDLER_LANE_H

#include "base/buf.h"
#include "handler/environment.h"
#include "handler/frame.h"
#include "handler/pool.h"
#include "handler/sendfile.h"
#include "handler/shared_buffer.h"
#include "handler/slot.h"
#include "report/counters.h"
#include "report/event.h"

enum {
    AS_LANE_MAX_BATCH = 32,             /* requests in one datagram */
    AS_LANE_BATCH_RUN_NS = 1000 * 1000, /* what a batch may keep its last request waiting for the others */
    AS_LANE_TURN_DATAGRAMS = 16,        /* answers read before others get their turn */
    AS_LANE_RETRY_MS = 16,              /* until the next attempt when the queue takes no more */
    AS_LANE_LOST_MS = 100,              /* docs/executor-protocol.md section 7 */
};

#define AS_LANE_NONE UINT32_MAX

typedef struct as_pending as_pending;
typedef struct as_document as_document;

typedef struct as_pool_handler {
    as_handler base;
    int pool;
    uint64_t where; /* of the fingerprints of its requests */
    bool authorization;
    bool stream_bodies;
    as_environment environment;
    as_sendfile *sendfile; /* NULL: such fields go to the client as they are */
} as_pool_handler;

typedef enum as_pending_phase {
    AS_PENDING_FREE,
    AS_PENDING_WAITING,   /* in the lane, for its turn */
    AS_PENDING_SENT,      /* in the kernel's queue or in an executor; has a slot */
    AS_PENDING_DOCUMENT,  /* the header section of its document is being read; has a slot and a document */
    AS_PENDING_STREAMING, /* answered; the executor has not ended the body; has a slot */
} as_pending_phase;

struct as_pending {
    as_pending *next; /* of the waiting, or of the free ones */
    as_pending *previous;
    as_lane *lane;
    as_request *request;
    as_document *document;
    as_timer timer;
    int64_t arrived_ns;
    uint32_t slot;
    int stream_fd; /* -1, or the executor's end of the request's stream socket, until it is sent */
    uint8_t phase;
    bool retried; /* an executor has died with it */
};

/* What the core alone knows of a slot. */
typedef struct as_lane_slot {
    as_pending *pending; /* NULL when nobody waits for the answer any more */
    uint64_t wire_id;
    uint64_t log_id;
    uint64_t datagram; /* number of the datagram that took it along */
    int64_t sent_ns;
    uint32_t next_free;
    bool taken : 1;
    bool cancelled : 1;
    bool suspected : 1;  /* its datagram may have gone with an executor */
    bool cancel_due : 1; /* the cancel frame could not be sent yet */
    bool is_document : 1;
} as_lane_slot;

struct as_lane {
    as_home *home;
    as_pool_options options;
    char *name;
    int loops;
    as_pool_counters *counts;
    as_watch answers; /* fd -1: every executor's end has been closed */
    int answer_fd;
    as_hook hook;

    /* the slots of this loop */
    as_slot_header *segment;
    size_t segment_size;
    as_slot *shared; /* the loop's own range */
    as_lane_slot *slots;
    uint32_t first_slot; /* number of the first of them on the wire */
    uint32_t slots_len;
    uint32_t free_slot;
    uint32_t sent; /* slots taken */
    uint32_t cancels_due;

    /* the requests */
    as_pending *waiting;
    as_pending *waiting_last;
    uint32_t waiting_len;
    as_pending *free_pendings;
    uint32_t active; /* records in use */

    bool stream_bodies;
    bool upgrades;
    uint32_t share;   /* of the pool's capacity; at least 1 */
    uint32_t at_once; /* of that: what runs at the same time; the rest waits for something inside its executor */
    int64_t run_ns;   /* a request's usual run, moving average */
    uint64_t next_wire_id;
    uint64_t datagrams; /* sent so far */
    uint64_t received;  /* the last of them that is known to have been received */
    as_timer retry;
    as_timer lost;
    int64_t death_ns; /* of the last executor that died */
    int64_t complained_ns;

    as_shared_buffers buffers; /* of its executors */
    char *in;                  /* AS_DATAGRAM_MAX bytes each */
    char *out;
};

/* lane.c */

void as_pending_set_phase(as_pending *pending, as_pending_phase phase);
/* A record for the request, phase FREE; request->handler_state points to it. */
as_pending *as_pending_new(as_lane *lane, as_request *request);
/* Whether a stream socket goes with its request. */
bool as_pending_has_stream(const as_pending *pending);
/* Gives the record back; its request is forgotten and returned, its slot (when it has one) has no owner any more. */
as_request *as_pending_free(as_pending *pending);
void as_lane_push_waiting(as_lane *lane, as_pending *pending, bool in_front);
void as_lane_remove_waiting(as_lane *lane, as_pending *pending);

/* Takes a slot for the record: AS_LANE_NONE when there is none. The shared record is filled in, state queued. */
uint32_t as_lane_take_slot(as_lane *lane, as_pending *pending);
void as_lane_give_slot(as_lane *lane, uint32_t slot);
/* Nobody wants the answer: tells the executor. The slot stays taken. */
void as_lane_cancel_slot(as_lane *lane, uint32_t slot);
/* Likewise, but what runs may go on. */
void as_lane_disown_slot(as_lane *lane, uint32_t slot);
/* Tries to send the cancel frames that are due. */
void as_lane_send_cancels(as_lane *lane);
/* When the slot's request began to run, CLOCK_MONOTONIC; -1 when it has not been received yet. */
int64_t as_lane_slot_start_ns(const as_lane *lane, uint32_t slot);
/* Deadline of a request for slot and frame: its arrival plus all that it may wait and run; 0 without a limit on its run. */
uint64_t as_pending_deadline_ns(const as_pending *pending);

/* pool.c */

/* Ends the request with the error page for `status`. */
void as_pending_fail(as_pending *pending, int status, const char *detail);
/* Whether its run has taken all of request_time; asks the slot, which must still be its own. */
bool as_pending_has_used_up(const as_pending *pending);
/* Ends such a request with 504. */
void as_pending_fail_used_up(as_pending *pending);
/* Sets the timer to the next moment at which one of the request's limits may be reached. */
void as_pending_set_timer(as_pending *pending);
/* Back to the front of the waiting, as if it had never been sent; the slot is not the record's any more. */
void as_pending_send_again(as_pending *pending);
/* Whether the request may be run twice, by its method and the pool's `retry`. */
bool as_pending_is_repeatable(const as_pending *pending);
/* Likewise, and no executor has died with it before. */
bool as_pending_may_retry(const as_pending *pending);
/* Gives it to another one; the slot is not the record's any more. */
void as_pending_retry(as_pending *pending);
/* Adds the field that names its incident to whatever it will be answered with. */
void as_pending_name_incident(const as_pending *pending);
/* Likewise Retry-After. */
void as_request_retry_after(as_request *request, int64_t delay_ns);
/* Another attempt to send soon, should no answer come before that. */
void as_lane_try_later(as_lane *lane);
/* Sends waiting requests as far as batching and queueing allow. */
void as_lane_flush(as_lane *lane);

/* pool_incident.c */

/* Tells of a request that still has its slot: as_incident_cause, as_incident_outcome or a status, and the executor that it was in (0: not known). */
void as_pending_record(const as_pending *pending, int cause, int outcome, uint32_t executor);

/* pool_answer.c */

/* The configuration for files that its application names; maybe NULL. */
const as_sendfile *as_pending_sendfile(const as_request *request);

/* Reads at most `datagrams` answers; true when there were as many. */
bool as_lane_receive(as_lane *lane, int datagrams);

/* pool_document.c */

/* Takes the reading end of a program's output. */
void as_document_begin(as_pending *pending, const as_answer_head *answer, int fd);
/* The program has ended before its header section was complete: decides with what is in the pipe. Ends the request. */
void as_document_end(as_pending *pending, int status);
/* The program has ended, and `output` is all that it wrote. Ends the request; the slot is not the record's any more. */
void as_document_take(as_pending *pending, const as_answer_head *answer, as_str output);
/* Closes the pipe and frees, for a record that still has it. */
void as_document_free(as_document *document);
/* The request of a streaming record has ended: whether the executor should be told to stop. */
bool as_document_is_unwanted(const as_pending *pending);
int64_t as_document_read_ns(const as_document *document);

#endif
