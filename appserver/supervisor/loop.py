"""The supervisor's event loop: descriptors, timers, signals; one thread.

Signal handlers do nothing at all: the interpreter writes the number into a socket (`signal.set_wakeup_fd`) that the
loop watches like any other, so everything that acts runs in one place, one thing after the other.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

Callback = Callable[[], None]


class Timer:
    """A call to come; `cancel` makes it not happen."""

    def __init__(self, due: float, callback: Callback) -> None:
        self.due = due
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Calls back when a descriptor is readable or writable, when a time has come, when a signal has arrived."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now  #: seconds, monotonic
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._stopped = False

    def watch(self, fd: int, readable: Callback) -> None:
        """Calls `readable` whenever `fd` has something; until :meth:`unwatch`, which must come before the close."""
        self._selector.register(fd, selectors.EVENT_READ, readable)

    def watch_writable(self, fd: int, writable: Callback) -> None:
        """Calls `writable` whenever `fd` takes something. A descriptor is watched for one of the two."""
        self._selector.register(fd, selectors.EVENT_WRITE, writable)

    def unwatch(self, fd: int) -> None:
        """No calls for `fd` any more, also not for what is known already. Unknown descriptors are ignored."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def call_at(self, due: float, callback: Callback) -> Timer:
        """Calls once, at `due` by :attr:`now` or soon after."""
        timer = Timer(due, callback)
        heapq.heappush(self._timers, (due, next(self._order), timer))
        return timer

    def call_later(self, delay_s: float, callback: Callback) -> Timer:
        return self.call_at(self.now() + delay_s, callback)

    def stop(self) -> None:
        """Ends :meth:`run` after the present call."""
        self._stopped = True

    def run(self) -> None:
        """Until :meth:`stop`."""
        self._stopped = False
        while not self._stopped:
            self.turn(self._wait_s())

    def turn(self, timeout_s: float | None = 0) -> None:
        """One turn: waits for `timeout_s` (None: for ever) at most, then calls everything that is due."""
        for key, _ in self._selector.select(timeout_s):
            # An earlier callback of this turn may have taken this one away, or its number may be another's by now.
            current = self._selector.get_map().get(key.fd)
            if current is not None and current.data is key.data and not self._stopped:
                key.data()
        self._call_due()

    def close(self) -> None:
        self._selector.close()

    def _wait_s(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self.now()) if self._timers else None

    def _call_due(self) -> None:
        now = self.now()
        while self._timers and self._timers[0][0] <= now and not self._stopped:
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Only there so that the signal is caught."""


@contextlib.contextmanager
def signals_into(
    loop: Loop, numbers: tuple[signal.Signals, ...], deliver: Callable[[signal.Signals], None]
) -> Iterator[None]:
    """While inside, each signal of `numbers` becomes a call of `deliver` from the loop. Main thread only."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)

    def readable() -> None:
        with contextlib.suppress(BlockingIOError):
            for number in ours.recv(4096):
                deliver(signal.Signals(number))

    before: dict[signal.Signals, Any] = {}
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        for number in numbers:
            before[number] = signal.signal(number, _ignore)
        loop.watch(ours.fileno(), readable)
        yield
    finally:
        loop.unwatch(ours.fileno())
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(wakeup)
        ours.close()
        theirs.close()
