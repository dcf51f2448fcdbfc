"""Workers that die in every way there is: status to the client, reason in the log, a record, and the others go on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import TOP, Response, Server, server_environment, state_of, wait_for
from test_faults import Asking, holder, workers

SCRIPT = r"""
import ctypes, os, pathlib, resource, sys, time

FOLDER = pathlib.Path(__file__).parent.parent

def handle(request):
    kind = request.path_info[1:]
    if kind == "gate":
        (FOLDER / "running" / f"{request.query['name']}.{os.getpid()}").touch()
        while not (FOLDER / "open").exists():
            time.sleep(0.005)
    elif kind.startswith("dies_"):
        print("the last words of", kind, request.text)
        if not (FOLDER / "repaired").exists():
            globals()[kind]()
        return f"repaired: {request.text} {request.headers.get('Authorization')}"
    elif kind == "streams":
        if not (FOLDER / "repaired").exists():
            os._exit(7)
        return (f"{number}\n" for number in range(3))
    elif kind == "large":
        if not (FOLDER / "repaired").exists():
            os._exit(7)
        return request.body * 2
    elif kind == "allocates":
        return allocates()
    elif kind == "sleeps":
        time.sleep(600)
    return str(os.getpid())

def dies_by_segfault():
    ctypes.string_at(0)

def dies_by_exit():
    os._exit(5)

def dies_by_exit_0():
    os._exit(0)

def dies_by_abort():
    os.abort()

def dies_by_signal():
    os.kill(os.getpid(), 9)

kept = []

def allocates():
    while True:
        kept.append(bytearray(1 << 20))
"""

CONFIG = """
log: {access: "off"}
incidents: {directory: kept, redact: [X-Api-Key]}
pools:
  handlers: {scripts: handlers, processes: 2, threads: 2, limits: LIMITS}
