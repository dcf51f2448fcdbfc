"""When an executor has done enough and makes room for a fresh one. Pure: what is known of it comes in, a reason goes
out.
"""

from __future__ import annotations

from dataclasses import dataclass

from appserver.config.plan import PoolSpec

#: Executors that were started together must not come to their limits together: each has its own, this much off at most.
JITTER = 0.1
#: The numbers of executors, times this, spread evenly over the unit interval, however many there are.
GOLDEN_RATIO = 0.6180339887498949
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What an executor has used so far."""

    requests: int
    memory: int  #: bytes, resident


def jittered(limit: float, number: int) -> float:
    """The limit of the executor with this number: between 0.9 and 1.1 of `limit`."""
    place = number * GOLDEN_RATIO % 1.0
    return limit * (1.0 - JITTER + 2.0 * JITTER * place)


def reason_to_leave(spec: PoolSpec, number: int, age_s: float, usage: Usage) -> str:
    """Which limit is reached, with the figures; "" for none. 0 is no limit."""
    if spec.memory_limit and usage.memory >= spec.memory_limit:
        return f"memory: {usage.memory / MIB:.1f} MiB, limit {spec.memory_limit / MIB:.1f} MiB"
    requests = round(jittered(spec.requests_limit, number))
    if spec.requests_limit and usage.requests >= max(1, requests):
        return f"requests: {usage.requests}, limit {requests} (of {spec.requests_limit}, give or take a tenth)"
    lifetime_s = jittered(spec.lifetime_ms / 1000, number)
    if spec.lifetime_ms and age_s >= lifetime_s:
        given_s = spec.lifetime_ms / 1000
        return f"lifetime: {age_s:.1f} s, limit {lifetime_s:.1f} s (of {given_s:g} s, give or take a tenth)"
    return ""


def is_over_hard_limit(spec: PoolSpec, usage: Usage) -> bool:
    """Whether it has more memory than it may ever have."""
    return spec.memory_max > 0 and usage.memory > spec.memory_max
