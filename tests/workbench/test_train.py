"""``python -m workbench train``: trains what the settings describe, once, and tells how well and where."""

import os
import re

import pytest

from multitask import load_run
from workbench.__main__ import main
from workbench.settings import load_settings

TINY = {"n_networks": 2, "n_rnn": 8, "n_steps": 4, "evaluate_every": 2, "n_test_batches": 2, "test_batch_size": 4}


@pytest.fixture
def tiny(config, monkeypatch):
    """Settings that train in a moment; the working directory is theirs."""
    for key, value in TINY.items():
        config.replace(f"multitask.{key}", f"{key}: {value}")
    monkeypatch.chdir(config.path.parent)
    return config


def test_trains_the_rules_of_the_settings_and_prints_a_row_for_each(tiny, capsys):
    assert main(["train", "--config", str(tiny.path)]) == 0
    settings = load_settings(tiny.path)
    first, columns, *rows, last = capsys.readouterr().out.splitlines()
    assert first == "share of right trials, of 8 a rule, by network"
    assert columns.split() == ["mean", "0", "1"]
    assert [row.split()[0] for row in rows[1:]] == list(settings.multitask.rules)
    folder = os.path.relpath(settings.run_folder())
    assert re.fullmatch(rf"all steps after 4 steps, \d+ s of CPU time: {re.escape(folder)}", last)
    run = load_run(settings.run_folder())
    assert run.network.n_networks == 2
    assert (run.settings["rules"], run.settings["seed"]) == (list(settings.multitask.rules), settings.seed)
    assert run.settings["network"]["n_rnn"] == 8


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
    for key, value in {"learning_rate": 0.004, "dt": 25, "n_networks": 3}.items():
        tiny.replace(f"multitask.{key}", f"{key}: {value}")
        seen.add(folder())
    assert len(seen) == 4
    tiny.replace("multitask.n_starts", "n_starts: 7")  # what comes after training makes no other networks
    assert folder() in seen


def test_unknown_rule_exits_2_before_anything_is_trained(tiny, capsys):
    assert main(["train", "--rules", "dm1", "delaygoo", "--config", str(tiny.path)]) == 2
    assert capsys.readouterr().err == "--rules: unknown rule 'delaygoo': did you mean 'delaygo'?\n"
    assert not (tiny.path.parent / "results").exists()


def test_rules_that_the_settings_cannot_train_exit_1_with_the_reason(tiny, capsys):
    tiny.replace("multitask.rule_weights", "rule_weights: {contextdm1: 5}")
    assert main(["train", "--rules", "dm1", "--config", str(tiny.path)]) == 1
    assert "rule in training.rule_weights 'contextdm1'" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "1.5", "red"])
def test_seed_must_be_a_natural_number(seed, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", f"--seed={seed}"])
    assert caught.value.code == 2
    assert f"must be a whole number >= 0, got {seed}" in capsys.readouterr().err
