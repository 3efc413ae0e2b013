"""Simple rivals: closed forms, what they are blind to, and pairs."""

import math
import re

import numpy as np
import pytest
import torch

from dsa_analysis import METRICS, DataError, compare, noise_floor, transformed_copies
from dsa_analysis.rivals import Autocorrelations, PrincipalVariances
from dsa_analysis.systems import linear

RIVALS = {"principal variances": PrincipalVariances(), "autocorrelations": Autocorrelations()}
each = pytest.mark.parametrize("rival", RIVALS.values(), ids=RIVALS)


def with_variances(*variances: float) -> list[torch.Tensor]:
    """One trial whose covariance is exactly diagonal with these variances (up to a common factor)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, len(variances)))
    x = np.linalg.qr(x - x.mean(0))[0] * np.sqrt(variances)
    return [torch.from_numpy(x)]


def noise(rho: float, seed: int = 0) -> list[torch.Tensor]:
    """Trials of ten channels of an autoregressive process with autocorrelation rho."""
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(20, 10))]
    for _ in range(300):
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * rng.normal(size=(20, 10)))
    return list(torch.from_numpy(np.stack(x, 1)))


def test_angle_of_principal_variances_is_in_closed_form():
    d = PrincipalVariances().distances([with_variances(1, 0)], [with_variances(0.5, 0.5)])
    assert float(d[0]) == pytest.approx(math.pi / 4, abs=1e-7)  # (1, 0) and (1, 1) / sqrt 2
    a, b = (3.0, 2.0, 1.0), (1.0, 1.0)
    expected = math.acos((math.sqrt(3) + math.sqrt(2)) / math.sqrt(6 * 2))
    assert float(PrincipalVariances().distances([with_variances(*a)], [with_variances(*b)])) == pytest.approx(expected)
    leading = math.acos((math.sqrt(3) + math.sqrt(2)) / math.sqrt(5 * 2))
    assert float(PrincipalVariances(2).distances([with_variances(*a)], [with_variances(*b)])) == pytest.approx(leading)


def test_difference_of_autocorrelations_is_that_of_the_processes():
    d = Autocorrelations().distances([noise(0.9)], [noise(0.5, seed=1)])
    assert float(d[0]) == pytest.approx(0.4, abs=0.02)  # 6000 samples a channel: standard error below .01 each


@each
def test_distance_is_symmetric_and_zero_to_itself(rival):
    x, y = noise(0.9), list(linear([-1 + 2j, -3], 5, 60, seed=0, noise=0.3))
    forward, backward, own = rival.distances([x, y, x], [y, x, x])
    assert float(forward) == pytest.approx(float(backward), abs=1e-12)
    assert float(forward) > 0
    assert float(own) < 1e-12


def test_principal_variances_see_neither_rotation_nor_scale_nor_time(generator):
    x = linear([-1 + 2j, -3], 5, 60, seed=0, noise=0.3)
    copies = [*transformed_copies(x, generator).values(), x[:, torch.randperm(60, generator=generator)]]
    found = PrincipalVariances().distances([list(x)] * len(copies), [list(copy) for copy in copies])
    assert float(found.max()) < 1e-6  # square roots of eigenvalues that are 0 up to rounding


def test_autocorrelations_see_neither_scale_nor_order_of_channels_nor_borders_of_trials():
    x = torch.stack(noise(0.9))
    copies = [list(10 * x + 3), list(x.flip(-1)), list(x.flip(0))]
    assert float(Autocorrelations().distances([list(x)] * 3, copies).max()) < 1e-12
    offset = 100 * torch.arange(20)[:, None, None]  # a jump from trial to trial is not a step in time
    single = Autocorrelations().distances([list(x + offset)], [[(x + offset).flatten(0, 1)]])
    assert float(single[0]) > 1e-4


def test_constant_channels_are_left_out_of_autocorrelations():
    x = noise(0.9)
    padded = [torch.cat([trial, torch.ones(len(trial), 2)], 1) for trial in x]
    assert float(Autocorrelations().distances([x], [padded])[0]) < 1e-12


@each
def test_metric_says_what_it_needs(rival):
    assert rival.needs == "trials"
    assert rival.bounded is False
    assert METRICS[rival.name] == rival
    assert all((rival.name, rival.title, rival.unit))


@each
def test_systems_of_other_trials_and_channels_compare_by_name(rival):
    systems = {"slow": noise(0.9), "fast": [trial[:100, :4] for trial in noise(0.1, seed=1)[:7]]}
    found = compare(systems, metric=rival.name, progress=False)
    expected = rival.distances([systems["slow"]], [systems["fast"]])
    assert found.distances[0, 1] == pytest.approx(float(expected[0]))
    assert found.unit == rival.unit
    floor = noise_floor(systems, metric=rival.name, n_splits=2, progress=False)
    assert floor["slow"] < 0.05


@each
def test_message_names_the_system(rival):
    with pytest.raises(DataError, match="system 'still' does not vary"):
        rival.distances([noise(0.5)], [[torch.ones(4, 2)]], names=(["system 'moving'"], ["system 'still'"]))


@each
def test_no_pairs_are_no_distances(rival):
    assert rival.distances([], []).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PrincipalVariances(0), "n_leading = 0 is not a whole number of at least 1"),
        (lambda: Autocorrelations(0), "n_quantiles = 0 is not a whole number of at least 1"),
        (lambda: PrincipalVariances().distances([noise(0.5)], []), "pairs need as many first as second systems, but 1"),
        (
            lambda: PrincipalVariances().distances([[torch.ones(4, 2)]], [[torch.ones(4, 2)]]),
            "a system does not vary: it has no variance to compare",
        ),
        (
            lambda: Autocorrelations().distances([[torch.ones(4, 2)]], [[torch.ones(4, 2)]]),
            "a system does not vary: it has no autocorrelation",
        ),
        (
            lambda: Autocorrelations().distances([[torch.ones(1, 2)]], [[torch.ones(1, 2)]]),
            "a system: autocorrelations need trials of at least 2 samples, but the longest has 1",
        ),
    ],
)
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(DataError, match=re.escape(message)):
        call()
