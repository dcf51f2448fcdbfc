"""ASGI applications in a real worker process, which a small core talks to."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_core import PATIENCE_S, FakeCore, write_scripts

from appserver.workers import wire
from tests.interpreters import other_cpythons

APPLICATION = r"""
import asyncio, contextvars, json, os, sys

seen = contextvars.ContextVar("seen", default="nothing")
loop_of_lifespan = None
log = []

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    await globals()[scope["path"].strip("/") or "hello"](scope, receive, send)

async def lifespan(scope, receive, send):
    global loop_of_lifespan
    assert (await receive())["type"] == "lifespan.startup"
    loop_of_lifespan = asyncio.get_running_loop()
    scope["state"]["started"] = True
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    print("shut down in order", flush=True)
    await send({"type": "lifespan.shutdown.complete"})

def start(status=200, headers=(), **more):
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}

def body(data=b"", more_body=False):
    return {"type": "http.response.body", "body": data, "more_body": more_body}

async def text(send, what):
    await send(start(headers=[(b"content-type", b"text/plain")]))
    await send(body(what if isinstance(what, bytes) else json.dumps(what).encode()))

async def hello(scope, receive, send):
    await text(send, b"hello")

async def scope_of(scope, receive, send):
    scope = {**scope, "state": {**scope["state"], "same_loop": asyncio.get_running_loop() is loop_of_lifespan}}
    await text(send, json.dumps(scope, default=lambda each: each.decode("latin-1")).encode())

async def echo(scope, receive, send):
    data, messages = b"", 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            print("disconnected after", len(data), flush=True)
            return
        data, messages = data + message["body"], messages + 1
        if not message["more_body"]:
            break
    await send(start(headers=[(b"x-messages", b"%d" % messages)]))
    await send(body(data))

async def stream(scope, receive, send):
    await send(start())
    for number in range(3):
        await asyncio.sleep(0)
        await send(body(b"piece %d\n" % number, True))
    await send(body())

async def flood(scope, receive, send):
    sent = 0
    await send(start())
    try:
        while True:
            await send(body(bytes(50_000), True))
            sent += 50_000
    except OSError as error:
        print("flood ended", sent, type(error).__name__, flush=True)
        raise

async def watches(scope, receive, send):
    assert (await receive())["type"] == "http.request"
    await send(start())
    await send(body(b"go", True))
    print("watched", (await receive())["type"], flush=True)

async def after_end(scope, receive, send):
    await receive()
    async def watch():
        log.append((await receive())["type"])
    task = asyncio.ensure_future(watch())
    await asyncio.sleep(0.01)
    await text(send, b"x")
    await task
    log.append((await receive())["type"])

async def log_of(scope, receive, send):
    await text(send, log)

async def exact(scope, receive, send):
    await send(start(headers=[(b"content-length", b"4")]))
    await send(body(b"abcd", True))
    await asyncio.sleep(0)
    await send(body())

async def large(scope, receive, send):
    await text(send, bytes(range(256)) * 1000)

async def path(scope, receive, send):
    size = os.path.getsize(__file__)
    await send(start(headers=[(b"content-length", b"%d" % size)]))
    await send({"type": "http.response.pathsend", "path": __file__})

async def hints(scope, receive, send):
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]})
    await text(send, b"hinted")

async def trailers(scope, receive, send):
    query = scope["query_string"].decode()
    await send(start(headers=[(b"content-length", b"13")] if "length" in query else [], trailers=True))
    if "more" in query:
        await send(body(b"with trailers", more_body=True))
        await send(body())
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"13")]})
        return
    await send(body(b"with trailers"))
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"13")], "more_trailers": True})
    await send({"type": "http.response.trailers", "headers": [(b"x-more", b"1")]})

