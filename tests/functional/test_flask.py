"""A Flask application, unchanged, through the real server."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Server

APPLICATION = r"""
import hashlib, io
from flask import (Blueprint, Flask, Response, abort, flash, get_flashed_messages, jsonify, make_response, redirect,
                   render_template_string, request, send_file, session, stream_with_context, url_for)

app = Flask(__name__)
app.secret_key = "only for this test"

@app.route("/")
def index():
    return "index"

@app.route("/hello/<name>", methods=["GET"])
def hello(name):
    return render_template_string("<p>Hello {{ name }}</p>", name=name)

@app.post("/form")
def form():
    return jsonify(form=request.form.to_dict(flat=False), args=request.args.to_dict())

@app.post("/json")
def echo_json():
    return request.get_json()

@app.post("/upload")
def upload():
    found = {}
    for name, file in request.files.items():
        data = file.read()
        found[name] = [file.filename, file.mimetype, len(data), hashlib.sha256(data).hexdigest()]
    return jsonify(found)

@app.route("/count")
def count():
    session["count"] = session.get("count", 0) + 1
    flash(f"seen {session['count']}")
    return f"{session['count']} {get_flashed_messages()}"

@app.route("/stream")
def stream():
    def pieces():
        for number in range(5):
            yield f"{request.args['word']}{number} "
    return Response(stream_with_context(pieces()), mimetype="text/plain")

@app.route("/file")
def file():
    return send_file(__file__, mimetype="text/x-python", conditional=True)

@app.route("/memory")
def memory():
    return send_file(io.BytesIO(b"0123456789" * 20000), mimetype="application/x-digits", download_name="digits")

@app.route("/away")
def away():
    return redirect(url_for("hello", name="you"))

@app.route("/urls")
def urls():
    return jsonify(inner=url_for("hello", name="a b"), outer=url_for("index", _external=True),
                   root=request.script_root, path=request.path, url=request.url, static=url_for("static", filename="a"))

@app.route("/fails")
def fails():
    raise LookupError("flask fails")

@app.route("/aborts/<int:status>")
def aborts(status):
    abort(status)

@app.errorhandler(410)
def gone(error):
    return "all gone", 410, {"X-Gone": "yes"}

@app.route("/cookies")
def cookies():
    response = make_response(jsonify(request.cookies))
    response.set_cookie("one", "1", httponly=True)
    response.set_cookie("two", "zwei", samesite="Lax")
    return response

@app.before_request
def before():
    request.environ["test.before"] = "1"

@app.teardown_request
def after(error):
    if request.path == "/fails":
        print("torn down after", type(error).__name__)
"""

CONFIG = """
log: {access: "off"}
pools:
  shop: {python: "shop:app", directory: ., processes: 2, threads: 4}
