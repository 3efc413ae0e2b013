"""The training loop: updates, evaluations, stop rule, checkpoints, and networks that diverge."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from multitask.evaluation import evaluate
from multitask.network import WEIGHT_GROUPS, LeakyRNN, NetworkParameters, make_network
from multitask.tasks import RULES, base
from multitask.training import (
    TrainingParameters,
    load_run,
    train,
)
from multitask.trials import MultitaskError
from tests.multitask.training.short_runs import SHORT, TINY, assert_close, assert_same, interrupted, short

# ---- one step --------------------------------------------------------------------------------------------------------


def test_the_first_step_follows_the_equations(tmp_path, batches):
    """One step without noise, computed from the equations: a loop over time, autograd, the first step of Adam."""
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


def test_networks_of_an_ensemble_learn_independently(tmp_path):
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


# ---- evaluation and stop rule ----------------------------------------------------------------------------------------


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
        """The second network reaches the target one evaluation later, because of one rule."""
        evaluations.append(batch.rule)
        late = batch.rule == "dm1" and len(evaluations) <= 4
        return torch.tensor([[1.0, 1.0], [1.0, 0.0 if late else 1.0]])

    monkeypatch.setattr(base, "score_trials", scores)
    run = short(tmp_path, target_performance=0.9)
    assert run.finished == "target reached"
    assert run.log["step"].max() == run.checkpoints[-1] == 6
    assert short(tmp_path / "never", n_steps=3, target_performance=1.0).finished == "all steps"
    evaluations.clear()
    groups = short(tmp_path / "groups", [["fdgo"], ["dm1"]], target_performance=0.9)
    assert sorted(set(groups.log["step"])) == [
        0,
        3,
        6,
    ]  # the second group reaches the target later
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
    with pytest.raises(MultitaskError, match="contains no checkpoint of step 5"):
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


# ---- networks that diverge -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({}, r"lower training.learning_rate, or clip the gradient by its norm .*, or use a warm-up \("),
        ({"clip": "norm", "warm_up": 0.1}, r"use a new run_folder and lower training.learning_rate$"),
    ],
)
def test_a_network_that_diverges_ends_the_run_at_once(tmp_path, changes, remedy):
    message = rf"training stopped at step \d, rule 'fdgo': network 0 has diverged \(loss .*, largest state .*{remedy}"
    with pytest.raises(MultitaskError, match=message):
        short(tmp_path, ("fdgo",), n_networks=1, learning_rate=1e4, **changes)
    run = load_run(tmp_path)
    assert run.finished == ""
    assert all(weight.isfinite().all() for weight in run.network.weights.values())
    with pytest.raises(MultitaskError, match=message):  # also when it is resumed
        short(tmp_path, ("fdgo",), n_networks=1, learning_rate=1e4, **changes)


@pytest.mark.parametrize(("scale", "finite"), [(0.999e6, True), (1.001e6, False), (math.nan, False)])
def test_states_above_a_million_count_as_divergence_of_their_network(tmp_path, scale, finite):
    start = LeakyRNN(replace(TINY, sigma_rec=0.0), 2)
    still = start.with_weights({name: torch.zeros_like(weight) for name, weight in start.weights.items()})
    still.weights["b"][1, 0, 3] = scale
    if finite:
        short(tmp_path, network=start.parameters, start=still, n_steps=1)
    else:
        with pytest.raises(MultitaskError, match=r"step 0, rule 'fdgo': network 1 has diverged"):
            short(tmp_path, network=start.parameters, start=still, n_steps=1)
        with pytest.raises(MultitaskError, match="contains no trained network"):
            load_run(tmp_path)


# ---- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_the_same(tmp_path):
    network = replace(TINY, sigma_rec=0.0)  # noise is drawn on the device
    runs = [short(tmp_path / d, network=network, sigma_x=0.0, device=d) for d in ("cpu", "cuda")]
    for name, weight in runs[0].network.weights.items():
        assert_close(weight, runs[1].network.weights[name], atol=1e-4, rtol=1e-3)  # float32


def test_small_networks_learn_two_rules_in_seconds(tmp_path):
    """Three networks: the loss falls tenfold, and most answers are correct."""
    network = NetworkParameters(n_rnn=32, activation="relu", w_rec_scale=0.9, dt=50.0)
    recipe = {"learning_rate": 5e-3, "schedule": "cosine", "warm_up": 0.03, "clip": "norm"}
    parameters = TrainingParameters(n_steps=250, batch_size=32, evaluate_every=250, n_test_batches=8, **recipe)
    run = train(["fdgo", "fdanti"], network, parameters, n_networks=3, run_folder=tmp_path, progress=False)
    first, last = (run.log.query(f"step == {step}").groupby("network") for step in (0, 250))
    assert last["performance"].min().min() > 0.85  # 20 networks trained so all came above 0.93
    assert (last["loss"].mean() < 0.1 * first["loss"].mean()).all()
    assert set(RULES) >= set(run.settings["rules"])
