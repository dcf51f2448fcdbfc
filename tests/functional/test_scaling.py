"""The number of a pool's processes follows what it has to do."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from crews import Clients, command, pool, workers
from harness import PATIENCE_S, Response, Server, wait_for

pytestmark = pytest.mark.alone

APPLICATION = """\
import os, time
def application(environ, start_response):
    time.sleep(float(environ.get("QUERY_STRING") or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""
CONFIG = """\
control: control.sock
pools:
  app: {python: "app:application", processes: {min: 1, max: 4, idle_time: 1s}, threads: 1}
sites: [{root: ., rules: [{match: {path: /*}, handler: {python: app}}]}]
"""


def flood(server: Server, count: int, target: str) -> list[Response]:
    """That many requests at once."""
    found: list[Response] = []
    threads = [threading.Thread(target=lambda: found.append(server.get(target)), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return found


def test_up_while_requests_wait_and_down_again(serve: Any) -> None:
    server = serve({"app.py": APPLICATION}, config=CONFIG)
    assert [pool(server, "app")[key] for key in ("processes", "fewest_processes", "most_processes")] == [1, 1, 4]
    with Clients(server, "/?0.4", count=20) as clients:
        wait_for(lambda: len(set(clients.bodies)) == 4 or clients.faults, "four of them answer")
    assert clients.faults == []
    records = server.records("executors: a request has waited for")
    assert [each["event"].split(":")[0] for each in records] == [
        "1 to 2 executors",
        "2 to 3 executors",
        "3 to 4 executors",
    ]
    with Clients(server, "/", count=1) as clients:
        wait_for(lambda: len(workers(server, "app")) == 1, "the superfluous ones have gone")
    assert clients.faults == []
    assert len(server.records("executors: fewer have been enough for 1 s")) >= 3
    wait_for(lambda: pool(server, "app")["processes"] == 1, "one is enough")


def test_a_reload_keeps_the_number(serve: Any) -> None:
    server = serve({"app.py": APPLICATION}, config=CONFIG.replace("idle_time: 1s", "idle_time: 1h"))
    flood(server, 8, "/?0.4")
    before = pool(server, "app")["processes"]
    assert before > 1
    server.remember_fds()  # there are more workers than at the start
    assert command(server, "reload").returncode == 0
    assert pool(server, "app")["processes"] == before


def test_a_pool_that_cannot_boot_does_not_grow(serve: Any) -> None:
    server = serve({"app.py": APPLICATION}, config=CONFIG.replace("idle_time: 1s", "idle_time: 1h"))
    (server.folder / "app.py").write_text("import nowhere_to_be_found\n")
    found = flood(server, 8, "/?0.4")
    assert [each.status for each in found] == [200] * 8
    assert len({each.text for each in found}) == 1
    assert len(server.records("executors: a request has waited for")) == 1
    assert pool(server, "app")["processes"] == 2
