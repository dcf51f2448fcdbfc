/* with: */
#include "handler/frame.c"

#include "check.h"
#include "handler/slot.h"

enum { SPACE = 1024 };

static size_t request_bytes(char *out, const char *environment, size_t environment_len, const char *body)
{
    as_request_head head = {
        .slot = 7,
        .loop = 3,
        .request_id = 0x0102030405060708,
        .deadline_ns = 99,
        .environment_len = (uint32_t)environment_len,
        .body_len = strlen(body),
    };
    as_request_frame_begin(&head, AS_REQUEST_RUN, out);
    memcpy(out + AS_REQUEST_HEAD_LEN, environment, environment_len);
    memcpy(out + AS_REQUEST_HEAD_LEN + environment_len, body, strlen(body));
    return AS_REQUEST_HEAD_LEN + environment_len + strlen(body);
}

static size_t answer_bytes(char *out, as_answer_kind kind, uint16_t status, const char *fields, const char *body)
{
    as_answer_head head = {
        .slot = 7,
        .status = status,
        .request_id = 0x0102030405060708,
        .fields_len = (uint32_t)strlen(fields),
        .run_us = 12,
        .cpu_us = 11,
        .body_len = strlen(body),
        .file_offset = 0,
    };
    as_answer_frame_begin(&head, kind, out);
    memcpy(out + AS_ANSWER_HEAD_LEN, fields, strlen(fields));
    memcpy(out + AS_ANSWER_HEAD_LEN + strlen(fields), body, strlen(body));
    return AS_ANSWER_HEAD_LEN + strlen(fields) + strlen(body);
}

/* The offsets of the document, by bytes rather than by the structs that the code uses. */
static void test_request_layout(void)
{
    char buf[SPACE];
    size_t len = request_bytes(buf, "A\0b\0", 4, "xyz");
    CHECK_INT(len, 55);
    uint32_t u32;
    uint16_t u16;
    uint64_t u64;
    memcpy(&u32, buf, 4);
    CHECK_INT(u32, 55);
    memcpy(&u16, buf + 4, 2);
    CHECK_INT(u16, 2);
    memcpy(&u16, buf + 6, 2);
    CHECK_INT(u16, 1);
    memcpy(&u32, buf + 8, 4);
    CHECK_INT(u32, 7);
    memcpy(&u32, buf + 12, 4);
    CHECK_INT(u32, 3);
    memcpy(&u64, buf + 16, 8);
    CHECK(u64 == 0x0102030405060708);
    memcpy(&u64, buf + 24, 8);
    CHECK_INT(u64, 99);
    memcpy(&u32, buf + 32, 4);
    CHECK_INT(u32, 4);
    memcpy(&u32, buf + 36, 4);
    CHECK_INT(u32, 0);
    memcpy(&u64, buf + 40, 8);
    CHECK_INT(u64, 3);
}

static void test_request_round_trip(void)
{
    char buf[SPACE];
    size_t len = request_bytes(buf, "A\0b\0", 4, "xyz");
    as_request_frame frame;
    CHECK_INT(as_request_frame_decode(buf, len, &frame), len);
    CHECK_INT(frame.environment.len, 4);
    CHECK_STR(frame.body, "xyz");
    CHECK_INT(frame.head.kind, AS_REQUEST_RUN);
    /* with another frame behind it */
    size_t second = request_bytes(buf + len, "C\0d\0", 4, "");
    CHECK_INT(as_request_frame_decode(buf, len + second, &frame), len);
    CHECK_INT(as_request_frame_decode(buf + len, second, &frame), second);
    CHECK_INT(frame.body.len, 0);
}

static void test_request_with_fd(void)
{
    char buf[AS_REQUEST_HEAD_LEN];
    as_request_head head = {.flags = AS_REQUEST_BODY_FD, .body_len = 1ull << 40};
    as_request_frame frame;
    as_request_frame_begin(&head, AS_REQUEST_RUN, buf);
    CHECK_INT(as_request_frame_decode(buf, sizeof(buf), &frame), AS_REQUEST_HEAD_LEN);
    CHECK(frame.head.body_len == 1ull << 40);
    CHECK_INT(frame.body.len, 0);

    head = (as_request_head){.flags = AS_REQUEST_BODY_STREAM, .body_len = AS_STREAM_UNKNOWN};
    as_request_frame_begin(&head, AS_REQUEST_RUN, buf);
    CHECK_INT(as_request_frame_decode(buf, sizeof(buf), &frame), AS_REQUEST_HEAD_LEN);
    CHECK(frame.head.body_len == AS_STREAM_UNKNOWN);
    CHECK_INT(frame.body.len, 0);

    head = (as_request_head){.flags = AS_REQUEST_UPGRADE};
    as_request_frame_begin(&head, AS_REQUEST_RUN, buf);
    CHECK_INT(as_request_frame_decode(buf, sizeof(buf), &frame), AS_REQUEST_HEAD_LEN);
    head.body_len = 1;
    as_request_frame_begin(&head, AS_REQUEST_RUN, buf);
    CHECK_INT(as_request_frame_decode(buf, sizeof(buf), &frame), AS_EBADFRAME);
    /* a file of unknown length, and descriptors that would be two things at once */
    head = (as_request_head){.flags = AS_REQUEST_BODY_FD, .body_len = AS_STREAM_UNKNOWN};
    as_request_frame_begin(&head, AS_REQUEST_RUN, buf);
    CHECK_INT(as_request_frame_decode(buf, sizeof(buf), &frame), AS_EBADFRAME);
    for (uint32_t flags = 3; flags <= 7; flags += flags == 3 ? 2 : 1) {
        head = (as_request_head){.flags = flags};
        as_request_frame_begin(&head, AS_REQUEST_RUN, buf);
        CHECK_INT(as_request_frame_decode(buf, sizeof(buf), &frame), AS_EBADFRAME);
    }
}

