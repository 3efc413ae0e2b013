"""Records what the modules of any torch model do over trials, in the form that `dsa_analysis.compare` takes.

    states = record(model, inputs, modules="rnn")  # (n_trials, n_times, n_units)

A module is recorded by a forward hook: the first tensor that it returns, which is the sequence of states for nn.RNN,
nn.GRU and nn.LSTM. A cell that is called once for each time step is recorded step by step.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from multitask.trials import MultitaskError, TrialBatch, unknown

Recorded = Tensor | list[Tensor]  # (n_trials, n_times, n_units), or (n_times_i, n_units) for each trial
ITSELF = ""  # the name of the model among its modules


def record(
    model: nn.Module,
    inputs: Any,
    modules: str | Sequence[str] | None = None,
    *,
    batch_first: bool | None = None,
    **arguments: Any,
) -> Recorded | dict[str, Recorded]:
    """Run a model over trials and return the outputs of some of its modules.

    The model runs in evaluation mode, without gradients, on its own device and in its own precision. Its modes are put
    back and hooks are removed afterwards, also after an error.

    Parameters
    ----------
    model : nn.Module
        Takes a batch of inputs as its first argument.
    inputs : Tensor or array (n_trials, n_times, n_inputs), TrialBatch, or list of (n_times_i, n_inputs)
        Trials of unequal length are run in batches of equal length, without padding.
    modules : str, or sequence of str, optional
        Names as in ``model.named_modules()``. By default the model itself is recorded.
    batch_first : bool, optional
        Whether the model takes (trial, time, input), and not (time, trial, input). By default as its modules say
        (``batch_first`` of nn.RNN and nn.MultiheadAttention), and true if none says anything.
    **arguments
        Passed to the model.

    Returns
    -------
    Tensor, or list of Tensor
        Of one module: (n_trials, n_times, n_units) on the device of the model, or one (n_times_i, n_units) for each
        trial if lengths are unequal. Axes after the third are flattened into the units.
    dict of name -> Tensor or list of Tensor
        If ``modules`` is a sequence.

    Raises
    ------
    MultitaskError
        A module that does not exist (the nearest name is given), that does not run, or that returns no tensor with a
        value for each trial and time; modules that disagree on ``batch_first``; or inputs that are not trials.

    Examples
    --------
    >>> model = nn.GRU(3, 8, batch_first=True)
    >>> record(model, torch.zeros(5, 20, 3)).shape
    torch.Size([5, 20, 8])
    """
    if not isinstance(model, nn.Module):
        raise MultitaskError(f"model came as {type(model).__name__}: must be an nn.Module")
    names = [ITSELF] if modules is None else [modules] if isinstance(modules, str) else list(modules)
    known = dict(model.named_modules())
    for name in names:
        if name not in known:
            raise unknown("module", name, [found for found in known if found])
    first = _batch_first(known) if batch_first is None else batch_first
    ragged, batches = _batches(inputs)
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    recorded: dict[str, dict[int, Tensor]] = {name: {} for name in names}
    with torch.no_grad(), _evaluating(model):
        for trials, batch in batches:
            x = batch if like is None else batch.to(like.device, like.dtype)
            with _listening({name: known[name] for name in names}) as heard:
                model(x if first else x.transpose(0, 1), **arguments)
            for name in names:
                states = _states(heard[name], name, known[name], first, batch.shape[:2])
                recorded[name] |= dict(zip(trials, states, strict=True))
    found: dict[str, Recorded] = {}
    for name, by_trial in recorded.items():
        ordered = [by_trial[trial] for trial in range(len(by_trial))]
        found[name] = ordered if ragged else torch.stack(ordered)
    return found if modules is not None and not isinstance(modules, str) else found[names[0]]


def _batches(inputs: Any) -> tuple[bool, list[tuple[list[int], Tensor]]]:
    """Whether trials have unequal lengths, and batches of equal length with the places of their trials."""
    if isinstance(inputs, TrialBatch):
        inputs = inputs.inputs
    try:
        trials = [torch.as_tensor(trial) for trial in inputs]
    except (TypeError, ValueError, RuntimeError):
        trials = []
    shapes = {tuple(trial.shape[1:]) for trial in trials}
    if not trials or any(trial.dim() != 2 or not len(trial) for trial in trials) or len(shapes) > 1:
        raise MultitaskError(
            "inputs are not trials: give (n_trials, n_times, n_inputs), a TrialBatch, or a list of (n_times, n_inputs) "
            "with the same number of inputs"
        )
    by_length: dict[int, list[int]] = {}
    for place, trial in enumerate(trials):
        by_length.setdefault(len(trial), []).append(place)
    ragged = len(by_length) > 1
    return ragged, [(places, torch.stack([trials[place] for place in places])) for places in by_length.values()]


def _batch_first(known: dict[str, nn.Module]) -> bool:
    said = {name: bool(module.batch_first) for name, module in known.items() if hasattr(module, "batch_first")}
    if len(set(said.values())) > 1:
        listed = ", ".join(f"{name or 'the model'} {value}" for name, value in said.items())
        raise MultitaskError(f"modules disagree on batch_first ({listed}): state batch_first of the model")
    return next(iter(said.values()), True)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _listening(modules: dict[str, nn.Module]) -> Iterator[dict[str, list[Any]]]:
    """All that the modules return until the block ends."""
    heard: dict[str, list[Any]] = {name: [] for name in modules}
    with ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(lambda _, __, output, to=heard[name]: to.append(output))
            stack.callback(handle.remove)
        yield heard


def _states(outputs: list[Any], name: str, module: nn.Module, first: bool, shape: torch.Size) -> Tensor:
    """(n_trials, n_times, n_units) from what a module returned, once or at each time step."""
    called = f"module {name!r}" if name else "the model"
    if not outputs:
        raise MultitaskError(f"{called} did not run")
    tensors = [_first_tensor(output) for output in outputs]
    if any(tensor is None for tensor in tensors):
        raise MultitaskError(f"{called} returned {type(outputs[0]).__name__} without a tensor in it")
    n_trials, n_times = shape
    found = tensors[0]
    if len(tensors) == n_times and all(tensor.dim() >= 2 and len(tensor) == n_trials for tensor in tensors):  # type: ignore[union-attr,arg-type]
        return torch.stack(tensors, 1).flatten(2)  # type: ignore[arg-type]
    if len(tensors) > 1:
        raise MultitaskError(
            f"{called} ran {len(tensors)} times in one batch of {n_times} time steps: record a module that runs once, "
            f"or once for each step"
        )
    assert found is not None
    own = bool(getattr(module, "batch_first", first))
    if found.dim() < 3 or tuple(found.shape[:2]) != ((n_trials, n_times) if own else (n_times, n_trials)):
        order = "(trial, time, unit)" if own else "(time, trial, unit)"
        raise MultitaskError(
            f"{called} returned a tensor of shape {tuple(found.shape)} for {n_trials} trials of {n_times} time steps: "
            f"{order} is needed; batch_first says which of the two comes first"
        )
    return (found if own else found.transpose(0, 1)).flatten(2)


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else []
    return next((tensor for part in parts if (tensor := _first_tensor(part)) is not None), None)
