"""How often the intervals of `dsa_analysis.plan` hold: extrapolated from a pilot to twice and four times its trials.

Recordings of 32 trials are drawn from systems with known answers. From the first 16 trials of each, `plan` predicts
the noise floor of all 32, and of a new recording of 64 trials, which are then computed.

    python -m benchmarks.plan [first seed, default 200] [number of seeds, default 20]
"""

import sys
import warnings
from collections.abc import Callable

import numpy as np
from torch import Tensor

from dsa_analysis import Comparison, lorenz, noise_floor, plan
from dsa_analysis.systems import linear

N_PILOT, N_TIMES = 16, 100


def noisy(n_trials: int, seed: int) -> Tensor:
    """A rotation and a decay, driven by noise."""
    return linear([-0.3 + 2j, -1], n_trials, N_TIMES, noise=1.0, discard=50, seed=seed)


def attractor(n_trials: int, seed: int) -> Tensor:
    """The Lorenz attractor, driven by noise."""
    return lorenz(n_trials, N_TIMES, noise=2.0, discard=200, seed=seed)


CASES: dict[str, tuple[Callable[[int, int], Tensor], Comparison]] = {
    "linear, angular": (noisy, Comparison(n_delays=1, rank=3, steps_ahead=4)),
    "linear, spectral": (noisy, Comparison(n_delays=1, rank=3, steps_ahead=4, metric="spectral")),
    "linear, sgot": (noisy, Comparison(n_delays=1, rank=3, steps_ahead=4, metric="sgot")),
    "Lorenz, angular": (attractor, Comparison(n_delays=5, rank=5, dt=0.01, horizon=0.2)),
}


def main(first: int = 200, n_seeds: int = 20) -> None:
    print(f"seeds {first} to {first + n_seeds - 1}: 95% intervals of plan from {N_PILOT} trials")
    for name, (draw, how) in CASES.items():
        held, ratio, width = [], [], []
        for seed in range(first, first + n_seeds):
            trials = draw(6 * N_PILOT, seed)
            real = [trials[: 2 * N_PILOT], trials[2 * N_PILOT :]]
            designs = [len(own) for own in real]
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                found = plan(trials[:N_PILOT], how, n_trials=designs, progress=False).table
                floors = [noise_floor({"system": own}, how, progress=False).iloc[0] for own in real]
            held.append(found["low"].le(floors) & found["high"].ge(floors))
            ratio.append(np.log(floors / found["floor"]))
            width.append(np.log(found["high"] / found["low"]))
        shares, bias, span = (np.mean(part, 0) for part in (held, ratio, width))
        for at, what in enumerate(("all 32", "new 64")):
            print(
                f"{name:17} {what}: held {shares[at]:4.0%}, floor / expected {np.exp(bias[at]):.2f} (geometric mean), "
                f"high / low {np.exp(span[at]):.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
