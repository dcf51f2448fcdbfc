from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appserver.supervisor import watch
from appserver.supervisor.watch import changed, look


def touch_later(path: Path) -> None:
    """A time of change that differs on every file system."""
    before = path.stat().st_mtime_ns
    os.utime(path, ns=(before, before + 10**9))


def rewrite(path: Path) -> None:
    path.write_text("another text")


def replace(path: Path) -> None:
    """As editors do; same size, same time."""
    info = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
    other.replace(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handlers/package").mkdir(parents=True)
    (tmp_path / "handlers/a.py").write_text("a")
    (tmp_path / "handlers/data.txt").write_text("data")
    (tmp_path / "handlers/package/b.py").write_text("b")
    (tmp_path / "handlers/package/b.txt").write_text("b")
    (tmp_path / "config.yaml").write_text("x")
    return tmp_path


def test_nothing_has_changed(folder: Path) -> None:
    paths = [folder / "handlers", folder / "config.yaml"]
    assert changed(look(paths), look(paths)) is None


@pytest.mark.parametrize("change", [touch_later, rewrite, replace, Path.unlink])
@pytest.mark.parametrize("name", ["handlers/a.py", "handlers/package/b.py", "config.yaml"])
def test_changes(folder: Path, name: str, change: Callable[[Path], None]) -> None:
    paths = [folder / "handlers", folder / "config.yaml"]
    before = look(paths)
    change(folder / name)
    assert changed(before, look(paths)) == str(folder / name)


@pytest.mark.parametrize("name", ["new.py", "new.sh", "package/new.py"])
def test_new_files(folder: Path, name: str) -> None:
    before = look([folder / "handlers"])
    (folder / "handlers" / name).write_text("")
    assert changed(before, look([folder / "handlers"])) == str(folder / "handlers" / name)


@pytest.mark.parametrize("name", ["data.txt", "package/b.txt"])
def test_contents_of_other_files_do_not_matter(folder: Path, name: str) -> None:
    before = look([folder / "handlers"])
    rewrite(folder / "handlers" / name)
    assert changed(before, look([folder / "handlers"])) is None


@pytest.mark.parametrize("name", sorted(watch.SKIPPED))
def test_skipped_folders(folder: Path, name: str) -> None:
    before = look([folder / "handlers"])
    (folder / "handlers" / name).mkdir()
    (folder / "handlers" / name / "x.py").write_text("")
    assert changed(before, look([folder / "handlers"])) is None


def test_what_does_not_exist_yet(folder: Path) -> None:
    missing = folder / "missing"
    before = look([missing])
    assert before == {}
    missing.mkdir()
    (missing / "x.py").write_text("")
    assert changed(before, look([missing])) == str(missing / "x.py")


def test_huge_folder_is_not_looked_through(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_FILES", 3)
    for number in range(5):
        (folder / f"handlers/d{number}").mkdir()
        for name in range(3):
            (folder / f"handlers/d{number}/{name}.py").write_text("")
    assert len(look([folder / "handlers"])) < 3 + 5 * 3
