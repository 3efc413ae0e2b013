"""Spike trains -> rates: the rows of the tables that a condition selects, windows of trials, counts in bins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dsa_analysis.containers import DataError, check_memory
from dsa_analysis.data import check_choice
from dsa_analysis.recordings.contents import SpikeTrains
from dsa_analysis.recordings.processing import check_width, reach

if TYPE_CHECKING:
    import pandas as pd


def rates(
    spikes: SpikeTrains,
    rate: float,
    where: str,
    *,
    smooth: float = 0.0,
    align_to: str | None = None,
    window: tuple[float, float] | None = None,
    trials: str | None = None,
    units: str | None = None,
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Spikes a second of each unit, (n_bins_i, n_units) for each trial in bins of 1 / ``rate`` s; what was selected.

    Parameters are those of `load_recording`.
    """
    if len(spikes.times) != len(spikes.units):
        raise DataError(f"{where}: spike times of {len(spikes.times)} units, but a table of {len(spikes.units)} units")
    which = select(spikes.units, units, "units", where)
    table = spikes.trials[select(spikes.trials, trials, "trials", where)]
    times = {int(unit): _rising(spikes.times[unit], unit, where) for unit in np.flatnonzero(which)}
    starts, stops = _limits(table, align_to, window, where)
    n_bins = np.floor((stops - starts) * rate + 1e-6)  # a bin that lacks a rounding error is whole
    wrong = np.flatnonzero(~(n_bins >= 1) | ~np.isfinite(n_bins))
    if len(wrong):
        numbers = [str(table.index[k]) for k in wrong[:5]] + ["..."] * (len(wrong) > 5)
        raise DataError(
            f"{where}: trials {', '.join(numbers)} hold no bin of {1000 / rate:g} ms, or lack a time (trial "
            f"{numbers[0]}: {starts[wrong[0]]:g} to {stops[wrong[0]]:g} s); leave them out by trials, such as "
            f"trials='stop_time > start_time'"
        )
    width = check_width(smooth, rate, n_bins.max(), where) if smooth else 0.0
    margin = reach(width)  # so that the Gaussian meets spikes and not the end of the trial
    check_memory(8 * float(n_bins.sum() + 2 * margin) * len(times), f"{where}: bins of {1000 / rate:g} ms")
    result = [_counted(times, start, int(n), rate, width, margin) for start, n in zip(starts, n_bins, strict=True)]
    kept = {"n_trials": f"{len(table)} of {len(spikes.trials)}", "n_units": f"{len(times)} of {len(spikes.times)}"}
    return result, kept


def select(table: pd.DataFrame, condition: str | None, what: str, where: str) -> np.ndarray:
    """Which rows of the table a condition holds for, bool (n_rows,).

    `pandas.DataFrame.query` takes any value for labels of rows, such as the 0 and 1 of a column of integers. Here a
    condition is true or false in each row, or it is refused.
    """
    if condition is None:
        return np.ones(len(table), bool)
    columns = f"columns are {', '.join(map(str, table))}"
    if not isinstance(condition, str):
        raise DataError(f"{where}: {what} = {condition!r} is no text; give a condition such as 'correct == 1'")
    try:
        value = table.eval(condition, engine="python", local_dict={}, global_dict={})
    except Exception as problem:  # pandas raises whatever the words in the condition lead it to
        raise DataError(f"{where}: {what} = {condition!r} cannot be answered ({problem}); {columns}") from None
    dtype = getattr(value, "dtype", None)
    if getattr(value, "shape", None) != (len(table),) or getattr(dtype, "kind", "") != "b":
        what_came = (
            f"{dtype} values" if getattr(value, "shape", None) == (len(table),) else f"one {type(value).__name__}"
        )
        example = f"{condition} == 1" if condition in table else "correct == 1"
        raise DataError(
            f"{where}: {what} = {condition!r} is no condition: it gives {what_came}, not true or false for each row; "
            f"say what must hold, such as {example!r}; {columns}"
        )
    if value.isna().any():
        raise DataError(f"{where}: {what} = {condition!r} is neither true nor false in {int(value.isna().sum())} rows")
    rows = value.to_numpy(dtype=bool)
    if not rows.any():
        raise DataError(f"{where}: {what} = {condition!r} leaves none of {len(table)}")
    return rows


def _limits(
    table: pd.DataFrame, align_to: str | None, window: tuple[float, float] | None, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop of each trial in s."""
    numeric = [str(name) for name, dtype in table.dtypes.items() if dtype.kind in "fiu"]
    if align_to is not None and window is not None:
        check_choice("align_to", align_to, numeric)
        events = table[align_to].to_numpy(float)
        return events + window[0], events + window[1]
    missing = [name for name in ("start_time", "stop_time") if name not in numeric]
    if missing:
        raise DataError(
            f"{where}: the table of trials has no times {' and '.join(missing)}, but {', '.join(map(str, table))}; say "
            f"align_to, one of its columns of times, and window"
        )
    return table["start_time"].to_numpy(float), table["stop_time"].to_numpy(float)


def _rising(times: np.ndarray, unit: int, where: str) -> np.ndarray:
    if not np.isfinite(times).all():
        k = int(np.argmin(np.isfinite(times)))
        raise DataError(f"{where}, unit {unit}: the time of spike {k} is {times[k]}")
    if not (np.diff(times) >= 0).all():
        k = int(np.argmin(np.diff(times) >= 0))
        raise DataError(
            f"{where}, unit {unit}: spike times do not rise at spike {k + 1} ({times[k]:g} s, then {times[k + 1]:g} s)"
        )
    return times


def _counted(
    times: dict[int, np.ndarray], start: float, n_bins: int, rate: float, width: float, margin: int
) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    edges = start + np.arange(-margin, n_bins + margin + 1) / rate
    counts = rate * np.stack([np.diff(np.searchsorted(one, edges)) for one in times.values()], 1).astype(float)
    if width:
        counts = gaussian_filter1d(counts, width, axis=0, mode="constant", radius=margin)
    return counts[margin : margin + n_bins]
