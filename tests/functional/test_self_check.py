"""`check` of a pool: workers of a new version answer a request before they replace the old ones."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from crews import Clients, command, pool, workers
from harness import Server, wait_for

WSGI = """\
import os
import sys
import threading

VERSION = "%(version)s"


def application(environ, start_response):
    if environ["PATH_INFO"] == "/health":
        seen = {name: environ[name] for name in ("SCRIPT_NAME", "QUERY_STRING", "HTTP_HOST", "REMOTE_ADDR")}
        print("checked", VERSION, sorted(seen.items()), flush=True)
        %(health)s
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [VERSION.encode()]
"""
ASGI = """\
import asyncio

VERSION = "%(version)s"


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                print("shut down", VERSION, flush=True)
            await send({"type": message["type"] + ".complete"})
    status = 200
    if scope["path"].endswith("/health"):
        print("checked", VERSION, scope["path"], scope["root_path"], flush=True)
        %(health)s
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": VERSION.encode()})
"""
CONFIG = """\
control: control.sock
pools:
  shop: {python: "shop:application", processes: 2, threads: 2, check: "/shop/health?deep=1"}
  chat: {python: "chat:application", processes: 1, check: "http://chat.example/health"}
  forked: {python: "forked:application", processes: 2, preload: true, check: /forked/health}
