"""Names and input channels of the rules."""

import pytest
import torch

from multitask.tasks import (
    RULES,
    RULESETS,
    THREE_RING_RULES,
    generate_trials,
    layout,
    one_of_each_family,
)
from tests.multitask.tasks.families import FAMILIES


def test_rules_stand_in_the_published_order():
    published = (
        "fdgo reactgo delaygo fdanti reactanti delayanti dm1 dm2 contextdm1 contextdm2 multidm delaydm1 delaydm2 "
        "contextdelaydm1 contextdelaydm2 multidelaydm dmsgo dmsnogo dmcgo dmcnogo"
    )
    assert " ".join(RULES) == published
    assert RULESETS["all"] == RULES
    assert RULESETS["mante"] == ("contextdm1", "contextdm2")
    assert layout("dmcnogo").n_inputs == 85


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_lights_its_own_unit(rule):
    units = generate_trials(rule, 3, noise=0, seed=0).inputs[..., 65:]
    expected = torch.zeros(20)
    expected[RULES.index(rule)] = 1
    assert units.eq(expected).all()


@pytest.mark.parametrize("rule", THREE_RING_RULES)
def test_three_ring_rules_have_99_inputs(rule):
    batch = generate_trials(rule, 5, noise=0, seed=0)
    assert batch.inputs.shape == (5, batch.n_times, 99)
    assert batch.inputs[..., 97 + THREE_RING_RULES.index(rule)].eq(1).all()
    assert batch.inputs[..., 0].eq(1).all()  # the cue never goes off


def test_one_of_each_family_is_the_first_that_is_named():
    assert one_of_each_family(RULES) == [rules[0] for rules in FAMILIES.values()]
    assert one_of_each_family(["delayanti", "dm1", "delaygo", "dm2"]) == ["delayanti", "dm1"]
