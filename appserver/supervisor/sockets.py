"""Listening sockets: bound by the supervisor, before anything is started, and kept until the end."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from typing import Any

from appserver.config.plan import Listener, listener_url
from appserver.errors import StartError

#: The kernel takes the smaller one of this and net.core.somaxconn.
BACKLOG = 4096
PRIVILEGED_PORTS = 1024


class Listeners:
    """The sockets by the listeners' ids; they are the same ones over a reload. `loops`: each listener has a socket for
    each of so many loops (SO_REUSEPORT); None: one for all.
    """

    def __init__(self, loops: int | None = None) -> None:
        self._loops = loops
        self._sockets: dict[str, list[socket.socket]] = {}
        self._urls: dict[str, str] = {}

    def open(self, wanted: Iterable[Listener]) -> list[str]:
        """Binds those that are not there yet and returns their ids. Raises StartError, with nothing changed."""
        wanted = list(wanted)
        opened: dict[str, list[socket.socket]] = {}
        try:
            for listener in wanted:
                if listener.id not in self._sockets:
                    opened[listener.id] = [open_listener(listener, wanted)]
                    if self._loops is not None:
                        opened[listener.id] += open_siblings(listener, opened[listener.id][0], self._loops - 1)
        except StartError as error:
            ours = [key for key in (*self._sockets, *opened) if key.rpartition(":")[2] == str(listener.port)]
            for sockets in opened.values():
                _close_all(sockets)
            if ours and isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE:
                raise StartError(
                    f"cannot listen on {listener.id}: this server itself listens on {ours[0]}, which may be the same"
                    " address; leave one of them out (to change from one to the other, start the server anew)"
                ) from error
            raise
        self._sockets |= opened
        for listener in wanted:
            self._urls[listener.id] = _real_url(listener, self._sockets[listener.id][0])
        return list(opened)

    def close(self, ids: Iterable[str] | None = None) -> None:
        """Closes these, or all."""
        for key in list(self._sockets if ids is None else ids):
            _close_all(self._sockets.pop(key))
            self._urls.pop(key, None)

    def fds(self, ids: Iterable[str] | None = None) -> dict[str, int]:
        """Descriptors by id, or by `ID@LOOP` when each loop has its own; all when `ids` is None."""
        found = {}
        for key in self._sockets if ids is None else ids:
            for loop, sock in enumerate(self._sockets[key]):
                found[key if self._loops is None else f"{key}@{loop}"] = sock.fileno()
        return found

    def ids(self) -> list[str]:
        return list(self._sockets)

    def urls(self) -> list[str]:
        """Each once, with real port numbers, in the order of the configuration."""
        return list(dict.fromkeys(self._urls.values()))


def open_listener(listener: Listener, others: Iterable[Listener] = ()) -> socket.socket:
    """A listening, non-blocking socket. Raises StartError with one line that says what is wrong and what to do."""
    family, address = _resolve(listener)
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(_sentence(listener, error)) from error
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            only = any(":" not in other.host and other.port == listener.port for other in others)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only or listener.host != "::")
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(_sentence(listener, error)) from error
    return sock


def open_siblings(listener: Listener, first: socket.socket, count: int) -> list[socket.socket]:
    """`count` more sockets on the address of `first`, between which the kernel shares out the connections.

    `first` was bound and listens without SO_REUSEPORT: with it, a second server would not be refused but given a share
    of the port. It joins the group now that the port is ours. Raises StartError.
    """
    found: list[socket.socket] = []
    try:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count):
            sock = socket.socket(first.family, socket.SOCK_STREAM)
            found.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if first.family == socket.AF_INET6:
                only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            sock.bind(first.getsockname())
            sock.listen(BACKLOG)
    except OSError as error:
        _close_all(found)
        raise StartError(_sentence(listener, error)) from error
    return found


def _close_all(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _resolve(listener: Listener) -> tuple[socket.AddressFamily, Any]:
    try:
        found = socket.getaddrinfo(
            listener.host or "0.0.0.0", listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(
            f"cannot listen on {listener.id}: the name '{listener.host}' is not known ({reason});"
            " use an address of this machine, or 0.0.0.0 for all"
        ) from error
    family, _, _, _, address = found[0]
    return family, address


def _sentence(listener: Listener, error: OSError) -> str:
    port = listener.port
    match error.errno:
        case errno.EADDRINUSE:
            why = (
                f"port {port} is in use by another program; stop that one (`ss -ltnp` shows it)"
                " or choose another port with --listen"
            )
        case errno.EACCES if port < PRIVILEGED_PORTS:
            why = (
                f"no right to bind port {port}; choose a port from {PRIVILEGED_PORTS} up"
                " with --listen or CHEROKEE_LISTEN, start as root (and set `user`), or grant CAP_NET_BIND_SERVICE"
            )
        case errno.EACCES | errno.EPERM:
            why = f"no right to bind port {port}: a security policy of this system forbids it"
        case errno.EADDRNOTAVAIL:
            why = (
                f"this machine has no address {listener.host} (`ip address` shows those that it has);"
                " use one of them, or 0.0.0.0 for all"
            )
        case errno.EAFNOSUPPORT:
            why = "this system has no IPv6; remove the address, or use 0.0.0.0"
        case _:
            why = error.strerror or str(error)
    return f"cannot listen on {listener.id}: {why}"


def _real_url(listener: Listener, sock: socket.socket) -> str:
    return listener.url if listener.port else listener_url(listener.host, sock.getsockname()[1])
