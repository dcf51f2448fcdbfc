/* programs.h: which of the paths below a folder are CGI programs, where not all of them are: by extension, and the index program of a folder. */
#ifndef AS_HANDLER_PROGRAMS_H
#define AS_HANDLER_PROGRAMS_H

#include "handler/file.h"
#include "http/request.h"

typedef struct as_programs_options {
    const as_handler
        *files; /* everything that is no program; must answer at once (never PENDING). NULL: everything is one */
    const as_handler *pool;
    const char *root; /* what follows the rule's prefix is looked up below it */
    as_symlinks symlinks;
    const char *extensions; /* ".php,.pl"; with `files` only */
    const char *index;      /* programs and files for a folder: NUL-separated, ended by an empty name */
    const char *fallback;   /* path below the root of the program for paths that are not there; empty: none */
} as_programs_options;

/* Both handlers are borrowed and live as long as the snapshot; the rest is copied. A request for a folder that has an index program goes to it by that path. A path
 * that names a program that is not there never goes to `files`. */
as_handler *as_programs_handler_new(const as_programs_options *options);

/* Whether a file name (maybe with folders before it) has one of the extensions, in any case. Any thread. */
static inline bool as_programs_has_extension(as_str extensions, as_str name)
{
    as_str extension;
    while (as_str_next_member(&extensions, &extension)) {
        as_str end = as_str_of(name.ptr + name.len - extension.len, extension.len);
        if (name.len > extension.len && as_str_equal_nocase(end, extension))
            return true;
    }
    return false;
}

#endif
