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


@pytest.mark.parametrize("target", targets.targets(), ids=lambda target: target.name)
def test_corpus(target: targets.Target) -> None:
    assert target.seeds, f"{target.corpus} has no input"
    sources = [target.source, targets.FOLDER / "replay.c"]
    program = test_core.program_of(f"fuzz-{target.name}", sources, target.core_files, "address,undefined")
    done = subprocess.run(
        [str(program), *map(str, target.seeds)],
        env={**os.environ, **test_core.ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=test_core.TIME_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout == f"{len(target.seeds)} inputs\n"
