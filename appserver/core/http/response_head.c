#include "http/response_head.h"

#include "http/head.h"

/* What a field line means to the core. */
typedef enum meaning {
    PASS,
    DROP, /* the connection's own: RFC 9110 section 7.6.1 */
    CODING,
    STATUS,
    LENGTH,
    LOCATION,
    TYPE,
    DATE,
    SERVER,
    ETAG,
    MODIFIED,
} meaning;

static meaning meaning_of(as_str name)
{
    static const struct {
        as_str name;
        meaning meaning;
    } known[] = {
        {AS_STR("content-type"), TYPE},
        {AS_STR("content-length"), LENGTH},
        {AS_STR("status"), STATUS},
        {AS_STR("location"), LOCATION},
        {AS_STR("date"), DATE},
        {AS_STR("server"), SERVER},
        {AS_STR("etag"), ETAG},
        {AS_STR("last-modified"), MODIFIED},
        {AS_STR("connection"), DROP},
        {AS_STR("keep-alive"), DROP},
        {AS_STR("proxy-connection"), DROP},
        {AS_STR("te"), DROP},
        {AS_STR("trailer"), DROP},
        {AS_STR("transfer-encoding"), CODING},
        {AS_STR("upgrade"), DROP},
    };
    char first = (char)(name.ptr[0] | 0x20);
    for (size_t i = 0; i < AS_COUNT_OF(known); i++) {
        if (known[i].name.len == name.len && known[i].name.ptr[0] == first && as_str_equal_nocase(known[i].name, name))
            return known[i].meaning;
    }
    return PASS;
}

static bool clean_value(as_str value)
{
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static int fault(as_response_head *head, const char *why)
{
    head->fault = why;
    return AS_EBADRESPONSE;
}

static int take_status(as_str value, as_response_head *head)
{
    int64_t status = -1;
    if (value.len >= 3 && (value.len == 3 || value.ptr[3] == ' '))
        status = as_str_to_i64(as_str_of(value.ptr, 3));
    if (status < 100 || status > 599)
        return fault(head, "a status is three digits, 100 to 599, and maybe a space and a reason");
    head->status = (int)status;
    head->reason = value.len > 3 ? as_str_trim(as_str_of(value.ptr + 3, value.len - 3)) : AS_STR_NONE;
    return AS_OK;
}

static int take_length(as_str value, as_response_head *head)
{
    int64_t length = as_str_to_i64(value);
    if (length < 0)
        return fault(head, "a length is a number of bytes");
    if (head->content_length >= 0 && head->content_length != length)
        return fault(head, "it is the second Content-Length, and another one");
    head->content_length = length;
    return AS_OK;
}

/* One line without its end; `*keep` says whether it goes to the client. */
static int take_line(as_str line, as_response_head *head, bool *keep)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    if (colon == NULL)
        return fault(head, "it has no colon, and no empty line has come yet");
    as_str name = as_str_of(line.ptr, (size_t)(colon - line.ptr));
    as_str value = as_str_trim(as_str_of(colon + 1, line.len - name.len - 1));
    if (!as_is_token(name))
        return fault(head, "what stands before the colon is no name of a field");
    if (!clean_value(value))
        return fault(head, "it has a control character in it");
    meaning what = meaning_of(name);
    *keep = what != DROP && what != STATUS && what != LENGTH && what != CODING;
    switch (what) {
    case STATUS:
        return take_status(value, head);
    case LENGTH:
        return take_length(value, head);
    case CODING:
        head->transfer_coding = value;
        return AS_OK;
    case LOCATION:
        head->location = value;
        return AS_OK;
    case TYPE:
        head->content_type = value;
        return AS_OK;
    case ETAG:
        head->etag = value;
        return AS_OK;
    case MODIFIED:
        head->last_modified = value;
        return AS_OK;
    case DATE:
        head->has_date = true;
        return AS_OK;
    case SERVER:
        head->has_server = true;
        return AS_OK;
    default:
        return AS_OK;
    }
}

/* The lines that are kept, as they will be sent. While every line so far is kept as it stands in the input, nothing is copied. */
typedef struct kept {
    as_arena *arena;
    const char *begin;
    size_t len;
    size_t input_len;
    char *copy;
} kept;

static void start_copy(kept *k)
{
    char *copy = as_arena_alloc(k->arena, k->input_len + 2 * AS_MAX_RESPONSE_FIELDS);
    if (k->len > 0)
        memcpy(copy, k->begin, k->len);
    k->copy = copy;
}

