/* head.c: the request head.
 *
 * Two passes: the first finds the end of the head line by line (memchr), so that a head that drips in is looked at once and a bare LF is refused when it arrives;
 * the second takes the whole head apart. Long runs (lines, targets, values) are scanned in vector registers: by the C library's memchr and by base/scan; short ones
 * (methods, names) byte by byte with one table. */
#include "http/head.h"

#include "base/scan.h"

enum {
    CLASS_TOKEN = 1, /* tchar, RFC 9110 section 5.6.2 */
    CLASS_HOST = 2,  /* unreserved and sub-delims of a reg-name, without '%' */
    CLASS_DIGIT = 4,
};

static uint8_t classes[256];

__attribute__((constructor)) static void fill_classes(void)
{
    for (int c = '0'; c <= '9'; c++)
        classes[c] |= CLASS_TOKEN | CLASS_HOST | CLASS_DIGIT;
    for (int c = 'a'; c <= 'z'; c++) {
        classes[c] |= CLASS_TOKEN | CLASS_HOST;
        classes[c - 'a' + 'A'] |= CLASS_TOKEN | CLASS_HOST;
    }
    for (const char *c = "!#$%&'*+-.^_`|~"; *c; c++)
        classes[(uint8_t)*c] |= CLASS_TOKEN;
    for (const char *c = "-._~!$&'()*+,;="; *c; c++)
        classes[(uint8_t)*c] |= CLASS_HOST;
}

static bool all_of(as_str s, uint8_t wanted)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!(classes[(uint8_t)s.ptr[i]] & wanted))
            return false;
    }
    return true;
}

bool as_is_token(as_str s)
{
    return s.len > 0 && all_of(s, CLASS_TOKEN);
}

static bool is_ip_literal(as_str s)
{
    if (s.len < 4 || s.ptr[0] != '[' || s.ptr[s.len - 1] != ']')
        return false;
    for (size_t i = 1; i + 1 < s.len; i++) {
        char c = s.ptr[i];
        bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        if (!hex && c != ':' && c != '.')
            return false;
    }
    return memchr(s.ptr, ':', s.len) != NULL;
}

bool as_is_host_port(as_str s)
{
    as_str host = s;
    const char *bracket = s.len > 0 && s.ptr[0] == '[' ? memchr(s.ptr, ']', s.len) : NULL;
    const char *from = bracket != NULL ? bracket : s.ptr;
    const char *colon = s.len > 0 ? memchr(from, ':', (size_t)(s.ptr + s.len - from)) : NULL;
    if (colon != NULL) {
        as_str port = as_str_of(colon + 1, (size_t)(s.ptr + s.len - colon) - 1);
        host.len = (size_t)(colon - s.ptr);
        if (port.len > 5 || !all_of(port, CLASS_DIGIT))
            return false;
    }
    if (host.len == 0)
        return false;
    return host.ptr[0] == '[' ? is_ip_literal(host) : all_of(host, CLASS_HOST);
}

bool as_list_has_token(as_str list, as_str token)
{
    as_str member;
    while (as_str_next_member(&list, &member)) {
        if (as_str_equal_nocase(member, token))
            return true;
    }
    return false;
}

/* Where the head begins: some clients send an empty line behind an earlier body (RFC 9112 section 2.2). Negative: too many. */
static int leading_lines(const char *buf, size_t len)
{
    size_t at = 0;
    for (int lines = 0; at + 1 < len && buf[at] == '\r' && buf[at + 1] == '\n'; lines++) {
        if (lines == AS_MAX_LEADING_CRLF)
            return AS_EBADREQUEST;
        at += 2;
    }
    return (int)at;
}

