/* file_fixture.h: a loop, a site and one request, made by hand; for tests that include handler/file.c before it. */
#ifndef AS_TESTS_FILE_FIXTURE_H
#define AS_TESTS_FILE_FIXTURE_H

#include <dirent.h>
#include <ftw.h>
#include <sys/eventfd.h>

#include "check.h"

static char base[] = "/tmp/as-test-file-XXXXXX";
static char root[64];
static as_loop loop;
static as_counters counters;
static as_home home;
static as_mime *mime;
static as_handler *handler;
static as_request request;
static char extra_fields[512];
/* Of the handler that begin() makes. */
static uint8_t codings[AS_CODINGS];
static int codings_len;
static const char *fallback;

/* What http/request.c does with it. */
void as_request_add_field(as_request *of, as_str line)
{
    CHECK(of == &request);
    size_t len = strlen(extra_fields);
    snprintf(extra_fields + len, sizeof(extra_fields) - len, "%.*s", (int)line.len, line.ptr);
}

static inline void write_at(const char *name, const char *text, int flags)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
    CHECK(fd >= 0);
    CHECK_INT(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static inline void write_file(const char *name, const char *text)
{
    write_at(name, text, O_TRUNC);
}

static inline void make_dir(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    CHECK_INT(mkdir(path, 0755), 0);
}

static inline void make_link(const char *name, const char *target)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    CHECK_INT(symlink(target, path), 0);
}

static inline void set_mode(const char *name, mode_t mode)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    CHECK_INT(chmod(path, mode), 0);
}

static inline void set_modified(const char *name, int64_t seconds)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    CHECK_INT(utimensat(AT_FDCWD, path, times, 0), 0);
}

static inline void replace_file(const char *name, const char *text)
{
    char from[512];
    char to[512];
    write_file("new-version", text);
    snprintf(from, sizeof(from), "%s/new-version", root);
    snprintf(to, sizeof(to), "%s/%s", root, name);
    CHECK_INT(rename(from, to), 0);
}

static inline void remove_file(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    CHECK_INT(unlink(path), 0);
}

static inline int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path);
}

