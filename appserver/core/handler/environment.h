/* environment.h: the CGI/1.1 environment of a request (RFC 3875 section 4.1, docs/executor-protocol.md section 8).
 *
 * No I/O, no allocation per request. What is the same for every request of a handler is made once. */
#ifndef AS_HANDLER_ENVIRONMENT_H
#define AS_HANDLER_ENVIRONMENT_H

#include "handler/pool.h"

typedef struct as_environment {
    char *constant; /* "NAME\0value\0...": owned */
    size_t constant_len;
    bool mounted;
} as_environment;

/* Start-up; copies what it needs of the options. Any thread. */
void as_environment_init(as_environment *environment, const as_pool_handler_options *options);
void as_environment_free(as_environment *environment);

/* Writes the block for `request` to `out`: its length in bytes (> 0), or AS_EFULL when `room` bytes may not be enough.
 * `authorization`: whether HTTP_AUTHORIZATION is passed (RFC 3875 section 9.2: not unless somebody says so). */
int as_environment_build(const as_environment *environment, const as_request *request, bool authorization, char *out,
                         size_t room);

#endif
