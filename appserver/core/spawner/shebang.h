/* shebang.h: what the first line of a script says about its interpreter (execve(2)). No I/O, no allocation; any thread. */
#ifndef AS_SPAWNER_SHEBANG_H
#define AS_SPAWNER_SHEBANG_H

#include "base/error.h"
#include "base/str.h"

enum {
    /* What the kernel reads of a #! line (BINPRM_BUF_SIZE). */
    AS_SHEBANG_SIZE = 256,
};

typedef enum as_interpreter_kind {
    AS_INTERPRETER_OTHER,
    AS_INTERPRETER_PYTHON,
    AS_INTERPRETER_PERL,
} as_interpreter_kind;

typedef struct as_shebang {
    as_interpreter_kind kind;
    char path
        [AS_SHEBANG_SIZE]; /* of the interpreter; its name alone when the line goes through env, which looks in PATH */
    char option[AS_SHEBANG_SIZE]; /* all that follows it, which the kernel gives as one word; "" for none */
} as_shebang;

/* What the kernel makes of the beginning of a script: the interpreter's path, absolute, and all that follows it ("" for none), both in `text`. AS_OK; AS_ENOTFOUND
 * when it has no such line, or one that is cut off or ends in CR. */
int as_shebang_split(as_str text, as_str *path, as_str *option);
/* Reads the beginning of a script. AS_OK; AS_ENOTFOUND when it has no such line, or one whose effect is not certain (cut off, CR at its end, env with options). */
int as_shebang_parse(as_str text, as_shebang *line);
/* By the last name of an interpreter's path: python, python3, python3.11; perl, perl5.36.0. */
as_interpreter_kind as_interpreter_kind_of(const char *path);
/* Whether an interpreter that has been started with this option beforehand does the same for every script. */
bool as_interpreter_option_is_plain(as_interpreter_kind kind, const char *option);

#endif