async def context(scope, receive, send):
    before = seen.get()
    seen.set(scope["query_string"].decode())
    if scope["query_string"] == b"wait":
        await asyncio.sleep(0.01)
    task = asyncio.current_task()
    assert task is not None and task.get_loop() is asyncio.get_running_loop() and not task.done()
    await text(send, [before, seen.get()])

async def timeouts(scope, receive, send):
    # A deadline that is set in the first step must be able to cancel the rest.
    try:
        await asyncio.wait_for(inner(), 0.01)
    except asyncio.TimeoutError:
        await text(send, b"timed out")

async def inner():
    task = asyncio.current_task()
    asyncio.get_running_loop().call_later(5, task.cancel)
    await asyncio.sleep(10)

async def leaves(scope, receive, send):
    async def gone():
        sys.exit(3)
    task = asyncio.ensure_future(gone())
    await asyncio.wait([task])
    await text(send, b"still here")

async def background(scope, receive, send):
    await text(send, b"answered")
    await asyncio.sleep(0.05)
    print("done in the background", flush=True)
    raise LookupError("too late to matter")

async def sleeps(scope, receive, send):
    await asyncio.sleep(float(scope["query_string"]))
    await text(send, b"slept")

async def gate(scope, receive, send):
    while not os.path.exists("open"):
        await asyncio.sleep(0.01)
    await text(send, b"open")

# Mistakes

async def raises(scope, receive, send):
    raise LookupError("before the start")

async def raises_later(scope, receive, send):
    await send(start())
    await send(body(b"begun", True))
    raise LookupError("after the start")

async def returns(scope, receive, send):
    pass

async def only_start(scope, receive, send):
    await send(start())

async def unfinished(scope, receive, send):
    await send(start())
    await send(body(b"some", True))

async def body_first(scope, receive, send):
    await send(body(b"x"))

async def two_starts(scope, receive, send):
    await send(start())
    await send(start())

async def body_after_end(scope, receive, send):
    await text(send, b"all")
    await send(body(b"more"))

async def str_body(scope, receive, send):
    await send(start())
    await send(body("text"))

async def unknown(scope, receive, send):
    await send({"type": "http.response.nonsense"})

async def bad_status(scope, receive, send):
    await send(start(status="200"))

async def too_long(scope, receive, send):
    await send(start(headers=[(b"content-length", b"2")]))
    await send(body(b"abc"))

async def too_short(scope, receive, send):
    await send(start(headers=[(b"content-length", b"5")]))
    await send(body(b"abc"))

async def split_value(scope, receive, send):
    await send(start(headers=[(b"x-a", b"1\r\nSet-Cookie: b=1")]))
    await send(body())

async def split_name(scope, receive, send):
    await send(start(headers=[(b"x-a: 1\r\nx-b", b"1")]))
    await send(body())

async def str_header(scope, receive, send):
    await send(start(headers=[("x-a", "1")]))
    await send(body())

async def too_long_later(scope, receive, send):
    await send(start(headers=[(b"content-length", b"5")]))
    await send(body(b"abc", True))
    await send(body(b"defg", True))
"""

Run = Callable[..., FakeCore]


@pytest.fixture(params=["asyncio", "uvloop"])
def asgi(request: pytest.FixtureRequest, run: Run, tmp_path: Path) -> Run:
    """As `run`, with either event loop."""
    if request.param == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError('not in this test')\n")
    else:
        pytest.importorskip("uvloop")

    def start(source: str = APPLICATION, **how: Any) -> FakeCore:
        return run(source, **how)

    return start


def pair(core: FakeCore, flags: int, **how: Any) -> socket.socket:
    """Sends a request with a stream socket, and returns the core's end of that."""
    mine, its = socket.socketpair()
    with its:
        core.send(core.frame(flags=flags, body_len=how.pop("body_len", wire.STREAM_UNKNOWN), **how), fd=its.fileno())
    mine.settimeout(PATIENCE_S)
    return mine


