"""Permutation tests: do groups differ, and do distances follow a design?

Pairs that share a system are not independent, so these tests permute systems, never pairs. Systems of one unit are
permuted together, and only within their block. PERMANOVA (Anderson 2001) tests groups, and Mantel's test (1967) tests
designs. If there are few orders, all of them are used and p is exact.

Both take a `Similarity` of systems among themselves or its distance matrix (k, k).
"""

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dsa_analysis.data import MOST_REPEATS, DataError, check_choice, check_count, check_seed
from dsa_analysis.inference import as_distances, as_matched
from dsa_analysis.similarity import Similarity


@dataclass(frozen=True)
class PermutationTest:
    """Outcome of a permutation test.

    Attributes
    ----------
    statistic : float
        Pseudo-F of `permanova`, correlation of `mantel`.
    p : float
        Fraction of the permutations, including the observed order, that reach the statistic.
    n_permutations : int
        Number of permutations: those drawn, or all if ``exact``.
    exact : bool
        Whether all permutations were used.
    r_squared : float
        Fraction of the sum of squares that the groups or the design explain, in [0, 1].
    spread : dict
        `permanova` only: group -> mean distance of its systems to its centre.
    spread_p : float
        `permanova` only: p of the hypothesis that groups have the same spread.
    """

    statistic: float
    p: float
    n_permutations: int
    exact: bool
    r_squared: float
    spread: dict[Any, float]
    spread_p: float

    def __str__(self) -> str:
        return f"{self.statistic:.3f}, p = {self.p:.2g} ({self.n_permutations} permutations{', all' * self.exact})"


