"""The threads that take requests from the pool's queue, run them, and send the answers.

Design. All threads of all workers receive from one socket, and the kernel gives each datagram to one of them. Inside a
process, though, threads take turns at the interpreter: while requests are short, a second thread that receives only
makes the two wake each other at every system call. So a *baton* goes round: its holder receives and runs what it got;
the others wait. As soon as runs are long enough for a second thread to be worth it (SHORT_RUN_NS on average) the holder
passes the baton on before it runs. And when a request that was expected to be short is not, the monitor (the main
thread, every TICK_S while something runs) takes the baton, the answers that wait for company and the rest of the batch
from the holder and gives them to others. Interpreters without a global lock do not need a baton: every thread has one.

Guarantees. Each frame of a batch is marked in the slot segment before the first one is run. An answer is never
dropped silently. Threads share only: `handoff` (a queue written in C), each runner's deques (whose `append` and
`popleft` are atomic) and plain integers.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
import threading
import time
from collections import deque
from queue import SimpleQueue
from time import monotonic_ns, thread_time_ns
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Dict,
    List,
    Optional,
    Protocol,
    Sequence,
    Set,
    Tuple,
    Union,
)

from . import forks, watchdog, wire
from .buffers import Buffers
from .interpreter import MSG_CMSG_CLOEXEC, collect_when_idle, has_global_lock

if TYPE_CHECKING:
    from .exchange import Exchange

SHORT_RUN_NS = 300_000  #: up to this average, requests of a process run one after the other
ANSWER_DELAY_NS = 500_000  #: an answer waits no longer than this for others of its datagram
CPU_STALE_NS = 1_000_000  #: so long a thread's CPU time is not asked for again: it costs a tenth of a short request
ANSWER_BATCH = 64 * 1024  #: bytes of answers in one datagram
TICK_S = 0.005
SHED_S = 1.0  #: how often an executor without a request looks whether its buffers have come back
IDLE_TICKS = 20  #: ticks without a running request until the monitor rests
LONGEST_SAMPLE_NS = 100_000_000  #: one long run must not count for ever
SEND_PATIENCE_S = 5.0  #: how long a send is tried again when the kernel lacks memory
RETRIED_ERRNOS = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS, errno.EAGAIN)
STATUS_BROKEN_CORE = 70  #: exit status after a malformed frame
STATUS_BROKEN_WORKER = 1

_ANCILLARY_LEN = socket.CMSG_SPACE(4 * struct.calcsize("i"))


class Baton:
    """Its holder may receive."""


#: A request that has been received and marked, and not yet run: slot, loop, request id, environment, body, descriptor
#: (-1: none) and the frame's flags, which say what it is.
Item = Tuple[int, int, int, Dict[str, Any], bytes, int, int]
Log = Callable[..., None]
#: Numbers that are added to; in shared memory when somebody else is to read them.
Counts = Union["memoryview[int]", List[int]]
Handoff = Union[Baton, Item, None]


class Server(Protocol):
    """What runs a request."""

    def serve(self, runner: Runner, item: Item) -> None:
        """Answers one request. Raises nothing that is the application's fault."""

    def report(self, exchange: Exchange, level: str, event: str, **fields: Any) -> None:
        """Logs something about a request."""


