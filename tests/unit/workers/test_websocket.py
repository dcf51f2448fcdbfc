"""The WebSocket protocol without any connection: frames in, events out."""

from __future__ import annotations

import os
import random
import struct
import zlib
from typing import Any

import pytest

from appserver.workers import deflate, websocket
from appserver.workers.websocket import BINARY, CLOSE, CONTINUATION, FAILED, PING, PONG, TEXT

LIMIT = 100_000


def masked(
    opcode: int, payload: bytes = b"", *, fin: bool = True, bits: int = 0, mask: bytes = b"\x01\x02\x03\x04"
) -> bytes:
    """A frame as a client sends it."""
    first = (0x80 if fin else 0) | bits | opcode
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack(">BBH", first, 0xFE, size)
    else:
        head = struct.pack(">BBQ", first, 0xFF, size)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def events_of(data: bytes, connection: websocket.Connection | None = None, step: int | None = None) -> list[Any]:
    connection = connection or websocket.Connection(LIMIT)
    step = step or len(data)
    return [event for at in range(0, len(data), step) for event in connection.receive(data[at : at + step])]


CONVERSATION = (
    masked(TEXT, "grüße".encode())
    + masked(BINARY, bytes(300))
    + masked(TEXT, b"")
    + masked(PING, b"hello?")
    + masked(TEXT, b"in \xe2", fin=False)
    + masked(PONG)
    + masked(CONTINUATION, b"\x82", fin=False)
    + masked(CONTINUATION, b"\xac pieces")
    + masked(BINARY, b"a", fin=False)
    + masked(CONTINUATION, b"", fin=False)
    + masked(CONTINUATION, b"b" * 70_000)
    + masked(CLOSE, struct.pack(">H", 4001) + "schön".encode())
)
HEARD = [
    (TEXT, "grüße"),
    (BINARY, bytes(300)),
    (TEXT, ""),
    (PING, b"hello?"),
    (PONG, b""),
    (TEXT, "in € pieces"),
    (BINARY, b"a" + b"b" * 70_000),
    (CLOSE, (4001, "schön")),
]


@pytest.mark.parametrize("step", [None, 1, 2, 3, 7, 1000])
def test_a_conversation_cut_anywhere(step: int | None) -> None:
    assert events_of(CONVERSATION + masked(TEXT, b"too late"), step=step) == HEARD


def test_random_masks_and_sizes() -> None:
    generator = random.Random(6455)
    for size in (0, 1, 3, 4, 5, 125, 126, 127, 65535, 65536, 99_999):
        data, mask = generator.randbytes(size), generator.randbytes(4)
        assert events_of(masked(BINARY, data, mask=mask)) == [(BINARY, data)]


def test_close_without_code() -> None:
    assert events_of(masked(CLOSE)) == [(CLOSE, (1005, ""))]


