"""Durations and periods of the twenty rules, against the tables of Yang et al. (2019)."""

import math

import numpy as np
import pytest
import torch

from multitask.tasks import (
    RULES,
    TASKS,
    Draws,
    generate_trials,
    schedule,
)
from tests.multitask.tasks.families import DTS, FAMILIES, FAMILY

UNIFORM, CHOICE = "uniform", "choice"
SHORT, LONG = (CHOICE, (200, 400, 600)), (CHOICE, (200, 400, 800, 1600))
CHAINS = {  # the durations that make up a trial in random mode; a pair of numbers is a uniform draw, ms
    "fd": [(300, 700), (500, 1500), 500],
    "react": [(500, 2500), 500],
    "delay": [(CHOICE, (300, 500, 700)), SHORT, LONG, 500],
    "dm": [(100, 400), (CHOICE, (400, 800, 1600)), 500],
    "ctxdm": [(100, 400), (CHOICE, (400, 800, 1600)), 500],
    "dlydm": [SHORT, SHORT, LONG, SHORT, (100, 300), 500],
    "ctxdlydm": [SHORT, SHORT, LONG, SHORT, (100, 300), 500],
    "dms": [SHORT, SHORT, LONG, 500],
    "dmc": [SHORT, SHORT, LONG, SHORT],
}
PUBLISHED = {  # trial duration at dt 20: least, longest, mean, ms
    "fd": (1300, 2660, 1980),
    "react": (1000, 2980, 1990),
    "delay": (1200, 3400, 2150),
    "dm": (1000, 2480, 1673.3),
    "ctxdm": (1000, 2480, 1673.3),
    "dlydm": (1400, 4180, 2640),
    "ctxdlydm": (1400, 4180, 2640),
    "dms": (1100, 3300, 2050),
    "dmc": (800, 3400, 1950),
}


def steps_of(duration, dt: int) -> dict[int, float]:
    """Distribution of a duration in steps."""
    if isinstance(duration, (int, float)):
        return {int(duration // dt): 1.0}
    if duration[0] == CHOICE:
        values = duration[1]
        return {int(v // dt): sum(w // dt == v // dt for w in values) / len(values) for v in values}
    low, high = duration
    edges = range(int(low // dt), math.ceil(high / dt))
    return {k: (min(high, (k + 1) * dt) - max(low, k * dt)) / (high - low) for k in edges}


def length_of(family: str, dt: int) -> tuple[float, float, float, float]:
    """Least, longest, mean and standard deviation of a trial, ms: each duration truncated on its own."""
    steps = [steps_of(duration, dt) for duration in CHAINS[family]]
    means = [sum(k * p for k, p in s.items()) for s in steps]
    variances = [sum(k * k * p for k, p in s.items()) - m * m for s, m in zip(steps, means, strict=True)]
    return dt * sum(map(min, steps)), dt * sum(map(max, steps)), dt * sum(means), dt * math.sqrt(sum(variances))


@pytest.mark.parametrize("family", FAMILIES)
def test_event_table_gives_the_published_durations(family):
    least, longest, mean, _ = length_of(family, 20)
    assert (least, longest) == PUBLISHED[family][:2]
    assert mean == pytest.approx(PUBLISHED[family][2], abs=0.05)  # the published mean has one decimal


@pytest.mark.parametrize("dt", DTS)
@pytest.mark.parametrize("rule", RULES)
def test_durations_have_the_range_and_mean_of_the_event_table(rule, dt):
    least, longest, mean, deviation = length_of(FAMILY[rule], dt)
    draws = Draws(torch.Generator().manual_seed(1), 1, 0.0)
    lengths = [dt * schedule(TASKS[rule].timetable, "random", dt, draws, {})["go1"][1] for _ in range(400)]
    assert least <= min(lengths)
    assert max(lengths) <= longest
    assert np.mean(lengths) == pytest.approx(mean, abs=4.5 * deviation / 20)  # 4.5 standard errors of 400 draws


class Earliest(Draws):
    """Every draw at its lower end."""

    def uniform(self, low, high, n=None):
        return torch.tensor([low])

    def choice(self, values, n=None):
        return torch.tensor([min(values)])


class Latest(Draws):
    """Every draw at its upper end (open where the interval is)."""

    def uniform(self, low, high, n=None):
        return torch.tensor([np.nextafter(high, low)], dtype=torch.float64)

    def choice(self, values, n=None):
        return torch.tensor([max(values)])


@pytest.mark.parametrize("dt", DTS)
@pytest.mark.parametrize("rule", RULES)
def test_least_and_longest_trial_are_exact(rule, dt, generator):
    least, longest, *_ = length_of(FAMILY[rule], dt)
    extremes = [
        dt * schedule(TASKS[rule].timetable, "random", dt, draws(generator, 1, 0.0), {})["go1"][1]
        for draws in (Earliest, Latest)
    ]
    assert extremes == [least, longest]


TEST_TIMES = {  # ends of the periods in test mode, ms; dms and dmc chain their durations
    "fd": (500, 1500, 2000),
    "react": (2000, 2500),
    "delay": (500, 1000, 2000, 2500),
    "dm": (500, 2000, 2500),
    "ctxdm": (500, 1500, 2000),
    "dlydm": (500, 1000, 2000, 2500, 2700, 3000),
    "ctxdlydm": (500, 1000, 2000, 2500, 3000, 3500),
}
PERIODS = {
    "fd": ["fix1", "stim1", "go1"],
    "react": ["fix1", "go1"],
    "delay": ["fix1", "stim1", "delay1", "go1"],
    "dm": ["fix1", "stim1", "go1"],
    "ctxdm": ["fix1", "stim1", "go1"],
    "dlydm": ["fix1", "stim1", "delay1", "stim2", "delay2", "go1"],
    "ctxdlydm": ["fix1", "stim1", "delay1", "stim2", "delay2", "go1"],
    "dms": ["fix1", "stim1", "delay1", "go1"],
    "dmc": ["fix1", "stim1", "delay1", "go1"],
}


def ends_in_test_mode(family: str, dt: int) -> list[int]:
    if family in ("dms", "dmc"):
        return list(np.cumsum([500 // dt, 500 // dt, 1200 // dt, 500 // dt]))
    return [t // dt for t in TEST_TIMES[family]]


@pytest.mark.parametrize("dt", DTS)
@pytest.mark.parametrize("rule", RULES)
def test_periods_follow_each_other_and_fill_the_trial(rule, dt):
    for mode in ("random", "test"):
        batch = generate_trials(rule, 2, mode=mode, dt=dt, noise=0, seed=3)
        assert list(batch.periods) == PERIODS[FAMILY[rule]]
        starts, stops = zip(*batch.periods.values(), strict=True)
        assert starts == (0, *stops[:-1])
        assert stops[-1] == batch.n_times == batch.inputs.shape[1] == batch.targets.shape[1] == batch.cost_mask.shape[1]
    assert list(stops) == ends_in_test_mode(FAMILY[rule], dt)
