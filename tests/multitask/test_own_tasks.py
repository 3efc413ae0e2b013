"""Tasks as objects: one of a user's own, those of the field, and batches that are not as their task says."""

import math
import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from multitask import (
    ContextIntegration,
    DelayedDiscrimination,
    FlipFlop,
    MultitaskError,
    NetworkParameters,
    PathIntegration,
    SineWave,
    Task,
    TrainingParameters,
    TrialBatch,
    evaluate,
    generate_trials,
    record_activity,
    task_variance,
    train,
)
from multitask.tasks.base import as_task
from tests.multitask.training.short_runs import assert_same, interrupted

CLASSIC = [FlipFlop(), SineWave(), DelayedDiscrimination(), PathIntegration(), PathIntegration(circle=False),
           ContextIntegration()]  # fmt: skip


class Echo(Task):
    """What came five steps ago: a user's task."""

    name, n_input, n_output = "echo", 2, 2

    def draw(self, n_trials: int, *, dt: float, generator: torch.Generator) -> TrialBatch:
        x = torch.randn(n_trials, 30, 2, generator=generator)
        return self.batch(x, x.roll(5, 1), dt=dt, cost_mask=(torch.arange(30) >= 5).float()[:, None])


NETWORK = NetworkParameters(n_rnn=8, activation="tanh", dt=20, n_input=2, n_rule=0, n_output=2)
SHORT: dict[str, Any] = {"n_steps": 6, "batch_size": 4, "evaluate_every": 3, "n_test_batches": 1, "test_batch_size": 4}
TRAINING = TrainingParameters(loss_type="mean_square", **SHORT)
ECHO = "tests.multitask.test_own_tasks:Echo"


# ---- a task of one's own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [Echo(), ECHO], ids=["object", "name"])
def test_own_task_is_trained_stored_interrupted_resumed_and_loaded(given, tmp_path):
    changes: dict[str, Any] = {"rules": [given], "network": NETWORK, "loss_type": "mean_square", **SHORT}
    whole = train([given], NETWORK, TRAINING, run_folder=tmp_path / "whole", n_networks=2, progress=False)
    interrupted(tmp_path / "resumed", 4, **changes)
    resumed = train([given], NETWORK, TRAINING, run_folder=tmp_path / "resumed", n_networks=2, progress=False)
    assert_same(whole, resumed)
    assert whole.settings["rules"] == [f"{ECHO}(n_input=2, n_output=2, name='echo')"]
    assert set(whole.log["rule"]) == {"echo"}


def test_own_task_goes_through_everything_that_takes_rules():
    from multitask import LeakyRNN

    network = LeakyRNN(NETWORK, 2, seed=0)
    found = evaluate(network, [Echo()], n_trials=8)
    assert (found.rules, found.n_trials) == (("echo",), 8)
    assert (evaluate(network, [ECHO], n_trials=8).n_correct == found.n_correct).all()
    activity = record_activity(network, Echo(), 6, seed=1)
    assert activity.hidden.shape == (2, 6, 30, 8)
    logits, _ = network.logits(activity.batch.inputs)
    assert torch.equal(activity.outputs, logits)
    assert task_variance(network, [Echo()], n_trials=6).columns == ("echo",)
    with pytest.raises(MultitaskError, match="n_trials of task 'echo' = None"):
        record_activity(network, Echo())


def test_training_lowers_the_loss_of_an_own_task(tmp_path):
    longer = TrainingParameters(loss_type="mean_square", n_steps=150, batch_size=16, evaluate_every=150,
                                learning_rate=0.01, n_test_batches=2, test_batch_size=16)  # fmt: skip
    network = NetworkParameters(n_rnn=24, activation="tanh", dt=20, tau=20, n_input=2, n_rule=0, n_output=2)
    log = train([Echo()], network, longer, run_folder=tmp_path / "run", progress=False).log
    assert log["loss"].iloc[-1] < 0.8 * log["loss"].iloc[0]


def test_another_task_of_the_same_name_does_not_continue_a_run(tmp_path):
    network = NetworkParameters(n_rnn=8, n_input=3, n_rule=0, n_output=3)
    train([FlipFlop()], network, TRAINING, run_folder=tmp_path / "run", progress=False)
    with pytest.raises(MultitaskError, match="rules"):
        train([FlipFlop(pulse_rate=1.0)], network, TRAINING, run_folder=tmp_path / "run", progress=False)


