/* api.h: all that Python sees. The declarations for cffi are the fenced parts of these headers, read as they stand (build.py), so that the two
 * cannot drift. */
#ifndef AS_API_H
#define AS_API_H

#include "base/error.h"
#include "base/process.h"
#include "report/event.h"
#include "server.h"
#include "spawner/spawner.h"

#endif
