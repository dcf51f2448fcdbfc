"""Where the configuration comes from, again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from appserver.config import conventions
from appserver.config.source import Overrides, default_file, open_source, parse_overrides
from appserver.errors import ConfigError

NO_OVERRIDES = Overrides()


@pytest.fixture(autouse=True)
def no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may have what the image has."""
    monkeypatch.setattr(conventions, "IMAGE_CONFIG", tmp_path / "image" / "config.yaml")
    monkeypatch.setattr(conventions, "IMAGE_ROOT", tmp_path / "image")


def test_a_folder_is_looked_at_again_at_each_load(tmp_path: Path) -> None:
    source = open_source(None, tmp_path, NO_OVERRIDES)
    first = source.load()
    assert first.name == str(tmp_path)
    assert first.pools == ()
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "hello.py").write_text("")
    assert [spec.scripts for spec in source.load().pools] == [(f"{tmp_path}/handlers/hello.py",)]


def test_a_file_is_read_again_and_its_overrides_stay(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("listen: 127.0.0.1:1\nthreads: 1\nsites: [{name: a}]\n")
    source = open_source(file, None, parse_overrides(["127.0.0.1:0", "[::1]:0"], "3", True))
    for level in ("info", "debug"):
        file.write_text(f"log: {{level: {level}}}\nlisten: 127.0.0.1:1\nthreads: 1\nsites: [{{name: a}}]\n")
        loaded = source.load()
        assert [each.id for each in loaded.listeners] == ["127.0.0.1:0", "[::1]:0"]
        assert (loaded.threads, loaded.dev, loaded.log.level) == (3, True, level)


def test_a_bad_reload_raises_and_the_next_good_one_works(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("sites: [{name: a}]\n")
    source = open_source(file, None, NO_OVERRIDES)
    source.load()
    watched = source.watch_paths()
    file.write_text("sitse: []\n")
    with pytest.raises(ConfigError):
        source.load()
    assert source.watch_paths() == watched == (file,)
    file.write_text("sites: [{name: b}]\n")
    assert source.load().plan["sites"][0]["name"] == "b"


def test_a_file_without_sites_serves_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("threads: 2\n")
    loaded = open_source(file, tmp_path, NO_OVERRIDES).load()
    assert loaded.model.sites[0].root == str(tmp_path)
    assert loaded.watch == (file, tmp_path / "handlers", tmp_path / "cgi-bin")


def test_a_file_with_sites_and_a_folder_do_not_go_together(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("sites: [{name: a}]\n")
    with pytest.raises(ConfigError, match="has sites, so"):
        open_source(file, tmp_path, NO_OVERRIDES).load()


def test_neither_means_the_file_of_the_image_or_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert default_file() is None
    assert open_source(None, None, NO_OVERRIDES).load().model.sites[0].root == str(tmp_path / "here")
    conventions.IMAGE_CONFIG.parent.mkdir()
    conventions.IMAGE_CONFIG.write_text("sites: [{name: image}]\n")
    assert open_source(None, None, NO_OVERRIDES).load().plan["sites"][0]["name"] == "image"
    assert open_source(None, tmp_path / "here", NO_OVERRIDES).load().plan["sites"][0]["name"] == "main"


def test_what_is_watched_is_known_before_the_first_good_load(tmp_path: Path) -> None:
    assert open_source(tmp_path / "c.yaml", None, NO_OVERRIDES).watch_paths() == (tmp_path / "c.yaml",)


def test_relative_paths_do_not_follow_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    monkeypatch.chdir(tmp_path)
    source = open_source(None, Path("site"), NO_OVERRIDES)
    monkeypatch.chdir("/")
    assert source.load().model.sites[0].root == str(tmp_path / "site")


def test_all_wrong_options_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides(["8080", "a:1", "a:1"], "0", False)
    assert [line.split(";")[0] for line in caught.value.lines] == [
        "--listen: found '8080'",
        "--listen: found 'a:1' twice",
        "--threads: found '0'",
    ]