def test_input_noise_is_added_to_what_a_task_draws(tmp_path, generator):
    from multitask.tasks.base import draw_trials

    settings: dict[str, Any] = {"dt": 20.0, "tau": 100.0, "loss": "mean_square", "easiness": 0.0}
    settings["device"] = torch.device("cpu")
    clean, noisy = (
        draw_trials(Echo(), 200, noise=noise, generator=torch.Generator().manual_seed(0), **settings)
        for noise in (0.0, 0.1)
    )
    sd = float((noisy.inputs - clean.inputs).std())
    assert sd == pytest.approx(0.1 * math.sqrt(2 * 100 / 20), rel=0.02)  # 12 000 draws
    assert torch.equal(noisy.targets, clean.targets)


def test_rules_are_tasks(generator):
    rule = as_task("delaygo")
    batch = rule.draw(4, dt=20.0, generator=generator)
    assert (rule.n_input, rule.n_rule, rule.n_output) == (85, 20, 33)
    assert rule.score(batch.targets, batch).tolist() == [1.0] * 4
    expected = generate_trials("delaygo", 4, noise=0, generator=torch.Generator().manual_seed(0))
    assert torch.equal(batch.inputs, expected.inputs)


# ---- tasks of the field ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", CLASSIC, ids=lambda task: f"{task.name} {task.n_output}")
@pytest.mark.parametrize("dt", [20.0, 50.0])
def test_classic_tasks_draw_what_they_say_and_score_their_targets(task, dt, generator):
    batch = task.draw(7, dt=dt, generator=generator)
    assert batch.inputs.shape == (7, batch.n_times, task.n_input)
    assert batch.targets.shape == batch.cost_mask.shape == (7, batch.n_times, task.n_output)
    assert task.score(batch.targets, batch).tolist() == [1.0] * 7
    assert task.score(batch.targets + 5 * task.tolerance, batch).tolist() == [0.0] * 7
    again = task.draw(7, dt=dt, generator=torch.Generator().manual_seed(0))
    assert torch.equal(batch.inputs, again.inputs)
    assert all(0 <= start < stop <= batch.n_times for start, stop in batch.periods.values())


def test_flip_flop_holds_the_last_pulse(generator):
    batch = FlipFlop(n_bits=2).draw(5, dt=50.0, generator=generator)  # pulses of one time step
    for trial in range(5):
        for bit in range(2):
            held = 0.0
            for x, y, counts in zip(
                batch.inputs[trial, :, bit], batch.targets[trial, :, bit], batch.cost_mask[trial, :, bit], strict=True
            ):
                held = float(x) or held
                assert float(y) == held
                assert float(counts) == (x == 0)


def test_path_integration_integrates(generator):
    batch = PathIntegration(circle=False).draw(5, dt=20.0, generator=generator)
    position = batch.inputs[:, 0, 1] + 0.0
    for t in range(batch.n_times):
        position = position + batch.inputs[:, t, 0] * 0.02
        torch.testing.assert_close(batch.targets[:, t, 0], position, rtol=0, atol=1e-5)
    circle = PathIntegration().draw(5, dt=20.0, generator=generator)
    torch.testing.assert_close(circle.targets.square().sum(-1), torch.ones(5, circle.n_times))


def test_sine_waves_have_the_frequencies_of_their_conditions(generator):
    task = SineWave(frequencies=(1.0, 4.0), n_frequencies=4, duration=4000.0)
    batch = task.draw(20, dt=10.0, generator=generator)
    spectra = torch.fft.rfft(batch.targets[..., 0], dim=1).abs()
    peaks = spectra.argmax(1) / 4.0  # bins of a quarter of a Hz
    torch.testing.assert_close(peaks.double(), batch.conditions["frequency"])


def test_decisions_follow_what_was_shown(generator):
    compared = DelayedDiscrimination().draw(50, dt=20.0, generator=generator)
    first, second = compared.conditions["first"], compared.conditions["second"]
    assert torch.equal(compared.targets[:, -1, 0].double(), (first - second).sign())
    assert ((first - second).abs() > 0.0999).all()  # 0.1 less a rounding
    mixed = ContextIntegration(noise=0.01).draw(50, dt=20.0, generator=generator)
    start, stop = mixed.periods["stim1"]
    means = mixed.inputs[:, start:stop, :2].mean(1)
    relevant = means.gather(1, mixed.conditions["context"][:, None])[:, 0]
    assert torch.equal(mixed.targets[:, -1, 0], relevant.sign())


