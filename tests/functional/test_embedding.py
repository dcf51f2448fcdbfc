"""The server inside a program: `from appserver import Server`. This process is the program."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from harness import PATIENCE_S, SANITIZE, TOP, Connection, Response, free_port, sanitizer_environment, wait_for

if SANITIZE and "LD_PRELOAD" not in os.environ:
    # The core is about to be loaded into this process, and the sanitizers' runtime has to be there before it.
    pytest.skip("test_embedding_sanitized.py runs these tests in another process", allow_module_level=True)

from appserver import RequestTimeout, Server
from appserver import Response as Made
from appserver.errors import AppError, ConfigError, StartError

MIB = 1 << 20
GUIDE = TOP / "docs" / "embedding.md"
Make = Callable[..., Server]


@pytest.fixture
def make() -> Iterator[Make]:
    """`make(handlers=...)` starts a server that is stopped when the test is done."""
    with contextlib.ExitStack() as stack:
        yield lambda *config, **keys: stack.enter_context(Server(*config, **keys))


def get(
    server: Server, target: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> Response:
    """One request on a connection of its own."""
    fields = {"Host": "localhost", "Connection": "close", **(headers or {})}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with Connection(server.port) as connection:
        connection.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))
        return connection.response(method)


def hello(request: Any) -> str:
    return f"hello {request.path_info}"


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode()]


def run_program(source: str, *arguments: str, status: int = 0) -> str:
    """Runs a program of its own that embeds the server; its output."""
    environment = {**os.environ, "PYTHONPATH": str(TOP), **sanitizer_environment()}
    command = [sys.executable, "-X", "dev", "-c", source, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


# What it serves


def test_files_beside_handlers(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a file")
    server = make(root=tmp_path, handlers={"/api": wsgi, "/api/v2/": hello})
    assert get(server, "/a.txt").text == "a file"
    assert get(server, "/none").status == 404
    assert get(server, "/api").text == "/api|"
    assert get(server, "/api/x/y").text == "/api|/x/y"
    assert get(server, "/api/v2/z").text == "hello /z"
    assert get(server, "/apix").status == 404
    assert server.url == f"http://127.0.0.1:{server.port}"


def test_root_alone_needs_no_threads_of_ours(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a file")
    before = set(threading.enumerate())
    server = make(root=str(tmp_path))
    assert get(server, "/a.txt").text == "a file"
    assert len(set(threading.enumerate()) - before) == 1  # the one that carries events to the log


def test_handler_for_everything(make: Make) -> None:
    server = make(handlers={"/": wsgi, "/h": lambda request: request.method})
    assert get(server, "/").text == "|/"
    assert get(server, "/a/b").text == "|/a/b"
    assert get(server, "/h", "DELETE").text == "DELETE"


class Both:
    """Instances with __call__ are told apart like functions."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        return wsgi(environ, start_response)

    def method(self, request: Any, *, suffix: str = "!") -> str:
        return request.method + suffix

    def optional(self, request: Any, more: str = "?") -> str:
        return request.method + more


def test_kinds_of_callables(make: Make) -> None:
    both = Both()
    server = make(handlers={"/i": both, "/m": both.method, "/o": both.optional, "/v": validator(wsgi)})
    assert get(server, "/i/x").text == "/i|/x"
    assert get(server, "/m").text == "GET!"
    assert get(server, "/o").text == "GET?"
    assert get(server, "/v/x").text == "/v|/x"


def test_environment_of_an_application(make: Make) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        wanted = ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "wsgi.url_scheme", "SERVER_PORT")
        return [json.dumps({name: environ[name] for name in wanted}).encode()]

    server = make(handlers={"/": application})
    assert json.loads(get(server, "/").body) == {
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.url_scheme": "http",
        "SERVER_PORT": str(server.port),
    }


def test_flask(make: Make) -> None:
    flask = pytest.importorskip("flask", reason="Flask is not installed")
    app = flask.Flask(__name__)
    app.add_url_rule("/hello/<name>", view_func=lambda name: f"hello {name}")
    server = make(handlers={"/shop": app})
    assert get(server, "/shop/hello/you").text == "hello you"


