"""CGI programs that are broken, never end or are left behind: right status, reason in the log, and nobody survives."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest
from harness import PATIENCE_S, Server, wait_for
from programs import HEAD, checked, expect_cut_off, programs, wait_for_reason, wait_until_gone

FILES: dict[str, str | bytes] = {
    "www/index.html": "index",
    "outside.sh": HEAD + "echo from outside\n",
    "cgi-bin/good.sh": HEAD + "echo good\n",
    "cgi-bin/.hidden.sh": HEAD + "echo hidden\n",
    "cgi-bin/folder/good.sh": HEAD + "echo good\n",
    "cgi-bin/no-interpreter.sh": "#!/no/such/interpreter\n",
    "cgi-bin/cr.sh": "#!/bin/sh\r\necho\r\n",
    "cgi-bin/no-format.bin": b"\x00\x01\x02 this is no program",
    "cgi-bin/silent.sh": "#!/bin/sh\nexit 0\n",
    "cgi-bin/dies.sh": "#!/bin/sh\necho reason >&2\nexit 3\n",
    "cgi-bin/killed.sh": "#!/bin/sh\nkill -SEGV $$\n",
    "cgi-bin/no-header.sh": "#!/bin/sh\necho just text without a header\necho\necho more\n",
    "cgi-bin/broken-header.sh": "#!/bin/sh\nprintf 'Content-Type: text/plain\\nBad Name: x\\n\\nbody'\n",
    "cgi-bin/bad-status.sh": "#!/bin/sh\nprintf 'Status: many\\nContent-Type: text/plain\\n\\nbody'\n",
    "cgi-bin/interim.sh": "#!/bin/sh\nprintf 'Status: 101 Switch\\nContent-Type: text/plain\\n\\nbody'\n",
    "cgi-bin/endless-header.sh": "#!/bin/sh\nwhile :; do echo 'X-Field: aaaaaaaaaaaaaaaaaaaa'; done\n",
    "cgi-bin/endless-line.sh": "#!/bin/sh\nexec tr '\\0' a </dev/zero\n",
    "cgi-bin/half-header.sh": "#!/bin/sh\nprintf 'Content-Type: text/plain\\n'\n",
    "cgi-bin/endless.sh": HEAD + "yes | cat\n",
    "cgi-bin/dies-later.sh": HEAD + "echo begun\nkill -SEGV $$\n",
    "cgi-bin/fails-later.sh": HEAD + "echo begun\nexit 4\n",
    "cgi-bin/sleeps.sh": "#!/bin/sh\nsleep 1000 &\nsleep 1000\n",
    "cgi-bin/stubborn.sh": "#!/bin/sh\ntrap '' TERM\nsleep 1000\nsleep 1000\n",
    "cgi-bin/stops.sh": "#!/bin/sh\nkill -STOP $$\n",
    "cgi-bin/forks.sh": "#!/bin/sh\nfor i in 1 2 3 4; do (sleep 1000 & (sleep 1000 & wait) & wait) & done\nwait\n",
    "cgi-bin/pauses.sh": HEAD + "echo begun\nsleep 1000\n",
    "cgi-bin/leaves.sh": HEAD + "sleep 1000 &\necho done\n",
    "cgi-bin/daemon.sh": HEAD + "setsid sleep 1000 &\nuntil grep -q ^sleep /proc/$!/cmdline; do :; done\necho done\n",
    "cgi-bin/closes.sh": HEAD + "echo all\nexec 1>&-\nsleep 1000\n",
    "cgi-bin/ticks.sh": HEAD + "while :; do echo tick; sleep 0.05; done\n",
    "cgi-bin/floods.sh": HEAD
    + "head -c 3000000 /dev/zero | tr '\\0' e >&2\necho >&2\nyes line | head -n 9999 >&2\necho\n",
    "cgi-bin/turn.sh": HEAD
    + "echo in >>../turns\nuntil [ -e ../go ]; do sleep 0.02; done\necho out >>../turns\necho ended\n",
}
RULES = """
sites:
  - root: www
    rules:
      - {match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}