static void test_cancel(void)
{
    char buf[SPACE];
    as_request_head head = {.slot = 1, .request_id = 2};
    as_request_frame frame;
    as_request_frame_begin(&head, AS_REQUEST_CANCEL, buf);
    CHECK_INT(as_request_frame_decode(buf, AS_REQUEST_HEAD_LEN, &frame), AS_REQUEST_HEAD_LEN);
    CHECK_INT(frame.head.kind, AS_REQUEST_CANCEL);
    head.environment_len = 4;
    as_request_frame_begin(&head, AS_REQUEST_CANCEL, buf);
    memcpy(buf + AS_REQUEST_HEAD_LEN, "A\0b\0", 4);
    CHECK_INT(as_request_frame_decode(buf, AS_REQUEST_HEAD_LEN + 4, &frame), AS_EBADFRAME);
}

static void poke(char *buf, size_t offset, uint64_t value, size_t size)
{
    memcpy(buf + offset, &value, size);
}

static void test_bad_requests(void)
{
    static const struct {
        size_t offset;
        uint64_t value;
        size_t size;
    } changes[] = {
        {0, 54, 4}, {0, 56, 4}, {0, 0, 4},           {4, 1, 2},  {4, 3, 2},           {6, 0, 2},
        {6, 3, 2},  {32, 5, 4}, {32, UINT32_MAX, 4}, {40, 4, 8}, {40, UINT64_MAX, 8}, {40, 64 * 1024 + 1, 8},
        {36, 1, 4},
    };
    char buf[SPACE];
    as_request_frame frame;
    for (size_t i = 0; i < AS_COUNT_OF(changes); i++) {
        size_t len = request_bytes(buf, "A\0b\0", 4, "xyz");
        poke(buf, changes[i].offset, changes[i].value, changes[i].size);
        CHECK_INT(as_request_frame_decode(buf, len, &frame), AS_EBADFRAME);
    }
    size_t len = request_bytes(buf, "A\0bc", 4, "xyz");
    CHECK_INT(as_request_frame_decode(buf, len, &frame), AS_EBADFRAME);
    len = request_bytes(buf, "A\0b\0", 4, "xyz");
    for (size_t cut = 0; cut < len; cut++)
        CHECK_INT(as_request_frame_decode(buf, cut, &frame), AS_EBADFRAME);
}

static void test_answers(void)
{
    char buf[SPACE];
    as_answer_frame frame;
    size_t len = answer_bytes(buf, AS_ANSWER_RESPONSE, 201, "A: b\r\n", "body");
    CHECK_INT(as_answer_frame_decode(buf, len, &frame), len);
    CHECK_STR(frame.fields, "A: b\r\n");
    CHECK_STR(frame.body, "body");
    CHECK_INT(frame.head.status, 201);
    CHECK_INT(frame.head.run_us, 12);
    uint16_t u16;
    memcpy(&u16, buf + 12, 2);
    CHECK_INT(u16, 201);
    uint32_t u32;
    memcpy(&u32, buf + 48, 4);
    CHECK_INT(u32, 11);
    for (size_t cut = 0; cut < len; cut++)
        CHECK_INT(as_answer_frame_decode(buf, cut, &frame), AS_EBADFRAME);

    as_answer_head stream = {.status = 200, .body_len = AS_STREAM_UNKNOWN};
    as_answer_frame_begin(&stream, AS_ANSWER_STREAM, buf);
    CHECK_INT(as_answer_frame_decode(buf, AS_ANSWER_HEAD_LEN, &frame), AS_ANSWER_HEAD_LEN);
    as_answer_head end = {.status = AS_END_SIGNAL + 9};
    as_answer_frame_begin(&end, AS_ANSWER_END, buf);
    CHECK_INT(as_answer_frame_decode(buf, AS_ANSWER_HEAD_LEN, &frame), AS_ANSWER_HEAD_LEN);
    CHECK_INT(frame.head.status, 265);

    len = answer_bytes(buf, AS_ANSWER_END, 0, "Digest: x\r\n", "");
    CHECK_INT(as_answer_frame_decode(buf, len, &frame), len);
    CHECK_STR(frame.fields, "Digest: x\r\n");
    len = answer_bytes(buf, AS_ANSWER_INFORMATIONAL, 103, "Link: </a>\r\n", "");
    CHECK_INT(as_answer_frame_decode(buf, len, &frame), len);
    CHECK_STR(frame.fields, "Link: </a>\r\n");
    len = answer_bytes(buf, AS_ANSWER_WHOLE_DOCUMENT, 3, "", "A: b\n\nbody");
    CHECK_INT(as_answer_frame_decode(buf, len, &frame), len);
    CHECK_INT(frame.head.status, 3);
    CHECK_STR(frame.body, "A: b\n\nbody");
    len = answer_bytes(buf, AS_ANSWER_UPGRADE, 101, "Upgrade: websocket\r\n", "");
    CHECK_INT(as_answer_frame_decode(buf, len, &frame), len);
    CHECK_INT(frame.head.status, 101);
}

