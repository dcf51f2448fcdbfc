"""Clients that leave or send too much, and programs that multiply: nothing of them stays.

That is: no process, no descriptor, no slot.
"""

from __future__ import annotations

import random
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness import PATIENCE_S, Connection, Server, children_of, command_of, wait_for
from programs import (
    HEAD,
    checked,
    expect_cut_off,
    programs,
    wait_for_reason,
    wait_until_as_before,
    wait_until_gone,
    waiting,
)

#: In a group of its own a child; the program goes over to the group of the spawner, which is in the same session.
TURNCOAT = f"""#!{sys.executable}
import os, signal, time
if os.fork() == 0:
    time.sleep(1000)
os.setpgid(0, os.getpgid(os.getppid()))
for number in (signal.SIGTERM, signal.SIGHUP):
    if os.environ['QUERY_STRING'] == 'stubborn':
        signal.signal(number, signal.SIG_IGN)
open('../turned', 'w').close()
time.sleep(1000)
"""
#: 100 processes, each of which a child of its own replaces at once, twice over: 300, of which about 100 live.
BOMB = f"""#!{sys.executable} -I
import os, time
print('Content-Type: text/plain\\n\\nbegun', flush=True)
for _ in range(100):
    if os.fork() == 0:
        for _ in range(2):
            if os.fork():
                os._exit(0)
        time.sleep(1000)
open('../exploded', 'w').close()
if os.environ['QUERY_STRING'] == 'stays':
    time.sleep(1000)
"""
WARM = f"""#!{sys.executable}
import os, sys, time
data = sys.stdin.buffer.read()
print('Content-Type: text/plain\\n')
print(len(data), flush=True)
if os.environ['QUERY_STRING']:
    time.sleep(float(os.environ['QUERY_STRING']))
print('end')
"""
FILES: dict[str, str | bytes] = {
    "www/index.html": "index",
    "cgi-bin/good.sh": HEAD + "echo good\n",
    "cgi-bin/deaf.sh": HEAD + "echo early\n",
    "cgi-bin/sum.sh": HEAD + "wc -c\n",
    "cgi-bin/large.sh": HEAD + "exec seq 1 100000\n",
    "cgi-bin/pause.sh": HEAD + "echo first\nsleep 0.05\necho end\n",
    "cgi-bin/sleeps.sh": "#!/bin/sh\nsleep 1000 &\nsleep 1000\n",
    "cgi-bin/sleeps-later.sh": HEAD + "echo begun\nsleep 1000\n",
    "cgi-bin/promises.sh": "#!/bin/sh\nprintf 'Content-Length: 1000\\n\\nbegun'\nsleep 1000\n",
    "cgi-bin/keeps.sh": "#!/bin/sh\nprintf 'Content-Length: 5\\n\\nbegun'\nuntil [ -e ../go ]; do sleep 0.02; done\n"
    "echo >../gone\n",
    "cgi-bin/stubborn.sh": HEAD + "trap '' PIPE TERM HUP\nwhile :; do echo tick; sleep 0.01; done 2>/dev/null\n",
    "cgi-bin/turncoat.py": TURNCOAT,
    "cgi-bin/bomb.py": BOMB,
    "cgi-bin/read.py": WARM,
}
RULES = """
sites:
  - root: www
    rules:
      - {match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}
      - {match: {path: /streams/*}, handler: {cgi: {directory: cgi-bin, stream_bodies: true}}}
"""
CONFIG = (
    "limits: {header_size: 256KiB, body_size: 200MiB}\n"
    "cgi: {limits: {request_time: 0s, idle_time: 0s, kill_grace: 100ms, programs: 16, queue: 1000, queue_time: 1h}}\n"
    + RULES
)


@pytest.fixture(scope="module")
def shared(serve_module) -> Server:
    """Without limits of time: whoever stays, stays for ever."""
    started: Server = serve_module(FILES, config=CONFIG)
    return started


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    yield from checked(shared)
    for name in ("go", "gone", "turned", "exploded"):
        (shared.folder / name).unlink(missing_ok=True)


@pytest.fixture
def timed(serve) -> Iterator[Server]:
    """A program's time is short, and yet enough for all that it has to do before it is over."""
    limits = "{request_time: 6s, idle_time: 0s, kill_grace: 100ms}"
    started: Server = serve(FILES, config=f"cgi: {{limits: {limits}}}\n{RULES}")
    yield started
    wait_until_as_before(started)


def asked(name: str, fields: str = "", method: str = "GET") -> str:
    return f"{method} /cgi-bin/{name} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"


@contextmanager
def leaving(server: Server, how: str) -> Iterator[Connection]:
    """A client that `closes` its connection or `resets` it."""
    with server.connect() as connection:
        yield connection
        if how == "resets":
            connection.reset_at_close()


