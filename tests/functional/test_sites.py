"""Which site, which rule, which answer: what `sites` of the configuration says, seen by a client."""

from __future__ import annotations

import pytest
from harness import Server

CONFIG = """
log: {level: info, format: json}
health: {live: /alive, ready: /up}
sites:
  - name: exact
    hosts: [example.org, www.example.org]
    root: exact
    errors: {404: /missing.html, 403: /closed.html, 405: /nowhere.html, 500: /missing.html}
    rules:
      - {match: {path: /one}, handler: {respond: {body: one}}}
      - {match: {path: /tree/*}, handler: {respond: {body: tree}}}
      - {match: {path: /tree/late}, handler: {respond: {body: never}}}
      - {match: {extension: [php, Bak]}, handler: {respond: {status: 403}}}
      - {match: {path: /form/*, method: [POST, PUT]}, handler: {respond: {status: 201, body: taken}}}
      - {match: {path: /form/*, method: GET}, handler: {respond: {body: asked}}}
      - {match: {path: /both/*, extension: txt}, handler: {respond: {body: both}}}
      - {match: {path: /files/*}, handler: {file: other}}
      - {match: {path: /icons/*}, handler: {file: {alias: other/files, index: f.txt}}}
      - {match: {path: /empty}, handler: {respond: {status: 204}}}
      - {match: {path: /gone}, handler: {respond: {status: 410, body: "gone for good"}}}
      - {match: {path: /teapot}, handler: {respond: {status: 500}}}
      - {match: {path: /own404}, handler: {python: own404.py}}
      - {match: {path: /m301}, handler: {redirect: {to: /new, status: 301}}}
      - {match: {path: /m302}, handler: {redirect: {to: /new}}}
      - {match: {path: /m303}, handler: {redirect: {to: /new, status: 303}}}
      - {match: {path: /m307}, handler: {redirect: {to: "https://example.net/a?b=c", status: 307}}}
      - {match: {path: /m308}, handler: {redirect: {to: /new, status: 308}}}
  - {name: wild, hosts: ["*.example.org"], rules: [{handler: {respond: {body: wild}}}]}
  - {name: deeper, hosts: ["*.b.example.org"], rules: [{handler: {respond: {body: deeper}}}]}
  - {name: address, hosts: ["[::1]", 127.0.0.9], rules: [{handler: {respond: {body: address}}}]}
  - {name: rest, rules: [{match: {path: /said}, handler: {respond: {body: rest}}}]}
"""
FILES: dict[str, str | bytes] = {
    "exact/index.html": "exact",
    "exact/a.php": "<?php secret",
    "exact/tree.txt": "not below",
    "exact/both/a.txt": "file",
    "exact/both/a.html": "html",
    "exact/missing.html": "<h1>nothing of that name",
    "exact/closed.html": "<h1>closed",
    "exact/plain.txt": "plain",
    "other/files/f.txt": "other",
    "own404.py": "def handle(request):\n    return 'mine', 404\n",
}


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    started: Server = serve_module(FILES, config=CONFIG)
    return started


def at(server: Server, target: str, host: str = "example.org", method: str = "GET", **fields: str):
    return server.get(target, {"Host": host, **fields}, method)


# Sites


@pytest.mark.parametrize(
    ("host", "body"),
    [
        ("example.org", "exact"),
        ("www.example.org", "exact"),
        ("EXAMPLE.Org", "exact"),
        ("example.org:8080", "exact"),
        ("example.org.", "exact"),
        ("a.example.org", "wild"),
        ("a.c.example.org", "wild"),
        ("b.example.org", "wild"),
        ("a.b.example.org", "deeper"),
        ("A.B.EXAMPLE.ORG:99", "deeper"),
        ("[::1]:8080", "address"),
        ("127.0.0.9", "address"),
    ],
)
def test_site_by_host(server: Server, host: str, body: str) -> None:
    assert at(server, "/", host).text == body


@pytest.mark.parametrize("host", ["elsewhere", "example.org.evil", "xexample.org", "org", "127.0.0.1", "[::2]"])
def test_the_site_without_hosts_takes_the_rest(server: Server, host: str) -> None:
    assert at(server, "/said", host).text == "rest"
    assert at(server, "/", host).status == 404


def test_1_0_without_a_host(server: Server) -> None:
    assert server.exchange("GET /said HTTP/1.0\r\n\r\n").text == "rest"


def test_the_host_of_an_absolute_target_wins(server: Server) -> None:
    """RFC 9112 section 3.2.2."""
    request = "GET http://a.example.org/ HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n"
    assert server.exchange(request).text == "wild"


def test_each_request_of_a_connection_has_its_own_site(server: Server) -> None:
    with server.connect() as connection:
        for host, body in (("example.org", b"exact"), ("a.example.org", b"wild"), ("example.org", b"exact")):
            assert connection.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").response().body == body


