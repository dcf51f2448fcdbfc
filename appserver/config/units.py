"""Sizes and times as people write them: `64MiB`, `250ms`."""

from __future__ import annotations

import re
from difflib import get_close_matches

#: Bytes. The decimal units are what disks are sold by, the binary ones what memory has.
SIZE_UNITS = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
#: Milliseconds.
TIME_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}

#: What is often written instead, and what was most likely meant.
_SIZE_HABITS = {"b": "B", "k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB", "bytes": "B"}
_TIME_HABITS = {"sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minute": "m"}
_TIME_HABITS |= {"minutes": "m", "hour": "h", "hours": "h", "hr": "h", "msec": "ms", "milliseconds": "ms"}

_QUANTITY = re.compile(r"(\d{1,18})[ ]?([A-Za-z]*)", re.ASCII)


class UnfitError(ValueError):
    """A text that is not the value it should be.

    `expected` says what would be right, `nearest` a right value close to what was written (or "").
    """

    def __init__(self, expected: str, nearest: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.nearest = nearest


def nearest(word: str, names: list[str] | tuple[str, ...], cutoff: float = 0.6) -> str:
    """The one of `names` that was most likely meant by `word`, or ""."""
    folded = {name.lower(): name for name in names}
    close = get_close_matches(word.lower(), list(folded), n=1, cutoff=cutoff)
    return folded[close[0]] if close else ""


def parse_size(text: str) -> int:
    """Bytes. Raises UnfitError."""
    expected = "a size such as 64KiB, 10MB or 4096 (bytes)"
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise UnfitError(expected)
    number, unit = int(found[1]), found[2]
    if unit == "":
        return number
    if unit not in SIZE_UNITS:
        raise UnfitError(expected, _with_unit(number, unit, SIZE_UNITS, _SIZE_HABITS))
    return number * SIZE_UNITS[unit]


def parse_time_ms(text: str) -> int:
    """Milliseconds. A number without a unit is refused, except 0. Raises UnfitError."""
    expected = "a time with its unit, such as 250ms, 30s, 5m or 1h"
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise UnfitError(expected)
    number, unit = int(found[1]), found[2]
    if unit == "" and number == 0:
        return 0
    if unit not in TIME_UNITS:
        raise UnfitError(expected, _with_unit(number, unit or "s", TIME_UNITS, _TIME_HABITS))
    return number * TIME_UNITS[unit]


def format_size(size: int) -> str:
    """The shortest exact way to write `size` bytes with a binary unit."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]}{unit}"
    return str(size)


def format_time(time_ms: int) -> str:
    """The shortest exact way to write `time_ms`."""
    if time_ms == 0:
        return "0s"
    if time_ms % TIME_UNITS["h"] == 0:
        return f"{time_ms // TIME_UNITS['h']}h"
    if time_ms % TIME_UNITS["m"] == 0 and time_ms > TIME_UNITS["m"]:
        return f"{time_ms // TIME_UNITS['m']}m"
    if time_ms % TIME_UNITS["s"] == 0:
        return f"{time_ms // TIME_UNITS['s']}s"
    return f"{time_ms}ms"


def _with_unit(number: int, unit: str, units: dict[str, int], habits: dict[str, str]) -> str:
    """What `number unit` was probably meant to be: the same number with a unit that exists, or ""."""
    if unit in units:
        return f"{number}{unit}"
    meant = habits.get(unit.lower()) or nearest(unit, list(units))
    return f"{number}{meant}" if meant else ""
