"""Bounds that no orthogonal C can beat: certificates for alignments.

`spectral_bound` needs spectra alone, and some microseconds a pair. `tight_bound` starts from the alignment that was
found and solves a semidefinite program; it often proves that the alignment is optimal.
"""

import numpy as np
import torch
from torch import Tensor

from dsa_analysis.climb import one_by_one, ordered_product, split

CERTIFIED = 1e-6  # rad between distance and lower bound: the alignment is optimal
TIGHT_AT_MOST = 50  # size n of operators: the tight bound factorises matrices (n^2, n^2)
AUTO_AT_MOST = 12  # size up to which it takes some milliseconds


def spectral_bound(core: Tensor, first: Tensor, second: Tensor, n_weights: int = 8, ratio: float = 1.4) -> Tensor:
    """Upper bound (P,) of <A, C B C^T> over all C, from spectra alone; A and B are ``core[first]``, ``core[second]``.

    Let x = <S_A, S_M>, y = <K_A, K_M>. The Hermitian matrices S_A + iu K_A and S_M + iv K_M have the inner product
    x + uv y, which is at most g(u, v), the sum of products of their sorted eigenvalues (von Neumann), and the
    eigenvalues are those of S_B + iv K_B whatever C is. Hence x + w y <= min over uv = w of g for every w, and any
    convex combination of two such w with mean 1 bounds x + y.
    """
    k, exponents = n_weights, torch.arange(-2 * n_weights, 2 * n_weights + 1, device=first.device)
    w = ratio ** exponents.to(core)
    S, K = split(core)
    weighted = torch.complex(S[:, None].expand(-1, 2 * k + 1, -1, -1), w[k:-k, None, None] * K[:, None])
    spectra = one_by_one(torch.linalg.eigvalsh, weighted)
    g = ordered_product(spectra[first], spectra[second].mT).flip(-1)  # uv is constant on diagonals
    g = torch.stack([g.diagonal(d, 1, 2).amin(-1) for d in range(2 * k, -2 * k - 1, -1)], 1)
    w_low, low, w_high, high = w[: 2 * k + 1, None], g[:, : 2 * k + 1, None], w[2 * k + 1 :], g[:, None, 2 * k + 1 :]
    return ((low * (w_high - 1) + high * (1 - w_low)) / (w_high - w_low)).amin((1, 2))


def tight_bound(A: np.ndarray, B: np.ndarray, C: np.ndarray, n_iterations: int = 40) -> float:
    """Upper bound of <A, X B X^T> over all orthogonal X, nearly tight, from an orthogonal C that is a top of it.

    Turn B so that C = 1, let S and K be symmetric and skew parts and M = S_A S_B - K_A K_B, symmetric at a top, whose
    trace is the objective there. The semidefinite relaxation with X X^T = X^T X = 1 has a dual: for every symmetric D

        <A, X B X^T>  <=  tr M + n max(0, -lambda),    lambda the least eigenvalue of
        Z(D) = (M/2 + D) x 1 + 1 x (M/2 - D) - S_A x S_B - K_A x K_B,     (n^2, n^2).

    Where lambda = 0 is reached, C is optimal. An interior-point method maximises t + mu log det(Z(D) - t) by Newton
    steps, mu falling; Z(D) vec(1) = 0 whatever D is, so that direction is left out of the search. Any D gives a bound:
    the one found is verified by a Cholesky factorisation of Z(D) + tau with the margin of its rounding (Rump,
    Verification of positive definiteness, 2006).

    Parameters
    ----------
    A, B, C : (n, n)
        Float64, A and B of norm 1 at most. The bound holds for every orthogonal C, and is tight for a highest top.
    n_iterations : int
        Newton steps at most; ten are usual.
    """
    n = len(A)
    B = C @ B @ C.T
    (S_A, K_A), (S_B, K_B) = (((X + X.T) / 2, (X - X.T) / 2) for X in (A, B))
    M = S_A @ S_B - K_A @ K_B
    M = (M + M.T) / 2
    Z = _added(-np.kron(S_A, S_B) - np.kron(K_A, K_B), M / 2, M / 2)
    D, lowest = _best_multiplier(Z, n_iterations)
    tau = _proven_shift(_added(Z, D, -D), -lowest)
    eps = np.finfo(float).eps
    # Z is rounded when it is made, and so is B turned by a C that is orthogonal but for rounding
    rounding = n * 10 * n * eps * (1 + np.linalg.norm(D)) + 20 * n**1.5 * eps + np.linalg.norm(C.T @ C - np.eye(n))
    return float((A * B).sum() + n * tau + rounding)


