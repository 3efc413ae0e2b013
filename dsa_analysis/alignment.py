"""Procrustes analysis over vector fields: how far apart are two linear dynamics, in whatever coordinates they come?

    distance(A, B) = min over C of the angle between A and C B C^T = arccos max_C <A, C B C^T> / (|A| |B|),   C in O(n)

(Ostrow et al. 2023, arXiv 2306.10168, eq. 6), for many pairs at once, with a lower bound that no C can beat.

`climb` holds the objective's derivatives and a climb to one of its local maxima, native/climb.cpp the same for CPUs;
`multistart` looks for the highest of them, from many starts; `certificate` bounds what any C can reach.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsa_analysis import native
from dsa_analysis.certificate import AUTO_AT_MOST, CERTIFIED, TIGHT_AT_MOST, spectral_bound, tight_bound
from dsa_analysis.climb import (
    batch_numbers,
    climb_all,
    conjugate,
    inner,
    ordered_conjugate,
    ordered_norm,
    ordered_product,
)
from dsa_analysis.data import MOST_REPEATS, DataError, as_device, check_choice, check_count, check_seed
from dsa_analysis.multistart import CONVERGED, WAVE, Waves, prepare, search, solve

CERTIFICATES = ("fast", "tight", "auto")


@dataclass(frozen=True)
class Alignment:
    """Best alignment found for each of P pairs (no leading axis for a single pair).

    Attributes
    ----------
    distance : (P,), rad in [0, pi]
        Angle between A and C B C^T at ``transform``.
    lower_bound : (P,), rad
        No orthogonal C reaches a smaller angle.
    transform : (P, n, n)
        C, orthogonal, with A ~ C B C^T.
    agreement : (P,), in [0, 1]
        Fraction of completed climbs that reached this optimum (cosine within 1e-5). If it is low, increase
        ``n_starts``.
    converged : (P,) bool
        Whether the gradient vanished at ``transform``.
    gap : (P,), rad
        ``distance - lower_bound``: the true distance is smaller than the one found by at most this.
    certified : (P,) bool
        Whether the gap is below 1e-6: the alignment is proven to be optimal.
    """

    distance: Tensor
    lower_bound: Tensor
    transform: Tensor
    agreement: Tensor
    converged: Tensor

    @property
    def gap(self) -> Tensor:
        return self.distance - self.lower_bound

    @property
    def certified(self) -> Tensor:
        return self.gap < CERTIFIED


def default_starts(n: int, device: torch.device) -> int:
    """Largest number of starts for a pair of operators (n, n) unless you set another.

    Operators of recordings with n <= 10 mostly need one wave of 32, with n = 20 two, with n = 30 three to five. From
    n = 50 on a start costs a hundred times what it does at n = 10.
    """
    budget = search(device)
    return budget.small if n <= 32 else budget.large


def solver_key(device: torch.device) -> str:
    """Hash of the code that aligns operators on ``device``: results of another code may differ in their last digits."""
    return _source_hash(native.available(device))


@functools.cache
def _source_hash(natively: bool) -> str:
    folder = Path(__file__).parent
    names = ["alignment.py", "joint.py", "multistart.py", "climb.py", "certificate.py"]
    names += ["native/__init__.py", "native/climb.cpp"] if natively else []
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()


def align(
    a: Any,
    b: Any,
    *,
    n_starts: int | str = "auto",
    group: str = "O",
    remove_trace: bool = False,
    seed: int = 0,
    certificate: str = "fast",
    device: str | torch.device | None = None,
) -> Alignment:
    """Align each operator of ``b`` to its partner in ``a``.

    Parameters
    ----------
    a, b : (n, n) or (P, n, n)
        Square matrices, ``Operator`` objects, or sequences of either. All of one size.
    n_starts : int >= 1, or "auto"
        Largest number of climbs for each pair. They run in waves of 32. A pair takes no further wave once six climbs
        (four in torch) have reached its highest top, or once it is certified. "auto": 384 for n up to 32 and 256 beyond
        (192 and 64 in torch). `dsa_analysis.native.status` tells which path is taken.
    group : "O" or "SO"
        All orthogonal transforms, or rotations only. For odd n both give the same distance, because C and -C have the
        same effect.
    remove_trace : bool
        Compare A - tr(A)/n I. The transform is the same, but the distances spread out: operators of slow dynamics are
        close to the identity, which no transform changes.
    seed : int
        Seed of the random starts. The same seed gives the same result, whatever else is aligned in the same call.
    certificate : "fast", "tight" or "auto"
        How the lower bound is computed. "fast": from spectra, some microseconds a pair; often 15% below the distance
        at n = 20. "tight": by a semidefinite program in addition, often within 1%. It takes milliseconds a pair at
        n = 10, a tenth of a second at n = 20 and about 2 s at n = 30; n is at most 50. "auto": "tight" for the pairs
        with n <= 12 whose fast bound is more than 5% below the distance.
    device : str or torch.device, optional
        Where the alignments are computed; by default where ``a`` is. "auto" takes CUDA if there is a device.

    Returns
    -------
    Alignment
        Distances in rad. For two single operators its fields have no axis of pairs.

    Raises
    ------
    DataError
        Operators that are not square, differ in size, hold NaN or complex numbers, or are zero (or a multiple of the
        identity where the trace is removed), which have no direction.
    """
    device = as_device(device)
    a, b = as_operators(a, "a", device), as_operators(b, "b", device)
    single = a.ndim == b.ndim == 2
    a, b = (x[None] if x.ndim == 2 else x for x in (a, b))
    if a.shape[-1] != b.shape[-1]:
        raise DataError(f"operators of different size, {a.shape[-1]} and {b.shape[-1]}: fit both systems at one rank")
    if len(a) != len(b):
        raise DataError(f"{len(a)} operators came as a and {len(b)} as b; pairs need as many of each")
    names = ["a", "b"] if single else [f"{side}[{i}]" for side in "ab" for i in range(len(a))]
    operators = torch.cat([a, b.to(a)])
    kept, number = distinct(operators)
    result = align_pairs(
        operators[kept],
        number[: len(a)],
        number[len(a) :],
        n_starts=n_starts,
        group=group,
        remove_trace=remove_trace,
        seed=seed,
        certificate=certificate,
        names=[names[i] for i in kept.tolist()],
    )
    return Alignment(*(x[0] for x in vars(result).values())) if single else result


def distinct(operators: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of the distinct operators comes first, in this order, and which of these each of the (N, n, n) is."""
    n_operators = len(operators)
    _, number = operators.flatten(1).unique(dim=0, return_inverse=True)
    position = torch.arange(n_operators, device=operators.device)
    first = torch.full_like(position, n_operators).scatter_reduce(0, number, position, "amin")[number]
    kept, number = first.unique(return_inverse=True)
    return kept, number


