"""Workers that have reached a limit are replaced, and no request is lost over it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from crews import Clients, ask, workers
from harness import SANITIZE, Connection, Server, wait_for

pytestmark = pytest.mark.skipif(bool(SANITIZE), reason="the sanitizers' shadow memory counts against limits of memory")

APPLICATION = """\
import os, time
kept = []
def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/grow":
        kept.append(b"x" * 64 * 1024 * 1024)
    if path == "/sleep":
        open("sleeping", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    if path == "/explode":
        kept.append(bytearray(int(environ["QUERY_STRING"])))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""
CONFIG = """\
control: control.sock
pools:
  requests: {python: "app:application", processes: 3, threads: 2, limits: {requests: 200}}
  lifetime: {python: "app:application", processes: 2, limits: {lifetime: 2s}}
  memory: {python: "app:application", processes: 1, threads: 2, limits: {memory: 80MiB}}
  hard: {python: "app:application", processes: 1, threads: 1, limits: {memory_max: 200MiB}}
sites:
  - root: .
    rules:
      - {match: {path: /requests/*}, handler: {python: requests}}
      - {match: {path: /lifetime/*}, handler: {python: lifetime}}
      - {match: {path: /memory/*}, handler: {python: memory}}
      - {match: {path: /hard/*}, handler: {python: hard}}
"""


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Server:
    return serve_module({"app.py": APPLICATION}, config=CONFIG)


def reasons(server: Server, name: str) -> list[str]:
    """Why executors of this pool were replaced."""
    return [each["event"] for each in server.records("is replaced") if each["pool"] == name]


def test_after_so_many_requests(server: Server) -> None:
    with Clients(server, "/requests/") as clients:
        wait_for(lambda: len(reasons(server, "requests")) >= 4, "four workers have served enough")
    assert clients.faults == []
    assert len(set(clients.bodies)) >= 4
    found = [
        re.search(r"replaced: requests: (\d+), limit (\d+) \(of 200,", text) for text in reasons(server, "requests")
    ]
    figures = [(int(each[1]), int(each[2])) for each in found if each]
    assert len(figures) == len(found)
    assert all(served >= limit and 180 <= limit <= 220 for served, limit in figures)
    assert len({limit for _, limit in figures}) > 1  # they do not go together
    assert all(each["requests"] is not None for each in workers(server, "requests", "ready"))


def test_at_an_age(server: Server) -> None:
    first = {each["pid"] for each in workers(server, "lifetime")}
    with Clients(server, "/lifetime/", count=2) as clients:
        wait_for(lambda: not first & {each["pid"] for each in workers(server, "lifetime")}, "all of them are replaced")
    assert clients.faults == []
    assert all(re.search(r"lifetime: \d+\.\d s, limit \d\.\d s \(of 2 s", text) for text in reasons(server, "lifetime"))


def test_with_too_much_memory_it_finishes_first(server: Server) -> None:
    (old,) = workers(server, "memory")
    with Connection(server.port) as slow, Clients(server, "/memory/", count=2) as clients:
        slow.send("GET /memory/sleep HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for((server.folder / "sleeping").exists, "the slow request runs")
        assert server.get("/memory/grow").text == str(old["pid"])
        wait_for(
            lambda: workers(server, "memory", "ready")[:1] not in ([], [old]) and reasons(server, "memory"), "a new one"
        )
        (server.folder / "go").touch()
        assert slow.response().text == str(old["pid"])
        wait_for(lambda: old["pid"] not in {each["pid"] for each in workers(server, "memory")}, "the old one is gone")
    assert clients.faults == []
    assert re.search(r"memory: \d+\.\d MiB, limit 80.0 MiB", reasons(server, "memory")[0])


def test_over_the_hard_limit_an_allocation_fails(server: Server) -> None:
    (old,) = workers(server, "hard")
    assert server.get(f"/hard/explode?{400 << 20}").status == 500
    assert server.get("/hard/").text == str(old["pid"])
    wait_for(lambda: [each for each in server.records(".") if "MemoryError" in str(each)], "the log says why")


def test_capacity_stays_what_it_was(server: Server) -> None:
    """After all this, nobody is there twice and nobody is missing."""
    for name, processes in (("requests", 3), ("lifetime", 2), ("memory", 1), ("hard", 1)):
        wait_for(
            lambda name=name, processes=processes: len(workers(server, name, "ready", "relieved")) == processes,
            f"pool {name} has its workers",
        )
    assert ask(server, command="status")["ready"]


def test_one_that_cannot_be_replaced_goes_on(serve: Any) -> None:
    config = """\
control: control.sock
pools: {app: {python: "app:application", processes: 1, limits: {requests: 20}}}
sites: [{root: ., rules: [{match: {path: /*}, handler: {python: app}}]}]
"""
    server = serve({"app.py": APPLICATION}, config=config)
    (old,) = workers(server, "app")
    (server.folder / "app.py").write_text("import nowhere_to_be_found\n")
    with Clients(server, "/", count=1) as clients:
        server.wait_for_log("executor 2 cannot take over; executor 1 goes on")
        (server.folder / "app.py").write_text(APPLICATION)
        wait_for(lambda: len(set(clients.bodies)) == 2, "the next one can take over")
    assert clients.faults == []
    assert clients.bodies[0] == str(old["pid"]).encode()
