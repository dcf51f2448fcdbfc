"""Frames: what is split, and what is refused."""

from __future__ import annotations

import struct

import pytest

from appserver.workers import wire

BLOCK = b"A\0b\0REQUEST_METHOD\0GET\0"


def frame(*, kind: int = wire.RUN, block: bytes = BLOCK, body: bytes = b"", flags: int = 0, version: int = 2) -> bytes:
    inline = b"" if flags & wire.FD_FLAGS else body
    length = 48 + len(block) + len(inline)
    return wire.REQUEST.pack(length, version, kind, 5, 1, 99, 0, len(block), flags, len(body)) + block + inline


def test_heads_have_the_documented_size() -> None:
    assert wire.REQUEST.size == wire.REQUEST_HEAD_LEN == 48
    assert wire.ANSWER.size == wire.ANSWER_HEAD_LEN == 56


def test_one_frame() -> None:
    data = frame(body=b"xyz")
    ((slot, loop, request_id, flags, start, middle, end),) = wire.split_requests(data, len(data))
    assert (slot, loop, request_id, flags) == (5, 1, 99, 0)
    assert data[start:middle] == BLOCK
    assert data[middle:end] == b"xyz"


def test_several_frames_and_a_cancel() -> None:
    data = frame() + frame(kind=wire.CANCEL, block=b"") + frame(body=b"z")
    assert [data[each[5] : each[6]] for each in wire.split_requests(data, len(data))] == [b"", b"z"]


@pytest.mark.parametrize("flag", [wire.BODY_FD, wire.BODY_STREAM])
def test_body_behind_a_descriptor_is_not_inline(flag: int) -> None:
    data = frame(body=b"x" * 100, flags=flag)
    ((*_, flags, _, middle, end),) = wire.split_requests(data, len(data))
    assert flags == flag
    assert middle == end == len(data)


@pytest.mark.parametrize(
    "data",
    [
        frame()[:-1],
        frame()[:30],
        frame() + b"x",
        frame(version=1),
        frame(kind=3),
        frame(block=b"A\0b"),
        struct.pack("=I", 4000) + frame()[4:],
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(wire.FrameError):
        wire.split_requests(data, len(data))


def test_every_cut_is_malformed() -> None:
    data = frame(body=b"body")
    for end in range(1, len(data)):
        with pytest.raises(wire.FrameError):
            wire.split_requests(data[:end], end)


def test_environment() -> None:
    assert wire.environment(b"A\0b\0EMPTY\0\0LATIN\0\xe9\0") == {"A": "b", "EMPTY": "", "LATIN": "\xe9"}
    assert wire.environment(b"") == {}


def test_answer() -> None:
    data = wire.answer(wire.RESPONSE, 5, 99, 200, b"A: b\r\n", b"body", run_us=7, cpu_us=3)
    assert wire.ANSWER.unpack_from(data) == (66, 2, 1, 5, 200, 0, 99, 6, 7, 4, 0, 3, 0)
    assert data[56:] == b"A: b\r\nbody"
