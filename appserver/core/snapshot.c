#include "snapshot.h"

#include <ctype.h>
#include <errno.h>

#include "handler/metrics.h"
#include "handler/otherwise.h"
#include "handler/pool.h"
#include "handler/programs.h"
#include "handler/respond.h"
#include "handler/sendfile.h"
#include "problem.h"

as_snapshot *as_snapshot_new(const as_limits *limits, const char *server_software, const char *spool_directory)
{
    as_snapshot *snapshot = as_alloc(sizeof(*snapshot));
    snapshot->limits = *limits;
    snapshot->server_software = as_strdup(as_str_from(server_software));
    snapshot->spool_directory = as_strdup(as_str_from(spool_directory));
    snapshot->mime = as_mime_new();
    snapshot->default_site = -1;
    return snapshot;
}

static void free_site(struct as_site *site)
{
    for (int i = 0; i < site->rules_len; i++) {
        as_free((char *)site->rules[i].path.ptr);
        as_free(site->rules[i].extensions);
        as_free(site->rules[i].methods);
    }
    for (int i = 0; i < site->error_pages_len; i++)
        as_free((char *)site->error_pages[i].path.ptr);
    as_free(site->rules);
    as_free(site->error_pages);
    as_free(site->name);
}

void as_snapshot_free(as_snapshot *snapshot)
{
    assert(snapshot->references == 0);
    for (int i = 0; i < snapshot->handlers_len; i++)
        snapshot->handlers[i]->ops->free(snapshot->handlers[i]);
    for (int i = 0; i < snapshot->sites_len; i++)
        free_site(&snapshot->sites[i]);
    for (int i = 0; i < snapshot->hosts_len; i++)
        as_free((char *)snapshot->hosts[i].pattern.ptr);
    as_free(snapshot->handlers);
    as_free(snapshot->sites);
    as_free(snapshot->hosts);
    as_mime_free(snapshot->mime);
    as_free(snapshot->server_software);
    as_free(snapshot->spool_directory);
    as_free(snapshot);
}

void as_snapshot_release(as_snapshot *snapshot)
{
    if (__atomic_sub_fetch(&snapshot->references, 1, __ATOMIC_ACQ_REL) == 0)
        as_snapshot_free(snapshot);
}

/* Room for one more in an array that doubles; builders are called a few hundred times at most. */
static void *grow(void *array, int len, size_t size)
{
    if (len > 0 && (len & (len - 1)) != 0)
        return array;
    return as_realloc(array, (size_t)(len == 0 ? 1 : len * 2) * size);
}

static as_str copy_of(const char *text)
{
    as_str s = as_str_from(text);
    return as_str_of(as_strdup(s), s.len);
}

/* A list of strings that are separated by NUL and ended by an empty one; NULL when it is empty. */
static char *copy_list(const char *list)
{
    return list == NULL || list[0] == '\0' ? NULL : as_strdup_list(list);
}

int as_snapshot_set_cache(as_snapshot *snapshot, uint64_t bytes, uint32_t entries, uint32_t file_size,
                          uint32_t revalidate_ms, int recent)
{
    snapshot->cache = (as_file_cache_options){.bytes = bytes,
                                              .entries = entries,
                                              .file_size = file_size,
                                              .revalidate_ms = revalidate_ms,
                                              .recent = recent != 0};
    return AS_OK;
}

int as_snapshot_set_tuning(as_snapshot *snapshot, const as_tuning *tuning)
{
    if (tuning->cork > AS_CORK_OFF)
        return as_problem(AS_EINVALID, "there is no way %d of holding back a head", tuning->cork);
    snapshot->tuning = *tuning;
    return AS_OK;
}

int as_snapshot_add_type(as_snapshot *snapshot, const char *extension, const char *type, int replaces)
{
    if (!replaces && as_mime_has(snapshot->mime, as_str_from(extension)))
        return AS_OK;
    as_mime_set(snapshot->mime, as_str_from(extension), as_str_from(type));
    return AS_OK;
}

static int add_handler(as_snapshot *snapshot, as_handler *handler)
{
    snapshot->handlers = grow(snapshot->handlers, snapshot->handlers_len, sizeof(*snapshot->handlers));
    snapshot->handlers[snapshot->handlers_len] = handler;
    return snapshot->handlers_len++;
}

int as_snapshot_add_file(as_snapshot *snapshot, const char *root, const char *prefix, const char *index_names,
                         int symlinks, const uint8_t *codings, int codings_len, const char *fallback)
{
    as_file_options options = {
        .root = root,
        .prefix = prefix,
        .index = index_names,
        .symlinks = (as_symlinks)symlinks,
        .codings = codings,
        .codings_len = codings_len,
        .fallback = fallback,
        .mime = snapshot->mime,
    };
    as_handler *handler = as_file_handler_new(&options);
    if (handler == NULL)
        return as_problem_system("the directory %s cannot be opened", root);
    return add_handler(snapshot, handler);
}

int as_snapshot_add_pool(as_snapshot *snapshot, int pool, int mounted, const char *extra, size_t extra_len,
                         const char *document_root)
{
    as_pool_handler_options options = {
        .pool = pool,
        .mounted = mounted != 0,
        .extra = as_str_of(extra, extra_len),
        .server_software = snapshot->server_software,
        .document_root = document_root,
    };
    return add_handler(snapshot, as_pool_handler_new(&options));
}

int as_snapshot_set_passing(as_snapshot *snapshot, int handler, int authorization, int stream_bodies)
{
    as_pool_handler_set_passing(snapshot->handlers[handler], authorization != 0, stream_bodies != 0);
    return AS_OK;
}

