"""Noise floors to expect, in the data and beyond them. Their coverage is measured by `python -m benchmarks.plan`."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from dsa_analysis import Comparison, DataError, fit_operator, lorenz, noise_floor, plan
from dsa_analysis.plan import _Floors, _Law, _Size
from dsa_analysis.systems import linear

NOISY = linear([-0.3 + 2j, -1], 12, 60, noise=1.0, discard=20, seed=0)
HOW = {"n_delays": 1, "rank": 3, "steps_ahead": 4, "progress": False}


@pytest.fixture(scope="module")
def found():
    return plan(NOISY, n_trials=[6, 12, 24, 96], n_repeats=6, n_splits=2, **HOW)


def test_designs_in_the_data_are_measured_and_others_extrapolated(found):
    table = found.table
    assert list(table["n_trials"]) == [6, 12, 24, 96]
    assert list(table["measured"]) == [True, True, False, False]
    assert (table["low"] < table["floor"]).all()
    assert (table["floor"] < table["high"]).all()
    assert (np.diff(table["floor"][1:]) < 0).all()  # more data, lower floor
    width = np.log(table["high"] / table["low"])
    assert width[3] > width[2] > width[1]  # the farther, the less certain
    assert 0.2 < found.laws["by_trials"][0] < 0.8
    real = noise_floor({"x": NOISY}, **HOW).iloc[0]
    assert table["low"][1] < real < table["high"][1]


def test_plan_shows_itself(found):
    text = repr(found)
    assert "Plan: 4 noise floors to expect, 95% intervals" in text
    assert "measured          2 of 4" in text
    assert "falls as          n_trials^-0." in text
    axes = found.plot()
    assert axes.get_xlabel() == "n trials"
    assert axes.get_ylabel() == "noise floor (rad)"
    assert sorted(float(x) for line in axes.lines[1:] for x in line.get_xdata()) == [6, 12, 24, 96]
    plt.close("all")
    copy = found.to_dataframe()
    copy["floor"] = 0
    assert (found.table["floor"] > 0).all()


def test_the_seed_decides():
    one, again, other = (
        plan(NOISY, n_trials=[8], n_repeats=5, n_splits=1, seed=seed, **HOW).table["floor"][0] for seed in (0, 0, 1)
    )
    assert one == again != other


def test_measured_floor_is_that_of_noise_floor():
    """Of all trials, whose only choice are the splits."""
    measured = plan(NOISY, n_trials=12, n_repeats=40, n_splits=1, **HOW).table["floor"][0]
    real = noise_floor({"x": NOISY}, n_splits=40, **HOW).iloc[0]
    assert measured == pytest.approx(real, rel=0.25)  # a median and a mean, of 40 splits each


def test_power_law_is_recovered():
    """From floors that follow one exactly, up to noise that says how uncertain they are."""
    trials = list(torch.zeros(400, 100, 1))
    floors = _Floors("x", trials, None, Comparison(n_delays=1, rank=3, steps_ahead=4), 10, 1, False)
    sizes = floors.ladder([_Size(800, 200)])
    rng = np.random.default_rng(0)
    exact = {size: 2 * size.n_trials**-0.6 * floors.windows(size) ** -0.4 for size in sizes}
    measured = {size: value * np.exp(0.01 * rng.normal(size=10)) for size, value in exact.items()}
    law = _Law.fit(measured, floors, 1e-4)
    assert law.exponents()["by_trials"] == pytest.approx(0.6, abs=0.01)
    assert law.exponents()["by_length"] == pytest.approx(0.4, abs=0.01)
    expected, error = law.predict(_Size(1600, 400))
    assert expected == pytest.approx(np.log(2 * 1600**-0.6 * 396**-0.4), abs=0.02)
    assert error < 0.02**2
    unsure = _Law.fit(measured, floors, 1e4).exponents()  # floors that say nothing leave the priors
    assert unsure["by_trials"] == pytest.approx(0.5, abs=0.01)
    assert unsure["error"] == pytest.approx(0.25, rel=0.01)


def test_lengths_delays_and_ranks_are_combined():
    found = plan(
        {"a": NOISY, "b": list(NOISY.flip(0))}, n_trials=12, trial_length=[30, 60, 120], rank=[2, 3], n_delays=1,
        steps_ahead=4, n_repeats=5, n_splits=1, progress=False,
    )  # fmt: skip
    table = found.table
    assert len(table) == 2 * 3 * 2
    assert list(table["measured"]) == [True, True, False] * 4
    assert list(table["rank"][:6]) == [2, 2, 2, 3, 3, 3]
    assert list(found.laws["system"]) == ["a", "a", "b", "b"]
    assert found.laws["by_length"].between(0, 1.2).all()
    assert (table["floor"][2::3].to_numpy() < table["floor"][0::3].to_numpy()).all()  # longer trials, lower floor
    axes = found.plot()
    assert axes.get_xlabel() == "trial length (samples)"
    plt.close("all")


def test_metrics_that_take_roots_and_inputs_are_planned():
    sgot = plan(NOISY, n_trials=24, metric="sgot", n_repeats=5, n_splits=1, **HOW)
    assert 0.05 < sgot.laws["by_trials"][0] < 0.2  # near 1/8
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 60, 1, generator=generator, dtype=torch.float64)
    driven = plan(NOISY[:8], inputs=inputs, n_trials=[6, 16], n_delays=1, rank=3, metric="state", n_repeats=5,
                  n_splits=1, progress=False)  # fmt: skip
    assert list(driven.table["measured"]) == [True, False]
    rival = plan(NOISY, n_trials=6, metric="principal_variances", n_repeats=5, n_splits=1, progress=False)
    assert rival.unit == "rad"


def test_designs_that_cannot_be_fitted_are_refused_by_name():
    few = {**HOW, "n_repeats": 5, "n_splits": 1}
    for options, message in (
        ({"n_trials": 1}, r"n_trials = 1 is not a whole number of at least 2"),
        ({"n_trials": []}, r"n_trials is empty; give at least one number"),
        ({"n_trials": 2, "trial_length": 5}, r"system 'system, 2 trials of 5 samples \(half of them\)': .*rank = 3"),
        ({"trial_length": 4}, r"a trial of 4 samples holds no window and what it predicts, which take 5; leave this"),
        ({"n_repeats": 4}, r"n_repeats = 4 is not a whole number of at least 5"),
        ({"confidence": 1.0}, r"confidence = 1.0 is not between 0 and 1"),
        ({"rank": "auto"}, r"rank = 'auto' is not a whole number"),
        ({"metric": "cka", "n_delays": None, "rank": None, "steps_ahead": None}, r"it has no noise floor"),
        ({"windows": [(0, 30)]}, r"noise floors are computed from whole trials"),
    ):
        with pytest.raises(DataError, match=message):
            plan(NOISY, **{**few, **options})
    with pytest.raises(
        DataError, match=r"system 'system' has 6 trials, from which the floor of 12 trials cannot be extrapolated; at"
    ):
        plan(NOISY[:6], n_trials=12, **few)
    with pytest.raises(DataError, match="system 'a' has one trial; a floor needs two halves"):
        plan({"a": NOISY[:1]}, **few)
    same = lorenz(1, 60, seed=0).repeat(8, 1, 1)
    with pytest.raises(DataError, match="halves of its trials are at distance 0, so there is no floor to extrapolate"):
        plan(same, n_trials=16, **few)
    with pytest.raises(DataError, match="a plan needs data, but system 'a' came as an operator"):
        plan({"a": fit_operator(NOISY, n_delays=1, rank=3)}, **few)
