"""With --dev: has a file of the site changed? By looking, twice a second; the paths are few and it works on every
file system.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from appserver.paths import is_dir

POLL_S = 0.5
#: Looking must not take more than a twentieth of the time.
POLL_COST = 20
#: More than this in one folder is not looked at: somebody serves a home directory.
MAX_FILES = 10_000
SKIPPED = frozenset(("__pycache__", "node_modules", ".git", ".hg", ".venv", "venv"))

Seen = dict[str, tuple[int, int, int]]


def look(paths: Iterable[Path]) -> Seen:
    """What is there now: of files their time, size and number; of folders the names in them and all .py files below."""
    seen: Seen = {}
    for path in paths:
        if is_dir(path):
            _look_into(path, seen)
        else:
            _look_at(path, seen)
    return seen


def changed(before: Seen, after: Seen) -> str | None:
    """A path that is not as it was; None when all are."""
    if before == after:
        return None
    return next(path for path in [*after, *before] if before.get(path) != after.get(path))


def _look_at(path: Path, seen: Seen) -> None:
    try:
        info = path.stat()
    except OSError:
        return
    seen[str(path)] = (info.st_mtime_ns, info.st_size, info.st_ino)


def _look_into(top: Path, seen: Seen) -> None:
    left = MAX_FILES
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if name not in SKIPPED]
        for name in files:
            path = Path(folder, name)
            if name.endswith(".py"):
                _look_at(path, seen)
            elif folder == str(top):
                seen[str(path)] = (0, 0, 0)
        left -= len(files)
        if left < 0:
            return
