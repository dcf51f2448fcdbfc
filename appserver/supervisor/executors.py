"""The executors of one pool: the policy's actions done, and the world's events told to the policy."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import appserver
from appserver.config.plan import PoolSpec
from appserver.errors import StartError
from appserver.logging import get_logger
from appserver.native.control import Message
from appserver.supervisor.identity import Identity, ProgramIdentity, find_program_identity
from appserver.supervisor.incidents import Incidents
from appserver.supervisor.incidents_pool import Circumstances, PoolIncidents
from appserver.supervisor.leftovers import kill_session
from appserver.supervisor.loop import Loop, Timer
from appserver.supervisor.memory import proportional, resident
from appserver.supervisor.overdue import LOOK_TIME_S, Overdue, OverdueRequests
from appserver.supervisor.pool import Action, Kill, Notice, PoolPolicy, Retry, Start, Stop
from appserver.supervisor.process import Adopted, Child, Command, Death
from appserver.supervisor.segments import Links
from appserver.supervisor.stacks import SIGNAL, Stacks
from appserver.supervisor.template import Template
from appserver.supervisor.usage import StatsPage, load_of
from appserver.supervisor.worker_metrics import PoolMemory

PACKAGE_PARENT = Path(appserver.__file__).resolve().parent.parent
WORKER_MAIN = Path(appserver.__file__).resolve().parent / "workers" / "main.py"
EXIT_NO_BOOT = 3
#: How often a pool that the configuration has no more looks whether its last requests are done.
RETIRE_POLL_S = 0.5
#: How often the queue of a pool is looked at whose number of executors follows its load.
LOAD_LOOK_S = 0.1
#: How often it is looked at what executors use, where that has limits.
USAGE_LOOK_S = 1.0
#: How often an executor that was given up is looked at once it has been told to stop; by the first time it has handed
#: back whatever it still took from the queue.
FINISH_POLL_S = 0.5
#: Bytes of stacks in a log line: more than a terminal shows, less than a line may have.
LOGGED_STACKS = 16 * 1024
#: Deaths that are remembered.
LAST_DEATHS = 10


@dataclass(frozen=True, slots=True)
class BootFailure:
    """Why an executor could not boot."""

    reason: str = ""
    traceback: str = ""


Growth = dict[str, list[int]]


@dataclass(slots=True)
class _Awaited:
    """An executor that its template has been asked for."""

    start: Start
    template: Template
    order: Action | None = None  #: what it is to be told when it is there


class Executors:
    """One pool. `on_change`: capacity or state is other than before; `on_death`: this executor's number is dead."""

    def __init__(
        self,
        loop: Loop,
        links: Links,
        spec: PoolSpec,
        loops: int,
        identity: Identity | None,
        on_change: Callable[[], None],
        on_death: Callable[[str, int, bool], None],
        incidents: Incidents,
        can_adopt: bool = False,
        on_files: Callable[[set[Path]], None] = lambda files: None,
    ) -> None:
        """`can_adopt`: children of our children become ours when their parents end. `on_files`: with --dev, files that
        were loaded for the first time.
        """
        self._loop = loop
        self._links = links
        self._loops = loops
        self._identity = identity
        self._on_change = on_change
        self._on_death = on_death
        self._can_adopt = can_adopt
        self._on_files = on_files
        self._children: dict[int, Child] = {}
        self._stacks: dict[int, Stacks] = {}
        self._growth: dict[int, Growth] = {}  #: of an executor: by route
        self._threads: dict[int, dict[str, str]] = {}  #: of an executor: names by the numbers in its stacks
        self._awaited: dict[int, _Awaited] = {}  #: who is to be forked
        self._templates: dict[int, Template] = {}  #: by version of the specification
        self._old_templates: list[Template] = []  #: that have been told to go
        self._failed: set[int] = set()  #: said why they cannot boot
        self._excusing: set[int] = set()  #: with --dev: answer with why they cannot load the application
        self._killed: set[int] = set()  #: by us
        self._given_up: set[int] = set()  #: in a request that does not end
        self._stats: dict[int, StatsPage] = {}
        self._timer: Timer | None = None
        self._look_timer: Timer | None = None
        self._observed_at = 0.0
        self._retirement: Timer | None = None
        self._deaths: deque[dict[str, Any]] = deque(maxlen=LAST_DEATHS)
        self.boot_failure = BootFailure()  #: the last one
        self.is_wanted = True  #: by the configuration
        self.files: set[Path] = set()  #: with --dev: of the modules that executors have loaded
        self._log = get_logger(pool=spec.name)
        self._incidents = PoolIncidents(spec.name, incidents, self._threads)
        self._overdue = OverdueRequests(loop, links.segment, self._tell_overdue, self._overdue_ended)
        self.policy = PoolPolicy(spec, loop.now())

    @property
    def pids(self) -> set[int]:
        found = {child.pid for child in self._children.values()}
        return found.union(*(template.pids for template in self._all_templates()))

    @property
    def is_forking(self) -> bool:
        """One of the children that nobody knows may be an executor."""
        return any(template.is_forking for template in self._all_templates())

    @property
    def is_empty(self) -> bool:
        """No process is left."""
        return self.policy.is_empty and not any(template.is_running for template in self._all_templates())

    def status(self) -> dict[str, Any]:
        """For people who ask: all its executors, and how the last ones died."""
        policy, segment = self.policy, self._links.segment
        spec = policy.spec
        queued, running = segment.load()
        return {
            "name": spec.name,
            "kind": spec.kind,
            "application": spec.application,
            "capacity": policy.capacity,
            "processes": policy.size,
            "fewest_processes": 1 if spec.kind == "cgi" else spec.processes,
            "most_processes": 1 if spec.kind == "cgi" else spec.most_processes,
            "queued": queued,
            "running": running,
            "executors": [self._status_of(number, child) for number, child in self._children.items()],
            "templates": [found for template in self._all_templates() if (found := template.status()) is not None],
            "deaths": list(self._deaths),
        }

    def memory(self) -> PoolMemory:
        """For the metrics."""
        ready = [number for number in sorted(self._children) if self.policy.state_of(number) in ("ready", "relieved")]
        sizes = (resident(self._children[number].pid) or 0 for number in ready)
        growth = tuple(self._growth[number] for number in ready if number in self._growth)
        return PoolMemory(self.policy.name, tuple(sizes), growth)

    def _status_of(self, number: int, child: Child) -> dict[str, Any]:
        stats = self._stats.get(number)
        return {
            "executor": number,
            "pid": child.pid,
            "state": self.policy.state_of(number),
            "age_s": round(child.life_s, 3),
            "requests": None if stats is None else stats.requests(),
            "memory": resident(child.pid),
            "pss": proportional(child.pid),
            "growth": self._growth.get(number, {}),
        }

    # Orders

    def start(self) -> None:
        """The first executors."""
        self._step(self.policy.tick(self._loop.now()))

    def reload(self, spec: PoolSpec) -> None:
        """New executors by `spec`, which take over when they are ready."""
        self.is_wanted = True
        self.boot_failure = BootFailure()
        if self._retirement is not None:
            self._retirement.cancel()
            self._retirement = None
        self._step(self.policy.reload(spec, self._loop.now()))

    def stop(self) -> None:
        """Everybody finishes what it holds and goes."""
        self._step(self.policy.stop(self._loop.now()))

    def kill(self) -> None:
        """Everybody dies."""
        for template in self._all_templates():
            template.kill()
        self._step(self.policy.kill())

    def retire(self) -> None:
        """Stops once the last request is done, or its time is over."""
        self.is_wanted = False
        if self.policy.is_empty or self._retirement is not None:
            return
        spec = self.policy.spec
        limit_s = (spec.queue_time_ms + spec.request_time_ms) / 1000
        self._retire_when_idle(self._loop.now() + limit_s)

    def _retire_when_idle(self, until: float) -> None:
        self._retirement = None
        if self._links.segment.busy() == 0 or self._loop.now() >= until:
            self.stop()
            return
        self._retirement = self._loop.call_later(RETIRE_POLL_S, partial(self._retire_when_idle, until))

    def stuck(self, number: int, request: str, about: str) -> None:
        """The core says that a request of this executor is past its time."""
        if number not in self._stacks:
            return
        held = next((each for each in self._links.segment.held_by(number) if f"{each.log_id:016x}" == request), None)
        grace_s = self.policy.spec.interrupt_time_ms / 1000
        overdue = Overdue(request, about, held)
        self._overdue.found(number, self._children[number], self._stacks[number], overdue, grace_s)

    def _tell_overdue(self, number: int, requests: list[Overdue], stacks: str) -> None:
        served = self._stats[number].requests() if number in self._stats else None
        growth = self._growth.get(number, {})
        fields = {"incident": self._incidents.overdue(number, self._children[number], requests, stacks, served, growth)}
        if stacks:
            fields["traceback"] = stacks[:LOGGED_STACKS]
        for overdue in requests:
            self._log.warning(
                "a request is past its time; it is interrupted",
                executor=number,
                request=overdue.request,
                about=overdue.about,
                **fields,
            )
            fields.pop("traceback", None)  # once is enough

    def _overdue_ended(self, number: int, overdue: Overdue, has_ended: bool) -> None:
        """The grace after an interrupt is over."""
        if number not in self._children:
            self._incidents.overdue_ended(number, overdue.request, "its worker died before it ended")
            return
        if has_ended:
            self._incidents.overdue_ended(number, overdue.request, "it was interrupted and ended; the worker goes on")
            self._log.debug("a request ended when it was interrupted", executor=number, request=overdue.request)
            return
        self._incidents.overdue_ended(
            number, overdue.request, "it did not end when it was interrupted; the worker is replaced"
        )
        actions = self.policy.relieve(number, self._loop.now())
        if actions:
            self._log.warning(
                "a request did not end when it was interrupted; its executor is replaced",
                executor=number,
                request=overdue.request,
                about=overdue.about,
            )
            self._given_up.add(number)
        self._step(actions)

    def _finish(self, number: int) -> None:
        """Who has been relieved and told to stop, and holds only what nobody waits for, has finished."""
        if number not in self._children:
            return
        if all(held.cancelled for held in self._links.segment.held_by(number)):
            self._step(self.policy.finish(number))
        self._loop.call_later(FINISH_POLL_S, partial(self._finish, number))

    # Actions

    def _step(self, actions: list[Action]) -> None:
        for action in actions:
            self._do(action)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.policy.next_time()
        if due is not None:
            self._timer = self._loop.call_at(due, self._tick)
        self._look_again()
        self._stop_templates()
        self._on_change()

    def _tick(self) -> None:
        self._timer = None
        self._step(self.policy.tick(self._loop.now()))

    def _look_again(self) -> None:
        """Soon, while there is somebody whom it may concern."""
        spec = self.policy.spec
        is_scaled = spec.most_processes > spec.processes
        if self._look_timer is None and (is_scaled or spec.is_observed) and self._children:
            self._look_timer = self._loop.call_later(LOAD_LOOK_S if is_scaled else USAGE_LOOK_S, self._look)

    def _look(self) -> None:
        self._look_timer = None
        now, spec = self._loop.now(), self.policy.spec
        actions: list[Action] = []
        if spec.most_processes > spec.processes:
            actions += self.policy.scale(load_of(self._links.segment, now), now)
        if spec.is_observed and now >= self._observed_at + USAGE_LOOK_S:
            self._observed_at = now
            usages = {
                number: self._stats[number].usage(child.pid)
                for number, child in self._children.items()
                if number in self._stats
            }
            actions += self.policy.observe(usages, now)
        if actions:
            self._step(actions)
        self._look_again()

    def _do(self, action: Action) -> None:
        match action:
            case Start():
                self._start(action)
            case Stop(number) | Kill(number) if number in self._awaited:
                # It is told when it is there, if it ever is.
                awaited = self._awaited[number]
                awaited.order = action
                if awaited.template.withdraw(number):
                    self.not_forked(number, "", "", False)
            case Stop(number):
                time_ms = self.policy.spec.stop_time_ms
                reason = "end" if self.policy.is_stopped else "replaced"
                self._with_child(number, lambda child: child.send("stop", time_ms=time_ms, reason=reason))
                if number in self._given_up:
                    self._loop.call_later(FINISH_POLL_S, partial(self._finish, number))
            case Kill(number):
                self._killed.add(number)
                self._with_child(number, partial(self._kill, number))
            case Notice(level, text):
                getattr(self._log, level)(text)
            case Retry():
                pass  # is in the line about the death

    def _kill(self, number: int, child: Child) -> None:
        """First it says where it is, unless that is known: what does not start or does not stop is stuck somewhere."""
        if number not in self._stacks or number in self._given_up:
            child.signal(signal.SIGKILL)
            return
        self._stacks[number].clear()
        child.signal(SIGNAL)
        self._loop.call_later(LOOK_TIME_S, partial(child.signal, signal.SIGKILL))

    def _with_child(self, number: int, act: Callable[[Child], None]) -> None:
        child = self._children.get(number)
        if child is not None:
            act(child)

    def _start(self, start: Start) -> None:
        number, spec = start.number, start.spec
        programs = None
        try:
            if spec.kind == "cgi":
                programs = find_program_identity(spec, self._identity)
            if spec.kind == "python":
                self._stats[number] = StatsPage(spec.threads)
                self._stacks[number] = Stacks()
        except OSError as error:
            self._cannot_start(number, f"no shared memory for it: {error.strerror}")
            return
        except StartError as error:  # a user that has gone since the configuration was read
            self._cannot_start(number, str(error))
            return
        template = self._template_of(spec, start.version)
        if template is None:
            self._found(start, executor_command(spec, self._identity, programs), programs)
        else:
            self._awaited[number] = _Awaited(start, template)
            template.fork(number)

    def _found(self, start: Start, source: Command | Adopted, programs: ProgramIdentity | None = None) -> None:
        """The executor is started, or is there already; it gets what it needs. `programs`: as whom those of a spawner
        run.
        """
        number, spec = start.number, start.spec
        log = self._log.bind(executor=number)
        try:
            child = Child(self._loop, source, log, partial(self._take, number), partial(self._died, number))
        except OSError as error:
            fork = f"the fork cannot be started: {error}"
            self._cannot_start(number, source.refusal(error) if isinstance(source, Command) else fork)
            return
        self._children[number] = child
        self._incidents.started(child.pid)
        fds = self._links.executor_fds()
        more: dict[str, Any] = {}
        if number in self._stats:
            fds |= {"stats": self._stats[number].fd, "stacks": self._stacks[number].fd}
            more = {"stacks_signal": SIGNAL}
        if start.is_checked:
            more["check"] = spec.check
        if spec.dev and self._threads.keys() <= self._excusing:
            more["shows_failure"] = True
        child.send(
            "start",
            fds,
            pool=spec.name,
            executor=number,
            threads=spec.threads,
            loops=self._loops,
            configuration=executor_configuration(spec, programs),
            **more,
        )
        log.debug("executor started", pid=child.pid)

    def _cannot_start(self, number: int, reason: str, traceback: str = "", could_not_boot: bool = True) -> None:
        incident = self._incidents.never_lived(number, reason, traceback)
        self._log.error("the executor cannot be started", executor=number, reason=reason, incident=incident)
        self.boot_failure = BootFailure(reason, traceback)
        # Not at once: the policy is in the middle of a step.
        self._loop.call_later(0, partial(self._never_lived, number, could_not_boot))

    # Templates (TemplateOwner)

    def _template_of(self, spec: PoolSpec, version: int) -> Template | None:
        """From which an executor is to be forked; None when it is to be started by itself."""
        if not spec.preload or spec.kind != "python":
            return None
        if not self._can_adopt:
            self._log.warning("preload is not possible: this server may not adopt the children of its children")
            return None
        if version not in self._templates:
            command = executor_command(spec, self._identity)
            configuration = executor_configuration(spec)
            self._templates[version] = Template(self._loop, spec, command, configuration, self._log, self)
        template = self._templates[version]
        return None if template.is_unfit else template

    def _stop_templates(self) -> None:
        """Those from which nobody is forked any more."""
        wanted = self.policy.versions
        for version in [version for version in self._templates if version not in wanted]:
            template = self._templates.pop(version)
            if template.is_running:
                self._old_templates.append(template)
            template.stop()

    def _all_templates(self) -> list[Template]:
        return [*self._templates.values(), *self._old_templates]

    def forked(self, number: int, process: Adopted) -> None:
        awaited = self._awaited.pop(number)
        self._found(awaited.start, process)
        if awaited.order is not None:
            self._do(awaited.order)

    def not_forked(self, number: int, reason: str, traceback: str, could_not_boot: bool) -> None:
        awaited = self._awaited.pop(number)
        if awaited.order is None:
            self._cannot_start(number, reason, traceback, could_not_boot)
        else:
            self._loop.call_later(0, partial(self._never_lived, number, could_not_boot))

    def unfit(self, numbers: list[int], reason: str) -> None:
        for number in numbers:
            awaited = self._awaited.pop(number)
            self._found(awaited.start, executor_command(awaited.start.spec, self._identity))

    def template_ended(self) -> None:
        self._old_templates = [each for each in self._old_templates if each.is_running]
        self._on_change()

    # Events

    def _never_lived(self, number: int, could_not_boot: bool) -> None:
        self._forget_stats(number)
        self._forget_stacks(number)
        self._step(self.policy.died(number, self._loop.now(), could_not_boot))

    def _take(self, number: int, message: Message) -> None:
        match message.type:
            case "ready":
                self._threads[number] = threads_of(message)
                self._log.info("executor is ready", executor=number, pid=self._children[number].pid)
                self._note_failure(number, message)
                self._note_files(paths_in(message.fields.get("files")))
                actions = self.policy.ready(
                    number,
                    self._loop.now(),
                    message.number("capacity") or None,
                    message.number("at_once") or None,
                    stream_bodies=bool(message.fields.get("stream_bodies")),
                    upgrades=bool(message.fields.get("upgrades")),
                )
                self._step(actions)
            case "memory":
                self._growth[number] = growth_of(message)
            case "failed":
                self._failed.add(number)
                traceback = message.text("traceback")
                fields = {"traceback": traceback} if traceback else {}
                self.boot_failure = BootFailure(message.text("reason"), traceback)
                self._log.error("the executor cannot boot", executor=number, reason=message.text("reason"), **fields)
            case other:
                message.close_fds()
                self._log.warning("the executor sent a message that is not known", executor=number, message=other)

    def _note_failure(self, number: int, message: Message) -> None:
        reason, traceback = message.text("failure"), message.text("traceback")
        if reason:
            self._excusing.add(number)
            self.boot_failure = BootFailure(reason, traceback)
            self._log.error(
                "the application is not there: its requests are answered with the traceback",
                executor=number,
                reason=reason,
                traceback=traceback,
            )

    def _note_files(self, files: set[Path]) -> None:
        new = files - self.files
        if new:
            self.files |= new
            self._on_files(new)

    def _forget_stats(self, number: int) -> int:
        """How many requests it has received."""
        page = self._stats.pop(number, None)
        if page is None:
            return 0
        requests = page.requests()
        page.close()
        return requests

    def _forget_stacks(self, number: int) -> str:
        """The last thing that this executor wrote there: the stacks of a fatal error."""
        stacks = self._stacks.pop(number, None)
        if stacks is None:
            return ""
        text = stacks.read()
        stacks.close()
        return text

    def _died(self, number: int, death: Death) -> None:
        self._overdue.gone(number)
        pid = self._children.pop(number).pid
        served = self._forget_stats(number)
        stacks = self._forget_stacks(number)
        held = self._links.segment.held_by(number)
        if self.policy.spec.kind == "cgi" and not death.is_clean:
            kill_session(pid)
        is_leaving = self.policy.is_leaving(number)
        is_wanted = is_leaving and (death.is_clean or number in self._killed)
        # The core looks into the slots as soon as it knows.
        self._on_death(self._links.name, number, is_wanted)
        no_boot = number in self._failed or death.status == EXIT_NO_BOOT
        if number not in self._failed and self.policy.state_of(number) != "leaving":
            about = "was not ready in time" if number in self._killed else death.sentence()
            self.boot_failure = BootFailure(f"executor {number} {about}")
        circumstances = Circumstances(
            held=held,
            stacks=stacks,
            was_ready=number in self._threads or bool(held),  # it may hold a request before it has said so
            was_leaving=is_leaving,
            was_killed=number in self._killed,
            reason=self.boot_failure.reason if number in self._failed else None,
            traceback=self.boot_failure.traceback if number in self._failed else "",
            requests_served=served,
            growth=self._growth.pop(number, {}),
        )
        actions = self.policy.died(number, self._loop.now(), could_not_boot=no_boot)
        self._tell_death(number, death, circumstances, actions, is_wanted)
        self._threads.pop(number, None)
        self._failed.discard(number)
        self._excusing.discard(number)
        self._killed.discard(number)
        self._given_up.discard(number)
        self._step(actions)

    def _tell_death(
        self, number: int, death: Death, circumstances: Circumstances, actions: list[Action], is_wanted: bool
    ) -> None:
        fields: dict[str, Any] = {"executor": number, "pid": death.pid, "uptime_s": round(death.life_s, 3)}
        # Who leaves as it should has nothing to tell, unless requests go with it.
        if is_wanted and all(held.cancelled for held in circumstances.held):
            self._incidents.gone(death)
        else:
            fields["incident"] = self._incidents.died(number, death, circumstances)
        if circumstances.stacks:
            fields["traceback"] = circumstances.stacks[:LOGGED_STACKS]
        if circumstances.held:
            fields["requests"] = [f"{each.log_id:016x}" for each in circumstances.held]
        retry = next((action.delay_s for action in actions if isinstance(action, Retry)), None)
        if retry is not None:
            fields["replaced_in_s"] = retry
        if is_wanted:
            self._log.debug("executor stopped", **fields)
            return
        about = f"was killed by us after {fields['uptime_s']} s" if number in self._killed else death.sentence()
        if number in self._failed:
            about = f"could not boot: {self.boot_failure.reason}"
        self._deaths.append({"time": time.time(), **fields, "about": about})
        if number in self._failed:
            self._log.warning("executor could not boot", **fields)
        elif number in self._killed:
            self._log.warning("executor was killed by us", **fields)
        else:
            spec = self.policy.spec
            if spec.kind == "python" and not circumstances.was_ready and death.status >= 0:
                # Perhaps it is none: nothing that is no Python, or too old to read our code, can say so itself.
                fields["expected"] = (
                    f"{spec.interpreter} to be Python 3.9 or later, and to run until it is told to stop"
                )
            self._log.error(f"executor {death.sentence()}", **fields)


