"""Several ranges over the wire: small files out of memory, large ones by sendfile, with a client that reads slowly."""

from __future__ import annotations

import email.message
import hashlib
import random
import socket

import pytest
from harness import Response, Server

SMALL = b"".join(b"%06d\n" % number for number in range(4000))  # 28 kB: held in memory
LARGE = random.Random(1).randbytes(8 * 1024 * 1024)  # over cache.file_size: sendfile


CONFIG = "threads: 1\nsites: [{root: www}]\n"


@pytest.fixture(scope="module")
def server(serve_module):
    found = serve_module({"www/small.txt": SMALL, "www/large.bin": LARGE, "www/empty.txt": ""}, config=CONFIG)
    keep_open(found)
    return found


def keep_open(server: Server) -> None:
    """The cache of the only loop keeps the large file's descriptor, which is no leak."""
    assert server.get("/large.bin", method="HEAD").status == 200
    server.remember_fds()


CONTENTS = {"/small.txt": SMALL, "/large.bin": LARGE}
both = pytest.mark.parametrize("path", CONTENTS)


def ask(server: Server, path: str, ranges: str, **fields: str) -> Response:
    return server.get(path, {"Range": ranges, **{name.replace("_", "-"): value for name, value in fields.items()}})


def parts_of(response: Response) -> list[tuple[str, str, bytes]]:
    """(Content-Range, Content-Type, bytes) of each part."""
    media = email.message.Message()
    media["Content-Type"] = response.header("content-type")
    assert media.get_content_type() == "multipart/byteranges"
    boundary = media.get_boundary()
    assert boundary is not None
    parts = []
    for raw in response.body.split(b"--" + boundary.encode())[1:-1]:
        head, _, content = raw.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().strip().split("\r\n"))
        assert content.endswith(b"\r\n")
        parts.append((fields["Content-Range"], fields["Content-Type"], content[:-2]))
    assert response.body.startswith(b"--" + boundary.encode() + b"\r\n")
    assert response.body.endswith(b"\r\n--" + boundary.encode() + b"--\r\n")
    return parts


def expected_parts(content: bytes, *ranges: tuple[int, int]) -> list[tuple[str, bytes]]:
    return [(f"bytes {first}-{last}/{len(content)}", content[first : last + 1]) for first, last in ranges]


@both
def test_several(server, path):
    content = CONTENTS[path]
    response = ask(server, path, "bytes=0-9,1000-1999,-7")
    assert response.status == 206
    assert response.header("content-length") == str(len(response.body))
    assert response.header("content-range") is None
    assert response.header("etag") == server.get(path, method="HEAD").header("etag")
    size = len(content)
    found = parts_of(response)
    assert [(place, data) for place, _, data in found] == expected_parts(
        content, (0, 9), (1000, 1999), (size - 7, size - 1)
    )
    kind = server.get(path, method="HEAD").header("content-type")
    assert {each for _, each, _ in found} == {kind}


@both
def test_order_is_the_clients(server, path):
    response = ask(server, path, "bytes=20000-20009,100-109,10000-10009")
    found = [(place, data) for place, _, data in parts_of(response)]
    assert found == expected_parts(CONTENTS[path], (20000, 20009), (100, 109), (10000, 10009))


@both
def test_partly_unsatisfiable(server, path):
    size = len(CONTENTS[path])
    response = ask(server, path, f"bytes=0-1,{size}-,5000-5001,-0")
    assert [(place, data) for place, _, data in parts_of(response)] == expected_parts(
        CONTENTS[path], (0, 1), (5000, 5001)
    )
    response = ask(server, path, f"bytes={size}-,5000-5001")  # one that is left is no multipart
    assert (response.status, response.header("content-range")) == (206, f"bytes 5000-5001/{size}")
    assert response.body == CONTENTS[path][5000:5002]
    response = ask(server, path, f"bytes={size}-,-0")
    assert (response.status, response.header("content-range")) == (416, f"bytes */{size}")


@both
def test_overlaps_are_merged(server, path):
    size = len(CONTENTS[path])
    response = ask(server, path, "bytes=" + ",".join(["0-"] * 64))
    assert (response.status, response.header("content-range")) == (206, f"bytes 0-{size - 1}/{size}")
    assert response.body == CONTENTS[path]
    response = ask(server, path, "bytes=100-199,150-249,260-299")
    assert response.header("content-range") == f"bytes 100-299/{size}"


@both
def test_too_many_are_ignored(server, path):
    content = CONTENTS[path]
    spread = [f"{place}-{place}" for place in range(0, 65 * 400, 400)]
    assert ask(server, path, "bytes=" + ",".join(spread[:64])).status == 206
    response = ask(server, path, "bytes=" + ",".join(spread))
    assert response.status == 200
    assert response.body == content


