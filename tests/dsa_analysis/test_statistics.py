"""Statistics of distance matrices: closed forms, other people's numbers, and error rates as promised.

tests/reference/scikit_bio.json holds what scikit-bio 0.7.4 says of one small matrix; p values there and here are from
9999 random permutations each.
"""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest, rankdata, spearmanr
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score, silhouette_score

from dsa_analysis import (
    DataError,
    auroc,
    auroc_interval,
    compare,
    distance_intervals,
    holm,
    mantel,
    mean_interval,
    noise_floor,
    permanova,
    silhouette,
    silhouette_interval,
    spearman,
    spearman_interval,
    trial_replicates,
)
from dsa_analysis.inference import _auroc, _silhouette, _spearman

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "scikit_bio.json").read_text())
DISTANCES, GROUPS = np.array(REFERENCE["distances"]), REFERENCE["groups"]
DESIGN = np.array(REFERENCE["design"])


def between(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def cloud(
    seed: int, sizes: tuple[int, ...] = (5, 5), shift: float = 0.0, n_dims: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of normal points in groups whose means are ``shift`` apart, and the groups."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    points = np.random.default_rng(seed).standard_normal((len(groups), n_dims))
    points[:, 0] += shift * groups
    return between(points), groups


# ---- permutation tests -----------------------------------------------------------------------------------------------


def monte_carlo_error(p: float) -> float:
    """Four standard errors of the difference of two p values from 9999 permutations each."""
    return 4 * math.sqrt(2 * p * (1 - p) / 9999)


def test_permanova_is_that_of_scikit_bio():
    ours, theirs = permanova(DISTANCES, GROUPS), REFERENCE["permanova"]
    assert ours.statistic == pytest.approx(theirs["statistic"], rel=1e-10)
    assert ours.p == pytest.approx(theirs["p"], abs=monte_carlo_error(theirs["p"]))
    assert (ours.n_permutations, ours.exact) == (9999, False)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_mantel_is_that_of_scikit_bio(method, alternative):
    theirs = REFERENCE[f"mantel {method} {alternative}"]
    ours = mantel(DISTANCES, DESIGN, method=method, alternative=alternative)
    assert ours.statistic == pytest.approx(theirs["statistic"], rel=1e-10)
    if method == "pearson":
        assert ours.p == pytest.approx(theirs["p"], abs=monte_carlo_error(theirs["p"]))


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize(("alternative", "turn"), [("two-sided", abs), ("greater", float), ("less", lambda r: -r)])
@pytest.mark.parametrize("seed", [0, 1])
def test_mantel_of_five_systems_goes_through_all_orders(method, alternative, turn, seed):
    generator = np.random.default_rng(seed)
    distances, design = between(generator.random((5, 2))), between(generator.random((5, 1)))
    pairs = np.triu_indices(5, 1)
    prepare = rankdata if method == "spearman" else np.asarray

    def correlation(order: tuple[int, ...]) -> float:
        return np.corrcoef(prepare(distances[np.ix_(order, order)][pairs]), prepare(design[pairs]))[0, 1]

    observed = turn(correlation(tuple(range(5))))
    all_orders = [turn(correlation(order)) >= observed - 1e-9 for order in itertools.permutations(range(5))]
    found = mantel(distances, design, method=method, alternative=alternative)
    assert found.p == sum(all_orders) / 120
    assert (found.exact, found.n_permutations) == (True, 120)


def test_permanova_of_two_groups_in_one_dimension_is_the_square_of_t():
    values = np.random.default_rng(0).standard_normal(12)
    a, b = values[:5], values[5:]
    pooled = (a.var(ddof=1) * 4 + b.var(ddof=1) * 6) / 10
    t = (a.mean() - b.mean()) / math.sqrt(pooled * (1 / 5 + 1 / 7))
    found = permanova(between(values[:, None]), ["a"] * 5 + ["b"] * 7)
    assert found.statistic == pytest.approx(t**2, rel=1e-10)
    assert found.r_squared == pytest.approx(t**2 / (t**2 + 10), rel=1e-10)
    assert found.p == pytest.approx(2 * student.sf(abs(t), 10), abs=0.02)  # normal values: about the t test


def test_permanova_goes_through_all_orders_of_few_systems():
    distances, groups = cloud(0, (3, 3))
    splits = [set(split) for split in itertools.combinations(range(6), 3)]
    values = [permanova(distances, [i in split for i in range(6)], n_permutations=99).statistic for split in splits]
    observed = permanova(distances, groups)
    assert observed.exact
    assert observed.p == pytest.approx(np.mean(np.array(values) >= observed.statistic - 1e-9))


@pytest.mark.filterwarnings("ignore:groups differ in spread")  # chance does it in one of twenty sets
@pytest.mark.parametrize("restricted", [False, True])
def test_permanova_is_uniform_where_groups_do_not_differ(restricted):
    p = []
    for seed in range(500):
        generator = np.random.default_rng([seed, restricted])
        points, groups, settings = generator.standard_normal((12, 2)), np.repeat([0, 1], 6), {}
        if restricted:  # three sessions far apart; groups are unequally frequent in them
            sessions, groups = np.repeat([0, 1, 2], 4), np.array([0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1])
            points[:, 0] += 5 * sessions
            settings["blocks"] = sessions
        p.append(permanova(between(points), groups, n_permutations=199, seed=seed, **settings).p)
    jitter = np.random.default_rng(0).uniform(-1 / 200, 0, 500)  # p takes steps of 1/200
    assert kstest(np.array(p) + jitter, "uniform").pvalue > 0.01


def test_sessions_look_like_groups_unless_permutations_stay_within_them():
    sessions, groups = np.repeat([0, 1], 6), np.array([0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1])
    free, blocked = [], []
    for seed in range(40):
        points = np.random.default_rng(seed).standard_normal((12, 2))
        points[:, 0] += 5 * sessions
        free.append(permanova(between(points), groups, n_permutations=199).p < 0.05)
        blocked.append(permanova(between(points), groups, n_permutations=199, blocks=sessions).p < 0.05)
    assert np.mean(free) > 0.3  # .05 were right
    assert np.mean(blocked) < 0.2  # 40 draws at .05: above .2 with a chance of 1e-4


def test_systems_of_one_unit_do_not_count_as_independent():
    animals = np.repeat(np.arange(6), 4)
    points = np.random.default_rng(0).standard_normal((6, 2))[animals]
    points = points + 0.1 * np.random.default_rng(1).standard_normal(points.shape)
    groups = animals % 2
    alone, together = (permanova(between(points), groups, units=units) for units in (None, animals))
    assert alone.statistic == together.statistic
    assert alone.p < 0.05 < together.p  # six animals, not 24
    assert together.exact
    assert together.p in np.arange(1, 721) / 720


def test_unequal_spread_is_warned_about():
    generator = np.random.default_rng(0)
    points = np.concatenate([0.1 * generator.standard_normal((8, 3)), generator.standard_normal((8, 3))])
    with pytest.warns(
        UserWarning, match=r"groups differ in spread \(mean distance to their centre: calm 0.1.*, wild 1"
    ):
        found = permanova(between(points), ["calm"] * 8 + ["wild"] * 8)
    assert found.spread_p < 0.01
    own = points[8:]
    assert found.spread["wild"] == pytest.approx(np.linalg.norm(own - own.mean(0), axis=1).mean())


def test_test_of_spread_is_the_permdisp_of_scikit_bio():
    from dsa_analysis.inference import _distances_to_centres, _levene

    _, labels = np.unique(GROUPS, return_inverse=True)
    away = _distances_to_centres(DISTANCES**2, labels)
    # theirs goes through principal coordinates, ours does not
    assert _levene(away, labels[None], 3)[0] == pytest.approx(REFERENCE["permdisp"]["statistic"], rel=1e-6)


def test_holm_is_that_of_the_textbook():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1, 1])
    assert holm([0.2]) == [0.2]


