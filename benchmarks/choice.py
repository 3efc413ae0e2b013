"""python -m benchmarks.choice [--seeds 20 21 22] [--cases lorenz_15 memories ...]

How good is the cell that `choose_embedding` finds? For each case, delays, rank and horizon are chosen on one draw of
systems without their kinds. On a fresh draw, the AUROC of pairs of the same and of other kinds is computed in that cell
and in all cells of a coarse grid. A choice is near the best if its AUROC is at most 0.03 lower than that of the best
cell of the grid. About five minutes for each seed on one thread, most of it for the grids; `groups` trains 72 networks
for each of two seeds if they are not stored.
"""

import argparse
import itertools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from benchmarks.peer import ROOT
from dsa_analysis import Comparison, DataError, auroc, choose_embedding, compare, record_regimes, trajectories
from dsa_analysis.controls import record_attractors, record_memories
from dsa_analysis.motifs import add_noise
from workbench.settings import Settings, load_settings

DELAYS, RANKS, N_HORIZONS = (1, 3, 8), (3, 4, 6, 8, 12), 6
NEAR = 0.03  # of the AUROC of the best cell
FRESH = 400  # added to the seed of a draw for the fresh one


class Draw(NamedTuple):
    """Systems, the kind of each, and the choices of the comparison that are given."""

    systems: dict[str, Any]
    kinds: list[str]
    how: Comparison


def oscillators(
    settings: Settings, seed: int, system: str, name: str, values: tuple, dt: float, decibel: float
) -> Draw:
    """Three noisy recordings of a system at each of several values of a parameter."""
    strength = (1 + 10 ** (decibel / 10)) ** -0.5
    systems, generator = {}, torch.Generator().manual_seed(seed)
    for value, copy in itertools.product(values, range(3)):
        clean = trajectories(system, n_trials=30, n_times=200, dt=dt, generator=generator, **{name: value})
        systems[f"{value:g} #{copy}"] = add_noise(clean, strength, generator=generator)
    return Draw(systems, [label.split(" #")[0] for label in systems], Comparison(dt=dt))


def regimes(settings: Settings, seed: int) -> Draw:
    """The regimes of the Lorenz system under noise of 10 dB."""
    lorenz = settings.lorenz
    recordings = record_regimes(lorenz.regimes, n_recordings=3, n_trials=lorenz.n_trials, n_times=500, seed=seed)
    noisy = {name: add_noise(x, 0.3, seed=seed + k) for k, (name, x) in enumerate(recordings.items())}
    return Draw(noisy, [name.rsplit(" #", 1)[0] for name in noisy], Comparison(estimator="signal_weighted"))


def memories(settings: Settings, seed: int) -> Draw:
    """Memories behind random readouts."""
    recordings = settings.geometry_or_dynamics.memories.recordings
    control = record_memories(recordings, seed=seed)
    return Draw(control.systems, list(control.groups), Comparison(dt=recordings.dt, metric="frobenius"))


def attractors(settings: Settings, seed: int) -> Draw:
    """Attractors of different topology, deformed."""
    recordings = settings.geometry_or_dynamics.attractors.recordings
    control = record_attractors(recordings, seed=seed)
    return Draw(control.systems, list(control.groups), Comparison(dt=recordings.dt))


def groups(settings: Settings, seed: int) -> Draw:
    """Trained networks; the kinds are their groups. Of the fresh draw: the networks of the next seed."""
    from workbench.networks import GroupStudy

    study = GroupStudy(settings, seed=(seed + 1 if seed >= FRESH else seed) % FRESH, progress=False)
    trained = {group: study.trained.network(group) for group in study.ours.groups if group != "untrained"}
    found = study.systems(study.measures[study.how.shown[0]], trained)
    systems = {f"{group} {k}": pieces["whole"] for (group, k), pieces in found.items()}
    return Draw(systems, [str(group) for group, _ in found], Comparison(dt=study.ours.network.dt))


def _lorenz(decibel: float) -> Callable[[Settings, int], Draw]:
    return lambda settings, seed: oscillators(settings, seed, "lorenz", "rho", (28, 32, 36, 40, 45), 0.02, decibel)


def _van_der_pol(decibel: float) -> Callable[[Settings, int], Draw]:
    return lambda settings, seed: oscillators(settings, seed, "van_der_pol", "mu", (0.5, 1, 1.5, 2, 3), 0.1, decibel)


CASES: dict[str, Callable[[Settings, int], Draw]] = {
    "lorenz_15_dB": _lorenz(15),
    "lorenz_25_dB": _lorenz(25),
    "van_der_pol_15_dB": _van_der_pol(15),
    "van_der_pol_25_dB": _van_der_pol(25),
    "regimes_10_dB": regimes,
    "memories": memories,
    "attractors": attractors,
    "groups": groups,
}


def judge(case: str, settings: Settings, seed: int) -> dict[str, Any]:
    """The cell chosen on one draw, and its AUROC beside that of the best cell on another."""
    draw, fresh = CASES[case](settings, seed), CASES[case](settings, seed + FRESH)
    choice = choose_embedding(draw.systems, draw.how, n_delays="auto", rank="auto", horizon="auto", progress=False)
    third = min(len(trial) for x in fresh.systems.values() for trial in x) // 3
    steps = np.unique(np.geomspace(1, third, N_HORIZONS).round().astype(int)).tolist()
    scores = {}
    for n_delays, ahead in tqdm(list(itertools.product(DELAYS, steps)), desc=f"{case} {seed}", leave=False):
        for rank in RANKS:
            how = fresh.how.override(n_delays=n_delays, rank=rank, steps_ahead=ahead, n_starts=2, on_rank="error")
            try:
                scores[n_delays, rank, ahead] = auroc(compare(fresh.systems, how=how, progress=False), fresh.kinds)
            except DataError:  # this rank is not resolved in all systems
                continue
    chosen = auroc(compare(fresh.systems, how=choice.how.override(n_starts=2), progress=False), fresh.kinds)
    best = max(scores, key=lambda cell: scores[cell])
    return {
        "case": case, "seed": seed, "n_delays": choice.n_delays, "rank": choice.rank, "horizon": choice.horizon,
        "halves": choice.cell["auroc"], "AUROC": chosen, "best": scores[best], "best_cell": best,
        "one_sample": scores.get((choice.n_delays, choice.rank, 1), np.nan), "near": chosen >= scores[best] - NEAR,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choice", description=__doc__.splitlines()[2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[20, 21, 22], help="draws on which is chosen")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    settings, rows = load_settings(), []
    path = ROOT / "results" / "benchmarks" / "choice.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(action="ignore"):  # doubts about single cells, most of which are not chosen
        for seed, case in itertools.product(arguments.seeds, arguments.cases):
            rows.append(judge(case, settings, seed))
            pd.DataFrame(rows).to_csv(path, index=False)
            print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)
    table = pd.DataFrame(rows)
    print(f"\nnear the best (within {NEAR}): {int(table.near.sum())} of {len(table)}")
    print(table.groupby("case", sort=False)[["AUROC", "best", "one_sample"]].mean().round(3).to_string())


if __name__ == "__main__":
    main()
