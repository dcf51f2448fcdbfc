"""Handler scripts and WSGI applications through the real server."""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Connection, Server, wait_for

KIB, MIB = 1 << 10, 1 << 20
SIZES = (0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB - 1, MIB, MIB + 1, 20 * MIB)

KINDS = r"""
import io, pathlib
from appserver_handler import Response

FOLDER = pathlib.Path(__file__).parent

def numbers():
    yield "one "
    yield b"two "
    yield ""
    yield "three"

class Unhelpful:
    pass

def handle(request):
    return {
        "/text": lambda: "grüße",
        "/html": lambda: "  <p>hi</p>",
        "/bytes": lambda: b"\x00\xff",
        "/bytearray": lambda: bytearray(b"abc"),
        "/memoryview": lambda: memoryview(b"abc"),
        "/dict": lambda: {"a": [1, None, "ü"]},
        "/list": lambda: [1, 2],
        "/none": lambda: None,
        "/path": lambda: FOLDER / "_picture.png",
        "/missing": lambda: FOLDER / "_nothing",
        "/file": lambda: open(FOLDER / "_picture.png", "rb"),
        "/memory": lambda: io.BytesIO(b"in memory"),
        "/generator": numbers,
        "/iterator": lambda: iter([b"a", b"b"]),
        "/empty": lambda: iter(()),
        "/status": lambda: ("made", 201),
        "/headers": lambda: ("made", 202, {"X-One": "1", "Content-Type": "text/x-own"}),
        "/response": lambda: Response({"a": 1}, 418, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]),
        "/unknown": lambda: Unhelpful(),
        "/mixed": lambda: iter([b"a", 3]),
        "/tuple": lambda: ("a", "200"),
    }[request.path_info]()
"""

ECHO = r'''
import hashlib

def handle(request):
    """The body back, or what is in it."""
    if request.query.get("digest"):
        body = request.stream.read()
        return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest(),
                "content_length": request.environ.get("CONTENT_LENGTH")}
    return request.body
'''

BODIES = r"""
import random

def body_of(size):
    return random.Random(size).randbytes(size)

def handle(request):
    size = int(request.query["size"])
    body = body_of(size)
    if request.query.get("stream"):
        step = int(request.query["stream"])
        return (body[at : at + step] for at in range(0, size, step))
    return body
"""

STREAM = r'''
import sys

def handle(request):
    """Pieces without end, and a note in the log when nobody wants them any more."""
    kind = request.path_info
    if kind == "/endless":
        return endless(request)
    if kind == "/breaks":
        return breaks()
    if kind == "/breaks-first":
        return breaks_first()

def endless(request):
    count = 0
    try:
        while True:
            yield b"x" * 16384
            count += 1
            if count % 16 == 0:
                say(f"pieces {request.query['name']} {count}")
    finally:
        say(f"closed {request.query['name']}")

def say(line):
    """In one write: print() makes two, and threads that print at once then mix their lines."""
    sys.stdout.write(line + "\n")

def breaks():
    yield "begun"
    raise RuntimeError("in the middle")

def breaks_first():
    raise RuntimeError("before the first")
    yield
'''

