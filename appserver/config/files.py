"""The second pass: what the configuration names must be there, and be what it is named for."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from appserver.config.cgi_model import OWNER
from appserver.config.conventions import folder_complaint

if TYPE_CHECKING:
    from appserver.config.load import Reading

#: Kinds of keys whose values are looked at here.
KINDS = frozenset(
    {
        "directories",
        "directory",
        "executable",
        "folders",
        "group",
        "interpreter",
        "interpreters",
        "output",
        "program",
        "program_directory",
        "program_user",
        "python_handler",
        "scripts",
        "scripts_handler",
        "socket",
        "types_file",
        "user",
    }
)


def check(reading: Reading) -> None:
    """Notes everything that is not there. Only values that were right in themselves come here."""
    for path, kind, value in reading.paths:
        complaint = complaint_about(kind, value)
        if complaint:
            reading.report(path, complaint)


def complaint_about(kind: str, value: str) -> str:
    """What is wrong and what to do, or ""."""
    if kind == "user":
        return _account(value, "user")
    if kind == "program_user":
        return "" if value == OWNER else _account(value, "user")
    if kind == "group":
        return _account(value, "group")
    if kind == "output":
        return "" if value == "-" else _directory(str(Path(value).parent), "a folder for the file")
    if kind == "socket":
        return "" if value == "auto" else _directory(str(Path(value).parent), "a folder for the socket")
    if kind == "interpreter" and "/" in value and Path(value).is_dir():
        return (
            f"'{value}' is a folder without bin/python; expected a Python interpreter or a virtual environment;"
            f" create it with `python3 -m venv {value}` or correct the path"
        )
    if kind in ("executable", "interpreter", "interpreters"):
        return _executable(value)
    if kind == "program":
        return _file(value, "a CGI program")
    if kind == "program_directory" and Path(value).is_file():
        question = f"did you mean 'cgi: {{program: {value}}}'?"
        return f"'{value}' is a file; expected a folder of CGI programs; {question}"
    if kind == "types_file":
        return _file(value, "a table of media types")
    if kind in ("python_handler", "scripts_handler") and not value.startswith("/"):
        return ""  # the name of a pool
    if kind == "scripts" and value.endswith(".py") and not Path(value).is_dir():
        return _file(value, "a folder, or a handler script")
    return _file(value, "a handler script") if kind == "python_handler" else _directory(value, "a folder")


def _directory(value: str, expected: str) -> str:
    complaint = folder_complaint(Path(value))
    if not complaint:
        return ""
    action = "change its mode or owner" if "may not" in complaint else "create it or correct the path"
    return f"{complaint}; expected {expected}; {action}"


def _file(value: str, expected: str) -> str:
    if not Path(value).exists():
        return f"'{value}' does not exist; expected {expected}; create it or correct the path"
    if not Path(value).is_file():
        return f"'{value}' is not a file; expected {expected}; correct the path"
    if not os.access(value, os.R_OK):
        who = f"the user who runs this (uid {os.geteuid()})"
        return f"'{value}' may not be read by {who}; expected {expected}; change its mode or owner"
    return ""


def _executable(value: str) -> str:
    if "/" not in value:
        return f"'{value}' is not in PATH; expected a program; install it or give its path"
    if not Path(value).exists():
        return f"'{value}' does not exist; expected a program; install it or correct the path"
    if not Path(value).is_file() or not os.access(value, os.X_OK):
        return f"'{value}' is not executable; expected a program; correct the path or its mode (chmod +x)"
    return ""


def _account(value: str, kind: str) -> str:
    if value.isdigit():
        return ""
    try:
        if kind == "user":
            pwd.getpwnam(value)
        else:
            grp.getgrnam(value)
    except KeyError:
        return f"'{value}' does not exist; expected a {kind} of this system; create it or correct the name"
    return ""
