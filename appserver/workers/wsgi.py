"""WSGI 1.0.1 (PEP 3333): the environment, `start_response`, and what becomes of what an application returns.

The common case first: a list with one bytes object is one frame. Anything else that is complete at once is one frame
too (or a file in memory when it is large); a `wsgi.file_wrapper` around a real file is handed over as that file; and
whatever takes its time is streamed through a pipe.
"""

from __future__ import annotations

import html
import io
import itertools
import os
import stat
import sys
from io import BytesIO
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Type

from . import forks, heads, wire
from .control import describe
from .exchange import Exchange, write_all
from .heads import Head, HeadError

if TYPE_CHECKING:
    from .executor import Item, Runner

Environ = Dict[str, Any]
ExcInfo = Tuple[Type[BaseException], BaseException, TracebackType]
Application = Callable[..., Iterable[bytes]]
#: Finds the application for an environment; its name for the log is found separately, as only failures need it.
Find = Callable[[Environ], Application]
Log = Callable[..., None]

_remembered = heads.cache
_NOTHING: Environ = {}

EXHAUST_MAX = 100  #: chunks that an application may still yield or write when the client has all that it will get


class FileWrapper:
    """`wsgi.file_wrapper`: a file as the body. A regular file is sent by the server itself."""

    def __init__(self, filelike: Any, block_size: int = 64 * 1024) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.block_size)
        if not data:
            raise StopIteration
        return data

    def close(self) -> None:
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()


class Plain(NamedTuple):
    """A regular file from its present position."""

    fd: int
    offset: int
    length: int


def plain_file(filelike: Any) -> Optional[Plain]:
    """The regular file under `filelike`, or None when reading it could give anything else than the file's own bytes.

    A `fileno` is not enough: GzipFile has one too, and it leads to the compressed bytes. Nor is a file that it holds:
    it may decode what it reads from there, or stop before the end.
    """
    for _ in range(4):  # wrappers of tempfile, Django, Werkzeug, maybe one around the other
        if not isinstance(filelike, io.IOBase):
            filelike = _read_by(filelike)
    raw = filelike.raw if type(filelike) in (io.BufferedReader, io.BufferedRandom) else filelike
    if type(raw) is not io.FileIO:
        return None
    try:
        fd = raw.fileno()
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not raw.readable():
            return None
        filelike.flush()
        offset: int = filelike.tell()
    except (OSError, ValueError):  # closed, or it cannot seek
        return None
    return Plain(fd, offset, max(os.fstat(fd).st_size - offset, 0))


def _read_by(filelike: Any) -> Any:
    """Whose method it is that is called to read `filelike`: itself, or what it is but a name for."""
    read = getattr(filelike, "read", None)
    if hasattr(read, "_closer"):  # the function that a NamedTemporaryFile puts around each method of its file
        read = getattr(read, "__wrapped__", None)
    return getattr(read, "__self__", filelike)


class ClientGoneError(BrokenPipeError):
    """Nobody reads the stream any more."""


class LengthError(ValueError):
    """The body does not have the length that the application's Content-Length says."""


