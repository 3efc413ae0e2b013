"""Operators of noisy recordings: every estimator against its formula on the Hankel matrix, then what noise does."""

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dsa_analysis import DataError, EmbeddingParameters, align, common_weights, embedding, fit_operator, repeat_variance
from dsa_analysis.covariances import directions, lag_covariances
from dsa_analysis.dmd import fit, solve
from dsa_analysis.systems import linear

ESTIMATORS = [name for name in embedding.ESTIMATORS if name != "subspace"]  # which needs inputs; see test_driven

quiet = pytest.mark.filterwarnings("ignore:system .*(cut at rank|transitions for rank):UserWarning")


def recording(seed: int, *lengths: int, n_channels: int) -> list[Tensor]:
    """Trials of random walks in unequal directions: singular values well apart, none near 0."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_channels, n_channels)) * np.linspace(1, 3, n_channels)
    return [torch.from_numpy(np.cumsum(rng.normal(size=(n, n_channels)), 0) @ mixing) for n in lengths]


def dense(trials: list[Tensor], p: EmbeddingParameters, variance: np.ndarray) -> np.ndarray:
    """The operator from the Hankel matrix itself; noise where two entries of windows are one and the same sample."""
    mean = np.concatenate(trials).mean(0)
    past = (p.n_delays - 1) * p.delay_interval
    H = [
        np.stack([x[t - past : t + 1][:: -p.delay_interval].ravel() for t in range(past, len(x))])
        for x in (trial.numpy() - mean for trial in trials)
    ]
    V, S, U = np.linalg.svd(np.concatenate(H), full_matrices=False)
    V, S, U = V[:, : p.rank], S[: p.rank], U[: p.rank].T
    V, U = (X * np.sign(U[abs(U).argmax(0), range(p.rank)]) for X in (V, U))
    parts = np.split(V, np.cumsum([len(h) for h in H])[:-1])
    before = np.concatenate([v[: -p.steps_ahead] for v in parts])
    after = np.concatenate([v[p.steps_ahead :] for v in parts])

    delay, channel = (index.ravel() for index in np.indices((p.n_delays, len(mean))))
    same_channel, age = channel[:, None] == channel, p.delay_interval * delay
    own, later = (
        len(before) * (U / S).T @ (same_channel * (shift + age[:, None] == age) * variance[channel]) @ (U / S)
        for shift in (0, p.steps_ahead)
    )
    P, Q, ridge = before.T @ before, before.T @ after, p.ridge * np.eye(p.rank)
    if p.estimator == "least_squares":
        return np.linalg.solve(P + ridge, Q).T
    if p.estimator == "noise_compensated":
        return np.linalg.solve(P - own + ridge, Q - later).T
    if p.estimator == "signal_weighted":
        return np.linalg.solve(P + ridge, Q - later).T
    W = np.linalg.svd(np.hstack([before, after]), full_matrices=False)[2][: p.rank].T
    return W[p.rank :] @ np.linalg.inv(W[: p.rank])


def noisy_linear(noise: float, seed: int, n_channels: int = 6, n_trials: int = 40) -> tuple[Tensor, Tensor]:
    """Two damped rotations seen in some channels, clean, and with white noise of that share of their deviation."""
    generator = torch.Generator().manual_seed(seed)
    clean = linear([-0.3 + 3j, -0.2 + 1j], n_trials, 60, generator=generator, dt=0.1)
    clean = clean @ torch.randn(4, n_channels, generator=generator, dtype=torch.float64)
    added = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return clean, clean + noise * clean.std() * added


# of a step of the fourth-order scheme that simulates, z = -.3 +- 3i and -.2 +- i times dt
EIGENVALUES = np.array(
    [
        sum(z**k / math.factorial(k) for k in range(5))
        for z in 0.1 * np.array([-0.3 + 3j, -0.3 - 3j, -0.2 + 1j, -0.2 - 1j])
    ]
)


def error(eigenvalues: Tensor) -> float:
    """Mean distance of the true eigenvalues to the nearest found one."""
    return float(abs(np.subtract.outer(EIGENVALUES, eigenvalues.numpy())).min(1).mean())


@quiet
@given(
    seed=st.integers(0, 1000),
    extra=st.lists(st.integers(0, 25), min_size=1, max_size=4),
    n_channels=st.integers(1, 4),
    n_delays=st.integers(2, 5),
    delay_interval=st.integers(1, 3),
    steps_ahead=st.integers(1, 4),
    estimator=st.sampled_from(ESTIMATORS),
    data=st.data(),
)
def test_operator_is_its_formula_on_the_hankel_matrix(
    seed, extra, n_channels, n_delays, delay_interval, steps_ahead, estimator, data
):
    least = (n_delays - 1) * delay_interval + 1 + steps_ahead
    trials = recording(seed, *(least + n for n in extra), n_channels=n_channels)
    n_transitions = sum(extra) + len(extra)
    rank = data.draw(st.integers(1, min(n_delays * n_channels, max(n_transitions // 2, 1))))
    p = EmbeddingParameters(n_delays, rank, delay_interval, steps_ahead, ridge=1e-6, estimator=estimator)
    # a thousandth of the smallest variance: noise that is there, and leaves every direction mostly signal
    smallest = float(directions(trials, p).singular_values[:rank].min()) ** 2 / n_transitions
    variance = 1e-3 * smallest * np.linspace(1, 2, n_channels)
    try:
        found = fit(trials, p, noise_variance=variance)[0].matrix
    except DataError as refusal:  # a recording of two or three windows may hold no more than that
        assert "out of reach" in str(refusal)  # noqa: PT017
        return
    expected = dense(trials, p, variance)
    scale = max(1.0, abs(expected).max())
    # 1e-6: with few transitions V-^T V- is nearly singular, and its solution loses digits
    np.testing.assert_allclose(found, expected, atol=1e-6 * scale, rtol=1e-6)


@quiet
@given(
    seed=st.integers(0, 1000),
    extra=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    n_channels=st.integers(1, 4),
    longest=st.integers(2, 6),
    delay_interval=st.integers(1, 3),
    steps_ahead=st.integers(1, 4),
    data=st.data(),
)
def test_shorter_windows_are_the_corner_of_longer_ones(
    seed, extra, n_channels, longest, delay_interval, steps_ahead, data
):
    p = EmbeddingParameters(longest, 1, delay_interval, steps_ahead)
    trials = recording(seed, *(p.window + steps_ahead + n for n in extra), n_channels=n_channels)
    n_delays = data.draw(st.integers(1, longest))
    shortened = lag_covariances(trials, p).shortened(n_delays)
    afresh = lag_covariances(trials, replace(p, n_delays=n_delays))
    for name in ("gram", "cross", "heads", "last"):
        expected = getattr(afresh, name)
        # 1e-12 of the largest sum: rounding of sums in another order
        torch.testing.assert_close(getattr(shortened, name), expected, rtol=0, atol=1e-12 * afresh.gram.abs().max())
    assert shortened.n_windows == afresh.n_windows


def test_no_window_longer_than_those_computed():
    covariances = lag_covariances(recording(0, 50, n_channels=2), EmbeddingParameters(3, 1))
    with pytest.raises(DataError, match=r"n_delays = 4 is not between 1 and the 3 delays computed"):
        covariances.shortened(4)


@quiet
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("lengths", [(80, 50), (14,)], ids=["many windows", "few windows"])
def test_every_smaller_rank_is_the_corner_of_a_larger_one(estimator, lengths):
    trials = recording(3, *lengths, n_channels=3 if len(lengths) > 1 else 7)
    p = EmbeddingParameters(3, 9, estimator=estimator)
    found, variance = directions(trials, p), torch.full((trials[0].shape[1],), 1e-4).double()
    for rank in (1, 4, 9):
        nested = solve(found, replace(p, rank=rank), variance)
        alone = fit(trials, replace(p, rank=rank), noise_variance=variance)[0]
        # 1e-8: directions from an iterative solver, asked for more or fewer of them
        torch.testing.assert_close(nested.matrix, alone.matrix, rtol=0, atol=1e-8)
        assert nested.gap == pytest.approx(alone.gap, rel=1e-8)


@quiet
def test_without_noise_all_estimators_find_the_linear_system():
    clean, _ = noisy_linear(0.0, seed=0)
    settings: dict[str, Any] = {"n_delays": 3, "rank": 4, "center": False, "ridge": 0, "noise_variance": 0}
    for estimator in ESTIMATORS:
        operator = fit_operator(clean, estimator=estimator, **settings)
        assert error(operator.eigenvalues) < 1e-9, estimator  # squares of singular values a hundredth apart
    expected = fit_operator(clean, **settings).matrix
    for estimator in ("noise_compensated", "signal_weighted"):
        assert torch.equal(fit_operator(clean, estimator=estimator, **settings).matrix, expected)


@quiet
@pytest.mark.parametrize("seed", range(3))
def test_noise_moves_eigenvalues_less_where_it_is_reckoned_with(seed):
    noisy = noisy_linear(0.3, seed)[1]
    errors = {
        name: error(fit_operator(noisy, n_delays=2, rank=4, estimator=name).eigenvalues) for name in ESTIMATORS[:3]
    }
    # measured over ten seeds: least squares .03 to .08, the other two at most a third of it
    assert errors["total_least_squares"] < errors["least_squares"] / 2
    assert errors["noise_compensated"] < errors["least_squares"] / 2


@quiet
@pytest.mark.parametrize("seed", range(3))
def test_signal_weighted_operator_predicts_the_clean_window_from_the_noisy_one(seed):
    """It is the regression of clean on noisy windows, which only a simulation can know."""
    clean, noisy = noisy_linear(0.5, seed)
    p = EmbeddingParameters(4, 8, center=False)
    found = directions(list(noisy), p)
    windows = [
        torch.stack([trial[t - 3 : t + 1].flip(0).flatten() for t in range(3, 60)]) @ found.basis
        / found.singular_values[:8] for trials in (clean, noisy) for trial in trials
    ]  # fmt: skip
    v_clean, v_noisy = torch.stack(windows[:40]), torch.stack(windows[40:])
    before, after = v_noisy[:, :-1].flatten(0, 1), v_clean[:, 1:].flatten(0, 1)
    wiener = torch.linalg.solve(before.T @ before, before.T @ after).T
    off = {
        name: float((fit_operator(noisy, n_delays=4, rank=8, center=False, estimator=name).matrix - wiener).norm())
        for name in ("least_squares", "signal_weighted")
    }
    assert off["signal_weighted"] < off["least_squares"] / 3  # the rest is sampling: the noise is not exactly white


@quiet
def test_surplus_rank_carries_little_weight_where_signals_are_weighted():
    """The signal has four dimensions; what an operator of rank 12 holds beyond these is noise."""
    surplus = {}
    for name in ("least_squares", "signal_weighted"):
        matrix = fit_operator(noisy_linear(0.5, seed=0)[1], n_delays=4, rank=12, estimator=name).matrix
        surplus[name] = 1 - float(matrix[:4, :4].square().sum() / matrix.square().sum())
    assert surplus["least_squares"] > 0.4
    assert surplus["signal_weighted"] < 0.1


WEIGHTED: dict[str, Any] = {"n_delays": 4, "rank": 6, "estimator": "signal_weighted"}


@quiet
def test_common_weights_are_those_of_the_noisiest_system_in_each_direction():
    operators = {f"{noise}": fit_operator(noisy_linear(noise, seed=0)[1], **WEIGHTED) for noise in (0.1, 0.3, 0.5)}
    d = np.stack([operator.signal_fraction.numpy() for operator in operators.values()])
    least = np.where(d.min(0) > 0, d.min(0), 0)  # what holds no signal in one counts in none
    assert 0 < (least > 0).sum() <= 6
    for (name, found), own in zip(common_weights(operators).items(), d, strict=True):
        before, w = operators[name].matrix.numpy(), np.where(least > 0, least / own, 0)
        for i, j in np.ndindex(6, 6):
            assert float(found.matrix[i, j]) == pytest.approx(before[i, j] * math.sqrt(w[i] * w[j]), abs=1e-12)
        assert found.parameters == operators[name].parameters
        assert (operators[name].matrix.numpy() == before).all()
    alone = fit_operator(noisy_linear(0.1, seed=0)[1], **WEIGHTED | {"rank": 4})
    assert torch.equal(common_weights({"alone": alone})["alone"].matrix, alone.matrix)


@quiet
@pytest.mark.parametrize("seed", range(3))
def test_recordings_of_unlike_noise_are_nearer_with_common_weights(seed):
    settings = WEIGHTED | {"rank": 4}
    operators = {f"{noise}": fit_operator(noisy_linear(noise, seed)[1], **settings) for noise in (0.1, 1.0)}
    before, after = (align(*pair.values()).distance for pair in (operators, common_weights(operators)))
    assert after < before / 3  # five times nearer or more over ten seeds


@quiet
def test_direction_that_holds_no_signal_in_one_system_counts_in_none():
    noisy = noisy_linear(0.3, seed=0)[1]
    one, drowned = (fit_operator(noisy, noise_variance=v, **WEIGHTED) for v in (0.1, 1e6))
    assert (drowned.signal_fraction < 0).all()
    assert all(not operator.matrix.any() for operator in common_weights({"a": one, "b": drowned}).values())


def test_operators_without_common_weights_are_refused():
    plain, one, other = (
        fit_operator(noisy_linear(0.3, seed=0)[1], **WEIGHTED | changed)
        for changed in ({"estimator": "least_squares", "rank": 4}, {"rank": 4}, {"rank": 3})
    )
    with pytest.raises(DataError, match="operator 'p' was fitted with estimator = 'least_squares', which does not"):
        common_weights({"a": one, "p": plain})
    with pytest.raises(DataError, match="operators have different ranks: 'a' 4, 'b' 3; common weights need one rank"):
        common_weights({"a": one, "b": other})
    with pytest.raises(DataError, match="no operators came; at least one is needed"):
        common_weights({})


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0])
def test_variance_of_noise_is_found_channel_by_channel(noise):
    clean, _ = noisy_linear(0.0, seed=1, n_channels=3)
    deviation = noise * clean.std() * torch.tensor([0.5, 1.0, 2.0]).double()
    generator = torch.Generator().manual_seed(2)
    noisy = clean + deviation * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    found = fit_operator(noisy, n_delays=10, rank=4).noise_variance
    # a tenth: the smaller half of the eigenvalues lies somewhat below the variance, more so with few windows
    torch.testing.assert_close(found, deviation**2, rtol=0.15, atol=0)


@quiet
def test_signal_fraction_tells_directions_of_signal_from_those_of_noise():
    noisy = noisy_linear(0.5, seed=0)[1]
    fractions = fit_operator(noisy, n_delays=4, rank=10).signal_fraction
    assert float(fractions[:4].min()) > 0.6
    assert float(fractions[4:].abs().max()) < 0.25  # the largest directions of noise exceed its mean


def test_few_windows_judge_noise_as_many_do():
    trials = recording(5, 12, n_channels=6)
    p = EmbeddingParameters(4, 3)
    # 1e-10 of the gram matrix: the same sums by another way
    torch.testing.assert_close(directions(trials, p).floor, lag_covariances(trials, p).floor, rtol=1e-8, atol=1e-10)


@quiet
def test_given_variance_is_used_for_all_or_for_each_channel():
    trials = recording(1, 60, 60, n_channels=3)
    settings: dict[str, Any] = {"n_delays": 3, "rank": 4, "estimator": "signal_weighted"}
    one = fit_operator(trials, noise_variance=0.5, **settings)
    each = fit_operator(trials, noise_variance=np.array([0.5, 0.5, 0.5]), **settings)
    other = fit_operator(trials, noise_variance=[0.5, 0.5, 0.1], **settings)
    assert torch.equal(one.matrix, each.matrix)
    assert not torch.equal(one.matrix, other.matrix)
    assert other.noise_variance.tolist() == [0.5, 0.5, 0.1]
    fit_operator(trials, **(settings | {"n_delays": 1, "rank": 2}), noise_variance=0.5)  # no estimate, none needed


def test_repeats_give_the_variance_around_their_mean():
    rng = np.random.default_rng(0)
    means = {"a": rng.normal(size=(30, 2)), "b": rng.normal(size=(40, 2))}
    conditions = ["a"] * 3 + ["b"] * 2 + ["a"]
    trials = [means[name] + rng.normal(size=means[name].shape) * [1, 3] for name in conditions]
    a, b = (np.stack([x for x, own in zip(trials, conditions, strict=True) if own == name]) for name in "ab")
    squares = ((a - a.mean(0)) ** 2).sum((0, 1)) + ((b - b.mean(0)) ** 2).sum((0, 1))
    np.testing.assert_allclose(repeat_variance(trials, conditions), squares / (3 * 30 + 1 * 40), rtol=1e-12)


def test_gaps_and_condition_are_ratios_of_singular_values():
    operator = fit_operator(recording(2, 200, n_channels=4), n_delays=2, rank=3)
    S = lag_covariances(recording(2, 200, n_channels=4), EmbeddingParameters(2, 1)).spectrum
    torch.testing.assert_close(operator.gaps, S[:3] / S[1:4], rtol=1e-8, atol=0)
    assert operator.condition == pytest.approx(float(S[0] / S[2]), rel=1e-8)
    assert operator.gap == pytest.approx(float(operator.gaps[-1]))


@quiet
@pytest.mark.parametrize("horizon", [1, 5])
def test_prediction_error_is_relative_to_predicting_the_mean(horizon):
    fitted, held_out = noisy_linear(0.5, seed=0)[1].split(20)
    operator = fit_operator(fitted, n_delays=4, rank=4)
    predicted = operator.predict(held_out, horizon)
    seen = held_out[:, 3 + horizon :]
    expected = (seen - predicted).square().sum() / (seen - operator.mean).square().sum()
    assert operator.prediction_error(held_out, horizon) == pytest.approx(float(expected))
    assert operator.prediction_error(list(held_out), horizon) == pytest.approx(float(expected))
    assert 0 < float(expected) < 1
    clean = noisy_linear(0.0, seed=0)[0]
    assert fit_operator(clean, n_delays=2, rank=4, center=False).prediction_error(clean, horizon) < 1e-9


def test_unknown_noise_is_nan_where_windows_are_single_samples():
    operator = fit_operator(recording(0, 60, n_channels=3), n_delays=1, rank=2)
    assert operator.noise_variance.isnan().all()
    assert operator.signal_fraction.isnan().all()
    assert math.isfinite(operator.condition)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"n_delays": 1, "estimator": "signal_weighted"},
            "system 'A': with n_delays = 1 noise cannot be told from signal; estimator = 'signal_weighted' needs "
            "noise_variance, or n_delays of at least 2",
        ),
        ({"noise_variance": [1.0, 2.0]}, "noise_variance has shape (2,); a number, or one for each of 3 channels"),
        ({"noise_variance": -1.0}, "noise_variance = -1.0 is not finite and at least 0"),
        ({"noise_variance": math.nan}, "noise_variance = nan is not finite and at least 0"),
        ({"estimator": "signal_wieghted"}, "did you mean 'signal_weighted'?"),
    ],
)
def test_impossible_noise_is_refused(settings, message):
    with pytest.raises(DataError, match=re.escape(message)):
        fit_operator(recording(0, 80, n_channels=3), **({"n_delays": 2, "rank": 2} | settings), name="A")


@quiet
def test_compensation_without_signal_is_refused_with_the_largest_rank():
    noisy = noisy_linear(0.5, seed=0)[1]
    with pytest.raises(DataError, match=r"rank = 10 is out of reach; a direction has less than 5% signal") as refusal:
        fit_operator(noisy, n_delays=4, rank=10, estimator="noise_compensated")
    largest = int(re.findall(r"at most rank = (\d+), or estimator = 'signal_weighted'", str(refusal.value))[0])
    assert 4 <= largest < 10
    fit_operator(noisy, n_delays=4, rank=largest, estimator="noise_compensated")


@pytest.mark.parametrize(
    ("lengths", "conditions", "message"),
    [
        ((30, 30), ["a"], "conditions has 1 labels for 2 trials; give one for each"),
        ((30, 30), ["a", "b"], "no condition has two trials: without repeats, noise cannot be told from signal"),
        ((30, 20), ["a", "a"], "trials of condition 'a' differ in length; repeats must match sample by sample"),
    ],
)
def test_repeats_that_tell_nothing_are_refused(lengths, conditions, message):
    with pytest.raises(DataError, match=re.escape(message)):
        repeat_variance(recording(0, *lengths, n_channels=2), conditions)
