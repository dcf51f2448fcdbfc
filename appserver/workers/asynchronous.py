"""The asynchronous side of a worker: made when there is something for it, because importing asyncio costs a worker
5 MiB and 40 ms; and the server of script pools and others that have both kinds, which gives each request to its side.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence, Tuple

from . import wire
from .interface import Application
from .wsgi import Server

if TYPE_CHECKING:
    from .aexecutor import LoopRunner
    from .exchange import Exchange
    from .executor import Executor, Item, Runner

Environ = Dict[str, Any]
Log = Callable[..., None]


class Asynchronous:
    """The event loop of a worker, once something needs it."""

    def __init__(
        self,
        executor: Executor,
        find: Callable[[Environ], Application],
        errors: Server,
        log: Log,
        *,
        concurrency: int,
        websocket: Dict[str, Any],
    ) -> None:
        """`websocket`: as in the message `start`."""
        self.concurrency = concurrency  #: requests that the loop holds at once
        self._executor = executor
        self._find = find
        self._errors = errors
        self._log = log
        self._websocket = websocket
        self._lock = threading.Lock()
        self.runner: Optional[LoopRunner] = None  #: once it has been booted

    def boot(
        self, application: Optional[Application], name: str = "", several: Sequence[Tuple[Application, str]] = ()
    ) -> None:
        """Starts the loop, for the pool's own application (with its name) or for scripts; `several`: some among others,
        whose startup is not to wait for their first request. Raises LoadError.
        """
        with self._lock:
            self._boot(application, name, several)

    def beside(self, threads: int) -> Tuple[int, int]:
        """Requests that threads and the loop hold, and how many of these run at once. Who knows what will come: all of
        them may be for the loop, or for the threads."""
        return threads + self.concurrency, threads + 1

    def take(self, item: Item) -> None:
        """A request for the loop, from another thread."""
        if self.runner is None:
            with self._lock:
                if self.runner is None:
                    self._boot(None, "", ())
        assert self.runner is not None
        self.runner.take(item)

    def _boot(self, application: Optional[Application], name: str, several: Sequence[Tuple[Application, str]]) -> None:
        from .aexecutor import LoopRunner
        from .aserver import AsyncServer
        from .awebsocket import settings_of

        executor = self._executor
        server = AsyncServer(self._find, self._errors, self._log, settings_of(self._websocket))
        runner = LoopRunner(
            executor,
            len(executor.runners),
            server.serve,
            concurrency=self.concurrency,
            receives=application is not None,
        )

        async def startup() -> None:
            if application is not None:
                await server.startup(application, name, is_only=True)
            for each, its_name in several:
                await server.startup(each, its_name, is_only=False)

        runner.boot(startup, server.shutdown)
        executor.runners.append(runner)
        if executor.stopping:
            runner.stop()
        self.runner = runner


class MixedServer:
    """What is plain runs in the thread that has received the request, what is asynchronous in the loop."""

    def __init__(
        self, server: Server, find: Callable[[Environ], Optional[Application]], asynchronous: Asynchronous
    ) -> None:
        """`find`: None for what cannot be loaded, which `server` tells."""
        self._server = server
        self._find = find
        self._asynchronous = asynchronous

    def serve(self, runner: Runner, item: Item) -> None:
        path = item[3].get("appserver.script")
        if path is not None:
            runner.executor.ran.add(path)
        found = self._find(item[3])
        if found is not None and (found.is_async or (item[6] & wire.UPGRADE and found.takes_websockets)):
            self._asynchronous.take(item)
        else:
            self._server.serve(runner, item)

    def report(self, exchange: Exchange, level: str, event: str, **fields: Any) -> None:
        self._server.report(exchange, level, event, **fields)
