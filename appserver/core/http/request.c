/* request.c: between protocol and handler: calling the one, answering through the other, and the built-in error pages. */
#include "http/request.h"

#include <stdio.h>
#include <unistd.h>

#include "http/h1.h"
#include "http/response_head.h"
#include "report/counters.h"
#include "report/event.h"

static as_exchange *exchange_of(as_request *request)
{
    return AS_CONTAINER_OF(request, as_exchange, request);
}

void as_body_close_fd(as_body *body)
{
    close(body->fd);
}

void as_request_add_field(as_request *request, as_str line)
{
    if (request->extra_fields.len == 0) {
        request->extra_fields = as_arena_copy(&request->arena, line);
        return;
    }
    request->extra_fields = as_arena_printf(&request->arena, "%.*s%.*s", (int)request->extra_fields.len,
                                            request->extra_fields.ptr, (int)line.len, line.ptr);
}

void as_request_route(as_request *request)
{
    if (request->target.form == AS_TARGET_ASTERISK)
        return;
    request->epoch->route(request);
}

void as_request_respond(as_request *request)
{
    as_exchange *x = exchange_of(request);
    assert(!x->answered);
    x->answered = true;
    if (!x->in_handler)
        as_h1_advance(x->conn);
}

void as_request_inform(as_request *request, int status, as_str fields)
{
    as_exchange *x = exchange_of(request);
    assert(!x->answered && x->conn->phase == AS_PHASE_HANDLER);
    if (request->head.minor == 0 || x->out.len - x->out_sent + fields.len > AS_MAX_INTERIM)
        return;
    as_str reason = as_status_reason(status);
    AS_COUNT(x->home->counters, responses_1xx, 1);
    as_buf_printf(&x->out, "HTTP/1.1 %d %.*s\r\n", status, (int)reason.len, reason.ptr);
    as_buf_add(&x->out, fields);
    as_buf_add(&x->out, AS_STR("\r\n"));
    if (!x->in_handler)
        as_h1_advance(x->conn);
}

/* Streamed bodies and upgrades. */

static void stream_changed(as_stream *stream)
{
    as_exchange *x = AS_CONTAINER_OF(stream, as_exchange, stream);
    if (x->conn != NULL && !x->conn->closing)
        as_h1_advance(x->conn);
}

int as_request_open_stream(as_request *request)
{
    as_exchange *x = exchange_of(request);
    assert((request->body.is_streamed || request->upgrade.len > 0) && !x->spent);
    as_h1_stop_stream(x);
    return as_stream_open(&x->stream, x->home->loop, stream_changed);
}

void as_request_stream_is_sent(as_request *request)
{
    as_exchange *x = exchange_of(request);
    assert(x->stream.is_open);
    if (!request->body.is_streamed)
        return;
    x->feeding = true;
    as_h1_send_continue(x);
    if (!x->in_handler)
        as_conn_put_off(x->conn);
}

void as_request_upgrade(as_request *request)
{
    as_exchange *x = exchange_of(request);
    assert(request->upgrade.len > 0 && x->stream.is_open && !x->answered);
    x->upgraded = true;
    if (!x->in_handler)
        as_h1_advance(x->conn);
}

bool as_request_is_spent(const as_request *request)
{
    return exchange_of((as_request *)request)->spent;
}

int64_t as_request_moved_ns(const as_request *request)
{
    const as_exchange *x = exchange_of((as_request *)request);
    return as_h1_waits_for_body(x) ? x->home->loop->now_ns : x->moved_ns;
}

/* What of the body was not passed on is not for the next program. */
static void let_go_of_body(as_exchange *x)
{
    as_request *request = &x->request;
    as_h1_close_stream(x);
    if (request->body.fd >= 0)
        close(request->body.fd);
    request->body = (as_request_body){.fd = -1};
    request->upgrade = AS_STR_NONE;
}

static as_redirected *note_redirect(as_request *request, as_str script_name, as_str path_info)
{
    const as_redirected *earlier = request->redirected;
    const as_head *head = &request->head;
    as_redirected *redirected = as_arena_alloc(&request->arena, sizeof(*redirected));
    *redirected = (as_redirected){
        .count = earlier != NULL ? earlier->count + 1 : 1,
        .client_method = earlier != NULL ? earlier->client_method : head->method_text,
        .method = head->method_text,
        .path = request->path,
        .script_name = script_name,
        .path_info = path_info,
        .query = request->target.query,
    };
    if (earlier == NULL) {
        redirected->content_type = as_head_known(head, AS_FIELD_CONTENT_TYPE);
        redirected->has_content_length = request->body.length != AS_BODY_UNKNOWN &&
                                         (request->body.length > 0 || head->content_length >= 0 || head->chunked);
        redirected->content_length = request->body.length;
    }
    return redirected;
}

