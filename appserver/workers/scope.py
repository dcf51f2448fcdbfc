"""The scope of an ASGI request, made of the environment that the core sends."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

SPEC_VERSION = "2.5"
NAMES_MAX = 1024  #: names of header fields that are remembered

Environ = Dict[str, Any]
Headers = List[Tuple[bytes, bytes]]
Scope = Dict[str, Any]

#: Name of a variable to the name of its header field, None when it is none.
_names: Dict[str, Optional[bytes]] = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}

_HTTP_VERSIONS = {"HTTP/1.1": "1.1", "HTTP/1.0": "1.0", "HTTP/2.0": "2", "HTTP/2": "2"}


def header_fields(environ: Environ) -> Headers:
    """Names in lower case, as the specification wants them."""
    fields: Headers = []
    names = _names
    for variable, value in environ.items():
        try:
            name = names[variable]
        except KeyError:
            name = _learn(variable)
        if name is not None:
            fields.append((name, value.encode("latin-1")))
    return fields


def _learn(variable: str) -> Optional[bytes]:
    name = None
    if variable.startswith("HTTP_"):
        name = variable[5:].lower().replace("_", "-").encode("latin-1")
    if len(_names) < NAMES_MAX:  # clients invent names
        _names[variable] = name
    return name


def http_scope(environ: Environ, extensions: Dict[str, Any], state: Dict[str, Any]) -> Scope:
    """Of a request."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
        "http_version": _HTTP_VERSIONS.get(environ["SERVER_PROTOCOL"], "1.1"),
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["REQUEST_SCHEME"],
        "extensions": extensions.copy(),
    }
    _add_common(scope, environ, state)
    return scope


def websocket_scope(environ: Environ, extensions: Dict[str, Any], state: Dict[str, Any]) -> Scope:
    """Of a request that asks for a WebSocket."""
    offered = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
        "http_version": _HTTP_VERSIONS.get(environ["SERVER_PROTOCOL"], "1.1"),
        "scheme": "wss" if environ["REQUEST_SCHEME"] == "https" else "ws",
        "subprotocols": [name.strip() for name in offered.split(",") if name.strip()],
        "extensions": extensions.copy(),
    }
    _add_common(scope, environ, state)
    return scope


def _add_common(scope: Scope, environ: Environ, state: Dict[str, Any]) -> None:
    root_path = environ["SCRIPT_NAME"]
    path = root_path + environ["PATH_INFO"]
    # ASCII is itself in both encodings, and nearly every path is.
    if not path.isascii():
        path, root_path = _text(path), _text(root_path)
    target: str = environ["REQUEST_URI"]
    scope["path"] = path
    scope["raw_path"] = _path_of(target).encode("latin-1")
    scope["query_string"] = environ["QUERY_STRING"].encode("latin-1")
    scope["root_path"] = root_path
    scope["headers"] = header_fields(environ)
    address = environ.get("REMOTE_ADDR")
    scope["client"] = (address, int(environ.get("REMOTE_PORT") or 0)) if address else None
    scope["server"] = (
        environ.get("SERVER_ADDR") or environ.get("SERVER_NAME") or "localhost",
        int(environ["SERVER_PORT"]),
    )
    scope["state"] = state.copy()


def _text(latin: str) -> str:
    return latin.encode("latin-1").decode("utf-8", "replace")


def _path_of(target: str) -> str:
    """The path as the client wrote it, of a target in any form (RFC 9112 section 3.2)."""
    path = target.partition("?")[0]
    if path[:1] == "/" or path == "*":
        return path
    _, separator, rest = path.partition("://")
    if not separator:
        return path
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"
