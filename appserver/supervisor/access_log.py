"""The descriptor of the access log. The supervisor opens it, so the core needs no right to the file."""

from __future__ import annotations

import os

from appserver.config.model import Log
from appserver.errors import StartError

STDOUT = 1
MODE = 0o644


def open_access_log(log: Log) -> int:
    """A descriptor of one's own for what the configuration says. Raises StartError."""
    if log.access == "off":
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    if log.access_file == "-":
        return os.dup(STDOUT)
    try:
        return os.open(log.access_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, MODE)
    except OSError as error:
        raise StartError(
            f"log.access_file: cannot open {log.access_file}: {error.strerror};"
            ' make its folder writable, or use "-" for stdout'
        ) from error
