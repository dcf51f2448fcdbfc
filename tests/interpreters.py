"""The other Pythons of this machine."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("pypy3", *(f"python3.{minor}" for minor in range(9, 15)))
WHERE = f"{', '.join(NAMES)} in PATH or ~/.pyenv/versions"


@functools.cache
def interpreters() -> dict[str, str]:
    """Those that run, by "CPython 3.9" and the like; the server's own is not among them."""
    found: dict[str, str] = {}
    versions = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob("3.*/bin"))
    own = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
    for name in NAMES:
        for path in filter(None, (shutil.which(name), *(shutil.which(name, path=str(each)) for each in versions))):
            ask = "import platform, sys; print(platform.python_implementation(), '%d.%d' % sys.version_info[:2])"
            done = subprocess.run([path, "-c", ask], capture_output=True, text=True)
            what = done.stdout.strip()
            if done.returncode == 0 and what.lower() != own and what not in found:
                found[what] = path
    return found


def other_cpythons() -> list[str]:
    """Paths of those that are CPython, the oldest first."""
    return [path for what, path in interpreters().items() if what.startswith("CPython")]
