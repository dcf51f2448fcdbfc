"""Which executors of a pool run: the policy, without effects.

Every method takes what has happened and when, and returns what to do. Nothing in here starts a process, sends a
signal or looks at a clock, so all of it can be tested as arithmetic.

An executor lives in a *seat*; the seats of one version of the pool's specification are a *crew*. A reload makes a
second crew beside the first: when all its seats are ready the first one leaves; when one of them cannot boot the
second one leaves, and the first goes on.

An executor that is to be relieved (it has reached a limit, or does not get out of a request) gets an *heir* in its
seat. It goes on until the heir is ready; when the heir cannot boot, another one is tried later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from appserver.config.plan import PoolSpec
from appserver.supervisor.backoff import Backoff
from appserver.supervisor.recycling import Usage, is_over_hard_limit, reason_to_leave
from appserver.supervisor.scaling import Load, Scaler

#: From the start to `ready`; importing a large application takes seconds, not a minute.
BOOT_TIME_S = 60.0
#: What an executor that still boots gets to notice that it is not wanted any more: it holds no request.
BOOT_STOP_TIME_S = 2.0
#: A pool without a ready executor for this long makes the server not ready; replacing a dead one is quicker.
DOWN_TIME_S = 5.0
#: Executors that are relieved at once for what they have used: one in so many, so that the machine is not full of
#: those who boot.
RELIEVED_AT_ONCE = 4
NEVER = float("inf")
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Start:
    """Start an executor with this number. `version` of the specification: a reload of the same one is another.
    `is_checked`: it must answer the pool's self-check before it takes requests.
    """

    number: int
    spec: PoolSpec
    version: int = 1
    is_checked: bool = False


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


@dataclass(frozen=True, slots=True)
class Abilities:
    """What those who are ready are good for, all together, as the core must know it."""

    capacity: int  #: requests that they hold at once
    at_once: int  #: of these, how many run at the same time: an event loop holds many and runs one
    stream_bodies: bool  #: every one of them takes request bodies while they come: any may get any request
    upgrades: bool  #: and likewise requests that ask for another protocol


@dataclass(slots=True)
class Sitter:
    """An executor."""

    number: int
    since: float  #: its start
    kill_at: float | None
    capacity: int = 0  #: requests that it holds at once
    at_once: int = 0  #: of these, how many run at the same time
    streams: bool = False  #: takes request bodies while they come
    upgrades: bool = False  #: takes requests for another protocol
    is_ready: bool = False
    is_condemned: bool = False  #: told to die; its death is no surprise, but the seat stays
    is_relieved: bool = False  #: goes as soon as its heir is ready

    @property
    def counts(self) -> bool:
        """Whether it takes requests and will go on doing so."""
        return self.is_ready and not self.is_condemned


@dataclass(slots=True)
class Seat:
    """A place for one executor after the other."""

    start_at: float  #: when nobody sits there, or who sits there is to be relieved
    sitter: Sitter | None = None
    heir: Sitter | None = None
    was_settled: bool = False  #: the first one became ready, or did not
    backoff: Backoff = field(default_factory=Backoff)

    def members(self) -> list[Sitter]:
        return [each for each in (self.sitter, self.heir) if each is not None]


class Crew:
    """The seats of one version of the specification."""

    def __init__(self, spec: PoolSpec, version: int, now: float, size: int) -> None:
        self.spec = spec
        self.version = version
        self.seats = [Seat(start_at=now) for _ in range(size)]
        #: Somebody has become ready. From then on nobody is checked any more: there is no better version that could go
        #: on, and a fault that comes from outside must not take the workers away that tell of it.
        self.is_proven = False

    def members(self) -> Iterator[Sitter]:
        return (member for seat in self.seats for member in seat.members())

    @property
    def ready(self) -> int:
        return sum(seat.sitter is not None and seat.sitter.counts for seat in self.seats)

    @property
    def is_complete(self) -> bool:
        return self.ready == len(self.seats)

    @property
    def capacity(self) -> int:
        """Requests that those who are ready run at once."""
        return sum(member.capacity for member in self.members() if member.counts)

    @property
    def places(self) -> int:
        """Of these, how many there are sure to be, whatever comes: where threads run some requests and an event loop
        holds others, all may be for the threads.
        """
        counted = (member for member in self.members() if member.counts)
        return sum(member.capacity if member.at_once == 1 else member.at_once for member in counted)


class PoolPolicy:
    """The executors of one pool. Times are seconds of one monotonic clock; no number is used twice."""

    def __init__(self, spec: PoolSpec, now: float) -> None:
        self._version = 1
        self._crew = Crew(spec, self._version, now, _size(spec, 0))
        self._next: Crew | None = None
        self._leaving: dict[int, float] = {}  #: number -> when it is killed
        self._last_number = 0
        self._stopped = False
        self._was_ready = False
        self._up_at = now  #: last time that somebody was known to be ready
        self._scaler = Scaler(now)
        self.has_given_up = False  #: the last reload

    # What is

    @property
    def name(self) -> str:
        return self._crew.spec.name

    @property
    def spec(self) -> PoolSpec:
        """The specification that holds (during a reload: still the old one)."""
        return self._crew.spec

    @property
    def versions(self) -> set[int]:
        """Of the specification: those by which somebody may still be started."""
        return {crew.version for crew in self._crews() if crew.seats}

    @property
    def capacity(self) -> int:
        """Requests that all ready executors run at once."""
        return sum(crew.capacity for crew in self._crews())

    @property
    def size(self) -> int:
        """Executors that there should be."""
        return len(self._crew.seats)

    @property
    def abilities(self) -> Abilities:
        """Of all ready executors."""
        ready = [member for crew in self._crews() for member in crew.members() if member.counts]
        return Abilities(
            capacity=self.capacity,
            at_once=sum(member.at_once for member in ready),
            stream_bodies=bool(ready) and all(member.streams for member in ready),
            upgrades=bool(ready) and all(member.upgrades for member in ready),
        )

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
        return not self._leaving and not any(True for crew in self._crews() for _ in crew.members())

    @property
    def is_stopped(self) -> bool:
        """Everybody was told to go, and nobody else comes."""
        return self._stopped

    def is_leaving(self, number: int) -> bool:
        """It was told to go; its death is what is wanted."""
        return number in self._leaving

    def is_up(self, now: float) -> bool:
        """Somebody is ready, or was a moment ago."""
        if any(crew.ready for crew in self._crews()):
            self._up_at = now
            return True
        return self._was_ready and now - self._up_at < DOWN_TIME_S

    def state_of(self, number: int) -> str:
        """In a word, for people."""
        if number in self._leaving:
            return "leaving"
        found = self._find(number)
        if found is None:
            return "dead"
        member = found[2]
        if member.is_condemned:
            return "dying"
        if not member.is_ready:
            return "booting"
        return "relieved" if member.is_relieved else "ready"

    def next_time(self) -> float | None:
        """When :meth:`tick` has something to do; None when only events can change anything."""
        times = list(self._leaving.values())
        for crew in self._crews():
            times += [member.kill_at for member in crew.members() if member.kill_at is not None]
            if not self._stopped:
                times += [seat.start_at for seat in crew.seats if _wants_somebody(seat)]
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
        upgrades: bool = False,
    ) -> list[Action]:
        """An executor takes requests: it holds `capacity` (None: as many as the specification says), and runs `at_once`
        of these at the same time (None: all).

        `stream_bodies`: and their bodies while they come; `upgrades`: also those for another protocol.
        """
        found = self._find(number)
        if found is None or found[2].is_condemned:
            return []
        crew, seat, member = found
        member.is_ready = seat.was_settled = crew.is_proven = True
        member.kill_at = None
        member.capacity = _capacity(crew.spec) if capacity is None else capacity
        member.at_once = member.capacity if at_once is None else at_once
        member.streams, member.upgrades = stream_bodies, upgrades
        seat.backoff.booted()
        self._up_at = now
        self._was_ready = True
        return self._inherit(crew, seat, now) + self._promote(now)

    def died(self, number: int, now: float, could_not_boot: bool = False) -> list[Action]:
        """An executor is gone. `could_not_boot`: it said itself that trying again makes no sense for now."""
        if number in self._leaving:
            del self._leaving[number]
            return []
        found = self._find(number)
        if found is None:
            return []
        crew, seat, member = found
        if member.is_ready:
            self._up_at = now
        if member is seat.sitter and seat.heir is not None:
            seat.sitter, seat.heir = seat.heir, None
            return []
        return self._seat_is_empty(crew, seat, member, now, could_not_boot)

    def relieve(self, number: int, now: float) -> list[Action]:
        """Another executor takes this one's seat: it is started now, and this one, which goes on until then, finishes
        and leaves when that one is ready. Only who is ready can be relieved.
        """
        found = self._find(number)
        if found is None or not found[2].counts or found[2].is_relieved:
            return []
        crew, seat, member = found
        member.is_relieved = True
        seat.start_at = now
        return self._tick_seat(crew, seat, now)

    def finish(self, number: int) -> list[Action]:
        """Whoever leaves has nothing left to do and cannot come to its end by itself."""
        if self._leaving.get(number, NEVER) == NEVER:
            return []
        self._leaving[number] = NEVER
        return [Kill(number)]

    def observe(self, usages: Mapping[int, Usage], now: float) -> list[Action]:
        """What executors have used by now: those over a limit are relieved, a few at a time; those over the hard limit
        of memory die. During a reload everybody is replaced anyway.
        """
        crew = self._crew
        actions: list[Action] = []
        # The oldest first, or one seat that comes to its limit again and again keeps the others from their turn.
        for member in sorted(crew.members(), key=lambda member: member.number):
            usage = usages.get(member.number)
            if usage is None or not member.counts:
                continue
            if is_over_hard_limit(crew.spec, usage):
                figures = f"{usage.memory / MIB:.1f} MiB, limit {crew.spec.memory_max / MIB:.1f} MiB"
                actions += [
                    Notice("error", f"executor {member.number} is killed: memory_max: {figures}"),
                    *self._condemn(member),
                ]
                continue
            reason = reason_to_leave(crew.spec, member.number, now - member.since, usage)
            if reason and not member.is_relieved and self._may_relieve():
                actions += [
                    Notice("info", f"executor {member.number} is replaced: {reason}"),
                    *self.relieve(member.number, now),
                ]
        return actions

    def scale(self, load: Load, now: float) -> list[Action]:
        """The number of executors follows the load, where the specification lets it. Not during a reload."""
        crew = self._crew
        if self._stopped or self._next is not None or not crew.seats:
            return []
        size = len(crew.seats)
        each = crew.places // max(1, crew.ready)
        wanted = self._scaler.size(crew.spec, size, each, crew.is_complete, load, now)
        if wanted > size:
            crew.seats += [Seat(start_at=now, was_settled=True) for _ in range(wanted - size)]
            text = f"{size} to {wanted} executors: a request has waited for {load.oldest_wait_s:.1f} s"
            return [Notice("info", text), *self.tick(now)]
        if wanted < size:
            text = f"{size} to {wanted} executors: fewer have been enough for {crew.spec.spare_time_ms / 1000:g} s"
            return [Notice("info", text), *self._give_up_seat(crew, now)]
        return []

    def reload(self, spec: PoolSpec, now: float) -> list[Action]:
        """Starts a crew by `spec`; see the head of this file. A reload that is under way is given up for this one.

        Also after :meth:`stop`.
        """
        self._stopped = self.has_given_up = False
        self._version += 1
        actions = self._dismiss(self._next, now)
        crew = Crew(spec, self._version, now, _size(spec, len(self._crew.seats)))
        if not any(True for _ in self._crew.members()):
            # Nobody to take over from.
            self._crew = crew
            self._next = None
        else:
            self._next = crew
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
        numbers = [member.number for crew in self._crews() for member in crew.members()]
        numbers += list(self._leaving)
        for crew in self._crews():
            crew.seats.clear()
        self._leaving = dict.fromkeys(numbers, NEVER)
        return [Kill(number) for number in numbers]

    # Inside

    def _crews(self) -> list[Crew]:
        return [self._crew] if self._next is None else [self._crew, self._next]

    def _find(self, number: int) -> tuple[Crew, Seat, Sitter] | None:
        for crew in self._crews():
            for seat in crew.seats:
                for member in seat.members():
                    if member.number == number:
                        return crew, seat, member
        return None

    def _tick_seat(self, crew: Crew, seat: Seat, now: float) -> list[Action]:
        actions: list[Action] = []
        for member in seat.members():
            if member.kill_at is None or member.kill_at > now:
                continue
            member.kill_at = None
            if not member.is_condemned:
                member.is_condemned = True
                text = f"executor {member.number} was not ready after {BOOT_TIME_S:.0f} s and is killed"
                actions.append(Notice("error", text))
            actions.append(Kill(member.number))
        if _wants_somebody(seat) and seat.start_at <= now and not self._stopped:
            self._last_number += 1
            newcomer = Sitter(self._last_number, now, kill_at=now + BOOT_TIME_S)
            if seat.sitter is None:
                seat.sitter = newcomer
            else:
                seat.heir = newcomer
            is_checked = crew.spec.check is not None and not crew.is_proven
            actions.append(Start(newcomer.number, crew.spec, crew.version, is_checked))
        return actions

    def _condemn(self, member: Sitter) -> list[Action]:
        """It dies at once, and its seat is taken again."""
        member.is_condemned = True
        member.kill_at = None
        return [Kill(member.number)]

    def _inherit(self, crew: Crew, seat: Seat, now: float) -> list[Action]:
        """When an heir is ready, the seat is its own."""
        old, heir = seat.sitter, seat.heir
        if old is None or heir is None or not heir.counts:
            return []
        seat.sitter, seat.heir = heir, None
        return self._let_go(crew, old, now)

    def _seat_is_empty(self, crew: Crew, seat: Seat, member: Sitter, now: float, could_not_boot: bool) -> list[Action]:
        actions: list[Action] = []
        if member is seat.heir:
            seat.heir = None
            assert seat.sitter is not None
            text = f"executor {member.number} cannot take over; executor {seat.sitter.number} goes on"
            actions.append(Notice("error", text))
        else:
            seat.sitter = None
        seat.was_settled = True
        if crew is self._next and not member.is_ready:
            return self._give_up_reload(now)
        life_s = now - member.since
        delay_s = seat.backoff.after_boot_failure() if could_not_boot else seat.backoff.after_crash(life_s)
        seat.start_at = now + delay_s
        return [*actions, Retry(delay_s)]

    def _may_relieve(self) -> bool:
        under_way = sum(member.is_relieved for member in self._crew.members())
        return self._next is None and under_way < max(1, len(self._crew.seats) // RELIEVED_AT_ONCE)

    def _give_up_seat(self, crew: Crew, now: float) -> list[Action]:
        """One seat less: one where nobody takes requests, else the one that was taken last."""

        def worth(seat: Seat) -> tuple[bool, int]:
            sitter = seat.sitter
            return (sitter is not None and sitter.counts, 0 if sitter is None else -sitter.number)

        seat = min(crew.seats, key=worth)
        crew.seats.remove(seat)
        return [action for member in seat.members() for action in self._let_go(crew, member, now)]

    def _give_up_reload(self, now: float) -> list[Action]:
        self.has_given_up = True
        actions = self._dismiss(self._next, now)
        self._next = None
        text = "the new executors cannot boot; the old ones go on until a reload succeeds"
        return [Notice("error", text), *actions]

    def _promote(self, now: float) -> list[Action]:
        if self._next is None or not self._next.is_complete:
            return []
        old, self._crew, self._next = self._crew, self._next, None
        return self._dismiss(old, now)

    def _dismiss(self, crew: Crew | None, now: float) -> list[Action]:
        if crew is None:
            return []
        members = list(crew.members())
        crew.seats.clear()
        return [action for member in members for action in self._let_go(crew, member, now)]

    def _let_go(self, crew: Crew, member: Sitter, now: float) -> list[Action]:
        """It has no seat any more."""
        if member.is_condemned:
            # It is dying already, by a signal.
            self._leaving[member.number] = now if member.kill_at is None else member.kill_at
            return []
        stop_time_s = crew.spec.stop_time_ms / 1000
        if not member.is_ready:
            stop_time_s = min(stop_time_s, BOOT_STOP_TIME_S)
        self._leaving[member.number] = now + stop_time_s
        return [Stop(member.number)]


def _size(spec: PoolSpec, before: int) -> int:
    """Seats of a crew that follows one with `before` seats: a reload under load must not begin with the fewest."""
    return 1 if spec.kind == "cgi" else min(max(spec.processes, before), spec.most_processes)


def _capacity(spec: PoolSpec) -> int:
    """Requests that one executor runs at once."""
    return spec.programs if spec.kind == "cgi" else spec.threads


def _wants_somebody(seat: Seat) -> bool:
    sitter = seat.sitter
    return sitter is None or (sitter.is_relieved and not sitter.is_condemned and seat.heir is None)
