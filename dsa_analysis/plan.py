"""How much to record: the noise floor to expect of other numbers and lengths of trials.

The floor of a design within the data is measured: trials are drawn from what is there, cut to the length of the design,
and the noise floor is computed, several times. Beyond the data it is extrapolated by a power law,

    log floor = a - b log n_trials - c log n_windows,

fitted to floors of smaller designs (n_windows are those of a trial). Errors of operators fall with the square root of
the number of samples, so b and c are expected near 1/2 (of metrics that take a root of these errors, near a smaller
number, `Metric.error_exponent` / 2), and few trials do not determine them well: the fit has normal priors there.
Floors vary from recording to recording, so intervals are for the floor of one recording. They hold the variance of
single floors, taken from subsets of at most half of the trials, and that of the fit.
"""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import ndtri
from torch import Tensor

from dsa_analysis.comparison import AUTO, Comparison, as_comparison
from dsa_analysis.data import DataError, as_device, as_systems, as_trials, check_count, check_number
from dsa_analysis.display import Card, Shown, listed
from dsa_analysis.inputs import match
from dsa_analysis.operators import Key, as_inputs, refuse_operators
from dsa_analysis.replicates import between_halves, refuse_without_floor

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

FEWEST = 8  # trials from which is extrapolated: the smallest designs have a quarter of them
ROUNDING = 1e-9  # floors below are errors of rounding
N_SIZES = 5  # numbers of trials, and lengths, that a power law is fitted to
PRIOR = np.array([0.25, 0.25])  # standard deviations of b and c, if errors and distances are proportional
DESIGN = ("n_trials", "trial_length", "n_delays", "rank")


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """The noise floor to expect of each design.

    Attributes
    ----------
    table : DataFrame
        A row for each system and design: ``system``, ``n_trials``, ``trial_length`` (NaN for whole trials),
        ``n_delays``, ``rank``, ``floor`` (median over recordings of this design), its interval ``low`` to ``high``
        (where the floor of one recording falls) and ``measured`` (false if it is extrapolated).
    laws : DataFrame
        A row for each system, ``n_delays`` and ``rank`` that is extrapolated: the exponents ``by_trials`` (b) and
        ``by_length`` (c, NaN if lengths are not asked for), and the standard error of each.
    confidence : float
    unit : str
        Of the metric.
    """

    table: "pd.DataFrame"
    laws: "pd.DataFrame"
    confidence: float
    unit: str

    def to_dataframe(self) -> "pd.DataFrame":
        """A copy of ``table``."""
        return self.table.copy()

    def plot(self, axes: "Axes | None" = None) -> "Axes":
        """Draw floors over what differs between designs: filled dots are measured, open ones extrapolated.

        Parameters
        ----------
        axes : matplotlib Axes, optional
            By default those of a new figure.
        """
        from dsa_analysis import plotting

        return plotting.plot_plan(self, plotting.new_axes((6, 4)) if axes is None else axes)

    def _card(self) -> Card:
        table = self.table
        rows = {"systems": listed(dict.fromkeys(table["system"]))}
        for name in DESIGN:
            if len(values := table[name].dropna().unique()):
                rows[name] = ", ".join(f"{value:g}" for value in values)
        rows["measured"] = f"{int(table['measured'].sum())} of {len(table)}"
        for at in (0, len(table) - 1):
            one = table.iloc[at]
            floor = f"{one['floor']:.3g} ({one['low']:.3g} to {one['high']:.3g}) {self.unit}"
            rows[f"floor, {one['n_trials']} trials"] = floor
        if len(self.laws):
            rows["falls as"] = f"n_trials^-{self.laws['by_trials'].median():.2f} (median)"
        return Card(
            f"Plan: {len(table)} noise floors to expect, {self.confidence:.0%} intervals",
            rows,
            ".table, .laws, .plot()",
        )


class _Size(NamedTuple):
    """Trials of a recording, and how many samples are used of each (None for all)."""

    n_trials: int
    length: int | None


