"""Hankel delay embedding: a window of the recent past reveals hidden dynamics (Takens 1981)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dsa_analysis.data import DataError, check_choice, check_count

ESTIMATORS = ("least_squares", "total_least_squares", "noise_compensated", "signal_weighted", "subspace")
NOISE_ESTIMATORS = ESTIMATORS[2:4]  # those that need to know the variance of the noise
DRIVEN_ESTIMATORS = ("least_squares", "subspace")  # those of systems with inputs; "subspace" is for these alone


@dataclass(frozen=True)
class EmbeddingParameters:
    """How an operator is fitted to trajectories, with times counted in samples.

    Attributes
    ----------
    n_delays : int >= 1
        Copies of a sample in a window, including the present one.
    rank : int >= 1
        Dimensions kept, which is the size of the operator.
    delay_interval : int >= 1, in samples
        Spacing of the copies.
    steps_ahead : int >= 1, in samples
        From a window to the one that it predicts.
    ridge : float >= 0
        Added to the unit variance of whitened coordinates.
    center : bool
        Subtract each channel's mean over all samples.
    estimator : str
        One of `ESTIMATORS`; see the top of `dmd`, and of `subspace`.
    """

    n_delays: int
    rank: int
    delay_interval: int = 1
    steps_ahead: int = 1
    ridge: float = 1e-8
    center: bool = True
    estimator: str = "least_squares"

    def __post_init__(self) -> None:
        for name in ("n_delays", "rank", "delay_interval", "steps_ahead"):
            check_count(name, getattr(self, name))
        if isinstance(self.ridge, (bool, str)) or not 0 <= self.ridge < math.inf:
            raise DataError(f"ridge = {self.ridge!r} is not a number of at least 0")
        check_choice("estimator", self.estimator, ESTIMATORS)

    @property
    def window(self) -> int:
        """Length of a window in samples, from its oldest sample to its newest."""
        return (self.n_delays - 1) * self.delay_interval + 1


def delay_embed(x: Tensor, n_delays: int, delay_interval: int = 1) -> Tensor:
    """Stack each sample with its recent past (Hankel delay embedding).

    The row of time t is [x(t), x(t - d), ..., x(t - (m-1) d)], the newest sample first.

    Parameters
    ----------
    x : (..., n_times, n_channels)
        Trajectories. A window never crosses from one trial into another.
    n_delays : int >= 1
        m, copies in a window, including the present one; 1 gives back the values of ``x``.
    delay_interval : int >= 1, in samples
        d, spacing of the copies.

    Returns
    -------
    Tensor, (..., n_times - (m - 1) * d, m * n_channels)
        On the device and in the precision of ``x``.

    Raises
    ------
    DataError
        Trials that are shorter than a window, or counts below 1.

    Examples
    --------
    >>> delay_embed(torch.tensor([[0.], [1.], [2.], [3.]]), n_delays=2)
    tensor([[1., 0.],
            [2., 1.],
            [3., 2.]])
    """
    check_count("n_delays", n_delays)
    check_count("delay_interval", delay_interval)
    past = (n_delays - 1) * delay_interval
    n_times = x.shape[-2]
    if n_times <= past:
        raise DataError(
            f"a window of {past + 1} samples does not fit into trials of {n_times}: lower n_delays = {n_delays} "
            f"or delay_interval = {delay_interval}"
        )
    copies = [x[..., past - shift : n_times - shift, :] for shift in range(0, past + 1, delay_interval)]
    return torch.cat(copies, dim=-1)
