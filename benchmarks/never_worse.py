"""Pairs whose default alignment ends above the best of 24 or 256 climbs that all go to their top."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.measure import measured
from benchmarks.table import Row
from benchmarks.work import operators, pairs_of
from dsa_analysis import align
from dsa_analysis.climb import climb_all
from dsa_analysis.multistart import Waves, prepare

PEER = "24 and 256 full climbs of ours"
KINDS = ("rnn", "lorenz", "near-orthogonal", "noisy")
N_SYSTEMS = {10: 13, 20: 9, 30: 6}
WORSE = 1e-5  # rad
LIMIT = 0.5  # % of the pairs

Case = tuple[int, str]


def cases(quick: bool) -> list[Case]:
    return [(n, kind) for n in N_SYSTEMS for kind in KINDS][: 2 if quick else None]


def full_climbs(first: Tensor, second: Tensor, n_climbs: int) -> Tensor:
    """Least angle (P,) of so many climbs from Haar-random starts of another seed."""
    n, n_pairs = first.shape[-1], len(first)
    prepared, index = prepare(torch.cat([first, second]), False, ()), torch.arange(n_pairs)
    A, B = prepared.core[:n_pairs], prepared.core[n_pairs:]
    waves = Waves(n_climbs + 1, n, 77, first)
    starts = torch.cat([waves[k] for k in range(len(waves))])[:n_climbs].expand(n_pairs, -1, -1, -1)
    C, _, _ = climb_all(A, B, starts, 2, torch.float32, n_steps=100, n_inner=15, tolerance=1e-4)
    _, f, _ = climb_all(A, B, C.double(), 1, torch.float64, n_steps=100, n_inner=25, tolerance=1e-9)
    return prepared.angle(index, index + n_pairs, f[:, 0])


def run(chosen: list[Case]) -> Iterator[list[Row]]:
    for n, kind in chosen:
        first, second = pairs_of(operators(kind, n, N_SYSTEMS[n]))
        ours = measured(align, first, second)
        excess = {m: ours.result.distance - full_climbs(first, second, m) for m in (24, 256)}
        above = {m: int((x > WORSE).sum()) for m, x in excess.items()}
        outcome = (
            f"{len(first)} pairs, {1e3 * ours.seconds / len(first):.2f} ms each; above 24 full climbs {above[24]}, "
        )
        outcome += f"above 256 {above[256]}, below 256 {int((excess[256] < -WORSE).sum())}; no peer: limit"
        share = 100 * above[24] / len(first)
        yield [Row("never worse", f"{kind}, n = {n}", "%", [max(share, 1e-6)], [LIMIT], 1, outcome)]
