"""The twenty tasks of Yang et al. (2019): when things happen, what is shown, and what is right.

A rule is a row of `TASKS`: a timetable (one line a period, one column a mode) and a design, which draws directions and
strengths and knows the right response. Three modes, as in the original:

``random``        conditions drawn for each trial, event times once for the batch: for training and evaluation
``test``          a fixed grid of conditions and times, for analyses; the four match rules show go trials alone
``psychometric``  the caller's conditions

Times are in ms and become steps by truncation, int(t / dt), each duration on its own. "Strength" is what scales a bump
on a ring, "coherence" half of the difference of two strengths.

Where the paper and its code differ the code is followed (see also `multitask.trials`): stimuli that do not match lie at
least 20 degrees apart; strengths on the test grids step by a fifth of their range and never reach its end (0.80 to
1.12), so stimulus 1 is the weaker one on three levels of five; the two rules with three rings show category A only in
``test``. One departure: all draws come from the one generator handed in, also those that split strengths over
modalities in ``multidm``, for which the original used the global random state.

Source: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from multitask.trials import (
    LOSSES,
    Layout,
    MultitaskError,
    Scene,
    Stimulus,
    TrialBatch,
    check_whole,
    checked_device,
    circular_distance,
    cost_mask,
    paint_inputs,
    paint_targets,
    unknown,
)

MODES = ("random", "test", "psychometric")
Conditions = dict[str, Tensor]
Periods = dict[str, tuple[int, int]]


# ---- draws and times -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draws:
    """Where the random conditions of a batch come from: one value a trial unless ``n`` says otherwise, float64."""

    generator: torch.Generator
    n_trials: int
    easiness: float

    def uniform(self, low: float, high: float, n: int | None = None) -> Tensor:
        unit = torch.rand(n or self.n_trials, generator=self.generator, dtype=torch.float64)
        return low + (high - low) * unit

    def choice(self, values: Sequence[float], n: int | None = None) -> Tensor:
        index = torch.randint(len(values), (n or self.n_trials,), generator=self.generator)
        return torch.from_numpy(np.array(values))[index]  # int64 or float64


class Uniform(NamedTuple):
    """A duration drawn from [low, high) ms."""

    low: float
    high: float


class Choice(NamedTuple):
    """A duration drawn from equally likely ones, ms."""

    values: tuple[int, ...]


class At(NamedTuple):
    """The period ends at this time after the start of the trial, ms; a name stands for one of the caller's times."""

    time: float | str


Entry = float | str | Uniform | Choice | At
Timetable = dict[str, tuple[Entry, Entry, Entry]]

STIMULUS = Choice((200, 400, 600))
DELAY = Choice((200, 400, 800, 1600))

# How long each period lasts, or where it ends: random, test, psychometric.
FIXED_DURATION: Timetable = {
    "fix1": (Uniform(300, 700), At(500), 300),
    "stim1": (Uniform(500, 1500), At(1500), "stim_time"),
    "go1": (500, At(2000), 400),
}
REACTION: Timetable = {
    "fix1": (Uniform(500, 2500), At(2000), 1000),
    "go1": (500, At(2500), 400),
}
DELAYED: Timetable = {
    "fix1": (Choice((300, 500, 700)), At(500), At("stim_on")),
    "stim1": (STIMULUS, At(1000), At("stim_off")),
    "delay1": (DELAY, At(2000), "delay_time"),
    "go1": (500, At(2500), 400),
}
DECISION: Timetable = {
    "fix1": (Uniform(100, 400), At(500), 300),
    "stim1": (Choice((400, 800, 1600)), At(2000), "stim_time"),
    "go1": (500, At(2500), 400),
}
CONTEXT: Timetable = {
    "fix1": (Uniform(100, 400), At(500), 500),
    "stim1": (Choice((400, 800, 1600)), At(1500), "stim_time"),
    "go1": (500, At(2000), 500),
}
DELAYED_DECISION: Timetable = {
    "fix1": (STIMULUS, At(500), At("stim1_on")),
    "stim1": (STIMULUS, At(1000), At("stim1_off")),
    "delay1": (DELAY, At(2000), At("stim2_on")),
    "stim2": (STIMULUS, At(2500), At("stim2_off")),
    "delay2": (Uniform(100, 300), At(2700), 200),
    "go1": (500, At(3000), 300),
}
DELAYED_CONTEXT: Timetable = {
    "fix1": (STIMULUS, At(500), At(300)),
    "stim1": (STIMULUS, At(1000), At(600)),
    "delay1": (DELAY, At(2000), "delay_time"),
    "stim2": (STIMULUS, At(2500), 300),
    "delay2": (Uniform(100, 300), At(3000), 200),
    "go1": (500, At(3500), 300),
}
SAMPLE_MATCH: Timetable = {
    "fix1": (STIMULUS, 500, At(500)),
    "stim1": (STIMULUS, 500, At(800)),
    "delay1": (DELAY, 1200, At(2000)),
    "go1": (500, 500, At(2500)),
}
CATEGORY_MATCH: Timetable = SAMPLE_MATCH | {"go1": (STIMULUS, 500, At(2500))}
ONE_INTERVAL: Timetable = {
    "fix1": (Uniform(100, 600), 500, 500),
    "stim1": (1000, 1000, 1000),
    "go1": (500, 500, 500),
}
FREEDMAN: Timetable = {
    "fix1": (Uniform(100, 600), 500, At(500)),
    "stim1": (1000, 1000, At(1500)),
    "delay1": (1000, Uniform(800, 1200), At(2500)),
    "go1": (500, 500, At(3000)),
}


