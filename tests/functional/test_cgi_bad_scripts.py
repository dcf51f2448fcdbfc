"""CGI programs whose files are not in order, or change while they are used: status, and the reason in the log."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Connection, Server, state_of_threads, wait_for, write_tree
from programs import HEAD, checked, held, programs, slots_taken, wait_for_reason, waiting

from appserver.supervisor.segments import STATE_RUNNING

#: Says which variables it has got, each as one line.
SHOW = f"""#!{sys.executable}
import os
print('Content-Type: text/plain; charset=utf-8\\n')
for name in ('SCRIPT_NAME', 'PATH_INFO', 'PATH_TRANSLATED', 'SCRIPT_FILENAME', 'QUERY_STRING', 'HTTP_X'):
    print(name, ascii(os.environb.get(name.encode(), b'-')))
print('EVIL' in os.environ)
"""
WAITS_PY = f"""#!{sys.executable}
import os, time
print('Content-Type: text/plain\\n\\nold', flush=True)
while not os.path.exists('../go'):
    time.sleep(0.01)
print('warm' if 'workers/zygote.' in open('/proc/self/cmdline').read() else 'cold')
"""
NEW_PY = f"#!{sys.executable}\nprint('Content-Type: text/plain\\n\\nnew')\n"
WAITS_SH = HEAD + "echo old\nuntil [ -e ../go ]; do sleep 0.02; done\necho end\n"

FILES: dict[str, str | bytes] = {
    "www/index.html": "index",
    "cgi-bin/good.sh": HEAD + "echo good\n",
    "cgi-bin/show.py": SHOW,
    "cgi-bin/waits.sh": WAITS_SH,
    "cgi-bin/waits.py": WAITS_PY,
    "cgi-bin/goes.py": NEW_PY,
    "cgi-bin/empty.sh": "",
    "cgi-bin/text.cgi": "just text\n",
    "cgi-bin/other-machine": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\xf3\x7f" + bytes(100),
    "cgi-bin/plain.sh": "echo Content-Type: text/plain\necho\necho plain\n",
    "cgi-bin/no-name.sh": "#!\necho\n",
    "cgi-bin/blank-name.sh": "#!  \t \necho\n",
    "cgi-bin/relative.sh": "#!no-such-shell\necho\n",
    "cgi-bin/folder-line.sh": "#!/usr/bin\necho\n",
    "cgi-bin/data-line.sh": "#!/etc/passwd\necho\n",
    "cgi-bin/long.sh": "#!/" + "a" * 300 + "\necho\n",
    "cgi-bin/marked.sh": b"\xef\xbb\xbf#!/bin/sh\necho\n",
    "cgi-bin/crlf.py": f"#!{sys.executable}\r\nprint('Content-Type: text/plain\\n')\r\n",
    "cgi-bin/wide.cgi": "\ufeff#!/bin/sh\necho\n".encode("utf-16-le"),
    "cgi-bin/script.missing": "x",
    "cgi-bin/script.folder": "x",
    "cgi-bin/script.data": "x",
    "cgi-bin/words in a name.sh": HEAD + 'echo "$SCRIPT_NAME"\n',
    "cgi-bin/grüße 日本.sh": HEAD + 'echo "$SCRIPT_NAME"\n',
    "cgi-bin/per%20cent.sh": HEAD + 'echo "$SCRIPT_NAME"\n',
    "cgi-bin/qu'o\"te$(id)`;&|.sh": HEAD + 'echo "$SCRIPT_NAME"\n',
    "cgi-bin/-dash.sh": HEAD + 'echo "$SCRIPT_NAME"\n',
    "cgi-bin/two\nlines.sh": HEAD + 'echo "$SCRIPT_NAME"\necho said >&2\n',
    "cgi-bin/" + "n" * 252 + ".sh": HEAD + "echo long\n",
    "cgi-bin/" + "d/" * 40 + "deep.sh": HEAD + 'echo "$PATH_INFO"\n',
    "cgi-bin/grüße dir/in it.py": SHOW,
}
CONFIG = """
cgi:
  limits: {request_time: 0s, idle_time: 0s, kill_grace: 200ms}
  interpreters: {".missing": interpreters/missing, ".folder": interpreters/folder, ".data": interpreters/data}
