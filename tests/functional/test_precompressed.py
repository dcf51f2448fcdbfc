"""Compressed neighbours over the wire: a.js.br, a.js.zst and a.js.gz beside a.js."""

from __future__ import annotations

import gzip
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import Response, Server, wait_for

OLD_S = 1_500_000_000  # long ago, so that tags are strong
SCRIPT = b"".join(b"let v%d = %d;\n" % (number, number * number) for number in range(2000))
PACKED = gzip.compress(SCRIPT, mtime=0)
LARGE = random.Random(3).randbytes(1_000_000)  # stands for an encoded file: bytes are bytes
CONFIG = """
threads: 1
sites:
- root: www
  precompressed: [br, zst, gz]
  rules:
  - {match: {path: /plain/*}, handler: {file: {root: other, precompressed: off}}}
  - {match: {path: /gzip/*}, handler: {file: {root: other, precompressed: gz}}}
"""


def write(path: Path, content: bytes, when: int = OLD_S) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (when, when))


@pytest.fixture
def server(serve) -> Server:
    started = serve({"www/empty": "", "other/empty": ""}, config=CONFIG)
    www, other = started.folder / "www", started.folder / "other"
    write(www / "a.js", SCRIPT)
    write(www / "a.js.gz", PACKED)
    write(www / "a.js.br", b"not really brotli, which nobody checks")
    write(www / "bare.css", b"p {}")
    write(www / "large.bin", LARGE[::-1])
    write(www / "large.bin.zst", LARGE)
    write(www / "index.html", b"<p>hello")
    write(www / "index.html.gz", gzip.compress(b"<p>hello", mtime=0))
    for folder in ("plain", "gzip"):
        write(other / folder / "b.js", SCRIPT)
        write(other / folder / "b.js.gz", PACKED)
        write(other / folder / "b.js.br", b"br")
    return started


def ask(server: Server, path: str, accept: str | None, **fields: str) -> Response:
    headers = {} if accept is None else {"Accept-Encoding": accept}
    return server.get(path, headers | {name.replace("_", "-"): value for name, value in fields.items()})


def coding_of(server: Server, path: str, accept: str | None) -> str | None:
    response = ask(server, path, accept)
    assert response.status == 200
    assert response.header("vary") == "Accept-Encoding"
    assert response.header("content-length") == str(len(response.body))
    return response.header("content-encoding")


def test_variants(server):
    response = ask(server, "/a.js", "gzip")
    assert gzip.decompress(response.body) == SCRIPT
    assert response.header("content-type") == "text/javascript; charset=utf-8"
    assert response.header("content-encoding") == "gzip"
    assert response.header("x-content-type-options") == "nosniff"
    plain = ask(server, "/a.js", None)
    assert (plain.body, plain.header("content-encoding")) == (SCRIPT, None)
    tags = {ask(server, "/a.js", accept).header("etag") for accept in ("gzip", "br", "identity")}
    assert len(tags) == 3
    assert gzip.decompress(ask(server, "/", "gzip").body) == b"<p>hello"


def test_choice(server):
    for accept, coding in (
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, deflate", "gzip"),
        ("br;q=0.5, gzip", "gzip"),
        ("br;q=0.5, gzip;q=0.5", "br"),
        ("*", "br"),
        ("*, br;q=0", "gzip"),
        ("identity, gzip;q=0.9", None),
        ("identity;q=0, *", "br"),
        ("gzip;q=0, br;q=0", None),
        ("zstd, deflate", None),
        ("", None),
        (None, None),
    ):
        for _ in range(2):
            assert coding_of(server, "/a.js", accept) == coding, accept
    assert coding_of(server, "/bare.css", "br, gzip") is None
    response = ask(server, "/bare.css", "identity;q=0, gzip")
    assert (response.status, response.header("vary")) == (406, "Accept-Encoding")
    assert ask(server, "/a.js", "*;q=0").status == 406


def test_the_neighbour_itself(server):
    response = ask(server, "/a.js.gz", "gzip")
    assert (response.body, response.header("content-encoding")) == (PACKED, None)
    assert response.header("content-type") == "application/gzip"


def test_settings_of_a_handler(server):
    response = ask(server, "/plain/b.js", "gzip, br")
    assert (response.body, response.header("content-encoding"), response.header("vary")) == (SCRIPT, None, None)
    assert ask(server, "/plain/b.js", "*;q=0").status == 200
    assert coding_of(server, "/gzip/b.js", "gzip, br") == "gzip"
    assert coding_of(server, "/gzip/b.js", "br") is None


