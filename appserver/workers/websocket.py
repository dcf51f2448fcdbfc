"""The WebSocket protocol (RFC 6455), the server's side of a connection after its handshake. No I/O, no clock: bytes in,
events out; messages in, bytes out.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import struct
import zlib
from typing import Any, Dict, List, Optional, Tuple

from .deflate import SMALLEST_COMPRESSED, Deflate, TooLargeError

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTROL_MAX = 125  #: bytes in a control frame
FRAGMENTS_MAX = 10_000  #: of one message: an empty one costs memory, too

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

#: Close codes (section 7.4).
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_STATUS, ABNORMAL = 1000, 1001, 1002, 1005, 1006
INVALID_DATA, TOO_BIG, INTERNAL_ERROR, RESTART = 1007, 1009, 1011, 1012

#: What came: TEXT with a str, BINARY, PING and PONG with bytes, CLOSE with (code, reason), or FAILED when the client
#: has broken the protocol, with the (code, reason) with which the connection is to be closed.
FAILED = -1
Event = Tuple[int, Any]


class HandshakeError(Exception):
    """A request that asks for a WebSocket in a way that cannot be answered with one."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def accept_key(environ: Dict[str, Any]) -> bytes:
    """The value of Sec-WebSocket-Accept (section 4.2.2). Raises HandshakeError."""
    if environ.get("REQUEST_METHOD") != "GET":
        raise HandshakeError(400, "a WebSocket is asked for with GET")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip() != "13":
        raise HandshakeError(426, "Sec-WebSocket-Version must be 13")
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "").strip()
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise HandshakeError(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    return base64.b64encode(hashlib.sha1(key.encode("ascii") + GUID).digest())


def is_close_code(code: int) -> bool:
    """Whether an endpoint may send it (section 7.4)."""
    return (1000 <= code <= 1014 and code not in (1004, NO_STATUS, ABNORMAL)) or 3000 <= code <= 4999


def unmask(data: bytes, mask: bytes) -> bytes:
    """One XOR of two long numbers: as fast as the standard library gets, about 1 GB/s."""
    size = len(data)
    if not size:
        return b""
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


class Connection:
    """One connection, after its handshake."""

    def __init__(self, message_size: int, deflate: Optional[Deflate] = None) -> None:
        """A message may have `message_size` bytes at most, also after it has been decompressed."""
        self._limit = message_size
        self._deflate = deflate
        self._buf = bytearray()
        self._over = False  #: a close frame has come, or nonsense: what follows does not count
        self._opcode = 0  #: of the message whose fragments are coming; 0: none
        self._compressed = False
        self._parts: List[Any] = []  #: of str when they are text that came uncompressed, else of bytes
        self._size = 0  #: bytes of them, as they came
        self._decoder: Optional[codecs.IncrementalDecoder] = None

    # In

    def receive(self, data: bytes) -> List[Event]:
        """What is complete now. The client's bytes may be cut anywhere."""
        events: List[Event] = []
        if self._over:
            return events
        buf = self._buf
        buf += data
        at = 0
        try:
            while True:
                end = self._frame(buf, at, events)
                if end < 0 or self._over:
                    break
                at = end
        except _BrokenError as broken:
            self._over = True
            events.append((FAILED, (broken.code, str(broken))))
        if self._over:
            buf.clear()
        elif at:
            del buf[:at]
        return events

    def _frame(self, buf: bytearray, at: int, events: List[Event]) -> int:
        """Takes the frame at that place; its end, or -1 when it is not complete."""
        available = len(buf) - at
        if available < 2:
            return -1
        first, second = buf[at], buf[at + 1]
        opcode, size, start = first & 0x0F, second & 0x7F, at + 2
        # The head is judged before the rest has come: nobody waits for a frame that will not be taken.
        self._check_head(first, second)
        if size == 126:
            if available < 4:
                return -1
            size, start = buf[at + 2] << 8 | buf[at + 3], at + 4
        elif size == 127:
            if available < 10:
                return -1
            (size,) = struct.unpack_from(">Q", buf, at + 2)
            start = at + 10
        if opcode < CLOSE and self._size + size > self._limit:
            raise _BrokenError(TOO_BIG, f"message over {self._limit} bytes")
        end = start + 4 + size
        if len(buf) < end:
            return -1
        payload = unmask(bytes(buf[start + 4 : end]), bytes(buf[start : start + 4]))
        if opcode >= CLOSE:
            events.append(self._control(opcode, payload))
        else:
            self._data(first, opcode, payload, events)
        return end

    def _check_head(self, first: int, second: int) -> None:
        opcode = first & 0x0F
        if not second & 0x80:
            raise _BrokenError(PROTOCOL_ERROR, "frame without mask")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise _BrokenError(PROTOCOL_ERROR, f"frame with reserved opcode {opcode}")
        if first & 0x30 or (first & 0x40 and (self._deflate is None or opcode not in (TEXT, BINARY))):
            raise _BrokenError(PROTOCOL_ERROR, "frame with reserved bits")
        if opcode >= CLOSE:
            if not first & 0x80:
                raise _BrokenError(PROTOCOL_ERROR, "control frame in fragments")
            if second & 0x7F > CONTROL_MAX:
                raise _BrokenError(PROTOCOL_ERROR, f"control frame over {CONTROL_MAX} bytes")
        elif opcode == CONTINUATION and not self._opcode:
            raise _BrokenError(PROTOCOL_ERROR, "continuation of nothing")
        elif opcode != CONTINUATION and self._opcode:
            raise _BrokenError(PROTOCOL_ERROR, "new message before the end of another")

    def _control(self, opcode: int, payload: bytes) -> Event:
        if opcode != CLOSE:
            return (opcode, payload)
        self._over = True
        if not payload:
            return (CLOSE, (NO_STATUS, ""))
        if len(payload) == 1:
            raise _BrokenError(PROTOCOL_ERROR, "close frame of one byte")
        code = payload[0] << 8 | payload[1]
        if not is_close_code(code):
            raise _BrokenError(PROTOCOL_ERROR, f"close code {code}")
        try:
            return (CLOSE, (code, payload[2:].decode("utf-8")))
        except UnicodeDecodeError:
            raise _BrokenError(INVALID_DATA, "close reason is not UTF-8") from None

    def _data(self, first: int, opcode: int, payload: bytes, events: List[Event]) -> None:
        is_last = bool(first & 0x80)
        if opcode != CONTINUATION:
            compressed = bool(first & 0x40)
            if is_last:
                message = self._decompress(payload) if compressed else payload
                events.append((opcode, _text(message) if opcode == TEXT else message))
                return
            self._opcode, self._compressed = opcode, compressed
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT and not compressed else None
        self._parts.append(payload if self._decoder is None else _text(payload, self._decoder, is_last))
        self._size += len(payload)
        if is_last:
            events.append((self._opcode, self._joined()))
        elif len(self._parts) > FRAGMENTS_MAX:
            raise _BrokenError(TOO_BIG, f"message in more than {FRAGMENTS_MAX} fragments")

    def _joined(self) -> Any:
        """The message whose fragments have come."""
        parts, is_text = self._parts, self._opcode == TEXT
        self._opcode, self._parts, self._size = 0, [], 0
        if self._decoder is not None:
            return "".join(parts)
        message = b"".join(parts)
        if self._compressed:
            message = self._decompress(message)
        return _text(message) if is_text else message

    def _decompress(self, payload: bytes) -> bytes:
        assert self._deflate is not None
        try:
            return self._deflate.decompress(payload, self._limit)
        except TooLargeError:
            raise _BrokenError(TOO_BIG, f"message over {self._limit} bytes when decompressed") from None
        except zlib.error:
            raise _BrokenError(INVALID_DATA, "message that cannot be decompressed") from None

    # Out

    def text(self, message: str) -> bytes:
        return self._message(TEXT, message.encode("utf-8"))

    def binary(self, message: bytes) -> bytes:
        return self._message(BINARY, message)

    def _message(self, opcode: int, payload: bytes) -> bytes:
        if self._deflate is not None and len(payload) >= SMALLEST_COMPRESSED:
            return frame(opcode, self._deflate.compress(payload), 0xC0)
        return frame(opcode, payload)


class _BrokenError(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _text(payload: bytes, decoder: Optional[codecs.IncrementalDecoder] = None, is_last: bool = True) -> str:
    """Fragments may end in the middle of a character, and what is wrong is refused with the fragment that has it."""
    try:
        return payload.decode("utf-8") if decoder is None else decoder.decode(payload, is_last)
    except UnicodeDecodeError:
        raise _BrokenError(INVALID_DATA, "text that is not UTF-8") from None


def frame(opcode: int, payload: bytes, bits: int = 0x80) -> bytes:
    """A frame from the server: without mask. `bits` are FIN and RSV."""
    size = len(payload)
    if size < 126:
        return bytes((bits | opcode, size)) + payload
    if size < 65536:
        return struct.pack(">BBH", bits | opcode, 126, size) + payload
    return struct.pack(">BBQ", bits | opcode, 127, size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """NO_STATUS for one without code. A reason that does not fit is cut."""
    if code == NO_STATUS:
        return frame(CLOSE, b"")
    text = reason.encode("utf-8")[: CONTROL_MAX - 2].decode("utf-8", "ignore").encode("utf-8")
    return frame(CLOSE, struct.pack(">H", code) + text)
