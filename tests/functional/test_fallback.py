"""The page of a single-page application for paths that are no files."""

from __future__ import annotations

import pytest
from harness import Server

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
APP = "<div id=app></div>"
CONFIG = """
sites:
- root: www
  fallback: /index.html
  errors: {404: /404.html}
  rules:
  - {match: {path: /api/*}, handler: {respond: {status: 404, body: no such thing}}}
  - {match: {path: /bare/*}, handler: {file: {root: other}}}
  - {match: {path: /own/*}, handler: {file: {root: other, fallback: /own/start.html}}}
"""


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    return serve_module(
        {
            "www/index.html": APP,
            "www/404.html": "lost",
            "www/real.txt": "real",
            "www/folder/a": "",
            "other/own/start.html": "own",
            "other/bare/x": "",
            "www/.secret": "secret",
        },
        config=CONFIG,
    )


def test_a_path_that_is_no_file_is_the_page(server):
    for path in ("/orders", "/orders/7?tab=2", "/orders/7/", "/folder/", "/real.txt/x", "/%C3%A9t%C3%A9", "/v1.2/x"):
        for _ in range(2):  # found missing, then known to be
            response = server.get(path, {"Accept": BROWSER})
            assert (response.status, response.text) == (200, APP), path
            assert response.header("content-type") == "text/html; charset=utf-8"
            assert response.header("vary") == "Accept"
            assert response.header("location") is None


def test_files_are_themselves(server):
    response = server.get("/real.txt", {"Accept": BROWSER})
    assert (response.text, response.header("vary")) == ("real", None)
    assert server.get("/folder", {"Accept": BROWSER}).status == 301
    assert server.get("/", {"Accept": BROWSER}).text == APP


def test_what_asks_for_no_page_gets_404(server):
    for path, accept in (
        ("/app.js", "*/*"),
        ("/logo.png", "image/avif,image/webp,image/*,*/*;q=0.8"),
        ("/orders/7", "application/json"),
        ("/orders/7", "text/html;q=0, */*"),
    ):
        response = server.get(path, {"Accept": accept})
        assert (response.status, response.text) == (404, "lost"), (path, accept)
        assert response.header("vary") == "Accept"
    assert server.get("/app.js").status == 404


def test_who_takes_anything_gets_the_page(server):
    """Link previews and tools say */* or nothing."""
    assert server.get("/orders/7", {"Accept": "*/*"}).text == APP
    assert server.get("/orders/7").text == APP
    assert server.get("/app.js", {"Accept": BROWSER}).text == APP  # typed into the address bar


def test_only_for_404_of_files(server):
    (server.folder / "www/out").symlink_to("/etc/hostname")
    assert server.get("/out", {"Accept": BROWSER}).status == 403
    assert server.get("/.secret", {"Accept": BROWSER}).status == 404
    assert server.get("/.git/config", {"Accept": BROWSER}).status == 404
    response = server.get("/api/x", {"Accept": BROWSER})
    assert (response.status, response.text) == (404, "no such thing")
    assert server.get("/%00", {"Accept": BROWSER}).status in (400, 404)


def test_methods(server):
    head = server.get("/orders", {"Accept": BROWSER}, "HEAD")
    assert (head.status, head.header("content-length")) == (200, str(len(APP)))
    assert server.post("/orders", b"x", {"Accept": BROWSER}).status == 405


def test_conditions_and_ranges_are_of_the_page(server):
    tag = server.get("/orders", {"Accept": BROWSER}).header("etag")
    assert tag is not None
    assert server.get("/orders/8", {"Accept": BROWSER, "If-None-Match": tag}).status == 304
    response = server.get("/orders", {"Accept": BROWSER, "Range": "bytes=0-3"})
    assert (response.status, response.text) == (206, APP[:4])


def test_of_a_handler(server):
    assert server.get("/own/x", {"Accept": BROWSER}).text == "own"
    # The site's fallback is a path of the site, looked up where the handler looks: there is none.
    response = server.get("/bare/y", {"Accept": BROWSER})
    assert (response.status, response.text) == (404, "lost")


def test_keep_alive_goes_on(server):
    with server.connect() as connection:
        for path, text in (("/a", APP), ("/real.txt", "real"), ("/b", APP)):
            connection.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n")
            assert connection.response().text == text
