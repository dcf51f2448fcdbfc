"""WebSockets through the real server: with a client of another make, and with raw frames that no client would send."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from harness import PATIENCE_S, Connection, Server, wait_for
from websocket_clients import client, close_of
from websockets.exceptions import InvalidStatus

APPLICATION = r"""
import asyncio, json
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

async def echo(websocket):
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"], message.get("reason"))
            await websocket.send({**message, "type": "websocket.send"})
    except WebSocketDisconnect as gone:
        print("left with", gone.code, flush=True)

async def about(websocket):
    await websocket.accept("b", headers=[(b"x-a", b"1")])
    await websocket.send_json([websocket.scope["scheme"], websocket.scope["subprotocols"], str(websocket.url)])
    await websocket.close(3001, "that is all")

async def refuses(websocket):
    await websocket.close()

async def denies(websocket):
    await websocket.send_denial_response(PlainTextResponse("pay first", 402, headers={"x-why": "money"}))

async def fails(websocket):
    await websocket.accept()
    raise LookupError("in a WebSocket")

async def counts(websocket):
    await websocket.accept()
    for number in range(int(websocket.query_params["to"])):
        await websocket.send_text(f"{number} " * 100)

async def plain(request):
    return PlainTextResponse("plain")

app = Starlette(routes=[WebSocketRoute("/echo", echo), WebSocketRoute("/about", about),
                        WebSocketRoute("/refuses", refuses), WebSocketRoute("/denies", denies),
                        WebSocketRoute("/fails", fails), WebSocketRoute("/counts", counts), Route("/", plain)])
"""

CONFIG = """
log: {access: "off"}
limits: {idle_timeout: 1s}
pools:
  chat: {python: "chat:app", directory: ., processes: 2, websocket: {message_size: 100KiB, ping_interval: 200ms}}
