"""Simulated dynamical systems with known behaviour, for many starts and parameter values at once.

    Lorenz         x' = sigma (y - x),  y' = x (rho - z) - y,  z' = x y - beta z           Lorenz 1963
    Van der Pol    x' = y,  y' = mu (1 - x^2) y - x                                        van der Pol 1926
    Roessler       x' = -y - z,  y' = x + a y,  z' = b + z (x - c)                         Roessler 1976
    ring           r' = r (1 - r^2),  angle' = omega, written in x and y                   normal form of a limit cycle
    linear         x' = L x, L real with given eigenvalues

All are integrated by `simulate`. Time is model time. If parameters are tensors of p values, the result has a leading
axis of p systems.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsa_analysis.data import DataError, as_device, as_generator, check_choice, check_count


@dataclass(frozen=True)
class System:
    """A vector field and its defaults.

    Attributes
    ----------
    vector_field : (state, **parameters) -> derivative
        State and derivative are (..., n_dims).
    n_dims : int
    parameters : mapping from name to default
    dt : float, in model time
        A step that resolves the system at its default parameters.
    low, high : float
        Starts are uniform in [low, high)^n_dims.
    """

    vector_field: Callable[..., Tensor]
    n_dims: int
    parameters: Mapping[str, float]
    dt: float
    low: float = 0.0
    high: float = 1.0


def _lorenz(state: Tensor, sigma: Tensor, rho: Tensor, beta: Tensor) -> Tensor:
    x, y, z = state.unbind(-1)
    return torch.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z], -1)


def _van_der_pol(state: Tensor, mu: Tensor) -> Tensor:
    x, y = state.unbind(-1)
    return torch.stack([y, mu * (1 - x**2) * y - x], -1)


def _roessler(state: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    x, y, z = state.unbind(-1)
    return torch.stack([-y - z, x + a * y, b + z * (x - c)], -1)


def _ring(state: Tensor, omega: Tensor) -> Tensor:
    x, y = state.unbind(-1)
    pull = 1 - x**2 - y**2
    return torch.stack([pull * x - omega * y, pull * y + omega * x], -1)


SYSTEMS: Mapping[str, System] = {
    "lorenz": System(_lorenz, 3, {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3}, dt=0.01),
    "van_der_pol": System(_van_der_pol, 2, {"mu": 1.0}, dt=0.05, low=-2, high=2),
    "roessler": System(_roessler, 3, {"a": 0.2, "b": 0.2, "c": 5.7}, dt=0.05),
    "ring": System(_ring, 2, {"omega": 1.0}, dt=0.05, low=-1, high=1),
}


@dataclass(frozen=True)
class LorenzRegime:
    """Parameters for which the Lorenz system behaves in the same way, such as chaos or a limit cycle.

    Attributes
    ----------
    dt : float > 0, in model time
        Sampling interval, and step of the integration, so it must resolve the dynamics.
    parameters : triples (sigma, rho, beta)
        Recordings use them in turn.
    """

    dt: float
    parameters: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        if not self.dt > 0:
            raise DataError(f"dt = {self.dt!r} is not a positive time")
        if not self.parameters:
            raise DataError("parameters is empty; at least one triple (sigma, rho, beta) is needed")


def simulate(
    vector_field: Callable[[Tensor], Tensor],
    starts: Tensor,
    dt: float,
    n_times: int,
    discard: int = 0,
    *,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Simulate x' = f(x) by the classical Runge-Kutta method of fourth order.

    Parameters
    ----------
    vector_field : function (..., n_dims) -> (..., n_dims)
        f, from states to derivatives.
    starts : Tensor, (..., n_dims)
        One trajectory starts from each.
    dt : float > 0, in model time
        Step, and sampling interval of the result.
    n_times : int >= 1
        Number of samples in the result.
    discard : int >= 0
        Steps before the first sample of the result. With 0 the first sample is the start.
    noise : float >= 0
        Strength of white noise that drives every dimension, x' = f(x) + noise * xi(t). After each step, a normal random
        number times noise * sqrt(dt) is added (Euler-Maruyama around the Runge-Kutta drift).
    generator : torch.Generator on the CPU, optional
        Source of the noise; required if ``noise`` is above 0.

    Returns
    -------
    Tensor, (..., n_times, n_dims)
        On the device and in the precision of ``starts``.

    Raises
    ------
    DataError
        A trajectory that diverges, a step that is not positive, or noise without a generator.
    """
    check_count("n_times", n_times)
    check_count("discard", discard, 0)
    if not dt > 0:
        raise DataError(f"dt = {dt!r} is not a positive time")
    if noise < 0 or (noise and generator is None):
        raise DataError(f"noise = {noise!r} must be at least 0 and needs a generator")
    x, samples = starts, []
    for step in range(discard + n_times):
        if step >= discard:
            samples.append(x)
        if step == discard + n_times - 1:
            break
        k1 = vector_field(x)
        k2 = vector_field(x + dt / 2 * k1)
        k3 = vector_field(x + dt / 2 * k2)
        k4 = vector_field(x + dt * k3)
        x = x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        if noise:
            x = x + noise * dt**0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    trajectories = torch.stack(samples, -2)
    if not bool(torch.isfinite(trajectories[..., -1, :]).all()):
        raise DataError(
            f"a trajectory diverged: dt = {dt} is too coarse for this system, or its parameters make it diverge"
        )
    return trajectories


