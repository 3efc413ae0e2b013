"""The section ``groups``: networks with a common history of learning, tested on one rule and compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from multitask.groups import Group, conflicts, learnt, misfit, names_of
from multitask.network import NetworkParameters
from multitask.tasks.base import Rule as YangRule
from multitask.tasks.base import as_task, periods_of
from multitask.training import TrainingParameters
from workbench.settings.dsa import Dsa, embeddings
from workbench.settings.merging import Inherits
from workbench.settings.schema import Correlation, Count, Index, Positive, Rule, Section, Share


@dataclass(frozen=True)
class Measure(Section):
    """One way to say how far two networks are from each other: what is compared, and how.

    Attributes
    ----------
    states : "hidden" or "readout"
        Hidden states, or their projection on the subspace that the outputs read.
    inputs : bool
        Whether operators model the inputs of the networks.
    by : "whole", "period" or "response"
        Pieces of the trials that are compared one by one.
    trials : "matched" or "unmatched"
        Whether all networks see the same trials.
    dsa : Comparison
        The embedding, the estimator and the metric.
    """

    states: Literal["hidden", "readout"]
    inputs: bool
    by: Literal["whole", "period", "response"]
    trials: Literal["matched", "unmatched"]
    dsa: Annotated[Dsa, Inherits("dsa")]

    def problems(self) -> Iterator[str]:
        metric = self.dsa.metric
        if not self.inputs:
            if metric.needs == "driven":
                yield f"inputs: metric {metric.name} compares operators with inputs; set it to true"
            return
        if metric.needs == "trials":
            yield f"inputs: only operators can model inputs, and {metric.name} compares trials; set it to false"
        elif (self.dsa.estimator, self.dsa.steps_ahead or 1, self.dsa.horizon) != ("least_squares", 1, None):
            yield "inputs: need estimator least_squares and steps_ahead 1; change dsa.estimator and dsa.steps_ahead"


@dataclass(frozen=True)
class JacobianTruth(Section):
    """Where operators are compared with the Jacobians of the networks."""

    groups: Annotated[tuple[str, ...], Field(min_length=1)]
    period: str
    n_starts: Count
    max_steps: Count
    n_points: Count
    n_trials: Annotated[int, Field(ge=2, multiple_of=2)]
    n_times: Annotated[int, Field(ge=3)]
    discard: Index
    rank: Count
    n_modes: Count

    def problems(self) -> Iterator[str]:
        if self.n_times - self.discard < 3:
            yield f"discard: leaves {self.n_times - self.discard} of n_times = {self.n_times} samples; 3 are needed"
        if self.n_modes > self.rank:
            yield f"n_modes: operators of rank {self.rank} have no {self.n_modes} modes; lower n_modes or raise rank"


@dataclass(frozen=True)
class GroupClaims(Section):
    """Numbers that the results must reach for Activity_and_Representation.ipynb to call its claims on groups met."""

    performance: Correlation
    learning: Correlation
    unmatched: Annotated[float, Field(ge=0, le=2)]
    p_value: Share
    mode_error: Positive
    jacobians: Correlation


@dataclass(frozen=True)
class GroupComparison(Section):
    """What of the networks' activity is compared, and how."""

    periods: tuple[str, ...]
    n_batches: Count
    n_trials: Count
    noise: bool
    measure: Measure
    measures: Annotated[Mapping[str, Annotated[Measure, Inherits("measure")]], Field(min_length=1)]
    shown: Annotated[tuple[str, ...], Field(min_length=1)]
    also_judged: tuple[str, ...]
    learning: tuple[str, ...]
    n_splits: Count
    n_permutations: Count
    jacobians: JacobianTruth
    claims: GroupClaims

    @property
    def judged(self) -> tuple[str, ...]:
        """The measures that the claims compare. The first is the method."""
        return (*self.shown, *self.also_judged)

    def problems(self) -> Iterator[str]:
        for key, names in (("shown", self.shown), ("also_judged", self.also_judged)):
            for name in names:
                if name not in self.measures:
                    yield f"{key}: {name} is not one of the measures, {', '.join(self.measures)}"
        for n, name in enumerate(self.judged):
            if name in self.judged[:n]:
                yield f"{'also_judged' if n >= len(self.shown) else 'shown'}: {name} is listed twice; remove it"


