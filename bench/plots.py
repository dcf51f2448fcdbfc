"""The paper's Figures 2 and 3 with the servers of today: requests/s against concurrent connections, as SVG."""

from __future__ import annotations

from pathlib import Path

from load import BenchError
from report import Result, Run, is_sweep, series
from servers import OURS


def draw(run: Run, folder: Path) -> list[Path]:
    """One file for each sweep of the run, named by its scenario; which ones."""
    sweeps = [result for result in run.results if result.samples and is_sweep(result)]
    if not sweeps:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw(result, folder / f"{result.name}.svg") for result in sweeps]


def _draw(result: Result, path: Path) -> Path:
    try:
        import matplotlib
    except ImportError:
        raise BenchError("--plots needs matplotlib: pip install matplotlib") from None
    matplotlib.use("svg")
    # The same figures give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    panels = [("requests_per_s", "requests/s"), ("cpu_us", "server CPU, µs/request")]
    for axis, (key, label) in zip(axes, panels, strict=True):
        for server, points in series(result, key).items():
            counts, values = zip(*points, strict=True)
            axis.plot(counts, values, marker="o", markersize=3, linewidth=2.2 if server == OURS else 1.1, label=server)
        axis.set(xscale="log", xlabel="concurrent connections", ylabel=label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.suptitle(result.title)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
