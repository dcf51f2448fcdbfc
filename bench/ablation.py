"""What each choice of the design is worth: this server against itself with one choice made otherwise."""

from __future__ import annotations

from typing import Any

from cases import Case, Scenario
from load import Load
from mix import CLASS_NAMES
from setups import OURS


def _case(label: str, load: Load, loops: int = 1, **config: Any) -> Case:
    return Case(label, OURS, load, loops=loops, config=config)


def _tuning(load: Load, usual: str, **others: dict[str, str]) -> list[Case]:
    """The server as it is (`usual` says how), then with each other value of a key of `tuning`."""
    return [_case(usual, load), *(_case(label, load, tuning=tuning) for label, tuning in others.items())]


def _accept(load: Load, loops: int) -> list[Case]:
    ways = ("self-managed", "coordinator", "independent", "reuseport")
    return [_case(way, load, loops=loops, accept=way) for way in ways]


def _thresholds(name: str) -> list[Case]:
    sizes = {"sendfile": "0", "held in memory": "2MiB"}
    return [_case(label, Load(f"/{name}", files=name), cache={"file_size": size}) for label, size in sizes.items()]


def ablation_scenarios() -> list[Scenario]:
    """One scenario for each choice; the first case of each is the default, which the others are compared with."""
    small, large = Load("/1k"), Load("/1m", files="1m")
    mix = Load("/mix/1", files="mix")
    close, burst = Load("/1k", keep_alive=False), Load("/1k", connections=1000, keep_alive=False, files="1k")
    return [
        Scenario(
            "ablation-accept",
            "`accept`: one connection per request, two loops on two CPUs (which the load generator shares)",
            _accept(close, 2),
            base="self-managed",
        ),
        Scenario(
            "ablation-accept-burst",
            "`accept`: one connection per request, 1,000 connections at once, two loops on two CPUs",
            _accept(burst, 2),
            base="self-managed",
        ),
        Scenario(
            "ablation-accept-batch",
            "`tuning.accept_batch`: one connection per request, 1,000 connections at once, one loop",
            _tuning(burst, "adaptive", one={"accept_batch": "one"}),
            base="adaptive",
        ),
        Scenario(
            "ablation-cache",
            "`cache`: 1 KiB, keep-alive",
            [
                _case("on", small),
                _case("off", small, cache={"memory": "0"}),
                _case("looked at every time", small, cache={"revalidate": "0s"}),
            ],
            base="on",
        ),
        Scenario(
            "ablation-policy",
            "`cache.policy`: heavy-tailed mix of files, memory for a fourteenth of what it could hold",
            [_case(policy, mix, cache={"memory": "4MiB", "policy": policy}) for policy in ("frequency", "recent")],
            base="frequency",
        ),
        Scenario(
            "ablation-write",
            "`tuning.write`: 10 KiB, keep-alive",
            _tuning(Load("/10k"), "gather", separate={"write": "separate"}),
            base="gather",
        ),
        Scenario(
            "ablation-cork",
            "`tuning.cork`: 300 KiB by sendfile behind a head, keep-alive",
            _tuning(Load("/300k", files="300k"), "cork", more={"cork": "more"}, off={"cork": "off"}),
            base="cork",
        ),
        Scenario(
            "ablation-cork-1m",
            "`tuning.cork`: 1 MiB by sendfile behind a head, keep-alive",
            _tuning(large, "cork", more={"cork": "more"}),
            base="cork",
        ),
        Scenario(
            "ablation-cork-100m",
            "`tuning.cork`: 100 MiB by sendfile behind a head, keep-alive",
            _tuning(Load("/100m", connections=8, files="100m"), "cork", more={"cork": "more"}),
            base="cork",
        ),
        Scenario(
            "ablation-sendfile",
            "`tuning.sendfile`: 1 MiB, keep-alive",
            _tuning(large, "on", off={"sendfile": "off"}),
            base="on",
        ),
        *(
            Scenario(
                f"ablation-threshold-{name}",
                f"`cache.file_size`: {title}, keep-alive",
                _thresholds(name),
                base="held in memory",
            )
            for name, title in (("10k", "10 KiB"), ("100k", "100 KiB"), ("300k", "300 KiB"), ("1m", "1 MiB"))
        ),
        Scenario(
            "ablation-reuse",
            "`tuning.reuse`: 1 KiB, one connection per request",
            _tuning(close, "on", off={"reuse": "off"}),
            base="on",
        ),
        Scenario(
            "ablation-reuse-keep-alive",
            "`tuning.reuse`: 1 KiB, keep-alive",
            _tuning(small, "on", off={"reuse": "off"}),
            base="on",
        ),
        Scenario(
            "ablation-schedule",
            "`schedule`: heavy-tailed mix of files, 256 connections",
            [
                _case("fair", Load("/mix/1", connections=256, files="mix")),
                _case("shortest-first", Load("/mix/1", connections=256, files="mix"), schedule="shortest-first"),
            ],
            base="fair",
            classes=CLASS_NAMES,
        ),
        Scenario(
            "ablation-threads",
            "`threads`: 1 KiB, keep-alive, on two CPUs (which the load generator shares)",
            [_case(f"{count}", small, loops=2, threads=count) for count in (1, 2, 4)],
            base="2",
        ),
    ]
