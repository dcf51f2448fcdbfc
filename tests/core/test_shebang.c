/* with: */
#include "spawner/shebang.c"

#include "check.h"

static void check_line(const char *text, int verdict, as_interpreter_kind kind, const char *path, const char *option)
{
    as_shebang line = {0};
    CHECK_INT(as_shebang_parse(as_str_from(text), &line), verdict);
    if (verdict != AS_OK)
        return;
    CHECK_INT(line.kind, kind);
    CHECK(strcmp(line.path, path) == 0);
    CHECK(strcmp(line.option, option) == 0);
}

int main(void)
{
    check_line("#!/usr/bin/python3\n", AS_OK, AS_INTERPRETER_PYTHON, "/usr/bin/python3", "");
    check_line("#! /usr/bin/python3.11 \t-u \nprint\n", AS_OK, AS_INTERPRETER_PYTHON, "/usr/bin/python3.11", "-u");
    check_line("#!/usr/bin/python3 -S -E\n", AS_OK, AS_INTERPRETER_PYTHON, "/usr/bin/python3", "-S -E");
    check_line("#!/usr/bin/env python3\n", AS_OK, AS_INTERPRETER_PYTHON, "python3", "");
    check_line("#!/usr/bin/perl -w\n", AS_OK, AS_INTERPRETER_PERL, "/usr/bin/perl", "-w");
    check_line("#!/bin/sh\n", AS_OK, AS_INTERPRETER_OTHER, "/bin/sh", "");
    check_line("#!/usr/bin/pythonic\n", AS_OK, AS_INTERPRETER_OTHER, "/usr/bin/pythonic", "");
    /* What another program than the kernel would have to be asked about. */
    check_line("", AS_ENOTFOUND, 0, NULL, NULL);
    check_line("#", AS_ENOTFOUND, 0, NULL, NULL);
    check_line("#!", AS_ENOTFOUND, 0, NULL, NULL);
    check_line("#!\n", AS_ENOTFOUND, 0, NULL, NULL);
    check_line("# !/usr/bin/python3\n", AS_ENOTFOUND, 0, NULL, NULL);
    check_line("#!/usr/bin/python3", AS_ENOTFOUND, 0, NULL, NULL);
    check_line("#!/usr/bin/python3\r\n", AS_ENOTFOUND, 0, NULL, NULL);
    check_line("#!python3\n", AS_ENOTFOUND, 0, NULL, NULL);
    check_line("#!/usr/bin/env\n", AS_ENOTFOUND, 0, NULL, NULL);
    check_line("#!/usr/bin/env -S python3 -u\n", AS_ENOTFOUND, 0, NULL, NULL);
    check_line("#!/usr/bin/env A=1 python3\n", AS_ENOTFOUND, 0, NULL, NULL);
    check_line("#!/usr/bin/env ./python3\n", AS_ENOTFOUND, 0, NULL, NULL);

    char text[AS_SHEBANG_SIZE + 2];
    memset(text, 'a', sizeof(text));
    memcpy(text, "#!/", 3);
    text[sizeof(text) - 2] = '\n';
    text[sizeof(text) - 1] = '\0';
    check_line(text, AS_ENOTFOUND, 0, NULL, NULL);
    as_shebang line;
    CHECK_INT(as_shebang_parse(as_str_of("#!/usr/bin/python\0003\n", 20), &line), AS_ENOTFOUND);

    CHECK(as_interpreter_option_is_plain(AS_INTERPRETER_PYTHON, ""));
    CHECK(as_interpreter_option_is_plain(AS_INTERPRETER_PYTHON, "-SE"));
    CHECK(!as_interpreter_option_is_plain(AS_INTERPRETER_PYTHON, "-"));
    CHECK(!as_interpreter_option_is_plain(AS_INTERPRETER_PYTHON, "-S -E"));
    CHECK(!as_interpreter_option_is_plain(AS_INTERPRETER_PYTHON, "-i"));
    CHECK(!as_interpreter_option_is_plain(AS_INTERPRETER_PYTHON, "-Wignore"));
    CHECK(!as_interpreter_option_is_plain(AS_INTERPRETER_PYTHON, "script.py"));
    CHECK(as_interpreter_option_is_plain(AS_INTERPRETER_PERL, "-w"));
    CHECK(!as_interpreter_option_is_plain(AS_INTERPRETER_PERL, "-T"));
    CHECK(!as_interpreter_option_is_plain(AS_INTERPRETER_OTHER, "-w"));
    return check_result("shebang");
}