def growth_of(message: Message) -> Growth:
    """What `memory` says: by route, bytes while it ran alone and while others ran too."""
    routes = message.fields.get("routes")
    found = routes.items() if isinstance(routes, dict) else ()
    return {
        str(route): [int(size) for size in pair]
        for route, pair in found
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(size, int) for size in pair)
    }


def threads_of(message: Message) -> dict[str, str]:
    """What `ready` says about the executor's threads: names by the numbers that its stacks have for them."""
    names = message.fields.get("threads")
    return {str(key): str(value) for key, value in names.items()} if isinstance(names, dict) else {}


def executor_command(spec: PoolSpec, identity: Identity | None, programs: ProgramIdentity | None = None) -> Command:
    """What runs an executor of this pool. `programs`: as whom those of a spawner run, when not as it does."""
    if spec.kind == "cgi":
        # Programs of another user: it becomes that itself, and its own files may be out of that user's reach.
        return module_command("appserver.native.spawner_main", identity if programs is None else None)
    environment = {**os.environ, **spec.environment}
    return Command([spec.interpreter, str(WORKER_MAIN)], environment, identity)


def module_command(module: str, identity: Identity | None) -> Command:
    """One of our own modules under our own interpreter, wherever we were started from."""
    path = os.pathsep.join(filter(None, (str(PACKAGE_PARENT), os.environ.get("PYTHONPATH"))))
    # -P: what lies in the working directory must not be imported instead of the standard library.
    return Command([sys.executable, "-P", "-m", module], {**os.environ, "PYTHONPATH": path}, identity)


