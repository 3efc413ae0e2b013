"""Slow points of a trained network, and the linear dynamics around them.

Under a constant input x the network without noise is a map h' = F(h). Its slow points are the local minima of

    q(h) = 1/2 |F(h) - h|^2

(Sussillo and Barak 2013, Neural Computation 25, 626-649): fixed points where q = 0, ghosts and slow passages where it
is merely small. They are found from many starts at once by damped Newton steps for least squares (Levenberg 1944,
Marquardt 1963): with r = F(h) - h and A = dF/dh - I,

    (A^T A + damping I) step = -A^T r,

where each point lowers its damping after a step that lowered q, and raises it after one that did not. A relu network
has kinks, where the search may end a little above the minimum.

Near a point h* the network is linear, h' - h* = J (h - h*). The mode of an eigenvalue z of J = dF/dh decays, if
|z| < 1, with the time constant -dt / ln |z|, and turns with the frequency angle(z) / (2 pi dt).
"""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from multitask.network import LeakyRNN
from multitask.trials import MultitaskError

FIXED = 1e-20  # q of a fixed point, up to rounding in float64: |F(h) - h| < 1.4e-10


@dataclass(frozen=True, eq=False)
class FixedPoints:
    """Slow points of an ensemble, those of each network in order of speed, slowest first.

    Attributes
    ----------
    hidden : Tensor, (n_points, n_units), float64
    network : Tensor, (n_points,), int
        The network each belongs to.
    q : Tensor, (n_points,)
        1/2 |F(h) - h|^2.
    jacobian : Tensor, (n_points, n_units, n_units)
        J, entry (i, j) being d h'_i / d h_j.
    eigenvalues : Tensor, (n_points, n_units), complex
        Of J, largest modulus first.
    n_visits : Tensor, (n_points,), int
        Starts that ended there.
    n_lost : int
        Starts that ended at a faster point than asked for, or had not settled in time.
    dt : float, ms
    """

    hidden: Tensor
    network: Tensor
    q: Tensor
    jacobian: Tensor
    eigenvalues: Tensor
    n_visits: Tensor
    n_lost: int
    dt: float

    @property
    def fixed(self) -> Tensor:
        """Which points are fixed points, (n_points,), bool; the others are slow."""
        return self.q < FIXED

    @property
    def n_unstable(self) -> Tensor:
        """Eigenvalues outside the unit circle, (n_points,), int: 0 for an attractor, 1 for a saddle between two."""
        return (self.eigenvalues.abs() > 1).sum(-1)

    @property
    def time_constants(self) -> Tensor:
        """-dt / ln |z|, ms, (n_points, n_units): negative for growth, infinite along a line of fixed points."""
        return -self.dt / self.eigenvalues.abs().log()

    @property
    def frequencies(self) -> Tensor:
        """Of the turning, Hz, (n_points, n_units), of either sign."""
        return 1000 * self.eigenvalues.angle() / (2 * torch.pi * self.dt)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a point, with ``time_constant`` (ms) and ``frequency`` (Hz) of the leading mode."""
        return pd.DataFrame(
            {
                "network": self.network.cpu().numpy(),
                "q": self.q.cpu().numpy(),
                "fixed": self.fixed.cpu().numpy(),
                "n_unstable": self.n_unstable.cpu().numpy(),
                "n_visits": self.n_visits.cpu().numpy(),
                "time_constant": self.time_constants[:, 0].cpu().numpy(),
                "frequency": self.frequencies[:, 0].cpu().numpy(),
            }
        )


def find_fixed_points(
    network: LeakyRNN,
    inputs: Tensor,
    starts: Tensor,
    *,
    slowest: float = 1e-4,
    apart: float = 1e-2,
    max_steps: int = 300,
) -> FixedPoints:
    """Find the slow points of an ensemble under a constant input.

    Parameters
    ----------
    network : LeakyRNN
    inputs : (n_inputs,)
        What the network sees all the time, such as ``activity.batch.inputs[trial, step]``.
    starts : (n_networks, n_starts, n_units)
        Where the search begins, such as ``activity.during("delay1").flatten(1, 2)``: many, since each ends at one point
        only.
    slowest : float > 0
        Largest q of a slow point; 1e-4 is a state that moves by 0.014 a step.
    apart : float > 0
        Points nearer to each other than this are one.
    max_steps : int >= 1
        Steps of the search.

    Returns
    -------
    FixedPoints
        In float64, on the device of the network.

    Raises
    ------
    MultitaskError
        Shapes that do not fit, starts that are not finite, limits that are not positive.
    """
    n_networks, n_units, n_inputs = network.n_networks, network.parameters.n_rnn, network.parameters.n_input
    if inputs.shape != (n_inputs,):
        raise MultitaskError(f"inputs have shape {tuple(inputs.shape)}: one constant input ({n_inputs},) is needed")
    if starts.dim() != 3 or len(starts) != n_networks or starts.shape[2] != n_units or starts.shape[1] == 0:
        raise MultitaskError(f"starts have shape {tuple(starts.shape)}: needed is ({n_networks}, n_starts, {n_units})")
    if not starts.isfinite().all():
        raise MultitaskError(f"starts are not finite: network {int((~starts.isfinite()).nonzero()[0, 0])}")
    for name, limit in (("slowest", slowest), ("apart", apart), ("max_steps", max_steps)):
        if not limit > 0:
            raise MultitaskError(f"{name} = {limit!r}: must be positive")
    network = network.to(torch.float64)
    inputs, starts = (x.to(network.device, torch.float64) for x in (inputs, starts))
    hidden, q, visits, owner, jacobian, n_lost = [], [], [], [], [], 0
    for e in range(n_networks):
        one = network.subset([e])
        ends, settled = _descend(one, inputs, starts[e], max_steps)
        speeds = _q(one, inputs, ends)
        kept = settled & (speeds <= slowest)
        index, counts = _distinct(ends[kept], speeds[kept], apart)
        hidden.append(ends[kept][index])
        q.append(speeds[kept][index])
        visits.append(counts)
        owner.append(torch.full_like(index, e))
        jacobian.append(one.jacobian(hidden[-1][None], inputs)[0])
        n_lost += int((~kept).sum())
    eigenvalues = torch.linalg.eigvals(torch.cat(jacobian))
    order = eigenvalues.abs().argsort(dim=-1, descending=True, stable=True)
    return FixedPoints(
        hidden=torch.cat(hidden),
        network=torch.cat(owner),
        q=torch.cat(q),
        jacobian=torch.cat(jacobian),
        eigenvalues=eigenvalues.gather(-1, order),
        n_visits=torch.cat(visits),
        n_lost=n_lost,
        dt=network.parameters.dt,
    )


def _q(network: LeakyRNN, inputs: Tensor, hidden: Tensor) -> Tensor:
    """q of states of one network, (n_starts, n_units) -> (n_starts,)."""
    return 0.5 * (network.step(hidden[None], inputs)[0] - hidden).square().sum(-1)


def _descend(network: LeakyRNN, inputs: Tensor, hidden: Tensor, max_steps: int) -> tuple[Tensor, Tensor]:
    """Minima of q below the starts of one network, and which have settled: q = 0, or no step lowers it."""
    eye = torch.eye(hidden.shape[-1], dtype=hidden.dtype, device=hidden.device)
    damping = torch.full_like(hidden[:, 0], 1e-3)
    q = _q(network, inputs, hidden)
    settled = torch.zeros_like(q, dtype=torch.bool)
    for _ in range(max_steps):
        residual = (network.step(hidden[None], inputs)[0] - hidden)[..., None]
        a = network.jacobian(hidden[None], inputs)[0] - eye
        step = torch.linalg.solve(a.mT @ a + damping[:, None, None] * eye, -a.mT @ residual)[..., 0]
        ahead = hidden + step
        q_ahead = _q(network, inputs, ahead)
        better = q_ahead < q
        hidden = torch.where(better[:, None], ahead, hidden)
        q = torch.where(better, q_ahead, q)
        damping = torch.where(better, damping / 5, damping * 10).clamp(1e-15, 1e15)
        settled = (q < 1e-3 * FIXED) | (step.norm(dim=-1) < 1e-9 * (1 + hidden.norm(dim=-1)))
        if settled.all():
            break
    return hidden, settled


def _distinct(points: Tensor, q: Tensor, apart: float) -> tuple[Tensor, Tensor]:
    """Indices of points that differ, slowest first, and how many of all points each stands for."""
    order = q.argsort(dim=0, stable=True)
    near = torch.cdist(points[order], points[order]) < apart
    left = torch.ones(len(points), dtype=torch.bool, device=points.device)
    index, visits = [], []
    for k in range(len(points)):
        if left[k]:
            index.append(order[k])
            visits.append((near[k] & left).sum())
            left &= ~near[k]
    empty = torch.zeros(0, dtype=torch.long, device=points.device)
    return (torch.stack(index), torch.stack(visits)) if index else (empty, empty)
