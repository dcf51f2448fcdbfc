"""ASGI 3, type `http`: `receive` and `send` of one request, and what becomes of what an application sends.

An answer that is complete with its first body message is one frame; whatever takes longer goes through a pipe. Errors
of the application (a message out of order, of the wrong type, a header that is not allowed) are raised out of `send`,
where they happen; when the application lets them pass, the request is answered 500 and the log says why.
"""

from __future__ import annotations

import asyncio
import os
import stat
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Dict, Iterable, List, Optional, Tuple

from . import heads, wire
from .astreams import READ_SIZE, BodyReader, PipeWriter
from .exchange import Exchange
from .heads import Head
from .scope import Scope, http_scope, scope_of_block

if TYPE_CHECKING:
    from .aexecutor import LoopRunner

Message = Dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

EXTENSIONS: Dict[str, Any] = {
    "http.response.pathsend": {},
    "http.response.early_hint": {},
    "http.response.trailers": {},
}

_answer_head = wire.ANSWER.pack

#: What an application may still send when its answer is out and has no (more) body, as that to HEAD. One that streams
#: without an end has to be told; most come to theirs.
UNSENT_MAX, UNSENT_TIME_NS = 100, 1_000_000_000

#: What has been sent, in its order.
NOTHING, START, BODY, TRAILERS, COMPLETE = range(5)
#: In place of that once the client is known to have left.
GONE = -1
_STEPS = ("nothing", "http.response.start", "http.response.body", "the last http.response.body", "all of the response")


class ClientGoneError(BrokenPipeError):
    """The client has gone: nothing more can be sent."""


