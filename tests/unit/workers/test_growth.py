"""By how much memory grows between two looks, and what ran meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from fake_core import FakeCore

from appserver.workers.growth import LOOK_S, OTHERS, ROUTES_MAX, Growth, resident

Run = Callable[..., FakeCore]

APP = """
kept = []

def application(environ, start_response):
    if environ["SCRIPT_NAME"] == "/leaks":
        kept.append(b"x" * (8 << 20))
    start_response("200 OK", [])
    return [b""]
"""


def growth_over(*sizes: int) -> Growth:
    left = list(sizes)
    return Growth(lambda: left.pop(0))


def test_alone_and_together() -> None:
    growth = growth_over(100, 130, 150, 140)
    growth.look(set(), 0)
    assert growth.look({"/a"}, 5) == 130
    growth.look({"/a", "/b"}, 10)
    growth.look({"/b"}, 15)
    assert growth.routes == {"/a": [30, 20], "/b": [-10, 20]}
    assert growth.due == 15 + LOOK_S


def test_the_first_look_says_nothing_of_routes() -> None:
    growth = growth_over(100, 130)
    growth.look({"/a"}, 0)
    assert growth.routes == {}


def test_routes_are_bounded() -> None:
    growth = growth_over(*range(10, 1000, 10))
    growth.look(set(), 0)
    for number in range(ROUTES_MAX + 5):
        growth.look({f"/{number}"}, 0)
    assert len(growth.routes) == ROUTES_MAX + 1
    assert growth.routes[OTHERS] == [50, 0]


def test_where_the_system_does_not_tell() -> None:
    growth = growth_over(0)
    assert growth.look({"/a"}, 0) == 0
    assert resident() > 1 << 20


def test_a_worker_tells_which_route_leaks(run: Run) -> None:
    core = run(APP)
    for _ in range(3):
        core.fetch(environment={"SCRIPT_NAME": "/leaks"})
    while (message := core.message()).get("type") != "memory":
        assert message, "the worker ended"
    assert message["resident"] > 24 << 20
    alone, shared = message["routes"]["/leaks"]
    assert alone > 20 << 20
    assert shared == 0