def trajectories(
    system: str,
    n_trials: int,
    n_times: int,
    *,
    dt: float | None = None,
    discard: int = 0,
    noise: float = 0.0,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    device: str | torch.device | None = None,
    **parameters: Any,
) -> Tensor:
    """Simulate one of `SYSTEMS` from random starts.

    Parameters
    ----------
    system : "lorenz", "van_der_pol", "roessler" or "ring"
    n_trials : int >= 1
        Number of trajectories.
    n_times : int >= 1
        Samples of each.
    dt : float > 0, in model time, optional
        Step, and sampling interval. The default resolves the system at its default parameters.
    discard, noise
        As in `simulate`.
    seed, generator : int >= 0, or torch.Generator on the CPU
        Source of the starts and the noise. Give exactly one of the two.
    device : str or torch.device, optional
        Device of the result, by default the CPU.
    **parameters : float, or (p,) tensor
        Parameters of the system by name; the others keep their defaults. Tensors of p values give p systems.

    Returns
    -------
    Tensor, (n_trials, n_times, n_dims) float64, or (p, n_trials, n_times, n_dims)

    Raises
    ------
    DataError
        An unknown system or parameter, a trajectory that diverges, or not exactly one of seed and generator.
    """
    check_choice("system", system, SYSTEMS)
    check_count("n_trials", n_trials)
    chosen, generator = SYSTEMS[system], as_generator(seed, generator)
    for name in parameters:
        check_choice(f"parameter of {system}", name, chosen.parameters)
    device = as_device(device) or torch.device("cpu")
    values = {
        name: torch.as_tensor(value, dtype=torch.float64, device=device)
        for name, value in {**chosen.parameters, **parameters}.items()
    }
    leading = torch.broadcast_shapes(*(value.shape for value in values.values()))
    values = {name: value[..., None] for name, value in values.items()}  # (p, 1), beside trials
    starts = torch.rand(*leading, n_trials, chosen.n_dims, generator=generator, dtype=torch.float64).to(device)
    return simulate(
        lambda state: chosen.vector_field(state, **values),
        chosen.low + (chosen.high - chosen.low) * starts,
        chosen.dt if dt is None else dt,
        n_times,
        discard,
        noise=noise,
        generator=generator,
    )


def lorenz(
    n_trials: int,
    n_times: int,
    *,
    sigma: float | Tensor = 10.0,
    rho: float | Tensor = 28.0,
    beta: float | Tensor = 8 / 3,
    **settings: Any,
) -> Tensor:
    """Simulate the Lorenz system (Lorenz 1963) from starts uniform in [0, 1)^3.

    With sigma = 10 and beta = 8/3 it has one fixed point for rho < 1, two stable ones for 1.35 < rho < 24, chaos around
    28, and a limit cycle in windows such as 148 < rho < 166 (Sparrow 1982), which needs dt = 0.005.

    Parameters
    ----------
    n_trials, n_times : int >= 1
        Number of trajectories, and samples of each.
    sigma, rho, beta : float, or (p,) tensor
        Tensors of p values give p systems.
    **settings
        ``dt`` (default 0.01), ``discard``, ``noise``, ``seed`` or ``generator``, and ``device``, as in `trajectories`.

    Returns
    -------
    Tensor, (n_trials, n_times, 3) float64, or (p, n_trials, n_times, 3)

    Raises
    ------
    DataError
        As `trajectories`.

    Examples
    --------
    >>> lorenz(5, 200, rho=40.0, seed=0).shape
    torch.Size([5, 200, 3])
    """
    return trajectories("lorenz", n_trials, n_times, sigma=sigma, rho=rho, beta=beta, **settings)


