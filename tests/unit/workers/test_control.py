"""The control channel: bounded, and never in a handler's way."""

from __future__ import annotations

import json
import socket

import pytest

from appserver.workers import control
from appserver.workers.control import MESSAGE_MAX, Control, LoadError, describe


@pytest.fixture
def pair() -> tuple[Control, socket.socket]:
    mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Control(mine.detach()), other


def close(channel: Control, other: socket.socket) -> None:
    other.close()
    channel._socket.close()


def test_large_records_are_cut(pair: tuple[Control, socket.socket]) -> None:
    channel, other = pair
    channel.log("error", "event", traceback="\0" * 200000, request="1")
    message = json.loads(other.recv(MESSAGE_MAX))
    assert message["traceback"].count("\0") <= control.TEXT_MAX
    assert "[...]" in message["traceback"]
    channel.log("error", "event", request="1", **{f"field{number}": "\0" * 16000 for number in range(9)})
    assert json.loads(other.recv(MESSAGE_MAX)) == {"type": "log", "level": "error", "event": "event", "request": "1"}
    close(channel, other)


def test_a_full_channel_costs_a_moment_only(
    pair: tuple[Control, socket.socket], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "SEND_PATIENCE_MS", 1)
    channel, other = pair
    while channel.send("log", event="x" * 10000):
        pass
    channel.log("error", "dropped", request="1", traceback="Trace\n")
    assert capsys.readouterr().err == "error: dropped request=1\nTrace\n"
    close(channel, other)


def test_a_closed_channel_raises_nothing(
    pair: tuple[Control, socket.socket], capsys: pytest.CaptureFixture[str]
) -> None:
    channel, other = pair
    other.close()
    channel.log("error", "nobody listens")
    assert "nobody listens" in capsys.readouterr().err
    close(channel, other)


def test_describe() -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        summary, trace = describe(error)
    assert summary == "ValueError: two"
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith("ValueError: two\nlines\n")
    assert describe(UnprintableError())[0] == "UnprintableError"
    assert describe(LoadError("sentence", "trace")) == ("sentence", "trace")