def plan(
    systems: Any,
    how: Comparison | None = None,
    *,
    n_trials: Sequence[int] | int | None = None,
    trial_length: Sequence[int] | int | None = None,
    n_delays: Sequence[int] | int | None = None,
    rank: Sequence[int] | int | None = None,
    inputs: Any = None,
    n_repeats: int = 10,
    n_splits: int = 5,
    confidence: float = 0.95,
    device: str | None = None,
    progress: bool = True,
    **choices: Any,
) -> Plan:
    """Noise floors to expect of recordings of other sizes, from a recording that is there.

    All combinations of the given values are designs. More trials than there are, and longer ones, are extrapolated;
    everything else is measured in random subsets of the data. Other delays and ranks are always measured or
    extrapolated by a law of their own.

    How often 95% intervals held was measured by ``python -m benchmarks.plan``; see docs/trust.md.

    Parameters
    ----------
    systems : mapping from name to system, or one system, as data
        A pilot recording, or several.
    how : Comparison, optional
        As for `compare`. Its seed is also used to draw the subsets.
    n_trials : int >= 2, or several, optional
        By default what is there, twice and four times that.
    trial_length : int, in samples, or several, optional
        Samples used of each trial, from its start. By default whole trials. Longer trials than there are are assumed to
        go on as these do.
    n_delays, rank : int >= 1, or several, optional
        By default those of ``how``.
    inputs : as in `noise_floor`, optional
    n_repeats : int >= 5
        Subsets of each size. Time grows in proportion.
    n_splits : int >= 1
        As in `noise_floor`, whose result is predicted.
    confidence : float in (0, 1)
        Of the intervals.
    device, progress
        As in `noise_floor`.
    **choices
        Fields of `Comparison`, which override those of ``how``.

    Returns
    -------
    Plan

    Raises
    ------
    DataError
        Designs that are too small for the rank (they are named), fewer than 8 trials to extrapolate from, floors that
        are exactly 0, choices that are "auto", or anything that `noise_floor` refuses.
    """
    import pandas as pd

    cells = _cells(as_comparison(how, choices), n_delays, rank)
    single = not isinstance(systems, Mapping)
    named = as_systems({"system": systems} if single else systems)
    refuse_operators(named, "a plan needs data", matrices=False)
    for name, value, least in (("n_repeats", n_repeats, 5), ("n_splits", n_splits, 1)):
        check_count(name, value, least)
    if not 0 < check_number("confidence", confidence, "a fraction") < 1:
        raise DataError(f"confidence = {confidence!r} is not between 0 and 1")
    given = as_inputs({"system": inputs} if single and inputs is not None else inputs, named)
    trials = {name: as_trials(system, name, as_device(device)) for name, system in named.items()}
    drives = {name: match(named[name], own, name, as_device(device))[1] for name, own in given.items()}
    lengths = [None] if trial_length is None else _counts("trial_length", trial_length, 2)
    targets = {name: _targets(name, own, n_trials, lengths) for name, own in trials.items()}
    rows, laws = [], []
    for (name, own), cell in itertools.product(trials.items(), cells):
        floors = _Floors(name, own, drives.get(name), cell, n_repeats, n_splits, progress)
        design = {"n_delays": cell.n_delays, "rank": cell.rank}
        wanted = [size for size in targets[name] if floors.within(size)]
        beyond = [size for size in targets[name] if size not in wanted]
        ladder = floors.ladder(beyond) if beyond else []
        measured = floors.measure([*wanted, *ladder, *floors.halved(wanted)])
        variance = floors.variance(measured)
        law = _Law.fit({size: measured[size] for size in ladder}, floors, variance) if beyond else None
        for size in targets[name]:
            known = size in wanted
            logs = np.log(measured[size]) if known else None
            expected, error = law.predict(size) if logs is None else (logs.mean(), variance / len(logs))  # type: ignore[union-attr]
            half = ndtri((1 + confidence) / 2) * (variance + error) ** 0.5
            low, floor, high = np.exp([expected - half, expected, expected + half]).tolist()
            length = np.nan if size.length is None else size.length
            at = {"system": name, "n_trials": size.n_trials, "trial_length": length}
            rows.append({**at, **design, "floor": floor, "low": low, "high": high, "measured": known})
        if law is not None:
            laws.append({"system": name, **design, **law.exponents()})
    unit = cells[0].metric.unit
    return Plan(pd.DataFrame(rows), pd.DataFrame(laws), confidence, unit)