sites:
  - {hosts: [whole.example], rules: [{handler: {python: shop}}]}
  - hosts: ["*"]
    rules: [{match: {path: /shop/*}, handler: {python: shop}}]
"""


@pytest.fixture(scope="module")
def shop(serve_module: Any) -> Iterator[Server]:
    yield serve_module({"shop.py": APPLICATION, "static/a": "a static file"}, config=CONFIG)


@pytest.fixture(params=["", "/shop"], ids=["whole", "below a prefix"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fields(prefix: str, more: dict[str, str] | None = None) -> dict[str, str]:
    """Header fields that lead to the site where the application has this prefix."""
    return {"Host": "localhost:1234" if prefix else "whole.example", **(more or {})}


def test_routes(shop: Server, prefix: str) -> None:
    assert shop.get(f"{prefix}/", fields(prefix)).text == "index"
    assert shop.get(f"{prefix}/hello/J%C3%BCrgen%20%3Cb%3E", fields(prefix)).text == "<p>Hello Jürgen &lt;b&gt;</p>"
    assert shop.get(f"{prefix}/static/a", fields(prefix)).text == "a static file"
    assert shop.get(f"{prefix}/nowhere", fields(prefix)).status == 404


def test_methods(shop: Server, prefix: str) -> None:
    refused = shop.post(f"{prefix}/hello/x", b"", fields(prefix))
    assert refused.status == 405
    assert set((refused.header("allow") or "").split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert shop.get(f"{prefix}/hello/x", fields(prefix), method="OPTIONS").status == 200
    head = shop.get(f"{prefix}/hello/x", fields(prefix), method="HEAD")
    assert (head.status, head.header("content-length"), head.body) == (200, "14", b"")


def test_form(shop: Server, prefix: str) -> None:
    more = fields(prefix, {"Content-Type": "application/x-www-form-urlencoded"})
    found = shop.post(f"{prefix}/form?q=%26", b"a=1&a=2&b=%C3%BC+x", more)
    assert json.loads(found.body) == {"form": {"a": ["1", "2"], "b": ["ü x"]}, "args": {"q": "&"}}


def test_json(shop: Server, prefix: str) -> None:
    more = fields(prefix, {"Content-Type": "application/json"})
    assert json.loads(shop.post(f"{prefix}/json", b'{"a": [1, "\xc3\xbc"]}', more).body) == {"a": [1, "ü"]}
    assert shop.post(f"{prefix}/json", b"{", more).status == 400
    assert shop.post(f"{prefix}/json", b"{}", fields(prefix)).status == 415


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
def test_upload(shop: Server, prefix: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="f"; filename="a b.bin"\r\nContent-Type: image/x-test\r\n\r\n'
        + data
        + b"\r\n--xyz--\r\n"
    )
    more = fields(prefix, {"Content-Type": "multipart/form-data; boundary=xyz"})
    found = json.loads(shop.post(f"{prefix}/upload", body, more).body)
    assert found == {"f": ["a b.bin", "image/x-test", size, hashlib.sha256(data).hexdigest()]}


def test_session(shop: Server, prefix: str) -> None:
    first = shop.get(f"{prefix}/count", fields(prefix))
    assert first.text == "1 ['seen 1']"
    cookie = first.header("set-cookie") or ""
    again = shop.get(f"{prefix}/count", fields(prefix, {"Cookie": cookie.split(";")[0]}))
    assert again.text == "2 ['seen 2']"


def test_cookies(shop: Server, prefix: str) -> None:
    response = shop.get(f"{prefix}/cookies", fields(prefix, {"Cookie": 'a=1; b="x y"'}))
    assert json.loads(response.body) == {"a": "1", "b": "x y"}
    assert response.all("set-cookie") == ["one=1; HttpOnly; Path=/", "two=zwei; Path=/; SameSite=Lax"]


def test_stream(shop: Server, prefix: str) -> None:
    assert shop.get(f"{prefix}/stream?word=w", fields(prefix)).text == "w0 w1 w2 w3 w4 "


def test_send_file(shop: Server, prefix: str) -> None:
    whole = shop.get(f"{prefix}/file", fields(prefix))
    assert whole.text == APPLICATION
    part = shop.get(f"{prefix}/file", fields(prefix, {"Range": "bytes=10-19"}))
    assert (part.status, part.text) == (206, APPLICATION[10:20])
    same = shop.get(f"{prefix}/file", fields(prefix, {"If-None-Match": whole.header("etag") or ""}))
    assert (same.status, same.body) == (304, b"")
    assert shop.get(f"{prefix}/memory", fields(prefix)).body == b"0123456789" * 20000


def test_redirect(shop: Server, prefix: str) -> None:
    response = shop.get(f"{prefix}/away", fields(prefix))
    assert (response.status, response.header("location")) == (302, f"{prefix}/hello/you")


def test_urls(shop: Server, prefix: str) -> None:
    host = fields(prefix)["Host"]
    assert json.loads(shop.get(f"{prefix}/urls?a=b", fields(prefix)).body) == {
        "inner": f"{prefix}/hello/a%20b",
        "outer": f"http://{host}{prefix}/",
        "root": prefix,
        "path": "/urls",
        "url": f"http://{host}{prefix}/urls?a=b",
        "static": f"{prefix}/static/a",
    }


def test_errors(shop: Server, prefix: str) -> None:
    assert shop.get(f"{prefix}/aborts/404", fields(prefix)).status == 404
    gone = shop.get(f"{prefix}/aborts/410", fields(prefix))
    assert (gone.status, gone.text, gone.header("x-gone")) == (410, "all gone", "yes")
    assert shop.get(f"{prefix}/fails", fields(prefix)).status == 500
    shop.wait_for_log("LookupError: flask fails")  # Flask logs it itself, on stderr
    shop.wait_for_log('"torn down after LookupError"')
    assert shop.get(f"{prefix}/", fields(prefix)).status == 200
