/* script_path.h: which program a CGI request means. Any thread. */
#ifndef AS_SPAWNER_SCRIPT_PATH_H
#define AS_SPAWNER_SCRIPT_PATH_H

#include "base/error.h"
#include "base/str.h"
#include "handler/file.h"
#include "spawner/file_marks.h"

enum {
    /* Directories between the root and a program: bounds the work that a path of many components can cause. */
    AS_SCRIPT_MAX_DEPTH = 32,
};

typedef struct as_script {
    as_str name;      /* the part of the path that names the program, with its leading slash */
    as_str path_info; /* what stands behind it (RFC 3875 section 4.1.5); empty or begins with a slash */
    uint32_t mode;    /* st_mode of the file */
    as_file_mark mark;
} as_script;

/* Looks for a program below the directory `root` (absolute) by `path` (percent-decoded): the first component that is a regular file is the program.
 * Both strings of `script` lie in `path`.
 * AS_OK; AS_ENOTFOUND: there is no such file, or a component begins with a dot, or what follows the program holds a "..";
 * AS_EFORBIDDEN: a directory (errno 0), neither that nor a file (ENOTSUP), or not ours to reach (EACCES, EXDEV for a link that leads out, or ELOOP for one that is
 * not followed); AS_ESYSTEM: the root cannot be opened, or
 * the system is short of something; errno says what. */
int as_script_find(const char *root, const char *path, as_symlinks symlinks, as_script *script);

/* The interpreter that `table` (".ext\0interpreter\0...\0") names for a program's file name; NULL when it names none. */
const char *as_script_interpreter(const char *table, as_str name);

#endif
