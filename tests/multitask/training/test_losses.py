"""The losses and their gradients, against formulas."""

import numpy as np
import pytest
import torch

from multitask.tasks import generate_trials
from multitask.training import (
    SquaredError,
    task_loss,
)
from multitask.trials import TrialBatch
from tests.multitask.training.short_runs import assert_close


@pytest.fixture
def batch() -> TrialBatch:
    return generate_trials("dmsgo", 5, dt=50.0, seed=3)


def test_squared_error_is_the_mean_of_the_masked_residuals_squared(batch, generator):
    logits = torch.randn(3, batch.n_trials, batch.n_times, 33, generator=generator)
    y = 1 / (1 + np.exp(-logits.double().numpy()))
    residual = batch.cost_mask.numpy() * (y - batch.targets.numpy())
    np.testing.assert_allclose(task_loss(logits, batch, "lsq"), (residual**2).mean((1, 2, 3)), rtol=1e-5)  # float32


def test_gradient_of_the_squared_error_is_that_of_autograd(generator):
    logits = torch.randn(2, 3, 4, 33, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(3, 4, 33, generator=generator, dtype=torch.float64)
    mask = 5 * torch.rand(3, 4, 33, generator=generator, dtype=torch.float64)
    weight = torch.tensor([1.0, -3.0], dtype=torch.float64)  # what each network's loss is multiplied by
    plain = (mask * (torch.sigmoid(logits) - targets)).square().mean((1, 2, 3))
    (ours,), (theirs,) = (
        torch.autograd.grad(loss @ weight, logits) for loss in (SquaredError.apply(logits, targets, mask), plain)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_cross_entropy_is_the_masked_surprise_at_the_right_unit(generator):
    batch = generate_trials("dmsgo", 5, dt=50.0, seed=3, loss="cross_entropy")
    logits = torch.randn(3, batch.n_trials, batch.n_times, 33, generator=generator)
    right = batch.targets.argmax(-1)  # (trial, time)
    for i, loss in enumerate(task_loss(logits, batch, "cross_entropy")):
        surprise = torch.nn.functional.cross_entropy(logits[i].flatten(0, 1), right.flatten(), reduction="none")
        assert_close(loss, (batch.cost_mask.flatten() * surprise).mean())