sites: [{rules: [{match: {path: /*}, handler: {python: chat}}]}]
"""


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Iterator[Server]:
    server = serve_module({"chat.py": APPLICATION}, config=CONFIG)
    # libuv opens /dev/null with the first stream of a loop, and keeps it.
    for _ in range(30):
        with client(server, "/echo"):
            pass
    server.remember_fds()
    yield server


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages(server: Server, compression: str | None) -> None:
    with client(server, "/echo", compression=compression) as connection:
        for message in ("text", "grüße €", "", b"bytes", b"", os.urandom(90_000), "x" * 100_000):
            connection.send(message)
            assert connection.recv() == message
        connection.send(["in ", "several ", "fragments"])
        assert connection.recv() == "in several fragments"
        connection.send([b"a" * 40_000, b"b" * 40_000])
        assert connection.recv() == b"a" * 40_000 + b"b" * 40_000
        assert connection.ping("are you there?").wait(10)


def test_handshake(server: Server) -> None:
    with client(server, "/about", subprotocols=["a", "b"]) as connection:
        assert connection.subprotocol == "b"
        assert connection.response is not None
        assert connection.response.headers["x-a"] == "1"
        assert connection.protocol.extensions
        scheme, subprotocols, url = json.loads(connection.recv())
        assert (scheme, subprotocols) == ("ws", ["a", "b"])
        assert url == f"ws://127.0.0.1:{server.port}/about"
        assert close_of(connection) == (3001, "that is all")


@pytest.mark.parametrize(("path", "status", "body"), [("/refuses", 403, None), ("/denies", 402, b"pay first")])
def test_refused(server: Server, path: str, status: int, body: bytes | None) -> None:
    with pytest.raises(InvalidStatus) as refused:
        client(server, path)
    assert refused.value.response.status_code == status
    assert body is None or refused.value.response.body == body


def test_failure(server: Server) -> None:
    with client(server, "/fails") as connection:
        assert close_of(connection)[0] == 1011
    server.wait_for_log("LookupError: in a WebSocket")


def test_many_at_once_and_longer_than_an_idle_connection_may_be(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(client(server, "/echo", compression=None)) for _ in range(30)]
        # Until every client has had several pings: that takes longer than idle_timeout lets other connections be.
        threading.Event().wait(1.5)
        for number, connection in enumerate(connections):
            connection.send(str(number))
        assert [connection.recv() for connection in connections] == [str(number) for number in range(30)]
        assert server.get("/").text == "plain"


def test_a_slow_reader_gets_everything(server: Server) -> None:
    with client(server, "/counts?to=5000", max_queue=1) as connection:
        found = list(connection)
    assert found == [f"{number} " * 100 for number in range(5000)]


# Raw


def open_raw(server: Server, path: str = "/echo", **more: str) -> Connection:
    """A connection after its handshake; what follows the head stays in `file`."""
    connection = server.connect()
    connection.send(handshake(path, **more))
    response = connection.interim()
    assert response.status == 101
    return connection


def handshake(path: str = "/echo", **more: str) -> str:
    fields = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n"


def frame(opcode: int, payload: bytes = b"", first: int = 0x80) -> bytes:
    mask = b"mask"
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0xFE, size)
    return bytes([first | opcode]) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def read_close(connection: Connection) -> int:
    """The code of the close frame that comes, behind pings."""
    while True:
        first, size = connection.file.read(2)
        payload = connection.file.read(size)
        if first == 0x88:
            return int.from_bytes(payload[:2], "big")
        assert first == 0x89, (first, payload)


HOSTILE = {
    "unmasked": (b"\x81\x02hi", 1002),
    "reserved bits": (frame(1, b"x", 0xF0), 1002),
    "reserved opcode": (frame(5), 1002),
    "fragmented ping": (frame(9, b"x", 0), 1002),
    "long ping": (frame(9, bytes(126)), 1002),
    "bad UTF-8": (frame(1, b"\xff\xfe"), 1007),
    "bad UTF-8 across fragments": (frame(1, b"\xe2\x82", 0) + frame(0, b"x"), 1007),
    "too large": (b"\x82\xff" + struct.pack(">Q", 2**40), 1009),
    "bad close code": (frame(8, b"\x03\xed"), 1002),
    "continuation of nothing": (frame(0, b"x"), 1002),
    "compressed without agreement": (frame(1, b"x", 0xC0), 1002),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_frames(server: Server, name: str) -> None:
    data, code = HOSTILE[name]
    before = len(server.records("the client has broken the protocol"))
    with open_raw(server) as connection:
        connection.send(data + os.urandom(1000))
        assert read_close(connection) == code
        assert connection.closed()
    wait_for(lambda: len(server.records("the client has broken the protocol")) > before, "a line in the log")
    assert server.records("the client has broken the protocol")[-1]["code"] == code
    with client(server, "/echo") as connection_after:
        connection_after.send("still there")
        assert connection_after.recv() == "still there"


def test_bytes_right_behind_the_handshake(server: Server) -> None:
    with server.connect() as connection:
        connection.send(handshake().encode() + frame(1, b"early"))
        assert connection.interim().status == 101
        assert connection.file.read(7) == b"\x81\x05early"


def test_a_frame_byte_by_byte(server: Server) -> None:
    with open_raw(server) as connection:
        for byte in frame(1, b"slowly"):
            connection.send(bytes([byte]))
        first = connection.file.read(2)
        while first[0] == 0x89:
            connection.file.read(first[1])
            first = connection.file.read(2)
        assert first + connection.file.read(6) == b"\x81\x06slowly"


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Version": ""}, 426),
        ({"Sec_WebSocket_Key": "short"}, 400),
        ({"Sec_WebSocket_Key": ""}, 400),
    ],
)
def test_bad_handshakes(server: Server, more: dict[str, str], status: int) -> None:
    with server.connect() as connection:
        response = connection.send(handshake(**more)).response()
        assert response.status == status
        assert response.header("sec-websocket-version") == ("13" if status == 426 else None)


def test_an_ordinary_request_to_a_websocket_and_the_other_way_round(server: Server) -> None:
    assert server.get("/echo").status == 404
    with server.connect() as connection:
        assert connection.send(handshake("/")).response().status == 403


def test_a_client_that_goes(server: Server) -> None:
    before = server.log().count("left with 1006")
    with open_raw(server):
        pass
    server.wait_for_log("left with 1006", before + 1)
    before = server.log().count("left with 1005")
    with open_raw(server) as connection:
        connection.send(frame(8))
        assert connection.file.read(2) == b"\x88\x00" or connection.closed()
    server.wait_for_log("left with 1005", before + 1)


def test_stop_and_reload(serve: Any) -> None:
    server = serve({"chat.py": APPLICATION}, config=CONFIG)
    server.fds_before = {}  # every worker is replaced
    old = set(server.pids("workers/main.py"))
    with client(server, "/echo") as connection:
        connection.send("before")
        assert connection.recv() == "before"
        server.kill(signal.SIGHUP)
        assert close_of(connection)[0] == 1012
    wait_for(lambda: not old & set(server.pids("workers/main.py")), "the old workers have gone")
    server.wait_for_log("left with 1012")  # the application knows it, too
    with client(server, "/echo") as connection:
        connection.send("again")
        assert connection.recv() == "again"
        server.kill(signal.SIGTERM)
        assert close_of(connection)[0] == 1001
    assert server.process.wait(PATIENCE_S) == 0
    server.wait_for_log("left with 1001")
