"""Alignment over O(n): properties of the distance and pairs whose distance is known, on both paths."""

import copy
import math
import pickle
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

import dsa_analysis.multistart
from dsa_analysis import Alignment, DataError, align, fit_operator, lorenz, native
from dsa_analysis.alignment import align_pairs, default_starts, sweep_through_others
from dsa_analysis.multistart import WAVE
from tests.dsa_analysis.operators import KINDS, fitted, gaussian, haar, near_orthogonal, normal

PATHS = ("native", "torch")
SIZES = (2, 3, 5, 10, 20, 50)


quiet = pytest.mark.filterwarnings("ignore:system:UserWarning")


@pytest.fixture(scope="module", params=PATHS, autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test runs on both paths."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPUTE_ALIKE_NATIVE", str(int(request.param == "native")))
        taken, why = native.status()
        if taken != (request.param == "native"):
            pytest.skip(why)
        yield request.param


@quiet
@pytest.mark.parametrize("determinant", [1, -1])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", SIZES)
def test_conjugate_operators_are_at_distance_zero(n, kind, determinant):
    generator = torch.Generator().manual_seed(n)
    A = KINDS[kind](3 if n < 50 else 1, n, generator)
    Q = haar(len(A), n, generator, determinant)
    result = align(A, Q @ A @ Q.mT)
    assert (result.distance < 1e-3).all()
    assert result.converged.all()


