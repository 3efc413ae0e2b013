"""Readers of files: nothing is read beyond what a file says, and a format of one's own is one line."""

import contextlib
import errno
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io.matlab
import xarray as xr
from scipy.io import loadmat, savemat

from dsa_analysis import DataError, Similarity, compare, load_recording, load_recordings
from dsa_analysis.recordings import READERS, SpikeTrains
from dsa_analysis.recordings.readers import read


@pytest.fixture
def trials() -> np.ndarray:
    """Random walks, (4, 50, 3), so that time is the smooth axis."""
    return np.random.default_rng(0).standard_normal((4, 50, 3)).cumsum(1)


@contextlib.contextmanager
def mat73(path: Path) -> Iterator[Callable[..., h5py.Dataset]]:
    """Write variables as MATLAB's -v7.3 does; `values` of None is a null dataspace."""
    with h5py.File(path, "w", userblock_size=512) as file:

        def write(name: str, values: Any, kind: str | None = "double", **options: Any) -> h5py.Dataset:
            item = file.create_dataset(
                name, data=h5py.Empty("f8") if values is None else np.asarray(values).T, **options
            )
            if kind is not None:
                item.attrs["MATLAB_class"] = np.bytes_(kind)
            return item

        yield write


def write_cells(write: Callable[..., h5py.Dataset], name: str, cells: list[np.ndarray], shape: tuple[int, int]) -> None:
    references = []
    for k, cell in enumerate(cells):
        item = write(f"#refs#/{name}{k}", cell if cell.size else np.array(cell.shape, np.uint64))
        if not cell.size:
            item.attrs["MATLAB_empty"] = np.uint8(1)
        references.append(item.ref)
    grid = np.empty(len(cells), object)
    grid[:] = references
    write(name, grid.reshape(shape, order="F"), "cell", dtype=h5py.ref_dtype)


# ---- the table of readers --------------------------------------------------------------------------------------------


@pytest.fixture
def registered() -> Iterator[dict[str, Any]]:
    before = dict(READERS)
    yield READERS
    READERS.clear()
    READERS.update(before)


RETURNED = {
    "array": lambda x: x,
    "tuple of trials": lambda x: tuple(x),
    "mapping": lambda x: {"rates": x, "note": "text"},
    "named dimensions": lambda x: xr.DataArray(x.transpose(2, 0, 1), dims=("unit", "trial", "time")),
    "memory map": lambda x: np.asarray(x).view(np.memmap),
}


@pytest.mark.parametrize("kind", RETURNED)
def test_reader_of_ones_own_is_one_line(kind, registered, tmp_path, trials):
    registered[".Own.gz"] = lambda path: RETURNED[kind](trials)
    (tmp_path / "monday.own.gz").write_text("x")
    found = load_recordings([tmp_path / "monday.own.gz"], sampling_rate=100)["monday"]
    np.testing.assert_array_equal(np.stack(found.trials), trials)


def test_spikes_may_come_from_a_reader_of_ones_own(registered, tmp_path):
    import pandas as pd

    table = pd.DataFrame({"start_time": [0.0, 2.0], "stop_time": [1.0, 3.0]})
    times = [np.arange(0.005, 3, 0.01)]
    registered[".phy"] = lambda path: SpikeTrains(times, pd.DataFrame({"id": [7]}), table)
    (tmp_path / "a.phy").write_text("x")
    found = load_recording(tmp_path / "a.phy", sampling_rate=100)
    assert [trial.shape for trial in found.trials] == [(100, 1)] * 2
    assert all((trial == 100).all() for trial in found.trials)


def test_masked_samples_of_a_reader_are_nan(registered, tmp_path, trials):
    registered[".own"] = lambda path: np.ma.masked_greater(trials, trials[0, 7, 1] - 1e-9) if path else None
    (tmp_path / "a.own").write_text("x")
    with pytest.raises(DataError, match=r"system 'a', trial 0, channel .*non-finite"):
        load_recording(tmp_path / "a.own")


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (lambda path: 3, "the reader returned int; it must return an array, a list of arrays, a mapping"),
        (lambda path: {"a": None}, "a.own, a: the reader returned NoneType"),
        (lambda path: 1 / 0, r"a.own is damaged, or no .own file \(ZeroDivisionError: division by zero\)"),
        (lambda path: np.array([1j, 2]), "holds no array of real numbers"),
        (lambda path: [], "holds no trials|has 0 axes"),
        (lambda path: {}, "holds no array of real numbers; there is: nothing"),
    ],
)
def test_what_a_reader_does_wrong_is_said(reader, message, registered, tmp_path):
    registered[".own"] = reader
    (tmp_path / "a.own").write_text("x")
    with pytest.raises(DataError, match=message):
        load_recording(tmp_path / "a.own")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EAGAIN, "is open in another program, which holds a lock on it; close it there"),
        (errno.EACCES, "may not be read; change its permissions"),
        (errno.ENOLCK, "is on a file system without locks"),
        (errno.EMFILE, "too many files are open"),
        (errno.EIO, "cannot be read from its disk or network drive at present"),
        (errno.ESTALE, "is no longer there for its network drive"),
    ],
)
def test_errors_of_the_system_are_no_damage(number, message, registered, tmp_path):
    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    registered[".own"] = fail
    (tmp_path / "a.own").write_text("x")
    with pytest.raises(DataError, match=message) as caught:
        load_recording(tmp_path / "a.own")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.mat", "similarity.nc"])
