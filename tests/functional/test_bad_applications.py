"""Applications that do what they must not: a clear status, the reason in the log, and the other workers untouched."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Server, wait_for
from misdeeds import (
    ALLOCATES,
    DEATHS,
    MODULE,
    expect_cut_off,
    expect_death,
    expect_flood_to_be_bounded,
    expect_only_the_parent_to_come_back,
    expect_refusal,
    expect_stuck_worker_to_be_replaced,
    others_untouched,
    wait_for_replacement,
    workers,
)

BAD = r"""
import os, time
from urllib.parse import unquote
from misdeeds import MISDEEDS

PLAIN = [("Content-Type", "text/plain")]

def endless(piece):
    try:
        while True:
            yield piece
            time.sleep(0.001)
    finally:
        print("generator closed")

def breaks():
    yield b"begun"
    raise RuntimeError("after the head")

def application(environ, start_response):
    path, query = environ["PATH_INFO"], unquote(environ["QUERY_STRING"])
    def ok(*headers):
        return start_response("200 OK", PLAIN + list(headers))
    if path == "/pid":
        ok()
        return [b"%d" % os.getpid()]
    if path == "/none":
        ok()
        return None
    if path == "/number":
        ok()
        return 5
    if path == "/bytes":
        ok()
        return b"bytes"
    if path == "/str":
        ok()
        return "text"
    if path == "/str_chunk":
        ok()
        return ["text"]
    if path == "/str_late":
        ok()
        return iter([b"begun", "text"])
    if path == "/short":
        ok(("Content-Length", "9"))
        return [b"four"]
    if path == "/short_stream":
        ok(("Content-Length", "9"))
        return iter([b"fo", b"ur"])
    if path == "/long":
        ok(("Content-Length", "3"))
        return [b"four"]
    if path == "/long_stream":
        ok(("Content-Length", "3"))
        return iter([b"fo", b"ur"])
    if path == "/length":
        ok(("Content-Length", query))
        return [b"four"]
    if path == "/no_head":
        return [b"body"]
    if path == "/raises":
        raise RuntimeError("before the head")
    if path == "/breaks":
        ok()
        return breaks()
    if path == "/forever":
        ok()
        return endless(b"x" * 1000)
    if path == "/forever_empty":
        ok()
        return endless(b"")
    if path == "/status":
        start_response(query, PLAIN)
        return [b"body"]
    if path == "/header":
        name, _, value = query.partition("=")
        ok((name, value))
        return [b"body"]
    if path == "/header_type":
        ok(("X-Number", 5))
        return [b"body"]
    misdeed = MISDEEDS.get(path[1:])
    if misdeed is not None:
        said = misdeed()
        ok()
        return [said]
    ok()
    return [b"ok"]
"""

CONFIG = """
log: {access: "off"}
pools:
  bad:
    python: "bad:application"
    directory: .
    processes: 2
    threads: 2
    limits: {request_time: 4s, interrupt_time: 3s}
  good: {python: "good:application", directory: ., processes: 1, threads: 2}
