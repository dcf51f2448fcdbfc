/* with: base/memory.c base/buf.c base/error.c */
/* Strings, buffers, memory. */
#include "base/buf.h"

#include "check.h"

static void test_comparisons(void)
{
    CHECK(as_str_equal(AS_STR_NONE, AS_STR("")));
    CHECK(as_str_equal(AS_STR("a\0b"), as_str_of("a\0b", 3)) && !as_str_equal(AS_STR("a\0b"), AS_STR("a\0c")));
    CHECK(!as_str_equal(AS_STR("a"), AS_STR("ab")));
    CHECK(as_str_equal_nocase(AS_STR("Host"), AS_STR("hOST")) && !as_str_equal_nocase(AS_STR("Host"), AS_STR("Hos")));
    CHECK(as_str_starts(AS_STR("abc"), AS_STR("ab")) && as_str_starts(AS_STR("abc"), AS_STR_NONE));
    CHECK(!as_str_starts(AS_STR("a"), AS_STR("ab")) && !as_str_starts(AS_STR_NONE, AS_STR("a")));
    CHECK(as_str_ends(AS_STR("abc"), AS_STR("bc")) && !as_str_ends(AS_STR("c"), AS_STR("bc")));
}

static void test_trim(void)
{
    CHECK_STR(as_str_trim(AS_STR(" \t a b\t ")), "a b");
    CHECK_STR(as_str_trim(AS_STR(" \t ")), "");
    CHECK_STR(as_str_trim(AS_STR_NONE), "");
    CHECK_STR(as_str_trim(AS_STR("\r\n")), "\r\n"); /* only what RFC 9110 calls white space */
}

static void test_numbers(void)
{
    const struct {
        uint64_t value;
        const char *text;
    } cases[] = {{0, "0"}, {9, "9"}, {10, "10"}, {UINT64_MAX, "18446744073709551615"}};
    char out[20];
    for (size_t i = 0; i < AS_COUNT_OF(cases); i++)
        CHECK_STR(as_str_of(out, as_str_put_u64(out, cases[i].value)), cases[i].text);
    CHECK_INT(as_str_to_i64(AS_STR("0")), 0);
    CHECK_INT(as_str_to_i64(AS_STR("0000000000000000012")), 12);
    CHECK_INT(as_str_to_i64(AS_STR("9223372036854775807")), INT64_MAX);
    CHECK_INT(as_str_to_i64(AS_STR("9223372036854775808")), -1);
    CHECK_INT(as_str_to_i64(AS_STR("9999999999999999999")), -1);
    CHECK_INT(as_str_to_i64(AS_STR("00000000000000000001")), -1); /* 20 digits */
    const char *bad[] = {"", "-1", "+1", " 1", "1 ", "1a", "0x1", "1.0", "/", ":"};
    for (size_t i = 0; i < AS_COUNT_OF(bad); i++)
        CHECK_INT(as_str_to_i64(as_str_from(bad[i])), -1);
}

static void test_buffer(void)
{
    as_buf buf = {0};
    as_buf_add(&buf, AS_STR_NONE);
    CHECK_INT(buf.len, 0);
    for (int i = 0; i < 1000; i++)
        as_buf_add(&buf, AS_STR("0123456789"));
    CHECK_INT(buf.len, 10000);
    CHECK(memcmp(buf.ptr + 9990, "0123456789", 10) == 0);
    as_buf_printf(&buf, "%d %s", 42, "x");
    CHECK_STR(as_str_of(buf.ptr + 10000, buf.len - 10000), "42 x");
    as_buf_free(&buf);
    CHECK(buf.ptr == NULL && buf.len == 0 && buf.capacity == 0);
    as_buf_free(&buf);
}

