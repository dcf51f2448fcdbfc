"""A core and a supervisor small enough for a test: socket pairs, a slot segment, and one real worker process."""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appserver.workers import wire
from appserver.workers.buffers import HEAD_LEN, give_back

MAIN = Path(wire.__file__).parent / "main.py"
PATIENCE_S = 60.0  #: how long something that must come may take on a busy machine
RECEIVE_TIMEOUT = struct.pack("ll", 0, 200_000)
CANCELLED_OFFSET = 40
STACKS_SIGNAL = signal.SIGRTMAX - 1


@dataclass
class Answer:
    kind: int
    slot: int
    status: int
    request_id: int
    fields: str
    run_us: int
    cpu_us: int
    body_len: int
    file_offset: int
    body: bytes = b""
    fd: int = -1
    end_status: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        pairs = [line.partition(": ") for line in self.fields.split("\r\n") if line]
        return {name.lower(): value for name, _, value in pairs}


def decode(data: bytes, fd: int) -> list[Answer]:
    """The answers of one datagram, checked as the core checks them."""
    answers = []
    while data:
        head = wire.ANSWER.unpack_from(data)
        length, version, kind, slot, status, flags, request_id, fields_len, run_us, body_len, offset, cpu_us, _ = head
        assert version == 2
        assert flags in ((0, wire.FILE_LENT) if kind == wire.FILE else (0,)) and head[12] == 0
        inline = body_len if kind == wire.RESPONSE else 0
        assert length == 56 + fields_len + inline <= len(data)
        assert inline <= wire.INLINE_BODY_MAX
        fields = data[56 : 56 + fields_len].decode("latin-1")
        body = data[56 + fields_len : length]
        answers.append(Answer(kind, slot, status, request_id, fields, run_us, cpu_us, body_len, offset, body, fd))
        data = data[length:]
    assert fd < 0 or len(answers) == 1
    return answers


