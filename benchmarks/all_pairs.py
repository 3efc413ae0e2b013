"""From data to the whole matrix of distances."""

import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib import parallel_config
from joblib.externals.loky import get_reusable_executor

from benchmarks.measure import measured, resident
from benchmarks.peer import DSA_METRIC, Worker
from benchmarks.table import Row
from benchmarks.work import network_activity, pairs_of
from dsa_analysis import compare

PEER = f"{DSA_METRIC}, angular, 1500 iterations"
SHAPE = (20, 200, 24)
N_DELAYS = 10
N_WORKERS = 2
MINUTES, MEGABYTES = 3, 2000  # of a comparison by several workers, at most


class Case(NamedTuple):
    n_systems: int
    rank: int
    n_peer: int  # pairs the peer works on, seconds each; without any, workers share the comparison and the limits hold
    target: float


CASES = [Case(20, 10, 3, 200), Case(20, 20, 3, 60), Case(60, 10, 20, 200), Case(60, 20, 20, 60), Case(200, 12, 0, 1)]


def cases(quick: bool) -> list[Case]:
    return [Case(8, 10, 3, 200)] if quick else CASES


def recordings(n_systems: int) -> list[np.ndarray]:
    return [network_activity(SHAPE, seed) for seed in range(n_systems)]


def run(chosen: list[Case]) -> Iterator[list[Row]]:
    for case in chosen:
        yield against_peer(case) if case.n_peer else by_workers(case)


def against_peer(case: Case) -> list[Row]:
    """Ours whole; the peer by what a few of its fits and a few of its pairs take, half of them after ours."""
    n_systems, rank, n_peer, target = case
    systems = recordings(n_systems)
    settings: dict[str, Any] = {"n_delays": N_DELAYS, "rank": rank}
    n_fits = next(n for n in range(2, n_systems + 1) if n * (n - 1) // 2 >= n_peer)
    n_pairs = n_systems * (n_systems - 1) // 2
    with Worker(DSA_METRIC) as peer:
        compare(systems[:2], progress=False, **settings)  # first calls load libraries
        lengths = [SHAPE[1]] * SHAPE[0]
        fits = [peer("fit", data=s.reshape(-1, SHAPE[-1]), lengths=lengths, **settings) for s in systems[:n_fits]]
        first, second = (x[:n_peer] for x in pairs_of(torch.tensor(np.stack([fit["matrix"] for fit in fits]))))
        seconds = []
        for some in (slice(0, None, 2), slice(1, None, 2)):
            answer = peer("angles", first=first[some], second=second[some], seed=0, n_iterations=1500)
            seconds += list(answer["seconds"])
            if not some.start:
                ours = measured(compare, systems, progress=False, **settings)
    whole = n_systems * min(float(fit["seconds"]) for fit in fits) + n_pairs * np.array(seconds)
    name = f"{n_systems} systems {'x'.join(map(str, SHAPE))}, rank {rank}"
    outcome = f"peer extrapolated from {n_fits} fits and {n_peer} of {n_pairs} pairs; {ours.megabytes:.0f} MB more"
    return [Row("all pairs", name, "s", [ours.seconds], list(whole), target, outcome)]


def shared(n_systems: int, rank: int) -> tuple[float, float, float]:
    """Wall and CPU seconds of a comparison by workers, and the most memory in MB that this process and they can have
    had at once. To be run in a process that has no other children.
    """
    systems = recordings(n_systems)
    start, own = time.perf_counter(), time.process_time()
    with parallel_config("loky", n_jobs=N_WORKERS, inner_max_num_threads=1):
        compare(systems, n_delays=N_DELAYS, rank=rank, progress=False)
    wall, own = time.perf_counter() - start, time.process_time() - own
    get_reusable_executor().shutdown(wait=True)  # what children took is known once they have ended
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    megabytes = resident("VmHWM") + N_WORKERS * children.ru_maxrss / 1024
    return wall, own + children.ru_utime + children.ru_stime, megabytes


def by_workers(case: Case) -> list[Row]:
    """Ours by workers, with nothing stored; there is no peer, but limits."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        wall, cpu, megabytes = alone.submit(shared, case.n_systems, case.rank).result()
    name = f"{case.n_systems} systems {'x'.join(map(str, SHAPE))}, rank {case.rank}, {N_WORKERS} workers"
    outcome = f"no peer: the limit is {MINUTES} minutes; CPU time of all / {N_WORKERS}, {wall:.0f} s went by"
    return [
        Row("all pairs", name, "s", [cpu / N_WORKERS], [60 * MINUTES], case.target, outcome),
        Row("all pairs", name, "MB", [megabytes], [MEGABYTES], case.target, "no peer: limit of all processes together"),
    ]
