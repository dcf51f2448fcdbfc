"""WSGI in a real worker process."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_core import PATIENCE_S, FakeCore

from appserver.workers import wire

Run = Callable[..., FakeCore]

VALIDATED = """
from wsgiref.validate import validator

def inner(environ, start_response):
    body = environ["wsgi.input"].read(3)
    body += b"".join(environ["wsgi.input"].readlines())
    environ["wsgi.errors"].write("")
    text = environ["REQUEST_METHOD"].encode() + b" " + environ["PATH_INFO"].encode("latin-1") + b" " + body
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [text]

application = validator(inner)
"""


def test_wsgiref_validate_finds_nothing(run: Run) -> None:
    core = run("import warnings\nwarnings.simplefilter('error')\n" + VALIDATED)
    assert core.fetch("GET", "/a").body == b"GET /a "
    assert core.fetch("POST", "/b", body=b"some\nbody").body == b"POST /b some\nbody"
    assert core.fetch("POST", "/c", body=b"x" * 100000, body_fd=True).body == b"POST /c " + b"x" * 100000
    assert core.fetch("PUT", "/d").body == b"PUT /d "
    head = core.fetch("HEAD", "/e")
    assert (head.status, head.headers["content-length"], head.body) == (200, "8", b"")
    core.stop()
    assert core.exit_status() == 0
    assert core.output() == ""
    assert all(message["type"] == "ready" for message in core.messages)


def test_flask_unchanged(run: Run) -> None:
    pytest.importorskip("flask", reason="Flask is not installed")
    core = run(
        "from flask import Flask, Response, request, stream_with_context\n"
        "application = Flask(__name__)\n"
        "@application.get('/hello')\ndef hello():\n    return 'Hello, ' + request.args.get('name', 'world')\n"
        "@application.post('/form')\ndef form():\n    return request.form['a'] + request.files['f'].read().decode()\n"
        "@application.get('/stream')\ndef stream():\n"
        "    return Response((c * 3 for c in 'abc'), mimetype='text/plain')\n"
        "@application.get('/fail')\ndef fail():\n    raise ValueError('of the view')\n"
    )
    answer = core.fetch("GET", "/hello?name=Ada")
    assert (answer.kind, answer.status, answer.body) == (wire.RESPONSE, 200, b"Hello, Ada")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    body = (
        b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        b'--X\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n2\r\n--X--\r\n'
    )
    posted = core.fetch("POST", "/form", body=body, headers={"Content-Type": "multipart/form-data; boundary=X"})
    assert posted.body == b"12"
    streamed = core.fetch("GET", "/stream")
    assert (streamed.kind, streamed.body, streamed.end_status) == (wire.STREAM, b"aaabbbccc", 0)
    assert core.fetch("GET", "/fail").status == 500
    assert core.fetch("GET", "/nothing").status == 404


def application(body: str) -> str:
    """Source of an application with `ok(headers)` at hand."""
    lines = "\n".join("    " + line for line in body.splitlines())
    return f"""
