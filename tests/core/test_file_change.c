/* with: base/memory.c report/event.c http/date.c http/conditional.c http/byteranges.c http/accept.c handler/mime.c handler/beneath.c handler/file_cache.c handler/file_find.c */
#include "base/platform.h"

#include <unistd.h>

static ssize_t read_under_change(int fd, void *out, size_t size, off_t offset);
#define pread read_under_change
#include "handler/file_load.c"
#undef pread
#include "handler/file.c"

#include <sys/resource.h>

#include "file_fixture.h"

/* Change and revalidation. */

static void test_revalidation_keeps_what_is_the_same(void)
{
    begin();
    write_file("hello.txt", "hello");
    CHECK_INT(get("/hello.txt"), 200);
    const char *held = request.response.body.memory.ptr;
    finish();
    pass_ms(5000);
    CHECK_INT(get("/hello.txt"), 200);
    CHECK(request.response.body.memory.ptr == held);
    finish();
    CHECK_INT(counters.cache_misses, 1);
    CHECK_INT(counters.cache_hits, 1);
    end();
}

static void test_changes_are_seen(void)
{
    begin();
    write_file("hello.txt", "hello");
    check_get("/hello.txt", "hello");
    replace_file("hello.txt", "replaced");
    pass_ms(999);
    check_get("/hello.txt", "hello"); /* believed */
    pass_ms(1);
    check_get("/hello.txt", "replaced");
    write_at("hello.txt", "in place", 0);
    pass_ms(1000);
    check_get("/hello.txt", "in place");
    write_file("hello.txt", "short");
    pass_ms(1000);
    check_get("/hello.txt", "short");
    remove_file("hello.txt");
    make_dir("hello.txt");
    pass_ms(1000);
    CHECK_INT(get_status("/hello.txt"), 301);
    end();
}

static void test_always_revalidated(void)
{
    begin_with(1 << 20, 4096, 0, AS_SYMLINKS_BENEATH);
    CHECK_INT(get_status("/hello.txt"), 404);
    write_file("hello.txt", "hello");
    check_get("/hello.txt", "hello");
    replace_file("hello.txt", "replaced");
    check_get("/hello.txt", "replaced");
    end();
}

/* While a file is being copied somebody may write to it: this happens `writes_while_reading` times. */

static int writes_while_reading;
static const char *written_while_reading;
static int reads_that_fail;

static ssize_t read_under_change(int fd, void *out, size_t size, off_t offset)
{
    if (reads_that_fail > 0) {
        reads_that_fail--;
        errno = EIO;
        return -1;
    }
    ssize_t len = pread(fd, out, size, offset);
    if (writes_while_reading > 0) {
        writes_while_reading--;
        write_at("busy.txt", written_while_reading, O_APPEND);
    }
    return len;
}

static void test_change_while_loading(void)
{
    begin();
    write_file("busy.txt", "one ");
    written_while_reading = "two ";
    writes_while_reading = 1;
    CHECK_INT(get("/busy.txt"), 200);
    CHECK_INT(request.response.body.kind, AS_BODY_MEMORY);
    CHECK_STR(body_text(), "one two ");
    CHECK(as_str_starts(field("etag"), AS_STR("\"8-")));
    finish();
    char written[LOAD_ATTEMPTS + 2] = "a";
    memset(written + 1, 'b', LOAD_ATTEMPTS);
    replace_file("busy.txt", "a");
    written_while_reading = "b";
    writes_while_reading = LOAD_ATTEMPTS;
    pass_ms(1000);
    CHECK_INT(get("/busy.txt"), 200);
    CHECK_INT(request.response.body.kind, AS_BODY_FILE);
    CHECK_STR(body_text(), written);
    CHECK_INT(request.response.body.length, sizeof(written) - 1);
    finish();
    check_get("/busy.txt", written); /* quiet again: copied and kept */
    check_get("/busy.txt", written);
    CHECK_INT(counters.cache_hits, 1);
    end();
}

