"""A table of media types as systems have it (/etc/mime.types): a type, then the extensions that have it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

MAX_BYTES = 4 * 1024 * 1024  #: the largest table of a distribution has 80 kB

_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+", re.ASCII)
_EXTENSION = re.compile(r"[a-z0-9_+~-]+(\.[a-z0-9_+~-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Types:
    """What was read, and what to tell about it."""

    types: dict[str, str] = field(default_factory=dict)  #: extension without the dot -> media type
    warnings: tuple[str, ...] = ()


def read_types(path: Path) -> Types:
    """The table at `path`. Text types without a parameter get charset=utf-8, as the built-in ones have it.

    A later line wins. What is no type or no extension in small letters is left out: such tables have extensions like
    `C` that file systems tell from `c`, while the server does not.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return Types(warnings=(f"types_file: {path}: {error.strerror}; its types are left out",))
    if len(data) > MAX_BYTES:
        return Types(warnings=(f"types_file: {path}: larger than {MAX_BYTES} bytes; its types are left out",))
    types = {}
    for line in data.decode("latin-1").splitlines():
        media, *extensions = line.partition("#")[0].split() or [""]
        if not _TYPE.fullmatch(media):
            continue
        value = f"{media}; charset=utf-8" if media.lower().startswith("text/") else media
        types.update({extension: value for extension in extensions if _EXTENSION.fullmatch(extension)})
    return Types(types)
