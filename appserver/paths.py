"""Looks at paths that people name, whoever asks. Before Python 3.14 `pathlib` raises PermissionError when a folder on
the way may not be entered; here there is nothing at such a path, and `absence` says why.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def exists(path: Path) -> bool:
    return _mode(path) is not None


def is_dir(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path) or 0)


def is_file(path: Path) -> bool:
    return stat.S_ISREG(_mode(path) or 0)


def is_link(path: Path) -> bool:
    try:
        return stat.S_ISLNK(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def is_hidden(path: Path) -> bool:
    """Whether a folder on the way may not be entered, so that nobody can say what is there."""
    try:
        path.stat()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return False


def absence(path: Path) -> str:
    """Why nothing is found at `path`, or ""."""
    try:
        path.stat()
    except PermissionError:
        who = f"the user who runs this (uid {os.geteuid()})"
        return f"'{path}' cannot be reached: '{_closed_folder(path)}' may not be entered by {who}"
    except (FileNotFoundError, NotADirectoryError, ValueError):
        if is_link(path):
            return f"'{path}' is a symbolic link to '{path.resolve()}', which does not exist"
        return f"'{path}' does not exist"
    except OSError as error:  # a name that is too long, links in a circle
        return f"'{path}' cannot be looked at: {error.strerror}"
    return ""


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None


def _closed_folder(path: Path) -> Path:
    """The first folder on the way to `path` that hides what is in it."""
    real = path.resolve()
    for each in (*reversed(real.parents), real):
        try:
            each.stat()
        except OSError:
            return each.parent
    return real.parent
