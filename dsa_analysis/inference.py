"""What a distance is worth: the noise floor under it, and intervals around it and around what it says about groups.

Distances between k systems are k (k - 1) / 2 numbers that rest on k systems: pairs that share one are not independent.
So nothing here resamples pairs. Intervals resample systems, within their groups, and, if given replicates from
`trial_replicates`, the trials within systems (BCa bootstrap, Efron 1987). Tests of groups and designs stand in
`permutation`.

All take a `Similarity` of systems among themselves or its matrix (k, k).
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.special import ndtr, ndtri, stdtrit
from tqdm import tqdm

from dsa_analysis.alignment import as_operators
from dsa_analysis.comparison import Comparison, as_comparison
from dsa_analysis.data import DataError, as_device, as_systems, as_trials, check_count
from dsa_analysis.dmd import Operator, fit
from dsa_analysis.metrics import is_matched
from dsa_analysis.operators import Key, fit_all
from dsa_analysis.pairs import Systems, solve_pairs
from dsa_analysis.similarity import Similarity
from dsa_analysis.windows import cut

if TYPE_CHECKING:
    import pandas as pd


class Interval(NamedTuple):
    """A mean, or another estimate, with its confidence interval and the number of systems or repetitions behind it."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


# ---- trials ----------------------------------------------------------------------------------------------------------


def noise_floor(
    systems: Any,
    how: Comparison | None = None,
    *,
    n_splits: int = 5,
    device: str | torch.device | None = None,
    progress: bool = True,
    **choices: Any,
) -> "pd.Series":
    """Distance between two halves of the trials of each system: smaller distances cannot be told from zero.

    The mean over several splits: the odd against the even trials first, then halves drawn at random. Both halves have
    the same number of trials, so one is left out where the number is odd. Each half holds half of the trials, so the
    floor of all of them is somewhat lower.

    Parameters
    ----------
    systems : as in `compare`, as data
    how : Comparison, optional
        The same as for `compare`; its seed also draws the splits.
    n_splits : int >= 1
        Time grows in proportion; one split of few trials is itself uncertain.
    device : str or torch.device, optional
    progress : bool
        Show bars on stderr for what takes more than two seconds.
    **choices
        Fields of `Comparison`, which override those of ``how``.

    Returns
    -------
    pandas.Series
        One distance for each system, by label.

    Raises
    ------
    DataError
        A system with one trial; windows; a metric that compares matched trials, of which a system has only one set; and
        whatever `compare` refuses.
    """
    import pandas as pd

    how = as_comparison(how, choices)
    if is_matched(how.metric):
        raise DataError(
            f"metric = {how.metric.name!r} compares matched trials, and a system has only one set of them: it has no "
            f"noise floor"
        )
    if how.windows is not None:
        raise DataError("a noise floor is that of whole trials: leave windows out, or cut the trials first")
    check_count("n_splits", n_splits)
    trials = {name: as_trials(system, name, as_device(device)) for name, system in as_systems(systems).items()}
    for name, parts in trials.items():
        if len(parts) < 2:
            raise DataError(f"system {name!r} has one trial; a floor needs two halves, so at least 2 trials")
    generator = np.random.default_rng(how.seed)
    halves: list[dict[Key, Any]] = [{}, {}]
    for split in range(n_splits):
        for name, parts in trials.items():
            n = len(parts) // 2
            order = generator.permutation(len(parts)) if split else np.r_[0 : 2 * n : 2, 1 : 2 * n : 2]
            for side, chosen in enumerate((order[:n], order[n : 2 * n])):
                called = f"{name}, half {2 * split + side}"
                halves[side][Key(name, 2 * split + side, called=called)] = [parts[i] for i in np.sort(chosen)]
    everyone = halves[0] | halves[1]
    values = _needed(everyone, how, progress)
    first = torch.arange(len(halves[0]))
    if isinstance(values, torch.Tensor):
        first = first.to(values.device)
    names = [f"system {str(key)!r}" for key in everyone]
    solved = solve_pairs(how.metric, values, first, first + len(first), how.options(), names=names, progress=progress)
    floor = solved.distance.view(n_splits, -1).mean(0).cpu().numpy()
    return pd.Series(floor, index=list(trials), name="noise floor")


def _needed(pieces: dict[Key, Any], how: Comparison, progress: bool) -> Systems:
    """What the metric needs of some trials."""
    if how.metric.needs == "trials":
        return list(pieces.values())
    stacked = as_operators(list(fit_all(pieces, how, None, progress, stacklevel=5).values()), "operators")
    return stacked if how.metric.needs == "operators" else torch.linalg.eigvals(stacked)


