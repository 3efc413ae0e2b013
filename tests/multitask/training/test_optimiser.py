"""Adam and gradient clipping."""

import math

import numpy as np
import torch
from torch.optim.adam import adam

from multitask.training import (
    Adam,
    TrainingParameters,
    clipped,
    gradient_norms,
)
from tests.multitask.training.short_runs import assert_close


def test_adam_is_that_of_torch(generator):
    shapes = {"w": (2, 5, 3), "b": (2, 1, 3)}
    ours = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    theirs, optimiser = [weight.clone() for weight in ours.values()], Adam(ours)
    means, squares = ([torch.zeros_like(weight) for weight in theirs] for _ in range(2))
    steps = [torch.zeros(()) for _ in theirs]
    for step in range(20):
        gradients = [torch.randn(weight.shape, generator=generator, dtype=torch.float64) for weight in theirs]
        settings = {"lr": 1e-3 * (1 + step), "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
        adam(theirs, gradients, means, squares, [], steps, amsgrad=False, maximize=False, **settings)
        optimiser.update(gradients, settings["lr"])
    for mine, other in zip(ours.values(), theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12)


def test_gradients_are_limited_by_entry_or_by_the_norm_of_each_network():
    gradients = [torch.tensor([[[3.0, -0.5]], [[0.3, 0.0]]]), torch.tensor([[[4.0]], [[0.4]]])]
    norms = gradient_norms(gradients)
    assert_close(norms, torch.tensor([math.sqrt(25.25), 0.5]))
    by_value = clipped(gradients, norms, TrainingParameters(clip="value", clip_at=0.4))
    assert_close(by_value[0], torch.tensor([[[0.4, -0.4]], [[0.3, 0.0]]]))
    by_norm = clipped(gradients, norms, TrainingParameters(clip="norm", clip_at=1.0))
    assert_close(gradient_norms(by_norm), torch.tensor([1.0, 0.5]))
    assert_close(by_norm[1][0] / by_norm[0][0, 0, 0], torch.tensor([[4 / 3]]))  # the direction stays
    assert clipped(gradients, norms, TrainingParameters(clip="none")) is gradients
    still = [torch.zeros(1, 1, 2)]
    assert not clipped(still, gradient_norms(still), TrainingParameters(clip="norm"))[0].any()
