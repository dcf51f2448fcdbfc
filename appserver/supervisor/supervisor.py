"""The supervisor: start order, signals, readiness, the end. One loop, one thread; it never touches a client."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from appserver import __version__
from appserver.config.plan import LoadedConfig, PoolSpec
from appserver.config.source import ConfigSource
from appserver.errors import StartError
from appserver.logging import STDERR, configure, get_logger
from appserver.native.control import Message
from appserver.native.process import become_subreaper
from appserver.supervisor.access_log import STDOUT, open_access_log
from appserver.supervisor.commands import Commands
from appserver.supervisor.control_server import ControlServer
from appserver.supervisor.core import Core, Setup
from appserver.supervisor.executors import Executors
from appserver.supervisor.identity import check_program_identities, find_identity
from appserver.supervisor.incidents import Incidents
from appserver.supervisor.loop import Loop, Timer, signals_into
from appserver.supervisor.pool import DOWN_TIME_S, Abilities
from appserver.supervisor.reload import Done, Outcome, Reload
from appserver.supervisor.segments import Links
from appserver.supervisor.sockets import Listeners
from appserver.supervisor.watch import POLL_COST, POLL_S, Seen, changed, look
from appserver.supervisor.worker_metrics import text_of

#: The server says that it listens after this long, even when some executors are not ready.
ANNOUNCE_TIME_S = 10.0
#: How often the core is told what memory workers have, for its metrics.
MEMORY_S = 5.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
#: When the first dead child is one of ours, its own watcher waits for it; then the others are looked at.
REAP_AGAIN_S = 0.05


class Phase(enum.IntEnum):
    """Only ever forward."""

    STARTING = 0
    SERVING = 1
    DRAINING = 2  #: the core finishes what it has
    STOPPING = 3  #: the executors go


class Supervisor:
    """One server. `run` may be called once."""

    def __init__(self, source: ConfigSource) -> None:
        self.source = source
        self.config: LoadedConfig = source.load()
        configure(self.config.log.level, self.config.log.format)
        self._log = get_logger()
        self._phase = Phase.STARTING
        self._failure: StartError | None = None
        self._announces_anyway = False  #: ANNOUNCE_TIME_S is over
        self._ready_said: bool | None = None
        self._is_announcing = False
        self._memory_said = ""
        self._ready_timer: Timer | None = None
        self._capacities: dict[str, Abilities] = {}  #: what the core knows
        self._reload: Reload | None = None
        self._next_reloads: dict[str | None, list[Done]] = {}  #: pool or None for all: who waits for its end
        self._seen: Seen = {}
        self.links: dict[str, Links] = {}  #: never taken away: see segments.py
        self.pools: dict[str, Executors] = {}  #: those that were ever there; `config.pools` are the wanted ones
        self.loop = Loop()
        self.identity = find_identity(self.config.user, self.config.group)
        check_program_identities(self.config.pools, self.identity)
        self.loops = self.config.threads
        self.accept = self.config.accept
        self.listeners = Listeners(self.loops if self.accept == "reuseport" else None)
        self.core = Core(self.loop, self.loops, self.accept, self.identity, self)
        self._access_log = -1
        self.incidents = Incidents(self.loop)
        self._can_adopt = False  #: children of children
        self.control = ControlServer(self.loop)
        Commands(self)

    @property
    def phase(self) -> str:
        """What it is doing, in a word."""
        return self._phase.name.lower()

    @property
    def is_ready(self) -> bool:
        """What the readiness path says."""
        return bool(self._ready_said)

    def run(self) -> int:
        """Serves until it is told to stop; the exit status. Raises StartError when it cannot start."""
        try:
            self._prepare()
            with signals_into(self.loop, SIGNALS, self._take_signal):
                self._start()
                self.loop.run()
        finally:
            self._close()
        if self._failure is not None:
            raise self._failure
        self._log.info("stopped")
        return 0

    # Start

    def _prepare(self) -> None:
        """Everything that can fail for reasons of the system, before anybody is started. Raises StartError."""
        for text in self.config.warnings:
            self._log.warning(text)
        self.listeners.open(self.config.listeners)
        self._access_log = open_access_log(self.config.log)
        try:
            self.add_links(self.config.pools)
        except OSError as error:
            raise StartError(f"the queues of the pools cannot be made: {error.strerror}") from error
        self.incidents.configure(self.config.model.incidents, self.config.name, self.config.folder)
        if self.config.control is not None:
            self.control.open(None if self.config.control == "auto" else self.config.control)
        self._can_adopt = become_subreaper()
        if not self._can_adopt:
            self._log.warning("this process cannot adopt orphans of its children")

    def _start(self) -> None:
        self._log.info(
            "starting", version=__version__, configuration=self.config.name, loops=self.loops, pid=os.getpid()
        )
        self.core.start()
        for spec in self.config.pools:
            self.executors_of(spec).start()
        self.loop.call_later(ANNOUNCE_TIME_S, self._announce_anyway)
        self.loop.call_later(MEMORY_S, self._tell_memory)
        self.look_again()
        if self.config.dev:
            self.loop.call_later(POLL_S, self._watch)

    def add_links(self, specs: Iterable[PoolSpec]) -> list[str]:
        """Makes the links of pools that have none; their names. Raises OSError."""
        added = []
        for spec in specs:
            if spec.name not in self.links:
                # By our own number of loops: the configuration's may be another one after a reload.
                slots = -(-spec.slots // self.loops) * self.loops
                self.links[spec.name] = Links(spec.name, slots, self.loops)
                added.append(spec.name)
            elif spec.slots > self.links[spec.name].segment.slots:
                text = f"pool {spec.name}: the longer queue takes effect at the next start"
                self._log.warning(text)
        return added

    def executors_of(self, spec: PoolSpec) -> Executors:
        """The executors of this pool, which may not be started yet."""
        if spec.name not in self.pools:
            links = self.links[spec.name]
            self.pools[spec.name] = Executors(
                self.loop,
                links,
                spec,
                self.loops,
                self.identity,
                self._pools_changed,
                self._executor_died,
                self.incidents,
                self._can_adopt,
                self.module_files_grew,
            )
        return self.pools[spec.name]

    def _wanted(self) -> list[Executors]:
        return [self.pools[spec.name] for spec in self.config.pools if spec.name in self.pools]

    def _announce_anyway(self) -> None:
        self._announces_anyway = True
        self._announce_if_due()

    def _announce_if_due(self) -> None:
        if self._phase != Phase.STARTING or not self.core.is_ready:
            return
        if not self._announces_anyway:
            pools = self._wanted()
            if len(pools) < len(self.config.pools) or not all(pool.policy.is_settled for pool in pools):
                return
        if not self._is_announcing:
            # A request that came before the core knows what executors can do would not be streamed, or not upgraded.
            self._is_announcing = True
            self.core.confirm()

    # What the pools say

    def _pools_changed(self) -> None:
        self._tell_capacities()
        self._announce_if_due()
        self._tell_readiness()
        if self._reload is not None:
            self._reload.go_on()
        self._end_if_empty()

    def _tell_capacities(self) -> None:
        for name, pool in self.pools.items():
            policy = pool.policy
            known = policy.abilities
            if self.core.is_running and self._capacities.get(name) != known:
                self._capacities[name] = known
                self.core.send("capacity", pool=name, **dataclasses.asdict(known))

    def _tell_memory(self) -> None:
        """Again and again, where somebody can ask for it."""
        self.loop.call_later(MEMORY_S, self._tell_memory)
        health = self.config.model.health
        if health is None or health.metrics is None or not self.core.is_ready:
            return
        text = text_of(pool.memory() for pool in self._wanted() if pool.policy.spec.kind == "python")
        if text != self._memory_said:
            self._memory_said = text
            self.core.send("metrics", text=text)

    def _executor_died(self, pool: str, number: int, expected: bool) -> None:
        self.core.send("executor-died", pool=pool, executor=number, expected=expected)

    def _tell_readiness(self) -> None:
        """Ready: it serves, and every pool has somebody who takes requests."""
        if self._phase == Phase.STARTING:
            return
        now = self.loop.now()
        down = [pool.policy.name for pool in self._wanted() if not pool.policy.is_up(now)]
        ready = self._phase == Phase.SERVING and not down
        self._look_at_readiness_again(any(pool.policy.capacity == 0 for pool in self._wanted()) and not down)
        if ready == self._ready_said:
            return
        self._ready_said = ready
        self.core.send("readiness", ready=ready)
        if self._phase == Phase.SERVING and not ready:
            self._log.warning("not ready: pools without an executor", pools=down)
        elif ready:
            self._log.info("ready")

    def _look_at_readiness_again(self, wanted: bool) -> None:
        if self._ready_timer is not None:
            self._ready_timer.cancel()
        self._ready_timer = self.loop.call_later(DOWN_TIME_S, self._tell_readiness) if wanted else None

    # What the core says (CoreOwner)

    def core_setup(self) -> Setup:
        return Setup(
            plan=self.config.plan,
            listeners=self.listeners.fds(),
            links=[self.links[spec.name] for spec in self.config.pools],
            access_log=self._access_log,
        )

    def core_started(self) -> None:
        self._capacities.clear()
        self._ready_said = None
        self._memory_said = ""
        self._tell_capacities()
        self._tell_readiness()

    def core_ready(self) -> None:
        self._announce_if_due()
        if self._reload is not None:
            self._reload.go_on()

    def core_confirmed(self) -> None:
        if self._phase != Phase.STARTING:
            return
        self._phase = Phase.SERVING
        say(f"cherokee-app {__version__} listening on {' and '.join(self.listeners.urls())}")
        self._tell_readiness()
        self._begin_next_reload()

    def core_applied(self, refusal: str | None) -> None:
        if self._reload is not None:
            self._reload.applied(refusal)

    def core_stuck(self, pool: str, executor: int, request: str, about: str) -> None:
        if pool in self.pools:
            self.pools[pool].stuck(executor, request, about)

    def core_incident(self, message: Message) -> None:
        self.incidents.request(message)

    def core_refused(self, reason: str) -> None:
        if self._phase == Phase.STARTING:
            self._fail(StartError(f"the core cannot start: {reason}"))
        else:
            self._log.error("the core refused its configuration", reason=reason)

    def core_died(self, will_return: bool) -> None:
        if will_return:
            if self._phase == Phase.STARTING:
                self._fail(StartError("the core died at its start; the log says more"))
            elif self._reload is not None:
                self._reload.go_on()
            return
        self._stop_executors()

    # Signals

    def _take_signal(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGTERM | signal.SIGINT:
                self._stop(number.name)
            case signal.SIGHUP:
                self._log.info("SIGHUP: reading the configuration again")
                self.begin_reload()
            case signal.SIGUSR1:
                self._reopen_logs()

    def _reap(self) -> None:
        """Waits for children that nobody started here: orphans that became ours. Never for one of our own."""
        known = set().union(self.core.pids, *(pool.pids for pool in self.pools.values()))
        flags = os.WEXITED | os.WNOHANG
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, flags | os.WNOWAIT)
                if found is None:
                    return
                if found.si_pid in known or any(pool.is_forking for pool in self.pools.values()):
                    self.loop.call_later(REAP_AGAIN_S, self._reap)
                    return
                os.waitid(os.P_PID, found.si_pid, flags)
            except ChildProcessError:
                return

    def _reopen_logs(self) -> None:
        try:
            fd = open_access_log(self.config.log)
        except StartError as error:
            self._log.error("the access log was not reopened", reason=str(error))
            return
        os.close(self._access_log)
        self._access_log = fd
        self.core.send("reopen", {"access-log": fd})
        self._log.info("log files reopened")

    # Reload

    def begin_reload(self, pool: str | None = None, done: Done | None = None) -> None:
        """Of everything, or of one pool; now, or after the one that is under way. `done` is told how it went."""
        waiting = self._next_reloads.setdefault(pool, [])
        if done is not None:
            waiting.append(done)
        self._begin_next_reload()

    def _begin_next_reload(self) -> None:
        if self._reload is not None or self._phase == Phase.STARTING or not self._next_reloads:
            return
        # What several have asked for while another one was under way is done once.
        pool = None if None in self._next_reloads else next(iter(self._next_reloads))
        waiting = self._next_reloads.pop(pool)
        if self._phase > Phase.SERVING:
            self._tell(waiting, Outcome(("the server stops",)))
            return
        self._reload = Reload(self, pool, partial(self._reload_done, waiting))
        self._reload.begin()

    def _reload_done(self, waiting: list[Done], outcome: Outcome) -> None:
        self._reload = None
        self._tell(waiting, outcome)
        self.loop.call_later(0, self._begin_next_reload)

    def _tell(self, waiting: list[Done], outcome: Outcome) -> None:
        for done in waiting:
            done(outcome)

    def adopt(self, config: LoadedConfig, access_log: int | None) -> None:
        """The configuration that holds from now on. `access_log` is taken."""
        self.config = config
        ids = {listener.id for listener in config.listeners}
        self.listeners.close([key for key in self.listeners.ids() if key not in ids])
        if access_log is not None:
            os.close(self._access_log)
            self._access_log = access_log
        self.retire_unwanted()
        configure(config.log.level, config.log.format)
        self.incidents.configure(config.model.incidents, config.name, config.folder)
        self._log = get_logger()
        self._tell_readiness()

    def retire_unwanted(self) -> None:
        """Lets pools go that the configuration does not have."""
        wanted = {spec.name for spec in self.config.pools}
        for name, pool in self.pools.items():
            if name not in wanted:
                pool.retire()

    def look_again(self) -> None:
        """With --dev: what is there now is what has just been loaded."""
        if self.config.dev:
            self._seen = look(self._watched())

    def _watched(self) -> list[Path]:
        """With --dev: what the configuration names, and what executors have loaded besides, wherever that is."""
        return [*self.source.watch_paths(), *(file for pool in self.pools.values() for file in pool.files)]

    def module_files_grew(self, files: Iterable[Path]) -> None:
        """An executor has loaded these; as they are now is what it has loaded."""
        for path, state in look(files).items():
            self._seen.setdefault(path, state)

    def _watch(self) -> None:
        """With --dev: reloads when a file of the site has changed."""
        began = self.loop.now()
        seen = look(self._watched())
        path = changed(self._seen, seen)
        self._seen = seen
        if path is not None:
            self._log.info("changed, reloading", path=path)
            self.begin_reload()
        if self._phase <= Phase.SERVING:
            self.loop.call_later(max(POLL_S, (self.loop.now() - began) * POLL_COST), self._watch)

    # The end

    def _fail(self, failure: StartError) -> None:
        self._failure = self._failure or failure
        self._hurry()

    def _stop(self, why: str) -> None:
        if self._phase >= Phase.DRAINING:
            self._log.warning(f"{why} again: not waiting any longer")
            self._hurry()
            return
        self._log.info(f"{why}: stopping", drain_timeout_s=self.config.drain_timeout_s)
        if self._phase == Phase.STARTING:
            self._phase = Phase.DRAINING
            self.core.kill()
            return
        self._phase = Phase.DRAINING
        if self._reload is not None:
            self._reload.cancel()
        self._tell_readiness()
        # New connections are refused from now on; the core takes those that the kernel has accepted already.
        self.listeners.close()
        for links in self.links.values():
            links.segment.set_stopping()
        self.core.drain(self.config.drain_timeout_s)

    def _stop_executors(self) -> None:
        if self._phase != Phase.STOPPING:
            self._phase = Phase.STOPPING
            for pool in self.pools.values():
                pool.stop()
            # Without this they would look at their stop flag only after RECEIVE_TIMEOUT_MS.
            for links in self.links.values():
                links.hang_up()
        self._end_if_empty()

    def _hurry(self) -> None:
        self._phase = max(self._phase, Phase.DRAINING)
        self.core.kill()
        for pool in self.pools.values():
            pool.kill()

    def _end_if_empty(self) -> None:
        if self._phase == Phase.STOPPING and all(pool.is_empty for pool in self.pools.values()):
            self.loop.stop()

    def _close(self) -> None:
        """Also after an exception: nobody is left behind."""
        self.control.close()
        self._kill_all()
        self.incidents.flush()
        self.listeners.close()
        for links in self.links.values():
            links.close()
        if self._access_log >= 0:
            os.close(self._access_log)
        self.loop.close()

    def _kill_all(self) -> None:
        if not self.core.is_running and all(pool.is_empty for pool in self.pools.values()):
            return
        self._hurry()
        self.loop.run()


def say(line: str) -> None:
    """One line on stdout, for people and for programs that wait for it. Never raises."""
    with contextlib.suppress(OSError):
        os.write(STDOUT, line.encode() + b"\n")


def occupy_standard_descriptors() -> None:
    """Descriptors 0 to 2 exist from now on. Who is started without them would log into its own sockets."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)


def run(source: ConfigSource) -> int:
    """Serves what `source` says until told to stop; the exit status. Raises ConfigError, StartError."""
    occupy_standard_descriptors()
    # Whoever started us may have blocked signals; a server that does not hear SIGTERM, nor its children SIGABRT, helps
    # nobody.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return Supervisor(source).run()
