"""CGI programs whose output is not what RFC 3875 section 6 asks for: status, the reason in the log, nobody survives.

What can differ between a new interpreter and a warm one is run in both.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from harness import Server, wait_for
from programs import HEAD, checked, expect_cut_off, wait_for_reason

PLAIN = b"Content-Type: text/plain\n"
#: Writes the file that the query names, or says whether it is warm.
CAT = """
import os, sys
name = os.environ['QUERY_STRING']
if name == 'warm':
    print('Content-Type: text/plain\\n\\n%s' % ('workers/zygote.' in open('/proc/self/cmdline').read()))
else:
    sys.stdout.buffer.write(open('../data/' + name, 'rb').read())
"""
#: Writes pieces, with a pause behind each: they reach the server one by one.
DRIP = """
import os, time
size = int(os.environ['QUERY_STRING'])
text = b'Status: 203 Slow\\r\\nContent-Type: text/plain\\r\\nX-Drip: yes\\n\\r\\nbody'
for at in range(0, len(text), size):
    os.write(1, text[at : at + size])
    time.sleep(0.004)
"""
ENDS = """
import os, sys
how, when = os.environ['QUERY_STRING'].split('-')
if when == 'after':
    print('Content-Type: text/plain\\n\\nbegun', flush=True)
if how == 'exit':
    sys.exit(3)
if how == 'now':
    os._exit(4)
if how == 'raise':
    raise RuntimeError('the reason')
if how == 'abort':
    os.abort()
if how == 'syntax':
    exec('(')
