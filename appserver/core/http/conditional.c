#include "http/conditional.h"

#include "http/date.h"

static as_str opaque(as_str etag)
{
    return as_str_starts(etag, AS_STR("W/")) ? as_str_of(etag.ptr + 2, etag.len - 2) : etag;
}

static bool is_weak(as_str etag)
{
    return as_str_starts(etag, AS_STR("W/"));
}

/* RFC 9110 section 8.8.3.2 */
static bool etags_match(as_str a, as_str b, bool strong)
{
    if (strong && (is_weak(a) || is_weak(b)))
        return false;
    return as_str_equal(opaque(a), opaque(b));
}

/* The next entity tag of a list, quotes and weakness included; len 0 at its end or when the rest is no list of tags. Commas may stand inside the quotes. */
static as_str next_etag(as_str *list)
{
    size_t at = 0;
    while (at < list->len && (list->ptr[at] == ' ' || list->ptr[at] == '\t' || list->ptr[at] == ','))
        at++;
    size_t begin = at;
    if (at + 1 < list->len && list->ptr[at] == 'W' && list->ptr[at + 1] == '/')
        at += 2;
    const char *close =
        at < list->len && list->ptr[at] == '"' ? memchr(list->ptr + at + 1, '"', list->len - at - 1) : NULL;
    if (close == NULL) {
        *list = AS_STR_NONE;
        return AS_STR_NONE;
    }
    size_t end = (size_t)(close - list->ptr) + 1;
    as_str etag = as_str_of(list->ptr + begin, end - begin);
    *list = as_str_of(list->ptr + end, list->len - end);
    return etag;
}

static bool list_matches(as_str list, as_str etag, bool strong)
{
    if (as_str_equal(list, AS_STR("*")))
        return true; /* there is a representation */
    for (as_str one = next_etag(&list); one.len > 0; one = next_etag(&list)) {
        if (etag.len > 0 && etags_match(one, etag, strong))
            return true;
    }
    return false;
}

static bool any_line_matches(const as_head *head, as_known_field which, as_str etag, bool strong)
{
    int first = head->known[which];
    as_str name = head->fields[first].name;
    for (int i = first; i < head->fields_len; i++) {
        if (as_str_equal_nocase(head->fields[i].name, name) && list_matches(head->fields[i].value, etag, strong))
            return true;
    }
    return false;
}

/* A date that does not parse makes its field void (sections 13.1.3 and 13.1.4). */
static int64_t date_of(const as_head *head, as_known_field which)
{
    return head->known[which] < 0 ? -1 : as_date_parse(as_head_known(head, which));
}

int as_conditional_check(const as_head *head, const as_validators *validators)
{
    int64_t modified = validators->last_modified;
    if (head->known[AS_FIELD_IF_MATCH] >= 0) {
        if (!any_line_matches(head, AS_FIELD_IF_MATCH, validators->etag, true))
            return 412;
    } else {
        int64_t unmodified_since = date_of(head, AS_FIELD_IF_UNMODIFIED_SINCE);
        if (unmodified_since >= 0 && modified >= 0 && modified > unmodified_since)
            return 412;
    }
    bool safe = head->method == AS_METHOD_GET || head->method == AS_METHOD_HEAD;
    if (head->known[AS_FIELD_IF_NONE_MATCH] >= 0) {
        if (any_line_matches(head, AS_FIELD_IF_NONE_MATCH, validators->etag, false))
            return safe ? 304 : 412;
    } else if (safe) {
        int64_t modified_since = date_of(head, AS_FIELD_IF_MODIFIED_SINCE);
        if (modified_since >= 0 && modified >= 0 && modified <= modified_since)
            return 304;
    }
    return 0;
}

static bool if_range_holds(const as_head *head, const as_validators *validators)
{
    as_str value = as_head_known(head, AS_FIELD_IF_RANGE);
    if (head->known[AS_FIELD_IF_RANGE] < 0)
        return true;
    if (value.len > 0 && (value.ptr[0] == '"' || is_weak(value)))
        return validators->etag.len > 0 && etags_match(value, validators->etag, true);
    int64_t date = as_date_parse(value);
    return date >= 0 && date == validators->last_modified;
}

as_range_verdict as_range_check(const as_head *head, const as_validators *validators, uint64_t size, uint64_t *first,
                                uint64_t *last)
{
    as_str value = as_head_known(head, AS_FIELD_RANGE);
    if (head->known[AS_FIELD_RANGE] < 0 || head->method != AS_METHOD_GET)
        return AS_RANGE_NONE;
    if (value.len < 6 || strncasecmp(value.ptr, "bytes=", 6) != 0 || !if_range_holds(head, validators))
        return AS_RANGE_NONE;
    as_str range = as_str_trim(as_str_of(value.ptr + 6, value.len - 6));
    const char *dash = range.len > 0 ? memchr(range.ptr, '-', range.len) : NULL;
    if (dash == NULL)
        return AS_RANGE_NONE;
    as_str from = as_str_of(range.ptr, (size_t)(dash - range.ptr));
    as_str to = as_str_of(dash + 1, (size_t)(range.ptr + range.len - dash) - 1);
    int64_t begin = as_str_to_i64(from), end = as_str_to_i64(to);
    if ((from.len > 0 && begin < 0) || (to.len > 0 && end < 0) || (from.len == 0 && to.len == 0))
        return AS_RANGE_NONE;
    if (from.len == 0) { /* the last `end` bytes */
        if (end == 0 || size == 0)
            return AS_RANGE_UNSATISFIABLE;
        *first = (uint64_t)end < size ? size - (uint64_t)end : 0;
        *last = size - 1;
        return AS_RANGE_ONE;
    }
    if (to.len > 0 && end < begin)
        return AS_RANGE_NONE;
    if ((uint64_t)begin >= size)
        return AS_RANGE_UNSATISFIABLE;
    *first = (uint64_t)begin;
    *last = to.len > 0 && (uint64_t)end < size ? (uint64_t)end : size - 1;
    return AS_RANGE_ONE;
}
