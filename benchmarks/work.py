"""The inputs that ours and the peer both work on: recordings of random networks and attractors, and their operators."""

import warnings
from itertools import combinations

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from dsa_analysis import fit_operator, lorenz

# ranks here are amounts of work, not choices
warnings.filterwarnings("ignore", message=".*cluster of singular values")

KINDS = ("rnn", "lorenz", "near-orthogonal", "noisy", "gaussian")


def network_activity(shape: tuple[int, int, int], seed: int, gain: float = 2.0) -> np.ndarray:
    """tanh(x) (n_trials, n_times, n_units) of a random RNN: x += 0.2 (-x + W tanh x + noise), W ~ N(0, gain^2 / n)."""
    n_trials, n_times, n_units = shape
    generator = np.random.default_rng(seed)
    weights = gain * generator.standard_normal((n_units, n_units)) / np.sqrt(n_units)
    x = generator.standard_normal((n_trials, n_units))
    activity = np.empty(shape)
    for t in range(n_times):
        x = x + 0.2 * (-x + np.tanh(x) @ weights.T + 0.1 * generator.standard_normal(x.shape))
        activity[:, t] = np.tanh(x)
    return activity


def lorenz_recordings(n_systems: int) -> np.ndarray:
    """(n_systems, 20, 300, 3) at rho from 28 to 40, every 0.05, with observation noise at 1 % of the range."""
    rho = torch.linspace(28, 40, n_systems, dtype=torch.float64)
    x = lorenz(20, 1500, rho=rho, dt=0.01, discard=500, seed=0)[..., ::5, :].numpy()
    return x + 0.01 * np.ptp(x) * np.random.default_rng(0).standard_normal(x.shape)


def operators(kind: str, n: int, n_systems: int) -> Tensor:
    """Operators (n_systems, n, n), float64: of recordings ("rnn", "lorenz", "noisy"), or random matrices."""
    generator = np.random.default_rng(n)
    if kind in ("rnn", "lorenz"):
        networks = (network_activity((20, 200, 24), seed) for seed in range(n_systems))
        recordings, n_delays = (networks, 10) if kind == "rnn" else (lorenz_recordings(n_systems), 20)
        return torch.stack([fit_operator(recording, n_delays=n_delays, rank=n).matrix for recording in recordings])
    if kind == "noisy":
        return torch.stack([noisy_operator(n, seed) for seed in range(n_systems)])
    noise = generator.standard_normal((n_systems, n, n)) / np.sqrt(n)
    if kind == "near-orthogonal":  # slow rotations, slightly damped and slightly non-normal
        return torch.tensor(scipy.linalg.expm(0.3 * (noise - noise.mT) + 0.1 * noise - 0.1 * np.eye(n)))
    return torch.tensor(noise)


def noisy_operator(n: int, seed: int) -> Tensor:
    """Signal-weighted operator of a network recorded at 5, 10 or 15 dB."""
    x, generator = network_activity((20, 200, 24), 1000 + seed), np.random.default_rng(seed)
    x = x + generator.standard_normal(x.shape) * x.std() * 10 ** (-(5, 10, 15)[seed % 3] / 20)
    return fit_operator(x, n_delays=10, rank=n, estimator="signal_weighted").matrix


def pairs_of(systems: Tensor) -> tuple[Tensor, Tensor]:
    """First and second members (p, n, n) of all unordered pairs."""
    first, second = zip(*combinations(range(len(systems)), 2), strict=True)
    return systems[list(first)], systems[list(second)]
