/* From a path to an open file. The root is opened by its path whenever the file system has to be asked, so that a tree that is replaced (a build
 * directory made anew, a "current" link that is switched) is served from then on. */
#include "handler/file_handler.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_present(const as_file_found *what)
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

bool as_file_is_same_version(const as_file_stamp *a, const as_file_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size && a->modified_ns == b->modified_ns &&
           a->changed_ns == b->changed_ns;
}

/* Whether fd still is the version `stamp`; `now` gets what it is. */
bool as_file_is_unchanged(int fd, const as_file_stamp *stamp, as_file_stamp *now)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return false;
    *now = stamp_of(&status);
    return as_file_is_same_version(stamp, now);
}

/* Looking things up. */

static int open_root(const as_file_handler *handler)
{
    int fd = open(handler->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    /* Opened before privileges were dropped, below a directory that the server's user may not enter. */
    if (fd < 0 && errno == EACCES)
        return handler->root_fd;
    return fd;
}

static void close_root(const as_file_handler *handler, int fd)
{
    if (fd != handler->root_fd)
        close(fd);
}

/* Opens what->path. O_NONBLOCK so that a FIFO without a writer does not stop the loop, O_NOCTTY for terminals. */
static void open_path(const as_file_handler *handler, int root_fd, as_file_found *what)
{
    struct stat status = {0};
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
static void look_for_closed_directory(const as_file_handler *handler, int root_fd, as_file_found *what)
{
    int fd = as_beneath_open(root_fd, what->path, O_PATH | O_DIRECTORY, handler->symlinks);
    if (fd < 0)
        return;
    close(fd);
    what->error = 0;
    what->is_directory = true;
}

static void look_for_index(const as_file_handler *handler, int root_fd, size_t directory_len, as_file_found *what)
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

/* The part of a request's path that is looked up, without its leading slash; an empty one is the root, named without a slash at its end when `*is_bare`. */
static as_str below_root(const as_file_handler *handler, as_str path, bool *is_bare)
{
    size_t skipped = 0;
    as_str prefix = handler->prefix;
    if (prefix.len > 0 && as_str_starts(path, prefix) && (path.len == prefix.len || path.ptr[prefix.len] == '/'))
        skipped = prefix.len;
    *is_bare = skipped == path.len;
    skipped += !*is_bare;
    return as_str_of(path.ptr + skipped, path.len - skipped);
}

void as_file_look_up(const as_file_handler *handler, as_str path, as_file_found *what)
{
    bool is_bare;
    as_str name = below_root(handler, path, &is_bare);
    if (is_bare)
        name = AS_STR(".");
    what->fd = -1;
    what->is_directory = false;
    what->index = NULL;
    what->coding = -1;
    size_t len = name.len;
    if (len >= sizeof(what->path) || memchr(name.ptr, '\0', len) != NULL) {
        what->error = ENAMETOOLONG;
        return;
    }
    memcpy(what->path, name.ptr, len);
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
void as_file_look_up_neighbour(const as_file_handler *handler, const as_file_entry *file, int coding,
                               as_file_found *what)
{
    bool is_bare;
    as_str name = below_root(handler, file->path, &is_bare);
    int len = snprintf(what->path, sizeof(what->path), "%.*s%s%s", (int)name.len, name.ptr,
                       file->index != NULL ? file->index : "", as_file_codings[coding].suffix);
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
