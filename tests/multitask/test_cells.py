"""Cells: their equations against independent ones, ensembles, fixed points, lesions, and cells with a mistake."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multitask import CELLS, CellNetwork, LeakyRNN, MultitaskError, NetworkParameters, find_fixed_points, make_network
from multitask.network.cells import Cell
from multitask.network.cells.linear_scan import linear_scan

OWN = "tests.multitask.own_cell"
ALL = [*CELLS, f"{OWN}:Fading"]


def small(cell: str, n_networks: int = 2, seed: int = 0, **changes: Any) -> CellNetwork:
    """A small ensemble in float64 whose weights are all moved away from their start."""
    settings = {"n_rnn": 6, "rnn_type": cell, "dt": 50.0, "n_input": 9, "n_rule": 2, "n_output": 3, **changes}
    network = make_network(NetworkParameters(**settings), n_networks, seed).to(torch.float64)
    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: w + 0.1 * torch.randn(w.shape, generator=generator, dtype=w.dtype) for name, w in network.weights.items()
    }
    found = network.with_weights(moved)
    assert isinstance(found, CellNetwork)
    return found


@pytest.fixture
def x(generator) -> Tensor:
    return torch.randn(4, 15, 9, generator=generator, dtype=torch.float64)


def of_one(network: CellNetwork, e: int) -> dict[str, Tensor]:
    """Weights of one network, with all inputs in ``w_in``, that collect gradients."""
    w = {name: weight[e].clone() for name, weight in network.weights.items()}
    w["w_in"] = torch.cat([w["w_in"], w.pop("w_rule")])
    return {name: weight.requires_grad_() for name, weight in w.items()}


# ---- equations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "layer"), [("Tanh", nn.RNN), ("GRU", nn.GRU), ("LSTM", nn.LSTM)])
def test_classical_cells_are_those_of_torch(cell, layer, x):
    network = small(cell)
    for e in range(2):
        w, theirs = of_one(network, e), layer(9, 6, batch_first=True).double()
        with torch.no_grad():
            theirs.weight_ih_l0.copy_(w["w_in"].T)
            theirs.weight_hh_l0.copy_(w["w_rec"].T)
            theirs.bias_ih_l0.copy_(w["b"][0])
            theirs.bias_hh_l0.zero_()
            if cell == "GRU":
                theirs.bias_hh_l0[-6:] = w["b_rec"][0]
            expected, _ = theirs(x)
        torch.testing.assert_close(network(x)[1][e], expected, rtol=0, atol=1e-13)  # float64


def test_tanh_is_the_leaky_network_without_leak(x):
    network = small("Tanh", sigma_rec=0.0)
    sizes = {"n_rnn": 6, "n_input": 9, "n_rule": 2, "n_output": 3}
    leaky = make_network(NetworkParameters(activation="tanh", dt=100, tau=100, **sizes), 2).with_weights(
        network.weights
    )
    for ours, theirs in zip(network(x), leaky(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_low_rank_has_the_connectivity_of_its_vectors(activation, x):
    network = small("LowRank", activation=activation, cell_options={"rank": 2})
    f = torch.tanh if activation == "tanh" else torch.relu
    for e in range(2):
        w = of_one(network, e)
        connectivity = w["w_from"] @ w["w_to"].T / 6
        assert torch.linalg.matrix_rank(connectivity) == 2
        s = torch.zeros(4, 6, dtype=torch.float64)
        for t in range(15):
            s = 0.5 * s + 0.5 * (f(s) @ connectivity + x[:, t] @ w["w_in"] + w["b"])
            torch.testing.assert_close(network(x)[1][e, :, t], f(s), rtol=0, atol=1e-13)


def test_units_of_dale_excite_or_inhibit_all_others():
    network = small("Dale", cell_options={"excitatory": 0.5})
    states = 1 + torch.rand(2, 50, 6, dtype=torch.float64)
    effects = network.jacobian(states, torch.zeros(9))  # entry (i, j): from j to i
    effects = effects - 0.5 * torch.eye(6)  # without the leak
    assert (effects[..., :3] > 0).all()
    assert (effects[..., 3:] < 0).all()


@pytest.mark.parametrize(("scale", "loop"), [(None, 0.9), (0.5, 0.5)])
def test_excitatory_units_of_dale_remember_at_the_start(scale, loop):
    sizes = {"n_rnn": 64, "n_input": 9, "n_rule": 2, "n_output": 3, "dt": 50.0}
    network = make_network(NetworkParameters(rnn_type="Dale", w_rec_scale=scale, **sizes), 3)
    excitatory = network.cell.signs[:, 0] > 0
    state = torch.ones(3, 1, 64)
    for _ in range(10):
        state = network.step(state, torch.zeros(9))
    alone = (1 - 0.5 * (1 - loop)) ** 10  # units without inputs from others
    torch.testing.assert_close(
        state[..., excitatory].mean(-1), torch.full((3, 1), alone), rtol=0, atol=0.2
    )  # others act weakly


def lru_by_loop(w: dict[str, Tensor], x: Tensor, n_layers: int) -> Tensor:
    """The equations of the layers for one network, one time after the other."""
    n, states = 6, [torch.zeros(len(x), 6, dtype=torch.complex128) for _ in range(n_layers)]
    units = []
    for t in range(x.shape[1]):
        u = x[:, t] @ w["w_in"] + w["b"]
        for k in range(n_layers):
            decay = torch.exp(-torch.exp(w[f"nu_{k}"]) + 1j * torch.exp(w[f"theta_{k}"]))
            into = u.to(torch.complex128) @ (w[f"w_b_{k}"][:, :n] + 1j * w[f"w_b_{k}"][:, n:])
            states[k] = decay * states[k] + torch.exp(w[f"log_gamma_{k}"]) * into
            y = (states[k] @ (w[f"w_c_{k}"][:n] - 1j * w[f"w_c_{k}"][n:])).real + w[f"d_{k}"] * u
            if k < n_layers - 1:
                g = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
                u = u + g / (1 + torch.exp(-(g @ w[f"w_glu_{k}"])))
        units.append(y)
    return torch.stack(units, 1)


def selective_by_loop(w: dict[str, Tensor], x: Tensor, n_states: int) -> Tensor:
    """The equations for one network, one time and one state after the other."""
    states = [torch.zeros(len(x), 6, dtype=torch.float64) for _ in range(n_states)]
    units = []
    for t in range(x.shape[1]):
        z = x[:, t] @ w["w_in"] + w["b"]
        u = z / (1 + torch.exp(-z))
        delta = torch.log1p(torch.exp(u @ w["w_delta"] + w["b_delta"]))
        y = w["skip"] * u
        for k in range(n_states):
            decay = torch.exp(-delta * torch.exp(w["log_a"][:, k]))
            states[k] = decay * states[k] + delta * (u @ w["w_b"][:, k : k + 1]) * u
            y = y + (u @ w["w_c"][:, k : k + 1]) * states[k]
        units.append(y)
    return torch.stack(units, 1)


@pytest.mark.parametrize(
    ("cell", "options", "loop"),
    [
        ("LRU", {"n_layers": 1}, lambda w, x: lru_by_loop(w, x, 1)),
        ("LRU", {"n_layers": 3}, lambda w, x: lru_by_loop(w, x, 3)),
        ("Selective", {"n_states": 3}, lambda w, x: selective_by_loop(w, x, 3)),
    ],
)
def test_state_space_cells_agree_with_a_plain_loop_in_values_and_gradients(cell, options, loop, x):
    network = small(cell, cell_options=options)
    weights = {name: weight.requires_grad_() for name, weight in network.weights.items()}
    _, hidden = network(x)
    score = torch.sin(torch.arange(hidden[0].numel(), dtype=torch.float64)).view(hidden[0].shape)
    ours = torch.autograd.grad((hidden * score).sum(), [w for n, w in weights.items() if n not in ("w_out", "b_out")])
    ours = dict(zip([n for n in weights if n not in ("w_out", "b_out")], ours, strict=True))
    ours["w_in"] = torch.cat([ours["w_in"], ours.pop("w_rule")], 1)
    for e in range(2):
        w = {n: weight for n, weight in of_one(network, e).items() if n not in ("w_out", "b_out")}
        w = {n: weight.detach().requires_grad_() for n, weight in w.items()}
        expected = loop(w, x)
        torch.testing.assert_close(hidden[e], expected, rtol=0, atol=1e-10)
        gradients = torch.autograd.grad((expected * score).sum(), list(w.values()))
        for name, gradient in zip(w, gradients, strict=True):
            assert gradient.abs().max() > 1e-3, name
            torch.testing.assert_close(ours[name][e], gradient, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("n_times", [1, 2, 13, 16])
def test_linear_scan_is_the_recurrence(n_times, parallel, dtype, generator):
    a = torch.randn(2, n_times, 3, dtype=dtype, generator=generator).requires_grad_()
    b = torch.randn(2, n_times, 3, dtype=dtype, generator=generator).requires_grad_()
    h, expected = torch.zeros(2, 3, dtype=dtype), []
    for t in range(n_times):
        h = a[:, t] * h + b[:, t]
        expected.append(h)
    wanted, found = torch.stack(expected, 1), linear_scan(a, b, parallel)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    into = torch.randn(wanted.shape, dtype=dtype, generator=generator)
    for ours, theirs in zip(
        torch.autograd.grad(found, (a, b), into),
        torch.autograd.grad(wanted, (a, b), into, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("noisy", [False, True])
def test_gradient_of_the_gru_by_hand_is_that_of_autograd(noisy, generator):
    network = small("GRU")
    w = {name: network.weights[name].requires_grad_() for name in ("w_rec", "b_rec")}
    drive = torch.randn(2, 15, 4, 18, dtype=torch.float64, generator=generator).requires_grad_()
    noise = torch.randn(2, 15, 4, 6, dtype=torch.float64, generator=generator) if noisy else None
    ours, theirs = network.cell.scan(w, drive, noise), Cell.scan(network.cell, w, drive, noise)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    into = torch.randn(ours.shape, dtype=torch.float64, generator=generator)
    found, wanted = (torch.autograd.grad(states, (drive, *w.values()), into) for states in (ours, theirs))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)  # float64 sums of 60 terms


def test_gru_with_kept_arrays_has_the_same_gradients_at_every_call(x):
    network, buffers = small("GRU"), {}
    weights = [weight.requires_grad_() for weight in network.weights.values()]
    for batch in (x, x[:2, :7], x + 1):
        wanted, found = (
            torch.autograd.grad(network.logits(batch, buffers=kept)[0].square().sum(), weights)
            for kept in (None, buffers)
        )
        assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert set(buffers) == {"hidden", "factors"}


# ---- what all cells have in common -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ALL)
def test_an_ensemble_is_its_networks_one_by_one(cell, x):
    network = small(cell, 3)
    outputs, hidden = network(x)
    assert hidden.shape == (3, 4, 15, 6)
    assert outputs.shape == (3, 4, 15, 3)
    for e in range(3):
        for whole, alone in zip((outputs, hidden), network.subset([e])(x), strict=True):
            torch.testing.assert_close(alone[0], whole[e], rtol=0, atol=1e-13)
    own = x[None] + torch.arange(3)[:, None, None, None]  # a batch for each network
    torch.testing.assert_close(network(own)[1][2], network(x + 2)[1][2], rtol=0, atol=1e-13)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("cell", ALL)
def test_outputs_gradients_and_fixed_points_on_cuda_are_those_of_the_cpu(cell, x):
    found = []
    for device in ("cpu", "cuda"):
        network, inputs = small(cell).to(device), x.to(device)
        states = network.states(inputs).flatten(1, 2)
        points = find_fixed_points(network, inputs[0, 0], states)
        weights = [weight.requires_grad_() for weight in network.weights.values()]
        gradients = torch.autograd.grad(network.logits(inputs)[0].square().mean(), weights)
        found.append([states, *gradients, points.subset(points.fixed).hidden])
    for here, there in zip(*found, strict=True):
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), here, rtol=1e-6, atol=1e-8)  # points are solved to 1e-9


@pytest.mark.parametrize("cell", ALL)
def test_first_networks_of_a_larger_ensemble_start_alike(cell):
    parameters = NetworkParameters(n_rnn=6, rnn_type=cell)
    few, many = make_network(parameters, 2, seed=4), make_network(parameters, 3, seed=4)
    for name, weight in few.weights.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, many.weights[name][:2])
    assert not torch.equal(many.weights["w_in"][0], many.weights["w_in"][2])
    assert few.weights["w_in"].shape[1] == 65
    assert few.weights["w_rule"].shape[1] == 20


@pytest.mark.parametrize("cell", ["LeakyRNN", "LeakyGRU", "Tanh", "GRU"])
def test_states_of_cells_without_further_state_are_the_activity(cell, x):
    parameters = NetworkParameters(n_rnn=6, rnn_type=cell, dt=50.0, n_input=9, n_rule=2, n_output=3, sigma_rec=0.5)
    network = make_network(parameters, 2).to(torch.float64)
    assert torch.equal(network.states(x), network(x)[1])
    noisy = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert torch.equal(network.states(x, noisy[0]), network(x, generator=noisy[1])[1])


@pytest.mark.parametrize("cell", ALL)
def test_states_over_time_are_steps_and_noise_is_added_after_each(cell, x):
    network = small(cell, sigma_rec=0.5)
    states = network.states(x)
    noisy = network.states(x, torch.Generator().manual_seed(3))
    noise = torch.randn(
        (2, 15, 4, network.n_state), generator=torch.Generator().manual_seed(3), dtype=torch.float64
    ) * (0.5 * math.sqrt(2 * 0.5))  # sigma_rec sqrt(2 alpha)
    quiet = kicked = torch.zeros(2, 4, network.n_state, dtype=torch.float64)
    for t in range(15):
        quiet, kicked = network.step(quiet, x[:, t]), network.step(kicked, x[:, t]) + noise[:, t]
        torch.testing.assert_close(states[:, :, t], quiet, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(noisy[:, :, t], kicked, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("cell", ALL)
def test_jacobian_agrees_with_finite_differences(cell):
    network = small(cell, n_rnn=4)
    states = torch.rand(2, 3, network.n_state, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs, size = torch.linspace(-1, 1, 9, dtype=torch.float64), 1e-6
    found = network.jacobian(states, inputs)
    for j in range(network.n_state):
        push = size * torch.eye(network.n_state, dtype=torch.float64)[j]
        column = (network.step(states + push, inputs) - network.step(states - push, inputs)) / (2 * size)
        torch.testing.assert_close(found[..., j], column, rtol=0, atol=1e-8)  # size^2 and rounding / size


@pytest.mark.parametrize("cell", ALL)
def test_found_points_are_fixed(cell, x):
    network = small(cell, n_rnn=4, cell_options={"n_states": 2} if cell == "Selective" else {})
    points = find_fixed_points(network, x[0, 0], network.states(x).flatten(1, 2))
    fixed = points.subset(points.fixed)
    assert len(fixed.hidden)
    assert set(fixed.network.tolist()) == {0, 1}
    for e in range(2):
        own = fixed.hidden[fixed.network == e]
        ahead = network.subset([e]).step(own[None], x[0, 0])[0]
        torch.testing.assert_close(ahead, own, rtol=0, atol=1e-9)


def test_fixed_point_of_one_linear_layer_is_the_closed_form(x):
    network = small("LRU", 1, cell_options={"n_layers": 1})
    points = find_fixed_points(network, x[0, 0], network.states(x).flatten(1, 2))
    w = {name: weight.detach() for name, weight in of_one(network, 0).items()}
    decay = torch.exp(-torch.exp(w["nu_0"]) + 1j * torch.exp(w["theta_0"]))[0]
    u = (x[0, :1] @ w["w_in"] + w["b"]) @ w["w_b_0"]
    rest = torch.exp(w["log_gamma_0"][0]) * torch.complex(u[0, :6], u[0, 6:]) / (1 - decay)
    assert len(points.hidden) == 1
    torch.testing.assert_close(points.hidden[0], torch.cat([rest.real, rest.imag]), rtol=1e-7, atol=1e-7)
    moduli = decay.abs().repeat_interleave(2).sort(descending=True).values
    torch.testing.assert_close(points.eigenvalues[0].abs(), moduli)


@pytest.mark.parametrize("cell", ALL)
def test_a_silenced_unit_reaches_nothing(cell, x):
    network = small(cell)
    cut = network.lesion([2])
    outputs, hidden = cut(x)
    weights = {name: w.clone() for name, w in cut.weights.items()}
    weights["w_in"][:, :, 2] += 1  # the drive of the unit (of its first gate)
    weights["b"][:, :, 2] += 1
    others = [0, 1, 3, 4, 5]
    if cell not in ("LRU", "Selective"):  # where inputs of a channel reach all units
        again, moved = cut.with_weights(weights)(x)
        assert not torch.equal(moved[..., 2], hidden[..., 2])
        torch.testing.assert_close(moved[..., others], hidden[..., others], rtol=0, atol=1e-13)
        torch.testing.assert_close(again, outputs, rtol=0, atol=1e-13)
    assert not cut.weights["w_out"][:, 2].any()
    assert network.weights["w_out"][:, 2].all()


# ---- names, options and mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rnn_type": "Tahn"}, r"unknown network\.rnn_type 'Tahn': did you mean 'Tanh'\?"),
        ({"rnn_type": "LSMT"}, r"unknown network\.rnn_type 'LSMT': did you mean 'LSTM'\?"),
        ({"rnn_type": "xyzzy"}, r"choose from LeakyRNN, LeakyGRU, Tanh, GRU, LSTM, LowRank, Dale, LRU, Selective"),
        ({"rnn_type": f"{OWN}:Fadign"}, r"unknown name in tests\.multitask\.own_cell 'Fadign': did you mean 'Fading'"),
        ({"rnn_type": f"{OWN}:"}, r"unknown cell 'tests\.multitask\.own_cell:'"),
        ({"rnn_type": "no_such_module:Cell"}, r"cannot import module 'no_such_module'"),
        ({"rnn_type": f"{OWN}:NOT_A_CELL"}, r"is no cell: must be a subclass of multitask\.Cell"),
        ({"rnn_type": f"{OWN}:NoStep"}, r"has no method 'step': a cell needs start and step"),
        ({"rnn_type": "LowRank", "cell_options": {"rnk": 2}}, r"unknown option of LowRank 'rnk': did you mean 'rank'"),
        ({"rnn_type": "GRU", "cell_options": {"rank": 2}}, r"unknown option of GRU 'rank': this cell has none"),
        ({"cell_options": {"rank": 2}}, r"network\.cell_options = \{'rank': 2\}: LeakyRNN has none"),
        ({"rnn_type": "LowRank", "cell_options": {"rank": 0}}, r"network\.cell_options\.rank"),
        ({"rnn_type": "LowRank", "n_rnn": 3}, r"network\.cell_options\.rank = 4: must be at most n_rnn = 3"),
        ({"rnn_type": "Dale", "cell_options": {"excitatory": 1.0}}, r"at least one excitatory and one inhibitory unit"),
        ({"rnn_type": "LRU", "cell_options": {"n_layers": 0}}, r"network\.cell_options\.n_layers"),
        ({"rnn_type": "Selective", "cell_options": {"n_states": 1.5}}, r"network\.cell_options\.n_states"),
    ],
)
def test_unknown_cells_and_options_are_refused(changes, message):
    with pytest.raises(MultitaskError, match=message):
        NetworkParameters(**{"n_rnn": 6, **changes})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Stateless", r"has no state \(n_state = 0\): set n_state to a number >= 1"),
        ("Vector", r"fade came as shape \(6,\): weights are matrices, a bias is \(1, N\)"),
        ("FewInputs", r"w_in has shape \(3, 6\): must have a row for each of the 85 inputs"),
        ("LongBias", r"b has shape \(1, 7\): must be \(1, 6\), the columns of w_in"),
        ("Taken", r"weights cannot be called 'w_out'"),
        ("NotSquare", r"does not run with weights w_in \(65, 6\), w_rec \(3, 6\)"),
        ("WideState", r"step returned \(2, 2, 12\), must be \(2, 2, 6\) for two trials"),
        ("WideRead", r"read returned \(2, 2, 12\), must be \(2, 2, 6\) for two trials"),
        ("NoInput", r"start must return a dictionary of weights that contains 'w_in'"),
    ],
)
def test_cells_with_a_mistake_are_refused_before_training(name, message):
    with pytest.raises(MultitaskError, match=message):
        make_network(NetworkParameters(n_rnn=6, rnn_type=f"{OWN}:{name}"), 2)


def test_leaky_networks_alone_have_one_nonlinearity_and_a_plain_module():
    network = small("GRU", 1)
    for method in (lambda: network.preactivation(network.weights["w_out"], torch.zeros(9)), lambda: network.slope(0)):
        with pytest.raises(MultitaskError, match="a GRU has no single nonlinearity"):
            method()
    with pytest.raises(MultitaskError, match="a GRU has no plain module"):
        network.to_torch()


def test_leaky_networks_have_a_state_for_each_unit():
    assert LeakyRNN(NetworkParameters(n_rnn=7)).n_state == 7
    assert Cell(NetworkParameters(n_rnn=7)).n_state == 7
    assert np.prod(small("Selective").states(torch.zeros(1, 1, 9)).shape) == 2 * 6 * 8
