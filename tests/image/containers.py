"""A container under test: started through the SDK, asked over its published port, taken away with its volumes."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

TOP = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


def wait_for(condition: Callable[[], Any], what: Callable[[], str]) -> Any:
    """The first true value of `condition`; fails with `what()` when there is none in time."""
    end = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {PATIENCE_S:g} s in vain for {what()}"
        time.sleep(0.05)
    return value


def ask(port: int, target: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
    """Status and text of one request to 127.0.0.1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Running:
    """One container."""

    container: Container
    inside: int  #: the port that the server listens on

    @property
    def port(self) -> int:
        """Where 127.0.0.1 reaches it."""
        self.container.reload()
        return int(self.container.ports[f"{self.inside}/tcp"][0]["HostPort"])

    def ask(self, target: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
        return ask(self.port, target, method, body)

    def log(self, **options: Any) -> str:
        text: bytes = self.container.logs(**options)
        return text.decode()

    def status(self) -> str:
        self.container.reload()
        text: str = self.container.status
        return text

    def health(self) -> str:
        self.container.reload()
        text: str = self.container.attrs["State"]["Health"]["Status"]
        return text

    def wait_until_serving(self) -> None:
        wait_for(
            lambda: " listening on " in self.log() or self.status() == "exited", lambda: f"it serves:\n{self.log()}"
        )
        assert self.status() == "running", self.log()

    def wait_for_exit(self) -> int:
        """Its exit status."""
        status: int = self.container.wait(timeout=PATIENCE_S)["StatusCode"]
        return status

    def inside_run(self, *command: str, **options: Any) -> tuple[int, str]:
        """Exit status and output of a command in the container."""
        code, output = self.container.exec_run(list(command), **options)
        return code, output.decode()

    def pids(self, word: str) -> list[int]:
        """Numbers, inside the container, of the processes whose command line has `word`."""
        script = (
            "import pathlib,sys\n"
            "for p in pathlib.Path('/proc').glob('[0-9]*'):\n"
            "    try: line = (p/'cmdline').read_bytes().decode().replace(chr(0), ' ')\n"
            "    except OSError: continue\n"
            "    if sys.argv[1] in line and 'pathlib' not in line: print(p.name)\n"
        )
        code, output = self.inside_run("python3", "-c", script, word)
        assert code == 0, output
        return [int(line) for line in output.split()]

    def zombies(self) -> str:
        script = (
            "import pathlib\n"
            "for p in pathlib.Path('/proc').glob('[0-9]*'):\n"
            "    try: text = (p/'stat').read_text()\n"
            "    except OSError: continue\n"
            "    if text.rpartition(')')[2].split()[0] == 'Z': print(text)\n"
        )
        return self.inside_run("python3", "-c", script)[1]

    def remove(self) -> None:
        self.container.remove(force=True, v=True)


def start(
    engine: docker.DockerClient, image: str, command: Sequence[str], port: int, options: dict[str, Any]
) -> Running:
    """Starts it; it may end at once."""
    options.setdefault("ports", {f"{port}/tcp": ("127.0.0.1", None)})
    return Running(engine.containers.run(image, list(command) or None, detach=True, **options), port)


Run = Callable[..., Running]  #: the fixture `run`
