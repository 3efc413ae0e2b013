"""Batches of trials: targets and cost mask, rule inputs, randomness, invalid arguments, run time."""

import math
import random
import time

import numpy as np
import pytest
import torch

from multitask.tasks import (
    RULES,
    TASKS,
    generate_trials,
)
from multitask.trials import MultitaskError
from tests.multitask.tasks.families import FAMILY


@pytest.mark.parametrize("mode", ["random", "test"])
@pytest.mark.parametrize("rule", RULES)
def test_cue_targets_and_mask_follow_the_go_event(rule, mode):
    batch = generate_trials(rule, 8, mode=mode, noise=0, seed=5)
    go = batch.periods["go1"][0]
    stays = batch.response.isnan()
    cue = batch.inputs[..., 0]
    assert cue[:, :go].eq(1).all()
    assert cue[:, go:].eq(float(FAMILY[rule] in ("react", "dms", "dmc"))).all()
    fixation = batch.targets[..., 0]
    assert fixation[:, :go].eq(0.8).all()
    assert fixation[~stays, go:].eq(0.05).all()
    assert fixation[stays].eq(0.8).all()
    assert batch.targets[:, :go, 1:].eq(0.05).all()
    assert batch.targets[stays, :, 1:].eq(0.05).all()
    assert set(batch.cost_mask[..., 1:].unique().tolist()) == {0, 1, 5}
    assert set(batch.cost_mask[..., 0].unique().tolist()) == {0, 2, 10}
    assert batch.cost_mask[..., 0].eq(0).sum(1).eq(10).all()  # 100 ms at the start, 100 ms after the go event


@pytest.mark.parametrize("rule", RULES)
def test_cross_entropy_asks_for_one_unit_near_the_response(rule):
    lsq = generate_trials(rule, 16, seed=2)
    batch = generate_trials(rule, 16, seed=2, loss="cross_entropy")
    assert batch.inputs.equal(lsq.inputs)
    assert batch.targets.sum(-1).eq(1).all()
    assert batch.cost_mask.shape == batch.targets.shape[:2]
    stays = batch.response.isnan()
    last = batch.targets[:, -1].argmax(-1)
    assert last[stays].eq(0).all()
    unit = (last[~stays] - 1) * 2 * math.pi / 32
    assert (
        torch.angle(torch.exp(1j * (unit - batch.response[~stays]))).abs().max() <= math.pi / 32 + 1e-6
    )  # half a spacing


def test_rule_input_can_be_weaker_replaced_or_composed():
    def units(rule_input):
        return generate_trials("delayanti", 2, noise=0, seed=0, rule_input=rule_input).inputs[0, 0, 65:]

    assert units({"delayanti": 0.5})[5] == 0.5
    assert units({"fdgo": 1.0}).nonzero().flatten().tolist() == [0]
    composed = units({"fdanti": 1.0, "delaygo": 1.0, "fdgo": -1.0})
    assert composed[[0, 2, 3, 5]].tolist() == [-1, 1, 1, 0]
    assert units({}).eq(0).all()
    default = generate_trials("delayanti", 2, seed=0)
    replaced = generate_trials("delayanti", 2, seed=0, rule_input={"fdgo": 1.0})
    assert default.inputs[..., :65].equal(replaced.inputs[..., :65])  # nothing else changes


# ---- randomness ------------------------------------------------------------------------------------------------------


def tensors(batch) -> list[torch.Tensor]:
    return [batch.inputs, batch.targets, batch.cost_mask, batch.response.nan_to_num(-1), *batch.conditions.values()]


@pytest.mark.parametrize("mode", ["random", "test"])
@pytest.mark.parametrize("rule", RULES)
def test_same_seed_gives_the_same_batch_bit_for_bit(rule, mode):
    first, second, other = (generate_trials(rule, 4, mode=mode, seed=s) for s in (7, 7, 8))
    assert first.periods == second.periods
    assert all(a.equal(b) for a, b in zip(tensors(first), tensors(second), strict=True))
    assert first.inputs.shape != other.inputs.shape or not first.inputs.equal(other.inputs)


def test_a_generator_is_drawn_from_and_equals_its_seed(generator):
    first, second = (generate_trials("dm1", 4, generator=generator) for _ in range(2))
    assert first.inputs.equal(generate_trials("dm1", 4, seed=0).inputs)
    assert first.inputs.shape != second.inputs.shape or not first.inputs.equal(second.inputs)


