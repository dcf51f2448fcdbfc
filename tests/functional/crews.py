"""What tests of worker processes share: clients that ask without end, and commands to the running server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from typing import Any

from harness import PATIENCE_S, Connection, Server, server_environment, wait_for


class Clients:
    """Threads that ask for one path again and again, on connections that are kept, until they are told to stop."""

    def __init__(self, server: Server, target: str, count: int = 4) -> None:
        self._request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self._port = server.port
        self._stop = threading.Event()
        self.bodies: list[bytes] = []
        self.faults: list[str] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        wait_for(lambda: len(self.bodies) > 10 or self.faults, "the clients are at work")
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _run(self) -> None:
        try:
            with Connection(self._port) as connection:
                while not self._stop.is_set():
                    response = connection.send(self._request).response()
                    if response.status != 200:
                        self.faults.append(f"{response.status} {response.text[:200]}")
                    self.bodies.append(response.body)
        except Exception as error:
            self.faults.append(repr(error))


def command(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`cherokee-app ARGUMENTS` for this server, which has a configuration."""
    return subprocess.run(
        [sys.executable, "-m", "appserver", *arguments, "--config", str(server.folder / "config.yaml")],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=server_environment(),
        check=False,
    )


def ask(server: Server, **request: Any) -> dict[str, Any]:
    """The last line of the answer at the socket `control.sock` of the server's folder."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(server.folder / "control.sock"))
        sock.sendall(json.dumps(request).encode() + b"\n")
        with sock.makefile("rb") as lines:
            answer = json.loads(lines.readlines()[-1])
            assert isinstance(answer, dict)
            return answer


def pool(server: Server, name: str) -> dict[str, Any]:
    """What the server says of one pool."""
    return next(each for each in ask(server, command="status")["pools"] if each["name"] == name)


def workers(server: Server, name: str, *states: str) -> list[dict[str, Any]]:
    """Those of its executors that are in one of these states (none: in any)."""
    return [each for each in pool(server, name)["executors"] if not states or each["state"] in states]
