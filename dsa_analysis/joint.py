"""Alignment of operators with inputs: how far apart are two driven linear systems x(t + 1) = A x(t) + B u(t)?

One orthogonal C turns the states of one system into those of the other, A' into C A' C^T and B' into C B':

    similarity(C) = w cos(A, C A' C^T) + (1 - w) gain(B, C B'),        distance = arccos max over C in O(n) of it,

    cos(X, Y) = <X, Y> / (|X| |Y|),        gain(X, Y) = 2 <X, Y> / (|X|^2 + |Y|^2).

Both terms are 1 if their matrices are the same. The first does not depend on the size of A, as in DSA. The second does
on the size of B: with a single input, turning aligns any two B, and how strongly the input acts is all there is to
compare. For equal sizes it is the cosine; a factor k between equal matrices gives 2 k / (1 + k^2).

Both are inner products of unit vectors (gain is the cosine times 1 / cosh log |X|/|Y|, a positive definite kernel of
the log sizes), and so is their mean. The distance is therefore an angle: symmetric, with the triangle inequality, and 0
only for systems that are the same in other orthonormal coordinates. With w = 1 it is the angle of `alignment`; with
w = 0 it has a closed form, orthogonal Procrustes analysis (Schoenemann 1966). Between, the objective is that of
`alignment` with a linear term,

    <a A, C A' C^T> + <L, C>,        L = (1 - w) 2 B B'^T / (|B|^2 + |B'|^2),

which enters gradient, Hessian and built starts of the same climbs. No C exceeds the bound of the first term plus |L|_*,
the sum of the singular values of L.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dsa_analysis.alignment import Alignment, check_starts, comes_later, default_starts, distinct, pairs_at_once
from dsa_analysis.certificate import spectral_bound
from dsa_analysis.climb import one_by_one, ordered_conjugate, ordered_norm, ordered_product, ordered_sum
from dsa_analysis.data import DataError, check_choice, check_seed
from dsa_analysis.multistart import CONVERGED, Linear, Prepared, Waves, prepare, solve

Names = tuple[Sequence[str], Sequence[str]]  # of the systems on both sides of P pairs


def align_inputs(first: Tensor, second: Tensor, *, group: str = "O", names: Names | None = None) -> Alignment:
    """Align the input matrices B' of ``second`` to B of ``first``, exactly: the distance above with w = 0.

    Parameters
    ----------
    first, second : (P, n, k) float64
    group : "O" or "SO"
    names : two sequences of P names, optional
        Of the systems, in messages.
    """
    check_choice("group", group, ("O", "SO"))
    _refuse_zero(first, second, names)
    swapped, low, high = _in_order(first, second)
    transform = _polar(ordered_product(low, high.mT), group)
    # residuals keep small distances accurate, which the singular values would round to 1e-8
    distance = _angle(_gain_residual(low, ordered_product(transform, high)))
    exact = torch.ones_like(distance)
    return Alignment(distance, distance, torch.where(swapped, transform.mT, transform), exact, exact > 0)


def align_jointly(
    first: Tensor,
    second: Tensor,
    *,
    state_weight: float,
    n_starts: int | str = "auto",
    group: str = "O",
    remove_trace: bool = False,
    seed: int = 0,
    names: Names | None = None,
) -> Alignment:
    """Align operators with inputs by one C for both matrices.

    Parameters
    ----------
    first, second : (P, n, n + k) float64
        [A B] and [A' B'] of each pair.
    state_weight : float in (0, 1)
        w; see `align_inputs` for 0 and `dsa_analysis.alignment.align` for 1.
    n_starts, group, remove_trace, seed
        As in `dsa_analysis.alignment.align`.
    names : two sequences of P names, optional
        Of the systems, in messages.

    Returns
    -------
    Alignment
    """
    check_starts(n_starts)
    check_seed(seed)
    check_choice("group", group, ("O", "SO"))
    n, w, device = first.shape[1], state_weight, first.device
    _refuse_zero(first[..., n:], second[..., n:], names)
    swapped, low, high = _in_order(first, second)
    operators = torch.cat([low[..., :n], high[..., :n]])
    kept, number = distinct(operators)
    i, j = number.split(len(low))
    operators = operators[kept]
    prepared = prepare(operators, remove_trace, _called(names, swapped[:, 0, 0], kept))
    linear = _linear(prepared, i, j, low, high, w, group)
    limit = linear.share * spectral_bound(prepared.core, i, j) + _nuclear(linear.matrix)
    waves = Waves(default_starts(n, device) if n_starts == "auto" else int(n_starts), n, seed, operators)
    parts = torch.arange(len(first), device=device).split(pairs_at_once(n, device))
    solved = [found for p in parts for found in solve(prepared, i[p], j[p], limit[p], waves, group, linear.of(p))]
    core, agreement, slope = (torch.cat(part) for part in zip(*solved, strict=True))
    transform = ordered_product(ordered_product(prepared.planes[i], core), prepared.planes[j].mT)
    state = _cosine_residual(prepared.whole[i], ordered_conjugate(transform, prepared.whole[j]))
    gain = _gain_residual(low[..., n:], ordered_product(transform, high[..., n:]))
    distance = _angle(w * state + (1 - w) * gain)
    bound = (limit + linear.rest).clamp(-1, 1).arccos()
    return Alignment(
        distance=distance,
        lower_bound=torch.minimum(bound, distance),  # they may cross by rounding where the bound is tight
        transform=torch.where(swapped, transform.mT, transform),
        agreement=agreement,
        converged=slope < CONVERGED,
    )


def _linear(prepared: Prepared, i: Tensor, j: Tensor, first: Tensor, second: Tensor, w: float, group: str) -> Linear:
    """The linear term of pairs [A B] (P, n, n + k), and starts that are built for it."""
    n = first.shape[1]
    B, D = (ordered_product(prepared.planes[k].mT, x[..., n:]) for k, x in ((i, first), (j, second)))
    product = ordered_product(B, D.mT)
    matrix = (1 - w) * 2 * product / _squares(B, D)[:, None, None]
    return Linear(
        share=w * prepared.share[i] * prepared.share[j],
        matrix=matrix,
        rest=w * prepared.trace[i] * prepared.trace[j],
        starts=torch.stack([_polar(matrix, group), _polar(_reached(prepared, i, j, product), group)], 1),
    )


def _reached(prepared: Prepared, i: Tensor, j: Tensor, product: Tensor) -> Tensor:
    """K K'^T for K = [B, A B, A^T B, A A B, ...] with all words of A and A^T up to length n - 1, weighted by 2^-length.

    For a conjugate pair K = C K' whatever the weights, and the orthogonal factor of K K'^T is C if inputs, through A
    and A^T, reach all dimensions.
    """
    A, D = prepared.core[i], prepared.core[j]
    total = term = product
    for _ in range(A.shape[-1] - 1):
        term = (ordered_product(ordered_product(A, term), D.mT) + ordered_product(ordered_product(A.mT, term), D)) / 2
        # scaled to stay in range; a factor common to all of K and K' changes no orthogonal factor of the sum
        term = term / ordered_norm(term).clamp_min(1e-300)[:, None, None] * ordered_norm(product)[:, None, None]
        total = total + term
    return total


def _in_order(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which pairs are swapped (P, 1, 1), so that either order of a pair is solved as one, and both of its sides."""
    swapped = comes_later(first, second)[:, None, None]
    return swapped, torch.where(swapped, second, first), torch.where(swapped, first, second)