class Call(Exchange):
    """One call of an application: the head that it set, and what has been sent of it."""

    head: Optional[Head] = None
    head_only = False  #: a HEAD request
    sent = False  #: whether the answer has begun
    _writer = -1  #: of the stream, when there is one
    _left: Optional[int] = None  #: bytes that the stream may still get; None when it has no Content-Length
    _unsent = 0  #: pieces that were written behind an answer without body

    # What the application calls

    def start_response(
        self, status: str, headers: List[Tuple[str, str]], exc_info: Optional[ExcInfo] = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through this frame
        elif self.head is not None:
            raise HeadError("start_response was called a second time without exc_info")
        try:
            head = _remembered.get((status, *headers))
        except TypeError:  # not hashable: it is told what is wrong
            head = None
        self.head = heads.encode(status, headers) if head is None else head
        return self.write

    def write(self, data: bytes) -> None:
        """The callable that start_response returns. Raises LengthError past the Content-Length, ClientGoneError."""
        if type(data) is not bytes:
            raise TypeError(f"write() needs bytes, not {type(data).__name__}")
        if not data:
            return
        if not self.sent:
            self._begin()
        if self.cancelled:
            raise ClientGoneError
        left = self._left
        if not self._push(data):
            self._unsent += 1
            if self._unsent > EXHAUST_MAX:
                raise ClientGoneError
        if left is not None and len(data) > left:
            raise LengthError(f"write() past the Content-Length {self._head().length}")

    def early_hints(self, headers: List[Tuple[str, str]]) -> None:
        """`wsgi.early_hints`: an interim response 103 (RFC 8297) at once; without effect when the answer has begun.
        Raises HeadError, TypeError."""
        fields = heads.encode_interim(headers)
        if not self.sent:
            self.inform(103, fields)

    # What became of it

    def finish(self, result: Iterable[bytes]) -> None:
        """Answers with what the application returned."""
        kind = type(result)
        if kind is list or kind is tuple:
            parts: Any = result
            if not self.sent:
                self._complete(parts[0] if len(parts) == 1 else _join(parts))
                return
        if kind is FileWrapper and not self.sent and self._try_file(result):  # type: ignore[arg-type]
            return
        if result is None or isinstance(result, (bytes, str, bytearray, dict)):
            raise TypeError(f"an application returns an iterable of bytes such as [body], not {kind.__name__}")
        self._iterate(iter(result))

    def _complete(self, body: bytes) -> None:
        head = self._head()
        if type(body) is not bytes:
            raise TypeError(f"the body must be bytes, not {type(body).__name__}")
        status, fields, length, bodyless = head
        if bodyless:
            self.respond(status, fields, b"")
        elif self.head_only:
            self._respond_head(len(body) if length is None else length)
        else:
            if length is not None and length != len(body):
                self._check_length(length, len(body))
                body = body[:length]
            self.respond(status, fields, body)
        self.sent = True

    def _check_length(self, length: int, size: int) -> None:
        """Of a body that is known before anything has been sent: what is missing cannot be made up for, what is too
        much is cut (PEP 3333, "Handling the Content-Length Header")."""
        if size < length:
            raise LengthError(f"the body has {size} bytes, and its Content-Length says {length}")
        self._complain(length, size)

    def _head(self) -> Head:
        if self.head is None:
            raise HeadError("the application did not call start_response")
        return self.head

    def _respond_head(self, length: Optional[int]) -> None:
        """To HEAD: the length that a GET would have, when it is known."""
        head = self._head()
        self.respond(head.status, heads.fields_for_head(head, length), b"")

    def _complain(self, length: int, size: int) -> None:
        self.runner.executor.server.report(
            self, "error", "body does not have its Content-Length", content_length=length, body_length=size
        )

    def _try_file(self, wrapper: FileWrapper) -> bool:
        """Hands over the file of a wrapper when it is a regular one."""
        file = plain_file(wrapper.filelike)
        if file is None:
            return False
        head = self._head()
        length = file.length
        if head.length is not None and head.length != length and not head.bodyless and not self.head_only:
            if head.length > length:
                self._check_length(head.length, length)
            length = head.length  # a part of the file
        if head.bodyless:
            self.respond(head.status, head.fields, b"")
        elif self.head_only:
            self._respond_head(length if head.length is None else head.length)
        else:
            self.send_file(head.status, head.fields, file.fd, file.offset, length)
        self.sent = True
        return True

    def _iterate(self, chunks: Iterator[bytes]) -> None:
        """One chunk after the other. The head waits for the first that is not empty (PEP 3333, "Handling the
        start_response() Callable")."""
        if not self.sent and not self._first(chunks):
            return
        for chunk in chunks:
            if type(chunk) is not bytes:
                raise TypeError(f"the body must be bytes, not {type(chunk).__name__}")
            if self.cancelled:
                raise ClientGoneError
            if chunk and not self._push(chunk):
                break
        self._end()

    def _first(self, chunks: Iterator[bytes]) -> bool:
        """Begins the answer with the first chunk; False when that was all of it."""
        for chunk in chunks:
            if type(chunk) is not bytes:
                raise TypeError(f"the body must be bytes, not {type(chunk).__name__}")
            if not chunk:
                if self.cancelled:
                    raise ClientGoneError
                continue
            head = self._head()
            if head.length == len(chunk) or head.bodyless or self.head_only:
                self._only(chunk)
                if not self.head_only:
                    self._exhaust(chunks)
                return False
            self._begin()
            self._push(chunk)
            return True
        head = self._head()
        if self.head_only and not head.bodyless:
            self._respond_head(head.length)  # without one, an empty body says nothing about that of a GET
            self.sent = True
        else:
            self._complete(b"")
        return False

    def _only(self, chunk: bytes) -> None:
        """The chunk is the whole body. It is sent before the application goes on, which may take its time.

        With others of its datagram behind it, it waits for their answers, and no longer than the monitor lets it.
        """
        head = self._head()
        if head.bodyless:
            self.respond(head.status, head.fields, b"")
        elif self.head_only:
            self._respond_head(head.length)
        else:
            self.respond(head.status, head.fields, chunk)
        self.sent = True
        if not self.runner.items:
            self.runner.flush()

    def _exhaust(self, chunks: Iterator[bytes]) -> None:
        """Lets the application finish after its last byte has been sent. No deadline watches it any more."""
        head = self._head()
        for chunk in itertools.islice(chunks, EXHAUST_MAX):
            if chunk:
                if not head.bodyless:
                    self._complain(head.length or 0, (head.length or 0) + len(chunk))
                return

    # Streams

    def _begin(self) -> None:
        head = self._head()
        if head.bodyless:
            self.respond(head.status, head.fields, b"")
        elif self.head_only:
            self._respond_head(head.length)
        else:
            self._left = head.length
            self._writer = self.open_stream(head.status, head.fields, head.length)
        self.sent = True

    def _push(self, data: bytes) -> bool:
        """Writes to the client; False when no more is wanted. Raises ClientGoneError."""
        if self._writer < 0:
            return False
        if self.runner.executor.in_child:
            forks.leave(self.runner.executor.log)
        if self._left is not None:
            if len(data) > self._left:
                length = self._head().length or 0
                self._complain(length, length - self._left + len(data))
                data = data[: self._left]
            self._left -= len(data)
        try:
            write_all(self._writer, data)
        except BrokenPipeError:
            raise ClientGoneError from None
        return True

    def _end(self) -> None:
        if self._writer < 0:
            return
        if self._left:
            length = self._head().length or 0
            self._complain(length, length - self._left)
        self.close_stream(not self._left)

    @property
    def is_whole(self) -> bool:
        """Whether the stream has had all bytes of its Content-Length, so that what fails now spoils nothing."""
        return self._left == 0

    def close_stream(self, complete: bool) -> None:
        """Ends a stream that is open."""
        writer, self._writer = self._writer, -1
        if writer >= 0:
            self.end_stream(writer, complete)


class Server:
    """Runs applications for the executor: `serve` is called by all request threads."""

    def __init__(
        self,
        find: Find,
        log: Log,
        *,
        name: str = "",
        threads: int = 1,
        dev: bool = False,
        multiprocess: bool = True,
        request_time_ms: int = 0,
    ) -> None:
        """`find` gives the application for an environment; `name` is that of the pool's own one, for the log."""
        self._find = find
        self._log = log
        self._name = name
        self._dev = dev
        self.limit_ns = request_time_ms * 1_000_000  #: 0 for none
        self._base: Environ = {
            "wsgi.version": (1, 0),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": threads > 1,
            "wsgi.multiprocess": multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,  # reading to the end is safe: the body's end is the file's
        }

    def serve(self, runner: Runner, item: Item) -> None:
        """Answers one request, whatever the application does. Raises nothing of the application's."""
        call = Call(runner, *item)
        environ = call.environ
        try:
            environ.update(self._base)
            environ["appserver.cancelled"] = call.is_over
            if self.limit_ns:
                environ["appserver.deadline"] = runner.deadline
            environ["wsgi.url_scheme"] = environ.get("REQUEST_SCHEME", "http")
            environ["wsgi.input"] = call.body_file or BytesIO(call.body)
            environ["wsgi.early_hints"] = call.early_hints
            if environ.get("REQUEST_METHOD") == "HEAD":
                call.head_only = True
            result = self._find(environ)(environ, call.start_response)
            if type(result) is list:
                # The common case, without the calls that would find that it is.
                if len(result) == 1 and not call.sent and not call.head_only and call.head is not None:
                    body = result[0]
                    status, fields, length, bodyless = call.head
                    if type(body) is bytes and not bodyless and (length is None or length == len(body)):
                        call.respond(status, fields, body)
                        return
                call.finish(result)
            else:
                _finish_and_close(call, result)
        except ClientGoneError:
            if not call.sent:
                call.respond(503, b"", b"")  # to nobody: it is the slot that waits for it
            call.close_stream(False)
        except BaseException as error:  # also SystemExit: a handler does not end the worker
            if runner.executor.in_child:
                forks.leave(self._log, error)
            self.fail(call, error)
        finally:
            if call.body_file is not None:
                call.body_file.close()
            # It has methods of the call, so that both would stay until the collector comes by.
            call.environ = _NOTHING

    def report(self, exchange: Exchange, level: str, event: str, **fields: Any) -> None:
        """A log record about a request."""
        environ = exchange.environ
        script = environ.get("appserver.script")
        if script:
            where = {"script": os.fsdecode(script.encode("latin-1"))}
        else:
            where = {"application": self._name or environ.get("appserver.application", "")}
        self._log(
            level,
            event,
            request=environ.get("appserver.request_id") or f"{exchange.request_id:016x}",
            method=environ.get("REQUEST_METHOD", ""),
            target=environ.get("REQUEST_URI", ""),
            **where,
            **fields,
        )

    def fail(self, call: Any, error: BaseException) -> None:
        """An application has raised that: the log says so, and the client gets 500 unless its answer has begun."""
        summary, trace = describe(error)
        self.report(call, "error", "handler failed", error=summary, traceback=trace)
        if not call.sent:
            # Without fields and body the core answers with the site's page for the status, which names the request.
            fields, body = _dev_page(call, summary, trace) if self._dev else (b"", b"")
            call.respond(500, fields, b"" if call.head_only else body)
        call.close_stream(call.is_whole)


def _finish_and_close(call: Call, result: Iterable[bytes]) -> None:
    try:
        call.finish(result)
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()


def _join(parts: Iterable[bytes]) -> bytes:
    for part in parts:
        if type(part) is not bytes:
            raise TypeError(f"the body must be bytes, not {type(part).__name__}")
    return b"".join(parts)


def _dev_page(exchange: Exchange, summary: str, trace: str) -> Tuple[bytes, bytes]:
    """Header block and page that show a traceback to the developer."""
    request = html.escape(str(exchange.environ.get("appserver.request_id", "")))
    page = (
        "<!doctype html>\n<meta charset=utf-8>\n<title>500 Internal Server Error</title>\n"
        f"<h1>500 Internal Server Error</h1>\n<p><b>{html.escape(summary)}</b></p>\n"
        f"<pre>{html.escape(trace)}</pre>\n<p>Request <code>{request}</code></p>\n"
    )
    fields = b"Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n"
    return fields, page.encode("utf-8", "backslashreplace")[: wire.INLINE_BODY_MAX]
