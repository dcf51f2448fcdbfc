"""Shared by all tests: where things are, their order, and what happens when several processes run them.

In one process fast tests come first. In several (`-n`, which `make test` sets) each file stays in one process, so that
its tests share the servers that it starts; long files come first and short tests fill up what is left. A test marked
`alone` measures the machine, or loads it so much that others would wait: nothing else runs beside it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TOP = Path(__file__).resolve().parent.parent
ORDER = ("unit", "core", "fuzz", "functional", "packaging", "image")
IN_ONE_PROCESS = ("tests/image/",)  #: folders whose files share one image
ONE_BY_ONE = ("tests/core/test_core.py",)  #: files whose tests share nothing


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> tuple[bool, int]:
        folder = item.path.relative_to(TOP / "tests").parts[0]
        place = ORDER.index(folder) if folder in ORDER else len(ORDER)
        return is_alone(item), -place if is_one_of_several(config) else place

    items.sort(key=rank)


def is_one_of_several(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


class Scheduling(LoadScopeScheduling):
    """Gives files, or what is more or less than a file, to the processes in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        for folder in IN_ONE_PROCESS:
            if nodeid.startswith(folder):
                return folder
        path = nodeid.partition("::")[0]
        return nodeid if path in ONE_BY_ONE else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if not is_one_of_several(item.config):
        return (yield)
    with turn(is_alone(item)):
        return (yield)


@contextmanager
def turn(alone: bool) -> Iterator[None]:
    """Waits until nobody runs a test (`alone`), or nobody who must be alone."""
    folder = TOP / "build" / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "gate.lock").open("w") as gate, (folder / "turn.lock").open("w") as lock:
        fcntl.flock(gate, fcntl.LOCK_EX)  # or there might always be somebody who runs one
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
