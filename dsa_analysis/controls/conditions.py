"""The same condition means, other dynamics: what only the trials' deviations from their mean can tell.

After Galgali, Sahani and Mante 2023 (Nat Neurosci 26, 326-338), with the parameters of the public tutorial of Dynamical
Similarity Analysis. Two dimensions; in every condition the input is such that the mean of each system follows the path
of one bistable system, x' = b x - a x^3 + c, y' = -k y + c with c the coherence of the condition. The systems differ in
how a deviation d from the mean decays:

    bistable   by the flow above, with a, b and k of its own
    line       d' = A d, eigenvalues near 0 (exactly 0 on level "means") and in -[2, 3]
    point      eigenvalues in -[4, 5] and -[8, 9]
    spiral     eigenvalues -[2, 3] +- [5, 6] i

Three levels say how much else is equal:

    "means"         white noise of the same strength in all dimensions
    "covariances"   noise Q = -(A S + S A^T) that gives deviations the covariance S = s^2 I at all times; for "bistable"
                    A is the flow near its stable points, so its covariance is S only there
    "eigenvalues"   linear systems of the eigenvalues -2 and -6 (within a tenth) and covariance S; what differs is a
                    current w between the two dimensions, A = [[m + h, w], [-w, m - h]] with m the mean of the
                    eigenvalues, q half of their difference, and h^2 = q^2 + w^2

Linear deviations are sampled without error: d(t + dt) = F d(t) + n, F = exp(A dt), n of covariance
int_0^dt exp(A t) Q exp(A^T t) dt (Van Loan 1978), which is S - F S F^T where the covariance is S.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dsa_analysis.controls.base import (
    Control,
    check_not_negative,
    check_positive,
    euler,
    normal,
    uniform,
)
from dsa_analysis.data import DataError, as_device, as_generator, check_choice, check_count

LEVELS = ("means", "covariances", "eigenvalues")
KINDS = ("bistable", "line", "point", "spiral")
ALMOST_LINE = -0.05  # eigenvalue of a line whose covariance is to stay: at 0 there would be no noise along it


@dataclass(frozen=True)
class ConditionParameters:
    """Systems whose condition means are equal.

    Attributes
    ----------
    kinds : of "bistable", "line", "point", "spiral"
        On the levels "means" and "covariances".
    currents : mapping from name to w, per model time
        The kinds on the level "eigenvalues"; at most 3, beyond which no noise gives the covariance.
    n_draws : int >= 1
        Systems of each kind; those of equal number share the path of their means.
    n_trials : int >= 1
        Of each condition.
    n_times : int >= 2
    dt : float > 0, model time
        Spacing of the samples.
    n_substeps : int >= 1
        Steps from one sample to the next where the flow is not linear.
    coherences : tuple of float
        One condition each.
    noise : float > 0
        Of each dimension, per square root of model time, on the level "means".
    spread : float > 0
        s, standard deviation of the deviations on the other levels.
    n_neurons : int >= 0
        Neurons through which the two dimensions are seen, with random orthogonal weights; 0 shows these themselves.
    readout_noise : float >= 0
        Standard deviation of white noise in each channel.
    """

    kinds: tuple[str, ...] = ("bistable", "line", "point")
    currents: Mapping[str, float] = field(
        default_factory=lambda: {"still": 0.0, "slow current": 1.5, "fast current": 3.0}
    )
    n_draws: int = 6
    n_trials: int = 40
    n_times: int = 81
    dt: float = 0.05
    n_substeps: int = 5
    coherences: tuple[float, ...] = (-0.1, 0.1)
    noise: float = 0.05
    spread: float = 0.05
    n_neurons: int = 0
    readout_noise: float = 0.0

    def __post_init__(self) -> None:
        check_positive(dt=self.dt, noise=self.noise, spread=self.spread)
        check_not_negative(readout_noise=self.readout_noise)
        for name, least in (("n_draws", 1), ("n_trials", 1), ("n_times", 2), ("n_substeps", 1), ("n_neurons", 0)):
            check_count(name, getattr(self, name), least)
        if self.n_neurons == 1:
            raise DataError(
                "n_neurons = 1 cannot show two dimensions; give at least 2, or 0 for the dimensions themselves"
            )
        for name in ("kinds", "currents", "coherences"):
            if not len(getattr(self, name)):
                raise DataError(f"{name} is empty; at least one is needed")
        for kind in self.kinds:
            check_choice("a kind", kind, KINDS)
        if len(set(self.kinds)) < len(self.kinds):
            raise DataError(f"kinds has a name twice: {', '.join(self.kinds)}")
        for name, current in self.currents.items():
            if isinstance(current, bool) or not abs(current) <= 3:
                raise DataError(f"currents: {name!r} = {current!r} is not between -3 and 3")


def record_conditions(
    parameters: ConditionParameters | None = None,
    *,
    level: str = "means",
    seed: int | None = None,
    generator: torch.Generator | None = None,
    device: str | torch.device | None = None,
) -> Control:
    """Systems with equal condition means, named "line 0", "line 1", ...

    Parameters
    ----------
    parameters : ConditionParameters
    level : "means", "covariances" or "eigenvalues"
        What is equal, each level in addition to those before it.
    seed, generator
        Exactly one of them.

    Returns
    -------
    Control
        With the condition of each trial: trials of the first coherence come first.
    """
    check_choice("level", level, LEVELS)
    p = parameters if parameters is not None else ConditionParameters()
    generator, device = as_generator(seed, generator), as_device(device) or torch.device("cpu")
    paths = mean_paths(p, generator)  # (draw, condition, time, 2)
    kinds = tuple(p.currents) if level == "eigenvalues" else p.kinds
    recorded = {}
    for kind in kinds:
        if kind == "bistable" and level != "eigenvalues":
            recorded[kind] = _bistable(p, level, paths, generator, device)
        else:
            recorded[kind] = _linear(p, kind, level, paths, generator, device)
    systems = {}
    for kind, draws in recorded.items():
        for k, x in enumerate(draws.flatten(1, 2)):  # (trial of any condition, time, 2)
            systems[f"{kind} {k}"] = _seen(x, p, generator)
    conditions = torch.arange(len(p.coherences), device=device).repeat_interleave(p.n_trials)
    return Control(systems, tuple(kind for kind in kinds for _ in range(p.n_draws)), conditions)


def mean_paths(parameters: ConditionParameters, generator: torch.Generator) -> Tensor:
    """Paths of bistable systems without noise, which all means follow: (n_draws, n_conditions, n_times, 2)."""
    p = parameters
    flow = _Bistable(p, generator)
    start = torch.zeros(p.n_draws, len(p.coherences), 1, 2, dtype=torch.float64)
    inputs = torch.zeros(p.n_times, 1, dtype=torch.float64)
    return euler(lambda x, u: flow(x), start, inputs, p.dt, 0.0, generator, p.n_substeps)[:, :, 0]


def drift(kind: str, level: str, parameters: ConditionParameters, generator: torch.Generator) -> Tensor:
    """A of n_draws linear systems in random orthogonal coordinates: (n_draws, 2, 2)."""
    n = parameters.n_draws
    matrices = torch.zeros(n, 2, 2, dtype=torch.float64)
    if level == "eigenvalues":
        low, high = (value * uniform((0.9, 1.1), (n,), generator) for value in (-2.0, -6.0))
        current = parameters.currents[kind]
        middle, half = (low + high) / 2, torch.hypot((low - high) / 2, torch.tensor(current, dtype=torch.float64))
        matrices[:, 0, 0], matrices[:, 1, 1] = middle + half, middle - half
        matrices[:, 0, 1], matrices[:, 1, 0] = current, -current
    elif kind == "spiral":
        decay, turn = uniform((2, 3), (n,), generator), uniform((5, 6), (n,), generator)
        matrices[:, 0, 0] = matrices[:, 1, 1] = -decay
        matrices[:, 0, 1], matrices[:, 1, 0] = turn, -turn
    elif kind == "line":
        matrices[:, 0, 0] = 0.0 if level == "means" else ALMOST_LINE
        matrices[:, 1, 1] = -uniform((2, 3), (n,), generator)
    else:
        matrices[:, 0, 0] = -uniform((4, 5), (n,), generator)
        matrices[:, 1, 1] = -uniform((8, 9), (n,), generator)
    angle = torch.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    rows = [torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)]
    rotations = torch.stack(rows, -2)
    return rotations @ matrices @ rotations.mT


def sampled(matrices: Tensor, noise: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """F = exp(A dt) and the covariance of the noise of one sample under white noise of covariance Q, (n, 2, 2) each."""
    n = matrices.shape[-1]
    block = torch.zeros(*matrices.shape[:-2], 2 * n, 2 * n, dtype=matrices.dtype)
    block[..., :n, :n], block[..., :n, n:], block[..., n:, n:] = -matrices, noise, matrices.mT
    exponential = torch.matrix_exp(block * dt)
    step = exponential[..., n:, n:].mT
    covariance = step @ exponential[..., :n, n:]
    return step, (covariance + covariance.mT) / 2


def _linear(
    p: ConditionParameters, kind: str, level: str, paths: Tensor, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Linear deviations from the paths: (n_draws, n_conditions, n_trials, n_times, 2)."""
    A = drift(kind, level, p, generator)
    identity = torch.eye(2, dtype=torch.float64)
    Q = p.noise**2 * identity.expand_as(A) if level == "means" else -(p.spread**2) * (A + A.mT)
    step, covariance = sampled(A, Q, p.dt)
    factor = _square_root(covariance)
    x = torch.zeros(p.n_draws, len(p.coherences), p.n_trials, 2, dtype=torch.float64)
    if level != "means":
        x = p.spread * normal(x.shape, generator)
    step, factor, x = step[:, None].to(device), factor[:, None].to(device), x.to(device)
    deviations = [x]
    for _ in range(p.n_times - 1):
        x = x @ step.mT + normal(x.shape, generator).to(device) @ factor.mT
        deviations.append(x)
    return paths.to(device)[:, :, None] + torch.stack(deviations, -2)


