"""The load: wrk, `many` (many.c) where wrk would be the limit, and plain sockets for connections that do nothing."""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
MANY = HERE.parent / "build" / "bench" / "many"  #: compiled from many.c
CONNECTIONS_PER_SOURCE = 10_000  #: from one source address; the usual range has 28,000 ports
IP_BIND_ADDRESS_NO_PORT = 24  #: linux/in.h; Python has no name for it before 3.12
TIME_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class BenchError(Exception):
    """A measurement that cannot be made, or whose figures would not be true."""


@dataclass(frozen=True)
class Load:
    """What clients do."""

    path: str
    connections: int = 64
    keep_alive: bool = True
    pipeline: int = 1
    files: str = ""  #: not wrk but `many` asks, for the files of this list (see write_list)


@dataclass(frozen=True)
class Wanted:
    """A file in a list for `many`."""

    size_class: int  #: 0..7; times are told apart by it
    weight: float
    size: int
    path: str


@dataclass(frozen=True)
class Times:
    """Of the responses of one class."""

    requests: int
    mean_s: float
    p50_s: float
    p99_s: float


@dataclass(frozen=True)
class Outcome:
    """What the clients saw."""

    requests: int
    seconds: float
    p50_s: float
    p99_s: float
    answered: int  #: requests, also those before the count began: what the server's CPU time is for
    by_class: dict[int, Times] = field(default_factory=dict)  #: when `many` asked

    @property
    def requests_per_s(self) -> float:
        """Throughput."""
        return self.requests / self.seconds


def _seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()
    return float(number) * TIME_UNITS[unit]


def parse_wrk(text: str) -> Outcome:
    """What wrk prints with --latency. Errors make the figures worthless: an error answer is cheaper than a good one."""
    if match := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        raise BenchError(f"{match[1]} requests were not answered with success")
    if match := re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text):
        connect, _read, write, timeout = (int(count) for count in match.groups())
        # A close right behind a response counts as a read error; only what cannot be that stops the run.
        if connect or write or timeout:
            raise BenchError(f"wrk could not keep up its connections: {match[0]}")
    total = re.search(r"(\d+) requests in ([\d.]+[a-z]+),", text)
    p50 = re.search(r"50%\s+([\d.]+[a-z]+)", text)
    p99 = re.search(r"99%\s+([\d.]+[a-z]+)", text)
    if total is None or p50 is None or p99 is None or int(total[1]) == 0:
        raise BenchError(f"wrk answered no request:\n{text}")
    requests = int(total[1])
    return Outcome(requests, _seconds(total[2]), _seconds(p50[1]), _seconds(p99[1]), requests)


def run_wrk(port: int, load: Load, seconds: float, cpu: int) -> Outcome:
    """Loads the server on `port` for `seconds` (whole ones, at least 1) from one thread on `cpu`."""
    command = ["taskset", "-c", str(cpu), "wrk", "-t1", f"-c{load.connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--latency", "--timeout", "10s"]
    if not load.keep_alive:
        command += ["-H", "Connection: close"]
    if load.pipeline > 1:
        command += ["-s", str(HERE / "pipeline.lua")]
    command.append(f"http://127.0.0.1:{port}{load.path}")
    if load.pipeline > 1:
        command += ["--", str(load.pipeline)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0:
        raise BenchError(f"wrk failed: {done.stderr.strip()}")
    return parse_wrk(done.stdout)


def write_list(root: Path, name: str, files: list[Wanted]) -> None:
    """The list `name` of files below `root`, for loads that name it."""
    lines = [f"{each.size_class} {each.weight:.9f} {each.size} {each.path}\n" for each in files]
    root.with_name(f"{name}.list").write_text("".join(lines))


def run_many(port: int, load: Load, seconds: float, cpu: int, root: Path) -> Outcome:
    """Likewise by `many`. What it counts begins 0.3 s after its start, when the connections are there."""
    how = "keep" if load.keep_alive else "close"
    command = ["taskset", "-c", str(cpu), str(MANY), "127.0.0.1", str(port), str(load.connections), str(seconds), how]
    command.append(str(root.with_name(f"{load.files}.list")))
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0:
        raise BenchError(f"many failed: {done.stderr.strip()}")
    figures = json.loads(done.stdout)
    times = {
        name: Times(each["requests"], each["mean_ms"] / 1e3, each["p50_ms"] / 1e3, each["p99_ms"] / 1e3)
        for name, each in figures.items()
        if isinstance(each, dict)
    }
    everything = times.pop("all")
    if everything.requests == 0:
        raise BenchError("many: no request was answered in time")
    by_class = {int(name): each for name, each in times.items()}
    return Outcome(
        everything.requests, figures["seconds"], everything.p50_s, everything.p99_s, figures["answered"], by_class
    )


def run_load(port: int, load: Load, seconds: float, cpu: int, root: Path) -> Outcome:
    """Loads the server on `port` from one thread on `cpu`; `root` is that of the files."""
    return run_many(port, load, seconds, cpu, root) if load.files else run_wrk(port, load, seconds, cpu)


def need_wrk() -> None:
    """Says what to do when there is no wrk."""
    if shutil.which("wrk") is None:
        raise BenchError("there is no wrk on the PATH; deploy/system-packages.sh bench installs it")


@contextmanager
def idle_connections(port: int, path: str, count: int) -> Iterator[None]:
    """`count` connections that have each had one answer and now keep quiet."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    opened: list[socket.socket] = []
    try:
        for index in range(count):
            client = socket.socket()
            opened.append(client)
            client.settimeout(30)
            # The port is chosen by connect(), which may reuse one that another destination has; and closing resets, so
            # that no run leaves thousands of ports in TIME_WAIT to the next.
            client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.bind((f"127.0.0.{2 + index // CONNECTIONS_PER_SOURCE}", 0))
            client.connect(("127.0.0.1", port))
            client.sendall(request)
            _read_answer(client)
        yield
    finally:
        for client in opened:
            client.close()


def _read_answer(client: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece:
            raise BenchError("the server closed a connection that should have stayed open")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise BenchError(f"the server answered {head[:40]!r}")
    length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1])
    while len(body) < length:
        body += client.recv(65536)
