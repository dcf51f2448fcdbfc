"""What becomes of embedded servers in a process that the program forks: nothing of them works there, and nothing is
held on to. The parent goes on as if nothing had happened.

Python's `subprocess` is no concern of this: it runs another program, and every descriptor here is close-on-exec.
"""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

_DESCRIPTORS = Path("/proc/self/fd")
_ANY = ("0.0.0.0", "::")


class Forgettable(Protocol):
    """What has threads in the parent."""

    def forget(self) -> None:
        """Closes its descriptors in this process and touches nothing else."""

    def addresses(self) -> Mapping[int, set[str]]:
        """Ports that it listens on, and on which hosts."""


_running: weakref.WeakSet[Forgettable] = weakref.WeakSet()
_forgotten: weakref.WeakSet[Forgettable] = weakref.WeakSet()


def forget_in_child(runtime: Forgettable) -> None:
    """From now on a forked child forgets `runtime`."""
    _running.add(runtime)


def is_forgotten(runtime: Forgettable) -> bool:
    """Whether this process is a child that was forked while `runtime` ran."""
    return runtime in _forgotten


def _after_fork() -> None:
    for runtime in list(_running):
        _running.discard(runtime)
        _forgotten.add(runtime)
        with contextlib.suppress(OSError):
            _close_connections(runtime.addresses())
        runtime.forget()


def _close_connections(ours: Mapping[int, set[str]]) -> None:
    """The core's own descriptors: as long as the child held a client's connection, the client would not see its end."""
    for entry in os.listdir(_DESCRIPTORS):  # noqa: PTH208
        with contextlib.suppress(OSError):
            with socket.socket(fileno=os.dup(int(entry))) as sock:
                address = sock.getsockname() if sock.family in (socket.AF_INET, socket.AF_INET6) else ()
            if address and address[1] in ours and not {address[0], *_ANY}.isdisjoint(ours[address[1]]):
                os.close(int(entry))


os.register_at_fork(after_in_child=_after_fork)