def _called(names: Names | None, swapped: Tensor, kept: Tensor) -> Sequence[str]:
    """Names of the operators that are kept of all those on both sides."""
    if names is None:
        return ()
    pairs = [(b, a) if turned else (a, b) for a, b, turned in zip(*names, swapped.tolist(), strict=True)]
    called = [pair[side] for side in (0, 1) for pair in pairs]
    return [called[k] for k in kept.tolist()]


def _polar(X: Tensor, group: str) -> Tensor:
    """The orthogonal C (P, n, n) that maximises <X, C>."""
    U, _, Vh = one_by_one(torch.linalg.svd, X)
    if group == "SO":  # the least of the singular values is given up
        last = torch.where(torch.linalg.det(U) * torch.linalg.det(Vh) < 0, -1.0, 1.0).to(U)
        U = torch.cat([U[..., :-1], U[..., -1:] * last[:, None, None]], -1)
    return ordered_product(U, Vh)


def _nuclear(X: Tensor) -> Tensor:
    """Sum of the singular values, (P,)."""
    return ordered_sum(one_by_one(torch.linalg.svd, X)[1])


def _squares(B: Tensor, D: Tensor) -> Tensor:
    return ordered_norm(B).square() + ordered_norm(D).square()


def _cosine_residual(A: Tensor, M: Tensor) -> Tensor:
    """1 - cos(A, M) of unit matrices, from their difference: the cosine itself cannot tell it below 1e-16 from 0."""
    return ordered_norm(A - M).square() / 2


def _gain_residual(B: Tensor, M: Tensor) -> Tensor:
    """1 - gain(B, M)."""
    return ordered_norm(B - M).square() / _squares(B, M)


def _angle(residual: Tensor) -> Tensor:
    """arccos(1 - residual) in [0, pi], accurate for small ones."""
    return 2 * torch.atan2(residual.clamp_min(0).sqrt(), (2 - residual).clamp_min(0).sqrt())


def _refuse_zero(B: Tensor, D: Tensor, names: Names | None) -> None:
    for side, matrices in enumerate((B, D)):
        zero = (matrices.abs().amax((-1, -2)) == 0).nonzero()
        if len(zero):
            called = names[side][int(zero[0])] if names else f"{['first', 'second'][side]}[{int(zero[0])}]"
            raise DataError(f"{called}: its input matrix is zero, so its inputs do nothing that could be compared")
