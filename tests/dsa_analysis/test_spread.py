"""Mean distances within groups: their intervals, the test of equality, and paired differences."""

import re

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dsa_analysis import DataError, Similarity, compare, difference_to, spread


def cloud(n: int, scale: float = 1.0, centre: float = 0.0, seed: int = 0, n_dims: int = 4) -> np.ndarray:
    return centre + scale * np.random.default_rng(seed).standard_normal((n, n_dims))


def between(*clouds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = np.concatenate(clouds)
    return cdist(points, points), np.repeat(np.arange(len(clouds)), list(map(len, clouds)))


def test_mean_is_that_of_all_pairs_of_a_group():
    distances, groups = between(cloud(6), cloud(4, 2.0, seed=1))
    found = spread(distances, groups, n_permutations=99)
    for group, interval in found.groups.items():
        own = distances[np.ix_(groups == group, groups == group)]
        assert interval.mean == pytest.approx(own[np.triu_indices(len(own), 1)].mean())
        assert interval.n == len(own)
    table = found.to_dataframe()
    assert list(table.columns) == ["group", "mean", "low", "high", "n"]
    one = spread(distances[:6, :6])
    assert one.groups["all"].mean == pytest.approx(found.groups[0].mean)
    assert np.isnan(one.p)


def test_interval_covers_the_mean_distance_of_the_population():
    """In one dimension two standard normal draws are 2 / sqrt(pi) apart on average."""
    hits = 0
    for seed in range(400):
        found = spread(between(cloud(15, seed=seed, n_dims=1))[0]).groups["all"]
        hits += found.low <= 2 / np.pi**0.5 <= found.high
    assert 0.90 <= hits / 400 <= 0.98  # 95 % nominal; the standard error of this fraction is 0.011


def test_groups_of_equal_spread_are_seldom_told_apart_wherever_they_lie():
    rejected = [
        spread(*between(cloud(10, seed=seed), cloud(10, centre=3.0, seed=seed + 500)), n_permutations=199).p <= 0.05
        for seed in range(300)
    ]
    assert np.mean(rejected) <= 0.08  # 5 % nominal; the standard error of this fraction is 0.013


def test_groups_of_other_spread_are_told_apart():
    found = [
        spread(*between(cloud(12, seed=seed), cloud(12, 2.0, seed=seed + 500)), n_permutations=199).p <= 0.05
        for seed in range(50)
    ]
    assert np.mean(found) >= 0.9


def test_blocks_take_out_what_they_share():
    """Two groups in two blocks, one of which is wider for both: without blocks nothing is seen, within them it is."""
    rng = np.random.default_rng(0)
    narrow, wide = cloud(40, seed=1), cloud(40, 1.4, seed=2)
    distances, groups = between(narrow, wide)
    blocks = rng.integers(0, 2, 80)
    assert spread(distances, groups, blocks=blocks, n_permutations=999).p <= 0.05
    nothing = np.repeat([0, 1], 40)  # a block holds one group
    with pytest.raises(DataError, match="nothing to permute"):
        spread(distances[:6, :6], [0, 0, 0, 1, 1, 1], blocks=list("abcdef"))
    assert spread(distances, groups, blocks=nothing, n_permutations=99).p == 1.0


def test_paired_difference_is_that_of_the_distances_to_the_reference():
    rng = np.random.default_rng(0)
    matrices = {
        name: np.diag([0.9, 0.5]) + 0.1 * rng.standard_normal((2, 2)) for name in ("ref", "a1", "a2", "b1", "b2")
    }
    similarity: Similarity = compare(matrices, progress=False)
    found = difference_to(similarity, "ref", ["a1", "a2"], ["b1", "b2"])
    to = dict(zip(similarity.labels, similarity.distances[:, 0], strict=True))
    assert found.mean == pytest.approx(np.mean([to["a1"] - to["b1"], to["a2"] - to["b2"]]))
    assert found.n == 2
    with pytest.raises(DataError, match="no system is called 'c1'; there are 'ref', 'a1'"):
        difference_to(similarity, "ref", ["c1"], ["b1"])
    with pytest.raises(DataError, match="first has 1 labels and second 2; give pairs"):
        difference_to(similarity, "ref", ["a1"], ["b1", "b2"])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a", "a", "a", "b"], "group 'b' has 1 system; 3 are needed"),
        (["a", "a", "b", "b"], "group 'a' has 2 systems; 3 are needed"),
        (["a", "a", "a"], "groups has 3 labels for 4 systems; give one for each"),
    ],
)
def test_groups_without_a_spread_are_refused(groups, message):
    with pytest.raises(DataError, match=re.escape(message)):
        spread(between(cloud(4))[0], groups)
