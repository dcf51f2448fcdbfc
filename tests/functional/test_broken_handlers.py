"""Handler scripts that cannot be loaded, that are repaired, that come and go."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from harness import Server, wait_for

GOOD = "def handle(request):\n    return 'good'\n"

BROKEN = {
    "syntax": ("def handle(request)\n    return 'x'\n", "SyntaxError"),
    "import": ("import nothing_of_this_name\n" + GOOD, "ModuleNotFoundError"),
    "raises": ("def inner():\n    raise ValueError('at <import>')\ninner()\n", "ValueError: at <import>"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "empty": ("", "neither `application` nor `def handle"),
    "number": ("application = 3\n", "cannot be called"),
    "latin": (b"# -*- coding: utf-8 -*-\nx = '\xff'\n", "SyntaxError|UnicodeDecodeError"),
    "nul": (b"x = 1\0\n", "SyntaxError|ValueError"),
}


def write(server: Server, name: str, text: str) -> Path:
    """Replaces a script the way an editor does."""
    path = server.folder / "handlers" / f"{name}.py"
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
    return path


def reload(server: Server) -> None:
    """SIGHUP, and until it is done."""
    before = len(server.records("^configuration reloaded"))
    server.kill(signal.SIGHUP)
    wait_for(lambda: len(server.records("^configuration reloaded")) > before, "the reload is done")


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_script(serve: Any, kind: str) -> None:
    text, why = BROKEN[kind]
    server = serve({f"handlers/{kind}.py": text, "handlers/good.py": GOOD, "www/index.html": "page"})
    response = server.get(f"/{kind}/x")
    assert response.status == 500
    assert "Traceback" not in response.text
    assert "handlers" not in response.text
    assert server.get("/good").text == "good"
    assert server.get("/").text == "page"
    line = server.wait_for_log(f'"handler failed".*({why})')
    record = json.loads(line)
    assert record["target"] == f"/{kind}/x"
    assert record["script"].endswith(f"/{kind}.py")
    assert record["traceback"]
    # Said at the start as well, when nobody has asked for it yet.
    server.wait_for_log(f'"handler script cannot be loaded".*{kind}.py')
    assert server.get(f"/{kind}").status == 500
    assert len(server.pids("workers/main.py")) == 2


def test_traceback_names_the_line(serve: Any) -> None:
    server = serve({"handlers/raises.py": BROKEN["raises"][0]})
    assert server.get("/raises").status == 500
    record = json.loads(server.wait_for_log('"handler failed"'))
    assert 'raises.py", line 3, in <module>' in record["traceback"]
    assert 'raises.py", line 2, in inner' in record["traceback"]
    assert "raise ValueError('at <import>')" in record["traceback"]
    assert "executor.py" not in record["traceback"]


def test_repaired_after_sighup(serve: Any) -> None:
    server = serve({"handlers/a.py": "1 +", "handlers/good.py": GOOD})
    assert server.get("/a").status == 500
    write(server, "a", GOOD.replace("good", "repaired"))
    assert server.get("/a").status == 500
    reload(server)
    assert server.get("/a").text == "repaired"
    assert server.get("/good").text == "good"


def test_broken_by_a_change(serve: Any) -> None:
    server = serve({"handlers/a.py": GOOD, "handlers/good.py": GOOD})
    write(server, "a", "1 +")
    assert server.get("/a").text == "good"
    reload(server)
    assert server.get("/a").status == 500
    assert server.get("/good").text == "good"


def test_script_comes_and_goes(serve: Any) -> None:
    server = serve({"handlers/good.py": GOOD, "www/new/index.html": "a page"})
    assert server.get("/new/").text == "a page"
    path = write(server, "new", GOOD.replace("good", "new"))
    reload(server)
    assert server.get("/new/").text == "new"
    path.unlink()
    reload(server)
    assert server.get("/new/").text == "a page"
    assert server.get("/good").text == "good"


def test_removed_while_it_is_served(serve: Any) -> None:
    """A script that is gone is served on until the reload: it is in memory."""
    server = serve({"handlers/a.py": GOOD, "handlers/good.py": GOOD})
    (server.folder / "handlers/a.py").unlink()
    assert server.get("/a").text == "good"
    reload(server)
    assert server.get("/a").status == 404


def test_first_script_of_a_folder(serve: Any) -> None:
    server = serve({"www/index.html": "page", "handlers/_helper.py": "WORD = 'helped'\n"})
    write(server, "first", "import _helper\ndef handle(request):\n    return _helper.WORD\n")
    reload(server)
    assert server.get("/first").text == "helped"
    assert server.get("/_helper").status == 404


# --dev


def test_dev_repairs_at_once(serve: Any) -> None:
    server = serve({"handlers/a.py": "1 +", "handlers/good.py": GOOD}, "--dev")
    assert server.get("/a").status == 500
    write(server, "a", GOOD.replace("good", "repaired"))
    wait_for(lambda: server.get("/a").text == "repaired", "the repaired script is used")
    write(server, "a", GOOD.replace("good", "changed "))
    wait_for(lambda: server.get("/a").text == "changed ", "the changed script is used")


def test_dev_finds_new_and_removed_scripts(serve: Any) -> None:
    server = serve({"handlers/good.py": GOOD}, "--dev")
    assert server.get("/new").status == 404
    path = write(server, "new", GOOD)
    wait_for(lambda: server.get("/new").status == 200, "the new script is found")
    path.unlink()
    wait_for(lambda: server.get("/new").status == 404, "the removed script is gone")


def test_dev_reloads_what_a_script_imports(serve: Any) -> None:
    server = serve(
        {
            "handlers/a.py": "from _words import WORD\ndef handle(request):\n    return WORD\n",
            "handlers/_words.py": "WORD = 'one'\n",
        },
        "--dev",
    )
    assert server.get("/a").text == "one"
    write(server, "_words", "WORD = 'two'\n")
    wait_for(lambda: server.get("/a").text == "two", "the changed helper is used")


def test_dev_reloads_modules_wherever_they_are(serve: Any, tmp_path: Path) -> None:
    """Outside of the pool's folder, where only the worker knows that they belong to the application."""
    config = """\
pools: {app: {python: "app:application", directory: app, environment: {PYTHONPATH: LIBRARY}}}
sites: [{root: ., rules: [{match: {path: /*}, handler: {python: app}}]}]
"""
    application = "import words\ndef application(environ, start):\n    start('200 OK', [])\n    return [words.WORD]\n"
    files = {"app/app.py": application, "library/words.py": "WORD = b'one'\n"}
    server = serve(files, "--dev", config=config.replace("LIBRARY", str(tmp_path / "library")))
    assert server.get("/").text == "one"
    new = tmp_path / "library/new"
    new.write_text("WORD = b'another'\n")
    new.replace(tmp_path / "library/words.py")  # a file that is empty for a moment may be two changes
    wait_for(lambda: server.get("/").text == "another", "the changed module is used")
    assert len(server.records("^changed, reloading")) == 1


