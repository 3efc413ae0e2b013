"""The published DSA (package dsa-metric, float32) on small inputs: its fits to agree with, its angles to stay below.

Inputs, numbers and their origin stand in tests/reference/dsa_metric.json (``python -m benchmarks.reference``).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from dsa_analysis import Operator, align, fit_operator

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "dsa_metric.json").read_text())
FITS, PAIRS = REFERENCE["fits"], REFERENCE["pairs"]
SIZES = sorted({len(pair["a"]) for pair in PAIRS.values()})


def trials_of(fit: dict[str, Any]) -> list[np.ndarray]:
    return np.split(np.array(fit["data"]), np.cumsum(fit["lengths"])[:-1])


@pytest.fixture(params=FITS)
def fits(request: pytest.FixtureRequest) -> tuple[Operator, dict[str, Any]]:
    """Our operator and the peer's numbers for one data set, centring off as the peer has none."""
    theirs = FITS[request.param]
    return fit_operator(trials_of(theirs), center=False, **theirs["settings"]), theirs


def test_eigenvalues_are_those_of_the_published_method(fits):
    ours, theirs = fits
    expected = np.array(theirs["eigenvalues"]["real"]) + 1j * np.array(theirs["eigenvalues"]["imag"])
    gaps = abs(np.subtract.outer(ours.eigenvalues.numpy(), expected))
    assert gaps[linear_sum_assignment(gaps**2)].max() < 5e-5  # float32 SVD and inverse: up to 2e-5 seen


def test_operator_norm_is_that_of_the_published_method(fits):
    ours, theirs = fits
    assert float(ours.matrix.norm()) == pytest.approx(theirs["norm"], rel=1e-4)  # float32: up to 3e-5 seen


def test_singular_values_are_those_of_the_published_method(fits):
    ours, theirs = fits
    expected, rank = np.array(theirs["singular_values"]), theirs["settings"]["rank"]
    difference = abs(ours.singular_values.numpy()[:rank] - expected) / expected[0]
    assert difference.max() < 2e-6  # float32: up to 7e-7 of the largest seen


def test_list_of_equal_trials_is_the_stacked_array():
    fit = FITS["ten trials"]
    listed, stacked = trials_of(fit), np.stack(trials_of(fit))
    one, other = (fit_operator(trials, center=False, **fit["settings"]).matrix for trials in (listed, stacked))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-7)  # sums in another order, amplified by the whitening


def excess(n: int) -> dict[str, float]:
    """By how many radians our distance lies above the least of the peer's, for every pair of n x n operators."""
    pairs = {name: pair for name, pair in PAIRS.items() if len(pair["a"]) == n}
    a, b = (torch.tensor([pair[side] for pair in pairs.values()], dtype=torch.float64) for side in "ab")
    ours = align(a, b).distance.tolist()
    return {name: distance - pair["distance"] for distance, (name, pair) in zip(ours, pairs.items(), strict=True)}


@pytest.mark.parametrize("n", SIZES)
def test_distance_is_never_above_the_peers_best(n):
    above = {name: round(value, 6) for name, value in excess(n).items() if value > 1e-5}  # rad, a tie
    assert not above
