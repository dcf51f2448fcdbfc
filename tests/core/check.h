/* check.h: what C tests need: checks that say where they failed, and a count at the end. */
#ifndef AS_TESTS_CHECK_H
#define AS_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_failures;
static int check_count;

#define CHECK(condition)                                                              \
    do {                                                                              \
        check_count++;                                                                \
        if (!(condition)) {                                                           \
            check_failures++;                                                         \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
        }                                                                             \
    } while (0)

#define CHECK_INT(actual, expected)                                                                               \
    do {                                                                                                          \
        long long check_a = (long long)(actual), check_e = (long long)(expected);                                 \
        check_count++;                                                                                            \
        if (check_a != check_e) {                                                                                 \
            check_failures++;                                                                                     \
            fprintf(stderr, "%s:%d: %s is %lld, expected %lld\n", __FILE__, __LINE__, #actual, check_a, check_e); \
        }                                                                                                         \
    } while (0)

/* `actual` is an as_str, `expected` a C string. */
#define CHECK_STR(actual, expected)                                                                                    \
    do {                                                                                                               \
        as_str check_a = (actual);                                                                                     \
        const char *check_e = (expected);                                                                              \
        check_count++;                                                                                                 \
        if (check_a.len != strlen(check_e) || (check_a.len > 0 && memcmp(check_a.ptr, check_e, check_a.len) != 0)) {   \
            check_failures++;                                                                                          \
            fprintf(stderr, "%s:%d: %s is \"%.*s\", expected \"%s\"\n", __FILE__, __LINE__, #actual, (int)check_a.len, \
                    check_a.ptr ? check_a.ptr : "", check_e);                                                          \
        }                                                                                                              \
    } while (0)

/* The value of main(): prints the count, and 1 when anything failed. */
static inline int check_result(const char *name)
{
    printf("%s: %d checks, %d failed\n", name, check_count, check_failures);
    return check_failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
