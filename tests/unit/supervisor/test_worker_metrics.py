"""Workers' memory as samples: sums, order, bounds."""

from __future__ import annotations

import json

from appserver.supervisor.worker_metrics import ROUTES_MAX, TEXT_MAX, WORKERS_MAX, PoolMemory, text_of


def samples(*pools: PoolMemory) -> list[str]:
    return [line for line in text_of(pools).splitlines() if not line.startswith("#")]


def test_nothing_is_nothing() -> None:
    assert text_of([]) == ""
    assert text_of([PoolMemory("p", (), ())]) == ""


def test_workers_and_sums_of_routes() -> None:
    found = text_of([PoolMemory("p", (30, 20), ({"/a.py": [1, 2]}, {"/a.py": [10, 20], "/b.py": [-5, 0]}))])
    assert found.splitlines() == [
        "# HELP cherokee_worker_memory_bytes Resident memory of a worker.",
        "# TYPE cherokee_worker_memory_bytes gauge",
        'cherokee_worker_memory_bytes{pool="p",worker="0"} 30',
        'cherokee_worker_memory_bytes{pool="p",worker="1"} 20',
        "# HELP cherokee_route_memory_growth_bytes By how much the pool's workers have grown between idle moments"
        " while a route ran, alone or with others.",
        "# TYPE cherokee_route_memory_growth_bytes gauge",
        'cherokee_route_memory_growth_bytes{pool="p",route="/a.py",ran="alone"} 11',
        'cherokee_route_memory_growth_bytes{pool="p",route="/a.py",ran="together"} 22',
        'cherokee_route_memory_growth_bytes{pool="p",route="/b.py",ran="alone"} -5',
        'cherokee_route_memory_growth_bytes{pool="p",route="/b.py",ran="together"} 0',
    ]


def test_labels_are_escaped() -> None:
    found = samples(PoolMemory("p", (), ({'/a"\\\n\udcff.py': [1, 0]},)))
    assert found[0].startswith('cherokee_route_memory_growth_bytes{pool="p",route="/a\\"\\\\\\n?.py",')


def test_only_the_routes_with_the_most_growth_are_told_apart() -> None:
    growth = {f"/{number}.py": [number, 0] for number in range(ROUTES_MAX + 10)}
    found = samples(PoolMemory("p", (), (growth,)), PoolMemory("q", (), ({"/least.py": [-1, 0]},)))
    assert len(found) == 2 * (ROUTES_MAX + 2)
    assert f'cherokee_route_memory_growth_bytes{{pool="p",route="(others)",ran="alone"}} {sum(range(10))}' in found
    assert 'cherokee_route_memory_growth_bytes{pool="q",route="(others)",ran="alone"} -1' in found


def test_however_much_there_is_the_text_has_its_bound() -> None:
    growth = {f"/{number}{'ü' * 500}.py": [number, 0] for number in range(1000)}
    pools = [PoolMemory(f"p{number}", (1,) * 200, (growth,)) for number in range(20)]
    text = text_of(pools)
    assert len(json.dumps(text)) <= TEXT_MAX + 1000
    assert sum(line.startswith("cherokee_worker_memory_bytes{") for line in text.splitlines()) == WORKERS_MAX
