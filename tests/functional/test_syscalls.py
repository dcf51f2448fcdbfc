"""What a request costs in system calls, counted: none may creep into the ways that are asked for most."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import SANITIZE, Connection, Server, wait_for

pytestmark = pytest.mark.alone

ROUNDS = 20
SMALL, MIDDLE, LARGE = b"s" * 1000, b"m" * 10_000, b"L" * 20_000
#: Nothing that happens by the clock: entries are believed, no log is flushed.
CONFIG = 'cache: {revalidate: 24h, file_size: 16KiB}\nlog: {access: "off"}\nlimits: {idle_timeout: 24h}\n'
CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)")


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    if SANITIZE:
        pytest.skip("the sanitizers make system calls of their own")
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (deploy/system-packages.sh test installs it)")
    files: dict[str, str | bytes] = {"www/small": SMALL, "www/middle": MIDDLE, "www/large": LARGE}
    started: Server = serve_module(files, "--threads", "1", config=CONFIG)
    started.get("/large")  # the cache keeps its descriptor
    started.remember_fds()
    return started


def loop_thread(server: Server) -> str:
    tasks = Path(f"/proc/{server.one_pid('core_main')}/task").iterdir()
    return next(task.name for task in tasks if (task / "comm").read_text().strip() == "loop-0")


@contextmanager
def traced(server: Server, log: Path) -> Iterator[None]:
    """Writes the system calls of the only loop to `log`."""
    tracer = subprocess.Popen(
        ["strace", "-o", str(log), "-p", loop_thread(server)], stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace may not trace here: {said.strip()}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()


def calls_between(server: Server, connection: Connection, log: Path, request: str, status: int) -> list[str]:
    """The calls from one receiving to the next, which must be the same for each of ROUNDS requests."""
    with traced(server, log):
        for _ in range(ROUNDS):
            assert connection.send(request).response().status == status
        connection.send(asked("/end")).response()
        wait_for(lambda: '"GET /end ' in log.read_text(), "strace has written the last request")
    # The first part is what was going on when the tracing began, the last one is that of /end.
    rounds = re.split(r"(?m)^(?=recvfrom\()", log.read_text())[1:-1]
    assert len(rounds) == ROUNDS
    kinds = {
        tuple(call[1] for call in CALL.finditer(each) if (call[1], call[3]) != ("epoll_wait", "0")) for each in rounds
    }
    assert len(kinds) == 1, kinds
    return list(kinds.pop())


def asked(target: str, *fields: str) -> str:
    return "\r\n".join((f"GET {target} HTTP/1.1", "Host: x", *fields, "", ""))


@pytest.mark.parametrize(("target", "size"), [("/small", len(SMALL)), ("/middle", len(MIDDLE))])
def test_a_file_in_the_cache(server: Server, tmp_path: Path, target: str, size: int) -> None:
    with server.connect() as connection:
        assert len(connection.send(asked(target)).response().body) == size
        receive, send, wait = calls_between(server, connection, tmp_path / "log", asked(target), 200)
    assert receive == "recvfrom"
    assert send in ("sendmsg", "sendto")
    assert wait == "epoll_wait"


def test_not_modified(server: Server, tmp_path: Path) -> None:
    with server.connect() as connection:
        tag = connection.send(asked("/small")).response().header("etag")
        found = calls_between(server, connection, tmp_path / "log", asked("/small", f"If-None-Match: {tag}"), 304)
    assert found in (["recvfrom", "sendmsg", "epoll_wait"], ["recvfrom", "sendto", "epoll_wait"])


def test_a_large_file(server: Server, tmp_path: Path) -> None:
    """Its descriptor is kept open and looked at, its head and its content share packets, under a cork."""
    with server.connect() as connection:
        connection.send(asked("/large")).response()
        found = calls_between(server, connection, tmp_path / "log", asked("/large"), 200)
    receive, look, cork, send, content, uncork, wait = found
    assert receive == "recvfrom"
    assert look in ("fstat", "newfstatat")
    assert send in ("sendmsg", "sendto")
    assert (cork, content, uncork, wait) == ("setsockopt", "sendfile", "setsockopt", "epoll_wait")
