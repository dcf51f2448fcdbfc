"""Connections that go on with another protocol: 101, and then bytes both ways (docs/executor-protocol.md, section 6).

The protocol itself is the executor's and the client's; here they say whatever they like.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PATIENCE_S, Connection, state_of_threads, wait_for
from played import PlayedCore, PlayedRequest, playing

from appserver.workers import wire

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedCore]:
    folder = tmp_path_factory.mktemp("core")
    with playing(folder, limits="connections: 4000", capacity=1000) as running:
        yield running


def asking(fields: str = "Connection: Upgrade\r\nUpgrade: websocket\r\n", line: str = "GET /ws HTTP/1.1") -> str:
    return f"{line}\r\nHost: a\r\n{fields}Sec-WebSocket-Key: k\r\n\r\n"


def upgrade(core: PlayedCore, behind: bytes = b"") -> tuple[Connection, PlayedRequest, socket.socket]:
    """An upgraded connection, and the executor's end of it."""
    client = core.connect().send(asking().encode() + behind)
    request = core.receive()
    assert request.flags == wire.UPGRADE
    request.answer(wire.UPGRADED, 101, b"Sec-WebSocket-Accept: x\r\n")
    return client, request, request.stream()


def finish(client: Connection, request: PlayedRequest, status: int = 0) -> None:
    request.close()
    request.end(status)
    client.close()
    wait_for(lambda: request.is_free, "the slot is taken back")


def read_exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        assert part, f"the end after {len(data)} bytes"
        data += part
    return data


def test_both_ways(core: PlayedCore) -> None:
    both_ways(core)


def test_longer_than_an_idle_connection_may_be(tmp_path: Path) -> None:
    with playing(tmp_path, limits="idle_timeout: 1s") as core:
        both_ways(core, 1.3)


def both_ways(core: PlayedCore, pause_s: float = 0) -> None:
    client, request, stream = upgrade(core)
    answer = client.interim()
    assert (answer.status, answer.reason) == (101, "Switching Protocols")
    assert answer.header("connection") == "upgrade"
    assert answer.all("upgrade") == ["websocket"]
    assert answer.header("sec-websocket-accept") == "x"
    assert request.environ["HTTP_UPGRADE"] == "websocket"
    assert request.environ["HTTP_SEC_WEBSOCKET_KEY"] == "k"
    for number in range(10):
        client.send(b"ping %d" % number)
        assert read_exactly(stream, 6) == b"ping %d" % number
        stream.sendall(b"pong %d" % number)
        assert client.file.read(6) == b"pong %d" % number
    time.sleep(pause_s)
    client.send(b"still")
    assert read_exactly(stream, 5) == b"still"
    stream.sendall(b"bye")
    request.close()
    request.end()
    assert client.file.read() == b"bye"
    client.close()
    wait_for(lambda: core.access_lines(1)[0]["status"] == 101, "its line in the access log")
    line = core.access_lines(1)[0]
    assert (line["target"], line["bytes"]) == ("/ws", 63)
    assert "cut" not in line