sites:
  - rules:
      - {match: {path: /shop/*}, handler: {python: shop}}
      - {match: {path: /forked/*}, handler: {python: forked}}
  - hosts: [chat.example]
    rules:
      - {handler: {python: chat}}
"""
SHOP = """\
control: control.sock
pools:
  shop: {python: "shop:application", processes: 2, threads: 2, check: "/shop/health?deep=1"}
sites: [{rules: [{match: {path: /shop/*}, handler: {python: shop}}]}]
"""
GOOD = "pass"


def write(server: Server, name: str, version: str, health: str = GOOD) -> None:
    source = ASGI if name == "chat" else WSGI
    (server.folder / f"{name}.py").write_text(source % {"version": version, "health": health})


def reload(server: Server, name: str) -> subprocess.CompletedProcess[str]:
    return command(server, "reload", name)


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Server:
    files = {
        f"{name}.py": source % {"version": "first", "health": GOOD}
        for name, source in (("shop", WSGI), ("chat", ASGI), ("forked", WSGI))
    }
    return serve_module(files, config=CONFIG)


def test_every_worker_of_the_first_version_has_answered(server: Server) -> None:
    seen = (
        r"checked first \[\('HTTP_HOST', 'localhost'\), \('QUERY_STRING', 'deep=1'\),"
        r" \('REMOTE_ADDR', '127.0.0.1'\), \('SCRIPT_NAME', '/shop'\)\]"
    )
    server.wait_for_log(seen, 2)
    server.wait_for_log(r"checked first \[.*'/forked'", 2)
    server.wait_for_log("checked first /health")
    assert server.get("/shop/").text == server.get("/forked/").text == "first"
    assert server.get("/", headers={"Host": "chat.example"}).text == "first"


@pytest.mark.parametrize("name", ["shop", "forked"])
def test_a_good_version_takes_over(server: Server, name: str) -> None:
    with Clients(server, f"/{name}/") as clients:
        write(server, name, "second")
        run = reload(server, name)
        assert run.returncode == 0, run.stderr
        assert server.get(f"/{name}/").text == "second"
    assert clients.faults == []
    assert set(clients.bodies) <= {b"first", b"second"}


@pytest.mark.parametrize(
    ("health", "reason", "shown"),
    [
        (
            "start_response('503 Busy', []); return [b'\\n\\nno database\\nat all\\n']",
            "answered 503 Service Unavailable; expected a status below 400",
            "no database\nat all\n",
        ),
        ("raise RuntimeError('no such table')", "answered 500 Internal Server Error", "RuntimeError: no such table"),
        ("start_response('404 Not Found', []); return iter([b'<p>', b'lost'])", "answered 404 Not Found", "<p>lost"),
        ("start_response('502 X', []); return [b'x' * 100_000]", "answered 502 Bad Gateway", "x" * 4096),
        ("os._exit(9)", "ended with exit status 9", ""),
    ],
)
def test_a_version_that_fails_never_takes_over(server: Server, health: str, reason: str, shown: str) -> None:
    before = server.get("/shop/").text
    with Clients(server, "/shop/") as clients:
        write(server, "shop", "broken", health)
        run = reload(server, "shop")
    assert run.returncode == 1
    assert reason in run.stderr
    assert "the old executors go on" in run.stderr
    if "answered" in reason:
        assert "its self-check (`check` of the pool), GET /shop/health?deep=1, was answered" in run.stderr
    assert shown in run.stderr
    assert clients.faults == []
    assert set(clients.bodies) == {before.encode()}


def test_one_that_is_preloaded_never_takes_over(server: Server) -> None:
    before = server.get("/forked/").text
    write(server, "forked", "broken", "raise RuntimeError('forked and broken')")
    run = reload(server, "forked")
    assert run.returncode == 1
    assert "RuntimeError: forked and broken" in run.stderr
    assert server.get("/forked/").text == before


def test_an_asynchronous_one_never_takes_over(server: Server) -> None:
    before = server.get("/", headers={"Host": "chat.example"}).text
    write(server, "chat", "broken", "raise RuntimeError('no chat')")
    run = reload(server, "chat")
    assert run.returncode == 1
    assert "answered 500" in run.stderr
    assert "RuntimeError: no chat" in run.stderr
    assert server.get("/", headers={"Host": "chat.example"}).text == before
    server.wait_for_log("shut down broken")  # what its startup has opened is closed
    write(server, "chat", "third")
    assert reload(server, "chat").returncode == 0
    assert server.get("/", headers={"Host": "chat.example"}).text == "third"


def test_replacements_are_not_checked(server: Server) -> None:
    """What fails for all would otherwise take one worker after the other away."""
    write(server, "shop", "lucky", "sys.exit(1) if os.path.exists('gone') else None")
    assert reload(server, "shop").returncode == 0
    (server.folder / "gone").touch()
    first = workers(server, "shop", "ready")[0]["pid"]
    subprocess.run(["kill", "-9", str(first)], check=True)
    wait_for(
        lambda: len(found := workers(server, "shop", "ready")) == 2 and first not in [each["pid"] for each in found],
        "another worker has taken its place",
    )
    assert server.get("/shop/").text == "lucky"


def test_the_pool_does_not_start_with_one_that_fails(serve: Any) -> None:
    bad = WSGI % {"version": "first", "health": "start_response('500 Oh', []); return [b'not yet']"}
    server = serve({"shop.py": bad}, config=SHOP)
    server.wait_for_log(r"cannot boot.*GET /shop/health\?deep=1, was answered 500 Internal Server Error")
    server.wait_for_log("not yet")
    assert pool(server, "shop")["capacity"] == 0
    write(server, "shop", "repaired")
    wait_for(lambda: pool(server, "shop")["capacity"] == 4, "the pool has started by itself")
    server.remember_fds()  # it had no workers before
    assert server.get("/shop/").text == "repaired"


def test_one_that_never_answers(serve: Any) -> None:
    config = SHOP.replace("processes: 2", "processes: 1, limits: {request_time: 4s}")
    server = serve({"shop.py": WSGI % {"version": "first", "health": GOOD}}, config=config)
    write(server, "shop", "stuck", "threading.Event().wait()")
    run = reload(server, "shop")
    assert run.returncode == 1
    assert "had no answer after 4 s" in run.stderr
    assert 'shop.py", line' in run.stderr  # where it waits
    assert server.get("/shop/").text == "first"
