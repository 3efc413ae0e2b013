"""Files of recordings -> systems: .npy, .npz, .mat and .nwb, every choice on the way stated and kept.

    recordings = load_recordings(["monday.mat", "tuesday.mat"], variable="rates", axes="channel, time, trial",
                                 sampling_rate=100, smooth=20)
    similarity = compare(recordings, n_delays=10, rank=10)

What a file does not say is asked for: which of several arrays, which axis is time where its lengths leave doubt, the
sampling rate where milliseconds are spoken of. Processing happens in the order smooth, decimate, zscore, and only as
far as asked for.
"""

import math
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from scipy.ndimage import gaussian_filter1d

from dsa_analysis.data import DataError, check_choice, check_count, refuse_non_finite

AXES = ("trial", "time", "channel")
UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, zipfile.BadZipFile, MatReadError)


@dataclass(frozen=True)
class Recording:
    """One recorded system, as `compare` takes it.

    Attributes
    ----------
    name : str
    trials : list of (n_times_i, n_channels)
        Floating point; rates in Hz where they come from spikes.
    sampling_rate : float or None
        Samples a second after decimation; None where neither the file nor the caller said.
    settings : dict
        Where it came from and every choice that was made, stated or taken by default.
    """

    name: str
    trials: list[np.ndarray]
    sampling_rate: float | None
    settings: dict[str, Any]

    @property
    def n_channels(self) -> int:
        return self.trials[0].shape[1]

    @property
    def dt(self) -> float | None:
        """Sampling interval in ms."""
        return 1000 / self.sampling_rate if self.sampling_rate else None

    def __str__(self) -> str:
        lengths = sorted({len(trial) for trial in self.trials})
        samples = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
        rate = f"{self.sampling_rate:g} Hz" if self.sampling_rate else "sampling rate unknown"
        return f"{self.name}: {len(self.trials)} trials x {samples} samples x {self.n_channels} channels, {rate}"


