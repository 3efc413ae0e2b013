"""From files to a report on the command line, without a settings file: what is written, said and refused."""

import math
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

import dsa_analysis.metrics
from dsa_analysis import Similarity, auroc, choose_embedding, compare, omit_trials
from dsa_analysis.alignment import align_pairs
from workbench.__main__ import main
from workbench.compare import _alone_in
from workbench.report import sections
from workbench.report.figures import picture
from workbench.report.page import Picture
from workbench.settings import ConfigError

SETTINGS = ["--n-delays", "2", "--rank", "3"]


def recording(angle: float, seed: int, n_trials: int = 6) -> np.ndarray:
    """Noisy rotations, (n_trials, 40, 2)."""
    generator = np.random.default_rng(seed)
    A = 0.9 * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    x, samples = generator.standard_normal((n_trials, 2)), []
    for _ in range(40):
        samples.append(x)
        x = x @ A.T + 0.3 * generator.standard_normal((n_trials, 2))
    return np.stack(samples, 1)


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch) -> None:
    """Figures take most of the time of a report; one test below draws them."""
    monkeypatch.setattr(sections, "picture", lambda figure, name, caption: Picture("<svg></svg>", caption, 96))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Four recordings of two groups in the folder in which the command runs; no config.yaml there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COMPUTE_ALIKE_CONFIG", raising=False)
    for k, name in enumerate(("slow_1", "slow_2", "fast_1", "fast_2")):
        np.save(tmp_path / f"{name}.npy", recording(0.3 if k < 2 else 0.9, k))
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.npy"))


def text_of(page: Path) -> str:
    """What a reader sees, without figures, style and script."""
    kept = re.sub(r"<(svg|style|script)\b.*?</\1>", "", page.read_text("utf-8").replace("<wbr>", ""), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", kept)).split())


def test_files_become_a_report_a_table_and_a_result(folder, capsys, monkeypatch):
    monkeypatch.setattr(sections, "picture", picture)
    command = [
        "compare",
        *files(folder),
        *SETTINGS,
        "--sampling-rate",
        "100",
        "--group-by",
        "name",
        "--intervals",
        "20",
    ]
    assert main(command) == 0
    out = folder / "results" / "compare"
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"4 systems compared by DSA: \w+ and \w+ are nearest, \w+ and \w+ farthest\.", said[0])
    assert any("pairs, floor 0." in line for line in said)
    assert re.fullmatch(r"Report: results/compare/report.html \(open it with: (xdg-)?open results/.*html\)", said[-1])
    assert sorted(path.name for path in out.iterdir()) == ["distances.csv", "report.html", "similarity.nc"]

    stored = Similarity.load(out / "similarity.nc")
    systems = {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}
    np.testing.assert_array_equal(stored.distances, compare(systems, n_delays=2, rank=3, progress=False).distances)
    assert stored.settings["recordings"]["slow_1"]["sampling_rate"] == 100
    assert stored.settings["recordings"]["slow_1"]["axes"] == "trial, time, channel"

    table = pd.read_csv(out / "distances.csv")
    assert list(table[["system_a", "system_b"]].iloc[0]) == ["fast_1", "fast_2"]
    np.testing.assert_allclose(table["distance"], stored.to_dataframe()["distance"], rtol=1e-12)
    assert (table["noise_floor"] > 0).all()
    assert (table["ci_low"] <= table["ci_high"]).all()

    text = text_of(out / "report.html")
    for said in (
        "4 systems compared by DSA:", "The noise floor is the distance between two halves", "AUROC", "PERMANOVA",
        "2 delays, 1 sample apart; rank 3; 1 sample ahead; estimator least_squares", "n_starts = ",
        "reading: sampling_rate = 100.0", "fast_1 fast 6 40 2 100 0.", "compare fast_1.npy fast_2.npy",
        "time constant (ms)", "What sets ", "interval above 0", "--horizon auto",
    ):  # fmt: skip
        assert said in text
    page = (out / "report.html").read_text("utf-8")
    assert page.count("<svg") == 5  # matrix, map, tree, spectra, explanation
    assert str(folder) not in text


def test_embedding_is_chosen_where_none_is_stated(folder):
    assert main(["compare", *files(folder), "--n-delays", "2"]) == 0
    stored = Similarity.load(folder / "results/compare/similarity.nc")
    systems = {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}
    choice = choose_embedding(systems, n_delays=2, progress=False)
    assert (stored.settings["n_delays"], stored.settings["rank"]) == (2, choice.rank)
    chosen = compare(systems, n_delays=2, rank=choice.rank, progress=False)
    np.testing.assert_array_equal(stored.distances, chosen.distances)
    text = text_of(folder / "results/compare/report.html")
    assert re.search("Chosen by (identifiability|gap)", text)
    assert "Neighbours of the chosen embedding" in text or not len(choice.neighbours)


