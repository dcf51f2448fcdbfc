"""The executor: receives requests, marks their slots, runs them, answers.

Threads: the main thread imports the application and then waits on the control channel; T request threads block in ``recvmsg`` on the pool's queue, which
gives each datagram to exactly one receiver. A thread answers a whole batch in one send, or earlier when the batch has taken longer than BATCH_NS.
"""

import array
import faulthandler
import mmap
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any, Dict, List, Optional

from . import script, wire, wsgi
from .control import Control

BATCH_NS = 500_000  #: an answer waits for the rest of its batch no longer than this
EXIT_BOOT = 3  #: could not boot: the application does not import
EXIT_PROTOCOL = 70
ANCILLARY = socket.CMSG_SPACE(array.array("i").itemsize)
MSG_CMSG_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0x40000000)


class Sockets:
    """What all request threads share: the queue, the answer sockets by loop, the slot segment."""

    def __init__(self, fds: Dict[str, int], loops: int) -> None:
        self.queue = socket.socket(fileno=fds["queue"])
        # SO_RCVTIMEO ends a wait; Python must not add a poll of its own, so its side stays "blocking".
        self.queue.setblocking(True)
        self.answers = [socket.socket(fileno=fds[f"answer:{loop}"]) for loop in range(loops)]
        for each in self.answers:
            each.setblocking(True)
        self.slots = mmap.mmap(fds["slots"], 0)
        os.close(fds["slots"])


class Outbox:
    """The answers of one thread to one batch: gathered, then sent in one datagram."""

    def __init__(self, answers: List[socket.socket]) -> None:
        self._answers = answers
        self._frames: List[bytes] = []
        self._size = 0
        self._socket = answers[0]

    def open(self, loop: int) -> None:
        """What follows goes to this loop."""
        self._socket = self._answers[loop]

    def add(self, frame: bytes) -> None:
        """Queues a frame without descriptor."""
        if self._size + len(frame) > wire.DATAGRAM_MAX:
            self.flush()
        self._frames.append(frame)
        self._size += len(frame)

    def flush(self) -> None:
        """Sends what is queued."""
        if not self._frames:
            return
        data = self._frames[0] if len(self._frames) == 1 else b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        self._socket.send(data)

    def send_fd(self, frame: bytes, fd: int) -> None:
        """Sends a frame with its descriptor, behind what was queued. The descriptor stays the caller's."""
        self.flush()
        self._socket.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])


class Worker:
    """One executor process."""

    def __init__(self, start: Dict[str, Any], fds: Dict[str, int], control: Control) -> None:
        self.executor: int = start["executor"]
        self.threads: int = start["threads"]
        self.control = control
        self.sockets = Sockets(fds, start["loops"])
        self.stopping = threading.Event()
        self.runner = wsgi.Runner(control, start["configuration"], threads=self.threads, applications=script.Applications(control, start["configuration"]))
        self._exit_status = 0

    def serve(self, thread: int) -> None:
        """A request thread's life."""
        buffer = bytearray(wire.DATAGRAM_MAX)
        view = memoryview(buffer)
        outbox = Outbox(self.sockets.answers)
        receive = self.sockets.queue.recvmsg_into
        while True:
            try:
                size, ancillary, _flags, _address = receive([buffer], ANCILLARY, MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                if self.stopping.is_set():
                    return
                continue
            except ConnectionError:
                return
            if size == 0:
                return
            fd = _descriptor(ancillary) if ancillary else -1
            try:
                self._run_batch(wire.split(view[:size]), fd, thread, outbox)
            except ConnectionError:
                return
            except wire.BadFrame as problem:
                self.control.log("error", f"the core sent a malformed frame: {problem}")
                os._exit(EXIT_PROTOCOL)
            if self.stopping.is_set():
                return

    def _mark(self, frames: List[wire.Frame], thread: int) -> None:
        slots = self.sockets.slots
        now = time.monotonic_ns()
        for frame in frames:
            at = wire.SLOT_HEADER + frame.slot * wire.SLOT_SIZE
            wire.SLOT_MARK.pack_into(slots, at + 4, self.executor, thread)
            wire.SLOT_START.pack_into(slots, at + 24, now)
            wire.SLOT_STATE.pack_into(slots, at, wire.SLOT_RUNNING)

    def _unwanted(self, frame: wire.Frame) -> bool:
        slots = self.sockets.slots
        at = wire.SLOT_HEADER + frame.slot * wire.SLOT_SIZE + 40
        generation: int = wire.SLOT_STATE.unpack_from(slots, wire.GENERATION_OFFSET)[0]
        return wire.SLOT_STATE.unpack_from(slots, at)[0] != 0 or frame.request_id >> 48 != generation & 0xFFFF

    def _run_batch(self, frames: List[wire.Frame], fd: int, thread: int, outbox: Outbox) -> None:
        self._mark(frames, thread)
        received = time.perf_counter_ns()
        for frame in frames:
            outbox.open(frame.loop)
            if self._unwanted(frame):
                if fd >= 0:
                    os.close(fd)
                outbox.add(wire.answer(wire.SKIPPED, frame.slot, frame.request_id))
                continue
            self.runner.run(frame, fd if frame.body_in_fd else -1, outbox)
            if time.perf_counter_ns() - received > BATCH_NS:
                outbox.flush()
        outbox.flush()

    def run(self) -> int:
        """Serves until told to stop or until the core's side is closed; the process's exit status."""
        threads = [threading.Thread(target=self.serve, args=(number,), name=f"request-{number}") for number in range(self.threads)]
        for thread in threads:
            thread.start()
        watcher = threading.Thread(target=self._watch_control, name="control", daemon=True)
        watcher.start()
        for thread in threads:
            thread.join()
        return self._exit_status

    def _watch_control(self) -> None:
        while True:
            message = self.control.receive()
            if message is None or message[0].get("type") == "stop":
                self.stopping.set()
                return


def _descriptor(ancillary: List[Any]) -> int:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    for extra in fds[1:]:
        os.close(extra)
    return fds[0] if fds else -1


def prepare_process(configuration: Dict[str, Any]) -> None:
    """Working directory, import path, environment, output: before the application's first line runs."""
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(configuration.get("environment") or {})
    directory = configuration.get("directory")
    if directory:
        os.chdir(directory)
        sys.path.insert(0, directory)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True, errors="backslashreplace")


def boot(control: Control) -> Optional[Worker]:
    """Waits for `start` and loads the application; None when that failed (the supervisor knows why then)."""
    received = control.receive()
    if received is None:
        return None
    start, fds = received
    named = dict(zip(start["fds"], fds))
    try:
        prepare_process(start["configuration"])
        worker = Worker(start, named, control)
        worker.runner.applications.load()
        return worker
    except BaseException as problem:  # SystemExit of an application that calls sys.exit() at import is a failure like others
        reason = f"{type(problem).__name__}: {problem}"
        control.send({"type": "failed", "reason": reason, "traceback": traceback.format_exc()})
        return None


def main(control_fd: int) -> int:
    """The process; its exit status."""
    os.set_inheritable(control_fd, False)
    control = Control(control_fd)
    worker = boot(control)
    if worker is None:
        return EXIT_BOOT
    signal.signal(signal.SIGTERM, lambda _number, _frame: worker.stopping.set())
    control.send({"type": "ready"})
    return worker.run()
