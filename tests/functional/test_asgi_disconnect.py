"""What asynchronous applications learn of clients that leave, with either kind of event loop."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Server

APPLICATION = """\
import asyncio
import sys

LOOP = "%s"


def say(text):
    print(LOOP, text, flush=True)


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        say("runs in a loop of " + type(asyncio.get_running_loop()).__module__.partition(".")[0])
        return
    path = scope["path"].rpartition("/")[2]
    assert (await receive())["type"] == "http.request"
    if path == "waits":
        say("waits begins")
        say("waits " + (await receive())["type"])
        await refused(send, "waits", {"type": "http.response.start", "status": 200, "headers": []})
        return
    if path == "whole":
        listening = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"beg", "more_body": True})
        await send({"type": "http.response.body", "body": b"un", "more_body": True})
        say(f"whole {(await listening)['type']}")
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body"})
        say("whole has ended")
        return
    if path == "few":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"some", b"", b"more"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
        say("few has ended")
        return
    listening = asyncio.ensure_future(receive()) if path == "both" else None
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    if path in ("sends", "endless", "hasty"):
        piece = b"" if path == "sends" else b"piece"  # what has nothing in it may still be told that nobody reads
        try:
            while True:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                if path != "hasty":
                    await asyncio.sleep(0.01)
        except OSError:
            say(path + " OSError")
            raise
    message = await (listening or receive())
    say(f"{path} {message['type']}")
    say(f"{path} again {(await receive())['type']}")
    await refused(send, path, {"type": "http.response.body", "body": b"more", "more_body": True})
    await refused(send, path, {"type": "http.response.body"})


async def refused(send, path, message):
    try:
        await send(message)
    except OSError as error:
        say(f"{path} refused {message['type']}")
    else:
        say(f"{path} could send {message}")
"""
GENERATOR = """\
import asyncio


async def handle(request):
    try:
        yield "begun"
        await asyncio.Event().wait()
    finally:
        print(request.method, "the generator is closed", flush=True)
"""
CONFIG = """\
log: {access: "off"}
pools:
  fast: {python: "app:application", directory: fast, processes: 1}
  slow: {python: "app:application", directory: slow, processes: 1}
  handlers: {processes: 1}
sites:
  - rules:
      - {match: {path: /uvloop/*}, handler: {python: fast}}
      - {match: {path: /asyncio/*}, handler: {python: slow}}
      - {match: {path: /*}, handler: {scripts: ./handlers}}
"""


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Server:
    pytest.importorskip("uvloop")
    files = {
        "fast/app.py": APPLICATION % "uvloop",
        "slow/app.py": APPLICATION % "asyncio",
        "slow/uvloop.py": "raise ImportError('not here')\n",
        "handlers/rare.py": GENERATOR,
    }
    server: Server = serve_module(files, config=CONFIG)
    server.wait_for_log("uvloop runs in a loop of uvloop")
    server.wait_for_log("asyncio runs in a loop of asyncio")
    return server


def leave(server: Server, target: str) -> None:
    """A client that goes once the response has begun."""
    with server.connect() as connection:
        connection.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.read_until(b"begun")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("path", ["listens", "both"])
def test_a_stream_learns_it_while_it_listens(server: Server, loop: str, path: str) -> None:
    """Before the stream begins, or after."""
    leave(server, f"/{loop}/{path}")
    server.wait_for_log(f"{loop} {path} http.disconnect")
    server.wait_for_log(f"{loop} {path} again http.disconnect")
    server.wait_for_log(f"{loop} {path} refused http.response.body", 2)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_stream_learns_it_when_it_sends(server: Server, loop: str) -> None:
    before = len(server.records("handler failed"))
    leave(server, f"/{loop}/sends")
    server.wait_for_log(f"{loop} sends OSError")
    assert len(server.records("handler failed")) == before


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_client_that_has_all_of_it_has_not_left(server: Server, loop: str) -> None:
    assert server.get(f"/{loop}/whole").text == "begun"
    server.wait_for_log(f"{loop} whole http.disconnect")
    server.wait_for_log(f"{loop} whole has ended")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_before_the_response(server: Server, loop: str) -> None:
    with server.connect() as connection:
        connection.send(f"GET /{loop}/waits HTTP/1.1\r\nHost: localhost\r\n\r\n")
        server.wait_for_log(f"{loop} waits begins")
    server.wait_for_log(f"{loop} waits http.disconnect")
    server.wait_for_log(f"{loop} waits refused http.response.start")


def test_a_generator_is_closed_while_it_waits(server: Server) -> None:
    before = len(server.records("handler failed"))
    leave(server, "/rare")
    server.wait_for_log("GET the generator is closed")
    assert len(server.records("handler failed")) == before


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_after_the_answer_to_head_a_stream_does_not_go_on_for_ever(server: Server, loop: str) -> None:
    """It has no end of its own, and no client that could leave."""
    before = len(server.records("handler failed"))
    for path, message in (("endless", "OSError"), ("hasty", "OSError"), ("hears", "http.disconnect")):
        response = server.get(f"/{loop}/{path}", method="HEAD")
        assert (response.status, response.header("content-length")) == (200, None)
        server.wait_for_log(f"{loop} {path} {message}")
    assert server.get("/rare", method="HEAD").status == 200
    server.wait_for_log("HEAD the generator is closed")
    assert server.get(f"/{loop}/few", method="HEAD").status == 200
    server.wait_for_log(f"{loop} few has ended")
    assert len(server.records("handler failed")) == before
