"""Simulated systems: against closed forms and against an integrator of another family."""

import math
import re
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dsa_analysis import DataError, LorenzRegime, lorenz, record_regimes, simulate, trajectories, transformed_copies
from dsa_analysis.systems import SYSTEMS, linear


def oracle(vector_field: Callable[[np.ndarray], list[float]], start: Tensor, dt: float, n_times: int) -> np.ndarray:
    """The same trajectory by Dormand and Prince's method of eighth order, at tolerances near rounding."""
    times = np.arange(n_times) * dt
    solved = solve_ivp(
        lambda t, x: vector_field(x), (0, times[-1]), start.numpy(), "DOP853", times, rtol=1e-12, atol=1e-12
    )
    return solved.y.T


FIELDS: dict[str, Callable[[np.ndarray], list[float]]] = {
    "lorenz": lambda s: [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]],
    "van_der_pol": lambda s: [s[1], (1 - s[0] ** 2) * s[1] - s[0]],
    "roessler": lambda s: [-s[1] - s[2], s[0] + 0.2 * s[1], 0.2 + s[2] * (s[0] - 5.7)],
    "ring": lambda s: [(1 - s @ s) * s[0] - s[1], (1 - s @ s) * s[1] + s[0]],
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_trajectory_agrees_with_an_integrator_of_eighth_order(name):
    x = trajectories(name, 2, 401, dt=0.0025, seed=3)
    for trial in x:
        # fourth-order steps: 3e-6 seen after one unit of model time, in Lorenz' first swing
        np.testing.assert_allclose(trial.numpy(), oracle(FIELDS[name], trial[0], 0.0025, 401), rtol=0, atol=1e-5)


def test_error_shrinks_with_the_fourth_power_of_the_step():
    start = torch.tensor([[1.0, 1.0, 20.0]], dtype=torch.float64)
    exact = oracle(FIELDS["lorenz"], start[0], 0.5, 2)[-1]
    system = SYSTEMS["lorenz"]

    def error(dt: float) -> float:
        path = simulate(lambda x: system.vector_field(x, 10.0, 28.0, 8 / 3), start, dt, round(0.5 / dt) + 1)
        return float(np.abs(path[0, -1].numpy() - exact).max())

    assert math.log2(error(0.01) / error(0.005)) == pytest.approx(4, abs=0.3)  # 0.3: the next order still shows


def test_linear_system_moves_by_the_matrix_exponential():
    eigenvalues = [-0.5, -0.2 + 2j]
    x = linear(eigenvalues, 6, 50, dt=0.02, seed=1)
    step = torch.linalg.lstsq(x[:, :-1].flatten(0, 1), x[:, 1:].flatten(0, 1)).solution.T
    found = np.sort_complex(torch.linalg.eigvals(step).numpy())
    expected = np.sort_complex(np.exp(0.02 * np.array([-0.5, -0.2 + 2j, -0.2 - 2j])))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)  # (0.02 * 2)^5 / 120 of the step's series
    torch.testing.assert_close(step @ step.T, step.T @ step, rtol=0, atol=1e-10)  # normal: rounding of the fit


@pytest.mark.parametrize(
    ("rho", "goal"),
    [(0.5, [0.0, 0.0, 0.0]), (14.0, [math.sqrt(8 / 3 * 13), math.sqrt(8 / 3 * 13), 13.0])],
    ids=["origin", "one of two"],
)
def test_lorenz_settles_in_its_fixed_point(rho, goal):
    last = lorenz(3, 1, rho=rho, dt=0.02, discard=2500, seed=0)[:, 0].abs()  # the other of two has x and y negative
    expected = torch.tensor(goal, dtype=torch.float64).expand(3, 3)
    torch.testing.assert_close(last, expected, rtol=0, atol=1e-6)  # exp(-.37 * 50) of the way is left


def test_ring_settles_on_the_unit_circle_and_turns_at_omega():
    x = trajectories("ring", 4, 2, omega=3.0, dt=0.01, discard=1000, seed=0)
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(4, 2, dtype=torch.float64), rtol=0, atol=1e-7)
    angle = torch.atan2(x[..., 1], x[..., 0]).diff(dim=-1) % (2 * math.pi)
    torch.testing.assert_close(angle, torch.full_like(angle, 0.03), rtol=0, atol=1e-7)  # 3 * 0.01, RK4 errs by 0.03^5


