"""php-cgi by the interpreter map: what PHP programs are told, forms with files, sessions."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable

import pytest
from harness import Server
from real_programs import find_program, random_bytes

CONFIG = """
cgi:
  interpreters: {{".php": {php}}}
sites:
  - root: www
    rules: [{{match: {{path: /app/*}}, handler: {{cgi: app}}}}]
"""
FORM = """<?php
header('Content-Type: application/json');
header('X-First: 1');
header('X-First: 2', false);
$file = $_FILES['file'] ?? null;
$kept = $file && is_uploaded_file($file['tmp_name']);
echo json_encode(['get' => $_GET, 'post' => $_POST, 'method' => $_SERVER['REQUEST_METHOD'],
    'name' => $file['name'] ?? null, 'type' => $file['type'] ?? null, 'error' => $file['error'] ?? null,
    'size' => $kept ? filesize($file['tmp_name']) : 0, 'sha256' => $kept ? hash_file('sha256', $file['tmp_name']) : '',
    'length' => $_SERVER['CONTENT_LENGTH'] ?? null, 'raw' => hash('sha256', file_get_contents('php://input'))]);
"""
SESSION = """<?php
session_save_path(dirname(__DIR__) . '/sessions');
session_start();
$_SESSION['seen'] = ($_SESSION['seen'] ?? 0) + 1;
setcookie('second', 'a b', ['httponly' => true]);
echo $_SESSION['seen'];
"""
SERVER = """<?php
header('Content-Type: application/json');
echo json_encode(['cwd' => getcwd(), 'file' => __FILE__, 'sapi' => PHP_SAPI] + $_SERVER);
"""
ENDS = """<?php
http_response_code(503);
header('Retry-After: 7');
error_log('about to end');
throw new RuntimeException('on purpose');
"""
FILES: dict[str, str | bytes] = {
    "app/info.php": "<?php phpinfo();\n",
    "app/form.php": FORM,
    "app/session.php": SESSION,
    "app/server.php": SERVER,
    "app/away.php": "<?php header('Location: /app/server.php?from=away'); echo 'not there';\n",
    "app/ends.php": ENDS,
    "app/large.php": "<?php for ($i = 0; $i < 1000; $i++) { echo str_repeat(chr(97 + $i % 26), 20000); flush(); }\n",
    "www/index.html": "index",
    "sessions/.keep": "",
}


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server]) -> Server:
    php = find_program("php-cgi", "php-cgi")
    return serve_module(FILES, config=CONFIG.format(php=php))


def test_phpinfo(server: Server) -> None:
    response = server.get("/app/info.php")
    assert response.header("content-type") == "text/html; charset=UTF-8"
    rows = dict(re.findall(r'<tr><td class="e">([^<]+?) *</td><td class="v">([^<]*?) *</td></tr>', response.text))
    assert rows["Server API"] == "CGI/FastCGI"
    assert rows["$_SERVER['SCRIPT_NAME']"] == "/app/info.php"
    assert html.unescape(rows["$_SERVER['DOCUMENT_ROOT']"]) == str(server.folder / "www")


def test_what_a_program_is_told(server: Server) -> None:
    told = server.get("/app/server.php/more/path?a=1&b=2", {"X-Forwarded-For": "10.0.0.1"}).text
    found = json.loads(told)
    script = str(server.folder / "app/server.php")
    expected = {
        "PHP_SELF": "/app/server.php/more/path",
        "SCRIPT_NAME": "/app/server.php",
        "SCRIPT_FILENAME": script,
        "file": script,
        "cwd": str(server.folder / "app"),
        "PATH_INFO": "/more/path",
        "REQUEST_URI": "/app/server.php/more/path?a=1&b=2",
        "QUERY_STRING": "a=1&b=2",
        "HTTP_X_FORWARDED_FOR": "10.0.0.1",
        "sapi": "cgi-fcgi",
    }
    assert {name: found.get(name) for name in expected} == expected


def multipart(fields: dict[str, str], name: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    boundary = "frontier"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: image/x\r\n'
    )
    body = b"".join(parts) + head.encode() + b"\r\n" + content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


@pytest.mark.parametrize("size", [0, 10, 1_500_000])
def test_form_with_upload(server: Server, size: int) -> None:
    content = random_bytes(size)
    body, fields = multipart({"title": "Grüße & more", "tags[]": "one"}, "a picture.png", content)
    response = server.post("/app/form.php?id=7", body, fields)
    assert response.all("x-first") == ["1", "2"]
    found = json.loads(response.text)
    assert (found["get"], found["post"]) == ({"id": "7"}, {"title": "Grüße & more", "tags": ["one"]})
    assert (found["name"], found["type"], found["error"]) == ("a picture.png", "image/x", 0)
    assert (found["size"], found["sha256"]) == (size, hashlib.sha256(content).hexdigest())
    assert found["length"] == str(len(body))


def test_form_in_chunks(server: Server) -> None:
    """PHP knows bodies by CONTENT_LENGTH only."""
    with server.connect() as connection:
        connection.send(
            "POST /app/form.php HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            "Transfer-Encoding: chunked\r\n\r\n3\r\na=1\r\n6\r\n&b=two\r\n0\r\n\r\n"
        )
        found = json.loads(connection.response("POST").text)
    assert (found["post"], found["length"]) == ({"a": "1", "b": "two"}, "9")
    assert found["raw"] == hashlib.sha256(b"a=1&b=two").hexdigest()


def test_session_cookie(server: Server) -> None:
    first = server.get("/app/session.php")
    session, second = first.all("set-cookie")
    assert session.startswith("PHPSESSID=") and second.startswith("second=a%20b")
    assert first.text == "1"
    cookie = {"Cookie": f"other=1; {session.split(';')[0]}"}
    assert [server.get("/app/session.php", cookie).text for _ in range(3)] == ["2", "3", "4"]
    assert server.get("/app/session.php").text == "1"
    stored = [path.name for path in (server.folder / "sessions").glob("sess_*")]
    assert f"sess_{session.split(';')[0].removeprefix('PHPSESSID=')}" in stored and len(stored) == 2


def test_redirect(server: Server) -> None:
    response = server.get("/app/away.php")
    assert (response.status, response.header("location")) == (302, "/app/server.php?from=away")


def test_an_exception(server: Server) -> None:
    """With its status and fields, and its traceback in the log."""
    response = server.get("/app/ends.php")
    assert (response.status, response.header("retry-after")) == (503, "7")
    server.wait_for_log("about to end")
    server.wait_for_log("Uncaught RuntimeException: on purpose")


def test_large_output(server: Server) -> None:
    body = server.get("/app/large.php").body
    assert len(body) == 20_000_000
    assert body[:20_000] == b"a" * 20_000


def test_the_source_is_not_shown(server: Server) -> None:
    for target in ("/app/form.php/", "/app/form.php%20", "/app/../app/form.php", "/app//form.php"):
        assert "json_encode" not in server.get(target).text, target
