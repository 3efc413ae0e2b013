"""Eigenvalues of linear operators: how far apart two spectra are, and what an eigenvalue means in time."""

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dsa_analysis.data import DataError


def spectral_distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean squared gap of best-matched eigenvalues: min over permutations p of sqrt(mean_i |a_i - b_p(i)|^2).

    The 2-Wasserstein distance of two spectra with equal weights: a metric on spectra, blind to how modes interact (two
    operators with the same eigenvalues are at 0 even if no change of coordinates between orthonormal axes relates
    them).

    Parameters
    ----------
    a, b : (..., n) complex
        Eigenvalues, as many in both.

    Returns
    -------
    Tensor, (...), float64
        In units of the eigenvalues (which have none for operators in discrete time).
    """
    if a.shape != b.shape:
        raise DataError(
            f"spectra of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be matched: fit both systems at one rank"
        )
    costs = (a[..., :, None] - b[..., None, :]).abs().square().double().cpu().numpy()
    gaps = [cost[linear_sum_assignment(cost)].mean() for cost in costs.reshape(-1, *costs.shape[-2:])]
    return torch.tensor(gaps, dtype=torch.float64, device=a.device).sqrt().view(a.shape[:-1])


def time_constants(eigenvalues: Tensor, step: float) -> Tensor:
    """Time in which each mode decays by 1/e, in the unit of ``step``: -step / ln |eigenvalue|.

    ``step`` is the time from v(t) to A v(t), sampling interval times ``steps_ahead``. Modes that grow have negative
    ones, modes that keep their size infinite ones.
    """
    return -step / eigenvalues.abs().log()


def frequencies(eigenvalues: Tensor, step: float) -> Tensor:
    """Frequency of each mode in cycles per unit of ``step``: arg(eigenvalue) / (2 pi step), in [-1/2, 1/2] / step."""
    return eigenvalues.angle() / (2 * math.pi * step)
