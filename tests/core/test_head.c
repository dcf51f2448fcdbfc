/* with: base/scan.c base/memory.c base/error.c http/target.c http/chunked.c */
/* What the vectors of tests/requests do not reach: early refusals, limits one by one, lists, hosts, and the parsers on their own. */
#include "http/head.c"
#include "http/chunked.h"
#include "http/target.h"

#include "check.h"

static const as_limits limits = {.header_size = 256, .target_size = 64};
static as_head head;

static int parse(const char *text)
{
    size_t scanned = 0;
    return as_head_parse(text, strlen(text), &scanned, &limits, &head);
}

/* What can never become a request is refused with the bytes that show it. */
static void test_early_refusals(void)
{
    const char *bad[] = {"\n",
                         "\r\r",
                         " ",
                         "\x16\x03\x01",
                         "GET\n",
                         "GET\r\n",
                         "G@T ",
                         "G\x7f",
                         "GET /\x01",
                         "GET /\xc3",
                         "GET / HTTP/1.1\n",
                         "GET / HTTP/1.1\r\nHost: a\n",
                         "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM",
                         "\r\n\r\n\r\n\r\n\r\n"};
    for (size_t i = 0; i < AS_COUNT_OF(bad); i++) {
        if (parse(bad[i]) != AS_EBADREQUEST)
            fprintf(stderr, "not refused at once: %s\n", bad[i]);
        CHECK_INT(parse(bad[i]), AS_EBADREQUEST);
    }
    const char *good[] = {"",
                          "\r",
                          "\r\n",
                          "\r\n\r",
                          "G",
                          "GET",
                          "GET ",
                          "GET /",
                          "GET / HTTP/1.1\r",
                          "GET / HTTP/1.1\r\n",
                          "GET / HTTP/1.1\r\n\r",
                          "\r\n\r\n\r\n\r\nGET"};
    for (size_t i = 0; i < AS_COUNT_OF(good); i++)
        CHECK_INT(parse(good[i]), AS_EAGAIN);
}

