"""Paths that lead through a folder which the user may not enter: told in a sentence, wherever they are named."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appserver import cli, paths
from appserver.config import conventions
from appserver.config.conventions import list_scripts

NOBODY = 65534


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder that may not be entered, though everything below it is there; the test runs as an ordinary user."""
    top = Path(tempfile.mkdtemp())  # tmp_path is below folders that are closed for others, too
    folder = top / "closed"
    for name in ("www", "handlers", "venv/bin"):
        (folder / name).mkdir(parents=True)
    (folder / "handlers" / "hello.py").write_text("")
    (folder / "site.yaml").write_text("threads: 1\n")
    (top / "site.yaml").write_text("threads: 1\n")
    for command in ("check", "status --config", "incidents --directory"):
        cli.main([*command.split(), str(top / "site.yaml")])  # what is imported late is there from now on
    top.chmod(0o755)
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(user)
        folder.chmod(0o700)
        shutil.rmtree(top)


def why(path: Path, folder: Path) -> str:
    return f"'{path}' cannot be reached: '{folder}' may not be entered by the user who runs this (uid {os.geteuid()})"


def test_nothing_is_found_behind_it(closed: Path) -> None:
    hidden = closed / "www"
    assert not paths.exists(hidden)
    assert not paths.is_dir(hidden)
    assert not paths.is_file(closed / "site.yaml")
    assert not paths.is_link(hidden)
    assert paths.is_hidden(hidden)
    assert not paths.is_hidden(closed)
    assert paths.absence(hidden) == why(hidden, closed)
    assert paths.absence(hidden / "deeper") == why(hidden / "deeper", closed)


def test_why_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "file").write_text("")
    assert paths.absence(tmp_path) == ""
    assert paths.absence(tmp_path / "none") == f"'{tmp_path}/none' does not exist"
    assert paths.absence(tmp_path / "file" / "x") == f"'{tmp_path}/file/x' does not exist"
    assert (
        paths.absence(tmp_path / "dangling")
        == f"'{tmp_path}/dangling' is a symbolic link to '{tmp_path}/none', which does not exist"
    )
    assert paths.absence(tmp_path / "circle").startswith(f"'{tmp_path}/circle' cannot be looked at: ")
    assert paths.absence(tmp_path / ("x" * 300)).endswith("cannot be looked at: File name too long")


def test_a_configuration_that_names_it(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = closed.parent / "site.yaml"
    user = os.geteuid()
    os.seteuid(os.getuid())
    file.write_text(
        f"control: {closed}/www/c.sock\nlog: {{access_file: {closed}/www/a.log}}\nspool: {closed}/www\n"
        f"types_file: {closed}/types\n"
        f"pools:\n  a: {{python: 'a:b', directory: {closed}/www, interpreter: {closed}/venv}}\n"
        f"  b: {{scripts: {closed}/handlers}}\n  c: {{scripts: {closed}/handlers/hello.py}}\n"
        f"sites:\n- root: {closed}/www\n  rules:\n  - {{handler: {{cgi: {closed}/www}}}}\n"
        f"  - {{handler: {{python: {closed}/handlers/hello.py}}}}\n"
    )
    os.seteuid(user)
    assert cli.main(["check", str(file)]) == 1
    lines = [line.removeprefix(f"{file}:") for line in capsys.readouterr().err.splitlines()]
    column = len(f"  a: {{python: 'a:b', directory: {closed}/www, interpreter: ") + 1
    way = f"'{closed}' may not be entered by the user who runs this (uid {user})"
    end = "change its mode or owner"
    assert lines == [
        f"1:10: control: '{closed}/www' cannot be reached: {way}; expected a folder for the socket; {end}",
        f"2:20: log.access_file: '{closed}/www' cannot be reached: {way}; expected a folder for the file; {end}",
        f"3:8: spool: '{closed}/www' cannot be reached: {way}; expected a folder; {end}",
        f"4:13: types_file: '{closed}/types' cannot be reached: {way}; expected a table of media types; {end}",
        f"6:33: pools.a.directory: '{closed}/www' cannot be reached: {way}; expected a folder; {end}",
        f"6:{column}: pools.a.interpreter: '{closed}/venv' cannot be reached: {way};"
        f" expected a Python interpreter or a virtual environment; {end}",
        f"7:16: pools.b.scripts: '{closed}/handlers' cannot be reached: {way}; expected a folder; {end}",
        f"8:16: pools.c.scripts: '{closed}/handlers/hello.py' cannot be reached: {way};"
        f" expected a folder, or a handler script; {end}",
        f"10:9: sites[0].root: '{closed}/www' cannot be reached: {way}; expected a folder; {end}",
        f"12:21: sites[0].rules[0].handler.cgi: '{closed}/www' cannot be reached: {way}; expected a folder; {end}",
        f"13:24: sites[0].rules[1].handler.python: '{closed}/handlers/hello.py' cannot be reached: {way};"
        f" expected a handler script; {end}",
    ]


def test_commands_that_are_given_it(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    www = closed / "www"
    file = closed / "site.yaml"
    for arguments, expected in [
        (
            ["serve", str(www)],
            f"{why(www, closed)}; change its mode or owner, or name another folder: cherokee-app serve DIR",
        ),
        (["check", str(file)], f"{file}: cannot be read: Permission denied; expected a YAML file"),
        (["status", "--config", str(file)], f"no server of {file} was found"),
        (["reload", "--config", str(www)], f"no server of {www} was found"),
        (["incidents", "--config", str(www)], f"--config: {why(www, closed)}; expected a file or a folder"),
        (["incidents", "--directory", str(www)], f"--directory: {why(www, closed)}; expected a folder with incidents"),
    ]:
        assert cli.main(arguments) == 1, arguments
        assert expected in capsys.readouterr().err


def test_the_folder_of_the_image_when_it_is_closed(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mounted there shall not be replaced silently by the demo."""
    monkeypatch.setattr(conventions, "IMAGE_ROOT", closed)
    assert conventions.default_folder() == closed


def test_a_folder_of_scripts_that_may_be_listed_only(closed: Path) -> None:
    user = os.geteuid()
    os.seteuid(os.getuid())
    closed.chmod(0o744)
    os.seteuid(user)
    if os.getuid() != 0:
        closed.chmod(0o400)
    assert list_scripts(closed).scripts == {}
