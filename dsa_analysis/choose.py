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

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dsa_analysis.comparison import AUTO, Comparison, as_comparison
from dsa_analysis.covariances import Directions, lag_covariances
from dsa_analysis.data import DataError, as_device, as_systems, as_trials, check_choice, check_count
from dsa_analysis.dmd import Operator, as_noise_variance, largest_rank, solve
from dsa_analysis.embedding import NOISE_ESTIMATORS, EmbeddingParameters
from dsa_analysis.metrics import as_pairs
from dsa_analysis.operators import refuse_operators

if TYPE_CHECKING:
    import pandas as pd

DELAYS = (1, 2, 3, 5, 8, 12, 20)
COARSE_DELAYS = (1, 3, 8, 20)  # where horizons are chosen too, which multiplies the cells
N_HORIZONS = 9
LARGEST_RANK = 20
MOST_ENTRIES = 4000  # of a window: the lag covariances grow as its square
MOST_SYSTEMS = 12  # whose halves are aligned; more make the choice slower, not better
MOST_TRIALS = 10  # held-out trials that are predicted
N_STARTS = 2  # of the alignments of halves, of which only the order counts
LEAST_GAP = 1.2
DECORRELATED = math.exp(-1)  # mean eigenvalue of operators below which a horizon is one of the system's own time
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
    how = as_comparison(how, choices)
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
    grid = _Grid.of(how, trials, candidates)
    measured = _Measured(grid, progress)
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
    for doubt in _doubts(choice):
        warnings.warn(doubt, stacklevel=2)
    return choice


class _Cell(NamedTuple):
    """One candidate; delays and horizon are counted in samples of the system that is sampled most slowly."""

    n_delays: int
    rank: int
    horizon: int