@dataclass
class FakeCore:
    """One pool and its only worker. A context manager; at its end the worker is gone and every descriptor closed."""

    configuration: Mapping[str, Any]
    threads: int = 2
    loops: int = 1
    slots: int = 64
    generation: int = 7
    interpreter: str = sys.executable
    messages: list[dict[str, Any]] = field(default_factory=list)  #: what came on the control channel so far

    def __enter__(self) -> FakeCore:
        self.queue, self.worker_queue = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.worker_queue.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, RECEIVE_TIMEOUT)
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(self.loops)]
        self.answers = [mine for mine, _ in pairs]
        self.worker_answers = [its for _, its in pairs]
        self.segment_fd = os.memfd_create("slots")
        os.ftruncate(self.segment_fd, 64 + 64 * self.slots)
        self.segment = mmap.mmap(self.segment_fd, 0)
        wire.SLOT_HEADER.pack_into(self.segment, 0, wire.SLOT_MAGIC, 1, self.slots, self.loops, self.generation)
        self.stacks_fd = os.memfd_create("stacks")
        self.control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._counter = itertools.count(1)
        self._decoded: list[Answer] = []
        self.process = subprocess.Popen(
            [self.interpreter, "-u", str(MAIN), str(its_control.fileno())],
            pass_fds=[its_control.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        its_control.close()
        self._start()
        return self

    def _start(self) -> None:
        names = ["queue", "slots", "stacks", *(f"answer:{loop}" for loop in range(self.loops))]
        answers = [each.fileno() for each in self.worker_answers]
        fds = [self.worker_queue.fileno(), self.segment_fd, self.stacks_fd, *answers]
        start = {
            "type": "start",
            "pool": "test",
            "executor": 3,
            "threads": self.threads,
            "loops": self.loops,
            "stacks_signal": STACKS_SIGNAL,
            "fds": names,
            "configuration": {"kind": "python", **self.configuration},
        }
        socket.send_fds(self.control, [json.dumps(start).encode()], fds)

    def __exit__(self, *exc: object) -> None:
        self.close_control()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for answer in self._decoded:
            if answer.fd >= 0:
                os.close(answer.fd)
        self.segment.close()
        os.close(self.segment_fd)
        os.close(self.stacks_fd)
        for each in (self.queue, self.worker_queue, *self.answers, *self.worker_answers):
            each.close()

    # Supervisor

    def message(self) -> dict[str, Any]:
        """The next message of the worker; {} when it has closed its end."""
        assert select.select([self.control], [], [], PATIENCE_S)[0], "no message of the worker came"
        try:
            data = self.control.recv(128 * 1024)
        except ConnectionResetError:
            return {}
        message: dict[str, Any] = json.loads(data) if data else {}
        self.messages.append(message)
        return message

    def ready(self) -> FakeCore:
        """Waits until the worker serves."""
        while (message := self.message()).get("type") != "ready":
            assert message.get("type") == "log", message
        return self

    def log(self, event: str) -> dict[str, Any]:
        """The next log record with that event."""
        while (message := self.message()).get("event") != event:
            assert message, f"the worker ended without a record {event!r}"
        return message

    def stop(self) -> None:
        self.control.send(b'{"type": "stop"}')

    def interrupt(self, slot: int, request_id: int | None = None) -> None:
        """Of the request in that slot, or of another one that its thread may run."""
        found = struct.unpack_from("=Q", self.segment, 64 + 64 * slot + 16)[0] if request_id is None else request_id
        message = {"type": "interrupt", "thread": self.slot(slot)[2], "request": f"{found:016x}"}
        self.control.send(json.dumps(message).encode())

    def stacks(self, pattern: str) -> str:
        """What the worker has written there, once it matches."""
        until = time.monotonic() + PATIENCE_S
        while not re.search(pattern, text := os.pread(self.stacks_fd, 1 << 20, 0).decode(), re.DOTALL):
            assert time.monotonic() < until, f"no {pattern} in {text}"
            time.sleep(0.005)
        return text

    def close_control(self) -> None:
        self.control.close()

    def exit_status(self) -> int:
        return self.process.wait(PATIENCE_S)

    def line(self, text: str) -> str:
        """The first line of the worker's output, of those not read yet, that contains this."""
        assert self.process.stdout is not None
        lines = []
        while True:
            line = self.process.stdout.readline().decode()
            assert line, f"{text!r} was never printed, only {lines}"
            lines.append(line)
            if text in line:
                return line

    def output(self) -> str:
        """What the worker wrote to stdout and stderr; waits for its end."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    # Core

    def frame(
        self,
        method: str = "GET",
        path: str = "/",
        *,
        script: Path | None = None,
        body: bytes = b"",
        body_fd: bool = False,
        flags: int = 0,
        body_len: int | None = None,
        headers: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        slot: int | None = None,
        loop: int = 0,
        request_id: int | None = None,
    ) -> bytes:
        """A request frame; its slot is marked as queued. Slots and ids count from 1. `flags` says what the descriptor
        is that goes along, `body_len` what is known of a body that is not in the frame.
        """
        flags |= wire.BODY_FD if body_fd else 0
        number = next(self._counter)
        slot = number % self.slots if slot is None else slot
        request_id = self.generation << 48 | number if request_id is None else request_id
        path, _, query = path.partition("?")
        values = {
            "REQUEST_METHOD": method,
            "REQUEST_URI": path,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "example.org",
            "SERVER_PORT": "8080",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REQUEST_SCHEME": "http",
            "SERVER_SOFTWARE": "fake",
            "GATEWAY_INTERFACE": "CGI/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "example.org:8080",
        }
        if body:
            values["CONTENT_LENGTH"] = str(len(body))
        for name, value in (headers or {}).items():
            key = name.upper().replace("-", "_")
            values[key if key == "CONTENT_TYPE" else "HTTP_" + key] = value
        values.update(environment or {})
        values["appserver.request_id"] = values.pop("appserver.request_id", f"{request_id:016x}")
        if script is not None:
            values["appserver.script"] = str(script)
        block = "".join(f"{name}\0{value}\0" for name, value in values.items()).encode("latin-1")
        inline = b"" if flags else body
        body_len = len(body) if body_len is None else body_len
        struct.pack_into("=I", self.segment, 64 + 64 * slot, 1)
        struct.pack_into("=Q", self.segment, 64 + 64 * slot + 16, request_id)
        head = wire.REQUEST.pack(
            48 + len(block) + len(inline), 2, 1, slot, loop, request_id, 0, len(block), flags, body_len
        )
        return head + block + inline

    def send(self, *frames: bytes, fd: int = -1) -> None:
        """One datagram."""
        if fd >= 0:
            socket.send_fds(self.queue, list(frames), [fd])
        else:
            self.queue.send(b"".join(frames))

    def datagram(self, loop: int = 0) -> list[Answer]:
        """The answers of the next datagram. Their descriptors are the caller's."""
        assert select.select([self.answers[loop]], [], [], PATIENCE_S)[0], "no answer of the worker came"
        data, fds, _, _ = socket.recv_fds(self.answers[loop], wire.DATAGRAM_MAX, 4)
        assert len(fds) <= 1
        return decode(data, fds[0] if fds else -1)

    def next_answer(self, loop: int = 0) -> Answer:
        if not self._decoded:
            self._decoded = self.datagram(loop)
        return self._decoded.pop(0)

    def complete(self, answer: Answer) -> Answer:
        """Reads what an answer's descriptor holds, and the `end` of a stream."""
        if answer.kind == wire.FILE:
            answer.body = os.pread(answer.fd, answer.body_len, answer.file_offset)
            if answer.file_offset == HEAD_LEN:  # a buffer that was lent
                give_back(answer.fd)
            assert len(answer.body) == answer.body_len
        elif answer.kind == wire.STREAM:
            answer.body = b"".join(iter(lambda: os.read(answer.fd, 65536), b""))
            end = self.next_answer()
            assert (end.kind, end.slot, end.request_id) == (wire.END, answer.slot, answer.request_id)
            answer.end_status = end.status
        if answer.fd >= 0:
            os.close(answer.fd)
            answer.fd = -1
        return answer

    def fetch(self, method: str = "GET", path: str = "/", **how: Any) -> Answer:
        """One request and its whole answer."""
        body = how.get("body", b"")
        if how.get("body_fd"):
            with spooled(body) as fd:
                self.send(self.frame(method, path, **how), fd=fd)
        else:
            self.send(self.frame(method, path, **how))
        return self.complete(self.next_answer())

    def slot(self, index: int) -> tuple[int, int, int, int]:
        """State, executor, thread and start of a slot."""
        state, executor, thread, _, _, start_ns = struct.unpack_from("=IIIiQQ", self.segment, 64 + 64 * index)
        return state, executor, thread, start_ns

    def wait_until_running(self, index: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while self.slot(index)[0] != 2:
            assert time.monotonic() < until, f"slot {index} was never marked"
            time.sleep(0.001)

    def cancel(self, index: int) -> None:
        struct.pack_into("=I", self.segment, 64 + 64 * index + CANCELLED_OFFSET, 1)


@contextlib.contextmanager
def spooled(body: bytes) -> Iterator[int]:
    fd = os.memfd_create("body")
    try:
        os.write(fd, body)
        yield fd
    finally:
        os.close(fd)


def write_scripts(folder: Path, sources: Mapping[str, str]) -> Sequence[Path]:
    """Files with those contents, in their order."""
    paths = []
    for name, text in sources.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