def test_without_a_site_for_the_rest_the_first_one_takes_it(serve) -> None:
    """So that a server with one site answers whoever asks it by address, as health checks do."""
    config = (
        "sites:\n  - {name: a, hosts: [a.example], root: www}\n"
        "  - {name: b, hosts: [b.example], rules: [{handler: {respond: {body: second}}}]}\n"
    )
    server = serve({"www/index.html": "first"}, config=config)
    for host, body in (("a.example", "first"), ("b.example", "second"), ("other", "first"), ("127.0.0.1", "first")):
        assert server.get("/", {"Host": host}).text == body


# Rules


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/one", "one"),
        ("/%6fne", "one"),
        ("/x/../one?q", "one"),
        ("/tree", "tree"),
        ("/tree/", "tree"),
        ("/tree/late", "tree"),
        ("/tree/a/b", "tree"),
        ("/tree.txt", "not below"),
        ("/both/a.txt", "both"),
        ("/both/a.html", "html"),
        ("/files/f.txt", "other"),
        ("/icons/f.txt", "other"),
        ("/icons/", "other"),
        ("/", "exact"),
    ],
)
def test_rules(server: Server, target: str, body: str) -> None:
    response = at(server, target)
    assert (response.status, response.text) == (200, body)


@pytest.mark.parametrize("target", ["/one/", "/onet", "/ONE", "/treetop", "/file", "/files/"])
def test_what_only_looks_like_a_rule(server: Server, target: str) -> None:
    assert at(server, target).status in (403, 404)


@pytest.mark.parametrize("target", ["/a.php", "/a.PHP", "/nothing.bak", "/a%2ephp", "/deep/a.php", "/.php"])
def test_extensions_are_refused(server: Server, target: str) -> None:
    response = at(server, target)
    assert response.status in (403, 404)
    assert b"secret" not in response.body


def test_rules_by_method(server: Server) -> None:
    assert at(server, "/form/x").text == "asked"
    assert (at(server, "/form/x", method="POST").status, at(server, "/form/x", method="PUT").status) == (201, 201)
    assert at(server, "/form/x", method="DELETE").status == 405


# Answers


@pytest.mark.parametrize(
    ("status", "location"),
    [(301, "/new"), (302, "/new"), (303, "/new"), (307, "https://example.net/a?b=c"), (308, "/new")],
)
def test_redirects(server: Server, status: int, location: str) -> None:
    with server.connect() as connection:
        for _ in range(2):
            head = f"POST /m{status} HTTP/1.1\r\nHost: example.org\r\nContent-Length: 4\r\n\r\nbody"
            response = connection.send(head).response("POST")
            assert (response.status, response.all("location")) == (status, [location])


def test_respond(server: Server) -> None:
    response = at(server, "/gone")
    assert (response.status, response.text) == (410, "gone for good")
    assert response.header("content-type") == "text/plain; charset=utf-8"
    empty = at(server, "/empty")
    assert (empty.status, empty.body, empty.header("content-length")) == (204, b"", None)
    head = at(server, "/gone", method="HEAD")
    assert (head.status, head.header("content-length")) == (410, "13")


# Error pages


def test_error_pages(server: Server) -> None:
    for target, status, body in (
        ("/nothing", 404, "<h1>nothing of that name"),
        ("/a.php", 403, "<h1>closed"),
        ("/teapot", 500, "<h1>nothing of that name"),
    ):
        response = at(server, target)
        assert (response.status, response.text) == (status, body)
        assert response.header("content-type") == "text/html; charset=utf-8"
        assert response.header("etag") is None
        assert at(server, target, method="HEAD").header("content-length") == str(len(body))


def test_conditions_and_ranges_are_not_about_the_error_page(server: Server) -> None:
    tag = at(server, "/missing.html").header("etag") or ""
    for fields in ({"If-None-Match": tag}, {"If-None-Match": "*"}, {"Range": "bytes=0-1"}, {"If-Match": '"x"'}):
        response = at(server, "/nothing", **fields)
        assert (response.status, response.text) == (404, "<h1>nothing of that name")


def test_an_error_page_that_is_not_there(server: Server) -> None:
    """The client gets the server's own page with the true status, and the log says what is wrong."""
    response = at(server, "/plain.txt", method="POST")
    assert (response.status, response.header("allow")) == (405, "GET, HEAD, OPTIONS")
    assert "405 Method Not Allowed" in response.text
    server.wait_for_log(r"the error page /nowhere\.html for status 405 cannot be served")


def test_an_error_page_is_a_page_too(server: Server) -> None:
    assert at(server, "/missing.html").status == 200


def test_a_handlers_own_error_stays_its_own(server: Server) -> None:
    response = at(server, "/own404")
    assert (response.status, response.text) == (404, "mine")


def test_error_pages_are_of_their_site(server: Server) -> None:
    assert "404 Not Found" in at(server, "/nothing", "elsewhere").text


# Health


@pytest.mark.parametrize("host", ["example.org", "a.example.org", "elsewhere"])
def test_health_paths_are_before_every_rule(server: Server, host: str) -> None:
    assert at(server, "/alive", host).text == "ok\n"
    assert at(server, "/up", host).status == 200
    assert at(server, "/livez", host).text != "ok\n"


def test_health_off(serve) -> None:
    server = serve({"www/livez": "a file"}, config='health: "off"\n')
    assert server.get("/livez").text == "a file"
    assert server.get("/readyz").status == 404
