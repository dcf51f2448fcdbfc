"""Static files: what is found, how it is described, conditions, ranges, and files that change while they are served."""

from __future__ import annotations

import os
import re
import threading
import time
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

import pytest
from harness import Response, Server, wait_for

LARGE = os.urandom(3 << 20)
HELD_MAX = 256 << 10  #: files up to this size are held in memory
OLD_S = 1_000_000_000  #: a time of modification long ago


def age(path: Path, when: int = OLD_S) -> None:
    """A file that has not been touched for long has a strong validator."""
    os.utime(path, (when, when))


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    files: dict[str, str | bytes] = {
        "www/index.html": "<p>index",
        "www/a.txt": "0123456789",
        "www/empty.txt": "",
        "www/large.bin": LARGE,
        "www/noindex/x.txt": "x",
        "www/sub/index.html": "sub index",
        "www/both/index.htm": "second choice",
        "www/type.css": "a{}",
        "www/type.js": "1",
        "www/type.svg": "<svg/>",
        "www/type.html": "h",
        "www/type.json": "{}",
        "www/type.foo": "f",
        "www/type.unknownx": "u",
        "www/TYPE.PNG": "p",
        "www/notype": "n",
        "www/with space+plus&amp.txt": "odd",
        "www/\u00fcml\u00e4ut.txt": "umlaut",
        "www/404.html": "page for what is not there",
    }
    config = """
types: {".foo": application/x-foo}
sites: [{root: www, index: [index.html, index.htm], errors: {404: /404.html}}]
"""
    started: Server = serve_module(files, config=config)
    for path in (started.folder / "www").rglob("*"):
        age(path)
    # What was looked at while it was young is read anew.
    wait_for(lambda: not (started.get("/a.txt").header("etag") or "").startswith("W/"), "validators are strong")
    return started


# What is found


def test_index_files(server: Server) -> None:
    assert server.get("/").text == "<p>index"
    assert server.get("/sub/").text == "sub index"
    assert server.get("/both/").text == "second choice"


def test_folder_without_slash(server: Server) -> None:
    response = server.get("/sub?a=1")
    assert (response.status, response.header("location")) == (301, "/sub/?a=1")


def test_folder_without_index(server: Server) -> None:
    response = server.get("/noindex/")
    assert (response.status, response.text) == (404, "page for what is not there")


def test_names(server: Server) -> None:
    assert server.get("/with%20space+plus%26amp.txt").text == "odd"
    assert server.get("/%C3%BCml%C3%A4ut.txt").text == "umlaut"
    assert server.get("/a.txt?query").text == "0123456789"
    assert server.get("/a.txt/").status == 404
    assert server.get("/a.txt/more").status == 404


def test_error_page(server: Server) -> None:
    response = server.get("/not-there")
    assert (response.status, response.text) == (404, "page for what is not there")
    assert response.header("etag") is None
    assert server.get("/not-there", method="HEAD").header("content-length") == str(len(response.body))


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("type.html", "text/html; charset=utf-8"),
        ("type.css", "text/css; charset=utf-8"),
        ("type.js", "text/javascript; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("type.json", "application/json"),
        ("type.svg", "image/svg+xml"),
        ("TYPE.PNG", "image/png"),
        ("type.foo", "application/x-foo"),
        ("type.unknownx", "application/octet-stream"),
        ("notype", "application/octet-stream"),
    ],
)
def test_media_types(server: Server, name: str, type_: str) -> None:
    response = server.get(f"/{name}")
    assert response.header("content-type") == type_
    assert response.header("x-content-type-options") == "nosniff"


def test_empty_file(server: Server) -> None:
    response = server.get("/empty.txt")
    assert (response.status, response.body, response.header("content-length")) == (200, b"", "0")


def test_large_file(server: Server) -> None:
    assert server.get("/large.bin").body == LARGE
    response = server.get("/large.bin", method="HEAD")
    assert response.header("content-length") == str(len(LARGE))


# Conditions


