#include "spawner/stderr_lines.h"

static void end_line(as_stderr_lines *lines, as_stderr_emit *emit, void *owner)
{
    while (lines->len > 0 && lines->line[lines->len - 1] == '\r')
        lines->len--;
    if (lines->len == 0)
        return;
    if (lines->is_cut) {
        memcpy(lines->line + lines->len, "...", 3);
        lines->len += 3;
    }
    lines->lines++;
    emit(owner, as_str_of(lines->line, lines->len));
    lines->len = 0;
    lines->is_cut = false;
}

static void add_to_line(as_stderr_lines *lines, as_str part)
{
    size_t room = AS_STDERR_LINE - lines->len;
    size_t taken = part.len < room ? part.len : room;
    for (size_t i = 0; i < taken; i++) {
        char c = part.ptr[i];
        bool is_control = ((unsigned char)c < ' ' && c != '\t' && c != '\r') || c == 0x7f;
        lines->line[lines->len++] = is_control ? '?' : c;
    }
    if (taken < part.len) {
        lines->is_cut = true;
        lines->dropped_bytes += part.len - taken;
    }
}

static void drop(as_stderr_lines *lines, as_str part, bool is_whole)
{
    lines->dropped_bytes += part.len + is_whole;
    lines->dropped_lines += is_whole;
    lines->is_cut = !is_whole; /* bytes of a line whose end has not come */
}

void as_stderr_take(as_stderr_lines *lines, as_str bytes, as_stderr_emit *emit, void *owner)
{
    while (bytes.len > 0) {
        const char *newline = memchr(bytes.ptr, '\n', bytes.len);
        size_t len = newline != NULL ? (size_t)(newline - bytes.ptr) : bytes.len;
        as_str part = as_str_of(bytes.ptr, len);
        if (lines->lines == AS_STDERR_MAX_LINES) {
            drop(lines, part, newline != NULL);
        } else {
            add_to_line(lines, part);
            if (newline != NULL)
                end_line(lines, emit, owner);
        }
        len += newline != NULL;
        bytes = as_str_of(bytes.ptr + len, bytes.len - len);
    }
}

void as_stderr_finish(as_stderr_lines *lines, as_stderr_emit *emit, void *owner)
{
    if (lines->lines < AS_STDERR_MAX_LINES)
        end_line(lines, emit, owner);
    else if (lines->is_cut)
        lines->dropped_lines++;
}
