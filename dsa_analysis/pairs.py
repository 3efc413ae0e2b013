"""Solves many pairs of systems in square tiles, in parallel, and stores results on disk as they are computed.

Blocks go through `joblib.Parallel` without a number of jobs: one after the other, unless the caller chose otherwise by
`joblib.parallel_config`. The result of a pair depends neither on its block nor on the worker. A block holds the pairs
between few systems, so what belongs to one system is seldom computed twice, and is made when it is sent.
"""

import hashlib
import json
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor
from tqdm import tqdm

from dsa_analysis.alignment import Alignment, sweep_through_others
from dsa_analysis.display import bars_go_to
from dsa_analysis.metrics import Aligned, Metric, Pairs, as_pairs, solver_key, takes

# operators (N, n, n), with inputs (N, n, n + k), eigenvalues (N, n), or the trials of N systems
Systems = Tensor | list[list[Tensor]]


def solve_pairs(
    metric: Metric,
    systems: Systems,
    first: Tensor,
    second: Tensor,
    options: dict[str, Any],
    *,
    names: Sequence[str] = (),
    store: str | Path | None = None,
    progress: bool = False,
) -> Pairs:
    """Distance, lower bound, agreement and convergence, (P,) each, of pairs of systems.

    Parameters
    ----------
    metric : Metric
    systems : (N, n, n) or (N, n, n + k) float64, (N, n) complex, or list of N systems
        Operators, operators with inputs [A B], eigenvalues or trials, as the metric needs them.
    first, second : (P,) int
        Indices into ``systems``.
    options : dict
        From `Comparison.options`.
    names : sequence of N str, optional
        Names of the systems in messages.
    store : path, optional
        Folder in which each block is stored once it is solved. Stored blocks are not solved again.
    progress : bool
        Show a bar for what takes more than two seconds.

    Returns
    -------
    Pairs
    """
    if not len(first):
        nothing = torch.zeros(0, dtype=torch.float64, device=first.device)
        return Pairs(nothing, nothing, nothing, nothing > 0)
    blocks = _Blocks(metric, systems, first, second, names, store, progress)
    budget = {name: value for name, value in options.items() if name not in ("names", "n_sweeps")}
    if options.get("n_sweeps") and isinstance(metric, Aligned) and isinstance(systems, Tensor):
        aligned = Alignment(*blocks.solve(_align, budget, "alignments"))
        traceless = budget.get("remove_trace", False)
        for _ in range(options["n_sweeps"]):
            aligned = sweep_through_others(systems, first, second, aligned, remove_trace=traceless)
        return metric.of_alignment(aligned, systems[first], systems[second], traceless)
    return Pairs(*blocks.solve(_distances, budget, "distances"))


def _distances(metric: Metric, first: Any, second: Any, options: dict[str, Any]) -> dict[str, Tensor]:
    return as_pairs(metric, metric.distances(first, second, **options), len(first))._asdict()


def _align(metric: Aligned, first: Tensor, second: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
    return vars(metric.align(first, second, **options))


class _Block(NamedTuple):
    """Some pairs, and the systems in them."""

    systems: Any
    first: Tensor
    second: Tensor
    names: Sequence[str]


class _Blocks(NamedTuple):
    """All pairs, which are divided into blocks."""

    metric: Metric
    systems: Systems
    first: Tensor
    second: Tensor
    names: Sequence[str]
    store: str | Path | None
    progress: bool

    def solve(self, work: Any, options: dict[str, Any], what: str) -> list[Tensor]:
        """Results of all pairs, in the order of the fields that ``work`` returns."""
        divided = self._tiles()
        tasks = (delayed(_solve)(work, self.metric, self._block(some), options, self.store, what) for some in divided)
        solved = Parallel(return_as="generator")(tasks)
        with tqdm(
            total=len(self.first),
            desc="comparing",
            unit="pair",
            delay=2,
            leave=False,
            file=bars_go_to(),
            disable=not self.progress,
        ) as bar:
            results = []
            for result in solved:
                results.append(result)
                bar.update(len(result[0]))
        place = torch.cat(divided).argsort()
        return [torch.cat(parts)[place] for parts in zip(*results, strict=True)]

    def _tiles(self) -> list[Tensor]:
        """Indices of the pairs of each block, tile by tile: those between two runs of consecutive systems."""
        n = self.systems.shape[1] if isinstance(self.systems, Tensor) else 0
        at_once = getattr(self.metric, "pairs_at_once", lambda n, device: None)(n, self.first.device)
        if not at_once:
            return [torch.arange(len(self.first), device=self.first.device)]
        side = max(1, math.isqrt(at_once))
        row, column = self.first // side, self.second // side
        tile = row * (int(column.max()) + 1) + column
        return list(tile.argsort(stable=True).split(at_once))

    def _block(self, some: Tensor) -> _Block:
        i, j = self.first[some], self.second[some]
        used, index = torch.cat([i, j]).unique(return_inverse=True)
        places = used.tolist()
        systems = self.systems[used] if isinstance(self.systems, Tensor) else [self.systems[k] for k in places]
        called = [self.names[k] for k in places] if self.names else []
        return _Block(systems, index[: len(i)], index[len(i) :], called)


def _solve(
    work: Any, metric: Metric, block: _Block, options: dict[str, Any], store: str | Path | None, what: str
) -> list[Tensor]:
    """Solve the pairs of one block, or read them if they were stored."""
    if store is None:
        return list(_fresh(work, metric, block, options).values())
    path = Path(store) / f"{_key(metric, block, options, what)}.npz"
    if (found := _read(path)) is not None:
        return [value.to(block.first.device) for value in found]
    solved = _fresh(work, metric, block, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:  # a zip archive of arrays, whose checksums reveal damage
            np.savez(file, **{name: value.cpu().numpy() for name, value in solved.items()})  # type: ignore[arg-type]
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return list(solved.values())


def _fresh(work: Any, metric: Metric, block: _Block, options: dict[str, Any]) -> dict[str, Tensor]:
    i, j = block.first.tolist(), block.second.tolist()
    if isinstance(block.systems, Tensor):
        sides: Any = block.systems[block.first], block.systems[block.second]
    else:
        sides = [block.systems[k] for k in i], [block.systems[k] for k in j]
    if takes(metric, "names") and block.names:
        options = options | {"names": ([block.names[k] for k in i], [block.names[k] for k in j])}
    found: dict[str, Tensor] = work(metric, *sides, options)
    return found


def _read(path: Path) -> list[Tensor] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path) as file:
            return [torch.from_numpy(file[name]) for name in file.files]
    except Exception as problem:  # numpy and zipfile raise many kinds of errors for damaged files
        warnings.warn(f"{path} is damaged ({problem}); its pairs are solved again", stacklevel=2)
        return None


def _key(metric: Metric, block: _Block, options: dict[str, Any], what: str) -> str:
    """Name of the file of a block: a hash of everything that the result depends on."""
    solver = solver_key(metric, block.first.device)
    identity = [solver, what, *sorted((name, repr(value)) for name, value in options.items())]
    digest = hashlib.sha256(json.dumps(identity).encode())
    parts = [block.systems] if isinstance(block.systems, Tensor) else [x for trials in block.systems for x in trials]
    for values in (*parts, block.first, block.second):
        digest.update(repr(tuple(values.shape)).encode() + values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
