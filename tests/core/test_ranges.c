/* with: base/memory.c http/date.c */
#include "http/byteranges.c"
#include "http/conditional.c"

#include "check.h"

static as_head head;
static as_range_set set;
static as_arena arena;

static void with_field(as_known_field which, const char *name, const char *value)
{
    if (head.known[which] < 0)
        head.known[which] = (int16_t)head.fields_len;
    head.fields[head.fields_len++] = (as_field){as_str_from(name), as_str_from(value)};
}

static void with_range(const char *value)
{
    head.fields_len = 0;
    head.method = AS_METHOD_GET;
    memset(head.known, 0xff, sizeof(head.known));
    with_field(AS_FIELD_RANGE, "Range", value);
}

static as_range_verdict check_of(const char *value, uint64_t size)
{
    as_validators validators = {.etag = AS_STR("\"v\""), .last_modified = 784111777};
    with_range(value);
    return as_range_check(&head, &validators, size, &set);
}

/* The set as text, or the verdict's name. */
static as_str ranges_of(const char *value, uint64_t size)
{
    static char text[4096];
    as_range_verdict verdict = check_of(value, size);
    if (verdict != AS_RANGE_SOME)
        return verdict == AS_RANGE_NONE ? AS_STR("none") : AS_STR("unsatisfiable");
    int len = 0;
    for (int i = 0; i < set.len; i++)
        len += snprintf(text + len, sizeof(text) - (size_t)len, "%s%llu-%llu", i > 0 ? "," : "",
                        (unsigned long long)set.ranges[i].first, (unsigned long long)set.ranges[i].last);
    return as_str_of(text, (size_t)len);
}

static void test_one(void)
{
    CHECK_STR(ranges_of("bytes=0-0", 1000), "0-0");
    CHECK_STR(ranges_of("bytes=0-999", 1000), "0-999");
    CHECK_STR(ranges_of("bytes=5-1000", 1000), "5-999");
    CHECK_STR(ranges_of("bytes=999-", 1000), "999-999");
    CHECK_STR(ranges_of("bytes=-1", 1000), "999-999");
    CHECK_STR(ranges_of("bytes=-1001", 1000), "0-999");
    CHECK_STR(ranges_of("BYTES=0-1", 1000), "0-1");
    CHECK_STR(ranges_of("bytes=007-008", 1000), "7-8");
    /* Positions have no largest value in the grammar. */
    CHECK_STR(ranges_of("bytes=5-99999999999999999999999999", 1000), "5-999");
    CHECK_STR(ranges_of("bytes=-99999999999999999999999999", 1000), "0-999");
    CHECK_STR(ranges_of("bytes=99999999999999999999999999-", 1000), "unsatisfiable");
    CHECK_STR(ranges_of("bytes=0-9223372036854775807", 1000), "0-999");
    CHECK_STR(ranges_of("bytes=18446744073709551615-18446744073709551616", 1000), "unsatisfiable");
}

static void test_unsatisfiable(void)
{
    CHECK_STR(ranges_of("bytes=1000-", 1000), "unsatisfiable");
    CHECK_STR(ranges_of("bytes=-0", 1000), "unsatisfiable");
    CHECK_STR(ranges_of("bytes=0-", 0), "unsatisfiable");
    CHECK_STR(ranges_of("bytes=-5", 0), "unsatisfiable");
    CHECK_STR(ranges_of("bytes=1000-1001, -0, 5000-", 1000), "unsatisfiable");
}

static void test_syntax(void)
{
    static const char *const BAD[] = {
        "",           "bytes",         "bytes=",      "bytes=,",       "bytes= , ,",
        "bytes=-",    "bytes=5",       "bytes=5-4",   "bytes=a-b",     "bytes=1-2x",
        "bytes=+1-2", "bytes=1--2",    "bytes=--1",   "bytes=0x1-2",   "bytes=1 -2",
        "bytes=1- 2", "bytes=0-1;2-3", "bytes=0-1,x", "bytes=0-1,9-8", "items=0-1",
        "bytes 0-1",  "bytes=0-1,-",   "bytes=1-2-3", "bytes =0-1",    "bytes=\"0-1\"",
    };
    for (size_t i = 0; i < AS_COUNT_OF(BAD); i++)
        CHECK_STR(ranges_of(BAD[i], 1000), "none");
    CHECK_STR(ranges_of("bytes= 0-1 ,, \t500-501, ", 1000), "0-1,500-501");
}

static void test_several(void)
{
    CHECK_STR(ranges_of("bytes=0-9,500-509,-10", 1000), "0-9,500-509,990-999");
    CHECK_STR(ranges_of("bytes=900-909,0-9,500-509", 1000), "900-909,0-9,500-509"); /* in the client's order */
    CHECK_STR(ranges_of("bytes=0-9,2000-,500-509,-0", 1000), "0-9,500-509");        /* what can be satisfied is */
    CHECK_STR(ranges_of("bytes=2000-,500-509", 1000), "500-509");
}