def test_first_bytes_behind_the_head(core: PlayedCore) -> None:
    """They are the protocol's, even when they look like a request."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    client, request, stream = upgrade(core, smuggled)
    assert client.interim().status == 101
    assert read_exactly(stream, len(smuggled)) == smuggled
    finish(client, request)
    assert not core.has_request()


def test_refused_and_the_bytes_behind_are_the_next_request(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(asking() + "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        request = core.receive()
        assert request.flags == wire.UPGRADE
        request.respond(b"no", 403)
        answer = client.response()
        assert (answer.status, answer.body) == (403, b"no")
        assert request.stream().recv(1) == b""  # nothing was the protocol's
        request.close()
        following = core.receive()
        assert following.environ["PATH_INFO"] == "/next"
        following.respond(b"next")
        assert client.response().body == b"next"


def test_refused_by_a_streamed_answer(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(asking())
        request = core.receive()
        writer = request.open_stream()
        os.write(writer, b"no")
        request.end()
        os.close(writer)
        assert request.stream().recv(1) == b""
        request.close()
        assert client.response().body == b"no"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ("Upgrade: websocket\r\n", "GET /ws HTTP/1.1"),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n", "GET /ws HTTP/1.1"),
        ("Connection: Upgrade\r\nUpgrade: websocketty\r\n", "GET /ws HTTP/1.1"),
        ("Connection: Upgrade\r\n", "GET /ws HTTP/1.1"),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", "GET /ws HTTP/1.0"),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", "POST /ws HTTP/1.1"),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n", "GET /ws HTTP/1.1"),
    ],
)
def test_served_as_if_it_had_not_asked(core: PlayedCore, fields: str, line: str) -> None:
    with core.connect() as client:
        client.send(asking(fields, line))
        if "Content-Length" in fields:
            client.send("ab")
        request = core.receive()
        assert request.flags == 0
        assert "HTTP_UPGRADE" not in request.environ
        request.respond(b"plain")
        assert client.response().body == b"plain"


def test_one_of_several_protocols(core: PlayedCore) -> None:
    client = core.connect().send(asking("Connection: keep-alive, UPGRADE\r\nUpgrade: h2c, WebSocket\r\n"))
    request = core.receive()
    assert request.flags == wire.UPGRADE
    request.respond()
    request.close()
    client.close()


def test_an_upgrade_that_nobody_asked_for(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        core.receive().answer(wire.UPGRADED, 101)
        assert client.response().status == 502
        core.wait_for_log("malformed answer")


def test_malformed_fields(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(asking())
        request = core.receive()
        request.answer(wire.UPGRADED, 101, b"Bad Name: x\r\n")
        assert client.response().status == 502
        wait_for(lambda: request.is_cancelled, "the executor is told")
        request.close()
        request.end(1)
        wait_for(lambda: request.is_free, "the slot is taken back")


def test_half_close_by_the_client(core: PlayedCore) -> None:
    client, request, stream = upgrade(core)
    client.interim()
    client.send(b"last")
    client.socket.shutdown(socket.SHUT_WR)
    assert read_exactly(stream, 4) == b"last"
    assert stream.recv(1) == b""
    stream.sendall(b"answer")
    assert client.file.read(6) == b"answer"
    request.close()
    request.end()
    assert client.file.read() == b""
    finish(client, request)


def test_half_close_by_the_executor(core: PlayedCore) -> None:
    client, request, stream = upgrade(core)
    client.interim()
    stream.sendall(b"last")
    stream.shutdown(socket.SHUT_WR)
    assert client.file.read() == b"last"
    client.send(b"answer")
    assert read_exactly(stream, 6) == b"answer"
    finish(client, request)


def test_a_client_that_has_everything_may_go(core: PlayedCore) -> None:
    """Nothing was cut off, although the executor's `end` comes only after that."""
    client = core.connect().send(asking(line="GET /everything HTTP/1.1"))
    request = core.receive()
    request.answer(wire.UPGRADED, 101)
    client.interim()
    request.stream().sendall(b"bye")
    request.close()
    assert client.file.read() == b"bye"
    client.close()
    wait_for(lambda: state_of_threads(core.process.pid) == {"S"}, "the core knows that the client has gone")
    request.end()
    wait_for(lambda: core.access_lines(1)[0]["target"] == "/everything", "its line in the access log")
    assert "cut" not in core.access_lines(1)[0]


def test_executor_closes_without_a_word(core: PlayedCore) -> None:
    """Its `end` is waited for a moment only; the client is not held up."""
    client, request, _stream = upgrade(core)
    client.interim()
    request.close()
    assert client.file.read() == b""
    client.close()
    wait_for(lambda: request.is_cancelled, "the request is over")
    request.end()
    wait_for(lambda: request.is_free, "the slot is taken back")


@pytest.mark.parametrize("reset", [False, True])
def test_client_leaves(core: PlayedCore, reset: bool) -> None:
    client, request, stream = upgrade(core)
    client.interim()
    if reset:
        client.reset_at_close()
    client.close()
    assert stream.recv(1) == b""
    if reset:
        wait_for(lambda: request.is_cancelled, "the executor is told")
    request.close()
    request.end()
    wait_for(lambda: request.is_free, "the slot is taken back")


def test_executor_dies(core: PlayedCore) -> None:
    client, request, stream = upgrade(core)
    client.interim()
    stream.sendall(b"begun")
    request.close()
    core.die()
    assert client.file.read() in (b"begun", b"")
    client.close()
    wait_for(lambda: core.access_lines(1)[0].get("cut"), "its line in the access log")


def test_executor_dies_before_its_answer(core: PlayedCore) -> None:
    """The request can be given to another one, with a stream of its own."""
    client = core.connect().send(asking())
    core.receive().close()
    core.die()
    request = core.receive()
    request.answer(wire.UPGRADED, 101)
    assert client.interim().status == 101
    request.stream().sendall(b"second")
    assert client.file.read(6) == b"second"
    finish(client, request)


def test_executor_never_reads(core: PlayedCore) -> None:
    before = core.memory_kib()
    client, request, stream = upgrade(core)
    client.interim()
    core.fill(client.socket)
    assert core.memory_kib() - before < 2048
    stream.sendall(b"the other way is free")
    assert client.file.read(21) == b"the other way is free"
    client.reset_at_close()
    finish(client, request)


