"""Slow points of a trained network, and the linear dynamics around them.

Under a constant input x and without noise, the network is a map h' = F(h). Its slow points are the local minima of

    q(h) = 1/2 |F(h) - h|^2

(Sussillo and Barak 2013, Neural Computation 25, 626-649). Where q = 0 they are fixed points, otherwise states that
change slowly. The search starts from many states and uses damped Newton steps for least squares (Levenberg 1944,
Marquardt 1963). With r = F(h) - h and A = dF/dh - I,

    (A^T A + damping I) step = -A^T r.

The damping of each state is decreased after a step that lowers q, and increased otherwise. At the kinks of a relu
network, the search may end slightly above the minimum.

Near a fixed point h* the network is linear, h' - h* = J (h - h*), with J = dF/dh. The mode of an eigenvalue z of J
decays, if |z| < 1, with the time constant -dt / ln |z|, and oscillates with the frequency angle(z) / (2 pi dt).
`perturbed` simulates the network close to its slow points, where these modes can be observed.
"""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from multitask.network import LeakyRNN
from multitask.trials import MultitaskError, check_number, check_whole

if TYPE_CHECKING:
    import pandas as pd

FIXED = 1e-20  # points with smaller q are fixed points up to rounding in float64: |F(h) - h| < 1.4e-10


