"""What the peer dsa-metric finds on small inputs, for the tests: ``python -m benchmarks.reference`` writes it.

Inputs are rounded and stored with the results, so that the test needs neither the peer nor the same random numbers.
"""

import datetime
import json
import os
from typing import Any

import numpy as np

from benchmarks.peer import DSA_METRIC, ROOT, Worker
from benchmarks.work import network_activity, operators

TARGET = ROOT / "tests" / "reference" / "dsa_metric.json"
SEEDS = (0, 1, 2)
N_ITERATIONS = 1500

FITS: dict[str, tuple[list[int], int, dict[str, int]]] = {  # lengths of the trials, channels, settings
    "ten trials": ([100] * 10, 4, {"n_delays": 5, "rank": 8}),
    "ragged trials": ([40, 55, 70, 85], 4, {"n_delays": 5, "rank": 6}),
    "one trial": ([250], 4, {"n_delays": 6, "rank": 8}),
    "no past": ([50] * 5, 6, {"n_delays": 1, "rank": 6}),
    "every second sample": ([80] * 4, 4, {"n_delays": 4, "rank": 7, "delay_interval": 2, "steps_ahead": 2}),
}


def rotation(n: int, sign: int, generator: np.random.Generator) -> np.ndarray:
    """Haar-random orthogonal matrix of that determinant."""
    q, r = np.linalg.qr(generator.standard_normal((n, n)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= sign * np.sign(np.linalg.det(q))
    return q


def operator_pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of every kind at some n, and conjugate pairs B = Q A Q^T with det Q = 1 and -1."""
    pairs = {}
    for kind, n in (
        *(("rnn", n) for n in (5, 10, 20)),
        *(("near-orthogonal", n) for n in (5, 10, 20, 30)),
        *(("lorenz", n) for n in (5, 10, 20)),
        *(("gaussian", n) for n in (5, 10)),
    ):
        a, b = operators(kind, n, 2).numpy()
        pairs[f"{kind}, n = {n}"] = a, b
    for n in (5, 10, 20):
        a = operators("gaussian", n, 1)[0].numpy()
        for sign in (1, -1):
            q = rotation(n, sign, np.random.default_rng(n))
            pairs[f"conjugate, det {sign:+d}, n = {n}"] = a, q @ a @ q.T
    return pairs


def main() -> None:
    fits: dict[str, Any] = {}
    pairs: dict[str, Any] = {}
    with Worker(DSA_METRIC) as peer:
        for seed, (name, (lengths, n_channels, settings)) in enumerate(FITS.items()):
            long = network_activity((len(lengths), max(lengths), n_channels), seed)
            data = np.concatenate([trial[:length] for trial, length in zip(long, lengths, strict=True)]).round(4)
            answer = peer("fit", data=data, lengths=lengths, **settings)
            values = answer["eigenvalues"]
            fits[name] = {
                "settings": settings,
                "eigenvalues": {"real": values.real.tolist(), "imag": values.imag.tolist()},
                "singular_values": answer["singular_values"].tolist(),
                "norm": float(np.linalg.norm(answer["matrix"])),
                "lengths": lengths,
                "data": data.tolist(),
            }
        for name, pair in operator_pairs().items():
            a, b = (x.round(8) for x in pair)
            runs = [
                peer("angles", first=a[None], second=b[None], seed=seed, n_iterations=N_ITERATIONS)["distances"][0]
                for seed in SEEDS
            ]
            pairs[name] = {"distance": min(runs), "a": a.tolist(), "b": b.tolist()}
    origin = {
        "package": f"{DSA_METRIC.name} {DSA_METRIC.version}",
        "fits": "DSA.DMD, float32, no centring, other settings as given; norm is Frobenius' of A_v",
        "pairs": f'SimilarityTransformDist(score_method="angular", iters={N_ITERATIONS}, lr=0.005), least angle (rad) '
        f"of torch seeds {SEEDS}, recomputed in float64 from its transform",
        "written by": "python -m benchmarks.reference",
        "date": f"{datetime.date.today()}",
    }
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    unfinished = TARGET.with_suffix(".tmp")
    unfinished.write_text(json.dumps({"origin": origin, "fits": fits, "pairs": pairs}, separators=(",", ":")))
    os.replace(unfinished, TARGET)


if __name__ == "__main__":
    main()
