"""The ring attractor network of the method's paper, seen through sigmoid(beta x), and cut open from ring to line.

Two populations L and R of N cells each (Wang and Kang 2022, PLoS Comput Biol 18, e1010547; used in Ostrow et al. 2023).
Cells inhibit those around the distance l on the ring, and the two populations are coupled with opposite shifts xi:

    tau g' = -g + sum_P W_P s_P + 1 +- b gamma + sigma eta,       s = max(g, 0)
    W_P(i, j) = w(i - j -+ xi),     w(x) = (w0 / N) (cos(pi x / l) - 1) / 2 for |x| < 2 l, else 0.

The drive b moves the bump of activity: right where b > 0, left where b < 0. It is constant, as in the published figure,
or changes its sign at random. Under a constant drive the bump goes round a ring, or to the end of a line and stays.

*Cut open*: the N cells of each population are consecutive cells of a ring of N + n cells, of which n are missing. At
n = 0 the network is a ring. The topology changes where the bump no longer jumps the gap and the ring becomes a line;
`crossings` counts jumps from the position of the bump. The published figure goes to n = l. Near n = 2 l the two ends no
longer inhibit each other and the bump stays at one of them: two points.

On the closed ring all places are alike. A function of the activity of single cells, such as sigmoid(beta x), keeps
that, so covariances stay circulant and the principal components stay pairs of waves cos(k theta), sin(k theta):
whitened coordinates, and with them operators, do not change as long as the rank takes the same pairs. That is why
distances between operators should not see beta.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsa_analysis.controls.base import check_not_negative, check_positive, normal
from dsa_analysis.data import DataError, as_device, as_generator, check_count


@dataclass(frozen=True)
class RingParameters:
    """A ring attractor network and how it is recorded.

    Attributes
    ----------
    n_cells : int >= 8
        N, cells of each population.
    inhibition : float > 0, cells
        l, distance of the strongest inhibition; N / 2.28 gives one bump.
    strength : float > 0
        w0.
    shift : int >= 1, cells
        xi.
    gain : float > 0
        gamma, effect of the drive.
    drive : float > 0
        Size of b.
    drive_time : float > 0, ms, or None
        Mean time between changes of its sign; None leaves it constant and positive.
    noise : float >= 0
        sigma.
    tau : float > 0, ms
    step : float > 0, ms
        Step of the integration (Euler), at most tau.
    dt : float > 0, ms
        Spacing of the samples, a multiple of ``step``.
    settle : float >= 0, ms
        Time before the first sample.
    n_trials, n_times : int >= 1
        Of each network; trials start with the bump at random places.
    """

    n_cells: int = 100
    inhibition: float = 44.0
    strength: float = 8.0
    shift: int = 2
    gain: float = 0.1
    drive: float = 2.0
    drive_time: float | None = None
    noise: float = 0.1
    tau: float = 10.0
    step: float = 2.0
    dt: float = 10.0
    settle: float = 300.0
    n_trials: int = 30
    n_times: int = 150

    def __post_init__(self) -> None:
        check_count("n_cells", self.n_cells, 8)
        for name in ("shift", "n_trials", "n_times"):
            check_count(name, getattr(self, name))
        positive = ["inhibition", "strength", "gain", "drive", "tau", "step", "dt"]
        positive += ["drive_time"] if self.drive_time is not None else []
        check_positive(**{name: getattr(self, name) for name in positive})
        check_not_negative(noise=self.noise, settle=self.settle)
        if self.step > self.tau:
            raise DataError(f"step = {self.step} ms is longer than tau = {self.tau} ms; lower it to a tenth of tau")
        for name in ("dt", "settle"):
            steps = getattr(self, name) / self.step
            if abs(steps - round(steps)) > 1e-9:
                raise DataError(f"{name} = {getattr(self, name)} ms is no multiple of step = {self.step} ms")


def record_ring(
    parameters: RingParameters | None = None,
    *,
    missing: Sequence[int] = (0,),
    seed: int | None = None,
    generator: torch.Generator | None = None,
    device: str | torch.device | None = None,
) -> Tensor:
    """Synaptic inputs g of networks cut open to different degrees: (n_networks, n_trials, n_times, 2 n_cells), float64.

    Parameters
    ----------
    parameters : RingParameters
    missing : whole numbers >= 0, cells
        n, one network each: 0 is the closed ring.
    seed, generator
        Exactly one of them. Drive and noise are different in each network and trial.
    """
    p = parameters if parameters is not None else RingParameters()
    generator, device = as_generator(seed, generator), as_device(device) or torch.device("cpu")
    if not len(missing):
        raise DataError("missing is empty; at least one number is needed")
    weights = torch.stack([ring_weights(p, value) for value in missing]).to(device)
    shape = (len(missing), p.n_trials, 2 * p.n_cells)
    places = torch.randint(p.n_cells, shape[:2], generator=generator)
    away = (torch.arange(p.n_cells) - places[..., None]).abs()
    bump = (away < p.n_cells / 8).double()
    g = (torch.cat([bump, bump], -1) + 0.1 * torch.rand(shape, generator=generator, dtype=torch.float64)).to(device)
    sides = torch.tensor([-1.0, 1.0], dtype=torch.float64, device=device).repeat_interleave(p.n_cells)
    n_settle, every = round(p.settle / p.step), round(p.dt / p.step)
    n_steps = n_settle + (p.n_times - 1) * every + 1
    drives = _drives(p, shape[:2], n_steps, n_settle, generator).to(device)
    rate, samples = p.step / p.tau, []
    for t in range(n_steps):
        if t >= n_settle and (t - n_settle) % every == 0:
            samples.append(g)
        total = g.clamp_min(0) @ weights.mT + 1 + p.gain * drives[..., t, None] * sides
        g = g + rate * (total - g + p.noise * normal(shape, generator).to(device))
    return torch.stack(samples, -2)


def ring_weights(parameters: RingParameters, missing: int = 0) -> Tensor:
    """Weights (2 n_cells, 2 n_cells) from each cell (column) to each cell (row), population L before R."""
    p = parameters
    check_count("missing", missing, 0)
    n_ring = p.n_cells + missing
    cells = torch.arange(p.n_cells, dtype=torch.float64)
    apart = cells[:, None] - cells
    halves = []
    for shift in (-p.shift, p.shift):
        total = torch.zeros_like(apart)
        for turn in range(-4, 5):  # inhibition that reaches around the ring adds up
            x = apart - shift + turn * n_ring
            total += torch.where(x.abs() < 2 * p.inhibition, ((torch.pi * x / p.inhibition).cos() - 1) / 2, 0.0)
        halves.append(p.strength / p.n_cells * total)
    row = torch.cat(halves, 1)
    return torch.cat([row, row])


def sigmoid(activity: Tensor, beta: float) -> Tensor:
    """The deformation of the method's paper, 1 / (1 + exp(-beta x)) of each cell."""
    check_positive(beta=beta)
    return torch.sigmoid(beta * activity)