def test_conditions_are_about_the_variant(server):
    packed, plain = (ask(server, "/a.js", accept).header("etag") for accept in ("gzip", None))
    assert packed is not None and plain is not None
    response = ask(server, "/a.js", "gzip", If_None_Match=packed)
    assert (response.status, response.header("etag"), response.header("vary")) == (304, packed, "Accept-Encoding")
    assert ask(server, "/a.js", "gzip", If_None_Match=plain).status == 200
    assert ask(server, "/a.js", None, If_None_Match=packed).status == 200
    assert ask(server, "/a.js", "gzip", If_Match=plain).status == 412


def test_ranges_are_of_the_encoded_bytes(server):
    for path, accept, content in (("/a.js", "gzip", PACKED), ("/large.bin", "zstd", LARGE)):
        for first, last in ((0, 9), (100, 499), (len(content) - 5, len(content) - 1)):
            response = ask(server, path, accept, Range=f"bytes={first}-{last}")
            assert (response.status, response.body) == (206, content[first : last + 1])
            assert response.header("content-range") == f"bytes {first}-{last}/{len(content)}"
            assert response.header("content-encoding") is not None
        tag = ask(server, path, accept).header("etag")
        assert ask(server, path, accept, Range="bytes=0-1", If_Range=tag).status == 206
        assert ask(server, path, None, Range="bytes=0-1", If_Range=tag).status == 200
        whole = ask(server, path, accept, Range="bytes=0-1,1000-1001")  # parts of an encoded whole have no notation
        assert (whole.status, whole.body) == (200, content)
    assert ask(server, "/large.bin", "zstd").body == LARGE
    assert ask(server, "/large.bin", "gzip").body == LARGE[::-1]
    # Both large variants are kept open now, which is no leak.
    server.remember_fds()


def test_head(server):
    response = server.get("/a.js", {"Accept-Encoding": "gzip"}, "HEAD")
    assert response.header("content-encoding") == "gzip"
    assert response.header("content-length") == str(len(PACKED))


def test_never_older_than_the_file(server):
    path = server.folder / "www/a.js"
    assert coding_of(server, "/a.js", "gzip") == "gzip"
    write(path, b"new();", OLD_S + 10)
    wait_for(lambda: ask(server, "/a.js", "gzip").body == b"new();", "the file itself, which is newer now")
    write(path.with_name("a.js.gz"), gzip.compress(b"new();", mtime=0), OLD_S + 10)
    wait_for(lambda: coding_of(server, "/a.js", "gzip") == "gzip", "the neighbour that was made anew")
    assert gzip.decompress(ask(server, "/a.js", "gzip").body) == b"new();"
    path.with_name("a.js.gz").unlink()
    wait_for(lambda: coding_of(server, "/a.js", "gzip") is None, "the neighbour has gone")


def test_a_cached_variant_needs_no_syscall_but_for_the_socket(serve, tmp_path):
    """Counted by strace: nothing but waiting, reading and writing, whichever variant is asked for."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    settings = "threads: 1\ncache: {revalidate: 1h}\nlog: {access: off}\n"
    server = serve({"www/empty": ""}, config=f"{settings}sites: [{{root: www, precompressed: [br, gz]}}]\n")
    write(server.folder / "www/a.js", SCRIPT)
    write(server.folder / "www/a.js.gz", PACKED)
    out = tmp_path / "trace"
    with server.connect() as connection:

        def get(accept: str) -> bytes:
            connection.send(f"GET /a.js HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\n\r\n")
            return connection.response().body

        assert (get("br, gzip"), get("identity")) == (PACKED, SCRIPT)
        core = server.one_pid("core_main")
        tracer = subprocess.Popen(
            [strace, "-f", "-q", "-o", str(out), "-p", str(core)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        try:
            status = Path(f"/proc/{core}/task")
            wait_for(
                lambda: (
                    tracer.poll() is not None
                    or all(re.search(r"TracerPid:\t[1-9]", (task / "status").read_text()) for task in status.iterdir())
                ),
                "every thread of the core is traced",
            )
            if tracer.poll() is not None:
                assert tracer.stderr is not None
                pytest.skip(f"strace may not trace here: {tracer.stderr.read().decode().strip()}")
            for _ in range(20):
                assert (get("br, gzip"), get("identity"), get("zstd")) == (PACKED, SCRIPT, SCRIPT)
        finally:
            tracer.terminate()
            tracer.wait()
            assert tracer.stderr is not None
            tracer.stderr.close()
    lines = out.read_text().splitlines()
    # Only the thread that serves: others wake up for their own reasons.
    loop = next(line.split()[0] for line in lines if "sendmsg(" in line)
    calls = [found[1] for line in lines if (found := re.match(rf"{loop} +(\w+)\(", line))]
    assert calls.count("sendmsg") == 60
    assert set(calls) <= {"epoll_wait", "epoll_pwait", "epoll_pwait2", "recvfrom", "sendmsg", "restart_syscall"}, calls
