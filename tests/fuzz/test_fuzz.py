"""Replays the corpus of every fuzz target with gcc's sanitizers; `make fuzz` looks for more with clang's libFuzzer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core import test_core

sys.path.insert(0, str(Path(__file__).resolve().parent))
import targets

SANITIZE = "address,undefined"


@pytest.mark.parametrize("target", targets.targets(), ids=lambda target: target.name)
def test_corpus(target: targets.Target) -> None:
    assert target.seeds, f"{target.corpus} has no input"
    objects = [test_core.object_of(name, SANITIZE) for name in target.core_files]
    out = test_core.OBJECTS / f"fuzz-{target.name}"
    flags = [*targets.build.cflags(SANITIZE), *targets.build.ldflags(SANITIZE)]
    sources = [str(target.source), str(targets.FOLDER / "replay.c")]
    test_core.run(
        ["gcc", *flags, "-Werror", f"-I{test_core.FOLDER}", *sources, *map(str, objects), "-o", str(out)],
    )
    done = subprocess.run(
        [str(out), *map(str, target.seeds)],
        env={**os.environ, **test_core.ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=test_core.TIME_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout == f"{len(target.seeds)} inputs\n"
