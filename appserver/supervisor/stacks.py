"""The Python stacks of a worker: a file in memory into which its faulthandler writes."""

from __future__ import annotations

import fcntl
import os
import signal

#: The worker writes its stacks. The last signal but one: runtimes that use real-time signals themselves count up from
#: the first (glibc's threads, Mono, Java) and valgrind keeps the last; no Python program is known to use this one.
SIGNAL = signal.Signals.SIGRTMAX - 1
#: Bytes that are read at most; faulthandler writes up to 100 threads of 100 frames.
READ_MAX = 256 * 1024


class Stacks:
    """One worker's file. Raises OSError."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("stacks", os.MFD_CLOEXEC)
        # Both sides share one position, and only the worker writes: always behind what is there.
        fcntl.fcntl(self.fd, fcntl.F_SETFL, os.O_APPEND | os.O_RDWR)

    def clear(self) -> None:
        """Before the worker is asked, so that what comes is new."""
        os.ftruncate(self.fd, 0)

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def read(self) -> str:
        """What is there, at most READ_MAX bytes of it."""
        data = os.pread(self.fd, READ_MAX, 0)
        return data.decode("utf-8", "backslashreplace")

    def close(self) -> None:
        os.close(self.fd)
