"""The frames of the executor protocol from the core's side (docs/executor-protocol.md, sections 3 and 4), for whoever
plays the core for one request. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from appserver.errors import AppError

VERSION = 2
REQUEST = struct.Struct("=IHHIIQQIIQ")
ANSWER = struct.Struct("=IHHIHHQIIQQII")
RUN = 1
BODY_FD = 1
RESPONSE, FILE, STREAM, DOCUMENT, END, SKIPPED, INFORMATIONAL, UPGRADE = range(1, 9)
DATAGRAM_MAX = 192 * 1024
INLINE_BODY_MAX = 64 * 1024


class FrameError(AppError):
    """An executor broke the protocol."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer frame."""

    kind: int
    status: int
    request_id: int
    fields: bytes  #: `Name: value\\r\\n` lines
    body: bytes
    body_len: int
    file_offset: int


def request_frame(slot: int, request_id: int, environment: Mapping[str, str], body: bytes, in_file: bool) -> bytes:
    """A request for loop 0 without a deadline; `in_file`: its body comes as a descriptor."""
    block = "".join(f"{name}\0{value}\0" for name, value in environment.items()).encode("latin-1", "replace")
    inline = b"" if in_file else body
    head = REQUEST.pack(
        REQUEST.size + len(block) + len(inline),
        VERSION,
        RUN,
        slot,
        0,
        request_id,
        0,
        len(block),
        BODY_FD if in_file else 0,
        len(body),
    )
    return head + block + inline


def answers(data: bytes) -> Iterator[Answer]:
    """The answers of a datagram. Raises FrameError."""
    while data:
        if len(data) < ANSWER.size:
            raise FrameError(f"an answer of {len(data)} bytes; expected at least {ANSWER.size}")
        head = ANSWER.unpack_from(data)
        length, version, kind, _, status, _, request_id, fields_len, _, body_len, offset, _, _ = head
        if version != VERSION or not ANSWER.size + fields_len <= length <= len(data):
            raise FrameError(f"an answer of version {version} and {length} bytes in {len(data)}")
        fields_end = ANSWER.size + fields_len
        yield Answer(
            kind, status, request_id, data[ANSWER.size : fields_end], data[fields_end:length], body_len, offset
        )
        data = data[length:]
