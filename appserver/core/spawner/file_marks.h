/* file_marks.h: what changes when a file does, of one file and of a list that is looked at again and again. Any thread. */
#ifndef AS_SPAWNER_FILE_MARKS_H
#define AS_SPAWNER_FILE_MARKS_H

#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/memory.h"

enum {
    /* A zygote's modules and their folders. The attack: a script that imports what others can add to. */
    AS_WATCHED_MAX = 4096,
};

/* Zygotes get and send it as it is. All zeros: there is no such file. */
typedef struct as_file_mark {
    uint64_t device;
    uint64_t inode;
    uint64_t size;
    int64_t modified_ns;
    int64_t changed_ns;
} as_file_mark;

as_file_mark as_file_mark_of(const struct stat *info);

static inline bool as_file_mark_is_same(const as_file_mark *a, const as_file_mark *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* Files and folders with their marks, all zeros at first. */
typedef struct as_watched_file as_watched_file;
typedef struct as_watched {
    as_watched_file *files;
    uint32_t count;
} as_watched;

/* Adds those of a list: mark, path, NUL, and again. Times that are whole seconds stand for any in that second, for whoever knows no better.
 * AS_OK; AS_EINVALID: the list is broken; AS_EFULL: there are too many, or there is no memory. What came before is kept. */
AS_MUST_USE int as_watched_add(as_watched *watched, const char *list, size_t len);
/* The path of the first that is not what it was; NULL when all are. The text belongs to the list. */
const char *as_watched_find_changed(const as_watched *watched);
void as_watched_clear(as_watched *watched);

#endif
