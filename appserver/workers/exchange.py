"""One request inside the worker: what came, and the ways in which it can be answered.

Exactly one of `respond`, `send_file`, and `open_stream` followed by `end_stream`, once. Used by one thread.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from time import monotonic_ns, thread_time_ns
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Optional

from . import wire
from .buffers import HEAD_LEN

if TYPE_CHECKING:
    from .executor import Runner

#: Asking the kernel for a thread's CPU time takes a tenth of a short request. One that ran for less than this is taken
#: to have had the CPU all the time.
SHORT_RUN_US = 200

_head = wire.ANSWER.pack


class Exchange:
    # One is made for each request, so what is usually not needed is an attribute of the class until it is set.
    body_file: Optional[BinaryIO] = None  #: the body when it did not come inline

    def __init__(
        self,
        runner: Runner,
        slot: int,
        loop: int,
        request_id: int,
        environ: Dict[str, Any],
        body: bytes,
        body_fd: int,
        flags: int,
    ) -> None:
        self.runner = runner
        self.slot = slot
        self.loop = loop
        self.request_id = request_id
        self.environ = environ
        self.body = body  #: when it came inline
        self._started_ns = runner.now
        self._cpu_ns = runner.cpu
        if flags & wire.UPGRADE:  # the request is answered as if it had not asked
            os.close(body_fd)
        elif body_fd >= 0:
            with contextlib.suppress(OSError):  # a stream, from before the pool's interface was another one
                os.lseek(body_fd, 0, os.SEEK_SET)  # an executor that died may have read from it
            self.body_file = os.fdopen(body_fd, "rb")

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.runner.executor.slots.is_cancelled(self.slot)

    def is_over(self) -> bool:
        """The same for the application, which may ask later than it should."""
        return self.runner.executor.slots.is_over(self.slot, self.request_id)

    def run_us(self) -> int:
        """Microseconds since the application was called; also tells the runner what time it is."""
        now = self.runner.now = monotonic_ns()
        return (now - self._started_ns) // 1000 & 0xFFFFFFFF

    def cpu_us(self) -> int:
        """Microseconds of CPU that this request has taken, and what at most CPU_STALE_NS before it took."""
        cpu = self.runner.cpu = thread_time_ns()
        return min(self.run_us(), (cpu - self._cpu_ns) // 1000)

    def inform(self, status: int, fields: bytes) -> None:
        """An interim response, at once and before the answer; any number of them."""
        runner = self.runner
        runner.out.append((self.loop, wire.answer(wire.INFORMATIONAL, self.slot, self.request_id, status, fields)))
        runner.flush()

    def respond(self, status: int, fields: bytes, body: bytes) -> None:
        """The whole answer. A large body goes through memory that the core has, too."""
        size = len(body)
        if size > wire.INLINE_BODY_MAX:
            self._respond_large(status, fields, body)
            return
        # This is `wire.answer()` without the call: most requests come through here.
        runner = self.runner
        now = runner.now = monotonic_ns()
        run_us = (now - self._started_ns) // 1000 & 0xFFFFFFFF  # an hour and more is not told exactly
        cpu_us = run_us if run_us < SHORT_RUN_US else self.cpu_us()
        length = len(fields)
        head = _head(
            56 + length + size, 2, 1, self.slot, status, 0, self.request_id, length, run_us, size, 0, cpu_us, 0
        )
        runner.out.append((self.loop, head + fields + body))

    def _respond_large(self, status: int, fields: bytes, body: bytes) -> None:
        buffers = self.runner.executor.buffers
        buffer = buffers.take(len(body))
        if buffer is None:
            self._respond_by_file(status, fields, body)
            return
        try:
            buffer.fill(body)
            self.send_file(status, fields, buffer.fd, HEAD_LEN, len(body), wire.FILE_LENT)
        except BaseException:
            buffer.take_back()
            raise
        finally:
            buffers.put(buffer)

    def _respond_by_file(self, status: int, fields: bytes, body: bytes) -> None:
        fd = memory_file()
        try:
            write_all(fd, body)
            self.send_file(status, fields, fd, 0, len(body))
        finally:
            os.close(fd)

    def send_file(self, status: int, fields: bytes, fd: int, offset: int, length: int, flags: int = 0) -> None:
        """`length` bytes of a file from `offset`. The caller closes `fd`."""
        frame = wire.answer(
            wire.FILE,
            self.slot,
            self.request_id,
            status,
            fields,
            b"",
            self.run_us(),
            length,
            file_offset=offset,
            cpu_us=self.cpu_us(),
            flags=flags,
        )
        self.runner.send_with_fd(self.loop, frame, fd)

    def open_stream(self, status: int, fields: bytes, length: Optional[int]) -> int:
        """Begins an answer whose body is written to the returned pipe; `length` None when unknown."""
        reader, writer = os.pipe()
        try:
            frame = wire.answer(
                wire.STREAM,
                self.slot,
                self.request_id,
                status,
                fields,
                b"",
                self.run_us(),
                wire.STREAM_UNKNOWN if length is None else length,
                cpu_us=self.cpu_us(),
            )
            self.runner.send_with_fd(self.loop, frame, reader)
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        return writer

    def end_stream(self, writer: int, complete: bool) -> None:
        """Says whether the body is complete, and closes the pipe afterwards: the end of a pipe alone says nothing."""
        status = 0 if complete else 1
        frame = wire.answer(wire.END, self.slot, self.request_id, status, run_us=self.run_us(), cpu_us=self.cpu_us())
        self.runner.out.append((self.loop, frame))
        self.runner.flush()
        os.close(writer)


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`, however many calls it takes. Raises OSError."""
    written = os.write(fd, data)
    if written == len(data):
        return
    rest = memoryview(data)[written:]
    while rest:
        rest = rest[os.write(fd, rest) :]


def memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("answer", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:  # an interpreter that was built for an old C library
        return os.dup(file.fileno())
