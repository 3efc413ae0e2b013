"""Do the distances keep their order if other choices are made? Distances over a grid of choices, and a verdict.

A distance depends on delays, rank, horizon and preprocessing, and so may the order of the distances. `stability`
compares all systems in every cell of a grid that you state beforehand, and in every cell also from each half of the
trials. The order is

    unstable        if the two halves of the trials disagree: these data do not determine an order;
    stable          if 90% of the cells agree with the reference cell;
    depends on X    otherwise; X are the fewest choices for which cells with the same values of X agree.

Two cells agree if Spearman's rank correlation of their distances is high.
"""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dsa_analysis.compare import compare
from dsa_analysis.comparison import AUTO, Comparison, as_comparison, has_effect
from dsa_analysis.covariances import directions
from dsa_analysis.data import (
    MOST_REPEATS,
    DataError,
    as_device,
    as_systems,
    as_trials,
    check_choice,
    check_count,
    check_number,
)
from dsa_analysis.display import bars_go_to
from dsa_analysis.dmd import as_noise_variance, largest_rank, solve, why_not
from dsa_analysis.inference import Interval, silhouette, spearman, spearman_interval
from dsa_analysis.operators import refuse_operators
from dsa_analysis.permutation import permanova

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

OF_DATA = ("reduction", "trial_length", "n_trials")  # axes that change the trials, beside the fields of `Comparison`
ALL = "all"  # their value in the reference: all channels, samples and trials
STABLE, REPRODUCIBLE, MOST = 0.8, 0.5, 0.9  # rank correlations, and fraction of the cells
Cell = tuple[Any, ...]


@dataclass(frozen=True, repr=False)
class Stability:
    """Distances of the same systems in all cells of a grid, and how well their orders agree.

    Attributes
    ----------
    axes : dict of name -> values
        The grid.
    reference : tuple
        Values of the axes in the cell that the others are compared with.
    cells : DataFrame
        A row for each cell, by the values of the axes. Columns: ``correlation`` with the reference cell (Spearman, over
        pairs of systems) and its interval ``low`` to ``high`` over systems; ``neighbours``, the fraction of systems
        whose nearest system is the same as in the reference cell; ``halves``, the correlation of the distances from the
        even and from the odd trials; with groups also ``silhouette`` and ``r_squared`` (PERMANOVA).
    correlations : (n_cells, n_cells)
        Spearman's correlation of the distances in any two cells.
    distances : (n_cells, k, k)
    labels : tuple of str
        The k systems.
    verdict : str
        One sentence.
    depends_on : tuple of str
        Axes on which the order depends; empty if it is stable or unstable.
    stable : bool
    left_out : list of (cell, reason)
        Cells that some system does not support, if it was asked to leave these out.
    """

    axes: dict[str, list[Any]]
    reference: Cell
    cells: "pd.DataFrame"
    correlations: np.ndarray
    distances: np.ndarray
    labels: tuple[str, ...]
    verdict: str
    depends_on: tuple[str, ...]
    stable: bool
    left_out: list[tuple[Cell, str]]

    def __repr__(self) -> str:
        grid = " x ".join(f"{len(values)} {name}" for name, values in self.axes.items())
        return f"<Stability of {len(self.labels)} systems over {len(self.cells)} cells ({grid})>\n{self.verdict}"

    def to_xarray(self) -> "xr.DataArray":
        """Distances by cell and system; the values of the axes are coordinates of the cells."""
        import xarray as xr

        index = self.cells.index
        coords = {name: ("cell", [str(value) for value in index.get_level_values(name)]) for name in index.names}
        systems = {"system": list(self.labels), "other": list(self.labels)}
        return xr.DataArray(self.distances, dims=("cell", "system", "other"), coords=coords | systems, name="distance")


