"""Runs the C tests of this folder: each `test_NAME.c` is a program, compiled with sanitizers and run here.

A program says in its head what it needs:

    /* with: base/memory.c http/date.c */      core files that are linked with it (`all`: the whole core); a file whose
                                               statics it wants it includes itself
    /* sanitize: address,undefined thread */   sanitizer builds it runs under, one run each (default: address,undefined)
    /* arguments: requests */                  paths relative to tests/ that it gets as arguments
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "appserver" / "core"))
import build

FOLDER = Path(__file__).resolve().parent
TOP = FOLDER.parent.parent
OBJECTS = TOP / "build" / "tests"
TIME_LIMIT_S = 240
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


@dataclass(frozen=True)
class Program:
    """One C test under one set of sanitizers."""

    source: Path
    sanitize: str

    @property
    def name(self) -> str:
        return f"{self.source.stem}-{self.sanitize.replace(',', '-')}"

    def directive(self, name: str, default: str) -> list[str]:
        head = self.source.read_text()[:2000]
        found = re.search(rf"^/\* {name}: ?(.*?) ?\*/$", head, re.MULTILINE)
        return (found[1] if found else default).split()


def programs() -> list[Program]:
    found = []
    for source in sorted(FOLDER.glob("test_*.c")):
        one = Program(source, "")
        found += [Program(source, sanitize) for sanitize in one.directive("sanitize", "address,undefined")]
    return found


def newest(paths: list[Path]) -> float:
    return max(path.stat().st_mtime for path in paths)


HEADERS = [TOP / path for path in build.headers()] + sorted(FOLDER.glob("*.h")) + [TOP / "appserver/core/build.py"]


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def object_of(source: str, sanitize: str) -> Path:
    """The compiled core file, compiled again only when it or a header is newer."""
    out = OBJECTS / sanitize.replace(",", "-") / (source.replace("/", "-") + ".o")
    path = TOP / source
    if not out.exists() or out.stat().st_mtime < newest([path, *HEADERS]):
        out.parent.mkdir(parents=True, exist_ok=True)
        run(["gcc", *build.cflags(sanitize), "-Werror", "-c", str(path), "-o", str(out)])
    return out


def compile_program(program: Program) -> Path:
    wanted = program.directive("with", "")
    names = build.sources() if wanted == ["all"] else [f"appserver/core/{name}" for name in wanted]
    objects = [object_of(name, program.sanitize) for name in names]
    OBJECTS.mkdir(parents=True, exist_ok=True)
    out = OBJECTS / program.name
    # A test includes core files by name; which ones is the preprocessor's business, so it is always compiled.
    run(
        [
            "gcc",
            *[flag for flag in build.cflags(program.sanitize) if flag != "-Wmissing-prototypes"],
            "-Werror",
            "-Wno-unused-function",
            f"-I{FOLDER}",
            str(program.source),
            *map(str, objects),
            "-o",
            str(out),
            *build.ldflags(program.sanitize),
            *[f"-l{library}" for library in build.LIBRARIES],
            "-lpthread",
            "-lm",
        ]
    )
    return out


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.name)
def test_program(program: Program, tmp_path: Path) -> None:
    path = compile_program(program)
    arguments = [str(TOP / "tests" / name) for name in program.directive("arguments", "")]
    done = subprocess.run(
        [str(path), *arguments],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
    )
    assert done.returncode == 0, f"{program.name} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    assert re.search(r"\d+ checks, 0 failed", done.stdout), done.stdout
