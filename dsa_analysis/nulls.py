"""What distances would be if systems were the same, or had nothing in common: null distances and a scale between.

`null_distances` compares systems anew after their trials were changed. The kind decides which question the rank of the
observed distance answers:

    exchange         Do two systems differ? Trials are exchanged between them, as if both were recordings of one system.
                     p is the fraction of null distances that are as large. The channels of both have to mean the same,
                     such as the same neurons in two conditions; other neurons differ whatever their dynamics.
    shuffle_times    Are two systems more alike than systems without any dynamics? p is the fraction that are as small.
    phase, iaaft     Are they more alike than their spectra make them? p is the fraction that are as small.
    shuffle_trials   Are they more alike than without what the channels of one trial share?

Surrogates are drawn by `surrogates`. "phase" keeps the lag covariances that operators are fitted to, but for the ends
of the trials, so that null distances of linear operators are close to the observed ones: it is a control of methods
that see more than spectra.
"""

import itertools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from dsa_analysis.compare import compare
from dsa_analysis.comparison import Comparison, as_comparison
from dsa_analysis.data import MOST_REPEATS, DataError, as_device, as_systems, as_trials, check_choice, check_count
from dsa_analysis.display import bars_go_to
from dsa_analysis.metrics import is_matched
from dsa_analysis.operators import refuse_operators
from dsa_analysis.permutation import holm
from dsa_analysis.surrogates import KINDS, surrogates

if TYPE_CHECKING:
    import pandas as pd

EXCHANGE = "exchange"


@dataclass(frozen=True, repr=False)
class Nulls:
    """Null distances of all pairs of systems, and the rank of the observed distances among them.

    Attributes
    ----------
    kind : str
    labels : tuple of str
        The k systems.
    distances : (n, k, k)
        One matrix for each draw.
    observed : (k, k)
    p : (k, k)
        (1 + number of draws as large, or as small, as observed) / (1 + n); 1 on the diagonal. "exchange" counts larger
        distances and asks whether systems differ; the others count smaller ones and ask whether they are alike.
    p_holm : (k, k)
        The same, adjusted for the number of pairs (Holm 1979).
    """

    kind: str
    labels: tuple[str, ...]
    distances: np.ndarray
    observed: np.ndarray
    p: np.ndarray
    p_holm: np.ndarray

    def __repr__(self) -> str:
        asks = "differ" if self.kind == EXCHANGE else "are more alike than surrogates"
        below = int((self.p_holm[np.triu_indices(len(self.labels), 1)] < 0.05).sum())
        n_pairs = len(self.labels) * (len(self.labels) - 1) // 2
        return (
            f"<Nulls: {len(self.distances)} draws of {self.kind!r}; {below} of {n_pairs} pairs {asks} (Holm, p < 0.05)>"
        )

    def to_dataframe(self) -> "pd.DataFrame":
        """One row for each pair: ``system_a``, ``system_b``, ``distance``, ``null`` (mean), ``p``, ``p_holm``."""
        import pandas as pd

        rows, columns = np.triu_indices(len(self.labels), 1)
        labels = np.array(self.labels, dtype=object)
        return pd.DataFrame(
            {
                "system_a": labels[rows],
                "system_b": labels[columns],
                "distance": self.observed[rows, columns],
                "null": self.distances.mean(0)[rows, columns],
                "p": self.p[rows, columns],
                "p_holm": self.p_holm[rows, columns],
            }
        )


