/* target.h: the request target (RFC 9112 section 3.2), decoded and normalised before anything is routed.
 *
 * No I/O. Any thread. */
#ifndef AS_HTTP_TARGET_H
#define AS_HTTP_TARGET_H

#include "http/head.h"

typedef enum as_target_form {
    AS_TARGET_ORIGIN,   /* /path?query */
    AS_TARGET_ABSOLUTE, /* http://host/path?query */
    AS_TARGET_ASTERISK, /* * (OPTIONS only) */
} as_target_form;

typedef struct as_target {
    as_target_form form;
    as_str authority; /* of the absolute form: wins over Host (RFC 9112 section 3.2.2) */
    as_str raw_path;  /* as written, without the query; "/" for an empty absolute path, "*" for asterisk */
    as_str query;     /* without '?'; ptr NULL when there is no '?' */
    as_str path;      /* percent-decoded, "//" merged, "." and ".." removed; starts with '/'; lives in `out` */
} as_target;

/* `out` has room for target.len + 1 bytes; the decoded path there is followed by a NUL.
 * AS_OK, or AS_EBADREQUEST: a broken percent escape, an encoded or literal NUL, a ".." above the root (also written
 * %2e%2e), an overlong UTF-8 sequence (a second spelling of '/' or '.'), a '#', bytes outside RFC 3986, asterisk
 * without OPTIONS, or a scheme other than http and https. Broken UTF-8 that is not overlong passes: it is just a name.
 * The authority form (CONNECT) is AS_ENOTIMPLEMENTED. */
int as_target_parse(as_str target, as_method method, char *out, as_target *parsed);

/* Writes `raw`, a target as people write them, with escapes for the bytes that as_target_parse() refuses for themselves, as browsers do. Returns the end;
 * `out` has room for 3 * raw.len bytes. */
char *as_target_encode(char *out, as_str raw);

#endif
