"""Asynchronous applications and handlers that do what they must not: a clear status, the reason in the log, and the
other workers untouched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness import PATIENCE_S, Server
from misdeeds import (
    ALLOCATES,
    DEATHS,
    MODULE,
    expect_cut_off,
    expect_death,
    expect_flood_to_be_bounded,
    expect_only_the_parent_to_come_back,
    expect_refusal,
    expect_stuck_worker_to_be_replaced,
    failures,
    others_untouched,
    wait_for_failure,
    wait_for_replacement,
    workers,
)
from websocket_clients import client, close_of
from websockets.exceptions import ConnectionClosed, InvalidStatus

BAD = r"""
import asyncio, os, sys
from urllib.parse import unquote
from misdeeds import MISDEEDS

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    path, query = scope["path"].rpartition("/")[2], unquote(scope["query_string"].decode())
    if scope["type"] == "websocket":
        return await sockets(path, query, receive, send)

    async def start(*headers, status=200):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def body(data, more=False):
        await send({"type": "http.response.body", "body": data, "more_body": more})

    if path == "pid":
        await start()
        return await body(b"%d" % os.getpid())
    if path == "nothing":
        return 5
    if path == "only_start":
        return await start()
    if path == "no_start":
        return await body(b"body")
    if path == "twice":
        await start()
        return await start()
    if path == "behind_the_end":
        await start()
        await body(b"whole")
        return await body(b"more")
    if path == "no_dict":
        return await send(["http.response.start"])
    if path == "unknown":
        return await send({"type": "http.response.begin"})
    if path == "str":
        await start()
        return await body("text")
    if path == "number":
        await start()
        return await body(5)
    if path == "str_late":
        await start()
        await body(b"begun", True)
        return await body("text")
    if path == "short":
        await start((b"content-length", b"9"))
        return await body(b"four")
    if path == "long":
        await start((b"content-length", b"3"))
        return await body(b"four")
    if path == "short_stream":
        await start((b"content-length", b"9"))
        await body(b"fo", True)
        return await body(b"ur")
    if path == "long_stream":
        await start((b"content-length", b"3"))
        await body(b"fo", True)
        return await body(b"ur")
    if path == "length":
        await start((b"content-length", query.encode()))
        return await body(b"four")
    if path == "raises":
        raise RuntimeError("before the head")
    if path == "breaks":
        await start()
        await body(b"begun", True)
        raise RuntimeError("after the head")
    if path == "exit":
        sys.exit("leaves")
    if path == "status":
        return await start(status=int(query) if query.isdigit() else query)
    if path == "header":
        name, _, value = query.partition("=")
        await start((name.encode("latin-1"), value.encode("latin-1")))
        return await body(b"body")
    if path == "header_str":
        await start(("x-a", "text"))
        return await body(b"body")
    if path == "forever":
        await start()
        try:
            while True:
                await body(b"x" * 1000, True)
        except OSError:
            print("forever has ended", flush=True)
            raise
    if path == "waits":
        await asyncio.sleep(600)
    misdeed = MISDEEDS.get(path)
    if misdeed is not None:
        said = misdeed()
        await start()
        return await body(said)

async def sockets(path, query, receive, send):
    await receive()
    if path != "early":
        await send({"type": "websocket.accept"})
    if path == "number":
        await send({"type": "websocket.send", "text": 5})
    if path == "code":
        await send({"type": "websocket.close", "code": int(query)})
    if path == "unknown":
        await send({"type": "websocket.begin"})
    if path == "exits":
        await receive()
        os._exit(7)
    if path == "early":
        await send({"type": "websocket.send", "text": "before it is accepted"})
"""
HANDLE = r"""
{asynchronous}def handle(request):
    what = request.path_info[1:]
    if what == "number":
        return 5
    if what == "object":
        return object()
    if what == "tuple":
        return ("body", 200, {{}}, "more")
    if what == "status":
        return "body", "fine"
    if what == "low_status":
        return "body", 42
    if what == "header":
        return "body", 200, {{"X-A": "1\r\nX-Injected: 2"}}
    if what == "header_name":
        return "body", 200, {{"X A": "1"}}
    if what == "header_type":
        return "body", 200, {{"X-A": 5}}
    if what == "json":
        return {{"a": object()}}
    if what == "raises":
        raise RuntimeError("in the handler")
    if what == "stream":
        return iter(["begun", 5])
    return "fine"
