/* file.h: the static file handler (RFC 9110 sections 8.8, 13, 14; the paper's section IV: mmap cache, sendfile).
 *
 * handle() answers from the loop's cache when it can; the hit path allocates nothing, takes no lock and makes no system call. */
#ifndef AS_HANDLER_FILE_H
#define AS_HANDLER_FILE_H

#include "handler/mime.h"
#include "http/accept.h"
#include "http/request.h"

typedef enum as_symlinks {
    AS_SYMLINKS_BENEATH, /* followed as long as they stay below the root (openat2 RESOLVE_BENEATH) */
    AS_SYMLINKS_DENY,    /* never followed (RESOLVE_NO_SYMLINKS) */
    AS_SYMLINKS_FOLLOW,  /* followed wherever they lead: for trees that only trusted people can write */
} as_symlinks;

typedef struct as_file_options {
    const char *root;   /* absolute path of a directory */
    const char *prefix; /* of paths; what follows it is looked up below the root. NULL or empty: the whole path is */
    const char *index;  /* file names separated by NUL, ended by an empty one: "index.html\0index.htm\0" */
    as_symlinks symlinks;
    const uint8_t *codings; /* as_coding: which compressed neighbours are looked for, the preferred one first */
    int codings_len;
    const char *fallback; /* path of the file that answers a page that does not exist; NULL or empty: none */
    const as_mime *mime;  /* borrowed; lives as long as the snapshot */
} as_file_options;

/* Opens the root. NULL with errno set when it is not a directory that can be opened. The handler copies the options; it serves request->path
 * below the root, without `prefix` where it begins with that. */
as_handler *as_file_handler_new(const as_file_options *options);

/* Fills in request->response with the file at request->path, whatever the method and also when a name begins with a dot: for an application that has chosen it.
 * `status` 200: as asked for, with conditions and ranges when the method has any; another one: the whole file with that status. AS_VERDICT_ERROR with the
 * status in the response when there is no such file (404) or it cannot be had. */
as_verdict as_file_respond(const as_handler *handler, as_request *request, int status);

/* 301 to request->path with a slash behind it. */
as_verdict as_file_redirect_to_folder(as_request *request);

typedef struct as_file_cache as_file_cache;

/* One per loop. `bytes`: most memory for mapped or held contents; `file_size`: larger files are not held but sent with sendfile;
 * `revalidate_ms`: how long an entry is believed before the file is looked at again. 0 bytes turns the cache off. `recent`: what was used last stays (LRU), and
 * not what is used most. */
typedef struct as_file_cache_options {
    uint64_t bytes;
    uint32_t entries;
    uint32_t file_size;
    uint32_t revalidate_ms;
    bool recent;
} as_file_cache_options;

as_file_cache *as_file_cache_new(const as_file_cache_options *options, struct as_counters *counters);
/* Drops every entry (those in use go when their last response is over). Loop thread. */
void as_file_cache_clear(as_file_cache *cache);
/* All responses must be over. */
void as_file_cache_free(as_file_cache *cache);

#endif
