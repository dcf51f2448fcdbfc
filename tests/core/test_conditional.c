/* with: base/error.c base/scan.c http/head.c http/date.c */
/* Preconditions and ranges (RFC 9110 sections 13 and 14). The requests go through the real parser. */
#include "http/conditional.c"

#include "check.h"

#define OLD "Sat, 01 Jan 2000 00:00:00 GMT"
#define NOW "Sun, 02 Jan 2000 00:00:00 GMT"
#define NEW "Mon, 03 Jan 2000 00:00:00 GMT"

static const as_limits limits = {.header_size = 4096, .target_size = 512};
static char text[4096];
static as_head head;

static const as_head *request(const char *method, const char *fields)
{
    int len = snprintf(text, sizeof(text), "%s / HTTP/1.1\r\nHost: a\r\n%s\r\n", method, fields);
    size_t scanned = 0;
    CHECK_INT(as_head_parse(text, (size_t)len, &scanned, &limits, &head), len);
    return &head;
}

static as_validators strong(void)
{
    return (as_validators){.etag = AS_STR("\"a\""), .last_modified = as_date_parse(AS_STR(NOW))};
}

typedef struct condition_case {
    const char *fields;
    int get;
    int put;
} condition_case;

static void test_conditions(void)
{
    static const condition_case cases[] = {
        {"", 0, 0},
        {"If-Match: *\r\n", 0, 0},
        {"If-Match: \"a\"\r\n", 0, 0},
        {"If-Match: \"b\"\r\n", 412, 412},
        {"If-Match: \"b\", \"a\"\r\n", 0, 0},
        {"If-Match: \"b\",,\"a\"\r\n", 0, 0},
        {"If-Match: \"b\"\r\nIf-Match: \"a\"\r\n", 0, 0},
        {"If-Match: W/\"a\"\r\n", 412, 412}, /* strong comparison */
        {"If-Match: a\r\n", 412, 412},
        {"If-Match: \"a\r\n", 412, 412},
        {"If-Match:\r\n", 412, 412},
        {"If-None-Match: *\r\n", 304, 412},
        {"If-None-Match: \"a\"\r\n", 304, 412},
        {"If-None-Match: W/\"a\"\r\n", 304, 412}, /* weak comparison */
        {"If-None-Match: \"b\"\r\n", 0, 0},
        {"If-None-Match: \"b\", W/\"a\"\r\n", 304, 412},
        {"If-None-Match: \"x,\\\", \"a\"\r\n", 304, 412},
        {"If-None-Match: \"b\"\r\nIf-None-Match: \"a\"\r\n", 304, 412},
        {"If-None-Match: a\r\n", 0, 0},
        {"If-None-Match: w/\"a\"\r\n", 0, 0}, /* W is upper case */
        {"If-Modified-Since: " OLD "\r\n", 0, 0},
        {"If-Modified-Since: " NOW "\r\n", 304, 0},
        {"If-Modified-Since: " NEW "\r\n", 304, 0},
        {"If-Modified-Since: yesterday\r\n", 0, 0},
        {"If-Unmodified-Since: " OLD "\r\n", 412, 412},
        {"If-Unmodified-Since: " NOW "\r\n", 0, 0},
        {"If-Unmodified-Since: " NEW "\r\n", 0, 0},
        {"If-Unmodified-Since: yesterday\r\n", 0, 0},
        /* The order of section 13.2.2: tags win over dates, and the first of the two steps over the second. */
        {"If-Match: \"a\"\r\nIf-Unmodified-Since: " OLD "\r\n", 0, 0},
        {"If-None-Match: \"b\"\r\nIf-Modified-Since: " NEW "\r\n", 0, 0},
        {"If-Match: \"b\"\r\nIf-None-Match: \"a\"\r\n", 412, 412},
        {"If-Match: \"a\"\r\nIf-None-Match: \"a\"\r\n", 304, 412},
        {"If-Unmodified-Since: " NEW "\r\nIf-Modified-Since: " NEW "\r\n", 304, 0},
    };
    as_validators validators = strong();
    for (size_t i = 0; i < AS_COUNT_OF(cases); i++) {
        int failures = check_failures;
        CHECK_INT(as_conditional_check(request("GET", cases[i].fields), &validators), cases[i].get);
        CHECK_INT(as_conditional_check(request("HEAD", cases[i].fields), &validators), cases[i].get);
        CHECK_INT(as_conditional_check(request("PUT", cases[i].fields), &validators), cases[i].put);
        if (failures != check_failures)
            fprintf(stderr, "^ %s", cases[i].fields);
    }
}

static void test_without_validators(void)
{
    as_validators none = {.last_modified = -1};
    CHECK_INT(as_conditional_check(request("GET", "If-Match: \"\"\r\n"), &none), 412);
    CHECK_INT(as_conditional_check(request("GET", "If-None-Match: \"\"\r\n"), &none), 0);
    CHECK_INT(as_conditional_check(request("GET", "If-Modified-Since: " NEW "\r\n"), &none), 0);
    CHECK_INT(as_conditional_check(request("GET", "If-Unmodified-Since: " OLD "\r\n"), &none), 0);
}

/* For one range, which most tests are about. */
static as_range_verdict check_range(const as_head *from, const as_validators *validators, uint64_t size,
                                    uint64_t *first, uint64_t *last)
{
    as_range_set set = {.len = 0};
    as_range_verdict verdict = as_range_check(from, validators, size, &set);
    CHECK_INT(set.len, verdict == AS_RANGE_SOME ? 1 : 0);
    if (verdict == AS_RANGE_SOME) {
        *first = set.ranges[0].first;
        *last = set.ranges[0].last;
    }
    return verdict;
}