# ---- designs ---------------------------------------------------------------------------------------------------------


def _cells(how: Comparison, n_delays: Any, rank: Any) -> list[Comparison]:
    """The comparison with each of the given delays and ranks."""
    refuse_without_floor(how)
    axes = {
        name: _counts(name, values) for name, values in (("n_delays", n_delays), ("rank", rank)) if values is not None
    }
    cells = [
        how.override(**dict(zip(axes, values, strict=True)), on_rank="error")
        if how.metric.needs != "trials" or axes
        else how
        for values in itertools.product(*axes.values())
    ]
    for name in ("n_delays", "rank", "horizon"):
        if getattr(cells[0], name) == AUTO:
            raise DataError(f"{name} = 'auto' has to be chosen first, by choose_embedding")
    return cells


def _counts(name: str, values: Any, least: int = 1) -> list[int]:
    """One or several counts, ascending, each once."""
    several = values if isinstance(values, (Sequence, range, np.ndarray)) and not isinstance(values, str) else [values]
    if not len(several):
        raise DataError(f"{name} is empty; give at least one number")
    return sorted({check_count(name, value, least) for value in several})


def _targets(name: str, trials: list[Tensor], n_trials: Any, lengths: Sequence[int | None]) -> list[_Size]:
    if len(trials) < 2:
        raise DataError(f"system {name!r} has one trial; a floor needs two halves, so at least 2 trials")
    counts = [k * len(trials) for k in (1, 2, 4)] if n_trials is None else _counts("n_trials", n_trials, 2)
    return [_Size(n, length) for n in counts for length in lengths]


# ---- floors that are measured ----------------------------------------------------------------------------------------


