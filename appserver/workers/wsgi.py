"""Runs WSGI applications (PEP 3333) and turns what they return into answers.

The usual case is first and short: a list with one small bytes object becomes one frame. Everything else is told apart only when it occurs: several pieces, a
file (``wsgi.file_wrapper``), a large body (memfd), a stream (pipe).
"""

import io
import os
import re
import stat
import sys
import time
import traceback
from html import escape
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from . import wire

if TYPE_CHECKING:
    from .control import Control
    from .executor import Outbox
    from .script import Applications

Header = Tuple[str, str]
Application = Callable[..., Iterable[bytes]]

#: Fields that belong to the connection (RFC 9110 section 7.6.1); PEP 3333 forbids applications to send them.
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "trailers", "transfer-encoding", "upgrade")
)
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
STATUS = re.compile(r"[1-5][0-9][0-9]( [\t\x20-\x7e\x80-\xff]*)?")
KEPT_LINES = 2048  #: header lines remembered as checked and spelled
FILE_BLOCK = 64 * 1024


class BadResponse(Exception):
    """The application broke the rules of PEP 3333 or HTTP; the text says which and where."""


class FileWrapper:
    """``wsgi.file_wrapper``: a file that the core sends by itself when it is a regular one; else an iterator over its blocks."""

    def __init__(self, filelike: Any, block_size: int = FILE_BLOCK) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        while True:
            block = self.filelike.read(self.block_size)
            if not block:
                return
            yield block

    def close(self) -> None:
        """Closes the file, as PEP 3333 wants."""
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()

    def regular(self) -> Optional[Tuple[int, int, int]]:
        """Descriptor, offset and length in bytes when the rest of a regular file is meant; else None."""
        try:
            fd = self.filelike.fileno()
            status = os.fstat(fd)
            offset = self.filelike.tell()
        except (AttributeError, OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return fd, offset, max(0, status.st_size - offset)


class Lines:
    """Header fields as checked lines; what was checked once is remembered."""

    def __init__(self) -> None:
        self._known: Dict[Header, str] = {}

    def line(self, header: Header) -> str:
        """``Name: value\\r\\n``; raises :exc:`BadResponse`."""
        try:
            known = self._known.get(header)
        except TypeError:
            known = None
        if known is not None:
            return known
        line = self._check(header)
        if len(self._known) >= KEPT_LINES:
            self._known.clear()
        self._known[header] = line
        return line

    @staticmethod
    def _check(header: Any) -> str:
        if type(header) is not tuple or len(header) != 2:
            raise BadResponse(f"a header must be a tuple (name, value), not {header!r}")
        name, value = header
        if type(name) is not str or type(value) is not str:
            raise BadResponse(f"name and value of a header must be str: {header!r}")
        if TOKEN.fullmatch(name) is None:
            raise BadResponse(f"a header name must be a token (RFC 9110 section 5.6.2): {name!r}")
        if FORBIDDEN.search(value) is not None:
            raise BadResponse(f"a header value must not contain control characters: {name}: {value!r}")
        if name.lower() in HOP_BY_HOP:
            raise BadResponse(f"the header {name} belongs to the connection, which is the server's (PEP 3333)")
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise BadResponse(f"a header value must be latin-1: {name}: {value!r}") from None
        return f"{name}: {value}\r\n"


class Exchange:
    """One request of an application: ``start_response``, ``write`` and the answer."""

    __slots__ = ("_lines", "_outbox", "_frame", "_started", "status", "fields", "length", "committed", "writer", "left", "excess")

    def __init__(self, lines: Lines, outbox: "Outbox", frame: wire.Frame, started: int) -> None:
        self._lines = lines
        self._outbox = outbox
        self._frame = frame
        self._started = started
        self.status = 0
        self.fields = b""
        self.length = -1  #: Content-Length that the application gave; -1
        self.committed = False  #: an answer frame has been queued or sent
        self.writer = -1  #: writing end of the pipe of a stream
        self.left = -1  #: bytes of Content-Length that a stream still owes; -1 without
        self.excess = False

    def start_response(self, status: str, headers: List[Header], exc_info: Any = None) -> Callable[[bytes], None]:
        """PEP 3333; raises :exc:`BadResponse`, or what ``exc_info`` holds when the head has gone already."""
        if exc_info is not None:
            try:
                if self.committed:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status:
            raise BadResponse("start_response was called twice without exc_info (PEP 3333)")
        if type(status) is not str or STATUS.fullmatch(status) is None:
            raise BadResponse(f"a status must be a str such as '200 OK', not {status!r}")
        code = int(status[:3])
        if code < 200:
            raise BadResponse(f"the status {status!r} is interim; an application's begins at 200")
        if not isinstance(headers, list):
            raise BadResponse(f"headers must be a list of tuples, not {type(headers).__name__}")
        line = self._lines.line
        block = "".join([line(header) for header in headers])
        self.length = -1
        if "ontent-" in block or "ontent-" in block.lower():
            self.length = self._content_length(headers)
        self.fields = block.encode("latin-1")
        self.status = code
        return self.write

    @staticmethod
    def _content_length(headers: List[Header]) -> int:
        length = -1
        for name, value in headers:
            if name.lower() == "content-length":
                if not (value.isascii() and value.isdigit()) or (length >= 0 and length != int(value)):
                    raise BadResponse(f"Content-Length must be one number, not {value!r}")
                length = int(value)
        return length

    def _run_us(self) -> int:
        return min((time.perf_counter_ns() - self._started) // 1000, 0xFFFFFFFF)

    def _head(self) -> Tuple[int, bytes]:
        if not self.status:
            raise BadResponse("the application returned a body without having called start_response")
        return self.status, self.fields

    def send_whole(self, body: bytes) -> None:
        """The answer is complete in memory."""
        status, fields = self._head()
        if self.length >= 0 and len(body) != self.length and self._has_body():
            if len(body) < self.length:
                raise BadResponse(f"the body has {len(body)} bytes, its Content-Length says {self.length}")
            self.excess = True
            body = body[: self.length]
        self.committed = True
        frame = self._frame
        if len(body) + len(fields) <= wire.INLINE_MAX:
            self._outbox.add(wire.answer(wire.RESPONSE, frame.slot, frame.request_id, status, fields, self._run_us(), body))
            return
        fd = os.memfd_create("response", os.MFD_CLOEXEC)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(fd, view) :]
            self.send_file(fd, 0, len(body))
        finally:
            os.close(fd)

    def _has_body(self) -> bool:
        return self.status not in (204, 304) and not self._is_head()

    def _is_head(self) -> bool:
        return bytes(self._frame.environment).find(b"REQUEST_METHOD\0HEAD\0") >= 0

    def send_file(self, fd: int, offset: int, length: int) -> None:
        """The body is a part of a regular file; the descriptor stays the caller's."""
        status, fields = self._head()
        self.committed = True
        frame = self._frame
        self._outbox.send_fd(
            wire.answer(wire.FILE, frame.slot, frame.request_id, status, fields, self._run_us(), length=length, offset=offset), fd
        )

    def begin_stream(self) -> None:
        """The body comes through a pipe from now on; the client gets the head."""
        status, fields = self._head()
        reader, self.writer = os.pipe()
        self.committed = True
        self.left = self.length
        frame = self._frame
        length = self.length if self.length >= 0 else wire.UNKNOWN_LENGTH
        try:
            self._outbox.send_fd(
                wire.answer(wire.STREAM, frame.slot, frame.request_id, status, fields, self._run_us(), length=length), reader
            )
        finally:
            os.close(reader)

    def write(self, data: bytes) -> None:
        """PEP 3333's write(): what is given is on its way when this returns. Also every piece of a streamed iteration."""
        if type(data) is not bytes:
            raise BadResponse(f"a body consists of bytes, not {type(data).__name__}")
        if self.writer < 0:
            self.begin_stream()
        if self.left >= 0:
            if len(data) > self.left:
                self.excess = True
                data = data[: self.left]
            self.left -= len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self.writer, view) :]

    def end_stream(self, complete: bool) -> None:
        """Says `end` and closes the pipe, in this order: an end of the pipe without the word would look like a crash."""
        frame = self._frame
        if self.left > 0:
            complete = False
        self._outbox.add(
            wire.answer(wire.END, frame.slot, frame.request_id, 0 if complete else 1, run_us=self._run_us())
        )
        self._outbox.flush()
        os.close(self.writer)
        self.writer = -1

    def fail(self, fields: bytes, body: bytes) -> None:
        """A 500 instead of what the application began, or the end of a stream that cannot be taken back."""
        if self.writer >= 0:
            self.end_stream(False)
        elif not self.committed:
            self.status, self.fields, self.length = 500, fields, -1
            self.send_whole(body)


