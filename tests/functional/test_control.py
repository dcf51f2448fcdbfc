"""The control socket of a running server: who may use it, and what `cherokee-app status` and `reload` say."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE_S, Server, server_environment, wait_for

APPLICATION = """\
import os
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"one"]
"""
CONFIG = """\
control: {control}
pools:
  shop: {{python: "shop:application", processes: 2, threads: 1}}
  tools: {{scripts: tools, processes: 1}}
sites:
  - root: www
    rules:
      - {{match: {{path: /shop/*}}, handler: {{python: shop}}}}
      - {{match: {{path: /tools/*}}, handler: {{scripts: tools}}}}
"""
FILES = {"www/a.txt": "a", "shop.py": APPLICATION, "tools/hello.py": "def handle(request):\n    return 'hello'\n"}


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`cherokee-app ARGUMENTS`."""
    return subprocess.run(
        [sys.executable, "-m", "appserver", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=server_environment(**environment),
    )


def ask(path: Path, line: bytes) -> list[dict[str, Any]]:
    """All lines that the server answers to one."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))  # without a timeout: with one it fails at once where the backlog is full
        sock.settimeout(PATIENCE_S)
        sock.sendall(line)
        with sock.makefile("rb") as lines:
            return [json.loads(each) for each in lines]


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Server:
    return serve_module(FILES, config=CONFIG.format(control="control.sock"))


def test_the_socket_is_for_its_user_only(server: Server) -> None:
    info = (server.folder / "control.sock").stat()
    assert stat.S_ISSOCK(info.st_mode)
    assert stat.S_IMODE(info.st_mode) == 0o600


def test_hello(server: Server) -> None:
    (answer,) = ask(server.folder / "control.sock", b'{"command": "hello"}\n')
    assert answer["ok"] is True
    assert answer["pid"] == server.process.pid
    assert answer["configuration"] == str(server.folder / "config.yaml")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"nonsense\n", "expected one line of JSON"),
        (b"[1]\n", "expected one line of JSON"),
        (b"{}\n", "command: found 'None'; expected one of hello, reload, status"),
        (b'{"command": "explode"}\n', "command: found 'explode'; expected one of"),
        (b'{"command": "reload", "pool": "nowhere"}\n', "pool: found 'nowhere'; expected one of shop, tools"),
    ],
)
def test_bad_requests_are_told(server: Server, line: bytes, error: str) -> None:
    (answer,) = ask(server.folder / "control.sock", line)
    assert answer["ok"] is False
    assert error in answer["error"]


def test_a_request_without_end_is_cut_off(server: Server) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(server.folder / "control.sock"))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(1000):
                sock.sendall(b" " * 65536)


def test_more_connections_than_there_is_room_for_wait(server: Server) -> None:
    path = server.folder / "control.sock"
    idle = []
    for _ in range(20):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        idle.append(sock)
    for sock in idle:
        sock.close()
    assert ask(path, b'{"command": "hello"}\n')[0]["ok"]


def test_another_user_is_refused(server: Server) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    path = server.folder / "control.sock"
    code = (
        "import os, socket, sys\nos.chdir(sys.argv[1]); os.setegid(65534); os.seteuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\ns.connect('control.sock')\ns.sendall(b'{\"command\": \"hello\"}\\n')\n"
        "print(repr(s.recv(100)))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path.parent)], capture_output=True, text=True, check=False)
    assert "PermissionError" in run.stderr
    path.chmod(0o666)
    path.parent.chmod(0o755)
    try:
        run = subprocess.run(
            [sys.executable, "-c", code, str(path.parent)], capture_output=True, text=True, check=False
        )
    finally:
        path.chmod(0o600)
    assert run.stdout == "b''\n" or "ConnectionResetError" in run.stderr or "BrokenPipeError" in run.stderr
    server.wait_for_log("the control socket refused a connection of another user")


def test_status(server: Server) -> None:
    run = command("status", "--json", "--config", str(server.folder / "config.yaml"))
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["pid"] == server.process.pid
    assert found["ready"] is True
    assert found["core"]["pid"] == server.one_pid("core_main")
    shop, tools = found["pools"]
    assert (shop["name"], shop["application"], shop["processes"], shop["capacity"]) == (
        "shop",
        "shop:application",
        2,
        2,
    )
    assert tools["name"] == "tools"
    pids = [each["pid"] for pool in found["pools"] for each in pool["executors"]]
    assert sorted(pids) == sorted(server.pids("workers/main.py"))
    assert all(each["state"] == "ready" and each["memory"] > 1 << 20 for each in shop["executors"])


def test_status_for_people(server: Server) -> None:
    run = command("status", "--config", str(server.folder / "config.yaml"))
    assert run.returncode == 0, run.stderr
    assert f"process {server.process.pid}, serving, ready" in run.stdout
    assert "pool shop (shop:application): 2 of 2 ready, 0 running, 0 waiting" in run.stdout


def test_status_tells_the_last_deaths(server: Server) -> None:
    victim = server.pids("workers/main.py")[0]
    os.kill(victim, signal.SIGKILL)
    server.wait_for_log(f'"pid": {victim}.*was killed by SIGKILL|was killed by SIGKILL.*"pid": {victim}')
    found = json.loads(command("status", "--json", "--config", str(server.folder / "config.yaml")).stdout)
    deaths = [death for pool in found["pools"] for death in pool["deaths"]]
    assert [death["pid"] for death in deaths] == [victim]
    assert "was killed by SIGKILL" in deaths[0]["about"]
    assert "was killed by SIGKILL" in command("status", "--config", str(server.folder / "config.yaml")).stdout
    wait_for(lambda: len(server.pids("workers/main.py")) == 3, "the dead worker is replaced")


def test_found_by_process_and_by_folder_without_a_path(serve: Any, tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    environment = {"XDG_RUNTIME_DIR": str(runtime)}
    server = serve({"site/www/a.txt": "a"}, config="control: auto\nsites: [{root: .}]\n", environment=environment)
    path = runtime / "cherokee-app" / f"{server.process.pid}.sock"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.exists()
    for which in (["--pid", str(server.process.pid)], ["--config", str(tmp_path / "config.yaml")]):
        run = command("status", *which, **environment)
        assert run.returncode == 0, run.stderr
        assert f"process {server.process.pid}" in run.stdout
    run = command("status", "--pid", str(os.getpid()), **environment)
    assert (run.returncode, run.stdout) == (1, "")
    assert f"no server with process id {os.getpid()} was found" in run.stderr
    run = command("status", "--config", str(tmp_path / "site"), **environment)
    assert run.returncode == 1
    assert f"no server of {tmp_path / 'site'} was found" in run.stderr
    stale = path.with_name("999999999.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    assert server.stop() == 0
    assert not path.exists()


def test_what_a_killed_server_has_left_is_taken_away(serve: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "cherokee-app"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    stale = folder / "1.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    server = serve({"www/a.txt": "a"}, environment={"XDG_RUNTIME_DIR": str(tmp_path / "run")})
    assert not stale.exists()
    assert server.stop() == 0
    assert not folder.exists()


def test_two_servers_do_not_share_a_path(serve: Any, tmp_path: Path) -> None:
    config = "control: control.sock\nsites: [{root: .}]\n"
    serve({}, config=config)
    with pytest.raises(RuntimeError, match=r"control: .*control.sock: another server listens there; stop that one"):
        serve({}, config=config)


def test_without_a_socket(serve: Any, tmp_path: Path) -> None:
    server = serve({}, config="control: off\nsites: [{root: .}]\n", environment={"XDG_RUNTIME_DIR": str(tmp_path)})
    run = command("status", "--pid", str(server.process.pid), XDG_RUNTIME_DIR=str(tmp_path))
    assert run.returncode == 1
    assert "was found that this user" in run.stderr