def test_whole_file_when_parts_are_longer(server):
    size = len(SMALL)
    response = ask(server, "/small.txt", f"bytes=0-{size // 2},{size // 2 + 100}-")
    assert (response.status, response.body) == (200, SMALL)


def test_bad_syntax_is_ignored(server):
    for bad in ("bytes=0-1,x", "bytes=3-2,5-6", "lines=0-1", "bytes=", "bytes=0-1;5-6"):
        response = ask(server, "/small.txt", bad)
        assert (response.status, response.body) == (200, SMALL), bad


def test_two_range_lines_are_ignored(server):
    request = "GET /small.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\nRange: bytes=5-6\r\nConnection: close\r\n\r\n"
    assert server.exchange(request).status == 200


def test_empty_file(server):
    assert ask(server, "/empty.txt", "bytes=0-,5-6").status == 416


@both
def test_head_ignores_ranges(server, path):
    response = server.get(path, {"Range": "bytes=0-1,5000-5001"}, "HEAD")
    assert response.status == 200
    assert response.header("content-length") == str(len(CONTENTS[path]))


@both
def test_if_range(server, path):
    whole = server.get(path, method="HEAD")
    date = whole.header("last-modified")
    assert date is not None
    assert ask(server, path, "bytes=0-1,5000-5001", If_Range='"another"').status == 200
    assert ask(server, path, "bytes=0-1,5000-5001", If_Range="Sun, 06 Nov 1994 08:49:37 GMT").status == 200
    etag = whole.header("etag")
    assert etag is not None
    strong = not etag.startswith("W/")
    assert ask(server, path, "bytes=0-1,5000-5001", If_Range=etag).status == (206 if strong else 200)
    assert ask(server, path, "bytes=0-1,5000-5001", If_Range=date).status == (206 if strong else 200)
    assert ask(server, path, "bytes=0-1,5000-5001", If_Range=f"W/{etag.removeprefix('W/')}").status == 200


def test_preconditions_go_before_ranges(server):
    etag = server.get("/small.txt", method="HEAD").header("etag")
    assert ask(server, "/small.txt", "bytes=0-1,900-901", If_None_Match=etag).status == 304
    assert ask(server, "/small.txt", "bytes=0-1,900-901", If_Match='"another"').status == 412
    assert ask(server, "/small.txt", "bytes=99999999-", If_Match='"another"').status == 412  # and not 416


def test_slow_client_and_keep_alive(server):
    """Megabytes in parts through a small buffer, so that every kind of piece is interrupted; the connection goes on."""
    ranges = [(place, place + 250_000) for place in range(0, 7_000_000, 500_000)]
    wanted = ",".join(f"{first}-{last}" for first, last in ranges)
    with server.connect() as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        connection.send(f"GET /large.bin HTTP/1.1\r\nHost: a\r\nRange: bytes={wanted}\r\n\r\n")
        response = connection.response()
        assert [(place, data) for place, _, data in parts_of(response)] == expected_parts(LARGE, *ranges)
        connection.send("GET /small.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,900-901\r\n\r\n")
        assert connection.response().status == 206
        connection.send("GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        assert hashlib.sha256(connection.response().body).digest() == hashlib.sha256(SMALL).digest()


def test_slow_client_from_memory(serve):
    """The same out of memory: more pieces than one write takes, and writes that end inside of them."""
    content = random.Random(2).randbytes(4 * 1024 * 1024)
    server = serve(
        {"www/held.bin": content}, config="cache: {file_size: 8MiB, memory: 64MiB}\nsites: [{root: www}]\nthreads: 1\n"
    )
    ranges = [(place, place + 60_000) for place in range(0, 4_000_000, 62_500)]
    wanted = ",".join(f"{first}-{last}" for first, last in ranges)
    with server.connect() as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        connection.send(f"GET /held.bin HTTP/1.1\r\nHost: a\r\nRange: bytes={wanted}\r\n\r\n")
        found = parts_of(connection.response())
        assert [(place, data) for place, _, data in found] == expected_parts(content, *ranges)
        connection.send("GET /held.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2\r\n\r\n")
        assert connection.response().body == content[1:3]


def test_client_leaves_in_the_middle(serve):
    server = serve({"www/large.bin": LARGE}, config=CONFIG)
    keep_open(server)
    for _ in range(5):
        with server.connect() as connection:
            connection.send("GET /large.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=0-3000000,4000000-\r\n\r\n")
            assert connection.file.read(20000)
    assert server.get("/large.bin", {"Range": "bytes=0-4"}).body == LARGE[:5]