/* Whether the first bytes can be the beginning of a request line: what cannot is refused before its line is complete. */
static int check_start(const char *line, size_t len)
{
    size_t at = 0;
    while (at < len && classes[(uint8_t)line[at]] & CLASS_TOKEN)
        at++;
    if (at > AS_MAX_METHOD_LEN)
        return AS_EBADREQUEST;
    if (at == len || (at == 0 && line[0] == '\r' && len == 1))
        return AS_OK;
    if (at == 0 || line[at] != ' ')
        return AS_EBADREQUEST;
    for (at++; at < len; at++) {
        at += as_scan_visible(line + at, len - at);
        if (at == len || line[at] == '\r')
            return AS_OK;
        if (line[at] != ' ')
            return AS_EBADREQUEST;
    }
    return AS_OK;
}

/* Bytes of the head from `start`, including its empty line; or AS_EAGAIN and so on. */
static int find_end(const char *buf, size_t len, size_t start, size_t *scanned, const as_limits *limits)
{
    size_t at = *scanned > start ? *scanned : start;
    for (;;) {
        const char *lf = at < len ? memchr(buf + at, '\n', len - at) : NULL;
        if (lf == NULL)
            break;
        size_t end = (size_t)(lf - buf);
        if (end == start || buf[end - 1] != '\r')
            return AS_EBADREQUEST;
        at = end + 1;
        *scanned = at;
        if (end >= start + 3 && buf[end - 2] == '\n') {
            if (at - start > limits->header_size)
                return AS_EHEADTOOLARGE;
            return (int)at;
        }
    }
    const char *first_lf = len > start ? memchr(buf + start, '\n', len - start) : NULL;
    size_t line = (first_lf != NULL ? (size_t)(first_lf - buf) : len) - start;
    int err = check_start(buf + start, line);
    if (err != AS_OK)
        return err;
    if (line > limits->target_size + AS_MAX_METHOD_LEN + sizeof(" HTTP/1.1\r\n"))
        return AS_EURITOOLONG;
    return len - start >= limits->header_size ? AS_EHEADTOOLARGE : AS_EAGAIN;
}

static as_method method_of(as_str text)
{
    static const struct {
        as_str text;
        as_method method;
    } methods[] = {
        {AS_STR("GET"), AS_METHOD_GET},         {AS_STR("HEAD"), AS_METHOD_HEAD},
        {AS_STR("POST"), AS_METHOD_POST},       {AS_STR("PUT"), AS_METHOD_PUT},
        {AS_STR("DELETE"), AS_METHOD_DELETE},   {AS_STR("OPTIONS"), AS_METHOD_OPTIONS},
        {AS_STR("PATCH"), AS_METHOD_PATCH},     {AS_STR("TRACE"), AS_METHOD_TRACE},
        {AS_STR("CONNECT"), AS_METHOD_CONNECT},
    };
    for (size_t i = 0; i < AS_COUNT_OF(methods); i++) {
        if (as_str_equal(methods[i].text, text))
            return methods[i].method;
    }
    return AS_METHOD_OTHER;
}

static int parse_version(as_str text, as_head *head)
{
    if (text.len != 8 || memcmp(text.ptr, "HTTP/", 5) != 0 || text.ptr[6] != '.' ||
        !(classes[(uint8_t)text.ptr[5]] & CLASS_DIGIT) || !(classes[(uint8_t)text.ptr[7]] & CLASS_DIGIT))
        return AS_EBADREQUEST;
    if (text.ptr[5] != '1')
        return AS_EVERSION;
    /* A higher minor version is answered as the highest that we have (RFC 9110 section 2.5). */
    head->minor = text.ptr[7] == '0' ? 0 : 1;
    return AS_OK;
}

