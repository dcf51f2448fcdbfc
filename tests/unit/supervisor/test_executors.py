"""Executors that cannot be started: what becomes of the pool."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from appserver.config.plan import PoolSpec
from appserver.supervisor.executors import Executors
from appserver.supervisor.incidents import Incidents
from appserver.supervisor.loop import Loop
from appserver.supervisor.segments import Links

SPEC = PoolSpec(
    name="cgi",
    kind="cgi",
    slots=8,
    queue_limit=8,
    queue_time_ms=1000,
    request_time_ms=1000,
    idle_time_ms=1000,
    stop_time_ms=1000,
    user="nobody-of-that-name",
)


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_a_user_that_has_gone_since_the_configuration_was_read(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    incidents = Incidents(loop)
    incidents.configure(None, "site.yaml")
    links = Links(SPEC.name, SPEC.slots, 1)
    pool = Executors(loop, links, SPEC, 1, None, lambda: None, lambda *_: None, incidents)
    pool.start()
    until = time.monotonic() + 60
    while not pool.boot_failure.reason:
        assert time.monotonic() < until
        loop.turn(0.01)
    assert pool.boot_failure.reason == "user: there is no user 'nobody-of-that-name' on this system"
    assert pool.pids == set()
    loop.turn()  # the policy hears of it, and tries again later
    pool.stop()
    links.close()