static void test_buffer_limit(void)
{
    as_buf buf = {0};
    CHECK_INT(as_buf_reserve(&buf, 0, 0), AS_OK);
    CHECK_INT(as_buf_reserve(&buf, 101, 100), AS_EFULL);
    CHECK(buf.ptr == NULL);
    CHECK_INT(as_buf_reserve(&buf, 100, 100), AS_OK);
    CHECK_INT(buf.capacity, 100); /* doubling stops at the limit */
    buf.len = 60;
    CHECK_INT(as_buf_reserve(&buf, 40, 100), AS_OK);
    CHECK_INT(as_buf_reserve(&buf, 41, 100), AS_EFULL);
    CHECK_INT(as_buf_reserve(&buf, 1000, 2000), AS_OK);
    CHECK(buf.capacity >= 1060 && buf.capacity <= 2000);
    as_buf_free(&buf);
}

static void test_allocation(void)
{
    char *zeroed = as_alloc(100);
    for (int i = 0; i < 100; i++)
        CHECK_INT(zeroed[i], 0);
    zeroed = as_realloc(zeroed, 0);
    as_free(zeroed);
    char *copy = as_strdup(as_str_of("abcdef", 3));
    CHECK(strcmp(copy, "abc") == 0);
    as_free(copy);
    copy = as_strdup(AS_STR_NONE);
    CHECK(strcmp(copy, "") == 0);
    as_free(copy);
    for (size_t size = 1; size < 200; size += 33) {
        char *lines = as_alloc_lines(size);
        CHECK_INT((uintptr_t)lines % AS_CACHE_LINE, 0);
        for (size_t i = 0; i < size; i++)
            CHECK_INT(lines[i], 0);
        as_free(lines);
    }
}

static void test_arena(void)
{
    as_arena arena;
    as_arena_init(&arena);
    as_arena_reset(&arena);
    char *first = as_arena_alloc(&arena, 1);
    char *second = as_arena_alloc(&arena, 1);
    CHECK_INT(second - first, 8);
    char *large = as_arena_alloc(&arena, 3 * AS_ARENA_BLOCK_SIZE);
    memset(large, 'x', 3 * AS_ARENA_BLOCK_SIZE);
    for (int i = 0; i < 5000; i++) {
        char *piece = as_arena_alloc(&arena, (size_t)(i % 50));
        CHECK_INT((uintptr_t)piece % 8, 0);
        memset(piece, 'y', (size_t)(i % 50));
    }
    CHECK_INT(large[3 * AS_ARENA_BLOCK_SIZE - 1], 'x');
    as_arena_reset(&arena);
    CHECK(as_arena_alloc(&arena, 1) == first); /* the first block is kept */
    as_arena_free(&arena);
    CHECK(arena.blocks == NULL);
    as_arena_free(&arena);
}

static void test_arena_texts(void)
{
    as_arena arena;
    as_arena_init(&arena);
    as_str copy = as_arena_copy(&arena, AS_STR("text"));
    CHECK_STR(copy, "text");
    CHECK_INT(copy.ptr[4], '\0');
    CHECK_INT(as_arena_copy(&arena, AS_STR_NONE).ptr[0], '\0');
    char long_text[3 * AS_ARENA_BLOCK_SIZE];
    memset(long_text, 'z', sizeof(long_text));
    long_text[sizeof(long_text) - 1] = '\0';
    as_str printed = as_arena_printf(&arena, "%s!%d", long_text, 7);
    CHECK_INT(printed.len, sizeof(long_text) + 1);
    CHECK(as_str_ends(printed, AS_STR("z!7")) && printed.ptr[printed.len] == '\0');
    as_arena_free(&arena);
}

static void test_errors(void)
{
    CHECK(strcmp(as_err_name(AS_EFULL), "AS_EFULL") == 0 && strcmp(as_err_name(-5000), "AS_?") == 0);
    CHECK(strcmp(as_err_sentence(AS_EFULL), "a limit is reached") == 0);
#define X(name, value, sentence) CHECK(as_err_status(AS_##name) >= 400 && as_err_status(AS_##name) <= 505);
    AS_ERRORS(X)
#undef X
    CHECK_INT(as_err_status(AS_EURITOOLONG), 414);
    CHECK_INT(as_err_status(AS_ENOMEM), 500);
}

int main(void)
{
    test_comparisons();
    test_trim();
    test_numbers();
    test_buffer();
    test_buffer_limit();
    test_allocation();
    test_arena();
    test_arena_texts();
    test_errors();
    return check_result("base");
}
