"""What a distance is worth: the noise floor under it, and how well distances separate groups of systems."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score, silhouette_score

from dsa_analysis.alignment import as_operators
from dsa_analysis.baselines import BASELINES
from dsa_analysis.compare import METRICS, ComparisonParameters, Similarity, all_operators, solve_pairs
from dsa_analysis.data import DataError, as_device, as_systems, as_trials, check_choice


class Interval(NamedTuple):
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


def noise_floor(
    systems: Any,
    *,
    n_delays: int,
    rank: int,
    metric: str = "angular",
    device: str | torch.device | None = None,
    progress: bool = True,
    **settings: Any,
) -> pd.Series:
    """Distance between the odd and the even trials of each system: what these data cannot tell from nothing.

    Arguments as in `compare`. Each half holds half of the trials, so the floor of all of them is somewhat lower. "cka" and
    "procrustes" need matched trials, of which a system has only one set: they have no such floor.

    Returns
    -------
    pandas.Series
        One distance a system, by label.
    """
    check_choice("metric", metric, [name for name in METRICS if name not in BASELINES])
    wanted = ComparisonParameters(n_delays, rank, **{key: settings[key] for key in settings if key != "seed"})
    trials = {name: as_trials(system, name, as_device(device)) for name, system in as_systems(systems).items()}
    for name, parts in trials.items():
        if len(parts) < 2:
            raise DataError(f"system {name!r} has one trial; a floor needs two halves, so at least 2 trials")
    halves = [
        {f"{name}, {half} trials": parts[start::2] for name, parts in trials.items()}
        for start, half in enumerate(("even", "odd"))
    ]
    operators = all_operators(halves, wanted, None, progress)
    stacked = as_operators([operator for half in operators for operator in half.values()], "operators")
    first = torch.arange(len(trials), device=stacked.device)
    budget = {"n_starts": wanted.n_starts, "group": wanted.group, "remove_trace": wanted.remove_trace}
    floor = solve_pairs(
        stacked, first, first + len(trials), metric, **budget, seed=settings.get("seed", 0), progress=progress
    )[0]
    return pd.Series(floor.cpu().numpy(), index=list(trials), name="noise floor")


def silhouette(similarity: Similarity | np.ndarray, groups: Sequence[Any]) -> float:
    """Mean silhouette of systems in their groups, in [-1, 1] (Rousseeuw 1987): near 1 groups are tight and far apart, at 0 they touch."""
    distances = _square(similarity, groups)
    return float(silhouette_score(distances, groups, metric="precomputed"))


def auroc(similarity: Similarity | np.ndarray, groups: Sequence[Any]) -> float:
    """Probability in [0, 1] that a pair from two groups is farther apart than a pair from one group."""
    distances, labels = _square(similarity, groups), np.asarray(groups)
    rows, columns = np.triu_indices(len(labels), 1)
    different = labels[rows] != labels[columns]
    if different.all() or not different.any():
        raise DataError("groups hold no two systems of the same group, or of different groups: nothing to tell apart")
    return float(roc_auc_score(different, distances[rows, columns]))


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean over independent repetitions (seeds, networks) with Student's confidence interval; NaN limits for a single one."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values):
        raise DataError(f"values have shape {values.shape}; a list of at least one number is needed")
    half = (
        student.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
        if len(values) > 1
        else np.nan
    )
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half), len(values))


def _square(similarity: Similarity | np.ndarray, groups: Sequence[Any]) -> np.ndarray:
    distances = np.asarray(getattr(similarity, "distances", similarity), dtype=float)
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise DataError(f"distances have shape {distances.shape}; systems among themselves, (k, k), are needed")
    if np.isnan(distances).any() or not np.allclose(distances, distances.T, atol=1e-9, rtol=0):
        raise DataError("distances hold NaN or are not symmetric")
    if len(groups) != len(distances):
        raise DataError(f"{len(groups)} groups came for {len(distances)} systems")
    return distances
