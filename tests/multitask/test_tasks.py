"""The twenty rules: times, conditions and right answers, against the tables of Yang et al. (2019) and its code."""

import math
import random
import time

import numpy as np
import pytest
import torch

from multitask.tasks import (
    RULES,
    RULESETS,
    TASKS,
    THREE_RING_RULES,
    Draws,
    generate_trials,
    layout,
    one_of_each_family,
    schedule,
)
from multitask.trials import MultitaskError

RING_SUM = 0.8 * math.sqrt(2 * math.pi) * 2  # of one stimulus of strength 1
DTS = (10, 20, 30, 50)
FAMILIES = {
    "fd": ("fdgo", "fdanti"),
    "react": ("reactgo", "reactanti"),
    "delay": ("delaygo", "delayanti"),
    "dm": ("dm1", "dm2"),
    "ctxdm": ("contextdm1", "contextdm2", "multidm"),
    "dlydm": ("delaydm1", "delaydm2"),
    "ctxdlydm": ("contextdelaydm1", "contextdelaydm2", "multidelaydm"),
    "dms": ("dmsgo", "dmsnogo"),
    "dmc": ("dmcgo", "dmcnogo"),
}
FAMILY = {rule: family for family, rules in FAMILIES.items() for rule in rules}


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def conditions_of(rule: str, n_trials: int, seed: int = 0, easiness: float = 0.0) -> dict[str, torch.Tensor]:
    design = TASKS[rule].design
    return design.describe(design.draw(Draws(torch.Generator().manual_seed(seed), n_trials, easiness)))


# ---- times -----------------------------------------------------------------------------------------------------------

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


# ---- the test grid ---------------------------------------------------------------------------------------------------

SUMS = {  # at dt 20, without noise: steps, trials, inputs without rule units, targets, mask, trials to stimulus 1
    "fd": (100, 40, 15031.8, 12860.6, 231200, None),
    "react": (125, 40, 9010.6, 15260.6, 265200, None),
    "delay": (125, 40, 8010.6, 15260.6, 265200, None),
    "dm": (125, 100, 70159.1, 38151.5, 663000, 40),
    "ctxdm": (100, 500, 438560.5, 160757.6, 2890000, 200),
    "dlydm": (150, 100, 33553.0, 40890.9, 612000, 40),
    "ctxdlydm": (175, 500, 275530.3, 250757.6, 4165000, 200),
    "dms": (135, 80, 26842.4, 32441.2, 557600, None),
    "dmc": (135, 80, 26842.4, 32441.2, 557600, None),
}


@pytest.mark.parametrize("rule", RULES)
def test_sums_over_the_test_grid_are_the_published_ones(rule):
    n_times, n_trials, inputs, targets, mask, to_first = SUMS[FAMILY[rule]]
    batch = generate_trials(rule, mode="test", noise=0, seed=0)
    assert (batch.n_times, batch.n_trials) == (n_times, n_trials)
    assert batch.inputs[..., :65].double().sum().item() == pytest.approx(inputs, abs=0.06)  # published to one decimal
    assert batch.targets.double().sum().item() == pytest.approx(targets, abs=0.06)
    assert batch.cost_mask.double().sum().item() == mask
    assert batch.inputs[..., 65:].sum().item() == n_times * n_trials  # one rule unit at 1
    if to_first is not None:
        chosen = (batch.response - batch.conditions["direction1"]).abs() < 1e-5  # float32 against float64
        assert chosen.sum() == (120 if "multi" in rule else to_first)
    if FAMILY[rule] in ("dms", "dmc"):
        torch.testing.assert_close(batch.response, batch.conditions["direction2"].float())


