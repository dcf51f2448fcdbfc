"""One worker process from start to exit status.

The main thread loads the application, then waits: for the control channel, for signals and, while requests run, for the
executor's ticks. Exit statuses: 0 told to stop or core side gone, 3 could not boot, 70 malformed frame, 1 own failure.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import interpreter, request, template, watchdog
from .asynchronous import Asynchronous, MixedServer
from .control import Control, ControlClosedError, LoadError, describe
from .executor import TICK_S, Counts, Executor, Slots
from .growth import Growth
from .interface import ASGI, WSGI, Application
from .modules import loaded_files
from .script import Scripts, add_import_folder, load_application
from .wsgi import Environ, Server

STATUS_NO_BOOT = 3
DEFAULT_CONCURRENCY = 100
JOIN_POLL_S = 0.05
CLOSE_TIME_S = 3.0  #: for an application that was started and is not to be used
ORPHAN_TIME_S = 5  #: what requests get to finish when the supervisor has gone


def run(control_fd: int) -> int:
    """The worker's life. Returns its exit status."""
    _prepare_process()
    control = Control(control_fd)
    try:
        message, fds = _first_message(control)
        loaded = None
        if message.get("type") == "preload":
            template.prepare()
            loaded = Loaded(control, message["configuration"])
            unfit = template.unfitness()
            if unfit:
                control.send("unfit", reason=unfit)
                return 0
            forked = template.serve(control)
            if forked is None:
                return 0
            control = forked  # this process is a worker now
            message, fds = _first_message(control)
        if message.get("type") == "stop":
            return 0
        worker = _Worker(control, message, fds, loaded)
    except ControlClosedError:
        return 0
    except LoadError as error:
        return _fail(control, str(error), error.trace)
    except Exception as error:
        return _fail(control, *describe(error))
    return worker.run()


def _first_message(control: Control) -> Tuple[Dict[str, Any], Dict[str, int]]:
    """The one that says what this process is to be. Raises ControlClosedError, ValueError."""
    message, fds = control.receive()
    while message.get("type") not in ("start", "preload", "stop"):
        message, fds = control.receive()
    return message, fds


def _prepare_process() -> None:
    faulthandler.enable()
    # The terminal sends these to the whole group; what they mean is the supervisor's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True, errors="backslashreplace")
    sys.modules["appserver_handler"] = request  # what handler scripts import, under any interpreter


def _fail(control: Control, reason: str, trace: str) -> int:
    control.send("failed", reason=reason, traceback=trace)
    return STATUS_NO_BOOT


class Loaded:
    """What the pool runs: an application, or scripts."""

    def __init__(self, control: Control, configuration: Dict[str, Any], shows_failure: bool = False) -> None:
        """Raises LoadError when the application cannot be loaded, or lets it be raised by each request when that is to
        be shown. Scripts that cannot be are told in the log.
        """
        _enter(configuration)
        self.scripts = Scripts(configuration.get("script_folders") or ())
        self.failure: Optional[LoadError] = None
        try:
            self.application = _application_of(configuration)
        except LoadError as error:
            if not shows_failure:
                raise
            self.failure = error
            self.application = Application(WSGI, self._excuse)
        for path in configuration.get("scripts") or ():
            try:
                self.scripts.preload(path)
            except LoadError as error:
                control.log(
                    "error", "handler script cannot be loaded", script=path, error=str(error), traceback=error.trace
                )

    def _excuse(self, environ: Environ, start_response: Any) -> Any:
        """In place of the application."""
        assert self.failure is not None
        raise LoadError(str(self.failure), self.failure.trace)


