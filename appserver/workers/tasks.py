"""Starts a coroutine as a task at once, without waiting for the event loop's next turn.

Most handlers of requests end without ever waiting. They still need a task of their own: what runs in them asks for the
current one (asyncio.timeout, anyio, sniffio), and context variables must not leak into the next request. So a real task
is made, and its first step is run here; only when it waits for something has the event loop anything to do with it.
Measured with CPython 3.11: 1.6 µs, of which the coroutine itself takes 0.5; a task that is scheduled takes a turn.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Callable, Coroutine, List, Tuple

if sys.version_info >= (3, 12):

    def start_task(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Called from a callback of the running loop, outside of any task."""
        return asyncio.Task(coroutine, loop=loop, eager_start=True)

else:

    def start_task(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Called from a callback of the running loop, outside of any task."""
        # A new task gives its first step to loop.call_soon. That is taken from it here, and run.
        loop.call_soon = _take_step  # type: ignore
        try:
            task = asyncio.Task(coroutine, loop=loop)
        finally:
            del loop.call_soon
        step, context = _steps.pop()
        context.run(step)
        return task

    _steps: List[Tuple[Callable[[], object], Any]] = []

    def _take_step(step: Callable[[], object], *, context: Any = None) -> None:
        _steps.append((step, context))