@pytest.mark.slow
@quiet
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", SIZES)
def test_at_least_95_percent_of_many_conjugate_pairs_are_found(n, kind):
    generator = torch.Generator().manual_seed(100 + n)
    A = KINDS[kind](12 if kind == "fitted" else 40, n, generator)
    for determinant in (1, -1):
        Q = haar(len(A), n, generator, determinant)
        assert (align(A, Q @ A @ Q.mT).distance < 1e-3).double().mean() >= 0.95


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    """Unrelated pairs, (6, 7, 7) each, of several kinds."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.cat([kind(2, 7, generator) for kind in (gaussian, near_orthogonal, normal)]) for _ in range(2))


@pytest.fixture(scope="module")
def aligned(pairs: tuple[Tensor, Tensor], path: str) -> Alignment:
    return align(*pairs)


def angle(A: Tensor, B: Tensor) -> Tensor:
    """By the definition: arccos of the normalised inner product."""
    return ((A * B).sum((-1, -2)) / (A.norm(dim=(-1, -2)) * B.norm(dim=(-1, -2)))).arccos()


def test_distance_is_the_angle_at_the_transform(pairs, aligned):
    a, b = pairs
    C = aligned.transform
    torch.testing.assert_close(C.mT @ C, torch.eye(7).double().expand_as(C), rtol=0, atol=1e-12)
    torch.testing.assert_close(aligned.distance, angle(a, C @ b @ C.mT), rtol=0, atol=1e-10)


def test_no_transform_near_or_far_is_better(pairs, aligned, generator):
    a, b = pairs
    for C in (*haar(200, 7, generator), *(haar(1, 7, generator)[0] for _ in range(3))):
        assert (angle(a, C @ b @ C.T) >= aligned.distance).all()
    W = 1e-3 * gaussian(50, 7, generator)
    for step in torch.linalg.matrix_exp(W - W.mT):
        C = step @ aligned.transform
        assert (angle(a, C @ b @ C.mT) >= aligned.distance - 1e-12).all()


def test_lower_bound_holds_and_distance_is_at_most_pi(aligned):
    assert (aligned.lower_bound >= 0).all()
    assert (aligned.lower_bound <= aligned.distance).all()
    assert (aligned.distance <= math.pi).all()


@given(n=st.integers(1, 6), seed=st.integers(0, 10_000), n_starts=st.integers(1, 4), remove_trace=st.booleans())
def test_bound_holds_at_any_budget(n, seed, n_starts, remove_trace):
    """It may rest on nothing that the climbs found."""
    a, b = gaussian(2, n + remove_trace, torch.Generator().manual_seed(seed))
    few = align(a, b, n_starts=n_starts, remove_trace=remove_trace)
    more = align(a, b, n_starts=16, seed=1, remove_trace=remove_trace)
    assert 0 <= few.lower_bound <= min(few.distance, more.distance) + 1e-9  # rounding where the bound is tight


@quiet
def test_bound_is_close_for_fitted_operators():
    operators = fitted(8, 10, torch.Generator().manual_seed(2), noise=0.003)  # noise loosens it: .7 at .05
    first, second = torch.triu_indices(8, 8, 1)
    result = align(operators[first], operators[second])
    assert (result.lower_bound / result.distance).median() >= 0.85


def test_distance_is_symmetric_and_the_transform_turns_round(pairs, aligned):
    back = align(*reversed(pairs))
    torch.testing.assert_close(back.distance, aligned.distance, rtol=0, atol=1e-9)
    torch.testing.assert_close(back.lower_bound, aligned.lower_bound, rtol=0, atol=1e-9)
    torch.testing.assert_close(back.transform, aligned.transform.mT, rtol=0, atol=1e-9)


def test_pair_is_the_same_alone_and_in_any_company(pairs, aligned, path, generator):
    a, b = pairs
    reordered = align(a.flip(0), b.flip(0))
    torch.testing.assert_close(reordered.distance.flip(0), aligned.distance, rtol=0, atol=1e-9)
    company = align(torch.cat([gaussian(30, 7, generator), a]), torch.cat([gaussian(30, 7, generator), b]))
    torch.testing.assert_close(company.distance[30:], aligned.distance, rtol=0, atol=1e-9)
    for p in range(len(a)):
        alone = align(a[p], b[p])
        assert alone.distance.shape == alone.converged.shape == ()
        assert alone.transform.shape == (7, 7)
        assert float(alone.distance) == pytest.approx(float(aligned.distance[p]), abs=1e-9)
        assert torch.equal(alone.lower_bound, aligned.lower_bound[p])
        if path == "native":  # batched products in torch may sum in another order for another number of pairs
            assert torch.equal(alone.distance, aligned.distance[p])
            assert torch.equal(alone.transform, aligned.transform[p])
        if p < 4:  # a normal operator stays itself under rotations of its planes, and any under -1
            gap = min(float((alone.transform - sign * aligned.transform[p]).norm()) for sign in (1, -1))
            assert gap < 1e-6  # flat at the top


def test_size_of_working_batches_changes_nothing(pairs, aligned, monkeypatch):
    monkeypatch.setattr("dsa_analysis.climb.batch_numbers", lambda device: 1500)
    monkeypatch.setattr("dsa_analysis.alignment.batch_numbers", lambda device: 1500)
    torch.testing.assert_close(align(*pairs).distance, aligned.distance, rtol=0, atol=1e-9)


def test_seed_repeats_bit_for_bit_and_leaves_global_randomness_alone(pairs, aligned):
    before, copies, state = [x.clone() for x in pairs], align(*pairs), torch.get_rng_state()
    again = align(*pairs)
    for name, value in vars(copies).items():
        assert torch.equal(value, getattr(again, name))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, y) for x, y in zip(pairs, before, strict=True))  # and the operators


def test_operator_is_at_zero_from_itself_and_from_its_multiples(pairs):
    a = pairs[0]
    assert (align(a, a).distance < 1e-7).all()
    assert (align(a, 3.5 * a).distance < 1e-7).all()


def test_conjugation_of_either_operator_keeps_the_distance(pairs, aligned, generator):
    a, b = pairs
    Q, P = haar(6, 7, generator), haar(6, 7, generator)
    moved = align(Q @ a @ Q.mT, 100 * P @ b @ P.mT, n_starts=64)
    reference = align(a, b, n_starts=64)
    torch.testing.assert_close(moved.distance, reference.distance, rtol=0, atol=1e-6)  # both found the same optimum


@pytest.mark.parametrize("n", [3, 6, 10])
def test_triangle_inequality_holds(n, generator):
    """The angle is a quotient of the sphere's metric: what violates it is an alignment that missed its optimum."""
    operators = torch.cat([near_orthogonal(3, n, generator), normal(3, n, generator)])
    first, second = torch.triu_indices(6, 6, 1)
    D = torch.zeros(6, 6, dtype=torch.float64)
    D[first, second] = align(operators[first], operators[second], n_starts=64).distance
    D = D + D.T
    slack = D[:, :, None] + D[None] - D[:, None]  # d(i, j) + d(j, k) - d(i, k)
    assert slack.min() >= -1e-6