def test_validators(server: Server) -> None:
    response = server.get("/a.txt")
    assert re.fullmatch(r'"[!#-~]+"', response.header("etag") or "")
    modified = response.header("last-modified")
    assert modified == formatdate(OLD_S, usegmt=True)


def test_a_young_file_has_a_weak_etag(server: Server) -> None:
    """It could be written again within the tick of the file system's clock, without a trace."""

    def is_weak() -> bool:
        (server.folder / "www/young.txt").write_text("young")
        return (server.get("/young.txt").header("etag") or "").startswith("W/")

    wait_for(is_weak, "the file is looked at while it is young")
    age(server.folder / "www/young.txt")
    wait_for(lambda: (server.get("/young.txt").header("etag") or "").startswith('"'), "it is old enough")


def conditional(server: Server, target: str = "/a.txt", method: str = "GET", **fields: str) -> Response:
    return server.get(target, {name.replace("_", "-"): value for name, value in fields.items()}, method)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_304(server: Server, method: str) -> None:
    etag = server.get("/a.txt").header("etag") or ""
    date = formatdate(OLD_S, usegmt=True)
    for fields in (
        {"If_None_Match": etag},
        {"If_None_Match": f"W/{etag}"},
        {"If_None_Match": f'"x", {etag}'},
        {"If_None_Match": "*"},
        {"If_Modified_Since": date},
        {"If_None_Match": etag, "If_Modified_Since": formatdate(0, usegmt=True)},
    ):
        response = conditional(server, method=method, **fields)
        assert response.status == 304, fields
        assert response.body == b""
        assert response.header("etag") == etag
        assert response.header("content-type") is None


def test_not_304(server: Server) -> None:
    date = formatdate(OLD_S, usegmt=True)
    for fields in (
        {"If_None_Match": '"other"'},
        {"If_Modified_Since": formatdate(OLD_S - 1, usegmt=True)},
        {"If_Modified_Since": "yesterday"},
        {"If_None_Match": '"other"', "If_Modified_Since": date},
    ):
        assert conditional(server, **fields).status == 200, fields


def test_412(server: Server) -> None:
    etag = server.get("/a.txt").header("etag") or ""
    assert conditional(server, If_Match='"other"').status == 412
    assert conditional(server, If_Match=f"W/{etag}").status == 412
    assert conditional(server, If_Match=etag).status == 200
    assert conditional(server, If_Match="*").status == 200
    assert conditional(server, If_Unmodified_Since=formatdate(OLD_S - 1, usegmt=True)).status == 412
    assert conditional(server, If_Unmodified_Since=formatdate(OLD_S, usegmt=True)).status == 200
    assert conditional(server, If_Match=etag, If_Unmodified_Since=formatdate(0, usegmt=True)).status == 200
    assert conditional(server, If_Match='"other"', If_None_Match=etag).status == 412


# Ranges


@pytest.mark.parametrize(
    ("range_", "first", "last"),
    [("0-0", 0, 0), ("2-4", 2, 4), ("5-", 5, 9), ("-3", 7, 9), ("-100", 0, 9), ("8-100", 8, 9), ("0-9", 0, 9)],
)
def test_206(server: Server, range_: str, first: int, last: int) -> None:
    response = conditional(server, Range=f"bytes={range_}")
    assert response.status == 206
    assert response.body == b"0123456789"[first : last + 1]
    assert response.header("content-range") == f"bytes {first}-{last}/10"
    assert response.header("content-length") == str(last - first + 1)


@pytest.mark.parametrize("range_", ["bytes=10-", "bytes=100-200", "bytes=-0"])
def test_416(server: Server, range_: str) -> None:
    response = conditional(server, Range=range_)
    assert (response.status, response.header("content-range")) == (416, "bytes */10")


@pytest.mark.parametrize("range_", ["bytes=4-2", "bytes=a-b", "bytes=", "bytes=-", "lines=1-2", "bytes 1-2", "1-2"])
def test_unusable_range_is_ignored(server: Server, range_: str) -> None:
    assert conditional(server, Range=range_).status == 200