def test_dev_shows_the_traceback(serve: Any) -> None:
    text = "def handle(request):\n    raise ValueError('<script>alert(1)</script> & ' + request.path_info)\n"
    server = serve({"handlers/fails.py": text, "handlers/broken.py": "def handle(\n"}, "--dev")
    response = server.get("/fails/%3Cb%3E")
    assert (response.status, response.header("content-type")) == (500, "text/html; charset=utf-8")
    assert response.header("cache-control") == "no-store"
    assert "ValueError: &lt;script&gt;alert(1)&lt;/script&gt; &amp; /&lt;b&gt;" in response.text
    assert "<script>" not in response.text
    assert "<b>" not in response.text.replace("<p><b>", "")
    assert "fails.py&quot;, line 2, in handle" in response.text
    broken = server.get("/broken")
    assert broken.status == 500
    assert "SyntaxError" in broken.text
    head = server.get("/fails", method="HEAD")
    assert (head.status, head.body) == (500, b"")


def test_without_dev_nothing_is_shown(serve: Any) -> None:
    server = serve({"handlers/fails.py": "def handle(request):\n    raise ValueError('a secret')\n"})
    response = server.get("/fails")
    assert response.status == 500
    assert "secret" not in response.text
    record = json.loads(server.wait_for_log('"handler failed"'))
    assert record["request"] in response.text  # who reports it can name it