def test_warnings_stand_in_the_report_and_on_the_screen(folder, capsys):
    flat = recording(0.3, 7)
    flat[:, :, 1] = 1.0
    np.save(folder / "flat.npy", flat)
    assert main(["compare", *files(folder), "--n-delays", "3", "--rank", "3"]) == 0
    said = "system 'flat': constant channels [1] carry nothing"
    assert said in capsys.readouterr().err
    assert said in text_of(folder / "results/compare/report.html")


def test_results_are_not_overwritten_unless_asked(folder, capsys):
    command = ["compare", *files(folder)[:2], *SETTINGS]
    assert main(command) == 0
    page = folder / "results/compare/report.html"
    before = page.read_bytes(), page.stat().st_mtime_ns
    assert main([*command, "--seed", "1"]) == 2
    assert re.search(
        r"holds report.html, distances.csv, similarity.nc already; say --overwrite", capsys.readouterr().err
    )
    assert (page.read_bytes(), page.stat().st_mtime_ns) == before
    assert main([*command, "--seed", "1", "--overwrite"]) == 0
    assert page.read_bytes() != before[0]
    assert main([*command, "--output", "elsewhere"]) == 0


def test_groups_may_be_folders(folder):
    paths = []
    for group in ("slow", "fast"):
        (folder / group).mkdir()
        for k in "12":
            paths.append((folder / f"{group}_{k}.npy").rename(folder / group / f"r{k}.npy"))
    assert main(["compare", *map(str, paths), *SETTINGS, "--group-by", "folder"]) == 0
    assert "AUROC" in text_of(folder / "results/compare/report.html")
    assert Similarity.load(folder / "results/compare/similarity.nc").labels[0] == "slow/r1"


def test_operators_from_elsewhere_are_compared_as_they_are(folder):
    generator = np.random.default_rng(0)
    for name in "ab":
        savemat(folder / f"{name}.mat", {"A": generator.standard_normal((4, 4)), "note": "from elsewhere"})
    assert main(["compare", "a.mat", "b.mat", "--operators"]) == 0
    stored = Similarity.load(folder / "results/compare/similarity.nc")
    assert stored.operators["a"].shape == (4, 4)
    text = text_of(folder / "results/compare/report.html")
    assert re.search(r"dimensions .* a 4 b ", text)
    assert "above their noise floor" not in text


@pytest.mark.parametrize("metric", ["spectral", "sgot", "cka"])
def test_other_metrics_have_a_report(folder, metric):
    embedding = [] if metric == "cka" else SETTINGS
    assert main(["compare", *files(folder), *embedding, "--metric", metric, "--sampling-rate", "10"]) == 0
    assert ("above their noise floor" in text_of(folder / "results/compare/report.html")) == (metric != "cka")


def test_single_trials_have_no_floor_and_the_report_says_so(folder, capsys):
    for path in files(folder):
        np.save(path, np.load(path).reshape(-1, 2))
    assert main(["compare", *files(folder)[:2], *SETTINGS]) == 0
    assert "no noise floor: fast_1, fast_2 have a single trial" in capsys.readouterr().err


def damaged(folder: Path) -> dict[str, list[np.ndarray]]:
    """Two recordings, written to a.npz and b.npz: a lacks a sample of trial 1, and trial 4 of b ends early."""
    systems = {"a": list(recording(0.3, 0)), "b": list(recording(0.9, 1))}
    systems["a"][1][7, 0] = np.nan
    systems["b"][4] = systems["b"][4][:2]
    for name, trials in systems.items():
        np.savez(folder / f"{name}.npz", **{f"trial_{k}": trial for k, trial in enumerate(trials)})
    return systems