def test_triangle_inequality_holds_on_many_small_triples(generator):
    a, b, c = gaussian(600, 3, generator).split(200)
    ab, bc, ac = (align(x, y).distance for x, y in ((a, b), (b, c), (a, c)))
    assert (ab + bc - ac).min() >= -1e-6


def planar(*entries: float) -> Tensor:
    return torch.tensor(entries, dtype=torch.float64).view(2, 2)


def brute_force(a: Tensor, b: Tensor, reflections: bool = True) -> float:
    """Least angle over rotations by every 1/20000 of a turn, with and without a mirror; then the parabola's tip."""
    t = torch.linspace(0, math.pi, 20001, dtype=torch.float64)  # half a turn: -C does what C does
    C = torch.stack([t.cos(), -t.sin(), t.sin(), t.cos()], -1).view(-1, 2, 2)
    mirror = torch.diag(torch.tensor([1.0, -1.0])).double()
    return min(float(angle(a, D @ b @ D.mT).min()) for D in ([C, C @ mirror] if reflections else [C]))


@pytest.mark.parametrize("group", ["O", "SO"])
def test_two_dimensions_agree_with_all_angles_tried(group, generator):
    a, b = gaussian(12, 2, generator), gaussian(12, 2, generator)
    found = align(a, b, group=group).distance
    for p in range(12):
        expected = brute_force(a[p], b[p], group == "O")
        # a grid of 1.6e-4 rad misses the optimum by about the square of half of that
        assert float(found[p]) == pytest.approx(expected, abs=2e-8)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # rotations by r and s: cosine of the angle between them is cos(r - s), and a mirror turns s round
        (planar(0, -1, 1, 0), planar(0, 1, -1, 0), 0.0),
        (planar(math.cos(1), -math.sin(1), math.sin(1), math.cos(1)), planar(1, 0, 0, 1), 1.0),
        (planar(1, 0, 0, 1), planar(-1, 0, 0, -1), math.pi),
        # symmetric: eigenvalues in order are best matched, (1, 0) with (3, 4): 4 / 5
        (planar(1, 0, 0, 0), planar(3, 0, 0, 4), math.acos(4 / 5)),
        (planar(1, 0, 0, 0), planar(0, 0, 0, 1), 0.0),
        # symmetric and skew are orthogonal in any coordinates
        (planar(1, 0, 0, -1), planar(0, -1, 1, 0), math.pi / 2),
        # nilpotent against its transpose: the same after exchanging the axes
        (planar(0, 1, 0, 0), planar(0, 0, 1, 0), 0.0),
    ],
    ids=["turned round", "1 rad", "opposite", "symmetric", "projections", "symmetric and skew", "nilpotent"],
)
def test_closed_forms_in_two_dimensions(a, b, expected):
    result = align(a, b)
    assert float(result.distance) == pytest.approx(expected, abs=1e-9)
    assert result.lower_bound <= result.distance


def test_symmetric_operators_match_by_sorted_eigenvalues(generator):
    """Von Neumann: max tr(A C B C^T) is the sum of products of sorted eigenvalues; the bound is tight."""
    a, b = (x + x.mT for x in gaussian(10, 6, generator).split(5))
    x, y = torch.linalg.eigvalsh(a), torch.linalg.eigvalsh(b)
    expected = ((x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))).arccos()
    result = align(a, b)
    torch.testing.assert_close(result.distance, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(result.lower_bound, expected, rtol=0, atol=1e-8)


def test_skew_operators_match_by_sorted_frequencies(generator):
    a, b = (x - x.mT for x in gaussian(10, 6, generator).split(5))
    x, y = torch.linalg.svdvals(a), torch.linalg.svdvals(b)
    expected = ((x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))).arccos()
    torch.testing.assert_close(align(a, b).distance, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("a", "b", "expected"), [(2.0, 3.0, 0.0), (2.0, -3.0, math.pi)])
