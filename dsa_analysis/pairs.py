"""Many pairs of operators: solved in blocks, by as many workers as there are, kept on disk as they come.

Blocks go through `joblib.Parallel` without a number of jobs: one after the other, unless the caller chose otherwise by
`joblib.parallel_config`. A pair's result depends neither on its block nor on the worker.
"""

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor
from tqdm import tqdm

from dsa_analysis import alignment
from dsa_analysis.alignment import Alignment, align_pairs, pairs_at_once, sweep_through_others
from dsa_analysis.data import check_count
from dsa_analysis.spectra import spectral_distance

SOLVER = hashlib.sha256(Path(alignment.__file__).read_bytes()).hexdigest()  # blocks of another one are not taken


def solve_pairs(
    operators: Tensor,
    first: Tensor,
    second: Tensor,
    metric: str,
    *,
    n_sweeps: int = 0,
    store: str | Path | None = None,
    progress: bool = False,
    names: Sequence[str] = (),
    **budget: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distance, lower bound, agreement and convergence, each (P,), of operators (N, n, n) at ``first`` and ``second``.

    Parameters
    ----------
    metric : "angular", "euclidean" or "spectral"
    n_sweeps : int >= 0
        Rounds of `sweep_through_others` once all pairs are solved.
    store : path, optional
        Folder that keeps each block once it is solved; what lies there is not solved again.
    names : of the operators, for messages
    budget : as in `align`; matched eigenvalues need none
    """
    if metric == "spectral":
        eigenvalues = torch.linalg.eigvals(operators)
        distance = spectral_distance(eigenvalues[first], eigenvalues[second])
        exact = torch.ones_like(distance)
        return distance, torch.full_like(distance, torch.nan), exact, exact > 0
    check_count("n_sweeps", n_sweeps, 0)
    aligned = _in_blocks(operators, first, second, names, store, progress, budget)
    for _ in range(n_sweeps):
        aligned = sweep_through_others(
            operators, first, second, aligned, remove_trace=budget.get("remove_trace", False)
        )
    angles = aligned.distance, aligned.lower_bound
    distance, bound = angles if metric == "angular" else (2 * (angle / 2).sin() for angle in angles)
    return distance, bound, aligned.agreement, aligned.converged


def _in_blocks(
    operators: Tensor,
    first: Tensor,
    second: Tensor,
    names: Sequence[str],
    store: str | Path | None,
    progress: bool,
    budget: dict[str, Any],
) -> Alignment:
    # a quarter of what is solved side by side: enough for full speed, few enough for several workers and a moving bar
    size = max(1, pairs_at_once(operators.shape[-1], operators.device) // 4)
    tasks = []
    for i, j in zip(first.split(size), second.split(size), strict=True):
        used, index = torch.cat([i, j]).unique(return_inverse=True)
        called = [names[k] for k in used.tolist()] if names else ()
        tasks.append(delayed(_block)(operators[used], index[: len(i)], index[len(i) :], called, store, budget))
    solved = Parallel(return_as="generator")(tasks)
    with tqdm(total=len(first), desc="aligning", unit="pair", delay=2, leave=False, disable=not progress) as bar:
        results = []
        for result in solved:
            results.append(result)
            bar.update(len(result.distance))
    return Alignment(*(torch.cat(parts) for parts in zip(*(vars(r).values() for r in results), strict=True)))


def _block(
    operators: Tensor, first: Tensor, second: Tensor, names: Sequence[str], store: str | Path | None, budget: dict
) -> Alignment:
    """Align the pairs of one block, or read what was stored of it."""
    if store is None:
        return align_pairs(operators, first, second, names=names, **budget)
    path = Path(store) / f"{_key(operators, first, second, budget)}.npz"
    if (found := _read(path)) is not None:
        return Alignment(*(value.to(operators.device) for value in found))
    aligned = align_pairs(operators, first, second, names=names, **budget)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:  # arrays in a zip, whose check sums tell of damage
            np.savez(file, **{name: value.cpu().numpy() for name, value in vars(aligned).items()})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return aligned


def _read(path: Path) -> list[Tensor] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path) as file:
            return [torch.from_numpy(file[name]) for name in Alignment.__dataclass_fields__]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as problem:
        warnings.warn(f"{path} is damaged ({problem}); its pairs are solved again", stacklevel=2)
        return None


def _key(operators: Tensor, first: Tensor, second: Tensor, budget: dict[str, Any]) -> str:
    """What decides about the result of a block, in a name."""
    digest = hashlib.sha256(json.dumps([SOLVER, *sorted(budget.items())]).encode())
    for values in (operators, first, second):
        digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
