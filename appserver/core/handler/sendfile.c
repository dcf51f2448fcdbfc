/* sendfile.c: the file is served by the static file handler, with its cache, ranges, conditions and confinement; each folder of the configuration has one. */
#include "handler/sendfile.h"

#include <errno.h>
#include <stdio.h>

#include "report/event.h"

#define X_SENDFILE "X-Sendfile"
#define X_ACCEL "X-Accel-Redirect"

typedef struct place {
    as_str prefix; /* of what the application says, without a final '/'; NUL-terminated copy */
    bool is_location;
    as_handler *files;
} place;

struct as_sendfile {
    char *key;
    place *places;
    int places_len;
    bool has_roots;
    bool has_locations;
};

/* Making. */

static as_str without_slash(const char *text)
{
    as_str s = as_str_from(text);
    while (s.len > 0 && s.ptr[s.len - 1] == '/')
        s.len--;
    return s;
}

static bool add_place(as_sendfile *sendfile, const char *prefix, const char *folder, bool is_location,
                      const as_mime *mime)
{
    as_file_options options = {.root = folder, .index = "", .symlinks = AS_SYMLINKS_BENEATH, .mime = mime};
    as_handler *files = as_file_handler_new(&options);
    if (files == NULL)
        return false;
    as_str text = without_slash(prefix);
    size_t size = ((size_t)sendfile->places_len + 1) * sizeof(*sendfile->places);
    sendfile->places = as_realloc(sendfile->places, size);
    sendfile->places[sendfile->places_len++] =
        (place){.prefix = as_str_of(as_strdup(text), text.len), .is_location = is_location, .files = files};
    *(is_location ? &sendfile->has_locations : &sendfile->has_roots) = true;
    return true;
}

static const char *next_of(const char *at)
{
    return at + strlen(at) + 1;
}

as_sendfile *as_sendfile_new(const char *roots, const char *locations, const char *key, const as_mime *mime,
                             const char **bad)
{
    as_sendfile *sendfile = as_alloc(sizeof(*sendfile));
    sendfile->key = as_strdup(as_str_from(key));
    *bad = NULL;
    for (const char *at = roots; *at != '\0' && *bad == NULL; at = next_of(at)) {
        if (!add_place(sendfile, at, at, false, mime))
            *bad = at;
    }
    for (const char *at = locations; *at != '\0' && *bad == NULL; at = next_of(next_of(at))) {
        if (!add_place(sendfile, at, next_of(at), true, mime))
            *bad = next_of(at);
    }
    if (*bad == NULL)
        return sendfile;
    int saved = errno;
    as_sendfile_free(sendfile);
    errno = saved;
    return NULL;
}

void as_sendfile_free(as_sendfile *sendfile)
{
    if (sendfile == NULL)
        return;
    for (int i = 0; i < sendfile->places_len; i++) {
        sendfile->places[i].files->ops->free(sendfile->places[i].files);
        as_free((char *)sendfile->places[i].prefix.ptr);
    }
    as_free(sendfile->places);
    as_free(sendfile->key);
    as_free(sendfile);
}

/* Field lines, as the core has made them: "Name: value\r\n". */

static as_str take_line(as_str *rest)
{
    const char *lf = memchr(rest->ptr, '\n', rest->len);
    size_t len = (size_t)(lf - rest->ptr) + 1;
    as_str line = as_str_of(rest->ptr, len);
    *rest = as_str_of(rest->ptr + len, rest->len - len);
    return line;
}

static as_str name_of(as_str line)
{
    return as_str_of(line.ptr, (size_t)((const char *)memchr(line.ptr, ':', line.len) - line.ptr));
}

static bool is_named(as_str line, as_str name)
{
    return as_str_equal_nocase(name_of(line), name);
}

static as_str value_of(as_str line)
{
    as_str value = as_str_of(line.ptr + name_of(line).len + 1, line.len - name_of(line).len - 3);
    while (value.len > 0 && (value.ptr[0] == ' ' || value.ptr[0] == '\t'))
        value = as_str_of(value.ptr + 1, value.len - 1);
    while (value.len > 0 && (value.ptr[value.len - 1] == ' ' || value.ptr[value.len - 1] == '\t'))
        value.len--;
    return value;
}

/* The first line of that name; ptr NULL when there is none. */
static as_str find_line(as_str fields, as_str name)
{
    while (fields.len > 0) {
        as_str line = take_line(&fields);
        if (is_named(line, name))
            return line;
    }
    return AS_STR_NONE;
}

