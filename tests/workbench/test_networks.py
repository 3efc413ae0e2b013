"""Comparison of groups of networks: what a measure sees, tables, their storage, the report, and refused settings."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.stats import spearmanr

import workbench.networks.measures
from dsa_analysis import Similarity, compare
from dsa_analysis.driven import DrivenOperator
from multitask import Group
from tests.notebooks.conftest import PROJECT, changed
from tests.notebooks.test_activity import SMALL
from workbench.__main__ import main
from workbench.networks import BEFORE, FROZEN, REFERENCE, GroupStudy, between_groups, difference, of_runs, verdicts
from workbench.settings import load_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a config.yaml of six tiny groups of two networks each."""
    folder = tmp_path_factory.mktemp("groups")
    values = yaml.safe_load((PROJECT / "config.yaml").read_text(encoding="utf-8"))
    small = {"device": "cpu", "engine": SMALL["engine"], "groups": SMALL["groups"] | {"seeds": [0]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(changed(values, small), sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def study(folder):
    return GroupStudy(load_settings(folder / "config.yaml"), progress=False).complete()


def test_every_network_has_a_distance_by_every_measure(study):
    table = study.to_reference
    assert table.groupby("measure", sort=False).size().to_dict() == {"DSA": 12, "unmatched": 12, "CKA": 12}
    assert (table["distance"] > 0).all()
    by_group = table.drop_duplicates("group").set_index("group")
    assert by_group["family"].to_dict() == {
        "untrained": BEFORE, "master": REFERENCE, "delay": BEFORE, "both": BEFORE, "delay_frozen": FROZEN,
        "both_frozen": FROZEN,
    }  # fmt: skip
    assert by_group["shared"].to_dict() == {
        "untrained": 0, "master": 0, "delay": 1, "both": 2, "delay_frozen": 1, "both_frozen": 2,
    }  # fmt: skip


def test_networks_of_the_reference_are_compared_with_the_others_of_it(study):
    table, similarity = study.to_reference.set_index(["measure", "group", "network"])["distance"], study.among("CKA")
    names = list(similarity.labels)
    between = similarity.distances[names.index("master 0"), names.index("master 1")]
    assert table["CKA", "master", 0] == pytest.approx(between, abs=1e-12)
    to_both = [similarity.distances[names.index("delay 1"), names.index(f"master {k}")] for k in (0, 1)]
    assert table["CKA", "delay", 1] == pytest.approx(np.mean(to_both), abs=1e-12)


def test_matched_trials_are_the_same_for_all_networks_and_unmatched_ones_differ(study):
    measures, stages = study.how.measures, {"delay": study.trained.network("delay")}
    matched = study.systems(measures["DSA"], stages)
    lengths = [[len(trial) for trial in pieces["whole"]] for pieces in matched.values()]
    assert lengths[0] == lengths[1]
    assert len(set(lengths[0])) > 1  # batches have different times
    unmatched = study.systems(measures["unmatched"], stages | {"master": study.trained.network("master")})
    drawn = {tuple(len(trial) for trial in pieces["whole"]) for pieces in unmatched.values()}
    assert len(drawn) > 1
    alone = study.systems(measures["unmatched"], stages)  # independent of what else is compared
    for one, other in zip(alone["delay", 1]["whole"], unmatched["delay", 1]["whole"], strict=True):
        assert torch.equal(one, other)


def test_pieces_are_periods_or_answers_and_inputs_may_be_modelled(study):
    measure, stages = study.how.measures["DSA"], {"delay": study.trained.network("delay")}
    whole = study.systems(measure, stages)["delay", 0]["whole"]
    by_period = study.systems(replace(measure, by="period"), stages)["delay", 0]
    assert list(by_period) == list(study.how.periods)
    for k, trial in enumerate(whole):
        assert torch.equal(torch.cat([trials[k] for trials in by_period.values()]), trial)
    by_response = study.systems(replace(measure, by="response"), stages)["delay", 0]
    assert sum(map(len, by_response.values())) == len(whole)
    readout = study.systems(replace(measure, states="readout"), stages)["delay", 0]["whole"]
    basis = torch.linalg.qr(study.trained.network("delay").weights["w_out"][0])[0]
    torch.testing.assert_close(readout[0], whole[0] @ basis, rtol=1e-5, atol=1e-6)  # float32
    one_ahead = measure.dsa.override(steps_ahead=1)  # over which inputs are modelled
    driven = study.systems(replace(measure, inputs=True, dsa=one_ahead), stages)["delay", 0]["whole"]
    assert isinstance(driven, DrivenOperator)
    assert driven.n_inputs == study.ours.network.n_input


def test_trials_without_a_response_are_a_separate_piece(study):
    """In half of the trials of match-to-sample rules no response is right: these trials must not be lost."""
    recorder = replace(study.recorder, rule="dmsgo", how=replace(study.how, periods=()))
    measure = replace(study.how.measures["DSA"], by="response")
    pieces = recorder.systems(measure, {"delay": study.trained.network("delay")})["delay", 0]
    assert "no response" in pieces
    assert sum(map(len, pieces.values())) == study.how.n_batches * study.how.n_trials


def test_noise_is_drawn_where_it_is_asked_for(study):
    stages, measure = {"delay": study.trained.network("delay")}, study.how.measures["DSA"]
    noisy = replace(study.recorder, how=replace(study.how, noise=True))
    quiet, loud, again = (
        each.systems(measure, stages)["delay", 0]["whole"][0] for each in (study.recorder, noisy, noisy)
    )
    assert (loud - quiet).abs().max() > 0.01  # sigma_rec is 0.05
    assert torch.equal(loud, again)


def test_distances_are_means_over_pieces(study):
    measure, stages = replace(study.how.measures["CKA"], by="period"), {"delay": study.trained.network("delay")}
    systems = {str(label): pieces for label, pieces in study.systems(measure, stages).items()}
    each = [
        compare({name: pieces[period] for name, pieces in systems.items()}, metric="cka", progress=False).distances
        for period in study.how.periods
    ]
    np.testing.assert_allclose(study.distances(measure, systems).distances, np.mean(each, 0), atol=1e-12)


def test_distance_between_groups_is_the_mean_over_their_networks():
    D = np.array([[0.0, 1, 2, 4], [1, 0, 3, 5], [2, 3, 0, 6], [4, 5, 6, 0]])
    ones = np.ones_like(D)
    labels = ("b 0", "b 1", "a 0", "c 0")
    between = between_groups(Similarity(D, 0 * D, ones, ones > 0, labels, labels))
    assert list(between) == list(between.index) == ["b", "a", "c"]
    assert between.loc["b", "b"] == 1
    assert between.loc["b", "a"] == between.loc["a", "b"] == 2.5
    assert between.loc["c", "b"] == 4.5
    assert np.isnan(between.loc["a", "a"])  # a group of one network has no distance within it


def test_learning_is_followed_from_the_start_to_the_end_of_the_last_training(study):
    learning = study.over_learning
    assert sorted(set(learning["step"])) == [0, 5, 10, 20]
    assert learning.groupby("step")["progress"].first().tolist() == [0, 0.25, 0.5, 1]
    at_the_end = learning[learning["step"] == 20].set_index(["measure", "group", "network"])["distance"]
    table = study.to_reference.set_index(["measure", "group", "network"])["distance"]
    pd.testing.assert_series_equal(at_the_end.sort_index(), table.loc[at_the_end.sort_index().index], check_names=False)


def test_rho_of_a_run_is_over_its_checkpoints():
    run = {"measure": "DSA", "group": "g", "network": 0}
    table = pd.DataFrame([run | {"distance": d, "performance": p} for d, p in ((3, 0.1), (2, 0.2), (1, 0.9))])
    still = table.assign(network=1, performance=0.5)
    rho = of_runs(pd.concat([table, still]))
    assert rho.to_dict() == {("DSA", "g", 0): -1.0}


def test_checkpoints_of_a_run_are_compared_with_each_other(study):
    within = study.within_runs
    assert len(within) == 2 * 2 * 4 * 4  # measures, networks, checkpoints
    same = within["step"] == within["other_step"]
    assert (within.loc[same, "distance"] < 1e-6).all()
    assert (within.loc[~same, "distance"] > 0).all()


def test_difference_of_rho_is_that_of_the_same_networks(study):
    table = study.to_reference
    own = table[table["family"] != REFERENCE]
    rho = {name: spearmanr(of["distance"], of["performance"]).statistic for name, of in own.groupby("measure")}
    found, low, high = difference(table, "DSA", "CKA")
    assert found == pytest.approx(rho["DSA"] - rho["CKA"], abs=1e-12)
    assert low <= found <= high


def test_what_was_computed_is_read_until_something_changes(study, folder, monkeypatch):
    def fail(*arguments, **settings):
        raise AssertionError("computed again")

    monkeypatch.setattr(workbench.networks.measures, "compare", fail)
    again = GroupStudy(load_settings(folder / "config.yaml"), progress=False).complete()
    pd.testing.assert_frame_equal(again.to_reference, study.to_reference)
    pd.testing.assert_frame_equal(verdicts(again), verdicts(study))
    assert again.concerns == study.concerns  # warnings are stored with the tables
    claims = replace(again.how, claims=replace(again.how.claims, performance=-0.1))
    _ = GroupStudy(replace(again.settings, groups=replace(again.ours, comparison=claims)), progress=False).to_reference
    fewer = replace(again.ours, comparison=replace(again.how, n_trials=5))
    another = replace(again.ours, groups={**again.ours.groups, "raw": Group()})  # untrained, so not part of any run
    for groups in (fewer, another):
        with pytest.raises(AssertionError, match="computed again"):
            _ = GroupStudy(replace(again.settings, groups=groups), progress=False).to_reference


def test_command_writes_a_report_with_all_verdicts(study, folder, capsys):
    assert main(["compare", "--groups", "--config", str(folder / "config.yaml"), "--output", str(folder / "out")]) == 0
    said = capsys.readouterr().out
    out = folder / "out" / "seed_0"
    page = (out / "report.html").read_text()
    for what in verdicts(study)["what"]:
        assert what in said
        assert what.replace("<", "&lt;") in page
    assert {path.name for path in out.iterdir()} == {
        "report.html", "verdicts.csv", "scores.csv", "distances.csv", "over_learning.csv",
    }  # fmt: skip
    assert page.count("<svg") == 3
    assert page.count('.csv" href="data:text/csv;base64,') == 3


def test_command_wants_files_or_groups(folder, capsys):
    assert main(["compare"]) == 2
    assert "give two files or more, or --groups" in capsys.readouterr().err
    assert main(["compare", "--groups", "a.npy", "--config", str(folder / "config.yaml")]) == 2
    assert "--groups: compares the networks of the settings, not files; leave out a.npy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shown": ["DSA", "CCA"]}, "shown: CCA is not one of the measures, DSA, unmatched, CKA"),
        ({"also_judged": ["CCA"]}, "also_judged: CCA is not one of the measures, DSA, unmatched, CKA"),
        ({"also_judged": ["CKA"]}, "also_judged: CKA is listed twice; remove it"),
        ({"shown": ["DSA", "DSA"]}, "shown: DSA is listed twice; remove it"),
        ({"periods": ["stim3"]}, "comparison.periods: contextdelaydm1 has no stim3; it has fix1, stim1, delay1"),
        ({"learning": ["none"]}, "comparison.learning: none is not one of the groups, untrained, master"),
        ({"learning": ["delay"]}, "comparison.learning: delay does not learn contextdelaydm1 last; remove it"),
        ({"jacobians": {"period": "go"}}, "comparison.jacobians.period: contextdelaydm1 has no go; it has fix1"),
        ({"jacobians": {"groups": ["all"]}}, "comparison.jacobians.groups: all is not one of the groups"),
        ({"jacobians": {"rank": 16}}, "comparison.jacobians.rank: must be below the 16 units"),
        ({"jacobians": {"n_modes": 3}}, "n_modes: operators of rank 2 have no 3 modes"),
        ({"jacobians": {"discard": 39}}, "discard: leaves 1 of n_times = 40 samples; 3 are needed"),
        (
            {"measures": {"CKA": {"inputs": True}}},
            "inputs: only operators can model inputs, and cka compares trials; set it to false",
        ),
        ({"measures": {"DSA": {"dsa": None}}}, "measures.DSA.dsa: must be a section of keys and values, got null"),
        (
            {"measures": {"DSA": {"dsa": {"metric": "joint", "steps_ahead": 1}}}},
            "inputs: metric joint compares operators with inputs; set it to true",
        ),
        (
            {"measures": {"DSA": {"inputs": True, "dsa": {"steps_ahead": 2}}}},
            "inputs: need estimator least_squares and steps_ahead 1; change dsa.estimator and dsa.steps_ahead",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(folder, tmp_path, capsys, change, message):
    values = yaml.safe_load((folder / "config.yaml").read_text())
    values["groups"]["comparison"] = changed(values["groups"]["comparison"], change)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert main(["check", "--config", str(tmp_path / "config.yaml")]) == 2
    assert message in capsys.readouterr().err


def test_a_reference_has_to_be_among_the_groups(folder, tmp_path, capsys):
    values = yaml.safe_load((folder / "config.yaml").read_text())
    values["groups"]["groups"]["master"]["frozen"] = ["recurrent"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert main(["check", "--config", str(tmp_path / "config.yaml")]) == 2
    assert "groups: no group learns contextdelaydm1 alone, from random networks" in capsys.readouterr().err
