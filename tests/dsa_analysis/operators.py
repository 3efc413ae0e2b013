"""Random operators of several kinds, for the tests of alignment."""

import math

import torch
from torch import Tensor

from dsa_analysis import fit_operator, trajectories


def haar(p: int, n: int, generator: torch.Generator, determinant: int = 0) -> Tensor:
    """Random orthogonal matrices (p, n, n), all of one determinant unless it is 0."""
    Q, R = torch.linalg.qr(torch.randn(p, n, n, generator=generator, dtype=torch.float64))
    Q = Q * R.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    if determinant:
        Q[:, :, 0] *= (determinant * torch.linalg.det(Q))[:, None]
    return Q


def gaussian(p: int, n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(p, n, n, generator=generator, dtype=torch.float64)


def near_orthogonal(p: int, n: int, generator: torch.Generator) -> Tensor:
    """What whitened operators of slow dynamics look like."""
    return haar(p, n, generator) + 0.1 * gaussian(p, n, generator)


def normal(p: int, n: int, generator: torch.Generator) -> Tensor:
    """Rotations in planes times decays: the symmetric part has every eigenvalue twice."""
    A = torch.zeros(p, n, n, dtype=torch.float64)
    size, angle = (torch.rand(p, n // 2, generator=generator, dtype=torch.float64) for _ in range(2))
    for k in range(n // 2):
        c, s = (size[:, k] * f(3 * angle[:, k]) for f in (torch.cos, torch.sin))
        A[:, 2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = torch.stack(
            [torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2
        )
    if n % 2:
        A[:, -1, -1] = 0.9
    Q = haar(p, n, generator)
    return Q @ A @ Q.mT


def fitted(p: int, n: int, generator: torch.Generator, noise: float = 0.02) -> Tensor:
    """Operators of recordings of Lorenz' and Van der Pol's system in turn, three trials and a little noise in each."""
    operators = []
    for name in ("lorenz", "van_der_pol"):
        x = trajectories(name, 3 * math.ceil(p / 2), 150, generator=generator)
        x = x + noise * x.std() * torch.randn(x.shape, generator=generator)
        operators.append([fit_operator(trials, n_delays=n // 2 + 4, rank=n).matrix for trials in x.split(3)])
    return torch.stack([operator for pair in zip(*operators, strict=True) for operator in pair][:p])


KINDS = {"Gaussian": gaussian, "near-orthogonal": near_orthogonal, "exactly normal": normal, "fitted": fitted}
