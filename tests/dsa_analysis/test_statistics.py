"""Floors, scores and intervals: closed forms, other people's numbers, and intervals that cover as promised."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score, silhouette_score

from dsa_analysis import (
    DataError,
    auroc,
    auroc_interval,
    compare,
    distance_intervals,
    mean_interval,
    noise_floor,
    silhouette,
    silhouette_interval,
    spearman,
    spearman_interval,
    trial_replicates,
)
from dsa_analysis.inference import _auroc, _silhouette, _spearman
from tests.dsa_analysis.clouds import between, cloud

pytestmark = pytest.mark.filterwarnings("ignore:.* of .* systems:UserWarning")  # short trials leave small gaps

# ---- scores and their intervals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn_and_scipy(seed):
    distances, groups = cloud(seed, (4, 5, 3), shift=1.0)
    pairs = np.triu_indices(12, 1)
    assert auroc(distances, groups) == pytest.approx(
        roc_auc_score(groups[pairs[0]] != groups[pairs[1]], distances[pairs]), abs=1e-12
    )
    expected = silhouette_score(distances, groups, metric="precomputed")
    assert _silhouette(distances, groups, np.ones(12)) == pytest.approx(expected)
    design = abs(groups[:, None] - groups)
    assert spearman(distances, design) == pytest.approx(spearmanr(distances[pairs], design[pairs])[0])
    assert spearman(distances[0], groups) == pytest.approx(spearmanr(distances[0], groups)[0])


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_copies_without_the_pairs_of_a_system_with_itself(seed):
    """What a resampling does: systems drawn twice stand twice, and their own pairs do not exist."""
    distances, groups = cloud(seed, (5, 5), shift=1.0)
    drawn = np.random.default_rng(seed).integers(0, 5, 10) + np.repeat([0, 5], 5)
    weights = np.bincount(drawn, minlength=10).astype(float)
    copies, labels = distances[np.ix_(drawn, drawn)], groups[drawn]
    rows, columns = np.triu_indices(10, 1)
    real = drawn[rows] != drawn[columns]
    rows, columns = rows[real], columns[real]
    assert _auroc(distances, groups, weights) == pytest.approx(
        roc_auc_score(labels[rows] != labels[columns], copies[rows, columns])
    )
    design = np.random.default_rng(9).random((10, 10))
    design = design + design.T
    expected = spearmanr(copies[rows, columns], design[np.ix_(drawn, drawn)][rows, columns])[0]
    assert _spearman(distances, design, weights) == pytest.approx(expected)


COVERAGE = {
    "auroc": lambda seed: (auroc, auroc_interval, *cloud(seed, (6, 6, 6), shift=1.0)),
    "silhouette": lambda seed: (silhouette, silhouette_interval, *cloud(seed, (8, 8), shift=2.0)),
    "spearman": lambda seed: (spearman, spearman_interval, *gradient(seed)),
}


def gradient(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances of 15 systems that follow a design with noise."""
    generator = np.random.default_rng(seed)
    hidden = generator.random((15, 2))
    return between(hidden + 0.15 * generator.standard_normal((15, 2))), between(hidden)


@pytest.mark.slow
@pytest.mark.parametrize("score", COVERAGE)
def test_intervals_cover_what_they_promise(score):
    truth = np.mean([(made := COVERAGE[score](10_000 + seed))[0](*made[2:]) for seed in range(2000)])
    covered = []
    for seed in range(300):
        _, interval, distances, design = COVERAGE[score](seed)
        found = interval(distances, design, n_resamples=400, seed=seed)
        covered.append(found.low <= truth <= found.high)
    assert 0.90 <= np.mean(covered) <= 0.99


def test_intervals_cover_the_mean_at_the_nominal_rate():
    values = np.random.default_rng(0).exponential(size=(2000, 30))
    found = [mean_interval(row) for row in values]
    assert 0.90 <= np.mean([interval.low <= 1 <= interval.high for interval in found]) <= 0.99


