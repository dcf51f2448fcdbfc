"""ASGI lifespan: the application's startup before the worker is ready, its shutdown at the worker's end, and the state
that it hands to every request.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Callable, Dict, Optional

from .aexecutor import LIFESPAN_TASK
from .control import LoadError, describe

Log = Callable[..., None]

#: How far it has come.
NEW, STARTING, STARTED, STOPPING, ENDED = range(5)


class Lifespan:
    """Of one application in one worker. Loop's thread."""

    def __init__(self, application: Callable[..., Any], name: str, log: Log) -> None:
        self.state: Dict[str, Any] = {}
        self.is_started = False  #: nothing has to be done before a request
        self._application = application
        self._name = name
        self._log = log
        self._phase = NEW
        self._task: Optional[asyncio.Task[None]] = None
        self._changed: Optional[asyncio.Event] = None  #: for those who wait for another phase
        self._orders: Optional[asyncio.Queue[Dict[str, Any]]] = None
        self._error: Optional[LoadError] = None
        self._has_asked = False  #: the application has called `receive`

    async def startup(self) -> None:
        """Until the application says that it is ready. Raises LoadError when it says that it cannot, also to everybody
        who asks again.
        """
        if self._phase == NEW:
            self._begin()
        if self._phase == STARTING:
            await self._wait(None)
        if self._error is not None:
            raise self._error
        self.is_started = True

    def _begin(self) -> None:
        self._orders = asyncio.Queue()
        self._orders.put_nowait({"type": "lifespan.startup"})
        self._phase = STARTING
        self._task = asyncio.ensure_future(self._run())
        self._task.set_name(LIFESPAN_TASK)

    async def shutdown(self, time_s: float) -> None:
        """Lets the application clean up, for that time at most."""
        if self._phase != STARTED or self._orders is None:
            return
        self._phase = STOPPING
        self._orders.put_nowait({"type": "lifespan.shutdown"})
        await self._wait(time_s)
        if self._phase == STOPPING:
            self._log("warning", "the application's shutdown took too long", application=self._name, seconds=time_s)
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=time_s)

    # Inside

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._application(scope, self._receive, self._send)
        except BaseException as error:
            self._failed(error)
        finally:
            self._set(ENDED)

    async def _receive(self) -> Dict[str, Any]:
        assert self._orders is not None
        self._has_asked = True
        return await self._orders.get()

    async def _send(self, message: Dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete" and self._phase == STARTING:
            self._set(STARTED)
        elif kind == "lifespan.startup.failed" and self._phase == STARTING:
            self._error = self._refusal(str(message.get("message") or ""))
            self._set(ENDED)
        elif kind == "lifespan.shutdown.complete" and self._phase == STOPPING:
            self._set(ENDED)
        elif kind == "lifespan.shutdown.failed" and self._phase == STOPPING:
            reason = str(message.get("message") or "")
            self._log("error", "the application's shutdown failed", application=self._name, error=reason)
            self._set(ENDED)
        elif self._phase != ENDED:
            raise RuntimeError(f"send() was given {kind!r}, which is not expected in this part of the lifespan")

    def _refusal(self, reason: str) -> LoadError:
        # Frameworks give the whole traceback as the message: its last line is what happened.
        summary = reason.strip().rpartition("\n")[2] or "it gave no reason"
        return LoadError(f"application {self._name} says that its startup failed: {summary}", reason)

    def _failed(self, error: BaseException) -> None:
        summary, trace = describe(error)
        if self._phase == STARTING:
            # Before it has said anything, an exception means that it knows no lifespan (specification, "Scope").
            if self._has_asked:
                what = "the application has raised an exception in its startup, and goes on without a lifespan"
                self._log("warning", what, application=self._name, error=summary, traceback=trace)
            else:
                self._log("debug", "the application has no lifespan", application=self._name, error=summary)
        elif self._phase in (STARTED, STOPPING) and not isinstance(error, asyncio.CancelledError):
            self._log(
                "error", "the application's lifespan failed", application=self._name, error=summary, traceback=trace
            )

    def _set(self, phase: int) -> None:
        self._phase = phase
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    async def _wait(self, time_s: Optional[float]) -> None:
        """Until the phase changes."""
        changed = self._changed = self._changed or asyncio.Event()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(changed.wait(), time_s)
