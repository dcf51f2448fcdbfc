"""Request bodies that an executor gets while the client still sends them (docs/executor-protocol.md, section 6)."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import PATIENCE_S, Server, state_of_threads, wait_for
from played import PlayedCore, playing

from appserver.workers import wire

LARGE = 300_000
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedCore]:
    with playing(tmp_path_factory.mktemp("core"), limits="body_size: 8MiB") as running:
        yield running


def head(fields: str, method: str = "POST", target: str = "/up") -> str:
    return f"{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"


def with_length(size: int, more: str = "") -> str:
    return head(f"Content-Length: {size}\r\n{more}")


CHUNKED = head("Transfer-Encoding: chunked\r\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_begins_before_the_body_is_there(core: PlayedCore) -> None:
    body = os.urandom(LARGE)
    with core.connect() as client:
        client.send(with_length(LARGE))
        request = core.receive()
        assert request.flags == wire.BODY_STREAM
        assert request.body_len == LARGE
        assert request.environ["CONTENT_LENGTH"] == str(LARGE)
        client.send(body[:1000])
        assert request.stream().recv(1000) == body[:1000]
        client.send(body[1000:])
        assert request.read_all() == body[1000:]
        request.respond(b"done")
        request.close()
        assert client.response().body == b"done"
        # and the connection goes on
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        core.receive().respond(b"next")
        assert client.response().body == b"next"


def test_chunked_is_decoded_and_the_next_request_stays(core: PlayedCore) -> None:
    data = os.urandom(5000)
    with core.connect() as client:
        many = b"".join(chunk(data[at : at + 7]) for at in range(0, 5000, 7))
        client.send(CHUNKED.encode() + many)
        request = core.receive()
        assert request.body_len == wire.STREAM_UNKNOWN
        assert "CONTENT_LENGTH" not in request.environ
        received = b""
        while len(received) < 5000:
            received += request.stream().recv(65536)
        client.send(b"0\r\nTrailer: x\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        assert received + request.read_all() == data
        request.respond(b"one")
        request.close()
        assert client.response().body == b"one"
        request = core.receive()
        assert request.environ["PATH_INFO"] == "/next"
        request.respond(b"two")
        assert client.response().body == b"two"


def test_byte_by_byte(core: PlayedCore) -> None:
    text = CHUNKED.encode() + chunk(b"abc") + chunk(b"d" * 20) + b"0\r\n\r\n"
    with core.connect() as client:
        for at in range(len(text)):
            client.send(text[at : at + 1])
        request = core.receive()
        assert request.read_all() == b"abc" + b"d" * 20
        request.respond()
        request.close()
        assert client.response().status == 200


def test_small_bodies_come_inline(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(with_length(wire.INLINE_BODY_MAX).encode() + b"y" * wire.INLINE_BODY_MAX)
        request = core.receive()
        assert request.flags == 0
        assert request.body == b"y" * wire.INLINE_BODY_MAX
        request.respond()
        assert client.response().status == 200


def test_continue_is_sent_when_the_request_is_handed_over(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(with_length(LARGE, "Expect: 100-continue\r\n"))
        request = core.receive()
        assert client.interim().status == 100
        client.send(b"z" * LARGE)
        assert request.read_all() == b"z" * LARGE
        request.respond()
        request.close()
        assert client.response().status == 200


def test_no_continue_while_nobody_has_room(tmp_path: Path) -> None:
    def queue_of_one(pool: dict[str, object]) -> None:
        pool["queue_limit"] = 1

    with playing(tmp_path, change_pool=queue_of_one) as core:
        clients, requests = [], []
        while True:  # until the queue is full
            clients.append(core.connect().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
            ready, _, _ = select.select([core.queue, clients[-1].socket], [], [], PATIENCE_S)
            if clients[-1].socket in ready:
                assert clients[-1].response().status == 503
                break
            requests.append(core.receive())
        with core.connect() as client:
            client.send(with_length(LARGE, "Expect: 100-continue\r\n"))
            answer = client.interim()
            assert answer.status == 503
            assert answer.header("connection") == "close"
        for request in requests:
            request.respond()
        for client in clients:
            client.close()


def test_back_pressure(core: PlayedCore) -> None:
    """An executor that does not read stops the client, whatever the body's size, and the core holds none of it."""
    before = core.memory_kib()
    with core.connect() as client:
        client.send(with_length(8 * MIB))
        request = core.receive()
        sent = core.fill(client.socket, 8 * MIB)
        assert core.memory_kib() - before < 2048
        received = 0
        while received < 8 * MIB:
            readable, writable, _ = select.select(
                [request.stream()], [client.socket] if sent < 8 * MIB else [], [], PATIENCE_S
            )
            assert readable or writable
            if writable:
                sent += client.socket.send(b"x" * min(8 * MIB - sent, 1000))
            if readable:
                received += len(request.stream().recv(1 << 20))
        assert request.stream().recv(1) == b""
        request.respond(b"%d" % received)
        request.close()
        assert client.response().body == str(8 * MIB).encode()


