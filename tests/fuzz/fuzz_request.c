/* with: base/memory.c base/buf.c base/error.c base/scan.c http/head.c http/target.c http/chunked.c */
/* seeds: requests/valid requests/invalid */
/* A whole request: its outcome does not depend on how it is cut into packets. */
#include "request_reader.h"

#include "invariant.h"

/* Too long and malformed at once: which of the two is met first depends on how much is there. */
static bool is_limit(int status)
{
    return status == 413 || status == 414 || status == 431;
}

static void compare(const reader *a, const reader *b)
{
    INVARIANT(a->state == b->state);
    INVARIANT(a->status == b->status || is_limit(a->status) || is_limit(b->status));
    if (a->state != READER_DONE)
        return;
    INVARIANT(a->consumed == b->consumed);
    INVARIANT(a->head.fields_len == b->head.fields_len && a->head.content_length == b->head.content_length);
    INVARIANT(as_str_equal(a->target.path, b->target.path) && as_str_equal(a->head.host, b->head.host));
    INVARIANT(as_str_equal(as_str_of(a->body.ptr, a->body.len), as_str_of(b->body.ptr, b->body.len)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    reader whole = {0}, bytewise = {0}, halves = {0};
    reader_feed(&whole, text, size);
    for (size_t i = 0; i < size; i++)
        reader_feed(&bytewise, text + i, 1);
    reader_feed(&halves, text, size / 2);
    reader_feed(&halves, text + size / 2, size - size / 2);
    /* Without a byte there is nothing to compare: an empty piece is never fed by a connection. */
    if (size > 0) {
        compare(&whole, &bytewise);
        compare(&whole, &halves);
    }
    reader_free(&whole);
    reader_free(&bytewise);
    reader_free(&halves);
    return 0;
}
