"""What a handler script sees and may return.

``def handle(request)`` gets a :class:`Request` and returns one of: str (HTML when it begins with ``<``, else plain text), bytes, dict or list (JSON), None (204), a
:class:`pathlib.Path` or an open file, an iterator of str or bytes (streamed), a tuple ``(body, status)`` or ``(body, status, headers)``, or a :class:`Response`.
"""

import io
import json
import mimetypes
import os
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Union
from urllib.parse import parse_qsl, quote

from .forms import Form, parse_multipart

MAX_FORM = 16 * 1024 * 1024  #: bytes of a form that is read into memory; larger ones: use request.stream
MAX_FIELDS = 1000


class RequestError(Exception):
    """What the client sent cannot be used; becomes the answer with this status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class MultiDict(Dict[str, str]):
    """A dict of the first value of each name; ``getlist`` has them all."""

    def __init__(self, pairs: Iterable[Tuple[str, str]]) -> None:
        super().__init__()
        self._all: Dict[str, List[str]] = {}
        for name, value in pairs:
            self._all.setdefault(name, []).append(value)
            self.setdefault(name, value)

    def getlist(self, name: str) -> List[str]:
        """Every value of the name, in order; empty when there is none."""
        return list(self._all.get(name, ()))


class Headers(Mapping[str, str]):
    """Request header fields; names in any case."""

    def __init__(self, environ: Dict[str, Any]) -> None:
        self._environ = environ

    @staticmethod
    def _key(name: str) -> str:
        key = name.upper().replace("-", "_")
        return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key

    def __getitem__(self, name: str) -> str:
        try:
            value: str = self._environ[self._key(name)]
        except KeyError:
            raise KeyError(name) from None
        return value

    def __iter__(self) -> Iterator[str]:
        for key in self._environ:
            if key.startswith("HTTP_"):
                yield key[5:].replace("_", "-").title()
            elif key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                yield key.replace("_", "-").title()

    def __len__(self) -> int:
        return sum(1 for _name in self)


def _text(value: str) -> str:
    """A WSGI native string (latin-1) as the UTF-8 text that it almost always is."""
    return value.encode("latin-1").decode("utf-8", "replace")


class Request:
    """One request. Everything but ``stream`` may be read as often as one likes."""

    def __init__(self, environ: Dict[str, Any]) -> None:
        self.environ: Dict[str, Any] = environ  #: the WSGI environment
        self.method: str = environ["REQUEST_METHOD"]
        self.script_name: str = _text(environ.get("SCRIPT_NAME", ""))  #: where the handler is mounted, "/hello"
        self.path_info: str = _text(environ.get("PATH_INFO", ""))  #: what follows it, "/a/b" or ""
        self.path: str = self.script_name + self.path_info
        self.headers = Headers(environ)
        self.stream: io.BufferedIOBase = environ["wsgi.input"]  #: the body as a file
        self._query: Optional[MultiDict] = None
        self._body: Optional[bytes] = None
        self._form: Optional[Form] = None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url}>"

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        scheme: str = self.environ["wsgi.url_scheme"]
        return scheme

    @property
    def host(self) -> str:
        """Host and port as the client named them."""
        host: str = self.environ.get("HTTP_HOST") or self.environ.get("SERVER_NAME", "")
        return host

    @property
    def client(self) -> str:
        """The client's address."""
        address: str = self.environ.get("REMOTE_ADDR", "")
        return address

    @property
    def query_string(self) -> str:
        """What follows the question mark, as sent."""
        query: str = self.environ.get("QUERY_STRING", "")
        return query

    @property
    def url(self) -> str:
        """The whole URL."""
        query = f"?{self.query_string}" if self.query_string else ""
        return f"{self.scheme}://{self.host}{quote(self.path)}{query}"

    @property
    def id(self) -> str:
        """The request's id as in the server's logs."""
        number: str = self.environ.get("appserver.request_id", "")
        return number

    @property
    def query(self) -> MultiDict:
        """The query's parameters, decoded."""
        if self._query is None:
            self._query = MultiDict(_pairs(self.query_string))
        return self._query

    @property
    def cookies(self) -> Dict[str, str]:
        """The cookies by name."""
        try:
            jar = SimpleCookie(self.environ.get("HTTP_COOKIE", ""))
        except CookieError:
            return {}
        return {name: morsel.value for name, morsel in jar.items()}

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case; empty when there is none."""
        kind: str = self.environ.get("CONTENT_TYPE", "")
        return kind.partition(";")[0].strip().lower()

    @property
    def body(self) -> bytes:
        """The whole body."""
        if self._body is None:
            self._body = self.stream.read()
        return self._body

    @property
    def text(self) -> str:
        """The body as text, in the charset that Content-Type names or UTF-8; 400 when it is not that."""
        charset = "utf-8"
        for parameter in self.environ.get("CONTENT_TYPE", "").split(";")[1:]:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset":
                charset = value.strip().strip('"')
        try:
            return self.body.decode(charset)
        except (LookupError, UnicodeDecodeError) as problem:
            raise RequestError(400, f"The body is not {charset} text: {problem}") from None

    def json(self) -> Any:
        """The body as JSON; 400 when it is none."""
        try:
            return json.loads(self.text)
        except ValueError as problem:
            raise RequestError(400, f"The body is not JSON: {problem}") from None

    @property
    def form(self) -> MultiDict:
        """The fields of a posted form (URL-encoded or multipart)."""
        return MultiDict(self._read_form().fields)

    @property
    def files(self) -> Dict[str, Any]:
        """The files of a posted multipart form by field name: objects with ``filename``, ``content_type``, ``data``, ``save(path)``."""
        return dict(self._read_form().files)

    def _read_form(self) -> Form:
        if self._form is None:
            self._form = self._parse_form()
        return self._form

    def _parse_form(self) -> Form:
        if int(self.environ.get("CONTENT_LENGTH") or 0) > MAX_FORM:
            raise RequestError(413, f"The form is over {MAX_FORM} bytes.")
        if self.content_type == "application/x-www-form-urlencoded":
            return Form(_pairs(self.body.decode("latin-1")), [])
        if self.content_type == "multipart/form-data":
            try:
                return parse_multipart(self.body, self.environ["CONTENT_TYPE"])
            except ValueError as problem:
                raise RequestError(400, f"The form cannot be read: {problem}") from None
        return Form([], [])


def _pairs(text: str) -> List[Tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as problem:
        raise RequestError(400, f"Too many fields: {problem}") from None


HeaderList = Union[Mapping[str, str], Iterable[Tuple[str, str]]]


class Response:
    """An answer with everything said: ``Response(body, status=200, headers={...}, content_type=None)``."""

    def __init__(self, body: Any = b"", status: int = 200, headers: HeaderList = (), content_type: Optional[str] = None) -> None:
        self.body = body
        self.status = status
        self.headers: List[Tuple[str, str]] = [
            (str(name), str(value)) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)
        ]
        if content_type is not None:
            self.headers.append(("Content-Type", content_type))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _encode(pieces: Iterable[Any]) -> Iterator[bytes]:
    for piece in pieces:
        if not isinstance(piece, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"a streamed body yields str or bytes, not {type(piece).__name__}")
        yield piece.encode() if isinstance(piece, str) else bytes(piece)


def _body_of(value: Any, environ: Dict[str, Any]) -> Tuple[Any, Optional[str], int]:
    """WSGI body, media type and length in bytes (-1: unknown) of what a handler returned."""
    if isinstance(value, str):
        data = value.encode()
        return [data], "text/html; charset=utf-8" if value.lstrip()[:1] == "<" else "text/plain; charset=utf-8", len(data)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return [bytes(value)], "application/octet-stream", len(value)
    if isinstance(value, (dict, list)):
        data = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        return [data], "application/json", len(data)
    if isinstance(value, os.PathLike):
        value = open(value, "rb")  # closed by the file wrapper
    if hasattr(value, "read"):
        kind = mimetypes.guess_type(str(getattr(value, "name", "")))[0] or "application/octet-stream"
        return environ["wsgi.file_wrapper"](value), kind, -1
    if hasattr(value, "__iter__"):
        return _encode(value), "text/plain; charset=utf-8", -1
    raise TypeError(
        f"handle() returned {type(value).__name__}; expected str, bytes, dict, list, None, a path, a file, an iterator, a tuple or a Response"
    )


def _response_of(value: Any) -> Response:
    if isinstance(value, Response):
        return value
    if isinstance(value, tuple):
        if len(value) not in (2, 3) or not isinstance(value[1], int):
            raise TypeError("a tuple from handle() is (body, status) or (body, status, headers)")
        return Response(*value)
    return Response(value)


def respond(value: Any, environ: Dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Turns what ``handle`` returned into a WSGI answer; raises TypeError for what it must not return."""
    response = _response_of(value)
    headers = list(response.headers)
    names = {name.lower() for name, _value in headers}
    if response.body is None:
        status = 204 if response.status == 200 else response.status
        start_response(f"{status} {_phrase(status)}", headers)
        return [b""]
    body, kind, length = _body_of(response.body, environ)
    if "content-type" not in names and kind is not None:
        headers.append(("Content-Type", kind))
    if length >= 0 and "content-length" not in names:
        headers.append(("Content-Length", str(length)))
    start_response(f"{response.status} {_phrase(response.status)}", headers)
    iterable: Iterable[bytes] = body
    return iterable


def application_of(handle: Callable[[Request], Any]) -> Callable[..., Iterable[bytes]]:
    """The WSGI application around a ``handle`` function."""

    def application(environ: Dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            value = handle(Request(environ))
        except RequestError as problem:
            value = (f"{problem}\n", problem.status)
        return respond(value, environ, start_response)

    return application