def test_interval_narrows_with_systems_and_widens_with_confidence():
    few, many = (auroc_interval(*cloud(0, (n, n), shift=1.5), n_resamples=500) for n in (5, 20))
    assert many.high - many.low < few.high - few.low
    wide = auroc_interval(*cloud(0, (5, 5), shift=1.5), n_resamples=500, confidence=0.99)
    assert wide.low <= few.low < few.high <= wide.high
    assert (few.n, many.n) == (10, 40)
    assert few.low <= few.mean <= few.high


def test_groups_of_two_can_be_resampled():
    found = auroc_interval(*cloud(0, (2, 2, 2), shift=1.0), n_resamples=200)
    assert 0 <= found.low <= found.mean <= found.high <= 1


# ---- trials ----------------------------------------------------------------------------------------------------------


def turning(angle: float, size: float, n_trials: int, seed: int) -> torch.Tensor:
    """Noisy rotations: (n_trials, 40, 2)."""
    generator = torch.Generator().manual_seed(seed)
    A = size * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    x, samples = torch.randn(n_trials, 2, generator=generator), []
    for _ in range(40):
        samples.append(x)
        x = x @ A.T + 0.3 * torch.randn(n_trials, 2, generator=generator)
    return torch.stack(samples, 1)


SETTINGS = {"n_delays": 2, "rank": 3, "n_starts": 8, "progress": False}


@pytest.fixture(scope="module")
def systems():
    return {name: turning(angle, 0.9, 12, k) for k, (name, angle) in enumerate({"a": 0.3, "b": 0.3, "c": 0.8}.items())}


@pytest.fixture(scope="module")
def similarity(systems):
    return compare(systems, **SETTINGS)


def test_floor_of_one_split_is_the_distance_of_odd_and_even_trials(systems):
    floor = noise_floor(systems, n_splits=1, **SETTINGS)
    for name, trials in systems.items():
        assert floor[name] == pytest.approx(compare([trials[::2], trials[1::2]], **SETTINGS).distances[0, 1], abs=1e-9)


