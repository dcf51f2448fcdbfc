/* with: base/memory.c base/error.c base/scan.c http/head.c */
/* Header sections from executors and programs: what reaches the client, and what never does. */
#include "http/response_head.c"

#include "check.h"

static as_arena arena;
static as_response_head head;

static int fields(const char *block)
{
    return as_response_fields_parse(as_str_from(block), &arena, &head);
}

static int document(const char *text)
{
    size_t scanned = 0;
    return as_response_document_parse(text, strlen(text), &scanned, &arena, &head);
}

static void expect_refused(int (*parse)(const char *), const char *bad)
{
    int found = parse(bad);
    if (found != AS_EBADRESPONSE)
        fprintf(stderr, "not refused: %s", bad);
    CHECK_INT(found, AS_EBADRESPONSE);
}

static void test_fields(void)
{
    CHECK_INT(fields(""), AS_OK);
    CHECK_INT(head.fields.len, 0);
    const char *plain = "Content-Type: text/plain\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX:\r\n";
    CHECK_INT(fields(plain), AS_OK);
    CHECK(head.fields.ptr == plain && head.fields.len == strlen(plain)); /* borrowed: nothing to change */
    CHECK_STR(head.content_type, "text/plain");
    CHECK_INT(head.status, 0);
    CHECK_INT(head.content_length, -1);
    CHECK_INT(fields("Date: x\r\nSERVER: y\r\nLocation: /z\r\n"), AS_OK);
    CHECK(head.has_date && head.has_server);
    CHECK_STR(head.location, "/z");
    CHECK_INT(fields("ETag: \"a\"\r\nlast-modified: today\r\n"), AS_OK);
    CHECK_STR(head.etag, "\"a\"");
    CHECK_STR(head.last_modified, "today");
    CHECK_INT(fields("A: b\r\n\r\n"), AS_OK); /* an empty line at the very end does not go on */
    CHECK_STR(head.fields, "A: b\r\n");
}

/* Framing is the core's: whatever a handler says of it is taken out, wherever it stands. */
static void test_dropped(void)
{
    const char *dropped[] = {"Connection: keep-alive, X",
                             "Keep-Alive: timeout=5",
                             "Proxy-Connection: close",
                             "TE: trailers",
                             "Trailer: X",
                             "transfer-encoding: chunked",
                             "UPGRADE: h2c",
                             "Content-Length: 3",
                             "Status: 201 Made"};
    for (size_t i = 0; i < AS_COUNT_OF(dropped); i++) {
        char block[256];
        snprintf(block, sizeof(block), "%s\r\nA: 1\r\n", dropped[i]);
        CHECK_INT(fields(block), AS_OK);
        CHECK_STR(head.fields, "A: 1\r\n");
        snprintf(block, sizeof(block), "A: 1\r\n%s\r\nB: 2\r\n", dropped[i]);
        CHECK_INT(fields(block), AS_OK);
        CHECK_STR(head.fields, "A: 1\r\nB: 2\r\n");
        snprintf(block, sizeof(block), "A: 1\r\nB: 2\r\n%s\r\n", dropped[i]);
        CHECK_INT(fields(block), AS_OK);
        CHECK_STR(head.fields, "A: 1\r\nB: 2\r\n");
    }
    CHECK_INT(fields("Content-Length: 3\r\nContent-Length: 3\r\n"), AS_OK);
    CHECK_INT(head.content_length, 3);
}

static void test_refused(void)
{
    const char *bad[] = {
        "NoColon\r\n",
        ": empty\r\n",
        "A B: c\r\n",
        "A : b\r\n",
        " A: b\r\n",
        "A: b\r\n c\r\n",
        "A\xe4: b\r\n",
        "A: b\rc\r\n",
        "A: b\nC: d\r\n",
        "A: \x01\r\n",
        "A: \x7f\r\n",
        "A: b",
        "A: b\r",
        "A: b\r\n\r\nHTTP/1.1 200 OK\r\n",
        "Status: 99\r\n",
        "Status: 600\r\n",
        "Status: 20\r\n",
        "Status: 2000\r\n",
        "Status: abc\r\n",
        "Status:\r\n",
        "Status: -20\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 1,1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length:\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 99999999999999999999\r\n",
    };
    for (size_t i = 0; i < AS_COUNT_OF(bad); i++)
        expect_refused(fields, bad[i]);
    as_str nul = AS_STR("A: b\0c\r\n");
    CHECK_INT(as_response_fields_parse(nul, &arena, &head), AS_EBADRESPONSE);
}

static void test_too_many(void)
{
    static char block[16 * 1024];
    size_t len = 0;
    for (int i = 0; i < AS_MAX_RESPONSE_FIELDS; i++)
        len += (size_t)snprintf(block + len, sizeof(block) - len, "A%d: b\r\n", i);
    CHECK_INT(as_response_fields_parse(as_str_of(block, len), &arena, &head), AS_OK);
    len += (size_t)snprintf(block + len, sizeof(block) - len, "More: b\r\n");
    CHECK_INT(as_response_fields_parse(as_str_of(block, len), &arena, &head), AS_EBADRESPONSE);
}

