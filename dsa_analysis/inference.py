"""How well distances separate groups or follow a design, with confidence intervals.

k systems have k (k - 1) / 2 distances, but pairs that share a system are not independent. Intervals therefore resample
systems within their groups, never pairs. If you give replicates from `trial_replicates`, they also resample the trials
within systems (BCa bootstrap, Efron 1987). Tests of groups and designs are in `permutation`.

All functions take a `Similarity` of systems among themselves or its distance matrix (k, k).
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from dsa_analysis.data import MOST_REPEATS, DataError, check_count

if TYPE_CHECKING:
    from dsa_analysis.similarity import Similarity


class Interval(NamedTuple):
    """A mean or another estimate, its confidence interval, and the number of systems or repetitions that it is from."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


# ---- systems ---------------------------------------------------------------------------------------------------------


def silhouette(similarity: "Similarity | np.ndarray", groups: Sequence[Any]) -> float:
    """Mean silhouette of systems in their groups (Rousseeuw 1987).

    Parameters
    ----------
    similarity : Similarity or (k, k)
    groups : k labels
        At least two groups and fewer than k. Their order does not matter.

    Returns
    -------
    float in [-1, 1]
        Near 1 if groups are tight and far apart, about 0 if they overlap.

    Raises
    ------
    DataError
        Distances that are not square, symmetric and finite, or another number of labels than systems.
    ValueError
        Fewer than two groups, or as many groups as systems (from scikit-learn).
    """
    from sklearn.metrics import silhouette_score

    distances = as_distances(similarity, groups)
    return float(silhouette_score(distances, groups, metric="precomputed"))


def auroc(similarity: "Similarity | np.ndarray", groups: Sequence[Any]) -> float:
    """Probability that a pair from two groups is farther apart than a pair from one group (area under the ROC curve).

    Parameters
    ----------
    similarity : Similarity or (k, k)
    groups : k labels

    Returns
    -------
    float in [0, 1]
        1 if every pair from two groups is farther apart than every pair from one group, 0.5 at chance. Ties count half.

    Raises
    ------
    DataError
        Distances that are not square, symmetric and finite, another number of labels than systems, no pair from one
        group, or no pair from two.
    """
    distances, (_, labels) = as_distances(similarity, groups), np.unique(np.asarray(groups), return_inverse=True)
    value = _auroc(distances, labels, np.ones(len(labels)))
    if math.isnan(value):
        raise DataError("groups must contain two systems of the same group and two of different groups")
    return value


def spearman(similarity: "Similarity | np.ndarray", design: np.ndarray) -> float:
    """Spearman's rank correlation of the distances of all pairs with what a design predicts for these pairs.

    If both arguments hold one value for each system, such as distances to a reference and performances, it is the
    ordinary rank correlation of these values.

    Parameters
    ----------
    similarity : Similarity, (k, k) or (k,)
        At least 3 systems.
    design : same shape
        A symmetric matrix with a number for each pair, such as the number of parts that two systems share, or a number
        for each system. The diagonal is not used.

    Returns
    -------
    float in [-1, 1]
        NaN if the distances or the design are the same for all pairs.

    Raises
    ------
    DataError
        Shapes that differ, fewer than 3 systems, numbers that are not finite, or a matrix that is not symmetric.
    """
    return _spearman(*as_matched(similarity, design), weights=np.ones(len(design)))


def auroc_interval(similarity: "Similarity | np.ndarray", groups: Sequence[Any], **bootstrap: Any) -> Interval:
    """`auroc` with its confidence interval over systems, which are resampled within their groups.

    Parameters
    ----------
    similarity, groups
        As in `auroc`.
    **bootstrap
        ``replicates`` : (n, k, k), optional, from `trial_replicates`. Each resampling of the systems also draws one
        replicate, so that the interval covers the choice of trials too. Without them it covers only the choice of
        systems. ``n_resamples`` : int >= 100, default 2000. ``confidence`` : float in (0, 1), default 0.95. ``seed`` :
        int >= 0, default 0.

    Returns
    -------
    Interval
        ``n`` is the number of systems. The limits are equal if no resampling changes the value, as at an AUROC of 1:
        with few systems you cannot know how close to 1 it is.

    Raises
    ------
    DataError
        As `auroc`; too few systems to resample, replicates of another shape, or an invalid ``n_resamples`` or
        ``confidence``.
    """
    auroc(similarity, groups)
    distances, (_, labels) = as_distances(similarity), np.unique(np.asarray(groups), return_inverse=True)
    return _bootstrap(lambda d, w: _auroc(d, labels, w), distances, labels, **bootstrap)


