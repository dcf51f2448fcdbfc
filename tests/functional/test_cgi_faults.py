"""CGI programs that are broken, never end or are left behind: right status, reason in the log, and nobody survives."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from harness import Server, children_of, command_of, wait_for

HEAD = "#!/bin/sh\necho Content-Type: text/plain\necho\n"
#: Programs sleep for times that nobody else sleeps for, which is how they are found.
FILES: dict[str, str | bytes] = {
    "www/index.html": "index",
    "cgi-bin/good.sh": HEAD + "echo good\n",
    "cgi-bin/nobody/good.sh": HEAD,
    "cgi-bin/no-interpreter.sh": "#!/no/such/interpreter\n",
    "cgi-bin/no-format.bin": b"\x00\x01\x02 this is no program",
    "cgi-bin/silent.sh": "#!/bin/sh\nexit 0\n",
    "cgi-bin/dies.sh": "#!/bin/sh\necho reason >&2\nexit 3\n",
    "cgi-bin/killed.sh": "#!/bin/sh\nkill -SEGV $$\n",
    "cgi-bin/no-header.sh": "#!/bin/sh\necho just text without a header\necho\necho more\n",
    "cgi-bin/broken-header.sh": "#!/bin/sh\nprintf 'Content-Type: text/plain\\nBad Name: x\\n\\nbody'\n",
    "cgi-bin/bad-status.sh": "#!/bin/sh\nprintf 'Status: many\\nContent-Type: text/plain\\n\\nbody'\n",
    "cgi-bin/endless-header.sh": "#!/bin/sh\nwhile :; do echo 'X-Field: aaaaaaaaaaaaaaaaaaaa'; done\n",
    "cgi-bin/half-header.sh": "#!/bin/sh\nprintf 'Content-Type: text/plain\\n'\n",
    "cgi-bin/endless.sh": HEAD + "yes\n",
    "cgi-bin/dies-later.sh": HEAD + "echo begun\nkill -SEGV $$\n",
    "cgi-bin/sleeps.sh": "#!/bin/sh\nsleep 7301 &\nsleep 7301\n",
    "cgi-bin/stubborn.sh": "#!/bin/sh\ntrap '' TERM\nsleep 7302\nsleep 7302\n",
    "cgi-bin/pauses.sh": HEAD + "echo begun\nsleep 7303\n",
    "cgi-bin/leaves.sh": HEAD + "sleep 7304 &\necho done\n",
    "cgi-bin/closes.sh": HEAD + "echo all\nexec 1>&-\nsleep 7305\n",
    "cgi-bin/floods.sh": HEAD
    + "head -c 3000000 /dev/zero | tr '\\0' e >&2\necho >&2\nyes line | head -n 9999 >&2\necho\n",
}
CONFIG = """
cgi: {limits: {request_time: 3s, idle_time: 1s, programs: 4, queue_time: 1s, kill_grace: 200ms}}
sites:
  - root: www
    rules: [{match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}]
"""


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    started: Server = serve_module(FILES, config=CONFIG)
    (started.folder / "cgi-bin/plain.sh").write_text("#!/bin/sh\n")
    (started.folder / "cgi-bin/plain.sh").chmod(0o644)
    return started


def sleepers(seconds: int) -> list[int]:
    """Every process of this machine that sleeps for so long, wherever it was re-parented to."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and command_of(int(entry.name)).strip() == f"sleep {seconds}":
            found.append(int(entry.name))
    return found


def wait_until_gone(server: Server, seconds: int) -> None:
    wait_for(lambda: not sleepers(seconds), f"nobody of the group lives: {sleepers(seconds)}")
    server.check_zombies()


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("plain.sh", 500, "execut"),
        ("nothing.sh", 404, ""),
        ("nobody/", 403, ""),
        ("no-interpreter.sh", 500, "interpreter"),
        ("no-format.bin", 500, "format|interpreter"),
        ("silent.sh", 502, "no output|nothing|header"),
        ("dies.sh", 502, "exit code 3|no header section"),
        ("killed.sh", 502, "signal 11|no header section"),
        ("no-header.sh", 502, "header"),
        ("broken-header.sh", 502, "header|field"),
        ("bad-status.sh", 502, "header|Status"),
        ("half-header.sh", 502, "header"),
        ("endless-header.sh", 502, "header"),
    ],
)
def test_broken(server: Server, name: str, status: int, reason: str) -> None:
    before = len(server.lines)
    response = server.get(f"/cgi-bin/{name}")
    assert response.status == status
    if status >= 500:
        line = wait_for(
            lambda: next((each for each in server.lines[before:] if name in each and re.search(reason, each)), None),
            f"the reason for {name}",
        )
        assert re.search(r'"request": "[0-9a-f]{16}"', line), line
    assert server.get("/cgi-bin/good.sh").text == "good\n"


