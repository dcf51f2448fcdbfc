/* variables.h: from a request's environment block to what execve() wants, without copying it. One owner thread; no I/O, no allocation. */
#ifndef AS_SPAWNER_VARIABLES_H
#define AS_SPAWNER_VARIABLES_H

#include "base/error.h"
#include "base/str.h"

enum {
    /* Variables of one program; a head has at most AS_MAX_HEADERS fields. */
    AS_VARIABLES_MAX = 1024,
    /* Words of an ISINDEX query; more than this and none is given. */
    AS_QUERY_WORDS_MAX = 64,
};

typedef struct as_variables {
    char *entries[AS_VARIABLES_MAX + 1]; /* "NAME=value", ended by NULL: for execve() */
    uint32_t count;
    /* Values from the block, "" when absent. Those before script_name are not among the entries. */
    const char *root;       /* appserver.cgi.root */
    const char *extensions; /* appserver.cgi.extensions */
    const char *program;    /* appserver.cgi.program: the file in the root that is run, whatever the path is */
    const char
        *whole_path; /* appserver.cgi.whole_path: when not empty, that program's name in the URL is the whole path */
    const char *symlinks;    /* appserver.cgi.symlinks: "deny", "follow", else beneath */
    const char *log_id;      /* appserver.request_id */
    const char *script_name; /* as the core sent them: the rule's prefix and all that follows it */
    const char *path_info;
    const char *path_translated;
    const char *document_root;
    const char *remote_address;
    const char *query;
    const char *method;
} as_variables;

/* Takes a block "NAME\0value\0..." apart in place: the entries point into it. Names that begin with "appserver.", and those that the split of the path
 * decides (SCRIPT_NAME, PATH_INFO, PATH_TRANSLATED, SCRIPT_FILENAME), are left out. AS_OK; AS_EBADFRAME for a malformed block; AS_EFULL for too many. */
int as_variables_take(as_variables *variables, char *block, size_t len);

/* Adds "NAME=value"; the string must stay. AS_OK or AS_EFULL. */
AS_MUST_USE int as_variables_add(as_variables *variables, char *entry);
/* Adds those of `entries` (`count` of them, "NAME=value") whose name is not there yet. AS_OK or AS_EFULL. */
AS_MUST_USE int as_variables_add_absent(as_variables *variables, char *const *entries, uint32_t count);

/* The command line words of an ISINDEX query (RFC 3875 section 4.4): decoded in place into `words` (AS_QUERY_WORDS_MAX), which point into `query`.
 * How many there are; 0 when the query has a "=", cannot be decoded, has a control character, or one of them begins with "-": a program would take that for an
 * option, which has been the way to run code on servers before (CVE-2012-1823), and the RFC leaves it to the server. */
uint32_t as_query_words(char *query, char **words);

#endif
