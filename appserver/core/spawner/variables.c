#include "spawner/variables.h"

/* Names that are not only handed on. */
static const struct known_name {
    as_str name;
    size_t field; /* offset in as_variables; 0: none */
    bool left_out;
} known_names[] = {
    {AS_STR("SCRIPT_NAME"), offsetof(as_variables, script_name), true},
    {AS_STR("PATH_INFO"), offsetof(as_variables, path_info), true},
    {AS_STR("PATH_TRANSLATED"), offsetof(as_variables, path_translated), true},
    {AS_STR("SCRIPT_FILENAME"), 0, true},
    {AS_STR("REMOTE_HOST"), 0, true},
    {AS_STR("CONTEXT_PREFIX"), 0, true},
    {AS_STR("CONTEXT_DOCUMENT_ROOT"), 0, true},
    {AS_STR("DOCUMENT_ROOT"), offsetof(as_variables, document_root), false},
    {AS_STR("REMOTE_ADDR"), offsetof(as_variables, remote_address), false},
    {AS_STR("QUERY_STRING"), offsetof(as_variables, query), false},
    {AS_STR("REQUEST_METHOD"), offsetof(as_variables, method), false},
    {AS_STR("appserver.cgi.root"), offsetof(as_variables, root), true},
    {AS_STR("appserver.cgi.extensions"), offsetof(as_variables, extensions), true},
    {AS_STR("appserver.cgi.program"), offsetof(as_variables, program), true},
    {AS_STR("appserver.cgi.whole_path"), offsetof(as_variables, whole_path), true},
    {AS_STR("appserver.cgi.symlinks"), offsetof(as_variables, symlinks), true},
    {AS_STR("appserver.request_id"), offsetof(as_variables, log_id), true},
};

/* True when the program gets the variable. */
static bool note_known(as_variables *variables, as_str name, const char *value)
{
    for (size_t i = 0; i < AS_COUNT_OF(known_names); i++) {
        const struct known_name *known = &known_names[i];
        if (!as_str_equal(name, known->name))
            continue;
        if (known->field != 0)
            memcpy((char *)variables + known->field, &value, sizeof(value));
        return !known->left_out;
    }
    return !as_str_starts(name, AS_STR("appserver."));
}

int as_variables_take(as_variables *variables, char *block, size_t len)
{
    variables->count = 0;
    variables->entries[0] = NULL;
    variables->program = variables->whole_path = variables->symlinks = "";
    variables->root = variables->extensions = variables->log_id = variables->script_name = variables->path_info = "";
    variables->path_translated = variables->document_root = variables->query = variables->method = "";
    variables->remote_address = "";
    if (len > 0 && block[len - 1] != '\0')
        return AS_EBADFRAME;
    const char *end = block + len;
    while (block < end) {
        size_t name_len = strlen(block);
        char *value = block + name_len + 1;
        if (name_len == 0 || value >= end || memchr(block, '=', name_len) != NULL)
            return AS_EBADFRAME;
        size_t value_len = strlen(value);
        bool handed_on = note_known(variables, as_str_of(block, name_len), value);
        block[name_len] = '=';
        if (handed_on && as_variables_add(variables, block) != AS_OK)
            return AS_EFULL;
        block = value + value_len + 1;
    }
    return AS_OK;
}

int as_variables_add(as_variables *variables, char *entry)
{
    if (variables->count == AS_VARIABLES_MAX)
        return AS_EFULL;
    variables->entries[variables->count++] = entry;
    variables->entries[variables->count] = NULL;
    return AS_OK;
}

static bool has_name_of(const as_variables *variables, const char *entry)
{
    size_t len = strcspn(entry, "=") + 1;
    for (uint32_t i = 0; i < variables->count; i++) {
        if (strncmp(variables->entries[i], entry, len) == 0)
            return true;
    }
    return false;
}

int as_variables_add_absent(as_variables *variables, char *const *entries, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!has_name_of(variables, entries[i]) && as_variables_add(variables, entries[i]) != AS_OK)
            return AS_EFULL;
    }
    return AS_OK;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes in place; false for a broken escape or a control character. */
static bool decode_word(char *word)
{
    char *out = word;
    for (const char *in = word; *in != '\0'; in++) {
        char c = *in;
        if (c == '%') {
            int high = hex_digit(in[1]);
            int low = high < 0 ? -1 : hex_digit(in[2]);
            if (low < 0)
                return false;
            c = (char)(high << 4 | low);
            in += 2;
        }
        if ((unsigned char)c < ' ')
            return false;
        *out++ = c;
    }
    *out = '\0';
    return true;
}

uint32_t as_query_words(char *query, char **words)
{
    uint32_t count = 0;
    if (query[0] == '\0' || strchr(query, '=') != NULL)
        return 0;
    for (char *word = query; word != NULL;) {
        char *next = strchr(word, '+');
        if (next != NULL)
            *next++ = '\0';
        if (count == AS_QUERY_WORDS_MAX || !decode_word(word) || word[0] == '-')
            return 0;
        words[count++] = word;
        word = next;
    }
    return count;
}
