"""Limits of CGI programs: the log names what is used up, cold and warm starts have the same, and nobody survives."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator

import pytest
from harness import SANITIZE, Server, wait_for
from programs import HEAD, expect_cut_off, wait_for_reason, working_below

PYTHON = "#!/usr/bin/python3 -u\nimport os, signal, sys, time\nprint('Content-Type: text/plain\\n')\n"
PERL = '#!/usr/bin/perl\n$| = 1;\nprint "Content-Type: text/plain\\n\\n";\n'
FILES: dict[str, str | bytes] = {
    "cgi-bin/good.sh": HEAD + "echo good\n",
    "cgi-bin/limits.sh": HEAD + "cat /proc/self/limits\n",
    "cgi-bin/limits.py": PYTHON + "for name in ('limits', 'environ'):\n    print(open('/proc/self/' + name).read())\n",
    "cgi-bin/limits.pl": PERL
    + "for my $name ('limits', 'environ') { open(my $f, '<', \"/proc/self/$name\"); print <$f>; }\n",
    "cgi-bin/spins.sh": HEAD + "while :; do :; done\n",
    "cgi-bin/spins.py": PYTHON + "while True:\n    pass\n",
    "cgi-bin/spins.pl": PERL + "1 while 1;\n",
    "cgi-bin/stubborn.py": PYTHON + "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass\n",
    "cgi-bin/grows.py": PYTHON + "held = []\nwhile True:\n    held.append(b'x' * 1000000)\n",
    "cgi-bin/writes.sh": HEAD + "exec head -c 3000000 /dev/zero >../large\n",
    "cgi-bin/opens.py": PYTHON + "held = []\nwhile True:\n    held.append(open('/dev/null'))\n",
    "cgi-bin/exact.sh": HEAD + "yes | head -c 4000\n",
    "cgi-bin/much.sh": "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%4001s' x\n",
    "cgi-bin/says.sh": "#!/bin/sh\nprintf 'Content-Type: text/plain\\nContent-Length: 4001\\n\\nx'\n",
    "cgi-bin/endless.sh": HEAD + "sleep 0.2\nexec yes\n",
    "cgi-bin/finishes.sh": HEAD
    + 'echo begun\n[ -n "$QUERY_STRING" ] || until [ -e ../gone ]; do sleep 0.02; done\nsleep 0.3\n'
    'yes | head -c 1000000\necho "$REQUEST_METHOD$QUERY_STRING" >>../finished\n',
    "cgi-bin/silent.sh": "#!/bin/sh\ntouch ../silent\nuntil [ -e ../gone ]; do sleep 0.02; done\nsleep 0.3\n"
    "echo silent >>../finished\n",
    "cgi-bin/daemon.sh": HEAD
    + "setsid sh -c 'sleep 1000 & sleep 1000' &\nuntil grep -q ^sh /proc/$!/cmdline; do :; done\necho done\n",
    "cgi-bin/waits.sh": HEAD + "sleep 1000 &\necho done\n",
    "cgi-bin/twice.py": PYTHON
    + "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.setsid()\n        for fd in range(3):\n"
    "            os.close(fd)\n        time.sleep(1000)\n    os._exit(0)\nos.wait()\nprint('done')\n",
    "cgi-bin/adopts.py": PYTHON
    + "program, (reader, writer) = os.getpid(), os.pipe()\nif os.fork() == 0:\n    middle = os.getpid()\n"
    "    if os.fork() == 0:\n        os.setsid()\n        while os.getppid() == middle:\n            time.sleep(0.01)\n"
    "        os.write(writer, b'%d' % os.getppid())\n        os._exit(0)\n    os._exit(0)\nos.wait()\n"
    "print(int(os.read(reader, 20)) == program)\n",
    "cgi-bin/group.sh": HEAD + "set -m\nsleep 1000 &\nsleep 1000 &\necho done\n",
    "cgi-bin/bomb.sh": HEAD + "i=0\nwhile [ $i -lt 200 ]; do setsid sleep 1000 & i=$((i + 1)); done\nwait\n",
    "cgi-bin/leaps.py": PYTHON
    + "for _ in range(40):\n    if os.fork() == 0:\n        os.setsid()\n        for _ in range(200):\n"
    "            if os.fork():\n                os._exit(0)\n        time.sleep(1000)\nprint('done')\n",
}
CONFIG = """
cgi: {limits: {request_time: 0s, idle_time: 0s, kill_grace: 100ms}}
sites:
  - rules:
      - {match: {path: /free/*}, handler: {cgi: cgi-bin}}
      - match: {path: /few/*}
        handler:
          cgi:
            directory: cgi-bin
            limits: {cpu_time: 1s, memory: 128MiB, file_size: 2MiB, open_files: 40, processes: 4000}
      - match: {path: /cold/*}
        handler:
          cgi:
            directory: cgi-bin
            warm: off
            limits: {cpu_time: 1s, memory: 128MiB, file_size: 2MiB, open_files: 40, processes: 4000}
      - match: {path: /finish/*}
        handler: {cgi: {directory: cgi-bin, on_disconnect: finish}}
      - match: {path: /finish-soon/*}
        handler: {cgi: {directory: cgi-bin, on_disconnect: finish, limits: {request_time: 4s}}}
      - {match: {path: /daemons/*}, handler: {cgi: {directory: cgi-bin, daemons: leave}}}
      - {match: {path: /little/*}, handler: {cgi: {directory: cgi-bin, limits: {output: 4000}}}}
      - {match: {path: /short/*}, handler: {cgi: {directory: cgi-bin, limits: {request_time: 3s}}}}
"""
SHOWN = {
    "Max cpu time": "1 2",
    "Max file size": "2097152 2097152",
    "Max data size": "134217728 134217728",
    "Max open files": "40 40",
    "Max processes": "4000 4000",
}


@pytest.fixture(scope="module")
def shared(serve_module) -> Server:
    started: Server = serve_module(FILES, config=CONFIG)
    return started


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """After each test nobody of a program is there any more."""
    yield shared
    wait_for(lambda: not programs(shared), "nobody that a program has started lives")
    shared.check_zombies()
    assert shared.get("/few/good.sh").text == "good\n"


def programs(server: Server) -> list[int]:
    """Programs and what they have started, in their folder and above it. Zygotes do not work there."""
    return [pid for pid in working_below(server.folder) if pid not in (server.process.pid, *server.pids("main"))]


def limits(text: str) -> dict[str, str]:
    lines = (re.split(r"\s{2,}", line.strip()) for line in text.splitlines())
    return {fields[0]: " ".join(fields[1:3]) for fields in lines if fields[0] in SHOWN}


@pytest.mark.parametrize("name", ["limits.sh", "limits.py", "limits.pl"])
def test_every_program_gets_them(server: Server, name: str) -> None:
    assert limits(server.get(f"/cold/{name}").text) == SHOWN
    assert limits(server.get(f"/free/{name}").text) != SHOWN

    def is_as_far_as_it_gets() -> bool:
        text = server.get(f"/few/{name}").text
        assert limits(text) == SHOWN
        return name == "limits.sh" or "REQUEST_METHOD=" not in text  # the zygote's own environment

    wait_for(is_as_far_as_it_gets, "the script runs in an interpreter that is kept")


@pytest.mark.parametrize("target", ["few/spins.sh", "few/spins.py", "few/spins.pl"])
def test_cpu_time(server: Server, target: str) -> None:
    before = len(server.lines)
    expect_cut_off(server, f"/{target}")
    name = target.partition("/")[2]
    line = wait_for_reason(server, before, name, "killed by SIGXCPU")
    assert f"{name}: the program was killed by SIGXCPU: it used more than cpu_time 1 s" in line


def test_cpu_time_of_one_that_ignores_the_signal(server: Server) -> None:
    expect_cut_off(server, "/few/stubborn.py")
    server.wait_for_log(
        "stubborn.py: the program was killed by SIGKILL: it used more than cpu_time 1 s and did not end"
    )


@pytest.mark.parametrize("rule", ["few", "cold"])
def test_memory(server: Server, rule: str) -> None:
    before = len(server.lines)
    server.get(f"/{rule}/grows.py")
    line = wait_for_reason(server, before, "grows.py", "grows.py: the program ended")
    assert re.search(r"exit code 1: it used 1[0-9][0-9] MiB, and memory allows 128 MiB", line)
    wait_for_reason(server, before, "/grows.py", "MemoryError")


def test_file_size(server: Server) -> None:
    expect_cut_off(server, "/few/writes.sh")
    server.wait_for_log("writes.sh: the program was killed by SIGXFSZ: it wrote a file larger than file_size 2 MiB")
    assert (server.folder / "large").stat().st_size == 2 * 1024 * 1024


def test_open_files(server: Server) -> None:
    server.get("/few/opens.py")
    server.wait_for_log(r"OSError: \[Errno 24\].*/opens.py")


def test_output(server: Server) -> None:
    """What is known to be too much is refused, what grows to it is cut off, and the program ends."""
    assert len(server.get("/little/exact.sh").text) == 4000
    for name in ("much.sh", "says.sh"):
        assert server.get(f"/little/{name}").status == 502
        server.wait_for_log(f"502 for /little/{name}: the program's output is larger than limits.output")
    with server.connect() as connection:
        connection.send("GET /little/endless.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        received = connection.file.read()
    assert received.count(b"y\n") == 2000
    assert not received.endswith(b"0\r\n\r\n")
    server.wait_for_log("/little/endless.sh: the program's output is larger than limits.output 4000 bytes: cut off")


@pytest.mark.parametrize("target", ["few/daemon.sh", "few/twice.py", "cold/twice.py", "few/group.sh"])
def test_nobody_is_left_behind(server: Server, target: str) -> None:
    """Not in another session, not in another group, not with another parent."""
    assert server.get(f"/{target}").text == "done\n"


def test_programs_may_finish_without_their_clients(server: Server) -> None:
    """Whether the answer has begun or not, and also when the client wants no body; in whatever time is theirs."""
    finished = server.folder / "finished"
    with server.connect() as begun, server.connect() as silent:
        begun.send("GET /finish/finishes.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        begun.read_until(b"begun")
        silent.send("GET /finish/silent.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for((server.folder / "silent").exists, "the program runs")
    (server.folder / "gone").write_text("")
    assert server.get("/finish/finishes.sh?head", method="HEAD").status == 200
    wait_for(
        lambda: finished.exists() and sorted(finished.read_text().split()) == ["GET", "HEADhead", "silent"],
        "all three have come to their ends",
    )
    (server.folder / "gone").unlink()
    with server.connect() as connection:
        connection.send("GET /finish-soon/finishes.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.read_until(b"begun")
    server.wait_for_log("finishes.sh: killed at its time limit")
    assert len(finished.read_text().split()) == 3


def test_daemons_can_be_left_alone(server: Server) -> None:
    """Who is in the program's group dies with it nevertheless."""
    assert server.get("/daemons/daemon.sh").text == "done\n"
    assert server.get("/daemons/waits.sh").text == "done\n"

    def daemons() -> list[int]:
        """The three of them, when nobody of another group is there any more."""
        left = programs(server)
        with contextlib.suppress(ProcessLookupError):
            if len(left) == 3 and len({os.getpgid(pid) for pid in left}) == 1:
                return left
        return []

    for pid in wait_for(daemons, "the daemons alone are left"):
        os.kill(pid, signal.SIGKILL)


def test_orphans_are_the_programs_while_it_runs(server: Server) -> None:
    assert server.get("/few/adopts.py").text == "True\n"


def test_a_crowd_of_sessions(server: Server) -> None:
    """Each in a session of its own, and the program is killed at its time limit."""
    expect_cut_off(server, "/short/bomb.sh")
    server.wait_for_log("bomb.sh: killed at its time limit")


def test_a_crowd_that_leaps(server: Server) -> None:
    """Processes that fork and end, each in its own session: whoever kills one finds the next."""
    assert server.get("/free/leaps.py").text.count("done") == 1


def test_cpu_time_is_accounted(serve) -> None:
    server: Server = serve(
        {"cgi-bin/works.sh": HEAD + "i=0\nwhile [ $i -lt 100000 ]; do i=$((i + 1)); done\necho done\n"},
        config="log: {access: json}\nhealth: {metrics: /metrics}\n"
        "sites: [{rules: [{match: {path: /*}, handler: {cgi: cgi-bin}}]}]\n",
    )
    assert server.get("/works.sh").text == "done\n"
    line = server.wait_for_log('"cpu_ms":')
    found = re.search(r'"cpu_ms": ?([0-9.]+)', line)
    assert found and float(found[1]) > (1 if SANITIZE else 5)
    metrics = server.get("/metrics").text
    used = re.search(r'cherokee_request_cpu_seconds_total\{[^}]*handler="cgi"[^}]*\} ([0-9.e-]+)', metrics)
    assert used and float(used[1]) > 0
