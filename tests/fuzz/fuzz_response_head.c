/* with: base/memory.c base/error.c base/scan.c http/head.c http/response_head.c */
/* What executors and programs send: whatever passes is whole lines, without framing of its own and without a way to end the head early. */
#include "http/response_head.h"

#include "invariant.h"

static void check_fields(as_str fields)
{
    const char *at = fields.ptr, *end = fields.ptr + fields.len;
    while (at < end) {
        const char *cr = memchr(at, '\r', (size_t)(end - at));
        INVARIANT(cr != NULL && cr > at && cr + 1 < end && cr[1] == '\n');
        as_str line = as_str_of(at, (size_t)(cr - at));
        INVARIANT(memchr(line.ptr, '\n', line.len) == NULL && memchr(line.ptr, '\0', line.len) == NULL);
        const char *colon = memchr(line.ptr, ':', line.len);
        INVARIANT(colon != NULL && colon > at);
        as_str name = as_str_of(at, (size_t)(colon - at));
        INVARIANT(!as_str_equal_nocase(name, AS_STR("content-length")));
        INVARIANT(!as_str_equal_nocase(name, AS_STR("transfer-encoding")));
        INVARIANT(!as_str_equal_nocase(name, AS_STR("connection")));
        at = cr + 2;
    }
}

/* The log quotes the line that is wrong, and says why. */
static void check_fault(int verdict, const as_response_head *head, as_str input)
{
    if (verdict != AS_EBADRESPONSE)
        return;
    INVARIANT(head->fault != NULL);
    INVARIANT(head->fault_line.len == 0 || (head->fault_line.ptr >= input.ptr &&
                                            head->fault_line.ptr + head->fault_line.len <= input.ptr + input.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    as_arena arena;
    as_arena_init(&arena);
    as_response_head head;
    as_str input = as_str_of((const char *)data, size);
    int n = as_response_fields_parse(input, &arena, &head);
    if (n == AS_OK)
        check_fields(head.fields);
    check_fault(n, &head, input);
    size_t scanned = 0;
    n = as_response_document_parse((const char *)data, size, &scanned, &arena, &head);
    check_fault(n, &head, input);
    INVARIANT(n <= (int)size && scanned <= size);
    if (n > 0)
        check_fields(head.fields);
    scanned = 0;
    n = as_response_nph_parse((const char *)data, size, &scanned, &arena, &head);
    check_fault(n, &head, input);
    INVARIANT(n <= (int)size && scanned <= size);
    if (n > 0) {
        check_fields(head.fields);
        INVARIANT(head.status >= 100 && head.status <= 599);
        INVARIANT(head.reason.len == 0 || memchr(head.reason.ptr, '\r', head.reason.len) == NULL);
        INVARIANT(head.reason.len == 0 || memchr(head.reason.ptr, '\n', head.reason.len) == NULL);
    }
    as_arena_free(&arena);
    return 0;
}
