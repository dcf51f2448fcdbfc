"""Memory in which large bodies are handed to the core (docs/executor-protocol.md section 4, `file` with the flag 1).

A file in memory for each body would have the kernel find, clear and free its pages each time, which takes three times
as long as copying the bytes. So a few are kept: a body is written where an earlier one was, lent with the answer, and
the core says by one word in it when it has sent it all.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import deque
from typing import Any, Callable, Deque, Optional

HEAD_LEN = 4096  #: bytes before the body; the first word is LENT until the core sets it to FREE
FREE, LENT = 0, 1
#: Bytes of a body: larger ones are rare, and would hold much memory. A buffer has only the pages that were written to.
SIZE = 4 * 1024 * 1024
BUFFERS_MAX = 8  #: of a worker; while the core has them all, a body gets a file of its own

#: Python has names for these only from 3.9 on with a C library that has them.
_SEAL_ADD: int = getattr(fcntl, "F_ADD_SEALS", 1033)
_SEALS: int = getattr(fcntl, "F_SEAL_SHRINK", 2) | getattr(fcntl, "F_SEAL_GROW", 4)
_ALLOW_SEALING: int = getattr(os, "MFD_ALLOW_SEALING", 2)


def give_back(fd: int) -> None:
    """For who plays the core: a buffer that was lent may be used again."""
    os.pwrite(fd, bytes(4), 0)


class Buffer:
    """One of them. Used by one thread at a time."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.fd = os.memfd_create("answers", os.MFD_CLOEXEC | _ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, HEAD_LEN + SIZE)
            fcntl.fcntl(self.fd, _SEAL_ADD, _SEALS)
            self._map = mmap.mmap(self.fd, HEAD_LEN + SIZE)
        except BaseException:
            os.close(self.fd)
            raise
        self._words: Any = memoryview(self._map).cast("I")

    @property
    def is_free(self) -> bool:
        """Whether the core has sent all that was in it."""
        return bool(self._words[0] == FREE)

    def fill(self, body: bytes) -> None:
        """Puts a body in, which is lent from now on."""
        self._map[HEAD_LEN : HEAD_LEN + len(body)] = body
        self._words[0] = LENT

    def take_back(self) -> None:
        """It was not sent after all."""
        self._words[0] = FREE

    def close(self) -> None:
        """The core may have it mapped for some time yet."""
        self._words.release()
        self._map.close()
        os.close(self.fd)


class Buffers:
    """Those of a worker. Threads share only the deque, whose steps are atomic."""

    def __init__(self, made: Callable[[], None]) -> None:
        """`made` is called when there is one more, by the thread that needed it: `shed` should be called from time to
        time from then on, as long as there are any."""
        self._made = made
        self._all: Deque[Buffer] = deque()
        self._count = 0
        self._can = hasattr(os, "memfd_create")

    def __len__(self) -> int:
        return self._count

    def take(self, size: int) -> Optional[Buffer]:
        """A free one, with room for `size` bytes, which is the caller's until `put`; None: the body needs a file."""
        if size > SIZE or not self._can:
            return None
        for _ in range(len(self._all)):
            try:
                buffer = self._all.popleft()
            except IndexError:
                break
            if buffer.is_free:
                return buffer
            self._all.append(buffer)
        return self._new() if self._count < BUFFERS_MAX else None

    def put(self, buffer: Buffer) -> None:
        """Back among the others, lent or not."""
        self._all.append(buffer)

    def shed(self) -> None:
        """Frees the memory of those that nobody has: nothing is asked for at the moment. Any thread."""
        for _ in range(len(self._all)):
            try:
                buffer = self._all.popleft()
            except IndexError:
                return
            if buffer.is_free:
                self._drop(buffer)
            else:
                self._all.append(buffer)

    def close(self) -> None:
        """Frees all, when no thread uses them any more."""
        while self._all:
            self._drop(self._all.popleft())

    def _new(self) -> Optional[Buffer]:
        try:
            buffer = Buffer()
        except OSError:  # no descriptor or no memory: a file would not do better, but it says so
            return None
        self._count += 1
        self._made()
        return buffer

    def _drop(self, buffer: Buffer) -> None:
        self._count -= 1
        buffer.close()
