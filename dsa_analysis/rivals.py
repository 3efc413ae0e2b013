"""Simple measures that fit no operator and need no matched trials: what a dynamical measure has to beat.

    principal variances    arccos sum_k sqrt(l_k m_k) / sqrt(sum l_k sum m_k), with l and m the sorted eigenvalues of
                           the two covariances of channels: how variance is spread over dimensions, without time
    autocorrelations       root mean square difference of the lag-1 autocorrelations of single channels, at equal
                           quantiles: how slow the channels are, one by one

Both allow different numbers of trials, samples and channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dsa_analysis.data import DataError, check_count

Trials = Sequence[Tensor]  # of one system, each (n_times, n_channels)


@dataclass(frozen=True)
class PrincipalVariances:
    """Angle in [0, pi/2] between the square roots of the covariances' leading eigenvalues.

    It is the smallest angle that the Bures distance between the two covariances can have after a rotation.

    ``n_leading`` is the number of eigenvalues, or None for all; the system with fewer channels has zeros beyond them.
    """

    n_leading: int | None = None
    name: ClassVar[str] = "principal_variances"
    title: ClassVar[str] = "principal variances"
    unit: ClassVar[str] = "rad"
    needs: ClassVar[str] = "trials"
    matched: ClassVar[bool] = False
    bounded: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ("names",)

    def __post_init__(self) -> None:
        if self.n_leading is not None:
            check_count("n_leading", self.n_leading)

    def distances(self, first: Sequence[Trials], second: Sequence[Trials], names: Any = None) -> Tensor:
        """Two lists of P systems -> (P,) angles, float64; ``names`` of both sides for messages."""
        return _paired(self._spectrum, _angle, first, second, names)

    def _spectrum(self, trials: Trials, name: str) -> Tensor:
        samples = torch.cat(list(trials)).double()
        samples = samples - samples.mean(0)
        values = torch.linalg.eigvalsh(samples.T @ samples).flip(0)[: self.n_leading].clamp_min(0).sqrt()
        if not float(values[0]) > 0:
            raise DataError(f"{name} does not vary: it has no variance to compare")
        return values / values.norm()


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between two vectors of unit length, padded by zeros."""
    n = max(len(a), len(b))
    a, b = (torch.nn.functional.pad(x, (0, n - len(x))) for x in (a, b))
    return 2 * ((a - b).norm() / 2).clamp_max(1).asin()  # near 0 arccos would lose half of the digits


@dataclass(frozen=True)
class Autocorrelations:
    """Root mean square difference of the channels' lag-1 autocorrelations at equal quantiles: 0 to 2, without unit.

    The mean of the whole system is taken off first, and products never cross from one trial into another. Channels
    that do not vary are left out. ``n_quantiles`` evenly spaced quantiles stand for each distribution.
    """

    n_quantiles: int = 20
    name: ClassVar[str] = "autocorrelations"
    title: ClassVar[str] = "autocorrelations of units"
    unit: ClassVar[str] = "difference of autocorrelations"
    needs: ClassVar[str] = "trials"
    matched: ClassVar[bool] = False
    bounded: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ("names",)

    def __post_init__(self) -> None:
        check_count("n_quantiles", self.n_quantiles)

    def distances(self, first: Sequence[Trials], second: Sequence[Trials], names: Any = None) -> Tensor:
        """Two lists of P systems -> (P,) differences, float64; ``names`` of both sides for messages."""
        return _paired(self._quantiles, lambda a, b: (a - b).square().mean().sqrt(), first, second, names)

    def _quantiles(self, trials: Trials, name: str) -> Tensor:
        longest = max(len(trial) for trial in trials)
        if longest < 2:
            raise DataError(f"{name}: autocorrelations need trials of at least 2 samples, but the longest has 1")
        mean = torch.cat(list(trials)).double().mean(0)
        centred = [trial.double() - mean for trial in trials]
        power = torch.stack([x.square().sum(0) for x in centred]).sum(0)
        product = torch.stack([(x[1:] * x[:-1]).sum(0) for x in centred]).sum(0)
        varies = power > 0
        if not bool(varies.any()):
            raise DataError(f"{name} does not vary: it has no autocorrelation")
        middles = (torch.arange(self.n_quantiles, dtype=torch.float64) + 0.5) / self.n_quantiles
        return torch.quantile((product[varies] / power[varies]).cpu(), middles)


def _paired(
    summary: Callable[[Trials, str], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    first: Sequence[Trials],
    second: Sequence[Trials],
    names: Any,
) -> Tensor:
    """Distances of P pairs; a system that is part of several pairs is summarised once."""
    if len(first) != len(second):
        raise DataError(f"pairs need as many first as second systems, but {len(first)} and {len(second)} came")
    called = [*names[0], *names[1]] if names else ["a system"] * (2 * len(first))
    found: dict[int, Tensor] = {}
    for system, name in zip([*first, *second], called, strict=True):
        if id(system) not in found:
            found[id(system)] = summary(system, name)
    pairs = [distance(found[id(a)], found[id(b)]) for a, b in zip(first, second, strict=True)]
    return torch.stack(pairs) if pairs else torch.zeros(0, dtype=torch.float64)
