"""RFC 3875 sections 5 and 6: what programs answer. Each test names its section."""

from __future__ import annotations

import contextlib
import http.client
import re

import pytest
from harness import Server, wait_for
from programs import HEAD, printing, programs, variables

SH = "#!/bin/sh\n"


def raw(text: str, *then: str) -> str:
    """A program that prints this, as printf has it."""
    return SH + f"printf '%b' '{text}'\n" + "\n".join(then)


HOOK = """
def handle(request):
    environ = request.environ
    names = ("REQUEST_METHOD", "QUERY_STRING", "REDIRECT_STATUS", "REDIRECT_URL", "REDIRECT_REQUEST_METHOD")
    return " ".join(str(environ.get(name)) for name in names)
"""

CONFIG = """
log: {access: json}
sites:
  - root: www
    rules:
      - {match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}
      - {match: {path: /hook/*}, handler: {python: hook.py}}
      - {match: {path: /only-post, method: [POST]}, handler: {respond: {body: posted}}}
    errors: {404: /404.html}
cgi: {sendfile: {roots: files}, limits: {idle_time: 20s}}
"""

NAMES = "REDIRECT_|REQUEST_|QUERY_|SCRIPT_|PATH_INFO|CONTENT_|HTTP_"
SHOW = HEAD + f"env | grep -E '^({NAMES})'\n"

