#include "spawner/rlimits.h"

#include <signal.h>
#include <stdio.h>

#include "handler/frame.h"

enum {
    /* Of `memory`, resident: a program that ends badly with this much has probably met the limit. Programs in interpreters see a failed allocation,
     * and how they end then is theirs. */
    NEAR_MEMORY_PERCENT = 75,
};

static void add(as_rlimits *limits, int resource, uint64_t soft, uint64_t hard)
{
    struct rlimit now;
    struct rlimit *value = &limits->values[limits->count];
    if (soft == 0 || getrlimit(resource, &now) < 0)
        return;
    value->rlim_cur = soft < now.rlim_max ? soft : now.rlim_max;
    value->rlim_max = hard < now.rlim_max ? hard : now.rlim_max;
    limits->resources[limits->count++] = resource;
}

void as_rlimits_plan(as_rlimits *limits, const as_program_limits *wanted)
{
    uint64_t cpu_end_s = (uint64_t)wanted->cpu_s + AS_RLIMITS_CPU_GRACE_S;
    *limits = (as_rlimits){.wanted = *wanted};
    add(limits, RLIMIT_CPU, wanted->cpu_s, cpu_end_s);
    add(limits, RLIMIT_DATA, wanted->memory, wanted->memory);
    add(limits, RLIMIT_FSIZE, wanted->file_size, wanted->file_size);
    add(limits, RLIMIT_NPROC, wanted->processes, wanted->processes);
    add(limits, RLIMIT_NOFILE, wanted->open_files, wanted->open_files);
}

AS_NO_SANITIZE int as_rlimits_apply(const as_rlimits *limits, pid_t pid)
{
    for (uint32_t i = 0; i < limits->count; i++) {
        if (prlimit(pid, limits->resources[i], &limits->values[i], NULL) < 0)
            return AS_ESYSTEM;
    }
    return AS_OK;
}

/* "10 MiB": whole units, as they were configured. */
static const char *print_size(uint64_t bytes, char out[24])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (unit + 1 < AS_COUNT_OF(units) && bytes >= 1024 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, 24, "%llu %s", (unsigned long long)bytes, units[unit]);
    return out;
}

static bool explain_cpu(const as_rlimits *limits, int number, const struct rusage *usage, char *text, size_t size)
{
    uint32_t limit_s = limits->wanted.cpu_s;
    int64_t used_s = usage->ru_utime.tv_sec + usage->ru_stime.tv_sec;
    if (limit_s == 0)
        return false;
    if (number == SIGXCPU)
        snprintf(text, size, "it used more than cpu_time %u s", limit_s);
    else if (number == SIGKILL && used_s >= limit_s)
        snprintf(text, size, "it used more than cpu_time %u s and did not end by SIGXCPU", limit_s);
    else
        return false;
    return true;
}

static bool explain_memory(const as_rlimits *limits, const struct rusage *usage, char *text, size_t size)
{
    char limit[24];
    uint64_t used = (uint64_t)usage->ru_maxrss * 1024;
    uint64_t memory = limits->wanted.memory;
    if (memory == 0 || used / NEAR_MEMORY_PERCENT < memory / 100)
        return false;
    snprintf(text, size, "it used %llu MiB, and memory allows %s", (unsigned long long)(used >> 20),
             print_size(memory, limit));
    return true;
}

bool as_rlimits_explain(const as_rlimits *limits, int status, const struct rusage *usage, char *text, size_t size)
{
    char limit[24];
    int number = status - AS_END_SIGNAL;
    if (status == 0)
        return false;
    if (number > 0 && explain_cpu(limits, number, usage, text, size))
        return true;
    if (number == SIGXFSZ && limits->wanted.file_size != 0) {
        snprintf(text, size, "it wrote a file larger than file_size %s", print_size(limits->wanted.file_size, limit));
        return true;
    }
    return explain_memory(limits, usage, text, size);
}
