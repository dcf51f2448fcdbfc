"""RFC 3875 sections 4.1 and 4.4: what programs are told about a request. Each test names its section."""

from __future__ import annotations

import os
import socket

import pytest
from harness import Server, has_ipv6
from programs import HEAD, variables

CONFIG = """
sites:
  - root: www
    rules:
      - {match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}
      - {match: {path: /auth/*}, handler: {cgi: {directory: cgi-bin, pass_authorization: true}}}
      - {match: {path: /one}, handler: {cgi: {directory: site, extensions: [.sh]}}}
  - hosts: [rootless.example]
    rules:
      - {match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}
  - hosts: [whole.example]
    rules:
      - {handler: {cgi: {directory: site, extensions: [.sh]}}}
"""

FILES: dict[str, str | bytes] = {
    "www/index.html": "index",
    "cgi-bin/env.sh": HEAD + "env\n",
    "cgi-bin/args.sh": HEAD + 'for a in "$@"; do echo "<$a>"; done\n',
    "cgi-bin/dir/env.sh": HEAD + "env\n",
    "site/env.sh": HEAD + "env\n",
}


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    os.environ["SECRET_OF_THE_SERVER"] = "1"
    try:
        started: Server = serve_module(FILES, config=CONFIG)
    finally:
        del os.environ["SECRET_OF_THE_SERVER"]
    return started


def of(server: Server, target: str = "/cgi-bin/env.sh", headers: dict[str, str] | None = None) -> dict[str, str]:
    return variables(server.get(target, headers).text)


def of_raw(server: Server, request: str) -> dict[str, str]:
    return variables(server.exchange(request).text)


# 4.1 Request Meta-Variables


def test_4_1_all_of_one_request(server: Server) -> None:
    with server.connect() as connection:
        local, remote = connection.socket.getpeername(), connection.socket.getsockname()
        connection.send(
            "POST /cgi-bin/env.sh/extra/p%C3%A4th?a=%20b&c HTTP/1.1\r\nHost: Example.org:1234\r\n"
            "Content-Type: text/x\r\nContent-Length: 3\r\nX-Custom-Field: v\r\nX-Twice: 1\r\nX-Twice: 2\r\n"
            "User-Agent: me\r\n\r\nabc"
        )
        found = variables(connection.response("POST").text)
    folder = server.folder
    software = found.pop("SERVER_SOFTWARE")
    of_the_shell = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert {name: value for name, value in found.items() if name not in of_the_shell} == {
        "PATH": os.environ["PATH"],
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": "POST",
        "QUERY_STRING": "a=%20b&c",
        "CONTENT_LENGTH": "3",
        "CONTENT_TYPE": "text/x",
        "SCRIPT_NAME": "/cgi-bin/env.sh",
        "SCRIPT_FILENAME": f"{folder}/cgi-bin/env.sh",
        "PATH_INFO": "/extra/päth",
        "PATH_TRANSLATED": f"{folder}/www/extra/päth",
        "DOCUMENT_ROOT": f"{folder}/www",
        "CONTEXT_PREFIX": "/cgi-bin",
        "CONTEXT_DOCUMENT_ROOT": f"{folder}/cgi-bin",
        "SERVER_NAME": "Example.org",
        "SERVER_PORT": str(local[1]),
        "SERVER_ADDR": local[0],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": remote[0],
        "REMOTE_HOST": remote[0],
        "REMOTE_PORT": str(remote[1]),
        "REQUEST_URI": "/cgi-bin/env.sh/extra/p%C3%A4th?a=%20b&c",
        "REQUEST_SCHEME": "http",
        "HTTP_HOST": "Example.org:1234",
        "HTTP_X_CUSTOM_FIELD": "v",
        "HTTP_X_TWICE": "1, 2",
        "HTTP_USER_AGENT": "me",
    }, "and nothing of the server's own environment"
    assert software.startswith("cherokee-app/")


def test_4_1_1_auth_type(server: Server) -> None:
    """Set when the server itself has asked for credentials, which it does not."""
    assert "AUTH_TYPE" not in of(server, headers={"Authorization": "Basic c2VjcmV0"})
    assert "AUTH_TYPE" not in of(server, "/auth/env.sh", {"Authorization": "Basic c2VjcmV0"})