def stability(
    systems: Any,
    how: Comparison | None = None,
    *,
    over: Mapping[str, Sequence[Any]],
    groups: Sequence[Any] | None = None,
    stable_at: float = STABLE,
    reproducible_at: float = REPRODUCIBLE,
    leave_out: bool = False,
    n_resamples: int = 500,
    device: str | torch.device | None = None,
    progress: bool = True,
    **choices: Any,
) -> Stability:
    """Compare systems under all combinations of several choices and judge whether their order depends on these.

    Parameters
    ----------
    systems : as in `compare`, as data
        At least four.
    how : Comparison, optional
        The reference: its values must be among those of the grid.
    over : mapping from name to values
        The grid, which you should state before you look at results. Names are fields of `Comparison` that change
        distances (``n_delays``, ``window``, ``rank``, ``steps_ahead``, ``horizon``, ``estimator``, ``metric``, ...) and

        - ``reduction``: number of common principal components that all systems are projected on. Systems must have the
          same channels.
        - ``trial_length``: samples that are used of each trial, from its start.
        - ``n_trials``: trials that are used of each system, drawn with the seed of the comparison. Systems with equal
          numbers of trials keep the same ones, so that matched trials stay matched, and larger draws contain smaller.

        The reference of these three is "all", which has to be among the values.
    groups : k labels, optional
        Adds how well groups are told apart in each cell.
    stable_at : float in (0, 1)
        Two cells agree if the correlation of their distances is at least this. The order is stable if 90% of the cells
        agree with the reference.
    reproducible_at : float in (0, 1)
        The order is unstable if the correlation of halves, median over cells, is below this.
    leave_out : bool
        Leave out cells that some system does not support, instead of raising an error.
    n_resamples : int >= 100, or 0
        Resamplings of the systems for each interval; 0 for no intervals, on which the verdict does not depend.
    device : str or torch.device, optional
        As in `compare`.
    progress : bool
        Show a bar for what takes more than two seconds.
    **choices
        Fields of `Comparison`, which override those of ``how``.

    Returns
    -------
    Stability

    Raises
    ------
    DataError
        An axis that is unknown, empty, has no effect or lacks the value of the reference; a cell that some system does
        not support (it is named); fewer than four systems of two trials; groups that cannot be told apart; windows; or
        systems that are operators.
    """
    how = as_comparison(how, choices)
    named = as_systems(systems)
    refuse_operators(named, "stability compares data", matrices=False)
    trials = {name: as_trials(system, name, as_device(device)) for name, system in named.items()}
    if len(trials) < 4 or min(map(len, trials.values())) < 2:
        raise DataError(
            f"stability needs at least 4 systems of at least 2 trials each; {len(trials)} came, with "
            f"{min(map(len, trials.values()), default=0)} trials or more"
        )
    for name, value in (("stable_at", stable_at), ("reproducible_at", reproducible_at)):
        if not 0 < check_number(name, value, "a rank correlation") < 1:
            raise DataError(f"{name} = {value!r} is not between 0 and 1")
    if how.windows is not None:
        raise DataError("stability compares whole trials: leave windows out, or cut the trials first")
    if groups is not None:
        _check_groups(groups, len(trials))
    if n_resamples != 0:
        check_count("n_resamples", n_resamples, 100, MOST_REPEATS)
    axes, reference = _grid(over, how)
    found, left_out = _all_cells(trials, how, axes, leave_out, progress)
    if reference not in found:
        raise DataError(f"the reference cell is left out: {dict(left_out)[reference]}")
    place = list(found).index(reference)
    distances, halves = (np.stack(parts) for parts in zip(*found.values(), strict=True))
    correlations = np.array([[spearman(a, b) for b in distances] for a in distances])
    cells = _table(
        list(found), list(axes), distances, correlations[place], halves, place, groups, n_resamples, how.seed
    )
    verdict, depends_on = _verdict(cells, correlations, place, stable_at, reproducible_at)
    return Stability(
        axes, reference, cells, correlations, distances, tuple(trials), verdict, depends_on,
        verdict.startswith("stable"), left_out,
    )  # fmt: skip


def _check_groups(groups: Sequence[Any], k: int) -> None:
    if len(groups) != k:
        raise DataError(f"groups has {len(groups)} labels for {k} systems; give one for each")
    if not 1 < (n_groups := len(set(groups))) < k:
        raise DataError(
            f"{n_groups} groups of {k} systems came; at least two groups are needed, one of them with two systems"
        )


# ---- grid ------------------------------------------------------------------------------------------------------------


def _grid(over: Mapping[str, Sequence[Any]], how: Comparison) -> tuple[dict[str, list[Any]], Cell]:
    """The checked axes, and the cell of the reference."""
    known = [each.name for each in fields(Comparison) if each.name not in ("dt", "seed", "on_rank", "windows")]
    if not over:
        raise DataError("over is empty; give at least one axis, such as over={'rank': [4, 6, 8]}")
    axes, reference = {}, []
    for name, values in over.items():
        check_choice("axis of over", name, [*known, *OF_DATA])
        if isinstance(values, str) or not isinstance(values, (Sequence, range, np.ndarray)) or not len(values):
            raise DataError(f"over[{name!r}] = {values!r} is not a list of at least one value")
        if name not in OF_DATA and not has_effect(name, how.metric):
            raise DataError(f"over[{name!r}] has no effect with metric = {how.metric.name!r}; leave it out")
        axes[name] = [value.item() if isinstance(value, np.generic) else value for value in values]
        if len(set(map(str, axes[name]))) < len(axes[name]):
            raise DataError(f"over[{name!r}] = {axes[name]} holds a value twice")
        own = ALL if name in OF_DATA else getattr(how, name)
        own = 1 if name == "steps_ahead" and own is None and how.horizon is None else own
        own = how.metric.name if name == "metric" else own
        if own == AUTO and name != "n_starts":
            raise DataError(f"{name} = 'auto' has to be chosen first, by choose_embedding")
        if own not in axes[name]:
            raise DataError(
                f"over[{name!r}] = {axes[name]} lacks the value of the reference, {own!r}; add it, or change the "
                f"reference"
            )
        reference.append(own)
    return axes, tuple(reference)


