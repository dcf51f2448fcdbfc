from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from appserver.supervisor import segments
from appserver.supervisor.scaling import Load
from appserver.supervisor.segments import HEADER, HEADER_SIZE, SLOT, SLOT_SIZE, Held, Links, Segment
from appserver.supervisor.usage import load_of
from appserver.workers import wire


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment("test", 8, 2)
    yield made
    made.close()


@pytest.fixture
def links() -> Iterator[Links]:
    made = Links("p", 8, 2)
    yield made
    made.close()


def put(segment: Segment, slot: int, state: int, executor: int, process: int = 0, log_id: int = 0) -> None:
    """Fills a record, through another mapping, as another process does."""
    with mmap.mmap(segment.fd, 0) as memory:
        SLOT.pack_into(memory, HEADER_SIZE + slot * SLOT_SIZE, state, executor, slot + 100, process, 1, 2, 3, 0, log_id)


def test_layout_is_the_protocols(segment: Segment) -> None:
    assert SLOT.size <= SLOT_SIZE == wire.SLOT_LEN
    assert (segments.SLOT_MAGIC, HEADER_SIZE) == (wire.SLOT_MAGIC, wire.SLOT_HEADER_LEN)
    assert os.fstat(segment.fd).st_size == 64 + 8 * 64
    assert HEADER.unpack(os.pread(segment.fd, HEADER.size, 0)) == (0x534C4F54, 1, 8, 2, 0)
    put(segment, 3, 2, 5, process=77, log_id=0x1234)
    assert struct.unpack("=IIIi", os.pread(segment.fd, 16, 64 + 3 * 64)) == (2, 5, 103, 77)
    assert struct.unpack("=Q", os.pread(segment.fd, 8, 64 + 3 * 64 + 48)) == (0x1234,)


def test_the_wait_in_the_queue_begins_when_the_request_comes(segment: Segment) -> None:
    assert load_of(segment, 100.0) == Load(0, 0.0)
    for slot, state, arrived_s in ((1, 1, 98.5), (2, 1, 97.0), (3, 2, 90.0), (5, 0, 80.0)):
        put(segment, slot, state, 5)
        with mmap.mmap(segment.fd, 0) as memory:
            struct.pack_into("=Q", memory, HEADER_SIZE + slot * SLOT_SIZE + 56, int(arrived_s * 1e9))
    assert segment.load() == (2, 1)
    assert load_of(segment, 100.0) == Load(1, 3.0)


def test_generation(segment: Segment) -> None:
    segment.set_generation(7)
    assert struct.unpack("=I", os.pread(segment.fd, 4, 16)) == (7,)


def test_held(segment: Segment) -> None:
    put(segment, 0, 2, 5, log_id=10)
    put(segment, 1, 1, 5)  # queued
    put(segment, 2, 2, 6)  # of another one
    put(segment, 7, 2, 5, process=77, log_id=11)
    with mmap.mmap(segment.fd, 0) as memory:
        struct.pack_into("=I", memory, HEADER_SIZE + 7 * SLOT_SIZE + 40, 1)
    assert segment.held_by(5) == [Held(10, 100, 0, 1), Held(11, 107, 77, 1, cancelled=True)]
    assert segment.held_by(9) == []
    assert segment.busy() == 4


def test_nobody_can_cut_it_short(segment: Segment) -> None:
    for size in (0, 64, 100_000):
        with pytest.raises(PermissionError):
            os.ftruncate(segment.fd, size)


def test_names_of_the_descriptors(links: Links) -> None:
    assert list(links.core_fds()) == ["queue:p", "slots:p", "answer:p:0", "answer:p:1"]
    assert list(links.executor_fds()) == ["queue", "slots", "answer:0", "answer:1"]
    everything = [*links.core_fds().values(), *links.executor_fds().values()]
    assert not any(os.get_inheritable(fd) for fd in everything)


def test_both_ends(links: Links) -> None:
    core, executors = links.core_fds(), links.executor_fds()
    os.write(core["queue:p"], b"request")
    assert os.read(executors["queue"], 100) == b"request"
    for loop in range(2):
        os.write(executors[f"answer:{loop}"], b"answer %d" % loop)
        assert os.read(core[f"answer:p:{loop}"], 100) == b"answer %d" % loop


def test_largest_datagram_fits(links: Links) -> None:
    datagram = bytes(wire.DATAGRAM_MAX)
    assert os.write(links.core_fds()["queue:p"], datagram) == len(datagram)
    assert os.write(links.executor_fds()["answer:1"], datagram) == len(datagram)


def test_hang_up_ends_the_queue(links: Links) -> None:
    os.write(links.core_fds()["queue:p"], b"last")
    links.hang_up()
    queue = links.executor_fds()["queue"]
    assert os.read(queue, 100) == b"last"
    assert os.read(queue, 100) == b""
    links.hang_up()


def test_waiting_for_a_request_has_an_end(links: Links) -> None:
    with socket.socket(fileno=os.dup(links.executor_fds()["queue"])) as queue:
        timeout = queue.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    assert struct.unpack("@ll", timeout) == (0, segments.RECEIVE_TIMEOUT_MS * 1000)


def test_no_descriptors_left(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    real, calls = socket.socketpair, []

    def fail_late(*arguments: int) -> tuple[socket.socket, socket.socket]:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*arguments)

    monkeypatch.setattr(socket, "socketpair", fail_late)
    with pytest.raises(OSError, match="Too many open files"):
        Links("p", 8, 2)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
