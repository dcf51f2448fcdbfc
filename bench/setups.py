"""How a server is set up for a measurement: what every maker of a command line is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOP = HERE.parent
BUILT = TOP / "build" / "bench"
OURS = "cherokee-app"
NULL = "null server"
#: Kinds of setup to modules in `apps`, each with an `application`.
PYTHON_APPS = {"wsgi": "wsgi_app", "asgi": "asgi_app", "flask": "flask_app", "django": "django_app"}
FILE_SIZES = {
    "1k": 1024,
    "10k": 10 * 1024,
    "100k": 100 * 1024,
    "300k": 300 * 1024,
    "1m": 1024 * 1024,
    "100m": 100 * 1024 * 1024,
}


@dataclass(frozen=True)
class Setup:
    """What a server is to serve, and how."""

    root: Path  #: of the files, and of `cgi-bin`
    access_log: bool = False
    loops: int = 1
    kind: str = "static"  #: or cgi, or one of PYTHON_APPS
    keep_alive: bool = True  #: for the null server, which does not look
    body: int = 1024  #: likewise
    threads: int = 1  #: in each worker of a Python server; `loops` are its processes
    config: Mapping[str, Any] = field(default_factory=dict)  #: for this server: top-level keys of its configuration
    pool: Mapping[str, Any] = field(default_factory=dict)  #: likewise: keys of its Python pool


@dataclass(frozen=True)
class Command:
    """How to start a server in the foreground."""

    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)


Make = Callable[[Setup, Path, int], Command]