def schedule(timetable: Timetable, mode: str, dt: float, draws: Draws, times: Mapping[str, float]) -> Periods:
    """Steps [start, stop) of each period; every duration is truncated to whole steps on its own."""

    def steps(time: float | str) -> int:
        return int((times[time] if isinstance(time, str) else time) / dt)

    periods: Periods = {}
    start = 0
    for name, row in timetable.items():
        match row[MODES.index(mode)]:
            case At(time):
                stop = steps(time)
            case Uniform(low, high):
                stop = start + steps(draws.uniform(low, high, 1).item())
            case Choice(values):
                stop = start + steps(draws.choice(values, 1).item())
            case duration:
                stop = start + steps(duration)
        if stop <= start:
            raise MultitaskError(
                f"period {name!r} has no step: it would go from step {start} to {stop} at dt = {dt:g} ms; "
                f"choose a smaller dt, or times that follow each other"
            )
        periods[name] = (start, stop)
        start = stop
    return periods


# ---- designs: what is shown and what is right ------------------------------------------------------------------------


class Design(Protocol):
    """Conditions of a batch in each mode, and the scene that they make.

    ``asked`` names what a caller gives in psychometric mode, ``draw`` and ``grid`` make the conditions of the other
    two, ``describe`` adds what follows from them, and ``show`` turns all of them into stimuli and the right response
    (nan: keep fixating).
    """

    asked: ClassVar[tuple[str, ...]]

    def draw(self, draws: Draws) -> Conditions: ...
    def grid(self) -> Conditions: ...
    def describe(self, c: Conditions) -> Conditions: ...
    def show(self, c: Conditions, periods: Periods) -> tuple[list[Stimulus], Tensor]: ...


