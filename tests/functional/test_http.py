"""HTTP/1.0 and 1.1 on the wire: connections, order, methods, bodies (RFC 9110, RFC 9112)."""

from __future__ import annotations

import socket
from email.utils import parsedate_to_datetime

import pytest
from harness import Connection, Server

ECHO = """
def handle(request):
    body = request.body
    return {"method": request.method, "path": request.path_info, "length": len(body), "body": body[:99].decode()}
"""
CGI = '#!/bin/sh\necho Content-Type: text/plain\necho\necho "$REQUEST_METHOD $QUERY_STRING"\n'
FILES = {"www/index.html": "<p>index", "www/a.txt": "alpha", "handlers/echo.py": ECHO, "cgi-bin/say.sh": CGI}


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    started: Server = serve_module(FILES)
    return started


def get(target: str, *fields: str, version: str = "1.1", host: str = "Host: x") -> str:
    return "\r\n".join((f"GET {target} HTTP/{version}", *([host] if host else []), *fields, "", ""))


# Connections


def test_keep_alive_is_the_default_of_1_1(server: Server) -> None:
    with server.connect() as connection:
        for _ in range(3):
            assert connection.send(get("/a.txt")).response().body == b"alpha"
        response = connection.send(get("/a.txt", "Connection: close")).response()
        assert response.header("connection") == "close"
        assert connection.closed()


@pytest.mark.parametrize("fields", [("Connection: foo, Close",), ("Connection: foo", "Connection: close")])
def test_close_among_other_options(server: Server, fields: tuple[str, ...]) -> None:
    with server.connect() as connection:
        assert connection.send(get("/a.txt", *fields)).response().status == 200
        assert connection.closed()


def test_1_0_closes_unless_asked(server: Server) -> None:
    with server.connect() as connection:
        response = connection.send(get("/a.txt", version="1.0", host="")).response()
        assert (response.status, response.header("connection")) == (200, "close")
        assert connection.closed()
    with server.connect() as connection:
        for _ in range(2):
            response = connection.send(get("/a.txt", "Connection: Keep-Alive", version="1.0")).response()
            assert response.header("connection") == "keep-alive"


def test_1_0_gets_no_chunks(server: Server) -> None:
    with server.connect() as connection:
        response = connection.send(get("/cgi-bin/say.sh?q", version="1.0")).response()
        assert response.header("transfer-encoding") is None
        assert response.body == b"GET q\n"
        assert connection.closed()


def test_pipelined_answers_are_in_order(server: Server) -> None:
    targets = ["/cgi-bin/say.sh?1", "/a.txt", "/echo/2", "/nothing", "/", "/cgi-bin/say.sh?3", "/a.txt"] * 3
    with server.connect() as connection:
        connection.send("".join(get(target) for target in targets))
        for target in targets:
            response = connection.response()
            expected = {
                "/a.txt": b"alpha",
                "/": b"<p>index",
                "/cgi-bin/say.sh?1": b"GET 1\n",
                "/cgi-bin/say.sh?3": b"GET 3\n",
            }
            if target == "/nothing":
                assert response.status == 404
            elif target == "/echo/2":
                assert b'"path": "/2"' in response.body
            else:
                assert response.body == expected[target]