def test_4_1_2_content_length(server: Server) -> None:
    """Set if and only if there is a body, to its length without transfer codings."""
    assert "CONTENT_LENGTH" not in of(server)
    assert variables(server.post("/cgi-bin/env.sh", b"").text)["CONTENT_LENGTH"] == "0"
    assert variables(server.post("/cgi-bin/env.sh", b"12345").text)["CONTENT_LENGTH"] == "5"
    found = of_raw(
        server,
        "POST /cgi-bin/env.sh HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5\r\n12345\r\n2\r\n67\r\n0\r\n\r\n",
    )
    assert found["CONTENT_LENGTH"] == "7"
    assert "HTTP_TRANSFER_ENCODING" not in found


def test_4_1_3_content_type(server: Server) -> None:
    assert "CONTENT_TYPE" not in variables(server.post("/cgi-bin/env.sh", b"x").text), "there is no default"
    found = variables(server.post("/cgi-bin/env.sh", b"x", {"content-type": 'a/b; c="d e"'}).text)
    assert found["CONTENT_TYPE"] == 'a/b; c="d e"'
    assert "HTTP_CONTENT_TYPE" not in found


def test_4_1_4_gateway_interface(server: Server) -> None:
    assert of(server)["GATEWAY_INTERFACE"] == "CGI/1.1"


@pytest.mark.parametrize(
    ("target", "name", "info"),
    [
        ("/cgi-bin/env.sh", "/cgi-bin/env.sh", ""),
        ("/cgi-bin/env.sh/", "/cgi-bin/env.sh", "/"),
        ("/cgi-bin/env.sh/a/b.sh/", "/cgi-bin/env.sh", "/a/b.sh/"),
        ("/cgi-bin/dir/env.sh/a", "/cgi-bin/dir/env.sh", "/a"),
        ("/cgi-bin/env.sh/a%20b%3Fc%2Fd", "/cgi-bin/env.sh", "/a b?c/d"),
        ("/cgi-bin/env.sh/a;p=1", "/cgi-bin/env.sh", "/a;p=1"),
        ("/cgi-bin/env.sh/a/../b/./c", "/cgi-bin/env.sh", "/b/c"),
        ("/cgi-bin/%65nv.sh/%C3%A9", "/cgi-bin/env.sh", "/é"),
    ],
)
def test_4_1_5_path_info_and_4_1_13_script_name(server: Server, target: str, name: str, info: str) -> None:
    """Decoded, and together what the client's path means; PATH_INFO never names the program."""
    found = of(server, target)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["REQUEST_URI"]) == (name, info, target)


def test_4_1_6_path_translated(server: Server) -> None:
    """PATH_INFO below the root of the site; not there without the one or the other."""
    assert "PATH_TRANSLATED" not in of(server)
    assert of(server, "/cgi-bin/env.sh/a%20b")["PATH_TRANSLATED"] == f"{server.folder}/www/a b"
    assert "PATH_TRANSLATED" not in of(server, "/cgi-bin/env.sh/a", {"Host": "rootless.example"})


@pytest.mark.parametrize("query", ["a=%20b&c+d", "%zz%", "x?y/../z", "=&&;", "%00%0a", "a=1#"[:-1]])
def test_4_1_7_query_string(server: Server, query: str) -> None:
    """As the client wrote it; decoding is the program's."""
    found = of(server, f"/cgi-bin/env.sh?{query}")
    assert (found["QUERY_STRING"], found["REQUEST_URI"]) == (query, f"/cgi-bin/env.sh?{query}")


def test_4_1_7_query_string_is_there_when_empty(server: Server) -> None:
    assert of(server)["QUERY_STRING"] == ""
    assert of(server, "/cgi-bin/env.sh?")["QUERY_STRING"] == ""


def test_4_1_8_remote_addr_and_4_1_9_remote_host(server: Server) -> None:
    """Names are not looked up, for which the address may stand; what the client says of itself counts for nothing."""
    found = of(server, headers={"X-Forwarded-For": "192.0.2.1", "Remote-Addr": "192.0.2.2", "Forwarded": "for=1.2.3.4"})
    assert (found["REMOTE_ADDR"], found["REMOTE_HOST"]) == ("127.0.0.1", "127.0.0.1")
    assert found["HTTP_REMOTE_ADDR"] == "192.0.2.2"


