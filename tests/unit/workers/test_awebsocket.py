"""WebSocket connections of ASGI applications in a real worker process, which a small core talks to."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_core import PATIENCE_S, Answer, FakeCore
from test_websocket import masked

from appserver.workers import wire
from appserver.workers.websocket import BINARY, CLOSE, PING, PONG, TEXT

APPLICATION = r"""
import asyncio, json, os

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    assert scope["type"] == "websocket", scope["type"]
    await globals()[scope["path"].strip("/") or "echo"](scope, receive, send)

async def accept(receive, send, **more):
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **more})

async def echo(scope, receive, send):
    await accept(receive, send)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("left", json.dumps([message["code"], message["reason"]]), flush=True)
            return
        await send({**message, "type": "websocket.send"})

async def scope_of(scope, receive, send):
    await accept(receive, send, subprotocol=scope["subprotocols"][-1], headers=[(b"x-a", b"b")])
    scope["headers"] = [[name.decode(), value.decode()] for name, value in scope["headers"]]
    del scope["query_string"], scope["raw_path"]
    await send({"type": "websocket.send", "text": json.dumps(scope)})

async def refuses(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})
    print("then", (await receive())["type"], flush=True)

async def denies(scope, receive, send):
    await receive()
    await send({"type": "websocket.http.response.start", "status": 402, "headers": [(b"x-why", b"money")]})
    await send({"type": "websocket.http.response.body", "body": b"pay ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"first"})

async def closes(scope, receive, send):
    await accept(receive, send)
    await send({"type": "websocket.close", "code": 3456, "reason": "had enough"})
    try:
        await send({"type": "websocket.send", "text": "more"})
    except RuntimeError as error:
        print("refused:", error, flush=True)

async def ends(scope, receive, send):
    await accept(receive, send)

async def raises(scope, receive, send):
    await accept(receive, send)
    raise LookupError("in a connection")

async def raises_early(scope, receive, send):
    raise LookupError("before it is accepted")

async def returns_early(scope, receive, send):
    pass

async def slow(scope, receive, send):
    await accept(receive, send)
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    count = 0
    while (await receive())["type"] == "websocket.receive":
        count += 1
        if count == 1000:
            await send({"type": "websocket.send", "text": str(count)})

async def floods(scope, receive, send):
    await accept(receive, send)
    sent = 0
    try:
        while True:
            await send({"type": "websocket.send", "bytes": bytes(50_000)})
            sent += 50_000
    except OSError as error:
        print("flood ended", sent, type(error).__name__, flush=True)
        raise

async def waits(scope, receive, send):
    await receive()
    print("waited", (await receive())["code"], flush=True)

async def bad(scope, receive, send):
    await accept(receive, send)
    for message in ({"type": "websocket.send", "text": b"bytes"}, {"type": "websocket.send"},
                    {"type": "websocket.close", "code": 1006}, {"type": "websocket.accept"},
                    {"type": "http.response.start"}, {"type": "websocket.send", "bytes": "text"}):
        try:
            await send(message)
        except Exception as error:
            print("bad:", type(error).__name__, error, flush=True)
    await send({"type": "websocket.send", "text": "still open"})

async def bad_subprotocol(scope, receive, send):
    await accept(receive, send, subprotocol="unheard of")
"""

HEADERS = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
Run = Callable[..., FakeCore]


@pytest.fixture(params=["asyncio", "uvloop"])
def start(request: pytest.FixtureRequest, run: Run, tmp_path: Path) -> Run:
    """Starts the application with either event loop."""
    if request.param == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError('not in this test')\n")
    else:
        pytest.importorskip("uvloop")
    return lambda **how: run(APPLICATION, **how)


class Client:
    """A client's side of a request for a WebSocket, and the core's in one."""

    def __init__(self, core: FakeCore, path: str = "/", headers: dict[str, str] | None = None, **how: Any) -> None:
        self.core = core
        self.socket, its = socket.socketpair()
        self.socket.settimeout(PATIENCE_S)
        fields = {**HEADERS, **(headers or {})}
        with its:
            core.send(core.frame(path=path, headers=fields, flags=wire.UPGRADE, body_len=0, **how), fd=its.fileno())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def answer(self) -> Answer:
        return self.core.complete(self.core.next_answer())

    def opened(self) -> Client:
        assert self.core.next_answer().kind == wire.UPGRADED
        return self

    def send(self, data: bytes) -> Client:
        self.socket.sendall(data)
        return self

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, f"the end came after {data!r}"
            data += piece
        return data

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        first, size = self.exactly(2)
        assert first & 0x80
        if size == 126:
            (size,) = struct.unpack(">H", self.exactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self.exactly(8))
        return first & 0x0F, self.exactly(size)

    def closing(self) -> tuple[int, str]:
        """Code and reason of the close frame that comes now."""
        opcode, payload = self.frame()
        assert opcode == CLOSE
        return (payload[0] << 8 | payload[1], payload[2:].decode()) if payload else (1005, "")

    def ended(self) -> None:
        """The server has ended its side, and with ours the whole."""
        assert self.socket.recv(1) == b""
        self.socket.close()
        assert self.core.next_answer().kind == wire.END


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return masked(CLOSE, struct.pack(">H", code) + reason)


def test_echo(start: Run) -> None:
    core = start()
    with Client(core) as client:
        answer = core.next_answer()
        assert (answer.kind, answer.status) == (wire.UPGRADED, 101)
        assert answer.headers == {"upgrade": "websocket", "sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}
        client.send(masked(TEXT, "grüße".encode()) + masked(BINARY, bytes(70_000)))
        assert client.frame() == (TEXT, "grüße".encode())
        assert client.frame() == (BINARY, bytes(70_000))
        client.send(masked(PING, b"there?"))
        assert client.frame() == (PONG, b"there?")
        client.send(close_frame(1000, b"done"))
        assert client.closing() == (1000, "")
        client.ended()
        assert core.line("left") == 'left [1000, "done"]\n'


def test_pings_of_a_client_that_does_not_read_take_no_memory(start: Run) -> None:
    """What it gets when it reads at last are the answers that were on their way, and that to its last ping."""
    core = start()
    count = 20_000
    with Client(core) as client:
        assert core.next_answer().kind == wire.UPGRADED
        for first in range(0, count, 100):
            client.send(b"".join(masked(PING, b"%0125d" % number) for number in range(first, first + 100)))
        client.send(masked(TEXT, b"over"))
        answered = []
        while (frame := client.frame()) != (TEXT, b"over"):
            answered.append(frame)
        assert len(answered) < count / 2
        assert answered[0] == (PONG, b"%0125d" % 0)
        if (PONG, b"%0125d" % (count - 1)) not in answered:
            assert client.frame() == (PONG, b"%0125d" % (count - 1))


def test_scope_and_accept(start: Run) -> None:
    core = start()
    headers = {"Sec-WebSocket-Protocol": "chat, superchat"}
    with Client(core, "/scope_of", headers) as client:
        answer = core.next_answer()
        assert answer.headers["sec-websocket-protocol"] == "superchat"
        assert answer.headers["x-a"] == "b"
        scope = json.loads(client.frame()[1])
        assert scope.pop("headers")[-1] == ["sec-websocket-protocol", "chat, superchat"]
        assert scope == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/scope_of",
            "root_path": "",
            "client": ["127.0.0.1", 0],
            "server": ["example.org", 8080],
            "subprotocols": ["chat", "superchat"],
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }
        assert client.closing() == (1000, "")
        client.send(close_frame(1000))
        client.ended()


def test_not_accepted(start: Run) -> None:
    core = start()
    with Client(core, "/refuses") as client:
        answer = client.answer()
        assert (answer.kind, answer.status) == (wire.RESPONSE, 403)
        assert core.line("then") == "then websocket.disconnect\n"
    with Client(core, "/denies") as client:
        answer = client.answer()
        assert (answer.status, answer.body, answer.headers["x-why"]) == (402, b"pay first", "money")
    for path, reason in (
        ("/raises_early", "before it is accepted"),
        ("/returns_early", "without accepting or closing"),
        ("/bad_subprotocol", "is none of those that the client has offered"),
    ):
        with Client(core, path) as client:
            assert client.answer().status == 500
            assert reason in core.log("handler failed")["error"]


@pytest.mark.parametrize(
    ("headers", "status"), [({"Sec-WebSocket-Version": "8"}, 426), ({"Sec-WebSocket-Key": "short"}, 400)]
)
def test_bad_handshakes(run: Run, headers: dict[str, str], status: int) -> None:
    core = run(APPLICATION)
    with Client(core, headers=headers) as client:
        answer = client.answer()
        assert answer.status == status
        assert answer.headers.get("sec-websocket-version") == ("13" if status == 426 else None)
        assert b"Sec-WebSocket-" in answer.body


def test_an_upgrade_to_something_else_is_an_ordinary_request(run: Run) -> None:
    source = (
        "async def application(scope, receive, send):\n    assert scope['type'] == 'http'\n"
        "    await send({'type': 'http.response.start', 'status': 200})\n"
        "    await send({'type': 'http.response.body', 'body': b'plain'})\n"
    )
    core = run(source)
    with Client(core, headers={"Upgrade": "h2c"}) as client:
        assert client.answer().body == b"plain"
        assert client.socket.recv(1) == b""


def test_the_application_closes(start: Run) -> None:
    core = start()
    with Client(core, "/closes").opened() as client:
        assert client.closing() == (3456, "had enough")
        assert "after the WebSocket was closed" in core.line("refused:")
        client.send(masked(TEXT, b"on its way") + close_frame(3456))
        client.ended()
    with Client(core, "/ends").opened() as client:
        assert client.closing() == (1000, "")
        client.send(close_frame(1000))
        client.ended()
    with Client(core, "/raises").opened() as client:
        assert client.closing() == (1011, "")
        assert "in a connection" in core.log("handler failed")["error"]
        client.send(close_frame(1011))
        client.ended()


def test_the_client_goes(start: Run) -> None:
    core = start()
    with Client(core).opened() as client:
        client.socket.shutdown(socket.SHUT_WR)
        assert core.line("left") == 'left [1006, ""]\n'
        assert client.closing() == (1001, "")
        client.ended()
    with Client(core).opened() as client:
        client.send(masked(CLOSE))
        assert client.closing() == (1005, "")
        client.ended()
        assert core.line("left") == 'left [1005, ""]\n'
    with Client(core, "/waits", slot=7):
        core.wait_until_running(7)
        core.cancel(7)
        assert core.line("waited") == "waited 1006\n"
        assert core.next_answer().slot == 7


def test_a_client_that_breaks_the_protocol(start: Run) -> None:
    core = start(websocket={"message_size": 1000})
    for data, code in ((b"\x81\x01x", 1002), (masked(TEXT, b"\xff"), 1007), (masked(BINARY, bytes(1001)), 1009)):
        with Client(core).opened() as client:
            client.send(data + bytes(100_000))
            assert client.closing()[0] == code
            client.ended()
            record = core.log("WebSocket: the client has broken the protocol")
            assert (record["level"], record["code"]) == ("info", code)
            assert record["reason"]
            assert json.loads(core.line("left").partition(" ")[2])[0] == code


def test_mistakes_of_the_application(start: Run) -> None:
    core = start()
    with Client(core, "/bad").opened() as client:
        for error in (
            "TypeError websocket.send needs bytes, or text as str, not bytes",
            "TypeError websocket.send needs bytes, or text as str, not NoneType",
            "ValueError 1006 is no close code",
            "RuntimeError send() was given websocket.accept on an open WebSocket",
            "RuntimeError send() was given http.response.start on an open WebSocket",
            "TypeError bytes of websocket.send must be bytes, not str",
        ):
            assert error in core.line("bad:")
        assert client.frame() == (TEXT, b"still open")


def test_back_pressure_from_the_client(start: Run, tmp_path: Path) -> None:
    core = start()
    with Client(core, "/slow").opened() as client:
        client.socket.settimeout(0.1)
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                sent += client.socket.send(masked(BINARY, bytes(10_000)))
        assert sent < 3_000_000
        client.socket.settimeout(PATIENCE_S)
    (tmp_path / "go").touch()
    with Client(core, "/slow").opened() as client:
        client.send(masked(TEXT, b"x") * 1000)
        assert client.frame() == (TEXT, b"1000")


def test_back_pressure_to_the_client(start: Run) -> None:
    core = start()
    with Client(core, "/floods").opened() as client:
        assert client.frame() == (BINARY, bytes(50_000))
        with Client(core).opened() as other:  # the loop is not held up
            other.send(masked(TEXT, b"x"))
            assert other.frame() == (TEXT, b"x")
    line = core.line("flood ended").split()
    assert int(line[2]) < 3_000_000
    assert line[3] == "ClientGoneError"
    core.stop()
    assert core.exit_status() == 0
    assert not [message for message in core.messages if message.get("event") == "handler failed"]


def test_keepalive(start: Run) -> None:
    core = start(websocket={"ping_interval_ms": 50, "ping_timeout_ms": 2000})
    with Client(core).opened() as client:
        for _ in range(3):
            opcode, payload = client.frame()
            assert opcode == PING
            client.send(masked(PONG, payload))
        while (found := client.frame())[0] == PING:
            pass
        assert found == (CLOSE, struct.pack(">H", 1011) + b"keepalive ping timeout")
        client.ended()
        assert core.log("WebSocket: the client does not answer pings")["level"] == "info"
        assert core.line("left") == 'left [1006, "keepalive ping timeout"]\n'


@pytest.mark.parametrize(("reason", "code"), [("", 1001), ("replaced", 1012)])
def test_stop(start: Run, reason: str, code: int) -> None:
    core = start()
    with Client(core).opened() as client:
        core.control.send(json.dumps({"type": "stop", "reason": reason, "time_ms": 10_000}).encode())
        assert client.closing() == (code, "")
        assert core.line("left") == f'left [{code}, ""]\n'
        client.send(close_frame(code))
        client.ended()
    assert core.exit_status() == 0


def test_compression(start: Run) -> None:
    core = start()
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    with Client(core, headers=offer) as client:
        agreed = core.next_answer().headers["sec-websocket-extensions"]
        assert agreed == "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
        client.send(masked(TEXT, bytes.fromhex("f248cdc9c90700"), bits=0x40))
        assert client.frame() == (TEXT, b"Hello")
        client.send(masked(BINARY, bytes(50_000)))
        opcode, payload = client.frame()
        assert opcode == BINARY
        assert len(payload) < 1000
    core = start(websocket={"compression": False})
    with Client(core, headers=offer) as client:
        assert "sec-websocket-extensions" not in core.next_answer().headers


def test_no_descriptor_is_left_behind(start: Run) -> None:
    core = start()
    fds = Path(f"/proc/{core.process.pid}/fd")

    def count() -> int:
        return sum(1 for _ in fds.iterdir())

    def one(path: str) -> None:
        with Client(core, path) as client:
            kind = core.next_answer().kind
            if kind == wire.UPGRADED:
                assert client.closing()[0] in (1000, 1011, 3456)
                client.send(close_frame(1000))
                client.ended()

    for path in ("/ends", "/refuses"):
        one(path)
    before = count()
    for path in ("/ends", "/refuses", "/raises", "/closes", "/raises_early", "/ends"):
        one(path)
    until = time.monotonic() + PATIENCE_S
    while count() > before:
        assert time.monotonic() < until, f"{count()} descriptors, and {before} before"
        time.sleep(0.01)
