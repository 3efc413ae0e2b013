"""python -m benchmarks.input_dsa [options]: which driven systems agree, here and in the paper of InputDSA.

Sixteen systems of 20 dimensions, 2 of them seen: two dynamics A times two effects of the input B times four draws of
the input (`dsa_analysis.controls.record_driven`). Silhouettes by A and by B tell whether distances find which systems
share them. Huang, Ostrow et al. (2025, arXiv 2510.25943, Fig. 2, and its notebook) report them for one draw of A and B,
with windows of 150 samples and rank 20, by mean squared gaps of matched eigenvalues and by differences of B. Here:

    published A and B   that draw, by the generators of the notebook; ten seeds of inputs and noise
    new A and B         ten seeds of everything
    published settings  n_delays = n_future = 150, rank = 20
    chosen settings     n_delays = 20, n_future = 10, rank = 10, by the mean silhouette by state of new A and B with the
                        seeds 100 to 102, among n_delays of 5 to 150, n_future of 5 to 40 and ranks of 2 to 20

The last table has the inputs of one system replaced. Means and 95 % intervals over seeds. About fifteen minutes.
"""

import argparse
import itertools
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dsa_analysis import Similarity, compare, mean_interval, silhouette
from dsa_analysis.controls import DrivenControl, DrivenMatrices, DrivenParameters, record_driven

SETTINGS: dict[str, dict[str, Any]] = {
    "published": {"n_delays": 150, "rank": 20},
    "chosen": {"n_delays": 20, "rank": 10},
}
FUTURE = {"published": 150, "chosen": 10}
# by the notebook (1000 samples) and by the paper (5000): state without inputs, with them, by subspaces; input likewise
PUBLISHED = {
    1000: {"no inputs": (".90", "-"), "least squares": (".91", ".34"), "subspace": (".95", ".75")},
    5000: {"no inputs": (".60", "-"), "least squares": (".68", ".19"), "subspace": (".94", ".83")},
}


def published_matrices() -> DrivenMatrices:
    """The A, B and dimensions seen of the notebook, from the generators that it names (seeds 11 and 12)."""

    def dynamics(seed: int, radius: float) -> np.ndarray:
        M = np.random.default_rng(seed).standard_normal((20, 20))
        return M / abs(np.linalg.eigvals(M)).max() * radius

    root = np.random.default_rng(11).standard_normal((20, 20))
    turn = np.linalg.qr(np.random.default_rng(12).standard_normal((20, 20)))[0]
    covariances = root @ root.T, turn @ (root @ root.T) @ turn.T
    B = [
        gain * np.random.default_rng(seed).multivariate_normal(np.zeros(20), covariance, 1).T
        for seed, gain, covariance in zip((11, 12), (0.5, 2.0), covariances, strict=True)
    ]
    seen = np.sort(np.random.default_rng(11).choice(20, size=2, replace=False))
    A = np.stack([dynamics(11, 0.92), dynamics(12, 0.82)])
    return DrivenMatrices(torch.from_numpy(A), torch.from_numpy(np.stack(B)), torch.from_numpy(seen))


def silhouettes(control: DrivenControl, estimator: str, settings: str) -> dict[str, float]:
    """Silhouettes by A, of angles, eigenvalues and their squared gaps, and by B."""
    how: dict[str, Any] = SETTINGS[settings] | {"progress": False, "n_starts": 32}
    if estimator == "subspace":
        how |= {"estimator": "subspace", "n_future": FUTURE[settings]}
    inputs = None if estimator == "no inputs" else control.inputs
    fitted = compare(control.systems, inputs=inputs, metric="angular", **how)
    spectral = compare(fitted.operators, metric="spectral", progress=False).distances
    found = {
        "state, angle": silhouette(fitted, control.states),
        "state, eigenvalues": silhouette(spectral, control.states),
        "state, squared gaps": silhouette(spectral**2, control.states),
        "input": np.nan,
    }
    if inputs is not None:
        found["input"] = silhouette(compare(fitted.operators, metric="input", progress=False), control.drives)
    return found


def shown(values: list[float]) -> str:
    if np.isnan(values).any():
        return "-"
    interval = mean_interval(values)
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def replaced(control: DrivenControl, name: str) -> dict[str, Mapping[str, Tensor]]:
    """The inputs of all systems, with those of one exchanged."""
    own = control.inputs[name]
    other = control.inputs[next(each for each in control.inputs if each != name)]
    noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(0), dtype=own.dtype)
    changes = {
        "right": own, "measured with as much noise": own + noise, "a sample late": own.roll(1, 1),
        "of another system": other, "noise": noise,
    }  # fmt: skip
    return {kind: control.inputs | {name: changed} for kind, changed in changes.items()}


def near_and_far(similarity: Similarity, labels: tuple[str, ...]) -> tuple[float, float]:
    """Mean distance of the first system to the others of its label, and to those of another."""
    same = np.array(labels[1:]) == labels[0]
    distances = similarity.distances[0, 1:]
    return float(distances[same].mean()), float(distances[~same].mean())


def wrong_inputs(seeds: range, n_times: int) -> None:
    """Distances of one system to those with its A or B if its inputs are exchanged, over those to the other ones."""
    print("\n| inputs of one system | state: own A / other A | input: own B / other B |\n|---|---|---|")
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in tqdm(seeds, desc="wrong inputs", leave=False):
        control = record_driven(DrivenParameters(n_dims=4, n_times=n_times), seed=seed)
        name = next(iter(control.systems))
        for kind, inputs in replaced(control, name).items():
            how: dict[str, Any] = {"n_delays": 6, "rank": 4, "estimator": "subspace", "progress": False}
            state = compare(control.systems, inputs=inputs, metric="state", **how)
            given = compare(state.operators, metric="input", progress=False)
            found.setdefault(kind, []).append(
                (*near_and_far(state, control.states), *near_and_far(given, control.drives))
            )
    for kind, rows in found.items():
        own_a, other_a, own_b, other_b = (shown(list(column)) for column in zip(*rows, strict=True))
        print(f"| {kind} | {own_a} / {other_a} | {own_b} / {other_b} |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.input_dsa", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="seeds 0 to N - 1 (default: 10)")
    parser.add_argument("--samples", type=int, nargs="+", default=[1000, 5000], metavar="N", help="1000, 5000 or both")
    parser.add_argument(
        "--systems", nargs="+", default=["published", "new"], help="published A and B, new ones, or both"
    )
    arguments = parser.parse_args()
    seeds = range(arguments.seeds)
    columns = ["state, angle", "state, eigenvalues", "state, squared gaps", "input"]
    print("| A and B | samples | settings | estimator | published state, input | " + " | ".join(columns) + " |")
    print("|---" * (5 + len(columns)) + "|")
    warnings.simplefilter("ignore", UserWarning)
    for origin, n_times, settings, estimator in itertools.product(
        arguments.systems, arguments.samples, SETTINGS, PUBLISHED[1000]
    ):
        matrices = published_matrices() if origin == "published" else None
        parameters = DrivenParameters(n_times=n_times)
        rows = [
            silhouettes(record_driven(parameters, matrices=matrices, seed=seed), estimator, settings)
            for seed in tqdm(seeds, desc=f"{origin}, {settings}, {estimator}", leave=False)
        ]
        beside = ", ".join(PUBLISHED[n_times][estimator]) if (origin, settings) == ("published", "published") else ""
        measured = " | ".join(shown([row[column] for row in rows]) for column in columns)
        print(f"| {origin} | {n_times} | {settings} | {estimator} | {beside} | {measured} |", flush=True)
    wrong_inputs(seeds, 1000)


if __name__ == "__main__":
    main()
