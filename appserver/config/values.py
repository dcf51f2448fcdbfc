"""Scalars of the configuration: text -> value, or UnfitError with what was expected. No I/O but a look at PATH."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appserver import paths
from appserver.config.keys import Key
from appserver.config.model import MAX_THREADS, Address
from appserver.config.units import UnfitError, format_size, format_time, nearest, parse_size, parse_time_ms

#: Parser of one scalar: (text, its key, folder that relative paths start from) -> value.
Parser = Callable[[str, Key, Path], Any]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_APPLICATION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_TOKEN = re.compile(r"[A-Z][A-Z0-9-]{0,31}", re.ASCII)
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", re.ASCII)
_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+( *; *[A-Za-z0-9-]+=[A-Za-z0-9_.\"-]+)*", re.ASCII
)
_EXTENSION = re.compile(r"\.[a-z0-9_+~-]+", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
SOCKET_PATH_MAX = 107  #: bytes that fit into the address of a Unix socket
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")


def parse_address(text: str) -> Address:
    """HOST:PORT, with IPv6 in brackets. Raises UnfitError."""
    expected = "HOST:PORT such as 127.0.0.1:8080, 0.0.0.0:80 or [::]:8080"
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise UnfitError(expected, f"0.0.0.0:{text}" if _is_port(text) else f"{text}:8080" if _is_host(text) else "")
    if not _is_port(port_text):
        raise UnfitError("a port from 0 to 65535 (0: any free one)" if port_text.isdigit() else expected)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise UnfitError(expected)
    elif ":" in host:
        raise UnfitError(expected, f"[{host}]:{port_text}" if _is_ipv6(host) else "")
    elif not _is_host(host):
        raise UnfitError(expected, f"0.0.0.0:{port_text}" if host in ("", "*") else "")
    return Address(host, int(port_text), text)


def parse_threads(text: str, low: int = 1, high: int = MAX_THREADS) -> int | None:
    """auto (None) or a number of loops. Raises UnfitError."""
    if text == "auto":
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UnfitError(f"auto or a whole number from {low} to {high}", nearest(text, ["auto"]))
    if not low <= int(text) <= high:
        raise UnfitError(f"auto or a whole number from {low} to {high}")
    return int(text)


def absolute(text: str, base: Path) -> str:
    """The path from the root; relative ones start from `base`. Raises UnfitError for what no path can be."""
    if not text or "\0" in text:
        raise UnfitError("a path")
    return os.path.normpath(base / text)


def _choice(text: str, key: Key, _: Path) -> str:
    if text not in key.choices:
        raise UnfitError(f"one of {', '.join(key.choices)}", nearest(text, key.choices))
    return text


def _redirect_status(text: str, key: Key, base: Path) -> int:
    return int(_choice(text, key, base))


def _count(text: str, key: Key, _: Path) -> int:
    expected = f"a whole number from {key.low} to {key.high}"
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise UnfitError(expected)
    return _within(int(text), key, expected)


def _size(text: str, key: Key, _: Path) -> int:
    assert key.low is not None and key.high is not None
    return _within(parse_size(text), key, f"a size from {format_size(key.low)} to {format_size(key.high)}")


def _time(text: str, key: Key, _: Path) -> int:
    assert key.low is not None and key.high is not None
    return _within(parse_time_ms(text), key, f"a time from {format_time(key.low)} to {format_time(key.high)}")


def _within(value: int, key: Key, expected: str) -> int:
    assert key.low is not None and key.high is not None
    if not key.low <= value <= key.high:
        raise UnfitError(expected)
    return value


def _threads(text: str, key: Key, _: Path) -> int | None:
    assert key.low is not None and key.high is not None
    return parse_threads(text, key.low, key.high)


def _address(text: str, _: Key, __: Path) -> Address:
    return parse_address(text)


def _name(text: str, _: Key, __: Path) -> str:
    if not _NAME.fullmatch(text):
        raise UnfitError(
            "a name of letters, digits, '-', '_' and '.' (at most 64)",
            re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-")[:64],
        )
    return text


def _account(text: str, _: Key, __: Path) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", text):
        raise UnfitError("the name or number of an account")
    return text


def _text(text: str, _: Key, __: Path) -> str:
    return text


def _environment_value(text: str, _: Key, __: Path) -> str:
    if "\0" in text:
        raise UnfitError("a text without NUL")
    return text


def _variable(text: str, _: Key, __: Path) -> str:
    if not _VARIABLE.fullmatch(text):
        raise UnfitError("the name of an environment variable")
    return text


def _path(text: str, _: Key, __: Path) -> str:
    """A path of a URL, exact and decoded."""
    if not text.startswith("/"):
        raise UnfitError("a path that begins with '/'", f"/{text}" if text and not _CONTROL.search(text) else "")
    parts = text.split("/")
    if _CONTROL.search(text) or "//" in text or "." in parts or ".." in parts or "?" in text or "#" in text:
        raise UnfitError("a plain path without '//', '/./', '/../', '?', '#' and control characters")
    if "*" in text:
        raise UnfitError("an exact path")
    if _PERCENT.search(text):
        raise UnfitError("a decoded path, without percent escapes")
    return text


def _pattern(text: str, key: Key, base: Path) -> str:
    """An exact path, or one that ends in /*."""
    bare = text.removesuffix("*") if text.endswith("/*") else text
    if "*" in bare:
        raise UnfitError(
            'an exact path or one that ends in "/*"',
            bare.split("*")[0].rstrip("/") + "/*" if text.startswith("/") else "",
        )
    try:
        _path(bare, key, base)
    except UnfitError as unfit:
        suggestion = f"/{text}" if unfit.nearest else ""
        raise UnfitError(unfit.expected, suggestion) from None
    return text


def _host_pattern(text: str, _: Key, __: Path) -> str:
    expected = 'a host name, "*.example.org" or "*", without port'
    if text == "*":
        return text
    lower = text.lower()
    bare = lower.removeprefix("*.").removesuffix(".")
    if not _is_host(bare) and not (bare.startswith("[") and bare.endswith("]") and _is_ipv6(bare[1:-1])):
        raise UnfitError(expected, _host_suggestion(lower))
    return lower.removesuffix(".")


def _host_suggestion(text: str) -> str:
    """Without the scheme, port and path that were written by habit; international names as they travel (punycode)."""
    bare = text.split("://", 1)[-1].split("/", 1)[0]
    bare = re.sub(r":\d+$", "", bare)
    try:
        bare = bare.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
    return bare if bare != text and _is_host(bare.removeprefix("*.")) else ""


def _file_name(text: str, _: Key, __: Path) -> str:
    if not text or "/" in text or _CONTROL.search(text) or text in (".", ".."):
        raise UnfitError(
            "the name of a file, without '/'", text.rsplit("/", 1)[-1] if "/" in text and not text.endswith("/") else ""
        )
    return text


def _rule_extension(text: str, _: Key, __: Path) -> str:
    bare = text.removeprefix(".")
    if not bare or "." in bare or "/" in bare or "*" in bare or _CONTROL.search(bare):
        raise UnfitError("an extension such as php (what follows the last dot)", bare.rsplit(".", 1)[-1].strip("*/"))
    return bare


