"""Status and headers of an answer: checked once, encoded once, then remembered.

Applications send the same few heads again and again, so whole heads are kept by value: for a head that was seen before,
validation and encoding are one dictionary look-up.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

from .wire import FIELD_COUNT_MAX, FIELDS_MAX

CACHE_MAX = 1024  #: heads that are remembered
CACHED_LEN_MAX = 2048  #: bytes of a head that is worth it

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_STATUS = re.compile(r"([2-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\Z", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,18}\Z", re.ASCII)

#: They belong to the connection, which is the server's (PEP 3333, "Other HTTP Features"; RFC 9110 section 7.6.1).
HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    )
)
BODYLESS = frozenset((204, 205, 304))


class Head(NamedTuple):
    """A valid head."""

    status: int
    fields: bytes  #: `Name: value\r\n` lines without Content-Length
    length: Optional[int]  #: of Content-Length
    bodyless: bool  #: whether the status forbids a body


class HeadError(ValueError):
    """The application's status or headers are not valid; the message says what to change."""


cache: Dict[Tuple[Any, ...], Head] = {}


def encode(status: str, headers: List[Tuple[str, str]]) -> Head:
    """Raises HeadError, or TypeError when something is not of the type that PEP 3333 demands."""
    if not isinstance(headers, list):
        raise TypeError(f"headers must be a list of (name, value), not {type(headers).__name__}")
    head = _encode(_status(status), headers)
    if len(head.fields) <= CACHED_LEN_MAX:
        if len(cache) >= CACHE_MAX:
            cache.clear()
        cache[(status, *headers)] = head
    return head


def encode_bytes(status: int, headers: List[Tuple[bytes, bytes]]) -> Head:
    """The same for ASGI: a status code, names and values in bytes. Raises HeadError, TypeError."""
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"status must be an int such as 200, not {status!r}")
    if not 200 <= status <= 599:
        raise HeadError(f"status must be from 200 to 599, not {status}")
    head = _encode(int(status), _texts(headers))
    if len(head.fields) <= CACHED_LEN_MAX:
        if len(cache) >= CACHE_MAX:
            cache.clear()
        with contextlib.suppress(TypeError):  # pairs may be lists
            cache[(status, *headers)] = head
    return head


def fields_for_head(head: Head, length: Optional[int]) -> bytes:
    """The header block of the answer to HEAD, whose GET has a body of that length (None: not known)."""
    if length is None or head.bodyless:
        return head.fields
    if not length and not head.fields and head.status >= 400:
        return b""  # a GET gets the site's page for the status
    return b"%sContent-Length: %d\r\n" % (head.fields, length)


def encode_fields(headers: Iterable[Tuple[bytes, bytes]]) -> bytes:
    """The header block of an interim response, or trailers. Raises HeadError, TypeError."""
    head = _encode(200, _texts(headers))
    if head.length is not None:
        raise HeadError("header Content-Length belongs into the response's own head")
    return head.fields


def _texts(headers: Iterable[Tuple[bytes, bytes]]) -> List[Tuple[str, str]]:
    """As `_encode` takes them. Fields of the connection are left out: ASGI lets applications send them, and they are
    the server's to write."""
    texts = []
    for item in headers:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise TypeError(f"a header must be a pair (name, value), not {item!r}")
        name, value = item
        if not isinstance(name, (bytes, bytearray)) or not isinstance(value, (bytes, bytearray)):
            raise TypeError(f"header name and value must be bytes, not {name!r}: {value!r}")
        text = name.decode("latin-1")
        if text.lower() not in HOP_BY_HOP:
            texts.append((text, value.decode("latin-1")))
    return texts


def encode_interim(headers: List[Tuple[str, str]]) -> bytes:
    """The header block of an interim response. Raises HeadError, TypeError."""
    if not isinstance(headers, list):
        raise TypeError(f"headers must be a list of (name, value), not {type(headers).__name__}")
    head = _encode(103, headers)
    if head.length is not None:
        raise HeadError("header Content-Length does not belong into an interim response")
    return head.fields


def _status(status: str) -> int:
    if not isinstance(status, str):
        raise TypeError(f"status must be a str such as '200 OK', not {status!r}")
    match = _STATUS.match(status)
    if match is None:
        raise HeadError(f"status must be three digits from 200 to 599 and a reason, not {status!r}")
    return int(match.group(1))


def _encode(status: int, headers: List[Tuple[str, str]]) -> Head:
    lines: List[str] = []
    length: Optional[int] = None
    for item in headers:
        if not isinstance(item, tuple) or len(item) != 2:
            raise TypeError(f"a header must be a tuple (name, value), not {item!r}")
        name, value = item
        lower = _check(name, value)
        if lower == "content-length":
            length = _length(value, length)
        else:
            lines.append(f"{name}: {value}\r\n")
    try:
        fields = "".join(lines).encode("latin-1")
    except UnicodeEncodeError as error:
        raise HeadError(f"headers must be latin-1, not {error.object[error.start : error.end]!r}") from None
    if len(fields) > FIELDS_MAX or len(lines) > FIELD_COUNT_MAX:
        raise HeadError(f"headers are limited to {FIELD_COUNT_MAX} and {FIELDS_MAX} bytes")
    return Head(status, fields, None if status == 204 else length, status in BODYLESS)


def _check(name: str, value: str) -> str:
    """The name in lower case."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"header name and value must be str, not {name!r}: {value!r}")
    if not _TOKEN.match(name):
        raise HeadError(f"not a header name: {name!r}")
    if _CONTROL.search(value):
        raise HeadError(f"control character in header {name}: {value!r}")
    lower = name.lower()
    if lower in HOP_BY_HOP or lower == "status":
        raise HeadError(f"header {name} is the server's to send")
    return lower


def _length(value: str, before: Optional[int]) -> int:
    if not _DIGITS.match(value):
        raise HeadError(f"Content-Length must be a number, not {value!r}")
    length = int(value)
    if before is not None and before != length:
        raise HeadError(f"two Content-Lengths: {before} and {length}")
    return length
