"""The incidents of one pool: what is told about a worker, in sentences."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from appserver.incidents.record import RequestRecord
from appserver.supervisor.incidents import Facts, Incidents
from appserver.supervisor.overdue import Overdue
from appserver.supervisor.process import Child, Death
from appserver.supervisor.segments import Held


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the supervisor knows of a death besides how the process ended."""

    held: Sequence[Held] = ()
    stacks: str = ""
    was_ready: bool = False
    was_leaving: bool = False  #: told to stop
    was_killed: bool = False  #: by us
    reason: str | None = None  #: why it could not boot, as it said itself
    traceback: str = ""  #: of that
    requests_served: int | None = None
    growth: Mapping[str, list[int]] = field(default_factory=dict)


class PoolIncidents:
    """`threads`: for each executor that was ready, the names of its threads by the numbers that its stacks have for
    them.
    """

    def __init__(self, pool: str, incidents: Incidents, threads: Mapping[int, Mapping[str, str]]) -> None:
        self._pool = pool
        self._incidents = incidents
        self._threads = threads

    def started(self, pid: int) -> None:
        self._incidents.witness.started(pid)

    def overdue(
        self,
        number: int,
        child: Child,
        requests: Sequence[Overdue],
        stacks: str,
        served: int | None,
        growth: Mapping[str, list[int]],
    ) -> str:
        """The id of the incident."""
        memory = self._incidents.witness.memory(child.pid)
        facts = Facts(self._pool, number, child.pid, child.life_s, served, memory, child.last_lines, growth)
        cause = f"{requests[0].about}"
        if len(requests) > 1:
            cause += f", and {len(requests) - 1} more"
        records = [self._record(each.request, each.held, "timeout") for each in requests]
        return self._incidents.overdue(facts, records, cause, named_threads(stacks, self._threads.get(number, {})))

    def overdue_ended(self, number: int, request: str, ending: str) -> None:
        self._incidents.ended(self._pool, number, request, ending)

    def died(self, number: int, death: Death, about: Circumstances) -> str:
        """The id of the incident."""
        witness = self._incidents.witness
        # Not twice for one death, and only where it can be the reason.
        oom = witness.oom() if death.status == -signal.SIGKILL and not about.was_killed else None
        memory = witness.gone(death.pid, death.max_rss)
        facts = Facts(
            self._pool,
            number,
            death.pid,
            death.life_s,
            about.requests_served,
            dict(memory),
            death.last_lines,
            about.growth,
        )
        more: dict[str, Any] = {
            "oom": oom,
            "stacks": named_threads(about.stacks, self._threads.get(number, {})) or None,
            "cpu": {"user_s": round(death.user_s, 3), "system_s": round(death.system_s, 3)},
            "reason": about.reason,
            "traceback": about.traceback or None,
        }
        if death.status < 0:
            more["signal"] = signal_name(-death.status)
        else:
            more["exit_status"] = death.status
        records = [self._record(f"{each.log_id:016x}", each, "died") for each in about.held if not each.cancelled]
        kind = "death" if about.was_ready else "boot"
        return self._incidents.died(facts, kind, records, cause_of(number, death, about, oom), **more)

    def never_lived(self, number: int, reason: str, traceback: str) -> str:
        """There is not even a process; the id of the incident."""
        more: dict[str, Any] = {"reason": reason, "traceback": traceback or None}
        facts = Facts(self._pool, number, 0, 0.0)
        return self._incidents.died(facts, "boot", [], f"executor {number} could not be started: {reason}", **more)

    def gone(self, death: Death) -> None:
        """A death that is no incident."""
        self._incidents.witness.gone(death.pid, death.max_rss)

    def _record(self, request: str, held: Held | None, cause: str) -> RequestRecord:
        return RequestRecord(request, cause=cause, thread=None if held is None else held.thread)


def cause_of(number: int, death: Death, about: Circumstances, oom: str | None) -> str:
    """One sentence."""
    who = f"executor {number}"
    if about.reason is not None:
        return f"{who} could not boot: {about.reason}"
    if about.was_killed:
        if about.was_leaving:
            return f"{who} did not stop within stop_time and was killed"
        return f"{who} was killed by the server" if about.was_ready else f"{who} was not ready in time and was killed"
    if oom is not None:
        return f"{who} was killed by the kernel for want of memory"
    sentence = f"{who} {death.sentence()}"
    fatal = about.stacks.partition("\n")[0]
    if fatal.startswith("Fatal Python error: "):
        sentence += f" ({fatal.removeprefix('Fatal Python error: ')})"
    if not about.was_ready:
        return f"{sentence} before it was ready"
    if death.status >= 0 and not about.was_leaving:
        return f"{sentence}, which nobody had told it to"
    return sentence


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def named_threads(stacks: str, names: Mapping[str, str]) -> str:
    """faulthandler knows threads by numbers only."""
    lines = stacks.splitlines(keepends=True)
    for index, line in enumerate(lines):
        words = line.split(" (most recent call first)")[0].split(" ")
        if len(words) >= 2 and words[-2] in ("Thread", "thread") and words[-1] in names:
            lines[index] = line.replace(words[-1], f"{words[-1]} [{names[words[-1]]}]", 1)
    return "".join(lines)