def silhouette_interval(similarity: "Similarity | np.ndarray", groups: Sequence[Any], **bootstrap: Any) -> Interval:
    """`silhouette` with its confidence interval over systems, which are resampled within their groups.

    Parameters
    ----------
    similarity, groups
        As in `silhouette`.
    **bootstrap
        As in `auroc_interval`.

    Returns
    -------
    Interval
        ``n`` is the number of systems.

    Raises
    ------
    DataError, ValueError
        As `silhouette` and `auroc_interval`.
    """
    silhouette(similarity, groups)
    distances, (_, labels) = as_distances(similarity), np.unique(np.asarray(groups), return_inverse=True)
    return _bootstrap(lambda d, w: _silhouette(d, labels, w), distances, labels, **bootstrap)


def spearman_interval(similarity: "Similarity | np.ndarray", design: np.ndarray, **bootstrap: Any) -> Interval:
    """`spearman` with its confidence interval over systems, which are resampled as one group.

    Parameters
    ----------
    similarity, design
        As in `spearman`.
    **bootstrap
        As in `auroc_interval`.

    Returns
    -------
    Interval
        ``n`` is the number of systems.

    Raises
    ------
    DataError
        As `spearman` and `auroc_interval`.
    """
    distances, design = as_matched(similarity, design)
    one_group = np.zeros(len(design), int)
    return _bootstrap(lambda d, w: _spearman(d, design, w), distances, one_group, **bootstrap)


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean over independent repetitions, such as seeds or networks, with Student's confidence interval.

    Parameters
    ----------
    values : n numbers
        One for each repetition.
    confidence : float in (0, 1)

    Returns
    -------
    Interval
        ``n`` is the number of repetitions. The limits are NaN if there is only one.

    Raises
    ------
    DataError
        Not a list of at least one number.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values):
        raise DataError(f"values have shape {values.shape}; a list of at least one number is needed")
    half = (
        stdtrit(len(values) - 1, (1 + confidence) / 2) * values.std(ddof=1) / len(values) ** 0.5
        if len(values) > 1
        else np.nan
    )
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half), len(values))


