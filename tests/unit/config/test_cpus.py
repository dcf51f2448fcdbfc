"""CPUs that the cgroup grants."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appserver.config.cpus import cgroup_quota, usable_cpus


def tree(root: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A made-up /sys/fs/cgroup and /proc/self/cgroup below `root`."""
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "own").write_text(own)
    return root / "cgroup", root / "own"


V1 = "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n"


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "200000 100000\n"}, 0.5),
        ("0::/../elsewhere\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/\n", {"cpu.max": "broken\n"}, None),
        ("0::/\n", {}, None),
        ("", {}, None),
        (V1, {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        (
            V1,
            {
                "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "100000\n",
                "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            1.0,
        ),
    ],
)
def test_the_tightest_quota_counts(tmp_path: Path, own: str, files: dict[str, str], quota: float | None) -> None:
    assert cgroup_quota(*tree(tmp_path, own, files)) == quota


@pytest.mark.parametrize(
    ("cpus", "cpu_max", "usable"),
    [(8, "150000 100000", 2), (8, "1000 100000", 1), (8, "max 100000", 8), (2, "900000 100000", 2)],
)
def test_usable_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: int, cpu_max: str, usable: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpus)))
    assert usable_cpus(*tree(tmp_path, "0::/\n", {"cpu.max": cpu_max})) == usable


def test_this_machine_has_a_cpu() -> None:
    assert usable_cpus() >= 1
