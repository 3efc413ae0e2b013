"""Residuals: no mean left, unbiased variances, and refusals; standardised channels."""

import re

import numpy as np
import pytest
import torch

from dsa_analysis import DataError
from dsa_analysis.residuals import condition_means, residuals, standardize


def test_means_of_conditions_vanish_and_what_is_left_is_a_multiple_of_the_deviation(generator):
    x = torch.randn(7, 5, 3, generator=generator, dtype=torch.float64)
    conditions = ["a", "b", "a", "b", "b", "a", "b"]
    found = residuals(x, conditions)
    assert found.shape == x.shape
    for name, n in (("a", 3), ("b", 4)):
        own = [k for k, c in enumerate(conditions) if c == name]
        torch.testing.assert_close(found[own].mean(0), torch.zeros(5, 3).double(), rtol=0, atol=1e-14)
        expected = (x[own] - x[own].mean(0)) * (n / (n - 1)) ** 0.5
        torch.testing.assert_close(found[own], expected)


@pytest.mark.parametrize("n", [2, 5])
def test_variance_is_that_of_the_trials_around_their_true_mean(n):
    rng = np.random.default_rng(0)
    x = 3 * rng.normal(size=(2000 * n, 4, 1)) + 10
    found = residuals(x, np.arange(2000).repeat(n))
    assert float(found.square().mean()) == pytest.approx(9, rel=0.05)  # 16,000 draws and more: 1 % standard error


def test_a_mean_that_is_added_to_a_condition_changes_nothing(generator):
    x = torch.randn(6, 5, 2, generator=generator, dtype=torch.float64)
    conditions = torch.tensor([0, 0, 1, 1, 2, 2])
    mean = 100 * torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(residuals(x + mean[conditions], conditions), residuals(x, conditions))


def test_lists_stay_lists_and_lengths_may_differ_between_conditions():
    x = [np.ones((4, 2)), np.zeros((6, 2)), np.zeros((4, 2)), np.ones((6, 2))]
    found = residuals(x, ["short", "long", "short", "long"])
    assert isinstance(found, list)
    assert [len(part) for part in found] == [4, 6, 4, 6]
    torch.testing.assert_close(found[0], torch.full((4, 2), 0.5**0.5).double())


def test_condition_means_and_residuals_make_up_the_trials(generator):
    x = torch.randn(5, 4, 2, generator=generator, dtype=torch.float64)
    conditions = ["go", "stop", "go", "stop", "go"]
    means, deviations = condition_means(x, conditions), residuals(x, conditions)
    assert means.shape == (2, 4, 2)
    torch.testing.assert_close(means[0] + deviations[0] * (2 / 3) ** 0.5, x[0])
    torch.testing.assert_close(means[1] + deviations[3] * (1 / 2) ** 0.5, x[3])
    ragged = condition_means([x[0], x[1, :3]], conditions[:2])
    assert [len(mean) for mean in ragged] == [4, 3]


def test_input_is_not_changed():
    x = torch.ones(2, 3, 1)
    before = x.clone()
    residuals(x, [0, 0])
    assert torch.equal(x, before)


def test_standardized_channels_have_mean_zero_and_variance_one(generator):
    x = 5 + torch.tensor([1.0, 100.0]) * torch.randn(3, 40, 2, generator=generator)
    found = standardize(x).flatten(0, 1)
    torch.testing.assert_close(found.mean(0), torch.zeros(2).double(), rtol=0, atol=1e-6)  # of float32 data
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(2).double())
    assert [len(part) for part in standardize([x[0], x[1, :9]])] == [40, 9]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: residuals(np.ones((3, 4, 1)), [0, 0]),
            "conditions has 2 values for 3 trials; give one for each trial",
        ),
        (
            lambda: residuals(np.ones((4, 4, 1)), ["go", "go", "stop", "wait"]),
            "conditions with a single trial have no residuals: stop, wait; record at least 2 trials of each",
        ),
        (
            lambda: residuals([np.ones((4, 1)), np.ones((5, 1))], ["go", "go"]),
            "condition go has trials of 4 to 5 samples; cut them to equal length",
        ),
        (lambda: residuals(np.ones((2, 4, 1)), np.zeros((2, 1))), "conditions has more than one axis"),
        (lambda: residuals(np.ones((2, 4, 1)), [0.0, np.nan]), "conditions holds NaN"),
        (lambda: residuals(np.full((2, 4, 1), np.nan), [0, 0]), "system 'trials', trial 0, channel 0: 4 non-finite"),
        (lambda: standardize(np.ones((2, 4, 2))), "channels [0, 1] do not vary, so they have no scale"),
    ],
)
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(DataError, match=re.escape(message)):
        call()