def as_operators(operators: Any, name: str, device: torch.device | None = None) -> Tensor:
    """Float64 tensor (n, n) or (P, n, n) of operators, where the first of them lies; ``name`` is used in messages."""
    operators = getattr(operators, "matrix", operators)
    if isinstance(operators, Sequence) and not isinstance(operators, str):
        tensors = [as_operators(operator, f"{name}[{i}]", device) for i, operator in enumerate(operators)]
        sizes = sorted({tensor.shape[-1] for tensor in tensors})
        if not tensors or any(tensor.ndim != 2 for tensor in tensors):
            raise DataError(f"{name} is a list, which has to hold matrices (n, n), at least one")
        if len(sizes) > 1:
            raise DataError(
                f"{name} holds operators of different size, {', '.join(map(str, sizes))}: fit all systems at one rank"
            )
        return torch.stack([tensor.to(tensors[0].device) for tensor in tensors])
    try:
        tensor = torch.as_tensor(operators).detach()
    except (TypeError, RuntimeError):
        raise DataError(
            f"{name} came as {type(operators).__name__}; operators are square matrices of numbers"
        ) from None
    if tensor.is_complex():
        raise DataError(f"{name} is complex; operators are real")
    if tensor.ndim not in (2, 3) or tensor.shape[-1] != tensor.shape[-2] or not tensor.shape[-1]:
        raise DataError(f"{name} has shape {tuple(tensor.shape)}; operators are (n, n) or (n_pairs, n, n)")
    if not bool(torch.isfinite(tensor).all()):
        raise DataError(f"{name} holds NaN or infinity")
    return tensor.to(device=device, dtype=torch.float64)


