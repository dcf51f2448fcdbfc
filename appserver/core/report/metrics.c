#include "report/metrics.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"

#define LOAD(place) __atomic_load_n(&(place), __ATOMIC_RELAXED)

/* What the control thread has said as text. */
typedef struct outside {
    pthread_mutex_t lock;
    as_buf text;
} outside;

struct as_metrics {
    int loops;
    int64_t start_s; /* CLOCK_REALTIME */
    const as_incidents *incidents;
    const as_counters **counters; /* by loop, as are the next two */
    as_route_counters **routes;
    as_pool_counters **pools;
    /* Written by the control thread: a label first, then the number of them. */
    char *route_labels[AS_METRICS_ROUTES];
    uint32_t routes_len;
    char *pool_labels[AS_METRICS_POOLS];
    uint32_t pools_len;
    uint64_t deaths[AS_METRICS_POOLS];
    outside *told;
};

static const char *const bound_texts[AS_DURATION_BOUNDS] = {
#define X(ns, text) text,
    AS_DURATIONS(X)
#undef X
};

/* What the control thread says. */

as_metrics *as_metrics_new(int loops, const as_incidents *incidents)
{
    as_metrics *metrics = as_alloc(sizeof(*metrics));
    metrics->loops = loops;
    metrics->start_s = as_clock_ns(CLOCK_REALTIME) / AS_NS_PER_S;
    metrics->incidents = incidents;
    metrics->counters = as_alloc((size_t)loops * sizeof(*metrics->counters));
    metrics->routes = as_alloc((size_t)loops * sizeof(*metrics->routes));
    metrics->pools = as_alloc((size_t)loops * sizeof(*metrics->pools));
    for (int i = 0; i < loops; i++) {
        metrics->routes[i] = as_alloc(AS_METRICS_ROUTES * sizeof(as_route_counters));
        metrics->pools[i] = as_alloc(AS_METRICS_POOLS * sizeof(as_pool_counters));
    }
    metrics->told = as_alloc(sizeof(*metrics->told));
    pthread_mutex_init(&metrics->told->lock, NULL);
    as_metrics_add_route(metrics, "(none)", "(none)", "(none)");
    return metrics;
}

void as_metrics_free(as_metrics *metrics)
{
    for (int i = 0; i < metrics->loops; i++) {
        as_free(metrics->routes[i]);
        as_free(metrics->pools[i]);
    }
    for (uint32_t i = 0; i < metrics->routes_len; i++)
        as_free(metrics->route_labels[i]);
    for (uint32_t i = 0; i < metrics->pools_len; i++)
        as_free(metrics->pool_labels[i]);
    pthread_mutex_destroy(&metrics->told->lock);
    as_buf_free(&metrics->told->text);
    as_free(metrics->told);
    as_free(metrics->counters);
    as_free(metrics->routes);
    as_free(metrics->pools);
    as_free(metrics);
}

void as_metrics_set_loop(as_metrics *metrics, int loop, const as_counters *counters)
{
    metrics->counters[loop] = counters;
}

as_route_counters *as_metrics_routes(const as_metrics *metrics, int loop)
{
    return metrics->routes[loop];
}

as_pool_counters *as_metrics_pools(const as_metrics *metrics, int loop)
{
    return metrics->pools[loop];
}

/* name="value", escaped as the format wants it. */
static void put_label(as_buf *out, const char *name, const char *value)
{
    as_buf_printf(out, "%s%s=\"", out->len > 0 ? "," : "", name);
    for (; *value != '\0'; value++) {
        if (*value == '\n')
            as_buf_add(out, AS_STR("\\n"));
        else if (*value == '"' || *value == '\\')
            as_buf_printf(out, "\\%c", *value);
        else
            as_buf_add(out, as_str_of(value, 1));
    }
    as_buf_add(out, AS_STR("\""));
}

static char *as_text(as_buf *buf)
{
    char *text = as_strdup(as_str_of(buf->ptr, buf->len));
    as_buf_free(buf);
    return text;
}

uint32_t as_metrics_add_route(as_metrics *metrics, const char *site, const char *route, const char *handler)
{
    as_buf made = {0};
    put_label(&made, "site", site);
    put_label(&made, "route", route);
    put_label(&made, "handler", handler);
    char *labels = as_text(&made);
    for (uint32_t i = 0; i < metrics->routes_len; i++) {
        if (strcmp(metrics->route_labels[i], labels) == 0) {
            as_free(labels);
            return i;
        }
    }
    if (metrics->routes_len == AS_METRICS_ROUTES) {
        as_free(labels);
        return 0;
    }
    metrics->route_labels[metrics->routes_len] = labels;
    __atomic_store_n(&metrics->routes_len, metrics->routes_len + 1, __ATOMIC_RELEASE);
    return metrics->routes_len - 1;
}