FILES: dict[str, str | bytes] = {
    "hook.py": HOOK,
    "files/secret.txt": "0123456789",
    "www/404.html": "not here",
    "www/landed.txt": "landed",
    "www/with space.txt": "space",
    "www/sub/index.html": "sub",
    "cgi-bin/show.sh": SHOW,
    # 6.2.1
    "cgi-bin/document.sh": printing("Content-Type: text/x; charset=utf-8\n\nbody"),
    "cgi-bin/no-type.sh": printing("X-A: b\n\nbody"),
    "cgi-bin/empty.sh": raw("Content-Type: text/plain\\n\\n"),
    # 6.2.2
    "cgi-bin/local.sh": printing("Location: /landed.txt\n"),
    "cgi-bin/local-query.sh": raw("Location: /cgi-bin/show.sh/extra?x=1&y=%20\\n\\n"),
    "cgi-bin/local-body.sh": printing("Location: /landed.txt\nX-Lost: 1\nSet-Cookie: a=1\nSet-Cookie: b=2\n\ndropped"),
    "cgi-bin/local-hook.sh": printing("Location: /hook/?from=cgi\n"),
    "cgi-bin/local-missing.sh": printing("Location: /nothing\n"),
    "cgi-bin/local-post.sh": printing("Location: /only-post\n"),
    "cgi-bin/local-folder.sh": printing("Location: /sub/\n"),
    "cgi-bin/local-chain.sh": printing("Location: /cgi-bin/local-query.sh\n"),
    "cgi-bin/local-loop.sh": printing("Location: /cgi-bin/local-loop.sh\n"),
    "cgi-bin/local-bad.sh": printing("Location: /%zz\n"),
    "cgi-bin/local-up.sh": printing("Location: /../../etc/passwd\n"),
    "cgi-bin/local-host.sh": printing("Location: //evil.example/landed.txt\n"),
    "cgi-bin/local-space.sh": printing("Location: /with%20space.txt\n"),
    "cgi-bin/local-slow.sh": raw("Location: /landed.txt\\n\\n", "exec >&-", "until [ -e ../go ]; do sleep 0.02; done"),
    "cgi-bin/local-work.sh": raw("Location: /cgi-bin/after.sh\\n\\n", "sleep 0.3", "echo done >../work"),
    "cgi-bin/after.sh": HEAD + "cat ../work\n",
    "cgi-bin/local-flood.sh": raw("Location: /landed.txt\\n\\n", "head -c 3000000 /dev/zero"),
    "cgi-bin/local-drains.sh": SH + "cat >/dev/null\nprintf 'Location: /cgi-bin/show.sh\\n\\n'\n",
    # 6.2.3 and 6.2.4
    "cgi-bin/client.sh": printing("Location: http://example.org/there#part\n"),
    "cgi-bin/fragment.sh": printing("Location: /landed.txt#part\n"),
    "cgi-bin/relative.sh": printing("Location: landed.txt\n"),
    "cgi-bin/client-302.sh": printing("Status: 302 Found\nLocation: /landed.txt\n"),
    "cgi-bin/client-document.sh": printing(
        "Status: 303 See Other\nLocation: http://example.org/\nContent-Type: text/plain\n\nlook there"
    ),
    "cgi-bin/client-body.sh": printing("Location: http://example.org/\nContent-Type: text/plain\n\nlook there"),
    # 6.3
    "cgi-bin/status.sh": printing("Status: 418 I am a teapot\nContent-Type: text/plain\n\nshort"),
    "cgi-bin/status-bare.sh": printing("Status: 201\nContent-Type: text/plain\n\nmade"),
    "cgi-bin/204.sh": printing("Status: 204 No Content\n\nnot for a 204"),
    "cgi-bin/304.sh": printing('Status: 304 Not Modified\nETag: "a"\n\nnot for a 304'),
    "cgi-bin/tagged.sh": printing('Content-Type: text/plain\nETag: "a"\n\ntagged'),
    "cgi-bin/dated.sh": printing("Content-Type: text/plain\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\n\ndated"),
    "cgi-bin/tagged-200.sh": printing('Status: 200 OK\nContent-Type: text/plain\nETag: "a"\n\ntagged'),
    "cgi-bin/interim.sh": printing("Status: 100 Continue\n\n"),
    "cgi-bin/bad-status.sh": printing("Status: OK\nContent-Type: text/plain\n\nx"),
    "cgi-bin/own.sh": printing(
        "Content-Type: text/plain\nX-CGI-Thing: 1\nx-lower: 2\nSet-Cookie: a=1\nSet-Cookie: b=2; Path=/\n\nx"
    ),
    "cgi-bin/framing.sh": printing(
        "Connection: close\nTransfer-Encoding: chunked\nKeep-Alive: x\nUpgrade: h2c\nTrailer: x\n"
        "Content-Type: text/plain\n\nplain"
    ),
    "cgi-bin/split.sh": raw("Content-Type: text/plain\\nX-A: b\\rSet-Cookie: evil=1\\n\\nx"),
    "cgi-bin/lf.sh": raw("Content-Type: text/plain\\nX-A: b\\n\\nbody"),
    "cgi-bin/crlf.sh": raw("Content-Type: text/plain\\r\\nX-A: b\\r\\n\\r\\nbody"),
    "cgi-bin/mixed.sh": raw("Content-Type: text/plain\\nX-A: b\\r\\n\\nbody"),
    "cgi-bin/file.sh": SH
    + 'printf "Content-Type: text/x\\nX-Sendfile: $(dirname "$PWD")/files/secret.txt\\n\\ndropped"\n',
    # 6.4
    "cgi-bin/length.sh": raw("Content-Type: text/plain\\nContent-Length: 5\\n\\n12345 and more"),
    "cgi-bin/short.sh": raw("Content-Type: text/plain\\nContent-Length: 50\\n\\n12345"),
    "cgi-bin/wait.sh": raw(
        "Content-Type: text/plain\\n\\nfirst\\n", "until [ -e ../on ]; do sleep 0.02; done", "echo second"
    ),
    # 5
    "cgi-bin/nph-whole.sh": raw("HTTP/1.0 299 As I like it\\r\\nContent-Type: text/x\\r\\nX-A: b\\r\\n\\r\\nwhole"),
    "cgi-bin/nph-lf.sh": raw("HTTP/1.1 200 OK\\nContent-Type: text/plain\\n\\nbody\\n"),
    "cgi-bin/nph-bare.sh": raw("HTTP/1.1 200\\n\\nnothing else"),
    "cgi-bin/nph-length.sh": raw("HTTP/1.1 200 OK\\nContent-Length: 4\\n\\nfour and more"),
    "cgi-bin/nph-chunked.sh": raw(
        "HTTP/1.1 200 OK\\nTransfer-Encoding: chunked\\nContent-Length: 3\\n\\n4\\r\\nabcd\\r\\n",
        "sleep 0.1",
        "printf '3\\r\\nefg\\r\\n0\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\n\\r\\n'",
    ),
    "cgi-bin/nph-interim.sh": raw(
        "HTTP/1.1 100 Continue\\r\\n\\r\\nHTTP/1.1 103 Early\\r\\nLink: x\\r\\n\\r\\n"
        "HTTP/1.1 200 OK\\r\\nX-A: b\\r\\n\\r\\nlast"
    ),
    "cgi-bin/nph-location.sh": raw("HTTP/1.1 302 Found\\r\\nLocation: /landed.txt\\r\\n\\r\\n"),
    "cgi-bin/nph-status.sh": raw("HTTP/1.1 200 OK\\r\\nStatus: 404 Not Found\\r\\nX-A: b\\r\\n\\r\\nfound"),
    "cgi-bin/nph-framing.sh": raw("HTTP/1.1 200 OK\\r\\nConnection: upgrade\\r\\nUpgrade: x\\r\\n\\r\\nplain"),
    "cgi-bin/nph-none.sh": raw("Content-Type: text/plain\\n\\nno status line"),
    "cgi-bin/nph-101.sh": raw("HTTP/1.1 101 Switching\\r\\nUpgrade: x\\r\\n\\r\\nraw"),
    "cgi-bin/nph-gzip.sh": raw("HTTP/1.1 200 OK\\r\\nTransfer-Encoding: gzip, chunked\\r\\n\\r\\nraw"),
    "cgi-bin/nph-split.sh": raw("HTTP/1.1 200 O\\rK\\r\\n\\r\\nx"),
    "cgi-bin/nph-wait.sh": raw(
        "HTTP/1.1 200 OK\\n\\nfirst\\n", "until [ -e ../nph ]; do sleep 0.02; done", "echo second"
    ),
    "cgi-bin/dir/nph-deep.sh": raw("HTTP/1.1 203 Deep\\n\\ndeep"),
    "cgi-bin/not-nph-.sh": raw("Content-Type: text/plain\\n\\nan ordinary one"),
    # 6.1
    "cgi-bin/nothing.sh": SH,
    "cgi-bin/no-head.sh": raw("just text\\n"),
}


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    started: Server = serve_module(FILES, config=CONFIG)
    return started