sites:
  - rules:
      - {match: {path: /bad/*}, handler: {python: bad}}
      - {match: {path: /good/*}, handler: {python: good}}
"""

GOOD = """
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
"""


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Iterator[Server]:
    yield serve_module({"bad.py": BAD, "misdeeds.py": MODULE, "good.py": GOOD}, config=CONFIG)


@pytest.fixture(autouse=True)
def untouched(server: Server) -> Iterator[None]:
    with others_untouched(server, "/good"):
        yield


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("none", "an iterable of bytes such as [body], not NoneType"),
        ("number", "'int' object is not iterable"),
        ("bytes", "an iterable of bytes such as [body], not bytes"),
        ("str", "an iterable of bytes such as [body], not str"),
        ("str_chunk", "the body must be bytes, not str"),
        ("short", "the body has 4 bytes, and its Content-Length says 9"),
        ("length?-1", "Content-Length must be a number, not '-1'"),
        ("length?4%0a", "control character in header Content-Length"),
        ("no_head", "the application did not call start_response"),
        ("raises", "RuntimeError: before the head"),
        ("status?OK", "status must be three digits from 200 to 599 and a reason, not 'OK'"),
        ("status?100%20Continue", "status must be three digits"),
        ("status?200%20OK%0d%0aX-Injected:%201", "status must be three digits"),
        ("header?X-Injected%0d%0aX-Evil=1", "not a header name: 'X-Injected\\r\\nX-Evil'"),
        ("header?X%20Space=1", "not a header name: 'X Space'"),
        ("header?=1", "not a header name: ''"),
        ("header?X-A=1%0d%0aX-Injected:%202", "control character in header X-A"),
        ("header?X-A=1%0aX-Injected:%202", "control character in header X-A"),
        ("header?X-A=%00", "control character in header X-A"),
        ("header?X-A=%E2%82%AC", "headers must be latin-1, not '€'"),
        ("header?Connection=close", "header Connection is the server's to send"),
        ("header?Keep-Alive=1", "header Keep-Alive is the server's to send"),
        ("header?TE=trailers", "header TE is the server's to send"),
        ("header?trailer=X", "header trailer is the server's to send"),
        ("header?Transfer-Encoding=chunked", "header Transfer-Encoding is the server's to send"),
        ("header?Upgrade=h2c", "header Upgrade is the server's to send"),
        ("header_type", "header name and value must be str, not 'X-Number': 5"),
        ALLOCATES,
    ],
)
def test_refused_with_500_and_the_reason(server: Server, target: str, why: str) -> None:
    assert expect_refusal(server, f"/bad/{target}", why)["application"] == "bad:application"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("str_late", "TypeError: the body must be bytes, not str"),
        ("breaks", "RuntimeError: after the head"),
    ],
)
def test_failure_after_the_head_cuts_the_answer_off(server: Server, target: str, why: str) -> None:
    expect_cut_off(server, f"/bad/{target}", why)


def test_stream_shorter_than_its_length_is_cut_off(server: Server) -> None:
    with pytest.raises(http.client.IncompleteRead):
        server.get("/bad/short_stream")
    server.wait_for_log('"body does not have its Content-Length".*/short_stream".*"content_length": 9')


@pytest.mark.parametrize("target", ["long", "long_stream"])
def test_body_longer_than_its_length_is_cut_to_it(server: Server, target: str) -> None:
    with server.connect() as connection:
        for _ in range(2):  # what is too much must not become the next response
            connection.send(f"GET /bad/{target} HTTP/1.1\r\nHost: a\r\n\r\n")
            response = connection.response()
            assert (response.status, response.body) == (200, b"fou")
    server.wait_for_log(f'"body does not have its Content-Length".*/{target}".*"content_length": 3')


def test_yields_forever(server: Server) -> None:
    """It goes on as long as the client reads, and ends when that leaves."""
    before = len(server.records("^generator closed$"))
    with server.connect() as connection:
        connection.send("GET /bad/forever HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.file.readline() == b"HTTP/1.1 200 OK\r\n"
        assert len(connection.file.read(100_000)) == 100_000
    wait_for(lambda: len(server.records("^generator closed$")) > before, "the generator is closed")


def test_yields_nothing_forever(server: Server) -> None:
    response = server.get("/bad/forever_empty")
    assert response.status == 504
    server.wait_for_log('"generator closed"')


def test_blocks_in_c(server: Server) -> None:
    expect_stuck_worker_to_be_replaced(server)


@pytest.mark.parametrize(("name", "sentence"), DEATHS)
def test_ends_the_process(server: Server, name: str, sentence: str) -> None:
    expect_death(server, name, sentence)


def test_forks_and_both_come_back(server: Server) -> None:
    expect_only_the_parent_to_come_back(server)


def test_closes_the_descriptors_of_its_worker(server: Server) -> None:
    pids = workers(server)
    response = server.post("/bad/closes", b"")
    assert response.status == 502
    wait_for_replacement(server, pids, "the worker")
    line = server.wait_for_log('"executor ended with exit status [1-9]')
    assert json.loads(line)["pool"] == "bad"
    for _ in range(4):
        assert server.get("/bad/pid").status == 200


def test_floods_stderr(server: Server) -> None:
    expect_flood_to_be_bounded(server, "/good")
