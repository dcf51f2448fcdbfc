/* pool_document.c: a CGI program's output (RFC 3875 sections 5 and 6). Its header section is read and checked here; what follows goes from the pipe to the client
 * without passing through here again. Most programs write little and are done: when the end of the pipe is met at once, the whole response
 * is memory and gets a length. */
#include "handler/lane.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "http/conditional.h"
#include "http/date.h"
#include "http/response_head.h"

enum {
    READ_SIZE = 8192,
    TURN_READS = 16, /* of one program's output before others get their turn */
    FAULT_LINE = 80, /* of a line in the log */
    DETAIL_SIZE = 320,
};

struct as_document {
    as_watch watch;
    as_deferred work; /* the freeing, when no event can refer to the watch any more */
    as_lane *lane;
    as_pending *pending; /* NULL when it belongs to a response, or to nobody */
    as_buf buf;
    size_t scanned;
    size_t interim; /* bytes of interim responses before the head */
    uint32_t interim_count;
    int64_t read_ns;
    int fd;
    bool is_at_end;    /* the end of the pipe has been read */
    bool is_nph;       /* it begins with a status line */
    size_t script_len; /* of the request's path: the program's name, behind the rule's prefix */
    as_str location;   /* of a local redirect, in the request's arena; the rest of the output is dropped */
};

typedef enum { READ_MORE, READ_NOTHING, READ_END } read_result;

int64_t as_document_read_ns(const as_document *document)
{
    return document->read_ns;
}

static void free_at_last(as_deferred *work)
{
    as_free(AS_CONTAINER_OF(work, as_document, work));
}

void as_document_free(as_document *document)
{
    as_loop *loop = document->lane->home->loop;
    if (document->watch.fd >= 0)
        as_loop_unwatch(loop, &document->watch);
    document->watch.fd = -1;
    document->pending = NULL;
    if (document->fd >= 0)
        close(document->fd);
    document->fd = -1;
    as_buf_free(&document->buf);
    as_loop_defer(loop, &document->work, free_at_last);
}

static void release_body(as_body *body)
{
    as_document_free(body->owner);
}