WSGI = r"""
import sys, threading, wsgiref.util

class Closing:
    def __init__(self, pieces, name):
        self.pieces, self.name = iter(pieces), name
    def __iter__(self):
        return self
    def __next__(self):
        return next(self.pieces)
    def close(self):
        print("close called", self.name)

def fails_late():
    yield b"sent already"
    raise ValueError("late")

def application(environ, start_response):
    path = environ["PATH_INFO"]
    plain = [("Content-Type", "text/plain")]
    if path == "/write":
        write = start_response("200 OK", plain)
        write(b"written ")
        write(b"and ")
        return [b"returned"]
    if path == "/exc_info":
        start_response("200 OK", plain)
        try:
            raise KeyError("x")
        except KeyError:
            start_response("503 Sorry", [("Content-Type", "text/x-sorry")], sys.exc_info())
        return [b"sorry"]
    if path == "/exc_info_late":
        write = start_response("200 OK", plain)
        write(b"too late")
        try:
            raise KeyError("x-late")
        except KeyError:
            start_response("500 Oops", plain, sys.exc_info())
        return [b"not reached"]
    if path == "/twice":
        start_response("200 OK", plain)
        start_response("200 OK", plain)
        return [b""]
    if path == "/never":
        return [b"no head"]
    if path == "/str":
        start_response("200 OK", plain)
        return ["a str"]
    if path == "/close":
        start_response("200 OK", plain)
        return Closing([b"a", b"b"], environ["QUERY_STRING"])
    if path == "/close_fails":
        start_response("200 OK", plain)
        return Closing(fails_late(), environ["QUERY_STRING"])
    if path == "/too_long":
        start_response("200 OK", plain + [("Content-Length", "3")])
        return [b"abcdef"]
    if path == "/too_short":
        start_response("200 OK", plain + [("Content-Length", "30")])
        return iter([b"abc", b"def"])
    if path == "/wrapped":
        file = open(environ["QUERY_STRING"], "rb")
        file.seek(5)
        start_response("200 OK", plain)
        return environ["wsgi.file_wrapper"](file)
    if path == "/head":
        start_response("200 OK", plain + [("Content-Length", "5"), ("X-Method", environ["REQUEST_METHOD"])])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"12345"]
    if path == "/no_content":
        start_response("204 No Content", [])
        return []
    if path == "/not_modified":
        start_response("304 Not Modified", [("ETag", '"a"')])
        return []
    if path == "/cookies":
        start_response("200 OK", plain + [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"), ("X-A", "1"),
                                          ("X-A", "2")])
        return [environ.get("HTTP_COOKIE", "").encode()]
    if path == "/inject":
        import urllib.parse
        start_response("200 OK", [("X-Evil", urllib.parse.unquote(environ["QUERY_STRING"]))])
        return [b"never"]
    if path == "/inject_name":
        start_response("200 OK", [("X-Evil: 1\r\nX-More", "a")])
        return [b"never"]
    if path == "/inject_status":
        start_response("200 OK\r\nX-Evil: 1", [])
        return [b"never"]
    if path == "/hop":
        start_response("200 OK", [("Transfer-Encoding", "chunked")])
        return [b"never"]
    if path == "/errors":
        environ["wsgi.errors"].write("a complaint of the application\n")
        environ["wsgi.errors"].flush()
        print("on stderr too", file=sys.stderr)
        print("and on stdout")
        start_response("200 OK", plain)
        return [b"ok"]
    if path == "/lines":
        start_response("200 OK", plain)
        stream = environ["wsgi.input"]
        return [repr([stream.readline(), stream.read(3), stream.readlines(), stream.read()]).encode()]
    start_response("200 OK", plain)
    return [repr(sorted((k, v) for k, v in environ.items() if isinstance(v, str))).encode("latin-1")]
"""

ENVIRON = r"""
def handle(request):
    keep = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "REQUEST_METHOD", "SERVER_PROTOCOL",
            "CONTENT_TYPE", "CONTENT_LENGTH", "REMOTE_ADDR", "SERVER_NAME", "SERVER_PORT", "GATEWAY_INTERFACE",
            "HTTP_COOKIE", "HTTP_X_TWICE", "HTTP_PROXY", "HTTP_X_UNDER_SCORE")
    found = {name: request.environ[name] for name in keep if name in request.environ}
    return dict(found, path=request.path, cookies=request.cookies)
"""

VALIDATED = r"""
import wsgiref.validate

def inner(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    answer = b"%d bytes" % len(body)
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))]
    start_response("200 OK", headers)
    return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [answer]

application = wsgiref.validate.validator(inner)
"""

BARRIER = r'''
import threading
barrier = threading.Barrier(4)

def handle(request):
    """Answers when four threads of this process are in here at once."""
    barrier.wait(20)
    return str(threading.get_ident())
'''

DEATH = r"""
import ctypes, os, sys

def handle(request):
    kind = request.path_info
    if kind == "/exit":
        sys.exit("the handler wants to exit")
    if kind == "/interrupt":
        raise KeyboardInterrupt
    if kind == "/_exit":
        os._exit(7)
    if kind == "/segfault":
        ctypes.string_at(0)
    if kind == "/abort":
        os.abort()
    return str(os.getpid())
"""

CONFIG = """
log: {access: "off"}
pools:
  handlers: {scripts: handlers, processes: 2, threads: 4}
sites:
  - rules: [{match: {path: /*}, handler: {scripts: handlers}}]
"""

SCRIPTS = {
    "kinds": KINDS,
    "echo": ECHO,
    "bodies": BODIES,
    "stream": STREAM,
    "wsgi": WSGI,
    "environ": ENVIRON,
    "validated": VALIDATED,
}
FILES: dict[str, str | bytes] = {f"handlers/{name}.py": text for name, text in SCRIPTS.items()}
PICTURE = b"\x89PNG" + bytes(range(256)) * 300


