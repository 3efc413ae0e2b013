"""Performance of ensembles per task, and psychometric curves. How a trial of a rule is scored is in `scoring`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from multitask.network import LeakyRNN
from multitask.scoring import decode_direction
from multitask.tasks import TASKS, ContextDecision, Decision, generate_trials, task_of
from multitask.tasks.base import Rule, Task, as_tasks, check_fit, check_loss, draw_trials, score
from multitask.trials import LOSSES, MultitaskError, check_whole, circular_distance, unknown

if TYPE_CHECKING:
    import pandas as pd

CHOICE = 0.3 * math.pi  # 54 degrees, of a choice in a psychometric curve


@dataclass(frozen=True, eq=False)
class Performance:
    """Number of correct trials for each network and rule.

    Attributes
    ----------
    rules : tuple of str
    n_correct : (n_networks, n_rules), int
        Sum of the scores: not whole numbers (float) if a task gives scores between 0 and 1.
    n_trials : int
        Number of trials of each rule.
    difficulty : tuple of str
        Difficulty of the trials of each rule: "standard", "easy", or "easiness 0.5" for values in between. Tasks that
        are no rules have no other difficulty than "standard".
    """

    rules: tuple[str, ...]
    n_correct: np.ndarray
    n_trials: int
    difficulty: tuple[str, ...]

    @property
    def performance(self) -> np.ndarray:
        """Fraction of correct trials, (n_networks, n_rules), in [0, 1]."""
        return self.n_correct / self.n_trials

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per network and rule: ``network``, ``rule``, ``difficulty``, ``n_correct``, ``n_trials``,
        ``performance``."""
        import pandas as pd

        network, rule = np.indices(self.n_correct.shape)
        return pd.DataFrame(
            {
                "network": network.ravel(),
                "rule": np.array(self.rules)[rule.ravel()],
                "difficulty": np.array(self.difficulty)[rule.ravel()],
                "n_correct": self.n_correct.ravel(),
                "n_trials": self.n_trials,
                "performance": self.performance.ravel(),
            }
        )


def evaluate(
    network: LeakyRNN,
    rules: Sequence[str | Task],
    *,
    n_trials: int = 512,
    batch_size: int = 32,
    noise: float = 0.01,
    easiness: float = 0.0,
    loss: str | None = None,
    seed: int = 0,
) -> Performance:
    """Performance of an ensemble on new random trials of each rule, with input noise and private noise.

    All networks see the same trials. Event times differ between batches. The trials of a rule depend only on ``seed``
    and on the rule, not on the other rules.

    Parameters
    ----------
    network : LeakyRNN
    rules : sequence of str or Task, at least one
        Names of rules, tasks, or "module:name" of a task.
    n_trials : int >= 1
        Number of trials of each rule; 512 in the published code.
    batch_size : int >= 1
        Maximum number of trials per batch; 32 in the published code.
    noise : float >= 0
        Input noise, as in `generate_trials`.
    easiness : float in [0, 1]
        Difficulty, as in `generate_trials`.
    loss : "lsq", "cross_entropy" or "mean_square", optional
        The loss that the network was trained with: outputs are the sigmoid or the softmax of its logits, or the logits.
        By default the usual loss of each task, which is "lsq" for rules.
    seed : int >= 0

    Returns
    -------
    Performance

    Raises
    ------
    MultitaskError
        If ``rules`` is empty or contains an unknown rule, if a task does not fit the network, draws a batch that is not
        as it says or scores outside 0 and 1, or if another argument is out of range.
    """
    tasks = as_tasks(rules)
    if loss is not None and loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    check_whole("n_trials", n_trials, 1)
    check_whole("batch_size", batch_size, 1)
    sizes = [min(batch_size, n_trials - start) for start in range(0, n_trials, batch_size)]
    losses = [check_loss(task, loss) for task in tasks.values()]
    for task in tasks.values():
        check_fit(task, network.parameters)
    n_correct = np.zeros((network.n_networks, len(tasks)))
    for column, (task, own_loss) in enumerate(zip(tasks.values(), losses, strict=True)):
        trials, private = generators(seed, task.name, network.device)
        for size in sizes:
            batch = draw_trials(
                task,
                size,
                dt=network.parameters.dt,
                tau=network.parameters.tau,
                noise=noise,
                easiness=easiness,
                generator=trials,
                loss="lsq" if isinstance(task, Rule) else own_loss,
                device=network.device,
            )
            scores = score(task, respond(network, batch.inputs, own_loss, private), batch)
            n_correct[:, column] += scores.double().sum(-1).cpu().numpy()
    whole = bool((n_correct == n_correct.round()).all())
    difficulty = tuple(difficulty_of(task, easiness) for task in tasks.values())
    return Performance(tuple(tasks), n_correct.astype(int) if whole else n_correct, n_trials, difficulty)


def difficulty_of(task: Task, easiness: float) -> str:
    """Difficulty of the trials of a task, in words, as in `Performance`."""
    if not isinstance(task, Rule):
        return "standard"
    return {0.0: "standard", 1.0: "easy"}.get(float(easiness), f"easiness {easiness:g}")


