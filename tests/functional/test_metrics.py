"""The metrics: their format, what docs/metrics.md says of them, and that they count what happened."""

from __future__ import annotations

import re
import signal
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import TOP, Server, wait_for

SCRIPT = """
import pathlib, os, time
FOLDER = pathlib.Path(__file__).parent.parent
def handle(request):
    if request.path_info == "/gate":
        (FOLDER / "running" / str(os.getpid())).touch()
        while not (FOLDER / "open").exists():
            time.sleep(0.005)
    if request.path_info == "/die":
        os.kill(os.getpid(), 9)
    return "x" * 100
"""

CONFIG = """
threads: 2
log: {access: "off"}
health: {metrics: /metrics}
pools:
  handlers: {scripts: handlers, processes: 1, threads: 2, quarantine: 10m, limits: {queue: 3, queue_time: 1h}}
sites:
  - name: shop
    root: www
    rules:
      - {match: {path: /app/*}, handler: {python: handlers/app.py}}
      - {match: {path: /old/*, method: GET}, handler: {redirect: {to: /new}}}
      - {match: {extension: [txt, md]}, handler: {file: www}}
      - {match: {path: '/"\\'}, handler: {respond: {body: odd}}}
"""

LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?\d+(?:\.\d+)?)")


@dataclass
class Family:
    """What the text says of one metric."""

    type: str
    help: str
    samples: dict[tuple[str, str], float] = field(default_factory=dict)  #: by name and labels


def read(server: Server) -> dict[str, Family]:
    """The families, parsed to the letter of the exposition format 0.0.4."""
    response = server.get("/metrics")
    assert response.status == 200
    assert response.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert response.header("cache-control") == "no-store"
    assert response.text.endswith("\n")
    families: dict[str, Family] = {}
    name = help_text = ""
    for line in response.text.splitlines():
        if line.startswith("# HELP "):
            name, help_text = line.removeprefix("# HELP ").split(" ", 1)
        elif line.startswith("# TYPE "):
            assert line.split(" ")[2] == name and name not in families
            families[name] = Family(line.split(" ")[3], help_text)
        else:
            found = SAMPLE.fullmatch(line)
            assert found is not None, line
            family = families[name]
            suffix = found[1].removeprefix(name)
            assert suffix == "" or (family.type == "histogram" and suffix in ("_bucket", "_sum", "_count")), line
            key = (found[1], found[2] or "")
            assert key not in family.samples, line
            family.samples[key] = float(found[3])
    return families


def value(families: dict[str, Family], name: str, *labels: str) -> float:
    """The sum of the samples that have all these labels."""
    family = families[name.removesuffix("_count").removesuffix("_sum") if name not in families else name]
    found = [sample for (key, text), sample in family.samples.items() if key == name and all(x in text for x in labels)]
    assert found, (name, labels)
    return sum(found)


def answered(families: dict[str, Family]) -> float:
    """Requests that are over, without those for the metrics themselves."""
    samples = families["cherokee_requests_total"].samples.items()
    return sum(count for (_, labels), count in samples if 'handler="metrics"' not in labels)


def read_after(server: Server, before: dict[str, Family], count: int) -> dict[str, Family]:
    """The families when so many more requests have been counted; a client has its answer a moment before that."""
    wait_for(lambda: answered(read(server)) - answered(before) >= count, f"{count} requests are counted")
    return read(server)


@pytest.fixture(scope="module")
def server(serve_module: Any) -> Server:
    found: Server = serve_module(
        {"handlers/app.py": SCRIPT, "www/index.html": "hello", "www/a.txt": "text", "running/.keep": ""}, config=CONFIG
    )
    return found


def documented() -> dict[str, tuple[str, str]]:
    """Name -> type and sentence of docs/metrics.md."""
    text = (TOP / "docs" / "metrics.md").read_text()
    found = re.findall(r"^\| `(cherokee_\w+)` \| (\w+) \| (.*) \|$", text, re.MULTILINE)
    return {name: (kind, said) for name, kind, said in found}


def test_requests_are_counted_by_route(server: Server) -> None:
    before = read(server)
    for _ in range(5):
        assert server.get("/").status == 200
    assert server.get("/a.txt").status == 200
    assert server.get("/none.txt").status == 404
    assert server.get("/none").status == 404
    assert server.get("/old/x").status == 302
    assert server.get("/%22%5C").status == 200
    assert server.post("/app/x", b"12345").status == 200
    assert server.exchange("nonsense\r\n\r\n").status == 400
    after = read_after(server, before, 12)

    def rise(route: str, handler: str, code: str) -> float:
        labels = (f'route="{route}"', f'handler="{handler}"', f'code="{code}"')
        counts = []
        for families in (after, before):
            samples = families["cherokee_requests_total"].samples.items()
            counts.append(sum(count for (_, text), count in samples if all(each in text for each in labels)))
        return counts[0] - counts[1]

    assert rise("(none)", "file", "2xx") == 5
    assert rise("(none)", "file", "4xx") == 1
    assert rise(".txt,.md", "file", "2xx") == 1
    assert rise(".txt,.md", "file", "4xx") == 1
    assert rise("/old/* GET", "redirect", "3xx") == 1
    assert rise("/app/*", "handlers", "2xx") == 1
    assert rise("(none)", "(none)", "4xx") == 1
    assert rise('/\\"\\\\', "respond", "2xx") == 1
    for name in ("cherokee_sent_bytes_total", "cherokee_received_bytes_total"):
        assert value(after, name) > value(before, name)
    accepted = "cherokee_connections_accepted_total"
    assert value(after, accepted) - value(before, accepted) > 12
    app = ('route="/app/*"',)
    for name in ("cherokee_request_run_seconds_total", "cherokee_request_cpu_seconds_total"):
        assert value(after, name, *app) > value(before, name, *app)
    assert value(after, "cherokee_request_duration_seconds_sum", *app) >= value(
        after, "cherokee_request_run_seconds_total", *app
    )
    assert value(after, "cherokee_cache_hits_total") > value(before, "cherokee_cache_hits_total")


