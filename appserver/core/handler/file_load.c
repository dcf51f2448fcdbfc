/* From an open file to an entry of the cache: a copy where it is small and stands still, else the descriptor itself. */
#include "handler/file_handler.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "http/date.h"

enum {
    /* A file that changes while it is copied is copied again, then sent from its descriptor instead, where a writer
     * still reaches what waits in sockets: to truncate it zeroes the rest of a page, of many KiB where the page cache has
     * large folios. One write changes the version at its beginning and for each folio that it adds. A writer of 60 KiB
     * files sent 1 of 100 rounds to the descriptor after 3 attempts and none of 80,000 after 5. */
    LOAD_ATTEMPTS = 16,
    /* How young, in seconds of a clock that was read at the start of the turn, a change makes an entry racy. */
    RACY_S = 1,
    /* Paths that are longer than this and do not exist are not worth remembering. */
    MISSING_PATH = 256,
    /* The field lines of an entry but for the media type. */
    FIELDS_SIZE = 256,
};

const as_file_coding as_file_codings[AS_CODINGS] = {
    [AS_CODING_BR] = {".br", "-br", {"Content-Encoding: br\r\n", 22}},
    [AS_CODING_ZSTD] = {".zst", "-zst", {"Content-Encoding: zstd\r\n", 24}},
    [AS_CODING_GZIP] = {".gz", "-gz", {"Content-Encoding: gzip\r\n", 24}},
};

static bool is_young(int64_t time_ns, int64_t wall_s)
{
    return time_ns / AS_NS_PER_S >= wall_s - RACY_S;
}

static void write_etag(as_file_entry *entry, bool is_weak)
{
    int len = snprintf(entry->etag, sizeof(entry->etag), "%s\"%llx-%llx%s\"", is_weak ? "W/" : "",
                       (unsigned long long)entry->stamp.size, (unsigned long long)entry->stamp.modified_ns,
                       entry->coding >= 0 ? as_file_codings[entry->coding].mark : "");
    assert(len > 0 && len < AS_FILE_ETAG_SIZE);
    entry->validators.etag = as_str_of(entry->etag, (size_t)len);
}

/* The field lines in such an order that those of an error page are their beginning and those of a 304 (RFC 9110 section
 * 15.4.5) their end. */
static void write_fields(as_file_entry *entry, bool varies)
{
    char date[AS_DATE_LEN];
    char *out = entry->space;
    out = as_str_append(out, AS_STR("Content-Type: "));
    out = as_str_append(out, entry->type);
    out = as_str_append(out, AS_STR("\r\n"));
    entry->type_line_len = (size_t)(out - entry->space);
    out = as_str_append(out, AS_STR("X-Content-Type-Options: nosniff\r\n"));
    entry->plain_len = (size_t)(out - entry->space);
    out = as_str_append(out, AS_STR("Accept-Ranges: bytes\r\n"));
    if (entry->coding >= 0)
        out = as_str_append(out, as_file_codings[entry->coding].field);
    entry->validators_at = (size_t)(out - entry->space);
    if (varies)
        out = as_str_append(out, AS_STR(AS_FILE_VARY));
    out = as_str_append(out, AS_STR("ETag: "));
    out = as_str_append(out, entry->validators.etag);
    out = as_str_append(out, AS_STR("\r\n"));
    if (entry->validators.last_modified >= 0) {
        as_date_format(entry->validators.last_modified, date);
        out = as_str_append(out, AS_STR("Last-Modified: "));
        out = as_str_append(out, as_str_of(date, sizeof(date)));
        out = as_str_append(out, AS_STR("\r\n"));
    }
    entry->fields = as_str_of(entry->space, (size_t)(out - entry->space));
    assert(entry->fields.len <= entry->type.len + FIELDS_SIZE);
}

/* Everything of the entry that follows from the version. */
static void describe(as_file_entry *entry, const as_file_handler *handler, const as_loop *loop,
                     const as_file_found *what)
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
static as_file_entry *load_copy(const as_file_handler *handler, as_request *request, as_file_found *what)
{
    as_file_cache *cache = request->home->file_cache;
    for (int attempt = 0; attempt < LOAD_ATTEMPTS; attempt++) {
        size_t fields_size = what->type.len + FIELDS_SIZE;
        size_t size = (size_t)what->stamp.size;
        if (what->stamp.size > (int64_t)as_file_cache_options_of(cache)->file_size ||
            !as_file_cache_make_room(cache, AS_FILE_MEMORY, request->path, fields_size + size))
            return NULL;
        as_file_entry *entry =
            as_file_entry_new(cache, as_file_id(handler, what->coding), request->path, fields_size + size);
        if (entry == NULL)
            return NULL;
        as_file_stamp now = what->stamp;
        char *content = entry->space + fields_size;
        bool is_whole = read_whole(what->fd, content, size);
        if (as_file_is_unchanged(what->fd, &what->stamp, &now) && is_whole) {
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
static as_file_entry *load_open(const as_file_handler *handler, as_request *request, as_file_found *what)
{
    as_file_cache *cache = request->home->file_cache;
    as_file_entry *entry =
        as_file_entry_new(cache, as_file_id(handler, what->coding), request->path, what->type.len + FIELDS_SIZE);
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
as_file_entry *as_file_load(const as_file_handler *handler, as_request *request, as_file_found *what)
{
    as_file_entry *entry = load_copy(handler, request, what);
    if (entry == NULL)
        entry = load_open(handler, request, what);
    if (what->fd >= 0)
        close(what->fd);
    return entry;
}

void as_file_remember_missing(const as_file_handler *handler, as_request *request)
{
    as_file_cache *cache = request->home->file_cache;
    if (request->path.len > MISSING_PATH || as_file_cache_options_of(cache)->revalidate_ms == 0 ||
        !as_file_cache_make_room(cache, AS_FILE_MISSING, request->path, 0))
        return;
    as_file_entry *entry = as_file_entry_new(cache, as_file_id(handler, -1), request->path, 0);
    if (entry == NULL)
        return;
    entry->kind = AS_FILE_MISSING;
    entry->checked_ns = request->home->loop->now_ns;
    as_file_cache_put(cache, entry);
    as_file_entry_release(entry);
}
