"""The errors that are meant for the person who started the server: sentences, never tracebacks."""

from __future__ import annotations

from collections.abc import Iterable


class AppError(Exception):
    """Something the user can put right. `str(error)` is what to print; the command then exits with status 1."""


class ConfigError(AppError):
    """The configuration is not valid. `lines` has one complete message for each fault, in the order of the file."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


class StartError(AppError):
    """The server cannot start although its configuration is valid: one line that says why and what to do."""
