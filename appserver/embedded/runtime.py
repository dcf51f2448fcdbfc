"""One run of an embedded server: sockets, core, executor, and the thread between them."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from appserver.config.plan import PoolSpec
from appserver.embedded.configuration import NAME, Configuration
from appserver.embedded.forked import forget_in_child
from appserver.errors import StartError
from appserver.native.report import Event, EventKind, log_fields
from appserver.native.server import Server as Core
from appserver.native.server import clear_event_fd, make_event_fd
from appserver.native.snapshot import build_snapshot, pool_settings
from appserver.supervisor.access_log import open_access_log
from appserver.supervisor.segments import Links
from appserver.supervisor.sockets import Listeners
from appserver.workers.asynchronous import Asynchronous, MixedServer
from appserver.workers.control import LoadError
from appserver.workers.executor import Executor, Slots
from appserver.workers.interface import Application
from appserver.workers.wsgi import Environ
from appserver.workers.wsgi import Server as Wsgi

EXECUTOR = 1  #: its number in the slot segment; there is never another one
CUT_TIME_S = 5.0  #: what handlers get to notice that the clients of their streams were cut off
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_generations = count(1)
_logger = logging.getLogger("appserver")


def log(level: str, event: str, **fields: Any) -> None:
    """To the program's own logging, as the logger `appserver`; a record has the fields as its attribute `fields`."""
    trace = fields.pop("traceback", "")
    text = " ".join([event, *(f"{name}={value}" for name, value in fields.items())])
    _logger.log(LEVELS[level], "%s", f"{text}\n{trace}".rstrip("\n"), extra={"fields": fields})


