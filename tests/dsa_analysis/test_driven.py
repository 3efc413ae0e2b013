"""Operators of driven systems: against known dynamics, and against a dense least squares of all windows at once."""

import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dsa_analysis import (
    DataError,
    DrivenOperator,
    Similarity,
    align,
    compare,
    explain,
    fit_driven_operator,
    fit_operator,
)

quiet = pytest.mark.filterwarnings("ignore:system .*(cut at rank|transitions for rank|inputs determine):UserWarning")
N, Q = 5, 3  # dimensions and inputs of the system below
EIGENVALUES = np.array([0.95, 0.9 * np.exp(0.3j), 0.9 * np.exp(-0.3j), 0.8 * np.exp(0.8j), 0.8 * np.exp(-0.8j)])


def driven(
    n_trials: int = 50, n_times: int = 20, *, smooth: float = 0.9, seed: int = 0, rest: float = 0.0, noise: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """States and inputs of x(t + 1) = F x(t) + G u(t), and F, which is not normal and has `EIGENVALUES`.

    Inputs are coloured noise with the memory ``smooth``; the system rests at ``rest`` in all channels. ``noise`` drives
    it as well, unknown.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    blocks = [torch.tensor([[0.95]], dtype=torch.float64)]
    for z in EIGENVALUES[[1, 3]]:
        blocks.append(torch.tensor([[z.real, -z.imag], [z.imag, z.real]]))
    modes = normal(N, N)
    F, G = modes @ torch.block_diag(*blocks) @ torch.linalg.inv(modes), normal(N, Q)
    u = [normal(n_trials, Q)]
    x = [normal(n_trials, N)]
    for _ in range(n_times - 1):
        x.append(x[-1] @ F.T + u[-1] @ G.T + noise * normal(n_trials, N))
        u.append(smooth * u[-1] + (1 - smooth**2) ** 0.5 * normal(n_trials, Q))
    return torch.stack(x, 1) + rest, torch.stack(u, 1), F


def worst_gap(found: Any, expected: Any) -> float:
    """Largest distance of best-matched eigenvalues; those found in excess are matched with 0."""
    expected = np.concatenate([expected, np.zeros(len(found) - len(expected))])
    gaps = abs(np.subtract.outer(np.asarray(found), expected))
    return float(gaps[linear_sum_assignment(gaps**2)].max())


def windows(x: np.ndarray, m: int, d: int) -> np.ndarray:
    past = (m - 1) * d
    return np.stack([x[t - past : t + 1][::-d].ravel() for t in range(past, len(x))])


def dense(trials: Any, inputs: Any, m: int, rank: int, d: int = 1, ridge: float = 1e-8, center: bool = True) -> Any:
    """A, v and w by one least squares over a stack of everything; the ridge is a row for each column of A."""
    mean = np.concatenate(trials).mean(0) * center
    H = [windows(x - mean, m, d) for x in trials]
    w = [windows(u, (m - 1) * d + 1, 1) for u in inputs]
    w = [np.hstack([rows, np.ones((len(rows), int(center)))]) for rows in w]
    V, _, U = np.linalg.svd(np.concatenate(H), full_matrices=False)
    v = np.split(V[:, :rank] * np.sign(U[range(rank), abs(U[:rank]).argmax(1)]), np.cumsum([len(h) for h in H])[:-1])
    left = np.hstack([np.concatenate([rows[:-1] for rows in part]) for part in (v, w)])
    left = np.vstack([left, ridge**0.5 * np.eye(rank, left.shape[1])])
    right = np.vstack([*(rows[1:] for rows in v), np.zeros((rank, rank))])
    return np.linalg.lstsq(left, right, rcond=None)[0][:rank].T


# ---- known dynamics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("smooth", [0.0, 0.9])
def test_driven_linear_system_gives_back_its_operator_where_the_plain_one_fails(seed, smooth, center):
    x, u, F = driven(seed=seed, smooth=smooth)
    driven_by_known, plain = (
        fit(n_delays=1, rank=N, center=center)
        for fit in (lambda **s: fit_driven_operator(x, u, **s), lambda **s: fit_operator(x, **s))
    )

    def in_samples(operator: Any) -> Tensor:
        basis = getattr(operator, "plain", operator).basis * operator.singular_values  # x = U S v
        return basis @ operator.matrix @ torch.linalg.inv(basis)

    # the ridge of 1e-8, grown by what the inputs leave of the state (1/3) and the condition of the coordinates
    torch.testing.assert_close(in_samples(driven_by_known), F, rtol=0, atol=1e-6)
    assert (in_samples(plain) - F).abs().max() > 1e-2
    assert worst_gap(plain.eigenvalues, EIGENVALUES) > 1e-2


@pytest.mark.parametrize(("m", "d"), [(1, 1), (2, 1), (6, 1), (3, 2), (2, 5)])
@pytest.mark.parametrize("rest", [0.0, 30.0])
def test_eigenvalues_do_not_depend_on_the_delays(m, d, rest):
    x, u, _ = driven(rest=rest)
    operator = fit_driven_operator(x, u, n_delays=m, delay_interval=d, rank=N, ridge=0)
    assert worst_gap(operator.eigenvalues, EIGENVALUES) < 1e-9  # remainder 1e-4 of the state: 1e-15 / 1e-4
    plain = fit_operator(x, n_delays=m, delay_interval=d, rank=N)
    assert worst_gap(plain.eigenvalues, EIGENVALUES) > 0.1


def test_inputs_of_the_present_alone_would_not_do():
    """Why w reaches back to the oldest sample: with u(t) alone A takes earlier inputs for dynamics."""
    x, u, _ = driven(smooth=0.0)
    mean = x.mean((0, 1))
    v = np.linalg.svd(np.concatenate([windows((trial - mean).numpy(), 4, 1) for trial in x]), full_matrices=False)[0]
    v = v[:, :N].reshape(50, 17, N)
    left = np.concatenate([v[:, :-1], u[:, 3:-1].numpy(), np.ones((50, 16, 1))], -1).reshape(-1, N + Q + 1)
    A = np.linalg.lstsq(left, v[:, 1:].reshape(-1, N), rcond=None)[0][:N].T
    assert worst_gap(np.linalg.eigvals(A), EIGENVALUES) > 0.05
    operator = fit_driven_operator(x, u, n_delays=4, rank=N, ridge=0)
    assert worst_gap(operator.eigenvalues, EIGENVALUES) < 1e-9


@pytest.mark.parametrize("n_seen", [1, 2])
@quiet
def test_few_channels_are_enough_with_delays(n_seen):
    x, u, _ = driven(n_times=40, smooth=0.5)
    seen = fit_driven_operator(x[..., :n_seen], u, n_delays=8, rank=N, ridge=0)
    assert worst_gap(seen.eigenvalues, EIGENVALUES) < 1e-6  # modes that one channel hardly shows
    assert worst_gap(fit_operator(x[..., :n_seen], n_delays=8, rank=N).eigenvalues, EIGENVALUES) > 0.05


@pytest.mark.parametrize("rank", [8, 11])
def test_rank_above_the_dimension_adds_zeros_and_says_so(rank):
    x, u, _ = driven()
    with pytest.warns(UserWarning, match=rf"'system': inputs determine {rank - N} of rank = {rank} directions, where"):
        operator = fit_driven_operator(x, u, n_delays=3, rank=rank)
    assert worst_gap(operator.eigenvalues, EIGENVALUES) < 1e-6  # the ridge
    assert (operator.remainder > 1e-4).sum() == N
    assert operator.remainder[N:].max() < 1e-12  # rounding of products


def test_hundred_trials_of_six_samples_give_back_the_eigenvalues():
    """No window crosses from one trial into the next, in states or in inputs."""
    x, u, _ = driven(100, 6, smooth=0.0)
    operator = fit_driven_operator(x, u, n_delays=2, rank=N, ridge=0)
    assert worst_gap(operator.eigenvalues, EIGENVALUES) < 1e-9


def test_noise_that_drives_the_state_averages_out():
    """Least squares is consistent at one delay: fifty times the trials, a seventh of the error."""
    errors = [
        np.mean([
            worst_gap(fit_driven_operator(x, u, n_delays=1, rank=N).eigenvalues, EIGENVALUES)
            for x, u, _ in (driven(n_trials, noise=0.3, seed=seed) for seed in range(3))
        ])
        for n_trials in (10, 500)
    ]  # fmt: skip
    assert errors[1] < 0.3 * errors[0]


def test_time_constants_and_frequencies_are_those_of_the_system():
    x, u, _ = driven()
    operator = fit_driven_operator(x, u, n_delays=1, rank=N, ridge=0)
    np.testing.assert_allclose(operator.time_constants(20.0)[0], -20 / np.log(0.95), rtol=1e-9)
    np.testing.assert_allclose(operator.frequencies(0.02)[1], 0.3 / (2 * np.pi * 0.02), rtol=1e-9)


# ---- dense least squares ---------------------------------------------------------------------------------------------


def ragged(seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Trials of unequal length that no linear system made, with inputs."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(4, 4)) * [1, 1.5, 2, 3]
    u = [rng.normal(size=(n, 2)).cumsum(0) for n in (30, 45, 12, 60, 31)]
    return [(np.tanh(v @ rng.normal(size=(2, 4))) + rng.normal(size=(len(v), 4)).cumsum(0)) @ mixing for v in u], u


CASES = {
    "one sample": {"m": 1, "rank": 4},
    "delays": {"m": 3, "rank": 6},
    "spaced delays": {"m": 3, "rank": 5, "d": 2},
    "as given": {"m": 2, "rank": 5, "center": False},
    "ridge": {"m": 2, "rank": 5, "ridge": 0.3},
    "no ridge": {"m": 2, "rank": 8, "ridge": 0.0},
}


@quiet
@pytest.mark.parametrize("case", CASES)
def test_operator_is_that_of_one_dense_least_squares(case):
    settings = CASES[case]
    x, u = ragged()
    expected = dense(x, u, **settings)
    named = {"m": "n_delays", "d": "delay_interval"}
    ours = fit_driven_operator(x, u, **{named.get(key, key): value for key, value in settings.items()})
    np.testing.assert_allclose(ours.matrix, expected, rtol=0, atol=1e-9)  # products: 1e-16 times a condition of 1e5


@quiet
def test_ragged_list_of_equal_trials_is_the_stacked_array():
    x, u, _ = driven(12, 30)
    listed, stacked = (fit_driven_operator(*data, n_delays=2, rank=4) for data in ((list(x), list(u)), (x, u)))
    assert torch.equal(listed.matrix, stacked.matrix)
    assert torch.equal(listed.input_matrix, stacked.input_matrix)


@quiet
@pytest.mark.parametrize("route", ["few windows", "small directions"])
def test_each_route_to_the_coordinates_gives_back_the_dynamics(route):
    x, u, F = driven(smooth=0.0) if route == "small directions" else driven(3, 14, smooth=0.0)
    if route == "small directions":
        x = x * torch.tensor([1, 1, 1, 1, 1e-6])
        operator = fit_driven_operator(x, u, n_delays=1, rank=N, ridge=0)
    else:  # fewer windows than entries of one: 13 channels that mix five
        spread = torch.randn(N, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        operator = fit_driven_operator(x @ spread, u, n_delays=1, rank=N, ridge=0)
    assert worst_gap(operator.eigenvalues, torch.linalg.eigvals(F)) < 1e-8


# ---- inputs ----------------------------------------------------------------------------------------------------------

SAME = {
    "an input twice": lambda u: torch.cat([u, u[..., :1]], -1),
    "a mixture of others": lambda u: torch.cat([u, u @ torch.tensor([[1.0], [-2.0], [0.5]]).double()], -1),
    "a constant, as of a rule": lambda u: torch.cat([u, torch.full_like(u[..., :1], 0.3)], -1),
    "an input that is never on": lambda u: torch.cat([u, torch.zeros_like(u[..., :1])], -1),
    "other units": lambda u: u * torch.tensor([1e3, 1e-4, -1.0]).double(),
    "an offset": lambda u: u + torch.tensor([3.0, -2.0, 0.5]).double(),
    "other axes": lambda u: u.flip(-1),
}


@pytest.mark.parametrize("change", SAME)
@pytest.mark.parametrize("n_delays", [1, 3])
def test_operator_depends_on_what_inputs_say_alone(change, n_delays):
    x, u, _ = driven()
    one, other = (fit_driven_operator(x, data, n_delays=n_delays, rank=N) for data in (u, SAME[change](u)))
    torch.testing.assert_close(other.matrix, one.matrix, rtol=0, atol=1e-8)  # rounding over a remainder of 1e-2
    assert other.n_input_directions == one.n_input_directions == n_delays * Q + 1
    torch.testing.assert_close(other.predict(x, SAME[change](u)), one.predict(x, u), rtol=0, atol=1e-8)


def test_inputs_that_differ_from_trial_to_trial_alone_are_one_direction():
    x, u, _ = driven()
    rule = torch.arange(50).double()[:, None, None].expand(-1, 20, 1) % 2
    operator = fit_driven_operator(x, torch.cat([u, rule], -1), n_delays=3, rank=N)
    assert operator.n_input_directions == 3 * Q + 2


@pytest.mark.parametrize("inputs", [0.0, 1.0])
def test_constant_inputs_alone_leave_an_offset(inputs):
    """Then A is the regression of changes about the means of all windows with, and all without, a predecessor."""
    x, _, _ = driven()
    operator = fit_driven_operator(x, torch.full((50, 20, 2), inputs), n_delays=1, rank=N, ridge=0)
    past, future = x[:, :-1].flatten(0, 1), x[:, 1:].flatten(0, 1)
    A = torch.linalg.lstsq(past - past.mean(0), future - future.mean(0)).solution.T
    assert worst_gap(operator.eigenvalues, torch.linalg.eigvals(A)) < 1e-9
    assert operator.n_input_directions == 1


def test_without_inputs_and_offset_the_operator_is_the_plain_one():
    x, u, _ = driven()
    settings = {"n_delays": 2, "rank": N, "center": False}
    operator = fit_driven_operator(x, torch.zeros_like(u), **settings)
    torch.testing.assert_close(operator.matrix, fit_operator(x, **settings).matrix, rtol=0, atol=1e-10)
    assert operator.n_input_directions == 0
    assert not operator.input_matrix.any()


def test_input_matrix_is_that_of_the_system():
    """x(t + 1) = .9 x(t) + 2 u(t) - 3 w(t) + 1 in one channel, where coordinates are samples up to a factor."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(20, 30, 2, generator=generator, dtype=torch.float64)
    x = torch.zeros(20, 30, dtype=torch.float64)
    for t in range(29):
        x[:, t + 1] = 0.9 * x[:, t] + 2 * u[:, t, 0] - 3 * u[:, t, 1] + 1
    operator = fit_driven_operator(list(x), list(u), n_delays=1, rank=1, ridge=0)
    scale = operator.singular_values[0]  # x - mean = S v: the basis is [[1]]
    torch.testing.assert_close(operator.input_matrix * scale, torch.tensor([[2.0, -3.0]]).double())
    expected = 1 - 0.1 * operator.plain.mean  # of x - mean
    torch.testing.assert_close(operator.offset * scale, expected)


# ---- prediction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize(("m", "d"), [(1, 1), (3, 1), (3, 2)])
def test_driven_linear_system_is_predicted_exactly(horizon, m, d):
    x, u, _ = driven(rest=5.0)
    operator = fit_driven_operator(x, u, n_delays=m, delay_interval=d, rank=N, ridge=0)
    new_x, new_u, _ = driven(4, 25, smooth=0.2, rest=5.0)
    predicted = operator.predict(new_x, new_u, horizon)
    torch.testing.assert_close(predicted, new_x[:, (m - 1) * d + horizon :], rtol=0, atol=1e-8)


def test_prediction_of_a_list_is_a_list_and_inputs_matter():
    x, u, _ = driven()
    operator = fit_driven_operator(x, u, n_delays=1, rank=N, ridge=0)
    lists = [x[0], x[1, :9]], [u[0], u[1, :9]]
    predicted = operator.predict(*lists, 2)
    assert [tuple(part.shape) for part in predicted] == [(18, N), (7, N)]
    torch.testing.assert_close(predicted[1], x[1, 2:9], rtol=0, atol=1e-8)
    assert (operator.predict(x, 0 * u) - x[:, 1:]).abs().max() > 1


# ---- in place of data ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def operators() -> dict[str, DrivenOperator]:
    found = {}
    for seed in (0, 1):
        x, u, _ = driven(seed=seed)
        turn = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(9), dtype=torch.float64))[0]
        found[f"{seed}"] = fit_driven_operator(x, u, n_delays=1, rank=N)
        found[f"{seed} turned"] = fit_driven_operator(3 * x @ turn + 2, u.flip(-1), n_delays=1, rank=N)
    return found


