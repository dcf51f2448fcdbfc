"""What the system says of a process: its memory while it lives, and whether the kernel killed it for want of memory."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass
from pathlib import Path

from appserver import paths
from appserver.supervisor.loop import Loop

#: How often executors are looked at.
LOOK_S = 2.0
PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
_KIB = re.compile(r"^(VmRSS|VmHWM):\s*([0-9]+) kB$", re.MULTILINE)
_COUNT = re.compile(r"^oom_kill ([0-9]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MemoryLook:
    """Bytes at one moment."""

    resident: int
    peak: int
    at: float  #: by the loop's clock


def look_at_memory(pid: int, now: float, proc: Path = PROC) -> MemoryLook | None:
    """None when the process is gone, or as good as gone."""
    found = {name: int(kib) * 1024 for name, kib in _KIB.findall(_text(proc / str(pid) / "status"))}
    if "VmRSS" not in found:
        return None
    return MemoryLook(found["VmRSS"], found.get("VmHWM", found["VmRSS"]), now)


def memory_fields(last: MemoryLook | None, max_rss: int, now: float) -> dict[str, int | float]:
    """For an incident. `max_rss` is the kernel's account of the dead; a child that was just made shares its parent's
    memory, so what is not more than our own says nothing.
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = max(0 if last is None else last.peak, max_rss if max_rss > own else 0)
    fields: dict[str, int | float] = {}
    if last is not None:
        fields |= {"rss": last.resident, "looked_s_before": round(now - last.at, 3)}
    if peak:
        fields["peak"] = peak
    return fields


class OomKills:
    """Counters of processes that the kernel killed for want of memory: those of the cgroups that executors are in, and
    the whole machine's.

    A death is found some time after it happened, and a look may fall between: so a count is compared with the one
    before the last look. What was found is not found again for the next death.
    """

    def __init__(self, proc: Path = PROC, cgroups: Path = CGROUPS) -> None:
        self._proc = proc
        self._cgroups = cgroups
        self._before: dict[Path, int] = {}
        self._last: dict[Path, int] = {}
        self.look([])

    def look(self, pids: list[int]) -> None:
        """Every few seconds, with the executors that live."""
        paths = {self._proc / "vmstat", *(path for pid in pids for path in self._counters_of(pid))}
        known = {path: count for path in paths if (count := _count(path)) is not None}
        self._before = {path: self._last.get(path, count) for path, count in known.items()}
        self._last = known

    def started(self, pid: int) -> None:
        """An executor that may die before the next look."""
        for path in self._counters_of(pid):
            count = _count(path)
            if count is not None:
                self._before.setdefault(path, count)
                self._last.setdefault(path, count)

    def evidence(self) -> str | None:
        """After a SIGKILL that nobody here sent: what speaks for the kernel. The cgroups know best, because the
        machine's counter is everybody's.
        """
        for path in sorted(self._before, key=lambda path: path == self._proc / "vmstat"):
            count = _count(path)
            if count is not None and count > self._before[path]:
                self._before[path] += 1
                return f"oom_kill of {path} has risen from {self._before[path] - 1} to {count}"
        return None

    def _counters_of(self, pid: int) -> list[Path]:
        found = []
        for line in _text(self._proc / str(pid) / "cgroup").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, where = rest.partition(":")
            if number == "0" and not controllers:
                found += [self._cgroups / where.lstrip("/") / "memory.events", self._cgroups / "memory.events"]
            elif "memory" in controllers.split(","):
                top = self._cgroups / "memory"
                found += [top / where.lstrip("/") / "memory.oom_control", top / "memory.oom_control"]
        return [path for path in found if paths.exists(path)]


class Witness:
    """Looks at all executors every LOOK_S, while there are any."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._oom = OomKills()
        self._looks: dict[int, MemoryLook | None] = {}  #: by process
        self._is_looking = False

    def started(self, pid: int) -> None:
        self._oom.started(pid)
        self._looks[pid] = None
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(LOOK_S, self._look)

    def gone(self, pid: int, max_rss: int) -> dict[str, int | float]:
        """It is dead: what is known of its memory."""
        return memory_fields(self._looks.pop(pid, None), max_rss, self._loop.now())

    def memory(self, pid: int) -> dict[str, int | float]:
        """Of one that lives."""
        return memory_fields(look_at_memory(pid, self._loop.now()), 0, self._loop.now())

    def oom(self) -> str | None:
        """See :meth:`OomKills.evidence`."""
        return self._oom.evidence()

    def _look(self) -> None:
        now = self._loop.now()
        self._oom.look(list(self._looks))
        for pid, before in self._looks.items():
            self._looks[pid] = look_at_memory(pid, now) or before
        self._is_looking = bool(self._looks)
        if self._is_looking:
            self._loop.call_later(LOOK_S, self._look)


def _count(path: Path) -> int | None:
    match = _COUNT.search(_text(path))
    return int(match[1]) if match else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
