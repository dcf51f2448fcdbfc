"""The policy of a pool: arithmetic on times and events, without a process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pool_specs import PLAIN

from appserver.config.plan import PoolSpec
from appserver.supervisor.pool import (
    BOOT_STOP_TIME_S,
    BOOT_TIME_S,
    DOWN_TIME_S,
    Abilities,
    Action,
    Kill,
    Notice,
    PoolPolicy,
    Retry,
    Start,
    Stop,
)
from appserver.supervisor.recycling import Usage
from appserver.supervisor.scaling import Load

SPEC = replace(PLAIN, processes=2, threads=3)
NEW = replace(SPEC, threads=5)


def policy_of(spec: PoolSpec = SPEC, ready: bool = True) -> PoolPolicy:
    """A pool whose first executors, from number 1, have been started at 0 and became ready at 1."""
    policy = PoolPolicy(spec, 0)
    started = policy.tick(0)
    assert [each.number for each in of(Start, started)] == list(range(1, len(started) + 1))
    if ready:
        for start in of(Start, started):
            assert policy.ready(start.number, 1) == []
    return policy


def of(kind: type[Any], actions: list[Action]) -> list[Any]:
    """The actions of one kind."""
    return [action for action in actions if isinstance(action, kind)]


def numbers(kind: type[Any], actions: list[Action]) -> list[int]:
    return [action.number for action in of(kind, actions)]


# Start


def test_start() -> None:
    policy = PoolPolicy(SPEC, 5)
    assert policy.next_time() == 5
    assert policy.tick(4.9) == []
    assert policy.tick(5) == [Start(1, SPEC), Start(2, SPEC)]
    assert policy.tick(5) == []
    assert (policy.capacity, policy.is_settled, policy.is_empty) == (0, False, False)
    policy.ready(1, 6)
    assert (policy.capacity, policy.is_settled) == (3, False)
    policy.ready(2, 6)
    assert (policy.capacity, policy.is_settled) == (6, True)
    assert policy.next_time() is None


def test_cgi_pool_has_one_executor_with_the_capacity_of_its_programs() -> None:
    policy = policy_of(replace(SPEC, kind="cgi", programs=32))
    assert policy.capacity == 32


def test_boot_takes_too_long() -> None:
    policy = policy_of(ready=False)
    policy.ready(1, 1)
    assert policy.next_time() == BOOT_TIME_S
    actions = policy.tick(BOOT_TIME_S)
    assert numbers(Kill, actions) == [2]
    assert of(Notice, actions)[0].level == "error"
    assert policy.tick(BOOT_TIME_S + 1) == []
    assert policy.ready(2, BOOT_TIME_S + 1) == []  # too late: it is dying
    assert policy.capacity == 3
    (retry,) = policy.died(2, BOOT_TIME_S + 2)
    assert isinstance(retry, Retry)
    assert policy.is_settled


@pytest.mark.parametrize("event", ["ready", "died", "relieve"])
def test_unknown_numbers_are_nobody(event: str) -> None:
    policy = policy_of()
    assert getattr(policy, event)(77, 2) == []
    assert policy.capacity == 6


# Deaths


def test_replaced_after_a_delay_with_a_new_number() -> None:
    policy = policy_of()
    assert policy.died(1, 2) == [Retry(0.1)]
    assert policy.capacity == 3
    assert policy.next_time() == pytest.approx(2.1)
    assert policy.tick(2.05) == []
    assert policy.tick(2.1) == [Start(3, SPEC)]
    policy.ready(3, 3)
    assert policy.capacity == 6


def test_seats_back_off_each_for_itself() -> None:
    policy = policy_of()
    delays, number, now = [], 1, 2.0
    for _ in range(4):
        (retry,) = policy.died(number, now)
        assert isinstance(retry, Retry)
        delays.append(retry.delay_s)
        now += retry.delay_s
        (number,) = numbers(Start, policy.tick(now))
        policy.ready(number, now)
    assert delays == [0.1, 0.2, 0.4, 0.8]
    assert policy.died(2, now) == [Retry(0.1)]


def test_could_not_boot_waits_longer_and_settles() -> None:
    policy = policy_of(ready=False)
    assert policy.died(1, 1, could_not_boot=True) == [Retry(2.0)]
    assert not policy.is_settled
    assert policy.died(2, 1, could_not_boot=True) == [Retry(2.0)]
    assert policy.is_settled
    assert policy.next_time() == 3.0


# Stuck


def test_relieved_goes_on_until_another_one_is_ready() -> None:
    policy = policy_of()
    assert policy.relieve(1, 10) == [Start(3, SPEC)]
    assert policy.capacity == 6  # its other threads go on
    assert policy.relieve(1, 10) == []  # once is enough, however many requests of it are late
    assert policy.relieve(3, 10) == []  # it is not ready itself
    assert policy.ready(3, 11) == [Stop(1)]
    assert (policy.capacity, policy.is_leaving(1)) == (6, True)
    assert policy.tick(20.9) == []
    assert numbers(Kill, policy.tick(21)) == [1]
    assert policy.died(1, 21) == []


def test_relieved_with_nothing_left_to_do_is_killed_early() -> None:
    policy = policy_of()
    policy.relieve(1, 10)
    assert policy.finish(1) == []  # nobody is there instead
    policy.ready(3, 11)
    assert policy.finish(1) == [Kill(1)]
    assert policy.finish(1) == []
    assert policy.tick(100) == []
    assert policy.finish(77) == []


def test_relieved_stays_while_nobody_can_take_its_place() -> None:
    policy = policy_of(replace(SPEC, processes=1))
    policy.relieve(1, 10)
    assert of(Retry, policy.died(2, 11, could_not_boot=True)) == [Retry(2.0)]
    assert policy.is_up(1000)
    assert policy.tick(13) == [Start(3, replace(SPEC, processes=1))]
    assert policy.ready(3, 14) == [Stop(1)]


def test_relieved_may_die_before() -> None:
    policy = policy_of()
    policy.relieve(1, 10)
    assert policy.died(1, 10.5) == []
    assert policy.ready(3, 11) == []
    assert policy.capacity == 6


# Readiness


def test_up_and_down() -> None:
    policy = policy_of(replace(SPEC, processes=1), ready=False)
    assert not policy.is_up(0)
    policy.ready(1, 1)
    assert policy.is_up(100)
    policy.died(1, 200)
    assert policy.is_up(200 + DOWN_TIME_S - 0.1)
    assert not policy.is_up(200 + DOWN_TIME_S)


def test_never_up_is_down_at_once() -> None:
    policy = policy_of(replace(SPEC, processes=1), ready=False)
    policy.died(1, 1, could_not_boot=True)
    assert not policy.is_up(1)


# Stop and kill


def test_stop() -> None:
    policy = policy_of()
    assert policy.stop(20) == [Stop(1), Stop(2)]
    assert policy.is_leaving(1)
    assert policy.has_leaving
    assert policy.capacity == 0
    assert policy.next_time() == 30
    assert policy.died(1, 21) == []
    actions = policy.tick(30)
    assert numbers(Kill, actions) == [2]
    assert policy.next_time() is None
    assert policy.tick(1000) == []
    assert not policy.is_empty
    assert policy.died(2, 31) == []
    assert policy.is_empty


def test_who_boots_is_not_waited_for_as_long() -> None:
    policy = policy_of(ready=False)
    policy.ready(1, 1)
    policy.stop(20)
    assert policy.next_time() == 20 + BOOT_STOP_TIME_S
    assert numbers(Kill, policy.tick(20 + BOOT_STOP_TIME_S)) == [2]
    assert policy.next_time() == 30


def test_stop_starts_nobody_who_was_due() -> None:
    policy = policy_of()
    policy.died(1, 2)
    policy.stop(2)
    assert numbers(Start, policy.tick(100)) == []


def test_kill() -> None:
    policy = policy_of()
    policy.reload(NEW, 2)
    policy.relieve(1, 2)
    assert sorted(numbers(Kill, policy.kill())) == [1, 2, 3, 4, 5]
    assert policy.tick(1000) == []
    for number in (1, 2, 3, 4, 5):
        assert not policy.is_empty
        policy.died(number, 3)
    assert policy.is_empty


# Reload


def test_reload_replaces_when_all_are_ready() -> None:
    policy = policy_of()
    assert policy.reload(NEW, 10) == [Start(3, NEW, 2), Start(4, NEW, 2)]
    assert not policy.is_settled
    assert policy.spec == SPEC
    assert policy.ready(3, 11) == []
    assert policy.capacity == 6 + 5
    assert policy.ready(4, 12) == [Stop(1), Stop(2)]
    assert policy.spec == NEW
    assert policy.is_settled
    assert policy.capacity == 10
    assert policy.next_time() == 22
    policy.died(1, 13)
    policy.died(2, 13)
    assert not policy.has_leaving


def test_reload_that_cannot_boot_is_given_up() -> None:
    policy = policy_of()
    policy.reload(NEW, 10)
    policy.ready(3, 11)
    actions = policy.died(4, 11, could_not_boot=True)
    assert of(Notice, actions)[0].level == "error"
    assert numbers(Stop, actions) == [3]
    assert policy.spec == SPEC
    assert policy.capacity == 6
    assert policy.is_settled
    policy.died(3, 12)
    assert policy.tick(1000) == []  # nobody is tried again until the next reload


def test_new_one_that_was_ready_and_dies_is_replaced() -> None:
    policy = policy_of()
    policy.reload(NEW, 10)
    policy.ready(3, 11)
    assert policy.died(3, 12) == [Retry(0.1)]
    assert policy.tick(12.2) == [Start(5, NEW, 2)]
    policy.ready(4, 13)
    assert numbers(Stop, policy.ready(5, 13)) == [1, 2]


def test_old_one_that_dies_during_a_reload_is_replaced_by_the_old() -> None:
    policy = policy_of()
    policy.reload(NEW, 10)
    assert policy.died(1, 10) == [Retry(0.1)]
    assert policy.tick(10.1) == [Start(5, SPEC)]


def test_second_reload_gives_up_the_first() -> None:
    policy = policy_of()
    policy.reload(NEW, 10)
    newest = replace(SPEC, threads=7)
    actions = policy.reload(newest, 11)
    assert actions == [Stop(3), Stop(4), Start(5, newest, 3), Start(6, newest, 3)]
    policy.ready(5, 12)
    assert numbers(Stop, policy.ready(6, 12)) == [1, 2]
    assert policy.spec == newest


def test_reload_of_a_pool_with_nobody() -> None:
    policy = policy_of(ready=False)
    policy.died(1, 1, could_not_boot=True)
    policy.died(2, 1, could_not_boot=True)
    assert policy.reload(NEW, 1.5) == [Start(3, NEW, 2), Start(4, NEW, 2)]  # without waiting for the back-off
    assert policy.spec == NEW


def test_reload_to_other_numbers_of_processes() -> None:
    policy = policy_of()
    assert len(of(Start, policy.reload(replace(SPEC, processes=3), 10))) == 3


def test_reload_after_stop() -> None:
    policy = policy_of()
    policy.stop(10)
    assert policy.reload(SPEC, 11) == [Start(3, SPEC, 2), Start(4, SPEC, 2)]
    assert policy.is_leaving(1)
    policy.ready(3, 12)
    policy.ready(4, 12)
    assert policy.capacity == 6


def test_relieved_one_of_the_old_leaves_with_them() -> None:
    policy = policy_of()
    policy.reload(NEW, 10)
    policy.ready(3, 11)
    assert policy.relieve(1, 11) == [Start(5, SPEC)]
    assert policy.ready(4, 11.5) == [Stop(1), Stop(5), Stop(2)]
    assert policy.died(5, 11.6) == policy.died(1, 11.7) == policy.died(2, 11.8) == []
    assert policy.capacity == 10


def test_relieved_leaves_when_all_stop() -> None:
    policy = policy_of()
    policy.relieve(1, 10)
    assert policy.stop(10.5) == [Stop(1), Stop(3), Stop(2)]
    assert not policy.is_empty


# Relief


def test_relieved_goes_when_the_heir_is_ready() -> None:
    policy = policy_of()
    assert policy.relieve(1, 10) == [Start(3, SPEC)]
    assert policy.relieve(1, 10) == []
    assert policy.state_of(1) == "relieved"
    assert policy.capacity == 6  # it goes on meanwhile
    assert policy.ready(3, 11) == [Stop(1)]
    assert policy.capacity == 6
    assert policy.is_leaving(1)
    assert policy.next_time() == 21
    assert policy.died(1, 12) == []
    assert policy.next_time() is None


def test_only_who_is_ready_can_be_relieved() -> None:
    policy = policy_of(ready=False)
    assert policy.relieve(1, 1) == []
    assert policy.relieve(77, 1) == []


def test_heir_that_cannot_boot_is_tried_again_later_and_the_old_one_goes_on() -> None:
    policy = policy_of()
    policy.relieve(1, 10)
    notice, retry = policy.died(3, 11, could_not_boot=True)
    assert (notice, retry) == (Notice("error", "executor 3 cannot take over; executor 1 goes on"), Retry(2.0))
    assert policy.capacity == 6
    assert policy.is_settled
    assert policy.next_time() == 13
    assert policy.tick(12.9) == []
    assert policy.tick(13) == [Start(4, SPEC)]
    assert policy.ready(4, 14) == [Stop(1)]


def test_heir_that_takes_too_long_is_killed() -> None:
    policy = policy_of()
    policy.relieve(1, 10)
    assert numbers(Kill, policy.tick(10 + BOOT_TIME_S)) == [3]
    policy.died(3, 71)
    assert policy.state_of(1) == "relieved"


def test_heir_of_one_that_dies_takes_over() -> None:
    policy = policy_of()
    policy.relieve(1, 10)
    assert policy.died(1, 10.5) == []  # nobody else is started for it
    assert policy.capacity == 3
    assert policy.ready(3, 11) == []
    assert policy.capacity == 6


def test_both_go_with_their_crew() -> None:
    policy = policy_of()
    policy.relieve(1, 10)
    assert sorted(numbers(Stop, policy.stop(11))) == [1, 2, 3]
    assert not policy.is_empty


def test_finish_kills_who_leaves_anyway() -> None:
    policy = policy_of()
    assert policy.finish(1) == []
    policy.relieve(1, 10)
    policy.ready(3, 11)
    assert policy.finish(1) == [Kill(1)]
    assert policy.finish(1) == []
    assert policy.next_time() is None


def test_a_reload_while_somebody_is_relieved() -> None:
    policy = policy_of()
    policy.relieve(1, 10)
    policy.reload(NEW, 10)
    policy.ready(4, 11)
    assert sorted(numbers(Stop, policy.ready(5, 12))) == [1, 2, 3]
    assert policy.capacity == 10


# Limits


def test_over_a_limit_is_relieved_few_at_a_time() -> None:
    spec = replace(SPEC, processes=8, memory_limit=100)
    policy = policy_of(spec)
    usages = {number: Usage(0, 100) for number in range(1, 9)}
    actions = policy.observe(usages, 10)
    assert numbers(Start, actions) == [9, 10]
    assert "executor 1 is replaced: memory: 0.0 MiB, limit 0.0 MiB" in [each.text for each in of(Notice, actions)]
    assert policy.observe(usages, 11) == []
    policy.ready(9, 12)
    assert numbers(Start, policy.observe(usages, 12)) == [11]


def test_nobody_is_kept_from_being_relieved_by_those_who_were() -> None:
    policy = policy_of(replace(SPEC, memory_limit=100))
    usages = {number: Usage(0, 100) for number in range(1, 10)}
    assert numbers(Start, policy.observe(usages, 10)) == [3]
    policy.ready(3, 11)
    policy.observe(usages, 12)
    assert policy.state_of(2) == "relieved"
    assert policy.state_of(3) == "ready"


def test_under_the_limits_nothing_happens() -> None:
    policy = policy_of(replace(SPEC, memory_limit=100, requests_limit=100, lifetime_ms=1000_000))
    assert policy.observe({1: Usage(50, 99), 2: Usage(50, 99)}, 10) == []


def test_over_the_hard_limit_dies() -> None:
    policy = policy_of(replace(SPEC, memory_max=100))
    actions = policy.observe({1: Usage(0, 101)}, 10)
    assert of(Notice, actions)[0].level == "error"
    assert numbers(Kill, actions) == [1]
    assert policy.observe({1: Usage(0, 101)}, 11) == []
    assert policy.died(1, 12) == [Retry(0.1)]


def test_nobody_is_relieved_during_a_reload() -> None:
    policy = policy_of(replace(SPEC, memory_limit=100))
    policy.reload(NEW, 10)
    assert policy.observe({1: Usage(0, 101)}, 10) == []


# The number of processes

SCALED = replace(SPEC, processes=1, processes_max=4, threads=1, spare_time_ms=60_000)
WAITING = Load(1, 1.0)


def test_the_number_follows_the_load() -> None:
    policy = policy_of(SCALED)
    assert numbers(Start, policy.scale(WAITING, 10)) == [2]
    assert policy.size == 2
    assert policy.is_settled
    assert policy.scale(WAITING, 20) == []  # it boots
    policy.ready(2, 21)
    assert numbers(Start, policy.scale(WAITING, 21)) == [3]
    policy.ready(3, 22)
    assert policy.capacity == 3
    assert numbers(Stop, policy.scale(Load(0, 0.0), 82)) == [3]  # the youngest
    assert policy.capacity == 2
    assert policy.died(3, 83) == []
    assert policy.size == 2


def test_an_empty_seat_is_given_up_first() -> None:
    policy = policy_of(SCALED)
    policy.scale(WAITING, 10)
    policy.died(2, 11, could_not_boot=True)
    assert numbers(Stop, policy.scale(Load(0, 0.0), 71)) == []
    assert (policy.size, policy.capacity) == (1, 1)
    assert policy.next_time() is None


def test_a_fixed_number_stays() -> None:
    policy = policy_of()
    assert policy.scale(WAITING, 10) == []
    assert policy.scale(Load(0, 0.0), 1000) == []


def test_not_during_a_reload_nor_after_the_end() -> None:
    policy = policy_of(SCALED)
    policy.reload(SCALED, 10)
    assert policy.scale(WAITING, 10) == []
    policy.stop(11)
    assert policy.scale(WAITING, 11) == []


def test_a_reload_begins_with_as_many_as_there_are() -> None:
    policy = policy_of(SCALED)
    policy.scale(WAITING, 10)
    policy.ready(2, 11)
    assert len(of(Start, policy.reload(SCALED, 12))) == 2
    assert len(of(Start, policy.reload(replace(SCALED, processes=4), 13))) == 4


def test_what_an_executor_says_of_its_capacity_holds() -> None:
    policy = policy_of(ready=False)
    policy.ready(1, 1, capacity=100)
    policy.ready(2, 1)
    assert policy.capacity == 103


def test_bodies_stream_when_every_executor_takes_them() -> None:
    policy = policy_of(ready=False)
    assert policy.abilities == Abilities(0, 0, stream_bodies=False, upgrades=False)
    policy.ready(1, 1, stream_bodies=True)
    assert policy.abilities == Abilities(3, 3, stream_bodies=True, upgrades=False)
    policy.ready(2, 1, stream_bodies=False)
    assert policy.abilities == Abilities(6, 6, stream_bodies=False, upgrades=False)
    policy.died(2, 2)
    assert policy.abilities.stream_bodies


def test_upgrades_come_when_every_executor_takes_them() -> None:
    policy = policy_of(ready=False)
    policy.ready(1, 1, upgrades=True)
    assert policy.abilities.upgrades
    policy.ready(2, 1)
    assert not policy.abilities.upgrades


def test_threads_beside_an_event_loop_are_the_places_that_count_when_the_pool_shrinks() -> None:
    policy = policy_of(SCALED, ready=False)
    policy.ready(1, 1, capacity=103, at_once=4)
    policy.scale(WAITING, 10)
    policy.ready(2, 11, capacity=103, at_once=4)
    assert policy.capacity == 206
    assert policy.scale(Load(running=4, oldest_wait_s=0), 1000) == []
    assert len(of(Stop, policy.scale(Load(running=3, oldest_wait_s=0), 2000))) == 1


# Self-checks


def test_a_new_version_is_checked_until_one_of_it_is_ready() -> None:
    spec = replace(SPEC, check={"PATH_INFO": "/"})
    policy = PoolPolicy(spec, 0)
    assert policy.tick(0) == [Start(1, spec, is_checked=True), Start(2, spec, is_checked=True)]
    policy.died(1, 1, could_not_boot=True)
    assert policy.tick(3) == [Start(3, spec, is_checked=True)]
    policy.ready(2, 4)
    policy.died(3, 5, could_not_boot=True)
    assert policy.tick(20) == [Start(4, spec)]
    policy.ready(4, 21)
    assert policy.relieve(2, 22) == [Start(5, spec)]
    policy.ready(5, 23)
    starts = of(Start, policy.reload(spec, 24))
    assert [(start.version, start.is_checked) for start in starts] == [(2, True), (2, True)]
