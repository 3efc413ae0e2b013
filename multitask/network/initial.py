"""Random initial weights, float64."""

import math

import torch
from torch import Tensor

# scale s of recurrent weights that start as s I, where parameters give none
START_SCALES = {"softplus": 0.5, "relu": 0.5, "tanh": 1.0, "retanh": 0.5, "power": 0.01}


def normal(n_rows: int, n_columns: int, generator: torch.Generator) -> Tensor:
    """A matrix with independent standard normal entries, (n_rows, n_columns)."""
    return torch.randn(n_rows, n_columns, generator=generator, dtype=torch.float64)


def glorot(n_rows: int, n_columns: int, generator: torch.Generator) -> Tensor:
    """A matrix with uniform entries in +-sqrt(6 / (rows + columns)) (Glorot and Bengio 2010)."""
    unit = torch.rand(n_rows, n_columns, generator=generator, dtype=torch.float64)
    return (2 * unit - 1) * math.sqrt(6 / (n_rows + n_columns))


def orthogonal(n: int, generator: torch.Generator) -> Tensor:
    """A uniformly distributed orthogonal matrix, by QR of a Gaussian matrix with the signs of R (Mezzadri 2007)."""
    q, r = torch.linalg.qr(normal(n, n, generator))
    return q * r.diagonal().sign()