class _Worker:
    """Main thread only."""

    def __init__(self, control: Control, start: Dict[str, Any], fds: Dict[str, int], loaded: Optional[Loaded]) -> None:
        """Loads what the pool runs, unless it is `loaded`. Raises LoadError; KeyError and the like for a bad start
        message.
        """
        self._control = control
        self._signals = _Wakeup()
        self._told_to_stop = False
        self._growth = Growth()
        self._looked_at = 0  #: requests that had been received by then
        signal.signal(signal.SIGTERM, self._on_sigterm)
        if "stacks" in fds:
            watchdog.arm(fds["stacks"], int(start["stacks_signal"]))
        configuration = start["configuration"]
        self._check: Optional[Dict[str, str]] = start.get("check")
        self._request_time_ms = int(configuration.get("request_time_ms") or 0)
        self._is_dev = bool(configuration.get("dev"))
        loaded = loaded or Loaded(control, configuration, bool(start.get("shows_failure")))
        self._scripts, self._application, self._failure = loaded.scripts, loaded.application, loaded.failure
        self._name = configuration.get("application") or ""
        self._is_asgi = self._application is not None and self._application.is_async
        # In an event loop requests do not wait for threads.
        threads = self._threads = 0 if self._is_asgi else int(start["threads"])
        server = Server(
            self._wsgi_finder(),
            control.log,
            name=self._name,
            threads=threads,
            dev=self._is_dev,
            request_time_ms=self._request_time_ms,
        )
        self._executor = Executor(
            queue=_socket(fds["queue"]),
            slots=Slots(fds["slots"], int(start["executor"])),
            answers=[_socket(fds[f"answer:{loop}"]) for loop in range(int(start["loops"]))],
            threads=threads,
            server=server,
            log=control.log,
            wake=self._signals.wake,
            stats=_stats(fds["stats"]) if "stats" in fds else None,
        )
        self._asynchronous = Asynchronous(
            self._executor,
            self._finder(),
            server,
            control.log,
            concurrency=int(configuration.get("concurrency") or DEFAULT_CONCURRENCY),
            websocket=configuration.get("websocket") or {},
        )
        if self._application is None:
            self._executor.server = MixedServer(server, self._script_of, self._asynchronous)
        self._executor.request_time_ns = server.limit_ns
        # That the server stops is told twice: by the queue, which has come to its end, and by a message.
        self._executor.stop_time_s = int(configuration.get("stop_time_ms") or 0) / 1000
        os.close(fds["slots"])  # the mapping stays

    def run(self) -> int:
        try:
            self._boot_asynchronous()
            if self._check is not None and self._failure is None:
                self._answer_check(self._check)
        except LoadError as error:
            status = _fail(self._control, str(error), error.trace)
            self._close_asynchronous()
            return status
        interpreter.settle()
        self._growth.look(set(), time.monotonic())
        self._executor.start()
        trace = self._failure.trace if self._failure is not None else ""
        files = {"files": loaded_files(trace)} if self._is_dev else {}
        failure = {} if self._failure is None else {"failure": str(self._failure), "traceback": trace}
        self._control.send("ready", threads=self._thread_names(), **self._about(), **files, **failure)
        self._watch()
        self._executor.join()
        return self._executor.exit_status

    def _thread_names(self) -> Dict[str, str]:
        """Names of the threads that run requests, by the numbers that stacks have for them."""
        threads = (runner.thread for runner in self._executor.runners)
        digits = struct.calcsize("@L") * 2
        return {f"0x{thread.ident or 0:0{digits}x}": thread.name for thread in threads}

    def _boot_asynchronous(self) -> None:
        """Raises LoadError when the application does not want to start."""
        if self._is_asgi:
            self._asynchronous.boot(self._application, self._name)
        elif self._scripts.any_async:
            self._asynchronous.boot(None)

    def _close_asynchronous(self) -> None:
        """The application's startup may have come to its end, and what it holds wants its shutdown."""
        self._executor.stop_time_s = CLOSE_TIME_S
        self._executor.stop()
        for runner in self._executor.runners:
            if runner.thread.is_alive():
                runner.thread.join(CLOSE_TIME_S)

    def _answer_check(self, environment: Dict[str, str]) -> None:
        """Raises LoadError when the answer is not a good one."""
        from . import selfcheck  # most workers are not asked

        runner = self._asynchronous.runner if self._is_asgi else None
        selfcheck.run(self._executor, runner, self._control, environment, self._request_time_ms)

    def _about(self) -> Dict[str, Any]:
        """What the core must know of this worker (docs/executor-protocol.md, section 9)."""
        if self._is_asgi:
            concurrency = self._asynchronous.concurrency
            return {"interface": ASGI, "capacity": concurrency, "at_once": 1, "stream_bodies": True, "upgrades": True}
        capacity = at_once = self._threads
        if self._scripts.any_async:
            capacity, at_once = self._asynchronous.beside(self._threads)
        return {
            "interface": WSGI,
            "capacity": capacity,
            "at_once": at_once,
            "stream_bodies": False,
            "upgrades": self._scripts.any_websocket,
        }

    def _on_sigterm(self, number: int, frame: object) -> None:
        self._told_to_stop = True
        self._signals.wake()

    # Finding

    def _script_of(self, environ: Environ) -> Optional[Application]:
        path = environ.get("appserver.script")
        return None if path is None else self._scripts.find(path)

    def _finder(self) -> Callable[[Environ], Application]:
        """From an environment to what answers it."""
        application, get_script = self._application, self._scripts.get

        def find(environ: Environ) -> Application:
            path = environ.get("appserver.script")
            if path is not None:
                return get_script(path)
            if application is None:
                raise LoadError("the request names no script, and the pool has no application")
            return application

        return find

    def _wsgi_finder(self) -> Callable[[Environ], Callable[..., Any]]:
        find = self._finder()
        application = self._application
        if application is not None:
            call = application.call
            return lambda environ: call
        return lambda environ: find(environ).call

    # Waiting

    def _watch(self) -> None:
        """Until every request thread has ended."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        executor = self._executor
        while executor.is_running():
            ready = {fd for fd, _ in poll.poll(self._timeout_ms())}
            if self._signals.fileno() in ready:
                self._signals.clear()
            if self._control.fileno() in ready and not self._take_message():
                poll.unregister(self._control)
                self._told_to_stop = True
            if self._told_to_stop and not executor.stopping:
                executor.stop()
            executor.monitor()
            if self._has_run() and time.monotonic() >= self._growth.due and executor.is_idle():
                self._look_at_memory()

    def _has_run(self) -> bool:
        """Whether requests have been received since the last look at the memory."""
        return sum(self._executor.stats) != self._looked_at

    def _look_at_memory(self) -> None:
        executor = self._executor
        self._looked_at = sum(executor.stats)
        ran, executor.ran = executor.ran, set()
        size = self._growth.look(ran or {self._name}, time.monotonic())
        if size:
            self._control.send("memory", resident=size, routes=self._growth.routes)

    def _timeout_ms(self) -> Optional[float]:
        executor = self._executor
        if executor.stopping:
            return JOIN_POLL_S * 1000
        times = [executor.rest_s()]
        if self._has_run():
            times.append(max(self._growth.due - time.monotonic(), TICK_S))
        return min((each * 1000 for each in times if each is not None), default=None)

    def _take_message(self) -> bool:
        """False when nothing more will come."""
        try:
            message, fds = self._control.receive()
        except (ControlClosedError, ValueError, OSError):
            # The supervisor has gone, so nobody would end this process should a request never come to its end. This
            # timer needs neither the interpreter's lock nor any cooperation.
            faulthandler.dump_traceback_later(ORPHAN_TIME_S, exit=True)
            self._executor.stop_time_s = ORPHAN_TIME_S - 1
            return False
        for fd in fds.values():
            os.close(fd)
        if message.get("type") == "stop":
            if message.get("time_ms"):
                self._executor.stop_time_s = int(message["time_ms"]) / 1000
            self._executor.restarting = message.get("reason") == "replaced"
            self._told_to_stop = True
        elif message.get("type") == "interrupt":
            self._interrupt(message)
        return True

    def _interrupt(self, message: Dict[str, Any]) -> None:
        try:
            self._executor.interrupt(int(message["thread"]), int(message["request"], 16))
        except Exception as error:
            # Without it the supervisor replaces the worker, as it does when a request cannot be interrupted.
            self._control.log("warning", "a request cannot be interrupted", error=f"{type(error).__name__}: {error}")


def _enter(configuration: Dict[str, Any]) -> None:
    """Environment and working directory of the pool."""
    os.environ.update(configuration.get("environment") or {})
    if configuration.get("memory_max"):
        _limit_memory(int(configuration["memory_max"]))
    if configuration.get("dev"):
        # Bytecode is found by whole seconds and size: too coarse for somebody who saves often.
        sys.dont_write_bytecode = True
    directory = configuration.get("directory")
    if not directory:
        return
    try:
        os.chdir(directory)
    except OSError as error:
        raise LoadError(f"directory {directory}: {error.strerror}") from None
    add_import_folder(directory, first=bool(configuration.get("application")))


def _application_of(configuration: Dict[str, Any]) -> Optional[Application]:
    name = configuration.get("application")
    return load_application(name, configuration.get("interface") or "auto") if name else None


def _limit_memory(limit: int) -> None:
    """Allocations that would need more fail: MemoryError. It holds for what may be written and is shared with nobody;
    RLIMIT_AS would also count the files that a program has mapped.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _stats(fd: int) -> Counts:
    """The page in which requests are counted, as words."""
    page = mmap.mmap(fd, 0)
    os.close(fd)
    return memoryview(page).cast("Q")


def _socket(fd: int) -> socket.socket:
    """Blocking, whatever a module of the user's made the default."""
    made = socket.socket(fileno=fd)
    made.settimeout(None)
    return made


class _Wakeup:
    """Ends the main thread's wait. `wake` may be called by any thread and by signal handlers."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        return self._reader

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self._writer, b"\0")

    def clear(self) -> None:
        try:
            while len(os.read(self._reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass


__all__: List[str] = ["run"]