def sleepers(server: Server) -> list[int]:
    """Of the programs those that are asked for to see that none is started; of others the end may still be seen."""
    return [pid for pid in programs(server) if "sleep" in command_of(pid)]


# Clients that leave


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("what", ["", "GET /cgi-bin/sleeps.sh HTTP/1.1\r\nHos", "half a body", "half a chunk"])
def test_client_leaves_before_its_request_is_whole(server: Server, what: str, how: str) -> None:
    """No program has been started for it."""
    if what == "half a body":
        what = asked("sleeps.sh", "Content-Length: 2000000\r\n", "POST") + "x" * 1_500_000
    if what == "half a chunk":
        what = asked("sleeps.sh", "Transfer-Encoding: chunked\r\n", "POST") + "ffffff\r\n" + "x" * 1_500_000
    with leaving(server, how) as connection:
        connection.send(what)
    assert server.get("/cgi-bin/good.sh").text == "good\n"
    assert not sleepers(server)


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("name", ["sleeps.sh", "sleeps-later.sh", "promises.sh", "stubborn.sh", "read.py?1000"])
def test_client_leaves_while_its_program_runs(server: Server, name: str, how: str) -> None:
    """Before its answer and within it, whether that has a length or not, whatever the program does about signals."""
    if name == "read.py?1000":
        wait_for(lambda: waiting(server) or not server.get("/cgi-bin/read.py"), "a zygote")
    with leaving(server, how) as connection:
        connection.send(asked(name))
        if name != "sleeps.sh":
            assert connection.socket.recv(1000)
        wait_for(lambda: programs(server), "the program runs")
    wait_until_gone(server)


def test_client_that_has_everything_leaves(server: Server) -> None:
    """What was promised by Content-Length is there: the program may go on with something else."""
    with server.connect() as connection:
        assert connection.send(asked("keeps.sh")).response().text == "begun"
    assert server.get("/cgi-bin/good.sh").text == "good\n"
    assert programs(server), "it still runs"
    (server.folder / "go").touch()
    wait_for((server.folder / "gone").exists, "it has come to its own end")


# Bodies that nobody reads


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_100_megabytes_for_a_program_that_reads_nothing(server: Server, chunked: bool) -> None:
    """It is answered early as it were: nothing of the body was ever asked for."""
    piece = b"x" * 1_000_000
    with server.connect() as connection:
        if chunked:
            connection.send(asked("deaf.sh", "Transfer-Encoding: chunked\r\n", "POST"))
            for _ in range(100):
                connection.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
            connection.send("0\r\n\r\n")
        else:
            connection.send(asked("deaf.sh", "Content-Length: 100000000\r\n", "POST"))
            for _ in range(100):
                connection.send(piece)
        assert connection.response("POST").text == "early\n"
        assert connection.send(asked("good.sh")).response().text == "good\n"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_streamed_body_for_a_program_that_reads_nothing(server: Server, chunked: bool) -> None:
    """The answer is there although most of the body is still to come, of which nothing is needed for it."""
    fields = "Transfer-Encoding: chunked\r\n" if chunked else "Content-Length: 100000000\r\n"
    with server.connect() as connection:
        connection.send(f"POST /streams/deaf.sh HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
        connection.send(b"10000\r\n" * chunked + b"x" * 0x10000)
        assert connection.response("POST").text == "early\n"


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("name", ["sleeps.sh", "sleeps-later.sh", "sum.sh", "promises.sh"])
def test_client_leaves_within_its_streamed_body(server: Server, name: str, how: str) -> None:
    with leaving(server, how) as connection:
        connection.send(f"POST /streams/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        connection.send(b"x" * 100_000)
        wait_for(lambda: programs(server), "the program runs")
    wait_until_gone(server)


def test_body_over_its_limit(server: Server) -> None:
    """413 from its length alone, and no program."""
    with server.connect() as connection:
        connection.send(asked("sleeps.sh", "Content-Length: 300000000\r\n", "POST"))
        assert connection.response("POST").status == 413
    assert not sleepers(server)


# Heads that no program can get


def test_many_fields(server: Server) -> None:
    """100 fields are what a head may have; all of them are variables then."""
    fields = "".join(f"X-{number}: {number}\r\n" for number in range(99))
    assert server.exchange(asked("good.sh", fields)).text == "good\n"
    assert server.exchange(asked("good.sh", fields + "X-More: x\r\n")).status == 431


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ([140_000], "good.sh: its environment and arguments are too large for the system"),
        ([100_000, 100_000], "431 for /cgi-bin/good.sh: its target and header fields are too large"),
    ],
    ids=["one variable", "all of them"],
)
def test_fields_that_are_too_large(server: Server, sizes: list[int], reason: str) -> None:
    """The system takes 128 KiB for one variable, a pool's queue 192 KiB for a request."""
    before = len(server.lines)
    fields = "".join(f"X-{number}: {'a' * size}\r\n" for number, size in enumerate(sizes))
    with server.connect() as connection:
        assert connection.send(asked("good.sh", fields)).response().status == 431
        assert connection.send(asked("good.sh")).response().text == "good\n"
    wait_for_reason(server, before, "good.sh", reason)


