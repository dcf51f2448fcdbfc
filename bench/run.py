"""`make bench`: measures this server and its peers in one run, and prints, stores and draws what came out.

run.py                                       the default set, about ten minutes
run.py --scenarios static-1k,cgi --peers nginx,lighttpd --rounds 9 --seconds 3
run.py --json FILE --plots DIR --write       store the figures, draw them, put them into bench/README.md
run.py --from FILE --write                   the same from stored figures
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import plots
import report
from load import BenchError, Load, idle_connections, need_wrk, run_load
from measure import anonymous_bytes, cpu_time, resident_bytes
from network import enter_own_network
from scenarios import Case, Scenario, all_scenarios
from servers import Peer, Running, all_peers, prepare, serving
from setups import BUILT, NULL, OURS, Setup

SERVER_CPU = 0
LOAD_CPU = 1
SPARE_DESCRIPTORS = 1000
WANTED_DESCRIPTORS = 65536


def measure_requests(running: Running, load: Load, seconds: float, root: Path) -> report.Sample:
    """One round of one case: what the clients saw and what it cost the server."""
    before = cpu_time(running.pid)
    outcome = run_load(running.port, load, seconds, LOAD_CPU, root)
    used = cpu_time(running.pid) - before
    sample = {
        "requests_per_s": outcome.requests_per_s,
        "cpu_us": used.total_s / outcome.answered * 1e6,
        "cpu_user_us": used.user_s / outcome.answered * 1e6,
        "p50_ms": outcome.p50_s * 1e3,
        "p99_ms": outcome.p99_s * 1e3,
        "resident_mib": resident_bytes(running.pid) / 2**20,
    }
    for number, times in outcome.by_class.items():
        sample[f"class{number}_mean_ms"] = times.mean_s * 1e3
        sample[f"class{number}_p50_ms"] = times.p50_s * 1e3
        sample[f"class{number}_p99_ms"] = times.p99_s * 1e3
    return sample


def measure_idle(running: Running, load: Load) -> report.Sample:
    """User memory that each of many idle connections costs."""
    with idle_connections(running.port, load.path, 1):
        before = anonymous_bytes(running.pid)
    with idle_connections(running.port, load.path, load.connections):
        grown = anonymous_bytes(running.pid) - before
    return {"bytes_per_connection": grown / load.connections, "connections": float(load.connections)}


def at_connections(case: Case, connections: int) -> Case:
    """The case as one point of a sweep."""
    return replace(case, label=f"{case.label} @{connections}", load=replace(case.load, connections=connections))


class Runner:
    """Runs scenarios with the peers that there are."""

    def __init__(self, peers: dict[str, Peer], root: Path, rounds: int, seconds: float) -> None:
        self.peers = peers
        self.root = root
        self.rounds = rounds
        self.seconds = seconds

    def _start(self, stack: ExitStack, case: Case) -> Running:
        setup = Setup(
            root=self.root,
            access_log=case.access_log,
            loops=case.loops,
            kind=case.kind,
            keep_alive=case.load.keep_alive,
            body=case.body,
            threads=case.threads,
            config=case.config,
            pool=case.pool,
        )
        cpus = f"{SERVER_CPU},{LOAD_CPU}" if case.loops > 1 else str(SERVER_CPU)
        return stack.enter_context(serving(self.peers[case.peer], setup, case.load.path, cpus))

    def run(self, scenario: Scenario) -> report.Result:
        """All rounds of a scenario, interleaved (A B C A B C): what disturbs the machine for a while disturbs all."""
        cases = [case for case in scenario.cases if case.peer in self.peers]
        samples: report.Samples = {}
        if scenario.measures == "idle":
            self._run_alone(cases, samples)
        elif scenario.by_connections:
            for connections in scenario.by_connections:
                points = [at_connections(case, connections) for case in cases]
                self._run_interleaved(points, report.sweep_rounds(self.rounds), samples)
        else:
            self._run_interleaved(cases, self.rounds, samples)
        return report.Result(scenario.name, scenario.title, scenario.measures, scenario.base, samples, scenario.classes)

    def _run_interleaved(self, cases: list[Case], rounds: int, samples: report.Samples) -> None:
        with ExitStack() as stack:
            ready = [(case, running) for case in cases if (running := self._ready(stack, case))]
            for _ in range(rounds):
                for case, running in ready:
                    sample = measure_requests(running, case.load, self.seconds, self.root)
                    samples.setdefault(case.label, []).append(sample)

    def _ready(self, stack: ExitStack, case: Case) -> Running | None:
        """The server, started and warm. A peer that does not work is left out; this server must work."""
        try:
            running = self._start(stack, case)
            run_load(running.port, case.load, 3 if case.kind == "cgi" else 1, LOAD_CPU, self.root)
        except BenchError as error:
            if case.peer == OURS:
                raise
            print(f"left out: {case.label}: {error}", flush=True)
            return None
        return running

    def _run_alone(self, cases: list[Case], samples: report.Samples) -> None:
        """Memory is measured once, in a fresh server: it does not depend on what else the machine does."""
        for case in cases:
            with ExitStack() as stack:
                samples[case.label] = [measure_idle(self._start(stack, case), case.load)]


def raise_descriptor_limit() -> int:
    """As many descriptors as the system grants; servers inherit it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (WANTED_DESCRIPTORS, max(hard, WANTED_DESCRIPTORS)))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def within_descriptors(scenario: Scenario, limit: int) -> Scenario:
    """The scenario with no more connections than there are descriptors for."""
    most = limit - SPARE_DESCRIPTORS

    def bounded(case: Case) -> Case:
        return replace(case, load=replace(case.load, connections=min(case.load.connections, most)))

    counts = [count for count in scenario.by_connections if count <= most]
    return replace(scenario, cases=[bounded(case) for case in scenario.cases], by_connections=counts)


