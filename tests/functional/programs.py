"""CGI programs of a server under test: who of them lives, what the log says of them, and that nothing of them stays."""

from __future__ import annotations

import re
from pathlib import Path

from harness import Server, wait_for

from appserver.supervisor.segments import HEADER, HEADER_SIZE, SLOT_SIZE, STATE_FREE

HEAD = "#!/bin/sh\necho Content-Type: text/plain\necho\n"


def programs(server: Server) -> list[int]:
    """Programs and all that they have started, wherever it was re-parented to: they work in the folder of programs."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(server.folder / "cgi-bin"):
                found.append(int(entry.name))
        except OSError:  # it has gone, or is dead
            continue
    return found


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