def executor_configuration(spec: PoolSpec, programs: ProgramIdentity | None = None) -> Mapping[str, Any]:
    """The `configuration` of the message `start`. `programs`: as for the command."""
    if spec.kind == "cgi":
        return {
            "environment": dict(spec.environment),
            "interpreters": dict(spec.interpreters),
            "usual_interpreters": dict(spec.usual_interpreters),
            "programs": spec.programs,
            "kill_grace_ms": spec.kill_grace_ms,
            "request_time_ms": spec.request_time_ms,
            "warm": spec.warm,
            "daemons": spec.daemons,
            "on_disconnect": spec.on_disconnect,
            "limits": dict(spec.program_limits),
            "identity": programs.as_message() if programs is not None else None,
        }
    return {
        "application": spec.application,
        "interface": spec.interface,
        "concurrency": spec.concurrency,
        "websocket": dict(spec.websocket),
        "directory": spec.directory,
        "scripts": list(spec.scripts),
        "script_folders": list(spec.script_folders),
        "dev": spec.dev,
        "memory_max": spec.memory_max,
        "request_time_ms": spec.request_time_ms,
        "stop_time_ms": spec.stop_time_ms,
    }


def paths_in(names: object) -> set[Path]:
    """The absolute paths in what an executor has sent."""
    if not isinstance(names, list):
        return set()
    return {Path(name) for name in names if isinstance(name, str) and name.startswith("/") and "\0" not in name}
