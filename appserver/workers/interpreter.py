"""What differs between the interpreters that a pool may name: CPython from 3.9 on, with and without a global lock, and
PyPy."""

from __future__ import annotations

import gc
import socket
import sys
from typing import Callable, Optional

#: PyPy has no name for it; the number is the kernel's (include/linux/socket.h).
MSG_CMSG_CLOEXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0x40000000)


def settle() -> None:
    """What has been loaded by now lives as long as the process: the collector need not look at it again."""
    gc.collect()
    freeze: Optional[Callable[[], None]] = getattr(gc, "freeze", None)  # PyPy's collector has generations that age
    if freeze is not None:
        freeze()


def collect_when_idle() -> None:
    """Without reference counts, files that a handler forgot stay open until the collector comes by."""
    if sys.implementation.name == "pypy":
        gc.collect()


def has_global_lock() -> bool:
    enabled: Optional[Callable[[], bool]] = getattr(sys, "_is_gil_enabled", None)
    return enabled is None or enabled()
