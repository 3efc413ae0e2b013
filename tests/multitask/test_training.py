"""Training: loss and costs by hand, the update, every option, resume after kills, and all that is refused."""

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.optim.adam import adam

from multitask import storage, training
from multitask.evaluation import evaluate
from multitask.network import WEIGHT_GROUPS, LeakyRNN, NetworkParameters, make_network
from multitask.tasks import RULES, generate_trials
from multitask.training import (
    Adam,
    Penalty,
    Run,
    SquaredError,
    Synapses,
    TrainingParameters,
    clipped,
    gradient_norms,
    load_run,
    task_loss,
    train,
)
from multitask.trials import MultitaskError, TrialBatch

FORK = multiprocessing.get_context("fork")  # children that start at once, with torch loaded
TINY = NetworkParameters(n_rnn=6, activation="relu", dt=100.0)
SHORT = TrainingParameters(n_steps=8, batch_size=4, evaluate_every=3, n_test_batches=1, test_batch_size=4)


def short(folder, rules=("fdgo", "dm1"), network: NetworkParameters = TINY, n_networks: int = 2, **changes) -> Run:
    """A run of a few steps; ``changes`` are arguments of `train` or parameters of the training."""
    arguments = {name: changes.pop(name) for name in ("seed", "start", "device") if name in changes}
    return train(
        rules,
        network,
        replace(SHORT, **changes),
        n_networks=n_networks,
        run_folder=folder,
        progress=False,
        **arguments,
    )


def assert_close(ours: Tensor, theirs: Tensor, rtol: float = 1e-5, atol: float = 0.0) -> None:
    """Equal up to a few roundings of float32."""
    np.testing.assert_allclose(ours.detach(), theirs.detach(), rtol=rtol, atol=atol)


def numbers(log: pd.DataFrame) -> pd.DataFrame:
    """A log without the one column that tells of the machine."""
    return log.drop(columns="cpu_seconds")


def assert_same(a: Run, b: Run) -> None:
    """Bit-equal weights at all checkpoints, and equal logs."""
    assert a.checkpoints == b.checkpoints
    assert a.finished == b.finished
    for step in a.checkpoints:
        ours, theirs = (storage.RunFolder(run.folder).load(step) for run in (a, b))
        assert ours.tensors.keys() == theirs.tensors.keys()
        assert all(torch.equal(tensor, theirs.tensors[name]) for name, tensor in ours.tensors.items())
    pd.testing.assert_frame_equal(numbers(a.log), numbers(b.log), check_exact=True)


