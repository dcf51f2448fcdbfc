"""`async def handle(request)`: a handler script's function in the event loop. What it may return is what a plain
`handle` may (request.py), and asynchronous iterators as well.
"""

from __future__ import annotations

import asyncio
import inspect
import tempfile
from io import BytesIO
from typing import TYPE_CHECKING, Any, AsyncIterator, Awaitable, Callable, Iterable, Iterator, List, Tuple

from . import request
from .multipart import BadInput
from .wsgi import FileWrapper, plain_file

if TYPE_CHECKING:
    from .asgi import HttpCall

SPOOLED_IN_MEMORY = 1024 * 1024  #: bytes of a streamed body; more go into a file
_END = object()

Respond = Callable[["HttpCall"], Awaitable[None]]


def async_application_of(handle: Callable[..., Any]) -> Respond:
    """A coroutine function that answers a call with what `handle(request)` gives."""

    async def respond(call: HttpCall) -> None:
        try:
            returned = handle(await _request_of(call))
            if inspect.isawaitable(returned):
                returned = await returned
            await answer(call, returned)
        except BadInput as error:
            if call.sent:
                raise
            await answer(call, (f"{error}\n", error.status))

    return respond


async def _request_of(call: HttpCall) -> request.Request:
    return request_with(call, await _body_file(call))


def request_with(call: HttpCall, body: Any) -> request.Request:
    """As a handler sees it. `body`: a file."""
    environ = call.environ
    environ["wsgi.url_scheme"] = environ.get("REQUEST_SCHEME", "http")
    environ["wsgi.input"] = body
    return request.Request(environ)


async def _body_file(call: HttpCall) -> Any:
    if call.body_file is not None:
        return call.body_file
    if not call.is_streamed:
        return BytesIO(call.body)
    file = tempfile.SpooledTemporaryFile(SPOOLED_IN_MEMORY)  # noqa: SIM115 (it lives as long as the request)
    while True:
        message = await call.receive()
        file.write(message.get("body", b""))
        if not message.get("more_body"):
            break
    file.seek(0)
    return file


async def answer(call: HttpCall, returned: Any) -> None:
    body = returned.body if isinstance(returned, request.Response) else returned
    if isinstance(returned, tuple) and returned:
        body = returned[0]
    if isinstance(body, AsyncIterator):
        await _answer_stream(call, returned, body)
        return
    status, headers, pieces = request.render(returned)
    try:
        await _send_head(call, status, headers)
        await _send_body(call, pieces)
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


async def _send_head(call: HttpCall, status: int, headers: Iterable[Tuple[str, str]]) -> None:
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await call.send({"type": "http.response.start", "status": request.status_code(status), "headers": fields})


async def _send_body(call: HttpCall, pieces: Iterable[bytes]) -> None:
    if isinstance(pieces, list):
        await call.send({"type": "http.response.body", "body": b"".join(pieces)})
        return
    if isinstance(pieces, FileWrapper):
        file = plain_file(pieces.filelike)
        if file is not None:
            call.send_plain_file(file.fd, file.offset, file.length)
            return
    # An iterator of an ordinary kind may block, and the loop must not.
    loop = asyncio.get_running_loop()
    iterator: Iterator[Any] = iter(pieces)
    while True:
        piece = await loop.run_in_executor(None, next, iterator, _END)
        if piece is _END:
            break
        await call.send({"type": "http.response.body", "body": piece, "more_body": True})
        if call.head_only:  # answered
            break
    await call.send({"type": "http.response.body"})


async def _answer_stream(call: HttpCall, returned: Any, pieces: AsyncIterator[Any]) -> None:
    """The first piece that is not empty tells the type, as with ordinary iterators."""
    try:
        first: Any = ""
        while not first:
            try:
                first = await pieces.__anext__()
            except StopAsyncIteration:
                break
        status, headers, _ = request.render(_with_body(returned, first or ""))
        await _send_head(call, status, headers)
        if first:
            await call.send({"type": "http.response.body", "body": _encoded(first), "more_body": True})
            call.cancel_when_gone(asyncio.current_task())
            while not call.head_only:  # that has been answered
                try:
                    piece = await pieces.__anext__()
                except StopAsyncIteration:
                    break
                await call.send({"type": "http.response.body", "body": _encoded(piece), "more_body": True})
        await call.send({"type": "http.response.body"})
    finally:
        call.cancel_when_gone(None)
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


def _with_body(returned: Any, body: Any) -> Any:
    """What was returned, with another body in it."""
    if isinstance(returned, request.Response):
        return request.Response(body, returned.status, returned.headers)
    if isinstance(returned, tuple):
        rest: List[Any] = list(returned[1:])
        return (body, *rest)
    return body


def _encoded(piece: Any) -> bytes:
    if isinstance(piece, str):
        return piece.encode("utf-8")
    if isinstance(piece, bytes):
        return piece
    raise TypeError(f"a streaming handler yields str or bytes, not {type(piece).__name__}")
