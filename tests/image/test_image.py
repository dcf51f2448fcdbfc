"""The image as its users run it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import docker
import pytest
from containers import TOP, Run, Running, ask, free_port, wait_for

from appserver import __version__

pytestmark = pytest.mark.image

MB = 1_000_000
SECOND_NS = 1_000_000_000
SLOW = "import time\n\ndef handle(request):\n    time.sleep(float(request.query['s']))\n    return 'slept'\n"


def mounted(folder: Path, files: dict[str, str]) -> str:
    """Writes files that every user of a container may read; the folder's path."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name, text in files.items():
        path = folder / name
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    return str(folder)


def bind(source: str | Path, target: str) -> dict[str, dict[str, str]]:
    return {str(source): {"bind": target, "mode": "ro"}}


# What is in it


def test_description(engine: docker.DockerClient, image: str) -> None:
    about = engine.images.get(image).attrs["Config"]
    labels = about["Labels"]
    assert labels["org.opencontainers.image.title"] == "cherokee-app"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.description"]
    assert about["StopSignal"] == "SIGTERM"
    assert about["User"] not in ("", "root", "0")
    assert "80/tcp" in about["ExposedPorts"]
    assert about["Healthcheck"]["Test"][0] == "CMD"


def test_size(engine: docker.DockerClient, image: str) -> None:
    """What is added to the base: Python, the server, nothing that only a build needs."""
    added = engine.images.get(image).attrs["Size"] - engine.images.get("debian:trixie-slim").attrs["Size"]
    assert added < 50 * MB


def test_no_build_tools(run: Run) -> None:
    running = run()
    for tool in ("gcc", "cc", "make", "pip", "pip3", "curl"):
        code, _ = running.inside_run("sh", "-c", f"command -v {tool}")
        assert code != 0, tool
    code, output = running.inside_run("sh", "-c", "find / -xdev \\( -name '*.h' -o -name '*.c' \\) | head", user="root")
    assert output == "", output
    code, output = running.inside_run("python3", "-c", "import sqlite3, ssl, zoneinfo, json, xmlrpc.server, ctypes")
    assert code == 0, output


# What it serves


def test_the_demo(run: Run) -> None:
    running = run()
    status, page = running.ask("/")
    assert status == 200
    assert "cherokee-app works" in page
    assert running.ask("/hello/?name=Ada") == (200, "Hello, Ada!\n")
    assert running.ask("/notes/")[0] == 200
    assert "GATEWAY_INTERFACE = CGI/1.1" in running.ask("/environment/")[1]
    assert "GATEWAY_INTERFACE=CGI/1.1" in running.ask("/cgi-bin/environment.sh")[1]
    assert "Hello from Python" in running.ask("/cgi-bin/clock.py")[1]
    assert running.ask("/readyz")[0] == 200
    assert '"GET /hello/?name=Ada HTTP/1.1" 200' in wait_for(
        lambda: "Ada" in running.log(stderr=False) and running.log(stderr=False), lambda: "the access log"
    )
    assert '"event": "ready"' in running.log(stdout=False, stderr=True)


def test_mounted_folders(run: Run, tmp_path: Path) -> None:
    volumes = {
        **bind(mounted(tmp_path / "www", {"index.html": "<p>mine"}), "/srv/www"),
        **bind(
            mounted(tmp_path / "handlers", {"mine.py": "def handle(r):\n    return 'my handler'\n"}), "/srv/handlers"
        ),
        **bind(
            mounted(tmp_path / "cgi", {"mine.sh": "#!/bin/sh\necho Content-Type: text/plain\necho\necho my program\n"}),
            "/srv/cgi-bin",
        ),
    }
    running = run(volumes=volumes)
    assert running.ask("/") == (200, "<p>mine")
    assert running.ask("/mine/") == (200, "my handler")
    assert running.ask("/cgi-bin/mine.sh") == (200, "my program\n")
    assert running.ask("/hello/")[0] == 404
    assert running.ask("/about.txt")[0] == 404