@pytest.fixture(scope="module")
def shared(serve_module: Any) -> Iterator[Server]:
    yield serve_module({**FILES, "handlers/_picture.png": PICTURE}, config=CONFIG)


def random_bytes(size: int) -> bytes:
    """The same as the script `bodies` makes."""
    return random.Random(size).randbytes(size)


def chunked(body: bytes, step: int) -> bytes:
    """The body in chunks of `step` bytes."""
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# What a handler returns


@pytest.mark.parametrize(
    ("path", "status", "content_type", "body"),
    [
        ("text", 200, "text/plain; charset=utf-8", "grüße".encode()),
        ("html", 200, "text/html; charset=utf-8", b"  <p>hi</p>"),
        ("bytes", 200, "application/octet-stream", b"\x00\xff"),
        ("bytearray", 200, "application/octet-stream", b"abc"),
        ("memoryview", 200, "application/octet-stream", b"abc"),
        ("dict", 200, "application/json", '{"a": [1, null, "ü"]}'.encode()),
        ("list", 200, "application/json", b"[1, 2]"),
        ("none", 204, None, b""),
        ("path", 200, "image/png", PICTURE),
        ("file", 200, "image/png", PICTURE),
        ("memory", 200, "application/octet-stream", b"in memory"),
        ("generator", 200, "text/plain; charset=utf-8", b"one two three"),
        ("iterator", 200, "application/octet-stream", b"ab"),
        ("empty", 200, "text/plain; charset=utf-8", b""),
        ("status", 201, "text/plain; charset=utf-8", b"made"),
        ("headers", 202, "text/x-own", b"made"),
        ("response", 418, "application/json", b'{"a": 1}'),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_returned(shared: Server, path: str, status: int, content_type: str | None, body: bytes, method: str) -> None:
    response = shared.get(f"/kinds/{path}", method=method)
    assert (response.status, response.header("content-type")) == (status, content_type)
    assert response.body == (b"" if method == "HEAD" else body)
    if path == "headers":
        assert response.header("x-one") == "1"
    if path == "response":
        assert response.all("set-cookie") == ["a=1", "b=2"]


def test_missing_file_is_404(shared: Server) -> None:
    response = shared.get("/kinds/missing")
    assert response.status == 404
    head = shared.get("/kinds/missing", method="HEAD")
    assert head.status == 404
    assert head.header("content-length") == response.header("content-length") == str(len(response.body))


@pytest.mark.parametrize(("path", "why"), [("unknown", "not Unhelpful"), ("tuple", "status must be a number")])
def test_unusable_return_value(shared: Server, path: str, why: str) -> None:
    response = shared.get(f"/kinds/{path}")
    assert response.status == 500
    assert why not in response.text
    shared.wait_for_log(f'"handler failed".*{why}')


def test_stream_of_a_wrong_type_is_cut_off(shared: Server) -> None:
    with pytest.raises(http.client.IncompleteRead):
        shared.get("/kinds/mixed")
    shared.wait_for_log("a streaming handler yields str or bytes, not int")


# Bodies


@pytest.mark.parametrize("size", SIZES)
def test_body_up(shared: Server, size: int) -> None:
    body = random_bytes(size)
    assert shared.post("/echo", body).body == body


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [7001, 1 << 20])
def test_chunked_body_up(shared: Server, size: int, step: int) -> None:
    body = random_bytes(size)
    head = b"POST /echo?digest=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    found = json.loads(shared.exchange(head + chunked(body, step), "POST").body)
    assert found["length"] == size
    assert found["content_length"] == str(size)
    assert shared.post("/echo", body).body == body


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stream", ["", "&stream=4000", "&stream=300000"])
def test_body_down(shared: Server, size: int, stream: str) -> None:
    assert shared.get(f"/bodies?size={size}{stream}").body == random_bytes(size)


def test_bodies_of_a_pipeline_do_not_mix(shared: Server) -> None:
    sizes = (0, 5, 64 * KIB + 1, 1, MIB + 1, 3)
    with shared.connect() as connection:
        for size in sizes:
            connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + random_bytes(size))
            assert connection.response("POST").body == random_bytes(size)


def test_wsgi_input_reads_like_a_file(shared: Server) -> None:
    assert shared.post("/wsgi/lines", b"one\ntwo three\nfour").text == repr(
        [b"one\n", b"two", [b" three\n", b"four"], b""]
    )


