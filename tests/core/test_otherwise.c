/* with: all */
#include "handler/otherwise.h"

#include "check.h"

typedef struct fake {
    as_handler handler;
    as_verdict verdict;
    uint16_t status;
    const char *field;
    int calls;
} fake;

static as_verdict handle_fake(const as_handler *handler, as_request *request)
{
    fake *self = (fake *)handler;
    self->calls++;
    CHECK(request->response.body.fd == -1);
    if (self->field != NULL)
        as_request_add_field(request, as_str_from(self->field));
    request->response.status = self->status;
    return self->verdict;
}

static const as_handler_ops fake_ops = {.name = "fake", .handle = handle_fake};
static fake first, second;

/* The verdict for one request, with what `first` answers. */
static as_verdict ask(as_request *request, as_method method, as_verdict verdict, uint16_t status)
{
    first = (fake){.handler.ops = &fake_ops, .verdict = verdict, .status = status, .field = "X-First: 1\r\n"};
    second = (fake){.handler.ops = &fake_ops, .verdict = AS_VERDICT_PENDING, .field = "X-Second: 1\r\n"};
    as_handler *handler = as_otherwise_handler_new(&first.handler, &second.handler);
    CHECK(handler->ops->wants_body);
    request->handler = handler;
    request->head.method = method;
    request->response = (as_response){.body.fd = -1};
    request->extra_fields = AS_STR_NONE;
    as_request_add_field(request, AS_STR("X-Before: 1\r\n"));
    as_verdict found = handler->ops->handle(handler, request);
    if (second.calls > 0)
        CHECK(request->handler == &second.handler);
    handler->ops->free(handler);
    return found;
}

#define CHECK_FIRST(method, verdict, code)                                \
    do {                                                                  \
        CHECK_INT(ask(&request, method, verdict, code), verdict);         \
        CHECK_INT(first.calls, 1);                                        \
        CHECK_INT(second.calls, 0);                                       \
        CHECK_INT(request.response.status, code);                         \
        CHECK_STR(request.extra_fields, "X-Before: 1\r\nX-First: 1\r\n"); \
    } while (0)

#define CHECK_SECOND(method, code, calls_of_first)                                    \
    do {                                                                              \
        CHECK_INT(ask(&request, method, AS_VERDICT_ERROR, code), AS_VERDICT_PENDING); \
        CHECK_INT(first.calls, calls_of_first);                                       \
        CHECK_INT(second.calls, 1);                                                   \
        CHECK_STR(request.extra_fields, "X-Before: 1\r\nX-Second: 1\r\n");            \
    } while (0)

int main(void)
{
    as_request request = {0};
    as_arena_init(&request.arena);
    CHECK_FIRST(AS_METHOD_GET, AS_VERDICT_RESPOND, 200);
    CHECK_FIRST(AS_METHOD_HEAD, AS_VERDICT_RESPOND, 304);
    CHECK_FIRST(AS_METHOD_GET, AS_VERDICT_RESPOND, 301);
    CHECK_FIRST(AS_METHOD_GET, AS_VERDICT_ERROR, 403);
    CHECK_FIRST(AS_METHOD_GET, AS_VERDICT_ERROR, 503);
    CHECK_FIRST(AS_METHOD_GET, AS_VERDICT_RESPOND, 404);
    CHECK_SECOND(AS_METHOD_GET, 404, 1);
    CHECK_SECOND(AS_METHOD_HEAD, 404, 1);
    CHECK_SECOND(AS_METHOD_POST, 404, 0);
    CHECK_SECOND(AS_METHOD_OPTIONS, 404, 0);
    CHECK_SECOND(AS_METHOD_PUT, 200, 0);
    as_arena_free(&request.arena);
    return check_result("otherwise");
}