HOSTILE = {
    "unmasked": (b"\x81\x02hi", 1002),
    "reserved opcode": (masked(3, b"x"), 1002),
    "reserved control opcode": (masked(11), 1002),
    "reserved bit 1": (masked(TEXT, b"x", bits=0x40), 1002),
    "reserved bit 2": (masked(TEXT, b"x", bits=0x20), 1002),
    "reserved bit 3": (masked(TEXT, b"x", bits=0x10), 1002),
    "long ping": (masked(PING, bytes(126)), 1002),
    "ping in fragments": (masked(PING, b"x", fin=False), 1002),
    "continuation of nothing": (masked(CONTINUATION, b"x"), 1002),
    "message in a message": (masked(TEXT, b"x", fin=False) + masked(TEXT, b"y"), 1002),
    "close of one byte": (masked(CLOSE, b"\x03"), 1002),
    "close code 999": (masked(CLOSE, struct.pack(">H", 999)), 1002),
    "close code 1004": (masked(CLOSE, struct.pack(">H", 1004)), 1002),
    "close code 1005": (masked(CLOSE, struct.pack(">H", 1005)), 1002),
    "close code 1006": (masked(CLOSE, struct.pack(">H", 1006)), 1002),
    "close code 1015": (masked(CLOSE, struct.pack(">H", 1015)), 1002),
    "close code 2999": (masked(CLOSE, struct.pack(">H", 2999)), 1002),
    "close code 5000": (masked(CLOSE, struct.pack(">H", 5000)), 1002),
    "close reason": (masked(CLOSE, b"\x03\xe8\xff"), 1007),
    "text": (masked(TEXT, b"\xff"), 1007),
    "text that stops in a character": (masked(TEXT, b"\xe2\x82"), 1007),
    "a surrogate": (masked(TEXT, b"\xed\xa0\x80"), 1007),
    "an early fragment": (masked(TEXT, b"\xff", fin=False), 1007),
    "across fragments": (masked(TEXT, b"\xe2", fin=False) + masked(CONTINUATION, b"x", fin=False), 1007),
    "too large": (masked(BINARY, bytes(LIMIT + 1)), 1009),
    "too large by its head alone": (masked(BINARY, b"")[:1] + b"\xff" + struct.pack(">Q", 2**63), 1009),
    "too large in fragments": (masked(BINARY, bytes(LIMIT), fin=False) + masked(CONTINUATION, b"x"), 1009),
    "too many fragments": (
        masked(BINARY, fin=False) + masked(CONTINUATION, fin=False) * websocket.FRAGMENTS_MAX,
        1009,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("step", [None, 1])
def test_hostile_frames(name: str, step: int | None) -> None:
    data, code = HOSTILE[name]
    if step == 1 and len(data) > 10_000:
        step = 1000
    events = events_of(data + masked(TEXT, b"afterwards"), step=step)
    assert len(events) == 1
    assert events[0][0] == FAILED
    assert events[0][1][0] == code
    assert events[0][1][1]


def test_frames_of_the_server() -> None:
    connection = websocket.Connection(LIMIT)
    assert connection.text("ü") == b"\x81\x02\xc3\xbc"
    assert connection.binary(bytes(126))[:4] == b"\x82\x7e\x00\x7e"
    assert connection.binary(bytes(65536))[:10] == b"\x82\x7f" + struct.pack(">Q", 65536)
    assert websocket.close_frame(1001, "gone") == b"\x88\x06\x03\xe9gone"
    assert websocket.close_frame(1005) == b"\x88\x00"
    long = websocket.close_frame(1000, "ü" * 100)
    assert long[1] == 2 + 122
    assert long[4:].decode() == "ü" * 61


def environ(**more: str) -> dict[str, str]:
    return {
        "REQUEST_METHOD": "GET",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        **more,
    }


def test_accept_key() -> None:
    assert websocket.accept_key(environ()) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the example of RFC 6455


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"REQUEST_METHOD": "POST"}, 400),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426),
        ({"HTTP_SEC_WEBSOCKET_KEY": ""}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ=!"}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": "\u00fc" * 22 + "=="}, 400),
    ],
)
def test_handshakes_that_are_refused(more: dict[str, str], status: int) -> None:
    with pytest.raises(websocket.HandshakeError) as caught:
        websocket.accept_key(environ(**more))
    assert caught.value.status == status


OFFERS = {
    "permessage-deflate": "permessage-deflate; server_max_window_bits=12",
    "permessage-deflate; client_max_window_bits": "permessage-deflate; server_max_window_bits=12;"
    " client_max_window_bits=12",
    'permessage-deflate; client_max_window_bits="10"': "permessage-deflate; server_max_window_bits=12;"
    " client_max_window_bits=10",
    "permessage-deflate; server_max_window_bits=9": "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=15": "permessage-deflate; server_max_window_bits=12",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover": "permessage-deflate;"
    " server_max_window_bits=12; server_no_context_takeover; client_no_context_takeover",
    "x-webkit-deflate-frame, permessage-deflate": "permessage-deflate; server_max_window_bits=12",
    "permessage-deflate; server_max_window_bits=8, permessage-deflate": "permessage-deflate; server_max_window_bits=12",
    "": None,
    "permessage-deflate; server_max_window_bits=8": None,
    "permessage-deflate; server_max_window_bits": None,
    "permessage-deflate; server_max_window_bits=16": None,
    "permessage-deflate; server_max_window_bits=09": None,
    "permessage-deflate; client_max_window_bits=7": None,
    "permessage-deflate; unknown=1": None,
    "permessage-deflate; server_no_context_takeover=1": None,
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover": None,
    'x; a="permessage-deflate, permessage-deflate"': None,
}


