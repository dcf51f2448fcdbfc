/* programs.c: a path is walked until a component with a program's extension is a file. What the spawner then makes of it is the same walk again: between the two
 * the tree may change, and it is the spawner that runs something. */
#include "handler/programs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handler/beneath.h"
#include "handler/file.h"
#include "report/event.h"

typedef struct programs_handler {
    as_handler handler;
    const as_handler *files;
    const as_handler *pool;
    char *root;
    as_symlinks symlinks;
    char *extensions;
    char *index;
    char *fallback;
} programs_handler;

/* What is at a path, or which of the two takes the request. */
typedef enum place {
    NOTHING,
    A_FILE,
    A_FOLDER,
    FORBIDDEN,
    NOT_NOW,
    FOR_POOL,
    FOR_FILES,
} place;

static place look_at(const programs_handler *self, int root_fd, const char *path)
{
    struct stat status;
    int fd = as_beneath_open(root_fd, path, O_PATH, self->symlinks);
    if (fd < 0) {
        switch (errno) {
        case EACCES:
        case EPERM:
        case EXDEV:
        case ELOOP:
            return FORBIDDEN;
        case EMFILE:
        case ENFILE:
        case ENOMEM:
            return NOT_NOW;
        default:
            return NOTHING;
        }
    }
    int failed = fstat(fd, &status);
    close(fd);
    if (failed)
        return NOTHING;
    if (S_ISDIR(status.st_mode))
        return A_FOLDER;
    return S_ISREG(status.st_mode) ? A_FILE : FORBIDDEN;
}

/* The part of the request's path that is looked up, with its leading slash; maybe empty. */
static as_str path_below(const as_request *request)
{
    size_t prefix = request->rule_prefix.len;
    return as_str_of(request->path.ptr + prefix, request->path.len - prefix);
}

/* A program on the way: FOR_POOL; FOR_FILES when there is none. `path` is relative, of `len` bytes, and is used as scratch. */
static place look_for_program(const programs_handler *self, int root_fd, char *path, size_t len)
{
    as_str extensions = as_str_from(self->extensions);
    for (size_t end = 0; end < len; end++) {
        size_t begin = end;
        while (end < len && path[end] != '/')
            end++;
        as_str name = as_str_of(path + begin, end - begin);
        if (!as_programs_has_extension(extensions, name))
            continue;
        char behind = path[end];
        path[end] = '\0';
        place found = look_at(self, root_fd, path);
        path[end] = behind;
        if (found != A_FOLDER)
            return found == A_FILE ? FOR_POOL : found;
    }
    return FOR_FILES;
}

/* `path` ends in a slash or is empty, and has room behind it for a name. */
static place look_for_index(const programs_handler *self, int root_fd, as_request *request, char *path, size_t len)
{
    for (const char *name = self->index; *name != '\0'; name += strlen(name) + 1) {
        size_t name_len = strlen(name);
        if (len + name_len >= AS_BENEATH_PATH_SIZE)
            continue;
        memcpy(path + len, name, name_len + 1);
        place found = look_at(self, root_fd, path);
        if (found == NOTHING || found == A_FOLDER)
            continue;
        if (found != A_FILE)
            return found;
        if (self->files != NULL && !as_programs_has_extension(as_str_from(self->extensions), as_str_from(name)))
            return FOR_FILES;
        request->path = as_arena_printf(&request->arena, "%.*s%s", (int)request->path.len, request->path.ptr, name);
        return FOR_POOL;
    }
    return self->files != NULL ? FOR_FILES : FOR_POOL;
}

/* Whether the fallback answers for `path`, of which `found` is known. Without `files`, the first component that is a file is a program. */
static bool is_for_fallback(const programs_handler *self, int root_fd, char *path, size_t len, place found)
{
    bool is_open = found == FOR_FILES || (found == FOR_POOL && self->files == NULL);
    if (self->fallback[0] == '\0' || !is_open)
        return self->fallback[0] != '\0' && found == NOTHING;
    for (size_t end = 1; end <= len; end++) {
        if (end < len && path[end] != '/')
            continue;
        char behind = path[end];
        path[end] = '\0';
        place there = look_at(self, root_fd, path);
        path[end] = behind;
        if (there != A_FOLDER)
            return there == NOTHING;
    }
    return false;
}

