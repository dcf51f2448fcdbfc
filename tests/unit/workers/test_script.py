"""Handler scripts in a real worker process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fake_core import FakeCore, write_scripts

from appserver.workers import wire

Run = Callable[..., FakeCore]

WSGI = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'wsgi']\n"


def test_handle_and_application(run: Run, tmp_path: Path) -> None:
    handle, wsgi, app = write_scripts(
        tmp_path,
        {
            "hello.py": 'def handle(request):\n    return f\'hello {request.query.get("name", "world")}\'\n',
            "wsgi.py": WSGI,
            "other.py": WSGI.replace("application", "app"),
        },
    )
    core = run()
    answer = core.fetch("GET", "/?name=Ada", script=handle)
    assert (answer.body, answer.headers) == (b"hello Ada", {"content-type": "text/plain; charset=utf-8"})
    assert core.fetch(script=wsgi).body == b"wsgi"
    assert core.fetch(script=app).body == b"wsgi"


def test_names_of_our_modules_and_of_the_standard_library_are_free(run: Run, tmp_path: Path) -> None:
    sources = {
        f"{name}.py": f"import email.message, request_helper\ndef handle(request):\n    return {name!r}\n"
        for name in ("wsgi", "wire", "request", "email", "json", "calendar")
    }
    *scripts, _ = write_scripts(tmp_path, {**sources, "request_helper.py": "x = 1\n"})
    core = run()
    for script in scripts:
        assert core.fetch(script=script).body == script.stem.encode()
    assert not (tmp_path / "__pycache__").exists()


def test_same_name_in_two_folders(run: Run, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"def handle(request):\n    return {folder!r}\n")
    core = run()
    assert [core.fetch(script=tmp_path / folder / "same.py").body for folder in ("a", "b")] == [b"a", b"b"]


def test_broken_scripts_fail_alone(run: Run, tmp_path: Path) -> None:
    syntax, error, leaves, nothing, good = scripts = write_scripts(
        tmp_path,
        {
            "syntax.py": "def handle(request:\n    return 1\n",
            "error.py": "import os\n\nraise LookupError('at import')\n",
            "leaves.py": "import sys\nsys.exit(1)\n",
            "nothing.py": "x = 1\n",
            "good.py": "def handle(request):\n    return 'good'\n",
        },
    )
    core = run(scripts=[str(path) for path in scripts])
    records = {message["script"]: message for message in core.messages if message["type"] == "log"}
    assert set(records) == {str(path) for path in (syntax, error, leaves, nothing)}
    assert "SyntaxError" in records[str(syntax)]["error"]
    assert f'File "{syntax}", line 1' in records[str(syntax)]["traceback"]
    assert f'File "{error}", line 3, in <module>\n    raise LookupError' in records[str(error)]["traceback"]
    assert "neither `application` nor" in records[str(nothing)]["error"]
    for script in (syntax, error, leaves, nothing):
        answer = core.fetch(script=script)
        assert (answer.status, answer.body) == (500, b"")
        assert core.log("handler failed")["script"] == str(script)
    assert core.fetch(script=good).body == b"good"
    assert core.fetch(script=tmp_path / "absent.py").status == 500
    assert "No such file" in (record := core.log("handler failed"))["error"]
    assert "Traceback" not in record["traceback"]


def test_dev_shows_why_a_script_is_broken(run: Run, tmp_path: Path) -> None:
    (script,) = write_scripts(tmp_path, {"broken.py": "def handle(request):\n  return '<b>\n"})
    core = run(dev=True)
    answer = core.fetch(script=script)
    assert answer.status == 500
    assert b"SyntaxError" in answer.body
    assert b"&lt;b&gt;" in answer.body


def test_a_repaired_script_works_in_a_new_worker(run: Run, tmp_path: Path) -> None:
    (script,) = write_scripts(tmp_path, {"s.py": "def handle(request):\n    return nome\n"})
    core = run()
    assert core.fetch(script=script).status == 500
    # Same size and same second as before: bytecode caches would not see the difference.
    write_scripts(tmp_path, {"s.py": "def handle(request):\n    return 'ok'\n"})
    assert core.fetch(script=script).status == 500
    core.log("handler failed")
    assert "return nome" in core.log("handler failed")["traceback"]  # what runs, not what the file says by now
    assert run().fetch(script=script).body == b"ok"


def test_multipart_upload(run: Run, tmp_path: Path) -> None:
    (script,) = write_scripts(
        tmp_path,
        {
            "upload.py": "def handle(request):\n"
            "    form = request.form()\n"
            "    upload = form.files['file']\n"
            "    return {'title': form['title'], 'name': upload.filename, 'size': len(upload.read())}\n"
        },
    )
    body = (
        b'--B\r\nContent-Disposition: form-data; name="title"\r\n\r\nT\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
        + b"x" * 2_000_000
        + b"\r\n--B--"
    )
    how = {"script": script, "headers": {"Content-Type": "multipart/form-data; boundary=B"}}
    core = run()
    answer = core.fetch("POST", "/", body=body, body_fd=True, **how)
    assert answer.body == b'{"title": "T", "name": "a.bin", "size": 2000000}'
    answer = core.fetch("POST", "/", body=body[:1000], **how)
    assert (answer.status, answer.body) == (400, b"the form ends before its last boundary\n")


def test_files_streams_and_responses(run: Run, tmp_path: Path) -> None:
    (script,) = write_scripts(
        tmp_path,
        {
            "many.py": "from pathlib import Path\n"
            "from appserver_handler import Response\n"
            "def handle(request):\n"
            "    if request.path == '/file': return Path(__file__)\n"
            "    if request.path == '/none': return None\n"
            "    if request.path == '/number': return 5\n"
            "    if request.path == '/response': return Response('x', 418, {'X': 'y'})\n"
            "    return pieces()\n"
            "def pieces():\n"
            "    yield 'a'\n"
            "    yield 'ü'\n"
        },
    )
    core = run()
    file = core.fetch("GET", "/file", script=script)
    assert (file.kind, file.body) == (wire.FILE, script.read_bytes())
    assert core.fetch("GET", "/none", script=script).status == 204
    assert core.fetch("GET", "/number", script=script).status == 500
    assert "not int" in core.log("handler failed")["error"]
    response = core.fetch("GET", "/response", script=script)
    assert (response.status, response.headers["x"]) == (418, "y")
    stream = core.fetch(script=script)
    assert (stream.kind, stream.body.decode(), stream.end_status) == (wire.STREAM, "aü", 0)


def test_print_is_output_at_once(run: Run, tmp_path: Path) -> None:
    (script,) = write_scripts(tmp_path, {"p.py": "def handle(request):\n    print('seen \\udc80')\n    return 'x'\n"})
    core = run()
    core.fetch(script=script)
    assert core.process.stdout is not None
    assert core.process.stdout.readline() == b"seen \\udc80\n"
