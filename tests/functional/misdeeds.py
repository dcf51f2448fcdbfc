"""What synchronous and asynchronous applications alike do to their workers, and what has to come of it."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from harness import SANITIZE, Server, wait_for

#: A module for applications. Each of its `MISDEEDS` returns what is to be answered, should it come to that.
MODULE = r"""
import ctypes, os, resource

def blocks():  # with the interpreter's lock held, so that nothing in Python can end it
    ctypes.PyDLL(None).sleep(600)

def exits():
    os._exit(7)

def segfault():
    ctypes.string_at(0)

def killed():
    kept = b"x" * (64 << 20)
    os.kill(os.getpid(), 9)  # as the kernel does when memory runs out

def allocates():
    free = resource.getrlimit(resource.RLIMIT_AS)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), free[1]))
    try:
        kept = []
        while True:
            kept.append(bytearray(16 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, free)

def forks():
    if not os.fork():
        return b"of the child"
    os.wait()
    return b"of the parent"

def closes():
    os.closerange(3, 1024)
    return b"closed"

def floods():
    for _ in range(300):
        os.write(2, b"noise " * 4000 + b"\n")
    return b"flooded"

MISDEEDS = {each.__name__: each for each in (blocks, exits, segfault, killed, allocates, forks, closes, floods)}
"""
ALLOCATES = pytest.param(
    "allocates",
    "MemoryError",
    marks=pytest.mark.skipif(bool(SANITIZE), reason="the address sanitizer ends a worker without memory"),
)
DEATHS = [
    ("exits", "ended with exit status 7"),
    ("segfault", "was killed by SIGSEGV"),
    ("killed", "was killed by SIGKILL"),
]


@contextmanager
def others_untouched(server: Server, target: str) -> Iterator[None]:
    """The other pool's worker, whose process `target` tells, answers before and afterwards, and it is the same one."""
    before = server.get(target).text
    yield
    assert server.get(target).text == before
    wait_for(lambda: len(workers(server)) == 3, "every pool has its workers")


def workers(server: Server) -> list[int]:
    return server.pids("workers/main.py")


def wait_for_replacement(server: Server, pids: list[int], who: str) -> None:
    wait_for(lambda: len(set(workers(server)) - set(pids)) == 1, f"{who} is replaced")


def failures(server: Server) -> int:
    return len(server.records("^handler failed$"))


def wait_for_failure(server: Server, before: int) -> dict[str, Any]:
    wait_for(lambda: failures(server) > before, "the failure is in the log")
    return server.records("^handler failed$")[-1]


def expect_refusal(server: Server, target: str, why: str) -> dict[str, Any]:
    """500, and the reason in the log, whose record this is; the workers go on."""
    pids, before = workers(server), failures(server)
    response = server.get(target)
    assert response.status == 500
    assert response.header("x-injected") is None
    record = wait_for_failure(server, before)
    assert why in record["error"]
    assert record["target"] == target
    assert record["request"] in response.text
    assert workers(server) == pids
    return record


def expect_cut_off(server: Server, target: str, why: str) -> None:
    """The answer has begun; its end is missing, and the reason in the log."""
    pids, before = workers(server), failures(server)
    with pytest.raises(http.client.IncompleteRead):
        server.get(target)
    assert why in wait_for_failure(server, before)["error"]
    assert workers(server) == pids


# Misdeeds of the application `bad` of the pool `bad`, which is at /bad/


def expect_stuck_worker_to_be_replaced(server: Server) -> None:
    pids = workers(server)
    server.allowed.append("Fatal Python error")
    assert server.get("/bad/blocks").status == 504
    wait_for_replacement(server, pids, "the stuck worker")
    server.wait_for_log(r"bad\.py.*in application")  # the stack says where


def expect_death(server: Server, name: str, sentence: str) -> None:
    server.allowed.append("Fatal Python error")
    pids, before = workers(server), len(server.records(sentence))
    response = server.post(f"/bad/{name}", b"")
    assert response.status == 502
    wait_for(lambda: len(server.records(sentence)) > before, "the end is in the log")
    record = server.records(sentence)[-1]
    assert (record["pool"], response.header("x-incident") in record["requests"]) == ("bad", True)
    wait_for_replacement(server, pids, "the dead worker")
    assert server.get("/bad/pid").status == 200


def expect_only_the_parent_to_come_back(server: Server) -> None:
    pids = workers(server)
    with server.connect() as connection:
        for _ in range(3):  # a second answer would come as that of the next request
            connection.send("GET /bad/forks HTTP/1.1\r\nHost: a\r\n\r\nGET /bad/pid HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.response().text == "of the parent"
            assert int(connection.response().text) in pids
    server.wait_for_log('"a process that a handler forked came back from it and was ended', 3)
    assert workers(server) == pids


def expect_flood_to_be_bounded(server: Server, other: str) -> None:
    """7 MB reach the log as at most some hundred lines of bounded length, and hold nobody up."""
    before = len(server.lines)
    assert server.get("/bad/floods").text == "flooded"
    server.wait_for_log("noise noise")
    assert server.get(other).status == 200
    assert max(len(line) for line in server.lines[before:]) < 20_000
    assert re.fullmatch(r"[0-9]+", server.get("/bad/pid").text)
