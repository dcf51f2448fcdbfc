/* Two ways to the same answer. The kernel's own (openat2, Linux 5.6) resolves in one call. Where a seccomp filter
 * written before it refuses it (EPERM from Docker before 20.10, ENOSYS from old kernels) the path is walked here, one
 * component at a time, with O_NOFOLLOW: no ".." and no link is ever given to the kernel, so that renames meanwhile
 * cannot lead the walk outside. */
#include "handler/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    /* The kernel's own limit (path_resolution(7)): a chain of links must end. */
    MAX_LINKS = 40,
    /* openat2 answers EAGAIN when a rename somewhere in the system raced with a ".." of a link. */
    MAX_RACES = 16,
    /* walk_once(): replace the stretch that it names and start again. */
    WALK_AGAIN = -2,
};

/* A part of the path that gives way to `text`. */
typedef struct walk_change {
    size_t start;
    size_t end;
    bool is_link;
    char text[AS_BENEATH_PATH_SIZE];
} walk_change;

static int open_by_kernel(int root_fd, const char *path, int flags, as_symlinks symlinks)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | (symlinks == AS_SYMLINKS_DENY ? RESOLVE_NO_SYMLINKS : 0),
    };
    long fd = -1;
    for (int tries = 0; tries < MAX_RACES; tries++) {
        fd = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return (int)fd;
}

static void close_keeping_errno(int fd)
{
    int saved = errno;
    close(fd);
    errno = saved;
}

/* The component could not be opened: when it is a link, `change` gets what it says. `dir_fd` is the directory it is
 * in. */
static int read_link(int dir_fd, const char *name, walk_change *change)
{
    int saved = errno;
    if (saved != ELOOP && saved != ENOTDIR)
        return -1;
    ssize_t len = readlinkat(dir_fd, name, change->text, sizeof(change->text) - 1);
    if (len < 0) {
        errno = saved;
        return -1;
    }
    change->text[len] = '\0';
    change->is_link = true;
    return WALK_AGAIN;
}

/* ".." stands behind real directories only, because the walk has just been through them: it cancels the component
 * before it. */
static int go_up(bool at_root, size_t previous, size_t end, walk_change *change)
{
    if (at_root) {
        errno = EXDEV;
        return -1;
    }
    *change = (walk_change){.start = previous, .end = end};
    return WALK_AGAIN;
}

/* Opens one component and gives up `dir_fd` for it. */
static int open_component(int root_fd, int dir_fd, const char *name, int flags, walk_change *change)
{
    int fd = openat(dir_fd, name, flags | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        fd = read_link(dir_fd, name, change);
    if (dir_fd != root_fd)
        close_keeping_errno(dir_fd);
    return fd;
}

/* From the root to the end of the path, or to the first link or "..". */
static int walk_once(int root_fd, const char *path, int flags, walk_change *change)
{
    char name[AS_BENEATH_PATH_SIZE];
    int dir_fd = root_fd;
    size_t previous = 0;
    size_t at = 0;
    for (;;) {
        at += strspn(path + at, "/");
        size_t len = strcspn(path + at, "/");
        if (len == 0)
            return open_component(root_fd, dir_fd, ".", flags, change);
        if (len == 2 && memcmp(path + at, "..", 2) == 0) {
            int verdict = go_up(dir_fd == root_fd, previous, at + len, change);
            if (dir_fd != root_fd)
                close_keeping_errno(dir_fd);
            return verdict;
        }
        if (len == 1 && path[at] == '.') {
            at += len;
            continue;
        }
        memcpy(name, path + at, len);
        name[len] = '\0';
        change->start = previous = at;
        at += len;
        change->end = at;
        bool is_last = path[at + strspn(path + at, "/")] == '\0';
        dir_fd = open_component(root_fd, dir_fd, name, is_last ? flags : O_PATH | O_DIRECTORY, change);
        if (dir_fd < 0 || is_last)
            return dir_fd;
    }
}

static int open_by_walk(int root_fd, const char *start, int flags, as_symlinks symlinks)
{
    char path[AS_BENEATH_PATH_SIZE];
    char changed[AS_BENEATH_PATH_SIZE];
    walk_change change;
    int links = 0;
    size_t start_len = strlen(start);
    if (start_len >= sizeof(path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(path, start, start_len + 1);
    for (;;) {
        change.is_link = false;
        int fd = walk_once(root_fd, path, flags, &change);
        if (fd != WALK_AGAIN)
            return fd;
        if (change.is_link && (symlinks == AS_SYMLINKS_DENY || ++links > MAX_LINKS)) {
            errno = ELOOP;
            return -1;
        }
        if (change.is_link && change.text[0] == '/') {
            errno = EXDEV;
            return -1;
        }
        int len =
            snprintf(changed, sizeof(changed), "%.*s%s%s", (int)change.start, path, change.text, path + change.end);
        if (len >= (int)sizeof(changed)) {
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(path, changed, (size_t)len + 1);
    }
}

int as_beneath_open(int root_fd, const char *path, int flags, as_symlinks symlinks)
{
    if (symlinks == AS_SYMLINKS_FOLLOW)
        return openat(root_fd, path, flags | O_CLOEXEC);
    int fd = open_by_kernel(root_fd, path, flags, symlinks);
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM))
        return fd;
    return open_by_walk(root_fd, path, flags, symlinks);
}
