"""A task and a cell of a user's own, in modules beside config.yaml: trained, killed, resumed, loaded and compared."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dsa_analysis import compare
from multitask import load_run, record_activity
from multitask.groups import train_groups
from tests.multitask.training.short_runs import assert_same
from workbench.__main__ import main
from workbench.settings import ConfigError, load_settings

ROOT = Path(__file__).parents[2]
TASK = """\
from dataclasses import dataclass

import torch
from multitask import Task


@dataclass
class Echo(Task):
    delay: int = 5
    name: str = "echo"
    n_input, n_output = 2, 2

    def draw(self, n_trials, *, dt, generator):
        x = torch.randn(n_trials, 30, 2, generator=generator)
        return self.batch(x[:, self.delay :], x[:, : -self.delay], dt=dt)
"""
CELL = """\
import torch

from multitask import Cell


class Fading(Cell):
    def start(self, generator):
        n = self.n_units
        w_in, w_rec = (torch.randn(rows, n, generator=generator) / rows**0.5 for rows in (self.n_input, n))
        return {"w_in": w_in, "w_rec": w_rec, "b": torch.zeros(1, n), "fade": torch.ones(1, n)}

    def step(self, w, state, drive):
        a = torch.sigmoid(w["fade"])
        return a * state + (1 - a) * torch.tanh(drive + state @ w["w_rec"])
"""
ECHO = "own_task_of_a_user:Echo"
SHORT = "own_task_of_a_user:Echo(delay=2, name='short_echo')"
NETWORK = "{n_rnn: 8, rnn_type: 'own_cell_of_a_user:Fading', dt: 20, n_input: 2, n_rule: 0, n_output: 2}"
TRAINING = "{n_steps: 8, batch_size: 4, loss_type: mean_square, evaluate_every: 3, n_test_batches: 1}"
OWN = {
    "multitask.rules": f"['{ECHO}']",
    "multitask.n_networks": "2",
    "multitask.network": NETWORK,
    "multitask.training": TRAINING,
    "multitask.activity.pairs": f"[['{ECHO}', '{ECHO}']]",
    "multitask.psychometric.rules": "[]",
    "multitask.slow_points.rule": f"'{ECHO}'",
    "multitask.slow_points.beside": f"'{ECHO}'",
    "multitask.slow_points.period": "trial",
    "groups.master": f"'{ECHO}'",
    "groups.parts": f'["{SHORT}"]',
    "groups.n_networks": "2",
    "groups.seeds": "[0]",
    "groups.network": NETWORK,
    "groups.training": TRAINING,
    "groups.group.rules": f"['{ECHO}']",
    "groups.groups": f'{{master: {{}}, twin: {{}}, short: {{rules: ["{SHORT}"]}}, again: {{after: short}}}}',
    "groups.comparison.periods": "[trial]",
    "groups.comparison.measures": "{DSA: {}, CKA: {dsa: {metric: cka}}}",
    "groups.comparison.shown": "[DSA, CKA]",
    "groups.comparison.also_judged": "[]",
    "groups.comparison.learning": "[twin]",
    "groups.comparison.jacobians.groups": "[master]",
    "groups.comparison.jacobians.period": "trial",
    "groups.comparison.jacobians.rank": "4",
}
KILLED = """\
import os, signal, sys
from multitask.training.loop import Trainer
from workbench.__main__ import main

def advance(self, original=Trainer.advance):
    if self.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self)

Trainer.advance = advance
main(sys.argv[1:])
"""


@pytest.fixture
def own(config, monkeypatch):
    """Settings with the task and the cell, and a working directory that has their modules."""
    folder = config.path.parent
    (folder / "own_task_of_a_user.py").write_text(TASK)
    (folder / "own_cell_of_a_user.py").write_text(CELL)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    for key, value in OWN.items():
        config.set(key, value)
    return config


def killed(folder: Path, *arguments: str) -> int:
    """Exit code of the command line in a process that kills itself before its sixth update."""
    paths = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, "-c", KILLED, *arguments]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode


def test_own_task_and_cell_are_short():
    assert len(TASK.splitlines()) <= 15
    assert len(CELL.splitlines()) <= 25


def test_networks_of_the_settings_are_killed_resumed_to_the_same_bits_and_compared(own, tmp_path, capsys):
    asked = ["train", "--quiet", "--config", str(own.path)]
    assert killed(tmp_path, *asked) == -signal.SIGKILL
    cut = load_settings(own.path).run_folder()
    assert load_run(cut).finished == ""
    assert main(asked) == 0
    assert "echo" in capsys.readouterr().out
    own.set("results", "elsewhere")
    assert main(asked) == 0
    whole = load_run(load_settings(own.path).run_folder())
    assert whole.folder != cut
    assert_same(load_run(cut), whole)
    states = record_activity(whole.network, ECHO, 8).hidden
    similarity = compare(dict(zip("ab", states, strict=True)), n_delays=1, rank=4, dt=20, horizon=100, progress=False)
    assert 0 < similarity.distances[0, 1] < 3.1416


def test_groups_of_the_settings_are_killed_and_resumed_to_the_same_bits(own, tmp_path, capsys):
    asked = ["train", "--groups", "--quiet", "--config", str(own.path)]
    assert killed(tmp_path, *asked) == -signal.SIGKILL
    assert main(asked) == 0
    assert f"of 512 of {ECHO} at standard difficulty" in capsys.readouterr().out

    def trained(results):
        ours = load_settings(own.path).groups
        return train_groups(ours.groups, ours.network, ours.training, folder=results, n_networks=2, progress=False)

    cut, whole = (trained(tmp_path / folder) for folder in ("results/runs", "elsewhere"))
    assert set(cut.runs) == {"master", "twin", "short", "again"}
    for name in cut.runs:
        assert_same(cut.runs[name], whole.runs[name])
    assert cut.learnt("again") == ("short_echo", "echo")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("multitask.network.n_output", "3", "network.n_output: own_task_of_a_user:Echo needs 2, got 3"),
        ("multitask.training.loss_type", "lsq", "own_task_of_a_user:Echo needs mean_square, got lsq"),
        ("multitask.rules", "['own_task_of_a_user:Eco']", "task 'own_task_of_a_user:Eco' cannot be imported"),
        ("multitask.slow_points.period", "go1", "own_task_of_a_user:Echo has no go1; it has trial"),
        ("groups.network.n_output", "3", "task 'echo' needs 2 outputs, but the networks have n_output = 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_an_own_task_is_said_by_the_settings(own, key, value, message):
    own.set(key, value)
    with pytest.raises(ConfigError) as caught:
        load_settings(own.path)
    assert message in str(caught.value)


def test_modules_are_looked_for_beside_the_settings(config, monkeypatch):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(config.path.parent)])
    (config.path.parent / "lying_beside.py").write_text(TASK)
    for key, value in OWN.items():
        config.set(
            key, value.replace("own_task_of_a_user", "lying_beside").replace("own_cell_of_a_user:Fading", "Tanh")
        )
    assert load_settings(config.path).multitask.rules == ("lying_beside:Echo",)
