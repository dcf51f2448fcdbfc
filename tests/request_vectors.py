"""The request vectors of tests/requests, for the tests in Python (the format: tests/requests/README.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "requests"

#: The limits that the vectors are made for.
LIMITS = "{header_size: 2KiB, target_size: 512, body_size: 4KiB}"


def _unescape(text: str) -> str:
    meanings = {"\\\\": "\\", "\\r": "\r", "\\n": "\n"}
    return re.sub(
        r"\\(?:x[0-9a-f]{2}|[rn\\])",
        lambda found: meanings.get(found[0]) or chr(int(found[0][2:], 16)),
        text,
    )


@dataclass(frozen=True)
class Vector:
    """One request and what must come of it. Texts are bytes as Latin-1."""

    name: str
    valid: bool
    data: bytes
    status: int
    method: str
    target: str
    path: str
    query: str | None
    version: str
    keep_alive: bool
    host: str | None
    fields: list[tuple[str, str]]
    body: str


def _read(path: Path) -> Vector:
    facts: dict[str, str] = {}
    fields = []
    for line in path.with_suffix(".expect").read_text("ascii").splitlines():
        keyword, _, value = line.partition(" ")
        if keyword == "field":
            name, _, content = _unescape(value).partition(": ")
            fields.append((name, content))
        else:
            facts[keyword] = _unescape(value) if keyword in ("path", "body") else value
    return Vector(
        name=path.stem,
        valid=path.parent.name == "valid",
        data=path.read_bytes(),
        status=int(facts.get("status", "200")),
        method=facts.get("method", ""),
        target=facts.get("target", ""),
        path=facts.get("path", ""),
        query=facts.get("query"),
        version=facts.get("version", ""),
        keep_alive=facts.get("keep-alive") == "yes",
        host=facts.get("host"),
        fields=fields,
        body=facts.get("body", ""),
    )


def vectors(kind: str) -> list[Vector]:
    """All of `valid` or `invalid`, by name."""
    return [_read(path) for path in sorted((FOLDER / kind).glob("*.http"))]
