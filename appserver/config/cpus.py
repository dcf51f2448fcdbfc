"""How many CPUs this process may use: its affinity, and the quota of its cgroup (v2 cpu.max, v1 cpu.cfs_quota_us)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cpus(cgroups: Path = _CGROUPS, own_cgroup: Path = _OWN_CGROUP) -> int:
    """At least 1. Part of a CPU counts as one: a second loop costs little, an unused CPU costs half of the speed."""
    granted = len(os.sched_getaffinity(0))
    quota = cgroup_quota(cgroups, own_cgroup)
    return granted if quota is None else max(1, min(granted, math.ceil(quota)))


def cgroup_quota(cgroups: Path = _CGROUPS, own_cgroup: Path = _OWN_CGROUP) -> float | None:
    """CPUs that the tightest cgroup above this process grants; None when none has a limit."""
    quotas = [quota for quota in _quotas(cgroups, own_cgroup) if quota is not None]
    return min(quotas, default=None)


def _quotas(cgroups: Path, own_cgroup: Path) -> Iterator[float | None]:
    """The limit of each group from our own up to the root of what is mounted."""
    for line in _read(own_cgroup).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            for folder in _upwards(cgroups, path):
                yield _quota_v2(_read(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for mount in (cgroups / "cpu", cgroups / controllers):
                for folder in _upwards(mount, path):
                    yield _quota_v1(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """`mount`/`path` and its parents down to `mount`. A container often sees the host's path, which its mount does not
    have: then only the mount.
    """
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _quota_v2(text: str) -> float | None:
    """`cpu.max`: "QUOTA PERIOD", QUOTA may be "max"."""
    words = text.split()
    if len(words) != 2 or not words[0].isdigit() or not words[1].isdigit() or words[1] == "0":
        return None
    return int(words[0]) / int(words[1])


def _quota_v1(quota: str, period: str) -> float | None:
    """A quota of -1 is none."""
    quota, period = quota.strip(), period.strip()
    if not quota.isdigit() or not period.isdigit() or period == "0":
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