@pytest.mark.parametrize("dt", DTS)
@pytest.mark.parametrize("rule", RULES)
def test_sums_over_the_test_grid_follow_from_the_times_at_every_dt(rule, dt):
    family, batch = FAMILY[rule], generate_trials(rule, mode="test", dt=dt, noise=0, seed=0)
    steps = {name: stop - start for name, (start, stop) in batch.periods.items()}
    n_times, go, grace = batch.n_times, batch.periods["go1"][0], 100 // dt
    first, second = {"dm": (0.96, 1.04), "ctxdm": (0.96, 1.04), "dlydm": (0.9, 1.1), "ctxdlydm": (0.96, 1.04)}.get(
        family, (1, 1)
    )  # mean strengths over the grid
    shown = {  # strength times steps of a trial
        "fd": steps.get("stim1", 0) + steps["go1"],
        "react": steps["go1"],
        "delay": steps.get("stim1"),
        "dm": 2 * steps.get("stim1", 0),
        "ctxdm": 4 * steps.get("stim1", 0),
        "dlydm": first * steps.get("stim1", 0) + second * steps.get("stim2", 0),
        "ctxdlydm": 2 * (first * steps.get("stim1", 0) + second * steps.get("stim2", 0)),
        "dms": steps.get("stim1", 0) + steps["go1"],
        "dmc": steps.get("stim1", 0) + steps["go1"],
    }[family]
    cue = n_times if family in ("react", "dms", "dmc") else go
    inputs = batch.n_trials * (cue + RING_SUM * shown)
    targets = batch.n_trials * (0.05 * 33 * n_times + 0.75 * go + RING_SUM * (n_times - go))
    mask = batch.n_trials * 34 * (go - grace + 5 * (n_times - go - grace))
    assert batch.inputs[..., :65].double().sum().item() == pytest.approx(inputs, rel=2e-6)  # 1e-6 of a ring, float32
    assert batch.targets.double().sum().item() == pytest.approx(targets, rel=2e-6)
    assert batch.cost_mask.double().sum().item() == mask


def test_grid_of_go_rules_runs_through_directions_and_modalities():
    c = generate_trials("fdgo", mode="test", seed=0).conditions
    torch.testing.assert_close(c["direction"][::2], 2 * math.pi * torch.arange(20).double() / 20)
    assert c["modality"].tolist() == [1, 2] * 20


@pytest.mark.parametrize(
    ("rule", "levels"), [("dm1", [0.8, 0.88, 0.96, 1.04, 1.12]), ("delaydm2", [0.5, 0.7, 0.9, 1.1, 1.3])]
)
def test_grid_of_decisions_never_reaches_the_upper_end(rule, levels):
    c = generate_trials(rule, mode="test", seed=0).conditions
    torch.testing.assert_close(c["strength1"][:5], torch.tensor(levels).double())
    torch.testing.assert_close(c["strength1"] + c["strength2"], torch.full((100,), 2.0).double())
    apart = (c["direction1"] - c["direction2"]).abs()
    torch.testing.assert_close(apart, torch.full_like(apart, math.pi))


@pytest.mark.parametrize("rule", ["multidm", "multidelaydm"])
def test_ties_of_the_summed_strengths_go_to_the_second_stimulus(rule):
    batch = generate_trials(rule, mode="test", seed=0)
    tie = batch.conditions["coherence"].abs() < 1e-9
    assert tie.sum() == 80
    torch.testing.assert_close(batch.response[tie], batch.conditions["direction2"][tie].float())


def test_grid_of_category_rules_shows_ten_directions_of_each_category():
    c = generate_trials("dmcgo", mode="test", seed=0).conditions
    expected = [0.1 + 0.08 * k for k in range(10)] + [1.1 + 0.08 * k for k in range(10)]
    torch.testing.assert_close(c["direction1"][::4] / math.pi, torch.tensor(expected).double())
    assert [(a, b) for a, b in zip(c["modality1"][:4].tolist(), c["modality2"][:4].tolist(), strict=True)] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
    ]


@pytest.mark.parametrize("rule", ["dmsgo", "dmsnogo", "dmcgo", "dmcnogo"])
def test_every_match_trial_of_the_test_grid_is_a_go_trial(rule):
    batch = generate_trials(rule, mode="test", seed=0)
    assert not batch.response.isnan().any()
    assert batch.conditions["match"].all() == (rule in ("dmsgo", "dmcgo"))


# ---- what is shown, and what is right --------------------------------------------------------------------------------


def strengths_seen(ring: np.ndarray, directions: list[np.ndarray]) -> np.ndarray:
    """Strengths of bumps at known directions that explain a ring without remainder, (trial, stimulus)."""
    preferred = 2 * np.pi * np.arange(32) / 32
    found = np.empty((len(ring), len(directions)))
    for trial in range(len(ring)):
        bumps = []
        for direction in directions:
            apart = np.abs(direction[trial] - preferred)
            bumps.append(0.8 * np.exp(-0.5 * (np.minimum(apart, 2 * np.pi - apart) / (np.pi / 8)) ** 2))
        design = np.stack(bumps, 1)
        found[trial], *_ = np.linalg.lstsq(design, ring[trial], rcond=None)
        np.testing.assert_allclose(design @ found[trial], ring[trial], atol=1e-6)  # float32 inputs
    return found