def test_4_1_10_remote_ident_and_4_1_11_remote_user(server: Server) -> None:
    found = of(server, headers={"Authorization": "Basic dXNlcjpwdw==", "Remote-User": "root"})
    assert not {"REMOTE_IDENT", "REMOTE_USER"} & set(found)
    assert found["HTTP_REMOTE_USER"] == "root"


def test_4_1_12_request_method(server: Server) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get"):
        assert variables(server.get("/cgi-bin/env.sh", method=method).text)["REQUEST_METHOD"] == method
    assert server.get("/cgi-bin/env.sh", method="TRACE").status == 405


@pytest.mark.parametrize(
    ("host", "name"),
    [("example.org", "example.org"), ("Example.ORG:8080", "Example.ORG"), ("192.0.2.1:1", "192.0.2.1")],
)
def test_4_1_14_server_name(server: Server, host: str, name: str) -> None:
    assert of(server, headers={"Host": host})["SERVER_NAME"] == name
    assert of(server, headers={"Host": "[2001:db8::1]:80"})["SERVER_NAME"] == "[2001:db8::1]"


def test_4_1_14_server_name_of_an_old_client(server: Server) -> None:
    """Without a name there is the address."""
    found = of_raw(server, "GET /cgi-bin/env.sh HTTP/1.0\r\n\r\n")
    assert (found["SERVER_PROTOCOL"], found["SERVER_NAME"]) == ("HTTP/1.0", "127.0.0.1")
    assert "HTTP_HOST" not in found


def test_4_1_14_server_name_of_an_absolute_target(server: Server) -> None:
    """RFC 9112 section 3.2.2: the target's authority counts, whatever Host says."""
    target = "http://named.example:81/cgi-bin/env.sh/a?b"
    found = of_raw(server, f"GET {target} HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n")
    assert (found["SERVER_NAME"], found["HTTP_HOST"]) == ("named.example", "named.example:81")
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["REQUEST_URI"]) == ("/cgi-bin/env.sh", "/a", target)


def test_4_1_15_server_port(server: Server) -> None:
    """Where the request was received, whatever the client calls it."""
    assert of(server, headers={"Host": "example.org:99"})["SERVER_PORT"] == str(server.port)


