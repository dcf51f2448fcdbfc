"""Fixtures: the engine, the image built from this tree, and containers that are removed after each test."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from containers import TOP, Container, Run, find_engine, unique_name

from appserver import __version__


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    client, reason = find_engine()
    if client is None:
        pytest.skip(f"no Docker Engine answers here: {reason}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as a clone under `umask 077` has it."""
    folder = tmp_path_factory.mktemp("context") / "tree"
    left_out = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(TOP, folder, ignore=left_out)
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    return folder


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient, context: Path) -> Iterator[str]:
    """Built by the engine's classic builder, which knows plain Dockerfile syntax only."""
    tag = unique_name()
    try:
        engine.images.build(path=str(context), tag=tag, rm=True, forcerm=True, buildargs={"VERSION": __version__})
    except docker.errors.BuildError as error:
        pytest.fail("".join(line.get("stream") or line.get("error") or "" for line in error.build_log))
    yield tag
    engine.images.remove(tag, noprune=True)


@pytest.fixture
def run(engine: docker.DockerClient, image: str) -> Iterator[Run]:
    """`run("serve", ..., **options of the SDK)` starts a container; `port` is the one inside that is published."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, port: int = 80, **options: Any) -> Container:
            inner = engine.containers.create(
                image, list(arguments) or None, ports={f"{port}/tcp": ("127.0.0.1", None)}, **options
            )
            stack.callback(inner.remove, force=True, v=True)
            inner.start()
            return Container(inner, port)

        yield start
