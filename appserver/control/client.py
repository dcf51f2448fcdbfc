"""The command's end of the control socket: finds a running server and asks it.

A request is one line of JSON with a `command`; the answer is any number of lines with notes and then one with `ok`.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appserver.control import places
from appserver.errors import AppError

CONNECT_TIMEOUT_S = 5.0
#: For an answer that is only looked up. What takes its time (a reload) has no limit here: the server has some.
HELLO_TIMEOUT_S = 5.0
ANSWER_MAX = 64 * 1024 * 1024
Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A server that has answered."""

    path: Path
    pid: int
    configuration: str

    def __str__(self) -> str:
        return f"process {self.pid}, {self.configuration}"


class Refusal(AppError):  # noqa: N818
    """The server has said no. `answer` is all that it said."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(str(answer.get("error") or "the server refused without a reason"))


def find(
    path: str | None = None, pid: int | None = None, configuration: str | None = None, among: Iterable[Path] = ()
) -> Found:
    """The one server that is meant: by the path of its socket, its process or its configuration; with none of these the
    only one that runs. Raises AppError when there is none, or several.
    """
    if path is not None:
        return _hello(Path(path))
    found: dict[int, Found] = {}
    for each in among or places.sockets(places.all_folders(os.geteuid())):
        try:
            server = _hello(each)
        except AppError:
            continue  # of a server that has gone, or of somebody else
        if pid in (None, server.pid) and configuration in (None, server.configuration):
            found[server.pid] = server
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        these = "; ".join(str(server) for server in found.values())
        raise AppError(f"several servers run ({these}); say which one with --pid")
    meant = "no server"
    if pid is not None:
        meant = f"no server with process id {pid}"
    elif configuration is not None:
        meant = f"no server of {configuration}"
    raise AppError(
        f"{meant} was found that this user (uid {os.geteuid()}) may control; expected one that runs, of the same user"
    )


def ask(
    server: Path,
    command: str,
    note: Callable[[Answer], None] | None = None,
    timeout_s: float | None = None,
    **fields: Any,
) -> Answer:
    """The server's answer; `note` gets the lines before it. Raises Refusal, and AppError when there is no answer."""
    with _connect(server) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.sendall(json.dumps({"command": command, **fields}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                while line := lines.readline(ANSWER_MAX):
                    answer = json.loads(line)
                    if not isinstance(answer, dict):
                        raise ValueError("not an object")
                    if answer.get("ok") is True:
                        return answer
                    if answer.get("ok") is False:
                        raise Refusal(answer)
                    if note is not None:
                        note(answer)
        except TimeoutError:
            raise AppError(f"{server}: the server did not answer within {timeout_s:g} s") from None
        except (OSError, ValueError) as error:
            raise AppError(f"{server}: the server's answer cannot be read: {error}") from None
    raise AppError(f"{server}: the server ended before it answered; its log says more")


def _hello(path: Path) -> Found:
    answer = ask(path, "hello", timeout_s=HELLO_TIMEOUT_S)
    return Found(path, int(answer.get("pid") or 0), str(answer.get("configuration") or ""))


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_TIMEOUT_S)
        connection.connect(str(path))
        owner = peer_uid(connection)
    except OSError as error:
        connection.close()
        raise AppError(f"{path}: {error.strerror or error}; expected the control socket of a running server") from None
    if os.geteuid() != 0 and owner not in (0, os.geteuid()):
        connection.close()
        raise AppError(f"{path}: belongs to uid {owner}; expected a server of this user (uid {os.geteuid()}) or root")
    return connection


def peer_uid(connection: socket.socket) -> int:
    """Who is at the other end of a Unix socket. Raises OSError."""
    credentials = struct.Struct("3i")
    _, uid, _ = credentials.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))
    return int(uid)
