"""Any torch model over trials: what its modules return, equal to their own forward, and the model as it was before."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multitask import MultitaskError, generate_trials, record


@pytest.fixture
def inputs(generator) -> Tensor:
    return torch.randn(5, 20, 3, generator=generator)


class StepByStep(nn.Module):
    """A cell in a loop, and a readout of all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.readout, self.dropout = nn.LSTMCell(3, 6), nn.Linear(6, 2), nn.Dropout(0.5)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        state, states = None, []
        for step in x.unbind(1):
            state = self.cell(scale * step, state)
            states.append(state[0])
        return {"y": self.dropout(self.readout(torch.stack(states, 1)))}


@pytest.mark.parametrize("cell", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers_are_recorded_as_their_own_forward(cell, batch_first, inputs):
    model = cell(3, 8, num_layers=2, batch_first=batch_first)
    expected = model(inputs)[0] if batch_first else model(inputs.transpose(0, 1))[0].transpose(0, 1)
    torch.testing.assert_close(record(model, inputs), expected.detach(), rtol=0, atol=1e-6)


def test_layers_of_a_transformer_are_recorded_as_their_own_forward(generator):
    x = torch.randn(4, 10, 8, generator=generator)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True), 2)
    found = record(model, x, ["layers.0", "layers.1"])
    model.eval()
    first = model.layers[0](x)
    torch.testing.assert_close(found["layers.0"], first.detach(), rtol=0, atol=1e-5)  # another kernel under no_grad
    torch.testing.assert_close(found["layers.1"], model.layers[1](first).detach(), rtol=0, atol=1e-5)


def test_cells_are_recorded_step_by_step_and_arguments_are_passed_on(inputs):
    model = StepByStep().eval()
    found = record(model, inputs, ["cell", "readout"], scale=0.5)
    state, expected = None, []
    for step in inputs.unbind(1):
        state = model.cell(0.5 * step, state)
        expected.append(state[0])
    torch.testing.assert_close(found["cell"], torch.stack(expected, 1).detach())
    torch.testing.assert_close(found["readout"], model(inputs, scale=0.5)["y"].detach())


def test_trials_of_unequal_length_are_recorded_without_padding(inputs):
    model = nn.GRU(3, 8, batch_first=True)
    trials = [inputs[0], inputs[1, :12], inputs[2], inputs[3, :5].numpy()]
    found = record(model, trials)
    assert isinstance(found, list)
    for states, trial in zip(found, trials, strict=True):
        torch.testing.assert_close(states, model(torch.as_tensor(trial)[None])[0][0].detach(), rtol=0, atol=1e-6)


def test_trials_of_a_task_and_arrays_are_taken(inputs):
    batch = generate_trials("delaygo", 4, seed=0)
    assert record(nn.GRU(85, 8, batch_first=True), batch).shape == (*batch.inputs.shape[:2], 8)
    model = nn.GRU(3, 8, batch_first=True).double()
    assert record(model, np.asarray(inputs)).dtype == torch.float64


def test_model_is_left_as_it_was(inputs):
    model = StepByStep()
    model.cell.eval()
    before = {name: module.training for name, module in model.named_modules()}
    for _ in range(2):  # without dropout: the same twice
        first, second = record(model, inputs), record(model, inputs)
        assert torch.equal(first, second)
    assert not first.requires_grad
    with pytest.raises(MultitaskError, match="module 'unused' did not run"):
        record(model, inputs, "unused")
    with pytest.raises(RuntimeError):
        record(model, inputs[..., :2])
    assert {name: module.training for name, module in model.named_modules()} == before
    assert not any(module._forward_hooks for module in model.modules())


class Odd(nn.Module):
    def __init__(self, returned: str) -> None:
        super().__init__()
        self.returned, self.inner = returned, nn.Linear(3, 3)

    def forward(self, x: Tensor) -> object:
        twice = self.inner(self.inner(x))
        return {"text": "no tensor", "mean": twice.mean(1), "swapped": twice.transpose(0, 1)}[self.returned]


@pytest.mark.parametrize(
    ("model", "modules", "message"),
    [
        (nn.GRU(3, 4, batch_first=True), "gru", "module 'gru'"),
        (StepByStep(), "cel", "did you mean 'cell'?"),
        (Odd("text"), None, "the model returned str without a tensor in it"),
        (Odd("mean"), None, "returned a tensor of shape (5, 3) for 5 trials of 20 time steps"),
        (
            Odd("swapped"),
            None,
            "returned a tensor of shape (20, 5, 3) for 5 trials of 20 time steps: (trial, time, unit)",
        ),
        (Odd("swapped"), "inner", "module 'inner' ran 2 times in one batch of 20 time steps"),
        (lambda x: x, None, "model came as function: must be an nn.Module"),
        (
            nn.ModuleDict({"a": nn.GRU(3, 4), "b": nn.GRU(3, 4, batch_first=True)}),
            None,
            "modules disagree on batch_first (a False, b True): state batch_first of the model",
        ),
    ],
)
def test_what_cannot_be_recorded_is_named(model, modules, message, inputs):
    with pytest.raises(MultitaskError, match=re.escape(message)):
        record(model, inputs, modules)


@pytest.mark.parametrize("inputs", [torch.zeros(3), [], [torch.zeros(4, 2), torch.zeros(4, 3)], "trials", None])
def test_inputs_that_are_not_trials_are_refused(inputs):
    with pytest.raises(MultitaskError, match="inputs are not trials"):
        record(nn.GRU(3, 4, batch_first=True), inputs)
