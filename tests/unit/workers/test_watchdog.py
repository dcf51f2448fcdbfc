"""A request that is past its time: stacks without the interpreter's lock, the interrupt, and what it must never hit."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_core import PATIENCE_S, STACKS_SIGNAL, Answer, FakeCore

from tests.interpreters import other_cpythons

Run = Callable[..., FakeCore]

APP = """
import ctypes, os, threading, time
from appserver_handler import RequestTimeout

def application(environ, start_response):
    path = environ["PATH_INFO"]
    answer = globals()["at_" + path[1:].partition("/")[0]](environ)
    start_response("200 OK", [])
    return [str(answer).encode()]

def at_hello(environ):
    return "hello"

def at_pid(environ):
    return os.getpid()

def at_busy(environ):
    while True:
        pass

def at_stubborn(environ):
    while True:
        try:
            while True:
                pass
        except Exception:
            pass

def at_tidy(environ):
    try:
        at_busy(environ)
    finally:
        tidied.append(1)

tidied = []

def at_tidied(environ):
    return len(tidied)

def at_caught(environ):
    try:
        at_busy(environ)
    except RequestTimeout as error:
        return error

def at_short(environ):
    until = time.monotonic() + float(environ["PATH_INFO"].rpartition("/")[2])
    while time.monotonic() < until:
        time.sleep(0)  # lets the thread in that interrupts
    return "short"

def at_block_in_c_with_the_lock(environ):
    ctypes.PyDLL(None).sleep(600)

def at_segfault(environ):
    ctypes.string_at(0)

def at_fork(environ):
    pid = os.fork()
    if pid == 0:
        ctypes.string_at(0)
    os.waitpid(pid, 0)
    return "forked"

def at_deadline(environ):
    deadline = environ.get("appserver.deadline")
    return deadline and deadline - time.monotonic()

kept = []

def at_cancelled(environ):
    cancelled = environ["appserver.cancelled"]
    kept.append(cancelled)
    before = cancelled()
    open("asked", "w").close()
    while not cancelled():
        time.sleep(0.001)
    return before

def at_keep(environ):
    kept.append(environ["appserver.cancelled"])
    return kept[-1]()

def at_kept(environ):
    return [cancelled() for cancelled in kept]
"""


@pytest.fixture(params=[1, 4], ids=["1 thread", "4 threads"])
def threads(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


def begin(core: FakeCore, path: str, slot: int) -> None:
    core.send(core.frame("GET", path, slot=slot))
    core.wait_until_running(slot)


def interrupted(core: FakeCore, slot: int) -> Answer:
    """The answer to the request in that slot. It is marked a moment before it runs, so one interrupt may be early."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        core.interrupt(slot)
        if select.select([core.answers[0]], [], [], 0.2)[0]:
            break
    return core.next_answer()


@pytest.mark.parametrize("path", ["/busy", "/stubborn", "/tidy"])
def test_interrupted_and_the_worker_goes_on(run: Run, threads: int, path: str) -> None:
    core = run(APP, threads=threads)
    begin(core, path, 9)
    answer = interrupted(core, 9)
    assert (answer.slot, answer.status) == (9, 500)
    record = core.log("handler failed")
    assert record["error"] == "RequestTimeout: the request is past its time (request_time)"
    assert "in at_busy" in record["traceback"] or "in at_stubborn" in record["traceback"]
    assert [core.fetch("GET", "/hello").body for _ in range(5)] == [b"hello"] * 5
    assert core.fetch("GET", "/tidied").body == str(int(path == "/tidy")).encode()


def test_a_handler_may_catch_it(run: Run) -> None:
    core = run(APP)
    begin(core, "/caught", 9)
    answer = interrupted(core, 9)
    assert (answer.status, answer.body) == (200, b"the request is past its time (request_time)")


def test_another_request_is_not_hit(run: Run, threads: int) -> None:
    core = run(APP, threads=threads)
    assert core.fetch("GET", "/hello", slot=9).body == b"hello"
    core.interrupt(9)  # it has ended
    begin(core, "/short/0.05", 10)
    core.interrupt(10, 12345)  # it runs, but this is not its id
    answer = core.next_answer()
    assert (answer.status, answer.body) == (200, b"short")
    assert core.fetch("GET", "/hello").body == b"hello"


