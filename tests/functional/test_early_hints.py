"""Interim responses (RFC 8297) and trailers of what executors answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from harness import Connection, Server
from played import PlayedCore, playing

from appserver.workers import wire

GET = "GET {} HTTP/1.1\r\nHost: a\r\n{}\r\n"
HINT = b"Link: </style.css>; rel=preload\r\n"


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedCore]:
    with playing(tmp_path_factory.mktemp("core")) as running:
        yield running


def streamed(core: PlayedCore, client: Connection, fields: str, trailers: bytes, *, http10: bool = False) -> bytes:
    """A streamed answer with trailers, as the client sees its end."""
    text = GET.format("/", fields)
    client.send(text.replace("HTTP/1.1", "HTTP/1.0") if http10 else text)
    request = core.receive()
    writer = request.open_stream()
    os.write(writer, b"body")
    request.end(0, trailers)
    os.close(writer)
    while client.file.readline() != b"\r\n":
        pass
    if http10:
        return client.file.read()
    assert client.file.read(9) == b"4\r\nbody\r\n"
    end = b""
    while not end.endswith(b"\r\n\r\n"):
        end += client.file.readline()
    return end


def test_hints_come_at_once(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(GET.format("/", ""))
        request = core.receive()
        for number in (103, 103, 102):
            request.answer(wire.INFORMATIONAL, number, HINT + b"X-Number: %d\r\n" % number)
            hint = client.interim()
            assert hint.status == number
            assert hint.headers == [("Link", "</style.css>; rel=preload"), ("X-Number", str(number))]
        request.respond(b"page")
        assert client.response().body == b"page"


def test_not_for_old_clients(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send("GET / HTTP/1.0\r\n\r\n")
        request = core.receive()
        request.answer(wire.INFORMATIONAL, 103, HINT)
        request.respond(b"page")
        answer = client.interim()
        assert answer.status == 200


def test_in_the_order_of_pipelined_requests(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(GET.format("/1", "") + GET.format("/2", "") + GET.format("/3", ""))
        for number in (b"1", b"2", b"3"):
            request = core.receive()
            request.answer(wire.INFORMATIONAL, 103, b"X-Of: %s\r\n" % number)
            request.respond(number)
        for number in ("1", "2", "3"):
            assert client.interim().header("x-of") == number
            assert client.response().text == number


def test_malformed_hints_are_left_out(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(GET.format("/", ""))
        request = core.receive()
        request.answer(wire.INFORMATIONAL, 103, b"Link: a\nSet-Cookie: b\r\n")
        request.answer(wire.INFORMATIONAL, 103, b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nLink: c\r\n")
        request.respond(b"page")
        assert client.interim().headers == [("Link", "c")]
        assert client.response().body == b"page"
        core.wait_for_log("the fields of an interim response are malformed")


def test_final_statuses_are_no_hints(core: PlayedCore) -> None:
    with core.connect() as client:
        client.send(GET.format("/", ""))
        core.receive().answer(wire.INFORMATIONAL, 200, HINT)
        assert client.response().status == 502


def test_a_client_that_takes_none(core: PlayedCore) -> None:
    """What waits for it is bounded, and it still gets its answer."""
    with core.connect() as client:
        client.send(GET.format("/", ""))
        request = core.receive()
        before = core.memory_kib()
        for _ in range(1000):
            request.answer(wire.INFORMATIONAL, 103, b"X: " + b"h" * 30_000 + b"\r\n")
        request.respond(b"page")
        assert core.memory_kib() - before < 4096
        assert client.response().body == b"page"


def test_trailers_for_those_who_want_them(core: PlayedCore) -> None:
    with core.connect() as client:
        trailers = b"Digest: x\r\nServer-Timing: y\r\n"
        assert streamed(core, client, "TE: deflate, Trailers\r\nConnection: TE\r\n", trailers) == (
            b"0\r\n" + trailers + b"\r\n"
        )
        assert streamed(core, client, "", trailers) == b"0\r\n\r\n"
        assert streamed(core, client, "TE: gzip\r\n", trailers) == b"0\r\n\r\n"
        # framing does not get through, and malformed ones are left out
        assert streamed(core, client, "TE: trailers\r\n", b"Content-Length: 3\r\nA: b\r\n") == b"0\r\nA: b\r\n\r\n"
        assert streamed(core, client, "TE: trailers\r\n", b"A: b\nC: d\r\n") == b"0\r\n\r\n"
        core.wait_for_log("the fields of a trailer section are malformed")


def test_no_trailers_without_chunks(core: PlayedCore) -> None:
    with core.connect() as client:
        assert streamed(core, client, "TE: trailers\r\n", b"A: b\r\n", http10=True) == b"body"
    with core.connect() as client:
        client.send(GET.format("/", "TE: trailers\r\n"))
        request = core.receive()
        writer = request.open_stream(length=4)
        os.write(writer, b"body")
        request.end(0, b"A: b\r\n")
        os.close(writer)
        assert client.response().body == b"body"
        client.send(GET.format("/", ""))
        core.receive().respond(b"next")
        assert client.response().body == b"next"


WSGI = """
def application(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    start_response("200 OK", [])
    return [b"page"]
"""


def test_with_a_real_worker(serve: Callable[..., Server]) -> None:
    config = (
        'pools: {hinting: {python: "hinting:application", processes: 1}}\n'
        "sites: [{rules: [{match: {path: /*}, handler: {python: hinting}}]}]\n"
    )
    server = serve({"hinting.py": WSGI}, config=config)
    with server.connect() as client:
        client.send(GET.format("/", ""))
        assert client.interim().header("link") == "</a.css>; rel=preload"
        assert client.response().body == b"page"
