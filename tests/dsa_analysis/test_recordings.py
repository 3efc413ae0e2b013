"""Recordings: every kind of file gives the same system, every choice is kept, every doubt is an error that says so."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from scipy.ndimage import gaussian_filter1d

from dsa_analysis import DataError, compare, load_recording, load_recordings, omit_trials

NWB = Path(__file__).parents[1] / "reference" / "trials.nwb"


@pytest.fixture
def trials() -> np.ndarray:
    """Random walks, (4, 50, 3), so that time is the smooth axis."""
    return np.random.default_rng(0).standard_normal((4, 50, 3)).cumsum(1)


def save_mat73(path: Path, **variables: np.ndarray | list[np.ndarray]) -> None:
    """As MATLAB's -v7.3 does: HDF5 behind a block of text, axes reversed, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            if isinstance(value, list):
                cells = [file.create_dataset(f"#refs#/{name}{k}", data=cell.T) for k, cell in enumerate(value)]
                for cell in cells:
                    cell.attrs["MATLAB_class"] = np.bytes_("double")
                item = file.create_dataset(name, data=[[c.ref] for c in cells], dtype=h5py.ref_dtype)
                item.attrs["MATLAB_class"] = np.bytes_("cell")
            else:
                item = file.create_dataset(name, data=np.asarray(value).T)
                item.attrs["MATLAB_class"] = np.bytes_("char" if value.dtype == np.uint16 else "double")


def save(path: Path, array: np.ndarray) -> Path:
    match path.name:
        case "a.npy":
            np.save(path, array)
        case "a.npz":
            np.savez(path, rates=array)
        case "v5.mat":
            savemat(path, {"rates": array, "fs": 100.0, "note": "text"})
        case "v73.mat":
            save_mat73(path, rates=array, fs=np.array([[100.0]]), note=np.array([[97]], np.uint16))
    return path


KINDS = ["a.npy", "a.npz", "v5.mat", "v73.mat"]


# ---- files -> trials -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_back_the_trials(kind, tmp_path, trials):
    found = load_recording(save(tmp_path / kind, trials))
    np.testing.assert_array_equal(np.stack(found.trials), trials)
    assert (found.name, found.n_channels, found.sampling_rate) == (kind[: kind.index(".")], 3, None)
    assert found.settings["axes"] == "trial, time, channel"
    assert found.settings["path"] == str(tmp_path / kind)


@pytest.mark.parametrize("kind", KINDS)
def test_axes_are_put_in_order_as_stated(kind, tmp_path, trials):
    path = save(tmp_path / kind, trials.transpose(2, 1, 0))
    for stated in ("channel, time, trial", "channels time trials", "Channel,Time,Trial"):
        np.testing.assert_array_equal(np.stack(load_recording(path, axes=stated).trials), trials)


def test_one_trial_and_one_channel_need_no_axis_of_their_own(tmp_path, trials):
    np.save(tmp_path / "one.npy", trials[0])
    np.save(tmp_path / "single.npy", trials[0, :, 0])
    np.save(tmp_path / "repeated.npy", trials[:, :, 0])
    assert [t.shape for t in load_recording(tmp_path / "one.npy").trials] == [(50, 3)]
    assert [t.shape for t in load_recording(tmp_path / "single.npy").trials] == [(50, 1)]
    repeated = load_recording(tmp_path / "repeated.npy", axes="trial, time")
    assert [t.shape for t in repeated.trials] == [(50, 1)] * 4


@pytest.mark.parametrize("kind", ["v5.mat", "v73.mat"])
def test_matlab_cells_are_trials_of_unequal_length(kind, tmp_path, trials):
    ragged = [trial[: 50 - 5 * k] for k, trial in enumerate(trials)]
    if kind == "v5.mat":
        cells = np.empty((1, 4), object)
        cells[0] = ragged
        savemat(tmp_path / kind, {"trials": cells})
    else:
        save_mat73(tmp_path / kind, trials=ragged)
    found = load_recording(tmp_path / kind)
    assert [len(trial) for trial in found.trials] == [50, 45, 40, 35]
    for trial, expected in zip(found.trials, ragged, strict=True):
        np.testing.assert_array_equal(trial, expected)


