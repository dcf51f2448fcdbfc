from __future__ import annotations

from appserver.supervisor.backoff import (
    BOOT_DELAY_MAX_S,
    BOOT_DELAY_MIN_S,
    CRASH_DELAY_MAX_S,
    CRASH_DELAY_MIN_S,
    GOOD_LIFE_S,
    Backoff,
)


def test_crashes_double_up_to_the_limit() -> None:
    backoff = Backoff()
    delays = [backoff.after_crash(0.1) for _ in range(10)]
    assert delays[:4] == [CRASH_DELAY_MIN_S * factor for factor in (1, 2, 4, 8)]
    assert delays[-1] == CRASH_DELAY_MAX_S
    assert delays == sorted(delays)


def test_a_thousand_crashes_do_not_overflow() -> None:
    backoff = Backoff()
    assert [backoff.after_crash(0) for _ in range(2000)][-1] == CRASH_DELAY_MAX_S
    assert [backoff.after_boot_failure() for _ in range(2000)][-1] == BOOT_DELAY_MAX_S


def test_a_good_life_forgives() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.after_crash(0)
    assert backoff.after_crash(GOOD_LIFE_S) == CRASH_DELAY_MIN_S
    assert backoff.after_crash(GOOD_LIFE_S - 0.01) == 2 * CRASH_DELAY_MIN_S


def test_boot_failures_have_a_scale_of_their_own() -> None:
    backoff = Backoff()
    backoff.after_crash(0)
    assert [backoff.after_boot_failure() for _ in range(3)] == [BOOT_DELAY_MIN_S * factor for factor in (1, 2, 4)]
    backoff.booted()
    assert backoff.after_boot_failure() == BOOT_DELAY_MIN_S


def test_booting_does_not_forgive_crashes() -> None:
    """Who boots and then dies at once, again and again, must not be started without end."""
    backoff = Backoff()
    for _ in range(4):
        backoff.booted()
        delay = backoff.after_crash(0.01)
    assert delay == 8 * CRASH_DELAY_MIN_S
