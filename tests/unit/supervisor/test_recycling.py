"""When an executor makes room for a fresh one, as arithmetic."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from pool_specs import PLAIN as SPEC

from appserver.supervisor.recycling import MIB, Usage, is_over_hard_limit, jittered, reason_to_leave


def test_limits_are_spread_over_a_tenth_to_both_sides() -> None:
    limits = [jittered(1000, number) for number in range(1, 201)]
    assert all(900 <= limit <= 1100 for limit in limits)
    assert sum(limit < 950 for limit in limits) == pytest.approx(50, abs=3)
    assert sum(limit > 1050 for limit in limits) == pytest.approx(50, abs=3)
    assert all(abs(one - other) > 50 for one, other in pairwise(limits))


def test_no_limits_no_reason() -> None:
    assert reason_to_leave(SPEC, 1, 1e9, Usage(10**9, 10**12)) == ""
    assert not is_over_hard_limit(SPEC, Usage(0, 10**12))


def test_requests() -> None:
    spec = replace(SPEC, requests_limit=1000)
    limit = round(jittered(1000, 7))
    assert reason_to_leave(spec, 7, 0, Usage(limit - 1, 0)) == ""
    assert reason_to_leave(spec, 7, 0, Usage(limit, 0)) == (
        f"requests: {limit}, limit {limit} (of 1000, give or take a tenth)"
    )


def test_a_limit_of_one_request_is_not_none() -> None:
    spec = replace(SPEC, requests_limit=1)
    for number in range(1, 20):
        assert reason_to_leave(spec, number, 0, Usage(0, 0)) == ""
        assert reason_to_leave(spec, number, 0, Usage(1, 0)).startswith("requests: 1, limit 1 ")


def test_lifetime() -> None:
    spec = replace(SPEC, lifetime_ms=100_000)
    limit_s = jittered(100, 3)
    assert reason_to_leave(spec, 3, limit_s - 0.1, Usage(0, 0)) == ""
    assert reason_to_leave(spec, 3, limit_s, Usage(0, 0)).startswith("lifetime: ")


def test_memory_is_not_spread() -> None:
    spec = replace(SPEC, memory_limit=100 * MIB, memory_max=200 * MIB)
    assert reason_to_leave(spec, 1, 0, Usage(0, 100 * MIB - 1)) == ""
    assert reason_to_leave(spec, 1, 0, Usage(0, 100 * MIB)) == "memory: 100.0 MiB, limit 100.0 MiB"
    assert not is_over_hard_limit(spec, Usage(0, 200 * MIB))
    assert is_over_hard_limit(spec, Usage(0, 200 * MIB + 1))