/* For the log: what was understood before the refusal. */
static void test_what_a_refusal_leaves(void)
{
    CHECK_INT(parse("POST /x HTTP/2.0\r\nHost: a\r\n\r\n"), AS_EVERSION);
    CHECK_STR(head.method_text, "POST");
    CHECK_STR(head.target, "/x");
    CHECK_INT(parse("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), AS_EBADREQUEST);
    CHECK_STR(head.target, "/x");
    CHECK(!head.keep_alive && head.content_length == -1);
    CHECK_INT(parse("\x16\x03"), AS_EBADREQUEST);
    CHECK_INT(head.method_text.len, 0);
    CHECK_INT(head.target.len, 0);
}

/* A head that drips in is looked at once: `scanned` moves with it and the outcome is that of the whole. */
static void test_scanned(void)
{
    const char *text = "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
    size_t scanned = 0;
    for (size_t len = 0; len < strlen(text); len++) {
        size_t before = scanned;
        CHECK_INT(as_head_parse(text, len, &scanned, &limits, &head), AS_EAGAIN);
        CHECK(scanned >= before && scanned <= len);
    }
    CHECK_INT(scanned, 33 - 2);
    CHECK_INT(as_head_parse(text, strlen(text), &scanned, &limits, &head), 33);
    CHECK_INT(head.fields_len, 2);
}

static void test_known_fields(void)
{
    CHECK(parse("GET / HTTP/1.1\r\nhOsT: a\r\nReferer: r\r\nx: y\r\nReferer: second\r\nUser-Agent: u\r\n\r\n") > 0);
    CHECK_STR(as_head_known(&head, AS_FIELD_HOST), "a");
    CHECK_STR(as_head_known(&head, AS_FIELD_REFERER), "r"); /* the first */
    CHECK_STR(as_head_known(&head, AS_FIELD_USER_AGENT), "u");
    CHECK(as_head_known(&head, AS_FIELD_RANGE).ptr == NULL);
    CHECK_INT(head.known[AS_FIELD_USER_AGENT], 4);
    static const struct {
        const char *text;
        as_method method;
    } methods[] = {{"GET", AS_METHOD_GET},     {"HEAD", AS_METHOD_HEAD},     {"POST", AS_METHOD_POST},
                   {"PUT", AS_METHOD_PUT},     {"DELETE", AS_METHOD_DELETE}, {"OPTIONS", AS_METHOD_OPTIONS},
                   {"PATCH", AS_METHOD_PATCH}, {"TRACE", AS_METHOD_TRACE},   {"CONNECT", AS_METHOD_CONNECT},
                   {"Get", AS_METHOD_OTHER},   {"GETS", AS_METHOD_OTHER},    {"GE", AS_METHOD_OTHER}};
    for (size_t i = 0; i < AS_COUNT_OF(methods); i++) {
        char text[64];
        snprintf(text, sizeof(text), "%s / HTTP/1.1\r\nHost: a\r\n\r\n", methods[i].text);
        CHECK(parse(text) > 0);
        CHECK_INT(head.method, methods[i].method);
    }
}

static void test_lists(void)
{
    CHECK(as_list_has_token(AS_STR("close"), AS_STR("close")));
    CHECK(as_list_has_token(AS_STR(" a ,, CLOSE\t,b"), AS_STR("close")));
    CHECK(!as_list_has_token(AS_STR("closed, xclose, clo se"), AS_STR("close")));
    CHECK(!as_list_has_token(AS_STR(""), AS_STR("close")));
    CHECK(!as_list_has_token(AS_STR_NONE, AS_STR("close")));
    CHECK(as_list_has_token(AS_STR("a,b,"), AS_STR("b")));
}

static void test_hosts(void)
{
    const char *good[] = {
        "a",        "a.example",        "A-b_c~d!$&'()*+,;=",    "127.0.0.1", "a:1", "a:65535", "a:", "[::1]",
        "[::1]:80", "[::ffff:1.2.3.4]", "xn--bcher-kva.example", "1"};
    const char *bad[] = {"",          ":",      ":80",          "a b",      "a/b",     "a?b",    "a#b",
                         "a@b",       "a\\b",   "a%41",         "\xc3\xa9", "a:b",     "a:-1",   "a:123456",
                         "a:80:80",   "[",      "[]",           "[::1",     "::1",     "[::1]x", "[::1]:x",
                         "[1.2.3.4]", "[g::1]", "[::1%25eth0]", "a]",       "[[::1]]", "a\tb"};
    for (size_t i = 0; i < AS_COUNT_OF(good); i++)
        CHECK(as_is_host_port(as_str_from(good[i])));
    for (size_t i = 0; i < AS_COUNT_OF(bad); i++) {
        if (as_is_host_port(as_str_from(bad[i])))
            fprintf(stderr, "taken for a host: %s\n", bad[i]);
        CHECK(!as_is_host_port(as_str_from(bad[i])));
    }
    CHECK(!as_is_host_port(AS_STR_NONE));
}

/* The decoded path is never longer than the target, and stays within the room that the header promises. */
static void test_target_room(void)
{
    const char *targets[] = {"/",      "/a",   "//",       "/.",         "/./", "/a/..",
                             "/a/../", "/%41", "http://a", "http://a?q", "*",   "/a/b/../.."};
    const char *paths[] = {"/", "/a", "/", "/", "/", "/", "/", "/A", "/", "/", "*", "/"};
    for (size_t i = 0; i < AS_COUNT_OF(targets); i++) {
        as_str text = as_str_from(targets[i]);
        char *out = malloc(text.len + 1);
        as_target target;
        CHECK_INT(as_target_parse(text, AS_METHOD_OPTIONS, out, &target), AS_OK);
        CHECK_STR(target.path, paths[i]);
        CHECK_INT(out[target.path.len], '\0');
        free(out);
    }
    char out[1];
    as_target target;
    CHECK_INT(as_target_parse(AS_STR(""), AS_METHOD_GET, out, &target), AS_EBADREQUEST);
}

/* The decoder says exactly how far it got, with one run of data at most for each call. */
static void test_chunked_calls(void)
{
    as_chunked decoder;
    as_chunked_init(&decoder);
    as_str data;
    bool done;
    const char *text = "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nnext";
    CHECK_INT(as_chunked_decode(&decoder, text, 0, &data, &done), AS_EAGAIN);
    CHECK_INT(as_chunked_decode(&decoder, text, strlen(text), &data, &done), 6);
    CHECK_STR(data, "abc");
    CHECK_INT(as_chunked_decode(&decoder, text + 6, strlen(text) - 6, &data, &done), 7);
    CHECK_STR(data, "de");
    CHECK(!done);
    CHECK_INT(as_chunked_decode(&decoder, text + 13, strlen(text) - 13, &data, &done), 7);
    CHECK_INT(data.len, 0);
    CHECK(done);
    CHECK_INT(as_chunked_decode(&decoder, text + 20, 4, &data, &done), AS_EAGAIN); /* the next request's */
    CHECK(done);
}

static void test_largest_chunk_sizes(void)
{
    as_chunked decoder;
    as_str data;
    bool done;
    as_chunked_init(&decoder);
    CHECK_INT(as_chunked_decode(&decoder, "3ffffffffffffff\r\nx", 18, &data, &done), 18);
    CHECK(decoder.left == 0x3ffffffffffffffULL - 1);
    as_chunked_init(&decoder);
    CHECK_INT(as_chunked_decode(&decoder, "40000000000000000\r\n", 19, &data, &done), AS_EBADREQUEST);
}

int main(void)
{
    test_early_refusals();
    test_what_a_refusal_leaves();
    test_scanned();
    test_known_fields();
    test_lists();
    test_hosts();
    test_target_room();
    test_chunked_calls();
    test_largest_chunk_sizes();
    return check_result("head");
}
