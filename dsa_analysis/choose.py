"""Which n_delays and rank to compare at: where systems differ, and recordings of the same system do not.

The best embedding for predicting is not the best one for comparing: surplus directions predict a little, but turn with
the noise, and the distance with them. A *cell* (n_delays, rank) is admissible if

    the data resolve it in every system, with ten transitions for each dimension,
    its last direction stands above white noise in every system: of the variance along direction k, noise holds less
        than 1 / (1 + sqrt(n_entries / n_windows))^2, its share at the edge of Marchenko and Pastur's law (1967),
    the cut falls into a gap: geometric mean over systems of S_rank / S_(rank + 1) at least 1.2,
    if horizons are to be chosen: the systems have moved on over the horizon, so that the mean eigenvalue of their
        operators, an autocorrelation, is at most 1 / e. Over less time all operators are near the identity, and what
        tells systems apart is how they were recorded,
    rank is at least 3, or all entries of a window where these are fewer: smaller ones hold too little.

Among these, identifiability decides: each system's even trials are compared with the odd trials of all, and the cell is
taken in which a system is nearest to itself most often (area under the ROC curve). Names of groups play no part, so
tests of groups stay valid. Among equals, and with few systems or trials, the largest gap decides: at a clear cut new
recordings give the same directions. (By how much systems are farther from others than from themselves does not tell:
that ratio is largest in short windows, where few systems of a set lie close together and are confused.)
"""

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from dsa_analysis.cells import LEAST_GAP, Grid, Measured
from dsa_analysis.comparison import Comparison, as_comparison
from dsa_analysis.data import DataError, as_device, as_systems, as_trials, check_choice
from dsa_analysis.operators import refuse_operators

if TYPE_CHECKING:
    import pandas as pd

