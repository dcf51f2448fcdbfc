"""`cherokee-app reload`: new workers take over when they are good, and nobody notices but by the new answers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from crews import Clients, command
from harness import PATIENCE_S, Connection, Server, server_environment, wait_for

APPLICATION = """\
import os, time
def application(environ, start_response):
    if "HTTP_HELD" in environ:
        open("held", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%s"]
"""
CONFIG = """\
control: control.sock
pools:
  shop: {python: "shop:application", processes: 2, threads: 2}
  other: {python: "other:application", processes: 1}
sites:
  - root: www
    rules:
      - {match: {path: /shop/*}, handler: {python: shop}}
      - {match: {path: /other/*}, handler: {python: other}}
"""
FILES = {"shop.py": APPLICATION % "zero", "other.py": APPLICATION % "zero", "www/a.txt": "a"}


def write(server: Server, name: str, text: str) -> None:
    """Python knows bytecode by the size of its source and by whole seconds, of which no two versions have the same."""
    path = server.folder / f"{name}.py"
    time = path.stat().st_mtime + 1
    path.write_text(text)
    os.utime(path, (time, time))


def reload(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`cherokee-app reload` for this server."""
    return command(server, "reload", *arguments)


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Server:
    return serve_module(FILES, config=CONFIG)


def test_no_request_is_lost_and_all_are_new_afterwards(server: Server) -> None:
    with Clients(server, "/shop/") as clients:
        for number in range(3):
            write(server, "shop", APPLICATION % f"shop {number}")
            run = reload(server)
            assert run.returncode == 0, run.stderr
            assert server.get("/shop/").text == f"shop {number}"
            # Each of the four clients may have had an answer of the old ones, but not yet have noted it.
            first = len(clients.bodies) + 4
            wait_for(lambda first=first: len(clients.bodies) > first or clients.faults, "the clients go on")
            assert set(clients.bodies[first:]) == {f"shop {number}".encode()}
    assert clients.faults == []


def test_one_pool(server: Server) -> None:
    write(server, "shop", APPLICATION % "newest")
    write(server, "other", APPLICATION % "newest")
    before = server.get("/shop/").text
    run = reload(server, "other")
    assert (run.returncode, run.stdout) == (0, "pool other reloaded\n")
    assert server.get("/other/").text == "newest"
    assert server.get("/shop/").text == before
    assert reload(server, "shop").returncode == 0
    assert server.get("/shop/").text == "newest"


def test_a_version_that_cannot_be_imported_never_replaces_the_old(server: Server) -> None:
    write(server, "shop", APPLICATION % "good")
    assert reload(server, "shop").returncode == 0
    with Clients(server, "/shop/") as clients:
        write(server, "shop", "import nowhere_to_be_found\n")
        for arguments in ([], ["shop"]):
            run = reload(server, *arguments)
            assert run.returncode == 1
            assert "pool shop: application shop:application cannot be loaded: ModuleNotFoundError" in run.stderr
            assert 'shop.py", line 1, in <module>' in run.stderr
            assert "the old executors go on" in run.stderr
    assert clients.faults == []
    assert set(clients.bodies) == {b"good"}
    write(server, "shop", APPLICATION % "repaired")
    assert reload(server).returncode == 0
    assert server.get("/shop/").text == "repaired"


def test_a_version_that_dies_at_import(server: Server) -> None:
    before = server.get("/shop/").text
    write(server, "shop", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    server.allowed.append("Fatal Python error: Segmentation fault")
    run = reload(server, "shop")
    assert run.returncode == 1
    assert "was killed by SIGSEGV" in run.stderr
    assert server.get("/shop/").text == before
    write(server, "shop", APPLICATION % "well again")
    assert reload(server, "shop").returncode == 0


def test_a_configuration_that_is_not_valid(server: Server) -> None:
    path = server.folder / "config.yaml"
    good = path.read_text()
    path.write_text(good.replace("processes: 2", "processes: many"))
    try:
        run = reload(server)
    finally:
        path.write_text(good)
    assert run.returncode == 1
    assert "config.yaml:3" in run.stderr
    assert "found 'many'" in run.stderr
    assert server.get("/shop/").status == 200
    assert reload(server).returncode == 0


def test_old_workers_finish_what_they_hold(server: Server) -> None:
    write(server, "shop", APPLICATION % "after")
    before = server.get("/shop/").text
    with Connection(server.port) as slow:
        slow.send("GET /shop/ HTTP/1.1\r\nHost: localhost\r\nHeld: yes\r\n\r\n")
        wait_for((server.folder / "held").exists, "the slow request runs")
        runs: list[subprocess.CompletedProcess[str]] = []
        reloading = threading.Thread(target=lambda: runs.append(reload(server, "shop")))
        reloading.start()
        wait_for(lambda: server.get("/shop/").text == "after", "the new ones answer")
        (server.folder / "go").touch()
        assert slow.response().text == before
        reloading.join(PATIENCE_S)
    assert [run.returncode for run in runs] == [0]
    assert server.get("/shop/").text == "after"


def test_reloads_at_the_same_time_are_all_answered(server: Server) -> None:
    runs: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(target=lambda which=which: runs.append(reload(server, *which)))
        for which in ([], ["shop"], ["other"], ["shop"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [run.returncode for run in runs] == [0, 0, 0, 0], [run.stderr for run in runs]


ADDED = """\
async def application(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})
"""


def test_a_pool_that_is_added(serve: Any) -> None:
    """The core knows from the first request on what its executors can do: here, to take a body while it comes."""
    server = serve({**FILES, "added.py": ADDED}, config=CONFIG)
    config = CONFIG.replace("pools:", "pools:\n  added: {python: 'added:application', processes: 1}")
    config += "      - {match: {path: /added}, handler: {python: added}}\n"
    (server.folder / "config.yaml").write_text(config)
    run = reload(server)
    assert run.returncode == 0, run.stderr
    server.remember_fds()  # those of the new pool are not its start's
    with server.connect() as client:
        client.send("POST /added HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert client.read_until(b"first\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
        client.send("6\r\nsecond\r\n0\r\n\r\n")
        assert client.read_until(b"0\r\n\r\n").startswith(b"6\r\nsecond\r\n")


def test_nobody_to_reload(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "appserver", "reload", "--config", str(tmp_path)],
        capture_output=True,
        text=True,
        env=server_environment(XDG_RUNTIME_DIR=str(tmp_path)),
        check=False,
    )
    assert run.returncode == 1
    assert f"no server of {tmp_path} was found" in run.stderr