sites:
  - root: www
    rules: [{match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}]
"""


@pytest.fixture(scope="module")
def shared(serve_module, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    interpreters = write_tree(tmp_path_factory.mktemp("interpreters"), {"missing": "", "folder": "", "data": ""})
    for each in interpreters.iterdir():
        each.chmod(0o755)
    server: Server = serve_module(FILES, config=CONFIG.replace("interpreters/", f"{interpreters}/"))
    # What the configuration names was there at the start, or it would have been refused.
    (interpreters / "missing").unlink()
    (interpreters / "folder").unlink()
    (interpreters / "folder").mkdir()
    (interpreters / "data").chmod(0o644)
    folder = server.folder / "cgi-bin"
    latin = folder / os.fsdecode(b"latin-\xe4.sh")
    latin.write_text(HEAD + "echo latin\n")
    latin.chmod(0o755)
    (folder / "loop-a.sh").symlink_to("loop-b.sh")
    (folder / "loop-b.sh").symlink_to("loop-a.sh")
    (folder / "dangling.sh").symlink_to("nothing.sh")
    (folder / "absolute.sh").symlink_to("/bin/true")
    (folder / "recursive.sh").write_text(f"#!{folder}/recursive.sh\n")
    (folder / "by-text.cgi").write_text(f"#!{folder}/text.cgi\n")
    for name in ("recursive.sh", "by-text.cgi"):
        (folder / name).chmod(0o755)
    os.mkfifo(folder / "fifo.sh", 0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        with contextlib.chdir(folder):  # an address has no room for the whole path
            listener.bind("socket.sh")
        (folder / "socket.sh").chmod(0o755)
        yield server


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    yield from checked(shared)
    (shared.folder / "go").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("empty.sh", 500, "it is empty"),
        ("text.cgi", 500, "it has no #! line and is no program of this machine"),
        ("other-machine", 500, "is no program of this machine"),
        ("wide.cgi", 500, "it has no #! line and is no program of this machine"),
        ("marked.sh", 500, "it begins with a byte order mark: save it without one"),
        ("no-name.sh", 500, "its #! line names no interpreter"),
        ("blank-name.sh", 500, "its #! line names no interpreter"),
        ("relative.sh", 500, "its #! line must name its interpreter by an absolute path, not as no-such-shell"),
        ("folder-line.sh", 500, "its interpreter /usr/bin is no file"),
        ("data-line.sh", 500, "its interpreter /etc/passwd is not executable: chmod \\+x"),
        ("by-text.cgi", 500, "its interpreter \\S*/text.cgi is no program of this machine"),
        ("recursive.sh", 500, "its interpreter is a script, whose interpreter is one, and so on"),
        ("long.sh", 500, "its #! line is too long: the system reads 256 bytes"),
        ("crlf.py", 500, "its #! line ends in CR LF"),
        ("script.missing", 500, "its interpreter \\S*/missing is missing"),
        ("script.folder", 500, "its interpreter \\S*/folder is no file"),
        ("script.data", 500, "its interpreter \\S*/data is not executable: chmod \\+x"),
        ("loop-a.sh", 403, "/loop-a.sh is or .* link that is not followed, .* leads in a circle"),
        ("loop-a.sh/more", 403, "/loop-a.sh/more is or .* link that is not followed, .* leads in a circle"),
        ("absolute.sh", 403, "/absolute.sh is or leads through a symbolic link that leads out of the folder"),
        ("fifo.sh", 403, "/fifo.sh is neither a file nor a folder"),
        ("socket.sh", 403, "/socket.sh is neither a file nor a folder"),
    ],
)
def test_file_that_cannot_be_run(server: Server, name: str, status: int, reason: str) -> None:
    before = len(server.lines)
    for _ in range(2):
        assert server.get(f"/cgi-bin/{name}").status == status
    wait_for_reason(server, before, name.split("/")[0], reason)


def test_file_without_a_line_is_run_by_its_extension(server: Server) -> None:
    """And only that: a #! line that is wrong is not repaired by guessing, as the cases above show."""
    assert server.get("/cgi-bin/plain.sh").text == "plain\n"


