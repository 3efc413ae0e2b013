"""Sections of config.yaml that state only what differs: what they inherit, from where, how mistakes are reported."""

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsa_analysis.comparison import Comparison
from workbench.settings import ConfigError, Section, Settings, load_settings
from workbench.settings.dsa import KEYS, Dsa, stated
from workbench.settings.merging import Inherits, complete
from workbench.settings.report import Report


def report(config) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(config.path)
    return str(caught.value).replace(f"{config.path.parent}{os.sep}", "").splitlines()


def comparisons(settings: Settings) -> dict[str, Comparison]:
    """All comparisons of all sections but the one at the top."""
    return {
        "lorenz": settings.lorenz.dsa,
        **settings.lorenz.noise.estimators,
        "compositional": settings.compositional.dsa,
        **{f"epochs, {name}": dsa for name, dsa in settings.dsa_epochs.estimators.items()},
        **{f"groups, {name}": measure.dsa for name, measure in settings.groups.comparison.measures.items()},
    }


# ---- what is inherited -----------------------------------------------------------------------------------------------


def test_what_a_variant_does_not_state_is_that_of_its_section(config):
    config.set("lorenz.noise.estimators", '{base: {}, "far: ahead": {steps_ahead: 7}}')
    noise = load_settings(config.path).lorenz.noise
    assert noise.estimators == {"base": noise.dsa, "far: ahead": noise.dsa.override(steps_ahead=7)}


def test_value_at_the_top_reaches_every_section_that_does_not_state_it(config):
    config.set("dsa.ridge", "0.25")
    config.set("compositional.dsa.ridge", "0.5")
    found = comparisons(load_settings(config.path))
    for name, dsa in found.items():
        if dsa.metric.needs != "trials":
            assert dsa.ridge == (0.5 if name == "compositional" else 0.25), name


def test_networks_and_training_of_each_section_start_from_those_at_the_top(config):
    config.set("network.n_rnn", "48")
    config.set("multitask.network", "{sigma_rec: 0.1}")
    config.set("training.sigma_x", "0.5")
    settings = load_settings(config.path)
    assert settings.multitask.network == dataclasses.replace(settings.network, sigma_rec=0.1)
    assert settings.groups.network == settings.network
    assert {settings.multitask.training.sigma_x, settings.groups.training.sigma_x} == {0.5}


def test_run_folder_does_not_depend_on_where_a_value_is_stated(config):
    config.set("training.batch_size", "16")
    at_the_top = load_settings(config.path).run_folder()
    config.set("training.batch_size", "64")
    assert load_settings(config.path).run_folder() != at_the_top
    config.set("multitask.training", "{batch_size: 16}")
    assert load_settings(config.path).run_folder() == at_the_top


def test_measure_is_merged_at_every_depth(config):
    config.set("groups.comparison.measures.read-out", "{states: readout, dsa: {rank: 3}}")
    compared = load_settings(config.path).groups.comparison
    wanted = dataclasses.replace(compared.measure, states="readout", dsa=compared.measure.dsa.override(rank=3))
    assert compared.measures["read-out"] == wanted


def test_metric_alone_is_enough_where_nothing_else_has_an_effect(config):
    compared = load_settings(config.path).groups.comparison
    assert compared.measures["CKA"].dsa == Comparison(metric="cka")
    assert compared.measures["eigenvalues"].dsa.n_starts == "auto"  # needs no alignment


def test_horizon_replaces_steps_ahead_and_the_reverse(config):
    config.set("lorenz.dsa.horizon", "0.05")
    lorenz = load_settings(config.path).lorenz
    assert (lorenz.dsa.horizon, lorenz.dsa.steps_ahead) == (0.05, None)
    assert lorenz.noise.estimators["published"].horizon == 0.05
    ahead = lorenz.noise.estimators["published, farther ahead"]
    assert (ahead.horizon, ahead.steps_ahead) == (None, 20)


def test_window_replaces_n_delays_and_the_reverse(config):
    config.set("dsa_epochs.dsa", "{window: 0.4, n_starts: 2}")
    config.set("dsa_epochs.estimators.signal-weighted.n_delays", "12")
    epochs = load_settings(config.path).dsa_epochs
    assert (epochs.estimators["published"].window, epochs.estimators["published"].n_delays) == (0.4, None)
    weighted = epochs.estimators["signal-weighted"]
    assert (weighted.window, weighted.n_delays) == (None, 12)


