/* with: base/memory.c base/buf.c base/error.c report/incident.c */
/* The text that the counters make. */
#include "report/metrics.c"

#include <sys/eventfd.h>
#include <unistd.h>

#include "check.h"

enum { LOOPS = 2 };

static as_metrics *metrics;
static as_incidents *incidents;
static as_counters counters[LOOPS];
static as_buf text;
static int wake_fd;

static void open_metrics(void)
{
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    incidents = as_incidents_new(wake_fd);
    metrics = as_metrics_new(LOOPS, incidents);
    memset(counters, 0, sizeof(counters));
    for (int i = 0; i < LOOPS; i++)
        as_metrics_set_loop(metrics, i, &counters[i]);
}

static void close_metrics(void)
{
    as_metrics_free(metrics);
    as_incidents_free(incidents);
    as_buf_free(&text);
    close(wake_fd);
}

/* Whether the text has this line; writes it anew. */
static bool has(const char *line)
{
    text.len = 0;
    as_metrics_write(metrics, &text);
    as_buf_add(&text, AS_STR("\0"));
    as_buf wanted = {0};
    as_buf_printf(&wanted, "\n%s\n%c", line, 0);
    bool found = strstr(text.ptr, wanted.ptr) != NULL;
    if (!found)
        fprintf(stderr, "not there: %s\n", line);
    as_buf_free(&wanted);
    return found;
}

static void test_sums_of_loops(void)
{
    open_metrics();
    AS_COUNT(&counters[0], bytes_sent, 5);
    AS_COUNT(&counters[1], bytes_sent, 7);
    AS_COUNT(&counters[0], connections_open, 3);
    AS_COUNT(&counters[1], connections_open, 2);
    AS_COUNT(&counters[1], connections_open, -1);
    CHECK(has("# TYPE cherokee_sent_bytes_total counter"));
    CHECK(has("cherokee_sent_bytes_total 12"));
    CHECK(has("# TYPE cherokee_connections_open gauge"));
    CHECK(has("cherokee_connections_open 4"));
    CHECK(has("cherokee_loops 2"));
    close_metrics();
}

static void test_routes(void)
{
    open_metrics();
    uint32_t route = as_metrics_add_route(metrics, "main", "/a \"b\"\\c\n", "file");
    CHECK_INT(route, 1);
    CHECK_INT(as_metrics_add_route(metrics, "main", "/a", "file"), 2);
    CHECK_INT(as_metrics_add_route(metrics, "main", "/a \"b\"\\c\n", "file"), 1);
    AS_COUNT(&as_metrics_routes(metrics, 0)[route], responses[2], 1);
    AS_COUNT(&as_metrics_routes(metrics, 1)[route], responses[2], 2);
    AS_COUNT(&as_metrics_routes(metrics, 1)[route], responses[5], 1);
    AS_COUNT(&as_metrics_routes(metrics, 1)[route], queue_ns, 1500000000);
    AS_COUNT(&as_metrics_routes(metrics, 0)[route], run_ns, 1);
    AS_COUNT(&as_metrics_routes(metrics, 0)[route], cpu_us, 3000001);
#define LABELS "site=\"main\",route=\"/a \\\"b\\\"\\\\c\\n\",handler=\"file\""
    CHECK(has("cherokee_requests_total{" LABELS ",code=\"2xx\"} 3"));
    CHECK(has("cherokee_requests_total{" LABELS ",code=\"5xx\"} 1"));
    CHECK(has("cherokee_request_queue_seconds_total{" LABELS "} 1.500000000"));
    CHECK(has("cherokee_request_run_seconds_total{" LABELS "} 0.000000001"));
    CHECK(has("cherokee_request_cpu_seconds_total{" LABELS "} 3.000001000"));
    CHECK(has("cherokee_request_duration_seconds_count{" LABELS "} 4"));
    close_metrics();
}

