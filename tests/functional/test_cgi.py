"""CGI programs: interpreters, large output, several on a connection, their process.

What RFC 3875 says of them is tested section by section in test_rfc3875_*.py.
"""

from __future__ import annotations

import hashlib
import re
import socket
from pathlib import Path

import pytest
from harness import PATIENCE_S, SANITIZE, Server
from programs import HEAD, printing, wait_for_reason, wait_until_gone

FILES: dict[str, str | bytes] = {
    "www/index.html": "index",
    "www/landed.txt": "landed",
    "cgi-bin/env.sh": HEAD + "env\n",
    "cgi-bin/dir/deep.sh": HEAD + 'echo "$SCRIPT_NAME|$PATH_INFO|$(pwd)"\n',
    "cgi-bin/args.sh": HEAD + 'for a in "$@"; do echo "<$a>"; done\n',
    "cgi-bin/sum.sh": HEAD + 'echo "$CONTENT_LENGTH $(cat | md5sum)"\n',
    "cgi-bin/large.sh": HEAD + "head -c 20000000 /dev/zero | tr '\\0' a\n",
    "cgi-bin/length-ok.sh": printing("Content-Type: text/plain\nContent-Length: 6\n\n12345"),
    "cgi-bin/count.sh": HEAD + "exec seq 1 3000000\n",
    "cgi-bin/connection.sh": printing(
        "Connection: close\nTransfer-Encoding: chunked\nKeep-Alive: x\nContent-Type: text/plain\n\nplain"
    ),
    "cgi-bin/python.py": (
        "#!/usr/bin/env python3\nimport os\nprint('Content-Type: text/plain\\n')\nprint(os.environ['QUERY_STRING'])\n"
    ),
}


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    started: Server = serve_module(FILES)
    return started


# Programs and their folders


def test_script_in_python(server: Server) -> None:
    assert server.get("/cgi-bin/python.py?q=1").text == "q=1\n"


def test_interpreter_by_extension(serve) -> None:
    config = """
cgi: {interpreters: {".zz": /bin/sh}, environment: {ADDED: "yes"}, pass_environment: [LANG]}
sites: [{rules: [{match: {path: /run/*}, handler: {cgi: cgi-bin}}]}]
"""
    server = serve({"cgi-bin/x.zz": "echo Content-Type: text/plain\necho\necho $ADDED $0\n"}, config=config)
    (server.folder / "cgi-bin/x.zz").chmod(0o644)
    assert server.get("/run/x.zz").text == f"yes {server.folder}/cgi-bin/x.zz\n"


# Answers


def memory_of(pid: int, name: str) -> int:
    """Bytes, by the name in /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]


@pytest.mark.skipif(bool(SANITIZE), reason="the sanitizer's quarantine of freed memory is what would be measured")
def test_slow_reader(server: Server) -> None:
    """What the client does not take stays in the program: every byte arrives, and the core grows by none of it."""
    core = server.one_pid("core_main")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE_S)
        client.connect(("127.0.0.1", server.port))
        Path(f"/proc/{core}/clear_refs").write_text("5")  # the peak counts from here
        before = memory_of(core, "VmRSS")
        client.sendall(b"GET /cgi-bin/count.sh HTTP/1.0\r\n\r\n")
        digest, length = hashlib.sha256(), 0
        file = client.makefile("rb")
        while file.readline() != b"\r\n":
            pass
        while data := file.read1(4096):
            digest.update(data)
            length += len(data)
        file.close()
        assert memory_of(core, "VmHWM") - before < 4 << 20
    whole = "".join(f"{number}\n" for number in range(1, 3_000_001)).encode()
    assert length == len(whole)
    assert digest.digest() == hashlib.sha256(whole).digest()


def test_large_output(server: Server) -> None:
    body = server.get("/cgi-bin/large.sh").body
    assert len(body) == 20_000_000
    assert body.count(b"a") == len(body)


def test_framing_is_the_servers(server: Server) -> None:
    response = server.get("/cgi-bin/connection.sh", {"Connection": "keep-alive"})
    assert response.text == "plain\n"
    framing = response.all("transfer-encoding") + response.all("content-length")
    assert framing in (["chunked"], ["6"]), "by length when the program was done before its output was looked at"
    assert response.header("keep-alive") is None
    assert response.header("connection") is None


def test_head_of_a_large_output(server: Server) -> None:
    """The program's output is of no use then, which is no fault of anybody."""
    before = len(server.lines)
    response = server.get("/cgi-bin/count.sh", method="HEAD")
    assert (response.status, response.body) == (200, b"")
    wait_until_gone(server)
    line = wait_for_reason(server, before, "count.sh", "was killed by signal 13")
    assert '"level": "info"' in line
    lines = [line for line in server.lines[before:] if "count.sh" in line]
    assert not [line for line in lines if re.search(r'"level": "(warning|error)"', line)]


def test_connection_goes_on(server: Server) -> None:
    """Several programs and a file on one connection, one after the other and pipelined."""
    targets = ["/cgi-bin/args.sh?one", "/cgi-bin/length-ok.sh", "/landed.txt", "/cgi-bin/args.sh?two"]
    answers = ["<one>\n", "12345\n", "landed", "<two>\n"]
    requests = [f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n" for target in targets]
    with server.connect() as connection:
        assert [connection.send(request).response().text for request in requests] == answers
        connection.send("".join(requests))
        assert [connection.response().text for _ in requests] == answers
        connection.send("POST /cgi-bin/sum.sh HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + requests[0])
        assert connection.response("POST").text.startswith("3 900150983cd24fb0d6963f7d28e17f72")
        assert connection.response().text == answers[0]


def test_what_is_no_program(server: Server) -> None:
    assert server.get("/cgi-bin/nothing.sh").status == 404
    assert server.get("/cgi-bin/").status in (403, 404)
    assert server.get("/cgi-bin/dir").status in (403, 404)
    assert server.get("/cgi-bin").status in (403, 404)


def test_concurrent(server: Server) -> None:
    connections = [server.connect() for _ in range(40)]
    try:
        for number, connection in enumerate(connections):
            connection.send(f"GET /cgi-bin/env.sh?n={number} HTTP/1.1\r\nHost: x\r\n\r\n")
        for number, connection in enumerate(connections):
            assert f"QUERY_STRING=n={number}\n" in connection.response().text
    finally:
        for connection in connections:
            connection.close()


# The process


def test_clean_process(serve) -> None:
    """Its own group, no controlling terminal, three descriptors, no signal ignored or blocked.

    And the limit of descriptors that the server was started with, not the one that it has raised for itself: select()
    cannot deal with numbers above 1023.
    """
    program = (
        HEAD + 'ls -l /proc/self/fd | sed -n "s/.* \\([0-9]*\\) -> .*/fd=\\1/p" | sort -u\n'
        "grep -E '^Sig(Blk|Ign)' /proc/self/status\nulimit -Sn\nulimit -Hn\n"
        "read -r line </proc/$$/stat\nset -- ${line##*) }\n"
        '[ "$3" = $$ ] && echo leader\necho tty=$5\n'
    )
    server = serve({"cgi-bin/me.sh": program}, prefix=("prlimit", "--nofile=777:4096"))
    lines = server.get("/cgi-bin/me.sh").text.split("\n")
    assert [line for line in lines if line.startswith("fd=")] == ["fd=0", "fd=1", "fd=2", "fd=3"]  # 3 is what ls reads
    assert [line.split()[1] for line in lines if line.startswith("Sig")] == ["0" * 16] * 2
    assert lines[6:10] == ["777", "4096", "leader", "tty=0"]