N_STARTS = 2  # of the alignments of halves, of which only the order counts
LEAST_AGREEMENT = 0.7  # rank correlation with a neighbouring cell under which the choice decides the verdict
UNPREDICTABLE, CHANCE = 0.9, 0.6  # prediction error above, and AUROC below, which a choice is no evidence
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
        One row for each cell, by ``n_delays`` and ``rank`` (and ``horizon``, or ``steps_ahead`` where ``dt`` is not
        known, if several were candidates): ``gap``, ``resolved``, ``above_noise``, ``memory`` (mean eigenvalue of the
        operators, median over systems: the autocorrelation left after the horizon), ``admissible``, ``auroc`` and
        ``ratio`` of the split halves (NaN where they were not compared), ``prediction_error`` of held-out trials
        ``n_applications`` applications of the operator ahead relative to predicting the mean, ``agreement``, the rank
        correlation of the split-half distances with those of the chosen cell, and ``chosen``.
    n_applications : int
        Of the operator, for the prediction error of the chosen cell.
    how : Comparison
        The comparison with the chosen values: pass it to `compare`.
    horizon : float or None
        The horizon chosen, in the unit of ``dt``, or in samples if ``dt`` is not known; None if it was given.
    """

    n_delays: int
    rank: int
    method: str
    table: "pd.DataFrame"
    n_applications: int
    how: Comparison
    horizon: float | None = None

    @property
    def cell(self) -> "pd.Series":
        """The row of the chosen cell."""
        return self.table.loc[self._place]

    @property
    def _place(self) -> tuple[Any, ...]:
        return (self.n_delays, self.rank) + ((self.horizon,) if self.table.index.nlevels == 3 else ())

    def applied_to(self, how: Comparison) -> Comparison:
        """A comparison with the chosen delays, rank and horizon in place of its own."""
        chosen = ("n_delays", "window", "rank", "steps_ahead", "horizon")
        return how.override(**{name: getattr(self.how, name) for name in chosen})

    @property
    def neighbours(self) -> "pd.DataFrame":
        """Rows of the nearest compared cells along each axis: the next smaller and larger rank, window and horizon."""
        compared = self.table[self.table["agreement"].notna() & ~self.table["chosen"]].reset_index()
        axes = list(self.table.index.names)
        here = dict(zip(axes, self._place, strict=True))
        near: list[int] = []
        for axis in ("rank", *(name for name in axes if name != "rank")):
            line = compared
            for other in axes:
                line = line[line[other] == here[other]] if other != axis else line
            near += line[line[axis] < here[axis]].nlargest(1, axis).index.tolist()
            near += line[line[axis] > here[axis]].nsmallest(1, axis).index.tolist()
        return compared.loc[near].set_index(axes)


def choose_embedding(
    systems: Any,
    how: Comparison | None = None,
    *,
    method: str | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    **choices: Any,
) -> EmbeddingChoice:
    """Choose n_delays, rank and horizon, the same for all systems, for comparing them.

    Parameters
    ----------
    systems : as in `compare`, as data
    how : Comparison, optional
        Everything else about the comparison. Its metric judges the halves.
    method : "identifiability" or "gap", optional
        By default identifiability, if there are three systems of four trials each; otherwise the gap. The gap needs no
        alignment and so no time.
    device : str or torch.device, optional
    progress : bool
        Show a bar on stderr for what takes more than two seconds.
    **choices
        Fields of `Comparison`, which override those of ``how``. For ``n_delays``, ``rank``, ``steps_ahead`` and
        ``horizon`` a sequence gives the candidates, and a number the only one. Candidates by default: for ``n_delays``
        1, 2, 3, 5, 8, 12 and 20, if a window spans at most a quarter of the shortest trial, holds at most 4000 entries
        and, where the estimator needs it, tells noise from signal (1, 3, 8 and 20 if horizons are chosen too); for
        ``rank`` all up to 20; and one sample ahead. ``horizon="auto"`` considers horizons from one sample to a third
        of the shortest trial; those over which the systems have moved on are admissible. ``n_starts`` is 2 unless
        given: only the order of the distances counts. Halves of at most 12 systems are compared, spread evenly.

    Returns
    -------
    EmbeddingChoice

    Raises
    ------
    DataError
        Systems that came as operators, no candidate that fits, or no cell that the data resolve beyond rank 1.

    Warns
    -----
    UserWarning
        If no gap is clear, if another cell predicts twice as well, or if neighbouring cells order the distances
        differently.
    """
    import pandas as pd

    axes = ("n_delays", "rank", "steps_ahead", "horizon")
    candidates = {name: choices.pop(name) for name in axes if name in choices}
    n_starts = choices.pop("n_starts", N_STARTS)
    asked = how = as_comparison(how, choices)
    if "n_starts" in how.options():
        how = how.override(n_starts=n_starts)
    named = as_systems(systems)
    refuse_operators(named, "an embedding is chosen from data", matrices=False)
    trials = {name: as_trials(system, name, as_device(device)) for name, system in named.items()}
    fewest = min(map(len, trials.values()))
    if method is None:
        method = "identifiability" if len(trials) >= 3 and fewest >= 4 else "gap"
    check_choice("method", method, METHODS)
    if method == "identifiability" and (len(trials) < 2 or fewest < 2):
        raise DataError("identifiability needs at least 2 systems of 2 trials each; method = 'gap' does not")
    grid = Grid.of(how, trials, candidates)
    measured = Measured(grid, progress)
    cells = grid.cells(min(parts[0].shape[1] for parts in trials.values()))
    table = pd.DataFrame([measured.look(cell) for cell in cells])
    table.index = grid.index(cells)
    if not table["resolved"].any():
        raise DataError(
            f"no rank from {min(grid.ranks)} to {max(grid.ranks)} is resolved in all systems, with ten transitions for "
            f"each dimension: offer smaller ranks, or record more"
        )
    left = [cell for cell, fine in zip(cells, table["admissible"], strict=True) if fine]
    if not left:
        warnings.warn(
            f"no cell is resolved, above the noise and at a gap of {LEAST_GAP} in all systems: the largest gap is "
            f"taken, and distances may be unstable", stacklevel=2,
        )  # fmt: skip
        left, method = [cell for cell, fine in zip(cells, table["resolved"], strict=True) if fine], "gap"

    distances = {}
    if method == "identifiability":
        bar = tqdm(left, desc="comparing halves", unit="cell", delay=2, leave=False, disable=not progress)
        distances = {cell: measured.split_half(cell) for cell in bar}
    scores = {cell: _identifiability(matrix) for cell, matrix in distances.items()}
    table["auroc"], table["ratio"] = zip(*(scores.get(cell, (np.nan, np.nan)) for cell in cells), strict=True)
    cut = dict(zip(cells, table["gap"].where(np.isfinite(table["gap"]), 0.0), strict=True))  # nothing is cut at inf
    by_cell = dict(zip(cells, table.to_dict("records"), strict=True))
    decides = {cell: (by_cell[cell]["auroc"] if method == "identifiability" else 0.0) for cell in left}
    chosen = min(left, key=lambda cell: (-decides[cell], -cut[cell], cell.rank, cell.n_delays, cell.horizon))
    if chosen.rank == 1 and len(grid.ranks) > 1:
        raise DataError(
            "the data support operators of rank 1 only, whose distance is 0 or pi whatever the systems do: smooth the "
            "recordings, take wider bins, or record more trials (or give a rank of your own)"
        )
    table["agreement"] = [
        _rank_correlation(distances[cell], distances[chosen]) if cell in distances else np.nan for cell in cells
    ]
    table["chosen"] = [cell == chosen for cell in cells]
    choice = EmbeddingChoice(
        chosen.n_delays, chosen.rank, method, table, grid.applications(chosen.horizon), grid.comparison(chosen),
        grid.time(chosen.horizon) if len(grid.horizons) > 1 else None,
    )  # fmt: skip
    choice = replace(choice, how=choice.applied_to(asked))  # which keeps its own number of starts
    for doubt in _doubts(choice):
        warnings.warn(doubt, stacklevel=2)
    return choice


def _identifiability(distances: np.ndarray) -> tuple[float, float]:
    """Probability that halves of one system are nearer than halves of two; by which factor in the median."""
    same = np.eye(len(distances), dtype=bool)
    within, between = distances[same], distances[~same]
    nearer = (between[:, None] > within).mean() + (between[:, None] == within).mean() / 2
    return float(nearer), float(np.median(between) / max(np.median(within), 1e-12))


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of distances between different systems; NaN for two systems, which have but one."""
    from scipy.stats import spearmanr

    different = ~np.eye(len(a), dtype=bool)
    return float(spearmanr(a[different], b[different]).statistic) if len(a) > 2 else np.nan


