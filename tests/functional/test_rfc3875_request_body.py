"""RFC 3875 sections 4.2 and 4.3: request bodies and methods. Each test names its section."""

from __future__ import annotations

import contextlib
import hashlib
import os

import pytest
from harness import Connection, Server, wait_for
from programs import HEAD, programs

CONFIG = """
limits: {body_size: 40MB}
sites:
  - rules:
      - {match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}
      - {match: {path: /stream/*}, handler: {cgi: {directory: cgi-bin, stream_bodies: true}}}
      - {match: {path: /mixed/*}, handler: {cgi: {directory: cgi-bin, extensions: [.sh], stream_bodies: true}}}
"""

FILES: dict[str, str | bytes] = {
    "cgi-bin/sum.sh": HEAD + 'echo "$CONTENT_LENGTH $(md5sum)"\n',
    "cgi-bin/count.sh": HEAD + 'head -c "$CONTENT_LENGTH" | wc -c\n',
    "cgi-bin/eof.sh": HEAD + 'cat >/dev/null\necho "at the end"\n',
    "cgi-bin/ignore.sh": HEAD + "echo ignored\n",
    "cgi-bin/method.sh": HEAD + 'echo "$REQUEST_METHOD $(cat)"\n',
    "cgi-bin/seek.py": (
        "#!/usr/bin/python3\nimport os, sys\ndata = sys.stdin.buffer.read()\nos.lseek(0, 0, 0)\n"
        "print('Content-Type: text/plain\\n')\nprint(data == os.read(0, len(data)))\n"
    ),
    "cgi-bin/echo.py": (
        "#!/usr/bin/python3\nimport os, sys\nsys.stdout.write('Content-Type: text/plain\\n\\n')\n"
        "sys.stdout.write(os.environ.get('CONTENT_LENGTH', 'none') + '\\n')\nsys.stdout.flush()\n"
        "while data := os.read(0, 65536):\n    os.write(1, data)\n"
    ),
    "cgi-bin/local.sh": "#!/bin/sh\nprintf 'Location: /cgi-bin/method.sh\\n\\n'\n",
    "cgi-bin/stay.sh": "#!/bin/sh\ncat >/dev/null\nexec sleep 600\n",
    "cgi-bin/plain.txt": "text",
}


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    started: Server = serve_module(FILES, config=CONFIG)
    return started


