"""Leaky networks as ordinary torch modules, and from arrays that were trained elsewhere."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from multitask import LeakyRNN, MultitaskError, NetworkParameters, generate_trials, make_network
from multitask.scan import ACTIVATIONS

SMALL: dict[str, Any] = {"n_rnn": 12, "sigma_rec": 0.05, "dt": 50}


def arrays(network: LeakyRNN) -> dict[str, np.ndarray]:
    weights = {name: weight[0].numpy() for name, weight in network.weights.items()}
    w_in = np.concatenate([weights["w_in"], weights["w_rule"]])
    return {"w_in": w_in, "w_rec": weights["w_rec"], "b": weights["b"][0]} | {
        "w_out": weights["w_out"], "b_out": weights["b_out"][0],
    }  # fmt: skip


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("separate", [{}, {"use_separate_input": True, "mix_rule": True}])
def test_plain_module_has_the_outputs_and_states_of_the_network(activation, separate):
    network = LeakyRNN(NetworkParameters(activation=activation, **SMALL, **separate), seed=3)
    inputs = generate_trials("dm1", 6, seed=0).inputs
    outputs, hidden = network(inputs)
    plain_outputs, plain_hidden = network.to_torch()(inputs)
    torch.testing.assert_close(plain_outputs, outputs[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(plain_hidden, hidden[0], rtol=1e-5, atol=1e-6)


def test_plain_module_is_trained_like_any_other():
    module = LeakyRNN(NetworkParameters(**SMALL)).to_torch()
    batch = generate_trials("fdgo", 16, seed=0, dt=50)
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = (batch.cost_mask * (module(batch.inputs)[0] - batch.targets)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert set(module.state_dict()) == {"w_in", "w_rec", "b", "w_out", "b_out"}


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_network_from_its_own_arrays_is_the_same(activation, tmp_path):
    network = LeakyRNN(NetworkParameters(activation=activation, **SMALL), seed=1)
    np.savez(tmp_path / "weights.npz", **arrays(network))
    again = LeakyRNN.from_arrays(
        **np.load(tmp_path / "weights.npz"), dt=50, activation=activation, n_rule=network.parameters.n_rule
    )
    for name, weight in network.weights.items():
        assert torch.equal(again.weights[name], weight)
    inputs = generate_trials("fdgo", 4, seed=0, dt=50).inputs
    assert torch.equal(again(inputs)[0], network(inputs)[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"w_rec": np.zeros((12, 11))}, "w_rec has shape (12, 11): must be (12, 12)"),
        ({"b": np.zeros(3)}, "b has shape (3,): must be (12,)"),
        ({"w_out": np.zeros((33, 12))}, "w_out has shape (33, 12): must be (12, 12)"),
        ({"w_in": np.zeros(12)}, "weights are not matrices: w_in (12,)"),
        ({"w_rec": np.full((12, 12), np.nan)}, "w_rec has values that are not finite"),
        ({"n_rule": 85}, "n_rule = 85: must be from 0 to 84"),
        ({"activation": "gelu"}, "network.activation"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed, message):
    network = LeakyRNN(NetworkParameters(**SMALL))
    with pytest.raises(MultitaskError, match=re.escape(message)):
        LeakyRNN.from_arrays(**{**arrays(network), "n_rule": 20} | changed)


def test_ensembles_and_other_cells_have_no_plain_module():
    with pytest.raises(MultitaskError, match=r"2 networks: choose one by subset\(\[k\]\) first"):
        LeakyRNN(NetworkParameters(**SMALL), 2).to_torch()
    with pytest.raises(MultitaskError, match="a LeakyGRU has no plain module"):
        make_network(NetworkParameters(rnn_type="LeakyGRU", **SMALL)).to_torch()
