/* process.h: what a process asks of the kernel for itself and the Python standard library cannot. */
#ifndef AS_BASE_PROCESS_H
#define AS_BASE_PROCESS_H

#include "base/error.h"

/* >>> cdef */
/* From now on, descendants whose parent has died become children of this process, as they do of process 1. AS_OK or AS_ESYSTEM. */
int as_process_become_subreaper(void);
/* <<< cdef */

#endif
