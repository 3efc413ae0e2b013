"""Spikes: conditions on tables select exactly the rows they are true for, windows and bins hold exactly their spikes.

tests/reference/trials.nwb was written by pynwb 4.2.0 (hdmf 6.2.0): three trials of 1, 1.5 and 1 s from 1, 3 and 5 s;
unit 0 fires every 10 ms, unit 1 once in the middle of each trial, unit 2 in none.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from dsa_analysis import DataError, load_recording
from dsa_analysis.recordings.spikes import select

NWB = Path(__file__).parents[1] / "reference" / "trials.nwb"


def write_nwb(path: Path, spikes: list[np.ndarray], trials: Mapping[str, Any], **units: Any) -> Path:
    """A file of NWB 2 with the least it needs."""
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.6.0"
        file["units/id"] = np.arange(len(spikes))
        file["units/spike_times"] = np.concatenate(spikes)
        file["units/spike_times_index"] = np.cumsum([len(times) for times in spikes])
        for table, columns in (("units", units), ("intervals/trials", trials)):
            for name, column in columns.items():
                file[f"{table}/{name}"] = column
        file["intervals/trials/id"] = np.arange(len(next(iter(trials.values()))))
    return path


REGULAR = [np.arange(0.005, 9, 0.01), np.array([0.5])]
TIMES = {"start_time": [1.0, 3.0, 5.0], "stop_time": [2.0, 4.5, 7.0]}


# ---- conditions ------------------------------------------------------------------------------------------------------

TABLE = pd.DataFrame(
    {
        "correct": np.array([0, 0, 1], np.uint8),
        "flag": [False, True, True],
        "depth": [1.5, np.nan, 2.5],
        "rule": ["go", "anti", "go"],
        "with space": [1, 2, 3],
        "id": [0, 1, 2],
    }
)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("correct == 1", [2]),
        ("flag", [1, 2]),
        ("not flag", [0]),
        ("~flag", [0]),
        ("correct == 1 and flag", [2]),
        ("correct or flag", None),
        ("depth > 2", [2]),
        ("depth == depth", [0, 2]),
        ("rule == 'go'", [0, 2]),
        ("rule in ['go', 'stop']", [0, 2]),
        ("rule.str.startswith('an')", [1]),
        ("`with space` > 1", [1, 2]),
        ("id == 0 or id == 2", [0, 2]),
        ("index > 0", [1, 2]),
        (None, [0, 1, 2]),
        # no conditions: none of these is true or false in each row
        ("correct", None),
        ("id", None),
        ("correct + id", None),
        ("~correct", None),
        ("depth", None),
        ("rule", None),
        ("1", None),
        ("True", None),
        ("correct.sum() == 1", None),
        ("[True, False, True]", None),
        ("flag[:2]", None),
        ("correct = 1", None),
        ("correct == 1; flag", None),
        ("@np.array([1])", None),
        ("@TABLE.correct == 1", None),
        ("__import__('os')", None),
        ("flag and id", None),
        ("id or not flag", None),
        ("rule == 'go' or 'anti'", None),
        ("correct == 1 or 2", None),
        ("flag & 2", None),
        ("flag and rule", None),
        ("(flag and id) == 1", None),
        ("1 <= id < 2", [1]),
        ("not (flag and id == 1)", [0, 2]),
        ("`with space` == 3 and `rule` == 'go'", [2]),
        ("correct == 1 & flag", [2]),  # pandas takes & for "and"
        ("id % 2 == 0 | flag", [0, 1, 2]),
        ("id == 9007199254740993", None),
        ("missing == 1", None),
        ("", None),
        (1, None),
    ],
)
def test_conditions_select_exactly_the_rows_they_are_true_for(condition, rows):
    if rows is not None:
        assert np.flatnonzero(select(TABLE, condition, "trials", "a.nwb")).tolist() == rows
        return
    with pytest.raises(DataError, match=r"^a.nwb: trials = ") as caught:
        select(TABLE, condition, "trials", "a.nwb")
    assert "\n" not in str(caught.value)


def test_a_column_of_zeros_and_ones_is_refused_with_the_condition_that_was_meant(tmp_path):
    columns = TIMES | {"correct": np.array([0, 0, 1], np.uint8)}
    path = write_nwb(tmp_path / "a.nwb", REGULAR, columns, good=np.array([1, 0]))
    with pytest.raises(DataError, match=r"'correct' is no condition, since it gives numbers .* such as 'correct == 1'"):
        load_recording(path, sampling_rate=100, trials="correct")
    with pytest.raises(DataError, match=r"units = 'good': 'good' is no condition.* such as 'good == 1'"):
        load_recording(path, sampling_rate=100, units="good")
    found = load_recording(path, sampling_rate=100, trials="correct == 1", units="good == 1")
    assert [trial.shape for trial in found.trials] == [(200, 1)]
    assert (found.settings["n_trials"], found.settings["n_units"]) == ("1 of 3", "1 of 2")


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [["stop_time"], ["start_time"], ["start_time", "stop_time"]])
def test_windows_need_no_times_of_trials(missing, tmp_path):
    columns = {name: column for name, column in TIMES.items() if name not in missing} | {"go": [1.5, 3.5, 5.5]}
    path = write_nwb(tmp_path / "a.nwb", REGULAR, columns)
    found = load_recording(path, sampling_rate=100, align_to="go", window=(0, 0.5))
    assert [trial.shape for trial in found.trials] == [(50, 2)] * 3
    with pytest.raises(DataError, match=f"no times {' and '.join(missing)}; columns are .*; say align_to"):
        load_recording(path, sampling_rate=100)


def replace(name: str, value: Any) -> Any:
    def spoil(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (replace("units/spike_times_index", None), "has no units/spike_times_index"),
        (replace("units/spike_times_index", [900, 850]), "does not divide the 901 spike_times among the units"),
        (replace("units/spike_times_index", [850, 900]), "does not divide the 901 spike_times"),
        (replace("units/spike_times_index", np.array([901], np.uint64)), "does not divide"),
        (replace("units/spike_times_index", [899.5, 901.0]), "does not divide"),
        (replace("units/id", None), "the table units has no column id"),
        (replace("intervals/trials/id", 3), "the table intervals/trials has no column id"),
        (replace("units/spike_times", h5py.ExternalLink("other.h5", "/x")), "is a link to another file"),
        (replace("units", h5py.ExternalLink("other.h5", "/units")), r"is a link to another file \(other.h5\)"),
        (replace("units/spike_times", h5py.Empty("f8")), "units/spike_times: empty"),
        (replace("units/spike_times", h5py.SoftLink("/units/spike_times")), "has no units with spike times"),
        (replace("intervals", h5py.SoftLink("/nowhere")), "has no trials"),
        (lambda file: file["units/spike_times"].__setitem__(900, np.nan), "unit 1: the time of spike 0 is nan"),
        (lambda file: file["intervals/trials/stop_time"].__setitem__(1, 1e300), "bins of 10 ms would take"),
        (lambda file: file["intervals/trials/stop_time"].__setitem__(1, np.inf), r"trials 1 hold no bin of 10 ms, or"),
    ],
)
def test_tables_that_say_less_than_is_needed_are_refused(spoil, message, tmp_path):
    path = write_nwb(tmp_path / "a.nwb", REGULAR, TIMES)
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(DataError, match=message):
        load_recording(path, sampling_rate=100)


def test_columns_that_cannot_be_used_hinder_no_others(tmp_path):
    path = write_nwb(tmp_path / "a.nwb", REGULAR, TIMES)
    with h5py.File(path, "r+") as file:
        file["intervals/trials/elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        file["intervals/trials/pairs"] = np.zeros((3, 2))
        file["intervals/trials/tags"], file["intervals/trials/tags_index"] = np.arange(5), [1, 3, 5]
    assert len(load_recording(path, sampling_rate=100, trials="start_time > 2").trials) == 2
    for name, why in {
        "elsewhere": "is a link to another file",
        "pairs": "not one value a row",
        "tags": "several",
    }.items():
        with pytest.raises(DataError, match=rf"columns are id, start_time, stop_time \(not usable: .*{name}: .*{why}"):
            load_recording(path, sampling_rate=100, trials=f"{name} == 1")


def test_units_that_were_not_observed_are_warned_about(tmp_path, recwarn):
    path = write_nwb(tmp_path / "a.nwb", REGULAR, TIMES)
    with h5py.File(path, "r+") as file:
        file["units/obs_intervals"] = [[0.0, 4.5], [5.0, 9.0], [0.0, 4.0]]
        file["units/obs_intervals_index"] = [2, 3]
    with pytest.warns(UserWarning, match=r"1 of 2 units were not observed during some trials .*unit 1 in 2 of 3"):
        load_recording(path, sampling_rate=100)
    recwarn.clear()
    load_recording(path, sampling_rate=100, units="id == 0")
    load_recording(path, sampling_rate=100, trials="stop_time < 3")
    assert not recwarn.list


def test_links_within_the_file_are_followed(tmp_path):
    path = write_nwb(tmp_path / "a.nwb", REGULAR, TIMES)
    expected = load_recording(path, sampling_rate=100).trials
    with h5py.File(path, "r+") as file:
        file.move("units/spike_times", "stored")
        file["units/spike_times"] = h5py.SoftLink("/stored")
    np.testing.assert_array_equal(load_recording(path, sampling_rate=100).trials[2], expected[2])


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"window": 1.0}, r"window = 1.0 is no pair of times in s"),
        ({"window": (0, 1, 2)}, "is no pair of times in s"),
        ({"window": "ab"}, "is no pair of times in s"),
        ({"window": (0, np.nan)}, "window = nan is not a pair of times in s"),
        ({"window": (0, "1")}, "window = '1' is not a pair of times in s"),
        ({"window": (0, 1e15)}, "bins of 10 ms would take"),
        ({"window": (0, 1), "smooth": 10**12}, r"smooth = 1e\+12 ms is longer than the longest trial \(1000 ms\)"),
        ({"window": (0, 1), "sampling_rate": 1e300}, "would take .* GiB of memory"),
        ({"window": (0, 1), "trials": 1}, r"trials = 1 is no text"),
    ],
)
def test_absurd_windows_are_refused_by_name_at_once(choices, message, tmp_path):
    path = write_nwb(tmp_path / "a.nwb", REGULAR, TIMES)
    with pytest.raises(DataError, match=message):
        load_recording(path, **{"sampling_rate": 100, "align_to": "start_time", **choices})


def test_windows_are_kept_as_numbers_of_python(tmp_path):
    path = write_nwb(tmp_path / "a.nwb", REGULAR, TIMES)
    found = load_recording(path, sampling_rate=100, align_to="start_time", window=np.array([0, 0.5], np.float32))
    assert found.settings["window"] == (0.0, 0.5)
    assert all(type(time) is float for time in found.settings["window"])


# ---- counts ----------------------------------------------------------------------------------------------------------


def test_spikes_are_counted_within_trials():
    found = load_recording(NWB, sampling_rate=100)
    assert [trial.shape for trial in found.trials] == [(100, 3), (150, 3), (100, 3)]
    for trial in found.trials:
        assert (trial[:, 0] == 100).all()  # a spike in each bin of 10 ms, in Hz
        assert trial[:, 1].sum() == 100  # one spike
        assert trial[len(trial) // 2, 1] == 100  # in the middle
        assert not trial[:, 2].any()


def test_smoothed_rates_have_no_edges():
    """Unit 0 fires at 100 Hz before, during and after each trial, so its rate is that at the first bin as well."""
    for trial in load_recording(NWB, sampling_rate=100, smooth=50).trials:
        np.testing.assert_allclose(trial[:, 0], 100, rtol=1e-12)
        assert trial[:, 1].max() == pytest.approx(1 / (0.05 * np.sqrt(2 * np.pi)), rel=1e-3)  # sampled, cut at 4 s.d.
        assert trial[:, 1].sum() / 100 == pytest.approx(1, abs=1e-9)  # one spike; the trial is 20 s.d. long


def test_trials_units_and_windows_are_chosen_by_the_tables():
    found = load_recording(
        NWB, sampling_rate=100, align_to="go_cue", window=(-0.2, 0.3), trials="rule == 'fdgo' and correct and id == 0",
        units="area == 'PFC'",
    )  # fmt: skip
    assert [trial.shape for trial in found.trials] == [(50, 2)]
    assert found.trials[0][:, 1].argmax() == 20  # the spike 5 ms after the cue
    assert found.settings["window"] == (-0.2, 0.3)
    assert found.settings["units"] == "area == 'PFC'"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"sampling_rate": None}, "spikes have no sampling rate; say at which to count them"),
        ({"variable": "units"}, "variable = 'units' is for arrays, such as those of .npy, .npz and .mat files only"),
        ({"align_to": "go_cue"}, "align_to and window belong together"),
        ({"align_to": "go_cu", "window": (0, 1)}, "did you mean 'go_cue'"),
        ({"align_to": "rule", "window": (0, 1)}, "align_to = 'rule' is none of"),
        ({"align_to": "go_cue", "window": (0, 1)}, r"trials 2 hold no bin of 10 ms, or lack a time \(trial 2: nan"),
        ({"align_to": "go_cue", "window": (1, 0)}, r"window = \(1, 0\) ends before it begins"),
        ({"trials": "correct == 7"}, "trials = 'correct == 7' leaves none of 3"),
        ({"units": "depth > 3"}, r"units = 'depth > 3' cannot be answered \(.*columns are area, id"),
        ({"sampling_rate": 0.5}, "trials 0, 1, 2 hold no bin of 2000 ms"),
    ],
)
def test_what_does_not_fit_spikes_is_refused(choices, message):
    with pytest.raises(DataError, match=message):
        load_recording(NWB, **{"sampling_rate": 100, **choices})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda file: file.__delitem__("intervals"),
            r"has no trials \(the table intervals/trials is missing or empty\)",
        ),
        (lambda file: file.__delitem__("units"), "has no units with spike times"),
        (lambda file: file["units/spike_times"].__setitem__(5, 0.001), r"unit 0: spike times do not rise at spike 5"),
        (
            lambda file: file.attrs.__setitem__("nwb_version", "1.0.6"),
            "NWB version is 1.0.6; files of version 2 are read",
        ),
        (
            lambda file: file["intervals/trials/stop_time"].__setitem__(1, 2.5),
            r"trials 1 hold no bin of 10 ms.*3 to 2.5 s",
        ),
    ],
)
def test_broken_nwb_files_are_refused(spoil, message, tmp_path):
    path = Path(shutil.copy(NWB, tmp_path / "a.nwb"))
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(DataError, match=message):
        load_recording(path, sampling_rate=100)
