"""Explains a distance: divides the difference between two aligned operators among the modes of each system.

A and B have unit norm, and C is the best alignment. Then A and C B C^T describe both systems in the same coordinates,
and their difference E = A - C B C^T has the squared size

    |E|^2 = 2 - 2 cos(distance) = sum over modes of |E q|^2,

for the vectors q of any orthonormal basis. This module uses the orthonormal basis nearest to the eigenvectors of the
system (Loewdin 1950). It does not depend on the order of the modes, keeps conjugate pairs, and consists of the
eigenvectors if the operator is normal. |E q|^2 measures how differently the two systems change a state along that mode.
As fractions of |E|^2 these values are not negative and add up to 1.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from dsa_analysis.alignment import align, as_operators
from dsa_analysis.data import DataError, check_choice
from dsa_analysis.display import Card, Shown, digits
from dsa_analysis.metrics import Stored, takes
from dsa_analysis.similarity import Similarity
from dsa_analysis.spectra import aliases, frequencies, time_constants

if TYPE_CHECKING:
    import pandas as pd

SAME = 1e-7  # rad; closer operators differ by rounding
HERTZ = {"ms": 1000.0, "s": 1.0}  # units of time whose frequencies are in Hz -> of one per unit


@dataclass(frozen=True, repr=False)
class Explanation(Shown):
    """The difference between two systems, mode by mode.

    Attributes
    ----------
    names : (str, str)
        Labels of the two systems.
    first, second : (n, n)
        The aligned operators, of unit norm, in common coordinates: the modes of the first system, the slowest first, so
        that ``first`` is nearly block-diagonal.
    modes : pandas.DataFrame
        One row for each mode of each system; a conjugate pair is one mode. Columns: system; eigenvalue of the fitted
        operator, with imaginary part >= 0; time_constant (negative for modes that grow); frequency; could_be, a tuple
        of all frequencies that the operator cannot tell from this one; and share, the fraction of the squared
        difference, in [0, 1]. The shares of one system add up to 1. They are NaN if there is no difference.
    distance : float, in rad
    unit : str
        Of time constants: "ms", "s", the name that was given, or "unit of dt".
    """

    names: tuple[str, str]
    first: Tensor
    second: Tensor
    modes: "pd.DataFrame"
    distance: float
    unit: str = "ms"

    @property
    def frequency_unit(self) -> str:
        """Of frequencies: "Hz" if time is in ms or s, and otherwise "per" unit of time."""
        return "Hz" if self.unit in HERTZ else f"per {self.unit}"

    def _card(self) -> Card:
        rows = {"distance": f"{self.distance:.3g} rad"}
        for name, modes in self.modes.groupby("system", sort=False):
            most = modes.loc[modes["share"].idxmax()] if modes["share"].notna().any() else None
            if most is not None:
                lasts = f"{digits(most['time_constant'])} {self.unit}" if most["time_constant"] > 0 else "growing"
                mode = f"{digits(most['frequency'])} {self.frequency_unit}, {lasts}"
                rows[f"most in {name}"] = f"{most['share']:.0%} in the mode of {mode}"
        doors = ".modes (a table), plotting.plot_explanation(explanation, four axes)"
        return Card(f"What sets {self.names[0]} and {self.names[1]} apart", rows, doors)


def explain(
    similarity: Similarity,
    first: str,
    second: str,
    *,
    dt: float | None = None,
    unit: str | None = None,
    window: str | None = None,
) -> Explanation:
    """Divide the difference between two systems among their modes.

    Parameters
    ----------
    similarity : Similarity
        With a metric that aligns operators, such as "angular".
    first, second : str
        Labels of a row and a column of ``similarity``.
    dt : float > 0, optional
        Sampling interval, for time constants and frequencies. By default that of the comparison.
    unit : str, optional
        Unit of ``dt``: "ms", "s", or a name such as "model time". By default "ms" for a ``dt`` that is given here. A
        comparison does not know the unit of its own; then frequencies are per unit of that.
    window : str, optional
        Name of a window; required if systems were compared window by window, because each window has its own operator.

    Returns
    -------
    Explanation

    Raises
    ------
    DataError
        An unknown label or window, a window that is missing or that was given for whole trials, a metric without
        alignment, or no positive sampling interval.

    Warns
    -----
    UserWarning
        If operators predict several samples ahead, so that a frequency may be an alias of a higher one.
    """
    measure = similarity.measure
    alone = measure.needs == "operators" or (measure.needs == "driven" and not getattr(measure, "takes_inputs", True))
    aligns = alone and (takes(measure, "n_starts") or isinstance(measure, Stored))
    if not aligns:
        raise DataError(
            f"metric = {similarity.metric!r} aligns no operators, so there is nothing to explain; compare with "
            f"metric = 'angular'"
        )
    if first == second and not similarity.two_sided:
        raise DataError(f"first and second are both {first!r}; name two systems")
    check_choice("first", first, similarity.labels)
    check_choice("second", second, similarity.other_labels)
    how = similarity.comparison
    intervals = [how.interval(name) if dt is None else dt for name in (first, second)]
    for interval in intervals:
        if interval is None:
            raise DataError("the sampling interval is not known: give dt in ms here, or compare with dt")
        if not interval > 0:
            raise DataError(f"dt = {interval!r} is not a time above 0")
    unit = unit or ("unit of dt" if dt is None else "ms")
    per = HERTZ.get(unit, 1.0)
    import pandas as pd

    originals = similarity.operators[first], similarity.other_operators[second]
    windows = list(how.windows or ())
    if windows and window is None:
        raise DataError(
            f"systems were compared window by window; give window as one of {', '.join(map(repr, windows))}"
        )
    if window is not None:
        if not windows:
            raise DataError(f"window = {window!r} came, but whole trials were compared; leave window out")
        check_choice("window", window, windows)
        originals = originals[0][windows.index(window)], originals[1][windows.index(window)]
    solved = align(
        *originals, n_starts=how.n_starts, group=how.group, remove_trace=how.remove_trace, seed=how.seed, device="cpu"
    )
    scaled = [_Unit.of(getattr(original, "matrix", original), how.remove_trace) for original in originals]
    A, M = scaled[0].matrix, solved.transform @ scaled[1].matrix @ solved.transform.mT
    # of systems that are the same, nothing but rounding is left to share out
    difference = torch.where(solved.distance > SAME, (A - M).square().sum(), torch.nan)
    tables, folded = [], False
    sides = zip((first, second), originals, scaled, (A, M), intervals, strict=True)
    for name, original, size, matrix, interval in sides:
        steps = original.parameters.steps_ahead if hasattr(original, "parameters") else 1
        step = interval * steps  # type: ignore[operator]
        values, basis = _modes(matrix)
        eigenvalues = values * size.norm + size.mean
        share = ((A - M).to(basis) @ basis).abs().square().sum(0) / difference
        found = per * frequencies(eigenvalues, step)
        folded |= steps > 1 and bool((found.abs() > 1e-9).any())
        table = {
            "system": name,
            "eigenvalue": eigenvalues,
            "time_constant": time_constants(eigenvalues, step),
            "frequency": found,
            "could_be": [tuple(per * f for f in aliases(float(f) / per, step, interval)) for f in found],  # type: ignore[arg-type]
            "share": torch.where(values.imag > 0, 2 * share, share),  # a conjugate pair is one row
        }
        tables.append(pd.DataFrame(table)[(values.imag >= 0).numpy()])
    values, basis = _modes(A)
    planes = torch.cat([torch.stack([q.real, q.imag], 1) * 2**0.5 if value.imag > 0 else q.real[:, None]
                        for value, q in zip(values, basis.T, strict=True) if value.imag >= 0], 1)  # fmt: skip
    explanation = Explanation(
        names=(first, second),
        first=planes.mT @ A @ planes,
        second=planes.mT @ M @ planes,
        modes=pd.concat(tables, ignore_index=True),
        distance=float(solved.distance),
        unit=unit,
    )
    if folded:
        steps = max(getattr(getattr(one, "parameters", None), "steps_ahead", 1) for one in originals)
        limit = per / 2 / (steps * max(interval or 0.0 for interval in intervals))
        warnings.warn(
            f"operators over {steps} samples resolve frequencies only below {limit:.3g} {explanation.frequency_unit}; "
            f"those shown may be aliases of higher ones, listed under could_be (time constants are not affected)",
            stacklevel=2,
        )
    return explanation


class _Unit(NamedTuple):
    """An operator, written as norm * matrix + mean * identity with a matrix of unit norm."""

    matrix: Tensor
    norm: Tensor
    mean: Tensor

    @classmethod
    def of(cls, operator: Any, remove_trace: bool) -> "_Unit":
        operator = as_operators(operator, "operator", torch.device("cpu"))
        mean = operator.diagonal().mean() * remove_trace
        rest = operator - mean * torch.eye(len(operator), dtype=operator.dtype)
        return cls(rest / rest.norm(), rest.norm(), mean)


def _modes(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, the slowest first, and the orthonormal basis nearest to their unit eigenvectors, both complex."""
    values, vectors = torch.linalg.eig(matrix)
    order = values.abs().round(decimals=12).argsort(descending=True, stable=True)
    left, _, right = torch.linalg.svd(vectors[:, order])
    return values[order], left @ right
