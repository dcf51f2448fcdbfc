"""A heavy-tailed set of files, as web servers have it: many small files, a few large ones that are most of the bytes.

Sizes and popularity follow SURGE (Barford and Crovella, SIGMETRICS 1998): a lognormal body, a Pareto tail, Zipf's law
for how often each file is asked for. The tail is cut at LARGEST, so that one file does not decide a run of seconds.
"""

from __future__ import annotations

import random
from pathlib import Path

from load import Wanted, write_list

SEED = 1998
FILES = 2000
TAIL_PART = 0.07
BODY_MU, BODY_SIGMA = 9.357, 1.318  #: of the logarithm of the size in bytes
TAIL_SMALLEST, TAIL_ALPHA = 133_000, 1.1
LARGEST = 32 * 2**20
ZIPF = 1.0
CLASS_LIMITS = [10 * 2**10, 100 * 2**10, 2**20]  #: bytes
CLASS_NAMES = ["under 10 KiB", "to 100 KiB", "to 1 MiB", "larger"]


def make_mix(root: Path) -> None:
    """Makes the files below `root`/mix, and the list of them by which `many` asks."""
    folder = root / "mix"
    folder.mkdir()
    dice = random.Random(SEED)
    wanted = []
    for rank in range(1, FILES + 1):
        size = _size(dice)
        with (folder / str(rank)).open("wb") as file:
            file.truncate(size)
        wanted.append(Wanted(sum(size >= limit for limit in CLASS_LIMITS), rank**-ZIPF, size, f"/mix/{rank}"))
    write_list(root, "mix", wanted)


def _size(dice: random.Random) -> int:
    if dice.random() < TAIL_PART:
        size = TAIL_SMALLEST * dice.paretovariate(TAIL_ALPHA)
    else:
        size = dice.lognormvariate(BODY_MU, BODY_SIGMA)
    return max(64, min(LARGEST, int(size)))
