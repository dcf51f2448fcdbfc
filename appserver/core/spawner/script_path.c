/* script_path.c: the final split of a request's path into SCRIPT_NAME and PATH_INFO.
 *
 * Nearly every request names its program with no path behind it, so the whole path is tried first: one look decides between program, directory and
 * nothing. Only when the kernel says that something on the way is no directory (ENOTDIR) are the components tried one by one. Each try starts at the
 * root again, so that a link inside the tree may lead anywhere in it, also upwards. */
#include "spawner/script_path.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handler/beneath.h"

/* AS_OK: a regular file; AS_EAGAIN: a directory; AS_EINVALID: something on the way is no directory; else as as_script_find(). */
static int look_at(int root_fd, const char *path, as_symlinks symlinks, as_script *script)
{
    int fd = as_beneath_open(root_fd, path, O_PATH, symlinks);
    if (fd < 0) {
        switch (errno) {
        case ENOTDIR:
        case ENAMETOOLONG:
            return AS_EINVALID;
        case EACCES:
        case EXDEV:
        case ELOOP:
            return AS_EFORBIDDEN;
        case EMFILE:
        case ENFILE:
        case ENOMEM:
            return AS_ESYSTEM;
        default:
            return AS_ENOTFOUND;
        }
    }
    struct stat info;
    int failed = fstat(fd, &info);
    close(fd);
    if (failed)
        return AS_ENOTFOUND;
    script->mode = info.st_mode;
    script->mark = as_file_mark_of(&info);
    if (S_ISDIR(info.st_mode))
        return AS_EAGAIN;
    if (S_ISREG(info.st_mode))
        return AS_OK;
    errno = ENOTSUP;
    return AS_EFORBIDDEN;
}

static bool has_hidden_component(const char *path, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (path[i] == '.' && (i == 0 || path[i - 1] == '/'))
            return true;
    }
    return false;
}

/* PATH_TRANSLATED is made of the rest, and programs open it: it must not lead upwards. */
static bool leads_up(const char *rest)
{
    for (const char *at = strstr(rest, ".."); at != NULL; at = strstr(at + 1, "..")) {
        if (at > rest && at[-1] == '/' && (at[2] == '/' || at[2] == '\0'))
            return true;
    }
    return false;
}

/* Component by component; `end` is where the program's name ends. */
static int walk(int root_fd, const char *path, as_symlinks symlinks, as_script *script, size_t *end)
{
    char prefix[AS_BENEATH_PATH_SIZE];
    size_t at = 0;
    for (int depth = 0; depth < AS_SCRIPT_MAX_DEPTH; depth++) {
        at += strspn(path + at, "/");
        size_t len = strcspn(path + at, "/");
        if (len == 0 || path[at] == '.' || at + len >= sizeof(prefix))
            return AS_ENOTFOUND;
        at += len;
        memcpy(prefix, path, at);
        prefix[at] = '\0';
        *end = at;
        int verdict = look_at(root_fd, prefix, symlinks, script);
        if (verdict != AS_EAGAIN)
            return verdict == AS_EINVALID ? AS_ENOTFOUND : verdict;
    }
    return AS_ENOTFOUND;
}

static int find_below(int root_fd, const char *path, as_symlinks symlinks, as_script *script, size_t *end)
{
    if (path[0] == '\0') {
        errno = 0;
        return AS_EFORBIDDEN;
    }
    *end = strlen(path);
    int verdict = look_at(root_fd, path, symlinks, script);
    if (verdict == AS_EINVALID)
        verdict = walk(root_fd, path, symlinks, script, end);
    if ((verdict == AS_OK || verdict == AS_EAGAIN) && has_hidden_component(path, *end))
        return AS_ENOTFOUND;
    if (verdict == AS_EAGAIN) {
        errno = 0;
        return AS_EFORBIDDEN;
    }
    return verdict == AS_OK && leads_up(path + *end) ? AS_ENOTFOUND : verdict;
}

int as_script_find(const char *root, const char *path, as_symlinks symlinks, as_script *script)
{
    int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return AS_ESYSTEM;
    const char *relative = path + strspn(path, "/");
    size_t end = 0;
    int verdict = find_below(root_fd, relative, symlinks, script, &end);
    int saved = errno;
    close(root_fd);
    errno = saved;
    if (verdict != AS_OK)
        return verdict;
    /* Of several leading slashes the last one is the name's: SCRIPT_NAME is the rule's prefix and this. */
    const char *name = relative > path ? relative - 1 : relative;
    script->name = as_str_of(name, (size_t)(relative + end - name));
    script->path_info = as_str_from(relative + end);
    return AS_OK;
}

const char *as_script_interpreter(const char *table, as_str name)
{
    while (table[0] != '\0') {
        const char *interpreter = table + strlen(table) + 1;
        if (as_str_ends(name, as_str_from(table)))
            return interpreter;
        table = interpreter + strlen(interpreter) + 1;
    }
    return NULL;
}