def test_range_of_head_is_ignored(server: Server) -> None:
    assert conditional(server, method="HEAD", Range="bytes=0-1").status == 200


def test_if_range(server: Server) -> None:
    etag = server.get("/a.txt").header("etag") or ""
    for value, status in (
        (etag, 206),
        (f"W/{etag}", 200),
        ('"other"', 200),
        (formatdate(OLD_S, usegmt=True), 206),
        (formatdate(OLD_S + 1, usegmt=True), 200),
    ):
        assert conditional(server, Range="bytes=0-1", If_Range=value).status == status, value


def test_ranges_of_large_files(server: Server) -> None:
    for first, last in ((0, 0), (70_000, 2_000_000), (len(LARGE) - 1, len(LARGE) - 1)):
        response = conditional(server, "/large.bin", Range=f"bytes={first}-{last}")
        assert (response.status, response.body) == (206, LARGE[first : last + 1])


def test_beyond_four_gigabytes(server: Server) -> None:
    path = server.folder / "www/huge.bin"
    with path.open("wb") as file:
        file.seek(5 << 30)
        file.write(b"the end")
    age(path)
    response = conditional(server, "/huge.bin", Range="bytes=-7")
    assert (response.status, response.body) == (206, b"the end")
    assert response.header("content-range") == f"bytes {5 << 30}-{(5 << 30) + 6}/{(5 << 30) + 7}"
    assert server.get("/huge.bin", method="HEAD").header("content-length") == str((5 << 30) + 7)


# Change


def test_replaced_file(server: Server) -> None:
    path = server.folder / "www/changing.txt"
    path.write_text("one")
    assert server.get("/changing.txt").text == "one"
    path.with_suffix(".new").write_text("two, longer")
    path.with_suffix(".new").rename(path)
    wait_for(lambda: server.get("/changing.txt").text == "two, longer", "the new file is served")
    path.unlink()
    wait_for(lambda: server.get("/changing.txt").status == 404, "it is gone")
    path.write_text("back")
    wait_for(lambda: server.get("/changing.txt").status == 200, "it is back")


@pytest.mark.parametrize("size", [20_000, 700_000], ids=["held", "sendfile"])
def test_never_two_versions_in_one_answer(server: Server, size: int) -> None:
    """A file that is replaced and truncated all the time: a complete answer is one version, and the core lives.

    What goes out by sendfile is the file's own pages, so a writer in place can reach them until the client has them;
    there only the core's survival is promised.
    """
    path = server.folder / f"www/moving-{size}.bin"
    path.write_bytes(b"a" * size)
    core = server.pids("core_main")
    over = threading.Event()

    def change() -> None:
        for number in range(10**6):
            if over.is_set():
                return
            letter = b"abcdefghij"[number % 10 : number % 10 + 1]
            new = path.with_suffix(f".{number % 2}")
            new.write_bytes(letter * (size - number % 3 * 1000))
            new.rename(path)
            if number % 5 == 0:
                with path.open("r+b") as file:
                    file.truncate(size // 2)
            time.sleep(0.002)

    writer = threading.Thread(target=change)
    writer.start()
    complete = 0
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end or not complete:
            with server.connect() as connection:
                connection.send(f"GET /{path.name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                try:
                    body = connection.response().body
                except Exception as error:
                    assert type(error).__name__ == "IncompleteRead", error
                    continue
                complete += 1
                assert size > HELD_MAX or len(set(body)) == 1, "two versions in one answer"
    finally:
        over.set()
        writer.join()
    assert server.pids("core_main") == core


def test_last_modified_is_never_in_the_future(server: Server) -> None:
    path = server.folder / "www/future.txt"
    path.write_text("x")
    os.utime(path, (time.time() + 10**6,) * 2)
    response = server.get("/future.txt")
    date = parsedate_to_datetime(response.header("date") or "")
    assert parsedate_to_datetime(response.header("last-modified") or "") <= date
