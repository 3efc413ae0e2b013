"""Operators agree with the Jacobians of the networks whose activity they were fitted to.

The networks have modes set by hand. Their fixed points are found, and they are pushed and recorded as trained ones are.
"""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from dsa_analysis import compare, fit_operator, match_modes
from multitask import FixedPoints, LeakyRNN, NetworkParameters, find_fixed_points, perturbed
from workbench.networks.truth import jacobian_tables, near_fixed_points
from workbench.settings import JacobianTruth

DT, TAU = 20.0, 100.0  # ms
FAST = [(30.0 + k, 0.0) for k in range(15)]  # ms, the time constants of all other modes
NO_INPUT = torch.zeros(85)
DESIGNS = {  # (time constant in ms, frequency in Hz) of the slow modes
    "a rotation that decays": [(800.0, 1.5)],
    "two rotations": [(1000.0, 0.7), (500.0, 3.0)],
    "integrator, rotation and decay": [(5000.0, 0.0), (600.0, 2.0), (300.0, 0.0)],
}


def jacobian(modes: list[tuple[float, float]], seed: int, normal: bool) -> Tensor:
    """A Jacobian with modes of these time constants and frequencies only, in random coordinates."""
    blocks = []
    for time_constant, frequency in modes:
        z = math.exp(-DT / time_constant), 2 * math.pi * frequency * DT / 1000
        a, b = z[0] * math.cos(z[1]), z[0] * math.sin(z[1])
        blocks.append(torch.tensor([[a, -b], [b, a]] if frequency else [[a]], dtype=torch.float64))
    J = torch.block_diag(*blocks)
    axes = torch.randn(J.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    axes = torch.linalg.qr(axes)[0] if normal else torch.eye(len(J)) + 0.5 * axes / len(J) ** 0.5
    return axes @ J @ torch.linalg.inv(axes)


def network_with(J: Tensor, activation: str) -> LeakyRNN:
    """A network with a fixed point h* = .5 and this Jacobian there: (1 - alpha) I + alpha diag(f') W^T."""
    alpha, n = DT / TAU, len(J)
    rest = torch.full((n,), 0.5, dtype=torch.float64)
    z, slope = {
        "relu": (rest, 1.0),
        "tanh": (rest.atanh(), 0.75),
        "softplus": (rest.expm1().log(), 1 - math.exp(-0.5)),
    }[activation]
    w = ((J - (1 - alpha) * torch.eye(n, dtype=torch.float64)) / (alpha * slope)).T
    network = LeakyRNN(NetworkParameters(n_rnn=n, activation=activation, dt=DT, tau=TAU)).to(torch.float64)
    weights = {name: torch.zeros_like(weight) for name, weight in network.weights.items()}
    return network.with_weights(weights | {"w_rec": w[None], "b": (z - rest @ w)[None, None]})


def points_and_states(network: LeakyRNN, first: int, size: float = 1e-6) -> tuple[FixedPoints, Tensor]:
    """The fixed point, and states pushed off it, from sample ``first`` on."""
    starts = 0.5 + 1e-3 * torch.randn(1, 5, network.parameters.n_rnn, generator=torch.Generator().manual_seed(1))
    points = find_fixed_points(network, NO_INPUT, starts)
    assert points.fixed.tolist() == [True]
    return points, perturbed(network, points, NO_INPUT, n_trials=32, n_times=first + 60, size=size)[0, :, first:]


@pytest.mark.parametrize("n_delays", [1, 4])
@pytest.mark.parametrize("normal", [True, False], ids=["normal", "not normal"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus"])
@pytest.mark.parametrize("design", DESIGNS)
def test_time_constants_and_frequencies_are_those_that_were_built_in(design, activation, normal, n_delays):
    modes = DESIGNS[design]
    rank = sum(2 if frequency else 1 for _, frequency in modes)
    network = network_with(jacobian(modes + FAST, 0, normal), activation)
    points, states = points_and_states(network, first=25)  # 500 ms: fast modes are at exp(-500 / 44) = 1e-5
    operator = fit_operator(states, n_delays=n_delays, rank=rank)
    truth = torch.sort(torch.tensor(modes, dtype=torch.float64), dim=0, descending=True)
    for eigenvalues in (operator.eigenvalues, points.eigenvalues[0]):
        table = match_modes(eigenvalues, points.eigenvalues[0], dt=DT, n_modes=len(modes))
        assert table["error"].abs().max() < 0.01
        assert (table["frequency"] - table["expected_frequency"]).abs().max() < 0.01 * 0.7
        assert sorted(table["time_constant"], reverse=True) == pytest.approx(truth.values[:, 0].tolist(), rel=0.01)
        found = table.sort_values("time_constant", ascending=False)["frequency"].tolist()
        assert found == pytest.approx([f for _, f in sorted(modes, reverse=True)], rel=0.01, abs=1e-6)


def test_fast_modes_that_were_not_left_out_mislead_an_operator_of_low_rank():
    """This is why the first samples are dropped: at low rank, the directions kept mix slow and fast modes."""
    modes = DESIGNS["integrator, rotation and decay"]
    network = network_with(jacobian(modes + FAST, 0, normal=False), "tanh")
    errors = []
    for first in (0, 25):
        points, states = points_and_states(network, first)
        operator = fit_operator(states, n_delays=1, rank=4)
        errors.append(match_modes(operator.eigenvalues, points.eigenvalues[0], dt=DT)["error"].abs().max())
    assert errors[0] > 0.05
    assert errors[1] < 0.01


@pytest.mark.parametrize("size", [1e-8, 1e-4, 1e-2])
def test_the_size_of_the_push_matters_only_where_the_network_bends(size):
    network = network_with(jacobian(DESIGNS["two rotations"] + FAST, 0, normal=True), "tanh")
    points, states = points_and_states(network, 25, size)
    operator = fit_operator(states, n_delays=1, rank=4)
    assert match_modes(operator.eigenvalues, points.eigenvalues[0], dt=DT, n_modes=2)["error"].abs().max() < 0.01


def test_distances_between_operators_are_those_between_jacobians():
    """Networks that rotate at different rates. Pushes are isotropic, so whitened coordinates are nearly those of J."""
    names, operators, jacobians = [], {}, {}
    for frequency in (0.5, 1.0, 2.0, 3.5):
        for seed in (0, 1):  # the same modes in other coordinates
            network = network_with(jacobian([(2000.0, 0.0), (800.0, frequency), *FAST], seed, normal=True), "softplus")
            points, states = points_and_states(network, 25)
            names.append(f"{frequency} Hz, {seed}")
            operators[names[-1]] = fit_operator(states, n_delays=1, rank=3)
            jacobians[names[-1]] = points.slow_jacobian(3)[0]
    between, truth = (compare(systems, progress=False).to_dataframe()["distance"] for systems in (operators, jacobians))
    assert spearmanr(between, truth).statistic > 0.95
    assert (between - truth).abs().max() < 0.05


HOW = JacobianTruth(
    groups=("a",), period="delay1", n_starts=4, max_steps=60, n_points=2, n_trials=32, n_times=85, discard=25, rank=3,
    n_modes=2,
)  # fmt: skip


def near(frequency: float, group: str, how: JacobianTruth = HOW):
    """The points of a network that rests at one point, on trials of a rule whose input it ignores."""
    network = network_with(jacobian([(2000.0, 0.0), (800.0, frequency), *FAST], 0, normal=True), "tanh")
    return near_fixed_points(network, group, "contextdelaydm1", how, seed=0)


def test_tables_of_points_hold_the_modes_and_distances_that_were_built_in():
    found = [*near(1.0, "slow"), *near(3.0, "fast")]
    assert len(found) == 2  # one point each, although two are asked for
    modes, pairs = jacobian_tables(found, seed=0)
    assert modes["group"].tolist() == ["slow", "slow", "fast", "fast"]
    assert modes["point"].tolist() == ["point 0", "point 0", "point 1", "point 1"]
    assert modes["error"].abs().max() < 0.01
    assert modes["expected_time_constant"].tolist() == pytest.approx([2000, 800] * 2, rel=1e-3)
    (pair,) = pairs.itertuples(index=False)
    assert pair.operators == pytest.approx(pair.jacobians, abs=0.05)
    assert pair.jacobians > 0.1


def test_groups_without_points_are_warned_of_and_their_tables_are_empty():
    how = replace(HOW, rank=2, n_modes=1)  # would keep one half of a conjugate pair
    with pytest.warns(UserWarning, match=r"no fixed points in delay1 \(group 'cut'\)"):
        found = near(1.0, "cut", how)
    assert found == []
    with pytest.warns(UserWarning, match="fewer than two fixed points with enough activity around them"):
        modes, pairs = jacobian_tables(found, seed=0)
    assert len(modes) == len(pairs) == 0
    assert {"group", "point", "error"} <= set(modes)
    assert {"operators", "jacobians"} <= set(pairs)