@pytest.mark.parametrize("offer", OFFERS)
def test_negotiation(offer: str) -> None:
    agreed = deflate.negotiate(offer)
    assert (None if agreed is None else agreed.header()) == OFFERS[offer]


def packed(data: bytes, compressor: Any = None) -> bytes:
    compressor = compressor or zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def deflating(**agreed: Any) -> websocket.Connection:
    return websocket.Connection(LIMIT, deflate.Deflate(deflate.Agreement(**agreed)))


def test_compressed_messages() -> None:
    connection = deflating()
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = "compress me, " * 100
    first, second = packed(data.encode(), compressor), packed(data.encode(), compressor)
    assert len(second) < len(first)  # by the context that is kept
    frames = masked(TEXT, first, bits=0x40) + masked(TEXT, b"plain") + masked(PING, b"p")
    frames += masked(TEXT, second[:5], bits=0x40, fin=False) + masked(CONTINUATION, second[5:])
    assert events_of(frames, connection) == [(TEXT, data), (TEXT, "plain"), (PING, b"p"), (TEXT, data)]


def test_compressed_without_context() -> None:
    connection = deflating(client_keeps=False)
    for _ in range(2):
        assert events_of(masked(BINARY, packed(b"abc" * 50), bits=0x40), connection) == [(BINARY, b"abc" * 50)]


def test_a_stream_that_the_client_ends() -> None:
    connection = deflating()
    for data in (b"abc" * 50, b"def" * 50):
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        whole = compressor.compress(data) + compressor.flush() + b"\x00"
        assert events_of(masked(BINARY, whole, bits=0x40), connection) == [(BINARY, data)]


def test_the_example_of_rfc_7692() -> None:
    connection = deflating()
    hello = bytes.fromhex("f248cdc9c90700")
    assert events_of(masked(TEXT, hello, bits=0x40), connection) == [(TEXT, "Hello")]
    assert events_of(masked(TEXT, bytes.fromhex("f200110000"), bits=0x40), connection) == [(TEXT, "Hello")]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (packed(bytes(LIMIT * 1000)), 1009),
        (packed(bytes(LIMIT + 1)), 1009),
        (b"\xff\xff\xff", 1007),
        (packed(b"\xff\xfe"), 1007),
        (b"\x03\x00" * 100, 1007),
    ],
    ids=["a bomb", "a little too large", "no deflate", "no UTF-8", "many streams"],
)
def test_hostile_compressed_messages(payload: bytes, code: int) -> None:
    ((kind, (found, _)),) = events_of(masked(TEXT, payload, bits=0x40), deflating())
    assert (kind, found) == (FAILED, code)


def test_compressed_at_the_limit() -> None:
    assert events_of(masked(BINARY, packed(bytes(LIMIT)), bits=0x40), deflating()) == [(BINARY, bytes(LIMIT))]


@pytest.mark.parametrize("agreed", [{}, {"server_keeps": False}, {"server_bits": 9}, {"server_bits": 15}])
def test_what_the_server_compresses(agreed: dict[str, Any]) -> None:
    connection = deflating(**agreed)
    reader = zlib.decompressobj(-agreed.get("server_bits", 15))
    for data in (b"abc" * 1000, os.urandom(5000), b"abc" * 1000):
        sent = connection.binary(data)
        assert sent[0] == 0xC2
        start = 2 if sent[1] < 126 else 4
        if not agreed.get("server_keeps", True):
            reader = zlib.decompressobj(-15)
        assert reader.decompress(sent[start:] + deflate.TAIL) == data
    assert connection.text("short")[0] == 0x81
