"""Processes that die, hang or loop while they hold requests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import (
    PATIENCE_S,
    TOP,
    Connection,
    Response,
    Server,
    children_of,
    launch,
    state_of,
    stop_process,
    wait_for,
    write_tree,
)

#: Read, not imported: the compiled core with sanitizers cannot be loaded into this process.
SEGMENTS = (TOP / "appserver/supervisor/segments.py").read_text()
RECEIVE_TIMEOUT_MS = int(re.findall(r"^RECEIVE_TIMEOUT_MS = (\d+)", SEGMENTS, re.MULTILINE)[0])

#: `/gate` says that it runs and who runs it, then waits for the file `open`; `/pid` answers at once.
SCRIPT = r"""
import ctypes, os, pathlib, threading, time

FOLDER = pathlib.Path(__file__).parent.parent

def handle(request):
    kind = request.path_info
    if kind == "/gate":
        (FOLDER / "running" / f"{request.query['name']}.{os.getpid()}").touch()
        while not (FOLDER / "open").exists():
            time.sleep(0.005)
    if kind == "/stream":
        return stream()
    if kind == "/segfault-once":
        try:
            (FOLDER / "segfault").unlink()
        except FileNotFoundError:
            return f"second {os.getpid()}"
        ctypes.string_at(0)
    if kind == "/segfault":
        ctypes.string_at(0)
    if kind == "/hang":
        (FOLDER / "running" / f"hang.{os.getpid()}").touch()
        a_name_to_be_seen_in_the_stack()
    return str(os.getpid())

def stream():
    yield f"{os.getpid()}"
    while not (FOLDER / "open").exists():
        time.sleep(0.005)

def a_name_to_be_seen_in_the_stack():
    threading.Event().wait()
"""

CONFIG = """
log: {access: "off"}
limits: {drain_timeout: 5s}
pools:
  handlers: {scripts: handlers, processes: 2, threads: 2, limits: LIMITS}