def permanova(
    similarity: Similarity | np.ndarray,
    groups: Sequence[Any],
    *,
    units: Sequence[Any] | None = None,
    blocks: Sequence[Any] | None = None,
    n_permutations: int = 9999,
    seed: int = 0,
) -> PermutationTest:
    """Test whether groups differ in location: permutational analysis of variance of squared distances (Anderson 2001).

    With N systems in a groups, F = ((SS_total - SS_within) / (a - 1)) / (SS_within / (N - a)). A sum of squares is the
    sum of the squared distances of all pairs of a set, divided by the number of systems in the set.

    Parameters
    ----------
    similarity : Similarity or (k, k)
    groups : k labels
        At least two groups, one of which has two systems.
    units : k labels, optional
        Systems of one unit are permuted together and must belong to one group. Use units if systems are not
        exchangeable one by one because they come from the same animal, network or seed. By default each system is a
        unit.
    blocks : k labels, optional
        Labels are permuted only within blocks, for example within a task or a session. Differences between blocks then
        cannot appear as differences between groups.
    n_permutations : int >= 99
        Number of random permutations. If there are no more than this in all, each is used once.
    seed : int >= 0

    Returns
    -------
    PermutationTest

    Warns
    -----
    UserWarning
        If groups differ in spread (distances to the centre of their group, Anderson 2006, p < 0.05). A small p may then
        be due to spread rather than location, above all if groups have unequal sizes.

    Raises
    ------
    DataError
        Fewer than two groups, no group of two systems, a unit in two groups or two blocks, or nothing to permute.
    """
    distances = as_distances(similarity, groups)
    names, labels = np.unique(np.asarray(groups), return_inverse=True)
    k, a = len(labels), len(names)
    if not 1 < a < k:
        raise DataError(f"{a} groups of {k} systems came; at least two groups are needed, one of them with two systems")
    exchange = exchangeable(k, units, blocks, n_permutations, seed, alike=False)
    _refuse_torn(exchange.members, units, labels, "groups")
    of_unit = labels[[own[0] for own in exchange.members]]
    permuted = of_unit[exchange.orders][:, exchange.of_system]  # (P, k)
    if (permuted == labels).all():
        raise DataError("nothing to permute: within each block all systems belong to one group")
    squares = distances**2
    total = squares.sum() / (2 * k)

    def pseudo_f(labels: np.ndarray) -> np.ndarray:
        within = np.zeros(len(labels))
        for group in range(a):
            own = (labels == group).astype(float)
            within += ((own @ squares) * own).sum(1) / (2 * own.sum(1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return ((total - within) / (a - 1)) / (within / (k - a))

    reached = float(pseudo_f(labels[None])[0])
    if math.isnan(reached):
        raise DataError("all distances are zero: groups cannot differ")
    away = _distances_to_centres(squares, labels)
    spread_p = p_value(float(levene(away, labels[None], a)[0]), levene(away, permuted, a), exchange.exact)
    spread = {name: float(away[labels == group].mean()) for group, name in enumerate(names.tolist())}
    if spread_p < 0.05:
        listed = ", ".join(f"{name} {value:.3g}" for name, value in spread.items())
        warnings.warn(
            f"groups differ in spread (mean distance to their centre: {listed}; p = {spread_p:.2g}): a "
            f"difference between groups may be due to spread rather than location",
            stacklevel=2,
        )
    return PermutationTest(
        statistic=reached,
        p=p_value(reached, pseudo_f(permuted), exchange.exact),
        n_permutations=len(permuted),
        exact=exchange.exact,
        r_squared=float(1 / (1 + (k - a) / ((a - 1) * reached))) if reached else 0.0,
        spread=spread,
        spread_p=spread_p,
    )


def mantel(
    similarity: Similarity | np.ndarray,
    design: np.ndarray,
    *,
    method: str = "spearman",
    alternative: str = "two-sided",
    units: Sequence[Any] | None = None,
    blocks: Sequence[Any] | None = None,
    n_permutations: int = 9999,
    seed: int = 0,
) -> PermutationTest:
    """Test whether distances follow a design: correlation over all pairs, with permuted systems (Mantel 1967).

    Parameters
    ----------
    similarity : Similarity or (k, k)
    design : (k, k), symmetric
        A number for each pair, such as the number of motifs or parts that two systems share (then expect a negative
        correlation). The diagonal is not used.
    method : "spearman" or "pearson"
    alternative : "two-sided", "greater" or "less"
        Of the correlation.
    units, blocks, n_permutations, seed
        As in `permanova`. A unit is only exchanged with units of the same size.

    Returns
    -------
    PermutationTest
        ``spread`` is empty and ``spread_p`` NaN.

    Raises
    ------
    DataError
        A design of another shape or that is not symmetric, fewer than 3 systems, distances or a design that do not
        vary over pairs, a unit in two blocks, or nothing to permute.
    """
    check_choice("method", method, ("spearman", "pearson"))
    check_choice("alternative", alternative, ("two-sided", "greater", "less"))
    distances, design = as_matched(similarity, design)
    if distances.ndim == 1:
        raise DataError("a Mantel test needs the distances of all pairs, (k, k)")
    k = len(distances)
    rows, columns = np.triu_indices(k, 1)
    x, y = distances[rows, columns], design[rows, columns]
    from scipy.stats import rankdata

    x, y = (rankdata(v) if method == "spearman" else v for v in (x, y))
    x, y = (v - v.mean() for v in (x, y))
    if min(np.ptp(x), np.ptp(y)) == 0:
        raise DataError(f"{'distances' if np.ptp(x) == 0 else 'design'} are the same for all pairs: no correlation")
    x, y = (v / np.linalg.norm(v) for v in (x, y))
    exchange = exchangeable(k, units, blocks, n_permutations, seed, alike=True)
    table = np.array([np.resize(own, k) for own in exchange.members])  # (unit, k)
    orders = np.empty((len(exchange.orders), k), int)
    for unit, own in enumerate(exchange.members):
        orders[:, own] = table[exchange.orders[:, unit], : len(own)]
    full = np.zeros((k, k))
    full[rows, columns] = full[columns, rows] = x
    chunks = np.array_split(orders, max(1, len(orders) * len(x) // 2_000_000))
    permuted = np.concatenate([full[chunk[:, rows], chunk[:, columns]] @ y for chunk in chunks])
    r = float(x @ y)
    turn = {"two-sided": np.abs, "greater": np.positive, "less": np.negative}[alternative]
    p = p_value(float(turn(r)), turn(permuted), exchange.exact)
    return PermutationTest(r, p, len(orders), exchange.exact, r**2, {}, math.nan)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust several p values (Holm 1979).

    If you reject the hypotheses whose adjusted p is below alpha, you make any false rejection with a probability of at
    most alpha.

    Parameters
    ----------
    p_values : n numbers in [0, 1]

    Returns
    -------
    ndarray, (n,)
        In the order of ``p_values``, in [0, 1].

    Raises
    ------
    DataError
        Not a list of at least one number in [0, 1].

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(3)
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise DataError("p_values is not a list of at least one number in [0, 1]")
    order = p.argsort()
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted[order.argsort()]


class _Units(NamedTuple):
    """Units of systems, and the orders of the units that are allowed by the blocks."""

    of_system: np.ndarray  # (k,) unit of each system
    members: list[np.ndarray]  # systems of each unit
    orders: np.ndarray  # (P, n_units)
    exact: bool  # whether these are all orders there are


def exchangeable(
    k: int, units: Sequence[Any] | None, blocks: Sequence[Any] | None, n_permutations: int, seed: int, alike: bool
) -> _Units:
    """All orders of the units if there are at most ``n_permutations``, otherwise so many drawn at random.

    If ``alike``, a unit is only exchanged with units of the same number of systems.
    """
    check_count("n_permutations", n_permutations, 99, MOST_REPEATS)
    check_seed(seed)
    for name, given in (("units", units), ("blocks", blocks)):
        if given is not None and len(given) != k:
            raise DataError(f"{name} has {len(given)} labels for {k} systems; give one for each")
    _, unit = np.unique(np.arange(k) if units is None else np.asarray(units), return_inverse=True)
    _, block = np.unique(np.zeros(k) if blocks is None else np.asarray(blocks), return_inverse=True)
    members = [np.flatnonzero(unit == u) for u in range(unit.max() + 1)]
    _refuse_torn(members, units, block, "blocks")
    keys = [(block[own[0]], len(own) if alike else 0) for own in members]
    places = [np.flatnonzero([key == other for other in keys]) for key in sorted(set(keys))]
    n_orders = math.prod(math.factorial(len(place)) for place in places)
    if n_orders == 1:
        raise DataError(f"nothing to permute: each of {len(members)} units is alone in its block")
    if exact := n_orders <= n_permutations:
        parts = [np.array(list(itertools.permutations(place))) for place in places]
        chosen = [np.array(index) for index in itertools.product(*(range(len(part)) for part in parts))]
        picked = [part[[index[b] for index in chosen]] for b, part in enumerate(parts)]
    else:
        generator = np.random.default_rng(seed)
        picked = [generator.permuted(np.tile(place, (n_permutations, 1)), axis=1) for place in places]
    orders = np.empty((len(picked[0]), len(members)), int)
    for place, part in zip(places, picked, strict=True):
        orders[:, place] = part
    return _Units(unit, members, orders, exact)


def _refuse_torn(members: list[np.ndarray], units: Sequence[Any] | None, labels: np.ndarray, what: str) -> None:
    for own in members:
        if units is not None and len(set(labels[own])) > 1:
            raise DataError(
                f"unit {np.asarray(units)[own[0]].tolist()!r} is in several {what}; all systems of a unit must be in "
                f"one of them"
            )


def p_value(reached: float, permuted: np.ndarray, exact: bool) -> float:
    """Fraction of the permutations that reach the statistic; the observed order is added to those drawn at random."""
    margin = 1e-9 * abs(reached) if math.isfinite(reached) else 0.0  # equal partitions may differ in the last digits
    count = int((permuted >= reached - margin).sum())
    return count / len(permuted) if exact else (1 + count) / (1 + len(permuted))


def _distances_to_centres(squares: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distance of each system to the centroid of its group, from squared distances (Anderson 2006, eq. 6)."""
    own = (labels[:, None] == labels) / np.bincount(labels)[labels][:, None]  # rows: weights of the group
    from_centre = (own * squares).sum(1) - ((own @ squares) * own).sum(1) / 2
    return np.sqrt(from_centre.clip(0))  # in a space that is not Euclidean the square may be negative


def levene(away: np.ndarray, labels: np.ndarray, n_groups: int) -> np.ndarray:
    """F of the analysis of variance of ``away`` (k,) for each row of labels (P, k)."""
    own = np.stack([labels == group for group in range(n_groups)], 1).astype(float)  # (P, group, k)
    size = own.sum(-1)
    between = (size * (own @ away / size - away.mean()) ** 2).sum(1)
    within = np.square(away - away.mean()).sum() - between
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num((between / (n_groups - 1)) / (within / (len(away) - n_groups)), posinf=np.inf)