def test_pattern_takes_arrays_as_trials_in_natural_order(tmp_path, trials):
    np.savez(tmp_path / "a.npz", **{f"trial_{k}": trials[0, : 50 - k] for k in (10, 2, 1)}, other=np.zeros((5, 2)))
    found = load_recording(tmp_path / "a.npz", variable="trial_*")
    assert [len(trial) for trial in found.trials] == [49, 48, 40]


@pytest.mark.parametrize("dtype", ["i2", "u1", "?", "f2", ">f4", ">f8", "f4", "f8"])
def test_numbers_of_any_kind_become_floating_point(dtype, tmp_path):
    array = (np.random.default_rng(0).standard_normal((30, 2)) > 0).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    (trial,) = load_recording(tmp_path / "a.npy").trials
    assert trial.dtype == (np.float32 if dtype in (">f4", "f4") else np.float64)
    assert trial.dtype.isnative
    np.testing.assert_array_equal(trial, array)


def test_file_stays_as_it_is_and_reading_twice_gives_the_same(tmp_path, trials):
    path = save(tmp_path / "a.npy", trials)
    before = path.read_bytes()
    one, two = (load_recording(path, smooth=5, sampling_rate=1000, zscore=True) for _ in range(2))
    assert path.read_bytes() == before
    np.testing.assert_array_equal(one.trials, two.trials)


# ---- sampling rates --------------------------------------------------------------------------------------------------


def test_sampling_rate_is_stated_or_read_from_the_file(tmp_path, trials):
    np.savez(tmp_path / "a.npz", x=trials, fs=250.0, t=np.arange(50) / 250, name="text")
    for stated in (250, "fs", "t"):
        found = load_recording(tmp_path / "a.npz", variable="x", sampling_rate=stated)
        assert found.sampling_rate == pytest.approx(250)
        assert found.dt == pytest.approx(4)
    np.savez(tmp_path / "b.npz", x=trials, t=np.arange(50) / 250)
    assert load_recording(tmp_path / "b.npz", sampling_rate="t").settings["variable"] == "x"  # the one that is left


def test_times_must_rise_evenly(tmp_path, trials):
    times = np.arange(50) / 100
    swapped, gap = times.copy(), np.where(np.arange(50) > 20, times + 1, times)
    swapped[[7, 8]] = swapped[[8, 7]]
    np.savez(tmp_path / "a.npz", x=trials, swapped=swapped, gap=gap)
    with pytest.raises(DataError, match=r"a.npz, swapped: times do not rise at sample 8 \(0.08 s, then 0.07 s\)"):
        load_recording(tmp_path / "a.npz", variable="x", sampling_rate="swapped")
    with pytest.raises(
        DataError, match=r"a.npz, gap: samples are not evenly spaced: 1.01 s at sample 21, 0.01 s mostly"
    ):
        load_recording(tmp_path / "a.npz", variable="x", sampling_rate="gap")


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), True])
def test_sampling_rate_is_a_positive_number(rate, tmp_path, trials):
    with pytest.raises(DataError, match="is not a positive number of Hz"):
        load_recording(save(tmp_path / "a.npy", trials), sampling_rate=rate)


def test_sampling_rate_names_numbers_of_the_file(tmp_path, trials):
    with pytest.raises(
        DataError, match=r"sampling_rate = 'Fs' names no numbers of this file, which holds rates, fs, note"
    ):
        load_recording(save(tmp_path / "v5.mat", trials), sampling_rate="Fs")


def test_systems_of_different_sampling_rates_are_refused(tmp_path, trials):
    for name, rate in (("a", 100.0), ("b", 200.0)):
        np.savez(tmp_path / f"{name}.npz", x=trials, fs=rate)
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    with pytest.raises(
        DataError, match=r"sampling rates differ: a 100 Hz, b 200 Hz. A step of an operator is a sample"
    ):
        load_recordings(paths, sampling_rate="fs")
    assert [r.sampling_rate for r in load_recordings(paths, sampling_rate=100).values()] == [100, 100]


# ---- processing ------------------------------------------------------------------------------------------------------


