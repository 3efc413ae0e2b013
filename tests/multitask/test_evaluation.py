"""Scores, performance and psychometric curves, on constructed outputs and networks with known behaviour."""

import math
import random

import numpy as np
import pytest
import torch

from multitask.evaluation import evaluate, psychometric_curve
from multitask.network import LeakyRNN, NetworkParameters
from multitask.scoring import decode_direction, score_trials
from multitask.tasks import RULES, generate_trials
from multitask.trials import MultitaskError, bump


def answers(batch, direction: torch.Tensor, fixation: torch.Tensor) -> torch.Tensor:
    """Outputs with a direction and a fixation value at the last step, zero before, (trial, time, unit)."""
    outputs = torch.full((batch.n_trials, batch.n_times, 33), 0.3, dtype=torch.float64)
    outputs[:, -1, 0] = fixation
    outputs[:, -1, 1:] = 0.05 + bump(direction.double())
    return outputs


def perfect(batch) -> torch.Tensor:
    stays = batch.response.isnan()
    return answers(batch, batch.response.nan_to_num(1.0), torch.where(stays, 0.8, 0.05))


@pytest.fixture(scope="module")
def network() -> LeakyRNN:
    return LeakyRNN(NetworkParameters(n_rnn=16, dt=50.0), n_networks=2, seed=0)


# ---- decoding and scoring --------------------------------------------------------------------------------------------


def test_population_vector_finds_every_direction():
    direction = 2 * math.pi * torch.arange(500, dtype=torch.float64) / 500
    ring = 0.05 + bump(direction)
    outputs = torch.cat([torch.zeros(500, 1), ring], 1)
    apart = torch.angle(torch.exp(1j * (decode_direction(outputs) - direction)))
    assert apart.abs().max() < 1e-6  # the bump is cut at 180 degrees


@pytest.mark.parametrize("rule", RULES)
def test_targets_are_correct_responses(rule):
    batch = generate_trials(rule, 40, seed=0)
    assert score_trials(batch.targets, batch).eq(1).all()


@pytest.mark.parametrize("rule", RULES)
def test_fixating_is_correct_only_on_no_go_trials(rule):
    batch = generate_trials(rule, 40, seed=0)
    fixating = answers(batch, batch.response.nan_to_num(0.0), torch.tensor(0.8))
    assert score_trials(fixating, batch).bool().equal(batch.response.isnan())


def test_the_limit_of_36_degrees_is_strict_on_both_sides():
    batch = generate_trials("fdgo", 4, seed=0)
    limit = math.radians(36)
    offsets = torch.tensor([limit - 1e-4, limit + 1e-4, -limit + 1e-4, -limit - 1e-4])
    direction = (batch.response + offsets) % (2 * math.pi)
    assert score_trials(answers(batch, direction, torch.tensor(0.0)), batch).tolist() == [1, 0, 1, 0]


def test_fixation_at_exactly_one_half_counts_as_left():
    batch = generate_trials("fdgo", 3, seed=0)
    scores = score_trials(
        answers(batch, batch.response, torch.tensor([0.5, 0.5 + 1e-9, 0.4], dtype=torch.float64)), batch
    )
    assert scores.tolist() == [1, 0, 1]


def test_only_the_last_step_counts():
    batch = generate_trials("dmsgo", 20, seed=0)
    outputs = perfect(batch)
    assert score_trials(outputs, batch).eq(1).all()
    outputs[:, :-1] = torch.rand(outputs[:, :-1].shape, dtype=torch.float64)
    assert score_trials(outputs, batch).eq(1).all()


def test_scores_of_an_ensemble_are_those_of_its_networks():
    batch = generate_trials("dmcgo", 30, seed=0)
    ensemble = torch.rand(2, 3, 30, batch.n_times, 33, generator=torch.Generator().manual_seed(0))
    scores = score_trials(ensemble, batch)
    assert scores.shape == (2, 3, 30)
    for i in range(2):
        for j in range(3):
            assert scores[i, j].equal(score_trials(ensemble[i, j], batch))


