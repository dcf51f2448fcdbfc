"""A pool as the policies of the supervisor know it."""

from appserver.config.plan import PoolSpec

PLAIN = PoolSpec(
    name="p",
    kind="python",
    slots=100,
    queue_limit=10,
    queue_time_ms=1000,
    request_time_ms=1000,
    idle_time_ms=0,
    stop_time_ms=10_000,
)
