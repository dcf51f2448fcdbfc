/* environment.c: every dynamic request goes through here, so the block is written in one pass into the datagram itself: its greatest possible length is
 * added up first, and then nothing is checked byte by byte. */
#include "handler/environment.h"

#include "base/buf.h"

enum {
    /* Names of all variables that are always written, with their NULs and numbers. Checked by an assertion after each build. */
    FIXED_LEN = 672,
    /* Likewise of those of a local redirect. */
    REDIRECT_LEN = 256,
    REQUEST_ID_DIGITS = 16,
};

/* What becomes of a byte of a field name: 0 for those that drop the field. An underscore is one of them, so that Foo_Bar cannot pass for Foo-Bar. */
static const char variable_byte[256] = {
    ['-'] = '_', ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4', ['5'] = '5', ['6'] = '6', ['7'] = '7',
    ['8'] = '8', ['9'] = '9', ['A'] = 'A', ['B'] = 'B', ['C'] = 'C', ['D'] = 'D', ['E'] = 'E', ['F'] = 'F', ['G'] = 'G',
    ['H'] = 'H', ['I'] = 'I', ['J'] = 'J', ['K'] = 'K', ['L'] = 'L', ['M'] = 'M', ['N'] = 'N', ['O'] = 'O', ['P'] = 'P',
    ['Q'] = 'Q', ['R'] = 'R', ['S'] = 'S', ['T'] = 'T', ['U'] = 'U', ['V'] = 'V', ['W'] = 'W', ['X'] = 'X', ['Y'] = 'Y',
    ['Z'] = 'Z', ['a'] = 'A', ['b'] = 'B', ['c'] = 'C', ['d'] = 'D', ['e'] = 'E', ['f'] = 'F', ['g'] = 'G', ['h'] = 'H',
    ['i'] = 'I', ['j'] = 'J', ['k'] = 'K', ['l'] = 'L', ['m'] = 'M', ['n'] = 'N', ['o'] = 'O', ['p'] = 'P', ['q'] = 'Q',
    ['r'] = 'R', ['s'] = 'S', ['t'] = 'T', ['u'] = 'U', ['v'] = 'V', ['w'] = 'W', ['x'] = 'X', ['y'] = 'Y', ['z'] = 'Z',
};

static void add_pair(as_buf *buf, as_str name_with_nul, const char *value)
{
    as_buf_add(buf, name_with_nul);
    as_buf_add(buf, as_str_of(value, strlen(value) + 1));
}

void as_environment_init(as_environment *environment, const as_pool_handler_options *options)
{
    as_buf buf = {0};
    add_pair(&buf, AS_STR("GATEWAY_INTERFACE\0"), "CGI/1.1");
    add_pair(&buf, AS_STR("SERVER_SOFTWARE\0"), options->server_software);
    add_pair(&buf, AS_STR("DOCUMENT_ROOT\0"), options->document_root != NULL ? options->document_root : "");
    as_buf_add(&buf, options->extra);
    if (buf.ptr[buf.len - 1] != '\0')
        as_buf_add(&buf, AS_STR("\0"));
    *environment = (as_environment){.constant = buf.ptr, .constant_len = buf.len, .mounted = options->mounted};
}

void as_environment_free(as_environment *environment)
{
    as_free(environment->constant);
    *environment = (as_environment){0};
}

/* Writing. `at` is where the next byte goes; each returns the place behind what it wrote. */

static inline char *put(char *at, as_str s)
{
    if (s.len > 0)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}

static inline char *put_pair(char *at, as_str name_with_nul, as_str value)
{
    at = put(at, name_with_nul);
    at = put(at, value);
    *at++ = '\0';
    return at;
}

static inline char *put_number(char *at, as_str name_with_nul, uint64_t value)
{
    at = put(at, name_with_nul);
    at += as_str_put_u64(at, value);
    *at++ = '\0';
    return at;
}

static char *put_request_id(char *at, uint64_t id)
{
    at = put(at, AS_STR("appserver.request_id\0"));
    for (int shift = 60; shift >= 0; shift -= 4)
        *at++ = "0123456789abcdef"[(id >> shift) & 15];
    *at++ = '\0';
    return at;
}

/* The host of host[:port]; an IPv6 literal keeps its brackets (RFC 3875 section 4.1.14). */
static as_str host_of(as_str host_port)
{
    char last = host_port.len > 0 && host_port.ptr[0] == '[' ? ']' : ':';
    const char *end = memchr(host_port.ptr, last, host_port.len);
    if (end == NULL)
        return host_port;
    return as_str_of(host_port.ptr, (size_t)(end - host_port.ptr) + (last == ']'));
}