def keep_alive(target: str, method: str = "GET", minor: int = 1) -> str:
    return f"{method} {target} HTTP/1.{minor}\r\nHost: localhost\r\n\r\n"


# 5 NPH Scripts


def test_5_whole_response(server: Server) -> None:
    response = server.get("/cgi-bin/nph-whole.sh")
    assert (response.status, response.reason, response.text) == (299, "As I like it", "whole")
    assert (response.header("content-type"), response.header("x-a")) == ("text/x", "b")
    assert response.header("date") is not None, "added when the program has none"
    deep = server.get("/cgi-bin/dir/nph-deep.sh/extra")
    assert (deep.status, deep.reason, deep.text) == (203, "Deep", "deep")
    assert server.get("/cgi-bin/not-nph-.sh").text == "an ordinary one"


def test_5_line_ends_and_no_fields(server: Server) -> None:
    assert server.get("/cgi-bin/nph-lf.sh").text == "body\n"
    assert server.get("/cgi-bin/nph-bare.sh").text == "nothing else"


def test_5_connection_goes_on(server: Server) -> None:
    """The framing is the server's, so that the next response is where the client looks for it."""
    with server.connect() as connection:
        for name, text in (("nph-length.sh", "four"), ("nph-lf.sh", "body\n"), ("nph-framing.sh", "plain")):
            response = connection.send(keep_alive(f"/cgi-bin/{name}")).response()
            assert response.text == text
            assert response.header("connection") is None
            assert response.header("upgrade") is None
        assert connection.send(keep_alive("/landed.txt")).response().text == "landed"


