"""Surrogates keep what they promise and destroy the rest; ranks among null distances are p values."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from dsa_analysis import (
    Comparison,
    DataError,
    Nulls,
    compare,
    fit_operator,
    lorenz,
    noise_floor,
    null_distances,
    surrogates,
)
from dsa_analysis.surrogates import KINDS
from dsa_analysis.systems import linear

HOW = Comparison(n_delays=1, rank=4, steps_ahead=3, n_starts=2)


def spectra(x: Tensor) -> Tensor:
    """Auto- and cross-spectra of each trial: (trial, frequency, channel, channel)."""
    X = torch.fft.rfft(x, dim=1)
    return X[..., :, None] * X[..., None, :].conj()


@pytest.mark.parametrize("n_times", [200, 201])
def test_phase_surrogates_keep_means_and_all_spectra(n_times):
    x = lorenz(4, n_times, seed=0)
    found = surrogates(x, "phase", seed=1)
    torch.testing.assert_close(spectra(found), spectra(x), rtol=0, atol=1e-8 * float(spectra(x).abs().max()))
    torch.testing.assert_close(found.mean(1), x.mean(1), rtol=0, atol=1e-10)
    assert (found - x).abs().max() > 1


def test_iaaft_surrogates_keep_values_exactly_and_spectra_nearly():
    x = lorenz(4, 200, seed=0)
    found = surrogates(x, "iaaft", seed=1)
    assert torch.equal(found.sort(1).values, x.sort(1).values)
    lost = (spectra(found) - spectra(x)).abs().sum() / spectra(x).abs().sum()
    shuffled = (spectra(surrogates(x, "shuffle_times", seed=1)) - spectra(x)).abs().sum() / spectra(x).abs().sum()
    assert lost < 0.1 < shuffled


def test_shuffled_times_keep_samples_and_shuffled_trials_keep_channels():
    x = lorenz(5, 50, seed=0)
    times = surrogates(x, "shuffle_times", seed=1)
    for trial, found in zip(x, times, strict=True):
        assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, trial.tolist()))
    mixed = surrogates(x, "shuffle_trials", seed=1)
    for channel in range(3):
        assert sorted(map(tuple, mixed[..., channel].tolist())) == sorted(map(tuple, x[..., channel].tolist()))
    assert not torch.equal(mixed, x)


@pytest.mark.parametrize("kind", list(KINDS))
def test_seed_decides_and_trials_are_not_changed(kind):
    x = lorenz(4, 60, seed=0)
    before = x.clone()
    assert torch.equal(surrogates(x, kind, seed=3), surrogates(x, kind, seed=3))
    assert not torch.equal(surrogates(x, kind, seed=3), surrogates(x, kind, seed=4))
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", ["phase", "iaaft", "shuffle_times"])
def test_trials_of_unequal_length_and_single_precision_are_taken(kind):
    x = [lorenz(1, n, seed=n)[0].float() for n in (40, 51)]
    found = surrogates(x, kind, seed=0)
    assert [tuple(trial.shape) for trial in found] == [(40, 3), (51, 3)]
    assert all(trial.dtype == torch.float64 for trial in found)


@pytest.mark.parametrize(
    ("x", "kind", "message"),
    [
        (lorenz(2, 15, seed=0), "phase", "trial 0 has 15 samples; surrogates need at least 16"),
        (torch.cat([lorenz(2, 30, seed=0), torch.ones(2, 30, 1)], -1), "phase", "trial 0, channel 3 is constant"),
        (lorenz(1, 30, seed=0), "shuffle_trials", "shuffle_trials needs at least 2 trials of one length; 1 came"),
        ([lorenz(1, n, seed=0)[0] for n in (30, 40)], "shuffle_trials", "2 came, of 30 to 40 samples"),
        (lorenz(2, 30, seed=0), "phases", "kind = 'phases' is none of"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*constant:UserWarning")
def test_trials_without_surrogates_are_refused(x, kind, message):
    with pytest.raises(DataError, match=re.escape(message)):
        surrogates(x, kind, seed=0)


# ---- null distances --------------------------------------------------------------------------------------------------


def recorded(frequency: float, n_trials: int, seed: int) -> Tensor:
    return linear([-0.3 + frequency * 1j, -0.5 + 12j], n_trials, 60, noise=0.3, seed=seed)


@pytest.fixture(scope="module")
def systems() -> dict[str, Tensor]:
    first, second = recorded(3, 16, 1).split(8)
    return {"first half": first, "second half": second, "faster": recorded(5, 8, 1)}


@pytest.fixture(scope="module")
def exchanged(systems) -> Nulls:
    with pytest.warns(UserWarning, match="19 draws are too few for 3 pairs: .* take n = 60 or more"):
        return null_distances(systems, HOW, n=19, progress=False)


def test_halves_of_a_system_do_not_differ_and_other_systems_do(systems, exchanged):
    np.testing.assert_allclose(exchanged.observed, compare(systems, how=HOW, progress=False).distances, atol=1e-7)
    assert exchanged.p[0, 1] > 0.05
    assert exchanged.p[0, 2] == exchanged.p[1, 2] == 0.05  # the smallest of 19 draws
    table = exchanged.to_dataframe()
    assert list(table.columns) == ["system_a", "system_b", "distance", "null", "p", "p_holm"]
    assert table["p_holm"].tolist() == pytest.approx([exchanged.p[0, 1], 0.15, 0.15])
    assert "19 draws of 'exchange'; 0 of 3 pairs differ" in repr(exchanged)


def test_trials_that_correspond_are_not_exchanged(systems):
    with pytest.raises(
        DataError, match="exchanges trials, which metric = 'cka' takes to correspond; use 'shuffle_times'"
    ):
        null_distances(systems, metric="cka", progress=False)


def test_p_is_uniform_if_trials_are_exchangeable():
    """30 pairs of halves of one system; p takes the values 1/20 to 20/20, and a uniform step is subtracted."""
    rng = np.random.default_rng(0)
    ps = [
        null_distances(dict(zip("ab", recorded(3, 16, seed).split(8), strict=True)), HOW, n=19, progress=False).p[0, 1]
        for seed in range(30)
    ]
    assert kstest(np.array(ps) - rng.uniform(0, 0.05, 30), "uniform").pvalue > 0.01


def test_systems_with_dynamics_are_more_alike_than_shuffled_ones():
    """Two recordings of a system and one of another: distances without dynamics are larger than any of these."""
    systems = {"a": lorenz(8, 200, seed=0), "b": lorenz(8, 200, seed=1)}
    choices: dict[str, Any] = {"n_delays": 5, "rank": 5, "n_starts": 2, "n": 39, "progress": False}
    found = null_distances(systems, kind="shuffle_times", **choices)
    assert found.p[0, 1] == 1 / 40
    again = null_distances(systems, kind="shuffle_times", **choices)
    assert np.array_equal(found.distances, again.distances)


def test_circular_shifts_leave_distances_nearly_as_they_are():
    """Why a shift is no null: the operator is that of the same transitions, but for one of each trial."""
    systems = {"a": lorenz(8, 300, rho=28, seed=0), "b": lorenz(8, 300, rho=40, seed=1)}
    rng = np.random.default_rng(0)
    shifted = {k: torch.stack([t.roll(int(rng.integers(300)), 0) for t in x]) for k, x in systems.items()}
    choices: dict[str, Any] = {"n_delays": 1, "rank": 3, "steps_ahead": 10, "progress": False}
    observed, after = (compare(x, **choices).distances[0, 1] for x in (systems, shifted))
    null = null_distances(systems, kind="shuffle_times", n=19, **choices).distances[:, 0, 1].mean()
    assert abs(after - observed) < 0.2 * (null - observed)


@pytest.mark.parametrize(
    ("systems", "settings", "message"),
    [
        ({"a": lorenz(2, 30, seed=0)}, {}, "1 system has no partner"),
        (None, {"n": 5}, "n = 5 is not a whole number of at least 19"),
        (None, {"kind": "shift"}, "kind = 'shift' is none of 'exchange', 'phase'"),
        (
            {"a": lorenz(4, 60, seed=0), "b": lorenz(4, 60, seed=1)[..., :2]},
            {"rank": 2},
            "kind = 'exchange' exchanges trials, but system 'a' has 3 channels and 'b' 2",
        ),
    ],
)
def test_impossible_nulls_are_refused(systems, settings, message):
    systems = {"a": lorenz(4, 60, seed=0), "b": lorenz(4, 60, seed=1)} if systems is None else systems
    with pytest.raises(DataError, match=re.escape(message)):
        null_distances(systems, **{"n_delays": 1, "rank": 3, "n": 19, "progress": False} | settings)


def test_operators_have_no_null(systems):
    with pytest.raises(
        DataError, match="null distances are computed from data, but system 'faster' came as an operator"
    ):
        null_distances({**systems, "faster": fit_operator(systems["faster"], HOW)}, HOW, n=99)


# ---- scale -----------------------------------------------------------------------------------------------------------


def test_scale_is_0_at_the_floor_and_1_at_the_null(systems, exchanged):
    similarity = compare(systems, how=HOW, progress=False)
    floor = noise_floor(systems, HOW, n_splits=2, progress=False)
    table = similarity.scaled(floor, 1.2)
    expected = (floor.to_numpy()[[0, 0, 1]] + floor.to_numpy()[[1, 2, 2]]) / 2
    np.testing.assert_allclose(table["floor"], expected)
    np.testing.assert_allclose(table["scaled"], (table["distance"] - expected) / (1.2 - expected))
    assert table["low"].isna().all()
    distances = similarity.distances
    at_floor = similarity.scaled(0.0, distances + np.eye(3))
    np.testing.assert_allclose(at_floor["scaled"], 1)
    assert similarity.scaled(float(distances[0, 1]), 1.2)["scaled"].iloc[0] == pytest.approx(0)
    drawn = similarity.scaled(0.001, exchanged)
    assert (drawn["low"] <= drawn["scaled"]).all()
    assert similarity.scaled(1.0, 0.5)["scaled"].isna().all()  # a null below the floor is no scale


def test_scale_rises_as_two_systems_are_mixed():
    how = Comparison(n_delays=1, rank=4, steps_ahead=3, n_starts=4)
    place = {f"{share}": recorded(3 + 4 * share, 8, 0) for share in (0.0, 0.25, 0.5, 1.0)}
    similarity = compare(place, how=how, progress=False)
    table = similarity.scaled(noise_floor(place, how, n_splits=1, progress=False), 1.5)
    to_first = table[table["system_a"] == "0.0"]["scaled"].tolist()
    assert to_first == sorted(to_first)


@pytest.mark.parametrize(
    ("floor", "null", "message"),
    [
        (pd.Series({"first half": 0.1}), 1.0, "floor has no value for system 'second half'"),
        (0.1, np.ones((2, 2, 2)), "null has shape (2, 2, 2); (n, 3, 3) fits these systems"),
    ],
)
def test_scales_that_do_not_fit_are_refused(floor, null, message, systems):
    with pytest.raises(DataError, match=re.escape(message)):
        compare(systems, how=HOW, progress=False).scaled(floor, null)
    with pytest.raises(DataError, match="not between two sets"):
        compare(systems, systems, HOW, progress=False).scaled(0.1, 1.0)
