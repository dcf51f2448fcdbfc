/* error.h: every way the core can fail, from one list.
 *
 * Functions that can fail return `int`: 0 is good, a negative as_err is not. Parsers return the bytes they
 * consumed (> 0), AS_EAGAIN when they need more input, or another negative as_err. Below AS_FATAL the object
 * concerned may only be freed. */
#ifndef AS_BASE_ERROR_H
#define AS_BASE_ERROR_H

#include "base/platform.h"

#define AS_ERRORS(X)                                                                  \
    X(EAGAIN, -1, "more input is needed")                                             \
    X(EINVALID, -2, "an argument is out of range")                                    \
    X(ESYSTEM, -3, "a system call failed; errno says why")                            \
    X(ENOTFOUND, -4, "there is no such thing")                                        \
    X(EFULL, -5, "a limit is reached")                                                \
    X(EFORBIDDEN, -6, "access is refused")                                            \
    X(ECLOSED, -7, "the peer has closed")                                             \
    X(EBADREQUEST, -20, "the request is malformed (400)")                             \
    X(EURITOOLONG, -21, "the request target is over its limit (414)")                 \
    X(EHEADTOOLARGE, -22, "the request head is over its limit (431)")                 \
    X(EBODYTOOLARGE, -23, "the request body is over its limit (413)")                 \
    X(ENOTIMPLEMENTED, -24, "the method or transfer coding is not implemented (501)") \
    X(EVERSION, -25, "the HTTP version is not supported (505)")                       \
    X(EEXPECTATION, -26, "the expectation cannot be met (417)")                       \
    X(EBADRESPONSE, -40, "a response head from an executor or program is malformed")  \
    X(ERESPONSETOOLARGE, -41, "a response head is over its limit")                    \
    X(EBADFRAME, -42, "a frame of the executor protocol is malformed")                \
    X(ENOMEM, -901, "out of memory")

typedef enum as_err {
    AS_OK = 0,
#define X(name, value, sentence) AS_##name = value,
    AS_ERRORS(X)
#undef X
        AS_FATAL = -900,
} as_err;

/* >>> cdef */
/* The code's name ("AS_EFULL") and its sentence; static strings, any thread. Unknown codes get "AS_?" . */
const char *as_err_name(int err);
const char *as_err_sentence(int err);
/* <<< cdef */

/* The HTTP status that answers a request-side error: 400, 413, 414, 417, 431, 501, 505; 500 for the rest. */
int as_err_status(int err);

#endif
