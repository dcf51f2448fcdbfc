/* otherwise.h: a handler that asks another one first: files that are there, and a script for every other path. */
#ifndef AS_HANDLER_OTHERWISE_H
#define AS_HANDLER_OTHERWISE_H

#include "http/request.h"

/* GET and HEAD go to `first`, which must answer at once (never PENDING); what it refuses with 404, and every other method, goes to `second`. Both are borrowed and
 * live as long as the snapshot. */
as_handler *as_otherwise_handler_new(const as_handler *first, const as_handler *second);

#endif
