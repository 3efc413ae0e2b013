"""Correct responses, as an observer of the inputs finds them, and trials with the conditions of the caller."""

import math

import numpy as np
import pytest
import torch

from multitask.tasks import (
    RULES,
    THREE_RING_RULES,
    generate_trials,
)
from multitask.trials import MultitaskError
from tests.multitask.tasks.families import DTS, FAMILY, ONE_MODALITY, PAIR, TWO_MODALITIES


def strengths_seen(ring: np.ndarray, directions: list[np.ndarray]) -> np.ndarray:
    """Strengths of bumps at known directions that add up to the activity of a ring, (trial, stimulus)."""
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
    """Answer of a perfect subject that sees only the inputs (and knows the directions of two simultaneous stimuli)."""
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


# ---- psychometric mode -----------------------------------------------------------------------------------------------

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


DM = ONE_MODALITY | {"stim_time": 800}
BAD_CONDITIONS = [
    ({k: v for k, v in DM.items() if k != "strength2"}, r"missing: strength2"),
    (
        DM | {"strengt1": [1.0]},
        r"unknown condition of 'dm1' in psychometric mode 'strengt1': did you mean 'strength1'\?",
    ),
    (DM | {"strength1": [1.0]}, r"one value per trial.*strength1 \(1,\)"),
    (DM | {"direction1": 0.5}, r"one value per trial.*direction1 \(\)"),
    (
        DM | {"direction1": [0.5, -0.1, 1.0]},
        r"condition 'direction1', trial 1: -0.1 is not a direction in \[0, 2 pi\) rad",
    ),
    (DM | {"strength1": [1.0, 1.0, math.inf]}, r"condition 'strength1', trial 2: inf is not a finite strength"),
    (DM | {"stim_time": 5}, r"period 'stim1' has no time step"),
]


@pytest.mark.parametrize(("conditions", "message"), BAD_CONDITIONS, ids=[message[:40] for _, message in BAD_CONDITIONS])
def test_bad_conditions_are_refused_with_their_name(conditions, message):
    with pytest.raises(MultitaskError, match=message):
        generate_trials("dm1", mode="psychometric", conditions=conditions, seed=0)


# ---- three rings -----------------------------------------------------------------------------------------------------


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
