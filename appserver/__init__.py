"""cherokee-app: a web server whose core is C and whose handlers run in supervised processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appserver.embedded import Server as Server

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`from appserver import Server` loads what it needs; the command and the processes of a pool do not."""
    if name == "Server":
        from appserver.embedded import Server

        return Server
    raise AttributeError(f"module 'appserver' has no attribute '{name}'")