# Bodies and streams


@pytest.mark.parametrize("size", [0, 1, 64 * 1024 + 1, MIB + 1, 20 * MIB])
def test_bodies_of_all_sizes(make: Make, size: int) -> None:
    def echo(request: Any) -> Any:
        body = request.stream.read()
        return body if len(body) < MIB else iter([body[:MIB], body[MIB:]])

    body = random.Random(size).randbytes(size)
    server = make(handlers={"/": echo})
    assert hashlib.sha256(get(server, "/", "POST", body).body).digest() == hashlib.sha256(body).digest()


def test_pieces_of_a_stream_arrive_as_they_are_made(make: Make) -> None:
    gate = threading.Event()

    def pieces(request: Any) -> Iterator[str]:
        yield "first "
        assert gate.wait(PATIENCE_S)
        yield "second"

    server = make(handlers={"/": pieces})
    with Connection(server.port) as connection:
        connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while connection.file.readline() != b"\r\n":
            pass
        assert connection.file.readline() + connection.file.read(8) == b"6\r\nfirst \r\n"
        gate.set()
        assert connection.file.readline() + connection.file.read(8) == b"6\r\nsecond\r\n"


def test_client_that_leaves_closes_the_generator(make: Make) -> None:
    closed = threading.Event()

    def endless(request: Any) -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 10000
        finally:
            closed.set()

    server = make(handlers={"/": endless})
    with Connection(server.port) as connection:
        connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.file.read(100_000)
    assert closed.wait(PATIENCE_S)


# Failures


