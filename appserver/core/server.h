/* server.h: the server as a whole: loops, listeners, pools, snapshots. The fenced part is the border to Python (appserver/native).
 *
 * Threads: every function is for one control thread, except where it says "any thread". C never calls Python. Functions that can fail return 0 (or an
 * index) or a negative as_err, or NULL; as_server_problem() then has one sentence. Strings are NUL-terminated and copied. File descriptors
 * stay the caller's unless it says "taken". */
#ifndef AS_SERVER_H
#define AS_SERVER_H

#include "base/error.h"
#include "http/limits.h"
#include "net/tuning.h"
#include "report/event.h"
#include "report/incident.h"

/* >>> cdef */
typedef struct as_server as_server;
typedef struct as_snapshot as_snapshot;

typedef struct as_pool_settings {
    const char *name;
    uint32_t queue_limit, queue_time_ms, request_time_ms, idle_time_ms;
    uint64_t output_limit;
    int retry; /* 0 never, 1 idempotent requests, 2 always */
    int cancel;
    int finishes;
    uint32_t quarantine_ms;
} as_pool_settings;

/* A server with `loops` loops (1 .. 64), not yet running. `generation` goes into request ids. `event_fd`: an eventfd that is written when as_server_next_event()
 * has something. NULL: as_server_problem(). */
as_server *as_server_new(int loops, uint32_t generation, int event_fd);
/* Why the last call on this thread failed: one sentence, valid until the next call. */
const char *as_server_problem(void);

/* Starts or replaces a pool; `index` counts from 0 without gaps. `answer_fds`: one for each loop, taken. queue_fd and slots_fd: duplicated. May be called while the
 * server runs; a pool that exists already gets the new settings and the descriptors are then ignored (and closed when taken). */
int as_server_set_pool(as_server *server, int index, const as_pool_settings *settings, int queue_fd, int slots_fd,
                       const int *answer_fds);
/* What the pool's executors are good for: `capacity` requests held by all of them, `at_once` of these running at the same time; `stream_bodies`: they take large request bodies
 * while they come; `upgrades`: they take upgrades. Until the first of these one request, no streams and no upgrades. */
int as_server_set_capacity(as_server *server, int pool, uint32_t capacity, uint32_t at_once, int stream_bodies,
                           int upgrades);
/* `expected`: it had been told to go. */
int as_server_executor_died(as_server *server, int pool, uint32_t executor, int expected);

/* How the loops share listening sockets: 0 self-managed (also without this call), 1 coordinator, 2 independent, 3 a socket for each loop. Before the first
 * listener. */
int as_server_set_accept(as_server *server, int mode);
/* Listening socket `fd`, duplicated. While running: the loops begin with it at once. */
int as_server_add_listener(as_server *server, int fd);
/* Likewise one socket for each loop (SO_REUSEPORT); the first one names them all. */
int as_server_add_listeners(as_server *server, const int *fds);
/* Stops accepting on the listener that was added with this fd. */
int as_server_remove_listener(as_server *server, int fd);

/* format: 0 off, 1 combined, 2 json. `fd` is duplicated; also for reopening. */
int as_server_set_access_log(as_server *server, int fd, int format);

/* The configuration that new requests see. The server takes the snapshot; earlier ones go when their last request has ended. */
int as_server_apply(as_server *server, as_snapshot *snapshot);

/* Starts the threads; as_server_apply() must have been called. */
int as_server_start(as_server *server);
/* Stops accepting, closes idle connections, lets the others finish their requests; each loop then reports event 6. */
int as_server_drain(as_server *server);
/* Cuts what is left, joins the threads, frees everything. */
void as_server_free(as_server *server);

/* 1 when `event` was filled in. */
int as_server_next_event(as_server *server, as_event *event);
/* Likewise; its descriptor is then the caller's. */
int as_server_next_incident(as_server *server, as_incident *incident);
/* The sums over all loops, in the order of as_counter_name(); any thread. Returns how many there are (at most `len` are written). */
int as_server_counters(as_server *server, uint64_t *values, int len);
const char *as_counter_name(int index);

