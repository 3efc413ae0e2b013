"""Was the answer right? Decoded direction, score of a trial, performance per rule, psychometric curves.

Only the last time step counts, as in the original: a trial is right if the network fixates there (fixation unit above
0.5) where it should, or else has left fixation and points within 36 degrees of the right direction. Its direction is
the population vector of the output ring,

    direction = atan2(sum_k y_k sin p_k, sum_k y_k cos p_k).

Nothing is asked of the steps before: leaving fixation too early costs loss, not score.

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
    """Direction that the output ring points to, (..., 33) -> (...,), rad in [0, 2 pi].

    The population vector of the ring. Without any difference between the units it is undefined, and rounding decides.
    """
    ring, preferred = outputs[..., 1:], preferred_directions().to(outputs)
    return torch.atan2((ring * preferred.sin()).sum(-1), (ring * preferred.cos()).sum(-1)) % (2 * math.pi)


def score_trials(outputs: Tensor, batch: TrialBatch) -> Tensor:
    """Score each trial 1 (right) or 0 by its last time step.

    Parameters
    ----------
    outputs : (..., n_trials, n_times, 33)
        Outputs of one network, or of an ensemble with its axis in front.
    batch : TrialBatch
        The trials that were shown.

    Returns
    -------
    Tensor, (..., n_trials)
        1 where the fixation unit is above 0.5 and should be, or is not, should not be, and the decoded direction lies
        less than 36 degrees from the response; 0 elsewhere.

    Raises
    ------
    MultitaskError
        Outputs of another shape, or not finite at the last step.
    """
    wanted = (batch.n_trials, batch.n_times, 33)
    if tuple(outputs.shape[-3:]) != wanted:
        raise MultitaskError(
            f"outputs have shape {tuple(outputs.shape)}, but the batch of {batch.rule!r} needs (..., {wanted})"
        )
    last = outputs[..., -1, :]
    if not last.isfinite().all():
        *network, trial = (~last.isfinite().all(-1)).nonzero()[0].tolist()
        where = f"network {network[0]}, " if network else ""
        raise MultitaskError(
            f"outputs are not finite at the last step of {where}trial {trial} of {batch.rule!r}: did training diverge?"
        )
    fixates, stays = last[..., 0] > FIXATES, batch.response.isnan()
    hits = circular_distance(decode_direction(last), batch.response.to(last)) < HIT  # false where the response is nan
    return torch.where(stays, fixates, ~fixates & hits).to(last)


@dataclass(frozen=True, eq=False)
class Performance:
    """How many trials of each rule each network got right.

    Attributes
    ----------
    rules : tuple of str
    n_correct : (n_networks, n_rules), int
    n_trials : int
        Trials of each rule.
    """

    rules: tuple[str, ...]
    n_correct: np.ndarray
    n_trials: int

    @property
    def performance(self) -> np.ndarray:
        """Share of right trials, (n_networks, n_rules), in [0, 1]."""
        return self.n_correct / self.n_trials

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a network and rule: ``network``, ``rule``, ``n_correct``, ``n_trials``, ``performance``."""
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
    """Performance of an ensemble on fresh random trials of each rule, with input noise and private noise.

    Each batch has event times of its own, and all networks see the same trials. The trials of a rule depend on ``seed``
    and on the rule, not on the other rules asked for.

    Parameters
    ----------
    network : LeakyRNN
    rules : names, at least one
    n_trials, batch_size : int >= 1
        Trials of a rule, in batches of at most that size; 512 and 32 in the original.
    noise, easiness
        As in `generate_trials`.
    loss : "lsq" or "cross_entropy"
        What the network was trained with: its outputs are sigmoid or softmax of the same sums.
    seed : int >= 0

    Raises
    ------
    MultitaskError
        No rule, an unknown rule, a number below 1.
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
    """How often each network chose the first of two stimuli.

    Attributes
    ----------
    rule : str
    coherences : (n_coherences,)
        Half of the difference in strength; positive where the first stimulus is the stronger one.
    n_first, n_second : (n_networks, n_coherences), int
        Trials with a direction less than 54 degrees from the first, or the second, stimulus. The rest chose neither.
    """

    rule: str
    coherences: np.ndarray
    n_first: np.ndarray
    n_second: np.ndarray

    @property
    def proportion(self) -> np.ndarray:
        """Share of first choices among the choices, (n_networks, n_coherences), nan where there were none."""
        with np.errstate(invalid="ignore"):
            return self.n_first / (self.n_first + self.n_second)

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a network and coherence: ``network``, ``coherence``, ``n_first``, ``n_second``, ``proportion``."""
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
    """Choices of an ensemble against the strength of the evidence.

    The two stimuli have strengths 1 + c and 1 - c and stand opposite to each other, the first one at ``n_trials``
    directions all round. A choice is a decoded direction less than 54 degrees from a stimulus at the last step;
    fixation is not asked for.

    Parameters
    ----------
    network : LeakyRNN
    rule : a decision rule
    coherences : c, at least one, of either sign
    times : ms
        The times of the rule's psychometric mode, such as ``{"stim_time": 800}``.
    ignored : coherence in the modality that a context rule tells to ignore
    n_trials : int >= 1
        Trials of each coherence.
    noise, loss, seed
        As in `evaluate`.
    """
    design = task_of(rule).design
    if not isinstance(design, Decision | ContextDecision):
        decisions = [name for name, task in TASKS.items() if isinstance(task.design, Decision | ContextDecision)]
        raise MultitaskError(f"rule {rule!r} has no coherence to vary; rules that have are {', '.join(decisions)}")
    check_whole("n_trials", n_trials, 1)
    if len(coherences) == 0:
        raise MultitaskError("coherences is empty: a curve needs at least one")
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
    """Outputs of an ensemble, (E, n_trials, n_times, 33): softmax after training with cross-entropy, else sigmoid."""
    logits, _ = network.logits(inputs, generator=generator)
    return torch.softmax(logits, -1) if loss == "cross_entropy" else torch.sigmoid(logits)


def generators(seed: int, rule: str, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Two sources of randomness of a rule: for its trials, on the CPU, and for the private noise, on ``device``."""
    sequence = np.random.SeedSequence([seed, list(TASKS).index(rule)])
    trials, private = (int(state) for state in sequence.generate_state(2, np.uint64))
    return torch.Generator().manual_seed(trials), torch.Generator(device).manual_seed(private)


def check_rules(rules: Sequence[str]) -> None:
    """An error unless there is at least one rule and all are known."""
    if isinstance(rules, str):
        raise MultitaskError(f"rules must be a sequence of names, but is the string {rules!r}: write [{rules!r}]")
    if len(rules) == 0:
        raise MultitaskError("rules is empty: name at least one")
    for rule in rules:
        task_of(rule)