class _Floors:
    """Noise floors of subsets of the trials of a system."""

    def __init__(
        self,
        name: str,
        trials: list[Tensor],
        inputs: list[Tensor] | None,
        how: Comparison,
        n_repeats: int,
        n_splits: int,
        progress: bool,
    ) -> None:
        self.name, self.trials, self.inputs, self.how = name, trials, inputs, how
        self.n_repeats, self.n_splits, self.progress = n_repeats, n_splits, progress
        self.shortest = min(map(len, trials))
        self.past = 0  # samples of a trial that start no window
        if how.metric.needs != "trials":
            embedding = how.embedding(name, inputs=inputs is not None)
            self.past = embedding.window - 1 + embedding.steps_ahead

    def within(self, size: _Size) -> bool:
        return size.n_trials <= len(self.trials) and (size.length is None or size.length <= self.shortest)

    def windows(self, size: _Size) -> int:
        return (self.shortest if size.length is None else size.length) - self.past

    def ladder(self, beyond: Sequence[_Size]) -> list[_Size]:
        """Sizes within the data from which those ``beyond`` are extrapolated."""
        n, longest = len(self.trials), self.shortest
        if n < FEWEST:
            raise DataError(
                f"system {self.name!r} has {n} trials, from which the floor of {beyond[0].n_trials} trials"
                + f" of {beyond[0].length} samples" * (beyond[0].length is not None)
                + f" cannot be extrapolated; at least {FEWEST} are needed"
            )
        counts = sorted({2 * round(k / 2) for k in np.geomspace(max(4, n / 4), n - n % 2, N_SIZES)})
        if beyond[0].length is None:
            return [_Size(k, None) for k in counts]
        least = self.past + max(2, (longest - self.past) // 4)
        lengths = sorted({round(k) for k in np.geomspace(least - self.past, longest - self.past, N_SIZES - 1)})
        return [_Size(k, length + self.past) for k in counts for length in lengths]

    def halved(self, sizes: Sequence[_Size]) -> list[_Size]:
        """Sizes of half of the trials, as subsets of more share too many to tell how floors vary."""
        n = max(2, len(self.trials) // 2)
        return [_Size(n, size.length) for size in sizes if size.n_trials > n]

    def variance(self, measured: Mapping[_Size, np.ndarray]) -> float:
        """Variance of the logarithm of the floor of one recording, which hardly depends on its size.

        Subsets of n of N trials share n / N of them, so their floors vary less than those of recordings. Of several
        sizes the largest variance is taken, because floors of very few trials are near their upper limit.
        """
        n = len(self.trials)
        own = {size: np.log(floors).var(ddof=1) for size, floors in measured.items() if size.n_trials <= max(2, n // 2)}
        return float(max(value / max(0.5, 1 - size.n_trials / n) for size, value in own.items()))

    def measure(self, sizes: Sequence[_Size]) -> dict[_Size, np.ndarray]:
        """Floors (n_repeats,) of each size, the smallest first, so that what is too small is refused early."""
        order = sorted(set(sizes), key=lambda size: (size.n_trials, size.length or 0))
        generator = np.random.default_rng(self.how.seed)
        halves: list[dict[Key, Any]] = [{}, {}]
        drives: dict[Key, Any] = {}
        for at, size in enumerate(order):
            called = f"{self.name}, {size.n_trials} trials" + f" of {size.length} samples" * (size.length is not None)
            if self.windows(size) < 1:
                raise DataError(
                    f"system {called!r}: a trial of {size.length} samples holds no window and what it predicts, which "
                    f"take {self.past + 1}; leave this trial_length out, or lower n_delays or the horizon"
                )
            for repeat, split in itertools.product(range(self.n_repeats), range(self.n_splits)):
                if not split:
                    drawn = generator.permutation(len(self.trials))[: size.n_trials]
                half, place = len(drawn) // 2, (at * self.n_repeats + repeat) * self.n_splits + split
                order_of = generator.permutation(drawn)
                for side, chosen in enumerate((order_of[:half], order_of[half : 2 * half])):
                    key = Key(self.name, 2 * place + side, called=f"{called} (half of them)")
                    halves[side][key] = [self.trials[k][: size.length] for k in np.sort(chosen)]
                    if self.inputs is not None:
                        drives[key] = [self.inputs[k][: size.length] for k in np.sort(chosen)]
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # about operators of subsets
            found = between_halves(halves, self.how, drives, self.progress)
        floors = found.reshape(len(order), self.n_repeats, self.n_splits).mean(2)
        if not (floors > ROUNDING).all():
            raise DataError(
                f"system {self.name!r}: halves of its trials are at distance 0, so there is no floor to extrapolate "
                f"(the data have no noise, or rank = 1)"
            )
        return dict(zip(order, floors, strict=True))


# ---- extrapolation ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Law:
    """A power law of the floor, fitted to repeated floors of several sizes."""

    floors: _Floors
    coefficients: np.ndarray
    covariance: np.ndarray  # of the coefficients

    @classmethod
    def fit(cls, measured: Mapping[_Size, np.ndarray], floors: _Floors, variance: float) -> "_Law":
        """Bayesian linear regression with a flat prior of a and normal ones of b and c."""
        X = np.array([_regressors(size, floors) for size in measured])
        means = np.array([np.log(own).mean() for own in measured.values()])
        # the data are a few disjoint recordings of this size, however many subsets are drawn from them
        recordings = np.array([len(floors.trials) / size.n_trials for size in measured]).mean()
        slopes = X.shape[1] - 1
        power = getattr(floors.how.metric, "error_exponent", 1.0)
        prior = np.diag(np.r_[0.0, (power * PRIOR[:slopes]) ** -2.0])
        center = np.r_[0.0, np.full(slopes, -power / 2)]
        precision = recordings / variance
        covariance = np.linalg.inv(precision * X.T @ X + prior)
        return cls(floors, covariance @ (precision * X.T @ means + prior @ center), covariance)

    def predict(self, size: _Size) -> tuple[float, float]:
        """Expected logarithm of the floor, and the variance of this expectation."""
        x = _regressors(size, self.floors)
        return float(x @ self.coefficients), float(x @ self.covariance @ x)

    def exponents(self) -> dict[str, float]:
        values, errors = -self.coefficients[1:], np.sqrt(self.covariance.diagonal()[1:])
        values, errors = (np.r_[some, [np.nan] * (2 - len(some))].tolist() for some in (values, errors))
        return {"by_trials": values[0], "error": errors[0], "by_length": values[1], "error_by_length": errors[1]}


def _regressors(size: _Size, floors: _Floors) -> np.ndarray:
    n = 2 * (size.n_trials // 2)  # halves are equal
    return np.array([1.0, np.log(n)] + [np.log(floors.windows(size))] * (size.length is not None))