def test_file_that_another_program_holds_open_is_no_damage(tmp_path, trials, name):
    """Nor is one whose program died: HDF5 leaves a mark of its own in what is open for writing."""
    with mat73(tmp_path / "a.mat") as write:
        write("rates", trials)
    compare([trials, trials[::-1]], metric="procrustes", progress=False).save(tmp_path / "similarity.nc")
    load = load_recording if name == "a.mat" else Similarity.load
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / name)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(DataError, match="is open in another program"):
            load(tmp_path / name)
        other.kill()
    load(tmp_path / name)


def test_libraries_of_formats_are_imported_where_they_are_used():
    code = (
        "import sys, types; package = types.ModuleType('dsa_analysis'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['dsa_analysis'] = package\n"  # without the imports of the other modules
        "import dsa_analysis.recordings\n"
        "print([name for name in ('h5py', 'scipy', 'pandas', 'xarray') if name in sys.modules])"
    )
    folder = str(Path(sys.modules["dsa_analysis"].__file__ or "").parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_home_folder_folders_and_single_paths(tmp_path, trials, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "a.npy", trials)
    assert load_recording("~/a.npy").settings["path"] == str(tmp_path / "a.npy")
    (tmp_path / "b.npy").mkdir()
    with pytest.raises(DataError, match=r"b.npy is a folder; give the files in it"):
        load_recording(tmp_path / "b.npy")
    with pytest.raises(DataError, match="is one path; give a list of paths"):
        load_recordings(str(tmp_path / "a.npy"))
    with pytest.raises(DataError, match="was given twice"):
        load_recordings([tmp_path / "a.npy", tmp_path / "b.npy" / ".." / "a.npy"])


# ---- numpy -----------------------------------------------------------------------------------------------------------


def test_npy_file_of_several_arrays_is_refused(tmp_path, trials):
    with (tmp_path / "a.npy").open("wb") as file:
        np.save(file, trials)
        np.save(file, trials)
    with pytest.raises(DataError, match=r"states 4800 bytes of values, but .* it may hold several arrays"):
        load_recording(tmp_path / "a.npy")


def test_sizes_that_no_memory_holds_are_refused_before_they_are_allocated(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**9)})
    with pytest.raises(DataError, match="states 8000000000000000 bytes of values, but 0 are there"):
        load_recording(tmp_path / "a.npy")
    with h5py.File(tmp_path / "a.mat", "w") as file:
        for chunks in (None, (1000, 1000)):
            item = file.create_dataset(f"x{chunks is None}", (10**6, 10**9), "f8", chunks=chunks)
            item.attrs["MATLAB_class"] = np.bytes_("double")
    with pytest.raises(DataError, match=r"of which 0 bytes were written, not 8\d+"):
        load_recording(tmp_path / "a.mat", variable="xTrue")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            lambda x: x.byteswap(),
            "whose squares overflow; the file is damag",
        ),
        (lambda x: np.full((50, 2), 2**60, "i8") + np.arange(2), "beyond 2\\^53 they are not exact as floats"),
    ],
)
def test_values_that_floats_cannot_hold_are_refused(values, message, tmp_path, trials):
    np.save(tmp_path / "a.npy", values(trials))
    with pytest.raises(DataError, match=message):
        load_recording(tmp_path / "a.npy")


