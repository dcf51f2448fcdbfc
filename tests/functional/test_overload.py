"""The quality of the answer under overload: limits of connections, slow clients, and memory that stays bounded."""

from __future__ import annotations

import json
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import PATIENCE_S, SANITIZE, Connection, Server, wait_for, watches

GET = "GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n"
FILES: dict[str, str | bytes] = {"www/a.txt": "hello\n", "handlers/echo.py": "def handle(request):\n    return 'ok'\n"}
#: User memory of a connection that is idle, and of one that holds an exchange: input (header_size), arena, record.
IDLE_BYTES = 500
BUSY_BYTES = 32 * 1024


def config(limits: str, more: str = "") -> str:
    return f"threads: 1\nlimits: {{{limits}}}\nlog: {{access: json}}\n{more}"


@contextmanager
def connected(server: Server, count: int) -> Iterator[list[Connection]]:
    """So many connections that have been answered once and are kept alive."""
    connections: list[Connection] = []
    try:
        for _ in range(count):
            connections.append(server.connect())
            assert connections[-1].send(GET).response().status == 200
        yield connections
    finally:
        for connection in connections:
            connection.close()


# Limits of connections


def test_over_the_limit_is_refused_at_once(serve) -> None:
    server = serve(FILES, config=config("connections: 3"))
    with connected(server, 3) as connections:
        for _ in range(3):
            with server.connect() as connection:
                response = connection.response()
                assert (response.status, response.header("retry-after")) == (503, "1")
                assert connection.closed()
        assert connections[0].send(GET).response().status == 200
        connections[0].close()
        wait_for(lambda: server.get("/a.txt").status == 200, "there is room again")


def test_over_the_limit_they_wait(serve) -> None:
    """Nobody is refused: each is answered when another closes, in the order of the backlog."""
    server = serve(FILES, config=config("connections: 2, over_limit: wait"))
    with connected(server, 2) as held:
        waiting = [server.connect().send(GET) for _ in range(4)]
        for connection in waiting:
            connection.socket.setblocking(False)
        # What is not watched wakes nobody: the core does not spin over the backlog. Those inside are served.
        wait_for(lambda: not watches(server), "the listening socket is left alone")
        assert held[0].send(GET).response().status == 200
        with pytest.raises(BlockingIOError):
            waiting[0].socket.recv(1)
        for connection in waiting:
            connection.socket.settimeout(PATIENCE_S)
        for leaving, arriving in zip(held + waiting[:2], waiting, strict=True):
            leaving.close()
            assert arriving.response().text == "hello\n"
        for connection in waiting:
            connection.close()
    wait_for(lambda: len(watches(server)) == 1, "the listening socket is watched again")


@pytest.mark.parametrize("accept", ["coordinator", "independent", "self-managed", "reuseport"])
def test_many_wait_for_few_places(serve, accept: str) -> None:
    text = config("connections: 3, over_limit: wait", f"accept: {accept}\n").replace("threads: 1", "threads: 2")
    server = serve(FILES, config=text)
    connections = [
        server.connect().send("GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") for _ in range(100)
    ]
    for connection in connections:
        assert connection.response().text == "hello\n"
        assert connection.closed()
        connection.close()


def test_a_client_has_its_own_limit(serve) -> None:
    server = serve(FILES, "--listen", "0.0.0.0:0", config=config("connections_per_client: 2"))
    with connected(server, 2) as held:
        with server.connect() as connection:
            assert connection.response().status == 503
        # Another address of this machine is another client.
        other = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S, source_address=("127.0.0.2", 0))
        with other, other.makefile("rb") as file:
            other.sendall(GET.encode())
            assert file.readline() == b"HTTP/1.1 200 OK\r\n"
        held[0].close()
        wait_for(lambda: server.get("/a.txt").status == 200, "the client has a connection less")


