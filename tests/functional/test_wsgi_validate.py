"""Applications under `wsgiref.validate`, which watches both sides of PEP 3333 and raises when either breaks it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Server

APPLICATIONS = r"""
import hashlib, io, sys, warnings
from wsgiref.validate import validator

warnings.simplefilter("error")  # the validator warns of what is only unwise
PLAIN = [("Content-Type", "text/plain")]
applications = {}

def validated(function):
    applications["/" + function.__name__] = validator(function)
    return function

def empty_for(environ, body):
    return [b""] if environ["REQUEST_METHOD"] == "HEAD" else body

@validated
def whole(environ, start_response):
    start_response("200 OK", PLAIN + [("Content-Length", "5")])
    return empty_for(environ, [b"whole"])

@validated
def parts(environ, start_response):
    start_response("200 OK", PLAIN)
    return empty_for(environ, [b"in ", b"", b"parts"])

@validated
def generator(environ, start_response):
    start_response("200 OK", PLAIN)
    return (b"%d " % number for number in range(300))

@validated
def late(environ, start_response):
    start_response("200 OK", PLAIN)
    yield b"late head"

@validated
def written(environ, start_response):
    write = start_response("200 OK", PLAIN)
    write(b"written, ")
    write(b"")
    return [b"returned"]

@validated
def replaced(environ, start_response):
    start_response("200 OK", PLAIN)
    try:
        raise KeyError
    except KeyError:
        start_response("503 Busy", PLAIN, sys.exc_info())
    return [b"replaced"]

@validated
def nothing(environ, start_response):
    start_response("204 No Content", [])
    return []

@validated
def unchanged(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"a"')])
    return []

@validated
def wrapped(environ, start_response):
    start_response("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](io.BytesIO(b"wrapped " * 10_000), 1000)

@validated
def cookies(environ, start_response):
    start_response("200 OK", PLAIN + [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    return [environ.get("HTTP_COOKIE", "").encode()]

@validated
def reads(environ, start_response):
    stream = environ["wsgi.input"]
    digest = hashlib.sha256(stream.readline())
    digest.update(stream.read(10))
    for line in stream.readlines(100):
        digest.update(line)
    for line in stream:
        digest.update(line)
    digest.update(stream.read(1))
    environ["wsgi.errors"].write("")
    environ["wsgi.errors"].writelines([])
    environ["wsgi.errors"].flush()
    start_response("200 OK", PLAIN)
    return [digest.hexdigest().encode()]

def application(environ, start_response):
    return applications[environ["PATH_INFO"]](environ, start_response)
"""

CONFIG = """
log: {access: "off"}
pools: {app: {python: "app:application", directory: ., processes: 1}}
sites: [{rules: [{handler: {python: app}}]}]
"""


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Iterator[Server]:
    yield serve_module({"app.py": APPLICATIONS}, config=CONFIG)


@pytest.fixture(autouse=True)
def nothing_is_found(server: Server) -> Iterator[None]:
    before = len(server.records("^handler failed$"))
    yield
    assert server.get("/whole").text == "whole"  # behind whatever the last request logged
    assert server.records("^handler failed$")[before:] == []


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("whole", 200, b"whole"),
        ("parts", 200, b"in parts"),
        ("generator", 200, b"".join(b"%d " % number for number in range(300))),
        ("late", 200, b"late head"),
        ("written", 200, b"written, returned"),
        ("replaced", 503, b"replaced"),
        ("nothing", 204, b""),
        ("unchanged", 304, b""),
        ("wrapped", 200, b"wrapped " * 10_000),
        ("cookies", 200, b""),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_validator_finds_nothing(server: Server, path: str, status: int, body: bytes, method: str) -> None:
    response = server.get(f"/{path}?a=%20b", method=method, body=b"" if method == "POST" else None)
    assert (response.status, response.body) == (status, b"" if method == "HEAD" else body)
    if path == "cookies":
        assert response.all("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("size", [0, 5, 500, 64 * 1024 + 1, 3 << 20])
def test_input_is_read_in_every_way(server: Server, size: int) -> None:
    body = bytes(random.Random(size).choices(b"abcdef\n", k=size))
    assert server.post("/reads", body).text == hashlib.sha256(body).hexdigest()
