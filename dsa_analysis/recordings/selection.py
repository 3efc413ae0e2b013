"""Variables of a file -> the trials that were asked for, axes in order, and the sampling rate.

What a file does not say is asked for: which of several arrays, and which axis is time where the lengths leave doubt. No
variable that a pattern fits is left out.
"""

import re
import warnings
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from dsa_analysis.containers import AXES, DataError
from dsa_analysis.data import check_choice, check_number
from dsa_analysis.recordings.contents import Variables

LARGEST = 1e100  # of a value; its square and the sums of these fit into float64
EXACT = 2**53  # whole numbers beyond are rounded in float64


def choose(
    variables: Variables, wanted: str | None, path: str, rate: str | float | None
) -> tuple[str, np.ndarray | list[np.ndarray]]:
    """The array that was asked for, or the only one there is, with its name. An exact name goes before a pattern.

    A variable that gives the sampling ``rate`` is no candidate, unless it is named exactly.
    """
    listed = ", ".join(f"{name} ({_described(value)})".strip() for name, value in variables.items()) or "nothing"
    usable = [name for name, value in variables.items() if _is_usable(value)]
    series = [
        name for name in usable if isinstance(variables[name], list) or np.size(variables[name]) > 1
    ]  # no numbers
    others = [name for name in series if name != rate]
    if not series:
        raise DataError(f"{path} holds no array of real numbers; there is: {listed}")
    if wanted is None:
        if len(others) != 1:
            named = f"; {rate!r} was named as the sampling rate" * (not others)
            example = f", such as {others[0]!r}" if others else ""
            raise DataError(
                f"{path} holds {'several arrays' if others else 'no other array of real numbers'}: {listed}. Say which "
                f"one by variable{example}{named}"
            )
        return others[0], _usable(variables, others[0], path)
    if wanted in variables:
        return wanted, _usable(variables, wanted, path)
    chosen = [name for name in variables if name != rate and fnmatchcase(name, wanted)]
    if not chosen:
        near = get_close_matches(wanted, usable, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{path} holds no array of real numbers {wanted!r}, but: {listed}{hint}")
    if len(chosen) == 1:
        return chosen[0], _usable(variables, chosen[0], path)
    chosen.sort(key=lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)])
    unusable = [
        name for name in chosen if not isinstance(variables[name], np.ndarray) or not _is_usable(variables[name])
    ]
    if unusable:
        name = unusable[0]
        raise DataError(
            f"{path}: {len(unusable)} of the {len(chosen)} variables that {wanted!r} fits hold no array of real "
            f"numbers, first {name} ({_described(variables[name])}); use a pattern that fits trials only"
        )
    return wanted, [np.asarray(variables[name]) for name in chosen]


def _is_usable(value: np.ndarray | list[np.ndarray] | str) -> bool:
    return isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.size > 0)


def _usable(variables: Variables, name: str, path: str) -> np.ndarray | list[np.ndarray]:
    value = variables[name]
    if isinstance(value, str) or not _is_usable(value):
        raise DataError(f"{path}: {name} is no array of real numbers, but: {_described(value)}")
    return value


