"""Procrustes over vector fields, pair by pair: time, and who finds the smaller angle."""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.measure import measured
from benchmarks.peer import DSA_METRIC, Worker
from benchmarks.table import Row
from benchmarks.work import KINDS, operators, pairs_of
from dsa_analysis import align

PEER = f"{DSA_METRIC}, angular, 1500 iterations"
N_SYSTEMS = 8  # 28 pairs
N_PEER = {10: 6, 20: 4, 30: 3, 50: 2}  # pairs the peer works on, seconds each
TARGET = {10: 150, 20: 50, 30: 20, 50: 5}
TIE = 1e-5  # rad

Case = tuple[int, str]


def cases(quick: bool) -> list[Case]:
    return [(n, kind) for n in N_PEER for kind in KINDS][: 2 if quick else None]


def compared(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Who finds the smaller angle on the same pairs."""
    excess = theirs - ours
    win, loss = int((excess > TIE).sum()), int((excess < -TIE).sum())
    return f"win/tie/loss {win}/{len(ours) - win - loss}/{loss}, peer {100 * (excess / ours).mean():+.1f} %"


def run(chosen: list[Case]) -> Iterator[list[Row]]:
    """Our default budget on all pairs, before and after the peer's 1500 iterations on some of them."""
    with Worker(DSA_METRIC) as peer:
        small = torch.eye(4, dtype=torch.float64)[None]
        peer("angles", first=small, second=small, seed=0, n_iterations=20)  # first calls load libraries
        align(small, small)
        for n, kind in chosen:
            first, second = pairs_of(operators(kind, n, N_SYSTEMS))
            some = np.linspace(0, len(first) - 1, N_PEER[n]).round().astype(int)
            ours = [measured(align, first, second)]
            theirs = peer("angles", first=first[some], second=second[some], seed=0, n_iterations=1500)
            if n < 50:
                ours.append(measured(align, first, second))
            found = ours[0].result
            yield [
                Row(
                    "pairs",
                    f"{kind}, n = {n}",
                    "ms",
                    [1e3 * run.seconds / len(first) for run in ours],
                    list(1e3 * theirs["seconds"]),
                    TARGET[n],
                    compared(found.distance[some].numpy(), theirs["distances"])
                    + f"; {found.distance.median():.3f} rad, bound {(found.lower_bound / found.distance).median():.2f}",
                )
            ]