def test_exception_is_500_and_a_record_of_the_programs_log(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def fails(request: Any) -> str:
        raise LookupError("nothing <there>")

    server = make(handlers={"/fails": fails, "/": hello})
    response = get(server, "/fails/x")
    assert response.status == 500
    assert "nothing" not in response.text
    assert get(server, "/a").text == "hello /a"
    records = wait_for(
        lambda: [each for each in caplog.records if each.name == "appserver" and each.levelno == logging.ERROR],
        "the record of the failure",
    )
    (record,) = records
    assert "handler failed" in record.getMessage()
    assert "in fails" in record.getMessage()
    fields: dict[str, Any] = record.__dict__["fields"]
    assert (fields["error"], fields["target"], fields["application"]) == (
        "LookupError: nothing <there>",
        "/fails/x",
        "/fails",
    )


def test_dev_shows_the_traceback(make: Make) -> None:
    server = make(handlers={"/": lambda request: 1 / 0}, dev=True)
    response = get(server, "/")
    assert response.status == 500
    assert "ZeroDivisionError" in response.text


def test_handler_without_time_left(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()

    def stuck(request: Any) -> str:
        gate.wait(60)
        return "late"

    server = make(
        handlers={"/stuck": stuck, "/": hello}, pool={"threads": 2, "limits": {"request_time": "3s"}}, threads=1
    )
    assert get(server, "/stuck").status == 504
    wait_for(lambda: "a handler has no time left" in caplog.text, "the log says so")
    assert "gate.wait(60)" in caplog.text
    assert get(server, "/a").text == "hello /a"
    gate.set()
    assert get(server, "/b").text == "hello /b"


def test_handler_without_time_left_is_interrupted(make: Make) -> None:
    seen: list[str] = []

    def endless(request: Any) -> str:
        try:
            while request.deadline:
                time.sleep(0.001)
        except RequestTimeout:
            seen.append("interrupted")
            raise
        finally:
            seen.append("tidied up")
        return ""

    server = make(handlers={"/endless": endless, "/": hello}, pool={"threads": 1, "limits": {"request_time": "3s"}})
    assert get(server, "/endless").status == 504
    wait_for(lambda: len(seen) == 2, "the handler has ended")
    assert seen == ["interrupted", "tidied up"]
    assert get(server, "/a").text == "hello /a"  # by the same thread


def test_responses_by_name(make: Make) -> None:
    server = make(handlers={"/": lambda request: Made("made", 201, [("X-A", "1"), ("X-A", "2")])})
    response = get(server, "/")
    assert (response.status, response.text, response.all("x-a")) == (201, "made", ["1", "2"])


# Start and stop


def open_fds() -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(entry.readlink()))
    return sorted(re.sub(r"\d+", "N", each) for each in found)


def threads_of_this_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_twenty_starts_leave_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a file")
    server = Server(root=tmp_path, handlers={"/h": hello, "/w": wsgi}, threads=2)
    with server:
        get(server, "/h")
    gc.collect()
    fds, threads = open_fds(), threads_of_this_process()
    for _ in range(20):
        server.start()
        assert get(server, "/h/x").text == "hello /x"
        assert get(server, "/a.txt").text == "a file"
        assert get(server, "/w", "POST", b"x" * 100_000).text == "/w|"
        server.stop()
    wait_for(lambda: threads_of_this_process() <= threads, "every thread has ended")
    assert open_fds() == fds


def test_start_that_fails_leaves_nothing_behind(make: Make) -> None:
    taken = make(handlers={"/": hello}).port
    other = Server(handlers={"/": hello}, port=taken)
    fds, threads = open_fds(), threads_of_this_process()
    for _ in range(3):
        with pytest.raises(StartError, match=f"port {taken} is in use"):
            other.start()
    assert not other.is_running
    # A thread that was joined may still be on its way out of the kernel.
    wait_for(lambda: threads_of_this_process() <= threads, "every thread has ended")
    assert open_fds() == fds


def test_two_at_once(make: Make) -> None:
    one = make(handlers={"/": lambda request: "one"}, port=free_port())  # which nobody else gets when it is free
    two = make(handlers={"/": lambda request: "two"})
    assert one.port != two.port
    assert (get(one, "/").text, get(two, "/").text) == ("one", "two")
    port = one.port
    one.stop()
    with pytest.raises(ConnectionRefusedError):
        Connection(port)
    assert get(two, "/").text == "two"


def test_words_about_the_state(tmp_path: Path) -> None:
    server = Server(root=tmp_path)
    assert not server.is_running
    assert repr(server) == "<Server, stopped>"
    with pytest.raises(AppError, match=r"the server does not run; call start\(\)"):
        print(server.port)
    server.stop()  # nothing to do
    with server.start() as same:
        assert same is server
        assert repr(server) == f"<Server {server.url}>"
        with pytest.raises(AppError, match=f"the server runs already, on {server.url}"):
            server.start()
    assert not server.is_running


def test_started_and_stopped_by_other_threads() -> None:
    server = Server(handlers={"/": hello})
    for act in (server.start, lambda: get(server, "/x"), server.stop):
        errors: list[BaseException] = []

        def run(act: Callable[[], Any] = act, errors: list[BaseException] = errors) -> None:
            try:
                act()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        assert errors == []
    assert not server.is_running


def test_stop_lets_requests_finish() -> None:
    gate, inside = threading.Event(), threading.Event()

    def slow(request: Any) -> str:
        inside.set()
        gate.wait(PATIENCE_S)
        return "finished"

    server = Server(handlers={"/": slow}).start()
    with Connection(server.port) as connection:
        connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert inside.wait(PATIENCE_S)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        gate.set()
        assert connection.response().text == "finished"
        stopping.join(PATIENCE_S)
    assert not stopping.is_alive()


def test_stop_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appserver.embedded.runtime.CUT_TIME_S", 0.1)
    gate, inside, out = threading.Event(), threading.Event(), threading.Event()

    def slow(request: Any) -> str:
        inside.set()
        gate.wait(60)
        out.set()
        return "too late"

    server = Server(handlers={"/": slow}).start()
    with Connection(server.port) as connection:
        connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert inside.wait(PATIENCE_S)
        server.stop(timeout=0.1)
        assert connection.closed()
    assert "a handler does not come to its end" in caplog.text
    assert "gate.wait(60)" in caplog.text
    gate.set()
    assert out.wait(PATIENCE_S)
    wait_for(lambda: not [each for each in threading.enumerate() if each.name.startswith("request-")], "it has ended")


# Configuration


def test_keys_by_name(make: Make) -> None:
    server = make(handlers={"/": lambda request: str(len(request.body))}, limits={"body_size": "1KiB"}, threads=2)
    assert get(server, "/", "POST", b"x" * 1024).text == "1024"
    assert get(server, "/", "POST", b"x" * 1025).status == 413


def test_whole_configuration(make: Make, tmp_path: Path) -> None:
    (tmp_path / "${HOME}.txt").write_text("not interpolated")
    server = make(
        {
            "listen": "127.0.0.1:0",
            "sites": [
                {"hosts": ["one.example"], "rules": [{"handler": {"python": hello}}]},
                {
                    "root": tmp_path,
                    "index": ["${HOME}.txt"],
                    "rules": [
                        {"match": {"path": "/away"}, "handler": {"redirect": {"to": "/x", "status": 301}}},
                        {"match": {"path": "/w/*", "method": ["POST"]}, "handler": {"python": wsgi}},
                    ],
                },
            ],
        }
    )
    assert get(server, "/x", headers={"Host": "one.example"}).text == "hello /x"
    assert get(server, "/").text == "not interpolated"
    assert (get(server, "/away").status, get(server, "/away").header("location")) == (301, "/x")
    assert (get(server, "/w/a").status, get(server, "/w/a", "POST", b"").text) == (404, "/w|/a")
    assert get(server, "/readyz").status == 200


def test_access_log(make: Make, tmp_path: Path) -> None:
    server = make(handlers={"/": hello}, log={"access": "combined", "access_file": tmp_path / "access.log"})
    get(server, "/seen")
    server.stop()
    assert '"GET /seen HTTP/1.1" 200' in (tmp_path / "access.log").read_text()


def asgi_2(scope: Any) -> Any:
    return scope


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "Server: found nothing to serve; expected root, handlers or sites"),
        ({"root": "/nowhere"}, "sites[0].root: '/nowhere' does not exist"),
        ({"handlers": {"api": hello}}, "sites[0].rules[0].match.path: found 'api'; expected"),
        ({"handlers": {"/a": hello, "/a/": hello}}, "handlers: found '/a' twice"),
        ({"handlers": {"/a": 5}}, "handler of '/a': found int; expected a WSGI or ASGI application or handle"),
        ({"handlers": {"/a": asgi_2}}, "handler of '/a' is an ASGI 2 application, which is called twice"),
        ({"handlers": {"/": hello}, "limit": {}}, "limit: unknown key; expected one of"),
        ({"handlers": {"/": hello}, "limits": {"body_size": "much"}}, "limits.body_size: found 'much'; expected"),
        ({"handlers": {"/": hello}, "limits": {"body_size": object()}}, "limits.body_size: found object; expected"),
        ({"handlers": {"/": hello}, "pools": {}}, "pools: an embedded server has no worker processes"),
        ({"handlers": {"/": hello}, "user": "x"}, "user: an embedded server has no processes of another user"),
        ({"handlers": {"/": hello}, "pool": {"processes": 2}}, "pool.processes: unknown key of an embedded server's"),
        ({"handlers": {"/": hello}, "pool": {"threads": 0}}, "pool.threads: found '0'; expected a whole number"),
        ({"handlers": {"/": hello}, "sites": []}, "Server: found sites beside root or handlers"),
        ({"sites": [{"rules": [{"handler": {"python": "shop"}}]}]}, "handler of '/': found str; expected a WSGI"),
        ({"sites": [{"rules": [{"handler": {"cgi": "/tmp"}}]}]}, "sites: found cgi for ''; an embedded server runs"),
        ({"sites": 3}, "sites: found '3'; expected a list"),
    ],
)
def test_faults_of_the_configuration(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Server(**keys)
    assert any(line.startswith(expected) for line in caught.value.lines), caught.value.lines


def test_key_that_is_given_twice() -> None:
    with pytest.raises(ConfigError, match="limits: found it in the configuration and by name"):
        Server({"limits": {}}, limits={}, handlers={"/": hello})


# Programs: signals, fork, the end

PROGRAM = """
import os, signal, socket, sys, threading, time, urllib.request, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads
from appserver import Server

def fetch(server, path="/"):
    return urllib.request.urlopen(server.url + path).read().decode()

def hello(request):
    return "hello"
"""


def test_program_that_never_stops_its_server() -> None:
    assert run_program(PROGRAM + "server = Server(handlers={'/': hello}).start()\nprint(fetch(server))\n") == "hello\n"


def test_control_c_ends_serve_forever() -> None:
    source = """
server = Server(handlers={"/": hello})
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
def waits():
    frame = sys._current_frames()[threading.main_thread().ident]
    while frame.f_back and frame.f_back.f_code.co_name != "serve_forever":
        frame = frame.f_back
    return frame.f_back and frame.f_code.co_name == "wait"
def interrupt():
    while not waits():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
server.serve_forever()
print("running" if server.is_running else "stopped")
"""
    assert run_program(PROGRAM + source) == "stopped\n"


def test_signals_are_the_programs() -> None:
    source = """
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(threading.current_thread().name))
with Server(handlers={"/": hello}, threads=4) as server:
    for _ in range(20):
        os.kill(os.getpid(), signal.SIGUSR1)
        fetch(server)
print(set(seen))
"""
    assert run_program(PROGRAM + source) == "{'MainThread'}\n"


def test_forked_child_has_no_server() -> None:
    source = """
server = Server(handlers={"/": hello}).start()
connection = socket.create_connection(("127.0.0.1", server.port))
connection.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
connection.recv(1000)
reader, writer = os.pipe()
child = os.fork()
if not child:
    assert not server.is_running
    server.stop()
    own = Server(handlers={"/": lambda request: "of the child"}).start()
    print(fetch(own), flush=True)
    own.stop()
    os.write(writer, b"x")
    time.sleep(100)
    os._exit(0)
os.read(reader, 1)
print(fetch(server), flush=True)
port = server.port
server.stop()
connection.settimeout(60)
while connection.recv(1000):  # the child holds none of the clients' connections
    pass
again = Server(handlers={"/": lambda request: "again"}, port=port).start()  # nor the port
print(fetch(again), flush=True)
again.stop()
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
connection.close()
"""
    assert run_program(PROGRAM + source) == "of the child\nhello\nagain\n"


def test_handlers_that_fork() -> None:
    source = """
import multiprocessing
def square(number):
    return number * number
def pooled(request):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return str(pool.map(square, [1, 2, 3]))
def comes_back(request):
    if not os.fork():
        return "of the child"
    os.wait()
    return "of the parent"
with Server(handlers={"/pooled": pooled, "/back": comes_back}) as server:
    for _ in range(3):
        print(fetch(server, "/pooled"), fetch(server, "/back"), flush=True)
"""
    output = run_program(PROGRAM + source)
    assert re.findall(r"^\[.*", output, re.MULTILINE) == ["[1, 4, 9] of the parent"] * 3, output
    assert output.count("a process that a handler forked came back from it and was ended") == 3


def test_import_is_light() -> None:
    """The command, and every process of a pool, imports the package too."""
    source = "import sys, appserver; print('appserver.embedded' in sys.modules, 'yaml' in sys.modules)"
    assert run_program(source) == "False False\n"


# The guide

BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_guide_as_it_is_written(number: int, tmp_path: Path) -> None:
    path = tmp_path / "test_guide.py"
    path.write_text(BLOCKS[number])
    tested = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if "import pytest" in BLOCKS[number] else []
    environment = {**os.environ, "PYTHONPATH": str(TOP), **sanitizer_environment()}
    done = subprocess.run(
        [sys.executable, *tested, str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_guide_has_its_examples() -> None:
    assert len(BLOCKS) == 6
