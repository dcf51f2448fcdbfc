/* Limits of programs: what is set, never above what this process may give, and what the end of a program is put down to. */
/* with: spawner/rlimits.c */

#include "spawner/rlimits.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/str.h"
#include "check.h"
#include "handler/frame.h"

static const as_program_limits all = {
    .cpu_s = 10, .memory = 64 << 20, .file_size = 3000, .processes = 77, .open_files = 20};

/* In a process of its own: what was set stays. */
static void in_child(void (*act)(void))
{
    int status = -1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        act();
        fflush(NULL);
        _exit(check_failures != 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_INT(status, 0);
}

static void check_value(int resource, rlim_t soft, rlim_t hard)
{
    struct rlimit now;
    CHECK(getrlimit(resource, &now) == 0);
    CHECK_INT(now.rlim_cur, soft);
    CHECK_INT(now.rlim_max, hard);
}

static void apply_all(void)
{
    as_rlimits limits;
    as_rlimits_plan(&limits, &all);
    CHECK_INT(limits.count, AS_RLIMITS_MAX);
    CHECK_INT(as_rlimits_apply(&limits, 0), AS_OK);
    check_value(RLIMIT_CPU, 10, 11);
    check_value(RLIMIT_DATA, 64 << 20, 64 << 20);
    check_value(RLIMIT_FSIZE, 3000, 3000);
    check_value(RLIMIT_NPROC, 77, 77);
    check_value(RLIMIT_NOFILE, 20, 20);
}

static void apply_below(void)
{
    struct rlimit low = {1000, 2000};
    as_rlimits limits;
    CHECK(setrlimit(RLIMIT_FSIZE, &low) == 0);
    as_rlimits_plan(&limits, &(as_program_limits){.file_size = 1 << 20});
    CHECK_INT(limits.count, 1);
    CHECK_INT(as_rlimits_apply(&limits, 0), AS_OK);
    check_value(RLIMIT_FSIZE, 2000, 2000);
}

static void apply_none(void)
{
    struct rlimit before;
    as_rlimits limits;
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    as_rlimits_plan(&limits, &(as_program_limits){0});
    CHECK_INT(limits.count, 0);
    CHECK_INT(as_rlimits_apply(&limits, 0), AS_OK);
    check_value(RLIMIT_FSIZE, before.rlim_cur, before.rlim_max);
}

static void apply_to_another(void)
{
    as_rlimits limits;
    struct rlimit now;
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    as_rlimits_plan(&limits, &all);
    CHECK_INT(as_rlimits_apply(&limits, pid), AS_OK);
    CHECK(prlimit(pid, RLIMIT_FSIZE, NULL, &now) == 0);
    CHECK_INT(now.rlim_cur, 3000);
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK_INT(as_rlimits_apply(&limits, pid), AS_ESYSTEM);
}

static void check_reason(int status, long cpu_s, long resident_kib, const char *expected)
{
    as_rlimits limits;
    char text[160] = "";
    struct rusage usage = {.ru_utime = {.tv_sec = cpu_s}, .ru_maxrss = resident_kib};
    as_rlimits_plan(&limits, &all);
    CHECK_INT(as_rlimits_explain(&limits, status, &usage, text, sizeof(text)), expected != NULL);
    CHECK_STR(as_str_from(text), expected != NULL ? expected : "");
}

static void check_reasons(void)
{
    check_reason(0, 20, 99 << 10, NULL);
    check_reason(1, 1, 1 << 10, NULL);
    check_reason(AS_END_SIGNAL + SIGXCPU, 10, 0, "it used more than cpu_time 10 s");
    check_reason(AS_END_SIGNAL + SIGKILL, 11, 0, "it used more than cpu_time 10 s and did not end by SIGXCPU");
    check_reason(AS_END_SIGNAL + SIGKILL, 3, 0, NULL);
    check_reason(AS_END_SIGNAL + SIGXFSZ, 0, 0, "it wrote a file larger than file_size 3000 bytes");
    check_reason(1, 0, 60 << 10, "it used 60 MiB, and memory allows 64 MiB");
    check_reason(AS_END_SIGNAL + SIGABRT, 0, 60 << 10, "it used 60 MiB, and memory allows 64 MiB");
    as_rlimits none;
    char text[160];
    struct rusage usage = {.ru_utime = {.tv_sec = 100}, .ru_maxrss = 1 << 30};
    as_rlimits_plan(&none, &(as_program_limits){0});
    for (int number = 1; number < 32; number++)
        CHECK(!as_rlimits_explain(&none, AS_END_SIGNAL + number, &usage, text, sizeof(text)));
}

int main(void)
{
    in_child(apply_all);
    in_child(apply_below);
    in_child(apply_none);
    apply_to_another();
    check_reasons();
    return check_result("rlimits");
}