void as_request_reenter(as_request *request, as_str location, as_str script_name, as_str path_info)
{
    as_exchange *x = exchange_of(request);
    assert(!x->answered && !x->in_handler && x->conn->phase == AS_PHASE_HANDLER && request->handler_state == NULL);
    as_redirected *redirected = note_redirect(request, script_name, path_info);
    if (redirected->count > AS_MAX_LOCAL_REDIRECTS) {
        as_request_error(request, 508, "local redirects from program to program do not come to an end");
        return;
    }
    as_target target;
    /* Programs write names as they find them. */
    char *text = as_arena_alloc(&request->arena, 3 * location.len + 1);
    as_str raw = as_str_of(text, (size_t)(as_target_encode(text, location) - text));
    char *path = as_arena_alloc(&request->arena, raw.len + 1);
    if (as_target_parse(raw, AS_METHOD_GET, path, &target) != AS_OK) {
        as_request_error(request, 502, "its program's local redirect names no valid path");
        return;
    }
    let_go_of_body(x);
    request->redirected = redirected;
    request->target = target;
    request->path = target.path;
    if (request->head.method != AS_METHOD_HEAD) {
        request->head.method = AS_METHOD_GET;
        request->head.method_text = AS_STR("GET");
    }
    request->response = (as_response){.body.fd = -1};
    as_request_route(request);
    as_request_handle(request);
    if (x->answered)
        as_h1_advance(x->conn);
}

/* What a browser shows when the site has no page of its own. */
static void built_in_page(as_request *request, int status)
{
    as_str reason = as_status_reason(status);
    char incident[64] = "";
    if (status >= 500)
        snprintf(incident, sizeof(incident), "<p>Request <code>%016llx</code></p>\n", (unsigned long long)request->id);
    as_str page = as_arena_printf(
        &request->arena,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>%d %.*s</title>\n"
        "<style>body{font:1rem/1.5 system-ui,sans-serif;margin:15vh auto;max-width:32rem;padding:0 1rem;color:#222}"
        "h1{font-weight:600}code{color:#666}</style></head>\n<body><h1>%d %.*s</h1>\n%s</body></html>\n",
        status, (int)reason.len, reason.ptr, status, (int)reason.len, reason.ptr, incident);
    request->response = (as_response){
        .status = (uint16_t)status,
        .fields = AS_STR("Content-Type: text/html; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"),
        .body = as_body_memory(page),
    };
}

/* The site's own page for the status, made by the handler that the configuration names; false when there is none or it fails. */
static bool site_page(as_request *request, int status)
{
    as_exchange *x = exchange_of(request);
    as_str path = request->path;
    const as_handler *handler = request->handler;
    const as_handler *page_handler = request->site != NULL ? request->epoch->error_page(request, status) : NULL;
    if (page_handler == NULL)
        return false;
    request->error_status = (uint16_t)status;
    request->handler = page_handler;
    x->home->file_cache = request->epoch->file_cache;
    as_verdict verdict = page_handler->ops->handle(page_handler, request);
    if (verdict == AS_VERDICT_RESPOND && request->response.status == status)
        return true;
    as_event_emit(x->home->events, AS_EVENT_WARNING, request->id, -1, 0,
                  "the error page %.*s for status %d cannot be served", (int)request->path.len, request->path.ptr,
                  status);
    as_h1_release_body(x);
    x->released = false;
    request->path = path;
    request->handler = handler;
    return false;
}

static void make_error(as_request *request, int status)
{
    as_exchange *x = exchange_of(request);
    request->response = (as_response){.status = (uint16_t)status, .body.fd = -1};
    x->from_error = true;
    if (!site_page(request, status))
        built_in_page(request, status);
}

void as_request_error(as_request *request, int status, const char *detail)
{
    if (detail != NULL)
        as_event_emit(request->home->events, status >= 500 ? AS_EVENT_ERROR : AS_EVENT_NOTE, request->id, -1, 0,
                      "%d for %.*s: %s", status, (int)request->path.len, request->path.ptr ? request->path.ptr : "",
                      detail);
    request->handler_state = NULL;
    make_error(request, status);
    as_request_respond(request);
}

/* What the server answers itself, whatever the site: OPTIONS * speaks of the server as a whole, and TRACE would echo credentials to scripts
 * (RFC 9110 sections 9.3.7 and 9.3.8). */
static bool answer_for_all(as_request *request)
{
    static const as_str allow = AS_STR("Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
    if (request->head.method == AS_METHOD_TRACE) {
        as_request_add_field(request, allow);
        make_error(request, 405);
        return true;
    }
    if (request->target.form == AS_TARGET_ASTERISK) {
        request->response = (as_response){.status = 204, .fields = allow, .body.fd = -1};
        return true;
    }
    return false;
}

void as_request_handle(as_request *request)
{
    as_exchange *x = exchange_of(request);
    if (answer_for_all(request)) {
        x->answered = true;
        return;
    }
    const as_handler *handler = request->handler;
    if (handler == NULL) {
        make_error(request, request->response.status ? request->response.status : 404);
        x->answered = true;
        return;
    }
    x->in_handler = true;
    x->home->file_cache = request->epoch->file_cache;
    as_verdict verdict = handler->ops->handle(handler, request);
    x->in_handler = false;
    if (verdict == AS_VERDICT_PENDING)
        return; /* or answered already: on_handler sees it */
    if (verdict == AS_VERDICT_ERROR)
        make_error(request, request->response.status);
    x->answered = true;
}

bool as_request_has_all(const as_request *request)
{
    return AS_CONTAINER_OF(request, const as_exchange, request)->pipe_left == 0;
}

void as_request_stream_end(as_request *request, bool complete)
{
    as_exchange *x = exchange_of(request);
    if (x->released || x->stream_over)
        return;
    x->stream_over = true;
    x->stream_complete = complete;
    /* A response that is not being sent yet finds the flags when its turn comes. */
    if (x->conn->phase == AS_PHASE_SEND || x->conn->phase == AS_PHASE_RELAY)
        as_conn_put_off(x->conn);
}
