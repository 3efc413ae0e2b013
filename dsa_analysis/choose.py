"""Chooses n_delays, rank and horizon such that different systems differ and recordings of the same system do not.

The best embedding for predictions is not the best one for comparisons: superfluous directions improve predictions a
little, but they change with the noise, and so does the distance. A *cell* (n_delays, rank) is admissible if

    the data resolve it in every system, with ten transitions for each dimension;
    its last direction is above white noise in every system: noise is less than a fraction
        1 / (1 + sqrt(n_entries / n_windows))^2 of the variance along this direction, which is the edge of the law of
        Marchenko and Pastur (1967);
    the cut is not inside a cluster: the geometric mean over systems of S_rank / S_(rank + 1) is at least 1.1;
    rank is at least 3, or the number of entries of a window if that is smaller: smaller ranks contain too little;
    if horizons are chosen: the horizon is the one over which the systems lose their memory. Memory is the mean
        autocorrelation of the three leading directions, relative to one sample ahead, and is lost at 1 / e (median over
        systems). Over shorter times all operators are near the identity, and systems differ mainly by how they were
        recorded; over longer times predictions forget the state, and halves may still agree on what is left.

The even trials of each system are compared with the odd trials of all. The cell in which a system is nearest to itself
most often has the best identifiability (area under the ROC curve), and of the cells that are about as good, the best
with the fewest delays is chosen. Where some cuts are clear (a gap of 2), cells with other cuts are left out: the clear
ones show how many dimensions the systems have. Names of groups are not used, so tests of groups remain valid. If cells
are equal, or if there are few systems or trials, the largest gap decides: at a clear cut, new recordings give the same
directions. (The ratio of distances between systems to distances within systems is no good criterion. It is largest for
short windows, at which a few systems are close together and confused.)
"""

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from dsa_analysis.cells import LEAST_GAP, LEAST_RANK, Grid, Measured
from dsa_analysis.comparison import Comparison, as_comparison
from dsa_analysis.data import DataError, as_device, as_systems, as_trials, check_choice
from dsa_analysis.display import Card, Shown, bars_go_to
from dsa_analysis.operators import refuse_operators

if TYPE_CHECKING:
    import pandas as pd

CLEAR_GAP = 2.0  # singular values that fall by half show the dimension of the systems
TIE = 0.02  # AUROCs of halves this close count as equal: about their standard error for 12 systems
N_STARTS = 2  # of the alignments of halves: only the order of their distances matters
LEAST_AGREEMENT = 0.7  # rank correlation with a neighbouring cell; below it, results depend on the choice
UNPREDICTABLE = 0.9  # prediction error above which operators predict hardly better than the mean
CHANCE, CLEAR = 0.6, 0.8  # AUROC of halves below which nothing is told apart, and above which systems clearly are
METHODS = ("identifiability", "gap")