int as_snapshot_set_sendfile(as_snapshot *snapshot, int handler, const char *roots, const char *locations,
                             const char *key)
{
    const char *bad;
    as_sendfile *sendfile = as_sendfile_new(roots, locations, key, snapshot->mime, &bad);
    if (sendfile == NULL)
        return as_problem_system("%s: the folder %s cannot be opened", key, bad);
    as_pool_handler_set_sendfile(snapshot->handlers[handler], sendfile);
    return AS_OK;
}

int as_snapshot_add_redirect(as_snapshot *snapshot, int status, const char *location)
{
    return add_handler(snapshot, as_redirect_handler_new(status, location));
}

int as_snapshot_add_respond(as_snapshot *snapshot, int status, const char *content_type, const char *body,
                            size_t body_len)
{
    return add_handler(snapshot, as_respond_handler_new(status, content_type, as_str_of(body, body_len)));
}

int as_snapshot_add_health(as_snapshot *snapshot, int what)
{
    return add_handler(snapshot, as_health_handler_new(what == 1 ? &snapshot->ready : NULL));
}

static bool has_handler(const as_snapshot *snapshot, int index)
{
    return index >= 0 && index < snapshot->handlers_len;
}

int as_snapshot_add_otherwise(as_snapshot *snapshot, int first, int second)
{
    if (!has_handler(snapshot, first) || !has_handler(snapshot, second))
        return as_problem(AS_EINVALID, "handlers %d and %d are not both there", first, second);
    return add_handler(snapshot, as_otherwise_handler_new(snapshot->handlers[first], snapshot->handlers[second]));
}

int as_snapshot_add_programs(as_snapshot *snapshot, int files, int pool, const char *root, int symlinks,
                             const char *extensions, const char *index_names, const char *fallback)
{
    if ((files >= 0 && !has_handler(snapshot, files)) || !has_handler(snapshot, pool))
        return as_problem(AS_EINVALID, "handlers %d and %d are not both there", files, pool);
    const as_programs_options options = {
        .files = files < 0 ? NULL : snapshot->handlers[files],
        .pool = snapshot->handlers[pool],
        .root = root,
        .symlinks = (as_symlinks)symlinks,
        .extensions = extensions,
        .index = index_names,
        .fallback = fallback,
    };
    return add_handler(snapshot, as_programs_handler_new(&options));
}

int as_snapshot_add_site(as_snapshot *snapshot, const char *name, int fallback, uint32_t route)
{
    if (fallback >= snapshot->handlers_len)
        return as_problem(AS_EINVALID, "site %s: there is no handler %d", name, fallback);
    snapshot->sites = grow(snapshot->sites, snapshot->sites_len, sizeof(*snapshot->sites));
    snapshot->sites[snapshot->sites_len] = (struct as_site){
        .name = as_strdup(as_str_from(name)), .fallback = fallback < 0 ? -1 : fallback, .route = route};
    if (snapshot->default_site < 0)
        snapshot->default_site = 0;
    return snapshot->sites_len++;
}

int as_snapshot_add_metrics(as_snapshot *snapshot)
{
    return add_handler(snapshot, as_metrics_handler_new());
}

static struct as_site *site_at(as_snapshot *snapshot, int site)
{
    return site >= 0 && site < snapshot->sites_len ? &snapshot->sites[site] : NULL;
}

int as_snapshot_add_host(as_snapshot *snapshot, int site, const char *pattern)
{
    if (site_at(snapshot, site) == NULL)
        return as_problem(AS_EINVALID, "there is no site %d", site);
    if (strcmp(pattern, "*") == 0) {
        snapshot->default_site = site;
        return AS_OK;
    }
    bool wildcard = pattern[0] == '*' && pattern[1] == '.';
    as_str copy = copy_of(wildcard ? pattern + 1 : pattern);
    for (size_t i = 0; i < copy.len; i++)
        ((char *)copy.ptr)[i] = (char)tolower((unsigned char)copy.ptr[i]);
    snapshot->hosts = grow(snapshot->hosts, snapshot->hosts_len, sizeof(*snapshot->hosts));
    snapshot->hosts[snapshot->hosts_len++] = (as_host){.pattern = copy, .wildcard = wildcard, .site = site};
    return AS_OK;
}

int as_snapshot_add_rule(as_snapshot *snapshot, int site, const char *path, const char *extensions, const char *methods,
                         int handler, uint32_t route)
{
    struct as_site *where = site_at(snapshot, site);
    if (where == NULL || !has_handler(snapshot, handler))
        return as_problem(AS_EINVALID, "a rule names site %d and handler %d, which are not both there", site, handler);
    as_str pattern = path == NULL ? AS_STR_NONE : as_str_from(path);
    bool prefix = as_str_ends(pattern, AS_STR("/*"));
    if (prefix)
        pattern.len -= 2;
    where->rules = grow(where->rules, where->rules_len, sizeof(*where->rules));
    where->rules[where->rules_len] = (as_rule){
        .path = as_str_of(as_strdup(pattern), pattern.len),
        .prefix = prefix,
        .extensions = copy_list(extensions),
        .methods = copy_list(methods),
        .handler = handler,
        .route = route,
    };
    return where->rules_len++;
}

int as_snapshot_add_error_page(as_snapshot *snapshot, int site, int status, const char *path)
{
    struct as_site *where = site_at(snapshot, site);
    if (where == NULL)
        return as_problem(AS_EINVALID, "there is no site %d", site);
    where->error_pages = grow(where->error_pages, where->error_pages_len, sizeof(*where->error_pages));
    where->error_pages[where->error_pages_len++] = (struct as_error_page){.status = status, .path = copy_of(path)};
    return AS_OK;
}
