/* with: base/memory.c report/event.c http/date.c http/conditional.c http/byteranges.c http/accept.c handler/mime.c handler/beneath.c handler/file_cache.c handler/file_find.c handler/file_load.c */
#include "handler/file.c"

#include "file_fixture.h"

/* Compressed neighbours. */

static void begin_compressed(uint64_t bytes, uint32_t file_size)
{
    static const uint8_t ALL[] = {AS_CODING_BR, AS_CODING_ZSTD, AS_CODING_GZIP};
    memcpy(codings, ALL, sizeof(ALL));
    codings_len = 3;
    begin_with(bytes, file_size, 1000, AS_SYMLINKS_BENEATH);
    write_file("a.js", "original");
    set_modified("a.js", 784111777);
}

static void write_neighbour(const char *name, const char *text, int64_t modified_s)
{
    write_file(name, text);
    set_modified(name, modified_s);
}

static void end_compressed(void)
{
    end();
    codings_len = 0;
}

static void ask(const char *path, const char *accept_encoding)
{
    prepare(AS_METHOD_GET, path);
    with_field(AS_FIELD_ACCEPT_ENCODING, "Accept-Encoding", accept_encoding);
}

static void check_variant(const char *path, const char *accept_encoding, const char *coding, const char *body)
{
    ask(path, accept_encoding);
    CHECK_INT(handle(), 200);
    CHECK_STR(field("content-encoding"), coding);
    CHECK_STR(body_text(), body);
    CHECK_INT(request.response.body.length, strlen(body));
    CHECK_STR(field("vary"), "Accept-Encoding");
    CHECK_STR(field("content-type"), "text/javascript; charset=utf-8");
    finish();
}

