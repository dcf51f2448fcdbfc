"""The command line: exit statuses and what is printed where."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from appserver import __version__, cli
from appserver.cli import main
from appserver.config import conventions
from appserver.config.source import ConfigSource
from appserver.errors import StartError

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def no_image(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may have what the image has, and process 1 may be our server."""
    nowhere = tmp_path_factory.mktemp("image")
    monkeypatch.setattr(conventions, "IMAGE_CONFIG", nowhere / "config.yaml")
    monkeypatch.setattr(conventions, "IMAGE_ROOT", nowhere)
    monkeypatch.setattr(cli, "PROCESS_1", nowhere / "cmdline")


class Supervisor:
    """Stands where the supervisor is; the real one is tested in its own room and by the functional tests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sources: list[ConfigSource] = []
        self.error: Exception | None = None
        module = ModuleType("appserver.supervisor")
        module.run = self.run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "appserver.supervisor", module)

    def run(self, source: ConfigSource) -> int:
        self.sources.append(source)
        if self.error:
            raise self.error
        return 0


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    return Supervisor(monkeypatch)


# Help and version


def test_no_command_prints_help_and_is_wrong_use(capsys: Captured) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "cherokee-app serve site --dev" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("command", ["serve", "check", "health", "version"])
def test_every_command_has_help(command: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: cherokee-app {command}")


def test_version(capsys: Captured) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"cherokee-app {__version__}\n"


def test_help_and_version_import_neither_yaml_nor_the_supervisor() -> None:
    code = (
        "import sys; from appserver.cli import main; main(['version'])\n"
        "print([name for name in ('yaml', 'appserver.supervisor', 'http.client', 'cffi') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_the_package_runs_as_a_module() -> None:
    run = subprocess.run([sys.executable, "-m", "appserver", "version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"cherokee-app {__version__}\n"


def test_a_reader_that_has_gone_is_no_fault() -> None:
    """As with `cherokee-app incidents show ID | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "appserver", "version"], stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


# check


def test_check_says_that_a_file_is_valid(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("pools: {a: {scripts: .}}\nsites: [{root: .}]\n")
    assert main(["check", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{file}: valid\n"
    assert captured.err == f"{file}: warning: pool a: no rule leads to it\n"


def test_check_warns_of_a_user_who_cannot_start_the_server(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration is valid all the same: it may be for another machine."""
    monkeypatch.delenv("CHEROKEE_CGI_USER", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    file = tmp_path / "c.yaml"
    file.write_text("sites: [{root: ., rules: [{match: {path: /*}, handler: {cgi: .}}]}]\n")
    assert main(["check", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{file}: valid\n"
    assert captured.err.startswith(f"{file}: warning: started by this user (uid 0), the server ends at once: CGI pro")
    file.write_text("user: nobody\n" + file.read_text())
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("sites: [\n", ["2:1: not valid YAML: "]),
        ("site: []\n", ["1:1: site: unknown key; expected one of listen, ", "did you mean 'sites'?"]),
        ("threads: [2]\n", ["1:10: threads: found a list; expected auto or a whole number from 1 to 64"]),
        ("limits: {idle_timeout: 60}\n", ["1:24: limits.idle_timeout: found '60'; expected a time with its unit"]),
        ("threads: 1000\n", ["1:10: threads: found '1000'; expected auto or a whole number from 1 to 64"]),
        ("sites: [{root: none}]\n", ["1:16: sites[0].root: '", "' does not exist; expected a folder; create it"]),
    ],
)
def test_check_and_serve_list_the_errors_and_start_nothing(
    tmp_path: Path, capsys: Captured, supervisor: Supervisor, text: str, lines: list[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    for arguments in (["check", str(file)], ["serve", "--config", str(file)]):
        assert main(arguments) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"{file}:{lines[0]}")
        assert all(line in captured.err for line in lines)
    assert supervisor.sources == []


def test_check_lists_every_error(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("threads: 0\nsitse: []\nspool: /no/such/folder\n")
    assert main(["check", str(file)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_check_of_a_file_that_is_not_there(tmp_path: Path, capsys: Captured) -> None:
    assert main(["check", str(tmp_path / "none.yaml")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_check_without_a_file_looks_at_what_would_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}: valid (a folder served by convention")


# serve


def test_serve_gives_the_supervisor_a_source(tmp_path: Path, supervisor: Supervisor) -> None:
    arguments = ["serve", str(tmp_path), "--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--threads", "2", "--dev"]
    assert main(arguments) == 0
    loaded = supervisor.sources[0].load()
    assert [(each.host, each.port) for each in loaded.listeners] == [("127.0.0.1", 0), ("::1", 0)]
    assert (loaded.threads, loaded.dev) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["none"],
            "cherokee-app: '{}/none' does not exist; create the folder or name another one: cherokee-app serve DIR\n",
        ),
        (
            ["file"],
            "cherokee-app: '{0}/file' is not a folder; if it is a configuration: cherokee-app serve --config {0}/",
        ),
        ([".", "--listen", "80"], "cherokee-app: --listen: found '80'; expected HOST:PORT such as 127.0.0.1:8080,"),
        ([".", "--listen", "a:65536"], "cherokee-app: --listen: found 'a:65536'; expected a port from 0 to 65535"),
        (
            [".", "--threads", "no"],
            "cherokee-app: --threads: found 'no'; expected auto or a whole number from 1 to 64\n",
        ),
    ],
)
def test_serve_tells_in_one_line_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    supervisor: Supervisor,
    arguments: list[str],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["serve", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(line.format(tmp_path))
    assert error.count("\n") == 1
    assert supervisor.sources == []


def test_what_the_supervisor_cannot_start_is_one_line(tmp_path: Path, capsys: Captured, supervisor: Supervisor) -> None:
    supervisor.error = StartError("127.0.0.1:80 is in use; stop the other server or choose another port")
    assert main(["serve", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"cherokee-app: {supervisor.error}\n"


# health


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/readyz": 200, "/ready": 200}.get(self.path, 503))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("path", "status"), [("", 0), ("/readyz", 0), ("/other", 1)])
def test_health_of_a_url(port: int, path: str, status: int) -> None:
    assert main(["health", f"http://127.0.0.1:{port}{path}"]) == status


def test_health_asks_the_first_address_of_the_configuration(tmp_path: Path, port: int) -> None:
    file = tmp_path / "c.yaml"
    for text, status in [
        (f"listen: 0.0.0.0:{port}\n", 0),
        (f"listen: 127.0.0.1:{port}\nhealth: {{ready: /ready}}\n", 0),
        (f"listen: 127.0.0.1:{port}\nhealth: {{ready: /other}}\n", 1),
        (f"listen: 127.0.0.1:{port}\nhealth: off\n", 0),
        (f"listen: 127.0.0.1:{port}\nnot-valid-any-more: 1\n", 0),
    ]:
        file.write_text(text)
        assert main(["health", "--config", str(file)]) == status, text
    assert main(["health", "--listen", f"127.0.0.1:{port}"]) == 0


def test_health_of_a_wildcard_address_tries_both_families(port: int) -> None:
    # `[::]` takes IPv4 as well, and a container without an IPv6 network has no ::1.
    assert main(["health", "--listen", f"0.0.0.0:{port}"]) == 0
    assert main(["health", "--listen", f"[::]:{port}"]) == 0


def test_health_follows_the_server_of_the_container(port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command_line = tmp_path / "cmdline"
    monkeypatch.setattr(cli, "PROCESS_1", command_line)
    for words, expected in [
        (["/venv/bin/python3", "/venv/bin/cherokee-app", "serve", "--listen", f"127.0.0.1:{port}"], True),
        (["python3", "-m", "appserver", "serve", "/srv", "--listen", f"127.0.0.1:{port}"], True),
        (["/sbin/init"], False),
        (["something", "serve", "--listen", f"127.0.0.1:{port}"], False),
    ]:
        command_line.write_text("".join(f"{word}\0" for word in words))
        options = cli._container_options()
        assert (options is not None) is expected
    command_line.write_text("".join(f"{word}\0" for word in ["cherokee-app", "serve", "--listen", f"127.0.0.1:{port}"]))
    assert main(["health"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ftp://a"], "'ftp://a' is no URL to ask; expected http://HOST:PORT"),
        (["http://127.0.0.1:x"], "is no URL to ask"),
        (["--listen", "127.0.0.1:0"], "picks a free port, which is not known here; give the URL"),
        (["--listen", "x"], "--listen: found 'x'; expected HOST:PORT"),
    ],
)
def test_health_tells_what_it_cannot_ask(arguments: list[str], message: str, capsys: Captured) -> None:
    assert main(["health", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_health_of_a_server_that_is_not_there(port: int, capsys: Captured) -> None:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: refused
        assert main(["health", "--listen", f"127.0.0.1:{held.getsockname()[1]}"]) == 1
    assert "no answer from 127.0.0.1 port" in capsys.readouterr().err
