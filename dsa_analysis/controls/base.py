"""Parts that all controls use: the result, uniform draws, noisy steps through time, and random neurons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsa_analysis.data import DataError, check_choice

Range = tuple[float, float]  # of a uniform draw


@dataclass(frozen=True)
class Control:
    """Simulated systems whose answer is known: which of them have the same dynamics.

    Attributes
    ----------
    systems : dict from name to tensor (n_trials, n_times, n_channels), float64
        Ready for `compare`.
    groups : tuple of str
        The kind of dynamics of each system, in their order.
    conditions : (n_trials,) int64 tensor, or None
        The condition of each trial, the same in all systems, where the control has conditions; for `residuals`.
    """

    systems: dict[str, Tensor]
    groups: tuple[str, ...]
    conditions: Tensor | None = None


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softplus": torch.nn.functional.softplus,
    "relu": torch.relu,
    "sinh": torch.sinh,
}


def check_positive(**values: float) -> None:
    """Refuse values that are not finite numbers above 0."""
    for name, value in values.items():
        if isinstance(value, bool) or not 0 < value < float("inf"):
            raise DataError(f"{name} = {value!r} is not a positive number")


def check_not_negative(**values: float) -> None:
    """Refuse values that are not finite numbers of at least 0."""
    for name, value in values.items():
        if isinstance(value, bool) or not 0 <= value < float("inf"):
            raise DataError(f"{name} = {value!r} is not a number of at least 0")


def check_ranges(**ranges: Range) -> None:
    """Refuse ranges that are not two positive numbers, the lower one first."""
    for name, values in ranges.items():
        if len(values) != 2 or not 0 < values[0] <= values[1] < float("inf"):
            raise DataError(f"{name} = {values!r} is not a range (low, high) with 0 < low <= high")


def uniform(limits: Range, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform draws in [low, high), float64, on the CPU."""
    low, high = limits
    return low + (high - low) * torch.rand(tuple(shape), generator=generator, dtype=torch.float64)


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard normal draws, float64, on the CPU."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


def euler(
    vector_field: Callable[[Tensor, Any], Tensor],
    start: Tensor,
    inputs: Tensor,
    dt: float,
    noise: Tensor | float,
    generator: torch.Generator,
    n_substeps: int = 1,
    increments: Tensor | None = None,
) -> Tensor:
    """Samples of dx = f(x, u) dt + noise dW by the Euler-Maruyama method: (..., n_times, n_dims).

    Parameters
    ----------
    vector_field : (x, u) -> (..., n_dims)
    start : (..., n_dims)
        The first sample.
    inputs : (..., n_times, n_inputs)
        u, constant from one sample to the next; they broadcast against ``start``. Their number sets that of samples.
    dt : float, model time
        Spacing of the samples; each is reached in ``n_substeps`` steps of equal length.
    noise : float or tensor that broadcasts against ``start``
    generator : torch.Generator on the CPU
        Draws the noise, unless ``increments`` (..., n_times, n_substeps, n_dims) hold standard normal draws.
    """
    x, step = start, dt / n_substeps
    scale = noise * step**0.5
    samples = []
    for t, u in enumerate(inputs.unbind(-2)):
        samples.append(x)
        for k in range(n_substeps):
            w = normal(x.shape, generator).to(x.device) if increments is None else increments[..., t, k, :]
            x = x + step * vector_field(x, u) + scale * w
    trajectories = torch.stack(samples, -2)
    if not bool(torch.isfinite(trajectories[..., -1, :]).all()):
        raise DataError(f"a trajectory diverged: dt = {dt} is too coarse for these parameters, or the noise too strong")
    return trajectories


def random_neurons(
    states: Tensor, activation: str, n_neurons: int, gain: float, noise: float, generator: torch.Generator
) -> Tensor:
    """Activity of neurons with random weights and thresholds: (n_trials, n_times, n_neurons).

    y = f(gain (z W + b)) / s + noise * n, with W normal of variance 1 / n_dims, b normal of variance 1/4, s the
    standard deviation over all neurons, and n white.
    """
    check_choice("activation", activation, ACTIVATIONS)
    n_dims = states.shape[-1]
    weights = normal((n_dims, n_neurons), generator) / n_dims**0.5
    thresholds = 0.5 * normal((n_neurons,), generator)
    activity = ACTIVATIONS[activation](gain * (states @ weights.to(states) + thresholds.to(states)))
    activity = activity / activity.std()
    return activity + noise * normal(activity.shape, generator).to(states)
