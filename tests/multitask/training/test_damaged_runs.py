"""Damaged files of a run: whatever bytes change, it is read as it was, or refused by a MultitaskError that names it."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from multitask import MultitaskError, NetworkParameters, Run, TrainingParameters, load_run, train
from tests.dsa_analysis.test_damaged_files import mutated

TRAINING = TrainingParameters(n_steps=6, batch_size=4, evaluate_every=3, n_test_batches=1, test_batch_size=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(["fdgo", "delaygo"], NetworkParameters(n_rnn=8), TRAINING, run_folder=folder, progress=False)


def same(one: Run, other: Run) -> bool:
    weights = (torch.equal(one.network.weights[name], weight) for name, weight in other.network.weights.items())
    return all(weights) and one.log.equals(other.log) and one.settings == other.settings


def check(run: Run, name: str, n_mutations: int, seed: int = 0) -> int:
    """Read the run with mutated copies of a file; the number of refusals."""
    path, refused, generator = Path(run.folder) / name, 0, np.random.default_rng(seed)
    raw = path.read_bytes()
    try:
        for k in range(n_mutations):
            path.write_bytes(mutated(raw, generator)[0])
            try:
                assert same(load_run(run.folder), run), f"mutation {k}"
            except MultitaskError as problem:
                assert str(run.folder) in str(problem)  # noqa: PT017
                refused += 1
    finally:
        path.write_bytes(raw)
    return refused


@pytest.mark.parametrize("name", ["settings.json", "log.csv"])
def test_changed_bytes_are_refused_or_change_nothing(run, name):
    assert check(run, name, 60) > 40


@pytest.mark.slow
@pytest.mark.parametrize("name", ["settings.json", "log.csv"])
def test_five_hundred_changes_are_refused_or_change_nothing(run, name):
    assert check(run, name, 500, seed=1) > 300


def test_damaged_checkpoint_is_told_and_the_one_before_it_is_used(run):
    path, generator = Path(run.folder) / "checkpoints" / "step_0000006.safetensors", np.random.default_rng(0)
    raw = path.read_bytes()
    for _ in range(20):
        path.write_bytes(mutated(raw, generator)[0])
        if path.read_bytes() != raw:
            with pytest.warns(UserWarning, match=r"checkpoint step 6 in .* is damaged: .*; the checkpoint before it"):
                before = load_run(run.folder)
            assert before.checkpoints[-1] < 6
            assert before.log["step"].max() < 6
    path.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(load_run(run.folder), run)


def test_log_that_is_gone_leaves_the_networks(run):
    path = Path(run.folder) / "log.csv"
    raw = path.read_bytes()
    path.unlink()
    assert load_run(run.folder).log.empty
    path.write_bytes(raw.replace(b"easy", b"esay") if b"easy" in raw else raw.replace(b"fdgo", b"fdog", 1))
    with pytest.raises(MultitaskError, match=r"log.csv is damaged .*: restore it, or delete it to go on without"):
        load_run(run.folder)
    path.write_bytes(raw)
