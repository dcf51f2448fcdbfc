#include "base/process.h"

#include <sys/prctl.h>

int as_process_become_subreaper(void)
{
    return prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L) == 0 ? AS_OK : AS_ESYSTEM;
}