def _doubts(choice: EmbeddingChoice) -> list[str]:
    """Warnings about a choice."""
    doubts, cell, axes = [], choice.cell, list(choice.table.index.names)

    def named(place: Any) -> str:
        return ", ".join(f"{axis} = {value:g}" for axis, value in zip(axes, place, strict=True))

    errors = choice.table["prediction_error"]
    if len(axes) == 3:  # errors at other horizons are those of predicting another time
        errors = errors.xs(choice.horizon, level=2, drop_level=False)
    if errors.notna().any() and cell["prediction_error"] > 2 * errors.min():
        doubts.append(
            f"{named(choice._place)} is good for comparing, poor for predicting: its error "
            f"{choice.n_applications} steps ahead is {cell['prediction_error']:.2g} of the variance, "
            f"{errors.min():.2g} at {named(errors.idxmin())}"
        )
    if cell["prediction_error"] > UNPREDICTABLE:
        doubts.append(
            f"the chosen operators predict held-out trials no better than their mean (error "
            f"{cell['prediction_error']:.2g} of the variance): nothing in these data stands out from noise"
        )
    if cell.get("auroc", np.nan) < CHANCE:
        doubts.append(
            f"halves of one system are hardly nearer than halves of two (AUROC {cell['auroc']:.2f}; 0.5 is chance): "
            f"these data do not tell the systems apart"
        )
    near = choice.neighbours["agreement"]
    if len(near) and near.min() < LEAST_AGREEMENT:
        doubts.append(
            f"the order of the distances depends on the embedding: their rank correlation with those at "
            f"{named(near.idxmin())} is {near.min():.2f}; see the table"
        )
    return doubts