# ---- what does not fit -----------------------------------------------------------------------------------------------


@dataclass
class Broken(Task):
    """A task that does one thing wrong."""

    wrong: str
    name: str = "broken"
    n_input: int = 2
    n_output: int = 1

    def draw(self, n_trials: int, *, dt: float, generator: torch.Generator) -> Any:
        x, y = torch.zeros(n_trials, 10, 2), torch.zeros(n_trials, 10, 1)
        periods: dict[str, tuple[int, int]] = {"all": (0, 10)}
        if self.wrong == "wide":
            x = torch.zeros(n_trials, 10, 3)
        if self.wrong == "short":
            y = torch.zeros(n_trials, 9, 1)
        if self.wrong == "nan":
            y[0, 0] = math.nan
        if self.wrong == "period":
            periods = {"none": (4, 4)}
        if self.wrong == "nothing":
            return None
        return self.batch(x, y, dt=dt, periods=periods, cost_mask=torch.ones(10, 1))

    def score(self, outputs: Tensor, batch: TrialBatch) -> Tensor:
        return outputs[..., 0, 0] * 0 + (2.0 if self.wrong == "score" else 1.0)


FITTING = NetworkParameters(n_rnn=4, n_input=2, n_rule=0, n_output=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            "wide",
            "task 'broken': inputs have shape (4, 10, 3): must be (4, n_times, 2), as n_trials = 4 and n_input = 2",
        ),
        ("short", "task 'broken': targets of shape (4, 9, 1) and a cost_mask of shape (10, 1)"),
        ("nan", "task 'broken': targets hold values that are not finite"),
        ("period", "task 'broken': period 'none' is [4, 4): must lie within the 10 time steps, and not be empty"),
        ("nothing", "task 'broken': draw returned NoneType: must be a TrialBatch"),
        ("score", "task 'broken': score returned 2: must be between 0 (wrong) and 1 (right)"),
    ],
)
def test_batches_and_scores_that_do_not_fit_are_named(wrong, message, tmp_path):
    with pytest.raises(MultitaskError, match=re.escape(message)):
        train([Broken(wrong)], FITTING, TRAINING, run_folder=tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("rules", "network", "training", "message"),
    [
        ([Echo()], FITTING, TRAINING, "network.n_output = 1: must be 2 for task 'echo'"),
        ([Echo()], NetworkParameters(n_rnn=4), TRAINING, "task 'echo' needs 2 inputs, of which 0 are rule units"),
        ([Echo()], NETWORK, TrainingParameters(**SHORT), "task 'echo' needs the loss 'mean_square'"),
        (["fdgo"], NetworkParameters(n_rnn=4), TRAINING, "task 'fdgo' needs the loss 'lsq' or 'cross_entropy'"),
        ([Echo(), Broken("", name="echo")], NETWORK, TRAINING, "two tasks are called 'echo'"),
        (["no_such_module:Echo"], NETWORK, TRAINING, "task 'no_such_module:Echo' cannot be imported"),
        (["math:pi"], NETWORK, TRAINING, "task 'math:pi' is float: must be a multitask.Task"),
    ],
)  # fmt: skip
def test_tasks_that_do_not_fit_are_refused_before_training(rules, network, training, message, tmp_path):
    with pytest.raises(MultitaskError, match=re.escape(message)):
        train(rules, network, training, run_folder=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlipFlop(n_bits=0), "n_bits = 0"),
        (lambda: FlipFlop(pulse_rate=-1.0), "flip_flop.pulse_rate = -1.0"),
        (
            lambda: FlipFlop(pulse_time=10.0).draw(2, dt=20.0, generator=torch.Generator()),
            "task 'flip_flop': a period of 10 ms is shorter than dt = 20 ms",
        ),
    ],
)
def test_parameters_out_of_range_are_refused(make, message):
    with pytest.raises(MultitaskError, match=re.escape(message)):
        make()