@dataclass(frozen=True)
class _Grid:
    """The candidates, and how a cell becomes the embedding of each system."""

    how: Comparison
    trials: dict[str, list[Tensor]]
    delays: list[int]
    ranks: list[int]
    horizons: list[int]
    by_data: bool = False  # whether horizons are those of "auto"

    @classmethod
    def of(cls, how: Comparison, trials: dict[str, list[Tensor]], candidates: dict[str, Any]) -> "_Grid":
        empty = cls(how, trials, [1], [1], [1])
        asked = {name: getattr(how, name) for name in ("n_delays", "rank", "steps_ahead", "horizon")} | candidates
        ranks = _candidates("rank", asked["rank"], range(1, LARGEST_RANK + 1))
        if asked["horizon"] is not None and asked["steps_ahead"] is not None:
            raise DataError("steps_ahead and horizon say the same thing twice; give one of them")
        horizons, chosen_by_data = empty._horizons(asked["steps_ahead"], asked["horizon"])
        delays = empty._delays(asked["n_delays"], COARSE_DELAYS if chosen_by_data else DELAYS)
        return cls(how, trials, delays, ranks, horizons, chosen_by_data)

    @property
    def slowest(self) -> float | None:
        """The largest sampling interval; None if intervals are not known."""
        return None if self.how.dt is None else max(self.how.interval(name) or 0.0 for name in self.trials)

    @property
    def lengths(self) -> list[int]:
        """Samples of all trials, as if all systems were sampled as slowly as the slowest."""
        ratio = {name: 1.0 if self.slowest is None else self.how.interval(name) / self.slowest for name in self.trials}  # type: ignore[operator]
        return [int(len(trial) * ratio[name]) for name, parts in self.trials.items() for trial in parts]

    def _delays(self, n_delays: Any, default: Sequence[int]) -> list[int]:
        """Those that were asked for, or of the default ones those whose windows fit and tell noise from signal."""
        if self.how.window is not None:
            return [round(self.how.window / (self.slowest * self.how.delay_interval))]  # type: ignore[operator]
        asked = _candidates("n_delays", n_delays, default)
        if n_delays is not None and not (isinstance(n_delays, str) and n_delays == AUTO):
            return asked
        shortest, p = min(self.lengths), self.how
        widest = max(parts[0].shape[1] for parts in self.trials.values())
        least = 2 if p.estimator in NOISE_ESTIMATORS and p.noise_variance is None else 1
        fitting = [
            m for m in asked
            if m >= least and 4 * ((m - 1) * p.delay_interval + 1) <= shortest and m * widest <= MOST_ENTRIES
        ]  # fmt: skip
        if not fitting:
            raise DataError(
                f"no n_delays from {least} on fits: a window may span a quarter of the shortest trial, {shortest} "
                f"samples, and hold {MOST_ENTRIES} entries, with {widest} channels; give n_delays, longer trials or "
                f"fewer channels"
            )
        return fitting

    def _horizons(self, steps_ahead: Any, horizon: Any) -> tuple[list[int], bool]:
        """Candidates in samples of the slowest system, and whether the data gave them."""
        if horizon is None:
            return _candidates("steps_ahead", 1 if steps_ahead is None else steps_ahead, ()), False
        if isinstance(horizon, str) and horizon == AUTO:
            spaced = np.geomspace(1, max(1, min(self.lengths) // 3), N_HORIZONS)
            return sorted({round(value) for value in spaced.tolist()}), True
        if self.slowest is None:
            raise DataError(f"horizon = {horizon!r} is a time, so dt (the sampling interval) is needed")
        times = horizon if isinstance(horizon, (Sequence, np.ndarray)) else [horizon]
        if not len(times):
            raise DataError("horizon is empty; at least one candidate is needed")
        counts = [self.how.override(horizon=time, dt=self.slowest)._samples("horizon", time, 1, None) for time in times]
        return sorted(set(counts)), False

    def cells(self, n_channels: int) -> list[_Cell]:
        cells = [_Cell(m, r, s) for m in self.delays for r in self.ranks for s in self.horizons if r <= m * n_channels]
        if not cells:
            raise DataError(
                f"no rank fits: a window holds at most {max(self.delays) * n_channels} entries; offer smaller ones"
            )
        return cells

    def comparison(self, cell: _Cell) -> Comparison:
        """The comparison at a cell: in times where intervals are known to differ or times were given."""
        found: dict[str, Any] = {"rank": cell.rank}
        timed = self.slowest is not None and (self.how.horizon is not None or len(self.horizons) > 1)
        unequal = isinstance(self.how.dt, Mapping) and len(set(self.how.dt.values())) > 1
        if (unequal and cell.n_delays > 1) or self.how.window is not None:
            found["window"] = cell.n_delays * self.how.delay_interval * self.slowest  # type: ignore[operator]
        else:
            found["n_delays"] = cell.n_delays
        if timed or unequal:
            found["horizon"] = cell.horizon * self.slowest  # type: ignore[operator]
        else:
            found["steps_ahead"] = cell.horizon
        return self.how.override(**found)

    def index(self, cells: list[_Cell]) -> "pd.MultiIndex":
        import pandas as pd

        names = ["n_delays", "rank"]
        if len(self.horizons) == 1:
            return pd.MultiIndex.from_tuples([cell[:2] for cell in cells], names=names)
        last = "steps_ahead" if self.slowest is None else "horizon"
        rows = [(cell.n_delays, cell.rank, self.time(cell.horizon)) for cell in cells]
        return pd.MultiIndex.from_tuples(rows, names=[*names, last])

    def time(self, steps: int) -> float:
        """A horizon as the table says it."""
        return steps if self.slowest is None else steps * self.slowest

    def applications(self, horizon: int) -> int:
        """Applications of the operator for the prediction error: about the longest window ahead."""
        return max(1, math.ceil(max(self.delays) * self.how.delay_interval / horizon))


class _Measured:
    """Operators of all systems, and of the halves of some, at every cell, from one pass over the trials each."""

    def __init__(self, grid: _Grid, progress: bool) -> None:
        self.grid, names = grid, list(grid.trials)
        spread = {names[i] for i in np.linspace(0, len(names) - 1, MOST_SYSTEMS).round().astype(int)}
        self.whole: dict[str, _Of] = {}
        self.halves: dict[str, list[_Of]] = {}
        bar = tqdm(grid.trials.items(), desc="fitting", delay=2, leave=False, disable=not progress)
        for name, parts in bar:
            self.whole[name] = _Of(grid, name, parts)
            if name in spread and len(parts) >= 2:
                self.halves[name] = [_Of(grid, name, parts[start::2]) for start in (0, 1)]

    def look(self, cell: _Cell) -> dict[str, Any]:
        """What a cell shows without alignment."""
        found = [of.found(cell) for of in self.whole.values()]
        everyone = [*self.whole.values(), *(half for halves in self.halves.values() for half in halves)]
        gap = float(np.exp(np.mean(np.log([d.gap(cell.rank) for d in found]))))
        resolved = all(of.reaches(cell) for of in everyone)
        above_noise = all(of.above_noise(cell) for of in self.whole.values())
        enough = cell.rank >= min(3, *(len(d.basis) for d in found))
        memory = float(np.median([of.memory(cell) for of in self.whole.values()])) if resolved else np.nan
        moved_on = not self.grid.by_data or memory <= DECORRELATED
        errors = [even.prediction_error(cell, odd) for even, odd in self.halves.values()] if resolved else []
        return {
            "gap": gap,
            "resolved": resolved,
            "above_noise": above_noise,
            "memory": memory,
            "admissible": resolved and above_noise and enough and gap >= LEAST_GAP and moved_on,
            "prediction_error": float(np.median(errors)) if errors else np.nan,
        }

    def split_half(self, cell: _Cell) -> np.ndarray:
        """Distances (k, k) of the even trials of each system to the odd trials of all, by the metric."""
        metric, k = self.grid.how.metric, len(self.halves)
        operators = torch.stack(
            [halves[side].operator(cell).matrix for side in (0, 1) for halves in self.halves.values()]
        )
        if metric.needs == "eigenvalues":
            operators = torch.linalg.eigvals(operators)
        first, second = torch.cartesian_prod(torch.arange(k), torch.arange(k)).T.to(operators.device)
        options = {name: value for name, value in self.grid.how.options().items() if name not in ("names", "n_sweeps")}
        found = metric.distances(operators[first], operators[second + k], **options)
        return as_pairs(metric, found, k * k).distance.view(k, k).cpu().numpy()


class _Of:
    """The directions of some trials of a system under every window and horizon."""

    def __init__(self, grid: _Grid, name: str, trials: list[Tensor]) -> None:
        self.grid, self.name, self.trials = grid, name, trials
        self.noise = grid.how.noise_of(name)
        self.directions: dict[tuple[int, int], Directions] = {}
        for horizon in grid.horizons:
            longest = self.embedding(_Cell(max(grid.delays), max(grid.ranks), horizon))
            products = lag_covariances(trials, longest, name)
            for m in grid.delays:
                p = self.embedding(_Cell(m, max(grid.ranks), horizon))
                self.directions[m, horizon] = products.shortened(p.n_delays).directions(p.rank)

    def embedding(self, cell: _Cell) -> EmbeddingParameters:
        return self.grid.comparison(cell).embedding(self.name)

    def found(self, cell: _Cell) -> Directions:
        return self.directions[cell.n_delays, cell.horizon]

    def _variance(self, cell: _Cell) -> Tensor:
        return as_noise_variance(self.noise, self.found(cell), self.embedding(cell), self.name)

    def operator(self, cell: _Cell) -> Operator:
        return solve(self.found(cell), self.embedding(cell), self._variance(cell))

    def memory(self, cell: _Cell) -> float:
        """Mean eigenvalue of the operator: the autocorrelation left after the horizon, over whitened directions."""
        return float(self.operator(cell).matrix.diagonal().mean())

    def reaches(self, cell: _Cell) -> bool:
        """Whether the data resolve the rank, with ten transitions for each dimension."""
        found = self.found(cell)
        if found.n_transitions < 10 * cell.rank:
            return False
        return largest_rank(found, self.embedding(cell), self._variance(cell)) == cell.rank

    def above_noise(self, cell: _Cell) -> bool:
        """Whether direction ``rank`` varies more than the largest direction of white noise would; yes if unknown."""
        found = self.found(cell)
        if cell.rank > found.rank:
            return False
        noise = float(found.noise(self._variance(cell)).diagonal()[cell.rank - 1]) / found.n_transitions
        edge = (found.n_windows**0.5 + len(found.basis) ** 0.5) ** 2
        return not noise * edge >= 1

    def prediction_error(self, cell: _Cell, held_out: "_Of") -> float:
        """`Operator.prediction_error` on some trials of another half; NaN if none is long enough."""
        operator, times = self.operator(cell), self.grid.applications(cell.horizon)
        p = operator.parameters
        usable = [x for x in held_out.trials if len(x) >= p.window + times * p.steps_ahead][:MOST_TRIALS]
        return operator.prediction_error(usable, times) if usable else np.nan


def _candidates(name: str, value: Any, default: Sequence[int]) -> list[int]:
    if value is None or (isinstance(value, str) and value == AUTO):
        value = default
    values = value if isinstance(value, (Sequence, np.ndarray)) else [value]
    if not len(values):
        raise DataError(f"{name} is empty; at least one candidate is needed")
    for candidate in values:
        check_count(name, candidate)
    return sorted(set(map(int, values)))


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