# The application of a pool


def test_broken_application_is_not_the_others_concern(serve: Any) -> None:
    config = """
pools:
  broken: {python: "broken:application", directory: apps, processes: 1}
  good: {python: "good:application", directory: apps, processes: 1}
sites:
  - rules:
      - {match: {path: /broken/*}, handler: {python: broken}}
      - {match: {path: /good/*}, handler: {python: good}}
"""
    good = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'good']\n"
    config = config.replace("processes: 1}", "processes: 1, limits: {queue_time: 500ms}}", 1)
    server = serve({"apps/broken.py": "raise RuntimeError('no boot')\n", "apps/good.py": good}, config=config)
    assert server.get("/good").text == "good"
    line = server.wait_for_log('"the executor cannot boot"')
    assert "RuntimeError: no boot" in json.loads(line)["traceback"]
    refused = server.get("/broken")
    assert refused.status == 503
    assert refused.header("retry-after")
    assert server.get("/readyz").status == 503
    assert server.get("/livez").status == 200
    (server.folder / "apps/broken.py").write_text(good.replace("good", "repaired"))
    reload(server)
    wait_for(lambda: server.get("/broken").text == "repaired", "the repaired application is used")
    wait_for(lambda: server.get("/readyz").status == 200, "it is ready")
    server.remember_fds()  # there is an executor more than at the start


def test_reload_to_a_broken_application_keeps_the_old_one(serve: Any) -> None:
    config = """
pools: {app: {python: "app:application", directory: ., processes: 2}}
sites: [{rules: [{handler: {python: app}}]}]
"""
    text = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'old']\n"
    server = serve({"app.py": text}, config=config)
    (server.folder / "app.py").write_text("raise RuntimeError('no boot')\n")
    reload(server)
    server.wait_for_log("the new executors cannot boot; the old ones go on")
    assert server.get("/").text == "old"
    (server.folder / "app.py").write_text(text.replace("old", "new"))
    reload(server)
    assert server.get("/").text == "new"


APPLICATION = "def application(environ, start):\n    start('200 OK', [])\n    return [b'%s']\n"


@pytest.mark.parametrize("broken", ["1 +\n", "import library\nlibrary.missing()\n", "import missing_module\n", None])
def test_dev_shows_why_an_application_cannot_be_loaded(serve: Any, broken: str | None) -> None:
    """At once, not when somebody has waited for a worker; and takes it as soon as it is repaired."""
    config = """\
pools: {app: {python: "app:application", directory: app}}
sites: [{root: ., rules: [{match: {path: /*}, handler: {python: app}}]}]
"""
    files = {"app/library.py": "x = 1\n"} | ({} if broken is None else {"app/app.py": broken})
    server = serve(files, "--dev", config=config)
    response = server.get("/")
    assert response.status == 500
    assert "application app:application cannot be loaded" in response.text
    assert {"1 +\n": "SyntaxError", None: "looked in"}.get(broken, "Traceback") in response.text
    path = server.folder / "app/app.py"
    path.write_text("import another_missing_module\n")
    wait_for(lambda: "another_missing_module" in server.get("/").text, "the page tells of the new failure")
    old = set(server.pids("workers/main.py"))
    path.write_text(APPLICATION % "repaired")
    wait_for(lambda: server.get("/").text == "repaired", "the repaired application is used")
    wait_for(lambda: old.isdisjoint(server.pids("workers/main.py")), "nobody is there who has none")
    path.write_text("1 +\n")
    wait_for(lambda: server.records("cannot boot"), "the log tells of the broken one")
    assert server.get("/").text == "repaired"  # who has a good one keeps it
    path.write_text(APPLICATION % "once more")
    wait_for(lambda: server.get("/").text == "once more", "the next good one is used")
