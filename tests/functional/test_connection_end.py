"""How a connection ends, or goes on, when a request was not read to its end, and what a reload leaves of one."""

from __future__ import annotations

import signal

import pytest
from harness import PATIENCE_S, Server, accepts, wait_for

FILES: dict[str, str | bytes] = {
    "www/a.txt": "alpha",
    "handlers/length.py": "def handle(r):\n    return str(len(r.body))\n",
}
GET = "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"
MANY = 16 << 20  # more than the buffers of both sockets hold


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    started: Server = serve_module(FILES, config="limits: {body_size: 1MiB}\n")
    return started


def post(target: str, *fields: str) -> str:
    return "\r\n".join((f"POST {target} HTTP/1.1", "Host: x", *fields, "", ""))


# The answer comes before the request is over


@pytest.mark.parametrize(("target", "status"), [("/length/", 413), ("/a.txt", 405)])
def test_a_client_that_sends_to_the_end_before_it_reads(server: Server, target: str, status: int) -> None:
    """Whatever it still sends is taken, so that no reset reaches it before the answer (RFC 9112 section 9.6)."""
    with server.connect() as connection:
        connection.send(post(target, f"Content-Length: {MANY}")).send(bytes(MANY))
        response = connection.response("POST")
        assert (response.status, response.header("connection")) == (status, "close")
        assert connection.closed()


def test_a_chunked_body_over_the_limit_is_taken_to_its_end(server: Server) -> None:
    with server.connect() as connection:
        connection.send(post("/length/", "Transfer-Encoding: chunked"))
        connection.send(f"{MANY:x}\r\n").send(bytes(MANY)).send("\r\n0\r\n\r\n")
        assert connection.response("POST").status == 413
        assert connection.closed()


@pytest.mark.parametrize(
    "fields", [(f"Content-Length: {MANY}",), ("Content-Length: 3", "Expect: 100-continue")], ids=["long", "expected"]
)
def test_a_body_that_will_not_be_read_is_announced(server: Server, fields: tuple[str, ...]) -> None:
    """A client that is not told would send its next request into a connection that closes (RFC 9112 section 9.6)."""
    with server.connect() as connection:
        response = connection.send(post("/a.txt", *fields)).response("POST")
        assert (response.status, response.header("connection")) == (405, "close")
        assert connection.closed()


@pytest.mark.parametrize("size", [1, 100_000, 256 << 10])
def test_a_short_body_is_read_and_the_connection_goes_on(server: Server, size: int) -> None:
    with server.connect() as connection:
        response = connection.send(post("/a.txt", f"Content-Length: {size}")).response("POST")
        assert (response.status, response.header("connection")) == (405, None)
        assert connection.send(bytes(size) + GET.encode()).response().body == b"alpha"


def test_a_bad_chunk_in_a_body_that_nobody_wants_ends_the_connection(server: Server) -> None:
    with server.connect() as connection:
        connection.send(post("/a.txt", "Transfer-Encoding: chunked"))
        assert connection.response("POST").status == 405
        connection.send("zz\r\n" + GET)
        assert connection.closed()


# Going down


def test_a_body_that_is_being_dropped_does_not_hold_up_the_end(serve) -> None:
    """When it is over the connection closes: nobody may begin another request on it."""
    server = serve(FILES, config="limits: {drain_timeout: 1h, body_timeout: 1h, idle_timeout: 1h}\n")
    with server.connect() as connection:
        assert connection.send(post("/a.txt", "Content-Length: 1000")).response("POST").status == 405
        server.kill(signal.SIGTERM)
        server.wait_for_log("SIGTERM: stopping")
        wait_for(lambda: not accepts(server.port), "nobody is accepted any more")
        connection.send(bytes(1000))
        assert connection.closed()
    assert server.process.wait(PATIENCE_S) == 0


# Reloads


def test_larger_heads_from_a_reload_on(serve) -> None:
    """A request that was pipelined behind one of the old configuration may be as long as the new one says."""
    wait = (
        "import pathlib, time\nHERE = pathlib.Path(__file__).parent\n"
        "def handle(request):\n"
        "    (HERE / 'begun').touch()\n"
        "    while not (HERE / 'go').exists():\n        time.sleep(0.01)\n"
        "    return 'gone'\n"
    )
    server = serve({**FILES, "handlers/wait.py": wait}, "--threads", "1", config="limits: {header_size: 1KiB}\n")
    with server.connect() as connection:
        connection.send("GET /wait/ HTTP/1.1\r\nHost: x\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\nX: ")
        wait_for(lambda: (server.folder / "handlers/begun").exists(), "the handler has begun")
        (server.folder / "config.yaml").write_text("limits: {header_size: 1MiB}\n")
        server.kill(signal.SIGHUP)
        long = {"X": "x" * 2000}
        wait_for(lambda: server.get("/a.txt", long).status == 200, "the new configuration holds")
        (server.folder / "handlers/go").touch()
        assert connection.response().body == b"gone"
        connection.send(b"x" * 1_000_000 + b"\r\n\r\n")
        assert connection.response().body == b"alpha"
