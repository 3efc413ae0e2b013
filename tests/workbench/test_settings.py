"""config.yaml: what it gives, and that whatever is wrong with it is said at once, with its line and key."""

import dataclasses
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench.settings
from multitask import RULES, NetworkParameters, TrainingParameters
from workbench.settings import ConfigError, load_settings, replacing


def report(config) -> list[str]:
    """The report on a spoiled file, a line for each problem, without the folder it lies in."""
    with pytest.raises(ConfigError) as caught:
        load_settings(config.path)
    return str(caught.value).replace(f"{config.path.parent}{os.sep}", "").splitlines()


# ---- what a good file gives ------------------------------------------------------------------------------------------


def test_values_arrive_with_their_types(config):
    config.set("lorenz.n_trials", "7")
    config.set("lorenz.dsa.ridge", "1e-3")  # YAML 1.1, and so PyYAML, reads text here
    config.set("lorenz.inside_chaos.dt", "1")
    settings = load_settings(config.path)
    assert settings.lorenz.n_trials == 7
    assert settings.lorenz.dsa.ridge == 0.001
    inside = settings.lorenz.inside_chaos
    assert (inside.dt, type(inside.dt)) == (1.0, float)
    assert all(type(value) is float for triple in inside.parameters for value in triple)


@pytest.mark.parametrize("text", ["2", "0.5", "5e-1", ".5", "2.", "1E3", "+1.5", "1e+2"])
def test_every_way_to_write_a_number_is_read(config, text):
    config.set("lorenz.dsa.ridge", text)
    assert load_settings(config.path).lorenz.dsa.ridge == float(text)


def test_settings_cannot_be_changed(config):
    settings = load_settings(config.path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.lorenz.dsa.rank = 1


def test_argument_comes_before_environment_before_working_directory(config, tmp_path, monkeypatch):
    for place, seed in (("argument", 1), ("environment", 2), ("here", 3)):
        (tmp_path / place).mkdir()
        config.path = tmp_path / place / "config.yaml"
        config.set("seed", str(seed))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("COMPUTE_ALIKE_CONFIG", raising=False)
    assert load_settings().seed == 3
    monkeypatch.setenv("COMPUTE_ALIKE_CONFIG", str(tmp_path / "environment" / "config.yaml"))
    assert load_settings().seed == 2
    assert load_settings(tmp_path / "argument" / "config.yaml").seed == 1


def test_relative_results_lie_beside_the_file_wherever_one_starts(config, tmp_path, monkeypatch):
    config.set("results", "out/here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_settings("../config.yaml").results.resolve() == tmp_path / "out" / "here"
    assert load_settings("../config.yaml").results.is_absolute()


def test_absolute_results_stay(config):
    config.set("results", "/data/out")
    assert load_settings(config.path).results == Path("/data/out")


def test_saved_settings_read_back_equal_from_any_folder(config, tmp_path):
    settings = load_settings(config.path)
    settings.save(tmp_path / "results" / "config.yaml")
    assert load_settings(tmp_path / "results" / "config.yaml") == settings


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0.0))
@hypothesis.settings(max_examples=30)  # each writes and reads a whole file
def test_saved_numbers_lose_no_digit(settings, tmp_path_factory, ridge):
    dsa = dataclasses.replace(settings.lorenz.dsa, ridge=ridge)
    changed = dataclasses.replace(settings, lorenz=dataclasses.replace(settings.lorenz, dsa=dsa))
    path = tmp_path_factory.mktemp("saved") / "config.yaml"
    changed.save(path)
    assert load_settings(path).lorenz.dsa.ridge == ridge


def test_section_prints_as_yaml(config):
    config.set("lorenz.n_trials", "7")
    text = str(load_settings(config.path).lorenz)
    assert "n_trials: 7\n" in text
    assert "\ndsa:\n  n_delays: " in text
    assert re.search(r"\n    parameters: \[\[[\d., ]+\], ", text)


