"""Mappings that requests are made of: names that may have several values, and names in any case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Dict, Generic, Iterable, Iterator, List, Tuple, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    StringMapping = Mapping[str, str]
else:  # 3.9 has subscripts for it, but a base class has to be the plain one in a Generic
    StringMapping = Mapping


class MultiValues(Generic[T]):
    """Names and values in the order in which they came. `values[name]` and `get()` give the first, `getlist()` all."""

    def __init__(self, pairs: Iterable[Tuple[str, T]] = ()) -> None:
        self._values: Dict[str, List[T]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> T:
        return self._values[name][0]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.pairs())!r})"

    def get(self, name: str, default: Any = None) -> Any:
        """The first value, or `default`."""
        values = self._values.get(name)
        return values[0] if values else default

    def getlist(self, name: str) -> List[T]:
        """All values of a name; an empty list when there is none."""
        return list(self._values.get(name, ()))

    def keys(self) -> Iterable[str]:
        return self._values.keys()

    def items(self) -> Iterable[Tuple[str, T]]:
        """Each name with its first value, so that `dict(values)` works."""
        return [(name, values[0]) for name, values in self._values.items()]

    def pairs(self) -> Iterator[Tuple[str, T]]:
        """Every name with every value."""
        for name, values in self._values.items():
            for value in values:
                yield name, value


class Headers(StringMapping):
    """The request's header fields; names in any case."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    @staticmethod
    def _key(name: str) -> str:
        key = name.upper().replace("-", "_")
        return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key

    def __getitem__(self, name: str) -> str:
        try:
            value: str = self._environ[self._key(name)]
        except KeyError:
            raise KeyError(name) from None
        return value

    def __iter__(self) -> Iterator[str]:
        for key in self._environ:
            if key.startswith("HTTP_"):
                yield key[5:].replace("_", "-").title()
            elif key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                yield key.replace("_", "-").title()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"