static void test_durations(void)
{
    open_metrics();
    as_route_counters *route = &as_metrics_routes(metrics, 0)[0];
    static const int64_t durations_us[] = {0, 1, 1000, 1001, 2500, 2501, 10000000, 10000001, 3000000000};
    for (size_t i = 0; i < AS_COUNT_OF(durations_us); i++) {
        AS_COUNT(route, responses[2], 1);
        if (durations_us[i] > 0)
            as_count_duration(route, durations_us[i] * 1000);
    }
#define NONE "site=\"(none)\",route=\"(none)\",handler=\"(none)\""
    CHECK(has("# TYPE cherokee_request_duration_seconds histogram"));
    CHECK(has("cherokee_request_duration_seconds_bucket{" NONE ",le=\"0.001\"} 3"));
    CHECK(has("cherokee_request_duration_seconds_bucket{" NONE ",le=\"0.0025\"} 5"));
    CHECK(has("cherokee_request_duration_seconds_bucket{" NONE ",le=\"0.005\"} 6"));
    CHECK(has("cherokee_request_duration_seconds_bucket{" NONE ",le=\"5\"} 6"));
    CHECK(has("cherokee_request_duration_seconds_bucket{" NONE ",le=\"10\"} 7"));
    CHECK(has("cherokee_request_duration_seconds_bucket{" NONE ",le=\"+Inf\"} 9"));
    CHECK(has("cherokee_request_duration_seconds_count{" NONE "} 9"));
    CHECK(has("cherokee_request_duration_seconds_sum{" NONE "} 3020.007004000"));
    close_metrics();
}

static void test_too_many_routes(void)
{
    open_metrics();
    char name[32];
    for (uint32_t i = 1; i < AS_METRICS_ROUTES; i++) {
        snprintf(name, sizeof(name), "/%u/*", i);
        CHECK_INT(as_metrics_add_route(metrics, "main", name, "file"), i);
    }
    CHECK_INT(as_metrics_add_route(metrics, "main", "/more/*", "file"), 0);
    CHECK_INT(as_metrics_add_route(metrics, "main", name, "file"), AS_METRICS_ROUTES - 1);
    CHECK(has("cherokee_requests_total{site=\"main\",route=\"/1023/*\",handler=\"file\",code=\"2xx\"} 0"));
    close_metrics();
}

static void test_pools(void)
{
    open_metrics();
    as_metrics_add_pool(metrics, "shop");
    as_metrics_add_pool(metrics, "cgi");
    AS_COUNT(&as_metrics_pools(metrics, 0)[1], dispatched, 3);
    AS_COUNT(&as_metrics_pools(metrics, 1)[1], dispatched, 4);
    AS_COUNT(&as_metrics_pools(metrics, 1)[0], refused_time, 2);
    AS_COUNT(&as_metrics_pools(metrics, 0)[0], waiting, 2);
    AS_COUNT(&as_metrics_pools(metrics, 1)[0], waiting, 1);
    as_metrics_count_death(metrics, 0);
    CHECK(has("cherokee_pool_dispatched_total{pool=\"cgi\"} 7"));
    CHECK(has("cherokee_pool_refused_total{pool=\"shop\",reason=\"queue_time\"} 2"));
    CHECK(has("cherokee_pool_refused_total{pool=\"shop\",reason=\"queue\"} 0"));
    CHECK(has("cherokee_pool_deaths_total{pool=\"shop\"} 1"));
    CHECK(has("cherokee_pool_deaths_total{pool=\"cgi\"} 0"));
    CHECK_INT(as_metrics_pool_waiting(metrics, 0), 3);
    CHECK_INT(as_metrics_pools_len(metrics), 2);
    close_metrics();
}

static void test_what_others_tell(void)
{
    open_metrics();
    as_metrics_tell(metrics, AS_STR("told{a=\"b\"} 1\nmore 2\n"));
    CHECK(has("told{a=\"b\"} 1") && has("more 2"));
    as_metrics_tell(metrics, AS_STR("more 3\n"));
    CHECK(has("more 3") && !has("told{a=\"b\"} 1"));
    as_metrics_tell(metrics, AS_STR_NONE);
    CHECK(!has("more 3"));
    close_metrics();
}

int main(void)
{
    test_sums_of_loops();
    test_routes();
    test_durations();
    test_too_many_routes();
    test_pools();
    test_what_others_tell();
    return check_result("metrics");
}
