"""The server as a container's process 1: signals, logs, health, orphans, its share of the machine."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import docker
import pytest
from containers import QUICK_CHECK, SECOND_NS, Container, Run, mounts_of, send
from harness import wait_for, write_tree

from appserver import __version__

#: Says when it has begun and goes on when it is told to.
WAITS = """
import os, time
def handle(request):
    print("begun", flush=True)
    while not os.path.exists("/srv/www/go"):
        time.sleep(0.01)
    return "done"
"""


def test_docker_stop_ends_it_with_status_0(run: Run) -> None:
    container = run().wait_until_ready()
    assert container.stop() == 0
    assert "stopped" in [record["event"] for record in container.records()]


def test_a_request_in_flight_is_finished_before_the_end(run: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {"www/index.html": "", "handlers/slow.py": WAITS})
    container = run(volumes=mounts_of(tmp_path)).wait_until_ready()
    with container.connect() as connection:
        send(connection, "/slow/")
        container.wait_for_log("begun")
        container.inner.kill("SIGTERM")
        container.wait_for_log("SIGTERM: stopping")
        (tmp_path / "www/go").write_text("")
        response = connection.response()
    assert (response.status, response.text) == (200, "done")
    assert container.wait() == 0


def test_logs_are_for_machines_and_come_apart(run: Run) -> None:
    container = run().wait_until_ready()
    assert container.get("/static.txt").status == 200
    assert container.stop() == 0
    out = container.log(err=False).splitlines()
    assert out[0] == f"cherokee-app {__version__} listening on http://localhost"
    assert any('"GET /static.txt HTTP/1.1" 200' in line for line in out)
    records = container.records()
    assert [record["event"] for record in records if record["level"] in ("warning", "error")] == []
    assert all(record["timestamp"].endswith("Z") for record in records)


def test_on_a_terminal_the_log_is_for_people(run: Run) -> None:
    container = run(tty=True).wait_until_ready()
    lines = container.log().splitlines()
    assert lines and not any(line.startswith("{") for line in lines)


def test_commands_inside_a_running_container(run: Run) -> None:
    container = run().wait_until_ready()
    assert container.run("cherokee-app", "version") == f"cherokee-app {__version__}\n"
    assert container.run("cherokee-app", "health") == "http 200\n"
    assert "valid" in container.run("cherokee-app", "check")
    assert "expected http://" in container.run("cherokee-app", "health", "ftp://x", status=1)


def test_an_orphan_is_reaped(run: Run) -> None:
    container = run().wait_until_ready()
    # Its parent ends at once, so it becomes a child of process 1.
    pid = container.run("sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!").strip()
    assert container.run("sh", "-c", f"cut -d' ' -f4 /proc/{pid}/stat") == "1\n"
    container.run("sh", "-c", f"kill {pid}")
    wait_for(lambda: container.inner.exec_run(["test", "-e", f"/proc/{pid}"]).exit_code == 1, "the orphan is reaped")


@pytest.mark.parametrize("part", ["workers/main.py", "spawner_main", "core_main"])
def test_the_death_of_a_process_inside_is_survived(run: Run, part: str) -> None:
    container = run().wait_until_ready()
    before = pids(container, part)
    kill(container, part)
    wait_for(lambda: len(now := pids(container, part)) == len(before) and now != before, f"another {part}")
    container.wait_until_ready()
    for target in ("/", "/hello/", "/cgi-bin/environment.sh"):
        assert container.get(target).status == 200
    assert container.stop() == 0


def test_healthy_then_unhealthy_then_healthy(run: Run) -> None:
    container = run(healthcheck=QUICK_CHECK)
    container.wait_for_health("healthy")
    kill(container, "core_main", "STOP")  # it takes connections and says nothing
    container.wait_for_health("unhealthy")
    kill(container, "core_main", "CONT")
    container.wait_for_health("healthy")
    assert container.stop() == 0


def test_a_pool_that_cannot_start_is_unhealthy(run: Run, tmp_path: Path) -> None:
    pool = "pools: {shop: {python: shop:application, directory: /srv/www}}\n"
    rule = "sites: [{root: /srv/www, rules: [{match: {path: /shop/*}, handler: {python: shop}}]}]\n"
    write_tree(tmp_path, {"www/index.html": "page", "config.yaml": pool + rule})
    container = run(volumes=mounts_of(tmp_path), healthcheck=QUICK_CHECK)
    container.wait_for_log("listening on")  # the first look may come before that
    container.wait_for_health("unhealthy")
    assert container.get("/").text == "page"


@pytest.mark.parametrize(
    ("arguments", "options", "config"),
    [
        (("serve", "--listen", "0.0.0.0:8088"), {}, None),
        ((), {"environment": {"CHEROKEE_LISTEN": "127.0.0.1:8088"}}, None),
        (("serve", "--listen", "[::1]:8088"), {"init": True}, None),
        ((), {}, "listen: 127.0.0.1:8088\nhealth: {ready: /is-it-ready}\n"),
        ((), {}, "listen: 127.0.0.1:8088\nhealth: off\n"),
        (("serve", "--config", "/srv/www/other.yaml"), {"network_mode": "none"}, None),
    ],
    ids=["option", "environment", "under an init", "configuration", "no health path", "another file"],
)
def test_the_check_follows_how_the_server_was_started(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], options: dict[str, object], config: str | None
) -> None:
    other = "listen: 127.0.0.1:8088\nsites: [{root: .}]\n"
    files = {"www/index.html": "page", "www/other.yaml": other}
    write_tree(tmp_path, files if config is None else {**files, "config.yaml": config})
    if "[::1]:8088" in arguments:
        options = {**options, "sysctls": {"net.ipv6.conf.all.disable_ipv6": "0"}}
    container = run(*arguments, volumes=mounts_of(tmp_path), healthcheck=QUICK_CHECK, **options)
    container.wait_for_health("healthy")


def test_threads_follow_the_share_of_the_cpus(run: Run, engine: docker.DockerClient) -> None:
    cpus = engine.info()["NCPU"]
    container = run(nano_cpus=SECOND_NS, mem_limit="128m").wait_until_ready()
    assert loops(container) == 1
    assert container.get("/hello/").status == 200
    if cpus > 1:
        assert loops(run().wait_until_ready()) == cpus


def loops(container: Container) -> int:
    return int(next(record["loops"] for record in container.records() if record["event"] == "starting"))


def pids(container: Container, part: str) -> list[int]:
    """Living processes in the container whose command line has `part`; there is no ps inside."""
    script = (
        "import os, json\nfound = []\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    try:\n"
        f"        if {part!r} in open(f'/proc/{{pid}}/cmdline').read() and int(pid) != os.getpid():\n"
        "            found.append(int(pid))\n"
        "    except OSError:\n"
        "        pass\n"
        "print(json.dumps(found))"
    )
    found: list[int] = json.loads(container.run("python3", "-c", script))
    return found


def kill(container: Container, part: str, signal: str = "KILL") -> None:
    """Sends a signal to the first process inside whose command line has `part`."""
    pid = pids(container, part)[0]
    container.run("sh", "-c", shlex.join(["kill", f"-{signal}", str(pid)]))
