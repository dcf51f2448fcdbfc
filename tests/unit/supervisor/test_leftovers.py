"""Programs of a spawner that has died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from appserver.supervisor.leftovers import kill_session

LEADER = """\
import os, subprocess, time
own_group = subprocess.Popen(["sh", "-c", "sleep 1000 & sleep 1000"], preexec_fn=lambda: os.setpgid(0, 0))
same_group = subprocess.Popen(["sleep", "1000"])
elsewhere = subprocess.Popen(["sleep", "1000"], start_new_session=True)
print(own_group.pid, same_group.pid, elsewhere.pid, flush=True)
time.sleep(1000)
"""


def state_and_session(pid: int) -> tuple[str, int]:
    """("", 0) when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[3])


def members(session: int) -> list[int]:
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return [pid for pid in pids if (found := state_and_session(pid))[1] == session and found[0] not in "ZX"]


def test_those_of_a_session_are_killed_and_nobody_else() -> None:
    leader = subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert leader.stdout is not None
    own_group, same_group, elsewhere = map(int, leader.stdout.readline().split())
    try:
        end = time.monotonic() + 60
        while len(members(leader.pid)) < 5:  # the leader, a shell, its two, and one more
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(own_group, signal.SIGSTOP)
        leader.kill()
        leader.wait()
        kill_session(leader.pid)
        while members(leader.pid):
            assert time.monotonic() < end
            time.sleep(0.01)
        assert state_and_session(same_group)[0] in ("", "Z")
        assert state_and_session(elsewhere)[0] not in ("", "Z")
        kill_session(leader.pid)  # nobody is left
    finally:
        leader.stdout.close()
        os.kill(elsewhere, signal.SIGKILL)
        for pid in members(leader.pid):
            os.kill(pid, signal.SIGKILL)
