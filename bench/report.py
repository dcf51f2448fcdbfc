"""What came out: medians with their spread, ratios, tables, JSON, and bench/README.md."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from load import BenchError
from servers import Peer

README = Path(__file__).resolve().parent / "README.md"
PERFORMANCE = README.parent.parent / "docs" / "performance.md"
ABLATION = "ablation"  #: with this in front, a scenario's table belongs to PERFORMANCE
BEGIN = "<!-- results: written by `bench/run.py --write` -->"
END = "<!-- end of results -->"

Sample = dict[str, float]
Samples = dict[str, list[Sample]]

#: Columns of a table of requests: heading, key, format.
COLUMNS = [
    ("requests/s", "requests_per_s", "{:,.0f}"),
    ("p50 ms", "p50_ms", "{:.2f}"),
    ("p99 ms", "p99_ms", "{:.2f}"),
    ("PSS MiB", "resident_mib", "{:.1f}"),
]


@dataclass
class Result:
    """All samples of one scenario, by the label of the case."""

    name: str
    title: str
    measures: str
    base: str
    samples: Samples
    classes: list[str] = field(default_factory=list)

    def median(self, label: str, key: str) -> float:
        """The middle of a case's rounds."""
        return statistics.median(sample[key] for sample in self.samples[label])

    def spread(self, label: str, key: str) -> float:
        """How far apart the rounds are: half the distance of the extremes, in parts of the median."""
        values = [sample[key] for sample in self.samples[label]]
        middle = statistics.median(values)
        return (max(values) - min(values)) / 2 / middle if middle else 0.0


@dataclass
class Run:
    """Everything of one run."""

    machine: dict[str, str]
    versions: dict[str, str]
    rounds: int
    seconds: float
    results: list[Result]

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Run:
        """From a file."""
        return cls(**{**data, "results": [Result(**result) for result in data["results"]]})


def machine() -> dict[str, str]:
    """Where and when it was measured."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu[1].strip() if cpu else platform.machine(),
        "cpus": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load average before": f"{os.getloadavg()[0]:.1f}",
    }


def versions(peers: dict[str, Peer]) -> dict[str, str]:
    """What was measured."""
    return {name: text for name, peer in peers.items() if (text := peer.version_text())}


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _cell(value: float, form: str) -> str:
    """A figure; nothing for 0, which is what wrk says when it has no figure (the slowest of pipelined responses)."""
    return form.format(value) if value else "-"


def _requests_table(result: Result) -> str:
    base = result.median(result.base, "cpu_us") if result.base in result.samples else 0.0
    head = ["server", "CPU µs/request", "± %", "of that user", "CPU against " + result.base]
    rows = []
    for label in result.samples:
        cpu = result.median(label, "cpu_us")
        row = [
            label,
            f"{cpu:.2f}",
            f"{result.spread(label, 'cpu_us') * 100:.0f}",
            f"{result.median(label, 'cpu_user_us'):.2f}",
        ]
        row.append(f"{cpu / base:.2f}" if base else "")
        row += [_cell(result.median(label, key), form) for _heading, key, form in COLUMNS]
        rows.append(row)
    return _markdown([*head, *(heading for heading, _key, _form in COLUMNS)], rows)


def _class_table(result: Result) -> str:
    """Times by class, for requests that differ very much."""
    head = ["server", "requests/s", "CPU µs/request"]
    head += [f"{name}: {what} ms" for name in result.classes for what in ("mean", "p50", "p99")]
    rows = []
    for label in result.samples:
        row = [label, f"{result.median(label, 'requests_per_s'):,.0f}", f"{result.median(label, 'cpu_us'):.2f}"]
        for number in range(len(result.classes)):
            keys = [f"class{number}_{what}_ms" for what in ("mean", "p50", "p99")]
            row += [f"{result.median(label, key):.2f}" if key in result.samples[label][0] else "-" for key in keys]
        rows.append(row)
    return _markdown(head, rows)


def _idle_table(result: Result) -> str:
    rows = [
        [label, f"{result.median(label, 'connections'):,.0f}", f"{result.median(label, 'bytes_per_connection'):,.0f}"]
        for label in result.samples
    ]
    return _markdown(["server", "connections", "bytes/connection"], rows)


def series(result: Result, key: str) -> dict[str, list[tuple[int, float]]]:
    """A sweep's samples as one line of (connections, median) for each server."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for label in result.samples:
        server, _, connections = label.rpartition(" @")
        lines.setdefault(server, []).append((int(connections), result.median(label, key)))
    return lines


