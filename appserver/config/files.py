"""The second pass: what the configuration names must be there, and be what it is named for."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from appserver import paths
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
    if kind == "interpreter":
        return _interpreter(value)
    if kind in ("executable", "interpreters"):
        return _executable(value, "a program")
    if kind == "program":
        return _file(value, "a CGI program")
    if kind == "program_directory" and paths.is_file(Path(value)):
        question = f"did you mean 'cgi: {{program: {value}}}'?"
        return f"'{value}' is a file; expected a folder of CGI programs; {question}"
    if kind == "types_file":
        return _file(value, "a table of media types")
    if kind in ("python_handler", "scripts_handler") and not value.startswith("/"):
        return ""  # the name of a pool
    if kind == "scripts" and value.endswith(".py") and not paths.is_dir(Path(value)):
        return _file(value, "a folder, or a handler script")
    return _file(value, "a handler script") if kind == "python_handler" else _directory(value, "a folder")


def _directory(value: str, expected: str) -> str:
    complaint = folder_complaint(Path(value))
    if not complaint:
        return ""
    return f"{complaint}; expected {expected}; {_action(complaint)}"


def _file(value: str, expected: str) -> str:
    absence = paths.absence(Path(value))
    if absence:
        return f"{absence}; expected {expected}; {_action(absence)}"
    if not paths.is_file(Path(value)):
        return f"'{value}' is not a file; expected {expected}; correct the path"
    if not os.access(value, os.R_OK):
        who = f"the user who runs this (uid {os.geteuid()})"
        return f"'{value}' may not be read by {who}; expected {expected}; change its mode or owner"
    return ""


def _interpreter(value: str) -> str:
    expected = "a Python interpreter or a virtual environment"
    path = Path(value)
    if "/" in value and paths.is_dir(path):
        return (
            f"'{value}' is a folder without bin/python; expected {expected};"
            f" create it with `python3 -m venv {value}` or correct the path"
        )
    environment = path.parent.parent
    if paths.is_link(path) and not paths.exists(path) and paths.exists(environment / "pyvenv.cfg"):
        return (
            f"{paths.absence(path)}; expected the Python that this virtual environment was made with; install that, or"
            f" make the environment anew (`python3 -m venv --clear {environment}`, and its packages)"
        )
    return _executable(value, expected)


def _executable(value: str, expected: str) -> str:
    if "/" not in value:
        return f"'{value}' is not in PATH; expected {expected}; install it or give its path"
    absence = paths.absence(Path(value))
    if absence:
        return f"{absence}; expected {expected}; {_action(absence, 'install')}"
    if not paths.is_file(Path(value)) or not os.access(value, os.X_OK):
        return f"'{value}' is not executable; expected {expected}; correct the path or its mode (chmod +x)"
    return ""


def _action(complaint: str, make: str = "create") -> str:
    return "change its mode or owner" if "may not" in complaint else f"{make} it or correct the path"


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
