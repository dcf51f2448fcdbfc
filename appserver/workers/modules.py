"""Which files a worker has loaded its modules from: with --dev the supervisor watches them."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import List, Set

FILES_MAX = 1000
BYTES_MAX = 64 * 1024  #: of all names together; a control message takes 128 KiB
INSTALLED = ("site-packages", "dist-packages")


def loaded_files() -> List[str]:
    """Those of the user: not of the standard library, nor of what is installed, nor ours."""
    skipped = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(__file__).parent)}
    prefixes = tuple(os.path.join(folder, "") for folder in skipped if folder)  # noqa: PTH118 (one call for each file)
    found: Set[str] = set()
    size = 0
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if not isinstance(path, str) or path.startswith(prefixes) or not path.endswith(".py"):
            continue
        path = os.path.abspath(path)  # noqa: PTH100 (no link is followed)
        if path in found or any(f"/{name}/" in path for name in INSTALLED):
            continue
        size += len(os.fsencode(path))
        if len(found) >= FILES_MAX or size > BYTES_MAX:
            break
        found.add(path)
    return sorted(found)
