"""How the classes of the configuration say what their keys take.

Each field of such a class is one key of its block, and its `Key` says all there is to know about it: what it takes,
range, meaning. The loader reads YAML by it, the reference is written from it. A field that ends in `_ms` is the key
without that ending; sizes are bytes. Paths are absolute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000


@dataclass(frozen=True, slots=True)
class Key:
    """What one key takes. `kind` names a decoder of `load`; `low` and `high` are the range, in bytes or milliseconds
    where the kind has units.
    """

    kind: str
    doc: str
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()
    block: type[Any] | None = None  #: the class of the block(s) below this key
    default_text: str = ""  #: how the reference shows the default, when the value itself would not tell
    required: bool = False


def key(kind: str, doc: str, default: Any = dataclasses.MISSING, **about: Any) -> Any:
    """A field for a key; a mutable default is given as the function that makes it."""
    metadata = {"key": Key(kind, doc, **about)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def size_key(default: int, low: int, high: int, doc: str) -> Any:
    """A key for bytes, with the units of sizes."""
    return key("size", doc, default, low=low, high=high)


def time_key(default: int, low: int, high: int, doc: str) -> Any:
    """A key for milliseconds, with the units of times."""
    return key("time", doc, default, low=low, high=high)


def count_key(default: int, low: int, high: int, doc: str) -> Any:
    """A key for a whole number."""
    return key("count", doc, default, low=low, high=high)


def keys_of(block: type[Any]) -> dict[str, tuple[str, Key]]:
    """YAML key -> (field name, Key), in the order of the class."""
    found = {}
    for each in dataclasses.fields(block):
        name = each.name.removesuffix("_ms")
        found[name] = (each.name, each.metadata["key"])
    return found


def blocks_of(block: type[Any], path: str = "") -> Iterator[tuple[str, type[Any]]]:
    """Every block with its place in the file, such as `pools.NAME.limits` or `sites[].rules[]`, from the top down."""
    yield path, block
    for name, (_, each) in keys_of(block).items():
        if each.block is not None and each.kind != "some_of":
            yield from blocks_of(each.block, place_below(path, name, each))


def place_below(path: str, name: str, key: Key) -> str:
    """The place of the block(s) of a key in the block at `path`."""
    below = {"blocks": "[]", "named_blocks": ".NAME"}.get(key.kind, "")
    return f"{path}.{name}{below}" if path else f"{name}{below}"
