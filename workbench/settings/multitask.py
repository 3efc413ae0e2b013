"""The section ``multitask``: networks that learn several rules, and what their units do."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from multitask.groups import names_of
from multitask.network import NetworkParameters
from multitask.tasks.base import as_task, periods_of
from multitask.training import TrainingParameters
from workbench.settings.merging import Inherits
from workbench.settings.schema import Correlation, Count, Index, Positive, Rule, Section, Share


@dataclass(frozen=True)
class ActivityShown(Section):
    """Units and rules that the figures of Activity_and_Representation.ipynb show."""

    network: Index
    trial: Annotated[int, Field(ge=0, lt=40)]  # the smallest grid has 40 trials
    n_units: Count
    n_clusters: Annotated[int, Field(ge=2)] | None
    pairs: tuple[tuple[Rule, Rule], ...]
    n_trials: Count


@dataclass(frozen=True)
class Psychometric(Section):
    """Choices between two stimuli of different strength."""

    rules: tuple[Literal["dm1", "dm2", "contextdm1", "contextdm2", "multidm"], ...]
    coherences: Annotated[tuple[float, ...], Field(min_length=2)]
    stim_times: Annotated[tuple[Positive, ...], Field(min_length=1)]
    ignored: Annotated[tuple[float, ...], Field(min_length=1)]
    n_trials: Count


@dataclass(frozen=True)
class LesionTrials(Section):
    """How the costs of lesions are measured."""

    n_trials: Count
    n_controls: Count


@dataclass(frozen=True)
class SlowPoints(Section):
    """Rule and period of the search for slow points, and its limits."""

    rule: Rule
    beside: Rule
    period: str
    n_starts: Count
    slowest: Positive
    apart: Positive

    def problems(self) -> Iterator[str]:
        for rule in (self.rule, self.beside):
            periods = periods_of(as_task(rule))
            if self.period not in periods:
                yield f"period: {rule} has no {self.period}; it has {', '.join(periods)}"


@dataclass(frozen=True)
class MultitaskClaims(Section):
    """Numbers that the results must reach for Activity_and_Representation.ipynb to call its claims met."""

    performance: Share
    silhouette: Correlation
    lesion_correlation: Correlation
    ignored_effect: Share
    time_constant: Positive
    same_response: Positive


@dataclass(frozen=True)
class Multitask(Section):
    """Networks that learn several rules (Activity_and_Representation.ipynb)."""

    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    n_networks: Count
    network: Annotated[NetworkParameters, Inherits("network")]
    training: Annotated[TrainingParameters, Inherits("training")]
    activity: ActivityShown
    psychometric: Psychometric
    lesions: LesionTrials
    slow_points: SlowPoints
    claims: MultitaskClaims

    def problems(self) -> Iterator[str]:
        for n, rule in enumerate(self.rules):
            if rule in self.rules[:n]:
                yield f"rules: {rule} is listed twice; keep one, and see training.rule_weights"
            task = as_task(rule)
            if (self.network.n_input, self.network.n_rule) != (task.n_input, task.n_rule):
                yield (
                    f"network.n_input: {rule} needs n_input {task.n_input} and n_rule {task.n_rule}, got "
                    f"{self.network.n_input} and {self.network.n_rule}"
                )
            if self.network.n_output != task.n_output:
                yield f"network.n_output: {rule} needs {task.n_output}, got {self.network.n_output}"
            if self.training.loss_type not in task.losses:
                yield f"training.loss_type: {rule} needs {' or '.join(task.losses)}, got {self.training.loss_type}"
        if self.activity.network >= self.n_networks:
            yield (
                f"activity.network: {self.activity.network} does not exist; n_networks is {self.n_networks}, counted "
                "from 0"
            )
        known = {*self.rules, *names_of(self.rules)}
        named = {
            "training.rule_weights": tuple(self.training.rule_weights),
            "activity.pairs": tuple(rule for pair in self.activity.pairs for rule in pair),
            "psychometric.rules": self.psychometric.rules,
            "slow_points.rule": (self.slow_points.rule,),
            "slow_points.beside": (self.slow_points.beside,),
        }
        for key, rules in named.items():
            for rule in rules:
                if rule not in known:
                    yield f"{key}: {rule} is not trained; remove it, or add it to multitask.rules"