@pytest.fixture
def batches(monkeypatch) -> list[TrialBatch]:
    """All batches that training makes, in order."""
    made: list[TrialBatch] = []

    def generate(*args, **kwargs):
        made.append(generate_trials(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(training, "generate_trials", generate)
    return made


# ---- loss and costs --------------------------------------------------------------------------------------------------


@pytest.fixture
def batch() -> TrialBatch:
    return generate_trials("dmsgo", 5, dt=50.0, seed=3)


def test_squared_error_is_the_mean_of_the_masked_residuals_squared(batch, generator):
    logits = torch.randn(3, batch.n_trials, batch.n_times, 33, generator=generator)
    y = 1 / (1 + np.exp(-logits.double().numpy()))
    residual = batch.cost_mask.numpy() * (y - batch.targets.numpy())
    np.testing.assert_allclose(task_loss(logits, batch, "lsq"), (residual**2).mean((1, 2, 3)), rtol=1e-5)  # float32


def test_gradient_of_the_squared_error_is_that_of_autograd(generator):
    logits = torch.randn(2, 3, 4, 33, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(3, 4, 33, generator=generator, dtype=torch.float64)
    mask = 5 * torch.rand(3, 4, 33, generator=generator, dtype=torch.float64)
    weight = torch.tensor([1.0, -3.0], dtype=torch.float64)  # what each network's loss is multiplied by
    plain = (mask * (torch.sigmoid(logits) - targets)).square().mean((1, 2, 3))
    (ours,), (theirs,) = (
        torch.autograd.grad(loss @ weight, logits) for loss in (SquaredError.apply(logits, targets, mask), plain)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_cross_entropy_is_the_masked_surprise_at_the_right_unit(generator):
    batch = generate_trials("dmsgo", 5, dt=50.0, seed=3, loss="cross_entropy")
    logits = torch.randn(3, batch.n_trials, batch.n_times, 33, generator=generator)
    right = batch.targets.argmax(-1)  # (trial, time)
    for i, loss in enumerate(task_loss(logits, batch, "cross_entropy")):
        surprise = torch.nn.functional.cross_entropy(logits[i].flatten(0, 1), right.flatten(), reduction="none")
        assert_close(loss, (batch.cost_mask.flatten() * surprise).mean())


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


def test_a_share_of_the_weights_is_held_softly():
    before = LeakyRNN(replace(TINY, n_rnn=40), 1)
    after = before.with_weights({name: weight + 1.0 for name, weight in before.weights.items()})
    hidden = torch.zeros(1, 1, 1, 40)
    n_weights = (85 + 40) * 40 + 40 * 33
    held = penalty_of(before, hidden, after, p_weight_train=0.2) / (0.5 * 0.1**2)  # each weight moved by 1
    assert held.item() == pytest.approx(0.8 * n_weights, rel=0.03)  # binomial: 0.6 % standard deviation
    nearly_all = penalty_of(before, hidden, after, p_weight_train=0.999999)
    assert nearly_all < 0.011  # at most two weights of 6320 held


# ---- the update ------------------------------------------------------------------------------------------------------


def test_adam_is_that_of_torch(generator):
    shapes = {"w": (2, 5, 3), "b": (2, 1, 3)}
    ours = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    theirs, optimiser = [weight.clone() for weight in ours.values()], Adam(ours)
    means, squares = ([torch.zeros_like(weight) for weight in theirs] for _ in range(2))
    steps = [torch.zeros(()) for _ in theirs]
    for step in range(20):
        gradients = [torch.randn(weight.shape, generator=generator, dtype=torch.float64) for weight in theirs]
        settings = {"lr": 1e-3 * (1 + step), "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
        adam(theirs, gradients, means, squares, [], steps, amsgrad=False, maximize=False, **settings)
        optimiser.update(gradients, settings["lr"])
    for mine, other in zip(ours.values(), theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12)


def test_gradients_are_limited_by_entry_or_by_the_norm_of_each_network():
    gradients = [torch.tensor([[[3.0, -0.5]], [[0.3, 0.0]]]), torch.tensor([[[4.0]], [[0.4]]])]
    norms = gradient_norms(gradients)
    assert_close(norms, torch.tensor([math.sqrt(25.25), 0.5]))
    by_value = clipped(gradients, norms, TrainingParameters(clip="value", clip_at=0.4))
    assert_close(by_value[0], torch.tensor([[[0.4, -0.4]], [[0.3, 0.0]]]))
    by_norm = clipped(gradients, norms, TrainingParameters(clip="norm", clip_at=1.0))
    assert_close(gradient_norms(by_norm), torch.tensor([1.0, 0.5]))
    assert_close(by_norm[1][0] / by_norm[0][0, 0, 0], torch.tensor([[4 / 3]]))  # the direction stays
    assert clipped(gradients, norms, TrainingParameters(clip="none")) is gradients
    still = [torch.zeros(1, 1, 2)]
    assert not clipped(still, gradient_norms(still), TrainingParameters(clip="norm"))[0].any()


def test_learning_rate_rises_over_the_warm_up_and_falls_along_a_cosine():
    p = TrainingParameters(learning_rate=0.2, schedule="cosine", warm_up=0.1)
    rates = [p.rate(step, 100) for step in range(101)]
    np.testing.assert_allclose(rates[:10], 0.2 * np.arange(1, 11) / 10)
    assert rates[10] == pytest.approx(0.2)
    assert rates[55] == pytest.approx(0.2 * (1 + 0.05) / 2)  # half-way between the top and 5 %
    assert rates[100] == pytest.approx(0.2 * 0.05)
    assert all(np.diff(rates[10:]) < 0)
    assert TrainingParameters().rate(0, 10) == TrainingParameters().rate(9, 10) == 1e-3


def test_trials_get_as_hard_as_asked_at_half_time():
    assert [TrainingParameters(difficulty="easy").easiness(x) for x in (0, 0.5, 1)] == [1, 1, 1]
    assert [TrainingParameters().easiness(x) for x in (0, 1)] == [0, 0]
    falling = [TrainingParameters(difficulty="easy_to_standard").easiness(x) for x in (0, 0.25, 0.5, 1)]
    assert falling == [1, 0.5, 0, 0]


def test_the_first_step_is_the_formula(tmp_path, batches):
    """One step without noise, from the equations alone: the loop over time, autograd, Adam from rest."""
    network = replace(TINY, sigma_rec=0.0, activation="softplus")
    start = LeakyRNN(network, 2, seed=5)
    run = short(
        tmp_path, ["delaygo"], network, start=start, n_steps=1, sigma_x=0.0, l2_h=1e-3, clip="value", clip_at=0.01
    )
    batch = batches[1]  # after the evaluation at step 0
    assert (batch.rule, batch.n_trials) == ("delaygo", 4)
    for i in range(2):
        w = {name: weight[i].double().requires_grad_() for name, weight in start.weights.items()}
        w_in = torch.cat([w["w_in"], w["w_rule"]])
        h, states = torch.zeros(4, 6, dtype=torch.float64), []
        for x in batch.inputs.double().unbind(1):
            h = torch.nn.functional.softplus(x @ w_in + h @ w["w_rec"] + w["b"])  # alpha = 1
            states.append(h)
        hidden = torch.stack(states, 1)
        outputs = torch.sigmoid(hidden @ w["w_out"] + w["b_out"])
        loss = (batch.cost_mask * (outputs - batch.targets)).square().mean() + 1e-3 / 2 * hidden.square().sum()
        for (name, weight), gradient in zip(w.items(), torch.autograd.grad(loss, list(w.values())), strict=True):
            gradient = gradient.clamp(-0.01, 0.01)
            expected = weight - 1e-3 * gradient / (gradient.abs() + 1e-8)
            sure = gradient.abs() > 1e-5  # below it the step depends on the rounding of float32
            moved = run.network.weights[name][i].double()
            np.testing.assert_allclose(moved[sure], expected[sure].detach(), rtol=1e-5, atol=2e-6)
            assert sure.any()  # the other rules are silent: their gradient is 0
            assert_close(moved[gradient == 0], weight[gradient == 0].detach())


def test_networks_of_an_ensemble_learn_as_if_alone(tmp_path):
    network = replace(TINY, sigma_rec=0.0)
    settings = {"clip": "norm", "clip_at": 0.1, "l1_weight": 0.1, "p_weight_train": None}
    together = short(tmp_path / "both", network=network, **settings).network
    start = make_network(network, 2)
    for i in range(2):
        alone = short(tmp_path / f"{i}", network=network, n_networks=1, start=start.subset([i]), **settings).network
        for name, weight in alone.weights.items():  # float32, and sums in another order
            assert_close(weight[0], together.weights[name][i], atol=1e-5, rtol=1e-4)


def test_every_step_shows_one_rule_to_all_networks_as_often_as_its_weight(tmp_path, batches):
    rules = ("fdgo", "reactgo", "dm1")
    short(tmp_path, rules, n_steps=150, evaluate_every=150, batch_size=1, rule_weights={"dm1": 8.0})
    steps = [batch for batch in batches if batch.n_trials == 1]
    assert len(steps) == 150
    counts = {rule: sum(batch.rule == rule for batch in steps) for rule in rules}
    assert counts["dm1"] == pytest.approx(120, abs=3 * math.sqrt(150 * 0.8 * 0.2))  # 3 standard deviations
    assert min(counts.values()) > 0


def test_batches_follow_the_settings(tmp_path, batches):
    network = replace(TINY, dt=50.0)
    short(tmp_path, ["dm1"], network, difficulty="easy_to_standard", sigma_x=0.0, loss_type="cross_entropy")
    assert {batch.dt for batch in batches} == {50.0}
    assert {batch.cost_mask.dim() for batch in batches} == {2}
    assert set(batches[1].inputs[:, 0, 1:33].unique().tolist()) == {0.0}  # no noise
    coherences = [batch.conditions["coherence"].abs() for batch in batches]
    assert coherences[0].max() <= 0.08 + 1e-9  # evaluation: as at the end
    assert coherences[1].min() >= 0.1 - 1e-9  # first step: ten times 0.01 at least
    assert coherences[-1].max() <= 0.08 + 1e-9


# ---- what is trained -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", WEIGHT_GROUPS)
def test_frozen_weights_stay_bit_equal_and_all_others_move(tmp_path, group):
    network = replace(TINY, use_separate_input=True, mix_rule=True)
    start = make_network(network, 2)
    run = short(tmp_path, network=network, frozen=(group,), l2_weight=0.1)
    for name, weight in run.network.weights.items():
        fixed = name == "mixing" or name in WEIGHT_GROUPS[group]
        assert torch.equal(weight, start.weights[name]) == fixed, name
        assert not weight.requires_grad


@pytest.mark.parametrize(
    ("network", "changes", "costs"),
    [
        ({"rnn_type": "LeakyGRU", "activation": "tanh"}, {}, False),
        ({"rnn_type": "LeakyGRU", "activation": "tanh"}, {"frozen": ("recurrent",), "l1_weight": 0.1}, True),
        ({"w_rec_init": "randortho"}, {"loss_type": "cross_entropy"}, False),
        ({"activation": "power"}, {"l1_h": 0.1, "l2_h": 0.01, "p_weight_train": 0.5}, True),
        ({"n_input": 99, "n_rule": 2}, {"rules": ("oic", "dmc")}, False),
    ],
)
def test_every_kind_of_network_trains_and_resumes(tmp_path, network, changes, costs):
    changes = {"rules": ("fdgo", "dm1")} | changes
    whole = short(tmp_path / "whole", network=replace(TINY, **network), **changes)
    assert whole.log["loss"].notna().all()
    assert whole.log["penalty"].any() == costs
    interrupted(tmp_path / "cut", 5, network=replace(TINY, **network), **changes)
    assert_same(short(tmp_path / "cut", network=replace(TINY, **network), **changes), whole)


def test_a_run_may_start_from_a_stored_network(tmp_path):
    first = short(tmp_path / "first", ("fdgo",))
    weights = {name: weight.clone() for name, weight in first.network.weights.items()}
    second = short(tmp_path / "second", ("delaygo",), start=first.network)
    assert all(torch.equal(second.load(0).weights[name], weight) for name, weight in weights.items())
    assert all(torch.equal(first.network.weights[name], weight) for name, weight in weights.items())
    assert not torch.equal(second.network.weights["w_rec"], weights["w_rec"])
    assert second.settings["start"] == storage.tensors_sha256(weights)
    with pytest.raises(MultitaskError, match="differs in start: '"):
        short(tmp_path / "second", ("delaygo",), start=second.network)


# ---- one group of rules after the other ------------------------------------------------------------------------------


def test_groups_are_learnt_in_turn_for_as_many_steps_as_they_have_rules(tmp_path, batches):
    run = short(tmp_path, [["fdgo"], ["dm1", "dm2"]], n_steps=4, evaluate_every=100)
    learnt = [batch.rule for batch in batches]
    assert learnt[3:7] == ["fdgo"] * 4  # after the three rules of the evaluation at step 0
    assert len(batches) == 3 * 3 + 4 + 8  # evaluations at 0, 4, 12 and the steps
    assert set(learnt[10:18]) <= {"dm1", "dm2"}
    assert sorted(set(run.log["step"])) == [0, 4, 12]
    assert set(run.log["rule"]) == {"fdgo", "dm1", "dm2"}
    assert {0, 4, 12} <= set(run.checkpoints)
    assert run.settings["rules"] == [["fdgo"], ["dm1", "dm2"]]


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
    importance = torch.tensor([[[0.4 / (0.2**2 + 0.01), 0.0]]])  # harm done by the second is no importance
    assert_close(synapses.state["importance"]["w"], importance)
    assert not synapses.state["omega"]["w"].any()
    assert synapses.cost().item() == 0  # at the new anchor
    with torch.no_grad():
        weights["w"] += torch.tensor([[[0.3, 5.0]]])
    cost = synapses.cost()
    assert_close(cost, 2.0 * importance[:, 0, 0] * 0.3**2)
    (gradient,) = torch.autograd.grad(cost.sum(), weights["w"])
    assert_close(gradient, 2 * 2.0 * importance * torch.tensor([0.3, 5.0]))


def test_intelligent_synapses_change_nothing_at_first_and_hold_still_what_mattered_then(tmp_path):
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


# ---- evaluation and the end ------------------------------------------------------------------------------------------


def test_the_log_has_a_row_for_each_evaluation_rule_and_network(tmp_path):
    run = short(tmp_path)
    assert run.log.columns.tolist() == [
        *("step", "rule", "network", "loss", "penalty", "performance"),
        *("gradient_norm", "learning_rate", "cpu_seconds"),
    ]
    expected = [(step, rule, i) for step in (0, 3, 6, 8) for rule in ("fdgo", "dm1") for i in (0, 1)]
    assert list(run.log[["step", "rule", "network"]].itertuples(index=False, name=None)) == expected
    assert run.log["performance"].between(0, 1).all()
    assert run.log["cpu_seconds"].is_monotonic_increasing
    assert run.log["gradient_norm"].isna().tolist() == [True] * 4 + [False] * 12
    assert run.finished == "all steps"


def test_an_evaluation_is_that_of_evaluate_on_other_trials(tmp_path):
    run = short(tmp_path, ("fdgo",), replace(TINY, dt=50.0), n_steps=1, n_test_batches=8, test_batch_size=128)
    logged = run.log.query("step == 1")["performance"].to_numpy()
    elsewhere = evaluate(run.network, ["fdgo"], n_trials=1024, seed=1).performance[:, 0]
    np.testing.assert_allclose(logged, elsewhere, atol=0.09)  # 4 standard errors of 1024 trials in each


def test_training_stops_once_the_worst_rule_of_every_network_is_above_the_target(tmp_path, monkeypatch):
    evaluations = []

    def scores(outputs, batch):
        """The second network needs one evaluation more, in one of the rules."""
        evaluations.append(batch.rule)
        late = batch.rule == "dm1" and len(evaluations) <= 4
        return torch.tensor([[1.0, 1.0], [1.0, 0.0 if late else 1.0]])

    monkeypatch.setattr(training, "score_trials", scores)
    run = short(tmp_path, target_performance=0.9)
    assert run.finished == "target reached"
    assert run.log["step"].max() == run.checkpoints[-1] == 6
    assert short(tmp_path / "never", n_steps=3, target_performance=1.0).finished == "all steps"
    evaluations.clear()
    groups = short(tmp_path / "groups", [["fdgo"], ["dm1"]], target_performance=0.9)
    assert sorted(set(groups.log["step"])) == [0, 3, 6]  # the first group is above it at once, the second as before
    assert load_run(tmp_path / "groups").checkpoints[-1] == 6
    assert groups.finished == "target reached"


@pytest.mark.parametrize(
    ("steps", "kept"), [("geometric", (0, 1, 2, 4, 8, 9, 10)), ((3, 7), (0, 3, 7, 9, 10)), ((), (0, 9, 10))]
)
def test_checkpoints_are_kept_by_step(tmp_path, steps, kept):
    run = short(tmp_path, n_steps=10, checkpoint_steps=steps)
    assert run.checkpoints == kept  # those asked for, the first and the last two
    assert all(torch.equal(run.load(10).weights[name], weight) for name, weight in run.network.weights.items())
    assert not torch.equal(run.load(0).weights["w_rec"], run.network.weights["w_rec"])
    with pytest.raises(MultitaskError, match="holds no checkpoint of step 5"):
        run.load(5)


def test_the_progress_bar_shows_loss_and_worst_rule(tmp_path, capsys):
    train(["fdgo"], TINY, SHORT, run_folder=tmp_path)
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "loss" in shown
    assert "worst rule fdgo" in shown


def test_arguments_and_global_randomness_are_left_as_they_were(tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 (the state is what is tested)
    short(tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


# ---- the same again, and where it stopped ----------------------------------------------------------------------------


def interrupted(folder, step: int, **changes) -> None:
    """A run that Ctrl-C ends before a step."""

    def advance(self):
        if self.step == step:
            raise KeyboardInterrupt
        original(self)

    original = training._Trainer.advance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Trainer, "advance", advance)
        with pytest.raises(KeyboardInterrupt):
            short(folder, **changes)


def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path):
    runs = [short(tmp_path / f"{i}", seed=seed) for i, seed in enumerate((3, 3, 4))]
    assert_same(*runs[:2])
    assert not torch.equal(runs[0].network.weights["w_rec"], runs[2].network.weights["w_rec"])


def test_training_the_same_thing_again_reads_it(tmp_path, monkeypatch):
    run = short(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(training._Trainer, "advance", None)
    again = short(tmp_path)
    assert_same(run, again)
    assert_same(run, load_run(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("step", range(8))
def test_a_run_that_was_stopped_anywhere_ends_as_if_it_had_not(tmp_path, step):
    whole = short(tmp_path / "whole")
    interrupted(tmp_path / "cut", step)
    part = load_run(tmp_path / "cut")
    assert part.finished == ""
    assert part.log["step"].max() <= step
    assert_same(short(tmp_path / "cut"), whole)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path):
    whole = short(tmp_path / "whole")
    run = short(tmp_path / "bad")
    path = run.folder / "checkpoints" / "step_0000008.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="checkpoint step 8 in .* is damaged: .*; going back to the one before"):
        earlier = load_run(run.folder)
    assert earlier.checkpoints[-1] == earlier.log["step"].max() == 6
    with pytest.warns(UserWarning, match="step 8 .* is damaged"):
        again = short(run.folder)
    assert_same(again, whole)


KILLED = {
    "two rules": {"n_steps": 20, "clip": "norm"},
    "groups": {"rules": [["fdgo"], ["dm1"]], "n_steps": 10, "c_intsyn": 0.1, "ksi_intsyn": 0.01, "p_weight_train": 0.5},
}


def run_until_killed(folder, event: int, changes: dict) -> int:
    """Train in a child that kills itself (SIGKILL) at some event; its exit code.

    Events are updates of the weights, and all that storing does: half a file written, flushing, renaming, removing.
    """

    def child():
        left = event

        def mortal(function):
            def wrapper(*args, **kwargs):
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return wrapper

        def write(path, data):
            with path.with_name(path.name + ".tmp").open("wb") as half:
                half.write(data[: len(data) // 2])
            count()
            whole(path, data)

        count, whole = mortal(lambda: None), storage.write_atomically
        storage.write_atomically = write
        for owner, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (Adam, "update")):
            setattr(owner, name, mortal(getattr(owner, name)))
        short(folder, **changes)

    process = FORK.Process(target=child)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("kind", KILLED)
def test_a_run_killed_twenty_times_ends_as_if_it_had_not_been(tmp_path, kind):
    changes = KILLED[kind]
    whole = short(tmp_path / "whole", **changes)
    for event in range(1, 21):  # each life starts where the last one left off
        assert run_until_killed(tmp_path / "cut", event, changes) == -signal.SIGKILL
    assert load_run(tmp_path / "cut").finished == ""  # or else some life was not cut short
    again = short(tmp_path / "cut", **changes)
    assert_same(again, whole)
    assert not list(again.folder.rglob("*.tmp"))
    figures = [evaluate(run.network, ["fdgo", "dm1"], n_trials=32).n_correct for run in (again, whole)]
    np.testing.assert_array_equal(*figures)


@pytest.mark.slow
def test_a_process_killed_at_twenty_random_moments_ends_as_if_it_had_not_been(tmp_path):
    program = (
        "import sys; from multitask import *;"
        "train(['fdgo', 'delaygo', 'dm1'], NetworkParameters(n_rnn=16, activation='relu', dt=50.0),"
        " TrainingParameters(n_steps=800, evaluate_every=10, n_test_batches=1, checkpoint_steps=tuple(range(800))),"
        " n_networks=2, run_folder=sys.argv[1])"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(folder) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", program, folder], env=environment, stderr=subprocess.DEVNULL)

    moments = np.random.default_rng(0)
    for _ in range(20):
        process, written = start(tmp_path / "cut"), len(list(tmp_path.glob("cut/checkpoints/*.sha256")))
        while len(list(tmp_path.glob("cut/checkpoints/*.sha256"))) <= written:  # it is past loading
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    for name in ("cut", "whole"):
        assert start(tmp_path / name).wait() == 0
    assert_same(load_run(tmp_path / "cut"), load_run(tmp_path / "whole"))


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with (
        storage.open_for_training(tmp_path),
        pytest.raises(MultitaskError, match=f"in use by process {os.getpid()} since"),
    ):
        short(tmp_path)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"learning_rate": 0.1}, r"training\.learning_rate: 0\.001 there, 0\.1 now"),
        ({"seed": 1}, r"seed: 0 there, 1 now"),
        ({"n_networks": 3}, r"n_networks: 2 there, 3 now"),
        ({"rules": ("fdgo",)}, r"rules: \['fdgo', 'dm1'\] there, \['fdgo'\] now"),
        ({"network": replace(TINY, n_rnn=7)}, r"network\.n_rnn: 6 there, 7 now"),
        ({"rule_weights": {"dm1": 5.0}}, r"training\.rule_weights\.dm1: None there, 5\.0 now"),
    ],
)
def test_a_folder_with_another_run_is_refused_by_the_key_that_differs(tmp_path, changes, difference):
    short(tmp_path)
    with pytest.raises(MultitaskError, match=f"holds a run with other settings, it differs in {difference}"):
        short(tmp_path, **changes)


def test_weights_of_another_architecture_are_refused(tmp_path):
    run = short(tmp_path / "run")
    settings = run.folder / "settings.json"
    settings.write_text(settings.read_text().replace('"n_rnn": 6', '"n_rnn": 64'))
    with pytest.raises(MultitaskError, match="belong to another network: n_rnn 6 in file, 64 in config"):
        load_run(run.folder)
    with pytest.raises(MultitaskError, match="n_rnn 6 in start, 7 in network"):
        short(tmp_path / "other", network=replace(TINY, n_rnn=7), start=run.network)
    with pytest.raises(MultitaskError, match=r"start holds 2 networks, but n_networks = 3; use start.subset\(...\)"):
        short(tmp_path / "other", n_networks=3, start=run.network)
    assert not (tmp_path / "other").exists()


def test_reading_where_nothing_was_trained_is_refused(tmp_path):
    with pytest.raises(MultitaskError, match=r"holds no trained network; train\(..., run_folder=...\) makes one"):
        load_run(tmp_path)


def test_a_full_disk_ends_training_with_the_earlier_checkpoints_intact(tmp_path, monkeypatch):
    whole = short(tmp_path / "whole")
    interrupted(tmp_path / "full", 5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(MultitaskError, match="No space left on device; the last complete checkpoint is step 4"):
            short(tmp_path / "full")
    assert load_run(tmp_path / "full").checkpoints[-1] == 4
    assert_same(short(tmp_path / "full"), whole)


# ---- networks that explode -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({}, r"lower training.learning_rate, or clip the gradient by its norm .*, or raise the rate slowly \("),
        ({"clip": "norm", "warm_up": 0.1}, r"Remedy, in another run_folder: lower training.learning_rate$"),
    ],
)
def test_a_network_that_explodes_ends_the_run_at_once(tmp_path, changes, remedy):
    message = rf"training stopped at step \d, rule 'fdgo': network 0 has exploded \(loss .*, largest state .*{remedy}"
    with pytest.raises(MultitaskError, match=message):
        short(tmp_path, ("fdgo",), n_networks=1, learning_rate=1e4, **changes)
    run = load_run(tmp_path)
    assert run.finished == ""
    assert all(weight.isfinite().all() for weight in run.network.weights.values())
    with pytest.raises(MultitaskError, match=message):  # the same happens again
        short(tmp_path, ("fdgo",), n_networks=1, learning_rate=1e4, **changes)


@pytest.mark.parametrize(("scale", "finite"), [(0.999e6, True), (1.001e6, False), (math.nan, False)])
def test_states_above_a_million_count_as_exploded_and_are_laid_to_their_network(tmp_path, scale, finite):
    start = LeakyRNN(replace(TINY, sigma_rec=0.0), 2)
    still = start.with_weights({name: torch.zeros_like(weight) for name, weight in start.weights.items()})
    still.weights["b"][1, 0, 3] = scale
    if finite:
        short(tmp_path, network=start.parameters, start=still, n_steps=1)
    else:
        with pytest.raises(MultitaskError, match=r"step 0, rule 'fdgo': network 1 has exploded"):
            short(tmp_path, network=start.parameters, start=still, n_steps=1)
        with pytest.raises(MultitaskError, match="holds no trained network"):
            load_run(tmp_path)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_steps": 0}, r"training.n_steps = 0: must be a whole number >= 1"),
        ({"batch_size": 0}, r"training.batch_size = 0: must be a whole number >= 1"),
        ({"batch_size": 6.4}, r"training.batch_size = 6.4: must be a whole number >= 1"),
        ({"evaluate_every": 0}, r"training.evaluate_every = 0"),
        ({"learning_rate": 0.0}, r"training.learning_rate = 0.0: must be a finite number > 0"),
        ({"learning_rate": math.inf}, r"training.learning_rate = inf: must be a finite number > 0"),
        ({"learning_rate": "1e-3"}, r"training.learning_rate = '1e-3': must be a finite number > 0"),
        ({"clip_at": -1.0}, r"training.clip_at = -1.0: must be a finite number > 0"),
        ({"sigma_x": -0.01}, r"training.sigma_x = -0.01: must be a finite number >= 0"),
        ({"l2_h": -1.0}, r"training.l2_h = -1.0: must be a finite number >= 0"),
        ({"warm_up": 1.0}, r"training.warm_up = 1.0: must be a share of the steps, below 1"),
        ({"schedule": "cosin"}, r"unknown training.schedule 'cosin': did you mean 'cosine'\?"),
        ({"clip": "element"}, r"unknown training.clip 'element': known are value, norm, none"),
        ({"difficulty": "hard"}, r"unknown training.difficulty 'hard'"),
        ({"loss_type": "mse"}, r"unknown training.loss_type 'mse': known are lsq, cross_entropy"),
        (
            {"target_performance": 1.01},
            r"training.target_performance = 1.01: must be a share of right trials, at most 1",
        ),
        ({"target_performance": 0.0}, r"training.target_performance = 0.0: must be a finite number > 0"),
        ({"p_weight_train": 1.0}, r"training.p_weight_train = 1.0: must be below 1; None trains all weights"),
        ({"p_weight_train": 0.0}, r"training.p_weight_train = 0.0: must be a finite number > 0"),
        ({"c_intsyn": 1.0}, r"training.ksi_intsyn = 0: intelligent synapses \(c_intsyn > 0\) divide by it"),
        ({"frozen": ("reccurent",)}, r"unknown weights in training.frozen 'reccurent': did you mean 'recurrent'\?"),
        ({"frozen": tuple(WEIGHT_GROUPS)}, r"training.frozen names all weights: nothing is left to train"),
        ({"rule_weights": {"dm1": 0.0}}, r"training.rule_weights\['dm1'\] = 0.0: must be a finite number > 0"),
        ({"checkpoint_steps": "linear"}, r"unknown training.checkpoint_steps 'linear': .*geometric"),
        ({"checkpoint_steps": (-1,)}, r"training.checkpoint_steps = -1: must be a whole number >= 0"),
    ],
)
def test_training_parameters_that_cannot_be_are_refused(changes, message):
    with pytest.raises(MultitaskError, match=message):
        TrainingParameters(**changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": ("fdgo", "delayg0")}, r"unknown rule 'delayg0': did you mean 'delaygo'\?"),
        ({"rules": ()}, r"rules is empty: name at least one"),
        ({"rules": ([],)}, r"rules is empty: name at least one"),
        ({"rules": "fdgo"}, r"rules must be a sequence of names, but is the string 'fdgo': write \['fdgo'\]"),
        ({"rules": ("fdgo", "oic")}, r"network.n_input = 85, n_rule = 20: rule 'oic' needs 99 inputs, 2 of them"),
        ({"network": replace(TINY, n_output=32)}, r"network.n_output = 32: the tasks need 33"),
        ({"n_networks": 0}, r"n_networks = 0: must be a whole number >= 1"),
        ({"seed": -1}, r"seed = -1: must be a whole number >= 0"),
        ({"device": "gpu"}, r"device 'gpu' is not a device"),
        ({"rule_weights": {"dm2": 5.0}}, r"unknown rule in training.rule_weights 'dm2': did you mean 'dm1'\?"),
        ({"checkpoint_steps": (9,)}, r"training.checkpoint_steps: step 9 never comes, training has 8 steps"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(MultitaskError, match=message):
        short(tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(MultitaskError, match="device 'cuda' was asked for, but this machine has 0 CUDA devices"):
        short(tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_the_same(tmp_path):
    network = replace(TINY, sigma_rec=0.0)  # noise is drawn on the device
    runs = [short(tmp_path / d, network=network, sigma_x=0.0, device=d) for d in ("cpu", "cuda")]
    for name, weight in runs[0].network.weights.items():
        assert_close(weight, runs[1].network.weights[name], atol=1e-4, rtol=1e-3)  # float32


# ---- learning --------------------------------------------------------------------------------------------------------


def test_small_networks_learn_two_rules_in_seconds(tmp_path):
    """Three starts; the loss falls tenfold, and right answers become the rule."""
    network = NetworkParameters(n_rnn=32, activation="relu", w_rec_scale=0.9, dt=50.0)
    recipe = {"learning_rate": 5e-3, "schedule": "cosine", "warm_up": 0.03, "clip": "norm"}
    parameters = TrainingParameters(n_steps=250, batch_size=32, evaluate_every=250, n_test_batches=8, **recipe)
    run = train(["fdgo", "fdanti"], network, parameters, n_networks=3, run_folder=tmp_path, progress=False)
    first, last = (run.log.query(f"step == {step}").groupby("network") for step in (0, 250))
    assert last["performance"].min().min() > 0.85  # 20 networks trained so all came above 0.93
    assert (last["loss"].mean() < 0.1 * first["loss"].mean()).all()
    assert set(RULES) >= set(run.settings["rules"])
