"""Clients that connect and say nothing: the kernel keeps them back for a while, then the usual limits are theirs."""

from __future__ import annotations

from pathlib import Path

from harness import Connection, Server, wait_for

CONFIG = "limits: {idle_timeout: 300ms}\nsites:\n  - {name: a, root: www}\n"


def is_accepted(server: Server, client: Connection) -> bool:
    """Whether the server's end has been taken out of the backlog: only then it has an inode."""
    ports = server.port, client.socket.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if tuple(int(fields[side].split(":")[1], 16) for side in (1, 2)) == ports:
            return fields[9] != "0"
    return False


def test_a_client_that_never_speaks_is_closed_as_idle(serve):
    server = serve({"www/index.html": "hi"}, config=CONFIG)
    with server.connect() as silent:
        assert server.get("/").text == "hi"
        assert silent.closed()


def test_a_client_that_speaks_after_it_was_accepted(serve):
    server = serve({"www/index.html": "hi"})
    with server.connect() as late:
        wait_for(lambda: is_accepted(server, late), "the silent connection is accepted")
        assert late.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response().text == "hi"


def test_a_client_that_speaks_to_a_server_that_has_stopped_sees_it_at_once(serve):
    server = serve({"www/index.html": "hi"})
    with server.connect() as silent:
        assert server.stop() == 0
        assert silent.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").closed()
