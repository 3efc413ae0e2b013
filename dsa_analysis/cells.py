"""The candidates of `choose_embedding`: which cells there are, and what each shows of every system.

A cell is a number of delays, a rank and a horizon. The operators of all cells of one horizon follow from one pass over
the trials of a system (see `covariances`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dsa_analysis.comparison import AUTO, Comparison
from dsa_analysis.covariances import Directions, coordinates, lag_covariances, with_horizon
from dsa_analysis.data import DataError, check_count
from dsa_analysis.dmd import Operator, as_noise_variance, largest_rank, solve
from dsa_analysis.embedding import NOISE_ESTIMATORS, EmbeddingParameters
from dsa_analysis.metrics import as_pairs

if TYPE_CHECKING:
    import pandas as pd

DELAYS = (1, 2, 3, 5, 8, 12, 20)
COARSE_DELAYS = (1, 3, 8, 20)  # where horizons are chosen too, which multiplies the cells
N_HORIZONS = 9
LARGEST_RANK = 20
MOST_ENTRIES = 4000  # of a window: the lag covariances grow as its square
MOST_SYSTEMS = 12  # whose halves are aligned; more make the choice slower, not better
MOST_TRIALS = 10  # held-out trials that are predicted
LEAST_GAP = 1.2
DECORRELATED = math.exp(-1)  # mean eigenvalue of operators below which a horizon is one of the system's own time


class Cell(NamedTuple):
    """One candidate; delays and horizon are counted in samples of the system that is sampled most slowly."""

    n_delays: int
    rank: int
    horizon: int


@dataclass(frozen=True)
class Grid:
    """The candidates, and how a cell becomes the embedding of each system."""

    how: Comparison
    trials: dict[str, list[Tensor]]
    delays: list[int]
    ranks: list[int]
    horizons: list[int]
    by_data: bool = False  # whether horizons are those of "auto"

    @classmethod
    def of(cls, how: Comparison, trials: dict[str, list[Tensor]], candidates: dict[str, Any]) -> "Grid":
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

    def cells(self, n_channels: int) -> list[Cell]:
        cells = [Cell(m, r, s) for m in self.delays for r in self.ranks for s in self.horizons if r <= m * n_channels]
        if not cells:
            raise DataError(
                f"no rank fits: a window holds at most {max(self.delays) * n_channels} entries; offer smaller ones"
            )
        return cells

    def comparison(self, cell: Cell) -> Comparison:
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

    def index(self, cells: list[Cell]) -> "pd.MultiIndex":
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


class Measured:
    """Operators of all systems, and of the halves of some, at every cell, from one pass over the trials each."""

    def __init__(self, grid: Grid, progress: bool) -> None:
        self.grid, names = grid, list(grid.trials)
        spread = {names[i] for i in np.linspace(0, len(names) - 1, MOST_SYSTEMS).round().astype(int)}
        self.whole: dict[str, SystemCells] = {}
        self.halves: dict[str, list[SystemCells]] = {}
        bar = tqdm(grid.trials.items(), desc="fitting", delay=2, leave=False, disable=not progress)
        for name, parts in bar:
            self.whole[name] = SystemCells(grid, name, parts)
            if name in spread and len(parts) >= 2:
                self.halves[name] = [SystemCells(grid, name, parts[start::2]) for start in (0, 1)]

    def look(self, cell: Cell) -> dict[str, Any]:
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

    def split_half(self, cell: Cell) -> np.ndarray:
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


class SystemCells:
    """The directions of some trials of a system under every window and horizon."""

    def __init__(self, grid: Grid, name: str, trials: list[Tensor]) -> None:
        self.grid, self.name, self.trials = grid, name, trials
        self.noise = grid.how.noise_of(name)
        self.directions: dict[tuple[int, int], Directions] = {}
        first, *others = grid.horizons
        products = lag_covariances(trials, self.embedding(Cell(max(grid.delays), max(grid.ranks), first)), name)
        for m in grid.delays:
            p = self.embedding(Cell(m, max(grid.ranks), first))
            found = self.directions[m, first] = products.shortened(p.n_delays).directions(p.rank)
            v = coordinates(found, trials, p) if others else []
            for horizon in others:  # the same directions, which do not depend on it
                p = self.embedding(Cell(m, max(grid.ranks), horizon))
                self.directions[m, horizon] = with_horizon(found, v, trials, p)

    def embedding(self, cell: Cell) -> EmbeddingParameters:
        return self.grid.comparison(cell).embedding(self.name)

    def found(self, cell: Cell) -> Directions:
        return self.directions[cell.n_delays, cell.horizon]

    def _variance(self, cell: Cell) -> Tensor:
        return as_noise_variance(self.noise, self.found(cell), self.embedding(cell), self.name)

    def operator(self, cell: Cell) -> Operator:
        return solve(self.found(cell), self.embedding(cell), self._variance(cell))

    def memory(self, cell: Cell) -> float:
        """Mean eigenvalue of the operator: the autocorrelation left after the horizon, over whitened directions."""
        return float(self.operator(cell).matrix.diagonal().mean())

    def reaches(self, cell: Cell) -> bool:
        """Whether the data resolve the rank, with ten transitions for each dimension."""
        found = self.found(cell)
        if found.n_transitions < 10 * cell.rank:
            return False
        return largest_rank(found, self.embedding(cell), self._variance(cell)) == cell.rank

    def above_noise(self, cell: Cell) -> bool:
        """Whether direction ``rank`` varies more than the largest direction of white noise would; yes if unknown."""
        found = self.found(cell)
        if cell.rank > found.rank:
            return False
        noise = float(found.noise(self._variance(cell)).diagonal()[cell.rank - 1]) / found.n_transitions
        edge = (found.n_windows**0.5 + len(found.basis) ** 0.5) ** 2
        return not noise * edge >= 1

    def prediction_error(self, cell: Cell, held_out: "SystemCells") -> float:
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
