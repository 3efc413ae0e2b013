"""Tasks as objects: each draws batches of trials and scores outputs. The twenty rules are such objects, too.

A task of your own is a class with a name, its sizes and a method that draws:

    class Echo(Task):
        name, n_input, n_output = "echo", 1, 1

        def draw(self, n_trials, *, dt, generator):
            x = torch.randn(n_trials, 50, 1, generator=generator)
            return self.batch(x, x.roll(5, 1), dt=dt)

Functions that take rules take tasks alike, and "module:Echo" in place of a name.
"""

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from multitask.scoring import score_trials
from multitask.tasks.generate import generate_trials
from multitask.tasks.rules import layout, task_of
from multitask.trials import LOSSES, RULE_LOSSES, MultitaskError, TrialBatch


class Task(ABC):
    """Something that networks learn.

    Attributes
    ----------
    name : str
        Names of the tasks of one run differ.
    n_input, n_output : int
        Sizes of a network that fits. Networks have ``n_rule = 0``, unless the task says otherwise.
    n_rule : int
    losses : tuple of str
        Losses that fit the targets (``training.loss_type``), the usual one first. "mean_square" compares outputs
        without a nonlinearity with targets of any size.
    tolerance : float > 0
        A trial is right if the root mean square of its masked error is at most this; see `score`.
    """

    name: str
    n_input: int
    n_output: int
    n_rule: int = 0
    losses: tuple[str, ...] = ("mean_square",)
    tolerance: float = 0.2

    @abstractmethod
    def draw(self, n_trials: int, *, dt: float, generator: torch.Generator) -> TrialBatch:
        """Draw a batch of trials, for example by `batch`.

        Parameters
        ----------
        n_trials : int >= 1
        dt : float, ms
            Length of a time step.
        generator : torch.Generator, on the CPU
            The only source of random numbers.
        """

    def score(self, outputs: Tensor, batch: TrialBatch) -> Tensor:
        """1 for each trial that is right and 0 for others, (..., n_trials), from outputs (..., n_trials, n_times, n).

        By default a trial is right if sqrt(mean (mask (output - target))^2), over its times and outputs where the mask
        is not 0, is at most `tolerance`.
        """
        mask = batch.cost_mask.expand_as(batch.targets)
        error = ((outputs - batch.targets) * mask).square().sum((-1, -2)) / (mask != 0).sum((-1, -2))
        return (error.sqrt() <= self.tolerance).to(outputs)

    def batch(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        dt: float,
        cost_mask: Tensor | None = None,
        periods: Mapping[str, tuple[int, int]] | None = None,
        conditions: Mapping[str, Tensor] | None = None,
    ) -> TrialBatch:
        """A `TrialBatch` of this task.

        Parameters
        ----------
        inputs, targets : Tensor (n_trials, n_times, n_input) and (n_trials, n_times, n_output)
        dt : float, ms
        cost_mask : Tensor that broadcasts to the targets, optional
            Weight of errors; by default 1 everywhere.
        periods : mapping of name -> (start, stop), optional
            In time steps; by default one period, "trial".
        conditions : mapping of name -> (n_trials,), optional
            What was shown in each trial.
        """
        n_trials, n_times = inputs.shape[:2]
        mask = (torch.ones(()) if cost_mask is None else cost_mask).float().to(targets.device)
        try:
            mask = mask.expand(targets.shape)
        except RuntimeError as problem:
            raise MultitaskError(
                f"task {self.name!r}: targets of shape {tuple(targets.shape)} and a cost_mask of shape "
                f"{tuple(mask.shape)}, which does not broadcast to it"
            ) from problem
        return TrialBatch(
            inputs=inputs.float(),
            targets=targets.float(),
            cost_mask=mask,
            response=torch.full((n_trials,), math.nan, device=inputs.device),
            periods={"trial": (0, n_times)} if periods is None else dict(periods),
            conditions={} if conditions is None else dict(conditions),
            rule=self.name,
            dt=dt,
        )

    @property
    def identity(self) -> str:
        """What a stored run remembers of a task: its class and all its attributes."""
        own = ", ".join(f"{name}={value!r}" for name, value in sorted(vars(self).items()))
        return f"{type(self).__module__}:{type(self).__qualname__}({own})"


class Rule(Task):
    """One of the rules of Yang et al. (2019)."""

    losses: tuple[str, ...] = RULE_LOSSES
    n_output: int = 33

    def __init__(self, name: str) -> None:
        task_of(name)
        wanted = layout(name)
        self.name, self.n_input, self.n_rule = name, wanted.n_inputs, len(wanted.rules)

    def draw(self, n_trials: int, *, dt: float, generator: torch.Generator) -> TrialBatch:
        """A batch of random trials without noise; `generate_trials` has all the choices."""
        return generate_trials(self.name, n_trials, dt=dt, tau=max(dt, 100.0), noise=0.0, generator=generator)

    def score(self, outputs: Tensor, batch: TrialBatch) -> Tensor:
        """`score_trials`."""
        return score_trials(outputs, batch)

    @property
    def identity(self) -> str:
        """The name."""
        return self.name