def test_ready_says_what_the_core_must_know(run: Run) -> None:
    core = run(APPLICATION, concurrency=7)
    assert list(core.messages[-1].pop("threads").values()) == ["event-loop"]
    assert core.messages[-1] == {
        "type": "ready",
        "interface": "asgi",
        "capacity": 7,
        "at_once": 1,
        "stream_bodies": True,
        "upgrades": True,
    }
    wsgi = run("def application(environ, start_response): ...", threads=3)
    assert list(wsgi.messages[-1].pop("threads").values()) == ["request-0", "request-1", "request-2"]
    assert wsgi.messages[-1] == {
        "type": "ready",
        "interface": "wsgi",
        "capacity": 3,
        "at_once": 3,
        "stream_bodies": False,
        "upgrades": False,
    }


def test_hello(asgi: Run) -> None:
    core = asgi()
    answer = core.fetch()
    assert (answer.kind, answer.status, answer.body) == (wire.RESPONSE, 200, b"hello")
    assert answer.headers == {"content-type": "text/plain"}
    core.send(*(core.frame() for _ in range(5)))
    assert [core.next_answer().body for _ in range(5)] == [b"hello"] * 5


@pytest.mark.parametrize("text", ["REMOTE_ADDR", "SERVER_NAME", "QUERY_STRING", "appserver.request_id"])
def test_values_that_are_names(asgi: Run, text: str) -> None:
    """Nothing that a client says is taken for the name of a variable."""
    core = asgi("""
async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    found = [scope["query_string"], *(value for name, value in scope["headers"] if name == b"x-any")]
    found += [text.encode() for text in (scope["method"], scope["client"][0], scope["server"][0])]
    await send({"type": "http.response.body", "body": b" ".join(found)})
""")
    usual = b" 127.0.0.1 example.org"
    for _ in range(2):
        assert core.fetch("GET", f"/?{text}", headers={"X-Any": "a"}).body == text.encode() + b" a GET" + usual
        assert core.fetch("GET", "/?a", headers={"X-Any": text}).body == b"a " + text.encode() + b" GET" + usual
        assert core.fetch(text, "/?a", headers={"X-Any": "b"}).body == b"a b " + text.encode() + usual


def test_scope(asgi: Run) -> None:
    core = asgi()
    environment = {
        "SCRIPT_NAME": "/root/\u00c3\u00bc",
        "PATH_INFO": "/scope_of",
        "REQUEST_URI": "/root/%C3%BC/scope%5Fof?a=%20b",
        "QUERY_STRING": "a=%20b",
        "SERVER_ADDR": "127.0.0.2",
        "REMOTE_PORT": "4711",
    }
    source = APPLICATION.replace('scope["path"]', 'scope["path"][len(scope["root_path"]):]')
    core = asgi(source)
    headers = {"X-Any": "caf\u00e9", "Content-Type": "text/x"}
    found = json.loads(core.fetch(environment=environment, headers=headers).body)
    # The same client again, and one that comes in another order.
    assert json.loads(core.fetch(environment=environment, headers=headers).body) == found
    moved = core.frame(environment=environment, headers=headers)
    at = moved.index(b"REQUEST_METHOD\0GET\0")
    size = len(b"REQUEST_METHOD\0GET\0")
    core.send(moved[:at] + moved[at + size :] + moved[at : at + size])
    assert json.loads(core.next_answer().body) == found
    assert found == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/root/\u00fc/scope_of",
        "raw_path": "/root/%C3%BC/scope%5Fof",
        "query_string": "a=%20b",
        "root_path": "/root/\u00fc",
        "headers": [["host", "example.org:8080"], ["x-any", "caf\u00e9"], ["content-type", "text/x"]],
        "client": ["127.0.0.1", 4711],
        "server": ["127.0.0.2", 8080],
        "state": {"started": True, "same_loop": True},
        "extensions": {
            "http.response.pathsend": {},
            "http.response.early_hint": {},
            "http.response.trailers": {},
        },
    }
    again = json.loads(core.fetch(environment={**environment, "REQUEST_URI": "http://h/x%20y?q"}).body)
    assert again["raw_path"] == "/x%20y"


