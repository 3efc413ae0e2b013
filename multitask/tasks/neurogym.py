"""Tasks of neurogym (Molano-Mazón et al. 2022) as tasks that networks of this package learn.

An environment of neurogym draws a trial with ``new_trial()``: observations ``ob`` (time, channel) and ground truth
``gt`` (time,), the class of the right action at each time, or (time, output) where actions are continuous. Its data
sets cannot be seeded; here each trial begins with ``env.seed(...)`` of a number drawn from the generator of the batch.

neurogym is not a dependency: it pins older versions of numpy and matplotlib, so it needs an environment of its own.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multitask.tasks.base import Task
from multitask.trials import MultitaskError, TrialBatch, check_number


class NeurogymTask(Task):
    """A task of neurogym; `from_neurogym` makes it.

    Shorter trials of a batch are followed by time steps without input, which do not count. Times at which the right
    action is the first one (fixate) weigh ``fixate_weight`` of others, as there are many more of them.

    Attributes
    ----------
    losses : tuple of str
        ("cross_entropy",) for classes of actions, ("mean_square",) for continuous ones.
    source : str
        Class and parameters of the environment, by which a stored run knows the task.
    """

    def __init__(self, env: Any, source: str, name: str, fixate_weight: float, tolerance: float) -> None:
        self._env = env
        self.source, self.name, self.fixate_weight, self.tolerance = source, name, fixate_weight, tolerance
        shape = tuple(env.observation_space.shape)
        if len(shape) != 1:
            raise MultitaskError(f"task {name!r}: observations have shape {shape}: must be (n_channels,)")
        n_actions = getattr(env.action_space, "n", None)  # of a discrete space
        self.losses = ("mean_square",) if n_actions is None else ("cross_entropy",)
        self.n_input = int(shape[0])
        self.n_output = int(np.prod(env.action_space.shape)) if n_actions is None else int(n_actions)

    def draw(self, n_trials: int, *, dt: float, generator: torch.Generator) -> TrialBatch:
        """A batch of trials, with the period of each environment where it is the same in all of them."""
        env = self._env
        if env.dt != dt:
            raise MultitaskError(
                f"task {self.name!r}: the environment has dt = {env.dt:g} ms, the network dt = {dt:g} ms: "
                f"make the environment with dt={dt:g}"
            )
        trials, periods = [], []
        for seed in torch.randint(2**31, (n_trials,), generator=generator).tolist():
            env.seed(seed)
            conditions = env.new_trial() or {}
            trials.append((np.array(env.ob, np.float32), np.array(env.gt), conditions))
            periods.append({name: (env.start_ind[name], env.end_ind[name]) for name in env.start_ind})
        n_times = max(len(observed) for observed, *_ in trials)
        inputs, targets = torch.zeros(n_trials, n_times, self.n_input), torch.zeros(n_trials, n_times, self.n_output)
        mask = torch.zeros(n_trials, n_times)
        for k, (observed, truth, _) in enumerate(trials):
            n = len(observed)
            inputs[k, :n] = torch.as_tensor(observed)
            targets[k, :n], mask[k, :n] = self._target(truth)
            targets[k, n:] = targets[k, n - 1]
        return self.batch(
            inputs, targets, dt=dt, cost_mask=mask[..., None], periods=_common(periods, n_times),
            conditions=_numbers([conditions for *_, conditions in trials]),
        )  # fmt: skip

    def _target(self, truth: np.ndarray) -> tuple[Tensor, Tensor]:
        """Targets (time, output) of a trial and the weight of each time."""
        if self.losses == ("mean_square",):
            return torch.as_tensor(truth, dtype=torch.float32).reshape(len(truth), -1), torch.ones(len(truth))
        actions = torch.as_tensor(truth.astype(np.int64))
        if not bool(((actions >= 0) & (actions < self.n_output)).all()):
            raise MultitaskError(f"task {self.name!r}: gt holds actions outside 0 to {self.n_output - 1}")
        weights = torch.where(actions == 0, self.fixate_weight, 1.0)
        return torch.nn.functional.one_hot(actions, self.n_output).float(), weights


def from_neurogym(
    env: Any, *, fixate_weight: float = 0.1, tolerance: float = 0.2, name: str | None = None, **options: Any
) -> NeurogymTask:
    """A task of neurogym as a `Task`.

    Parameters
    ----------
    env : str or environment
        Name of a registered environment, "PerceptualDecisionMaking-v0", or an environment, which is copied.
    fixate_weight : float > 0
        Cost of errors while the right action is action 0, relative to other times.
    tolerance : float > 0
        For continuous actions, see `Task`.
    name : str, optional
        Name of the task; by default that of the environment.
    **options
        Passed on when the environment is made: ``dt=20, timing={...}``. ``dt`` must be that of the network.

    Returns
    -------
    NeurogymTask

    Raises
    ------
    MultitaskError
        If neurogym is not installed, the name is unknown, or the environment has no trials.

    Examples
    --------
    ``train([from_neurogym("GoNogo-v0", dt=20)], NetworkParameters(**task.sizes), ...)``
    """
    check_number("fixate_weight", fixate_weight, above=0)
    if isinstance(env, str):
        made, source, called = _made(env, options), f"{env}({_text(options)})", env
    elif options:
        raise MultitaskError(f"{', '.join(options)}: an environment that is made already takes no options")
    else:
        made, called = copy.deepcopy(env), type(env).__name__
        source = f"{type(env).__module__}.{called}({_text(_plain(env))})"
    made = getattr(made, "unwrapped", made)
    missing = [
        field for field in ("new_trial", "seed", "observation_space", "action_space", "dt") if not hasattr(made, field)
    ]
    if missing:
        raise MultitaskError(
            f"env: {type(made).__name__} has no {missing[0]}: give an environment of neurogym with trials"
        )
    return NeurogymTask(made, source, called if name is None else name, float(fixate_weight), tolerance)


def _made(name: str, options: dict[str, Any]) -> Any:
    try:
        import neurogym
    except ImportError as problem:
        raise MultitaskError(
            "from_neurogym needs the package neurogym, which is not installed: pip install neurogym, in an environment "
            "of its own, as it pins older versions of numpy and matplotlib"
        ) from problem
    try:
        return neurogym.make(name, **options)
    except Exception as problem:  # gymnasium raises many kinds
        raise MultitaskError(f"neurogym cannot make {name!r} with {options}: {problem}") from problem


def _plain(env: Any) -> dict[str, Any]:
    """Parameters of an environment that tell it from others; not the state of its present trial."""
    kept = (bool, int, float, str, tuple, list, dict)
    passing = ("t", "t_ind", "tmax", "num_tr", "performance", "trial", "start_t", "end_t", "start_ind", "end_ind")
    return {k: v for k, v in vars(env).items() if isinstance(v, kept) and not k.startswith("_") and k not in passing}


def _text(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_words(options[key])}" for key in sorted(options))


def _words(value: Any) -> str:
    """A value as text that is the same in every process; an object is its class and plain attributes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_words(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_words, value)) + "]"
    text = repr(value)
    return (
        f"{type(value).__name__}({_text(_plain(value))})" if " at 0x" in text and hasattr(value, "__dict__") else text
    )


def _common(periods: list[dict[str, tuple[int, int]]], n_times: int) -> dict[str, tuple[int, int]]:
    """Periods that have the same times in all trials and are not empty; one for the whole trial if there is none."""
    first = periods[0]
    same = {name: at for name, at in first.items() if all(each.get(name) == at for each in periods) and at[0] < at[1]}
    return same or {"trial": (0, n_times)}


def _numbers(trials: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Conditions that are a number in every trial."""
    numeric = [name for name in trials[0] if all(isinstance(t.get(name), int | float | np.number) for t in trials)]
    return {name: torch.tensor([float(t[name]) for t in trials], dtype=torch.float64) for name in numeric}
