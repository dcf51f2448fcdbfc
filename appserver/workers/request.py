"""What a handler script works with: `def handle(request)` is given a Request and returns one of many things.

| returned | becomes |
|---|---|
| str | text/html when it begins with `<`, else text/plain; UTF-8 |
| bytes | application/octet-stream |
| dict, list | JSON |
| None | 204 No Content |
| pathlib.Path, open binary file | that file, sent by the server itself |
| iterator or generator of str or bytes | streamed, piece by piece |
| (body, status), (body, status, headers) | any of the above with status and headers |
| Response | the same, with names |

Scripts reach these classes under any interpreter with `from appserver_handler import Response`.
"""

from __future__ import annotations

import io
import itertools
import json
import mimetypes
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Union, cast
from urllib.parse import parse_qsl, quote

from . import multipart
from .multipart import BadInput, Form, TooLarge, Upload
from .values import Headers, MultiValues
from .watchdog import RequestTimeout
from .wsgi import Application, Environ, FileWrapper

__all__ = [
    "BadInput",
    "Disconnected",
    "Form",
    "Headers",
    "MultiValues",
    "Request",
    "RequestTimeout",
    "Response",
    "TooLarge",
    "Upload",
]

QUERY_FIELDS_MAX = 1000
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"
BYTES = "application/octet-stream"

HeaderList = List[Tuple[str, str]]
HeadersLike = Union[Mapping[str, str], Iterable[Tuple[str, str]], None]
Handle = Callable[["Request"], Any]