def test_bodies(asgi: Run) -> None:
    core = asgi()
    data = os.urandom(150_000)
    assert core.fetch("POST", "/echo", body=b"small").body == b"small"
    answer = core.fetch("POST", "/echo", body=data, body_fd=True)
    assert (answer.kind, answer.body, answer.headers["x-messages"]) == (wire.FILE, data, "3")
    with pair(core, wire.BODY_STREAM, method="POST", path="/echo") as stream:
        for at in range(0, len(data), 50_000):
            stream.sendall(data[at : at + 50_000])
        stream.shutdown(socket.SHUT_WR)
        assert core.complete(core.next_answer()).body == data


def test_streamed_body_that_breaks_off(asgi: Run) -> None:
    core = asgi()
    with pair(core, wire.BODY_STREAM, method="POST", path="/echo", slot=9) as stream:
        stream.sendall(b"part")
        core.wait_until_running(9)
        core.cancel(9)
    core.line("disconnected after 4")
    assert core.next_answer().slot == 9
    assert core.fetch().body == b"hello"


def test_a_body_that_is_not_read(asgi: Run) -> None:
    core = asgi()
    with pair(core, wire.BODY_STREAM, method="POST", path="/hello") as stream:
        assert core.next_answer().body == b"hello"
        assert stream.recv(1) == b""


def test_stream(asgi: Run) -> None:
    core = asgi()
    answer = core.fetch(path="/stream")
    assert (answer.kind, answer.body_len, answer.end_status) == (wire.STREAM, wire.STREAM_UNKNOWN, 0)
    assert answer.body == b"piece 0\npiece 1\npiece 2\n"
    large = core.fetch(path="/large")
    assert (large.kind, large.body) == (wire.FILE, bytes(range(256)) * 1000)
    exact = core.fetch(path="/exact")
    assert (exact.kind, exact.body) == (wire.RESPONSE, b"abcd")


def test_head(asgi: Run) -> None:
    core = asgi()
    for path, length in (("/hello", "5"), ("/large", "256000"), ("/exact", "4"), ("/path", None)):
        answer = core.fetch("HEAD", path)
        assert (answer.kind, answer.body) == (wire.RESPONSE, b"")
        assert "content-length" in answer.headers
        assert length is None or answer.headers["content-length"] == length
    assert "content-length" not in core.fetch("HEAD", "/stream").headers


def test_back_pressure_and_a_client_that_goes(asgi: Run) -> None:
    core = asgi()
    core.send(core.frame(path="/flood"))
    answer = core.next_answer()
    assert len(os.read(answer.fd, 100)) == 100
    assert core.fetch().body == b"hello"  # the loop is not held up by the full pipe
    os.close(answer.fd)
    line = core.line("flood ended")
    assert int(line.split()[2]) < 1_000_000
    assert line.split()[3] == "ClientGoneError"
    end = core.next_answer()
    assert (end.kind, end.status) == (wire.END, 1)
    core.stop()
    assert core.exit_status() == 0
    assert not [message for message in core.messages if message.get("level") == "error"]


def test_disconnect(asgi: Run) -> None:
    core = asgi()
    core.send(core.frame(path="/watches", slot=5))
    answer = core.next_answer()
    assert os.read(answer.fd, 10) == b"go"
    os.close(answer.fd)
    core.line("watched http.disconnect")
    assert core.next_answer().kind == wire.END
    assert core.fetch(path="/after_end").body == b"x"
    while len(found := json.loads(core.fetch(path="/log_of").body)) < 2:
        assert core.process.poll() is None
    assert found == ["http.disconnect", "http.disconnect"]