def test_outputs_of_another_shape_are_refused():
    batch = generate_trials("fdgo", 3, seed=0)
    with pytest.raises(MultitaskError, match=r"outputs have shape \(3, 5, 33\), but the batch of 'fdgo' requires"):
        score_trials(torch.zeros(3, 5, 33), batch)


def test_outputs_that_are_not_finite_are_refused_with_their_place():
    batch = generate_trials("fdgo", 3, seed=0)
    outputs = torch.zeros(2, 3, batch.n_times, 33)
    outputs[1, 2, -1, 7] = math.nan
    with pytest.raises(MultitaskError, match="not finite at the last step of network 1, trial 2 of 'fdgo'"):
        score_trials(outputs, batch)


# ---- performance -----------------------------------------------------------------------------------------------------


def test_networks_that_always_fixate_are_right_on_half_of_the_match_trials(network):
    silent = {name: torch.zeros_like(weight) for name, weight in network.weights.items()}
    silent["b_out"][..., 0] = 5.0  # the fixation unit is always on
    result = evaluate(network.with_weights(silent), ["fdgo", "dm1", "dmsgo", "dmcnogo"], n_trials=512)
    assert (result.performance[:, :2] == 0).all()
    assert result.performance[:, 2:] == pytest.approx(np.full((2, 2), 0.5), abs=0.1)  # 4.5 standard errors of 512 coins


def test_performance_comes_with_counts(network):
    result = evaluate(network, ["dmsgo", "fdgo"], n_trials=50, batch_size=20)
    assert result.n_correct.shape == (2, 2)
    assert result.n_trials == 50
    table = result.to_dataframe()
    assert list(table.columns) == ["network", "rule", "difficulty", "n_correct", "n_trials", "performance"]
    assert table["rule"].tolist() == ["dmsgo", "fdgo"] * 2
    assert table["performance"].tolist() == pytest.approx((table["n_correct"] / table["n_trials"]).tolist())
    assert table["n_correct"].between(0, 50).all()


def test_untrained_networks_do_not_know_the_answer(network):
    result = evaluate(network, ["fdgo", "delayanti", "dm2"], n_trials=128)
    assert (result.performance <= 0.2 + 0.16).all()  # a random direction hits in 72 of 360 degrees; 4.5 standard errors


def test_evaluation_of_a_rule_does_not_depend_on_the_others(network):
    alone = evaluate(network, ["dmcgo"], n_trials=64, seed=3)
    among = evaluate(network, ["fdgo", "dmcgo", "dm1"], n_trials=64, seed=3)
    assert (alone.n_correct[:, 0] == among.n_correct[:, 1]).all()


