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
#include "handler/file_handler.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "http/byteranges.h"
#include "http/conditional.h"
#include "http/date.h"
#include "report/counters.h"
#include "report/event.h"
enum {
    /* How long at most a path that does not exist is believed not to. */
    MISSING_MS = 1000,
};

#define ALLOW "Allow: GET, HEAD, OPTIONS\r\n"
#define WELL_KNOWN "/.well-known"

static uint64_t last_root_id; /* any thread, atomic */

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
    return entry->kind != AS_FILE_OPEN || as_file_is_unchanged(entry->fd, &entry->stamp, &now);
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
static as_file_entry *find_neighbour(const as_file_handler *handler, as_request *request, const as_file_entry *file,
                                     int coding)
{
    as_home *home = request->home;
    as_file_entry *known = as_file_cache_find(home->file_cache, as_file_id(handler, coding), request->path);
    if (AS_LIKELY(known != NULL && is_fresh(known, home) && !is_outdated(&known->stamp, &file->stamp))) {
        as_file_entry_hold(known);
        return known;
    }
    as_file_found what;
    as_file_look_up_neighbour(handler, file, coding, &what);
    if (known != NULL && known->kind == AS_FILE_MEMORY && is_shortage(what.error) &&
        !is_outdated(&known->stamp, &file->stamp)) {
        as_file_entry_hold(known);
        return known;
    }
    bool is_usable = what.error == 0 && !what.is_directory && !is_outdated(&what.stamp, &file->stamp);
    if (is_usable && known != NULL && !known->is_racy && as_file_is_same_version(&known->stamp, &what.stamp)) {
        close(what.fd);
        known->checked_ns = home->loop->now_ns;
        as_file_entry_hold(known);
        return known;
    }
    if (known != NULL)
        as_file_cache_drop(home->file_cache, known);
    if (is_usable)
        return as_file_load(handler, request, &what);
    if (what.fd >= 0)
        close(what.fd);
    return NULL;
}

/* The coding that the client likes best of those that may be there, the operator's order among equals; -1 for the file
 * as it is. */
static int choose_coding(const as_file_handler *handler, const as_accepted *accepted, uint8_t absent)
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
static as_file_entry *choose_variant(const as_file_handler *handler, as_request *request, as_file_entry *file)
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

static as_verdict respond_negotiated(const as_file_handler *handler, as_request *request, as_file_entry *file)
{
    as_file_entry_hold(file); /* loading a neighbour may push it out of the cache */
    as_file_entry *variant = choose_variant(handler, request, file);
    as_file_entry_release(file);
    if (variant == NULL) {
        as_request_add_field(request, AS_STR(AS_FILE_VARY));
        return refuse(request, 406);
    }
    as_verdict verdict = respond_variant(request, variant);
    as_file_entry_release(variant);
    return verdict;
}

/* Pages that do not exist. */

static as_verdict serve(const as_file_handler *handler, as_request *request);

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

static as_verdict answer_missing(const as_file_handler *handler, as_request *request)
{
    if (handler->fallback.len == 0 || request->error_status != 0 || as_str_equal(request->path, handler->fallback))
        return refuse(request, 404);
    as_request_add_field(request, AS_STR("Vary: Accept\r\n"));
    if (!asks_for_a_page(request))
        return refuse(request, 404);
    request->path = handler->fallback;
    return serve(handler, request);
}

static as_verdict respond_entry(const as_file_handler *handler, as_request *request, as_file_entry *entry)
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
    static const char KEPT[] = "-._~!$&'()*+,;=:@/";
    for (size_t i = 0; i < path.len; i++) {
        unsigned char c = (unsigned char)path.ptr[i];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (is_plain || (c != '\0' && strchr(KEPT, c) != NULL))
            *out++ = (char)c;
        else
            out = as_str_append_escape(out, c);
    }
    return out;
}

