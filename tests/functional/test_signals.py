"""Signals, and the circumstances in which a server is started."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import (
    PATIENCE_S,
    TOP,
    Server,
    children_of,
    command_of,
    free_port,
    launch,
    server_environment,
    serving,
    state_of,
    wait_for,
    write_tree,
)
from test_faults import Asking, load

SCRIPT = r"""
import os, pathlib, time
FOLDER = pathlib.Path(__file__).parent.parent

def handle(request):
    if request.path_info == "/gate":
        (FOLDER / "running" / request.query["name"]).touch()
        while not (FOLDER / "open").exists():
            time.sleep(0.005)
    if request.path_info == "/who":
        return {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups()}
    return VERSION

VERSION = "one"
"""
FILES: dict[str, str | bytes] = {"handlers/app.py": SCRIPT, "www/page.html": "a page", "running/.keep": ""}
CONFIG = """
limits: {drain_timeout: DRAIN}
log: {access_file: access.log}
sites:
  - root: www
    rules: [{match: {path: /app/*}, handler: {python: handlers/app.py}}]
"""


def start(serve: Any, drain: str = "10m") -> Server:
    server: Server = serve(FILES, config=CONFIG.replace("DRAIN", drain))
    return server


def slow(server: Server, name: str = "a") -> Asking:
    """A request that runs until :func:`open_gate`."""
    asking = Asking(server, f"/app/gate?name={name}")
    wait_for((server.folder / "running" / name).exists, "the request runs")
    return asking


def open_gate(server: Server) -> None:
    (server.folder / "open").touch()


def is_refused(server: Server) -> bool:
    """Whether the port takes no new connection."""
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S).close()
    except ConnectionRefusedError:
        return True
    return False


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain(serve: Any, number: signal.Signals) -> None:
    server = start(serve)
    asking = slow(server)
    with server.connect() as idle:
        idle.send("GET /page.html HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.response().status == 200
        server.kill(number)
        wait_for(lambda: is_refused(server), "new connections are refused")
        assert idle.closed()
    assert not asking.is_answered
    open_gate(server)
    response = asking.response()
    assert (response.status, response.text) == (200, "one")
    assert server.process.wait(PATIENCE_S) == 0


def test_drain_of_a_kept_connection_answers_what_was_sent(serve: Any) -> None:
    server = start(serve)
    with server.connect() as connection:
        connection.send("GET /app/gate?name=a HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for((server.folder / "running/a").exists, "the request runs")
        server.kill(signal.SIGTERM)
        wait_for(lambda: is_refused(server), "new connections are refused")
        open_gate(server)
        response = connection.response()
        assert (response.status, response.header("connection")) == (200, "close")
        assert connection.closed()
    assert server.process.wait(PATIENCE_S) == 0


def test_second_sigterm_hurries(serve: Any) -> None:
    server = start(serve, "1h")
    asking = slow(server)
    server.kill(signal.SIGTERM)
    wait_for(lambda: is_refused(server), "new connections are refused")
    server.kill(signal.SIGTERM)
    assert server.process.wait(PATIENCE_S) == 0
    with pytest.raises(ConnectionError):
        asking.response()
    server.wait_for_log("SIGTERM again: not waiting any longer")


def test_drain_timeout(serve: Any) -> None:
    server = start(serve, "300ms")
    asking = slow(server)
    server.kill(signal.SIGTERM)
    with pytest.raises(ConnectionError):
        asking.response()
    server.wait_for_log("connections were still open after drain_timeout")
    open_gate(server)
    assert server.process.wait(PATIENCE_S) == 0


def test_sigterm_while_it_starts(tmp_path: Path) -> None:
    write_tree(tmp_path, {"handlers/app.py": "import time\ntime.sleep(3600)\n"})
    process = subprocess.Popen(
        [sys.executable, "-m", "appserver", "serve", str(tmp_path), "--listen", "127.0.0.1:0"],
        env=server_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(children_of(process.pid)) == 3, "core and workers are started")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


# Reload


def reload(server: Server, what: str = "^configuration reloaded") -> dict[str, Any]:
    """SIGHUP, and the record of its end."""
    before = len(server.records(what))
    server.kill(signal.SIGHUP)
    wait_for(lambda: len(server.records(what)) > before, "the reload is done")
    return server.records(what)[-1]


def test_reload(serve: Any) -> None:
    server = start(serve)
    with server.connect() as connection:
        connection.send("GET /page.html HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.response().text == "a page"
        config = server.folder / "config.yaml"
        config.write_text(config.read_text().replace("/app/*", "/other/*"))
        (server.folder / "handlers/app.py").write_text(SCRIPT.replace('"one"', '"two"'))
        reload(server)
        connection.send("GET /other/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.response().text == "two"
        connection.send("GET /app/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.response().status == 404


def test_reload_lets_requests_finish(serve: Any) -> None:
    server = start(serve)
    asking = slow(server)
    old = set(server.pids("workers/main.py"))
    (server.folder / "handlers/app.py").write_text(SCRIPT.replace('"one"', '"two"'))
    server.kill(signal.SIGHUP)
    wait_for(lambda: server.get("/app/").text == "two", "the new version answers")
    wait_for(lambda: len(old & set(server.pids("workers/main.py"))) == 1, "only the busy one of the old is left")
    open_gate(server)
    assert asking.response().text == "one"
    wait_for(lambda: not old & set(server.pids("workers/main.py")), "the old ones have gone")
    server.wait_for_log("configuration reloaded")


def test_reload_of_a_bad_configuration(serve: Any) -> None:
    server = start(serve)
    workers = server.pids("workers/main.py")
    config = server.folder / "config.yaml"
    good = config.read_text()
    config.write_text(good.replace("sites:", "limts: {}\nthreads: many\nsites:"))
    record = reload(server, "^nothing was reloaded")
    assert record["reason"] == "the configuration is not valid"
    problems = [each["problem"] for each in server.records("^configuration error")]
    assert len(problems) == 2
    assert any("config.yaml:4:1" in problem and "did you mean 'limits'" in problem for problem in problems), problems
    assert any("config.yaml:5:" in problem and "threads" in problem for problem in problems), problems
    assert server.get("/app/").text == "one"
    assert server.pids("workers/main.py") == workers
    config.write_text("sites: [")
    reload(server, "^nothing was reloaded")
    config.unlink()
    reload(server, "^nothing was reloaded")
    config.write_text(good)
    reload(server)
    assert server.get("/app/").text == "one"


def test_reload_changes_the_listeners(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    config = write_tree(tmp_path, FILES) / "config.yaml"
    text = CONFIG.replace("DRAIN", "10m")
    config.write_text(f'listen: ["127.0.0.1:{ports[0]}"]\n{text}')
    with serving(tmp_path, "--config", str(config)) as server, socket.create_server(("127.0.0.1", 0)) as taken:
        config.write_text(f'listen: ["127.0.0.1:{ports[1]}", "127.0.0.1:{taken.getsockname()[1]}"]\n{text}')
        record = reload(server, "^nothing was reloaded")
        assert "in use by another program" in record["reason"]
        assert server.get("/page.html").text == "a page"
        config.write_text(f'listen: ["127.0.0.1:{ports[1]}"]\n{text}')
        reload(server)
        wait_for(lambda: is_refused(server), "the old port is closed")
        server.port = ports[1]
        assert server.get("/app/").text == "one"


def test_reload_under_load_loses_nothing(serve: Any) -> None:
    server = start(serve)
    with load(server, 6, "/app/") as wrong:
        for _ in range(4):
            reload(server)
    assert not wrong, wrong


def test_several_sighups_at_once(serve: Any) -> None:
    server = start(serve)
    for _ in range(5):
        server.kill(signal.SIGHUP)
    server.wait_for_log("configuration reloaded")
    assert server.get("/app/").text == "one"
    (server.folder / "handlers/app.py").write_text(SCRIPT.replace('"one"', '"two"'))
    server.kill(signal.SIGHUP)
    wait_for(lambda: server.get("/app/").text == "two", "the last one counts")


def test_sigterm_during_a_reload(serve: Any) -> None:
    server = start(serve)
    (server.folder / "handlers/app.py").write_text("import time\ntime.sleep(3600)\n")
    server.kill(signal.SIGHUP)
    wait_for(lambda: len(server.pids("workers/main.py")) == 4, "new workers boot")
    server.kill(signal.SIGTERM)
    server.wait_for_log("SIGTERM: stopping")
    server.kill(signal.SIGTERM)
    assert server.process.wait(PATIENCE_S) == 0


# SIGUSR1


def test_logs_are_reopened(serve: Any) -> None:
    server = start(serve)
    log, old = server.folder / "access.log", server.folder / "access.log.1"
    assert server.get("/page.html?before").status == 200
    wait_for(lambda: "?before" in log.read_text(), "the access is logged")
    log.rename(old)
    server.kill(signal.SIGUSR1)
    server.wait_for_log("log files reopened")
    wait_for(log.exists, "the file is there again")
    # The core may still be on its way to the new descriptor.
    wait_for(lambda: server.get("/page.html?after").status and "?after" in log.read_text(), "it goes to the new file")
    assert "?before" not in log.read_text()
    log.unlink()
    log.mkdir()
    server.kill(signal.SIGUSR1)
    server.wait_for_log("the access log was not reopened")
    assert server.get("/page.html").status == 200


# Process 1


def unshare() -> tuple[str, ...]:
    """What makes a program process 1 of a namespace of its own."""
    command = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare on this machine")
    done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this system does not let us make a pid namespace: {done.stderr.strip()}")
    return command


ORPHANS = r"""
import os, subprocess
def handle(request):
    # A grandchild that outlives its parent by a moment.
    subprocess.run(["sh", "-c", "sleep 0.1 & sleep 0.05 & true"])
    return open("/proc/1/comm").read()
"""


def test_orphans_are_reaped(serve: Any) -> None:
    server = serve({"handlers/orphans.py": ORPHANS})
    tree = set(children_of(server.process.pid))
    for _ in range(5):
        assert server.get("/orphans").status == 200
    wait_for(lambda: set(children_of(server.process.pid)) == tree, "every orphan is reaped")


def test_process_1(tmp_path: Path) -> None:
    write_tree(tmp_path, {"handlers/orphans.py": ORPHANS, **FILES})
    server = launch(tmp_path, str(tmp_path), "--listen", "127.0.0.1:0", prefix=unshare())
    try:
        (supervisor,) = [pid for pid in children_of(server.process.pid) if "appserver serve" in command_of(pid)]
        assert Path(f"/proc/{supervisor}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
        tree = set(children_of(supervisor))
        for _ in range(5):
            assert server.get("/orphans").status == 200
        wait_for(lambda: set(children_of(supervisor)) == tree, "every orphan is reaped")
        asking = slow(server)
        os.kill(supervisor, signal.SIGTERM)
        wait_for(lambda: is_refused(server), "new connections are refused")
        open_gate(server)
        assert asking.response().text == "one"
        assert server.process.wait(PATIENCE_S) == 0
        wait_for(lambda: not [pid for pid in tree if state_of(pid)], "nobody is left")
        server.check_log()
    finally:
        server.process.kill()
        server.process.wait()


# How it is started


def test_without_standard_descriptors(tmp_path: Path) -> None:
    port = free_port()
    write_tree(tmp_path, FILES)
    command = f"exec {sys.executable} -m appserver serve {tmp_path} --listen 127.0.0.1:{port} 0<&- 1>&- 2>&-"
    process = subprocess.Popen(["sh", "-c", command], env=server_environment())
    server = Server(process, tmp_path, port)
    try:
        wait_for(lambda: not is_refused(server), "it listens")
        assert server.get("/page.html").text == "a page"
        assert server.get("/app/").text == "one"
        for fd in range(3):
            assert str(Path(f"/proc/{process.pid}/fd/{fd}").readlink()) == "/dev/null"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


STARTERS = {
    "SIGCHLD is ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "signals are blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "signals are ignored": "[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 10, 13, 15)]",
}


@pytest.mark.parametrize("kind", STARTERS)
def test_inherited_signals(serve: Any, kind: str) -> None:
    starter = f"import os, signal, sys; {STARTERS[kind]}; os.execv(sys.argv[1], sys.argv[1:])"
    server = serve(FILES, config=CONFIG.replace("DRAIN", "10m"), prefix=(sys.executable, "-c", starter))
    worker = server.pids("workers/main.py")[0]
    os.kill(worker, signal.SIGKILL)
    server.wait_for_log('"executor was killed by SIGKILL')
    server.wait_for_log('"executor is ready"', 3)
    reload(server)
    assert server.get("/app/").text == "one"
    # What was blocked in us is not blocked in what we start.
    for pid in children_of(server.process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # an old worker that has gone meanwhile
            status = Path(f"/proc/{pid}/status").read_text()
            blocked = int(status.split("SigBlk:")[1].split()[0], 16)
            assert blocked & (1 << (signal.SIGTERM - 1)) == 0, command_of(pid)


def test_relative_folder(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"site/{name}": text for name, text in FILES.items()})
    with serving(tmp_path, "site", "--listen", "127.0.0.1:0") as server:
        server.folder = tmp_path / "site"
        assert server.get("/page.html").text == "a page"
        assert server.get("/app/").text == "one"
        (tmp_path / "site/handlers/app.py").write_text(SCRIPT.replace('"one"', '"two"'))
        reload(server)
        assert server.get("/app/").text == "two"


def test_relative_configuration(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"site/{name}": text for name, text in FILES.items()})
    (tmp_path / "site/config.yaml").write_text(CONFIG.replace("DRAIN", "10m"))
    with serving(tmp_path, "--config", "site/config.yaml", "--listen", "127.0.0.1:0") as server:
        assert server.get("/page.html").text == "a page"
        assert server.get("/app/").text == "one"


@contextmanager
def readable_by_all() -> Iterator[Path]:
    """A folder that another user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_nobody() -> tuple[str, ...]:
    """What makes a program run as nobody."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv on this machine")
    nobody = pwd.getpwnam("nobody")
    return ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")


#: Once more, because setpriv still has root's capabilities when it starts its program.
PROBE = """
import os, sys, structlog, yaml, appserver.native._core
os.execv(sys.executable, [sys.executable, "-c", "import structlog"])
"""


def public_interpreter() -> dict[str, Any]:
    """Options of `launch` for an interpreter that nobody may run: ours may lie in a home directory."""
    environment = {"PYTHONPATH": os.pathsep.join((str(TOP), sysconfig.get_path("purelib")))}
    for interpreter in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        done = subprocess.run(
            [*as_nobody(), interpreter, "-c", PROBE],
            cwd="/",
            env=server_environment(**environment),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return {"interpreter": interpreter, "environment": environment}
    pytest.skip(f"nobody may not run a Python of this version with our packages: {done.stderr.strip()[-200:]}")


def test_unprivileged_user() -> None:
    prefix, options, nobody = as_nobody(), public_interpreter(), pwd.getpwnam("nobody")
    with readable_by_all() as folder:
        write_tree(folder, FILES)
        # Its own folder cannot be written by nobody, and need not be.
        with serving(folder, str(folder), "--listen", "127.0.0.1:0", prefix=prefix, **options) as server:
            assert server.get("/page.html").text == "a page"
            assert json.loads(server.get("/app/who").body)["uid"] == nobody.pw_uid
            os.kill(server.pids("workers/main.py")[0], signal.SIGKILL)
            server.wait_for_log('"executor is ready"', 3)


WHO = "#!/bin/sh\nprintf 'A: b\\n\\n'\nid -u\nid -g\n"


def test_user_of_the_configuration() -> None:
    as_nobody()
    options, nobody = public_interpreter(), pwd.getpwnam("nobody")
    with readable_by_all() as folder:
        write_tree(folder, {**FILES, "cgi-bin/who": WHO})
        (folder / "config.yaml").write_text("user: nobody\n")
        where = (str(folder), "--config", str(folder / "config.yaml"), "--listen", "127.0.0.1:0")
        with serving(folder, *where, **options) as server:
            who = json.loads(server.get("/app/who").body)
            assert (who["uid"], who["gid"]) == (nobody.pw_uid, nobody.pw_gid)
            assert 0 not in who["groups"]
            assert server.get("/cgi-bin/who").text.split() == [str(nobody.pw_uid), str(nobody.pw_gid)]
            for pid in children_of(server.process.pid):
                with contextlib.suppress(FileNotFoundError):  # the program, which has been answered
                    assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid, command_of(pid)
            assert server.get("/page.html").text == "a page"
            # The supervisor, still root, can replace and stop them.
            os.kill(server.one_pid("core_main"), signal.SIGKILL)
            server.allowed.append("the core was killed by SIGKILL")
            server.wait_for_log("the core was killed by SIGKILL")
            assert server.get("/app/").text == "one"
            reload(server)
