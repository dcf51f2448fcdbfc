"""Which files a worker has loaded its modules from: with --dev the supervisor watches them."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any, List, Set

FILES_MAX = 1000
BYTES_MAX = 64 * 1024  #: of all names together; a control message takes 128 KiB
INSTALLED = ("site-packages", "dist-packages")


def loaded_files(trace: str = "") -> List[str]:
    """Those of the user: not of the standard library, nor of what is installed, nor ours. Also those that a traceback
    names, whose modules were not loaded for it.
    """
    skipped = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(__file__).parent)}
    prefixes = tuple(os.path.join(folder, "") for folder in skipped if folder)  # noqa: PTH118 (one call for each file)
    found: Set[str] = set()
    size = 0
    named: List[Any] = re.findall(r'^ *File "(.+?)", line ', trace, re.MULTILINE)
    for path in [getattr(module, "__file__", None) for module in list(sys.modules.values())] + named:
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