/* Request line without its CRLF. */
static int parse_request_line(as_str line, const as_limits *limits, as_head *head)
{
    const char *end = line.ptr + line.len;
    const char *space = memchr(line.ptr, ' ', line.len);
    if (space == NULL)
        return AS_EBADREQUEST;
    as_str method = as_str_of(line.ptr, (size_t)(space - line.ptr));
    if (!as_is_token(method) || method.len > AS_MAX_METHOD_LEN)
        return AS_EBADREQUEST;
    head->method_text = method;
    head->method = method_of(method);
    const char *second = memchr(space + 1, ' ', (size_t)(end - space) - 1);
    if (second == NULL)
        return AS_EBADREQUEST; /* HTTP/0.9 */
    head->target = as_str_of(space + 1, (size_t)(second - space) - 1);
    /* What is allowed where in a target is the target parser's to say. */
    if (head->target.len == 0 || as_scan_visible(head->target.ptr, head->target.len) < head->target.len)
        return AS_EBADREQUEST;
    /* Before the version: a target that drips in is refused before its version is there, and the answer must not depend on the packets. */
    if (head->target.len > limits->target_size)
        return AS_EURITOOLONG;
    return parse_version(as_str_of(second + 1, (size_t)(end - second) - 1), head);
}

/* By length first: at most three comparisons for a name. */
static int known_field(as_str name)
{
    static const struct {
        as_str text;
        as_known_field field;
    } names[] = {
#define X(name, text) {AS_STR(text), AS_FIELD_##name},
        AS_KNOWN_FIELDS(X)
#undef X
    };
    char first = (char)(name.ptr[0] | 0x20);
    for (size_t i = 0; i < AS_COUNT_OF(names); i++) {
        if (names[i].text.len == name.len && names[i].text.ptr[0] == first && as_str_equal_nocase(names[i].text, name))
            return (int)names[i].field;
    }
    return -1;
}

/* A field line without its CRLF (RFC 9112 section 5). */
static int parse_field(as_str line, as_head *head)
{
    size_t colon = 0;
    while (colon < line.len && classes[(uint8_t)line.ptr[colon]] & CLASS_TOKEN)
        colon++;
    if (colon == 0 || colon == line.len || line.ptr[colon] != ':')
        return AS_EBADREQUEST; /* also obs-fold and white space before the colon */
    if (head->fields_len == AS_MAX_HEADERS)
        return AS_EHEADTOOLARGE;
    as_field *field = &head->fields[head->fields_len];
    field->name = as_str_of(line.ptr, colon);
    as_str value = as_str_of(line.ptr + colon + 1, line.len - colon - 1);
    if (as_scan_field_value(value.ptr, value.len) < value.len)
        return AS_EBADREQUEST;
    field->value = as_str_trim(value);
    int known = known_field(field->name);
    if (known >= 0) {
        if (head->known[known] < 0)
            head->known[known] = (int16_t)head->fields_len;
        else if (known == AS_FIELD_HOST || known == AS_FIELD_CONTENT_LENGTH)
            return AS_EBADREQUEST; /* two of them, equal or not, are how requests are smuggled */
    }
    head->fields_len++;
    return AS_OK;
}

typedef struct codings {
    int chunked;
    int others;
    bool chunked_last;
} codings;

/* The transfer codings of one field line; false when one of them is no token (empty, or with parameters, which none that is known has). */
static bool add_codings(as_str list, codings *seen)
{
    const char *end = list.ptr + list.len;
    for (const char *at = list.ptr, *stop; at <= end; at = stop + 1) {
        const char *comma = at < end ? memchr(at, ',', (size_t)(end - at)) : NULL;
        stop = comma != NULL ? comma : end;
        as_str coding = as_str_trim(as_str_of(at, (size_t)(stop - at)));
        if (!as_is_token(coding))
            return false;
        seen->chunked_last = as_str_equal_nocase(coding, AS_STR("chunked"));
        seen->chunked += seen->chunked_last;
        seen->others += !seen->chunked_last;
    }
    return true;
}