@dataclass(frozen=True, eq=False)
class PsychometricCurve:
    """How often each network chose the first of two stimuli, for each coherence.

    Attributes
    ----------
    rule : str
    coherences : (n_coherences,)
        Half of the difference in strength; positive where the first stimulus is stronger.
    n_first, n_second : (n_networks, n_coherences), int
        Number of trials with a decoded direction less than 54 degrees from the first or the second stimulus. All other
        trials chose neither.
    """

    rule: str
    coherences: np.ndarray
    n_first: np.ndarray
    n_second: np.ndarray

    @property
    def proportion(self) -> np.ndarray:
        """Fraction of choices of the first stimulus, (n_networks, n_coherences); nan if neither was ever chosen."""
        with np.errstate(invalid="ignore"):
            return self.n_first / (self.n_first + self.n_second)

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per network and coherence: ``network``, ``coherence``, ``n_first``, ``n_second``, ``proportion``."""
        import pandas as pd

        network, coherence = np.indices(self.n_first.shape)
        return pd.DataFrame(
            {
                "network": network.ravel(),
                "coherence": self.coherences[coherence.ravel()],
                "n_first": self.n_first.ravel(),
                "n_second": self.n_second.ravel(),
                "proportion": self.proportion.ravel(),
            }
        )


def psychometric_curve(
    network: LeakyRNN,
    rule: str,
    coherences: Sequence[float],
    *,
    times: Mapping[str, float],
    ignored: float = 0.0,
    n_trials: int = 100,
    noise: float = 0.01,
    loss: str = "lsq",
    seed: int = 0,
) -> PsychometricCurve:
    """Choices of an ensemble in a decision rule as a function of coherence.

    The two stimuli have strengths 1 + c and 1 - c and opposite directions. The first stimulus is shown at ``n_trials``
    directions, equally spaced around the circle. A stimulus counts as chosen if the decoded direction at the last time
    step is less than 54 degrees from it, whatever the fixation unit does.

    Parameters
    ----------
    network : LeakyRNN
    rule : str
        A rule with coherences, such as "dm1" or "contextdm1".
    coherences : sequence of float, at least one
        c, of either sign.
    times : mapping name -> time, ms
        Times that the psychometric mode of the rule requires, such as ``{"stim_time": 800}``.
    ignored : float
        Coherence in the modality that a context rule ignores.
    n_trials : int >= 1
        Number of trials for each coherence.
    noise : float >= 0
        Input noise, as in `generate_trials`.
    loss : "lsq" or "cross_entropy"
        The loss that the network was trained with, as in `evaluate`.
    seed : int >= 0

    Returns
    -------
    PsychometricCurve

    Raises
    ------
    MultitaskError
        If the rule has no coherence, ``coherences`` is empty, or times are missing.
    """
    design = task_of(rule).design
    if not isinstance(design, Decision | ContextDecision):
        decisions = [name for name, task in TASKS.items() if isinstance(task.design, Decision | ContextDecision)]
        raise MultitaskError(f"rule {rule!r} has no coherence to vary; choose from {', '.join(decisions)}")
    check_whole("n_trials", n_trials, 1)
    if len(coherences) == 0:
        raise MultitaskError("coherences is empty: give at least one coherence")
    coherence = torch.tensor(coherences, dtype=torch.float64).repeat_interleave(n_trials)
    first = 2 * math.pi * torch.arange(n_trials, dtype=torch.float64).repeat(len(coherences)) / n_trials
    trials, private = generators(seed, rule, network.device)
    batch = generate_trials(
        rule,
        mode="psychometric",
        dt=network.parameters.dt,
        tau=network.parameters.tau,
        noise=noise,
        generator=trials,
        conditions={
            "direction1": first,
            "direction2": (first + math.pi) % (2 * math.pi),
            **design.strengths_at(coherence, torch.full_like(coherence, ignored)),
            **times,
        },
        device=network.device,
    )
    angle = decode_direction(respond(network, batch.inputs, loss, private)[..., -1, :]).cpu()
    n_first, n_second = (
        (circular_distance(angle, batch.conditions[name].to(angle)) < CHOICE)
        .unflatten(-1, (len(coherences), n_trials))
        .sum(-1)
        .numpy()
        for name in ("direction1", "direction2")
    )
    return PsychometricCurve(rule, np.asarray(coherences, dtype=float), n_first, n_second)


@torch.no_grad()
def respond(network: LeakyRNN, inputs: Tensor, loss: str, generator: torch.Generator | None) -> Tensor:
    """Outputs of an ensemble, without gradients.

    Parameters
    ----------
    network : LeakyRNN
    inputs : Tensor, (n_trials, n_times, n_input)
    loss : "lsq", "cross_entropy" or "mean_square"
        The loss that the network was trained with: sigmoid or softmax of the logits, or the logits.
    generator : torch.Generator or None
        Source of the private noise; None for no noise.

    Returns
    -------
    Tensor, (E, n_trials, n_times, 33)
    """
    return read_out(network.logits(inputs, generator=generator)[0], loss)


def read_out(logits: Tensor, loss: str) -> Tensor:
    """Outputs of networks that were trained with a loss."""
    if loss == "mean_square":
        return logits
    return torch.softmax(logits, -1) if loss == "cross_entropy" else torch.sigmoid(logits)


def generators(seed: int, rule: str, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Two generators for a seed and a rule: one on the CPU for the trials, one on ``device`` for the private noise."""
    key = [list(TASKS).index(rule)] if rule in TASKS else [len(TASKS), *rule.encode()]
    sequence = np.random.SeedSequence([seed, *key])
    trials, private = (int(state) for state in sequence.generate_state(2, np.uint64))
    return torch.Generator().manual_seed(trials), torch.Generator(device).manual_seed(private)


def check_rules(rules: Sequence[str | Task]) -> None:
    """Raise a `MultitaskError` unless there is at least one rule or task and all are known."""
    as_tasks(rules)
