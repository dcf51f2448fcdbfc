"""How many processes a pool has, as arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pool_specs import PLAIN

from appserver.supervisor.scaling import GROW_INTERVAL_S, GROW_WAIT_S, Load, Scaler

POOL = replace(PLAIN, processes=1, processes_max=8, threads=4, spare_time_ms=60_000)
IDLE = Load(0, 0.0)
BUSY = Load(99, GROW_WAIT_S)


def test_nothing_to_do_nothing_done() -> None:
    scaler = Scaler(0)
    assert [scaler.size(POOL, 1, POOL.threads, True, IDLE, now) for now in (0, 100, 200)] == [1, 1, 1]


def test_up_by_half_and_never_over_the_most() -> None:
    scaler, size, sizes = Scaler(0), 1, []
    for step in range(7):
        size = scaler.size(POOL, size, POOL.threads, True, BUSY, step * GROW_INTERVAL_S)
        sizes.append(size)
    assert sizes == [2, 3, 4, 6, 8, 8, 8]


def test_not_up_for_a_short_wait() -> None:
    assert Scaler(0).size(POOL, 1, POOL.threads, True, Load(99, GROW_WAIT_S - 0.01), 5) == 1


def test_not_up_while_somebody_boots_or_cannot() -> None:
    assert Scaler(0).size(POOL, 2, POOL.threads, False, BUSY, 5) == 2


def test_one_step_up_a_second() -> None:
    scaler = Scaler(0)
    assert scaler.size(POOL, 1, POOL.threads, True, BUSY, 5) == 2
    assert scaler.size(POOL, 2, POOL.threads, True, BUSY, 5 + GROW_INTERVAL_S - 0.1) == 2
    assert scaler.size(POOL, 2, POOL.threads, True, BUSY, 5 + GROW_INTERVAL_S) == 3


def test_down_one_by_one_and_never_under_the_fewest() -> None:
    scaler, pool = Scaler(0), replace(POOL, processes=2)
    assert scaler.size(pool, 5, pool.threads, True, IDLE, 59.9) == 5
    assert scaler.size(pool, 5, pool.threads, True, IDLE, 60) == 4
    assert scaler.size(pool, 4, pool.threads, True, IDLE, 74.9) == 4
    assert scaler.size(pool, 4, pool.threads, True, IDLE, 75) == 3
    assert scaler.size(pool, 3, pool.threads, True, IDLE, 90) == 2
    assert scaler.size(pool, 2, pool.threads, True, IDLE, 1000) == 2


@pytest.mark.parametrize(("running", "size"), [(0, 2), (6, 2), (7, 3), (99, 3)])
def test_down_only_with_a_reserve(running: int, size: int) -> None:
    """Two of three processes have eight places, of which two must be free."""
    assert Scaler(0).size(POOL, 3, POOL.threads, True, Load(running, 0.0), 60) == size


def test_a_single_busy_place_is_not_kept_twice() -> None:
    pool = replace(POOL, threads=1)
    assert Scaler(0).size(pool, 2, pool.threads, True, Load(1, 0.0), 60) == 1
    assert Scaler(0).size(pool, 2, pool.threads, True, Load(2, 0.0), 60) == 2


def test_a_wait_or_a_burst_begins_the_idle_time_anew() -> None:
    for load in (Load(0, 0.1), Load(12, 0.0)):
        scaler = Scaler(0)
        assert scaler.size(POOL, 3, POOL.threads, True, load, 59) == 3
        assert scaler.size(POOL, 3, POOL.threads, True, IDLE, 118) == 3
        assert scaler.size(POOL, 3, POOL.threads, True, IDLE, 119) == 2