def bump_positions(activity: Tensor, n_cells: int) -> Tensor:
    """Place of the bump in radians, in (-pi, pi], from g (..., 2 n_cells): angle of the first wave of max(g, 0)."""
    rates = activity.clamp_min(0).unflatten(-1, (2, n_cells)).sum(-2)
    angles = 2 * torch.pi * torch.arange(n_cells, dtype=rates.dtype, device=rates.device) / n_cells
    return torch.atan2((rates * angles.sin()).sum(-1), (rates * angles.cos()).sum(-1))


def crossings(activity: Tensor, n_cells: int) -> Tensor:
    """How often the bump passes from one end of the cells to the other: (...,) from (..., n_times, 2 n_cells).

    On the closed ring the ends are neighbours like any other two cells.
    """
    position = bump_positions(activity, n_cells) % (2 * torch.pi)
    jump = position.diff(dim=-1).abs() > torch.pi
    return jump.sum(-1)


def _drives(p: RingParameters, shape: Sequence[int], n_steps: int, n_settle: int, generator: torch.Generator) -> Tensor:
    """b at every step, 0 while the network settles: (..., n_steps)."""
    if p.drive_time is None:
        signs = torch.ones(*shape, n_steps, dtype=torch.float64)
    else:
        flips = torch.rand(*shape, n_steps, generator=generator) < p.step / p.drive_time
        first = torch.randint(2, (*shape, 1), generator=generator)
        signs = 1.0 - 2.0 * ((first + flips.cumsum(-1)) % 2).double()
    signs[..., :n_settle] = 0
    return p.drive * signs