@dataclass(frozen=True, eq=False)
class FixedPoints:
    """Slow points of an ensemble, sorted by network and then by speed, slowest first.

    Attributes
    ----------
    hidden : Tensor, (n_points, n_units), float64
        States of the points.
    network : Tensor, (n_points,), int
        Index of the network of each point.
    q : Tensor, (n_points,)
        ``1/2 |F(h) - h|^2``.
    jacobian : Tensor, (n_points, n_units, n_units)
        J with the entries (i, j) d h'_i / d h_j.
    eigenvalues : Tensor, (n_points, n_units), complex
        Eigenvalues of J, largest modulus first.
    n_visits : Tensor, (n_points,), int
        Number of starts that ended at the point.
    n_lost : int
        Number of starts that ended at a point that is too fast, or did not converge.
    dt : float, ms
        Length of a time step.
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
        """Which points are fixed points, (n_points,), bool."""
        return self.q < FIXED

    @property
    def n_unstable(self) -> Tensor:
        """Number of eigenvalues outside the unit circle, (n_points,), int; 0 for an attractor."""
        return (self.eigenvalues.abs() > 1).sum(-1)

    @property
    def time_constants(self) -> Tensor:
        """``-dt / ln |z|`` in ms, (n_points, n_units); negative for growing modes, infinite on a line of points."""
        return -self.dt / self.eigenvalues.abs().log()

    @property
    def frequencies(self) -> Tensor:
        """Frequencies of the modes in Hz, (n_points, n_units), of either sign."""
        return 1000 * self.eigenvalues.angle() / (2 * torch.pi * self.dt)

    def subset(self, which: Tensor) -> "FixedPoints":
        """Some of the points, by indices or by a mask such as ``points.fixed``."""
        own: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {name: value[which] for name, value in own.items() if isinstance(value, Tensor)}
        return FixedPoints(**own | kept)

    def separable(self, rank: int) -> Tensor:
        """Which points have ``rank`` modes that are slower than all others.

        A pair of conjugate eigenvalues has equal moduli and cannot be separated.

        Parameters
        ----------
        rank : int in [1, n_units)

        Returns
        -------
        Tensor, (n_points,), bool
        """
        self._check_rank(rank)
        moduli = self.eigenvalues.abs()
        return moduli[:, rank - 1] > (1 + 1e-9) * moduli[:, rank]

    def slow_jacobian(self, rank: int) -> Tensor:
        """J restricted to the invariant subspace of its slowest modes, in orthonormal coordinates of that subspace.

        This is the part of J that an operator of this rank can represent.

        Parameters
        ----------
        rank : int in [1, n_units)
            Number of modes.

        Returns
        -------
        Tensor, (n_points, rank, rank)

        Raises
        ------
        MultitaskError
            If the modes of a point are not separable at this rank (see `separable`).
        """
        from scipy.linalg import schur

        together = ~self.separable(rank)
        if together.any():
            raise MultitaskError(
                f"rank = {rank} splits modes of equal modulus at {int(together.sum())} of {len(together)} points, "
                f"first at point {int(together.nonzero()[0])}: use points.subset(points.separable({rank}))"
            )
        limits = self.eigenvalues.abs()[:, rank - 1 : rank + 1].mean(-1)
        blocks = [
            schur(J, sort=lambda re, im, limit=limit: math.hypot(re, im) > limit)[0][:rank, :rank]
            for J, limit in zip(self.jacobian.cpu().numpy(), limits.tolist(), strict=True)
        ]
        return torch.from_numpy(np.array(blocks).reshape(-1, rank, rank)).to(self.jacobian)

    def _check_rank(self, rank: int) -> None:
        check_whole("rank", rank, 1)
        if rank >= self.hidden.shape[1]:
            raise MultitaskError(f"rank = {rank}: must be less than the number of units, {self.hidden.shape[1]}")

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per point, with ``time_constant`` (ms) and ``frequency`` (Hz) of the slowest mode."""
        import pandas as pd

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
    inputs : Tensor, (n_inputs,)
        The constant input, such as ``activity.batch.inputs[trial, step]``.
    starts : Tensor, (n_networks, n_starts, n_units)
        Initial states of the search, such as ``activity.during("delay1").flatten(1, 2)``. Use many, since each start
        finds only one point. Where states are more than the activity of units (LSTM, LowRank, Dale, LRU, Selective),
        they come from ``network.states(inputs)``, which every network has.
    slowest : float > 0
        Maximum q of a slow point. With 1e-4 a state moves by 0.014 per time step.
    apart : float > 0
        Points with a smaller distance are regarded as the same point.
    max_steps : int >= 1
        Maximum number of steps of the search.

    Returns
    -------
    FixedPoints
        In float64, on the device of the network.

    Raises
    ------
    MultitaskError
        If shapes do not fit, starts are not finite, or limits are not positive.
    """
    n_networks, n_units = network.n_networks, network.n_state
    _check_input(network, inputs)
    if starts.dim() != 3 or len(starts) != n_networks or starts.shape[2] != n_units or starts.shape[1] == 0:
        raise MultitaskError(f"starts have shape {tuple(starts.shape)}: must be ({n_networks}, n_starts, {n_units})")
    if not starts.isfinite().all():
        raise MultitaskError(f"starts of network {int((~starts.isfinite()).nonzero()[0, 0])} are not finite")
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


def perturbed(
    network: LeakyRNN,
    points: FixedPoints,
    inputs: Tensor,
    *,
    n_trials: int,
    n_times: int,
    size: float = 1e-6,
    seed: int = 0,
) -> Tensor:
    """Simulate networks from states near their slow points, without noise.

    Trials start from pairs of states h* + d and h* - d with random directions d. The mean of a pair follows the
    trajectory from h* itself (up to second order in ``size``), and deviations from it follow J. At a fixed point, an
    operator fitted to these states has the eigenvalues of J. An operator of low rank has the slow eigenvalues if the
    first ten time constants of a unit are left out, in which fast modes decay; otherwise it mixes slow and fast modes.
    Slow points that are not fixed points drift, and a relu network may then cross kinks, beyond which J is different.

    Parameters
    ----------
    network : LeakyRNN
    points : FixedPoints
        Slow points of this network under these inputs.
    inputs : Tensor, (n_inputs,)
        The constant input, as in `find_fixed_points`.
    n_trials : int, even, >= 2
        Number of trials at each point. 2 n_rnn trials span all directions.
    n_times : int >= 1
        Number of time steps of a trial, including the initial state.
    size : float > 0
        Distance of the initial states from the point. Choose it small enough that no relu unit crosses its kink, and
        much larger than rounding errors of float64.
    seed : int >= 0
        Seed of the directions, which are uniform and the same at all points.

    Returns
    -------
    Tensor, (n_points, n_trials, n_times, n_units), float64
        On the device of the network.

    Raises
    ------
    MultitaskError
        If there are no points, points do not fit the network, ``n_trials`` is odd, or another argument is out of range.
    """
    n_units = network.n_state
    if points.hidden.shape[1] != n_units or bool((points.network >= network.n_networks).any()):
        raise MultitaskError(
            f"points have {points.hidden.shape[1]} units and belong to networks "
            f"{sorted(set(points.network.tolist()))}, but the ensemble has {network.n_networks} networks of {n_units} "
            f"units, counted from 0"
        )
    if not len(points.hidden):
        raise MultitaskError("points is empty: give at least one point")
    _check_input(network, inputs)
    for name, value, least in (("n_trials", n_trials, 2), ("n_times", n_times, 1), ("seed", seed, 0)):
        check_whole(name, value, least)
    if n_trials % 2:
        raise MultitaskError(f"n_trials = {n_trials}: must be even, since trials start in pairs on opposite sides")
    check_number("size", size, above=0)
    generator = torch.Generator().manual_seed(seed)
    push = torch.randn(n_trials // 2, n_units, generator=generator, dtype=torch.float64)
    push = (size * push / push.norm(dim=-1, keepdim=True)).to(network.device)
    network = network.subset(points.network.tolist()).to(torch.float64)  # one for each point
    hidden = [points.hidden[:, None] + torch.cat([push, -push])]
    for _ in range(n_times - 1):
        hidden.append(network.step(hidden[-1], inputs))
    return torch.stack(hidden, 2)


def _check_input(network: LeakyRNN, inputs: Tensor) -> None:
    n_inputs = network.parameters.n_input
    if inputs.shape != (n_inputs,):
        raise MultitaskError(f"inputs have shape {tuple(inputs.shape)}: must be one constant input, ({n_inputs},)")


def _q(network: LeakyRNN, inputs: Tensor, hidden: Tensor) -> Tensor:
    """q of states of one network, (n_starts, n_units) -> (n_starts,)."""
    return 0.5 * (network.step(hidden[None], inputs)[0] - hidden).square().sum(-1)


def _descend(network: LeakyRNN, inputs: Tensor, hidden: Tensor, max_steps: int) -> tuple[Tensor, Tensor]:
    """Minima of q from the starts of one network, and which have converged: q = 0, or no step lowers q."""
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
    """Indices of distinct points, slowest first, and the number of points that each one represents."""
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
