"""Bodies in memory that executors lend: each client gets its own bytes, whoever is slow, leaves or dies."""

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest
from harness import Response, Server, wait_for

FILES: dict[str, str | bytes] = {
    "app.py": """
import os

def application(environ, start_response):
    _, kind, number, size = environ["PATH_INFO"].split("/")
    piece = (number * 8)[:7].encode() + b"|"
    body = piece * (int(size) // 8)
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [body]
""",
}
CONFIG = """
pools: {app: {python: app:application, directory: ., processes: 2, threads: 2}}
sites: [{root: ., rules: [{handler: {python: app}}]}]
"""
SIZES = (65_544, 262_144, 1 << 20, 4 << 20, (4 << 20) + 8)


@pytest.fixture(scope="module")
def server(serve_module) -> Iterator[Server]:
    started: Server = serve_module(FILES, config=CONFIG)
    started.allowed.append("worker")  # one test kills them
    started.remember_fds()
    yield started


def expected(number: int, size: int) -> bytes:
    return ((str(number) * 8)[:7].encode() + b"|") * (size // 8)


def test_many_at_once_each_with_bytes_of_its_own(server):
    wrong: list[str] = []

    def ask(first: int) -> None:
        for step in range(6):
            number, size = first * 100 + step, SIZES[(first + step) % len(SIZES)]
            response = server.get(f"/plain/{number}/{size}")
            if response.body != expected(number, size):
                wrong.append(f"{number}: {len(response.body)} bytes of {size}")

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def open_slow(server: Server, number: int, size: int) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
    client.connect(("127.0.0.1", server.port))
    client.sendall(b"GET /slow/%d/%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % (number, size))
    return client


def read_all(client: socket.socket) -> bytes:
    parts = []
    while data := client.recv(1 << 16):
        parts.append(data)
    return b"".join(parts)


def test_clients_that_do_not_read_keep_their_bytes(server):
    size = 4 << 20
    slow = [open_slow(server, number, size) for number in range(40, 60)]
    for number in range(60, 75):
        assert server.get(f"/plain/{number}/{size}").body == expected(number, size)
    for number, client in zip(range(40, 60), slow, strict=True):
        with client:
            answer = read_all(client)
        assert answer.partition(b"\r\n\r\n")[2] == expected(number, size)


def test_clients_that_leave_and_workers_that_die(server):
    size = 4 << 20
    slow = [open_slow(server, number, size) for number in range(10, 20)]
    stays = open_slow(server, 777, size)
    assert stays.recv(10, socket.MSG_PEEK | socket.MSG_WAITALL)
    for client in slow:
        client.close()
    workers = {int(server.get("/plain/1/65544").header("X-Worker") or 0) for _ in range(8)}
    for worker in workers:
        os.kill(worker, signal.SIGKILL)

    def answer_of_another() -> Response | None:
        response = server.get("/plain/5/1048576")
        return response if response.status == 200 and int(response.header("X-Worker") or 0) not in workers else None

    response = wait_for(answer_of_another, "another worker answers")
    assert response.body == expected(5, 1 << 20)
    # It was lent by one that is dead, and the core has it all the same.
    with stays:
        assert read_all(stays).partition(b"\r\n\r\n")[2] == expected(777, size)


def test_head_says_the_length(server):
    response = server.get("/plain/3/1048576", method="HEAD")
    assert response.header("Content-Length") == str(1 << 20)
    assert response.body == b""