@dataclass(frozen=True)
class Go:
    """One stimulus: respond towards it, or to the opposite side."""

    first: str  # period in which the stimulus appears
    last: str  # last period in which it is seen
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
    """How two stimuli differ in strength, m + c and m - c, and when they are shown."""

    coherences: tuple[float, ...]
    easy: float  # the coherences grow by this factor from standard to easy trials
    second: str  # period of the second stimulus; the first is always shown in stim1

    def directions(self, draws: Draws) -> Conditions:
        """Two directions, 90 to 180 degrees apart."""
        first = draws.uniform(0, 2 * math.pi)
        apart = draws.uniform(math.pi / 2, 3 * math.pi / 2) * draws.choice((-1.0, 1.0))
        return {"direction1": first, "direction2": (first + apart) % (2 * math.pi)}

    def strengths(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """Strengths of the two stimuli: mean from [0.8, 1.2), coherence of either sign."""
        mean, coherence = draws.uniform(0.8, 1.2), draws.choice(self.coherences) * draws.choice((1.0, -1.0))
        coherence = coherence * self.easy**draws.easiness
        return mean + coherence, mean - coherence

    def stimuli(self, c: Conditions, strengths1: Tensor, strengths2: Tensor, periods: Periods) -> list[Stimulus]:
        return [
            Stimulus(c["direction1"], strengths1, *periods["stim1"]),
            Stimulus(c["direction2"], strengths2, *periods[self.second]),
        ]


AT_ONCE = Evidence((0.01, 0.02, 0.04, 0.08), easy=10, second="stim1")
IN_TURN = Evidence((0.08, 0.16, 0.32), easy=2, second="stim2")


@dataclass(frozen=True)
class Decision:
    """Two stimuli in one modality: respond to the stronger one."""

    modality: int
    evidence: Evidence
    weakest: float  # strengths on the test grid: five levels over [weakest, 2 - weakest) for stimulus 1
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
        """Strengths around 1 with a given coherence; there is no second modality to ignore."""
        return {"strength1": 1 + coherence, "strength2": 1 - coherence}

    def describe(self, c: Conditions) -> Conditions:
        return c | {"coherence": (c["strength1"] - c["strength2"]) / 2}

    def show(self, c: Conditions, periods: Periods) -> tuple[list[Stimulus], Tensor]:
        ring = _on_ring(torch.tensor([self.modality]))
        stimuli = self.evidence.stimuli(c, c["strength1"][:, None] * ring, c["strength2"][:, None] * ring, periods)
        return stimuli, _stronger(c)


@dataclass(frozen=True)
class ContextDecision:
    """Two stimuli in both modalities: respond to the one that is stronger in the attended modality, or in sum."""

    attend: int | None  # 1 or 2; None: both
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
        if self.attend is not None:  # each modality has evidence of its own
            strengths = self.evidence.strengths(draws) + self.evidence.strengths(draws)
        else:  # one evidence, each stimulus split unevenly over the modalities: one alone says little
            g1, g2 = self.evidence.strengths(draws)
            u1, u2 = (draws.uniform(0.2, 0.8) * draws.choice((1.0, -1.0)) / 2 for _ in (1, 2))
            strengths = g1 * (1 + u1), g2 * (1 + u2), g1 * (1 - u1), g2 * (1 - u2)
        return directions | dict(zip(self.asked[2:], strengths, strict=True))

    def grid(self) -> Conditions:
        direction, level1, level2 = _grid(20, 5, 5)
        g1, g2 = (0.8 + 0.4 * level.double() / 5 for level in (level1, level2))  # of the first stimulus, by modality
        return _opposed(direction) | dict(zip(self.asked[2:], (g1, 2 - g1, g2, 2 - g2), strict=True))

    def strengths_at(self, coherence: Tensor, ignored: Tensor) -> Conditions:
        """Strengths around 1 with given coherences in the attended and in the ignored modality."""
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
    """Sample, delay, test: respond to the test stimulus if the directions match (or do not), else keep fixating."""

    go_if_match: bool
    asked: ClassVar[tuple[str, ...]] = ("direction1", "direction2")

    def draw(self, draws: Draws) -> Conditions:
        first = draws.uniform(0, 2 * math.pi)
        apart = draws.uniform(math.pi / 9, 17 * math.pi / 9) * draws.choice((-1.0, 1.0)) * draws.choice((0.0, 1.0))
        return {"direction1": first, "direction2": (first + apart) % (2 * math.pi)} | self.modalities(draws)

    def modalities(self, draws: Draws) -> Conditions:
        return {name: draws.choice((1, 2), 1).repeat(draws.n_trials) for name in ("modality1", "modality2")}

    def grid(self) -> Conditions:
        direction, modality1, modality2 = _grid(20, 2, 2)
        first = self.grid_direction(direction)
        second = first if self.go_if_match else _opposite(first)
        return {"direction1": first, "direction2": second, "modality1": modality1 + 1, "modality2": modality2 + 1}

    def grid_direction(self, index: Tensor) -> Tensor:
        return _twentieths(index)

    def match(self, c: Conditions) -> Tensor:
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
    """As `SampleMatch`, but categories are compared: A are the directions below pi, B the others."""

    def draw(self, draws: Draws) -> Conditions:
        directions = {name: draws.choice(CATEGORY_DIRECTIONS) for name in ("direction1", "direction2")}
        return directions | self.modalities(draws)

    def grid_direction(self, index: Tensor) -> Tensor:
        return (torch.where(index < 10, 0.1, 0.3) + 0.08 * index.double()) * math.pi  # ten of each category

    def match(self, c: Conditions) -> Tensor:
        return _category_a(c["direction1"]) == _category_a(c["direction2"])


@dataclass(frozen=True)
class Freedman(CategoryMatch):
    """Category match with all stimuli on ring 1, after Freedman and Assad (2006), Nature 443, 85-88."""

    def modalities(self, draws: Draws) -> Conditions:
        return {}

    def grid(self) -> Conditions:
        first = (0.1 + 0.8 * torch.arange(128, dtype=torch.float64) / 128) * math.pi
        return {"direction1": first, "direction2": first}


@dataclass(frozen=True)
class OneInterval:
    """One-interval categorisation: a stimulus of category B on ring 1 says go to that on ring 2, A to ring 3."""

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


TIE = 1e-9  # strengths closer than this are equal: the test grids of multidm and multidelaydm hold 80 exact ties


def _stronger(c: Conditions) -> Tensor:
    """Direction of the stronger stimulus; the second one on a tie."""
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
    """Strength 1 on the ring of a modality, 0 on the other: (trial,) -> (trial, 2)."""
    return torch.nn.functional.one_hot(modality - 1, 2).double()


def _grid(*sizes: int) -> tuple[Tensor, ...]:
    """Indices of all combinations, the last one running fastest."""
    return torch.cartesian_prod(*(torch.arange(n) for n in sizes)).unbind(1)


# ---- the rules -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One rule: its name in figures, timetable, design, and whether the cue stays on after the go event."""

    title: str
    timetable: Timetable
    design: Design
    cue_stays: bool = False


TASKS: dict[str, Task] = {
    "fdgo": Task("Go", FIXED_DURATION, Go("stim1", "go1")),
    "reactgo": Task("RT Go", REACTION, Go("go1", "go1"), cue_stays=True),
    "delaygo": Task("Dly Go", DELAYED, Go("stim1", "stim1")),
    "fdanti": Task("Anti", FIXED_DURATION, Go("stim1", "go1", anti=True)),
    "reactanti": Task("RT Anti", REACTION, Go("go1", "go1", anti=True), cue_stays=True),
    "delayanti": Task("Dly Anti", DELAYED, Go("stim1", "stim1", anti=True)),
    "dm1": Task("DM 1", DECISION, Decision(1, AT_ONCE, weakest=0.8, span=0.4)),
    "dm2": Task("DM 2", DECISION, Decision(2, AT_ONCE, weakest=0.8, span=0.4)),
    "contextdm1": Task("Ctx DM 1", CONTEXT, ContextDecision(1, AT_ONCE)),
    "contextdm2": Task("Ctx DM 2", CONTEXT, ContextDecision(2, AT_ONCE)),
    "multidm": Task("MultSen DM", CONTEXT, ContextDecision(None, AT_ONCE)),
    "delaydm1": Task("Dly DM 1", DELAYED_DECISION, Decision(1, IN_TURN, weakest=0.5, span=1.0)),
    "delaydm2": Task("Dly DM 2", DELAYED_DECISION, Decision(2, IN_TURN, weakest=0.5, span=1.0)),
    "contextdelaydm1": Task("Ctx Dly DM 1", DELAYED_CONTEXT, ContextDecision(1, IN_TURN)),
    "contextdelaydm2": Task("Ctx Dly DM 2", DELAYED_CONTEXT, ContextDecision(2, IN_TURN)),
    "multidelaydm": Task("MultSen Dly DM", DELAYED_CONTEXT, ContextDecision(None, IN_TURN)),
    "dmsgo": Task("DMS", SAMPLE_MATCH, SampleMatch(go_if_match=True), cue_stays=True),
    "dmsnogo": Task("DNMS", SAMPLE_MATCH, SampleMatch(go_if_match=False), cue_stays=True),
    "dmcgo": Task("DMC", CATEGORY_MATCH, CategoryMatch(go_if_match=True), cue_stays=True),
    "dmcnogo": Task("DNMC", CATEGORY_MATCH, CategoryMatch(go_if_match=False), cue_stays=True),
    # not among the twenty: three rings
    "oic": Task("1IC", ONE_INTERVAL, OneInterval(), cue_stays=True),
    "dmc": Task("DMC", FREEDMAN, Freedman(go_if_match=True), cue_stays=True),
}
THREE_RING_RULES = ("oic", "dmc")
RULES = tuple(rule for rule in TASKS if rule not in THREE_RING_RULES)
RULESETS = {"all": RULES, "mante": ("contextdm1", "contextdm2"), "oicdmc": THREE_RING_RULES}


def one_of_each_family(rules: Sequence[str]) -> list[str]:
    """The first of the rules of each family, that is of those that share their timetable."""
    first = {id(task_of(rule).timetable): rule for rule in reversed(rules)}
    return [rule for rule in rules if rule in first.values()]


def layout(rule: str) -> Layout:
    """Input channels of a rule's set: two rings and 20 rules (85 channels), or three rings and 2 rules (99)."""
    return Layout(THREE_RING_RULES, n_rings=3) if rule in THREE_RING_RULES else Layout(RULES)


def generate_trials(
    rule: str,
    n_trials: int | None = None,
    *,
    mode: str = "random",
    dt: float = 20.0,
    tau: float = 100.0,
    noise: float = 0.01,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    conditions: Mapping[str, Any] | None = None,
    loss: str = "lsq",
    easiness: float = 0.0,
    rule_input: Mapping[str, float] | None = None,
    device: torch.device | str | None = None,
) -> TrialBatch:
    """Generate one batch of trials of one rule.

    Parameters
    ----------
    rule : str
        One of `RULES`, or ``"oic"`` or ``"dmc"`` (three rings, 99 inputs).
    n_trials : int >= 1
        Needed in ``random`` mode. The grid of ``test`` and the conditions of ``psychometric`` decide it themselves.
    mode : "random", "test" or "psychometric"
    dt, tau : ms, 0 < dt <= tau
        Length of a step, and time constant of the units: together they scale the noise.
    noise : >= 0
        sigma_x: each channel gets white noise of standard deviation sigma_x sqrt(2 tau / dt) a step. 0 turns it off.
    seed, generator
        Exactly one of them: an integer, or a CPU ``torch.Generator`` that is drawn from. The same seed gives the same
        batch, bit for bit (on another device the same conditions and times with other noise).
    conditions : mapping, in psychometric mode
        Directions (rad, in [0, 2 pi)) and strengths, one value a trial, and times in ms, one number each; what a rule
        needs stands in the error message of an empty mapping. Stimuli of rules that draw their modality are shown on
        ring 1.
    loss : "lsq" or "cross_entropy"
        Decides the form of targets and cost mask.
    easiness : in [0, 1], in random mode
        0 is the standard difficulty, 1 the easy one of the original: coherences are multiplied by 10^easiness, by
        2^easiness in decisions with a delay. Rules without coherences do not change. Letting it fall linearly to 0
        makes coherences fall geometrically.
    rule_input : mapping rule -> strength
        What the rule units say, {rule: 1.0} by default: another strength, another rule, or a composition such as
        ``{"fdanti": 1, "fdgo": -1, "delaygo": 1}``.
    device : where the tensors live; CPU by default

    Raises
    ------
    MultitaskError
        A value that does not fit, named with what came and what would do.

    Examples
    --------
    >>> batch = generate_trials("delaygo", 64, seed=0)
    >>> batch.inputs.shape[-1], list(batch.periods)
    (85, ['fix1', 'stim1', 'delay1', 'go1'])
    """
    task = task_of(rule)
    generator, device = _door(seed, generator), checked_device(device)
    _check_numbers(dt, tau, noise, loss, mode, easiness)
    if conditions is not None and mode != "psychometric":
        raise MultitaskError(
            f"conditions are for mode='psychometric', not for {mode!r}: leave them out or change the mode"
        )
    values, times = _given(rule, task, conditions) if mode == "psychometric" else ({}, {})
    draws = Draws(generator, check_whole("n_trials in random mode", n_trials, 1) if mode == "random" else 1, easiness)
    periods = schedule(task.timetable, mode, dt, draws, times)
    if mode == "random":
        values = task.design.draw(draws)
    elif mode == "test":
        values = task.design.grid()
    values = task.design.describe(values)
    stimuli, response = task.design.show(values, periods)
    go, n_times = periods["go1"]
    scene = Scene(stimuli, response, go, n_times if task.cue_stays else go, n_times)
    noise_sd = noise * math.sqrt(2 * tau / dt)
    return TrialBatch(
        inputs=paint_inputs(
            scene, layout(rule), {rule: 1.0} if rule_input is None else rule_input, noise_sd, generator, device
        ),
        targets=paint_targets(scene, loss, device),
        cost_mask=cost_mask(scene, dt, loss, device),
        response=response.to(device, torch.float32),
        periods=periods,
        conditions=values,
        rule=rule,
        dt=dt,
    )


def task_of(rule: str) -> Task:
    """The row of `TASKS` for a rule."""
    if rule not in TASKS:
        raise unknown("rule", rule, TASKS)
    return TASKS[rule]


def _check_numbers(dt: float, tau: float, noise: float, loss: str, mode: str, easiness: float) -> None:
    if not 0 < dt <= tau < math.inf:
        raise MultitaskError(
            f"dt = {dt:g} ms and tau = {tau:g} ms do not fit: a step must be positive and at most one time constant"
        )
    if not 0 <= noise < math.inf:
        raise MultitaskError(f"noise must be a finite number >= 0, but is {noise!r}")
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    if not 0 <= easiness <= 1:
        raise MultitaskError(f"easiness must lie in [0, 1], but is {easiness!r}")
    if easiness > 0 and mode != "random":
        raise MultitaskError(f"easiness = {easiness:g} has no meaning in mode {mode!r}: conditions are fixed there")


def _door(seed: int | None, generator: torch.Generator | None) -> torch.Generator:
    """The one source of randomness."""
    if (seed is None) == (generator is None):
        raise MultitaskError(f"give exactly one of seed and generator, got {'neither' if seed is None else 'both'}")
    if generator is None:
        return torch.Generator().manual_seed(check_whole("seed", seed, 0))
    if generator.device.type != "cpu":
        raise MultitaskError(
            f"generator lives on {generator.device}, but conditions are drawn on the CPU: use torch.Generator()"
        )
    return generator


def _given(rule: str, task: Task, conditions: Mapping[str, Any] | None) -> tuple[Conditions, dict[str, float]]:
    """The caller's conditions as tensors (one value a trial) and times (one number each), checked."""
    entries = [row[MODES.index("psychometric")] for row in task.timetable.values()]
    names = [entry.time if isinstance(entry, At) else entry for entry in entries]
    needed_times = [name for name in names if isinstance(name, str)]
    needed = [*task.design.asked, *needed_times]
    conditions = conditions or {}
    missing = [name for name in needed if name not in conditions]
    if missing:
        raise MultitaskError(
            f"psychometric trials of {rule!r} need the conditions {', '.join(needed)}; missing: {', '.join(missing)}"
        )
    for name in conditions:
        if name not in needed:
            raise unknown(f"condition of {rule!r} in psychometric mode", name, needed)
    values = {name: torch.as_tensor(conditions[name], dtype=torch.float64, device="cpu") for name in task.design.asked}
    shapes = {tuple(value.shape) for value in values.values()}
    if len(shapes) > 1 or any(len(shape) != 1 or shape[0] == 0 for shape in shapes):
        found = ", ".join(f"{name} {tuple(value.shape)}" for name, value in values.items())
        raise MultitaskError(f"conditions need one value a trial, (n_trials,) each, but have the shapes {found}")
    for name, value in values.items():
        _check_condition(name, value)
    return values, {name: float(conditions[name]) for name in needed_times}


def _check_condition(name: str, value: Tensor) -> None:
    within = (value >= 0) & (value < 2 * math.pi) if name.startswith("direction") else value.isfinite()
    if not within.all():
        trial = int((~within).nonzero()[0])
        wanted = "a direction in [0, 2 pi) rad" if name.startswith("direction") else "a finite strength"
        raise MultitaskError(f"condition {name!r}, trial {trial}: {value[trial].item():g} is not {wanted}")
