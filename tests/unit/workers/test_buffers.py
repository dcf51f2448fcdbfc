"""Buffers for large bodies: who has them when, and that nothing is left."""

import fcntl
import mmap
import os
import sys
from pathlib import Path

import pytest

from appserver.workers import buffers as module
from appserver.workers.buffers import BUFFERS_MAX, FREE, HEAD_LEN, LENT, SIZE, Buffer, Buffers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd_create is Linux's")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def buffers():
    before = descriptors()
    made = Buffers(lambda: None)
    yield made
    made.close()
    assert descriptors() == before


def lend(buffers: Buffers, body: bytes) -> Buffer:
    buffer = buffers.take(len(body))
    assert buffer is not None
    buffer.fill(body)
    buffers.put(buffer)
    return buffer


def test_the_core_finds_the_body_and_gives_the_buffer_back(buffers):
    body = os.urandom(256 * 1024)
    buffer = lend(buffers, body)
    with mmap.mmap(buffer.fd, 0) as core:
        assert core[HEAD_LEN : HEAD_LEN + len(body)] == body
        assert core[0] == LENT and not buffer.is_free
        core[0] = FREE
    assert buffer.is_free
    assert buffers.take(100) is buffer
    buffers.put(buffer)


def test_it_cannot_be_made_shorter(buffers):
    buffer = lend(buffers, b"x" * 100)
    with pytest.raises(PermissionError):
        os.ftruncate(buffer.fd, HEAD_LEN)
    assert fcntl.fcntl(buffer.fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK


def test_a_lent_one_is_left_alone_and_there_is_an_end_to_them(buffers):
    lent = [lend(buffers, bytes([number]) * 70_000) for number in range(BUFFERS_MAX)]
    assert len({buffer.fd for buffer in lent}) == BUFFERS_MAX
    assert buffers.take(70_000) is None
    lent[3].take_back()
    assert buffers.take(70_000) is lent[3]
    buffers.put(lent[3])


def test_one_that_had_a_small_body_has_room_for_the_largest(buffers):
    small = lend(buffers, b"x" * 1000)
    small.take_back()
    before = descriptors()
    large = buffers.take(SIZE)
    assert large is small
    large.fill(b"y" * SIZE)
    assert os.pread(large.fd, SIZE + 1, HEAD_LEN) == b"y" * SIZE
    assert descriptors() == before
    large.take_back()
    buffers.put(large)


def test_what_is_larger_gets_none(buffers):
    assert buffers.take(SIZE + 1) is None


def test_shed_keeps_what_is_lent(buffers):
    lent, free = lend(buffers, b"a" * 10), lend(buffers, b"b" * 10)
    free.take_back()
    before = descriptors()
    buffers.shed()
    assert descriptors() < before
    assert not lent.is_free
    lent.take_back()
    buffers.shed()
    assert descriptors() < before - 2


def test_without_descriptors_there_is_none(buffers, monkeypatch):
    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(module.os, "memfd_create", refuse)
    assert buffers.take(1000) is None
