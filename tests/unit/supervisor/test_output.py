from __future__ import annotations

import random

import pytest

from appserver.supervisor.output import BURST, LINES_PER_SECOND, MAX_LINE, Lines


def collect(lines: Lines, *pieces: bytes, now: float = 0) -> list[str]:
    return [line for piece in pieces for line in lines.feed(piece, now)]


def test_lines() -> None:
    lines = Lines(0)
    assert collect(lines, b"one\ntwo\nthr") == ["one", "two"]
    assert collect(lines, b"ee\n") == ["three"]
    assert list(lines.finish()) == []


def test_what_is_left_at_the_end() -> None:
    lines = Lines(0)
    assert collect(lines, b"no newline") == []
    assert list(lines.finish()) == ["no newline"]
    assert list(lines.finish()) == []


def test_empty_lines_and_trailing_space_are_left_out() -> None:
    assert collect(Lines(0), b"\n\r\n a \r\n\t\n") == [" a"]


def test_bytes_that_are_not_utf8() -> None:
    assert collect(Lines(0), b"gr\xc3\xbc\xdfe\n") == ["grü\\xdfe"]


@pytest.mark.parametrize("seed", range(5))
def test_cutting_changes_nothing(seed: int) -> None:
    text = b"".join(b"%d %s\n" % (n, b"x" * (n % 50)) for n in range(500))
    chance = random.Random(seed)
    lines, found, at = Lines(0), [], 0
    while at < len(text):
        step = chance.randint(1, 200)
        found += collect(lines, text[at : at + step])
        at += step
    assert found == collect(Lines(0), text)


def test_long_lines_are_cut_in_pieces() -> None:
    lines = Lines(0)
    found = collect(lines, b"x" * (MAX_LINE - 1), b"x" * (MAX_LINE * 2), b"y\n")
    assert [len(line) for line in found] == [MAX_LINE, MAX_LINE, MAX_LINE]
    assert "".join(found) == "x" * (3 * MAX_LINE - 1) + "y"


def test_endless_line_is_not_kept() -> None:
    lines = Lines(0)
    for _ in range(100):
        collect(lines, b"x" * 65536)
    assert len(lines._rest) < MAX_LINE


def test_flood_is_dropped_and_counted() -> None:
    lines = Lines(0)
    assert len(collect(lines, b"x\n" * (BURST + 100))) == BURST
    found = collect(lines, b"later\n", now=1)
    assert "100 lines were dropped" in found[0]
    assert found[1:] == ["later"]


def test_allowance_comes_back_with_time() -> None:
    lines = Lines(0)
    collect(lines, b"x\n" * BURST)
    assert collect(lines, b"a\n", now=0) == []
    found = collect(lines, b"x\n" * 10_000, now=2)
    assert len(found) == 2 * LINES_PER_SECOND + 1  # and the line about the dropped one
    assert "dropped" in list(lines.finish())[-1]


def test_allowance_does_not_grow_for_ever() -> None:
    lines = Lines(0)
    assert len(collect(lines, b"x\n" * (BURST + 1), now=1e6)) == BURST