def test_4_1_16_server_protocol(server: Server) -> None:
    assert of(server)["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert of_raw(server, "GET /cgi-bin/env.sh HTTP/1.0\r\nHost: x\r\n\r\n")["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_4_1_17_server_software(server: Server) -> None:
    response = server.get("/cgi-bin/env.sh")
    assert variables(response.text)["SERVER_SOFTWARE"] == response.header("server")


# 4.1.18 Protocol-Specific Meta-Variables


def test_4_1_18_fields(server: Server) -> None:
    """Upper case, with underscores; several of one name are one."""
    found = of_raw(
        server,
        "GET /cgi-bin/env.sh HTTP/1.1\r\nHost: x\r\nCookie: a=1\r\nCookie: b=2\r\nAccept: a\r\nAccept: b\r\n"
        "x-MiXed: \t v w \r\nX-Empty:\r\nConnection: close\r\n\r\n",
    )
    assert (found["HTTP_COOKIE"], found["HTTP_ACCEPT"]) == ("a=1; b=2", "a, b")
    assert (found["HTTP_X_MIXED"], found["HTTP_X_EMPTY"]) == ("v w", "")


def test_4_1_18_fields_of_the_connection_and_the_body(server: Server) -> None:
    found = of_raw(
        server,
        "POST /cgi-bin/env.sh HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTE: trailers\r\nUpgrade: h2c\r\n"
        "Keep-Alive: x\r\nTrailer: y\r\nProxy-Connection: z\r\nContent-Type: a/b\r\nContent-Length: 1\r\n\r\n1",
    )
    assert [name for name in found if name.startswith("HTTP_")] == ["HTTP_HOST"]


def test_4_1_18_http_proxy_is_never_set(server: Server) -> None:
    """It is a setting to many programs (CVE-2016-5385)."""
    for name in ("Proxy", "proxy", "PROXY"):
        assert "HTTP_PROXY" not in of(server, headers={name: "http://evil/"})


def test_4_1_18_names_that_collide(server: Server) -> None:
    """An underscore in a field's name drops it: it could pass for a field that somebody in between checks."""
    found = of(server, headers={"X_Under": "1", "X-Under": "good", "Foo_Bar": "2", "Content_Length": "9"})
    assert found["HTTP_X_UNDER"] == "good"
    assert not {"HTTP_FOO_BAR", "HTTP_CONTENT_LENGTH", "CONTENT_LENGTH"} & set(found)
    assert of(server, headers={"X.Y": "1", "X-Y": "2"})["HTTP_X_Y"] == "2"


def test_9_2_credentials(server: Server) -> None:
    """Not passed on unless somebody says so."""
    sent = {"Authorization": "Basic c2VjcmV0", "Proxy-Authorization": "Basic cHJveHk="}
    assert not [name for name in of(server, headers=sent) if "AUTHORIZATION" in name]
    found = of(server, "/auth/env.sh", sent)
    assert found["HTTP_AUTHORIZATION"] == "Basic c2VjcmV0"


# What Apache adds


def test_https_is_for_tls(server: Server) -> None:
    found = of(server, headers={"Https": "on", "X-Forwarded-Proto": "https"})
    assert "HTTPS" not in found
    assert (found["REQUEST_SCHEME"], found["HTTP_HTTPS"]) == ("http", "on")


def test_context_and_document_root(server: Server) -> None:
    """CONTEXT_DOCUMENT_ROOT and what follows CONTEXT_PREFIX in SCRIPT_NAME are SCRIPT_FILENAME."""
    for target, host in (("/cgi-bin/dir/env.sh/x", "x"), ("/env.sh/x", "whole.example")):
        found = of(server, target, {"Host": host})
        below = found["SCRIPT_NAME"].removeprefix(found["CONTEXT_PREFIX"])
        assert found["CONTEXT_DOCUMENT_ROOT"] + below == found["SCRIPT_FILENAME"]
    assert (found["CONTEXT_PREFIX"], found["DOCUMENT_ROOT"]) == ("", f"{server.folder}/site")
    assert found["PATH_TRANSLATED"] == f"{server.folder}/site/x"
    assert of(server, headers={"Host": "rootless.example"})["DOCUMENT_ROOT"] == ""


def test_no_redirect_without_one(server: Server) -> None:
    found = of(server, headers={"Redirect-Status": "200"})
    assert not [name for name in found if name.startswith("REDIRECT_")]


def test_names_of_ipv6(serve) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    server = serve({"cgi-bin/env.sh": HEAD + "env\n"}, "--listen", "[::1]:0")
    with socket.create_connection(("::1", server.port)) as client:
        client.sendall(f"GET /cgi-bin/env.sh HTTP/1.0\r\nHost: [::1]:{server.port}\r\n\r\n".encode())
        text = b""
        while piece := client.recv(65536):
            text += piece
    found = variables(text.decode())
    assert (found["SERVER_NAME"], found["REMOTE_ADDR"], found["SERVER_ADDR"]) == ("[::1]", "::1", "::1")


# 4.4 The Script Command Line


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("one+two%20too", ["one", "two too"]),
        ("%22%3B%60id%60", ['";`id`']),
        ("a=b", []),
        ("a+b%3Dc", ["a", "b=c"]),
        ("-s", []),
        ("one+-s", []),
        ("%2Ds", []),
        ("one%0atwo", []),
        ("%zz", []),
        ("", []),
    ],
)
def test_4_4_command_line(server: Server, query: str, words: list[str]) -> None:
    """An indexed query becomes words, none of which a program could take for an option (CVE-2012-1823)."""
    assert server.get(f"/cgi-bin/args.sh?{query}").text == "".join(f"<{word}>\n" for word in words)


def test_4_4_command_line_is_for_get(server: Server) -> None:
    assert server.post("/cgi-bin/args.sh?word", b"").text == ""