# Streams


def resident_kib(pid: int) -> int:
    """Memory of a process that is really there."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    assert found is not None
    return int(found[1])


def produced(server: Server, name: str) -> int:
    """Pieces that the endless stream of that name has said it made."""
    counts = re.findall(rf'"pieces {name} (\d+)"', server.log())
    return int(counts[-1]) if counts else 0


def wait_until_blocked(server: Server, name: str) -> None:
    """Until the producer of that name stands still, with its thread asleep in a write to its pipe."""
    before = 0

    def stands_still() -> bool:
        nonlocal before
        now = produced(server, name)
        blocked = any("pipe_write" in wchan for wchan in worker_wait_channels(server))
        same, before = now == before, now
        return blocked and same and now > 0

    wait_for(stands_still, "the producer is held back by its pipe")


def worker_wait_channels(server: Server) -> list[str]:
    """What the kernel says that each thread of the workers waits in."""
    found = []
    for pid in server.pids("workers/main.py"):
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                found.append((task / "wchan").read_text())
            except OSError:
                continue
    return found


def test_slow_client_holds_the_handler_back(shared: Server) -> None:
    core = shared.one_pid("core_main")
    before_kib = resident_kib(core)
    connections = []
    try:
        for number in range(4):
            connection = Connection(shared.port)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connections.append(connection.send(f"GET /stream/endless?name=slow{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
        for number in range(4):
            wait_until_blocked(shared, f"slow{number}")
        # What the kernel's buffers take is megabytes at most; the server itself keeps nothing.
        assert resident_kib(core) - before_kib < 8 * 1024
        assert all(produced(shared, f"slow{number}") * 16 < 64 * 1024 for number in range(4))
    finally:
        for connection in connections:
            connection.close()
    for number in range(4):
        shared.wait_for_log(f'"closed slow{number}"')


def test_client_that_leaves_closes_the_generator(shared: Server) -> None:
    workers = shared.pids("workers/main.py")
    for number in range(6):
        with shared.connect() as connection:
            connection.send(f"GET /stream/endless?name=left{number} HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.file.read(100_000)
    for number in range(6):
        shared.wait_for_log(f'"closed left{number}"')
    assert shared.get("/kinds/status").status == 201
    assert shared.pids("workers/main.py") == workers


def test_client_that_leaves_before_the_answer(serve: Any) -> None:
    script = """
import os, pathlib, time
def handle(request):
    pathlib.Path(request.query["flag"] + ".in").touch()
    while not os.path.exists(request.query["flag"]):
        time.sleep(0.01)
    print("went on")
    return "x" * 100000
