"""Clients that connect and say nothing: the kernel keeps them back for a while, then the usual limits are theirs."""

from __future__ import annotations

from harness import wait_for

CONFIG = "limits: {idle_timeout: 300ms}\nsites:\n  - {name: a, root: www}\n"


def test_a_client_that_never_speaks_is_closed_as_idle(serve):
    server = serve({"www/index.html": "hi"}, config=CONFIG)
    with server.connect() as silent:
        assert server.get("/").text == "hi"
        assert silent.closed()


def test_a_client_that_speaks_after_it_was_accepted(serve):
    server = serve({"www/index.html": "hi"})
    core = server.one_pid("core_main")
    before = server.count_fds(core)
    with server.connect() as late:
        wait_for(lambda: server.count_fds(core) > before, "the silent connection is accepted")
        assert late.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response().text == "hi"


def test_a_client_that_speaks_to_a_server_that_has_stopped_sees_it_at_once(serve):
    server = serve({"www/index.html": "hi"})
    with server.connect() as silent:
        assert server.stop() == 0
        assert silent.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").closed()
