"""Pools under other interpreters than the server's: every Python from 3.9 on that this machine has, PyPy, and virtual
environments named by their folder."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Server, wait_for

from tests.interpreters import NAMES, WHERE, interpreters

MODULE_OF_VENV = "def where():\n    return 'in the virtual environment'\n"

APPLICATION = r"""
import hashlib, json, os, platform, sys, threading, wsgiref.validate

def inner(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fails":
        raise LookupError("as asked")
    if path == "/exits":
        os._exit(3)
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"%d " % number for number in range(1000))
    if path == "/large":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "200000")])
        return [b"x" * 200000]
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    answer = json.dumps({
        "version": list(sys.version_info[:2]), "implementation": platform.python_implementation(),
        "executable": sys.executable, "pid": os.getpid(), "sha256": hashlib.sha256(body).hexdigest(),
        "prefix": sys.prefix,
    }).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]

application = wsgiref.validate.validator(inner)
"""

SCRIPT = r"""
from appserver_handler import Response
from . import _words

def handle(request):
    if request.method == "POST":
        upload = request.files["file"]
        return {"name": upload.filename, "size": upload.size, "field": request.form()["field"]}
    if request.path_info == "/pieces":
        return (str(number) for number in range(5))
    return Response(_words.WORD, 201, {"X-Own": "yes"})
"""


@pytest.fixture(scope="module")
def server(serve_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A pool for each interpreter, and one for the server's own."""
    if not interpreters():
        pytest.skip(f"no other Python on this machine: none of {WHERE}")
    lines, rules = [], []
    for number, path in enumerate([sys.executable, *interpreters().values()]):
        common = f"interpreter: {path}, processes: 1, threads: 3"
        lines.append(f"  app{number}: {{python: 'app:application', {common}}}")
        lines.append(f"  scripts{number}: {{scripts: scripts{number}, {common}}}")
        rules.append(f"      - {{match: {{path: /app{number}/*}}, handler: {{python: app{number}}}}}")
        rules.append(f"      - {{match: {{path: /scripts{number}/*}}, handler: {{scripts: scripts{number}}}}}")
    config = "log: {access: 'off'}\npools:\n" + "\n".join(lines) + "\nsites:\n  - rules:\n" + "\n".join(rules)
    files = {"app.py": APPLICATION}
    for number in range(len(interpreters()) + 1):
        files |= {f"scripts{number}/shop/cart.py": SCRIPT, f"scripts{number}/shop/_words.py": "WORD = 'word'\n"}
    yield serve_module(files, config=config)


@pytest.fixture(params=range(len(NAMES) + 1))
def number(request: pytest.FixtureRequest) -> int:
    """One pool after the other; 0 is the server's own interpreter."""
    if request.param > len(interpreters()):
        pytest.skip(f"this machine has only {len(interpreters())} other interpreters: {', '.join(interpreters())}")
    return int(request.param)


def test_application(server: Server, number: int) -> None:
    body = random.Random(number).randbytes(300_000)
    for size in (0, 10, 300_000):
        found = json.loads(server.post(f"/app{number}", body[:size]).body)
        assert found["sha256"] == hashlib.sha256(body[:size]).hexdigest()
    if number:
        what = list(interpreters())[number - 1]
        assert f"{found['implementation']} {found['version'][0]}.{found['version'][1]}" == what
    assert server.get(f"/app{number}/stream").text == "".join(f"{each} " for each in range(1000))
    assert server.get(f"/app{number}/large").body == b"x" * 200_000
    before = len(server.records("^handler failed$"))
    assert server.get(f"/app{number}/fails").status == 500
    wait_for(lambda: len(server.records("^handler failed$")) > before, "the failure is in the log")
    record = server.records("^handler failed$")[-1]
    assert (record["error"], record["pool"]) == ("LookupError: as asked", f"app{number}")
    assert "in inner" in record["traceback"]


def test_scripts(server: Server, number: int) -> None:
    made = server.get(f"/scripts{number}/shop/cart")
    assert (made.status, made.text, made.header("x-own")) == (201, "word", "yes")
    assert server.get(f"/scripts{number}/shop/cart/pieces").text == "01234"
    form = (
        b'--X\r\nContent-Disposition: form-data; name="field"\r\n\r\nvalue\r\n'
        b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
        + b"y" * 2_000_000
        + b"\r\n--X--\r\n"
    )
    sent = server.post(f"/scripts{number}/shop/cart", form, {"Content-Type": "multipart/form-data; boundary=X"})
    assert json.loads(sent.body) == {"name": "a.bin", "size": 2_000_000, "field": "value"}


@pytest.mark.parametrize("number", [0, 1])
def test_death_concerns_nobody_else(server: Server, number: int) -> None:
    others = [
        json.loads(server.get(f"/app{each}").body)["pid"] for each in range(len(interpreters()) + 1) if each != number
    ]
    before = json.loads(server.get(f"/app{number}").body)["pid"]
    assert server.post(f"/app{number}/exits", b"").status == 502
    assert json.loads(server.get(f"/app{number}").body)["pid"] != before
    assert others == [
        json.loads(server.get(f"/app{each}").body)["pid"] for each in range(len(interpreters()) + 1) if each != number
    ]


def test_folder_of_a_virtual_environment(serve: Any, tmp_path: Path) -> None:
    """Its interpreter runs the pool, with the packages of the environment and not those of the server."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    (packages / "only_there.py").write_text(MODULE_OF_VENV)
    script = """
import importlib.util, only_there, sys
def handle(request):
    return {"where": only_there.where(), "prefix": sys.prefix, "yaml": importlib.util.find_spec("yaml") is not None}
"""
    server = serve(
        {"handlers/a.py": script},
        config="pools: {handlers: {interpreter: venv, processes: 1}}\n",
    )
    assert json.loads(server.get("/a").body) == {
        "where": "in the virtual environment",
        "prefix": str(tmp_path / "venv"),
        "yaml": False,
    }


def test_folder_that_is_no_environment(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    with pytest.raises(RuntimeError, match=r"/venv' is a folder without bin/python; expected a Python interpreter"):
        serve({"handlers/a.py": ""}, config="pools: {handlers: {interpreter: venv}}\n")


def test_interpreter_that_is_none(serve: Any) -> None:
    server = serve(
        {"handlers/a.py": "", "www/index.html": "page"},
        config="pools: {handlers: {interpreter: /bin/false, processes: 1}}\n",
    )
    record = json.loads(server.wait_for_log('"executor ended with exit status 1"'))
    assert record["expected"] == "/bin/false to be Python 3.9 or later, and to run until it is told to stop"
    assert server.get("/").text == "page"


def test_interpreter_that_is_too_old(serve: Any, tmp_path: Path) -> None:
    """Told by the worker itself, as the server does not run what it is given to look at it."""
    old = tmp_path / "old.py"
    old.write_text(
        f"#!{sys.executable}\nimport runpy, sys\nsys.version_info = (3, 8, 1, 'final', 0)\n"
        "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    old.chmod(0o755)
    server = serve(
        {"handlers/a.py": "", "www/index.html": "page"},
        config=f"pools: {{handlers: {{interpreter: {old}, processes: 1, limits: {{queue_time: 100ms}}}}}}\n",
    )
    server.wait_for_log("is Python 3.8; a pool's interpreter must be 3.9 or later")
    assert server.get("/").text == "page"
    assert server.get("/a").status == 503