# Programs that multiply, and that leave their group


@pytest.mark.parametrize("how", ["ends", "stays"])
def test_fork_bomb(request: pytest.FixtureRequest, how: str) -> None:
    """300 processes in a chain of generations, whose first one has ended, or ends at its limit of time."""
    server: Server = request.getfixturevalue("server" if how == "ends" else "timed")
    target = f"/cgi-bin/bomb.py?{how}"
    if how == "ends":
        assert server.get(target).text == "begun\n"
    else:
        expect_cut_off(server, target)
        wait_for_reason(server, 0, "bomb.py", "killed at its time limit")
    assert (server.folder / "exploded").exists()
    wait_until_gone(server)


@pytest.mark.parametrize("how", ["mild", "stubborn"])
@pytest.mark.parametrize("end", ["limit", "client"])
def test_program_leaves_its_group(request: pytest.FixtureRequest, how: str, end: str) -> None:
    """A signal to the group would reach its child, which is in there still, and not itself."""
    server: Server = request.getfixturevalue("timed" if end == "limit" else "server")
    with server.connect() as connection:
        connection.send(asked(f"turncoat.py?{how}"))
        wait_for((server.folder / "turned").exists, "it is in another group")
        if end == "limit":
            assert connection.response().status == 504
            wait_for_reason(server, 0, "turncoat.py", "killed at its time limit|exceeded request_time")
    wait_until_gone(server)
    assert len(server.pids("spawner_main")) == 1


# Many at once


def leave(connection: Connection, chance: random.Random) -> None:
    """At a random place of its exchange."""
    place = chance.choice(["connected", "head", "body", "waits", "answer"])
    if place == "head":
        connection.send("POST /cgi-bin/sum.sh HTTP/1.1\r\nHo")
    elif place == "body":
        connection.send(asked("sum.sh", "Content-Length: 200000\r\n", "POST") + "x" * chance.randrange(200_000))
    elif place != "connected":
        connection.send(asked(chance.choice(["large.sh", "pause.sh", "read.py?0.05", "sleeps-later.sh", "good.sh"])))
        if place == "answer":
            connection.socket.recv(chance.choice([10, 1000]))
    if chance.random() < 0.5:
        connection.reset_at_close()


def stay(connection: Connection, chance: random.Random) -> str:
    """Two requests; what is wrong first, or nothing."""
    for _ in range(2):
        name = chance.choice(["good.sh", "large.sh", "pause.sh", "read.py?", "read.py?0.02", "sum.sh"])
        size = chance.randrange(150_000) if name[0] in "rs" else 0
        head = asked(name, f"Content-Length: {size}\r\n", "POST") if size else asked(name)
        response = connection.send(head).send(b"x" * size).response()
        wanted = {
            "good.sh": "good\n",
            "large.sh": "".join(f"{number}\n" for number in range(1, 100_001)),
            "pause.sh": "first\nend\n",
            "sum.sh": f"{size}\n",
        }.get(name, f"{size}\nend\n")
        if (response.status, response.text) != (200, wanted):
            return f"{name}: {response.status} with {len(response.body)} bytes, {response.text[:80]!r}"
    return ""


def test_200_clients_of_which_a_third_leaves(server: Server) -> None:
    """Who stays is answered; afterwards processes, descriptors and slots are as before."""
    wait_for(lambda: server.get("/cgi-bin/read.py").text and waiting(server), "a zygote")
    ours = [pid for pid in children_of(server.process.pid) if "zygote" not in command_of(pid)]
    wrong: list[str] = []

    def client(number: int) -> None:
        chance = random.Random(number)
        try:
            with server.connect() as connection:
                if number % 3 == 0:
                    leave(connection, chance)
                elif said := stay(connection, chance):
                    wrong.append(f"{number}: {said}")
        except Exception as error:  # a thread's own would go unseen
            wrong.append(f"{number}: {error!r}")

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_S)
    assert not [thread for thread in threads if thread.is_alive()]
    assert wrong == []
    wait_until_as_before(server)
    after = [pid for pid in children_of(server.process.pid) if "zygote" not in command_of(pid)]
    assert sorted(after) == sorted(ours)
    assert not [line for line in server.lines if re.search("short of something|no executor became free", line)]