def _sweep_table(result: Result) -> str:
    parts = []
    for heading, key, form in (("requests/s", "requests_per_s", "{:,.0f}"), ("CPU µs/request", "cpu_us", "{:.2f}")):
        lines = series(result, key)
        counts = [connections for connections, _value in next(iter(lines.values()))]
        rows = [[server, *(form.format(value) for _connections, value in line)] for server, line in lines.items()]
        parts.append(_markdown([f"{heading} at connections:", *(str(count) for count in counts)], rows))
    return "\n\n".join(parts)


def sweep_rounds(rounds: int) -> int:
    """How often each point of a sweep is measured."""
    return (rounds + 1) // 2


def is_sweep(result: Result) -> bool:
    """Whether the samples are by number of connections."""
    return all(" @" in label for label in result.samples)


def table(result: Result) -> str:
    """The scenario as Markdown."""
    if not result.samples:
        body = "(none of its servers is installed)"
    elif result.measures == "idle":
        body = _idle_table(result)
    elif result.classes:
        body = _class_table(result)
    elif is_sweep(result):
        body = _sweep_table(result)
    else:
        body = _requests_table(result)
    return f"### {result.title} (`{result.name}`)\n\n{body}\n"


def _figure(result: Result) -> str:
    """The drawing of a sweep, when there is one (`--plots bench/figures`)."""
    path = README.parent / "figures" / f"{result.name}.svg"
    return f"\n![{result.title}](figures/{path.name})\n" if path.exists() else ""


def write(run: Run) -> None:
    """Puts the tables between their marks: those of the ablation into docs/performance.md, the rest into
    bench/README.md. Tables of scenarios that did not run stay as they are, and those of a run that did not measure
    everything say which run it was.
    """
    ablation = [result for result in run.results if result.name.startswith(ABLATION)]
    rest = [result for result in run.results if result not in ablation]
    for path, results in ((README, rest), (PERFORMANCE, ablation)):
        if results:
            _write_page(path, run, results)


def _write_page(path: Path, run: Run, results: list[Result]) -> None:
    text = path.read_text()
    before, begin, after_begin = text.partition(BEGIN)
    old, end, after = after_begin.partition(END)
    if not begin or not end:
        raise BenchError(f"{path}: expected the lines {BEGIN!r} and {END!r}")
    old_facts, *old_sections = re.split(r"^(?=### )", old, flags=re.MULTILINE)
    sections = {_name_of(section): section.rstrip() for section in old_sections}
    new = {result.name: table(result) + _figure(result) for result in results}
    where = ", ".join(f"{key}: {value}" for key, value in run.machine.items())
    what = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    rounds = f"Medians of {run.rounds} interleaved rounds of {run.seconds} s each"
    if any(map(is_sweep, results)):
        rounds += f"; of {sweep_rounds(run.rounds)} at each point of the sweeps"
    if sections.keys() <= new.keys():
        facts = f"{where}.\n\nVersions: {what}.\n\n{rounds}."
    else:
        facts = old_facts.strip()
        new = {name: _with_facts(section, f"{rounds}; {where}; {what}.") for name, section in new.items()}
    tables = "\n\n".join(section.rstrip() for section in (sections | new).values())
    path.write_text(f"{before}{BEGIN}\n\n{facts}\n\n{tables}\n\n{END}{after}")


def _name_of(section: str) -> str:
    """Of the scenario whose table it is: what stands in backticks at the end of the heading."""
    return section.partition("\n")[0].rpartition(" (`")[2].removesuffix("`)")


def _with_facts(section: str, facts: str) -> str:
    heading, _, rest = section.partition("\n\n")
    return f"{heading}\n\n{facts}\n\n{rest}"
