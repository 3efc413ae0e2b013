"""The simplest of what a distance is worth: its noise floor, and means over repetitions."""

import math
import re

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from dsa_analysis import DataError, auroc, lorenz, mean_interval, noise_floor, silhouette

EMBEDDING = {"n_delays": 3, "rank": 3, "progress": False}
pytestmark = pytest.mark.filterwarnings("ignore:.* of .* systems:UserWarning")


def test_mean_interval_is_that_of_students_test():
    values = np.random.default_rng(0).normal(size=7)
    interval = mean_interval(values)
    expected = ttest_1samp(values, 0).confidence_interval()
    assert (interval.mean, interval.n) == (pytest.approx(values.mean()), 7)
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert str(mean_interval([1.0, 1.0])) == "1.000 [1.000, 1.000] (n = 2)"


def test_single_value_has_no_interval():
    interval = mean_interval([0.5])
    assert interval.mean == 0.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


@pytest.mark.parametrize("metric", ["angular", "euclidean", "spectral"])
def test_floor_is_above_zero_by_system_and_zero_for_halves_that_are_equal(metric):
    x = lorenz(4, 80, discard=100, seed=0)
    floor = noise_floor({"x": x, "equal": x[[0, 0, 1, 1]]}, metric=metric, n_splits=1, **EMBEDDING)
    assert list(floor.index) == ["x", "equal"]
    assert floor["x"] > 1e-5
    assert floor["equal"] < 1e-7  # the odd trials are the even ones


@pytest.mark.parametrize(
    ("systems", "settings", "message"),
    [
        ({"A": torch.ones(1, 9, 2).cumsum(1)}, {}, "system 'A' has one trial; a floor needs two halves"),
        ({}, {}, "no systems came"),
        ([torch.full((4, 9, 2), math.nan)], {}, "system '0', trial 0, channel 0: 9 non-finite values"),
        ([torch.rand(4, 9, 2)], {"metric": "cka"}, "n_delays = 3 has no effect with metric = 'cka'"),
        ([torch.rand(4, 9, 2)], {"n_delays": 0}, "n_delays = 0 is not a whole number of at least 1"),
    ],
)
def test_impossible_floors_are_refused(systems, settings, message):
    with pytest.raises(DataError, match=re.escape(message)):
        noise_floor(systems, **EMBEDDING | settings)


def test_groups_told_apart_perfectly_score_one_and_mixed_ones_do_not():
    groups = np.repeat(["a", "b"], 4)
    distances = (groups[:, None] != groups).astype(float) + 0.1 * (1 - np.eye(8))
    assert auroc(distances, groups) == 1.0
    assert silhouette(distances, groups) == pytest.approx(1 - 0.1 / 1.1)
    assert auroc(distances, ["a", "b"] * 4) < 0.5


@pytest.mark.parametrize("score", [auroc, silhouette])
@pytest.mark.parametrize("spoil", ["NaN", "asymmetric", "not square"])
def test_matrices_that_are_no_distances_are_refused(score, spoil):
    distances = 1 - np.eye(4)
    distances[0, 1] = {"NaN": math.nan, "asymmetric": 5.0, "not square": 1.0}[spoil]
    with pytest.raises(DataError):
        score(distances[:3] if spoil == "not square" else distances, ["a", "a", "b", "b"])
    with pytest.raises(DataError):
        score(1 - np.eye(4), ["a", "a", "b"])


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_mean_of_nothing_is_refused(values):
    with pytest.raises(DataError, match="a list of at least one number is needed"):
        mean_interval(values)