def send_chunks(connection: Connection, target: str, body: bytes, size: int = 300_000) -> Connection:
    connection.send(f"POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    return connection.send("0\r\n\r\n")


# 4.2 Request Message-Body


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, (1 << 20) + 1, 20_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_4_2_whole_body(server: Server, size: int, chunked: bool) -> None:
    """Every byte, without transfer coding, and CONTENT_LENGTH says how many."""
    body = os.urandom(size)
    with server.connect() as connection:
        if chunked:
            send_chunks(connection, "/cgi-bin/sum.sh", body)
        else:
            connection.send(f"POST /cgi-bin/sum.sh HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n").send(body)
        length, digest = connection.response("POST").text.split()[:2]
    assert (length, digest) == (str(size), hashlib.md5(body).hexdigest())


def test_4_2_no_more_than_content_length(server: Server) -> None:
    """What a client has pipelined behind its body is not the program's."""
    with server.connect() as connection:
        request = "POST /cgi-bin/method.sh HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
        connection.send(request + "abc" + request + "def")
        assert [connection.response().text for _ in range(2)] == ["POST abc\n", "POST def\n"]


@pytest.mark.parametrize("size", [0, 10, 2_000_000])
def test_4_2_end_of_file_behind_the_body(server: Server, size: int) -> None:
    """A program need not read on, and may."""
    assert server.post("/cgi-bin/eof.sh", b"x" * size).text == "at the end\n"
    assert server.get("/cgi-bin/eof.sh").text == "at the end\n"
    assert server.post("/cgi-bin/count.sh", b"x" * size).text.strip() == str(size)


@pytest.mark.parametrize("size", [10, 100_000])
def test_4_2_a_program_may_seek(server: Server, size: int) -> None:
    assert server.post("/cgi-bin/seek.py", b"x" * size).text == "True\n"


def test_4_2_a_program_need_not_read(server: Server) -> None:
    assert server.post("/cgi-bin/ignore.sh", b"x" * 5_000_000).text == "ignored\n"
    with server.connect() as connection:
        connection.send(
            "POST /cgi-bin/ignore.sh HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.interim().status == 100
        assert connection.send("123456789").response().text == "ignored\n"


def test_4_2_too_large(server: Server) -> None:
    with server.connect() as connection:
        connection.send("POST /cgi-bin/sum.sh HTTP/1.1\r\nHost: x\r\nContent-Length: 40000001\r\n\r\n")
        assert connection.response().status == 413


# 4.2 with bodies that are not collected first


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("prefix", ["/stream", "/mixed"])
def test_4_2_streamed(server: Server, prefix: str, size: int, chunked: bool) -> None:
    """CONTENT_LENGTH is there when the client said it."""
    body = os.urandom(size)
    target = f"{prefix}/sum.sh"
    with server.connect() as connection:
        if chunked:
            send_chunks(connection, target, body)
            expected = ""
        else:
            connection.send(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n").send(body)
            expected = str(size)
        text = connection.response("POST").text
        assert text.split(" ")[0] == expected
        assert hashlib.md5(body).hexdigest() in text
        connection.send("GET /stream/ignore.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.response().text == "ignored\n"


def test_4_2_streamed_both_ways(server: Server) -> None:
    """The program has the first piece, and the client its answer, before there is a second one."""
    with server.connect() as connection:
        connection.send("POST /stream/echo.py HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert b"none\n" in connection.read_until(b"first"), "nobody knows the length yet"
        connection.send("6\r\nsecond\r\n0\r\n\r\n")
        assert b"second" in connection.read_until(b"0\r\n\r\n")


def test_4_2_streamed_to_a_program_that_does_not_read(server: Server) -> None:
    with server.connect() as connection:
        connection.send("POST /stream/ignore.sh HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send(b"x" * 30_000_000)
        assert connection.response().text == "ignored\n"


@pytest.mark.parametrize("size", [100_000, 30_000_000])
def test_4_2_streamed_and_redirected(server: Server, size: int) -> None:
    """What the first program has not read is not for the second one."""
    with server.connect() as connection:
        connection.send(f"POST /stream/local.sh HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send(b"x" * size)
        assert connection.response().text == "GET \n"


def test_4_2_streamed_and_broken_off(server: Server) -> None:
    """The program is ended, for it might take what it has for the whole."""
    with server.connect() as connection:
        connection.send("POST /stream/stay.sh HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nsome")
        wait_for(lambda: programs(server), "the program runs")
    wait_for(lambda: not programs(server), "the program has been ended")
    with server.connect() as connection:
        connection.send(
            "POST /stream/stay.sh HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\nxyz\r\n"
        )
        assert connection.response().status == 400
    wait_for(lambda: not programs(server), "the program has been ended")


def test_4_2_streamed_for_what_is_no_program(server: Server) -> None:
    with server.connect() as connection:
        connection.send("POST /mixed/plain.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n").send(
            b"x" * 100_000
        )
        assert connection.response().status == 405
    with server.connect() as connection:
        send_chunks(connection, "/stream/none.sh", b"x" * 100_000)
        assert connection.response().status == 404


# 4.3 Request Methods


def test_4_3_1_get(server: Server) -> None:
    assert server.get("/cgi-bin/method.sh").text == "GET \n"


def test_4_3_2_post(server: Server) -> None:
    assert server.post("/cgi-bin/method.sh", b"body").text == "POST body\n"


def test_4_3_3_head(server: Server) -> None:
    """The program is told, and what it writes for a body stays here."""
    with server.connect() as connection:
        connection.send("HEAD /cgi-bin/method.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        response = connection.response("HEAD")
        assert (response.status, response.header("content-type"), response.body) == (200, "text/plain", b"")
        connection.send("GET /cgi-bin/method.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.response().text == "GET \n"


def test_4_3_4_other_methods(server: Server) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"):
        assert server.get("/cgi-bin/method.sh", method=method, body=b"body").text == f"{method} body\n"