class Runner:
    """Runs request frames; used by all request threads."""

    def __init__(self, control: "Control", configuration: Dict[str, Any], threads: int, applications: "Applications") -> None:
        self.applications = applications
        self._control = control
        self._dev = bool(configuration.get("dev"))
        self._lines = Lines()
        self._base: Dict[str, Any] = {
            "wsgi.version": (1, 0),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": threads > 1,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
        }

    def run(self, frame: wire.Frame, fd: int, outbox: "Outbox") -> None:
        """Runs one request to its answer. ``fd`` (-1: none) is the body's file and is closed here. Raises only what the sockets raise."""
        exchange = Exchange(self._lines, outbox, frame, time.perf_counter_ns())
        environ: Dict[str, Any] = {}
        try:
            environ = wire.environ_of(frame.environment)
            environ.update(self._base)
            environ["wsgi.url_scheme"] = environ.get("REQUEST_SCHEME", "http")
            environ["wsgi.input"] = open(fd, "rb") if fd >= 0 else io.BytesIO(frame.body)
            fd = -1
            application = self.applications.find(environ)
            self._answer(exchange, application(environ, exchange.start_response))
        except ConnectionError as problem:
            if exchange.writer >= 0:
                exchange.end_stream(False)  # the client has gone
            else:
                self._failed(exchange, environ, problem)
        except BaseException as problem:  # SystemExit or KeyboardInterrupt of an application must not end the worker
            self._failed(exchange, environ, problem)
        finally:
            if fd >= 0:
                os.close(fd)
            body = environ.get("wsgi.input")
            if body is not None:
                body.close()
        if exchange.excess:
            self._log(environ, "warning", "the body was longer than its Content-Length and was cut off")

    @staticmethod
    def _answer(exchange: Exchange, result: Any) -> None:
        kind = type(result)
        if (kind is list or kind is tuple) and exchange.writer < 0:
            for piece in result:
                if type(piece) is not bytes:
                    raise BadResponse(f"a body consists of bytes, not {type(piece).__name__}")
            exchange.send_whole(result[0] if len(result) == 1 else b"".join(result))
            return
        try:
            if kind is FileWrapper and exchange.writer < 0 and (place := result.regular()) is not None:
                fd, offset, length = place
                if exchange.length >= 0:
                    length = min(length, exchange.length)
                exchange.send_file(fd, offset, length)
            else:
                _iterate(exchange, result)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def _failed(self, exchange: Exchange, environ: Dict[str, Any], problem: BaseException) -> None:
        text = "".join(traceback.format_exception(type(problem), problem, problem.__traceback__))
        what = "handler broke the rules" if isinstance(problem, BadResponse) else "handler failed"
        self._log(environ, "error", what, problem=f"{type(problem).__name__}: {problem}", traceback=text)
        fields = b"Content-Type: text/html; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
        exchange.fail(fields, error_page(environ, text if self._dev else "").encode())

    def _log(self, environ: Dict[str, Any], level: str, event: str, **fields: Any) -> None:
        self._control.log(
            level,
            event,
            request=environ.get("appserver.request_id", ""),
            handler=environ.get("appserver.script") or environ.get("appserver.application", ""),
            target=f"{environ.get('REQUEST_METHOD', '')} {environ.get('REQUEST_URI', '')}",
            **fields,
        )


