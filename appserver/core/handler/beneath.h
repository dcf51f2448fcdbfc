/* beneath.h: opening a path that a client chose, without ever leaving a directory. Any thread. */
#ifndef AS_HANDLER_BENEATH_H
#define AS_HANDLER_BENEATH_H

#include "handler/file.h"

/* Longest path below a root, with its NUL (PATH_MAX). */
#define AS_BENEATH_PATH_SIZE 4096

/* Opens `path` (relative, NUL-terminated) below the directory `root_fd` with openat's `flags`; never creates. The new
 * fd, close-on-exec, or -1 with errno; EXDEV when a link leads out of the root, ELOOP when a link is met that the
 * policy refuses. */
int as_beneath_open(int root_fd, const char *path, int flags, as_symlinks symlinks);

#endif