def _added(Z: np.ndarray, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """Z + P x 1 + 1 x Q."""
    n = len(P)
    total = Z.copy()
    blocks = total.reshape(n, n, n, n)
    np.einsum("ijkj->jik", blocks)[...] += P
    np.einsum("ijil->ijl", blocks)[...] += Q
    return total


def _best_multiplier(Z: np.ndarray, n_iterations: int) -> tuple[np.ndarray, float]:
    """D (n, n), symmetric, for which the least eigenvalue of Z(D) = Z + D x 1 - 1 x D is about as large as can be.

    Also returns what that eigenvalue exceeds, vec(1) left aside. Stops where this is positive, or where it cannot grow
    by another 15%.
    """
    from scipy.linalg import cho_factor, cho_solve, lapack

    N = len(Z)
    n = round(N**0.5)
    rows, columns = np.triu_indices(n)
    twice = np.where(rows == columns, 1.0, 2.0)  # entries of D that a coordinate stands for
    kernel = np.eye(n).ravel() / n**0.5
    Z = Z + np.outer(kernel, kernel)  # lifts the eigenvalue 0 of vec(1) out of the way

    def factor(D: np.ndarray, t: float) -> tuple[np.ndarray, float] | None:
        """Cholesky factor of Z(D) - t and its log determinant, None where that is not positive definite."""
        lower, failed = lapack.dpotrf(_added(Z, D - t * np.eye(n), -D).T, lower=1, overwrite_a=1)
        return None if failed else (lower, 2 * np.log(lower.diagonal()).sum())

    D, t = np.zeros((n, n)), -0.05 / n
    while factor(D, t) is None:
        t *= 1.4
    t *= 1.5
    found = factor(D, t)
    assert found is not None
    for _ in range(n_iterations):
        assert found is not None  # a step is taken only where there is a factorisation
        lower, log_determinant = found
        W = lapack.dpotri(lower, lower=1)[0]
        W = W + W.T - np.diag(W.diagonal())
        gradient, hessian = _barrier(W, n, rows, columns, twice)
        try:
            system = cho_factor(hessian, check_finite=False)
        except np.linalg.LinAlgError:
            break  # at the limit of the precision
        objective = np.zeros(len(gradient))
        objective[-1] = 1
        ascent, centring = cho_solve(system, np.stack([objective, gradient], 1), check_finite=False).T
        oo, og, gg = objective @ ascent, objective @ centring, gradient @ centring
        # along the central path t grows with 1/mu at the rate oo ~ mu^2, and so by oo / mu = -og until mu = 0
        if t > 0 or (gg - og * og / oo < 1 and 0 < -og < -0.15 * t):
            break
        # mu as small as a Newton step of length 8, in the norm of the Hessian, allows: shorter ones take more of them
        mu = oo / max(-og + max(og * og - oo * (gg - 64), 0.0) ** 0.5, oo)
        step = ascent / mu + centring
        change = np.zeros((n, n))
        change[rows, columns] = change[columns, rows] = step[:-1]
        # the length of the step that gains most: the longest is at the border, where the next one would be short
        best, gained, size = None, t / mu + log_determinant, 1.0
        while size > 1e-3:
            trial = D + size * change, t + size * step[-1]
            factored = factor(*trial)
            gain = -np.inf if factored is None else trial[1] / mu + factored[1]
            if gain > gained:
                best, gained = (trial, factored), gain
            elif best is not None:
                break
            size *= 0.7
        if best is None:
            break
        (D, t), found = best
    return D, t


def _barrier(
    W: np.ndarray, n: int, rows: np.ndarray, columns: np.ndarray, twice: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and minus the Hessian of log det(Z(D) - t) in the upper entries of D and in t, for W its inverse.

    With W_(ij)(kl), the second derivative along D and D' is the sum of D_kk' D'_ii' times

        sum_jl W_(ij)(kl) W_(i'j)(k'l)  +  the same over the other factor  -  the two mixed terms.
    """
    w = W.reshape(n, n, n, n)
    largest = np.abs(W).max()
    single = (W / largest).astype(np.float32).reshape(n, n, n, n)  # enough for the direction of a Newton step
    first = np.ascontiguousarray(single.transpose(0, 2, 1, 3)).reshape(n * n, n * n)  # (ik)(jl)
    mixed = np.ascontiguousarray(single.transpose(1, 2, 0, 3)).reshape(n * n, n * n)  # (jk)(il)
    cross = (mixed @ mixed.T).reshape(n, n, n, n)
    form = (first @ first.T + first.T @ first).reshape(n, n, n, n) - cross - cross.transpose(1, 0, 3, 2)
    p, q = rows[:, None], columns[:, None]
    entries = len(rows)
    hessian = np.empty((entries + 1, entries + 1))
    hessian[:-1, :-1] = (
        (form[rows, p, columns, q] + form[rows, q, columns, p]) * np.outer(twice, twice / 2) * largest**2
    )
    turned = np.ascontiguousarray(w.transpose(1, 0, 2, 3))
    square_first, square_second = (x @ x.T for x in (w.reshape(n, -1), turned.reshape(n, -1)))  # partial traces of W^2
    hessian[:-1, -1] = hessian[-1, :-1] = -(square_first - square_second)[rows, columns] * twice
    hessian[-1, -1] = (W * W).sum()
    hessian[:-1, :-1] += np.outer(rows == columns, rows == columns) * hessian.trace() / entries  # tr D has no effect
    hessian[np.diag_indices_from(hessian)] *= 1 + 1e-7
    partial = np.einsum("ijkj->ik", w) - np.einsum("ijil->jl", w)
    return np.append(partial[rows, columns] * twice, -W.trace()), hessian


def _proven_shift(Z: np.ndarray, guess: float) -> float:
    """tau >= 0, little above ``guess`` where that is enough, for which Z + tau is proven to be positive semidefinite.

    If the Cholesky factorisation of a matrix H (N, N) runs to its end in floating-point arithmetic, no eigenvalue of H
    is below -(N + 2) eps tr H.
    """
    from scipy.linalg import lapack

    N = len(Z)
    more = 1e-14
    while True:
        H = Z + (max(guess, 0.0) + more) * np.eye(N)
        if not lapack.dpotrf(H.T, lower=1, overwrite_a=1)[1]:
            return max(guess, 0.0) + more + (N + 2) * np.finfo(float).eps * H.trace()
        more *= 4