static void keep_line(kept *k, as_str line, bool crlf)
{
    if (k->copy == NULL && crlf && line.ptr == k->begin + k->len) {
        k->len += line.len + 2;
        return;
    }
    if (k->copy == NULL)
        start_copy(k);
    memcpy(k->copy + k->len, line.ptr, line.len);
    memcpy(k->copy + k->len + line.len, "\r\n", 2);
    k->len += line.len + 2;
}

/* With this line Python's cgitb begins its page of a traceback, so that it is a comment where it does not stand among the fields. It is no field, because of its
 * name, and goes to nobody. */
static bool is_of_cgitb(as_str line)
{
    return as_str_equal(line, AS_STR("<!--: spam"));
}

/* Takes lines until an empty one or the end. `lf_only`: a bare LF ends a line as well. Returns bytes consumed or a negative as_err. */
static int parse_lines(as_str input, bool lf_only, as_arena *arena, as_response_head *head, int *fields)
{
    *head = (as_response_head){.content_length = -1};
    kept k = {.arena = arena, .begin = input.ptr, .input_len = input.len};
    const char *at = input.ptr, *end = input.ptr + input.len;
    *fields = 0;
    while (at < end) {
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        head->fault_line = as_str_of(at, (size_t)((lf != NULL ? lf : end) - at));
        bool crlf = lf != NULL && lf > at && lf[-1] == '\r';
        if (lf == NULL || (!crlf && !lf_only))
            return fault(head, "it does not end in CR LF");
        as_str line = as_str_of(at, (size_t)(lf - at) - crlf);
        head->fault_line = line;
        at = lf + 1;
        if (line.len == 0)
            break;
        if (++*fields > AS_MAX_RESPONSE_FIELDS)
            return fault(head, "it is one field too many");
        bool keep = false;
        int err = lf_only && is_of_cgitb(line) ? AS_OK : take_line(line, head, &keep);
        if (err != AS_OK)
            return err;
        if (keep)
            keep_line(&k, line, crlf);
        else if (k.copy == NULL)
            start_copy(&k);
    }
    head->fields = as_str_of(k.copy != NULL ? k.copy : k.begin, k.len);
    return (int)(at - input.ptr);
}

int as_response_fields_parse(as_str block, as_arena *arena, as_response_head *head)
{
    int fields;
    int n = parse_lines(block, false, arena, head, &fields);
    if (n < 0)
        return n;
    /* An empty line inside the block would end the head early. */
    return (size_t)n == block.len ? AS_OK : fault(head, "it is empty, and more lines follow");
}

/* Where the section ends: behind its first empty line. */
static int find_end(const char *buf, size_t len, size_t *scanned)
{
    size_t at = *scanned;
    while (at < len) {
        const char *lf = memchr(buf + at, '\n', len - at);
        if (lf == NULL)
            break;
        size_t line = (size_t)(lf - buf) - at;
        at = (size_t)(lf - buf) + 1;
        if (line == 0 || (line == 1 && lf[-1] == '\r'))
            return (int)at;
        *scanned = at;
    }
    return AS_EAGAIN;
}

int as_response_document_parse(const char *buf, size_t len, size_t *scanned, as_arena *arena, as_response_head *head)
{
    size_t look = len < AS_MAX_RESPONSE_HEAD ? len : AS_MAX_RESPONSE_HEAD;
    int n = find_end(buf, look, scanned);
    if (n == AS_EAGAIN)
        return len >= AS_MAX_RESPONSE_HEAD ? AS_ERESPONSETOOLARGE : AS_EAGAIN;
    int fields;
    int consumed = parse_lines(as_str_of(buf, (size_t)n), true, arena, head, &fields);
    if (consumed < 0)
        return consumed;
    return fields > 0 ? consumed : fault(head, "it is empty, and no field came before it");
}

/* "HTTP/1.x NNN reason" without its end. */
static int take_status_line(as_str line, as_response_head *head)
{
    if (line.len < 12 || !as_str_starts(line, AS_STR("HTTP/1.")) || line.ptr[7] < '0' || line.ptr[7] > '9' ||
        line.ptr[8] != ' ' || !clean_value(line))
        return fault(head, "it is no status line, with which all that an nph- program writes begins");
    return take_status(as_str_of(line.ptr + 9, line.len - 9), head);
}

