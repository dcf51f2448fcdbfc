"""The server's end of the control socket: lines of JSON from commands such as `cherokee-app reload`.

One connection carries one request: {"command": NAME, ...}. The answer is any number of lines with notes, then one with
`ok`: true and what was asked for, or false and `error`. Only the server's own user and root are listened to: the socket
has mode 0600, and SO_PEERCRED says who connects.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from appserver.control import places
from appserver.control.client import peer_uid
from appserver.errors import StartError
from appserver.logging import get_logger
from appserver.supervisor.loop import Loop, Timer

REQUEST_MAX = 64 * 1024  #: bytes of a request
CONNECTIONS_MAX = 16  #: at once; further ones wait in the backlog
BACKLOG = 16
#: A command that has connected says at once what it wants.
REQUEST_TIME_S = 10.0
#: What waits for a reader; more is no answer that anybody wants.
ANSWER_MAX = 64 * 1024 * 1024
READ_SIZE = 65536


class Request:
    """One request. Whoever takes it answers once: at once or later."""

    def __init__(self, connection: _Connection, fields: Mapping[str, Any]) -> None:
        self._connection = connection
        self.fields = fields

    def text(self, name: str) -> str | None:
        """The field when it is a text."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else None

    def note(self, **fields: Any) -> None:
        """Something on the way to the answer."""
        self._connection.write(fields)

    def answer(self, **fields: Any) -> None:
        """What was asked for."""
        self._connection.finish({"ok": True, **fields})

    def refuse(self, error: str, **fields: Any) -> None:
        """Why it cannot be."""
        self._connection.finish({"ok": False, "error": error, **fields})


Command = Callable[[Request], None]


class ControlServer:
    """The listening socket and its connections. `commands` may be added to at any time."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._log = get_logger()
        self._socket: socket.socket | None = None
        self._connections: set[_Connection] = set()
        self._folder: Path | None = None  #: made by us
        self.path: Path | None = None
        self.commands: dict[str, Command] = {}

    def open(self, path: str | None) -> None:
        """Listens at `path`; None: at the usual place. Raises StartError when `path` cannot be; without a usual place
        the server goes on without.
        """
        if path is None:
            self._open_somewhere()
            return
        try:
            self._listen(Path(path))
        except OSError as error:
            reason = f"{error.strerror or error}; expected a path for a socket in a folder that exists"
            if error.errno == errno.EADDRINUSE:
                reason = "a file that is no socket is there; take it away, or choose another path"
                if Path(path).is_socket():
                    reason = "another server listens there; stop that one, or give this one a path of its own"
            raise StartError(f"control: {path}: {reason}") from None

    def close(self) -> None:
        """Also what is being answered ends here."""
        for connection in list(self._connections):
            connection.close()
        if self._socket is None or self.path is None:
            return
        self._loop.unwatch(self._socket.fileno())
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._socket.close()
        self._socket = None
        if self._folder is not None:
            with contextlib.suppress(OSError):  # another server is in there
                self._folder.rmdir()

    # Where

    def _open_somewhere(self) -> None:
        uid = os.geteuid()
        for folder in places.folders(uid):
            try:
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                if not places.is_private(folder, uid):
                    continue
                self._sweep(folder)
                self._listen(folder / f"{os.getpid()}{places.ENDING}")
            except OSError:
                continue
            self._folder = folder
            return
        self._log.warning(
            "no control socket: no folder for it can be written; `cherokee-app reload` and `status` will not find this"
            " server (the key `control` names a place)"
        )

    def _sweep(self, folder: Path) -> None:
        """Takes away what servers that were killed have left."""
        for path in places.sockets([folder]):
            if not _is_alive(path):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _listen(self, path: Path) -> None:
        """Raises OSError, also when another server listens there."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if path.is_socket() and not _is_alive(path):
                path.unlink()
            mask = os.umask(0o177)  # one thread: nobody else makes a file meanwhile
            try:
                sock.bind(str(path))
            finally:
                os.umask(mask)
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        self._socket, self.path = sock, path
        self._loop.watch(sock.fileno(), self._accept)

    # Connections

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return  # it has gone again, or there is no descriptor left for it
        try:
            uid = peer_uid(sock)
        except OSError:
            uid = -1
        if uid not in (0, os.geteuid()):
            self._log.warning("the control socket refused a connection of another user", uid=uid)
            sock.close()
            return
        self._connections.add(_Connection(self._loop, sock, self._take, self._closed))
        if len(self._connections) >= CONNECTIONS_MAX:
            self._loop.unwatch(self._socket.fileno())

    def _closed(self, connection: _Connection) -> None:
        was_full = len(self._connections) >= CONNECTIONS_MAX
        self._connections.discard(connection)
        if was_full and self._socket is not None:
            self._loop.watch(self._socket.fileno(), self._accept)

    def _take(self, connection: _Connection, line: bytes) -> None:
        try:
            fields = json.loads(line)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            Request(connection, {}).refuse("found something else; expected one line of JSON with a command")
            return
        request = Request(connection, fields)
        command = self.commands.get(str(fields.get("command")))
        if command is None:
            known = ", ".join(sorted(self.commands))
            request.refuse(f"command: found '{fields.get('command')}'; expected one of {known}")
            return
        command(request)


class _Connection:
    """Reads one line, then writes until it is finished."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        take: Callable[[_Connection, bytes], None],
        closed: Callable[[_Connection], None],
    ) -> None:
        self._loop = loop
        self._socket: socket.socket | None = sock
        self._take = take
        self._closed = closed
        self._in = bytearray()
        self._out = bytearray()
        self._is_finished = False
        self._is_writing = False
        self._timer: Timer | None = loop.call_later(REQUEST_TIME_S, self.close)
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._readable)

    def write(self, fields: Mapping[str, Any]) -> None:
        """One line; lost when the other side has gone."""
        if self._socket is None or self._is_finished:
            return
        self._out += json.dumps(fields, separators=(",", ":"), default=str).encode() + b"\n"
        if len(self._out) > ANSWER_MAX:
            self.close()
        elif not self._is_writing:
            self._is_writing = True
            self._loop.watch_writable(self._socket.fileno(), self._writable)

    def finish(self, fields: Mapping[str, Any]) -> None:
        """The last line."""
        self.write(fields)
        self._is_finished = True

    def close(self) -> None:
        if self._socket is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._socket = None
        self._closed(self)

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._in += data
        line, newline, _ = self._in.partition(b"\n")
        if not newline and (not data or len(self._in) > REQUEST_MAX):
            self.close()
            return
        if newline:
            # Whoever goes meanwhile has asked nevertheless: what was begun is done, only nobody is told.
            self._loop.unwatch(self._socket.fileno())
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._loop.call_later(0, partial(self._take, self, bytes(line)))

    def _writable(self) -> None:
        assert self._socket is not None
        try:
            sent = self._socket.send(self._out, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        del self._out[:sent]
        if self._out:
            return
        self._loop.unwatch(self._socket.fileno())
        self._is_writing = False
        if self._is_finished:
            self.close()


def _is_alive(path: Path) -> bool:
    """Whether somebody listens at this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(str(path))
        except BlockingIOError:
            return True  # its backlog is full
        except OSError:
            return False
    return True
