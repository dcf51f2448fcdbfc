"""Which executors of a pool run: the policy, without effects.

Every method takes what has happened and when, and returns what to do. Nothing in here starts a process, sends a
signal or looks at a clock, so all of it can be tested as arithmetic.

An executor lives in a *seat*; the seats of one version of the pool's specification are a *crew*. A reload makes a
second crew beside the first: when all its seats are ready the first one leaves; when one of them cannot boot the
second one leaves, and the first goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from appserver.config.plan import PoolSpec
from appserver.supervisor.backoff import Backoff

#: From the start to `ready`; importing a large application takes seconds, not a minute.
BOOT_TIME_S = 60.0
#: What an executor that still boots gets to notice that it is not wanted any more: it holds no request.
BOOT_STOP_TIME_S = 2.0
#: A pool without a ready executor for this long makes the server not ready; replacing a dead one is quicker.
DOWN_TIME_S = 5.0
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Start:
    """Start an executor with this number."""

    number: int
    spec: PoolSpec


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell it to finish and to exit."""

    number: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL, now."""

    number: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Somebody will be started in this seat again, after so many seconds. For the log."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence for the log."""

    level: str
    text: str


Action = Start | Stop | Kill | Retry | Notice


@dataclass(slots=True)
class Seat:
    """A place for one executor after the other."""

    number: int = 0  #: of who sits there; 0: nobody
    since: float = 0.0  #: start of who sits there
    is_ready: bool = False
    capacity: int = 0  #: requests that who sits there runs at once
    at_once: int = 0  #: of these, at the same time
    streams: bool = False  #: takes request bodies while they come, and upgrades
    is_condemned: bool = False  #: told to die; its death is no surprise, but the seat stays
    kill_at: float | None = None
    start_at: float = 0.0  #: when nobody sits there
    was_settled: bool = False  #: the first one became ready, or did not
    backoff: Backoff = field(default_factory=Backoff)


class Crew:
    """The seats of one version of the specification."""

    def __init__(self, spec: PoolSpec, now: float) -> None:
        self.spec = spec
        count = 1 if spec.kind == "cgi" else spec.processes
        self.seats = [Seat(start_at=now) for _ in range(count)]

    def occupied(self) -> Iterator[Seat]:
        return (seat for seat in self.seats if seat.number)

    @property
    def ready(self) -> int:
        return sum(seat.is_ready and not seat.is_condemned for seat in self.seats)

    @property
    def is_complete(self) -> bool:
        return self.ready == len(self.seats)

    @property
    def capacity(self) -> int:
        """Requests that those who are ready run at once."""
        return sum(seat.capacity for seat in self.seats if seat.is_ready and not seat.is_condemned)


