"""A folder without a configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appserver.config import conventions
from appserver.config.cgi_model import CgiFolder
from appserver.config.conventions import default_folder, list_scripts, script_url, site_of
from appserver.config.model import Site
from appserver.errors import ConfigError


def rules(site: Site) -> list[tuple[str | None, str]]:
    return [(rule.match.path, rule.handler.kind) for rule in site.rules]


def test_a_folder_of_files_is_the_root(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    assert site.root == str(tmp_path)
    assert rules(site) == [("/handlers/*", "respond"), ("/cgi-bin/*", "respond")]


def test_www_handlers_and_programs_have_their_places(tmp_path: Path) -> None:
    for name in ("www", "handlers", "cgi-bin"):
        (tmp_path / name).mkdir()
    site = site_of(tmp_path)
    assert site.root == str(tmp_path / "www")
    assert rules(site) == [("/cgi-bin/*", "cgi"), ("/*", "scripts")]
    assert site.rules[0].handler.cgi == CgiFolder(directory=str(tmp_path / "cgi-bin"))
    assert site.rules[1].handler.scripts == str(tmp_path / "handlers")


def test_sources_below_the_root_are_hidden_behind_the_rules_that_run_them(tmp_path: Path) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "cgi-bin").mkdir()
    assert rules(site_of(tmp_path)) == [
        ("/cgi-bin/*", "cgi"),
        ("/*", "scripts"),
        ("/handlers/*", "respond"),
        ("/cgi-bin/*", "respond"),
    ]


def test_a_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert site_of(Path()).root == str(tmp_path)


def test_a_folder_that_cannot_be_served_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, message in [
        (tmp_path / "none", "'{}' does not exist; create the folder or name another one: cherokee-app serve DIR"),
        (tmp_path / "file", "'{0}' is not a folder; if it is a configuration: cherokee-app serve --config {0}"),
    ]:
        with pytest.raises(ConfigError) as caught:
            site_of(folder)
        assert caught.value.lines == (message.format(folder),)


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(ConfigError) as caught:
        site_of(tmp_path)
    assert "may not be read by the user who runs this (uid" in str(caught.value)


def test_scripts_are_found_by_name(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "index.py", "_helper.py", ".hidden.py", "notes.txt", "mit leer.py", "größe.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "package.py").mkdir()
    found = list_scripts(tmp_path)
    assert list(found.scripts) == ["a", "b", "größe", "mit leer", "index"]
    assert found.scripts["a"] == tmp_path / "a.py"
    assert found.warnings == ()


def test_scripts_in_folders_below(tmp_path: Path) -> None:
    for name in (
        "a.py",
        "index.py",
        "shop/cart.py",
        "shop/index.py",
        "shop/deep/er.py",
        "shop/deep/index.py",
        "shop/_prices.py",
        "shop/__init__.py",
        "_private/no.py",
        ".git/no.py",
        "__pycache__/no.py",
        "my shop/x.py",
        "empty/readme.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "shop" / "again").symlink_to(tmp_path)
    found = list_scripts(tmp_path)
    assert list(found.scripts) == [
        "shop/deep/er",
        "my shop/x",
        "shop/cart",
        "shop/deep/index",
        "a",
        "shop/index",
        "index",
    ]
    assert found.scripts["shop/deep/er"] == tmp_path / "shop/deep/er.py"
    assert found.warnings == ()
    assert [script_url(name) for name in found.scripts][1:6] == [
        "/my%20shop/x/",
        "/shop/cart/",
        "/shop/deep/",
        "/a/",
        "/shop/",
    ]


def test_a_script_and_a_folders_index_with_the_same_path(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    for name in ("shop.py", "shop/index.py", "shop/cart.py"):
        (tmp_path / name).write_text("")
    found = list_scripts(tmp_path)
    assert list(found.scripts) == ["shop/cart", "shop"]
    assert found.warnings == (f"handler script '{tmp_path}/shop/index.py' is left out: shop.py has /shop/; rename one",)


def test_a_folder_of_scripts_that_cannot_have_a_url(tmp_path: Path) -> None:
    (tmp_path / "a*b").mkdir()
    (tmp_path / "a*b" / "x.py").write_text("")
    found = list_scripts(tmp_path)
    assert found.scripts == {}
    assert found.warnings[0].endswith("is left out: its name has a '*', which means something in rules; rename it")


def test_scripts_that_cannot_have_a_url_are_told(tmp_path: Path) -> None:
    for name in (b"a\nb.py", b"\xff.py", b"a*.py"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("")
    found = list_scripts(tmp_path)
    assert found.scripts == {}
    assert [line.partition(" is left out: ")[2] for line in found.warnings] == [
        "its name has a control character; rename it",
        "its name has a '*', which means something in rules; rename it",
        "its name is not UTF-8; rename it",
    ]
    assert all(line.isascii() and "\n" not in line for line in found.warnings)


def test_a_folder_of_scripts_that_has_gone_is_a_warning(tmp_path: Path) -> None:
    found = list_scripts(tmp_path / "none")
    assert found.scripts == {}
    assert "No such file or directory" in found.warnings[0]


def test_script_urls_are_percent_encoded() -> None:
    assert [script_url(name) for name in ("hello", "mit leer", "index")] == ["/hello/", "/mit%20leer/", "/"]


def test_a_script_behind_the_programs_is_told(tmp_path: Path) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "cgi-bin.py").write_text("")
    assert conventions.convention_warnings(tmp_path) == ()
    (tmp_path / "handlers" / "cgi-bin").mkdir()
    (tmp_path / "cgi-bin").mkdir()
    one, two = conventions.convention_warnings(tmp_path)
    assert f"handler script {tmp_path}/handlers/cgi-bin.py cannot be reached" in one
    assert f"folder of handler scripts {tmp_path}/handlers/cgi-bin cannot be reached" in two


def test_the_default_folder_is_that_of_the_image_when_it_has_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "srv"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(conventions, "IMAGE_ROOT", image)
    assert default_folder() == tmp_path / "here"
    (image / "handlers").mkdir(parents=True)
    assert default_folder() == image
