"""The core process: started, told, and when it dies started again with the same sockets, queues and segments."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from appserver.config.plan import Plan
from appserver.logging import get_logger
from appserver.native.control import MAX_DESCRIPTORS, Message
from appserver.supervisor.backoff import Backoff
from appserver.supervisor.executors import EXIT_NO_BOOT, module_command
from appserver.supervisor.identity import Identity
from appserver.supervisor.loop import Loop, Timer
from appserver.supervisor.memory import resident
from appserver.supervisor.process import Child, Death
from appserver.supervisor.segments import Links

#: From the start to `ready`.
BOOT_TIME_S = 30.0
#: What the core gets on top of drain_timeout before it is killed.
DRAIN_GRACE_S = 5.0
GENERATIONS = 0xFFFF


@dataclass(frozen=True, slots=True)
class Setup:
    """What the core is to do."""

    plan: Plan
    listeners: Mapping[str, int]  #: descriptors by id, or by `ID@LOOP` when each loop has its own
    links: Iterable[Links]  #: of the plan's pools
    access_log: int | None  #: None: as it is


class CoreOwner(Protocol):
    """Who is told what the core does. Every call comes from the loop."""

    def core_setup(self) -> Setup:
        """For a core that starts."""

    def core_started(self) -> None:
        """It can be sent capacities and readiness now: they come before `start`, and so before the first request."""

    def core_ready(self) -> None:
        """It serves."""

    def core_confirmed(self) -> None:
        """The answer to :meth:`Core.confirm`. None comes from a core that dies before."""

    def core_applied(self, refusal: str | None) -> None:
        """The answer to :meth:`Core.apply`; `refusal` says why not. Also when the core died over it."""

    def core_stuck(self, pool: str, executor: int, request: str, about: str) -> None:
        """A request is past its time."""

    def core_incident(self, message: Message) -> None:
        """A request went wrong in an executor. The descriptors are the receiver's."""

    def core_refused(self, reason: str) -> None:
        """It cannot start with this setup. Its death follows."""

    def core_died(self, will_return: bool) -> None:
        """It is gone."""


