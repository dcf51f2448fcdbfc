"""By how much memory grows between two looks, and what ran meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fake_core import FakeCore, write_scripts

from appserver.workers.growth import LOOK_S, OTHERS, ROUTES_MAX, Growth, resident

Run = Callable[..., FakeCore]

LEAKS = """
kept = []

def handle(request):
    kept.append(b"x" * (8 << 20))
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


def test_a_worker_tells_which_route_leaks(run: Run, tmp_path: Path) -> None:
    leaks, does_not = write_scripts(tmp_path, {"leaks.py": LEAKS, "good.py": "def handle(request): return 'x'"})
    core = run()
    core.fetch(script=does_not)
    for _ in range(3):
        core.fetch(script=leaks)
    while (message := core.message()).get("type") != "memory":
        assert message, "the worker ended"
    assert message["resident"] > 24 << 20
    assert set(message["routes"]) == {str(leaks), str(does_not)}
    alone, shared = message["routes"][str(leaks)]
    assert alone == 0
    assert shared > 20 << 20


def test_an_application_is_one_route(run: Run) -> None:
    core = run("def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n")
    core.fetch()
    while (message := core.message()).get("type") != "memory":
        assert message, "the worker ended"
    assert list(message["routes"]) == ["site_app:application"]
