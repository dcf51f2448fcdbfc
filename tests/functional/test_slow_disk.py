"""A disk that does not answer stops the loop that asked it, and nobody else (the paper's argument for threads)."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Connection, Server, wait_for
from slow_files import SlowFiles

CONTENTS = {"slow-held.bin": b"h" * 50_000, "slow-sent.bin": b"s" * 1_000_000, "prompt.txt": b"prompt"}


@pytest.fixture
def disk(serve) -> Iterator[tuple[Server, SlowFiles]]:
    server = serve({"www/fast.txt": "fast", "www/disk/.keep": ""}, config="threads: 2\nsites: [{root: www}]\n")
    mounted = SlowFiles(server.folder / "www/disk", CONTENTS)
    try:
        mounted.__enter__()
    except OSError as error:
        pytest.skip(f"no FUSE file system can be mounted here: {error}")
    try:
        yield server, mounted
    finally:
        mounted.__exit__(None, None, None)


def is_open(pid: int, name: str) -> bool:
    """Whether the process has a file of that name open."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if name in str(entry.readlink()):
                return True
    return False


def ask(connection: Connection, target: str) -> Connection:
    return connection.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize("name", ["slow-held.bin", "slow-sent.bin"], ids=["read into memory", "sendfile"])
def test_other_loops_go_on(disk, name):
    server, mounted = disk
    assert server.get("/disk/prompt.txt").body == b"prompt"
    before = [server.connect() for _ in range(8)]
    try:
        for connection in before:
            assert ask(connection, "/fast.txt").response().body == b"fast"
        with server.connect() as waiting:
            ask(waiting, f"/disk/{name}")
            assert wait_for(mounted.reading.is_set, "the file is being read")
            # New connections are accepted by the loop that is free.
            for _ in range(20):
                assert server.get("/fast.txt").body == b"fast"
            assert server.get("/readyz").status == 200
            for connection in before:
                ask(connection, "/fast.txt")
            mounted.release()
            assert waiting.response().body == CONTENTS[name]
            # What waited in the loop that was stopped is answered now.
            for connection in before:
                assert connection.response().body == b"fast"
    finally:
        for connection in before:
            connection.close()
    # The large file stays open in the cache of the loop that sent it; a reload begins with an empty one.
    server.kill(signal.SIGHUP)
    wait_for(lambda: not is_open(server.one_pid("core_main"), name), "the earlier cache has gone")
