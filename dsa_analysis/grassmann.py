"""Optimal transport between the modes of operators: their eigenvalues and eigenspaces, matched together ("sgot").

An operator A with eigenvalues z_i, right eigenvectors r_i and left eigenvectors l_i is the sum of its modes
z_i r_i l_i^H / (l_i^H r_i). A mode is a point (z_i, V_i), where V_i is the line of r_i l_i^H. Two modes are

    d((z, V), (z', V')) = sqrt(eta |z - z'|^q + (1 - eta) g(V, V')^q),   g = sqrt(1 - |<r, r'> <l, l'>|^2)

apart for unit vectors, and two operators of n modes, each of weight 1 / n, are

    (min over permutations s of mean_i d(i, s(i))^p)^(1 / (p r))

apart. This is a metric for q <= 2 and p, r >= 1 (Germain, Flamary, Kostic, Lounici 2025, arXiv 2509.24920; exponents as
in ``ot.sgot.sgot_metric`` of POT 0.9.7). Nothing is aligned: operators act on the same space, so the channels of all
systems have to mean the same.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from dsa_analysis.data import DataError, check_number

TOLERANCE = 1e-4  # largest error of unit eigenvectors by rounding
AT_ONCE = 2**22  # numbers in an array of differences between modes

Lift = tuple[Tensor, Tensor]  # (d, n) each: right and left eigenvectors -> the space of the channels


@dataclass(frozen=True)
class SpectralGrassmann:
    """Optimal transport between the modes of two operators; see the top of this module.

    Parameters
    ----------
    eta : float in [0, 1]
        Weight of eigenvalues against eigenspaces. At 0 and 1 different systems may have distance 0.
    p, q, r : float, p >= 1, 0 < q <= 2, r >= 1
        Exponents of the transport, of the parts of d, and of an outer root.
    per : float > 0, in the unit of ``dt``, optional
        Eigenvalues are then rates ``per`` log(z) / step, with the step in time of each operator. By default they are
        rates only if the steps of the systems differ, for the longest step, and otherwise the eigenvalues themselves.
    """

    eta: float = 0.5
    p: float = 2.0
    q: float = 1.0
    r: float = 2.0
    per: float | None = None
    title: ClassVar[str] = "eigenvalues and eigenspaces"
    unit: ClassVar[str] = "transport of modes"
    needs: ClassVar[str] = "modes"
    bounded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, least, most in (("eta", 0, 1), ("p", 1, 100), ("q", 0, 2), ("r", 1, 100)):
            what = f"a number from {least} to {most}" if name != "q" else "a number above 0, up to 2"
            value = check_number(name, getattr(self, name), what, least, above=name == "q")
            if value > most:
                raise DataError(f"{name} = {value!r} is not {what}")
        if self.per is not None:
            check_number("per", self.per, "a time above 0", 0, above=True)

    @property
    def error_exponent(self) -> float:
        """Distances of small errors of the modes grow with this power of these; see `Metric.error_exponent`."""
        return self.q / (2 * self.r)

    @property
    def name(self) -> str:
        """ "sgot", with what differs from the default, so that stored results say how they were computed."""
        changed = [
            f"{one.name}={getattr(self, one.name):g}" for one in fields(self) if getattr(self, one.name) != one.default
        ]
        return "sgot" + f"({', '.join(changed)})" * bool(changed)

    def distances(self, first: Tensor, second: Tensor, **options: Any) -> Tensor:
        """Modes of P pairs, (P, n, 1 + 2 d) each from `modes` -> (P,) float64."""
        from scipy.optimize import linear_sum_assignment

        at_once = max(1, AT_ONCE // (first.shape[1] * first[0].numel()))
        blocks = zip(first.split(at_once), second.split(at_once), strict=True)
        costs = (cost for some in blocks for cost in self.costs(*some).cpu().numpy())
        means = [cost[linear_sum_assignment(cost)].mean() for cost in costs]
        found = torch.tensor(means, dtype=torch.float64, device=first.device)
        return found ** (1 / (self.p * self.r))

    def costs(self, first: Tensor, second: Tensor) -> Tensor:
        """(P, n, n) d^p between all modes of P pairs of operators."""
        (z, right, left), (w, other_right, other_left) = map(_parts, (first, second))
        a, b = _squared_sines(right, other_right), _squared_sines(left, other_left)
        apart = (a + (1 - a) * b).sqrt()  # 1 - cos^2 cos^2, which keeps small angles accurate
        gaps = (z[:, :, None] - w[:, None]).abs()
        return (self.eta * gaps**self.q + (1 - self.eta) * apart**self.q) ** (self.p / 2)


def modes(matrix: Tensor, name: str, lift: Lift | None = None) -> Tensor:
    """Eigenvalues, right and left eigenvectors of an operator side by side, a row for each mode.

    Parameters
    ----------
    matrix : (n, n) float64
    name : str
        In messages.
    lift : two (d, n), optional
        Maps of right and of left eigenvectors to the space in which systems are compared; by default the same space.

    Returns
    -------
    Tensor, (n, 1 + 2 d) complex128
        Eigenvectors have unit length.

    Raises
    ------
    DataError
        An operator that has no n separate modes: it is not diagonalisable, or eigenvalues are so near that rounding
        turns their eigenvectors by more than 1e-4.
    """
    values, right = torch.linalg.eig(matrix)
    inverse, singular = torch.linalg.inv_ex(right)
    left = inverse.mH  # l_i^H r_j = 1 if i = j, else 0
    gaps = (values[:, None] - values).abs().fill_diagonal_(torch.inf).amin(1)
    # first-order perturbation theory: |delta r_i| <= |E| |l_i| / gap, with rounding E
    error = torch.finfo(torch.float64).eps * torch.linalg.matrix_norm(matrix) * left.abs().square().sum(0).sqrt() / gaps
    if bool(singular) or not bool((error < TOLERANCE).all()):
        worst = values[int(error.nan_to_num(torch.inf).argmax())]
        raise DataError(
            f"{name}: eigenvalue {complex(worst):.4g} is so near another that their eigenvectors are not determined "
            f"(the operator is not diagonalisable, or nearly so), and metric = 'sgot' compares these; lower the rank, "
            f"or use metric = 'angular'"
        )
    if lift is not None:
        right, left = (space.to(vectors) @ vectors for space, vectors in zip(lift, (right, left), strict=True))
    unit = [vectors / vectors.abs().square().sum(0).sqrt() for vectors in (right, left)]
    return torch.cat([values[:, None], *(vectors.mT for vectors in unit)], 1)


def as_rates(found: Tensor, step: float, per: float, name: str) -> Tensor:
    """`modes` with rates ``per`` log(z) / ``step`` in place of the eigenvalues z of an operator over ``step``.

    Rates of unequal steps agree as long as no mode turns by more than half a turn in a step.

    Raises
    ------
    DataError
        An eigenvalue of 0, which has no rate.
    """
    values = found[:, 0]
    if bool((values == 0).any()):
        raise DataError(f"{name}: an eigenvalue is 0, which has no rate log(z) / step; lower the rank")
    phase = torch.atan2(values.imag + 0.0, values.real)  # -0.0 would turn a negative real number the other way
    rates = torch.complex(values.abs().log(), phase) * (per / step)
    return torch.cat([rates[:, None], found[:, 1:]], 1)


def _parts(found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    d = found.shape[-1] // 2
    return found[..., 0], found[..., 1 : d + 1], found[..., d + 1 :]


def _squared_sines(a: Tensor, b: Tensor) -> Tensor:
    """(P, n, n) squared sines of the angles between lines of unit vectors (P, n, d): exactly 0 for equal ones."""
    rows = a.split(max(1, AT_ONCE // b.numel()), 1)
    return torch.cat([_some_squared_sines(some[:, :, None], b[:, None]) for some in rows], 1)


def _some_squared_sines(a: Tensor, b: Tensor) -> Tensor:
    # in real numbers, because fused complex products leave an imaginary part in <a, a>
    real = (a.real * b.real + a.imag * b.imag).sum(-1)
    imag = (a.real * b.imag - a.imag * b.real).sum(-1)
    size = torch.hypot(real, imag)
    turned = size > 0
    c, s = (torch.where(turned, part / size, start)[..., None] for part, start in ((real, 1.0), (imag, 0.0)))
    chord = (a.real - c * b.real - s * b.imag).square() + (a.imag - c * b.imag + s * b.real).square()
    squared = chord.sum(-1).clamp_max(2)
    return squared * (1 - squared / 4)
