"""Tasks of neurogym as tasks of this package: a stand-in with its interface, and the package itself where installed."""

import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from multitask import MultitaskError, NetworkParameters, TrainingParameters, from_neurogym, train


class Choice:
    """An environment as neurogym has them: fixation, a stimulus of random length, a decision between two."""

    def __init__(self, dt: float = 20, continuous: bool = False, sigma: float = 0.1) -> None:
        self.dt, self.sigma = dt, sigma
        self.observation_space = SimpleNamespace(shape=(3,))
        self.action_space = SimpleNamespace(shape=(2,)) if continuous else SimpleNamespace(n=3, shape=())
        self.rng = np.random.RandomState()
        self.start_ind: dict[str, int] = {}
        self.end_ind: dict[str, int] = {}

    def seed(self, seed: int | None = None) -> None:
        self.rng = np.random.RandomState(seed)

    def new_trial(self) -> dict[str, Any]:
        side, n = self.rng.randint(1, 3), self.rng.randint(4, 9)
        self.start_ind, self.end_ind = {"fixation": 0, "stimulus": 5, "decision": 5 + n}, {}
        self.end_ind = {"fixation": 5, "stimulus": 5 + n, "decision": 7 + n}
        self.ob = self.sigma * self.rng.randn(7 + n, 3)
        self.ob[5 : 5 + n, side] += 1
        self.gt = np.zeros(7 + n, int)
        self.gt[-2:] = side
        if "n" not in vars(self.action_space):
            self.gt = np.stack([self.gt == 1, self.gt == 2], -1) * 1.0
        return {"ground_truth": side, "coh": 12.8, "name": "left"}


class Odd(Choice):
    def new_trial(self) -> dict[str, Any]:
        super().new_trial()
        self.gt[-1] = 3
        return {}


def drawn(task, seed: int = 0, n_trials: int = 12):
    return task.draw(n_trials, dt=20.0, generator=torch.Generator().manual_seed(seed))


def test_trials_are_those_of_the_environment_filled_up_with_times_that_do_not_count():
    env, batch = Choice(), drawn(from_neurogym(Choice()))
    seeds = torch.randint(2**31, (12,), generator=torch.Generator().manual_seed(0)).tolist()
    for k, seed in enumerate(seeds):
        env.seed(seed)
        shown = env.new_trial()
        n = len(env.ob)
        np.testing.assert_allclose(batch.inputs[k, :n], env.ob, rtol=1e-6)  # float32
        assert batch.targets[k, :n].argmax(-1).tolist() == env.gt.tolist()
        assert (batch.cost_mask[k, :n, 0] == torch.where(torch.as_tensor(env.gt) == 0, 0.1, 1.0)).all()
        assert not batch.cost_mask[k, n:].any()
        assert not batch.inputs[k, n:].any()
        assert batch.conditions["ground_truth"][k] == shown["ground_truth"]
    assert set(batch.conditions) == {"ground_truth", "coh"}
    assert batch.periods == {"fixation": (0, 5)}  # the other periods end at other times in other trials


def test_draws_follow_the_seed_whatever_was_drawn_before():
    task = from_neurogym(Choice())
    first = drawn(task, 1)
    assert not torch.equal(drawn(task, 2).inputs[:, :11], first.inputs[:, :11])
    assert torch.equal(drawn(task, 1).inputs, first.inputs)


def test_the_environment_that_was_given_stays_as_it_is():
    env = Choice()
    env.seed(3)
    expected = np.random.RandomState(3).rand()
    drawn(from_neurogym(env))
    assert env.rng.rand() == expected


@pytest.mark.parametrize("continuous", [False, True], ids=["actions", "continuous"])
def test_networks_learn_stored_and_read_again(continuous, tmp_path):
    task = from_neurogym(Choice(continuous=continuous))
    assert task.sizes == {"n_input": 3, "n_rule": 0, "n_output": 2 if continuous else 3}
    network = NetworkParameters(n_rnn=16, activation="tanh", dt=20, tau=40, **task.sizes)
    training = TrainingParameters(n_steps=120, batch_size=16, learning_rate=0.01, loss_type=task.losses[0],
                                  evaluate_every=120, n_test_batches=2, test_batch_size=32)  # fmt: skip
    log = train([task], network, training, run_folder=tmp_path, progress=False).log
    assert log["loss"].iloc[-1] < 0.6 * log["loss"].iloc[0]
    if not continuous:
        assert log["performance"].iloc[-1] > 0.9
    again = train([from_neurogym(Choice(continuous=continuous))], network, training, run_folder=tmp_path)
    assert again.finished
    with pytest.raises(MultitaskError, match=re.escape("sigma=0.2")):
        train([from_neurogym(Choice(continuous=continuous, sigma=0.2))], network, training, run_folder=tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: drawn(from_neurogym(Choice(dt=100))), "has dt = 100 ms, the network dt = 20 ms: make the environment"),
        (lambda: drawn(from_neurogym(Odd())), "task 'Odd': gt holds actions outside 0 to 2"),
        (lambda: from_neurogym(SimpleNamespace()), "env: SimpleNamespace has no new_trial: give an environment"),
        (lambda: from_neurogym(Choice(), dt=20), "dt: an environment that is made already takes no options"),
        (lambda: from_neurogym(Choice(), fixate_weight=0.0), "fixate_weight = 0.0"),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(MultitaskError, match=re.escape(message)):
        make()


def test_without_neurogym_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "neurogym", None)
    with pytest.raises(MultitaskError, match="which is not installed: pip install neurogym"):
        from_neurogym("GoNogo-v0")


@pytest.mark.parametrize("name", ["PerceptualDecisionMaking-v0", "DelayMatchSample-v0", "ReachingDelayResponse-v0"])
@pytest.mark.filterwarnings("ignore")
def test_tasks_of_neurogym_are_drawn_by_seed(name):
    pytest.importorskip("neurogym")
    task = from_neurogym(name, dt=20)
    batch = drawn(task)
    assert batch.inputs.shape[2] == task.n_input
    assert torch.equal(drawn(from_neurogym(name, dt=20)).inputs, batch.inputs)
    assert batch.inputs.std() > 0


@pytest.mark.filterwarnings("ignore")
def test_a_task_of_neurogym_is_learned(tmp_path):
    pytest.importorskip("neurogym")
    task = from_neurogym("GoNogo-v0", dt=50)
    network = NetworkParameters(n_rnn=24, activation="tanh", dt=50, tau=100, **task.sizes)
    training = TrainingParameters(n_steps=150, batch_size=16, learning_rate=0.01, loss_type="cross_entropy",
                                  evaluate_every=150, n_test_batches=2, test_batch_size=32)  # fmt: skip
    log = train([task], network, training, run_folder=tmp_path, progress=False).log
    assert log["loss"].iloc[-1] < 0.6 * log["loss"].iloc[0]
    with pytest.raises(MultitaskError, match="neurogym cannot make 'NoSuch-v0'"):
        from_neurogym("NoSuch-v0")