static void test_weak_validator(void)
{
    as_validators weak = {.etag = AS_STR("W/\"a\""), .last_modified = -1};
    CHECK_INT(as_conditional_check(request("GET", "If-Match: W/\"a\"\r\n"), &weak), 412);
    CHECK_INT(as_conditional_check(request("GET", "If-None-Match: \"a\"\r\n"), &weak), 304);
    uint64_t first, last;
    request("GET", "Range: bytes=0-1\r\nIf-Range: W/\"a\"\r\n");
    CHECK_INT(check_range(&head, &weak, 100, &first, &last), AS_RANGE_NONE);
}

typedef struct range_case {
    const char *value;
    as_range_verdict verdict;
    uint64_t first, last;
} range_case;

static void test_ranges(void)
{
    static const range_case cases[] = {
        {"bytes=0-0", AS_RANGE_SOME, 0, 0},
        {"bytes=0-99", AS_RANGE_SOME, 0, 99},
        {"bytes=0-", AS_RANGE_SOME, 0, 99},
        {"bytes=99-", AS_RANGE_SOME, 99, 99},
        {"bytes=10-20", AS_RANGE_SOME, 10, 20},
        {"bytes=10-1000", AS_RANGE_SOME, 10, 99},
        {"bytes=10-9223372036854775807", AS_RANGE_SOME, 10, 99},
        {"bytes=-1", AS_RANGE_SOME, 99, 99},
        {"bytes=-100", AS_RANGE_SOME, 0, 99},
        {"bytes=-9223372036854775807", AS_RANGE_SOME, 0, 99},
        {"BYTES=1-2", AS_RANGE_SOME, 1, 2}, /* range units are case-insensitive (section 14.1) */
        {"bytes= 1-2", AS_RANGE_SOME, 1, 2},
        {"bytes=100-", AS_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=100-200", AS_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=-0", AS_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=20-10", AS_RANGE_NONE, 0, 0},
        {"bytes=-", AS_RANGE_NONE, 0, 0},
        {"bytes=", AS_RANGE_NONE, 0, 0},
        {"bytes", AS_RANGE_NONE, 0, 0},
        {"bytes=5", AS_RANGE_NONE, 0, 0},
        {"bytes=a-b", AS_RANGE_NONE, 0, 0},
        {"bytes=1 -2", AS_RANGE_NONE, 0, 0},
        {"bytes=+1-2", AS_RANGE_NONE, 0, 0},
        {"bytes=1--2", AS_RANGE_NONE, 0, 0},
        {"bytes=--2", AS_RANGE_NONE, 0, 0},
        {"bytes=0x1-2", AS_RANGE_NONE, 0, 0},
        {"bytes=0-0,2-3", AS_RANGE_SOME, 0, 3}, /* so near that they are one */
        {"bytes=99999999999999999999-", AS_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=0-99999999999999999999", AS_RANGE_SOME, 0, 99},
        {"lines=0-1", AS_RANGE_NONE, 0, 0},
    };
    as_validators validators = strong();
    for (size_t i = 0; i < AS_COUNT_OF(cases); i++) {
        char field[128];
        snprintf(field, sizeof(field), "Range: %s\r\n", cases[i].value);
        uint64_t first = 0, last = 0;
        int failures = check_failures;
        CHECK_INT(check_range(request("GET", field), &validators, 100, &first, &last), cases[i].verdict);
        CHECK_INT(first, cases[i].first);
        CHECK_INT(last, cases[i].last);
        CHECK_INT(check_range(request("HEAD", field), &validators, 100, &first, &last), AS_RANGE_NONE);
        if (failures != check_failures)
            fprintf(stderr, "^ %s\n", cases[i].value);
    }
    uint64_t first, last;
    CHECK_INT(check_range(request("GET", "Range: bytes=0-\r\n"), &validators, 0, &first, &last),
              AS_RANGE_UNSATISFIABLE);
    CHECK_INT(check_range(request("GET", "Range: bytes=-5\r\n"), &validators, 0, &first, &last),
              AS_RANGE_UNSATISFIABLE);
}

static void test_if_range(void)
{
    static const struct {
        const char *value;
        as_range_verdict verdict;
    } cases[] = {
        {"\"a\"", AS_RANGE_SOME}, {"\"b\"", AS_RANGE_NONE}, {"W/\"a\"", AS_RANGE_NONE}, {NOW, AS_RANGE_SOME},
        {OLD, AS_RANGE_NONE},     {NEW, AS_RANGE_NONE}, /* exact match only (section 13.1.5) */
        {"", AS_RANGE_NONE},      {"*", AS_RANGE_NONE},
    };
    as_validators validators = strong();
    for (size_t i = 0; i < AS_COUNT_OF(cases); i++) {
        char fields[128];
        snprintf(fields, sizeof(fields), "Range: bytes=1-2\r\nIf-Range: %s\r\n", cases[i].value);
        uint64_t first, last;
        CHECK_INT(check_range(request("GET", fields), &validators, 100, &first, &last), cases[i].verdict);
    }
}

int main(void)
{
    test_conditions();
    test_without_validators();
    test_weak_validator();
    test_ranges();
    test_if_range();
    return check_result("conditional");
}
