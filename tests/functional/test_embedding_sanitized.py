"""With the core built with sanitizers: the tests of the embedded server, in a process that has their runtime loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from harness import SANITIZE, TOP, sanitizer_environment


@pytest.mark.skipif(not SANITIZE, reason="the core is not built with sanitizers: test_embedding.py runs as it is")
def test_embedding_with_the_sanitizers_loaded() -> None:
    environment = {**os.environ, **sanitizer_environment(), "PYTHONPATH": str(TOP)}
    tests = [str(TOP / "tests" / "functional" / name) for name in ("test_embedding.py", "test_embedding_async.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