@pytest.mark.parametrize(
    ("metric", "extra"), [("angular", []), ("angular", ["--zscore"]), ("procrustes", [])], ids=["", "zscore", "matched"]
)
def test_trials_are_left_out_where_asked_and_the_report_says_which(folder, capsys, metric, extra):
    systems = damaged(folder)
    embedding = {} if metric == "procrustes" else {"n_delays": 2, "rank": 3}
    options = SETTINGS if embedding else []
    command = ["compare", "a.npz", "b.npz", "--variable", "trial_*", *options, "--metric", metric, *extra]
    assert main(command) == 2
    assert "system 'a', trial 1, channel 0: 1 non-finite value" in capsys.readouterr().err
    if metric == "angular":
        assert main([*command, "--omit-non-finite"]) == 2
        assert "leave the short trials out by omit_trials(systems, shorter_than=3)" in capsys.readouterr().err
    assert main([*command, "--omit-non-finite", "--omit-shorter-than", "3"]) == 0
    matched = metric == "procrustes"
    gone = {name: [1, 4] for name in "ab"} if matched else {"a": [1], "b": [4]}
    said = "trials left out: 2 of 6 of 'a', 2 of 6 of 'b'" if matched else "left out: 1 of 6 of 'a', 1 of 6 of 'b'"
    assert said in capsys.readouterr().err

    stored = Similarity.load(folder / "results/compare/similarity.nc")
    if not extra:
        with pytest.warns(UserWarning, match=said):
            kept = omit_trials(systems, non_finite=True, shorter_than=3, matched=matched)
        expected = compare(kept, **embedding, metric=metric, progress=False)
        np.testing.assert_array_equal(stored.distances, expected.distances)
    assert np.isfinite(stored.distances).all()
    assert {name: one["omitted_trials"] for name, one in stored.settings["recordings"].items()} == gone
    assert stored.settings["recordings"]["a"]["keep_non_finite"]
    assert stored.settings["omit_shorter_than"] == 3
    text = text_of(folder / "results/compare/report.html")
    for line in (said, f"reading: omitted_trials = {'[1, 4]' if matched else '[1], [4]'}", "omit_shorter_than = 3"):
        assert line in text


def test_interrupted_comparison_does_the_rest_and_leaves_nothing_unfinished(folder, capsys, monkeypatch):
    monkeypatch.setattr(dsa_analysis.metrics.Aligned, "pairs_at_once", lambda metric, n, device: 2)
    solved: list[int] = []

    def stop_at(limit):
        def solve(operators, first, second, **settings):
            if len(solved) == limit:
                raise KeyboardInterrupt
            solved.append(len(first))
            return align_pairs(operators, first, second, **settings)

        monkeypatch.setattr(dsa_analysis.metrics, "align_pairs", solve)

    command = ["compare", *files(folder), *SETTINGS, "--n-starts", "8", "--n-splits", "1"]
    out = folder / "results/compare"
    stop_at(2)
    assert main(command) == 130
    assert [path.name for path in out.iterdir()] == ["unfinished_pairs"]
    assert len(list((out / "unfinished_pairs").iterdir())) == len(solved) == 2
    stop_at(math.inf)
    assert main(command) == 0
    resumed = len(solved) - 2
    assert sorted(path.name for path in out.iterdir()) == ["distances.csv", "report.html", "similarity.nc"]
    stored = Similarity.load(out / "similarity.nc")
    assert main([*command, "--output", "fresh"]) == 0
    assert len(solved) - 2 - resumed == resumed + 2  # the two blocks kept were not solved twice
    np.testing.assert_array_equal(stored.distances, Similarity.load(folder / "fresh/similarity.nc").distances)
    assert "interrupted" in capsys.readouterr().err


def test_second_comparison_in_a_folder_is_told_at_once_and_a_lock_ends_with_its_process(tmp_path):
    held = f"from workbench.compare import Path, _alone_in\nwith _alone_in(Path({str(tmp_path)!r})): print(); input()"
    with subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ConfigError, match="another comparison is writing there; wait"), _alone_in(tmp_path):
            pass
        assert (tmp_path / ".lock").exists()  # of the other, still
        other.kill()
    with _alone_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_budget_of_the_alignment_can_be_stated(folder):
    assert main(["compare", *files(folder), *SETTINGS, "--n-starts", "2", "--n-sweeps", "1"]) == 0
    stored = Similarity.load(folder / "results/compare/similarity.nc")
    assert (stored.settings["n_starts"], stored.settings["n_sweeps"]) == (2, 1)
    systems = {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}
    expected = compare(systems, n_delays=2, rank=3, n_starts=2, n_sweeps=1, progress=False)
    np.testing.assert_array_equal(stored.distances, expected.distances)


