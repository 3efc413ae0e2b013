"""Fitted operators: against a dense decomposition of the Hankel matrix, and against linear systems that are known."""

import copy
import math
import pickle
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dsa_analysis import DataError, EmbeddingParameters, Operator, fit_operator, singular_spectrum
from dsa_analysis.systems import linear

quiet = pytest.mark.filterwarnings("ignore:system .*(cut at rank|transitions for rank):UserWarning")


def windows(trials: list[np.ndarray], m: int, d: int = 1) -> list[np.ndarray]:
    past = (m - 1) * d
    return [np.stack([x[t - past : t + 1][::-d].ravel() for t in range(past, len(x))]) for x in trials]


def dense(
    trials: Any, n_delays: int, rank: int, delay_interval: int = 1, steps_ahead: int = 1, ridge: float = 1e-8,
    center: bool = True,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Operator and all singular values by the singular value decomposition of the Hankel matrix itself, in numpy."""
    trials = [np.asarray(trial, dtype=float) for trial in trials]
    mean = np.concatenate(trials).mean(0) if center else 0.0
    H = windows([trial - mean for trial in trials], n_delays, delay_interval)
    V, S, U = np.linalg.svd(np.concatenate(H), full_matrices=False)
    V = V[:, :rank] * np.sign(U[range(rank), abs(U[:rank]).argmax(1)])
    parts = np.split(V, np.cumsum([len(h) for h in H])[:-1])
    past = np.concatenate([v[:-steps_ahead] for v in parts])
    future = np.concatenate([v[steps_ahead:] for v in parts])
    return np.linalg.solve(past.T @ past + ridge * np.eye(rank), past.T @ future).T, S


def recording(seed: int, *lengths: int, n_channels: int) -> list[np.ndarray]:
    """Trials of coloured noise in unequal directions: singular values well apart, none near 0."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_channels, n_channels)) * np.linspace(1, 3, n_channels)
    return [(np.cumsum(rng.normal(size=(n, n_channels)), 0) + rng.normal(size=n_channels)) @ mixing for n in lengths]


def worst_gap(found: Any, expected: Any) -> float:
    """Largest distance of best-matched eigenvalues."""
    gaps = abs(np.subtract.outer(np.asarray(found), np.asarray(expected)))
    return float(gaps[linear_sum_assignment(gaps**2)].max())


@quiet
@given(
    seed=st.integers(0, 1000),
    extra=st.lists(st.integers(0, 25), min_size=1, max_size=4),
    n_channels=st.integers(1, 5),
    n_delays=st.integers(1, 5),
    delay_interval=st.integers(1, 3),
    steps_ahead=st.integers(1, 4),
    center=st.booleans(),
    data=st.data(),
)
def test_operator_is_that_of_the_dense_hankel_matrix(
    seed, extra, n_channels, n_delays, delay_interval, steps_ahead, center, data
):
    least = (n_delays - 1) * delay_interval + 1 + steps_ahead
    trials = recording(seed, *(least + n for n in extra), n_channels=n_channels)
    largest = min(n_delays * n_channels, sum(extra) + len(extra))
    settings = {
        "n_delays": n_delays, "rank": data.draw(st.integers(1, largest)), "delay_interval": delay_interval,
        "steps_ahead": steps_ahead, "center": center,
    }  # fmt: skip
    expected, S = dense(trials, **settings)
    ours = fit_operator(trials, **settings)
    # rounding, grown by the condition of past + ridge, which is what the ridge of 1e-8 leaves it at
    np.testing.assert_allclose(ours.singular_values, S[: ours.rank], rtol=1e-7, atol=1e-9 * S[0])
    np.testing.assert_allclose(ours.matrix, expected, rtol=1e-5, atol=1e-5)


CASES = {
    "many short trials": ((60, 6, 3), {"n_delays": 3, "rank": 5}),
    "rank far below the window (Lanczos)": ((6, 60, 8), {"n_delays": 10, "rank": 3}),
    "fewer windows than entries (dual)": ((1, 30, 20), {"n_delays": 5, "rank": 6}),
    "fewer windows than entries, more trials": ((3, 12, 20), {"n_delays": 3, "rank": 6, "steps_ahead": 2}),
    "spaced delays": ((4, 60, 3), {"n_delays": 4, "rank": 5, "delay_interval": 3}),
    "spaced delays, step between them": ((4, 60, 3), {"n_delays": 4, "rank": 5, "delay_interval": 3, "steps_ahead": 2}),
    "spaced delays, step of their spacing": (
        (4, 60, 3),
        {"n_delays": 3, "rank": 5, "delay_interval": 2, "steps_ahead": 4},
    ),
    "ridge": ((4, 60, 3), {"n_delays": 2, "rank": 4, "ridge": 0.3}),
    "no ridge": ((4, 60, 3), {"n_delays": 2, "rank": 4, "ridge": 0.0}),
    "offset kept": ((4, 60, 3), {"n_delays": 2, "rank": 4, "center": False}),
}


@quiet
@pytest.mark.parametrize("case", CASES)
def test_each_route_agrees_with_the_dense_hankel_matrix(case):
    (n_trials, n_times, n_channels), settings = CASES[case]
    trials = recording(1, *[n_times] * n_trials, n_channels=n_channels)
    expected, S = dense(trials, **settings)
    ours = fit_operator(np.stack(trials), **settings)
    np.testing.assert_allclose(ours.matrix, expected, rtol=0, atol=1e-9)  # S_r / S_1 > 1e-3: 1e-16 * 1e6, and some room
    np.testing.assert_allclose(ours.singular_values, S[: ours.rank], rtol=1e-10)
    assert ours.gap == pytest.approx(S[ours.rank - 1] / S[ours.rank], rel=1e-8)
    assert ours.n_transitions == sum(len(h) - ours.parameters.steps_ahead for h in windows(
        trials, ours.n_delays, ours.parameters.delay_interval
    ))  # fmt: skip


def test_trials_longer_than_a_piece_of_the_stream_are_joined_without_seams():
    """More than 2^17 values in a trial, and then trials that share a piece."""
    trials = recording(2, 50_000, 30_000, 200, 300, n_channels=3)
    expected, _ = dense(trials, n_delays=3, rank=4)
    # a random walk over 80 000 samples: S_4 / S_1 is 1e-4
    np.testing.assert_allclose(fit_operator(trials, n_delays=3, rank=4).matrix, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("small", [1e-2, 1e-4, 1e-6, 3e-8])
def test_small_directions_keep_their_digits(small):
    """Below S_r / S_1 = 1e-5 products of samples alone would miss them: 1e-16 / 1e-12 is an error of 1e-4."""
    scale = np.array([1.0, 1.0, small, small])
    rng = np.random.default_rng(0)
    trials = [linear([-1 + 3j, -0.5 + 1j], 8, 60, seed=3).numpy() * scale + 0.1 * scale * rng.normal(size=(8, 60, 4))][
        0
    ]
    expected, S = dense(trials, n_delays=1, rank=4)
    assert S[3] / S[0] == pytest.approx(small, rel=0.9)
    ours = fit_operator(trials, n_delays=1, rank=4)
    # at 3e-8 even the dense decomposition holds 1e-16 / 3e-8 of them
    np.testing.assert_allclose(ours.matrix, expected, rtol=0, atol=1e-7)


EIGENVALUES = [-0.5, -1.0 + 4j, -0.2 + 2j]
STEPS = np.exp(0.05 * np.array([-0.5, -1 + 4j, -1 - 4j, -0.2 + 2j, -0.2 - 2j]))


def exact_linear(n_trials: int = 20, n_times: int = 40, seed: int = 0) -> Tensor:
    """Samples of x(t + 1) = L x(t) without any integration error: eigenvalues of L are `STEPS`, L is not normal."""
    generator = torch.Generator().manual_seed(seed)
    modes = torch.complex(*torch.randn(2, 5, 5, generator=generator, dtype=torch.float64))
    modes[:, [2, 4]], modes[:, 0] = modes[:, [1, 3]].conj(), modes[:, 0].real.to(modes.dtype)
    L = (modes @ torch.diag(torch.from_numpy(STEPS)) @ torch.linalg.inv(modes)).real
    x = [torch.randn(n_trials, 5, generator=generator, dtype=torch.float64)]
    for _ in range(n_times - 1):
        x.append(x[-1] @ L.T)
    return torch.stack(x, 1)


@pytest.mark.parametrize("n_delays", [1, 2, 6])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)]
)  # its digits, amplified
def test_linear_system_gives_back_its_eigenvalues(n_delays, dtype, tolerance):
    operator = fit_operator(exact_linear().to(dtype), n_delays=n_delays, rank=5, center=False, ridge=0)
    assert operator.matrix.dtype == torch.float64
    assert worst_gap(operator.eigenvalues, STEPS) < tolerance


