"""What executors use and what waits for them, read from shared memory and from the kernel: no executor is asked, and
none makes a system call for it.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from appserver.supervisor.memory import resident
from appserver.supervisor.recycling import Usage
from appserver.supervisor.scaling import Load
from appserver.supervisor.segments import Segment

WORD = 8


class StatsPage:
    """A page that an executor counts in: word N is the number of requests that its thread N has received. Raises
    OSError.
    """

    def __init__(self, threads: int) -> None:
        size = -(-(threads + 1) * WORD // mmap.PAGESIZE) * mmap.PAGESIZE  # one more: an event loop
        self.fd = os.memfd_create("stats", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            # An executor that cut it short would take the supervisor down with it.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._memory = mmap.mmap(self.fd, size, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self.fd)
            raise

    def requests(self) -> int:
        """That the executor has received so far."""
        with memoryview(self._memory) as whole, whole.cast("Q") as words:
            return sum(words.tolist())

    def usage(self, pid: int) -> Usage:
        """Of the executor, whose process this is."""
        return Usage(self.requests(), resident(pid))

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)


def load_of(segment: Segment, now: float) -> Load:
    """What the executors of a pool have to do. A request's wait begins when it comes: the queue is kept short, and most
    of the waiting is done in the core.
    """
    _, running = segment.load()
    oldest_ns = segment.oldest_queued_ns()
    return Load(running, max(0.0, now - oldest_ns / 1e9) if oldest_ns else 0.0)
