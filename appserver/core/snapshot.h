/* snapshot.h: one configuration, built by the control thread, read by the loops, never changed after it was applied. */
#ifndef AS_SNAPSHOT_H
#define AS_SNAPSHOT_H

#include "handler/file.h"
#include "handler/mime.h"
#include "http/request.h"
#include "server.h"

typedef struct as_rule {
    as_str path; /* NUL-terminated copy; len 0: any. For a prefix rule without the final "/" and "*" */
    bool prefix;
    char *extensions; /* NUL-separated, ended by an empty one; NULL: any */
    char *methods;
    int handler;
    uint32_t route; /* its number in the metrics */
} as_rule;

struct as_site {
    char *name;
    int fallback;   /* handler or -1 */
    uint32_t route; /* of requests that no rule matches */
    as_rule *rules;
    int rules_len;
    struct as_error_page {
        int status;
        as_str path;
    } *error_pages;
    int error_pages_len;
};

typedef struct as_host {
    as_str pattern; /* lower case; of "*.example.org" the part from the dot */
    bool wildcard;
    int site;
} as_host;

struct as_snapshot {
    uint32_t references; /* atomic: one for each loop that uses it */
    as_limits limits;
    as_tuning tuning;
    char *server_software;
    char *spool_directory;
    as_file_cache_options cache;
    as_mime *mime;
    as_handler **handlers;
    int handlers_len;
    struct as_site *sites;
    int sites_len;
    as_host *hosts;
    int hosts_len;
    int default_site;
    int ready; /* what the readiness path says; written by the control thread, read atomically */
};

/* as_epoch's functions. Loop thread. */
void as_snapshot_route(as_request *request);
const as_handler *as_snapshot_error_page(as_request *request, int status);

/* Any thread: one reference less; frees with the last. */
void as_snapshot_release(as_snapshot *snapshot);

#endif
