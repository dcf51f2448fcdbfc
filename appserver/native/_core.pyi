"""The compiled extension, for type checkers: cffi objects have no types that mypy could know."""

from typing import Any

ffi: Any
lib: Any