def test_a_client_is_counted_over_all_loops(serve) -> None:
    text = config("connections_per_client: 3", "accept: coordinator\n").replace("threads: 1", "threads: 4")
    server = serve(FILES, config=text)
    with connected(server, 3), server.connect() as connection:
        assert connection.response().status == 503


def test_without_descriptors_accepting_pauses(serve) -> None:
    """Those that are in are served, the log says why once, and the others come in when there are descriptors."""
    server = serve(FILES, config=config("connections: 1000"))
    core = server.one_pid("core_main")
    with connected(server, 1) as held:
        used = max(int(entry.name) for entry in Path(f"/proc/{core}/fd").iterdir()) + 1
        resource.prlimit(core, resource.RLIMIT_NOFILE, (used, used + 1000))
        waiting = [server.connect().send(GET) for _ in range(10)]
        server.wait_for_log("no file descriptors left: accepting pauses")
        assert held[0].send(GET).response().status == 200
        resource.prlimit(core, resource.RLIMIT_NOFILE, (used + 1000, used + 1000))
        for connection in waiting:
            assert connection.response().text == "hello\n"
            connection.close()
    assert len([line for line in server.lines if "no file descriptors left" in line]) == 1


# Slow clients


def test_a_dripping_body_is_408(serve) -> None:
    """Each byte comes long before body_timeout, and yet it is too slow."""
    server = serve(FILES, config=config("body_timeout: 1s, min_rate: 100"))
    with server.connect() as connection:
        connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        connection.socket.settimeout(0.05)
        answer = bytearray()

        def answered() -> bool:
            try:
                connection.send(b"x")
                answer.extend(connection.socket.recv(1000))
            except TimeoutError:
                pass
            return bool(answer)

        wait_for(answered, "an answer to the drip")
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_steady_body_may_take_its_time(serve) -> None:
    """Several windows long, each with enough in it."""
    server = serve(FILES, config=config("body_timeout: 2s, min_rate: 100"))
    with server.connect() as connection:
        connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n")
        stop = threading.Event()
        for _ in range(25):
            connection.send(b"x" * 1600)
            stop.wait(0.2)
        assert connection.response().text == "ok"


