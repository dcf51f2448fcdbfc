/* Static files.
 *
 * The paper wants the most requested files mapped with mmap. A mapping of a file that somebody truncates raises SIGBUS
 * in whoever touches it (a copy, a cipher), and one that is rewritten in place shows half of each version under one
 * ETag. So a small file is copied into the entry when it is loaded, between two fstat that must agree: what is sent is
 * always one version that has existed. A larger file stays on disk and goes out by sendfile from a descriptor that the
 * entry keeps open; its descriptor is looked at again for each request.
 *
 * An entry is believed for `revalidate_ms`; then the path is resolved again and the entry kept if it leads to the same
 * version. Times in inodes have the granularity of a kernel tick, so a file that was written within the last second or
 * two could be written again without a visible trace: such an entry is "racy" (as in git's index), gets a weak ETag and
 * is read anew instead of kept.
 *
 * The root is opened by its path whenever the file system has to be asked, so that a tree that is replaced (a build
 * directory made anew, a "current" link that is switched) is served from then on. */
#include "handler/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handler/beneath.h"
#include "handler/file_cache.h"
#include "http/byteranges.h"
#include "http/conditional.h"
#include "http/date.h"
#include "report/counters.h"
#include "report/event.h"

enum {
    /* A file that changes while it is copied is copied again, then sent from its descriptor instead. */
    LOAD_ATTEMPTS = 3,
    /* How young, in seconds of a clock that was read at the start of the turn, a change makes an entry racy. */
    RACY_S = 1,
    /* How long at most a path that does not exist is believed not to. */
    MISSING_MS = 1000,
    /* Paths that are longer than this and do not exist are not worth remembering. */
    MISSING_PATH = 256,
    /* The field lines of an entry but for the media type. */
    FIELDS_SIZE = 256,
};

#define ALLOW "Allow: GET, HEAD, OPTIONS\r\n"
#define WELL_KNOWN "/.well-known"
#define VARY "Vary: Accept-Encoding\r\n"

typedef struct file_handler {
    as_handler handler;
    /* Unlike an address never used again, so that entries of a freed handler cannot be taken for another's. */
    uint64_t root_id;
    char *root;
    int root_fd;
    char *index;
    as_symlinks symlinks;
    uint8_t codings[AS_CODINGS];
    int codings_len;
    as_str fallback;
    const as_mime *mime;
} file_handler;

/* A file's compressed neighbours by as_coding: names of their own, and tags of their own (RFC 9110 section 8.8.3.3). */
static const struct {
    const char *suffix;
    const char *mark;
    as_str field;
} CODINGS[AS_CODINGS] = {
    [AS_CODING_BR] = {".br", "-br", {"Content-Encoding: br\r\n", 22}},
    [AS_CODING_ZSTD] = {".zst", "-zst", {"Content-Encoding: zstd\r\n", 24}},
    [AS_CODING_GZIP] = {".gz", "-gz", {"Content-Encoding: gzip\r\n", 24}},
};

static uint64_t last_root_id; /* any thread, atomic */

/* What the file system says about a path. */
typedef struct found {
    int fd;    /* -1 with `error` otherwise; a regular file unless is_directory */
    int error; /* errno; 0 when there is something */
    bool is_directory;
    as_file_stamp stamp;
    const char *index; /* the index file's name, which `path` then ends with */
    int8_t coding;     /* as in an entry */
    as_str type;
    char path[AS_BENEATH_PATH_SIZE]; /* below the root */
} found;

static bool is_present(const found *what)
{
    return what->error == 0;
}

static as_file_stamp stamp_of(const struct stat *status)
{
    return (as_file_stamp){
        .device = status->st_dev,
        .inode = status->st_ino,
        .size = status->st_size,
        .modified_ns =
            (int64_t)((uint64_t)status->st_mtim.tv_sec * (uint64_t)AS_NS_PER_S + (uint64_t)status->st_mtim.tv_nsec),
        .changed_ns =
            (int64_t)((uint64_t)status->st_ctim.tv_sec * (uint64_t)AS_NS_PER_S + (uint64_t)status->st_ctim.tv_nsec),
    };
}

static bool is_same_version(const as_file_stamp *a, const as_file_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size && a->modified_ns == b->modified_ns &&
           a->changed_ns == b->changed_ns;
}

/* Whether fd still is the version `stamp`; `now` gets what it is. */
static bool is_unchanged(int fd, const as_file_stamp *stamp, as_file_stamp *now)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return false;
    *now = stamp_of(&status);
    return is_same_version(stamp, now);
}

