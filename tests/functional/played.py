"""The real core with a pool whose executors are played by the test: both sides of a request are in its hands.

The core runs as a process of its own, as always; supervisor and executors are this process. So a test sees what an
executor is sent and when, and can be one that is slow, dies, or breaks the protocol.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from harness import PATIENCE_S, TOP, Connection, accepts, sanitizer_environment, state_of_threads, wait_for

from appserver.config.load import load_file
from appserver.config.plan import build
from appserver.native.control import Channel, Message
from appserver.workers import wire


def _load_segments() -> ModuleType:
    """The supervisor's module without its package: that loads the compiled core, and a core with sanitizers can only be
    loaded by a process that was started with their runtime.
    """
    spec = importlib.util.spec_from_file_location("played_segments", TOP / "appserver/supervisor/segments.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_segments = _load_segments()
HEADER_SIZE, SLOT_SIZE, STATE_RUNNING = _segments.HEADER_SIZE, _segments.SLOT_SIZE, _segments.STATE_RUNNING

POOL = "played"
EXECUTOR = 7
GENERATION = 3
CANCELLED_AT = 40

CONFIG = """
log: {{access: json}}
limits: {{{limits}}}
pools:
  played: {{python: "played:app", directory: ., limits: {{{pool_limits}}}}}
sites:
  - rules: [{{match: {{path: /*}}, handler: {{python: played}}}}]
"""


@dataclass
class PlayedRequest:
    """What an executor was sent. Its methods are the executor's answers."""

    core: PlayedCore
    slot: int
    loop: int
    request_id: int
    flags: int
    body_len: int
    environ: dict[str, str]
    body: bytes  #: when it came inline
    fd: int  #: what came with it, or -1
    streams: list[socket.socket] = field(default_factory=list)

    def stream(self) -> socket.socket:
        """The request's stream socket."""
        if not self.streams:
            self.streams.append(socket.socket(fileno=self.fd))
            self.streams[0].settimeout(PATIENCE_S)
        return self.streams[0]

    def read_all(self) -> bytes:
        """The streamed body up to its end."""
        return b"".join(iter(lambda: self.stream().recv(65536), b""))

    def close(self) -> None:
        """Closes what came with the request."""
        if self.streams:
            self.streams[0].close()
        elif self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
        self.streams.clear()

    def answer(
        self, kind: int, status: int = 0, fields: bytes = b"", body: bytes = b"", fd: int = -1, body_len: int = 0
    ) -> None:
        """Any answer; `fd` stays the caller's."""
        frame = wire.answer(kind, self.slot, self.request_id, status, fields, body, 5, body_len)
        self.core.send_answer(self.loop, frame, fd)

    def respond(self, body: bytes = b"", status: int = 200, fields: bytes = b"") -> None:
        """The whole answer."""
        self.answer(wire.RESPONSE, status, fields, body)

    def open_stream(self, fields: bytes = b"", length: int = wire.STREAM_UNKNOWN) -> int:
        """Begins a streamed answer: the pipe's writing end."""
        reader, writer = os.pipe()
        self.answer(wire.STREAM, 200, fields, fd=reader, body_len=length)
        os.close(reader)
        return writer

    def end(self, status: int = 0, fields: bytes = b"") -> None:
        """The word that the answer is over."""
        self.answer(wire.END, status, fields)

    def skip(self, *, with_fd: bool = True) -> None:
        """Hands it back."""
        self.answer(wire.SKIPPED, fd=self.fd if with_fd else -1)
        self.close()

    @property
    def is_cancelled(self) -> bool:
        """Whether the core says that nobody waits any more."""
        return self.core.slot_field("=I", self.slot, CANCELLED_AT) != 0

    @property
    def is_free(self) -> bool:
        """Whether the core has taken the slot back."""
        return self.core.slot_field("=I", self.slot, 0) == 0


@dataclass
class PlayedCore:
    """A running core, and the other ends of its sockets."""

    folder: Path
    limits: str = ""
    pool_limits: str = ""
    capacity: int = 4
    change_pool: Callable[[dict[str, Any]], None] | None = None  #: adjusts the pool of the plan
    was_cut_off: bool = False  #: by drain_timeout, so that slots may still be taken at its end
    lines: list[str] = field(default_factory=list)  #: sentences of its log
    messages: list[Message] = field(default_factory=list)  #: what came on the control channel, but for logs

    def start(self) -> None:
        """Until it is ready."""
        config = self.folder / "config.yaml"
        config.write_text(CONFIG.format(limits=self.limits, pool_limits=self.pool_limits))
        plan = build("played", load_file(config)).plan
        (pool,) = plan["pools"]
        if self.change_pool is not None:
            self.change_pool(pool)
        self.links = _segments.Links(POOL, pool["slots"], 1)
        self.links.segment.set_generation(GENERATION)
        self.executor_fds = self.links.executor_fds()
        self.queue = socket.socket(fileno=os.dup(self.executor_fds["queue"]))
        self.answers = socket.socket(fileno=os.dup(self.executor_fds["answer:0"]))
        self.memory = self.links.segment._memory
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.access_log = self.folder / "access.log"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(PATIENCE_S)
        self.control_socket = ours
        self.channel = Channel(ours)
        errors = (self.folder / "stderr").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "appserver.native.core_main", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": str(TOP), **sanitizer_environment()},
        )
        theirs.close()
        errors.close()
        self.channel.send("capacity", pool=POOL, capacity=self.capacity, stream_bodies=True, upgrades=True)
        self._configure(plan)
        while self._message().type != "ready":
            pass
        self.fds_before = self.count_fds()

    def _configure(self, plan: dict[str, Any]) -> None:
        plan_fd = os.memfd_create("plan")
        os.write(plan_fd, json.dumps(plan).encode())
        log_fd = os.open(self.access_log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        fds = {"plan": plan_fd, "access-log": log_fd, "listener:here": self.listener.fileno(), **self.links.core_fds()}
        self.channel.send("start", fds, listeners=["here"], generation=GENERATION, loops=1, accept="self-managed")
        os.close(plan_fd)
        os.close(log_fd)

    def _message(self) -> Message:
        message = self.channel.receive()
        assert message is not None, f"the core has ended: {self.stderr()}"
        if message.type == "log":
            self.lines.append(message.text("event"))
        else:
            self.messages.append(message)
        message.close_fds()
        return message

    def take_messages(self) -> None:
        """Those that are there."""
        self.control_socket.setblocking(False)
        try:
            while True:
                self._message()
        except BlockingIOError:
            self.control_socket.settimeout(PATIENCE_S)

    def wait_for_log(self, text: str) -> str:
        """The first sentence of the log that contains `text`."""

        def look() -> str | None:
            try:
                self.take_messages()
            except AssertionError:  # it has ended: what it said before counts
                if not any(text in line for line in self.lines):
                    raise
            return next((line for line in self.lines if text in line), None)

        found: str = wait_for(look, f"{text!r} in the log")
        return found

    def wait_for_message(self, kind: str) -> Message:
        """The first message of that type."""

        def look() -> Message | None:
            self.take_messages()
            return next((message for message in self.messages if message.type == kind), None)

        found: Message = wait_for(look, f"a message {kind}")
        return found

    def stderr(self) -> str:
        """What the process wrote there."""
        return (self.folder / "stderr").read_text()

    def access_lines(self, count: int) -> list[dict[str, Any]]:
        """The lines of the access log, once there are `count`."""
        found: list[str] = wait_for(
            lambda: (lines := self.access_log.read_text().splitlines()) and len(lines) >= count and lines,
            f"{count} line(s) in the access log",
        )
        return [json.loads(line) for line in found][-count:]

    # Clients

    def connect(self) -> Connection:
        """A client's connection."""
        return Connection(self.port)

    def fill(self, sock: socket.socket, limit: int = 64 << 20) -> int:
        """Sends through the core to somebody who does not read, until nothing goes any more; what went."""
        sent = 0

        def is_full() -> bool:
            nonlocal sent
            try:
                while sent < limit:
                    sent += sock.send(b"x" * 65536)
            except BlockingIOError:
                # Who has something to do for it does not sleep.
                return state_of_threads(self.process.pid) == {"S"} and not select.select([], [sock], [], 0)[1]
            raise AssertionError(f"{sent} bytes went that nobody reads")

        sock.setblocking(False)
        try:
            wait_for(is_full, "the whole way is full")
        finally:
            sock.settimeout(PATIENCE_S)
        return sent

    # Executors

    def receive(self, *, run: bool = True) -> PlayedRequest:
        """The next request, marked as running unless `run` is false."""
        self.queue.settimeout(PATIENCE_S)
        data, fds, _, _ = socket.recv_fds(self.queue, wire.DATAGRAM_MAX, 4)
        ((slot, loop, request_id, flags, start, middle, end),) = wire.split_requests(data, len(data))
        assert len(fds) == bool(flags & wire.FD_FLAGS)
        body_len = wire.REQUEST.unpack_from(data)[9]
        request = PlayedRequest(
            self,
            slot,
            loop,
            request_id,
            flags,
            body_len,
            wire.environment(data[start:middle]),
            data[middle:end],
            fds[0] if fds else -1,
        )
        if run:
            self.mark(request)
        return request

    def mark(self, request: PlayedRequest, executor: int = EXECUTOR) -> None:
        """As an executor does with what it has received."""
        at = HEADER_SIZE + SLOT_SIZE * request.slot
        struct.pack_into("=Q", self.memory, at + 24, time.monotonic_ns())
        struct.pack_into("=III", self.memory, at, STATE_RUNNING, executor, 0)

    def has_request(self) -> bool:
        """Whether a request waits to be received."""
        self.queue.setblocking(False)
        try:
            return bool(self.queue.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    def die(self, executor: int = EXECUTOR) -> None:
        """What the supervisor says of an executor that has died."""
        self.channel.send("executor-died", pool=POOL, executor=executor)

    def send_answer(self, loop: int, frame: bytes, fd: int) -> None:
        """One datagram to the core."""
        assert loop == 0
        if fd >= 0:
            socket.send_fds(self.answers, [frame], [fd])
        else:
            self.answers.send(frame)

    def slot_field(self, form: str, slot: int, offset: int) -> int:
        """A field of a slot's record."""
        value: int = struct.unpack_from(form, self.memory, HEADER_SIZE + SLOT_SIZE * slot + offset)[0]
        return value

    # The end

    def count_fds(self) -> int:
        """Descriptors of the core."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def memory_kib(self) -> int:
        """Resident memory of the core."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def drain(self, timeout_ms: int = 60_000) -> None:
        """Tells it to stop, and waits until it has begun: its only loop has closed the listening socket."""
        self.listener.close()
        self.channel.send("drain", timeout_ms=timeout_ms)
        wait_for(lambda: not accepts(self.port), "the core no longer accepts")

    def finish(self) -> None:
        """Looks it over, and ends it."""
        if self.process.poll() is None and self.listener.fileno() >= 0:
            wait_for(lambda: self.count_fds() <= self.fds_before, "the core has leaked descriptors")
            self.drain()
        assert self.process.wait(PATIENCE_S) == 0, self.stderr()
        assert "Sanitizer" not in self.stderr() and "runtime error" not in self.stderr(), self.stderr()
        assert self.was_cut_off or not self.links.segment.busy(), "slots are still taken"

    def close(self) -> None:
        """Gives everything back."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.channel.close()
        self.queue.close()
        self.answers.close()
        self.listener.close()
        self.links.close()


@contextmanager
def playing(folder: Path, **options: Any) -> Iterator[PlayedCore]:
    """A core for one test or for a module's, with all the checks at its end."""
    core = PlayedCore(folder, **options)
    core.start()
    try:
        yield core
        core.finish()
    finally:
        core.close()
