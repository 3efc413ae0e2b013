"""Conditions of the twenty rules: the test grid and the random distributions, against Yang et al. (2019)."""

import math

import pytest
import torch

from multitask.tasks import (
    RULES,
    generate_trials,
)
from tests.multitask.tasks.families import DTS, FAMILY, conditions_of

RING_SUM = 0.8 * math.sqrt(2 * math.pi) * 2  # of one stimulus of strength 1


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


# ---- random conditions -----------------------------------------------------------------------------------------------

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


def test_difficulty_falls_geometrically():
    base = conditions_of("dm1", 50)["coherence"]
    halfway, easy = (conditions_of("dm1", 50, easiness=e)["coherence"] for e in (0.5, 1.0))
    torch.testing.assert_close(easy, 10 * base)
    torch.testing.assert_close(halfway**2, base * easy)