/* Looking things up. */

static int open_root(const file_handler *handler)
{
    int fd = open(handler->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    /* Opened before privileges were dropped, below a directory that the server's user may not enter. */
    if (fd < 0 && errno == EACCES)
        return handler->root_fd;
    return fd;
}

static void close_root(const file_handler *handler, int fd)
{
    if (fd != handler->root_fd)
        close(fd);
}

/* Opens what->path. O_NONBLOCK so that a FIFO without a writer does not stop the loop, O_NOCTTY for terminals. */
static void open_path(const file_handler *handler, int root_fd, found *what)
{
    struct stat status;
    what->error = 0;
    what->is_directory = false;
    what->fd = as_beneath_open(root_fd, what->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, handler->symlinks);
    if (what->fd < 0) {
        what->error = errno;
        return;
    }
    if (fstat(what->fd, &status) < 0)
        what->error = errno;
    else if (S_ISDIR(status.st_mode))
        what->is_directory = true;
    else if (!S_ISREG(status.st_mode))
        what->error = EACCES;
    what->stamp = stamp_of(&status);
    if (what->error != 0 || what->is_directory) {
        close(what->fd);
        what->fd = -1;
    }
}

/* A directory that may be entered but not listed cannot be opened for reading and still has a slash at its end. */
static void look_for_closed_directory(const file_handler *handler, int root_fd, found *what)
{
    int fd = as_beneath_open(root_fd, what->path, O_PATH | O_DIRECTORY, handler->symlinks);
    if (fd < 0)
        return;
    close(fd);
    what->error = 0;
    what->is_directory = true;
}

static void look_for_index(const file_handler *handler, int root_fd, size_t directory_len, found *what)
{
    what->error = ENOENT;
    for (const char *name = handler->index; *name != '\0'; name += strlen(name) + 1) {
        size_t len = strlen(name);
        if (directory_len + len >= sizeof(what->path))
            continue;
        memcpy(what->path + directory_len, name, len + 1);
        open_path(handler, root_fd, what);
        what->index = name;
        if (is_present(what) && !what->is_directory)
            return;
        if (what->error != 0 && what->error != ENOENT)
            return;
        what->error = ENOENT;
    }
}

static void look_up(const file_handler *handler, as_str path, found *what)
{
    what->fd = -1;
    what->is_directory = false;
    what->index = NULL;
    what->coding = -1;
    size_t len = path.len - 1;
    if (len >= sizeof(what->path) || memchr(path.ptr, '\0', path.len) != NULL) {
        what->error = ENAMETOOLONG;
        return;
    }
    memcpy(what->path, path.ptr + 1, len);
    what->path[len] = '\0';
    int root_fd = open_root(handler);
    if (root_fd < 0) {
        what->error = errno;
        return;
    }
    if (path.ptr[path.len - 1] == '/') {
        look_for_index(handler, root_fd, len, what);
    } else {
        open_path(handler, root_fd, what);
        if (what->error == EACCES)
            look_for_closed_directory(handler, root_fd, what);
    }
    close_root(handler, root_fd);
    what->type = as_mime_of(handler->mime, as_str_from(what->path));
}

/* The compressed neighbour of a file that was found before. */
static void look_up_neighbour(const file_handler *handler, const as_file_entry *file, int coding, found *what)
{
    int len = snprintf(what->path, sizeof(what->path), "%s%s%s", file->path.ptr + 1,
                       file->index != NULL ? file->index : "", CODINGS[coding].suffix);
    what->fd = -1;
    what->is_directory = false;
    what->index = NULL;
    what->coding = (int8_t)coding;
    what->type = file->type;
    what->error = ENAMETOOLONG;
    if (len >= (int)sizeof(what->path))
        return;
    int root_fd = open_root(handler);
    what->error = errno;
    if (root_fd < 0)
        return;
    open_path(handler, root_fd, what);
    close_root(handler, root_fd);
}

/* Loading. */

/* A file and its neighbours are entries of the same path, each by an id of its own. */
static uint64_t id_of(const file_handler *handler, int coding)
{
    return handler->root_id + (uint64_t)(coding + 1);
}

static bool is_young(int64_t time_ns, int64_t wall_s)
{
    return time_ns / AS_NS_PER_S >= wall_s - RACY_S;
}

static void write_etag(as_file_entry *entry, bool is_weak)
{
    int len = snprintf(entry->etag, sizeof(entry->etag), "%s\"%llx-%llx%s\"", is_weak ? "W/" : "",
                       (unsigned long long)entry->stamp.size, (unsigned long long)entry->stamp.modified_ns,
                       entry->coding >= 0 ? CODINGS[entry->coding].mark : "");
    assert(len > 0 && len < AS_FILE_ETAG_SIZE);
    entry->validators.etag = as_str_of(entry->etag, (size_t)len);
}

static char *append(char *out, as_str text)
{
    memcpy(out, text.ptr, text.len);
    return out + text.len;
}

/* The field lines in such an order that those of an error page are their beginning and those of a 304 (RFC 9110 section
 * 15.4.5) their end. */
static void write_fields(as_file_entry *entry, bool varies)
{
    char date[AS_DATE_LEN];
    char *out = entry->space;
    out = append(out, AS_STR("Content-Type: "));
    out = append(out, entry->type);
    out = append(out, AS_STR("\r\n"));
    entry->type_line_len = (size_t)(out - entry->space);
    out = append(out, AS_STR("X-Content-Type-Options: nosniff\r\n"));
    entry->plain_len = (size_t)(out - entry->space);
    out = append(out, AS_STR("Accept-Ranges: bytes\r\n"));
    if (entry->coding >= 0)
        out = append(out, CODINGS[entry->coding].field);
    entry->validators_at = (size_t)(out - entry->space);
    if (varies)
        out = append(out, AS_STR(VARY));
    out = append(out, AS_STR("ETag: "));
    out = append(out, entry->validators.etag);
    out = append(out, AS_STR("\r\n"));
    if (entry->validators.last_modified >= 0) {
        as_date_format(entry->validators.last_modified, date);
        out = append(out, AS_STR("Last-Modified: "));
        out = append(out, as_str_of(date, sizeof(date)));
        out = append(out, AS_STR("\r\n"));
    }
    entry->fields = as_str_of(entry->space, (size_t)(out - entry->space));
    assert(entry->fields.len <= entry->type.len + FIELDS_SIZE);
}

/* Everything of the entry that follows from the version. */
static void describe(as_file_entry *entry, const file_handler *handler, const as_loop *loop, const found *what)
{
    const as_file_stamp *stamp = &what->stamp;
    entry->stamp = *stamp;
    entry->type = what->type;
    entry->index = what->index;
    entry->coding = what->coding;
    entry->checked_ns = loop->now_ns;
    entry->is_racy = is_young(stamp->changed_ns, loop->wall_s);
    /* RFC 9110 section 8.8.2.1: a date in the future is replaced by the present one. */
    int64_t modified_s = stamp->modified_ns < 0 ? -1 : stamp->modified_ns / AS_NS_PER_S;
    entry->validators.last_modified = modified_s > loop->wall_s ? loop->wall_s : modified_s;
    write_etag(entry, is_young(stamp->modified_ns, loop->wall_s));
    write_fields(entry, handler->codings_len > 0);
}

/* Exactly `size` bytes from the start of the file; false when it has fewer or cannot be read. */
static bool read_whole(int fd, char *out, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(fd, out + done, size - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

/* A cached copy of the file; NULL when it is too large, there is no room or it does not stand still. The fd stays the
 * caller's. */
static as_file_entry *load_copy(const file_handler *handler, as_request *request, found *what)
{
    as_file_cache *cache = request->home->file_cache;
    for (int attempt = 0; attempt < LOAD_ATTEMPTS; attempt++) {
        size_t fields_size = what->type.len + FIELDS_SIZE;
        size_t size = (size_t)what->stamp.size;
        if (what->stamp.size > (int64_t)as_file_cache_options_of(cache)->file_size ||
            !as_file_cache_make_room(cache, AS_FILE_MEMORY, request->path, fields_size + size))
            return NULL;
        as_file_entry *entry =
            as_file_entry_new(cache, id_of(handler, what->coding), request->path, fields_size + size);
        if (entry == NULL)
            return NULL;
        as_file_stamp now = what->stamp;
        char *content = entry->space + fields_size;
        bool is_whole = read_whole(what->fd, content, size);
        if (is_unchanged(what->fd, &what->stamp, &now) && is_whole) {
            entry->kind = AS_FILE_MEMORY;
            entry->content = as_str_of(content, size);
            describe(entry, handler, request->home->loop, what);
            as_file_cache_put(cache, entry);
            return entry;
        }
        as_file_entry_release(entry);
        what->stamp = now;
    }
    return NULL;
}

/* An entry that is the open file, and takes the fd. It is remembered when it is large; a small one is here because it
 * could not be copied now. */
static as_file_entry *load_open(const file_handler *handler, as_request *request, found *what)
{
    as_file_cache *cache = request->home->file_cache;
    as_file_entry *entry =
        as_file_entry_new(cache, id_of(handler, what->coding), request->path, what->type.len + FIELDS_SIZE);
    if (entry == NULL)
        return NULL;
    entry->kind = AS_FILE_OPEN;
    entry->fd = what->fd;
    what->fd = -1;
    describe(entry, handler, request->home->loop, what);
    if (what->stamp.size > (int64_t)as_file_cache_options_of(cache)->file_size) {
        /* Most large files are read from end to end: the kernel then reads twice as far ahead. */
        posix_fadvise(entry->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        if (as_file_cache_make_room(cache, AS_FILE_OPEN, request->path, 0))
            as_file_cache_put(cache, entry);
    }
    return entry;
}

/* The entry for a regular file, held once for the caller; NULL without memory. Takes what->fd. */
static as_file_entry *load(const file_handler *handler, as_request *request, found *what)
{
    as_file_entry *entry = load_copy(handler, request, what);
    if (entry == NULL)
        entry = load_open(handler, request, what);
    if (what->fd >= 0)
        close(what->fd);
    return entry;
}

static void remember_missing(const file_handler *handler, as_request *request)
{
    as_file_cache *cache = request->home->file_cache;
    if (request->path.len > MISSING_PATH || as_file_cache_options_of(cache)->revalidate_ms == 0 ||
        !as_file_cache_make_room(cache, AS_FILE_MISSING, request->path, 0))
        return;
    as_file_entry *entry = as_file_entry_new(cache, id_of(handler, -1), request->path, 0);
    if (entry == NULL)
        return;
    entry->kind = AS_FILE_MISSING;
    entry->checked_ns = request->home->loop->now_ns;
    as_file_cache_put(cache, entry);
    as_file_entry_release(entry);
}

/* Answering. */

static as_verdict refuse(as_request *request, int status)
{
    /* An error page that cannot be had must not change what the client is told. */
    request->response.status = request->error_status != 0 ? request->error_status : (uint16_t)status;
    return AS_VERDICT_ERROR;
}

static void release_body(as_body *body)
{
    as_file_entry *entry = body->owner;
    assert(entry != NULL);
    body->owner = NULL;
    as_file_entry_release(entry);
}

/* The response borrows its fields, and its body if there is one, from the entry until the core calls release. */
static as_verdict respond(as_request *request, as_file_entry *entry, int status, as_str fields)
{
    as_file_entry_hold(entry);
    request->response.status = (uint16_t)status;
    request->response.fields = fields;
    request->response.body = (as_body){.kind = AS_BODY_NONE, .fd = -1, .release = release_body, .owner = entry};
    return AS_VERDICT_RESPOND;
}

static void give_body(as_body *body, const as_file_entry *entry, uint64_t first, uint64_t length)
{
    body->length = (int64_t)length;
    if (entry->kind == AS_FILE_MEMORY) {
        body->kind = AS_BODY_MEMORY;
        body->memory = as_str_of(entry->content.ptr + first, (size_t)length);
        return;
    }
    body->kind = AS_BODY_FILE;
    body->fd = entry->fd;
    body->offset = (int64_t)first;
}

static as_verdict respond_whole(as_request *request, as_file_entry *entry)
{
    uint64_t size = (uint64_t)entry->stamp.size;
    bool is_error_page = request->error_status != 0;
    as_verdict verdict = respond(request, entry, is_error_page ? request->error_status : 200,
                                 is_error_page ? as_str_of(entry->fields.ptr, entry->plain_len) : entry->fields);
    give_body(&request->response.body, entry, 0, size);
    return verdict;
}

static as_verdict respond_range(as_request *request, as_file_entry *entry, const as_range *range)
{
    assert(range->first <= range->last && range->last < (uint64_t)entry->stamp.size);
    as_request_add_field(request, as_arena_printf(&request->arena, "Content-Range: bytes %llu-%llu/%llu\r\n",
                                                  (unsigned long long)range->first, (unsigned long long)range->last,
                                                  (unsigned long long)entry->stamp.size));
    as_verdict verdict = respond(request, entry, 206, entry->fields);
    give_body(&request->response.body, entry, range->first, range->last - range->first + 1);
    return verdict;
}

/* Random, so that nobody can write a file that contains it. */
static as_str make_boundary(as_request *request)
{
    uint64_t random[2];
    if (getrandom(random, sizeof(random), GRND_NONBLOCK) != sizeof(random)) {
        random[0] = request->id;
        random[1] = (uint64_t)as_clock_monotonic_ns();
    }
    return as_arena_printf(&request->arena, "%016llx%016llx", (unsigned long long)random[0],
                           (unsigned long long)random[1]);
}

/* Several parts, or the whole file when that is no longer than they are with their heads (RFC 9110 section 14.2 lets a
 * server ignore what is no gain). */
static as_verdict respond_parts(as_request *request, as_file_entry *entry, const as_range_set *set)
{
    as_body body = {.fd = entry->fd, .release = release_body, .owner = entry};
    as_str content = entry->kind == AS_FILE_MEMORY ? entry->content : AS_STR_NONE;
    as_str boundary = make_boundary(request);
    as_byteranges_make(&request->arena, set, (uint64_t)entry->stamp.size, entry->type, boundary, content, &body);
    if (body.length >= entry->stamp.size)
        return respond_whole(request, entry);
    const char *rest = entry->fields.ptr + entry->type_line_len;
    as_str fields =
        as_arena_printf(&request->arena, "Content-Type: multipart/byteranges; boundary=%.*s\r\n%.*s", (int)boundary.len,
                        boundary.ptr, (int)(entry->fields.len - entry->type_line_len), rest);
    as_verdict verdict = respond(request, entry, 206, fields);
    request->response.body = body;
    return verdict;
}

static as_verdict respond_ranges(as_request *request, as_file_entry *entry)
{
    as_range_set set;
    as_range_verdict verdict = as_range_check(&request->head, &entry->validators, (uint64_t)entry->stamp.size, &set);
    if (verdict == AS_RANGE_NONE)
        return respond_whole(request, entry);
    if (verdict == AS_RANGE_UNSATISFIABLE) {
        as_request_add_field(request, as_arena_printf(&request->arena, "Content-Range: bytes */%llu\r\n",
                                                      (unsigned long long)entry->stamp.size));
        return refuse(request, 416);
    }
    if (set.len == 1)
        return respond_range(request, entry, &set.ranges[0]);
    /* Content-Encoding would speak of the parts as a whole, which are not encoded. */
    return entry->coding >= 0 ? respond_whole(request, entry) : respond_parts(request, entry, &set);
}

static bool has_condition(const as_head *head)
{
    return head->known[AS_FIELD_IF_NONE_MATCH] >= 0 || head->known[AS_FIELD_IF_MODIFIED_SINCE] >= 0 ||
           head->known[AS_FIELD_IF_MATCH] >= 0 || head->known[AS_FIELD_IF_UNMODIFIED_SINCE] >= 0;
}

static as_verdict respond_variant(as_request *request, as_file_entry *entry)
{
    const as_head *head = &request->head;
    if (request->error_status != 0)
        return respond_whole(request, entry);
    int condition = has_condition(head) ? as_conditional_check(head, &entry->validators) : 0;
    if (condition == 304) {
        as_str fields = as_str_of(entry->fields.ptr + entry->validators_at, entry->fields.len - entry->validators_at);
        return respond(request, entry, 304, fields);
    }
    if (condition != 0)
        return refuse(request, condition);
    if (AS_UNLIKELY(head->known[AS_FIELD_RANGE] >= 0) && head->method == AS_METHOD_GET)
        return respond_ranges(request, entry);
    return respond_whole(request, entry);
}

/* Compressed neighbours. */

static bool is_fresh(const as_file_entry *entry, const as_home *home)
{
    int64_t believed_ms = as_file_cache_options_of(home->file_cache)->revalidate_ms;
    if (entry->kind == AS_FILE_MISSING && believed_ms > MISSING_MS)
        believed_ms = MISSING_MS;
    if (home->loop->now_ns - entry->checked_ns >= believed_ms * AS_NS_PER_MS)
        return false;
    as_file_stamp now;
    return entry->kind != AS_FILE_OPEN || is_unchanged(entry->fd, &entry->stamp, &now);
}

/* The file system could not be asked; what was known a moment ago is then better than nothing. */
static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN;
}

/* A neighbour that is older than the file was made of an earlier version. Programs and archives that keep times only to
 * the second make it look older by less than one; then its own time has no fraction. */
static bool is_outdated(const as_file_stamp *neighbour, const as_file_stamp *file)
{
    int64_t made = neighbour->modified_ns;
    bool is_whole_second = made % AS_NS_PER_S == 0 && made / AS_NS_PER_S == file->modified_ns / AS_NS_PER_S;
    return made < file->modified_ns && !is_whole_second;
}

/* The neighbour of `file`, held for the caller, or NULL. What was known and has gone is forgotten. */
static as_file_entry *find_neighbour(const file_handler *handler, as_request *request, const as_file_entry *file,
                                     int coding)
{
    as_home *home = request->home;
    as_file_entry *known = as_file_cache_find(home->file_cache, id_of(handler, coding), request->path);
    if (AS_LIKELY(known != NULL && is_fresh(known, home) && !is_outdated(&known->stamp, &file->stamp))) {
        as_file_entry_hold(known);
        return known;
    }
    found what;
    look_up_neighbour(handler, file, coding, &what);
    if (known != NULL && known->kind == AS_FILE_MEMORY && is_shortage(what.error) &&
        !is_outdated(&known->stamp, &file->stamp)) {
        as_file_entry_hold(known);
        return known;
    }
    bool is_usable = what.error == 0 && !what.is_directory && !is_outdated(&what.stamp, &file->stamp);
    if (is_usable && known != NULL && !known->is_racy && is_same_version(&known->stamp, &what.stamp)) {
        close(what.fd);
        known->checked_ns = home->loop->now_ns;
        as_file_entry_hold(known);
        return known;
    }
    if (known != NULL)
        as_file_cache_drop(home->file_cache, known);
    if (is_usable)
        return load(handler, request, &what);
    if (what.fd >= 0)
        close(what.fd);
    return NULL;
}

/* The coding that the client likes best of those that may be there, the operator's order among equals; -1 for the file
 * as it is. */
static int choose_coding(const file_handler *handler, const as_accepted *accepted, uint8_t absent)
{
    int best = -1;
    uint16_t best_weight = accepted->identity_is_named && accepted->identity > 0 ? accepted->identity - 1 : 0;
    for (int i = 0; i < handler->codings_len; i++) {
        int coding = handler->codings[i];
        if ((absent & 1 << coding) == 0 && accepted->codings[coding] > best_weight) {
            best = coding;
            best_weight = accepted->codings[coding];
        }
    }
    return best;
}

/* What the client gets of the file and its neighbours, held for the caller; NULL when it accepts none. */
static as_file_entry *choose_variant(const file_handler *handler, as_request *request, as_file_entry *file)
{
    as_accepted accepted;
    as_accept_codings(&request->head, &accepted);
    int coding;
    while ((coding = choose_coding(handler, &accepted, file->absent)) >= 0) {
        as_file_entry *neighbour = find_neighbour(handler, request, file, coding);
        if (neighbour != NULL)
            return neighbour;
        file->absent |= (uint8_t)(1 << coding);
    }
    if (accepted.identity == 0)
        return NULL;
    as_file_entry_hold(file);
    return file;
}

static as_verdict respond_negotiated(const file_handler *handler, as_request *request, as_file_entry *file)
{
    as_file_entry_hold(file); /* loading a neighbour may push it out of the cache */
    as_file_entry *variant = choose_variant(handler, request, file);
    as_file_entry_release(file);
    if (variant == NULL) {
        as_request_add_field(request, AS_STR(VARY));
        return refuse(request, 406);
    }
    as_verdict verdict = respond_variant(request, variant);
    as_file_entry_release(variant);
    return verdict;
}

/* Pages that do not exist. */

static as_verdict serve(const file_handler *handler, as_request *request);

/* A page, as against a part of one: a script or an image that is missing must not be answered with HTML. Browsers name
 * text/html when they navigate; others that take anything get the page where the path does not name a file by an
 * extension. */
static bool asks_for_a_page(const as_request *request)
{
    as_media_verdict verdict = as_accept_media(&request->head, AS_STR("text/html"));
    const char *slash = memrchr(request->path.ptr, '/', request->path.len);
    size_t name_len = (size_t)(request->path.ptr + request->path.len - slash);
    return verdict == AS_MEDIA_NAMED || (verdict == AS_MEDIA_TAKEN && memchr(slash, '.', name_len) == NULL);
}

static as_verdict answer_missing(const file_handler *handler, as_request *request)
{
    if (handler->fallback.len == 0 || request->error_status != 0 || as_str_equal(request->path, handler->fallback))
        return refuse(request, 404);
    as_request_add_field(request, AS_STR("Vary: Accept\r\n"));
    if (!asks_for_a_page(request))
        return refuse(request, 404);
    request->path = handler->fallback;
    return serve(handler, request);
}

static as_verdict respond_entry(const file_handler *handler, as_request *request, as_file_entry *entry)
{
    if (entry->kind == AS_FILE_MISSING)
        return answer_missing(handler, request);
    if (handler->codings_len > 0 && request->error_status == 0)
        return respond_negotiated(handler, request, entry);
    return respond_variant(request, entry);
}

/* Percent-encodes what RFC 3986 does not allow in a path. */
static char *write_encoded(char *out, as_str path)
{
    static const char HEX[] = "0123456789ABCDEF";
    static const char KEPT[] = "-._~!$&'()*+,;=:@/";
    for (size_t i = 0; i < path.len; i++) {
        unsigned char c = (unsigned char)path.ptr[i];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (is_plain || (c != '\0' && strchr(KEPT, c) != NULL)) {
            *out++ = (char)c;
        } else {
            *out++ = '%';
            *out++ = HEX[c >> 4];
            *out++ = HEX[c & 15];
        }
    }
    return out;
}

/* A directory was asked for without its slash: relative links in its index file would go astray. */
static as_verdict redirect_to_directory(as_request *request)
{
    as_str query = request->target.query;
    if (request->error_status != 0)
        return refuse(request, 404);
    char *line = as_arena_alloc(&request->arena, 3 * request->path.len + query.len + 64);
    char *out = append(line, AS_STR("Location: "));
    out = write_encoded(out, request->path);
    *out++ = '/';
    if (query.ptr != NULL) {
        *out++ = '?';
        out = append(out, query);
    }
    out = append(out, AS_STR("\r\n"));
    request->response.status = 301;
    request->response.fields = as_str_of(line, (size_t)(out - line));
    request->response.body = (as_body){.kind = AS_BODY_NONE, .fd = -1};
    return AS_VERDICT_RESPOND;
}

static as_verdict refuse_busy(as_request *request, const char *reason)
{
    as_home *home = request->home;
    if (as_file_cache_may_warn(home->file_cache, home->loop->now_ns))
        as_event_emit(home->events, AS_EVENT_WARNING, request->id, -1, 0, "static file answered with 503: %s", reason);
    if (request->error_status == 0)
        as_request_add_field(request, AS_STR("Retry-After: 1\r\n"));
    return refuse(request, 503);
}

static as_verdict refuse_broken(as_request *request, int error)
{
    as_home *home = request->home;
    if (as_file_cache_may_warn(home->file_cache, home->loop->now_ns)) {
        errno = error;
        as_event_emit(home->events, AS_EVENT_ERROR, request->id, -1, 0, "static file answered with 500: %m: %.*s",
                      (int)request->path.len, request->path.ptr);
    }
    return refuse(request, 500);
}

static as_verdict refuse_for_error(const file_handler *handler, as_request *request, int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        remember_missing(handler, request);
        return answer_missing(handler, request);
    case ENAMETOOLONG:
    case ELOOP:
    case EINVAL: /* a name that this file system cannot have */
    case ESTALE:
        return refuse(request, 404);
    case EACCES:
    case EPERM:
    case EXDEV:  /* a link that leads out of the root */
    case ENXIO:  /* a socket */
    case ENODEV: /* a device without a driver */
        return refuse(request, 403);
    case EMFILE:
    case ENFILE:
        return refuse_busy(request, "no file descriptor is left; raise the limit on open files (ulimit -n)");
    case ENOMEM:
        return refuse_busy(request, "the kernel has no memory left");
    case EAGAIN:
        return refuse_busy(request, "the file is locked by a lease or its directory is being moved");
    default:
        return refuse_broken(request, error);
    }
}

/* The request. */

/* Names that begin with a dot are nobody's business (.git, .env, .htpasswd) except below /.well-known/ (RFC 8615). The
 * operator may keep error pages among them. "." and ".." do not survive normalisation; they are refused here again
 * because `follow` has no other guard. */
static bool is_public(as_str path, bool is_error_page)
{
    if (path.len == 0 || path.ptr[0] != '/')
        return false;
    const char *end = path.ptr + path.len;
    const char *at = path.ptr;
    size_t known = sizeof(WELL_KNOWN) - 1;
    if (as_str_starts(path, AS_STR(WELL_KNOWN)) && (path.len == known || path.ptr[known] == '/'))
        at += known;
    while ((at = memmem(at, (size_t)(end - at), "/.", 2)) != NULL) {
        at += 2;
        const char *rest = at < end && *at == '.' ? at + 1 : at;
        if (!is_error_page || rest == end || *rest == '/')
            return false;
    }
    return true;
}

/* Asks the file system; `entry` is what was known, no longer believed, or NULL. */
static as_verdict handle_by_lookup(const file_handler *handler, as_request *request, as_file_entry *entry)
{
    as_home *home = request->home;
    found what;
    look_up(handler, request->path, &what);
    if ((what.error == EMFILE || what.error == ENFILE) && as_file_cache_shed(home->file_cache) > 0) {
        entry = as_file_cache_find(home->file_cache, id_of(handler, -1), request->path);
        look_up(handler, request->path, &what);
    }
    if (what.fd >= 0 && entry != NULL && entry->kind != AS_FILE_MISSING && !entry->is_racy &&
        is_same_version(&entry->stamp, &what.stamp)) {
        close(what.fd);
        entry->checked_ns = home->loop->now_ns;
        entry->absent = 0;
        AS_COUNT(home->counters, cache_hits, 1);
        return respond_entry(handler, request, entry);
    }
    if (entry != NULL && entry->kind != AS_FILE_OPEN && is_shortage(what.error)) {
        AS_COUNT(home->counters, cache_hits, 1);
        return respond_entry(handler, request, entry);
    }
    AS_COUNT(home->counters, cache_misses, 1);
    if (entry != NULL)
        as_file_cache_drop(home->file_cache, entry);
    if (what.error != 0)
        return refuse_for_error(handler, request, what.error);
    if (what.is_directory)
        return redirect_to_directory(request);
    entry = load(handler, request, &what);
    if (entry == NULL)
        return refuse_busy(request, "out of memory");
    as_verdict verdict = respond_entry(handler, request, entry);
    as_file_entry_release(entry);
    return verdict;
}

static as_verdict serve(const file_handler *handler, as_request *request)
{
    as_home *home = request->home;
    as_file_entry *entry = as_file_cache_find(home->file_cache, id_of(handler, -1), request->path);
    if (AS_LIKELY(entry != NULL && is_fresh(entry, home))) {
        AS_COUNT(home->counters, cache_hits, 1);
        return respond_entry(handler, request, entry);
    }
    return handle_by_lookup(handler, request, entry);
}

static as_verdict handle_method(as_request *request)
{
    if (request->head.method != AS_METHOD_OPTIONS) {
        as_request_add_field(request, AS_STR(ALLOW));
        return refuse(request, 405);
    }
    request->response.status = 204;
    request->response.fields = AS_STR(ALLOW);
    request->response.body = (as_body){.kind = AS_BODY_NONE, .fd = -1};
    return AS_VERDICT_RESPOND;
}

static as_verdict handle_file(const as_handler *base, as_request *request)
{
    const file_handler *handler = (const file_handler *)base;
    /* The error page of a failed POST is not asked for by GET. */
    bool is_error_page = request->error_status != 0;
    if (AS_UNLIKELY(request->head.method != AS_METHOD_GET && request->head.method != AS_METHOD_HEAD && !is_error_page))
        return handle_method(request);
    if (AS_UNLIKELY(!is_public(request->path, is_error_page)))
        return refuse(request, 404);
    return serve(handler, request);
}

static void free_handler(as_handler *base)
{
    file_handler *handler = (file_handler *)base;
    close(handler->root_fd);
    as_free((char *)handler->fallback.ptr);
    as_free(handler->index);
    as_free(handler->root);
    as_free(handler);
}

static const as_handler_ops FILE_OPS = {
    .name = "file",
    .wants_body = false,
    .handle = handle_file,
    .free = free_handler,
};

/* The bytes of a list of strings, each ended by NUL and the list by an empty one. */
static size_t list_size(const char *list)
{
    const char *at = list;
    while (*at != '\0')
        at += strlen(at) + 1;
    return (size_t)(at - list) + 1;
}

as_handler *as_file_handler_new(const as_file_options *options)
{
    int fd = open(options->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    file_handler *handler = as_alloc(sizeof(*handler));
    handler->handler.ops = &FILE_OPS;
    handler->root_id = __atomic_fetch_add(&last_root_id, AS_CODINGS + 1, __ATOMIC_RELAXED);
    handler->root_fd = fd;
    handler->root = as_strdup(as_str_from(options->root));
    handler->index = as_strdup(as_str_of(options->index, list_size(options->index)));
    handler->symlinks = options->symlinks;
    assert(options->codings_len <= AS_CODINGS);
    handler->codings_len = options->codings_len;
    for (int i = 0; i < options->codings_len; i++)
        handler->codings[i] = options->codings[i];
    if (options->fallback != NULL && options->fallback[0] != '\0') {
        as_str fallback = as_str_from(options->fallback);
        handler->fallback = as_str_of(as_strdup(fallback), fallback.len);
    }
    handler->mime = options->mime;
    return &handler->handler;
}
