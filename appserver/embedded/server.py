"""The class that programs use."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Mapping
from os import PathLike
from types import TracebackType
from typing import Any

from appserver.embedded.configuration import configure
from appserver.embedded.forked import is_forgotten
from appserver.embedded.runtime import Runtime
from appserver.errors import AppError, ConfigError


class Server:
    """A server in this process.

    ::

        with Server(root="site", handlers={"/api": application}) as server:
            print(server.url)

    Made from a whole configuration (a mapping with the keys of docs/configuration.md), from single keys of it by name
    (`limits={"body_size": "1MiB"}`), or just from `root` and `handlers`. A handler is a WSGI application or a function
    `handle(request)`, by the prefix of its paths. It may be started again after it was stopped. `start` and `stop` may
    be called by any thread; after a fork the server goes on in the parent only.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        root: str | PathLike[str] | None = None,
        handlers: Mapping[str, Callable[..., Any]] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        pool: Mapping[str, Any] | None = None,
        dev: bool = False,
        **keys: Any,
    ) -> None:
        """`port` 0: any free one. `pool`: `threads` and `limits` for the handlers. `dev`: tracebacks in the browser.
        Raises ConfigError with a line for each fault.
        """
        twice = sorted(set(config or {}) & set(keys))
        if twice:
            raise ConfigError([f"{key}: found it in the configuration and by name; expected it once" for key in twice])
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._configuration = configure(
            {**(config or {}), **keys}, root=root, handlers=handlers, address=address, pool=pool or {}, dev=dev
        )
        self._runtime: Runtime | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def start(self) -> Server:
        """Serves from now on, and returns itself. Raises AppError when it cannot, or does already."""
        with self._lock:
            if self._running() is not None:
                raise AppError(f"the server runs already, on {self.url}")
            self._runtime = Runtime(self._configuration)
            self._stopped.clear()
            _started.add(self)
        return self

    def stop(self, timeout: float | None = None) -> None:
        """Lets requests finish for `timeout` seconds (None: `limits.drain_timeout`) and cuts off what is left then.

        Without effect when it does not run. A handler that goes on after that keeps its thread; the log says where.
        """
        with self._lock:
            runtime, self._runtime = self._running(), None
            if runtime is not None:
                runtime.stop(timeout)
                _started.discard(self)
                self._stopped.set()

    def serve_forever(self) -> None:
        """Starts it unless it runs, and waits until it is stopped by another thread, or by Control-C, which ends it."""
        if not self.is_running:
            self.start()
        try:
            self._stopped.wait()
        except KeyboardInterrupt:
            self.stop()

    def __enter__(self) -> Server:
        return self if self.is_running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        runtime = self._running()
        return f"<Server {runtime.urls[0]}>" if runtime is not None else "<Server, stopped>"

    @property
    def is_running(self) -> bool:
        """Whether it serves, in this process."""
        return self._running() is not None

    @property
    def url(self) -> str:
        """Of the first address, without a slash at its end. Raises AppError when it does not run."""
        return self._must_run().urls[0]

    @property
    def port(self) -> int:
        """Of the first address. Raises AppError when it does not run."""
        return self._must_run().port

    def _running(self) -> Runtime | None:
        runtime = self._runtime
        return None if runtime is None or is_forgotten(runtime) else runtime

    def _must_run(self) -> Runtime:
        runtime = self._running()
        if runtime is None:
            raise AppError("the server does not run; call start()")
        return runtime


_started: weakref.WeakSet[Server] = weakref.WeakSet()


def _stop_all() -> None:
    """At the program's end: what nobody stopped is cut off, so that no thread of the core outlives the interpreter."""
    for server in list(_started):
        server.stop(timeout=0)


atexit.register(_stop_all)
