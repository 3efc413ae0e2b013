"""CKA and Procrustes: against independent implementations, and what they are blind to."""

import math
import re

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from dsa_analysis import DataError, cka_distance, compare, procrustes_distance, transformed_copies

DISTANCES = {"cka": cka_distance, "procrustes": procrustes_distance}
each = pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two systems of 3 matched trials of 40 samples, 4 and 6 channels, related in part."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 40, 4)) + 2
    return x, np.concatenate([x, x[..., :2]], -1) @ rng.normal(size=(6, 6)) + rng.normal(size=(3, 40, 6))


def flat(x: np.ndarray) -> np.ndarray:
    x = x.reshape(-1, x.shape[-1])
    return x - x.mean(0)


def test_cka_is_that_of_centred_kernels(pair):
    """Kornblith et al. 2019, eq. 3: HSIC of the sample by sample kernels, centred by H = 1 - 11^T / n."""
    K, L = (x.reshape(120, -1) @ x.reshape(120, -1).T for x in pair)
    H = np.eye(120) - 1 / 120
    hsic = [np.trace(a @ H @ b @ H) for a, b in ((K, L), (K, K), (L, L))]
    expected = math.acos(hsic[0] / math.sqrt(hsic[1] * hsic[2]))
    assert float(cka_distance(*pair)) == pytest.approx(expected, abs=1e-10)


def test_procrustes_is_the_angle_after_the_best_orthogonal_transform(pair):
    x, y = pair
    x = np.concatenate([x, np.zeros((3, 40, 2))], -1)  # scipy wants as many channels in both
    X, Y = flat(x), flat(y)
    R, _ = orthogonal_procrustes(X, Y)
    expected = math.acos(np.sum((X @ R) * Y) / np.linalg.norm(X) / np.linalg.norm(Y))
    assert float(procrustes_distance(*pair)) == pytest.approx(expected, abs=1e-10)


@each
def test_distance_is_symmetric_and_at_most_a_right_angle(distance, pair):
    x, y = pair
    assert float(distance(x, y)) == pytest.approx(float(distance(y, x)), abs=1e-12)
    assert 0 < distance(x, y) <= math.pi / 2
    shuffled = np.random.default_rng(1).permuted(flat(x), axis=0)[None]
    assert distance(flat(x)[None], shuffled) > distance(x, y)


@each
def test_copies_in_other_coordinates_are_at_zero(distance, pair, generator):
    x = torch.from_numpy(pair[0])
    for copy in (x, *transformed_copies(x, generator).values()):
        assert float(distance(x, copy)) < 1e-7  # arccos near 1: square root of 1e-16, and some


@each
def test_order_of_time_means_nothing_to_them(distance, pair):
    order = np.random.default_rng(0).permutation(40)
    x, y = pair
    assert float(distance(x[:, order], y[:, order])) == pytest.approx(float(distance(x, y)), abs=1e-12)


@each
def test_list_of_trials_is_the_stacked_array(distance, pair):
    x, y = pair
    assert float(distance(list(x), tuple(y))) == float(distance(x, y))


@pytest.mark.parametrize("metric", DISTANCES)
def test_all_pairs_are_the_single_pairs(metric, pair):
    x, y = (torch.from_numpy(z) for z in pair)
    systems = {"x": list(x), "y": list(y), "half": list(x[..., :2].float())}
    distances = compare(systems, dict(systems), metric=metric).distances
    for i, a in enumerate(systems.values()):
        for j, b in enumerate(systems.values()):
            assert distances[i, j] == pytest.approx(float(DISTANCES[metric](a, b)), abs=1e-7)
    similarity = compare(systems, metric=metric)
    np.testing.assert_array_equal(similarity.distances.diagonal(), 0)
    np.testing.assert_allclose(similarity.distances, distances, atol=1e-7)
    assert np.isnan(similarity.lower_bounds).all()
    assert similarity.operators == {}


@pytest.mark.parametrize("metric", DISTANCES)
def test_unmatched_trials_are_refused(metric, pair):
    x, y = pair
    message = (
        f"metric = {metric!r} compares trials sample by sample, but system 'y' has 2 trials of 40 samples and system "
        f"'x' 3 of 40; give matched trials, or use metric = 'angular'"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        DISTANCES[metric](x, y[:2])
    with pytest.raises(DataError, match=re.escape("has 3 trials of 30 to 40 samples")):
        DISTANCES[metric](x, [y[0], y[1], y[2, :30]])


@pytest.mark.parametrize("metric", DISTANCES)
def test_windows_may_have_unequal_lengths(metric, pair):
    x, y = pair
    similarity = compare({"x": x, "y": y}, metric=metric, windows=[(0, 25), (25, 40)])
    by_window = [float(DISTANCES[metric](x[:, window], y[:, window])) for window in (slice(25), slice(25, 40))]
    assert similarity.by_window[:, 0, 1] == pytest.approx(by_window, abs=1e-12)


@each
def test_unusable_data_are_refused_naming_the_argument(distance, pair):
    x, y = pair
    y[1, 5, 3] = np.nan
    with pytest.raises(DataError, match="system 'y', trial 1, channel 3: 1 non-finite value, first at sample 5"):
        distance(x, y)
