"""Claims about results, judged by where their intervals lie.

A claim is *met* if its whole interval lies on the claimed side of the threshold, *not met* if the whole interval lies
on the other side, and *undecided* otherwise. A verdict so formed does not change when a rerun on another machine moves
an estimate a little across a threshold.

    claims_table([
        Claim("AUROC, angular", auroc_interval(similarity, regimes), ">=", 0.95),
        Claim("rho with performance", rho_interval([-0.88, -0.81, -0.88]), "<=", -0.7),
        Claim("rise of AUROC over CKA", own - others, ">", 0),  # an array, one value for each seed
        Claim("blind to the order", rho, "within", 0.15),       # of 0
        Claim("CKA, for comparison", rho_of_cka),               # no claim
        Claim("every lower bound is below its distance", bool((bounds <= distances).all())),
    ])

To claim that one measure beats another, give the differences for each seed, as in the third line: two intervals that
overlap leave the question open even where the difference is clear.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from dsa_analysis import mean_interval
from dsa_analysis.inference import Interval

if TYPE_CHECKING:
    import pandas as pd

Relation = Literal["<", "<=", ">", ">=", "within"]
Verdict = Literal["met", "not met", "undecided"]


def verdict(interval: Any, relation: Relation, threshold: float | tuple[float, float]) -> Verdict:
    """Judge a claim by where its interval lies.

    Parameters
    ----------
    interval : Interval, (mean, low, high), or a sequence of values
        See `as_interval`.
    relation : "<", "<=", ">", ">=" or "within"
    threshold : float or (float, float)
        For "within" the two ends of a range, or one number t >= 0 for the range from -t to t; else one number.

    Returns
    -------
    "met", "not met" or "undecided"
        "undecided" also if the limits are NaN, as for a single value.

    Raises
    ------
    ValueError
        An unknown relation, or a threshold that does not fit it.

    Examples
    --------
    >>> verdict((-0.81, -0.90, -0.72), "<=", -0.7)
    'met'
    >>> verdict((-0.81, -0.90, -0.62), "<=", -0.7)
    'undecided'
    >>> verdict([0.02, 0.03, 0.02], "within", 0.1)
    'met'
    """
    _, low, high, _ = as_interval(interval)
    if relation not in get_args(Relation):
        raise ValueError(f"relation = {relation!r} is not known; choose one of {', '.join(get_args(Relation))}")
    if relation == "within":
        start, stop = _range(threshold)
        met, not_met = start <= low and high <= stop, high < start or low > stop
    else:
        limit = _number(threshold, relation)
        met, not_met = {
            "<": (high < limit, low >= limit),
            "<=": (high <= limit, low > limit),
            ">": (low > limit, high <= limit),
            ">=": (low >= limit, high < limit),
        }[relation]
    return "met" if met else "not met" if not_met else "undecided"


def _number(threshold: Any, relation: str) -> float:
    if not isinstance(threshold, Real) or math.isnan(threshold):
        raise ValueError(f"threshold = {threshold!r} is not a number, which relation {relation!r} needs")
    return float(threshold)


def _range(threshold: Any) -> tuple[float, float]:
    start, stop = threshold if isinstance(threshold, Sequence) else (-threshold, threshold)
    if not start <= stop:
        raise ValueError(f"threshold = {threshold!r} is not a range; give t >= 0 or (low, high) with low <= high")
    return float(start), float(stop)


# ---- intervals -------------------------------------------------------------------------------------------------------


def as_interval(seen: Any) -> Interval:
    """The interval of what was seen.

    Parameters
    ----------
    seen : Interval, (mean, low, high), number, or a list, array or Series of values
        A tuple of three is a mean with its limits. A list, array or Series holds one value for each independent
        repetition, such as a seed: its interval is Student's, from `dsa_analysis.mean_interval`. A single number has
        no interval (NaN limits).

    Returns
    -------
    Interval
        ``n`` is the number of repetitions, 0 if only limits were given.

    Raises
    ------
    ValueError
        A tuple that is not (mean, low, high) with low <= high.
    """
    if isinstance(seen, Interval):
        return seen
    if isinstance(seen, tuple):
        if len(seen) != 3 or seen[1] > seen[2]:
            raise ValueError(f"{seen!r} is not (mean, low, high) with low <= high; give values of seeds as a list")
        mean, low, high = map(float, seen)
        return Interval(mean, low, high, 0)
    return mean_interval(np.atleast_1d(np.asarray(seen, dtype=float)))


def rho_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean correlation over independent repetitions, such as seeds, with its interval.

    Student's interval of Fisher's z = atanh(rho), transformed back: z is nearly normal with a variance that does not
    depend on rho (Fisher 1921), and the limits stay in [-1, 1]. If some |rho| is 1, its z is infinite, and Student's
    interval of rho itself is returned.

    Parameters
    ----------
    values : (n,) floats in [-1, 1]
        One correlation for each repetition.
    confidence : float in (0, 1)

    Returns
    -------
    Interval
        NaN limits for a single value.
    """
    rho = np.asarray(values, dtype=float)
    if (np.abs(rho) == 1).any():
        return mean_interval(rho, confidence)
    mean, low, high, n = mean_interval(np.arctanh(rho), confidence)
    return Interval(math.tanh(mean), math.tanh(low), math.tanh(high), n)


