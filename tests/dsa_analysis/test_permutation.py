"""Permutation tests: closed forms, other people's numbers, and error rates as promised.

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
from scipy.stats import kstest, rankdata
from scipy.stats import t as student

from dsa_analysis import DataError, holm, mantel, permanova
from dsa_analysis.permutation import _distances_to_centres, levene
from tests.dsa_analysis.clouds import between, cloud

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "scikit_bio.json").read_text())
DISTANCES, GROUPS = np.array(REFERENCE["distances"]), REFERENCE["groups"]
DESIGN = np.array(REFERENCE["design"])


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
    _, labels = np.unique(GROUPS, return_inverse=True)
    away = _distances_to_centres(DISTANCES**2, labels)
    # theirs goes through principal coordinates, ours does not
    assert levene(away, labels[None], 3)[0] == pytest.approx(REFERENCE["permdisp"]["statistic"], rel=1e-6)


def test_holm_is_that_of_the_textbook():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1, 1])
    assert holm([0.2]) == [0.2]


def test_same_seed_same_p_and_no_global_state():
    distances, groups = cloud(0, (10, 10))
    state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    one, two, other = (permanova(distances, groups, n_permutations=199, seed=seed).p for seed in (1, 1, 2))
    assert one == two != other
    assert (np.random.get_state()[1] == state[0]).all()  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), state[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, g: permanova(np.where(d > 1, np.nan, d), g), "distances hold NaN or are not symmetric"),
        (lambda d, g: permanova(d + 1, g), "distances are negative, or not zero on the diagonal"),
        (lambda d, g: permanova(d, [1] * 10), "1 groups of 10 systems came; at least two groups are needed"),
        (lambda d, g: permanova(d, range(10)), "10 groups of 10 systems came"),
        (lambda d, g: permanova(0 * d, g), "all distances are zero"),
        (lambda d, g: permanova(d, g, blocks=g), "nothing to permute: within each block all systems belong to"),
        (lambda d, g: permanova(d, g, units=[0] * 10), "nothing to permute: each of 1 units is alone in its block"),
        (
            lambda d, g: permanova(d, g, units=list("ab" * 5)),
            "unit 'a' is in several groups; all systems of a unit must be in",
        ),
        (lambda d, g: permanova(d, g, blocks=[0, 1] * 5, units=np.arange(10) // 2), "unit 0 is in several blocks"),
        (lambda d, g: permanova(d, g, blocks=[0]), "blocks has 1 labels for 10 systems; give one for each"),
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
        (lambda d, g: holm([0.1, 1.2]), r"p_values is not a list of at least one number in \[0, 1\]"),
    ],
)
def test_what_cannot_be_tested_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call(*cloud(0))
