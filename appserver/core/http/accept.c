#include "http/accept.h"

/* qvalue of section 12.4.2: 0 or 1 with up to three decimals; -1 when it is none. */
static int read_weight(as_str text)
{
    static const int SCALE[] = {1000, 100, 10, 1};
    if (text.len == 0 || text.len > 5 || (text.ptr[0] != '0' && text.ptr[0] != '1') ||
        (text.len > 1 && text.ptr[1] != '.'))
        return -1;
    int weight = (text.ptr[0] - '0') * SCALE[0];
    for (size_t i = 2; i < text.len; i++) {
        unsigned digit = (unsigned)(text.ptr[i] - '0');
        if (digit > 9)
            return -1;
        weight += (int)digit * SCALE[i - 1];
    }
    return weight <= AS_WEIGHT_MAX ? weight : -1;
}

/* Splits "gzip;q=0.5". Other parameters have no say in what is looked for here. -1 when the weight is none. */
static int split_weight(as_str member, as_str *value)
{
    const char *semicolon = memchr(member.ptr, ';', member.len);
    size_t len = semicolon != NULL ? (size_t)(semicolon - member.ptr) : member.len;
    *value = as_str_trim(as_str_of(member.ptr, len));
    as_str rest = as_str_of(member.ptr + len, member.len - len);
    int weight = AS_WEIGHT_MAX;
    while (rest.len > 0) {
        rest = as_str_of(rest.ptr + 1, rest.len - 1);
        semicolon = rest.len > 0 ? memchr(rest.ptr, ';', rest.len) : NULL;
        len = semicolon != NULL ? (size_t)(semicolon - rest.ptr) : rest.len;
        as_str parameter = as_str_trim(as_str_of(rest.ptr, len));
        if (parameter.len >= 2 && (parameter.ptr[0] | 0x20) == 'q' && parameter.ptr[1] == '=')
            weight = read_weight(as_str_of(parameter.ptr + 2, parameter.len - 2));
        rest = as_str_of(rest.ptr + len, rest.len - len);
    }
    return weight;
}

/* The members of every line of a field, one after the other. */
typedef struct walk {
    const as_head *head;
    as_str name;
    int line;
    int seen;
    as_str rest;
} walk;

static bool next_accepted(walk *w, as_str *value, int *weight)
{
    as_str member;
    while (w->seen < AS_MAX_ACCEPTED) {
        if (as_str_next_member(&w->rest, &member)) {
            w->seen++;
            *weight = split_weight(member, value);
            if (*weight >= 0)
                return true;
            continue;
        }
        do {
            if (++w->line >= w->head->fields_len)
                return false;
        } while (!as_str_equal_nocase(w->head->fields[w->line].name, w->name));
        w->rest = w->head->fields[w->line].value;
    }
    return false;
}

/* Section 8.4.1.3: x-gzip is gzip. */
static int coding_of(as_str name)
{
    static const as_str NAMES[AS_CODINGS] = {
        [AS_CODING_BR] = {"br", 2}, [AS_CODING_ZSTD] = {"zstd", 4}, [AS_CODING_GZIP] = {"gzip", 4}};
    for (int coding = 0; coding < AS_CODINGS; coding++) {
        if (as_str_equal_nocase(name, NAMES[coding]))
            return coding;
    }
    return as_str_equal_nocase(name, AS_STR("x-gzip")) ? AS_CODING_GZIP : -1;
}

void as_accept_codings(const as_head *head, as_accepted *accepted)
{
    bool is_named[AS_CODINGS] = {false};
    int wildcard = -1;
    int weight;
    as_str name;
    *accepted = (as_accepted){.identity = AS_WEIGHT_MAX};
    if (head->known[AS_FIELD_ACCEPT_ENCODING] < 0)
        return;
    walk w = {.head = head, .name = AS_STR("accept-encoding"), .line = head->known[AS_FIELD_ACCEPT_ENCODING] - 1};
    while (next_accepted(&w, &name, &weight)) {
        int coding = coding_of(name);
        if (coding >= 0) {
            accepted->codings[coding] = (uint16_t)weight;
            is_named[coding] = true;
        } else if (as_str_equal_nocase(name, AS_STR("identity"))) {
            accepted->identity = (uint16_t)weight;
            accepted->identity_is_named = true;
        } else if (as_str_equal(name, AS_STR("*"))) {
            wildcard = weight;
        }
    }
    for (int coding = 0; coding < AS_CODINGS && wildcard > 0; coding++) {
        if (!is_named[coding])
            accepted->codings[coding] = (uint16_t)wildcard;
    }
    /* "*" can refuse the identity but says nothing for it. */
    if (wildcard == 0 && !accepted->identity_is_named)
        accepted->identity = 0;
}

as_media_verdict as_accept_media(const as_head *head, as_str type)
{
    const char *slash = memchr(type.ptr, '/', type.len);
    as_str group = as_str_of(type.ptr, (size_t)(slash - type.ptr) + 1);
    int best = 0; /* how precise: nothing yet, any type, any of the group, the type itself */
    bool taken = false;
    int weight;
    as_str range;
    walk w = {.head = head, .name = AS_STR("accept"), .line = -1};
    while (next_accepted(&w, &range, &weight)) {
        int precision = 0;
        if (as_str_equal_nocase(range, type))
            precision = 3;
        else if (range.len == group.len + 1 && range.ptr[group.len] == '*' &&
                 as_str_equal_nocase(as_str_of(range.ptr, group.len), group))
            precision = 2;
        else if (as_str_equal(range, AS_STR("*/*")))
            precision = 1;
        if (precision > best) {
            best = precision;
            taken = weight > 0;
        }
    }
    if (w.seen == 0) /* no Accept, or an empty one */
        return AS_MEDIA_TAKEN;
    if (!taken)
        return AS_MEDIA_REFUSED;
    return best == 3 ? AS_MEDIA_NAMED : AS_MEDIA_TAKEN;
}