/* Most requests of a site are for files, and those cost no system call here. */
static bool is_plainly_a_file(const programs_handler *self, as_str below)
{
    if (self->files == NULL || self->fallback[0] != '\0' || below.ptr[below.len - 1] == '/')
        return false;
    for (size_t begin = 1, end = 1; begin < below.len; begin = ++end) {
        while (end < below.len && below.ptr[end] != '/')
            end++;
        if (as_programs_has_extension(as_str_from(self->extensions), as_str_of(below.ptr + begin, end - begin)))
            return false;
    }
    return true;
}

static place look(const programs_handler *self, as_request *request)
{
    char path[AS_BENEATH_PATH_SIZE];
    as_str below = path_below(request);
    if (below.len == 0 || below.len - 1 >= sizeof(path) || memchr(below.ptr, '\0', below.len) != NULL)
        return self->files != NULL ? FOR_FILES : FOR_POOL;
    if (is_plainly_a_file(self, below))
        return FOR_FILES;
    size_t len = below.len - 1;
    memcpy(path, below.ptr + 1, len);
    path[len] = '\0';
    int root_fd = open(self->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0) {
        bool is_shortage = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
        as_event_emit(request->home->events, AS_EVENT_ERROR, request->id, -1, 0,
                      "%s: the folder of programs cannot be opened: %m", self->root);
        return is_shortage ? NOT_NOW : FORBIDDEN;
    }
    place found = self->files != NULL ? look_for_program(self, root_fd, path, len) : FOR_FILES;
    if (found == FOR_FILES && (len == 0 || path[len - 1] == '/'))
        found = look_for_index(self, root_fd, request, path, len);
    else if (found == FOR_FILES && self->files == NULL)
        found = FOR_POOL;
    bool is_index = request->path.len != request->rule_prefix.len + below.len;
    path[len] = '\0';
    if (!is_index && is_for_fallback(self, root_fd, path, len, found)) {
        as_str prefix = request->rule_prefix;
        request->path = as_arena_printf(&request->arena, "%.*s%s", (int)prefix.len, prefix.len > 0 ? prefix.ptr : "",
                                        self->fallback);
        found = FOR_POOL;
    }
    close(root_fd);
    return found;
}

/* A file handler looks up the whole path below its root. */
static as_verdict serve_file(const programs_handler *self, as_request *request)
{
    as_str whole = request->path;
    if (request->rule_prefix.len == 0)
        return self->files->ops->handle(self->files, request);
    request->path = path_below(request);
    if (request->path.len == 0) {
        request->path = whole;
        return as_file_redirect_to_folder(request);
    }
    as_verdict verdict = self->files->ops->handle(self->files, request);
    request->path = whole;
    bool is_folder = verdict == AS_VERDICT_RESPOND && request->response.status == 301;
    return is_folder ? as_file_redirect_to_folder(request) : verdict;
}

static as_verdict refuse(as_request *request, uint16_t status)
{
    request->response.status = status;
    return AS_VERDICT_ERROR;
}

static as_verdict handle_programs(const as_handler *base, as_request *request)
{
    const programs_handler *self = (const programs_handler *)base;
    switch (look(self, request)) {
    case FOR_POOL:
        request->handler = self->pool; /* whom the protocol tells when the client leaves */
        return self->pool->ops->handle(self->pool, request);
    case FOR_FILES:
        return serve_file(self, request);
    case FORBIDDEN:
        return refuse(request, 403);
    case NOT_NOW:
        as_request_add_field(request, AS_STR("Retry-After: 1\r\n"));
        return refuse(request, 503);
    default:
        return refuse(request, 404);
    }
}

static bool streams_body(const as_handler *base, const as_request *request)
{
    const as_handler *pool = ((const programs_handler *)base)->pool;
    return pool->ops->streams_body != NULL && pool->ops->streams_body(pool, request);
}

static void free_programs(as_handler *base)
{
    programs_handler *self = (programs_handler *)base;
    as_free(self->root);
    as_free(self->extensions);
    as_free(self->index);
    as_free(self->fallback);
    as_free(self);
}

static const as_handler_ops programs_ops = {
    .name = "programs",
    .wants_body = true,
    .streams_body = streams_body,
    .handle = handle_programs,
    .free = free_programs,
};

as_handler *as_programs_handler_new(const as_programs_options *options)
{
    programs_handler *self = as_alloc(sizeof(*self));
    self->handler.ops = &programs_ops;
    self->files = options->files;
    self->pool = options->pool;
    self->root = as_strdup(as_str_from(options->root));
    self->symlinks = options->symlinks;
    self->fallback = as_strdup(as_str_from(options->fallback));
    self->extensions = as_strdup(as_str_from(options->extensions));
    self->index = as_strdup_list(options->index);
    return &self->handler;
}
