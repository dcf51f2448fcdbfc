/* with: */
#include "spawner/variables.c"

#include "check.h"

static as_variables variables;

static const char *value_of(const char *name)
{
    size_t len = strlen(name);
    for (uint32_t i = 0; i < variables.count; i++) {
        if (strncmp(variables.entries[i], name, len) == 0 && variables.entries[i][len] == '=')
            return variables.entries[i] + len + 1;
    }
    return "(absent)";
}

static int take(const char *block, size_t len)
{
    static char copy[64 * 1024];
    memcpy(copy, block, len);
    return as_variables_take(&variables, copy, len);
}

#define TAKE(literal) take(literal, sizeof(literal) - 1)

static void test_take(void)
{
    CHECK_INT(TAKE("REQUEST_METHOD\0GET\0QUERY_STRING\0\0SCRIPT_NAME\0/cgi\0PATH_INFO\0/a/b\0PATH_TRANSLATED\0/old\0"
                   "SCRIPT_FILENAME\0/old\0DOCUMENT_ROOT\0/www\0appserver.cgi.root\0/root\0appserver.request_id\0ff\0"
                   "appserver.other\0x\0HTTP_A\0one=two\0"),
              AS_OK);
    CHECK_INT(variables.count, 4);
    CHECK(variables.entries[4] == NULL);
    CHECK_STR(as_str_from(variables.entries[0]), "REQUEST_METHOD=GET");
    CHECK_STR(as_str_from(variables.entries[1]), "QUERY_STRING=");
    CHECK_STR(as_str_from(variables.entries[2]), "DOCUMENT_ROOT=/www");
    CHECK_STR(as_str_from(variables.entries[3]), "HTTP_A=one=two");
    CHECK_STR(as_str_from(variables.root), "/root");
    CHECK_STR(as_str_from(variables.log_id), "ff");
    CHECK_STR(as_str_from(variables.path_info), "/a/b");
    CHECK_STR(as_str_from(variables.script_name), "/cgi");
    CHECK_STR(as_str_from(variables.method), "GET");
    CHECK_STR(as_str_from(variables.document_root), "/www");
}

static void test_malformed(void)
{
    CHECK_INT(TAKE(""), AS_OK);
    CHECK_INT(variables.count, 0);
    CHECK_STR(as_str_from(variables.root), "");
    CHECK_INT(TAKE("A\0b"), AS_EBADFRAME);
    CHECK_INT(TAKE("A\0b\0C\0"), AS_EBADFRAME);
    CHECK_INT(TAKE("\0b\0"), AS_EBADFRAME);
    CHECK_INT(TAKE("A=B\0c\0"), AS_EBADFRAME);
}

static void test_too_many(void)
{
    static char block[5 * (AS_VARIABLES_MAX + 1)];
    for (int i = 0; i <= AS_VARIABLES_MAX; i++)
        memcpy(block + 5 * i, "AB\0c", 5);
    CHECK_INT(take(block, sizeof(block) - 5), AS_OK);
    CHECK_INT(variables.count, AS_VARIABLES_MAX);
    CHECK_INT(take(block, sizeof(block)), AS_EFULL);
}

static void test_absent(void)
{
    char path[] = "PATH=/bin", lang[] = "LANG=C", prefix[] = "PAT=x";
    char *defaults[] = {path, lang, prefix};
    CHECK_INT(TAKE("LANG\0de\0PATHS\0y\0"), AS_OK);
    CHECK_INT(as_variables_add_absent(&variables, defaults, 3), AS_OK);
    CHECK_INT(variables.count, 4);
    CHECK_STR(as_str_from(value_of("LANG")), "de");
    CHECK_STR(as_str_from(value_of("PATH")), "/bin");
    CHECK_STR(as_str_from(value_of("PAT")), "x");
}

static uint32_t words_of(const char *query, char **words)
{
    static char copy[1024];
    snprintf(copy, sizeof(copy), "%s", query);
    return as_query_words(copy, words);
}

static void test_query_words(void)
{
    char *words[AS_QUERY_WORDS_MAX];
    CHECK_INT(words_of("one+two%20words+%2b", words), 3);
    CHECK_STR(as_str_from(words[0]), "one");
    CHECK_STR(as_str_from(words[1]), "two words");
    CHECK_STR(as_str_from(words[2]), "+");
    CHECK_INT(words_of("a%3Db", words), 1);
    CHECK_STR(as_str_from(words[0]), "a=b");
    CHECK_INT(words_of("", words), 0);
    CHECK_INT(words_of("a=b", words), 0);
    CHECK_INT(words_of("a+b%2", words), 0);
    CHECK_INT(words_of("a%zz", words), 0);
    CHECK_INT(words_of("a%00", words), 0);
    CHECK_INT(words_of("-s", words), 0);
    CHECK_INT(words_of("a+%2ds", words), 0);
}

static void test_too_many_words(void)
{
    char *words[AS_QUERY_WORDS_MAX];
    char query[AS_QUERY_WORDS_MAX + 1];
    memset(query, '+', sizeof(query));
    query[AS_QUERY_WORDS_MAX - 1] = '\0';
    CHECK_INT(words_of(query, words), AS_QUERY_WORDS_MAX);
    query[AS_QUERY_WORDS_MAX - 1] = '+';
    query[AS_QUERY_WORDS_MAX] = '\0';
    CHECK_INT(words_of(query, words), 0);
}

int main(void)
{
    test_take();
    test_malformed();
    test_too_many();
    test_absent();
    test_query_words();
    test_too_many_words();
    return check_result("variables");
}