def test_global_random_states_stay_untouched():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    for rule in TASKS:
        generate_trials(rule, 4, seed=0)
    assert torch.get_rng_state().equal(before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


@pytest.mark.parametrize(("dt", "tau"), [(20, 100), (50, 100), (10, 20), (20, 20)])
def test_noise_scales_with_the_step(dt, tau):
    noisy, clean = (generate_trials("delaygo", 60, dt=dt, tau=tau, noise=s, seed=4) for s in (0.01, 0.0))
    deviation = (noisy.inputs - clean.inputs).std().item()
    n = clean.inputs.numel()
    expected = 0.01 * math.sqrt(2 * tau / dt)
    assert deviation == pytest.approx(expected, rel=6 / math.sqrt(2 * n))  # six standard errors
    if (dt, tau) == (20, 100):
        assert expected == pytest.approx(0.0316228, abs=5e-8)


@pytest.mark.parametrize("rule", ["fdgo", "reactanti", "delaygo", "dmsgo", "dmcnogo"])
def test_rules_without_coherence_do_not_become_easier(rule):
    standard, easy = (generate_trials(rule, 4, seed=0, easiness=e) for e in (0.0, 1.0))
    assert standard.inputs.equal(easy.inputs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_conditions_are_the_same_on_every_device():
    here, there = (generate_trials("contextdm1", 8, noise=0, seed=0, device=d) for d in ("cpu", "cuda"))
    assert there.inputs.device.type == there.targets.device.type == there.cost_mask.device.type == "cuda"
    assert here.inputs.equal(there.inputs.cpu())
    noisy = [generate_trials("contextdm1", 8, seed=0, device="cuda").inputs for _ in range(2)]
    assert noisy[0].equal(noisy[1])


# ---- invalid arguments -----------------------------------------------------------------------------------------------

BAD = [
    ({"rule": "dm_1"}, r"unknown rule 'dm_1': did you mean 'dm1'\?"),
    ({"rule": "nonsense"}, r"unknown rule 'nonsense': choose from fdgo, reactgo"),
    ({"n_trials": 0}, r"n_trials in random mode = 0: must be a whole number >= 1"),
    ({"n_trials": None}, r"n_trials in random mode = None: must be"),
    ({"n_trials": 2.5}, r"n_trials in random mode = 2.5: must be"),
    ({"dt": 120.0}, r"dt = 120 ms and tau = 100 ms are invalid"),
    ({"dt": 0.0}, r"dt = 0 ms"),
    ({"dt": math.nan}, r"dt = nan ms"),
    ({"noise": -0.1}, r"noise = -0.1: must be a finite number >= 0"),
    ({"noise": math.nan}, r"noise = nan: must be a finite number >= 0"),
    ({"seed": -1}, r"seed = -1: must be a whole number >= 0"),
    ({"seed": None}, r"give exactly one of seed and generator, got neither"),
    ({"generator": torch.Generator()}, r"give exactly one of seed and generator, got both"),
    ({"mode": "tset"}, r"unknown mode 'tset': did you mean 'test'\?"),
    (
        {"mode": "psychometric"},
        r"psychometric trials of 'dm1' need the conditions direction1, direction2, strength1, strength2, stim_time",
    ),
    ({"conditions": {"direction": [1.0]}}, r"conditions can only be given in mode='psychometric', not in 'random'"),
    ({"loss": "crossentropy"}, r"unknown loss 'crossentropy': did you mean 'cross_entropy'\?"),
    ({"easiness": 1.5}, r"easiness = 1.5: must be a number in \[0, 1\]"),
    ({"easiness": 1.0, "mode": "test"}, r"easiness = 1 has no effect in mode 'test'"),
    ({"rule_input": {"dm9": 1.0}}, r"unknown rule 'dm9': did you mean 'dm"),
    ({"rule": "oic", "rule_input": {"fdgo": 1.0}}, r"unknown rule 'fdgo': choose from oic, dmc"),
    ({"dt": 250.0, "tau": 500.0, "rule": "delaydm1", "seed": 1}, r"period '\w+' has no time step"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_arguments_are_refused_with_what_came(arguments, message):
    arguments = {"rule": "dm1", "n_trials": 4, "seed": 0} | arguments
    with pytest.raises(MultitaskError, match=message):
        generate_trials(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(MultitaskError, match=r"device 'cuda' was requested, but this machine has 0 CUDA devices"):
        generate_trials("dm1", 4, seed=0, device="cuda")


# ---- time ------------------------------------------------------------------------------------------------------------


def test_making_a_batch_costs_little_beside_a_training_step():
    weights = [torch.randn(n, 128, requires_grad=True) for n in (85, 128)] + [torch.randn(128, 33, requires_grad=True)]

    def step() -> None:
        """Forward and backward through the recurrence of one network of 128 units, as a plain loop."""
        h = torch.zeros(64, 128)
        loss = 0.0
        for x in inputs:
            h = 0.8 * h + 0.2 * torch.relu(x @ weights[0] + 0.01 * h @ weights[1])
            loss = loss + torch.sigmoid(h @ weights[2]).square().mean()
        loss.backward()

    def seconds(work) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    inputs = torch.randn(98, 64, 85)  # 98 steps: the mean over the rules
    step()
    batches = min(seconds(lambda: [generate_trials(rule, 64, seed=0) for rule in RULES]) / len(RULES) for _ in range(3))
    assert batches < 0.1 * 4 * min(seconds(step) for _ in range(3))  # four networks share a batch