def test_one_mounted_folder_replaces_only_its_own(run: Run, tmp_path: Path) -> None:
    handlers = mounted(tmp_path / "handlers", {"mine.py": "def handle(r):\n    return 'my handler'\n"})
    running = run(volumes=bind(handlers, "/srv/handlers"))
    assert running.ask("/mine/") == (200, "my handler")
    assert running.ask("/hello/")[0] == 404
    assert running.ask("/")[0] == 200


def test_broken_handler(run: Run, tmp_path: Path) -> None:
    files = {"broken.py": "def handle(\n", "good.py": "def handle(r):\n    return 'good'\n"}
    running = run(volumes=bind(mounted(tmp_path / "handlers", files), "/srv/handlers"))
    assert running.ask("/broken/")[0] == 500
    assert running.ask("/good/") == (200, "good")
    assert "SyntaxError" in running.log()


def test_mounted_configuration(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("sites:\n  - rules:\n      - {match: {path: /hi}, handler: {respond: {body: configured}}}\n")
    config.chmod(0o644)
    running = run(volumes=bind(config, "/etc/cherokee-app/config.yaml"))
    assert running.ask("/hi") == (200, "configured")
    assert running.ask("/")[0] == 404
    assert running.inside_run("cherokee-app", "check") == (0, "/etc/cherokee-app/config.yaml: valid\n")


def test_broken_configuration(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("thread: 4\nlimits: {body_size: 3 furlongs}\n")
    config.chmod(0o644)
    running = run(ready=False, volumes=bind(config, "/etc/cherokee-app/config.yaml"))
    assert running.wait_for_exit() == 1
    log = running.log(stdout=False)
    assert "/etc/cherokee-app/config.yaml:1:1: " in log
    assert "did you mean 'threads'" in log
    assert "limits.body_size" in log


# How it may be run


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"user": "12345:12345"}, id="user"),
        pytest.param({"read_only": True}, id="read-only"),
        pytest.param({"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}, id="no-privileges"),
        pytest.param(
            {
                "user": "12345:12345",
                "read_only": True,
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges"],
                "environment": {"CHEROKEE_LISTEN": "0.0.0.0:8080"},
                "port": 8080,
            },
            id="all-and-high-port",
        ),
        pytest.param({"user": "root"}, id="root"),
    ],
)
def test_restricted(run: Run, options: dict[str, object]) -> None:
    running = run(**options)
    assert running.ask("/hello/")[1] == "Hello, world!\n"
    assert running.ask("/about.txt")[0] == 200
    assert "REQUEST_METHOD=GET" in running.ask("/cgi-bin/environment.sh")[1]
    assert running.ask("/notes/", "POST", b"text=" + b"x" * 200_000)[0] in (201, 400)
    code, output = running.inside_run("cherokee-app", "health")
    assert code == 0, output


