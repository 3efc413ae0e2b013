"""Networks of any cell are trained, frozen, stored, killed and resumed as leaky networks are."""

import inspect
import json
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch

from dsa_analysis import compare
from multitask import CELLS, MultitaskError, load_run, make_network, record_activity
from multitask.storage import RunFolder
from multitask.training.loop import Trainer
from tests.multitask import own_cell
from tests.multitask.training.short_runs import TINY, assert_close, assert_same, short

OWN = "tests.multitask.own_cell:Fading"
ALL = [*CELLS, OWN]


def with_cell(cell: str, **changes):
    return replace(TINY, rnn_type=cell, **changes)


@pytest.mark.parametrize("cell", ALL)
def test_networks_of_an_ensemble_learn_independently(tmp_path, cell):
    network = with_cell(cell, sigma_rec=0.0)
    together = short(tmp_path / "both", network=network, n_steps=4, l2_weight=0.01).network
    start = make_network(network, 2)
    alone = short(
        tmp_path / "one", network=network, n_networks=1, start=start.subset([1]), n_steps=4, l2_weight=0.01
    ).network
    for name, weight in alone.weights.items():  # float32, and sums in another order
        assert_close(weight[0], together.weights[name][1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("group", ["input", "rule_input", "recurrent", "output"])
@pytest.mark.parametrize("cell", ["LSTM", "LowRank", "LRU"])
def test_frozen_weights_stay_bit_equal_and_all_others_move(tmp_path, cell, group):
    start = make_network(with_cell(cell), 2)
    ours = {"w_in": "input", "w_rule": "rule_input", "w_out": "output", "b_out": "output"}
    run = short(tmp_path, network=with_cell(cell), n_steps=3, evaluate_every=3, frozen=(group,))
    for name, weight in run.network.weights.items():
        assert torch.equal(weight, start.weights[name]) == (ours.get(name, "recurrent") == group), name


def die(folder, step: int, network) -> None:
    """Train until the process kills itself (SIGKILL) before a step."""
    original = Trainer.advance

    def advance(self):
        if self.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self)

    Trainer.advance = advance
    short(folder, network=network)


def killed(folder, step: int, network) -> int:
    process = multiprocessing.get_context("fork").Process(target=die, args=(folder, step, network))
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("cell", ALL)
def test_killed_runs_resume_to_the_same_bits(tmp_path, cell):
    network = with_cell(cell)
    whole = short(tmp_path / "whole", network=network)
    assert whole.log["loss"].notna().all()
    for step in (2, 5, 7):
        assert killed(tmp_path / "cut", step, network) == -signal.SIGKILL
    assert load_run(tmp_path / "cut").finished == ""
    assert_same(short(tmp_path / "cut", network=network), whole)


def test_a_cell_of_ones_own_takes_few_lines_and_is_compared(tmp_path):
    lines = inspect.getsource(own_cell).partition("# ----")[0].strip().splitlines()
    assert len(lines) <= 25
    run = short(tmp_path, network=with_cell(OWN, dt=50.0))
    assert load_run(tmp_path).settings["network"]["rnn_type"] == OWN
    activity = record_activity(run.network, "fdgo")
    systems = dict(zip("ab", activity.after_fixation(), strict=True))
    similarity = compare(systems, n_delays=1, rank=3, dt=50, horizon=200, progress=False)
    assert 0 < similarity.distances[0, 1] < torch.pi


def test_options_of_a_cell_are_stored_and_a_run_with_others_is_refused(tmp_path):
    network = with_cell("LowRank", cell_options={"rank": 2})
    short(tmp_path, network=network)
    assert load_run(tmp_path).network.weights["w_to"].shape == (2, 6, 2)
    with pytest.raises(MultitaskError, match=r"network\.cell_options\.rank = 2 in the folder, 3 requested"):
        short(tmp_path, network=replace(network, cell_options={"rank": 3}))


def test_runs_that_are_older_than_cell_options_are_read(tmp_path):
    run = short(tmp_path)
    path = tmp_path / "settings.json"
    settings = json.loads(path.read_text())
    del settings["network"]["cell_options"], settings["sha256"]
    path.write_text(json.dumps(settings))
    assert_same(short(tmp_path), run)
    with pytest.raises(MultitaskError, match=r"network\.rnn_type = 'LeakyRNN' in the folder, 'LowRank' requested"):
        short(tmp_path, network=with_cell("LowRank", cell_options={"rank": 3}))


def test_weights_that_do_not_fit_the_code_of_a_cell_are_refused(tmp_path):
    short(tmp_path, network=with_cell(OWN))
    folder = RunFolder(tmp_path)
    checkpoint = folder.load(folder.steps()[-1])
    other = {n: t[..., :1] if n == "weights/fade" else t for n, t in checkpoint.tensors.items()}
    folder.save(checkpoint.step, other, checkpoint.progress)
    with pytest.raises(
        MultitaskError, match=r"do not fit the cell .*'fade': \(1, 1\).* in the checkpoint.*of the cell has changed"
    ):
        load_run(tmp_path)