static void test_bad_answers(void)
{
    static const struct {
        as_answer_kind kind;
        size_t offset;
        uint64_t value;
        size_t size;
    } changes[] = {
        {AS_ANSWER_RESPONSE, 0, 55, 4},          {AS_ANSWER_RESPONSE, 0, 1000, 4},
        {AS_ANSWER_RESPONSE, 4, 0, 2},           {AS_ANSWER_RESPONSE, 6, 0, 2},
        {AS_ANSWER_RESPONSE, 6, 9, 2},           {AS_ANSWER_RESPONSE, 12, 199, 2},
        {AS_ANSWER_RESPONSE, 12, 600, 2},        {AS_ANSWER_RESPONSE, 24, 7, 4},
        {AS_ANSWER_RESPONSE, 24, UINT32_MAX, 4}, {AS_ANSWER_RESPONSE, 32, 1, 8},
        {AS_ANSWER_RESPONSE, 32, UINT64_MAX, 8}, {AS_ANSWER_FILE, 12, 0, 2},
        {AS_ANSWER_FILE, 32, UINT64_MAX, 8},     {AS_ANSWER_FILE, 40, 1ull << 63, 8},
        {AS_ANSWER_STREAM, 32, 1ull << 63, 8},
    };
    char buf[SPACE];
    as_answer_frame frame;
    for (size_t i = 0; i < AS_COUNT_OF(changes); i++) {
        size_t len = answer_bytes(buf, changes[i].kind, 200, "A: b\r\n", "");
        CHECK_INT(as_answer_frame_decode(buf, len, &frame), len);
        poke(buf, changes[i].offset, changes[i].value, changes[i].size);
        CHECK_INT(as_answer_frame_decode(buf, len, &frame), AS_EBADFRAME);
    }
    static const struct {
        as_answer_kind kind;
        uint16_t status;
    } statuses[] = {
        {AS_ANSWER_INFORMATIONAL, 100}, {AS_ANSWER_INFORMATIONAL, 101}, {AS_ANSWER_INFORMATIONAL, 200},
        {AS_ANSWER_UPGRADE, 100},       {AS_ANSWER_UPGRADE, 200},       {AS_ANSWER_RESPONSE, 103},
    };
    for (size_t i = 0; i < AS_COUNT_OF(statuses); i++) {
        size_t len = answer_bytes(buf, statuses[i].kind, statuses[i].status, "A: b\r\n", "");
        CHECK_INT(as_answer_frame_decode(buf, len, &frame), AS_EBADFRAME);
    }
    /* header blocks where there must be none */
    size_t len = answer_bytes(buf, AS_ANSWER_DOCUMENT, 0, "A: b\r\n", "");
    CHECK_INT(as_answer_frame_decode(buf, len, &frame), AS_EBADFRAME);
    len = answer_bytes(buf, AS_ANSWER_SKIPPED, 0, "A: b\r\n", "");
    CHECK_INT(as_answer_frame_decode(buf, len, &frame), AS_EBADFRAME);
    len = answer_bytes(buf, AS_ANSWER_WHOLE_DOCUMENT, 0, "A: b\r\n", "x");
    CHECK_INT(as_answer_frame_decode(buf, len, &frame), AS_EBADFRAME);
    len = answer_bytes(buf, AS_ANSWER_WHOLE_DOCUMENT, 0, "", "x");
    poke(buf, 6, AS_ANSWER_WHOLE_DOCUMENT + 1, 2);
    CHECK_INT(as_answer_frame_decode(buf, len, &frame), AS_EBADFRAME);
}

static void test_slot_segment(void)
{
    CHECK_INT(as_slot_segment_size(3), 64 + 3 * 64);
    static as_slot_header space[2];
    CHECK((char *)as_slot_records(space) == (char *)space + 64);
}

int main(void)
{
    test_request_layout();
    test_request_round_trip();
    test_request_with_fd();
    test_cancel();
    test_bad_requests();
    test_answers();
    test_bad_answers();
    test_slot_segment();
    return check_result("frame");
}