"""

OUTPUTS: dict[str, bytes] = {
    "nothing": b"",
    "line": b"\n",
    "lines": b"\r\n\r\n",
    "unended": PLAIN + b"X: y\n",
    "no-colon": PLAIN + b"just text\n\nmore",
    "html": b"<html>\n<body>\n\n</body>\n",
    "late": PLAIN + b"<html>\n\n",
    "bytes": bytes(range(256)) * 16,
    "elf": b"\x7fELF\x02\x01\x01\0\0\xff\xfe\n\n" + bytes(64),
    "zeros": bytes(5000),
    "space": b"Bad Name: x\n\n",
    "space-before-colon": b"Name : x\n\n",
    "no-name": b": x\n\n",
    "name-umlaut": "Grün: x\n\n".encode(),
    "control": b"X: a\x01b\n\n",
    "nul": b"X: a\0b\n\n",
    "delete": b"X: a\x7f\n\n",
    "split": b"X: a\rSet-Cookie: evil=1\n\n",
    "folded": b"X: a\n b: c\n\n",
    "many": b"".join(b"X-%d: y\n" % number for number in range(300)) + b"\n",
    "status-99": b"Status: 99\n\n",
    "status-600": b"Status: 600\n\n",
    "status-2000": b"Status: 2000\n\n",
    "status-word": b"Status: abc\n\n",
    "status-empty": b"Status:\n\n",
    "status-minus": b"Status: -20\n\n",
    "status-glued": b"Status: 200OK\n\n",
    "status-line": b"HTTP/1.1 200 OK\nContent-Type: text/plain\n\nx",
    "status-100": b"Status: 100 Continue\n\nHTTP/1.1 200 OK\r\n\r\n",
    "length-minus": b"Content-Length: -1\n\nx",
    "length-word": b"Content-Length: five\n\nx",
    "length-huge": b"Content-Length: 99999999999999999999\n\nx",
    "length-list": b"Content-Length: 1, 1\n\nx",
    "length-two": b"Content-Length: 1\nContent-Length: 2\n\nxx",
    "large": b"X: " + b"a" * 70_000 + b"\n\nbody",
    "large-lines": b"X-Field: aaaaaaaaaaaaaaaaaaaaaaa\n" * 2500 + b"\nbody",
    "location-empty": b"Location:\n\n",
    "location-local": b"Location: /bad%zz\n\n",
    # and what is right, though it does not look so
    "bare": PLAIN + b"\n",
    "status-text": b"Status: 200 with text\n" + PLAIN + b"\nbody",
    "status-299": b"Status: 299\n" + PLAIN + b"\nbody",
    "length-twice": b"Content-Length: 4\nContent-Length: 4\n\nbody",
    "utf8": PLAIN + "X-Name: Grüße\n\nGrüße".encode(),
    "mixed": b"Content-Type: text/plain\r\nX-A: 1\nX-B: 2\r\n\nbody",
    "location-spaces": b"Location: http://example.org/a b c\n\n",
    "none": b"Status: 204\n" + PLAIN + b"\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "unchanged": b'Status: 304\nETag: "a"\nContent-Length: 5\n\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil',
    "framing": b"Transfer-Encoding: chunked\nConnection: close\nContent-Length: 4\n\nbody",
    "long": PLAIN + b"Content-Length: 4\n\nbody and HTTP/1.1 200 OK\r\n\r\n",
    "long-large": PLAIN + b"Content-Length: 100000\n\n" + b"x" * 300_000,
    "short": PLAIN + b"Content-Length: 40\n\nbody",
    "short-large": PLAIN + b"Content-Length: 400000\n\n" + b"x" * 300_000,
}
FILES: dict[str, str | bytes] = {
    "cgi-bin/good.sh": HEAD + "echo good\n",
    "cgi-bin/cat.sh": '#!/bin/sh\nexec cat "../data/$QUERY_STRING"\n',
    "cgi-bin/cat.py": f"#!{sys.executable}\n{CAT}",
    "cgi-bin/drip.py": f"#!{sys.executable}\n{DRIP}",
    "cgi-bin/ends.py": f"#!{sys.executable}\n{ENDS}",
    "cgi-bin/mute.sh": "#!/bin/sh\nexec 1>&-\nsleep 1000\n",
    "cgi-bin/deaf.sh": "#!/bin/sh\nexec 0<&-\necho Content-Type: text/plain\necho\necho deaf\n",
    "cgi-bin/closed.sh": "#!/bin/sh\nexec 0<&- 1>&- 2>&-\n",
    "cgi-bin/both.sh": "#!/bin/sh\nexec 2>&1\necho Content-Type: text/plain\necho\nls /no/such/file\n",
    "cgi-bin/later.sh": HEAD
    + "echo begun\n(trap '' TERM HUP; sleep 4; echo never) &\nexec setsid -f sh -c 'sleep 4; echo never'\n",
    "cgi-bin/mutters.sh": HEAD + "printf 'a\\0b\\377\\303\\244\\001c\\n\\n\\r\\n\\tno end' >&2\necho done\n",
    "cgi-bin/na: me.sh": HEAD + "echo 'in: trouble' >&2\necho done\n",
    **{f"data/{name}": text for name, text in OUTPUTS.items()},
}
CONFIG = """
cgi: {warm: WARM, limits: {request_time: 0s, idle_time: 0s, kill_grace: 200ms}}
sites:
  - rules: [{match: {path: /cgi-bin/*}, handler: {cgi: cgi-bin}}]
"""


@pytest.fixture(scope="module")
def shared(serve_module) -> Server:
    started: Server = serve_module(FILES, config=CONFIG.replace("WARM", "auto"))
    wait_for(lambda: started.get("/cgi-bin/cat.py?warm").text == "True\n", "the interpreter is warm")
    return started


@pytest.fixture(scope="module")
def cold_shared(serve_module) -> Server:
    started: Server = serve_module(FILES, config=CONFIG.replace("WARM", "off"))
    assert started.get("/cgi-bin/cat.py?warm").text == "False\n"
    return started


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    yield from checked(shared)


@pytest.fixture(params=["warm", "cold"])
def either(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield from checked(request.getfixturevalue("shared" if request.param == "warm" else "cold_shared"))


REFUSED = [
    ("nothing", "no header section: it wrote nothing"),
    ("line", 'line "": it is empty, and no field came before it'),
    ("lines", 'line "": it is empty, and no field came before it'),
    ("unended", "no header section: no empty line is in the 30 bytes that it wrote"),
    ("no-colon", 'line "just text": it has no colon'),
    ("html", 'line "<html>": it has no colon'),
    ("late", 'line "<html>": it has no colon'),
    ("bytes", "no header section"),
    ("elf", "it has no colon"),
    ("zeros", "no header section: no empty line is in the 5000 bytes"),
    ("space", 'line "Bad Name: x": what stands before the colon is no name'),
    ("space-before-colon", "what stands before the colon is no name"),
    ("no-name", "what stands before the colon is no name"),
    ("name-umlaut", "what stands before the colon is no name"),
    ("control", "a control character"),
    ("nul", "a control character"),
    ("delete", "a control character"),
    ("split", "a control character"),
    ("folded", "what stands before the colon is no name"),
    ("many", 'line "X-256: y": it is one field too many'),
    ("status-99", 'line "Status: 99": a status is three digits'),
    ("status-600", "a status is three digits, 100 to 599"),
    ("status-2000", "a status is three digits"),
    ("status-word", 'line "Status: abc": a status is three digits'),
    ("status-empty", "a status is three digits"),
    ("status-minus", "a status is three digits"),
    ("status-glued", "a status is three digits"),
    ("status-line", 'line "HTTP/1.1 200 OK": it has no colon'),
    ("status-100", "a status below 200 is the server's to send"),
    ("length-minus", 'line "Content-Length: -1": a length is a number of bytes'),
    ("length-word", "a length is a number of bytes"),
    ("length-huge", "a length is a number of bytes"),
    ("length-list", "a length is a number of bytes"),
    ("length-two", 'line "Content-Length: 2": it is the second Content-Length, and another one'),
    ("large", "over its limit: no empty line is in its first 65536 bytes"),
    ("large-lines", "over its limit"),
    ("location-empty", "the Location is empty"),
    ("location-local", "its program's local redirect names no valid path"),
]
#: What the Python machinery of a warm interpreter could treat in another way.
REFUSED_IN_PYTHON = {"nothing", "unended", "bytes", "zeros", "large-lines", "no-colon"}


@pytest.mark.parametrize(("name", "reason"), REFUSED, ids=[name for name, _ in REFUSED])
def test_refused(server: Server, name: str, reason: str) -> None:
    """502 and nothing of what the program wrote; the log says which line is wrong and why."""
    before = len(server.lines)
    response = server.get(f"/cgi-bin/cat.sh?{name}")
    assert response.status == 502
    assert "evil" not in str(response)
    line = json.loads(wait_for_reason(server, before, "cat.sh", "502 for /cgi-bin/cat.sh"))
    assert reason in line["event"]
    assert line["level"] == "error"


@pytest.mark.parametrize(
    ("name", "reason"), [case for case in REFUSED if case[0] in REFUSED_IN_PYTHON], ids=sorted(REFUSED_IN_PYTHON)
)
def test_refused_in_python(either: Server, name: str, reason: str) -> None:
    before = len(either.lines)
    assert either.get(f"/cgi-bin/cat.py?{name}").status == 502
    assert reason in json.loads(wait_for_reason(either, before, "cat.py", "502 for /cgi-bin/cat.py"))["event"]


@pytest.mark.parametrize(
    ("name", "status", "reason", "field", "body"),
    [
        ("bare", 200, "OK", ("content-type", "text/plain"), ""),
        ("status-text", 200, "with text", None, "body"),
        ("status-299", 299, "Unknown", None, "body"),
        ("length-twice", 200, "OK", ("content-length", "4"), "body"),
        ("utf8", 200, "OK", ("x-name", "Grüße".encode().decode("latin-1")), "Grüße"),
        ("mixed", 200, "OK", ("x-b", "2"), "body"),
        ("location-spaces", 302, "Found", ("location", "http://example.org/a b c"), ""),
        ("none", 204, "No Content", None, ""),
        ("unchanged", 304, "Not Modified", ("etag", '"a"'), ""),
        ("framing", 200, "OK", ("content-length", "4"), "body"),
        ("long", 200, "OK", ("content-length", "4"), "body"),
    ],
)
def test_taken(server: Server, name: str, status: int, reason: str, field: tuple[str, str] | None, body: str) -> None:
    """And what follows on the connection is the answer to the next request."""
    with server.connect() as connection:
        for target in (f"/cgi-bin/cat.sh?{name}", "/cgi-bin/good.sh") * 2:
            connection.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
            response = connection.response()
            if "good" in target:
                assert response.text == "good\n"
                continue
            assert (response.status, response.reason, response.text) == (status, reason, body)
            assert response.header("transfer-encoding") in (None, "chunked")
            assert response.header("connection") is None
            if field is not None:
                assert response.all(field[0]) == [field[1]]


@pytest.mark.parametrize("name", ["long", "long-large"])
def test_body_longer_than_its_length(either: Server, name: str) -> None:
    """It is cut to its length, or the rest would be taken for the next response, and the owner is told."""
    length = 4 if name == "long" else 100_000
    for script in ("cat.sh", "cat.py"):
        before = len(either.lines)
        with either.connect() as connection:
            connection.send(f"GET /cgi-bin/{script}?{name} HTTP/1.1\r\nHost: x\r\n\r\n")
            assert len(connection.response().body) == length
            connection.send("GET /cgi-bin/good.sh HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.response().text == "good\n"
        wait_for_reason(either, before, script, f"its Content-Length is {length}, but its body goes on")


@pytest.mark.parametrize("name", ["short", "short-large"])
def test_body_shorter_than_its_length(either: Server, name: str) -> None:
    length = 40 if name == "short" else 400_000
    for script in ("cat.sh", "cat.py"):
        before = len(either.lines)
        expect_cut_off(either, f"/cgi-bin/{script}?{name}")
        wait_for_reason(either, before, script, f"its Content-Length is {length}, but its body ends before that")


@pytest.mark.parametrize("size", [1, 2, 7, 31])
def test_head_that_drips_in(either: Server, size: int) -> None:
    """One byte at a time, and cut wherever it may be: between CR and LF, before and behind the empty line."""
    response = either.get(f"/cgi-bin/drip.py?{size}")
    assert (response.status, response.reason, response.text) == (203, "Slow", "body")
    assert response.header("x-drip") == "yes"


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("exit", "the program ended with exit code 3"),
        ("now", "the program ended with exit code 4"),
        ("raise", "the program ended with exit code 1"),
        ("syntax", "the program ended with exit code 1"),
        ("abort", f"the program was killed by signal {int(signal.SIGABRT)}"),
    ],
)
def test_ends_before_and_after_its_head(either: Server, how: str, what: str) -> None:
    """A death by signal may have cut the body; an exit code says nothing of it."""
    either.allowed.append("the reason|SyntaxError|Traceback")
    before = len(either.lines)
    assert either.get(f"/cgi-bin/ends.py?{how}-before").status == 502
    wait_for_reason(either, before, "ends.py", what)
    wait_for_reason(either, before, "ends.py", "502 for .*it wrote nothing")
    if how in ("raise", "syntax"):
        wait_for_reason(either, before, "ends.py", "RuntimeError: the reason|SyntaxError")
    before = len(either.lines)
    if how == "abort":
        expect_cut_off(either, f"/cgi-bin/ends.py?{how}-after")
    else:
        assert either.get(f"/cgi-bin/ends.py?{how}-after").text == "begun\n"
    wait_for_reason(either, before, "ends.py", what)


# Standard streams


def test_stdout_is_closed_and_the_program_goes_on(server: Server) -> None:
    """Nothing can come any more: 502 at once, and it is not waited for."""
    before = len(server.lines)
    assert server.get("/cgi-bin/mute.sh").status == 502
    wait_for_reason(server, before, "mute.sh", "502 for .*it wrote nothing")


def test_everything_is_closed(server: Server) -> None:
    before = len(server.lines)
    assert server.get("/cgi-bin/closed.sh").status == 502
    wait_for_reason(server, before, "closed.sh", "502 for .*it wrote nothing")


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_stdin_is_closed(server: Server, size: int) -> None:
    assert server.post("/cgi-bin/deaf.sh", os.urandom(size)).text == "deaf\n"


def test_stderr_into_the_answer(server: Server) -> None:
    assert "/no/such/file" in server.get("/cgi-bin/both.sh").text


def test_somebody_writes_after_the_end(server: Server) -> None:
    """The program's end is that of its answer, whoever still has its stdout, in its group and out of it."""
    for _ in range(3):
        with server.connect() as connection:
            for target in ("later.sh", "good.sh"):
                connection.send(f"GET /cgi-bin/{target} HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.response().text == ("begun\n" if target == "later.sh" else "good\n")


def test_stderr_that_is_no_text(server: Server) -> None:
    """Lines in the log are lines of text whatever the program writes."""
    before = len(server.lines)
    assert server.get("/cgi-bin/mutters.sh").text == "done\n"
    wait_for_reason(server, before, "mutters.sh", "no end")
    records = [json.loads(line) for line in server.lines[before:] if line.startswith("{")]
    said = [record for record in records if record.get("script") == "/mutters.sh"]
    assert [line["event"] for line in said] == ["a?b\N{REPLACEMENT CHARACTER}ä?c", "\tno end"]


def test_stderr_of_a_name_with_a_colon(server: Server) -> None:
    before = len(server.lines)
    assert server.get("/cgi-bin/na:%20me.sh").text == "done\n"
    line = json.loads(wait_for_reason(server, before, "me.sh", "trouble"))
    assert (line["script"], line["event"]) == ("/na: me.sh", "in: trouble")