"""
#: Whose time is short is asked for at a path of its own, so that nobody else is late on a machine that has much to do.
CONFIG = f"""
limits: {{header_size: 256KiB}}
cgi: {{limits: {{request_time: 0s, idle_time: 0s, kill_grace: 200ms}}}}
{RULES}
      - {{match: {{path: /silent/*}}, handler: {{cgi: {{directory: cgi-bin, limits: {{idle_time: 1s}}}}}}}}
      - {{match: {{path: /brief/*}}, handler: {{cgi: {{directory: cgi-bin, limits: {{request_time: 4s}}}}}}}}
      - {{match: {{path: /few/*}}, handler: {{cgi: {{directory: cgi-bin, limits: {{programs: 4, queue_time: 4s}}}}}}}}
"""
REQUEST = "GET /cgi-bin/{} HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def shared(serve_module) -> Server:
    server: Server = serve_module(FILES, config=CONFIG)
    server.allowed.append("the program's header section is malformed")
    programs = server.folder / "cgi-bin"
    (programs / "plain.sh").write_text("#!/bin/sh\n")
    (programs / "plain.sh").chmod(0o644)
    (programs / "link-out.sh").symlink_to("../outside.sh")
    (programs / "up").symlink_to("..")
    (programs / "link-in.sh").symlink_to("folder/good.sh")
    return server


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    yield from checked(shared)
    for name in ("go", "turns"):
        (shared.folder / name).unlink(missing_ok=True)


# Programs that cannot be run, or say nothing of use


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("plain.sh", 500, "not executable: chmod \\+x"),
        ("no-interpreter.sh", 500, "its interpreter /no/such/interpreter is missing"),
        ("cr.sh", 500, "CR LF"),
        ("no-format.bin", 500, "no #! line and is no program"),
        ("silent.sh", 502, "ended its output with no header section"),
        ("half-header.sh", 502, "ended its output with no header section"),
        ("dies.sh", 502, "ended with exit code 3"),
        ("killed.sh", 502, "was killed by signal 11"),
        ("no-header.sh", 502, "header section is malformed"),
        ("broken-header.sh", 502, "header section is malformed"),
        ("bad-status.sh", 502, "header section is malformed"),
        ("interim.sh", 502, "header section is malformed"),
        ("endless-header.sh", 502, "header section is over its limit"),
        ("endless-line.sh", 502, "header section is over its limit"),
    ],
)
def test_broken(server: Server, name: str, status: int, reason: str) -> None:
    before = len(server.lines)
    response = server.get(f"/cgi-bin/{name}")
    assert response.status == status
    assert reason not in response.text, "the client learns that it failed, the owner reads why"
    wait_for_reason(server, before, name, reason)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/cgi-bin/nothing.sh", 404),
        ("/cgi-bin/good.sh/../nothing.sh", 404),
        ("/cgi-bin/.hidden.sh", 404),
        ("/cgi-bin/folder/.hidden.sh", 404),
        ("/cgi-bin/folder", 403),
        ("/cgi-bin/folder/", 403),
        ("/cgi-bin/", 403),
        ("/cgi-bin/../outside.sh", 404),
        ("/cgi-bin/%2e%2e/outside.sh", 404),
        ("/cgi-bin/folder/%2e%2e/%2e%2e/outside.sh", 404),
        ("/cgi-bin/up/outside.sh", 403),
        ("/cgi-bin/link-out.sh", 403),
    ],
)
def test_what_is_no_program(server: Server, target: str, status: int) -> None:
    response = server.get(target)
    assert (response.status, "from outside" in response.text) == (status, False)


def test_links(server: Server) -> None:
    before = len(server.lines)
    assert server.get("/cgi-bin/link-in.sh").text == "good\n"
    server.get("/cgi-bin/link-out.sh")
    wait_for_reason(server, before, "link-out.sh", "leads out of the folder")


@pytest.mark.parametrize("size", [140_000, 200_000], ids=["one variable", "all of them"])
def test_fields_that_no_program_can_get(server: Server, size: int) -> None:
    """The system takes 128 KiB for one variable, the queue 192 KiB for a request: the client has to send less."""
    assert server.get("/cgi-bin/good.sh", {"X-Large": "a" * 120_000}).status == 200
    before = len(server.lines)
    assert server.get("/cgi-bin/good.sh", {"X-Large": "a" * size}).status == 431
    if size < 150_000:
        wait_for_reason(server, before, "good.sh", "environment and arguments are too large")


# Limits of time


@pytest.mark.parametrize("name", ["sleeps.sh", "stubborn.sh", "stops.sh", "forks.sh"])
def test_silence(server: Server, name: str) -> None:
    """Neither a byte nor an end: 504, and the whole group goes, whatever it does to SIGTERM."""
    before = len(server.lines)
    assert server.get(f"/silent/{name}").status == 504
    wait_for_reason(server, before, name, "silent for idle_time")


def test_silence_in_the_middle_of_an_answer(server: Server) -> None:
    before = len(server.lines)
    expect_cut_off(server, "/silent/pauses.sh")
    wait_for_reason(server, before, "pauses.sh", "silent for idle_time")


@pytest.fixture
def timed(serve) -> Iterator[Server]:
    """A server on which a program's time is short, and the time that it may wait for a place long."""
    server: Server = serve(FILES, config="cgi: {limits: {request_time: 3s, idle_time: 0s, queue_time: 10m}}\n" + RULES)
    yield server
    wait_until_gone(server)


@pytest.mark.parametrize("name", ["sleeps.sh", "stubborn.sh", "forks.sh"])
def test_total_time(timed: Server, name: str) -> None:
    assert timed.get(f"/cgi-bin/{name}").status == 504
    wait_for_reason(timed, 0, name, "killed at its time limit")
    wait_for_reason(timed, 0, name, "exceeded request_time")


def test_total_time_of_an_answer_that_streams(timed: Server) -> None:
    """The time counts from the program's start, not from the last moment at which it could have started."""
    expect_cut_off(timed, "/cgi-bin/ticks.sh")
    wait_for_reason(timed, 0, "ticks.sh", "killed at its time limit")


def test_total_time_after_the_answer(timed: Server) -> None:
    assert timed.get("/cgi-bin/closes.sh").text == "all\n"
    wait_for_reason(timed, 0, "closes.sh", "killed at its time limit")


# Programs that leave somebody behind, or end in the middle


@pytest.mark.parametrize("name", ["leaves.sh", "daemon.sh"])
def test_child_that_keeps_stdout(server: Server, name: str) -> None:
    """The program's end is the answer's, although somebody else still holds its stdout.

    Whoever that is dies with it, also in another session.
    """
    assert server.get(f"/cgi-bin/{name}").text == "done\n"


def test_program_that_closes_stdout_early(server: Server) -> None:
    assert server.get("/brief/closes.sh").text == "all\n"
    assert server.get("/cgi-bin/good.sh").text == "good\n"


def test_death_in_the_middle_of_an_answer(server: Server) -> None:
    before = len(server.lines)
    expect_cut_off(server, "/cgi-bin/dies-later.sh")
    wait_for_reason(server, before, "dies-later.sh", "was killed by signal 11")


def test_exit_code_after_an_answer(server: Server) -> None:
    """It has said all that it wanted."""
    before = len(server.lines)
    assert server.get("/cgi-bin/fails-later.sh").text == "begun\n"
    wait_for_reason(server, before, "fails-later.sh", "ended with exit code 4")


@pytest.mark.parametrize("name", ["endless.sh", "sleeps.sh"])
def test_client_that_leaves(serve, name: str) -> None:
    """Nobody is there for the answer: the group is killed, in good time before any limit."""
    server = serve(FILES, config="cgi: {limits: {request_time: 0s, idle_time: 0s}}\n" + RULES)
    with server.connect() as connection:
        connection.send(REQUEST.format(name))
        if name == "endless.sh":
            assert connection.socket.recv(1000)
        wait_for(lambda: len(programs(server)) == 3, "the program and both its children run")
    wait_until_gone(server)


def test_large_body_that_is_not_read(server: Server) -> None:
    for _ in range(3):
        assert server.post("/cgi-bin/good.sh", b"x" * 5_000_000).text == "good\n"


# What is written to stderr


def test_stderr_is_bounded(server: Server) -> None:
    before = len(server.lines)
    assert server.get("/cgi-bin/floods.sh").text == "\n"
    wait_for_reason(server, before, "floods.sh", "were dropped")
    lines = [line for line in server.lines[before:] if line.startswith("{") and "floods.sh" in line]
    assert 100 < len(lines) < 300
    assert sum(map(len, lines)) < 200_000
    assert all(re.search(r'"request": "[0-9a-f]{16}"', line) for line in lines)


def test_stderr_of_an_ordinary_program(server: Server) -> None:
    before = len(server.lines)
    server.get("/cgi-bin/dies.sh")
    wait_for_reason(server, before, "dies.sh", '"event": "reason"')


# More requests than programs


def test_too_many(server: Server) -> None:
    """Four run, the others wait for queue_time and are told to come back; nobody waits longer."""
    turns = server.folder / "turns"
    connections = [server.connect() for _ in range(8)]
    try:
        for connection in connections[:4]:
            connection.send("GET /few/turn.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: turns.exists() and turns.read_text().split() == ["in"] * 4, "four run")
        for connection in connections[4:]:
            connection.send("GET /few/turn.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.get("/").text == "index"
        refused = [connection.response() for connection in connections[4:]]
        assert [(each.status, bool(each.header("retry-after"))) for each in refused] == [(503, True)] * 4
        assert turns.read_text().split() == ["in"] * 4
        (server.folder / "go").touch()
        assert [connection.response().text for connection in connections[:4]] == ["ended\n"] * 4
    finally:
        for connection in connections:
            connection.close()


def test_queue(serve) -> None:
    """Two at once and no more; the others wait for their turn, and beyond the queue's length it is 503 at once."""
    limits = "{request_time: 60s, idle_time: 0s, programs: 2, queue: 4}"
    server = serve(FILES, "--threads", "1", config=f"cgi: {{limits: {limits}}}\n" + RULES)
    turns = server.folder / "turns"
    # Until the core knows how many programs run at once, it reckons with one.
    wait_for(lambda: server.get("/readyz").status == 200, "the spawner is there")
    connections = [server.connect() for _ in range(6)]
    try:
        for connection in connections:
            connection.send(REQUEST.format("turn.sh"))
        wait_for(lambda: turns.exists() and turns.read_text().split() == ["in"] * 2, "two run")
        refused = server.get("/cgi-bin/turn.sh")
        assert (refused.status, refused.header("retry-after")) == (503, "1")
        assert turns.read_text().split() == ["in"] * 2
        (server.folder / "go").touch()
        assert [connection.response().text for connection in connections] == ["ended\n"] * 6
    finally:
        for connection in connections:
            connection.close()
    running = 0
    for word in turns.read_text().split():
        running += 1 if word == "in" else -1
        assert 0 <= running <= 2
    wait_until_gone(server)


# The end of those who run them


def test_spawner_is_killed(serve) -> None:
    """Its programs do not survive it, their requests are answered, and another spawner takes over."""
    server = serve(FILES, config="cgi: {limits: {request_time: 60s, idle_time: 0s}}\n" + RULES)
    spawner = server.one_pid("spawner_main")
    with server.connect() as get, server.connect() as post:
        get.send(REQUEST.format("sleeps.sh"))
        post.send("POST /cgi-bin/sleeps.sh HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        wait_for(lambda: len(programs(server)) == 6, "both programs run")
        first = set(programs(server))
        os.kill(spawner, signal.SIGKILL)
        response = post.response("POST")
        assert (response.status, bool(response.header("x-incident"))) == (502, True)
        wait_for(lambda: server.pids("spawner_main") not in ([], [spawner]), "another spawner")
        wait_for(
            lambda: len(found := set(programs(server))) == 3 and not first & found,
            "the GET runs once more, and nothing else",
        )
    wait_until_gone(server)
    assert server.get("/cgi-bin/good.sh").text == "good\n"


def test_programs_end_with_the_server(serve) -> None:
    """A second signal hurries: nothing is waited for."""
    server = serve(FILES, config="cgi: {limits: {request_time: 0s, idle_time: 0s}}\n" + RULES)
    with server.connect() as connection:
        connection.send(REQUEST.format("sleeps.sh"))
        wait_for(lambda: len(programs(server)) == 3, "the program runs")
        server.kill(signal.SIGTERM)
        server.wait_for_log("drain|stop|finish")
        server.kill(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0
    wait_for(lambda: not programs(server), "nobody of the program's group lives")