import os, sys, tempfile
from types import SimpleNamespace
def application(environ, start_response):
    def ok(*headers, status="200 OK"):
        return start_response(status, [("Content-Type", "text/plain"), *headers])
{lines}
"""


def test_environ(run: Run) -> None:
    core = run(
        application(
            "ok()\n"
            "e = environ\n"
            "assert type(e) is dict and e['wsgi.version'] == (1, 0) and e['wsgi.url_scheme'] == 'https'\n"
            "assert e['wsgi.multithread'] is True and e['wsgi.run_once'] is False and e['wsgi.errors'] is sys.stderr\n"
            "assert e['PATH_INFO'] == '/caf\\xc3\\xa9' and e['HTTP_X_A'] == 'b'\n"
            "return [b'fine']"
        )
    )
    how = {"headers": {"X-A": "b"}, "environment": {"REQUEST_SCHEME": "https", "HTTPS": "on"}}
    assert core.fetch("GET", "/caf\xc3\xa9", **how).body == b"fine"


def test_body_file_is_a_real_file_at_its_beginning(run: Run) -> None:
    core = run(
        application("f = environ['wsgi.input']\nok()\nreturn [b'%d ' % os.fstat(f.fileno()).st_size, f.read(3)]")
    )
    fd = os.memfd_create("body")
    os.write(fd, b"x" * 70000)  # leaves the offset at the end
    core.send(core.frame("POST", body=b"x" * 70000, body_fd=True), fd=fd)
    os.close(fd)
    assert core.complete(core.next_answer()).body == b"70000 xxx"


@pytest.mark.parametrize("size", [0, 1, wire.INLINE_BODY_MAX, wire.INLINE_BODY_MAX + 1, 3_000_000])
def test_bodies_of_all_sizes(run: Run, size: int) -> None:
    core = run(application(f"ok()\nreturn [b'x' * {size}]"))
    answer = core.fetch()
    assert answer.kind == (wire.RESPONSE if size <= wire.INLINE_BODY_MAX else wire.FILE)
    assert answer.body == b"x" * size
    assert answer.fields == "Content-Type: text/plain\r\n"


def test_list_with_several_parts(run: Run) -> None:
    core = run(application("ok()\nreturn [b'a', b'', b'b']"))
    answer = core.fetch()
    assert (answer.kind, answer.body) == (wire.RESPONSE, b"ab")


def test_stream(run: Run) -> None:
    source = "ok()\ndef pieces():\n    yield b''\n"
    source += "    for n in range(300):\n        yield b'%03d' % n * 1000\nreturn pieces()"
    core = run(application(source))
    answer = core.fetch()
    assert (answer.kind, answer.body_len, answer.end_status) == (wire.STREAM, wire.STREAM_UNKNOWN, 0)
    assert answer.body == b"".join(b"%03d" % n * 1000 for n in range(300))


def test_stream_pieces_are_not_held_back(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    core = run(
        application(
            "ok()\ndef pieces():\n    yield b'first'\n    open('gate').close()\n"
            "    yield environ['wsgi.input'].read()\nreturn pieces()"
        )
    )
    core.send(core.frame("POST", body=b"second"))
    answer = core.next_answer()
    assert os.read(answer.fd, 5) == b"first"
    (tmp_path / "gate").open("w").close()
    assert core.complete(answer).body == b"second"


def test_middleware_may_change_the_method(run: Run) -> None:
    core = run(application("environ['REQUEST_METHOD'] = 'GET'\nok()\nreturn [b'four']"))
    answer = core.fetch("HEAD")
    assert (answer.body, answer.headers["content-length"]) == (b"", "4")


def test_complete_first_piece_is_one_frame_and_goes_before_the_rest_runs(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    core = run(
        application(
            "ok(('Content-Length', '5'))\n"
            "def pieces():\n    yield b'hello'\n    open('gate').close()\n    print('ran to its end')\n"
            "return pieces()"
        )
    )
    core.send(core.frame())
    answer = core.next_answer()
    assert (answer.kind, answer.body) == (wire.RESPONSE, b"hello")
    (tmp_path / "gate").open("w").close()
    core.stop()
    assert core.exit_status() == 0
    assert core.output() == "ran to its end\n"


def test_write(run: Run) -> None:
    core = run(application("w = ok()\nw(b'')\nw(b'a')\nw(b'b')\nreturn [b'c']"))
    answer = core.fetch()
    assert (answer.kind, answer.body, answer.end_status) == (wire.STREAM, b"abc", 0)


def test_head_waits_for_the_first_piece(run: Run) -> None:
    core = run(
        application("def pieces():\n    yield b''\n    ok(status='404 Not Found')\n    yield b'late'\nreturn pieces()")
    )
    answer = core.fetch()
    assert (answer.status, answer.body) == (404, b"late")


def test_close_is_always_called(run: Run) -> None:
    core = run(
        """
class Body:
    def __init__(self, path): self.path = path
    def __iter__(self):
        yield b"x"
        if self.path == "/fail": raise ValueError
    def close(self): print("closed", self.path)
def application(environ, start_response):
    if environ["PATH_INFO"] != "/bad":
        start_response("200 OK", [])
    return Body(environ["PATH_INFO"])