def load_recording(
    path: str | Path,
    *,
    name: str | None = None,
    variable: str | None = None,
    axes: str | None = None,
    sampling_rate: float | str | None = None,
    smooth: float = 0.0,
    decimate: int = 1,
    zscore: bool = False,
    keep_non_finite: bool = False,
    align_to: str | None = None,
    window: tuple[float, float] | None = None,
    trials: str | None = None,
    units: str | None = None,
) -> Recording:
    """Read one system from a file.

    Parameters
    ----------
    path : .npy, .npz, .mat (of any version, MATLAB's axis order) or .nwb (2.x, HDF5)
        No pickled objects are read. A MATLAB cell array of matrices is a list of trials.
    name : str, optional
        Label of the system; by default the file's name without its ending.
    variable : str, optional
        Which array of an .npz or .mat file; needed where there are several. A pattern such as "trial_*" takes all that
        it fits, in natural order, as trials of unequal length.
    axes : str, optional
        What the axes are, such as "channel, time, trial"; "trial" and "channel" may be missing. By default
        (trial, time, channel), (time, channel) or (time), refused if time would then be shorter than channels.
    sampling_rate : float or str, optional
        In Hz, or the name of a variable of the file: a number in Hz, or the times of the samples in seconds, evenly
        spaced. For .nwb it is needed: the rate at which spikes are counted.
    smooth : float >= 0, in ms
        Standard deviation of a Gaussian along time. At the ends of a trial of an array the weights of what is there are
        scaled to one; for spikes of an .nwb file the recording goes on beyond the trial, and is used there.
    decimate : int >= 1
        Replace each run of so many samples by its mean; a shorter rest at the end of a trial goes.
    zscore : bool
        Bring each channel to mean 0 and variance 1 over all its samples. Constant channels stay at 0. Gains of channels
        change distances: with z-scores each channel has the same say, without them the ones that vary most lead.
    keep_non_finite : bool
        Let trials pass that hold NaN or infinity, for `omit_trials` to leave out; z-scores come from the other trials.
    align_to, window : str, (float, float) in s, optional
        .nwb only: trials from window[0] to window[1] around this column of times of the trial table. By default from
        start_time to stop_time.
    trials, units : str, optional
        .nwb only: which rows of the two tables to use, as in `pandas.DataFrame.query`: "correct == 1".

    Raises
    ------
    DataError
        A file that is missing, empty, damaged, of an unknown kind or without usable numbers; choices that it needs or
        that do not fit; times that do not rise. The message names file, variable and place.
    """
    path = Path(path)
    _refuse_unreadable(path)
    check_count("decimate", decimate)
    if isinstance(smooth, (bool, str)) or not 0 <= smooth < math.inf:
        raise DataError(f"smooth = {smooth!r} is not a time in ms of at least 0")
    name = path.stem if name is None else name
    choices: dict[str, Any] = {"path": str(path)}
    if path.suffix.lower() == ".nwb":
        _refuse_given(path, "arrays of .npy, .npz and .mat files", variable=variable, axes=axes)
        rate = _as_rate(sampling_rate, path)
        if rate is None:
            raise DataError(
                f"{path}: spikes have no sampling rate; say at which to count them, sampling_rate=100 or so"
            )
        arrays = _nwb_rates(path, rate, smooth, align_to, window, trials, units)
        choices |= {"align_to": align_to, "window": window, "trials": trials, "units": units}
    else:
        spikes_only = {"align_to": align_to, "window": window, "trials": trials, "units": units}
        _refuse_given(path, "spikes of .nwb files", **spikes_only)
        variables = _guarded(READERS[path.suffix.lower()], path)
        rate = _as_rate(sampling_rate, path, variables)
        variable, found = _choose(variables, variable, path, sampling_rate)
        arrays, axes = _arrange(found, axes, f"{path}, {variable}" if variable else str(path))
        choices |= {"variable": variable, "axes": axes}
        if not keep_non_finite:
            first = "load with keep_non_finite=True and "
            refuse_non_finite([torch.from_numpy(array) for array in arrays], name, first)
        if smooth:
            if rate is None:
                raise DataError(f"{path}: smooth = {smooth:g} ms needs a sampling rate; give sampling_rate in Hz")
            arrays = [_smoothed(array, smooth * rate / 1000) for array in arrays]
    choices |= {"sampling_rate": rate, "smooth": smooth, "decimate": decimate, "zscore": zscore}
    choices["keep_non_finite"] = keep_non_finite
    if decimate > 1:
        arrays = [_decimated(array, decimate, f"{path}, trial {k}") for k, array in enumerate(arrays)]
        rate = rate / decimate if rate else None
    if zscore:
        arrays = _standardised(arrays)
    return Recording(name, arrays, rate, choices)


def load_recordings(paths: Iterable[str | Path], **choices: Any) -> dict[str, Recording]:
    """Read several systems with the same choices; a mapping from name to recording for `compare`.

    Files of one name are told apart by their folders.

    Raises
    ------
    DataError
        As `load_recording`; the same file twice; sampling rates that differ or are known of some files only.
    """
    files = [Path(path) for path in paths]
    recordings = {
        name: load_recording(path, name=name, **choices) for name, path in zip(_names(files), files, strict=True)
    }
    rates = {name: recording.sampling_rate for name, recording in recordings.items()}
    known = [rate for rate in rates.values() if rate is not None]
    if len(known) not in (0, len(rates)) or (known and not np.allclose(known, known[0], rtol=1e-3)):
        listed = ", ".join(f"{name} {f'{rate:g} Hz' if rate else 'unknown'}" for name, rate in rates.items())
        raise DataError(
            f"sampling rates differ: {listed}. A step of an operator is a sample, so all systems need one rate: load "
            f"them one by one with decimate or, for spikes, sampling_rate chosen so that they agree"
        )
    return recordings


# ---- files -> arrays -------------------------------------------------------------------------------------------------

# What a file holds under each name: an array, a list of arrays (a MATLAB cell), or in words what cannot be used.
Variables = dict[str, np.ndarray | list[np.ndarray] | str]


def _read_npy(path: Path) -> Variables:
    array = _from_numpy(lambda: np.load(path, allow_pickle=False))
    if not isinstance(array, (np.ndarray, str)):
        raise ValueError("it is a zip archive, as .npz files are")
    return {"": array}