@pytest.mark.parametrize(
    "target",
    [
        "dangling.sh",
        "nothing.sh",
        "good.sh%0a",
        "n" * 300 + ".sh",
        "good.sh.",
        "GOOD.SH",
        "d/" * 39 + "nothing/x",
        "x/" * 900,
    ],
)
def test_what_is_not_there(server: Server, target: str) -> None:
    assert server.get(f"/cgi-bin/{target}").status == 404


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("words%20in%20a%20name.sh", "/cgi-bin/words in a name.sh\n"),
        ("gr%C3%BC%C3%9Fe%20%E6%97%A5%E6%9C%AC.sh", "/cgi-bin/grüße 日本.sh\n"),
        ("per%2520cent.sh", "/cgi-bin/per%20cent.sh\n"),
        ("qu'o%22te$(id)%60;&%7C.sh", "/cgi-bin/qu'o\"te$(id)`;&|.sh\n"),
        ("-dash.sh", "/cgi-bin/-dash.sh\n"),
        ("-dash.sh?-x", "/cgi-bin/-dash.sh\n"),
        ("latin-%E4.sh", "latin\n"),
        ("two%0alines.sh", "/cgi-bin/two\nlines.sh\n"),
        ("n" * 252 + ".sh", "long\n"),
        ("d/" * 40 + "deep.sh", "\n"),
    ],
)
def test_names(server: Server, target: str, text: str) -> None:
    before = len(server.lines)
    response = server.get(f"/cgi-bin/{target}")
    assert (response.status, response.text) == (200, text)
    if "lines" in target:
        line = json.loads(wait_for_reason(server, before, "lines.sh", "said"))
        assert (line["script"], line["event"]) == ("/two?lines.sh", "said")


def shown(server: Server, target: str, fields: dict[str, str] | None = None) -> dict[str, str]:
    text = server.get(target, fields).text
    assert text.endswith("False\n"), text
    return dict(line.split(" ", 1) for line in text.splitlines()[:-1])


@pytest.mark.parametrize(
    ("path", "info"),
    [
        ("/a%2Fb", b"/a/b"),
        ("/a%0AEVIL=1", b"/a\nEVIL=1"),
        ("/a%0D%0AEVIL:%201", b"/a\r\nEVIL: 1"),
        ("/%E4%C3%A4", b"/\xe4\xc3\xa4"),
        ("/%25%32%66", b"/%2f"),
        ("//a/./b//", b"/a/b/"),
        ("/" + "x" * 5000, b"/" + b"x" * 5000),
        ("/" + "y/" * 2000, b"/" + b"y/" * 2000),
    ],
)
def test_path_info(server: Server, path: str, info: bytes) -> None:
    """Decoded once, also a slash; a newline in it is part of the value and begins no other variable."""
    found = shown(server, f"/cgi-bin/show.py{path}")
    assert found["SCRIPT_NAME"] == ascii(b"/cgi-bin/show.py")
    assert found["PATH_INFO"] == ascii(info)
    assert found["PATH_TRANSLATED"] == ascii(os.fsencode(server.folder / "www") + info)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("show.py%00", 400),
        ("show.py/a%00b", 400),
        ("%00/show.py", 400),
        ("show.py/a%2", 400),
        ("show.py/%C0%AE%C0%AE/x", 400),
        ("show.py/..%2f..%2f..%2fx", 400),
        ("show.py/a/..%2f..%2fgood.sh", 200),
        ("..%2fcgi-bin%2fgood.sh", 200),
    ],
)
def test_encoded_bytes_in_the_path(server: Server, target: str, status: int) -> None:
    """It is taken apart after it was decoded, so that no spelling leads elsewhere."""
    response = server.get(f"/cgi-bin/{target}")
    assert response.status == status
    assert status != 200 or response.text == "good\n"


@pytest.mark.parametrize("value", ["a\r\n EVIL=1", "a\nEVIL: 1", "a\0EVIL=1", "a\rEVIL=1"])
def test_control_characters_in_a_field(server: Server, value: str) -> None:
    response = server.exchange(f"GET /cgi-bin/show.py HTTP/1.1\r\nHost: x\r\nX: {value}\r\n\r\n")
    assert response.status == 400


