"""Fixtures of the functional tests: a server for one test, and one that simple tests of a module share."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness import LAST_SERVERS, Server, serving, write_tree

Serve = Callable[..., Server]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure goes what the last servers have said."""
    report = yield
    if report.failed:
        for server in LAST_SERVERS:
            report.sections.append((f"log of server {server.process.pid}", "\n".join(server.lines[-60:])))
    return report


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve({"www/a.txt": "..."}, config="...", *arguments)` starts a server on those files in a folder of its own.

    Without `config` the conventions are used. The server is looked over and stopped when the test is done.
    """
    with ExitStack() as stack:

        def start(files: dict[str, str | bytes], *arguments: str, config: str | None = None, **options: Any) -> Server:
            write_tree(tmp_path, files)
            if config is None:
                where = (str(tmp_path),)
            else:
                (tmp_path / "config.yaml").write_text(config)
                where = ("--config", str(tmp_path / "config.yaml"))
            listen = () if "--listen" in arguments else ("--listen", "127.0.0.1:0")
            return stack.enter_context(serving(tmp_path, *where, *listen, *arguments, **options))

        yield start


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """The same for a server that all tests of a module share."""
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:

        def start(files: dict[str, str | bytes], *arguments: str, config: str | None = None, **options: Any) -> Server:
            write_tree(folder, files)
            where: tuple[str, ...] = (str(folder),)
            if config is not None:
                (folder / "config.yaml").write_text(config)
                where = ("--config", str(folder / "config.yaml"))
            return stack.enter_context(serving(folder, *where, "--listen", "127.0.0.1:0", *arguments, **options))

        yield start
