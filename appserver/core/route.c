/* route.c: from Host and path to a handler: site by host, then the first rule that matches. */
#include "snapshot.h"

static as_str host_name(as_str host)
{
    if (host.len > 0 && host.ptr[0] == '[') {
        const char *end = memchr(host.ptr, ']', host.len);
        return end == NULL ? host : as_str_of(host.ptr, (size_t)(end - host.ptr) + 1);
    }
    const char *colon = host.len > 0 ? memchr(host.ptr, ':', host.len) : NULL;
    size_t len = colon == NULL ? host.len : (size_t)(colon - host.ptr);
    /* "example.org." is the same host, written absolutely. */
    return as_str_of(host.ptr, len > 1 && host.ptr[len - 1] == '.' ? len - 1 : len);
}

/* Exact names win over wildcards, longer wildcards over shorter ones, whatever their order. */
static const struct as_site *find_site(const as_snapshot *snapshot, as_str host)
{
    as_str name = host_name(host);
    int best = snapshot->default_site;
    size_t best_len = 0;
    for (int i = 0; i < snapshot->hosts_len && name.len > 0; i++) {
        const as_host *candidate = &snapshot->hosts[i];
        if (!candidate->wildcard) {
            if (as_str_equal_nocase(candidate->pattern, name))
                return &snapshot->sites[candidate->site];
        } else if (name.len > candidate->pattern.len && candidate->pattern.len > best_len &&
                   as_str_equal_nocase(as_str_of(name.ptr + name.len - candidate->pattern.len, candidate->pattern.len),
                                       candidate->pattern)) {
            best = candidate->site;
            best_len = candidate->pattern.len;
        }
    }
    return best >= 0 ? &snapshot->sites[best] : NULL;
}

static bool in_list(const char *list, as_str word, bool any_case)
{
    for (const char *item = list; *item != '\0'; item += strlen(item) + 1) {
        as_str candidate = as_str_from(item);
        if (any_case ? as_str_equal_nocase(candidate, word) : as_str_equal(candidate, word))
            return true;
    }
    return false;
}

static as_str extension_of(as_str path)
{
    const char *slash = memrchr(path.ptr, '/', path.len);
    const char *dot = memrchr(path.ptr, '.', path.len);
    if (dot == NULL || (slash != NULL && dot < slash))
        return AS_STR_NONE;
    return as_str_of(dot + 1, (size_t)(path.ptr + path.len - dot) - 1);
}

static bool path_matches(const as_rule *rule, as_str path)
{
    if (!rule->prefix)
        return rule->path.len == 0 || as_str_equal(path, rule->path);
    return as_str_starts(path, rule->path) && (path.len == rule->path.len || path.ptr[rule->path.len] == '/');
}

static bool matches(const as_rule *rule, const as_request *request)
{
    if (!path_matches(rule, request->path))
        return false;
    if (rule->methods != NULL && !in_list(rule->methods, request->head.method_text, false))
        return false;
    return rule->extensions == NULL || in_list(rule->extensions, extension_of(request->path), true);
}

void as_snapshot_route(as_request *request)
{
    const as_snapshot *snapshot = request->epoch->snapshot;
    const struct as_site *site = find_site(snapshot, request->head.host);
    request->site = site;
    request->handler = NULL;
    request->rule_prefix = AS_STR_NONE;
    if (site == NULL)
        return;
    request->route = site->route;
    for (int i = 0; i < site->rules_len; i++) {
        const as_rule *rule = &site->rules[i];
        if (matches(rule, request)) {
            request->rule_prefix = rule->prefix ? rule->path : AS_STR_NONE;
            request->handler = snapshot->handlers[rule->handler];
            request->route = rule->route;
            return;
        }
    }
    if (site->fallback >= 0)
        request->handler = snapshot->handlers[site->fallback];
}

const as_handler *as_snapshot_error_page(as_request *request, int status)
{
    const as_snapshot *snapshot = request->epoch->snapshot;
    const struct as_site *site = request->site;
    if (site == NULL || site->fallback < 0)
        return NULL;
    for (int i = 0; i < site->error_pages_len; i++) {
        if (site->error_pages[i].status == status) {
            request->path = site->error_pages[i].path;
            return snapshot->handlers[site->fallback];
        }
    }
    return NULL;
}