class Runtime:
    """Made running; `stop` ends it for good."""

    def __init__(self, configuration: Configuration) -> None:
        """Raises StartError, CoreError, OSError; nothing is left behind then."""
        self._configuration = configuration
        loaded = self._loaded = configuration.loaded
        self._stack = contextlib.ExitStack()
        self._executor: Executor | None = None
        self._asynchronous: Asynchronous | None = None
        self._is_mixed = any(each.is_async for each in configuration.applications.values())
        self._links: Links | None = None
        self._drained: set[int] = set()
        self._all_drained = threading.Event()
        self._over = False
        self._wake_lock = threading.Lock()  #: a thread that is left behind calls `_wake` late
        self._thread = threading.Thread(target=self._control, name="appserver-control", daemon=True)
        try:
            for warning in loaded.warnings:
                log("warning", warning)
            self._event_fd = self._own(make_event_fd())
            self._wake_fd = self._own(make_event_fd())
            self._listeners = Listeners(loaded.threads if loaded.accept == "reuseport" else None)
            self._stack.callback(self._listeners.close)
            self._listeners.open(loaded.listeners)
            self.urls = self._listeners.urls()
            self._open_links()
            self._start_core()
        except BaseException:
            self._over = True
            if self._executor is not None:
                self._executor.stop()
                self._join(self._executor, time.monotonic() + CUT_TIME_S)
            self._stack.close()
            raise
        forget_in_child(self)

    @property
    def port(self) -> int:
        """Of the first address."""
        return urlsplit(self.urls[0]).port or 80

    # Start

    def _own(self, fd: int) -> int:
        self._stack.callback(os.close, fd)
        return fd

    def _open_links(self) -> None:
        spec = self._configuration.pool
        if spec is None:
            return
        self._generation = next(_generations) & 0xFFFF
        links = self._links = Links(spec.name, spec.slots, self._loaded.threads)
        self._stack.callback(links.close)
        links.segment.set_generation(self._generation)
        fds = links.executor_fds()
        answers = [_socket(fds[f"answer:{loop}"]) for loop in range(self._loaded.threads)]
        queue = _socket(fds["queue"])
        for each in (*answers, queue):
            self._stack.callback(each.close)
        server = Wsgi(
            lambda environ: self._find(environ).call,
            log,
            threads=spec.threads,
            dev=self._loaded.dev,
            multiprocess=False,
            request_time_ms=spec.request_time_ms,
        )
        slots = Slots(fds["slots"], EXECUTOR)
        executor = self._executor = Executor(queue, slots, answers, spec.threads, server, log, self._wake)
        if self._is_mixed:
            self._asynchronous = Asynchronous(
                executor, self._find, server, log, concurrency=spec.concurrency, websocket=dict(spec.websocket)
            )
            executor.server = MixedServer(server, self._find, self._asynchronous)
        self._stack.callback(_replace_answers, self._executor)

    def _start_core(self) -> None:
        loaded, spec = self._loaded, self._configuration.pool
        core = self._core = Core(loaded.threads, getattr(self, "_generation", 0), self._event_fd)
        self._core_stack = self._stack.enter_context(contextlib.ExitStack())
        self._core_stack.callback(core.close)
        core.set_accept(loaded.accept)
        if spec is not None and self._links is not None:
            fds = self._links.core_fds()
            answers = [os.dup(fds[f"answer:{spec.name}:{loop}"]) for loop in range(loaded.threads)]
            settings = pool_settings(loaded.plan["pools"][0])
            core.set_pool(0, settings, fds[f"queue:{spec.name}"], fds[f"slots:{spec.name}"], answers)
        snapshot = build_snapshot(loaded.plan, {} if spec is None else {spec.name: 0}, core.add_route)
        for listener in loaded.listeners:
            core.add_listener([fd for name, fd in self._listeners.fds([listener.id]).items()])
        self._open_access_log(core)
        core.apply(snapshot)
        if spec is not None:
            self._set_capacity(core, spec)
        if self._asynchronous is not None:
            self._boot(self._asynchronous)
        core.start()
        if self._executor is not None:
            self._executor.start()
        self._thread.start()
        core.set_ready(True)

    def _set_capacity(self, core: Core, spec: PoolSpec) -> None:
        asynchronous = self._asynchronous
        capacity, at_once = (spec.threads, spec.threads) if asynchronous is None else asynchronous.beside(spec.threads)
        upgrades = any(each.takes_websockets for each in self._configuration.applications.values())
        core.set_capacity(0, capacity, at_once, stream_bodies=False, upgrades=upgrades)

    def _boot(self, asynchronous: Asynchronous) -> None:
        """Raises StartError when an application does not want to start."""
        several = [(each, name) for name, each in self._configuration.applications.items() if each.is_async]
        try:
            asynchronous.boot(None, several=several)
        except LoadError as error:
            raise StartError(str(error)) from error

    def _open_access_log(self, core: Core) -> None:
        if self._loaded.log.access != "off":
            fd = open_access_log(self._loaded.log)
            try:
                core.set_access_log(fd, self._loaded.log.access)
            finally:
                os.close(fd)

    def _find(self, environ: Environ) -> Application:
        try:
            return self._configuration.applications[environ["appserver.application"]]
        except KeyError:
            raise LoadError("the request names no application") from None

    # The control thread

    def _wake(self) -> None:
        with self._wake_lock:
            if not self._over:
                os.eventfd_write(self._wake_fd, 1)

    def _control(self) -> None:
        """Carries the core's events to the log and watches the request threads."""
        poll = select.poll()
        poll.register(self._event_fd, select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        executor = self._executor
        while not self._over:
            rest_s = None if executor is None else executor.rest_s()
            poll.poll(None if rest_s is None else rest_s * 1000)
            clear_event_fd(self._wake_fd)
            clear_event_fd(self._event_fd)
            self._forward_events()
            if executor is not None:
                executor.monitor()

    def _forward_events(self) -> None:
        for incident in self._core.incidents():  # what is to be said of them is in the log
            if incident.fd >= 0:
                os.close(incident.fd)
        for event in self._core.events():
            if event.kind == EventKind.DRAINED:
                self._drained.add(event.loop)
                if len(self._drained) == self._loaded.threads:
                    self._all_drained.set()
            elif event.kind == EventKind.EXECUTOR_STUCK:
                self._report_stuck(event)
            elif event.kind != EventKind.INCIDENT:  # that the request had no time left was said as stuck
                fields = log_fields(event, None)
                log(fields.pop("level"), fields.pop("event"), **fields)
        for incident in self._core.incidents():
            if incident.fd >= 0:
                os.close(incident.fd)

    def _report_stuck(self, event: Event) -> None:
        """Says what the thread is doing and has RequestTimeout raised in it. One that is in C for good is lost: nothing
        can replace a thread of this process.
        """
        held = self._links.segment.held_by(EXECUTOR) if self._links is not None else []
        thread = next((each.thread for each in held if each.log_id == event.request_id), None)
        log(
            "error",
            "a handler has no time left and is interrupted",
            request=event.request,
            about=event.text,
            traceback="" if thread is None else self._stack_of(thread),
        )
        if thread is not None and self._executor is not None:
            self._executor.interrupt(thread, event.wire_id)

    def _stack_of(self, thread: int) -> str:
        assert self._executor is not None
        frame = sys._current_frames().get(self._executor.runners[thread].thread.ident or 0)
        return "" if frame is None else "".join(traceback.format_stack(frame))

    # The end

    def stop(self, timeout_s: float | None) -> None:
        """Accepts nothing more, lets requests finish for `timeout_s` (None: `limits.drain_timeout`), cuts the rest."""
        patience = self._loaded.drain_timeout_s if timeout_s is None else timeout_s
        self._listeners.close()  # first: the loops then take what waits in the backlog and close the last ones
        if self._links is not None:
            self._links.segment.set_stopping()
        self._core.drain()
        self._all_drained.wait(patience)
        with self._wake_lock:
            self._over = True
            os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        self._core_stack.close()
        if self._executor is not None and self._links is not None:
            self._executor.stop_time_s = CUT_TIME_S
            self._executor.stop()
            self._links.hang_up()
            self._join(self._executor, time.monotonic() + CUT_TIME_S)
            if not self._executor.is_running():
                self._executor.buffers.close()
                self._executor.slots.close()
        self._stack.close()

    def _join(self, executor: Executor, until: float) -> None:
        for runner in executor.runners:
            if runner.thread is threading.current_thread() or runner.thread.ident is None:
                continue  # a handler stops its own server; or it was never started
            runner.thread.join(max(0.0, until - time.monotonic()))
            if runner.thread.is_alive():
                log(
                    "warning",
                    "a handler does not come to its end; its thread is left behind",
                    thread=runner.thread.name,
                    traceback=self._stack_of(runner.number),
                )

    def forget(self) -> None:
        """In a forked child: the threads are not here, and what they use is only closed."""
        self._core.forget()
        self._core_stack.pop_all()
        self._stack.close()

    def addresses(self) -> Mapping[int, set[str]]:
        """Ports that are listened on, each with the hosts (as bound)."""
        found: dict[int, set[str]] = {}
        for fd in self._listeners.fds().values():
            with socket.socket(fileno=os.dup(fd)) as sock:
                host, port = sock.getsockname()[:2]
            found.setdefault(port, set()).add(host)
        return found


class _NoAnswers:
    """In place of the answer sockets, for a thread that is left behind."""

    def send(self, data: bytes, flags: int = 0) -> int:
        raise BrokenPipeError(f"{NAME} was stopped")

    def sendmsg(self, *_: Any) -> int:
        raise BrokenPipeError(f"{NAME} was stopped")


def _replace_answers(executor: Executor) -> None:
    gone: Any = _NoAnswers()
    executor.answers = [gone] * len(executor.answers)


def _socket(fd: int) -> socket.socket:
    made = socket.socket(fileno=os.dup(fd))
    made.settimeout(None)
    return made
