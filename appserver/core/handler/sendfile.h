/* sendfile.h: files that an application answers with by naming them, in a field `X-Sendfile` (a path of the file system) or `X-Accel-Redirect` (a path that a
 * location turns into one). Made at start, read-only afterwards; the rest is for loop threads. */
#ifndef AS_HANDLER_SENDFILE_H
#define AS_HANDLER_SENDFILE_H

#include "handler/file.h"

typedef struct as_sendfile as_sendfile;

/* Lists of strings that are separated by NUL and ended by an empty one. `roots`: folders for X-Sendfile. `locations`: prefix of a path, folder, prefix, folder and so
 * on, for X-Accel-Redirect. `key`: where the configuration has them, for the log. NULL with errno set when one of the folders cannot be opened; `*bad` is then which. */
as_sendfile *as_sendfile_new(const char *roots, const char *locations, const char *key, const as_mime *mime,
                             const char **bad);
/* Nothing for NULL. */
void as_sendfile_free(as_sendfile *sendfile);

/* Whether request->response names a file; never for NULL, and for a field that nothing is configured for. */
bool as_sendfile_is_named(const as_sendfile *sendfile, const as_request *request);
/* Answers a request that is nobody's any more with that file and the response's other fields, or with an error page; what the response had for a body has been
 * released. Ranges and conditions are answered for a status of 200. */
void as_sendfile_respond(const as_sendfile *sendfile, as_request *request, int pool);

#endif