static inline void remove_tree(const char *path)
{
    CHECK_INT(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* Long after everything that a test has written, so that nothing looks young. */
static inline void start_clock(void)
{
    loop.wall_s = as_clock_ns(CLOCK_REALTIME) / AS_NS_PER_S + 100;
    loop.now_ns = 1000 * AS_NS_PER_S;
}

static inline void pass_ms(int64_t ms)
{
    loop.now_ns += ms * AS_NS_PER_MS;
}

static inline void begin_with(uint64_t bytes, uint32_t file_size, uint32_t revalidate_ms, as_symlinks symlinks)
{
    as_file_cache_options cache = {
        .bytes = bytes, .entries = 1024, .file_size = file_size, .revalidate_ms = revalidate_ms};
    as_file_options options = {
        .root = root,
        .index = "index.html\0index.htm\0",
        .symlinks = symlinks,
        .codings = codings,
        .codings_len = codings_len,
        .fallback = fallback,
        .mime = mime,
    };
    CHECK_INT(mkdir(root, 0755), 0);
    memset(&counters, 0, sizeof(counters));
    start_clock();
    home = (as_home){.loop = &loop, .counters = &counters, .events = home.events};
    home.file_cache = as_file_cache_new(&cache, &counters);
    handler = as_file_handler_new(&options);
    CHECK(handler != NULL);
}

static inline void begin(void)
{
    begin_with(1 << 20, 4096, 1000, AS_SYMLINKS_BENEATH);
}

static inline void end(void)
{
    as_file_cache_free(home.file_cache);
    CHECK_INT(counters.cache_bytes, 0);
    handler->ops->free(handler);
    as_arena_free(&request.arena);
    remove_tree(root);
}

static inline void prepare(as_method method, const char *path)
{
    as_arena arena = request.arena;
    as_arena_reset(&arena);
    memset(&request, 0, sizeof(request));
    request.arena = arena;
    request.home = &home;
    request.id = 7;
    request.handler = handler;
    request.path = as_str_from(path);
    request.head.method = method;
    memset(request.head.known, 0xff, sizeof(request.head.known));
    extra_fields[0] = '\0';
}

static inline void with_field(as_known_field which, const char *name, const char *value)
{
    as_field field = {as_str_from(name), as_str_from(value)};
    request.head.known[which] = (int16_t)request.head.fields_len;
    request.head.fields[request.head.fields_len++] = field;
}

static inline int handle(void)
{
    as_verdict verdict = handler->ops->handle(handler, &request);
    /* An error page is the core's: nothing of the handler's may be left in the response. */
    CHECK(verdict == AS_VERDICT_RESPOND || (verdict == AS_VERDICT_ERROR && request.response.body.release == NULL));
    return request.response.status;
}

static inline int get(const char *path)
{
    prepare(AS_METHOD_GET, path);
    return handle();
}

/* The core is done with the response. */
static inline void finish(void)
{
    as_body *body = &request.response.body;
    if (body->release != NULL)
        body->release(body);
    memset(&request.response, 0, sizeof(request.response));
}

static inline int get_status(const char *path)
{
    int status = get(path);
    finish();
    return status;
}

static inline as_str body_text(void)
{
    static char text[8192];
    const as_body *body = &request.response.body;
    if (body->kind == AS_BODY_MEMORY)
        return body->memory;
    if (body->kind == AS_BODY_NONE)
        return AS_STR_NONE;
    CHECK(body->length <= (int64_t)sizeof(text));
    if (body->kind == AS_BODY_FILE) {
        ssize_t len = pread(body->fd, text, (size_t)body->length, body->offset);
        return as_str_of(text, len > 0 ? (size_t)len : 0);
    }
    CHECK(body->kind == AS_BODY_PIECES);
    size_t len = 0;
    for (uint32_t i = 0; i < body->pieces_len; i++) {
        const as_piece *piece = &body->pieces[i];
        if (piece->memory.ptr != NULL)
            memcpy(text + len, piece->memory.ptr, (size_t)piece->length);
        else
            CHECK_INT(pread(body->fd, text + len, (size_t)piece->length, piece->offset), piece->length);
        len += (size_t)piece->length;
    }
    return as_str_of(text, len);
}

static inline as_str field(const char *name)
{
    as_str fields = request.response.fields;
    size_t name_len = strlen(name);
    for (const char *at = fields.ptr; at != NULL && at < fields.ptr + fields.len;) {
        const char *line_end = memmem(at, (size_t)(fields.ptr + fields.len - at), "\r\n", 2);
        CHECK(line_end != NULL);
        if (strncasecmp(at, name, name_len) == 0 && at[name_len] == ':')
            return as_str_trim(as_str_of(at + name_len + 1, (size_t)(line_end - at) - name_len - 1));
        at = line_end + 2;
    }
    return AS_STR_NONE;
}

static inline void check_get(const char *path, const char *expected)
{
    CHECK_INT(get(path), 200);
    CHECK_STR(body_text(), expected);
    CHECK_INT(request.response.body.length, strlen(expected));
    finish();
}

static inline bool next_event(as_event *event)
{
    return as_event_next(home.events, event);
}

static inline int count_descriptors(void)
{
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

/* Before the first test, and after the last: nothing may be left behind. */
static int descriptors_before;
static int wake_fd;
static as_counters event_counters;

static inline void set_up(void)
{
    CHECK(mkdtemp(base) != NULL);
    CHECK_INT(chmod(base, 0755), 0);
    snprintf(root, sizeof(root), "%s/root", base);
    descriptors_before = count_descriptors();
    wake_fd = eventfd(0, EFD_CLOEXEC);
    home.events = as_event_ring_new(0, wake_fd, &event_counters);
    mime = as_mime_new();
}

static inline int tear_down(const char *name)
{
    as_mime_free(mime);
    as_event_ring_free(home.events);
    close(wake_fd);
    CHECK_INT(count_descriptors(), descriptors_before);
    remove_tree(base);
    return check_result(name);
}

#endif
