"""Fixtures of the image tests: the image built once, containers that go with their test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from containers import TOP, Run, Running, start
from docker.errors import DockerException

TAG = "cherokee-app:test"


def engine_or_reason() -> docker.DockerClient | str:
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except DockerException as error:
        return f"no Docker Engine answers: {error}"
    return client


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The engine; tests are skipped where there is none."""
    found = engine_or_reason()
    if isinstance(found, str):
        pytest.skip(found)
    yield found
    found.close()


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> str:
    """The image of this tree, built by the plain builder: the Dockerfile must not need BuildKit."""
    done = subprocess.run(
        ["docker", "build", "-t", TAG, "."],
        cwd=TOP,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return TAG


@pytest.fixture
def run(engine: docker.DockerClient, image: str) -> Iterator[Run]:
    """`run(*command, **options)` starts a container whose port 80 (`port=`) is on a free port of 127.0.0.1.

    `options` are those of the SDK's `containers.run`. Without `ready=False` it is waited for until it serves.
    """
    started: list[Running] = []

    def begin(*command: str, ready: bool = True, port: int = 80, **options: Any) -> Running:
        running = start(engine, image, command, port, options)
        started.append(running)
        if ready:
            running.wait_until_serving()
        return running

    yield begin
    for running in started:
        running.remove()
