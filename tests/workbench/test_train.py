"""``python -m workbench train``: trains what the settings describe, once, and tells how well and where."""

import json
import os
import re

import pytest

from multitask import MultitaskError, TrainingParameters, load_run, train, verify_run
from multitask.training.loop import Trainer
from workbench.__main__ import main
from workbench.settings import ConfigError, load_settings

TINY = {
    "n_networks": "2",
    "network": "{n_rnn: 8}",
    "training": "{n_steps: 4, evaluate_every: 2, n_test_batches: 2, test_batch_size: 4}",
}


@pytest.fixture
def tiny(config, monkeypatch):
    """Settings that train in a moment; the working directory is theirs."""
    for key, value in TINY.items():
        config.set(f"multitask.{key}", value)
    monkeypatch.chdir(config.path.parent)
    return config


def test_trains_the_rules_of_the_settings_and_prints_a_row_for_each(tiny, capsys):
    assert main(["train", "--config", str(tiny.path)]) == 0
    settings = load_settings(tiny.path)
    first, columns, *rows, last = capsys.readouterr().out.splitlines()
    assert first == "share of right trials, of 8 a rule at easy difficulty, by network"
    assert columns.split() == ["mean", "0", "1"]
    assert [row.split()[0] for row in rows[1:]] == list(settings.multitask.rules)
    folder = os.path.relpath(settings.run_folder())
    assert re.fullmatch(rf"all steps after 4 steps, \d+ s of CPU time: {re.escape(folder)}", last)
    run = load_run(settings.run_folder())
    assert run.network.n_networks == 2
    assert (run.settings["rules"], run.settings["seed"]) == (list(settings.multitask.rules), settings.seed)
    assert run.settings["network"]["n_rnn"] == 8


def test_full_disk_exits_2_in_one_line(tiny, capsys, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multitask.storage.write_atomically", full)
    assert main(["train", "--config", str(tiny.path), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"cannot write .*settings\.json: No space left on device; .*\n", said)


def test_trained_networks_are_read_the_second_time(tiny, capsys):
    main(["train", "--config", str(tiny.path)])
    log = load_settings(tiny.path).run_folder() / "log.csv"
    first, written = capsys.readouterr().out, log.stat().st_mtime_ns
    assert main(["train", "--config", str(tiny.path)]) == 0
    assert capsys.readouterr().out == first
    assert log.stat().st_mtime_ns == written


def test_other_rules_and_seeds_go_to_folders_of_their_own(tiny, capsys):
    assert main(["train", "--rules", "dm2", "reactgo", "--seed", "3", "--config", str(tiny.path)]) == 0
    settings = load_settings(tiny.path)
    run = load_run(settings.run_folder(["dm2", "reactgo"], 3))
    assert (run.settings["rules"], run.settings["seed"]) == (["dm2", "reactgo"], 3)
    assert "reactgo" in capsys.readouterr().out
    assert not settings.run_folder().exists()


def test_every_parameter_of_training_makes_a_folder_of_its_own(tiny):
    def folder():
        return load_settings(tiny.path).run_folder()

    seen = {folder()}
    for key, value in {"training.learning_rate": "0.004", "network.dt": "25", "n_networks": "3"}.items():
        tiny.set(f"multitask.{key}", value)
        seen.add(folder())
    assert len(seen) == 4
    tiny.set("multitask.slow_points.n_starts", "7")  # what comes after training makes no other networks
    assert folder() in seen


def test_unknown_rule_exits_2_before_anything_is_trained(tiny, capsys):
    assert main(["train", "--rules", "dm1", "delaygoo", "--config", str(tiny.path)]) == 2
    assert capsys.readouterr().err == "--rules: unknown rule 'delaygoo': did you mean 'delaygo'?\n"
    assert not (tiny.path.parent / "results").exists()


def test_rules_that_the_settings_cannot_train_exit_1_with_the_reason(tiny, capsys):
    tiny.set("multitask.training.rule_weights", "{contextdm1: 5}")
    assert main(["train", "--rules", "dm1", "--config", str(tiny.path)]) == 1
    assert "rule in training.rule_weights 'contextdm1'" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "1.5", "red"])
