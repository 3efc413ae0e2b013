"""Decoded direction, score of a trial, performance per rule, and psychometric curves.

Only the last time step counts, as in the published code. Where the network should keep fixating, a trial is correct if
the fixation unit is above 0.5. Elsewhere it is correct if the fixation unit is at most 0.5 and the direction of the
output is within 36 degrees of the correct response. The direction is the population vector of the output ring,

    direction = atan2(sum_k y_k sin p_k, sum_k y_k cos p_k).

Breaking fixation too early increases the loss but does not change the score.

Source: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from multitask.network import LeakyRNN
from multitask.tasks import TASKS, ContextDecision, Decision, generate_trials, task_of
from multitask.trials import (
    LOSSES,
    MultitaskError,
    TrialBatch,
    check_whole,
    circular_distance,
    preferred_directions,
    unknown,
)

if TYPE_CHECKING:
    import pandas as pd

FIXATES = 0.5
HIT = 0.2 * math.pi  # 36 degrees, of a response
CHOICE = 0.3 * math.pi  # 54 degrees, of a choice in a psychometric curve


def decode_direction(outputs: Tensor) -> Tensor:
    """Direction of the population vector of the output ring.

    If all units of the ring are equal, the direction is undefined and depends on rounding.

    Parameters
    ----------
    outputs : Tensor, (..., 33)

    Returns
    -------
    Tensor, (...,), rad, in [0, 2 pi]
    """
    ring, preferred = outputs[..., 1:], preferred_directions().to(outputs)
    return torch.atan2((ring * preferred.sin()).sum(-1), (ring * preferred.cos()).sum(-1)) % (2 * math.pi)


def score_trials(outputs: Tensor, batch: TrialBatch) -> Tensor:
    """Score each trial by its last time step: 1 if it is correct, otherwise 0.

    Parameters
    ----------
    outputs : Tensor, (..., n_trials, n_times, 33)
        Outputs of one network, or of an ensemble with leading axis (E, n_trials, n_times, 33).
    batch : TrialBatch
        The trials that were shown.

    Returns
    -------
    Tensor, (..., n_trials)
        Where the response is nan ("keep fixating"), 1 if the fixation unit is above 0.5. Elsewhere, 1 if the fixation
        unit is at most 0.5 and the decoded direction is less than 36 degrees from the response.

    Raises
    ------
    MultitaskError
        If the shape of the outputs does not fit the batch, or if outputs are not finite at the last step.
    """
    wanted = (batch.n_trials, batch.n_times, 33)
    if tuple(outputs.shape[-3:]) != wanted:
        raise MultitaskError(
            f"outputs have shape {tuple(outputs.shape)}, but the batch of {batch.rule!r} requires "
            f"(..., {', '.join(map(str, wanted))})"
        )
    last = outputs[..., -1, :]
    if not last.isfinite().all():
        *network, trial = (~last.isfinite().all(-1)).nonzero()[0].tolist()
        where = f"network {network[0]}, " if network else ""
        raise MultitaskError(
            f"outputs are not finite at the last step of {where}trial {trial} of {batch.rule!r}: check whether "
            f"training diverged"
        )
    fixates, stays = last[..., 0] > FIXATES, batch.response.isnan()
    hits = circular_distance(decode_direction(last), batch.response.to(last)) < HIT  # false where the response is nan
    return torch.where(stays, fixates, ~fixates & hits).to(last)


@dataclass(frozen=True, eq=False)
class Performance:
    """Number of correct trials for each network and rule.

    Attributes
    ----------
    rules : tuple of str
    n_correct : (n_networks, n_rules), int
    n_trials : int
        Number of trials of each rule.
    """

    rules: tuple[str, ...]
    n_correct: np.ndarray
    n_trials: int

    @property
    def performance(self) -> np.ndarray:
        """Fraction of correct trials, (n_networks, n_rules), in [0, 1]."""
        return self.n_correct / self.n_trials

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per network and rule: ``network``, ``rule``, ``n_correct``, ``n_trials``, ``performance``."""
        import pandas as pd

        network, rule = np.indices(self.n_correct.shape)
        return pd.DataFrame(
            {
                "network": network.ravel(),
                "rule": np.array(self.rules)[rule.ravel()],
                "n_correct": self.n_correct.ravel(),
                "n_trials": self.n_trials,
                "performance": self.performance.ravel(),
            }
        )


def evaluate(
    network: LeakyRNN,
    rules: Sequence[str],
    *,
    n_trials: int = 512,
    batch_size: int = 32,
    noise: float = 0.01,
    easiness: float = 0.0,
    loss: str = "lsq",
    seed: int = 0,
) -> Performance:
    """Performance of an ensemble on new random trials of each rule, with input noise and private noise.

    All networks see the same trials. Event times differ between batches. The trials of a rule depend only on ``seed``
    and on the rule, not on the other rules.

    Parameters
    ----------
    network : LeakyRNN
    rules : sequence of str, at least one
    n_trials : int >= 1
        Number of trials of each rule; 512 in the published code.
    batch_size : int >= 1
        Maximum number of trials per batch; 32 in the published code.
    noise : float >= 0
        Input noise, as in `generate_trials`.
    easiness : float in [0, 1]
        Difficulty, as in `generate_trials`.
    loss : "lsq" or "cross_entropy"
        The loss that the network was trained with: outputs are the sigmoid or the softmax of its logits.
    seed : int >= 0

    Returns
    -------
    Performance

    Raises
    ------
    MultitaskError
        If ``rules`` is empty or contains an unknown rule, or if another argument is out of range.
    """
    check_rules(rules)
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    check_whole("n_trials", n_trials, 1)
    check_whole("batch_size", batch_size, 1)
    sizes = [min(batch_size, n_trials - start) for start in range(0, n_trials, batch_size)]
    n_correct = np.zeros((network.n_networks, len(rules)), dtype=int)
    for column, rule in enumerate(rules):
        trials, private = generators(seed, rule, network.device)
        for size in sizes:
            batch = generate_trials(
                rule,
                size,
                dt=network.parameters.dt,
                tau=network.parameters.tau,
                noise=noise,
                easiness=easiness,
                generator=trials,
                device=network.device,
            )
            scores = score_trials(respond(network, batch.inputs, loss, private), batch)
            n_correct[:, column] += scores.sum(-1).round().long().cpu().numpy()
    return Performance(tuple(rules), n_correct, n_trials)


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
    loss : "lsq" or "cross_entropy"
        The loss that the network was trained with: sigmoid or softmax outputs.
    generator : torch.Generator or None
        Source of the private noise; None for no noise.

    Returns
    -------
    Tensor, (E, n_trials, n_times, 33)
    """
    logits, _ = network.logits(inputs, generator=generator)
    return torch.softmax(logits, -1) if loss == "cross_entropy" else torch.sigmoid(logits)


def generators(seed: int, rule: str, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Two generators for a seed and a rule: one on the CPU for the trials, one on ``device`` for the private noise."""
    sequence = np.random.SeedSequence([seed, list(TASKS).index(rule)])
    trials, private = (int(state) for state in sequence.generate_state(2, np.uint64))
    return torch.Generator().manual_seed(trials), torch.Generator(device).manual_seed(private)


def check_rules(rules: Sequence[str]) -> None:
    """Raise a `MultitaskError` unless there is at least one rule and all rules are known."""
    if isinstance(rules, str):
        raise MultitaskError(f"rules must be a sequence of names, but is the string {rules!r}: write [{rules!r}]")
    if len(rules) == 0:
        raise MultitaskError("rules is empty: name at least one rule")
    for rule in rules:
        task_of(rule)