static read_result read_once(as_document *document, size_t room)
{
    ssize_t n;
    do {
        n = read(document->fd, document->buf.ptr + document->buf.len, room);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return READ_NOTHING;
    if (n <= 0) {
        document->is_at_end = true;
        return READ_END;
    }
    document->buf.len += (size_t)n;
    document->read_ns = document->lane->home->loop->now_ns;
    return READ_MORE;
}

/* Ends the request with 502. The program is told, since nobody reads its output any more. */
static void refuse(as_pending *pending, const char *detail)
{
    if (pending->slot != AS_LANE_NONE)
        as_lane_cancel_slot(pending->lane, pending->slot);
    as_pending_fail(pending, 502, detail);
}

/* By what the program says of it, whether the client has this document already. */
static bool is_known_to_client(const as_request *request, const as_response_head *head)
{
    as_validators validators = {.etag = head->etag, .last_modified = -1};
    if (head->last_modified.len > 0)
        validators.last_modified = as_date_parse(head->last_modified);
    return (request->head.method == AS_METHOD_GET || request->head.method == AS_METHOD_HEAD) &&
           (validators.etag.len > 0 || validators.last_modified >= 0) &&
           as_conditional_check(&request->head, &validators) == 304;
}

/* RFC 3875 section 6.2: a redirect needs no Status. A document without one is answered as a file would be, as in Apache. */
static int status_of(const as_request *request, const as_response_head *head)
{
    if (head->status != 0)
        return head->status;
    if (head->location.len > 0)
        return 302;
    return is_known_to_client(request, head) ? 304 : 200;
}

/* The response's body, which owns the document from now on. `is_whole`: the end of the pipe has been seen and nothing broke. */
static as_body body_of(as_document *document, const as_response_head *head, size_t head_len, bool is_whole)
{
    as_str rest = as_str_of(document->buf.ptr + head_len, document->buf.len - head_len);
    as_body body = {.fd = document->fd, .memory = rest, .release = release_body, .owner = document};
    body.length = head->content_length;
    if (is_whole && (body.length < 0 || (uint64_t)body.length == rest.len)) {
        body.kind = AS_BODY_MEMORY;
        body.length = (int64_t)rest.len;
        return body;
    }
    body.kind = AS_BODY_PIPE;
    body.ends_at_eof = true;
    body.idle_ms = document->lane->options.idle_time_ms;
    body.output_limit = document->lane->options.output_limit;
    return body;
}

/* The chunks of a program that writes them itself go to the client as they are, and nothing after them. */
static as_str own_framing(as_request *request, const as_response_head *head)
{
    return as_arena_printf(&request->arena, "Transfer-Encoding: chunked\r\n%.*s", (int)head->fields.len,
                           head->fields.ptr != NULL ? head->fields.ptr : "");
}

static void fill_response(as_document *document, as_request *request, const as_response_head *head, size_t head_len,
                          bool is_whole)
{
    request->response = (as_response){
        .status = (uint16_t)status_of(request, head),
        .reason = head->reason,
        .fields = head->fields,
        .has_date = head->has_date,
        .has_server = head->has_server,
        .body = body_of(document, head, head_len, is_whole),
    };
    if (document->is_nph && head->transfer_coding.len > 0) {
        request->response.is_framed = true;
        request->response.fields = own_framing(request, head);
        request->response.body.length = -1;
    }
    /* To a HEAD request a program need not write the body, so that its absence says nothing of a length. */
    as_body *body = &request->response.body;
    if (request->head.method == AS_METHOD_HEAD && body->kind == AS_BODY_MEMORY && head->content_length < 0 &&
        body->memory.len == 0)
        body->kind = AS_BODY_NONE;
    if (request->head.method == AS_METHOD_HEAD && head->content_length >= 0)
        body->length = head->content_length;
}

/* Whether the program names a file instead: its output is then let go. */
static bool names_file(as_request *request, bool is_nph)
{
    as_response *response = &request->response;
    if (is_nph || !as_sendfile_is_named(as_pending_sendfile(request), request))
        return false;
    response->fields = as_arena_copy(&request->arena, response->fields);
    response->reason = as_arena_copy(&request->arena, response->reason);
    response->body.release(&response->body);
    response->body = (as_body){.fd = -1};
    return true;
}

/* The document leaves the record for the response. */
static void hand_over(as_document *document)
{
    if (document->watch.fd >= 0)
        as_loop_unwatch(document->lane->home->loop, &document->watch);
    document->watch.fd = -1;
    document->pending->document = NULL;
    document->pending = NULL;
}

/* Reads on in what room there is: `head` borrows from the buffer, which must not move. */
static bool meets_end(as_document *document)
{
    size_t room;
    while ((room = document->buf.capacity - document->buf.len) > 0) {
        read_result result = read_once(document, room);
        if (result != READ_MORE)
            return result == READ_END;
    }
    return false;
}

static void await_news(as_document *document);

/* Local redirects (RFC 3875 section 6.2.2): the program's output is read to its end, so that what it does behind the field has been done. */

/* A cookie is for the client whatever answers it in the end. */
static void keep_cookies(as_request *request, as_str fields)
{
    static const as_str name = AS_STR("set-cookie:");
    while (fields.len > 0) {
        const char *lf = memchr(fields.ptr, '\n', fields.len);
        size_t len = lf != NULL ? (size_t)(lf - fields.ptr) + 1 : fields.len;
        if (len > name.len && as_str_equal_nocase(as_str_of(fields.ptr, name.len), name))
            as_request_add_field(request, as_str_of(fields.ptr, len));
        fields = as_str_of(fields.ptr + len, fields.len - len);
    }
}

/* A fragment is for the client alone, so that a path with one is a redirect for it. */
static bool begins_redirect(as_document *document, const as_response_head *head)
{
    as_request *request = document->pending->request;
    if (document->is_nph || head->status != 0 || head->location.len == 0 || head->location.ptr[0] != '/' ||
        memchr(head->location.ptr, '#', head->location.len) != NULL)
        return false;
    document->location = as_arena_copy(&request->arena, head->location);
    keep_cookies(request, head->fields);
    return true;
}

/* The slot of a program that has not ended waits for it alone. */
static void redirect(as_document *document)
{
    as_pending *pending = document->pending;
    as_str location = document->location;
    size_t script_len = document->script_len;
    hand_over(document);
    as_document_free(document);
    as_request *request = as_pending_free(pending);
    as_str path = request->path;
    size_t len = request->rule_prefix.len + script_len;
    if (len > path.len)
        len = path.len;
    as_request_reenter(request, location, as_str_of(path.ptr, len), as_str_of(path.ptr + len, path.len - len));
}

static void drop_rest(as_document *document)
{
    for (int reads = 0; reads < TURN_READS && !document->is_at_end; reads++) {
        document->buf.len = 0;
        if (read_once(document, document->buf.capacity) == READ_NOTHING)
            return;
    }
    if (document->is_at_end)
        redirect(document);
}

static const char *const too_much_output = "the program's output is larger than limits.output";

/* By what it has said, or written so far. */
static bool is_over_limit(const as_document *document, const as_response_head *head, size_t head_len)
{
    uint64_t limit = document->lane->options.output_limit;
    bool is_to_head = document->pending->request->head.method == AS_METHOD_HEAD;
    if (limit == 0 || is_to_head)
        return false;
    return document->buf.len - head_len > limit ||
           (head->content_length >= 0 && (uint64_t)head->content_length > limit);
}

static void answer(as_document *document, const as_response_head *head, size_t head_len)
{
    if (begins_redirect(document, head)) {
        drop_rest(document);
        return;
    }
    as_pending *pending = document->pending;
    as_lane *lane = document->lane;
    as_request *request = pending->request;
    bool is_news = !document->is_at_end;
    bool is_whole = document->is_at_end || meets_end(document);
    if (is_over_limit(document, head, head_len)) {
        refuse(pending, too_much_output);
        return;
    }
    if (is_whole && is_news && head->content_length < 0) {
        await_news(document);
        return;
    }
    hand_over(document);
    fill_response(document, request, head, head_len, is_whole);
    as_pending_set_phase(pending, AS_PENDING_STREAMING);
    as_timer_clear(lane->home->loop, &pending->timer);
    /* Of what is complete nothing depends on the program any more; its slot waits for it alone. */
    bool is_file = names_file(request, document->is_nph);
    if (is_file || request->response.body.kind != AS_BODY_PIPE)
        as_pending_free(pending);
    if (is_file)
        as_sendfile_respond(as_pending_sendfile(request), request, lane->options.index);
    else
        as_request_respond(request);
}

/* The program has ended, so that nothing more needs to be waited for but what is in the pipe. */
static void answer_at_end(as_document *document, const as_response_head *head, size_t head_len, int status)
{
    if (begins_redirect(document, head)) {
        redirect(document);
        return;
    }
    as_pending *pending = document->pending;
    int pool = document->lane->options.index;
    bool is_nph = document->is_nph;
    bool was_killed = status >= AS_END_SIGNAL;
    bool is_whole = (document->is_at_end || meets_end(document)) && !was_killed;
    if (is_over_limit(document, head, head_len)) {
        as_pending_fail(pending, 502, too_much_output);
        return;
    }
    hand_over(document);
    as_request *request = as_pending_free(pending);
    fill_response(document, request, head, head_len, is_whole);
    if (names_file(request, is_nph)) {
        as_sendfile_respond(as_pending_sendfile(request), request, pool);
        return;
    }
    if (request->response.body.kind == AS_BODY_PIPE)
        as_request_stream_end(request, !was_killed);
    as_request_respond(request);
}

/* What is wrong with a section that is well-formed. */
static int whole_is_bad(as_response_head *head, const char *why)
{
    head->fault = why;
    head->fault_line = AS_STR_NONE;
    return AS_EBADRESPONSE;
}

/* Of a program that writes whole responses; its interim ones are dropped, since what they are about is the server's. HTTP/1.0 has no chunks. */
static int parse_nph(as_document *document, as_response_head *head)
{
    as_request *request = document->pending->request;
    for (;;) {
        const char *begin = document->buf.ptr + document->interim;
        size_t len = document->buf.len - document->interim;
        int n = as_response_nph_parse(begin, len, &document->scanned, &request->arena, head);
        if (n <= 0)
            return n;
        bool is_framed = head->transfer_coding.len > 0;
        if (is_framed && (request->head.minor == 0 || !as_str_equal_nocase(head->transfer_coding, AS_STR("chunked"))))
            return whole_is_bad(head, "its only Transfer-Encoding can be chunked, and that is for HTTP/1.1");
        if (is_framed)
            head->content_length = -1; /* RFC 9112 section 6.3 */
        if (head->status >= 200)
            return (int)document->interim + n;
        if (head->status == 101 || ++document->interim_count > AS_MAX_NPH_INTERIM)
            return whole_is_bad(head, "it is of an interim response that nobody asked for, or one too many");
        document->interim += (size_t)n;
        document->scanned = 0;
    }
}

/* The length of a complete header section (> 0) in what has been read, with `head` filled in; AS_EAGAIN, or why it is refused. */
static int parse_head(as_document *document, as_response_head *head)
{
    if (document->is_nph)
        return parse_nph(document, head);
    as_arena *arena = &document->pending->request->arena;
    int n = as_response_document_parse(document->buf.ptr, document->buf.len, &document->scanned, arena, head);
    if (n <= 0)
        return n;
    if (head->status != 0 && head->status < 200)
        return whole_is_bad(head, "a status below 200 is the server's to send");
    if (head->location.ptr != NULL && head->location.len == 0)
        return whole_is_bad(head, "the Location is empty");
    return n;
}

/* Reads and parses. As parse_head(), but AS_EAGAIN when there is nothing to read now; AS_ECLOSED at the end of the pipe without a section; AS_EFULL after as many reads as a turn allows; else why the section is refused. */
static int read_head(as_document *document, as_response_head *head)
{
    as_buf *buf = &document->buf;
    if (document->is_at_end) {
        int n = parse_head(document, head);
        return n == AS_EAGAIN ? AS_ECLOSED : n;
    }
    for (int reads = 0; reads < TURN_READS; reads++) {
        if (as_buf_reserve(buf, READ_SIZE, AS_MAX_RESPONSE_HEAD + 2 * READ_SIZE) != AS_OK)
            return AS_ERESPONSETOOLARGE;
        read_result result = read_once(document, buf->capacity - buf->len);
        if (result != READ_MORE)
            return result == READ_END ? AS_ECLOSED : AS_EAGAIN;
        int n = parse_head(document, head);
        if (n != AS_EAGAIN)
            return n;
    }
    return AS_EFULL;
}

/* What the log says of a verdict of read_head(), whose `head` has the fault of a malformed section. */
static const char *refusal(const as_document *document, int err, const as_response_head *head, char text[DETAIL_SIZE])
{
    switch (err) {
    case AS_ECLOSED:
        if (document->buf.len == 0)
            return "the program ended its output with no header section: it wrote nothing";
        snprintf(text, DETAIL_SIZE,
                 "the program ended its output with no header section: no empty line is in the %zu bytes that it wrote",
                 document->buf.len);
        return text;
    case AS_ERESPONSETOOLARGE:
        snprintf(text, DETAIL_SIZE,
                 "the program's header section is over its limit: no empty line is in its first %d bytes",
                 AS_MAX_RESPONSE_HEAD);
        return text;
    default:
        if (head->fault_line.ptr == NULL)
            snprintf(text, DETAIL_SIZE, "the program's header section is malformed: %s", head->fault);
        else
            snprintf(text, DETAIL_SIZE, "the program's header section is malformed, line \"%.*s\": %s",
                     head->fault_line.len < FAULT_LINE ? (int)head->fault_line.len : FAULT_LINE, head->fault_line.ptr,
                     head->fault);
        return text;
    }
}

/* The program has only closed its output. */
static void no_news(as_timer *timer)
{
    as_pending *pending = AS_CONTAINER_OF(timer, as_pending, timer);
    as_document *document = pending->document;
    as_response_head head;
    char text[DETAIL_SIZE];
    int n = read_head(document, &head);
    if (n > 0)
        answer(document, &head, (size_t)n);
    else
        refuse(pending, refusal(document, n, &head, text));
}

/* The end of the pipe comes before the word on how that came: the `end` frame, or that the spawner is dead and its programs with it. Until then an
 * output without a stated length cannot be told from one that its program's death has cut short. */
static void await_news(as_document *document)
{
    as_loop *loop = document->lane->home->loop;
    as_loop_unwatch(loop, &document->watch);
    document->watch.fd = -1;
    as_timer_set(loop, &document->pending->timer, no_news, AS_END_NEWS_MS);
}

static void on_output(as_watch *watch, uint32_t epoll_events)
{
    (void)epoll_events;
    as_document *document = AS_CONTAINER_OF(watch, as_document, watch);
    as_pending *pending = document->pending;
    if (pending == NULL)
        return;
    if (document->location.len > 0) {
        drop_rest(document);
        return;
    }
    as_response_head head;
    char text[DETAIL_SIZE];
    int n = read_head(document, &head);
    if (n > 0)
        answer(document, &head, (size_t)n);
    else if (n == AS_ECLOSED)
        await_news(document);
    else if (n != AS_EAGAIN && n != AS_EFULL)
        refuse(pending, refusal(document, n, &head, text));
}

static as_document *make_document(as_pending *pending, const as_answer_head *answer, int fd)
{
    as_document *document = as_alloc(sizeof(*document));
    document->lane = pending->lane;
    document->pending = pending;
    document->fd = fd;
    document->is_nph = (answer->flags & AS_DOCUMENT_NPH) != 0;
    document->script_len = answer->file_offset < AS_DATAGRAM_MAX ? (size_t)answer->file_offset : 0;
    document->read_ns = pending->lane->home->loop->now_ns;
    document->watch = (as_watch){.fd = -1, .ready = on_output};
    pending->document = document;
    as_pending_set_phase(pending, AS_PENDING_DOCUMENT);
    return document;
}

void as_document_begin(as_pending *pending, const as_answer_head *answer, int fd)
{
    as_loop *loop = pending->lane->home->loop;
    as_document *document = make_document(pending, answer, fd);
    as_pending_set_timer(pending);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    document->watch.fd = fd;
    if (as_loop_watch(loop, &document->watch, EPOLLIN) != AS_OK) {
        document->watch.fd = -1;
        refuse(pending, "its program's output cannot be watched");
    }
}

void as_document_end(as_pending *pending, int status)
{
    as_document *document = pending->document;
    if (document->location.len > 0) {
        redirect(document);
        return;
    }
    as_response_head head;
    char text[DETAIL_SIZE];
    int n;
    do {
        n = read_head(document, &head);
    } while (n == AS_EFULL);
    if (n > 0) {
        answer_at_end(document, &head, (size_t)n, status);
        return;
    }
    as_pending_fail(pending, 502, refusal(document, n == AS_EAGAIN ? AS_ECLOSED : n, &head, text));
}

/* A body that is shorter than its program has said is broken off like one that comes through a pipe. */
static int open_ended_pipe(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -1;
    close(ends[1]);
    return ends[0];
}

void as_document_take(as_pending *pending, const as_answer_head *answer, as_str output)
{
    as_document *document = make_document(pending, answer, -1);
    as_response_head head;
    char text[DETAIL_SIZE];
    as_buf_add(&document->buf, output);
    document->is_at_end = true;
    int n = read_head(document, &head);
    if (n > 0 && head.content_length > (int64_t)(output.len - (size_t)n)) {
        document->fd = open_ended_pipe();
        if (document->fd < 0) {
            as_pending_fail(pending, 503, NULL);
            return;
        }
    }
    if (n > 0)
        answer_at_end(document, &head, (size_t)n, answer->status);
    else
        as_pending_fail(pending, 502, refusal(document, n, &head, text));
}

bool as_document_is_unwanted(const as_pending *pending)
{
    const as_request *request = pending->request;
    const as_body *body = &request->response.body;
    if (!pending->lane->slots[pending->slot].is_document)
        return true;
    /* The client may have all that it was promised, while the program still works on something else. */
    if (request->head.method == AS_METHOD_HEAD || request->response.status == 204 || request->response.status == 304)
        return false;
    if (body->length >= 0)
        return !as_request_has_all(request);
    struct pollfd pipe = {.fd = body->fd, .events = POLLIN};
    return poll(&pipe, 1, 0) <= 0 || (pipe.revents & (POLLIN | POLLHUP)) != POLLHUP;
}