"""
    server = serve({"handlers/wait.py": script})
    flag = server.folder / "flag"
    with server.connect() as connection:
        connection.send(f"GET /wait?flag={flag} HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for((server.folder / "flag.in").exists, "the handler runs")
    flag.touch()
    server.wait_for_log("went on")
    assert server.get(f"/wait?flag={flag}").body == b"x" * 100000


def test_stream_that_breaks_is_cut_off(shared: Server) -> None:
    with pytest.raises(http.client.IncompleteRead):
        shared.get("/stream/breaks")
    shared.wait_for_log("RuntimeError: in the middle")


def test_stream_that_breaks_before_it_begins_is_500(shared: Server) -> None:
    assert shared.get("/stream/breaks-first").status == 500
    shared.wait_for_log("RuntimeError: before the first")


# WSGI


def test_write(shared: Server) -> None:
    assert shared.get("/wsgi/write").text == "written and returned"


def test_write_to_head(shared: Server) -> None:
    response = shared.get("/wsgi/write", method="HEAD")
    assert (response.status, response.header("content-type")) == (200, "text/plain")


def test_exc_info_replaces_the_head(shared: Server) -> None:
    response = shared.get("/wsgi/exc_info")
    assert (response.status, response.header("content-type"), response.text) == (503, "text/x-sorry", "sorry")


def test_exc_info_after_the_head_is_raised(shared: Server) -> None:
    with pytest.raises(http.client.IncompleteRead):
        shared.get("/wsgi/exc_info_late")
    shared.wait_for_log("KeyError: 'x-late'")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("twice", "second time without exc_info"),
        ("never", "did not call start_response"),
        ("str", "the body must be bytes, not str"),
        ("hop", "Transfer-Encoding is the server's to send"),
        ("inject_name", "not a header name"),
        ("inject_status", "status must be three digits"),
        ("inject?a%0d%0aX-Injected:%201", "control character in header X-Evil"),
        ("inject?a%0aX-Injected:%201", "control character in header X-Evil"),
        ("inject?a%00b", "control character in header X-Evil"),
    ],
)
def test_application_error_is_500_and_a_line(shared: Server, path: str, why: str) -> None:
    before = len(shared.records("handler failed"))
    response = shared.get(f"/wsgi/{path}")
    assert response.status == 500
    assert response.header("x-injected") is None
    assert response.header("x-more") is None
    wait_for(lambda: len(shared.records("handler failed")) > before, "a line in the log")
    record = shared.records("handler failed")[-1]
    assert why in record["error"]
    assert record["target"] == f"/wsgi/{path}"
    assert record["script"].endswith("/wsgi.py")
    assert re.fullmatch("[0-9a-f]{16}", record["request"])


@pytest.mark.parametrize("path", ["close", "close_fails"])
def test_close_is_called(shared: Server, path: str) -> None:
    if path == "close":
        assert shared.get(f"/wsgi/{path}?{path}").text == "ab"
    else:
        with pytest.raises(http.client.IncompleteRead):
            shared.get(f"/wsgi/{path}?{path}")
    shared.wait_for_log(f'"close called {path}"')


def test_body_longer_than_its_length(shared: Server) -> None:
    assert shared.get("/wsgi/too_long").body == b"abc"
    shared.wait_for_log('"body does not have its Content-Length".*"content_length": 3')


def test_body_shorter_than_its_length(shared: Server) -> None:
    with pytest.raises(http.client.IncompleteRead):
        shared.get("/wsgi/too_short")
    shared.wait_for_log('"body does not have its Content-Length".*"content_length": 30')


def test_file_wrapper_begins_where_the_file_stands(shared: Server) -> None:
    response = shared.get(f"/wsgi/wrapped?{shared.folder}/handlers/_picture.png")
    assert response.body == PICTURE[5:]
    assert response.header("content-length") == str(len(PICTURE) - 5)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_head_has_the_length_of_a_get(shared: Server, method: str) -> None:
    response = shared.get("/wsgi/head", method=method)
    assert response.header("content-length") == "5"
    assert response.header("x-method") == method
    assert response.body == (b"" if method == "HEAD" else b"12345")


@pytest.mark.parametrize(("path", "status"), [("no_content", 204), ("not_modified", 304)])
def test_status_without_a_body_keeps_the_connection(shared: Server, path: str, status: int) -> None:
    with shared.connect() as connection:
        for _ in range(2):
            connection.send(f"GET /wsgi/{path} HTTP/1.1\r\nHost: a\r\n\r\n")
            response = connection.response()
            assert response.status == status
            assert response.header("transfer-encoding") is None


def test_duplicate_fields_and_cookies(shared: Server) -> None:
    response = shared.get("/wsgi/cookies", {"Cookie": "a=1; b=2"})
    assert response.all("set-cookie") == ["a=1; Path=/", "b=2"]
    assert response.all("x-a") == ["1", "2"]
    assert response.text == "a=1; b=2"


def test_what_is_printed_goes_to_the_log(shared: Server) -> None:
    assert shared.get("/wsgi/errors").text == "ok"
    for text, stream in (
        ("a complaint of the application", "stderr"),
        ("on stderr too", "stderr"),
        ("and on stdout", "stdout"),
    ):
        line = shared.wait_for_log(f'"{text}"')
        record = json.loads(line)
        assert (record["stream"], record["pool"]) == (stream, "handlers")


# The environment


def test_environment(shared: Server) -> None:
    request = (
        b"POST /environ/a%20b/%E2%82%AC/%2e?q=%20x&y HTTP/1.1\r\nHost: example.org:81\r\nContent-Length: 2\r\n"
        b"Content-Type: text/x\r\nCookie: a=1\r\nCookie: b=2\r\nX-Twice: 1\r\nX-Twice: 2\r\nProxy: evil\r\n"
        b"X_Under_Score: 1\r\n\r\nhi"
    )
    found = json.loads(shared.exchange(request, "POST").body)
    assert found["SCRIPT_NAME"] == "/environ"
    assert found["PATH_INFO"].encode("latin-1").decode() == "/a b/€/"
    assert found["path"] == "/environ/a b/€/"
    assert found["REQUEST_URI"] == "/environ/a%20b/%E2%82%AC/%2e?q=%20x&y"
    assert found["QUERY_STRING"] == "q=%20x&y"
    assert (found["REQUEST_METHOD"], found["SERVER_PROTOCOL"]) == ("POST", "HTTP/1.1")
    assert (found["CONTENT_TYPE"], found["CONTENT_LENGTH"]) == ("text/x", "2")
    assert (found["SERVER_NAME"], found["REMOTE_ADDR"]) == ("example.org", "127.0.0.1")
    assert found["HTTP_COOKIE"] == "a=1; b=2"
    assert found["cookies"] == {"a": "1", "b": "2"}
    assert found["HTTP_X_TWICE"] == "1, 2"
    assert "HTTP_PROXY" not in found
    assert "HTTP_X_UNDER_SCORE" not in found


def test_script_without_anything_behind_it(shared: Server) -> None:
    found = json.loads(shared.get("/environ").body)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/environ", "")
    found = json.loads(shared.get("/environ/").body)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/environ", "/")


# The validator


def test_validator_finds_nothing(shared: Server) -> None:
    before = len(shared.records("handler failed"))
    body = random_bytes(70_000)
    assert shared.get("/validated").text == "0 bytes"
    assert shared.get("/validated/x%20y/?a=b").text == "0 bytes"
    assert shared.get("/validated", method="HEAD").header("content-length") == "7"
    assert shared.post("/validated", b"abc").text == "3 bytes"
    assert shared.post("/validated", body).text == "70000 bytes"
    head = b"POST /validated HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert shared.exchange(head + chunked(body, 999), "POST").text == "70000 bytes"
    assert len(shared.records("handler failed")) == before


# Threads, pools, deaths


def test_threads_run_at_once(serve: Any) -> None:
    config = """
