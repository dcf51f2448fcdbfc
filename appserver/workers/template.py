"""The template of a pool: loads the application once, then forks a worker whenever the supervisor asks for one.

What was loaded is shared between the workers until somebody writes to it. So the collector is told to leave it alone,
and nothing may run yet: a thread would not be in the workers, and the locks that it holds would never be given back.

A worker is a grandchild: the process between ends at once, and the kernel gives the worker to the supervisor (which is
process 1 or a subreaper). So the supervisor has the worker's exit status and signal at first hand, and it makes no
difference to a worker whether its template still lives.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from pathlib import Path
from typing import Dict, Optional

from . import atfork, interpreter
from .control import Control

PID_DIGITS = 32

_template = 0  #: our own process, while it is the template


def prepare() -> None:
    """Before anything of the application's is loaded."""
    global _template
    _template = os.getpid()
    atfork.install()


def unfitness() -> str:
    """Why workers cannot be forked from this process as it is; "" when they can."""
    threads = _threads()
    if threads <= 1:
        return ""
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    which = f" ({', '.join(names[:5])})" if names else ""
    return f"the application has started {threads - 1} threads while it was loaded{which}: they would not be in a fork"


def serve(control: Control) -> Optional[Control]:
    """Forks workers until it is told to stop: None. In a worker: its own control channel.

    Raises ControlClosedError, ValueError.
    """
    interpreter.settle()
    gc.disable()  # what a collection would free is memory that the workers would have to copy
    control.send("preloaded")
    while True:
        message, fds = control.receive()
        kind = message.get("type")
        if kind == "fork":
            worker = _fork_for(control, int(message["executor"]), fds)
            if worker is not None:
                return worker
        elif kind == "stop":
            return None


def _fork_for(control: Control, executor: int, fds: Dict[str, int]) -> Optional[Control]:
    """None in the template; in the worker its control channel."""
    try:
        pid = _fork()
    except OSError as error:
        control.send("not-forked", executor=executor, reason=f"{type(error).__name__}: {error}")
        pid = -1
    if pid == 0:
        return _become_worker(control, fds)
    for fd in fds.values():
        os.close(fd)
    if pid > 0:
        control.send("forked", executor=executor, pid=pid)
    return None


def _fork() -> int:
    """The worker's process, or 0 in the worker. Raises OSError."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or each worker would write it again
    reader, writer = os.pipe()
    atfork.enter(atfork.FIRST)
    try:
        middle = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    finally:
        if os.getpid() == _template:
            atfork.enter(atfork.WHOLE)
    if middle == 0:
        os.close(reader)
        _fork_again(writer)
        return 0
    os.close(writer)
    data = os.read(reader, PID_DIGITS)
    os.close(reader)
    with contextlib.suppress(ChildProcessError):  # the application has had the kernel reap its children
        os.waitpid(middle, 0)  # from now on the worker is the supervisor's
    if not data:
        raise OSError("the process between cannot fork")
    return int(data)


def _fork_again(writer: int) -> None:
    """In the process between, which ends here: only the worker returns."""
    try:
        atfork.enter(atfork.SECOND)
        pid = os.fork()
        if pid:
            os.write(writer, b"%d" % pid)
            os._exit(0)
    except BaseException:
        os._exit(1)
    atfork.enter(atfork.WHOLE)
    os.close(writer)


def _become_worker(control: Control, fds: Dict[str, int]) -> Control:
    """A session of its own, its own output, its own control channel."""
    os.setsid()
    for name, fd in (("stdout", 1), ("stderr", 2)):
        os.dup2(fds[name], fd)
        os.close(fds[name])
    control.close()
    gc.enable()
    _seed()
    return Control(fds["control"])


def _seed() -> None:
    """Workers must not draw the same random numbers. Python's own generator has seen to itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _threads() -> int:
    """Threads of this process, those that are not Python's included."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return threading.active_count()
