"""What a CGI spawner leaves behind when it dies: the programs that it ran, with their children.

Each child of ours begins a session. A program has a process group of its own in that of its spawner, so all but those
that have begun sessions themselves are found by it. (The slots say less: they are written after a program has started.)
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

ROUNDS_MAX = 20  #: of looking: programs may start others meanwhile


def kill_session(leader: int) -> None:
    """Kills, of the session that the process `leader` had begun, those that are left. The kernel gives its number to
    nobody else while there are any.
    """
    known: set[int] = set()
    for _ in range(ROUNDS_MAX):
        members = dict(_members(leader))
        if members.keys() <= known:
            return
        known |= members.keys()
        for group in set(members.values()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def _members(session: int) -> list[tuple[int, int]]:
    """Process and process group of each that lives."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        state, _, group, its_session = stat.rpartition(")")[2].split()[:4]
        if int(its_session) == session and state not in "ZX":
            found.append((int(folder.name), int(group)))
    return found