def median_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Median with its exact interval between two order statistics (the sign test inverted; no shape is assumed).

    Parameters
    ----------
    values : (n,) floats
        Independent values of one distribution.
    confidence : float in (0, 1)
        The interval covers the median at least this often.

    Returns
    -------
    Interval
        NaN limits if there are too few values for this confidence: fewer than 6 for 0.95.
    """
    from scipy.stats import binom

    values = np.sort(np.asarray(values, dtype=float))
    n, outside = len(values), (1 - confidence) / 2
    place = int(binom.ppf(outside, n, 0.5))  # the largest k with P(fewer than k values below the median) <= outside
    limits = (values[place - 1], values[n - place]) if place else (math.nan, math.nan)
    return Interval(float(np.median(values)), float(limits[0]), float(limits[1]), n)


def p_interval(p: float, n_permutations: int, exact: bool = False, confidence: float = 0.95) -> Interval:
    """P value of a permutation test with the interval of the p value that all permutations would give.

    Clopper and Pearson's interval of a proportion: how sure the drawn permutations are of p. It does not tell how p
    would vary with other data.

    Parameters
    ----------
    p, n_permutations, exact
        As in `dsa_analysis.PermutationTest`. An exact p is its own interval.
    confidence : float in (0, 1)
    """
    from scipy.stats import beta

    if exact:
        return Interval(p, p, p, n_permutations)
    reached = round(p * (n_permutations + 1)) - 1  # the observed order is counted in p
    outside = (1 - confidence) / 2
    low = float(beta.ppf(outside, reached, n_permutations - reached + 1)) if reached else 0.0
    missed = n_permutations - reached
    high = float(beta.ppf(1 - outside, reached + 1, missed)) if missed else 1.0
    return Interval(p, low, high, n_permutations)


# ---- tables ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """What was seen, and what is claimed of it.

    Attributes
    ----------
    what : str
    seen : Interval, (mean, low, high), number, list or array of values, or bool
        See `as_interval`. A bool is a fact without an interval: true is met, false is not met.
    relation, threshold : as in `verdict`, or None
        None makes no claim: the value is shown for comparison.
    digits : int >= 0
        Decimals shown.
    of : str
        What ``n`` counts, such as "seeds" or "networks".
    """

    what: str
    seen: Any
    relation: Relation | None = None
    threshold: float | tuple[float, float] | None = None
    digits: int = 3
    of: str = ""

    @property
    def claim(self) -> str:
        """The claim in words, empty if there is none."""
        if self.relation is None:
            return "true" if self._is_fact else ""
        if self.relation != "within":
            return f"{self.relation} {self.threshold:g}"
        if isinstance(self.threshold, Sequence):
            return "from {:g} to {:g}".format(*self.threshold)
        return f"within {self.threshold:g} of 0"

    @property
    def verdict(self) -> str:
        """ "met", "not met" or "undecided"; empty if there is no claim."""
        if self._is_fact:
            return "met" if self.seen else "not met"
        return verdict(self.seen, self.relation, self.threshold) if self.relation else ""  # type: ignore[arg-type]

    def __str__(self) -> str:
        """What was seen, as "mean [low, high] (n = 3 seeds)"."""
        if self._is_fact:
            return str(bool(self.seen)).lower()
        mean, low, high, n = as_interval(self.seen)
        text = f"{mean:z.{self.digits}f}"
        if not math.isnan(low) and not low == mean == high:
            text += f" [{low:z.{self.digits}f}, {high:z.{self.digits}f}]"
        return f"{text} (n = {n}{' ' + self.of if self.of else ''})" if n > 1 else text

    @property
    def _is_fact(self) -> bool:
        return isinstance(self.seen, bool | np.bool_)


def claims_table(claims: Iterable[Claim | tuple]) -> "pd.DataFrame":
    """Table of claims with their verdicts, to print in the last cell of a notebook.

    Parameters
    ----------
    claims : iterable of Claim, or of tuples (what, seen) or (what, seen, relation, threshold)

    Returns
    -------
    DataFrame
        Columns ``what``, ``seen``, ``claim``, ``verdict``, all text.
    """
    import pandas as pd

    each = [claim if isinstance(claim, Claim) else Claim(*claim) for claim in claims]
    rows = [(claim.what, str(claim), claim.claim, claim.verdict) for claim in each]
    return pd.DataFrame(rows, columns=["what", "seen", "claim", "verdict"])


def read_claims(text: str) -> list[tuple[str, str]]:
    """Find the tables of `claims_table` in what a notebook printed.

    Parameters
    ----------
    text : str
        Tables as ``to_string(index=False)`` writes them, and anything before, between and after.

    Returns
    -------
    list of (what, verdict)
        Rows that claim something, in order.
    """
    found, end = [], 0
    for line in text.splitlines():
        if line.split() == ["what", "seen", "claim", "verdict"]:
            end = line.index("what") + len("what")  # columns are right-aligned under their names
        elif not line.strip():
            end = 0
        elif end and (judged := re.search(r" (met|not met|undecided)$", line)):
            found.append((line[:end].strip(), judged[1]))
    return found