class PoolPolicy:
    """The executors of one pool. Times are seconds of one monotonic clock; no number is used twice."""

    def __init__(self, spec: PoolSpec, now: float) -> None:
        self._crew = Crew(spec, now)
        self._next: Crew | None = None
        self._leaving: dict[int, float] = {}  #: number -> when it is killed
        self._relieved: dict[int, Seat] = {}  #: number -> its old seat; it leaves when somebody there is ready
        self._last_number = 0
        self._stopped = False
        self._was_ready = False
        self.has_given_up = False  #: the last reload
        self._up_at = now  #: last time that somebody was known to be ready

    # What is

    @property
    def name(self) -> str:
        return self._crew.spec.name

    @property
    def spec(self) -> PoolSpec:
        """The specification that holds (during a reload: still the old one)."""
        return self._crew.spec

    @property
    def capacity(self) -> int:
        """Requests that all ready executors run at once."""
        return sum(crew.capacity for crew in self._crews()) + len(self._relieved) * self._crew.spec.threads

    @property
    def at_once(self) -> int:
        """How many of these run at the same time: an event loop holds many and runs one."""
        seats = (seat for crew in self._crews() for seat in crew.seats if seat.is_ready and not seat.is_condemned)
        return sum(seat.at_once for seat in seats) + len(self._relieved)

    @property
    def stream_bodies(self) -> bool:
        """Whether every ready executor takes request bodies while they come: any of them may get any request."""
        ready = [seat for crew in self._crews() for seat in crew.seats if seat.is_ready and not seat.is_condemned]
        return bool(ready) and all(seat.streams for seat in ready)

    @property
    def is_settled(self) -> bool:
        """Every first executor has become ready or has failed, and no reload is under way."""
        return self._next is None and all(seat.was_settled for seat in self._crew.seats)

    @property
    def has_leaving(self) -> bool:
        """Somebody has been told to go and is not gone yet."""
        return bool(self._leaving)

    @property
    def is_empty(self) -> bool:
        """Nobody is there any more."""
        seats = (seat for crew in self._crews() for seat in crew.seats)
        return not self._leaving and not self._relieved and not any(seat.number for seat in seats)

    def is_leaving(self, number: int) -> bool:
        """It was told to go; its death is what is wanted."""
        return number in self._leaving

    def is_up(self, now: float) -> bool:
        """Somebody is ready, or was a moment ago."""
        if self._relieved or any(crew.ready for crew in self._crews()):
            self._up_at = now
            return True
        return self._was_ready and now - self._up_at < DOWN_TIME_S

    @property
    def size(self) -> int:
        """Executors that there should be."""
        return len(self._crew.seats)

    def state_of(self, number: int) -> str:
        """In a word, for people."""
        if number in self._leaving:
            return "leaving"
        if number in self._relieved:
            return "relieved"
        found = self._find(number)
        if found is None:
            return "dead"
        seat = found[1]
        return "dying" if seat.is_condemned else "ready" if seat.is_ready else "booting"

    def next_time(self) -> float | None:
        """When :meth:`tick` has something to do; None when only events can change anything."""
        times = list(self._leaving.values())
        for crew in self._crews():
            for seat in crew.seats:
                if seat.kill_at is not None:
                    times.append(seat.kill_at)
                elif not seat.number and not self._stopped:
                    times.append(seat.start_at)
        earliest = min(times, default=NEVER)
        return None if earliest == NEVER else earliest

    # What happens

    def tick(self, now: float) -> list[Action]:
        """What is due by now: starts, and kills of those who did not go."""
        actions: list[Action] = []
        for number in [number for number, due in self._leaving.items() if due <= now]:
            # It stays in the list until its death is known, but is not killed again.
            self._leaving[number] = NEVER
            actions += [Notice("warning", f"executor {number} did not stop in time and is killed"), Kill(number)]
        for crew in self._crews():
            for seat in crew.seats:
                actions += self._tick_seat(crew, seat, now)
        return actions

    def ready(
        self,
        number: int,
        now: float,
        capacity: int | None = None,
        at_once: int | None = None,
        *,
        stream_bodies: bool = False,
    ) -> list[Action]:
        """An executor takes requests: it holds `capacity` (None: as many as the specification says), and runs `at_once`
        of these at the same time (None: all).

        `stream_bodies`: and their bodies while they come, and upgrades.
        """
        found = self._find(number)
        if found is None:
            return []
        crew, seat = found
        if seat.is_condemned:
            return []
        seat.capacity = _capacity(crew.spec) if capacity is None else capacity
        seat.at_once = seat.capacity if at_once is None else at_once
        seat.streams = stream_bodies
        seat.is_ready = seat.was_settled = True
        seat.kill_at = None
        seat.backoff.booted()
        self._up_at = now
        self._was_ready = True
        return self._let_relieved_go(seat, now) + self._promote(now)

    def died(self, number: int, now: float, could_not_boot: bool = False) -> list[Action]:
        """An executor is gone. `could_not_boot`: it said itself that trying again makes no sense for now."""
        if number in self._leaving:
            del self._leaving[number]
            return []
        if number in self._relieved:
            del self._relieved[number]
            return []
        found = self._find(number)
        if found is None:
            return []
        crew, seat = found
        return self._seat_is_empty(crew, seat, now, could_not_boot)

    def relieve(self, number: int, now: float) -> list[Action]:
        """Another executor takes this one's seat: it is started now, and this one, which goes on until then, finishes
        and leaves when that one is ready. Only who is ready can be relieved.
        """
        found = self._find(number)
        if found is None or found[1].is_condemned or not found[1].is_ready:
            return []
        crew, seat = found
        self._relieved[number] = seat
        seat.number, seat.is_ready, seat.start_at = 0, False, now
        return self._tick_seat(crew, seat, now)

    def finish(self, number: int) -> list[Action]:
        """Whoever leaves has nothing left to do and cannot come to its end by itself."""
        if self._leaving.get(number, NEVER) == NEVER:
            return []
        self._leaving[number] = NEVER
        return [Kill(number)]

    def reload(self, spec: PoolSpec, now: float) -> list[Action]:
        """Starts a crew by `spec`; see the head of this file. A reload that is under way is given up for this one.

        Also after :meth:`stop`.
        """
        self._stopped = self.has_given_up = False
        actions = self._dismiss(self._next, now)
        if not any(True for _ in self._crew.occupied()):
            # Nobody to take over from.
            actions += self._dismiss(self._crew, now)
            self._crew = Crew(spec, now)
            self._next = None
        else:
            self._next = Crew(spec, now)
        return actions + self.tick(now)

    def stop(self, now: float) -> list[Action]:
        """Everybody finishes and goes, nobody is started any more."""
        self._stopped = True
        actions = self._dismiss(self._next, now) + self._dismiss(self._crew, now)
        self._next = None
        return actions

    def kill(self) -> list[Action]:
        """Everybody is killed, nobody is started any more."""
        self._stopped = True
        numbers = [seat.number for crew in self._crews() for seat in crew.occupied()]
        numbers += [*self._relieved, *self._leaving]
        self._relieved.clear()
        for crew in self._crews():
            crew.seats.clear()
        self._leaving = dict.fromkeys(numbers, NEVER)
        return [Kill(number) for number in numbers]

    # Inside

    def _crews(self) -> list[Crew]:
        return [self._crew] if self._next is None else [self._crew, self._next]

    def _find(self, number: int) -> tuple[Crew, Seat] | None:
        for crew in self._crews():
            for seat in crew.seats:
                if seat.number == number:
                    return crew, seat
        return None

    def _tick_seat(self, crew: Crew, seat: Seat, now: float) -> list[Action]:
        if seat.number == 0:
            if self._stopped or seat.start_at > now:
                return []
            self._last_number += 1
            seat.number, seat.since = self._last_number, now
            seat.is_ready = seat.is_condemned = False
            seat.kill_at = now + BOOT_TIME_S
            return [Start(seat.number, crew.spec)]
        if seat.kill_at is None or seat.kill_at > now:
            return []
        seat.kill_at = None
        if seat.is_condemned:
            return [Kill(seat.number)]
        seat.is_condemned = True
        text = f"executor {seat.number} was not ready after {BOOT_TIME_S:.0f} s and is killed"
        return [Notice("error", text), Kill(seat.number)]

    def _seat_is_empty(self, crew: Crew, seat: Seat, now: float, could_not_boot: bool) -> list[Action]:
        never_ready = not seat.is_ready
        if seat.is_ready:
            self._up_at = now
        life_s = now - seat.since
        seat.number, seat.is_ready, seat.is_condemned, seat.kill_at = 0, False, False, None
        seat.was_settled = True
        if crew is self._next and never_ready:
            return self._give_up_reload(now)
        delay_s = seat.backoff.after_boot_failure() if could_not_boot else seat.backoff.after_crash(life_s)
        seat.start_at = now + delay_s
        return [Retry(delay_s)]

    def _give_up_reload(self, now: float) -> list[Action]:
        self.has_given_up = True
        actions = self._dismiss(self._next, now)
        self._next = None
        text = "the new executors cannot boot; the old ones go on until a reload succeeds"
        return [Notice("error", text), *actions]

    def _let_relieved_go(self, seat: Seat, now: float) -> list[Action]:
        numbers = [number for number, old in self._relieved.items() if old is seat]
        for number in numbers:
            del self._relieved[number]
            self._leaving[number] = now + self._crew.spec.stop_time_ms / 1000
        return [Stop(number) for number in numbers]

    def _promote(self, now: float) -> list[Action]:
        if self._next is None or not self._next.is_complete:
            return []
        old, self._crew, self._next = self._crew, self._next, None
        return self._dismiss(old, now)

    def _dismiss(self, crew: Crew | None, now: float) -> list[Action]:
        if crew is None:
            return []
        actions: list[Action] = []
        for seat in crew.seats:
            actions += self._let_relieved_go(seat, now)
        for seat in crew.occupied():
            if seat.is_condemned:
                # It is dying already, by a signal.
                self._leaving[seat.number] = now if seat.kill_at is None else seat.kill_at
                continue
            stop_time_s = crew.spec.stop_time_ms / 1000
            self._leaving[seat.number] = now + (stop_time_s if seat.is_ready else min(stop_time_s, BOOT_STOP_TIME_S))
            actions.append(Stop(seat.number))
        crew.seats.clear()
        return actions


def _capacity(spec: PoolSpec) -> int:
    """Requests that one executor runs at once."""
    return spec.programs if spec.kind == "cgi" else spec.threads