def test_linear_system_gives_back_its_operator():
    x = exact_linear()
    operator = fit_operator(x, n_delays=1, rank=5, center=False, ridge=0)
    to_samples = operator.basis * operator.singular_values  # x = U S v
    L = to_samples @ operator.matrix @ torch.linalg.inv(to_samples)
    torch.testing.assert_close(x[:, :-1] @ L.T, x[:, 1:], rtol=0, atol=1e-9)


def test_hundred_trials_of_six_samples_give_back_the_eigenvalues():
    """No pair of samples crosses from one trial into the next, where nothing linear happens."""
    operator = fit_operator(exact_linear(100, 6), n_delays=2, rank=5, center=False, ridge=0)
    assert worst_gap(operator.eigenvalues, STEPS) < 1e-8


def test_one_observed_channel_is_enough_with_delays():
    seen = exact_linear()[..., :1]
    operator = fit_operator(seen, n_delays=10, rank=5, center=False, ridge=0)
    assert worst_gap(operator.eigenvalues, STEPS) < 1e-6  # S_5 / S_1 = 1e-4 in one channel


@pytest.mark.parametrize("k", [2, 3])
def test_longer_steps_raise_eigenvalues_to_their_power(k):
    x, settings = exact_linear(), {"rank": 5, "center": False, "ridge": 0}
    ahead = fit_operator(x, n_delays=2, steps_ahead=k, **settings)
    subsampled = fit_operator(x[:, ::k], n_delays=2, **settings)
    spaced = fit_operator(x, n_delays=2, delay_interval=k, **settings)
    assert worst_gap(ahead.eigenvalues, STEPS**k) < 1e-6
    assert worst_gap(subsampled.eigenvalues, STEPS**k) < 1e-6
    assert worst_gap(spaced.eigenvalues, STEPS) < 1e-6


