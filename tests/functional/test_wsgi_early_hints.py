"""`wsgi.early_hints`: interim responses 103 (RFC 8297), on the wire before the handler goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Server, wait_for

APPLICATION = r"""
import os, time

STYLE = ("Link", "</site.css>; rel=preload; as=style")
SCRIPT = ("Link", "</site.js>; rel=preload; as=script")

def application(environ, start_response):
    hints, query = environ["wsgi.early_hints"], environ["QUERY_STRING"]
    path = environ["PATH_INFO"]
    if path == "/bad":
        hints([("Link", "</a>\r\nX-Injected: 1")])
    hints([STYLE, SCRIPT])
    if path == "/twice":
        hints([("Link", "</more.css>; rel=preload; as=style")])
    if path == "/waits":
        while not os.path.exists(query):
            time.sleep(0.005)
    write = start_response("200 OK", [("Content-Type", "text/plain"), STYLE])
    if path == "/late":
        write(b"begun, ")
        hints([("X-Late", "1")])
        return [b"done"]
    return [b"the answer"]
"""

CONFIG = """
log: {access: "off"}
pools: {app: {python: "app:application", directory: ., processes: 1}}
sites: [{rules: [{handler: {python: app}}]}]
"""

LINKS = ["</site.css>; rel=preload; as=style", "</site.js>; rel=preload; as=script"]


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Iterator[Server]:
    yield serve_module({"app.py": APPLICATION}, config=CONFIG)


def test_hints_come_before_the_answer_is_there(server: Server, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with server.connect() as connection:
        connection.send(f"GET /waits?{gate} HTTP/1.1\r\nHost: a\r\n\r\n")
        hint = connection.interim()
        assert (hint.status, hint.all("link")) == (103, LINKS)
        assert hint.header("content-length") is None
        gate.touch()
        response = connection.response()
        assert (response.status, response.text, response.all("link")) == (200, "the answer", LINKS[:1])


def test_several_hints_and_the_next_request(server: Server) -> None:
    with server.connect() as connection:
        for _ in range(2):
            connection.send("GET /twice HTTP/1.1\r\nHost: a\r\n\r\n")
            assert [connection.interim().all("link") for _ in range(2)] == [
                LINKS,
                ["</more.css>; rel=preload; as=style"],
            ]
            assert connection.response().text == "the answer"


def test_hints_behind_the_head_have_no_effect(server: Server) -> None:
    with server.connect() as connection:
        connection.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.interim().status == 103
        response = connection._one("GET")
        assert (response.status, response.text, response.header("x-late")) == (200, "begun, done", None)


def test_http_1_0_gets_none(server: Server) -> None:
    with server.connect() as connection:
        connection.send("GET /twice HTTP/1.0\r\nHost: a\r\n\r\n")
        assert connection._one("GET").text == "the answer"


def test_hints_that_would_split_the_response(server: Server) -> None:
    before = len(server.records("^handler failed$"))
    with server.connect() as connection:
        connection.send("GET /bad HTTP/1.1\r\nHost: a\r\n\r\n")
        response = connection._one("GET")
        assert (response.status, response.header("x-injected")) == (500, None)
    wait_for(lambda: len(server.records("^handler failed$")) > before, "the failure is in the log")
    assert "control character in header Link" in server.records("^handler failed$")[-1]["error"]
