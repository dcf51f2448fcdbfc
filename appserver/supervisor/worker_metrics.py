"""What the supervisor knows of workers' memory, as samples for the core's metrics. Pure.

The number of samples is bounded whatever happens: workers are named by their place in the pool and not by their number,
which is another one for each process, and only the routes with the most growth are told apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

#: Over all pools.
WORKERS_MAX = 256
ROUTES_MAX = 64
OTHERS = "(others)"
LABEL_MAX = 160  #: characters of a route; what is longer keeps its end, which tells more
TEXT_MAX = 96 * 1024  #: bytes of the text as JSON, for the control channel

#: By route: bytes while it ran alone, while others ran too.
Growth = Mapping[str, Iterable[int]]


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """Of one pool."""

    name: str
    workers: tuple[int, ...]  #: resident bytes of each, the oldest first
    growth: tuple[Growth, ...]  #: of each that has said so


def text_of(pools: Iterable[PoolMemory]) -> str:
    """In the exposition format; empty when there is nothing to tell."""
    pools = list(pools)
    workers = [
        f'cherokee_worker_memory_bytes{{pool="{_escaped(pool.name)}",worker="{place}"}} {size}'
        for pool in pools
        for place, size in enumerate(pool.workers)
    ]
    lines = [
        *_family("cherokee_worker_memory_bytes", "Resident memory of a worker.", workers[:WORKERS_MAX]),
        *_family(
            "cherokee_route_memory_growth_bytes",
            "By how much the pool's workers have grown between idle moments while a route ran, alone or with others.",
            _routes(pools),
        ),
    ]
    while len(json.dumps(lines)) > TEXT_MAX:
        lines.pop()
    return "".join(f"{line}\n" for line in lines)


def _family(name: str, what: str, samples: list[str]) -> list[str]:
    return [f"# HELP {name} {what}", f"# TYPE {name} gauge", *samples] if samples else []


def _routes(pools: list[PoolMemory]) -> list[str]:
    """Those that have grown the most, the others of each pool together."""
    sums = {(pool.name, route): pair for pool in pools for route, pair in _sums(pool.growth).items()}
    most = set(sorted(sums, key=lambda key: -sum(sums[key]))[:ROUTES_MAX])
    told: dict[tuple[str, str], list[int]] = {}
    for (pool, route), pair in sums.items():
        key = (pool, route if (pool, route) in most else OTHERS)
        have = told.setdefault(key, [0, 0])
        have[0] += pair[0]
        have[1] += pair[1]
    return [line for key, pair in told.items() for line in _samples(*key, pair)]


def _sums(growth: tuple[Growth, ...]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for each in growth:
        for route, (alone, together) in each.items():
            have = found.setdefault(route, [0, 0])
            have[0] += alone
            have[1] += together
    return found


def _samples(pool: str, route: str, pair: list[int]) -> Iterator[str]:
    labels = f'pool="{_escaped(pool)}",route="{_escaped(route[-LABEL_MAX:])}"'
    for ran, size in zip(("alone", "together"), pair, strict=True):
        yield f'cherokee_route_memory_growth_bytes{{{labels},ran="{ran}"}} {size}'


def _escaped(text: str) -> str:
    """A label's value. Paths are what file systems allow, so what is not UTF-8 is replaced."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
