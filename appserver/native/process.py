"""What a process asks of the kernel for itself."""

from __future__ import annotations

import contextlib
import os
import resource


def become_subreaper() -> bool:
    """Makes descendants whose parent has died our children, as those of process 1 are; False when refused."""
    # Only here: whoever imports the supervisor for something else needs no compiled core, least of all a sanitized one.
    from appserver.native._core import lib

    return os.getpid() == 1 or int(lib.as_process_become_subreaper()) == 0


def raise_descriptor_limit() -> int:
    """Lifts the soft limit of open descriptors to the hard one; the result is the limit that holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft
