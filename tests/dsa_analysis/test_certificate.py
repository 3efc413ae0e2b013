"""Lower bounds: no alignment beats them, wherever they start from, and the tight one is nearly reached."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa_analysis import DataError, align
from dsa_analysis.certificate import _added, _barrier, _proven_shift, spectral_bound, tight_bound
from dsa_analysis.climb import climb
from dsa_analysis.multistart import prepare
from tests.dsa_analysis.operators import KINDS, gaussian, haar, near_orthogonal


@settings(max_examples=12)
@given(n=st.integers(1, 6), seed=st.integers(0, 10_000), kind=st.sampled_from(["Gaussian", "near-orthogonal"]))
def test_tight_bound_is_above_every_top_wherever_it_starts(n, seed, kind):
    """From each of several tops, most of them not the highest, and from a C that is no top at all."""
    generator = torch.Generator().manual_seed(seed)
    core = prepare(KINDS[kind](2, n, generator), False, ()).core
    starts = haar(6, n, generator)
    a, b = (x.expand(6, n, n) for x in core)
    tops, heights, _ = climb(a, b, starts, n_steps=100, n_inner=15, tolerance=1e-9)
    for C in (*tops, starts[0]):
        assert tight_bound(*(x.numpy() for x in (core[0], core[1], C))) >= heights.max() - 1e-12


@pytest.mark.parametrize("n", [2, 5, 9])
def test_tight_bound_is_never_looser_and_is_often_reached(n, generator):
    a, Q = near_orthogonal(6, n, generator), haar(6, n, generator)
    b = Q @ (a + 0.1 * gaussian(6, n, generator)) @ Q.mT  # unrelated ones have a gap that is not the bound's
    fast, tight = align(a, b), align(a, b, certificate="tight")
    assert torch.equal(fast.distance, tight.distance)
    assert (tight.lower_bound >= fast.lower_bound).all()
    assert (tight.lower_bound <= tight.distance).all()
    assert tight.certified.sum() >= fast.certified.sum()
    assert (tight.gap / tight.distance).median() < 0.01
    assert tight.certified.any()
    assert (tight.gap[tight.certified] < 1e-6).all()


def test_pairs_whose_optimum_is_known_are_certified(generator):
    a = gaussian(3, 6, generator)
    Q = haar(3, 6, generator)
    assert align(a, Q @ a @ Q.mT, certificate="tight").certified.all()
    x, y = (z + z.mT for z in gaussian(6, 6, generator).split(3))
    assert align(x, y).certified.all()  # von Neumann: the spectral bound is reached
    x, y = (z - z.mT for z in gaussian(6, 6, generator).split(3))
    assert align(x, y).certified.all()


def test_auto_computes_the_tight_bound_where_the_fast_one_is_loose_and_operators_are_small(generator):
    a, b = near_orthogonal(8, 6, generator).split(4)
    fast, auto, tight = (align(a, b, certificate=name) for name in ("fast", "auto", "tight"))
    loose = fast.lower_bound < 0.95 * fast.distance
    assert loose.any()
    torch.testing.assert_close(auto.lower_bound[loose], tight.lower_bound[loose], rtol=0, atol=0)
    assert torch.equal(auto.lower_bound[~loose], fast.lower_bound[~loose])
    a, b = near_orthogonal(2, 13, generator)
    assert torch.equal(align(a, b, certificate="auto").lower_bound, align(a, b).lower_bound)


@pytest.mark.parametrize("remove_trace", [False, True])
def test_bounds_are_the_same_in_either_order_and_without_trace_hold_too(remove_trace, generator):
    a, b = near_orthogonal(6, 5, generator).split(3)
    there = align(a, b, certificate="tight", remove_trace=remove_trace)
    back = align(b, a, certificate="tight", remove_trace=remove_trace)
    assert torch.equal(there.lower_bound, back.lower_bound)
    many = align(a, b, n_starts=320, seed=5, remove_trace=remove_trace)
    assert (there.lower_bound <= many.distance + 1e-9).all()


def test_spectral_bound_has_the_same_bits_alone_and_in_a_set(generator):
    core = prepare(gaussian(10, 6, generator), False, ()).core
    first, second = torch.triu_indices(10, 10, 1)
    together = spectral_bound(core, first, second)
    alone = torch.cat([spectral_bound(core, i, j) for i, j in zip(first.split(1), second.split(1), strict=True)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("n", [2, 4])
def test_derivatives_of_the_barrier_are_those_of_the_log_determinant(n):
    random = np.random.default_rng(0)
    rows, columns = np.triu_indices(n)
    twice = np.where(rows == columns, 1.0, 2.0)
    Z = random.standard_normal((n * n, n * n))
    Z = Z @ Z.T + np.eye(n * n)

    def value(x: np.ndarray) -> float:
        D = np.zeros((n, n))
        D[rows, columns] = D[columns, rows] = x[:-1]
        return float(np.linalg.slogdet(_added(Z, D - x[-1] * np.eye(n), -D))[1])

    gradient, hessian = _barrier(np.linalg.inv(Z), n, rows, columns, twice)
    units = 1e-4 * np.eye(len(gradient))
    slopes = [(value(e) - value(-e)) / 2e-4 for e in units]
    np.testing.assert_allclose(gradient, slopes, atol=1e-5 * np.abs(gradient).max())  # differences of 1e-4
    for _ in range(5):  # along directions that leave the trace of D: it has no effect, and is held by a penalty
        x = random.standard_normal(len(gradient))
        x[:-1][rows == columns] -= x[:-1][rows == columns].mean()
        curvature = (value(1e-3 * x) + value(-1e-3 * x) - 2 * value(0 * x)) / 1e-6
        assert -x @ hessian @ x == pytest.approx(curvature, rel=1e-4)


@pytest.mark.parametrize("least", [-0.3, -1e-8, 0.0, 0.2])
def test_shift_proves_that_no_eigenvalue_is_negative(least):
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((30, 30)))[0]
    Z = Q @ np.diag(np.linspace(least, 1, 30)) @ Q.T
    Z = (Z + Z.T) / 2
    shift = _proven_shift(Z, max(-least, 0.0))
    assert np.linalg.eigvalsh(Z)[0] + shift >= 0
    assert shift <= max(-least, 0.0) + 1e-11  # N eps tr Z = 30 x 2e-16 x 15, and little more
    assert _proven_shift(Z, 0.0) >= max(-least, 0.0) - 1e-15  # a guess that is too low is not taken


def test_operators_too_large_for_the_tight_bound_are_refused():
    message = "certificate = 'tight' needs operators of size 50 or less, and these have 51; certificate='fast'"
    with pytest.raises(DataError, match=re.escape(message)):
        align(torch.randn(51, 51), torch.randn(51, 51), certificate="tight")
    with pytest.raises(DataError, match=re.escape("certificate = 'slow' is none of 'fast', 'tight', 'auto'")):
        align(torch.eye(3), torch.ones(3, 3), certificate="slow")
