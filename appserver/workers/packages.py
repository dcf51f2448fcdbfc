"""The folders of handler scripts as packages, so that a script finds what lies beside it: `from . import _helper`,
`from .._shared import name`.

They have private names. By its own name a folder would hide, or be hidden by, a module of the standard library
(`email/`, `calendar/`), and two sites may both have a `shop/`.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Iterable

_NOT_IDENTIFIER = re.compile(r"\W", re.ASCII)


def module_name(path: Path, tops: Iterable[str]) -> str:
    """What the script is called in `sys.modules`; the packages around it are there afterwards.

    `tops` are folders whose scripts have URLs: the one that `path` lies below is the outermost package. Raises whatever
    an `__init__.py` raises.
    """
    top = top_of(path, tops)
    package = _package(f"_scripts_{_digest(str(top))}", top)
    folder = top
    for name in path.parent.relative_to(top).parts:
        folder = folder / name
        package = _package(f"{package}.{_identifier(name)}", folder)
    return f"{package}.{_identifier(path.stem)}"


def top_of(path: Path, tops: Iterable[str]) -> Path:
    """The folder whose modules a script may import by their own names."""
    around = [Path(top) for top in tops if Path(top) in path.parents]
    return max(around, key=lambda each: len(each.parts), default=path.parent)


def _package(name: str, folder: Path) -> str:
    if name in sys.modules:
        return name
    init = folder / "__init__.py"
    if init.is_file():
        spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(folder)])
        assert spec is not None
    else:
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if spec.loader is not None and init.is_file():
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, module)
    return name


def _identifier(name: str) -> str:
    """The name, or one that no other file has when it could not be written in an import."""
    return name if name.isidentifier() else f"{_NOT_IDENTIFIER.sub('_', name)}_{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]
