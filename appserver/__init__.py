"""cherokee-app: a web server whose core is C and whose handlers run in supervised processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appserver.embedded import BadInput as BadInput
    from appserver.embedded import Disconnected as Disconnected
    from appserver.embedded import RequestTimeout as RequestTimeout
    from appserver.embedded import Response as Response
    from appserver.embedded import Server as Server
    from appserver.embedded import TooLarge as TooLarge

__version__ = "0.1.0"

_OF_EMBEDDED = frozenset(("BadInput", "Disconnected", "RequestTimeout", "Response", "Server", "TooLarge"))


def __getattr__(name: str) -> Any:
    """`from appserver import Server` loads what it needs; the command and the processes of a pool do not."""
    if name in _OF_EMBEDDED:
        from appserver import embedded

        return getattr(embedded, name)
    raise AttributeError(f"module 'appserver' has no attribute '{name}'")
