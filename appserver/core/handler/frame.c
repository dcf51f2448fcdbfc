#include "handler/frame.h"

#include "http/limits.h"

static uint64_t request_length(const as_request_head *head)
{
    uint64_t inline_body = head->flags & AS_REQUEST_FD_FLAGS ? 0 : head->body_len;
    return AS_REQUEST_HEAD_LEN + (uint64_t)head->environment_len + inline_body;
}

void as_request_frame_begin(const as_request_head *head, as_request_kind kind, char *out)
{
    as_request_head wire = *head;
    wire.version = AS_FRAME_VERSION;
    wire.kind = (uint16_t)kind;
    wire.length = (uint32_t)request_length(head);
    assert(request_length(head) <= AS_DATAGRAM_MAX);
    memcpy(out, &wire, sizeof(wire));
}

static bool has_inline_body(uint16_t kind)
{
    return kind == AS_ANSWER_RESPONSE || kind == AS_ANSWER_WHOLE_DOCUMENT;
}

static uint64_t answer_length(const as_answer_head *head, uint16_t kind)
{
    uint64_t inline_body = has_inline_body(kind) ? head->body_len : 0;
    return AS_ANSWER_HEAD_LEN + (uint64_t)head->fields_len + inline_body;
}

void as_answer_frame_begin(const as_answer_head *head, as_answer_kind kind, char *out)
{
    as_answer_head wire = *head;
    wire.version = AS_FRAME_VERSION;
    wire.kind = (uint16_t)kind;
    wire.length = (uint32_t)answer_length(head, wire.kind);
    assert(answer_length(head, wire.kind) <= AS_DATAGRAM_MAX);
    memcpy(out, &wire, sizeof(wire));
}

/* What the flags say of the fd and the body's length. */
static bool flags_agree(const as_request_head *head)
{
    uint32_t of_fd = head->flags & AS_REQUEST_FD_FLAGS;
    if ((of_fd & (of_fd - 1)) != 0)
        return false;
    if (of_fd == AS_REQUEST_UPGRADE)
        return head->body_len == 0;
    return of_fd == AS_REQUEST_BODY_STREAM || head->body_len <= INT64_MAX;
}

int as_request_frame_decode(const char *buf, size_t len, as_request_frame *frame)
{
    if (len < AS_REQUEST_HEAD_LEN || len > AS_DATAGRAM_MAX)
        return AS_EBADFRAME;
    as_request_head *head = &frame->head;
    memcpy(head, buf, sizeof(*head));
    if (head->version != AS_FRAME_VERSION || (head->kind != AS_REQUEST_RUN && head->kind != AS_REQUEST_CANCEL))
        return AS_EBADFRAME;
    bool is_inline = (head->flags & AS_REQUEST_FD_FLAGS) == 0;
    /* Checked first, so that the sum below cannot wrap. */
    if (is_inline && head->body_len > AS_MAX_INLINE_BODY)
        return AS_EBADFRAME;
    if (!flags_agree(head))
        return AS_EBADFRAME;
    if (head->length > len || request_length(head) != head->length)
        return AS_EBADFRAME;
    if (head->kind == AS_REQUEST_CANCEL && head->length != AS_REQUEST_HEAD_LEN)
        return AS_EBADFRAME;
    frame->environment = as_str_of(buf + AS_REQUEST_HEAD_LEN, head->environment_len);
    frame->body = as_str_of(buf + AS_REQUEST_HEAD_LEN + head->environment_len, is_inline ? (size_t)head->body_len : 0);
    if (head->environment_len > 0 && frame->environment.ptr[head->environment_len - 1] != '\0')
        return AS_EBADFRAME;
    return (int)head->length;
}

bool as_answer_has_fd(uint16_t kind)
{
    return kind == AS_ANSWER_FILE || kind == AS_ANSWER_STREAM || kind == AS_ANSWER_DOCUMENT;
}

/* Whether `status` is one that such an answer has. */
static bool status_fits(uint16_t kind, uint16_t status)
{
    switch (kind) {
    case AS_ANSWER_RESPONSE:
    case AS_ANSWER_FILE:
    case AS_ANSWER_STREAM:
        return status >= 200 && status <= 599;
    case AS_ANSWER_INFORMATIONAL: /* 100 is the core's, 101 the kind `upgrade` */
        return status >= 102 && status <= 199;
    case AS_ANSWER_UPGRADE:
        return status == 101;
    default:
        return true;
    }
}

static bool has_fields(uint16_t kind)
{
    return kind != AS_ANSWER_DOCUMENT && kind != AS_ANSWER_WHOLE_DOCUMENT && kind != AS_ANSWER_SKIPPED;
}

int as_answer_frame_decode(const char *buf, size_t len, as_answer_frame *frame)
{
    if (len < AS_ANSWER_HEAD_LEN || len > AS_DATAGRAM_MAX)
        return AS_EBADFRAME;
    as_answer_head *head = &frame->head;
    memcpy(head, buf, sizeof(*head));
    if (head->version != AS_FRAME_VERSION || head->kind < AS_ANSWER_RESPONSE || head->kind > AS_ANSWER_WHOLE_DOCUMENT)
        return AS_EBADFRAME;
    if (has_inline_body(head->kind) && head->body_len > AS_MAX_INLINE_BODY)
        return AS_EBADFRAME;
    if (head->fields_len > AS_MAX_RESPONSE_HEAD || head->length > len ||
        answer_length(head, head->kind) != head->length)
        return AS_EBADFRAME;
    if (!status_fits(head->kind, head->status))
        return AS_EBADFRAME;
    if (!has_fields(head->kind) && head->fields_len != 0)
        return AS_EBADFRAME;
    if (head->kind == AS_ANSWER_FILE && (head->body_len > INT64_MAX || head->file_offset > INT64_MAX))
        return AS_EBADFRAME;
    if (head->kind == AS_ANSWER_STREAM && head->body_len > INT64_MAX && head->body_len != AS_STREAM_UNKNOWN)
        return AS_EBADFRAME;
    frame->fields = as_str_of(buf + AS_ANSWER_HEAD_LEN, head->fields_len);
    size_t body_len = has_inline_body(head->kind) ? (size_t)head->body_len : 0;
    frame->body = as_str_of(buf + AS_ANSWER_HEAD_LEN + head->fields_len, body_len);
    return (int)head->length;
}
