"""The demo of `make run`: everything that its page links to or asks for is there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from harness import TOP, Server, serving


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    with serving(TOP, "--config", str(TOP / "deploy/demo.yaml"), "--listen", "127.0.0.1:0") as server:
        yield server


def test_what_the_page_asks_for_works(demo: Server) -> None:
    page = demo.get("/").text
    asked = re.findall(r'data-path="([^"]+)"', page)
    linked = re.findall(r'(?:href|src)="([^"]+)"', page)
    kinds = {"/static.txt", "/hello/", "/notes/", "/environment/", "/cgi-bin/environment.sh", "/cgi-bin/form.py"}
    assert {target.partition("?")[0] for target in asked} == kinds
    assert set(asked) <= set(linked)
    for target in linked:
        assert "//" not in target, "the page works without the network"
        assert demo.get("/" + target.removeprefix("/")).status == 200, target


def test_a_browser_that_asks_for_an_icon_gets_one(demo: Server) -> None:
    response = demo.get("/favicon.ico")
    assert response.status == 200
    assert response.body.startswith(b"\0\0\1\0")


@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("POST", b"color=cherry+red&empty=")])
def test_the_form_program_reads_both_ways(demo: Server, method: str, body: bytes) -> None:
    query = "?color=cherry+red&empty=" if method == "GET" else ""
    answer = demo.get(f"/cgi-bin/form.py{query}", method=method, body=body or None)
    assert answer.text.splitlines()[1:] == ["'color' = 'cherry red'", "'empty' = ''"]
