#include "handler/metrics.h"

#include "handler/lane.h"
#include "report/metrics.h"

/* Of a pool over all loops: requests in the kernel's queue, and in executors. */
typedef struct sent {
    uint64_t queued;
    uint64_t running;
} sent;

static sent count_sent(const as_lane *lane)
{
    sent found = {0};
    const as_slot *records = as_slot_records(lane->segment);
    for (uint32_t i = 0; i < lane->segment->slots; i++) {
        uint32_t state = AS_SLOT_LOAD_STATE(&records[i]);
        found.queued += state == AS_SLOT_QUEUED;
        found.running += state == AS_SLOT_RUNNING;
    }
    return found;
}

static void write_pools(const as_home *home, as_buf *out)
{
    const as_metrics *metrics = home->metrics;
    uint32_t len = as_metrics_pools_len(metrics);
    if (len > (uint32_t)home->lanes_len)
        len = (uint32_t)home->lanes_len;
    sent *found = as_alloc((len + 1) * sizeof(*found));
    for (uint32_t i = 0; i < len; i++)
        found[i] = home->lanes[i] != NULL ? count_sent(home->lanes[i]) : (sent){0};
    as_metrics_put_family(out, "cherokee_pool_queue_length", "gauge",
                          "Requests that no executor has received yet, in the core and in the kernel's queue.");
    for (uint32_t i = 0; i < len; i++)
        as_metrics_put_sample(out, "cherokee_pool_queue_length", as_metrics_pool_label(metrics, i),
                              found[i].queued + as_metrics_pool_waiting(metrics, i));
    as_metrics_put_family(out, "cherokee_pool_running", "gauge", "Requests that executors hold.");
    for (uint32_t i = 0; i < len; i++)
        as_metrics_put_sample(out, "cherokee_pool_running", as_metrics_pool_label(metrics, i), found[i].running);
    as_free(found);
}

static void free_text(as_body *body)
{
    as_free(body->owner);
}

static as_verdict handle_metrics(const as_handler *handler, as_request *request)
{
    (void)handler;
    as_buf out = {0};
    as_metrics_write(request->home->metrics, &out);
    write_pools(request->home, &out);
    request->response = (as_response){
        .status = 200,
        .fields = AS_STR("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nCache-Control: no-store\r\n"),
        .body = as_body_memory(as_str_of(out.ptr, out.len)),
    };
    request->response.body.owner = out.ptr;
    request->response.body.release = free_text;
    return AS_VERDICT_RESPOND;
}

static void free_handler(as_handler *handler)
{
    as_free(handler);
}

static const as_handler_ops metrics_ops = {.name = "metrics", .handle = handle_metrics, .free = free_handler};

as_handler *as_metrics_handler_new(void)
{
    as_handler *handler = as_alloc(sizeof(*handler));
    handler->ops = &metrics_ops;
    return handler;
}
