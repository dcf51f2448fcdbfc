"""An executor that speaks the protocol and dies where it is told to; run in place of a worker's Python interpreter.

`/?name=N&at=POINT&how=kill|stop&times=T`: the first T executors that come to POINT with the request N get SIGKILL or
SIGSTOP there. The points, in order: `received` (and its slot not marked), `marked`, `ran` (it has written a line to
the file `runs`), `streaming` (part of a streamed body is out), `answered`. Any other request is answered with its name.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from appserver.workers import wire
from appserver.workers.control import Control, ControlClosedError

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class FakeExecutor:
    """One thread, one request at a time."""

    def __init__(self, control: Control) -> None:
        self.control = control
        message, fds = control.receive()
        self.number = message["executor"]
        self.folder = Path(message["configuration"]["directory"])
        self.queue = socket.socket(fileno=fds["queue"])
        self.slots = mmap.mmap(fds["slots"], 0)
        self.answers = [socket.socket(fileno=fds[f"answer:{loop}"]) for loop in range(message["loops"])]

    def run(self) -> None:
        """Until told to stop."""
        self.control.send("ready")
        while True:
            ready, _, _ = select.select([self.control, self.queue], [], [])
            if self.control in ready:
                return
            data, fds, _, _ = socket.recv_fds(self.queue, wire.DATAGRAM_MAX, 1)
            if not data:
                return
            for fd in fds:
                os.close(fd)
            for slot, loop, request_id, _, start, middle, _ in wire.split_requests(data, len(data)):
                self.serve(slot, loop, request_id, wire.environment(memoryview(data)[start:middle]))

    def serve(self, slot: int, loop: int, request_id: int, environment: dict[str, str]) -> None:
        query = {name: values[0] for name, values in parse_qs(environment["QUERY_STRING"]).items()}
        name = query["name"]
        self.fault("received", query)
        if not self.mark(slot, request_id):
            return  # the core has given it up
        self.fault("marked", query)
        self.append("runs", f"{name} {os.getpid()}\n")
        self.fault("ran", query)
        if query.get("at") == "streaming":
            read_end, write_end = os.pipe()
            frame = wire.answer(wire.STREAM, slot, request_id, 200, body_len=wire.STREAM_UNKNOWN)
            socket.send_fds(self.answers[loop], [frame], [read_end])
            os.write(write_end, b"the beginning")
            self.fault("streaming", query)
        self.answers[loop].send(wire.answer(wire.RESPONSE, slot, request_id, 200, body=name.encode()))
        self.fault("answered", query)

    def mark(self, slot: int, request_id: int) -> bool:
        at = wire.SLOT_HEADER_LEN + slot * wire.SLOT_LEN
        if struct.unpack_from("=Q", self.slots, at + 16)[0] != request_id:
            return False
        struct.pack_into("=I", self.slots, at + 4, self.number)
        struct.pack_into("=Q", self.slots, at + 24, time.monotonic_ns())
        struct.pack_into("=I", self.slots, at, 2)
        return True

    def fault(self, point: str, query: dict[str, str]) -> None:
        if query.get("at") != point:
            return
        count = self.append(f"faults.{query['name']}", f"{os.getpid()}\n")
        if count <= int(query.get("times", "1")):
            os.kill(os.getpid(), SIGNALS[query["how"]])

    def append(self, name: str, line: str) -> int:
        """Adds a line to a file that all executors share; how many it has then."""
        with (self.folder / name).open("a+") as file:
            file.write(line)
            file.flush()
            file.seek(0)
            return len(file.readlines())


if __name__ == "__main__":
    try:
        FakeExecutor(Control(int(sys.argv[-1]))).run()
    except ControlClosedError:
        sys.exit(0)
