"""Every choice of `tuning` changes how the core works and nothing of what a client gets."""

from __future__ import annotations

import itertools
import random
import signal
from pathlib import Path

import pytest
from harness import Server, wait_for

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
    with pytest.raises(RuntimeError, match=r"tuning\.cork: found 'nagle'; expected one of more, cork, off"):
        serve(FILES, config=config(cork="nagle"))
