"""Runs asynchronous applications and `async def handle(request)` for the event loop's thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from . import forks
from .asgi import HttpCall
from .awebsocket import Settings, WebSocketCall, is_asked_for
from .control import LoadError
from .interface import ASGI, Application
from .lifespan import Lifespan
from .tasks import start_task
from .websocket import HandshakeError

if TYPE_CHECKING:
    from .aexecutor import LoopRunner
    from .executor import Item
    from .wsgi import Server

Environ = Dict[str, Any]
Find = Callable[[Environ], Application]
Log = Callable[..., None]


class AsyncServer:
    """Used by the loop's thread."""

    def __init__(self, find: Find, errors: Server, log: Log, settings: Settings) -> None:
        """`find` gives the application for an environment; `errors` says in the log and to the client what went wrong
        with a request.
        """
        self._find = find
        self._errors = errors
        self._log = log
        self._settings = settings
        #: The pool's own, which answers all of its requests.
        self._application: Optional[Application] = None
        self._life: Optional[Lifespan] = None
        self._lives: Dict[int, Lifespan] = {}  #: by identity of the application

    async def startup(self, application: Application, name: str, *, is_only: bool) -> None:
        """Before its first request. Raises LoadError when the application says that it cannot."""
        if application.interface != ASGI:
            return
        life = Lifespan(application.call, name, self._log)
        self._lives[id(application.call)] = life
        await life.startup()
        if is_only:
            self._application, self._life = application, life

    async def shutdown(self, time_s: float) -> None:
        """Of all applications, at the end of the worker."""
        if self._lives:
            await asyncio.gather(*(life.shutdown(time_s) for life in self._lives.values()))

    def serve(self, runner: LoopRunner, item: Item) -> None:
        """Begins one request, and ends it when it need not wait for anything."""
        if item[6] and is_asked_for(item[3], item[6]) and self._takes_websockets(item[3]):
            call: HttpCall = WebSocketCall(self._settings, runner, *item)
        else:
            call = HttpCall(runner, *item)
        task = start_task(runner.loop, self._run(runner, call))
        if not task.done():
            call.task = task
            runner.calls[call.request_id] = call

    def _takes_websockets(self, environ: Any) -> bool:
        """False also for what cannot be loaded, which is told in another place."""
        try:
            application = self._application or self._find(environ)
        except LoadError:
            return False
        return application.takes_websockets

    async def _run(self, runner: LoopRunner, call: HttpCall) -> None:
        try:
            application = self._application or self._find(call.environ)
            if isinstance(call, WebSocketCall):
                call.check_handshake()
            if application.interface == ASGI:
                life = self._life or self._lives.get(id(application.call)) or self._new_life(application, call)
                if not life.is_started:
                    await life.startup()
                await application.call(call.scope(life.state), call.receive, call.send)
            else:
                self._add_limits(call)
                run = application.websocket if isinstance(call, WebSocketCall) else None
                await (run or application.call)(call)
            if not call.is_complete:
                call.check_end()
        except BaseException as error:
            if runner.executor.in_child:
                forks.leave(self._log, error)
            self._fail(call, error)
        if runner.executor.in_child:
            forks.leave(self._log)
        if call.has_parts or not call.sent:
            call.close()
        if call.task is not None:
            del runner.calls[call.request_id]
        if call.has_ended():
            runner.ended()

    def _add_limits(self, call: HttpCall) -> None:
        environ, limit_ns = call.environ, self._errors.limit_ns
        environ["appserver.cancelled"] = call.is_over
        call.has_parts = True
        if limit_ns:
            environ["appserver.deadline"] = (call.started_ns + limit_ns) * 1e-9

    def _new_life(self, application: Application, call: HttpCall) -> Lifespan:
        """Of a script, which begins with its first request."""
        life = Lifespan(application.call, call.environ.get("appserver.script", ""), self._log)
        self._lives[id(application.call)] = life
        return life

    def _fail(self, call: HttpCall, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError) and call.timed_out:
            self._errors.report(call, "warning", "the request was cancelled: its time is over")
            self._refuse(call, 504)
        elif isinstance(error, asyncio.CancelledError) and call.runner.executor.stopping:
            self._errors.report(call, "warning", "the request was cancelled: the worker stops")
            self._refuse(call, 503)
        elif isinstance(error, HandshakeError):
            fields = b"Sec-WebSocket-Version: 13\r\n" if error.status == 426 else b""
            call.respond(error.status, fields + b"Content-Type: text/plain\r\n", f"{error}\n".encode("ascii"))
        elif call.is_quiet(error):
            pass
        else:
            self._errors.fail(call, error)

    def _refuse(self, call: HttpCall, status: int) -> None:
        if not call.sent:
            call.respond(status, b"", b"")
        call.close_stream(False)