def _read_npz(path: Path) -> Variables:
    with np.load(path, allow_pickle=False) as file:
        return {name: _from_numpy(lambda name=name: file[name]) for name in file.files}  # type: ignore[misc]


def _from_numpy(read: Callable[[], np.ndarray]) -> np.ndarray | str:
    try:
        return read()
    except ValueError as problem:
        if not str(problem).startswith("Object arrays"):
            raise
        return "Python objects, which only unsafe pickle reads"


def _read_mat(path: Path) -> Variables:
    if h5py.is_hdf5(path):  # version 7.3
        with h5py.File(path) as file:
            return {name: _from_hdf5(file, file[name]) for name in file if not name.startswith("#")}
    return {name: _from_matlab(value) for name, value in loadmat(path).items() if not name.startswith("__")}


def _from_matlab(value: Any) -> np.ndarray | list[np.ndarray] | str:
    if not isinstance(value, np.ndarray):
        return "sparse matrix" if hasattr(value, "nnz") else type(value).__name__
    if value.dtype.names:
        return f"struct with fields {', '.join(value.dtype.names)}"
    if value.dtype != object:
        return value
    cells = list(value.ravel(order="F"))
    numeric = all(isinstance(cell, np.ndarray) and cell.dtype.kind in "fiub" for cell in cells)
    return cells if cells and numeric else "cell array of other things than matrices"


def _from_hdf5(file: h5py.File, item: Any) -> np.ndarray | list[np.ndarray] | str:
    """A variable of a version 7.3 file; MATLAB's axes come reversed there."""
    kind = item.attrs.get("MATLAB_class", b"").decode()
    if isinstance(item, h5py.Group):
        return "sparse matrix" if "MATLAB_sparse" in item.attrs else f"struct with fields {', '.join(item)}"
    if kind == "char":
        return "text"
    if "MATLAB_empty" in item.attrs:
        return "empty"
    if item.dtype != h5py.ref_dtype:
        return item[()].T
    cells = [_from_hdf5(file, file[reference]) for reference in item[()].T.ravel(order="F")]
    matrices = [cell for cell in cells if isinstance(cell, np.ndarray)]
    return matrices if len(matrices) == len(cells) else "cell array of other things than matrices"


READERS: dict[str, Callable[[Path], Variables]] = {".npy": _read_npy, ".npz": _read_npz, ".mat": _read_mat}


def _guarded(read: Callable[..., Any], path: Path, *arguments: Any) -> Any:
    """What ``read`` gives; whatever a damaged file makes it raise becomes one kind of error."""
    try:
        return read(path, *arguments)
    except DataError:
        raise
    except UNREADABLE as problem:
        raise DataError(
            f"{path} is damaged, or no {path.suffix} file ({type(problem).__name__}: {problem}); write it again"
        ) from problem


def _refuse_unreadable(path: Path) -> None:
    kinds = [*READERS, ".nwb"]
    if path.suffix.lower() not in kinds:
        kind = f"{path.suffix!r}" if path.suffix else "without ending"
        raise DataError(f"{path}: files {kind} are not read; accepted are {', '.join(kinds)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file ({path.absolute()})")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty (0 bytes)")


def _refuse_given(path: Path, what: str, **choices: Any) -> None:
    for key, value in choices.items():
        if value is not None:
            raise DataError(f"{path}: {key} = {value!r} is for {what} only")


# ---- arrays -> trials ------------------------------------------------------------------------------------------------


