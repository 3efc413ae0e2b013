"""Hankel DMD of one system: time, memory and agreement."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.measure import Measured, measured
from benchmarks.peer import DSA_METRIC, Worker
from benchmarks.table import Row
from benchmarks.work import network_activity
from dsa_analysis import fit_operator


class Case(NamedTuple):
    shape: tuple[int, int, int]
    n_delays: int
    n_repeats: int
    faster: float  # target
    smaller: float  # target


CASES = [
    Case((20, 200, 64), 10, 3, faster=10, smaller=1),
    Case((20, 200, 64), 30, 3, faster=15, smaller=1),
    Case((100, 500, 128), 10, 1, faster=15, smaller=8),
    Case((100, 500, 128), 20, 1, faster=80, smaller=10),
]
PEER = str(DSA_METRIC)
RANK = 20


def cases(quick: bool) -> list[Case]:
    return CASES[:1] if quick else CASES


def fit(trials: np.ndarray, **settings: Any) -> Measured:
    """Our fit, to be run in a process of its own, on data as the peer takes them."""
    return measured(fit_operator, trials, center=False, **settings)


def largest_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Largest distance between eigenvalues after matching them."""
    gaps = abs(np.subtract.outer(first, second))
    return float(gaps[linear_sum_assignment(gaps**2)].max())


def run(chosen: list[Case]) -> Iterator[list[Row]]:
    """Both sides in turn, each in a fresh process, on the same float64 array (the peer rounds it to float32)."""
    for shape, n_delays, n_repeats, faster, smaller in chosen:
        trials = network_activity(shape, seed=0)
        data, settings = trials.reshape(-1, shape[-1]), {"n_delays": n_delays, "rank": RANK}
        ours, theirs = [], []
        with (
            Worker(DSA_METRIC) as peer,
            ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone,
        ):
            small = network_activity((4, 60, 8), seed=0)
            alone.submit(fit, small, n_delays=4, rank=4).result()  # first calls load libraries
            peer("fit", data=small.reshape(-1, 8), lengths=[60] * 4, n_delays=4, rank=4)
            for _ in range(n_repeats):
                ours.append(alone.submit(fit, trials, **settings).result())
                theirs.append(peer("fit", data=data, lengths=[shape[1]] * shape[0], **settings))
        name = f"{'x'.join(map(str, shape))}, {n_delays} delays, rank {RANK}"
        gap = largest_gap(ours[0].result.eigenvalues.numpy(), theirs[0]["eigenvalues"])
        seconds = [float(answer["seconds"]) for answer in theirs]
        yield [
            Row("fits", name, "s", [run.seconds for run in ours], seconds, faster, f"eigenvalues agree to {gap:.0e}"),
            # of the first repeat: later ones find memory that is already there
            Row("fits", name, "MB", [ours[0].megabytes], [float(theirs[0]["megabytes"])], smaller, "peak extra memory"),
        ]