def _iterate(exchange: Exchange, result: Iterable[bytes]) -> None:
    """Streams an iterable. Its first piece is looked at before the head goes out, so that a body of one piece with its length given needs no pipe."""
    pieces = iter(result)
    first = b""
    for piece in pieces:
        if type(piece) is not bytes:
            raise BadResponse(f"a body consists of bytes, not {type(piece).__name__}")
        if piece:
            first = piece
            break
    if exchange.writer < 0:
        if len(first) == exchange.length or not first:
            exchange.send_whole(first)
            for _piece in pieces:  # an application may do its work after its last byte
                pass
            return
        exchange.begin_stream()
    if first:
        exchange.write(first)
    for piece in pieces:
        exchange.write(piece)
    missing = exchange.left
    exchange.end_stream(True)
    if missing > 0:
        raise BadResponse(f"the body ended {missing} bytes before its Content-Length")


def error_page(environ: Dict[str, Any], text: str) -> str:
    """The page of a 500: short for visitors, with the traceback in development."""
    incident = escape(str(environ.get("appserver.request_id", "")))
    details = f"<pre>{escape(text)}</pre>" if text else "<p>The reason is in the server's log.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>500 Internal Server Error</title>\n'
        "<style>body{font:1rem/1.5 system-ui,sans-serif;margin:10vh auto;max-width:60rem;padding:0 1rem;color:#222}"
        "h1{font-weight:600}code{color:#666}pre{background:#f5f5f5;padding:1rem;overflow:auto}</style></head>\n"
        f"<body><h1>500 Internal Server Error</h1>\n{details}\n<p>Request <code>{incident}</code></p></body></html>\n"
    )
