/* mime.h: file name extension to media type. Filled before start, read-only afterwards; any thread. */
#ifndef AS_HANDLER_MIME_H
#define AS_HANDLER_MIME_H

#include "base/str.h"

typedef struct as_mime as_mime;

/* A table with the built-in types (text types with charset=utf-8). */
as_mime *as_mime_new(void);
void as_mime_free(as_mime *mime);
/* Adds or replaces; `extension` without the dot, lower case. Both are copied. */
void as_mime_set(as_mime *mime, as_str extension, as_str type);
/* Whether the table has a type for just this extension. */
bool as_mime_has(const as_mime *mime, as_str extension);
/* The type for a file name; "application/octet-stream" when the extension is unknown or missing. NUL-terminated, lives as long as the table. */
as_str as_mime_of(const as_mime *mime, as_str file_name);

#endif