"""
CONFIG = """
log: {access: "off"}
pools:
  bad:
    python: "bad:application"
    directory: .
    processes: 2
    limits: {request_time: 4s, interrupt_time: 3s}
  handlers: {processes: 1}
sites:
  - rules:
      - {match: {path: /bad/*}, handler: {python: bad}}
      - {match: {path: /*}, handler: {scripts: ./handlers}}
"""


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Iterator[Server]:
    files = {
        "bad.py": BAD,
        "misdeeds.py": MODULE,
        "handlers/plain.py": HANDLE.format(asynchronous=""),
        "handlers/later.py": HANDLE.format(asynchronous="async "),
        "handlers/pid.py": "import os\n\ndef handle(request):\n    return str(os.getpid())\n",
    }
    yield serve_module(files, config=CONFIG)


@pytest.fixture(autouse=True)
def untouched(server: Server) -> Iterator[None]:
    with others_untouched(server, "/pid"):
        yield


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("nothing", "the application returned after it had sent nothing; the response is not complete"),
        ("only_start", "after it had sent http.response.start; the response is not complete"),
        ("no_start", "send() was given http.response.body after nothing"),
        ("twice", "send() was given http.response.start after http.response.start"),
        ("no_dict", "TypeError"),
        ("unknown", "send() was given a message of unknown type 'http.response.begin'"),
        ("str", "the body of a message must be bytes, not str"),
        ("number", "the body of a message must be bytes, not int"),
        ("short", "the body is shorter than its Content-Length: 4 bytes, and 9 were announced"),
        ("long", "the body is longer than its Content-Length: 4 bytes, and 3 were announced"),
        ("length?-1", "Content-Length must be a number, not '-1'"),
        ("raises", "RuntimeError: before the head"),
        ("exit", "SystemExit: leaves"),
        ("status?99", "status"),
        ("status?600", "status"),
        ("status?OK", "status"),
        ("header?X-A=1%0d%0aX-Injected:%202", "control character in header X-A"),
        ("header?X-A=%00", "control character in header X-A"),
        ("header?X%20Space=1", "not a header name: 'X Space'"),
        ("header?X-Injected%0d%0aX-Evil=1", "not a header name"),
        ("header?=1", "not a header name: ''"),
        ("header_str", "TypeError"),
        ALLOCATES,
    ],
)
def test_refused_with_500_and_the_reason(server: Server, target: str, why: str) -> None:
    assert expect_refusal(server, f"/bad/{target}", why)["application"] == "bad:application"


@pytest.mark.parametrize("header", ["Connection=close", "Transfer-Encoding=chunked"])
def test_headers_of_the_connection_are_left_out(server: Server, header: str) -> None:
    """As the specification has it: they are the server's."""
    with server.connect() as connection:
        for _ in range(2):
            connection.send(f"GET /bad/header?{header} HTTP/1.1\r\nHost: a\r\n\r\n")
            response = connection.response()
            assert (response.status, response.text) == (200, "body")
            assert response.header(header.partition("=")[0]) is None


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("str_late", "the body of a message must be bytes, not str"),
        ("breaks", "RuntimeError: after the head"),
        ("short_stream", "the body is shorter than its Content-Length: 4 bytes, and 9 were announced"),
        ("long_stream", "the body is longer than its Content-Length: 4 bytes, and 3 were announced"),
    ],
)
def test_failure_after_the_head_cuts_the_answer_off(server: Server, target: str, why: str) -> None:
    expect_cut_off(server, f"/bad/{target}", why)


def test_more_behind_the_end_is_told_and_the_answer_stays(server: Server) -> None:
    before = failures(server)
    assert server.get("/bad/behind_the_end").text == "whole"
    assert "http.response.body after all of the response" in wait_for_failure(server, before)["error"]


def test_sends_forever(server: Server) -> None:
    with server.connect() as connection:
        connection.send("GET /bad/forever HTTP/1.1\r\nHost: a\r\n\r\n")
        assert len(connection.file.read(100_000)) == 100_000
    server.wait_for_log("forever has ended")


def test_never_answers(server: Server) -> None:
    """Its task is cancelled, and the loop goes on."""
    pids = workers(server)
    assert server.get("/bad/waits").status == 504
    server.wait_for_log("the request was cancelled: its time is over")
    assert workers(server) == pids


def test_blocks_the_loop(server: Server) -> None:
    expect_stuck_worker_to_be_replaced(server)


@pytest.mark.parametrize(("name", "sentence"), DEATHS)
def test_ends_the_process(server: Server, name: str, sentence: str) -> None:
    expect_death(server, name, sentence)


def test_forks_and_both_come_back(server: Server) -> None:
    expect_only_the_parent_to_come_back(server)


def test_closes_the_descriptors_of_its_worker(server: Server) -> None:
    pids = workers(server)
    server.allowed.append("uv__io_poll: Assertion")  # libuv ends the process
    assert server.post("/bad/closes", b"").status == 502
    wait_for_replacement(server, pids, "the worker")
    assert json.loads(server.wait_for_log('"pool": "bad".*"executor (ended|was killed)|"executor (ended|was killed)'))
    for _ in range(4):
        assert server.get("/bad/pid").status == 200


def test_floods_stderr(server: Server) -> None:
    expect_flood_to_be_bounded(server, "/pid")


# WebSockets


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("number", "TypeError"),
        ("unknown", "send() was given websocket.begin on an open WebSocket"),
        *((f"code?{code}", f"{code} is no close code that may be sent") for code in (1, 999, 1005, 1006, 1015, 5000)),
    ],
)
def test_mistakes_on_a_websocket(server: Server, path: str, why: str) -> None:
    before = failures(server)
    with client(server, f"/bad/{path}") as connection:
        assert close_of(connection)[0] == 1011
    assert why in wait_for_failure(server, before)["error"]


def test_mistakes_before_it_is_accepted(server: Server) -> None:
    before = failures(server)
    with pytest.raises(InvalidStatus) as refused:
        client(server, "/bad/early")
    assert refused.value.response.status_code == 500
    error = wait_for_failure(server, before)["error"]
    assert "send() was given websocket.send before the WebSocket was accepted" in error


def test_a_websocket_whose_worker_dies(server: Server) -> None:
    pids = workers(server)
    with client(server, "/bad/exits") as connection, pytest.raises(ConnectionClosed) as closed:
        connection.send("now")
        connection.recv(PATIENCE_S)
    assert closed.value.rcvd is None  # there is nobody who could say why
    wait_for_replacement(server, pids, "the dead worker")


# Handlers


@pytest.mark.parametrize("script", ["plain", "later"])
@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("number", "TypeError: a handler returns str, bytes, dict"),
        ("object", "TypeError: a handler returns str, bytes, dict"),
        ("tuple", "TypeError: a handler's tuple is (body, status) or (body, status, headers)"),
        ("status", "status must be a number, not 'fine'"),
        ("low_status", "status"),
        ("header", "control character in header X-A"),
        ("header_name", "not a header name: 'X A'"),
        ("header_type", ""),
        ("json", "TypeError: Object of type object is not JSON serializable"),
        ("raises", "RuntimeError: in the handler"),
    ],
)
def test_bad_handlers(server: Server, script: str, what: str, why: str) -> None:
    pids = workers(server)
    expect_refusal(server, f"/{script}/{what}", why)
    assert server.get(f"/{script}").text == "fine"
    assert workers(server) == pids


@pytest.mark.parametrize("script", ["plain", "later"])
def test_bad_piece_of_a_stream(server: Server, script: str) -> None:
    expect_cut_off(server, f"/{script}/stream", "a streaming handler yields str or bytes, not int")