def test_stability_and_nulls_stand_in_the_report(folder, capsys, monkeypatch):
    monkeypatch.setattr(sections, "picture", picture)
    asked = ["--null", "exchange", "shuffle_times", "slow_1.npy", "--null-draws", "19", "--stability", "rank=2,4"]
    assert main(["compare", "fast_1.npy", "fast_2.npy", *SETTINGS, *asked, "n-delays=3", "slow_2.npy"]) == 0
    out = folder / "results" / "compare"
    said, text, table = capsys.readouterr().out, text_of(out / "report.html"), pd.read_csv(out / "distances.csv")
    assert re.search(r"the order of the distances  (stable|unstable|depends on [\w, ]+), ", said)
    assert re.search(r"pairs that differ  +\d of 6 pairs, 19 draws of exchange, Holm, p < .05", said)
    assert "The frame is the comparison of this page: rank = 3, n_delays = 2." in text
    assert "6 cells" not in text
    assert "Trials were exchanged between the systems of a pair" in text
    assert "p after Holm's adjustment for the number of pairs. Scaled: 0 is two recordings of one system" in text
    assert table.filter(like="exchange").columns.tolist() == ["null_exchange", "p_exchange", "p_holm_exchange"]
    assert (table["p_exchange"] >= 0.05).all()  # 1 / 20 is the least there is
    floors = table["noise_floor"]
    scaled = (table["distance"] - floors) / (table["null_shuffle_times"] - floors)
    np.testing.assert_allclose(table["scaled_shuffle_times"], scaled, rtol=1e-9)
    assert (table["scaled_low_shuffle_times"] <= scaled).all()


def test_grid_of_stability_is_around_the_embedding_in_use(folder):
    assert main(["compare", *files(folder), *SETTINGS, "--sampling-rate", "100", "--horizon", "20", "--stability"]) == 0
    text = text_of(folder / "results" / "compare" / "report.html")
    assert "n_delays = 2, rank = 3, horizon = 20.0." in text
    assert "6 cells were left out, because a system does not support them" in text  # ranks 3, 4 of one delay
    assert "n_delays = 1, rank = 3" in text


@pytest.mark.parametrize("metric", ["cka", "spectral"])
def test_stability_of_other_metrics(folder, metric):
    embedding = SETTINGS if metric == "spectral" else []
    assert main(["compare", *files(folder), *embedding, "--metric", metric, "--stability", "n_trials=3"]) == 0
    assert "n_trials = all." in text_of(folder / "results" / "compare" / "report.html")


def test_names_of_axes_and_nulls_are_those_of_the_library():
    from dataclasses import fields

    from dsa_analysis import Comparison, nulls
    from workbench import options, robust

    known = {each.name for each in fields(Comparison)} | set(robust.OF_DATA)
    assert {robust.FIELDS.get(name, name) for name in options.AXES} <= known
    assert (nulls.EXCHANGE, *nulls.KINDS) == options.NULLS


def test_help_has_an_example_and_loads_no_torch(capsys):
    with pytest.raises(SystemExit) as done:
        main(["compare", "--help"])
    assert done.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "compare monday/*.mat" in text.partition("example: ")[2]
    assert "exit codes: 0 done; 1 " in text
    for option in ("--variable", "--axes", "--sampling-rate", "--smooth", "--decimate", "--zscore", "--n-delays"):
        assert option in text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            ["--metric", "joint"],
            "--metric joint: needs the inputs of the systems, which files do not hold; use compare",
        ),
        (["--estimator", "subspace"], "--estimator subspace: needs the inputs of the systems, which files do not hold"),
        (["--metric", "angle"], "metric = 'angle' is none of .*did you mean 'angular'"),
        (["--n-delays", "60"], "n_delays = 60 with delay_interval = 1 needs trials of at least 61 samples"),
        (["--smooth", "5"], "smooth = 5 ms needs a sampling rate"),
        (["--axes", "trial,channel,tim"], "did you mean 'time'"),
        (["--group-by", "folder"], "--group-by folder makes the groups .*; two or more are needed"),
        (["--explain", "fast_1", "slow_1"], "--explain speaks of milliseconds; state --sampling-rate"),
        (["--explain", "fast_1", "slow", "--sampling-rate", "9"], "--explain = 'slow' is none of .*mean 'slow_"),
        (["--output", "slow_1.npy/out"], "slow_1.npy/out: no such folder can be made"),
        (["--device", "cuda:77"], "device = 'cuda:77' is not there"),
    ],
)
def test_what_cannot_be_done_exits_2_with_one_line_and_no_results(folder, capsys, extra, message):
    assert main(["compare", *files(folder), *SETTINGS, *extra]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line and "|" not in line]  # without bars
    assert re.search(message, error[-1])
    assert not list(folder.glob("results/compare/*.*"))  # solved pairs may stay, for the next try


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--explain", "fast_1", "slow"], "--explain = 'slow' is none of"),
        (["--group-by", "folder"], "two or more are needed"),
        (["--device", "cuda:77"], "is not there"),
        (["--n-delays", "2", "--delay-window", "20"], "say the same thing twice"),
        (["slow_9.npy"], "slow_9.npy: no such file"),
        (["--stability", "rank=2,x"], "--stability rank=2,x: must be a whole number >= 1, got x"),
        (["--stability", "rank=3", "--operators"], "--stability: compares data again"),
        (["--stability", "--windows", "0:20"], "--stability: compares whole trials; leave --windows out"),
        (["--null", "phase", "--operators"], "--null: compares data again"),
        (["--null", "--null-draws", "9"], "--null-draws: 9 is too few; give 19 or more"),
        (["--null", "--metric", "cka"], "--null exchange: exchanges trials, which metric cka takes to correspond"),
    ],
)
def test_what_can_be_checked_is_checked_before_files_are_read(folder, capsys, monkeypatch, extra, message):
    monkeypatch.setattr("dsa_analysis.load_recordings", lambda *_, **__: pytest.fail("files were read"))
    assert main(["compare", *files(folder), *extra]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "word", "near"),
    [
        ("--stability", "n_dleays=2,3", "n_delays"),
        ("--stability", "n-trails=3", "n_trials"),
        ("--null", "shufle_times", "shuffle_times"),
    ],
)
def test_misspelt_word_of_an_option_is_not_taken_for_a_file(folder, capsys, option, word, near):
    with pytest.raises(SystemExit) as caught:
        main(["compare", *files(folder), option, word])
    assert caught.value.code == 2
    assert (
        f"argument {option}: {word} is neither one of these nor a file; did you mean {near}?" in capsys.readouterr().err
    )


