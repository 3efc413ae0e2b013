"""Slow points of networks whose fixed points are known in closed form, and Jacobians against autograd."""

import math

import pytest
import torch

from multitask.fixed_points import find_fixed_points, perturbed
from multitask.network import LeakyRNN, NetworkParameters, make_network
from multitask.trials import MultitaskError


def network_with(w_rec: torch.Tensor, b: torch.Tensor, activation: str = "tanh") -> LeakyRNN:
    """Networks (E, N, N) with given recurrent weights and biases, and no other weights."""
    network = LeakyRNN(NetworkParameters(n_rnn=w_rec.shape[-1], activation=activation), len(w_rec))
    weights = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in network.weights.items()}
    return network.with_weights(weights | {"w_rec": w_rec.double(), "b": b.double()})


def starts_for(network: LeakyRNN, n: int = 40, spread: float = 2.0, seed: int = 0) -> torch.Tensor:
    shape = network.n_networks, n, network.parameters.n_rnn
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


NO_INPUT = torch.zeros(85)


def test_two_attractors_and_the_saddle_between_them_are_found_with_their_time_constants():
    # h = tanh(2 h): 0 and +-h*, with slopes 2 at 0 and 2 (1 - h*^2) at h*
    network = network_with(torch.tensor([[[2.0]]]), torch.zeros(1, 1, 1))
    points = find_fixed_points(network, NO_INPUT, torch.linspace(-2, 2, 41, dtype=torch.float64)[None, :, None])
    h = points.hidden.flatten().sort().values
    star = 0.957504024083
    torch.testing.assert_close(h, torch.tensor([-star, 0.0, star], dtype=torch.float64), atol=1e-10, rtol=0)
    assert points.fixed.all()
    assert points.n_lost == 0
    assert points.n_visits.sum() == 41
    by_place = points.hidden.flatten().argsort()
    assert points.n_unstable[by_place].tolist() == [0, 1, 0]
    slope = torch.tensor([2 * (1 - star**2), 2.0, 2 * (1 - star**2)], dtype=torch.float64)
    z = 0.8 + 0.2 * slope
    torch.testing.assert_close(points.eigenvalues[by_place, 0].real, z, atol=1e-9, rtol=0)
    torch.testing.assert_close(points.time_constants[by_place, 0], -20 / z.log(), rtol=1e-8, atol=0)
    assert points.time_constants[by_place, 0][1] < 0  # growth


def test_linear_network_has_its_one_fixed_point():
    # relu above threshold: h = h W + b, so h* = b (I - W)^-1
    generator = torch.Generator().manual_seed(0)
    w = 0.3 * torch.rand(2, 5, 5, generator=generator, dtype=torch.float64)
    b = 1 + torch.rand(2, 1, 5, generator=generator, dtype=torch.float64)
    network = network_with(w, b, "relu")
    points = find_fixed_points(network, NO_INPUT, starts_for(network).abs())
    expected = torch.linalg.solve(torch.eye(5).double() - w.mT, b[:, 0, :, None])[..., 0]
    assert points.network.tolist() == [0, 1]
    torch.testing.assert_close(points.hidden, expected)
    eigenvalues = torch.linalg.eigvals(0.8 * torch.eye(5).double() + 0.2 * w)
    torch.testing.assert_close(
        points.eigenvalues.abs().sort(-1).values, eigenvalues.abs().sort(-1).values, atol=1e-10, rtol=0
    )


def test_rotation_shows_as_a_frequency():
    # relu above threshold with W = c R(90 deg): eigenvalues of J are 0.8 +- 0.2 c i
    w = 0.5 * torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]])
    network = network_with(w, torch.full((1, 1, 2), 2.0), "relu")
    points = find_fixed_points(network, NO_INPUT, starts_for(network).abs())
    angle = math.atan2(0.1, 0.8)
    assert points.frequencies[0].abs().tolist() == pytest.approx([angle / (2 * math.pi * 0.020)] * 2)
    assert points.time_constants[0].tolist() == pytest.approx([-20 / math.log(math.hypot(0.8, 0.1))] * 2)


def test_a_constant_input_moves_the_point():
    network = network_with(torch.zeros(1, 3, 3), torch.zeros(1, 1, 3))
    network.weights["w_in"][0, 0] = torch.tensor([0.5, -1.0, 2.0])
    points = find_fixed_points(network, torch.eye(85)[0], starts_for(network))
    torch.testing.assert_close(points.hidden[0], torch.tensor([0.5, -1.0, 2.0]).double().tanh())


