/* platform.h: the one seam for compiler and kernel differences.
 *
 * Everything that depends on the compiler, the C library or the kernel's version is named here, so that no
 * other file of the core needs a conditional (net/tls.c excepted, once there is one). */
#ifndef AS_BASE_PLATFORM_H
#define AS_BASE_PLATFORM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#if !defined(__linux__)
#error "the core needs Linux (epoll, eventfd, memfd, openat2, pidfd)"
#endif

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef NDEBUG
#error "the core keeps its assertions: build with -UNDEBUG"
#endif

#define AS_LIKELY(x) __builtin_expect(!!(x), 1)
#define AS_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define AS_CACHE_LINE 64
#define AS_ALIGNED_LINE __attribute__((aligned(AS_CACHE_LINE)))
#define AS_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define AS_MUST_USE __attribute__((warn_unused_result))
/* For code that runs on a stack which the sanitizers do not know (the child half of a vfork). */
#define AS_NO_SANITIZE __attribute__((no_sanitize("address"))) __attribute__((no_sanitize("undefined")))
#define AS_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define AS_CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#endif
