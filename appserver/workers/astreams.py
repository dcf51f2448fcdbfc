"""Descriptors of a request that are read and written without holding up the event loop."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from typing import Callable, List

READ_SIZE = 64 * 1024


class Waiting:
    """Coroutines that wait until a descriptor can be read or written. Cancelling one loses nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, *, for_writing: bool) -> None:
        self._loop = loop
        self._fd = fd
        self._add = loop.add_writer if for_writing else loop.add_reader
        self._remove = loop.remove_writer if for_writing else loop.remove_reader
        self._futures: List[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Until the descriptor may be ready, or :meth:`wake` was called."""
        future = self._loop.create_future()
        if not self._futures:
            self._add(self._fd, self.wake)
        self._futures.append(future)
        try:
            await future
        finally:
            if future in self._futures:
                self._futures.remove(future)
                if not self._futures:
                    self._remove(self._fd)

    def wake(self) -> None:
        """Lets everybody look."""
        futures, self._futures = self._futures, []
        if futures:
            self._remove(self._fd)
        for future in futures:
            if not future.done():
                future.set_result(None)


class BodyReader:
    """The body of a request that comes through a stream socket. Owns the socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._waiting = Waiting(loop, fd, for_writing=False)

    async def read(self) -> bytes:
        """The next piece; empty at the end, and when the client has gone."""
        while True:
            try:
                return self._socket.recv(READ_SIZE)
            except BlockingIOError:
                await self._waiting.wait()
            except OSError:  # reset, or closed here meanwhile
                return b""

    def close(self) -> None:
        """Wants no more."""
        self._waiting.wake()
        self._socket.close()


class PipeWriter:
    """The body of an answer that goes through a pipe. Does not own the descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._loop = loop
        self._waiting = Waiting(loop, fd, for_writing=True)
        self._is_watched = False

    def watch_end(self, on_end: Callable[[], None]) -> None:
        """Calls that once when nobody reads any more: then the writing end of a pipe, which never has anything to read,
        is told to be ready for that.
        """
        if not self._is_watched:
            self._is_watched = True
            self._loop.add_reader(self.fd, self._ended, on_end)

    def _ended(self, on_end: Callable[[], None]) -> None:
        self.unwatch_end()
        on_end()

    def unwatch_end(self) -> None:
        """Also before the descriptor is closed."""
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self.fd)

    async def write(self, data: bytes) -> None:
        """All of it, at the reader's pace. Raises BrokenPipeError when nobody reads any more."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                await self._waiting.wait()

    def is_broken(self) -> bool:
        """Whether nobody reads any more, asked without writing."""
        poll = select.poll()
        poll.register(self.fd, 0)
        return bool(poll.poll(0))

    def wake(self) -> None:
        """Lets a writer see that something has changed."""
        self._waiting.wake()