static char *put_server(char *at, const as_request *request)
{
    const as_peer *peer = request->peer;
    as_str local = as_str_from(peer->local_address);
    at = put(at, AS_STR("SERVER_NAME\0"));
    if (request->head.host.len > 0) {
        at = put(at, host_of(request->head.host));
    } else if (local.len == 0) {
        at = put(at, AS_STR("localhost"));
    } else {
        bool is_v6 = memchr(local.ptr, ':', local.len) != NULL;
        at = put(at, is_v6 ? AS_STR("[") : AS_STR_NONE);
        at = put(at, local);
        at = put(at, is_v6 ? AS_STR("]") : AS_STR_NONE);
    }
    *at++ = '\0';
    uint64_t usual_port = peer->secure ? 443 : 80;
    at = put_number(at, AS_STR("SERVER_PORT\0"), peer->local_port != 0 ? peer->local_port : usual_port);
    at = put_pair(at, AS_STR("SERVER_ADDR\0"), local);
    at = put(at,
             request->head.minor == 0 ? AS_STR("SERVER_PROTOCOL\0HTTP/1.0\0") : AS_STR("SERVER_PROTOCOL\0HTTP/1.1\0"));
    at = put(at, peer->secure ? AS_STR("REQUEST_SCHEME\0https\0HTTPS\0on\0") : AS_STR("REQUEST_SCHEME\0http\0"));
    at = put_pair(at, AS_STR("REMOTE_ADDR\0"), as_str_from(peer->remote_address));
    return put_number(at, AS_STR("REMOTE_PORT\0"), peer->remote_port);
}

static char *put_target(char *at, const as_request *request, bool mounted)
{
    as_str script = request->rule_prefix;
    if (!mounted || script.len == 0 || !as_str_starts(request->path, script))
        script = AS_STR_NONE;
    as_str rest = as_str_of(request->path.ptr + script.len, request->path.len - script.len);
    at = put_pair(at, AS_STR("REQUEST_METHOD\0"), request->head.method_text);
    at = put_pair(at, AS_STR("REQUEST_URI\0"), request->head.target);
    at = put_pair(at, AS_STR("SCRIPT_NAME\0"), script);
    at = put_pair(at, AS_STR("PATH_INFO\0"), rest);
    return put_pair(at, AS_STR("QUERY_STRING\0"), request->target.query);
}

static char *put_content(char *at, const as_request *request)
{
    const as_head *head = &request->head;
    as_str type = as_head_known(head, AS_FIELD_CONTENT_TYPE);
    if (request->redirected != NULL) /* the body was the first program's */
        return at;
    if (type.len > 0)
        at = put_pair(at, AS_STR("CONTENT_TYPE\0"), type);
    bool is_there = request->body.length > 0 || head->content_length >= 0 || head->chunked;
    if (is_there && request->body.length != AS_BODY_UNKNOWN)
        at = put_number(at, AS_STR("CONTENT_LENGTH\0"), request->body.length);
    return at;
}

/* What the program that redirected was told, where it may differ. */
static char *put_redirected(char *at, const as_request *request)
{
    const as_redirected *before = request->redirected;
    if (before == NULL)
        return at;
    at = put(at, AS_STR("REDIRECT_STATUS\0"
                        "200\0"));
    at = put_pair(at, AS_STR("REDIRECT_URL\0"), before->path);
    at = put_pair(at, AS_STR("REDIRECT_QUERY_STRING\0"), before->query);
    at = put_pair(at, AS_STR("REDIRECT_REQUEST_METHOD\0"), before->method);
    at = put_pair(at, AS_STR("REDIRECT_SCRIPT_NAME\0"), before->script_name);
    at = put_pair(at, AS_STR("REDIRECT_PATH_INFO\0"), before->path_info);
    if (before->content_type.len > 0)
        at = put_pair(at, AS_STR("REDIRECT_CONTENT_TYPE\0"), before->content_type);
    if (before->has_content_length)
        at = put_number(at, AS_STR("REDIRECT_CONTENT_LENGTH\0"), before->content_length);
    return at;
}

static size_t redirected_len(const as_redirected *before)
{
    if (before == NULL)
        return 0;
    return REDIRECT_LEN + before->path.len + before->query.len + before->method.len + before->script_name.len +
           before->path_info.len + before->content_type.len;
}

/* Header fields. */

/* Fields that are not passed as HTTP_*: they belong to the connection, or have (or might be taken for) a variable of their own. */
static bool is_withheld(as_str name, bool authorization)
{
    switch (name.len) {
    case 2:
        return as_str_equal_nocase(name, AS_STR("te"));
    case 4: /* Host: of an absolute target the authority counts, so it is written apart */
        return as_str_equal_nocase(name, AS_STR("host"));
    case 5: /* HTTP_PROXY is a setting to many programs */
        return as_str_equal_nocase(name, AS_STR("proxy"));
    case 7:
        return as_str_equal_nocase(name, AS_STR("upgrade")) || as_str_equal_nocase(name, AS_STR("trailer"));
    case 10:
        return as_str_equal_nocase(name, AS_STR("connection")) || as_str_equal_nocase(name, AS_STR("keep-alive"));
    case 12:
        return as_str_equal_nocase(name, AS_STR("content-type"));
    case 13:
        return !authorization && as_str_equal_nocase(name, AS_STR("authorization"));
    case 14:
        return as_str_equal_nocase(name, AS_STR("content-length"));
    case 16:
        return as_str_equal_nocase(name, AS_STR("proxy-connection"));
    case 19:
        return !authorization && as_str_equal_nocase(name, AS_STR("proxy-authorization"));
    case 17:
        return as_str_equal_nocase(name, AS_STR("transfer-encoding"));
    default:
        return false;
    }
}