sites:
  - root: www
    rules: [{match: {path: /app/*}, handler: {python: handlers/app.py}}]
"""


def start(serve: Any, limits: str = "{}", config: str = CONFIG, *arguments: str) -> Server:
    server: Server = serve(
        {"handlers/app.py": SCRIPT, "www/page.html": "a page", "running/.keep": ""},
        *arguments,
        config=config.replace("LIMITS", limits),
    )
    server.allowed.append("Fatal Python error")
    return server


def holders(server: Server, name: str) -> list[int]:
    """Workers in which requests of that name are, or have been."""
    return [int(path.suffix[1:]) for path in (server.folder / "running").glob(f"{name}.*")]


def holder(server: Server, name: str, but: int = 0) -> int:
    """The worker that runs the request `name`."""
    found: list[int] = wait_for(
        lambda: [pid for pid in holders(server, name) if pid != but], f"the request {name} runs"
    )
    return found[0]


def open_gate(server: Server) -> None:
    (server.folder / "open").touch()


class Asking:
    """A request in a thread of its own; `response` waits for its answer."""

    def __init__(self, server: Server, target: str, method: str = "GET", body: bytes | None = None) -> None:
        self._found: list[Response | BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(server, target, method, body))
        self._thread.start()

    def _run(self, server: Server, target: str, method: str, body: bytes | None) -> None:
        try:
            self._found.append(server.get(target, method=method, body=body))
        except BaseException as error:
            self._found.append(error)

    def response(self) -> Response:
        """The answer; raises what the request raised."""
        self._thread.join()
        found = self._found[0]
        if isinstance(found, BaseException):
            raise found
        return found

    @property
    def is_answered(self) -> bool:
        return not self._thread.is_alive()


def workers(server: Server) -> list[int]:
    return server.pids("workers/main.py")


def await_workers(server: Server, count: int, but: int = 0) -> None:
    """Until that many are there and take requests."""
    wait_for(lambda: len([pid for pid in workers(server) if pid != but]) == count, f"{count} workers")
    server.wait_for_log('"executor is ready"', count + 1 if but else count)


def kill_nine(server: Server, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def stop_and_kill(server: Server, pid: int) -> None:
    """A worker that first hangs as a whole."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: state_of(pid) == "T", "it is stopped")
    os.kill(pid, signal.SIGKILL)


def segfault(server: Server, pid: int) -> None:
    os.kill(pid, signal.SIGSEGV)


DEATHS = [kill_nine, stop_and_kill, segfault]


# Workers


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_idempotent_request_goes_to_another_worker(
    serve: Any, death: Callable[[Server, int], None], method: str
) -> None:
    server = start(serve)
    body = b"x" * 100_000 if method == "PUT" else None
    asking = Asking(server, "/app/gate?name=a", method, body)
    first = holder(server, "a")
    death(server, first)
    second = holder(server, "a", but=first)
    assert not asking.is_answered
    open_gate(server)
    response = asking.response()
    assert (response.status, response.text) == (200, str(second))
    await_workers(server, 2, but=first)
    record = json.loads(server.wait_for_log('"executor was killed by SIG'))
    assert record["pid"] == first
    assert len(record["requests"]) == 1


@pytest.mark.parametrize("death", DEATHS)
def test_other_requests_are_502_with_an_incident(serve: Any, death: Callable[[Server, int], None]) -> None:
    server = start(serve)
    asking = Asking(server, "/app/gate?name=a", "POST", b"x")
    other = Asking(server, "/app/gate?name=b", "PATCH", b"x")
    pids = {holder(server, "a"), holder(server, "b")}
    for pid in pids:
        death(server, pid)
    for each in (asking, other):
        response = each.response()
        incident = response.header("x-incident")
        assert response.status == 502
        assert incident is not None
        record = json.loads(server.wait_for_log(f'lost with its executor.*"{incident}"'))
        assert record["request"] == incident
        server.wait_for_log(f'"executor was killed by SIG.*"{incident}"')
    wait_for(lambda: server.get("/app/pid").status == 200, "somebody serves again")
    await_workers(server, 2)


def test_incidents_are_told(serve: Any) -> None:
    """Of a request that is repeated, one that is lost, and one whose time is over."""
    config = CONFIG.replace('access: "off"', 'access: "off", level: debug')
    server = start(serve, "{request_time: 3s, interrupt_time: 100ms, stop_time: 1s}", config)
    (server.folder / "open").touch()
    (server.folder / "segfault").touch()
    assert server.get("/app/segfault-once").status == 200
    assert server.post("/app/segfault", b"x").status == 502
    assert server.post("/app/hang", b"x").status == 504
    server.wait_for_log('"a request went wrong in an executor"', 3)
    # Each loop of the core has its own way to the log.
    records = sorted(server.records("^a request went wrong in an executor"), key=lambda each: each["started_ns"])
    assert [(each["cause"], each["what"]) for each in records] == [
        ("died", "retried"),
        ("died", "502"),
        ("timeout", "504"),
    ]
    for record in records:
        assert record["pool"] == "handlers"
        assert record["executor"] > 0
        assert 0 < record["queued_ns"] <= record["started_ns"]
        assert record["truncated"] is False
    lost = server.records("lost with its executor")[0]
    assert lost["request"] == records[1]["request"]
    assert len({record["fingerprint"] for record in records}) == 3


def test_segfault_in_a_handler_is_repeated_once(serve: Any) -> None:
    server = start(serve)
    (server.folder / "segfault").touch()
    assert server.get("/app/segfault-once").text.startswith("second ")
    server.wait_for_log(r"app\.py.* in handle")  # faulthandler's stack
    response = server.get("/app/segfault")
    assert response.status == 503
    assert response.header("retry-after") == "60"
    assert response.header("x-incident")
    server.wait_for_log("killed two executors")
    wait_for(lambda: server.get("/app/pid").status == 200, "somebody serves again")


def test_stream_of_a_dead_worker_is_cut_off(serve: Any) -> None:
    server = start(serve)
    with server.connect() as connection:
        connection.send("GET /app/stream HTTP/1.1\r\nHost: a\r\n\r\n")
        while connection.file.readline() != b"\r\n":
            pass
        size = int(connection.file.readline(), 16)
        os.kill(int(connection.file.read(size)), signal.SIGKILL)
        assert connection.file.read() == b"\r\n"  # of the chunk; the last chunk is not there
    server.wait_for_log("died in the middle of the response")
    assert server.get("/app/pid").status == 200


def test_requests_that_wait_survive_the_death(serve: Any) -> None:
    """More than the executors can hold; both are killed."""
    server = start(serve)
    asking = [Asking(server, f"/app/gate?name={number}") for number in range(12)]
    wait_for(lambda: len(list((server.folder / "running").glob("*.*"))) >= 5, "four requests run")
    for pid in workers(server):
        os.kill(pid, signal.SIGKILL)
    open_gate(server)
    assert [each.response().status for each in asking] == [200] * 12


def test_death_between_receiving_and_marking(serve: Any) -> None:
    """A worker that is gone with a request that no slot shows: the executor's end of the queue is read by the test."""
    server = start(serve, config=CONFIG.replace("processes: 2", "processes: 1"))
    worker = workers(server)[0]
    stop_process(worker)
    asking = [Asking(server, "/app/pid"), Asking(server, "/app/pid", "POST", b"")]
    thieve(server, worker, 2)
    os.kill(worker, signal.SIGKILL)
    assert asking[0].response().status == 200
    response = asking[1].response()
    assert response.status == 502
    assert response.header("x-incident")


def thieve(server: Server, worker: int, count: int) -> None:
    """Receives requests from the worker's queue, as a worker does that dies before it marks them."""
    script = f"""
import ctypes, os, select, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
pidfd = os.pidfd_open({worker})
for fd in sorted(map(int, os.listdir("/proc/{worker}/fd"))):
    if not os.readlink(f"/proc/{worker}/fd/{{fd}}").startswith("socket:"):
        continue
    mine = libc.syscall(438, pidfd, fd, 0)
    if mine < 0:
        sys.exit(f"pidfd_getfd: {{os.strerror(ctypes.get_errno())}}")
    sock = socket.socket(fileno=mine)
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) != struct.pack("@ll", 0, {RECEIVE_TIMEOUT_MS * 1000}):
        continue
    got = 0
    while got < {count}:
        if not select.select([sock], [], [], {PATIENCE_S})[0]:
            sys.exit("nothing came")
        got += sock.recv(200_000).count(b"REQUEST_METHOD")
    sys.exit(0)
sys.exit("no queue found")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if "pidfd_getfd" in done.stderr:
        pytest.skip(f"this system does not let us take a descriptor of a child: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


def test_crash_loop_backs_off(serve: Any) -> None:
    server = start(serve, config=CONFIG.replace("processes: 2", "processes: 1"))
    delays = []
    for number in range(4):
        pid = wait_for(lambda: workers(server), "a worker")[0]
        server.wait_for_log('"executor is ready"', number + 1)
        os.kill(pid, signal.SIGKILL)
        server.wait_for_log('"executor was killed by SIGKILL', number + 1)
        delays.append(server.records("^executor was killed by SIGKILL")[-1]["replaced_in_s"])
    assert delays == [0.1, 0.2, 0.4, 0.8]
    assert server.get("/page.html").text == "a page"
    assert server.get("/app/pid").status == 200


def test_exit_at_boot_backs_off_longer(serve: Any) -> None:
    config = CONFIG.replace("  handlers:", '  bad: {python: "nothing:app", processes: 1}\n  handlers:')
    server = start(serve, config=config)
    record = json.loads(server.wait_for_log('"executor could not boot"'))
    assert record["replaced_in_s"] == 2.0
    assert server.get("/app/pid").status == 200
    assert server.get("/readyz").status == 503


# Times


def test_request_time(serve: Any) -> None:
    server = start(serve, "{request_time: 3s, interrupt_time: 200ms}")
    before = workers(server)
    hanging = Asking(server, "/app/hang", "POST", b"")
    response = hanging.response()
    assert response.status == 504
    record = json.loads(server.wait_for_log('"a request is past its time'))
    assert "POST /app/hang" in record["about"]
    assert record["request"] in response.text
    server.wait_for_log("a_name_to_be_seen_in_the_stack")
    for _ in range(20):
        assert server.get("/app/pid").status == 200
    server.wait_for_log('"a request did not end when it was interrupted')
    wait_for(lambda: len(workers(server)) == 2 and workers(server) != before, "the executor is replaced")
    server.wait_for_log('"executor is ready"', 3)


def test_others_in_a_stuck_executor_are_not_lost(serve: Any) -> None:
    """Its other thread runs a request when the executor is replaced."""
    limits = "{request_time: 1s, interrupt_time: 100ms, stop_time: 500ms}"
    server = start(serve, limits, CONFIG.replace("processes: 2", "processes: 1"))
    hanging = Asking(server, "/app/hang", "POST", b"")
    holder(server, "hang")  # its time is over first
    other = Asking(server, "/app/gate?name=a")
    first = holder(server, "a")
    assert hanging.response().status == 504
    wait_for(
        lambda: other.is_answered or [pid for pid in holders(server, "a") if pid != first], "it is run again, or over"
    )
    open_gate(server)
    # It began only a moment after the other one, so its own time may be over as well; but it is never a 502.
    assert other.response().status in (200, 504)
    wait_for(lambda: server.get("/app/pid").status == 200, "somebody serves again")


def test_every_executor_is_busy(serve: Any) -> None:
    server = start(serve, "{queue_time: 4s}")
    running = [Asking(server, f"/app/gate?name={number}") for number in range(4)]
    for number in range(4):
        holder(server, str(number))
    waiting = [Asking(server, "/app/pid") for _ in range(10)]
    assert server.get("/page.html").text == "a page"
    assert server.get("/livez").status == 200
    assert server.get("/readyz").status == 200
    for each in waiting:
        response = each.response()
        assert response.status == 503
        assert response.header("retry-after") == "1"
    assert not any(each.is_answered for each in running)
    server.wait_for_log("no executor became free within queue_time")
    open_gate(server)
    assert [each.response().status for each in running] == [200] * 4
    assert server.get("/app/pid").status == 200


def test_queue_is_full(serve: Any) -> None:
    server = start(serve, "{queue: 2}", CONFIG.replace("log:", "threads: 1\nlog:"))
    running = [Asking(server, f"/app/gate?name={number}") for number in range(4)]
    for number in range(4):
        holder(server, str(number))
    more = [Asking(server, f"/app/gate?name=more{number}") for number in range(6)]
    wait_for(lambda: sum(each.is_answered for each in more) == 4, "what does not fit is refused at once")
    refused = [each.response() for each in more if each.is_answered]
    assert [(each.status, each.header("retry-after")) for each in refused] == [(503, "1")] * 4
    server.wait_for_log("the queue is full")
    open_gate(server)
    assert sorted(each.response().status for each in running + more) == [200] * 6 + [503] * 4


# The core and the supervisor


def test_core_dies(serve: Any) -> None:
    server = start(serve)
    server.allowed.append("the core was killed by SIGKILL")
    before = workers(server)
    asking = Asking(server, "/app/gate?name=a")
    holder(server, "a")
    core = server.one_pid("core_main")
    stop_process(core)
    with Connection(server.port) as waiting:  # in the backlog: nobody accepts
        waiting.send("GET /app/pid HTTP/1.1\r\nHost: a\r\n\r\n")
        os.kill(core, signal.SIGKILL)
        with pytest.raises(ConnectionError):
            asking.response()
        assert int(waiting.response().text) in before
    open_gate(server)
    assert server.one_pid("core_main") != core
    assert workers(server) == before
    for _ in range(20):
        assert int(server.get("/app/pid").text) in before
    wait_for(lambda: server.get("/readyz").status == 200, "it is ready")
    assert server.get("/page.html").text == "a page"


def test_core_dies_again_and_again(serve: Any) -> None:
    server = start(serve)
    server.allowed.append("the core was killed by SIGKILL")
    for number in range(3):
        core = wait_for(lambda: server.pids("core_main"), "a core")[0]
        os.kill(core, signal.SIGKILL)
        server.wait_for_log('"the core was killed by SIGKILL', number + 1)
        assert server.get("/app/pid").status == 200
    delays = [record["replaced_in_s"] for record in server.records("^the core was killed")]
    assert delays == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("busy", [False, True])
def test_supervisor_dies(tmp_path: Path, busy: bool) -> None:
    write_tree(tmp_path, {"handlers/app.py": SCRIPT, "running/.keep": "", "cgi-bin/gate": GATE_CGI})
    server = launch(tmp_path, str(tmp_path), "--listen", "127.0.0.1:0")
    asking = [Asking(server, target) for target in ("/app/gate?name=a", "/cgi-bin/gate?c")] if busy else []
    if busy:
        holder(server, "a")
        holder(server, "c")
    tree = children_of(server.process.pid)
    server.process.kill()
    server.process.wait()
    wait_for(lambda: not [pid for pid in tree if state_of(pid) not in ("", "Z")], "every child has gone")
    server._reader.join(PATIENCE_S)
    assert not server._reader.is_alive(), "somebody still holds the server's output"
    for each in asking:
        # The core may hear of a program's death before it hears of the supervisor's.
        with contextlib.suppress(ConnectionError):
            assert each.response().status == 502


# The spawner


CGI_CONFIG = """
log: {access: "off"}
sites:
  - root: www
    rules: [{match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}]
"""
NOW_CGI = "#!/bin/sh\nprintf 'A: b\\n\\nx'\n"
GATE_CGI = """#!/bin/sh
: > ../running/$QUERY_STRING.$$
while ! [ -e ../open ]; do sleep 0.02; done
printf 'Content-Type: text/plain\\n\\n%s' $$
"""


def test_spawner_dies(serve: Any) -> None:
    server = serve(
        {"cgi-bin/gate": GATE_CGI, "cgi-bin/now": NOW_CGI, "running/.keep": "", "www/a": ""},
        config=CGI_CONFIG,
    )
    asking = Asking(server, "/cgi-bin/gate?a")
    posting = Asking(server, "/cgi-bin/gate?p", "POST", b"")
    programs = [holder(server, "a"), holder(server, "p")]
    spawner = server.one_pid("spawner_main")
    os.kill(spawner, signal.SIGKILL)
    response = posting.response()
    assert response.status == 502
    assert response.header("x-incident")
    wait_for(lambda: not [pid for pid in programs if state_of(pid)], "its programs are killed and reaped")
    again = holder(server, "a", but=programs[0])
    open_gate(server)
    assert asking.response().text == str(again)
    assert server.get("/cgi-bin/now").status == 200
    assert server.one_pid("spawner_main") != spawner


# Under load


@contextmanager
def load(server: Server, clients: int, target: str) -> Iterator[list[Any]]:
    """Clients that ask again and again over kept connections; what went wrong is in the list at the end."""
    wrong: list[Any] = []
    answered = [0] * clients
    stop = threading.Event()

    def ask(number: int) -> None:
        connection = server.connect()
        try:
            while not stop.is_set():
                connection.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
                response = connection.response()
                if response.status != 200:
                    wrong.append(response)
                answered[number] += 1
        except BaseException as error:
            wrong.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: all(answered) or wrong, "every client has had an answer")
        yield wrong
        before = list(answered)
        wait_for(lambda: all(a > b for a, b in zip(answered, before, strict=True)) or wrong, "the load goes on")
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_no_get_is_lost_while_workers_are_killed(serve: Any) -> None:
    server = start(serve, config=CONFIG.replace("processes: 2", "processes: 6"))
    with load(server, 8, "/app/pid") as wrong:
        for number in range(12):
            # One at a time: a request whose second executor dies, too, is lost by design.
            ready = wait_for(lambda: len(found := workers(server)) == 6 and found, "six workers")
            wait_for(lambda n=number: len(server.records("^executor is ready")) >= 6 + n, "all of them take requests")
            os.kill(min(ready), signal.SIGKILL)  # mostly the oldest: who dies again and again comes back more slowly
            server.wait_for_log('"executor was killed by SIGKILL', number + 1)
            assert not wrong, wrong
    assert not wrong, wrong