def _program_extension(text: str, key: Key, base: Path) -> str:
    """With its dot, whichever way it is written, and in small letters: names are compared without regard to case."""
    return _media_extension("." + text.removeprefix(".").lower(), key, base)


def _method(text: str, _: Key, __: Path) -> str:
    if not _TOKEN.fullmatch(text):
        raise UnfitError("a request method such as GET", text.upper() if _TOKEN.fullmatch(text.upper()) else "")
    return text


def _location(text: str, _: Key, __: Path) -> str:
    if (
        not (text.startswith("/") or re.match(r"https?://[^/]", text))
        or not text.isascii()
        or _CONTROL.search(text)
        or " " in text
    ):
        raise UnfitError("a path that begins with '/' or a URL, percent-encoded")
    return text


def _check_target(text: str, _: Key, __: Path) -> str:
    """What a client would ask for, without a fragment."""
    if (
        not (text.startswith("/") or re.match(r"https?://[^/?]+/", text))
        or not text.isascii()
        or _CONTROL.search(text)
        or " " in text
        or "#" in text
    ):
        is_bare = text.isascii() and text and not re.search(r"[\s:#]", text)
        raise UnfitError(
            "a path that begins with '/' or a URL with a path, percent-encoded", f"/{text}" if is_bare else ""
        )
    return text


def _application(text: str, _: Key, __: Path) -> str:
    if text.endswith(")"):
        raise UnfitError("module:attribute such as shop.wsgi:application; a factory is called by the module itself")
    if not _APPLICATION.fullmatch(text):
        is_module = _APPLICATION.fullmatch(f"{text}:application") is not None
        raise UnfitError("module:attribute such as shop.wsgi:application", f"{text}:application" if is_module else "")
    return text


def _types_file(text: str, _: Key, base: Path) -> str:
    return absolute(text, base)


def _coding(text: str, key: Key, _: Path) -> str:
    """One coding, by the extension of its files; the names that HTTP has for two of them are a likely slip."""
    if text not in key.choices:
        names = {"brotli": "br", "zstd": "zst", "gzip": "gz"}
        bare = text.lower().removeprefix(".")
        raise UnfitError(
            f"off, or one or several of {', '.join(key.choices)}", names.get(bare, nearest(bare, key.choices))
        )
    return text


def _output(text: str, _: Key, base: Path) -> str:
    return text if text == "-" else absolute(text, base)


def _boolean(text: str, _: Key, __: Path) -> bool:
    if text not in ("true", "false"):
        meant = {"true": ("true", "yes", "on", "1"), "false": ("false", "no", "off", "0")}
        raise UnfitError("true or false", next((word for word, texts in meant.items() if text.lower() in texts), ""))
    return text == "true"


