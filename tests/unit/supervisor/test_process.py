"""One child process: how its death is noticed where the kernel's own way is closed."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

import pytest
from harness import count_fds, wait_for

from appserver.logging import get_logger
from appserver.supervisor.identity import Identity
from appserver.supervisor.loop import Loop
from appserver.supervisor.process import Child, Command, Death

WAITS = "import sys, socket; socket.socket(fileno=int(sys.argv[1])).recv(1)"


def start(loop: Loop, code: str, deaths: list[Death]) -> Child:
    def died(death: Death) -> None:
        deaths.append(death)
        loop.stop()

    command = Command([sys.executable, "-c", code], dict(os.environ))
    return Child(loop, command, get_logger(), lambda message: None, died)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.mark.parametrize("refusal", [0, errno.EPERM, errno.ENOSYS])
def test_a_death_is_noticed_also_without_pidfds(loop: Loop, monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    if refusal:
        # What a container's seccomp filter answers that is older than the calls.
        monkeypatch.setattr(os, "pidfd_open", refuse)
        monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    deaths: list[Death] = []
    start(loop, "raise SystemExit(7)", deaths)
    loop.run()
    assert [death.status for death in deaths] == [7]
    child = start(loop, WAITS, deaths)
    child.signal(signal.SIGKILL)
    loop.run()
    assert [death.status for death in deaths] == [7, -signal.SIGKILL]
    child.signal(signal.SIGKILL)  # nobody is there any more
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)
    loop.close()


def test_a_message_does_not_kill_who_is_ending(loop: Loop, tmp_path: Path) -> None:
    """It has closed its end of the channel already, and is about to exit."""
    closed, go = tmp_path / "closed", tmp_path / "go"
    source = (
        "import os, pathlib, sys, time\n"
        f"os.close(int(sys.argv[1]))\npathlib.Path({str(closed)!r}).touch()\n"
        f"while not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\n"
    )
    deaths: list[Death] = []
    child = start(loop, source, deaths)
    wait_for(closed.exists, "it has closed its end")
    child.send("readiness")
    go.touch()
    loop.run()
    assert [death.status for death in deaths] == [0]
    loop.close()


def test_without_descriptors_left_nothing_stays_behind(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    before = count_fds(os.getpid(), tmp_path)
    with pytest.raises(OSError, match="Too many open files"):
        start(loop, WAITS, [])
    assert count_fds(os.getpid(), tmp_path) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    loop.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as somebody else")
def test_a_program_that_another_user_may_not_reach(loop: Loop, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    command = Command([str(program)], {}, Identity(12345, 12345, (), "somebody"))
    with pytest.raises(PermissionError) as caught:
        Child(loop, command, get_logger(), lambda message: None, lambda death: None)
    assert command.refusal(caught.value) == (
        f"{program} cannot be run as user somebody: Permission denied;"
        " it and the folders above it must be open to that user"
    )
    loop.close()
