"""Tasks as objects: each draws batches of trials and scores outputs. The twenty rules are such objects, too.

A task of your own is a class with a name, its sizes and a method that draws:

    class Echo(Task):
        name, n_input, n_output = "echo", 1, 1

        def draw(self, n_trials, *, dt, generator):
            x = torch.randn(n_trials, 50, 1, generator=generator)
            return self.batch(x, x.roll(5, 1), dt=dt)

Functions that take rules take tasks alike. In place of a task they also take the text "module:name", where name is a
task or its class, or "module:Class(keyword=value, ...)".
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from multitask.scoring import score_trials
from multitask.tasks.generate import generate_trials
from multitask.tasks.naming import imported, named
from multitask.tasks.rules import TASKS, layout, task_of
from multitask.trials import LOSSES, RULE_LOSSES, MultitaskError, TrialBatch, check_number, check_whole, unknown


class Task(ABC):
    """Something that networks learn.

    Attributes
    ----------
    name : str
        Names of the tasks of one run differ.
    n_input, n_output : int >= 1
        Sizes of a network that fits.
    n_rule : int >= 0
        How many of the inputs, the last ones, tell the network which task to do; 0 unless the task says otherwise.
    losses : tuple of str
        Losses that fit the targets (``training.loss_type``), the usual one first. "mean_square" compares outputs
        without a nonlinearity with targets of any size, "lsq" compares sigmoid outputs with targets between 0 and 1,
        and "cross_entropy" is for targets that are the probabilities of classes.
    tolerance : float > 0
        Largest error of a trial that is right; see `score`.
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
        """Score of each trial in [0, 1], (..., n_trials), from outputs (..., n_trials, n_times, n_output).

        By default 1 for a trial that is right and 0 for others. If targets are classes ("cross_entropy" is among the
        losses), a trial is right if the largest output at the last time step that counts is the class of the target.
        Otherwise it is right if sqrt(mean (mask (output - target))^2), over the times and outputs where the mask is not
        0, is at most `tolerance`.
        """
        if "cross_entropy" in self.losses:
            counts = batch.cost_mask != 0
            counts = counts.any(-1) if counts.dim() == 3 else counts  # (trial, time)
            last = (counts * torch.arange(batch.n_times, device=counts.device)).argmax(1)
            trials = torch.arange(len(last), device=last.device)
            chosen, right = (x.argmax(-1)[..., trials, last] for x in (outputs, batch.targets))
            return (chosen == right).to(outputs)
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
        response: Tensor | None = None,
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
        response : Tensor (n_trials,), rad, optional
            Correct direction, for tasks that are scored by `score_trials`.
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
            response=torch.full((n_trials,), math.nan, device=inputs.device) if response is None else response.float(),
            periods={"trial": (0, n_times)} if periods is None else dict(periods),
            conditions={} if conditions is None else dict(conditions),
            rule=self.name,
            dt=dt,
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of a network that fits: ``NetworkParameters(n_rnn=64, **task.sizes)``."""
        return {"n_input": self.n_input, "n_rule": self.n_rule, "n_output": self.n_output}

    @property
    def identity(self) -> str:
        """How a stored run names the task: "module:Class(attribute=value, ...)".

        Attributes of the task and of its class count, except those whose names begin with an underscore; code does not.
        A run resumes only with a task of the same identity.
        """
        return named(self, Task)


class Rule(Task):
    """One of the rules of Yang et al. (2019).

    Parameters
    ----------
    name : str
        One of `RULES`, or "oic" or "dmc".
    """

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


# ---- tasks by name ---------------------------------------------------------------------------------------------------


def as_task(task: Any) -> Task:
    """The task that a name, "module:name" or a task stands for.

    Raises
    ------
    MultitaskError
        If the rule is unknown, the module or the name in it does not exist, or it is no task, or an incomplete one.
    """
    if isinstance(task, str) and ":" in task:
        return _complete(imported(task, Task))
    if isinstance(task, Task):
        return _complete(task)
    if not isinstance(task, str):
        raise MultitaskError(f"{task!r} is no task: give the name of a rule, a multitask.Task, or 'module:name'")
    return Rule(task)


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


def periods_of(task: Task, dt: float = 20.0) -> tuple[str, ...]:
    """Names of the periods of a task, in order; those of a task that is no rule are found by drawing a trial."""
    if isinstance(task, Rule):
        return tuple(task_of(task.name).timetable)
    return tuple(task.draw(1, dt=dt, generator=torch.Generator().manual_seed(0)).periods)


def _complete(task: Task) -> Task:
    """The task, if it has a name and sizes that can be used."""
    said = f"task {type(task).__name__}"
    for field in ("name", "n_input", "n_output"):
        if not hasattr(task, field):
            raise MultitaskError(f"{said} has no {field}: state name, n_input and n_output")
    if not isinstance(task.name, str) or not task.name:
        raise MultitaskError(f"{said}: name = {task.name!r}: must be text")
    if task.name in TASKS and not isinstance(task, Rule):
        raise MultitaskError(f"{said} is called {task.name!r}, which is the name of a rule: choose another name")
    for field, least in (("n_input", 1), ("n_output", 1), ("n_rule", 0)):
        check_whole(f"task {task.name!r}: {field}", getattr(task, field), least)
    check_number(f"task {task.name!r}: tolerance", task.tolerance, above=0)
    if isinstance(task.losses, str) or not task.losses:
        raise MultitaskError(f"task {task.name!r}: losses = {task.losses!r}: must be a tuple of one or more names")
    for loss in task.losses:
        if loss not in LOSSES:
            raise unknown(f"loss of task {task.name!r}", loss, LOSSES)
    return task


# ---- checked batches and scores --------------------------------------------------------------------------------------


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
    """A checked batch of random trials with input noise, on a device; arguments as in `generate_trials`.

    Only rules have a difficulty: ``easiness`` does not change what another task draws.
    """
    if isinstance(task, Rule):
        return generate_trials(
            task.name, n_trials, dt=dt, tau=tau, noise=noise, generator=generator, loss=loss, easiness=easiness,
            device=device,
        )  # fmt: skip
    batch = task.draw(n_trials, dt=dt, generator=generator)
    _check(task, batch, n_trials, dt, loss)
    inputs = batch.inputs
    if noise > 0:
        sd = noise * math.sqrt(2 * tau / dt)
        inputs = inputs + sd * torch.randn(inputs.shape, generator=generator).to(inputs)
    mask = batch.cost_mask[..., 0] if loss == "cross_entropy" and batch.cost_mask.dim() == 3 else batch.cost_mask
    tensors = {"inputs": inputs, "targets": batch.targets, "cost_mask": mask, "response": batch.response}
    moved = {name: tensor.to(device, torch.float32) for name, tensor in tensors.items()}
    return TrialBatch(**{**vars(batch), **moved, "rule": task.name})


def score(task: Task, outputs: Tensor, batch: TrialBatch) -> Tensor:
    """Checked scores of a task, (..., n_trials)."""
    found = task.score(outputs, batch)
    if not isinstance(task, Rule):
        wanted = tuple(outputs.shape[:-2])
        if not isinstance(found, Tensor) or tuple(found.shape) != wanted:
            came = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise MultitaskError(
                f"task {task.name!r}: score returned {came}: must be one score a trial, shape {wanted}"
            )
        outside = ~((found >= 0) & (found <= 1))  # true for nan
        if bool(outside.any()):
            raise MultitaskError(
                f"task {task.name!r}: score returned {found[outside][0].item():g}: must be between 0 (wrong) and 1 "
                f"(right)"
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
            f"network.n_input = {network.n_input}, n_rule = {network.n_rule}: {kind(task)} {task.name!r} needs "
            f"{task.n_input} inputs, of which {task.n_rule} are rule units"
        )
    if network.n_output != task.n_output:
        of_rule = ", one fixation unit and a ring of 32" if isinstance(task, Rule) else f" for task {task.name!r}"
        raise MultitaskError(f"network.n_output = {network.n_output}: must be {task.n_output}{of_rule}")


def kind(task: Task) -> str:
    """ "rule" or "task"."""
    return "rule" if isinstance(task, Rule) else "task"


def _check(task: Task, batch: Any, n_trials: int, dt: float, loss: str) -> None:
    """Raise a `MultitaskError` unless a batch is as its task says."""
    said = f"task {task.name!r}"
    if not isinstance(batch, TrialBatch):
        raise MultitaskError(f"{said}: draw returned {type(batch).__name__}: must be a TrialBatch")
    if batch.dt != dt:
        raise MultitaskError(f"{said}: the batch has dt = {batch.dt!r}: must be the dt = {dt:g} ms that draw was given")
    n_times = batch.inputs.shape[1] if batch.inputs.dim() == 3 else 0
    for name, width in (("inputs", task.n_input), ("targets", task.n_output)):
        tensor = getattr(batch, name)
        if tuple(tensor.shape) != (n_trials, n_times, width) or not n_times:
            raise MultitaskError(
                f"{said}: {name} have shape {tuple(tensor.shape)}: must be ({n_trials}, n_times, {width}), "
                f"as n_trials = {n_trials} and {'n_input' if name == 'inputs' else 'n_output'} = {width}, with equal "
                f"n_times of inputs and targets"
            )
    for name in ("inputs", "targets", "cost_mask"):
        if not bool(getattr(batch, name).isfinite().all()):
            raise MultitaskError(f"{said}: {name} hold values that are not finite")
    _check_mask(said, batch, loss)
    if loss == "cross_entropy":
        sums = batch.targets.sum(-1)
        if bool(((sums - 1).abs() > 1e-4).any()) or bool((batch.targets < 0).any()):  # float32 sums of few classes
            raise MultitaskError(f"{said}: targets of the loss 'cross_entropy' are probabilities that sum to 1")
    for name, (start, stop) in batch.periods.items():
        if not 0 <= start < stop <= n_times:
            raise MultitaskError(
                f"{said}: period {name!r} is [{start}, {stop}): must lie within the {n_times} time steps, "
                f"and not be empty"
            )
    for name, values in {"response": batch.response, **batch.conditions}.items():
        if tuple(values.shape) != (n_trials,):
            raise MultitaskError(
                f"{said}: {name!r} has shape {tuple(values.shape)}: must be ({n_trials},), one a trial"
            )


def _check_mask(said: str, batch: TrialBatch, loss: str) -> None:
    """Raise a `MultitaskError` unless a cost mask has the shape for a loss, and something counts in every trial."""
    mask, steps = batch.cost_mask, tuple(batch.targets.shape[:2])
    shapes = [tuple(batch.targets.shape), steps] if loss == "cross_entropy" else [tuple(batch.targets.shape)]
    if tuple(mask.shape) not in shapes:
        raise MultitaskError(f"{said}: cost_mask has shape {tuple(mask.shape)}: must be {shapes[0]}, as the targets")
    if loss == "cross_entropy" and mask.dim() == 3 and bool((mask != mask[..., :1]).any()):
        raise MultitaskError(
            f"{said}: with the loss 'cross_entropy' all outputs at a time step have one weight, but the cost_mask "
            f"differs between outputs"
        )
    idle = ~(mask != 0).flatten(1).any(1)
    if bool(idle.any()):
        raise MultitaskError(f"{said}: in trial {int(idle.nonzero()[0])} nothing counts: its cost_mask is 0 everywhere")