def usable_peers(wanted: list[str] | None, binaries: dict[str, str]) -> dict[str, Peer]:
    """The peers that are there; prints which are not. This server is always among them."""
    peers = all_peers(binaries)
    unknown = [name for name in wanted or [] if name not in peers and not any(p.startswith(name) for p in peers)]
    if unknown:
        raise BenchError(f"--peers: {', '.join(unknown)}: unknown; there are: {', '.join(peers)}")
    usable = {}
    for name, peer in peers.items():
        chosen = wanted is None or name in (OURS, NULL) or any(name.startswith(prefix) for prefix in wanted)
        if chosen and peer.missing:
            print(f"skipped: {name}: {peer.missing}", flush=True)
        elif chosen:
            usable[name] = peer
    return usable


def chosen(names: list[str], wanted: list[str]) -> list[str]:
    """Those of `names` that are wanted, by their names or by what stands before a `-` in them (`ablation`)."""
    found = [name for each in wanted for name in names if name == each or name.startswith(f"{each}-")]
    unknown = [each for each in wanted if not any(name == each or name.startswith(f"{each}-") for name in names)]
    if unknown:
        raise BenchError(f"--scenarios: {', '.join(unknown)}: unknown; there are: {', '.join(names)}")
    return list(dict.fromkeys(found))


def _names(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _binary(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if name not in ("cherokee", "lwan") or not equals:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected cherokee=PATH or lwan=PATH")
    return name, path


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--scenarios", type=_names, help=f"of: {', '.join(all_scenarios())}; all when left out")
    add("--peers", type=_names, help="names or their beginnings, such as nginx,h2o; all installed ones when left out")
    add("--binary", type=_binary, action="append", default=[], metavar="NAME=PATH", help="of cherokee or lwan")
    add("--rounds", type=int, default=5, help="of each case; a sweep has half as many at each of its points")
    add("--seconds", type=int, default=1, help="of each round of each case")
    add("--json", type=Path, metavar="FILE", help="store every figure")
    add("--from", type=Path, metavar="FILE", dest="stored", help="measure nothing: take the figures of FILE")
    add("--plots", type=Path, metavar="DIR", default=BUILT / "figures", help="draw the sweeps there, as SVG")
    add("--write", action="store_true", help="put the tables into bench/README.md")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds: expected a whole number of at least 1")
    return options


def measure(options: argparse.Namespace) -> report.Run:
    """Measures what the options ask for."""
    need_wrk()
    if (os.cpu_count() or 1) < 2:
        raise BenchError("two CPUs are needed: one for the server, one for the load")
    scenarios = all_scenarios()
    names = chosen(list(scenarios), options.scenarios) if options.scenarios else list(scenarios)
    enter_own_network()
    machine = report.machine()
    limit = raise_descriptor_limit()
    os.sched_setaffinity(0, {LOAD_CPU})
    with tempfile.TemporaryDirectory(prefix="bench-files-") as files:
        root = Path(files) / "root"
        prepare(root)
        Path(files).chmod(0o755)
        peers = usable_peers(options.peers, dict(options.binary))
        runner = Runner(peers, root, options.rounds, options.seconds)
        results = []
        for name in names:
            result = runner.run(within_descriptors(scenarios[name], limit))
            print(report.table(result), flush=True)
            results.append(result)
    return report.Run(machine, report.versions(peers), options.rounds, options.seconds, results)


def main() -> int:
    """The program."""
    options = arguments()
    try:
        run = report.Run.from_json(json.loads(options.stored.read_text())) if options.stored else measure(options)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(run.to_json(), indent=1) + "\n")
        for path in plots.draw(run, options.plots):
            print(f"drawn: {path}")
        if options.write:
            report.write(run)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
