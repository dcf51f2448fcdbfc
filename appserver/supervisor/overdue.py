"""Requests that are past their time, from the core's word to their end: the stacks of their worker are taken, they are
interrupted, and a worker that does not get out of one is replaced.

The core has answered the client by then (504); what is left is to say why it took so long, and to have the thread back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from appserver.supervisor.loop import Loop
from appserver.supervisor.process import Child
from appserver.supervisor.segments import Held, Segment
from appserver.supervisor.stacks import SIGNAL, Stacks

#: How often the stacks are looked at while the worker writes them, and how long at most.
LOOK_S = 0.02
LOOK_TIME_S = 0.2


@dataclass(frozen=True, slots=True)
class Overdue:
    """A request that is past its time."""

    request: str  #: as the logs name it
    about: str  #: method and path
    held: Held | None  #: where it runs; None when it had ended before anybody could look


@dataclass(slots=True)
class _Look:
    """The stacks of one executor, while they come."""

    requests: list[Overdue] = field(default_factory=list)
    size: int = 0
    until: float = 0.0


class OverdueRequests:
    """Those of one pool. `tell`: executor, its requests, its stacks ("" when none came). `ended`: executor, request,
    and whether it has ended when the grace after its interrupt is over.
    """

    def __init__(
        self,
        loop: Loop,
        segment: Segment,
        tell: Callable[[int, list[Overdue], str], None],
        ended: Callable[[int, Overdue, bool], None],
    ) -> None:
        self._loop = loop
        self._segment = segment
        self._tell = tell
        self._ended = ended
        self._looks: dict[int, _Look] = {}

    def found(self, number: int, child: Child, stacks: Stacks, overdue: Overdue, grace_s: float) -> None:
        """The core says so. Requests that come while the stacks are taken share them."""
        if number in self._looks:
            self._looks[number].requests.append(overdue)
            return
        self._looks[number] = _Look([overdue], until=self._loop.now() + LOOK_TIME_S)
        stacks.clear()
        child.signal(SIGNAL)
        self._loop.call_later(LOOK_S, partial(self._look, number, child, stacks, grace_s))

    def gone(self, number: int) -> None:
        """This executor is dead. What it wrote until then is told."""
        look = self._looks.pop(number, None)
        if look is not None:
            self._tell(number, look.requests, "")

    def _look(self, number: int, child: Child, stacks: Stacks, grace_s: float) -> None:
        look = self._looks.get(number)
        if look is None:
            return
        size = stacks.size()
        if (size == 0 or size != look.size) and self._loop.now() < look.until:
            look.size = size
            self._loop.call_later(LOOK_S, partial(self._look, number, child, stacks, grace_s))
            return
        del self._looks[number]
        text = stacks.read()
        stacks.clear()
        self._tell(number, look.requests, text)
        for overdue in look.requests:
            if overdue.held is not None:
                child.send("interrupt", thread=overdue.held.thread, request=f"{overdue.held.request_id:016x}")
                self._loop.call_later(grace_s, partial(self._check, number, overdue))

    def _check(self, number: int, overdue: Overdue) -> None:
        """The grace is over."""
        assert overdue.held is not None
        ids = {each.request_id for each in self._segment.held_by(number)}
        self._ended(number, overdue, overdue.held.request_id not in ids)
