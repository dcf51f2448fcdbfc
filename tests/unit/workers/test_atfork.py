"""One fork made of two: which handlers run where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WORKERS = Path(__file__).resolve().parents[3] / "appserver" / "workers"
PRELUDE = f"""\
import os, sys
sys.path.insert(0, {str(WORKERS)!r})
import atfork
atfork.install()
log = []
os.register_at_fork(
    before=lambda: log.append("before"),
    after_in_parent=lambda: log.append("parent"),
    after_in_child=lambda: log.append("child"),
)
"""
TWICE = """\
reader, writer = os.pipe()
atfork.enter(atfork.FIRST)
middle = os.fork()
if middle == 0:
    between = list(log)
    atfork.enter(atfork.SECOND)
    worker = os.fork()
    if worker:
        os.waitpid(worker, 0)
        os.write(writer, f"between: {between} {log}\\n".encode())
        os._exit(0)
    atfork.enter(atfork.WHOLE)
    os.write(writer, f"worker: {log}\\n".encode())
    child = os.fork()
    if child == 0:
        os.write(writer, f"child of the worker: {log}\\n".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os._exit(0)
atfork.enter(atfork.WHOLE)
os.waitpid(middle, 0)
os.close(writer)
print(f"template: {log}")
print(os.read(reader, 4096).decode(), end="")
"""


def test_two_forks_are_one_to_the_application() -> None:
    run = subprocess.run([sys.executable, "-c", PRELUDE + TWICE], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        "template: ['before', 'parent']",
        "worker: ['before', 'child']",
        "child of the worker: ['before', 'child', 'before', 'child']",
        "between: ['before'] ['before']",
    ]


@pytest.mark.parametrize(
    ("call", "error"), [("os.register_at_fork()", "TypeError"), ("os.register_at_fork(before=1)", "TypeError")]
)
def test_wrong_use_is_refused_as_by_the_original(call: str, error: str) -> None:
    code = f"{PRELUDE}\ntry:\n    {call}\nexcept Exception as error:\n    print(type(error).__name__)\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == f"{error}\n"
