"""Groups of networks: ensembles and histories, run folders, results, and invalid arguments."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multitask.evaluation import evaluate
from multitask.groups import Ensemble, Group, TrainedGroups, history, in_waves, learnt, train_groups
from multitask.network import WEIGHT_GROUPS, LeakyRNN, NetworkParameters
from multitask.tasks import RULES
from multitask.training import TrainingParameters, train
from multitask.training.loop import Trainer
from multitask.trials import MultitaskError

TINY = NetworkParameters(n_rnn=8, activation="relu", dt=100.0)
SHORT = TrainingParameters(n_steps=4, batch_size=4, evaluate_every=4, n_test_batches=1, test_batch_size=4)
GROUPS = {
    "untrained": Group(),
    "master": Group(("delayanti",)),
    "twin": Group(("delayanti",)),
    "grown": Group(("delayanti",), after="untrained"),
    "anti": Group(("fdanti",), n_networks=3),
    "parts": Group(("fdanti", "delaygo")),
    "anti, frozen": Group(("delayanti",), after="anti", frozen=("recurrent",)),
    "parts, frozen": Group(("delayanti",), after="parts", frozen=("recurrent",)),
    "anti, free": Group(("delayanti",), after="anti"),
}


def small(folder: Path, groups=GROUPS, **changes) -> TrainedGroups:
    """Groups trained for a few steps; ``changes`` are arguments of `train_groups` or parameters of the training."""
    arguments = {"n_networks": 2, "progress": False, "folder": folder}
    arguments |= {n: changes.pop(n) for n in ("names", "n_networks", "seed", "progress", "device") if n in changes}
    network = changes.pop("network", TINY)
    return train_groups(groups, network, replace(SHORT, **changes), **arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TrainedGroups:
    return small(tmp_path_factory.mktemp("groups"))


def equal(a: LeakyRNN, b: LeakyRNN) -> bool:
    """Whether two ensembles have the same weights, bit for bit."""
    return a.weights.keys() == b.weights.keys() and all(torch.equal(w, b.weights[n]) for n, w in a.weights.items())


# ---- histories and ensembles -----------------------------------------------------------------------------------------


def test_history_leads_from_the_first_group_to_the_last():
    groups = {"a": Group(("dm1",)), "b": Group(("dm2",), after="a"), "c": Group(("dm1", "fdgo"), after="b")}
    assert history(groups, "a") == ("a",)
    assert history(groups, "c") == ("a", "b", "c")
    assert learnt(groups, "c") == ("dm1", "dm2", "fdgo")


def test_groups_with_equal_rules_and_equal_depth_are_one_ensemble():
    anti, master, parts = ("fdanti",), ("delayanti",), ("fdanti", "delaygo")
    assert in_waves(GROUPS) == [
        [
            Ensemble(("master", "twin", "grown"), master, ()),
            Ensemble(("anti",), anti, ()),
            Ensemble(("parts",), parts, ()),
        ],
        [
            Ensemble(("anti, frozen", "parts, frozen"), master, ("recurrent",)),
            Ensemble(("anti, free",), master, ()),
        ],
    ]


def test_order_of_frozen_weights_makes_no_ensembles_of_its_own():
    one, other = (Group(("dm1",), frozen=frozen) for frozen in (("input", "output"), ("output", "input")))
    assert [len(wave) for wave in in_waves({"one": one, "other": other})] == [1]


@st.composite
def forests(draw) -> dict[str, Group]:
    """Groups that come after earlier ones or none."""
    groups: dict[str, Group] = {}
    for name in map(str, range(draw(st.integers(1, 12)))):
        after = draw(st.sampled_from([None, *groups]))
        rules = draw(st.sampled_from([("fdgo",), ("dm1",), ("dm1", "fdgo"), *([()] if after is None else [])]))
        frozen = draw(st.sampled_from([(), ("recurrent",)])) if rules else ()
        groups[name] = Group(rules, after, frozen)
    order = draw(st.permutations(list(groups)))
    return {name: groups[name] for name in order}


@given(forests())
def test_every_trained_group_is_in_one_ensemble_after_the_wave_of_its_start(groups):
    wave_of = {name: n for n, wave in enumerate(in_waves(groups)) for ensemble in wave for name in ensemble.names}
    members = [name for wave in in_waves(groups) for ensemble in wave for name in ensemble.names]
    assert sorted(members) == sorted(name for name, group in groups.items() if group.rules)
    for name in members:
        before = groups[name].after
        assert wave_of[name] == (wave_of[before] + 1 if before in wave_of else 0)
    for wave in in_waves(groups):
        ways = [(ensemble.rules, ensemble.frozen) for ensemble in wave]
        assert len(set(ways)) == len(ways)
        for ensemble in wave:
            assert {(groups[n].rules, groups[n].frozen) for n in ensemble.names} == {(ensemble.rules, ensemble.frozen)}


# ---- what is trained -------------------------------------------------------------------------------------------------


def test_groups_start_from_the_networks_of_the_group_they_are_after(trained):
    assert equal(trained.network("grown", 0), trained.network("untrained"))
    for name, before in (("anti, frozen", "anti"), ("parts, frozen", "parts"), ("anti, free", "anti")):
        assert equal(trained.network(name, 0), trained.network(before))
        assert not equal(trained.network(name), trained.network(before))


def test_other_groups_start_from_networks_of_their_own(trained):
    roots = [name for name, group in GROUPS.items() if group.after is None]
    starts = torch.cat([trained.network(name, 0).weights["w_in"] for name in roots])
    assert len(starts.flatten(1).unique(dim=0)) == len(starts) == 11


@pytest.mark.parametrize("name", ["anti, frozen", "anti, free"])
def test_frozen_weights_stay_and_all_others_move(trained, name):
    before, after = trained.network(name, 0).weights, trained.network(name).weights
    stay = {weight for group in GROUPS[name].frozen for weight in WEIGHT_GROUPS[group]}
    assert {weight for weight in before if torch.equal(before[weight], after[weight])} == stay


def test_groups_have_their_numbers_of_networks(trained):
    sizes = {name: trained.network(name).n_networks for name in GROUPS}
    assert sizes == {name: 3 if "anti" in name else 2 for name in GROUPS}


def test_group_in_an_ensemble_is_what_it_were_if_trained_alone(tmp_path):
    quiet = replace(TINY, sigma_rec=0.0)  # the private noise is drawn for the whole ensemble
    together = small(tmp_path / "groups", network=quiet)
    for name in ("twin", "parts, frozen"):
        start = together.network(name, 0)
        settings = replace(SHORT, frozen=GROUPS[name].frozen)  # one rule, and so its number of steps
        alone = train(
            ("delayanti",), quiet, settings, run_folder=tmp_path / name, n_networks=2, start=start, progress=False
        )
        for weight, value in together.network(name).weights.items():
            np.testing.assert_allclose(value, alone.network.weights[weight], atol=1e-5)  # float32, batches of products


def test_rule_weights_go_to_the_groups_that_learn_the_rule(tmp_path):
    trained = small(tmp_path, names=["anti", "parts"], rule_weights={"delaygo": 5.0})
    assert trained.runs["anti"].settings["training"]["rule_weights"] == {}
    assert trained.runs["parts"].settings["training"]["rule_weights"] == {"delaygo": 5.0}


def test_steps_are_counted_for_each_rule(trained):
    assert trained.steps("anti")[-1] == SHORT.n_steps
    assert trained.steps("parts")[-1] == 2 * SHORT.n_steps


def test_seed_decides_starts_and_trials(trained, tmp_path):
    other = small(tmp_path, {"master": GROUPS["master"], "untrained": Group()}, seed=1)
    assert not equal(other.network("master", 0), trained.network("master", 0))
    assert not equal(other.network("untrained"), trained.network("untrained"))
    assert other.runs["master"].settings["seed"] == 1


# ---- run folders -----------------------------------------------------------------------------------------------------


def folders(trained: TrainedGroups) -> dict[str, str]:
    return {name: run.folder.name for name, run in trained.runs.items()}


def test_groups_added_leave_others_alone(trained, tmp_path):
    fewer = {name: GROUPS[name] for name in ("untrained", "master", "anti", "anti, frozen")}
    small_set = small(tmp_path, fewer)
    ours, theirs = folders(small_set), folders(trained)
    assert ours["anti"] == theirs["anti"]  # an ensemble without a new group
    assert ours["master"] != theirs["master"]
    assert ours["anti, frozen"] != theirs["anti, frozen"]
    for name in fewer:  # the first groups of their ensembles have the same noise whatever comes after them
        assert equal(small_set.network(name), trained.network(name))


def test_what_comes_before_decides_the_folder(trained, tmp_path):
    def run(**changed):
        return folders(small(tmp_path, {n: GROUPS[n] for n in ("anti", "anti, frozen")} | changed))

    seen = {run()["anti, frozen"]}
    seen.add(run(anti=replace(GROUPS["anti"], rules=("fdgo",)))["anti, frozen"])
    seen.add(run(anti=replace(GROUPS["anti"], n_networks=2))["anti, frozen"])
    seen.add(run(more=Group(("fdanti",)))["anti, frozen"])  # trained beside "anti"
    assert len(seen) == 4


def test_named_groups_are_trained_with_those_beside_and_before_them(trained, tmp_path):
    some = small(tmp_path, names=["anti, frozen"])
    assert list(some.groups) == ["anti", "parts", "anti, frozen", "parts, frozen"]
    assert folders(some) == {name: folder for name, folder in folders(trained).items() if name in some.groups}
    assert len(list(tmp_path.iterdir())) == 3
    assert list(small(tmp_path, names=["untrained"]).groups) == ["untrained"]


def test_finished_groups_are_loaded_and_not_trained_again(trained, monkeypatch):
    folder = trained.runs["master"].folder.parent
    monkeypatch.setattr(Trainer, "advance", lambda self: pytest.fail("trained again"))
    again = small(folder)
    assert all(equal(again.network(name), trained.network(name)) for name in GROUPS)


def test_interrupted_training_of_groups_is_resumed(trained, tmp_path, monkeypatch):
    advance, left = Trainer.advance, iter(range(10))  # two runs and a half

    def interrupted(self):
        if next(left, None) is None:
            raise KeyboardInterrupt
        advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path)
    first = next(tmp_path.glob("master*")) / "log.csv"
    written = first.stat().st_mtime_ns
    resumed = small(tmp_path)
    assert first.stat().st_mtime_ns == written
    assert all(equal(resumed.network(name), trained.network(name)) for name in GROUPS)


def test_a_run_from_other_initial_networks_is_refused(tmp_path, monkeypatch):
    groups = {name: GROUPS[name] for name in ("anti", "anti, free")}
    small(tmp_path, groups)
    shutil.rmtree(next(tmp_path.glob("anti_8_units*")))
    monkeypatch.setattr(
        "multitask.groups.runs._seed", lambda seed, name: 7
    )  # as if another machine made other networks
    with pytest.raises(MultitaskError, match=r"contains a run with other settings: start = .*of 'anti, free'"):
        small(tmp_path, groups)


def test_active_backend_trains_the_same_networks(trained, tmp_path):
    with joblib.parallel_config(backend="threading", n_jobs=2):
        parallel = small(tmp_path)
    assert folders(parallel) == folders(trained)
    assert all(equal(parallel.network(name), trained.network(name)) for name in GROUPS)


def test_work_can_be_sent_to_another_process(trained, tmp_path, monkeypatch):
    class Elsewhere(joblib.Parallel):
        def __call__(self, calls):
            return super().__call__(pickle.loads(pickle.dumps(list(calls))))

    monkeypatch.setattr("joblib.Parallel", Elsewhere)
    sent = small(tmp_path, names=["anti, free"])
    assert equal(sent.network("anti, free"), trained.network("anti, free"))


def test_bars_of_steps_are_shown_only_where_one_ensemble_is_trained_at_a_time(tmp_path, capfd):
    groups = {name: GROUPS[name] for name in ("anti", "parts")}
    small(tmp_path / "a", groups, progress=True)
    serial = capfd.readouterr().err
    with joblib.parallel_config(backend="threading", n_jobs=2):
        small(tmp_path / "b", groups, progress=True)
    parallel = capfd.readouterr().err
    assert "groups: 100%" in serial
    assert "training: 100%" in serial
    assert "groups: 100%" in parallel
    assert "training" not in parallel


# ---- results ---------------------------------------------------------------------------------------------------------


def test_performance_is_that_of_each_network_on_trials_common_to_all(trained):
    table = trained.performance("delaygo", n_trials=40)
    assert list(table.columns) == [
        "group",
        "step",
        "network",
        "rule",
        "difficulty",
        "n_correct",
        "n_trials",
        "performance",
    ]
    for name in GROUPS:
        alone = evaluate(trained.network(name), ["delaygo"], n_trials=40, noise=SHORT.sigma_x)
        assert table[table["group"] == name]["performance"].tolist() == alone.performance[:, 0].tolist()
    assert set(table.set_index("group")["step"].loc[["untrained"]]) == {0}


def test_performance_over_learning_begins_with_the_start(trained):
    table = trained.performance("delayanti", n_trials=40, over_learning=True).set_index("group")
    assert trained.steps("master") == (0, 1, 2, 4)
    assert table.loc["master", "step"].tolist() == [0, 0, 1, 1, 2, 2, 4, 4]
    assert table.loc["untrained", "step"].tolist() == [0, 0]
    start, before = (
        table.loc["anti, free"],
        trained.performance("delayanti", n_trials=40).set_index("group").loc["anti"],
    )
    assert start[start["step"] == 0]["performance"].tolist() == before["performance"].tolist()


def test_easy_training_is_tested_with_easy_trials(tmp_path):
    trained = small(tmp_path, {"dm": Group(("dm1",))}, difficulty="easy", n_steps=30)
    table = trained.performance("dm1", n_trials=64)
    easy = evaluate(trained.network("dm"), ["dm1"], n_trials=64, noise=SHORT.sigma_x, easiness=1.0)
    assert table["n_correct"].tolist() == easy.n_correct[:, 0].tolist()


def test_log_numbers_the_networks_within_their_group(trained):
    log = trained.log
    assert list(log.columns[:4]) == ["group", "network", "step", "rule"]
    assert log.groupby("group")["network"].max().to_dict() == {n: 2 if "anti" in n else 1 for n in trained.runs}
    ours = log[log["group"] == "twin"].drop(columns="group").reset_index(drop=True)
    whole = trained.runs["twin"].log
    theirs = whole[whole["network"].isin([2, 3])].assign(network=whole["network"] - 2).reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, theirs, check_like=True)


def test_learnt_rules_are_those_of_the_whole_history(trained):
    assert trained.learnt("parts, frozen") == ("fdanti", "delaygo", "delayanti")
    assert trained.learnt("untrained") == ()


# ---- invalid arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": ("dm1", "delaygoo")}, r"unknown rule 'delaygoo': did you mean 'delaygo'\?"),
        ({"rules": "dm1"}, r"rules must be a sequence of names, but is the string 'dm1': write \['dm1'\]"),
        ({"rules": ("dm1", "dm1")}, "rules: 'dm1' is listed twice; keep one"),
        (
            {"rules": ("dm1",), "frozen": ("recurent",)},
            "unknown weights in frozen 'recurent': did you mean 'recurrent'",
        ),
        ({"rules": ("dm1",), "frozen": ("input", "input")}, "frozen: 'input' is listed twice; keep one"),
        ({"rules": ("dm1",), "frozen": tuple(WEIGHT_GROUPS)}, "frozen names all weights, so there is nothing to train"),
        ({"frozen": ("input",)}, r"frozen = \['input'\]: has no effect without rules; name rules"),
        ({"after": "a"}, "after = 'a': without rules this would be the same group; name rules"),
        ({"rules": ("dm1",), "n_networks": 0}, "n_networks = 0: must be a whole number >= 1"),
        (
            {"rules": ("dm1",), "after": "a", "n_networks": 2},
            "n_networks = 2: a group after another one has as many networks as that one",
        ),
    ],
)
def test_invalid_groups_are_refused(arguments, message):
    with pytest.raises(MultitaskError, match=message):
        Group(**arguments)


DM = Group(("dm1",))
WRONG = [
    (
        {"anti": DM, "b": Group(("dm2",), after="anty")},
        "groups.b.after: unknown group that 'b' is after, 'anty': did you mean 'anti'?",
    ),
    (
        {"x": Group(("fdgo",), after="c"), **{n: Group(("dm1",), after=m) for n, m in ("ab", "bc", "ca")}},
        "groups.x.after: groups follow one another in a circle: a after b after c after a",
    ),
    ({"a": Group(("dm1",), after="a")}, "groups.a.after: groups follow one another in a circle: a after a"),
    (
        {"a": DM, "b": Group(("dm2",), after="a"), "c": Group(("dm2",), after="a")},
        "groups.c.after: the group is the same as 'b'; remove one of them",
    ),
    (
        {"a": DM, "b": Group(("oic",))},
        "groups.b.rules: rule 'oic' needs 99 inputs, 2 of them for rules, but the networks have n_input = 85 and "
        "n_rule = 20",
    ),
]


@pytest.mark.parametrize(("groups", "message"), WRONG)
def test_groups_that_do_not_fit_are_refused_before_anything_is_trained(groups, message, tmp_path):
    with pytest.raises(MultitaskError) as caught:
        small(tmp_path, groups)
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen": ("input",)}, r"training.frozen: \['input'\]: each group says what is frozen in it"),
        (
            {"checkpoint_steps": (2, 5)},
            "training.checkpoint_steps: step 5 is after the last step of a group with 4 steps",
        ),
        ({"rule_weights": {"dm2": 5.0}}, "training.rule_weights: no group learns 'dm2'; take it out"),
        ({"names": ["mastre"]}, "unknown group 'mastre': did you mean 'master'"),
        ({"n_networks": 0}, "n_networks = 0: must be a whole number >= 1"),
        ({"seed": -1}, "seed = -1: must be a whole number >= 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_trained(changes, message, tmp_path):
    with pytest.raises(MultitaskError, match=message):
        small(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_errors_of_diverged_networks_name_their_groups(tmp_path):
    with pytest.raises(MultitaskError) as caught:
        small(tmp_path, names=["master"], learning_rate=1e8, clip="none")
    assert "has diverged" in str(caught.value)
    assert str(caught.value).endswith(
        "The networks of the groups are 0 to 1 of 'master', 2 to 3 of 'twin', 4 to 5 of 'grown'"
    )


def test_groups_cannot_be_tested_on_rules_with_other_inputs(trained):
    with pytest.raises(MultitaskError, match=r"group 'untrained' cannot be tested: rule 'oic' needs 99 inputs, 2 of"):
        trained.performance("oic")
    with pytest.raises(MultitaskError, match="unknown rule 'delaygoo': did you mean 'delaygo'"):
        trained.performance("delaygoo")


def test_unknown_groups_and_steps_are_refused(trained):
    for ask in (trained.network, trained.steps, trained.learnt):
        with pytest.raises(MultitaskError, match="unknown group 'twins': did you mean 'twin'"):
            ask("twins")
    with pytest.raises(MultitaskError, match="contains no checkpoint of step 3; available: 0, 1, 2, 4"):
        trained.network("master", 3)
    with pytest.raises(MultitaskError, match="group 'untrained' is untrained and has no step 3; it has only step 0"):
        trained.network("untrained", 3)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_can_be_learnt_before_every_other(rule):
    groups = {"first": Group((rule,)), **{other: Group((other,), after="first") for other in RULES}}
    assert [len(wave) for wave in in_waves(groups)] == [1, 20]