class Request:
    """One request. Everything is computed when it is first asked for; text is decoded as UTF-8, leniently."""

    def __init__(self, environ: Environ) -> None:
        self.environ = environ  #: the WSGI environment
        self.method: str = environ["REQUEST_METHOD"]
        self.headers = Headers(environ)
        self._body: Optional[bytes] = None
        self._query: Optional[MultiValues[str]] = None
        self._cookies: Optional[Dict[str, str]] = None
        self._form: Optional[Form] = None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"

    # Where to

    @property
    def script_name(self) -> str:
        """The part of the path that led to this handler: "/hello"."""
        return _text(self.environ.get("SCRIPT_NAME", ""))

    @property
    def path_info(self) -> str:
        """The rest of the path, which is the handler's own: "/world" or ""."""
        return _text(self.environ.get("PATH_INFO", ""))

    @property
    def path(self) -> str:
        """The whole path, decoded: "/hello/world"."""
        return self.script_name + self.path_info

    @property
    def query_string(self) -> str:
        """The query as the client wrote it."""
        text: str = self.environ.get("QUERY_STRING", "")
        return text

    @property
    def query(self) -> MultiValues[str]:
        """The fields of the query: `request.query.get("name", "world")`. Raises BadInput over QUERY_FIELDS_MAX."""
        if self._query is None:
            try:
                pairs = parse_qsl(
                    self.query_string, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, errors="replace"
                )
            except ValueError:
                raise BadInput(f"the query has more than {QUERY_FIELDS_MAX} fields") from None
            self._query = MultiValues(pairs)
        return self._query

    @property
    def scheme(self) -> str:
        """ "http" or "https"."""
        scheme: str = self.environ["wsgi.url_scheme"]
        return scheme

    @property
    def host(self) -> str:
        """Host and maybe port as the client wrote them: "example.org:8080"."""
        host = self.environ.get("HTTP_HOST")
        return host or f"{self.environ.get('SERVER_NAME', 'localhost')}:{self.environ.get('SERVER_PORT', '80')}"

    @property
    def url(self) -> str:
        """The whole URL."""
        path = self.environ.get("SCRIPT_NAME", "") + self.environ.get("PATH_INFO", "")
        quoted = quote(path.encode("latin-1"), safe="/:@!$&'()*+,;=~-._")
        return f"{self.scheme}://{self.host}{quoted}{'?' if self.query_string else ''}{self.query_string}"

    # From whom

    @property
    def client(self) -> str:
        """The client's address."""
        address: str = self.environ.get("REMOTE_ADDR", "")
        return address

    @property
    def id(self) -> str:
        """The request's id, as in the logs."""
        identifier: str = self.environ.get("appserver.request_id", "")
        return identifier

    @property
    def cookies(self) -> Dict[str, str]:
        """Cookies by name; of two with one name the first, which is the one with the more specific path."""
        if self._cookies is None:
            self._cookies = {}
            for item in _text(self.environ.get("HTTP_COOKIE", "")).split(";"):
                name, equals, value = item.strip().partition("=")
                if equals:
                    quoted = len(value) > 1 and value[0] == value[-1] == '"'
                    self._cookies.setdefault(name, value[1:-1] if quoted else value)
        return self._cookies

    # For how long

    @property
    def deadline(self) -> Optional[float]:
        """When the request's time is over, on the clock of `time.monotonic()`; None without a limit. Then the client
        gets 504, and RequestTimeout is raised in the handler."""
        deadline: Optional[float] = self.environ.get("appserver.deadline")
        return deadline

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more: the client has gone, or the deadline is over."""
        ask: Optional[Callable[[], bool]] = self.environ.get("appserver.cancelled")
        return ask is not None and ask()

    # With what

    @property
    def content_type(self) -> str:
        """Of the body, without parameters, in lower case: "application/json"."""
        return multipart.header_value(self.environ.get("CONTENT_TYPE", ""))[0]

    @property
    def stream(self) -> BinaryIO:
        """The body as a file, for what is too large for `body`."""
        return cast(BinaryIO, self.environ["wsgi.input"])

    @property
    def body(self) -> bytes:
        """The whole body."""
        if self._body is None:
            stream = self.stream
            if stream.seekable():
                stream.seek(0)
            self._body = stream.read()
        return self._body

    @property
    def text(self) -> str:
        """The body as text, in the charset that its type names, else UTF-8. Raises BadInput."""
        parameters = multipart.header_value(self.environ.get("CONTENT_TYPE", ""))[1]
        try:
            return self.body.decode(parameters.get("charset", "utf-8"))
        except (UnicodeError, LookupError) as error:
            raise BadInput(f"the body is not text: {error}") from None

    def json(self) -> Any:
        """The body as JSON. Raises BadInput."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"the body is not JSON: {error}") from None

    def form(self) -> Form:
        """The fields of a form, and its uploads in `.files`. Empty for other bodies. Raises BadInput, TooLarge."""
        if self._form is None:
            stream = self.stream if self._body is None else io.BytesIO(self._body)
            if stream.seekable():
                stream.seek(0)
            self._form = multipart.parse(self.environ.get("CONTENT_TYPE", ""), stream)
        return self._form

    @property
    def files(self) -> MultiValues[Upload]:
        """The uploads of a form, by the names of their fields. Raises BadInput, TooLarge."""
        return self.form().files


