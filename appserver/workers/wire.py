"""The frames of the executor protocol (docs/executor-protocol.md, sections 2 to 5 and 8). No I/O, no state."""

from __future__ import annotations

import struct
from typing import Dict, List, Tuple, Union

VERSION = 2
REQUEST_HEAD_LEN = 48
ANSWER_HEAD_LEN = 56
DATAGRAM_MAX = 192 * 1024
INLINE_BODY_MAX = 64 * 1024  #: bytes of a body inside a frame; larger ones are files
FIELDS_MAX = 64 * 1024  #: bytes of a header block
FIELD_COUNT_MAX = 256
STREAM_UNKNOWN = 2**64 - 1

REQUEST = struct.Struct("=IHHIIQQIIQ")
ANSWER = struct.Struct("=IHHIHHQIIQQII")

RUN, CANCEL = 1, 2
BODY_FD, BODY_STREAM, UPGRADE = 1, 2, 4  #: flags: what the attached descriptor is
FD_FLAGS = BODY_FD | BODY_STREAM | UPGRADE
FILE_LENT = 1  #: flag of a FILE: a buffer that is lent
RESPONSE, FILE, STREAM, DOCUMENT, END, SKIPPED, INFORMATIONAL, UPGRADED = 1, 2, 3, 4, 5, 6, 7, 8

SLOT_MAGIC = 0x534C4F54
SLOT_VERSION = 1
SLOT_HEADER_LEN = 64
SLOT_LEN = 64
SLOT_HEADER = struct.Struct("=IIIII")

Buffer = Union[bytes, bytearray, memoryview]
#: slot, loop, request id, flags, start and end of the environment, end of frame and body
Request = Tuple[int, int, int, int, int, int, int]


class FrameError(ValueError):
    """The other side broke the protocol."""


def split_requests(buf: Buffer, end: int) -> List[Request]:
    """The requests of the datagram `buf[:end]`; cancel frames are left out. Raises FrameError."""
    found: List[Request] = []
    at = 0
    unpack_from = REQUEST.unpack_from
    while at < end:
        if end - at < REQUEST_HEAD_LEN:
            raise FrameError(f"{end - at} bytes behind the last frame")
        length, version, kind, slot, loop, request_id, _, environment_len, flags, body_len = unpack_from(buf, at)
        environment_end = at + REQUEST_HEAD_LEN + environment_len
        frame_end = environment_end if flags & FD_FLAGS else environment_end + body_len
        if version != VERSION or frame_end - at != length or frame_end > end:
            raise FrameError(f"version {version}, {length} bytes for {frame_end - at} in {end - at}")
        if kind == RUN:
            if environment_len and buf[environment_end - 1] != 0:
                raise FrameError("the environment does not end with NUL")
            found.append((slot, loop, request_id, flags, at + REQUEST_HEAD_LEN, environment_end, frame_end))
        elif kind != CANCEL:
            raise FrameError(f"unknown kind {kind}")
        at = frame_end
    return found


def environment(block: Buffer) -> Dict[str, str]:
    """The variables of an environment block, as WSGI wants them: bytes as latin-1."""
    parts = iter(str(block, "latin-1").split("\0"))
    return dict(zip(parts, parts))  # noqa: B905 (the text behind the last NUL has no partner)


def answer(
    kind: int,
    slot: int,
    request_id: int,
    status: int = 0,
    fields: bytes = b"",
    body: bytes = b"",
    run_us: int = 0,
    body_len: int = 0,
    file_offset: int = 0,
    cpu_us: int = 0,
    flags: int = 0,
) -> bytes:
    """One answer frame. `body` is for kind RESPONSE, `body_len` for FILE and STREAM."""
    return (
        ANSWER.pack(
            ANSWER_HEAD_LEN + len(fields) + len(body),
            VERSION,
            kind,
            slot,
            status,
            flags,
            request_id,
            len(fields),
            min(run_us, 0xFFFFFFFF),
            len(body) if kind == RESPONSE else body_len,
            file_offset,
            min(cpu_us, 0xFFFFFFFF),
            0,
        )
        + fields
        + body
    )