def test_seed_must_be_a_natural_number(seed, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", f"--seed={seed}"])
    assert caught.value.code == 2
    assert f"must be a whole number >= 0, got {seed}" in capsys.readouterr().err


# ---- groups ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def few(tiny):
    """Settings whose groups train in a moment."""
    for key in ("n_networks", "training"):  # not network: comparisons ask for enough units
        tiny.set(f"groups.{key}", TINY[key])
    tiny.set("groups.n_test_trials", "8")
    tiny.set("groups.seeds", "[0]")
    return tiny


def test_trains_the_groups_of_the_settings_and_prints_a_row_for_each(few, capsys):
    assert main(["train", "--groups", "--config", str(few.path)]) == 0
    first, columns, *rows, last = capsys.readouterr().out.splitlines()
    ours = load_settings(few.path).groups
    assert first == f"seed 0: share of right trials, of 8 of {ours.master} at easy difficulty"
    assert columns.split() == ["mean", "worst", "n", "run"]
    table = {row.split()[0]: row.split()[3:] for row in rows}
    assert list(table) == list(ours.groups)
    assert {n for n, _ in table.values()} == {"2"}
    assert re.fullmatch(r"\d+ s of CPU time in all", last)
    assert table["untrained"][1] == "untrained"
    folder = table["basic_frozen"][1]
    assert re.fullmatch(r"results/runs/basic_frozen_and_\d_more_64_units_seed_0_[0-9a-f]{8}", folder)
    assert load_run(folder).settings["training"]["frozen"] == ["recurrent"]


def test_trained_groups_are_read_the_second_time(few, capsys):
    main(["train", "--groups", "basic", "--config", str(few.path)])
    first, logs = capsys.readouterr().out, list(few.path.parent.glob("results/runs/*/log.csv"))
    written = [log.stat().st_mtime_ns for log in logs]
    assert main(["train", "--groups", "basic", "--config", str(few.path)]) == 0
    assert capsys.readouterr().out == first
    assert [log.stat().st_mtime_ns for log in logs] == written


def test_full_disk_exits_2_in_one_line_that_names_the_groups(few, capsys, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multitask.storage.write_atomically", full)
    assert main(["train", "--groups", "--config", str(few.path), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"cannot write .*settings\.json: No space left on device; .* networks of the groups .*\n", said)


def test_named_groups_are_trained_with_what_they_need_and_a_seed_of_their_own(few, capsys):
    assert main(["train", "--groups", "basic", "--seed", "3", "--config", str(few.path)]) == 0
    first, _, *rows, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("seed 3: ")
    assert [row.split()[0] for row in rows] == ["basic"]
    assert [folder.name[:21] for folder in few.path.parent.glob("results/runs/*")] == ["basic_64_units_seed_3"]


def test_every_seed_is_trained_unless_one_is_named(few, capsys):
    few.set("groups.seeds", "[0, 1]")
    assert main(["train", "--groups", "basic", "--config", str(few.path)]) == 0
    assert re.findall(r"^seed (\d):", capsys.readouterr().out, re.MULTILINE) == ["0", "1"]


def test_unknown_group_exits_2_before_anything_is_trained(few, capsys):
    assert main(["train", "--groups", "mastr", "--config", str(few.path)]) == 2
    assert capsys.readouterr().err == "--groups: unknown group 'mastr': did you mean 'master'?\n"
    assert not (few.path.parent / "results").exists()


def test_groups_that_explode_exit_1_with_their_names(few, capsys):
    few.set("groups.training.learning_rate", "1e8")
    few.set("groups.training.clip", "none")
    assert main(["train", "--groups", "--config", str(few.path)]) == 1
    assert "The networks of the groups are 0 to 1 of 'master', 2 to 3 of 'twin'" in capsys.readouterr().err


def test_rules_and_groups_are_not_trained_at_once(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--groups", "--rules", "dm1"])
    assert "not allowed with argument" in capsys.readouterr().err


ONE = "has no distance within it and no interval over networks; take 2 or more"
WRONG = [
    ("n_networks", "1", f"groups.n_networks: a group of 1 network {ONE}"),
    ("master", "contxtdelaydm1", "groups.master: unknown rule 'contxtdelaydm1': did you mean 'contextdelaydm1'?"),
    ("master", "oic", "groups.master: groups cannot be tested on it, rule 'oic' needs 99 inputs, 2 of them for rules"),
    ("master", "dm2", "groups.master: no group learns dm2; add it to the rules of a group"),
    ("parts", "[dm1, contextdelaydm1]", "groups.parts: contextdelaydm1 is the master rule itself; remove it"),
    ("parts", "[dm1, dm1]", "groups.parts: dm1 is listed twice; keep one"),
    ("parts", "[dm2]", "groups.parts: no group learns dm2; add it to the rules of a group"),
    (
        "training.frozen",
        "[input]",
        "groups.training.frozen: ['input']: each group says what is frozen in it; leave this empty",
    ),
    ("training.rule_weights", "{dm2: 5}", "groups.training.rule_weights: no group learns 'dm2'; take it out"),
    (
        "training.checkpoint_steps",
        "[5, 1]",
        "groups.training.checkpoint_steps: step 5 is after the last step of a group with 4 steps",
    ),
    (
        "network.n_input",
        "99",
        "groups.groups.master.rules: rule 'contextdelaydm1' needs 85 inputs, 20 of them for rules",
    ),
]
WRONG_GROUPS = [
    ("rules: [dm1], n_networks: 1", f".n_networks: a group of 1 network {ONE}"),
    ("rules: [dm7], n_networks: 3", ": unknown rule 'dm7'"),
    ("rules: [dm1, dm1], n_networks: 3", ".rules: rules: 'dm1' is listed twice"),
    ("rules: [dm1], frozen: [inputs], n_networks: 3", ".frozen: unknown weights in frozen 'inputs'"),
    ("after: mater, rules: [dm1]", ".after: unknown group that 'basic' is after, 'mater'"),
    ("after: basic_frozen, rules: [dm1]", ".after: groups follow one another in a circle"),
    ("after: null, rule: [dm1]", ".rule: unknown key; did you mean 'rules'?"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG)
def test_groups_that_cannot_be_trained_or_tested_are_refused_before_training(few, key, value, message):
    few.set(f"groups.{key}", value)
    with pytest.raises(ConfigError) as caught:
        load_settings(few.path)
    assert [line for line in caught.value.args if line.split(": ", 1)[1].startswith(message)]


@pytest.mark.parametrize(("value", "message"), WRONG_GROUPS)
def test_group_that_cannot_be_is_refused_with_its_line(few, value, message):
    n = few.set("groups.groups.basic", f"{{{value}}}")
    with pytest.raises(ConfigError) as caught:
        load_settings(few.path)
    assert [line for line in caught.value.args if line.startswith(f"{few.path}:{n}: groups.groups.basic{message}")]


# ---- train --verify --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tiny, capsys):
    """A trained run."""
    assert main(["train", "--quiet", "--rules", "fdgo", "--config", str(tiny.path)]) == 0
    capsys.readouterr()
    return load_run(load_settings(tiny.path).run_folder(["fdgo"]))


def test_a_run_is_verified_to_the_bit_where_it_was_trained(run, capsys):
    tiny_files = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
    assert main(["train", "--quiet", "--verify", str(run.folder)]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out
    assert main(["train", "--quiet", "--verify", str(run.folder), "--steps", "2"]) == 0
    assert "2, 3 checkpoints and 2 evaluations" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()} == tiny_files


def test_a_run_that_parts_is_told_with_step_size_and_machine(run, capsys, monkeypatch):
    settings = json.loads((run.folder / "settings.json").read_text())
    assert settings["machine"].keys() == {"system", "processor", "instructions", "blas"}
    settings["machine"]["blas"] = "another"
    del settings["sha256"]
    (run.folder / "settings.json").write_text(json.dumps(settings))
    original = Trainer.advance

    def advance(self):
        original(self)
        if self.step == 2:  # as another rounding would
            self.network.weights["w_rec"].data[1, 0, 0] += 1e-3

    monkeypatch.setattr(Trainer, "advance", advance)
    assert main(["train", "--quiet", "--verify", str(run.folder)]) == 1
    said = capsys.readouterr().out
    assert "the first to differ: step 2" in said
    assert re.search(r"blas +another when it was stored, \w+ here", said)
    found = verify_run(run.folder, n_steps=2, progress=False)
    assert found.steps["step"].tolist() == [0, 1, 2]
    assert found.steps["weights"].tolist() == pytest.approx([0, 0, 1e-3], rel=1e-3)  # float32
    assert found.log["step"].tolist() == [0, 2]
    assert found.log["loss"][0] == 0 < found.log["loss"][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--verify", "nowhere"], "--verify: run folder nowhere contains no trained network"),
        (["--verify", "nowhere", "--seed", "3"], "--seed: a run is verified with its own seed; leave it out"),
        (["--steps", "3"], "--steps: goes with --verify FOLDER"),
    ],
)
def test_what_cannot_be_verified_exits_2(tiny, arguments, message, capsys):
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_run_from_trained_networks_needs_these(run, tmp_path):
    training = TrainingParameters(n_steps=2, batch_size=4, evaluate_every=2, n_test_batches=1, test_batch_size=4)
    after = train(["fdgo"], run.network.parameters, training, run_folder=tmp_path / "after", n_networks=2,
                  start=run.network, progress=False)  # fmt: skip
    with pytest.raises(MultitaskError, match="started from other trained networks: pass these as start"):
        verify_run(after.folder, progress=False)
    assert verify_run(after.folder, start=run.network, progress=False).same
    with pytest.raises(MultitaskError, match="started from random networks: leave out start"):
        verify_run(run.folder, start=run.network, progress=False)
