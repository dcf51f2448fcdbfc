"""What is compared: cases, and scenarios made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from load import Load
from setups import OURS


@dataclass(frozen=True)
class Case:
    """One server under one load."""

    label: str
    peer: str
    load: Load
    kind: str = "static"
    access_log: bool = False
    loops: int = 1
    body: int = 1024
    threads: int = 1
    config: Mapping[str, Any] = field(default_factory=dict)  #: of this server: keys that differ from the usual
    pool: Mapping[str, Any] = field(default_factory=dict)  #: likewise, of its Python pool


@dataclass(frozen=True)
class Scenario:
    """Cases that are compared."""

    name: str
    title: str
    cases: list[Case]
    measures: str = "requests"  #: or idle
    base: str = OURS  #: the label that ratios are of
    classes: list[str] = field(default_factory=list)  #: of requests, whose times are told apart; by their numbers
    by_connections: list[int] = field(default_factory=list)  #: a sweep: each case under each of these
