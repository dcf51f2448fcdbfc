"""What modules have registered with `os.register_at_fork`, when one fork is made of two.

A template forks a process that forks the worker and ends, so that the worker becomes a child of the supervisor. To the
application this is one fork: its handlers run once before it, once in the template, and once in the worker, and not in
the process between. Handlers that were registered before :func:`install` are those of the standard library (locks,
random numbers); they run in each fork and do no harm.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Optional

Handler = Callable[[], Any]

WHOLE = 0  #: forks are what they are
FIRST = 1  #: the template forks the process between
SECOND = 2  #: that one forks the worker

_register = os.register_at_fork
_stage = WHOLE


def install() -> None:
    """From now on handlers are registered here."""
    for name in ("os", "posix"):
        setattr(sys.modules[name], "register_at_fork", register)  # noqa: B010 (modules have no such attribute to mypy)


def enter(stage: int) -> None:
    """What the next fork, or this process, is."""
    global _stage
    _stage = stage


def register(
    *,
    before: Optional[Handler] = None,
    after_in_child: Optional[Handler] = None,
    after_in_parent: Optional[Handler] = None,
) -> None:
    """As `os.register_at_fork`."""
    for handler in (before, after_in_child, after_in_parent):
        if handler is not None and not callable(handler):
            raise TypeError(f"a callable is needed, not {type(handler).__name__}")
    handlers = {}
    if before is not None:
        handlers["before"] = _unless(SECOND, before)
    if after_in_parent is not None:
        handlers["after_in_parent"] = _unless(SECOND, after_in_parent)
    if after_in_child is not None:
        handlers["after_in_child"] = _unless(FIRST, after_in_child)
    if not handlers:
        raise TypeError("At least one argument is required.")
    _register(**handlers)


def _unless(stage: int, handler: Handler) -> Handler:
    def run() -> None:
        if _stage != stage:
            handler()

    return run
