/* with: */
#include "spawner/stderr_lines.c"

#include "check.h"

static char got[AS_STDERR_MAX_LINES + 2][AS_STDERR_LINE + 4];
static int got_count;

static void note(void *owner, as_str line)
{
    CHECK(owner == &got_count);
    CHECK(line.len <= AS_STDERR_LINE + 3);
    memcpy(got[got_count], line.ptr, line.len);
    got[got_count++][line.len] = '\0';
}

static void put(as_stderr_lines *lines, const char *text)
{
    as_stderr_take(lines, as_str_from(text), note, &got_count);
}

static void test_lines(void)
{
    as_stderr_lines lines = {0};
    got_count = 0;
    put(&lines, "one\ntw");
    CHECK_INT(got_count, 1);
    put(&lines, "o\r\n\n\r\nbell \a\x1b[1m tab\tend");
    CHECK_INT(got_count, 2);
    as_stderr_finish(&lines, note, &got_count);
    as_stderr_finish(&lines, note, &got_count);
    CHECK_INT(got_count, 3);
    CHECK(strcmp(got[0], "one") == 0);
    CHECK(strcmp(got[1], "two") == 0);
    CHECK(strcmp(got[2], "bell ??[1m tab\tend") == 0);
    CHECK_INT(lines.dropped_lines, 0);
}

static void test_long_line(void)
{
    as_stderr_lines lines = {0};
    char text[1001];
    memset(text, 'x', 1000);
    text[1000] = '\0';
    got_count = 0;
    for (int i = 0; i < 5; i++)
        put(&lines, text);
    put(&lines, "\nnext\n");
    CHECK_INT(got_count, 2);
    CHECK_INT(strlen(got[0]), AS_STDERR_LINE + 3);
    CHECK(strcmp(got[0] + AS_STDERR_LINE, "...") == 0);
    CHECK(strcmp(got[1], "next") == 0);
    CHECK_INT(lines.dropped_bytes, 5000 - AS_STDERR_LINE);
    CHECK_INT(lines.dropped_lines, 0);
}

static void test_flood(void)
{
    as_stderr_lines lines = {0};
    got_count = 0;
    for (int i = 0; i < AS_STDERR_MAX_LINES + 10; i++)
        put(&lines, "line\n");
    put(&lines, "the last one ");
    put(&lines, "has no end");
    as_stderr_finish(&lines, note, &got_count);
    CHECK_INT(got_count, AS_STDERR_MAX_LINES);
    CHECK_INT(lines.dropped_lines, 11);
    CHECK_INT(lines.dropped_bytes, 10 * 5 + 23);
}

int main(void)
{
    test_lines();
    test_long_line();
    test_flood();
    return check_result("stderr_lines");
}
