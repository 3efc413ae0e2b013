"""Procrustes over vector fields, pair by pair and on both paths: time, and who finds the smaller angle."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Measured, measured
from benchmarks.peer import DSA_METRIC, Worker
from benchmarks.table import Row
from benchmarks.work import KINDS, operators, pairs_of
from dsa_analysis import align, native

PEER = f"{DSA_METRIC}, angular, 1500 iterations"
N_SYSTEMS = 8  # 28 pairs
N_PEER = {10: 6, 20: 4, 30: 3, 50: 2}  # pairs the peer works on, seconds each
TARGET = {"native": {10: 2000, 20: 180, 30: 40, 50: 4}, "torch": {10: 150, 20: 40, 30: 14, 50: 4}}
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
    """Our default budget on all pairs, natively before and after the peer's 1500 iterations on some of them."""
    with Worker(DSA_METRIC) as peer:
        small = torch.eye(4, dtype=torch.float64)[None]
        peer("angles", first=small, second=small, seed=0, n_iterations=20)  # first calls load libraries
        for path in TARGET:
            on_path(path, small, small)
        for n, kind in chosen:
            first, second = pairs_of(operators(kind, n, N_SYSTEMS))
            some = np.linspace(0, len(first) - 1, N_PEER[n]).round().astype(int)
            ours = {"native": [on_path("native", first, second)], "torch": []}
            theirs = peer("angles", first=first[some], second=second[some], seed=0, n_iterations=1500)
            ours["native"].append(on_path("native", first, second))
            ours["torch"].append(on_path("torch", first, second))
            lowest = torch.stack([runs[0].result.distance for runs in ours.values()]).amin(0)
            yield [row(kind, n, path, ours[path], some, theirs, lowest) for path in TARGET]


def on_path(path: str, first: Tensor, second: Tensor, **how: Any) -> Measured:
    os.environ["COMPUTE_ALIKE_NATIVE"] = str(int(path == "native"))
    if native.status()[0] != (path == "native"):
        raise SystemExit(f"the native path is needed here: {native.status()[1]}")
    return measured(align, first, second, **how)


def row(
    kind: str, n: int, path: str, ours: list[Measured], some: np.ndarray, theirs: dict[str, np.ndarray], lowest: Tensor
) -> Row:
    found = ours[0].result
    best = float((found.distance < lowest + TIE).double().mean())
    return Row(
        "pairs",
        f"{kind}, n = {n}, {path}",
        "ms",
        [1e3 * run.seconds / len(lowest) for run in ours],
        list(1e3 * theirs["seconds"]),
        TARGET[path][n],
        compared(found.distance[some].numpy(), theirs["distances"])
        + f"; at the lower of both paths {best:.2f}; {found.distance.median():.3f} rad, bound "
        f"{(found.lower_bound / found.distance).median():.2f}",
    )
