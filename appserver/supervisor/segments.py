"""What joins the core and the executors of a pool: queue, answer sockets, slot segment (docs/executor-protocol.md 1
and 5).

The supervisor makes them before it starts anybody and keeps all ends, so a core or an executor can be replaced
without the other side noticing. A pool's links are never given up while the server runs: the core has no way to let
go of a pool.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import struct
from dataclasses import dataclass

SLOT_MAGIC = 0x534C4F54
SLOT_VERSION = 1
HEADER = struct.Struct("=IIIII")  #: magic, version, slots, loops, generation
HEADER_SIZE = 64
GENERATION_OFFSET = 16
STOPPING_OFFSET = 20
#: state, executor, thread, process, request_id, start_ns, deadline_ns, cancelled, log_id; behind them arrived_ns
SLOT = struct.Struct("=IIIiQQQI4xQ")
SLOT_SIZE = 64
ARRIVED_OFFSET = 56
STATE_FREE = 0
STATE_QUEUED = 1
STATE_RUNNING = 2
#: Wanted; without CAP_NET_ADMIN the kernel gives net.core.wmem_max at most. The queue is where requests wait.
SEND_BUFFER = 4 * 1024 * 1024
SO_SNDBUFFORCE = 32  #: not in the socket module
#: How often an executor that waits for a request looks whether it was told to stop: a reload waits for that.
RECEIVE_TIMEOUT_MS = 200


@dataclass(frozen=True, slots=True)
class Held:
    """A request that an executor holds, as its slot says."""

    log_id: int  #: the request, as the logs name it
    thread: int
    process: int  #: process group of a CGI program, or 0
    request_id: int = 0  #: of this sending
    cancelled: bool = False  #: nobody waits for its answer any more


class Segment:
    """The slot segment: shared memory with a record for each request that is inside an executor. Raises OSError."""

    def __init__(self, name: str, slots: int, loops: int) -> None:
        size = HEADER_SIZE + slots * SLOT_SIZE
        self.slots = slots
        self.fd = os.memfd_create(f"slots-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        # An executor that cut it short would take the core down with it.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(self.fd, size)
        HEADER.pack_into(self._memory, 0, SLOT_MAGIC, SLOT_VERSION, slots, loops, 0)

    def set_generation(self, generation: int) -> None:
        """Of the core that is about to run."""
        struct.pack_into("=I", self._memory, GENERATION_OFFSET, generation)

    def set_stopping(self) -> None:
        """The core is about to be told to drain: what ends from now on is ended by us."""
        struct.pack_into("=I", self._memory, STOPPING_OFFSET, 1)

    def held_by(self, executor: int) -> list[Held]:
        """What this executor is running."""
        found = []
        for at in range(HEADER_SIZE, HEADER_SIZE + self.slots * SLOT_SIZE, SLOT_SIZE):
            state, owner, thread, process, request_id, _, _, cancelled, log_id = SLOT.unpack_from(self._memory, at)
            if owner == executor and state == STATE_RUNNING:
                found.append(Held(log_id, thread, process, request_id, cancelled != 0))
        return found

    def busy(self) -> int:
        """Slots that are not free."""
        offsets = range(HEADER_SIZE, HEADER_SIZE + self.slots * SLOT_SIZE, SLOT_SIZE)
        return sum(struct.unpack_from("=I", self._memory, at)[0] != STATE_FREE for at in offsets)

    def load(self) -> tuple[int, int]:
        """Requests that wait in the queue, and those that executors have."""
        states = self._column("I", 0)
        return states.count(STATE_QUEUED), states.count(STATE_RUNNING)

    def oldest_queued_ns(self) -> int:
        """When the first of those came that wait in the queue, on CLOCK_MONOTONIC; 0 when nobody waits."""
        pairs = zip(self._column("I", 0), self._column("Q", ARRIVED_OFFSET), strict=True)
        return min((arrived for state, arrived in pairs if state == STATE_QUEUED), default=0)

    def _column(self, kind: str, offset: int) -> list[int]:
        """One field of all records: words or long words at `offset`."""
        with memoryview(self._memory) as whole, whole.cast(kind) as cells:  # type: ignore[call-overload]
            size = cells.itemsize
            end = (HEADER_SIZE + self.slots * SLOT_SIZE) // size
            found: list[int] = cells[(HEADER_SIZE + offset) // size : end : SLOT_SIZE // size].tolist()
        return found

    def queue(self, slot: int, request_id: int) -> None:
        """What the core does before it sends a request."""
        SLOT.pack_into(
            self._memory, HEADER_SIZE + slot * SLOT_SIZE, STATE_QUEUED, 0, 0, 0, request_id, 0, 0, 0, request_id
        )

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)


class Links:
    """All descriptors of one pool. Raises OSError when they cannot be made."""

    def __init__(self, name: str, slots: int, loops: int) -> None:
        self.name = name
        self._stack = contextlib.ExitStack()
        try:
            self.segment = Segment(name, slots, loops)
            self._stack.callback(self.segment.close)
            self._queue = self._pair()
            self._answers = [self._pair() for _ in range(loops)]
        except BaseException:
            self._stack.close()
            raise
        core_end, executors_end = self._queue
        _enlarge(core_end)
        timeout = struct.pack("@ll", 0, RECEIVE_TIMEOUT_MS * 1000)
        executors_end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        for _, executors_end in self._answers:
            _enlarge(executors_end)

    def core_socket(self, name: str) -> socket.socket:
        """The core's end that has this name in :meth:`core_fds`, for whoever plays the core itself."""
        if name == f"queue:{self.name}":
            return self._queue[0]
        return self._answers[int(name.rpartition(":")[2])][0]

    def core_fds(self) -> dict[str, int]:
        """By the names of the messages `start` and `apply`."""
        named = {f"queue:{self.name}": self._queue[0].fileno(), f"slots:{self.name}": self.segment.fd}
        answers = {f"answer:{self.name}:{loop}": pair[0].fileno() for loop, pair in enumerate(self._answers)}
        return named | answers

    def executor_fds(self) -> dict[str, int]:
        """By the names of an executor's message `start`."""
        answers = {f"answer:{loop}": pair[1].fileno() for loop, pair in enumerate(self._answers)}
        return {"queue": self._queue[1].fileno(), "slots": self.segment.fd, **answers}

    def hang_up(self) -> None:
        """Tells the executors at once that no request will come any more. For good."""
        with contextlib.suppress(OSError):
            self._queue[0].shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._stack.close()

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        """The core's end and the executors' end."""
        core_end, executors_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stack.callback(core_end.close)
        self._stack.callback(executors_end.close)
        return core_end, executors_end


def _enlarge(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