def test_same_seed_same_p_and_no_global_state():
    distances, groups = cloud(0, (10, 10))
    state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    one, two, other = (permanova(distances, groups, n_permutations=199, seed=seed).p for seed in (1, 1, 2))
    auroc_interval(distances, groups, n_resamples=100)
    assert one == two != other
    assert (np.random.get_state()[1] == state[0]).all()  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), state[1])


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


def test_interval_of_a_distance_reaches_zero_only_where_systems_are_alike(systems, similarity):
    low, high = distance_intervals(similarity, trial_replicates(systems, similarity, n_replicates=60, progress=False))
    assert low[0, 1] == 0  # two recordings of one system
    assert low[0, 2] > 0
    assert (low <= high).all()
    np.testing.assert_array_equal(low, low.T)


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
        (lambda d, g: auroc(d[:, :3], g), r"distances have shape \(10, 3\); systems among themselves, \(k, k\)"),
        (lambda d, g: auroc(d + np.triu(d), g), "distances hold NaN or are not symmetric"),
        (lambda d, g: permanova(np.where(d > 1, np.nan, d), g), "distances hold NaN or are not symmetric"),
        (lambda d, g: permanova(d + 1, g), "distances are negative, or not zero on the diagonal"),
        (lambda d, g: silhouette(d, g[:9]), "9 groups came for 10 systems"),
        (lambda d, g: auroc(d, range(10)), "groups hold no two systems of the same group"),
        (lambda d, g: permanova(d, [1] * 10), "1 groups came for 10 systems; at least two groups are needed"),
        (lambda d, g: permanova(d, range(10)), "10 groups came for 10 systems"),
        (lambda d, g: permanova(0 * d, g), "all distances are zero"),
        (lambda d, g: permanova(d, g, blocks=g), "nothing to permute: within each block all systems are of one group"),
        (lambda d, g: permanova(d, g, units=[0] * 10), "nothing to permute: 1 units in blocks of one each"),
        (lambda d, g: permanova(d, g, units=list("ab" * 5)), "unit 'a' lies in several groups"),
        (lambda d, g: permanova(d, g, blocks=[0, 1] * 5, units=np.arange(10) // 2), "unit 0 lies in several blocks"),
        (lambda d, g: permanova(d, g, blocks=[0]), "1 blocks came for 10 systems"),
        (lambda d, g: permanova(d, g, n_permutations=10), "n_permutations = 10 is not a whole number of at least 99"),
        (lambda d, g: mantel(d, d[:5, :5]), r"design has shape \(5, 5\), the distances \(10, 10\)"),
        (lambda d, g: mantel(d, np.triu(d)), "design is not symmetric"),
        (
            lambda d, g: mantel(d, np.ones((10, 10))),
            "design is the same for all pairs: no correlation|design are the same",
        ),
        (lambda d, g: mantel(d, d, method="kendall"), "method = 'kendall' is none of 'spearman', 'pearson'"),
        (lambda d, g: mantel(d[0], g), "a Mantel test needs the distances of all pairs"),
        (lambda d, g: mantel(d[:2, :2], d[:2, :2]), "at least 3 systems"),
        (lambda d, g: spearman(d, np.where(d > 1, np.inf, d)), "finite numbers"),
        (lambda d, g: auroc_interval(d, g, n_resamples=10), "n_resamples = 10 is not a whole number of at least 100"),
        (lambda d, g: auroc_interval(d, g, confidence=95), "confidence = 95 is not between 0 and 1"),
        (
            lambda d, g: auroc_interval(d, g, replicates=d),
            r"replicates have shape \(10, 10\); \(n, 10, 10\) with n >= 2",
        ),
        (lambda d, g: distance_intervals(d, np.stack([d] * 5)), r"\(n, 10, 10\) with n >= 20"),
        (lambda d, g: holm([0.1, 1.2]), r"p_values are a list of numbers in \[0, 1\]"),
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
    with pytest.raises(DataError, match="system 'a' has one trial; to draw trials again at least 2 are needed"):
        trial_replicates(single, similarity)
    with pytest.raises(DataError, match="systems a, b are not those compared, a, b, c"):
        trial_replicates({name: systems[name] for name in "ab"}, similarity)
    matrices = compare({name: np.random.default_rng(0).random((3, 3)) for name in "abc"}, **SETTINGS)
    with pytest.raises(DataError, match="system 'a' was compared as a matrix; it has no trials to draw again"):
        trial_replicates(systems, matrices)
    pieces = compare(systems, windows=[(0, 20), (20, 40)], **SETTINGS)
    with pytest.raises(DataError, match="systems were compared window by window"):
        trial_replicates(systems, pieces)
    with pytest.raises(DataError, match="metric = 'cka' is none of"):
        noise_floor(systems, **SETTINGS, metric="cka")
