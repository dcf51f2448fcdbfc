"""The frames that a replay sends and reads are those that workers read and send."""

from __future__ import annotations

import pytest

from appserver.supervisor.frames import FrameError, answers, request_frame
from appserver.workers import wire

ID = 1 << 48 | 1


@pytest.mark.parametrize("in_file", [False, True])
def test_requests_are_read_by_workers(in_file: bool) -> None:
    frame = request_frame(3, ID, {"REQUEST_METHOD": "PUT", "HTTP_X": "\xe9"}, b"body", in_file)
    (request,) = wire.split_requests(frame, len(frame))
    assert request[:3] == (3, 0, ID)
    assert wire.environment(memoryview(frame)[wire.REQUEST.size : len(frame) - (0 if in_file else 4)]) == {
        "REQUEST_METHOD": "PUT",
        "HTTP_X": "\xe9",
    }
    assert frame.endswith(b"body") is not in_file


def test_answers_of_workers_are_read() -> None:
    data = wire.answer(wire.INFORMATIONAL, 3, ID, 103, b"Link: x\r\n") + wire.answer(
        wire.RESPONSE, 3, ID, 200, b"A: b\r\n", b"body"
    )
    early, final = answers(data)
    assert (early.kind, early.status, early.fields, early.body) == (wire.INFORMATIONAL, 103, b"Link: x\r\n", b"")
    assert (final.kind, final.status, final.fields, final.body) == (wire.RESPONSE, 200, b"A: b\r\n", b"body")
    (stream,) = answers(wire.answer(wire.FILE, 3, ID, 200, body_len=7, file_offset=5))
    assert (stream.body_len, stream.file_offset, stream.request_id) == (7, 5, ID)


@pytest.mark.parametrize("cut", [1, 55, 60])
def test_answers_that_are_none(cut: int) -> None:
    data = wire.answer(wire.RESPONSE, 3, ID, 200, b"A: b\r\n", b"body")
    with pytest.raises(FrameError, match="an answer of"):
        list(answers(data[:cut]))
    with pytest.raises(FrameError, match="version 9"):
        list(answers(data[:4] + b"\x09\x00" + data[6:]))
