"""Driven systems of which few dimensions are seen: two dynamics times two effects of the input.

    x(t + 1) = A x(t) + epsilon h o tanh(A x(t)) + B u(t),      y(t) = x(t) at the dimensions seen + noise,

with h 1 for hidden dimensions and 0 for those seen, and white inputs u. Each A has normal entries and is scaled to a
spectral radius; each B is drawn from a normal distribution of random covariance and scaled by a gain, that of the
second in coordinates of its own. All pairs of A and B receive several draws of the inputs (Huang, Ostrow et al. 2025,
arXiv 2510.25943, Fig. 2, whose sizes are the defaults).
"""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from dsa_analysis.controls.base import check_not_negative, check_positive, normal
from dsa_analysis.data import DataError, as_device, as_generator, check_count


@dataclass(frozen=True)
class DrivenParameters:
    """Driven systems of which few dimensions are seen.

    Attributes
    ----------
    n_dims, n_inputs, n_seen : int >= 1
        Dimensions of the state, inputs, and dimensions seen, which are drawn.
    radii : tuple of floats > 0
        Spectral radius of each A. Above about 1 / (1 + nonlinearity) the system need not come to rest.
    gains : tuple of floats > 0
        Gain of each B.
    n_draws : int >= 1
        Draws of inputs and noise for each pair of A and B.
    n_times : int >= 1
        Samples of the one trial of each system; it starts at rest.
    nonlinearity : float >= 0
        Epsilon.
    noise : float >= 0
        Standard deviation of the measurement noise.
    """

    n_dims: int = 20
    n_inputs: int = 1
    n_seen: int = 2
    radii: tuple[float, ...] = (0.92, 0.82)
    gains: tuple[float, ...] = (0.5, 2.0)
    n_draws: int = 4
    n_times: int = 1000
    nonlinearity: float = 0.1
    noise: float = 0.01

    def __post_init__(self) -> None:
        for name in ("n_dims", "n_inputs", "n_seen", "n_draws", "n_times"):
            check_count(name, getattr(self, name))
        check_positive(**{f"radii[{k}]": radius for k, radius in enumerate(self.radii)})
        check_positive(**{f"gains[{k}]": gain for k, gain in enumerate(self.gains)})
        check_not_negative(nonlinearity=self.nonlinearity, noise=self.noise)
        if self.n_seen > self.n_dims:
            raise DataError(f"n_seen = {self.n_seen} is more than n_dims = {self.n_dims}")


class DrivenMatrices(NamedTuple):
    """What the systems of a control have in common."""

    A: Tensor  # (n_radii, n_dims, n_dims)
    B: Tensor  # (n_gains, n_dims, n_inputs)
    seen: Tensor  # (n_seen,) int64


@dataclass(frozen=True)
class DrivenControl:
    """Driven systems of which it is known which share their dynamics, and which the effect of their inputs.

    Attributes
    ----------
    systems, inputs : dict from name to tensor (1, n_times, n_seen) and (1, n_times, n_inputs), float64
        Ready for `compare`. Names are such as "A1 B2 draw 0".
    states, drives : tuple of str
        "A1" or "A2", and "B1" or "B2", of each system, in their order.
    matrices : DrivenMatrices
    """

    systems: dict[str, Tensor]
    inputs: dict[str, Tensor]
    states: tuple[str, ...]
    drives: tuple[str, ...]
    matrices: DrivenMatrices


def draw_matrices(parameters: DrivenParameters, generator: torch.Generator) -> DrivenMatrices:
    """Random dynamics, effects of inputs, and dimensions seen."""
    p, n = parameters, parameters.n_dims
    A = normal((len(p.radii), n, n), generator)
    radius = torch.linalg.eigvals(A).abs().amax(-1)
    A = A * (torch.tensor(p.radii, dtype=torch.float64) / radius)[:, None, None]
    root = normal((n, n), generator)  # of the covariance of the columns of B
    B = []
    for k, gain in enumerate(p.gains):
        turn = torch.linalg.qr(normal((n, n), generator))[0] if k else torch.eye(n, dtype=torch.float64)
        B.append(gain * turn @ root @ normal((n, p.n_inputs), generator))
    seen = torch.randperm(n, generator=generator)[: p.n_seen].sort().values
    return DrivenMatrices(A, torch.stack(B), seen)


def record_driven(
    parameters: DrivenParameters | None = None,
    *,
    matrices: DrivenMatrices | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    device: str | torch.device | None = None,
) -> DrivenControl:
    """Driven systems of all pairs of dynamics and effects of inputs.

    Parameters
    ----------
    parameters : DrivenParameters
    matrices : DrivenMatrices, optional
        Given ones in place of random ones; their sizes count, not those of ``parameters``.
    seed, generator
        Exactly one of them: draws the matrices, then inputs and noise.
    device : str or torch.device, optional

    Returns
    -------
    DrivenControl

    Raises
    ------
    DataError
        Matrices whose sizes do not agree, or a system that diverges.
    """
    p = parameters if parameters is not None else DrivenParameters()
    generator, device = as_generator(seed, generator), as_device(device) or torch.device("cpu")
    drawn = draw_matrices(p, generator)  # in any case, so that inputs are the same with matrices that are given
    A, B, seen = (x.to(device) for x in (matrices or drawn))
    n = A.shape[-1]
    if A.shape[1:] != (n, n) or B.shape[1] != n or int(seen.max()) >= n:
        raise DataError(
            f"matrices of {tuple(A.shape)} and {tuple(B.shape)}, with dimensions up to {int(seen.max())} seen, do not "
            f"belong together; (a, n, n) and (b, n, m) are needed"
        )
    pairs = [(a, b) for a, b, _ in product(range(len(A)), range(len(B)), range(p.n_draws))]
    dynamics, effects = (torch.stack([of[pair[k]] for pair in pairs]) for k, of in enumerate((A, B)))
    u = normal((len(pairs), p.n_times, B.shape[2]), generator).to(device)
    hidden = torch.ones(n, dtype=A.dtype, device=device)
    hidden[seen] = 0
    x, samples = torch.zeros(len(pairs), n, 1, dtype=A.dtype, device=device), []
    for t in range(p.n_times):
        samples.append(x[:, seen, 0])
        turned = dynamics @ x
        x = turned + p.nonlinearity * hidden[:, None] * turned.tanh() + effects @ u[:, t, :, None]
    y = torch.stack(samples, 1)
    if not bool(torch.isfinite(x).all()):
        raise DataError(f"a system diverged: radii = {p.radii} are too large for nonlinearity = {p.nonlinearity}")
    y = y + p.noise * normal(y.shape, generator).to(device)
    names = [f"A{a + 1} B{b + 1} draw {k % p.n_draws}" for k, (a, b) in enumerate(pairs)]
    return DrivenControl(
        systems={name: trial[None] for name, trial in zip(names, y, strict=True)},
        inputs={name: trial[None] for name, trial in zip(names, u, strict=True)},
        states=tuple(f"A{a + 1}" for a, _ in pairs),
        drives=tuple(f"B{b + 1}" for _, b in pairs),
        matrices=DrivenMatrices(A, B, seen),
    )