class HttpCall(Exchange):
    """One request. Belongs to the loop's thread."""

    runner: LoopRunner

    # For the log and the errors of `wsgi.Server`, which has the same words for an answer.
    head_only = False
    sent = False  #: whether the answer has begun
    has_parts = False  #: anything that :meth:`close` must look at

    _block = b""
    _environ: Optional[Dict[str, Any]] = None  #: made of the block when it is needed
    task: Optional[asyncio.Task[None]] = None
    gone = False  #: the client, before it had all
    timed_out = False
    _step = NOTHING
    _head: Head
    _is_plain = True  #: neither HEAD nor trailers
    _has_trailers = False
    _trailers = b""
    _writer: Optional[PipeWriter] = None
    _left: Optional[int] = None  #: bytes that the stream may still get; None when it has no Content-Length
    _answered_ns = 0  #: when an answer without body was sent
    _unsent = 0  #: pieces of its body that the application has sent all the same
    _reader: Optional[BodyReader] = None
    _received = False  #: the application has got the whole body, or the news that it will not
    _waiters: Tuple[asyncio.Future[None], ...] = ()  #: of `receive`, for the end
    _stream_task: Optional[asyncio.Task[Any]] = None  #: see :meth:`cancel_when_gone`

    def __init__(
        self,
        runner: LoopRunner,
        slot: int,
        loop: int,
        request_id: int,
        environ: Any,
        body: bytes,
        body_fd: int,
        flags: int,
    ) -> None:
        """`environ`: also as the block that it came as."""
        self.runner = runner
        self.slot = slot
        self.loop = loop
        self.request_id = request_id
        self.body = body
        self._started_ns = runner.now
        if type(environ) is bytes:
            self._block = environ
            is_head = b"REQUEST_METHOD\0HEAD\0" in environ
        else:
            self._environ = environ
            is_head = environ["REQUEST_METHOD"] == "HEAD"
        if is_head:
            self.head_only, self._is_plain = True, False
        if body_fd >= 0:
            self._take_body(body_fd, flags)

    def _take_body(self, fd: int, flags: int) -> None:
        self.has_parts = True
        if flags & wire.BODY_STREAM:
            self._reader = BodyReader(self.runner.loop, fd)
        elif flags & wire.BODY_FD:
            os.lseek(fd, 0, os.SEEK_SET)  # an executor that died may have read from it
            self.body_file = os.fdopen(fd, "rb", buffering=0)
        else:  # for a protocol that is not spoken here: the request is answered as if it had not asked
            os.close(fd)

    @property
    def started_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return self._started_ns

    @property
    def is_streamed(self) -> bool:
        """Whether the body comes while the request runs already."""
        return self._reader is not None

    @property
    def environ(self) -> Dict[str, Any]:  # type: ignore[override]
        environ = self._environ
        if environ is None:
            environ = self._environ = wire.environment(self._block)
        return environ

    def scope(self, state: Dict[str, Any]) -> Scope:
        if self._environ is None:
            return scope_of_block(self._block, EXTENSIONS, state)
        return http_scope(self._environ, EXTENSIONS, state)

    @property
    def is_whole(self) -> bool:
        """Whether the stream has had all bytes of its Content-Length, so that what fails now spoils nothing."""
        return self._left == 0

    @property
    def is_answered(self) -> bool:
        """Whether the client has all that it will get, also when the application has more."""
        return self.sent and self._writer is None

    # What the application calls

    async def receive(self) -> Message:
        if self._received:
            await self._wait_for_end()
            return {"type": "http.disconnect"}
        if self._reader is not None:
            data = await self._reader.read()
            if data:
                return {"type": "http.request", "body": data, "more_body": True}
            if self._step == COMPLETE or self._is_broken_off():
                self._received = True
                return {"type": "http.disconnect"}
        elif self.body_file is not None:
            data = self.body_file.read(READ_SIZE)
            if len(data) == READ_SIZE:
                return {"type": "http.request", "body": data, "more_body": True}
        else:
            data = self.body
        self._received = True
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        step = self._step
        if kind == "http.response.body":
            if step == START:
                if self._is_plain and not message.get("more_body"):
                    # The common case without the calls that would find that it is.
                    body = message.get("body", b"")
                    status, fields, length, bodyless = self._head
                    if type(body) is bytes and not bodyless and (length is None or length == len(body)):
                        self._step = COMPLETE
                        self.respond(status, fields, body)
                        if self._waiters:
                            self._wake_receivers()
                        return
                await self._first_body(_bytes(message.get("body", b"")), bool(message.get("more_body", False)))
            elif step == BODY:
                await self._more_body(_bytes(message.get("body", b"")), bool(message.get("more_body", False)))
            else:
                raise self._out_of_order(kind)
        elif kind == "http.response.start":
            if step != NOTHING:
                raise self._out_of_order(kind)
            self._head = encode_head(message)
            if message.get("trailers"):
                self._has_trailers, self._is_plain = True, False
            self._step = START
        elif kind == "http.response.pathsend":
            if step != START:
                raise self._out_of_order(kind)
            self._send_path(message["path"])
        elif kind == "http.response.early_hint":
            if step != NOTHING:
                raise self._out_of_order(kind)
            self._hint(message["links"])
        elif kind == "http.response.trailers":
            if step != TRAILERS:
                raise self._out_of_order(kind)
            self._add_trailers(message)
        else:
            raise ValueError(f"send() was given a message of unknown type {kind!r}")

    def _out_of_order(self, kind: str) -> Exception:
        if self.gone:
            return ClientGoneError("the client has gone")
        return RuntimeError(f"send() was given {kind} after {_STEPS[self._step]}")

    # Receiving

    def _is_broken_off(self) -> bool:
        """Asked at the end of a streamed body: whether that came too early."""
        if self.cancelled:
            self._lose_client()
        return self.gone

    async def _wait_for_end(self) -> None:
        if self._step == COMPLETE or self.gone or self.is_answered:
            return
        future = self.runner.loop.create_future()
        self._waiters += (future,)
        self.has_parts = True
        self._watch_client()
        await future

    def _watch_client(self) -> None:
        """Somebody wants to know when the client goes."""
        if self._writer is None:
            self.runner.watch(self)
        else:
            self._writer.watch_end(self._stream_ended)

    def look(self) -> bool:
        """Whether the client is still there, and somebody still waits for that to change."""
        if self._writer is not None:  # while an answer streams, its pipe is what tells
            return False
        if self._waiters and self.cancelled:
            self._lose_client()
        return bool(self._waiters)

    def cancel_when_gone(self, task: Optional[asyncio.Task[Any]]) -> None:
        """From now on the task that writes the stream is cancelled when the client goes; None: not any more."""
        self._stream_task = task
        if task is not None and self._writer is not None:
            self._watch_client()

    def _stream_ended(self) -> None:
        """Nobody reads the stream any more."""
        if self.is_whole:  # nor need anybody
            self._wake_receivers()
            return
        self._lose_client()
        if self._stream_task is not None:
            self._stream_task.cancel()

    def _lose_client(self) -> None:
        self.gone = True
        if self._step < COMPLETE:
            self._step = GONE
        if self._writer is not None:
            self._writer.wake()
        self._wake_receivers()

    def _wake_receivers(self) -> None:
        waiters, self._waiters = self._waiters, ()
        for future in waiters:
            if not future.done():
                future.set_result(None)

    # Sending

    async def _first_body(self, body: bytes, more: bool) -> None:
        status, fields, length, bodyless = self._head
        if self.head_only or bodyless:
            self._answer_without_body(len(body) if length is None and not more and not bodyless else length)
            self._step = BODY if more else TRAILERS if self._has_trailers else COMPLETE
        elif more and (length is None or len(body) < length):
            if self.cancelled:
                self._lose_client()
                raise ClientGoneError("the client has gone")
            self._begin_stream(length)
            await self._write(body)
            return
        elif self._has_trailers:
            self._begin_stream(length)
            await self._more_body(body, more)
            return
        else:
            if length is not None and length != len(body):
                raise _wrong_length(length, len(body))
            self.respond(status, fields, body)
            self._left = 0
            self._step = BODY if more else COMPLETE
        if self._waiters:
            self._wake_receivers()

    async def _more_body(self, body: bytes, more: bool) -> None:
        if body:
            await self._write(body)
        elif more and self._writer is None and not self.is_whole:
            self._drop()
        elif more and self._writer is not None and not self.is_whole and self._writer.is_broken():
            self._lose_client()
            raise ClientGoneError("the client has gone")
        if more:
            return
        if self._left:
            length = self._head.length or 0
            raise _wrong_length(length, length - self._left)
        if self._has_trailers:
            self._step = TRAILERS
        else:
            self._end_stream(True)

    def respond(self, status: int, fields: bytes, body: bytes) -> None:
        """The whole answer. What CPU it took is not told: requests share the thread."""
        self.sent = True
        size = len(body)
        if size > wire.INLINE_BODY_MAX:
            self._respond_large(status, fields, body)
            return
        runner = self.runner
        now = runner.now = monotonic_ns()
        run_us = (now - self._started_ns) // 1000 & 0xFFFFFFFF
        length = len(fields)
        head = _answer_head(
            56 + length + size, 2, 1, self.slot, status, 0, self.request_id, length, run_us, size, 0, 0, 0
        )
        runner.out.append((self.loop, head + fields + body))
        runner.answers_due()

    def cpu_us(self) -> int:
        return 0

    def _answer_without_body(self, length: Optional[int]) -> None:
        """To HEAD: the length that a GET would have, when it is known; and for a status that has no body."""
        head = self._head
        self.respond(head.status, heads.fields_for_head(head, length), b"")
        self._answered_ns = self.runner.now

    def _send_path(self, path: Any) -> None:
        # That a client may not name any file is the application's to see to, as with open().
        fd = os.open(os.fspath(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise ValueError(f"http.response.pathsend needs a regular file, and {path!r} is none")
            self.send_plain_file(fd, 0, about.st_size)
        finally:
            os.close(fd)

    def send_plain_file(self, fd: int, offset: int, size: int) -> None:
        """A part of a regular file as the body, after the start. The caller closes it."""
        status, fields, length, bodyless = self._head
        if length is not None and length != size and not bodyless:
            raise _wrong_length(length, size)
        if self.head_only or bodyless:
            self._answer_without_body(size)
        elif size:
            self.send_file(status, fields, fd, offset, size)
        else:
            self.respond(status, fields, b"")
        self.sent = True
        self._complete()

    def _hint(self, links: Iterable[Any]) -> None:
        fields = heads.encode_fields([(b"link", link) for link in links])
        self.inform(103, fields)

    def _add_trailers(self, message: Message) -> None:
        self._trailers += heads.encode_fields(message.get("headers", ()))
        if not message.get("more_trailers", False):
            self._end_stream(True)

    # Streams

    def _begin_stream(self, length: Optional[int]) -> None:
        head = self._head
        fd = self.open_stream(head.status, head.fields, length)
        self._writer = PipeWriter(self.runner.loop, fd)
        if self._waiters:
            self._watch_client()
        self._left = length
        self.sent = self.has_parts = True
        self._step = BODY

    async def _write(self, body: bytes) -> None:
        writer = self._writer
        if writer is None:  # to HEAD, or a status without body; or all that was announced has been sent
            if body and self._left == 0:
                length = self._head.length or 0
                raise _wrong_length(length, length + len(body))
            self._drop()
            return
        if self._left is not None:
            if len(body) > self._left:
                length = self._head.length or 0
                raise _wrong_length(length, length - self._left + len(body))
            self._left -= len(body)
        try:
            await writer.write(body)
        except BrokenPipeError:
            self._lose_client()
        if self.gone:
            raise ClientGoneError("the client has gone")

    def _drop(self) -> None:
        """One more piece of the body of an answer that has none."""
        self._unsent += 1
        if self._unsent > UNSENT_MAX or monotonic_ns() - self._answered_ns > UNSENT_TIME_NS:
            self._lose_client()
            raise ClientGoneError("the answer is complete, and nobody wants its body")

    def _end_stream(self, complete: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            frame = wire.answer(
                wire.END, self.slot, self.request_id, 0 if complete else 1, self._trailers, run_us=self.run_us()
            )
            writer.unwatch_end()
            # The end is sent before the pipe is closed, so it cannot wait for the rest of the turn.
            self.runner.out.append((self.loop, frame))
            self.runner.flush()
            os.close(writer.fd)
        self._complete()

    def _complete(self) -> None:
        self._step = COMPLETE
        self._wake_receivers()

    # The end

    def close_stream(self, complete: bool) -> None:
        """Ends a stream that is open."""
        if self._writer is not None:
            self._end_stream(complete)

    @property
    def is_complete(self) -> bool:
        return self._step == COMPLETE

    def check_end(self) -> None:
        """The application has returned. Raises when something is missing."""
        if self._step == COMPLETE or self.gone:
            return
        raise RuntimeError(
            f"the application returned after it had sent {_STEPS[self._step]}; the response is not complete"
        )

    def close(self) -> None:
        """The application has come to its end, and everything of the request goes."""
        if self._writer is not None:
            self._end_stream(False)
        elif not self.sent:  # nobody reads it, but the slot waits for it
            self.respond(500, b"", b"")
        if self._reader is not None:
            self._reader.close()
        if self.body_file is not None:
            self.body_file.close()
        if self._waiters:
            self._wake_receivers()
        self._environ = None  # it may have methods of this, and both would stay until the collector comes by

    def has_ended(self) -> bool:
        """Asked once, after :meth:`close`: whether nothing is left of it. If something is, it will call `ended` of the
        runner itself.
        """
        return True

    def is_quiet(self, error: BaseException) -> bool:
        """Whether an error only says that the client has gone."""
        if not self.gone:
            return False
        if isinstance(error, asyncio.CancelledError):
            return True
        seen = 0
        cause: Optional[BaseException] = error
        while cause is not None and seen < 8:
            if isinstance(cause, OSError):
                return True
            cause, seen = cause.__cause__ or cause.__context__, seen + 1
        return False

    def stop(self, restart: bool) -> None:
        """A response comes to its end by itself."""

    def time_out(self) -> None:
        self.timed_out = True
        if self.task is not None:
            self.task.cancel()


# Messages


def _bytes(body: Any) -> bytes:
    if type(body) is bytes:
        return body
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body)
    raise TypeError(f"the body of a message must be bytes, not {type(body).__name__}")


def encode_head(message: Message) -> Head:
    status, headers = message["status"], message.get("headers", ())
    if type(headers) is not list:
        headers = list(headers)
    try:
        return heads.cache[(status, *headers)]
    except (KeyError, TypeError):  # new, or of lists: those are not hashable
        return heads.encode_bytes(status, headers)


def _wrong_length(announced: int, size: int) -> RuntimeError:
    how = "longer" if size > announced else "shorter"
    return RuntimeError(f"the body is {how} than its Content-Length: {size} bytes, and {announced} were announced")


__all__: List[str] = ["ClientGoneError", "HttpCall", "Message", "Receive", "Send"]