def null_distances(
    systems: Any,
    how: Comparison | None = None,
    *,
    kind: str = EXCHANGE,
    n: int = 99,
    device: str | torch.device | None = None,
    progress: bool = True,
    **choices: Any,
) -> Nulls:
    """Compare systems with each other, and again after their trials were exchanged or replaced by surrogates.

    Parameters
    ----------
    systems : as in `compare`, as data
        Two or more.
    how : Comparison, optional
        As for `compare`. Its seed is also that of the draws.
    kind : "exchange", "phase", "iaaft", "shuffle_times" or "shuffle_trials"
        What is done to the trials; see the top of this module. "exchange" needs the same channels in all systems.
    n : int >= 19
        Number of draws. The smallest p is 1 / (n + 1), and that of one of many pairs after Holm's adjustment their
        number times this.
    device : str or torch.device, optional
        As in `compare`.
    progress : bool
        Show a bar for what takes more than two seconds.
    **choices
        Fields of `Comparison`, which override those of ``how``.

    Returns
    -------
    Nulls

    Raises
    ------
    DataError
        An unknown kind, systems that are operators, too few systems, trials or draws, systems with other channels than
        their partner or a metric of matched trials for "exchange", or what `surrogates` refuses.

    Warns
    -----
    UserWarning
        If there are too few draws for the number of pairs.
    """
    how = as_comparison(how, choices)
    check_choice("kind", kind, (EXCHANGE, *KINDS))
    check_count("n", n, 19, MOST_REPEATS)
    named = as_systems(systems)
    refuse_operators(named, "null distances are computed from data", matrices=False)
    if len(named) < 2:
        raise DataError(f"{len(named)} system has no partner; give at least 2")
    if kind == EXCHANGE and is_matched(how.metric):
        raise DataError(
            f"kind = {kind!r} exchanges trials, which metric = {how.metric.name!r} takes to correspond; use "
            f"'shuffle_times' or 'shuffle_trials'"
        )
    n_pairs = len(named) * (len(named) - 1) // 2
    if n_pairs / (n + 1) > 0.05:
        warnings.warn(
            f"{n} draws are too few for {n_pairs} pairs: no p below 0.05 is left after Holm's adjustment; take n = "
            f"{20 * n_pairs} or more", stacklevel=2,
        )  # fmt: skip
    trials = {name: as_trials(system, name, as_device(device)) for name, system in named.items()}
    observed = compare(trials, how=how, device=device, progress=progress).distances
    draw = _exchanged if kind == EXCHANGE else _replaced
    distances = np.zeros((n, len(trials), len(trials)))
    seeds = [int(np.random.SeedSequence([how.seed, at]).generate_state(1)[0]) for at in range(n)]
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # about operators of surrogates
        for at in tqdm(
            range(n), desc=f"null: {kind}", unit="draw", delay=2, leave=False, file=bars_go_to(), disable=not progress
        ):
            distances[at] = draw(trials, how, kind, seeds[at], device)
    margin = 1e-9 * observed  # equal trials may differ in the last digits
    reached = (distances >= observed - margin) if kind == EXCHANGE else (distances <= observed + margin)
    p = (1 + reached.sum(0)) / (1 + n)
    np.fill_diagonal(p, 1.0)
    pairs, adjusted = np.triu_indices(len(trials), 1), np.ones_like(p)
    adjusted[pairs] = holm(p[pairs])
    return Nulls(kind, tuple(trials), distances, observed, p, np.minimum(adjusted, adjusted.T))


def _replaced(trials: dict[str, Any], how: Comparison, kind: str, seed: int, device: Any) -> np.ndarray:
    """Distances between surrogates of all systems, each from random numbers of its own."""
    drawn = {name: surrogates(own, kind, seed=seed + place) for place, (name, own) in enumerate(trials.items())}
    return compare(drawn, how=how, device=device, progress=False).distances


def _exchanged(trials: dict[str, Any], how: Comparison, kind: str, seed: int, device: Any) -> np.ndarray:
    """Distances between systems whose trials were exchanged at random, pair by pair."""
    names, rng = list(trials), np.random.default_rng(seed)
    distances = np.zeros((len(names), len(names)))
    for i, j in itertools.combinations(range(len(names)), 2):
        first, second = trials[names[i]], trials[names[j]]
        if first[0].shape[1] != second[0].shape[1]:
            raise DataError(
                f"kind = {kind!r} exchanges trials, but system {names[i]!r} has {first[0].shape[1]} channels and "
                f"{names[j]!r} {second[0].shape[1]}; the channels of both have to be the same"
            )
        pooled = [*first, *second]
        order = rng.permutation(len(pooled)).tolist()
        halves = [[pooled[k] for k in some] for some in (order[: len(first)], order[len(first) :])]
        found = compare(halves[:1], halves[1:], how, device=device, progress=False).distances[0, 0]
        distances[i, j] = distances[j, i] = found
    return distances
