"""What a running server does for those who ask at its control socket."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from appserver import __version__
from appserver.supervisor.control_server import Request
from appserver.supervisor.reload import Outcome

if TYPE_CHECKING:
    from appserver.supervisor.supervisor import Supervisor


class Commands:
    """The commands of the server itself."""

    def __init__(self, server: Supervisor) -> None:
        self._server = server
        self._began = time.time()
        server.control.commands |= {"hello": self.hello, "status": self.status, "reload": self.reload}

    def hello(self, request: Request) -> None:
        """Who is there."""
        request.answer(pid=os.getpid(), version=__version__, configuration=self._server.config.name)

    def status(self, request: Request) -> None:
        """The pools with their workers, and how the last ones died."""
        server = self._server
        request.answer(
            pid=os.getpid(),
            version=__version__,
            configuration=server.config.name,
            phase=server.phase,
            ready=server.is_ready,
            listening=server.listeners.urls(),
            started=self._began,
            core=server.core.status(),
            pools=[pool.status() for pool in server.pools.values() if not pool.is_empty or pool.is_wanted],
        )

    def reload(self, request: Request) -> None:
        """Reads the configuration again and replaces all workers; with `pool` only those of that pool, as they are
        configured already. The answer comes when it is done.
        """
        server, pool = self._server, request.text("pool")

        def done(outcome: Outcome) -> None:
            if outcome.problems:
                request.refuse("; ".join(outcome.problems), problems=outcome.problems, traceback=outcome.traceback)
            else:
                request.answer(configuration=server.config.name, pools=outcome.pools)

        if pool is not None:
            names = [spec.name for spec in server.config.pools]
            if pool not in names:
                expected = f"expected one of {', '.join(names)}" if names else "this server has no pools"
                request.refuse(f"pool: found '{pool}'; {expected}")
                return
        server.begin_reload(pool, done)
