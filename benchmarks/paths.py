"""The compiled climb and the one in torch: distances of the same pairs, and their speed against plain products."""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import measured
from benchmarks.pairs import TIE, on_path
from benchmarks.table import Row
from benchmarks.work import operators, pairs_of
from dsa_analysis import native
from dsa_analysis.climb import climb
from dsa_analysis.multistart import Waves, prepare

PEER = "the other path, and the speed of a large product of matrices in single precision"
KINDS = ("rnn", "lorenz", "near-orthogonal", "noisy")
N_PAIRS = {2: 12, 3: 12, 5: 12, 10: 12, 11: 12, 20: 8, 30: 5, 50: 2}  # of each kind: 300 in all
SETTINGS: Sequence[dict[str, object]] = ({}, {"group": "SO"}, {"remove_trace": True})
LIMIT = 1e-9  # rad between the paths, where they reach the same top
FEW = 28  # pairs whose climbs are timed
SIZES_TIMED = (10, 20, 30, 50)

Case = tuple[int, str]


def cases(quick: bool) -> list[Case]:
    return [*product(N_PAIRS, KINDS), *product(SIZES_TIMED, ["speed"])][: 2 if quick else None]


def run(chosen: list[Case]) -> Iterator[list[Row]]:
    for n, kind in chosen:
        yield [speed(n)] if kind == "speed" else [agreement(n, kind)]


def agreement(n: int, kind: str) -> Row:
    """The largest difference where both paths reach the same top, and how often they do."""
    pairs = [side[: N_PAIRS[n]] for side in pairs_of(operators(kind, n, 6))]
    differences = torch.cat([_difference(*pairs, how) for how in SETTINGS])
    same = differences.abs() < TIE
    outcome = f"{N_PAIRS[n]} pairs, {len(SETTINGS)} settings: same top in {100 * float(same.double().mean()):.0f} %, "
    outcome += f"native lower in {int((differences < -TIE).sum())}, higher in {int((differences > TIE).sum())}; limit"
    largest = max(float(differences[same].abs().max()) if same.any() else 0.0, 1e-16)
    return Row("paths", f"{kind}, n = {n}", "rad", [largest], [LIMIT], 1, outcome)


def _difference(first: Tensor, second: Tensor, how: dict[str, object]) -> Tensor:
    ours, torchs = (on_path(path, first, second, **how).result.distance for path in ("native", "torch"))
    return ours - torchs


def speed(n: int) -> Row:
    """Seconds of the compiled climbs of a first wave, and of their products of matrices at the speed of a large one."""
    first, second = pairs_of(operators("rnn", n, 8))
    prepared = prepare(torch.cat([first, second]).float(), False, ())
    a, b = prepared.core.split(FEW)
    starts = Waves(32, n, 0, a)[0].expand(FEW, -1, -1, -1).flatten(0, 1).contiguous()
    pair = torch.arange(FEW).repeat_interleave(len(starts) // FEW)
    budget = {"n_steps": 8, "n_inner": 6, "tolerance": 1e-4}
    some = range(0, len(starts), len(starts) // 40)
    with FlopCounterMode(display=False) as counter:  # one by one: in torch, a batch goes on until its last climb ends
        for k in some:
            climb(a[pair[k]][None], b[pair[k]][None], starts[k][None], **budget)
    flops = counter.get_total_flops() / len(some)
    seconds = [measured(native.climb, a, b, pair, starts, **budget).seconds for _ in range(3)]
    ideal = len(starts) * flops / _flops_a_second()
    outcome = f"{flops / 1e6:.2f} Mflop a climb; ratio: products in torch at the speed of a large one"
    return Row("paths", f"climbs, n = {n}", "s", seconds, [ideal], 0, outcome)


def _flops_a_second(n: int = 1500) -> float:
    x = torch.ones(n, n)
    return 2 * n**3 / min(measured(torch.mm, x, x).seconds for _ in range(5))
