/* respond.h: handlers that answer from what the configuration says: a redirect, a fixed response, the health paths. */
#ifndef AS_HANDLER_RESPOND_H
#define AS_HANDLER_RESPOND_H

#include "http/request.h"

/* Location as given. `status` 301, 302, 303, 307 or 308. Strings are copied. */
as_handler *as_redirect_handler_new(int status, const char *location);

/* A fixed body; a status of 400 and above becomes the site's error page when the body is empty. */
as_handler *as_respond_handler_new(int status, const char *content_type, as_str body);

/* 200 "ok" as long as the core turns (live), or while *ready is not 0 (else 503). `ready` is read atomically; NULL for live. */
as_handler *as_health_handler_new(const int *ready);

#endif