def slow_connection(server: Server) -> socket.socket:
    """With a small receive buffer, so that what the client's system takes is what the client reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(PATIENCE_S)
    sock.connect(("127.0.0.1", server.port))
    return sock


def sparse(folder: Path, size: int) -> None:
    with (folder / "www/sparse.bin").open("wb") as file:
        file.truncate(size)


def test_a_reader_that_is_too_slow_is_cut_off(serve, tmp_path: Path) -> None:
    """It reads all the time: without a rate every byte would give it another send_timeout."""
    server = serve(FILES, config=config("send_timeout: 500ms, min_rate: 1MiB"))
    sparse(tmp_path, 1 << 28)
    with slow_connection(server) as sock:
        sock.sendall(b"GET /sparse.bin HTTP/1.1\r\nHost: a\r\n\r\n")

        def cut() -> bool:
            try:
                return sock.recv(100) == b""
            except ConnectionResetError:
                return True

        wait_for(lambda: cut() or any("sparse.bin" in line for line in list(server.lines)), "the response is cut off")
    server.wait_for_log("sparse.bin")
    server.remember_fds()


def test_a_reader_that_is_slow_but_steady_gets_it_all(serve, tmp_path: Path) -> None:
    """The socket's buffer takes megabytes at once and then nothing for several send_timeouts; what counts is what the
    client takes out of it.
    """
    size = 4 << 20
    server = serve(FILES, config=config("send_timeout: 1500ms, min_rate: 1000"))
    sparse(tmp_path, size)
    with slow_connection(server) as sock:
        sock.sendall(b"GET /sparse.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        got = 0
        stop = threading.Event()
        for _ in range(30):
            got += len(sock.recv(20000))
            stop.wait(0.15)
        while piece := sock.recv(1 << 20):
            got += len(piece)
        assert got > size
    server.remember_fds()


# Memory


def anonymous_bytes(pid: int) -> int:
    """Memory that is the process's own; files that it maps are everybody's."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Anonymous in smaps_rollup")


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 8192:
        pytest.skip(f"needs 8192 file descriptors for the clients; the hard limit is {before[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


unsanitized = pytest.mark.skipif(bool(SANITIZE), reason="a sanitizer's own memory would be counted")


@unsanitized
def test_idle_connections_hold_no_buffers(serve, many_descriptors) -> None:
    server = serve(FILES, config=config("idle_timeout: 1h"))
    core = server.one_pid("core_main")
    with connected(server, 200):
        before = anonymous_bytes(core)
        with connected(server, 2000) as connections:
            grown = anonymous_bytes(core) - before
            print(f"{grown / 2000:.0f} bytes for each idle connection")
            assert grown <= 2000 * IDLE_BYTES
            assert connections[1000].send(GET).response().status == 200


@unsanitized
def test_what_has_been_busy_holds_no_buffers_when_idle(serve, many_descriptors) -> None:
    """All at once in the middle of a request, then all idle: the objects that are kept for reuse are few."""
    server = serve(FILES, config=config("idle_timeout: 1h, header_timeout: 1h"))
    core = server.one_pid("core_main")
    before = anonymous_bytes(core)
    with connected(server, 1000) as connections:
        for connection in connections:
            connection.send(GET[:-2])
        assert server.get("/a.txt").status == 200
        for connection in connections:
            assert connection.send(GET[-2:]).response().status == 200
        # 256 exchanges are kept for each loop; what the others had may stay with the allocator.
        assert anonymous_bytes(core) - before <= 1000 * BUSY_BYTES


@unsanitized
def test_header_drips_are_bounded(serve, many_descriptors) -> None:
    server = serve(FILES, config=config("idle_timeout: 1h, header_timeout: 1h"))
    core = server.one_pid("core_main")
    with connected(server, 500) as connections:
        before = anonymous_bytes(core)
        # 15 KiB of head in 15 pieces, of the 16 that are allowed.
        for number in range(15):
            for connection in connections:
                connection.send(("GET /a.txt HTTP/1.1\r\n" if number == 0 else "") + f"X-{number}: {'a' * 1000}\r\n")
        assert server.get("/a.txt").status == 200
        grown = anonymous_bytes(core) - before
        print(f"{grown / 500:.0f} bytes for each dripping connection")
        assert grown <= 500 * BUSY_BYTES
        for connection in connections:
            connection.send("Host: a\r\n\r\n")
        for connection in connections:
            assert connection.response().status == 200


@unsanitized
@pytest.mark.parametrize("more", ["", "schedule: shortest-first\n", "tuning: {sendfile: off}\n"])
def test_slow_readers_are_bounded(serve, tmp_path: Path, many_descriptors, more: str) -> None:
    server = serve(FILES, config=config("idle_timeout: 1h, send_timeout: 1h", more))
    sparse(tmp_path, 1 << 30)
    core = server.one_pid("core_main")
    with connected(server, 300) as connections:
        before = anonymous_bytes(core)
        for connection in connections:
            connection.send("GET /sparse.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        for connection in connections:
            assert connection.file.readline() == b"HTTP/1.1 200 OK\r\n"
        assert server.get("/a.txt").status == 200
        grown = anonymous_bytes(core) - before
        print(f"{grown / 300:.0f} bytes for each slow reader")
        assert grown <= 300 * BUSY_BYTES
    server.remember_fds()


def test_refusals_are_not_in_the_access_log_as_requests(serve) -> None:
    """A refused connection was never read from: it has no request that could be logged."""
    server = serve(FILES, config=config("connections: 1"))
    with connected(server, 1), server.connect() as connection:
        assert connection.response().status == 503
    records = [json.loads(line) for line in list(server.lines) if '"status":503' in line]
    assert not records
