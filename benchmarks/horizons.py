"""python -m benchmarks.horizons [--seeds 42 43] [--cases memories attractors]

Does it pay to align operators over several horizons by one transform? For half, once and twice the chosen horizon, the
squared distance is the mean over horizons of |A_h - C B_h C^T|^2, for the best C. Beside its AUROC of pairs of the same
and of other kinds stand those of each single horizon. Delays, rank and horizon are chosen on other draws, as in
`benchmarks.choice`. The product aligns one horizon: this is the measurement behind that.
"""

import argparse
import itertools
import warnings

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.choice import CASES, FRESH, Draw
from benchmarks.peer import ROOT
from dsa_analysis import Comparison, align, auroc, choose_embedding, fit_operator
from workbench.settings import load_settings

FACTORS = (0.5, 1, 2)
N_RANDOM, N_STEPS = 8, 300


def operators(draw: Draw, how: Comparison, steps: list[int]) -> Tensor:
    """(k, horizons, n, n): along the same directions for all horizons of a system."""
    found = [
        torch.stack([
            fit_operator(trials, how.override(horizon=None, steps_ahead=s), name=name).matrix for s in steps
        ])
        for name, trials in draw.systems.items()
    ]  # fmt: skip
    return torch.stack(found)


def overlap(A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Mean over horizons of <A_h, C B_h C^T>, (P, R), for A, B (P, H, n, n) and C (P, R, n, n)."""
    turned = C[:, :, None] @ B[:, None] @ C[:, :, None].mT
    return (A[:, None] * turned).sum((-1, -2)).mean(2)


def climbed(A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The highest overlap (P,) from several C (P, R, n, n), by steps along the gradient that grow while they gain."""
    size = torch.full(C.shape[:2], 0.3, dtype=C.dtype)
    value, eye = overlap(A, B, C), torch.eye(C.shape[-1], dtype=C.dtype)
    for _ in range(N_STEPS):
        M = C[:, :, None] @ B[:, None] @ C[:, :, None].mT
        gradient = (A[:, None] @ M.mT + A[:, None].mT @ M).mean(2)
        skew = size[..., None, None] * (gradient - gradient.mT)
        trial = torch.linalg.solve(eye - skew / 2, (eye + skew / 2) @ C)
        better = overlap(A, B, trial)
        gains = better > value
        C = torch.where(gains[..., None, None], trial, C)
        value, size = torch.where(gains, better, value), torch.where(gains, 1.3 * size, 0.4 * size)
    return value.amax(1)


def distances(found: Tensor, normalised: bool, generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
    """(k, k) over all horizons with one transform, and for each horizon alone."""
    k, n_horizons, n, _ = found.shape
    i, j = torch.triu_indices(k, k, 1)
    sizes = found.flatten(2).norm(dim=2)
    unit = found / sizes[..., None, None] if normalised else found
    alone, tops = [], []
    for h in range(n_horizons):
        solved = align(found[i, h], found[j, h], n_starts=32)
        cosine = solved.distance.cos()
        a, b = sizes[i, h], sizes[j, h]
        alone.append((2 - 2 * cosine if normalised else a**2 + b**2 - 2 * a * b * cosine).clamp_min(0).sqrt())
        tops.append(solved.transform)
    random = torch.linalg.qr(torch.randn(len(i), N_RANDOM, n, n, dtype=found.dtype, generator=generator))[0]
    starts = torch.cat([torch.stack(tops, 1), random], 1)
    best = torch.cat([
        climbed(unit[a], unit[b], c) for a, b, c in zip(i.split(64), j.split(64), starts.split(64), strict=True)
    ])  # fmt: skip
    squares = unit.flatten(2).square().sum(2).mean(1)
    whole = (squares[i] + squares[j] - 2 * best).clamp_min(0).sqrt()
    return _square(whole, i, j, k), [_square(d, i, j, k) for d in alone]


def _square(values: Tensor, i: Tensor, j: Tensor, k: int) -> Tensor:
    matrix = torch.zeros(k, k, dtype=values.dtype)
    matrix[i, j] = matrix[j, i] = values
    return matrix


def judge(case: str, seed: int) -> dict[str, object]:
    settings = load_settings()
    draw, fresh = CASES[case](settings, seed), CASES[case](settings, seed + FRESH)
    choice = choose_embedding(draw.systems, draw.how, n_delays="auto", rank="auto", horizon="auto", progress=False)
    unit = 1 if choice.how.dt is None else float(choice.how.dt)
    shortest = min(len(trial) for x in fresh.systems.values() for trial in x)
    chosen = round(float(choice.horizon or 1) / unit)
    steps = [min(max(1, round(f * chosen)), shortest // 2) for f in FACTORS]
    found = operators(fresh, choice.how, steps)
    whole, alone = distances(found, draw.how.metric.name != "frobenius", torch.Generator().manual_seed(seed))
    single = {f"{f:g} x": auroc(d.numpy(), fresh.kinds) for f, d in zip(FACTORS, alone, strict=True)}
    return {"case": case, "seed": seed, "rank": choice.rank, "samples": chosen, **single,
            "one transform": auroc(whole.numpy(), fresh.kinds)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.horizons", description=__doc__.splitlines()[2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["memories", "attractors"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pairs, rows = list(itertools.product(arguments.cases, arguments.seeds)), []
    path = ROOT / "results" / "benchmarks" / "horizons.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(action="ignore"):
        for case, seed in tqdm(pairs, unit="draw"):
            rows.append(judge(case, seed))
            pd.DataFrame(rows).to_csv(path, index=False)
    table = pd.DataFrame(rows)
    print(table.round(3).to_string(index=False))
    gain = table["one transform"] - table["1 x"]
    half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
    print(f"\none transform less the chosen horizon: {gain.mean():+.3f} +- {half:.3f} (n = {len(gain)})")


if __name__ == "__main__":
    main()