sites:
  - root: www
    rules: [{match: {path: /app/*}, handler: {python: handlers/app.py}}]
"""
LIMITS = "{request_time: 0s, stop_time: 1s}"
FILES = {"handlers/app.py": SCRIPT, "www/page.html": "a page", "running/.keep": ""}


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Iterator[Server]:
    started: Server = serve_module(FILES, config=CONFIG.replace("LIMITS", LIMITS))
    started.allowed.append("Fatal Python error")
    yield started


def command(server: Server, *arguments: str, status: int = 0) -> str:
    """What `cherokee-app incidents` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "appserver", "incidents", *arguments, "--config", str(server.folder / "config.yaml")],
        capture_output=True,
        cwd=TOP,
        env=server_environment(),
        check=False,
    )
    assert done.returncode == status, done.stderr.decode()
    return (done.stdout if status == 0 else done.stdout + done.stderr).decode()


def shown(server: Server, identifier: str, of: Callable[[dict[str, Any]], Any] = bool) -> dict[str, Any]:
    """The incident by that id, once `of` is true of it: the core's part comes a moment later."""

    def look() -> dict[str, Any] | None:
        with contextlib.suppress(AssertionError):
            found: dict[str, Any] = json.loads(command(server, "show", identifier, "--json"))
            return found if of(found) else None
        return None

    found: dict[str, Any] = wait_for(look, f"incident {identifier}")
    return found


def request_in(found: dict[str, Any]) -> Any:
    return found["requests"] and found["requests"][0]["environment"] and found["requests"][0]


def lost(server: Server, kind: str, body: bytes = b"a=1") -> tuple[Response, dict[str, Any]]:
    """A POST that kills its worker: the answer, and the record that its id leads to."""
    response = server.post(
        f"/app/{kind}?x=y",
        body,
        {"Authorization": "Basic c2VjcmV0", "Cookie": "session=secret", "X-Api-Key": "secret", "X-Kept": "yes"},
    )
    assert response.status == 502
    identifier = response.header("x-incident")
    assert identifier is not None
    return response, shown(server, identifier, request_in)


DEATHS = [
    ("dies_by_segfault", "was killed by SIGSEGV (Segmentation fault)", "SIGSEGV", None, True),
    ("dies_by_abort", "was killed by SIGABRT (Aborted)", "SIGABRT", None, True),
    ("dies_by_signal", "was killed by SIGKILL (by somebody, or for want of memory)", "SIGKILL", None, False),
    ("dies_by_exit", "ended with exit status 5, which nobody had told it to", None, 5, False),
    ("dies_by_exit_0", "ended with exit status 0, which nobody had told it to", None, 0, False),
]


@pytest.mark.parametrize(("kind", "cause", "number", "status", "has_stacks"), DEATHS, ids=lambda value: str(value)[:20])
def test_every_death_leaves_a_record(
    server: Server, kind: str, cause: str, number: str | None, status: int | None, has_stacks: bool
) -> None:
    other = Asking(server, f"/app/gate?name={kind}")
    holder(server, kind)
    response, found = lost(server, kind)
    assert found["cause"] == f"executor {found['executor']} {cause}"
    assert (found["kind"], found["pool"], found["signal"], found["exit_status"]) == (
        "death",
        "handlers",
        number,
        status,
    )
    assert found["age_s"] >= 0
    assert found["cpu"]["user_s"] + found["cpu"]["system_s"] > 0
    assert found["configuration"] == str(server.folder / "config.yaml")
    assert f"the last words of {kind} a=1" in found["log"]
    if has_stacks:
        assert f"in {kind}" in found["stacks"]
        assert "[request-" in found["stacks"]
    else:
        assert found["stacks"] is None
    mine = next(each for each in found["requests"] if each["request"] == response.header("x-incident"))
    assert (mine["method"], mine["target"], mine["outcome"]) == ("POST", f"/app/{kind}?x=y", "502")
    assert mine["environment"]["HTTP_X_KEPT"] == "yes"
    record = json.loads(server.wait_for_log(f'"incident": "{found["id"]}"'))
    assert record["pid"] == found["pid"]
    assert (server.folder / "kept").stat().st_mode & 0o777 == 0o700
    for path in (server.folder / "kept").glob("*.json"):
        assert path.stat().st_mode & 0o777 == 0o600
        assert "secret" not in path.read_text()
        assert "c2VjcmV0" not in path.read_text()
    (server.folder / "open").touch()
    assert other.response().status == 200  # here, or in another worker
    (server.folder / "open").unlink()
    assert server.get("/page.html").text == "a page"


def test_table_and_text(server: Server) -> None:
    _, found = lost(server, "dies_by_segfault", b"ab")
    table = command(server)
    assert table.startswith("ID  ")
    (line,) = [line for line in table.splitlines() if line.startswith(found["id"])]
    assert "SIGSEGV" in line
    assert "handlers" in line
    assert "POST /app/dies_by_segfault?x=y" in line
    text = command(server, "show", found["id"][:8])
    assert text.startswith(found["cause"])
    assert "in dies_by_segfault" in text
    assert "Authorization: [redacted]" in text
    assert "(2 bytes of body, kept)" in text
    listed = json.loads(command(server, "--json"))
    assert any(each["id"] == found["id"] for each in listed)
    assert "did you mean: incidents show" in command(server, "list", found["id"], status=1)
    assert "no incident 123412341234" in command(server, "show", "123412341234", status=1)


def test_replay(server: Server) -> None:
    _, found = lost(server, "dies_by_segfault")
    again = command(server, "replay", found["id"], status=1)
    assert "the worker was killed by SIGSEGV" in again
    assert "in dies_by_segfault" in again
    before = wait_for(lambda: len(found := workers(server)) == 2 and found, "both workers are there")
    (server.folder / "repaired").touch()
    try:
        answer = command(server, "replay", found["id"])
        assert answer.startswith("HTTP/1.1 200 OK\r\n")
        assert answer.endswith("\r\n\r\nrepaired: a=1 None")
        done = subprocess.run(
            [sys.executable, "-m", "appserver", "incidents", "replay", found["id"], "--directory", "kept"],
            capture_output=True,
            cwd=server.folder,
            env=server_environment(),
            check=False,
        )
        assert done.returncode == 0
        assert b"without what was not kept: Authorization, Cookie, X-Api-Key" in done.stderr
    finally:
        (server.folder / "repaired").unlink()
    assert workers(server) == before


def test_replay_of_what_is_served_beside_the_configuration(serve: Any, tmp_path: Path) -> None:
    """The file has no sites, so the folder that the server was given says where the script is."""
    config = "incidents: {directory: kept}\npools: {handlers: {processes: 1}}\n"
    server = serve(FILES, str(tmp_path), config=config)
    server.allowed.append("Fatal Python error")
    _, found = lost(server, "dies_by_segfault")
    assert (found["configuration"], found["folder"]) == (str(tmp_path / "config.yaml"), str(tmp_path))
    assert "the worker was killed by SIGSEGV" in command(server, "replay", found["id"], status=1)


@pytest.mark.parametrize(("kind", "body"), [("streams", b""), ("large", b"x" * 70_000)])
def test_replay_of_what_does_not_fit_into_a_frame(server: Server, tmp_path: Path, kind: str, body: bytes) -> None:
    _, found = lost(server, kind, body)
    (server.folder / "repaired").touch()
    try:
        if kind == "streams":
            assert command(server, "replay", found["id"]).endswith("\r\n\r\n0\n1\n2\n")
            return
        assert "only 65536 of 70000 bytes were kept" in command(server, "replay", found["id"], status=1)
        (tmp_path / "body").write_bytes(body)
        answer = command(server, "replay", found["id"], "--body", str(tmp_path / "body"))
        assert answer.endswith("\r\n\r\n" + "x" * 140_000)
    finally:
        (server.folder / "repaired").unlink()


def test_what_another_worker_answered_is_told_as_well(server: Server) -> None:
    asking = Asking(server, "/app/gate?name=again")
    first = holder(server, "again")
    os.kill(first, signal.SIGKILL)
    holder(server, "again", but=first)
    (server.folder / "open").touch()
    assert asking.response().status == 200
    (server.folder / "open").unlink()
    record = json.loads(server.wait_for_log(f'"executor was killed by SIGKILL.*"pid": {first}'))
    found = shown(server, record["incident"], request_in)
    assert [each["outcome"] for each in found["requests"]] == ["retried"]


# Each with a server of its own


def test_timeout(serve: Any) -> None:
    limits = "{request_time: 400ms, interrupt_time: 200ms, stop_time: 1s}"
    server = serve(FILES, config=CONFIG.replace("LIMITS", limits).replace("processes: 2", "processes: 1"))
    (worker,) = workers(server)
    response = server.post("/app/sleeps", b"a=1", {"Cookie": "secret"})
    assert response.status == 504
    assert response.header("x-incident") in response.text
    found = shown(server, response.header("x-incident"), lambda each: request_in(each) and each["ending"])
    assert found["kind"] == "timeout"
    assert found["cause"] == "POST /app/sleeps: its run exceeded request_time"
    assert found["pid"] == worker
    assert found["ending"] == "it did not end when it was interrupted; the worker is replaced"
    assert "in handle" in found["stacks"]
    assert found["requests"][0]["ran_s"] >= 0.4
    assert found["memory"]["rss"] > 1 << 20
    wait_for(lambda: not state_of(worker), "the worker is replaced")
    assert len(json.loads(command(server, "--json"))) == 1  # one story
    again = command(server, "replay", found["id"], status=1)
    assert "no answer after 0.4 s (request_time)" in again
    assert "in handle" in again


def test_cannot_boot(serve: Any) -> None:
    config = """
log: {access: "off"}
incidents: {directory: kept}
pools:
  raises: {python: "raises:application", directory: apps, processes: 1}
  exits: {python: "exits:application", directory: apps, processes: 1}
sites:
  - rules:
    - {match: {path: /a/*}, handler: {python: raises}}
    - {match: {path: /b/*}, handler: {python: exits}}
"""
    server = serve(
        {"apps/raises.py": "raise RuntimeError('no database')\n", "apps/exits.py": "import os\nos._exit(9)\n"},
        config=config,
    )
    server.wait_for_log("executor could not boot")
    server.wait_for_log("executor ended with exit status 9")

    def both() -> dict[str, Any] | None:
        listed = json.loads(command(server, "--json"))
        assert {each["kind"] for each in listed} <= {"boot"}
        by_pool = {each["pool"]: each for each in listed}
        return by_pool if len(by_pool) == 2 else None

    by_pool = wait_for(both, "an incident of each pool")
    found = shown(server, by_pool["raises"]["id"])
    assert (
        "could not boot: application raises:application cannot be loaded: RuntimeError: no database" in found["cause"]
    )
    assert 'raises.py", line 1' in found["traceback"]
    found = shown(server, by_pool["exits"]["id"])
    assert found["cause"].endswith("ended with exit status 9 before it was ready")


def test_does_not_stop_in_time(serve: Any) -> None:
    """A reload: the old worker has a request that takes longer than it may."""
    limits = "{request_time: 0s, stop_time: 1s}"
    server = serve(FILES, config=CONFIG.replace("LIMITS", limits).replace("processes: 2", "processes: 1"))
    (worker,) = workers(server)
    asking = Asking(server, "/app/gate?name=late", "POST", b"a=1")
    assert holder(server, "late") == worker
    server.kill(signal.SIGHUP)
    response = asking.response()
    assert response.status == 502
    found = shown(server, str(response.header("x-incident")), request_in)
    assert found["cause"] == f"executor {found['executor']} did not stop within stop_time and was killed"
    assert "in handle" in found["stacks"]
    wait_for(lambda: server.get("/app/pid").status == 200, "the new one serves")


def test_no_more_than_asked_for_and_off(serve: Any) -> None:
    server = serve(
        FILES,
        config=CONFIG.replace("LIMITS", LIMITS).replace(
            "redact: [X-Api-Key]", "keep: 2, size: 16KiB, keep_bodies: off"
        ),
    )
    for _ in range(3):
        _, found = lost(server, "dies_by_exit", b"b" * 50_000)
        wait_for(lambda: server.get("/app/pid").status == 200, "somebody serves again")
    wait_for(lambda: len(list((server.folder / "kept").glob("*.json"))) == 2, "the oldest has gone")
    assert (found["requests"][0]["body"], found["requests"][0]["body_size"]) == (None, 50_000)
    assert "was not kept" in command(server, "replay", found["id"], status=1)
    assert all(path.stat().st_size <= 16 * 1024 for path in (server.folder / "kept").glob("*.json"))
    config = server.folder / "config.yaml"
    config.write_text(config.read_text().replace("incidents: {", "incidents: off\nspool: /tmp\n#"))
    server.kill(signal.SIGHUP)
    server.wait_for_log("configuration reloaded")
    assert server.post("/app/dies_by_exit", b"").status == 502
    assert len(list((server.folder / "kept").glob("*.json"))) == 2
    assert "incidents are off" in command(server, status=1)


def test_a_directory_that_cannot_be_used_costs_a_line_in_the_log(serve: Any) -> None:
    config = CONFIG.replace("LIMITS", LIMITS).replace("directory: kept", "directory: www/page.html/kept")
    server = serve(FILES, config=config)
    record = json.loads(server.wait_for_log("incidents are not kept"))
    assert "page.html" in record["tried"][0]
    assert server.post("/app/dies_by_exit", b"").status == 502
    wait_for(lambda: server.get("/app/pid").status == 200, "somebody serves again")


# Out of memory


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[Path]:
    """A cgroup below our own; skips where this user may not make one."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    where = {names: rest.lstrip("/") for _, names, rest in lines}
    is_first = "memory" in where
    top = Path("/sys/fs/cgroup/memory", where["memory"]) if is_first else Path("/sys/fs/cgroup", where[""])
    path = top / f"cherokee-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        file = path / ("memory.limit_in_bytes" if is_first else "memory.max")
        if not file.exists():
            pytest.skip(f"{path} has no memory controller")
        file.write_text(str(limit))
        swap, most = ("memory.memsw.limit_in_bytes", limit) if is_first else ("memory.swap.max", 0)
        with contextlib.suppress(OSError):  # without swap accounting there is none
            (path / swap).write_text(str(most))
        yield path
    finally:
        wait_for(lambda: not (path / "cgroup.procs").read_text(), "the cgroup is empty")
        path.rmdir()


def test_killed_for_want_of_memory(serve: Any) -> None:
    with memory_cgroup(120 << 20) as cgroup, contextlib.ExitStack() as stack:
        server = serve(FILES, config=CONFIG.replace("LIMITS", LIMITS).replace("processes: 2", "processes: 1"))
        stack.callback(lambda: [os.kill(pid, signal.SIGKILL) for pid in members(cgroup)])
        (worker,) = workers(server)
        (cgroup / "cgroup.procs").write_text(str(worker))
        before = time.monotonic()
        wait_for(lambda: time.monotonic() - before > 4.5, "the supervisor has looked where the worker is")
        response = server.post("/app/allocates", b"")
        assert response.status == 502
        found = shown(server, str(response.header("x-incident")), request_in)
        assert found["cause"] == f"executor {found['executor']} was killed by the kernel for want of memory"
        assert "oom_kill" in found["oom"]
        assert found["memory"]["peak"] > 20 << 20
        wait_for(lambda: server.get("/app/pid").status == 200, "somebody serves again")


def members(cgroup: Path) -> list[int]:
    return [int(line) for line in (cgroup / "cgroup.procs").read_text().split()]
