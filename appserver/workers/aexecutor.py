"""The thread that runs asynchronous applications: one event loop, which holds many requests at once.

It is a request thread like the others (executor.py) as far as the pool's queue, the slots and the answers go. In a pool
whose application is asynchronous it is the only one, and takes requests from the queue itself, as long as it holds
fewer than the pool's `concurrency`. In a pool of scripts the request threads receive, and hand over what is for it.

Several datagrams are received in a turn, and the answers that come out of a turn leave together. A request that ends
without waiting is answered within the turn in which it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
import threading
import time
from collections import deque
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Deque, Dict, List, Optional, Protocol, Set, Tuple

from . import wire
from .control import describe
from .executor import ANSWER_BATCH, ANSWER_DELAY_NS, RETRIED_ERRNOS, SEND_PATIENCE_S, STATUS_BROKEN_CORE, Runner
from .interpreter import MSG_CMSG_CLOEXEC

if TYPE_CHECKING:
    from .executor import Executor, Item

TURN_DATAGRAMS = 8  #: received in one turn, before the others of the loop get theirs
RETRY_S = 0.002  #: until the next attempt to send what an answer socket did not take
CANCEL_POLL_S = 0.05  #: between two looks at the slots of requests that want to know when their client goes
STOP_TIME_S = 10.0  #: for what is running when nobody has said how long it may take
CLOSE_TIME_S = 2.0  #: of this at the end, for cancelled tasks and for the application's shutdown


class Held(Protocol):
    """A request that waits for something."""

    task: Optional[asyncio.Task[None]]

    def look(self) -> bool:
        """Called every CANCEL_POLL_S after :meth:`LoopRunner.watch`, until it returns False."""

    def stop(self, restart: bool) -> None:
        """The worker is going to stop; a connection that has no end of its own should come to one."""

    def time_out(self) -> None:
        """Its time is over."""


Serve = Callable[["LoopRunner", "Item"], None]


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where it is installed."""
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class LoopRunner(Runner):
    """Attributes belong to the loop's thread; methods may be called by it alone unless they say otherwise."""

    RECEIVE_FLAGS = MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    _environment = bytes  #: as a block: most requests need no dictionary of it

    loop: asyncio.AbstractEventLoop

    def __init__(self, executor: Executor, number: int, serve: Serve, *, concurrency: int, receives: bool) -> None:
        """`receives`: it takes requests from the queue; else they come by :meth:`take`."""
        super().__init__(executor, number)
        self.thread.name = "event-loop"
        self.held = 0  #: requests begun and not ended
        self.calls: Dict[int, Held] = {}  #: those that wait for something, by request id
        self._serve = serve
        self._concurrency = concurrency
        self._receives = receives
        self._receiving = False  #: the loop watches the queue
        self._gathering = False  #: the answers of this turn are sent at its end
        self._flush_due = False
        self._unsent_since = 0.0
        self._handed: Deque[Item] = deque()  #: by other threads
        self._watched: Set[Held] = set()
        self._startup: Optional[Callable[[], Awaitable[None]]] = None
        self._shutdown: Optional[Callable[[float], Awaitable[None]]] = None
        self._booted = threading.Event()
        self._boot_error: Optional[BaseException] = None
        self._end: Optional[asyncio.Future[None]] = None
        self._is_over = False
        self._stop_at = 0.0  #: time.monotonic(), once it has been told to stop

    # Main thread

    def boot(self, startup: Callable[[], Awaitable[None]], shutdown: Callable[[float], Awaitable[None]]) -> None:
        """Starts the loop and runs `startup` in it. Raises what that raises. `shutdown` is given the seconds that it
        may take, and runs when everything else has ended.
        """
        self._startup, self._shutdown = startup, shutdown
        self.thread.start()
        self._booted.wait()
        if self._boot_error is not None:
            self.thread.join()
            raise self._boot_error

    def start(self) -> None:
        if self._receives:
            self.loop.call_soon_threadsafe(self._go_on_receiving)

    def pause(self, then: Callable[[], None]) -> None:
        """Receives no more before :meth:`start` is called again. `then` is called in the loop."""

        def do() -> None:
            self._stop_receiving()
            then()

        self.loop.call_soon_threadsafe(do)

    def stop(self) -> None:
        """Takes no more, lets what is held finish, and ends."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed: it has ended by itself
            self.loop.call_soon_threadsafe(self._on_stop)

    def relieve(self) -> None:
        """Nobody can take over what runs in an event loop."""

    def interrupt(self, request_id: int) -> bool:
        """The time of this request is over."""
        try:
            self.loop.call_soon_threadsafe(self._time_out, request_id)
        except RuntimeError:  # the loop has been closed
            return False
        return True

    # Any thread

    def take(self, item: Item) -> None:
        """Another thread has received a request for the loop."""
        self._handed.append(item)
        try:
            self.loop.call_soon_threadsafe(self._take_handed)
        except RuntimeError:  # it has ended
            with contextlib.suppress(IndexError):
                self._skip(self._handed.pop())
                self._flush_all()

    # The thread

    def _main(self) -> None:
        self.loop = new_event_loop()
        asyncio.set_event_loop(self.loop)
        try:
            assert self._startup is not None
            try:
                self.loop.run_until_complete(self._startup())
            except BaseException as error:
                self._boot_error = error
                return
            finally:
                if self._boot_error is None:
                    self._end = self.loop.create_future()
                self._booted.set()
            self._run()
            self._close()
        except BaseException as error:
            self.executor.log("error", "event loop failed: the worker ends", error=repr(error))
            self.executor.stop(1)
        finally:
            self.executor.wake()

    def _run(self) -> None:
        assert self._end is not None
        while not self._is_over:
            try:
                self.loop.run_until_complete(self._end)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                # A task or a callback of the application's has raised SystemExit or KeyboardInterrupt, which asyncio
                # lets through. It is no more a reason to end than in a request thread.
                summary, trace = describe(error)
                self.executor.log("error", "a task of the application failed", error=summary, traceback=trace)

    def _close(self) -> None:
        loop = self.loop
        assert self._shutdown is not None
        try:
            left_s = max(self._stop_at - time.monotonic(), CLOSE_TIME_S)
            loop.run_until_complete(self._cancel_all(left_s / 2))
            loop.run_until_complete(self._shutdown(left_s / 2))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            self._flush_all()
            loop.close()

    async def _cancel_all(self, time_s: float) -> None:
        """What the application has left running, but for the task of its lifespan."""
        me = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not me and task.get_name() != LIFESPAN_TASK]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=time_s)

    # Receiving

    def _go_on_receiving(self) -> None:
        if not self._receiving and not self.executor.stopping and self.held < self._concurrency:
            self._receiving = True
            self.loop.add_reader(self.executor.queue.fileno(), self._on_queue)

    def _stop_receiving(self) -> None:
        if self._receiving:
            self._receiving = False
            self.loop.remove_reader(self.executor.queue.fileno())

    def _on_queue(self) -> None:
        executor = self.executor
        self._gathering = True
        try:
            for _ in range(TURN_DATAGRAMS):
                if executor.stopping or not self._receive():
                    break
                executor.stats[self.number] += len(self.items)
                self._begin_all()
                if self.held >= self._concurrency:
                    self._stop_receiving()
                    break
        except BlockingIOError:
            pass
        except ConnectionError:
            executor.stop()
        except wire.FrameError as error:
            executor.log("error", "malformed request frame: the worker ends", error=str(error))
            executor.stop(STATUS_BROKEN_CORE)
        finally:
            self._gathering = False
            if self.out:
                self.flush()

    def _begin_all(self) -> None:
        executor = self.executor
        items, out, serve = self.items, self.out, self._serve
        ints = executor.slots.ints
        generation = ints[4]
        received_ns = self.now
        while items:
            item = items.popleft()
            if ints[26 + 16 * item[0]] or item[2] >> 48 != generation or executor.stopping:
                self._skip(item)
                continue
            self.held += 1
            serve(self, item)
            if self.now - received_ns > ANSWER_DELAY_NS and out:
                self.flush()

    def _take_handed(self) -> None:
        handed = self._handed
        self._gathering = True
        while handed and self.held < self._concurrency:
            item = handed.popleft()
            self.now = monotonic_ns()
            self.executor.slots.mark(item[0], self.number, self.now, item[2])
            self.items.append(item)
            self._begin_all()
        self._gathering = False
        if self.out:
            self.flush()

    def ended(self) -> None:
        """A request that `serve` was called for has come to its end."""
        self.held -= 1
        if self._receives:
            if not self._receiving:
                self._go_on_receiving()
        elif self._handed:
            self.loop.call_soon(self._take_handed)
        if not self.held and self._stop_at:
            self._finish()

    # Waiting requests

    def watch(self, call: Held) -> None:
        """Looks at it again and again, until it says that this is enough."""
        if not self._watched:
            self.loop.call_later(CANCEL_POLL_S, self._look)
        self._watched.add(call)

    def _look(self) -> None:
        self._watched = {call for call in self._watched if call.look()}
        if self._watched:
            self.loop.call_later(CANCEL_POLL_S, self._look)

    def _time_out(self, request_id: int) -> None:
        call = self.calls.get(request_id)
        if call is not None:
            call.time_out()

    # The end

    def _on_stop(self) -> None:
        if self._stop_at:
            return
        self._stop_receiving()
        self._stop_at = time.monotonic() + (self.executor.stop_time_s or STOP_TIME_S)
        for call in list(self.calls.values()):
            call.stop(self.executor.restarting)
        while self._handed:
            self._skip(self._handed.popleft())
        self._flush_all()
        if not self.held:
            self._finish()
        else:
            patience_s = self._stop_at - time.monotonic() - CLOSE_TIME_S
            self.loop.call_later(max(patience_s, 0), self._give_up)

    def _give_up(self) -> None:
        """Requests that do not end are cut off, while there is time left for the application's shutdown."""
        if not self._is_over:
            self.executor.log("warning", "requests do not end in time and are cancelled", requests=self.held)
            self._finish()

    def _finish(self) -> None:
        self._is_over = True
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    # Sending

    def answers_due(self) -> None:
        """Something was put into `out`. It goes out at the end of this turn of the loop, with all that comes in it."""
        if not self._gathering and not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush_later)

    def _flush_later(self) -> None:
        self._flush_due = False
        self.flush()

    def flush(self) -> None:
        """Sends what waits, as far as the sockets take it now; the rest a little later."""
        out: Deque[Any] = self.out
        while out:
            count, loop, data, fd = self._next_datagram()
            try:
                if fd >= 0:
                    socket.send_fds(self.executor.answers[loop], [data], [fd], socket.MSG_DONTWAIT)
                else:
                    self.executor.answers[loop].send(data, socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno in RETRIED_ERRNOS and self._is_patient():
                    return
                self._lament(error, len(data))
            self._unsent_since = 0.0
            for _ in range(count):
                out.popleft()
            if fd >= 0:
                os.close(fd)

    def _next_datagram(self) -> Tuple[int, int, bytes, int]:
        """How many of the answers that wait go together; loop, bytes and descriptor."""
        first = self.out[0]
        loop, data = first[0], first[1]
        if len(first) > 2 or len(self.out) == 1:
            return 1, loop, data, first[2] if len(first) > 2 else -1
        frames: List[bytes] = []
        size = 0
        for entry in self.out:
            size += len(entry[1])
            if entry[0] != loop or len(entry) > 2 or (frames and size > ANSWER_BATCH):
                break
            frames.append(entry[1])
        return len(frames), loop, b"".join(frames), -1

    def _is_patient(self) -> bool:
        """Whether another attempt is worth while; makes it soon."""
        now = time.monotonic()
        if not self._unsent_since:
            self._unsent_since = now
        elif now - self._unsent_since > SEND_PATIENCE_S:
            return False
        if not self._flush_due and not self.loop.is_closed():
            self._flush_due = True
            self.loop.call_later(RETRY_S, self._flush_later)
        return True

    def _lament(self, error: OSError, size: int) -> None:
        if isinstance(error, ConnectionError):  # no core side any more
            self.executor.stop()
        else:
            self.executor.log("error", "an answer could not be sent", error=str(error), bytes=size)

    def send_with_fd(self, loop: int, frame: bytes, fd: int) -> None:
        """Sends an answer that comes with a descriptor, behind those that wait. The caller closes its own."""
        self.flush()
        if not self.out:
            try:
                socket.send_fds(self.executor.answers[loop], [frame], [fd], socket.MSG_DONTWAIT)
                return
            except OSError as error:
                if error.errno not in RETRIED_ERRNOS:
                    self._lament(error, len(frame))
                    return
        self.out.append((loop, frame, os.dup(fd)))  # type: ignore[arg-type]
        self._is_patient()

    def _flush_all(self) -> None:
        """At the end, when no loop will come back to it."""
        until = time.monotonic() + SEND_PATIENCE_S
        while self.out and time.monotonic() < until:
            self.flush()
            if self.out:
                time.sleep(RETRY_S)


LIFESPAN_TASK = "lifespan"