class Disconnected(ConnectionError):  # noqa: N818 (for users: what happened, not whose fault it is)
    """A WebSocket is over; `code` and `reason` are those of its end."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the WebSocket is over: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class Response:
    """An answer with names. `headers`: a mapping, or pairs when a name comes twice."""

    def __init__(
        self, body: Any = "", status: int = 200, headers: HeadersLike = None, content_type: Optional[str] = None
    ) -> None:
        self.body = body
        self.status = status
        self.headers: HeaderList = header_list(headers)
        if content_type is not None:
            self.headers.append(("Content-Type", content_type))

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def application_of(handle: Handle) -> Application:
    """A WSGI application that calls `handle(request)`."""

    def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            status, headers, body = render(handle(Request(environ)))
        except BadInput as error:
            status, headers, body = render((f"{error}\n", error.status))
        start_response(_status_line(status), headers)
        return body

    return application


def render(returned: Any) -> Tuple[int, HeaderList, Iterable[bytes]]:
    """Status, headers and body of whatever a handler returned. Raises TypeError with what it may return."""
    response = _response_of(returned)
    headers = list(response.headers)
    status, content_type, body = _body_of(response.body, response.status)
    if content_type and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", content_type))
    return status, headers, body


def _response_of(returned: Any) -> Response:
    if isinstance(returned, Response):
        return returned
    if not isinstance(returned, tuple):
        return Response(returned)
    if len(returned) not in (2, 3) or isinstance(returned[0], (tuple, Response)):
        raise TypeError("a handler's tuple is (body, status) or (body, status, headers)")
    return Response(*returned)


def _body_of(body: Any, status: int) -> Tuple[int, str, Iterable[bytes]]:
    """Status, content type and WSGI body. Most frequent first."""
    if isinstance(body, str):
        return status, _text_type(body), [body.encode("utf-8")]
    if isinstance(body, (dict, list)):
        return status, JSON, [json_bytes(body)]
    if isinstance(body, (bytes, bytearray, memoryview)):
        return status, BYTES, [bytes(body)]
    if body is None:
        return (204 if status == 200 else status), "", []
    if isinstance(body, Path):
        return _path_body(body, status)
    if isinstance(body, (io.BufferedIOBase, io.RawIOBase)):
        return status, _file_type(getattr(body, "name", "")), FileWrapper(body)
    if isinstance(body, Iterator):
        return (status, *_stream_body(body))
    raise TypeError(
        f"a handler returns str, bytes, dict, list, None, a Path, a binary file, an iterator, a tuple or a Response, "
        f"not {type(body).__name__}"
    )


def json_bytes(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON may have and UTF-8 may not
        return json.dumps(value).encode("ascii")


def _text_type(text: str) -> str:
    return HTML if text.lstrip()[:1] == "<" else TEXT


def _file_type(name: Any) -> str:
    return (mimetypes.guess_type(name)[0] if isinstance(name, str) else None) or BYTES


def _path_body(path: Path, status: int) -> Tuple[int, str, Iterable[bytes]]:
    """A missing file is the client's mistake more often than the handler's."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return 404, "", []
    kind, encoding = mimetypes.guess_type(path.name)
    return status, BYTES if kind is None or encoding else kind, FileWrapper(file)


def _stream_body(pieces: Iterator[Any]) -> Tuple[str, Iterable[bytes]]:
    """The first piece tells the type. Empty pieces before it are skipped."""
    for first in pieces:
        if first:
            kind = _text_type(first) if isinstance(first, str) else BYTES
            return kind, _Encoded(itertools.chain((first,), pieces), pieces)
    return TEXT, _Encoded(iter(()), pieces)


class _Encoded:
    """An iterator of str and bytes as bytes; closing it closes the handler's generator."""

    def __init__(self, pieces: Iterator[Any], source: Any) -> None:
        self._pieces = pieces
        self._source = source

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        if isinstance(piece, str):
            return piece.encode("utf-8")
        if isinstance(piece, bytes):
            return piece
        raise TypeError(f"a streaming handler yields str or bytes, not {type(piece).__name__}")

    def close(self) -> None:
        close = getattr(self._source, "close", None)
        if close is not None:
            close()


_REASONS: Dict[int, str] = {status.value: status.phrase for status in HTTPStatus}


def status_code(status: Any) -> int:
    """What a handler has given as a status. Raises TypeError."""
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"status must be a number, not {status!r}")
    return int(status)


def _status_line(status: Any) -> str:
    code = status_code(status)
    return f"{code} {_REASONS.get(code, 'Unknown')}"


def header_list(headers: HeadersLike) -> HeaderList:
    if headers is None:
        return []
    if isinstance(headers, Mapping):
        return list(headers.items())
    return [(name, value) for name, value in headers]


def _text(latin: str) -> str:
    """What WSGI gives as latin-1, as the UTF-8 that it usually is."""
    return latin.encode("latin-1").decode("utf-8", "replace")
