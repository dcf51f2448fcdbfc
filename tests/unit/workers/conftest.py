"""Fixtures of the worker tests, which drive a real worker process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for fake_core

from fake_core import FakeCore

Run = Callable[..., FakeCore]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """`run(source, **configuration)` starts a worker for that application, `run(**configuration)` one for scripts.

    `threads`, `loops`, `slots` and `interpreter` go to FakeCore.
    """
    with contextlib.ExitStack() as stack:

        def start(source: str | None = None, *, ready: bool = True, **how: Any) -> FakeCore:
            own = {name: how.pop(name) for name in ("threads", "loops", "slots", "interpreter") if name in how}
            if source is not None:
                (tmp_path / "site_app.py").write_text(source, encoding="utf-8")
                how.setdefault("application", "site_app:application")
            how.setdefault("directory", str(tmp_path))
            core = stack.enter_context(FakeCore(how, **own))
            return core.ready() if ready else core

        yield start
