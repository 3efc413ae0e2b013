"""Costs of activity and weights, and intelligent synapses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from multitask.network import LeakyRNN
from multitask.training import (
    Penalty,
    Synapses,
    TrainingParameters,
)
from tests.multitask.training.short_runs import TINY, assert_close, short


def penalty_of(network: LeakyRNN, hidden: Tensor, moved: LeakyRNN | None = None, **costs: float) -> Tensor:
    """Penalty with some costs, after the weights moved to those of another ensemble."""
    network = network.with_weights({name: weight.clone() for name, weight in network.weights.items()})
    penalty = Penalty(network, TrainingParameters(**costs), torch.Generator().manual_seed(0))
    if moved is not None:
        for name, weight in network.weights.items():
            weight.copy_(moved.weights[name])
    return penalty(hidden)


def test_costs_of_activity_and_weights_are_those_of_the_paper(generator):
    before, after = (LeakyRNN(TINY, 2, seed).to(torch.float64) for seed in (0, 1))
    after.weights["b"] += 7.0  # biases cost nothing
    hidden = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    h = hidden.numpy()
    stacked, w_out = (
        [np.concatenate([x.weights["w_in"], x.weights["w_rule"], x.weights["w_rec"]], 1), x.weights["w_out"].numpy()]
        for x in (after, before)
    )
    each, weights, starts = (1, 2), stacked, w_out
    expected = {
        "l1_h": abs(h).mean((1, 2, 3)),
        "l2_h": 0.5 * (h**2).sum((1, 2, 3)),
        "l1_weight": sum(abs(w).mean(each) for w in weights),
        "l2_weight": sum(0.5 * (w**2).sum(each) for w in weights),
        "l2_weight_init": sum(0.5 * ((w - s) ** 2).sum(each) for w, s in zip(weights, starts, strict=True)),
    }
    for name, cost in expected.items():
        np.testing.assert_allclose(penalty_of(before, hidden, after, **{name: 0.3}), 0.3 * cost, rtol=1e-12)
    together = penalty_of(before, hidden, after, **dict.fromkeys(expected, 0.3))
    np.testing.assert_allclose(together, 0.3 * sum(expected.values()), rtol=1e-12)
    assert not penalty_of(before, hidden, after).any()


def test_a_fraction_of_the_weights_is_kept_near_the_start():
    before = LeakyRNN(replace(TINY, n_rnn=40), 1)
    after = before.with_weights({name: weight + 1.0 for name, weight in before.weights.items()})
    hidden = torch.zeros(1, 1, 1, 40)
    n_weights = (85 + 40) * 40 + 40 * 33
    held = penalty_of(before, hidden, after, p_weight_train=0.2) / (0.5 * 0.1**2)  # each weight moved by 1
    assert held.item() == pytest.approx(0.8 * n_weights, rel=0.03)  # binomial: 0.6 % standard deviation
    nearly_all = penalty_of(before, hidden, after, p_weight_train=0.999999)
    assert nearly_all < 0.011  # at most two weights of 6320 held


def test_synapses_credit_and_hold_parameters_as_in_the_paper():
    weights = {"w": torch.tensor([[[1.0, 2.0]]], requires_grad=True)}
    synapses = Synapses(weights, TrainingParameters(c_intsyn=2.0, ksi_intsyn=0.01))
    assert synapses.cost().item() == 0
    for change, gradient in (([0.1, 0.2], [-3.0, 1.0]), ([0.1, -0.1], [-1.0, 1.0])):
        before = synapses.snapshot()
        with torch.no_grad():
            weights["w"] += torch.tensor([[change]])
        synapses.follow(before, [torch.tensor([[gradient]])])
    assert_close(synapses.state["omega"]["w"], torch.tensor([[[0.4, -0.1]]]), atol=1e-6)
    synapses.consolidate()
    importance = torch.tensor([[[0.4 / (0.2**2 + 0.01), 0.0]]])  # the second one increased the loss: no importance
    assert_close(synapses.state["importance"]["w"], importance)
    assert not synapses.state["omega"]["w"].any()
    assert synapses.cost().item() == 0  # at the new anchor
    with torch.no_grad():
        weights["w"] += torch.tensor([[[0.3, 5.0]]])
    cost = synapses.cost()
    assert_close(cost, 2.0 * importance[:, 0, 0] * 0.3**2)
    (gradient,) = torch.autograd.grad(cost.sum(), weights["w"])
    assert_close(gradient, 2 * 2.0 * importance * torch.tensor([0.3, 5.0]))


def test_intelligent_synapses_act_only_after_the_first_group(tmp_path):
    runs = {
        c: short(tmp_path / f"{c}", [["fdgo"], ["dm1"]], n_steps=12, evaluate_every=12, c_intsyn=c, ksi_intsyn=0.01)
        for c in (0.0, 1e-9, 100.0)
    }
    for run in runs.values():
        assert all(torch.equal(w, runs[0.0].load(12).weights[name]) for name, w in run.load(12).weights.items())
    moved = {
        c: sum((run.network.weights[n] - w).square().sum() for n, w in run.load(12).weights.items()).item()
        for c, run in runs.items()
    }
    assert moved[1e-9] == pytest.approx(moved[0.0], rel=1e-2)
    assert moved[100.0] < 0.7 * moved[0.0]
