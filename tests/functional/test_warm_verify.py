"""`warm: verify`: requests that may be run twice are, and scripts whose answers differ run cold from then on."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from harness import Server, wait_for
from programs import working_below

HEAD = "#!{python}\nimport os, sys\nwarm = 'workers/zygote.' in open('/proc/self/cmdline').read()\n"
#: Notes each of its runs in a file of its own name, and is the same in all of them unless its text says otherwise.
NOTES = "with open(__file__ + '.runs', 'a') as runs:\n    runs.write('warm ' if warm else 'cold ')\n"
ANSWER = "sys.stdout.write('Content-Type: text/plain\\n\\n' + 'x' * 100 + '\\n')\n"

SCRIPTS = {
    "same.py": ANSWER + "print('to stderr', file=sys.stderr)\n",
    "head.py": "print('X-Kind:', 'of the zygote' if warm else 'of a new one')\n" + ANSWER,
    "body.py": ANSWER + "print('\"warm\"' if warm else '\"cold\"')\n",
    "length.py": ANSWER + "print('more' if warm else '', end='')\n",
    "errors.py": ANSWER + "print('a line', 'w' if warm else 'c', file=sys.stderr)\n",
    "status.py": ANSWER + "sys.stdout.flush()\nos._exit(3 if warm else 0)\n",
    "signal.py": ANSWER + "sys.stdout.flush()\nwarm and os.kill(os.getpid(), 9)\n",
    "silent.py": "warm and sys.exit()\n" + ANSWER,
    "large.py": "sys.stdout.write('Content-Type: text/plain\\n\\n' + ('warm' if warm else 'cold') * 500_000)\n",
    "pieces.py": ANSWER + "sys.stdout.flush()\nimport time\nfor i in range(20):\n    time.sleep(0.01)\n"
    "    print('line', i, flush=True)\nprint('x' * 200_000)\n",
    "method.py": ANSWER + "print(os.environ['REQUEST_METHOD'], warm, sys.stdin.read())\n",
    "group.py": ANSWER + "import time\nsys.stdout.flush()\ntime.sleep(600)\n",
}
CONFIG = """
cgi: {{warm: verify}}
sites: [{{rules: [{{match: {{path: /cgi-bin/*}}, handler: {{cgi: "{folder}"}}}}]}}]
"""


@pytest.fixture(scope="module")
def server(serve_module, tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.getbasetemp() / "verify"
    python = Path(sys.executable).resolve()
    files = {f"../verify/{name}": HEAD.format(python=python) + NOTES + text for name, text in SCRIPTS.items()}
    found: Server = serve_module(files, config=CONFIG.format(folder=folder))
    for name in SCRIPTS:
        (folder / name).chmod(0o755)
    return found


def runs(server: Server, name: str) -> list[str]:
    """How the script has been run so far, in that order."""
    path = server.folder.parent / "verify" / f"{name}.runs"
    return path.read_text().split() if path.exists() else []


def until_both_ways(server: Server, name: str) -> int:
    """Until the interpreter has started: before, requests run cold only. The result says how many there were.

    The client does not wait for the run whose answer it does not get: here it has ended, too.
    """
    sent = 0

    def is_run_both_ways() -> bool:
        nonlocal sent
        sent += 1
        return bool(server.get(f"/cgi-bin/{name}").status) and "warm" in runs(server, name)

    wait_for(is_run_both_ways, f"{name} is run both ways")
    wait_for(lambda: is_idle(server), "every run has ended")
    return sent


def is_idle(server: Server) -> bool:
    return not working_below(server.folder.parent / "verify")


def test_the_same_both_ways(server: Server) -> None:
    sent = until_both_ways(server, "same.py")

    def is_run_both_ways() -> bool:
        nonlocal sent
        before = len(runs(server, "same.py"))
        assert server.get("/cgi-bin/same.py").text == "x" * 100 + "\n"
        sent += 1
        wait_for(lambda: len(runs(server, "same.py")) > before and is_idle(server), "every run has ended")
        return sorted(runs(server, "same.py")[before:]) == ["cold", "warm"]

    for _ in range(5):
        # A request that finds no process that waits runs cold only.
        wait_for(is_run_both_ways, "both runs")
        wait_for(lambda sent=sent: len(server.records("to stderr")) >= sent, "its line in the log")
        assert len(server.records("to stderr")) == sent  # only that of the run that was answered
    assert server.records("same.py runs cold") == []


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        (
            "head.py",
            r'head from byte 11: cold "ind: of a new one\x0aContent-Type: ", '
            r'warm "ind: of the zygote\x0aContent-Type:"',
        ),
        ("body.py", r'body from byte 102: cold "xxxxxx\x0a\x22cold\x22\x0a", warm "xxxxxx\x0a\x22warm\x22\x0a"'),
        ("length.py", r'body from byte 101: cold "xxxxxxx\x0a", warm "xxxxxxx\x0amore"'),
        ("errors.py", r'stderr from byte 7: cold "a line c\x0a", warm "a line w\x0a"'),
        ("status.py", "its end: cold exit code 0, warm exit code 3"),
        ("signal.py", "its end: cold exit code 0, warm signal 9"),
        ("silent.py", 'head from byte 0: cold "Content-Type: text/plain", warm ""'),
    ],
)
def test_what_differs_is_said_once_and_runs_cold(server: Server, name: str, difference: str) -> None:
    until_both_ways(server, name)

    def is_said() -> bool:
        found = server.get(f"/cgi-bin/{name}")
        assert found.status == 200
        assert found.text.startswith("x" * 100 + "\n")
        assert found.header("x-kind") in (None, "of a new one")
        return bool(server.records(f"{name} runs cold"))

    wait_for(is_said, "the log says what differs")
    wait_for(lambda: runs(server, name).count("warm") == 3, "the third run that differs")
    before = len(runs(server, name))
    for _ in range(3):
        server.get(f"/cgi-bin/{name}")
    assert runs(server, name)[before:] == ["cold"] * 3
    [record] = server.records(f"{name} runs cold")
    assert "3 of " in record["event"]
    assert difference in record["event"]


def test_only_safe_requests_are_run_twice(server: Server) -> None:
    until_both_ways(server, "method.py")
    before = len(runs(server, "method.py"))
    for _ in range(4):
        assert server.post("/cgi-bin/method.py", b"body").text.endswith("POST False body\n")
    assert runs(server, "method.py")[before:] == ["cold"] * 4
    assert "DELETE False" in server.get("/cgi-bin/method.py", method="DELETE").text
    assert runs(server, "method.py")[before + 4 :] == ["cold"]


def test_more_than_can_be_compared(server: Server) -> None:
    """It is answered in full, and nothing is said of it."""
    until_both_ways(server, "large.py")
    for _ in range(4):
        found = server.get("/cgi-bin/large.py")
        assert hashlib.sha1(found.body).hexdigest() == hashlib.sha1(b"cold" * 500_000).hexdigest()
    assert server.records("large.py runs cold") == []
    wait_for(lambda: not server.pids("large.py"), "both runs have ended")


def test_an_answer_that_comes_in_pieces(server: Server) -> None:
    until_both_ways(server, "pieces.py")
    expected = "x" * 100 + "\n" + "".join(f"line {i}\n" for i in range(20)) + "x" * 200_000 + "\n"
    for _ in range(2):
        assert server.get("/cgi-bin/pieces.py").text == expected
    assert server.records("pieces.py runs cold") == []


def test_a_client_that_leaves_ends_both(server: Server) -> None:
    until_both_ways(server, "same.py")
    with server.connect() as connection:
        connection.send("GET /cgi-bin/group.py HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: len(runs(server, "group.py")) == 2, "both run")
    wait_for(lambda: not server.pids("group.py"), "the new one is gone")
    server.get("/cgi-bin/same.py")
    assert server.records("group.py runs cold") == []
