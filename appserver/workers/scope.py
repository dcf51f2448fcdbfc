"""The scope of an ASGI request, made of the environment that the core sends."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

SPEC_VERSION = "2.5"
NAMES_MAX = 1024  #: names of header fields that are remembered

Environ = Dict[str, Any]
Headers = List[Tuple[bytes, bytes]]
Scope = Dict[str, Any]

#: Name of a variable to the name of its header field, empty when it is none.
_names: Dict[str, bytes] = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}

_HTTP_VERSIONS = {"HTTP/1.1": "1.1", "HTTP/1.0": "1.0", "HTTP/2.0": "2", "HTTP/2": "2"}


def header_fields(environ: Environ) -> Headers:
    """Names in lower case, as the specification wants them."""
    names = _names
    try:
        return [(names[each], environ[each].encode("latin-1")) for each in environ if names[each]]
    except KeyError:  # a name that was not seen before
        found = ((_name_of(each), value) for each, value in environ.items())
        return [(name, value.encode("latin-1")) for name, value in found if name]


def _name_of(variable: str) -> bytes:
    name = _names.get(variable)
    if name is not None:
        return name
    name = variable[5:].lower().replace("_", "-").encode("latin-1") if variable.startswith("HTTP_") else b""
    if len(_names) < NAMES_MAX:  # clients invent names
        _names[variable] = name
    return name


def http_scope(environ: Environ, extensions: Dict[str, Any], state: Dict[str, Any]) -> Scope:
    """Of a request."""
    path, root_path, raw_path = _paths(environ)
    address = environ.get("REMOTE_ADDR")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
        "http_version": _HTTP_VERSIONS.get(environ["SERVER_PROTOCOL"], "1.1"),
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["REQUEST_SCHEME"],
        "path": path,
        "raw_path": raw_path,
        "query_string": environ["QUERY_STRING"].encode("latin-1"),
        "root_path": root_path,
        "headers": header_fields(environ),
        "client": (address, int(environ.get("REMOTE_PORT") or 0)) if address else None,
        "server": _server(environ),
        "state": state.copy(),
        "extensions": extensions.copy(),
    }


def websocket_scope(environ: Environ, extensions: Dict[str, Any], state: Dict[str, Any]) -> Scope:
    """Of a request that asks for a WebSocket."""
    scope = http_scope(environ, extensions, state)
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if environ["REQUEST_SCHEME"] == "https" else "ws"
    offered = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
    scope["subprotocols"] = [name.strip() for name in offered.split(",") if name.strip()]
    return scope


def _paths(environ: Environ) -> Tuple[str, str, bytes]:
    """`path`, `root_path` and `raw_path`. The first is the whole path, `root_path` included."""
    root_path: str = environ["SCRIPT_NAME"]
    path: str = root_path + environ["PATH_INFO"] if root_path else environ["PATH_INFO"]
    # ASCII is itself in both encodings, and nearly every path is.
    if not path.isascii():
        path, root_path = _text(path), _text(root_path)
    target: str = environ["REQUEST_URI"]
    if target != path:
        target = _path_of(target)
    return path, root_path, target.encode("latin-1")


def _server(environ: Environ) -> Tuple[str, int]:
    host = environ.get("SERVER_ADDR") or environ.get("SERVER_NAME") or "localhost"
    return host, int(environ["SERVER_PORT"])


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
