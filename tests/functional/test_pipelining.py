"""Requests sent without waiting for answers: the answers come in order, none waits for a request that is not there."""

from __future__ import annotations

import socket
import threading

import pytest
from harness import Connection

SMALL = b"s" * 1000
LARGE = b"L" * 300_000  # beyond cache.file_size: sendfile
MIDDLE = b"m" * 50_000  # in the cache, too large to be copied behind a head

CGI = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\ncgi'\n"


@pytest.fixture(scope="module")
def server(serve_module):
    server = serve_module(
        {
            "www/small": SMALL,
            "www/middle": MIDDLE,
            "www/large": LARGE,
            "cgi-bin/quick": CGI,
            "handlers/echo.py": "def handle(request):\n    return request.body\n",
        },
        "--threads",
        "1",
    )
    server.get("/large")  # each loop's cache keeps its descriptor
    server.remember_fds()
    return server


def get(path: str, *fields: str) -> str:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: a", *fields, "", ""))


def test_answers_of_every_kind_come_in_order(server):
    wanted = [
        ("/small", SMALL),
        ("/small", SMALL),
        ("/large", LARGE),
        ("/small", SMALL),
        ("/middle", MIDDLE),
        ("/cgi-bin/quick", b"cgi"),
        ("/small", SMALL),
        ("/none", None),
        ("/small", SMALL),
    ]
    with server.connect() as connection:
        connection.send("".join(get(path) for path, _body in wanted))
        for path, body in wanted:
            response = connection.response()
            assert response.status == (404 if body is None else 200), path
            if body is not None:
                assert response.body == body, path


def test_an_answer_does_not_wait_for_the_rest_of_the_next_request(server):
    with server.connect() as connection:
        second = get("/small")
        connection.send(get("/small") + second[:9])
        assert connection.response().body == SMALL
        connection.send(second[9:] + second[:1])
        assert connection.response().body == SMALL


def test_an_answer_does_not_wait_for_the_body_of_the_next_request(server):
    post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
    with server.connect() as connection:
        connection.send(get("/small") + post + "ab")
        assert connection.response().body == SMALL
        connection.send("cd")
        assert connection.response().body == b"abcd"


def test_an_answer_and_the_100_behind_it(server):
    post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    with server.connect() as connection:
        connection.send(get("/small") + post)
        assert connection.response().body == SMALL
        assert connection.interim().status == 100
        connection.send("abcd")
        assert connection.response().body == b"abcd"


def test_the_last_answer_before_a_close_brings_all_before_it(server):
    with server.connect() as connection:
        connection.send(get("/small") * 3 + get("/small", "Connection: close") + get("/small"))
        for _ in range(4):
            assert connection.response().body == SMALL
        assert connection.closed()


def test_a_client_that_leaves_in_the_middle_of_a_request_has_its_answers(server):
    with server.connect() as connection:
        connection.send(get("/small") * 3 + "GET /small")
        connection.socket.shutdown(socket.SHUT_WR)
        for _ in range(3):
            assert connection.response().status == 200
        assert connection.closed()


def test_head_and_conditional_requests_among_others(server):
    with server.connect() as connection:
        tag = connection.send(get("/small")).response().header("etag")
        head = "HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n"
        connection.send(head + get("/small", f"If-None-Match: {tag}") + get("/small"))
        assert connection.response("HEAD").header("content-length") == str(len(LARGE))
        assert connection.response().status == 304
        assert connection.response().body == SMALL


def test_a_bad_request_behind_good_ones(server):
    with server.connect() as connection:
        connection.send(get("/small") * 2 + "G@T / HTTP/1.1\r\n\r\n")
        assert [connection.response().status for _ in range(3)] == [200, 200, 400]
        assert connection.closed()


@pytest.mark.parametrize("path, body", [("/small", SMALL), ("/middle", MIDDLE)])
def test_a_client_that_sends_all_before_it_reads_any(server, path, body):
    count = 20_000 if body is SMALL else 400
    connection = Connection(server.port)
    with connection:
        sender = threading.Thread(target=connection.send, args=(get(path) * count,))
        sender.start()
        for _ in range(count):
            assert connection.response().body == body
        sender.join()
