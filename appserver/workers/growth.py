"""By how much this worker's memory grows, and which routes ran meanwhile.

Looked at when no request is held, so that what a request needs for a moment does not count. When one route alone ran
between two looks, the growth is its own; when several did, nobody can say whose it is, and each gets it in a second
column. What the allocator keeps or gives back is in there as well: only what goes on growing means something.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Dict, List, Optional, Set

LOOK_S = 5.0
ROUTES_MAX = 64
OTHERS = "(others)"


def resident() -> int:
    """Bytes of memory that this process has in use; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


class Growth:
    """Main thread, but for what goes into the set."""

    def __init__(self, look: Callable[[], int] = resident) -> None:
        self.routes: Dict[str, List[int]] = {}  #: bytes: while it ran alone, while others ran too
        self.due = 0.0  #: of the next look, time.monotonic()
        self._look = look
        self._last: Optional[int] = None

    def look(self, ran: Set[str], now: float) -> int:
        """No request is held, and those routes have run since the last look. Bytes in use, 0 when unknown."""
        self.due = now + LOOK_S
        size = self._look()
        if not size:
            return 0
        if self._last is not None:
            grown = size - self._last
            for route in ran:
                known = route in self.routes or len(self.routes) < ROUTES_MAX
                columns = self.routes.setdefault(route if known else OTHERS, [0, 0])
                columns[len(ran) > 1] += grown
        self._last = size
        return size