def test_line_of_fixed_points_has_an_infinite_time_constant():
    # relu with W = I on one unit: every h >= 0 is fixed
    network = network_with(torch.ones(1, 1, 1), torch.zeros(1, 1, 1), "relu")
    points = find_fixed_points(network, NO_INPUT, torch.linspace(0.1, 2, 20, dtype=torch.float64)[None, :, None])
    assert len(points.hidden) == 20
    assert points.time_constants.isinf().all()


def test_a_slow_point_beyond_a_fold_is_not_a_fixed_point():
    # h = tanh(2 h + b): a fold at h^2 = 1/2 annihilates two of three points; just beyond it a slow passage is left
    h_fold = -math.sqrt(0.5)
    fold = math.atanh(h_fold) - 2 * h_fold
    network = network_with(torch.tensor([[[2.0]]]), torch.full((1, 1, 1), fold + 1e-3).double())
    starts = torch.linspace(-1, -0.5, 15, dtype=torch.float64)[None, :, None]
    points = find_fixed_points(network, NO_INPUT, starts)
    ghost = points.hidden[~points.fixed]
    assert len(ghost) == 1
    assert ghost.item() == pytest.approx(h_fold, abs=0.01)
    # q of the passage: alpha (tanh(2h + b) - h) at the fold, f' = 1/2 there
    assert points.q[~points.fixed].item() == pytest.approx(0.5 * (0.2 * 0.5e-3) ** 2, rel=0.02)
    strict = find_fixed_points(network, NO_INPUT, starts, slowest=1e-12)
    assert strict.fixed.all()
    assert strict.n_lost > 0


