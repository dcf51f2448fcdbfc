"""Runs the C tests of this folder: each `test_NAME.c` is a program, compiled with sanitizers and run here.

A program says in its head what it needs:

    /* with: base/memory.c http/date.c */      core files that are linked with it (`all`: the whole core); a file whose
                                               statics it wants it includes itself
    /* sanitize: address,undefined thread */   sanitizer builds it runs under, one run each (default: address,undefined)
    /* arguments: requests */                  paths relative to tests/ that it gets as arguments
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "appserver" / "core"))
import build

FOLDER = Path(__file__).resolve().parent
TOP = FOLDER.parent.parent
CORE = TOP / "appserver" / "core"
OBJECTS = TOP / "build" / "tests"
TIME_LIMIT_S = 600
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


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def included(path: Path, found: set[Path] | None = None) -> set[Path]:
    """The file and all that it includes, also through others, but for the system's headers."""
    found = set() if found is None else found
    found.add(path)
    for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.MULTILINE):
        places = (folder / name for folder in (path.parent, CORE, FOLDER))
        other = next((place.resolve() for place in places if place.exists()), None)
        if other is not None and other not in found:
            included(other, found)
    return found


def made(out: Path, command: list[str], sources: list[Path]) -> Path:
    """What the command makes of these and what they include; it is run again only when one of them has changed, or
    the command. Several processes may ask for the same at the same time.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(" ".join(command).encode())
    for path in sorted(set().union(*map(included, sources))):
        key.update(path.read_bytes())
    with out.with_name(f"{out.name}.key").open("a+") as known:
        fcntl.flock(known, fcntl.LOCK_EX)
        known.seek(0)
        if known.read() != key.hexdigest() or not out.exists():
            known.truncate(0)
            run(command)
            known.write(key.hexdigest())
    return out


def object_of(source: str, sanitize: str) -> Path:
    """A core file, compiled."""
    out = OBJECTS / sanitize.replace(",", "-") / (source.replace("/", "-") + ".o")
    path = TOP / source
    return made(out, ["gcc", *build.cflags(sanitize), "-Werror", "-c", str(path), "-o", str(out)], [path])


def program_of(name: str, sources: list[Path], core_files: list[str], sanitize: str, *flags: str) -> Path:
    """Those linked with files of the core, which are compiled as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda path: object_of(path, sanitize), core_files))
    out = OBJECTS / name
    command = [
        "gcc",
        *[flag for flag in build.cflags(sanitize) if flag != "-Wmissing-prototypes"],
        "-Werror",
        *flags,
        f"-I{FOLDER}",
        *map(str, sources),
        *map(str, objects),
        "-o",
        str(out),
        *build.ldflags(sanitize),
        *[f"-l{library}" for library in build.LIBRARIES],
        "-lpthread",
        "-lm",
    ]
    return made(out, command, [*sources, *(TOP / path for path in core_files)])


def compile_program(program: Program) -> Path:
    wanted = program.directive("with", "")
    core_files = build.sources() if wanted == ["all"] else [f"appserver/core/{name}" for name in wanted]
    return program_of(program.name, [program.source], core_files, program.sanitize, "-Wno-unused-function")


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
