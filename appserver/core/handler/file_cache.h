/* file_cache.h: what a loop remembers of the files it has served. For the file handler alone; loop thread.
 *
 * An entry is one version of one file, unchangeable once it is in the cache. It lives as long as somebody holds it, in
 * the cache or not. */
#ifndef AS_HANDLER_FILE_CACHE_H
#define AS_HANDLER_FILE_CACHE_H

#include "handler/file.h"
#include "http/conditional.h"

typedef enum as_file_kind {
    AS_FILE_MEMORY,  /* `content` is a copy of the whole file */
    AS_FILE_OPEN,    /* `fd` is the file, which is too large to be held, or would not stand still to be copied */
    AS_FILE_MISSING, /* there is no such file */
} as_file_kind;

/* What tells one version of a file from another. */
typedef struct as_file_stamp {
    uint64_t device;
    uint64_t inode;
    int64_t size;
    int64_t modified_ns;
    int64_t changed_ns;
} as_file_stamp;

#define AS_FILE_ETAG_SIZE 48

typedef struct as_file_entry as_file_entry;
struct as_file_entry {
    /* The cache's. */
    as_file_cache *cache;
    as_file_entry *chain; /* next in the hash bucket */
    as_file_entry *newer;
    as_file_entry *older;
    uint64_t hash;
    uint64_t root_id;
    as_str path;
    size_t charge; /* bytes of this allocation */
    uint32_t refs;
    uint8_t queue;
    uint8_t frequency; /* uses since it was last weighed, saturating */
    /* The handler's; filled in before as_file_cache_put(). */
    as_file_kind kind;
    int fd;             /* -1 when there is none; closed with the entry */
    bool is_racy;       /* so young when it was read that a later write may carry the same times */
    int64_t checked_ns; /* when the file system was last asked */
    as_file_stamp stamp;
    char *space;          /* room for `fields`, then for `content` */
    as_str type;          /* media type; of the snapshot */
    const char *index;    /* name of the index file that was found, NULL when the path itself names the file */
    int8_t coding;        /* as_coding of a compressed neighbour, -1 for the file itself */
    uint8_t absent;       /* bit by as_coding: neighbours that were not there since the file was last looked at */
    as_str fields;        /* of a 200 */
    size_t type_line_len; /* the first line of `fields` */
    size_t plain_len;     /* the first so many bytes of `fields` are those of an error page */
    size_t validators_at; /* from here on `fields` are those of a 304 */
    as_str content;
    as_validators validators;
    char etag[AS_FILE_ETAG_SIZE];
};

const as_file_cache_options *as_file_cache_options_of(const as_file_cache *cache);

/* The entry of this path or NULL; counts a use. Not held. */
as_file_entry *as_file_cache_find(as_file_cache *cache, uint64_t root_id, as_str path);

/* Makes room for an entry of `kind` that needs `space` bytes by giving up less requested ones. False when it should not
 * be cached: the cache is off, the entry too large, or what would have to go is in use. The work of one call is
 * bounded. */
bool as_file_cache_make_room(as_file_cache *cache, as_file_kind kind, as_str path, size_t space);

/* A zeroed entry with `space` bytes of room, held once by the caller, not in the cache. NULL without memory. */
as_file_entry *as_file_entry_new(as_file_cache *cache, uint64_t root_id, as_str path, size_t space);
/* The cache remembers the entry, for which as_file_cache_make_room() has made room and whose path it does not have. */
void as_file_cache_put(as_file_cache *cache, as_file_entry *entry);
/* The cache forgets the entry, which goes when nobody holds it. */
void as_file_cache_drop(as_file_cache *cache, as_file_entry *entry);
/* Closes the files that the cache holds open for nobody in particular; how many. For when there are no descriptors
 * left. */
int as_file_cache_shed(as_file_cache *cache);

static inline void as_file_entry_hold(as_file_entry *entry)
{
    entry->refs++;
}
void as_file_entry_release(as_file_entry *entry);

/* True at most once a second: so that a server in trouble does not drown its log. */
bool as_file_cache_may_warn(as_file_cache *cache, int64_t now_ns);

#endif