def test_total_time(server: Server) -> None:
    """Neither a byte nor an end: 504, and the whole group goes, also a child in the background."""
    response = server.get("/cgi-bin/sleeps.sh")
    assert response.status == 504
    wait_until_gone(server, 7301)
    server.wait_for_log("sleeps.sh")


def test_a_program_that_ignores_sigterm(server: Server) -> None:
    assert server.get("/cgi-bin/stubborn.sh").status == 504
    wait_until_gone(server, 7302)


def test_idle_time(server: Server) -> None:
    """The answer has begun, so it can only be cut off; the client must see that."""
    with server.connect() as connection:
        connection.send("GET /cgi-bin/pauses.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(Exception, match="IncompleteRead"):
            connection.response()
    wait_until_gone(server, 7303)


def test_child_that_keeps_stdout(server: Server) -> None:
    """The program is over although somebody else still holds its stdout."""
    assert server.get("/cgi-bin/leaves.sh").text == "done\n"
    wait_until_gone(server, 7304)


def test_program_that_closes_stdout_early(server: Server) -> None:
    assert server.get("/cgi-bin/closes.sh").text == "all\n"
    wait_until_gone(server, 7305)


@pytest.mark.parametrize(
    ("name", "how"),
    [("dies.sh", "ended with exit code 3"), ("killed.sh", "was killed by signal 11"), ("dies-later.sh", "signal 11")],
)
def test_how_it_ended_is_logged(server: Server, name: str, how: str) -> None:
    before = len(server.lines)
    server.get(f"/cgi-bin/{name}")
    wait_for(lambda: any(how in line for line in server.lines[before:]), f"{how} in the log")


def test_client_that_leaves(server: Server) -> None:
    """Endless output to nobody: the group is killed as soon as the client is gone."""
    spawner = server.one_pid("spawner_main")
    with server.connect() as connection:
        connection.send("GET /cgi-bin/endless.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.socket.recv(1000)
        assert children_of(spawner)
    wait_for(lambda: not children_of(spawner), "the group is killed")


def test_stderr_is_tagged_and_bounded(server: Server) -> None:
    before = len(server.lines)
    assert server.get("/cgi-bin/floods.sh").text == "\n"
    wait_for(lambda: any("were dropped" in each for each in server.lines[before:]), "what is left out is said")
    lines = [each for each in server.lines[before:] if "floods.sh" in each and '"level"' in each]
    assert lines
    assert sum(map(len, lines)) < 200_000
    assert all(re.search(r'"request": "[0-9a-f]{16}"', each) for each in lines)


def test_stderr_of_an_ordinary_program(server: Server) -> None:
    server.get("/cgi-bin/dies.sh")
    line = server.wait_for_log(r'"event": "reason"')
    assert "dies.sh" in line
    assert re.search(r'"request": "[0-9a-f]{16}"', line)


def test_more_requests_than_programs(server: Server) -> None:
    """Four run, the others wait for queue_time and are told to come back; nobody waits longer."""
    connections = [server.connect() for _ in range(8)]
    try:
        for connection in connections:
            connection.send("GET /cgi-bin/sleeps.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.get("/").text == "index"
        responses = [connection.response() for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    assert sorted({response.status for response in responses}) == [503, 504]
    assert sum(response.status == 504 for response in responses) == 4
    assert all(response.header("retry-after") for response in responses if response.status == 503)
    wait_until_gone(server, 7301)
    assert server.get("/cgi-bin/good.sh").text == "good\n"


def test_spawner_is_killed(serve) -> None:
    """Its programs do not survive it, their requests are answered, and another spawner takes over."""
    server = serve(FILES, config=CONFIG.replace("request_time: 3s, idle_time: 1s", "request_time: 60s"))
    server.allowed.append("executor was killed by SIGKILL")
    spawner = server.one_pid("spawner_main")
    with server.connect() as get, server.connect() as post:
        get.send("GET /cgi-bin/sleeps.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        post.send("POST /cgi-bin/sleeps.sh HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        wait_for(lambda: len(sleepers(7301)) == 4, "both programs run")
        os.kill(spawner, 9)
        response = post.response("POST")
        assert response.status == 502
        assert response.header("x-incident")
        wait_for(lambda: server.pids("spawner_main") not in ([], [spawner]), "another spawner")
        wait_for(lambda: len(sleepers(7301)) == 2, "the GET runs once more, and nothing else")
    wait_until_gone(server, 7301)
    assert server.get("/cgi-bin/good.sh").text == "good\n"


def test_programs_end_with_the_server(serve) -> None:
    server = serve(FILES)
    with server.connect() as connection:
        connection.send("GET /cgi-bin/sleeps.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: len(sleepers(7301)) == 2, "the program runs")
        server.kill(15)
        server.wait_for_log("SIGTERM: stopping")
        server.kill(15)
        assert server.process.wait(30) == 0
    assert not sleepers(7301)
