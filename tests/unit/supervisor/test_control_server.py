"""Where the control socket goes, and what is passed over."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appserver.control import client, places
from appserver.errors import AppError, StartError
from appserver.supervisor.control_server import ControlServer
from appserver.supervisor.loop import Loop

NAME = f"{os.getpid()}.sock"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: nothing is there but /dev/shm and /tmp."""
    monkeypatch.setattr(places, "SHARED", (tmp_path / "tmp", tmp_path / "shm"))
    monkeypatch.setattr(places, "RUN", tmp_path / "run")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "shm").mkdir()
    return tmp_path


@pytest.fixture
def server() -> Iterator[ControlServer]:
    loop = Loop()
    server = ControlServer(loop)
    yield server
    server.close()
    loop.close()


def own(folder: str) -> str:
    return f"{folder}/cherokee-app-{os.geteuid()}"


def test_the_first_folder_that_can_be_used(folders: Path, server: ControlServer) -> None:
    server.open(None)
    assert server.path == folders / own("tmp") / NAME
    assert stat.S_IMODE(server.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    server.close()
    assert list(folders.glob("*/*")) == []


def test_the_runtime_folder_of_the_user_comes_first(
    folders: Path, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folders / "run"))
    (folders / "run").mkdir()
    server.open(None)
    assert server.path == folders / "run/cherokee-app" / NAME


def block_with_file(path: Path) -> None:
    path.write_text("")


def block_with_link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


def block_with_open_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize("block", [block_with_file, block_with_link, block_with_open_folder])
def test_what_others_may_have_put_there_is_passed_over(
    folders: Path, server: ControlServer, block: Callable[[Path], None]
) -> None:
    block(folders / own("tmp"))
    server.open(None)
    assert server.path == folders / own("shm") / NAME


def test_without_any_folder_it_goes_on_without(folders: Path, server: ControlServer) -> None:
    (folders / "tmp").rmdir()
    (folders / "shm").rmdir()
    server.open(None)
    assert server.path is None


def test_a_path_that_cannot_be_is_told(folders: Path, server: ControlServer) -> None:
    with pytest.raises(StartError, match=r"control: .*nowhere/c.sock: No such file or directory; expected a path"):
        server.open(str(folders / "nowhere/c.sock"))


def test_a_file_in_the_way_stays(folders: Path, server: ControlServer) -> None:
    (folders / "file").write_text("mine")
    with pytest.raises(StartError, match=r"/file: a file that is no socket is there; take it away, or choose another"):
        server.open(str(folders / "file"))
    assert (folders / "file").read_text() == "mine"


def test_a_path_at_which_another_server_listens_is_told(folders: Path, server: ControlServer) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(folders / "other.sock"))
        other.listen()
        with pytest.raises(StartError, match=r"other\.sock: another server listens there; stop that one, or give this"):
            server.open(str(folders / "other.sock"))


def test_nobody_is_asked_who_is_somebody_else(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket in a folder for all may be anybody's."""
    path = folders / "theirs.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
        monkeypatch.setattr(client, "peer_uid", lambda _: 4343)
        with pytest.raises(AppError, match="belongs to uid 4343; expected a server of this user"):
            client.ask(path, "hello")


@pytest.mark.parametrize("answer", [b"", b"nonsense\n", b"[]\n"])
def test_answers_that_are_none(folders: Path, answer: bytes) -> None:
    path = folders / "odd.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        pid = os.fork()
        if pid == 0:
            connection, _ = listening.accept()
            connection.recv(100)
            connection.sendall(answer)
            os._exit(0)
        try:
            with pytest.raises(AppError, match=r"ended before it answered|cannot be read"):
                client.ask(path, "hello", timeout_s=30)
        finally:
            os.waitpid(pid, 0)


def test_answers_longer_than_the_socket_takes(folders: Path, server: ControlServer) -> None:
    path = folders / "c.sock"
    text = "x" * 3_000_000
    server.commands["long"] = lambda request: request.answer(text=text)
    server.open(str(path))
    pid = os.fork()
    if pid == 0:
        good = len(client.ask(path, "long", timeout_s=30)["text"]) == len(text)
        os._exit(0 if good else 1)
    while True:
        server._loop.turn(0.01)
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
    assert status == 0