static void test_near_ranges_are_one(void)
{
    CHECK_STR(ranges_of("bytes=0-9,10-19", 1000), "0-19");
    CHECK_STR(ranges_of("bytes=0-9,90-99", 1000), "0-99");      /* 80 bytes between */
    CHECK_STR(ranges_of("bytes=0-9,91-99", 1000), "0-9,91-99"); /* 81 */
    CHECK_STR(ranges_of("bytes=91-99,0-9", 1000), "91-99,0-9");
    CHECK_STR(ranges_of("bytes=90-99,0-9", 1000), "0-99");
    CHECK_STR(ranges_of("bytes=0-,0-,0-,0-", 1000), "0-999");
    CHECK_STR(ranges_of("bytes=500-600,0-9,550-700", 1000), "500-700,0-9");
    /* One that lies between brings two together, at the place of the first. */
    CHECK_STR(ranges_of("bytes=0-9,900-909,200-209,100-109", 1000), "0-9,900-909,200-209,100-109");
    CHECK_STR(ranges_of("bytes=0-9,900-909,200-209,50-150", 1000), "0-209,900-909");
    CHECK_STR(ranges_of("bytes=900-909,200-209,0-9,50-150", 1000), "900-909,0-209");
    CHECK_STR(ranges_of("bytes=0-9,300-309,600-609,-1000", 1000), "0-999");
}

static char *many(char *text, size_t size, int count, int step)
{
    int len = snprintf(text, size, "bytes=");
    for (int i = 0; i < count; i++)
        len += snprintf(text + len, size - (size_t)len, "%s%d-%d", i > 0 ? "," : "", i * step, i * step);
    return text;
}

static void test_bombs(void)
{
    static char text[8192];
    CHECK_INT(check_of(many(text, sizeof(text), AS_MAX_RANGES, 100), 100000), AS_RANGE_SOME);
    CHECK_INT(set.len, AS_MAX_RANGES);
    CHECK_INT(set.ranges[AS_MAX_RANGES - 1].first, (AS_MAX_RANGES - 1) * 100);
    CHECK_INT(check_of(many(text, sizeof(text), AS_MAX_RANGES + 1, 100), 100000), AS_RANGE_NONE);
    /* Also when they would be one: the work is for the asking. */
    CHECK_INT(check_of(many(text, sizeof(text), AS_MAX_RANGES + 1, 1), 100000), AS_RANGE_NONE);
    CHECK_STR(ranges_of(many(text, sizeof(text), AS_MAX_RANGES, 2), 100000), "0-126");
}

/* Every set of three ranges on a small file against the plain meaning: each byte that was asked for is in exactly one
 * range, ranges are not near to each other, and none begins or ends with a byte that was not asked for. */
static void test_against_bitmap(void)
{
    enum { SIZE = 600, STEP = 50 };
    for (int a = 0; a < SIZE; a += STEP) {
        for (int b = 0; b < SIZE; b += STEP) {
            for (int c = 0; c < SIZE; c += STEP) {
                static char text[128];
                static bool wanted[SIZE];
                static int covered[SIZE];
                int first[3] = {a, b, c};
                memset(wanted, 0, sizeof(wanted));
                memset(covered, 0, sizeof(covered));
                snprintf(text, sizeof(text), "bytes=%d-%d,%d-%d,%d-%d", a, a + 20, b, b + 70, c, c + 5);
                for (int i = 0; i < 3; i++) {
                    for (int at = first[i]; at <= first[i] + (i == 0 ? 20 : i == 1 ? 70 : 5) && at < SIZE; at++)
                        wanted[at] = true;
                }
                bool good = check_of(text, SIZE) == AS_RANGE_SOME;
                for (int i = 0; good && i < set.len; i++) {
                    good = wanted[set.ranges[i].first] && wanted[set.ranges[i].last];
                    for (uint64_t at = set.ranges[i].first; at <= set.ranges[i].last; at++)
                        covered[at]++;
                    for (int j = 0; j < i; j++)
                        good = good && !is_near(&set.ranges[i], &set.ranges[j]);
                }
                for (int at = 0; at < SIZE; at++)
                    good = good && covered[at] <= 1 && (!wanted[at] || covered[at] == 1);
                CHECK(good);
            }
        }
    }
}

static as_range_verdict check_if_range(const char *value, const char *etag)
{
    as_validators validators = {.etag = as_str_from(etag), .last_modified = 784111777};
    with_range("bytes=0-1");
    with_field(AS_FIELD_IF_RANGE, "If-Range", value);
    return as_range_check(&head, &validators, 1000, &set);
}

