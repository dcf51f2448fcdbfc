"""Our parsers against two others, h11 and httptools (llhttp).

What both refuse we refuse, and every other difference is listed with its reason.

The requests are the vectors of tests/requests and mutations of them, made by a fixed rule.
"""

from __future__ import annotations

import random
import re
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import h11
import httptools

from tests.core import test_core
from tests.request_vectors import vectors

CORE_NAMES = "base/memory base/buf base/error base/scan http/head http/target http/chunked"
CORE_FILES = [f"appserver/core/{name}.c" for name in CORE_NAMES.split()]
MUTATIONS = 40  #: of each vector
MAX_SIZE = 3000  #: larger vectors are left out: they are for limits, and the others have limits of their own


@dataclass(frozen=True)
class Verdict:
    """What a parser makes of the first request in some bytes."""

    outcome: str  #: accepted, refused, incomplete
    method: str = ""
    body: bytes = b""


def ask_h11(data: bytes) -> Verdict:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    method, body = "", b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return Verdict("incomplete")
            if isinstance(event, h11.Request):
                method = event.method.decode("latin-1")
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return Verdict("accepted", method, body)
    except h11.RemoteProtocolError:
        return Verdict("refused")


class _Listener:
    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


def ask_httptools(data: bytes) -> Verdict:
    """A byte at a time, to stop at the end of the first request."""
    listener = _Listener()
    parser = httptools.HttpRequestParser(listener)
    try:
        for index in range(len(data)):
            try:
                parser.feed_data(data[index : index + 1])
            except httptools.HttpParserUpgrade:
                listener.complete = True
            if listener.complete:
                return Verdict("accepted", parser.get_method().decode("latin-1"), listener.body)
    except (httptools.HttpParserError, httptools.HttpParserCallbackError):
        return Verdict("refused")
    return Verdict("incomplete")