@pytest.mark.parametrize("steps_ahead", [1, 3])
def test_time_constants_and_frequencies_are_those_of_the_system(steps_ahead):
    operator = fit_operator(exact_linear(), n_delays=1, rank=5, center=False, ridge=0, steps_ahead=steps_ahead)
    found = sorted(zip(operator.time_constants(0.05).tolist(), operator.frequencies(0.05).tolist(), strict=True))
    expected = sorted((-1 / z.real, z.imag / (2 * math.pi)) for z in np.log(STEPS) / 0.05)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_eigenvalues_are_ordered_by_modulus_then_imaginary_part():
    values = fit_operator(exact_linear(), n_delays=1, rank=5, center=False).eigenvalues
    assert (values.abs().diff() <= 1e-9).all()
    pairs = values[values.imag.abs() > 1e-6].view(-1, 2)
    assert (pairs[:, 0].imag > 0).all()
    torch.testing.assert_close(pairs[:, 0], pairs[:, 1].conj())


@pytest.mark.parametrize("rank", [10, 20])
def test_invertible_channel_map_keeps_eigenvalues_at_full_rank(generator, rank):
    """At rank = n_delays * n_channels the operator is similar to itself in any channels; below it is not."""
    x = torch.from_numpy(np.stack(recording(3, *[80] * 6, n_channels=5)))
    mapped = x @ torch.randn(5, 5, generator=generator, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = (fit_operator(data, n_delays=4, rank=rank, ridge=0).eigenvalues for data in (x, mapped))
    if rank == 20:
        assert worst_gap(one, other) < 1e-8  # condition of the map
    else:
        assert worst_gap(one, other) > 1e-4


SAME = {
    "trials in another order": lambda x: x.flip(0),
    "all trials twice": lambda x: torch.cat([x, x]),
    "list of trials": list,
    "shifted": lambda x: x + torch.tensor([3.0, -100.0, 5.0]),
    "scaled by 1e3": lambda x: 1e3 * x,
    "scaled by 1e-6": lambda x: 1e-6 * x,
    "channels twice": lambda x: torch.cat([x, x], -1),
    "channels in another order": lambda x: x[..., [2, 0, 1]],
    "signs of channels": lambda x: x * torch.tensor([1.0, -1.0, -1.0]),
}


@pytest.mark.parametrize("change", SAME)
def test_eigenvalues_do_not_depend_on_how_the_data_are_written(change):
    x = torch.from_numpy(np.stack(recording(4, *[70] * 5, n_channels=3)))
    one, other = (fit_operator(data, n_delays=4, rank=5).eigenvalues for data in (x, SAME[change](x)))
    assert worst_gap(one, other) < 1e-8  # rounding of sums in another order, and offsets that cost digits


def test_offset_matters_where_the_mean_is_kept():
    x = torch.from_numpy(np.stack(recording(4, *[70] * 5, n_channels=3)))
    one, other = (fit_operator(data, n_delays=4, rank=5, center=False).eigenvalues for data in (x, x + 50))
    assert worst_gap(one, other) > 1e-3


@quiet
def test_ragged_list_of_equal_trials_is_the_stacked_array():
    trials = recording(5, *[40] * 6, n_channels=4)
    listed, stacked = (fit_operator(x, n_delays=5, rank=8).matrix for x in (trials, np.stack(trials)))
    torch.testing.assert_close(listed, stacked, rtol=0, atol=1e-7)


def test_same_data_give_the_same_operator_bit_for_bit():
    trials = recording(6, 40, 50, n_channels=8)
    one, other = (fit_operator(trials, n_delays=10, rank=3) for _ in range(2))
    assert torch.equal(one.matrix, other.matrix)
    assert torch.equal(one.basis, other.basis)


def test_fitting_leaves_data_and_global_randomness_alone():
    x = torch.from_numpy(np.stack(recording(7, *[60] * 4, n_channels=8))).requires_grad_()
    before, torch_state, numpy_state = x.detach().clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    operator = fit_operator(x, n_delays=10, rank=3)
    assert torch.equal(x, before)
    assert not operator.matrix.requires_grad
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_integers_do_not_overflow():
    counts = np.stack(recording(8, *[60] * 4, n_channels=3))
    counts = (counts * 100 / abs(counts).max()).astype(np.int8)
    one, other = (fit_operator(x, n_delays=2, rank=4).matrix for x in (counts, counts.astype(float)))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_operator_describes_itself():
    trials = recording(9, 50, 60, n_channels=3)
    operator = fit_operator(trials, n_delays=4, rank=3)
    assert (operator.rank, operator.n_delays, operator.n_channels) == (3, 4, 3)
    assert operator.parameters == EmbeddingParameters(4, 3)
    torch.testing.assert_close(operator.basis.T @ operator.basis, torch.eye(3).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(operator.mean, torch.from_numpy(np.concatenate(trials).mean(0)))
    assert (operator.basis.gather(0, operator.basis.abs().argmax(0, keepdim=True)) > 0).all()
    for twin in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        assert torch.equal(twin.matrix, operator.matrix)
        assert twin.parameters == operator.parameters
    assert repr(operator).startswith("<Operator of rank 3: n_delays = 4")  # and no tensors
    with pytest.raises(AttributeError):
        operator.matrix = torch.eye(3)  # type: ignore[misc]


@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("steps_ahead", [1, 3])
def test_linear_system_is_predicted_exactly(horizon, steps_ahead):
    x = exact_linear(6, 40, seed=1)
    settings = {"n_delays": 3, "rank": 5, "delay_interval": 2, "center": False, "ridge": 0}
    operator = fit_operator(x, steps_ahead=steps_ahead, **settings)
    past = 2 * 2 + horizon * steps_ahead
    torch.testing.assert_close(operator.predict(x, horizon), x[:, past:], rtol=0, atol=1e-8)


@quiet
def test_prediction_is_the_power_of_the_operator_between_windows():
    trials = recording(10, 30, 40, n_channels=3)
    operator = fit_operator(trials, n_delays=2, rank=4)
    U, S, A = operator.basis.numpy(), operator.singular_values.numpy(), operator.matrix.numpy()
    predictions = operator.predict(trials, 3)
    assert isinstance(predictions, list)
    for x, predicted in zip(trials, predictions, strict=True):
        v = windows([x - operator.mean.numpy()], 2)[0] @ U / S
        expected = (v @ np.linalg.matrix_power(A, 3).T * S @ U.T)[:-3, :3] + operator.mean.numpy()
        np.testing.assert_allclose(predicted, expected, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("shape", [(4, 60, 3), (1, 12, 9)], ids=["many windows", "few windows"])
def test_singular_spectrum_is_that_of_the_hankel_matrix(shape):
    trials = recording(11, *[shape[1]] * shape[0], n_channels=shape[2])
    S = dense(trials, n_delays=3, rank=1, delay_interval=2)[1]
    found = singular_spectrum(trials, n_delays=3, delay_interval=2)[: len(S)]
    np.testing.assert_allclose(found, S, rtol=0, atol=1e-7 * S[0])  # square roots of eigenvalues known to 1e-16


def test_directions_that_carry_nothing_are_left_out():
    """Three directions in 40 channels: the 37 others are zero, a cluster that must not disturb the fit."""
    low = recording(12, 80, 90, n_channels=3)
    spread = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 3)))[0].T
    one, other = fit_operator(low, n_delays=2, rank=3), fit_operator([x @ spread for x in low], n_delays=2, rank=3)
    assert worst_gap(one.eigenvalues, other.eigenvalues) < 1e-9
    assert fit_operator([x @ spread for x in low], n_delays=1, rank=3).gap > 1e6


