"""Which n_delays and rank to compare at: where systems differ, and recordings of the same system do not.

The best embedding for predicting is not the best one for comparing: surplus directions predict a little, but turn with
the noise, and the distance with them. A *cell* (n_delays, rank) is admissible if

    the data resolve it in every system, with ten transitions for each dimension,
    its last direction stands above white noise in every system: of the variance along direction k, noise holds less
        than 1 / (1 + sqrt(n_entries / n_windows))^2, its share at the edge of Marchenko and Pastur's law (1967),
    the cut falls into a gap: geometric mean over systems of S_rank / S_(rank + 1) at least 1.2,
    rank is at least 3, or all entries of a window where these are fewer: smaller ones hold too little.

Among these, identifiability decides: each system's even trials are compared with the odd trials of all, and the cell is
taken in which a system is nearest to itself most often (area under the ROC curve). Names of groups play no part, so
tests of groups stay valid. Among equals, and with few systems or trials, the largest gap decides: at a clear cut new
recordings give the same directions. (By how much systems are farther from others than from themselves does not tell:
that ratio is largest in short windows, where few systems of a set lie close together and are confused.)
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm import tqdm

from dsa_analysis.alignment import align_pairs
from dsa_analysis.covariances import Directions, lag_covariances
from dsa_analysis.data import DataError, as_device, as_systems, as_trials, check_choice, check_count
from dsa_analysis.dmd import Operator, as_noise_variance, largest_rank, solve
from dsa_analysis.embedding import NOISE_ESTIMATORS, EmbeddingParameters, delay_embed

DELAYS = (1, 2, 3, 5, 8, 12, 20)
LARGEST_RANK = 20
MOST_ENTRIES = 4000  # of a window: the lag covariances grow as its square
MOST_SYSTEMS = 12  # whose halves are aligned; more make the choice slower, not better
MOST_TRIALS = 10  # held-out trials that are predicted
LEAST_GAP = 1.2
LEAST_AGREEMENT = 0.7  # rank correlation with a neighbouring cell under which the choice decides the verdict
METHODS = ("identifiability", "gap")


@dataclass(frozen=True)
class EmbeddingChoice:
    """The embedding chosen for comparing, and all that were looked at.

    Attributes
    ----------
    n_delays, rank : int
    method : "identifiability" or "gap"
        What decided.
    table : DataFrame
        One row a cell, by ``n_delays`` and ``rank``: ``gap``, ``resolved``, ``above_noise``, ``admissible``, ``auroc``
        and ``ratio`` of the split halves (NaN where they were not compared), ``prediction_error`` of held-out trials
        ``horizon`` applications ahead relative to predicting the mean, ``agreement``, the rank correlation of the
        split-half distances with those of the chosen cell, and ``chosen``.
    horizon : int
    settings : dict
        Arguments that are not in the table.
    """

    n_delays: int
    rank: int
    method: str
    table: pd.DataFrame
    horizon: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def cell(self) -> pd.Series:
        """The row of the chosen cell."""
        return self.table.loc[(self.n_delays, self.rank)]

    @property
    def neighbours(self) -> pd.DataFrame:
        """Rows of the nearest compared cells: the next smaller and larger rank, the next shorter and longer window."""
        compared = self.table[self.table["agreement"].notna() & ~self.table["chosen"]].reset_index()
        near: list[int] = []
        for axis, other in (("rank", "n_delays"), ("n_delays", "rank")):
            here, there = getattr(self, axis), getattr(self, other)
            line = compared[compared[other] == there]
            near += line[line[axis] < here].nlargest(1, axis).index.tolist()
            near += line[line[axis] > here].nsmallest(1, axis).index.tolist()
        return compared.loc[near].set_index(["n_delays", "rank"])


def choose_embedding(
    systems: Any,
    *,
    n_delays: int | Sequence[int] | None = None,
    rank: int | Sequence[int] | None = None,
    delay_interval: int = 1,
    steps_ahead: int = 1,
    ridge: float = 1e-8,
    center: bool = True,
    estimator: str = "least_squares",
    noise_variance: Any = None,
    method: str | None = None,
    n_starts: int = 2,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> EmbeddingChoice:
    """Choose n_delays and rank, the same for all systems, for comparing them.

    Parameters
    ----------
    systems : as in `compare`, as data
    n_delays : int or sequence of int, optional
        Candidates; by default 1, 2, 3, 5, 8, 12 and 20, as far as a window spans at most a quarter of the shortest
        trial, holds at most 4000 entries and, where the estimator needs it, tells noise from signal.
    rank : int or sequence of int, optional
        Candidates; by default all up to 20.
    delay_interval, steps_ahead, ridge, center, estimator, noise_variance, device
        As in `compare`.
    method : "identifiability" or "gap", optional
        By default identifiability, from three systems of four trials each on; fewer leave the gap. The gap needs no
        alignment and so no time.
    n_starts, seed : int
        Of the alignments, of which only the order of the distances counts. Halves of at most 12 systems are compared,
        spread evenly over all.
    progress : bool
        Show a bar on stderr for what takes more than two seconds.

    Raises
    ------
    DataError
        Systems that came as operators, no candidate that fits, or no cell that the data resolve.

    Warns
    -----
    UserWarning
        Where no gap is clear, where another cell predicts twice as well, or where neighbouring cells order the
        distances differently.
    """
    named = as_systems(systems)
    for name, system in named.items():
        if isinstance(system, Operator):
            raise DataError(f"an embedding is chosen from data, but system {name!r} came as an operator")
    trials = {name: as_trials(system, name, as_device(device)) for name, system in named.items()}
    fewest = min(map(len, trials.values()))
    if method is None:
        method = "identifiability" if len(trials) >= 3 and fewest >= 4 else "gap"
    check_choice("method", method, METHODS)
    if method == "identifiability" and (len(trials) < 2 or fewest < 2):
        raise DataError("identifiability needs at least 2 systems of 2 trials each; method = 'gap' does not")
    ranks = _candidates("rank", rank, range(1, LARGEST_RANK + 1))
    base = EmbeddingParameters(1, max(ranks), delay_interval, steps_ahead, ridge, center, estimator)
    delays = _fitting_delays(n_delays, trials, base, noise_variance is not None)
    horizon = max(1, math.ceil(max(delays) * delay_interval / steps_ahead))
    grids = _Grids(trials, delays, base, horizon, noise_variance, progress)
    smallest = min(parts[0].shape[1] for parts in trials.values())
    cells = [(m, r) for m in delays for r in ranks if r <= m * smallest]
    if not cells:
        raise DataError(f"no rank fits: a window holds at most {max(delays) * smallest} entries; offer smaller ones")
    table = pd.DataFrame([grids.look(m, r) for m, r in cells])
    table.index = pd.MultiIndex.from_tuples(cells, names=["n_delays", "rank"])
    if not table["resolved"].any():
        raise DataError(
            f"no rank from {min(ranks)} to {max(ranks)} is resolved in all systems, with ten transitions for each "
            f"dimension: offer smaller ranks, or record more"
        )
    candidates = table.index[table["admissible"]]
    if not len(candidates):
        warnings.warn(
            f"no cell is resolved, above the noise and at a gap of {LEAST_GAP} in all systems: the largest gap is "
            f"taken, and distances may be unstable", stacklevel=2,
        )  # fmt: skip
        candidates, method = table.index[table["resolved"]], "gap"

    distances = {}
    if method == "identifiability":
        bar = tqdm(candidates, desc="comparing halves", unit="cell", delay=2, leave=False, disable=not progress)
        distances = {(m, r): grids.split_half(m, r, n_starts, seed) for m, r in bar}
    scores = {cell: _identifiability(matrix) for cell, matrix in distances.items()}
    table["auroc"], table["ratio"] = zip(*(scores.get(cell, (np.nan, np.nan)) for cell in cells), strict=True)
    table["cut"] = table["gap"].where(np.isfinite(table["gap"]), 0.0)  # where all is kept nothing is cut
    best = ["auroc", "cut"] if method == "identifiability" else ["cut"]
    ascending = [False] * len(best) + [True, True]
    order = table.loc[candidates].reset_index().sort_values([*best, "rank", "n_delays"], ascending=ascending)
    del table["cut"]
    chosen = int(order.iloc[0]["n_delays"]), int(order.iloc[0]["rank"])
    table["agreement"] = [
        _rank_correlation(distances[cell], distances[chosen]) if cell in distances else np.nan for cell in cells
    ]
    table["chosen"] = [cell == chosen for cell in cells]
    settings = {
        "delay_interval": delay_interval, "steps_ahead": steps_ahead, "ridge": ridge, "center": center,
        "estimator": estimator, "n_starts": n_starts, "seed": seed,
    }  # fmt: skip
    choice = EmbeddingChoice(*chosen, method, table, horizon, settings)
    for doubt in _doubts(choice):
        warnings.warn(doubt, stacklevel=2)
    return choice


class _Grids:
    """Operators of all systems, and of the halves of some, at every cell, from one pass over the trials each."""

    def __init__(
        self,
        trials: dict[str, list[Tensor]],
        delays: list[int],
        base: EmbeddingParameters,
        horizon: int,
        noise: Any,
        progress: bool,
    ) -> None:
        self.base, self.horizon = base, horizon
        self.noise = noise if isinstance(noise, Mapping) else dict.fromkeys(trials, noise)
        names = list(trials)
        spread = {names[i] for i in np.linspace(0, len(names) - 1, MOST_SYSTEMS).round().astype(int)}
        self.whole: dict[str, dict[int, Directions]] = {}
        self.halves: dict[str, list[dict[int, Directions]]] = {}
        self.held_out: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
        for name, parts in tqdm(trials.items(), desc="fitting", delay=2, leave=False, disable=not progress):
            self.whole[name] = self._directions(parts, delays, name)
            if name in spread and len(parts) >= 2:
                self.halves[name] = [self._directions(parts[start::2], delays, name) for start in (0, 1)]
                self.held_out[name] = {m: self._coordinates(parts[1::2], self.halves[name][0][m], m) for m in delays}

    def _directions(self, trials: list[Tensor], delays: list[int], name: str) -> dict[int, Directions]:
        longest = lag_covariances(trials, replace(self.base, n_delays=max(delays)), name)
        return {m: longest.shortened(m).directions(self.base.rank) for m in delays}

    def _coordinates(self, trials: list[Tensor], found: Directions, m: int) -> tuple[Tensor, Tensor]:
        """Windows of some trials, along all directions found in others, and the samples ``horizon`` steps later."""
        p = replace(self.base, n_delays=m)
        ahead = self.horizon * p.steps_ahead
        usable = [x.double() - found.mean for x in trials if len(x) >= p.window + ahead][:MOST_TRIALS]
        windows = [delay_embed(x[: len(x) - ahead], m, p.delay_interval) for x in usable]
        later = [x[p.window - 1 + ahead :] for x in usable]
        if not usable:
            return found.mean.new_zeros(0, found.rank), found.mean.new_zeros(0, len(found.mean))
        return torch.cat(windows) @ found.basis / found.singular_values[: found.rank], torch.cat(later)

    def _variance(self, name: str, found: Directions) -> Tensor:
        return as_noise_variance(self.noise.get(name), found, self.base, name)

    def _reaches(self, name: str, found: Directions, p: EmbeddingParameters) -> bool:
        return largest_rank(found, p, self._variance(name, found)) == p.rank and found.n_transitions >= 10 * p.rank

    def _above_noise(self, name: str, found: Directions, rank: int) -> bool:
        """Whether direction ``rank`` varies more than the largest direction of white noise would; yes if unknown."""
        if rank > found.rank:
            return False
        noise = float(found.noise(self._variance(name, found)).diagonal()[rank - 1]) / found.n_transitions
        edge = (found.n_windows**0.5 + len(found.basis) ** 0.5) ** 2
        return not noise * edge >= 1

    def look(self, m: int, r: int) -> dict[str, Any]:
        """What a cell shows without alignment."""
        p = replace(self.base, n_delays=m, rank=r)
        found = {name: grid[m] for name, grid in self.whole.items()}
        halves = [(name, half[m]) for name, grids in self.halves.items() for half in grids]
        gap = float(np.exp(np.mean(np.log([d.gap(r) for d in found.values()]))))
        resolved = all(self._reaches(name, d, p) for name, d in [*found.items(), *halves])
        above_noise = all(self._above_noise(name, d, r) for name, d in found.items())
        enough = r >= min(3, *(len(d.basis) for d in found.values()))
        errors = [self._prediction_error(name, p) for name in self.halves] if resolved else []
        return {
            "gap": gap,
            "resolved": resolved,
            "above_noise": above_noise,
            "admissible": resolved and above_noise and enough and gap >= LEAST_GAP,
            "prediction_error": float(np.median(errors)) if errors else np.nan,
        }

    def _operator(self, name: str, half: int, p: EmbeddingParameters) -> Operator:
        found = self.halves[name][half][p.n_delays]
        return solve(found, p, self._variance(name, found))

    def _prediction_error(self, name: str, p: EmbeddingParameters) -> float:
        """Of the operator of the even trials on some of the odd ones: `Operator.prediction_error`, NaN if none."""
        operator, (v, later) = self._operator(name, 0, p), self.held_out[name][p.n_delays]
        newest = operator.singular_values[:, None] * operator.basis[: operator.n_channels].T
        ahead = v[:, : p.rank] @ torch.linalg.matrix_power(operator.matrix, self.horizon).T @ newest
        return float((ahead - later).square().sum() / later.square().sum())

    def split_half(self, m: int, r: int, n_starts: int, seed: int) -> np.ndarray:
        """Distances (k, k) of the even trials of each system to the odd trials of all."""
        p, k = replace(self.base, n_delays=m, rank=r), len(self.halves)
        operators = torch.stack([self._operator(name, half, p).matrix for half in (0, 1) for name in self.halves])
        first, second = torch.cartesian_prod(torch.arange(k), torch.arange(k)).T.to(operators.device)
        aligned = align_pairs(operators, first, second + k, n_starts=n_starts, seed=seed)
        return aligned.distance.view(k, k).cpu().numpy()


def _candidates(name: str, value: Any, default: Sequence[int]) -> list[int]:
    values = default if value is None else value if isinstance(value, (Sequence, np.ndarray)) else [value]
    if not len(values):
        raise DataError(f"{name} is empty; at least one candidate is needed")
    for candidate in values:
        check_count(name, candidate)
    return sorted(set(map(int, values)))


def _fitting_delays(
    n_delays: Any, trials: dict[str, list[Tensor]], p: EmbeddingParameters, noise_known: bool
) -> list[int]:
    """Those that were asked for, or of the default ones those whose windows fit and tell noise from signal."""
    asked = _candidates("n_delays", n_delays, DELAYS)
    if n_delays is not None:
        return asked
    shortest = min(len(trial) for parts in trials.values() for trial in parts)
    widest = max(parts[0].shape[1] for parts in trials.values())
    least = 2 if p.estimator in NOISE_ESTIMATORS and not noise_known else 1
    fitting = [
        m for m in asked if m >= least and 4 * replace(p, n_delays=m).window <= shortest and m * widest <= MOST_ENTRIES
    ]
    if not fitting:
        raise DataError(
            f"no n_delays from {least} on fits: a window may span a quarter of the shortest trial, {shortest} samples, "
            f"and hold {MOST_ENTRIES} entries, with {widest} channels; give n_delays, longer trials or fewer channels"
        )
    return fitting


def _identifiability(distances: np.ndarray) -> tuple[float, float]:
    """How surely, in [0, 1], halves of one system are nearer than halves of two; by which factor in the median."""
    same = np.eye(len(distances), dtype=bool)
    auroc = roc_auc_score(~same.ravel(), distances.ravel())
    return float(auroc), float(np.median(distances[~same]) / max(np.median(distances[same]), 1e-12))


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of distances between different systems; NaN for two systems, which have but one."""
    different = ~np.eye(len(a), dtype=bool)
    return float(spearmanr(a[different], b[different]).statistic) if len(a) > 2 else np.nan


def _doubts(choice: EmbeddingChoice) -> list[str]:
    """What a reader of the choice should know."""
    doubts, cell = [], choice.cell
    errors = choice.table["prediction_error"]
    if errors.notna().any() and cell["prediction_error"] > 2 * errors.min():
        m, r = errors.idxmin()
        doubts.append(
            f"n_delays = {choice.n_delays}, rank = {choice.rank} is good for comparing, poor for predicting: its error "
            f"{choice.horizon} steps ahead is {cell['prediction_error']:.2g} of the variance, {errors.min():.2g} at "
            f"n_delays = {m}, rank = {r}"
        )
    near = choice.neighbours["agreement"]
    if len(near) and near.min() < LEAST_AGREEMENT:
        m, r = near.idxmin()
        doubts.append(
            f"the order of the distances depends on the embedding: their rank correlation with those at n_delays = "
            f"{m}, rank = {r} is {near.min():.2f}; see the table"
        )
    return doubts
