"""The rules that keep the layers apart (docs/architecture.md, section 3), read from the sources themselves."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
CORE = TOP / "appserver" / "core"
sys.path.insert(0, str(CORE))
import build  # noqa: E402

MAX_LINES = 900

#: Room of the Python side: the rooms that it may import. `appserver.native._core` is a room of its own.
PYTHON_ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "paths": set(),
    "logging": {"errors"},
    "control": {"errors", "paths", "config"},
    "incidents": {"errors", "paths", "config"},
    "workers": set(),
    "config": {"errors", "paths"},
    "native": {"errors", "native._core"},
    "supervisor": {"errors", "paths", "logging", "config", "control", "incidents", "native"},
    "embedded": {"errors", "config", "native", "supervisor", "workers"},
    "cli": {"errors", "logging", "config", "control", "incidents", "supervisor"},
    "__init__": {"embedded"},  # on demand, for `from appserver import Server`
    "__main__": {"cli"},
    "core": set(),  # build.py
}

#: Function: why it is not called, and what is.
BANNED = {
    "strcpy": "it has no bound; memcpy with a known length",
    "strcat": "it has no bound; as_buf_add",
    "strncpy": "it may leave out the NUL; memcpy with a known length",
    "strtok": "it has hidden state; memchr",
    "sprintf": "it has no bound; snprintf or as_buf_printf",
    "vsprintf": "it has no bound; vsnprintf",
    "gets": "it has no bound; read",
    "alloca": "it has no limit; an array of fixed size, or an arena",
    "atoi": "it takes anything for a number; as_str_to_i64",
    "system": "it goes through a shell; posix_spawn",
}
#: Allocation has one door, so that running out of memory is decided in one place.
ALLOCATION = {"malloc", "calloc", "realloc", "free", "strdup", "strndup", "posix_memalign", "aligned_alloc"}


def c_files() -> list[Path]:
    return sorted([*CORE.rglob("*.c"), *CORE.rglob("*.h")])


def without_comments(text: str) -> str:
    """C source with comments and literals blanked; line numbers stay."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\''
    return re.sub(pattern, lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.DOTALL)


def calls(text: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything that is called by its plain name (not through a pointer or member)."""
    for number, line in enumerate(without_comments(text).splitlines(), 1):
        for found in re.finditer(r"(?<![\w>.])(?<!->)([A-Za-z_]\w*)\s*\(", line):
            yield number, found[1]


def layer_of(path: str) -> int | None:
    """The place of a core file in the order of layers; None for those at the top, which come after all."""
    first = path.split("/")[0]
    return build.LAYERS.index(first) if "/" in path else None


@pytest.mark.parametrize("path", c_files(), ids=lambda path: str(path.relative_to(CORE)))
def test_c_includes_go_one_way(path: Path) -> None:
    here = layer_of(str(path.relative_to(CORE)))
    for included in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.MULTILINE):
        assert (CORE / included).exists(), f"{included} is not named by its path from appserver/core"
        there = layer_of(included)
        if here is None or included.startswith("report/"):
            continue
        assert there is not None and there <= here, f"{included} belongs to a later layer"


def test_every_folder_of_the_core_is_a_layer() -> None:
    assert {path.parent.name for path in c_files() if path.parent != CORE} == set(build.LAYERS)


@pytest.mark.parametrize("path", c_files(), ids=lambda path: str(path.relative_to(CORE)))
def test_no_banned_calls_in_c(path: Path) -> None:
    in_base = path.parent.name == "base"
    found = []
    for line, name in calls(path.read_text()):
        if name in BANNED:
            found.append(f"{path.name}:{line}: {name}: {BANNED[name]}")
        elif name in ALLOCATION and not in_base:
            found.append(f"{path.name}:{line}: {name}: memory comes from base/memory.h")
    assert not found, "\n".join(found)


def test_the_scan_for_calls_sees_what_it_should() -> None:
    text = 'a = malloc (3); /* free(x) */ s = "gets("; ops->free(h); ops.free(h); as_free(p);\n  free(p);'
    assert list(calls(text)) == [(1, "malloc"), (1, "as_free"), (2, "free")]


def source_files() -> list[Path]:
    found: list[Path] = []
    for folder in ("appserver", "tests", "handlers", "bench", "deploy"):
        for suffix in ("*.py", "*.c", "*.h"):
            found += (TOP / folder).rglob(suffix)
    return sorted(path for path in found if not path.name.startswith("_core."))


def test_no_source_file_is_too_long() -> None:
    lengths = {str(path.relative_to(TOP)): len(path.read_bytes().splitlines()) for path in source_files()}
    assert not {path: length for path, length in lengths.items() if length > MAX_LINES}


def python_files() -> list[Path]:
    return sorted((TOP / "appserver").rglob("*.py"))


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every module that a file imports, at its top or inside a function.

    What only the type checker sees (`if TYPE_CHECKING:`) is not an import.
    """
    package = ["appserver", *path.relative_to(TOP / "appserver").parts[:-1]]
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def room_of(module: str) -> str:
    """`appserver.native._core.lib` belongs to `native._core`, `appserver.config.plan.Plan` to `config`."""
    parts = module.split(".")[1:]
    return "native._core" if parts[:2] == ["native", "_core"] else parts[0]


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(TOP)))
def test_python_imports_go_one_way(path: Path) -> None:
    first = path.relative_to(TOP / "appserver").parts[0].removesuffix(".py")
    assert first in PYTHON_ROOMS, f"{first} has no place in PYTHON_ROOMS"
    for line, module in imported_modules(path):
        if not module.startswith("appserver.") or module == "appserver.__version__":
            continue
        room = room_of(module)
        assert room == first or room in PYTHON_ROOMS[first], f"{path.name}:{line}: {first} must not import {module}"


@pytest.mark.parametrize("path", sorted((TOP / "appserver/workers").glob("*.py")), ids=lambda path: path.name)
def test_workers_need_only_the_standard_library(path: Path) -> None:
    for line, module in imported_modules(path):
        first = module.split(".")[0]
        is_ours = module.startswith("appserver.workers.")
        assert first in sys.stdlib_module_names or is_ours, f"{path.name}:{line}: {module}"
