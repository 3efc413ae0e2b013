"""python -m benchmarks.stability [--seeds 100 200] [verdicts] [time] [spread]

verdicts  The fraction of draws with the right verdict of `stability`, for sets of which the answer is known: regimes of
          the Lorenz system (stable), the same under noise, compared one sample ahead (depends on steps_ahead), and
          white noise (unstable). The defaults of the verdict were chosen on seeds below 100.
time      CPU seconds of one thread for 10 systems in 24 cells.
spread    How often `spread` at p <= 0.05 tells apart groups of equal spread, without blocks and with blocks that differ
          in spread, and its power where one group is wider.

About six minutes of one thread.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.stats import binomtest
from torch import Tensor
from tqdm import tqdm

from benchmarks.peer import ROOT
from dsa_analysis import Comparison, Stability, record_regimes, spread, stability
from dsa_analysis.motifs import add_noise
from workbench.settings import load_settings

BLOCKS = ("verdicts", "time", "spread")
HOW = Comparison(n_delays=10, rank=4, steps_ahead=1, n_starts=2)
OVER = {"n_delays": [5, 10, 20], "rank": [3, 4], "steps_ahead": [1, 20]}
NOISE = 0.3  # of the standard deviation of a channel: 10 dB
N_TRIALS, N_TIMES, N_NULL = 12, 300, 1000


def regimes(seed: int, n_recordings: int = 2, noise: float = 0.0) -> dict[str, Tensor]:
    """Recordings of the four regimes of the Lorenz system."""
    known = load_settings(ROOT / "config.yaml").lorenz.regimes
    clean = record_regimes(known, n_recordings=n_recordings, n_trials=N_TRIALS, n_times=N_TIMES, seed=seed)
    generator = torch.Generator().manual_seed(10_000 + seed)
    return {name: add_noise(x, noise, generator=generator) for name, x in clean.items()} if noise else clean


def white(seed: int, n_systems: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{k}": torch.randn(N_TRIALS, N_TIMES, 3, generator=generator, dtype=torch.float64) for k in range(n_systems)
    }


class Case(NamedTuple):
    draw: Callable[[int], dict[str, Tensor]]
    right: Callable[[Stability], bool]


CASES = {
    "regimes, clean: stable": Case(regimes, lambda found: found.stable),
    "regimes under noise: depends on steps_ahead": Case(
        lambda seed: regimes(seed, noise=NOISE), lambda found: found.depends_on == ("steps_ahead",)
    ),
    "white noise: unstable": Case(white, lambda found: found.verdict.startswith("unstable")),
}


def verdicts(seeds: range) -> None:
    for name, case in CASES.items():
        wrong = {}
        for seed in tqdm(seeds, desc=name, leave=False):
            found = stability(case.draw(seed), HOW, over=OVER, n_resamples=0, progress=False)
            if not case.right(found):
                wrong[seed] = found.verdict
        print(f"{name}: right in {len(seeds) - len(wrong)} of {len(seeds)}", flush=True)
        for seed, verdict in wrong.items():
            print(f"    {seed}: {verdict}", flush=True)


def timing(seeds: range) -> None:
    systems = dict(list(regimes(seeds[0], n_recordings=3, noise=NOISE).items())[:10])
    over = {"n_delays": [5, 10, 20], "rank": [3, 4, 5, 6], "steps_ahead": [1, 20]}
    groups = [name.split(" #")[0] for name in systems]
    started = time.process_time()
    found = stability(systems, HOW, over=over, groups=groups, progress=False)
    print(f"{len(systems)} systems x {len(found.cells)} cells: {time.process_time() - started:.1f} s", flush=True)


def clouds(seed: int, wider: float, n: int = 12, blocks: tuple[float, ...] = (1.0,)) -> tuple[np.ndarray, ...]:
    """Distances of points of two groups, which lie apart, in blocks of other widths; groups; blocks."""
    generator = np.random.default_rng(seed)
    groups, block = np.repeat([0, 1], n), np.arange(2 * n) % len(blocks)
    width = np.array([1.0, wider])[groups] * np.array(blocks)[block]
    points = 3.0 * groups[:, None] + width[:, None] * generator.standard_normal((2 * n, 4))
    return cdist(points, points), groups, block


def spreads(seeds: range) -> None:
    cases: dict[str, dict[str, Any]] = {
        "equal": {"wider": 1.0},
        "equal, 6 a group": {"wider": 1.0, "n": 6},
        "equal, in two blocks, one twice as wide": {"wider": 1.0, "blocks": (1.0, 2.0)},
        "1.5 times as wide": {"wider": 1.5},
        "1.5 times as wide, in two blocks, one twice as wide": {"wider": 1.5, "blocks": (1.0, 2.0)},
        "2 times as wide": {"wider": 2.0},
    }
    for name, settings in cases.items():
        hits = 0
        for seed in range(seeds[0] * N_NULL, (seeds[0] + 1) * N_NULL):
            distances, groups, block = clouds(seed, **settings)
            within = block if "blocks" in settings else None
            hits += spread(distances, groups, blocks=within, n_permutations=199).p <= 0.05
        low, high = binomtest(hits, N_NULL).proportion_ci(method="wilson")
        print(f"spread, {name}: p <= 0.05 in {hits / N_NULL:.3f} [{low:.3f}, {high:.3f}] of {N_NULL}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stability")
    parser.add_argument("blocks", nargs="*", metavar="block", help=f"some of: {', '.join(BLOCKS)} (default: all)")
    parser.add_argument("--seeds", nargs=2, type=int, default=(100, 200), metavar=("FIRST", "STOP"))
    arguments = parser.parse_args()
    if unknown := set(arguments.blocks) - set(BLOCKS):
        parser.error(f"unknown block {', '.join(sorted(unknown))}; there are {', '.join(BLOCKS)}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of operators cut at an unclear rank, which is part of the question
    work = {"verdicts": verdicts, "time": timing, "spread": spreads}
    for block in arguments.blocks or BLOCKS:
        work[block](range(*arguments.seeds))


if __name__ == "__main__":
    main()
