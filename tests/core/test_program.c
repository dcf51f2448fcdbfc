/* with: spawner/program.c spawner/rlimits.c spawner/identity.c base/memory.c base/error.c */
/* Why a program could not be started, as its owner reads it; what becomes of a script between its look-up and its start. */
#include "spawner/program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "check.h"

static char folder[] = "/tmp/test_program.XXXXXX";
static char path[128];
static as_launcher launcher;

static void write_script(const char *text, size_t len, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    CHECK(fd >= 0 && write(fd, text, len) == (ssize_t)len);
    close(fd);
    chmod(path, mode);
}

/* Starts it, which must fail; what is said about that. */
static const char *reason(const char *interpreter, const char *directory)
{
    static char text[320];
    char *const argv[] = {path, NULL};
    char *const envp[] = {NULL};
    as_program program = {
        .path = interpreter != NULL ? interpreter : path,
        .script = path,
        .argv = argv,
        .envp = envp,
        .directory = directory,
        .stdin_fd = launcher.null_fd,
        .stdout_fd = launcher.null_fd,
        .stderr_fd = launcher.null_fd,
    };
    text[0] = '\0';
    CHECK_INT(as_program_start(&launcher, &program), AS_ESYSTEM);
    as_program_explain(&program, errno, text, sizeof(text));
    return text;
}

static void expect_of(const char *script, const char *wanted)
{
    write_script(script, strlen(script), 0700);
    const char *found = reason(NULL, folder);
    CHECK_STR(as_str_from(found), wanted);
}

static void test_first_line(void)
{
    char line[400];
    expect_of("", "it is empty");
    expect_of("text", "it has no #! line and is no program of this machine");
    expect_of("#!", "its #! line names no interpreter");
    expect_of("#! \t \n", "its #! line names no interpreter");
    expect_of("#!/no/such -x\n", "its interpreter /no/such is missing");
    expect_of("#!/no/such", "its interpreter /no/such is missing");
    expect_of("#!/bin/sh\r\n", "its #! line ends in CR LF: its line ends must be those of Unix");
    expect_of("#!/bin/sh\r", "its #! line ends in CR LF: its line ends must be those of Unix");
    expect_of("#!no-such-sh\n", "its #! line must name its interpreter by an absolute path, not as no-such-sh");
    expect_of("#!/usr\n", "its interpreter /usr is no file");
    expect_of("#!/etc/passwd\n", "its interpreter /etc/passwd is not executable: chmod +x");
    expect_of("\xef\xbb\xbf#!/bin/sh\n",
              "it begins with a byte order mark: save it without one, so that #! comes first");
    memset(line, 'a', sizeof(line));
    memcpy(line, "#!/", 3);
    line[sizeof(line) - 1] = '\0';
    expect_of(line, "its #! line is too long: the system reads 256 bytes");
    /* All of it is read, to the last byte, and no more. */
    memset(line, 'a', sizeof(line));
    memcpy(line, "#!/", 3);
    memcpy(line + 255, "\n", 2);
    char wanted[400];
    snprintf(wanted, sizeof(wanted), "its interpreter %.*s is missing", 253, line + 2);
    expect_of(line, wanted);
}

static void test_format(void)
{
    /* ELF of no machine. */
    const char *elf = "\x7f"
                      "ELF\x02\x01\x01";
    expect_of(elf, "it has no #! line and is no program of this machine");
    const char *itself = "its interpreter is a script, whose interpreter is one, and so on: one has to be a program";
    char line[256];
    snprintf(line, sizeof(line), "#!%s\n", path);
    expect_of(line, itself);
}

static void test_interpreter(void)
{
    write_script("x", 1, 0600);
    CHECK_STR(as_str_from(reason("/no/such", folder)), "its interpreter /no/such is missing");
    CHECK_STR(as_str_from(reason("/usr", folder)), "its interpreter /usr is no file");
    CHECK_STR(as_str_from(reason("/etc/passwd", folder)), "its interpreter /etc/passwd is not executable: chmod +x");
    char wanted[256];
    snprintf(wanted, sizeof(wanted), "%s is not executable: chmod +x", path);
    CHECK_STR(as_str_from(reason(NULL, folder)), wanted);
    char other[160];
    snprintf(other, sizeof(other), "%s-interpreter", path);
    int fd = open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    CHECK(fd >= 0 && write(fd, "?", 1) == 1);
    close(fd);
    snprintf(wanted, sizeof(wanted), "its interpreter %s is no program of this machine", other);
    CHECK_STR(as_str_from(reason(other, folder)), wanted);
    char line[256];
    int len = snprintf(line, sizeof(line), "#!%s\n", other);
    write_script(line, (size_t)len, 0700);
    CHECK_STR(as_str_from(reason(NULL, folder)), wanted);
    unlink(other);
}

/* The kernel refuses a file that somebody has open for writing, also one that is written anew in place. */
static void test_being_written(void)
{
    write_script("#!/bin/sh\n", 10, 0700);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_STR(as_str_from(reason(NULL, folder)), "it is being written to: write a new file and rename it");
    close(fd);
}

static void test_gone(void)
{
    char wanted[256];
    write_script("#!/bin/sh\n", 10, 0700);
    snprintf(wanted, sizeof(wanted), "its directory %s-none cannot be entered: No such file or directory", path);
    char directory[160];
    snprintf(directory, sizeof(directory), "%s-none", path);
    CHECK_STR(as_str_from(reason(NULL, directory)), wanted);
    unlink(path);
    CHECK_STR(as_str_from(reason(NULL, folder)), "it has gone since it was looked up");
    CHECK_STR(as_str_from(reason(NULL, directory)), "it has gone since it was looked up");
    /* A folder has come in its place. */
    CHECK(mkdir(path, 0700) == 0);
    snprintf(wanted, sizeof(wanted), "%s is no file any more", path);
    CHECK_STR(as_str_from(reason(NULL, folder)), wanted);
    rmdir(path);
}

int main(void)
{
    if (mkdtemp(folder) == NULL || as_launcher_init(&launcher) != AS_OK)
        return EXIT_FAILURE;
    as_launcher_note_process(&launcher);
    snprintf(path, sizeof(path), "%s/script", folder);
    test_first_line();
    test_format();
    test_interpreter();
    test_being_written();
    test_gone();
    as_launcher_free(&launcher);
    rmdir(folder);
    return check_result("program");
}