def _described(value: np.ndarray | list[np.ndarray] | str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"cell array of {len(value)}"
    return f"{' x '.join(map(str, value.shape)) or 'a number'}, {value.dtype}"


# ---- axes ------------------------------------------------------------------------------------------------------------


def arrange(
    found: np.ndarray | list[np.ndarray], stated: str | None, where: str, matlab: bool = False
) -> tuple[list[np.ndarray], str]:
    """Trials as (n_times, n_channels) floating point, and what the axes were taken to be.

    ``matlab`` tells that trailing axes of length 1 may have been dropped, or added up to two, by the format.
    """
    ragged = isinstance(found, list)
    arrays = list(found) if isinstance(found, list) else [found]
    axes = _as_axes(stated, arrays[0].ndim if arrays else 0, where, ragged=ragged, matlab=matlab)
    trials: list[np.ndarray] = []
    for k, array in enumerate(arrays):
        place = f"{where}, trial {k}" if ragged else where
        array = _of_dimension(array, len(axes)) if matlab else array
        if array.ndim != len(axes):
            raise DataError(f"{place} has axes {array.shape}, but {', '.join(axes)} were expected")
        if array.dtype.kind not in "fiub":
            raise DataError(f"{place} holds {array.dtype} values; real numbers are needed")
        if not array.size:
            raise DataError(f"{place} of shape {array.shape} holds no samples; leave it out of the file")
        array = _as_floats(array, place)
        array = array.transpose([axes.index(axis) for axis in AXES if axis in axes])
        array = array if "channel" in axes else array[..., None]
        trials.extend(array if "trial" in axes else [array])
    if not trials:
        raise DataError(f"{where} holds no trials")
    counts = [trial.shape[1] for trial in trials]
    if len(set(counts)) > 1:
        k = next(k for k, count in enumerate(counts) if count != counts[0])
        raise DataError(
            f"{where}, trial {k} has {counts[k]} channels, trial 0 has {counts[0]}; all trials need the same"
        )
    if stated is None:
        _suspect(trials, axes, where)
    return trials, ", ".join(axes)


def _of_dimension(array: np.ndarray, ndim: int) -> np.ndarray:
    """The array with so many axes, if that takes no more than trailing axes of length 1."""
    if array.ndim < ndim:
        return array.reshape(array.shape + (1,) * (ndim - array.ndim))
    return array.reshape(array.shape[:ndim]) if set(array.shape[ndim:]) <= {1} else array


def _as_floats(array: np.ndarray, where: str) -> np.ndarray:
    """float32 and float64 as they are, other kinds as float64; nothing that would be rounded or overflow."""
    largest = max(abs(float(array.max())), abs(float(array.min()))) if array.dtype.kind in "iu" else 0.0
    if largest > EXACT:
        raise DataError(f"{where} holds whole numbers up to {largest:.3g}; beyond 2^53 they are not exact as floats")
    array = array.astype(array.dtype if array.dtype.kind == "f" and array.itemsize in (4, 8) else float, copy=False)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.itemsize == 8:
        finite = np.isfinite(array)
        largest = max(float(array.max(where=finite, initial=0)), -float(array.min(where=finite, initial=0)))
    if largest > LARGEST:
        raise DataError(
            f"{where} holds values up to {largest:.3g}, whose squares overflow; the file is damaged, or its bytes are "
            f"in another order than it says"
        )
    return array


def _as_axes(stated: str | None, ndim: int, where: str, ragged: bool, matlab: bool) -> tuple[str, ...]:
    if stated is None:
        if ndim not in (1, 2, 3) or (ragged and ndim == 3):
            raise DataError(f"{where} has {ndim} axes; accepted are {', '.join(AXES[ragged:])}, in any order: say axes")
        return {1: ("time",), 2: ("time", "channel"), 3: AXES}[ndim]
    if not isinstance(stated, str):
        raise DataError(f"axes = {stated!r} is no text such as 'trial, time, channel'")
    axes = tuple(word for word in re.split(r"[\s,]+", stated.lower()) if word)
    axes = tuple(axis.removesuffix("s") for axis in axes)
    for axis in axes:
        check_choice("axes", axis, AXES)
    if len(set(axes)) < len(axes) or "time" not in axes:
        raise DataError(f"axes = {stated!r}: each axis has one name, and one of them is time")
    if (len(axes) != ndim and not matlab) or (ragged and "trial" in axes):
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
        over_time, over_channels = (
            sum(np.square(np.diff(x, axis=axis)).mean() for x in trials if len(x) > 1) for axis in (0, 1)
        )
    if over_channels < over_time / 4:
        warnings.warn(
            f"{where}: read as ({', '.join(axes)}) values change more smoothly across channels than over time; "
            f"say axes = '{turned}' if time is there, or axes = '{', '.join(axes)}' if this is right",
            stacklevel=5,
        )


# ---- sampling rates --------------------------------------------------------------------------------------------------


def as_rate(given: Any, path: str, variables: Variables | None = None) -> float | None:
    """Samples a second: a number, or what a variable of the file says."""
    if given is None:
        return None
    if isinstance(given, str):
        value = (variables or {}).get(given)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or not value.size:
            names = ", ".join(variables or ()) or "no variables"
            raise DataError(f"{path}: sampling_rate = {given!r} names no numbers of this file, which holds {names}")
        if max(value.shape, default=1) < value.size:
            raise DataError(
                f"{path}: sampling_rate = {given!r} is {_described(value)}; one number, or one row of times"
            )
        given = _rate_of_times(value.ravel().astype(float), path, given) if value.size > 1 else float(value.ravel()[0])
    return check_number(f"{path}: sampling_rate", given, "a positive number of Hz", 0, above=True)


def _rate_of_times(times: np.ndarray, path: str, name: str) -> float:
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