"""
    )
    assert core.fetch("GET", "/").end_status == 0
    assert core.fetch("HEAD", "/head").kind == wire.RESPONSE
    assert core.fetch("GET", "/fail").end_status == 1
    assert core.fetch("GET", "/bad").status == 500
    core.stop()
    assert core.exit_status() == 0
    assert sorted(core.output().split("\n")) == ["", "closed /", "closed /bad", "closed /fail", "closed /head"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("result", ["[b'body']", "iter([b'body'])", "iter([])", "[]"])
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_bodyless_statuses(run: Run, method: str, result: str, status: str) -> None:
    core = run(application(f"ok(('Content-Length', '4'), status={status!r})\nreturn {result}"))
    answer = core.fetch(method)
    assert (answer.kind, answer.status, answer.body) == (wire.RESPONSE, int(status[:3]), b"")
    assert "content-length" not in answer.headers


@pytest.mark.parametrize(
    ("result", "length"),
    [("[b'four']", "4"), ("iter([b'four'])", None), ("iter([])", None), ("[]", "0"), ("[b'x' * 70000]", "70000")],
)
def test_head(run: Run, result: str, length: str | None) -> None:
    core = run(application(f"ok()\nreturn {result}"))
    answer = core.fetch("HEAD")
    assert (answer.kind, answer.body, answer.headers.get("content-length")) == (wire.RESPONSE, b"", length)
    core = run(application(f"ok(('Content-Length', '9'))\nreturn {result}"))
    assert core.fetch("HEAD").headers["content-length"] == "9"


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content")])
def test_what_is_written_behind_an_answer_without_body_has_an_end(run: Run, method: str, status: str) -> None:
    """The core has no deadline for it any more, and no client that could leave."""
    core = run(application(f"write = ok(status={status!r})\nwhile True: write(b'more')"), threads=1)
    for _ in range(3):
        assert core.fetch(method).status == int(status[:3])


@pytest.mark.parametrize("result", ["[b'four']", "[b'fo', b'ur']", "iter([b'fo', b'ur'])", "iter([b'fo', b'urth'])"])
def test_body_longer_than_its_length_is_cut(run: Run, result: str) -> None:
    core = run(application(f"ok(('Content-Length', '3'))\nreturn {result}"))
    answer = core.fetch()
    assert answer.body == b"fou"
    assert answer.end_status in (None, 0)
    record = core.log("body does not have its Content-Length")
    assert record["content_length"] == 3
    assert record["body_length"] > 3


def test_body_shorter_than_its_length(run: Run) -> None:
    """Nothing has been sent: 500. Something has: the stream is broken off."""
    core = run(application("ok(('Content-Length', '9'))\nreturn [b'four']"))
    assert core.fetch().status == 500
    assert core.log("handler failed")["error"] == "LengthError: the body has 4 bytes, and its Content-Length says 9"
    core = run(application("ok(('Content-Length', '9'))\nreturn iter([b'four'])"))
    answer = core.fetch()
    assert (answer.kind, answer.body_len, answer.body, answer.end_status) == (wire.STREAM, 9, b"four", 1)
    assert core.log("body does not have its Content-Length")["body_length"] == 4


FILE = """
f = open('data.bin', 'rb')
{prepare}
ok({headers})
return environ['wsgi.file_wrapper'](f, 1000)
"""


@pytest.mark.parametrize(
    ("prepare", "headers", "offset", "length"),
    [
        ("", "", 0, 200000),
        ("f.read(10)", "", 10, 199990),
        ("f.seek(300000)", "", 300000, 0),
        ("", "('Content-Length', '50')", 0, 50),
        ("import io; f.close(); f = io.FileIO('data.bin')", "", 0, 200000),
        ("g = tempfile.NamedTemporaryFile(); g.write(f.read()); g.seek(1); f.close(); f = g", "", 1, 199999),
        ("f = SimpleNamespace(read=f.read, close=f.close)", "", 0, 200000),
        (
            "g = tempfile.NamedTemporaryFile(); g.write(f.read()); g.seek(1); f = SimpleNamespace(read=g.read)",
            "",
            1,
            199999,
        ),
    ],
)
def test_file_wrapper_hands_over_the_file(
    run: Run, tmp_path: Path, prepare: str, headers: str, offset: int, length: int
) -> None:
    data = os.urandom(200000)
    (tmp_path / "data.bin").write_bytes(data)
    core = run(application(FILE.format(prepare=prepare, headers=headers)))
    answer = core.fetch()
    assert (answer.kind, answer.file_offset, answer.body_len) == (wire.FILE, offset, length)
    assert answer.body == data[offset : offset + length]
    assert len(core.fetch("HEAD").body) == 0


HOLDER = """
class Holder:  # of a file that it does not give as it is
    def __init__(self, name, file):
        setattr(self, name, file)
        self.source, self.left = file, 5
    def read(self, size):
        data = self.source.read(min(size, self.left))
        self.left -= len(data)
        return data.lower()
    def close(self):
        self.source.close()