@pytest.mark.parametrize("metric", ["angular", "euclidean", "spectral"])
def test_compare_takes_them_and_turned_copies_are_at_distance_zero(operators, metric, tmp_path):
    similarity = compare(operators, metric=metric, progress=False)
    assert similarity.distances[0, 1] < 1e-6  # an angle is known to the root of its cosine's rounding
    assert similarity.distances[2, 3] < 1e-6
    if metric != "spectral":  # the two systems share their eigenvalues
        assert similarity.distances[0, 2] > 0.05
        assert similarity.distances[0, 2] == pytest.approx(
            float(align(operators["0"], operators["1"]).distance if metric == "angular" else similarity.distances[2, 0])
        )
    assert similarity.operators["0"] is operators["0"]
    loaded = Similarity.load(similarity.save(tmp_path / "similarity.nc"))
    np.testing.assert_array_equal(loaded.distances, similarity.distances)
    assert torch.equal(loaded.operators["0"].matrix, operators["0"].matrix)  # what a file keeps are the matrices
    assert torch.equal(loaded.operators["0"].drive, operators["0"].drive)


def test_plain_operators_data_and_driven_ones_mix(operators):
    x, _, _ = driven()
    similarity = compare(
        {"driven": operators["0"], "plain": operators["0"].plain, "data": x}, n_delays=1, rank=N, progress=False
    )
    assert similarity.distances[1, 2] < 1e-6
    assert similarity.distances[0, 1] > 1e-3