/* The number under which the metrics know these three; the same names have the same one. At most 1023 for the server's life, then 0. */
uint32_t as_server_add_route(as_server *server, const char *site, const char *route, const char *handler);
/* Samples that the metrics have besides their own, in their format, in place of those before; at most 128 KiB. */
int as_server_tell_metrics(as_server *server, const char *text, size_t len);

/* A snapshot under construction. Index results count from 0. */
as_snapshot *as_snapshot_new(const as_limits *limits, const char *server_software, const char *spool_directory);
void as_snapshot_free(as_snapshot *snapshot); /* only one that was never applied */
int as_snapshot_set_cache(as_snapshot *snapshot, uint64_t bytes, uint32_t entries, uint32_t file_size,
                          uint32_t revalidate_ms, int recent);
int as_snapshot_set_tuning(as_snapshot *snapshot, const as_tuning *tuning);
/* `replaces`: whether it goes before one that is there. */
int as_snapshot_add_type(as_snapshot *snapshot, const char *extension, const char *type, int replaces);
/* Handlers: the index of the new handler, or a negative as_err. `index_names`: NUL-separated, ended by an empty name. symlinks: 0 beneath, 1 deny, 2 follow.
 * `prefix`: what is taken from a path before it is looked up, or empty. `codings`: compressed neighbours that are looked for: 0 br, 1 zstd, 2 gzip. `fallback`: path of the page for what does not exist, or empty. */
int as_snapshot_add_file(as_snapshot *snapshot, const char *root, const char *prefix, const char *index_names,
                         int symlinks, const uint8_t *codings, int codings_len, const char *fallback);
/* `extra`: environment block of `extra_len` bytes. */
int as_snapshot_add_pool(as_snapshot *snapshot, int pool, int mounted, const char *extra, size_t extra_len,
                         const char *document_root);
/* What of a request goes to the executors of pool handler `handler`: its credentials; and, of a pool of programs, large bodies while they come. */
int as_snapshot_set_passing(as_snapshot *snapshot, int handler, int authorization, int stream_bodies);
/* Files that the application behind pool handler `handler` may name (handler/sendfile.h). */
int as_snapshot_set_sendfile(as_snapshot *snapshot, int handler, const char *roots, const char *locations,
                             const char *key);
int as_snapshot_add_redirect(as_snapshot *snapshot, int status, const char *location);
int as_snapshot_add_respond(as_snapshot *snapshot, int status, const char *content_type, const char *body,
                            size_t body_len);
/* Asks handler `first` (files), and `second` for what that has not. */
int as_snapshot_add_otherwise(as_snapshot *snapshot, int first, int second);
/* CGI programs below `root`, run by the handler `pool`, among files of the handler `files` (-1: everything is a program); handler/programs.h. `extensions`: ".a,.b";
 * `symlinks`, `index_names`: as for files; `fallback`: path of the program for what does not exist, or empty. */
int as_snapshot_add_programs(as_snapshot *snapshot, int files, int pool, const char *root, int symlinks,
                             const char *extensions, const char *index_names, const char *fallback);
/* what: 0 live, 1 ready */
int as_snapshot_add_health(as_snapshot *snapshot, int what);
int as_snapshot_add_metrics(as_snapshot *snapshot);
/* `fallback`: handler index or -1. `route`, here and below: a number of as_server_add_route(); 0 for none. */
int as_snapshot_add_site(as_snapshot *snapshot, const char *name, int fallback, uint32_t route);
/* "example.org", "*.example.org", or "*" for the default site (the first site is the default when none says so). */
int as_snapshot_add_host(as_snapshot *snapshot, int site, const char *pattern);
/* path: NULL for any, "/exact" or "/prefix/" + "*". extensions, methods: NUL-separated, ended by an empty one; empty for any. */
int as_snapshot_add_rule(as_snapshot *snapshot, int site, const char *path, const char *extensions, const char *methods,
                         int handler, uint32_t route);
int as_snapshot_add_error_page(as_snapshot *snapshot, int site, int status, const char *path);
/* Whether the server counts as ready (the readiness path answers 200, else 503); any thread. */
void as_server_set_ready(as_server *server, int ready);
/* <<< cdef */

#endif
