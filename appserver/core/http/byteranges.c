#include "http/byteranges.h"

static as_piece memory_piece(as_str memory)
{
    return (as_piece){.memory = memory, .length = (int64_t)memory.len};
}

static as_piece range_piece(const as_range *range, as_str content)
{
    int64_t length = (int64_t)(range->last - range->first + 1);
    if (content.ptr != NULL)
        return memory_piece(as_str_of(content.ptr + range->first, (size_t)length));
    return (as_piece){.offset = (int64_t)range->first, .length = length};
}

/* The boundary's own line break belongs in front of it (RFC 2046 section 5.1.1); the first one needs none. */
static as_str part_head(as_arena *arena, const char *line_break, const as_range *range, uint64_t size, as_str type,
                        as_str boundary)
{
    return as_arena_printf(arena, "%s--%.*s\r\nContent-Type: %.*s\r\nContent-Range: bytes %llu-%llu/%llu\r\n\r\n",
                           line_break, (int)boundary.len, boundary.ptr, (int)type.len, type.ptr,
                           (unsigned long long)range->first, (unsigned long long)range->last, (unsigned long long)size);
}

void as_byteranges_make(as_arena *arena, const as_range_set *set, uint64_t size, as_str type, as_str boundary,
                        as_str content, as_body *body)
{
    uint32_t len = 0;
    as_piece *pieces = as_arena_alloc(arena, (size_t)(2 * set->len + 1) * sizeof(*pieces));
    for (int i = 0; i < set->len; i++) {
        const as_range *range = &set->ranges[i];
        pieces[len++] = memory_piece(part_head(arena, i > 0 ? "\r\n" : "", range, size, type, boundary));
        pieces[len++] = range_piece(range, content);
    }
    pieces[len++] = memory_piece(as_arena_printf(arena, "\r\n--%.*s--\r\n", (int)boundary.len, boundary.ptr));
    body->kind = AS_BODY_PIECES;
    body->pieces = pieces;
    body->pieces_len = len;
    body->length = 0;
    for (uint32_t i = 0; i < len; i++)
        body->length += pieces[i].length;
}