def test_modes_of_a_difference_are_explained(operators):
    table = explain(compare(operators, progress=False), "0", "1", dt=20.0).modes
    assert table["time_constant"].max() == pytest.approx(-20 / np.log(0.95), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "cka"}, "metric = 'cka' compares recordings, but system '0' came as an operator"),
        ({"windows": [(0, 5)], "n_delays": 1, "rank": 2}, "windows are cut from trials, but system '0' came as an op"),
    ],
)
def test_what_needs_data_refuses_them(operators, settings, message):
    with pytest.raises(DataError, match=re.escape(message)):
        compare(operators, progress=False, **settings)


# ---- manners ---------------------------------------------------------------------------------------------------------


def test_operator_describes_itself():
    x, u, _ = driven()
    operator = fit_driven_operator(x, u, n_delays=3, delay_interval=2, rank=N)
    assert (operator.rank, operator.n_inputs, operator.parameters.window) == (N, Q, 5)
    assert operator.input_matrix.shape == (N, 5 * Q)
    assert operator.feedthrough.shape == (N, 5 * Q)
    assert operator.remainder.min() >= 0
    assert operator.remainder.max() <= 1 + 1e-12
    plain = fit_operator(x, n_delays=3, delay_interval=2, rank=N)
    assert torch.equal(operator.plain.matrix, plain.matrix)
    assert torch.equal(operator.singular_values, plain.singular_values)
    assert (operator.eigenvalues.abs().diff() <= 1e-9).all()


