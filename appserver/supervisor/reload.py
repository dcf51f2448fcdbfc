"""A reload, step by step: read, bind, start the new executors, tell the core, stop what is no longer wanted.

Whatever can fail comes before what cannot be taken back, and a reload that fails leaves the server as it was. A pool
whose new executors cannot boot keeps its old ones; the rest goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appserver.config.plan import LoadedConfig
from appserver.errors import ConfigError, StartError
from appserver.logging import get_logger
from appserver.supervisor.access_log import open_access_log
from appserver.supervisor.core import Setup
from appserver.supervisor.executors import Executors
from appserver.supervisor.identity import check_program_identities
from appserver.supervisor.loop import Timer

if TYPE_CHECKING:
    from appserver.supervisor.supervisor import Supervisor

#: New executors get this long before the core is told about them anyway, and old ones to finish before a reload counts
#: as done.
SETTLE_TIME_S = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: all good when there are no problems."""

    problems: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()  #: that have new executors
    traceback: str = ""  #: of the first problem that has one


Done = Callable[[Outcome], None]


class Reload:
    """One reload: of everything, or of one pool, whose configuration is not read again. `done` is called once, at its
    end.
    """

    def __init__(self, server: Supervisor, only: str | None, done: Done) -> None:
        self._server = server
        self._only = only
        self._done = done
        self._log = get_logger()
        self._opened: list[str] = []  #: listeners that the old configuration does not have
        self._access_log: int | None = None
        self._timer: Timer | None = None
        self._config: LoadedConfig | None = None
        self._is_waiting = False  #: for a core that is starting
        self._is_applying = False
        self._is_applied = False

    def begin(self) -> None:
        """Reads the configuration and starts what it asks for; :meth:`go_on` does the rest."""
        server = self._server
        if self._only is not None:
            self._begin_pool()
            return
        try:
            config = server.source.load()
            self._opened = server.listeners.open(config.listeners)
            if (config.log.access, config.log.access_file) != (server.config.log.access, server.config.log.access_file):
                self._access_log = open_access_log(config.log)
            check_program_identities(config.pools, server.identity)
            server.add_links(config.pools)
        except ConfigError as error:
            for line in error.lines:
                self._log.error("configuration error", problem=line)
            self._fail("the configuration is not valid", error.lines)
            return
        except (StartError, OSError) as error:
            self._fail(str(error), (str(error),))
            return
        server.look_again()
        for text in (*config.warnings, *fixed_warnings(server.config, config)):
            self._log.warning(text)
        for spec in config.pools:
            server.executors_of(spec).reload(spec)
        self._config = config  # from now on what pools say counts: all of them are there
        self._timer = server.loop.call_later(SETTLE_TIME_S, self._apply)
        self.go_on()

    def _begin_pool(self) -> None:
        config = self._config = self._server.config
        self._is_applied = True
        for spec in config.pools:
            if spec.name == self._only:
                self._server.executors_of(spec).reload(spec)
        self.go_on()

    def go_on(self) -> None:
        """Something about the pools or the core has changed."""
        if self._config is None or self._is_applying:
            return
        pools = self._pools()
        is_settled = all(pool.policy.is_settled for pool in pools)
        if not self._is_applied:
            if self._is_waiting or is_settled:
                self._apply()
        elif is_settled and not any(pool.policy.has_leaving for pool in pools):
            self._finish()
        elif is_settled and self._timer is None:
            # Old executors may still take a request until they have noticed; a reload is over when they are gone.
            self._timer = self._server.loop.call_later(SETTLE_TIME_S, self._finish)

    def applied(self, refusal: str | None) -> None:
        """The core's answer."""
        if refusal is not None:
            self._fail(f"the core refused: {refusal}", (f"the core refused: {refusal}",))
            return
        assert self._config is not None
        self._server.adopt(self._config, self._access_log)
        self._access_log = None
        self._is_applying, self._is_applied = False, True
        self.go_on()

    def cancel(self) -> None:
        """The server stops."""
        self._end(Outcome(("the server stops",)))

    def _pools(self) -> list[Executors]:
        assert self._config is not None
        names = [spec.name for spec in self._config.pools]
        return [self._server.pools[name] for name in names if self._only in (None, name)]

    def _finish(self) -> None:
        assert self._config is not None
        pools = self._pools()
        failed = [pool for pool in pools if pool.policy.has_given_up]
        good = tuple(pool.policy.name for pool in pools if pool not in failed)
        problems = tuple(
            f"pool {pool.policy.name}: {pool.boot_failure.reason}; the old executors go on" for pool in failed
        )
        traceback = next((pool.boot_failure.traceback for pool in failed if pool.boot_failure.traceback), "")
        if self._only is None:
            self._log.info("configuration reloaded", configuration=self._config.name)
        elif good:
            self._log.info("pool reloaded", pool=self._only)
        self._end(Outcome(problems, good, traceback))

    def _apply(self) -> None:
        server, config = self._server, self._config
        assert config is not None
        self._clear_timer()
        self._is_waiting = server.core.is_running and not server.core.is_ready
        if self._is_waiting:
            return  # go_on() comes when it is ready, or dead
        self._is_applying = True
        if not server.core.is_running:
            self.applied(None)  # the next one starts with the new configuration
            return
        server.core.apply(
            Setup(
                plan=config.plan,
                listeners=server.listeners.fds(listener.id for listener in config.listeners),
                links=[server.links[spec.name] for spec in config.pools],
                access_log=self._access_log,
            )
        )

    def _fail(self, why: str, problems: tuple[str, ...]) -> None:
        self._log.error("nothing was reloaded, the old configuration goes on", reason=why)
        self._server.listeners.close(self._opened)
        self._server.retire_unwanted()
        self._end(Outcome(problems))

    def _end(self, outcome: Outcome) -> None:
        self._clear_timer()
        self._config = None
        if self._access_log is not None:
            os.close(self._access_log)
            self._access_log = None
        self._done(outcome)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def fixed_warnings(old: LoadedConfig, new: LoadedConfig) -> list[str]:
    """What cannot be changed while the server runs."""
    names = ("threads", "accept", "user", "group", "control")
    pairs = {name: (getattr(old, name), getattr(new, name)) for name in names}
    return [
        f"{name}: {after} takes effect at the next start; {before} holds until then"
        for name, (before, after) in pairs.items()
        if before != after
    ]
