#include "handler/otherwise.h"

typedef struct otherwise_handler {
    as_handler handler;
    const as_handler *first, *second;
} otherwise_handler;

static void free_otherwise(as_handler *handler)
{
    as_free(handler);
}

static as_verdict handle_otherwise(const as_handler *handler, as_request *request)
{
    const otherwise_handler *self = (const otherwise_handler *)handler;
    if (request->head.method == AS_METHOD_GET || request->head.method == AS_METHOD_HEAD) {
        as_str extra_fields = request->extra_fields;
        as_verdict verdict = self->first->ops->handle(self->first, request);
        assert(verdict != AS_VERDICT_PENDING);
        if (verdict != AS_VERDICT_ERROR || request->response.status != 404)
            return verdict;
        /* Nothing of the refusal may be seen in the second one's answer. */
        request->response = (as_response){.body.fd = -1};
        request->extra_fields = extra_fields;
    }
    request->handler = self->second; /* whom the protocol tells when the client leaves */
    return self->second->ops->handle(self->second, request);
}

/* The second one may want the body, and has it when its turn comes; a GET has none as a rule, so files do not wait. */
static const as_handler_ops otherwise_ops = {
    .name = "otherwise",
    .wants_body = true,
    .handle = handle_otherwise,
    .free = free_otherwise,
};

as_handler *as_otherwise_handler_new(const as_handler *first, const as_handler *second)
{
    otherwise_handler *self = as_alloc(sizeof(*self));
    self->handler.ops = &otherwise_ops;
    self->first = first;
    self->second = second;
    return &self->handler;
}