"""


@pytest.mark.parametrize(
    "prepare",
    [
        "import io; g = io.BytesIO(f.read()); f.close(); f = g",
        "import gzip; f.close(); gzip.open('data.gz', 'wb').write(b'plain'); f = gzip.open('data.gz')",
        "r, w = os.pipe(); os.write(w, f.read()); os.close(w); f.close(); f = os.fdopen(r, 'rb')",
        "f = Holder('file', f)",
        "f = Holder('_file', f)",
        "f = Holder('raw', f)",
    ],
)
def test_file_wrapper_around_anything_else_is_read(run: Run, tmp_path: Path, prepare: str) -> None:
    (tmp_path / "data.bin").write_bytes(
        b"plain" if "Holder" not in prepare else b"PLAIN, and what is not for the client"
    )
    core = run(application(FILE.format(prepare=prepare, headers="")) + HOLDER)
    answer = core.fetch()
    assert (answer.kind, answer.body) == (wire.STREAM, b"plain")


def test_no_descriptor_is_left(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"x" * 100)
    core = run(
        application(
            "ok()\np = environ['PATH_INFO']\n"
            "if p == '/file': return environ['wsgi.file_wrapper'](open('data.bin', 'rb'))\n"
            "if p == '/stream': return iter([b'a', b'b'])\n"
            "if p == '/large': return [b'x' * 100000]\n"
            "if p == '/fail': raise ValueError\n"
            "return [environ['wsgi.input'].read()]"
        )
    )
    folder = Path(f"/proc/{core.process.pid}/fd")
    core.fetch()
    before = len(list(folder.iterdir()))
    for path in ("/file", "/stream", "/large", "/fail", "/body") * 3:
        core.fetch("POST", path, body=b"y" * 100000, body_fd=True)
    core.fetch()
    until = time.monotonic() + PATIENCE_S  # buffers that come back are kept for about a second
    while len(list(folder.iterdir())) != before:
        assert time.monotonic() < until, f"{len(list(folder.iterdir()))} descriptors, and {before} before"
        time.sleep(0.05)


BAD = [
    ("return [b'x']", "start_response"),
    ("return []", "start_response"),
    ("return iter([])", "start_response"),
    ("ok()\nreturn ['text']", "must be bytes, not str"),
    ("ok()\nreturn [b'x', 'text']", "must be bytes, not str"),
    ("ok()\nreturn iter(['text'])", "must be bytes, not str"),
    ("ok()\nreturn 'text'", "returns an iterable of bytes such as [body], not str"),
    ("ok()\nreturn b'bytes'", "returns an iterable of bytes such as [body], not bytes"),
    ("ok()\nreturn {}", "returns an iterable of bytes such as [body], not dict"),
    ("ok()\nreturn None", "returns an iterable of bytes such as [body], not NoneType"),
    ("ok()\nreturn 5", "not iterable"),
    ("ok(('Content-Length', '9'))\nreturn environ['wsgi.file_wrapper'](open(os.devnull, 'rb'))", "Content-Length"),
    ("ok()('text')\nreturn []", "needs bytes"),
    ("ok(status='200')\nok()\nreturn []", "second time"),
    ("ok(status=200)\nreturn []", "status must be a str"),
    ("ok(('A', 'b\\r\\nC: d'))\nreturn []", "control character"),
    ("ok(('Connection', 'close'))\nreturn []", "the server's to send"),
    ("start_response('200 OK', ())\nreturn []", "must be a list"),
    ("raise ValueError('no luck')", "no luck"),
    ("sys.exit(5)", "SystemExit: 5"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("raise BrokenPipeError('of its own')", "of its own"),
    ("class E(Exception):\n    def __str__(self): raise E\nraise E", "E"),
    ("def f(): f()\nf()", "RecursionError"),
    ("environ.clear()\nraise ValueError('cleared')", "cleared"),
]


@pytest.mark.parametrize(("source", "error"), BAD)
def test_failures_are_500_and_logged(run: Run, source: str, error: str) -> None:
    core = run(application(source))
    frame = core.frame("GET", "/here")
    core.send(frame)
    answer = core.next_answer()
    # Without fields and body: the core answers with the site's page for the status.
    assert (answer.kind, answer.status, answer.fields, answer.body) == (wire.RESPONSE, 500, "", b"")
    record = core.log("handler failed")
    assert error in record["error"]
    assert record["level"] == "error"
    assert record["request"] == f"{answer.request_id:016x}"
    assert record["application"] == "site_app:application"
    assert "_appserver_worker" not in record["traceback"].partition("\n")[0]
    core.send(core.frame())  # and the worker goes on
    assert core.next_answer().status == 500


def test_traceback_begins_with_the_application(run: Run, tmp_path: Path) -> None:
    core = run(application("ok()\nreturn [b'%d' % (1 / 0)]"))
    core.fetch()
    lines = core.log("handler failed")["traceback"].split("\n")
    assert lines[0] == "Traceback (most recent call last):"
    assert f'File "{tmp_path}/site_app.py"' in lines[1]
    assert "1 / 0" in lines[2]


def test_dev_shows_the_traceback_escaped(run: Run) -> None:
    core = run(application("raise ValueError('<script>')"), dev=True)
    answer = core.fetch()
    assert (answer.status, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert b"ValueError: &lt;script&gt;" in answer.body
    assert b"<script>" not in answer.body
    assert f"{answer.request_id:016x}".encode() in answer.body
    assert core.fetch("HEAD").body == b""


def test_failure_after_the_head_ends_the_stream_broken(run: Run) -> None:
    core = run(application("ok()\ndef pieces():\n    yield b'first'\n    raise ValueError('late')\nreturn pieces()"))
    answer = core.fetch()
    assert (answer.status, answer.body, answer.end_status) == (200, b"first", 1)
    assert core.log("handler failed")["error"] == "ValueError: late"
    core = run(application("w = ok()\nw(b'first')\nraise ValueError('late')"))
    assert core.fetch().end_status == 1


EXC_INFO = """
try:
    {before}
    raise ValueError("inner")