static int digest_framing(as_head *head)
{
    as_str length = as_head_known(head, AS_FIELD_CONTENT_LENGTH);
    if (head->known[AS_FIELD_CONTENT_LENGTH] >= 0) {
        if (head->known[AS_FIELD_TRANSFER_ENCODING] >= 0)
            return AS_EBADREQUEST;
        if (length.len == 0 || !all_of(length, CLASS_DIGIT))
            return AS_EBADREQUEST;
        head->content_length = as_str_to_i64(length);
        if (head->content_length < 0)
            return AS_EBODYTOOLARGE;
    }
    if (head->known[AS_FIELD_TRANSFER_ENCODING] < 0)
        return AS_OK;
    if (head->minor == 0)
        return AS_EBADREQUEST;
    codings seen = {0};
    for (uint16_t i = (uint16_t)head->known[AS_FIELD_TRANSFER_ENCODING]; i < head->fields_len; i++) {
        if (as_str_equal_nocase(head->fields[i].name, AS_STR("transfer-encoding")) &&
            !add_codings(head->fields[i].value, &seen))
            return AS_EBADREQUEST;
    }
    /* A body that does not end in chunked has no length at all (RFC 9112 section 6.3), and chunked twice is an attack. */
    if (seen.chunked > 1 || (seen.chunked == 1 && !seen.chunked_last))
        return AS_EBADREQUEST;
    if (seen.others > 0)
        return AS_ENOTIMPLEMENTED;
    head->chunked = true;
    return AS_OK;
}

static int digest_host(as_head *head)
{
    if (head->known[AS_FIELD_HOST] < 0)
        return head->minor == 0 ? AS_OK : AS_EBADREQUEST;
    head->host = as_head_known(head, AS_FIELD_HOST);
    return as_is_host_port(head->host) ? AS_OK : AS_EBADREQUEST;
}

static bool connection_says(const as_head *head, as_str token)
{
    if (head->known[AS_FIELD_CONNECTION] < 0)
        return false;
    for (uint16_t i = (uint16_t)head->known[AS_FIELD_CONNECTION]; i < head->fields_len; i++) {
        if (as_str_equal_nocase(head->fields[i].name, AS_STR("connection")) &&
            as_list_has_token(head->fields[i].value, token))
            return true;
    }
    return false;
}

static int digest(as_head *head)
{
    int err = digest_framing(head);
    if (err == AS_OK)
        err = digest_host(head);
    if (err != AS_OK)
        return err;
    if (head->minor == 0)
        head->keep_alive = connection_says(head, AS_STR("keep-alive")) && !connection_says(head, AS_STR("close"));
    else
        head->keep_alive = !connection_says(head, AS_STR("close"));
    if (head->known[AS_FIELD_EXPECT] >= 0 && head->minor >= 1) {
        if (!as_str_equal_nocase(as_head_known(head, AS_FIELD_EXPECT), AS_STR("100-continue")))
            return AS_EEXPECTATION;
        head->expect_continue = true;
    }
    return AS_OK;
}

static void clear(as_head *head)
{
    head->method = AS_METHOD_OTHER;
    head->method_text = head->target = head->host = AS_STR_NONE;
    head->minor = 1;
    head->keep_alive = head->chunked = head->expect_continue = false;
    head->content_length = -1;
    head->fields_len = 0;
    memset(head->known, -1, sizeof(head->known));
}

int as_head_parse(const char *buf, size_t len, size_t *scanned, const as_limits *limits, as_head *head)
{
    clear(head);
    int start = leading_lines(buf, len);
    if (start < 0)
        return start;
    int total = find_end(buf, len, (size_t)start, scanned, limits);
    if (total <= 0)
        return total;
    const char *at = buf + start;
    const char *end = buf + total - 2; /* before the empty line */
    const char *line_end = memchr(at, '\n', (size_t)(end - at));
    assert(line_end != NULL);
    int err = parse_request_line(as_str_of(at, (size_t)(line_end - at) - 1), limits, head);
    while (err == AS_OK && (at = line_end + 1) < end) {
        line_end = memchr(at, '\n', (size_t)(end - at));
        assert(line_end != NULL);
        err = parse_field(as_str_of(at, (size_t)(line_end - at) - 1), head);
    }
    if (err == AS_OK)
        err = digest(head);
    return err == AS_OK ? total : err;
}
