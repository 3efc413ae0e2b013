"""Procrustes analysis over vector fields: how far apart are two linear dynamics, in whatever coordinates they come?

    distance(A, B) = min over C of the angle between A and C B C^T = arccos max_C <A, C B C^T> / (|A| |B|),   C in O(n)

(Ostrow et al. 2023, arXiv 2306.10168, eq. 6), for many pairs at once, with a lower bound that no C can beat.

The objective.  With M = C B C^T and S, K symmetric and skew parts, <A, M> = <S_A, S_M> + <K_A, K_M>. A step
C <- exp(W) C, W skew, changes M by [W, M] + [W, [W, M]] / 2 + ..., and so the objective by <G, W> - <W, H W> / 2 + ...,

    G = [S_A, S_M] - [K_A, K_M],      H W = [[W, S_M], S_A] - [[W, K_M], K_A] + [W, G] / 2.

The climb is a trust-region Newton method with Steihaug's conjugate gradients (Nocedal & Wright, Numerical Optimization,
ch. 7). It needs few steps once A is written in the planes in which it rotates (Youla's canonical form of K_A): there H
of a normal A = M is diagonal on planes, which gives the preconditioner.

The landscape has local maxima, hence several starts. One is built and exact for B = Q A Q^T if S_A has distinct
eigenvalues; the others are Haar-random, of both determinants, and the same for every pair, so that a pair's result does
not depend on its company. They come in waves: all starts of a wave climb some steps in single precision, the better
ones climb on, the best few to the top. A pair whose highest top was reached only once or twice takes another wave, up
to its budget. The highest tops end in double precision.

The loops hold only batched matrix products and elementwise operations, so the same code runs on CPU and CUDA.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dsa_analysis.data import DataError, as_device, check_choice, check_count

WAVE = 32  # starts climbed side by side
# (Newton steps, conjugate-gradient steps in each, share of the starts that climbs on): the early leaders mostly win
ROUNDS = ((8, 5, 1 / 2), (8, 8, 1 / 4), (10, 8, 1 / 8), (100, 15, 1 / 8))
# climbs that end at the same top; at n = 20 three agree on one that is not the highest in about 4 pairs of 100
ENOUGH = 4
CONVERGED = 1e-6  # slope below which a gradient counts as vanished


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
        Share of the climbs that were finished and ended at this optimum (cosines within 1e-5). Low values tell that
        the budget was spent before the climbs agreed: ask for a larger ``n_starts``.
    converged : (P,) bool
        Whether the gradient vanished at ``transform``.
    gap : (P,), rad
        ``distance - lower_bound``: by how much the true distance can be smaller than the one found, at most.
    """

    distance: Tensor
    lower_bound: Tensor
    transform: Tensor
    agreement: Tensor
    converged: Tensor

    @property
    def gap(self) -> Tensor:
        return self.distance - self.lower_bound


def default_starts(n: int) -> int:
    """The most starts a pair of operators (n, n) takes unless told otherwise.

    Operators of recordings with n <= 10 mostly need one wave, with n = 20 two, with n = 30 three to five. From n = 50
    on a start costs a hundred times what it does at n = 10, and hardly any two find the same top.
    """
    return 6 * WAVE if n <= 32 else 2 * WAVE


