"""CGI programs as RFC 3875 has them: variables, bodies, answers."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path

import pytest
from harness import SANITIZE, Server, wait_for

HEAD = "#!/bin/sh\necho Content-Type: text/plain\necho\n"


def printing(text: str) -> str:
    """A program that prints this and nothing else."""
    return "#!/bin/sh\ncat <<'THE_END'\n" + text + "\nTHE_END\n"


FILES: dict[str, str | bytes] = {
    "www/index.html": "index",
    "www/landed.txt": "landed",
    "cgi-bin/env.sh": HEAD + "env\n",
    "cgi-bin/dir/deep.sh": HEAD + 'echo "$SCRIPT_NAME|$PATH_INFO|$(pwd)"\n',
    "cgi-bin/args.sh": HEAD + 'for a in "$@"; do echo "<$a>"; done\n',
    "cgi-bin/sum.sh": HEAD + 'echo "$CONTENT_LENGTH $(cat | md5sum)"\n',
    "cgi-bin/slow.sh": HEAD + "echo first\nsleep 1\necho second\n",
    "cgi-bin/large.sh": HEAD + "head -c 20000000 /dev/zero | tr '\\0' a\n",
    "cgi-bin/status.sh": printing("Status: 418 I am a teapot\nContent-Type: text/plain\n\nshort and stout"),
    "cgi-bin/status-bare.sh": printing("Status: 201\nContent-Type: text/plain\n\nmade"),
    "cgi-bin/204.sh": printing("Status: 204 No Content\nContent-Type: text/plain\n"),
    "cgi-bin/304.sh": printing('Status: 304 Not Modified\nETag: "a"\nContent-Type: text/plain\n'),
    "cgi-bin/client.sh": printing("Location: http://example.org/there\n"),
    "cgi-bin/client-document.sh": printing(
        "Status: 303 See Other\nLocation: http://example.org/\nContent-Type: text/plain\n\nlook there"
    ),
    "cgi-bin/cookies.sh": printing(
        "Set-Cookie: a=1\nSet-Cookie: b=2; Path=/\nX-One: 1\nContent-Type: text/plain\n\nok"
    ),
    "cgi-bin/crlf.sh": "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\nX-A: b\\r\\n\\r\\nbody'\n",
    "cgi-bin/length.sh": printing("Content-Type: text/plain\nContent-Length: 5\n\n12345"),
    "cgi-bin/length-long.sh": printing("Content-Type: text/plain\nContent-Length: 50\n\n12345"),
    "cgi-bin/length-ok.sh": printing("Content-Type: text/plain\nContent-Length: 6\n\n12345"),
    "cgi-bin/line.sh": "#!/bin/sh\nprintf 'Content-Type: text/plain\\nX-A: b\\r\\nX-C: d\\n\\nbody'\n",
    "cgi-bin/eof.sh": HEAD + 'cat >/dev/null\necho "at the end"\n',
    "cgi-bin/count.sh": HEAD + "exec seq 1 3000000\n",
    "cgi-bin/wait.sh": HEAD + "echo first\nuntil [ -e ../go ]; do sleep 0.02; done\necho second\n",
    "cgi-bin/connection.sh": printing(
        "Connection: close\nTransfer-Encoding: chunked\nKeep-Alive: x\nContent-Type: text/plain\n\nplain"
    ),
    "cgi-bin/python.py": (
        "#!/usr/bin/env python3\nimport os\nprint('Content-Type: text/plain\\n')\nprint(os.environ['QUERY_STRING'])\n"
    ),
}


@pytest.fixture(scope="module")
def server(serve_module) -> Server:
    os.environ["SECRET_OF_THE_SERVER"] = "1"
    try:
        started: Server = serve_module(FILES)
    finally:
        del os.environ["SECRET_OF_THE_SERVER"]
    script = started.folder / "cgi-bin/plain.pl"
    script.write_text("not executable\n")
    script.chmod(0o644)
    return started


def working_below(folder: Path) -> list[int]:
    """Living processes whose working directory is there: programs and all that they have started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(folder):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def variables(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


# Programs and their folders


def test_deep_script_and_its_folder(server: Server) -> None:
    folder = server.folder / "cgi-bin/dir"
    assert server.get("/cgi-bin/dir/deep.sh/x/y").text == f"/cgi-bin/dir/deep.sh|/x/y|{folder}\n"


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


def test_streamed(server: Server) -> None:
    """The first piece is there while the program waits for the test to have seen it."""
    with server.connect() as connection:
        connection.send("GET /cgi-bin/wait.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        seen = b""
        while b"first\n" not in seen:
            seen += connection.socket.recv(1000)
        assert b"second" not in seen
        (server.folder / "go").touch()
        while not seen.endswith(b"0\r\n\r\n"):
            seen += connection.socket.recv(1000)
        assert b"second\n" in seen


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
        client.settimeout(30)
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


def test_status(server: Server) -> None:
    response = server.get("/cgi-bin/status.sh")
    assert (response.status, response.reason, response.text) == (418, "I am a teapot", "short and stout\n")
    response = server.get("/cgi-bin/status-bare.sh")
    assert (response.status, response.reason) == (201, "Created")


def test_answers_without_body(server: Server) -> None:
    with server.connect() as connection:
        for name, status in (("204", 204), ("304", 304)):
            response = connection.send(f"GET /cgi-bin/{name}.sh HTTP/1.1\r\nHost: x\r\n\r\n").response()
            assert (response.status, response.body) == (status, b"")
            assert response.header("transfer-encoding") is None
        assert connection.send("GET /landed.txt HTTP/1.1\r\nHost: x\r\n\r\n").response().text == "landed"


def test_client_redirect(server: Server) -> None:
    response = server.get("/cgi-bin/client.sh")
    assert (response.status, response.header("location")) == (302, "http://example.org/there")
    response = server.get("/cgi-bin/client-document.sh")
    assert (response.status, response.text) == (303, "look there\n")


def test_fields_of_one_name(server: Server) -> None:
    response = server.get("/cgi-bin/cookies.sh")
    assert response.all("set-cookie") == ["a=1", "b=2; Path=/"]
    assert response.header("x-one") == "1"


def test_line_ends(server: Server) -> None:
    response = server.get("/cgi-bin/crlf.sh")
    assert (response.header("x-a"), response.text) == ("b", "body")
    response = server.get("/cgi-bin/line.sh")
    assert (response.header("x-a"), response.header("x-c"), response.text) == ("b", "d", "body")


def test_length(server: Server) -> None:
    response = server.get("/cgi-bin/length.sh")
    assert response.header("content-length") == "5"
    assert response.text == "12345", "what is beyond the length is cut, or it would be taken for the next answer"


def test_body_that_is_shorter_than_its_length(server: Server) -> None:
    assert server.get("/cgi-bin/length-ok.sh").text == "12345\n"
    with server.connect() as connection:
        connection.send("GET /cgi-bin/length-long.sh HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(Exception, match="IncompleteRead"):
            connection.response()


def test_framing_is_the_servers(server: Server) -> None:
    response = server.get("/cgi-bin/connection.sh", {"Connection": "keep-alive"})
    assert response.text == "plain\n"
    framing = response.all("transfer-encoding") + response.all("content-length")
    assert framing in (["chunked"], ["6"]), "by length when the program was done before its output was looked at"
    assert response.header("keep-alive") is None
    assert response.header("connection") is None


def test_head(server: Server) -> None:
    response = server.get("/cgi-bin/length.sh", method="HEAD")
    assert (response.status, response.body) == (200, b"")


def test_head_of_a_large_output(server: Server) -> None:
    """The program's output is of no use then, which is no fault of anybody."""
    before = len(server.lines)
    response = server.get("/cgi-bin/count.sh", method="HEAD")
    assert (response.status, response.body) == (200, b"")
    wait_for(lambda: not working_below(server.folder / "cgi-bin"), "the program has ended")
    line = wait_for(
        lambda: next((line for line in server.lines[before:] if "was killed by signal 13" in line), None),
        "how it ended is in the log",
    )
    assert '"level": "info"' in line
    assert "count.sh" in line
    assert not [line for line in server.lines[before:] if re.search(r'"level": "(warning|error)"', line)]


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