void as_metrics_add_pool(as_metrics *metrics, const char *name)
{
    assert(metrics->pools_len < AS_METRICS_POOLS);
    as_buf made = {0};
    put_label(&made, "pool", name);
    metrics->pool_labels[metrics->pools_len] = as_text(&made);
    __atomic_store_n(&metrics->pools_len, metrics->pools_len + 1, __ATOMIC_RELEASE);
}

void as_metrics_count_death(as_metrics *metrics, int pool)
{
    __atomic_fetch_add(&metrics->deaths[pool], 1, __ATOMIC_RELAXED);
}

uint32_t as_metrics_pools_len(const as_metrics *metrics)
{
    return __atomic_load_n(&metrics->pools_len, __ATOMIC_ACQUIRE);
}

const char *as_metrics_pool_label(const as_metrics *metrics, uint32_t pool)
{
    return metrics->pool_labels[pool];
}

/* The text. */

void as_metrics_put_family(as_buf *out, const char *name, const char *type, const char *help)
{
    as_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void as_metrics_put_sample(as_buf *out, const char *name, const char *labels, uint64_t value)
{
    as_buf_printf(out, *labels != '\0' ? "%s{%s} %llu\n" : "%s%s %llu\n", name, labels, (unsigned long long)value);
}

static void put_single(as_buf *out, const char *name, const char *type, const char *help, uint64_t value)
{
    as_metrics_put_family(out, name, type, help);
    as_metrics_put_sample(out, name, "", value);
}

static void put_seconds(as_buf *out, const char *name, const char *labels, uint64_t ns)
{
    as_buf_printf(out, "%s{%s} %llu.%09llu\n", name, labels, (unsigned long long)(ns / AS_NS_PER_S),
                  (unsigned long long)(ns % AS_NS_PER_S));
}

static const struct {
    size_t offset;
    const char *name;
    const char *type;
    const char *help;
} singles[] = {
#define AT(field) offsetof(as_counters, field)
    {AT(connections_accepted), "cherokee_connections_accepted_total", "counter", "Connections accepted."},
    {AT(connections_open), "cherokee_connections_open", "gauge", "Connections that are open."},
    {AT(connections_refused), "cherokee_connections_refused_total", "counter",
     "Connections refused at a limit of connections."},
    {AT(accept_batches), "cherokee_accept_batches_total", "counter",
     "Turns of a loop that accepted connections; connections accepted by these is how many come at once."},
    {AT(accept_empty), "cherokee_accept_empty_total", "counter",
     "Turns of a loop that was woken for a connection and found none."},
    {AT(accept_paused), "cherokee_accept_paused_total", "counter", "Pauses for want of file descriptors."},
    {AT(accept_waited), "cherokee_accept_waited_total", "counter", "Pauses at the limit of connections."},
    {AT(requests_active), "cherokee_requests_active", "gauge", "Requests that are being received or answered."},
    {AT(responses_1xx), "cherokee_interim_responses_total", "counter", "Interim responses (status 1xx)."},
    {AT(bytes_received), "cherokee_received_bytes_total", "counter", "Bytes read from clients."},
    {AT(bytes_sent), "cherokee_sent_bytes_total", "counter", "Bytes written to clients."},
    {AT(cache_hits), "cherokee_cache_hits_total", "counter", "Look-ups that the file cache answered."},
    {AT(cache_misses), "cherokee_cache_misses_total", "counter", "Look-ups that the file cache could not answer."},
    {AT(cache_bytes), "cherokee_cache_bytes", "gauge", "Bytes of files that the caches of all loops hold."},
    {AT(events_dropped), "cherokee_log_events_dropped_total", "counter", "Events that did not fit into a loop's ring."},
#undef AT
};

static void write_singles(const as_metrics *metrics, as_buf *out)
{
    for (size_t i = 0; i < AS_COUNT_OF(singles); i++) {
        uint64_t sum = 0;
        for (int loop = 0; loop < metrics->loops; loop++)
            sum += LOAD(*(const uint64_t *)((const char *)metrics->counters[loop] + singles[i].offset));
        put_single(out, singles[i].name, singles[i].type, singles[i].help, sum);
    }
}

static as_route_counters sum_route(const as_metrics *metrics, uint32_t route)
{
    as_route_counters sum = {0};
    for (int loop = 0; loop < metrics->loops; loop++) {
        const as_route_counters *one = &metrics->routes[loop][route];
        for (int i = 0; i < AS_STATUS_CLASSES; i++)
            sum.responses[i] += LOAD(one->responses[i]);
        for (int i = 0; i < AS_DURATION_BOUNDS; i++)
            sum.slower[i] += LOAD(one->slower[i]);
        sum.duration_ns += LOAD(one->duration_ns);
        sum.queue_ns += LOAD(one->queue_ns);
        sum.run_ns += LOAD(one->run_ns);
        sum.cpu_us += LOAD(one->cpu_us);
    }
    return sum;
}

static uint64_t count_of(const as_route_counters *route)
{
    uint64_t count = 0;
    for (int i = 0; i < AS_STATUS_CLASSES; i++)
        count += route->responses[i];
    return count;
}

static void write_requests(const as_route_counters *sums, const as_metrics *metrics, uint32_t len, as_buf *out)
{
    as_metrics_put_family(out, "cherokee_requests_total", "counter",
                          "Requests that are over, by site, rule, handler and class of the status.");
    for (uint32_t route = 0; route < len; route++) {
        for (int class = 1; class < AS_STATUS_CLASSES; class++) {
            if (sums[route].responses[class] == 0 && class != 2)
                continue;
            as_buf_printf(out, "cherokee_requests_total{%s,code=\"%dxx\"} %llu\n", metrics->route_labels[route], class,
                          (unsigned long long)sums[route].responses[class]);
        }
    }
}

static void write_durations(const as_route_counters *sums, const as_metrics *metrics, uint32_t len, as_buf *out)
{
    as_metrics_put_family(out, "cherokee_request_duration_seconds", "histogram",
                          "From the first byte of a request to the last byte of its response.");
    for (uint32_t route = 0; route < len; route++) {
        const char *labels = metrics->route_labels[route];
        uint64_t count = count_of(&sums[route]);
        uint64_t slower = 0;
        for (int i = 0; i < AS_DURATION_BOUNDS; i++)
            slower += sums[route].slower[i];
        /* Read while others count: a bucket must not have more than all. */
        uint64_t below = count > slower ? count - slower : 0;
        for (int i = 0; i < AS_DURATION_BOUNDS; i++) {
            as_buf_printf(out, "cherokee_request_duration_seconds_bucket{%s,le=\"%s\"} %llu\n", labels, bound_texts[i],
                          (unsigned long long)below);
            below += sums[route].slower[i];
        }
        as_buf_printf(out, "cherokee_request_duration_seconds_bucket{%s,le=\"+Inf\"} %llu\n", labels,
                      (unsigned long long)below);
        put_seconds(out, "cherokee_request_duration_seconds_sum", labels, sums[route].duration_ns);
        as_buf_printf(out, "cherokee_request_duration_seconds_count{%s} %llu\n", labels, (unsigned long long)below);
    }
}

static void write_times(const as_route_counters *sums, const as_metrics *metrics, uint32_t len, as_buf *out)
{
    static const struct {
        size_t offset;
        uint64_t unit_ns;
        const char *name;
        const char *help;
    } times[] = {
        {offsetof(as_route_counters, queue_ns), 1, "cherokee_request_queue_seconds_total",
         "Time that requests waited for an executor."},
        {offsetof(as_route_counters, run_ns), 1, "cherokee_request_run_seconds_total",
         "Time that requests ran in an executor."},
        {offsetof(as_route_counters, cpu_us), 1000, "cherokee_request_cpu_seconds_total",
         "CPU time (user and system) that requests took in an executor's thread, where that is known."},
    };
    for (size_t i = 0; i < AS_COUNT_OF(times); i++) {
        as_metrics_put_family(out, times[i].name, "counter", times[i].help);
        for (uint32_t route = 0; route < len; route++) {
            uint64_t value = *(const uint64_t *)((const char *)&sums[route] + times[i].offset);
            put_seconds(out, times[i].name, metrics->route_labels[route], value * times[i].unit_ns);
        }
    }
}

static void write_routes(const as_metrics *metrics, as_buf *out)
{
    uint32_t len = __atomic_load_n(&metrics->routes_len, __ATOMIC_ACQUIRE);
    /* Summed once, so that the families agree with each other. */
    as_route_counters *sums = as_alloc(len * sizeof(*sums));
    for (uint32_t route = 0; route < len; route++)
        sums[route] = sum_route(metrics, route);
    write_requests(sums, metrics, len, out);
    write_durations(sums, metrics, len, out);
    write_times(sums, metrics, len, out);
    as_free(sums);
}

static uint64_t sum_pool(const as_metrics *metrics, uint32_t pool, size_t offset)
{
    uint64_t sum = 0;
    for (int loop = 0; loop < metrics->loops; loop++)
        sum += LOAD(*(const uint64_t *)((const char *)&metrics->pools[loop][pool] + offset));
    return sum;
}

uint64_t as_metrics_pool_waiting(const as_metrics *metrics, uint32_t pool)
{
    return sum_pool(metrics, pool, offsetof(as_pool_counters, waiting));
}

static void write_pools(const as_metrics *metrics, as_buf *out)
{
    static const struct {
        size_t offset;
        const char *name;
        const char *labels; /* beside the pool's */
        const char *help;   /* NULL: another sample of the family before */
    } families[] = {
#define AT(field) offsetof(as_pool_counters, field)
        {AT(dispatched), "cherokee_pool_dispatched_total", "", "Requests sent to executors; repeated ones again."},
        {AT(retried), "cherokee_pool_retried_total", "", "Requests given to another executor because theirs had died."},
        {AT(refused_full), "cherokee_pool_refused_total", ",reason=\"queue\"",
         "Requests answered 503: the queue was full, queue_time was over, or the request was quarantined."},
        {AT(refused_time), "cherokee_pool_refused_total", ",reason=\"queue_time\"", NULL},
        {AT(refused_quarantine), "cherokee_pool_refused_total", ",reason=\"quarantine\"", NULL},
        {AT(lost), "cherokee_pool_lost_total", "", "Requests answered 502 because their executor had died."},
        {AT(timeouts), "cherokee_pool_timeouts_total", "", "Requests answered 504 because they ran for too long."},
        {AT(quarantined), "cherokee_pool_quarantined_total", "",
         "Requests quarantined because two executors had died with them."},
#undef AT
    };
    uint32_t len = as_metrics_pools_len(metrics);
    for (size_t i = 0; i < AS_COUNT_OF(families); i++) {
        if (families[i].help == NULL)
            continue;
        as_metrics_put_family(out, families[i].name, "counter", families[i].help);
        size_t last = i;
        while (last + 1 < AS_COUNT_OF(families) && families[last + 1].help == NULL)
            last++;
        for (uint32_t pool = 0; pool < len; pool++) {
            for (size_t j = i; j <= last; j++)
                as_buf_printf(out, "%s{%s%s} %llu\n", families[j].name, metrics->pool_labels[pool], families[j].labels,
                              (unsigned long long)sum_pool(metrics, pool, families[j].offset));
        }
    }
    as_metrics_put_family(out, "cherokee_pool_deaths_total", "counter", "Executors that died without being told to.");
    for (uint32_t pool = 0; pool < len; pool++)
        as_metrics_put_sample(out, "cherokee_pool_deaths_total", metrics->pool_labels[pool],
                              LOAD(metrics->deaths[pool]));
}

void as_metrics_tell(as_metrics *metrics, as_str text)
{
    outside *told = metrics->told;
    assert(text.len <= AS_METRICS_TOLD);
    pthread_mutex_lock(&told->lock);
    told->text.len = 0;
    as_buf_add(&told->text, text);
    pthread_mutex_unlock(&told->lock);
}

static void write_told(outside *told, as_buf *out)
{
    pthread_mutex_lock(&told->lock);
    as_buf_add(out, as_str_of(told->text.ptr, told->text.len));
    pthread_mutex_unlock(&told->lock);
}

void as_metrics_write(const as_metrics *metrics, as_buf *out)
{
    put_single(out, "cherokee_start_time_seconds", "gauge", "When this core started, in seconds since 1970.",
               (uint64_t)metrics->start_s);
    put_single(out, "cherokee_loops", "gauge", "Event loops of this core.", (uint64_t)metrics->loops);
    write_singles(metrics, out);
    write_routes(metrics, out);
    write_pools(metrics, out);
    put_single(out, "cherokee_incidents_dropped_total", "counter",
               "Incidents that were not recorded, for there were too many.", as_incidents_dropped(metrics->incidents));
    write_told(metrics->told, out);
}