def linear(
    eigenvalues: Sequence[complex],
    n_trials: int,
    n_times: int,
    *,
    dt: float = 0.05,
    discard: int = 0,
    noise: float = 0.0,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    device: str | torch.device | None = None,
) -> Tensor:
    """Simulate x' = L x from normally distributed starts, with L normal and in random coordinates.

    Parameters
    ----------
    eigenvalues : sequence of complex, per unit of model time
        Eigenvalues of L. One with an imaginary part stands for a conjugate pair and takes two dimensions.
    n_trials, n_times, dt, discard, noise, seed, generator, device
        As in `trajectories`.

    Returns
    -------
    Tensor, (n_trials, n_times, n_dims) float64
    """
    if not len(eigenvalues):
        raise DataError("eigenvalues is empty; at least one is needed")
    check_count("n_trials", n_trials)
    generator, device = as_generator(seed, generator), as_device(device) or torch.device("cpu")
    blocks = [
        torch.tensor([[z.real, -z.imag], [z.imag, z.real]] if z.imag else [[z.real]], dtype=torch.float64)
        for z in map(complex, eigenvalues)
    ]
    L = torch.block_diag(*blocks)
    Q = torch.linalg.qr(torch.randn(L.shape, generator=generator, dtype=torch.float64))[0]
    L, starts = Q @ L @ Q.T, torch.randn(n_trials, len(L), generator=generator, dtype=torch.float64)
    L, starts = L.to(device), starts.to(device)
    return simulate(lambda x: x @ L.T, starts, dt, n_times, discard, noise=noise, generator=generator)


def record_regimes(
    regimes: Mapping[str, LorenzRegime],
    *,
    n_recordings: int,
    n_trials: int,
    n_times: int,
    discard: int = 0,
    seed: int,
    device: str | torch.device | None = None,
) -> dict[str, Tensor]:
    """Simulate several recordings of each of several Lorenz regimes.

    Recordings of a regime use its parameter triples in turn. Each trial has its own random start.

    Parameters
    ----------
    regimes : mapping from name to LorenzRegime
    n_recordings : int >= 1
        Number of recordings of each regime.
    n_trials, n_times : int >= 1
        Trials of each recording, and samples of each trial.
    discard : int >= 0
        Steps before the first sample.
    seed : int >= 0
        Seed of the starts.
    device : str or torch.device, optional
        Device of the result, by default the CPU.

    Returns
    -------
    dict from "name #number" to Tensor, (n_trials, n_times, 3) float64
        Such as "chaos #1", "chaos #2".

    Raises
    ------
    DataError
        Counts below 1, or a trajectory that diverges.
    """
    check_count("n_recordings", n_recordings)
    generator = torch.Generator().manual_seed(seed)
    systems: dict[str, Tensor] = {}
    for name, regime in regimes.items():
        triples = [regime.parameters[k % len(regime.parameters)] for k in range(n_recordings)]
        sigma, rho, beta = torch.tensor(triples, dtype=torch.float64).T
        recordings = lorenz(
            n_trials,
            n_times,
            sigma=sigma,
            rho=rho,
            beta=beta,
            dt=regime.dt,
            discard=discard,
            generator=generator,
            device=device,
        )
        systems |= {f"{name} #{k + 1}": recording for k, recording in enumerate(recordings)}
    return systems


def transformed_copies(system: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Copies of a recording that are the same dynamical system in other coordinates.

    Parameters
    ----------
    system : Tensor, (..., n_times, n_channels)
    generator : torch.Generator on the CPU
        Source of the random rotation, permutation and shift.

    Returns
    -------
    dict from name to Tensor, same shape
        "rotated" by a random orthogonal matrix, "scaled" by 10, "permuted" channels, and "shifted" by a constant in
        each channel.
    """
    n = system.shape[-1]
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0].to(system)
    offset = system.std() * torch.randn(n, generator=generator, dtype=torch.float64).to(system)
    return {
        "rotated": system @ Q.T,
        "scaled": 10 * system,
        "permuted": system[..., torch.randperm(n, generator=generator).to(system.device)],
        "shifted": system + offset,
    }
