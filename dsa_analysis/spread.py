"""How far apart the systems of a group are, and whether groups differ in that.

The mean distance within a set of systems is a quantity of its own, such as the degeneracy of networks that solve one
task. Distances that share a system are not independent, so intervals and tests use the jackknife pseudo-values of the
systems (Tukey 1958; Arvesen 1969, for U statistics): with n systems, mean distance U, and mean U_i without system i,

    p_i = n U - (n - 1) U_i.

Their mean is U, and they vary from system to system as U does from sample to sample of systems.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis.data import DataError
from dsa_analysis.inference import Interval, as_distances, mean_interval
from dsa_analysis.permutation import exchangeable, levene, p_value
from dsa_analysis.similarity import Similarity

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 3  # systems of a group: without one of them there has to be a distance left


@dataclass(frozen=True)
class Spread:
    """Mean distances within groups, and a test of their equality.

    Attributes
    ----------
    groups : dict of group -> Interval
        Mean distance between two systems of the group, with Student's interval over systems.
    statistic : float
        F of the analysis of variance of the pseudo-values; NaN for one group.
    p : float
        p of the hypothesis that all groups have the same spread; NaN for one group.
    n_permutations : int
        0 for one group.
    """

    groups: dict[Any, Interval]
    statistic: float
    p: float
    n_permutations: int

    def to_dataframe(self) -> "pd.DataFrame":
        """One row for each group: ``group``, ``mean``, ``low``, ``high``, ``n``."""
        import pandas as pd

        return pd.DataFrame([{"group": group, **one._asdict()} for group, one in self.groups.items()])


def spread(
    similarity: Similarity | np.ndarray,
    groups: Sequence[Any] | None = None,
    *,
    blocks: Sequence[Any] | None = None,
    n_permutations: int = 9999,
    confidence: float = 0.95,
    seed: int = 0,
) -> Spread:
    """Mean distance within each group, and a test of whether groups differ in it, wherever they lie.

    Parameters
    ----------
    similarity : Similarity or (k, k)
        Distances of systems among themselves.
    groups : k labels, optional
        At least three systems of each. By default all systems are one group, which is described and not tested.
    blocks : k labels, optional
        Systems are permuted only within blocks, for example within a seed or an animal.
    n_permutations : int >= 99
        Number of random permutations. If there are no more than this in all, each is used once.
    confidence : float in (0, 1)
    seed : int >= 0

    Returns
    -------
    Spread

    Raises
    ------
    DataError
        Distances that are not square and symmetric, another number of labels, a group of fewer than three systems, or
        nothing to permute.
    """
    distances = as_distances(similarity, groups)
    labels = ["all"] * len(distances) if groups is None else np.asarray(groups).tolist()
    names, place = np.unique(np.asarray(labels), return_inverse=True)
    pseudo = np.empty(len(labels))
    for group, name in enumerate(names.tolist()):
        own = np.flatnonzero(place == group)
        if len(own) < FEWEST:
            raise DataError(
                f"group {name!r} has {len(own)} system{'s' * (len(own) != 1)}; {FEWEST} are needed to tell how far "
                f"apart they are, and how certain that is"
            )
        pseudo[own] = _pseudo_values(distances[np.ix_(own, own)])
    found = {name: mean_interval(pseudo[place == group], confidence) for group, name in enumerate(names.tolist())}
    if len(names) == 1:
        return Spread(found, np.nan, np.nan, 0)
    exchange = exchangeable(len(labels), None, blocks, n_permutations, seed, alike=False)
    reached = float(levene(pseudo, place[None], len(names))[0])
    permuted = levene(pseudo, place[exchange.orders], len(names))
    return Spread(found, reached, p_value(reached, permuted, exchange.exact), len(exchange.orders))


def difference_to(
    similarity: Similarity, reference: str, first: Sequence[str], second: Sequence[str], confidence: float = 0.95
) -> Interval:
    """Mean of d(first_i, reference) - d(second_i, reference) over pairs of systems, with Student's interval.

    Use it if systems come in pairs, such as two learning rules from the same seed: the pairs cancel what they share.

    Parameters
    ----------
    similarity : Similarity
    reference : str
        Label of the system that distances are taken to.
    first, second : n labels each
        The pairs.
    confidence : float in (0, 1)

    Returns
    -------
    Interval
        In the unit of the distances; below 0 if ``first`` is nearer. ``n`` is the number of pairs.

    Raises
    ------
    DataError
        Lists of different length, or a label that the similarity does not have.
    """
    if len(first) != len(second):
        raise DataError(f"first has {len(first)} labels and second {len(second)}; give pairs")
    rows, columns = list(similarity.labels), list(similarity.other_labels)
    for label, known in [(reference, columns), *((label, rows) for label in (*first, *second))]:
        if label not in known:
            raise DataError(f"no system is called {label!r}; there are {', '.join(map(repr, known[:10]))}")
    to = similarity.distances[:, columns.index(reference)]
    return mean_interval(
        [to[rows.index(a)] - to[rows.index(b)] for a, b in zip(first, second, strict=True)], confidence
    )


def _pseudo_values(distances: np.ndarray) -> np.ndarray:
    n, total = len(distances), distances.sum() / 2
    mean = total / (n * (n - 1) / 2)
    without = (total - distances.sum(0)) / ((n - 1) * (n - 2) / 2)
    return n * mean - (n - 1) * without
