"""Where this process is when it is stuck, and the way out of a request that is past its time.

The stacks: the supervisor hands over a file in memory and names a signal. `faulthandler` writes the Python stacks of
all threads into that file when the signal comes and when the process dies of a fatal error. Its handlers are C and do
not ask for the interpreter's lock, so they also work while an extension module holds it.

The way out: `interrupt()` has RequestTimeout raised in a request thread, between two steps of Python code. What blocks
in C (a lock, a sleep, a read) does not see it before it returns; then the supervisor replaces the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Optional

if TYPE_CHECKING:
    from .executor import Runner

Raise = Callable[[Optional[int], bool], None]

#: `Runner.interrupting`
IDLE, DECIDING, RAISED = 0, 1, 2

_set_exception: Optional[Any] = None
_stacks_fd = -1


class RequestTimeout(BaseException):
    """The request has run longer than `request_time`; its client has been answered 504.

    Not an Exception, and so neither a TimeoutError: `except Exception: retry` is what keeps many a stuck request going,
    and a handler that wants to tidy up has `finally`.
    """

    def __str__(self) -> str:
        return super().__str__() or "the request is past its time (request_time)"


def arm(fd: int, number: int) -> None:
    """From now on stacks go into `fd`, which stays open: at the signal `number`, and at fatal errors."""
    global _stacks_fd
    if _stacks_fd < 0:
        os.register_at_fork(after_in_child=_disarm)
    _stacks_fd = fd
    faulthandler.enable(file=fd, all_threads=True)
    faulthandler.register(number, file=fd, all_threads=True, chain=False)


def _disarm() -> None:
    """A child that a handler forked must not write its stacks as if they were the worker's."""
    with contextlib.suppress(Exception):
        faulthandler.enable(file=sys.__stderr__ or 2, all_threads=True)


def interrupt(runner: Runner, request_id: int) -> bool:
    """Main thread: raises RequestTimeout in this request thread if it still runs that request. False when it does not.

    `interrupting` is set before `running` is read, and the thread clears `running` before it reads `interrupting`: one
    of the two sees the other, so the exception never reaches the next request.
    """
    runner.interrupting = DECIDING
    ident = runner.thread.ident
    try:
        if runner.running != request_id or ident is None:
            runner.interrupting = IDLE
            return False
        _raise_in(ident, RequestTimeout)
    except BaseException:
        runner.interrupting = IDLE
        raise
    runner.interrupting = RAISED
    return True


def settle(runner: Runner) -> None:
    """The request thread itself, with a request behind it: an interrupt that was meant for that one is over, whether it
    has come or not. When this returns, none can come any more.
    """
    while True:
        try:
            runner.running = 0
            while runner.interrupting == DECIDING:
                time.sleep(0.0005)
            if runner.interrupting == RAISED:
                assert runner.thread.ident is not None
                _raise_in(runner.thread.ident, None)
                runner.interrupting = IDLE
            return
        except RequestTimeout:
            pass


def _raise_in(ident: int, kind: Optional[type]) -> None:
    """None takes back what has not been raised yet. Raises ImportError where the interpreter has no ctypes."""
    global _set_exception
    import ctypes

    if _set_exception is None:
        _set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
        _set_exception.argtypes = (ctypes.c_ulong, ctypes.py_object)
    _set_exception(ident, ctypes.py_object() if kind is None else ctypes.py_object(kind))