def test_too_large_with_length_never_reaches_an_executor(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(with_length(9 * MIB))
        assert client.response().status == 413
    assert not core.has_request()


def test_too_large_in_mid_stream(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(CHUNKED)
        request = core.receive()
        received = 0
        for _ in range(8):
            client.send(chunk(b"m" * MIB))
            got = 0
            while got < MIB:
                got += len(request.stream().recv(MIB))
            received += got
        client.send(chunk(b"one byte too many"))
        response = client.response()
        assert response.status == 413
        assert response.header("connection") == "close"
        wait_for(lambda: request.is_cancelled, "the executor is told")
        request.read_all()
        request.answer(wire.RESPONSE, 200)
        request.close()
        wait_for(lambda: request.is_free, "the slot is taken back")


@pytest.mark.parametrize("garbage", [b"no chunk\r\n", b"-1\r\n", b"5\r\nhelloX\r\n", b"0\r\nbad trailer\r\n\r\n"])
def test_garbage_in_mid_stream(core: PlayedCore, garbage: bytes) -> None:
    with core.connect() as client:
        client.send(CHUNKED.encode() + chunk(b"good"))
        request = core.receive()
        assert request.stream().recv(100) == b"good"
        client.send(garbage)
        assert client.response().status == 400
        assert client.closed()
        wait_for(lambda: request.is_cancelled, "the executor is told")
        request.read_all()
        request.answer(wire.RESPONSE, 200)
        request.close()


@pytest.mark.parametrize("reset", [False, True])
def test_client_leaves_in_mid_body(core: PlayedCore, reset: bool) -> None:
    client = core.connect().send(with_length(LARGE).encode() + b"part")
    request = core.receive()
    assert request.stream().recv(10) == b"part"
    if reset:
        client.reset_at_close()
    client.close()
    assert request.read_all() == b""
    assert request.is_cancelled  # before the end of the stream
    request.answer(wire.RESPONSE, 200)
    request.close()
    wait_for(lambda: request.is_free, "the slot is taken back")


def test_client_leaves_while_the_executor_is_slow(core: PlayedCore) -> None:
    client = core.connect().send(with_length(8 * MIB))
    request = core.receive()
    core.fill(client.socket, 8 * MIB)
    client.reset_at_close()
    client.close()
    wait_for(lambda: request.is_cancelled, "the executor is told")
    request.read_all()
    request.answer(wire.RESPONSE, 200)
    request.close()


def test_answer_before_the_body_is_over(core: PlayedCore) -> None:
    """Both directions at the same time: an echo."""
    with core.connect() as client:
        client.send(CHUNKED)
        request = core.receive()
        writer = request.open_stream()
        for number in range(20):
            client.send(chunk(b"ping %d" % number))
            data = request.stream().recv(100)
            os.write(writer, data)
            if number == 0:
                while client.file.readline() != b"\r\n":  # the head
                    pass
            size = int(client.file.readline(), 16)
            assert client.file.read(size + 2) == b"ping %d\r\n" % number
        client.send(b"0\r\n\r\n")
        assert request.read_all() == b""
        request.end()
        os.close(writer)
        request.close()
        assert client.file.readline() + client.file.readline() == b"0\r\n\r\n"
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        core.receive().respond(b"next")
        assert client.response().body == b"next"


def test_executor_wants_no_more(core: PlayedCore) -> None:
    """It closes its end: a short rest is dropped, and the connection goes on. All of it is short, for the core may have
    passed on only a little when it hears of that.
    """
    size = 200_000
    with core.connect() as client:
        client.send(with_length(size))
        request = core.receive()
        client.send(b"a" * (size - 1000))
        assert request.stream().recv(1)
        request.close()
        request.respond(b"enough")
        response = client.response()
        assert response.body == b"enough"
        assert response.header("connection") is None
        client.send(b"a" * 1000 + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        core.receive().respond(b"next")
        assert client.response().body == b"next"


def test_executor_wants_no_more_of_much(core: PlayedCore) -> None:
    """The rest is more than is worth dropping: the answer says that the connection ends."""
    with core.connect() as client:
        client.send(with_length(4 * MIB).encode() + b"b" * 100)
        request = core.receive()
        assert request.stream().recv(100)
        request.close()
        request.respond(b"enough", 403)
        response = client.response()
        assert (response.status, response.body) == (403, b"enough")
        assert response.header("connection") == "close"
        assert client.closed()


def test_streamed_answer_ends_first(core: PlayedCore) -> None:
    """The answer was begun while the body was wanted, so its head promises nothing, and it is whole."""
    with core.connect() as client:
        client.send(with_length(4 * MIB).encode() + b"b" * 100)
        request = core.receive()
        assert request.stream().recv(100)
        writer = request.open_stream()
        os.write(writer, b"early")
        request.end()
        os.close(writer)
        request.close()
        response = client.response()
        assert response.body == b"early"
        assert client.closed()


def test_handed_back_with_its_stream(core: PlayedCore) -> None:
    """What was written before comes to the next executor, for nobody has read it."""
    body = os.urandom(LARGE)
    with core.connect() as client:
        client.send(with_length(LARGE).encode() + body[:5000])
        first = core.receive()
        wait_for(lambda: first.stream().recv(1, socket.MSG_PEEK), "the first bytes")
        first.fd = first.stream().detach()
        first.streams.clear()
        first.skip()
        second = core.receive()
        assert second.flags == wire.BODY_STREAM
        client.send(body[5000:])
        assert second.read_all() == body
        second.respond(b"whole")
        second.close()
        assert client.response().body == b"whole"


def test_handed_back_without_its_stream(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(with_length(LARGE).encode() + b"c" * 5000)
        request = core.receive()
        wait_for(lambda: request.stream().recv(1, socket.MSG_PEEK), "the first bytes")
        request.skip(with_fd=False)
        assert client.response().status == 503
        core.wait_for_log("without the stream of its body")


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_executor_dies_before_any_of_the_body(core: PlayedCore, method: str) -> None:
    """Nothing is spent: an idempotent request goes to another executor."""
    with core.connect() as client:
        client.send(head(f"Content-Length: {LARGE}\r\n", method))
        first = core.receive()
        first.close()
        core.die()
        if method == "POST":
            assert client.response().status == 502
            return
        second = core.receive()
        client.send(b"d" * LARGE)
        assert second.read_all() == b"d" * LARGE
        second.respond(b"second")
        second.close()
        assert client.response().body == b"second"


def test_first_piece_meets_a_dead_executor(core: PlayedCore) -> None:
    """It could not be written, so it is still there for the next one."""
    with core.connect() as client:
        client.send(head(f"Content-Length: {LARGE}\r\n", "PUT"))
        first = core.receive()
        first.close()
        client.send(b"e" * 1000)
        wait_for(lambda: state_of_threads(core.process.pid) == {"S"}, "the core has looked at it")
        core.die()
        second = core.receive()
        client.send(b"e" * (LARGE - 1000))
        assert second.read_all() == b"e" * LARGE
        second.respond(b"second")
        second.close()
        assert client.response().body == b"second"


def test_executor_dies_in_mid_body(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(head(f"Content-Length: {LARGE}\r\n", "PUT").encode() + b"f" * 1000)
        request = core.receive()
        assert request.stream().recv(1)
        request.close()
        core.die()
        response = client.response()
        assert response.status == 502
        assert response.header("x-incident")
    assert not core.has_request()


def test_executor_dies_in_mid_answer(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(CHUNKED.encode() + chunk(b"g"))
        request = core.receive()
        writer = request.open_stream()
        os.write(writer, b"begun")
        while client.file.readline() != b"\r\n":
            pass
        request.close()
        os.close(writer)
        core.die()
        assert not client.file.read().endswith(b"0\r\n\r\n")


def test_slow_clients(tmp_path: Path) -> None:
    """body_timeout is for the client, not for an executor that takes its time."""
    with playing(tmp_path, limits="body_timeout: 1s") as core:
        silent = core.connect().send(with_length(LARGE))
        request = core.receive()
        waiting = core.connect().send(with_length(8 * MIB))
        slow = core.receive()
        core.fill(waiting.socket, 8 * MIB)
        response = silent.response()
        assert response.status == 408
        wait_for(lambda: request.is_cancelled, "the executor is told")
        request.read_all()
        request.answer(wire.RESPONSE, 200)
        request.close()
        time.sleep(1.5)  # the other one has been waited for longer than body_timeout by now
        assert not slow.is_cancelled
        slow.close()
        slow.respond(b"late")
        assert waiting.response().body == b"late"
        silent.close()
        waiting.close()


def test_client_that_drips(tmp_path: Path) -> None:
    with playing(tmp_path, limits="body_timeout: 1s, min_rate: 1000") as core:
        client = core.connect().send(with_length(LARGE))
        request = core.receive()

        def is_cancelled() -> bool:
            client.send(b"h")
            return request.is_cancelled

        wait_for(is_cancelled, "the executor is told")
        assert client.response().status == 408
        request.read_all()
        request.answer(wire.RESPONSE, 200)
        request.close()
        client.close()


def test_request_time_counts_from_the_last_byte(tmp_path: Path) -> None:
    """A long upload is no long run; an executor that no longer takes it in is."""
    with playing(tmp_path, pool_limits="request_time: 3s") as core:
        client = core.connect().send(with_length(LARGE))
        request = core.receive()
        for _ in range(8):
            client.send(b"i" * 100)
            assert request.stream().recv(100)
            time.sleep(0.5)
        assert not request.is_cancelled
        client.send(b"i" * (LARGE - 800))
        assert client.response().status == 504
        wait_for(lambda: request.is_cancelled, "the executor is told")
        assert core.wait_for_message("executor-stuck").number("executor") == 7
        request.read_all()
        request.answer(wire.RESPONSE, 200)
        request.close()
        client.close()


def test_drain_waits_for_the_body(tmp_path: Path) -> None:
    with playing(tmp_path) as core:
        client = core.connect().send(with_length(LARGE))
        request = core.receive()
        core.drain(20_000)
        client.send(b"j" * LARGE)
        assert request.read_all() == b"j" * LARGE
        request.respond(b"done")
        request.close()
        response = client.response()
        assert response.body == b"done"
        assert response.header("connection") == "close"
        client.close()


def test_both_sides_flood(core: PlayedCore) -> None:
    """The executor answers without reading, the client sends without reading: neither fills the core."""
    before = core.memory_kib()
    client = core.connect().send(with_length(8 * MIB))
    request = core.receive()
    writer = request.open_stream()
    os.set_blocking(writer, False)
    core.fill(client.socket, 8 * MIB)
    written = 0
    idle = 0
    while idle < 10:
        try:
            written += os.write(writer, b"k" * 65536)
            idle = 0
        except BlockingIOError:
            idle += 1
            time.sleep(0.02)
        assert written < 64 * MIB
    assert core.memory_kib() - before < 2048
    client.close()
    wait_for(lambda: request.is_cancelled, "the executor is told")
    os.close(writer)
    request.close()
    request.end(1)
    wait_for(lambda: request.is_free, "the slot is taken back")


ASGI = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": b"%d " % len(message["body"]), "more_body": more})
"""


def test_with_a_real_worker(serve: Callable[..., Server]) -> None:
    """An ASGI application counts what has come so far while the client still sends."""
    config = (
        'pools: {counting: {python: "counting:app", processes: 1}}\n'
        "sites: [{rules: [{match: {path: /*}, handler: {python: counting}}]}]\n"
    )
    server = serve({"counting.py": ASGI}, config=config)
    with server.connect() as client:
        client.send(CHUNKED)
        client.send(chunk(b"x" * 1000))
        assert client.file.readline() == b"HTTP/1.1 200 OK\r\n"  # the head is there before the body's end
        while client.file.readline() != b"\r\n":
            pass
        for _ in range(3):
            client.send(chunk(b"x" * 1000))
        client.send(b"0\r\n\r\n")
        assert sum(map(int, b"".join(client._chunks()).split())) == 4000