def _choose(
    variables: Variables, wanted: str | None, path: Path, rate: float | str | None
) -> tuple[str, np.ndarray | list[np.ndarray]]:
    """The array that was asked for, or the only one there is, with its name."""
    usable = {
        name: value
        for name, value in variables.items()
        if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.size > 1)
    }
    listed = ", ".join(f"{name} ({_described(value)})".strip() for name, value in variables.items()) or "nothing"
    if not usable:
        raise DataError(f"{path} holds no array of real numbers; there is: {listed}")
    if wanted is None:
        left = [name for name in usable if name != rate]
        if len(left) > 1:
            raise DataError(f"{path} holds several arrays: {listed}. Say which one by variable, such as {left[0]!r}")
        return left[0], usable[left[0]]
    chosen = [name for name in usable if fnmatchcase(name, wanted)]
    if not chosen:
        near = get_close_matches(wanted, usable, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{path} holds no array of real numbers {wanted!r}, but: {listed}{hint}")
    if len(chosen) == 1:
        return chosen[0], usable[chosen[0]]
    chosen.sort(key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])
    cells = [name for name in chosen if isinstance(usable[name], list)]
    if cells:
        raise DataError(f"{path}: {wanted!r} takes {cells[0]!r}, which is a cell array and holds several trials itself")
    return wanted, [np.asarray(usable[name]) for name in chosen]


