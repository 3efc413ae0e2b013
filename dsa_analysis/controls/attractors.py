"""Attractors of different topology, through random smooth deformations and random neurons.

Two dimensions in which one of four flows runs, and up to two more that contract (z' = -z / tau_more):

    ring         r = 1 - x^2 - y^2:   x' = r x / tau,   y' = r y / tau
    cycle        the same with a turn: x' - omega y,     y' + omega x
    line         x' = -3 sign(x) max(|x| - 1.2, 0) / tau,   y' = -y / leak
    two points   x' = (x - x^3) / tau,   y' = -y / leak

All receive pulses of random directions and white noise. Time constants, turn and noise vary between the systems of a
kind. Each system is seen through y = f(gain (phi(z) W + b)): phi is a random smooth deformation, twice
z + strength sin(z A + b) C after a random rotation, and W are random weights. Deformation and neurons change the
geometry and leave the topology of the attractor.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dsa_analysis.controls.base import (
    ACTIVATIONS,
    Control,
    Range,
    check_not_negative,
    check_positive,
    check_ranges,
    euler,
    normal,
    random_neurons,
    uniform,
)
from dsa_analysis.data import DataError, as_device, as_generator, check_choice, check_count

KINDS = ("ring", "line", "two points", "cycle")


@dataclass(frozen=True)
class AttractorParameters:
    """Attractors of several kinds, deformed and seen through neurons.

    Attributes
    ----------
    kinds : of "ring", "line", "two points", "cycle"
    n_draws : int >= 1
        Systems of each kind; they take 0, 1 and 2 contracting dimensions in turn.
    n_trials, n_times : int >= 1
    dt : float > 0, model time
        Spacing of the samples.
    n_substeps : int >= 1
        Steps from one sample to the next.
    noise : float >= 0
        Of each dimension, per square root of model time, before it is varied between systems.
    tau, leak, tau_more : float > 0, model time
    omega : float > 0, radians per model time
    variation : float in [0, 1)
        Each constant above is multiplied by a factor of its own in [1 - variation, 1 + variation).
    pulse_rate : float >= 0, per model time
    pulse_width : int >= 1, samples
    pulse_strength : float
    deformation : float >= 0
        Strength of the smooth deformation.
    activations : of "tanh", "softplus", "relu", "sinh"
        Each system draws one.
    gain, n_neurons : (low, high)
        Each system draws its own, the gain evenly on a logarithmic scale.
    readout_noise : float >= 0
        White noise of the neurons, in units of the standard deviation of the population.
    """

    kinds: tuple[str, ...] = KINDS
    n_draws: int = 6
    n_trials: int = 40
    n_times: int = 200
    dt: float = 0.05
    n_substeps: int = 4
    noise: float = 0.35
    tau: float = 0.3
    leak: float = 0.3
    tau_more: float = 0.4
    omega: float = 2.0
    variation: float = 0.2
    pulse_rate: float = 0.25
    pulse_width: int = 4
    pulse_strength: float = 8.0
    deformation: float = 0.4
    activations: tuple[str, ...] = ("tanh", "softplus", "relu")
    gain: Range = (0.5, 3.0)
    n_neurons: tuple[int, int] = (20, 60)
    readout_noise: float = 0.1

    def __post_init__(self) -> None:
        check_positive(dt=self.dt, tau=self.tau, leak=self.leak, tau_more=self.tau_more, omega=self.omega)
        check_not_negative(
            noise=self.noise,
            pulse_rate=self.pulse_rate,
            deformation=self.deformation,
            readout_noise=self.readout_noise,
        )
        for name in ("n_draws", "n_trials", "n_times", "n_substeps", "pulse_width"):
            check_count(name, getattr(self, name))
        check_ranges(gain=self.gain, n_neurons=self.n_neurons)
        if isinstance(self.variation, bool) or not 0 <= self.variation < 1:
            raise DataError(f"variation = {self.variation!r} is not in [0, 1)")
        for name, choices in (("kinds", KINDS), ("activations", tuple(ACTIVATIONS))):
            values = getattr(self, name)
            if not len(values) or len(set(values)) < len(values):
                raise DataError(f"{name} = {list(values)!r} needs at least one name, each of them once")
            for value in values:
                check_choice(f"one of {name}", value, choices)


def record_attractors(
    parameters: AttractorParameters | None = None,
    *,
    matched: bool = True,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    device: str | torch.device | None = None,
) -> Control:
    """Attractors of all kinds, named "ring 0", "ring 1", ...

    Parameters
    ----------
    parameters : AttractorParameters
    matched : bool
        All systems share starts, pulses and noise trial by trial, or each has its own. Measures that match samples see
        what the inputs have in common in the first case, and nothing in the second.
    seed, generator
        Exactly one of them.

    Returns
    -------
    Control
        Groups are the kinds.
    """
    p = parameters if parameters is not None else AttractorParameters()
    generator, device = as_generator(seed, generator), as_device(device) or torch.device("cpu")
    states = attractor_states(p, matched, generator, device)
    systems = {}
    for k, state in enumerate(states):
        kind, draw = p.kinds[k // p.n_draws], k % p.n_draws
        deformed = deform(state[..., : 2 + draw % 3], p.deformation, generator)
        activation = p.activations[int(torch.randint(len(p.activations), (), generator=generator))]
        low, high = torch.tensor(p.gain, dtype=torch.float64).log().tolist()
        gain = float(uniform((low, high), (), generator).exp())
        n_neurons = int(torch.randint(p.n_neurons[0], p.n_neurons[1] + 1, (), generator=generator))
        systems[f"{kind} {draw}"] = random_neurons(deformed, activation, n_neurons, gain, p.readout_noise, generator)
    return Control(systems, tuple(kind for kind in p.kinds for _ in range(p.n_draws)))


def attractor_states(
    parameters: AttractorParameters, matched: bool, generator: torch.Generator, device: torch.device
) -> Tensor:
    """States of all systems before deformation, kind by kind: (n_systems, n_trials, n_times, 4)."""
    p = parameters
    n_systems = len(p.kinds) * p.n_draws
    n_driven = 1 if matched else n_systems
    start = normal((n_driven, p.n_trials, 4), generator).to(device)
    pulses = _pulses(p, n_driven, generator).to(device)
    increments = normal((n_driven, p.n_trials, p.n_times, p.n_substeps, 4), generator).to(device)
    varied = uniform((1 - p.variation, 1 + p.variation), (5, n_systems, 1), generator).to(device)
    tau, leak, tau_more, omega, noise = (
        value * factor for value, factor in zip((p.tau, p.leak, p.tau_more, p.omega, p.noise), varied, strict=True)
    )
    is_kind = {
        kind: torch.tensor([own == kind for own in p.kinds], device=device).repeat_interleave(p.n_draws)[:, None]
        for kind in KINDS
    }
    circular = is_kind["ring"] | is_kind["cycle"]
    turn = torch.where(is_kind["cycle"], omega, 0.0)

    def vector_field(z: Tensor, u: Tensor) -> Tensor:
        x, y, rest = z[..., 0], z[..., 1], z[..., 2:]
        pull = (1 - x**2 - y**2) / tau
        along = torch.where(is_kind["line"], -3 * x.sign() * (x.abs() - 1.2).clamp_min(0) / tau, (x - x**3) / tau)
        first = torch.where(circular, pull * x - turn * y, along)
        second = torch.where(circular, pull * y + turn * x, -y / leak)
        drift = torch.stack([first + p.pulse_strength * u[..., 0], second + p.pulse_strength * u[..., 1]], -1)
        return torch.cat([drift, -rest / tau_more[..., None]], -1)

    start = start.expand(n_systems, -1, -1).clone()
    line = is_kind["line"].flatten()
    start[line, :, 0] = start[line, :, 0].tanh()
    return euler(vector_field, start, pulses, p.dt, noise[..., None], generator, p.n_substeps, increments)


def deform(states: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A random smooth deformation of states (..., n_dims): a rotation, then twice z + strength sin(z A + b) C."""
    n = states.shape[-1]
    z = states @ torch.linalg.qr(normal((n, n), generator))[0].to(states)
    for _ in range(2):
        A, C = normal((n, 6), generator).to(states), normal((6, n), generator).to(states) / 6**0.5
        phase = uniform((0, 2 * torch.pi), (6,), generator).to(states)
        z = z + strength * (z @ A + phase).sin() @ C
    return z


def _pulses(p: AttractorParameters, n_systems: int, generator: torch.Generator) -> Tensor:
    """Pulses of unit length and random direction, the later one where two overlap: (n_systems, trial, time, 2)."""
    shape = (n_systems, p.n_trials, p.n_times)
    onset = torch.rand(shape, generator=generator, dtype=torch.float64) < p.pulse_rate * p.dt
    angle = uniform((0, 2 * torch.pi), shape, generator)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    pulses = torch.zeros_like(direction)
    for k in reversed(range(p.pulse_width)):  # the latest onset is written last
        shifted = torch.zeros_like(onset)
        shifted[..., k:] = onset[..., : p.n_times - k]
        moved = direction.roll(k, -2)
        pulses = torch.where(shifted[..., None], moved, pulses)
    return pulses
