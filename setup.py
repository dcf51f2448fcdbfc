"""The compiled part of the package; everything else is in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["appserver/core/build.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
