"""Training runs of a few steps, and how they are compared."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from multitask import storage
from multitask.network import NetworkParameters
from multitask.training import (
    Run,
    TrainingParameters,
    train,
)
from multitask.training.loop import Trainer

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
    """A log without its only column that depends on the machine."""
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


def interrupted(folder, step: int, **changes) -> None:
    """A run that is interrupted (Ctrl-C) before a step."""

    def advance(self):
        if self.step == step:
            raise KeyboardInterrupt
        original(self)

    original = Trainer.advance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "advance", advance)
        with pytest.raises(KeyboardInterrupt):
            short(folder, **changes)
