"""The scope of an ASGI request, made of the environment that the core sends."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from .wire import environment

SPEC_VERSION = "2.5"
NAMES_MAX = 1024  #: names of header fields that are remembered

Environ = Dict[str, Any]
Headers = List[Tuple[bytes, bytes]]
Scope = Dict[str, Any]

#: Name of a variable to the name of its header field, empty when it is none.
_names: Dict[str, bytes] = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}

REMEMBERED_MAX = 1024  #: connections whose part of the environment is remembered
REMEMBERED_LEN_MAX = 4096  #: bytes of it

#: headers, client, server, scheme, http_version
Known = Tuple[Headers, Optional[Tuple[str, int]], Tuple[str, int], str, str]
_remembered: Dict[bytes, Known] = {}
_SERVER, _REQUEST_ID = b"\0SERVER_NAME\0", b"\0appserver.request_id\0"
_TARGET = ["REQUEST_METHOD", "REQUEST_URI", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"]

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
        "client": _client(environ),
        "server": _server(environ),
        "state": state.copy(),
        "extensions": extensions.copy(),
    }


def scope_of_block(block: bytes, extensions: Dict[str, Any], state: Dict[str, Any]) -> Scope:
    """`http_scope` of an environment block. What a client says again with each request of a connection (its address,
    the server's, the header fields) is remembered: that is most of the work.
    """
    # Either may also be a value: what a client says comes between the two names, but for the query and the method.
    start, end = block.find(_SERVER), block.rfind(_REQUEST_ID)
    parts = str(block[:start], "latin-1").split("\0")
    if len(parts) != 2 * len(_TARGET) or parts[0::2] != _TARGET or end < start or block.find(b"\0HTTP_", end) >= 0:
        return http_scope(environment(block), extensions, state)  # such a value, or another order than the core's
    between = block[start:end]
    headers, client, server, scheme, version = _remembered.get(between) or _remember(between)
    path, root_path, target = parts[7], parts[5], parts[3]
    if root_path:
        path = root_path + path
    if not path.isascii():
        path, root_path = _text(path), _text(root_path)
    if target != path:
        target = _path_of(target)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
        "http_version": version,
        "method": parts[1],
        "scheme": scheme,
        "path": path,
        "raw_path": target.encode("latin-1"),
        "query_string": parts[9].encode("latin-1"),
        "root_path": root_path,
        "headers": headers.copy(),
        "client": client,
        "server": server,
        "state": state.copy(),
        "extensions": extensions.copy(),
    }


def _remember(between: bytes) -> Known:
    environ = environment(between[1:] + b"\0")
    known = (
        header_fields(environ),
        _client(environ),
        _server(environ),
        environ["REQUEST_SCHEME"],
        _HTTP_VERSIONS.get(environ["SERVER_PROTOCOL"], "1.1"),
    )
    if len(between) <= REMEMBERED_LEN_MAX:
        if len(_remembered) >= REMEMBERED_MAX:
            _remembered.clear()
        _remembered[between] = known
    return known


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


def _client(environ: Environ) -> Optional[Tuple[str, int]]:
    address = environ.get("REMOTE_ADDR")
    return (address, int(environ.get("REMOTE_PORT") or 0)) if address else None


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
