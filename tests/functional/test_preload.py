"""Workers that are forked from a template: what they share, what is their own, and what a death changes."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from crews import Clients, ask, command, pool, workers
from harness import Server, children_of, state_of, wait_for

APPLICATION = """\
import json, os, random, signal, threading, time
LOADED_BY = os.getpid()
forks = []
os.register_at_fork(
    before=lambda: forks.append("before"),
    after_in_parent=lambda: forks.append("parent"),
    after_in_child=lambda: forks.append("child"),
)
ballast = ["x" * 1000 + str(i) for i in range(20000)]
print("loaded")

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/die":
        signal.raise_signal(11)
    if path == "/exit":
        os._exit(7)
    if path == "/say":
        print("said by", os.getpid(), flush=True)
    if path == "/sleep":
        time.sleep(0.5)
    start_response("200 OK", [("Content-Type", "application/json")])
    about = {
        "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "loaded_by": LOADED_BY,
        "forks": forks, "random": random.random(), "threads": threading.active_count(),
        "fds": len(os.listdir("/proc/self/fd")),
    }
    return [json.dumps(about).encode()]
"""
CONFIG = """\
control: control.sock
pools:
  app: {python: "app:application", processes: 3, threads: 2, preload: true}
sites: [{root: ., rules: [{match: {path: /*}, handler: {python: app}}]}]
"""


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Server:
    server = serve_module({"app.py": APPLICATION}, config=CONFIG)
    server.allowed.append("Fatal Python error: Segmentation fault")
    return server


def template(server: Server) -> dict[str, Any]:
    """The only one."""
    (found,) = pool(server, "app")["templates"]
    return found


def each_worker(server: Server, target: str = "/") -> dict[int, dict[str, Any]]:
    """What every worker says of itself, by its process."""
    wanted = {each["pid"] for each in workers(server, "app", "ready")}
    found: dict[int, dict[str, Any]] = {}

    def ask_again() -> bool:
        about = json.loads(server.get(target).body)
        found[about["pid"]] = about
        return wanted <= set(found)

    wait_for(ask_again, "every worker has answered")
    return {pid: found[pid] for pid in wanted}


def test_loaded_once_and_forked(server: Server) -> None:
    found = each_worker(server)
    assert len(found) == 3
    assert {about["loaded_by"] for about in found.values()} == {template(server)["pid"]}
    assert sum("loaded" in each.get("event", "") and "stream" in each for each in server.records("^loaded$")) == 1


def test_workers_are_children_of_the_server_with_a_session_of_their_own(server: Server) -> None:
    for pid, about in each_worker(server).items():
        assert about["parent"] == server.process.pid
        assert about["session"] == pid


def test_handlers_of_forks_run_once(server: Server) -> None:
    for about in each_worker(server).values():
        # What is before a fork happens in the template for each worker; what is after it, in the worker, once.
        assert about["forks"][-2:] == ["before", "child"]
        assert about["forks"].count("child") == 1
        assert about["forks"].count("before") == about["forks"].count("parent") + 1


def test_random_numbers_are_their_own(server: Server) -> None:
    assert len({about["random"] for about in each_worker(server).values()}) == 3


def test_memory_is_shared(server: Server) -> None:
    """The ballast is 20 MiB; a worker of its own would have all of it to itself."""
    each_worker(server)
    for each in workers(server, "app", "ready"):
        assert each["memory"] - each["pss"] > 10 << 20, each


def test_no_descriptor_comes_along(server: Server) -> None:
    """Standard streams, control, queue, answers for each loop, stacks, the pipe that wakes, and /proc."""
    counts = {about["fds"] for about in each_worker(server).values()}
    assert max(counts) <= 14 + (os.cpu_count() or 1)
    assert len(counts) == 1


def test_output_is_told_by_worker(server: Server) -> None:
    about = json.loads(server.get("/say").body)
    wait_for(lambda: server.records(f"said by {about['pid']}"), "the line is in the log")
    (record,) = server.records(f"said by {about['pid']}")
    assert (record["pid"], record["stream"]) == (about["pid"], "stdout")
    assert record["executor"] in [each["executor"] for each in workers(server, "app")]


@pytest.mark.parametrize(("target", "sentence"), [("/die", "was killed by SIGSEGV"), ("/exit", "exit status 7")])
def test_a_death_is_known_as_any_other(server: Server, target: str, sentence: str) -> None:
    before = {each["pid"] for each in workers(server, "app", "ready")}
    assert server.get(target, method="POST").status == 502
    wait_for(lambda: sentence in str(pool(server, "app")["deaths"][-1:]), "the death is told")
    wait_for(lambda: len(workers(server, "app", "ready")) == 3, "it is replaced")
    after = {each["pid"] for each in workers(server, "app", "ready")}
    assert len(after - before) == 1
    assert {about["loaded_by"] for about in each_worker(server).values()} == {template(server)["pid"]}


def test_the_death_of_the_template_changes_nothing_for_workers(server: Server) -> None:
    old, before = template(server)["pid"], {each["pid"] for each in workers(server, "app", "ready")}
    with Clients(server, "/") as clients:
        os.kill(old, signal.SIGKILL)
        server.wait_for_log("the template was killed by SIGKILL .*; workers go on")
        wait_for(
            lambda: pool(server, "app")["templates"] and template(server)["state"] == "ready", "there is another one"
        )
    assert clients.faults == []
    assert template(server)["pid"] != old
    assert {each["pid"] for each in workers(server, "app", "ready")} == before
    # A worker whose template is gone is watched as before.
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: any(each["pid"] == victim for each in pool(server, "app")["deaths"]), "its death is known")
    wait_for(lambda: len(workers(server, "app", "ready")) == 3, "it is replaced")
    assert template(server)["pid"] in {about["loaded_by"] for about in each_worker(server).values()}


def test_a_reload_makes_a_new_template(server: Server) -> None:
    old = template(server)["pid"]
    with Clients(server, "/") as clients:
        assert command(server, "reload").returncode == 0
    assert clients.faults == []
    wait_for(lambda: len(pool(server, "app")["templates"]) == 1, "the old template has gone")
    assert template(server)["pid"] != old
    wait_for(lambda: state_of(old) == "", "it is waited for")
    assert {about["loaded_by"] for about in each_worker(server).values()} == {template(server)["pid"]}


def test_a_version_that_cannot_be_loaded_never_replaces_the_old(server: Server) -> None:
    old = template(server)["pid"]
    (server.folder / "app.py").write_text("import nowhere_to_be_found\n")
    try:
        with Clients(server, "/") as clients:
            run = command(server, "reload", "app")
    finally:
        (server.folder / "app.py").write_text(APPLICATION)
    assert run.returncode == 1
    assert "pool app: application app:application cannot be loaded: ModuleNotFoundError" in run.stderr
    assert 'app.py", line 1' in run.stderr
    assert clients.faults == []
    wait_for(lambda: len(pool(server, "app")["templates"]) == 1, "the new template has gone")
    assert template(server)["pid"] == old
    wait_for(lambda: len(workers(server, "app", "ready")) == 3, "the old workers are there")


def test_nobody_is_left_over(server: Server) -> None:
    """Workers, their template, the core: what else was forked is gone and waited for."""
    known = {each["pid"] for each in workers(server, "app")} | {template(server)["pid"]}
    known.add(ask(server, command="status")["core"]["pid"])
    wait_for(lambda: set(children_of(server.process.pid)) == known, "only those who are known")


def test_recycled_workers_are_forked_too(serve: Any) -> None:
    server = serve(
        {"app.py": APPLICATION}, config=CONFIG.replace("preload: true", "preload: true, limits: {requests: 50}")
    )
    loaded_by = template(server)["pid"]
    first = {each["pid"] for each in workers(server, "app")}
    with Clients(server, "/") as clients:
        wait_for(lambda: not first & {each["pid"] for each in workers(server, "app")}, "all of them are replaced")
    assert clients.faults == []
    assert {json.loads(body)["loaded_by"] for body in clients.bodies} == {loaded_by}


def test_threads_at_import_are_told_and_workers_start_without(serve: Any) -> None:
    code = (
        "import threading\nticker = threading.Timer(3600, print)\nticker.daemon = True\n"
        "ticker.name = 'ticker'\nticker.start()\n"
    )
    server = serve({"app.py": code + APPLICATION}, config=CONFIG)
    server.wait_for_log(r"preload is not possible.*1 threads while it was loaded \(ticker\)")
    wait_for(lambda: len(workers(server, "app", "ready")) == 3, "all workers are there")
    found = each_worker(server)
    assert {about["loaded_by"] for about in found.values()} == set(found)
    assert len(found) == 3
    wait_for(lambda: pool(server, "app")["templates"] == [], "the template has gone")
    os.kill(min(found), signal.SIGKILL)
    wait_for(lambda: len(workers(server, "app", "ready")) == 3, "the dead one is replaced")


def test_scripts_and_asynchronous_applications(serve: Any) -> None:
    asgi = """\
import os
LOADED_BY = os.getpid()
async def application(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d %d" % (os.getpid(), LOADED_BY)})
"""
    script = "import os\nLOADED_BY = os.getpid()\ndef handle(request):\n    return f'{os.getpid()} {LOADED_BY}'\n"
    config = """\
control: control.sock
pools:
  app: {python: "app:application", processes: 2, preload: true}
  tools: {scripts: tools, processes: 2, preload: true}
sites:
  - root: www
    rules:
      - {match: {path: /app/*}, handler: {python: app}}
      - {match: {path: /tools/*}, handler: {scripts: tools}}
"""
    server = serve({"app.py": asgi, "tools/who.py": script, "www/a": "a"}, config=config)
    for name, target in (("app", "/app/"), ("tools", "/tools/who")):
        pid, loaded_by = map(int, server.get(target).text.split())
        (found,) = pool(server, name)["templates"]
        assert loaded_by == found["pid"]
        assert pid in {each["pid"] for each in workers(server, name)}


def test_a_template_that_cannot_load_at_the_start(serve: Any) -> None:
    config = CONFIG.replace("preload: true", "preload: true, limits: {queue_time: 500ms}")
    server = serve({"app.py": "raise RuntimeError('not today')\n"}, config=config)
    assert server.get("/").status == 503
    record = json.loads(server.wait_for_log('"the application cannot be loaded'))
    assert record["reason"].endswith("RuntimeError: not today")
    (server.folder / "app.py").write_text(APPLICATION)
    wait_for(lambda: server.get("/").status == 200, "it is tried again")
    wait_for(lambda: len(workers(server, "app", "ready")) == 3, "all workers are there")
    server.remember_fds()  # there was nobody at the start
