/* problem.h: why a call from Python failed: one sentence for each control thread. */
#ifndef AS_PROBLEM_H
#define AS_PROBLEM_H

#include "base/error.h"

/* Keeps the sentence for as_server_problem() and returns `err`. */
int as_problem(int err, const char *format, ...) AS_PRINTF(2, 3);
/* Likewise with errno's text behind it; returns AS_ESYSTEM. */
int as_problem_system(const char *format, ...) AS_PRINTF(1, 2);

#endif