def test_stability_of_three_files_is_refused(folder, capsys):
    assert main(["compare", *files(folder)[1:], "--stability"]) == 2
    assert "--stability: judges the order of distances, which takes 4 files or more; 3 came" in capsys.readouterr().err


def test_quiet_leaves_warnings_to_the_report_and_says_where_it_lies(folder, capsys):
    assert main(["compare", *files(folder), *SETTINGS, "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("Report: results/compare/report.html ")
    assert "goes through a cluster" in text_of(folder / "results/compare/report.html")


def test_verbose_names_the_stages_with_their_times(folder, capsys):
    assert main(["-v", "compare", *files(folder), *SETTINGS, "--intervals", "20"]) == 0
    said = capsys.readouterr().err
    for stage in ("[1/4] reading 4 files", "[2/4] comparing 6 pairs, and halves", "[3/4] intervals from 20", "[4/4] "):
        assert stage in said
    assert re.search(r"\d\.\d s\n", said)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["slow_1.npy"], "slow_1.npy alone cannot be compared; give two files or more"),
        (["slow_1.npy", "slow_9.npy"], "slow_9.npy: no such file"),
        (["slow_1.npy", "slow_1.npy"], "slow_1.npy was given twice"),
        (["slow_1.npy", "notes.txt"], "files '.txt' are not read"),
    ],
)
def test_files_that_cannot_be_compared_exit_2(folder, capsys, names, message):
    assert main(["compare", *names, *SETTINGS]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "extra", [["--rank", "some"], ["--n-delays", "0"], ["--decimate", "1.5"], ["--window", "1"], ["--n-starts", "0"]]
)
def test_what_argparse_refuses_exits_2(folder, extra, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["compare", *files(folder), *extra])
    assert caught.value.code == 2
    assert "compare" in capsys.readouterr().err.partition("usage: ")[2]


@pytest.mark.slow
def test_human_movements_are_told_apart(tmp_path, monkeypatch):
    """BasicMotions (smart-watch acceleration and rotation, 4 activities), 16 recordings of 5 trials each."""
    datasets = pytest.importorskip("sktime.datasets")
    motions, activities = datasets.load_basic_motions(return_X_y=True, return_type="numpy3D")  # (trial, channel, time)
    monkeypatch.chdir(tmp_path)
    for activity in np.unique(activities):
        for k, trials in enumerate(np.split(motions[activities == activity], 4)):
            np.save(tmp_path / f"{activity}_{k}.npy", trials)
    command = [
        "compare",
        *files(tmp_path),
        "--axes",
        "trial,channel,time",
        "--sampling-rate",
        "10",
        "--group-by",
        "name",
    ]
    assert main([*command, "--n-delays", "5", "--rank", "8"]) == 0
    stored = Similarity.load(tmp_path / "results/compare/similarity.nc")
    assert auroc(stored, [label.split("_")[0] for label in stored.labels]) >= 0.75
