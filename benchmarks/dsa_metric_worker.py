"""Runs inside the virtual environment of the peer dsa-metric: jobs in, arrays and CPU seconds out.

Each line of standard input names a job, an .npz file with its arguments and the .npz file to write; the answer is the
line "done". Of this project it imports benchmarks.measure alone.
"""

import os
import sys
import warnings
from collections.abc import Callable

import numpy as np
import torch
from DSA import DMD, SimilarityTransformDist

from benchmarks.measure import measured

Arrays = dict[str, np.ndarray]


def split_trials(data: np.ndarray, lengths: np.ndarray) -> np.ndarray | list[np.ndarray]:
    """Trials of (sum of lengths, channels): (time, channels) for one, (trials, time, channels), or a list if ragged."""
    trials = np.split(data, np.cumsum(lengths)[:-1])
    if len(trials) == 1:
        return trials[0]
    return np.stack(trials) if len(set(lengths)) == 1 else trials


def angles(first: np.ndarray, second: np.ndarray, seed: np.ndarray, n_iterations: np.ndarray) -> Arrays:
    """Angle in radians and CPU seconds of each pair of (p, n, n) operators.

    The angle is that of the peer's transform, recomputed in float64: arccos in float32 cannot tell small angles apart.
    """
    metric = SimilarityTransformDist(score_method="angular", iters=int(n_iterations), lr=0.005)
    distances, seconds = [], []
    for a, b in zip(first, second, strict=True):
        torch.manual_seed(int(seed))
        copies = (torch.tensor(x, dtype=torch.float32) for x in (a, b))  # the peer scales its arguments in place
        seconds.append(measured(metric.fit_score, *copies).seconds)
        transform = metric.C_star.double().numpy()
        image = transform @ b @ transform.T
        distances.append(np.arccos(np.clip((a * image).sum() / np.linalg.norm(a) / np.linalg.norm(image), -1, 1)))
    return {"distances": np.array(distances), "seconds": np.array(seconds)}


def fit(data: np.ndarray, lengths: np.ndarray, **settings: np.ndarray) -> Arrays:
    """Operator of one system, its spectra, CPU seconds, and growth of the peak memory in MB."""

    def fitted(trials: np.ndarray | list[np.ndarray]) -> DMD:
        model = DMD(trials, **{name: value.item() for name, value in settings.items()})
        model.fit()
        return model

    model, seconds, megabytes = measured(fitted, split_trials(data, lengths))
    matrix = model.A_v.double().numpy()
    return {
        "matrix": matrix,
        "eigenvalues": np.linalg.eigvals(matrix).astype(complex),
        "singular_values": model.S[: len(matrix)].double().numpy(),
        "seconds": np.array(seconds),
        "megabytes": np.array(megabytes),
    }


JOBS: dict[str, Callable[..., Arrays]] = {"angles": angles, "fit": fit}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the peer prints must not pass for an answer
    for line in sys.stdin:
        job, source, target = line.rstrip("\n").split("\t")
        with np.load(source, allow_pickle=False) as arguments:
            result = JOBS[job](**arguments)
        np.savez(target, allow_pickle=False, **result)
        print("done", file=answers)


if __name__ == "__main__":
    main()