def _all_cells(
    trials: dict[str, list[Tensor]], how: Comparison, axes: dict[str, list[Any]], leave_out: bool, progress: bool
) -> tuple[dict[Cell, tuple[np.ndarray, float]], list[tuple[Cell, str]]]:
    """For each cell its distances, and the correlation of those from even and from odd trials."""
    found: dict[Cell, tuple[np.ndarray, float]] = {}
    left_out: list[tuple[Cell, str]] = []
    ranks, others = axes.get("rank", [how.rank]), [name for name in axes if name != "rank"]
    combinations = list(itertools.product(*(axes[name] for name in others)))
    for values in tqdm(
        combinations, desc="stability", unit="setting", delay=2, leave=False, file=bars_go_to(), disable=not progress
    ):
        at, views = dict(zip(others, values, strict=True)), None
        for rank in ranks:
            cell = tuple(({**at, "rank": rank})[name] for name in axes)
            try:
                views = views or _views(trials, how, at, ranks)
                whole, even, odd = (view.distances(rank) for view in views)
                found[cell] = whole, spearman(even, odd)
            except DataError as problem:
                if not leave_out:
                    listed = ", ".join(f"{name} = {value}" for name, value in zip(axes, cell, strict=True))
                    raise DataError(f"cell {listed}: {problem}; leave_out=True leaves such cells out") from problem
                left_out.append((cell, str(problem)))
    order = [cell for cell in itertools.product(*axes.values()) if cell in found]
    return {cell: found[cell] for cell in order}, left_out


def _views(trials: dict[str, list[Tensor]], how: Comparison, at: dict[str, Any], ranks: list[Any]) -> list["_View"]:
    """All trials, the even and the odd ones, under one combination of choices."""
    used = _cut(trials, at.get("trial_length", ALL), at.get("n_trials", ALL), how.seed)
    used = _reduced(used, at.get("reduction", ALL))
    here = how.override(**{name: value for name, value in at.items() if name not in OF_DATA})
    parts = [used] + [{name: own[start::2] for name, own in used.items()} for start in (0, 1)]
    return [_View(part, here, ranks) for part in parts]


class _View:
    """Some trials of all systems. Their lag covariances are computed once for all ranks."""

    def __init__(self, trials: dict[str, list[Tensor]], how: Comparison, ranks: list[Any]) -> None:
        self.trials, self.how, self.fitted = trials, how, {}
        if how.metric.needs == "trials":
            return
        for name, own in trials.items():
            embedding = how.override(rank=max(ranks)).embedding(name) if None not in ranks else how.embedding(name)
            found = directions(own, embedding, name)
            self.fitted[name] = embedding, found, as_noise_variance(how.noise_of(name), found, embedding, name)

    def distances(self, rank: Any) -> np.ndarray:
        if self.how.metric.needs == "trials":
            return compare(self.trials, how=self.how, progress=False).distances
        operators = {}
        for name, (embedding, found, variance) in self.fitted.items():
            own = replace(embedding, rank=rank)
            if (largest := largest_rank(found, own, variance)) < own.rank:
                raise DataError(f"system {name!r}: {why_not(found, own, largest)}")
            operators[name] = solve(found, own, variance)
        return compare(operators, how=self.how, progress=False).distances


# ---- axes that change the trials -------------------------------------------------------------------------------------


def _cut(trials: dict[str, list[Tensor]], length: int | str, n_trials: int | str, seed: int) -> dict[str, list[Tensor]]:
    """The first samples of trials, and some trials drawn at random."""
    if length != ALL:
        length = check_count("trial_length", length)
        for name, own in trials.items():
            if (shortest := min(map(len, own))) < length:
                raise DataError(f"trial_length = {length}, but system {name!r} has a trial of {shortest} samples")
        trials = {name: [trial[:length] for trial in own] for name, own in trials.items()}
    if n_trials != ALL:
        n_trials = check_count("n_trials", n_trials, 2)
        for name, own in trials.items():
            if len(own) < n_trials:
                raise DataError(f"n_trials = {n_trials}, but system {name!r} has {len(own)}")
        trials = {
            name: [own[k] for k in np.sort(np.random.default_rng(seed).permutation(len(own))[:n_trials])]
            for name, own in trials.items()
        }
    return trials


