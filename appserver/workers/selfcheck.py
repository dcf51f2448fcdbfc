"""The self-check of a worker: before it takes requests it answers one that it asks itself.

The worker plays the core for that one request: a queue, an answer socket and a slot segment of its own, so the request
goes the whole way that others will go, and nobody else sees it. An event loop gets them in the place of the pool's for
that time; for threads there is an executor of its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import socket
import tempfile
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional

from . import wire
from .buffers import give_back
from .control import Control, LoadError
from .exchange import memory_file
from .executor import Executor, Slots

if TYPE_CHECKING:
    from .aexecutor import LoopRunner

TIME_S = 30.0  #: for the answer, or the pool's request_time where that is shorter
END_TIME_S = 1.0  #: for what comes behind a good answer: the rest of a stream, the end of the thread
BAD_STATUS = 400  #: this and all above
SHOWN_BODY = 4096  #: bytes of an answer that is not good
SHOWN_LINES = 20
SLOT = 0
EXECUTOR = 1  #: its number in our own segment
GENERATION = 1
REQUEST_ID = GENERATION << 48 | 1
SEGMENT_LEN = wire.SLOT_HEADER_LEN + wire.SLOT_LEN


class Answer(NamedTuple):
    """What has come of it."""

    status: int
    body: bytes = b""  #: its first bytes, when the status is not good


class NoAnswerError(Exception):
    """It takes too long."""


def run(
    executor: Executor, runner: Optional[LoopRunner], control: Control, environment: Dict[str, str], time_ms: int
) -> None:
    """Asks an executor that has not been started; `runner`: its event loop, when it has one in place of threads.
    `time_ms`: the pool's request_time, 0 for none. Main thread. Raises LoadError when there is no good answer.
    """
    what = f"its self-check (`check` of the pool), GET {environment['REQUEST_URI']}"
    time_s = min(time_ms / 1000 or TIME_S, TIME_S)
    control.last_trace = ""
    try:
        answer = _in_thread(executor, environment, time_s) if runner is None else _in_loop(runner, environment, time_s)
    except NoAnswerError:
        raise LoadError(f"{what}, had no answer after {time_s:g} s", _stacks()) from None
    if answer.status >= BAD_STATUS:
        # The traceback tells more than the page, which says little unless the server is one for development.
        shown = control.last_trace or _lines(answer.body)
        raise LoadError(f"{what}, was answered {_named(answer.status)}; expected a status below {BAD_STATUS}", shown)


def _in_thread(executor: Executor, environment: Dict[str, str], time_s: float) -> Answer:
    with contextlib.closing(_Links()) as links:
        own = Executor(links.queue, links.slots, [links.answers], 1, executor.server, executor.log, wake=lambda: None)
        own.request_time_ns = executor.request_time_ns
        own.start()
        try:
            return links.ask(environment, time_s)
        finally:
            links.hang_up()
            own.runners[0].thread.join(END_TIME_S)
            links.is_used = own.is_running()


def _in_loop(runner: LoopRunner, environment: Dict[str, str], time_s: float) -> Answer:
    executor = runner.executor
    with contextlib.closing(_Links()) as links:
        its = executor.queue, executor.slots, executor.answers
        executor.queue, executor.slots, executor.answers = links.queue, links.slots, [links.answers]
        runner.start()
        is_back = threading.Event()

        def put_back() -> None:
            executor.queue, executor.slots, executor.answers = its
            is_back.set()

        try:
            return links.ask(environment, time_s)
        finally:
            runner.pause(put_back)
            links.is_used = not is_back.wait(END_TIME_S)


class _Links:
    """What joins a core and an executor, for one request, and the core's side of it."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._core, self.queue = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._answers, self.answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for theirs in (self.queue, self.answers):
            theirs.settimeout(None)
        fd = memory_file()
        try:
            os.ftruncate(fd, SEGMENT_LEN)
            header = wire.SLOT_HEADER.pack(wire.SLOT_MAGIC, wire.SLOT_VERSION, 1, 1, GENERATION)
            os.pwrite(fd, header, 0)
            self.slots = Slots(fd, EXECUTOR)
        finally:
            os.close(fd)
        self.slots.longs[wire.SLOT_HEADER_LEN // 8 + 2] = REQUEST_ID
        self.is_used = False  #: somebody is still busy with the request

    def ask(self, environment: Dict[str, str], time_s: float) -> Answer:
        """Sends the request and waits for its answer. Raises NoAnswerError."""
        block = "".join(f"{name}\0{value}\0" for name, value in environment.items()).encode("latin-1", "replace")
        length = wire.REQUEST_HEAD_LEN + len(block)
        self._core.send(
            wire.REQUEST.pack(length, wire.VERSION, wire.RUN, SLOT, 0, REQUEST_ID, 0, len(block), 0, 0) + block
        )
        until = time.monotonic() + time_s
        while True:
            if not _is_readable(self._answers.fileno(), until):
                raise NoAnswerError
            data, fds, _, _ = socket.recv_fds(self._answers, wire.DATAGRAM_MAX, 1)
            try:
                answer = self._answer(data, fds)
            finally:
                for fd in fds:
                    os.close(fd)
            if answer is not None:
                return answer

    def _answer(self, data: bytes, fds: List[int]) -> Optional[Answer]:
        """None for an interim response."""
        _, _, kind, _, status, flags, _, fields_len, _, body_len, offset, _, _ = wire.ANSWER.unpack_from(data)
        if kind == wire.INFORMATIONAL:
            return None
        if kind == wire.FILE and flags & wire.FILE_LENT:
            give_back(fds[0])
        if status < BAD_STATUS:
            return Answer(status)
        body = data[wire.ANSWER_HEAD_LEN + fields_len :][:SHOWN_BODY]
        if kind == wire.FILE and fds:
            body = os.pread(fds[0], min(body_len, SHOWN_BODY), offset)
        elif kind == wire.STREAM and fds:
            body = _read(fds[0])
        return Answer(status, body)

    def hang_up(self) -> None:
        """No request will come any more."""
        self._core.close()

    def close(self) -> None:
        self._core.close()
        self._answers.close()
        if not self.is_used:  # else its threads have them until the end of the process
            self.queue.close()
            self.answers.close()


def _read(fd: int) -> bytes:
    """The beginning of a stream, as far as it comes soon."""
    found = b""
    until = time.monotonic() + END_TIME_S
    while len(found) < SHOWN_BODY and _is_readable(fd, until):
        data = os.read(fd, SHOWN_BODY - len(found))
        if not data:
            break
        found += data
    return found


def _is_readable(fd: int, until: float) -> bool:
    """Or becomes so until then, time.monotonic()."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(until - time.monotonic(), 0) * 1000))


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _lines(body: bytes) -> str:
    lines = [line.rstrip() for line in body.decode("utf-8", "replace").splitlines() if line.strip()]
    return "".join(f"{line}\n" for line in lines[:SHOWN_LINES])


def _stacks() -> str:
    """Of all threads: one of them is in the request."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode("utf-8", "replace")
