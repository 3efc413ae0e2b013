"""`load_recording`: one file -> one system. `load_recordings`: several files, the same choices for all."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsa_analysis.containers import DataError
from dsa_analysis.data import check_count, check_flag, check_number, refuse_non_finite, shown
from dsa_analysis.recordings import processing, selection, spikes
from dsa_analysis.recordings.contents import SpikeTrains, Variables
from dsa_analysis.recordings.readers import extension, read, refuse_unreadable


@dataclass(frozen=True, repr=False)
class Recording:
    """One recorded system, as `compare` takes it.

    Attributes
    ----------
    name : str
    trials : list of (n_times_i, n_channels)
        Floating point; rates in Hz where they come from spikes.
    sampling_rate : float or None
        Samples per second after decimation; None if it is not known.
    settings : dict
        The path and all choices, given or default. For spikes also how many trials and units were selected.
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

    def __repr__(self) -> str:
        return f"<Recording {self}>"

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
    path : .npy, .npz, .mat (of any version, MATLAB's axis order), .nwb (2.x, HDF5) or an extension of `READERS`
        No pickled objects are read, and no other files that the file refers to. A MATLAB cell array of matrices with
        one row or column is a list of trials. "~" is your home folder.
    name : str, optional
        Label of the system; by default the file's name without its extension.
    variable : str, optional
        Which array of an .npz or .mat file; required if there are several. A pattern such as "trial_*" takes all
        variables that match, in natural order, as trials of unequal length; each must be an array of real numbers. An
        exact name takes precedence over a pattern.
    axes : str, optional
        Names of the axes in the file, such as "channel, time, trial"; "trial" and "channel" may be missing. The default
        is (trial, time, channel), (time, channel) or (time), and is refused if there would be fewer samples than
        channels. MATLAB drops a last axis of length 1; if you give ``axes``, it is restored.
    sampling_rate : float or str, optional
        In Hz, or the name of a variable of the file that holds a number in Hz or the evenly spaced times of the samples
        in s. Required for spikes: the rate at which they are counted.
    smooth : float >= 0, in ms
        Standard deviation of a Gaussian filter along time, at most the length of the longest trial. At the ends of a
        trial of an array, the weights of the samples inside are rescaled to sum to one. Spikes before and after a trial
        are known, so they are used there.
    decimate : int >= 1
        Replace each group of this many consecutive samples by its mean. An incomplete group at the end of a trial is
        dropped.
    zscore : bool
        Scale each channel to mean 0 and variance 1 over all its samples. Constant channels become 0; rounding errors of
        smoothing do not count as variation. Gains of channels change distances: with z-scores all channels have the
        same weight, without them the channels that vary most dominate.
    keep_non_finite : bool
        Keep trials that hold NaN or infinity, so that `omit_trials` can leave them out. Z-scores are computed from the
        other trials.
    align_to, window : str, (float, float) in s, optional
        Spikes only: trials last from window[0] to window[1] relative to the times in this column of the trial table.
        By default they last from start_time to stop_time.
    trials, units : str, optional
        Spikes only: which rows of the tables of trials and units to use. A condition in the syntax of
        `pandas.DataFrame.query` that is true or false in each row: "correct == 1 and rule == 'fdgo'". A column of 0 and
        1 alone is refused.

    Returns
    -------
    Recording
        You can pass it to `compare`.

    Raises
    ------
    DataError
        A file that is missing, empty, locked, damaged, of an unknown kind, larger than memory or without usable
        numbers; choices that it needs or that do not fit; times that do not rise. The message names file, variable and
        place.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "monday.npz"
    >>> np.savez(path, rates=np.random.default_rng(0).normal(size=(4, 50, 3)).cumsum(1), fs=100.0)
    >>> load_recording(path, sampling_rate="fs", decimate=2)
    <Recording monday: 4 trials x 25 samples x 3 channels, 50 Hz>
    """
    path = Path(path).expanduser()
    refuse_unreadable(path)
    for key, value in {"name": name, "variable": variable, "axes": axes, "align_to": align_to}.items():
        if value is not None and not isinstance(value, str):
            raise DataError(f"{key} = {shown(value)} is no text")
    decimate, zscore = check_count("decimate", decimate), check_flag("zscore", zscore)
    smooth = check_number("smooth", smooth, "a time in ms of at least 0", 0)
    keep_non_finite = check_flag("keep_non_finite", keep_non_finite)
    window = _as_window(align_to, window)
    if not isinstance(sampling_rate, str):
        sampling_rate = selection.as_rate(sampling_rate, str(path))
    name = path.name[: -len(extension(path))] if name is None else name

    contents = read(path)
    choices: dict[str, Any] = {"path": str(path)}
    of_spikes = {"align_to": align_to, "window": window, "trials": trials, "units": units}
    if isinstance(contents, SpikeTrains):
        _refuse_given(path, "arrays, such as those of .npy, .npz and .mat files", variable=variable, axes=axes)
        rate = selection.as_rate(sampling_rate, str(path))
        if rate is None:
            raise DataError(
                f"{path}: spikes have no sampling rate; say at which to count them, sampling_rate=100 or so"
            )
        arrays, kept = spikes.rates(contents, rate, str(path), smooth=smooth, **of_spikes)  # type: ignore[arg-type]
        choices |= of_spikes | kept
    else:
        _refuse_given(path, "spikes, such as those of .nwb files", **of_spikes)
        rate = selection.as_rate(sampling_rate, str(path), contents)
        arrays, chosen = _trials(contents, path, variable, axes, sampling_rate)
        choices |= chosen
        if not keep_non_finite:
            first = "load with keep_non_finite=True and "
            refuse_non_finite([torch.from_numpy(array) for array in arrays], name, first)
        if smooth:
            if rate is None:
                raise DataError(f"{path}: smooth = {smooth:g} ms needs a sampling rate; give sampling_rate in Hz")
            width = processing.check_width(smooth, rate, max(map(len, arrays)), str(path))
            arrays = processing.smoothed(arrays, width)
    choices |= {"sampling_rate": rate, "smooth": smooth, "decimate": decimate, "zscore": zscore}
    choices["keep_non_finite"] = keep_non_finite
    if decimate > 1:
        arrays = processing.decimated(arrays, decimate, str(path))
        rate = rate / decimate if rate else None
    if zscore:
        arrays = processing.standardised(arrays)
    return Recording(name, arrays, rate, choices)


def load_recordings(paths: Iterable[str | Path], **choices: Any) -> dict[str, Recording]:
    """Read several systems with the same choices.

    Parameters
    ----------
    paths : iterable of paths
        One file for each system. If files have the same name, their folders become part of the labels.
    **choices
        Keyword arguments of `load_recording` except ``name``.

    Returns
    -------
    dict from label to Recording
        You can pass it to `compare`.

    Raises
    ------
    DataError
        As `load_recording`; the same file twice; sampling rates that differ or are known of some files only; axes that
        were not stated and came out differently.
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise DataError(f"paths = {shown(paths)} is one path; give a list of paths")
    files = [Path(path).expanduser() for path in paths]
    recordings = {
        name: load_recording(path, name=name, **choices) for name, path in zip(labels_of(files), files, strict=True)
    }
    if choices.get("axes") is None:
        _refuse_unequal(recordings)
    rates = {name: recording.sampling_rate for name, recording in recordings.items()}
    known = [rate for rate in rates.values() if rate is not None]
    if len(known) not in (0, len(rates)) or (known and not np.allclose(known, known[0], rtol=1e-3)):
        listed = ", ".join(f"{name} {f'{rate:g} Hz' if rate else 'unknown'}" for name, rate in rates.items())
        raise DataError(
            f"sampling rates differ: {listed}. A step of an operator is a sample, so all systems need one rate: load "
            f"them one by one with decimate or, for spikes, sampling_rate chosen so that they agree"
        )
    return recordings


def _refuse_unequal(recordings: dict[str, Recording]) -> None:
    """Refuse MATLAB files of one call whose axes were guessed differently: MATLAB drops a last axis of length 1."""
    of_matlab = [one for one in recordings.values() if one.settings["path"].lower().endswith(".mat")]
    axes = {one.settings["axes"]: one.name for one in reversed(of_matlab)}
    if len(axes) > 1:
        listed = "; ".join(f"{name}: {read_as}" for read_as, name in axes.items())
        raise DataError(
            f"axes were not stated and differ ({listed}). MATLAB drops a last axis of length 1: say axes, such as "
            f"axes='trial, time, channel', if all files have the same"
        )


# ---- choices ---------------------------------------------------------------------------------------------------------


def _trials(
    variables: Variables, path: Path, variable: str | None, axes: str | None, rate: float | str | None
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The trials of the chosen variable, and what was chosen."""
    variable, found = selection.choose(variables, variable, str(path), rate)
    where = f"{path}, {variable}" if variable else str(path)
    arrays, read_as = selection.arrange(found, axes, where, matlab=extension(path) == ".mat")
    return arrays, {"variable": variable, "axes": read_as}


def _as_window(align_to: str | None, window: Any) -> tuple[float, float] | None:
    if (align_to is None) != (window is None):
        raise DataError("align_to and window belong together: give both, or neither for whole trials")
    if window is None:
        return None
    if isinstance(window, str) or not hasattr(window, "__len__") or len(window) != 2:
        raise DataError(f"window = {shown(window)} is no pair of times in s, such as (-0.2, 0.5)")
    start, stop = (check_number("window", time, "a pair of times in s, such as (-0.2, 0.5)") for time in window)
    if not start < stop:
        raise DataError(f"window = ({start:g}, {stop:g}) ends before it begins")
    return start, stop


def _refuse_given(path: Path, what: str, **choices: Any) -> None:
    for key, value in choices.items():
        if value is not None:
            raise DataError(f"{path}: {key} = {shown(value)} is for {what} only")


def labels_of(paths: Sequence[str | Path]) -> list[str]:
    """Labels of the systems in some files: the shortest ends of the paths, without extension, that tell them apart.

    Parameters
    ----------
    paths : paths
        They need not exist.

    Raises
    ------
    DataError
        The same file twice.
    """
    places = [Path(os.path.abspath(Path(path).expanduser())) for path in paths]
    if len(set(places)) < len(places):
        twice = next(path for k, path in enumerate(paths) if places[k] in places[:k])
        raise DataError(f"{twice} was given twice")
    stems = [(*place.parts[:-1], place.name[: -len(extension(place))]) for place in places]
    for depth in range(1, 1 + max(map(len, stems), default=0)):
        names = ["/".join(stem[-depth:]) for stem in stems]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]  # they differ in their extensions alone