SHORT = (
    "n_delays = {n} with delay_interval = {d} needs trials of at least {least} samples ({window} for one window, 1 "
    "more to predict), but system 'A', trial 1 has {has}; at most n_delays = {most} fits, or leave the short trials"
)


@pytest.mark.parametrize(
    ("lengths", "settings", "message"),
    [
        ((30, 5), {"n_delays": 6, "rank": 2}, SHORT.format(n=6, d=1, least=7, window=6, has=5, most=4)),
        ((30, 6), {"n_delays": 6, "rank": 2}, SHORT.format(n=6, d=1, least=7, window=6, has=6, most=5)),
        (
            (30, 5),
            {"n_delays": 3, "delay_interval": 2, "rank": 2},
            SHORT.format(n=3, d=2, least=6, window=5, has=5, most=2),
        ),
        ((30, 1), {"n_delays": 1, "rank": 2}, "not even n_delays = 1 fits"),
        (
            (30, 30),
            {"n_delays": 2, "rank": 9},
            "rank = 9 is out of reach; 8 entries in a window (n_delays 2 x 4 channels)",
        ),
        ((30, 30), {"n_delays": 2, "rank": 9}, "and 56 transitions allow at most 8"),
        ((6,), {"n_delays": 3, "rank": 5}, "and 3 transitions allow at most 3"),
        ((30, 30), {"n_delays": 0, "rank": 2}, "n_delays = 0 is not a whole number of at least 1"),
        ((30, 30), {"n_delays": 2, "rank": 0}, "rank = 0 is not a whole number of at least 1"),
        ((30, 30), {"n_delays": 2, "rank": 2.0}, "rank = 2.0 is not a whole number of at least 1"),
        ((30, 30), {"n_delays": 2, "rank": 2, "delay_interval": 0}, "delay_interval = 0 is not a whole number"),
        ((30, 30), {"n_delays": 2, "rank": 2, "steps_ahead": 0}, "steps_ahead = 0 is not a whole number"),
        ((30, 30), {"n_delays": 2, "rank": 2, "ridge": -1e-8}, "ridge = -1e-08 is not a number of at least 0"),
        ((30, 30), {"n_delays": 2, "rank": 2, "ridge": math.nan}, "ridge = nan is not a number of at least 0"),
        ((30, 30), {"n_delays": 2, "rank": 2, "ridge": "0"}, "ridge = '0' is not a number of at least 0"),
        (
            (30, 30),
            {"n_delays": 2, "rank": 2, "estimator": "least_square"},
            "estimator = 'least_square' is none of 'least_squares'",
        ),
        ((30, 30), {"n_delays": 2, "rank": 2, "device": "cuda:99"}, "device = 'cuda:99' is not there"),
    ],
)
def test_impossible_fits_are_refused_naming_what_would_do(lengths, settings, message):
    with pytest.raises(DataError, match=re.escape(message)):
        fit_operator(recording(13, *lengths, n_channels=4), name="A", **settings)