def test_one_dimension_knows_only_the_sign(a, b, expected):
    assert float(align(torch.tensor([[a]]), torch.tensor([[b]])).distance) == pytest.approx(expected, abs=1e-12)


def test_distance_agrees_with_an_optimiser_of_another_kind(generator):
    """BFGS over exp(W), from 15 starts, in n = 4."""
    a, b = gaussian(2, 4, generator)
    rows, columns = torch.tril_indices(4, 4, -1)

    def objective(w: np.ndarray, C: Tensor) -> tuple[float, np.ndarray]:
        v = torch.tensor(w, requires_grad=True)
        W = torch.zeros(4, 4, dtype=torch.float64).index_put((rows, columns), v)
        D = torch.linalg.matrix_exp(W - W.T) @ C
        cosine = (a * (D @ b @ D.T)).sum() / (a.norm() * b.norm())
        (gradient,) = torch.autograd.grad(-cosine, v)
        return -float(cosine.detach()), gradient.numpy()

    best = min(minimize(objective, np.zeros(6), C, jac=True).fun for C in haar(15, 4, generator))
    assert float(align(a, b).distance) == pytest.approx(math.acos(-best), abs=1e-6)  # BFGS stops at a gradient of 1e-5


def test_rotations_alone_find_no_mirrored_copy_in_even_dimensions(generator):
    A = gaussian(3, 6, generator)
    for determinant, group, found in ((1, "SO", True), (-1, "SO", False), (-1, "O", True)):
        Q = haar(3, 6, generator, determinant)
        result = align(A, Q @ A @ Q.mT, group=group)
        assert ((result.distance < 1e-6) == found).all()
        if group == "SO":
            assert (torch.linalg.det(result.transform) > 0).all()


def test_in_odd_dimensions_both_groups_give_the_same(generator):
    a, b = gaussian(8, 5, generator).split(4)
    torch.testing.assert_close(align(a, b, group="SO").distance, align(a, b).distance, rtol=0, atol=1e-9)


def test_rotations_alone_are_never_closer_than_all_transforms(generator):
    a, b = gaussian(20, 4, generator).split(10)
    assert (align(a, b, group="SO").distance >= align(a, b).distance - 1e-9).all()


def test_removed_trace_compares_what_is_left_at_the_same_transform(pairs, aligned, generator):
    a, b = pairs
    without = align(a, b, remove_trace=True)
    traceless = [x - x.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(7).double() for x in pairs]
    torch.testing.assert_close(without.distance, align(*traceless).distance, rtol=0, atol=1e-9)
    torch.testing.assert_close(without.transform, aligned.transform, rtol=0, atol=1e-9)
    shifted = align(a + 5 * torch.eye(7), b - 3 * torch.eye(7), remove_trace=True)
    torch.testing.assert_close(shifted.distance, without.distance, rtol=0, atol=1e-6)  # another climb to the same place


def test_removing_the_trace_spreads_operators_near_the_identity(generator):
    a, b = torch.eye(6) + 0.05 * gaussian(8, 6, generator).view(2, 4, 6, 6)
    assert (align(a, b, remove_trace=True).distance > 3 * align(a, b).distance).all()


def test_multiples_of_the_identity_keep_their_angle():
    result = align(2 * torch.eye(4), torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])))
    assert float(result.distance) == pytest.approx(math.acos(3 / (2 * 3**0.5)), abs=1e-9)


def test_larger_budget_is_never_worse(generator):
    a, b = gaussian(8, 8, generator).split(4)
    few, more = align(a, b, n_starts=2), align(a, b, n_starts=64)
    assert (more.distance <= few.distance + 1e-6).all()
    assert ((more.agreement > 0) & (more.agreement <= 1)).all()


