"""The candidates of `choose_embedding`, called cells, and the operators of all systems for each.

A cell is a number of delays, a rank and a horizon. Lag covariances, computed in one pass over the trials of a system,
give the directions for each number of delays; they are the same for all ranks and horizons (see `covariances`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dsa_analysis.comparison import AUTO, Comparison
from dsa_analysis.covariances import Directions, coordinates, lag_covariances, with_horizon
from dsa_analysis.data import DataError, check_count
from dsa_analysis.display import bars_go_to
from dsa_analysis.dmd import Operator, as_noise_variance, largest_rank, solve
from dsa_analysis.embedding import NOISE_ESTIMATORS, EmbeddingParameters
from dsa_analysis.metrics import as_pairs
from dsa_analysis.operators import Key, needed

if TYPE_CHECKING:
    import pandas as pd

DELAYS = (1, 2, 3, 5, 8, 12, 20)
COARSE_DELAYS = (1, 3, 8, 20)  # if horizons are chosen too, which multiplies the number of cells
N_HORIZONS = 17
LARGEST_RANK = 20
MOST_ENTRIES = 4000  # of a window: memory grows with its square
MOST_SYSTEMS = 12  # whose halves are aligned; with more the choice is slower, not better
MOST_TRIALS = 10  # held-out trials that are predicted
LEAST_GAP = 1.1  # below it, the cut is inside a cluster of singular values, where directions turn with the noise
LEAST_RANK = 3  # smaller operators contain too little
DECORRELATED = math.exp(-1)  # memory that is left over an admissible horizon


class Cell(NamedTuple):
    """One candidate; delays and horizon are counted in samples of the system with the largest sampling interval."""

    n_delays: int
    rank: int
    horizon: int


@dataclass(frozen=True)
class Grid:
    """All candidates, and the embedding of each system for a cell."""

    how: Comparison
    trials: dict[str, list[Tensor]]
    delays: list[int]
    ranks: list[int]
    horizons: list[int]
    by_data: bool = False  # whether the horizons are those of "auto"
    _comparisons: dict[Cell, Comparison] = field(default_factory=dict, compare=False)  # made once for each cell

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
        """The largest sampling interval; None if ``dt`` was not given."""
        return None if self.how.dt is None else max(self.how.interval(name) or 0.0 for name in self.trials)

    @property
    def lengths(self) -> list[int]:
        """Lengths of all trials in units of the largest sampling interval."""
        ratio = {name: 1.0 if self.slowest is None else self.how.interval(name) / self.slowest for name in self.trials}  # type: ignore[operator]
        return [int(len(trial) * ratio[name]) for name, parts in self.trials.items() for trial in parts]

    def _delays(self, n_delays: Any, default: Sequence[int]) -> list[int]:
        """The requested candidates, or the default ones whose windows fit (and give the noise variance if needed)."""
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
        """Candidates in units of the largest sampling interval, and whether they depend on the data."""
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
                f"no rank fits: a window holds at most {max(self.delays) * n_channels} entries; give smaller ranks"
            )
        return cells

    def beside(self, cell: Cell) -> list[Cell]:
        """The same cell at the next shorter and at the next longer horizon."""
        place = self.horizons.index(cell.horizon)
        near = self.horizons[max(0, place - 1) : place] + self.horizons[place + 1 : place + 2]
        return [cell._replace(horizon=horizon) for horizon in near]

    def comparison(self, cell: Cell) -> Comparison:
        """The comparison for a cell, in times if sampling intervals differ or if times were given."""
        if cell not in self._comparisons:
            self._comparisons[cell] = self._comparison(cell)
        return self._comparisons[cell]

    def _comparison(self, cell: Cell) -> Comparison:
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
        """A horizon in the unit of the table."""
        return steps if self.slowest is None else steps * self.slowest

    def applications(self, horizon: int) -> int:
        """Applications of the operator for the prediction error: about one longest window ahead."""
        return max(1, math.ceil(max(self.delays) * self.how.delay_interval / horizon))


class Measured:
    """Operators of all systems, and of the halves of some, for every cell, from one pass over the trials each."""

    def __init__(self, grid: Grid, progress: bool) -> None:
        self.grid, names = grid, list(grid.trials)
        spread = {names[i] for i in np.linspace(0, len(names) - 1, MOST_SYSTEMS).round().astype(int)}
        self.whole: dict[str, SystemCells] = {}
        self.halves: dict[str, list[SystemCells]] = {}
        bar = tqdm(grid.trials.items(), desc="fitting", delay=2, leave=False, file=bars_go_to(), disable=not progress)
        for name, parts in bar:
            self.whole[name] = SystemCells(grid, name, parts, memory=True)
            if name in spread and len(parts) >= 2:
                self.halves[name] = [SystemCells(grid, name, parts[start::2]) for start in (0, 1)]
        self.memory = {m: [self._memory(m, horizon) for horizon in grid.horizons] for m in grid.delays}

    def _memory(self, n_delays: int, horizon: int) -> float:
        """Autocorrelation of the leading directions over a horizon, relative to the shortest one; median of systems.

        White noise lowers both in the same way, and the ratio is that of the signal.
        """
        shortest = self.grid.horizons[0]
        left = [one.memory[n_delays, horizon] / one.memory[n_delays, shortest] for one in self.whole.values()]
        return float(np.median(left))

    @property
    def n_channels(self) -> int:
        """Channels of the system that has the fewest."""
        return min(parts[0].shape[1] for parts in self.grid.trials.values())

    @property
    def forgets(self) -> bool:
        """Whether the systems lose their memory over some horizon of the grid."""
        return any(left <= DECORRELATED for memory in self.memory.values() for left in memory)

    def moved_on(self, cell: Cell) -> bool:
        """Whether the horizon of a cell is that over which the systems lose their memory; True if there is none.

        Of the horizons before and after memory first falls through 1 / e, the one where it is nearer to that.
        """
        if not self.grid.by_data or not self.forgets:
            return True
        memory = self.memory[cell.n_delays]
        after = next((place for place, left in enumerate(memory) if left <= DECORRELATED), None)
        if after is None:
            return False
        nearest = min((max(after - 1, 0), after), key=lambda place: abs(memory[place] - DECORRELATED))
        return cell.horizon == self.grid.horizons[nearest]

    def glance(self, cell: Cell) -> dict[str, Any]:
        """The columns of the table that are there for all cells."""
        gaps = np.array([of.first[cell.n_delays].gap(cell.rank) for of in self.whole.values()])
        cut = gaps[np.isfinite(gaps)]  # systems in which directions are cut off
        return {
            "gap": float(np.exp(np.log(cut).mean())) if len(cut) else np.inf,
            "memory": self.memory[cell.n_delays][self.grid.horizons.index(cell.horizon)],
            "moved_on": self.moved_on(cell),
        }

    def look(self, cell: Cell) -> dict[str, Any]:
        """All columns of the table that need no alignment, for a cell with an admissible horizon."""
        found, resolved = self.glance(cell), self.resolved(cell)
        above_noise = all(of.above_noise(cell) for of in self.whole.values())
        enough = cell.rank >= min(
            LEAST_RANK, *(len(of.first[max(self.grid.delays)].basis) for of in self.whole.values())
        )
        clear = found["gap"] >= LEAST_GAP and found["moved_on"]
        errors = [even.prediction_error(cell, odd) for even, odd in self.halves.values()] if resolved else []
        return found | {
            "resolved": resolved,
            "above_noise": above_noise,
            "admissible": resolved and above_noise and enough and clear,
            "prediction_error": float(np.median(errors)) if errors else np.nan,
        }

    def resolved(self, cell: Cell) -> bool:
        """Whether the data of all systems and halves resolve the rank."""
        everyone = [*self.whole.values(), *(half for halves in self.halves.values() for half in halves)]
        return all(of.reaches(cell) for of in everyone)

    def split_half(self, cell: Cell) -> np.ndarray:
        """Distances (k, k) of the even trials of each system to the odd trials of all, by the metric."""
        metric, k = self.grid.how.metric, len(self.halves)
        operators = needed(
            {Key(name, side): halves[side].operator(cell) for side in (0, 1) for name, halves in self.halves.items()},
            self.grid.how,
        )
        first, second = torch.cartesian_prod(torch.arange(k), torch.arange(k)).T.to(operators.device)  # type: ignore[union-attr]
        options = {name: value for name, value in self.grid.how.options().items() if name not in ("names", "n_sweeps")}
        found = metric.distances(operators[first], operators[second + k], **options)
        return as_pairs(metric, found, k * k).distance.view(k, k).cpu().numpy()


class SystemCells:
    """The directions of some trials of a system for every window, and with ``memory`` that over every horizon."""

    def __init__(self, grid: Grid, name: str, trials: list[Tensor], memory: bool = False) -> None:
        self.grid, self.name, self.trials = grid, name, trials
        self.noise = grid.how.noise_of(name)
        self.first: dict[int, Directions] = {}  # by n_delays, at the shortest horizon
        self.others: dict[tuple[int, int], Directions] = {}  # at other horizons, as they are needed
        self.memory: dict[tuple[int, int], float] = {}
        self._embeddings: dict[Cell, EmbeddingParameters] = {}  # made once for each cell
        top, shortest = max(grid.ranks), grid.horizons[0]
        products = lag_covariances(trials, self.embedding(Cell(max(grid.delays), top, shortest)), name)
        for m in grid.delays:
            p = self.embedding(Cell(m, top, shortest))
            self.first[m] = products.shortened(p.n_delays).directions(p.rank)
            if memory:
                self.memory |= {
                    (m, horizon): left for horizon, left in zip(grid.horizons, self._memory(m), strict=True)
                }

    def embedding(self, cell: Cell) -> EmbeddingParameters:
        if cell not in self._embeddings:
            self._embeddings[cell] = self.grid.comparison(cell).embedding(self.name)
        return self._embeddings[cell]

    def found(self, cell: Cell) -> Directions:
        first, place = self.first[cell.n_delays], (cell.n_delays, cell.horizon)
        if cell.horizon == self.grid.horizons[0]:
            return first
        if place not in self.others:  # with the same directions, which do not depend on the horizon
            p = self.embedding(cell._replace(rank=max(self.grid.ranks)))
            self.others[place] = with_horizon(first, coordinates(first, self.trials, p), self.trials, p)
        return self.others[place]

    def _memory(self, n_delays: int) -> list[float]:
        """For each horizon the mean autocorrelation of the leading directions: the mean eigenvalue; NaN if none."""
        first, rank = self.first[n_delays], LEAST_RANK
        cells = [Cell(n_delays, max(self.grid.ranks), horizon) for horizon in self.grid.horizons]
        v = [part[:, :rank] for part in coordinates(first, self.trials, self.embedding(cells[0]))]
        leading, left = replace(first, basis=first.basis[:, :rank]), []
        for cell in cells:
            p = replace(self.embedding(cell), rank=min(rank, leading.rank))
            found = with_horizon(leading, v, self.trials, p)
            variance = as_noise_variance(self.noise, found, p, self.name)
            p = replace(p, rank=largest_rank(found, p, variance))
            left.append(float(solve(found, p, variance).matrix.diagonal().mean()) if p.rank else np.nan)
        return left

    def _variance(self, cell: Cell) -> Tensor:
        return as_noise_variance(self.noise, self.found(cell), self.embedding(cell), self.name)

    def operator(self, cell: Cell) -> Operator:
        return solve(self.found(cell), self.embedding(cell), self._variance(cell))

    def reaches(self, cell: Cell) -> bool:
        """Whether the data resolve the rank, with ten transitions for each dimension."""
        found = self.found(cell)
        if found.n_transitions < 10 * cell.rank:
            return False
        return largest_rank(found, self.embedding(cell), self._variance(cell)) == cell.rank

    def above_noise(self, cell: Cell) -> bool:
        """Whether direction ``rank`` varies more than the largest direction of white noise; True if it is unknown."""
        found = self.found(cell)
        if cell.rank > found.rank:
            return False
        noise = float(found.noise(self._variance(cell)).diagonal()[cell.rank - 1]) / found.n_transitions
        edge = (found.n_windows**0.5 + len(found.basis) ** 0.5) ** 2
        return not noise * edge >= 1

    def prediction_error(self, cell: Cell, held_out: "SystemCells") -> float:
        """`Operator.prediction_error` on some trials of the other half; NaN if none is long enough."""
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