typedef enum { FIELD_ONLY, FIELD_FIRST, FIELD_REPEATED } field_role;

/* Two names can only be equal when these are; comparing them first makes looking for repeated fields cheap. */
static uint32_t name_key(as_str name)
{
    return (uint32_t)name.len << 16 | (uint32_t)(name.ptr[0] & 0xdf) << 8 | (uint32_t)(name.ptr[name.len - 1] & 0xdf);
}

static void find_repeated(const as_head *head, uint8_t *roles)
{
    uint32_t keys[AS_MAX_HEADERS];
    for (int i = 0; i < head->fields_len; i++) {
        uint32_t key = name_key(head->fields[i].name);
        keys[i] = key;
        roles[i] = FIELD_ONLY;
        for (int j = 0; j < i; j++) {
            if (keys[j] == key && roles[j] != FIELD_REPEATED &&
                as_str_equal_nocase(head->fields[i].name, head->fields[j].name)) {
                roles[i] = FIELD_REPEATED;
                roles[j] = FIELD_FIRST;
                break;
            }
        }
    }
}

/* The name as a variable, with its NUL; NULL when the field is dropped. */
static char *put_field_name(char *at, as_str name)
{
    at = put(at, AS_STR("HTTP_"));
    for (size_t i = 0; i < name.len; i++) {
        char c = variable_byte[(unsigned char)name.ptr[i]];
        if (c == 0)
            return NULL;
        at[i] = c;
    }
    at[name.len] = '\0';
    return at + name.len + 1;
}

/* RFC 9110 section 5.3, and RFC 6265 section 5.4 for Cookie, whose own separator is the semicolon. */
static char *put_repeated(char *at, const as_head *head, int first)
{
    as_str name = head->fields[first].name;
    as_str separator = as_str_equal_nocase(name, AS_STR("cookie")) ? AS_STR("; ") : AS_STR(", ");
    for (int i = first + 1; i < head->fields_len; i++) {
        if (!as_str_equal_nocase(head->fields[i].name, name))
            continue;
        at = put(at, separator);
        at = put(at, head->fields[i].value);
    }
    return at;
}

/* The one that may be had, whatever else the client would like. */
static char *put_upgrade(char *at, const as_request *request)
{
    return request->upgrade.len > 0 ? put_pair(at, AS_STR("HTTP_UPGRADE\0"), request->upgrade) : at;
}

static char *put_fields(char *at, const as_head *head, bool authorization)
{
    uint8_t roles[AS_MAX_HEADERS];
    find_repeated(head, roles);
    if (head->host.len > 0)
        at = put_pair(at, AS_STR("HTTP_HOST\0"), head->host);
    for (int i = 0; i < head->fields_len; i++) {
        const as_field *field = &head->fields[i];
        if (roles[i] == FIELD_REPEATED || is_withheld(field->name, authorization))
            continue;
        char *value_at = put_field_name(at, field->name);
        if (value_at == NULL)
            continue;
        at = put(value_at, field->value);
        if (roles[i] == FIELD_FIRST)
            at = put_repeated(at, head, i);
        *at++ = '\0';
    }
    return at;
}

/* The most that the block can take: a field needs "HTTP_" and two NULs beside its text, or a separator of two bytes, and the target occurs three times. */
static size_t greatest_len(const as_environment *environment, const as_request *request)
{
    const as_head *head = &request->head;
    size_t len = FIXED_LEN + environment->constant_len + head->method_text.len + head->target.len + request->path.len +
                 request->target.query.len + redirected_len(request->redirected) + 2 * head->host.len +
                 as_head_known(head, AS_FIELD_CONTENT_TYPE).len;
    for (int i = 0; i < head->fields_len; i++)
        len += head->fields[i].name.len + head->fields[i].value.len + sizeof("HTTP_") + 1;
    return len;
}

int as_environment_build(const as_environment *environment, const as_request *request, bool authorization, char *out,
                         size_t room)
{
    size_t greatest = greatest_len(environment, request);
    if (greatest > room)
        return AS_EFULL;
    char *at = put_target(out, request, environment->mounted);
    at = put_server(at, request);
    at = put_content(at, request);
    at = put_redirected(at, request);
    at = put_upgrade(at, request);
    at = put_fields(at, &request->head, authorization);
    at = put_request_id(at, request->id);
    /* Last, so that what the configuration says wins. */
    at = put(at, as_str_of(environment->constant, environment->constant_len));
    assert((size_t)(at - out) <= greatest);
    return (int)(at - out);
}