def test_first_sample_is_the_start_and_discard_shifts_it():
    start = torch.rand(2, 3, dtype=torch.float64)
    grow = simulate(lambda x: x, start, 0.1, 6)
    assert torch.equal(grow[:, 0], start)
    assert torch.equal(simulate(lambda x: x, start, 0.1, 4, discard=2), grow[:, 2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trajectories_keep_the_precision_of_their_starts(dtype):
    assert simulate(lambda x: -x, torch.ones(2, dtype=dtype), 0.1, 3).dtype == dtype


def test_tensors_of_parameters_become_a_leading_axis():
    rho = torch.tensor([14.0, 28.0])
    both = lorenz(3, 20, rho=rho, seed=2)
    assert both.shape == (2, 3, 20, 3)
    for one, value in zip(both, rho, strict=True):
        field = partial(SYSTEMS["lorenz"].vector_field, sigma=10.0, rho=float(value), beta=8 / 3)
        alone = simulate(field, one[:, 0], 0.01, 20)
        torch.testing.assert_close(one, alone, rtol=1e-12, atol=0)


def test_noise_drives_every_dimension_with_variance_noise_squared_times_time(generator):
    walk = simulate(
        torch.zeros_like, torch.zeros(4000, 2, dtype=torch.float64), 0.04, 26, noise=0.5, generator=generator
    )
    variance = walk[:, -1].var(0)
    # a Wiener process after 25 steps of 0.04; the variance of 4000 draws scatters by sqrt(2 / 4000) = 2 %
    torch.testing.assert_close(variance, torch.full_like(variance, 0.25), rtol=0.1, atol=0)
    assert abs(torch.corrcoef(walk[:, -1].T)[0, 1]) < 0.08  # 5 standard errors


@pytest.mark.parametrize("draw", [lambda **s: lorenz(2, 9, **s), lambda **s: linear([-1 + 1j], 2, 9, **s)])
def test_seed_repeats_and_another_seed_does_not(draw):
    assert torch.equal(draw(seed=4, noise=0.1), draw(seed=4, noise=0.1))
    assert torch.equal(draw(seed=4), draw(generator=torch.Generator().manual_seed(4)))
    assert not torch.equal(draw(seed=4), draw(seed=5))


REGIMES = {
    "chaos": LorenzRegime(0.01, ((10.0, 28.0, 8 / 3), (10.0, 35.0, 8 / 3))),
    "cycle": LorenzRegime(0.005, ((10.0, 160.0, 8 / 3),)),
}


def test_recordings_take_the_parameters_of_their_regime_in_turn():
    recordings = record_regimes(REGIMES, n_recordings=3, n_trials=2, n_times=6, discard=5, seed=0)
    assert list(recordings) == [f"{name} #{k}" for name in REGIMES for k in (1, 2, 3)]
    for name, rho, dt in (
        ("chaos #1", 28, 0.01),
        ("chaos #2", 35, 0.01),
        ("chaos #3", 28, 0.01),
        ("cycle #2", 160, 0.005),
    ):
        x = recordings[name]
        again = simulate(partial(SYSTEMS["lorenz"].vector_field, sigma=10.0, rho=rho, beta=8 / 3), x[:, 0], dt, 6)
        torch.testing.assert_close(x, again, rtol=1e-10, atol=1e-12)
    assert not torch.equal(recordings["chaos #1"], recordings["chaos #3"])  # starts of their own


def test_copies_are_the_system_in_other_coordinates(generator):
    x = lorenz(2, 30, seed=1)
    copies = transformed_copies(x, generator)
    assert set(copies) == {"rotated", "scaled", "permuted", "shifted"}
    torch.testing.assert_close(copies["rotated"].norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(copies["rotated"], x)
    torch.testing.assert_close(copies["scaled"], 10 * x)
    torch.testing.assert_close(copies["permuted"].sort(-1).values, x.sort(-1).values)
    shift = (copies["shifted"] - x).flatten(0, 1)
    torch.testing.assert_close(shift, shift[:1].expand_as(shift))
    assert len(shift[0].unique()) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trajectories("lorentz", 1, 9, seed=0), "system = 'lorentz' is none of 'lorenz', 'van_der_pol'"),
        (
            lambda: trajectories("ring", 1, 9, seed=0, omgea=1),
            "parameter of ring = 'omgea' is none of 'omega'; did you m",
        ),
        (lambda: lorenz(0, 9, seed=0), "n_trials = 0 is not a whole number of at least 1"),
        (lambda: lorenz(1, 0, seed=0), "n_times = 0 is not a whole number of at least 1"),
        (lambda: lorenz(1, 9, seed=0, discard=-1), "discard = -1 is not a whole number of at least 0"),
        (lambda: lorenz(1, 9, seed=0, dt=0), "dt = 0 is not a positive time"),
        (lambda: lorenz(1, 9, seed=0, dt=math.nan), "dt = nan is not a positive time"),
        (lambda: lorenz(1, 9, seed=0, noise=-1), "noise = -1 must be at least 0"),
        (lambda: lorenz(1, 9), "give exactly one of seed and generator"),
        (
            lambda: simulate(torch.neg, torch.ones(2), 0.1, 9, noise=1.0),
            "noise = 1.0 must be at least 0 and needs a generator",
        ),
        (
            lambda: lorenz(1, 90, seed=0, dt=1.0),
            "a trajectory diverged: dt = 1.0 is too coarse for this system",
        ),
        (lambda: linear([], 1, 9, seed=0), "eigenvalues is empty; at least one is needed"),
        (lambda: linear([-1], 0, 9, seed=0), "n_trials = 0"),
        (lambda: LorenzRegime(0.0, ((10, 28, 3),)), "dt = 0.0 is not a positive time"),
        (lambda: LorenzRegime(0.01, ()), "parameters is empty; at least one triple (sigma, rho, beta) is needed"),
        (lambda: record_regimes(REGIMES, n_recordings=0, n_trials=1, n_times=9, seed=0), "n_recordings = 0"),
        (lambda: trajectories("ring", 1, 9, seed=0, device="cuda:99"), "device = 'cuda:99' is not there"),
    ],
)
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(DataError, match=re.escape(message)):
        call()
