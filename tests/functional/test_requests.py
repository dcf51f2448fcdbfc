"""The request vectors against the real server: refused ones reach no handler, others arrive as they are meant."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from harness import Connection, Response, Server

from tests.request_vectors import LIMITS, Vector, vectors

#: One process and one thread: what it has noted when it answers is all that has reached it so far.
CONFIG = f"""
limits: {LIMITS}
pools: {{echo: {{python: "echo:application", processes: 1, threads: 1}}}}
sites: [{{rules: [{{match: {{path: /*}}, handler: {{python: echo}}}}]}}]
"""
APPLICATION = """
import json

def application(environ, start_response):
    seen = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["SCRIPT_NAME"] + environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "version": environ["SERVER_PROTOCOL"],
        "host": environ.get("HTTP_HOST"),
        "body": environ["wsgi.input"].read().decode("latin-1"),
    }
    with open("calls", "a") as calls:
        calls.write(seen["path"] + "\\n")
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]
"""


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server]) -> Server:
    return serve_module({"echo.py": APPLICATION}, config=CONFIG)


def send_bytewise(connection: Connection, data: bytes) -> None:
    """A byte in a packet; stops when the server has had enough."""
    try:
        for index in range(len(data)):
            connection.send(data[index : index + 1])
    except (BrokenPipeError, ConnectionResetError):
        pass


def send_whole(connection: Connection, data: bytes) -> None:
    connection.send(data)


def send_in_halves(connection: Connection, data: bytes) -> None:
    connection.send(data[: len(data) // 2])
    connection.send(data[len(data) // 2 :])


WAYS = pytest.mark.parametrize("send", [send_whole, send_in_halves, send_bytewise])


def calls_until(server: Server, marker: str) -> list[str]:
    """What has reached the handler, up to a request that comes after all the others."""
    assert server.get(marker).status == 200
    return (server.folder / "calls").read_text().splitlines()


@WAYS
@pytest.mark.parametrize("vector", vectors("invalid"), ids=lambda vector: vector.name)
def test_invalid(server: Server, vector: Vector, send: Callable[[Connection, bytes], None]) -> None:
    before = calls_until(server, "/before")
    with server.connect() as connection:
        send(connection, vector.data)
        response = connection.response()
        assert response.status == vector.status
        assert response.header("connection") == "close"
        assert connection.closed()
    assert calls_until(server, "/after") == [*before, "/after"]


def check_valid(vector: Vector, response: Response) -> None:
    assert response.status == vector.status
    assert (response.header("connection") or "keep-alive") == ("keep-alive" if vector.keep_alive else "close")
    if vector.status == 200 and vector.method != "HEAD":
        assert json.loads(response.body) == {
            "method": vector.method,
            "path": vector.path,
            "query": vector.query or "",
            "version": f"HTTP/{vector.version}",
            "host": vector.host,
            "body": vector.body,
        }


@WAYS
@pytest.mark.parametrize("vector", vectors("valid"), ids=lambda vector: vector.name)
def test_valid_pipelined_twice(server: Server, vector: Vector, send: Callable[[Connection, bytes], None]) -> None:
    with server.connect() as connection:
        send(connection, vector.data * 2)
        check_valid(vector, connection.response(vector.method))
        if vector.keep_alive:
            check_valid(vector, connection.response(vector.method))
            connection.send("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert json.loads(connection.response().body)["path"] == "/last"
        assert connection.closed()


@pytest.mark.parametrize("vector", vectors("invalid"), ids=lambda vector: vector.name)
def test_invalid_behind_a_valid_one(server: Server, vector: Vector) -> None:
    """The good one is answered, the bad one refused, and what stands behind it is not read as a request."""
    good = b"POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
    before = calls_until(server, "/before")
    unfinished = vector.name.endswith("-unfinished")
    with server.connect() as connection:
        connection.send(good + vector.data + (b"" if unfinished else good))
        assert json.loads(connection.response().body)["body"] == "hi"
        assert connection.response().status == vector.status
        assert connection.closed()
    assert calls_until(server, "/after") == [*before, "/good", "/after"]