static void test_fields(void)
{
    begin_compressed(1 << 20, 4096);
    write_neighbour("a.js.br", "br", 784111777);
    ask("/a.js", "br");
    CHECK_INT(handle(), 200);
    CHECK_STR(request.response.fields, "Content-Type: text/javascript; charset=utf-8\r\n"
                                       "X-Content-Type-Options: nosniff\r\n"
                                       "Accept-Ranges: bytes\r\n"
                                       "Content-Encoding: br\r\n"
                                       "Vary: Accept-Encoding\r\n"
                                       "ETag: \"2-ae1b981bc490a00-br\"\r\n"
                                       "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    finish();
    ask("/a.js", "br");
    with_field(AS_FIELD_IF_NONE_MATCH, "If-None-Match", "\"2-ae1b981bc490a00-br\"");
    CHECK_INT(handle(), 304);
    CHECK_STR(request.response.fields, "Vary: Accept-Encoding\r\nETag: \"2-ae1b981bc490a00-br\"\r\n"
                                       "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    finish();
    /* The tag of one variant says nothing about another. */
    ask("/a.js", "gzip");
    with_field(AS_FIELD_IF_NONE_MATCH, "If-None-Match", "\"2-ae1b981bc490a00-br\"");
    CHECK_INT(handle(), 200);
    finish();
    end_compressed();
}

static void test_choice(void)
{
    begin_compressed(1 << 20, 4096);
    write_neighbour("a.js.br", "br", 784111777);
    write_neighbour("a.js.gz", "gzip!", 784111778);
    for (int twice = 0; twice < 2; twice++) {
        check_variant("/a.js", "gzip, deflate, br, zstd", "br", "br");
        check_variant("/a.js", "gzip, zstd", "gzip", "gzip!");
        check_variant("/a.js", "gzip, br;q=0.9", "gzip", "gzip!"); /* the client's preference goes first */
        check_variant("/a.js", "br;q=0, *", "gzip", "gzip!");
        check_variant("/a.js", "zstd", "", "original");
        check_variant("/a.js", "", "", "original");
        check_variant("/a.js", "br;q=0.5, identity", "", "original");
        check_variant("/a.js", "br, identity", "br", "br"); /* smaller, and no less liked */
        check_variant("/a.js", "br;q=0.5, gzip;q=0.2, identity;q=0.3", "br", "br");
        check_variant("/a.js", "identity;q=0, gzip", "gzip", "gzip!");
        check_variant("/a.js", "br;q=zero", "", "original");
    }
    ask("/a.js", "zstd, *;q=0");
    CHECK_INT(handle(), 406);
    CHECK_STR(as_str_from(extra_fields), "Vary: Accept-Encoding\r\n");
    ask("/missing.js", "br, *;q=0");
    CHECK_INT(handle(), 404);
    CHECK_INT(get("/a.js"), 200); /* no Accept-Encoding at all */
    CHECK_STR(body_text(), "original");
    CHECK_STR(field("vary"), "Accept-Encoding");
    finish();
    end_compressed();
}

static void test_operators_order(void)
{
    begin_compressed(1 << 20, 4096);
    ((as_file_handler *)handler)->codings[0] = AS_CODING_GZIP;
    ((as_file_handler *)handler)->codings[2] = AS_CODING_BR;
    write_neighbour("a.js.br", "br", 784111777);
    write_neighbour("a.js.gz", "gzip!", 784111777);
    check_variant("/a.js", "br, gzip", "gzip", "gzip!");
    check_variant("/a.js", "br, gzip;q=0.9", "br", "br");
    end_compressed();
}

static void test_turned_off(void)
{
    begin();
    write_file("a.js", "original");
    write_file("a.js.gz", "gzip!");
    ask("/a.js", "gzip, *;q=0");
    CHECK_INT(handle(), 200);
    CHECK_STR(body_text(), "original");
    CHECK_STR(field("vary"), "");
    finish();
    end();
}

/* A neighbour that was made of an earlier version must not be sent. */
static void test_outdated(void)
{
    begin_compressed(1 << 20, 4096);
    write_neighbour("a.js.gz", "gzip!", 784111776);
    check_variant("/a.js", "gzip", "", "original");
    set_modified("a.js.gz", 784111777);
    check_variant("/a.js", "gzip", "", "original"); /* not looked at again before the file is */
    pass_ms(1000);
    check_variant("/a.js", "gzip", "gzip", "gzip!");
    replace_file("a.js", "rewritten");
    set_modified("a.js", 784111790);
    pass_ms(1000);
    check_variant("/a.js", "gzip", "", "rewritten");
    write_neighbour("a.js.gz", "anew", 784111790);
    pass_ms(1000);
    check_variant("/a.js", "gzip", "gzip", "anew");
    end_compressed();
}

static void test_times_to_the_second(void)
{
    as_file_stamp file = {.modified_ns = 5 * AS_NS_PER_S + 7};
    static const struct {
        int64_t modified_ns;
        bool outdated;
    } CASES[] = {{5 * AS_NS_PER_S + 7, false}, {5 * AS_NS_PER_S + 8, false},
                 {5 * AS_NS_PER_S + 6, true},  {5 * AS_NS_PER_S, false},
                 {4 * AS_NS_PER_S, true},      {4 * AS_NS_PER_S + 999, true},
                 {6 * AS_NS_PER_S, false},     {0, true}};
    for (size_t i = 0; i < AS_COUNT_OF(CASES); i++) {
        as_file_stamp neighbour = {.modified_ns = CASES[i].modified_ns};
        CHECK_INT(is_outdated(&neighbour, &file), CASES[i].outdated);
    }
}

static void test_changes(void)
{
    begin_compressed(1 << 20, 4096);
    write_neighbour("a.js.gz", "gzip!", 784111777);
    check_variant("/a.js", "gzip", "gzip", "gzip!");
    remove_file("a.js.gz");
    check_variant("/a.js", "gzip", "gzip", "gzip!"); /* believed for a second, as every file is */
    pass_ms(1000);
    check_variant("/a.js", "gzip", "", "original");
    write_neighbour("a.js.gz", "other", 784111777);
    pass_ms(1000);
    check_variant("/a.js", "gzip", "gzip", "other");
    write_neighbour("a.js.gz", "third", 784111777);
    pass_ms(1000);
    check_variant("/a.js", "gzip", "gzip", "third");
    remove_file("a.js"); /* without the file its neighbours are nothing but themselves */
    pass_ms(1000);
    ask("/a.js", "gzip");
    CHECK_INT(handle(), 404);
    CHECK_INT(get("/a.js.gz"), 200);
    CHECK_STR(field("content-type"), "application/gzip");
    CHECK_STR(field("content-encoding"), "");
    CHECK_STR(body_text(), "third");
    finish();
    end_compressed();
}

static void test_what_is_no_file(void)
{
    begin_compressed(1 << 20, 4096);
    make_dir("a.js.br");
    make_link("a.js.zst", "/etc/passwd");
    write_neighbour("a.js.gz", "gzip!", 784111777);
    check_variant("/a.js", "br, zstd, gzip", "gzip", "gzip!");
    check_variant("/a.js", "br, zstd", "", "original");
    end_compressed();
}

static void test_index(void)
{
    begin_compressed(1 << 20, 4096);
    write_file("index.htm", "page");
    set_modified("index.htm", 784111777);
    write_neighbour("index.htm.gz", "gzip!", 784111777);
    ask("/", "gzip");
    CHECK_INT(handle(), 200);
    CHECK_STR(field("content-encoding"), "gzip");
    CHECK_STR(field("content-type"), "text/html; charset=utf-8");
    CHECK_STR(body_text(), "gzip!");
    finish();
    end_compressed();
}

static void test_cached_hit_asks_nobody(void)
{
    begin_compressed(1 << 20, 4096);
    write_neighbour("a.js.gz", "gzip!", 784111777);
    check_variant("/a.js", "br, gzip", "gzip", "gzip!");
    remove_tree(root); /* who asked the file system now would know */
    for (int i = 0; i < 3; i++)
        check_variant("/a.js", "br, gzip", "gzip", "gzip!");
    CHECK_INT(mkdir(root, 0755), 0);
    end_compressed();
}

static void check_ranges(void)
{
    static char content[1001];
    memset(content, '.', 1000);
    memcpy(content, "gzip", 4);
    write_neighbour("a.js.gz", content, 784111777);
    ask("/a.js", "gzip");
    with_field(AS_FIELD_RANGE, "Range", "bytes=0-3");
    CHECK_INT(handle(), 206);
    CHECK_STR(as_str_from(extra_fields), "Content-Range: bytes 0-3/1000\r\n");
    CHECK_STR(field("content-encoding"), "gzip");
    CHECK_STR(body_text(), "gzip");
    finish();
    ask("/a.js", "gzip");
    with_field(AS_FIELD_RANGE, "Range", "bytes=0-3,900-903");
    CHECK_INT(handle(), 200);
    CHECK_STR(body_text(), content);
    finish();
}

static void test_ranges(void)
{
    begin_compressed(1 << 20, 4096);
    check_ranges();
    end_compressed();
    begin_compressed(1 << 20, 5);
    check_ranges();
    end_compressed();
    begin_compressed(0, 4096);
    check_ranges();
    end_compressed();
}

/* A cache with room for one of the two: the one that is answered with stays alive meanwhile. */
static void test_little_room(void)
{
    begin_compressed(2000, 4096);
    static char content[1001];
    memset(content, 'z', 1000);
    write_neighbour("a.js.gz", content, 784111777);
    for (int i = 0; i < 4; i++) {
        check_variant("/a.js", "gzip", "gzip", content);
        check_variant("/a.js", "", "", "original");
    }
    end_compressed();
}

static void test_error_page(void)
{
    begin_compressed(1 << 20, 4096);
    write_neighbour("a.js.gz", "gzip!", 784111777);
    ask("/a.js", "gzip, *;q=0");
    request.error_status = 404;
    CHECK_INT(handle(), 404);
    CHECK_STR(body_text(), "original");
    CHECK_STR(field("content-encoding"), "");
    finish();
    end_compressed();
}

/* Fallback. */

static int get_accepting(const char *path, const char *accept)
{
    prepare(AS_METHOD_GET, path);
    with_field(AS_FIELD_USER_AGENT, "User-Agent", "x");
    if (accept != NULL) {
        as_field line = {AS_STR("Accept"), as_str_from(accept)};
        request.head.fields[request.head.fields_len++] = line;
    }
    return handle();
}

static void check_fallback(const char *path, const char *accept, bool falls_back)
{
    for (int twice = 0; twice < 2; twice++) { /* the second time it is known that there is no such file */
        CHECK_INT(get_accepting(path, accept), falls_back ? 200 : 404);
        CHECK_STR(as_str_from(extra_fields), "Vary: Accept\r\n");
        if (falls_back) {
            CHECK_STR(body_text(), "app");
            CHECK_STR(field("content-type"), "text/html; charset=utf-8");
        }
        finish();
    }
}

static void test_fallback(void)
{
    static const char BROWSER[] = "text/html,application/xhtml+xml,*/*;q=0.8";
    fallback = "/index.html";
    begin();
    write_file("index.html", "app");
    write_file("real.txt", "real");
    make_dir("dir");
    check_fallback("/orders/7", BROWSER, true);
    check_fallback("/orders/7/", BROWSER, true);
    check_fallback("/v1.2", BROWSER, true);
    check_fallback("/dir/", BROWSER, true);
    check_fallback("/real.txt/below", BROWSER, true);
    check_fallback("/app.js", "*/*", false); /* a script that is missing is no page */
    check_fallback("/api.d/data", "*/*", true);
    check_fallback("/orders/7", NULL, true);
    check_fallback("/app.js", NULL, false);
    check_fallback("/orders/7", "application/json", false);
    check_fallback("/orders/7", "text/html;q=0, */*", false);
    CHECK_INT(get_accepting("/real.txt", BROWSER), 200);
    CHECK_STR(body_text(), "real");
    CHECK_STR(as_str_from(extra_fields), "");
    finish();
    CHECK_INT(get_accepting("/dir", BROWSER), 301);
    finish();
    CHECK_INT(get_accepting("/.git/config", BROWSER), 404); /* hidden names are not for pages */
    CHECK_STR(as_str_from(extra_fields), "");
    make_link("out", "/etc/passwd");
    CHECK_INT(get_accepting("/out", BROWSER), 403);
    prepare(AS_METHOD_POST, "/orders/7");
    CHECK_INT(handle(), 405);
    prepare(AS_METHOD_HEAD, "/orders/7");
    CHECK_INT(handle(), 200);
    CHECK_INT(request.response.body.length, 3);
    finish();
    prepare(AS_METHOD_GET, "/404.html"); /* an error page that is missing is missing */
    request.error_status = 404;
    CHECK_INT(handle(), 404);
    CHECK(request.response.body.release == NULL);
    remove_file("index.html");
    pass_ms(1000);
    CHECK_INT(get_accepting("/orders/7", BROWSER), 404);
    CHECK_INT(get_accepting("/index.html", BROWSER), 404);
    fallback = NULL;
    end();
}

static void test_compressed_fallback(void)
{
    fallback = "/index.html";
    begin_compressed(1 << 20, 4096);
    write_file("index.html", "app");
    set_modified("index.html", 784111777);
    write_neighbour("index.html.br", "br", 784111777);
    ask("/orders/7", "br");
    CHECK_INT(handle(), 200);
    CHECK_STR(field("content-encoding"), "br");
    CHECK_STR(body_text(), "br");
    finish();
    fallback = NULL;
    end_compressed();
}

int main(void)
{
    set_up();
    test_fields();
    test_choice();
    test_operators_order();
    test_turned_off();
    test_outdated();
    test_times_to_the_second();
    test_changes();
    test_what_is_no_file();
    test_index();
    test_cached_hit_asks_nobody();
    test_ranges();
    test_little_room();
    test_error_page();
    test_fallback();
    test_compressed_fallback();
    return tear_down("file variants");
}
