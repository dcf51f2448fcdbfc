"""What is too large, too many or too slow: the right status, and the connection closes."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Connection, Server, serving, wait_for, write_tree

ECHO = "def handle(request):\n    return str(len(request.body))\n"
CONFIG = """
limits:
  header_size: 4KiB
  target_size: 1KiB
  body_size: 64KiB
  keep_alive_requests: 5
"""
#: Whoever is tested for being slow has a server of its own: with times so short anybody may be late.
IMPATIENT = """
limits: {header_timeout: 1s, body_timeout: 1s, idle_timeout: 1s, send_timeout: 1s}
log: {access: json}
"""
FILES: dict[str, str | bytes] = {"www/index.html": "index", "handlers/echo.py": ECHO}


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    started: Server = serve_module(FILES, config=CONFIG)
    return started


def refused(server: Server, data: bytes | str, status: int) -> None:
    with server.connect() as connection:
        assert connection.send(data).response().status == status
        assert connection.closed()


# Too large, too many


def test_long_target(server: Server) -> None:
    refused(server, f"GET /{'a' * 2000} HTTP/1.1\r\nHost: x\r\n\r\n", 414)


def test_target_without_end(server: Server) -> None:
    refused(server, f"GET /{'a' * 3000}", 414)


def test_large_head(server: Server) -> None:
    refused(server, f"GET / HTTP/1.1\r\nHost: x\r\nX: {'a' * 5000}\r\n\r\n", 431)
    refused(server, "GET / HTTP/1.1\r\nHost: x\r\n" + "X-Field: 1\r\n" * 400, 431)


def test_many_fields(server: Server) -> None:
    refused(server, "GET / HTTP/1.1\r\nHost: x\r\n" + "a: 1\r\n" * 100 + "\r\n", 431)
    assert (
        server.exchange("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + "a: 1\r\n" * 98 + "\r\n").status == 200
    )


def test_large_body(server: Server) -> None:
    refused(server, f"POST /echo/ HTTP/1.1\r\nHost: x\r\nContent-Length: {(64 << 10) + 1}\r\n\r\n", 413)
    assert server.post("/echo/", b"x" * (64 << 10)).text == str(64 << 10)


def test_large_chunked_body(server: Server) -> None:
    head = "POST /echo/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    refused(server, head + f"{70000:x}\r\n{'x' * 70000}\r\n0\r\n\r\n", 413)


def test_endless_chunk_line(server: Server) -> None:
    refused(server, f"POST /echo/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;{'a' * 1000}", 400)


def test_too_many_trailers(server: Server) -> None:
    head = "POST /echo/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with server.connect() as connection:
        status = connection.send(head + "X-T: 1\r\n" * 2000 + "\r\n").response("POST").status
        assert status in (400, 431)
        assert connection.closed()


def test_requests_of_one_connection(server: Server) -> None:
    with server.connect() as connection:
        for number in range(5):
            response = connection.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").response()
            assert (response.header("connection") == "close") == (number == 4)
        assert connection.closed()


# Too slow


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = write_tree(tmp_path_factory.mktemp("impatient"), FILES)
    (folder / "config.yaml").write_text(IMPATIENT)
    with serving(folder, "--config", str(folder / "config.yaml"), "--listen", "127.0.0.1:0") as started:
        yield started


def test_slow_head(impatient: Server) -> None:
    refused(impatient, "GET / HTTP/1.1\r\nHost:", 408)


def test_dripping_head(impatient: Server) -> None:
    """Each byte comes in time; the whole head does not."""
    with impatient.connect() as connection:
        connection.send("GET / HTTP/1.1\r\nX: ")
        connection.socket.settimeout(0.1)

        def answer() -> bytes:
            with contextlib.suppress(TimeoutError):
                connection.send("a")
                return connection.socket.recv(100)
            return b""

        assert wait_for(answer, "an answer to the drip").startswith(b"HTTP/1.1 408 ")


def test_slow_body(impatient: Server) -> None:
    refused(impatient, "POST /echo/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", 408)
    refused(impatient, "POST /echo/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 408)


def test_idle_connection_is_closed_in_silence(impatient: Server) -> None:
    with impatient.connect() as connection:
        assert connection.closed()
    with impatient.connect() as connection:
        assert connection.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").response().status == 200
        assert connection.closed()


def test_slow_requests_are_logged(impatient: Server) -> None:
    refused(impatient, "GET /slow-and-logged HTTP/1.1\r\nHost:", 408)
    impatient.wait_for_log(r'"status": ?408')


# Slow readers


def memory_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("no RssAnon")


def test_slow_readers_cost_no_memory(serve, tmp_path: Path) -> None:
    """A large file and a large stream, each to clients that do not read: the core holds neither of them."""
    stream = "def handle(request):\n    for _ in range(2000):\n        yield b'x' * 65536\n"
    config = "limits: {send_timeout: 60s}\npools: {handlers: {threads: 16}}\n"
    server = serve({"www/large.bin": b"", "handlers/stream.py": stream}, config=config)
    with (tmp_path / "www/large.bin").open("wb") as file:
        file.truncate(1 << 30)
    core = server.one_pid("core_main")
    server.get("/large.bin", {"Range": "bytes=0-9"})
    before = memory_kib(core)
    connections: list[Connection] = []
    try:
        for number in range(40):
            connection = server.connect()
            target = "/stream/" if number % 2 else "/large.bin"
            connections.append(connection.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
            assert connection.file.readline().startswith(b"HTTP/1.1 200")
        wait_for(lambda: server.get("/livez").status == 200, "it still answers")
        assert memory_kib(core) - before < 40 * 256
    finally:
        for connection in connections:
            connection.close()


def test_reader_that_takes_nothing_is_cut_off(impatient: Server) -> None:
    with (impatient.folder / "www/sparse.bin").open("wb") as file:
        file.truncate(1 << 28)
    with impatient.connect() as connection:
        connection.send("GET /sparse.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        impatient.wait_for_log(r"sparse\.bin")
        read = 0
        try:
            while piece := connection.socket.recv(1 << 20):
                read += len(piece)
        except ConnectionResetError:
            pass
        assert read < 1 << 28


# Connections


def test_connections_over_the_limit_get_503(serve) -> None:
    server = serve({"www/index.html": "index"}, "--threads", "1", config="limits: {connections: 5}\n")
    held = [server.connect() for _ in range(5)]
    try:
        for connection in held:
            assert connection.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").response().status == 200
        with server.connect() as connection:
            response = connection.response()
            assert (response.status, response.header("retry-after")) == (503, "1")
            assert connection.closed()
        assert held[0].send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").response().status == 200
        held.pop().close()
        wait_for(lambda: server.get("/").status == 200, "there is room again")
    finally:
        for connection in held:
            connection.close()


def test_no_descriptors_left(serve) -> None:
    """Accepting pauses, those that are in go on, and it comes back."""
    server = serve({"www/index.html": "index"}, "--threads", "1")
    core = server.one_pid("core_main")
    assert server.get("/").status == 200
    used = len(list(Path(f"/proc/{core}/fd").iterdir()))
    _, hard = resource.prlimit(core, resource.RLIMIT_NOFILE)
    resource.prlimit(core, resource.RLIMIT_NOFILE, (used + 5, hard))
    get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    connections = [server.connect() for _ in range(20)]
    try:
        assert connections[0].send(get).response().status == 200
        server.wait_for_log("no file descriptors left: accepting pauses")
        assert connections[0].send(get).response().status == 200
    finally:
        resource.prlimit(core, resource.RLIMIT_NOFILE, (hard, hard))
        for connection in connections:
            connection.close()
    assert server.get("/").status == 200
