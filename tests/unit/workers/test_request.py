"""Requests and what handlers may return, without a process."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from appserver.workers.request import BadInput, Request, Response, application_of
from appserver.workers.wsgi import FileWrapper


def request(body: bytes = b"", **environ: Any) -> Request:
    base = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/caf\xc3\xa9",
        "QUERY_STRING": "a=1&b=%C3%BC&a=2&c=",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "8080",
        "REMOTE_ADDR": "192.0.2.7",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
    }
    return Request({**base, **environ})


def answer(returned: Any) -> tuple[str, dict[str, str], Iterable[bytes]]:
    """Status line, headers and body of what a handler returned."""
    seen: list[Any] = []
    body = application_of(lambda request: returned)(request().environ, lambda *head: seen.extend(head))
    return seen[0], dict(seen[1]), body


def test_where_and_who() -> None:
    r = request()
    assert (r.method, r.path, r.script_name, r.path_info) == ("GET", "/app/café", "/app", "/café")
    assert r.url == "http://example.org:8080/app/caf%C3%A9?a=1&b=%C3%BC&a=2&c="
    assert request(HTTP_HOST="h").host == "h"
    assert r.client == "192.0.2.7"


def test_query() -> None:
    query = request().query
    assert (query["a"], query.getlist("a"), query["b"], query.get("c"), query.get("d")) == (
        "1",
        ["1", "2"],
        "ü",
        "",
        None,
    )
    assert list(query) == ["a", "b", "c"]
    assert dict(query) == {"a": "1", "b": "ü", "c": ""}
    assert list(query.pairs())[-1] == ("c", "")
    assert "d" not in query
    with pytest.raises(KeyError):
        query["d"]
    with pytest.raises(BadInput):
        assert request(QUERY_STRING="a=1&" * 1000 + "a=1").query


def test_headers() -> None:
    headers = request(HTTP_X_COLOUR="red", CONTENT_TYPE="text/plain", CONTENT_LENGTH="3").headers
    assert headers["x-colour"] == headers["X-Colour"] == "red"
    assert headers.get("Content-Type") == "text/plain"
    assert headers.get("absent") is None
    assert sorted(headers) == ["Content-Length", "Content-Type", "X-Colour"]
    assert len(headers) == 3


def test_cookies() -> None:
    cookies = request(HTTP_COOKIE='a=1; b="two words"; a=3; broken; c=x=y; d="').cookies
    assert cookies == {"a": "1", "b": "two words", "c": "x=y", "d": '"'}


def test_body() -> None:
    r = request(b'{"a": [1]}')
    assert r.json() == {"a": [1]}
    assert r.text == '{"a": [1]}'
    assert r.body == b'{"a": [1]}'
    assert request("é".encode("latin-1"), CONTENT_TYPE="text/plain; charset=latin-1").text == "é"
    for bad in (request(b"{"), request(b"\xff"), request(b"[" * 100000)):
        with pytest.raises(BadInput):
            bad.json()
    with pytest.raises(BadInput):
        assert request(b"\xff").text
    for charset in ("nonsense", "undefined", ""):
        with pytest.raises(BadInput):
            assert request(b"x", CONTENT_TYPE=f"text/plain; charset={charset}").text


def test_form_and_body_can_both_be_read() -> None:
    kind = "application/x-www-form-urlencoded"
    r = request(b"a=1", CONTENT_TYPE=kind)
    assert r.form()["a"] == "1"
    assert r.body == b"a=1"
    r = request(b"a=1", CONTENT_TYPE=kind)
    assert r.body == b"a=1"
    assert r.form()["a"] == "1"
    assert r.content_type == kind


@pytest.mark.parametrize(
    ("returned", "status", "kind", "body"),
    [
        ("hello", "200 OK", "text/plain; charset=utf-8", b"hello"),
        ("  <!doctype html>ü", "200 OK", "text/html; charset=utf-8", "  <!doctype html>ü".encode()),
        (b"\0", "200 OK", "application/octet-stream", b"\0"),
        ({"a": "ü"}, "200 OK", "application/json", '{"a": "ü"}'.encode()),
        ([1, 2], "200 OK", "application/json", b"[1, 2]"),
        (["\ud800ü"], "200 OK", "application/json", b'["\\ud800\\u00fc"]'),
        (None, "204 No Content", None, b""),
        (("gone", 410), "410 Gone", "text/plain; charset=utf-8", b"gone"),
        (({"a": 1}, 201, {"Content-Type": "application/x"}), "201 Created", "application/x", b'{"a": 1}'),
        (("x", 299), "299 Unknown", "text/plain; charset=utf-8", b"x"),
        ((None, 304), "304 Not Modified", None, b""),
        (Response("x", 404, content_type="text/x"), "404 Not Found", "text/x", b"x"),
        (Response(), "200 OK", "text/plain; charset=utf-8", b""),
        (iter(["", "<p>", b"x"]), "200 OK", "text/html; charset=utf-8", b"<p>x"),
        (iter([b"x"]), "200 OK", "application/octet-stream", b"x"),
        (iter([]), "200 OK", "text/plain; charset=utf-8", b""),
        (Path("/does/not/exist"), "404 Not Found", None, b""),
        (Path("/"), "404 Not Found", None, b""),
    ],
)
def test_return_values(returned: Any, status: str, kind: str | None, body: bytes) -> None:
    line, headers, pieces = answer(returned)
    assert (line, headers.get("Content-Type"), b"".join(pieces)) == (status, kind, body)


@pytest.mark.parametrize(
    "returned",
    [1, True, 1.5, {1}, object(), ("x",), ("x", 200, {}, 1), ("x", "200"), ("x", True), (("x", 1), 2), range(3)],
)
def test_other_values_are_refused(returned: Any) -> None:
    with pytest.raises(TypeError):
        answer(returned)


def test_headers_of_a_response() -> None:
    pairs = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    assert Response("x", headers=pairs).headers == pairs
    assert answer(("x", 200, {"X": "y"}))[1]["X"] == "y"


def test_files(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>")
    for returned in (page, page.open("rb")):
        _, headers, body = answer(returned)
        assert headers["Content-Type"] == "text/html"
        assert isinstance(body, FileWrapper)
        assert b"".join(body) == b"<p>"
        body.close()
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(b"")
    _, headers, body = answer(archive)
    assert headers["Content-Type"] == "application/octet-stream"
    assert isinstance(body, FileWrapper)
    body.close()


def test_a_generator_is_closed() -> None:
    closed = []

    def pieces() -> Any:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(True)

    body = answer(pieces())[2]
    assert next(iter(body)) == b"a"
    body.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_bad_input_is_400() -> None:
    seen: list[Any] = []
    application = application_of(lambda request: request.json())
    body = application(request(b"{").environ, lambda *head: seen.extend(head))
    assert seen[0] == "400 Bad Request"
    assert b"".join(body).startswith(b"the body is not JSON")
