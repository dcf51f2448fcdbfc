/* with: base/memory.c base/buf.c base/error.c http/chunked.c */
/* A chunked body: the same bytes, end and verdict however it is cut; never more data than input. */
#include "base/buf.h"
#include "http/chunked.h"

#include "invariant.h"

typedef struct outcome {
    as_buf body;
    size_t consumed;
    int err;
    bool done;
} outcome;

static outcome decode(const char *text, size_t size, size_t piece)
{
    outcome o = {0};
    as_chunked decoder;
    as_chunked_init(&decoder);
    while (o.consumed < size && !o.done && o.err == 0) {
        size_t len = size - o.consumed < piece ? size - o.consumed : piece;
        as_str data;
        int n = as_chunked_decode(&decoder, text + o.consumed, len, &data, &o.done);
        if (n <= 0) {
            o.err = n;
            break;
        }
        INVARIANT((size_t)n <= len && data.len <= (size_t)n);
        as_buf_add(&o.body, data);
        o.consumed += (size_t)n;
    }
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outcome whole = decode((const char *)data, size, size);
    const size_t pieces[] = {1, 2, 5};
    for (size_t i = 0; i < AS_COUNT_OF(pieces); i++) {
        outcome cut = decode((const char *)data, size, pieces[i]);
        INVARIANT(cut.err == whole.err && cut.done == whole.done);
        if (whole.err == 0) {
            INVARIANT(cut.consumed == whole.consumed);
            INVARIANT(as_str_equal(as_str_of(cut.body.ptr, cut.body.len), as_str_of(whole.body.ptr, whole.body.len)));
        }
        as_buf_free(&cut.body);
    }
    as_buf_free(&whole.body);
    return 0;
}