def _bistable(
    p: ConditionParameters, level: str, paths: Tensor, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Bistable systems around the paths, as `_linear`; the input of a condition corrects the mean over its trials."""
    flow = _Bistable(p, generator, device)
    shape = (p.n_draws, len(p.coherences), p.n_trials, 2)
    deviation = torch.zeros(shape, dtype=torch.float64)
    scale: Tensor | float = p.noise
    if level != "means":
        deviation, scale = p.spread * normal(shape, generator), p.spread * (2 * flow.contraction).sqrt()
    paths = paths.to(device)[:, :, None]  # (draw, condition, 1, time, 2)
    x, step = paths[..., 0, :] + deviation.to(device), p.dt / p.n_substeps
    samples = [x]
    for t in range(1, p.n_times):
        for k in range(1, p.n_substeps + 1):
            goal = torch.lerp(paths[..., t - 1, :], paths[..., t, :], k / p.n_substeps)
            moved = x + step * flow(x)
            moved = moved + goal - moved.mean(-2, keepdim=True)
            x = moved + scale * step**0.5 * normal(shape, generator).to(device)
        samples.append(x)
    return torch.stack(samples, -2)


class _Bistable:
    """x' = b x - a x^3 + c, y' = -k y + c with a, b and k drawn for each of n_draws systems; states (draw, condition,
    trial, 2)."""

    def __init__(self, p: ConditionParameters, generator: torch.Generator, device: torch.device | None = None) -> None:
        a, b, k = (uniform(limits, (p.n_draws, 1, 1), generator) for limits in ((4, 5), (4, 5), (3, 4)))
        self.a, self.b, self.k = (value.to(device) for value in (a, b, k))
        self.c = torch.tensor(p.coherences, dtype=torch.float64, device=device)[:, None]  # (condition, 1)

    @property
    def contraction(self) -> Tensor:
        """Rates at which deviations decay at the stable points x = +-sqrt(b / a), (draw, 1, 1, 2)."""
        return torch.stack([2 * self.b, self.k], -1)

    def __call__(self, x: Tensor) -> Tensor:
        first, second = x.unbind(-1)
        return torch.stack([self.b * first - self.a * first**3 + self.c, -self.k * second + self.c], -1)


def _seen(x: Tensor, p: ConditionParameters, generator: torch.Generator) -> Tensor:
    """Channels of a system (n_trials, n_times, 2): itself, or neurons with random orthogonal weights, and noise."""
    if p.n_neurons:
        weights = torch.linalg.qr(normal((p.n_neurons, 2), generator))[0].mT * (p.n_neurons / 2) ** 0.5
        x = x @ weights.to(x)
    return x + p.readout_noise * normal(x.shape, generator).to(x) if p.readout_noise else x


def _square_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()[..., None, :]  # rounding may leave -1e-20