static void test_truncation_while_loading(void)
{
    begin();
    write_file("busy.txt", "a longer text");
    written_while_reading = "";
    prepare(AS_METHOD_GET, "/busy.txt");
    as_file_found what;
    as_file_look_up((const as_file_handler *)handler, request.path, &what);
    CHECK_INT(what.stamp.size, 13);
    write_file("busy.txt", "short");
    as_file_entry *entry = as_file_load((const as_file_handler *)handler, &request, &what);
    CHECK_INT(entry->kind, AS_FILE_MEMORY);
    CHECK_STR(entry->content, "short");
    as_file_entry_release(entry);
    end();
}

static void test_read_error_while_loading(void)
{
    begin();
    write_file("busy.txt", "text");
    reads_that_fail = LOAD_ATTEMPTS;
    CHECK_INT(get("/busy.txt"), 200);
    CHECK_INT(request.response.body.kind, AS_BODY_FILE); /* the sender meets the error again and cuts the connection */
    finish();
    check_get("/busy.txt", "text");
    end();
}

/* Neither truncation nor writing under a response may show in it. */
static void test_response_is_one_version(void)
{
    begin();
    write_file("page.txt", "version one");
    CHECK_INT(get("/page.txt"), 200);
    write_file("page.txt", "");
    CHECK_STR(body_text(), "version one");
    write_file("page.txt", "VERSION TWO, longer");
    CHECK_STR(body_text(), "version one");
    CHECK_INT(request.response.body.length, 11);
    as_response first = request.response;
    pass_ms(1000);
    check_get("/page.txt", "VERSION TWO, longer");
    CHECK_STR(first.body.memory, "version one"); /* still, beside the new one */
    first.body.release(&first.body);
    end();
}

/* A write within the clock's granularity leaves no trace in the times: what was young when it was read is read again.
 */
static void test_young_files(void)
{
    begin();
    loop.wall_s -= 100;
    write_file("young.txt", "one");
    CHECK_INT(get("/young.txt"), 200);
    CHECK(as_str_starts(field("etag"), AS_STR("W/\"3-")));
    finish();
    pass_ms(1000);
    loop.wall_s += 100;
    CHECK_INT(get("/young.txt"), 200);
    CHECK(as_str_starts(field("etag"), AS_STR("\"3-")));
    CHECK_INT(counters.cache_misses, 2);
    finish();
    pass_ms(1000);
    check_get("/young.txt", "one");
    CHECK_INT(counters.cache_misses, 2);
    end();
}

static void test_odd_times(void)
{
    begin();
    write_file("future.txt", "x");
    set_modified("future.txt", loop.wall_s + 100000);
    char now[AS_DATE_LEN + 1] = "";
    as_date_format(loop.wall_s, now);
    CHECK_INT(get("/future.txt"), 200);
    CHECK_STR(field("last-modified"), now);
    CHECK(as_str_starts(field("etag"), AS_STR("W/")));
    finish();
    write_file("old.txt", "x");
    set_modified("old.txt", -5);
    CHECK_INT(get("/old.txt"), 200);
    CHECK(field("last-modified").ptr == NULL);
    CHECK(field("etag").len > 0);
    finish();
    end();
}

static void test_root_replaced(void)
{
    char aside[128];
    begin();
    write_file("index.html", "old build");
    check_get("/", "old build");
    snprintf(aside, sizeof(aside), "%s/aside", base);
    CHECK_INT(rename(root, aside), 0);
    pass_ms(1000);
    CHECK_INT(get_status("/"), 404);
    CHECK_INT(mkdir(root, 0755), 0);
    write_file("index.html", "new build");
    pass_ms(1000);
    check_get("/", "new build");
    remove_tree(aside);
    end();
}

/* Shortage. */

static void test_hot_file_stays_cached(void)
{
    begin_with(64 * 1024, 4096, 1000000, AS_SYMLINKS_BENEATH);
    static char text[1001];
    char name[32];
    memset(text, 'x', sizeof(text) - 1);
    write_file("hot.txt", text);
    for (int i = 0; i < 5; i++)
        CHECK_INT(get_status("/hot.txt"), 200);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "/cold-%d", i);
        write_file(name + 1, text);
        CHECK_INT(get_status(name), 200);
        CHECK(counters.cache_bytes <= 64 * 1024);
    }
    uint64_t misses = counters.cache_misses;
    CHECK_INT(get_status("/hot.txt"), 200);
    CHECK_INT(counters.cache_misses, misses);
    CHECK_INT(get_status("/cold-0"), 200);
    CHECK_INT(counters.cache_misses, misses + 1);
    end();
}

