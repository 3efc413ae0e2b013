"""Inputs of driven systems: do they belong to the trials, and do they vary enough to tell their effects apart?

Windows of w samples of m inputs have w m entries, and an operator with inputs has a coefficient for each. They can be
told apart only if these windows vary in all w m directions: if the inputs are persistently exciting of order w (Van
Overschee and De Moor 1996). A constant input is not (its effect is that of the offset), nor are two inputs of which one
is a multiple of the other; a sine varies in two directions whatever the window.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsa_analysis import covariances
from dsa_analysis.data import DataError, as_trials

RESOLUTION = 1e-6  # relative to the first principal direction of the inputs; smaller ones are taken for zero


@dataclass(frozen=True)
class Excitation:
    """How much inputs vary, over windows of them.

    Attributes
    ----------
    rank, full : int
        Directions in which windows of inputs vary, and their entries. If the rank is smaller, the effects of inputs at
        single samples cannot be told apart.
    condition : float
        Standard deviation along the first direction over that along the last, for inputs of unit variance. Its decimal
        logarithm is the number of digits that are lost.
    lacking : str
        What is missing, with the inputs by number; empty if nothing is.
    """

    rank: int
    full: int
    condition: float
    lacking: str = ""


def match(trials: Any, inputs: Any, name: str, device: torch.device | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """Checked trials and their inputs, on one device.

    Raises
    ------
    DataError
        Trials and inputs that differ in number, length or sampling rate, or that `as_trials` refuses.
    """
    own, theirs = (getattr(x, "dt", None) for x in (trials, inputs))  # of recordings
    if isinstance(own, float) and isinstance(theirs, float) and abs(own / theirs - 1) > 1e-6:
        raise DataError(
            f"system {name!r} is sampled every {own:g} and its inputs every {theirs:g}; bring them to one sampling rate"
        )
    states = as_trials(trials, name, device)
    drives = as_trials(inputs, f"inputs of {name}", states[0].device, constant=True)
    if len(states) != len(drives):
        raise DataError(
            f"system {name!r} has {len(states)} trials, and inputs came for {len(drives)}; give inputs for each"
        )
    for k, (x, u) in enumerate(zip(states, drives, strict=True)):
        if len(x) != len(u):
            ratio = max(len(x), len(u)) / min(len(x), len(u))
            rate = " (are they sampled at another rate?)" if ratio >= 1.5 else ""
            raise DataError(
                f"system {name!r}, trial {k} has {len(x)} samples and its inputs {len(u)}; the numbers must agree{rate}"
            )
    return states, drives


def excitation(drives: list[Tensor], window: int, center: bool = True) -> Excitation:
    """How much inputs vary over windows of ``window`` samples; trials shorter than that do not count."""
    drives = [u.double() for u in drives]
    n_inputs = drives[0].shape[1]
    total = torch.cat(drives)
    mean = total.mean(0) if center else torch.zeros_like(total[0])
    spread = (total - mean).square().mean(0).sqrt()
    # rounding of the mean of a constant is not variation
    constant = (spread <= 1e-12 * total.abs().amax(0)).nonzero()[:, 0].tolist()
    if constant:
        return Excitation(0, window * n_inputs, float("inf"), _constant(constant, center))
    standard = [(u - mean) / spread for u in drives]
    gram, _, n_windows = window_products(standard, window, center)
    full = window * n_inputs
    rank, condition = _rank(gram.flatten(2).flatten(0, 1))
    if rank == full:
        return Excitation(rank, full, condition)
    if n_windows < full + center:
        return Excitation(rank, full, condition, _few(n_windows, full, window, n_inputs))
    lacking = _collinear(gram[0, :, 0]) or _monotonous(gram, window) or _together(gram, rank, window)
    return Excitation(rank, full, condition, lacking)


def window_products(trials: list[Tensor], window: int, center: bool) -> tuple[Tensor, Tensor, int]:
    """Products of windows with themselves, (window, c, window, c), newest sample first; their means, and their number.

    With ``center`` each entry of the windows is taken about its mean, (window, c), which is 0 without.
    """
    ones = [torch.cat([x, torch.ones_like(x[:, :1])], 1) for x in trials]
    J = covariances.lag_gram(ones, torch.zeros_like(ones[0][0]), window)
    gram, n_windows = J[:, :-1, :, :-1], round(float(J[0, -1, 0, -1]))
    means = J[:, :-1, 0, -1] / n_windows if center else torch.zeros_like(J[:, :-1, 0, -1])
    return gram - n_windows * torch.einsum("ik,jl->ikjl", means, means), means, n_windows


def _rank(gram: Tensor) -> tuple[int, float]:
    """Number of directions that are not rounding errors, and the first standard deviation over the last."""
    S = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    rank = int((RESOLUTION * S[-1] < S).sum())
    return rank, float(S[-1] / S[0]) if rank == len(S) else float("inf")


def _listed(inputs: list[int]) -> str:
    return f"input{'s' * (len(inputs) > 1)} {', '.join(map(str, inputs))}"


def _constant(inputs: list[int], center: bool) -> str:
    one = len(inputs) == 1
    if center:
        effect = "effect is" if one else "effects are"
        why = f"constant: {'its' if one else 'their'} {effect} that of the offset"
    else:
        why = "always 0"
    return f"{_listed(inputs)} {'is' if one else 'are'} {why}; leave {'it' if one else 'them'} out"


def _few(n_windows: int, full: int, window: int, n_inputs: int) -> str:
    return (
        f"{n_windows} windows of {window} samples cannot show all {full} directions ({window} samples x {n_inputs} "
        f"inputs); use shorter windows, or record more"
    )


def _collinear(gram: Tensor) -> str:
    """Which inputs are linear combinations of each other at one time, from their products (m, m)."""
    S, V = torch.linalg.eigh(gram)
    null = V[:, RESOLUTION**2 * S[-1] >= S]
    if not null.shape[1]:
        return ""
    involved = [k for k in range(len(gram)) if float(null[k].norm()) > 1e-3]
    left = null.shape[1]
    kept = len(involved) - left
    return (
        f"{_listed(involved)} are collinear: {kept} of them determine{'s' * (kept == 1)} the other{'s' * (left > 1)}; "
        f"leave out {left}"
    )


def _monotonous(gram: Tensor, window: int) -> str:
    """Which single inputs do not vary in as many directions as their windows have samples."""
    found = {k: _rank(gram[:, k, :, k])[0] for k in range(gram.shape[1])}
    short = {k: rank for k, rank in found.items() if rank < window}
    if not short:
        return ""
    least = min(short.values())
    counts = ", ".join(map(str, short.values()))
    return (
        f"{_listed(list(short))} var{'ies' if len(short) == 1 else 'y'} in {counts} of {window} directions of a window "
        f"of {window} samples, all of which are needed to tell effects at different lags apart; windows of at most "
        f"{least} samples fit, or inputs with more frequencies"
    )


def _together(gram: Tensor, rank: int, window: int) -> str:
    full = window * gram.shape[1]
    return (
        f"{_listed(list(range(gram.shape[1])))} vary in {rank} of {full} directions of a window of {window} samples: "
        f"past samples of some determine others; use shorter windows, fewer inputs or inputs that are independent"
    )


def largest_window(fits: Callable[[int], bool], most: int) -> int:
    """The largest number of delays up to ``most`` that fits; 0 if none does. Smaller ones fit if a larger one does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