def test_names_that_are_not_ascii_in_variables(server: Server) -> None:
    found = shown(server, "/cgi-bin/gr%C3%BC%C3%9Fe%20dir/in%20it.py?%C3%A4", {"X": "\xe4\xff"})
    name = "/cgi-bin/grüße dir/in it.py".encode()
    assert found["SCRIPT_NAME"] == ascii(name)
    assert found["SCRIPT_FILENAME"] == ascii(os.fsencode(server.folder) + name)
    assert (found["QUERY_STRING"], found["HTTP_X"]) == (ascii(b"%C3%A4"), ascii(b"\xe4\xff"))


# Files that change


@contextlib.contextmanager
def kept(path: Path) -> Iterator[None]:
    """The file is the same again afterwards."""
    text = path.read_bytes()
    try:
        yield
    finally:
        replace(path, text)


def replace(path: Path, text: bytes) -> None:
    """As one should: a new file takes the name."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(text)
    new.chmod(0o755)
    new.rename(path)


def warmed(server: Server) -> None:
    target = "/cgi-bin/waits.py"
    (server.folder / "go").touch()
    wait_for(lambda: server.get(target).text == "old\nwarm\n", f"{target} is warm")
    (server.folder / "go").unlink()


@pytest.mark.parametrize("name", ["waits.sh", "waits.py"])
@pytest.mark.parametrize("how", ["deleted", "replaced", "folder deleted"])
def test_script_changes_while_it_runs(server: Server, name: str, how: str) -> None:
    """What runs goes on with what it has; the next request sees the folder as it is."""
    folder = server.folder / "cgi-bin"
    path = folder / name
    if name.endswith(".py"):
        warmed(server)
    with kept(path), server.connect() as connection:
        connection.send(f"GET /cgi-bin/{name} HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: len(programs(server)) >= 1, "it runs")
        # Only when it has written has it read its own text as far as that.
        connection.read_until(b"old\n")
        if how == "replaced":
            replace(path, (HEAD + "echo new\n").encode() if name.endswith(".sh") else NEW_PY.encode())
            assert server.get(f"/cgi-bin/{name}").text == "new\n"
        elif how == "deleted":
            path.unlink()
            assert server.get(f"/cgi-bin/{name}").status == 404
        else:
            away = folder.with_name("away")
            folder.rename(away)
            try:
                assert server.get(f"/cgi-bin/{name}").status == 500
                wait_for_reason(server, 0, "cgi-bin", "the folder of programs cannot be opened: No such file")
            finally:
                away.rename(folder)
        (server.folder / "go").touch()
        assert (b"warm" if name.endswith(".py") else b"end") in connection.read_until(b"0\r\n\r\n")


@pytest.mark.parametrize("how", ["deleted", "not executable"])
def test_script_changes_between_look_up_and_start(server: Server, how: str) -> None:
    """A warm script waits for its process; until the zygote is given up, somebody takes the file away."""
    path = server.folder / "cgi-bin/goes.py"
    before = len(server.lines)

    def take_away() -> int:
        """The status of a request that was seen waiting; 0 when the machine was too slow to see it."""
        warmed(server)
        with kept(path), held(server) as zygote, server.connect() as connection:
            wait_for(lambda: waiting(server) == [zygote], "none of its processes waits")
            connection.send("GET /cgi-bin/goes.py HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for(lambda: waits_for_its_process(server) or is_answered(connection), "it waits for its process")
            if is_answered(connection):
                return 0
            if how == "deleted":
                path.unlink()
            else:
                path.chmod(0o644)
            status = connection.response().status
            return 0 if status == 200 else status

    assert server.get("/cgi-bin/goes.py").text == "new\n"
    assert wait_for(take_away, "a request is seen while it waits") == (404 if how == "deleted" else 500)
    reason = "it has gone since it was looked up" if how == "deleted" else "goes.py is not executable: chmod \\+x"
    wait_for_reason(server, before, "goes.py", reason)


def is_answered(connection: Connection) -> bool:
    return bool(select.select([connection.socket], [], [], 0)[0])


def waits_for_its_process(server: Server) -> bool:
    """The spawner has received a request, has started nothing for it, and sleeps."""
    spawner = server.one_pid("spawner_main")
    return slots_taken(server, STATE_RUNNING) == 1 and state_of_threads(spawner) == {"S"}