# ---- MATLAB ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["string", "table", "datetime", "categorical", "function_handle", "containers.Map"])
def test_matlab_objects_are_no_numbers(kind, tmp_path, trials):
    with mat73(tmp_path / "a.mat") as write:
        write("note", [[0xDD000000, 2, 1, 1, 1, 1]], kind).attrs["MATLAB_object_decode"] = np.int32(3)
    with pytest.raises(DataError, match=f"holds no array of real numbers; there is: note .object of class {kind}"):
        load_recording(tmp_path / "a.mat")
    with mat73(tmp_path / "b.mat") as write:
        write("note", [[0xDD000000, 2, 1, 1, 1, 1]], kind)
        write("rates", trials)
    assert load_recording(tmp_path / "b.mat").settings["variable"] == "rates"
    with pytest.raises(DataError, match=f"note is no array of real numbers, but: object of class {kind}"):
        load_recording(tmp_path / "b.mat", variable="note")


@pytest.mark.parametrize("kind", ["double", "single", "int8", "uint64", "logical"])
def test_matlab_numbers_of_any_class_are_read(kind, tmp_path, trials):
    with mat73(tmp_path / "a.mat") as write:
        dtype = {"double": "f8", "single": "f4", "logical": "u1"}.get(kind, kind)
        write("rates", (trials > 0).astype(dtype), kind)
    np.testing.assert_array_equal(np.stack(load_recording(tmp_path / "a.mat").trials), trials > 0)


UNREADABLE: dict[str, tuple[Callable[..., Any], str]] = {
    "no class": (lambda write, x: write("y", x, None), "MATLAB_class is missing.*order of its axes is unknown"),
    "null": (lambda write, x: write("y", None), "y is no array of real numbers, but: empty"),
    "soft link": (lambda write, x: link(write, h5py.SoftLink("/rates")), "a link to /rates, which is not followed"),
    "dangling link": (lambda write, x: link(write, h5py.SoftLink("/nothing")), "a link to /nothing"),
    "external link": (
        lambda write, x: link(write, h5py.ExternalLink("/etc/secret.h5", "/x")),
        r"a link to /x in another file \(/etc/secret.h5\), which is not read",
    ),
    "external storage": (
        lambda write, x: write("y", x, external=[("/etc/hostname", 0, x.nbytes)]),
        r"values stored in another file \(/etc/hostname\), which is not read",
    ),
    "never written": (lambda write, x: half(write, x), "of which 2 chunks were written, not 4"),
    "class of others": (lambda write, x: write("y", x, "cell"), "class cell stored as float64"),
    "complex": (lambda write, x: write("y", x.astype("c16")), "complex128"),
}


def link(write: Callable[..., h5py.Dataset], target: Any) -> None:
    write("other", np.zeros((2, 2)), "char").file["y"] = target


def half(write: Callable[..., h5py.Dataset], x: np.ndarray) -> None:
    item = write("other", np.zeros((2, 2)), "char").file.create_dataset("y", x.T.shape, "f8", chunks=(3, 50, 1))
    item.attrs["MATLAB_class"] = np.bytes_("double")
    item[:, :, :2] = x.T[:, :, :2]


@pytest.mark.parametrize("kind", UNREADABLE)
def test_variables_that_hdf5_would_make_up_are_refused_and_spoil_no_others(kind, tmp_path, trials):
    spoil, message = UNREADABLE[kind]
    with mat73(tmp_path / "a.mat") as write:
        write("rates", trials)
        spoil(write, trials)
    found = load_recording(tmp_path / "a.mat", variable="rates")
    np.testing.assert_array_equal(np.stack(found.trials), trials)
    with pytest.raises(DataError, match=message):
        load_recording(tmp_path / "a.mat", variable="y")


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize(
    ("empty", "shape", "message"),
    [
        ([1], (1, 4), r"cell array of 1 x 4, of which 1 hold no matrix of real numbers \(cell 2: empty"),
        ([0, 3], (4, 1), r"cell array of 4 x 1, of which 2 hold no matrix of real numbers \(cell 1: empty"),
        ([], (2, 2), r"cell array of 2 x 2; a list of trials has one row or one column"),
    ],
)
def test_no_cell_is_left_out(version, empty, shape, message, tmp_path, trials):
    cells = [np.zeros((0, 0)) if k in empty else trial for k, trial in enumerate(trials)]
    if version == "5":
        grid = np.empty(4, object)
        grid[:] = cells
        savemat(tmp_path / "a.mat", {"rates": grid.reshape(shape, order="F")})
    else:
        with mat73(tmp_path / "a.mat") as write:
            write_cells(write, "rates", cells, shape)
    with pytest.raises(DataError, match=message):
        load_recording(tmp_path / "a.mat")


