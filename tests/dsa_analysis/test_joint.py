"""Alignment of operators with inputs: one transform for both matrices, on both paths."""

import math
import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm, orthogonal_procrustes
from scipy.optimize import minimize
from torch import Tensor

from dsa_analysis import METRICS, Comparison, DataError, DrivenOperator, Similarity, align, compare, explain, native
from dsa_analysis.joint import align_jointly
from tests.dsa_analysis.operators import KINDS, gaussian, haar

DRIVEN = ("state", "input", "joint")
quiet = pytest.mark.filterwarnings("ignore:system:UserWarning")


@pytest.fixture(scope="module", params=("native", "torch"), autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test runs on both paths."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPUTE_ALIKE_NATIVE", str(int(request.param == "native")))
        taken, why = native.status()
        if taken != (request.param == "native"):
            pytest.skip(why)
        yield request.param


def systems(p: int, n: int, m: int, generator: torch.Generator, kind: str = "Gaussian") -> Tensor:
    """[A B] of p systems, (p, n, n + m)."""
    return torch.cat([KINDS[kind](p, n, generator), torch.randn(p, n, m, generator=generator, dtype=torch.float64)], 2)


def turned(first: Tensor, C: Tensor) -> Tensor:
    """[C^T A C, C^T B]."""
    n = first.shape[1]
    return torch.cat([C.mT @ first[..., :n] @ C, C.mT @ first[..., n:]], 2)


def similarity(a: np.ndarray, b: np.ndarray, C: np.ndarray, w: float) -> float:
    """w cos(A, C A' C^T) + (1 - w) gain(B, C B'), by the definition."""
    n = len(a)
    A, B, D, E = a[:, :n], a[:, n:], C @ b[:, :n] @ C.T, C @ b[:, n:]
    cosine = (A * D).sum() / np.linalg.norm(A) / np.linalg.norm(D)
    return float(w * cosine + (1 - w) * 2 * (B * E).sum() / ((B**2).sum() + (E**2).sum()))


# ---- the same system -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Gaussian", "near-orthogonal", "exactly normal"])
@pytest.mark.parametrize(("n", "m"), [(2, 1), (3, 4), (6, 2), (11, 1)])
def test_conjugate_systems_are_at_distance_zero_in_all_metrics(n, m, kind):
    generator = torch.Generator().manual_seed(n)
    first = systems(4, n, m, generator, kind)
    second = turned(first, torch.cat([haar(2, n, generator, determinant) for determinant in (1, -1)]))
    for name, weight in (("state", {}), ("input", {}), ("joint", {}), ("joint", {"state_weight": 0.01})):
        found = METRICS[name].distances(first, second, **weight)
        assert found.distance.max() < 1e-6, name
        assert found.converged.all()


def test_symmetric_operators_need_the_inputs_to_settle_signs(generator):
    """Each eigenvector of a symmetric A may be turned round; only B says which are."""
    first = systems(6, 7, 1, generator)
    first[..., :7] += first[..., :7].mT.clone()
    found = METRICS["joint"].distances(first, turned(first, haar(6, 7, generator)), n_starts=3)  # the built ones
    assert found.distance.max() < 1e-6


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return systems(4, 5, 2, generator), systems(4, 5, 2, generator)


@pytest.mark.parametrize("name", DRIVEN)
def test_distance_is_symmetric_invariant_and_zero_for_itself(name, pair, generator):
    first, second = pair
    metric = METRICS[name]
    there, back = metric.distances(first, second), metric.distances(second, first)
    assert torch.equal(there.distance, back.distance)
    assert torch.equal(there.lower_bound, back.lower_bound)
    moved = metric.distances(turned(first, haar(4, 5, generator)), turned(second, haar(4, 5, generator)))
    torch.testing.assert_close(moved.distance, there.distance, rtol=0, atol=1e-7)  # flat at the top
    assert metric.distances(first, first).distance.max() < 1e-7
    assert (there.distance > 0.01).all()
    assert (there.distance <= math.pi).all()


