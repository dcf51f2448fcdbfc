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
    /* A representation so young that its tag is weak has a weak date as well (section 8.8.2.2). */
    int64_t date = as_date_parse(value);
    return date >= 0 && date == validators->last_modified && !is_weak(validators->etag);
}

/* 1*DIGIT of any length: a position behind every possible end stays one. False when it is something else. */
static bool read_position(as_str text, uint64_t *position)
{
    uint64_t value = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned)(text.ptr[i] - '0');
        if (digit > 9)
            return false;
        value = value > ((uint64_t)INT64_MAX - digit) / 10 ? INT64_MAX : value * 10 + digit;
    }
    *position = value;
    return text.len > 0;
}

/* One range-spec. AS_RANGE_NONE when it is none. */
static as_range_verdict read_range(as_str spec, uint64_t size, as_range *range)
{
    const char *dash = memchr(spec.ptr, '-', spec.len);
    if (dash == NULL)
        return AS_RANGE_NONE;
    as_str from = as_str_of(spec.ptr, (size_t)(dash - spec.ptr));
    as_str to = as_str_of(dash + 1, spec.len - from.len - 1);
    uint64_t first = 0;
    uint64_t last = INT64_MAX;
    if ((from.len > 0 || to.len == 0) && !read_position(from, &first))
        return AS_RANGE_NONE;
    if (to.len > 0 && !read_position(to, &last))
        return AS_RANGE_NONE;
    if (from.len == 0) { /* the last `last` bytes */
        if (last == 0 || size == 0)
            return AS_RANGE_UNSATISFIABLE;
        *range = (as_range){last < size ? size - last : 0, size - 1};
        return AS_RANGE_SOME;
    }
    if (last < first)
        return AS_RANGE_NONE;
    if (first >= size)
        return AS_RANGE_UNSATISFIABLE;
    *range = (as_range){first, last < size ? last : size - 1};
    return AS_RANGE_SOME;
}

static bool is_near(const as_range *a, const as_range *b)
{
    return a->first <= b->last + 1 + AS_RANGE_GAP && b->first <= a->last + 1 + AS_RANGE_GAP;
}

/* Adds `range`, together with all that are near to it. One pass is enough: those that were there are not near to each
 * other, so what is near to the union is near to `range`. */
static void add_range(as_range_set *set, as_range range)
{
    as_range united = range;
    int place = -1;
    int kept = 0;
    for (int i = 0; i < set->len; i++) {
        as_range other = set->ranges[i];
        if (!is_near(&other, &range)) {
            set->ranges[kept++] = other;
            continue;
        }
        united.first = other.first < united.first ? other.first : united.first;
        united.last = other.last > united.last ? other.last : united.last;
        if (place < 0)
            place = kept++;
    }
    if (place < 0)
        place = kept++;
    set->ranges[place] = united;
    set->len = kept;
}

static bool is_given_once(const as_head *head, as_known_field which)
{
    int first = head->known[which];
    for (int i = first + 1; i < head->fields_len; i++) {
        if (as_str_equal_nocase(head->fields[i].name, head->fields[first].name))
            return false;
    }
    return true;
}

as_range_verdict as_range_check(const as_head *head, const as_validators *validators, uint64_t size, as_range_set *set)
{
    as_str value = as_head_known(head, AS_FIELD_RANGE);
    set->len = 0;
    if (head->known[AS_FIELD_RANGE] < 0 || head->method != AS_METHOD_GET)
        return AS_RANGE_NONE;
    if (value.len < 6 || strncasecmp(value.ptr, "bytes=", 6) != 0 || !is_given_once(head, AS_FIELD_RANGE) ||
        !if_range_holds(head, validators))
        return AS_RANGE_NONE;
    as_str list = as_str_of(value.ptr + 6, value.len - 6);
    as_str spec = AS_STR_NONE;
    int seen = 0;
    while (as_str_next_member(&list, &spec)) {
        as_range range;
        as_range_verdict verdict = seen++ < AS_MAX_RANGES ? read_range(spec, size, &range) : AS_RANGE_NONE;
        if (verdict == AS_RANGE_NONE)
            return AS_RANGE_NONE;
        if (verdict == AS_RANGE_SOME)
            add_range(set, range);
    }
    if (seen == 0)
        return AS_RANGE_NONE;
    return set->len > 0 ? AS_RANGE_SOME : AS_RANGE_UNSATISFIABLE;
}