class Slots:
    """The slot segment. Every store is one aligned machine word, so the core never reads half a field."""

    def __init__(self, fd: int, executor: int) -> None:
        self._map = mmap.mmap(fd, 0)
        magic, version, slots, _, _ = wire.SLOT_HEADER.unpack_from(self._map)
        if magic != wire.SLOT_MAGIC or version != wire.SLOT_VERSION:
            raise wire.FrameError("not a slot segment")
        if len(self._map) < wire.SLOT_HEADER_LEN + slots * wire.SLOT_LEN:
            raise wire.FrameError("the slot segment is too short")
        self.count: int = slots
        self.longs = memoryview(self._map).cast("Q")
        self.ints = memoryview(self._map).cast("I")
        # State and executor number are neighbours, so one store sets both.
        self._running: int = struct.unpack("=Q", struct.pack("=II", 2, executor))[0]
        self._threads = [struct.unpack("=Q", struct.pack("=II", number, 0))[0] for number in range(1024)]

    @property
    def generation(self) -> int:
        """Of the running core."""
        return self.ints[4]

    @property
    def stopping(self) -> bool:
        """The whole server stops."""
        return self.ints[5] != 0

    def mark(self, slot: int, thread: int, now_ns: int, request_id: int) -> bool:
        """Says that `thread` of this executor has the request of `slot`.

        False: the core has given that request up (it takes whoever received it for dead), and the slot is another's.
        """
        longs = self.longs
        at = 8 + 8 * slot
        if longs[at + 2] != request_id:
            return False
        longs[at + 1] = self._threads[thread]
        longs[at + 3] = now_ns
        longs[at] = self._running
        return True

    def is_cancelled(self, slot: int) -> bool:
        return self.ints[16 + 16 * slot + 10] != 0

    def is_over(self, slot: int, request_id: int) -> bool:
        """Whether nobody waits for the answer to this request any more, also when the slot is another one's by now."""
        at = 8 + 8 * slot
        return self.ints[16 + 16 * slot + 10] != 0 or self.longs[at + 2] != request_id or self.ints[2 * at] != 2

    def close(self) -> None:
        """When no thread uses it any more."""
        self.ints.release()
        self.longs.release()
        self._map.close()


class Executor:
    """All request threads of a worker. Made, started and stopped by the main thread."""

    def __init__(
        self,
        queue: socket.socket,
        slots: Slots,
        answers: Sequence[socket.socket],
        threads: int,
        server: Server,
        log: Log,
        wake: Callable[[], None],
        stats: Optional[Counts] = None,
    ) -> None:
        """`wake` makes the main thread call `monitor()`, again after `rest_s()`, and look at `stopping`.
        `stats`: word N counts the requests that thread N has received; an event loop is one more thread.
        """
        self.queue = queue
        self.slots = slots
        self.answers = answers
        self.server = server
        self.log = log
        self.wake = wake
        self.stats: Counts = [0] * (threads + 1) if stats is None else stats
        self.stopping = False
        self.stop_time_s = 0.0  #: what is held may take so long after `stopping`; 0: nobody has said
        self.restarting = False  #: after `stopping`: others take over
        self.exit_status = 0
        self.monitored = False  #: whether the main thread is ticking
        self.in_child = False  #: whether this is the copy of it in a process that a handler forked
        self.ran: Set[str] = set()  #: scripts whose requests were begun; the main thread takes the whole set
        self.request_time_ns = 0  #: what a request may take; 0 for no limit
        self._idle = 0  #: ticks since a request was last seen
        self.run_ns = 0  #: average run time of the last requests
        self.all_receive = threads == 1 or not has_global_lock()
        self.handoff: SimpleQueue[Handoff] = SimpleQueue()
        self.buffers = Buffers(wake)
        self.runners = [Runner(self, number) for number in range(threads)]

    def start(self) -> None:
        forks.guard(self)
        if not self.all_receive:
            self.handoff.put(Baton())
        for runner in self.runners:
            runner.start()

    def stop(self, status: int = 0) -> None:
        """Every thread ends when it has finished what it holds. Any thread; the first status that is not 0 counts."""
        self.exit_status = self.exit_status or status
        self.stopping = True
        for runner in self.runners:
            runner.stop()
        self.wake()

    def is_running(self) -> bool:
        return any(runner.thread.is_alive() for runner in self.runners)

    def rest_s(self) -> Optional[float]:
        """Main thread: how long until `monitor` is to be called again; None: when `wake` says so."""
        if self.monitored:
            return TICK_S
        return SHED_S if self.buffers else None

    def join(self) -> None:
        for runner in self.runners:
            runner.thread.join()
        self.buffers.close()

    def tick(self) -> bool:
        """Main thread: relieves runners that are stuck in a request. False when nothing runs."""
        active = False
        for runner in self.runners:
            since = runner.since
            if since:
                active = True
                if since == runner.seen:
                    runner.relieve()
            runner.seen = since
        return active

    def interrupt(self, thread: int, request_id: int) -> bool:
        """Main thread: raises RequestTimeout in that thread if it still runs that request."""
        return 0 <= thread < len(self.runners) and self.runners[thread].interrupt(request_id)

    def is_idle(self) -> bool:
        """No request is held."""
        return not any(runner.since or runner.held for runner in self.runners)

    def monitor(self) -> None:
        """Main thread: one tick, and rest when there was nothing for some time."""
        if self.buffers and not self.monitored and self.is_idle():
            self.buffers.shed()
        self._idle = 0 if self.tick() else self._idle + 1
        if self._idle > IDLE_TICKS and self.monitored:
            self.monitored = False
            # A request that began before the flag was cleared relied on it.
            self.monitored = self.tick()
            if not self.monitored:
                collect_when_idle()

    def learn(self, sample_ns: int) -> None:
        """Follows slow runs fast and fast runs slowly, as the core does for its batches."""
        difference = min(sample_ns, LONGEST_SAMPLE_NS) - self.run_ns
        self.run_ns += difference >> 2 if difference > 0 else difference >> 4


