"""The program that the supervisor starts: `INTERPRETER main.py CONTROL_FD`.

Python puts the folder of a program first on `sys.path`; there a user's `import wsgi` or `import request` would find our
modules. So the folder is taken off again, and the package is loaded under a name that nobody else uses.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGE = "_appserver_worker"
OLDEST = (3, 9)
STATUS_NO_BOOT = 3


def load_package(folder: Path) -> None:
    """Makes the worker package importable as `_appserver_worker`."""
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


def main() -> int:
    if sys.version_info < OLDEST:
        found, needed = (".".join(map(str, version[:2])) for version in (sys.version_info, OLDEST))
        print(f"{sys.executable} is Python {found}; a pool's interpreter must be {needed} or later", file=sys.stderr)
        return STATUS_NO_BOOT
    folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder]
    load_package(folder)
    worker = importlib.import_module(PACKAGE + ".worker")
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        print("usage: main.py CONTROL_FD (started by cherokee-app, not by hand)", file=sys.stderr)
        return 2
    control_fd = int(sys.argv[1])
    del sys.argv[1:]
    status: int = worker.run(control_fd)
    return status


if __name__ == "__main__":
    sys.exit(main())
