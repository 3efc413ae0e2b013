"""From data to the whole matrix of distances."""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.measure import measured
from benchmarks.peer import DSA_METRIC, Worker
from benchmarks.table import Row
from benchmarks.work import network_activity, pairs_of
from dsa_analysis import compare

PEER = f"{DSA_METRIC}, angular, 1500 iterations"
SHAPE = (20, 200, 24)
N_FITS, N_PAIRS = 3, 3  # what the peer works on
TARGET = {10: 100, 20: 30}  # by rank


def cases(quick: bool) -> list[tuple[int, int]]:
    """Number of systems, rank."""
    return [(8, 10)] if quick else [(20, 10), (20, 20)]


def run(chosen: list[tuple[int, int]]) -> Iterator[list[Row]]:
    """Ours whole; the peer by what a few of its fits and a few of its pairs take."""
    with Worker(DSA_METRIC) as peer:
        for n_systems, rank in chosen:
            systems = [network_activity(SHAPE, seed) for seed in range(n_systems)]
            settings = {"n_delays": 10, "rank": rank}
            ours = [measured(compare, systems, progress=False, **settings) for _ in range(2)]
            lengths = [SHAPE[1]] * SHAPE[0]
            fits = [peer("fit", data=s.reshape(-1, SHAPE[-1]), lengths=lengths, **settings) for s in systems[:N_FITS]]
            first, second = pairs_of(torch.tensor(np.stack([fit["matrix"] for fit in fits])))
            pairs = peer("angles", first=first[:N_PAIRS], second=second[:N_PAIRS], seed=0, n_iterations=1500)
            n_pairs = n_systems * (n_systems - 1) // 2
            whole = n_systems * min(float(fit["seconds"]) for fit in fits) + n_pairs * pairs["seconds"]
            yield [
                Row(
                    "all pairs",
                    f"{n_systems} systems {'x'.join(map(str, SHAPE))}, rank {rank}",
                    "s",
                    [run.seconds for run in ours],
                    list(whole),
                    TARGET[rank],
                    f"peer extrapolated from {N_FITS} fits and {len(first[:N_PAIRS])} of {n_pairs} pairs",
                )
            ]
