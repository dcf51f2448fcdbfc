"""permessage-deflate (RFC 7692): what is agreed on in the handshake, and a message's payload in and out. No I/O."""

from __future__ import annotations

import re
import zlib
from typing import Any, Dict, List, NamedTuple, Optional

NAME = "permessage-deflate"
TAIL = b"\x00\x00\xff\xff"  #: the end of an empty stored block, which is not sent (section 7.2.1)
WINDOW_BITS = 12  #: of ours, when the client does not want fewer: 4 KiB of history; 15 would cost 256 KiB a connection
MEMORY_LEVEL = 5
STREAMS_MAX = 64  #: of deflate in one message: each may be two bytes long, and costs what is left of the message
SMALLEST_COMPRESSED = 64  #: bytes; what is shorter is sent as it is

_PARAMETERS = (
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
)
#: One piece of the field: a token, or a quoted string, between separators.
_PIECE = re.compile(r'\s*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+|"(?:[^"\\]|\\.)*")\s*')
_BITS = re.compile(r"[89]|1[0-5]")


class TooLargeError(Exception):
    """A message is longer than it may be."""


class Agreement(NamedTuple):
    """What both sides do."""

    server_bits: int = 15
    client_bits: int = 15
    server_keeps: bool = True  #: the context, from one message to the next
    client_keeps: bool = True
    answers_client_bits: bool = False

    def header(self) -> str:
        """The value of Sec-WebSocket-Extensions in the answer."""
        parts = [NAME, f"server_max_window_bits={self.server_bits}"]
        if not self.server_keeps:
            parts.append("server_no_context_takeover")
        if not self.client_keeps:
            parts.append("client_no_context_takeover")
        if self.answers_client_bits:
            parts.append(f"client_max_window_bits={self.client_bits}")
        return "; ".join(parts)


def negotiate(field: str) -> Optional[Agreement]:
    """The first of the client's offers that can be taken; None when there is none."""
    for offer in _split(field, ","):
        pieces = _split(offer, ";")
        if pieces and pieces[0].strip().lower() == NAME:
            agreed = _accept(pieces[1:])
            if agreed is not None:
                return agreed
    return None


def _split(text: str, separator: str) -> List[str]:
    """At separators outside of quotes."""
    parts, start, quoted, at = [], 0, False, 0
    while at < len(text):
        char = text[at]
        if char == "\\" and quoted:
            at += 1
        elif char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    parts.append(text[start:])
    return parts


def _accept(parameters: List[str]) -> Optional[Agreement]:
    """None for an offer that has an unknown, repeated or malformed parameter (section 7.1), or asks for a window that
    zlib does not have.
    """
    found: Dict[str, Optional[str]] = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        name = name.strip().lower()
        if name not in _PARAMETERS or name in found or not _PIECE.fullmatch(name):
            return None
        found[name] = value.strip().strip('"') if equals else None
    if found.get("server_no_context_takeover") is not None or found.get("client_no_context_takeover") is not None:
        return None
    server_bits, client_bits = WINDOW_BITS, 15
    if "server_max_window_bits" in found:
        wanted = found["server_max_window_bits"]
        # A raw stream of deflate with a window of 256 bytes is beyond zlib.
        if wanted is None or not _BITS.fullmatch(wanted) or wanted == "8":
            return None
        server_bits = min(server_bits, int(wanted))
    if "client_max_window_bits" in found:
        wanted = found["client_max_window_bits"]
        if wanted is not None and not _BITS.fullmatch(wanted):
            return None
        # Without a value the client only says that it can be limited (section 7.1.2.2).
        client_bits = min(WINDOW_BITS, int(wanted)) if wanted is not None else WINDOW_BITS
    return Agreement(
        server_bits,
        client_bits,
        "server_no_context_takeover" not in found,
        "client_no_context_takeover" not in found,
        "client_max_window_bits" in found,
    )


class Deflate:
    """Both directions of one connection."""

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._compressor: Any = None
        self._decompressor: Any = None

    def compress(self, data: bytes) -> bytes:
        """The payload of a message."""
        compressor = self._compressor
        if compressor is None:
            compressor = zlib.compressobj(
                zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -self._agreement.server_bits, MEMORY_LEVEL
            )
            if self._agreement.server_keeps:
                self._compressor = compressor
        packed: bytes = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return packed[:-4]

    def decompress(self, data: bytes, limit: int) -> bytes:
        """The message of a payload. Raises TooLargeError as soon as it has become longer than `limit`, and zlib.error
        for what is no deflate.
        """
        found: List[bytes] = []
        size = streams = 0
        rest = data + TAIL
        while rest:
            if self._decompressor is None:
                # Whatever the window of the client, a window of ours that is larger reads it, and costs nothing before
                # it is used; zlib wants 9 at least for a raw stream.
                self._decompressor = zlib.decompressobj(-max(self._agreement.client_bits, 9))
            piece = self._decompressor.decompress(rest, limit - size + 1)
            size += len(piece)
            if size > limit:
                raise TooLargeError
            found.append(piece)
            if self._decompressor.eof:  # the client has ended the stream, and goes on with a new one (section 7.2.3.5)
                rest = self._decompressor.unused_data
                self._decompressor = None
                if rest == TAIL:
                    break
                streams += 1
                if streams == STREAMS_MAX:
                    raise zlib.error("too many streams in one message")
            else:
                rest = self._decompressor.unconsumed_tail
        if not self._agreement.client_keeps:
            self._decompressor = None
        return b"".join(found)
