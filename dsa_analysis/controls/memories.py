"""The same dynamics in many geometries: memories of three values, seen through random nonlinear readouts.

Each of three values is kept in one of three ways; all receive pulses u = +1 or -1,

    bistable   x' = (x - x^3) / tau + 6 u       keeps the sign of the last pulse
    leaky      x' = -x / leak + 6 u g           forgets it within the time constant "leak"
    line       x' = 2.5 u g                     adds pulses up and keeps the sum

with g = 1 while |x + u / 5| < 1.2 and 0 beyond, so that values stay bounded. Neurons see the values through
y = f(gain (x W + b)), with f, gain and the number of neurons different in each readout. A measure of geometry sees the
readout and the memory together; a measure of dynamics should see the memory alone (compare the n-bit memories of
Maheswaranathan et al. 2019, arXiv 1907.08549).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    random_neurons,
    uniform,
)
from dsa_analysis.data import DataError, as_device, as_generator, check_choice, check_count

VALUES = ("bistable", "leaky", "line")


@dataclass(frozen=True)
class Readout:
    """Neurons that see a memory: y = f(gain (x W + b)), W and b random."""

    activation: str
    n_neurons: int
    gain: float

    def __post_init__(self) -> None:
        check_choice("activation", self.activation, ACTIVATIONS)
        check_count("n_neurons", self.n_neurons)
        check_positive(gain=self.gain)


@dataclass(frozen=True)
class MemoryParameters:
    """Memories of several values, and the readouts through which each is seen.

    Attributes
    ----------
    memories : mapping from name to kinds of its values
        Each kind is "bistable", "leaky" or "line"; all memories have the same number of values.
    readouts : mapping from name to Readout
        One system for each memory and readout.
    n_trials, n_times : int >= 1
    dt : float > 0, model time
        Spacing of the samples.
    process_noise : float >= 0
        Of the values, per square root of model time.
    readout_noise : float >= 0
        White noise of the neurons, in units of the standard deviation of the population.
    tau, leak : (low, high), model time
        Ranges of the time constants; each system draws its own.
    pulse_width, pulse_interval : int >= 1, samples
        Length of a pulse; mean time from the end of one to the next, beside 8 samples that always pass.
    """

    memories: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "three bits": ("bistable",) * 3,
            "two bits": ("bistable", "bistable", "leaky"),
            "leaky": ("leaky",) * 3,
            "lines": ("line",) * 3,
        }
    )
    readouts: Mapping[str, Readout] = field(
        default_factory=lambda: {
            "weak tanh": Readout("tanh", 20, 0.3),
            "tanh": Readout("tanh", 50, 1.0),
            "strong tanh": Readout("tanh", 100, 3.0),
            "binary tanh": Readout("tanh", 30, 6.0),
            "softplus": Readout("softplus", 50, 1.0),
            "strong softplus": Readout("softplus", 30, 3.0),
            "sinh": Readout("sinh", 40, 1.5),
            "relu": Readout("relu", 60, 1.0),
        }
    )
    n_trials: int = 30
    n_times: int = 250
    dt: float = 0.1
    process_noise: float = 0.1
    readout_noise: float = 0.05
    tau: Range = (0.35, 0.45)
    leak: Range = (1.8, 2.2)
    pulse_width: int = 4
    pulse_interval: int = 50

    def __post_init__(self) -> None:
        check_positive(dt=self.dt)
        check_not_negative(process_noise=self.process_noise, readout_noise=self.readout_noise)
        check_ranges(tau=self.tau, leak=self.leak)
        for name in ("n_trials", "n_times", "pulse_width", "pulse_interval"):
            check_count(name, getattr(self, name))
        if not self.memories or not self.readouts:
            raise DataError("memories or readouts is empty; at least one of each is needed")
        for name, kinds in self.memories.items():
            for kind in kinds:
                check_choice(f"a value of memory {name!r}", kind, VALUES)
        counts = {name: len(kinds) for name, kinds in self.memories.items()}
        if len(set(counts.values())) > 1 or not all(counts.values()):
            listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
            raise DataError(f"memories have different numbers of values: {listed}; give the same to all, at least 1")


def record_memories(
    parameters: MemoryParameters | None = None,
    *,
    matched: bool = True,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    device: str | torch.device | None = None,
) -> Control:
    """Every memory seen through every readout; systems are named "three bits / weak tanh", ...

    Parameters
    ----------
    parameters : MemoryParameters
    matched : bool
        All systems receive the same pulses in the same trials, or each its own. Starts and process noise are always
        their own.
    seed, generator
        Exactly one of them.

    Returns
    -------
    Control
        Groups are the names of the memories.
    """
    p = parameters if parameters is not None else MemoryParameters()
    generator, device = as_generator(seed, generator), as_device(device) or torch.device("cpu")
    n_values = len(next(iter(p.memories.values())))
    n_systems = len(p.memories) * len(p.readouts)
    inputs = draw_pulses(p, n_values, 1 if matched else n_systems, generator).to(device)
    groups = tuple(name for name in p.memories for _ in p.readouts)
    states = memory_states(p, groups, inputs, generator)
    systems = {}
    for k, (group, state) in enumerate(zip(groups, states, strict=True)):
        name = list(p.readouts)[k % len(p.readouts)]
        r = p.readouts[name]
        activity = random_neurons(state, r.activation, r.n_neurons, r.gain, p.readout_noise, generator)
        systems[f"{group} / {name}"] = activity
    return Control(systems, groups)


def draw_pulses(parameters: MemoryParameters, n_values: int, n_systems: int, generator: torch.Generator) -> Tensor:
    """Pulses of +1 or -1 at random times: (n_systems, n_trials, n_times, n_values)."""
    p = parameters
    shape = (n_systems, p.n_trials, n_values)
    n_pulses = p.n_times // (p.pulse_width + 8) + 2
    first = torch.randint(20, (*shape, 1), generator=generator)
    pauses = -p.pulse_interval * torch.rand(*shape, n_pulses, generator=generator, dtype=torch.float64).log()
    onsets = torch.cat([first, first + (p.pulse_width + 8 + pauses.long()).cumsum(-1)], -1)
    signs = 2.0 * torch.randint(2, onsets.shape, generator=generator).double() - 1
    fits = onsets < p.n_times - p.pulse_width
    pulses = torch.zeros(*shape, p.n_times + 1, dtype=torch.float64)  # the last one takes what does not fit
    for k in range(p.pulse_width):
        pulses.scatter_(-1, torch.where(fits, onsets + k, p.n_times), signs)
    return pulses[..., :-1].movedim(-2, -1)


def memory_states(
    parameters: MemoryParameters, groups: tuple[str, ...], inputs: Tensor, generator: torch.Generator
) -> Tensor:
    """Values kept by one memory a group under ``inputs`` (1 or n_groups, n_trials, n_times, n_values): same shape."""
    p, device = parameters, inputs.device
    kinds = [p.memories[group] for group in groups]
    n_systems, n_values = len(kinds), len(kinds[0])
    is_kind = {
        kind: torch.tensor([[value == kind for value in row] for row in kinds], device=device)[:, None]
        for kind in VALUES
    }  # (system, 1, value)
    tau, leak = (uniform(limits, (n_systems, 1, 1), generator).to(device) for limits in (p.tau, p.leak))
    shape = (n_systems, p.n_trials, n_values)
    position = uniform((-1, 1), shape, generator).to(device)
    start = torch.where(is_kind["bistable"], position.sign(), torch.where(is_kind["line"], position, 0.0))

    def vector_field(x: Tensor, u: Tensor) -> Tensor:
        open_gate = (x + u / 5).abs() < 1.2
        return torch.where(
            is_kind["bistable"],
            (x - x**3) / tau + 6 * u,
            torch.where(is_kind["leaky"], -x / leak + 6 * u * open_gate, 2.5 * u * open_gate),
        )

    return euler(vector_field, start, inputs, p.dt, p.process_noise, generator)
