"""What is compared: cases, and scenarios made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from load import Load
from servers import OURS


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
    config: Mapping[str, Any] = field(default_factory=dict)  #: of this server: keys that differ from the usual


@dataclass(frozen=True)
class Scenario:
    """Cases that are compared."""

    name: str
    title: str
    cases: list[Case]
    measures: str = "requests"  #: or idle, or mix (times by class of size)
    base: str = OURS  #: the label that ratios are of
    by_connections: list[int] = field(default_factory=list)  #: a sweep: each case under each of these