def test_floor_is_a_mean_over_splits_into_equal_halves(systems):
    """An odd trial stays out: with three trials each half is one trial, whichever it is."""
    three = {"a": systems["a"][:3]}
    pairs = [
        compare([three["a"][[i]], three["a"][[j]]], **SETTINGS).distances[0, 1] for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    floor = noise_floor(three, n_splits=4, **SETTINGS)["a"]
    assert min(pairs) - 1e-9 <= floor <= max(pairs) + 1e-9
    sums = {round(4 * floor, 6)}
    assert any(round(sum(combination), 6) in sums for combination in itertools.combinations_with_replacement(pairs, 4))


def test_floor_falls_with_trials_and_is_repeatable(systems):
    many = {"a": turning(0.3, 0.9, 100, 0)}
    few, more = (noise_floor(s, **SETTINGS)["a"] for s in (systems, many))
    assert more < few
    assert few == noise_floor(systems, **SETTINGS)["a"]


def test_replicates_scatter_around_the_distance_and_are_repeatable(systems, similarity):
    one, two = (trial_replicates(systems, similarity, n_replicates=30, seed=1, progress=False) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (30, 3, 3)
    np.testing.assert_array_equal(one, one.transpose(0, 2, 1))
    assert one[:, 0, 2].std() > 0
    assert np.median(one[:, 0, 2]) == pytest.approx(similarity.distances[0, 2], rel=0.2)


def test_replicates_of_equal_trials_are_the_distances_themselves(systems):
    equal = {name: trials[:1].repeat(4, 1, 1) for name, trials in systems.items()}
    similarity = compare(equal, **SETTINGS)
    found = trial_replicates(equal, similarity, n_replicates=3, progress=False)
    np.testing.assert_allclose(found, np.broadcast_to(similarity.distances, found.shape), atol=1e-7)  # order of sums


@pytest.mark.parametrize("metric", ["euclidean", "spectral", "cka", "procrustes"])
def test_replicates_know_all_metrics(systems, metric):
    similarity = compare(systems, metric=metric, **SETTINGS)
    found = trial_replicates(systems, similarity, n_replicates=5, progress=False)
    assert found.shape == (5, 3, 3)
    assert np.isfinite(found).all()
    assert not found[:, range(3), range(3)].any()


@pytest.mark.parametrize("metric", ["angular", "spectral", "cka"])
def test_replicates_of_windows_are_means_over_replicates_of_each(systems, metric):
    """Each trial is drawn with all of its windows: the same draws for pieces compared on their own."""
    borders, settings = {"early": (0, 20), "late": (15, 40)}, SETTINGS | {"metric": metric}
    pieces = compare(systems, windows=borders, **settings)
    found = trial_replicates(systems, pieces, n_replicates=3, seed=2, progress=False)
    alone = []
    for start, stop in borders.values():
        cut = {name: trials[:, start:stop] for name, trials in systems.items()}
        alone.append(trial_replicates(cut, compare(cut, **settings), n_replicates=3, seed=2, progress=False))
    np.testing.assert_allclose(found, np.mean(alone, 0), rtol=0, atol=1e-9)  # alignments in other batches
    loaded = replace(pieces, settings=json.loads(json.dumps(pieces.settings)))  # what comes back from disk
    np.testing.assert_array_equal(trial_replicates(systems, loaded, n_replicates=3, seed=2, progress=False), found)
    with pytest.raises(DataError, match="window 'late' ends at sample 40, but system 'a', trial 0 has 30"):
        trial_replicates({name: trials[:, :30] for name, trials in systems.items()}, pieces)


def test_interval_of_windowed_distances_reaches_zero_only_where_systems_are_alike(systems):
    pieces = compare(systems, windows=[(0, 20), (20, 40)], **SETTINGS)
    low, high = distance_intervals(pieces, trial_replicates(systems, pieces, n_replicates=40, progress=False))
    assert low[0, 1] == 0 < low[0, 2] < pieces.distances[0, 2] < high[0, 2]


def test_interval_of_a_distance_reaches_zero_only_where_systems_are_alike(systems, similarity):
    low, high = distance_intervals(similarity, trial_replicates(systems, similarity, n_replicates=60, progress=False))
    assert low[0, 1] == 0  # two recordings of one system
    assert low[0, 2] > 0
    assert (low <= high).all()
    np.testing.assert_array_equal(low, low.T)


@pytest.mark.parametrize("size", [0, 1, 2, 4, 10])
@pytest.mark.parametrize("n", [1, 4, 9, 100])
def test_intervals_cover_the_length_of_a_vector_seen_through_noise(n, size):
    """What a distance is, without the operators: truth and noise are known, and the noise has length 1 or so.

    Reflected about the square of the estimate, the same quantiles cover .64 at n = 1, size = 1.
    """
    generator = np.random.default_rng(0)
    truth, n_sets, n_replicates = np.zeros(n), 300, 200
    truth[0] = size
    noise = generator.standard_normal((1 + n_replicates, n_sets, n)) / n**0.5
    estimate = truth + noise[0]
    d, replicates = np.linalg.norm(estimate, axis=-1), np.linalg.norm(estimate + noise[1:], axis=-1)
    off = 1 - np.eye(2)
    found = [distance_intervals(d[i] * off, replicates[:, i, None, None] * off) for i in range(n_sets)]
    low, high = np.array(found)[:, :, 0, 1].T
    # 300 sets and a rate of .94 are .90 to .98 within 3 standard errors; near the noise limits are wider than they need
    assert np.mean((low <= size) & (size <= high)) >= 0.90
    assert np.mean(low > size) <= 0.06
    assert np.mean(high < size) <= 0.08


def shrinking(angle: float, decay: float, n_trials: int, seed: int) -> torch.Tensor:
    """A noisy rotation and a mode that decays, seen at unequal gains: (n_trials, 30, 3)."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.zeros(3, 3)
    A[:2, :2] = 0.9 * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    A[2, 2], A[0, 2] = decay, 0.3
    x, samples = torch.randn(n_trials, 3, generator=generator), []
    for _ in range(30):
        samples.append(x * torch.tensor([1.0, 0.6, 0.4]))
        x = x @ A.T + 0.3 * torch.randn(n_trials, 3, generator=generator)
    return torch.stack(samples, 1)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["angular", "spectral"])
@pytest.mark.parametrize("other", [(0.8, 0.5), (0.4, 0.6)], ids=["far", "near"])
def test_intervals_cover_the_distance_that_very_many_trials_give(metric, other):
    """12 trials, of which equal systems come out .09 apart; the distances are .45 and .14, eigenvalues .39 and .12."""
    settings = {"n_delays": 2, "rank": 3, "n_starts": 4, "metric": metric, "progress": False}
    truth = compare([shrinking(0.3, 0.7, 20_000, 900), shrinking(*other, 20_000, 901)], **settings).distances[0, 1]
    covered = []
    for seed in range(100):
        systems = [shrinking(0.3, 0.7, 12, 1000 + 10 * seed), shrinking(*other, 12, 1001 + 10 * seed)]
        similarity = compare(systems, **settings)
        replicates = trial_replicates(systems, similarity, n_replicates=60, seed=seed, progress=False)
        low, high = distance_intervals(similarity, replicates)
        covered.append(low[0, 1] <= truth <= high[0, 1])
    assert np.mean(covered) >= 0.80  # .88 to .95 in 120 other sets; three standard errors of 100 sets are .09


def test_replicates_widen_the_intervals_of_scores(systems, similarity):
    replicates = trial_replicates(systems, similarity, n_replicates=20, progress=False)
    groups = ["slow", "slow", "fast"]
    without, found = (auroc_interval(similarity, groups, n_resamples=200, replicates=r) for r in (None, replicates))
    assert without.mean == found.mean == 1
    assert found.low <= without.low


# ---- what must be refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, g: auroc(d[:, :3], g), r"distances have shape \(10, 3\); the distances of k systems are \(k, k\)"),
        (lambda d, g: auroc(d + np.triu(d), g), "distances hold NaN or are not symmetric"),
        (lambda d, g: silhouette(d, g[:9]), "groups has 9 labels for 10 systems; give one for each"),
        (lambda d, g: auroc(d, range(10)), "groups must contain two systems of the same group and two of different"),
        (lambda d, g: spearman(d, np.where(d > 1, np.inf, d)), "finite numbers"),
        (lambda d, g: auroc_interval(d, g, n_resamples=10), "n_resamples = 10 is not a whole number of at least 100"),
        (lambda d, g: auroc_interval(d, g, confidence=95), "confidence = 95 is not between 0 and 1"),
        (
            lambda d, g: auroc_interval(d, g, replicates=d),
            r"replicates have shape \(10, 10\); \(n, 10, 10\) with n >= 2",
        ),
        (lambda d, g: distance_intervals(d, np.stack([d] * 5)), r"\(n, 10, 10\) with n >= 20"),
        (lambda d, g: mean_interval([]), "a list of at least one number is needed"),
    ],
)
def test_what_cannot_be_tested_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call(*cloud(0))


def test_halves_and_resamplings_need_trials(systems, similarity):
    single = {name: trials[:1] for name, trials in systems.items()}
    with pytest.raises(DataError, match="system 'a' has one trial; a floor needs two halves, so at least 2 trials"):
        noise_floor(single, **SETTINGS)
    with pytest.raises(DataError, match="system 'a' has one trial; at least 2 are needed to resample trials"):
        trial_replicates(single, similarity)
    with pytest.raises(DataError, match="systems a, b are not those compared, a, b, c"):
        trial_replicates({name: systems[name] for name in "ab"}, similarity)
    matrices = compare({name: np.random.default_rng(0).random((3, 3)) for name in "abc"}, **SETTINGS)
    with pytest.raises(DataError, match="system 'a' was compared as a matrix; it has no trials to resample"):
        trial_replicates(systems, matrices)
    with pytest.raises(DataError, match="metric = 'cka' is none of"):
        noise_floor(systems, **SETTINGS, metric="cka")
