"""Trailer sections of chunked requests: read, limited and dropped (RFC 9112 section 7.1.2)."""

from __future__ import annotations

import pytest
from harness import Server

HEAD = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
LIMIT = 8192  # AS_MAX_TRAILERS


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    return serve_module({"handlers/echo.py": "def handle(request):\n    return request.body\n", "www/a.txt": "a"})


def chunked(trailers: str, body: str = "5\r\nhello\r\n0\r\n") -> str:
    return f"{HEAD}\r\n{body}{trailers}\r\n"


def test_they_are_dropped_and_the_connection_goes_on(server):
    with server.connect() as connection:
        for trailers in ("", "X-Late: 1\r\n", "X-Late: 1\r\nContent-Length: 99\r\nHost: b\r\nTransfer-Encoding: x\r\n"):
            connection.send(chunked(trailers))
            response = connection.response()
            assert (response.status, response.body) == (200, b"hello"), trailers
        connection.send("GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.response().text == "a"


def test_they_are_limited(server):
    line = f"X: {'y' * 95}\r\n"
    assert server.exchange(chunked(line * (LIMIT // len(line) - 1))).status == 200
    assert server.exchange(chunked(line * (LIMIT // len(line) + 1))).status == 431
    assert server.exchange(chunked("X: " + "y" * LIMIT + "\r\n")).status == 431
    assert server.get("/a.txt").status == 200


def test_a_section_that_never_ends_is_not_waited_for(server):
    """Refused as soon as it is too long: no end is sent."""
    with server.connect() as connection:
        connection.send(f"{HEAD}\r\n0\r\n" + "X: y\r\n" * (LIMIT // 6 + 2))
        assert connection.response().status == 431


BAD = (
    "no colon\r\n",
    ": x\r\n",
    "X : y\r\n",
    " X: y\r\n",
    "\tx\r\n",
    "X(: y\r\n",
    "X: a\x01b\r\n",
    "X: a\rb\r\n",
    "X: y\n",
)


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_syntax_is_checked(server, bad):
    assert server.exchange(chunked(bad)).status == 400