def align_pairs(
    operators: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    n_starts: int | str = "auto",
    group: str = "O",
    remove_trace: bool = False,
    seed: int = 0,
    certificate: str = "fast",
    names: Sequence[str] = (),
) -> Alignment:
    """Align ``operators[second[p]]`` to ``operators[first[p]]`` for every pair p.

    ``operators`` is (N, n, n) float64, and ``first`` and ``second`` are (P,) indices into it. What depends on one
    operator is computed once. ``names`` are the names of the operators in messages. Otherwise as `align`.
    """
    check_starts(n_starts)
    check_seed(seed)
    check_choice("group", group, ("O", "SO"))
    check_choice("certificate", certificate, CERTIFICATES)
    n, device = operators.shape[-1], operators.device
    if certificate == "tight" and n > TIGHT_AT_MOST:
        raise DataError(
            f"certificate = 'tight' needs operators of size {TIGHT_AT_MOST} or less, and these have {n}; "
            "certificate='fast' takes any size"
        )
    prepared = prepare(operators, remove_trace, names)
    waves = Waves(default_starts(n, device) if n_starts == "auto" else int(n_starts), n, seed, operators)
    swapped = comes_later(operators[first], operators[second])
    low, high = torch.where(swapped, second, first), torch.where(swapped, first, second)
    cosine = spectral_bound(prepared.core, low, high)

    block = pairs_at_once(n, device)
    parts = zip(low.split(block), high.split(block), cosine.split(block), strict=True)
    solved = [result for i, j, bound in parts for result in solve(prepared, i, j, bound, waves, group)]
    core, agreement, slope = (torch.cat(part) for part in zip(*solved, strict=True))

    transform = ordered_product(ordered_product(prepared.planes[low], core), prepared.planes[high].mT)
    distance = _angle(prepared.whole[low], ordered_conjugate(transform, prepared.whole[high]))
    bound = prepared.angle(low, high, cosine)
    if certificate != "fast":
        loose = distance - bound >= CERTIFIED
        if certificate == "auto":
            loose &= (bound < 0.95 * distance) & (n <= AUTO_AT_MOST)
        for p in loose.nonzero()[:, 0].tolist():
            i, j = low[p], high[p]
            A, B, C = (x.cpu().numpy() for x in (prepared.core[i], prepared.core[j], core[p]))
            tight = tight_bound(A, B, C)
            bound[p] = torch.maximum(bound[p], prepared.angle(i, j, torch.full_like(cosine[p], tight)))
    return Alignment(
        distance=distance,
        lower_bound=torch.minimum(bound, distance),  # they may cross by rounding where the bound is tight
        transform=torch.where(swapped[:, None, None], transform.mT, transform),
        agreement=agreement,
        converged=slope < CONVERGED,
    )


