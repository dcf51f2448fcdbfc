"""The real server as a process: started on port 0, spoken to over real sockets, looked over after each test."""

from __future__ import annotations

import atexit
import http.client
import json
import os
import queue
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent.parent
SANITIZE = os.environ.get("CHEROKEE_SANITIZE", "")
STATE = tempfile.mkdtemp(prefix="cherokee-state-")  #: where servers keep incidents, unless they are told
atexit.register(shutil.rmtree, STATE, ignore_errors=True)
PATIENCE_S = 120.0 if SANITIZE else 60.0  #: how long something that must happen may take before a test fails
ANNOUNCED_ANYWAY_S = 10.0  #: after which the server says that it listens, whether its executors are ready or not
ALARMING = re.compile(
    r"Sanitizer|runtime error:|Assertion|core: out of memory|Traceback \(most recent call last\).*(native|supervisor)"
    r"|the core (ended|was killed)|a malformed answer|malformed request frame|Fatal Python error"
)


def wait_for(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The first true value of `condition`. Fails with `what` when there is none in time."""
    end = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {patience_s:g} s in vain for: {what}"
        time.sleep(0.01)


def server_environment(**more: str) -> dict[str, str]:
    """The environment of a server of this tree."""
    return {
        **os.environ,
        "PYTHONPATH": str(TOP),
        "CHEROKEE_STATE": STATE,
        "CHEROKEE_CGI_USER": "root",  # tests are often run by root, and what is root's alone is where they work
        **sanitizer_environment(),
        **more,
    }


def sanitizer_environment() -> dict[str, str]:
    """What a process with a sanitized extension needs: the runtime loaded first.

    The interpreter itself leaks by design, so leaks are looked for in the C tests, which have no interpreter.
    """
    if not SANITIZE:
        return {}
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("asan", "ubsan")
    ]
    return {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:handle_segv=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


def run_command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`cherokee-app ARGUMENTS`, which must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "appserver", *arguments],
        cwd=folder,
        env=server_environment(**environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@dataclass
class Response:
    """One response as read from a socket."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first field of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def all(self, name: str) -> list[str]:
        """Every field of that name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()


class Connection:
    """A client's connection with a reader for one or several responses."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes | str) -> Connection:
        """Sends all of it."""
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def response(self, method: str = "GET") -> Response:
        """Reads one final response (interim ones are skipped).

        Raises ConnectionError when the server closes before its head.
        """
        while True:
            found = self._one(method)
            if found.status >= 200:
                return found

    def interim(self) -> Response:
        """Reads one response of whatever status."""
        return self._one("HEAD")

    def _one(self, method: str) -> Response:
        line = self.file.readline()
        if not line:
            raise ConnectionError("the server closed the connection")
        version, status, reason = line.decode("latin-1").rstrip("\r\n").split(" ", 2)
        assert version == "HTTP/1.1"
        headers = []
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name, value.strip()))
        response = Response(int(status), reason, headers, b"")
        response.body = self._body(response, method)
        return response

    def _body(self, response: Response, method: str) -> bytes:
        if method == "HEAD" or response.status < 200 or response.status in (204, 304):
            return b""
        if (response.header("transfer-encoding") or "").lower() == "chunked":
            return b"".join(self._chunks())
        length = response.header("content-length")
        return self.file.read() if length is None else self._exactly(int(length))

    def _exactly(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) < count:
            raise http.client.IncompleteRead(data, count - len(data))
        return data

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self.file.readline()
            if not line:
                raise http.client.IncompleteRead(b"")
            size = int(line.split(b";")[0], 16)
            data = self._exactly(size)
            assert self._exactly(2) == b"\r\n"
            if size == 0:
                return
            yield data

    def read_until(self, text: bytes) -> bytes:
        """What comes, as raw bytes, until `text` is in it."""
        seen = b""
        while text not in seen:
            piece = self.socket.recv(1000)
            assert piece, f"the connection ended before {text!r}: {seen!r}"
            seen += piece
        return seen

    def reset_at_close(self) -> None:
        """What the server will see of `close` is a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def closed(self) -> bool:
        """Whether the server closes now: true at the end of the stream or a reset, false when it sends something."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """Closes the client's end."""
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def accepts(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        Connection(port).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """For a server that has to be told one. It is none of those that the kernel deals out, so nobody is given it before
    the server takes it.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, first) if first > 20_000 else 0
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return int(sock.getsockname()[1])


def has_ipv6() -> bool:
    """Whether this machine has the address ::1; a container often has not."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def children_of(pid: int) -> list[int]:
    """Living and dead children of a process, all generations."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - this is called very often
        if entry.isdigit():
            with suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found = list(children.get(pid, ()))
    for each in found:
        found += children.get(each, ())
    return found


def command_of(pid: int) -> str:
    """The command line of a process, or nothing when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def state_of(pid: int) -> str:
    """R, S, Z and so on; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def state_of_threads(pid: int) -> set[str]:
    """The states of all threads of a process; SIGSTOP reaches them one by one."""
    found = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            found.add(stat.read_text().rpartition(")")[2].split()[0])
    return found


def stop_process(pid: int) -> None:
    """By SIGSTOP, once it has nothing to do: not in the middle of what has been asked for and answered already. Returns
    when all of its threads stand still.
    """
    wait_for(lambda: state_of_threads(pid) == {"S"}, f"process {pid} has nothing to do")
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: state_of_threads(pid) == {"T"}, f"process {pid} stands still")


def count_fds(pid: int, site: Path) -> int:
    """Open descriptors of a process; -1 when it has gone. A file of the site that each loop keeps open is none, nor is
    /dev/null: uvloop opens it with the first stream that it has, and keeps it for when there are no descriptors left.
    """
    kept: dict[str, int] = {}
    count = 0
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except OSError:
                continue
            if target == os.devnull:
                continue
            if target.startswith(f"{site}/"):
                kept[target] = kept.get(target, 0) + 1
            else:
                count += 1
    except OSError:
        return -1
    # Each warm interpreter, and each of its processes that waits for a request, is held by its pidfd and a socket.
    count -= 2 * len([child for child in children_of(pid) if "workers/zygote." in command_of(child)])
    loops = os.cpu_count() or 1
    return count + sum(max(0, number - loops) for number in kept.values())


@dataclass
class Server:
    """A running server under test."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int = 0
    url: str = ""
    lines: list[str] = field(default_factory=list)  #: stdout and stderr, as they came
    allowed: list[str] = field(default_factory=list)  #: patterns of alarming lines that the test has provoked
    fds_before: dict[int, int] = field(default_factory=dict)

    def connect(self) -> Connection:
        """A new connection."""
        return Connection(self.port)

    def exchange(self, data: bytes | str, method: str = "GET") -> Response:
        """One request on a connection of its own, as raw bytes."""
        with self.connect() as connection:
            return connection.send(data).response(method)

    def get(
        self, target: str, headers: dict[str, str] | None = None, method: str = "GET", body: bytes | None = None
    ) -> Response:
        """One request on a connection of its own."""
        fields = {"Host": "localhost", "Connection": "close", **(headers or {})}
        if body is not None:
            fields.setdefault("Content-Length", str(len(body)))
        head = (
            f"{method} {target} HTTP/1.1\r\n"
            + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            + "\r\n"
        )
        return self.exchange(head.encode("latin-1") + (body or b""), method)

    def post(self, target: str, body: bytes, headers: dict[str, str] | None = None) -> Response:
        """One POST on a connection of its own."""
        return self.get(target, headers, "POST", body)

    def log(self) -> str:
        """All that the server has written so far."""
        return "\n".join(self.lines)

    def wait_for_log(self, pattern: str, count: int = 1) -> str:
        """The first line that matches, once there are `count` of them."""
        found: list[str] = wait_for(
            lambda: (
                (hits := [line for line in list(self.lines) if re.search(pattern, line)])
                and len(hits) >= count
                and hits
            ),
            f"{count} log line(s) matching {pattern!r} in\n{self.log()[-4000:]}",
        )
        return found[0]

    def records(self, event: str) -> list[dict[str, Any]]:
        """The JSON log records whose event matches."""
        found = []
        for line in list(self.lines):
            if line.startswith("{") and re.search(event, json.loads(line).get("event", "")):
                found.append(json.loads(line))
        return found

    def pids(self, pattern: str) -> list[int]:
        """Living descendants whose command line matches: `core_main`, `workers/main.py`, `spawner_main`."""
        return [
            pid
            for pid in children_of(self.process.pid)
            if re.search(pattern, command_of(pid)) and state_of(pid) not in ("Z", "")
        ]

    def one_pid(self, pattern: str) -> int:
        """The only descendant that matches."""
        found = self.pids(pattern)
        assert len(found) == 1, found
        return found[0]

    def kill(self, number: int) -> None:
        """Sends a signal to the supervisor."""
        os.kill(self.process.pid, number)

    def count_fds(self, pid: int) -> int:
        """Descriptors of one of the server's processes, but for files that are kept open to be served."""
        return count_fds(pid, self.folder)

    def remember_fds(self) -> None:
        """Notes how many descriptors each process has now."""
        self.fds_before = {pid: self.count_fds(pid) for pid in (self.process.pid, *children_of(self.process.pid))}

    def check_fds(self) -> None:
        """Fails when a process that was there before keeps more descriptors than then."""
        for pid, before in self.fds_before.items():
            wait_for(
                lambda pid=pid, before=before: self.count_fds(pid) <= before,
                f"process {pid} ({command_of(pid)}) has leaked descriptors",
            )

    def check_zombies(self) -> None:
        """Fails when a dead descendant stays unreaped."""
        wait_for(
            lambda: not [pid for pid in children_of(self.process.pid) if state_of(pid) == "Z"], "no zombie is left"
        )

    def check_log(self) -> None:
        """Fails when the log says something that must not happen."""
        for line in list(self.lines):
            if ALARMING.search(line) and not any(re.search(pattern, line) for pattern in self.allowed):
                raise AssertionError(f"alarming line in the log: {line}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stops the server and checks that it leaves nothing behind; its exit status."""
        tree = children_of(self.process.pid)
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        wait_for(lambda: not [pid for pid in tree if state_of(pid)], "every process of the server has ended")
        return status

    _reader: threading.Thread = field(default_factory=threading.Thread)


LAST_SERVERS: deque[Server] = deque(maxlen=4)  #: for the report of a test that fails


def listening_inodes(port: int) -> list[str]:
    """The sockets that listen on a port of 127.0.0.1, by inode."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [line[9] for line in lines if line[3] == "0A" and int(line[1].split(":")[1], 16) == port]


def watches(server: Server) -> list[list[tuple[str, int]]]:
    """For each epoll instance of the core that watches a listening socket: inode and events of each."""
    pid = server.one_pid("core_main")
    wanted = listening_inodes(server.port)
    found = []
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        inodes = []
        with suppress(OSError):  # what is closed meanwhile is no listening socket
            for fd, events in re.findall(r"tfd:\s*(\d+) events:\s*([0-9a-f]+)", entry.read_text()):
                inode = re.search(r"socket:\[(\d+)\]", str(Path(f"/proc/{pid}/fd/{fd}").readlink()))
                if inode and inode[1] in wanted:
                    inodes.append((inode[1], int(events, 16)))
        if inodes:
            found.append(inodes)
    return found


def _read_lines(server: Server, found: queue.Queue[str | None]) -> None:
    assert server.process.stdout is not None
    for raw in server.process.stdout:
        line = raw.decode("utf-8", "replace").rstrip("\n")
        server.lines.append(line)
        found.put(line)
    server.process.stdout.close()
    found.put(None)


def launch(
    folder: Path,
    *arguments: str,
    environment: dict[str, str] | None = None,
    prefix: tuple[str, ...] = (),
    interpreter: str = sys.executable,
) -> Server:
    """Starts `cherokee-app serve ARGUMENTS` and waits for the line that says where it listens.

    Raises RuntimeError with its output when it ends before that.
    """
    command = [*prefix, interpreter, "-m", "appserver", "serve", *arguments]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=server_environment(**(environment or {})),
    )
    server = Server(process, folder)
    LAST_SERVERS.append(server)
    found: queue.Queue[str | None] = queue.Queue()
    server._reader = threading.Thread(target=_read_lines, args=(server, found), daemon=True)
    server._reader.start()
    began = time.monotonic()
    while True:
        line = found.get(timeout=max(0.1, began + PATIENCE_S - time.monotonic()))
        if line is None:
            process.wait(PATIENCE_S)
            raise RuntimeError(f"the server ended with status {process.returncode}:\n{server.log()}")
        match = re.search(r"listening on (http://\S+:(\d+))", line)
        if match:
            server.url, server.port = match[1], int(match[2])
            if SANITIZE:
                assert (
                    str(TOP / "appserver/native/_core") in Path(f"/proc/{server.one_pid('core_main')}/maps").read_text()
                )
            if time.monotonic() - began > ANNOUNCED_ANYWAY_S - 1:
                _give_executors_time(server)
            return server


def _give_executors_time(server: Server) -> None:
    """On a machine that has much to do: until all are ready, or for as long as we have patience; some never are."""

    def are_ready() -> bool:
        ready = {each.get("pid") for each in server.records("^executor is ready$")}
        return ready.issuperset(server.pids("workers/main.py"))

    with suppress(AssertionError):
        wait_for(are_ready, "all executors are ready")


@contextmanager
def serving(folder: Path, *arguments: str, **options: Any) -> Iterator[Server]:
    """A server for one test, with all the checks at its end."""
    server = launch(folder, *arguments, **options)
    try:
        server.remember_fds()
        yield server
        server.check_zombies()
        server.check_fds()
        assert server.stop() == 0, server.log()
        server.check_log()
    finally:
        if server.process.poll() is None:
            tree = children_of(server.process.pid)
            server.process.kill()
            server.process.wait()
            wait_for(
                lambda: not [pid for pid in tree if state_of(pid) not in ("", "Z")], "the rest of the tree has ended"
            )


def write_tree(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Writes files by relative path; those in cgi-bin/ become executable."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if "cgi-bin" in path.parts:
            path.chmod(0o755)
    return folder