class Runner:
    """One request thread. Attributes are its own unless said otherwise."""

    RECEIVE_FLAGS = MSG_CMSG_CLOEXEC
    _environment: Callable[[memoryview], Any] = staticmethod(wire.environment)

    def __init__(self, executor: Executor, number: int) -> None:
        self.executor = executor
        self.number = number
        self.thread = threading.Thread(target=self._main, name=f"request-{number}", daemon=True)
        self.now = 0  #: the last time that was looked at, CLOCK_MONOTONIC ns
        self.cpu = 0  #: CPU that this thread had taken when that was last asked for, ns
        self.cpu_at = 0  #: when that was
        self.since = 0  #: when the request that runs was begun, 0 for none; read by the monitor
        self.running = 0  #: id of the request that runs, 0 for none; read by the main thread
        self.interrupting = watchdog.IDLE  #: by the main thread; see watchdog.interrupt()
        self.deadline = 0.0  #: of the requests at hand, in seconds of CLOCK_MONOTONIC; when there is a limit
        self.held = 0  #: requests that wait for something, in an event loop
        self.seen = 0  #: the monitor's: `since` at its last tick
        self.items: Deque[Item] = deque()  #: the rest of the batch; the monitor may take from it
        self.out: Deque[Tuple[int, bytes]] = deque()  #: loop and frame of answers to send; the monitor may take from it
        self._batons: List[Baton] = [Baton()] if executor.all_receive else []  #: at most one; the monitor may take it
        self._buf = bytearray(wire.DATAGRAM_MAX)
        self._view = memoryview(self._buf)

    def start(self) -> None:
        """Main thread."""
        self.thread.start()

    def stop(self) -> None:
        """Any thread: it ends when it has finished what it holds. One of these reaches each thread of the executor."""
        self.executor.handoff.put(None)

    # The thread

    def _main(self) -> None:
        try:
            while self._turn():
                pass
        except wire.FrameError as error:
            self.executor.log("error", "malformed request frame: the worker ends", error=str(error))
            self.executor.stop(STATUS_BROKEN_CORE)
        except BaseException as error:
            self.executor.log("error", "request thread failed: the worker ends", error=repr(error))
            self.executor.stop(STATUS_BROKEN_WORKER)
        finally:
            self.executor.wake()

    def _turn(self) -> bool:
        """Gets the baton or a request that another thread could not come to, then works. False at the end."""
        executor = self.executor
        if not self._batons:
            got = executor.handoff.get()
            if got is None:
                return False
            if isinstance(got, tuple):
                self.now = monotonic_ns()
                self.deadline = (self.now + executor.request_time_ns) * 1e-9
                executor.slots.mark(got[0], self.number, self.now, got[2])
                self.items.append(got)
                self._run_all(self.now)
                return True
            self._batons.append(got)
        if executor.stopping:
            return False
        try:
            more = self._receive()
        except BlockingIOError:  # the queue's receive timeout
            return not executor.stopping
        except ConnectionError:
            executor.stop()
            return False
        if not more:
            return False
        if executor.stopping:
            # It came while this thread was already meant to go, into an old version of the application: another
            # executor takes it.
            self._hand_back()
            return False
        self._work()
        return True

    def _work(self) -> None:
        executor = self.executor
        received_ns = self.now
        count = len(self.items)
        executor.stats[self.number] += count
        if executor.run_ns > SHORT_RUN_NS:
            self._pass_baton()
        self.since = received_ns  # before the flag is read: the monitor clears that first and then looks here again
        if not executor.monitored and (count > 1 or self._batons):
            executor.monitored = True
            executor.wake()
        self._run_all(received_ns)
        if count:
            executor.learn((self.now - received_ns) // count)

    def _run_all(self, received_ns: int) -> None:
        executor = self.executor
        items, out = self.items, self.out
        ints, serve = executor.slots.ints, executor.server.serve
        generation = ints[4]
        flushed_ns = received_ns
        while items:
            try:
                item = items.popleft()
            except IndexError:  # the monitor was faster
                break
            self.since = self.now
            if ints[26 + 16 * item[0]] or item[2] >> 48 != generation:
                self._skip(item)
            else:
                try:
                    self.running = item[2]
                    serve(self, item)
                    self.running = 0
                    if self.interrupting:
                        watchdog.settle(self)
                except watchdog.RequestTimeout:  # on the way out of the application
                    watchdog.settle(self)
                    self.out.append((item[1], wire.answer(wire.RESPONSE, item[0], item[2], 500)))
            if out and (not items or self.now - flushed_ns > ANSWER_DELAY_NS):
                self.flush()
                flushed_ns = self.now
        self.since = 0

    def _hand_back(self) -> None:
        while self.items:
            self._skip(self.items.popleft())
        self.flush()

    def _skip(self, item: Item) -> None:
        """It was cancelled before it began, or is of a core that has gone, or came too late."""
        slot, loop, request_id, _, _, body_fd, _ = item
        frame = wire.answer(wire.SKIPPED, slot, request_id)
        if body_fd < 0:
            self.out.append((loop, frame))
            return
        # Unread, so that another executor gets all of a stream.
        self.send_with_fd(loop, frame, body_fd)
        os.close(body_fd)

    # Receiving

    def _receive(self) -> bool:
        """Fills `items` from one datagram; False when the core side has gone. Raises BlockingIOError, FrameError."""
        size, ancillary, flags, _ = self.executor.queue.recvmsg_into([self._view], _ANCILLARY_LEN, self.RECEIVE_FLAGS)
        if not size:
            self.executor.stop()
            return False
        now = self.now = monotonic_ns()
        self.deadline = (now + self.executor.request_time_ns) * 1e-9
        if now - self.cpu_at > CPU_STALE_NS:
            self.cpu, self.cpu_at = thread_time_ns(), now
        fd = _take_fd(ancillary) if ancillary else -1
        try:
            self._take_frames(size, flags, fd, now)
        except wire.FrameError:
            if fd >= 0:
                os.close(fd)
            raise
        return True

    def _take_frames(self, size: int, flags: int, fd: int, now: int) -> None:
        if flags & socket.MSG_TRUNC:
            raise wire.FrameError("datagram over its limit")
        view, slots = self._view, self.executor.slots
        requests = wire.split_requests(self._buf, size)
        given_up = []
        for request in requests:
            if request[0] >= slots.count or request[1] >= len(self.executor.answers):
                raise wire.FrameError(f"slot {request[0]}, loop {request[1]}")
            if not slots.mark(request[0], self.number, now, request[2]):
                given_up.append(request)
        if given_up:
            self.executor.log("warning", "requests came too late: the core has given them up", count=len(given_up))
            requests = [request for request in requests if request not in given_up]
            if fd >= 0:
                os.close(fd)
                fd = -1
        for slot, loop, request_id, wanted, start, middle, end in requests:
            has_fd = bool(wanted & wire.FD_FLAGS)
            if has_fd != (fd >= 0) or (has_fd and len(requests) > 1):
                self._refuse(flags, slot, loop, request_id)
                continue
            body = bytes(view[middle:end]) if end > middle else b""
            environ = self._environment(view[start:middle])
            self.items.append((slot, loop, request_id, environ, body, fd, wanted))

    def _refuse(self, flags: int, slot: int, loop: int, request_id: int) -> None:
        if not flags & socket.MSG_CTRUNC:
            raise wire.FrameError("descriptor and flags do not agree")
        # The kernel drops a descriptor that does not fit into our table.
        self.executor.log("error", "no file descriptor left for a request body", request=f"{request_id:016x}")
        self.out.append((loop, wire.answer(wire.RESPONSE, slot, request_id, 503)))
        self.flush()

    # Sending

    def flush(self) -> None:
        """Sends all answers that wait. Also called by the monitor, at the same time: each frame is popped once."""
        out = self.out
        frames: List[bytes] = []
        size = at_loop = 0
        while out:
            try:
                loop, frame = out.popleft()
            except IndexError:
                break
            if frames and (loop != at_loop or size + len(frame) > ANSWER_BATCH):
                self._send(at_loop, frames)
                frames, size = [], 0
            frames.append(frame)
            size += len(frame)
            at_loop = loop
        if frames:
            self._send(at_loop, frames)

    def _send(self, loop: int, frames: List[bytes]) -> None:
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        try:
            self.executor.answers[loop].send(data)
        except OSError as error:
            if error.errno == errno.EMSGSIZE and len(frames) > 1:
                for frame in frames:
                    self._send(loop, [frame])
                return
            self._send_again(loop, data, -1, error)

    def send_with_fd(self, loop: int, frame: bytes, fd: int) -> None:
        """Sends an answer that comes with a descriptor, behind those that wait."""
        self.flush()
        try:
            socket.send_fds(self.executor.answers[loop], [frame], [fd])
        except OSError as error:
            self._send_again(loop, frame, fd, error)

    def _send_again(self, loop: int, data: bytes, fd: int, error: OSError) -> None:
        """The kernel may lack memory for a moment. When it does not come back, the request's deadline will end it."""
        until = time.monotonic() + SEND_PATIENCE_S
        answers = self.executor.answers[loop]
        while error.errno in RETRIED_ERRNOS and time.monotonic() < until:
            time.sleep(0.01)
            try:
                if fd >= 0:
                    socket.send_fds(answers, [data], [fd])
                else:
                    answers.send(data)
                return
            except OSError as again:
                error = again
        if isinstance(error, ConnectionError):  # no core side any more
            self.executor.stop()
            return
        self.executor.log("error", "an answer could not be sent", error=str(error), bytes=len(data))

    # The baton

    def _pass_baton(self) -> None:
        if self.executor.all_receive:
            return
        try:
            baton = self._batons.pop()
        except IndexError:
            return
        self.executor.handoff.put(baton)

    def interrupt(self, request_id: int) -> bool:
        """The main thread's: raises RequestTimeout in the request if it still runs. False when it does not."""
        return watchdog.interrupt(self, request_id)

    def relieve(self) -> None:
        """The monitor's: this thread has been in one request for a whole tick."""
        self.flush()
        executor = self.executor
        if executor.all_receive:
            return
        while self.items and not executor.stopping:
            try:
                executor.handoff.put(self.items.popleft())
            except IndexError:
                break
        self._pass_baton()


def _take_fd(ancillary: List[Tuple[int, int, bytes]]) -> int:
    """The first descriptor of a message; any others are closed."""
    first = -1
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET or kind != socket.SCM_RIGHTS:
            continue
        for (fd,) in struct.iter_unpack("i", data[: len(data) // 4 * 4]):
            if first < 0:
                first = fd
            else:
                os.close(fd)
    return first
