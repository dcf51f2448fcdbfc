"""The load: wrk for requests, and plain sockets for connections that do nothing."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
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


@dataclass(frozen=True)
class Outcome:
    """What the clients saw."""

    requests: int
    seconds: float
    p50_s: float
    p99_s: float

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
    return Outcome(int(total[1]), _seconds(total[2]), _seconds(p50[1]), _seconds(p99[1]))


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