def test_pair_is_the_same_alone_and_in_company(pair, generator):
    first, second = pair
    whole = METRICS["joint"].distances(first, second)
    more = METRICS["joint"].distances(*(torch.cat([systems(9, 5, 2, generator), x]) for x in pair))
    torch.testing.assert_close(more.distance[9:], whole.distance, rtol=0, atol=1e-9)
    alone = METRICS["joint"].distances(first[2:3], second[2:3])
    torch.testing.assert_close(alone.distance, whole.distance[2:3], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", DRIVEN)
def test_triangle_inequality(name, generator):
    x = systems(9, 3, 1, generator)
    x[::2, :, 3:] *= 4
    i, j = torch.triu_indices(9, 9, 1)
    found = METRICS[name].distances(x[i], x[j]).distance
    D = torch.zeros(9, 9).double()
    D[i, j] = D[j, i] = found
    assert (D[:, None] <= D[:, :, None] + D[None] + 1e-9).all()


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_weight_one_is_state_and_weight_zero_is_input_to_the_bit(pair):
    for weight, name in ((1, "state"), (1.0, "state"), (0, "input")):
        joint, single = METRICS["joint"].distances(*pair, state_weight=weight), METRICS[name].distances(*pair)
        for one, other in zip(joint, single, strict=True):
            assert torch.equal(one, other)


def test_state_is_the_angle_of_the_operators(pair):
    expected = align(pair[0][..., :5], pair[1][..., :5])
    found = METRICS["state"].distances(*pair)
    assert torch.equal(found.distance, expected.distance)
    assert torch.equal(found.lower_bound, expected.lower_bound)


def test_joint_tends_to_state_and_input_as_its_weight_does(pair):
    for weight, name in ((1 - 1e-10, "state"), (1e-10, "input")):
        found, limit = METRICS["joint"].distances(*pair, state_weight=weight), METRICS[name].distances(*pair)
        torch.testing.assert_close(found.distance, limit.distance, rtol=0, atol=1e-6)


def test_input_is_procrustes_analysis(pair):
    for p in range(4):
        B, D = (x[p, :, 5:].numpy() for x in pair)
        C, nuclear = orthogonal_procrustes(D.T, B.T)
        expected = math.acos(2 * nuclear / ((B**2).sum() + (D**2).sum()))
        found = METRICS["input"].distances(pair[0][p : p + 1], pair[1][p : p + 1])
        assert float(found.distance) == pytest.approx(expected, abs=1e-12)
        assert torch.equal(found.distance, found.lower_bound)
        assert np.linalg.norm(B - C.T @ D) == pytest.approx(
            math.sqrt(2 * ((B**2).sum() + (D**2).sum())) * math.sin(expected / 2), rel=1e-12
        )


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_one_input_is_compared_by_its_strength(factor, generator):
    first, second = systems(3, 4, 1, generator), systems(3, 4, 1, generator)
    second[..., 4:] *= factor * first[..., 4:].norm(dim=1, keepdim=True) / second[..., 4:].norm(dim=1, keepdim=True)
    found = METRICS["input"].distances(first, second).distance
    expected = torch.full_like(found, math.acos(min(2 * factor / (1 + factor**2), 1)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


# ---- the optimum -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.2, 0.5, 0.9])
def test_distance_is_that_at_the_transform_and_none_is_better(pair, weight, generator):
    found = align_jointly(*pair, state_weight=weight)
    for p in range(4):
        a, b = (x[p].numpy() for x in pair)
        C = found.transform[p].numpy()
        np.testing.assert_allclose(C @ C.T, np.eye(5), atol=1e-12)
        at_top = similarity(a, b, C, weight)
        assert math.acos(at_top) == pytest.approx(float(found.distance[p]), abs=1e-9)
        for other in haar(50, 5, generator).numpy():
            assert similarity(a, b, other, weight) <= at_top
        W = 1e-3 * gaussian(1, 5, generator)[0].numpy()
        assert similarity(a, b, expm(W - W.T) @ C, weight) <= at_top + 1e-12


def test_no_start_of_another_optimiser_ends_higher(generator):
    first, second = systems(2, 3, 2, generator), systems(2, 3, 2, generator)
    found = align_jointly(first, second, state_weight=0.4)
    upper = np.triu_indices(3, 1)
    for p in range(2):
        a, b = first[p].numpy(), second[p].numpy()

        def missed(x: np.ndarray, start: np.ndarray, a: np.ndarray = a, b: np.ndarray = b) -> float:
            W = np.zeros((3, 3))
            W[upper] = x
            return -similarity(a, b, expm(W - W.T) @ start, 0.4)

        best = min(minimize(missed, np.zeros(3), args=(C,)).fun for C in haar(12, 3, generator).numpy())
        assert math.cos(float(found.distance[p])) >= -best - 1e-9


@given(
    n=st.integers(1, 5), m=st.integers(1, 3), seed=st.integers(0, 10_000), n_starts=st.integers(1, 4),
    weight=st.floats(0, 1), remove_trace=st.booleans(),
)  # fmt: skip
def test_bound_holds_for_every_transform_at_any_budget(n, m, seed, n_starts, weight, remove_trace):
    generator = torch.Generator().manual_seed(seed)
    n += remove_trace
    a, b = systems(1, n, m, generator), systems(1, n, m, generator)
    options = {"state_weight": weight, "n_starts": n_starts, "remove_trace": remove_trace}
    found = METRICS["joint"].distances(a, b, **options)
    assert 0 <= found.lower_bound <= found.distance
    if remove_trace:
        eye = torch.eye(n, dtype=torch.float64)
        for x in (a, b):
            x[..., :n] -= x[..., :n].diagonal(dim1=-2, dim2=-1).mean() * eye
    known = min(math.acos(np.clip(similarity(a[0].numpy(), b[0].numpy(), C.numpy(), weight), -1, 1))
                for C in haar(20, n, generator))  # fmt: skip
    assert float(found.lower_bound) <= known + 1e-7  # rounding of an arc cosine near 0


def test_bound_of_a_known_transform_is_not_exceeded_where_it_is_tight(generator):
    """The second systems are the first ones in other coordinates, with a little added."""
    first = systems(20, 6, 2, generator)
    C = haar(20, 6, generator)
    second = turned(first + 0.01 * systems(20, 6, 2, generator), C)
    found = METRICS["joint"].distances(first, second)
    known = [
        math.acos(similarity(a.numpy(), b.numpy(), c.numpy(), 0.5)) for a, b, c in zip(first, second, C, strict=True)
    ]
    assert (found.distance <= torch.tensor(known) + 1e-9).all()
    assert (found.lower_bound <= torch.tensor(known)).all()
    assert (found.lower_bound / found.distance).median() > 0.5


@pytest.mark.parametrize("n", [3, 4])
def test_rotations_alone_do_not_undo_a_reflection(n, generator):
    first = systems(5, n, n, generator)
    for determinant, zero in ((1, True), (-1, False)):
        second = turned(first, haar(5, n, generator, determinant))
        for name in ("input", "joint"):
            found = METRICS[name].distances(first, second, group="SO")
            assert bool((found.distance < 1e-6).all()) is zero, name
    C = align_jointly(first, second, state_weight=0.5, group="SO").transform
    torch.testing.assert_close(torch.linalg.det(C), torch.ones(5).double())


# ---- through compare -------------------------------------------------------------------------------------------------


def test_compare_takes_pairs_of_matrices_and_keeps_them(generator, tmp_path):
    x = systems(3, 4, 2, generator)
    x[1] = turned(x[:1], haar(1, 4, generator))[0]
    given = {name: DrivenOperator(own[:, :4], own[:, 4:].numpy()) for name, own in zip("abc", x, strict=True)}
    found = compare(given, metric="joint", state_weight=0.3, progress=False)
    assert found.distances[0, 1] < 1e-6
    expected = METRICS["joint"].distances(x[:1], x[2:], state_weight=0.3).distance
    assert found.distances[0, 2] == pytest.approx(float(expected), abs=1e-9)
    assert (found.unit, found.comparison.state_weight) == ("rad", 0.3)
    loaded = Similarity.load(found.save(tmp_path / "joint.nc"))
    assert loaded.comparison == found.comparison
    again = compare(loaded.operators, how=loaded.comparison, progress=False)
    np.testing.assert_array_equal(again.distances, found.distances)
    stored = compare(given, metric="joint", state_weight=0.3, store=tmp_path, progress=False)
    np.testing.assert_array_equal(stored.distances, found.distances)


A, B = torch.eye(3) + 0.1, torch.ones(3, 2)


@pytest.mark.parametrize(
    ("second", "choices", "message"),
    [
        (DrivenOperator(A, B), {"state_weight": 1.2}, "state_weight = 1.2 is not a number from 0 to 1"),
        (DrivenOperator(A, B), {"state_weight": -0.1}, "state_weight = -0.1 is not a number from 0 to 1"),
        (DrivenOperator(A, B), {"state_weight": math.nan}, "state_weight = nan is not a number from 0 to 1"),
        (
            DrivenOperator(A, B),
            {"state_weight": 0.2, "metric": "state"},
            "state_weight = 0.2 has no effect with metric = 'state', which does not take it",
        ),
        (
            DrivenOperator(A, B),
            {"certificate": "tight"},
            "certificate = 'tight' has no effect with metric = 'joint', which computes its lower bounds in one way",
        ),
        (A, {}, "metric = 'joint' compares operators with inputs, but system 'b' came as an operator without"),
        (DrivenOperator(A, B[:, :1]), {}, "systems have different numbers of inputs, 'a' 2, 'b' 1; metric = 'joint'"),
        (DrivenOperator(A[:2, :2], B[:2]), {}, "operators of different size"),
        (DrivenOperator(A, 0 * B), {}, "system 'b': its input matrix is zero, so its inputs do nothing"),
        (DrivenOperator(A, B), {"n_delays": "auto"}, "for which n_delays = 'auto' is not offered; state n_delays"),
        (DrivenOperator(A, B), {"steps_ahead": 3}, "which predict one sample ahead; leave out steps_ahead = 3"),
        (DrivenOperator(A, B), {"estimator": "signal_weighted"}, "estimator of operators with inputs = "),
        (DrivenOperator(A, B), {"n_future": 3}, "n_future = 3 has no effect with estimator = 'least_squares'"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(second, choices, message):
    with pytest.raises(DataError, match=re.escape(message)):
        compare({"a": DrivenOperator(A, B), "b": second}, progress=False, **{"metric": "joint"} | choices)


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        ((A[:2], B), "came with (2, 3) and (3, 2)"),
        ((A, B[:2]), "came with (3, 3) and (2, 2)"),
        ((A, B[:, 0]), "input_matrix of a DrivenOperator has shape (3,); real numbers (n, k) are needed"),
        ((A * math.nan, B), "matrix of a DrivenOperator holds NaN or infinity"),
        ((A, "B"), "input_matrix of a DrivenOperator is no matrix of numbers"),
        ((A, B * 1j), "input_matrix of a DrivenOperator has shape (3, 2); real numbers"),
    ],
)
def test_matrices_that_make_no_driven_operator_are_refused(matrices, message):
    with pytest.raises(DataError, match=re.escape(message)):
        DrivenOperator(*matrices)


def test_other_metrics_take_the_operators_of_driven_systems(generator):
    x = systems(2, 3, 1, generator)
    given = [DrivenOperator(own[:, :3], own[:, 3:]) for own in x]
    angular, state, joint = (compare(given, metric=name, progress=False) for name in ("angular", "state", "joint"))
    np.testing.assert_array_equal(angular.distances, state.distances)
    pd.testing.assert_frame_equal(explain(angular, "0", "1", dt=1.0).modes, explain(state, "0", "1", dt=1.0).modes)
    with pytest.raises(DataError, match="metric = 'joint' aligns no operators"):
        explain(joint, "0", "1", dt=1.0)
    assert Comparison(metric="joint").state_weight == 0.5