/* A directory was asked for without its slash: relative links in its index file would go astray. */
as_verdict as_file_redirect_to_folder(as_request *request)
{
    as_str query = request->target.query;
    if (request->error_status != 0)
        return refuse(request, 404);
    char *line = as_arena_alloc(&request->arena, 3 * request->path.len + query.len + 64);
    char *out = as_str_append(line, AS_STR("Location: "));
    out = write_encoded(out, request->path);
    *out++ = '/';
    if (query.ptr != NULL) {
        *out++ = '?';
        out = as_str_append(out, query);
    }
    out = as_str_append(out, AS_STR("\r\n"));
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

static as_verdict refuse_for_error(const as_file_handler *handler, as_request *request, int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        as_file_remember_missing(handler, request);
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
static as_verdict handle_by_lookup(const as_file_handler *handler, as_request *request, as_file_entry *entry)
{
    as_home *home = request->home;
    as_file_found what;
    as_file_look_up(handler, request->path, &what);
    if ((what.error == EMFILE || what.error == ENFILE) && as_file_cache_shed(home->file_cache) > 0) {
        entry = as_file_cache_find(home->file_cache, as_file_id(handler, -1), request->path);
        as_file_look_up(handler, request->path, &what);
    }
    if (what.fd >= 0 && entry != NULL && entry->kind != AS_FILE_MISSING && !entry->is_racy &&
        as_file_is_same_version(&entry->stamp, &what.stamp)) {
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
        return as_file_redirect_to_folder(request);
    entry = as_file_load(handler, request, &what);
    if (entry == NULL)
        return refuse_busy(request, "out of memory");
    as_verdict verdict = respond_entry(handler, request, entry);
    as_file_entry_release(entry);
    return verdict;
}

static as_verdict serve(const as_file_handler *handler, as_request *request)
{
    as_home *home = request->home;
    as_file_entry *entry = as_file_cache_find(home->file_cache, as_file_id(handler, -1), request->path);
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
    const as_file_handler *handler = (const as_file_handler *)base;
    /* The error page of a failed POST is not asked for by GET. */
    bool is_error_page = request->error_status != 0;
    if (AS_UNLIKELY(request->head.method != AS_METHOD_GET && request->head.method != AS_METHOD_HEAD && !is_error_page))
        return handle_method(request);
    if (AS_UNLIKELY(!is_public(request->path, is_error_page)))
        return refuse(request, 404);
    return serve(handler, request);
}

as_verdict as_file_respond(const as_handler *base, as_request *request, int status)
{
    as_home *home = request->home;
    home->file_cache = request->epoch->file_cache;
    bool is_plain = status == 200 && (request->head.method == AS_METHOD_GET || request->head.method == AS_METHOD_HEAD);
    as_verdict verdict = AS_VERDICT_ERROR;
    request->response.status = 404;
    if (is_public(request->path, true)) {
        /* An error page is sent whole and with the status that it is for, which is what is wanted. */
        request->error_status = is_plain ? 0 : (uint16_t)status;
        verdict = serve((const as_file_handler *)base, request);
        if (verdict == AS_VERDICT_ERROR && !is_plain)
            request->response.status = 404;
        request->error_status = 0;
    }
    if (verdict == AS_VERDICT_RESPOND && request->response.status == 301) { /* a directory */
        request->response.status = 404;
        verdict = AS_VERDICT_ERROR;
    }
    return verdict;
}

static void free_handler(as_handler *base)
{
    as_file_handler *handler = (as_file_handler *)base;
    close(handler->root_fd);
    as_free((char *)handler->fallback.ptr);
    as_free((char *)handler->prefix.ptr);
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

/* NULL is empty. */
static as_str copy_path(const char *path)
{
    as_str whole = path == NULL ? AS_STR_NONE : as_str_from(path);
    return whole.len == 0 ? AS_STR_NONE : as_str_of(as_strdup(whole), whole.len);
}

as_handler *as_file_handler_new(const as_file_options *options)
{
    int fd = open(options->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    as_file_handler *handler = as_alloc(sizeof(*handler));
    handler->handler.ops = &FILE_OPS;
    handler->root_id = __atomic_fetch_add(&last_root_id, AS_CODINGS + 1, __ATOMIC_RELAXED);
    handler->root_fd = fd;
    handler->root = as_strdup(as_str_from(options->root));
    handler->index = as_strdup_list(options->index);
    handler->symlinks = options->symlinks;
    assert(options->codings_len <= AS_CODINGS);
    handler->codings_len = options->codings_len;
    for (int i = 0; i < options->codings_len; i++)
        handler->codings[i] = options->codings[i];
    handler->prefix = copy_path(options->prefix);
    handler->fallback = copy_path(options->fallback);
    handler->mime = options->mime;
    return &handler->handler;
}
