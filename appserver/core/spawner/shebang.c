#include "spawner/shebang.h"

#include <stdio.h>

as_interpreter_kind as_interpreter_kind_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    as_interpreter_kind kind = AS_INTERPRETER_OTHER;
    if (strncmp(name, "python", 6) == 0) {
        kind = AS_INTERPRETER_PYTHON;
        name += 6;
    } else if (strncmp(name, "perl", 4) == 0) {
        kind = AS_INTERPRETER_PERL;
        name += 4;
    }
    return name[strspn(name, "0123456789.")] == '\0' ? kind : AS_INTERPRETER_OTHER;
}

bool as_interpreter_option_is_plain(as_interpreter_kind kind, const char *option)
{
    /* Python: what is done before the first line (-E -I -s -S -P), and how streams and byte code are treated. Perl: warnings. */
    const char *letters = kind == AS_INTERPRETER_PYTHON ? "EIsSPuBO" : kind == AS_INTERPRETER_PERL ? "wWX" : "";
    if (option[0] == '\0')
        return true;
    return option[0] == '-' && option[1] != '\0' && option[1 + strspn(option + 1, letters)] == '\0';
}

static void copy(char out[AS_SHEBANG_SIZE], const char *from, size_t len)
{
    assert(len < AS_SHEBANG_SIZE);
    memcpy(out, from, len);
    out[len] = '\0';
}

int as_shebang_split(as_str text, as_str *path, as_str *option)
{
    if (!as_str_starts(text, AS_STR("#!")))
        return AS_ENOTFOUND;
    const char *end = memchr(text.ptr, '\n', text.len);
    if (end == NULL || end - text.ptr >= AS_SHEBANG_SIZE - 1)
        return AS_ENOTFOUND;
    as_str rest = as_str_trim(as_str_of(text.ptr + 2, (size_t)(end - text.ptr) - 2));
    if (memchr(rest.ptr, '\0', rest.len) != NULL || memchr(rest.ptr, '\r', rest.len) != NULL)
        return AS_ENOTFOUND;
    size_t len = 0;
    while (len < rest.len && rest.ptr[len] != ' ' && rest.ptr[len] != '\t')
        len++;
    *path = as_str_of(rest.ptr, len);
    *option = as_str_trim(as_str_of(rest.ptr + len, rest.len - len));
    return len > 0 && rest.ptr[0] == '/' ? AS_OK : AS_ENOTFOUND;
}

int as_shebang_parse(as_str text, as_shebang *line)
{
    as_str path;
    as_str option;
    if (as_shebang_split(text, &path, &option) != AS_OK)
        return AS_ENOTFOUND;
    copy(line->path, path.ptr, path.len);
    copy(line->option, option.ptr, option.len);
    if (as_str_ends(as_str_from(line->path), AS_STR("/env"))) {
        /* Also a name with a slash, or an assignment, would be something else to env. */
        if (line->option[0] == '\0' || strpbrk(line->option, " \t/=-") != NULL)
            return AS_ENOTFOUND;
        copy(line->path, line->option, option.len);
        line->option[0] = '\0';
    }
    line->kind = as_interpreter_kind_of(line->path);
    return AS_OK;
}