def test_extensions(asgi: Run) -> None:
    core = asgi()
    sent = core.fetch(path="/path")
    assert (sent.kind, sent.body) == (wire.FILE, APPLICATION.encode())
    hint = core.fetch(path="/hints")
    assert (hint.kind, hint.status) == (wire.INFORMATIONAL, 103)
    assert hint.fields == "link: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n"
    assert core.next_answer().body == b"hinted"
    core.send(core.frame(path="/trailers"))
    stream = core.next_answer()
    assert stream.kind == wire.STREAM
    assert os.read(stream.fd, 100) == b"with trailers"
    os.close(stream.fd)
    end = core.next_answer()
    assert (end.kind, end.status, end.fields) == (wire.END, 0, "x-sum: 13\r\nx-more: 1\r\n")


@pytest.mark.parametrize("query", ["", "more", "length", "length+more"])
def test_trailers_whatever_is_sent_before_them(asgi: Run, query: str) -> None:
    """Also when the answer has no place for them."""
    core = asgi()
    answer = core.fetch(path=f"/trailers?{query}")
    assert (answer.status, answer.body, answer.end_status) == (200, b"with trailers", 0)
    answer = core.fetch("HEAD", f"/trailers?{query}")
    assert (answer.kind, answer.status, answer.body) == (wire.RESPONSE, 200, b"")
    assert core.fetch().body == b"hello"
    assert not [message for message in core.messages if message.get("level") == "error"]
    core.stop()
    while message := core.message():
        assert message.get("level") != "error", message


def test_each_request_is_a_task_with_a_context_of_its_own(asgi: Run) -> None:
    core = asgi()
    for query in ("a", "wait", "b", "wait"):
        assert json.loads(core.fetch(path=f"/context?{query}").body) == ["nothing", query]
    assert core.fetch(path="/timeouts").body == b"timed out"


def test_exit_in_a_task_does_not_end_the_worker(asgi: Run) -> None:
    core = asgi()
    assert core.fetch(path="/leaves").body == b"still here"
    assert "SystemExit" in core.log("a task of the application failed")["error"]
    assert core.fetch().body == b"hello"


def test_work_after_the_answer(asgi: Run) -> None:
    core = asgi()
    assert core.fetch(path="/background").body == b"answered"
    core.line("done in the background")
    assert "too late to matter" in core.log("handler failed")["error"]
    assert core.fetch().body == b"hello"


MISTAKES = {
    "raises": "LookupError: before the start",
    "returns": "the application returned after it had sent nothing",
    "only_start": "the application returned after it had sent http.response.start",
    "body_first": "send() was given http.response.body after nothing",
    "two_starts": "send() was given http.response.start after http.response.start",
    "str_body": "the body of a message must be bytes, not str",
    "unknown": "unknown type 'http.response.nonsense'",
    "bad_status": "status must be an int",
    "too_long": "the body is longer than its Content-Length: 3 bytes, and 2 were announced",
    "too_short": "the body is shorter than its Content-Length: 3 bytes, and 5 were announced",
    "split_value": "control character in header x-a",
    "split_name": "not a header name",
    "str_header": "header name and value must be bytes",
}


def test_mistakes_are_answered_500_and_logged(asgi: Run) -> None:
    core = asgi()
    for path, reason in MISTAKES.items():
        answer = core.fetch(path=f"/{path}")
        assert (path, answer.kind, answer.status, answer.body) == (path, wire.RESPONSE, 500, b"")
        record = core.log("handler failed")
        assert reason in record["error"]
        assert f"in {path}" in record["traceback"] or path in ("returns", "only_start")
        assert record["target"] == f"/{path}"


def test_mistakes_behind_the_start(asgi: Run) -> None:
    core = asgi()
    for path, sent in (("raises_later", b"begun"), ("unfinished", b"some"), ("too_long_later", b"abc")):
        answer = core.fetch(path=f"/{path}")
        assert (answer.kind, answer.body, answer.end_status) == (wire.STREAM, sent, 1)
        assert core.log("handler failed")["target"] == f"/{path}"
    assert core.fetch(path="/body_after_end").body == b"all"
    assert "after all of the response" in core.log("handler failed")["error"]