def align(
    a: Any,
    b: Any,
    *,
    n_starts: int | str = "auto",
    group: str = "O",
    remove_trace: bool = False,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> Alignment:
    """Align each operator of ``b`` to its partner in ``a``.

    Parameters
    ----------
    a, b : (n, n) or (P, n, n)
        Square matrices, ``Operator`` objects, or sequences of either. All of one size.
    n_starts : int >= 1, or "auto"
        Climbs per pair at most: the budget. They come in waves of 32, and no further wave where four climbs have ended
        at the highest top. "auto": 192 for n up to 32, 64 beyond.
    group : "O" or "SO"
        All orthogonal transforms, or rotations only. For odd n both give the same distance, since -C does what C does.
    remove_trace : bool
        Compare A - tr(A)/n I. The transform is the same, the distances are spread out: operators of slow dynamics are
        near the identity, which every transform leaves in place.
    seed : int
        Of the random starts. The same seed gives the same result, whatever else is aligned in the same call.

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
    first = torch.arange(len(a), device=a.device)
    names = ["a", "b"] if single else [f"{side}[{i}]" for side in "ab" for i in range(len(a))]
    result = align_pairs(
        torch.cat([a, b.to(a)]),
        first,
        first + len(a),
        n_starts=n_starts,
        group=group,
        remove_trace=remove_trace,
        seed=seed,
        names=names,
    )
    return Alignment(*(x[0] for x in vars(result).values())) if single else result


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
    names: Sequence[str] = (),
) -> Alignment:
    """Align ``operators[second[p]]`` to ``operators[first[p]]`` for every pair p.

    ``operators`` is (N, n, n) float64, ``first`` and ``second`` are (P,) indices into it; what belongs to one operator
    is computed once. ``names`` are what messages call the operators. Otherwise as `align`.
    """
    check_starts(n_starts)
    check_count("seed", seed, 0)
    check_choice("group", group, ("O", "SO"))
    n = operators.shape[-1]
    prepared = _prepare(operators, remove_trace, names)
    waves = _waves(default_starts(n) if n_starts == "auto" else int(n_starts), n, seed, operators)
    swapped = _comes_later(operators[first], operators[second])
    low, high = torch.where(swapped, second, first), torch.where(swapped, first, second)

    block = pairs_at_once(n, operators.device)
    results = [
        solved
        for i, j in zip(low.split(block), high.split(block), strict=True)
        for solved in _solve_what_fits(prepared, i, j, waves, group)
    ]
    transform, agreement, slope = (torch.cat(parts) for parts in zip(*results, strict=True))

    distance = _angle(prepared.whole[low], _conjugate(transform, prepared.whole[high]))
    bound = _cosine_bound(prepared, low, high).clamp(-1, 1).arccos()
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
    prepared, n, n_pairs = _prepare(operators, remove_trace, ()), operators.shape[-1], len(first)
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
        best = _inner(A[:, None], _conjugate(C, B[:, None])).topk(min(3, C.shape[1]), 1)[1]
        C = C.gather(1, best[..., None, None].expand(-1, -1, n, n))
        C, _, _ = _climb_all(A, B, C, 1, torch.float32, n_steps=24, n_inner=8, tolerance=1e-4)
        C, _, slope = _climb_all(
            A, B, _orthogonalise(C[:, 0].to(A))[:, None], 1, A.dtype, n_steps=100, n_inner=25, tolerance=1e-9
        )
        transform = prepared.planes[a] @ C[:, 0] @ prepared.planes[b].mT
        distance = _angle(prepared.whole[a], _conjugate(transform, prepared.whole[b]))
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
        check_count("n_starts", n_starts)


def pairs_at_once(n: int, device: torch.device) -> int:
    """How many pairs of operators (n, n) are solved side by side."""
    return max(1, 16 * _batch_numbers(device) // (n * n * WAVE))


class _Prepared(NamedTuple):
    """What is known of each of N operators before any pair is looked at."""

    whole: Tensor  # (N, n, n) what the angle is taken of, unit norm
    core: Tensor  # (N, n, n) without trace, unit norm, in the planes of rotation
    planes: Tensor  # (N, n, n) those planes as columns: whole = share * planes core planes^T + trace part
    share: Tensor  # (N,) norm of the traceless part of ``whole``
    trace: Tensor  # (N,) its trace part: the cosine is share_a share_b <core_a, C core_b C^T> + trace_a trace_b
    axes: Tensor  # (N, n, n) eigenvectors of the symmetric part of ``core``


def _prepare(operators: Tensor, remove_trace: bool, names: Sequence[str]) -> _Prepared:
    n = operators.shape[-1]
    eye = torch.eye(n, dtype=operators.dtype, device=operators.device)
    mean = operators.diagonal(dim1=-2, dim2=-1).mean(-1)
    traceless = operators - mean[:, None, None] * eye
    whole = traceless if remove_trace else operators
    scale, size = operators.abs().amax((-1, -2)), _norm(traceless)
    # a multiple of the identity leaves rounding behind when its trace is taken away
    without_direction = (scale == 0) | ((size <= 1e-14 * n * scale) & remove_trace)
    if bool(without_direction.any()):
        which = int(without_direction.nonzero()[0])
        what = "zero" if scale[which] == 0 else "a multiple of the identity, and zero without its trace"
        name = names[which] if names else f"operator {which}"
        raise DataError(f"{name} is {what}: it has no direction, and so no angle to another")
    total = _norm(whole)
    core = traceless / torch.where(size > 1e-14 * n * scale, size, torch.inf)[:, None, None]
    planes = _rotation_planes(_split(core)[1])
    core = _conjugate(planes.mT, core)
    return _Prepared(
        whole=whole / total[:, None, None],
        core=core,
        planes=planes,
        share=size / total,
        trace=torch.zeros_like(mean) if remove_trace else mean * n**0.5 / total,
        axes=torch.linalg.eigh(_split(core)[0])[1],
    )


_Solved = tuple[Tensor, Tensor, Tensor]  # transform (P, n, n), agreement and slope left, both (P,)


def _solve_what_fits(prepared: _Prepared, i: Tensor, j: Tensor, waves: list[Tensor], group: str) -> list[_Solved]:
    """`_solve` for all pairs, or, where the memory of a GPU does not suffice, for one half after the other."""
    try:
        return [_solve(prepared, i, j, waves, group)]
    except torch.cuda.OutOfMemoryError:
        if len(i) == 1:
            raise
    half = len(i) // 2  # past the except clause, which holds on to the tensors of the failed attempt
    warnings.warn(f"{i.device} ran out of memory with {len(i)} pairs at once; going on with {half}", stacklevel=4)
    halves = (i[:half], j[:half]), (i[half:], j[half:])
    return [solved for pairs in halves for solved in _solve_what_fits(prepared, *pairs, waves, group)]


def _solve(prepared: _Prepared, i: Tensor, j: Tensor, waves: list[Tensor], group: str) -> _Solved:
    """Solve the pairs i, j from ``waves`` of random starts, (W, n, n) each; the built start is one of the first."""
    A, B = prepared.core[i], prepared.core[j]
    built = _built_start(A, B, prepared.axes[i], prepared.axes[j])[:, None]
    # the starts are rotations between planes, which may be oriented either way themselves
    orientation = torch.linalg.det(prepared.planes[i]) * torch.linalg.det(prepared.planes[j])
    n_best = min(2, 1 + len(waves[0]))
    best, agreement = A.new_empty(len(i), n_best, *A.shape[1:]), A.new_empty(len(i))
    left = torch.arange(len(i), device=A.device)
    tops, heights = A.new_empty(len(i), 0, *A.shape[1:]), A.new_empty(len(i), 0)
    for number, wave in enumerate(waves):
        C = wave.expand(len(left), -1, -1, -1)
        C = C if number else torch.cat([built, C], 1)
        if group == "SO" and C.shape[-1] % 2 == 0:
            wrong = torch.linalg.det(C) * orientation[left, None] < 0
            C = torch.where(wrong[..., None, None], _mirror(C), C)
        n_starts = C.shape[1]
        for n_steps, n_inner, share in ROUNDS:
            keep = min(n_starts, max(4, round(share * n_starts)))
            C, f, _ = _climb_all(
                A[left], B[left], C, keep, torch.float32, n_steps=n_steps, n_inner=n_inner, tolerance=1e-4
            )
        tops, heights = torch.cat([tops, C.to(A)], 1), torch.cat([heights, f.to(A)], 1)
        reached = (heights.amax(1, keepdim=True) - heights < 1e-5).sum(1)
        done = (reached >= ENOUGH) | (number == len(waves) - 1)
        highest = heights[done].topk(n_best, 1)[1]
        best[left[done]] = tops[done].gather(1, highest[..., None, None].expand(-1, -1, *A.shape[1:]))
        agreement[left[done]] = reached[done].to(A) / heights.shape[1]
        left, tops, heights = (x[~done] for x in (left, tops, heights))
        if not len(left):
            break
    best = _orthogonalise(best.flatten(0, 1)).view(best.shape)
    C, _, slope = _climb_all(A, B, best, 1, A.dtype, n_steps=100, n_inner=25, tolerance=1e-9)
    return prepared.planes[i] @ C[:, 0] @ prepared.planes[j].mT, agreement, slope[:, 0]


def _climb_all(
    A: Tensor, B: Tensor, C: Tensor, keep: int, dtype: torch.dtype, **budget: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Climb from each C (P, R, n, n): the ``keep`` highest of R for each pair, their cosines and their slopes."""
    n_pairs, n_climbs, n, _ = C.shape
    pair = torch.arange(n_pairs, device=C.device).repeat_interleave(n_climbs)
    A, B, C = A.to(dtype), B.to(dtype), C.flatten(0, 1).to(dtype)
    batch = max(1, _batch_numbers(C.device) // n**2)
    parts = [_climb(A[p], B[p], c, **budget) for p, c in zip(pair.split(batch), C.split(batch), strict=True)]
    C, f, slope = (torch.cat(part).unflatten(0, (n_pairs, n_climbs)) for part in zip(*parts, strict=True))
    f, best = f.topk(keep, 1)
    return C[torch.arange(n_pairs, device=C.device)[:, None], best], f, slope.gather(1, best)


def _climb(
    A: Tensor, B: Tensor, C: Tensor, n_steps: int, n_inner: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Local maximum of <A, C B C^T> from each C (P, n, n): that C, its cosine and the slope there, both (P,).

    A is in its planes, and |A| = |B| = 1.
    """
    n, slack = C.shape[-1], 50 * torch.finfo(C.dtype).eps
    identity = torch.eye(n, dtype=C.dtype, device=C.device)
    SA, KA = _split(A)
    M = _conjugate(C, B)
    f, radius = _inner(A, M), torch.full(C.shape[:1], n**0.5 / 2, dtype=C.dtype, device=C.device)
    out_C, out_f, out_slope, alive = C.clone(), f.clone(), torch.empty_like(f), torch.arange(len(C), device=C.device)
    for step in range(n_steps + 1):
        SM, KM = _split(M)
        G = SA @ SM - KA @ KM
        G = G - G.mT
        slope = _norm(G)
        done = (slope < tolerance) | (radius < 1e-10) | (step == n_steps)
        if bool(done.any()):
            out_C[alive[done]], out_f[alive[done]], out_slope[alive[done]] = C[done], f[done], slope[done]
            A, SA, KA, SM, KM, M, C, f, radius, alive, G, slope = (
                x[~done] for x in (A, SA, KA, SM, KM, M, C, f, radius, alive, G, slope)
            )
            if not len(alive):
                break
        W, gain, length = _newton_step(
            G, _hessian(SA, KA, SM, KM, G), _plane_preconditioner(SA, KA, SM, KM), radius, n_inner,
            precise=(slope / 0.3).clamp(1e-6, 1e-2),
        )  # fmt: skip
        widest = (W @ W).abs().sum(-1).amax(-1)[:, None, None]  # at least the squared spectral norm of W
        Q = _orthogonalise((identity + W) * (1 + widest / 2).rsqrt())  # agrees with exp(W) to second order
        M_new = _conjugate(Q, M)
        f_new = _inner(A, M_new)
        quality = (f_new - f + slack) / (gain + slack)
        good = quality > 0.05
        wider = torch.where((quality > 0.75) & (length > 0.9 * radius), (2 * radius).clamp_max(1.5 * n**0.5), radius)
        radius = torch.where(quality < 0.25, 0.25 * torch.minimum(radius, length), wider)
        radius = torch.where(good & (gain < slack), 0.0, radius)  # nothing left that this precision can resolve
        M, C = (torch.where(good[:, None, None], new, old) for new, old in ((M_new, M), (Q @ C, C)))
        f = torch.where(good, f_new, f)
    return out_C, out_f, out_slope


def _newton_step(
    G: Tensor,
    hessian: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    radius: Tensor,
    n_inner: int,
    precise: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Maximise <G, W> - <W, H W> / 2 within |W| <= radius (Steihaug): W (P, n, n), gain and length of W, both (P,)."""
    tiny = torch.finfo(G.dtype).tiny
    W, R = torch.zeros_like(G), G
    D = Z = precondition(R)
    rz = dd = _inner(R, Z)
    ww = wd = gain = torch.zeros_like(rz)
    enough, going = rz * precise, torch.ones_like(rz, dtype=torch.bool)
    for _ in range(n_inner):
        HD = hessian(D)
        dhd = _inner(D, HD)
        a = rz / torch.where(dhd.abs() > tiny, dhd, tiny)
        edge = (dhd <= 0) | (ww + 2 * a * wd + a * a * dd >= radius**2)
        to_edge = (-wd + (wd**2 + dd * (radius**2 - ww).clamp_min(0)).sqrt()) / dd.clamp_min(tiny)
        a = torch.where(edge, to_edge, a) * going
        gain, ww = gain + a * rz - a * a * dhd / 2, ww + 2 * a * wd + a * a * dd
        W, R = torch.addcmul(W, a[:, None, None], D), torch.addcmul(R, a[:, None, None], HD, value=-1)
        Z = precondition(R)
        rz_new = _inner(R, Z)
        going = going & ~edge & (rz_new > enough)
        if not bool(going.any()):
            break
        b = torch.where(going, rz_new / rz.clamp_min(tiny), 0.0)
        wd, dd, rz, D = b * (wd + a * dd), rz_new + b * b * dd, rz_new, torch.addcmul(Z, b[:, None, None], D)
    return W, gain, ww.clamp_min(0).sqrt()


def _hessian(SA: Tensor, KA: Tensor, SM: Tensor, KM: Tensor, G: Tensor) -> Callable[[Tensor], Tensor]:
    """W -> [[W, S_M], S_A] - [[W, K_M], K_A] + [W, G] / 2, minus the second derivative of the objective."""
    n = G.shape[-1]
    inner, outer = torch.cat([SM, KM, G / 2], -1), torch.cat([SA, -KA], -2)

    def apply(W: Tensor) -> Tensor:
        X = W @ inner
        WS, WK, WG = X[..., :n], X[..., n : 2 * n], X[..., 2 * n :]
        Z = torch.baddbmm(
            WG, torch.cat([WS + WS.mT, WK - WK.mT], -1), outer
        )  # commutators: (W S)^T = -S W, (W K)^T = K W
        return Z - Z.mT

    return apply


def _plane_preconditioner(
    SA: Tensor, KA: Tensor, SM: Tensor, KM: Tensor, floor: float = 1e-2
) -> Callable[[Tensor], Tensor]:
    """R -> about H^-1 R: exact where A = M is normal and written in its planes, on which it acts as complex numbers z.

    The 2 x 2 block of W between planes a and b has a complex-linear part, which H multiplies by |z_a - z_b|^2, and an
    antilinear one, multiplied by |z_a - conj z_b|^2. Coordinates are (x_1 .. x_h, y_1 .. y_h), with x_a and y_a
    spanning plane a; the line left over in odd n is a plane whose two directions are one.
    """
    n, h = SA.shape[-1], SA.shape[-1] // 2
    index = torch.arange(n, device=SA.device)
    x, y, plane = torch.cat([index[:h], index[2 * h :]]), index[h:], torch.where(index < 2 * h, index % max(h, 1), h)
    S, K = (SA + SM) / 2, (KA + KM) / 2
    diagonal, power = S.diagonal(dim1=-2, dim2=-1), (S * S + K * K).sum(-1)
    mean, spread, power = (
        (diagonal[:, x] + diagonal[:, y]) / 2,
        diagonal[:, x] - diagonal[:, y],
        power[:, x] + power[:, y],
    )
    s, w = S[:, y, x], K[:, y, x]
    base = (power[:, :, None] + power[:, None]) / 2 - 2 * mean[:, :, None] * mean[:, None]
    linear, anti = (base + sign * 2 * w[:, :, None] * w[:, None] for sign in (-1, 1))
    linear.diagonal(dim1=-2, dim2=-1).copy_(power - 2 * (mean**2 + w**2) + spread**2 / 2 + 2 * s**2)
    scale = base.mean((-1, -2))[:, None, None].clamp_min(1e-30)
    linear, anti = (0.5 / (weight / scale).clamp_min(floor) for weight in (linear, anti))
    own, other = (linear + anti)[:, plane][:, :, plane], (linear - anti)[:, :h, :h].contiguous()
    low, high = slice(0, h), slice(h, 2 * h)

    def apply(R: Tensor) -> Tensor:
        Z = own * R
        for rows, columns, partner_rows, partner_columns, sign in (
            (low, low, high, high, 1),
            (high, high, low, low, 1),
            (low, high, high, low, -1),
            (high, low, low, high, -1),
        ):
            Z[:, rows, columns].addcmul_(other, R[:, partner_rows, partner_columns], value=sign)
        return Z

    return apply


def _built_start(A: Tensor, B: Tensor, axes_A: Tensor, axes_B: Tensor) -> Tensor:
    """C = E_A diag(e) E_B^T, E eigenvectors of symmetric parts; exact for B = Q A Q^T with distinct eigenvalues there.

    The signs e maximise e^T W e, W = (E_A^T A E_A) o (E_B^T B E_B) without diagonal, by its leading eigenvector and two
    sweeps. For a conjugate pair W = D |W| D with D the signs sought, and Perron-Frobenius gives them; the sweeps settle
    what the eigenvector leaves open.
    """
    W = _split(_conjugate(axes_A.mT, A) * _conjugate(axes_B.mT, B))[0]
    W = W - torch.diag_embed(W.diagonal(dim1=-2, dim2=-1))
    signs = torch.where(torch.linalg.eigh(W)[1][..., -1] < 0, -1.0, 1.0).to(W)
    for i in 2 * list(range(W.shape[-1])):
        signs[:, i] = torch.where((W[:, i] * signs).sum(-1) < 0, -1.0, 1.0)
    return (axes_A * signs[:, None]) @ axes_B.mT


def _cosine_bound(prepared: _Prepared, first: Tensor, second: Tensor, n_weights: int = 8, ratio: float = 1.4) -> Tensor:
    """Upper bound (P,) of the cosine over all C, from spectra alone.

    Let x = <S_A, S_M>, y = <K_A, K_M>. The Hermitian matrices S_A + iu K_A and S_M + iv K_M have the inner product
    x + uv y, which is at most g(u, v), the sum of products of their sorted eigenvalues (von Neumann), and the
    eigenvalues are those of S_B + iv K_B whatever C is. Hence x + w y <= min over uv = w of g for every w, and any
    convex combination of two such w with mean 1 bounds x + y.
    """
    k, exponents = n_weights, torch.arange(-2 * n_weights, 2 * n_weights + 1, device=first.device)
    w = ratio ** exponents.to(prepared.core)
    S, K = _split(prepared.core)
    spectra = torch.linalg.eigvalsh(
        torch.complex(S[:, None].expand(-1, 2 * k + 1, -1, -1), w[k:-k, None, None] * K[:, None])
    )
    g = torch.einsum("pan,pbn->pab", spectra[first], spectra[second]).flip(-1)  # uv is constant on diagonals
    g = torch.stack([g.diagonal(d, 1, 2).amin(-1) for d in range(2 * k, -2 * k - 1, -1)], 1)
    w_low, low, w_high, high = w[: 2 * k + 1, None], g[:, : 2 * k + 1, None], w[2 * k + 1 :], g[:, None, 2 * k + 1 :]
    core = ((low * (w_high - 1) + high * (1 - w_low)) / (w_high - w_low)).amin((1, 2))
    return prepared.share[first] * prepared.share[second] * core + prepared.trace[first] * prepared.trace[second]


def _rotation_planes(K: Tensor) -> Tensor:
    """Orthonormal bases (N, n, n) in which skew K is [[0, -w], [w, 0]] with w diagonal and descending (Youla's form).

    Columns are (x_1 .. x_h, y_1 .. y_h), for odd n followed by the axis that K does not move.
    """
    n, h = K.shape[-1], K.shape[-1] // 2
    U = torch.linalg.eigh(torch.complex(torch.zeros_like(K), K))[1].flip(-1)
    columns = [U[..., :h].real, -U[..., :h].imag]
    if n % 2:  # real up to a phase
        kernel = U[..., h : h + 1]
        columns.append((kernel * (kernel**2).sum(-2, keepdim=True).conj().sqrt()).real)
    Q, R = torch.linalg.qr(torch.cat(columns, -1))  # planes with w near 0 are arbitrary and may come out skewed
    return Q * torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(Q)[..., None, :]


def _waves(n_starts: int, n: int, seed: int, like: Tensor) -> list[Tensor]:
    """Random starts (W, n, n) of each wave, all but the built one; those of a wave are the same at any budget."""
    generator, waves = torch.Generator().manual_seed(seed), []
    for begin in range(0, n_starts, WAVE):
        built = begin == 0
        waves.append(_haar(WAVE, n, generator, like)[built:][: n_starts - begin - built])
    return waves


def _haar(n_matrices: int, n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Uniformly random orthogonal matrices (n_matrices, n, n), the same on every device."""
    Q, R = torch.linalg.qr(torch.randn(n_matrices, n, n, generator=generator, dtype=torch.float64))
    return (Q * torch.sgn(R.diagonal(dim1=-2, dim2=-1))[..., None, :]).to(like)


def _mirror(C: Tensor) -> Tensor:
    """C with its first column turned round: the other determinant."""
    return torch.cat([-C[..., :1], C[..., 1:]], -1)


def _orthogonalise(Q: Tensor) -> Tensor:
    """Orthogonal polar factor of (P, n, n) with singular values in (0, 1.5), by third-order Newton-Schulz steps."""
    identity, small = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device), 0.1 * torch.finfo(Q.dtype).eps ** (1 / 3)
    going = torch.ones(len(Q), 1, 1, dtype=torch.bool, device=Q.device)
    for _ in range(30):
        E = identity - Q.mT @ Q
        # each matrix takes the steps it needs itself, whatever the others in the batch need
        Q = Q + Q @ (E / 2 + 0.375 * E @ E) * going
        going = going & (E.abs().amax((-1, -2), keepdim=True) >= small)
        if not bool(going.any()):
            break
    return Q


def _comes_later(a: Tensor, b: Tensor) -> Tensor:
    """Whether a (P, n, n) comes after b by their first differing entries: either order of a pair is solved as one."""
    difference = (a - b).flatten(1)
    return difference.gather(1, (difference != 0).to(torch.int8).argmax(1, keepdim=True))[:, 0] > 0


def _batch_numbers(device: torch.device) -> int:
    """Numbers in a working array: a fraction of the cache on a CPU, enough to fill a GPU."""
    return 200_000 if device.type == "cpu" else 10_000_000


def _angle(A: Tensor, M: Tensor) -> Tensor:
    """Angle of unit (P, n, n), from difference and sum: the cosine cannot tell angles below 1e-8 from 0."""
    return 2 * torch.atan2(_norm(A - M), _norm(A + M))


def _split(A: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric and skew part of (..., n, n)."""
    return (A + A.mT) / 2, (A - A.mT) / 2


def _inner(X: Tensor, Y: Tensor) -> Tensor:
    return (X * Y).sum((-1, -2))


def _norm(X: Tensor) -> Tensor:
    return _inner(X, X).sqrt()


def _conjugate(C: Tensor, B: Tensor) -> Tensor:
    return C @ B @ C.mT
