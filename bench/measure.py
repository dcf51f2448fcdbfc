"""What a server uses: CPU time and memory of all its processes, from /proc.

CPU time of children that have ended counts once they are reaped, with whoever reaped them (`cutime`, `cstime`), so a
CGI program is part of the server that ran it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuTime:
    """Seconds in user mode and in the kernel."""

    user_s: float
    kernel_s: float

    @property
    def total_s(self) -> float:
        """Both together."""
        return self.user_s + self.kernel_s

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.user_s - earlier.user_s, self.kernel_s - earlier.kernel_s)


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; empty when the process has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree_of(root: int) -> list[int]:
    """`root` and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat_fields(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_time(root: int) -> CpuTime:
    """CPU time of the tree below `root` so far."""
    user = kernel = 0
    for pid in tree_of(root):
        if fields := _stat_fields(pid):
            user += int(fields[11]) + int(fields[13])
            kernel += int(fields[12]) + int(fields[14])
    return CpuTime(user / TICKS_PER_S, kernel / TICKS_PER_S)


def _sum_of_rollup(root: int, key: str) -> int:
    total = 0
    for pid in tree_of(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
    return total


def resident_bytes(root: int) -> int:
    """Memory of the tree below `root`; what processes share is counted once (proportional set size)."""
    return _sum_of_rollup(root, "Pss")


def anonymous_bytes(root: int) -> int:
    """User memory that the tree below `root` has written to, without files and their cache."""
    return _sum_of_rollup(root, "Pss_Anon")
