"""X-Sendfile and X-Accel-Redirect: files that applications answer with by naming them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Server

APPLICATION = """
import json

def application(environ, start_response):
    wish = json.loads(bytes.fromhex(environ["QUERY_STRING"]))
    start_response(wish.get("status", "200 OK"), [tuple(each) for each in wish["fields"]])
    if wish.get("stream"):
        return (part for part in [b"dropped "] * 3)
    return [b"dropped"]
"""
CGI = """#!/bin/sh
printf 'Content-Type: text/x-cgi\\r\\n%s\\r\\n\\r\\ndropped' "X-Sendfile: $PATH_INFO"
"""
CONFIG = """
pools:
  naming:
    python: "naming:application"
    processes: 1
    sendfile: {roots: files, locations: {/protected: protected, /protected/deep: deep}}
  plain: {python: "naming:application", processes: 1}
cgi: {sendfile: {roots: [files]}}
sites:
  - rules:
      - {match: {path: /plain}, handler: {python: plain}}
      - {match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}
      - {match: {path: /*}, handler: {python: naming}}
"""
LARGE = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server]) -> Server:
    running = serve_module(
        {
            "naming.py": APPLICATION,
            "cgi-bin/name.sh": CGI,
            "files/a.txt": "text of a",
            "files/.hidden": "hidden",
            "files/sub/b.bin": LARGE,
            "protected/c d.html": "<p>c",
            "deep/e.json": "{}",
            "secret.txt": "secret",
            "filesystem/x.txt": "not below files",
        },
        config=CONFIG,
    )
    folder = running.folder
    (folder / "files" / "out").symlink_to(folder / "secret.txt")
    (folder / "files" / "in").symlink_to("a.txt")
    return running


def ask(server: Server, *fields: tuple[str, str], path: str = "/", **how: object) -> str:
    return path + "?" + json.dumps({"fields": fields, **how}).encode().hex()


def file_of(server: Server, name: str) -> tuple[str, str]:
    return ("X-Sendfile", str(server.folder / name))


def test_the_file_with_the_fields_of_the_application(server: Server) -> None:
    answer = server.get(ask(server, file_of(server, "files/a.txt"), ("Content-Disposition", "attachment"), ("A", "1")))
    assert (answer.status, answer.text) == (200, "text of a")
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.header("content-disposition") == "attachment"
    assert answer.header("a") == "1"
    assert answer.header("content-length") == "9"
    assert answer.header("etag") and answer.header("last-modified")
    assert answer.header("x-sendfile") is None


def test_what_the_application_says_wins(server: Server) -> None:
    fields = [("Content-Type", "x/y"), ("ETag", '"mine"'), ("Content-Length", "7")]
    answer = server.get(ask(server, file_of(server, "files/a.txt"), *fields))
    assert answer.all("content-type") == ["x/y"]
    assert answer.all("etag") == ['"mine"']
    assert answer.all("content-length") == ["9"]
    assert answer.text == "text of a"


@pytest.mark.parametrize("stream", [False, True])
def test_large_and_in_ranges(server: Server, stream: bool) -> None:
    target = ask(server, file_of(server, "files/sub/b.bin"), stream=stream)
    assert server.get(target).body == LARGE
    part = server.get(target, {"Range": "bytes=1000-1999"})
    assert (part.status, part.body) == (206, LARGE[1000:2000])
    assert part.header("content-range") == f"bytes 1000-1999/{len(LARGE)}"
    assert server.get(target, {"Range": "bytes=99999999-"}).status == 416


def test_conditions_and_head(server: Server) -> None:
    target = ask(server, file_of(server, "files/sub/b.bin"))
    known = server.get(target)
    again = server.get(target, {"If-Modified-Since": known.header("last-modified") or ""})
    assert (again.status, again.body) == (304, b"")
    head = server.get(target, method="HEAD")
    assert head.header("content-length") == str(len(LARGE))
    posted = server.post(target, b"x", {"Range": "bytes=0-1"})
    assert (posted.status, posted.body) == (200, LARGE)


def test_another_status_is_kept(server: Server) -> None:
    target = ask(server, file_of(server, "files/a.txt"), status="402 Pay First")
    answer = server.get(target, {"Range": "bytes=0-1"})
    assert (answer.status, answer.reason, answer.text) == (402, "Payment Required", "text of a")


def test_locations(server: Server) -> None:
    for value, body in [
        ("/protected/c%20d.html", "<p>c"),
        ("/protected/c d.html?query", "<p>c"),
        ("/protected/deep/e.json", "{}"),
    ]:
        assert server.get(ask(server, ("X-Accel-Redirect", value))).text == body


@pytest.mark.parametrize("name", ["files/none.txt", "files/sub", "files/a.txt/x", "files/"])
def test_missing(server: Server, name: str) -> None:
    value = str(server.folder) + "/" + name
    assert server.get(ask(server, ("X-Sendfile", value))).status == 404
    assert server.get(ask(server, ("X-Sendfile", value), status="201 Made")).status == 404


@pytest.mark.parametrize(
    "name", ["secret.txt", "files/../secret.txt", "files/sub/../../secret.txt", "files/out", "filesystem/x.txt", ""]
)
def test_outside(server: Server, name: str) -> None:
    answer = server.get(ask(server, ("X-Sendfile", f"{server.folder}/{name}")))
    assert answer.status in (403, 404)
    assert "secret" not in answer.text.replace("secret.txt", "")


def test_the_log_says_which_key(server: Server) -> None:
    assert server.get(ask(server, ("X-Sendfile", "/etc/passwd"))).status == 403
    server.wait_for_log(r"X-Sendfile: /etc/passwd: .*roots in pools\.naming\.sendfile")
    assert server.get(ask(server, ("X-Accel-Redirect", "/elsewhere/x"))).status == 403
    server.wait_for_log(r"X-Accel-Redirect: /elsewhere/x: .*locations in pools\.naming\.sendfile")


@pytest.mark.parametrize("value", ["/protected/../secret.txt", "/protected/%2e%2e/secret.txt", "/protected/%00", "/%"])
def test_bad_locations(server: Server, value: str) -> None:
    assert server.get(ask(server, ("X-Accel-Redirect", value))).status in (403, 404)


def test_links_inside_and_hidden_names(server: Server) -> None:
    assert server.get(ask(server, file_of(server, "files/in"))).text == "text of a"
    assert server.get(ask(server, file_of(server, "files/.hidden"))).text == "hidden"


def test_without_the_key_the_fields_go_to_the_client(server: Server) -> None:
    answer = server.get(ask(server, ("X-Sendfile", "/etc/passwd"), ("X-Accel-Redirect", "/a"), path="/plain"))
    assert answer.text == "dropped"
    assert answer.header("x-sendfile") == "/etc/passwd"
    assert answer.header("x-accel-redirect") == "/a"


def test_programs(server: Server) -> None:
    answer = server.get(f"/cgi-bin/name.sh{server.folder}/files/a.txt")
    assert (answer.status, answer.text) == (200, "text of a")
    assert answer.header("content-type") == "text/x-cgi"
    assert server.get(f"/cgi-bin/name.sh{server.folder}/secret.txt").status == 403
    server.wait_for_log(r"roots in cgi\.sendfile")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    from appserver.config.load import read_text

    text = "pools: {p: {python: a:b, sendfile: {roots: [none], locations: {'/x': gone, y: .}}}}\n"
    reading = read_text(text, "c.yaml", tmp_path)
    problems = "\n".join(map(str, reading.problems))
    assert "pools.p.sendfile.locations" in problems