def test_only_pairs_whose_climbs_disagree_take_another_wave(path, generator):
    """Rough landscapes profit from further waves; where the first agrees, its result stands bit for bit."""
    a = torch.cat([gaussian(3, 20, generator), normal(2, 20, generator)])
    Q = haar(2, 20, generator)
    b = torch.cat([gaussian(3, 20, generator), Q @ (a[3:] + 0.01 * gaussian(2, 20, generator)) @ Q.mT])
    one, more = align(a, b, n_starts=WAVE), align(a, b)
    assert (more.distance <= one.distance + 1e-9).all()
    assert (more.distance < one.distance - 1e-4).any()
    agreed = one.agreement >= (6 / 8 if path == "native" else 1)
    assert agreed.any()
    assert torch.equal(more.distance[agreed], one.distance[agreed])
    assert (more.agreement[~agreed] < 1).all()


def test_budget_depends_on_the_size_of_operators_and_on_the_path(path):
    cpu = torch.device("cpu")
    small, large = (384, 256) if path == "native" else (192, 64)
    assert default_starts(5, cpu) == default_starts(30, cpu) == small
    assert default_starts(50, cpu) == large


def test_gap_is_what_the_bound_leaves_open(aligned):
    torch.testing.assert_close(aligned.gap, aligned.distance - aligned.lower_bound)
    assert (aligned.gap >= 0).all()


def test_too_little_memory_halves_the_batch_and_goes_on(pairs, aligned, monkeypatch):
    solve, sizes = dsa_analysis.multistart._solve, []

    def small_machine(prepared, i, *others):
        sizes.append(len(i))
        if len(i) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return solve(prepared, i, *others)

    monkeypatch.setattr(dsa_analysis.multistart, "_solve", small_machine)
    with pytest.warns(UserWarning, match=r"cpu ran out of memory with 6 pairs at once; going on with 3"):
        result = align(*pairs)
    assert sizes == [6, 3, 1, 2, 3, 1, 2]
    torch.testing.assert_close(result.distance, aligned.distance, rtol=0, atol=1e-9)


def test_pair_that_does_not_fit_into_memory_at_all_fails(pairs, monkeypatch):
    def full(*arguments):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(dsa_analysis.multistart, "_solve", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        align(pairs[0][0], pairs[1][0])


@pytest.mark.parametrize("remove_trace", [False, True])
def test_sweeps_through_third_systems_find_higher_tops_of_related_systems(remove_trace, generator):
    base, noise = near_orthogonal(1, 9, generator), 0.1 * gaussian(8, 9, generator)
    Q = haar(8, 9, generator)
    operators = Q @ (base + noise) @ Q.mT
    first, second = torch.triu_indices(8, 8, 1)
    flipped = torch.arange(len(first)) % 2 == 0  # pairs may be listed in either direction
    first, second = torch.where(flipped, second, first), torch.where(flipped, first, second)
    found = align_pairs(operators, first, second, n_starts=1, remove_trace=remove_trace)
    swept = sweep_through_others(operators, first, second, found, remove_trace=remove_trace)
    assert (swept.distance <= found.distance).all()
    better = swept.distance < found.distance - 1e-3
    assert better.sum() > 5
    assert (swept.agreement[better] == 0).all()
    eye = torch.eye(9, dtype=torch.float64).expand(len(first), -1, -1)
    torch.testing.assert_close(swept.transform @ swept.transform.mT, eye, rtol=0, atol=1e-9)
    a, b = operators[first], operators[second]
    if remove_trace:
        a, b = (x - x.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * eye for x in (a, b))
    torch.testing.assert_close(angle(a, swept.transform @ b @ swept.transform.mT), swept.distance, rtol=0, atol=1e-9)
    best = align_pairs(operators, first, second, remove_trace=remove_trace).distance
    assert (swept.distance < best + 1e-6).double().mean() > (found.distance < best + 1e-6).double().mean() + 0.2


def test_sweep_leaves_a_pair_without_third_systems_alone(generator):
    operators, first, second = gaussian(2, 6, generator), torch.tensor([0]), torch.tensor([1])
    found = align_pairs(operators, first, second)
    swept = sweep_through_others(operators, first, second, found)
    assert all(torch.equal(x, y) for x, y in zip(vars(found).values(), vars(swept).values(), strict=True))


@pytest.mark.parametrize("scale", [1e-150, 1e-6, 1e6, 1e150])
def test_size_of_operators_does_not_matter(scale, pairs, aligned):
    a, b = pairs
    torch.testing.assert_close(align(a * scale, b / scale).distance, aligned.distance, rtol=0, atol=1e-9)


def test_operators_come_as_objects_lists_or_arrays(pairs, aligned):
    a, b = pairs
    for convert in (list, Tensor.numpy, lambda x: tuple(x.numpy()), lambda x: x.clone().requires_grad_()):
        result = align(convert(a), convert(b))
        torch.testing.assert_close(result.distance, aligned.distance, rtol=0, atol=1e-12)
        assert not result.distance.requires_grad
    operator = fit_operator(lorenz(4, 100, seed=0), n_delays=1, rank=3)
    assert float(align(operator, operator.matrix).distance) < 1e-7
    assert align([operator, operator], [operator, operator]).distance.shape == (2,)


def test_single_precision_operators_are_aligned_in_double(pairs, aligned):
    result = align(*(x.float() for x in pairs))
    assert result.distance.dtype == result.transform.dtype == torch.float64
    torch.testing.assert_close(result.distance, aligned.distance, rtol=0, atol=1e-6)  # rounding of the operators


def test_no_pairs_are_no_distances():
    assert align(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3)).distance.shape == (0,)


