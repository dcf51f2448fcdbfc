/* frame.h: the frames of the executor protocol (docs/executor-protocol.md sections 2 to 4), encoded and decoded.
 *
 * No I/O, no allocation. Both ends use it: the core (handler/pool) and the CGI spawner. Any thread. */
#ifndef AS_HANDLER_FRAME_H
#define AS_HANDLER_FRAME_H

#include "base/error.h"
#include "base/str.h"

#define AS_FRAME_VERSION 2
#define AS_REQUEST_HEAD_LEN 48
#define AS_ANSWER_HEAD_LEN 56
#define AS_DATAGRAM_MAX (192 * 1024)
#define AS_STREAM_UNKNOWN UINT64_MAX /* body_len of a stream whose length is not known */

typedef enum as_request_kind {
    AS_REQUEST_RUN = 1,
    AS_REQUEST_CANCEL = 2,
} as_request_kind;

/* Flags of a request; at most one of these, each of which says what the attached fd is. */
#define AS_REQUEST_BODY_FD 1u     /* the body, a file */
#define AS_REQUEST_BODY_STREAM 2u /* a stream socket that the body comes through */
#define AS_REQUEST_UPGRADE 4u     /* a stream socket for the other protocol that the client asks for */
#define AS_REQUEST_FD_FLAGS (AS_REQUEST_BODY_FD | AS_REQUEST_BODY_STREAM | AS_REQUEST_UPGRADE)

typedef enum as_answer_kind {
    AS_ANSWER_RESPONSE = 1,
    AS_ANSWER_FILE = 2,
    AS_ANSWER_STREAM = 3,
    AS_ANSWER_DOCUMENT = 4,
    AS_ANSWER_END = 5,
    AS_ANSWER_SKIPPED = 6,
    AS_ANSWER_INFORMATIONAL = 7,
    AS_ANSWER_UPGRADE = 8,
    AS_ANSWER_WHOLE_DOCUMENT = 9,
} as_answer_kind;

/* Flag of a `file`: it is a buffer that the executor lends (handler/shared_buffer.h). */
#define AS_FILE_LENT 1u
/* Flag of a `document`: what the program writes is a whole HTTP response (RFC 3875 section 5). */
#define AS_DOCUMENT_NPH 1u

#define AS_END_SIGNAL 256 /* status of `end` for a document: exit code, or this plus the signal */

/* The head of a request frame, as it is on the wire. */
typedef struct as_request_head {
    uint32_t length;
    uint16_t version;
    uint16_t kind;
    uint32_t slot;
    uint32_t loop;
    uint64_t request_id;
    uint64_t deadline_ns;
    uint32_t environment_len;
    uint32_t flags;
    uint64_t body_len;
} as_request_head;

/* The head of an answer frame, as it is on the wire. */
typedef struct as_answer_head {
    uint32_t length;
    uint16_t version;
    uint16_t kind;
    uint32_t slot;
    uint16_t status;
    uint16_t flags;
    uint64_t request_id;
    uint32_t fields_len;
    uint32_t run_us;
    uint64_t body_len;
    uint64_t file_offset;
    uint32_t cpu_us; /* 0: not known */
    uint32_t reserved;
} as_answer_head;

_Static_assert(sizeof(as_request_head) == AS_REQUEST_HEAD_LEN && offsetof(as_request_head, body_len) == 40,
               "as documented");
_Static_assert(sizeof(as_answer_head) == AS_ANSWER_HEAD_LEN && offsetof(as_answer_head, request_id) == 16 &&
                   offsetof(as_answer_head, cpu_us) == 48,
               "as documented");

/* A decoded request; the strings borrow from the datagram. */
typedef struct as_request_frame {
    as_request_head head;
    as_str environment;
    as_str body; /* inline; empty when it is or comes through the fd */
} as_request_frame;

/* A decoded answer; the strings borrow from the datagram. */
typedef struct as_answer_frame {
    as_answer_head head;
    as_str fields;
    as_str body; /* inline; kinds `response` and `whole-document` only */
} as_answer_frame;

/* Writes the head with length, version and kind filled in: `head->environment_len`, flags and (without a flag that names an fd) body_len tell what will
 * follow. `out` has room for AS_REQUEST_HEAD_LEN bytes and need not be aligned. */
void as_request_frame_begin(const as_request_head *head, as_request_kind kind, char *out);
/* Likewise, AS_ANSWER_HEAD_LEN bytes; what follows is fields_len bytes, and body_len for kinds `response` and `whole-document`. */
void as_answer_frame_begin(const as_answer_head *head, as_answer_kind kind, char *out);

/* Decode the frame at the start of `buf`. The bytes of the frame (> 0), or AS_EBADFRAME: too short, another version, an unknown kind, lengths that do
 * not add up or reach beyond the datagram, an environment that does not end with NUL, flags that contradict each other, a status out of range. What follows
 * is the next frame. */
int as_request_frame_decode(const char *buf, size_t len, as_request_frame *frame);
int as_answer_frame_decode(const char *buf, size_t len, as_answer_frame *frame);

/* Whether an answer of this kind comes with a file descriptor. */
bool as_answer_has_fd(uint16_t kind);

#endif
