/* with: base/memory.c report/event.c http/date.c http/conditional.c http/byteranges.c http/accept.c handler/mime.c handler/beneath.c handler/file_cache.c handler/file_find.c handler/file_load.c */
#include "handler/file.c"

#include <sys/socket.h>
#include <sys/un.h>

#include "file_fixture.h"

/* Whole files. */

static void test_whole_file(void)
{
    begin();
    write_file("hello.txt", "hello");
    set_modified("hello.txt", 784111777);
    CHECK_INT(get("/hello.txt"), 200);
    CHECK_STR(request.response.fields, "Content-Type: text/plain; charset=utf-8\r\n"
                                       "X-Content-Type-Options: nosniff\r\n"
                                       "Accept-Ranges: bytes\r\n"
                                       "ETag: \"5-ae1b981bc490a00\"\r\n"
                                       "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    CHECK_INT(request.response.body.kind, AS_BODY_MEMORY);
    CHECK_STR(body_text(), "hello");
    finish();
    CHECK_INT(counters.cache_misses, 1);
    CHECK_INT(counters.cache_hits, 0);
    CHECK(counters.cache_bytes > 5);
    check_get("/hello.txt", "hello");
    CHECK_INT(counters.cache_misses, 1);
    CHECK_INT(counters.cache_hits, 1);
    end();
}

static void test_head(void)
{
    begin();
    write_file("hello.txt", "hello");
    prepare(AS_METHOD_HEAD, "/hello.txt");
    CHECK_INT(handle(), 200);
    CHECK_INT(request.response.body.length, 5);
    CHECK(field("etag").len > 0);
    finish();
    prepare(AS_METHOD_HEAD, "/missing");
    CHECK_INT(handle(), 404);
    end();
}

static void test_empty_file(void)
{
    begin();
    write_file("empty", "");
    check_get("/empty", "");
    check_get("/empty", "");
    CHECK_STR(field("content-type"), "");
    CHECK_INT(counters.cache_hits, 1);
    end();
}

static void test_other_methods(void)
{
    begin();
    write_file("hello.txt", "hello");
    static const as_method REFUSED[] = {AS_METHOD_POST, AS_METHOD_PUT, AS_METHOD_DELETE, AS_METHOD_PATCH,
                                        AS_METHOD_OTHER};
    for (size_t i = 0; i < AS_COUNT_OF(REFUSED); i++) {
        prepare(REFUSED[i], "/hello.txt");
        CHECK_INT(handle(), 405);
        CHECK_STR(as_str_from(extra_fields), "Allow: GET, HEAD, OPTIONS\r\n");
    }
    prepare(AS_METHOD_OPTIONS, "/hello.txt");
    CHECK_INT(handle(), 204);
    CHECK_STR(request.response.fields, "Allow: GET, HEAD, OPTIONS\r\n");
    CHECK_INT(request.response.body.kind, AS_BODY_NONE);
    finish();
    end();
}

static void test_large_file(void)
{
    begin_with(1 << 20, 10, 1000, AS_SYMLINKS_BENEATH);
    write_file("large.bin", "0123456789abcdef");
    CHECK_INT(get("/large.bin"), 200);
    int fd = request.response.body.fd;
    CHECK_INT(request.response.body.kind, AS_BODY_FILE);
    CHECK_INT(request.response.body.offset, 0);
    CHECK_INT(request.response.body.length, 16);
    CHECK_STR(body_text(), "0123456789abcdef");
    finish();
    CHECK_INT(get("/large.bin"), 200);
    CHECK_INT(request.response.body.fd, fd); /* kept open */
    finish();
    CHECK_INT(counters.cache_hits, 1);
    end();
}

static void test_large_file_changes_are_seen_at_once(void)
{
    begin_with(1 << 20, 10, 1000, AS_SYMLINKS_BENEATH);
    write_file("large.bin", "0123456789abcdef");
    CHECK_INT(get("/large.bin"), 200);
    write_file("large.bin", "0123456789ab");
    CHECK_STR(body_text(), "0123456789ab"); /* a short send: the core cuts the connection */
    finish();
    check_get("/large.bin", "0123456789ab");
    write_file("large.bin", "short");
    CHECK_INT(get("/large.bin"), 200);
    CHECK_INT(request.response.body.kind, AS_BODY_MEMORY);
    CHECK_STR(body_text(), "short");
    finish();
    end();
}

static void test_without_cache(void)
{
    begin_with(0, 4096, 1000, AS_SYMLINKS_BENEATH);
    write_file("hello.txt", "hello");
    for (int i = 0; i < 2; i++) {
        CHECK_INT(get("/hello.txt"), 200);
        int fd = request.response.body.fd;
        CHECK_INT(request.response.body.kind, AS_BODY_FILE);
        CHECK_STR(body_text(), "hello");
        finish();
        CHECK_INT(fcntl(fd, F_GETFD), -1);
    }
    prepare(AS_METHOD_GET, "/hello.txt");
    with_field(AS_FIELD_IF_MATCH, "If-Match", "\"other\"");
    CHECK_INT(handle(), 412);
    CHECK_INT(get_status("/missing"), 404);
    CHECK_INT(counters.cache_bytes, 0);
    end();
}

/* Directories and index files. */

static void test_index(void)
{
    begin();
    CHECK_INT(get_status("/"), 404);
    pass_ms(1000);
    write_file("index.htm", "second");
    CHECK_INT(get("/"), 200);
    CHECK_STR(body_text(), "second");
    CHECK_STR(field("content-type"), "text/html; charset=utf-8");
    finish();
    write_file("index.html", "first");
    pass_ms(1000);
    check_get("/", "first");
    make_dir("sub");
    CHECK_INT(get_status("/sub/"), 404);
    make_dir("sub/index.html");
    write_file("sub/index.htm", "not the directory");
    pass_ms(1000);
    check_get("/sub/", "not the directory");
    end();
}

static void test_directory_redirect(void)
{
    begin();
    make_dir("sub");
    make_dir("sp ace");
    make_dir("sp ace/\xc3\xa9%?#\"");
    CHECK_INT(get("/sub"), 301);
    CHECK_STR(request.response.fields, "Location: /sub/\r\n");
    CHECK_INT(request.response.body.kind, AS_BODY_NONE);
    finish();
    prepare(AS_METHOD_GET, "/sp ace/\xc3\xa9%?#\"");
    request.target.query = AS_STR("a=1&b=%20");
    CHECK_INT(handle(), 301);
    CHECK_STR(request.response.fields, "Location: /sp%20ace/%C3%A9%25%3F%23%22/?a=1&b=%20\r\n");
    finish();
    prepare(AS_METHOD_GET, "/sub");
    request.target.query = as_str_of("", 0);
    CHECK_INT(handle(), 301);
    CHECK_STR(request.response.fields, "Location: /sub/?\r\n");
    finish();
    end();
}

/* Refusals. */

static void test_missing(void)
{
    static char name[6000];
    begin();
    write_file("file", "x");
    CHECK_INT(get_status("/missing"), 404);
    CHECK_INT(get_status("/missing/deeper"), 404);
    CHECK_INT(get_status("/file/"), 404);
    CHECK_INT(get_status("/file/below"), 404);
    memset(name, 'n', sizeof(name) - 1);
    name[0] = '/';
    CHECK_INT(get_status(name), 404);
    name[300] = '\0';
    CHECK_INT(get_status(name), 404);
    prepare(AS_METHOD_GET, "/file");
    request.path = as_str_of("/file\0.txt", 10);
    CHECK_INT(handle(), 404);
    prepare(AS_METHOD_GET, "");
    CHECK_INT(handle(), 404);
    prepare(AS_METHOD_GET, "*");
    CHECK_INT(handle(), 404);
    end();
}

static void test_missing_is_remembered_for_a_moment(void)
{
    begin();
    CHECK_INT(get_status("/late.txt"), 404);
    CHECK_INT(counters.cache_misses, 1);
    write_file("late.txt", "here");
    pass_ms(999);
    CHECK_INT(get_status("/late.txt"), 404);
    CHECK_INT(counters.cache_hits, 1);
    pass_ms(1);
    check_get("/late.txt", "here");
    remove_file("late.txt");
    check_get("/late.txt", "here");
    pass_ms(1000);
    CHECK_INT(get_status("/late.txt"), 404);
    end();
}

static void test_dot_files(void)
{
    begin();
    make_dir(".git");
    make_dir(".well-known");
    write_file(".git/config", "secret");
    write_file(".htaccess", "secret");
    write_file(".well-known/security.txt", "contact");
    write_file(".well-known/.hidden", "secret");
    write_file(".well-knownish", "secret");
    make_dir("a.b");
    write_file("a.b/c.d", "fine");
    CHECK_INT(get_status("/.git/config"), 404);
    CHECK_INT(get_status("/.git"), 404);
    CHECK_INT(get_status("/.htaccess"), 404);
    CHECK_INT(get_status("/.well-known/.hidden"), 404);
    CHECK_INT(get_status("/.well-knownish"), 404);
    CHECK_INT(get_status("/a.b/.well-known/x"), 404);
    CHECK_INT(get_status("/.."), 404);
    CHECK_INT(get_status("/a.b/../a.b/c.d"), 404);
    check_get("/.well-known/security.txt", "contact");
    CHECK_INT(get_status("/.well-known"), 301);
    check_get("/a.b/c.d", "fine");
    prepare(AS_METHOD_GET, "/.htaccess");
    request.error_status = 404;
    CHECK_INT(handle(), 404);
    CHECK_STR(body_text(), "secret");
    finish();
    CHECK_INT(get_status("/.htaccess"), 404); /* cached now, and still not public */
    CHECK_STR(body_text(), "");
    prepare(AS_METHOD_GET, "/a.b/../.htaccess");
    request.error_status = 404;
    CHECK_INT(handle(), 404);
    CHECK_STR(body_text(), "");
    end();
}

static void test_special_files(void)
{
    char path[512];
    begin();
    snprintf(path, sizeof(path), "%s/fifo", root);
    CHECK_INT(mkfifo(path, 0644), 0);
    CHECK_INT(get_status("/fifo"), 403);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", root);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    CHECK_INT(get_status("/socket"), 403);
    close(fd);
    end();
    begin_with(1 << 20, 4096, 1000, AS_SYMLINKS_FOLLOW);
    make_link("device", "/dev/null");
    CHECK_INT(get_status("/device"), 403);
    end();
}

/* Runs as somebody whom file modes bind. */
static void without_privileges(void (*check)(void))
{
    bool is_root = geteuid() == 0;
    if (is_root)
        CHECK(setegid(65534) == 0 && seteuid(65534) == 0);
    check();
    if (is_root)
        CHECK(seteuid(0) == 0 && setegid(0) == 0);
}

static void check_permissions(void)
{
    CHECK_INT(get_status("/private.txt"), 403);
    CHECK_INT(get_status("/closed"), 301);
    CHECK_INT(get_status("/closed/"), 200);
    CHECK_INT(get_status("/locked/file"), 403);
    CHECK_INT(get_status("/locked/"), 403);
}

static void check_root_is_reached_as_before(void)
{
    CHECK_INT(get_status("/closed/index.html"), 200);
}

static void test_permissions(void)
{
    begin();
    write_file("private.txt", "secret");
    make_dir("closed");
    write_file("closed/index.html", "page");
    make_dir("locked");
    write_file("locked/file", "secret");
    set_mode("private.txt", 0);
    set_mode("closed", 0711);
    set_mode("locked", 0);
    if (geteuid() != 0)
        set_mode("closed", 0311);
    without_privileges(check_permissions);
    if (geteuid() == 0) {
        /* Above the root nobody may pass, but the handler was made before. */
        CHECK_INT(chmod(base, 0700), 0);
        without_privileges(check_root_is_reached_as_before);
        CHECK_INT(chmod(base, 0755), 0);
    }
    set_mode("closed", 0755);
    set_mode("locked", 0755);
    end();
}

static void make_links(void)
{
    char absolute[512];
    write_file("../outside.txt", "outside");
    write_file("page.txt", "inside");
    make_dir("sub");
    make_link("sub/inside.txt", "../page.txt");
    make_link("up.txt", "../outside.txt");
    make_link("updir", "..");
    snprintf(absolute, sizeof(absolute), "%s/outside.txt", base);
    make_link("absolute.txt", absolute);
    snprintf(absolute, sizeof(absolute), "%s/page.txt", root);
    make_link("absolute-inside.txt", absolute);
    make_link("loop.txt", "loop.txt");
    make_link("dangling.txt", "nowhere.txt");
    make_link("linked", "sub");
}

static void check_links(as_symlinks symlinks, int inside, int escape, int redirect)
{
    begin_with(1 << 20, 4096, 1000, symlinks);
    make_links();
    for (int twice = 0; twice < 2; twice++) {
        CHECK_INT(get_status("/page.txt"), 200);
        CHECK_INT(get_status("/sub/inside.txt"), inside);
        CHECK_INT(get_status("/linked/inside.txt"), inside);
        CHECK_INT(get_status("/linked"), redirect);
        CHECK_INT(get_status("/up.txt"), escape);
        CHECK_INT(get_status("/updir/outside.txt"), escape);
        CHECK_INT(get_status("/absolute.txt"), escape);
        CHECK_INT(get_status("/absolute-inside.txt"), escape);
        CHECK_INT(get_status("/loop.txt"), 404);
        CHECK_INT(get_status("/dangling.txt"), 404);
    }
    end();
    CHECK_INT(access(base, F_OK), 0);
}

static void test_symbolic_links(void)
{
    check_links(AS_SYMLINKS_BENEATH, 200, 403, 301);
    check_links(AS_SYMLINKS_DENY, 404, 404, 404);
    check_links(AS_SYMLINKS_FOLLOW, 200, 200, 301);
}

/* Conditions and ranges. */

static void test_conditions(void)
{
    begin();
    write_file("hello.txt", "hello");
    set_modified("hello.txt", 784111777);
    prepare(AS_METHOD_GET, "/hello.txt");
    with_field(AS_FIELD_IF_NONE_MATCH, "If-None-Match", "\"5-ae1b981bc490a00\"");
    CHECK_INT(handle(), 304);
    CHECK_STR(request.response.fields,
              "ETag: \"5-ae1b981bc490a00\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    CHECK_INT(request.response.body.kind, AS_BODY_NONE);
    as_file_cache_clear(home.file_cache);
    CHECK_STR(field("etag"), "\"5-ae1b981bc490a00\""); /* the fields stay until release */
    finish();
    prepare(AS_METHOD_HEAD, "/hello.txt");
    with_field(AS_FIELD_IF_MODIFIED_SINCE, "If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT");
    CHECK_INT(handle(), 304);
    finish();
    prepare(AS_METHOD_GET, "/hello.txt");
    with_field(AS_FIELD_IF_NONE_MATCH, "If-None-Match", "\"other\"");
    CHECK_INT(handle(), 200);
    finish();
    prepare(AS_METHOD_GET, "/hello.txt");
    with_field(AS_FIELD_IF_MATCH, "If-Match", "\"other\"");
    CHECK_INT(handle(), 412);
    prepare(AS_METHOD_GET, "/hello.txt");
    with_field(AS_FIELD_IF_UNMODIFIED_SINCE, "If-Unmodified-Since", "Sat, 05 Nov 1994 08:49:37 GMT");
    CHECK_INT(handle(), 412);
    end();
}

static void check_range(const char *range, const char *content_range, const char *expected)
{
    prepare(AS_METHOD_GET, "/digits.txt");
    with_field(AS_FIELD_RANGE, "Range", range);
    CHECK_INT(handle(), 206);
    CHECK_STR(as_str_from(extra_fields), content_range);
    CHECK_STR(body_text(), expected);
    CHECK_INT(request.response.body.length, strlen(expected));
    CHECK(field("etag").len > 0);
    finish();
}

static void check_ranges(void)
{
    write_file("digits.txt", "0123456789");
    check_range("bytes=0-3", "Content-Range: bytes 0-3/10\r\n", "0123");
    check_range("bytes=9-9", "Content-Range: bytes 9-9/10\r\n", "9");
    check_range("bytes=4-", "Content-Range: bytes 4-9/10\r\n", "456789");
    check_range("bytes=-2", "Content-Range: bytes 8-9/10\r\n", "89");
    check_range("bytes=5-500", "Content-Range: bytes 5-9/10\r\n", "56789");
    check_range("bytes=-500", "Content-Range: bytes 0-9/10\r\n", "0123456789");
    prepare(AS_METHOD_GET, "/digits.txt");
    with_field(AS_FIELD_RANGE, "Range", "bytes=10-");
    CHECK_INT(handle(), 416);
    CHECK_STR(as_str_from(extra_fields), "Content-Range: bytes */10\r\n");
    check_range("bytes=0-1,3-4", "Content-Range: bytes 0-4/10\r\n", "01234");
    prepare(AS_METHOD_HEAD, "/digits.txt");
    with_field(AS_FIELD_RANGE, "Range", "bytes=0-3");
    CHECK_INT(handle(), 200);
    CHECK_STR(as_str_from(extra_fields), "");
    finish();
    prepare(AS_METHOD_GET, "/digits.txt");
    with_field(AS_FIELD_RANGE, "Range", "bytes=0-3");
    with_field(AS_FIELD_IF_RANGE, "If-Range", "\"other\"");
    CHECK_INT(handle(), 200);
    finish();
}

/* Two parts, and the whole file where that is shorter than they would be. */
static void check_parts(void)
{
    static char content[1001];
    static char expected[1024];
    memset(content, '.', 1000);
    memcpy(content, "first", 5);
    memcpy(content + 995, "last\n", 5);
    write_file("long.txt", content);
    prepare(AS_METHOD_GET, "/long.txt");
    with_field(AS_FIELD_RANGE, "Range", "bytes=0-4,-5");
    CHECK_INT(handle(), 206);
    as_str type = field("content-type");
    CHECK(as_str_starts(type, AS_STR("multipart/byteranges; boundary=")));
    as_str boundary = as_str_of(type.ptr + type.len - AS_BOUNDARY_LEN, AS_BOUNDARY_LEN);
    snprintf(
        expected, sizeof(expected),
        "--%1$.*2$s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 0-4/1000\r\n\r\nfirst\r\n"
        "--%1$.*2$s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 995-999/1000\r\n\r\nlast\n\r\n"
        "--%1$.*2$s--\r\n",
        boundary.ptr, (int)boundary.len);
    CHECK_STR(body_text(), expected);
    CHECK_INT(request.response.body.length, strlen(expected));
    CHECK_STR(as_str_from(extra_fields), ""); /* no Content-Range for the whole (RFC 9110 section 15.3.7.2) */
    CHECK(field("etag").len > 0 && field("last-modified").len > 0 && field("x-content-type-options").len > 0);
    finish();
    prepare(AS_METHOD_GET, "/long.txt");
    with_field(AS_FIELD_RANGE, "Range", "bytes=0-400,500-");
    CHECK_INT(handle(), 200);
    CHECK_STR(body_text(), content);
    finish();
}

static void test_ranges(void)
{
    begin();
    check_ranges();
    check_parts();
    end();
    begin_with(1 << 20, 5, 1000, AS_SYMLINKS_BENEATH); /* the same from an open file */
    check_ranges();
    check_parts();
    end();
}

static void test_error_page(void)
{
    begin();
    write_file("404.html", "not here");
    make_dir("dir");
    prepare(AS_METHOD_POST, "/404.html");
    request.error_status = 404;
    with_field(AS_FIELD_RANGE, "Range", "bytes=0-1");
    with_field(AS_FIELD_IF_NONE_MATCH, "If-None-Match", "*");
    CHECK_INT(handle(), 404);
    CHECK_STR(body_text(), "not here");
    CHECK_STR(request.response.fields, "Content-Type: text/html; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n");
    CHECK_STR(as_str_from(extra_fields), "");
    finish();
    static const char *const UNUSABLE[] = {"/missing.html", "/dir", "/dir/"};
    for (size_t i = 0; i < AS_COUNT_OF(UNUSABLE); i++) {
        prepare(AS_METHOD_GET, UNUSABLE[i]);
        request.error_status = 503;
        CHECK_INT(handler->ops->handle(handler, &request), AS_VERDICT_ERROR);
        CHECK_INT(request.response.status, 503);
    }
    end();
}

static void test_handlers_that_cannot_be(void)
{
    char path[128];
    as_file_options options = {.root = path, .index = "", .symlinks = AS_SYMLINKS_BENEATH, .mime = mime};
    snprintf(path, sizeof(path), "%s/nowhere", base);
    CHECK(as_file_handler_new(&options) == NULL);
    CHECK_INT(errno, ENOENT);
    snprintf(path, sizeof(path), "/dev/null");
    CHECK(as_file_handler_new(&options) == NULL);
    CHECK_INT(errno, ENOTDIR);
}

static void test_two_handlers_share_a_cache(void)
{
    char other_root[128];
    begin();
    write_file("a.txt", "first root");
    snprintf(other_root, sizeof(other_root), "%s/other", root);
    CHECK_INT(mkdir(other_root, 0755), 0);
    write_file("other/a.txt", "second root");
    as_file_options options = {.root = other_root, .index = "", .symlinks = AS_SYMLINKS_BENEATH, .mime = mime};
    as_handler *second = as_file_handler_new(&options);
    as_handler *first = handler;
    for (int twice = 0; twice < 2; twice++) {
        handler = first;
        check_get("/a.txt", "first root");
        handler = second;
        check_get("/a.txt", "second root");
        CHECK_INT(get_status("/"), 404); /* no index names */
    }
    handler = first;
    second->ops->free(second);
    end();
}

/* The neighbours of a file are looked for where it is. */
static void test_prefix(void)
{
    static const uint8_t CODINGS[] = {AS_CODING_GZIP};
    begin();
    write_file("a.txt", "of the folder");
    write_file("a.txt.gz", "coded");
    write_file("index.html", "index");
    make_dir("sub");
    write_file("sub/index.html", "sub index");
    as_file_options options = {.root = root,
                               .prefix = "/x/y",
                               .index = "index.html\0",
                               .symlinks = AS_SYMLINKS_BENEATH,
                               .codings = CODINGS,
                               .codings_len = 1,
                               .fallback = "/x/y/a.txt",
                               .mime = mime};
    as_handler *first = handler;
    handler = as_file_handler_new(&options);
    for (int twice = 0; twice < 2; twice++) {
        check_get("/x/y/a.txt", "of the folder");
        check_get("/x/y/", "index");
        check_get("/x/y/sub/", "sub index");
        CHECK_INT(get("/x/y/sub"), 301);
        CHECK_STR(request.response.fields, "Location: /x/y/sub/\r\n");
        finish();
        CHECK_INT(get("/x/y"), 301);
        CHECK_STR(request.response.fields, "Location: /x/y/\r\n");
        finish();
        prepare(AS_METHOD_GET, "/x/y/a.txt");
        with_field(AS_FIELD_ACCEPT_ENCODING, "Accept-Encoding", "gzip");
        CHECK_INT(handle(), 200);
        CHECK_STR(body_text(), "coded");
        finish();
        prepare(AS_METHOD_GET, "/x/y/page");
        CHECK_INT(handle(), 200);
        CHECK_STR(body_text(), "of the folder");
        finish();
        CHECK_INT(get_status("/x/yz/a.txt"), 404);
        CHECK_INT(get_status("/x/y/.."), 404);
        CHECK_INT(get_status("/x/y/x/y/a.txt"), 404);
    }
    handler->ops->free(handler);
    handler = first;
    end();
}

int main(void)
{
    set_up();
    test_whole_file();
    test_head();
    test_empty_file();
    test_other_methods();
    test_large_file();
    test_large_file_changes_are_seen_at_once();
    test_without_cache();
    test_index();
    test_directory_redirect();
    test_missing();
    test_missing_is_remembered_for_a_moment();
    test_dot_files();
    test_special_files();
    test_permissions();
    test_symbolic_links();
    test_conditions();
    test_ranges();
    test_error_page();
    test_handlers_that_cannot_be();
    test_two_handlers_share_a_cache();
    test_prefix();
    return tear_down("file");
}
