"""Asynchronous callables in the embedded server: one event loop beside the threads. This process is the program."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from harness import PATIENCE_S, SANITIZE, Connection, wait_for
from websocket_clients import client, close_of

if SANITIZE and "LD_PRELOAD" not in os.environ:
    pytest.skip("test_embedding_sanitized.py runs these tests in another process", allow_module_level=True)

from test_embedding import get

from appserver import BadInput, Server
from appserver.errors import ConfigError, StartError

Make = Callable[..., Server]


class Application:
    """ASGI: counts its startups and shutdowns, echoes, fails and waits as it is asked to."""

    def __init__(self) -> None:
        self.life: list[str] = []
        self.left: list[int] = []
        self.loops: set[int] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.loops.add(id(asyncio.get_running_loop()))
        if scope["type"] == "lifespan":
            for _ in range(2):
                kind = (await receive())["type"]
                self.life.append(kind)
                scope["state"]["from"] = "startup"
                await send({"type": f"{kind}.complete"})
        elif scope["type"] == "websocket":
            await self._echo(receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _echo(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        self.left.append(message["code"])

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message["body"]
        if scope["path"].endswith("/fails"):
            raise LookupError("in the loop")
        if scope["path"].endswith("/waits"):
            await asyncio.sleep(60)
        found = f"{scope['root_path']} {scope['path']} {scope['state']['from']} {len(body)}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": found.encode(), "more_body": True})
        await send({"type": "http.response.body"})


async def handle(request: Any) -> Any:
    if request.query.get("bad"):
        raise BadInput("as asked")
    await asyncio.sleep(0)
    return {"thread": threading.current_thread().name, "body": request.text}


async def stream(request: Any) -> AsyncIterator[str]:
    for number in range(3):
        await asyncio.sleep(0)
        yield f"{number} "


def plain(request: Any) -> str:
    return threading.current_thread().name


@pytest.fixture
def application() -> Application:
    return Application()


def serving(application: Application, **limits: str) -> Server:
    handlers = {
        "/asgi": application,
        "/handle": handle,
        "/partial": functools.partial(handle),
        "/stream": stream,
        "/plain": plain,
    }
    return Server(handlers=handlers, pool={"threads": 2, "limits": limits})


@pytest.fixture
def server(application: Application) -> Iterator[Server]:
    with serving(application) as server:
        yield server


def test_each_kind(server: Server, application: Application) -> None:
    assert get(server, "/asgi/a").text == "/asgi /asgi/a startup 0"
    assert get(server, "/asgi/a", "POST", b"x" * 200_000).text == "/asgi /asgi/a startup 200000"
    assert '"thread": "event-loop", "body": "b"' in get(server, "/handle", "POST", b"b").text
    assert '"thread": "event-loop"' in get(server, "/partial").text
    assert get(server, "/stream").text == "0 1 2 "
    assert get(server, "/plain").text.startswith("request-")
    assert (get(server, "/handle?bad=1").status, get(server, "/handle?bad=1").text) == (400, "as asked\n")
    assert len(application.loops) == 1


def test_lifespan(server: Server, application: Application) -> None:
    assert application.life == ["lifespan.startup"]
    server.stop()
    assert application.life == ["lifespan.startup", "lifespan.shutdown"]
    with server:
        assert get(server, "/asgi/").status == 200
        assert application.life[2:] == ["lifespan.startup"]


def test_a_startup_that_fails() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    before = set(threading.enumerate())
    with pytest.raises(StartError, match="application / says that its startup failed: no database"):
        Server(handlers={"/": application}).start()
    wait_for(lambda: not set(threading.enumerate()) - before, "no thread is left")


def test_failure_and_time(application: Application, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "appserver"), serving(application, request_time="3s") as server:
        assert get(server, "/asgi/fails").status == 500
        wait_for(lambda: "LookupError: in the loop" in caplog.text, "the failure is in the log")
        assert get(server, "/asgi/waits").status == 504
        wait_for(lambda: "the request was cancelled: its time is over" in caplog.text, "the task is cancelled")
        assert get(server, "/asgi/a").status == 200


def test_websocket(server: Server, application: Application) -> None:
    with client(server, "/asgi/ws") as connection:
        connection.send("to and fro")
        assert connection.recv(PATIENCE_S) == "to and fro"
    wait_for(lambda: application.left == [1000], "the application has seen the end")
    with client(server, "/asgi/ws") as connection:
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert close_of(connection)[0] == 1001
    stopping.join(PATIENCE_S)
    assert application.left == [1000, 1001]


def test_many_wait_and_plain_ones_go_on() -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    async def waits(request: Any) -> str:
        begun.release()
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        return "went on"

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            Server(handlers={"/waits": waits, "/plain": plain}, pool={"threads": 1, "concurrency": 30})
        )
        clients = [stack.enter_context(Connection(server.port)) for _ in range(30)]
        for client in clients:
            client.send("GET /waits HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in clients:
            assert begun.acquire(timeout=PATIENCE_S)
        assert get(server, "/plain").status == 200
        go_on.set()
        assert [client.response().text for client in clients] == ["went on"] * 30


def test_a_stop_cuts_off_what_does_not_end(application: Application) -> None:
    with Server(handlers={"/": application}) as server, Connection(server.port) as client:
        client.send("GET /waits HTTP/1.1\r\nHost: localhost\r\n\r\n")
        get(server, "/a")
        server.stop(timeout=0)
        assert client.closed()
    assert application.life[-1] == "lifespan.shutdown"


def test_keys_of_the_pool() -> None:
    with pytest.raises(ConfigError, match=r"pool\.concurrency: found '0'"):
        Server(handlers={"/": handle}, pool={"concurrency": 0})
    with pytest.raises(ConfigError, match=r"pool\.websocket\.ping: unknown key"):
        Server(handlers={"/": handle}, pool={"websocket": {"ping": 3}})
