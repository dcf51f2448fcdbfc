"""How many processes a pool has between its `min` and its `max`. Pure: times and loads come in, a number goes out.

Up when a request has waited for GROW_WAIT_S: by half of what is there, and not again before those are up. Down when for
`idle_time` one process less would have been enough, with a reserve; then by one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from appserver.config.plan import PoolSpec

#: A request that waits this long for an executor asks for another one.
GROW_WAIT_S = 0.2
#: From one step up to the next, when the executors are up sooner.
GROW_INTERVAL_S = 1.0
#: One in so many places must have been free in the remaining processes, for one to be superfluous.
RESERVE = 4
#: Between two steps down: this part of `idle_time`.
SHRINK_INTERVAL = 0.25


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool has to do just now."""

    running: int  #: requests that executors have
    oldest_wait_s: float  #: since the first of those in the queue came; 0: the queue is empty


class Scaler:
    """The memory of one pool."""

    def __init__(self, now: float) -> None:
        self._enough_since = now  #: one process less would do
        self._grown_at = -GROW_INTERVAL_S

    def size(self, spec: PoolSpec, size: int, each: int, is_complete: bool, load: Load, now: float) -> int:
        """How many there should be, of `size` that are there. `each` runs so many requests at once; `is_complete`: all
        of them are ready.
        """
        fewest, most = spec.processes, spec.most_processes
        capacity_of_fewer = (size - 1) * each
        fits_fewer = load.running <= capacity_of_fewer - capacity_of_fewer // RESERVE
        if load.oldest_wait_s > 0 or not fits_fewer:
            self._enough_since = now
        if load.oldest_wait_s >= GROW_WAIT_S:
            # While somebody boots, or cannot, the queue says nothing about those who are not there yet.
            if size < most and is_complete and now >= self._grown_at + GROW_INTERVAL_S:
                self._grown_at = now
                return min(most, size + max(1, size // 2))
            return size
        idle_s = spec.spare_time_ms / 1000
        if size > fewest and now >= self._enough_since + idle_s:
            self._enough_since = now - idle_s * (1.0 - SHRINK_INTERVAL)
            return size - 1
        return size
