/* with: base/memory.c base/error.c spawner/shebang.c spawner/variables.c spawner/stderr_lines.c */
/* What is read of a script's first line, of a request's variables, of a query, and of what a program writes to stderr: whatever comes out is whole strings within
 * what went in, and lines without control characters. */
#include "spawner/shebang.h"
#include "spawner/stderr_lines.h"
#include "spawner/variables.h"

#include <stdlib.h>

#include "invariant.h"

static void check_shebang(as_str input)
{
    as_shebang line;
    if (as_shebang_parse(input, &line) != AS_OK)
        return;
    INVARIANT(line.path[0] != '\0' && strlen(line.path) < sizeof(line.path));
    INVARIANT(strlen(line.option) < sizeof(line.option));
    INVARIANT(strpbrk(line.path, " \t\r\n") == NULL && strpbrk(line.option, "\r\n") == NULL);
    as_interpreter_option_is_plain(line.kind, line.option);
}

/* Each entry is "NAME=value" inside the block, and none is one of ours. */
static void check_variables(const uint8_t *data, size_t size)
{
    char *block = malloc(size + 1);
    static as_variables variables;
    memcpy(block, data, size);
    if (as_variables_take(&variables, block, size) == AS_OK) {
        INVARIANT(variables.entries[variables.count] == NULL);
        for (uint32_t i = 0; i < variables.count; i++) {
            const char *entry = variables.entries[i];
            INVARIANT(entry >= block && entry + strlen(entry) < block + size);
            INVARIANT(entry[0] != '=' && strchr(entry, '=') != NULL);
            INVARIANT(strncmp(entry, "appserver.", 10) != 0);
        }
    }
    free(block);
}

static void check_words(const uint8_t *data, size_t size)
{
    char *query = malloc(size + 1);
    char *words[AS_QUERY_WORDS_MAX];
    memcpy(query, data, size);
    query[size] = '\0';
    size_t len = strlen(query);
    uint32_t count = as_query_words(query, words);
    INVARIANT(count <= AS_QUERY_WORDS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        INVARIANT(words[i] >= query && words[i] + strlen(words[i]) <= query + len);
        INVARIANT(words[i][0] != '-');
        for (const char *at = words[i]; *at != '\0'; at++)
            INVARIANT((unsigned char)*at >= ' ');
    }
    free(query);
}

static void check_line(void *owner, as_str line)
{
    int *lines = owner;
    ++*lines;
    INVARIANT(line.len > 0 && line.len <= AS_STDERR_LINE + 3);
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.ptr[i];
        INVARIANT((c >= ' ' || c == '\t' || c == '\r') && c != 0x7f);
    }
}

static void check_stderr(as_str input)
{
    static as_stderr_lines state;
    int lines = 0;
    memset(&state, 0, sizeof(state));
    for (size_t at = 0; at < input.len;) { /* in pieces as long as their first byte says */
        size_t len = 1 + (unsigned char)input.ptr[at] % 64;
        if (len > input.len - at)
            len = input.len - at;
        as_stderr_take(&state, as_str_of(input.ptr + at, len), check_line, &lines);
        at += len;
    }
    as_stderr_finish(&state, check_line, &lines);
    INVARIANT(lines <= AS_STDERR_MAX_LINES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    as_str input = as_str_of((const char *)data, size);
    check_shebang(input);
    check_variables(data, size);
    check_words(data, size);
    check_stderr(input);
    return 0;
}
