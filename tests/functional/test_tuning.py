"""Every choice of `tuning` changes how the core works and nothing of what a client gets."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
from pathlib import Path

import pytest
from harness import Server, stop_process, wait_for

SMALL = b"a small file\n" * 20
CACHED = random.Random(1).randbytes(100 * 1024)
LARGE = random.Random(2).randbytes(3 * 1024 * 1024)  # over cache.file_size: sendfile, and several turns
FILES: dict[str, str | bytes] = {"www/small.txt": SMALL, "www/cached.bin": CACHED, "www/large.bin": LARGE}


def config(**tuning: str) -> str:
    keys = ", ".join(f"{name}: {value}" for name, value in tuning.items())
    return f"threads: 1\nlog: {{access: off}}\ntuning: {{{keys}}}\nsites: [{{root: www}}]\n"


def check_everything(server: Server) -> None:
    """Small, cached and large files, without a body, in parts, kept alive, pipelined and not kept."""
    assert server.get("/large.bin").body == LARGE
    server.remember_fds()  # the loop's cache keeps large files open
    with server.connect() as connection:
        for path, content in (("/small.txt", SMALL), ("/cached.bin", CACHED), ("/large.bin", LARGE)) * 2:
            response = connection.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").response()
            assert (response.status, response.body) == (200, content)
            head = connection.send(f"HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n").response("HEAD")
            assert head.header("content-length") == str(len(content))
            part = connection.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nRange: bytes=7-99\r\n\r\n").response()
            assert (part.status, part.body) == (206, content[7:100])
        connection.send("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\nGET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.response().body == LARGE
        assert connection.response().body == SMALL
    assert server.get("/large.bin").body == LARGE
    assert server.get("/nothing").status == 404


@pytest.mark.parametrize(
    ("write", "cork", "sendfile"),
    list(itertools.product(("gather", "separate"), ("more", "cork", "off"), ("on", "off"))),
)
def test_every_way_of_writing(serve, write: str, cork: str, sendfile: str) -> None:
    check_everything(serve(FILES, config=config(write=write, cork=cork, sendfile=sendfile)))


@pytest.mark.parametrize("tuning", [{"accept_batch": "one"}, {"reuse": "off"}])
def test_accepting_and_reuse(serve, tuning: dict[str, str]) -> None:
    server = serve(FILES, config=config(**tuning))
    check_everything(server)
    connections = [server.connect() for _ in range(50)]
    for connection in connections:
        connection.send("GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
    for connection in connections:
        assert connection.response().body == SMALL
        connection.close()


def test_a_reload_changes_the_way_of_working(serve, tmp_path: Path) -> None:
    """A response that is on its way ends as it began; whatever comes afterwards goes the new way."""
    server = serve(FILES, config=config(cork="cork", sendfile="off"))
    with server.connect() as connection:
        connection.send("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        start = connection.file.read(1000)
        for count, tuning in enumerate(({"reuse": "off"}, {"cork": "off", "write": "separate"}, {}), 1):
            (tmp_path / "config.yaml").write_text(config(**tuning))
            server.kill(signal.SIGHUP)
            server.wait_for_log("configuration reloaded", count)
            check_everything(server)
        head, _, body = start.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert body + connection.file.read(len(LARGE) - len(body)) == LARGE
        assert connection.send("GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n").response().body == SMALL


@pytest.mark.parametrize("schedule", ["fair", "shortest-first"])
def test_a_large_download_ends_under_a_stream_of_shorter_ones(serve, tmp_path: Path, schedule: str) -> None:
    """More of the shorter ones come as long as it takes, and all of them are files that have to queue."""
    server = serve({"www/medium.bin": CACHED * 5}, config=f"schedule: {schedule}\n" + config())
    block = random.Random(3).randbytes(1024 * 1024)
    with (tmp_path / "www/huge.bin").open("wb") as file:
        for _ in range(96):
            file.write(block)
    stop = threading.Event()
    served: list[int] = []
    failures: list[BaseException] = []

    def stream() -> None:
        try:
            with server.connect() as connection:
                while not stop.is_set():
                    response = connection.send("GET /medium.bin HTTP/1.1\r\nHost: a\r\n\r\n").response()
                    assert response.body == CACHED * 5
                    served.append(1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=stream) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: served or failures, "the stream has begun")
        with server.connect() as connection:
            connection.send("GET /huge.bin HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.file.readline() == b"HTTP/1.1 200 OK\r\n"
            while connection.file.readline() != b"\r\n":
                pass
            before = len(served)
            for _ in range(96):
                assert connection.file.read(len(block)) == block
            assert len(served) > before or failures
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    server.remember_fds()


@pytest.mark.parametrize(
    ("schedule", "order"),
    [("fair", ["/400", "/300", "/200", "/100"]), ("shortest-first", ["/100", "/200", "/300", "/400"])],
)
def test_the_order_of_large_files(serve, schedule: str, order: list[str]) -> None:
    """Four requests that are all there in one turn, the largest first. Each answer fits into its socket, so the access
    log tells in which order they were sent.
    """
    files: dict[str, str | bytes] = {f"www/{kib}": bytes(kib * 1024) for kib in (100, 200, 300, 400)}
    text = config().replace("access: off", "access: json") + "cache: {file_size: 16KiB}\n"
    server = serve(files, config=f"schedule: {schedule}\n" + text)
    connections = [server.connect() for _ in range(4)]
    for connection in connections:  # accepted, each by itself
        assert connection.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n").response().status == 404
    core = server.one_pid("core_main")
    stop_process(core)
    for connection, kib in zip(connections, (400, 300, 200, 100), strict=True):
        connection.send(f"GET /{kib} HTTP/1.1\r\nHost: a\r\n\r\n")
    os.kill(core, signal.SIGCONT)
    for connection, kib in zip(connections, (400, 300, 200, 100), strict=True):
        assert len(connection.response().body) == kib * 1024
        connection.close()

    def targets() -> list[str]:
        records = [json.loads(line) for line in list(server.lines) if '"target":' in line]
        return [record["target"] for record in records if record["status"] == 200]

    assert wait_for(lambda: len(found := targets()) == 4 and found, "four requests in the log") == order
    server.remember_fds()


def test_schedule_changes_nothing_of_the_answers(serve) -> None:
    server = serve(FILES, config="schedule: shortest-first\n" + config())
    check_everything(server)
    # Several that wait for their turn, of which some clients do not wait for theirs.
    connections = [server.connect().send("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(12)]
    for connection in connections[::3]:
        connection.close()
    for number, connection in enumerate(connections):
        if number % 3:
            assert connection.response().body == LARGE
            connection.close()


@pytest.mark.parametrize("sendfile", ["on", "off"])
def test_a_file_that_shrinks_cuts_the_response(serve, tmp_path: Path, sendfile: str) -> None:
    size = 64 * 1024 * 1024
    server = serve({"www/a": ""}, config=config(sendfile=sendfile))
    path = tmp_path / "www/shrinks.bin"
    with path.open("wb") as file:
        file.truncate(size)
    with server.connect() as connection:
        connection.send("GET /shrinks.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        got = len(connection.file.read(64 * 1024))
        with path.open("r+b") as file:
            file.truncate(1024)

        def ended() -> bool:
            nonlocal got
            try:
                data = connection.file.read(1024 * 1024)
            except ConnectionResetError:
                return True
            got += len(data)
            return not data

        wait_for(ended, "the server closes the connection")
        assert got < size
    server.remember_fds()


def test_an_unknown_choice_is_refused(serve) -> None:
    with pytest.raises(RuntimeError, match=r"tuning\.cork: found 'nagle'; expected one of cork, more, off"):
        serve(FILES, config=config(cork="nagle"))
