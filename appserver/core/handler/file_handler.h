/* file_handler.h: what the parts of the static file handler share; for them alone. Loop thread.
 *
 *   file_find.c  a path to an open file
 *   file_load.c  an open file to an entry of the cache
 *   file.c       an entry to a response */
#ifndef AS_HANDLER_FILE_HANDLER_H
#define AS_HANDLER_FILE_HANDLER_H

#include "handler/beneath.h"
#include "handler/file_cache.h"

/* Of a response that depends on Accept-Encoding. */
#define AS_FILE_VARY "Vary: Accept-Encoding\r\n"

typedef struct as_file_handler {
    as_handler handler;
    /* Unlike an address never used again, so that entries of a freed handler cannot be taken for another's. */
    uint64_t root_id;
    char *root;
    int root_fd;
    char *index;
    as_str prefix;
    as_symlinks symlinks;
    uint8_t codings[AS_CODINGS];
    int codings_len;
    as_str fallback;
    const as_mime *mime;
} as_file_handler;

/* A file's compressed neighbours by as_coding: names of their own, and tags of their own (RFC 9110 section 8.8.3.3). */
typedef struct as_file_coding {
    const char *suffix;
    const char *mark;
    as_str field;
} as_file_coding;

extern const as_file_coding as_file_codings[AS_CODINGS];

/* What the file system says about a path. */
typedef struct as_file_found {
    int fd;    /* -1 with `error` otherwise; a regular file unless is_directory */
    int error; /* errno; 0 when there is something */
    bool is_directory;
    as_file_stamp stamp;
    const char *index; /* the index file's name, which `path` then ends with */
    int8_t coding;     /* as in an entry */
    as_str type;
    char path[AS_BENEATH_PATH_SIZE]; /* below the root */
} as_file_found;

/* file_find.c */
/* What is at `path` of a request, an index file for a folder: fills in `what`, whose fd is the caller's. */
void as_file_look_up(const as_file_handler *handler, as_str path, as_file_found *what);
/* Likewise the compressed neighbour of a file that was found before. */
void as_file_look_up_neighbour(const as_file_handler *handler, const as_file_entry *file, int coding,
                               as_file_found *what);
bool as_file_is_same_version(const as_file_stamp *a, const as_file_stamp *b);
/* Whether fd still is the version `stamp`; `now` gets what it is. */
bool as_file_is_unchanged(int fd, const as_file_stamp *stamp, as_file_stamp *now);

/* file_load.c */
/* A file (coding -1) and its neighbours are entries of the same path, each by an id of its own. */
static inline uint64_t as_file_id(const as_file_handler *handler, int coding)
{
    return handler->root_id + (uint64_t)(coding + 1);
}
/* The entry for a regular file, held once for the caller; NULL without memory. Takes what->fd. */
as_file_entry *as_file_load(const as_file_handler *handler, as_request *request, as_file_found *what);
void as_file_remember_missing(const as_file_handler *handler, as_request *request);

#endif
