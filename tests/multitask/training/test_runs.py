"""Runs on disk: the same arguments again, resuming after interruptions and kills, and invalid arguments."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from multitask import storage
from multitask.evaluation import evaluate
from multitask.training import (
    Adam,
    load_run,
)
from multitask.training.loop import Trainer
from multitask.trials import MultitaskError
from tests.multitask.training.short_runs import TINY, assert_same, interrupted, short

FORK = multiprocessing.get_context("fork")  # children that start at once, with torch loaded


# ---- the same arguments again ----------------------------------------------------------------------------------------


def test_runs_are_equal_for_equal_seeds_and_differ_otherwise(tmp_path):
    runs = [short(tmp_path / f"{i}", seed=seed) for i, seed in enumerate((3, 3, 4))]
    assert_same(*runs[:2])
    assert not torch.equal(runs[0].network.weights["w_rec"], runs[2].network.weights["w_rec"])


def test_a_finished_run_is_loaded_and_not_trained_again(tmp_path, monkeypatch):
    run = short(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(Trainer, "advance", None)
    again = short(tmp_path)
    assert_same(run, again)
    assert_same(run, load_run(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_run_may_start_from_a_stored_network(tmp_path):
    first = short(tmp_path / "first", ("fdgo",))
    weights = {name: weight.clone() for name, weight in first.network.weights.items()}
    second = short(tmp_path / "second", ("delaygo",), start=first.network)
    assert all(torch.equal(second.load(0).weights[name], weight) for name, weight in weights.items())
    assert all(torch.equal(first.network.weights[name], weight) for name, weight in weights.items())
    assert not torch.equal(second.network.weights["w_rec"], weights["w_rec"])
    assert second.settings["start"] == storage.tensors_sha256(weights)
    with pytest.raises(MultitaskError, match="other settings: start = '"):
        short(tmp_path / "second", ("delaygo",), start=second.network)


def test_loading_from_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(MultitaskError, match=r"contains no trained network; create one with train\("):
        load_run(tmp_path)


# ---- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(8))
def test_a_run_interrupted_at_any_step_resumes_to_the_same_result(tmp_path, step):
    whole = short(tmp_path / "whole")
    interrupted(tmp_path / "cut", step)
    part = load_run(tmp_path / "cut")
    assert part.finished == ""
    assert part.log["step"].max() <= step
    assert_same(short(tmp_path / "cut"), whole)


def test_a_run_with_a_damaged_checkpoint_resumes_from_the_one_before(tmp_path):
    whole = short(tmp_path / "whole")
    run = short(tmp_path / "bad")
    path = run.folder / "checkpoints" / "step_0000008.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="checkpoint step 8 in .* is damaged: .*; the checkpoint before it is used"):
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
def test_a_run_killed_twenty_times_resumes_to_the_same_result(tmp_path, kind):
    changes = KILLED[kind]
    whole = short(tmp_path / "whole", **changes)
    for event in range(1, 21):  # each process resumes where the previous one was killed
        assert run_until_killed(tmp_path / "cut", event, changes) == -signal.SIGKILL
    assert load_run(tmp_path / "cut").finished == ""  # otherwise a process ended before it was killed
    again = short(tmp_path / "cut", **changes)
    assert_same(again, whole)
    assert not list(again.folder.rglob("*.tmp"))
    figures = [evaluate(run.network, ["fdgo", "dm1"], n_trials=32).n_correct for run in (again, whole)]
    np.testing.assert_array_equal(*figures)


@pytest.mark.slow
def test_a_process_killed_at_twenty_random_moments_resumes_to_the_same_result(tmp_path):
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
        while len(list(tmp_path.glob("cut/checkpoints/*.sha256"))) <= written:  # it has resumed training
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    for name in ("cut", "whole"):
        assert start(tmp_path / name).wait() == 0
    assert_same(load_run(tmp_path / "cut"), load_run(tmp_path / "whole"))


def test_a_full_disk_ends_training_with_the_earlier_checkpoints_intact(tmp_path, monkeypatch):
    whole = short(tmp_path / "whole")
    interrupted(tmp_path / "full", 5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(MultitaskError, match="No space left on device; the last complete checkpoint is step 4"):
            short(tmp_path / "full")
    assert load_run(tmp_path / "full").checkpoints[-1] == 4
    assert_same(short(tmp_path / "full"), whole)


# ---- invalid arguments and folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["save", "run"])
def test_a_folder_that_goes_away_is_told_as_such(tmp_path, monkeypatch, when):
    """Before a checkpoint is written, and after the last one."""
    owner, method = (storage.RunFolder, "save") if when == "save" else (Trainer, "run")
    work = getattr(owner, method)

    def removed(self, *arguments, **options):
        if when == "save":
            shutil.rmtree(tmp_path / "run")
        result = work(self, *arguments, **options)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return result

    monkeypatch.setattr(owner, method, removed)
    with pytest.raises(storage.StorageError, match=r"cannot write|went away while it was trained"):
        short(tmp_path / "run")


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with (
        storage.open_for_training(tmp_path),
        pytest.raises(MultitaskError, match=f"in use by process {os.getpid()} since"),
    ):
        short(tmp_path)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"learning_rate": 0.1}, r"training\.learning_rate = 0\.001 in the folder, 0\.1 requested"),
        ({"seed": 1}, r"seed = 0 in the folder, 1 requested"),
        ({"n_networks": 3}, r"n_networks = 2 in the folder, 3 requested"),
        ({"rules": ("fdgo",)}, r"rules = \['fdgo', 'dm1'\] in the folder, \['fdgo'\] requested"),
        ({"network": replace(TINY, n_rnn=7)}, r"network\.n_rnn = 6 in the folder, 7 requested"),
        ({"rule_weights": {"dm1": 5.0}}, r"training\.rule_weights\.dm1 = None in the folder, 5\.0 requested"),
    ],
)
def test_a_folder_with_other_settings_is_refused_with_the_key_that_differs(tmp_path, changes, difference):
    short(tmp_path)
    with pytest.raises(MultitaskError, match=f"contains a run with other settings: {difference}"):
        short(tmp_path, **changes)


def test_weights_of_another_architecture_are_refused(tmp_path):
    run = short(tmp_path / "run")
    settings = run.folder / "settings.json"
    changed = json.loads(settings.read_text().replace('"n_rnn": 6', '"n_rnn": 64'))
    settings.write_text(json.dumps(changed))
    with pytest.raises(MultitaskError, match=r"settings\.json was changed after it was written: restore it"):
        load_run(run.folder)
    del changed["sha256"]  # as in runs of earlier versions
    settings.write_text(json.dumps(changed))
    with pytest.raises(
        MultitaskError, match="are those of a different network: n_rnn 6 in the checkpoint, 64 in the settings"
    ):
        load_run(run.folder)
    with pytest.raises(MultitaskError, match="n_rnn 6 in start, 7 in network"):
        short(tmp_path / "other", network=replace(TINY, n_rnn=7), start=run.network)
    with pytest.raises(MultitaskError, match=r"start has 2 networks, but n_networks = 3; use start.subset\(...\)"):
        short(tmp_path / "other", n_networks=3, start=run.network)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": ("fdgo", "delayg0")}, r"unknown rule 'delayg0': did you mean 'delaygo'\?"),
        ({"rules": ()}, r"rules is empty: name at least one rule"),
        ({"rules": ([],)}, r"rules is empty: name at least one rule"),
        ({"rules": "fdgo"}, r"rules must be a sequence of names, but is the string 'fdgo': write \['fdgo'\]"),
        (
            {"rules": ("fdgo", "oic")},
            r"network.n_input = 85, n_rule = 20: rule 'oic' needs 99 inputs, of which 2 are",
        ),
        ({"network": replace(TINY, n_output=32)}, r"network.n_output = 32: must be 33"),
        ({"n_networks": 0}, r"n_networks = 0: must be a whole number >= 1"),
        ({"seed": -1}, r"seed = -1: must be a whole number >= 0"),
        ({"device": "gpu"}, r"device 'gpu' is not a device"),
        ({"rule_weights": {"dm2": 5.0}}, r"unknown rule in training.rule_weights 'dm2': did you mean 'dm1'\?"),
        ({"checkpoint_steps": (9,)}, r"training.checkpoint_steps: step 9 is after the last step, training has 8 steps"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(MultitaskError, match=message):
        short(tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_a_missing_gpu_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(MultitaskError, match="device 'cuda' was requested, but this machine has 0 CUDA devices"):
        short(tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()