def test_alignment_survives_copying_and_pickling(aligned):
    for twin in (copy.deepcopy(aligned), pickle.loads(pickle.dumps(aligned))):
        assert torch.equal(twin.transform, aligned.transform)


EYE = torch.eye(3)


@pytest.mark.parametrize(
    ("a", "b", "settings", "message"),
    [
        (EYE, torch.zeros(3, 3), {}, "b is zero: it has no direction, and so no angle to another"),
        (torch.stack([EYE, 0 * EYE]), torch.stack([EYE, EYE]), {}, "a[1] is zero: it has no direction"),
        (EYE, torch.ones(3, 3), {"remove_trace": True}, "a is a multiple of the identity, and zero without its trace"),
        (0.1 * EYE, torch.ones(3, 3), {"remove_trace": True}, "a is a multiple of the identity"),
        (EYE, torch.eye(4), {}, "operators of different size, 3 and 4: fit both systems at one rank"),
        ([EYE, torch.eye(4)], [EYE, EYE], {}, "a holds operators of different size, 3, 4: fit all systems at one rank"),
        (torch.ones(2, 3, 3), torch.ones(3, 3, 3), {}, "2 operators came as a and 3 as b; pairs need as many of each"),
        (torch.ones(3, 4), EYE, {}, "a has shape (3, 4); operators are (n, n) or (n_pairs, n, n)"),
        (torch.ones(1, 1, 3, 3), EYE, {}, "a has shape (1, 1, 3, 3); operators are (n, n) or (n_pairs, n, n)"),
        (torch.ones(0, 0), EYE, {}, "a has shape (0, 0)"),
        ([], [], {}, "a is a list, which has to hold matrices (n, n), at least one"),
        ([torch.ones(2, 3, 3)], [EYE], {}, "a is a list, which has to hold matrices (n, n), at least one"),
        (EYE, math.nan * EYE, {}, "b holds NaN or infinity"),
        (EYE * 1j, EYE, {}, "a is complex; operators are real"),
        ("operator", EYE, {}, "a came as str; operators are square matrices"),
        ([EYE, None], [EYE, EYE], {}, "a[1] came as NoneType; operators are square matrices"),
        (EYE, EYE, {"n_starts": 0}, "n_starts = 0 is not a whole number of at least 1"),
        (EYE, EYE, {"seed": -1}, "seed = -1 is not a whole number of at least 0"),
        (EYE, EYE, {"seed": 0.5}, "seed = 0.5 is not a whole number of at least 0"),
        (EYE, EYE, {"group": "S0"}, "group = 'S0' is none of 'O', 'SO'"),
        (EYE, EYE, {"device": "cuda:99"}, "device = 'cuda:99' is not there"),
    ],
)  # fmt: skip
def test_what_cannot_be_aligned_is_refused(a: Any, b: Any, settings, message):
    with pytest.raises(DataError, match=re.escape(message)):
        align(a, b, **settings)
