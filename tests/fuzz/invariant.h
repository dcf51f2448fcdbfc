/* invariant.h: what a fuzz target says when a property does not hold: the fuzzer and the sanitizers take it from abort(). */
#ifndef AS_TESTS_INVARIANT_H
#define AS_TESTS_INVARIANT_H

#include <stdio.h>
#include <stdlib.h>

#define INVARIANT(condition)                                                               \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
