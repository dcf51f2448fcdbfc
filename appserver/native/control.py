"""The control channel: JSON messages with descriptors over a SOCK_SEQPACKET socket (docs/executor-protocol.md section
9).

The supervisor, the core process and the spawner process share this file. Python workers have their own copy, because
they may run under an interpreter that cannot import this package.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from appserver.errors import AppError

MAX_MESSAGE = 128 * 1024  #: bytes of one message
MAX_DESCRIPTORS = 200  #: in one message; the kernel's own limit is 253


class ControlError(AppError):
    """The other side broke the protocol of the control channel."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. Whoever received it owns the descriptors in `fds`."""

    type: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    fds: Mapping[str, int] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        """The field as text; `default` when it is missing or null."""
        value = self.fields.get(name)
        return default if value is None else str(value)

    def number(self, name: str, default: int = 0) -> int:
        """The field as an integer; `default` when it is missing or something else."""
        value = self.fields.get(name)
        return value if isinstance(value, int) else default

    def close_fds(self) -> None:
        """Closes every descriptor that came with the message."""
        for fd in self.fds.values():
            os.close(fd)


def encode(type_: str, fields: Mapping[str, Any], names: tuple[str, ...]) -> bytes:
    """The datagram of a message. Raises ControlError when it is too long."""
    content: dict[str, Any] = {"type": type_, **fields}
    if names:
        content["fds"] = names
    data = json.dumps(content, separators=(",", ":"), default=str).encode()
    if len(data) > MAX_MESSAGE:
        raise ControlError(f"a control message '{type_}' of {len(data)} bytes is longer than {MAX_MESSAGE}")
    return data


def decode(data: bytes, fds: list[int]) -> Message:
    """The message in `data`. Raises ControlError; the descriptors are then still the caller's."""
    try:
        content = json.loads(data)
        kind = content.pop("type")
        names = content.pop("fds", [])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ControlError(f"a control message cannot be read: {error}") from None
    if not isinstance(kind, str) or not isinstance(names, list) or len(names) != len(fds):
        raise ControlError(f"the control message '{kind}' came with {len(fds)} descriptors for {names}")
    return Message(kind, content, dict(zip(map(str, names), fds, strict=True)))


class Channel:
    """One end of a control channel. Not for several threads at once.

    With a non-blocking socket `send` and `receive` raise BlockingIOError; any other failure is an OSError.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        """The child's end, from the number on its command line. Takes `fd`."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd))

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, type_: str, fds: Mapping[str, int] | None = None, **fields: Any) -> None:
        """Sends one message; the descriptors stay the caller's. Raises ControlError, BlockingIOError, OSError."""
        fds = fds or {}
        if len(fds) > MAX_DESCRIPTORS:
            raise ControlError(f"a control message '{type_}' with {len(fds)} descriptors; at most {MAX_DESCRIPTORS}")
        data = encode(type_, fields, tuple(fds))
        ancillary = []
        if fds:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds.values()))]
        self._socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)

    def receive(self) -> Message | None:
        """The next message; None when the other side has closed. Raises ControlError, BlockingIOError, OSError."""
        room = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(MAX_MESSAGE + 1, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            # The other side went away with messages of ours unread.
            return None
        fds = _descriptors(ancillary)
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ControlError("a control message was cut off")
            return decode(data, fds) if data else None
        except ControlError:
            for fd in fds:
                os.close(fd)
            raise

    def close(self) -> None:
        self._socket.close()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def channel_pair() -> tuple[Channel, socket.socket]:
    """The supervisor's end, non-blocking, and the child's end, to be handed over by number. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return Channel(ours), theirs
