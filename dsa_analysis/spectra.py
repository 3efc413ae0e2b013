"""Eigenvalues of linear operators: distances between spectra, time constants and frequencies, and matching of modes."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dsa_analysis.data import DataError, check_count

if TYPE_CHECKING:
    import pandas as pd


def eigenvalues(matrix: Tensor) -> Tensor:
    """(n,) complex, largest modulus first; in a conjugate pair the one with positive imaginary part is first."""
    values = torch.linalg.eigvals(matrix)
    values = values[values.imag.argsort(descending=True)]
    # rounded, because the moduli of a conjugate pair may differ in the last digit
    return values[values.abs().round(decimals=12).argsort(descending=True, stable=True)]


def spectral_distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean squared gap between best-matched eigenvalues.

    The minimum over permutations p of ``sqrt(mean_i |a_i - b_p(i)|^2)``. This is the 2-Wasserstein distance between two
    spectra with equal weights. It does not depend on how modes interact: two operators with the same eigenvalues have
    distance 0, even if no orthogonal transform relates them.

    Parameters
    ----------
    a, b : (..., n) complex
        Eigenvalues, the same number in both.

    Returns
    -------
    Tensor, (...), float64
        In units of the eigenvalues (dimensionless for operators in discrete time).

    Raises
    ------
    DataError
        Different shapes.
    """
    if a.shape != b.shape:
        raise DataError(
            f"spectra of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be matched: fit both systems at one rank"
        )
    from scipy.optimize import linear_sum_assignment

    costs = (a[..., :, None] - b[..., None, :]).abs().square().double().cpu().numpy()
    gaps = [cost[linear_sum_assignment(cost)].mean() for cost in costs.reshape(-1, *costs.shape[-2:])]
    return torch.tensor(gaps, dtype=torch.float64, device=a.device).sqrt().view(a.shape[:-1])


def time_constants(eigenvalues: Tensor, step: float) -> Tensor:
    """Time in which each mode decays to 1/e, in the unit of ``step``: -step / ln |eigenvalue|.

    ``step`` is the time from v(t) to A v(t), which is the sampling interval times ``steps_ahead``. Modes that grow have
    negative time constants, and modes of constant size infinite ones.
    """
    return -step / eigenvalues.abs().log()


def frequencies(eigenvalues: Tensor, step: float) -> Tensor:
    """Frequency of each mode in cycles per unit of ``step``: arg(eigenvalue) / (2 pi step), in [-1/2, 1/2] / step.

    If ``step`` is several sampling intervals, frequencies above 1 / (2 step) are aliased to lower ones; see `aliases`.
    """
    return eigenvalues.angle() / (2 * math.pi * step)


def aliases(frequency: float, step: float, dt: float) -> list[float]:
    """All frequencies up to 1 / (2 dt) that an operator over ``step`` shows as ``frequency``, ascending.

    An eigenvalue gives the phase of a step only up to whole turns, so f, 1 / step - f, 1 / step + f, ... look the same.
    A frequency is only known if it is below 1 / (2 step).

    Examples
    --------
    >>> aliases(2.0, step=0.1, dt=0.01)[:4]  # 8 and 12 Hz at 100 samples per second, 10 samples ahead
    [2.0, 8.0, 12.0, 18.0]
    """
    limit, turns = 1 / (2 * dt), range(int(step / (2 * dt)) + 2)
    found = {round(abs(turn / step + sign * abs(frequency)), 9) for turn in turns for sign in (-1, 1)}
    return sorted(value for value in found if value <= limit * (1 + 1e-9))


def match_modes(found: Tensor, expected: Tensor, *, dt: float, n_modes: int = 3) -> "pd.DataFrame":
    """Match the slowest expected modes to modes that were found, and compare their time constants and frequencies.

    A conjugate pair is one mode. Each of the ``n_modes`` modes of largest modulus in ``expected`` is matched to a
    different mode in ``found`` such that the sum of the gaps ``|z - z'|`` is smallest.

    Parameters
    ----------
    found, expected : (n,), (k,) complex
        Eigenvalues for the same step in time, such as those of an operator fitted to activity and those of the Jacobian
        of the network.
    dt : float > 0, in ms
        The step from v(t) to A v(t).
    n_modes : int >= 1
        Number of modes to match.

    Returns
    -------
    pandas.DataFrame
        One row for each mode, the slowest first: expected_time_constant and time_constant in ms (negative for modes
        that grow), expected_frequency and frequency in Hz, error (relative error of the time constant), and gap.

    Raises
    ------
    DataError
        Fewer than ``n_modes`` modes in ``found`` or ``expected``.
    """
    import pandas as pd
    from scipy.optimize import linear_sum_assignment

    check_count("n_modes", n_modes)
    sides = {}
    for name, values in (("found", found), ("expected", expected)):
        modes = values.detach().cpu()[values.detach().cpu().imag >= 0]
        if len(modes) < n_modes:
            raise DataError(f"{name} has {len(modes)} modes (a conjugate pair is one); n_modes = {n_modes} is too many")
        sides[name] = modes[modes.abs().argsort(descending=True, stable=True)].to(torch.complex128)
    z = sides["expected"][:n_modes]
    gaps = (z[:, None] - sides["found"]).abs()
    rows, columns = map(torch.from_numpy, linear_sum_assignment(gaps.numpy()))
    own = sides["found"][columns]
    slow, seen = time_constants(z, dt), time_constants(own, dt)
    return pd.DataFrame(
        {
            "expected_time_constant": slow,
            "time_constant": seen,
            "expected_frequency": 1000 * frequencies(z, dt),  # dt is in ms
            "frequency": 1000 * frequencies(own, dt),
            "error": seen / slow - 1,
            "gap": gaps[rows, columns],
        }
    )
