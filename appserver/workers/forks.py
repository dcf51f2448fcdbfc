"""What becomes of a child that a handler forks.

The child is a copy of a worker in the middle of a request: it has the answer sockets and the pipes of streams. It may
do its own work and end with `os._exit()`, as children of multiprocessing and subprocess do. Should it come back from
the handler instead, it would answer the request a second time and take others from the queue; here it is ended.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Any, Callable, Iterable, NoReturn, Optional

if TYPE_CHECKING:
    from .executor import Executor

Log = Callable[..., None]

STATUS_CAME_BACK = 1

_guarded: weakref.WeakSet[Executor] = weakref.WeakSet()
_registered = False


def guard(executor: Executor) -> None:
    """From now on a forked child of this process cannot answer for `executor`."""
    global _registered
    _guarded.add(executor)
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_after_fork)


def leave(log: Log, error: Optional[BaseException] = None) -> NoReturn:
    """Ends the child. One that meant to end (`sys.exit()`) gets its status and no complaint."""
    status = STATUS_CAME_BACK
    if isinstance(error, SystemExit):
        code = error.code
        status = code & 0xFF if isinstance(code, int) else int(code is not None)
    else:
        with contextlib.suppress(Exception):
            log(
                "error",
                "a process that a handler forked came back from it and was ended; it should end with os._exit()",
                process=os.getpid(),
                **({} if error is None else {"error": f"{type(error).__name__}: {error}"}),
            )
    os._exit(status)


class _ClosedAnswers:
    """Stands for an answer socket in the child."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def send(self, data: bytes, flags: int = 0) -> int:
        leave(self._log)

    def sendmsg(self, buffers: Iterable[bytes], *more: Any) -> int:
        leave(self._log)


def _after_fork() -> None:
    for executor in list(_guarded):
        closed: Any = _ClosedAnswers(executor.log)
        executor.in_child = True
        executor.answers = [closed] * len(executor.answers)
