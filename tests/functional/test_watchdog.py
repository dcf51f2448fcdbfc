"""Handlers that do not come to an end: what the client gets, what the log says, and who goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
from harness import Server, state_of, wait_for
from test_faults import Asking, holder, open_gate, workers

SCRIPT = r"""
import ctypes, os, pathlib, threading, time

FOLDER = pathlib.Path(__file__).parent.parent
lock = threading.Lock()
lock.acquire()

def handle(request):
    kind = request.path_info[1:]
    if kind == "gate":
        (FOLDER / "running" / f"{request.query['name']}.{os.getpid()}").touch()
        while not (FOLDER / "open").exists():
            time.sleep(0.005)
    elif kind in globals() and kind.startswith("in_"):
        globals()[kind]()
    return str(os.getpid())

def in_a_loop():
    while True:
        pass

def in_a_loop_that_catches():
    while True:
        try:
            time.sleep(0.01)
            raise ValueError
        except Exception:
            pass

def in_a_loop_that_catches_everything():
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass

def in_short_sleeps():
    while True:
        time.sleep(0.01)

def in_a_sleep():
    time.sleep(600)

def in_a_lock():
    lock.acquire()

def in_c_with_the_lock():
    ctypes.PyDLL(None).sleep(600)

def in_c_without_the_lock():
    ctypes.CDLL(None).sleep(600)
"""

CONFIG = """
log: {access: "off"}
pools:
  handlers: {scripts: handlers, processes: 1, threads: 3, limits: LIMITS}
sites:
  - root: www
    rules: [{match: {path: /app/*}, handler: {python: handlers/app.py}}]
"""
GRACE_S = 2


def start(serve: Any, limits: str) -> Server:
    started: Server = serve(
        {"handlers/app.py": SCRIPT, "www/page.html": "a page", "running/.keep": ""},
        config=CONFIG.replace("LIMITS", limits),
    )
    return started


@pytest.fixture
def server(serve: Any) -> Server:
    return start(serve, "{request_time: 1500ms, interrupt_time: 300ms, stop_time: 5s}")


def overdue(server: Server, where: str) -> dict[str, Any]:
    """The log record about a request that is stuck in that function, with its stacks."""
    record: dict[str, Any] = json.loads(server.wait_for_log(f"a request is past its time.*in {where}"))
    assert "most recent call first" in record["traceback"]
    assert record["about"].startswith(f"GET /app/{where}:")
    return record


GO_ON = ["in_a_loop", "in_a_loop_that_catches", "in_short_sleeps"]
STAY = ["in_a_sleep", "in_a_lock", "in_c_with_the_lock", "in_c_without_the_lock", "in_a_loop_that_catches_everything"]


def test_the_worker_goes_on(serve: Any) -> None:
    server = start(serve, f"{{request_time: 1500ms, interrupt_time: {GRACE_S}s}}")
    worker = workers(server)
    for where in GO_ON:
        response = server.get(f"/app/{where}")
        assert response.status == 504
        assert overdue(server, where)["request"] in response.text
        record = json.loads(server.wait_for_log(f"handler failed.*{where}"))
        assert record["error"].startswith("RequestTimeout")
        assert server.get("/app/pid").text == str(worker[0])
    time.sleep(GRACE_S + 0.5)  # nobody misses it when the last grace is over
    assert workers(server) == worker
    assert not server.records("did not end when it was interrupted")


@pytest.mark.parametrize("where", STAY)
def test_the_worker_is_replaced(server: Server, where: str) -> None:
    (worker,) = workers(server)
    response = server.get(f"/app/{where}")
    assert response.status == 504
    request = overdue(server, where)["request"]
    assert request in response.text
    record = json.loads(server.wait_for_log('"a request did not end when it was interrupted'))
    assert record["request"] == request
    wait_for(lambda: not state_of(worker), "it is gone")
    (other,) = workers(server)
    assert other != worker
    assert server.get("/app/pid").text == str(other)
    # It was started before the old one was told to stop, and the pool was never without anybody.
    assert not server.records("^not ready")


def test_what_the_other_threads_run_is_not_lost(serve: Any) -> None:
    # The other request comes within the grace, and has its time until the next worker is there.
    server = start(serve, "{request_time: 7s, interrupt_time: 2s, stop_time: 20s}")
    (worker,) = workers(server)
    stuck = Asking(server, "/app/in_a_sleep")
    assert stuck.response().status == 504
    other = Asking(server, "/app/gate?name=a", "POST", b"")
    assert holder(server, "a") == worker
    wait_for(lambda: [pid for pid in workers(server) if pid != worker], "another one is started")
    server.wait_for_log('"executor is ready"', 2)
    assert state_of(worker)  # it has a request to finish
    open_gate(server)
    response = other.response()
    assert (response.status, response.text) == (200, str(worker))
    wait_for(lambda: not state_of(worker), "it goes, though a thread of it still sleeps")
    assert server.get("/app/pid").status == 200


def test_a_worker_that_cannot_write_its_stacks(server: Server) -> None:
    """A stopped process handles no signal."""
    (worker,) = workers(server)
    stuck = Asking(server, "/app/gate?name=a")
    assert holder(server, "a") == worker
    os.kill(worker, signal.SIGSTOP)
    assert stuck.response().status == 504
    record = json.loads(server.wait_for_log('"a request is past its time'))
    assert "traceback" not in record
    wait_for(lambda: not state_of(worker), "it is replaced")
    wait_for(lambda: server.get("/app/pid").status == 200, "somebody serves")