def test_smoothing_keeps_a_constant_and_is_a_gaussian_inside(tmp_path):
    array = np.zeros((101, 2))
    array[50, 0], array[:, 1] = 1, 3
    np.save(tmp_path / "a.npy", array)
    (trial,) = load_recording(tmp_path / "a.npy", sampling_rate=1000, smooth=4).trials  # 4 samples
    np.testing.assert_allclose(trial[:, 1], 3, rtol=1e-12)  # up to the very ends
    np.testing.assert_allclose(trial[30:70, 0], gaussian_filter1d(array[:, 0], 4)[30:70], rtol=1e-12)


def test_decimation_takes_means_and_lowers_the_rate(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(22.0).reshape(11, 2))
    found = load_recording(tmp_path / "a.npy", sampling_rate=90, decimate=3)
    np.testing.assert_array_equal(found.trials[0], [[2, 3], [8, 9], [14, 15]])
    assert found.sampling_rate == 30
    assert found.settings["sampling_rate"] == 90  # as it was read
    with pytest.raises(DataError, match=r"a.npy, trial 0 has 11 samples; decimate = 12 leaves none"):
        load_recording(tmp_path / "a.npy", decimate=12)


def test_zscores_are_over_all_trials_and_leave_constant_channels_at_zero(tmp_path, trials):
    trials[:, :, 1] = 0.1
    found = np.concatenate(load_recording(save(tmp_path / "a.npy", trials), zscore=True).trials)
    np.testing.assert_allclose(found[:, [0, 2]].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(found[:, [0, 2]].std(0), 1, rtol=1e-12)
    assert not found[:, 1].any()


@pytest.mark.parametrize("constant", [0.1, 14.62, -3.7, 100.0])
@pytest.mark.parametrize("choices", [{"smooth": 20}, {"decimate": 3}, {"smooth": 35, "decimate": 2}])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_constant_channels_stay_at_zero_after_arithmetic(constant, choices, dtype, tmp_path, trials):
    trials[:, :, 1] = constant
    path = save(tmp_path / "a.npy", trials.astype(dtype))
    found = np.concatenate(load_recording(path, sampling_rate=100, zscore=True, **choices).trials)
    assert not found[:, 1].any()
    np.testing.assert_allclose(found[:, [0, 2]].std(0), 1, rtol=1e-5)  # rounding in float32


def test_zscores_keep_small_variation_around_a_large_offset(tmp_path, trials):
    path = save(tmp_path / "a.npy", 1e6 + 1e-3 * trials)
    found = np.concatenate(load_recording(path, smooth=20, sampling_rate=100, zscore=True).trials)
    np.testing.assert_allclose(found.std(0), 1, rtol=1e-6)


@pytest.mark.parametrize("smooth", [10**12, 1e300, 10**5000, 501], ids=["10^12", "10^300", "5001 digits", "501"])
def test_smoothing_beyond_the_trial_is_refused_at_once(smooth, tmp_path, trials):
    with pytest.raises(DataError, match=r"smooth = .*( is longer than the longest trial \(500 ms\)|is not a time)"):
        load_recording(save(tmp_path / "a.npy", trials), sampling_rate=100, smooth=smooth)


def test_settings_are_numbers_of_python_whatever_came(tmp_path, trials):
    given = {"smooth": np.float32(20), "decimate": np.int64(2), "zscore": np.True_, "sampling_rate": np.int16(100)}
    found = load_recording(save(tmp_path / "a.npy", trials), **given)
    assert json.loads(json.dumps(found.settings)) == found.settings
    assert type(found.sampling_rate) is float


def test_repr_is_a_line(tmp_path, trials):
    found = load_recording(save(tmp_path / "a.npy", trials))
    assert repr(found) == "<Recording a: 4 trials x 50 samples x 3 channels, sampling rate unknown>"


def test_choices_are_kept(tmp_path, trials):
    settings = load_recording(
        save(tmp_path / "v5.mat", trials), variable="rates", sampling_rate="fs", smooth=20, decimate=2, zscore=True
    ).settings
    kept = {"variable": "rates", "axes": "trial, time, channel", "sampling_rate": 100, "smooth": 20, "decimate": 2}
    assert settings == kept | {"zscore": True, "keep_non_finite": False, "path": str(tmp_path / "v5.mat")}


def test_recordings_go_straight_into_compare(tmp_path, trials):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", trials)
    similarity = compare(load_recordings(sorted(tmp_path.glob("*.npy"))), n_delays=2, rank=3, progress=False)
    assert similarity.labels == ("a", "b")
    assert similarity.distances[0, 1] < 1e-7  # equal data, one fit each


def test_names_are_as_short_as_they_can_be(tmp_path, trials):
    paths = [tmp_path / day / name / "rates.npy" for day in ("mon", "tue") for name in ("x", "y")]
    for path in paths:
        path.parent.mkdir(parents=True)
        np.save(path, trials)
    assert list(load_recordings(paths[:2])) == ["x/rates", "y/rates"]
    assert list(load_recordings(paths)) == ["mon/x/rates", "mon/y/rates", "tue/x/rates", "tue/y/rates"]
    with pytest.raises(DataError, match=r"mon/x/rates.npy was given twice"):
        load_recordings([paths[0], paths[1], paths[0]])


# ---- what must be refused --------------------------------------------------------------------------------------------


def test_unknown_missing_and_empty_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"a.csv: files '.csv' are not read; accepted are .npy, .npz, .mat, .nwb"):
        load_recording(tmp_path / "a.csv")
    with pytest.raises(DataError, match="files without ending are not read"):
        load_recording(tmp_path / "data")
    with pytest.raises(DataError, match=r"a.npy: no such file"):
        load_recording(tmp_path / "a.npy")
    for kind in ("npy", "npz", "mat", "nwb"):
        (tmp_path / f"a.{kind}").touch()
        with pytest.raises(DataError, match=rf"a.{kind} is empty \(0 bytes\)"):
            load_recording(tmp_path / f"a.{kind}", sampling_rate=1)


