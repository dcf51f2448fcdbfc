#include "handler/respond.h"

#include <stdio.h>

typedef struct respond_handler {
    as_handler handler;
    uint16_t status;
    as_str fields; /* allocated */
    as_str body;   /* allocated */
    const int *ready;
} respond_handler;

static void free_respond(as_handler *handler)
{
    respond_handler *self = (respond_handler *)handler;
    as_free((char *)self->fields.ptr);
    as_free((char *)self->body.ptr);
    as_free(self);
}

static as_verdict handle_respond(const as_handler *handler, as_request *request)
{
    const respond_handler *self = (const respond_handler *)handler;
    request->response =
        (as_response){.status = self->status, .fields = self->fields, .body = as_body_memory(self->body)};
    if (self->status >= 400 && self->body.len == 0)
        return AS_VERDICT_ERROR;
    return AS_VERDICT_RESPOND;
}

static as_verdict handle_health(const as_handler *handler, as_request *request)
{
    const respond_handler *self = (const respond_handler *)handler;
    bool good = self->ready == NULL || __atomic_load_n(self->ready, __ATOMIC_RELAXED) != 0;
    request->response = (as_response){
        .status = good ? 200 : 503,
        .fields = AS_STR("Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"),
        .body = as_body_memory(good ? AS_STR("ok\n") : AS_STR("not ready\n")),
    };
    return AS_VERDICT_RESPOND;
}

static const as_handler_ops respond_ops = {.name = "respond", .handle = handle_respond, .free = free_respond};
static const as_handler_ops redirect_ops = {.name = "redirect", .handle = handle_respond, .free = free_respond};
static const as_handler_ops health_ops = {.name = "health", .handle = handle_health, .free = free_respond};

static respond_handler *new_handler(const as_handler_ops *ops, int status)
{
    respond_handler *self = as_alloc(sizeof(*self));
    self->handler.ops = ops;
    self->status = (uint16_t)status;
    return self;
}

static as_str line_of(const char *name, const char *value)
{
    size_t size = strlen(name) + strlen(value) + 5;
    char *text = as_alloc(size);
    int len = snprintf(text, size, "%s: %s\r\n", name, value);
    return as_str_of(text, (size_t)len);
}

as_handler *as_redirect_handler_new(int status, const char *location)
{
    respond_handler *self = new_handler(&redirect_ops, status);
    self->fields = line_of("Location", location);
    return &self->handler;
}

as_handler *as_respond_handler_new(int status, const char *content_type, as_str body)
{
    respond_handler *self = new_handler(&respond_ops, status);
    self->fields = line_of("Content-Type", content_type);
    self->body = as_str_of(as_strdup(body), body.len);
    return &self->handler;
}

as_handler *as_health_handler_new(const int *ready)
{
    respond_handler *self = new_handler(&health_ops, 200);
    self->ready = ready;
    return &self->handler;
}
