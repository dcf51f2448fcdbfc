"""Files that change under load: rewritten in place, truncated, replaced. No answer mixes versions, nothing crashes."""

from __future__ import annotations

import http.client
import threading
from pathlib import Path

import pytest
from harness import Server, wait_for

ROUNDS = 100
HELD, SENT = 60_000, 600_000  # below cache.file_size, and above it even when cut in half


def version(number: int, size: int) -> bytes:
    """One letter throughout, so that a mixture shows; the size tells the version as well."""
    return bytes([97 + number % 26]) * (size + number % 7)


def is_one_version(body: bytes) -> bool:
    return len(set(body)) <= 1


class Load:
    """Clients that read one file again and again until they are told to stop."""

    def __init__(self, server: Server, path: str, clients: int, fields: str = "", in_place: bool = False) -> None:
        self.server = server
        self.request = f"GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"
        self.in_place = in_place  # sendfile lends the file's own pages: a writer in place reaches what is on its way
        self.complete = 0
        self.cut = 0
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            with self.server.connect() as connection:
                try:
                    for _ in range(50):
                        if self._over.is_set():
                            return
                        self._look_at(connection.send(self.request).response())
                except (http.client.IncompleteRead, ConnectionError):
                    self.cut += 1  # the file became shorter than what had been promised: the client can tell

    def _look_at(self, response) -> None:
        if response.status not in (200, 206, 404):
            self.wrong.append(f"status {response.status}")
        elif response.status != 404:
            self.complete += 1
            if not self.in_place and not is_one_version(response.body):
                self.wrong.append(f"a mixture of {sorted(set(response.body))} in {len(response.body)} bytes")


def length(server: Server) -> int:
    """Of the file as it is served; of an answer that is cut off, none."""
    try:
        return len(server.get("/a.bin").body)
    except http.client.IncompleteRead:
        return -1


def rewrite(path: Path, content: bytes) -> None:
    """In place, without a moment in which the file is empty."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate(len(content))


def truncate(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.truncate(len(content) // 2)


def empty_and_fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


def remove(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


CONFIG = "threads: 2\ncache: {revalidate: %s}\nlog: {access: off}\nsites: [{root: www}]\n"


@pytest.mark.parametrize("revalidate", ["0s", "1ms"])
def test_a_file_that_is_held(serve, revalidate):
    """Whatever is done to it: it was read while it stood still, or goes out from its descriptor and is cut.

    A writer that stops in the middle leaves a file that is itself a mixture, so each change is one system call or has
    one letter from its beginning to its end.
    """
    server = serve({"www/a.bin": version(0, HELD)}, config=CONFIG % revalidate)
    path = server.folder / "www/a.bin"
    core = server.pids("core_main")
    with Load(server, "/a.bin", 3) as load:
        for number in range(1, ROUNDS + 1):
            complete = load.complete
            (truncate, empty_and_fill, replace, remove)[number % 4](path, version(number, HELD))
            wait_for(lambda complete=complete: load.complete > complete + 2 or load.wrong, "the clients get answers")
        replace(path, version(1, HELD))
        wait_for(lambda: server.get("/a.bin").body == version(1, HELD), "the last version is served")
    assert not load.wrong, load.wrong[:5]
    assert server.pids("core_main") == core


def test_a_large_file_that_is_replaced(serve):
    """By rename or by a new file: a response is the version that was opened, to its last byte."""
    server = serve({"www/a.bin": version(0, SENT)}, config=CONFIG % "0s")
    path = server.folder / "www/a.bin"
    with Load(server, "/a.bin", 2) as whole, Load(server, "/a.bin", 2, "Range: bytes=0-99,300000-\r\n") as parts:
        for number in range(1, ROUNDS + 1):
            complete = whole.complete, parts.complete
            replace(path, version(number, SENT))
            wait_for(
                lambda complete=complete: (
                    (whole.complete > complete[0] and parts.complete > complete[1]) or whole.wrong
                ),
                "the clients get answers",
            )
    assert not whole.wrong, whole.wrong[:5]
    assert (whole.cut, parts.cut) == (0, 0)
    server.remember_fds()  # the cache keeps the file open


def test_a_large_file_that_is_truncated(serve):
    """A response that has begun cannot be completed: it is cut, and the next one has the new length.

    Truncating clears the rest of the last page, also where it waits in a socket; so here it is the length that counts.
    """
    server = serve({"www/a.bin": version(0, SENT)}, config=CONFIG % "1s")
    path = server.folder / "www/a.bin"
    core = server.pids("core_main")
    with Load(server, "/a.bin", 3, in_place=True) as load:
        for number in range(1, ROUNDS + 1):
            seen = load.complete + load.cut
            (truncate, replace)[number % 2](path, version(number, SENT))
            wait_for(lambda seen=seen: load.complete + load.cut > seen + 2 or load.wrong, "the clients get answers")
            size = path.stat().st_size
            wait_for(lambda size=size: length(server) == size, "the new length")
    assert not load.wrong, load.wrong[:5]
    assert server.pids("core_main") == core
    server.remember_fds()


def test_tags_tell_versions_apart(serve):
    """Content and ETag belong together, and one strong tag never stands for two contents."""
    server = serve({"www/a.bin": version(0, 100)}, config=CONFIG % "0s")
    path = server.folder / "www/a.bin"
    seen: dict[str, bytes] = {}
    for number in range(1, ROUNDS + 1):
        rewrite(path, version(number, 100))
        response = server.get("/a.bin")
        assert response.body == version(number, 100)
        tag = response.header("etag")
        assert tag is not None
        if not tag.startswith("W/"):
            assert seen.setdefault(tag, response.body) == response.body
