"""WebSockets of handler scripts: `async def websocket(socket)` beside `handle`, or instead of it."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from crews import command, pool
from harness import PATIENCE_S, Server, wait_for
from websocket_clients import client, close_of
from websockets.exceptions import InvalidStatus

SCRIPTS = {
    "handlers/echo.py": """\
def handle(request):
    return f"{request.method} without a WebSocket"

async def websocket(socket):
    async for message in socket:
        await socket.send(message)
    print("the echo is over", flush=True)
""",
    "handlers/talk.py": """\
from pathlib import Path
from appserver_handler import BadInput, Disconnected, Response

async def websocket(socket):
    return await globals()["at_" + socket.request.path_info[1:]](socket)

async def at_about(socket):
    await socket.accept(socket.subprotocols[1], {"X-A": "1"})
    request = socket.request
    about = {"query": request.query["a"], "cookie": request.cookies["c"]}
    await socket.send({**about, "url": request.url, "path": request.path})
    await socket.close(3001, "that is all")
    await socket.close()  # nothing is left to close

async def at_json(socket):
    while True:
        await socket.send([await socket.receive_json()])

async def at_wrong_subprotocol(socket):
    await socket.accept("nobody offered it")

async def at_returns(socket):
    await socket.accept()
    return "too late"

async def at_sends_a_number(socket):
    await socket.send(7)

async def at_fails(socket):
    await socket.accept()
    raise LookupError("in a script's WebSocket")

async def at_leaves(socket):
    await socket.accept()

async def at_code(socket):
    await socket.accept()
    try:
        while True:
            await socket.receive()
    except Disconnected as end:
        print("ended with", end.code, end.reason, flush=True)
        try:
            await socket.send("to nobody")
        except Disconnected as end:
            print("sent after", end.code, flush=True)
        raise

async def at_counts(socket):
    for number in range(5000):
        await socket.send(f"{number} " * 100)
""",
    "handlers/refused.py": """\
from appserver_handler import BadInput, Response

async def websocket(socket):
    how = socket.request.path_info[1:]
    if how == "close":
        await socket.close()
    elif how == "tuple":
        return {"error": "pay first"}, 402, {"X-Why": "money"}
    elif how == "response":
        return Response("<p>no", 451)
    elif how == "stream":
        return (piece for piece in ("not ", "here")), 409
    elif how == "bad":
        raise BadInput("no such room")
    elif how == "fails":
        raise LookupError("before it was accepted")
""",
    "handlers/plain.py": "def handle(request):\n    return [request.method, request.body.decode()]\n",
    "handlers/waits.py": """\
import asyncio

gone_on = asyncio.Event()

async def handle(request):
    if request.path_info == "/go":
        gone_on.set()
    await gone_on.wait()
    return "waited"
""",
    "handlers/star.py": """\
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

async def echo(websocket):
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(message)

async def plain(request):
    return PlainTextResponse("star")

app = Starlette(routes=[WebSocketRoute("/echo", echo), Route("/", plain)])
""",
}
CONFIG = """\
control: control.sock
log: {access: "off"}
pools:
  handlers: {processes: 1, threads: 2, websocket: {message_size: 100KiB}}