int as_response_nph_parse(const char *buf, size_t len, size_t *scanned, as_arena *arena, as_response_head *head)
{
    size_t look = len < AS_MAX_RESPONSE_HEAD ? len : AS_MAX_RESPONSE_HEAD;
    int n = find_end(buf, look, scanned);
    if (n == AS_EAGAIN)
        return len >= AS_MAX_RESPONSE_HEAD ? AS_ERESPONSETOOLARGE : AS_EAGAIN;
    const char *lf = memchr(buf, '\n', (size_t)n);
    size_t line_len = (size_t)(lf - buf);
    if (line_len > 0 && buf[line_len - 1] == '\r')
        line_len--;
    as_response_head first = {.fault_line = as_str_of(buf, line_len)};
    if (take_status_line(first.fault_line, &first) != AS_OK) {
        *head = first;
        return AS_EBADRESPONSE;
    }
    size_t begin = (size_t)(lf - buf) + 1;
    int fields;
    int consumed = parse_lines(as_str_of(buf + begin, (size_t)n - begin), true, arena, head, &fields);
    head->status = first.status;
    head->reason = first.reason;
    return consumed < 0 ? consumed : (int)begin + consumed;
}

as_str as_status_reason(int status)
{
    static const struct {
        int status;
        as_str reason;
    } reasons[] = {
        {200, AS_STR("OK")},
        {304, AS_STR("Not Modified")},
        {404, AS_STR("Not Found")},
        {206, AS_STR("Partial Content")},
        {301, AS_STR("Moved Permanently")},
        {302, AS_STR("Found")},
        {204, AS_STR("No Content")},
        {100, AS_STR("Continue")},
        {101, AS_STR("Switching Protocols")},
        {103, AS_STR("Early Hints")},
        {201, AS_STR("Created")},
        {202, AS_STR("Accepted")},
        {203, AS_STR("Non-Authoritative Information")},
        {205, AS_STR("Reset Content")},
        {207, AS_STR("Multi-Status")},
        {208, AS_STR("Already Reported")},
        {300, AS_STR("Multiple Choices")},
        {303, AS_STR("See Other")},
        {307, AS_STR("Temporary Redirect")},
        {308, AS_STR("Permanent Redirect")},
        {400, AS_STR("Bad Request")},
        {401, AS_STR("Unauthorized")},
        {402, AS_STR("Payment Required")},
        {403, AS_STR("Forbidden")},
        {405, AS_STR("Method Not Allowed")},
        {406, AS_STR("Not Acceptable")},
        {407, AS_STR("Proxy Authentication Required")},
        {408, AS_STR("Request Timeout")},
        {409, AS_STR("Conflict")},
        {410, AS_STR("Gone")},
        {411, AS_STR("Length Required")},
        {412, AS_STR("Precondition Failed")},
        {413, AS_STR("Content Too Large")},
        {414, AS_STR("URI Too Long")},
        {415, AS_STR("Unsupported Media Type")},
        {416, AS_STR("Range Not Satisfiable")},
        {417, AS_STR("Expectation Failed")},
        {418, AS_STR("I'm a teapot")},
        {421, AS_STR("Misdirected Request")},
        {422, AS_STR("Unprocessable Content")},
        {423, AS_STR("Locked")},
        {424, AS_STR("Failed Dependency")},
        {425, AS_STR("Too Early")},
        {426, AS_STR("Upgrade Required")},
        {428, AS_STR("Precondition Required")},
        {429, AS_STR("Too Many Requests")},
        {431, AS_STR("Request Header Fields Too Large")},
        {451, AS_STR("Unavailable For Legal Reasons")},
        {500, AS_STR("Internal Server Error")},
        {501, AS_STR("Not Implemented")},
        {502, AS_STR("Bad Gateway")},
        {503, AS_STR("Service Unavailable")},
        {504, AS_STR("Gateway Timeout")},
        {505, AS_STR("HTTP Version Not Supported")},
        {507, AS_STR("Insufficient Storage")},
        {508, AS_STR("Loop Detected")},
        {511, AS_STR("Network Authentication Required")},
    };
    for (size_t i = 0; i < AS_COUNT_OF(reasons); i++) {
        if (reasons[i].status == status)
            return reasons[i].reason;
    }
    return AS_STR("Unknown");
}