static void test_full_of_files_in_use(void)
{
    enum { OPEN = 8 };
    as_response held[OPEN];
    begin_with(5000, 4096, 1000000, AS_SYMLINKS_BENEATH);
    static char text[1001];
    char name[32];
    memset(text, 'x', sizeof(text) - 1);
    for (int i = 0; i < OPEN; i++) {
        snprintf(name, sizeof(name), "/file-%d", i);
        write_file(name + 1, text);
        CHECK_INT(get(name), 200);
        CHECK_STR(body_text(), text);
        held[i] = request.response;
    }
    CHECK_INT(held[0].body.kind, AS_BODY_MEMORY);
    CHECK_INT(held[OPEN - 1].body.kind, AS_BODY_FILE);
    for (int i = 0; i < OPEN; i++)
        held[i].body.release(&held[i].body);
    end();
}

static struct rlimit real_limit;

static void take_descriptors(void)
{
    int next = dup(0);
    close(next);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &real_limit), 0);
    struct rlimit none_left = {.rlim_cur = (rlim_t)next, .rlim_max = real_limit.rlim_max};
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none_left), 0);
}

static void give_descriptors(void)
{
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &real_limit), 0);
}

static void test_no_descriptor_left(void)
{
    as_event event;
    begin();
    write_file("new.txt", "new");
    write_file("known.txt", "known");
    check_get("/known.txt", "known");
    pass_ms(2000);
    take_descriptors();
    CHECK_INT(get_status("/new.txt"), 503);
    CHECK_STR(as_str_from(extra_fields), "Retry-After: 1\r\n");
    CHECK_INT(get_status("/new.txt"), 503);
    check_get("/known.txt", "known"); /* better than nothing */
    give_descriptors();
    CHECK(next_event(&event));
    CHECK_INT(event.kind, AS_EVENT_WARNING);
    CHECK_INT(event.request_id, 7);
    CHECK(strstr(event.text, "file descriptor") != NULL);
    CHECK(!next_event(&event)); /* one is enough */
    check_get("/new.txt", "new");
    end();
}

static void test_kept_files_make_way(void)
{
    begin_with(1 << 20, 4, 1000, AS_SYMLINKS_BENEATH);
    write_file("large-1", "0123456789");
    write_file("large-2", "0123456789");
    write_file("new", "new");
    CHECK_INT(get_status("/large-1"), 200);
    CHECK_INT(get_status("/large-2"), 200);
    /* Each was opened while its root was open, so there is a hole below them; it is filled, and then the two kept ones
     * are all that can make way for the root and the new file. */
    int hole = dup(0);
    take_descriptors();
    check_get("/new", "new");
    give_descriptors();
    close(hole);
    end();
}

static void test_broken_disk(void)
{
    as_event event;
    begin();
    prepare(AS_METHOD_GET, "/file.txt");
    const as_file_handler *files = (const as_file_handler *)handler;
    CHECK_INT(refuse_for_error(files, &request, EIO), AS_VERDICT_ERROR);
    CHECK_INT(request.response.status, 500);
    CHECK(next_event(&event));
    CHECK_INT(event.kind, AS_EVENT_ERROR);
    CHECK(strstr(event.text, "Input/output error") != NULL && strstr(event.text, "/file.txt") != NULL);
    CHECK_INT(refuse_for_error(files, &request, ENOMEM), AS_VERDICT_ERROR);
    CHECK_INT(request.response.status, 503);
    end();
}

int main(void)
{
    set_up();
    test_revalidation_keeps_what_is_the_same();
    test_changes_are_seen();
    test_always_revalidated();
    test_response_is_one_version();
    test_change_while_loading();
    test_truncation_while_loading();
    test_read_error_while_loading();
    test_young_files();
    test_odd_times();
    test_root_replaced();
    test_hot_file_stays_cached();
    test_full_of_files_in_use();
    test_no_descriptor_left();
    test_kept_files_make_way();
    test_broken_disk();
    return tear_down("file_change");
}