@dataclass(frozen=True)
class Groups(Section):
    """Groups of networks with a common history of learning, all tested on one rule."""

    master: Rule
    parts: Annotated[tuple[Rule, ...], Field(min_length=1)]
    n_networks: Count
    seeds: Annotated[tuple[Index, ...], Field(min_length=1)]
    n_test_trials: Count
    network: Annotated[NetworkParameters, Inherits("network")]
    training: Annotated[TrainingParameters, Inherits("training")]
    group: Group
    groups: Annotated[Mapping[str, Annotated[Group, Inherits("group", twins=True)]], Field(min_length=2)]
    comparison: GroupComparison

    def problems(self) -> Iterator[str]:
        if len(set(self.seeds)) < len(self.seeds):
            yield f"seeds: a seed is listed twice, got {list(self.seeds)}"
        yield from self._of_training()
        yield from (f"comparison.{problem}" for problem in self._of_comparison())

    def _of_training(self) -> Iterator[str]:
        sizes = {"n_networks": self.n_networks} | {
            f"groups.{name}.n_networks": group.n_networks for name, group in self.groups.items() if group.n_networks
        }
        for key, size in sizes.items():
            if size < 2:
                yield (
                    f"{key}: a group of {size} network has no distance within it and no interval over networks; take 2 "
                    "or more"
                )
        wrong = [f"{key}: {problem}" for key, problem in conflicts(self.groups, self.network, self.training)]
        yield from wrong
        if problem := misfit(self.master, self.network):
            yield f"master: groups cannot be tested on it, {problem}"
        for n, part in enumerate(self.parts):
            if part == self.master:
                yield f"parts: {part} is the master rule itself; remove it"
            if part in self.parts[:n]:
                yield f"parts: {part} is listed twice; keep one"
        known = set() if wrong else {rule for name in self.groups for rule in learnt(self.groups, name)}
        for key, rule in (("master", self.master), *(("parts", part) for part in self.parts)):
            if known and names_of([rule])[0] not in known:
                yield f"{key}: no group learns {rule}; add it to the rules of a group"
        if not any(group == Group((self.master,), n_networks=group.n_networks) for group in self.groups.values()):
            yield (
                f"groups: no group learns {self.master} alone, from random networks; all groups are compared with that "
                "one"
            )

    def _of_comparison(self) -> Iterator[str]:
        master, compared = as_task(self.master), self.comparison
        periods = periods_of(master, self.network.dt)
        for key, names in (("periods", compared.periods), ("jacobians.period", (compared.jacobians.period,))):
            for name in names:
                if name not in periods:
                    yield f"{key}: {self.master} has no {name}; it has {', '.join(periods)}"
        for key, names in (("learning", compared.learning), ("jacobians.groups", compared.jacobians.groups)):
            for name in names:
                if name not in self.groups:
                    yield f"{key}: {name} is not one of the groups, {', '.join(self.groups)}"
                elif self.master not in self.groups[name].rules and key == "learning":
                    yield f"learning: {name} does not learn {self.master} last; remove it"
        if compared.jacobians.rank >= self.network.n_rnn:
            yield f"jacobians.rank: must be below the {self.network.n_rnn} units"
        for name, measure in compared.measures.items():
            if measure.by == "response" and not isinstance(master, YangRule):
                yield f"measures.{name}.by: trials of {self.master} have no direction as response; take whole or period"
            for problem in embeddings(measure.dsa, {"network": self.network.dt})[1]:
                yield f"measures.{name}.dsa.{problem}"
