"""Executors that die at each point of a request's way through them (`fake_executor.py`)."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Response, Server, state_of, wait_for

CONFIG = """
log: {access: "off"}
pools:
  shop: {python: "fake:app", interpreter: cgi-bin/executor, processes: 6, threads: 1, quarantine: 10m}
  never: {python: "fake:app", interpreter: cgi-bin/executor, processes: 2, threads: 1, retry: never}
  always: {python: "fake:app", interpreter: cgi-bin/executor, processes: 2, threads: 1, retry: always, quarantine: 0s}
sites:
  - rules:
      - {match: {path: /never/*}, handler: {python: never}}
      - {match: {path: /always/*}, handler: {python: always}}
      - {match: {path: /*}, handler: {python: shop}}
"""
EXECUTOR = f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "fake_executor.py"} "$@"\n'
NAMES = (f"n{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Server:
    found: Server = serve_module({"cgi-bin/executor": EXECUTOR}, config=CONFIG)
    return found


def lines(server: Server, file: str, name: str = "") -> list[str]:
    path = server.folder / file
    return [line for line in path.read_text().splitlines() if line.startswith(name)] if path.exists() else []


def runs(server: Server, name: str) -> int:
    """How often the request has been run."""
    return len(lines(server, "runs", f"{name} "))


@pytest.fixture
def killing(server: Server) -> Iterator[None]:
    """While this is there, executors that have stopped are killed. It ends when all are gone that were told to die."""
    before = set(server.folder.glob("faults.*"))
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.01):
            for pid in server.pids("fake_executor.py"):
                if state_of(pid) == "T":
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    told = [int(pid) for path in set(server.folder.glob("faults.*")) - before for pid in lines(server, path.name)[:1]]
    wait_for(lambda: not [pid for pid in told if state_of(pid)], "those that were told to die are gone")
    over.set()
    thread.join()


def ask(
    server: Server,
    method: str,
    name: str,
    at: str,
    how: str = "kill",
    times: int = 1,
    path: str = "/",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Response:
    target = f"{path}?name={name}&at={at}&how={how}&times={times}"
    return server.get(target, headers, method, b"x" if body is None and method in ("POST", "PATCH") else body)


#: Point of the death; then, for requests that may be repeated and for others: status and number of runs.
POINTS = {
    "received": ((200, 1), (502, 0)),
    "marked": ((200, 1), (502, 0)),
    "ran": ((200, 2), (502, 1)),
    "answered": ((200, 1), (200, 1)),
}
REPEATED: list[tuple[str, dict[str, str]]] = [("GET", {}), ("PUT", {}), ("POST", {"Idempotency-Key": '"4711"'})]


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("at", POINTS)
def test_one_death(server: Server, killing: None, at: str, how: str) -> None:
    repeated, others = POINTS[at]
    for method, headers in REPEATED:
        name = next(NAMES)
        response = ask(server, method, name, at, how, headers=headers)
        assert (response.status, runs(server, name)) == repeated, (method, response.text)
        assert response.text == name
    name = next(NAMES)
    response = ask(server, "POST", name, at, how)
    assert (response.status, runs(server, name)) == others
    if response.status == 502:
        incident = response.header("x-incident")
        assert incident is not None
        assert incident in response.text
        server.wait_for_log(f'lost with its executor.*"{incident}"')


def test_death_in_a_stream_is_seen_by_the_client(server: Server) -> None:
    name = next(NAMES)
    with pytest.raises(http.client.IncompleteRead):
        ask(server, "GET", name, "streaming")
    assert runs(server, name) == 1


def test_two_deaths_are_quarantined(server: Server) -> None:
    name = next(NAMES)
    response = ask(server, "GET", name, "marked", times=9)
    assert response.status == 503
    assert response.header("retry-after") == "600"
    assert response.header("x-incident")
    assert len(lines(server, f"faults.{name}")) == 2
    record = json.loads(server.wait_for_log("killed two executors and is quarantined"))
    assert (record["about"], record["level"]) == (
        f"GET /: killed two executors and is quarantined for 600 s; fingerprint {record['about'][-16:]}",
        "error",
    )
    began = time.monotonic()
    refused = [ask(server, "GET", name, "marked", times=9) for _ in range(20)]
    took_s = time.monotonic() - began
    assert {each.status for each in refused} == {503}
    assert all(0 < int(each.header("retry-after") or 0) <= 600 for each in refused)
    assert len(lines(server, f"faults.{name}")) == 2
    words = f"refused, for it is quarantined: GET /, fingerprint {record['about'][-16:]}"
    server.wait_for_log(words)
    told = server.records(words)
    assert 1 <= len(told) <= (os.cpu_count() or 1) * (took_s + 1)  # one a second from each loop
    # What is not the same request is run.
    assert ask(server, "GET", name, "nowhere").text == name
    assert ask(server, "HEAD", name, "marked").status == 200


def test_the_body_counts(server: Server) -> None:
    name = next(NAMES)
    headers = {"Idempotency-Key": "1"}
    assert ask(server, "POST", name, "ran", times=2, headers=headers, body=b"a" * 70_000).status == 503
    assert ask(server, "POST", name, "ran", times=2, headers=headers, body=b"a" * 70_000).status == 503
    assert ask(server, "POST", name, "ran", times=2, headers=headers, body=b"a" * 70_001).status == 200
    assert ask(server, "POST", name, "ran", times=2, headers=headers, body=b"b" + b"a" * 69_999).status == 200
    assert runs(server, name) == 4


def test_deaths_before_it_was_marked_are_not_its_own(server: Server) -> None:
    name = next(NAMES)
    assert ask(server, "GET", name, "received", times=3).text == name
    assert (len(lines(server, f"faults.{name}")), runs(server, name)) == (4, 1)


def test_retry_never(server: Server) -> None:
    name = next(NAMES)
    assert ask(server, "GET", name, "marked", path="/never").status == 502
    assert ask(server, "GET", next(NAMES), "received", path="/never").status == 502
    assert ask(server, "GET", name, "marked", path="/never").text == name


def test_retry_always(server: Server) -> None:
    name = next(NAMES)
    assert ask(server, "POST", name, "ran", path="/always").text == name
    assert runs(server, name) == 2
    # Without a quarantine the second death is the end, and the same request is run again.
    name = next(NAMES)
    assert ask(server, "POST", name, "ran", times=2, path="/always").status == 502
    assert ask(server, "POST", name, "ran", times=2, path="/always").text == name


def test_an_executor_that_was_taken_for_dead(server: Server) -> None:
    """It stopped before it marked its request; another one's death makes the core look; then it goes on."""
    name = next(NAMES)
    found: list[Response] = []
    asking = threading.Thread(target=lambda: found.append(ask(server, "GET", name, "received", "stop")))
    asking.start()
    path = f"faults.{name}"
    stopped = int(wait_for(lambda: lines(server, path), "somebody has received it")[0])
    wait_for(lambda: state_of(stopped) == "T", "it is stopped")
    assert ask(server, "GET", next(NAMES), "marked").status == 200
    asking.join()
    assert found[0].text == name
    again = next(NAMES)  # takes the slot
    assert ask(server, "GET", again, "marked").text == again
    os.kill(stopped, signal.SIGCONT)
    wait_for(lambda: state_of(stopped) == "S", "it has dropped the request")
    assert runs(server, name) == 1

    def works() -> bool:
        name = next(NAMES)
        assert ask(server, "GET", name, "nowhere").text == name
        return any(line.endswith(f" {stopped}") for line in lines(server, "runs"))

    wait_for(works, "it goes on working")