def test_interrupts_at_any_moment_hit_their_request_or_nothing(run: Run, threads: int) -> None:
    """Each request gets exactly one answer, whole or 500, and nobody else's thread dies of it."""
    core = run(APP, threads=threads)
    chance = random.Random(threads)
    hit = number = 0
    until = time.monotonic() + PATIENCE_S
    while number < 300 or not 0 < hit < number:
        assert time.monotonic() < until, f"{hit} of {number} were hit"
        number += 1
        slot = 1 + number % 60
        begin(core, f"/short/{chance.choice(('0.0005', '0.0005', '0.005'))}", slot)
        time.sleep(chance.random() * 0.001)
        core.interrupt(slot)
        answer = core.next_answer()
        assert answer.slot == slot
        hit += answer.status == 500
        assert answer.status == 500 or answer.body == b"short"
        assert core.fetch("GET", "/hello").body == b"hello"
    pid = core.fetch("GET", "/pid").body
    assert int(pid) == core.process.pid


def asked_for_stacks(core: FakeCore) -> str:
    os.ftruncate(core.stacks_fd, 0)
    os.lseek(core.stacks_fd, 0, os.SEEK_SET)
    os.kill(core.process.pid, STACKS_SIGNAL)
    return core.stacks("in main")


def await_stack(core: FakeCore, line: str) -> None:
    """A request is marked a moment before it runs, so the first stacks may be early."""
    until = time.monotonic() + PATIENCE_S
    while line not in (stacks := asked_for_stacks(core)):
        assert time.monotonic() < until, stacks


def test_a_worker_without_such_a_thread_ignores_it(run: Run) -> None:
    core = run(APP)
    core.control.send(b'{"type": "interrupt", "thread": 99, "request": "1"}')
    core.control.send(b'{"type": "interrupt", "thread": "x"}')
    assert core.log("a request cannot be interrupted")["error"].startswith("ValueError")
    assert core.fetch("GET", "/hello").body == b"hello"


def test_stacks_while_an_extension_holds_the_interpreters_lock(run: Run) -> None:
    core = run(APP)
    begin(core, "/block_in_c_with_the_lock", 9)
    await_stack(core, "in at_block_in_c_with_the_lock")


def test_stacks_of_a_worker_that_goes_on(run: Run) -> None:
    core = run(APP)
    for _ in range(3):
        asked_for_stacks(core)
        assert core.fetch("GET", "/hello").body == b"hello"


def test_stacks_of_a_fatal_error(run: Run) -> None:
    core = run(APP)
    core.send(core.frame("GET", "/segfault"))
    assert core.exit_status() == -signal.SIGSEGV
    stacks = core.stacks("Segmentation fault")
    assert "in at_segfault" in stacks
    assert core.output() == ""


def test_a_forked_child_writes_its_own_elsewhere(run: Run) -> None:
    core = run(APP)
    assert core.fetch("GET", "/fork").body == b"forked"
    core.stop()
    assert core.exit_status() == 0
    assert os.fstat(core.stacks_fd).st_size == 0
    assert "Segmentation fault" in core.output()


def test_deadline(run: Run) -> None:
    assert run(APP).fetch("GET", "/deadline").body == b"None"
    left = float(run(APP, request_time_ms=20_000).fetch("GET", "/deadline").body)
    assert 0 < left <= 20


def test_cancelled(run: Run, tmp_path: Path) -> None:
    core = run(APP)
    begin(core, "/cancelled", 9)
    until = time.monotonic() + PATIENCE_S
    while not (tmp_path / "asked").exists():  # it is marked a moment before it runs
        assert time.monotonic() < until
        time.sleep(0.001)
    core.cancel(9)
    assert core.next_answer().body == b"False"
    assert core.fetch("GET", "/keep", slot=10).body == b"False"
    core.frame(slot=10)  # takes the slot for another request
    assert core.fetch("GET", "/kept", slot=11).body == b"[True, True]"


@pytest.mark.parametrize("interpreter", other_cpythons())
def test_other_interpreters(run: Run, interpreter: str, tmp_path: Path) -> None:
    core = run(APP, interpreter=interpreter)
    begin(core, "/stubborn", 9)
    await_stack(core, "in at_stubborn")
    assert interrupted(core, 9).status == 500
    assert core.fetch("GET", "/hello").body == b"hello"
