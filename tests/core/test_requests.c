/* with: base/memory.c base/buf.c base/error.c base/scan.c http/head.c http/target.c http/chunked.c */
/* arguments: requests */
/* The vectors of tests/requests: each whole, byte by byte, split at every position, and pipelined behind and before another request. */
#include <dirent.h>

#include "request_reader.h"

#include "check.h"

static const char *name; /* of the vector under test */

static as_buf read_file(const char *folder, const char *file)
{
    char path[1024];
    snprintf(path, sizeof(path), "%s/%s", folder, file);
    FILE *f = fopen(path, "rb");
    as_buf buf = {0};
    if (f == NULL) {
        fprintf(stderr, "%s cannot be opened\n", path);
        CHECK(f != NULL);
        return buf;
    }
    char piece[4096];
    size_t n;
    while ((n = fread(piece, 1, sizeof(piece), f)) > 0)
        as_buf_add(&buf, as_str_of(piece, n));
    fclose(f);
    return buf;
}

/* What an .expect file says, one `keyword rest` after the other. */
typedef struct facts {
    as_str rest;
} facts;

static bool next_fact(facts *f, as_str *keyword, as_str *value)
{
    const char *lf = f->rest.len > 0 ? memchr(f->rest.ptr, '\n', f->rest.len) : NULL;
    if (lf == NULL)
        return false;
    as_str line = as_str_of(f->rest.ptr, (size_t)(lf - f->rest.ptr));
    f->rest = as_str_of(lf + 1, f->rest.len - line.len - 1);
    const char *space = memchr(line.ptr, ' ', line.len);
    size_t len = space != NULL ? (size_t)(space - line.ptr) : line.len;
    *keyword = as_str_of(line.ptr, len);
    *value = space != NULL ? as_str_of(space + 1, line.len - len - 1) : AS_STR_NONE;
    return true;
}

static as_buf unescape(as_str text)
{
    as_buf out = {0};
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '\\') {
            c = text.ptr[++i];
            if (c == 'r') {
                c = '\r';
            } else if (c == 'n') {
                c = '\n';
            } else if (c == 'x') {
                char digits[3] = {text.ptr[i + 1], text.ptr[i + 2], '\0'};
                c = (char)strtol(digits, NULL, 16);
                i += 2;
            }
        }
        as_buf_add(&out, as_str_of(&c, 1));
    }
    return out;
}

static void check_text(const char *what, as_str actual, as_str expected)
{
    check_count++;
    if (as_str_equal(actual, expected))
        return;
    check_failures++;
    fprintf(stderr, "%s: %s is \"%.*s\", expected \"%.*s\"\n", name, what, (int)actual.len, actual.ptr,
            (int)expected.len, expected.ptr);
}

static as_str keyword_text(const reader *r, as_str keyword)
{
    if (as_str_equal(keyword, AS_STR("method")))
        return r->head.method_text;
    if (as_str_equal(keyword, AS_STR("target")))
        return r->head.target;
    if (as_str_equal(keyword, AS_STR("path")))
        return r->target.path;
    if (as_str_equal(keyword, AS_STR("query")))
        return r->target.query;
    if (as_str_equal(keyword, AS_STR("host")))
        return r->head.host;
    if (as_str_equal(keyword, AS_STR("version")))
        return r->head.minor == 0 ? AS_STR("1.0") : AS_STR("1.1");
    if (as_str_equal(keyword, AS_STR("keep-alive")))
        return r->head.keep_alive ? AS_STR("yes") : AS_STR("no");
    return as_str_of(r->body.ptr, r->body.len);
}

static void check_field(const reader *r, int index, as_str expected)
{
    CHECK(index < r->head.fields_len);
    if (index >= r->head.fields_len)
        return;
    as_str field = r->head.fields[index].name;
    check_text("field name", field, as_str_of(expected.ptr, field.len));
    check_text("field value", r->head.fields[index].value,
               as_str_of(expected.ptr + field.len + 2, expected.len - field.len - 2));
}

static void check_facts(const reader *r, as_str expectation)
{
    facts f = {expectation};
    as_str keyword, value;
    int fields = 0;
    bool host = false, query = false, body = false;
    while (next_fact(&f, &keyword, &value)) {
        if (as_str_equal(keyword, AS_STR("status")))
            continue;
        host = host || as_str_equal(keyword, AS_STR("host"));
        query = query || as_str_equal(keyword, AS_STR("query"));
        body = body || as_str_equal(keyword, AS_STR("body"));
        as_buf plain = unescape(value);
        if (as_str_equal(keyword, AS_STR("field")))
            check_field(r, fields++, as_str_of(plain.ptr, plain.len));
        else
            check_text("a fact", keyword_text(r, keyword), as_str_of(plain.ptr, plain.len));
        as_buf_free(&plain);
    }
    CHECK_INT(r->head.fields_len, fields);
    CHECK_INT(r->head.host.ptr != NULL, host);
    CHECK_INT(r->target.query.ptr != NULL, query);
    CHECK(body || r->body.len == 0);
}

