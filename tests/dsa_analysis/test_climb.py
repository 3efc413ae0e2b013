"""The climb in torch: its derivatives, its steps, and where it ends; the native one is tested against it."""

import pytest
import torch
from torch import Tensor

from dsa_analysis.climb import (
    climb,
    hessian,
    newton_step,
    orthogonalise,
    plane_preconditioner,
    split,
)
from tests.dsa_analysis.operators import gaussian, haar


def skew(n: int, generator: torch.Generator) -> Tensor:
    W = gaussian(1, n, generator)
    return W - W.mT


@pytest.mark.parametrize("n", [2, 5, 8])
def test_gradient_and_hessian_are_the_derivatives_of_the_objective(n, generator):
    """f(t) = <A, exp(tW) M exp(-tW)>, differentiated twice by autograd, against <G, W> and -<W, H W>."""
    A, M, W = gaussian(1, n, generator), gaussian(1, n, generator), skew(n, generator)
    (SA, KA), (SM, KM) = split(A), split(M)
    G = SA @ SM - KA @ KM
    G = G - G.mT

    def f(t: Tensor) -> Tensor:
        C = torch.linalg.matrix_exp(t * W)
        return (A * (C @ M @ C.mT)).sum()

    zero = torch.zeros((), dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(f, zero)
    curvature = torch.autograd.functional.hessian(f, zero)
    torch.testing.assert_close((G * W).sum(), slope, rtol=1e-10, atol=1e-10)
    H = hessian(SA, KA, SM, KM, G)
    torch.testing.assert_close(-(W * H(W)).sum(), curvature, rtol=1e-9, atol=1e-9)
    V = skew(n, generator)
    torch.testing.assert_close((V * H(W)).sum(), (W * H(V)).sum(), rtol=1e-10, atol=1e-10)  # symmetric
    torch.testing.assert_close(H(W), -H(W).mT)  # skew again


@pytest.mark.parametrize("n", [2, 5, 8])
def test_linear_term_adds_to_gradient_and_hessian(n, generator):
    """f(t) = <A, exp(tW) M exp(-tW)> + <L, exp(tW) C>, by autograd."""
    A, M, L, W = *(gaussian(1, n, generator) for _ in range(3)), skew(n, generator)
    C0 = haar(1, n, generator)
    (SA, KA), (SM, KM), (SN, KN) = split(A), split(M), split(L @ C0.mT)
    G = SA @ SM - KA @ KM
    G = G - G.mT

    def f(t: Tensor) -> Tensor:
        C = torch.linalg.matrix_exp(t * W)
        return (A * (C @ M @ C.mT)).sum() + (L * (C @ C0)).sum()

    zero = torch.zeros((), dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(f, zero)
    curvature = torch.autograd.functional.hessian(f, zero)
    torch.testing.assert_close(((G + KN) * W).sum(), slope, rtol=1e-10, atol=1e-10)
    H = hessian(SA, KA, SM, KM, G + SN)
    torch.testing.assert_close(-(W * H(W)).sum(), curvature, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(H(W), -H(W).mT)


def test_climb_with_a_linear_term_alone_is_procrustes_analysis(generator):
    """Where L has full rank, all tops of one determinant are its orthogonal factor, or that with a turned column."""
    A, B, L = torch.zeros(6, 5, 5).double(), gaussian(6, 5, generator), gaussian(6, 5, generator)
    L = L / torch.linalg.svdvals(L).sum(-1)[:, None, None]
    U, S, Vh = torch.linalg.svd(L)
    C, height, slope = climb(A, B, haar(6, 5, generator), L, n_steps=100, n_inner=25, tolerance=1e-9)
    assert (slope < 1e-6).all()
    least = torch.where(torch.linalg.det(C) * torch.linalg.det(U @ Vh) > 0, 0.0, 2 * S[:, -1])
    torch.testing.assert_close(height, 1 - least, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [4, 5])
def test_preconditioner_inverts_the_hessian_of_a_normal_pair(n, generator):
    """A = M in planes, (x_1 .. x_h, y_1 .. y_h): H is diagonal on pairs of planes."""
    h = n // 2
    size, turn = 0.5 + torch.rand(2, h, generator=generator, dtype=torch.float64)
    real, imaginary = torch.diag(size * turn.cos()), torch.diag(size * turn.sin())
    A = torch.cat([torch.cat([real, -imaginary], 1), torch.cat([imaginary, real], 1)])
    A = torch.block_diag(A, *[torch.tensor([[0.3]]).double()] * (n % 2))[None]
    S, K = split(A)
    N = 0.7 * torch.eye(n).double()[None]  # of a linear term that draws all directions alike
    H, precondition = hessian(S, K, S, K, N), plane_preconditioner(S, K, S, K, N, floor=1e-12)
    W = skew(n, generator)
    W[:, range(h), range(h, 2 * h)] = W[:, range(h, 2 * h), range(h)] = 0  # turning a plane in itself changes nothing
    HW = H(W)
    ratio = (precondition(HW) * W).sum() / (W * W).sum()
    torch.testing.assert_close(precondition(HW), ratio * W, rtol=0, atol=1e-9)


def test_newton_step_stays_inside_its_radius_and_solves_within(generator):
    n = 6
    A, C = gaussian(1, n, generator), torch.linalg.matrix_exp(0.003 * skew(n, generator))  # near the optimum, C = 1
    M = C @ A @ C.mT
    (SA, KA), (SM, KM) = split(A), split(M)
    G = SA @ SM - KA @ KM
    G = G - G.mT
    H, plain = hessian(SA, KA, SM, KM, G), lambda R: R
    tight, wide, none = torch.tensor([[1e-3], [100.0], [1e-20]], dtype=torch.float64)
    W, gain, length = newton_step(G, H, plain, tight, 50, none)
    assert float(W.norm()) == pytest.approx(1e-3, rel=1e-9)
    torch.testing.assert_close(length, W.norm()[None])
    torch.testing.assert_close(gain, ((G * W).sum() - (W * H(W)).sum() / 2)[None], rtol=1e-9, atol=1e-15)
    W, gain, _ = newton_step(G, H, plain, wide, 50, none)
    torch.testing.assert_close(H(W), G, rtol=0, atol=1e-6 * float(G.norm()))


def test_climb_never_descends_and_ends_where_the_gradient_vanishes(generator):
    A, B, C = gaussian(5, 6, generator), gaussian(5, 6, generator), haar(5, 6, generator)
    A, B = A / A.norm(dim=(-1, -2), keepdim=True), B / B.norm(dim=(-1, -2), keepdim=True)
    start = (A * (C @ B @ C.mT)).sum((-1, -2))
    end, cosine, slope = climb(A, B, C, n_steps=100, n_inner=25, tolerance=1e-9)
    torch.testing.assert_close(cosine, (A * (end @ B @ end.mT)).sum((-1, -2)), rtol=0, atol=1e-12)
    assert (cosine >= start).all()
    assert (slope < 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthogonalise_finds_the_polar_factor(dtype, generator):
    Q = haar(4, 9, generator) + 0.05 * gaussian(4, 9, generator)
    U, _, Vh = torch.linalg.svd(Q)
    found = orthogonalise(Q.to(dtype))
    torch.testing.assert_close(found.double(), U @ Vh, rtol=0, atol=50 * torch.finfo(dtype).eps)
