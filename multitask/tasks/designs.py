"""Designs of tasks: the conditions of a batch, the stimuli that they define, and the correct response."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from multitask.tasks.timing import Draws, Periods
from multitask.trials import Stimulus, circular_distance

Conditions = dict[str, Tensor]


class Design(Protocol):
    """What every kind of task defines.

    Conditions are tensors with one value per trial: directions in rad, strengths, modalities 1 or 2.

    Attributes
    ----------
    asked : tuple of str
        Names of the conditions that the caller gives in psychometric mode.
    """

    asked: ClassVar[tuple[str, ...]]

    def draw(self, draws: Draws) -> Conditions:
        """Random conditions, for the mode "random"."""

    def grid(self) -> Conditions:
        """The fixed grid of conditions, for the mode "test"."""

    def describe(self, c: Conditions) -> Conditions:
        """The conditions with those that are derived from them, such as the coherence."""

    def show(self, c: Conditions, periods: Periods) -> tuple[list[Stimulus], Tensor]:
        """Stimuli, and the correct response of each trial (n_trials,), rad, nan for "keep fixating"."""


@dataclass(frozen=True)
class Go:
    """One stimulus: respond in its direction, or in the opposite direction."""

    first: str  # period in which the stimulus appears
    last: str  # last period in which it is shown
    anti: bool = False
    asked: ClassVar[tuple[str, ...]] = ("direction",)

    def draw(self, draws: Draws) -> Conditions:
        return {"direction": draws.uniform(0, 2 * math.pi), "modality": draws.choice((1, 2), 1).repeat(draws.n_trials)}

    def grid(self) -> Conditions:
        direction, modality = _grid(20, 2)
        return {"direction": _twentieths(direction), "modality": modality + 1}

    def describe(self, c: Conditions) -> Conditions:
        return {"modality": torch.ones_like(c["direction"], dtype=torch.long)} | c

    def show(self, c: Conditions, periods: Periods) -> tuple[list[Stimulus], Tensor]:
        stimulus = Stimulus(c["direction"], _on_ring(c["modality"]), periods[self.first][0], periods[self.last][1])
        return [stimulus], _opposite(c["direction"]) if self.anti else c["direction"]


@dataclass(frozen=True)
class Evidence:
    """Two stimuli of strengths m + c and m - c, and when they are shown; c is the coherence."""

    coherences: tuple[float, ...]
    easy: float  # coherences of easy trials are larger than standard ones by this factor
    second: str  # period of the second stimulus; the first one is always shown in stim1

    def directions(self, draws: Draws) -> Conditions:
        """Random directions of the two stimuli, 90 to 180 degrees apart, rad."""
        first = draws.uniform(0, 2 * math.pi)
        apart = draws.uniform(math.pi / 2, 3 * math.pi / 2) * draws.choice((-1.0, 1.0))
        return {"direction1": first, "direction2": (first + apart) % (2 * math.pi)}

    def strengths(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """Random strengths of the two stimuli: mean in [0.8, 1.2), coherence of either sign."""
        mean, coherence = draws.uniform(0.8, 1.2), draws.choice(self.coherences) * draws.choice((1.0, -1.0))
        coherence = coherence * self.easy**draws.easiness
        return mean + coherence, mean - coherence

    def stimuli(self, c: Conditions, strengths1: Tensor, strengths2: Tensor, periods: Periods) -> list[Stimulus]:
        """The two stimuli; strengths are (n_trials, n_rings)."""
        return [
            Stimulus(c["direction1"], strengths1, *periods["stim1"]),
            Stimulus(c["direction2"], strengths2, *periods[self.second]),
        ]


AT_ONCE = Evidence((0.01, 0.02, 0.04, 0.08), easy=10, second="stim1")
IN_TURN = Evidence((0.08, 0.16, 0.32), easy=2, second="stim2")


@dataclass(frozen=True)
class Decision:
    """Two stimuli in one modality: respond in the direction of the stronger one."""

    modality: int
    evidence: Evidence
    weakest: float  # on the test grid stimulus 1 has five strengths in [weakest, weakest + span)
    span: float
    asked: ClassVar[tuple[str, ...]] = ("direction1", "direction2", "strength1", "strength2")

    def draw(self, draws: Draws) -> Conditions:
        directions = self.evidence.directions(draws)
        strength1, strength2 = self.evidence.strengths(draws)
        return directions | {"strength1": strength1, "strength2": strength2}

    def grid(self) -> Conditions:
        direction, level = _grid(20, 5)
        strength1 = self.weakest + self.span * level.double() / 5
        return _opposed(direction) | {"strength1": strength1, "strength2": 2 - strength1}

    def strengths_at(self, coherence: Tensor, ignored: Tensor) -> Conditions:
        """Strengths 1 + c and 1 - c for the coherences c; ``ignored`` is not used, since there is only one modality."""
        return {"strength1": 1 + coherence, "strength2": 1 - coherence}

    def describe(self, c: Conditions) -> Conditions:
        return c | {"coherence": (c["strength1"] - c["strength2"]) / 2}

    def show(self, c: Conditions, periods: Periods) -> tuple[list[Stimulus], Tensor]:
        ring = _on_ring(torch.tensor([self.modality]))
        stimuli = self.evidence.stimuli(c, c["strength1"][:, None] * ring, c["strength2"][:, None] * ring, periods)
        return stimuli, _stronger(c)


@dataclass(frozen=True)
class ContextDecision:
    """Two stimuli in both modalities: respond to the one that is stronger in the attended modality, or in total."""

    attend: int | None  # 1 or 2; None for both
    evidence: Evidence
    asked: ClassVar[tuple[str, ...]] = (
        "direction1",
        "direction2",
        "strength1_modality1",
        "strength2_modality1",
        "strength1_modality2",
        "strength2_modality2",
    )

    def draw(self, draws: Draws) -> Conditions:
        directions = self.evidence.directions(draws)
        if self.attend is not None:  # the two modalities have independent coherences
            strengths = self.evidence.strengths(draws) + self.evidence.strengths(draws)
        else:  # each stimulus is split unevenly over the modalities, so that one modality alone is unreliable
            g1, g2 = self.evidence.strengths(draws)
            u1, u2 = (draws.uniform(0.2, 0.8) * draws.choice((1.0, -1.0)) / 2 for _ in (1, 2))
            strengths = g1 * (1 + u1), g2 * (1 + u2), g1 * (1 - u1), g2 * (1 - u2)
        return directions | dict(zip(self.asked[2:], strengths, strict=True))

    def grid(self) -> Conditions:
        direction, level1, level2 = _grid(20, 5, 5)
        g1, g2 = (0.8 + 0.4 * level.double() / 5 for level in (level1, level2))  # stimulus 1 in each modality
        return _opposed(direction) | dict(zip(self.asked[2:], (g1, 2 - g1, g2, 2 - g2), strict=True))

    def strengths_at(self, coherence: Tensor, ignored: Tensor) -> Conditions:
        """Strengths 1 + c and 1 - c, with separate coherences for the attended and the ignored modality."""
        first, second = {1: (coherence, ignored), 2: (ignored, coherence), None: (coherence, coherence)}[self.attend]
        return dict(zip(self.asked[2:], (1 + first, 1 - first, 1 + second, 1 - second), strict=True))

    def describe(self, c: Conditions) -> Conditions:
        coherence1 = (c["strength1_modality1"] - c["strength2_modality1"]) / 2
        coherence2 = (c["strength1_modality2"] - c["strength2_modality2"]) / 2
        decisive = {1: coherence1, 2: coherence2, None: (coherence1 + coherence2) / 2}[self.attend]
        return c | {"coherence_modality1": coherence1, "coherence_modality2": coherence2, "coherence": decisive}

    def show(self, c: Conditions, periods: Periods) -> tuple[list[Stimulus], Tensor]:
        strengths1, strengths2 = (
            torch.stack([c[f"strength{i}_modality1"], c[f"strength{i}_modality2"]], 1) for i in (1, 2)
        )
        return self.evidence.stimuli(c, strengths1, strengths2, periods), _stronger(c)


@dataclass(frozen=True)
class SampleMatch:
    """Sample, delay, test: respond to the test stimulus if its direction matches (or does not match) the sample.

    Otherwise the correct response is to keep fixating.
    """

    go_if_match: bool
    asked: ClassVar[tuple[str, ...]] = ("direction1", "direction2")

    def draw(self, draws: Draws) -> Conditions:
        first = draws.uniform(0, 2 * math.pi)
        apart = draws.uniform(math.pi / 9, 17 * math.pi / 9) * draws.choice((-1.0, 1.0)) * draws.choice((0.0, 1.0))
        return {"direction1": first, "direction2": (first + apart) % (2 * math.pi)} | self.modalities(draws)

    def modalities(self, draws: Draws) -> Conditions:
        """Modalities of sample and test, drawn once for the batch."""
        return {name: draws.choice((1, 2), 1).repeat(draws.n_trials) for name in ("modality1", "modality2")}

    def grid(self) -> Conditions:
        direction, modality1, modality2 = _grid(20, 2, 2)
        first = self.grid_direction(direction)
        second = first if self.go_if_match else _opposite(first)
        return {"direction1": first, "direction2": second, "modality1": modality1 + 1, "modality2": modality2 + 1}

    def grid_direction(self, index: Tensor) -> Tensor:
        """Direction of the sample on the test grid, rad, for an index of 0 to 19."""
        return _twentieths(index)

    def match(self, c: Conditions) -> Tensor:
        """Whether sample and test match, (n_trials,), bool."""
        return circular_distance(c["direction1"], c["direction2"]) < math.pi / 36  # 5 degrees

    def describe(self, c: Conditions) -> Conditions:
        ring1 = torch.ones_like(c["direction1"], dtype=torch.long)
        return {"modality1": ring1, "modality2": ring1} | c | {"match": self.match(c)}

    def show(self, c: Conditions, periods: Periods) -> tuple[list[Stimulus], Tensor]:
        sample = Stimulus(c["direction1"], _on_ring(c["modality1"]), *periods["stim1"])
        test = Stimulus(c["direction2"], _on_ring(c["modality2"]), *periods["go1"])
        return [sample, test], torch.where(c["match"] == self.go_if_match, c["direction2"], math.nan)


CATEGORY_DIRECTIONS = tuple((0.1 + 0.2 * k) * math.pi for k in range(10))


@dataclass(frozen=True)
class CategoryMatch(SampleMatch):
    """Like `SampleMatch`, but categories are compared. Directions below pi are category A, all others category B."""

    def draw(self, draws: Draws) -> Conditions:
        directions = {name: draws.choice(CATEGORY_DIRECTIONS) for name in ("direction1", "direction2")}
        return directions | self.modalities(draws)

    def grid_direction(self, index: Tensor) -> Tensor:
        return (torch.where(index < 10, 0.1, 0.3) + 0.08 * index.double()) * math.pi  # ten of each category

    def match(self, c: Conditions) -> Tensor:
        return _category_a(c["direction1"]) == _category_a(c["direction2"])


@dataclass(frozen=True)
class Freedman(CategoryMatch):
    """Category match with all stimuli on ring 1 (Freedman and Assad 2006, Nature 443, 85-88)."""

    def modalities(self, draws: Draws) -> Conditions:
        return {}

    def grid(self) -> Conditions:
        first = (0.1 + 0.8 * torch.arange(128, dtype=torch.float64) / 128) * math.pi
        return {"direction1": first, "direction2": first}


@dataclass(frozen=True)
class OneInterval:
    """One-interval categorisation on three rings.

    If the stimulus on ring 1 is of category B, respond to the stimulus on ring 2. If it is of category A, respond to
    the stimulus on ring 3.
    """

    asked: ClassVar[tuple[str, ...]] = ("direction1", "direction2", "direction3")

    def draw(self, draws: Draws) -> Conditions:
        first, second = draws.choice(CATEGORY_DIRECTIONS), draws.uniform(0, 2 * math.pi)
        return {"direction1": first, "direction2": second, "direction3": _opposite(second)}

    def grid(self) -> Conditions:
        first = (0.1 + 0.8 * torch.arange(128, dtype=torch.float64) / 128) * math.pi
        return {"direction1": first, "direction2": first, "direction3": _opposite(first)}

    def describe(self, c: Conditions) -> Conditions:
        return c

    def show(self, c: Conditions, periods: Periods) -> tuple[list[Stimulus], Tensor]:
        category, (go, end) = torch.eye(3, dtype=torch.float64), periods["go1"]
        stimuli = [
            Stimulus(c[f"direction{i + 1}"], category[i].expand(len(c["direction1"]), -1), on, end)
            for i, on in enumerate((periods["stim1"][0], go, go))
        ]
        return stimuli, torch.where(_category_a(c["direction1"]), c["direction3"], c["direction2"])


TIE = 1e-9  # smaller coherences count as ties; the test grids of multidm and multidelaydm have 80 exact ties


def _stronger(c: Conditions) -> Tensor:
    """Direction of the stronger stimulus, or of the second one if they are equal."""
    return torch.where(c["coherence"] > TIE, c["direction1"], c["direction2"])


def _category_a(direction: Tensor) -> Tensor:
    return direction < math.pi


def _opposite(direction: Tensor) -> Tensor:
    return (direction + math.pi) % (2 * math.pi)


def _twentieths(index: Tensor) -> Tensor:
    return 2 * math.pi * index.double() / 20


def _opposed(index: Tensor) -> Conditions:
    return {"direction1": _twentieths(index), "direction2": _opposite(_twentieths(index))}


def _on_ring(modality: Tensor) -> Tensor:
    """Strength 1 on the ring of the modality and 0 on the other ring: (trial,) -> (trial, 2)."""
    return torch.nn.functional.one_hot(modality - 1, 2).double()


def _grid(*sizes: int) -> tuple[Tensor, ...]:
    """Indices of all combinations; the last index varies fastest."""
    return torch.cartesian_prod(*(torch.arange(n) for n in sizes)).unbind(1)