def _described(value: np.ndarray | list[np.ndarray] | str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"cell array of {len(value)}"
    return f"{' x '.join(map(str, value.shape)) or 'a number'}, {value.dtype}"


def _arrange(found: np.ndarray | list[np.ndarray], stated: str | None, where: str) -> tuple[list[np.ndarray], str]:
    """Trials as (n_times, n_channels) floating point, and what the axes were taken to be."""
    arrays = found if isinstance(found, list) else [found]
    axes = _as_axes(stated, arrays[0].ndim, where, ragged=isinstance(found, list))
    trials: list[np.ndarray] = []
    for array in arrays:
        if array.ndim != len(axes):
            raise DataError(f"{where} has axes {array.shape}, but {', '.join(axes)} were expected")
        array = array.astype(array.dtype if array.dtype.kind == "f" and array.itemsize in (4, 8) else float, copy=False)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        array = array.transpose([axes.index(axis) for axis in AXES if axis in axes])
        array = array if "channel" in axes else array[..., None]
        trials.extend(array if "trial" in axes else [array])
    if not trials or not all(trial.size for trial in trials):
        raise DataError(f"{where} of shape {' and '.join(str(array.shape) for array in arrays[:3])} holds no samples")
    if stated is None:
        _suspect(trials, axes, where)
    return trials, ", ".join(axes)


def _as_axes(stated: str | None, ndim: int, where: str, ragged: bool) -> tuple[str, ...]:
    if stated is None:
        if ndim not in (1, 2, 3) or (ragged and ndim == 3):
            raise DataError(f"{where} has {ndim} axes; accepted are {', '.join(AXES[ragged:])}, in any order: say axes")
        return {1: ("time",), 2: ("time", "channel"), 3: AXES}[ndim]
    axes = tuple(word for word in re.split(r"[\s,]+", stated.lower()) if word)
    axes = tuple(axis.removesuffix("s") for axis in axes)
    for axis in axes:
        check_choice("axes", axis, AXES)
    if len(set(axes)) < len(axes) or "time" not in axes:
        raise DataError(f"axes = {stated!r}: each axis has one name, and one of them is time")
    if len(axes) != ndim or (ragged and "trial" in axes):
        raise DataError(f"axes = {stated!r} are {len(axes)}, but {'each trial of ' * ragged}{where} has {ndim} axes")
    return axes


def _suspect(trials: list[np.ndarray], axes: tuple[str, ...], where: str) -> None:
    """Refuse an order of axes nobody stated if time is shorter than channels; warn if channels change more smoothly."""
    n_times, n_channels = max(map(len, trials)), trials[0].shape[1]
    turned = ", ".join({"time": "channel", "channel": "time"}.get(axis, axis) for axis in axes)
    if n_times < n_channels:
        raise DataError(
            f"{where}: read as ({', '.join(axes)}) it has {n_times} samples of {n_channels} channels. Is time on "
            f"another axis? Say axes = '{turned}' if so, or axes = '{', '.join(axes)}' if this is right"
        )
    if n_channels == 1:
        return
    with np.errstate(invalid="ignore"):  # NaN says nothing of the order of axes
        over_time, over_channels = (sum(np.square(np.diff(x, axis=axis)).mean() for x in trials) for axis in (0, 1))
    if over_channels < over_time / 4:
        warnings.warn(
            f"{where}: read as ({', '.join(axes)}) values change more smoothly across channels than over time; "
            f"say axes = '{turned}' if time is there, or axes = '{', '.join(axes)}' if this is right",
            stacklevel=5,
        )


def _as_rate(given: float | str | None, path: Path, variables: Variables | None = None) -> float | None:
    """Samples a second: a number, or what a variable of the file says."""
    if isinstance(given, str):
        value = (variables or {}).get(given)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or not value.size:
            names = ", ".join(variables or ()) or "no variables"
            raise DataError(f"{path}: sampling_rate = {given!r} names no numbers of this file, which holds {names}")
        given = _rate_of_times(value.ravel().astype(float), path, given) if value.size > 1 else float(value.ravel()[0])
    if given is not None and (isinstance(given, bool) or not 0 < given < math.inf):
        raise DataError(f"{path}: sampling_rate = {given!r} is not a positive number of Hz")
    return None if given is None else float(given)


def _rate_of_times(times: np.ndarray, path: Path, name: str) -> float:
    steps = np.diff(times)
    if not (steps > 0).all():  # NaN included
        k = int(np.argmin(steps > 0))
        raise DataError(
            f"{path}, {name}: times do not rise at sample {k + 1} ({times[k]:g} s, then {times[k + 1]:g} s)"
        )
    typical = float(np.median(steps))
    if abs(steps - typical).max() > 0.1 * typical:
        k = int(abs(steps - typical).argmax())
        raise DataError(
            f"{path}, {name}: samples are not evenly spaced: {steps[k]:g} s at sample {k + 1}, {typical:g} s mostly; "
            f"resample, or cut the trials at the gap"
        )
    return float((len(times) - 1) / (times[-1] - times[0]))


def _names(paths: list[Path]) -> list[str]:
    """The shortest ends of the paths, without their last ending, that tell them apart."""
    if len({path.absolute() for path in paths}) < len(paths):
        twice = next(path for k, path in enumerate(paths) if path.absolute() in {p.absolute() for p in paths[:k]})
        raise DataError(f"{twice} was given twice")
    for depth in range(1, 1 + max((len(path.absolute().parts) for path in paths), default=0)):
        names = ["/".join(path.absolute().with_suffix("").parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]  # they differ in their endings alone


# ---- processing ------------------------------------------------------------------------------------------------------


def _smoothed(trial: np.ndarray, width: float) -> np.ndarray:
    """Gaussian mean over time, ``width`` its standard deviation in samples, of the samples there are."""
    weight = gaussian_filter1d(np.ones(len(trial)), width, mode="constant")
    return gaussian_filter1d(trial, width, axis=0, mode="constant") / weight[:, None].astype(trial.dtype)


def _decimated(trial: np.ndarray, factor: int, where: str) -> np.ndarray:
    n_times = len(trial) // factor
    if not n_times:
        raise DataError(f"{where} has {len(trial)} samples; decimate = {factor} leaves none")
    return trial[: n_times * factor].reshape(n_times, factor, -1).mean(1)


def _standardised(trials: list[np.ndarray]) -> list[np.ndarray]:
    whole = [trial for trial in trials if np.isfinite(trial).all()]
    samples = np.concatenate(whole or trials)
    mean, deviation = samples.mean(0), samples.std(0)
    constant = samples.min(0) == samples.max(0)  # their deviation may be rounding instead of 0
    mean, deviation = np.where(constant, samples[0], mean), np.where(constant, 1, deviation)
    return [((trial - mean) / deviation).astype(trial.dtype) for trial in trials]


# ---- Neurodata Without Borders ---------------------------------------------------------------------------------------


def _nwb_rates(
    path: Path,
    rate: float,
    smooth: float,
    align_to: str | None,
    window: tuple[float, float] | None,
    trials: str | None,
    units: str | None,
) -> list[np.ndarray]:
    """Spikes a second of each unit in bins of 1 / ``rate`` s, (n_bins_i, n_units) for each trial."""
    if (align_to is None) != (window is None):
        raise DataError("align_to and window belong together: give both, or neither for whole trials")
    if window is not None and not window[0] < window[1]:
        raise DataError(f"window = {window} ends before it begins")
    unit_table, trial_table, spikes = _guarded(_read_nwb, path)
    which = _query(unit_table, units, "units", path).index
    table = _query(trial_table, trials, "trials", path)
    spikes = [spikes[unit] for unit in which]
    for unit, times in zip(which, spikes, strict=True):
        if not (np.diff(times) >= 0).all():
            k = int(np.argmin(np.diff(times) >= 0))
            raise DataError(
                f"{path}, unit {unit}: spike times do not rise at spike {k + 1} ({times[k]:g} s, then "
                f"{times[k + 1]:g} s)"
            )
    if align_to is not None:
        check_choice("align_to", align_to, [c for c in table if pd.api.types.is_numeric_dtype(table[c])])
    starts, stops = table["start_time"], table["stop_time"]
    if align_to is not None and window is not None:
        starts, stops = table[align_to] + window[0], table[align_to] + window[1]
    n_bins = np.floor((stops - starts).to_numpy(float) * rate + 1e-6)  # a bin that lacks a rounding error is whole
    wrong = table.index[~(n_bins >= 1)]
    if len(wrong):
        shown = ", ".join(map(str, wrong[:5])) + ", ..." * (len(wrong) > 5)
        raise DataError(
            f"{path}: trials {shown} hold no bin of {1000 / rate:g} ms, or lack a time (trial {wrong[0]}: "
            f"{starts[wrong[0]]:g} to {stops[wrong[0]]:g} s); leave them out by trials, such as "
            f"trials='stop_time > start_time'"
        )
    width = smooth * rate / 1000
    margin = math.ceil(4 * width)  # in bins: the Gaussian's reach, so that it meets spikes and not the end of the trial
    result = []
    for start, n in zip(starts, n_bins.astype(int), strict=True):
        edges = start + np.arange(-margin, n + margin + 1) / rate
        rates = rate * np.stack([np.diff(np.searchsorted(times, edges)) for times in spikes], 1).astype(float)
        if smooth:
            rates = gaussian_filter1d(rates, width, axis=0, mode="constant", radius=margin)
        result.append(rates[margin : margin + n])
    return result


def _read_nwb(path: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[np.ndarray]]:
    """The tables of units and trials, and the spike times of each unit in s."""
    with h5py.File(path) as file:
        version = file.attrs.get("nwb_version", "none")
        if not str(version).lstrip("b'").startswith("2"):
            raise DataError(f"{path}: NWB version is {version}; files of version 2 are read")
        if "units" not in file or "spike_times" not in file["units"] or not len(file["units/id"]):
            raise DataError(
                f"{path} has no units with spike times; for other series export an array (trial, time, channel)"
            )
        if "intervals/trials" not in file or not len(file["intervals/trials/id"]):
            raise DataError(f"{path} has no trials (the table intervals/trials is missing or empty)")
        ends = file["units/spike_times_index"][()]
        spikes = np.split(file["units/spike_times"][()].astype(float), ends[:-1])
        return _table(file["units"]), _table(file["intervals/trials"]), spikes


def _table(group: h5py.Group) -> pd.DataFrame:
    """The columns that hold one number or text a row; rows are counted from 0."""
    n_rows, columns = len(group["id"]), {}
    for name, column in group.items():
        if (
            isinstance(column, h5py.Dataset)
            and column.shape == (n_rows,)
            and not {f"{name}_index", name.removesuffix("_index")} - {name} & set(group)
        ):
            text = h5py.check_string_dtype(column.dtype) is not None
            if text or column.dtype.kind in "fiub" or h5py.check_enum_dtype(column.dtype):
                columns[name] = column.asstr()[()] if text else column[()]
    return pd.DataFrame(columns, index=range(n_rows))


def _query(table: pd.DataFrame, query: str | None, what: str, path: Path) -> pd.DataFrame:
    try:
        rows = table if query is None else table.query(query)
    except Exception as problem:  # pandas raises whatever the words in the query lead it to
        raise DataError(
            f"{path}: {what} = {query!r} cannot be answered ({problem}); columns are {', '.join(table)}"
        ) from None
    if rows.empty:
        raise DataError(f"{path}: {what} = {query!r} leaves none of {len(table)}")
    return rows
