/* metrics.h: the counters of all loops as one text in the Prometheus exposition format 0.0.4.
 *
 * Which routes and pools there are the control thread says; names are added, never taken away, so that a number is one thing for the server's life. Loops
 * count into arrays of their own and never wait for each other; whoever wants the text sums up. Label values come from the configuration alone. */
#ifndef AS_REPORT_METRICS_H
#define AS_REPORT_METRICS_H

#include "base/buf.h"
#include "report/counters.h"
#include "report/incident.h"

enum {
    AS_METRICS_ROUTES = 1024, /* over all configurations since the start; further ones are counted with route 0 */
    AS_METRICS_POOLS = 256,
    AS_METRICS_TOLD = 128 * 1024, /* bytes of as_metrics_tell() */
};

typedef struct as_metrics as_metrics;

/* Control thread. `incidents` stays the caller's. */
as_metrics *as_metrics_new(int loops, const as_incidents *incidents);
void as_metrics_free(as_metrics *metrics);
/* Before the loop runs: its own counters (which stay the caller's), and the arrays that it counts into, which are the metrics'. */
void as_metrics_set_loop(as_metrics *metrics, int loop, const as_counters *counters);
as_route_counters *as_metrics_routes(const as_metrics *metrics, int loop);
as_pool_counters *as_metrics_pools(const as_metrics *metrics, int loop);
/* The number of a route, the same for the same names. */
uint32_t as_metrics_add_route(as_metrics *metrics, const char *site, const char *route, const char *handler);
/* Pools are added in the order of their numbers. */
void as_metrics_add_pool(as_metrics *metrics, const char *name);
void as_metrics_count_death(as_metrics *metrics, int pool);
/* What others know, as samples in the same format, in place of what they said before. */
void as_metrics_tell(as_metrics *metrics, as_str text);

/* Any thread. What is put between these is the samples of that family. `type`: counter, gauge or histogram. */
void as_metrics_put_family(as_buf *out, const char *name, const char *type, const char *help);
void as_metrics_put_sample(as_buf *out, const char *name, const char *labels, uint64_t value);
/* How many pools there are, and the label of one: `pool="NAME"`. */
uint32_t as_metrics_pools_len(const as_metrics *metrics);
const char *as_metrics_pool_label(const as_metrics *metrics, uint32_t pool);
/* Requests that wait for the pool in the loops. */
uint64_t as_metrics_pool_waiting(const as_metrics *metrics, uint32_t pool);
/* Everything that is counted here. */
void as_metrics_write(const as_metrics *metrics, as_buf *out);

#endif