static void test_if_range(void)
{
    CHECK_INT(check_if_range("\"v\"", "\"v\""), AS_RANGE_SOME);
    CHECK_INT(check_if_range("\"w\"", "\"v\""), AS_RANGE_NONE);
    CHECK_INT(check_if_range("W/\"v\"", "\"v\""), AS_RANGE_NONE);
    CHECK_INT(check_if_range("\"v\"", "W/\"v\""), AS_RANGE_NONE);
    CHECK_INT(check_if_range("W/\"v\"", "W/\"v\""), AS_RANGE_NONE); /* strong comparison (section 13.1.5) */
    CHECK_INT(check_if_range("\"v\"", ""), AS_RANGE_NONE);
    CHECK_INT(check_if_range("Sun, 06 Nov 1994 08:49:37 GMT", "\"v\""), AS_RANGE_SOME);
    CHECK_INT(check_if_range("Sun, 06 Nov 1994 08:49:38 GMT", "\"v\""), AS_RANGE_NONE); /* exact, not "since" */
    CHECK_INT(check_if_range("Sun, 06 Nov 1994 08:49:36 GMT", "\"v\""), AS_RANGE_NONE);
    CHECK_INT(check_if_range("Sun, 06 Nov 1994 08:49:37 GMT", "W/\"v\""), AS_RANGE_NONE); /* too young to be strong */
    CHECK_INT(check_if_range("yesterday", "\"v\""), AS_RANGE_NONE);
    CHECK_INT(check_if_range("", "\"v\""), AS_RANGE_NONE);
}

static void test_when_it_is_ignored(void)
{
    as_validators validators = {.etag = AS_STR("\"v\""), .last_modified = -1};
    with_range("bytes=0-1");
    with_field(AS_FIELD_RANGE, "range", "bytes=0-1"); /* a second line */
    CHECK_INT(as_range_check(&head, &validators, 1000, &set), AS_RANGE_NONE);
    with_range("bytes=0-1");
    head.method = AS_METHOD_HEAD;
    CHECK_INT(as_range_check(&head, &validators, 1000, &set), AS_RANGE_NONE);
    head.method = AS_METHOD_GET;
    CHECK_INT(as_range_check(&head, &validators, 1000, &set), AS_RANGE_SOME);
    head.known[AS_FIELD_RANGE] = -1;
    CHECK_INT(as_range_check(&head, &validators, 1000, &set), AS_RANGE_NONE);
}

#define PARTS                                                                           \
    "--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 1-2/200\r\n\r\n"           \
    "bc\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 199-199/200\r\n\r\n" \
    "z\r\n--B--\r\n"

static void test_parts_of_memory(void)
{
    char content[200];
    memset(content, 'a', sizeof(content));
    memcpy(content, "abc", 3);
    content[199] = 'z';
    as_body body = {.fd = -1};
    CHECK_INT(check_of("bytes=1-2,-1", 200), AS_RANGE_SOME);
    as_byteranges_make(&arena, &set, 200, AS_STR("text/plain"), AS_STR("B"), as_str_of(content, 200), &body);
    char text[1024];
    size_t len = 0;
    for (uint32_t i = 0; i < body.pieces_len; i++) {
        memcpy(text + len, body.pieces[i].memory.ptr, body.pieces[i].memory.len);
        len += body.pieces[i].memory.len;
    }
    CHECK_STR(as_str_of(text, len), PARTS);
    CHECK_INT(body.length, strlen(PARTS));
    CHECK_INT(body.kind, AS_BODY_PIECES);
    as_arena_reset(&arena);
}

static void test_parts_of_a_file(void)
{
    as_body body = {.fd = 9};
    CHECK_INT(check_of("bytes=1-2,-1", 200), AS_RANGE_SOME);
    as_byteranges_make(&arena, &set, 200, AS_STR("text/plain"), AS_STR("B"), AS_STR_NONE, &body);
    CHECK_INT(body.pieces_len, 5);
    CHECK_INT(body.length, strlen(PARTS));
    CHECK_INT(body.fd, 9);
    CHECK(body.pieces[0].memory.ptr != NULL && body.pieces[4].memory.ptr != NULL);
    CHECK(body.pieces[1].memory.ptr == NULL && body.pieces[3].memory.ptr == NULL);
    CHECK_INT(body.pieces[1].offset, 1);
    CHECK_INT(body.pieces[1].length, 2);
    CHECK_INT(body.pieces[3].offset, 199);
    CHECK_INT(body.pieces[3].length, 1);
    as_arena_reset(&arena);
}

int main(void)
{
    as_arena_init(&arena);
    test_one();
    test_unsatisfiable();
    test_syntax();
    test_several();
    test_near_ranges_are_one();
    test_bombs();
    test_against_bitmap();
    test_if_range();
    test_when_it_is_ignored();
    test_parts_of_memory();
    test_parts_of_a_file();
    as_arena_free(&arena);
    return check_result("test_ranges");
}
