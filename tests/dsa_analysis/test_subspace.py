"""The subspace estimator: against known dynamics, against a dense oblique projection, and with noise."""

import re
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from dsa_analysis import DataError, DrivenOperator, align, compare, fit_driven_operator
from tests.dsa_analysis.test_driven import EIGENVALUES, N, driven, worst_gap

quiet = pytest.mark.filterwarnings("ignore:system .*(cut at rank|windows for):UserWarning")


def fit(x: object, u: object, n_delays: int = 8, rank: int = N, **choices: object):
    return fit_driven_operator(x, u, n_delays=n_delays, rank=rank, estimator="subspace", **choices)  # type: ignore[arg-type]


def noisy(n_trials: int, process: float, measurement: float, seed: int) -> tuple[Tensor, Tensor]:
    """Two channels of the system of `driven`, 100 samples a trial, and its inputs."""
    x, u, _ = driven(n_trials, 100, smooth=0.5, noise=process, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return x[..., :2] + measurement * torch.randn(n_trials, 100, 2, generator=generator, dtype=torch.float64), u


# ---- known dynamics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n_seen", "n_delays", "n_future"), [(1, 8, None), (2, 6, 4), (5, 1, 2), (5, 3, None)])
def test_hidden_states_have_the_dynamics_of_the_system(n_seen, n_delays, n_future, center):
    x, u, _ = driven(n_times=40, smooth=0.5)
    operator = fit(x[..., :n_seen], u, n_delays, n_future=n_future, center=center, ridge=0)
    assert worst_gap(operator.eigenvalues, EIGENVALUES) < 1e-5  # products lose half of the digits
    assert len(operator.singular_values) == N  # no others are there
    assert operator.n_future == (n_future or n_delays)


def test_coordinates_depend_neither_on_inputs_nor_on_their_effect():
    """Same A and C: equal operators up to rounding, without any alignment (distinct singular values, fixed signs)."""
    x, u, F = driven(n_times=40, smooth=0.5)
    v = torch.randn(50, 40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    G = torch.randn(N, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = [x[:, 0]]
    for t in range(39):
        y.append(y[-1] @ F.T + v[:, t] @ G.T)
    one, other = fit(x[..., :2], u), fit(torch.stack(y, 1)[..., :2], v)
    assert align(one, other).distance < 1e-5
    scaled = fit(3 * x[..., :2] + 7, u / 2)  # states and effects in the units of the channels
    torch.testing.assert_close(scaled.matrix, one.matrix, rtol=0, atol=1e-7)
    torch.testing.assert_close(scaled.input_matrix, 6 * one.input_matrix, rtol=1e-6, atol=1e-6)


def test_size_of_the_input_matrix_is_the_energy_of_the_response():
    x, u, F = driven(n_times=40, smooth=0.5)
    G = torch.linalg.lstsq(torch.cat([x[:, :-1], u[:, :-1]], -1).flatten(0, 1), x[:, 1:].flatten(0, 1)).solution[N:].T
    response = torch.cat([(torch.linalg.matrix_power(F, k) @ G)[:2] for k in range(6)])  # of two channels
    B = fit(x[..., :2], u, 10, n_future=6, ridge=0).input_matrix
    torch.testing.assert_close(B.T @ B, response.T @ response, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("rest", [0.0, 30.0])
def test_driven_linear_system_is_predicted(horizon, rest):
    x, u, _ = driven(n_times=40, rest=rest)
    operator = fit(x[..., :2], u, 6)
    new_x, new_u, _ = driven(4, 25, smooth=0.2, rest=rest)
    predicted = operator.predict(new_x[..., :2], new_u, horizon)
    torch.testing.assert_close(predicted, new_x[:, 5 + horizon :, :2], rtol=0, atol=1e-5)
    listed = operator.predict([new_x[0, :, :2], new_x[1, :11, :2]], [new_u[0], new_u[1, :11]], horizon)
    torch.testing.assert_close(listed[0], predicted[0])
    assert len(listed[1]) == 11 - 5 - horizon


def test_trials_add_up_and_no_window_crosses_their_borders():
    x, u, _ = driven(60, 12, smooth=0.0)
    assert worst_gap(fit(x[..., :2], u, 4).eigenvalues, EIGENVALUES) < 1e-5
    ragged = [trial[: 10 + k % 3] for k, trial in enumerate(x[..., :2])], [own[: 10 + k % 3] for k, own in enumerate(u)]
    assert worst_gap(fit(*ragged, 4).eigenvalues, EIGENVALUES) < 1e-5


# ---- a dense oblique projection --------------------------------------------------------------------------------------


def dense(x: list[np.ndarray], u: list[np.ndarray], p: int, f: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """A and S of the oblique projection, by one least squares over stacked windows and an SVD."""
    past, between, future = [], [], []
    for y, v in zip(x, u, strict=True):
        z = np.hstack([y, v])
        for t in range(p, len(y) - f + 1):
            past.append(z[t - p : t].ravel())
            between.append(v[t : t + f - 1].ravel())
            future.append(y[t : t + f].ravel())
    Z, U, Y = (np.array(rows) - np.mean(rows, 0) for rows in (past, between, future))
    L = np.linalg.lstsq(np.hstack([Z, U]), Y, rcond=None)[0][: Z.shape[1]].T
    left = Z - U @ np.linalg.lstsq(U, Z, rcond=None)[0]
    gamma, S, _ = np.linalg.svd(L @ left.T / np.sqrt(len(Z)), full_matrices=False)
    c = x[0].shape[1]
    return np.linalg.lstsq(gamma[:-c, :rank], gamma[c:, :rank], rcond=None)[0], S


@quiet
def test_operator_is_that_of_a_dense_projection():
    rng = np.random.default_rng(0)
    u = [rng.normal(size=(n, 2)) for n in (30, 45, 22, 60, 31)]
    x = [np.tanh(v @ rng.normal(size=(2, 3))).cumsum(0) + rng.normal(size=(len(v), 3)) for v in u]
    operator = fit(x, u, 4, 3, n_future=3, ridge=0)
    A, S = dense(x, u, 4, 3, 3)
    np.testing.assert_allclose(operator.singular_values, S, rtol=1e-8)
    assert float(align(operator, torch.from_numpy(A)).distance) < 1e-7
    np.testing.assert_allclose(np.sort(abs(operator.eigenvalues)), np.sort(abs(np.linalg.eigvals(A))), rtol=1e-8)


# ---- noise -----------------------------------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize(("process", "measurement"), [(0.0, 0.3), (0.3, 0.3)])
def test_noise_averages_out_where_least_squares_keeps_its_bias(process, measurement):
    """Sixteen times the trials, a quarter of the error; windows of least squares take noise for dynamics."""
    errors = {
        (estimator, n_trials): np.mean([
            worst_gap(
                fit_driven_operator(*noisy(n_trials, process, measurement, seed), n_delays=10, rank=N,
                                    estimator=estimator).eigenvalues, EIGENVALUES)
            for seed in range(4)
        ])
        for estimator in ("subspace", "least_squares") for n_trials in (10, 160)
    }  # fmt: skip
    assert errors["subspace", 160] < 0.5 * errors["subspace", 10]
    assert errors["subspace", 10] < 0.03
    assert errors["least_squares", 160] > 0.03


# ---- manners ---------------------------------------------------------------------------------------------------------


def test_operator_describes_itself_and_leaves_data_alone():
    x, u, _ = driven()
    copies = x.clone(), u.clone()
    operator = fit(x[..., :3], u, 4)
    assert isinstance(operator, DrivenOperator)
    assert (operator.rank, operator.n_inputs, operator.n_windows, operator.gap) == (N, 3, 50 * 13, np.inf)
    assert operator.input_matrix.shape == (N, 3)
    assert operator.readout.shape == (3, N)
    assert not operator.feedthrough.any()
    assert (operator.excitation.rank, operator.excitation.full, operator.lacking) == (24, 24, "")
    assert 1 < operator.excitation.condition < 100
    assert "n_future = 4" in operator.kind
    assert torch.equal(x, copies[0])
    assert torch.equal(u, copies[1])
    np.testing.assert_allclose(operator.time_constants(20.0)[0], -20 / np.log(0.95), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_precisions_are_taken_as_they_are(dtype):
    x, u, _ = driven(smooth=0.0)
    x, u = (8 * x).round(), (4 * u).round()
    one, other = (fit(*(data.to(kind) for data in (x, u)), n_delays=2, rank=3) for kind in (torch.float64, dtype))
    assert other.matrix.dtype == torch.float64
    torch.testing.assert_close(one.matrix, other.matrix, rtol=0, atol=1e-9)


X, U, _ = driven(6, 20)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"rank": 16, "n_delays": 4},
            "rank = 16 is out of reach; n_future = 4 samples of 5 channels show at most 15 dim",
        ),
        (
            {"rank": 6, "n_delays": 4},
            "rank = 6 is out of reach: the past predicts the future in 5 directions that the d",
        ),
        (
            {"n_delays": 11},
            "n_delays = 11 and n_future = 11 need trials of at least 22 samples, but system 'A', trials",
        ),
        (
            {"n_delays": 15, "n_future": 4},
            "system 'A': 12 windows of 19 samples cannot tell 130 entries of past samples",
        ),
        (
            {"n_delays": 9, "n_future": 9},
            "system 'A': 18 windows of 18 samples cannot tell 97 entries of past samples and",
        ),
        (
            {"n_delays": 4, "n_future": 40},
            "trials 0, 1, 2, 3, 4, 5 have as few as 20; no n_delays fits with n_future = 4",
        ),
        ({"n_delays": 3, "delay_interval": 2}, "delay_interval = 2 has no effect with estimator = 'subspace'"),
        ({"n_delays": 3, "n_future": 0}, "n_future = 0 is not a whole number of at least 1"),
        ({"estimator": "least_squares", "n_future": 3}, "n_future = 3 has no effect with estimator = 'least_squares'"),
        ({"estimator": "noise_compensated"}, "estimator of operators with inputs = 'noise_compensated' is none of"),
    ],
)
@quiet
def test_what_cannot_be_fitted_is_refused(choices, message):
    with pytest.raises(DataError, match=re.escape(message)):
        fit_driven_operator(X, U, name="A", **{"estimator": "subspace", "n_delays": 2, "rank": 2} | choices)


@quiet
def test_doubtful_fits_are_warned_about():
    rng = np.random.default_rng(0)
    white, u = rng.normal(size=(4, 60, 3)), rng.normal(size=(4, 60, 1))
    S = fit(white, u, 4, 1).singular_values
    rank = 1 + int((S[:-1] / S[1:]).argmin())
    with pytest.warns(
        UserWarning, match=rf"'system': the cut at rank = {rank} goes through a cluster of singular value"
    ):
        fit(white, u, 4, rank)
    with pytest.warns(UserWarning, match="'system': 37 windows for 19 samples of past and inputs: fewer than 2"):
        fit(white[:1, :44], u[:1, :44], 4, 1)


def test_nothing_is_warned_about_where_all_is_well():
    x, u, _ = driven()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare([x, x.flip(0)], inputs=[u, u.flip(0)], n_delays=4, rank=N, estimator="subspace", metric="joint")