def test_client_never_reads(tmp_path: Path) -> None:
    """send_timeout is for it."""
    with playing(tmp_path, limits="send_timeout: 1s") as core:
        client, request, stream = upgrade(core)
        before = core.memory_kib()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # or it is cut off in the midst of that
            core.fill(stream)
        assert core.memory_kib() - before < 2048
        wait_for(lambda: request.is_cancelled, "the executor is told")
        wait_for(lambda: core.access_lines(1)[0].get("cut"), "its line in the access log")
        finish(client, request, 1)


def test_both_flood(core: PlayedCore) -> None:
    """Neither reads until both are full; then everything arrives."""
    before = core.memory_kib()
    client, request, stream = upgrade(core)
    client.interim()
    to_executor, to_client = core.fill(client.socket), core.fill(stream)
    assert core.memory_kib() - before < 2048
    while to_executor or to_client:
        ready, _, _ = select.select([client.socket, stream], [], [], PATIENCE_S)
        assert ready
        if client.socket in ready:
            to_client -= len(client.socket.recv(MIB))
        if stream in ready:
            to_executor -= len(stream.recv(MIB))
    assert (to_executor, to_client) == (0, 0)
    client.send(b"a")
    stream.sendall(b"b")
    assert (stream.recv(1), client.socket.recv(1)) == (b"a", b"b")
    finish(client, request)


def test_much_both_ways(core: PlayedCore) -> None:
    client, request, stream = upgrade(core)
    client.interim()
    sent = {client.socket: 0, stream: 0}
    got = {client.socket: b"", stream: b""}
    data = os.urandom(3 * MIB)
    client.socket.setblocking(False)
    stream.setblocking(False)
    while min(len(each) for each in got.values()) < len(data):
        waiting = [end for end, count in sent.items() if count < len(data)]
        readable, writable, _ = select.select(list(sent), waiting, [], PATIENCE_S)
        assert readable or writable
        for end in writable:
            sent[end] += end.send(data[sent[end] : sent[end] + 100_000])
        for end in readable:
            got[end] += end.recv(100_000)
    assert got[client.socket] == got[stream] == data
    finish(client, request)


def test_many_that_are_half_open(core: PlayedCore) -> None:
    """Upgrades that nobody goes on with hold little, and the others are served."""
    count = 900
    clients = [core.connect() for _ in range(count)]
    before = core.memory_kib()
    requests = []
    for client in clients:
        client.send(asking())
        requests.append(core.receive())
        if len(requests) % 2:
            requests[-1].answer(wire.UPGRADED, 101)
            client.interim()
    assert core.memory_kib() - before < count * 40
    with core.connect() as other:
        other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        core.receive().respond(b"served")
        assert other.response().body == b"served"
    for client in clients:
        client.reset_at_close()
        client.close()
    for number, request in enumerate(requests):
        wait_for(lambda request=request: request.is_cancelled, "each executor is told")
        request.close()
        request.answer(wire.RESPONSE, 200) if number % 2 else request.end()
    wait_for(lambda: all(request.is_free for request in requests), "the slots are taken back")


def test_upgraded_connections_hold_little(core: PlayedCore) -> None:
    """An upgraded connection gives back its input buffer."""
    count = 200
    ends = []
    before = core.memory_kib()
    for _ in range(count):
        ends.append(upgrade(core))
        ends[-1][0].interim()
    assert core.memory_kib() - before < count * 24
    for client, request, stream in ends:
        client.send(b"x")
        assert stream.recv(1) == b"x"
        finish(client, request)


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_drain(tmp_path: Path, says_goodbye: bool) -> None:
    """The executor sees the end, and may still say something; one that does not end is cut off by drain_timeout."""
    with playing(tmp_path) as core:
        client, request, stream = upgrade(core)
        client.interim()
        core.drain(60_000 if says_goodbye else 300)
        assert stream.recv(1) == b""
        if says_goodbye:
            stream.sendall(b"goodbye")
            request.close()
            request.end()
            assert client.file.read() == b"goodbye"
            client.close()
        else:
            assert client.closed()
            core.wait_for_log("still open after drain_timeout")
            core.was_cut_off = True  # it may be gone before it reads the executor's last word
            request.close()
            request.end(1)
        assert core.process.wait(PATIENCE_S) == 0
        client.close()


def test_drain_between_request_and_answer(tmp_path: Path) -> None:
    with playing(tmp_path) as core:
        client = core.connect().send(asking())
        request = core.receive()
        core.drain(60_000)
        request.answer(wire.UPGRADED, 101)
        assert client.interim().status == 101
        assert request.stream().recv(1) == b""
        request.stream().sendall(b"goodbye")
        request.close()
        request.end()
        assert client.file.read() == b"goodbye"
        client.close()