def test_5_chunks_of_its_own(server: Server) -> None:
    """They reach the client as they are, and nothing is believed behind them."""
    with server.connect() as connection:
        response = connection.send(keep_alive("/cgi-bin/nph-chunked.sh")).response()
        assert (response.text, response.header("connection")) == ("abcdefg", "close")
        assert response.header("content-length") is None
        with contextlib.suppress(ConnectionResetError):
            while connection.file.read(1000):
                pass
    head = server.get("/cgi-bin/nph-chunked.sh", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    with server.connect() as connection:
        assert connection.send(keep_alive("/cgi-bin/nph-chunked.sh", minor=0)).response().status == 502


def test_5_interim_responses_are_the_servers(server: Server) -> None:
    with server.connect() as connection:
        response = connection.send(keep_alive("/cgi-bin/nph-interim.sh")).interim()
        assert (response.status, response.header("x-a"), response.header("link")) == (200, "b", None)


def test_5_fields_with_a_meaning_to_cgi_have_none(server: Server) -> None:
    response = server.get("/cgi-bin/nph-location.sh")
    assert (response.status, response.header("location"), response.body) == (302, "/landed.txt", b"")
    response = server.get("/cgi-bin/nph-status.sh")
    assert (response.status, response.header("status"), response.text) == (200, None, "found")


@pytest.mark.parametrize("name", ["none", "101", "gzip", "split"])
def test_5_what_is_no_response(server: Server, name: str) -> None:
    assert server.get(f"/cgi-bin/nph-{name}.sh").status == 502
    server.wait_for_log(f"502 for /cgi-bin/nph-{name}.sh: the program's header section is malformed")


def test_5_streamed(server: Server) -> None:
    with server.connect() as connection:
        connection.send(keep_alive("/cgi-bin/nph-wait.sh"))
        assert b"second" not in connection.read_until(b"first\n")
        (server.folder / "nph").touch()
        assert b"second\n" in connection.read_until(b"0\r\n\r\n")


# 6.1 Response Handling


def test_6_1_without_a_header_section(server: Server) -> None:
    for name, reason in (("nothing", "no header section"), ("no-head", "no header section")):
        assert server.get(f"/cgi-bin/{name}.sh").status == 502
        server.wait_for_log(f"502 for /cgi-bin/{name}.sh: the program ended its output with {reason}")


# 6.2.1 Document Response


def test_6_2_1_document(server: Server) -> None:
    response = server.get("/cgi-bin/document.sh")
    assert (response.status, response.reason, response.text) == (200, "OK", "body\n")
    assert response.header("content-type") == "text/x; charset=utf-8"
    assert server.get("/cgi-bin/no-type.sh").text == "body\n"
    assert server.get("/cgi-bin/empty.sh").body == b""


# 6.2.2 Local Redirect Response


def test_6_2_2_to_a_file(server: Server) -> None:
    with server.connect() as connection:
        response = connection.send(keep_alive("/cgi-bin/local.sh")).response()
        assert (response.status, response.text, response.header("location")) == (200, "landed", None)
        assert response.header("etag") is not None
        head = connection.send(keep_alive("/cgi-bin/local.sh", "HEAD")).response("HEAD")
        assert (head.status, head.header("content-length")) == (200, "6")
        assert connection.send(keep_alive("/cgi-bin/local-space.sh")).response().text == "space"
        assert connection.send(keep_alive("/cgi-bin/local-folder.sh")).response().text == "sub"


def test_6_2_2_conditions_and_ranges_are_those_of_the_file(server: Server) -> None:
    etag = server.get("/landed.txt").header("etag") or ""
    assert server.get("/cgi-bin/local.sh", {"If-None-Match": etag}).status == 304
    part = server.get("/cgi-bin/local.sh", {"Range": "bytes=1-2"})
    assert (part.status, part.text) == (206, "an")


def test_6_2_2_to_a_program(server: Server) -> None:
    """As if the client had asked for it by GET; what it was before is in REDIRECT_*."""
    found = variables(
        server.post("/cgi-bin/local-query.sh/info?first", b"field=1", {"Content-Type": "text/x", "X-Client": "c"}).text
    )
    assert (found["REQUEST_METHOD"], found["SCRIPT_NAME"]) == ("GET", "/cgi-bin/show.sh")
    assert (found["PATH_INFO"], found["QUERY_STRING"]) == ("/extra", "x=1&y=%20")
    assert found["REQUEST_URI"] == "/cgi-bin/local-query.sh/info?first", "what the client wrote"
    assert found["HTTP_X_CLIENT"] == "c"
    assert not {"CONTENT_LENGTH", "CONTENT_TYPE"} & set(found), "the body was for the first one"
    assert {name: value for name, value in found.items() if name.startswith("REDIRECT_")} == {
        "REDIRECT_STATUS": "200",
        "REDIRECT_URL": "/cgi-bin/local-query.sh/info",
        "REDIRECT_QUERY_STRING": "first",
        "REDIRECT_REQUEST_METHOD": "POST",
        "REDIRECT_SCRIPT_NAME": "/cgi-bin/local-query.sh",
        "REDIRECT_PATH_INFO": "/info",
        "REDIRECT_CONTENT_TYPE": "text/x",
        "REDIRECT_CONTENT_LENGTH": "7",
    }


def test_6_2_2_to_a_python_handler(server: Server) -> None:
    assert server.post("/cgi-bin/local-hook.sh", b"x").text == "GET from=cgi 200 /cgi-bin/local-hook.sh POST"


def test_6_2_2_rules_see_a_get(server: Server) -> None:
    response = server.post("/cgi-bin/local-post.sh", b"x")
    assert (response.status, response.text) == (404, "not here")


def test_6_2_2_chain(server: Server) -> None:
    found = variables(server.post("/cgi-bin/local-chain.sh?one", b"x").text)
    assert (found["SCRIPT_NAME"], found["REQUEST_URI"]) == ("/cgi-bin/show.sh", "/cgi-bin/local-chain.sh?one")
    assert (found["REDIRECT_URL"], found["REDIRECT_REQUEST_METHOD"]) == ("/cgi-bin/local-query.sh", "GET")


def test_6_2_2_circle(server: Server) -> None:
    assert server.get("/cgi-bin/local-loop.sh").status == 508
    server.wait_for_log("508 for /cgi-bin/local-loop.sh: local redirects from program to program do not come to an end")


def test_6_2_2_target_that_is_not_there(server: Server) -> None:
    response = server.get("/cgi-bin/local-missing.sh")
    assert (response.status, response.text) == (404, "not here")


@pytest.mark.parametrize("name", ["bad", "up"])
def test_6_2_2_target_that_is_no_path(server: Server, name: str) -> None:
    assert server.get(f"/cgi-bin/local-{name}.sh").status == 502
    server.wait_for_log(f"502 for /cgi-bin/local-{name}.sh: its program's local redirect names no valid path")


def test_6_2_2_a_path_never_names_a_host(server: Server) -> None:
    assert server.get("/cgi-bin/local-host.sh").status == 404, "/evil.example/landed.txt of this site"


def test_6_2_2_cookies_are_kept_and_the_rest_is_dropped(server: Server) -> None:
    response = server.get("/cgi-bin/local-body.sh")
    assert (response.text, response.header("x-lost")) == ("landed", None)
    assert response.all("set-cookie") == ["a=1", "b=2"]


def test_6_2_2_output_is_waited_for(server: Server) -> None:
    """What the program does while its output is open has been done when the target is asked; what it does later not."""
    (server.folder / "work").unlink(missing_ok=True)
    assert server.get("/cgi-bin/local-work.sh").text == "done\n"
    assert server.get("/cgi-bin/local-flood.sh").text == "landed"
    assert server.get("/cgi-bin/local-slow.sh").text == "landed"
    (server.folder / "go").touch()


def test_6_2_2_large_body(server: Server) -> None:
    """It is there for the first program, and gone with it."""
    with server.connect() as connection:
        body = b"x" * 3_000_000
        connection.send(f"POST /cgi-bin/local-drains.sh HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n")
        found = variables(connection.send(body).response().text)
        assert found["REDIRECT_CONTENT_LENGTH"] == str(len(body))
        assert connection.send(keep_alive("/landed.txt")).response().text == "landed"


def test_6_2_2_client_leaves(server: Server) -> None:
    (server.folder / "go").touch()
    wait_for(lambda: not programs(server), "no program runs yet")
    for _ in range(5):
        with server.connect() as connection:
            connection.send(keep_alive("/cgi-bin/local-work.sh"))
            wait_for(lambda: programs(server), "the program runs")
        wait_for(lambda: not programs(server), "it has been ended")
    assert server.get("/cgi-bin/local.sh").text == "landed"


def test_6_2_2_in_the_access_log(server: Server) -> None:
    """One line for each request of a client, as the client made it."""
    server.post("/cgi-bin/local.sh?logged", b"x")
    line = server.wait_for_log(r"local\.sh\?logged")
    assert re.search(r'"method":"POST","target":"/cgi-bin/local\.sh\?logged".*"status":200', line), line


# 6.2.3 Client Redirect Response, 6.2.4 with Document


def test_6_2_3_client_redirect(server: Server) -> None:
    response = server.get("/cgi-bin/client.sh")
    assert (response.status, response.header("location")) == (302, "http://example.org/there#part")
    assert response.body == b""
    response = server.get("/cgi-bin/client-302.sh")
    assert (response.status, response.header("location")) == (302, "/landed.txt"), "with a Status it is the client's"


def test_6_2_3_what_only_a_client_can_follow(server: Server) -> None:
    for name, location in (("fragment", "/landed.txt#part"), ("relative", "landed.txt")):
        response = server.get(f"/cgi-bin/{name}.sh")
        assert (response.status, response.header("location")) == (302, location)


def test_6_2_4_client_redirect_with_document(server: Server) -> None:
    response = server.get("/cgi-bin/client-document.sh")
    assert (response.status, response.reason, response.text) == (303, "See Other", "look there\n")
    response = server.get("/cgi-bin/client-body.sh")
    assert (response.status, response.text) == (302, "look there\n")


# 6.3 Response Header Fields


def test_6_3_line_ends(server: Server) -> None:
    for name in ("lf", "crlf", "mixed"):
        response = server.get(f"/cgi-bin/{name}.sh")
        assert (response.header("x-a"), response.text) == ("b", "body")


def test_6_3_2_location_does_not_reach_what_is_local(server: Server) -> None:
    assert server.get("/cgi-bin/local.sh").header("location") is None


def test_6_3_3_status(server: Server) -> None:
    response = server.get("/cgi-bin/status.sh")
    assert (response.status, response.reason, response.text) == (418, "I am a teapot", "short\n")
    assert response.header("status") is None
    response = server.get("/cgi-bin/status-bare.sh")
    assert (response.status, response.reason) == (201, "Created")
    assert server.get("/cgi-bin/bad-status.sh").status == 502
    assert server.get("/cgi-bin/interim.sh").status == 502


def test_6_3_3_status_without_a_body(server: Server) -> None:
    with server.connect() as connection:
        for name, status in (("204", 204), ("304", 304)):
            response = connection.send(keep_alive(f"/cgi-bin/{name}.sh")).response()
            assert (response.status, response.body) == (status, b"")
            assert response.header("transfer-encoding") is None
            assert response.header("content-length") is None
        assert connection.send(keep_alive("/landed.txt")).response().text == "landed"


def test_6_3_3_what_the_client_has_already(server: Server) -> None:
    """A document with a validator and without a Status is answered as a file would be (RFC 9110 section 13)."""
    date, later = "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"
    with server.connect() as connection:

        def ask(name: str, *fields: str, method: str = "GET") -> tuple[int, str]:
            lines = "".join(f"{field}\r\n" for field in ("Host: a", *fields))
            connection.send(f"{method} /cgi-bin/{name}.sh HTTP/1.1\r\n{lines}\r\n")
            response = connection.response(method)
            return response.status, response.text

        assert ask("tagged") == (200, "tagged\n")
        assert ask("tagged", 'If-None-Match: "b", W/"a"') == (304, "")
        assert ask("tagged", 'If-None-Match: "a"', method="HEAD") == (304, "")
        assert ask("tagged", "If-None-Match: *") == (304, "")
        assert ask("tagged", 'If-None-Match: "b"') == (200, "tagged\n")
        assert ask("tagged", f"If-Modified-Since: {later}") == (200, "tagged\n")
        assert ask("tagged", 'If-None-Match: "a"', "Content-Length: 0", method="POST") == (200, "tagged\n")
        assert ask("tagged-200", 'If-None-Match: "a"') == (200, "tagged\n")
        assert ask("dated", f"If-Modified-Since: {date}") == (304, "")
        assert ask("dated", "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT") == (200, "dated\n")
        assert ask("no-type", "If-None-Match: *") == (200, "body\n")
    assert server.get("/cgi-bin/tagged.sh", {"If-None-Match": '"a"'}).header("etag") == '"a"'


def test_6_3_4_protocol_specific_fields(server: Server) -> None:
    """They go to the client; those of the connection are the server's."""
    response = server.get("/cgi-bin/own.sh")
    assert response.all("set-cookie") == ["a=1", "b=2; Path=/"]
    assert response.header("x-lower") == "2"
    with server.connect() as connection:
        response = connection.send(keep_alive("/cgi-bin/framing.sh")).response()
        assert response.text == "plain\n"
        for name in ("connection", "keep-alive", "upgrade", "trailer"):
            assert response.header(name) is None
        assert connection.send(keep_alive("/landed.txt")).response().text == "landed"


def test_6_3_4_no_response_splitting(server: Server) -> None:
    response = server.get("/cgi-bin/split.sh")
    assert (response.status, response.header("set-cookie")) == (502, None)


def test_6_3_5_extension_fields(server: Server) -> None:
    """X-CGI-* mean nothing to this server, and are passed on like others."""
    assert server.get("/cgi-bin/own.sh").header("x-cgi-thing") == "1"


def test_file_that_the_program_names(server: Server) -> None:
    response = server.get("/cgi-bin/file.sh", {"Range": "bytes=2-4"})
    assert (response.status, response.text, response.header("content-type")) == (206, "234", "text/x")
    assert response.header("x-sendfile") is None


# 6.4 Response Message-Body


def test_6_4_length(server: Server) -> None:
    with server.connect() as connection:
        response = connection.send(keep_alive("/cgi-bin/length.sh")).response()
        assert (response.text, response.header("content-length")) == ("12345", "5")
        connection.send(keep_alive("/cgi-bin/short.sh"))
        with pytest.raises(http.client.IncompleteRead):
            connection.response()


def test_6_4_head_has_no_body(server: Server) -> None:
    with server.connect() as connection:
        for name, status in (("document", 200), ("length", 200), ("wait", 200), ("status", 418), ("nph-whole", 299)):
            if name == "wait":
                (server.folder / "on").touch()
            response = connection.send(keep_alive(f"/cgi-bin/{name}.sh", "HEAD")).response("HEAD")
            assert (response.status, response.body) == (status, b"")
        assert connection.send(keep_alive("/landed.txt")).response().text == "landed"


def test_6_4_streamed_as_it_comes(server: Server) -> None:
    (server.folder / "on").unlink(missing_ok=True)
    with server.connect() as connection:
        connection.send(keep_alive("/cgi-bin/wait.sh"))
        seen = connection.read_until(b"first\n")
        assert b"Transfer-Encoding: chunked" in seen
        assert b"second" not in seen
        (server.folder / "on").touch()
        assert b"second\n" in connection.read_until(b"0\r\n\r\n")


def test_6_4_old_client_sees_the_end_of_the_connection(server: Server) -> None:
    (server.folder / "on").touch()
    with server.connect() as connection:
        response = connection.send(keep_alive("/cgi-bin/wait.sh", minor=0)).response()
        assert (response.text, response.header("connection")) == ("first\nsecond\n", "close")
        assert connection.closed()


def test_nothing_is_left_running(server: Server) -> None:
    (server.folder / "go").touch()
    wait_for(lambda: not programs(server), "every program has ended")
