"""What people compared representations with before: CKA and Procrustes, as angles, on trials matched sample by sample.

With X (n_samples, n_channels) centred, samples of all trials one below the other, the same trials in the same order in
both systems,

    cka         arccos |X^T Y|_F^2 / (|X^T X|_F |Y^T Y|_F)       Kornblith et al. 2019, eq. 4, linear kernel
    procrustes  arccos |X^T Y|_* / (|X|_F |Y|_F)                 Williams et al. 2021, angular shape distance

Both are static: shuffling time in both systems alike changes nothing. Channel counts may differ.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dsa_analysis.data import DataError, as_trials

BASELINES = ("cka", "procrustes")


def cka_distance(x: Any, y: Any) -> Tensor:
    """Angle in [0, pi/2] between linear kernels of two systems, scalar; arguments as in `as_trials`, trials matched."""
    return static_distances({"x": as_trials(x, "x")}, {"y": as_trials(y, "y")}, "cka")[0, 0]


def procrustes_distance(x: Any, y: Any) -> Tensor:
    """Angle in [0, pi/2] between two systems after the best orthogonal transform, scalar; as `cka_distance`."""
    return static_distances({"x": as_trials(x, "x")}, {"y": as_trials(y, "y")}, "procrustes")[0, 0]


def static_distances(systems: Mapping[str, list[Tensor]], others: Mapping[str, list[Tensor]], metric: str) -> Tensor:
    """Angles (k, l) of all ``systems`` to all ``others``; all cross-products come from one, of stacked channels."""
    reference = next(iter(systems))
    shape = [len(trial) for trial in systems[reference]]
    for name, trials in [*systems.items(), *others.items()]:
        if [len(trial) for trial in trials] != shape:
            raise DataError(
                f"metric = {metric!r} compares trials sample by sample, but system {name!r} has {len(trials)} trials "
                f"of {_lengths(trials)} samples and system {reference!r} {len(shape)} of "
                f"{_lengths(systems[reference])}; give matched trials, or use metric = 'angular'"
            )
    left, right = ({name: _centred(trials) for name, trials in group.items()} for group in (systems, others))
    products = torch.cat(list(left.values()), 1).T @ torch.cat(list(right.values()), 1)
    rows = products.split([x.shape[1] for x in left.values()], 0)
    blocks = [row.split([y.shape[1] for y in right.values()], 1) for row in rows]
    if metric == "cka":
        overlap = torch.stack([torch.stack([block.square().sum() for block in row]) for row in blocks])
        size = [torch.stack([(x.T @ x).norm() for x in group.values()]) for group in (left, right)]
    else:
        overlap = torch.stack([torch.stack([torch.linalg.svdvals(block).sum() for block in row]) for row in blocks])
        size = [torch.stack([x.norm() for x in group.values()]) for group in (left, right)]
    return (overlap / size[0][:, None] / size[1]).clamp_max(1).arccos()


def _centred(trials: list[Tensor]) -> Tensor:
    samples = torch.cat(trials).double()
    return samples - samples.mean(0)


def _lengths(trials: list[Tensor]) -> str:
    lengths = sorted({len(trial) for trial in trials})
    return str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
