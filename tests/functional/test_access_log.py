"""The access log: formats, hostile bytes, where it goes, reopening, and that it never stops the server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import Connection, server_environment, wait_for

COMBINED = re.compile(
    r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    r'"GET /a\.txt\?q=1 HTTP/1\.1" 200 5 "http://r/" "agent"'
)
FILES: dict[str, str | bytes] = {"www/a.txt": "alpha", "handlers/h.py": "def handle(r):\n    return 'x'\n"}


def test_combined(serve) -> None:
    server = serve(FILES)
    server.get("/a.txt?q=1", {"Referer": "http://r/", "User-Agent": "agent"})
    assert COMBINED.fullmatch(server.wait_for_log(r"GET /a\.txt"))


def test_json(serve) -> None:
    server = serve(FILES, config="log: {access: json}\n")
    server.get("/h/", {"User-Agent": "agent"})
    record = json.loads(server.wait_for_log("/h/"))
    assert record["method"] == "GET"
    assert record["status"] == 200
    assert record["user_agent"] == "agent"


HOSTILE = [
    b'quo"te',
    b"back\\slash",
    b"\xff\xfe broken",
    "ümläut".encode(),
    b"tab\there",
    b"\xe2\x80\xa8line",
    b"a" * 3000,
]


@pytest.mark.parametrize("format_", ["combined", "json"])
def test_hostile_bytes(serve, format_: str) -> None:
    server = serve(FILES, config=f"log: {{access: {format_}}}\n")
    for number, agent in enumerate(HOSTILE):
        head = b"GET /a.txt?n=%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: %s\r\n\r\n" % (number, agent)
        assert server.exchange(head).status == 200
    for number in range(len(HOSTILE)):
        line = server.wait_for_log(rf"/a\.txt\?n={number}\b")
        assert not re.search(r"[\x00-\x1f\x7f\u2028]", line)
        if format_ == "json":
            assert json.loads(line)["status"] == 200
        else:
            assert line.count('"') - line.count('\\"') == 6


def test_what_was_refused_is_logged(serve) -> None:
    server = serve(FILES)
    server.exchange(b"GET /\x01 HTTP/1.1\r\n\r\n")
    server.exchange("BROKEN\r\n\r\n")
    server.wait_for_log(r'" 400 ', 2)


@pytest.mark.parametrize("how", ["length", "chunked", "reset"])
def test_a_client_that_leaves_in_the_middle_of_its_body(serve, how: str) -> None:
    server = serve(FILES, config="log: {access: json}\n")
    framing = "Transfer-Encoding: chunked" if how == "chunked" else "Content-Length: 100000"
    with server.connect() as connection:
        begun = "5\r\nbegun" if how == "chunked" else "begun"
        connection.send(f"POST /h/{how} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{begun}")
        if how == "reset":
            connection.reset_at_close()
    record = json.loads(server.wait_for_log(rf"/h/{how}"))
    assert (record["method"], record["status"], record["bytes"]) == ("POST", 499, 0)
    assert server.get("/h/").text == "x"


def test_off(serve) -> None:
    server = serve(FILES, config='log: {access: "off"}\n')
    server.get("/a.txt")
    server.kill(signal.SIGUSR1)
    server.wait_for_log("log files reopened")
    assert "GET /a.txt" not in server.log()


def test_file_and_reopening(serve) -> None:
    """What a log rotation does: rename, SIGUSR1. Every request is in one of the two files, once."""
    server = serve(FILES, config="log: {access_file: access.log}\n")
    log, moved = server.folder / "access.log", server.folder / "access.log.1"
    asked = 0
    with server.connect() as connection:
        for part in range(3):
            for _ in range(100):
                connection.send(f"GET /a.txt?n={asked} HTTP/1.1\r\nHost: x\r\n\r\n").response()
                asked += 1
            if part == 1:
                log.rename(moved)
                server.kill(signal.SIGUSR1)
                server.wait_for_log("log files reopened")
    wait_for(lambda: log.exists() and "n=299 " in log.read_text(), "the last line is in the new file")
    numbers = [int(found) for path in (moved, log) for found in re.findall(r"\?n=(\d+) ", path.read_text())]
    assert sorted(numbers) == list(range(asked))


def test_lines_are_there_at_the_end(serve) -> None:
    server = serve(FILES, config="log: {access_file: access.log}\n")
    for number in range(20):
        server.get(f"/a.txt?n={number}")
    assert server.stop() == 0
    assert len((server.folder / "access.log").read_text().splitlines()) == 20


def test_a_reader_that_stalls_stops_nobody(tmp_path: Path) -> None:
    """stdout is a pipe that nobody reads: requests go on, lines are dropped and counted, and the server still stops."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www/a.txt").write_text("alpha")
    process = subprocess.Popen(
        [sys.executable, "-m", "appserver", "serve", str(tmp_path), "--listen", "127.0.0.1:0"],
        env=server_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        port = int(re.search(rb":(\d+)$", process.stdout.readline().strip())[1])  # type: ignore[index]
        with Connection(port) as connection:
            line = f"GET /a.txt?{'x' * 1000} HTTP/1.1\r\nHost: x\r\n\r\n"
            for _ in range(2000):
                assert connection.send(line).response().status == 200
        process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