static void test_document(void)
{
    CHECK_INT(document("Content-Type: text/html\n\nbody"), 25);
    CHECK_STR(head.fields, "Content-Type: text/html\r\n");
    CHECK_INT(document("Status: 404 Not Here\r\nContent-Type: a/b\r\n\r\nbody"), 43);
    CHECK_INT(head.status, 404);
    CHECK_STR(head.reason, "Not Here");
    CHECK_STR(head.fields, "Content-Type: a/b\r\n");
    CHECK_INT(document("Status: 204\n\n"), 13);
    CHECK_INT(head.status, 204);
    CHECK_INT(head.reason.len, 0);
    CHECK_INT(document("A: 1\r\nB: 2\nC: 3\r\n\n"), 18); /* mixed */
    CHECK_STR(head.fields, "A: 1\r\nB: 2\r\nC: 3\r\n");
    CHECK_INT(document("\nbody"), AS_EBADRESPONSE);
    CHECK_INT(document("\r\n\r\n"), AS_EBADRESPONSE);
    CHECK_INT(document("<html>\n\n"), AS_EBADRESPONSE);
    CHECK_INT(document("<!--: spam\nContent-Type: text/html\n\n<body"), 36);
    CHECK_STR(head.fields, "Content-Type: text/html\r\n");
    CHECK_INT(document("<!--: other\nContent-Type: text/html\n\n<body"), AS_EBADRESPONSE);
    CHECK_INT(fields("<!--: spam\r\n"), AS_EBADRESPONSE); /* no program's */
    CHECK_INT(document(""), AS_EAGAIN);
    CHECK_INT(document("A: 1\r\n"), AS_EAGAIN);
    CHECK_INT(document("A: 1\r\n\r"), AS_EAGAIN);
}

/* The section dripping in, in blocks of exactly its length. */
static void test_document_in_pieces(void)
{
    const char *text = "Status: 201 Made\r\nA: 1\nContent-Length: 4\r\nB: 2\r\n\nbody";
    size_t whole = strlen(text) - 4;
    size_t scanned = 0;
    for (size_t len = 1; len <= strlen(text); len++) {
        char *piece = malloc(len);
        memcpy(piece, text, len);
        int n = as_response_document_parse(piece, len, &scanned, &arena, &head);
        if (len < whole) {
            CHECK_INT(n, AS_EAGAIN);
            CHECK(scanned <= len);
        } else {
            CHECK_INT(n, whole);
            CHECK_STR(head.fields, "A: 1\r\nB: 2\r\n");
            CHECK_INT(head.content_length, 4);
        }
        free(piece);
    }
}

static int nph(const char *text)
{
    size_t scanned = 0;
    return as_response_nph_parse(text, strlen(text), &scanned, &arena, &head);
}

static void test_nph(void)
{
    CHECK_INT(nph("HTTP/1.0 200 Fine\nA: 1\r\nStatus: 404\n\nbody"), 37);
    CHECK_INT(head.status, 200);
    CHECK_STR(head.reason, "Fine");
    CHECK_STR(head.fields, "A: 1\r\n");
    CHECK_INT(nph("HTTP/1.1 204\r\n\r\n"), 16);
    CHECK_INT(head.status, 204);
    CHECK_INT(nph("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 3\n\n"), 62);
    CHECK_STR(head.transfer_coding, "chunked");
    CHECK_INT(nph("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), 25);
    CHECK_INT(head.status, 100);
    CHECK_INT(nph(""), AS_EAGAIN);
    CHECK_INT(nph("HTTP/1.1 200 OK\r\n"), AS_EAGAIN);
    static const char *const bad[] = {
        "Content-Type: a/b\n\n",    "\nbody",
        "HTTP/2 200 OK\n\n",        "HTTP/1.1 99 x\n\n",
        "HTTP/1.1 2000\n\n",        "HTTP/1.1  200\n\n",
        "HTTP/1.1 200 a\rb\n\n",    "HTTP/1.x 200 OK\n\n",
        "HTTP/1.1 200OK\n\n",       "HTTP/1.1\n\n",
        "HTTP/1.1 200 OK\nbad\n\n", "http/1.1 200 OK\n\n",
    };
    for (size_t i = 0; i < AS_COUNT_OF(bad); i++)
        expect_refused(nph, bad[i]);
}

static void test_document_limit(void)
{
    static char text[AS_MAX_RESPONSE_HEAD + 10];
    memset(text, 'a', sizeof(text));
    memcpy(text, "A: ", 3);
    size_t scanned = 0;
    CHECK_INT(as_response_document_parse(text, AS_MAX_RESPONSE_HEAD - 1, &scanned, &arena, &head), AS_EAGAIN);
    CHECK_INT(as_response_document_parse(text, AS_MAX_RESPONSE_HEAD, &scanned, &arena, &head), AS_ERESPONSETOOLARGE);
    memcpy(text + AS_MAX_RESPONSE_HEAD - 2, "\n\n", 2);
    scanned = 0;
    CHECK_INT(as_response_document_parse(text, sizeof(text), &scanned, &arena, &head), AS_MAX_RESPONSE_HEAD);
    scanned = 0;
    text[AS_MAX_RESPONSE_HEAD - 1] = 'a'; /* its end beyond the limit does not count */
    memcpy(text + AS_MAX_RESPONSE_HEAD, "\n\n", 2);
    CHECK_INT(as_response_document_parse(text, sizeof(text), &scanned, &arena, &head), AS_ERESPONSETOOLARGE);
}

static void test_reasons(void)
{
    CHECK_STR(as_status_reason(404), "Not Found");
    CHECK_STR(as_status_reason(413), "Content Too Large");
    CHECK_STR(as_status_reason(299), "Unknown");
}

int main(void)
{
    as_arena_init(&arena);
    test_fields();
    test_dropped();
    test_refused();
    test_too_many();
    test_document();
    test_document_in_pieces();
    test_nph();
    test_document_limit();
    test_reasons();
    as_arena_free(&arena);
    return check_result("response_head");
}
