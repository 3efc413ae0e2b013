"""What is taken off trials before they are compared: the mean of their condition, or each channel's mean and scale.

With n trials x_k of one condition, the residuals are

    e_k(t) = sqrt(n / (n - 1)) (x_k(t) - mean_j x_j(t)).

The mean follows the input, which is the same in all trials of a condition; what is left shows how the system itself
answers to its own noise (Galgali, Sahani and Mante 2023, Nat Neurosci 26, 326-338). Taking off a mean of n trials
removes 1 / n of the variance; the factor puts it back, so that variances and covariances of the residuals are unbiased.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsa_analysis.data import DataError, as_trials


def residuals(trials: Any, conditions: Sequence[Any] | np.ndarray | Tensor) -> Tensor | list[Tensor]:
    """Trials less the mean of their condition at each time, scaled so that their variance is unbiased.

    Parameters
    ----------
    trials : (n_trials, n_times, n_channels), or list of (n_times_i, n_channels)
        One system. Trials of one condition must have the same length, those of different conditions need not.
    conditions : sequence of n_trials values
        The condition of each trial: numbers or names.

    Returns
    -------
    Tensor (n_trials, n_times, n_channels) or list of tensors
        In the order and layout of ``trials``, float64, on their device.

    Raises
    ------
    DataError
        As many conditions as trials were not given, a condition has a single trial, or trials of one condition have
        different lengths.

    Examples
    --------
    >>> residuals(torch.tensor([[[1.0]], [[3.0]], [[5.0]], [[5.0]]]), ["a", "a", "b", "b"]).flatten()
    tensor([-1.4142,  1.4142,  0.0000,  0.0000], dtype=torch.float64)
    """
    parts, members = _by_condition(trials, conditions)
    alone = [str(label) for label, own in members.items() if len(own) == 1]
    if alone:
        raise DataError(
            f"conditions with a single trial have no residuals: {', '.join(alone)}; record at least 2 trials of each, "
            f"or leave these out"
        )
    deviations: dict[int, Tensor] = {}
    for label, own in members.items():
        stacked = _stacked(parts, own, label)
        scaled = (len(own) / (len(own) - 1)) ** 0.5 * (stacked - stacked.mean(0))
        deviations |= zip(own, scaled, strict=True)
    result = [deviations[k] for k in range(len(parts))]
    return result if isinstance(trials, (list, tuple)) else torch.stack(result)


def condition_means(trials: Any, conditions: Sequence[Any] | np.ndarray | Tensor) -> Tensor | list[Tensor]:
    """Mean over the trials of each condition at each time.

    Parameters
    ----------
    trials, conditions
        As in `residuals`. A condition may have a single trial.

    Returns
    -------
    Tensor (n_conditions, n_times, n_channels), or list of (n_times_i, n_channels) if ``trials`` is a list
        In the order in which conditions first occur, float64.

    Raises
    ------
    DataError
        Another number of conditions than trials, or trials of one condition with different lengths.
    """
    parts, members = _by_condition(trials, conditions)
    means = [_stacked(parts, own, label).mean(0) for label, own in members.items()]
    return means if isinstance(trials, (list, tuple)) else torch.stack(means)


def standardize(trials: Any) -> Tensor | list[Tensor]:
    """Scale each channel to mean 0 and standard deviation 1 over all samples of the system.

    Parameters
    ----------
    trials : as in `residuals`

    Returns
    -------
    Tensor or list of tensors
        In the layout of ``trials``, float64.

    Raises
    ------
    DataError
        Channels that do not vary. The message lists their numbers.
    """
    parts = [part.double() for part in as_trials(trials, "trials", constant=True)]
    samples = torch.cat(parts)
    mean, deviation = samples.mean(0), samples.std(0, correction=0)
    # what rounding leaves of a constant channel is no scale
    constant = (deviation <= 1e-12 * mean.abs()).nonzero().flatten().tolist()
    if constant:
        raise DataError(f"channels {constant} do not vary, so they have no scale; leave them out")
    result = [(part - mean) / deviation for part in parts]
    return result if isinstance(trials, (list, tuple)) else torch.stack(result)


def _by_condition(trials: Any, conditions: Any) -> tuple[list[Tensor], dict[Any, list[int]]]:
    """The trials, and the numbers of those of each condition."""
    parts, labels = as_trials(trials, "trials", constant=True), _labels(conditions)
    if len(labels) != len(parts):
        raise DataError(f"conditions has {len(labels)} values for {len(parts)} trials; give one for each trial")
    members: dict[Any, list[int]] = {}
    for k, label in enumerate(labels):
        members.setdefault(label, []).append(k)
    return parts, members


def _stacked(parts: list[Tensor], own: list[int], label: Any) -> Tensor:
    """The trials of one condition, (n_trials, n_times, n_channels), float64."""
    lengths = sorted({len(parts[k]) for k in own})
    if len(lengths) > 1:
        raise DataError(
            f"condition {label!s} has trials of {lengths[0]} to {lengths[-1]} samples; cut them to equal length, since "
            f"the mean is taken at each time"
        )
    return torch.stack([parts[k] for k in own]).double()


def _labels(conditions: Any) -> list[Any]:
    values = conditions.tolist() if isinstance(conditions, (Tensor, np.ndarray)) else list(conditions)
    for value in values:
        if isinstance(value, list):
            raise DataError("conditions has more than one axis; give one value for each trial")
        if isinstance(value, float) and value != value:
            raise DataError("conditions holds NaN; give each trial a condition, or leave the trial out")
    return values
