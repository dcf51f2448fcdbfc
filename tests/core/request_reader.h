/* request_reader.h: one request put together from pieces of any size, the way a connection does it: head, target, body.
 *
 * Input is kept in blocks of exactly its length, so that the address sanitizer sees a look beyond its end. */
#ifndef AS_TESTS_REQUEST_READER_H
#define AS_TESTS_REQUEST_READER_H

#include "base/buf.h"
#include "http/chunked.h"
#include "http/head.h"
#include "http/target.h"

/* Small, so that vectors for the limits are small; tests/requests/README.md names them too. Not const: verdicts.c has none. */
static as_limits reader_limits = {.header_size = 2048, .target_size = 512, .body_size = 4096};

enum { READER_MORE, READER_DONE, READER_REFUSED };

typedef struct reader {
    int state;
    int status;      /* of the refusal */
    size_t consumed; /* bytes that belong to this request */
    char *in;        /* until the head is complete; what it borrows from afterwards */
    size_t in_len;
    size_t scanned;
    as_head head;
    char *path;
    as_target target;
    as_chunked chunked;
    uint64_t body_left;
    as_buf body;
} reader;

static inline void reader_free(reader *r)
{
    as_free(r->in);
    as_free(r->path);
    as_buf_free(&r->body);
    *r = (reader){0};
}

static inline void reader_refuse(reader *r, int err)
{
    r->state = READER_REFUSED;
    r->status = as_err_status(err);
}

static inline void reader_take_body(reader *r, const char *data, size_t len)
{
    while (r->state == READER_MORE && len > 0) {
        as_str piece = AS_STR_NONE;
        bool done = false;
        int n;
        if (r->head.chunked) {
            n = as_chunked_decode(&r->chunked, data, len, &piece, &done);
        } else {
            n = (int)(len < r->body_left ? len : (size_t)r->body_left);
            piece = as_str_of(data, (size_t)n);
            r->body_left -= (uint64_t)n;
            done = r->body_left == 0;
        }
        if (n <= 0 || (size_t)n > len || (piece.len > 0 && (piece.ptr < data || piece.ptr + piece.len > data + n))) {
            reader_refuse(r, n < 0 ? n : AS_EINVALID);
            return;
        }
        if (r->body.len + piece.len > reader_limits.body_size) {
            reader_refuse(r, AS_EBODYTOOLARGE);
            return;
        }
        as_buf_add(&r->body, piece);
        r->consumed += (size_t)n;
        data += n;
        len -= (size_t)n;
        if (done)
            r->state = READER_DONE;
    }
}

static inline void reader_take_head(reader *r)
{
    int n = as_head_parse(r->in, r->in_len, &r->scanned, &reader_limits, &r->head);
    if (n == AS_EAGAIN)
        return;
    if (n < 0) {
        reader_refuse(r, n);
        return;
    }
    r->consumed = (size_t)n;
    as_head *head = &r->head;
    r->path = as_alloc(head->target.len + 1);
    int err = as_target_parse(head->target, head->method, r->path, &r->target);
    if (err != AS_OK) {
        reader_refuse(r, err);
        return;
    }
    if (r->target.form == AS_TARGET_ABSOLUTE)
        head->host = r->target.authority;
    if (head->content_length > (int64_t)reader_limits.body_size) {
        reader_refuse(r, AS_EBODYTOOLARGE);
        return;
    }
    as_chunked_init(&r->chunked);
    r->body_left = head->content_length > 0 ? (uint64_t)head->content_length : 0;
    if (!head->chunked && r->body_left == 0)
        r->state = READER_DONE;
    else
        reader_take_body(r, r->in + n, r->in_len - (size_t)n);
}

/* The next bytes of the connection. Those behind the request are not looked at. */
static inline void reader_feed(reader *r, const char *data, size_t len)
{
    if (r->state != READER_MORE)
        return;
    if (r->consumed > 0) {
        char *piece = as_alloc(len);
        memcpy(piece, data, len);
        reader_take_body(r, piece, len);
        as_free(piece);
        return;
    }
    /* A new block each time: nothing may be kept of the old one but `scanned`. */
    char *in = as_alloc(r->in_len + len);
    if (r->in_len > 0)
        memcpy(in, r->in, r->in_len);
    if (len > 0)
        memcpy(in + r->in_len, data, len);
    as_free(r->in);
    r->in = in;
    r->in_len += len;
    reader_take_head(r);
}

#endif