sites: [{rules: [{match: {path: /*}, handler: {scripts: ./handlers}}]}]
"""


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Iterator[Server]:
    server = serve_module(SCRIPTS, config=CONFIG)
    # Pages of the default executor and of libuv, which opens /dev/null with the first stream of a loop.
    with client(server, "/echo"):
        pass
    assert server.get("/star/").text == "star"
    server.remember_fds()
    yield server


@pytest.mark.parametrize("path", ["/echo", "/star/echo"])
@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages(server: Server, path: str, compression: str | None) -> None:
    with client(server, path, compression=compression) as connection:
        for message in ("text", "grüße €", "x" * 100_000):
            connection.send(message)
            assert connection.recv(PATIENCE_S) == message
        if path == "/echo":
            connection.send(b"\x00bytes")
            assert connection.recv(PATIENCE_S) == b"\x00bytes"
    if path == "/echo":
        server.wait_for_log("the echo is over")


def test_request_subprotocol_and_close(server: Server) -> None:
    with client(server, "/talk/about?a=b", subprotocols=["a", "b"], additional_headers={"Cookie": "c=d"}) as connection:
        assert connection.subprotocol == "b"
        assert connection.response is not None
        assert connection.response.headers["x-a"] == "1"
        assert json.loads(connection.recv(PATIENCE_S)) == {
            "query": "b",
            "cookie": "d",
            "url": f"http://127.0.0.1:{server.port}/talk/about?a=b",
            "path": "/talk/about",
        }
        assert close_of(connection) == (3001, "that is all")


def test_json(server: Server) -> None:
    with client(server, "/talk/json") as connection:
        connection.send('{"a": "ü"}')
        assert connection.recv(PATIENCE_S) == '[{"a": "ü"}]'
        connection.send("{")
        code, reason = close_of(connection)
        assert code == 1007
        assert reason.startswith("the message is not JSON")


@pytest.mark.parametrize(
    ("how", "status", "body"),
    [
        ("close", 403, None),
        ("nothing", 403, None),
        ("tuple", 402, b'{"error": "pay first"}'),
        ("response", 451, b"<p>no"),
        ("stream", 409, b"not here"),
        ("bad", 400, b"no such room\n"),
        ("fails", 500, None),
    ],
)
def test_refused(server: Server, how: str, status: int, body: bytes | None) -> None:
    with pytest.raises(InvalidStatus) as refused:
        client(server, f"/refused/{how}")
    assert refused.value.response.status_code == status
    assert body is None or refused.value.response.body == body


@pytest.mark.parametrize(
    ("path", "code", "told"),
    [
        ("fails", 1011, "LookupError: in a script's WebSocket"),
        ("returns", 1011, r"TypeError: websocket\(\) returns nothing once the WebSocket is accepted, not str"),
        ("sends_a_number", 1011, "TypeError: a message is str, bytes, dict or list, not int"),
        ("leaves", 1000, ""),
    ],
)
def test_how_it_ends(server: Server, path: str, code: int, told: str) -> None:
    with client(server, f"/talk/{path}") as connection:
        assert close_of(connection)[0] == code
    server.wait_for_log(told)


def test_a_subprotocol_that_was_not_offered(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        client(server, "/talk/wrong_subprotocol")
    assert refused.value.response.status_code == 500
    server.wait_for_log("ValueError: subprotocol 'nobody offered it' is none of those that the client has offered")


def test_the_end_that_the_script_sees(server: Server) -> None:
    with client(server, "/talk/code") as connection:
        connection.close(4001, "bye")
    server.wait_for_log("ended with 4001 bye")
    server.wait_for_log("sent after 4001")
    with client(server, "/talk/code", compression=None) as connection:
        connection.send("x" * 102_401)
        assert close_of(connection)[0] == 1009
    server.wait_for_log("ended with 1009")


def test_a_slow_reader_gets_everything(server: Server) -> None:
    with client(server, "/talk/counts", max_queue=1) as connection:
        found = list(connection)
    assert found == [f"{number} " * 100 for number in range(5000)]


def test_other_requests_to_a_script_with_a_websocket(server: Server) -> None:
    assert server.get("/echo").text == "GET without a WebSocket"
    for method in ("GET", "POST"):
        answer = server.get("/talk/about", method=method)
        assert answer.status == 426
        assert answer.header("upgrade") == "websocket"
        assert answer.all("connection") == ["close", "upgrade"]
    answer = server.get("/echo", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert answer.status == 426  # without a version
    assert (answer.header("sec-websocket-version"), answer.header("upgrade")) == ("13", "websocket")


def test_more_at_once_than_there_are_threads(server: Server) -> None:
    """What waits in the event loop holds no thread, and the core knows it."""
    assert pool(server, "handlers")["capacity"] == 2 + 100
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(client(server, "/echo")) for _ in range(20)]
        waiting = [stack.enter_context(server.connect()) for _ in range(20)]
        for connection in waiting:
            connection.send("GET /waits HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: pool(server, "handlers")["running"] == 40, "all of them are held at the same time")
        assert server.get("/plain").text == '["GET", ""]'
        for number, each in enumerate(connections):
            each.send(str(number))
        assert [each.recv(PATIENCE_S) for each in connections] == [str(number) for number in range(20)]
        assert server.get("/waits/go").text == "waited"
        assert [connection.response().text for connection in waiting] == ["waited"] * 20


@pytest.mark.parametrize("path", ["/plain", "/waits/go"])
def test_a_websocket_where_there_is_none(server: Server, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        client(server, path)
    assert refused.value.response.status_code == 200
    assert server.post("/plain", b"x" * 100_000).text == json.dumps(["POST", "x" * 100_000])


def test_scripts_that_cannot_be(serve: Any) -> None:
    files = {
        "handlers/sync.py": "def websocket(socket):\n    pass\n",
        "handlers/both.py": "async def app(scope, receive, send):\n    pass\n\nasync def websocket(socket):\n    1\n",
        "handlers/good.py": "import websocket_client as websocket\n\ndef handle(request):\n    return 'good'\n",
        "handlers/websocket_client.py": "def handle(request):\n    return 'module'\n",
    }
    server = serve(files, config=CONFIG)
    server.wait_for_log(r"`websocket` of script .*sync.py must be a coroutine function: async def websocket\(socket\)")
    server.wait_for_log(r"both.py has an ASGI application, which takes WebSockets itself, and `websocket`")
    assert (server.get("/sync").status, server.get("/both").status) == (500, 500)
    assert server.get("/good").text == "good"
    with pytest.raises(InvalidStatus):
        client(server, "/good")


def test_reload_and_stop(serve: Any) -> None:
    server = serve(SCRIPTS, config=CONFIG)
    server.fds_before = {}  # every worker is replaced
    with client(server, "/talk/code") as connection:
        assert command(server, "reload").returncode == 0
        assert close_of(connection)[0] == 1012
    server.wait_for_log("ended with 1012")
    with client(server, "/talk/code") as connection:
        server.kill(signal.SIGTERM)
        assert close_of(connection)[0] == 1001
    assert server.process.wait(PATIENCE_S) == 0
    server.wait_for_log("ended with 1001")
