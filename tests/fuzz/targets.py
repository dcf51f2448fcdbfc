"""The fuzz targets: what each is made of, and running them with libFuzzer (`targets.py SECONDS [TARGET...]`).

A target `fuzz_NAME.c` says in its head which core files it needs (`with:`) and, besides `corpus/NAME`, which folders of
tests/ its seeds are in (`seeds:`). Inputs of the corpus are named by their SHA-1. What crashes a target is written to
`corpus/NAME` as `crash-...`: give it such a name and commit it with the fix.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TESTS = FOLDER.parent
TOP = TESTS.parent
OUT = TOP / "build" / "fuzz"
MAX_INPUT = 4096

sys.path.insert(0, str(TOP / "appserver" / "core"))
import build  # noqa: E402


@dataclass(frozen=True)
class Target:
    """One `fuzz_NAME.c`."""

    source: Path

    @property
    def name(self) -> str:
        return self.source.stem.removeprefix("fuzz_")

    def _directive(self, name: str) -> list[str]:
        found = re.search(rf"^/\* {name}: ?(.*?) ?\*/$", self.source.read_text()[:2000], re.MULTILINE)
        return found[1].split() if found else []

    @property
    def core_files(self) -> list[str]:
        return [f"appserver/core/{name}" for name in self._directive("with")]

    @property
    def corpus(self) -> Path:
        return FOLDER / "corpus" / self.name

    @property
    def seeds(self) -> list[Path]:
        """Every input that is in the repository."""
        folders = [self.corpus, *(TESTS / name for name in self._directive("seeds"))]
        return sorted(path for folder in folders for path in folder.glob("*") if path.suffix != ".expect")


def targets() -> list[Target]:
    return [Target(path) for path in sorted(FOLDER.glob("fuzz_*.c"))]


def compile_with_fuzzer(target: Target) -> Path:
    OUT.mkdir(parents=True, exist_ok=True)
    out = OUT / target.name
    flags = [flag for flag in build.cflags("fuzzer,address,undefined") if flag != "-Wmissing-prototypes"]
    sources = [str(target.source), *target.core_files]
    command = ["clang", *flags, f"-I{TESTS / 'core'}", *sources, "-o", str(out)]
    subprocess.run(command, cwd=TOP, check=True)
    return out


def fuzz(target: Target, seconds: int) -> bool:
    """Fuzzes for a time; false when something was found. New inputs are kept in build/, to go on from."""
    program = compile_with_fuzzer(target)
    found = OUT / "corpus" / target.name
    found.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        data = seed.read_bytes()
        (found / hashlib.sha1(data).hexdigest()).write_bytes(data)
    target.corpus.mkdir(parents=True, exist_ok=True)
    command = [
        str(program),
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT}",
        "-timeout=10",
        "-print_final_stats=1",
    ]
    command += [f"-artifact_prefix={target.corpus}/", str(found)]
    done = subprocess.run(command, cwd=OUT, capture_output=True, text=True)
    figures = dict(re.findall(r"^stat::(\w+):\s+(\d+)$", done.stderr, re.MULTILINE))
    print(f"{target.name}: {figures.get('number_of_executed_units', '?')} runs in {seconds} s, ", end="")
    print("nothing found" if done.returncode == 0 else f"FAILED\n{done.stderr[-6000:]}")
    return done.returncode == 0


def main() -> int:
    seconds, *names = sys.argv[1:] or ["60"]
    chosen = [target for target in targets() if not names or target.name in names]
    unknown = set(names) - {target.name for target in chosen}
    if unknown or not seconds.isdigit():
        known = ", ".join(target.name for target in targets())
        print(f"usage: targets.py SECONDS [TARGET...]; the targets are {known}", file=sys.stderr)
        return 2
    found_nothing = [fuzz(target, int(seconds)) for target in chosen]
    return 0 if all(found_nothing) else 1


if __name__ == "__main__":
    sys.exit(main())