/* The line that says which file; `*is_location` which of the two it is. */
static as_str naming_line(const as_sendfile *sendfile, as_str fields, bool *is_location)
{
    as_str line = sendfile->has_roots ? find_line(fields, AS_STR(X_SENDFILE)) : AS_STR_NONE;
    *is_location = line.ptr == NULL;
    return line.ptr != NULL || !sendfile->has_locations ? line : find_line(fields, AS_STR(X_ACCEL));
}

bool as_sendfile_is_named(const as_sendfile *sendfile, const as_request *request)
{
    bool is_location;
    return sendfile != NULL && naming_line(sendfile, request->response.fields, &is_location).ptr != NULL;
}

/* Answering. */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A location is part of a URL: percent escapes are decoded, and a query is not part of it. ptr NULL when it is none. */
static as_str decode(as_arena *arena, as_str text)
{
    char *out = as_arena_alloc(arena, text.len + 1);
    size_t len = 0;
    for (size_t i = 0; i < text.len && text.ptr[i] != '?'; i++) {
        char c = text.ptr[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex_digit(text.ptr[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_digit(text.ptr[i + 2]) : -1;
            if (high < 0 || low < 0)
                return AS_STR_NONE;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (c == '\0')
            return AS_STR_NONE;
        out[len++] = c;
    }
    out[len] = '\0';
    return as_str_of(out, len);
}

/* The longest prefix wins. */
static const place *find_place(const as_sendfile *sendfile, as_str path, bool is_location)
{
    const place *found = NULL;
    for (int i = 0; i < sendfile->places_len; i++) {
        const place *each = &sendfile->places[i];
        if (each->is_location == is_location && as_str_starts(path, each->prefix) && path.len > each->prefix.len &&
            path.ptr[each->prefix.len] == '/' && (found == NULL || each->prefix.len > found->prefix.len))
            found = each;
    }
    return found;
}

static void refuse(const as_sendfile *sendfile, as_request *request, int pool, as_str line, int status, const char *why)
{
    as_event_emit(request->home->events, AS_EVENT_ERROR, request->id, pool, 0, "%d for %.*s: %.*s: %s %s", status,
                  (int)request->path.len, request->path.ptr, (int)(line.len - 2), line.ptr, why, sendfile->key);
    as_request_error(request, status, NULL);
}

/* The application's fields without those that were for us, and of the file's what the application does not say itself. */
static as_str merge_fields(as_arena *arena, as_str theirs, as_str files)
{
    char *out = as_arena_alloc(arena, theirs.len + files.len);
    size_t len = 0;
    for (as_str rest = theirs; rest.len > 0;) {
        as_str line = take_line(&rest);
        if (is_named(line, AS_STR(X_SENDFILE)) || is_named(line, AS_STR(X_ACCEL)))
            continue;
        memcpy(out + len, line.ptr, line.len);
        len += line.len;
    }
    for (as_str rest = files; rest.len > 0;) {
        as_str line = take_line(&rest);
        if (find_line(theirs, name_of(line)).ptr != NULL)
            continue;
        memcpy(out + len, line.ptr, line.len);
        len += line.len;
    }
    return as_str_of(out, len);
}

void as_sendfile_respond(const as_sendfile *sendfile, as_request *request, int pool)
{
    bool is_location;
    as_response theirs = request->response;
    as_str fields = theirs.fields; /* in the arena, which the caller has seen to */
    as_str line = naming_line(sendfile, fields, &is_location);
    as_str path = value_of(line);
    if (is_location)
        path = decode(&request->arena, path);
    const place *where = path.ptr == NULL ? NULL : find_place(sendfile, path, is_location);
    if (where == NULL) {
        refuse(sendfile, request, pool, line, 403,
               is_location ? "no prefix fits; set locations in" : "it is below none of the folders; set roots in");
        return;
    }
    as_str client_path = request->path;
    request->path =
        as_arena_printf(&request->arena, "%.*s", (int)(path.len - where->prefix.len), path.ptr + where->prefix.len);
    as_verdict verdict = as_file_respond(where->files, request, theirs.status);
    request->path = client_path;
    if (verdict != AS_VERDICT_RESPOND) {
        int status = request->response.status;
        request->response = (as_response){.body.fd = -1};
        if (status == 403)
            refuse(sendfile, request, pool, line, status, "it may not be read, or a link leads out of the folders of");
        else
            as_request_error(request, status,
                             status == 404 ? "the file that the application named is not there" : NULL);
        return;
    }
    as_response *response = &request->response;
    response->fields = merge_fields(&request->arena, fields, response->fields);
    response->reason = response->status == theirs.status ? theirs.reason : AS_STR_NONE;
    response->has_date = theirs.has_date;
    response->has_server = theirs.has_server;
    as_request_respond(request);
}
