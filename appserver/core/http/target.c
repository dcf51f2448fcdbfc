#include "http/target.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* What RFC 3986 allows in a path or query, plus a few bytes that every browser sends raw ("|", "^", "[", "]", "{", "}", "`"). */
static bool is_target_byte(unsigned char c)
{
    return c > 0x20 && c < 0x7f && c != '#' && c != '"' && c != '<' && c != '>' && c != '\\';
}

char *as_target_encode(char *out, as_str raw)
{
    for (size_t i = 0; i < raw.len; i++) {
        unsigned char c = (unsigned char)raw.ptr[i];
        if (is_target_byte(c))
            *out++ = (char)c;
        else
            out = as_str_append_escape(out, c);
    }
    return out;
}

/* Percent-decodes `raw` to `out`. AS_OK and the length, or AS_EBADREQUEST. */
static int decode(as_str raw, char *out, size_t *len)
{
    size_t n = 0;
    for (size_t i = 0; i < raw.len; i++) {
        char c = raw.ptr[i];
        if (!is_target_byte((unsigned char)c))
            return AS_EBADREQUEST;
        if (c == '%') {
            int high = i + 2 < raw.len ? hex_digit(raw.ptr[i + 1]) : -1;
            int low = i + 2 < raw.len ? hex_digit(raw.ptr[i + 2]) : -1;
            if (high < 0 || low < 0)
                return AS_EBADREQUEST;
            c = (char)(high << 4 | low);
            if (c == '\0')
                return AS_EBADREQUEST;
            i += 2;
        }
        out[n++] = c;
    }
    *len = n;
    return AS_OK;
}

/* An overlong sequence spells a byte that has a shorter spelling: ".." that no comparison sees. */
static bool has_overlong(const char *s, size_t len)
{
    for (size_t i = 0; i + 1 < len; i++) {
        unsigned char lead = (unsigned char)s[i], next = (unsigned char)s[i + 1];
        if ((next & 0xc0) != 0x80)
            continue;
        if (lead == 0xc0 || lead == 0xc1 || (lead == 0xe0 && next < 0xa0) || (lead == 0xf0 && next < 0x90))
            return true;
    }
    return false;
}

/* Removes empty and "." segments and resolves ".." in place (RFC 3986 section 5.2.4, but a ".." above the root is refused, not dropped). */
static int normalise(char *path, size_t *len)
{
    size_t in = 0, out = 0;
    bool directory = false;
    while (in < *len) {
        while (in < *len && path[in] == '/')
            in++;
        size_t begin = in;
        while (in < *len && path[in] != '/')
            in++;
        size_t segment = in - begin;
        directory = true;
        if (segment == 0 || (segment == 1 && path[begin] == '.'))
            continue;
        if (segment == 2 && path[begin] == '.' && path[begin + 1] == '.') {
            if (out == 0)
                return AS_EBADREQUEST;
            while (path[--out] != '/') {
            }
            continue;
        }
        directory = in < *len;
        path[out++] = '/';
        memmove(path + out, path + begin, segment);
        out += segment;
    }
    if (directory || out == 0)
        path[out++] = '/';
    path[out] = '\0';
    *len = out;
    return AS_OK;
}

static int take_path(as_str rest, char *out, as_target *parsed)
{
    const char *mark = rest.len > 0 ? memchr(rest.ptr, '?', rest.len) : NULL;
    parsed->raw_path = mark == NULL ? rest : as_str_of(rest.ptr, (size_t)(mark - rest.ptr));
    parsed->query = AS_STR_NONE;
    if (mark != NULL) {
        parsed->query = as_str_of(mark + 1, (size_t)(rest.ptr + rest.len - mark) - 1);
        for (size_t i = 0; i < parsed->query.len; i++) {
            if (!is_target_byte((unsigned char)parsed->query.ptr[i]) && parsed->query.ptr[i] != '"' &&
                parsed->query.ptr[i] != '<' && parsed->query.ptr[i] != '>' && parsed->query.ptr[i] != '\\')
                return AS_EBADREQUEST;
        }
    }
    if (parsed->raw_path.len == 0)
        parsed->raw_path = AS_STR("/");
    size_t len = 0;
    int err = decode(parsed->raw_path, out, &len);
    if (err != AS_OK)
        return err;
    if (has_overlong(out, len))
        return AS_EBADREQUEST;
    err = normalise(out, &len);
    parsed->path = as_str_of(out, len);
    return err;
}

static int take_absolute(as_str target, char *out, as_target *parsed)
{
    size_t scheme = 0;
    if (target.len > 7 && strncasecmp(target.ptr, "http://", 7) == 0)
        scheme = 7;
    else if (target.len > 8 && strncasecmp(target.ptr, "https://", 8) == 0)
        scheme = 8;
    else
        return AS_EBADREQUEST;
    parsed->form = AS_TARGET_ABSOLUTE;
    as_str rest = as_str_of(target.ptr + scheme, target.len - scheme);
    size_t authority = 0;
    while (authority < rest.len && rest.ptr[authority] != '/' && rest.ptr[authority] != '?')
        authority++;
    parsed->authority = as_str_of(rest.ptr, authority);
    if (!as_is_host_port(parsed->authority))
        return AS_EBADREQUEST;
    return take_path(as_str_of(rest.ptr + authority, rest.len - authority), out, parsed);
}

int as_target_parse(as_str target, as_method method, char *out, as_target *parsed)
{
    *parsed = (as_target){.form = AS_TARGET_ORIGIN};
    out[0] = '\0';
    if (method == AS_METHOD_CONNECT)
        return AS_ENOTIMPLEMENTED;
    if (target.len == 0)
        return AS_EBADREQUEST;
    if (target.ptr[0] == '/')
        return take_path(target, out, parsed);
    if (as_str_equal(target, AS_STR("*"))) {
        if (method != AS_METHOD_OPTIONS)
            return AS_EBADREQUEST;
        out[0] = '*';
        out[1] = '\0';
        *parsed = (as_target){.form = AS_TARGET_ASTERISK, .raw_path = AS_STR("*"), .path = as_str_of(out, 1)};
        return AS_OK;
    }
    return take_absolute(target, out, parsed);
}
