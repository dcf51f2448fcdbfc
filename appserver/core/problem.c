#include "problem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server.h"

static _Thread_local char sentence[512];

int as_problem(int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    return err;
}

int as_problem_system(const char *format, ...)
{
    int saved = errno;
    va_list args;
    va_start(args, format);
    int len = vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    if (len >= 0 && (size_t)len < sizeof(sentence))
        snprintf(sentence + len, sizeof(sentence) - (size_t)len, ": %s", strerror(saved));
    return AS_ESYSTEM;
}

const char *as_server_problem(void)
{
    return sentence;
}
