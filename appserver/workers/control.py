"""The worker's end of the control channel (docs/executor-protocol.md, section 9)."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import traceback
from types import TracebackType
from typing import Any, Dict, List, Optional, Tuple

from .interpreter import MSG_CMSG_CLOEXEC

MESSAGE_MAX = 128 * 1024
FDS_MAX = 200
TEXT_MAX = 16 * 1024  #: characters of one field; JSON may need six bytes for each
SEND_PATIENCE_MS = 250  #: how long a full channel may hold up a request for a log record


class ControlClosedError(Exception):
    """The supervisor has closed its end or has gone."""


class LoadError(Exception):
    """A script or an application cannot be used. `trace` is the traceback of the cause, or the sentence again."""

    def __init__(self, sentence: str, trace: str = "") -> None:
        super().__init__(sentence)
        self.trace = trace or sentence + "\n"


class Control:
    """Sends from any thread; only the main thread receives."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.settimeout(None)
        self._socket.set_inheritable(False)
        self.last_trace = ""  #: the traceback of the last log record that had one

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def receive(self) -> Tuple[Dict[str, Any], Dict[str, int]]:
        """The next message and its descriptors by name. Raises ControlClosedError, ValueError."""
        try:
            data, fds, flags, _ = socket.recv_fds(self._socket, MESSAGE_MAX, FDS_MAX, MSG_CMSG_CLOEXEC)
        except ConnectionError as error:
            raise ControlClosedError from error
        if not data:
            raise ControlClosedError
        message = json.loads(data)
        names = message.get("fds", [])
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(names) != len(fds):
            raise ValueError(f"control message cut short: {len(fds)} of {len(names)} descriptors")
        return message, dict(zip(names, fds))  # noqa: B905 (same length, and 3.9 has no strict)

    def send(self, kind: str, **fields: Any) -> bool:
        """Sends a message. Never raises and waits SEND_PATIENCE_MS at most; False when it could not be sent."""
        data = _encode(dict(fields, type=kind))
        try:
            self._socket.send(data, socket.MSG_DONTWAIT)
            return True
        except BlockingIOError:
            return self._send_later(data)
        except OSError:
            return False

    def _send_later(self, data: bytes) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        try:
            if poll.poll(SEND_PATIENCE_MS):
                self._socket.send(data, socket.MSG_DONTWAIT)
                return True
        except OSError:
            pass
        return False

    def log(self, level: str, event: str, **fields: Any) -> None:
        """A log record; on stderr when the channel does not take it."""
        self.last_trace = fields.get("traceback") or self.last_trace
        if self.send("log", level=level, event=event, **fields):
            return
        with contextlib.suppress(Exception):
            text = " ".join(f"{name}={value}" for name, value in fields.items() if name != "traceback")
            sys.stderr.write(f"{level}: {event} {text}\n{fields.get('traceback', '')}")


def _encode(message: Dict[str, Any]) -> bytes:
    message = {name: shorten(value) if isinstance(value, str) else value for name, value in message.items()}
    data = json.dumps(message, default=repr).encode("ascii")
    if len(data) > MESSAGE_MAX:
        message = {name: message[name] for name in ("type", "level", "event", "request") if name in message}
        data = json.dumps(message, default=repr).encode("ascii")
    return data


def shorten(text: str, limit: int = TEXT_MAX) -> str:
    """At most about `limit` characters: the beginning, and more of the end, where a traceback names the cause."""
    if len(text) <= limit:
        return text
    return text[: limit // 4] + "\n[...]\n" + text[-(limit - limit // 4) :]


def describe(error: BaseException) -> Tuple[str, str]:
    """One line that says what happened, and the traceback without the frames of this package. Never raises."""
    if isinstance(error, LoadError):
        return str(error), error.trace
    try:
        # A syntax error names its place itself; the frames are only those of the import.
        trace = None if isinstance(error, SyntaxError) else _strip(error.__traceback__) or error.__traceback__
        lines: List[str] = traceback.format_exception(type(error), error, trace)
        summary = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(": ")
        return shorten(summary, 500), shorten("".join(lines))
    except BaseException:  # a __str__ of the user's
        return type(error).__name__, f"{type(error).__name__} (it cannot be formatted)\n"


def has_foreign_frames(error: BaseException) -> bool:
    """Whether code took part in it that is neither this package's nor the import system's."""
    return _strip(error.__traceback__) is not None


def _strip(trace: Optional[TracebackType]) -> Optional[TracebackType]:
    """Skips the leading frames of this package and of the import system; None when there is nothing else."""
    package = __name__.rpartition(".")[0]
    inner = trace
    while inner is not None:
        name = str(inner.tb_frame.f_globals.get("__name__", ""))
        if name.rpartition(".")[0] != package and name.partition(".")[0] != "importlib":
            return inner
        inner = inner.tb_next
    return None