static int expected_status(as_str expectation)
{
    facts f = {expectation};
    as_str keyword, value;
    while (next_fact(&f, &keyword, &value)) {
        if (as_str_equal(keyword, AS_STR("status")))
            return (int)as_str_to_i64(value);
    }
    return 200;
}

/* What the reader has come to, against the expectation; `len` is the vector's length. */
static void check_outcome(const reader *r, bool valid, as_str expectation, size_t len, const char *how, size_t position)
{
    int failures = check_failures;
    if (valid) {
        CHECK_INT(r->state, READER_DONE);
        CHECK_INT(r->consumed, len);
        if (r->state == READER_DONE)
            check_facts(r, expectation);
    } else {
        CHECK_INT(r->state, READER_REFUSED);
        CHECK_INT(r->status, expected_status(expectation));
    }
    if (failures != check_failures)
        fprintf(stderr, "^ %s, %s %zu\n", name, how, position);
}

static void feed_all(reader *r, as_str request, size_t piece)
{
    for (size_t at = 0; at < request.len; at += piece)
        reader_feed(r, request.ptr + at, request.len - at < piece ? request.len - at : piece);
}

static void test_pieces(as_str request, bool valid, as_str expectation)
{
    const size_t sizes[] = {request.len, 1, 2, 3, 7, 64};
    for (size_t i = 0; i < AS_COUNT_OF(sizes); i++) {
        reader r = {0};
        feed_all(&r, request, sizes[i]);
        check_outcome(&r, valid, expectation, request.len, "in pieces of", sizes[i]);
        reader_free(&r);
    }
}

static void test_splits(as_str request, bool valid, as_str expectation)
{
    for (size_t at = 1; at < request.len; at++) {
        reader r = {0};
        reader_feed(&r, request.ptr, at);
        if (valid)
            CHECK_INT(r.state, READER_MORE);
        reader_feed(&r, request.ptr + at, request.len - at);
        check_outcome(&r, valid, expectation, request.len, "split at", at);
        reader_free(&r);
    }
}

/* Behind a good request: its bytes come in the same read. Before one: not a byte of that is taken. */
static void test_pipelined(as_str request, bool valid, as_str expectation)
{
    const as_str good =
        AS_STR("POST /first HTTP/1.1\r\nHost: first\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    as_buf both = {0};
    as_buf_add(&both, good);
    as_buf_add(&both, request);
    if (valid)
        as_buf_add(&both, good);
    reader first = {0};
    reader_feed(&first, both.ptr, both.len);
    CHECK_INT(first.state, READER_DONE);
    CHECK_INT(first.consumed, good.len);
    reader second = {0};
    reader_feed(&second, both.ptr + first.consumed, both.len - first.consumed);
    check_outcome(&second, valid, expectation, request.len, "pipelined behind", good.len);
    if (second.state == READER_DONE) {
        reader third = {0};
        size_t at = first.consumed + second.consumed;
        reader_feed(&third, both.ptr + at, both.len - at);
        CHECK_INT(third.state, READER_DONE);
        CHECK_INT(third.consumed, good.len);
        reader_free(&third);
    }
    reader_free(&second);
    reader_free(&first);
    as_buf_free(&both);
}

static void test_vector(const char *folder, const char *file, bool valid)
{
    char expect[300];
    snprintf(expect, sizeof(expect), "%.*s.expect", (int)(strlen(file) - strlen(".http")), file);
    name = file;
    as_buf request = read_file(folder, file);
    as_buf expectation = read_file(folder, expect);
    as_str bytes = as_str_of(request.ptr, request.len);
    as_str facts_text = as_str_of(expectation.ptr, expectation.len);
    test_pieces(bytes, valid, facts_text);
    test_splits(bytes, valid, facts_text);
    test_pipelined(bytes, valid, facts_text);
    as_buf_free(&request);
    as_buf_free(&expectation);
}

static int test_folder(const char *requests, const char *kind, bool valid)
{
    char folder[512];
    snprintf(folder, sizeof(folder), "%s/%s", requests, kind);
    DIR *directory = opendir(folder);
    CHECK(directory != NULL);
    int count = 0;
    struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        if (!as_str_ends(as_str_from(entry->d_name), AS_STR(".http")))
            continue;
        test_vector(folder, entry->d_name, valid);
        count++;
    }
    if (directory != NULL)
        closedir(directory);
    return count;
}

int main(int argc, char **argv)
{
    CHECK_INT(argc, 2);
    CHECK(test_folder(argv[1], "valid", true) > 60);
    CHECK(test_folder(argv[1], "invalid", false) > 150);
    return check_result("requests");
}