def _bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    distances: np.ndarray,
    groups: np.ndarray,
    *,
    replicates: np.ndarray | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bias-corrected and accelerated interval (Efron 1987) of ``statistic(distances, weights)``.

    The weights count how often each system was drawn within its group. The statistics below leave out the pairs of a
    system with its own copies. A resampling for which the statistic is undefined, for example if only one system was
    drawn, is drawn again.
    """
    check_count("n_resamples", n_resamples, 100, MOST_REPEATS)
    if not 0 < confidence < 1:
        raise DataError(f"confidence = {confidence!r} is not between 0 and 1")
    if replicates is not None:
        refuse_replicates(replicates, distances)
    generator, k = np.random.default_rng(seed), len(groups)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]

    def resampled() -> float:
        drawn = np.concatenate([generator.choice(own, len(own)) for own in members])
        source = distances if replicates is None else replicates[generator.integers(len(replicates))]
        return statistic(source, np.bincount(drawn, minlength=k).astype(float))

    estimate = statistic(distances, np.ones(k))
    values = np.array([resampled() for _ in range(n_resamples)])
    for _ in range(20):  # in a group of two, half of the draws contain one system twice
        undefined = np.isnan(values)
        values[undefined] = [resampled() for _ in range(undefined.sum())]
    if np.isnan(values).any() or math.isnan(estimate):
        raise DataError(
            f"{k} systems in groups of {', '.join(str(len(own)) for own in members)} are too few to resample"
        )

    # acceleration from the influence of each system (leaving it out), bias from the median of the resamplings
    without = np.array([statistic(distances, 1.0 - (np.arange(k) == i)) for i in range(k)])
    defined = [own[np.isfinite(without[own])] for own in members]
    pull = np.concatenate([(without[own].mean() - without[own]) / len(own) for own in defined if len(own)] or [[0.0]])
    lean = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5) if pull.any() else 0.0
    fraction = ((values < estimate).mean() + (values <= estimate).mean()) / 2
    shift = ndtri(np.clip(fraction, 1 / n_resamples, 1 - 1 / n_resamples))
    tails = shift + ndtri([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(values, ndtr(shift + tails / (1 - lean * tails)))
    return Interval(estimate, float(low), float(high), k)


def _auroc(distances: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> float:
    rows, columns = np.triu_indices(len(groups), 1)
    different, weight = groups[rows] != groups[columns], weights[rows] * weights[columns]
    of_one, of_two = weight * ~different, weight * different
    if not of_one.any() or not of_two.any():
        return math.nan
    nearer = _midranks(distances[rows, columns], of_one)
    return float((nearer * of_two).sum() / (of_one.sum() * of_two.sum()))


def _silhouette(distances: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> float:
    one_hot = (groups[:, None] == np.unique(groups)) * weights[:, None]  # (system, group)
    own = groups[:, None] == np.unique(groups)
    others = one_hot.sum(0) - own * weights[:, None]  # weight of each group without the system and its copies
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = distances @ one_hot / others
    within, nearest = mean[own], np.where(own | (others == 0), np.inf, mean).min(1)
    single = own.sum(0)[groups] == 1  # Rousseeuw sets these to 0
    with np.errstate(invalid="ignore"):
        value = np.where(single, 0, (nearest - within) / np.maximum(nearest, within))
    there = (weights > 0) & np.isfinite(value)
    return float(np.average(value[there], weights=weights[there])) if there.any() else math.nan


def _spearman(distances: np.ndarray, design: np.ndarray, weights: np.ndarray) -> float:
    if distances.ndim == 2:
        pairs = np.triu_indices(len(distances), 1)
        distances, design, weights = distances[pairs], design[pairs], weights[pairs[0]] * weights[pairs[1]]
    ranks = np.stack([_midranks(values, weights) for values in (distances, design)])
    if not weights.any():
        return math.nan
    (a, b), _ = np.split(ranks - np.average(ranks, axis=1, weights=weights)[:, None], [2])
    size = math.sqrt((weights * a * a).sum() * (weights * b * b).sum())
    return float((weights * a * b).sum() / size) if size > 1e-12 * weights.sum() ** 3 else math.nan


def _midranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weight of the values below each value, plus half the weight of the values equal to it."""
    _, place = np.unique(values, return_inverse=True)
    at = np.bincount(place, weights)
    return (np.cumsum(at) - at / 2)[place]


# ---- checks ----------------------------------------------------------------------------------------------------------


def as_distances(similarity: "Similarity | np.ndarray", groups: Sequence[Any] | None = None) -> np.ndarray:
    """The distances of systems among themselves, checked."""
    distances = np.asarray(getattr(similarity, "distances", similarity), dtype=float)
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise DataError(f"distances have shape {distances.shape}; the distances of k systems are (k, k)")
    if np.isnan(distances).any() or not np.allclose(distances, distances.T, atol=1e-9, rtol=0):
        raise DataError("distances hold NaN or are not symmetric")
    if (distances < 0).any() or distances.diagonal().any():
        raise DataError("distances are negative, or not zero on the diagonal")
    if groups is not None and len(groups) != len(distances):
        raise DataError(f"groups has {len(groups)} labels for {len(distances)} systems; give one for each")
    return distances


def as_matched(similarity: "Similarity | np.ndarray", design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances and the design that they are correlated with: both (k, k) and symmetric, or both (k,)."""
    values, design = np.asarray(getattr(similarity, "distances", similarity), dtype=float), np.asarray(design, float)
    values = values if values.ndim == 1 else as_distances(values)
    if design.shape != values.shape:
        raise DataError(f"design has shape {design.shape}, the distances {values.shape}; they need the same")
    off = ~np.eye(len(design), dtype=bool) if design.ndim == 2 else np.ones(len(design), dtype=bool)
    if len(design) < 3 or not np.isfinite(values).all() or not np.isfinite(design[off]).all():
        raise DataError("at least 3 systems, and finite numbers for each, are needed")
    if design.ndim == 2 and not np.allclose(design[off], design.T[off]):
        raise DataError("design is not symmetric: it has two values for the same pair")
    return values, design


def refuse_replicates(replicates: np.ndarray, distances: np.ndarray, least: int = 2) -> None:
    if np.ndim(replicates) != 3 or replicates.shape[1:] != distances.shape or len(replicates) < least:
        raise DataError(
            f"replicates have shape {np.shape(replicates)}; (n, {len(distances)}, {len(distances)}) with n >= {least} "
            f"are needed, from trial_replicates"
        )