def test_holds_no_more_than_its_concurrency(asgi: Run, tmp_path: Path) -> None:
    core = asgi(concurrency=2)
    for slot in (1, 2, 3):
        core.send(core.frame(path="/gate", slot=slot))
    core.wait_until_running(1)
    core.wait_until_running(2)
    time.sleep(0.05)
    assert core.slot(3)[0] == 1
    (tmp_path / "open").touch()
    assert [core.next_answer().body for _ in range(3)] == [b"open"] * 3


def test_stop_lets_requests_finish_and_shuts_the_application_down(asgi: Run) -> None:
    core = asgi()
    core.send(core.frame(path="/sleeps?0.2", slot=1))
    core.wait_until_running(1)
    core.stop()
    assert core.next_answer().body == b"slept"
    core.line("shut down in order")
    assert core.exit_status() == 0


def test_stop_cancels_what_does_not_end(asgi: Run) -> None:
    core = asgi()
    core.send(core.frame(path="/sleeps?100", slot=1))
    core.wait_until_running(1)
    core.control.send(b'{"type": "stop", "time_ms": 2100}')
    assert core.next_answer().status == 503
    assert core.log("requests do not end in time and are cancelled")["requests"] == 1
    core.line("shut down in order")
    assert core.exit_status() == 0


def test_core_side_gone(asgi: Run) -> None:
    core = asgi()
    core.queue.close()
    core.worker_queue.close()
    core.line("shut down in order")
    assert core.exit_status() == 0


HANGS = """
import asyncio
async def application(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.sleep(1000)
"""


def test_shutdown_has_the_pools_time_also_when_the_queue_ends_before_the_stop_is_told(run: Run) -> None:
    core = run(HANGS, stop_time_ms=4000)
    core.queue.close()
    core.worker_queue.close()
    assert core.log("the application's shutdown took too long")["seconds"] <= 2  # half of it
    assert core.exit_status() == 0


SLOW_SCRIPT = """
import asyncio, pathlib
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print("starts", flush=True)
        while not pathlib.Path("go").exists():
            await asyncio.sleep(0.01)
        await send({"type": "lifespan.startup.complete"})
        print("has started", flush=True)
        await receive()
        await asyncio.sleep(0.1)
        print("shut down in order", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"started"})
"""


def test_shutdown_after_a_startup_that_took_longer_than_the_request_that_began_it(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW_SCRIPT)
    core = run()
    core.send(core.frame(script=script, slot=1))
    core.line("starts")
    core.interrupt(1)
    assert core.next_answer().status == 504
    (tmp_path / "go").touch()
    core.line("has started")
    assert core.fetch(script=script).body == b"started"
    core.stop()
    core.line("shut down in order")
    assert core.exit_status() == 0
    while message := core.message():
        assert message.get("event") != "the application's shutdown took too long"


def test_malformed_frame_ends_the_worker(asgi: Run) -> None:
    core = asgi()
    core.queue.send(b"nonsense")
    core.log("malformed request frame: the worker ends")
    assert core.exit_status() == 70


STARTUPS = {
    "refuses": (
        'await send({"type": "lifespan.startup.failed", "message": "Traceback ...\\nOSError: no database"})',
        "startup failed: OSError: no database",
    ),
    "gives no reason": ('await send({"type": "lifespan.startup.failed"})', "it gave no reason"),
}


@pytest.mark.parametrize("name", STARTUPS)
def test_startup_that_fails_ends_the_boot(run: Run, name: str) -> None:
    statement, reason = STARTUPS[name]
    core = run(f"async def application(scope, receive, send):\n    await receive()\n    {statement}\n", ready=False)
    message = core.message()
    assert message["type"] == "failed"
    assert reason in message["reason"]
    assert core.exit_status() == 3