def _socket(text: str, _: Key, base: Path) -> str:
    """auto, or the path of a Unix socket."""
    path = text if text == "auto" else absolute(text, base)
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise UnfitError(
            f"auto, off, or a path of at most {SOCKET_PATH_MAX} bytes (no longer one fits into an address)"
        )
    return path


def _state_directory(text: str, _: Key, base: Path) -> str:
    """auto, or a folder that need not exist yet."""
    return text if text == "auto" else absolute(text, base)


def _field_name(text: str, _: Key, __: Path) -> str:
    if not _FIELD_NAME.fullmatch(text):
        raise UnfitError("the name of a header field, such as X-Api-Key")
    return text


def _directory(text: str, _: Key, base: Path) -> str:
    return absolute(text, base)


def _executable(text: str, _: Key, base: Path) -> str:
    """A path, or a bare name, which is looked up in PATH as a shell does."""
    if text and "/" not in text and "\0" not in text:
        return shutil.which(text) or text
    return absolute(text, base)


def _interpreter(text: str, key: Key, base: Path) -> str:
    """A program, or the folder of a virtual environment, which has one; a bare name is looked up in PATH first."""
    path = _executable(text, key, base)
    if path == text and "/" not in text:
        folder = absolute(text, base)
        path = folder if paths.is_dir(Path(folder)) else text
    python = Path(path, "bin", "python")
    there = paths.exists(python) or paths.is_link(python)
    return str(python) if "/" in path and there else path


def _python_handler(text: str, key: Key, base: Path) -> str:
    """A script's absolute path, or the name of a pool."""
    if "/" in text or text.endswith(".py"):
        path = absolute(text, base)
        if not path.endswith(".py"):
            raise UnfitError("the name of a pool or the path of a handler script (.py)")
        return path
    return _name(text, key, base)


def _scripts_handler(text: str, key: Key, base: Path) -> str:
    """A folder's absolute path, or the name of a pool."""
    return absolute(text, base) if "/" in text or text in (".", "..") else _name(text, key, base)


def _media_extension(text: str, _: Key, __: Path) -> str:
    if not _EXTENSION.fullmatch(text):
        fixed = "." + text.lower().lstrip(".*")
        raise UnfitError(
            "an extension in small letters with its dot, such as .foo", fixed if _EXTENSION.fullmatch(fixed) else ""
        )
    return text


def _media_type(text: str, _: Key, __: Path) -> str:
    if not _MEDIA_TYPE.fullmatch(text):
        raise UnfitError("a media type such as text/plain")
    return text


def _error_status(text: str, _: Key, __: Path) -> int:
    if not re.fullmatch(r"[45][0-9][0-9]", text):
        raise UnfitError("a status from 400 to 599")
    return int(text)


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and int(text) <= 65535


def _is_host(text: str) -> bool:
    """A host name or an IPv4 address. What ends in a number must be a whole address: 127.0.0 is one to the resolver,
    but hardly meant.
    """
    labels = text.split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label.lower()) for label in labels):
        return False
    return not labels[-1].isdigit() or _is_ipv4(text)


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


#: Kinds whose value is one scalar.
SCALARS: dict[str, Parser] = {
    "application": _application,
    "boolean": _boolean,
    "check_target": _check_target,
    "choice": _choice,
    "count": _count,
    "directory": _directory,
    "program": _directory,
    "executable": _executable,
    "group": _account,
    "interpreter": _interpreter,
    "location": _location,
    "name": _name,
    "output": _output,
    "path": _path,
    "pattern": _pattern,
    "program_directory": _directory,
    "program_user": _account,
    "python_handler": _python_handler,
    "redirect_status": _redirect_status,
    "scripts": _directory,
    "scripts_handler": _scripts_handler,
    "size": _size,
    "socket": _socket,
    "state_directory": _state_directory,
    "text": _text,
    "threads": _threads,
    "types_file": _types_file,
    "time": _time,
    "user": _account,
}
#: Kinds whose value is a list of scalars, or one of them alone.
LISTS: dict[str, Parser] = {
    "addresses": _address,
    "codings": _coding,
    "directories": _directory,
    "extensions": _rule_extension,
    "field_names": _field_name,
    "file_names": _file_name,
    "hosts": _host_pattern,
    "methods": _method,
    "program_extensions": _program_extension,
    "variable_names": _variable,
}
#: Kinds whose value is a mapping of scalars: (parser of its keys, parser of its values).
MAPPINGS: dict[str, tuple[Parser, Parser]] = {
    "environment": (_variable, _environment_value),
    "error_pages": (_error_status, _path),
    "folders": (_path, _directory),
    "interpreters": (_media_extension, _executable),
    "types": (_media_extension, _media_type),
}
#: Kinds that can be turned off with the word, and what they are then.
OFF: dict[str, Any] = {"codings": (), "socket": None, "types_file": None}
parse_pool_name: Parser = _name
