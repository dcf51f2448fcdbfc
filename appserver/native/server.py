"""The server of the C API as a class that owns it. For one control thread."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appserver.errors import AppError
from appserver.native._core import ffi, lib
from appserver.native.report import Event, Incident, counter_names, pull_events, pull_incidents

if TYPE_CHECKING:
    from appserver.native.snapshot import Snapshot

ACCEPT_MODES = {"self-managed": 0, "coordinator": 1, "independent": 2, "reuseport": 3}
RETRIES = {"never": 0, "idempotent": 1, "always": 2}
ACCESS_LOG_FORMATS = {"off": 0, "combined": 1, "json": 2}


class CoreError(AppError):
    """A call into the core failed; `str(error)` is the core's sentence."""


def problem(code: int = 0) -> CoreError:
    """The error for the call that has just failed with `code`."""
    sentence = _text(lib.as_server_problem())
    if not sentence and code:
        sentence = _text(lib.as_err_sentence(code))
    return CoreError(sentence or "the core gave no reason")


def check(code: int) -> int:
    """`code` when the call went well. Raises CoreError."""
    if code < 0:
        raise problem(code)
    return code


def c_text(text: str) -> bytes:
    """A string for C. Raises CoreError when it has a NUL."""
    data = text.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise CoreError(f"a NUL character is in {text!r}")
    return data


def _text(pointer: Any) -> str:
    return "" if pointer == ffi.NULL else ffi.string(pointer).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What the core knows about a pool; times in milliseconds, 0 for no limit."""

    name: str
    queue_limit: int
    queue_time_ms: int
    request_time_ms: int
    idle_time_ms: int
    output_limit: int
    retry: str  #: never, idempotent or always
    cancel: bool
    finishes: bool
    quarantine_ms: int


class Server:
    """An as_server. Every method raises CoreError when the core refuses."""

    def __init__(self, loops: int, generation: int, event_fd: int) -> None:
        handle = lib.as_server_new(loops, generation, event_fd)
        if handle == ffi.NULL:
            raise problem()
        self._loops = loops
        self._handle = ffi.gc(handle, lib.as_server_free)
        self._names = counter_names()

    def set_pool(
        self, index: int, settings: PoolSettings, queue_fd: int, slots_fd: int, answer_fds: Sequence[int]
    ) -> None:
        """Starts pool `index`, or changes its settings. `answer_fds`, one for each loop, are taken; the others are not.

        For a pool that exists the descriptors are ignored and may be -1 and empty.
        """
        name = ffi.new("char[]", c_text(settings.name))
        record = ffi.new(
            "as_pool_settings *",
            {
                "name": name,
                "queue_limit": settings.queue_limit,
                "queue_time_ms": settings.queue_time_ms,
                "request_time_ms": settings.request_time_ms,
                "idle_time_ms": settings.idle_time_ms,
                "output_limit": settings.output_limit,
                "retry": RETRIES[settings.retry],
                "cancel": settings.cancel,
                "finishes": settings.finishes,
                "quarantine_ms": settings.quarantine_ms,
            },
        )
        if answer_fds and len(answer_fds) != self._loops:
            raise CoreError(f"pool {settings.name}: {len(answer_fds)} answer sockets for {self._loops} loops")
        fds = ffi.new("int[]", list(answer_fds)) if answer_fds else ffi.NULL
        check(lib.as_server_set_pool(self._handle, index, record, queue_fd, slots_fd, fds))

    def set_capacity(self, pool: int, capacity: int, at_once: int, *, stream_bodies: bool, upgrades: bool) -> None:
        """Requests that the pool's executors hold at once, how many of these run at the same time, whether they take
        large request bodies while they come, and whether they take upgrades.
        """
        check(lib.as_server_set_capacity(self._handle, pool, capacity, at_once, stream_bodies, upgrades))

    def executor_died(self, pool: int, executor: int, *, expected: bool) -> None:
        """Its requests are given to others or answered. `expected`: it had been told to go."""
        check(lib.as_server_executor_died(self._handle, pool, executor, expected))

    def add_route(self, site: str, route: str, handler: str) -> int:
        """The number of a route in the metrics; the same names have the same one."""
        return int(lib.as_server_add_route(self._handle, c_text(site), c_text(route), c_text(handler)))

    def tell_metrics(self, text: str) -> None:
        """Samples that the metrics have besides their own, in their format, in place of those before."""
        data = text.encode()
        check(lib.as_server_tell_metrics(self._handle, data, len(data)))

    def set_accept(self, mode: str) -> None:
        """How the loops share listening sockets; before the first of them."""
        check(lib.as_server_set_accept(self._handle, ACCEPT_MODES[mode]))

    def add_listener(self, fds: Sequence[int]) -> None:
        """Accepts on the listening socket that all loops share, or on one for each loop. They stay the caller's; the
        first names them for :meth:`remove_listener`.
        """
        if len(fds) == 1:
            check(lib.as_server_add_listener(self._handle, fds[0]))
        elif len(fds) == self._loops:
            check(lib.as_server_add_listeners(self._handle, ffi.new("int[]", list(fds))))
        else:
            raise CoreError(f"{len(fds)} listening sockets for {self._loops} loops")

    def remove_listener(self, fd: int) -> None:
        check(lib.as_server_remove_listener(self._handle, fd))

    def set_access_log(self, fd: int, form: str) -> None:
        """`form`: off, combined or json. The descriptor stays the caller's."""
        check(lib.as_server_set_access_log(self._handle, fd, ACCESS_LOG_FORMATS[form]))

    def set_ready(self, ready: bool) -> None:
        """What the readiness path answers."""
        lib.as_server_set_ready(self._handle, ready)

    def apply(self, snapshot: Snapshot) -> None:
        """The configuration that new requests see. The snapshot is the server's from now on, also when this raises."""
        check(lib.as_server_apply(self._handle, snapshot.release()))

    def start(self) -> None:
        check(lib.as_server_start(self._handle))

    def drain(self) -> None:
        check(lib.as_server_drain(self._handle))

    def events(self) -> Iterator[Event]:
        """Those that are there now."""
        return pull_events(lambda record: int(lib.as_server_next_event(self._handle, record)))

    def incidents(self) -> Iterator[Incident]:
        """Those that are there now; their descriptors are the caller's."""
        return pull_incidents(lambda record: int(lib.as_server_next_incident(self._handle, record)))

    def counters(self) -> dict[str, int]:
        """The sums over all loops by name; any thread."""
        values = ffi.new("uint64_t[]", len(self._names))
        lib.as_server_counters(self._handle, values, len(self._names))
        return dict(zip(self._names, map(int, values), strict=True))

    def close(self) -> None:
        """Cuts what is left and joins the threads."""
        ffi.release(self._handle)

    def forget(self) -> None:
        """In a forked child, where the threads are not: the memory is left alone."""
        ffi.gc(self._handle, None)


def make_event_fd() -> int:
    """An eventfd for the constructor; read it with :func:`clear_event_fd`. Raises OSError."""
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def clear_event_fd(fd: int) -> None:
    """Makes it quiet until the next event."""
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        return