def _reduced(trials: dict[str, list[Tensor]], n_components: int | str) -> dict[str, list[Tensor]]:
    """Trials in the coordinates of the leading principal components of all systems together."""
    if n_components == ALL:
        return trials
    n_components = check_count("reduction", n_components)
    channels = {name: own[0].shape[1] for name, own in trials.items()}
    if len(set(channels.values())) > 1 or n_components > min(channels.values()):
        listed = ", ".join(f"{name!r} {count}" for name, count in channels.items())
        raise DataError(
            f"reduction = {n_components} needs systems with the same channels, at least as many; there are {listed}"
        )
    first = next(iter(trials.values()))[0]
    scatter = torch.zeros(first.shape[1], first.shape[1], dtype=torch.float64, device=first.device)
    for own in trials.values():  # each system counts by its covariance, however many samples it has
        scatter += torch.cat(own).double().T.cov(correction=0)
    leading = torch.linalg.eigh(scatter)[1][:, -n_components:]
    return {name: [trial.double() @ leading for trial in own] for name, own in trials.items()}


# ---- verdict ---------------------------------------------------------------------------------------------------------


def _table(
    cells: list[Cell],
    names: list[str],
    distances: np.ndarray,
    correlations: np.ndarray,
    halves: np.ndarray,
    reference: int,
    groups: Sequence[Any] | None,
    n_resamples: int,
    seed: int,
) -> "pd.DataFrame":
    import pandas as pd

    own = distances[reference]
    nearest = (distances + np.diag(np.full(len(own), np.inf))).argmin(-1)
    rows = []
    for place, matrix in enumerate(distances):
        if place == reference or not n_resamples:
            limit = 1.0 if place == reference else math.nan
            interval = Interval(correlations[place], limit, limit, len(own))
        else:
            interval = spearman_interval(matrix, own, n_resamples=n_resamples, seed=seed)
        row = {"correlation": interval.mean, "low": interval.low, "high": interval.high}
        row |= {"neighbours": float((nearest[place] == nearest[reference]).mean()), "halves": float(halves[place])}
        if groups is not None:
            with warnings.catch_warnings(action="ignore"):  # of groups that differ in spread, which is not asked here
                r_squared = permanova(matrix, groups, n_permutations=99, seed=seed).r_squared
            row |= {"silhouette": silhouette(matrix, groups), "r_squared": r_squared}
        rows.append(row)
    return pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(cells, names=names))


def _verdict(
    cells: "pd.DataFrame", correlations: np.ndarray, reference: int, stable_at: float, reproducible_at: float
) -> tuple[str, tuple[str, ...]]:
    """The sentence, and the axes that the order depends on."""
    halves = float(cells["halves"].median())
    if not halves >= reproducible_at:
        return (
            f"unstable: the distances from the two halves of the trials have a rank correlation of {halves:.2f} (median"
            f" over cells; {reproducible_at:g} is asked), so these data do not determine an order"
        ), ()
    others = np.delete(correlations[reference], reference)
    agreeing = float((others >= stable_at).mean()) if len(others) else 1.0
    if agreeing >= MOST:
        return (
            f"stable: {agreeing:.0%} of the {len(others)} other cells order the distances as the reference does (rank "
            f"correlation of at least {stable_at:g}; lowest {others.min(initial=1.0):.2f})"
        ), ()
    pairs = np.triu_indices(len(cells), 1)
    varied = [name for name in cells.index.names if cells.index.get_level_values(name).nunique() > 1]
    held, within = tuple(varied), math.nan
    for n_held in range(1, len(varied)):  # the fewest axes which, if held, leave cells that agree
        found = {some: _agreement(cells, correlations, pairs, some) for some in itertools.combinations(varied, n_held)}
        best = max(found, key=lambda some: found[some])
        if found[best] >= stable_at:
            held, within = best, found[best]
            break
    alike = "" if math.isnan(within) else (f"; cells with the same {' and '.join(held)} agree (median {within:.2f})")
    return (
        f"depends on {', '.join(held)}: {agreeing:.0%} of the {len(others)} other cells order the distances as the "
        f"reference does (median rank correlation {np.median(others):.2f}){alike}"
    ), held


def _agreement(cells: "pd.DataFrame", correlations: np.ndarray, pairs: Any, held: tuple[str, ...]) -> float:
    """Median correlation of cells that have the same values of some axes."""
    values = np.array([[str(value) for value in cells.index.get_level_values(name)] for name in held])
    alike = (values[:, pairs[0]] == values[:, pairs[1]]).all(0)
    return float(np.median(correlations[pairs][alike]))