def trial_replicates(
    systems: Any,
    similarity: Similarity,
    *,
    n_replicates: int = 100,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Distances of systems whose trials were drawn again, with replacement, as many as there are.

    They show how much of a distance depends on the trials that happened to be recorded; for `distance_intervals`, and
    as ``replicates`` of the other intervals. Systems are compared as in ``similarity``, and each replicate takes as
    long as that comparison.

    Parameters
    ----------
    systems
        The ones that were compared, as data.
    similarity : Similarity
        Of ``systems`` among themselves. Where these were compared window by window, a trial is drawn with all of its
        windows, and distances are again means over windows.
    n_replicates : int >= 1
    seed : int >= 0
        Of the draws.
    device : str or torch.device, optional
    progress : bool
        Show a bar on stderr for what takes more than two seconds.

    Returns
    -------
    ndarray, (n_replicates, k, k)

    Raises
    ------
    DataError
        Systems that are operators, have a single trial, or are others than those of ``similarity``.
    """
    check_count("n_replicates", n_replicates)
    check_count("seed", seed, 0)
    trials = {name: as_trials(system, name, as_device(device)) for name, system in as_systems(systems).items()}
    if tuple(trials) != similarity.labels or similarity.two_sided:
        raise DataError(f"systems {', '.join(trials)} are not those compared, {', '.join(similarity.labels)}")
    for name, parts in trials.items():
        if len(parts) < 2:
            raise DataError(f"system {name!r} has one trial; to draw trials again at least 2 are needed")
    how = similarity.comparison
    pieces: Pieces = [trials]
    if how.windows is not None:
        cuts = {name: cut(parts, how.windows, name) for name, parts in trials.items()}
        pieces = [{name: own[window] for name, own in cuts.items()} for window in how.windows]
    generator, k, together = np.random.default_rng(seed), len(trials), is_matched(how.metric)
    rows, columns = np.triu_indices(k, 1)
    index = [torch.from_numpy((k * np.arange(len(pieces))[:, None] + some).ravel()) for some in (rows, columns)]
    result = np.zeros((n_replicates, k, k))
    redrawn = _redrawn(similarity)
    for replicate in tqdm(range(n_replicates), desc="replicates", delay=2, leave=False, disable=not progress):
        order, chosen = np.empty(0, int), {}
        for name, parts in trials.items():
            if not together or not len(order):  # matched trials are drawn together
                order = generator.integers(len(parts), size=len(parts))
            chosen[name] = order
        drawn = redrawn([{name: [own[i] for i in chosen[name]] for name, own in piece.items()} for piece in pieces])
        solved = solve_pairs(how.metric, drawn, *index, options=how.options()).distance.cpu().numpy()
        result[replicate, rows, columns] = result[replicate, columns, rows] = solved.reshape(len(pieces), -1).mean(0)
    return result


Pieces = list[dict[str, list[torch.Tensor]]]  # of each window, the trials of each system


def _redrawn(similarity: Similarity) -> Callable[[Pieces], Systems]:
    """Pieces of the systems compared -> what the metric needs of each, fitted as in the comparison.

    Alignments are solved afresh: carried over from those of all trials they end in a lesser optimum more often than
    not, since the axes of each system turn with the trials, and save less than half of the time.
    """
    how = similarity.comparison
    if how.metric.needs == "trials":
        return lambda pieces: [trials for piece in pieces for trials in piece.values()]
    old = [similarity.operators[label] for label in similarity.labels]
    by_window = [tuple(old)] if how.windows is None else list(zip(*old, strict=True))
    for label, operator in zip(similarity.labels, by_window[0], strict=True):
        if not isinstance(operator, Operator):
            raise DataError(f"system {label!r} was compared as a matrix; it has no trials to draw again")

    def refit(pieces: Pieces) -> torch.Tensor:
        matrices = torch.stack(
            [
                fit(parts, operator.parameters, name, how.noise_of(name))[0].matrix
                for operators, piece in zip(by_window, pieces, strict=True)
                for operator, (name, parts) in zip(operators, piece.items(), strict=True)
            ]
        )
        return matrices if how.metric.needs == "operators" else torch.linalg.eigvals(matrices)

    return refit


def distance_intervals(
    similarity: Similarity | np.ndarray, replicates: np.ndarray, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper confidence limits (k, k) of each distance, over the trials that were recorded.

    Noise that is independent of the difference adds its variance b to the square of a distance, once in the estimate d
    and once more in each r of ``replicates`` (n, k, k), so that b = mean r^2 - d^2 and the limits are quantiles of
    r^2 - 2 b. They are not reflected about d^2, as in the basic bootstrap: squares are skewed to the right, and
    reflected the skew lies on the wrong side, most of all near the noise. A lower limit of 0 means that the trials do
    not tell the systems apart.

    Measured for limits of 95 % on simulated systems of 12 trials, of which equal ones come out .09 apart, against the
    distance that 20,000 trials give: .88 (angular) and .93 (spectral) of 120 sets cover a distance of .45 and .39, .93
    and .95 one of .14 and .12; of 100 pairs of equal systems 99 reach 0. So few trials make intervals of any bootstrap
    somewhat narrow.
    """
    distances = as_distances(similarity)
    _refuse_replicates(replicates, distances, 20)
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    noise = (replicates**2).mean(0) - distances**2
    low, high = np.quantile(replicates**2, tails, 0) - 2 * noise
    return np.sqrt(low.clip(0)), np.sqrt(high.clip(0))  # what is estimated, a square, is not negative


# ---- systems ---------------------------------------------------------------------------------------------------------


def silhouette(similarity: Similarity | np.ndarray, groups: Sequence[Any]) -> float:
    """Mean silhouette of systems in their groups, in [-1, 1]: near 1 groups are tight and far apart, at 0 they touch.

    Rousseeuw 1987.
    """
    from sklearn.metrics import silhouette_score

    distances = as_distances(similarity, groups)
    return float(silhouette_score(distances, groups, metric="precomputed"))


def auroc(similarity: Similarity | np.ndarray, groups: Sequence[Any]) -> float:
    """Probability in [0, 1] that a pair from two groups is farther apart than a pair from one group."""
    distances, (_, labels) = as_distances(similarity, groups), np.unique(np.asarray(groups), return_inverse=True)
    value = _auroc(distances, labels, np.ones(len(labels)))
    if math.isnan(value):
        raise DataError("groups hold no two systems of the same group, or of different groups: nothing to tell apart")
    return value


def spearman(similarity: Similarity | np.ndarray, design: np.ndarray) -> float:
    """Rank correlation in [-1, 1] of the distances of all pairs with what ``design`` (k, k) says of these pairs.

    Such as the number of parts two systems share. With one value for each of k systems on both sides, such as distances
    to a reference and performances, it is the ordinary rank correlation.
    """
    return _spearman(*as_matched(similarity, design), weights=np.ones(len(design)))


def auroc_interval(similarity: Similarity | np.ndarray, groups: Sequence[Any], **bootstrap: Any) -> Interval:
    """`auroc` with its interval over systems, drawn again within groups.

    Parameters
    ----------
    similarity, groups
        As in `auroc`.
    replicates : (n, k, k), optional
        From `trial_replicates`: each resampling of systems also takes one of these, so the interval covers the choice
        of trials too. Without them it covers the choice of systems alone.
    n_resamples : int >= 100, default 2000
    confidence : float in (0, 1), default 0.95
    seed : int >= 0, default 0

    Returns
    -------
    Interval
        ``n`` counts systems. The limits meet where no resampling changes the value, as at an AUROC of 1: few systems
        cannot say how close to 1 it is.
    """
    auroc(similarity, groups)
    distances, (_, labels) = as_distances(similarity), np.unique(np.asarray(groups), return_inverse=True)
    return _bootstrap(lambda d, w: _auroc(d, labels, w), distances, labels, **bootstrap)


def silhouette_interval(similarity: Similarity | np.ndarray, groups: Sequence[Any], **bootstrap: Any) -> Interval:
    """`silhouette` with its interval over systems, drawn again within groups; arguments as in `auroc_interval`."""
    silhouette(similarity, groups)
    distances, (_, labels) = as_distances(similarity), np.unique(np.asarray(groups), return_inverse=True)
    return _bootstrap(lambda d, w: _silhouette(d, labels, w), distances, labels, **bootstrap)


def spearman_interval(similarity: Similarity | np.ndarray, design: np.ndarray, **bootstrap: Any) -> Interval:
    """`spearman` with its interval over systems; further arguments as in `auroc_interval`."""
    distances, design = as_matched(similarity, design)
    one_group = np.zeros(len(design), int)
    return _bootstrap(lambda d, w: _spearman(d, design, w), distances, one_group, **bootstrap)


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean over independent repetitions (seeds, networks) with Student's interval; NaN limits for a single one."""
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

    Weights count how often each system was drawn within its group. Pairs of a system with its own copies do not exist
    for the statistics below. Resamplings that leave them undefined, such as one system drawn throughout, are drawn
    anew.
    """
    check_count("n_resamples", n_resamples, 100)
    if not 0 < confidence < 1:
        raise DataError(f"confidence = {confidence!r} is not between 0 and 1")
    if replicates is not None:
        _refuse_replicates(replicates, distances)
    generator, k = np.random.default_rng(seed), len(groups)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]

    def resampled() -> float:
        drawn = np.concatenate([generator.choice(own, len(own)) for own in members])
        source = distances if replicates is None else replicates[generator.integers(len(replicates))]
        return statistic(source, np.bincount(drawn, minlength=k).astype(float))

    estimate = statistic(distances, np.ones(k))
    values = np.array([resampled() for _ in range(n_resamples)])
    for _ in range(20):  # in groups of two, half of the draws hold one system twice
        undefined = np.isnan(values)
        values[undefined] = [resampled() for _ in range(undefined.sum())]
    if np.isnan(values).any() or math.isnan(estimate):
        raise DataError(
            f"{k} systems in groups of {', '.join(str(len(own)) for own in members)} are too few to resample"
        )

    # how the statistic leans: influence of each system by leaving it out, and the median against the estimate
    without = np.array([statistic(distances, 1.0 - (np.arange(k) == i)) for i in range(k)])
    defined = [own[np.isfinite(without[own])] for own in members]
    pull = np.concatenate([(without[own].mean() - without[own]) / len(own) for own in defined if len(own)] or [[0.0]])
    lean = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5) if pull.any() else 0.0
    share = ((values < estimate).mean() + (values <= estimate).mean()) / 2
    shift = ndtri(np.clip(share, 1 / n_resamples, 1 - 1 / n_resamples))
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
    """Weight of the values below each value, and half of that of those equal to it."""
    _, place = np.unique(values, return_inverse=True)
    at = np.bincount(place, weights)
    return (np.cumsum(at) - at / 2)[place]


# ---- checks ----------------------------------------------------------------------------------------------------------


def as_distances(similarity: Similarity | np.ndarray, groups: Sequence[Any] | None = None) -> np.ndarray:
    """The distances of systems among themselves, checked."""
    distances = np.asarray(getattr(similarity, "distances", similarity), dtype=float)
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise DataError(f"distances have shape {distances.shape}; systems among themselves, (k, k), are needed")
    if np.isnan(distances).any() or not np.allclose(distances, distances.T, atol=1e-9, rtol=0):
        raise DataError("distances hold NaN or are not symmetric")
    if (distances < 0).any() or distances.diagonal().any():
        raise DataError("distances are negative, or not zero on the diagonal")
    if groups is not None and len(groups) != len(distances):
        raise DataError(f"{len(groups)} groups came for {len(distances)} systems")
    return distances


def as_matched(similarity: Similarity | np.ndarray, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances and what they are held against, both (k, k) and symmetric or both (k,)."""
    values, design = np.asarray(getattr(similarity, "distances", similarity), dtype=float), np.asarray(design, float)
    values = values if values.ndim == 1 else as_distances(values)
    if design.shape != values.shape:
        raise DataError(f"design has shape {design.shape}, the distances {values.shape}; they need the same")
    off = ~np.eye(len(design), dtype=bool) if design.ndim == 2 else np.ones(len(design), dtype=bool)
    if len(design) < 3 or not np.isfinite(values).all() or not np.isfinite(design[off]).all():
        raise DataError("at least 3 systems, and finite numbers for each, are needed")
    if design.ndim == 2 and not np.allclose(design[off], design.T[off]):
        raise DataError("design is not symmetric: it says two things of one pair")
    return values, design


def _refuse_replicates(replicates: np.ndarray, distances: np.ndarray, least: int = 2) -> None:
    if np.ndim(replicates) != 3 or replicates.shape[1:] != distances.shape or len(replicates) < least:
        raise DataError(
            f"replicates have shape {np.shape(replicates)}; (n, {len(distances)}, {len(distances)}) with n >= {least} "
            f"are needed, from trial_replicates"
        )