@pytest.mark.parametrize("version", ["4", "5", "7.3"])
def test_last_axes_of_length_one_that_matlab_drops_are_put_back(version, tmp_path, trials):
    def save(name: str, array: np.ndarray) -> None:
        if version == "7.3":
            with mat73(tmp_path / name) as write:
                write("rates", array)
        else:
            savemat(tmp_path / name, {"rates": array}, format=version)

    save("one.mat", trials[0].T)
    found = load_recording(tmp_path / "one.mat", axes="channel, time, trial")
    np.testing.assert_array_equal(found.trials, trials[:1])
    save("line.mat", trials[0, :, :1])
    for axes in ("time", "time, channel", "time, trial", "time, channel, trial"):
        np.testing.assert_array_equal(load_recording(tmp_path / "line.mat", axes=axes).trials, trials[:1, :, :1])
    with pytest.raises(DataError, match=r"has axes \(3, 50\), but time were expected"):
        load_recording(tmp_path / "one.mat", axes="time")
    if version != "4":
        save("many.mat", trials)
        save("two.mat", trials[0])
        with pytest.raises(DataError, match=r"axes were not stated and differ .*MATLAB drops a last axis of length 1"):
            load_recordings([tmp_path / "many.mat", tmp_path / "two.mat"])


MATLAB_FILES = sorted((Path(scipy.io.matlab.__file__).parent / "tests" / "data").glob("*.mat"))


@pytest.mark.skipif(not MATLAB_FILES, reason="scipy is installed without the files of its tests")
def test_files_of_matlab_are_read_as_scipy_reads_them():
    """A hundred files that MATLAB 4 to 7.4 wrote, and some that are damaged."""
    n_arrays = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in MATLAB_FILES:
            try:
                expected = loadmat(path)
            except Exception:  # scipy raises whatever the damage leads it to
                continue
            found = read(path)
            for name, value in found.items():
                if isinstance(value, np.ndarray):
                    np.testing.assert_array_equal(value, expected[name], strict=True)
                    n_arrays += 1
            assert found or len(expected) <= 4, path.name
    assert n_arrays > 30


def test_objects_of_version_5_and_text_are_no_numbers(tmp_path, trials):
    savemat(tmp_path / "a.mat", {"rates": trials, "note": "text", "names": np.array(["a", "b"], object)})
    assert load_recording(tmp_path / "a.mat").settings["variable"] == "rates"
    with pytest.raises(DataError, match=r"note is no array of real numbers, but: text"):
        load_recording(tmp_path / "a.mat", variable="note")
    with pytest.raises(DataError, match=r"cell array of 1 x 2, of which 2 hold no matrix .*\(cell 1: text\)"):
        load_recording(tmp_path / "a.mat", variable="names")


# ---- which variable --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rate [Hz]", "a*", "x?", "[x]", "r[0-9]"])
def test_a_name_is_no_pattern(name, tmp_path, trials):
    np.savez(
        tmp_path / "a.npz", **{name: trials, "abc": trials[:1], "r1": trials[:1], "x": trials[:1], "xy": trials[:1]}
    )
    found = load_recording(tmp_path / "a.npz", variable=name)
    assert (found.settings["variable"], len(found.trials)) == (name, 4)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            np.zeros((0, 3)),
            r"1 of the 3 variables that 'trial_\*' fits hold no array .* first trial_3 \(0 x 3, float64\)",
        ),
        (np.array("bad"), r"first trial_3 \(one, <U3\)"),
        (np.ones((5, 3)) * 1j, r"first trial_3 \(5 x 3, complex128\)"),
        (np.ones((5, 2)), r"trial 1 has 2 channels, trial 0 has 3"),
        (np.ones((5, 3, 2)), r"trial 1 has axes \(5, 3, 2\), but time, channel were expected"),
    ],
)
def test_no_variable_that_a_pattern_fits_is_left_out(value, message, tmp_path, trials):
    np.savez(tmp_path / "a.npz", trial_1=trials[0], trial_3=value, trial_20=trials[1])
    with pytest.raises(DataError, match=message):
        load_recording(tmp_path / "a.npz", variable="trial_*")


def test_trial_of_one_sample_counts_and_the_sampling_rate_is_no_trial(tmp_path):
    np.savez(tmp_path / "a.npz", t_1=np.ones((9, 1)), t_2=np.ones((1, 1)), t_fs=100.0)
    found = load_recording(tmp_path / "a.npz", variable="t_*", sampling_rate="t_fs")
    assert [len(trial) for trial in found.trials] == [9, 1]
    np.savez(tmp_path / "b.npz", t=np.arange(9.0))
    with pytest.raises(DataError, match="'t' was named as the sampling rate"):
        load_recording(tmp_path / "b.npz", sampling_rate="t")