@pytest.mark.parametrize("kind", ["npy", "npz", "mat", "nwb"])
@pytest.mark.parametrize("damage", ["garbage", "cut"])
def test_damaged_files_are_refused(kind, damage, tmp_path, trials):
    path = tmp_path / f"a.{kind}"
    if damage == "garbage":
        path.write_bytes(b"this is no recording " * 50)
    else:
        whole = NWB if kind == "nwb" else save(tmp_path / {"mat": "v5.mat"}.get(kind, path.name), trials)
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"a.{kind} is damaged, or no .{kind} file"):
        load_recording(path, sampling_rate=100)


def test_archive_under_another_name_is_refused(tmp_path, trials):
    np.savez(tmp_path / "a.npz", trials)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"a.npy is a zip archive, as .npz files are; rename it to a.npz"):
        load_recording(tmp_path / "a.npy")


def test_python_objects_are_not_read(tmp_path):
    objects = np.array([np.zeros(3), np.zeros(2)], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", trials=objects)
    for kind in ("npy", "npz"):
        with pytest.raises(
            DataError, match=r"holds no array of real numbers; there is: .*Python objects, which only unsafe"
        ):
            load_recording(tmp_path / f"a.{kind}")


@pytest.mark.parametrize("kind", ["a.npz", "v5.mat", "v73.mat"])
def test_of_several_arrays_one_has_to_be_named(kind, tmp_path, trials):
    variables = {"rates": trials, "position": trials[0, :, :2], "fs": np.array([[100.0]])}
    {"a.npz": np.savez, "v5.mat": lambda path, **v: savemat(path, v), "v73.mat": save_mat73}[kind](
        tmp_path / kind, **variables
    )
    listed = r"holds several arrays: .*rates \(4 x 50 x 3, float64\).* Say which one by variable, such as "
    with pytest.raises(DataError, match=listed) as caught:
        load_recording(tmp_path / kind)
    assert "position (50 x 2, float64)" in str(caught.value)
    with pytest.raises(DataError, match=r"holds no array of real numbers 'rate', but: .*did you mean 'rates'\?"):
        load_recording(tmp_path / kind, variable="rate")
    assert len(load_recording(tmp_path / kind, variable="rates").trials) == 4


def test_structs_and_complex_numbers_are_described(tmp_path):
    savemat(tmp_path / "a.mat", {"session": {"rates": np.zeros((3, 4)), "fs": 1.0}, "z": np.ones((3, 2)) * 1j})
    with pytest.raises(DataError, match=r"session \(struct with fields rates, fs\), z \(3 x 2, complex128\)"):
        load_recording(tmp_path / "a.mat")


def test_time_shorter_than_channels_is_asked_about(tmp_path):
    array = np.random.default_rng(0).standard_normal((80, 20)).cumsum(0)
    np.save(tmp_path / "a.npy", array.T)
    with pytest.raises(
        DataError, match=r"20 samples of 80 channels. Is time on another axis\? Say axes = 'channel, time'"
    ):
        load_recording(tmp_path / "a.npy")
    assert load_recording(tmp_path / "a.npy", axes="channel, time").trials[0].shape == (80, 20)
    assert load_recording(tmp_path / "a.npy", axes="time, channel").trials[0].shape == (20, 80)


def test_time_rougher_than_channels_is_warned_about(tmp_path, recwarn):
    array = np.random.default_rng(0).standard_normal((5, 30, 40)).cumsum(2)  # time is last
    np.save(tmp_path / "a.npy", array[..., :25])
    with pytest.warns(
        UserWarning, match="values change more smoothly across channels than over time; say axes = 'trial, ch"
    ):
        load_recording(tmp_path / "a.npy")
    recwarn.clear()
    load_recording(tmp_path / "a.npy", axes="trial, channel, time")
    load_recording(tmp_path / "a.npy", axes="trial, time, channel")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("trial, tme, channel", "did you mean 'time'"),
        ("trial, channel", "one of them is time"),
        ("time, time, channel", "each axis has one name"),
        ("time, channel", "axes = 'time, channel' are 2, but .* has 3 axes"),
    ],
)
def test_axes_that_do_not_fit_are_refused(axes, message, tmp_path, trials):
    with pytest.raises(DataError, match=message):
        load_recording(save(tmp_path / "a.npy", trials), axes=axes)


