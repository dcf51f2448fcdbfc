"""docker-compose.yml: the demo comes up by one command and goes without a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import docker
import pytest
from containers import TOP, send, unique_name
from harness import Connection, free_port, wait_for


class Project:
    """`docker compose` on the project's file, under a name of its own."""

    def __init__(self, image: str, port: int) -> None:
        self.name = unique_name()
        self.port = port
        self._environment = {**os.environ, "IMAGE": image, "BIND": "127.0.0.1", "PORT": str(port)}

    def compose(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "compose", "--project-directory", str(TOP), "-p", self.name, *words]
        result = subprocess.run(command, env=self._environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result

    def get(self, target: str) -> tuple[int, str]:
        with Connection(self.port) as connection:
            response = send(connection, target).response()
        return response.status, response.text

    def left(self, engine: docker.DockerClient) -> list[object]:
        """What of it there is in the engine."""
        label = {"label": f"com.docker.compose.project={self.name}"}
        return [
            *engine.containers.list(all=True, filters=label),
            *engine.networks.list(filters=label),
            *engine.volumes.list(filters=label),
        ]


@pytest.fixture
def project(engine: docker.DockerClient, image: str) -> Iterator[Project]:
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("there is no `docker compose` here")
    project = Project(image, free_port())
    yield project
    project.compose("down", "--volumes", "--timeout", "30")
    assert project.left(engine) == []


def test_the_file_is_clean(project: Project) -> None:
    result = project.compose("config", "--quiet")
    assert result.stdout + result.stderr == ""


def test_the_demo_comes_up_and_goes(project: Project, engine: docker.DockerClient) -> None:
    project.compose("up", "--detach", "--no-build")
    assert project.left(engine)

    def is_ready() -> bool:
        try:
            return project.get("/readyz")[0] == 200
        except OSError:
            return False

    wait_for(is_ready, "the demo is ready")
    assert "cherokee-app works" in project.get("/")[1]
    assert project.get("/hello/?name=Ada") == (200, "Hello, Ada!\n")
    status, text = project.get("/cgi-bin/environment.sh")
    assert status == 200 and "GATEWAY_INTERFACE=CGI/1.1" in text
    # Served from the mounted folders, not from the copy in the image.
    assert "DOCUMENT_ROOT=/srv/www\n" in text
    project.compose("stop", "--timeout", "30")
    (container,) = engine.containers.list(all=True, filters={"label": f"com.docker.compose.project={project.name}"})
    assert container.attrs["State"]["ExitCode"] == 0