class Core:
    """The core process, whichever one it is just now."""

    def __init__(self, loop: Loop, loops: int, accept: str, identity: Identity | None, owner: CoreOwner) -> None:
        self._loop = loop
        self._loops = loops
        self._accept = accept
        self._identity = identity
        self._owner = owner
        self._log = get_logger(process="core")
        self._child: Child | None = None
        self._timer: Timer | None = None  #: the next start, or the end of somebody's time
        self._backoff = Backoff()
        self._generation = 0
        self._is_wanted = True
        self._is_applying = False
        self._is_killed = False
        self._known: set[str] = set()  #: names of the descriptors that this core has
        self._asked: set[str] = set()  #: and will have when it says `applied`
        self.is_ready = False

    @property
    def is_running(self) -> bool:
        return self._child is not None

    @property
    def pids(self) -> set[int]:
        return set() if self._child is None else {self._child.pid}

    def status(self) -> dict[str, Any]:
        """For people who ask."""
        child = self._child
        if child is None:
            return {"state": "none"}
        state = "ready" if self.is_ready else "starting"
        return {"state": state, "pid": child.pid, "age_s": round(child.life_s, 3), "memory": resident(child.pid)}

    def start(self) -> None:
        """Starts a core of the next generation."""
        setup = self._owner.core_setup()
        self._known = set()
        self._generation = self._generation % GENERATIONS + 1
        for links in setup.links:
            links.segment.set_generation(self._generation)
        command = module_command("appserver.native.core_main", self._identity)
        try:
            self._child = Child(self._loop, command, self._log, self._take, self._died)
        except OSError as error:
            reason = command.refusal(error)
            self._log.error("the core cannot be started", reason=reason)
            self._owner.core_refused(reason)
            self._again(self._backoff.after_boot_failure())
            return
        self._set_timer(BOOT_TIME_S, partial(self._give_up, "the core was not ready in time"))
        self._owner.core_started()
        self._configure("start", setup, generation=self._generation, loops=self._loops, accept=self._accept)

    def apply(self, setup: Setup) -> None:
        """A new configuration; `core_applied` is called with the answer. Only while it is ready."""
        assert self._child is not None and self.is_ready
        self._is_applying = True
        self._configure("apply", setup)

    def confirm(self) -> None:
        """Has `core_confirmed` called when all that it has been sent until now holds."""
        self.send("confirm")

    def send(self, type_: str, fds: Mapping[str, int] | None = None, **fields: Any) -> None:
        """A message; lost when there is no core, for the next one is told everything."""
        if self._child is not None:
            self._child.send(type_, fds, **fields)

    def drain(self, timeout_s: float) -> None:
        """Stops accepting, finishes, ends. `core_died` follows."""
        self._is_wanted = False
        if self._child is None or not self.is_ready:
            self.kill()
            return
        self.send("drain", timeout_ms=int(timeout_s * 1000))
        self._set_timer(timeout_s + DRAIN_GRACE_S, partial(self._give_up, "the core did not drain in time"))

    def kill(self) -> None:
        """Ends it now, for good. `core_died` follows."""
        self._is_wanted = False
        self._clear_timer()
        if self._child is None:
            self._loop.call_later(0, partial(self._owner.core_died, False))
        else:
            self._is_killed = True
            self._child.signal(signal.SIGKILL)

    # Inside

    def _configure(self, type_: str, setup: Setup, **fields: Any) -> None:
        plan_fd = _memory_file("plan", json.dumps(setup.plan).encode())
        try:
            fds = {f"listener:{key}": fd for key, fd in setup.listeners.items()}
            for links in setup.links:
                fds |= links.core_fds()
            # Pools are never taken away from a core, listeners are.
            self._asked = {name for name in self._known if not name.startswith("listener:")} | set(fds)
            fds = {name: fd for name, fd in fds.items() if name not in self._known}
            if setup.access_log is not None:
                fds["access-log"] = setup.access_log
            items = [("plan", plan_fd), *fds.items()]
            while len(items) > MAX_DESCRIPTORS:
                self.send("descriptors", dict(items[:MAX_DESCRIPTORS]))
                items = items[MAX_DESCRIPTORS:]
            self.send(type_, dict(items), listeners=list(setup.listeners), **fields)
        finally:
            os.close(plan_fd)

    def _take(self, message: Message) -> None:
        match message.type:
            case "ready":
                self.is_ready = True
                self._backoff.booted()
                self._known = self._asked
                if self._is_wanted:
                    self._clear_timer()
                self._owner.core_ready()
            case "confirmed":
                self._owner.core_confirmed()
            case "applied":
                self._known = self._asked
                self._applied(None)
            case "refused" if self.is_ready:
                self._applied(message.text("reason"))
            case "refused":
                self._owner.core_refused(message.text("reason"))
            case "executor-stuck":
                self._owner.core_stuck(
                    message.text("pool"), message.number("executor"), message.text("request"), message.text("about")
                )
            case "incident":
                self._log.debug("a request went wrong in an executor", **message.fields)
                self._owner.core_incident(message)
            case "drained":
                self._log.debug("the core has drained")
            case other:
                message.close_fds()
                self._log.warning("the core sent a message that is not known", message=other)

    def _applied(self, refusal: str | None) -> None:
        if self._is_applying:
            self._is_applying = False
            self._owner.core_applied(refusal)

    def _died(self, death: Death) -> None:
        self._child = None
        self.is_ready = False
        self._clear_timer()
        fields: dict[str, Any] = {"pid": death.pid, "uptime_s": round(death.life_s, 3)}
        if not self._is_wanted:
            if not death.is_clean and not self._is_killed:
                self._log.warning(f"the core {death.sentence()} while it was stopping", **fields)
            self._owner.core_died(False)
            return
        no_boot = death.status == EXIT_NO_BOOT
        delay_s = self._backoff.after_boot_failure() if no_boot else self._backoff.after_crash(death.life_s)
        self._log.error(f"the core {death.sentence()}", **fields, replaced_in_s=delay_s)
        self._again(delay_s)
        self._applied("the core died over it")
        self._owner.core_died(True)

    def _again(self, delay_s: float) -> None:
        if self._is_wanted:
            self._set_timer(delay_s, self.start)

    def _give_up(self, why: str) -> None:
        self._log.error(f"{why} and is killed")
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    def _set_timer(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._clear_timer()
        self._timer = self._loop.call_later(delay_s, callback)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _memory_file(name: str, data: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    return fd
