"""The compiled part of the package; everything else is in pyproject.toml."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.extension import Extension


class BuildCore(build_ext):
    """Compiles as many files at a time as there are processors."""

    def build_extension(self, ext: Extension) -> None:
        compile_in_turn = self.compiler.compile

        def compile_together(sources: list[str], **how: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = pool.map(lambda source: compile_in_turn([source], **how), sources)
                return [name for names in found for name in names]

        self.compiler.compile = compile_together
        super().build_extension(ext)


setup(
    cffi_modules=["appserver/core/build.py:ffi"],
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
