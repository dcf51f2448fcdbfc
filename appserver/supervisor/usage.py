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


class QueueWatch:
    """How long requests wait in the queue of one pool, by looking again and again at who is still there.

    The queue is first in, first out, and the core puts the next request into it as soon as there is room: what waits in
    the core has come later than what waits here.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._seen: dict[int, float] = {}  #: request in the queue -> when it was first seen there

    def look(self, now: float) -> Load:
        """What is there now."""
        queued, running = self._segment.load()
        if not queued:
            self._seen.clear()
            return Load(running, 0.0)
        self._seen = {request: self._seen.get(request, now) for request in self._segment.queued()}
        return Load(running, max((now - since for since in self._seen.values()), default=0.0))