def test_section_prints_merged_values(config):
    text = str(load_settings(config.path).lorenz.noise)
    assert text.count("n_delays: 20\n") == 5  # noise.dsa and four estimators
    assert "  signal-weighted:\n    n_delays: 20\n    rank: 8\n" in text


def test_saved_settings_with_times_and_other_metrics_read_back_equal(config, tmp_path):
    config.set("dsa.horizon", "0.3")
    config.set("dsa.steps_ahead", "null")
    config.set("groups.comparison.measure.dsa.horizon", "100")  # ms
    config.set("groups.comparison.measures.inputs modelled.dsa", "{steps_ahead: 1}")
    config.set("dsa_epochs.dsa", "{window: 1.0, n_starts: 2}")
    config.set("dsa_epochs.estimators", "{published: {}, Procrustes: {metric: procrustes}}")
    settings = load_settings(config.path)
    settings.save(tmp_path / "saved" / "config.yaml")
    assert load_settings(tmp_path / "saved" / "config.yaml") == settings


# ---- the mechanism, on a schema of its own ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner(Section):
    dsa: Annotated[Dsa, Inherits("dsa")]
    variants: Mapping[str, Annotated[Dsa, Inherits("dsa")]]


@dataclass(frozen=True)
class Outer(Section):
    variants: Mapping[str, Annotated[Dsa, Inherits("dsa")]]
    inner: Inner


@dataclass(frozen=True)
class Root(Section):
    dsa: Dsa
    outer: Outer


TOP = {name: Comparison(n_delays=4, rank=3).to_dict()[name] for name in KEYS}
STATED = stated(Comparison(n_delays=4, rank=3))  # without what has no effect with the metric


def merged(dsa=None, inner=None, variants=None, outside=None):
    values = {
        "dsa": TOP | (dsa or {}),
        "outer": {"variants": outside or {}, "inner": {"dsa": inner or {}, "variants": variants or {}}},
    }
    found = Report(Path("test.yaml"))
    return complete(Root, values, found), found.problems


def test_base_is_the_nearest_one():
    values, problems = merged({"rank": 9}, inner={"rank": 5}, variants={"a": {"n_starts": 2}}, outside={"b": {}})
    assert not problems
    assert values["outer"]["inner"]["variants"]["a"] == STATED | {"rank": 5, "n_starts": 2}
    assert values["outer"]["variants"]["b"] == STATED | {"rank": 9}  # that of inner is not around it


def test_variant_called_dsa_is_no_base():
    values, problems = merged(variants={"dsa": {"rank": 7}, "other": {}})
    assert not problems
    assert values["outer"]["inner"]["variants"]["other"] == STATED


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "n_delays": st.integers(1, 9), "rank": st.integers(1, 9), "ridge": st.floats(0, 1), "center": st.booleans(),
        "n_starts": st.integers(1, 9), "group": st.sampled_from(["O", "SO"]), "estimator": st.just("signal_weighted"),
    },
)  # fmt: skip


@given(CHANGES, CHANGES, CHANGES)
def test_each_level_overrides_the_one_around_it(top, inner, variant):
    values, problems = merged(top, inner, {"a": variant})
    assert not problems
    assert values["outer"]["inner"]["variants"]["a"] == STATED | top | inner | variant


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dsa.rank", "0", "dsa.rank: rank = 0 is not a whole number of at least 1"),
        ("dsa.estimator", "least", "dsa.estimator: "),
        ("dsa.ridge", ".nan", "dsa.ridge: must be a finite number, got .nan"),
        ("dsa.horizon", "2", "dsa.steps_ahead: steps_ahead = 1 and horizon = 2 say the same thing twice; give one of"),
        ("dsa", "3", "dsa: must be a section of keys and values, got 3"),
        ("network.n_rnn", '"64"', 'network.n_rnn: must be an integer, got "64"'),
        ("network.dt", "200", "network.dt: network.dt = 200.0 ms: must not exceed tau = 100.0 ms"),
        ("network", "[]", "network: must be a section of keys and values, got []"),
        ("groups.comparison.measure.by", "hour", "groups.comparison.measure.by: must be 'whole', 'period' or"),
        ("lorenz.noise.dsa.rank", "-1", "lorenz.noise.dsa.rank: rank = -1 is not a whole number of at least 1"),
    ],
)
def test_wrong_value_of_a_base_is_reported_once(config, key, value, message):
    config.set(key, value)
    (line,) = report(config)
    assert line.startswith(f"config.yaml:{config.line(message.split(':')[0])}: {message}")