@dataclass(frozen=True, repr=False)
class EmbeddingChoice(Shown):
    """The embedding chosen for a comparison, and a table of all candidates.

    Attributes
    ----------
    n_delays, rank : int
    method : "identifiability" or "gap"
        The criterion that decided.
    table : DataFrame
        One row for each cell, by ``n_delays`` and ``rank`` (and by ``horizon``, or ``steps_ahead`` if ``dt`` is not
        known, if there were several candidates). Columns: ``gap``, ``resolved``, ``above_noise``, ``memory``
        (autocorrelation of the leading directions over the horizon, relative to the shortest horizon), ``moved_on``
        (whether this is the horizon over which memory is lost; cells at other horizons have only the gap and
        the memory), ``admissible``, ``auroc`` and ``ratio`` of the
        split halves (NaN if they were not compared), ``prediction_error`` (of held-out trials, relative to predicting
        the mean, after ``n_applications`` applications of the operator), ``agreement`` (rank correlation of the
        split-half distances with those of the chosen cell) and ``chosen``.
    n_applications : int
        Applications of the operator for the prediction error of the chosen cell.
    how : Comparison
        The comparison with the chosen values: pass it to `compare`.
    horizon : float or None
        The chosen horizon, in the unit of ``dt``, or in samples if ``dt`` is not known. None if it was not chosen.
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

    def _card(self) -> Card:
        cell, near = self.cell, self.neighbours["agreement"]
        chosen = {"n_delays": self.n_delays, "rank": self.rank, "horizon": self.horizon}
        title = "EmbeddingChoice: " + ", ".join(f"{name} = {value}" for name, value in chosen.items() if value)
        rows = {"chosen by": self.method}
        if not np.isnan(cell["auroc"]):
            rows["halves"] = f"AUROC {cell['auroc']:.3f}: halves of one system nearer than halves of two (0.5: chance)"
        rows["cut"] = f"the last singular value kept is {cell['gap']:.3g} times the next, or more"
        rows["prediction"] = f"error {cell['prediction_error']:.2g} of the variance of held-out trials"
        rows["cells"] = f"{len(self.table)} looked at, {int(self.table['admissible'].sum())} admissible"
        if len(near):
            rows["neighbours"] = f"rank correlation of their distances with these {near.min():.2f} or more"
        doors = "compare(systems, how=choice.how), .table, .neighbours, plotting.plot_cells(choice, axes)"
        return Card(title, rows, doors)

    @property
    def _place(self) -> tuple[Any, ...]:
        return (self.n_delays, self.rank) + ((self.horizon,) if self.table.index.nlevels == 3 else ())

    def applied_to(self, how: Comparison) -> Comparison:
        """The comparison ``how`` with the chosen delays, rank and horizon instead of its own."""
        chosen = ("n_delays", "window", "rank", "steps_ahead", "horizon")
        return how.override(**{name: getattr(self.how, name) for name in chosen})

    @property
    def neighbours(self) -> "pd.DataFrame":
        """Rows of the cells next to the chosen one: the next smaller and larger rank, n_delays and horizon compared."""
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
    """Choose n_delays, rank and horizon for a comparison, the same for all systems.

    Parameters
    ----------
    systems : as in `compare`, as data
    how : Comparison, optional
        The other choices of the comparison. Its metric is used to compare the halves.
    method : "identifiability" or "gap", optional
        By default "identifiability" if there are at least three systems of four trials each, otherwise "gap". "gap"
        needs no alignments and is fast.
    device : str or torch.device, optional
        As in `compare`.
    progress : bool
        Show a bar for what takes more than two seconds.
    **choices
        Fields of `Comparison`, which override those of ``how``. For ``n_delays``, ``rank``, ``steps_ahead`` and
        ``horizon`` you can give a sequence of candidates, or a single number. By default the candidates for
        ``n_delays`` are 1, 2, 3, 5, 8, 12 and 20 (1, 3, 8 and 20 if horizons are chosen too), without those whose
        window spans more than a quarter of the shortest trial, holds more than 4000 entries, or is too short for an
        estimator that needs the noise variance. The candidates for ``rank`` are 1 to 20, and the prediction is one
        sample ahead. ``horizon="auto"`` considers horizons from one sample to a third of the shortest trial and admits
        the one over which the systems lose their memory. ``n_starts`` is 2 by default, because only the order of
        the distances matters. If there are more than 12 systems, the halves of 12 of them are compared, evenly spaced
        in the list.

    Returns
    -------
    EmbeddingChoice

    Raises
    ------
    DataError
        Systems that are operators, a metric of operators with inputs, no candidate that fits, or data that resolve no
        cell or only rank 1.

    Warns
    -----
    UserWarning
        If no gap is clear, if the error of another cell is less than half as large, if the chosen operators predict no
        better than the mean or halves of one system are not nearer than halves of two, if neighbouring cells order the
        distances differently, or if no horizon is as long as the memory of the systems.
    """
    import pandas as pd

    axes = ("n_delays", "rank", "steps_ahead", "horizon")
    candidates = {name: choices.pop(name) for name in axes if name in choices}
    n_starts = choices.pop("n_starts", N_STARTS)
    asked = how = as_comparison(how, choices)
    if how.metric.needs == "driven":
        raise DataError(
            f"metric = {how.metric.name!r} compares operators with inputs, for which an embedding is not chosen; "
            f"choose with another metric, or state n_delays and rank"
        )
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
    looks = {cell: measured.look(cell) for cell in cells if measured.moved_on(cell)}
    if not any(look["resolved"] for look in looks.values()):
        looks = {cell: measured.look(cell) for cell in cells}
    if not any(look["resolved"] for look in looks.values()):
        raise DataError(
            f"no rank from {min(grid.ranks)} to {max(grid.ranks)} is resolved in all systems, with ten transitions for "
            f"each dimension: give smaller ranks, or record more"
        )
    table = pd.DataFrame([looks.get(cell) or measured.glance(cell) for cell in cells], index=grid.index(cells))
    table["admissible"] = table["admissible"].eq(True)
    left = [cell for cell, look in looks.items() if look["admissible"]]
    if not left:
        warnings.warn(
            f"no cell of rank {LEAST_RANK} or more is resolved, above the noise and at a gap of {LEAST_GAP} in all "
            f"systems: the largest gap is used, and distances may be unstable", stacklevel=2,
        )  # fmt: skip
        left, method = [cell for cell, look in looks.items() if look["resolved"]], "gap"
    if grid.by_data and not measured.forgets:
        if method == "gap":  # one sample ahead, operators near the identity would be the last thing to compare
            longest = max(cell.horizon for cell in left)
            left = [cell for cell in left if cell.horizon == longest]
        warnings.warn(
            f"no horizon within a third of the shortest trial is as long as the memory of the systems: "
            f"{'the longest is used' if method == 'gap' else 'identifiability decides about it'}; state a horizon if "
            f"you know the time over which they act", stacklevel=2,
        )  # fmt: skip

    if any(CLEAR_GAP <= looks[cell]["gap"] < np.inf for cell in left):  # where nothing is cut off, that shows nothing
        left = [cell for cell in left if looks[cell]["gap"] >= CLEAR_GAP]
    distances = {}
    if method == "identifiability":
        bar = tqdm(
            left, desc="comparing halves", unit="cell", delay=2, leave=False, file=bars_go_to(), disable=not progress
        )
        distances = {cell: measured.split_half(cell) for cell in bar}
    scores = {cell: _identifiability(matrix) for cell, matrix in distances.items()}
    gaps = dict(zip(cells, table["gap"].where(np.isfinite(table["gap"]), 0.0), strict=True))  # inf: nothing is cut off
    auroc = {cell: scores[cell][0] if cell in scores else 0.0 for cell in left}
    near = [cell for cell in left if auroc[cell] >= max(auroc.values()) - TIE]
    if distances:
        near = [cell for cell in near if cell.n_delays == min(near).n_delays]
    chosen = min(near, key=lambda cell: (-auroc[cell], -gaps[cell], cell.rank, cell.n_delays, cell.horizon))
    if chosen.rank == 1 and len(grid.ranks) > 1:
        raise DataError(
            "the data support operators of rank 1 only, whose distance is 0 or pi for any systems: smooth the "
            "recordings, use wider bins, or record more trials (or give a rank yourself)"
        )
    if distances:
        others = [cell for cell in grid.beside(chosen) if cell not in distances and measured.resolved(cell)]
        beside = {cell: measured.split_half(cell) for cell in others}
        distances |= beside
        scores |= {cell: _identifiability(matrix) for cell, matrix in beside.items()}
    table["auroc"], table["ratio"] = zip(*(scores.get(cell, (np.nan, np.nan)) for cell in cells), strict=True)
    table["agreement"] = [
        _rank_correlation(distances[cell], distances[chosen]) if cell in distances else np.nan for cell in cells
    ]
    table["chosen"] = [cell == chosen for cell in cells]
    choice = EmbeddingChoice(
        chosen.n_delays, chosen.rank, method, table, grid.applications(chosen.horizon), grid.comparison(chosen),
        grid.time(chosen.horizon) if len(grid.horizons) > 1 else None,
    )  # fmt: skip
    choice = replace(choice, how=choice.applied_to(asked))  # with its own number of starts
    for doubt in _doubts(choice):
        warnings.warn(doubt, stacklevel=2)
    return choice


def _identifiability(distances: np.ndarray) -> tuple[float, float]:
    """Probability that halves of one system are nearer than halves of two, and the ratio of the median distances."""
    same = np.eye(len(distances), dtype=bool)
    within, between = distances[same], distances[~same]
    nearer = (between[:, None] > within).mean() + (between[:, None] == within).mean() / 2
    return float(nearer), float(np.median(between) / max(np.median(within), 1e-12))


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of distances between different systems; NaN for two systems."""
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
    auroc = cell.get("auroc", np.nan)
    # over a long horizon little can be predicted, and what is left may still tell systems apart
    if cell["prediction_error"] > UNPREDICTABLE and not auroc >= CLEAR:
        doubts.append(
            f"the chosen operators predict held-out trials no better than their mean (error "
            f"{cell['prediction_error']:.2g} of the variance): these data cannot be told from noise"
        )
    if auroc < CHANCE:
        doubts.append(
            f"halves of one system are hardly nearer than halves of two (AUROC {auroc:.2f}; 0.5 is chance): with these "
            f"data the systems cannot be told apart"
        )
    near = choice.neighbours["agreement"]
    if len(near) and near.min() < LEAST_AGREEMENT:
        doubts.append(
            f"the order of the distances depends on the embedding: their rank correlation with those at "
            f"{named(near.idxmin())} is {near.min():.2f}; see the table"
        )
    return doubts
