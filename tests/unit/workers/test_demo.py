"""The demo handlers do what their first lines say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fake_core import FakeCore

from appserver.workers import wire

Run = Callable[..., FakeCore]

HANDLERS = Path(__file__).resolve().parents[3] / "handlers"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def test_every_demo_handler_loads(run: Run) -> None:
    core = run(directory=str(HANDLERS), preload=[str(path) for path in sorted(HANDLERS.glob("*.py"))])
    assert [message["type"] for message in core.messages] == ["ready"]


def test_hello(run: Run) -> None:
    core = run()
    answer = core.fetch("GET", "/?name=Ada", script=HANDLERS / "hello.py")
    assert answer.body == b"Hello, Ada!\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_environment(run: Run) -> None:
    answer = run().fetch("GET", "/x", script=HANDLERS / "environment.py")
    assert b"PATH_INFO = /x\n" in answer.body


def test_notes(run: Run) -> None:
    how = {"script": HANDLERS / "notes.py"}
    core = run()
    assert len(json.loads(core.fetch("GET", "/", **how).body)["notes"]) == 2
    added = core.fetch("POST", "/", body=b"text=Milk", headers=FORM, **how)
    assert (added.status, json.loads(added.body)) == (201, {"added": "Milk"})
    assert core.fetch("POST", "/", body=b"text=", headers=FORM, **how).status == 400
    assert core.fetch("GET", "/other", **how).status == 404
    core.send(core.frame("GET", "/slowly", **how))
    answer = core.next_answer()
    assert answer.kind == wire.STREAM
    core.cancel(answer.slot)
    assert core.complete(answer).body.startswith(b"Read this file\n")