def test_histogram_is_one(server: Server) -> None:
    family = read(server)["cherokee_request_duration_seconds"]
    buckets: dict[str, list[tuple[float, float]]] = {}
    for (name, labels), count in family.samples.items():
        if name.endswith("_bucket"):
            rest, _, bound = labels.rpartition(",le=")
            buckets.setdefault(rest, []).append((float(bound.strip('"')), count))
    assert buckets
    for labels, found in buckets.items():
        assert found == sorted(found), labels
        assert [count for _, count in found] == sorted(count for _, count in found), labels
        assert found[-1] == (float("inf"), family.samples["cherokee_request_duration_seconds_count", labels])


def test_pool_is_busy(server: Server) -> None:
    """Two run, three wait, one is refused; the metrics answer all the same."""
    pool = 'pool="handlers"'
    before = value(read(server), "cherokee_pool_refused_total", pool, 'reason="queue"')
    threads = [threading.Thread(target=server.get, args=("/app/gate",)) for _ in range(10)]
    for thread in threads:
        thread.start()
    wait_for(lambda: value(read(server), "cherokee_pool_running", pool) == 2, "two run")
    refused = ("cherokee_pool_refused_total", pool, 'reason="queue"')
    wait_for(lambda: value(read(server), *refused) > before, "one is refused")
    families = read(server)
    assert value(families, "cherokee_pool_queue_length", pool) > 0
    assert value(families, "cherokee_requests_active") > 2
    (server.folder / "open").touch()
    for thread in threads:
        thread.join()
    wait_for(lambda: value(read(server), "cherokee_request_queue_seconds_total", 'route="/app/*"') > 0, "counted")
    wait_for(lambda: value(read(server), "cherokee_pool_running", pool) == 0, "nothing runs")
    wait_for(lambda: value(read(server), "cherokee_pool_queue_length", pool) == 0, "nothing waits")


def test_deaths(server: Server) -> None:
    pool = 'pool="handlers"'
    before = read(server)
    assert server.get("/app/die").status == 503
    assert server.get("/app/die").status == 503
    assert server.post("/app/die", b"").status == 502
    server.wait_for_log("executor was killed by SIGKILL", 3)
    assert server.get("/app/x").status == 200
    after = read_after(server, before, 4)

    def rise(name: str, *labels: str) -> float:
        return value(after, name, pool, *labels) - value(before, name, pool, *labels)

    assert rise("cherokee_pool_deaths_total") == 3
    assert rise("cherokee_pool_retried_total") == 1
    assert rise("cherokee_pool_quarantined_total") == 1
    assert rise("cherokee_pool_refused_total", 'reason="quarantine"') == 1
    assert rise("cherokee_pool_lost_total") == 1
    assert rise("cherokee_pool_dispatched_total") == 4


def test_a_reload_keeps_the_numbers(server: Server) -> None:
    before = read(server)
    config = server.folder / "config.yaml"
    config.write_text(config.read_text().replace("path: /old/*", "path: /older/*"))
    server.kill(signal.SIGHUP)
    wait_for(lambda: server.get("/older/x").status == 302, "the new configuration holds")
    older = ("cherokee_requests_total", 'route="/older/* GET"')
    wait_for(lambda: value(read(server), *older) == 1, "the new route is counted")
    after = read(server)
    for name in ("cherokee_connections_accepted_total", "cherokee_sent_bytes_total"):
        assert value(after, name) > value(before, name)
    assert value(after, "cherokee_requests_total", 'route="/old/* GET"') >= value(
        before, "cherokee_requests_total", 'route="/old/* GET"'
    )
    # Executors that a reload has told to go have not died.
    assert value(after, "cherokee_pool_deaths_total") == value(before, "cherokee_pool_deaths_total")


def test_every_metric_is_documented_and_no_other(server: Server) -> None:
    # The memory of routes is the last to be known: a worker looks when it is idle, some seconds apart.
    wait_for(lambda: server.get("/app/x") and "cherokee_route_memory_growth_bytes" in read(server), "all are there")
    families = read(server)
    assert {name: (each.type, each.help) for name, each in families.items()} == documented()
    for name, family in families.items():
        assert (family.type == "counter") == name.endswith("_total"), name
        assert family.samples, name


def test_memory_of_workers_and_routes(server: Server) -> None:
    families = read(server)
    assert value(families, "cherokee_worker_memory_bytes", 'pool="handlers"', 'worker="0"') > 1_000_000
    routes = families["cherokee_route_memory_growth_bytes"].samples
    assert {re.sub(r'route="[^"]*/', 'route="', labels) for _, labels in routes} == {
        f'pool="handlers",route="app.py",ran="{ran}"' for ran in ("alone", "together")
    }


def test_it_is_off_by_default(serve: Any) -> None:
    server = serve({"www/index.html": "x"}, config="sites: [{root: www}]\n")
    assert server.get("/metrics").status == 404