pools: {handlers: {scripts: handlers, processes: 1, threads: 4}}
sites: [{rules: [{match: {path: /*}, handler: {scripts: handlers}}]}]
"""
    server = serve({"handlers/barrier.py": BARRIER}, config=config)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(server.get("/barrier").text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 4, found


def test_sites_and_pools(serve: Any) -> None:
    application = """
import os
def application(environ, start_response):
    start_response("200 OK", [])
    return [f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}|{os.environ['WHO']}|{os.getpid()}".encode()]
"""
    config = """
pools:
  one: {python: "app:application", directory: one, processes: 1, environment: {WHO: first}}
  two: {python: "app:application", directory: two, processes: 1, environment: {WHO: second}}
sites:
  - {hosts: [one.example], rules: [{handler: {python: one}}]}
  - hosts: ["*"]
    rules:
      - {match: {path: /two/*}, handler: {python: two}}
      - {match: {path: /one/*}, handler: {python: one}}
"""
    server = serve({"one/app.py": application, "two/app.py": application}, config=config)
    whole = server.get("/a", {"Host": "one.example"}).text.split("|")
    assert whole[:3] == ["", "/a", "first"]
    below = server.get("/one/a").text.split("|")
    assert below == ["/one", "/a", "first", whole[3]]
    other = server.get("/two").text.split("|")
    assert other[:3] == ["/two", "", "second"]
    assert other[3] != whole[3]
    assert server.get("/three").status == 404


@pytest.mark.parametrize("kind", ["exit", "interrupt"])
def test_exit_in_a_handler_ends_only_the_request(serve: Any, kind: str) -> None:
    server = serve({"handlers/death.py": DEATH})
    workers = server.pids("workers/main.py")
    assert server.get(f"/death/{kind}").status == 500
    server.wait_for_log("SystemExit: the handler wants" if kind == "exit" else "KeyboardInterrupt")
    assert server.get("/death/").status == 200
    assert server.pids("workers/main.py") == workers


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("_exit", "ended with exit status 7"),
        ("segfault", "was killed by SIGSEGV"),
        ("abort", "was killed by SIGABRT"),
    ],
)
def test_death_in_a_handler(serve: Any, kind: str, sentence: str) -> None:
    server = serve({"handlers/death.py": DEATH})
    server.allowed.append("Fatal Python error")
    response = server.post(f"/death/{kind}", b"")
    assert response.status == 502
    line = server.wait_for_log(f'"executor {sentence}')
    assert response.header("x-incident") in json.loads(line)["requests"]
    if kind != "_exit":
        server.wait_for_log(r"death\.py")  # the stack of the handler
    assert server.get("/death/").status == 200
    wait_for(lambda: len(server.pids("workers/main.py")) == 2, "the dead one is replaced")