def ask_ours(requests: list[bytes]) -> list[Verdict]:
    program = test_core.program_of("verdicts", [test_core.FOLDER / "verdicts.c"], CORE_FILES, "address,undefined")
    done = subprocess.run(
        [str(program)],
        input=b"".join(struct.pack("=I", len(request)) + request for request in requests),
        capture_output=True,
        timeout=test_core.TIME_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    verdicts = []
    for line in done.stdout.decode("latin-1").splitlines():
        outcome, *rest = line.split(" ")
        if outcome == "accepted":
            verdicts.append(Verdict(outcome, rest[0], bytes.fromhex(rest[1].removeprefix("-"))))
        else:
            verdicts.append(Verdict(outcome))
    return verdicts


def requests_to_compare() -> list[bytes]:
    """The vectors, and each with a byte or two removed, doubled, changed or put in."""
    chance = random.Random(9112)
    interesting = b"\r\n\t :;,%/?*0159afAF-+_\0\x0b\x7f\x80\xff"
    found = []
    for vector in vectors("valid") + vectors("invalid"):
        if len(vector.data) > MAX_SIZE:
            continue
        found.append(vector.data)
        for _ in range(MUTATIONS):
            data = bytearray(vector.data)
            for _ in range(chance.choice((1, 1, 2))):
                at = chance.randrange(len(data))
                match chance.randrange(4):
                    case 0:
                        del data[at]
                    case 1:
                        data.insert(at, data[at])
                    case 2:
                        data[at] = chance.choice(interesting)
                    case 3:
                        data.insert(at, chance.choice(interesting))
            found.append(bytes(data))
    return found


def request_line(data: bytes) -> bytes:
    return data.lstrip(b"\r\n").split(b"\r\n")[0]


def head(data: bytes) -> bytes:
    return data.lstrip(b"\r\n").partition(b"\r\n\r\n")[0] + b"\r\n"


def target(data: bytes) -> bytes:
    words = request_line(data).split(b" ")
    return words[1] if len(words) > 1 else b""


def matches(pattern: bytes, part: Callable[[bytes], bytes] = bytes) -> Callable[[bytes], bool]:
    """Whether the pattern is found in a part of the request."""
    compiled = re.compile(pattern, re.IGNORECASE | re.DOTALL)
    return lambda data: compiled.search(part(data)) is not None


def lacks(pattern: bytes, part: Callable[[bytes], bytes] = bytes) -> Callable[[bytes], bool]:
    found = matches(pattern, part)
    return lambda data: not found(data)


HOST = rb"(?:[\w.!$&'()*+,;=~-]+|\[[0-9a-f.]*:[0-9a-f.:]*\])(?::\d{0,5})?"
OVERLONG = rb"%c[01]%[89ab]|%e0%[89]|%f0%8"

#: What we refuse and another accepts: which requests, and why.
STRICTER: list[tuple[str, Callable[[bytes], bool]]] = [
    (
        "a target is decoded here; others leave bad escapes to the application",
        matches(rb"%(?![0-9a-f]{2})|%00", target),
    ),
    ("a target must not lead above the root, however that is spelled", matches(rb"(?:\.|%2e){2}|" + OVERLONG, target)),
    ("bytes that RFC 3986 has in no target", matches(rb'[#"<>\\\x80-\xff]', target)),
    (
        "a target is a path, * with OPTIONS, or http(s)://host",
        lacks(rb"^(?:/|https?://" + HOST + rb"(?:[/?]|$))", target),
    ),
    ("a Host must be host[:port]", lacks(rb"\r\nhost:[ \t]*" + HOST + rb"[ \t]*\r", head)),
    ("two Hosts", matches(rb"\r\nhost:.*\r\nhost:", head)),
    ("only 100-continue can be expected", matches(rb"\r\nexpect:(?![ \t]*100-continue[ \t]*\r)", head)),
    ("a bare LF is no line end: what is behind it may be a line to one and not to another", matches(rb"(?<!\r)\n")),
    ("a bare CR, for the same reason", matches(rb"\r(?!\n)")),
    ("obs-fold (RFC 9112 section 5.2 lets a server refuse it)", matches(rb"\r\n[ \t]")),
    ("control bytes in values, which logs and programs would get", matches(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")),
    ("single spaces in the request line", matches(rb"  | $", request_line)),
    ("versions other than HTTP/1.x", lacks(rb" HTTP/1\.\d$", request_line)),
    ("methods of more than 32 bytes", matches(rb"^[^ ]{33}", request_line)),
    ("more than four empty lines in front", matches(rb"^(?:\r\n){5}")),
    ("more than 100 fields", lambda data: head(data).count(b"\r\n") > 101),
    (
        "equal Content-Lengths, in two lines or one",
        matches(rb"content-length:.*content-length:|content-length:[^\r]*,", head),
    ),
    (
        "Content-Length with Transfer-Encoding",
        matches(rb"content-length:.*transfer-enc|transfer-enc.*content-length:", head),
    ),
    ("transfer codings other than one chunked", lacks(rb"transfer-encoding:[ \t]*chunked[ \t]*\r", head)),
    ("chunked twice", matches(rb"transfer-encoding:.*transfer-encoding:", head)),
    ("white space behind a chunk's size (RFC 9112 section 7.1.1: bad)", matches(rb"\r\n[0-9a-f]+[ \t]+[;\r]")),
    ("a chunk's size line is at most 256 bytes", matches(rb"\r\n[^\r]{250,}\r\n")),
]

#: What we accept and another refuses.
LOOSER: list[tuple[str, Callable[[bytes], bool]]] = [
    (
        "httptools knows a list of methods; any token is one (RFC 9110 section 9.1)",
        lacks(rb"^(?-i:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|TRACE) ", request_line),
    ),
    (
        "httptools knows minor versions 0 and 1; a higher one counts as 1 (RFC 9110 section 2.5)",
        matches(rb"1\.9", request_line),
    ),
    ("h11 takes no empty line in front of a request (RFC 9112 section 2.2 wants it)", matches(rb"^\r\n")),
    ("httptools parses chunk extensions; we skip their text", matches(rb"\r\n[0-9a-f]+;[^\r]*\r\n")),
]


def explain(data: bytes, reasons: list[tuple[str, Callable[[bytes], bool]]], met: set[str]) -> bool:
    """Whether one of the reasons applies; notes which."""
    for reason, applies in reasons:
        if applies(data):
            met.add(reason)
            return True
    return False


def test_other_parsers() -> None:
    requests = requests_to_compare()
    met: set[str] = set()
    for data, ours in zip(requests, ask_ours(requests), strict=True):
        others = [ask_h11(data), ask_httptools(data)]
        outcomes = {other.outcome for other in others}
        if outcomes == {"refused"}:
            assert ours.outcome == "refused", f"both others refuse {data!r}"
        elif ours.outcome == "refused" and "accepted" in outcomes:
            assert explain(data, STRICTER, met), f"we refuse {data!r}, others do not: {others}"
        elif ours.outcome == "accepted":
            for other in others:
                if other.outcome == "accepted":
                    assert other == ours, f"different content in {data!r}"
                else:
                    assert explain(data, LOOSER, met), f"we accept {data!r}, others: {others}"
    listed = {reason for reason, _ in STRICTER + LOOSER}
    assert met == listed, f"differences that do not exist any more: {listed - met}"