@pytest.mark.parametrize("key", ["dsa.metric", "network.tau", "groups.comparison.measure.trials"])
def test_missing_key_of_a_base_is_reported_once(config, key):
    section = config.line(key.rpartition(".")[0])
    config.remove(key)
    assert report(config) == [f"config.yaml:{section}: {key}: missing; every key must be given"]


def test_missing_base_is_reported_once(config):
    config.rename("training", "practice")
    assert [re.sub("; known here.*", "", line) for line in report(config)] == [
        "config.yaml:1: training: missing; every key must be given",
        f"config.yaml:{config.line('practice')}: practice: unknown key",
    ]


def test_inherited_value_that_does_not_fit_is_shown_where_it_stands(config):
    n = config.set("dsa.n_delays", "150")
    pieces, sliding = config.line("compositional.pieces"), config.line("compositional.sliding.length")
    config.set("compositional.pieces", "[140, 140, 140]")
    config.set("geometry_or_dynamics.conditions.recordings.n_times", "300")
    assert [line.split(" samples")[0] for line in report(config)] == [
        f"config.yaml:{pieces}: compositional.pieces: piece 1 of 3 has 140",
        f"config.yaml:{sliding}: compositional.sliding.length: a window has 150",
    ]
    config.set("lorenz.n_times", "149")
    assert report(config)[0].startswith(
        f"config.yaml:{n}: lorenz.dsa.n_delays: a trial has 149 samples, but 150 copies"
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lorenz.noise.estimators.published.rnk", "4", "unknown key; did you mean 'rank'?"),
        ("lorenz.noise.estimators.published.seed", "4", "unknown key; known here: n_delays, rank, delay_interval"),
        ("groups.comparison.measures.by period.dsa.rank", "none", "rank = 'none' is not a whole number of at least 1"),
        ("groups.comparison.measures.read-out.state", "hidden", "unknown key; known here: states, inputs, by, trials"),
        ("groups.comparison.measures.CKA.dsa.rank", "5", "rank = 5 has no effect with metric = 'cka'"),
        ("groups.comparison.measures.CKA.dsa.ridge", "1e-8", "has no effect with metric = 'cka'; leave it out"),
        ("groups.comparison.measures.eigenvalues.dsa.n_starts", "8", "n_starts = 8 has no effect with metric = 'spect"),
        ("groups.comparison.measures.half a second.dsa.horizon", "70", "horizon = 70 is not a whole number of samples"),
        ("multitask.network.n_rn", "4", "unknown key; did you mean 'n_rnn'?"),
        ("dsa_epochs.estimators.published.n_delays", "auto", "n_delays = 'auto' has to be chosen first"),
    ],
)
def test_mistake_in_a_difference_is_reported_at_its_line(config, key, value, message):
    n = config.set(key, value)
    (line,) = report(config)
    assert line.startswith(f"config.yaml:{n}: {key}: {message}")


def test_second_variant_without_a_difference_is_refused(config):
    n = config.set("lorenz.noise.estimators.signal-weighted", "{}")
    assert report(config) == [
        f"config.yaml:{n}: lorenz.noise.estimators.signal-weighted: the same as 'published'; state what differs, or "
        "leave it out"
    ]


def test_groups_without_a_difference_are_twins(config):
    groups = load_settings(config.path).groups.groups
    assert groups["master"] == groups["twin"]


def test_file_of_version_1_gets_one_error_and_no_other(config):
    config.remove("dsa.rank")
    config.rename("network", "networks")
    config.set("seed", "red")
    n = config.set("version", "1")
    (line,) = report(config)
    assert line == (
        f"config.yaml:{n}: version: this program reads version 2, got 1: start from the config.yaml that came with it "
        "and carry your values over"
    )
