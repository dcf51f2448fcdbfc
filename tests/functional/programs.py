"""CGI programs of a server under test: who of them lives, what the log says of them, and that nothing of them stays."""

from __future__ import annotations

import http.client
import math
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from harness import Server, state_of, stop_process, wait_for

from appserver.supervisor.segments import HEADER, HEADER_SIZE, SLOT_SIZE, STATE_FREE

HEAD = "#!/bin/sh\necho Content-Type: text/plain\necho\n"


def printing(text: str) -> str:
    """A program that prints this and nothing else."""
    return "#!/bin/sh\ncat <<'THE_END'\n" + text + "\nTHE_END\n"


def variables(text: str) -> dict[str, str]:
    """What `env` has printed."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def working_below(folder: Path) -> list[int]:
    """Living processes whose working directory is there."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(folder):
                found.append(int(entry.name))
        except OSError:  # it has gone, or is dead
            continue
    return found


def programs(server: Server) -> list[int]:
    """Programs and all that they have started, wherever it was re-parented to: they work in the folder of programs."""
    return working_below(server.folder / "cgi-bin")


def wait_until_gone(server: Server) -> None:
    wait_for(lambda: not programs(server), "nobody of the program's group lives")
    server.check_zombies()


def slots_taken(server: Server, state: int | None = None) -> int:
    """Requests that the slots of the server's pools show, in that or in whatever state."""
    segments: dict[int, bytes] = {}
    for entry in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            if str(entry.readlink()).startswith("/memfd:slots-"):
                segments[entry.stat().st_ino] = entry.read_bytes()
        except OSError:
            continue
    assert segments, "the slot segments are not where this test looks for them"
    taken = 0
    for memory in segments.values():
        states = memory[HEADER_SIZE::SLOT_SIZE]  # a small number in the machine's order, which is that of x86 and ARM
        assert len(states) == HEADER.unpack_from(memory)[2]
        taken += len(states) - states.count(STATE_FREE) if state is None else states.count(state)
    return taken


def wait_until_as_before(server: Server) -> None:
    """Neither processes nor descriptors nor slots of a program are left."""
    wait_until_gone(server)
    server.check_fds()
    wait_for(lambda: slots_taken(server) == 0, "all slots are free")


def checked(server: Server) -> Iterator[Server]:
    """For a fixture: after each test nothing of a program is there any more, and the next one is answered."""
    yield server
    wait_until_as_before(server)
    assert server.get("/cgi-bin/good.sh").text == "good\n"


def expect_cut_off(server: Server, target: str) -> None:
    """The answer has begun, so what is missing can only be told by its broken end."""
    with server.connect() as connection:
        connection.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(http.client.IncompleteRead):
            connection.response()


def wait_for_reason(server: Server, before: int, name: str, reason: str) -> str:
    """The line that has program, reason and the request's id, among those that came after `before` others."""

    def found() -> str | None:
        lines = server.lines[before:]
        return next((line for line in lines if line.startswith("{") and name in line and re.search(reason, line)), None)

    try:
        line: str = wait_for(found, f"'{reason}' of {name} in the log")
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *server.lines[before:]])) from None
    assert re.search(r'"request": "[0-9a-f]{16}"', line), line
    return line


# Warm interpreters


def waiting(server: Server) -> list[int]:
    """The zygotes and what waits in them."""
    return server.pids(r"workers/zygote\.")


def started_at(pid: int) -> float:
    """In ticks since the machine's start; of one that has gone, later than all."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return math.inf


def end_all(pids: list[int]) -> None:
    """By SIGKILL; returns when they are gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(state_of(pid) in ("", "Z") for pid in pids), "they are gone")


@contextmanager
def held(server: Server) -> Iterator[int]:
    """The zygote, which this is, stands still, and none of its processes waits."""
    # What it has forked is younger than itself.
    zygote = min(waiting(server), key=started_at)
    try:
        stop_process(zygote)
        end_all([pid for pid in waiting(server) if pid != zygote])
        yield zygote
    finally:
        os.kill(zygote, signal.SIGCONT)