except ValueError:
    start_response("503 Service Unavailable", [("X", "y")], sys.exc_info())
    return [b"sorry"]
"""


def test_exc_info_replaces_the_head(run: Run) -> None:
    core = run(application(EXC_INFO.format(before="ok()")))
    answer = core.fetch()
    assert (answer.status, answer.headers, answer.body) == (503, {"x": "y"}, b"sorry")


def test_exc_info_after_the_head_is_raised_again(run: Run) -> None:
    core = run(application(EXC_INFO.format(before="ok()(b'begun')")))
    answer = core.fetch()
    assert (answer.status, answer.body, answer.end_status) == (200, b"begun", 1)
    assert core.log("handler failed")["error"] == "ValueError: inner"


def test_client_that_goes_away_ends_the_iteration(run: Run) -> None:
    core = run(
        """
class Endless:
    def __iter__(self): return self
    def __next__(self): return b"x" * 100000
    def close(self): print("closed")
def application(environ, start_response):
    start_response("200 OK", [])
    return Endless()
"""
    )
    core.send(core.frame())
    answer = core.next_answer()
    os.close(answer.fd)
    end = core.next_answer()
    assert (end.kind, end.status) == (wire.END, 1)
    core.stop()
    assert core.exit_status() == 0
    assert core.output() == "closed\n"
    assert all(message["type"] == "ready" for message in core.messages)


def test_cancelled_while_it_streams(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    core = run(
        application("ok()\ndef pieces():\n    yield b'a'\n    open('gate').close()\n    yield b'b'\nreturn pieces()")
    )
    core.send(core.frame())
    answer = core.next_answer()
    core.cancel(answer.slot)
    (tmp_path / "gate").open("w").close()
    answer = core.complete(answer)
    assert (answer.body, answer.end_status) == (b"a", 1)


@pytest.mark.parametrize("where", ["first", "later"])
def test_empty_chunks_without_end_stop_when_nobody_waits(run: Run, tmp_path: Path, where: str) -> None:
    first = "    yield b'a'\n" if where == "later" else ""
    core = run(
        application(
            f"ok()\ndef pieces():\n{first}    open('begun', 'w').close()\n    while True: yield b''\nreturn pieces()"
        )
    )
    core.send(core.frame(slot=5))
    wait_for(tmp_path / "begun")
    core.cancel(5)
    answer = core.next_answer()
    if where == "later":
        assert core.complete(answer).end_status == 1
    else:
        assert (answer.kind, answer.status) == (wire.RESPONSE, 503)
    core.stop()
    assert core.exit_status() == 0


def wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < end, f"{path} has not appeared"
        time.sleep(0.01)


CLOSING = """
class Closing:
    def __init__(self, pieces): self.pieces = iter(pieces)
    def __iter__(self): return self
    def __next__(self):
        piece = next(self.pieces)
        if piece is None: raise ValueError("in __next__")
        return piece
    def close(self):
        print("closed")
        {close}
