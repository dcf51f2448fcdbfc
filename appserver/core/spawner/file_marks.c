#include "spawner/file_marks.h"

#include "base/clock.h"

enum {
    STEP = 64, /* by how many the list grows */
};

struct as_watched_file {
    as_file_mark mark;
    char *path;
};

as_file_mark as_file_mark_of(const struct stat *info)
{
    return (as_file_mark){
        .device = info->st_dev,
        .inode = info->st_ino,
        .size = (uint64_t)info->st_size,
        .modified_ns = info->st_mtim.tv_sec * AS_NS_PER_S + info->st_mtim.tv_nsec,
        .changed_ns = info->st_ctim.tv_sec * AS_NS_PER_S + info->st_ctim.tv_nsec,
    };
}

static as_file_mark mark_at(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? as_file_mark_of(&info) : (as_file_mark){0};
}

static int64_t whole_seconds(int64_t time_ns)
{
    return time_ns / AS_NS_PER_S * AS_NS_PER_S;
}

/* What `path` is now, when that is what `said` is of it, else `said`: then it has changed already. */
static as_file_mark first_mark(const char *path, const as_file_mark *said)
{
    as_file_mark now = mark_at(path);
    as_file_mark seen = now;
    if (said->modified_ns == whole_seconds(said->modified_ns) && said->changed_ns == whole_seconds(said->changed_ns)) {
        seen.modified_ns = whole_seconds(seen.modified_ns);
        seen.changed_ns = whole_seconds(seen.changed_ns);
    }
    return as_file_mark_is_same(&seen, said) ? now : *said;
}

static int add(as_watched *watched, const char *path, const as_file_mark *said)
{
    if (watched->count == AS_WATCHED_MAX)
        return AS_EFULL;
    if (watched->count % STEP == 0) {
        as_watched_file *files = as_try_realloc(watched->files, (watched->count + STEP) * sizeof(*files));
        if (files == NULL)
            return AS_EFULL;
        watched->files = files;
    }
    watched->files[watched->count++] = (as_watched_file){
        .mark = first_mark(path, said),
        .path = as_strdup(as_str_of(path, strlen(path))),
    };
    return AS_OK;
}

int as_watched_add(as_watched *watched, const char *list, size_t len)
{
    while (len > 0) {
        as_file_mark said;
        const char *path = list + sizeof(said);
        const char *end = len > sizeof(said) ? memchr(path, '\0', len - sizeof(said)) : NULL;
        if (end == NULL)
            return AS_EINVALID;
        memcpy(&said, list, sizeof(said));
        int verdict = add(watched, path, &said);
        if (verdict != AS_OK)
            return verdict;
        len -= (size_t)(end + 1 - list);
        list = end + 1;
    }
    return AS_OK;
}

const char *as_watched_find_changed(const as_watched *watched)
{
    for (uint32_t i = 0; i < watched->count; i++) {
        const as_watched_file *file = &watched->files[i];
        as_file_mark now = mark_at(file->path);
        if (!as_file_mark_is_same(&now, &file->mark))
            return file->path;
    }
    return NULL;
}

void as_watched_clear(as_watched *watched)
{
    for (uint32_t i = 0; i < watched->count; i++)
        as_free(watched->files[i].path);
    as_free(watched->files);
    *watched = (as_watched){0};
}