@pytest.mark.filterwarnings("ignore:.*constant channels")
@pytest.mark.parametrize(("dtype", "small"), [("f8", 1e-9), ("f4", 1e-7), ("f8", 0.0)])
def test_rank_below_what_the_data_resolve_is_refused_with_the_largest(dtype, small):
    x = np.stack(recording(14, *[50] * 4, n_channels=4))
    x[..., 3] = small * np.random.default_rng(1).normal(size=(4, 50)) * abs(x).max()
    with pytest.raises(DataError, match=r"system 'A': rank = 4 is out of reach; .* data resolve .*at most rank = 3$"):
        fit_operator(x.astype(dtype), n_delays=1, rank=4, name="A")


def test_more_memory_than_there_is_is_refused_before_it_is_taken(monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 1000)  # a million bytes
    with pytest.raises(
        DataError, match=r"'A': the lag covariances need 0\.0 GB \(n_delays 50, 4 channels\), 0\.0 GB are th"
    ):
        fit_operator(recording(15, 400, n_channels=4), n_delays=50, rank=3, name="A")  # 4 * 8 * 200^2 is more


def test_cut_through_a_cluster_is_warned_about():
    white = np.random.default_rng(0).normal(size=(4, 200, 6))  # six equal directions
    with pytest.warns(
        UserWarning, match=r"system 'A': the cut at rank = 3 goes through a cluster of singular values \(S_3 /"
    ):
        fit_operator(white, n_delays=1, rank=3, name="A")


def test_few_transitions_are_warned_about():
    with pytest.warns(
        UserWarning, match="system 'A': 29 transitions for rank = 3: fewer than 10 for each dimension kept"
    ):
        fit_operator(recording(16, 30, n_channels=3), n_delays=1, rank=3, name="A")


@pytest.mark.parametrize(
    ("trials", "horizon", "message"),
    [
        (np.random.default_rng(0).normal(size=(2, 30, 2)), 1, "trial 0 has 2 channels; the operator was fitted to 3"),
        (np.random.default_rng(0).normal(size=(2, 5, 3)), 4, "trial 0 has 5 samples; to predict 4 ahead, 6 are needed"),
        (np.random.default_rng(0).normal(size=(2, 30, 3)), 0, "horizon = 0 is not a whole number of at least 1"),
        (np.full((2, 30, 3), np.nan), 1, "trial 0, channel 0: 30 non-finite values"),
    ],
)
def test_impossible_predictions_are_refused(trials, horizon, message):
    operator: Operator = fit_operator(recording(17, 60, n_channels=3), n_delays=2, rank=3)
    with pytest.raises(DataError, match=re.escape(message)):
        operator.predict(trials, horizon)
