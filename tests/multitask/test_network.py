"""Ensembles of networks: their equation, their start, lesions, Jacobians, and every parameter that is refused."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from multitask.network import LeakyGRU, LeakyRNN, NetworkParameters, make_network
from multitask.scan import ACTIVATIONS
from multitask.trials import MultitaskError

CELLS = ("LeakyRNN", "LeakyGRU")
NUMPY = {
    "softplus": lambda z: np.log1p(np.exp(z)),
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "retanh": lambda z: np.tanh(np.maximum(z, 0)),
    "power": lambda z: np.maximum(z, 0) ** 2,
}


def small(n_networks: int = 2, seed: int = 0, **changes) -> LeakyRNN:
    """A small ensemble in float64, with recurrent weights that matter and biases that are not 0."""
    start = {"w_rec_init": "randgauss", "w_rec_scale": 0.8}
    network = make_network(NetworkParameters(**{"n_rnn": 6, **start, **changes}), n_networks, seed).to(torch.float64)
    generator = torch.Generator().manual_seed(seed)
    biases = {name: w for name, w in network.weights.items() if name.startswith("b")}
    moved = {name: w + 0.3 * torch.randn(w.shape, generator=generator, dtype=w.dtype) for name, w in biases.items()}
    return network.with_weights(network.weights | moved)


def trials(generator: torch.Generator, n_trials: int = 3, n_times: int = 12) -> Tensor:
    return torch.randn(n_trials, n_times, 85, generator=generator, dtype=torch.float64)


def numpy_weights(network: LeakyRNN, i: int) -> dict[str, np.ndarray]:
    return {name: weight[i].numpy() for name, weight in network.weights.items()}


# ---- the equation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_step_is_the_formula_of_the_paper(activation, generator):
    network, x = small(activation=activation), trials(generator)
    outputs, hidden = network(x)
    alpha = 0.2
    for i in range(2):
        w = numpy_weights(network, i)
        w_in = np.concatenate([w["w_in"], w["w_rule"]])
        before, now = hidden[i, :, 6].numpy(), hidden[i, :, 7].numpy()
        z = x[:, 7].numpy() @ w_in + before @ w["w_rec"] + w["b"]
        expected = (1 - alpha) * before + alpha * NUMPY[activation](z)
        np.testing.assert_allclose(now, expected, rtol=1e-12)  # float64 sums of 91 terms
        y = 1 / (1 + np.exp(-(now @ w["w_out"] + w["b_out"])))
        np.testing.assert_allclose(outputs[i, :, 7], y, rtol=1e-12)
        first = alpha * NUMPY[activation](x[:, 0].numpy() @ w_in + w["b"])
        np.testing.assert_allclose(hidden[i, :, 0], first, rtol=1e-12)  # from h_0 = 0, and x_1 counts at once


def test_one_step_of_the_gru_is_its_formula(generator):
    network, x = small(rnn_type="LeakyGRU", activation="tanh"), trials(generator)
    _, hidden = network(x)
    w, n, alpha = numpy_weights(network, 1), 6, 0.2
    before, now = hidden[1, :, 6].numpy(), hidden[1, :, 7].numpy()
    drive = x[:, 7].numpy() @ np.concatenate([w["w_in"], w["w_rule"]]) + w["b"]
    r, u = (
        1 / (1 + np.exp(-(drive[:, k * n : (k + 1) * n] + before @ w["w_rec"][:, k * n : (k + 1) * n]))) for k in (0, 1)
    )
    c = np.tanh(drive[:, 2 * n :] + (r * before) @ w["w_rec"][:, 2 * n :])
    np.testing.assert_allclose(now, (1 - alpha * u) * before + alpha * u * c, rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_without_leak_and_noise_it_is_the_network_of_torch(activation, generator):
    network, x = small(1, activation=activation, dt=100.0, tau=100.0), trials(generator)
    theirs = torch.nn.RNN(85, 6, nonlinearity=activation, batch_first=True, dtype=torch.float64)
    w = network.weights
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.cat([w["w_in"], w["w_rule"]], 1)[0].T)
        theirs.weight_hh_l0.copy_(w["w_rec"][0].T)
        theirs.bias_ih_l0.copy_(w["b"][0, 0])
        theirs.bias_hh_l0.zero_()
    np.testing.assert_allclose(network(x)[1][0], theirs(x)[0].detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cell", CELLS)
def test_steps_one_by_one_lead_where_the_whole_trial_leads(cell, generator):
    network, x = small(rnn_type=cell, activation="softplus"), trials(generator)
    h = torch.zeros(2, 3, 6, dtype=torch.float64)
    for t in range(x.shape[1]):
        h = network.step(h, x[:, t])
    np.testing.assert_allclose(h, network(x)[1][:, :, -1], rtol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_trial_in_a_batch_is_the_trial_alone(cell, generator):
    network, x = small(rnn_type=cell).to(torch.float32), trials(generator).float()
    outputs, hidden = network(x)
    for i in range(len(x)):
        alone = network(x[i : i + 1])
        np.testing.assert_allclose(outputs[:, i], alone[0][:, 0], rtol=1e-5)  # float32
        np.testing.assert_allclose(hidden[:, i], alone[1][:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_networks_of_an_ensemble_do_not_meet(cell, generator):
    network, x = small(3, rnn_type=cell), trials(generator)
    outputs, hidden = network(x)
    alone = network.subset([1])(x)
    np.testing.assert_allclose(outputs[1], alone[0][0], rtol=1e-12)
    np.testing.assert_allclose(hidden[1], alone[1][0], rtol=1e-12)


def test_inputs_may_be_shared_or_one_batch_for_each_network(generator):
    network, x = small(2), trials(generator)
    own = torch.stack([x, x.flip(0)])
    outputs, _ = network(own)
    np.testing.assert_allclose(outputs[0], network(x)[0][0], rtol=1e-12)
    np.testing.assert_allclose(outputs[1], network(x.flip(0))[0][1], rtol=1e-12)


def test_halving_the_step_at_the_same_tau_converges(generator):
    x = trials(generator, n_trials=2, n_times=5).repeat_interleave(4, dim=1)  # piecewise constant inputs
    ends = []
    for factor in (1, 2, 4, 8):
        network = small(1, activation="tanh", dt=20.0 / factor)
        ends.append(network(x.repeat_interleave(factor, dim=1))[1][:, :, -1])
    change = [float((finer - coarser).norm()) for coarser, finer in pairwise(ends)]
    # Euler is of first order: the error halves with the step, up to terms that halve as well
    off = [abs(coarse / fine - 2) for coarse, fine in pairwise(change)]
    assert off[1] < 0.6 * off[0]
    assert off[0] < 0.3


# ---- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_private_noise_has_the_spread_of_the_paper_and_is_private(cell):
    network = make_network(NetworkParameters(n_rnn=30, rnn_type=cell, activation="tanh", dt=100.0), 2)
    zero = {name: torch.zeros_like(weight) for name, weight in network.weights.items()}
    network = network.with_weights(zero)
    x = torch.zeros(40, 50, 85)
    _, hidden = network(x, generator=torch.Generator().manual_seed(1))
    if cell == "LeakyRNN":
        z = torch.atanh(hidden.double())  # alpha = 1: h = tanh(noise)
    else:  # h' = h / 2 + tanh(noise) / 2
        z = torch.atanh((2 * hidden[:, :, 1:] - hidden[:, :, :-1]).double())
    assert network.parameters.noise_sd == pytest.approx(0.05 * math.sqrt(2))
    assert z.std().item() == pytest.approx(0.05 * math.sqrt(2), rel=0.01)  # 120 000 draws: 0.2 % standard error
    assert abs(np.corrcoef(z[0].flatten(), z[1].flatten())[0, 1]) < 0.02
    assert abs(np.corrcoef(z[0, 0].flatten(), z[0, 1].flatten())[0, 1]) < 0.1  # 1500 pairs


def test_noise_of_a_step_at_dt_20_is_that_of_the_original():
    assert NetworkParameters().noise_sd == pytest.approx(0.158114, abs=1e-6)
    assert NetworkParameters().alpha == pytest.approx(0.2)


def test_noise_needs_a_generator_and_repeats_with_it(generator):
    network, x = small(), trials(generator)
    quiet = network(x)[0]
    noisy = [network(x, generator=torch.Generator().manual_seed(3))[0] for _ in range(2)]
    assert torch.equal(*noisy)
    assert not torch.allclose(quiet, noisy[0])
    assert torch.equal(quiet, small(sigma_rec=0.0)(x, generator=torch.Generator().manual_seed(3))[0])


# ---- start -----------------------------------------------------------------------------------------------------------


def test_start_has_the_scales_of_the_original():
    w = {n: t.double() for n, t in LeakyRNN(NetworkParameters(), 2).weights.items()}
    w_in = torch.cat([w["w_in"], w["w_rule"]], 1)
    assert w_in.std().item() == pytest.approx(85**-0.5, rel=0.02)  # 43 520 draws
    assert torch.equal(w["w_rec"], 0.5 * torch.eye(256, dtype=torch.float64).expand(2, -1, -1))
    limit = math.sqrt(6 / (256 + 33))
    assert limit == pytest.approx(0.1441, abs=1e-4)
    assert 0.99 * limit < w["w_out"].abs().max() <= limit + 1e-7  # float32
    assert w["w_out"].std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert not w["b"].any()
    assert not w["b_out"].any()


@pytest.mark.parametrize(
    ("activation", "scale"), [("softplus", 0.5), ("relu", 0.5), ("tanh", 1.0), ("retanh", 0.5), ("power", 0.01)]
)
def test_recurrent_weights_start_orthogonal_at_the_scale_of_the_activation(activation, scale):
    parameters = NetworkParameters(n_rnn=40, activation=activation, w_rec_init="randortho")
    w_rec = LeakyRNN(parameters, 3).weights["w_rec"] / scale
    np.testing.assert_allclose(w_rec @ w_rec.mT, torch.eye(40).expand(3, -1, -1), atol=1e-5)  # float32
    assert not torch.allclose(w_rec[0], w_rec[1])


def test_random_orthogonal_start_is_uniform():
    """Over the orthogonal matrices the trace has mean 0 and variance 1 (QR with unfixed signs: mean near 1)."""
    parameters = NetworkParameters(n_rnn=5, activation="tanh", w_rec_init="randortho", n_input=2, n_rule=0, n_output=1)
    traces = LeakyRNN(parameters, 2000).weights["w_rec"].diagonal(dim1=1, dim2=2).sum(1)
    assert abs(traces.mean().item()) < 0.1  # standard error 0.022
    assert traces.var().item() == pytest.approx(1, abs=0.15)


def test_gaussian_start_and_a_scale_of_ones_own():
    parameters = NetworkParameters(n_rnn=100, activation="relu", w_rec_init="randgauss", w_rec_scale=0.9)
    assert LeakyRNN(parameters, 2).weights["w_rec"].std().item() == pytest.approx(0.9 / 10, rel=0.03)
    parameters = NetworkParameters(n_rnn=10, activation="relu", w_rec_scale=0.9)
    assert torch.equal(LeakyRNN(parameters).weights["w_rec"][0], 0.9 * torch.eye(10))


def test_gates_start_open():
    b = LeakyGRU(NetworkParameters(n_rnn=4, rnn_type="LeakyGRU")).weights["b"][0, 0]
    assert b.tolist() == [1.0] * 8 + [0.0] * 4


@pytest.mark.parametrize("cell", CELLS)
def test_network_i_starts_the_same_in_any_ensemble_and_seeds_differ(cell):
    parameters = NetworkParameters(n_rnn=5, rnn_type=cell, w_rec_init="randortho")
    two, four = make_network(parameters, 2, seed=7), make_network(parameters, 4, seed=7)
    assert all(torch.equal(two.weights[name], four.weights[name][:2]) for name in two.weights)
    assert not torch.equal(two.weights["w_in"][0], two.weights["w_in"][1])
    assert not torch.equal(two.weights["w_in"], make_network(parameters, 2, seed=8).weights["w_in"])


def test_the_global_random_state_is_not_touched(generator):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 (the state is what is tested)
    network = small(w_rec_init="randortho")
    network(trials(generator), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


# ---- separate inputs -------------------------------------------------------------------------------------------------


def test_separate_inputs_start_glorot_with_a_bias_of_their_own():
    w = LeakyRNN(NetworkParameters(n_rnn=100, use_separate_input=True)).weights
    for name, rows in (("w_in", 65), ("w_rule", 20)):
        limit = math.sqrt(6 / (rows + 100))
        assert 0.97 * limit < w[name].abs().max() <= limit + 1e-7
    assert w["b_in"].shape == (1, 1, 100)
    assert "mixing" not in w


def test_mixed_rules_enter_through_a_fixed_orthogonal_matrix(generator):
    network, x = small(use_separate_input=True, mix_rule=True), trials(generator)
    mixing = network.weights["mixing"]
    np.testing.assert_allclose(mixing @ mixing.mT, torch.eye(20).expand(2, -1, -1), atol=1e-5)
    mixed = torch.cat([x[..., :65].expand(2, -1, -1, -1), x[..., 65:] @ mixing[:, None]], -1)
    plain = small(use_separate_input=True)
    plain = plain.with_weights({name: network.weights[name] for name in plain.weights})
    np.testing.assert_allclose(network(x)[1], plain(mixed)[1], rtol=1e-10)
    bias = network.weights | {"b": network.weights["b"] + network.weights["b_in"]}
    joined = network.with_weights({name: weight for name, weight in bias.items() if name != "b_in"})
    np.testing.assert_allclose(network(x)[1], joined(x)[1], rtol=1e-12)


# ---- Jacobians -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_jacobian_is_the_derivative_of_a_step(cell, activation, generator):
    network, x = small(rnn_type=cell, activation=activation), trials(generator)
    hidden = network(x)[1][:, :, 5]  # (network, trial, unit)
    jacobian = network.jacobian(hidden, x[:, 6])
    assert jacobian.shape == (2, 3, 6, 6)
    for i in range(2):
        for b in range(3):
            one = network.subset([i])
            expected = torch.autograd.functional.jacobian(
                lambda h, one=one, b=b: one.step(h[None, None], x[b, 6])[0, 0], hidden[i, b]
            )
            np.testing.assert_allclose(jacobian[i, b], expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("cell", CELLS)
def test_states_and_inputs_of_a_step_may_have_any_axes_between_network_and_unit(cell, generator):
    network, x = small(rnn_type=cell), trials(generator)
    hidden = network(x)[1]  # (network, trial, time, unit)
    alone = network.step(hidden[:, 2, 3], x[2, 3])
    assert alone.shape == (2, 6)
    everywhere = network.step(hidden, x)
    assert everywhere.shape == hidden.shape
    np.testing.assert_allclose(everywhere[:, 2, 3], alone, rtol=1e-12)
    np.testing.assert_allclose(network.step(hidden[:, :, 3], x[2, 3])[:, 2], alone, rtol=1e-12)
    np.testing.assert_allclose(network.step(hidden, x[2, 3])[:, 2, 3], alone, rtol=1e-12)
    np.testing.assert_allclose(
        network.jacobian(hidden, x)[:, 2, 3], network.jacobian(hidden[:, 2, 3], x[2, 3]), rtol=1e-12
    )


# ---- lesions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_a_lesioned_unit_reaches_nobody_and_all_else_stays(cell, generator):
    network, x = small(rnn_type=cell), trials(generator)
    cut = network.lesion([1, 4])
    assert not cut.weights["w_rec"][:, [1, 4]].any()
    assert not cut.weights["w_out"][:, [1, 4]].any()
    for name, weight in network.weights.items():
        stays = torch.ones(weight.shape[1], dtype=torch.bool)
        if name in ("w_rec", "w_out"):
            stays[[1, 4]] = False
        assert torch.equal(cut.weights[name][:, stays], weight[:, stays])
    columns = {n: w.clone() for n, w in cut.weights.items()}
    for name in ("w_in", "w_rule", "w_rec", "b"):  # whatever reaches the unit must not matter any more
        columns[name][:, :, [1, 4]] += 1.0
    np.testing.assert_allclose(cut(x)[0], cut.with_weights(columns)(x)[0], rtol=1e-12)
    assert not torch.allclose(network(x)[0], cut(x)[0])


def test_each_network_may_have_lesions_of_its_own():
    network = small()
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[0, 2] = mask[1, 5] = True
    cut = network.lesion(mask)
    assert not cut.weights["w_out"][0, 2].any()
    assert not cut.weights["w_out"][1, 5].any()
    assert torch.equal(cut.weights["w_out"][0, 5], network.weights["w_out"][0, 5])
    assert network.weights["w_out"][0, 2].all()  # the network itself is unchanged


# ---- invalid arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_rnn": 0}, r"network.n_rnn = 0: must be a whole number >= 1"),
        ({"n_rnn": 64.0}, r"network.n_rnn = 64.0: must be a whole number >= 1"),
        ({"n_rnn": True}, r"network.n_rnn = True: must be a whole number"),
        ({"activation": "reul"}, r"unknown network.activation 'reul': did you mean 'relu'\?"),
        ({"rnn_type": "RNNs"}, r"unknown network.rnn_type 'RNNs'.*LeakyRNN"),
        ({"w_rec_init": "orthogonal"}, r"unknown network.w_rec_init 'orthogonal'.*randortho"),
        ({"w_rec_scale": 0.0}, r"network.w_rec_scale = 0.0: must be a finite number > 0"),
        ({"dt": 0.0}, r"network.dt = 0.0: must be a finite number > 0"),
        ({"tau": "100"}, r"network.tau = '100': must be a finite number > 0"),
        ({"dt": 200.0}, r"network.dt = 200.0 ms: must not exceed tau = 100.0 ms; lower dt or raise tau"),
        ({"sigma_rec": -0.1}, r"network.sigma_rec = -0.1: must be a finite number >= 0"),
        ({"sigma_rec": math.nan}, r"network.sigma_rec = nan"),
        ({"n_rule": 85}, r"network.n_rule = 85: must be below n_input = 85"),
        ({"n_output": 0}, r"network.n_output = 0: must be a whole number >= 1"),
        ({"mix_rule": True}, r"network.mix_rule = True: requires use_separate_input = True"),
        (
            {"use_separate_input": True, "rnn_type": "LeakyGRU"},
            r"use_separate_input = True: available only for LeakyRNN",
        ),
    ],
)
def test_parameters_that_cannot_be_are_refused(changes, message):
    with pytest.raises(MultitaskError, match=message):
        NetworkParameters(**changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_networks": 0}, r"n_networks = 0: must be a whole number >= 1"),
        ({"seed": -1}, r"seed = -1: must be a whole number >= 0"),
        ({"device": "gpu"}, r"device 'gpu' is not a device: use 'cpu', 'cuda' or 'cuda:1'"),
    ],
)
def test_ensembles_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(MultitaskError, match=message):
        LeakyRNN(NetworkParameters(n_rnn=4), **arguments)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(MultitaskError, match=r"device 'cuda' was requested, but .*0 CUDA"):
        LeakyRNN(NetworkParameters(n_rnn=4), device="cuda")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 85), r"inputs have shape \(3, 85\): must be \(n_trials, n_times, 85\)"),
        ((3, 10, 84), r"inputs have shape \(3, 10, 84\)"),
        ((0, 10, 85), r"inputs have shape \(0, 10, 85\)"),
        ((3, 0, 85), r"inputs have shape \(3, 0, 85\)"),
        ((3, 4, 10, 85), r"inputs have 3 batches for 2 networks: give one batch, or one for each"),
    ],
)
def test_inputs_of_another_shape_are_refused(shape, message):
    with pytest.raises(MultitaskError, match=message):
        small()(torch.zeros(shape))


def test_lesions_of_units_that_are_not_there_are_refused():
    with pytest.raises(MultitaskError, match="unit 6 does not exist: units are numbered 0 to 5"):
        small().lesion([2, 6])
    with pytest.raises(MultitaskError, match=r"mask of shape \(6,\): must be \(2, 6\)"):
        small().lesion(torch.ones(6, dtype=torch.bool))


def test_the_class_must_fit_the_parameters():
    with pytest.raises(MultitaskError, match="'LeakyGRU' is not 'LeakyRNN': use make_network"):
        LeakyRNN(NetworkParameters(rnn_type="LeakyGRU"))