@pytest.mark.parametrize(
    "statement", ["assert scope['type'] == 'http'", "return", "await receive(); raise OSError('in startup')"]
)
def test_without_a_lifespan(run: Run, statement: str) -> None:
    source = f"""
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        {statement}
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": b"well"}})
"""
    core = run(source)
    assert core.fetch().body == b"well"
    warned = [message for message in core.messages if message.get("level") == "warning"]
    assert len(warned) == ("in startup" in statement)


INTERFACES = {
    "instance": "class A:\n    async def __call__(self, scope, receive, send): {}\napplication = A()",
    "class": "class application:\n    def __init__(self, scope, receive, send): self.send = send\n"
    "    def __await__(self):\n        return self.run().__await__()\n"
    "    async def run(self):\n        send = self.send\n        {}",
    "partial": "import functools\nasync def app(x, scope, receive, send): {}\napplication = functools.partial(app, 1)",
    "decorated": "import functools\ndef decorate(f):\n    @functools.wraps(f)\n    def inner(*a): return f(*a)\n"
    "    return inner\n@decorate\nasync def application(scope, receive, send): {}",
}
ANSWER = (
    'await send({"type": "http.response.start", "status": 200}); '
    'await send({"type": "http.response.body", "body": b"y"})'
)


@pytest.mark.parametrize("name", INTERFACES)
def test_asgi_is_recognised(run: Run, name: str) -> None:
    core = run(INTERFACES[name].replace("{}", ANSWER))
    assert core.messages[-1]["interface"] == "asgi"
    assert core.fetch().body == b"y"


def test_interface_can_be_said(run: Run) -> None:
    core = run(f"async def app(*a):\n    send = a[2]\n    {ANSWER}\napplication = lambda *a: app(*a)", interface="asgi")
    assert core.fetch().body == b"y"