def test_fitting_leaves_data_and_global_randomness_alone():
    x, u, _ = driven()
    x.requires_grad_()
    copies, state = (x.detach().clone(), u.clone()), torch.get_rng_state()
    operator = fit_driven_operator(x, u, n_delays=2, rank=N)
    assert torch.equal(x, copies[0])
    assert torch.equal(u, copies[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert not operator.matrix.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_numbers_of_other_precision_are_taken_as_they_are(dtype):
    x, u, _ = driven(smooth=0.0)
    inputs = (4 * u).round()  # whole numbers, exact in each
    one, other = (fit_driven_operator(x, data, n_delays=2, rank=N) for data in (inputs, inputs.to(dtype)))
    assert other.matrix.dtype == torch.float64
    torch.testing.assert_close(one.matrix, other.matrix, rtol=0, atol=1e-12)
    integers = fit_driven_operator(x, inputs.numpy().astype(np.int8), n_delays=2, rank=N)
    torch.testing.assert_close(one.matrix, integers.matrix, rtol=0, atol=1e-12)


X, U, _ = driven(4, 20)


def changed(u: Tensor, trial: int, sample: int, value: float) -> Tensor:
    u = u.clone()
    u[trial, sample, 1] = value
    return u


@pytest.mark.parametrize(
    ("inputs", "settings", "message"),
    [
        (U[:3], {}, "system 'A' has 4 trials, and inputs came for 3; give inputs for each"),
        (U[:, :19], {}, "system 'A', trial 0 has 20 samples and its inputs 19; the numbers must agree"),
        ([*U[:2], U[2, 1:], U[3]], {}, "system 'A', trial 2 has 20 samples and its inputs 19"),
        (changed(U, 2, 7, np.nan), {}, "system 'inputs of A', trial 2, channel 1: 1 non-finite value, first at sample"),
        (changed(U, 1, 0, np.inf), {}, "system 'inputs of A', trial 1, channel 1: 1 non-finite value"),
        ([*U[:3], U[3, :, :2]], {}, "system 'inputs of A', trial 3 has 2 channels, trial 0 has 3"),
        (U[None], {}, "system 'inputs of A' has shape (1, 4, 20, 3)"),
        (U, {"rank": 9}, "system 'A': rank = 9 is out of reach; 5 entries in a window"),
        (U, {"n_delays": 20}, "n_delays = 20 with delay_interval = 1 needs trials of at least 21 samples"),
        (
            U,
            {"n_delays": 12, "rank": 5},
            "system 'A': 32 transitions cannot tell rank = 5 from 32 directions of the inputs in windows of 12 samples",
        ),
        (U, {"ridge": -1.0}, "ridge = -1.0 is not a number of at least 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused_naming_the_place(inputs, settings, message):
    with pytest.raises(DataError, match=re.escape(message)):
        fit_driven_operator(X, inputs, name="A", **{"n_delays": 1, "rank": 2} | settings)


@pytest.mark.parametrize(
    ("x", "u", "horizon", "message"),
    [
        (X[..., :4], U, 1, "trial 0 has 4 channels; the operator was fitted to 5"),
        (X, U[..., :2], 1, "trial 0 has 2 inputs; the operator was fitted to 3"),
        (X[:, :4], U[:, :4], 3, "trial 0 has 4 samples; to predict 3 ahead, 5 are needed"),
        (X, U[:, 1:], 1, "trial 0 has 20 samples and its inputs 19"),
        (X, U, 0, "horizon = 0 is not a whole number of at least 1"),
    ],
)
@quiet
def test_impossible_predictions_are_refused(x, u, horizon, message):
    operator = fit_driven_operator(X, U, n_delays=2, rank=4)
    with pytest.raises(DataError, match=re.escape(message)):
        operator.predict(x, u, horizon)


def test_few_transitions_for_the_inputs_are_warned_about():
    x, u, _ = driven(6, 20)
    with pytest.warns(
        UserWarning, match="102 transitions for rank = 5 and 10 directions of the inputs: fewer than 10 f"
    ):
        fit_driven_operator(x, u[..., :3], n_delays=3, rank=5)


def test_cut_through_a_cluster_is_warned_about():
    white = np.random.default_rng(0).normal(size=(4, 200, 6))
    with pytest.warns(UserWarning, match=r"system 'A': the cut at rank = 3 goes through a cluster"):
        fit_driven_operator(white, white[..., :1], n_delays=1, rank=3, name="A")


def test_nothing_is_warned_about_where_all_is_well():
    x, u, _ = driven()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_driven_operator(x, torch.cat([u, torch.ones_like(u)], -1), n_delays=1, rank=N)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("n_delays", [1, 3])
def test_fit_on_cuda_is_that_of_the_cpu(n_delays):
    x, u, _ = driven()
    here, there = (fit_driven_operator(x, u, n_delays=n_delays, rank=N, device=device) for device in (None, "cuda"))
    assert there.matrix.is_cuda
    torch.testing.assert_close(there.eigenvalues.cpu(), here.eigenvalues, rtol=0, atol=1e-8)
    torch.testing.assert_close(there.predict(x.cuda(), u, 2).cpu(), here.predict(x, u, 2), rtol=0, atol=1e-6)
