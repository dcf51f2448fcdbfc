"""Containers under test: started through the Docker SDK, spoken to over a free port of 127.0.0.1, always removed."""

from __future__ import annotations

import gc
import http.client
import json
import secrets
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import requests
from docker.models.containers import Container as SdkContainer
from harness import Connection, Response, wait_for

TOP = Path(__file__).resolve().parents[2]
STOP_S = 30  #: grace of `docker stop`
SECOND_NS = 1_000_000_000
#: The image's own check, asked more often, so that a test need not wait.
QUICK_CHECK = {"interval": SECOND_NS // 5, "retries": 1, "start_period": SECOND_NS // 1000}


def find_engine() -> tuple[docker.DockerClient | None, str]:
    """The engine that answers, or why there is none."""
    with warnings.catch_warnings():
        # Where nothing listens the SDK leaves the socket open with which it has tried.
        warnings.simplefilter("ignore", ResourceWarning)
        found = _ask_engine()
        gc.collect()
    return found


def _ask_engine() -> tuple[docker.DockerClient | None, str]:
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        return None, str(error)
    try:
        client.ping()
    except (docker.errors.DockerException, requests.RequestException) as error:
        client.close()
        return None, str(error)
    return client, ""


def unique_name() -> str:
    """For images, containers and compose projects: several runs of the tests may share an engine."""
    return f"cherokee-app-test-{secrets.token_hex(4)}"


def mounts_of(folder: Path, *names: str) -> dict[str, dict[str, str]]:
    """`www`, `handlers`, `cgi-bin` and `config.yaml` of `folder`, mounted as a user of the image does."""
    places = {"config.yaml": "/etc/cherokee-app/config.yaml"}
    return {
        str(folder / name): {"bind": places.get(name, f"/srv/{name}"), "mode": "ro"}
        for name in names or (path.name for path in folder.iterdir())
    }


class Container:
    """A container of the image."""

    def __init__(self, inner: SdkContainer, port: int) -> None:
        self.inner = inner
        self._inner_port = port

    @property
    def port(self) -> int:
        """The published port on 127.0.0.1."""
        self.inner.reload()
        return int(self.inner.ports[f"{self._inner_port}/tcp"][0]["HostPort"])

    def wait_until_ready(self) -> Container:
        """The server is ready, or the test fails with the log."""
        wait_for(self._is_ready, "the container is ready")
        return self

    def _is_ready(self) -> bool:
        self.inner.reload()
        assert self.inner.status in ("created", "running"), self.log()
        try:
            return self.get("/readyz").status == 200
        except (OSError, http.client.HTTPException, KeyError, IndexError):
            # The engine's proxy takes connections before the server does.
            return False

    def get(self, target: str, method: str = "GET", body: bytes = b"", **fields: str) -> Response:
        """One request on a connection of its own."""
        with self.connect() as connection:
            return send(connection, target, method, body, **fields).response(method)

    def connect(self) -> Connection:
        return Connection(self.port)

    def log(self, *, out: bool = True, err: bool = True) -> str:
        """stdout and stderr so far."""
        return str(self.inner.logs(stdout=out, stderr=err).decode())

    def wait_for_log(self, text: str) -> None:
        wait_for(lambda: text in self.log(), f"{text!r} in the log")

    def records(self) -> list[dict[str, Any]]:
        """What the server says on stderr, which is one JSON object a line."""
        return [json.loads(line) for line in self.log(out=False).splitlines()]

    def run(self, *words: str, status: int = 0) -> str:
        """`docker exec`: its output, once it has ended with this status."""
        result = self.inner.exec_run(list(words))
        text: str = result.output.decode()
        assert result.exit_code == status, text
        return text

    def wait_for_health(self, wanted: str) -> None:
        def has() -> bool:
            self.inner.reload()
            return bool(self.inner.attrs["State"]["Health"]["Status"] == wanted)

        wait_for(has, f"health is {wanted}")

    def wait(self) -> int:
        """The exit status, once it has ended."""
        return int(self.inner.wait(timeout=STOP_S * 2)["StatusCode"])

    def stop(self) -> int:
        """As `docker stop` does; the exit status (137 when the grace time was not enough)."""
        self.inner.stop(timeout=STOP_S)
        return self.wait()


def send(connection: Connection, target: str, method: str = "GET", body: bytes = b"", **fields: str) -> Connection:
    """A request whose answer may be read later."""
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return connection.send(head.encode() + b"\r\n" + body)


Run = Callable[..., Container]