def test_auto_falls_to_what_is_there(config):
    torch = pytest.importorskip("torch")
    config.set("device", "auto")
    assert load_settings(config.path).device == ("cuda" if torch.cuda.is_available() else "cpu")


def test_torch_is_not_asked_about_the_cpu(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it now fails
    assert load_settings(config.path).device == "cpu"


def test_errors_and_files_need_neither_networks_nor_a_schema():
    code = (
        "import sys; from workbench.settings import ConfigError, replacing; "
        "assert not {'multitask', 'pydantic', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_package_has_what_it_announces():
    assert all(getattr(workbench.settings, name) is not None for name in workbench.settings.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'load_setings'"):
        workbench.settings.load_setings  # noqa: B018


# ---- what a bad file gets --------------------------------------------------------------------------------------------


def test_five_mistakes_come_in_one_report_in_the_order_of_the_file(config):
    seed = config.rename("seed", "sead")
    device = config.set("device", "cuda:77")
    n_seeds = config.set("lorenz.n_seeds", '"10"')
    dt = config.set("lorenz.regimes.chaos.dt", ".nan")
    rank = config.rename("lorenz.dsa.rank", "rnk")
    lines = report(config)
    assert [re.sub(r", which has .*", "", line) for line in lines] == [
        f"config.yaml:{seed}: sead: unknown key; did you mean 'seed'?",
        f"config.yaml:{device}: device: cuda:77 is not on this machine",
        f'config.yaml:{n_seeds}: lorenz.n_seeds: must be an integer, got "10"',
        f"config.yaml:{dt}: lorenz.regimes.chaos.dt: must be a finite number, got .nan",
        f"config.yaml:{rank}: lorenz.dsa.rnk: unknown key; did you mean 'rank'?",
    ]


WRONG_VALUES = [
    ("seed", "1.5", "seed: must be an integer, got 1.5"),
    ("seed", "true", "seed: must be an integer, got true"),
    ("seed", '"10"', 'seed: must be an integer, got "10"'),
    ("seed", "1e3", "seed: must be an integer, got 1000.0"),
    ("seed", "1_000", 'seed: must be an integer, got "1_000"'),
    ("seed", "", "seed: must be an integer, got null"),
    ("seed", "-1", "seed: must be greater than or equal to 0, got -1"),
    ("seed", "2024-01-01", 'seed: must be an integer, got "2024-01-01"'),
    ("seed", "[1]", "seed: must be an integer, got [1]"),
    ("seed", "!!python/object/apply:os.getcwd []", "seed: tag !!python/object/apply:os.getcwd is refused"),
    ("seed", "!!int 3", "seed: tag !!int is refused; only plain values are read"),
    ("version", "1", "version: this program reads version 2, got 1"),
    ("version", '"2"', 'version: must be an integer, got "2"'),
    ("device", "gpu", "device: must be auto, cpu, cuda or cuda:N, got gpu"),
    ("device", "cuda:77", "device: cuda:77 is not on this machine, which has cpu"),
    ("results", "7", "results: must be text, got 7"),
    ("lorenz.n_trials", "0", "lorenz.n_trials: must be greater than or equal to 1, got 0"),
    ("lorenz.dsa.ridge", "inf", "lorenz.dsa.ridge: ridge = 'inf' is not a number of at least 0"),
    ("lorenz.dsa.ridge", "[1]", "lorenz.dsa.ridge: ridge = [1] is not a number of at least 0"),
    ("lorenz.dsa.ridge", "-.inf", "lorenz.dsa.ridge: must be a finite number, got -.inf"),
    ("lorenz.dsa.ridge", "1e999", "lorenz.dsa.ridge: must be a finite number, got 1e999"),
    ("lorenz.dsa.ridge", "true", "lorenz.dsa.ridge: ridge = True is not a number of at least 0"),
    ("lorenz.dsa.center", "yes", "lorenz.dsa.center: center = 'yes' is not True or False"),
    ("lorenz.dsa.center", "1", "lorenz.dsa.center: center = 1 is not True or False"),
    ("lorenz.dsa.estimator", "3", "lorenz.dsa.estimator: "),
    ("lorenz.dsa.n_delays", "0", "lorenz.dsa.n_delays: n_delays = 0 is not a whole number of at least 1"),
    ("lorenz.dsa", "3", "lorenz.dsa: must be a section of keys and values, got 3"),
    ("lorenz.dsa", "", "lorenz.dsa: must be a section of keys and values, got null"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG_VALUES)
def test_wrong_value_is_named_with_what_would_do(config, key, value, message):
    n = config.set(key, value)
    (line,) = report(config)
    assert line.startswith(f"config.yaml:{n}: {message}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[[10, 28]]", "parameters[0]: too few items, got [10, 28]"),
        ("[[10, 28, 2, 1]]", "parameters[0]: Tuple should have at most 3 items"),
        ("[[10, 28, red]]", 'parameters[0][2]: must be a number, got "red"'),
        ("[10, 28, 2]", "parameters[0]: must be a list, got 10"),
        ("28", "parameters: must be a list, got 28"),
    ],
)
def test_wrong_list_is_named_down_to_the_item(config, value, message):
    n = config.set("lorenz.regimes.chaos.parameters", value)
    assert report(config)[0].startswith(f"config.yaml:{n}: lorenz.regimes.chaos.{message}")


def test_key_given_twice_is_refused(config):
    n = config.insert("lorenz.n_trials", "n_trials: 4") - 1
    assert report(config) == [f"config.yaml:{n}: lorenz.n_trials: given twice, on lines {n} and {n + 1}; keep one"]


def test_missing_key_is_named_at_its_section(config):
    config.remove("lorenz.n_trials")
    section = config.line("lorenz")
    assert report(config) == [f"config.yaml:{section}: lorenz.n_trials: missing; every key must be given"]


def test_missing_key_of_a_parameter_class_is_refused_whatever_its_default(config):
    config.remove("training.p_weight_train")
    section = config.line("training")
    assert report(config) == [f"config.yaml:{section}: training.p_weight_train: missing; every key must be given"]


def test_unknown_key_without_a_near_one_lists_the_known(config):
    n = config.insert("seed", "colour: red")
    (line,) = report(config)
    assert line.startswith(f"config.yaml:{n}: colour: unknown key; known here: version, seed, device, results, engine")


def test_value_in_the_place_of_a_section_is_refused(config):
    n = config.set("lorenz", "3")
    assert report(config) == [f"config.yaml:{n}: lorenz: must be a section of keys and values, got 3"]


def test_window_longer_than_a_trial_is_refused_before_anything_runs(config):
    config.set("lorenz.n_times", "43")
    config.set("lorenz.dsa.rank", "3")
    config.set("lorenz.dsa.delay_interval", "3")
    config.set("lorenz.noise.dsa.delay_interval", "1")
    config.set("lorenz.horizons", "{values: [0.01], dsa: {window: 0.1, delay_interval: 1}}")
    config.set("lorenz.dsa.steps_ahead", "2")
    config.set("lorenz.dsa.n_delays", "14")  # 13 * 3 + 1 + 2 = 42 samples fit into 43
    load_settings(config.path)
    n = config.set("lorenz.dsa.n_delays", "15")
    (line,) = report(config)
    assert line.startswith(
        f"config.yaml:{n}: lorenz.dsa.n_delays: a trial has 43 samples, but 15 copies every 3 samples and 2 ahead need "
        "45; at most n_delays = 14 fits, or raise n_times"
    )


def test_rank_above_the_width_of_a_window_is_refused(config):
    config.set("lorenz.dsa.n_delays", "4")
    config.set("lorenz.dsa.rank", "12")
    load_settings(config.path)
    n = config.set("lorenz.dsa.rank", "13")
    (line,) = report(config)
    assert line.startswith(
        f"config.yaml:{n}: lorenz.dsa.rank: 13 is more than a window holds, 3 channels x 4 n_delays = 12"
    )


def test_combinations_come_in_the_same_report_as_mistakes_elsewhere(config):
    config.set("seed", "red")
    config.set("lorenz.dsa.rank", "5000")
    config.set("lorenz.n_times", "1")
    keys = [line.split(": ")[1] for line in report(config)]
    assert keys == [
        "seed",
        "lorenz.dsa.n_delays",
        "lorenz.dsa.rank",
        "lorenz.horizons",
        "lorenz.noise.estimators.published, farther ahead.n_delays",
        "lorenz.noise.estimators.published.n_delays",
    ]


def test_combinations_are_refused_when_set_by_hand(settings):
    with pytest.raises(ConfigError, match=r"^dsa.n_delays: a trial has 2 samples, but 10 copies"):
        dataclasses.replace(settings.lorenz, n_times=2)


MULTITASK = [
    ("rules", "[dm1, delaygoo]", "multitask.rules[1]: unknown rule 'delaygoo': did you mean 'delaygo'?"),
    ("rules", "[]", "multitask.rules: "),
    ("n_networks", "0", "multitask.n_networks: must be greater than or equal to 1, got 0"),
    ("network.n_rnn", "0", "multitask.network.n_rnn: network.n_rnn = 0: must be a whole number >= 1"),
    ("network.n_rnn", '"64"', 'multitask.network.n_rnn: must be an integer, got "64"'),
    ("network.activation", "rellu", "multitask.network.activation: unknown network.activation 'rellu': did you mean"),
    ("network.dt", "200", "multitask.network.dt: network.dt = 200.0 ms: must not exceed tau = 100.0 ms; lower dt"),
    ("network.sigma_rec", "-0.1", "multitask.network.sigma_rec: network.sigma_rec = -0.1: must be a finite number"),
    ("network.n_input", "99", "multitask.network.n_input: "),
    ("training.batch_size", "0", "multitask.training.batch_size: training.batch_size = 0: must be a whole number >="),
    ("training.target_performance", "1.5", "multitask.training.target_performance: training.target_performance = 1"),
    ("training.frozen", "[inputs]", "multitask.training.frozen: unknown weights in training.frozen 'inputs': did you"),
    ("training.rule_weights", "{dm2: 5}", "multitask.training.rule_weights: dm2 is not trained; remove it, or add it"),
    ("activity.pairs", "[[dm1, dm2]]", "multitask.activity.pairs: dm2 is not trained; remove it, or add it to"),
    ("activity.pairs", "[[dm1]]", "multitask.activity.pairs[0]: too few items"),
    ("activity.trial", "40", "multitask.activity.trial: must be less than 40, got 40"),
    ("slow_points.period", "delay2", "multitask.slow_points.period: delaygo has no delay2; it has fix1, stim1, delay1"),
    ("slow_points.beside", "dm1", "multitask.slow_points.period: dm1 has no delay1; it has fix1, stim1, go1"),
    ("psychometric.stim_times", "[0]", "multitask.psychometric.stim_times[0]: must be greater than 0, got 0"),
]


@pytest.mark.parametrize(("key", "value", "message"), MULTITASK)
def test_networks_that_cannot_be_trained_are_refused_before_training(config, key, value, message):
    config.set(f"multitask.{key}", value)
    assert [line for line in report(config) if line.split(": ", 1)[1].startswith(message)]


def test_network_that_is_not_in_the_ensemble_cannot_be_shown(config):
    config.set("multitask.n_networks", "1")
    shown = config.set("multitask.activity.network", "1")
    (line,) = report(config)
    assert line.startswith(f"config.yaml:{shown}: multitask.activity.network: 1 does not exist; n_networks is 1")


def test_rule_named_twice_is_refused(config):
    n = config.set("multitask.rules", "[fdgo, delaygo, delayanti, dm1, contextdm1, dmcgo, fdgo]")
    (line,) = report(config)
    assert line.startswith(f"config.yaml:{n}: multitask.rules: fdgo is listed twice")


PRESETS = {
    "six at standard difficulty": {
        "training.difficulty": "easy_to_standard", "training.rule_weights": "{dm1: 2, contextdm1: 2}",
    },
    "all twenty": {"network.n_rnn": 128, "training.n_steps": 9000, "training.difficulty": "easy_to_standard"},
    "of the paper": {
        "n_networks": 40, "network.n_rnn": 256, "network.activation": "softplus", "network.w_rec_scale": 0.5,
        "network.dt": 20, "training.n_steps": 156251, "training.learning_rate": 0.001, "training.schedule": "constant",
        "training.warm_up": 0, "training.clip": "value", "training.rule_weights": "{contextdm1: 5, contextdm2: 5}",
        "training.difficulty": "standard", "training.evaluate_every": 500, "training.n_test_batches": 16,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_written_in_the_file_and_fit(config, name):
    before = load_settings(config.path).groups
    comment = " ".join(line.lstrip("# ") for line in config.text.splitlines() if line.startswith("#"))
    text = comment.split(f"{name}:", 1)[1]
    config.set("multitask.rules", f"[{', '.join(RULES)}]")
    assert f"rules: [{', '.join(RULES)}]" in comment
    for key, value in PRESETS[name].items():
        assert f"{key.split('.')[-1]}: {value}" in text
        config.set(f"multitask.{key}", str(value))
    settings = load_settings(config.path)
    multitask = settings.multitask
    assert multitask.rules == RULES
    assert settings.groups == before  # which have differences of their own
    if name == "of the paper":  # the defaults of the code are the paper's
        weights = {"contextdm1": 5.0, "contextdm2": 5.0}
        assert multitask.training == TrainingParameters(rule_weights=weights, ksi_intsyn=0.01)
        assert multitask.network == NetworkParameters(w_rec_scale=0.5)


# ---- files that are no settings at all -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.yaml:1: the file is empty; it needs the keys version, seed"),
        (b"# nothing\n", "config.yaml:1: the file is empty"),
        (b"\n- 1\n- 2\n", "config.yaml:2: must be keys and values at the top"),
        (b"just words\n", "config.yaml:1: must be keys and values at the top"),
        (b"seed: 0\nlorenz:\n\tn_seeds: 1\n", "config.yaml:3: while scanning .*indent with spaces, not with tabs"),
        (b"seed: 0\n  version: 1\n", "config.yaml:2: .*mapping values are not allowed here"),
        (b"lorenz:\n  n_seeds: 1\n n_trials: 2\n", "config.yaml:3: .*unindent|config.yaml:3: while parsing"),
        (b"seed: [1, 2\nversion: 1\n", "config.yaml:2: while parsing a flow"),
        (b"seed: 0\n---\nseed: 1\n", "config.yaml:2: .*document"),
        (b"seed: *nowhere\n", "config.yaml:1: .*undefined alias 'nowhere'"),
        (b"seed: 0\nresults: caf\xe9\n", "config.yaml:2: byte 0xe9 is not UTF-8"),
        (b"\xff\xfes\x00", "config.yaml:1: byte 0xff is not UTF-8"),
        (b"\xef\xbb\xbfseed: 0\n", "config.yaml:1: begins with a byte order mark"),
        (b"seed: 0\nresults: a\x07b\n", "config.yaml:2: character 0x7 is not allowed in a text file"),
        (b"lorenz: &a\n  dsa: *a\n", "config.yaml:2: lorenz.dsa: refers to itself"),
        (b"[1, 2]: 3\n", r"config.yaml:1: \?: the key on line 1 is a list"),
    ],
)
def test_broken_file_is_refused_with_its_line(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert any(re.match(message, line) for line in str(caught.value).replace(f"{tmp_path}/", "").splitlines())


def test_missing_file_is_named_as_given_and_as_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_settings("nowhere.yaml")
    assert str(caught.value) == (
        f"nowhere.yaml: no such file or directory (tried {tmp_path}/nowhere.yaml). Give a settings file with --config, "
        "load_settings(path) or the environment variable COMPUTE_ALIKE_CONFIG, or start in the folder that has "
        "config.yaml"
    )


def test_folder_in_the_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is a directory \(tried "):
        load_settings(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_unreadable_file_is_refused(config):
    config.path.chmod(0)
    with pytest.raises(ConfigError, match=r"permission denied \(tried "):
        load_settings(config.path)


def test_tags_run_nothing(config, tmp_path):
    config.set("seed", f'!!python/object/apply:os.mkdir ["{tmp_path}/made"]')
    report(config)
    assert not (tmp_path / "made").exists()


# ---- files on disk ---------------------------------------------------------------------------------------------------


def test_interrupted_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_committed_settings_are_valid_and_every_key_has_its_comment():
    path = Path(__file__).parents[2] / "config.yaml"
    load_settings(path)
    lines = path.read_text().splitlines()
    assert len(lines) < 380
    explained = [
        line.split(":")[0].strip()
        for above, line in pairwise(lines)
        if re.match(r" *\w+: .*\S", line) and ("  # " in line or above.lstrip().startswith("#"))
    ]
    keys = {line.split(":")[0].strip() for line in lines if re.match(r" *\w+: .*\S", line)}
    ours = load_settings(path)
    named = {*ours.groups.comparison.measures, *ours.groups.groups, *ours.dsa_epochs.growth, *ours.dsa_epochs.motifs}
    repeated = {*named, *ours.compositional.motifs, *ours.lorenz.regimes, *ours.lorenz.noise.estimators, "end"}
    behind_readouts = ours.geometry_or_dynamics.memories.recordings
    assert keys - set(explained) <= {*repeated, *behind_readouts.memories, *behind_readouts.readouts}


# ---- tables of keys --------------------------------------------------------------------------------------------------


def test_table_has_the_keys_asked_for_on_one_line_each_as_in_the_file(config):
    config.set("lorenz.noise.strengths", "[0.0, 0.25]")
    table = load_settings(config.path).lorenz.table("n_seeds", "noise.strengths", "inside_chaos", "discard")
    assert list(table.index) == ["n_seeds", "noise.strengths", "inside_chaos", "discard"]
    values = table["value"].str.rstrip().tolist()
    assert values[:2] == ["5", "[0, 0.25]"]
    assert values[2].startswith("{dt: 0.01, parameters: [[10, 35, 2.6667], ")
    assert table["value"].str.len().nunique() == 1  # padded: prints aligned to the left


def test_table_shows_variants_by_name_and_of_a_comparison_what_is_no_default(config):
    config.set("lorenz.noise.estimators", "{plain: {}, far: {steps_ahead: 20, ridge: 1.0e-6}, CKA: {metric: cka}}")
    table = load_settings(config.path).lorenz.table("noise.estimators")
    assert table["value"].str.rstrip().to_dict() == {
        "noise.estimators.plain": "{n_delays: 20, rank: 5, steps_ahead: 1, n_starts: 1}",
        "noise.estimators.far": "{n_delays: 20, rank: 5, steps_ahead: 20, ridge: 1e-06, n_starts: 1}",
        "noise.estimators.CKA": "{metric: cka}",
    }


def test_table_of_nested_sections_writes_nothing_and_truth_as_yaml(settings):
    table = settings.table("multitask.activity.n_clusters", "compositional.repeats", "groups.comparison.measures")
    values = table["value"].str.rstrip()
    assert values["multitask.activity.n_clusters"] == "null"
    assert values["compositional.repeats"] == "false"
    assert values["groups.comparison.measures.CKA"].endswith("trials: matched, dsa: {metric: cka}}")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("noise.strength", "no key 'strength'; did you mean 'strengths'"),
        ("n_seeds.first", "no key 'first'; known here: no keys"),
        ("zzz", "no key 'zzz'; known here: n_seeds, "),
    ],
)
def test_table_of_an_unknown_key_names_the_nearest(settings, key, message):
    with pytest.raises(KeyError, match=re.escape(message)):
        settings.lorenz.table(key)