def test_four_axes_and_no_samples_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(DataError, match="has 4 axes; accepted are trial, time, channel"):
        load_recording(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros((0, 4, 3)))
    with pytest.raises(DataError, match=r"holds no array of real numbers; there is: \(0 x 4 x 3, float64\)"):
        load_recording(tmp_path / "b.npy")


def test_smoothing_over_nan_names_the_place(tmp_path, trials):
    trials[2, 30:32, 1] = np.nan
    path = save(tmp_path / "a.npy", trials)
    with pytest.raises(DataError, match=r"channel 1: 2 non-finite values, first at sample 30 .*; load with keep_non_"):
        load_recording(path, smooth=20, sampling_rate=100)


def test_trials_with_nan_are_kept_where_asked_and_change_no_other(tmp_path, trials):
    """Smoothed, thinned and z-scored as if they were not there, then left out."""
    spoilt = trials.copy()
    spoilt[2, 30:32, 1] = np.nan
    choices = {"smooth": 20, "sampling_rate": 100, "decimate": 2, "zscore": True}
    kept = load_recordings([save(tmp_path / "a.npy", spoilt)], keep_non_finite=True, **choices)
    with pytest.warns(UserWarning, match="trials left out: 1 of .* of 'a'"):
        found = omit_trials(kept, non_finite=True)["a"]
    expected = load_recording(save(tmp_path / "a.npy", np.delete(trials, 2, axis=0)), **choices)
    np.testing.assert_array_equal(found.trials, expected.trials)
    assert found.settings["omitted_trials"] == [2]
    assert len(kept["a"].trials) == len(trials)
    assert (found.name, found.sampling_rate) == ("a", 50)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"smooth": 20}, "smooth = 20 ms needs a sampling rate; give sampling_rate in Hz"),
        ({"smooth": -1, "sampling_rate": 1}, "smooth = -1 is not a time in ms of at least 0"),
        ({"decimate": 10**14}, "decimate = 100000000000000 is not a whole number of at least 1 and at most 1000000000"),
        ({"decimate": 10**20}, "decimate = 100000000000000000000 is not a whole number of at least 1 and at most"),
        ({"zscore": "no"}, "zscore = 'no' is neither True nor False"),
        ({"variable": 3}, "variable = 3 is no text"),
        ({"decimate": 0}, "decimate = 0 is not a whole number of at least 1"),
        ({"units": "area == 'PFC'"}, "units = .* is for spikes, such as those of .nwb files only"),
    ],
)
def test_choices_that_do_not_fit_are_refused(choices, message, tmp_path, trials):
    with pytest.raises(DataError, match=message):
        load_recording(save(tmp_path / "a.npy", trials), **choices)