def test_global_random_states_stay_untouched(network):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    evaluate(network, ["dmcgo"], n_trials=32)
    psychometric_curve(network, "dm1", [0.1], times={"stim_time": 400}, n_trials=4)
    assert torch.get_rng_state().equal(before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


def test_cross_entropy_outputs_are_shares_of_one(network):
    loud = dict(network.weights)
    loud["b_out"] = loud["b_out"] + 1.0
    loud["b_out"][..., 0] += 1.0  # sigmoid above one half, softmax over 33 units far below
    fixates = {
        loss: evaluate(network.with_weights(loud), ["dmsgo"], n_trials=64, noise=0, loss=loss).performance
        for loss in ("lsq", "cross_entropy")
    }
    assert fixates["lsq"] == pytest.approx(np.full((2, 1), 0.5), abs=0.28)
    assert (fixates["cross_entropy"] < fixates["lsq"]).all()


# ---- psychometric curves ---------------------------------------------------------------------------------------------


def integrator(parameters: NetworkParameters, modality: int) -> LeakyRNN:
    """Two networks whose units copy and keep the ring of one modality; the second responds opposite to the first."""
    network = LeakyRNN(parameters, n_networks=2)
    weights = {name: torch.zeros_like(weight) for name, weight in network.weights.items()}
    ring = slice(1 + 32 * (modality - 1), 1 + 32 * modality)
    weights["w_in"][:, ring] = torch.eye(32)
    weights["w_rec"][:] = torch.eye(32)
    for network_, gain in enumerate((8.0, -8.0)):
        weights["w_out"][network_, :, 1:] = gain * torch.eye(32)
    return network.with_weights(weights)


RELU = NetworkParameters(n_rnn=32, activation="relu", sigma_rec=0.0)


@pytest.mark.parametrize(("rule", "modality"), [("dm1", 1), ("dm2", 2), ("contextdm1", 1), ("multidm", 2)])
def test_an_integrator_chooses_the_stronger_stimulus_and_its_opposite_the_weaker(rule, modality):
    curve = psychometric_curve(
        integrator(RELU, modality), rule, [-0.2, -0.05, 0.05, 0.2], times={"stim_time": 200}, n_trials=32, noise=0.0
    )
    assert curve.proportion.tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    assert (curve.n_first + curve.n_second == 32).all()
    table = curve.to_dataframe()
    assert table["coherence"].tolist() == [-0.2, -0.05, 0.05, 0.2] * 2


def test_the_ignored_modality_carries_the_coherence_it_is_given():
    listens_to_2 = integrator(RELU, 2)
    curve = psychometric_curve(
        listens_to_2, "contextdm1", [-0.2, 0.2], ignored=0.2, times={"stim_time": 200}, n_trials=32, noise=0.0
    )
    assert curve.proportion[0].tolist() == [1, 1]


def test_directions_far_from_both_stimuli_count_as_no_choice():
    quiet = integrator(RELU, 1)
    quiet.weights["w_out"].zero_()
    quiet.weights["b_out"][..., 1:9] = 5.0  # always points to the middle of the units 0 to 7, 39 degrees
    curve = psychometric_curve(quiet, "dm1", [0.1], times={"stim_time": 200}, n_trials=40, noise=0.0)
    # 54 degrees to both sides of a fixed direction: 12 of 40 first directions, and as many second ones
    assert curve.n_first[0, 0] == curve.n_second[0, 0] == 12
    assert curve.proportion[0, 0] == 0.5


# ---- invalid arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": []}, "rules is empty: name at least one rule"),
        ({"rules": "dm1"}, r"rules must be a sequence of names, but is the string 'dm1': write \['dm1'\]"),
        ({"rules": ["dm"]}, r"unknown rule 'dm': did you mean 'dm"),
        ({"n_trials": 0}, "n_trials = 0: must be a whole number >= 1"),
        ({"batch_size": 0}, "batch_size = 0: must be a whole number >= 1"),
        ({"noise": -1.0}, "noise = -1.0: must be a finite number >= 0"),
        ({"loss": "mse"}, "unknown loss 'mse': choose from lsq, cross_entropy"),
        ({"easiness": 2.0}, r"easiness = 2.0: must be a number in \[0, 1\]"),
    ],
)
def test_bad_arguments_of_an_evaluation_are_refused(network, arguments, message):
    with pytest.raises(MultitaskError, match=message):
        evaluate(network, **({"rules": ["dm1"], "n_trials": 4} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "fdgo"}, "rule 'fdgo' has no coherence to vary; choose from dm1, dm2"),
        ({"coherences": []}, "coherences is empty: give at least one coherence"),
        ({"times": {}}, "missing: stim_time"),
        ({"n_trials": 0}, "n_trials = 0"),
    ],
)
def test_bad_arguments_of_a_curve_are_refused(network, arguments, message):
    arguments = {"rule": "dm1", "coherences": [0.1], "times": {"stim_time": 400}, "n_trials": 4} | arguments
    with pytest.raises(MultitaskError, match=message):
        psychometric_curve(network, **arguments)