def test_no_right_to_bind(run: Run) -> None:
    running = run(ready=False, sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"}, cap_drop=["ALL"])
    assert running.wait_for_exit() == 1
    assert "no right to bind port 80; choose a port from 1024 up" in running.log()


def test_loops_follow_the_quota(run: Run) -> None:
    running = run(nano_cpus=SECOND_NS, mem_limit="256m")
    line = next(line for line in running.log().splitlines() if '"event": "starting"' in line)
    assert json.loads(line)["loops"] == 1


def test_commands(run: Run) -> None:
    running = run()
    assert running.inside_run("cherokee-app", "version") == (0, f"cherokee-app {__version__}\n")
    assert running.inside_run("cherokee-app", "check")[0] == 0
    assert running.inside_run("cherokee-app", "health") == (0, "http 200\n")
    code, output = running.inside_run("cherokee-app", "serve", "--help")
    assert code == 0
    assert "DIR/handlers" in output


# How it lives and ends


def test_health(run: Run) -> None:
    every = {"interval": SECOND_NS, "timeout": 10 * SECOND_NS, "retries": 1, "start_period": 0}
    healthy = run(healthcheck={"test": ["CMD", "cherokee-app", "health"], **every})
    wait_for(lambda: healthy.health() == "healthy", lambda: f"healthy: {healthy.container.attrs['State']}")
    [core] = healthy.pids("core_main")
    assert healthy.inside_run("sh", "-c", f"kill -STOP {core}")[0] == 0
    wait_for(lambda: healthy.health() == "unhealthy", lambda: f"unhealthy: {healthy.container.attrs['State']}")
    assert healthy.inside_run("sh", "-c", f"kill -CONT {core}")[0] == 0
    wait_for(lambda: healthy.health() == "healthy", lambda: f"healthy again: {healthy.container.attrs['State']}")


def test_stop_lets_a_request_finish(run: Run, tmp_path: Path) -> None:
    running = run(volumes=bind(mounted(tmp_path / "handlers", {"slow.py": SLOW}), "/srv/handlers"))
    port = running.port
    answers: list[tuple[int, str]] = []
    client = threading.Thread(target=lambda: answers.append(ask(port, "/slow/?s=2")))
    client.start()
    began = "import time; time.sleep(0.3)"  # a request that is not in the worker yet would be refused, not drained
    assert running.inside_run("python3", "-c", began)[0] == 0
    running.container.stop(timeout=20)
    client.join()
    assert answers == [(200, "slept")]
    assert running.wait_for_exit() == 0
    assert "SIGTERM: stopping" in running.log()


def test_process_1_reaps(run: Run, tmp_path: Path) -> None:
    """A program leaves a child behind, whose parent is then process 1."""
    leave = "(setsid sh -c 'sleep 0.2' >/dev/null 2>&1 </dev/null &)"
    program = f"#!/bin/sh\necho Content-Type: text/plain\necho\n{leave}\necho left\n"
    running = run(volumes=bind(mounted(tmp_path / "cgi", {"leave.sh": program}), "/srv/cgi-bin"))
    for _ in range(3):
        assert running.ask("/cgi-bin/leave.sh") == (200, "left\n")
    wait_for(lambda: not running.pids("sleep") and not running.zombies(), lambda: f"no zombie: {running.zombies()}")


def test_killed_children_are_replaced(run: Run) -> None:
    running = run()
    for word, target in (
        ("workers/main.py", "/hello/"),
        ("spawner_main", "/cgi-bin/environment.sh"),
        ("core_main", "/"),
    ):
        before = running.pids(word)
        assert before
        assert running.inside_run("sh", "-c", f"kill -9 {before[0]}")[0] == 0
        wait_for(
            lambda word=word, before=before: len(now := running.pids(word)) == len(before) and before[0] not in now,
            lambda word=word: f"another {word}:\n{running.log()}",
        )
        wait_for(lambda: running.inside_run("cherokee-app", "health")[0] == 0, running.log)
        assert running.ask(target)[0] == 200


# Compose


def test_compose(engine: docker.DockerClient, image: str, tmp_path: Path) -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("docker compose is not installed")
    engine.images.get(image).tag("cherokee-app")
    port, project = free_port(), "cherokee-app-test"
    environment = {**os.environ, "BIND": "127.0.0.1", "PORT": str(port)}

    def compose(*arguments: str) -> str:
        command = ["docker", "compose", "-p", project, *arguments]
        done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        compose("config", "--quiet")
        compose("up", "--detach", "--no-build")
        [container] = engine.containers.list(filters={"label": f"com.docker.compose.project={project}"})
        Running(container, 80).wait_until_serving()
        assert "cherokee-app works" in ask(port, "/")[1]
        assert ask(port, "/hello/?name=compose") == (200, "Hello, compose!\n")
        assert ask(port, "/cgi-bin/environment.sh")[0] == 200
    finally:
        compose("down", "--volumes")
    label = {"label": f"com.docker.compose.project={project}"}
    assert engine.containers.list(all=True, filters=label) == []
    assert engine.networks.list(filters=label) == []
    assert engine.volumes.list(filters=label) == []
