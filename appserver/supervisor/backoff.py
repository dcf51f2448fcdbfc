"""How long to wait before a process that died is started again. Pure: times come in, delays go out."""

from __future__ import annotations

from dataclasses import dataclass

CRASH_DELAY_MIN_S = 0.1
CRASH_DELAY_MAX_S = 10.0
#: Who lived this long was well: the next delay is the shortest again.
GOOD_LIFE_S = 30.0
#: Who could not even boot (exit status 3) needs a person to repair it; trying is only for the case that somebody does.
BOOT_DELAY_MIN_S = 2.0
BOOT_DELAY_MAX_S = 60.0


@dataclass(slots=True)
class Backoff:
    """The memory of one place in which processes live, one after the other."""

    crashes: int = 0
    boot_failures: int = 0

    def after_crash(self, life_s: float) -> float:
        """The delay after a process that lived for `life_s`."""
        self.boot_failures = 0
        self.crashes = 1 if life_s >= GOOD_LIFE_S else self.crashes + 1
        return float(min(CRASH_DELAY_MAX_S, CRASH_DELAY_MIN_S * 2 ** min(self.crashes - 1, 30)))

    def after_boot_failure(self) -> float:
        """The delay after a process that never became ready and said so."""
        self.boot_failures += 1
        return float(min(BOOT_DELAY_MAX_S, BOOT_DELAY_MIN_S * 2 ** min(self.boot_failures - 1, 30)))

    def booted(self) -> None:
        """A process has become ready."""
        self.boot_failures = 0
