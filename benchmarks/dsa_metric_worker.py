"""Runs inside the virtual environment of the peer dsa-metric: jobs in, arrays and CPU seconds out.

Of this project it imports benchmarks.measure and benchmarks.serve alone.
"""

import warnings

import numpy as np
import torch
from DSA import DMD, SimilarityTransformDist

from benchmarks.measure import measured
from benchmarks.serve import Arrays, serve


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


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    serve({"angles": angles, "fit": fit})