def sweep_through_others(
    operators: Tensor, first: Tensor, second: Tensor, found: Alignment, *, remove_trace: bool = False
) -> Alignment:
    """Start each pair once more, from C_ah C_hb through the third systems h to which both are already aligned.

    Related systems help each other: from 4 starts, two sweeps hit as often as 16 starts at half of their time, among
    recordings of one kind. The distance of a pair then depends on which other systems are there.

    Parameters
    ----------
    operators, first, second, remove_trace
        As in `align_pairs`.
    found : Alignment
        What it made of them. All orthogonal transforms are allowed.

    Returns
    -------
    Alignment
        The same or higher tops; ``agreement`` is 0 where none of a pair's own climbs had found its own.
    """
    prepared, n, n_pairs = prepare(operators, remove_trace, ()), operators.shape[-1], len(first)
    pair = first.new_full((len(operators), len(operators)), n_pairs)
    pair[first, second] = torch.arange(n_pairs, device=first.device)
    backward = pair.mT  # the transform of (b, a) is that of (a, b) transposed
    solved, turned = pair < n_pairs, backward < n_pairs
    number = torch.where(solved, pair, backward)
    far = torch.cat([found.distance, found.distance.new_full((1,), torch.inf)])[number]  # (N, N)

    def transforms(a: Tensor, b: Tensor) -> Tensor:
        """C_ab (P, H, n, n), of pairs that are solved one way or the other."""
        C = found.transform[number[a, b].clamp_max(n_pairs - 1)]
        return torch.where((turned & ~solved)[a, b][..., None, None], C.mT, C)

    results = []
    for part in torch.arange(n_pairs, device=first.device).split(pairs_at_once(n, operators.device)):
        a, b = first[part], second[part]
        way, via = (far[a] + far[b]).topk(min(8, len(operators)), 1, largest=False)  # (P, H)
        C = transforms(a[:, None].expand_as(via), via) @ transforms(via, b[:, None].expand_as(via))
        C = torch.where(way.isfinite()[..., None, None], C, found.transform[part][:, None])
        C = prepared.planes[a].mT[:, None] @ C @ prepared.planes[b][:, None]
        A, B = prepared.core[a], prepared.core[b]
        best = inner(A[:, None], conjugate(C, B[:, None])).topk(min(3, C.shape[1]), 1)[1]
        C = C.gather(1, best[..., None, None].expand(-1, -1, n, n))
        C, _, _ = climb_all(A, B, C, 1, torch.float32, n_steps=24, n_inner=8, tolerance=1e-4)
        C, _, slope = climb_all(A, B, C, 1, A.dtype, n_steps=100, n_inner=25, tolerance=1e-9)
        transform = ordered_product(ordered_product(prepared.planes[a], C[:, 0]), prepared.planes[b].mT)
        distance = _angle(prepared.whole[a], ordered_conjugate(transform, prepared.whole[b]))
        results.append((distance, transform, slope[:, 0] < CONVERGED))
    distance, transform, converged = (torch.cat(parts) for parts in zip(*results, strict=True))
    better = distance < found.distance - 1e-9
    return Alignment(
        distance=torch.where(better, distance, found.distance),
        lower_bound=found.lower_bound,
        transform=torch.where(better[:, None, None], transform, found.transform),
        agreement=torch.where(better, 0.0, found.agreement),
        converged=torch.where(better, converged, found.converged),
    )


def check_starts(n_starts: int | str) -> None:
    """Refuse a budget that is neither a whole number of at least 1 nor "auto"."""
    if n_starts != "auto":
        check_count("n_starts", n_starts, 1, MOST_REPEATS)


def pairs_at_once(n: int, device: torch.device) -> int:
    """How many pairs of operators (n, n) are solved side by side."""
    return max(1, 16 * batch_numbers(device) // (n * n * WAVE))


def comes_later(a: Tensor, b: Tensor) -> Tensor:
    """Whether a (P, n, n) comes after b by their first differing entries: either order of a pair is solved as one."""
    difference = (a - b).flatten(1)
    return difference.gather(1, (difference != 0).to(torch.int8).argmax(1, keepdim=True))[:, 0] > 0


def _angle(A: Tensor, M: Tensor) -> Tensor:
    """Angle of unit (P, n, n), from difference and sum: the cosine cannot tell angles below 1e-8 from 0."""
    return 2 * torch.atan2(ordered_norm(A - M), ordered_norm(A + M))