REFUSED = {
    "an ASGI 2 application": (
        "class application:\n    def __init__(self, scope): ...\n    async def __call__(self, r, s): ...",
        "auto",
    ),
    "ASGI 2 application": ("def application(scope):\n    async def run(r, s): ...\n    return run", "auto"),
    "is a class; it should be an instance": (
        "class application:\n    async def __call__(self, scope, r, s): ...",
        "auto",
    ),
    "is asynchronous (ASGI), but `interface: wsgi`": ("async def application(scope, r, s): ...", "wsgi"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_run_is_refused(run: Run, reason: str) -> None:
    source, interface = REFUSED[reason]
    core = run(source, interface=interface, ready=False)
    assert reason in core.message()["reason"]
    assert core.exit_status() == 3


SCRIPTS = {
    "plain.py": "def handle(request):\n    return 'plain'\n",
    "later.py": "import asyncio\nasync def handle(request):\n    await asyncio.sleep(0)\n"
    "    return {'name': request.query.get('name', '-'), 'body': request.text}\n",
    "pieces.py": "async def handle(request):\n    yield 'one '\n    yield b'two'\n",
    "file.py": "from pathlib import Path\nasync def handle(request):\n    return Path(__file__), 201, {'X-A': 'b'}\n",
    "bad.py": "async def handle(request):\n    return request.json()\n",
    "fails.py": "async def handle(request):\n    raise LookupError('in a script')\n",
    "asgi.py": "state = None\nasync def app(scope, receive, send):\n    global state\n"
    "    if scope['type'] == 'lifespan':\n        await receive()\n        scope['state']['number'] = 5\n"
    "        await send({'type': 'lifespan.startup.complete'})\n        await receive()\n"
    "        print('script shut down', flush=True)\n        await send({'type': 'lifespan.shutdown.complete'})\n"
    "        return\n    await send({'type': 'http.response.start', 'status': 200})\n"
    "    await send({'type': 'http.response.body', 'body': b'%d' % scope['state']['number']})\n",
    "refuses.py": "async def app(scope, receive, send):\n    if scope['type'] == 'lifespan':\n"
    "        await send({'type': 'lifespan.startup.failed', 'message': 'not today'})\n",
}


@pytest.mark.parametrize("kind", ["", "async "])
def test_nothing_of_a_script_is_left_for_the_collector(run: Run, tmp_path: Path, kind: str) -> None:
    source = (
        "import gc\ngc.disable()\nKIND def handle(request):\n    if request.path == '/left':\n"
        "        return str(gc.collect())\n    return {'cancelled': request.cancelled, 'body': request.text}\n"
    )
    [script] = write_scripts(tmp_path, {"collects.py": source.replace("KIND ", kind)})
    core = run(scripts=[str(script)])
    core.fetch(path="/left", script=script)
    for _ in range(5):
        assert core.fetch("POST", "/a", body=b"x", script=script).body == b'{"cancelled": false, "body": "x"}'
    assert core.fetch(path="/left", script=script).body == b"0"


@pytest.mark.parametrize("preloaded", [True, False])
def test_scripts_of_both_kinds(run: Run, tmp_path: Path, preloaded: bool) -> None:
    paths = dict(zip(SCRIPTS, write_scripts(tmp_path, SCRIPTS), strict=True))
    core = run(scripts=[str(path) for path in paths.values()] if preloaded else [])

    def fetch(name: str, method: str = "GET", path: str = "/", **how: Any) -> Any:
        return core.fetch(method, path, script=paths[name], **how)

    assert fetch("plain.py").body == b"plain"
    assert json.loads(fetch("later.py", "POST", "/?name=n", body=b"data").body) == {"name": "n", "body": "data"}
    assert json.loads(fetch("later.py", "POST", body=b"d" * 70_000, body_fd=True).body)["body"] == "d" * 70_000
    assert fetch("pieces.py").body == b"one two"
    file = fetch("file.py")
    assert (file.kind, file.status, file.headers["x-a"]) == (wire.FILE, 201, "b")
    assert file.body == SCRIPTS["file.py"].encode()
    assert fetch("bad.py", body=b"{").status == 400
    assert fetch("fails.py").status == 500
    assert "in a script" in core.log("handler failed")["error"]
    assert fetch("asgi.py").body == b"5"
    for _ in range(2):
        assert fetch("refuses.py").status == 500
        assert "not today" in core.log("handler failed")["error"]
    assert fetch("plain.py").body == b"plain"
    core.stop()
    core.line("script shut down")
    assert core.exit_status() == 0


@pytest.mark.parametrize("interpreter", other_cpythons())
def test_other_interpreters(run: Run, interpreter: str) -> None:
    core = run(APPLICATION, interpreter=interpreter)
    assert core.fetch().body == b"hello"
    assert core.fetch(path="/stream").body == b"piece 0\npiece 1\npiece 2\n"
    for query in ("a", "wait", "b"):
        assert json.loads(core.fetch(path=f"/context?{query}").body) == ["nothing", query]
    assert core.fetch(path="/timeouts").body == b"timed out"
    with pair(core, wire.BODY_STREAM, method="POST", path="/echo") as stream:
        stream.sendall(b"streamed")
        stream.shutdown(socket.SHUT_WR)
        assert core.next_answer().body == b"streamed"
    core.stop()
    core.line("shut down in order")
    assert core.exit_status() == 0


def test_a_request_whose_time_is_over_is_cancelled(asgi: Run) -> None:
    core = asgi()
    core.send(core.frame(path="/sleeps?100", slot=1))
    core.wait_until_running(1)
    core.control.send(
        json.dumps({"type": "interrupt", "thread": core.slot(1)[2], "request": f"{7 << 48 | 1:x}"}).encode()
    )
    assert core.next_answer().status == 504
    assert core.log("the request was cancelled: its time is over")["target"] == "/sleeps"
    assert core.fetch().body == b"hello"