def direction_seen(rings: np.ndarray) -> np.ndarray:
    """Population vector over both rings, (trial,)."""
    preferred = np.tile(2 * np.pi * np.arange(32) / 32, 2)
    return np.arctan2(rings @ np.sin(preferred), rings @ np.cos(preferred)) % (2 * np.pi)


def right_answer(batch) -> np.ndarray:
    """What a perfect subject answers who sees the inputs alone (and, of two stimuli at a time, where they are)."""
    x, rule = batch.inputs.double().numpy(), batch.rule
    middle = {name: (start + stop) // 2 for name, (start, stop) in batch.periods.items()}
    family = FAMILY[rule]
    if family in ("fd", "react", "delay"):
        seen = direction_seen(x[:, middle.get("stim1", middle["go1"]), 1:65])
        return (seen + np.pi * rule.endswith("anti")) % (2 * np.pi)
    if family in ("dms", "dmc"):
        sample, test = (direction_seen(x[:, middle[p], 1:65]) for p in ("stim1", "go1"))
        if family == "dms":
            match = np.cos(sample - test) > np.cos(np.radians(10))
        else:
            match = (sample < np.pi) == (test < np.pi)
        return np.where(match == rule.endswith("cgo") if family == "dmc" else match == (rule == "dmsgo"), test, np.nan)
    d1, d2 = (batch.conditions[f"direction{i}"].numpy() for i in (1, 2))
    g = np.zeros((batch.n_trials, 2, 2))  # (trial, modality, stimulus)
    for modality in (0, 1):
        ring = slice(1 + 32 * modality, 33 + 32 * modality)
        if "dly" in family:
            for i, (direction, period) in enumerate([(d1, "stim1"), (d2, "stim2")]):
                g[:, modality, i] = strengths_seen(x[:, middle[period], ring], [direction])[:, 0]
        else:
            g[:, modality] = strengths_seen(x[:, middle["stim1"], ring], [d1, d2])
    weights = {"1": [1, 0], "2": [0, 1]}.get(rule[-1], [1, 1])
    evidence = np.einsum("m,tms->ts", weights, g)
    if FAMILY[rule] in ("dm", "dlydm"):
        np.testing.assert_allclose(g[:, 2 - int(rule[-1])], 0, atol=1e-6)  # the other ring is silent
    return np.where(evidence[:, 0] > evidence[:, 1], d1, d2)


@pytest.mark.parametrize("dt", DTS)
@pytest.mark.parametrize("rule", RULES)
def test_a_perfect_observer_of_the_inputs_finds_the_response(rule, dt):
    batch = generate_trials(rule, 24, dt=dt, noise=0, seed=dt)
    expected, response = right_answer(batch), batch.response.double().numpy()
    np.testing.assert_array_equal(np.isnan(expected), np.isnan(response))
    apart = np.abs(np.angle(np.exp(1j * (expected - response))))
    assert np.nanmax(apart) < 1e-5  # float32 inputs and response


@pytest.mark.parametrize("mode", ["random", "test"])
@pytest.mark.parametrize("rule", RULES)
def test_cue_targets_and_mask_follow_the_go_event(rule, mode):
    batch = generate_trials(rule, 8, mode=mode, noise=0, seed=5)
    go = batch.periods["go1"][0]
    stays = batch.response.isnan()
    cue = batch.inputs[..., 0]
    assert cue[:, :go].eq(1).all()
    assert cue[:, go:].eq(float(FAMILY[rule] in ("react", "dms", "dmc"))).all()
    fixation = batch.targets[..., 0]
    assert fixation[:, :go].eq(0.8).all()
    assert fixation[~stays, go:].eq(0.05).all()
    assert fixation[stays].eq(0.8).all()
    assert batch.targets[:, :go, 1:].eq(0.05).all()
    assert batch.targets[stays, :, 1:].eq(0.05).all()
    assert set(batch.cost_mask[..., 1:].unique().tolist()) == {0, 1, 5}
    assert set(batch.cost_mask[..., 0].unique().tolist()) == {0, 2, 10}
    assert batch.cost_mask[..., 0].eq(0).sum(1).eq(10).all()  # 100 ms at the start, 100 ms after the go event


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_lights_its_own_unit(rule):
    units = generate_trials(rule, 3, noise=0, seed=0).inputs[..., 65:]
    expected = torch.zeros(20)
    expected[RULES.index(rule)] = 1
    assert units.eq(expected).all()


def test_rules_stand_in_the_published_order():
    published = (
        "fdgo reactgo delaygo fdanti reactanti delayanti dm1 dm2 contextdm1 contextdm2 multidm delaydm1 delaydm2 "
        "contextdelaydm1 contextdelaydm2 multidelaydm dmsgo dmsnogo dmcgo dmcnogo"
    )
    assert " ".join(RULES) == published
    assert RULESETS["all"] == RULES
    assert RULESETS["mante"] == ("contextdm1", "contextdm2")
    assert layout("dmcnogo").n_inputs == 85


def test_rule_input_can_be_weaker_replaced_or_composed():
    def units(rule_input):
        return generate_trials("delayanti", 2, noise=0, seed=0, rule_input=rule_input).inputs[0, 0, 65:]

    assert units({"delayanti": 0.5})[5] == 0.5
    assert units({"fdgo": 1.0}).nonzero().flatten().tolist() == [0]
    composed = units({"fdanti": 1.0, "delaygo": 1.0, "fdgo": -1.0})
    assert composed[[0, 2, 3, 5]].tolist() == [-1, 1, 1, 0]
    assert units({}).eq(0).all()
    default = generate_trials("delayanti", 2, seed=0)
    replaced = generate_trials("delayanti", 2, seed=0, rule_input={"fdgo": 1.0})
    assert default.inputs[..., :65].equal(replaced.inputs[..., :65])  # nothing else changes


# ---- distributions of the conditions ---------------------------------------------------------------------------------

N = 20_000


def shares(values: torch.Tensor) -> dict[float, float]:
    found, counts = values.unique(return_counts=True)
    return {round(v, 6): n / len(values) for v, n in zip(found.tolist(), counts.tolist(), strict=True)}


def assert_uniform(values: torch.Tensor, low: float, high: float) -> None:
    """Kolmogorov-Smirnov at the 1e-4 level: 2.2 / sqrt(n)."""
    ordered = ((values - low) / (high - low)).sort().values
    ranks = torch.arange(1, len(values) + 1).double() / len(values)
    assert (ordered - ranks).abs().max() < 2.3 / math.sqrt(len(values))


def apart(c: dict[str, torch.Tensor]) -> torch.Tensor:
    distance = (c["direction1"] - c["direction2"]).abs()
    return torch.minimum(distance, 2 * math.pi - distance)


@pytest.mark.parametrize("rule", RULES)
def test_directions_lie_in_the_circle_and_are_spread_over_it(rule):
    for name, value in conditions_of(rule, N).items():
        if name.startswith("direction"):
            assert value.min() >= 0
            assert value.max() < 2 * math.pi
            if FAMILY[rule] != "dmc":
                assert_uniform(value, 0, 2 * math.pi)


@pytest.mark.parametrize("easiness", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rule", [r for r in RULES if "dm" in FAMILY[r] and FAMILY[r] != "dmc" and FAMILY[r] != "dms"])
def test_strengths_have_the_published_means_and_coherences(rule, easiness):
    c = conditions_of(rule, N, easiness=easiness)
    standard, factor = ([0.08, 0.16, 0.32], 2) if "dly" in FAMILY[rule] else ([0.01, 0.02, 0.04, 0.08], 10)
    levels = [s * factor**easiness for s in standard]
    found = shares((c["coherence"].abs() * 1e6).round() / 1e6)
    assert list(found) == pytest.approx(levels, abs=2e-6)  # rounded to 1e-6 above
    assert list(found.values()) == pytest.approx([1 / len(levels)] * len(levels), abs=0.02)  # five standard errors
    assert (c["coherence"] > 0).double().mean() == pytest.approx(0.5, abs=0.02)
    assert_uniform(apart(c), math.pi / 2, math.pi)
    assert apart(c).mean() == pytest.approx(3 * math.pi / 4, abs=0.02)
    assert apart(c).std() == pytest.approx(math.pi / (4 * math.sqrt(3)), abs=0.01)
    if FAMILY[rule] in ("dm", "dlydm"):
        means = [(c["strength1"] + c["strength2"]) / 2]
    elif "multi" in rule:
        means = [sum(c[f"strength{i}_modality{m}"] for i in (1, 2) for m in (1, 2)) / 4]
    else:
        means = [(c[f"strength1_modality{m}"] + c[f"strength2_modality{m}"]) / 2 for m in (1, 2)]
    for mean in means:
        assert_uniform(mean, 0.8, 1.2)
        assert mean.mean() == pytest.approx(1, abs=0.005)
        assert mean.std() == pytest.approx(0.1155, abs=0.002)


@pytest.mark.parametrize("rule", ["contextdm1", "contextdm2", "contextdelaydm1", "contextdelaydm2"])
def test_modalities_of_context_rules_are_independent(rule):
    c = conditions_of(rule, N)
    first, second = c["coherence_modality1"] > 0, c["coherence_modality2"] > 0
    assert (first == second).double().mean() == pytest.approx(0.5, abs=0.02)
    assert c["coherence"].equal(c[f"coherence_modality{rule[-1]}"])
    summed = (c["coherence_modality1"] + c["coherence_modality2"]) > 0
    ignoring_the_rule = (summed == (c["coherence"] > 0)).double().mean()
    # agreeing modalities (1/2) are always right; of the others, the larger coherence wins: 1/2, with ties on one side
    assert ignoring_the_rule == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("rule", ["multidm", "multidelaydm"])
def test_single_modalities_of_multisensory_rules_say_little(rule):
    c = conditions_of(rule, N)
    for stimulus in (1, 2):
        m1, m2 = (c[f"strength{stimulus}_modality{m}"] for m in (1, 2))
        factor = 2 * m1 / (m1 + m2)  # 1 + q u / 2
        assert_uniform((factor - 1).abs(), 0.1, 0.4)
        assert (factor > 1).double().mean() == pytest.approx(0.5, abs=0.02)
    alone = ((c["coherence_modality1"] > 0) == (c["coherence"] > 0)).double().mean()
    assert 0.5 < alone < (0.6 if rule == "multidm" else 0.85)  # far from 1, where both modalities together are


@pytest.mark.parametrize("rule", ["dmsgo", "dmsnogo"])
def test_half_of_the_samples_match_and_the_others_lie_far_apart(rule):
    c = conditions_of(rule, N)
    assert c["match"].double().mean() == pytest.approx(0.5, abs=0.02)
    degrees = torch.rad2deg(apart(c))
    assert degrees[c["match"]].max() < 1e-6
    assert_uniform(degrees[~c["match"]], 20, 180)
    assert degrees[~c["match"]].mean() == pytest.approx(100, abs=2.5)  # five standard errors
    assert degrees[~c["match"]].std() == pytest.approx(46.19, abs=1.0)


@pytest.mark.parametrize("rule", ["dmcgo", "dmcnogo"])
def test_category_pairs_are_uniform_over_a_hundred(rule):
    c = conditions_of(rule, N)
    tenths = [torch.round(c[f"direction{i}"] / math.pi * 10).long() for i in (1, 2)]
    pairs = shares((tenths[0] * 100 + tenths[1]).double())
    assert len(pairs) == 100
    assert max(abs(p - 0.01) for p in pairs.values()) < 0.0035  # five standard errors
    degrees = shares(torch.rad2deg(apart(c)).round())
    assert degrees == pytest.approx({0: 0.1, 36: 0.2, 72: 0.2, 108: 0.2, 144: 0.2, 180: 0.1}, abs=0.015)
    assert c["match"].double().mean() == pytest.approx(0.5, abs=0.02)
    same = (c["direction1"] < math.pi) == (c["direction2"] < math.pi)
    assert c["match"].equal(same)


def test_modality_is_one_draw_for_the_whole_batch():
    go = [conditions_of("delaygo", 3, seed)["modality"] for seed in range(800)]
    assert all(len(m.unique()) == 1 for m in go)
    assert torch.stack(go)[:, 0].double().mean() == pytest.approx(1.5, abs=0.09)  # five standard errors
    match = [conditions_of("dmsgo", 3, seed) for seed in range(800)]
    pairs = shares(torch.stack([10 * c["modality1"][0] + c["modality2"][0] for c in match]).double())
    assert pairs == pytest.approx({11: 0.25, 12: 0.25, 21: 0.25, 22: 0.25}, abs=0.08)


# ---- psychometric mode -----------------------------------------------------------------------------------------------

PAIR = {"direction1": [0.5, 1.0, 2.0], "direction2": [3.0, 4.0, 5.0]}
ONE_MODALITY = PAIR | {"strength1": [1.0, 1.2, 0.7], "strength2": [1.1, 0.8, 0.9]}
TWO_MODALITIES = PAIR | {
    "strength1_modality1": [1.0, 1.2, 0.7],
    "strength2_modality1": [1.1, 0.8, 0.9],
    "strength1_modality2": [1.3, 0.9, 1.5],
    "strength2_modality2": [0.8, 1.4, 1.0],
}
PSYCHOMETRIC = {  # conditions, ends of the periods in ms
    "fd": ({"direction": [0.5, 1.0], "stim_time": 700}, (300, 1000, 1400)),
    "react": ({"direction": [0.5, 1.0]}, (1000, 1400)),
    "delay": ({"direction": [0.5, 1.0], "stim_on": 300, "stim_off": 600, "delay_time": 900}, (300, 600, 1500, 1900)),
    "dm": (ONE_MODALITY | {"stim_time": 800}, (300, 1100, 1500)),
    "ctxdm": (TWO_MODALITIES | {"stim_time": 800}, (500, 1300, 1800)),
    "dlydm": (
        ONE_MODALITY | {"stim1_on": 300, "stim1_off": 600, "stim2_on": 1400, "stim2_off": 1700},
        (300, 600, 1400, 1700, 1900, 2200),
    ),
    "ctxdlydm": (TWO_MODALITIES | {"delay_time": 800}, (300, 600, 1400, 1700, 1900, 2200)),
    "dms": (PAIR | {"direction2": [0.55, 4.0, 2.0]}, (500, 800, 2000, 2500)),
    "dmc": (PAIR, (500, 800, 2000, 2500)),
}


@pytest.mark.parametrize("rule", RULES)
def test_psychometric_trials_show_the_callers_conditions(rule):
    conditions, ends = PSYCHOMETRIC[FAMILY[rule]]
    batch = generate_trials(rule, mode="psychometric", conditions=conditions, noise=0, seed=0)
    assert [stop * 20 for _, stop in batch.periods.values()] == list(ends)
    for name, value in conditions.items():
        if isinstance(value, list):
            torch.testing.assert_close(batch.conditions[name], torch.tensor(value).double())
    expected = right_answer(batch)
    np.testing.assert_allclose(batch.response, expected, atol=1e-5)  # float32
    if FAMILY[rule] in ("fd", "react", "delay", "dms", "dmc"):
        assert batch.inputs[..., 33:65].eq(0).all()  # shown on ring 1


def test_samples_five_degrees_apart_no_longer_match():
    near, far = math.radians(4.9), math.radians(5.1)
    conditions = {"direction1": [0.0, 0.0], "direction2": [near, far]}
    batch = generate_trials("dmsgo", mode="psychometric", conditions=conditions, seed=0)
    assert batch.conditions["match"].tolist() == [True, False]


# ---- three rings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", THREE_RING_RULES)
def test_three_ring_rules_have_99_inputs(rule):
    batch = generate_trials(rule, 5, noise=0, seed=0)
    assert batch.inputs.shape == (5, batch.n_times, 99)
    assert batch.inputs[..., 97 + THREE_RING_RULES.index(rule)].eq(1).all()
    assert batch.inputs[..., 0].eq(1).all()  # the cue never goes off


def test_one_interval_category_chooses_between_two_rings():
    batch = generate_trials("oic", 50, noise=0, seed=1)
    go = batch.periods["go1"][0]
    assert batch.inputs[:, :go, 33:97].eq(0).all()
    assert go - batch.periods["stim1"][0] == 50  # 1000 ms
    preferred = 2 * math.pi * torch.arange(32) / 32
    seen = [
        torch.atan2(r @ preferred.sin(), r @ preferred.cos()) % (2 * math.pi)
        for r in batch.inputs[:, -1, 1:97].split(32, 1)
    ]
    expected = torch.where(seen[0] >= math.pi, seen[1], seen[2])
    torch.testing.assert_close(batch.response, expected, atol=1e-5, rtol=0)  # float32


def test_three_ring_match_stays_on_ring_one():
    batch = generate_trials("dmc", 50, noise=0, seed=1)
    assert batch.inputs[..., 33:97].eq(0).all()
    assert batch.response.isnan().equal(~batch.conditions["match"])
    assert batch.periods["delay1"][1] - batch.periods["delay1"][0] == 50


@pytest.mark.parametrize("rule", THREE_RING_RULES)
def test_three_ring_grids_show_category_a_alone(rule):
    batch = generate_trials(rule, mode="test", seed=0)
    assert batch.n_trials == 128
    assert (batch.conditions["direction1"] < math.pi).all()


# ---- cross-entropy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_cross_entropy_asks_for_one_unit_near_the_response(rule):
    lsq = generate_trials(rule, 16, seed=2)
    batch = generate_trials(rule, 16, seed=2, loss="cross_entropy")
    assert batch.inputs.equal(lsq.inputs)
    assert batch.targets.sum(-1).eq(1).all()
    assert batch.cost_mask.shape == batch.targets.shape[:2]
    stays = batch.response.isnan()
    last = batch.targets[:, -1].argmax(-1)
    assert last[stays].eq(0).all()
    unit = (last[~stays] - 1) * 2 * math.pi / 32
    assert (
        torch.angle(torch.exp(1j * (unit - batch.response[~stays]))).abs().max() <= math.pi / 32 + 1e-6
    )  # half a spacing


# ---- randomness ------------------------------------------------------------------------------------------------------


def tensors(batch) -> list[torch.Tensor]:
    return [batch.inputs, batch.targets, batch.cost_mask, batch.response.nan_to_num(-1), *batch.conditions.values()]


@pytest.mark.parametrize("mode", ["random", "test"])
@pytest.mark.parametrize("rule", RULES)
def test_same_seed_gives_the_same_batch_bit_for_bit(rule, mode):
    first, second, other = (generate_trials(rule, 4, mode=mode, seed=s) for s in (7, 7, 8))
    assert first.periods == second.periods
    assert all(a.equal(b) for a, b in zip(tensors(first), tensors(second), strict=True))
    assert first.inputs.shape != other.inputs.shape or not first.inputs.equal(other.inputs)


def test_a_generator_is_drawn_from_and_equals_its_seed(generator):
    first, second = (generate_trials("dm1", 4, generator=generator) for _ in range(2))
    assert first.inputs.equal(generate_trials("dm1", 4, seed=0).inputs)
    assert first.inputs.shape != second.inputs.shape or not first.inputs.equal(second.inputs)


def test_global_random_states_stay_untouched():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    for rule in TASKS:
        generate_trials(rule, 4, seed=0)
    assert torch.get_rng_state().equal(before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


@pytest.mark.parametrize(("dt", "tau"), [(20, 100), (50, 100), (10, 20), (20, 20)])
def test_noise_scales_with_the_step(dt, tau):
    noisy, clean = (generate_trials("delaygo", 60, dt=dt, tau=tau, noise=s, seed=4) for s in (0.01, 0.0))
    deviation = (noisy.inputs - clean.inputs).std().item()
    n = clean.inputs.numel()
    expected = 0.01 * math.sqrt(2 * tau / dt)
    assert deviation == pytest.approx(expected, rel=6 / math.sqrt(2 * n))  # six standard errors
    if (dt, tau) == (20, 100):
        assert expected == pytest.approx(0.0316228, abs=5e-8)


def test_difficulty_falls_geometrically():
    base = conditions_of("dm1", 50)["coherence"]
    halfway, easy = (conditions_of("dm1", 50, easiness=e)["coherence"] for e in (0.5, 1.0))
    torch.testing.assert_close(easy, 10 * base)
    torch.testing.assert_close(halfway**2, base * easy)


@pytest.mark.parametrize("rule", ["fdgo", "reactanti", "delaygo", "dmsgo", "dmcnogo"])
def test_rules_without_coherence_do_not_become_easier(rule):
    standard, easy = (generate_trials(rule, 4, seed=0, easiness=e) for e in (0.0, 1.0))
    assert standard.inputs.equal(easy.inputs)


# ---- bad input -------------------------------------------------------------------------------------------------------

BAD = [
    ({"rule": "dm_1"}, r"unknown rule 'dm_1': did you mean 'dm1'\?"),
    ({"rule": "nonsense"}, r"unknown rule 'nonsense': known are fdgo, reactgo"),
    ({"n_trials": 0}, r"n_trials in random mode = 0: must be a whole number >= 1"),
    ({"n_trials": None}, r"n_trials in random mode = None: must be"),
    ({"n_trials": 2.5}, r"n_trials in random mode = 2.5: must be"),
    ({"dt": 120.0}, r"dt = 120 ms and tau = 100 ms do not fit"),
    ({"dt": 0.0}, r"dt = 0 ms"),
    ({"dt": math.nan}, r"dt = nan ms"),
    ({"noise": -0.1}, r"noise must be a finite number >= 0, but is -0.1"),
    ({"noise": math.nan}, r"noise must be a finite number >= 0, but is nan"),
    ({"seed": -1}, r"seed = -1: must be a whole number >= 0"),
    ({"seed": None}, r"give exactly one of seed and generator, got neither"),
    ({"generator": torch.Generator()}, r"give exactly one of seed and generator, got both"),
    ({"mode": "tset"}, r"unknown mode 'tset': did you mean 'test'\?"),
    (
        {"mode": "psychometric"},
        r"psychometric trials of 'dm1' need the conditions direction1, direction2, strength1, strength2, stim_time",
    ),
    ({"conditions": {"direction": [1.0]}}, r"conditions are for mode='psychometric', not for 'random'"),
    ({"loss": "crossentropy"}, r"unknown loss 'crossentropy': did you mean 'cross_entropy'\?"),
    ({"easiness": 1.5}, r"easiness must lie in \[0, 1\], but is 1.5"),
    ({"easiness": 1.0, "mode": "test"}, r"easiness = 1 has no meaning in mode 'test'"),
    ({"rule_input": {"dm9": 1.0}}, r"unknown rule 'dm9': did you mean 'dm"),
    ({"rule": "oic", "rule_input": {"fdgo": 1.0}}, r"unknown rule 'fdgo': known are oic, dmc"),
    ({"dt": 250.0, "tau": 500.0, "rule": "delaydm1", "seed": 1}, r"period '\w+' has no step"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_arguments_are_refused_with_what_came(arguments, message):
    arguments = {"rule": "dm1", "n_trials": 4, "seed": 0} | arguments
    with pytest.raises(MultitaskError, match=message):
        generate_trials(**arguments)


DM = ONE_MODALITY | {"stim_time": 800}
BAD_CONDITIONS = [
    ({k: v for k, v in DM.items() if k != "strength2"}, r"missing: strength2"),
    (
        DM | {"strengt1": [1.0]},
        r"unknown condition of 'dm1' in psychometric mode 'strengt1': did you mean 'strength1'\?",
    ),
    (DM | {"strength1": [1.0]}, r"one value a trial.*strength1 \(1,\)"),
    (DM | {"direction1": 0.5}, r"one value a trial.*direction1 \(\)"),
    (
        DM | {"direction1": [0.5, -0.1, 1.0]},
        r"condition 'direction1', trial 1: -0.1 is not a direction in \[0, 2 pi\) rad",
    ),
    (DM | {"strength1": [1.0, 1.0, math.inf]}, r"condition 'strength1', trial 2: inf is not a finite strength"),
    (DM | {"stim_time": 5}, r"period 'stim1' has no step"),
]


@pytest.mark.parametrize(("conditions", "message"), BAD_CONDITIONS, ids=[message[:40] for _, message in BAD_CONDITIONS])
def test_bad_conditions_are_refused_with_their_name(conditions, message):
    with pytest.raises(MultitaskError, match=message):
        generate_trials("dm1", mode="psychometric", conditions=conditions, seed=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(MultitaskError, match=r"device 'cuda' was asked for, but this machine has 0 CUDA devices"):
        generate_trials("dm1", 4, seed=0, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_conditions_are_the_same_on_every_device():
    here, there = (generate_trials("contextdm1", 8, noise=0, seed=0, device=d) for d in ("cpu", "cuda"))
    assert there.inputs.device.type == there.targets.device.type == there.cost_mask.device.type == "cuda"
    assert here.inputs.equal(there.inputs.cpu())
    noisy = [generate_trials("contextdm1", 8, seed=0, device="cuda").inputs for _ in range(2)]
    assert noisy[0].equal(noisy[1])


# ---- cost ------------------------------------------------------------------------------------------------------------


def test_making_a_batch_costs_little_beside_a_training_step():
    weights = [torch.randn(n, 128, requires_grad=True) for n in (85, 128)] + [torch.randn(128, 33, requires_grad=True)]

    def step() -> None:
        """Forward and backward through the recurrence of one network of 128 units, as a plain loop."""
        h = torch.zeros(64, 128)
        loss = 0.0
        for x in inputs:
            h = 0.8 * h + 0.2 * torch.relu(x @ weights[0] + 0.01 * h @ weights[1])
            loss = loss + torch.sigmoid(h @ weights[2]).square().mean()
        loss.backward()

    def seconds(work) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    inputs = torch.randn(98, 64, 85)  # 98 steps: the mean over the rules
    step()
    batches = min(seconds(lambda: [generate_trials(rule, 64, seed=0) for rule in RULES]) / len(RULES) for _ in range(3))
    assert batches < 0.1 * 4 * min(seconds(step) for _ in range(3))  # four networks share a batch


def test_one_of_each_family_is_the_first_that_is_named():
    assert one_of_each_family(RULES) == [rules[0] for rules in FAMILIES.values()]
    assert one_of_each_family(["delayanti", "dm1", "delaygo", "dm2"]) == ["delayanti", "dm1"]