def as_task(task: Any) -> Task:
    """The task that a name, "module:name" or a task stands for.

    Raises
    ------
    MultitaskError
        If the rule is unknown, the module or the name in it does not exist, or it is no task.
    """
    if isinstance(task, Task):
        return task
    if not isinstance(task, str) or ":" not in task:
        return Rule(task)
    module, _, name = task.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise MultitaskError(f"task {task!r} cannot be imported: {problem}") from problem
    found = found() if isinstance(found, type) and issubclass(found, Task) else found
    if not isinstance(found, Task):
        raise MultitaskError(f"task {task!r} is {type(found).__name__}: must be a multitask.Task")
    return found


def as_tasks(tasks: Sequence[Any]) -> dict[str, Task]:
    """Tasks by name, in order; raises a `MultitaskError` if two have one name, or if there is none."""
    if isinstance(tasks, str):
        raise MultitaskError(f"rules must be a sequence of names, but is the string {tasks!r}: write [{tasks!r}]")
    if not isinstance(tasks, Iterable) or not len(tasks):
        raise MultitaskError("rules is empty: name at least one rule")
    found: dict[str, Task] = {}
    for task in map(as_task, tasks):
        if found.get(task.name, task).identity != task.identity:
            raise MultitaskError(f"two tasks are called {task.name!r}: give one of them another name")
        found[task.name] = task
    return found


def draw_trials(
    task: Task,
    n_trials: int,
    *,
    dt: float,
    tau: float,
    noise: float,
    generator: torch.Generator,
    loss: str,
    easiness: float,
    device: torch.device,
) -> TrialBatch:
    """A checked batch of random trials with input noise, on a device; arguments as in `generate_trials`."""
    if isinstance(task, Rule):
        return generate_trials(
            task.name, n_trials, dt=dt, tau=tau, noise=noise, generator=generator, loss=loss, easiness=easiness,
            device=device,
        )  # fmt: skip
    batch = task.draw(n_trials, dt=dt, generator=generator)
    _check(task, batch, n_trials)
    inputs = batch.inputs
    if noise > 0:
        sd = noise * math.sqrt(2 * tau / dt)
        inputs = inputs + sd * torch.randn(inputs.shape, generator=generator).to(inputs)
    moved = {"inputs": inputs.to(device)} | {
        name: getattr(batch, name).to(device) for name in ("targets", "cost_mask", "response")
    }
    return TrialBatch(**{**vars(batch), **moved})


def score(task: Task, outputs: Tensor, batch: TrialBatch) -> Tensor:
    """Checked scores of a task, (..., n_trials)."""
    found = task.score(outputs, batch)
    if not isinstance(task, Rule):
        fits = isinstance(found, Tensor) and found.shape == outputs.shape[:-2]
        if not fits or not bool(((found == 0) | (found == 1)).all()):
            raise MultitaskError(
                f"task {task.name!r}: score must be 0 or 1 for each trial, shape {tuple(outputs.shape[:-2])}"
            )
    return found


def check_loss(task: Task, loss: str | None) -> str:
    """The loss to use, the usual one of the task for None; raises a `MultitaskError` if it does not fit."""
    if loss is not None and loss not in task.losses:
        fitting = " or ".join(map(repr, task.losses))
        if loss in LOSSES:
            raise MultitaskError(f"task {task.name!r} needs the loss {fitting} (training.loss_type), not {loss!r}")
    return task.losses[0] if loss is None else loss


def check_fit(task: Task, network: Any) -> None:
    """Raise a `MultitaskError` unless the sizes of `NetworkParameters` fit a task."""
    if (network.n_input, network.n_rule) != (task.n_input, task.n_rule):
        raise MultitaskError(
            f"network.n_input = {network.n_input}, n_rule = {network.n_rule}: {_kind(task)} {task.name!r} needs "
            f"{task.n_input} inputs, of which {task.n_rule} are rule units"
        )
    if network.n_output != task.n_output:
        of_rule = ", one fixation unit and a ring of 32" if isinstance(task, Rule) else f" for task {task.name!r}"
        raise MultitaskError(f"network.n_output = {network.n_output}: must be {task.n_output}{of_rule}")


def _kind(task: Task) -> str:
    return "rule" if isinstance(task, Rule) else "task"


def _check(task: Task, batch: Any, n_trials: int) -> None:
    if not isinstance(batch, TrialBatch):
        raise MultitaskError(f"task {task.name!r}: draw returned {type(batch).__name__}: must be a TrialBatch")
    n_times = batch.inputs.shape[1] if batch.inputs.dim() == 3 else 0
    for name, width in (("inputs", task.n_input), ("targets", task.n_output)):
        tensor = getattr(batch, name)
        if tuple(tensor.shape) != (n_trials, n_times, width) or not n_times:
            raise MultitaskError(
                f"task {task.name!r}: {name} have shape {tuple(tensor.shape)}: must be ({n_trials}, n_times, {width}), "
                f"as n_trials = {n_trials} and {'n_input' if name == 'inputs' else 'n_output'} = {width}"
            )
    for name in ("inputs", "targets", "cost_mask"):
        if not bool(getattr(batch, name).isfinite().all()):
            raise MultitaskError(f"task {task.name!r}: {name} hold values that are not finite")
    for name, (start, stop) in batch.periods.items():
        if not 0 <= start < stop <= n_times:
            raise MultitaskError(
                f"task {task.name!r}: period {name!r} is [{start}, {stop}): must lie within the {n_times} time steps, "
                f"and not be empty"
            )