class NoIteration:
    def close(self): print("closed")
class Sequence(list):
    def close(self): print("closed")
class File:
    def read(self, size): return b""
    def close(self): print("closed")
"""


@pytest.mark.parametrize(
    ("source", "close"),
    [
        ("ok(); return Closing([b'a', b'b'])", "pass"),
        ("ok(); return Closing([])", "pass"),
        ("ok(); return Closing([b''])", "pass"),
        ("ok(); return Closing([None])", "pass"),
        ("ok(); return Closing([b'a', None])", "pass"),
        ("ok(); return Closing(['text'])", "pass"),
        ("ok(); return Closing([b'a', 'text'])", "pass"),
        ("ok(); return Closing([b'a', b'b'])", "raise ValueError('in close')"),
        ("ok(); return Closing([None])", "raise ValueError('in close')"),
        ("return Closing([b'a'])", "pass"),
        ("ok(('Content-Length', '1')); return Closing([b'a', b'b'])", "pass"),
        ("ok(('Content-Length', '1')); return Closing([b'a', b'', b''])", "pass"),
        (
            "ok(('Content-Length', '1')); return Closing(b'' if n else b'a' for n in __import__('itertools').count())",
            "",
        ),
        ("ok(('Content-Length', '3')); return Closing([b'a'])", "pass"),
        ("ok(('A', 'b\\n')); return Closing([b'a'])", "pass"),
        ("ok(status='204 No'); return Closing([b'a', b'b'])", "pass"),
        ("ok()(b'written'); return Closing([b'a'])", "pass"),
        ("ok(); return NoIteration()", "pass"),
        ("ok(); return Sequence([b'a', b'b'])", "pass"),
        ("ok(); return Sequence([3])", "pass"),
        ("ok(); return environ['wsgi.file_wrapper'](File())", "pass"),
    ],
)
def test_close_is_called_exactly_once(run: Run, source: str, close: str) -> None:
    core = run(CLOSING.format(close=close) + application(source))
    core.fetch("GET")
    core.fetch("HEAD")
    core.stop()
    assert core.exit_status() == 0
    # An application whose head is refused has returned nothing that could be closed.
    assert core.output().count("closed") == (0 if "(('A'" in source else 2)


def test_write_past_the_length(run: Run) -> None:
    core = run(application("w = ok(('Content-Length', '3'))\nw(b'ab')\nw(b'cd')\nreturn []"))
    answer = core.fetch()
    # The client has all that was promised, so its answer is whole.
    assert (answer.body, answer.end_status) == (b"abc", 0)
    assert core.log("handler failed")["error"] == "LengthError: write() past the Content-Length 3"


@pytest.mark.parametrize(
    ("source", "status", "complaint"),
    [
        ("if not os.fork(): return [b'of the child']\nos.wait()\nok()\nreturn [b'of the parent']", 1, True),
        ("if not os.fork(): raise ValueError('of the child')\nos.wait()\nok()\nreturn [b'of the parent']", 1, True),
        ("if not os.fork(): sys.exit(3)\nos.wait()\nok()\nreturn [b'of the parent']", 3, False),
        ("if not os.fork(): os._exit(4)\nos.wait()\nok()\nreturn [b'of the parent']", 4, False),
        ("w = ok()\nif not os.fork(): w(b'child')\nos.wait()\nw(b'of the parent')\nreturn []", 1, True),
        ("w = ok()\nw(b'of ')\nif not os.fork(): return [b'child']\nos.wait()\nreturn [b'the parent']", 1, True),
        ("ok()\ndef pieces():\n    yield b'of the '\n    os.fork() and os.wait()\n    yield b'parent'\n"
         "return pieces()", 1, True),
    ],
)  # fmt: skip
def test_forked_child_that_comes_back_does_not_answer(run: Run, source: str, status: int, complaint: bool) -> None:
    source = source.replace("os.wait()", "print('child', os.wait()[1] >> 8)")
    core = run("import warnings\nwarnings.simplefilter('ignore')\n" + application(source), threads=2)
    for _ in range(3):
        answer = core.fetch()
        assert (answer.status, answer.body, answer.end_status in (None, 0)) == (200, b"of the parent", True)
        if complaint:
            record = core.log(
                "a process that a handler forked came back from it and was ended; it should end with os._exit()"
            )
            assert record["process"] != core.process.pid
    core.stop()
    assert core.exit_status() == 0
    assert core.output() == f"child {status}\n" * 3
    assert select.select(core.answers, [], [], 0)[0] == []


HINTS = """
hints = environ["wsgi.early_hints"]
hints([("Link", "</a.css>; rel=preload; as=style"), ("Link", "</b.js>; rel=preload; as=script")])
hints([("X-Second", "1")])
write = ok()
write(b"begun ")
hints([("X-Late", "1")])
return [b"and done"]
"""


def test_early_hints(run: Run) -> None:
    core = run(application(HINTS))
    core.send(core.frame())
    first, second = core.next_answer(), core.next_answer()
    assert (first.kind, first.status) == (second.kind, second.status) == (wire.INFORMATIONAL, 103)
    assert first.fields == "Link: </a.css>; rel=preload; as=style\r\nLink: </b.js>; rel=preload; as=script\r\n"
    assert second.fields == "X-Second: 1\r\n"
    answer = core.complete(core.next_answer())
    assert (answer.request_id, answer.body, answer.end_status) == (first.request_id, b"begun and done", 0)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ("[('A', 'b\\r\\nC: d')]", "control character in header A"),
        ("[('Connection', 'close')]", "header Connection is the server's to send"),
        ("[('Content-Length', '3')]", "header Content-Length does not belong into an interim response"),
        ("{'Link': '</a>'}", "headers must be a list of (name, value), not dict"),
    ],
)
def test_bad_early_hints(run: Run, headers: str, error: str) -> None:
    core = run(application(f"environ['wsgi.early_hints']({headers})\nok()\nreturn [b'x']"))
    assert core.fetch().status == 500
    assert error in core.log("handler failed")["error"]


COLLECTING = """
import gc
gc.disable()
def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/left":
        return [b"%d" % gc.collect()]
    return other(environ)
def other(environ):
"""


@pytest.mark.parametrize(
    "body",
    [
        "return [b'one']",
        "return [b'one', b'two']",
        "return environ['wsgi.input']",
        "yield b'one'\n    yield environ['PATH_INFO'].encode()",
        "environ['wsgi.early_hints']([('Link', '</a>')])\n    return [b'one']",
        "environ['appserver.cancelled']()\n    return environ['wsgi.file_wrapper'](open(__file__, 'rb'))",
        "raise LookupError",
    ],
)
def test_nothing_is_left_for_the_collector(run: Run, body: str) -> None:
    """What a request leaves behind goes with it: the collector's pauses would be somebody's latency."""
    core = run(COLLECTING + "    " + body)
    core.fetch("GET", "/left")
    for _ in range(5):
        answer = core.fetch("POST", "/a", body=b"x")
        if answer.kind == wire.INFORMATIONAL:
            answer = core.complete(core.next_answer())
        assert answer.status == (500 if "raise" in body else 200)
    assert core.fetch("GET", "/left").body == b"0"
