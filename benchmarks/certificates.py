"""The lower bound: how much it leaves open, and what that takes. There is no peer, but limits."""

from collections.abc import Iterator

import torch

from benchmarks.measure import measured
from benchmarks.table import Row
from benchmarks.work import operators, pairs_of
from dsa_analysis import align

PEER = "none for certificates"
KINDS = ("rnn", "noisy", "lorenz")
N_PAIRS = {10: 28, 20: 6}
LIMITS = {10: (15.0, 1.0), 20: (200.0, 5.0)}  # ms a pair, median gap in % of the distance

SOUND = {10: 15, 20: 8}  # systems of each kind, 532 pairs in all, whose bounds are tested from lower tops
ROUNDING = 1e-9  # rad by which a bound may exceed a distance

Case = tuple[int, str, str]


def cases(quick: bool) -> list[Case]:
    gaps = [(n, kind, "gap") for n in N_PAIRS for kind in KINDS]
    return (gaps + [(n, kind, "sound") for n in SOUND for kind in (*KINDS, "near-orthogonal")])[: 2 if quick else None]


def run(chosen: list[Case]) -> Iterator[list[Row]]:
    for n, kind, what in chosen:
        yield gaps(n, kind) if what == "gap" else [soundness(n, kind)]


def soundness(n: int, kind: str) -> Row:
    """The bound found from the top of a single climb against the best distance known: never above it."""
    first, second = pairs_of(operators(kind, n, SOUND[n]))
    best = align(first, second)
    low = align(first, second, n_starts=1, certificate="tight")
    excess = low.lower_bound - torch.minimum(best.distance, low.distance)
    lower = int((low.distance - best.distance > 1e-5).sum())
    outcome = f"{len(first)} pairs, {lower} from a lower top; largest of bound less distance {excess.max():.1e} rad"
    return Row("certificates", f"{kind}, n = {n}, bound above", "rad", [max(float(excess.max()), 1e-16)], [ROUNDING],
               1, f"{outcome}; no peer: limit")  # fmt: skip


def gaps(n: int, kind: str) -> list[Row]:
    """How much the bounds leave open, and the milliseconds of a tight one."""
    first, second = pairs_of(operators(kind, n, 8))
    some = torch.linspace(0, len(first) - 1, N_PAIRS[n]).round().long()
    first, second = first[some], second[some]
    align(first[:1], second[:1], certificate="tight")  # the first call loads libraries
    fast = measured(align, first, second)
    tight = measured(align, first, second, certificate="tight")
    gaps = [100 * run.result.gap / run.result.distance for run in (fast, tight)]
    milliseconds = 1e3 * (tight.seconds - fast.seconds) / len(first)
    outcome = f"gap of the fast bound {gaps[0].median():.1f} %; largest of the tight one {gaps[1].max():.1f} %, "
    outcome += f"{100 * float(tight.result.certified.double().mean()):.0f} % certified; no peer: limits"
    return [
        Row("certificates", f"{kind}, n = {n}, tight", "ms", [milliseconds], [LIMITS[n][0]], 1, outcome),
        Row("certificates", f"{kind}, n = {n}, median gap", "%", [max(float(gaps[1].median()), 1e-6)],
            [LIMITS[n][1]], 1, outcome),
    ]  # fmt: skip