@pytest.mark.parametrize("activation", ["softplus", "relu", "tanh", "retanh", "power"])
@pytest.mark.parametrize("rnn_type", ["LeakyRNN", "LeakyGRU"])
def test_jacobian_agrees_with_autograd(rnn_type, activation):
    parameters = NetworkParameters(n_rnn=6, activation=activation, rnn_type=rnn_type, w_rec_init="randgauss")
    network = make_network(parameters, n_networks=2, seed=1).to(torch.float64)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.rand(2, 3, 6, generator=generator, dtype=torch.float64)
    inputs = torch.rand(85, generator=generator, dtype=torch.float64)
    closed = network.jacobian(hidden, inputs)
    for e in range(2):
        one = network.subset([e])
        for k in range(3):
            auto = torch.autograd.functional.jacobian(lambda h: one.step(h, inputs), hidden[e, k][None, None])  # noqa: B023
            torch.testing.assert_close(closed[e, k], auto[0, 0, :, 0, 0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("rnn_type", ["LeakyRNN", "LeakyGRU"])
def test_every_point_stays_where_it_is_and_repels_only_along_unstable_modes(rnn_type):
    parameters = NetworkParameters(
        n_rnn=16, activation="tanh", rnn_type=rnn_type, w_rec_init="randgauss", w_rec_scale=1.5
    )
    network = make_network(parameters, n_networks=2, seed=2).to(torch.float64)
    if rnn_type == "LeakyRNN":
        network.weights["w_rec"] = 1.5 * network.weights["w_rec"]  # well inside the regime of many points
    points = find_fixed_points(network, NO_INPUT, starts_for(network, 60))
    assert points.fixed.any()
    for e in range(2):
        own = points.hidden[(points.network == e) & points.fixed]
        moved = network.subset([e]).step(own[None], NO_INPUT)[0]
        torch.testing.assert_close(moved, own, atol=1e-9, rtol=0)
        apart = torch.cdist(own, own) + torch.eye(len(own))
        assert apart.min() > 1e-2  # no point twice
        stable = points.hidden[(points.network == e) & points.fixed & (points.n_unstable == 0)]
        near = (stable + 1e-4)[None]
        for _ in range(1500):
            near = network.subset([e]).step(near, NO_INPUT)
        torch.testing.assert_close(near[0], stable, atol=1e-6, rtol=0)  # attractors attract


def test_points_of_an_ensemble_are_those_of_its_networks():
    network = network_with(torch.tensor([[[2.0]], [[0.5]]]), torch.zeros(2, 1, 1))
    starts = starts_for(network)
    together = find_fixed_points(network, NO_INPUT, starts)
    for e, n in enumerate((3, 1)):
        alone = find_fixed_points(network.subset([e]), NO_INPUT, starts[[e]])
        assert len(alone.hidden) == n
        torch.testing.assert_close(together.hidden[together.network == e], alone.hidden)


def test_table_has_a_row_for_each_point():
    network = network_with(torch.tensor([[[2.0]]]), torch.zeros(1, 1, 1))
    table = find_fixed_points(network, NO_INPUT, starts_for(network)).to_dataframe()
    assert list(table["n_unstable"].sort_values()) == [0, 0, 1]
    assert table.columns.tolist() == ["network", "q", "fixed", "n_unstable", "n_visits", "time_constant", "frequency"]


def test_nothing_slow_enough_gives_no_points():
    # h' = 0.8 h + 0.2 relu(h + 1): always moves on
    network = network_with(torch.ones(1, 1, 1), torch.ones(1, 1, 1), "relu")
    points = find_fixed_points(network, NO_INPUT, starts_for(network, 5).abs(), max_steps=50)
    assert points.hidden.shape == (0, 1)
    assert points.n_lost == 5
    assert points.to_dataframe().empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": torch.zeros(3, 85)}, r"inputs have shape \(3, 85\): must be one constant input, \(85,\)"),
        ({"starts": torch.zeros(1, 4, 5)}, r"starts have shape \(1, 4, 5\): must be \(1, n_starts, 2\)"),
        ({"starts": torch.zeros(1, 0, 2)}, r"starts have shape \(1, 0, 2\)"),
        ({"starts": torch.full((1, 4, 2), math.nan)}, "starts of network 0 are not finite"),
        ({"slowest": 0.0}, "slowest = 0.0: must be positive"),
        ({"apart": -1.0}, "apart = -1.0: must be positive"),
        ({"max_steps": 0}, "max_steps = 0: must be positive"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    network = network_with(torch.zeros(1, 2, 2), torch.zeros(1, 1, 2))
    arguments = {"inputs": NO_INPUT, "starts": torch.zeros(1, 4, 2)} | change
    with pytest.raises(MultitaskError, match=message):
        find_fixed_points(network, **arguments)


# ---- simulations near a point ----------------------------------------------------------------------------------------

BUMPS = torch.tensor([[[2.0]]]), torch.zeros(1, 1, 1)  # h = tanh(2 h): attractors at +-0.9575, a saddle at 0


def linear_pair() -> LeakyRNN:
    """Two relu networks above threshold, which are linear there."""
    generator = torch.Generator().manual_seed(0)
    w = 0.3 * torch.rand(2, 5, 5, generator=generator, dtype=torch.float64)
    return network_with(w, 1 + torch.rand(2, 1, 5, generator=generator, dtype=torch.float64), "relu")


def test_states_pushed_off_a_point_follow_its_jacobian():
    network = linear_pair()
    points = find_fixed_points(network, NO_INPUT, starts_for(network).abs())
    states = perturbed(network, points, NO_INPUT, n_trials=6, n_times=10, size=1e-3)
    assert states.shape == (2, 6, 10, 5)
    assert states.dtype == torch.float64
    away = states - points.hidden[:, None, None]
    torch.testing.assert_close(away[:, :, 0].norm(dim=-1), torch.full((2, 6), 1e-3).double())
    torch.testing.assert_close(away[:, :3], -away[:, 3:], rtol=0, atol=1e-10)  # as exact as the point
    torch.testing.assert_close(away[0, :, 0], away[1, :, 0], rtol=0, atol=1e-14)  # the same at all points
    for t in range(9):
        step = away[:, :, t] @ points.jacobian.mT
        torch.testing.assert_close(away[:, :, t + 1], step, rtol=0, atol=1e-10)


def test_pushes_grow_away_from_a_saddle_and_die_at_an_attractor():
    network = network_with(*BUMPS)
    points = find_fixed_points(network, NO_INPUT, starts_for(network))
    states = perturbed(network, points, NO_INPUT, n_trials=2, n_times=20)
    last = (states[:, 0, -1] - points.hidden).abs()[:, 0] / 1e-6
    expected = points.eigenvalues[:, 0].abs() ** 19
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=0)  # second order: 1e-6 * 1.2^19


def test_each_point_is_pushed_in_its_own_network_under_the_held_input():
    network = network_with(torch.zeros(2, 3, 3), torch.zeros(2, 1, 3))
    network.weights["w_in"][1, 0] = torch.tensor([0.5, -1.0, 2.0])
    points = find_fixed_points(network, torch.eye(85)[0], starts_for(network))
    states = perturbed(network, points, torch.eye(85)[0], n_trials=2, n_times=3, size=1e-9)
    torch.testing.assert_close(states[1, 0, 2], torch.tensor([0.5, -1.0, 2.0]).double().tanh(), rtol=0, atol=1e-8)
    assert states[0].abs().max() < 2e-9
    alone = perturbed(network, points.subset([1]), torch.eye(85)[0], n_trials=2, n_times=3, size=1e-9)
    assert torch.equal(alone[0], states[1])


def test_the_seed_decides_the_directions_alone():
    network = linear_pair()
    points = find_fixed_points(network, NO_INPUT, starts_for(network).abs())
    one, same, other = (perturbed(network, points, NO_INPUT, n_trials=4, n_times=3, seed=s) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_subset_keeps_points_by_index_and_mask():
    network = network_with(*BUMPS)
    points = find_fixed_points(network, NO_INPUT, starts_for(network))
    stable = points.subset(points.n_unstable == 0)
    assert stable.n_unstable.tolist() == [0, 0]
    assert (len(stable.jacobian), stable.dt, stable.n_lost) == (2, points.dt, points.n_lost)
    assert torch.equal(points.subset([2, 0]).hidden, points.hidden[[2, 0]])


def rotating() -> LeakyRNN:
    """Two networks in the plane and a third dimension: a slow pair and a fast mode, and a slow mode and a fast pair."""
    turn = torch.tensor([[0.0, 0.5], [-0.5, 0.0]])
    w = torch.stack([torch.block_diag(0.5 * torch.eye(2) + turn, -torch.ones(1, 1)),
                     torch.block_diag(torch.full((1, 1), 0.9), turn - torch.eye(2))]).double()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    modes = torch.eye(3) + 0.3 * torch.randn(3, 3, generator=generator)
    w = modes.double() @ w @ torch.linalg.inv(modes.double())
    rest = torch.full((2, 1, 3), 2.0).double()
    return network_with(w, rest - rest @ w, "relu")


def test_slow_jacobian_is_the_jacobian_on_the_subspace_of_its_slowest_modes():
    network = rotating()
    points = find_fixed_points(network, NO_INPUT, starts_for(network, 10, 0.5).abs() + 1)
    assert points.fixed.tolist() == [True, True]
    assert points.separable(2).tolist() == [True, False]
    assert points.separable(1).tolist() == [False, True]
    for at, rank in ((0, 2), (1, 1)):
        one = points.subset([at])
        slow = one.slow_jacobian(rank)[0]
        values, vectors = torch.linalg.eig(one.jacobian[0])
        order = values.abs().argsort(descending=True)
        assert torch.linalg.eigvals(slow).abs().tolist() == pytest.approx(one.eigenvalues[0, :rank].abs().tolist())
        leading = vectors[:, order[:rank]]
        basis = torch.linalg.svd(torch.cat([leading.real, leading.imag], 1))[0][:, :rank]
        assert slow.norm().item() == pytest.approx((basis.T @ one.jacobian[0] @ basis).norm().item())  # for any basis


def test_a_rank_that_splits_a_conjugate_pair_is_refused():
    network = rotating()
    points = find_fixed_points(network, NO_INPUT, starts_for(network, 10, 0.5).abs() + 1)
    message = r"rank = 2 splits modes of equal modulus at 1 of 2 points, first at point 1: use points.subset\("
    with pytest.raises(MultitaskError, match=message):
        points.slow_jacobian(2)
    for rank, message in (
        (3, "rank = 3: must be less than the number of units, 3"),
        (0, "rank = 0: must be a whole number >= 1"),
    ):
        with pytest.raises(MultitaskError, match=message):
            points.separable(rank)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_trials": 3}, "n_trials = 3: must be even, since trials start in pairs on opposite sides"),
        ({"n_trials": 0}, "n_trials = 0: must be a whole number >= 2"),
        ({"n_times": 0}, "n_times = 0: must be a whole number >= 1"),
        ({"size": 0.0}, "size = 0.0: must be a finite number > 0"),
        ({"seed": -1}, "seed = -1: must be a whole number >= 0"),
        ({"inputs": torch.zeros(3)}, r"inputs have shape \(3,\): must be one constant input, \(85,\)"),
        (
            {"network": linear_pair()},
            r"points have 1 units and belong to networks \[0\], but the ensemble has 2 networks of 5",
        ),
    ],
)
def test_invalid_arguments_of_perturbed_are_refused(change, message):
    network = network_with(*BUMPS)
    points = find_fixed_points(network, NO_INPUT, starts_for(network))
    arguments = {"network": network, "inputs": NO_INPUT, "n_trials": 2, "n_times": 3} | change
    with pytest.raises(MultitaskError, match=message):
        perturbed(**{"points": points} | arguments)


def test_perturbed_without_points_is_refused():
    network = network_with(*BUMPS)
    none = find_fixed_points(network, NO_INPUT, starts_for(network)).subset([])
    with pytest.raises(MultitaskError, match="points is empty: give at least one point"):
        perturbed(network, none, NO_INPUT, n_trials=2, n_times=3)
