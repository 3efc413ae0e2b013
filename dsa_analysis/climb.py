"""Climbs to local maxima of <A, C B C^T> over orthogonal C, as batched torch operations on any device.

With M = C B C^T and S, K the symmetric and skew parts, <A, M> = <S_A, S_M> + <K_A, K_M>. A step C <- exp(W) C with W
skew changes M by [W, M] + [W, [W, M]] / 2 + ..., and the objective by <G, W> - <W, H W> / 2 + ..., where

    G = [S_A, S_M] - [K_A, K_M],      H W = [[W, S_M], S_A] - [[W, K_M], K_A] + [W, G] / 2.

A linear term <L, C>, as operators with inputs have it, adds with N = L C^T and its symmetric part S_N

    G  +=  (N - N^T) / 2,             H W  +=  (W S_N + S_N W) / 2.

The climb is a trust-region Newton method with Steihaug's conjugate gradients (Nocedal & Wright, Numerical Optimization,
ch. 7). It needs few steps once A is written in the planes in which it rotates (Youla's canonical form of K_A): there H
of a normal A = M is diagonal on planes, which gives the preconditioner.

native/climb.cpp is the same method for CPUs, about ten times faster. It retracts by Cayley's transform, so that both
reach the same tops but not always the same one from the same start.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dsa_analysis import native

GPU_BATCH = 4096  # matrices in a call of cuSOLVER


def climb_all(
    A: Tensor, B: Tensor, C: Tensor, keep: int, dtype: torch.dtype, linear: Tensor | None = None, **limits: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Climb from each C (P, R, n, n): the ``keep`` highest of R for each pair, their heights and their slopes.

    ``linear`` (P, n, n) is the linear term of each pair. ``limits`` are ``n_steps``, ``n_inner`` and ``tolerance`` of
    `climb`.
    """
    n_pairs, n_climbs, n, _ = C.shape
    pair = torch.arange(n_pairs, device=C.device).repeat_interleave(n_climbs)
    A, B, C = A.to(dtype), B.to(dtype), C.flatten(0, 1).to(dtype)
    linear = None if linear is None else linear.to(dtype)
    if native.available(C.device):
        ends = native.climb(A, B, pair, C, linear, **limits)
    else:
        if dtype == torch.float64:  # they come from climbs in single precision
            C = orthogonalise(C)
        batch = max(1, batch_numbers(C.device) // n**2)
        parts = [
            climb(A[p], B[p], c, None if linear is None else linear[p], **limits)
            for p, c in zip(pair.split(batch), C.split(batch), strict=True)
        ]
        states, cosines, slopes = zip(*parts, strict=True)
        ends = torch.cat(states), torch.cat(cosines), torch.cat(slopes)
    C, f, slope = (x.unflatten(0, (n_pairs, n_climbs)) for x in ends)
    f, best = f.topk(keep, 1)
    return C[torch.arange(n_pairs, device=C.device)[:, None], best], f, slope.gather(1, best)


def climb(
    A: Tensor, B: Tensor, C: Tensor, linear: Tensor | None = None, *, n_steps: int, n_inner: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Local maximum of <A, C B C^T> + <L, C> from each C (P, n, n): that C, its height and the slope there, both (P,).

    A has to be written in its planes of rotation. |A| = |B| = 1, or less with a linear term L (P, n, n), so that
    heights are at most 1. A climb ends after ``n_steps`` Newton steps of at most ``n_inner`` conjugate-gradient steps
    each, or where the slope is below ``tolerance``.
    """
    n, slack = C.shape[-1], 50 * torch.finfo(C.dtype).eps
    identity = torch.eye(n, dtype=C.dtype, device=C.device)
    SA, KA = split(A)
    L = torch.zeros_like(C) if linear is None else linear
    M = conjugate(C, B)
    f, radius = inner(A, M) + inner(L, C), torch.full(C.shape[:1], n**0.5 / 2, dtype=C.dtype, device=C.device)
    out_C, out_f, out_slope, alive = C.clone(), f.clone(), torch.empty_like(f), torch.arange(len(C), device=C.device)
    for step in range(n_steps + 1):
        SM, KM = split(M)
        G = SA @ SM - KA @ KM
        G = G - G.mT
        N = torch.zeros_like(G) if linear is None else L @ C.mT
        G, turn = G + split(N)[1], G + split(N)[0]
        slope = norm(G)
        done = (slope < tolerance) | (radius < 1e-10) | (step == n_steps)
        if bool(done.any()):
            out_C[alive[done]], out_f[alive[done]], out_slope[alive[done]] = C[done], f[done], slope[done]
            A, SA, KA, SM, KM, M, L, N, C, f, radius, alive, G, turn, slope = (
                x[~done] for x in (A, SA, KA, SM, KM, M, L, N, C, f, radius, alive, G, turn, slope)
            )
            if not len(alive):
                break
        W, gain, length = newton_step(
            G, hessian(SA, KA, SM, KM, turn), plane_preconditioner(SA, KA, SM, KM, N), radius, n_inner,
            precise=(slope / 0.3).clamp(1e-6, 1e-2),
        )  # fmt: skip
        widest = (W @ W).abs().sum(-1).amax(-1)[:, None, None]  # at least the squared spectral norm of W
        Q = orthogonalise((identity + W) * (1 + widest / 2).rsqrt())  # agrees with exp(W) to second order
        M_new = conjugate(Q, M)
        C_new = Q @ C
        f_new = inner(A, M_new) + inner(L, C_new)
        quality = (f_new - f + slack) / (gain + slack)
        good = quality > 0.05
        wider = torch.where((quality > 0.75) & (length > 0.9 * radius), (2 * radius).clamp_max(1.5 * n**0.5), radius)
        radius = torch.where(quality < 0.25, 0.25 * torch.minimum(radius, length), wider)
        radius = torch.where(good & (gain < slack), 0.0, radius)  # nothing left that this precision can resolve
        M, C = (torch.where(good[:, None, None], new, old) for new, old in ((M_new, M), (C_new, C)))
        f = torch.where(good, f_new, f)
    return out_C, out_f, out_slope


def newton_step(
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
    rz = dd = inner(R, Z)
    ww = wd = gain = torch.zeros_like(rz)
    enough, going = rz * precise, torch.ones_like(rz, dtype=torch.bool)
    for _ in range(n_inner):
        HD = hessian(D)
        dhd = inner(D, HD)
        a = rz / torch.where(dhd.abs() > tiny, dhd, tiny)
        edge = (dhd <= 0) | (ww + 2 * a * wd + a * a * dd >= radius**2)
        to_edge = (-wd + (wd**2 + dd * (radius**2 - ww).clamp_min(0)).sqrt()) / dd.clamp_min(tiny)
        a = torch.where(edge, to_edge, a) * going
        gain, ww = gain + a * rz - a * a * dhd / 2, ww + 2 * a * wd + a * a * dd
        W, R = torch.addcmul(W, a[:, None, None], D), torch.addcmul(R, a[:, None, None], HD, value=-1)
        Z = precondition(R)
        rz_new = inner(R, Z)
        going = going & ~edge & (rz_new > enough)
        if not bool(going.any()):
            break
        b = torch.where(going, rz_new / rz.clamp_min(tiny), 0.0)
        wd, dd, rz, D = b * (wd + a * dd), rz_new + b * b * dd, rz_new, torch.addcmul(Z, b[:, None, None], D)
    return W, gain, ww.clamp_min(0).sqrt()


def hessian(SA: Tensor, KA: Tensor, SM: Tensor, KM: Tensor, turn: Tensor) -> Callable[[Tensor], Tensor]:
    """W -> H W, minus the second derivative of the objective; see the top of the module.

    ``turn`` is the gradient of <A, M> plus the symmetric part of L C^T: W ``turn`` / 2 less its transpose is
    [W, G] / 2 + (W S_N + S_N W) / 2.
    """
    n = turn.shape[-1]
    inner, outer = torch.cat([SM, KM, turn / 2], -1), torch.cat([SA, -KA], -2)

    def apply(W: Tensor) -> Tensor:
        X = W @ inner
        WS, WK, WG = X[..., :n], X[..., n : 2 * n], X[..., 2 * n :]
        Z = torch.baddbmm(
            WG, torch.cat([WS + WS.mT, WK - WK.mT], -1), outer
        )  # commutators: (W S)^T = -S W, (W K)^T = K W
        return Z - Z.mT

    return apply


def plane_preconditioner(
    SA: Tensor, KA: Tensor, SM: Tensor, KM: Tensor, N: Tensor | None = None, floor: float = 1e-2
) -> Callable[[Tensor], Tensor]:
    """R -> about H^-1 R: exact where A = M is normal and written in its planes, on which it acts as complex numbers z.

    The 2 x 2 block of W between planes a and b has a complex-linear part, which H multiplies by |z_a - z_b|^2, and an
    antilinear one, multiplied by |z_a - conj z_b|^2. The linear term adds the mean of the diagonal of N on both planes
    to either. Coordinates are (x_1 .. x_h, y_1 .. y_h), with x_a and y_a
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
    scale = base.mean((-1, -2))
    if N is not None:
        on_plane = N.diagonal(dim1=-2, dim2=-1)
        on_plane = (on_plane[:, x] + on_plane[:, y]) / 2
        extra = (on_plane[:, :, None] + on_plane[:, None]) / 2
        linear, anti, scale = linear + extra, anti + extra, scale + extra.abs().mean((-1, -2))
    scale = scale[:, None, None].clamp_min(1e-30)
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


def orthogonalise(Q: Tensor) -> Tensor:
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


def batch_numbers(device: torch.device) -> int:
    """Numbers in a working array: a fraction of the cache on a CPU, enough to fill a GPU."""
    return 200_000 if device.type == "cpu" else 10_000_000


def split(A: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric and skew part of (..., n, n)."""
    return (A + A.mT) / 2, (A - A.mT) / 2


def inner(X: Tensor, Y: Tensor) -> Tensor:
    return (X * Y).sum((-1, -2))


def norm(X: Tensor) -> Tensor:
    return inner(X, X).sqrt()


def conjugate(C: Tensor, B: Tensor) -> Tensor:
    return C @ B @ C.mT


def ordered_product(X: Tensor, Y: Tensor) -> Tensor:
    """X Y of (P, n, n), summed in a fixed order: unlike those of ``@``, the last bits do not depend on P."""
    out = X[..., :1] * Y[..., :1, :]
    for k in range(1, X.shape[-1]):
        out = out + X[..., k : k + 1] * Y[..., k : k + 1, :]
    return out


def ordered_conjugate(C: Tensor, B: Tensor) -> Tensor:
    return ordered_product(ordered_product(C, B), C.mT)


def ordered_sum(x: Tensor) -> Tensor:
    """Sum over the last axis of (..., n) in a fixed order."""
    total = x[..., 0]
    for k in range(1, x.shape[-1]):
        total = total + x[..., k]
    return total


def ordered_norm(X: Tensor) -> Tensor:
    """Frobenius norm (P,) of (P, n, n), summed in a fixed order."""
    return ordered_sum(ordered_sum(X * X)).sqrt()


def one_by_one(decompose: Callable[[Tensor], Any], X: Tensor) -> Tensor | tuple[Tensor, ...]:
    """``decompose`` of each of the leading axis, on a CPU by calls of their own.

    The last bits of LAPACK's results depend on where a matrix lies in memory; that of a call of its own is aligned.
    Batches on a GPU are limited, because cuSOLVER refuses those of some 30,000 matrices or more.
    """
    if not len(X):
        return decompose(X)
    if X.device.type == "cpu":
        parts = [decompose(x.clone()) for x in X]
        joined: Callable[[Any], Tensor] = torch.stack
    else:
        parts = [decompose(x) for x in X.split(max(1, GPU_BATCH // math.prod(X.shape[1:-2])))]
        joined = torch.cat
    if isinstance(parts[0], Tensor):
        return joined(parts)
    return tuple(joined(part) for part in zip(*parts, strict=True))
