"""Measures of static representations, CKA and Procrustes, as angles between trials that match sample by sample.

X and Y (n_samples, n_channels) stack the samples of all trials of two systems, centred, with the same trials in the
same order:

    cka         arccos |X^T Y|_F^2 / (|X^T X|_F |Y^T Y|_F)       Kornblith et al. 2019, eq. 4, linear kernel
    procrustes  arccos |X^T Y|_* / (|X|_F |Y|_F)                 Williams et al. 2021, angular shape distance

Both are static: they do not change if time is shuffled in the same way in both systems. Channel counts may differ.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dsa_analysis.data import DataError, as_trials

Trials = list[Tensor]  # of one system, (n_times, n_channels) each
Names = tuple[Sequence[str], Sequence[str]]  # of the systems of both sides, for messages
CHANNELS_AT_ONCE = 256  # of systems whose products with all others are computed together: wide products are fast
PAIR: Names = (["system 'x'"], ["system 'y'"])


def cka_distance(x: Any, y: Any) -> Tensor:
    """Angle between the linear kernels of two systems (centred kernel alignment, Kornblith et al. 2019, eq. 4).

    Parameters
    ----------
    x, y : systems as in `compare`, as data
        Trial k of ``x`` corresponds to trial k of ``y``, sample by sample. Channel counts may differ.

    Returns
    -------
    Tensor, scalar float64, in rad, in [0, pi/2]

    Raises
    ------
    DataError
        Trials that differ in number or length, or data that are not finite real trials.
    """
    return cka_distances([as_trials(x, "x")], [as_trials(y, "y")], PAIR)[0]


def procrustes_distance(x: Any, y: Any) -> Tensor:
    """Angle between two systems after the best orthogonal transform (Williams et al. 2021, angular shape distance).

    Parameters
    ----------
    x, y : systems as in `compare`, as data
        Trial k of ``x`` corresponds to trial k of ``y``, sample by sample. Channel counts may differ.

    Returns
    -------
    Tensor, scalar float64, in rad, in [0, pi/2]

    Raises
    ------
    DataError
        As `cka_distance`.
    """
    return procrustes_distances([as_trials(x, "x")], [as_trials(y, "y")], PAIR)[0]


def cka_distances(first: Sequence[Trials], second: Sequence[Trials], names: Names | None = None) -> Tensor:
    """`cka_distance` of P pairs of systems, (P,)."""
    return _angles(first, second, names, "cka", lambda block: block.square().sum(), lambda x: (x.T @ x).norm())


def procrustes_distances(first: Sequence[Trials], second: Sequence[Trials], names: Names | None = None) -> Tensor:
    """`procrustes_distance` of P pairs of systems, (P,)."""
    return _angles(
        first, second, names, "procrustes", lambda block: torch.linalg.svdvals(block).sum(), lambda x: x.norm()
    )


def _angles(
    first: Sequence[Trials],
    second: Sequence[Trials],
    names: Names | None,
    metric: str,
    overlap: Callable[[Tensor], Tensor],
    size: Callable[[Tensor], Tensor],
) -> Tensor:
    """arccos of the overlap of X^T Y over the sizes of X and Y."""
    # a system is in many pairs, each time as the same list
    lengths = {key: tuple(map(len, trials)) for key, trials in _distinct([*first, *second]).items()}
    _refuse_unmatched(first, second, lengths, names, metric)
    alike: dict[tuple[int, ...], list[int]] = {}  # pairs by the lengths of their trials, which differ between windows
    for pair, trials in enumerate(first):
        alike.setdefault(lengths[id(trials)], []).append(pair)
    if len(alike) > 1:
        angles = first[0][0].new_empty(len(first), dtype=torch.float64)
        for pairs in alike.values():
            left_side, right_side = ([side[pair] for pair in pairs] for side in (first, second))
            angles[pairs] = _angles(left_side, right_side, None, metric, overlap, size)
        return angles
    left, right = ({key: _centred(trials) for key, trials in _distinct(side).items()} for side in (first, second))
    sizes = {key: size(x) for key, x in (left | right).items()}
    partners: dict[int, list[int]] = {}
    for pair, trials in enumerate(first):
        partners.setdefault(id(trials), []).append(pair)
    place = {key: at for at, key in enumerate(right)}
    stacked, widths = torch.cat(list(right.values()), 1), [y.shape[1] for y in right.values()]
    cosines = stacked.new_empty(len(first))
    for keys in _runs({key: x.shape[1] for key, x in left.items()}):
        product = torch.cat([left[key] for key in keys], 1).T @ stacked  # of these systems with all others
        for key, rows in zip(keys, product.split([left[key].shape[1] for key in keys]), strict=True):
            blocks = rows.split(widths, 1)
            for pair in partners[key]:
                other = id(second[pair])
                cosines[pair] = overlap(blocks[place[other]]) / sizes[key] / sizes[other]
    return cosines.clamp_max(1).arccos()


def _distinct(systems: Sequence[Trials]) -> dict[int, Trials]:
    return {id(trials): trials for trials in systems}


def _runs(widths: dict[int, int]) -> Iterator[list[int]]:
    """Runs of systems with at most `CHANNELS_AT_ONCE` channels together, or one system."""
    run: list[int] = []
    for key, width in widths.items():
        if run and sum(widths[one] for one in run) + width > CHANNELS_AT_ONCE:
            yield run
            run = []
        run.append(key)
    yield run


def _refuse_unmatched(
    first: Sequence[Trials],
    second: Sequence[Trials],
    lengths: dict[int, tuple[int, ...]],
    names: Names | None,
    metric: str,
) -> None:
    for pair, (x, y) in enumerate(zip(first, second, strict=True)):
        if lengths[id(x)] != lengths[id(y)]:
            one, other = (names[0][pair], names[1][pair]) if names else (f"system {pair}", "its partner")
            raise DataError(
                f"metric = {metric!r} compares trials sample by sample, but {other} has {len(y)} trials "
                f"of {_lengths(y)} samples and {one} {len(x)} of {_lengths(x)}; give matched trials, or use "
                f"metric = 'angular'"
            )


def _centred(trials: Trials) -> Tensor:
    samples = torch.cat(trials).double()
    return samples - samples.mean(0)


def _lengths(trials: Trials) -> str:
    lengths = sorted({len(trial) for trial in trials})
    return str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