def test_pipelined_bodies(server: Server) -> None:
    post = "POST /echo/ HTTP/1.1\r\nHost: x\r\n"
    with server.connect() as connection:
        connection.send(
            f"{post}Content-Length: 5\r\n\r\nhello{post}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        connection.send(get("/a.txt"))
        assert b'"body": "hello"' in connection.response().body
        assert b'"body": "abc"' in connection.response().body
        assert connection.response().body == b"alpha"


def test_a_body_that_nobody_wants_is_dropped(server: Server) -> None:
    """The file handler takes no body; the next request on the connection must not be read out of it."""
    with server.connect() as connection:
        connection.send(
            "POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nGET /index.html HTTP/1.1\r\n\r\n.."
            + get("/a.txt")
        )
        assert connection.response().status == 405
        assert connection.response().body == b"alpha"


def test_half_closed_client_gets_its_answer(server: Server) -> None:
    with server.connect() as connection:
        connection.send(get("/cgi-bin/say.sh?half", "Connection: close"))
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.response().body == b"GET half\n"
        assert connection.closed()


def test_request_in_single_bytes(server: Server) -> None:
    with server.connect() as connection:
        for byte in get("/a.txt").encode():
            connection.send(bytes([byte]))
        assert connection.response().body == b"alpha"


def test_early_error_reaches_a_client_that_still_sends(serve) -> None:
    """The answer must not be lost to the reset that closing on unread bytes causes (RFC 9112 section 9.6)."""
    server = serve({"handlers/echo.py": ECHO}, config="limits: {body_size: 1KiB}\n")
    for _ in range(20):
        with server.connect() as connection:
            connection.send(f"POST /echo/ HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 17}\r\n\r\n")
            connection.send(b"x" * (1 << 17))
            assert connection.response("POST").status == 413
            assert connection.closed()


# Methods


def test_head_has_no_body(server: Server) -> None:
    with server.connect() as connection:
        for target, length in (("/a.txt", "5"), ("/echo/", None), ("/cgi-bin/say.sh?x", None), ("/nothing", None)):
            response = connection.send(get(target).replace("GET", "HEAD")).response("HEAD")
            assert response.status == (404 if target == "/nothing" else 200)
            assert length is None or response.header("content-length") == length
        assert connection.send(get("/a.txt")).response().body == b"alpha"


@pytest.mark.parametrize("target", ["*", "/a.txt"])
def test_options(server: Server, target: str) -> None:
    response = server.get(target, method="OPTIONS")
    assert response.status in (200, 204)
    assert response.body == b""
    allow = response.header("allow")
    assert allow is not None
    assert "GET" in allow


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_405_says_what_is_allowed(server: Server, method: str) -> None:
    response = server.get("/a.txt", method=method)
    assert response.status == 405
    assert response.header("allow") == "GET, HEAD, OPTIONS"


def test_trace_is_refused(server: Server) -> None:
    for target in ("/a.txt", "/echo/", "/cgi-bin/say.sh"):
        response = server.get(target, {"Cookie": "secret=1"}, method="TRACE")
        assert response.status in (405, 501)
        assert b"secret" not in response.body


def test_connect_is_refused(server: Server) -> None:
    assert server.exchange("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n").status in (
        400,
        405,
        501,
    )


def test_a_handler_decides_about_other_methods(server: Server) -> None:
    assert '"method": "PROPFIND"' in server.get("/echo/", method="PROPFIND").text


# Targets and hosts


def test_absolute_form(server: Server) -> None:
    assert (
        server.exchange("GET http://other.example/a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").text
        == "alpha"
    )
    assert (
        server.exchange("GET http://other.example HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").text == "<p>index"
    )


@pytest.mark.parametrize(
    "host", ["", "Host: a b", "Host: x\r\nHost: x", "Host: a@b", "Host: [::1", "Host: x:y", "Host:"]
)
def test_bad_host(server: Server, host: str) -> None:
    with server.connect() as connection:
        assert connection.send(get("/a.txt", host=host)).response().status == 400
        assert connection.closed()


@pytest.mark.parametrize("host", ["x", "x:80", "[::1]:8080", "EXAMPLE.org.", "127.0.0.1"])
def test_good_host(server: Server, host: str) -> None:
    assert server.exchange(get("/a.txt", "Connection: close", host=f"Host: {host}")).status == 200


@pytest.mark.parametrize(("version", "status"), [("2.0", 505), ("0.9", 505), ("3.1", 505), ("1", 400), ("1.1x", 400)])
def test_versions(server: Server, version: str, status: int) -> None:
    assert server.exchange(get("/a.txt", version=version)).status == status


def test_higher_minor_versions_are_1_1(server: Server) -> None:
    assert server.exchange(get("/a.txt", "Connection: close", version="1.7")).status == 200


# Bodies


@pytest.mark.parametrize("sizes", [[1], [10, 70_000, 3], [1] * 500, [65536, 1], [1 << 20, 7]])
def test_chunked_body(server: Server, sizes: list[int]) -> None:
    with server.connect() as connection:
        connection.send("POST /echo/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
        for size in sizes:
            connection.send(f"{size:x};name=value\r\n".encode() + b"z" * size + b"\r\n")
        connection.send("0\r\nX-Sum: 1\r\n\r\n")
        assert f'"length": {sum(sizes)},' in connection.response("POST").text
        assert connection.send(get("/a.txt")).response().body == b"alpha"


def test_continue_only_when_the_body_is_wanted(server: Server) -> None:
    head = "HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    with server.connect() as connection:
        assert connection.send(f"POST /echo/ {head}").interim().status == 100
        assert '"length": 4' in connection.send("body").response("POST").text
    with server.connect() as connection:
        assert connection.send(f"POST /a.txt {head}").interim().status == 405
    with server.connect() as connection:
        assert '"length": 4' in connection.send(f"POST /echo/ {head}body").response("POST").text


def test_other_expectations_are_refused(server: Server) -> None:
    assert server.get("/echo/", {"Expect": "200-maybe"}, "POST", b"x").status == 417


# Every answer


def test_date_and_server(server: Server) -> None:
    for target in ("/a.txt", "/echo/", "/cgi-bin/say.sh", "/nothing"):
        response = server.get(target)
        assert len(response.all("date")) == 1
        assert parsedate_to_datetime(response.header("date") or "").tzinfo is not None
        assert len(response.all("server")) == 1


def test_many_connections_at_once(server: Server) -> None:
    connections: list[Connection] = [server.connect() for _ in range(200)]
    try:
        for connection in connections:
            connection.send(get("/a.txt"))
        for connection in connections:
            assert connection.response().body == b"alpha"
    finally:
        for connection in connections:
            connection.close()
